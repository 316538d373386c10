//! The table's schema: made for a first record, widened for later ones, compared with what is there. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::{ListType, MapType, NestedField, PrimitiveType, Schema, SchemaRef, StructType, Type};

use super::infer::{Fields, Shape};
use super::{ColumnSource, KafkaColumn, RowPlan, UnknownFields, types};

/// The column of the event time where no payload column holds it.
pub const EVENT_TIME: &str = "_event_time";

impl KafkaColumn {
    /// Every column that `include` can add.
    pub const ALL: [KafkaColumn; 6] = [
        KafkaColumn::Topic,
        KafkaColumn::Partition,
        KafkaColumn::Offset,
        KafkaColumn::Timestamp,
        KafkaColumn::Key,
        KafkaColumn::Headers,
    ];

    /// Returns the column's name.
    pub fn name(self) -> &'static str {
        match self {
            KafkaColumn::Topic => "_kafka_topic",
            KafkaColumn::Partition => "_kafka_partition",
            KafkaColumn::Offset => "_kafka_offset",
            KafkaColumn::Timestamp => "_kafka_timestamp",
            KafkaColumn::Key => "_kafka_key",
            KafkaColumn::Headers => "_kafka_headers",
        }
    }

    /// Returns the column's type, field ids provisional.
    pub fn of(self) -> Type {
        Type::Primitive(match self {
            KafkaColumn::Topic => PrimitiveType::String,
            KafkaColumn::Partition => PrimitiveType::Int,
            KafkaColumn::Offset => PrimitiveType::Long,
            KafkaColumn::Timestamp => PrimitiveType::Timestamptz,
            KafkaColumn::Key => PrimitiveType::Binary,
            KafkaColumn::Headers => {
                let key = NestedField::required(2, "key", Type::Primitive(PrimitiveType::String));
                let value = NestedField::optional(3, "value", Type::Primitive(PrimitiveType::Binary));
                let header = Type::Struct(StructType::new(vec![Arc::new(key), Arc::new(value)]));
                return Type::List(ListType::new(Arc::new(NestedField::list_element(1, header, true))));
            }
        })
    }
}

/// Makes the schema of a new table: the payload's columns, then the Kafka columns in the order of `include`, then
/// `_event_time`. All of ours are optional, so that rows of other writers stay possible.
///
/// Ids count from 1, those of the columns first. A payload field that is named like one of ours, or whose name the
/// columns before it already take (a field `a.b` beside a struct `a` with a `b`), is left out.
pub fn create_schema(payload: Vec<NestedField>, include: &[KafkaColumn], event_time_column: bool) -> Schema {
    let mut ours: Vec<NestedField> = include
        .iter()
        .map(|column| NestedField::optional(0, column.name(), column.of()))
        .collect();
    if event_time_column {
        ours.push(NestedField::optional(
            0,
            EVENT_TIME,
            Type::Primitive(PrimitiveType::Timestamptz),
        ));
    }
    let mut taken: HashSet<String> = ours.iter().map(|field| field.name.to_lowercase()).collect();
    let mut fields: Vec<NestedField> = payload
        .into_iter()
        .filter(|field| taken.insert(field.name.to_lowercase()))
        .collect();
    let of_payload = fields.len();
    fields.extend(ours);
    if let Some(schema) = numbered(&fields) {
        return schema;
    }
    let ours = fields.split_off(of_payload);
    let mut kept = ours.clone();
    for field in fields {
        let at = kept.len() - ours.len();
        kept.insert(at, field);
        if numbered(&kept).is_none() {
            kept.remove(at);
        }
    }
    numbered(&kept).expect("every field was tried")
}

fn numbered(fields: &[NestedField]) -> Option<Schema> {
    let mut last_id = fields.len() as i32;
    let fields = fields.iter().zip(1..).map(|(field, id)| {
        let mut field = field.clone();
        field.id = id;
        field.field_type = Box::new(with_ids(&field.field_type, &mut last_id));
        Arc::new(field)
    });
    Schema::builder().with_fields(fields.collect::<Vec<_>>()).build().ok()
}

