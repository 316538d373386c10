//! The table's schema follows the schemas that records are written with: columns renamed, made optional, widened, added. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use iceberg::spec::{ListType, MapType, NestedField, Schema, StructType, Type};

use super::evolve::{add_declared, create_schema, flattened_fields};
use super::frame::Part;
use super::{KafkaColumn, Rename, WriterSchema, Writers};

/// How the columns of a table are made of schemas.
#[derive(Debug, Clone, Copy, Default)]
pub struct Form {
    /// The table can hold nanoseconds.
    pub nanos: bool,
    /// `nested: flatten`: structs become columns named `a_b`.
    pub flatten: bool,
    /// What the schemas are of.
    pub part: Part,
}

/// Returns the columns for records of `writer`, called as the newest schema of that record calls them.
///
/// # Errors
/// Why there are none.
pub fn wanted(writer: &WriterSchema, writers: &Writers, form: Form) -> Result<Vec<NestedField>, String> {
    let mut fields: Vec<Arc<NestedField>> = writer.columns(form.nanos)?.into_iter().map(Arc::new).collect();
    // A field of a value that is named like a column of ours has none.
    let ours = |field: &NestedField| {
        let mut ours = KafkaColumn::ALL.iter();
        ours.any(|column| field.name.eq_ignore_ascii_case(column.name()))
    };
    fields.retain(|field| form.part == Part::Key || !ours(field));
    let renames = writers.renames(writer);
    let fields = called_now(&fields, &mut Vec::new(), &renames);
    let fields = fields.iter().map(|field| (**field).clone()).collect();
    Ok(match form.flatten {
        true => flattened_fields(fields),
        false => fields,
    })
}

/// Returns the columns for records of all schemas, the oldest first: what two of them disagree on is as the older has it.
pub fn merged(writers: &Writers, form: Form) -> Vec<NestedField> {
    let mut schema: Option<Schema> = None;
    for (_, writer) in writers.all() {
        // One that has no columns is told of when its first record is decoded.
        let Ok(wanted) = wanted(writer, writers, form) else {
            continue;
        };
        schema = Some(match schema {
            None => create_schema(wanted, &[], false),
            Some(schema) => {
                let last_id = schema.highest_field_id();
                add_declared(&schema, last_id, &HashSet::new(), &wanted).unwrap_or(schema)
            }
        });
    }
    let fields = schema.iter().flat_map(|schema| schema.as_struct().fields());
    fields.map(|field| (**field).clone()).collect()
}

/// Changes the table's schema so that it takes records of `writer`; `None` if nothing would change. What still doesn't fit is
/// said when a plan is compiled.
///
/// - `fixed`: field ids of columns that keep their type; see [`super::evolve::fixed`].
///
/// # Errors
/// Why the schema has no columns.
pub fn follow(
    table: &Schema,
    last_column_id: i32,
    fixed: &HashSet<i32>,
    writer: &WriterSchema,
    writers: &Writers,
    form: Form,
) -> Result<Option<Schema>, String> {
    let wanted = wanted(writer, writers, form)?;
    let renames = renames(writer, writers, form);
    let mut fields = renamed(table.as_struct().fields(), &mut Vec::new(), &renames);
    relax(&mut fields, &wanted);
    let same = fields.as_slice() == table.as_struct().fields();
    let base = Schema::builder()
        .with_schema_id(table.schema_id())
        .with_identifier_field_ids(table.identifier_field_ids())
        .with_fields(fields)
        .build();
    // A rename that can't be, since the name is taken inside another column: then none is made.
    let (base, same) = match base {
        Ok(base) => (base, same),
        Err(_) => (table.clone(), true),
    };
    let added = add_declared(&base, last_column_id, fixed, &wanted);
    Ok(added.or_else(|| (!same).then_some(base)))
}

