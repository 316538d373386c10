//! `idempotent`: the events that the table holds, read from its rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions, ValueFormatter};
use futures::{StreamExt, TryStreamExt};
use iceberg::ErrorKind;
use iceberg::expr::{Predicate, Reference};
use iceberg::spec::Datum;
use tracing::info;

use crate::catalog::LoadedTable;
use crate::catalog::scan::planned;
use crate::decode::envelope::EVENT_ID;
use crate::error::{Exit, Failure, chain};
use crate::line::{EventKey, event_key};
use crate::memory::{Held, Memory, Purpose};
use crate::offsets::{Offset, Offsets, Partition};
use crate::schema::{ColumnSource, KafkaColumn, RowPlan};
use crate::shell::open::{World, patiently};

/// The wait before the table is looked at again, where it isn't yet where a line begins.
const PAUSE: Duration = Duration::from_millis(200);

/// Partitions whose events one scan reads: its filter names the offsets of each.
const PARTITIONS_AT_ONCE: usize = 64;

/// Offsets of them that one scan looks at, unless a partition has more by itself.
const OFFSETS_AT_ONCE: i64 = 500_000;

/// Beyond this what was read ahead is forgotten before more is.
const AHEAD_BYTES_MAX: usize = 16 << 20;

/// The events of a partition: where they were, and what they are known by.
type Events = Vec<(Offset, EventKey)>;

/// Events that a scan has read for partitions that no line has begun with yet: a table is scanned once for many of them.
#[derive(Debug)]
pub(super) struct EventsAhead(Mutex<Ahead>);

#[derive(Debug)]
struct Ahead {
    /// By partition, up to the offset at which it was going to begin.
    of: BTreeMap<Partition, (Offset, Events)>,
    /// The partitions that a line has begun with.
    begun: BTreeSet<Partition>,
    held: Held,
}

impl EventsAhead {
    pub(super) fn new(memory: &Memory) -> EventsAhead {
        EventsAhead(Mutex::new(Ahead {
            of: BTreeMap::new(),
            begun: BTreeSet::new(),
            held: memory.hold(Purpose::Files),
        }))
    }

    /// Begins with a partition; returns what was read of it up to `start`.
    fn take(&self, partition: Partition, start: Offset) -> Option<Events> {
        let mut ahead = self.ahead();
        ahead.begun.insert(partition);
        let found = ahead.of.remove(&partition);
        ahead.count();
        found.filter(|(until, _)| *until == start).map(|(_, events)| events)
    }

    fn put(&self, events: BTreeMap<Partition, (Offset, Events)>) {
        let mut ahead = self.ahead();
        if ahead.held.bytes() > AHEAD_BYTES_MAX {
            // Of partitions in which nothing comes.
            ahead.of.clear();
        }
        ahead.of.extend(events);
        ahead.count();
    }

    /// Says whether the events of a partition are still to be read.
    fn lacks(&self, partition: Partition) -> bool {
        let ahead = self.ahead();
        !ahead.begun.contains(&partition) && !ahead.of.contains_key(&partition)
    }

