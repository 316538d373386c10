//! Splitting: the partition value of every row, and the rows of each value.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::compute::kernels::cmp::not_distinct;
use arrow::datatypes::{DataType, Date32Type, Int32Type, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType};
use arrow::row::{RowConverter, SortField};
use iceberg::arrow::arrow_primitive_to_literal;
use iceberg::spec::{Literal, PartitionField, Transform, Type};
use iceberg::transform::{BoxedTransformFunction, create_transform_function};

use super::PlaceError;
use super::columns::{Leaf, column_at};

const US_PER_HOUR: i64 = 3_600_000_000;
const US_PER_DAY: i64 = 24 * US_PER_HOUR;

/// How one partition value is computed from a row.
#[derive(Debug)]
pub(super) struct PartitionKey {
    pub name: String,
    pub positions: Vec<usize>,
    transform: Transform,
    function: BoxedTransformFunction,
    kind: Type,
}

impl PartitionKey {
    /// Prepares a field of the spec for rows of `nothing`'s schema, which has the columns `leaves`.
    pub(super) fn new(
        field: &PartitionField,
        leaves: &[Leaf],
        nothing: &RecordBatch,
    ) -> Result<PartitionKey, PlaceError> {
        let failed = |error: iceberg::Error| PlaceError::Transform {
            partition: field.name.clone(),
            source: Box::new(error),
        };
        let leaf = leaves
            .iter()
            .find(|leaf| leaf.field_id == field.source_id)
            .ok_or_else(|| PlaceError::NoSource {
                partition: field.name.clone(),
                source_id: field.source_id,
            })?;
        let key = PartitionKey {
            name: field.name.clone(),
            positions: leaf.positions.clone(),
            transform: field.transform,
            function: create_transform_function(&field.transform).map_err(failed)?,
            kind: field
                .transform
                .result_type(&Type::Primitive(leaf.kind.clone()))
                .map_err(failed)?,
        };
        // What can't be computed is found here, on no rows, so that placing has no errors.
        let values = key.transformed(column_at(nothing, &key.positions)).map_err(failed)?;
        arrow_primitive_to_literal(&new_null_array(values.data_type(), 1), &key.kind).map_err(failed)?;
        Ok(key)
    }

    /// Says whether the partition is of time.
    pub(super) fn is_temporal(&self) -> bool {
        matches!(
            self.transform,
            Transform::Year | Transform::Month | Transform::Day | Transform::Hour
        )
    }

    /// Computes the partition value of every row.
    pub(super) fn values(&self, rows: &RecordBatch) -> ArrayRef {
        let values = self.transformed(column_at(rows, &self.positions));
        values.expect("the transform took an empty column of this type in `new`")
    }

    /// Returns the value in row `row` of what [`PartitionKey::values`] computed.
    pub(super) fn literal(&self, values: &ArrayRef, row: usize) -> Option<Literal> {
        let literals = arrow_primitive_to_literal(&values.slice(row, 1), &self.kind);
        literals
            .expect("a transform's result is of its result type")
            .pop()
            .expect("one row has one value")
    }

    pub(super) fn transformed(&self, column: ArrayRef) -> iceberg::Result<ArrayRef> {
        // Day and hour are counted here: iceberg 0.10.1 puts the last second before a midnight that precedes 1970 into the
        // wrong day, since it truncates the seconds toward zero.
        let values: ArrayRef = match (self.transform, column.data_type()) {
            (Transform::Day, DataType::Timestamp(TimeUnit::Microsecond, _)) => {
                let times = column.as_primitive::<TimestampMicrosecondType>();
                Arc::new(times.unary::<_, Date32Type>(|time_us| time_us.div_euclid(US_PER_DAY) as i32))
            }
            (Transform::Hour, DataType::Timestamp(TimeUnit::Microsecond, _)) => {
                let times = column.as_primitive::<TimestampMicrosecondType>();
                Arc::new(times.unary::<_, Int32Type>(|time_us| time_us.div_euclid(US_PER_HOUR) as i32))
            }
            (Transform::Day, DataType::Timestamp(TimeUnit::Nanosecond, _)) => {
                let times = column.as_primitive::<TimestampNanosecondType>();
                Arc::new(times.unary::<_, Date32Type>(|time_ns| time_ns.div_euclid(1000 * US_PER_DAY) as i32))
            }
            (Transform::Hour, DataType::Timestamp(TimeUnit::Nanosecond, _)) => {
                let times = column.as_primitive::<TimestampNanosecondType>();
                Arc::new(times.unary::<_, Int32Type>(|time_ns| time_ns.div_euclid(1000 * US_PER_HOUR) as i32))
            }
            _ => return self.function.transform(truncatable(column)),
        };
        Ok(values)
    }
}

/// The crate truncates binary columns, but not the large ones that its own Arrow schemas have.
fn truncatable(column: ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::LargeBinary => cast(&column, &DataType::Binary).expect("a chunk's payload is below 2 GiB"),
        _ => column,
    }
}

/// Says whether all rows have one value, nulls being equal to each other.
pub(super) fn is_uniform(values: &ArrayRef) -> bool {
    let pairs = values.len() - 1;
    let same = not_distinct(&values.slice(0, pairs), &values.slice(1, pairs)).expect("partition values compare");
    same.true_count() == pairs
}

/// Rows of one value.
pub(super) struct Group {
    /// The value as bytes: the same for the same value, whatever the chunk.
    pub key: Box<[u8]>,
    /// Ascending; at least one.
    pub rows: Vec<u32>,
}

/// Groups rows by their values: one group per distinct value in order of first sight, rows ascending in each.
pub(super) fn groups_of(values: &[ArrayRef]) -> Vec<Group> {
    let fields = values
        .iter()
        .map(|column| SortField::new(column.data_type().clone()))
        .collect();
    let converter = RowConverter::new(fields).expect("partition values are primitive");
    let rows = converter
        .convert_columns(values)
        .expect("the columns have the types the converter was made for");
    let mut numbers: HashMap<&[u8], usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    let mut current: Option<(&[u8], usize)> = None;
    for row in 0..rows.num_rows() {
        let value = rows.row(row).data();
        let number = match current {
            // Neighbours mostly share a value, and comparing is cheaper than hashing.
            Some((last, number)) if last == value => number,
            _ => *numbers.entry(value).or_insert_with(|| {
                let key = value.into();
                groups.push(Group { key, rows: Vec::new() });
                groups.len() - 1
            }),
        };
        current = Some((value, number));
        groups[number]
            .rows
            .push(u32::try_from(row).expect("a chunk's rows fit 32 bits"));
    }
    groups
}
