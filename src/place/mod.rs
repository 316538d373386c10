//! Placing: every row gets its event time and its partition value, and rows of one value go together.

mod columns;
mod event_time;
mod hive;
mod partition;
mod split;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::compute::{cast, filter, filter_record_batch, take, take_record_batch};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use iceberg::spec::{PartitionSpecRef, Struct};

pub use self::columns::{Leaf, column_at, conform, leaves};
pub use self::event_time::{EventTimes, UTC};
use self::hive::hive_path;
pub use self::hive::{hive_spec, stored};
pub use self::partition::{partition_path, partition_spec};
use self::split::{PartitionKey, groups_of, is_uniform};
use crate::chunk::Chunk;
use crate::config::EventTime;
use crate::decode::field::{FieldValue, field};
use crate::decode::{Decoded, Reject, Stage};
use crate::schema::{ColumnSource, KafkaColumn, RowPlanRef, frame};

/// Rows that share a partition value.
#[derive(Debug, Clone)]
pub struct Part {
    /// The partition value, of the spec's partition type; empty where the table has no partitions.
    pub value: Struct,
    /// The directory of the partition, escaped, relative to the data location; empty where there are no partitions.
    pub path: String,
    /// The rows, with the schema of the plan, in Hive's layout without the columns that are directories; at least one, in
    /// the order they were decoded.
    pub rows: RecordBatch,
}

/// A partition value and its directory, see [`Part`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionValue {
    /// The value.
    pub value: Struct,
    /// The directory.
    pub path: String,
}

/// Rows of many partition values, too few of each to be worth a batch of their own.
#[derive(Debug, Clone)]
pub struct Scattered {
    /// The rows, with the schema of the plan, in the order they were decoded.
    pub rows: RecordBatch,
    /// The values, each once.
    pub values: Vec<Arc<PartitionValue>>,
    /// By position in `values`: its rows, ascending; together all of `rows`.
    pub rows_of: Vec<Vec<u32>>,
}

/// What placing made of one chunk's rows.
#[derive(Debug)]
pub struct Placed {
    /// One part per distinct partition value, ascending by path; none if the rows are scattered.
    pub parts: Vec<Part>,
    /// The rows, if they are scattered.
    pub scattered: Option<Scattered>,
    /// The decoder's rejects and the rows that couldn't be placed, ascending by index.
    pub rejects: Vec<Reject>,
    /// The latest event time of the placed rows, microseconds UTC; `None` without rows or where none is computed.
    pub event_time_max_us: Option<i64>,
}

/// Why rows can't be placed under a plan and spec at all.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The spec partitions by a column that the schema doesn't have, or has inside a list or map.
    #[error("partition `{partition}` needs the column with field id {source_id}, which the table doesn't have")]
    NoSource {
        /// The partition's name.
        partition: String,
        /// The field id of the column it is taken of.
        source_id: i32,
    },
    /// The transform can't be computed here.
    #[error("partition `{partition}` can't be computed")]
    Transform {
        /// The partition's name.
        partition: String,
        /// Why.
        source: Box<iceberg::Error>,
    },
}

/// What is known of rows beside their payload.
struct Beside<'a> {
    timestamps_ms: &'a Int64Array,
    event_times: Option<&'a TimestampMicrosecondArray>,
    keys: Option<&'a ArrayRef>,
    event_ids: Option<&'a StringArray>,
}

/// Values in a chunk from which on its rows may be scattered.
const SCATTERED_VALUES_MIN: usize = 16;

/// Rows of a value in a chunk, on average, below which they are scattered: a batch of its own for each costs more than the
/// wait.
const SCATTERED_ROWS_MAX: usize = 256;

/// Partition values whose directories are kept at hand, some 300 bytes each.
const VALUES_KNOWN_MAX: usize = 16_384;

