//! Delivers dead letters to a topic; at least once.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::try_join_all;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use crate::kafka::config::{self, LogContext};
use crate::kafka::error::KafkaError;

/// Records handed to librdkafka before their answers are awaited: bounds memory beside its own queue.
const IN_FLIGHT_MAX: usize = 1000;
/// How long a record may wait for room in librdkafka's queue.
const QUEUE_WAIT: Duration = Duration::from_secs(30);

/// One record that couldn't be used, as it goes to the dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadLetterRecord {
    /// The original key.
    pub key: Option<Vec<u8>>,
    /// The original value.
    pub value: Option<Vec<u8>>,
    /// The original headers, in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// What went wrong and where the record came from; they follow the original headers.
    pub error_headers: Vec<(String, String)>,
}

/// The topic that dead letters go to.
pub struct DeadLetterTopic {
    topic: String,
    producer: FutureProducer<LogContext>,
}

impl DeadLetterTopic {
    /// Makes the producer; connecting is left to the first send.
    ///
    /// # Errors
    /// [`KafkaError::Configuration`] if librdkafka refuses a property.
    pub fn new(brokers: &str, topic: &str, client: &BTreeMap<String, String>) -> Result<Self, KafkaError> {
        let mut config = config::base(brokers, client);
        config.set("enable.idempotence", "true").set("acks", "all");
        if !client.contains_key("message.timeout.ms") && !client.contains_key("delivery.timeout.ms") {
            // librdkafka's 5 minutes outlast `--retry-for`, which is to decide.
            config.set("message.timeout.ms", "30000");
        }
        if !client.contains_key("message.max.bytes") {
            // What could be read must be writable: the topic's own limit decides, not librdkafka's 1 MB.
            config.set("message.max.bytes", "1000000000");
        }
        let producer = config
            .create_with_context(LogContext)
            .map_err(|cause| KafkaError::of("connecting a producer", topic, &cause))?;
        Ok(DeadLetterTopic {
            topic: topic.to_owned(),
            producer,
        })
    }

    /// Delivers all `records` and waits until every one is acknowledged by all replicas in sync.
    ///
    /// # Errors
    /// Of the first that failed. Others may have been delivered, and this one too if no answer came: sending all again
    /// may double them.
    pub async fn send(&self, records: &[DeadLetterRecord]) -> Result<(), KafkaError> {
        for part in records.chunks(IN_FLIGHT_MAX) {
            try_join_all(part.iter().map(|record| self.send_one(record))).await?;
        }
        Ok(())
    }

    async fn send_one(&self, record: &DeadLetterRecord) -> Result<(), KafkaError> {
        let original = record.headers.iter().map(|(key, value)| (key, value.as_deref()));
        let errors = record
            .error_headers
            .iter()
            .map(|(key, value)| (key, Some(value.as_bytes())));
        let headers = OwnedHeaders::new_with_capacity(record.headers.len() + record.error_headers.len());
        let headers = original
            .chain(errors)
            .fold(headers, |all, (key, value)| all.insert(Header { key, value }));
        let mut letter: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&self.topic).headers(headers);
        letter.key = record.key.as_deref();
        letter.payload = record.value.as_deref();
        match self.producer.send(letter, QUEUE_WAIT).await {
            Ok(_) => Ok(()),
            Err((cause, _)) => Err(match self.producer.client().fatal_error() {
                Some((code, reason)) => KafkaError::Failed {
                    doing: "sending dead letters".to_owned(),
                    reason: format!("{code}: {reason}"),
                },
                None => KafkaError::of("sending dead letters", &self.topic, &cause),
            }),
        }
    }
}
