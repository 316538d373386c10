//! The table of a pipeline: found and adopted, or inferred and created; evolved when records bring new fields.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iceberg::spec::{FormatVersion, NestedField, PrimitiveType, Schema, TableMetadata, Transform, Type};
use tracing::{info, warn};
use uuid::Uuid;

use crate::catalog::stage::schema_change;
use crate::catalog::{CatalogError, LoadedTable, NewTable, SwapAnswer, ViewError, creation_properties};
use crate::config::types;
use crate::config::{
    Apply, Envelope, Evolution, KeyFormat, PartitionField, Pipeline, StartOffset, TableFormat, ValueFormat,
};
use crate::decode::envelope::EVENT_ID;
use crate::decode::{envelope, key, transcoded};
use crate::error::{Exit, Failure, chain};
use crate::kafka::admin::SampleRecord;
use crate::kill_points::{self, KillPoint, Place};
use crate::line::{Given, LinePlan};
use crate::place;
use crate::schema::evolve::EVENT_TIME;
use crate::schema::frame::Part;
use crate::schema::infer::{self, Shape};
use crate::schema::{KEY, KafkaColumn, Missing, UnknownFields, VALUE, evolve};
use crate::shell::open::{World, catalog_failure, ledger_failure, patiently, pauses, sync_points_failure};
use crate::sync_points::SyncPoint;
use crate::table::TableView;
use crate::write::ParquetSettings;

/// Values sampled per partition before a table is created; enough that rare fields show, few enough to take a second.
const SAMPLES_PER_PARTITION: usize = 1_000;

/// Bytes sampled at most.
const SAMPLE_BYTES_MAX: usize = 16 << 20;

/// What a line's plan of a table depends on: where it is the same, the plan is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableForm {
    uuid: Uuid,
    schema: i32,
    spec: i32,
    sort_order: i64,
    /// The properties that begin with `write.`, ascending.
    writing: BTreeMap<String, String>,
}

impl TableForm {
    pub fn of(table: &LoadedTable) -> Self {
        let metadata = &table.metadata;
        let properties = metadata.properties().iter();
        TableForm {
            uuid: metadata.uuid(),
            schema: metadata.current_schema_id(),
            spec: metadata.default_partition_spec_id(),
            sort_order: metadata.default_sort_order_id(),
            writing: properties
                .filter(|(key, _)| key.starts_with("write."))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        }
    }
}

impl World {
    /// Loads the table, if there is one.
    pub async fn load(&self) -> Result<Option<LoadedTable>, Failure> {
        let load = async || {
            let loaded = self.catalog.load(&self.ident).await;
            loaded.inspect_err(|error| {
                if error.retryable() {
                    warn!(table = %self.ident, error = chain(error), "the table can't be loaded");
                }
            })
        };
        patiently(self.retry_for, CatalogError::retryable, load)
            .await
            .map_err(|error| catalog_failure(&self.pipeline.catalog, &error))
    }

    /// Finds or creates the table. `None`: the topic is empty and nothing says what its columns are, so there is nothing
    /// to do yet.
    pub async fn table(&self) -> Result<Option<(LoadedTable, TableView)>, Failure> {
        let found = self.load_view().await?;
        if let Some((table, _)) = self.not_lost(found).await? {
            return self.adopt_view(table).await.map(Some);
        }
        let Some(columns) = self.new_columns().await? else {
            return Ok(None);
        };
        let creation = self.creation(columns)?;
        self.show(&creation);
        let create = || self.catalog.create(&self.ident, creation.clone());
        let created = patiently(self.retry_for, CatalogError::retryable, create)
            .await
            .map_err(|error| catalog_failure(&self.pipeline.catalog, &error))?;
        info!(table = %self.ident, location = created.metadata.location(), "created the table");
        if self.pipeline.state_dir.is_none() {
            // Only now is it known where sync points of a table that was here before would be.
            let view = self.view(&created).await?;
            self.not_lost(Some((created.clone(), view))).await?;
        }
        // Another instance may have been faster: then its table is the one.
        self.adopt_view(created).await.map(Some)
    }