    /// Forgets all: the table isn't as it was then, and partitions begin anew.
    pub(super) fn forget(&self) {
        let mut ahead = self.ahead();
        ahead.of.clear();
        ahead.begun.clear();
        ahead.count();
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        // A panic under it leaves what was read, or nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ahead {
    fn count(&mut self) {
        let events: usize = self.of.values().map(|(_, events)| events.capacity()).sum();
        self.held.set(events * size_of::<(Offset, EventKey)>());
    }
}

impl World {
    /// Reads the events that a partition brought just before an offset.
    ///
    /// - `reading`: the partitions that are going to begin; the same scan reads the events of many of them, for when they do.
    ///
    /// # Errors
    /// Exit code 4 if the table can't be read, or doesn't come to hold what is before the offset, for `--retry-for`.
    pub(super) async fn events_before(
        &self,
        partition: Partition,
        start: Offset,
        reading: &[Partition],
        ahead: &EventsAhead,
    ) -> Result<Events, Failure> {
        if let Some(events) = ahead.take(partition, start) {
            return Ok(events);
        }
        if self.remembered_from(start) == start {
            return Ok(Events::new());
        }
        let (table, held) = self.table_at(partition, start).await?;
        let others = reading.iter().copied().filter(|other| ahead.lacks(*other));
        let starts = self.scanned_at_once(partition, start, others, &held);
        let plan = self.line_plan(&table)?;
        let read = || self.read_events(&table, &plan.rows, &starts);
        let passes = |error: &iceberg::Error| error.kind() != ErrorKind::FeatureUnsupported;
        let mut events = patiently(self.retry_for, passes, read).await.map_err(|error| {
            let what = format!("the events that table `{}` holds can't be read", self.ident);
            let (exit, hint) = match passes(&error) {
                true => (
                    Exit::Remote,
                    "`envelope.idempotent` knows events again by the table's rows; nothing was lost, run again when the store is well".to_owned(),
                ),
                false => (
                    Exit::Config,
                    format!(
                        "`envelope.idempotent` knows events again by the table's rows. Let Spark write those files anew, `CALL system.rewrite_data_files(table => '{}', options => map('delete-file-threshold', '1'))`, or leave `idempotent` out; nothing was lost",
                        self.ident
                    ),
                ),
            };
            Failure::new(exit, what).detail(chain(&error)).hint(hint)
        })?;
        let count: usize = events.values().map(|(_, events)| events.len()).sum();
        info!(table = %self.ident, partitions = starts.len(), events = count, "events that the table holds");
        let wanted = events.remove(&partition).map(|(_, events)| events).unwrap_or_default();
        ahead.put(events);
        Ok(wanted)
    }

    /// Chooses the partitions whose events are read by one scan, and where each begins.
    fn scanned_at_once(
        &self,
        partition: Partition,
        start: Offset,
        others: impl Iterator<Item = Partition>,
        held: &Offsets,
    ) -> Offsets {
        let mut starts: Offsets = [(partition, start)].into_iter().collect();
        let offsets = |start: Offset| start.get() - self.remembered_from(start).get();
        let mut left = OFFSETS_AT_ONCE - offsets(start);
        for other in others.filter(|other| *other != partition) {
            let Some(at) = held.get(other).filter(|at| offsets(*at) > 0) else {
                continue;
            };
            left -= offsets(at);
            if left < 0 || starts.len() == PARTITIONS_AT_ONCE {
                break;
            }
            starts.set(other, at);
        }
        starts
    }

    /// From where on a partition that begins at `start` remembers events.
    fn remembered_from(&self, start: Offset) -> Offset {
        let length = self.pipeline.source.envelope.and_then(|envelope| envelope.horizon);
        let length = i64::try_from(length.unwrap_or(0)).unwrap_or(i64::MAX);
        Offset::new(start.get().saturating_sub(length).max(0))
    }

