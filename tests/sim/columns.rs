//! What others do to a table's columns and partitions, and whether what was written before still says the same after.

use std::sync::Arc;

use iceberg::spec::{
    NestedField, NestedFieldRef, PrimitiveType, Schema, SchemaRef, TableMetadata, TableMetadataBuilder, Transform,
    Type, UnboundPartitionSpec,
};

/// A change of the table's columns or partitions: no snapshot, another metadata file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A column more, with an id that no column ever had.
    Add,
    /// The first column that may go does.
    Drop,
    /// The last column gets a name that none had.
    Rename,
    /// Two columns exchange their names.
    Exchange,
    /// The first narrow column gets the wider type.
    Widen,
    /// A column goes, and another one comes under its name.
    Replace,
    /// From no partitions to buckets of a column, and back.
    Partition,
}

pub const CHANGES: [Change; 7] = [
    Change::Add,
    Change::Drop,
    Change::Rename,
    Change::Exchange,
    Change::Widen,
    Change::Replace,
    Change::Partition,
];

/// What a window's files are written for: the schemas that its records were given one after the other, and one spec.
#[derive(Debug, Clone, Default)]
pub struct Form {
    pub schemas: Vec<SchemaRef>,
    pub spec: i32,
}

impl Form {
    pub fn of(metadata: &TableMetadata) -> Self {
        Form {
            schemas: vec![metadata.current_schema().clone()],
            spec: metadata.default_partition_spec_id(),
        }
    }
}

fn column(id: i32, name: &str, of: PrimitiveType) -> NestedFieldRef {
    Arc::new(NestedField::optional(id, name, Type::Primitive(of)))
}

/// The columns that the table is created with.
pub fn first_schema() -> Schema {
    let id = NestedField::required(1, "id", Type::Primitive(PrimitiveType::Long));
    let fields = [
        Arc::new(id),
        column(2, "count", PrimitiveType::Int),
        column(3, "text", PrimitiveType::String),
    ];
    Schema::builder().with_fields(fields).build().expect("columns")
}

/// The table after a change; `None` if there is nothing to change.
pub fn changed(metadata: &TableMetadata, change: Change) -> Option<TableMetadataBuilder> {
    let mut fields = metadata.current_schema().as_struct().fields().to_vec();
    let next_id = metadata.last_column_id() + 1;
    let optional = fields.iter().position(|field| !field.required);
    let mut gone = None;
    match change {
        Change::Add => fields.push(column(next_id, &format!("c{next_id}"), PrimitiveType::Int)),
        Change::Drop => gone = Some(fields.remove(optional?).id),
        Change::Rename => {
            let last = fields.pop().filter(|field| !field.required)?;
            let renamed = NestedField {
                name: format!("{}_", last.name),
                ..NestedField::clone(&last)
            };
            fields.push(Arc::new(renamed));
        }
        Change::Exchange => {
            let (a, b) = (optional?, fields.len() - 1);
            if a == b {
                return None;
            }
            let named = |field: &NestedField, name: &str| {
                Arc::new(NestedField {
                    name: name.to_owned(),
                    ..field.clone()
                })
            };
            let (first, last) = (named(&fields[a], &fields[b].name), named(&fields[b], &fields[a].name));
            (fields[a], fields[b]) = (first, last);
        }
        Change::Widen => {
            let int = Type::Primitive(PrimitiveType::Int);
            let narrow = fields.iter_mut().find(|field| *field.field_type == int)?;
            *narrow = column(narrow.id, &narrow.name, PrimitiveType::Long);
        }
        Change::Replace => {
            let old = fields.remove(optional?);
            gone = Some(old.id);
            fields.push(Arc::new(NestedField {
                id: next_id,
                ..NestedField::clone(&old)
            }));
        }
        Change::Partition => {
            let source = if metadata.default_partition_spec().is_unpartitioned() {
                Some(fields[optional?].id)
            } else {
                None
            };
            return Some(with_spec(metadata.clone().into_builder(None), source));
        }
    }
    let mut builder = metadata.clone().into_builder(None);
    let sources = metadata.default_partition_spec().fields().iter();
    if sources.clone().any(|field| Some(field.source_id) == gone) {
        builder = with_spec(builder, None);
    }
    let schema = Schema::builder().with_fields(fields).build().expect("columns");
    Some(builder.add_current_schema(schema).expect("a schema of the table"))
}

fn with_spec(builder: TableMetadataBuilder, source: Option<i32>) -> TableMetadataBuilder {
    let mut spec = UnboundPartitionSpec::builder();
    if let Some(id) = source {
        let name = format!("bucket_of_{id}");
        spec = spec
            .add_partition_field(id, name, Transform::Bucket(4))
            .expect("a partition field");
    }
    builder.add_default_partition_spec(spec.build()).expect("a spec")
}

/// Panics if values of records that were written for `form` are lost to who reads the table as it is `now`: a reader asks
/// for a name, and gets the values of the column's id.
pub fn assert_nothing_lost(path: &str, form: &Form, now: &TableMetadata) {
    let schema = now.current_schema();
    for field in form.schemas.iter().flat_map(|written| written.as_struct().fields()) {
        let seen = schema.field_by_name(&field.name);
        let seen = seen.unwrap_or_else(|| panic!("{path} holds column `{}`, which nobody sees", field.name));
        assert_eq!(
            seen.id, field.id,
            "{path}: `{}` is read from another column",
            field.name
        );
        let widened = (
            Type::Primitive(PrimitiveType::Int),
            Type::Primitive(PrimitiveType::Long),
        );
        let types = (Type::clone(&field.field_type), Type::clone(&seen.field_type));
        assert!(types.0 == types.1 || types == widened, "{path}: {types:?}");
    }
    let spec = now.partition_spec_by_id(form.spec).expect("a spec of the table");
    for field in spec.fields() {
        assert!(
            schema.field_by_id(field.source_id).is_some(),
            "{path} is partitioned by column {}, which is gone",
            field.source_id
        );
    }
}