/// Places decoded rows: makes them whole, reads their event time, splits them by partition value.
#[derive(Debug)]
pub struct Placer {
    plan: RowPlanRef,
    spec: PartitionSpecRef,
    topic: String,
    event_time: Option<EventTime>,
    keys: Vec<PartitionKey>,
    /// Hive's layout: the places of the columns that the files hold.
    hive: Option<Vec<usize>>,
    /// Values seen before, by their bytes as rows compare them; a cache, nothing more.
    known: RefCell<HashMap<Box<[u8]>, Arc<PartitionValue>>>,
}

impl Placer {
    /// Makes a placer for the rows of one plan.
    ///
    /// - `topic`: what `_kafka_topic` holds.
    /// - `event_time`: where the event time is found; `None` takes the records' timestamps
    ///   where the plan has `_event_time`, and else computes no event time.
    ///
    /// # Errors
    /// [`PlaceError`] if the spec doesn't belong to the plan's schema.
    pub fn new(
        plan: RowPlanRef,
        spec: PartitionSpecRef,
        topic: &str,
        event_time: Option<EventTime>,
    ) -> Result<Placer, PlaceError> {
        let leaves = leaves(&plan.schema);
        let nothing = RecordBatch::new_empty(Arc::clone(&plan.arrow));
        let mut keys = Vec::with_capacity(spec.fields().len());
        for field in spec.fields() {
            keys.push(PartitionKey::new(field, &leaves, &nothing)?);
        }
        Ok(Placer {
            plan,
            spec,
            topic: topic.to_owned(),
            event_time,
            keys,
            hive: None,
            known: RefCell::default(),
        })
    }

    /// Lays partitions out as Hive does: its directories, and parts without the columns that are directories; see
    /// [`stored`].
    pub fn in_hive_layout(self) -> Placer {
        let (_, kept) = stored(&self.plan, &self.spec);
        Placer {
            hive: Some(kept),
            ..self
        }
    }

    /// Places the rows decoded from `chunk`.
    ///
    /// A row without a readable event time or a partition value becomes a reject of stage [`Stage::Place`]; the rows of
    /// all parts and all rejects together are the rows and rejects that went in.
    ///
    /// # Panics
    /// If `decoded` doesn't fit the plan or the chunk.
    pub fn place(&self, decoded: Decoded, chunk: &Chunk) -> Placed {
        assert_eq!(
            decoded.rows.num_rows(),
            decoded.indexes.len(),
            "every row has the index of its record"
        );
        let Decoded {
            rows,
            indexes,
            mut rejects,
            event_time,
            mut keys,
            mut event_ids,
            ..
        } = decoded;
        let mut indexes = UInt32Array::from(indexes);
        let mut rows = rows;
        let mut timestamps_ms = of_rows(&chunk.timestamps, &indexes).as_primitive().clone();

        let mut failures = self.unwritable_timestamps(&timestamps_ms);
        let mut event_times = None;
        if let Some(times) = self.event_times(&rows, &timestamps_ms, chunk, &indexes, event_time.as_ref()) {
            failures.extend(times.failures);
            event_times = Some(times.times);
        }
        if !failures.is_empty() {
            let kept = reject(failures, &indexes, &mut rejects);
            rows = filter_record_batch(&rows, &kept).expect("the mask has the length of the rows");
            timestamps_ms = kept_of(&timestamps_ms, &kept).as_primitive().clone();
            indexes = kept_of(&indexes, &kept).as_primitive().clone();
            keys = keys.map(|keys| kept_of(&keys, &kept));
            event_ids = event_ids.map(|ids| kept_of(&ids, &kept).as_string().clone());
            event_times = event_times.map(|times| kept_of(&times, &kept).as_primitive().clone());
        }

        let beside = Beside {
            timestamps_ms: &timestamps_ms,
            event_times: event_times.as_ref(),
            keys: keys.as_ref(),
            event_ids: event_ids.as_ref(),
        };
        let mut batch = self.assemble(&rows, chunk, &indexes, &beside);
        let mut failures = self.unplaceable(&batch);
        failures.extend(self.undirectable(&batch));
        if !failures.is_empty() {
            let kept = reject(failures, &indexes, &mut rejects);
            batch = filter_record_batch(&batch, &kept).expect("the mask has the length of the rows");
            event_times = event_times.map(|times| kept_of(&times, &kept).as_primitive().clone());
        }
        rejects.sort_by_key(|reject| reject.index);
        let (parts, scattered) = self.split(batch);
        Placed {
            parts,
            scattered,
            rejects,
            event_time_max_us: event_times.as_ref().and_then(arrow::compute::max),
        }
    }

