//! Opening a pipeline: who the topic is, where the table is, and what the two are made of.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use iceberg::{NamespaceIdent, TableIdent};
use tracing::warn;

use crate::catalog::{Catalog, CatalogError, HiveCatalog, LoadedTable};
use crate::config::{CatalogConfig, CatalogKind, Pipeline, RegistryConfig, StartOffset, TableFormat};
use crate::dead_letters::{DeadLetterTable, Origin};
use crate::error::{Exit, Failure, chain};
use crate::kafka::admin::{Admin, SampleRecord};
use crate::kafka::damage::Found;
use crate::kafka::error::KafkaError;
use crate::offsets::{LeaderEpoch, Offset, Offsets, Partition};
use crate::registry::{Registry, RegistryError};
use crate::run::start;
use crate::schema::frame::{Part, SchemaKey};
use crate::schema::json_schema::Check;
use crate::schema::{SchemaText, WriterSchema, Writers};
use crate::shell::schema_file::{schema_file, unusable_file};
use crate::store::{Access, Connections, Store};
use crate::sync_points::{SyncPoints, SyncPointsError};
use crate::table::admit::Source;
use crate::table::ledger::{Ledger, LedgerProblem};
use crate::units::Millis;

/// How long one question to a broker may take, in seconds; several fit into `--retry-for`, if that isn't shorter.
const QUESTION_TIMEOUT_S: (u64, u64) = (1, 10);

/// The wait before a question is put again, doubled each time up to the second.
const QUESTION_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The wait before a catalog is asked again, doubled each time up to the second.
const ATTEMPT_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// How long a topic that isn't there may take to appear: one that was just created isn't known to all brokers at once.
const TOPIC_WAIT: Duration = Duration::from_secs(5);

/// The clients of catalogs, stores and registries, shared by the pipelines of a process: those that say the same of a catalog
/// have one pool of connections, one token and its renewals; those of a registry, one set of kept schemas.
///
/// Kafka is not among them: a consumer is a member of one group.
#[derive(Default)]
pub(crate) struct Clients {
    connections: Connections,
    /// Locks and no channels: they guard look-ups, and nobody waits or contacts anything under them. Few configurations are
    /// different, so lists do.
    catalogs: Mutex<Vec<(CatalogConfig, Arc<Catalog>)>>,
    registries: Mutex<Vec<(RegistryConfig, Arc<Registry>)>>,
}

impl Clients {
    /// How a pipeline's stores are reached.
    fn access(&self, config: &CatalogConfig, retry_for: Millis) -> Access {
        Access {
            retry_for: Duration::from(retry_for),
            connections: self.connections.clone(),
            ..Access::from(&config.properties)
        }
    }

    /// Returns the catalog of this configuration, which the first who asks opens, with their patience.
    fn catalog(&self, config: &CatalogConfig, retry_for: Millis) -> Result<Arc<Catalog>, Failure> {
        // A panic under it leaves a list with or without one more; so below.
        let mut open = self.catalogs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, catalog)) = open.iter().find(|(known, _)| known == config) {
            return Ok(catalog.clone());
        }
        let catalog = Arc::new(catalog_with(config, self.access(config, retry_for))?);
        open.push((config.clone(), catalog.clone()));
        Ok(catalog)
    }

    fn registry(&self, config: &RegistryConfig, timeout: Duration) -> Result<Arc<Registry>, Failure> {
        // Which subjects a pipeline asks for is its own matter.
        let same = |known: &RegistryConfig| {
            let of = |config: &RegistryConfig| (config.ca.clone(), config.cert.clone(), config.key.clone());
            known.urls == config.urls && known.auth == config.auth && of(known) == of(config)
        };
        let mut open = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, registry)) = open.iter().find(|(known, _)| same(known)) {
            return Ok(registry.clone());
        }
        let opened = Arc::new(registry(config, timeout)?);
        open.push((config.clone(), opened.clone()));
        Ok(opened)
    }
}

