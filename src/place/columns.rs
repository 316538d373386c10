//! Columns of a batch: found by their path or field id, and brought to the table's own Arrow types.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, StructArray, make_array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use arrow::error::ArrowError;
use iceberg::spec::{NestedFieldRef, PrimitiveType, Schema, Type};

/// A column that lies at the top of a table's rows or inside structs, never inside a list or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The position at every level, from the top.
    pub positions: Vec<usize>,
    /// The Iceberg field id.
    pub field_id: i32,
    /// The Iceberg type.
    pub kind: PrimitiveType,
}

/// Returns the primitive columns that aren't inside a list or map, in schema order.
pub fn leaves(schema: &Schema) -> Vec<Leaf> {
    let mut found = Vec::new();
    collect_leaves(schema.as_struct().fields(), &mut Vec::new(), &mut found);
    found
}

fn collect_leaves(fields: &[NestedFieldRef], above: &mut Vec<usize>, found: &mut Vec<Leaf>) {
    for (position, field) in fields.iter().enumerate() {
        above.push(position);
        match field.field_type.as_ref() {
            Type::Primitive(kind) => {
                found.push(Leaf {
                    positions: above.clone(),
                    field_id: field.id,
                    kind: kind.clone(),
                });
            }
            Type::Struct(inner) => collect_leaves(inner.fields(), above, found),
            Type::List(_) | Type::Map(_) => {}
        }
        above.pop();
    }
}

/// Returns the column at `positions`; a value below a null struct is null.
///
/// # Panics
/// If the batch has no such column, or something other than a struct on the way to it.
pub fn column_at(batch: &RecordBatch, positions: &[usize]) -> ArrayRef {
    let (first, rest) = positions.split_first().expect("a column has a position");
    let mut column = Arc::clone(batch.column(*first));
    for position in rest {
        column = child(column.as_struct(), *position);
    }
    column
}

/// Returns the column that `path` names below `column`; names match as written, else without regard to case.
pub fn column_below(column: &ArrayRef, path: &[String]) -> Option<ArrayRef> {
    let Some((name, rest)) = path.split_first() else {
        return Some(Arc::clone(column));
    };
    let parent = column.as_struct_opt()?;
    let names = parent.column_names();
    let position = names
        .iter()
        .position(|field| field == name)
        .or_else(|| names.iter().position(|field| field.eq_ignore_ascii_case(name)))?;
    column_below(&child(parent, position), rest)
}

fn child(parent: &StructArray, position: usize) -> ArrayRef {
    let column = parent.column(position);
    if parent.nulls().is_none() {
        return Arc::clone(column);
    }
    let nulls = NullBuffer::union(parent.nulls(), column.nulls());
    let data = column.to_data().into_builder().nulls(nulls).build();
    make_array(data.expect("a struct and its fields have one length"))
}

/// Gives a column the type `target`, field ids included; buffers are shared wherever the values stay the same.
///
/// # Errors
/// If a value has no counterpart in `target`, or a null would stand where `target` has none.
pub fn conform(column: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == target {
        return Ok(Arc::clone(column));
    }
    match (target, column.data_type()) {
        (DataType::Struct(fields), DataType::Struct(_)) => {
            let column = column.as_struct();
            if fields.len() != column.num_columns() {
                return Err(mismatch(column.data_type(), target));
            }
            let children = fields.iter().zip(column.columns());
            let children = children
                .map(|(field, child)| conform(child, field.data_type()))
                .collect::<Result<_, _>>()?;
            let rows = column.len();
            let column = StructArray::try_new_with_length(fields.clone(), children, column.nulls().cloned(), rows)?;
            Ok(Arc::new(column))
        }
        (DataType::List(element), DataType::List(_)) => {
            let column = column.as_list::<i32>();
            let values = conform(column.values(), element.data_type())?;
            let (offsets, nulls) = (column.offsets().clone(), column.nulls().cloned());
            Ok(Arc::new(ListArray::try_new(
                FieldRef::clone(element),
                offsets,
                values,
                nulls,
            )?))
        }
        (DataType::Map(entries, ordered), DataType::Map(..)) => {
            let column = column.as_map();
            let values: ArrayRef = Arc::new(column.entries().clone());
            let values = conform(&values, entries.data_type())?.as_struct().clone();
            let (offsets, nulls) = (column.offsets().clone(), column.nulls().cloned());
            Ok(Arc::new(MapArray::try_new(
                FieldRef::clone(entries),
                offsets,
                values,
                nulls,
                *ordered,
            )?))
        }
        _ => cast(column, target),
    }
}

fn mismatch(found: &DataType, target: &DataType) -> ArrowError {
    ArrowError::SchemaError(format!("a column of type {found} can't stand for {target}"))
}