    fn event_times(
        &self,
        rows: &RecordBatch,
        timestamps_ms: &Int64Array,
        chunk: &Chunk,
        indexes: &UInt32Array,
        aside: Option<&StringArray>,
    ) -> Option<EventTimes> {
        let Some(EventTime { path, format }) = &self.event_time else {
            let wanted = self.plan.sources.contains(&ColumnSource::EventTime);
            return wanted.then(|| EventTimes::compute(&Default::default(), None, timestamps_ms));
        };
        let column = self.plan.payload_column(path);
        let column = column.and_then(|(at, below)| columns::column_below(rows.column(at), below));
        let mut times = match (column, aside) {
            (Some(column), _) => EventTimes::compute(format, Some(&column), timestamps_ms),
            // Declared columns may leave it out.
            (None, Some(texts)) => EventTimes::of_fields(format, rows.num_rows(), |row| text_field(texts, row)),
            (None, None) => EventTimes::of_fields(format, rows.num_rows(), |row| {
                field(chunk.values.value(indexes.value(row) as usize), path)
            }),
        };
        for (_, reason) in &mut times.failures {
            *reason = format!("event time field `{}`: {reason}", path.join("."));
        }
        Some(times)
    }

    /// Finds the rows whose Kafka timestamp doesn't fit a column of microseconds.
    fn unwritable_timestamps(&self, timestamps_ms: &Int64Array) -> Vec<(u32, String)> {
        if !self.plan.sources.contains(&ColumnSource::Kafka(KafkaColumn::Timestamp)) {
            return Vec::new();
        }
        failures_of(timestamps_ms.len(), |row| {
            (timestamps_ms.is_valid(row) && timestamps_ms.value(row).checked_mul(1000).is_none()).then(|| {
                format!(
                    "the record's timestamp, {} ms, lies outside what a column can hold",
                    timestamps_ms.value(row)
                )
            })
        })
    }