    /// Refuses a table that has no offsets, or none at all, where sync points say that there were some; else returns it as it
    /// is now.
    async fn not_lost(
        &self,
        found: Option<(LoadedTable, TableView)>,
    ) -> Result<Option<(LoadedTable, TableView)>, Failure> {
        if found.as_ref().is_some_and(|(_, view)| view.ledger.is_some()) {
            return Ok(found);
        }
        let kept = self.rows_kept(found.as_ref().map(|(table, _)| table)).await?;
        if kept == 0 {
            return Ok(found);
        }
        // Whoever published them had committed before: if that was another instance just now, it shows.
        let found = self.load_view().await?;
        self.refuse_lost_table(found.as_ref(), kept)?;
        Ok(found)
    }

    /// Adopts a table; the view is of the table as adopting it left it.
    async fn adopt_view(&self, table: LoadedTable) -> Result<(LoadedTable, TableView), Failure> {
        let table = self.adopt(table).await?;
        let view = self.view(&table).await?;
        Ok((table, view))
    }

    /// Loads the table and the offsets that it carries, if there is one.
    pub async fn load_view(&self) -> Result<Option<(LoadedTable, TableView)>, Failure> {
        let Some(table) = self.load().await? else {
            return Ok(None);
        };
        let view = self.view(&table).await?;
        Ok(Some((table, view)))
    }

    async fn view(&self, table: &LoadedTable) -> Result<TableView, Failure> {
        let passes = |error: &ViewError| matches!(error, ViewError::Catalog(error) if error.retryable());
        let viewed = patiently(self.retry_for, passes, || table.view()).await;
        viewed.map_err(|error| match error {
            ViewError::Ledger(problem) => ledger_failure(&self.ident, &problem),
            ViewError::Catalog(error) => catalog_failure(&self.pipeline.catalog, &error),
        })
    }

    /// Makes the table take what a line met and had no column for; where that can't be, the answer is the plan of the
    /// table as it is.
    ///
    /// - `schema_id`: the schema that the line knows. A table that has another one by now may take it all.
    /// - returns the form of the table with the plan.
    ///
    /// # Errors
    /// Exit code 3 under `schemaEvolution: strict`, with the columns that are missing.
    pub async fn evolve(&self, unseen: &Shape, schema_id: i32) -> Result<(Given, TableForm), Failure> {
        let strict = self.pipeline.materialize.evolution == Evolution::Strict;
        let flatten = self.pipeline.source.flatten;
        let changed = self
            .change_schema(None, |table| {
                let fixed = evolve::fixed(table.partition_specs_iter().map(AsRef::as_ref));
                let schema = table.current_schema();
                let changed = evolve::add_unseen(schema, table.last_column_id(), &fixed, unseen, flatten);
                match changed {
                    Some(changed) if strict => Err(self.strict(&evolve::changed_lines(schema, &changed))),
                    None if strict && table.current_schema_id() == schema_id => {
                        let fields = infer::schema(unseen, flatten);
                        let lines = fields
                            .iter()
                            .map(|field| types::column_line(&field.name, None, &field.field_type));
                        Err(self.strict(&lines.collect::<Vec<_>>()))
                    }
                    changed => Ok(changed),
                }
            })
            .await?;
        if changed.metadata.current_schema_id() == schema_id {
            let fields = infer::schema(unseen, flatten);
            let names: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
            warn!(table = %self.ident, fields = names.join(", "), "the table can't take these values as it is: fields are \
                  dropped and counted, records with too large a number are rejected");
        }
        let given = Given {
            plan: self.line_plan(&changed)?,
            missing: Missing::new(),
        };
        Ok((given, TableForm::of(&changed)))
    }