/// The foreign systems of a pipeline.
pub(super) struct World {
    pub pipeline: Pipeline,
    /// Holds the table: for one of plain Parquet its sync points.
    pub catalog: Arc<Catalog>,
    /// Holds the dead letters' table, which is an Iceberg table always.
    pub letters: Arc<Catalog>,
    pub ident: TableIdent,
    pub retry_for: Millis,
    /// Where schemas are asked for, if the pipeline names a registry.
    pub registry: Option<Arc<Registry>>,
    /// The schema in `schemaFile`.
    pub schema_file: Option<SchemaText>,
    /// The schemas that are known by now. A lock and no channel: whoever makes a plan reads them, and only the one task that
    /// learns a schema replaces them.
    known: RwLock<Known>,
    admin: Arc<Admin>,
    /// How stores are reached.
    access: Access,
}

/// The schemas of values and of keys.
#[derive(Default)]
struct Known {
    values: Arc<Writers>,
    keys: Arc<Writers>,
}

/// What a look at the topic showed.
pub(super) struct Topic {
    pub source: Source,
    pub partitions: Vec<Partition>,
    pub beginnings: Offsets,
    pub ends: Offsets,
    /// The epochs of the leaders of now; without those that the brokers don't tell.
    pub leaders: BTreeMap<Partition, LeaderEpoch>,
}

impl World {
    /// Sets up the clients; nothing is contacted yet.
    pub fn new(pipeline: Pipeline, retry_for: Millis, clients: &Clients) -> Result<World, Failure> {
        let access = clients.access(&pipeline.catalog, retry_for);
        let letters = clients.catalog(&pipeline.catalog, retry_for)?;
        let catalog = match pipeline.materialize.format {
            TableFormat::Iceberg => letters.clone(),
            TableFormat::Parquet => Arc::new(hive_catalog(&pipeline, access.clone())?),
        };
        let source = &pipeline.source;
        let (least, most) = QUESTION_TIMEOUT_S;
        let timeout = Duration::from_secs(Duration::from(retry_for).as_secs().clamp(least, most));
        let admin = Admin::new(&source.brokers, source.read_committed, &source.client, timeout)
            .map_err(|error| error.failure(&source.brokers, &source.topic))?;
        let ident = ident(&pipeline, &pipeline.name)?;
        let registry = source
            .registry
            .as_ref()
            .map(|config| clients.registry(config, timeout))
            .transpose()?;
        let schema_file = schema_file(&pipeline)?;
        let mut values = Writers::default();
        if let (true, None, Some(text)) = (pipeline.source.validate, &registry, &schema_file) {
            let check = Check::new(text).map_err(|why| unusable_file(&pipeline, why))?;
            values.add_check(SchemaKey::file(), Arc::new(check));
        }
        let known = Known {
            values: Arc::new(values),
            keys: Arc::default(),
        };
        Ok(World {
            registry,
            schema_file,
            known: RwLock::new(known),
            pipeline,
            catalog,
            letters,
            ident,
            retry_for,
            admin: Arc::new(admin),
            access,
        })
    }

    /// The letters of `origin` in the dead-letter table of that name.
    pub fn dead_letters(&self, name: &str, origin: Origin) -> DeadLetterTable {
        let ident = TableIdent::new(self.ident.namespace().clone(), name.to_owned());
        DeadLetterTable::new(self.letters.clone(), ident, origin)
    }

    /// Whose letters those of this pipeline are.
    pub fn origin(&self, table: &LoadedTable, source: &Source) -> Origin {
        Origin {
            pipeline: self.ident.to_string(),
            table: table.metadata.uuid(),
            source: source.clone(),
        }
    }

    /// Opens the sync points, given the table; see [`sync_points`].
    pub fn sync_points(&self, table: Option<&LoadedTable>) -> Result<Option<SyncPoints>, Failure> {
        sync_points_with(&self.pipeline, table, &self.access)
    }