/// Returns the type with new ids for everything inside, counting on from `last_id`.
fn with_ids(of: &Type, last_id: &mut i32) -> Type {
    let renewed = |field: &NestedField, last_id: &mut i32| {
        let mut field = field.clone();
        *last_id += 1;
        field.id = *last_id;
        field.field_type = Box::new(with_ids(&field.field_type, last_id));
        Arc::new(field)
    };
    match of {
        Type::Primitive(_) => of.clone(),
        Type::Struct(fields) => {
            let fields = fields.fields().iter().map(|field| renewed(field, last_id));
            Type::Struct(StructType::new(fields.collect()))
        }
        Type::List(list) => Type::List(ListType::new(renewed(&list.element_field, last_id))),
        Type::Map(map) => Type::Map(MapType::new(
            renewed(&map.key_field, last_id),
            renewed(&map.value_field, last_id),
        )),
    }
}

/// Adds the unseen fields to the table's schema, optional, at every level, with ids above `last_column_id`.
///
/// - `unseen`: as the decoder reports it; a map's values are under the name `value`.
/// - returns `None` if nothing would be added: all is there, or has no type yet, or can't be named beside what is there.
pub fn add_unseen(table: &Schema, last_column_id: i32, unseen: &Shape, flatten: bool) -> Option<Schema> {
    let Shape::Object(wanted) = unseen else { return None };
    let wanted = if flatten {
        flattened(table, wanted)
    } else {
        wanted.clone()
    };
    let build = |fields: Vec<Arc<NestedField>>| {
        Schema::builder()
            .with_schema_id(table.schema_id())
            .with_identifier_field_ids(table.identifier_field_ids())
            .with_fields(fields)
            .build()
            .ok()
    };
    let mut last_id = last_column_id;
    let before = table.as_struct().fields();
    if let Some(schema) = extended(before, &wanted, &mut last_id).and_then(build) {
        return Some(schema);
    }
    // One of the new names is taken (see `create_schema`): take what can be had, one by one.
    let mut fields = before.to_vec();
    let mut best = None;
    let mut last_id = last_column_id;
    for field in wanted {
        let mut next_id = last_id;
        let Some(tried) = extended(&fields, &[field], &mut next_id) else {
            continue;
        };
        if let Some(schema) = build(tried.clone()) {
            (fields, last_id, best) = (tried, next_id, Some(schema));
        }
    }
    best
}

/// Flattens what the decoder would: an object with a column of its own stays one.
fn flattened(table: &Schema, unseen: &[(String, Shape)]) -> Vec<(String, Shape)> {
    fn collect(prefix: &str, fields: &[(String, Shape)], own: &HashSet<String>, into: &mut Fields) {
        for (name, shape) in fields {
            let name = format!("{prefix}{name}");
            match shape {
                Shape::Object(inner) if !own.contains(&name.to_lowercase()) => {
                    collect(&format!("{name}_"), inner, own, into);
                }
                shape => into.merge(name, shape.clone()),
            }
        }
    }
    let own = table
        .as_struct()
        .fields()
        .iter()
        .map(|field| field.name.to_lowercase())
        .collect();
    let mut flat = Fields::default();
    collect("", unseen, &own, &mut flat);
    flat.list
}

fn extended(
    fields: &[Arc<NestedField>],
    wanted: &[(String, Shape)],
    last_id: &mut i32,
) -> Option<Vec<Arc<NestedField>>> {
    let mut fields = fields.to_vec();
    let mut changed = false;
    for (name, shape) in wanted.iter().filter(|(name, _)| !name.is_empty()) {
        let lower = name.to_lowercase();
        let exact = fields.iter().position(|field| field.name == *name);
        match exact.or_else(|| fields.iter().position(|field| field.name.to_lowercase() == lower)) {
            Some(at) => {
                if let Some(field) = extended_field(&fields[at], shape, last_id) {
                    fields[at] = field;
                    changed = true;
                }
            }
            None => {
                let Some(of) = shape.to_type() else { continue };
                *last_id += 1;
                let id = *last_id;
                fields.push(Arc::new(NestedField::optional(id, name, with_ids(&of, last_id))));
                changed = true;
            }
        }
    }
    changed.then_some(fields)
}