/// The renames that the newest schema of a record knows, or the schema itself where it is the newest.
fn renames(writer: &WriterSchema, writers: &Writers, form: Form) -> Vec<Rename> {
    let renames = writers.renames(writer);
    if !form.flatten {
        return renames;
    }
    let flat = renames.into_iter().map(|rename| {
        let path = |name: &str| [rename.within.as_slice(), &[name.to_owned()]].concat().join("_");
        Rename {
            within: Vec::new(),
            name: path(&rename.name),
            before: rename.before.iter().map(|name| path(name)).collect(),
        }
    });
    flat.collect()
}

/// Gives fields the names that they have now, if they have an older one.
fn called_now(fields: &[Arc<NestedField>], within: &mut Vec<String>, renames: &[Rename]) -> Vec<Arc<NestedField>> {
    let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
    let now = fields.iter().map(|field| {
        let newer = renames.iter().find(|rename| {
            rename.within == *within && rename.before.contains(&field.name) && !names.contains(&rename.name.as_str())
        });
        let mut now = (**field).clone();
        if let Some(newer) = newer {
            now.name.clone_from(&newer.name);
        }
        within.push(now.name.clone());
        now.field_type = Box::new(inside(&now.field_type, within, &mut |fields, within| {
            called_now(fields, within, renames)
        }));
        within.pop();
        Arc::new(now)
    });
    now.collect()
}

/// Gives columns the names that schemas have for them now; their ids stay.
fn renamed(columns: &[Arc<NestedField>], within: &mut Vec<String>, renames: &[Rename]) -> Vec<Arc<NestedField>> {
    let mut now: Vec<Arc<NestedField>> = columns.to_vec();
    for rename in renames.iter().filter(|rename| rename.within == *within) {
        let held = |name: &str, now: &[Arc<NestedField>]| {
            let lower = name.to_lowercase();
            now.iter().position(|column| column.name.to_lowercase() == lower)
        };
        if held(&rename.name, &now).is_some() {
            continue;
        }
        if let Some(at) = rename.before.iter().find_map(|name| held(name, &now)) {
            let mut column = (*now[at]).clone();
            column.name.clone_from(&rename.name);
            now[at] = Arc::new(column);
        }
    }
    for column in &mut now {
        within.push(column.name.clone());
        let of = inside(&column.field_type, within, &mut |fields, within| {
            renamed(fields, within, renames)
        });
        within.pop();
        if of != *column.field_type {
            let mut renamed = (**column).clone();
            renamed.field_type = Box::new(of);
            *column = Arc::new(renamed);
        }
    }
    now
}

/// What is done to the fields of a struct, given the names that lead there.
type Act<'a> = dyn FnMut(&[Arc<NestedField>], &mut Vec<String>) -> Vec<Arc<NestedField>> + 'a;

/// Does something to the fields of the structs inside a type; names lead there.
fn inside(of: &Type, within: &mut Vec<String>, act: &mut Act<'_>) -> Type {
    let mut one = |field: &Arc<NestedField>, name: &str, within: &mut Vec<String>| {
        within.push(name.to_owned());
        let mut field = (**field).clone();
        field.field_type = Box::new(inside(&field.field_type, within, act));
        within.pop();
        Arc::new(field)
    };
    match of {
        Type::Primitive(_) => of.clone(),
        Type::Struct(fields) => Type::Struct(StructType::new(act(fields.fields(), within))),
        Type::List(list) => Type::List(ListType::new(one(&list.element_field, "element", within))),
        Type::Map(map) => Type::Map(MapType::new(
            map.key_field.clone(),
            one(&map.value_field, "value", within),
        )),
    }
}

