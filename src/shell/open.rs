//! Opening a pipeline: who the topic is, where the table is, and what the two are made of.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use iceberg::{NamespaceIdent, TableIdent};

use crate::catalog::{Catalog, CatalogError};
use crate::config::{CatalogKind, Pipeline, StartOffset};
use crate::error::{Exit, Failure, chain};
use crate::kafka::admin::Admin;
use crate::kafka::error::KafkaError;
use crate::offsets::{Offsets, Partition};
use crate::table::admit::Source;
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
        let config = &pipeline.catalog;
        let catalog = match config.kind {
            CatalogKind::Sql => Catalog::sql(&config.name, &config.uri, &config.warehouse, &config.properties),
            CatalogKind::Rest => {
                let warehouse = Some(config.warehouse.as_str()).filter(|warehouse| !warehouse.is_empty());
                Catalog::rest(&config.uri, warehouse, &config.properties)
            }
        };
        let catalog = catalog.map_err(|error| catalog_failure(&error))?;
        let source = &pipeline.source;
        let admin = Admin::new(&source.brokers, source.read_committed, &source.client, QUESTION_TIMEOUT)
            .map_err(|error| kafka_failure(&error, &source.topic))?;
        let levels = pipeline.schema.split('.').map(str::to_owned).collect();
        let namespace = NamespaceIdent::from_vec(levels).map_err(|error| {
            Failure::new(
                Exit::Config,
                format!("schema `{}` isn't a namespace: {error}", pipeline.schema),
            )
        })?;
        let ident = TableIdent::new(namespace, pipeline.name.clone());
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

/// Tells a catalog's error to the user.
pub(super) fn catalog_failure(error: &CatalogError) -> Failure {
    let exit = match error {
        CatalogError::Unsupported { .. } => Exit::Config,
        _ => Exit::Remote,
    };
    Failure::new(exit, "the catalog can't be used")
        .detail(chain(error))
        .hint("look at `catalog` in the pipeline file, and whether the catalog is up; nothing was changed")
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