fn extended_field(field: &Arc<NestedField>, shape: &Shape, last_id: &mut i32) -> Option<Arc<NestedField>> {
    let of = match (&*field.field_type, shape) {
        (Type::Struct(fields), Shape::Object(wanted)) => {
            Type::Struct(StructType::new(extended(fields.fields(), wanted, last_id)?))
        }
        (Type::List(list), Shape::List(item)) => {
            Type::List(ListType::new(extended_field(&list.element_field, item, last_id)?))
        }
        (Type::Map(map), Shape::Object(wanted)) => {
            let (_, value) = wanted.iter().find(|(name, _)| name == "value")?;
            Type::Map(MapType::new(
                map.key_field.clone(),
                extended_field(&map.value_field, value, last_id)?,
            ))
        }
        _ => return None,
    };
    let mut field = (**field).clone();
    field.field_type = Box::new(of);
    Some(Arc::new(field))
}

/// Says where each column of the table gets its values from.
///
/// - `declared`: the declared columns and the paths they are read from; `None`: every column that isn't ours is the
///   payload's field of that name. Columns of ours that `include` doesn't ask for, and columns that aren't declared,
///   are [`ColumnSource::Absent`].
///
/// # Panics
/// If Arrow has no type for one of the columns; Iceberg's reader makes the same conversion.
pub fn row_plan(
    schema: SchemaRef,
    declared: Option<&[(String, Vec<String>)]>,
    include: &[KafkaColumn],
    event_time: bool,
    unknown: UnknownFields,
    flatten: bool,
) -> RowPlan {
    let arrow = schema_to_arrow_schema(&schema).expect("every Iceberg schema has an Arrow schema");
    let source = |name: &str| {
        let lower = name.to_lowercase();
        if let Some(column) = KafkaColumn::ALL.into_iter().find(|column| column.name() == lower) {
            return if include.contains(&column) {
                ColumnSource::Kafka(column)
            } else {
                ColumnSource::Absent
            };
        }
        if lower == EVENT_TIME && event_time {
            return ColumnSource::EventTime;
        }
        match declared {
            None if lower == EVENT_TIME => ColumnSource::Absent,
            None => ColumnSource::Payload(vec![name.to_owned()]),
            Some(declared) => {
                let found = declared.iter().find(|(other, _)| other.to_lowercase() == lower);
                found.map_or(ColumnSource::Absent, |(_, path)| ColumnSource::Payload(path.clone()))
            }
        }
    };
    let sources = schema
        .as_struct()
        .fields()
        .iter()
        .map(|field| source(&field.name))
        .collect();
    RowPlan {
        arrow: Arc::new(arrow),
        sources,
        unknown,
        flatten,
        schema,
    }
}

/// Says whether rows for `wanted` can be written to an existing table.
///
/// The table may have more columns, if they are optional; wider types (long for int, double for float, more digits of
/// a decimal); optional columns where required ones are wanted.
///
/// # Errors
/// Every difference, for a person, in the order of the wanted columns.
pub fn compatible(table: &Schema, wanted: &Schema) -> Result<(), Vec<String>> {
    let mut differences = Vec::new();
    compare_fields(
        "",
        table.as_struct().fields(),
        wanted.as_struct().fields(),
        &mut differences,
    );
    if differences.is_empty() {
        Ok(())
    } else {
        Err(differences)
    }
}

