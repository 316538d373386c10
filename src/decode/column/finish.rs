//! Columns frozen into Arrow arrays.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array, Float64Array, Int32Array,
    Int64Array, LargeBinaryArray, ListArray, MapArray, StringArray, StructArray, Time64MicrosecondArray,
    TimestampMicrosecondArray, TimestampNanosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields as ArrowFields};

use super::{Column, Store};

impl Column {
    /// Freezes the column as the Arrow type of the plan and leaves it empty.
    pub fn finish(&mut self, to: &DataType) -> ArrayRef {
        let rows = self.valid.len();
        let nulls = self.valid.finish();
        match &mut self.store {
            Store::Boolean(values) => Arc::new(BooleanArray::new(BooleanBuffer::from(std::mem::take(values)), nulls)),
            Store::Int(values) => Arc::new(Int32Array::new(std::mem::take(values).into(), nulls)),
            Store::Long(values) => Arc::new(Int64Array::new(std::mem::take(values).into(), nulls)),
            Store::Float(values) => Arc::new(Float32Array::new(std::mem::take(values).into(), nulls)),
            Store::Double(values) => Arc::new(Float64Array::new(std::mem::take(values).into(), nulls)),
            Store::Decimal { values, .. } => {
                Arc::new(Decimal128Array::new(std::mem::take(values).into(), nulls).with_data_type(to.clone()))
            }
            Store::Date(values) => Arc::new(Date32Array::new(std::mem::take(values).into(), nulls)),
            Store::Time(values) => Arc::new(Time64MicrosecondArray::new(std::mem::take(values).into(), nulls)),
            Store::Timestamp {
                values, nanos: false, ..
            } => {
                let values: ScalarBuffer<i64> = std::mem::take(values).into();
                Arc::new(TimestampMicrosecondArray::new(values, nulls).with_data_type(to.clone()))
            }
            Store::Timestamp { values, .. } => {
                let values: ScalarBuffer<i64> = std::mem::take(values).into();
                Arc::new(TimestampNanosecondArray::new(values, nulls).with_data_type(to.clone()))
            }
            Store::Text { ends, bytes } => {
                let bytes = Buffer::from(std::mem::take(bytes));
                Arc::new(StringArray::new(taken(ends), bytes, nulls))
            }
            Store::Uuid(bytes) => Arc::new(FixedSizeBinaryArray::new(16, std::mem::take(bytes).into(), nulls)),
            Store::Binary { ends, bytes } => {
                let ends = OffsetBuffer::new(std::mem::replace(ends, vec![0]).into());
                Arc::new(LargeBinaryArray::new(ends, std::mem::take(bytes).into(), nulls))
            }
            Store::Fixed { width, bytes, .. } => {
                let width = i32::try_from(*width).expect("a fixed column is at most 2^31 wide");
                Arc::new(FixedSizeBinaryArray::new(width, std::mem::take(bytes).into(), nulls))
            }
            Store::Struct(group) => {
                let fields = struct_fields(to);
                if fields.is_empty() {
                    return Arc::new(StructArray::new_empty_fields(rows, nulls));
                }
                let columns = group
                    .columns
                    .iter_mut()
                    .zip(fields)
                    .map(|(column, field)| column.finish(field.data_type()));
                Arc::new(StructArray::new(fields.clone(), columns.collect(), nulls))
            }
            Store::List { ends, item } => {
                let field = item_field(to);
                let items = item.finish(field.data_type());
                Arc::new(ListArray::new(field.clone(), taken(ends), items, nulls))
            }
            Store::Map { ends, key, value } => {
                let DataType::Map(entry, sorted) = to else {
                    unreachable!("the plan's Arrow type follows its Iceberg type")
                };
                let fields = struct_fields(entry.data_type());
                let columns = vec![key.finish(fields[0].data_type()), value.finish(fields[1].data_type())];
                let entries = StructArray::new(fields.clone(), columns, None);
                Arc::new(MapArray::new(entry.clone(), taken(ends), entries, nulls, *sorted))
            }
        }
    }
}

fn taken(ends: &mut Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(std::mem::replace(ends, vec![0]).into())
}

fn struct_fields(of: &DataType) -> &ArrowFields {
    let DataType::Struct(fields) = of else {
        unreachable!("the plan's Arrow type follows its Iceberg type")
    };
    fields
}

fn item_field(of: &DataType) -> &FieldRef {
    let DataType::List(field) = of else {
        unreachable!("the plan's Arrow type follows its Iceberg type")
    };
    field
}