    pub fn strict(&self, lines: &[String]) -> Failure {
        Failure::new(
            Exit::Data,
            format!("records hold fields that table `{}` doesn't have", self.ident),
        )
        .detail(format!("`columns` would take them with {}", lines.join(", ")))
        .hint("`materialize.schemaEvolution` is strict: add the columns, or set it to evolve or ignore")
    }

    /// Changes the table's schema to what `wanted` makes of it; `None` leaves it as it is.
    ///
    /// - `base`: the table as it was just loaded, to save a load.
    /// - returns the table with the change in it, by this instance or by another.
    pub async fn change_schema(
        &self,
        base: Option<LoadedTable>,
        wanted: impl Fn(&TableMetadata) -> Result<Option<Schema>, Failure>,
    ) -> Result<LoadedTable, Failure> {
        let (mut base, mut seen) = (base, None);
        let (mut since, mut pauses) = (Instant::now(), pauses());
        let patience = Duration::from(self.retry_for);
        // Ends: by the change, or when the table has stayed as it is for all the time that is given. Where others go on changing
        // it, nothing is down.
        loop {
            let loaded = match base.take() {
                Some(table) => Some(table),
                None => self.load().await?,
            };
            let Some(table) = loaded else {
                return Err(Failure::new(
                    Exit::Data,
                    format!("table `{}` was dropped while this run worked", self.ident),
                ));
            };
            if seen.as_ref().is_some_and(|seen| *seen != table.metadata_location) {
                since = Instant::now();
            }
            seen = Some(table.metadata_location.clone());
            let before = table.metadata.current_schema().clone();
            let Some(schema) = wanted(&table.metadata)? else {
                return Ok(table);
            };
            let columns = evolve::changed_lines(&before, &schema);
            let (requirements, updates) = schema_change(&table, schema);
            kill_points::pass(KillPoint::Inside(Place::ColumnsUnseen));
            let refused = match self.catalog.swap(&table, requirements, updates).await {
                SwapAnswer::Committed(table) => {
                    kill_points::pass(KillPoint::Inside(Place::ColumnsAdded));
                    let schema = table.metadata.current_schema_id();
                    info!(table = %self.ident, schema, columns = columns.join(" "), "added or widened columns");
                    return Ok(table);
                }
                SwapAnswer::Rejected(error) if !error.retryable() => {
                    return Err(catalog_failure(&self.pipeline.catalog, &error));
                }
                SwapAnswer::Conflict => "the catalog says that the table was changed meanwhile".to_owned(),
                SwapAnswer::Unknown(error) | SwapAnswer::Rejected(error) => chain(&error),
            };
            warn!(table = %self.ident, error = refused, "changing the columns is tried again");
            match pauses.next() {
                Some(pause) if since.elapsed() + pause <= patience => tokio::time::sleep(pause).await,
                _ => {
                    let what = format!("the columns of table `{}` can't be changed", self.ident);
                    return Err(Failure::new(Exit::Remote, what).detail(refused).hint(
                        "run again when the catalog is well, or wait longer with `--retry-for`; nothing was lost",
                    ));
                }
            }
        }
    }

