//! The embedded broker: librdkafka's mock cluster, on loopback, gone with the process.
//!
//! It keeps 5 MiB a partition and knows no topic administration; enough for a few thousand events.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};

use super::events::Event;
use crate::error::{Exit, Failure};
use crate::kafka::config;

/// Records in one message set. The mock answers a fetch with one set a partition, so this sets the pace of reading.
const SET_RECORDS: &str = "50";

/// How long an answer takes once the broker is slowed down.
const SLOW_ANSWER: Duration = Duration::from_millis(20);

/// Kafka's session timeout for the demo's consumers, and how often they say that they live.
///
/// The mock lets the first member after an empty group wait for the session timeout less a second, also if the others
/// have left properly (librdkafka 2.12.1, `rdkafka_mock_cgrp.c`, `rd_kafka_mock_cgrp_classic_rebalance`); 45 s, the
/// default, is too long to watch. Real brokers don't do that.
const SESSION: [(&str, &str); 2] = [("session.timeout.ms", "4000"), ("heartbeat.interval.ms", "500")];

/// Returns what consumers of the embedded broker need; no part of the pipeline file, since no other broker needs it.
pub(super) fn client_properties() -> impl Iterator<Item = (String, String)> {
    SESSION
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
}

/// A broker in this process.
pub(super) struct Broker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Broker {
    /// Starts the broker and creates `topic`.
    pub fn start(topic: &str, partitions: i32) -> Result<Broker, Failure> {
        let failed = |error: rdkafka::error::KafkaError| {
            Failure::new(Exit::Remote, "the embedded broker doesn't start")
                .detail(error.to_string())
                .hint("it needs a free port on the loopback interface")
        };
        let cluster = MockCluster::new(1).map_err(failed)?;
        cluster.create_topic(topic, partitions, 1).map_err(failed)?;
        Ok(Broker { cluster })
    }

    /// Returns `host:port`.
    pub fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Makes every answer take a while from now on.
    pub fn slow_down(&self) -> Result<(), Failure> {
        self.cluster.broker_round_trip_time(-1, SLOW_ANSWER).map_err(|error| {
            Failure::new(Exit::Bug, "the embedded broker can't be slowed down").detail(error.to_string())
        })
    }

    /// Sends events to `topic` and waits until all are stored.
    pub async fn produce(&self, topic: &str, events: Vec<Event>) -> Result<(), Failure> {
        let failed = |error: rdkafka::error::KafkaError| {
            Failure::new(Exit::Remote, "the events can't be sent to the embedded broker").detail(error.to_string())
        };
        let mut settings = config::base(&self.address(), &BTreeMap::new());
        settings
            .set("batch.num.messages", SET_RECORDS)
            .set("linger.ms", "20")
            .set("message.timeout.ms", "20000");
        let producer: FutureProducer = settings.create().map_err(failed)?;
        let sends = events.iter().map(|event| {
            let record = FutureRecord::to(topic)
                .key(&event.key)
                .payload(&event.value)
                .timestamp(event.time_ms);
            producer.send(record, Duration::from_secs(20))
        });
        for answer in join_all(sends).await {
            answer.map_err(|(error, _)| failed(error))?;
        }
        Ok(())
    }
}