    fn assemble(&self, rows: &RecordBatch, chunk: &Chunk, indexes: &UInt32Array, beside: &Beside<'_>) -> RecordBatch {
        let mut payload = rows.columns().iter();
        let mut columns = Vec::with_capacity(self.plan.sources.len());
        for (source, field) in self.plan.sources.iter().zip(self.plan.arrow.fields()) {
            let column: ArrayRef = match source {
                ColumnSource::Payload(_) => Arc::clone(
                    payload
                        .next()
                        .expect("the decoder fills every payload column of the plan"),
                ),
                ColumnSource::Kafka(column) => self.kafka_column(*column, chunk, indexes, beside),
                ColumnSource::EventTime => Arc::new(beside.event_times.expect("the plan has an event time").clone()),
                ColumnSource::Absent => new_null_array(field.data_type(), indexes.len()),
            };
            columns.push(conform(&column, field.data_type()).expect("a column's source has the column's type"));
        }
        assert!(
            payload.next().is_none(),
            "every decoded column has its place in the plan"
        );
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(indexes.len()));
        RecordBatch::try_new_with_options(Arc::clone(&self.plan.arrow), columns, &options)
            .expect("the decoder rejects a record that lacks a required column")
    }

    fn kafka_column(&self, column: KafkaColumn, chunk: &Chunk, indexes: &UInt32Array, beside: &Beside<'_>) -> ArrayRef {
        let rows = indexes.len();
        match column {
            KafkaColumn::Topic => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&self.topic, rows))),
            KafkaColumn::Partition => Arc::new(Int32Array::from_value(chunk.partition.0, rows)),
            KafkaColumn::Offset => of_rows(&chunk.offsets, indexes),
            KafkaColumn::Timestamp => {
                let times: TimestampMicrosecondArray = beside
                    .timestamps_ms
                    .unary_opt(|timestamp_ms: i64| timestamp_ms.checked_mul(1000));
                Arc::new(times.with_timezone(UTC))
            }
            KafkaColumn::Key => match beside.keys {
                Some(keys) => Arc::clone(keys),
                None => of_rows(&chunk.keys, indexes),
            },
            KafkaColumn::EventId => match beside.event_ids {
                Some(ids) => Arc::new(ids.clone()),
                None => Arc::new(StringArray::new_null(rows)),
            },
            KafkaColumn::Headers => match &chunk.headers {
                Some(headers) => of_rows(headers, indexes),
                None => Arc::new(ListArray::new_null(header_field(), rows)),
            },
            KafkaColumn::SchemaId => {
                let ids = indexes.values().iter().map(|index| schema_id(chunk, *index as usize));
                Arc::new(ids.collect::<Int32Array>())
            }
        }
    }

    /// Finds the rows for which a partition by time has no value that every engine reads.
    fn unplaceable(&self, batch: &RecordBatch) -> Vec<(u32, String)> {
        let mut failures = Vec::new();
        for key in self.keys.iter().filter(|key| key.is_temporal()) {
            let column = column_at(batch, &key.positions);
            // A date and nanoseconds in 64 bits never leave the range of an int; the years of dates are checked here too.
            let times = match column.data_type() {
                DataType::Timestamp(TimeUnit::Microsecond, _) => column,
                DataType::Date32 => cast(&column, &DataType::Timestamp(TimeUnit::Microsecond, None))
                    .expect("arrow casts a date to microseconds"),
                _ => continue,
            };
            let times = times.as_primitive::<TimestampMicrosecondType>();
            failures.extend(failures_of(times.len(), |row| {
                (times.is_valid(row) && !event_time::readable_everywhere(times.value(row))).then(|| {
                    format!(
                        "no value for partition `{}`: its time lies outside the years 1 to 9999",
                        key.name
                    )
                })
            }));
        }
        failures
    }

    /// Finds the rows whose partition value is too long for a directory, in Hive's layout.
    fn undirectable(&self, batch: &RecordBatch) -> Vec<(u32, String)> {
        if self.hive.is_none() || batch.num_rows() == 0 {
            return Vec::new();
        }
        let values: Vec<ArrayRef> = self.keys.iter().map(|key| key.values(batch)).collect();
        let mut failures = Vec::new();
        for group in groups_of(&values) {
            let value = self.literals(&values, group.rows[0] as usize);
            if let Err(reason) = hive_path(&self.spec, &self.plan.schema, &value) {
                failures.extend(group.rows.into_iter().map(|row| (row, reason.clone())));
            }
        }
        failures
    }

    /// Returns what the files hold of placed rows: in Hive's layout some columns are in the directory only.
    fn stored(&self, batch: RecordBatch) -> RecordBatch {
        match &self.hive {
            None => batch,
            Some(kept) => batch.project(kept).expect("the places are of the plan"),
        }
    }

    fn split(&self, batch: RecordBatch) -> (Vec<Part>, Option<Scattered>) {
        if batch.num_rows() == 0 {
            return (Vec::new(), None);
        }
        let values: Vec<ArrayRef> = self.keys.iter().map(|key| key.values(&batch)).collect();
        let batch = self.stored(batch);
        if values.iter().all(is_uniform) {
            let value = self.value(&values, 0);
            return (vec![part(&value, batch)], None);
        }
        let groups = groups_of(&values);
        let mut known = self.known.borrow_mut();
        if known.len() > VALUES_KNOWN_MAX {
            known.clear();
        }
        let values: Vec<Arc<PartitionValue>> = groups
            .iter()
            .map(|group| match known.get(&group.key) {
                Some(value) => Arc::clone(value),
                None => {
                    let value = self.value(&values, group.rows[0] as usize);
                    known.insert(group.key.clone(), Arc::clone(&value));
                    value
                }
            })
            .collect();
        drop(known);
        if groups.len() >= SCATTERED_VALUES_MIN && batch.num_rows() / groups.len() < SCATTERED_ROWS_MAX {
            let rows_of = groups.into_iter().map(|group| group.rows).collect();
            let scattered = Scattered {
                rows: batch,
                values,
                rows_of,
            };
            return (Vec::new(), Some(scattered));
        }
        let parts = groups.into_iter().zip(&values).map(|(group, value)| {
            let group = group.rows;
            let (first, last) = (group[0] as usize, group[group.len() - 1] as usize);
            let rows = if last - first + 1 == group.len() {
                batch.slice(first, group.len())
            } else {
                take_record_batch(&batch, &UInt32Array::from(group)).expect("a group holds rows of the batch")
            };
            part(value, rows)
        });
        let mut parts: Vec<Part> = parts.collect();
        parts.sort_by(|a, b| a.path.cmp(&b.path));
        (parts, None)
    }

    fn value(&self, values: &[ArrayRef], row: usize) -> Arc<PartitionValue> {
        let value = self.literals(values, row);
        let path = match &self.hive {
            None => partition_path(&self.spec, &self.plan.schema, &value),
            Some(_) => {
                hive_path(&self.spec, &self.plan.schema, &value).expect("rows without a directory were rejected")
            }
        };
        Arc::new(PartitionValue { value, path })
    }

    fn literals(&self, values: &[ArrayRef], row: usize) -> Struct {
        let literals = self
            .keys
            .iter()
            .zip(values)
            .map(|(key, values)| key.literal(values, row));
        Struct::from_iter(literals.collect::<Vec<_>>())
    }
}

