//! The table's schema: made for a first record, widened for later ones, compared with what is there. Pure.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::sync::Arc;

use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::{
    ListType, MapType, NestedField, PartitionSpec, PrimitiveType, Schema, SchemaRef, StructType, Transform, Type,
};

use super::infer::{self, Fields, Shape};
use super::{ColumnSource, KafkaColumn, RowPlan, UnknownFields};
use crate::config::Column;
use crate::config::types;

/// The column of the event time where no payload column holds it.
pub const EVENT_TIME: &str = "_event_time";

impl KafkaColumn {
    /// Returns the column's type, field ids provisional.
    pub fn of(self) -> Type {
        Type::Primitive(match self {
            KafkaColumn::Topic | KafkaColumn::EventId => PrimitiveType::String,
            KafkaColumn::Partition | KafkaColumn::SchemaId => PrimitiveType::Int,
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

/// Changes the table's schema so that it takes the fields and values that the decoder met: unseen fields are added,
/// optional, at every level, with ids above `last_column_id`; columns that are too narrow are widened.
///
/// - `unseen`: as the decoder reports it; a map's values are under the name `value`.
/// - `fixed`: field ids of columns that keep their type; see [`fixed`].
/// - returns `None` if nothing would change: all is there, or has no type yet, or can't be named beside what is there.
pub fn add_unseen(
    table: &Schema,
    last_column_id: i32,
    fixed: &HashSet<i32>,
    unseen: &Shape,
    flatten: bool,
) -> Option<Schema> {
    let Shape::Object(wanted) = unseen else { return None };
    let flat;
    let wanted = if flatten {
        flat = flattened(table, wanted);
        &flat
    } else {
        wanted
    };
    Change { fixed, last_column_id }.apply(table, &infer::typed_fields(wanted, &mut 0))
}

/// Changes the table's schema so that it takes the declared columns: those that are missing are added, at every level,
/// optional, since rows that are there have no value; those that are too narrow are widened.
///
/// - returns `None` if nothing would change. What still doesn't fit is said by [`compatible`].
pub fn add_declared(
    table: &Schema,
    last_column_id: i32,
    fixed: &HashSet<i32>,
    declared: &[NestedField],
) -> Option<Schema> {
    Change { fixed, last_column_id }.apply(table, declared)
}

/// Returns the ids of the columns whose type is part of partition values: manifests hold those as they were, so the
/// type stays.
pub fn fixed<'a>(specs: impl Iterator<Item = &'a PartitionSpec>) -> HashSet<i32> {
    specs
        .flat_map(PartitionSpec::fields)
        .filter(|field| matches!(field.transform, Transform::Identity | Transform::Truncate(_)))
        .map(|field| field.source_id)
        .collect()
}

/// Returns the columns that differ between two schemas of a table, each as the line of `columns` that declares it.
pub fn changed_lines(before: &Schema, after: &Schema) -> Vec<String> {
    let changed = after.as_struct().fields().iter().filter(|field| {
        let held = before.field_by_id(field.id);
        held.is_none_or(|held| held.field_type != field.field_type)
    });
    changed
        .map(|field| types::column_line(&field.name, None, &field.field_type))
        .collect()
}

/// A change of a table's schema.
struct Change<'a> {
    fixed: &'a HashSet<i32>,
    last_column_id: i32,
}

impl Change<'_> {
    fn apply(mut self, table: &Schema, wanted: &[NestedField]) -> Option<Schema> {
        let build = |fields: Vec<Arc<NestedField>>| {
            Schema::builder()
                .with_schema_id(table.schema_id())
                .with_identifier_field_ids(table.identifier_field_ids())
                .with_fields(fields)
                .build()
                .ok()
        };
        let start = self.last_column_id;
        let before = table.as_struct().fields();
        if let Some(schema) = self.fields(before, wanted).and_then(build) {
            return Some(schema);
        }
        // One of the new names is taken (see `create_schema`): take what can be had, one by one.
        let mut fields = before.to_vec();
        let mut best = None;
        self.last_column_id = start;
        for field in wanted {
            let taken = self.last_column_id;
            let tried = self.fields(&fields, std::slice::from_ref(field));
            match tried.and_then(|tried| Some((build(tried.clone())?, tried))) {
                Some((schema, tried)) => (fields, best) = (tried, Some(schema)),
                None => self.last_column_id = taken,
            }
        }
        best
    }

    fn fields<F: Borrow<NestedField>>(
        &mut self,
        fields: &[Arc<NestedField>],
        wanted: &[F],
    ) -> Option<Vec<Arc<NestedField>>> {
        let mut fields = fields.to_vec();
        let mut changed = false;
        for wanted in wanted.iter().map(Borrow::borrow) {
            let lower = wanted.name.to_lowercase();
            let exact = fields.iter().position(|field| field.name == wanted.name);
            match exact.or_else(|| fields.iter().position(|field| field.name.to_lowercase() == lower)) {
                Some(at) => {
                    if let Some(field) = self.field(&fields[at], &wanted.field_type) {
                        fields[at] = field;
                        changed = true;
                    }
                }
                None => {
                    self.last_column_id += 1;
                    let id = self.last_column_id;
                    let of = with_ids(&wanted.field_type, &mut self.last_column_id);
                    fields.push(Arc::new(NestedField::optional(id, &wanted.name, of)));
                    changed = true;
                }
            }
        }
        changed.then_some(fields)
    }

    fn field(&mut self, field: &Arc<NestedField>, wanted: &Type) -> Option<Arc<NestedField>> {
        let of = match (&*field.field_type, wanted) {
            (Type::Struct(fields), Type::Struct(wanted)) => {
                Type::Struct(StructType::new(self.fields(fields.fields(), wanted.fields())?))
            }
            (Type::List(list), Type::List(wanted)) => Type::List(ListType::new(
                self.field(&list.element_field, &wanted.element_field.field_type)?,
            )),
            (Type::Map(map), Type::Map(wanted)) => {
                let value = self.field(&map.value_field, &wanted.value_field.field_type)?;
                Type::Map(MapType::new(map.key_field.clone(), value))
            }
            (Type::Map(map), Type::Struct(wanted)) => {
                let wanted = wanted.fields().iter().find(|field| field.name == "value")?;
                let value = self.field(&map.value_field, &wanted.field_type)?;
                Type::Map(MapType::new(map.key_field.clone(), value))
            }
            (Type::Primitive(narrow), Type::Primitive(wide)) if types::widens(narrow, wide) => {
                if self.fixed.contains(&field.id) {
                    return None;
                }
                Type::Primitive(wide.clone())
            }
            _ => return None,
        };
        let mut field = (**field).clone();
        field.field_type = Box::new(of);
        Some(Arc::new(field))
    }
}

/// Returns the columns with every struct replaced by its fields, named `a_b`; what is inside lists and maps stays as it is.
pub fn flattened_fields(fields: Vec<NestedField>) -> Vec<NestedField> {
    fn collect(prefix: &str, fields: &[Arc<NestedField>], into: &mut Vec<NestedField>) {
        for field in fields {
            let name = format!("{prefix}{}", field.name);
            match &*field.field_type {
                Type::Struct(inner) => collect(&format!("{name}_"), inner.fields(), into),
                of => into.push(NestedField::optional(field.id, name, of.clone())),
            }
        }
    }
    let mut flat = Vec::new();
    let fields: Vec<_> = fields.into_iter().map(Arc::new).collect();
    collect("", &fields, &mut flat);
    flat
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

/// Says where each column of the table gets its values from.
///
/// - `declared`: `None`: every column that isn't ours is the payload's field of that name. Columns of ours that `include`
///   doesn't ask for, and columns that aren't declared, are [`ColumnSource::Absent`].
///
/// # Panics
/// If Arrow has no type for one of the columns; Iceberg's reader makes the same conversion.
pub fn row_plan(
    schema: SchemaRef,
    declared: Option<&[Column]>,
    include: &[KafkaColumn],
    event_time: bool,
    unknown: UnknownFields,
    flatten: bool,
) -> RowPlan {
    let arrow = schema_to_arrow_schema(&schema).expect("every Iceberg schema has an Arrow schema");
    let declaration = |lower: &str| declared?.iter().find(|column| column.name.to_lowercase() == lower);
    let source = |name: &str| {
        let lower = name.to_lowercase();
        let mut ours = KafkaColumn::ALL.into_iter().chain(include.iter().copied());
        if let Some(column) = ours.find(|column| column.name() == lower) {
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
            Some(_) => match declaration(&lower) {
                Some(column) => ColumnSource::Payload(column.from.clone()),
                None => ColumnSource::Absent,
            },
        }
    };
    let sources = schema
        .as_struct()
        .fields()
        .iter()
        .map(|field| source(&field.name))
        .collect();
    let required = schema.as_struct().fields().iter();
    let required =
        required.filter(|field| declaration(&field.name.to_lowercase()).is_some_and(|column| column.required));
    RowPlan {
        arrow: Arc::new(arrow),
        required: required.map(|field| field.id).collect(),
        sources,
        unknown,
        flatten,
        schema,
    }
}

/// Says where the keys of records go: to the column [`KEY`] of the table, if it is there, and nothing anywhere else.
///
/// - `from`: what the decoder of keys calls a key.
///
/// Where the table lacks the column, it is to be given one, whatever becomes of fields that it lacks.
pub fn key_plan(rows: &RowPlan, from: &str) -> RowPlan {
    let is_key = |source: &ColumnSource| *source == ColumnSource::Kafka(KafkaColumn::Key);
    let of = |source: &ColumnSource| match is_key(source) {
        true => ColumnSource::Payload(vec![from.to_owned()]),
        false => ColumnSource::Absent,
    };
    RowPlan {
        schema: rows.schema.clone(),
        arrow: rows.arrow.clone(),
        sources: rows.sources.iter().map(of).collect(),
        required: HashSet::new(),
        unknown: match rows.sources.iter().any(is_key) {
            // Declared columns say nothing of what is inside a key.
            true if rows.unknown == UnknownFields::Declared => UnknownFields::Ignore,
            true => rows.unknown,
            false => UnknownFields::Evolve,
        },
        flatten: false,
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
        (Type::Primitive(table), Type::Primitive(wanted)) if table == wanted || types::widens(wanted, table) => {}
        (table, wanted) => {
            differences.push(format!(
                "column `{path}` is {} in the table, but {} here",
                types::text(table),
                types::text(wanted)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let after = add_unseen(&before, 40, &HashSet::new(), &unseen, false).expect("something is added");
        assert_eq!(
            columns(&after),
            "1 a long, 2 b struct<c: list<struct<d: long, e: string>>, f: boolean>, 3 _kafka_offset long, \
             4 _kafka_headers list<struct<key: string, value: binary>>, 5 _event_time timestamptz, 43 g struct<h: double>"
        );
        assert_eq!(after.field_by_name("b.c.element.e").map(|field| field.id), Some(41));
        assert_eq!(after.field_by_name("b.f").map(|field| field.id), Some(42));
        assert_eq!(add_unseen(&after, 44, &HashSet::new(), &unseen, false), None);
        let flat = add_unseen(&before, 40, &HashSet::new(), &shape(&[r#"{"x":{"y":{"z":1}}}"#]), true)
            .expect("something is added");
        assert!(columns(&flat).ends_with("41 x_y_z long"));
        let own = add_unseen(&before, 40, &HashSet::new(), &shape(&[r#"{"b":{"f":true}}"#]), true)
            .expect("something is added");
        assert!(columns(&own).contains("2 b struct<c: list<struct<d: long>>, f: boolean>"));
    }

    #[test]
    fn a_name_that_is_taken_costs_only_itself() {
        let before = table(r#"{"b":{"c":1}}"#);
        let after =
            add_unseen(&before, 40, &HashSet::new(), &shape(&[r#"{"b.c":1,"d":2}"#]), false).expect("d is added");
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
        let declared = [Column {
            name: "A".to_owned(),
            from: vec!["x".to_owned(), "y".to_owned()],
            of: types::parse("long").expect("long"),
            required: true,
        }];
        let plan = row_plan(schema, Some(&declared), &[], false, UnknownFields::Declared, false);
        assert_eq!(
            plan.sources[0],
            ColumnSource::Payload(vec!["x".to_owned(), "y".to_owned()])
        );
        assert!(plan.sources[1..].iter().all(|source| *source == ColumnSource::Absent));
        assert_eq!(plan.required, HashSet::from([1]));
    }

    fn declared(columns: &[(&str, &str, bool)]) -> Vec<NestedField> {
        let field = |(name, of, required): &(&str, &str, bool)| {
            NestedField::new(0, name, types::parse(of).expect(of), *required)
        };
        columns.iter().map(field).collect()
    }

    #[test]
    fn columns_are_widened_at_every_level() {
        use PrimitiveType as P;
        let before = create_schema(
            declared(&[
                ("id", "int", false),
                ("deep", "list<struct<m: map<string, struct<f: float>>>>", false),
                ("key", "int", false),
            ]),
            &[],
            false,
        );
        let wider = |of| Shape::Wider(of);
        let object = |name: &str, shape| Shape::Object(vec![(name.to_owned(), shape)]);
        let mut unseen = object("ID", wider(P::Long));
        let deep = object("m", object("value", object("f", wider(P::Double))));
        unseen.merge(object("deep", Shape::List(Box::new(deep))));
        unseen.merge(object("key", wider(P::Long)));
        let fixed = HashSet::from([3]);
        let after = add_unseen(&before, 40, &fixed, &unseen, false).expect("columns are widened");
        assert_eq!(
            columns(&after),
            "1 id long, 2 deep list<struct<m: map<string, struct<f: double>>>>, 3 key int"
        );
        let ids = |schema: &Schema| schema.field_by_name("deep.element.m.value.f").map(|field| field.id);
        assert_eq!(ids(&after), ids(&before));
        assert_eq!(
            changed_lines(&before, &after),
            [
                "- {name: id, type: long}",
                "- {name: deep, type: \"list<struct<m: map<string, struct<f: double>>>>\"}"
            ]
        );
        assert_eq!(add_unseen(&after, 40, &fixed, &unseen, false), None);
    }

    #[test]
    fn declared_columns_are_added_and_widened() {
        let before = create_schema(
            declared(&[("a", "int", true), ("b", "struct<c: float>", false)]),
            &[],
            false,
        );
        let wanted = declared(&[
            ("A", "long", true),
            ("b", "struct<c: double, d: list<int>>", false),
            ("e", "decimal(5, 2)", true),
            ("a2", "string", false),
        ]);
        let after = add_declared(&before, 10, &HashSet::new(), &wanted).expect("columns are added");
        assert_eq!(
            columns(&after),
            "1 a long, 2 b struct<c: double, d: list<int>>, 13 e decimal(5, 2), 14 a2 string"
        );
        assert_eq!(add_declared(&after, 14, &HashSet::new(), &wanted), None);
        let schema = create_schema(wanted, &[], false);
        assert_eq!(compatible(&after, &schema), Ok(()));
        assert_eq!(
            add_declared(&after, 14, &HashSet::new(), &declared(&[("a", "string", false)])),
            None
        );
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
