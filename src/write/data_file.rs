//! The manifest's description of a written file, made from what Parquet counted.

use std::collections::{HashMap, HashSet};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, PrimitiveType, Schema, Struct};
use parquet::file::metadata::ParquetMetaData;

use super::bounds::column_bounds;
use super::settings::{MetricsMode, ParquetSettings};
use crate::place::{Leaf, column_at, leaves};

/// NaNs per field id: Parquet doesn't count them.
#[derive(Debug, Clone)]
pub(super) struct NanCounts {
    columns: Vec<(Leaf, u64)>,
}

impl NanCounts {
    pub(super) fn new(schema: &Schema) -> NanCounts {
        let is_float = |leaf: &Leaf| matches!(leaf.kind, PrimitiveType::Float | PrimitiveType::Double);
        NanCounts {
            columns: leaves(schema)
                .into_iter()
                .filter(is_float)
                .map(|leaf| (leaf, 0))
                .collect(),
        }
    }

    pub(super) fn add(&mut self, rows: &RecordBatch) {
        for (leaf, count) in &mut self.columns {
            let column = column_at(rows, &leaf.positions);
            let found = match column.data_type() {
                DataType::Float32 => {
                    let values = column.as_primitive::<Float32Type>();
                    (0..values.len())
                        .filter(|row| values.value(*row).is_nan() && values.is_valid(*row))
                        .count()
                }
                DataType::Float64 => {
                    let values = column.as_primitive::<Float64Type>();
                    (0..values.len())
                        .filter(|row| values.value(*row).is_nan() && values.is_valid(*row))
                        .count()
                }
                _ => 0,
            };
            *count += found as u64;
        }
    }
}

/// What is known of a file apart from its Parquet metadata.
pub(super) struct Written<'a> {
    pub path: &'a str,
    pub bytes: u64,
    pub partition: Struct,
    pub spec_id: i32,
    pub sort_order_id: Option<i32>,
}

/// Describes a finished file.
///
/// Counts and sizes are of all leaves that the metrics mode counts; bounds are of those outside lists and maps, as Iceberg's
/// own writers do it.
pub(super) fn data_file(
    file: Written<'_>,
    metadata: &ParquetMetaData,
    schema: &Schema,
    settings: &ParquetSettings,
    nans: &NanCounts,
) -> DataFile {
    let modes = settings.metrics_modes(schema);
    let mut column_sizes: HashMap<i32, u64> = HashMap::new();
    let mut value_counts: HashMap<i32, u64> = HashMap::new();
    let mut null_counts: HashMap<i32, u64> = HashMap::new();
    let mut lower_bounds: HashMap<i32, Datum> = HashMap::new();
    let mut upper_bounds: HashMap<i32, Datum> = HashMap::new();
    for (position, column) in metadata.file_metadata().schema_descr().columns().iter().enumerate() {
        let info = column.self_type().get_basic_info();
        assert!(
            info.has_id(),
            "column `{}` has no field id: no reader could find it",
            column.path()
        );
        let id = info.id();
        let chunks = || metadata.row_groups().iter().map(|row_group| row_group.column(position));
        let unsigned = |count: i64| u64::try_from(count).expect("a count isn't negative");
        column_sizes.insert(id, chunks().map(|chunk| unsigned(chunk.compressed_size())).sum());

        let mode = modes.get(&id).copied().unwrap_or(settings.metrics_default);
        if mode == MetricsMode::None {
            continue;
        }
        value_counts.insert(id, chunks().map(|chunk| unsigned(chunk.num_values())).sum());
        if let Some(nulls) = chunks()
            .map(|chunk| chunk.statistics()?.null_count_opt())
            .sum::<Option<u64>>()
        {
            null_counts.insert(id, nulls);
        }
        let kind = schema
            .field_by_id(id)
            .and_then(|field| field.field_type.as_primitive_type());
        if let (true, Some(kind)) = (modes.contains_key(&id), kind) {
            let bounds = column_bounds(metadata, position, kind, mode);
            lower_bounds.extend(bounds.lower.map(|bound| (id, bound)));
            upper_bounds.extend(bounds.upper.map(|bound| (id, bound)));
        }
    }
    let counted: HashSet<i32> = value_counts.keys().copied().collect();
    let nan_counts = nans.columns.iter().map(|(leaf, count)| (leaf.field_id, *count));
    let split_offsets = metadata.row_groups().iter().map(|row_group| {
        // The first byte of the first column: where a reader of the row group starts.
        let first = row_group.column(0);
        first
            .dictionary_page_offset()
            .map_or(first.data_page_offset(), |offset| offset.min(first.data_page_offset()))
    });
    let rows = u64::try_from(metadata.file_metadata().num_rows()).expect("a count isn't negative");

    let mut builder = DataFileBuilder::default();
    builder
        .content(DataContentType::Data)
        .file_path(file.path.to_owned())
        .file_format(DataFileFormat::Parquet)
        .partition(file.partition)
        .partition_spec_id(file.spec_id)
        .record_count(rows)
        .file_size_in_bytes(file.bytes)
        .column_sizes(column_sizes)
        .value_counts(value_counts)
        .null_value_counts(null_counts)
        .nan_value_counts(nan_counts.filter(|(id, _)| counted.contains(id)).collect())
        .lower_bounds(lower_bounds)
        .upper_bounds(upper_bounds)
        .split_offsets(Some(split_offsets.collect()));
    if let Some(order) = file.sort_order_id {
        builder.sort_order_id(order);
    }
    builder.build().expect("every required field of the data file is set")
}