fn part(value: &PartitionValue, rows: RecordBatch) -> Part {
    Part {
        value: value.value.clone(),
        path: value.path.clone(),
        rows,
    }
}

fn of_rows(column: &dyn Array, indexes: &UInt32Array) -> ArrayRef {
    // The indexes ascend without repeats, so as many of them as records means all records.
    if indexes.len() == column.len() {
        return column.slice(0, column.len());
    }
    take(column, indexes, None).expect("an index names a record of the chunk")
}

fn kept_of(column: &dyn Array, kept: &BooleanArray) -> ArrayRef {
    filter(column, kept).expect("the mask has the length of the rows")
}

fn failures_of(rows: usize, reason: impl Fn(usize) -> Option<String>) -> Vec<(u32, String)> {
    let failed = |row| reason(row).map(|reason| (u32::try_from(row).expect("a chunk's rows fit 32 bits"), reason));
    (0..rows).filter_map(failed).collect()
}

/// Turns failed rows into rejects, one per row, and returns the mask of the rows that stay.
fn reject(mut failures: Vec<(u32, String)>, indexes: &UInt32Array, rejects: &mut Vec<Reject>) -> BooleanArray {
    failures.sort_by_key(|(row, _)| *row);
    failures.dedup_by_key(|(row, _)| *row);
    let mut kept = vec![true; indexes.len()];
    for (row, reason) in failures {
        kept[row as usize] = false;
        rejects.push(Reject {
            index: indexes.value(row as usize),
            stage: Stage::Place,
            reason,
        });
    }
    BooleanArray::from(kept)
}

/// An event time that no column holds, as its decoder found it.
fn text_field(texts: &StringArray, row: usize) -> Option<FieldValue<'_>> {
    let text = texts.is_valid(row).then(|| texts.value(row))?;
    Some(match text.parse::<f64>() {
        Ok(number) if number.is_finite() => FieldValue::Number(text),
        _ => FieldValue::Text(text.as_bytes().into()),
    })
}

/// The registry's id that a record's value begins with.
fn schema_id(chunk: &Chunk, index: usize) -> Option<i32> {
    chunk
        .values
        .is_valid(index)
        .then(|| frame::id(chunk.values.value(index)))
        .flatten()
}

fn header_field() -> arrow::datatypes::FieldRef {
    use arrow::datatypes::{Field, Fields};
    let fields = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Binary, true),
    ]);
    Arc::new(Field::new("element", DataType::Struct(fields), false))
}