/// Makes columns optional whose field in the schema may be null.
fn relax(columns: &mut [Arc<NestedField>], wanted: &[NestedField]) {
    for column in columns {
        let lower = column.name.to_lowercase();
        let field = wanted.iter().find(|field| field.name.to_lowercase() == lower);
        if field.is_some_and(|field| !field.required) && column.required {
            let mut optional = (**column).clone();
            optional.required = false;
            *column = Arc::new(optional);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::types;
    use crate::schema::frame::SchemaKey;
    use crate::schema::{SchemaLanguage, SchemaText};

    fn parsed(fields: &str) -> Arc<WriterSchema> {
        let text = SchemaText {
            language: SchemaLanguage::Avro,
            text: format!(r#"{{"type":"record","name":"r","fields":[{fields}]}}"#),
            references: Vec::new(),
        };
        Arc::new(WriterSchema::parse(&SchemaKey::file(), &text).expect("a schema"))
    }

    fn shown(schema: &Schema) -> String {
        let fields = schema.as_struct().fields().iter();
        let fields = fields.map(|field| format!("{}:{} {}", field.id, field.name, types::text(&field.field_type)));
        fields.collect::<Vec<_>>().join(", ")
    }

    /// The schemas come one after the other, as records of new schemas do; the table is as the last leaves it.
    fn check(schemas: &[&str], expect: &str) {
        let mut writers = Writers::default();
        let mut table = Schema::builder().build().expect("an empty schema");
        for (id, fields) in schemas.iter().enumerate() {
            let writer = parsed(fields);
            writers.add(SchemaKey::id(id as i32), writer.clone());
            let last = table.highest_field_id();
            let changed = follow(&table, last, &HashSet::new(), &writer, &writers, Form::default()).expect("columns");
            table = changed.unwrap_or(table);
        }
        assert_eq!(shown(&table), expect, "{schemas:?}");
    }

    #[test]
    fn a_table_follows_its_schemas() {
        check(
            &[
                r#"{"name":"a","type":"int"},{"name":"b","type":"float"}"#,
                r#"{"name":"b","type":"double"},{"name":"a","type":["null","long"]},{"name":"c","type":"string"}"#,
            ],
            "1:a long, 2:b double, 3:c string",
        );
        // A dropped field leaves its column, an old producer changes nothing.
        check(
            &[
                r#"{"name":"a","type":"long"},{"name":"b","type":"string"}"#,
                r#"{"name":"a","type":"long"}"#,
                r#"{"name":"a","type":"int"},{"name":"b","type":"string"}"#,
            ],
            "1:a long, 2:b string",
        );
        check(
            &[
                r#"{"name":"s","type":{"type":"record","name":"s","fields":[{"name":"x","type":"int"}]}}"#,
                r#"{"name":"s","type":["null",{"type":"record","name":"s","fields":[{"name":"y","type":"int"},{"name":"x","type":"long"}]}]}"#,
            ],
            "1:s struct<x: long, y: int>",
        );
    }

    #[test]
    fn aliases_rename_columns_and_their_ids_stay() {
        check(
            &[
                r#"{"name":"a","type":"int"},{"name":"c","type":"int"}"#,
                r#"{"name":"b","aliases":["a"],"type":"int"},{"name":"c","type":"int"}"#,
            ],
            "1:b int, 2:c int",
        );
        // The name of old is used anew: no column is renamed to it, and the new one is its own.
        check(
            &[
                r#"{"name":"a","type":"int"}"#,
                r#"{"name":"b","aliases":["a"],"type":"int"}"#,
                r#"{"name":"b","aliases":["a"],"type":"int"},{"name":"a","type":"string"}"#,
            ],
            "1:b int, 2:a string",
        );
        check(
            &[
                r#"{"name":"l","type":{"type":"array","items":{"type":"record","name":"i","fields":[{"name":"x","type":"int"}]}}}"#,
                r#"{"name":"l","type":{"type":"array","items":{"type":"record","name":"i","fields":[{"name":"y","aliases":["x"],"type":"long"}]}}}"#,
            ],
            "1:l list<struct<y: long>>",
        );
    }

    #[test]
    fn an_old_producer_is_read_under_the_new_name() {
        let (old, new) = (
            parsed(r#"{"name":"a","type":"int"}"#),
            parsed(r#"{"name":"b","aliases":["a"],"type":"int"}"#),
        );
        let mut writers = Writers::default();
        writers.add(SchemaKey::id(1), old.clone());
        writers.add(SchemaKey::id(2), new);
        let names: Vec<_> = wanted(&old, &writers, Form::default())
            .expect("columns")
            .into_iter()
            .map(|field| field.name)
            .collect();
        assert_eq!(names, ["b"]);
        assert_eq!(merged(&writers, Form::default()).len(), 1);
    }
}