    /// The schemas of a part of the records that are known by now.
    pub fn writers(&self, part: Part) -> Arc<Writers> {
        let known = self.known.read().expect("nobody panics while they hold it");
        match part {
            Part::Value => known.values.clone(),
            Part::Key => known.keys.clone(),
        }
    }

    /// Has values of a schema validated.
    pub fn add_check(&self, key: SchemaKey, check: Check) {
        let mut known = self.known.write().expect("nobody panics while they hold it");
        Arc::make_mut(&mut known.values).add_check(key, Arc::new(check));
    }

    /// Adds schemas to those that are known, by [`Writers::add`] or [`Writers::add_ahead`].
    pub fn add_writers(
        &self,
        found: &[(SchemaKey, Arc<WriterSchema>)],
        add: fn(&mut Writers, SchemaKey, Arc<WriterSchema>),
    ) {
        let mut known = self.known.write().expect("nobody panics while they hold it");
        for (key, writer) in found {
            let writers = match key.part {
                Part::Value => &mut known.values,
                Part::Key => &mut known.keys,
            };
            add(Arc::make_mut(writers), key.clone(), writer.clone());
        }
    }

    /// Looks at the topic: its identity, its partitions, and what they hold.
    ///
    /// # Errors
    /// Exit code 4 once `--retry-for` is over. Exit code 2 where there is no such topic; 3 where the table was filled
    /// from one.
    pub async fn topic(&self) -> Result<Topic, Failure> {
        let topic = self.pipeline.source.topic.clone();
        self.ask(move |admin| {
            let source = Source {
                topic: topic.clone(),
                topic_id: admin.topic_id(&topic)?,
                cluster_id: admin.cluster_id(&topic)?,
            };
            let (partitions, beginnings) = (admin.partitions(&topic)?, admin.beginnings(&topic)?);
            let (ends, leaders) = admin.ends_and_leaders(&topic)?;
            Ok(Topic {
                source,
                partitions,
                beginnings,
                ends,
                leaders,
            })
        })
        .await
    }

    /// Returns the topic's id as it is now.
    pub async fn topic_id(&self) -> Result<Option<String>, Failure> {
        let topic = self.pipeline.source.topic.clone();
        self.ask(move |admin| admin.topic_id(&topic)).await
    }

    /// Finds where partitions start: by `startOffset` in the very first commit, from their beginning later.
    pub async fn starts(&self, partitions: Vec<Partition>, first: bool) -> Result<Offsets, Failure> {
        let topic = self.pipeline.source.topic.clone();
        let start = if first {
            self.pipeline.source.start
        } else {
            StartOffset::Earliest
        };
        let all = self
            .ask(move |admin| match start {
                StartOffset::Earliest => admin.beginnings(&topic),
                StartOffset::Latest => admin.ends(&topic),
                StartOffset::Timestamp(time) => admin.offsets_for_time(&topic, time),
            })
            .await?;
        Ok(all
            .iter()
            .filter(|(partition, _)| partitions.contains(partition))
            .collect())
    }

    /// Returns records of all partitions, some from their beginnings and some from their ends.
    pub async fn samples(&self, per_partition_max: usize, bytes_max: usize) -> Result<Vec<SampleRecord>, Failure> {
        let topic = self.pipeline.source.topic.clone();
        self.ask(move |admin| admin.samples(&topic, per_partition_max, bytes_max))
            .await
    }

