//! `idempotent`: the events that the table holds, read from its rows.

use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use iceberg::Runtime;
use iceberg::expr::Reference;
use iceberg::spec::Datum;
use iceberg::table::Table;
use tracing::info;

use crate::catalog::LoadedTable;
use crate::decode::envelope::EVENT_ID;
use crate::error::{Exit, Failure, chain};
use crate::line::Given;
use crate::offsets::{Offset, Partition};
use crate::schema::{ColumnSource, KafkaColumn, Missing, RowPlan};
use crate::shell::open::{World, patiently};
use crate::shell::tables::TableForm;

/// The wait before the table is looked at again, where it isn't yet where a line begins.
const PAUSE: Duration = Duration::from_millis(200);

impl World {
    /// Reads the ids of the events that a partition brought just before an offset.
    ///
    /// # Errors
    /// Exit code 4 if the table can't be read, or doesn't come to hold what is before the offset, for `--retry-for`.
    pub async fn events_before(&self, partition: Partition, start: Offset) -> Result<(Given, TableForm), Failure> {
        let table = self.table_at(partition, start).await?;
        let plan = self.line_plan(&table)?;
        let read = || self.read_events(&table, &plan.rows, partition, start);
        let events = patiently(self.retry_for, |_| true, read).await.map_err(|error| {
            Failure::new(
                Exit::Remote,
                format!("the events that table `{}` holds can't be read", self.ident),
            )
            .detail(chain(&error))
            .hint("`envelope.idempotent` knows events again by the table's rows; nothing was lost, run again when the store is well")
        })?;
        info!(table = %self.ident, %partition, %start, events = events.len(), "events that the table holds");
        let form = TableForm::of(&table);
        let given = Given {
            plan,
            missing: Missing::new(),
            events,
        };
        Ok((given, form))
    }

    /// Loads the table as soon as it holds all before an offset: a window before may be on its way.
    async fn table_at(&self, partition: Partition, start: Offset) -> Result<LoadedTable, Failure> {
        let since = Instant::now();
        // Ends: by the table, or when the time is over.
        loop {
            let held = match self.load_view().await? {
                Some((table, view)) => {
                    let held = view.ledger.and_then(|ledger| ledger.offsets.get(partition));
                    if held.is_none_or(|held| held >= start) {
                        return Ok(table);
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
        partition: Partition,
        start: Offset,
    ) -> iceberg::Result<Vec<(Offset, String)>> {
        let length = self.pipeline.source.envelope.and_then(|envelope| envelope.horizon);
        let first = start
            .get()
            .saturating_sub(i64::try_from(length.unwrap_or(0)).unwrap_or(i64::MAX))
            .max(0);
        let Some(id) = id_column(rows) else {
            // No event had an id by now.
            return Ok(Vec::new());
        };
        let name = |column: KafkaColumn| {
            let field = rows.schema.field_by_name_case_insensitive(column.name());
            field.map_or(column.name(), |field| field.name.as_str())
        };
        let (of_partition, of_offset) = (name(KafkaColumn::Partition), name(KafkaColumn::Offset));
        let filter = Reference::new(of_partition)
            .equal_to(Datum::int(partition.0))
            .and(Reference::new(of_offset).greater_than_or_equal_to(Datum::long(first)))
            .and(Reference::new(of_offset).less_than(Datum::long(start.get())));
        let table = Table::builder()
            .identifier(table.ident.clone())
            .metadata(table.metadata.clone())
            .metadata_location(table.metadata_location.clone())
            .file_io(table.file_io.clone())
            .runtime(Runtime::try_current()?)
            .readonly(true)
            .build()?;
        let scan = table.scan().select([of_offset, id]).with_filter(filter).build()?;
        let mut batches = scan.to_arrow().await?;
        let mut events = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            collect(&batch, &mut events)?;
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

/// Reads offsets and ids; rows without one are of others.
fn collect(batch: &RecordBatch, events: &mut Vec<(Offset, String)>) -> iceberg::Result<()> {
    let wrong = |error: arrow::error::ArrowError| {
        iceberg::Error::new(iceberg::ErrorKind::DataInvalid, "a column can't be read").with_source(error)
    };
    let offsets = cast(batch.column(0), &DataType::Int64).map_err(wrong)?;
    let offsets = offsets.as_primitive::<Int64Type>();
    let ids = batch.column(1);
    let options = FormatOptions::new();
    let texts = ArrayFormatter::try_new(ids, &options).map_err(wrong)?;
    for row in (0..batch.num_rows()).filter(|row| ids.is_valid(*row) && offsets.is_valid(*row)) {
        events.push((Offset::new(offsets.value(row)), texts.value(row).to_string()));
    }
    Ok(())
}
