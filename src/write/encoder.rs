//! One file being encoded, in order of arrival or sorted.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{SortColumn, SortOptions, concat, interleave_record_batch, lexsort_to_indices};
use arrow::error::ArrowError;
use iceberg::spec::{NullOrder, PrimitiveType, Schema, SortDirection, SortOrder, Transform};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{LogicalType, Type as PhysicalType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::schema::types::{ColumnPath, SchemaDescriptor, Type, TypePtr};

use super::settings::ParquetSettings;
use super::sink::FileSink;
use crate::place::{column_at, leaves};
use crate::schema::RowPlan;

/// Rows handed to the encoder at once: sizes are checked between, so a file passes its target by no more than these.
pub(super) const STEP_ROWS_MAX: usize = 16_384;

/// The same, in bytes, for rows that are copied on their way.
const STEP_BYTES_MAX: usize = 4 << 20;

/// A Parquet writer over a sink.
pub(super) type Encoder = ArrowWriter<Held>;

/// A sink lent to a Parquet writer: parquet 58 gives back what it writes to only if it has written no footer.
pub(super) struct Held(Option<Box<dyn FileSink>>);

impl Held {
    /// Returns how many bytes the sink holds in memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |sink| sink.held_bytes())
    }

    fn sink(&mut self) -> io::Result<&mut Box<dyn FileSink>> {
        self.0.as_mut().ok_or_else(|| io::Error::other("the file is finished"))
    }
}

impl io::Write for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        // Dropping the writer flushes once more, after the sink was taken out; there is nothing left to send then.
        self.0.as_mut().map_or(Ok(()), |sink| sink.flush())
    }
}

/// Starts a Parquet file with the plan's schema; the columns `plain` have no dictionary.
///
/// Arrow's own schema isn't stored: field ids and logical types say all that Iceberg's readers go by.
pub(super) fn encoder(
    plan: &RowPlan,
    settings: &ParquetSettings,
    plain: &[ColumnPath],
    sink: Box<dyn FileSink>,
) -> Result<Encoder, ParquetError> {
    let mut options = ArrowWriterOptions::new()
        .with_properties(settings.writer_properties(&plan.schema, plain))
        .with_skip_arrow_metadata(true)
        .with_schema_root("table".to_owned());
    if let Some(schema) = schema_with_uuids(plan)? {
        options = options.with_parquet_schema(schema);
    }
    let mut encoder = ArrowWriter::try_new_with_options(Held(Some(sink)), Arc::clone(&plan.arrow), options)?;
    // Iceberg's Java stores the schema under this key (`ParquetWriter`, 1.10); PyIceberg reads it when files are added.
    let schema =
        serde_json::to_string(plan.schema.as_ref()).map_err(|error| ParquetError::External(Box::new(error)))?;
    encoder.append_key_value_metadata(KeyValue::new("iceberg.schema".to_owned(), schema));
    Ok(encoder)
}

/// Marks UUID columns as such, or returns `None` if the plan has none.
///
/// Arrow has no UUID type, and Spark fails on 16 fixed bytes that aren't marked.
fn schema_with_uuids(plan: &RowPlan) -> Result<Option<SchemaDescriptor>, ParquetError> {
    let mut ids = HashSet::new();
    collect_uuids(
        &iceberg::spec::Type::Struct(plan.schema.as_struct().clone()),
        0,
        &mut ids,
    );
    if ids.is_empty() {
        return Ok(None);
    }
    let descriptor = ArrowSchemaConverter::new().schema_root("table").convert(&plan.arrow)?;
    Ok(Some(SchemaDescriptor::new(marked(descriptor.root_schema(), &ids)?)))
}

fn collect_uuids(kind: &iceberg::spec::Type, id: i32, ids: &mut HashSet<i32>) {
    use iceberg::spec::Type as Kind;
    match kind {
        Kind::Primitive(PrimitiveType::Uuid) => {
            ids.insert(id);
        }
        Kind::Primitive(_) => {}
        Kind::Struct(inner) => inner
            .fields()
            .iter()
            .for_each(|field| collect_uuids(&field.field_type, field.id, ids)),
        Kind::List(inner) => collect_uuids(&inner.element_field.field_type, inner.element_field.id, ids),
        Kind::Map(inner) => {
            collect_uuids(&inner.key_field.field_type, inner.key_field.id, ids);
            collect_uuids(&inner.value_field.field_type, inner.value_field.id, ids);
        }
    }
}