fn compare_fields(path: &str, table: &[Arc<NestedField>], wanted: &[Arc<NestedField>], differences: &mut Vec<String>) {
    let same = |one: &NestedField, other: &NestedField| one.name.to_lowercase() == other.name.to_lowercase();
    for field in wanted {
        match table.iter().find(|other| same(other, field)) {
            Some(other) => compare(&format!("{path}{}", field.name), other, field, differences),
            None => {
                let of = types::text(&field.field_type);
                differences.push(format!("column `{path}{}` {of} isn't in the table", field.name));
            }
        }
    }
    for other in table
        .iter()
        .filter(|other| other.required && !wanted.iter().any(|field| same(other, field)))
    {
        differences.push(format!(
            "column `{path}{}` is required in the table and would get no value",
            other.name
        ));
    }
}

fn compare(path: &str, table: &NestedField, wanted: &NestedField, differences: &mut Vec<String>) {
    if table.required && !wanted.required {
        differences.push(format!("column `{path}` is required in the table, but optional here"));
    }
    match (&*table.field_type, &*wanted.field_type) {
        (Type::Struct(table), Type::Struct(wanted)) => {
            compare_fields(&format!("{path}."), table.fields(), wanted.fields(), differences);
        }
        (Type::List(table), Type::List(wanted)) => {
            compare(
                &format!("{path}.element"),
                &table.element_field,
                &wanted.element_field,
                differences,
            );
        }
        (Type::Map(table), Type::Map(wanted)) => {
            compare(&format!("{path}.key"), &table.key_field, &wanted.key_field, differences);
            compare(
                &format!("{path}.value"),
                &table.value_field,
                &wanted.value_field,
                differences,
            );
        }
        (Type::Primitive(table), Type::Primitive(wanted)) if takes(table, wanted) => {}
        (table, wanted) => {
            differences.push(format!(
                "column `{path}` is {} in the table, but {} here",
                types::text(table),
                types::text(wanted)
            ));
        }
    }
}

