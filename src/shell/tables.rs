//! The table of a pipeline: found and adopted, or inferred and created; evolved when records bring new fields.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use iceberg::spec::{FormatVersion, NestedField, PrimitiveType, Schema, Transform, Type};
use tracing::{info, warn};

use crate::catalog::stage::schema_change;
use crate::catalog::{LoadedTable, NewTable, SwapAnswer, ViewError};
use crate::config::{self, Evolution, Pipeline, StartOffset};
use crate::error::{Exit, Failure};
use crate::kill_points::{self, KillPoint, Place};
use crate::line::LinePlan;
use crate::place::{self, EventTimeFormat};
use crate::schema::infer::{self, Shape};
use crate::schema::{KafkaColumn, UnknownFields, evolve, types};
use crate::shell::open::{World, backoff, catalog_failure};
use crate::shell::perform::ledger_failure;
use crate::sync_points::SyncPoints;
use crate::table::TableView;
use crate::write::ParquetSettings;
use backon::Retryable;

/// Values sampled per partition before a table is created; enough that rare fields show, few enough to take a second.
const SAMPLES_PER_PARTITION: usize = 1_000;

/// Bytes sampled at most.
const SAMPLE_BYTES_MAX: usize = 16 << 20;

/// Attempts to add columns: each lost one means that another instance changed the schema meanwhile.
const EVOLVE_ATTEMPTS_MAX: u32 = 10;

/// The name of the column that holds the event time where no column of the payload does.
const EVENT_TIME: &str = "_event_time";

impl World {
    /// Loads the table, if there is one.
    pub async fn load(&self) -> Result<Option<LoadedTable>, Failure> {
        (|| self.catalog.load(&self.ident))
            .retry(backoff(self.retry_for))
            .when(|error| error.retryable())
            .await
            .map_err(|error| catalog_failure(&error))
    }

    /// Finds or creates the table. `None`: the topic is empty and nothing says what its columns are, so there is nothing
    /// to do yet.
    pub async fn table(&self) -> Result<Option<(LoadedTable, TableView)>, Failure> {
        let mut found = self.load_view().await?;
        if found.as_ref().is_none_or(|(_, view)| view.ledger.is_none()) {
            let location = found.as_ref().map(|(table, _)| table.metadata.location());
            let kept = self.rows_kept(location).await?;
            if kept > 0 {
                // Whoever published them had committed before: if that was another instance just now, it shows.
                found = self.load_view().await?;
                self.refuse_lost_table(found.as_ref(), kept)?;
            }
        }
        if let Some((table, view)) = found {
            self.adopt(&table)?;
            return Ok(Some((table, view)));
        }
        let Some(payload) = self.payload_columns().await? else {
            return Ok(None);
        };
        let creation = self.creation(payload)?;
        let created = (|| self.catalog.create(&self.ident, creation.clone()))
            .retry(backoff(self.retry_for))
            .when(|error| error.retryable())
            .await
            .map_err(|error| catalog_failure(&error))?;
        info!(table = %self.ident, location = created.metadata.location(), "created the table");
        let view = self.view(&created).await?;
        Ok(Some((created, view)))
    }

    /// Loads the table and the offsets that it carries, if there is one.
    async fn load_view(&self) -> Result<Option<(LoadedTable, TableView)>, Failure> {
        let Some(table) = self.load().await? else {
            return Ok(None);
        };
        let view = self.view(&table).await?;
        Ok(Some((table, view)))
    }

    async fn view(&self, table: &LoadedTable) -> Result<TableView, Failure> {
        let viewed = (|| table.view())
            .retry(backoff(self.retry_for))
            .when(|error| matches!(error, ViewError::Catalog(error) if error.retryable()))
            .await;
        viewed.map_err(|error| match error {
            ViewError::Ledger(problem) => ledger_failure(&self.ident, &problem),
            ViewError::Catalog(error) => catalog_failure(&error),
        })
    }