    /// Says whether the topic goes on where the table was left.
    ///
    /// # Errors
    /// Exit code 3 where it doesn't, see [`start::continues`] and [`start::diverges`].
    pub async fn continues(&self, ledger: &Ledger, topic: &Topic) -> Result<(), Failure> {
        let unseen = |(partition, _)| topic.ends.get(partition).is_none();
        let again = match ledger.offsets.iter().any(unseen) {
            // Added, and committed by others, after the topic was looked at and before the table was.
            true => Some(self.topic().await?),
            false => None,
        };
        let topic = again.as_ref().unwrap_or(topic);
        let beyond = |(partition, held)| topic.ends.get(partition).is_some_and(|end| held > end);
        let ends = if ledger.offsets.iter().any(beyond) {
            let name = topic.source.topic.clone();
            self.ask(move |admin| admin.high_watermarks(&name)).await?
        } else {
            topic.ends.clone()
        };
        start::continues(ledger, &topic.source, &topic.beginnings, &ends)?;
        let diverged = self.diverged(ledger, topic).await?;
        start::diverges(ledger, &topic.source, &diverged, &self.pipeline.full_name())
    }

    /// Finds the partitions whose log isn't any more what was read of it, see [`Admin::diverged`].
    ///
    /// Those whose leader is still the one that the last record was read under are passed over: what it has, it keeps. So are
    /// those whose offset is gone, which is another matter.
    ///
    /// # Errors
    /// Exit code 4 once `--retry-for` is over.
    pub async fn diverged(
        &self,
        ledger: &Ledger,
        topic: &Topic,
    ) -> Result<BTreeMap<Partition, Option<Offset>>, Failure> {
        let elected = |partition: &Partition, epoch| topic.leaders.get(partition).is_some_and(|now| *now != epoch);
        let positions: BTreeMap<_, _> = ledger
            .leader_epochs
            .iter()
            .filter(|(partition, epoch)| elected(partition, **epoch))
            .filter_map(|(partition, _)| Some((*partition, ledger.position(*partition)?)))
            .filter(|(partition, at)| topic.beginnings.get(*partition).is_some_and(|first| first <= at.offset))
            .collect();
        if positions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let name = topic.source.topic.clone();
        self.ask(move |admin| admin.diverged(&name, &positions)).await
    }

    /// Finds out why Kafka says that the topic, or offsets in it, aren't there; `None` if they are, as it is now.
    pub async fn diagnose(&self, ledger: Option<Ledger>) -> Option<Failure> {
        match (self.topic().await, ledger) {
            (Err(failure), _) => Some(failure),
            (Ok(topic), Some(ledger)) => self.continues(&ledger, &topic).await.err(),
            (Ok(_), None) => None,
        }
    }

    /// Finds out how far the damage reaches that was met when `at` was read.
    pub(super) async fn damage_found(
        &self,
        topic: String,
        partition: Partition,
        at: Offset,
    ) -> Result<Found, KafkaError> {
        let admin = self.admin.clone();
        let asked = tokio::task::spawn_blocking(move || admin.damage(&topic, partition, at));
        asked.await.expect("a question to a broker doesn't panic")
    }

    /// Asks whether the consumer group can be talked to at all.
    ///
    /// # Errors
    /// Exit code 4 once `--retry-for` is over.
    pub async fn reach_group(&self) -> Result<(), Failure> {
        let (group, topic) = (self.pipeline.source.group.clone(), self.pipeline.source.topic.clone());
        self.ask(move |admin| admin.group_offsets(&group, &topic).map(drop))
            .await
    }

    /// Returns the end of each partition, as the pipeline's `isolationLevel` sees it.
    pub async fn ends(&self) -> Result<Offsets, Failure> {
        let topic = self.pipeline.source.topic.clone();
        self.ask(move |admin| admin.ends(&topic)).await
    }

    /// Returns the end of each partition, open transactions included.
    pub async fn high_watermarks(&self) -> Result<Offsets, Failure> {
        let topic = self.pipeline.source.topic.clone();
        self.ask(move |admin| admin.high_watermarks(&topic)).await
    }

    /// Returns for each partition the offset of its first record at or after `time`.
    pub async fn offsets_at(&self, time: Millis) -> Result<Offsets, Failure> {
        let topic = self.pipeline.source.topic.clone();
        self.ask(move |admin| admin.offsets_for_time(&topic, time)).await
    }