fn takes(table: &PrimitiveType, wanted: &PrimitiveType) -> bool {
    match (table, wanted) {
        (PrimitiveType::Long, PrimitiveType::Int) | (PrimitiveType::Double, PrimitiveType::Float) => true,
        (
            PrimitiveType::Decimal { precision, scale },
            PrimitiveType::Decimal {
                precision: wanted_precision,
                scale: wanted_scale,
            },
        ) => precision >= wanted_precision && scale == wanted_scale,
        (table, wanted) => table == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::infer;

    fn shape(records: &[&str]) -> Shape {
        let mut shape = Shape::default();
        for record in records {
            shape.observe(record.as_bytes()).expect(record);
        }
        shape
    }

    fn table(record: &str) -> Schema {
        create_schema(
            infer::schema(&shape(&[record]), false),
            &[KafkaColumn::Offset, KafkaColumn::Headers],
            true,
        )
    }

    fn columns(schema: &Schema) -> String {
        let column =
            |field: &Arc<NestedField>| format!("{} {} {}", field.id, field.name, types::text(&field.field_type));
        schema
            .as_struct()
            .fields()
            .iter()
            .map(column)
            .collect::<Vec<_>>()
            .join(", ")
    }

    #[test]
    fn a_new_table_numbers_its_columns_first() {
        assert_eq!(
            columns(&table(r#"{"a":1,"b":{"c":[{"d":1}]},"_kafka_offset":"mine","b.c":1}"#)),
            "1 a long, 2 b struct<c: list<struct<d: long>>>, 3 _kafka_offset long, \
             4 _kafka_headers list<struct<key: string, value: binary>>, 5 _event_time timestamptz"
        );
    }

    #[test]
    fn unseen_fields_are_added_at_every_level() {
        let before = table(r#"{"a":1,"b":{"c":[{"d":1}]}}"#);
        let unseen = shape(&[r#"{"B":{"c":[{"e":"x"}],"f":true},"g":{"h":1.5},"i":null}"#]);
        let after = add_unseen(&before, 40, &unseen, false).expect("something is added");
        assert_eq!(
            columns(&after),
            "1 a long, 2 b struct<c: list<struct<d: long, e: string>>, f: boolean>, 3 _kafka_offset long, \
             4 _kafka_headers list<struct<key: string, value: binary>>, 5 _event_time timestamptz, 43 g struct<h: double>"
        );
        assert_eq!(after.field_by_name("b.c.element.e").map(|field| field.id), Some(41));
        assert_eq!(after.field_by_name("b.f").map(|field| field.id), Some(42));
        assert_eq!(add_unseen(&after, 44, &unseen, false), None);
        let flat = add_unseen(&before, 40, &shape(&[r#"{"x":{"y":{"z":1}}}"#]), true).expect("something is added");
        assert!(columns(&flat).ends_with("41 x_y_z long"));
        let own = add_unseen(&before, 40, &shape(&[r#"{"b":{"f":true}}"#]), true).expect("something is added");
        assert!(columns(&own).contains("2 b struct<c: list<struct<d: long>>, f: boolean>"));
    }

    #[test]
    fn a_name_that_is_taken_costs_only_itself() {
        let before = table(r#"{"b":{"c":1}}"#);
        let after = add_unseen(&before, 40, &shape(&[r#"{"b.c":1,"d":2}"#]), false).expect("d is added");
        assert!(columns(&after).ends_with("41 d long"), "{}", columns(&after));
    }

    #[test]
    fn a_plan_knows_the_source_of_every_column() {
        let schema = Arc::new(table(r#"{"a":1,"b":2}"#));
        let inferred = row_plan(
            schema.clone(),
            None,
            &[KafkaColumn::Offset],
            true,
            UnknownFields::Evolve,
            false,
        );
        let payload = |name: &str| ColumnSource::Payload(vec![name.to_owned()]);
        assert_eq!(
            inferred.sources,
            [
                payload("a"),
                payload("b"),
                ColumnSource::Kafka(KafkaColumn::Offset),
                ColumnSource::Absent,
                ColumnSource::EventTime
            ]
        );
        let arrow::datatypes::DataType::Timestamp(_, Some(zone)) = inferred.arrow.field(4).data_type() else {
            panic!("_event_time is a timestamptz");
        };
        assert_eq!(&**zone, "+00:00");
        let declared = [("A".to_owned(), vec!["x".to_owned(), "y".to_owned()])];
        let plan = row_plan(schema, Some(&declared), &[], false, UnknownFields::Declared, false);
        assert_eq!(
            plan.sources[0],
            ColumnSource::Payload(vec!["x".to_owned(), "y".to_owned()])
        );
        assert!(plan.sources[1..].iter().all(|source| *source == ColumnSource::Absent));
    }

    #[test]
    fn differences_are_all_named() {
        let schema = |columns: &[(&str, &str, bool)]| {
            let field = |(name, of, required): &(&str, &str, bool)| {
                NestedField::new(0, name, types::parse(of).expect(of), *required)
            };
            create_schema(columns.iter().map(field).collect(), &[], false)
        };
        let there = schema(&[
            ("a", "long", false),
            ("b", "string", true),
            ("c", "struct<d: int>", false),
            ("e", "date", true),
            ("f", "decimal(10, 2)", false),
        ]);
        let fine = schema(&[
            ("A", "int", true),
            ("b", "string", true),
            ("e", "date", true),
            ("f", "decimal(9, 2)", false),
        ]);
        assert_eq!(compatible(&there, &fine), Ok(()));
        let wanted = schema(&[
            ("a", "double", false),
            ("b", "string", false),
            ("c", "struct<d: long, x: int>", false),
            ("f", "decimal(9, 3)", false),
            ("g", "int", false),
        ]);
        assert_eq!(
            compatible(&there, &wanted).expect_err("they differ"),
            [
                "column `a` is long in the table, but double here",
                "column `b` is required in the table, but optional here",
                "column `c.d` is int in the table, but long here",
                "column `c.x` int isn't in the table",
                "column `f` is decimal(10, 2) in the table, but decimal(9, 3) here",
                "column `g` int isn't in the table",
                "column `e` is required in the table and would get no value",
            ]
        );
    }
}
