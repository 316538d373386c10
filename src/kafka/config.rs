//! The librdkafka configuration that all our clients share, and the way of their logs into ours.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError as Cause;
use tracing::{debug, error, info, warn};

/// Makes the configuration that every client starts from.
///
/// - `brokers`: `host:port`, comma separated.
/// - `client`: librdkafka properties as the user wrote them. What a client must own is set by it afterwards, so it wins.
pub fn base(brokers: &str, client: &BTreeMap<String, String>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", "aperio");
    // librdkafka's 5 minutes would let a new partition, or a topic that is created late, wait that long.
    config.set("topic.metadata.refresh.interval.ms", "30000");
    for (key, value) in client {
        config.set(key, value);
    }
    config.set("bootstrap.servers", brokers);
    config
}

/// Hands librdkafka's own log lines to `tracing`.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            error!(target: "librdkafka", facility, "{line}");
        }
        // One broker of several that is gone is an "error" to librdkafka, which goes on by itself.
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => warn!(target: "librdkafka", facility, "{line}"),
        RDKafkaLogLevel::Notice => info!(target: "librdkafka", facility, "{line}"),
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => debug!(target: "librdkafka", facility, "{line}"),
    }
}

/// The context of a client that only logs.
#[derive(Debug, Clone, Default)]
pub struct LogContext;

impl ClientContext for LogContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: Cause, reason: &str) {
        debug!(target: "librdkafka", %error, "{reason}");
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

impl ConsumerContext for LogContext {}