    /// Returns what a consumer group has committed.
    pub async fn group_offsets(&self, group: String) -> Result<Offsets, Failure> {
        let topic = self.pipeline.source.topic.clone();
        self.ask(move |admin| admin.group_offsets(&group, &topic)).await
    }

    /// Counts the members of the pipeline's group; `None` if nobody tells.
    pub async fn group_members(&self) -> Option<usize> {
        let (admin, group) = (self.admin.clone(), self.pipeline.source.group.clone());
        let asked = tokio::task::spawn_blocking(move || admin.group_members(&group));
        asked.await.expect("a question to a broker doesn't panic").ok()
    }

    /// Asks once, without patience, for the topic's ends.
    ///
    /// # Errors
    /// In words: what the brokers said.
    pub async fn ends_now(&self) -> Result<Offsets, String> {
        let (admin, topic) = (self.admin.clone(), self.pipeline.source.topic.clone());
        let asked = tokio::task::spawn_blocking(move || admin.ends(&topic)).await;
        let answer = asked.expect("a question to a broker doesn't panic");
        answer.map_err(|error| chain(&error))
    }

    /// Asks the brokers on a thread that may block, again and again until `--retry-for` is over.
    async fn ask<T, F>(&self, question: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Fn(&Admin) -> Result<T, KafkaError> + Send + Sync + 'static,
    {
        let question = Arc::new(question);
        let source = &self.pipeline.source;
        let since = Instant::now();
        let patience = Duration::from(self.retry_for);
        let (mut pause, pause_max) = QUESTION_PAUSE;
        // Ends: by the answer, or when the time is over that its error is given.
        loop {
            let (admin, question) = (self.admin.clone(), question.clone());
            let answer = tokio::task::spawn_blocking(move || question(&admin))
                .await
                .expect("a question to a broker doesn't panic");
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let missing = matches!(error, KafkaError::TopicMissing { .. });
            let limit = if missing { patience.min(TOPIC_WAIT) } else { patience };
            if !(missing || error.passes()) || since.elapsed() + pause > limit {
                return Err(if missing {
                    self.topic_missing(&error).await
                } else {
                    error.failure(&source.brokers, &source.topic)
                });
            }
            if pause == QUESTION_PAUSE.0 {
                warn!(
                    topic = source.topic,
                    brokers = source.brokers,
                    error = chain(&error),
                    "asking Kafka again"
                );
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(pause_max);
        }
    }

    /// A topic that never was there is a slip of the pipeline file; one that the table was filled from is a loss.
    async fn topic_missing(&self, error: &KafkaError) -> Failure {
        let source = &self.pipeline.source;
        let held = match self.load().await {
            Ok(Some(table)) => table.view().await.ok().and_then(|view| view.ledger),
            Ok(None) => None,
            // That the topic is missing is the first thing to mend.
            Err(_) => None,
        };
        match held {
            Some(ledger) if ledger.topic == source.topic => start::topic_gone(&source.topic, &ledger.offsets),
            _ => error.failure(&source.brokers, &source.topic),
        }
    }
}

/// Sets up the client of a schema registry; nothing is contacted yet.
///
/// # Errors
/// Exit code 2 if its certificates can't be read.
pub(crate) fn registry(config: &RegistryConfig, timeout: Duration) -> Result<Registry, Failure> {
    Registry::new(config, timeout).map_err(|error| {
        Failure::new(Exit::Config, "the schema registry can't be used")
            .detail(chain(&error))
            .hint("look at `source.schemaRegistry` in the pipeline file")
    })
}

/// Tells a schema registry's error to the user.
pub(crate) fn registry_failure(error: &RegistryError) -> Failure {
    Failure::new(Exit::Remote, "the schema registry can't be used")
        .detail(chain(error))
        .hint(
            "look at `source.schemaRegistry` in the pipeline file, and whether the registry is up; nothing was lost, run again when it is",
        )
}

/// Tries until it works, or fails in a way that doesn't pass, or for `retry_for` in all, the attempts' own time included:
/// one that waits long for an answer is not followed by as many as one that is refused at once.
pub(super) async fn patiently<T, E, F: Future<Output = Result<T, E>>>(
    retry_for: Millis,
    passes: impl Fn(&E) -> bool,
    attempt: impl Fn() -> F,
) -> Result<T, E> {
    let since = Instant::now();
    let patience = Duration::from(retry_for);
    let mut pauses = pauses();
    // Ends: by the answer, or when the time is over that its error is given.
    loop {
        match attempt().await {
            Err(error) if passes(&error) => match pauses.next() {
                Some(pause) if since.elapsed() + pause <= patience => tokio::time::sleep(pause).await,
                _ => return Err(error),
            },
            answer => return answer,
        }
    }
}

/// The waits between attempts, without end.
pub(super) fn pauses() -> impl Iterator<Item = Duration> {
    let pauses = ExponentialBuilder::default()
        .with_min_delay(ATTEMPT_PAUSE.0)
        .with_max_delay(ATTEMPT_PAUSE.1)
        .with_jitter()
        .without_max_times();
    pauses.build()
}

/// Sets up the client of a catalog for one look at it; nothing is contacted yet.
///
/// # Errors
/// Exit code 2 for what the configuration says, 4 if the store of a SQL catalog can't be opened.
pub(crate) fn catalog(config: &CatalogConfig) -> Result<Catalog, Failure> {
    catalog_with(config, Access::from(&config.properties))
}

/// Sets up the client of a catalog; `access` says how long it, and the store of its tables, may be away.
fn catalog_with(config: &CatalogConfig, access: Access) -> Result<Catalog, Failure> {
    let opened = match config.kind {
        CatalogKind::Sql => Catalog::sql(&config.name, &config.uri, &config.warehouse, access),
        CatalogKind::Rest => {
            let warehouse = Some(config.warehouse.as_str()).filter(|warehouse| !warehouse.is_empty());
            Catalog::rest(&config.uri, warehouse, access)
        }
    };
    opened.map_err(|error| catalog_failure(config, &error))
}

/// Sets up what holds the table of a pipeline: its catalog, or for one of plain Parquet its sync points; nothing is
/// contacted yet.
///
/// # Errors
/// Those of [`catalog`].
pub(crate) fn table_of_record(pipeline: &Pipeline) -> Result<Catalog, Failure> {
    match pipeline.materialize.format {
        TableFormat::Iceberg => catalog(&pipeline.catalog),
        TableFormat::Parquet => hive_catalog(pipeline, Access::from(&pipeline.catalog.properties)),
    }
}

/// What stands in for a catalog where the table is plain Parquet: its sync points.
fn hive_catalog(pipeline: &Pipeline, access: Access) -> Result<Catalog, Failure> {
    let warehouse = &pipeline.catalog.warehouse;
    let opened = |location: &str| {
        Store::open(location, access.clone()).map_err(|error| {
            Failure::new(Exit::Config, format!("`{location}` can't be opened"))
                .detail(chain(&error))
                .hint("look at `catalog.warehouse`, `stateDir` and `catalog.properties` in the pipeline file")
        })
    };
    let state_dir = pipeline.state_dir.as_deref().unwrap_or(warehouse);
    let points = sync_points_with(pipeline, None, &access)?.expect("the state directory of plain Parquet is known");
    let hive = HiveCatalog::new(
        ident(pipeline, &pipeline.name)?,
        opened(warehouse)?,
        opened(state_dir)?,
        points,
    );
    Ok(Catalog::Hive(hive))
}

/// Names the table `name` in the pipeline's schema.
///
/// # Errors
/// Exit code 2 if the schema is no namespace.
pub(crate) fn ident(pipeline: &Pipeline, name: &str) -> Result<TableIdent, Failure> {
    let levels = pipeline.schema.split('.').map(str::to_owned).collect();
    let namespace = NamespaceIdent::from_vec(levels).map_err(|error| {
        Failure::new(Exit::Config, format!("schema `{}` is no namespace", pipeline.schema)).detail(chain(&error))
    })?;
    Ok(TableIdent::new(namespace, name.to_owned()))
}

/// Opens the sync points of a pipeline, given its table; `None` where only that would tell where they are, and there is
/// no table.
///
/// Those under the table's own location are reached with the table's own access: credentials that a catalog lends reach
/// nothing else, and nothing else may reach the table.
///
/// # Errors
/// Exit code 2 if `stateDir` names no store.
pub(crate) fn sync_points(pipeline: &Pipeline, table: Option<&LoadedTable>) -> Result<Option<SyncPoints>, Failure> {
    sync_points_with(pipeline, table, &Access::from(&pipeline.catalog.properties))
}

fn sync_points_with(
    pipeline: &Pipeline,
    table: Option<&LoadedTable>,
    access: &Access,
) -> Result<Option<SyncPoints>, Failure> {
    let directory = match (&pipeline.state_dir, table) {
        (Some(directory), _) => directory.clone(),
        (None, Some(table)) => format!("{}/.aperio", table.metadata.location().trim_end_matches('/')),
        (None, None) => return Ok(None),
    };
    let within = |table: &&LoadedTable| {
        let below = directory.strip_prefix(table.metadata.location().trim_end_matches('/'));
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let opened = match table.filter(within) {
        Some(table) => table
            .store
            .rooted(&directory)
            .map(|store| SyncPoints::within(store, &pipeline.schema))
            .map_err(SyncPointsError::from),
        None => SyncPoints::open(&directory, &pipeline.schema, access.clone()),
    };
    let refused = |error| {
        Failure::new(
            Exit::Config,
            format!("the sync points in `{directory}` can't be opened"),
        )
        .detail(chain(&error))
        .hint("look at `stateDir` and `catalog.properties` in the pipeline file")
    };
    opened.map(Some).map_err(refused)
}

/// Tells a catalog's error to the user.
pub(crate) fn catalog_failure(config: &CatalogConfig, error: &CatalogError) -> Failure {
    let exit = match error {
        CatalogError::Unsupported { .. } => Exit::Config,
        CatalogError::OnOurDisk { property, .. } => {
            return Failure::new(Exit::Config, format!("the catalog at `{}` names local files", config.shown()))
                .detail(chain(error))
                .hint(format!(
                    "if they are meant, write `catalog.properties: {{{property}: \"true\"}}`, or a local `catalog.warehouse`; nothing was written"
                ));
        }
        _ => Exit::Remote,
    };
    Failure::new(exit, format!("the catalog at `{}` can't be used", config.shown()))
        .detail(chain(error))
        .hint("look at `catalog` in the pipeline file, and whether the catalog is up; nothing was changed")
}

/// Tells that a table's history doesn't tell its offsets: exit code 3.
pub(crate) fn ledger_failure(ident: &TableIdent, problem: &LedgerProblem) -> Failure {
    Failure::new(Exit::Data, format!("the offsets of table `{ident}` can't be known"))
        .detail(problem.to_string())
        .hint(problem.hint(&ident.to_string()))
}

/// Tells that sync points can't be read.
pub(crate) fn sync_points_failure(points: &SyncPoints, error: &SyncPointsError) -> Failure {
    Failure::new(
        Exit::Remote,
        format!("the sync points in `{}` can't be read", points.location()),
    )
    .detail(chain(error))
    .hint("look at `stateDir` in the pipeline file. An Iceberg table holds its own offsets, these are a copy; of a table with `format: parquet` they are the only ones: don't delete them")
}