fn marked(kind: &Type, ids: &HashSet<i32>) -> Result<TypePtr, ParquetError> {
    let info = kind.get_basic_info();
    let id = info.has_id().then(|| info.id());
    if kind.is_primitive() {
        if kind.get_physical_type() != PhysicalType::FIXED_LEN_BYTE_ARRAY || !id.is_some_and(|id| ids.contains(&id)) {
            return Ok(Arc::new(kind.clone()));
        }
        let uuid = Type::primitive_type_builder(kind.name(), PhysicalType::FIXED_LEN_BYTE_ARRAY)
            .with_length(16)
            .with_repetition(info.repetition())
            .with_logical_type(Some(LogicalType::Uuid))
            .with_id(id);
        return Ok(Arc::new(uuid.build()?));
    }
    let fields = kind
        .get_fields()
        .iter()
        .map(|field| marked(field, ids))
        .collect::<Result<_, _>>()?;
    let mut group = Type::group_type_builder(kind.name())
        .with_fields(fields)
        .with_converted_type(info.converted_type())
        .with_logical_type(info.logical_type_ref().cloned())
        .with_id(id);
    if info.has_repetition() {
        group = group.with_repetition(info.repetition());
    }
    Ok(Arc::new(group.build()?))
}

/// A table's sort order, as far as it can be kept: columns themselves, no transforms of them.
#[derive(Debug, Clone)]
pub(super) struct RowOrder {
    /// The order's id, stamped on files that are sorted by it.
    pub id: i32,
    columns: Vec<(Vec<usize>, SortOptions)>,
}

impl RowOrder {
    /// Returns the order if rows of `schema` can be sorted by it.
    pub(super) fn new(order: &SortOrder, schema: &Schema) -> Option<RowOrder> {
        let leaves = leaves(schema);
        let columns = order.fields.iter().map(|field| {
            let leaf = leaves.iter().find(|leaf| leaf.field_id == field.source_id)?;
            let options = SortOptions {
                descending: field.direction == SortDirection::Descending,
                nulls_first: field.null_order == NullOrder::First,
            };
            // Java up to Iceberg 1.10 orders UUIDs otherwise than by bytes.
            let fits = field.transform == Transform::Identity && leaf.kind != PrimitiveType::Uuid;
            fits.then(|| (leaf.positions.clone(), options))
        });
        let columns: Vec<_> = columns.collect::<Option<_>>()?;
        let id = i32::try_from(order.order_id).ok()?;
        (id > 0 && !columns.is_empty()).then_some(RowOrder { id, columns })
    }

    /// Sorts the rows of `batches`, which aren't empty: returns for each row its batch and its place in it.
    pub(super) fn sorted(&self, batches: &[RecordBatch]) -> Result<Vec<(usize, usize)>, ArrowError> {
        let columns = self.columns.iter().map(|(positions, options)| {
            let parts: Vec<ArrayRef> = batches.iter().map(|batch| column_at(batch, positions)).collect();
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            Ok(SortColumn {
                values: concat(&parts)?,
                options: Some(*options),
            })
        });
        let columns: Vec<SortColumn> = columns.collect::<Result<_, ArrowError>>()?;
        let places = batches
            .iter()
            .enumerate()
            .flat_map(|(batch, rows)| (0..rows.num_rows()).map(move |row| (batch, row)));
        let places: Vec<(usize, usize)> = places.collect();
        let order = lexsort_to_indices(&columns, None)?;
        Ok(order.values().iter().map(|row| places[*row as usize]).collect())
    }
}

/// How many rows are copied and given to an encoder at once: an encoder looks at the size of its pages in between.
///
/// - `bytes`: what all `rows` hold.
pub(super) fn step_rows(bytes: usize, rows: usize) -> usize {
    let row_bytes = bytes / rows.max(1);
    (STEP_BYTES_MAX / row_bytes.max(1)).clamp(1, STEP_ROWS_MAX)
}

/// What `rows` hold in memory: a slice its own rows only, where `get_array_memory_size` counts the whole buffers below it.
pub(super) fn slice_bytes(rows: &RecordBatch) -> usize {
    let of = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
    rows.columns().iter().map(of).sum()
}

/// The rows of a file that is sorted before it is encoded.
#[derive(Debug, Default)]
pub(super) struct RowBuffer {
    pub batches: Vec<RecordBatch>,
    pub bytes: usize,
}

impl RowBuffer {
    pub(super) fn push(&mut self, rows: RecordBatch) {
        self.bytes += slice_bytes(&rows);
        self.batches.push(rows);
    }
}

/// Encodes rows of `buffer` in the order of `places`, a few at a time.
pub(super) fn encode(encoder: &mut Encoder, buffer: &RowBuffer, places: &[(usize, usize)]) -> Result<(), ParquetError> {
    let batches: Vec<&RecordBatch> = buffer.batches.iter().collect();
    for step in places.chunks(step_rows(buffer.bytes, places.len())) {
        encoder.write(&interleave_record_batch(&batches, step)?)?;
    }
    Ok(())
}

/// Writes the footer and returns what is in it, the bytes written, and the sink.
pub(super) fn finish(mut encoder: Encoder) -> Result<(ParquetMetaData, u64, Box<dyn FileSink>), ParquetError> {
    let metadata = encoder.finish()?;
    encoder.sync()?;
    let bytes = encoder.bytes_written() as u64;
    let sink = encoder.inner_mut().0.take().expect("the sink is taken once, here");
    Ok((metadata, bytes, sink))
}