    /// Says how rows are made for the table as it is now.
    pub fn line_plan(&self, table: &LoadedTable) -> Result<LinePlan, Failure> {
        let metadata = &table.metadata;
        let schema = metadata.current_schema().clone();
        let declared = self.pipeline.columns.as_deref();
        let unknown = match (declared, self.pipeline.materialize.evolution) {
            (Some(_), _) => UnknownFields::Declared,
            (None, Evolution::Evolve) => UnknownFields::Evolve,
            (None, Evolution::Ignore) => UnknownFields::Ignore,
            (None, Evolution::Strict) => UnknownFields::Strict,
        };
        let event_time = schema.field_by_name(EVENT_TIME).is_some();
        let flatten = self.pipeline.source.flatten;
        let rows = evolve::row_plan(schema, declared, &self.include(), event_time, unknown, flatten);
        let settings = ParquetSettings::from_properties(metadata.properties()).map_err(|reason| {
            Failure::new(
                Exit::Config,
                format!("the properties of table `{}` can't be followed", self.ident),
            )
            .detail(reason)
        })?;
        let order = metadata.default_sort_order();
        let data_location = metadata.properties().get("write.data.path").cloned();
        let rows = Arc::new(rows);
        let hive = self.catalog.hive();
        let (stored, data_location) = match hive {
            Some(hive) => (
                place::stored(&rows, metadata.default_partition_spec()).0,
                Some(hive.staging()),
            ),
            None => (rows.clone(), data_location),
        };
        Ok(LinePlan {
            writers: self.writers(Part::Value),
            key_writers: self.writers(Part::Key),
            rows,
            stored,
            hive: hive.is_some(),
            spec: metadata.default_partition_spec().clone(),
            sort_order: (!order.is_unsorted()).then(|| order.clone()),
            settings,
            data_location: data_location.unwrap_or_else(|| format!("{}/data", metadata.location())),
        })
    }

    /// Counts the sync points of this pipeline, given its table.
    async fn rows_kept(&self, table: Option<&LoadedTable>) -> Result<usize, Failure> {
        let Some(points) = self.sync_points(table)? else {
            return Ok(0);
        };
        let rows = points
            .read()
            .await
            .map_err(|error| sync_points_failure(&points, &error))?;
        // A table of plain Parquet is described there before it has offsets.
        let counts = |row: &SyncPoint| row.source_name == self.pipeline.name && row.sync_key != "table";
        Ok(rows.iter().filter(|row| counts(row)).count())
    }

    /// A table that is gone while sync points speak of it was dropped or lost, and so was one in whose place another
    /// stands, without offsets: starting over would double or lose rows.
    fn refuse_lost_table(&self, found: Option<&(LoadedTable, TableView)>, kept: usize) -> Result<(), Failure> {
        const START_OVER: &str =
            "restore the table; or, to start over, delete the rows of this source from sync_points.parquet";
        let parquet = self.pipeline.materialize.format == TableFormat::Parquet;
        let (detail, hint) = match found {
            Some((_, view)) if view.ledger.is_some() => return Ok(()),
            Some(_) => (
                "a table of that name exists, but holds no commit of aperio: it was dropped and made again",
                "restore the table; or choose with `aperio sync-points reset` where the one that is there goes on; or, to start over at `startOffset`, delete the rows of this source from sync_points.parquet",
            ),
            None if parquet => (
                "they are of an Iceberg table of that name, or of another `materialize.format`: the row `table` is missing",
                START_OVER,
            ),
            None => (
                "it was dropped, renamed, or `catalog` now names another catalog or warehouse",
                START_OVER,
            ),
        };
        let what = format!(
            "table `{}` is gone, but sync points have {kept} rows for it",
            self.ident
        );
        Err(Failure::new(Exit::Data, what).detail(detail).hint(hint))
    }

    /// The columns of a new table: the declared ones, or those that samples show, and that of keys; `None` where there is
    /// nothing to go by and nothing to keep.
    async fn new_columns(&self) -> Result<Option<NewColumns>, Failure> {
        let source = &self.pipeline.source;
        let known = self.declared().or_else(|| {
            let of = match source.format {
                ValueFormat::String => PrimitiveType::String,
                ValueFormat::Bytes => PrimitiveType::Binary,
                ValueFormat::Json | ValueFormat::Avro | ValueFormat::Protobuf | ValueFormat::MessagePack => {
                    return None;
                }
            };
            Some(vec![NestedField::optional(1, VALUE, Type::Primitive(of))])
        });
        let with_keys = source.include.contains(&KafkaColumn::Key);
        let keys_are = key_type(source.key_format);
        let samples = match known.is_some() && (!with_keys || keys_are.is_some()) {
            true => Vec::new(),
            false => self.samples(SAMPLES_PER_PARTITION, SAMPLE_BYTES_MAX).await?,
        };
        let key = match (with_keys, keys_are) {
            (false, _) => None,
            (true, Some(of)) => Some(NestedField::optional(0, KEY, Type::Primitive(of))),
            (true, None) => self.sampled_key(&samples).await?,
        };
        let payload = match known {
            Some(known) => Some(known),
            None => self.sampled_columns(&samples).await?,
        };
        Ok(payload.map(|payload| NewColumns { payload, key }))
    }

