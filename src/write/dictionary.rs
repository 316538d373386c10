//! Which columns a dictionary doesn't pay for, judged by the first rows of a window.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use iceberg::spec::Schema;
use parquet::schema::types::ColumnPath;

use crate::place::{column_at, leaves};

/// Rows looked at.
const SAMPLE_ROWS_MAX: usize = 4096;

/// Fewer rows tell nothing, and are encoded fast either way.
const SAMPLE_ROWS_MIN: usize = 1024;

/// Returns the columns that are better written plain: those whose distinct values, as far as `rows` tell, would outgrow a
/// dictionary of `dictionary_bytes_max`.
///
/// Parquet's encoder finds that out by itself, having hashed every value up to there, and anew in every row group; numbers
/// that never repeat stay below 2 MiB for 262,144 rows and get larger by their dictionary. A column that was judged wrong is
/// right all the same, only larger or slower to write.
pub(super) fn plain_columns(rows: &RecordBatch, schema: &Schema, dictionary_bytes_max: usize) -> Vec<ColumnPath> {
    if rows.num_rows() < SAMPLE_ROWS_MIN {
        return Vec::new();
    }
    let sample = rows.slice(0, rows.num_rows().min(SAMPLE_ROWS_MAX));
    let plain = leaves(schema).into_iter().filter(|leaf| {
        let column = column_at(&sample, &leaf.positions);
        // Parquet has no dictionaries of booleans.
        column.data_type() != &DataType::Boolean && outgrows(&column, dictionary_bytes_max)
    });
    let path = |positions: &[usize]| {
        let mut fields = schema.as_struct().fields();
        let names = positions.iter().map(|position| {
            let field = &fields[*position];
            if let iceberg::spec::Type::Struct(inner) = field.field_type.as_ref() {
                fields = inner.fields();
            }
            field.name.clone()
        });
        ColumnPath::new(names.collect())
    };
    plain.map(|leaf| path(&leaf.positions)).collect()
}

/// Estimates the distinct values of a column: of `n` values drawn evenly among `d`, about `n² / 2d` repeat another.
fn outgrows(column: &ArrayRef, dictionary_bytes_max: usize) -> bool {
    let values = column.len() - column.null_count();
    if values < SAMPLE_ROWS_MIN {
        return false;
    }
    let converter = RowConverter::new(vec![SortField::new(column.data_type().clone())]);
    let Ok(rows) = converter.and_then(|converter| converter.convert_columns(std::slice::from_ref(column))) else {
        return false; // Nothing that Arrow can compare: the encoder may try a dictionary.
    };
    let distinct: HashSet<&[u8]> = (0..column.len())
        .filter(|row| column.is_valid(*row))
        .map(|row| rows.row(row).data())
        .collect();
    let repeats = values - distinct.len();
    let estimated = values * values / (2 * repeats.max(1));
    // Of text, with the ends of values: a dictionary has their lengths in it too.
    let bytes = column.to_data().get_slice_memory_size().unwrap_or_default() / column.len();
    estimated.saturating_mul(bytes) > dictionary_bytes_max
}