    /// Loads the table as soon as it holds all before an offset, a window before may be on its way; returns its offsets too.
    async fn table_at(&self, partition: Partition, start: Offset) -> Result<(LoadedTable, Offsets), Failure> {
        let since = Instant::now();
        // Ends: by the table, or when the time is over.
        loop {
            let held = match self.load_view().await? {
                Some((table, view)) => {
                    let offsets = view.ledger.map(|ledger| ledger.offsets).unwrap_or_default();
                    let held = offsets.get(partition);
                    if held.is_none_or(|held| held >= start) {
                        return Ok((table, offsets));
                    }
                    held
                }
                None => None,
            };
            if since.elapsed() > Duration::from(self.retry_for) {
                let held = held.map_or_else(|| "nothing".to_owned(), |held| format!("offset {held}"));
                return Err(Failure::new(
                    Exit::Remote,
                    format!(
                        "table `{}` doesn't hold the events before those that are read",
                        self.ident
                    ),
                )
                .detail(format!(
                    "of partition {partition} it holds {held}, and reading is at {start}"
                ))
                .hint("run again: what isn't in the table is read again"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn read_events(
        &self,
        table: &LoadedTable,
        rows: &RowPlan,
        starts: &Offsets,
    ) -> iceberg::Result<BTreeMap<Partition, (Offset, Events)>> {
        let none = |(partition, start)| (partition, (start, Events::new()));
        let mut events: BTreeMap<_, _> = starts.iter().map(none).collect();
        let Some(id) = id_column(rows) else {
            // No event had an id by now.
            return Ok(events);
        };
        let name = |column: KafkaColumn| {
            let field = rows.schema.field_by_name_case_insensitive(column.name());
            field.map_or(column.name(), |field| field.name.as_str())
        };
        let (of_partition, of_offset) = (name(KafkaColumn::Partition), name(KafkaColumn::Offset));
        let of_one = |(partition, start): (Partition, Offset)| {
            let first = self.remembered_from(start);
            Reference::new(of_partition)
                .equal_to(Datum::int(partition.0))
                .and(Reference::new(of_offset).greater_than_or_equal_to(Datum::long(first.get())))
                .and(Reference::new(of_offset).less_than(Datum::long(start.get())))
        };
        let filter = starts.iter().map(of_one).reduce(Predicate::or);
        let filter = filter.expect("at least one partition begins");
        let table = table.scannable()?;
        let scan = table.scan().select([of_partition, of_offset, id]);
        let tasks = planned(scan.with_filter(filter).build()?).await?;
        let tasks = futures::stream::iter(tasks.into_iter().map(Ok)).boxed();
        let mut batches = table.reader_builder().build().read(tasks)?.stream();
        while let Some(batch) = batches.try_next().await? {
            collect(&batch, |partition, offset, id| {
                if let Some((_, events)) = events.get_mut(&partition) {
                    events.push((offset, event_key(&id.to_string())));
                }
            })?;
        }
        Ok(events)
    }
}

/// Names the column that holds the events' ids.
fn id_column(rows: &RowPlan) -> Option<&str> {
    let fields = rows.schema.as_struct().fields().iter().zip(&rows.sources);
    let mut ids = fields.filter(|(_, source)| match source {
        ColumnSource::Kafka(column) => *column == KafkaColumn::EventId,
        ColumnSource::Payload(path) => matches!(path.as_slice(), [name] if name.eq_ignore_ascii_case(EVENT_ID)),
        _ => false,
    });
    // That of the envelope, where the row has such a field too.
    let found = ids.clone().find(|(_, source)| matches!(source, ColumnSource::Kafka(_)));
    found.or_else(|| ids.next()).map(|(field, _)| field.name.as_str())
}

/// Reads partitions, offsets and ids; rows without one are of others.
fn collect(batch: &RecordBatch, mut event: impl FnMut(Partition, Offset, ValueFormatter<'_>)) -> iceberg::Result<()> {
    let wrong = |error: arrow::error::ArrowError| {
        iceberg::Error::new(iceberg::ErrorKind::DataInvalid, "a column can't be read").with_source(error)
    };
    let partitions = cast(batch.column(0), &DataType::Int32).map_err(wrong)?;
    let partitions = partitions.as_primitive::<Int32Type>();
    let offsets = cast(batch.column(1), &DataType::Int64).map_err(wrong)?;
    let offsets = offsets.as_primitive::<Int64Type>();
    let ids = batch.column(2);
    let options = FormatOptions::new();
    let texts = ArrayFormatter::try_new(ids, &options).map_err(wrong)?;
    let whole = |row: &usize| ids.is_valid(*row) && offsets.is_valid(*row) && partitions.is_valid(*row);
    for row in (0..batch.num_rows()).filter(whole) {
        let (partition, offset) = (Partition(partitions.value(row)), Offset::new(offsets.value(row)));
        event(partition, offset, texts.value(row));
    }
    Ok(())
}