    /// The columns that samples show, or the schemas that they name.
    async fn sampled_columns(&self, samples: &[SampleRecord]) -> Result<Option<Vec<NestedField>>, Failure> {
        let source = &self.pipeline.source;
        let values: Vec<&[u8]> = samples.iter().filter_map(|sample| sample.value.as_deref()).collect();
        let nothing = values.is_empty() && source.start == StartOffset::Earliest;
        let by_schema = matches!(
            source.format,
            ValueFormat::Json | ValueFormat::Avro | ValueFormat::Protobuf
        );
        if by_schema && (source.registry.is_some() || source.schema_file.is_some()) {
            if let Some(fields) = self.schema_columns(Part::Value, samples).await? {
                return Ok(Some(fields));
            }
            if nothing {
                return Ok(None);
            }
        }
        let mut shape = Shape::default();
        for value in &values {
            // A sample that can't be read becomes a reject when its turn comes.
            let Some(json) = transcoded::sample(source.format, Part::Value, source.registry.is_some(), value) else {
                continue;
            };
            let row = match source.envelope {
                Some(envelope) => envelope::row(envelope, &json),
                None => Some(json),
            };
            if let Some(row) = row {
                let _ = shape.observe(&row);
            }
        }
        let fields = infer::schema(&shape, source.flatten);
        if fields.is_empty() && nothing {
            return Ok(None);
        }
        info!(table = %self.ident, samples = values.len(), fields = fields.len(), "inferred the columns");
        Ok(Some(fields))
    }

    /// The column that the keys of samples show, or the schemas that they name; `None` if they show none: it is added when
    /// the first record has a key.
    async fn sampled_key(&self, samples: &[SampleRecord]) -> Result<Option<NestedField>, Failure> {
        let registry = self.registry.is_some();
        let format = self.format_of(Part::Key);
        if registry
            && format != ValueFormat::MessagePack
            && let Some(fields) = self.schema_columns(Part::Key, samples).await?
        {
            return Ok(fields.into_iter().next());
        }
        let mut shape = Shape::default();
        for key in samples.iter().filter_map(|sample| sample.key.as_deref()) {
            if let Some(json) = key::sample(format, registry, key) {
                let _ = shape.observe(&json);
            }
        }
        Ok(infer::schema(&shape, false).into_iter().next())
    }

    /// The declared columns, ids provisional; `None` if there are none.
    fn declared(&self) -> Option<Vec<NestedField>> {
        let columns = self.pipeline.columns.as_ref()?;
        let fields = columns
            .iter()
            .zip(1..)
            .map(|(column, id)| NestedField::new(id, &column.name, column.of.clone(), column.required));
        Some(fields.collect())
    }

    /// Shows the table that is about to be created, its columns as `columns` would declare them.
    fn show(&self, creation: &NewTable) {
        let fields = creation.schema.as_struct().fields().iter();
        let lines = fields.map(|field| types::column_line(&field.name, None, &field.field_type));
        let partitions = creation.spec.fields().iter().map(|field| {
            let source = creation.schema.name_by_field_id(field.source_id).unwrap_or_default();
            match field.transform {
                Transform::Identity => source.to_owned(),
                Transform::Bucket(number) | Transform::Truncate(number) => {
                    let name = field.transform.to_string();
                    let name = name.split('[').next().unwrap_or_default().to_owned();
                    format!("{name}({number}, {source})")
                }
                transform => format!("{transform}({source})"),
            }
        });
        let partitions = match creation.spec.fields().is_empty() {
            true => "without partitions".to_owned(),
            false => format!("partitioned by [{}]", partitions.collect::<Vec<_>>().join(", ")),
        };
        info!(
            "creating table `{}`, {partitions}, with these columns:\n  {}",
            self.ident,
            lines.collect::<Vec<_>>().join("\n  ")
        );
    }