    /// Adds columns for fields that the table doesn't have; if another instance was faster, takes its columns.
    pub async fn evolve(&self, unseen: &Shape) -> Result<LinePlan, Failure> {
        for _ in 0..EVOLVE_ATTEMPTS_MAX {
            let Some(table) = self.load().await? else {
                return Err(Failure::new(
                    Exit::Data,
                    format!("table `{}` was dropped while this run worked", self.ident),
                ));
            };
            let metadata = &table.metadata;
            let flatten = self.pipeline.source.flatten;
            let added = evolve::add_unseen(metadata.current_schema(), metadata.last_column_id(), unseen, flatten);
            let Some(schema) = added else {
                return self.line_plan(&table);
            };
            let (requirements, updates) = schema_change(&table, schema);
            kill_points::pass(KillPoint::Inside(Place::ColumnsUnseen));
            match self.catalog.swap(&table, requirements, updates).await {
                SwapAnswer::Committed(table) => {
                    kill_points::pass(KillPoint::Inside(Place::ColumnsAdded));
                    info!(table = %self.ident, schema = table.metadata.current_schema_id(), "added columns for new fields");
                    return self.line_plan(&table);
                }
                SwapAnswer::Rejected(error) if !error.retryable() => return Err(catalog_failure(&error)),
                SwapAnswer::Conflict => {}
                SwapAnswer::Unknown(error) | SwapAnswer::Rejected(error) => {
                    warn!(table = %self.ident, %error, "adding columns is tried again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        Err(Failure::new(
            Exit::Remote,
            format!("columns can't be added to table `{}`", self.ident),
        )
        .detail(format!("{EVOLVE_ATTEMPTS_MAX} attempts in a row failed"))
        .hint("run again when the catalog is well; nothing was lost"))
    }

    /// Says how rows are made for the table as it is now.
    pub fn line_plan(&self, table: &LoadedTable) -> Result<LinePlan, Failure> {
        let metadata = &table.metadata;
        let schema = metadata.current_schema().clone();
        let declared: Option<Vec<_>> = self.pipeline.columns.as_ref().map(|columns| {
            columns
                .iter()
                .map(|column| (column.name.clone(), column.from.clone()))
                .collect()
        });
        let unknown = match (&declared, self.pipeline.materialize.evolution) {
            (Some(_), _) => UnknownFields::Declared,
            (None, Evolution::Evolve) => UnknownFields::Evolve,
            (None, Evolution::Ignore) => UnknownFields::Ignore,
            (None, Evolution::Strict) => UnknownFields::Strict,
        };
        let event_time = schema.field_by_name(EVENT_TIME).is_some();
        let flatten = self.pipeline.source.flatten;
        let rows = evolve::row_plan(
            schema,
            declared.as_deref(),
            &self.include(),
            event_time,
            unknown,
            flatten,
        );
        let settings = ParquetSettings::from_properties(metadata.properties()).map_err(|reason| {
            Failure::new(
                Exit::Config,
                format!("the properties of table `{}` can't be followed", self.ident),
            )
            .detail(reason)
        })?;
        let order = metadata.default_sort_order();
        let data_location = metadata.properties().get("write.data.path").cloned();
        Ok(LinePlan {
            rows: Arc::new(rows),
            spec: metadata.default_partition_spec().clone(),
            sort_order: (!order.is_unsorted()).then(|| order.clone()),
            settings,
            data_location: data_location.unwrap_or_else(|| format!("{}/data", metadata.location())),
        })
    }

    /// `eventTimeField` and its format, as placing knows them.
    pub fn event_time(&self) -> Option<(Vec<String>, EventTimeFormat)> {
        let event_time = self.pipeline.source.event_time.as_ref()?;
        let format = match &event_time.format {
            config::EventTimeFormat::EpochSeconds => EventTimeFormat::EpochSeconds,
            config::EventTimeFormat::EpochMillis => EventTimeFormat::EpochMillis,
            config::EventTimeFormat::EpochMicros => EventTimeFormat::EpochMicros,
            config::EventTimeFormat::EpochNanos => EventTimeFormat::EpochNanos,
            config::EventTimeFormat::Iso8601 => EventTimeFormat::Iso8601,
            config::EventTimeFormat::Strftime(pattern) => EventTimeFormat::Strftime(pattern.clone()),
            config::EventTimeFormat::Default => EventTimeFormat::Default,
        };
        Some((event_time.path.clone(), format))
    }

    /// Opens the sync points of this pipeline, given where its table lies.
    pub fn sync_points(&self, table_location: Option<&str>) -> Result<Option<SyncPoints>, Failure> {
        let properties = &self.pipeline.catalog.properties;
        let dir = match (&self.pipeline.state_dir, table_location) {
            (Some(dir), _) => dir.clone(),
            (None, Some(location)) => format!("{location}/.aperio"),
            (None, None) => return Ok(None),
        };
        SyncPoints::open(&dir, &self.pipeline.schema, properties)
            .map(Some)
            .map_err(|error| {
                Failure::new(Exit::Config, "the sync points can't be opened").detail(crate::error::chain(&error))
            })
    }

    /// Counts the sync points of this pipeline, given where its table lies.
    async fn rows_kept(&self, table_location: Option<&str>) -> Result<usize, Failure> {
        let Some(points) = self.sync_points(table_location)? else {
            return Ok(0);
        };
        let rows = points.read().await.map_err(|error| {
            Failure::new(Exit::Remote, "the sync points can't be read").detail(crate::error::chain(&error))
        })?;
        Ok(rows.iter().filter(|row| row.source_name == self.pipeline.name).count())
    }

    /// A table that is gone while sync points speak of it was dropped or lost, and so was one in whose place another
    /// stands, without offsets: starting over would double or lose rows.
    fn refuse_lost_table(&self, found: Option<&(LoadedTable, TableView)>, kept: usize) -> Result<(), Failure> {
        let detail = match found {
            Some((_, view)) if view.ledger.is_some() => return Ok(()),
            Some(_) => "a table of that name exists, but holds no commit of aperio: it was dropped and made again",
            None => "it was dropped, renamed, or `catalog` now names another catalog or warehouse",
        };
        let what = format!(
            "table `{}` is gone, but sync points have {kept} rows for it",
            self.ident
        );
        Err(Failure::new(Exit::Data, what)
            .detail(detail)
            .hint("restore the table; or, to start over, delete the rows of this source from sync_points.parquet"))
    }

    /// The declared columns, or those that samples show; `None` where there is nothing to go by and nothing to keep.
    async fn payload_columns(&self) -> Result<Option<Vec<NestedField>>, Failure> {
        if let Some(columns) = &self.pipeline.columns {
            let fields = columns.iter().map(|column| {
                let of = types::parse(&column.type_text).map_err(|reason| {
                    Failure::new(
                        Exit::Config,
                        format!("column `{}` has no type `{}`", column.name, column.type_text),
                    )
                    .detail(reason)
                })?;
                Ok(NestedField::new(0, &column.name, of, column.required))
            });
            return fields.collect::<Result<_, Failure>>().map(Some);
        }
        let samples = self.samples(SAMPLES_PER_PARTITION, SAMPLE_BYTES_MAX).await?;
        let mut shape = Shape::default();
        for sample in &samples {
            // A sample that can't be read becomes a reject when its turn comes.
            let _ = shape.observe(sample);
        }
        let fields = infer::schema(&shape, self.pipeline.source.flatten);
        if fields.is_empty() && self.pipeline.source.start == StartOffset::Earliest && samples.is_empty() {
            return Ok(None);
        }
        let shown: Vec<_> = fields
            .iter()
            .map(|field| format!("{}: {}", field.name, types::text(&field.field_type)))
            .collect();
        info!(table = %self.ident, samples = samples.len(), columns = shown.join(", "), "inferred the columns");
        Ok(Some(fields))
    }

    fn creation(&self, payload: Vec<NestedField>) -> Result<NewTable, Failure> {
        let pipeline = &self.pipeline;
        let by_event_time = pipeline
            .materialize
            .partition
            .iter()
            .any(|field| matches!(field, config::PartitionField::Date | config::PartitionField::Hour));
        let (source, added) = event_time_column(pipeline, &payload);
        let schema = evolve::create_schema(payload, &self.include(), by_event_time && added);
        let fields: Vec<_> = pipeline.materialize.partition.iter().map(partition_field).collect();
        let spec = place::partition_spec(&schema, &fields, &source).map_err(|reason| {
            Failure::new(Exit::Config, format!("table `{}` can't be partitioned as `materialize.partition` says", self.ident))
                .detail(reason)
                .hint("name an existing column, or declare `columns` so that the table can be created before its topic has records")
        })?;
        let properties: HashMap<_, _> = pipeline.materialize.properties.clone().into_iter().collect();
        let format_version = if pipeline.materialize.format_version == 3 {
            FormatVersion::V3
        } else {
            FormatVersion::V2
        };
        Ok(NewTable {
            schema,
            spec,
            properties,
            format_version,
        })
    }

    /// An existing table is adopted if it can take the declared columns.
    fn adopt(&self, table: &LoadedTable) -> Result<(), Failure> {
        let Some(columns) = &self.pipeline.columns else {
            return Ok(());
        };
        let mut fields = Vec::with_capacity(columns.len());
        for (id, column) in (1..).zip(columns) {
            let of = types::parse(&column.type_text).map_err(|reason| {
                Failure::new(Exit::Config, format!("column `{}` has no type", column.name)).detail(reason)
            })?;
            fields.push(Arc::new(NestedField::new(id, &column.name, of, column.required)));
        }
        let wanted = Schema::builder().with_fields(fields).build();
        let differences = match wanted {
            Ok(wanted) => evolve::compatible(table.metadata.current_schema(), &wanted),
            Err(error) => Err(vec![error.to_string()]),
        };
        differences.map_err(|differences| {
            Failure::new(
                Exit::Config,
                format!("table `{}` exists and doesn't fit the declared columns", self.ident),
            )
            .detail(differences.join("; "))
            .hint("change `columns`, or the table, so that both agree")
        })
    }

    /// `include`, and the timestamp where partitions are made of it.
    fn include(&self) -> Vec<KafkaColumn> {
        let mut include = self.pipeline.source.include.clone();
        let by_time = self
            .pipeline
            .materialize
            .partition
            .iter()
            .any(|field| matches!(field, config::PartitionField::Date | config::PartitionField::Hour));
        if by_time && self.pipeline.source.event_time.is_none() && !include.contains(&KafkaColumn::Timestamp) {
            include.push(KafkaColumn::Timestamp);
        }
        include
    }
}

/// Names the column that holds the event time, and says whether it must be added.
fn event_time_column(pipeline: &Pipeline, payload: &[NestedField]) -> (String, bool) {
    let Some(event_time) = &pipeline.source.event_time else {
        return ("_kafka_timestamp".to_owned(), false);
    };
    let is_time = |of: &Type| {
        matches!(
            of,
            Type::Primitive(PrimitiveType::Timestamp | PrimitiveType::Timestamptz)
        )
    };
    let named = match &pipeline.columns {
        Some(columns) => columns
            .iter()
            .find(|column| column.from == event_time.path)
            .map(|column| column.name.as_str()),
        None => event_time
            .path
            .first()
            .filter(|_| event_time.path.len() == 1)
            .map(String::as_str),
    };
    let found = payload
        .iter()
        .find(|field| Some(field.name.as_str()) == named && is_time(&field.field_type));
    match found {
        Some(field) => (field.name.clone(), false),
        None => (EVENT_TIME.to_owned(), true),
    }
}

fn partition_field(field: &config::PartitionField) -> place::PartitionField {
    match field {
        config::PartitionField::Date => place::PartitionField::Date,
        config::PartitionField::Hour => place::PartitionField::Hour,
        config::PartitionField::Transform { transform, column } => {
            let transform = match transform {
                config::PartitionTransform::Identity => Transform::Identity,
                config::PartitionTransform::Year => Transform::Year,
                config::PartitionTransform::Month => Transform::Month,
                config::PartitionTransform::Day => Transform::Day,
                config::PartitionTransform::Hour => Transform::Hour,
                config::PartitionTransform::Bucket(buckets) => Transform::Bucket(*buckets),
                config::PartitionTransform::Truncate(width) => Transform::Truncate(*width),
            };
            place::PartitionField::Transform {
                transform,
                column: column.clone(),
            }
        }
    }
}
