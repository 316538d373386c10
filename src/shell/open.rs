//! Opening a pipeline: who the topic is, where the table is, and what the two are made of.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use iceberg::{NamespaceIdent, TableIdent};

use crate::catalog::{Catalog, CatalogError, LoadedTable};
use crate::config::{CatalogConfig, CatalogKind, Pipeline, StartOffset};
use crate::error::{Exit, Failure, chain};
use crate::kafka::admin::Admin;
use crate::kafka::error::KafkaError;
use crate::offsets::{Offsets, Partition};
use crate::sync_points::{SyncPoints, SyncPointsError};
use crate::table::admit::Source;
use crate::table::ledger::LedgerProblem;
use crate::units::Millis;

/// How long one question to a broker may take; several fit into `--retry-for`.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The foreign systems of a pipeline.
pub(super) struct World {
    pub pipeline: Pipeline,
    pub catalog: Arc<Catalog>,
    pub ident: TableIdent,
    pub retry_for: Millis,
    admin: Arc<Admin>,
}

/// What a look at the topic showed.
pub(super) struct Topic {
    pub source: Source,
    pub partitions: Vec<Partition>,
    pub ends: Offsets,
}

impl World {
    /// Sets up the clients; nothing is contacted yet.
    pub fn new(pipeline: Pipeline, retry_for: Millis) -> Result<World, Failure> {
        let catalog = catalog(&pipeline.catalog)?;
        let source = &pipeline.source;
        let admin = Admin::new(&source.brokers, source.read_committed, &source.client, QUESTION_TIMEOUT)
            .map_err(|error| kafka_failure(&error, &source.topic))?;
        let ident = ident(&pipeline, &pipeline.name)?;
        Ok(World {
            pipeline,
            catalog: Arc::new(catalog),
            ident,
            retry_for,
            admin: Arc::new(admin),
        })
    }

    /// Looks at the topic: its identity, its partitions, its ends.
    pub async fn topic(&self) -> Result<Topic, Failure> {
        let topic = self.pipeline.source.topic.clone();
        self.ask(move |admin| {
            let source = Source {
                topic: topic.clone(),
                topic_id: admin.topic_id(&topic)?,
                cluster_id: admin.cluster_id()?,
            };
            Ok(Topic {
                source,
                partitions: admin.partitions(&topic)?,
                ends: admin.ends(&topic)?,
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

    /// Returns values of all partitions, some from their beginnings and some from their ends.
    pub async fn samples(&self, per_partition_max: usize, bytes_max: usize) -> Result<Vec<Vec<u8>>, Failure> {
        let topic = self.pipeline.source.topic.clone();
        self.ask(move |admin| admin.samples(&topic, per_partition_max, bytes_max))
            .await
    }

    /// Asks the brokers on a thread that may block, again and again until `--retry-for` is over.
    async fn ask<T, F>(&self, question: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Fn(&Admin) -> Result<T, KafkaError> + Send + Sync + 'static,
    {
        let question = Arc::new(question);
        let attempt = || async {
            let (admin, question) = (self.admin.clone(), question.clone());
            tokio::task::spawn_blocking(move || question(&admin))
                .await
                .expect("a question to a broker doesn't panic")
        };
        attempt
            .retry(backoff(self.retry_for))
            .when(|error: &KafkaError| matches!(error, KafkaError::Unreachable { .. }))
            .await
            .map_err(|error| kafka_failure(&error, &self.pipeline.source.topic))
    }
}

/// Waits of 0.2 s to 10 s, in all `retry_for`.
pub(super) fn backoff(retry_for: Millis) -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(10))
        .with_jitter()
        .with_total_delay(Some(Duration::from_millis(retry_for.0.unsigned_abs())))
        .without_max_times()
}

/// Sets up the client of a catalog; nothing is contacted yet.
///
/// # Errors
/// Exit code 2 for what the configuration says, 4 if the store of a SQL catalog can't be opened.
pub(crate) fn catalog(config: &CatalogConfig) -> Result<Catalog, Failure> {
    let opened = match config.kind {
        CatalogKind::Sql => Catalog::sql(&config.name, &config.uri, &config.warehouse, &config.properties),
        CatalogKind::Rest => {
            let warehouse = Some(config.warehouse.as_str()).filter(|warehouse| !warehouse.is_empty());
            Catalog::rest(&config.uri, warehouse, &config.properties)
        }
    };
    opened.map_err(|error| catalog_failure(config, &error))
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

/// Opens the sync points of a pipeline, given where its table lies; `None` where only that would tell where they are, and
/// there is no table.
///
/// # Errors
/// Exit code 2 if `stateDir` names no store.
pub(crate) fn sync_points(pipeline: &Pipeline, table_location: Option<&str>) -> Result<Option<SyncPoints>, Failure> {
    let directory = match (&pipeline.state_dir, table_location) {
        (Some(directory), _) => directory.clone(),
        (None, Some(location)) => format!("{location}/.aperio"),
        (None, None) => return Ok(None),
    };
    let opened = SyncPoints::open(&directory, &pipeline.schema, &pipeline.catalog.properties);
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
        _ => Exit::Remote,
    };
    Failure::new(exit, format!("the catalog at `{}` can't be used", config.shown()))
        .detail(chain(error))
        .hint("look at `catalog` in the pipeline file, and whether the catalog is up; nothing was changed")
}

/// Tells that a table doesn't say for certain which offsets it holds.
pub(crate) fn ledger_failure(table: &LoadedTable, problem: &LedgerProblem) -> Failure {
    Failure::new(
        Exit::Data,
        format!("the offsets of table `{}` can't be known", table.ident),
    )
    .detail(problem.to_string())
    .hint("nothing was written; roll the table back to a snapshot whose summary holds `aperio.ledger`")
}

/// Tells that sync points can't be read.
pub(crate) fn sync_points_failure(points: &SyncPoints, error: &SyncPointsError) -> Failure {
    Failure::new(
        Exit::Remote,
        format!("the sync points in `{}` can't be read", points.location()),
    )
    .detail(chain(error))
    .hint("look at `stateDir` in the pipeline file; the table holds the offsets of record, these are a copy")
}

/// Tells a broker's error to the user.
pub(super) fn kafka_failure(error: &KafkaError, topic: &str) -> Failure {
    match error {
        KafkaError::TopicMissing { .. } => Failure::new(Exit::Config, format!("topic `{topic}` doesn't exist"))
            .hint("look at `source.topic`, or create the topic; aperio never creates the topic it reads"),
        KafkaError::Configuration { .. } => Failure::new(Exit::Config, "the Kafka client refuses its configuration")
            .detail(chain(error))
            .hint("look at `source.consumerConfig` and `source.security`"),
        _ => Failure::new(Exit::Remote, format!("Kafka can't be read for topic `{topic}`"))
            .detail(chain(error))
            .hint("look at `source.brokers` and whether they are up; run again, or wait longer with `--retry-for`"),
    }
}