    fn creation(&self, columns: NewColumns) -> Result<NewTable, Failure> {
        let pipeline = &self.pipeline;
        let NewColumns { mut payload, key } = columns;
        let mut include = self.include();
        if include.contains(&KafkaColumn::Key) {
            include.retain(|column| *column != KafkaColumn::Key);
            payload.retain(|field| !field.name.eq_ignore_ascii_case(KEY));
        }
        let by_event_time = pipeline
            .materialize
            .partition
            .iter()
            .any(|field| matches!(field, PartitionField::Date | PartitionField::Hour));
        let (source, added) = event_time_column(pipeline, &payload);
        payload.extend(key);
        let schema = evolve::create_schema(payload, &include, by_event_time && added);
        let layout = match pipeline.materialize.format {
            TableFormat::Iceberg => place::partition_spec,
            TableFormat::Parquet => place::hive_spec,
        };
        let spec = layout(&schema, &pipeline.materialize.partition, &source).map_err(|reason| {
            Failure::new(Exit::Config, format!("table `{}` can't be partitioned as `materialize.partition` says", self.ident))
                .detail(reason)
                .hint("name an existing column, or declare `columns` so that the table can be created before its topic has records")
        })?;
        let properties = creation_properties(pipeline.materialize.properties.clone());
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

    /// An existing table is adopted if it can take the declared columns; under `schemaEvolution: evolve` it gets those
    /// that it lacks, and wider ones.
    pub async fn adopt(&self, table: LoadedTable) -> Result<LoadedTable, Failure> {
        self.keys_fit(&table)?;
        let table = self.remembers_events(table).await?;
        let Some(declared) = self.declared() else {
            return Ok(table);
        };
        // Ids provisional, but each its own, inside structs, lists and maps too.
        let wanted = evolve::create_schema(declared.clone(), &[], false);
        let evolves = self.pipeline.materialize.evolution == Evolution::Evolve;
        self.change_schema(Some(table), |table| {
            let fixed = evolve::fixed(table.partition_specs_iter().map(AsRef::as_ref));
            let schema = table.current_schema();
            let changed = match evolves {
                true => evolve::add_declared(schema, table.last_column_id(), &fixed, &declared),
                false => None,
            };
            evolve::compatible(changed.as_ref().unwrap_or(schema), &wanted).map_err(|differences| {
                Failure::new(
                    Exit::Config,
                    format!("table `{}` exists and doesn't fit the declared columns", self.ident),
                )
                .detail(differences.join("; "))
                .hint("change `columns`, or the table, so that both agree; nothing was changed")
            })?;
            Ok(changed)
        })
        .await
    }

    /// `idempotent`: gives a table the columns that it lacks for events to be known again by its rows.
    async fn remembers_events(&self, table: LoadedTable) -> Result<LoadedTable, Failure> {
        let idempotent = self
            .pipeline
            .source
            .envelope
            .filter(|envelope| envelope.horizon.is_some());
        let Some(envelope) = idempotent else {
            return Ok(table);
        };
        let found = table.metadata.current_schema().field_by_name_case_insensitive(EVENT_ID);
        let grows = self.pipeline.columns.is_some() || self.pipeline.materialize.evolution == Evolution::Evolve;
        if envelope.apply == Apply::Events && found.is_none() && !grows {
            return Err(Failure::new(
                Exit::Config,
                format!("table `{}` has no column `{EVENT_ID}`", self.ident),
            )
            .detail("`envelope.idempotent` knows events that were sent again by the table's own rows")
            .hint("add the column to the table, or let `materialize.schemaEvolution: evolve` do it"));
        }
        let needed = [KafkaColumn::Partition, KafkaColumn::Offset, KafkaColumn::EventId];
        let include = self.include();
        let needed = needed.into_iter().filter(|column| include.contains(column));
        let wanted: Vec<_> = needed
            .map(|column| NestedField::optional(0, column.name(), column.of()))
            .collect();
        self.change_schema(Some(table), |table| {
            let fixed = evolve::fixed(table.partition_specs_iter().map(AsRef::as_ref));
            let schema = table.current_schema();
            Ok(evolve::add_declared(schema, table.last_column_id(), &fixed, &wanted))
        })
        .await
    }

    /// Refuses a table whose column of keys can't take any of those that `keyFormat` makes.
    fn keys_fit(&self, table: &LoadedTable) -> Result<(), Failure> {
        let source = &self.pipeline.source;
        let schema = table.metadata.current_schema();
        let Some(column) = schema.field_by_name_case_insensitive(KEY) else {
            return Ok(());
        };
        let (true, Some(of)) = (source.include.contains(&KafkaColumn::Key), key_type(source.key_format)) else {
            return Ok(());
        };
        use PrimitiveType as P;
        let fits = match (&of, &*column.field_type) {
            (P::String | P::Binary, Type::Primitive(P::String | P::Binary)) => true,
            (of, Type::Primitive(column)) => of == column || types::widens(of, column),
            _ => false,
        };
        match fits {
            true => Ok(()),
            false => Err(Failure::new(
                Exit::Config,
                format!("table `{}` exists and doesn't fit `source.keyFormat`", self.ident),
            )
            .detail(format!(
                "column `{KEY}` is {} in the table, keys are {} here",
                types::text(&column.field_type),
                types::text(&Type::Primitive(of))
            ))
            .hint("change `keyFormat`, or leave `key` out of `include`; nothing was changed")),
        }
    }

    /// `include`, the timestamp where partitions are made of it, and what tells events that were sent again.
    fn include(&self) -> Vec<KafkaColumn> {
        let mut include = self.pipeline.source.include.clone();
        let by_time = self
            .pipeline
            .materialize
            .partition
            .iter()
            .any(|field| matches!(field, PartitionField::Date | PartitionField::Hour));
        if self.pipeline.source.envelope.is_some_and(Envelope::keeps_ids) {
            include.push(KafkaColumn::EventId);
        }
        if by_time && self.pipeline.source.event_time.is_none() && !include.contains(&KafkaColumn::Timestamp) {
            include.push(KafkaColumn::Timestamp);
        }
        include
    }
}

/// The columns of a new table that aren't always the same, ids provisional.
struct NewColumns {
    payload: Vec<NestedField>,
    /// That of keys, as far as it is known.
    key: Option<NestedField>,
}

/// The type of the column of keys, where the format alone says it.
fn key_type(format: KeyFormat) -> Option<PrimitiveType> {
    match format {
        KeyFormat::Int => Some(PrimitiveType::Int),
        KeyFormat::Long => Some(PrimitiveType::Long),
        KeyFormat::Of(ValueFormat::String) => Some(PrimitiveType::String),
        KeyFormat::Of(ValueFormat::Bytes) => Some(PrimitiveType::Binary),
        KeyFormat::Of(ValueFormat::Json | ValueFormat::Avro | ValueFormat::Protobuf | ValueFormat::MessagePack) => None,
    }
}

/// Names the column that holds the event time, and says whether it must be added.
fn event_time_column(pipeline: &Pipeline, payload: &[NestedField]) -> (String, bool) {
    let Some(event_time) = &pipeline.source.event_time else {
        return (KafkaColumn::Timestamp.name().to_owned(), false);
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
