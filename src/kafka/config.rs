//! The librdkafka configuration that our clients share, and the way of their logs and errors into ours.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError as Cause, RDKafkaErrorCode};
use tracing::{debug, error, info, warn};

/// How long the group waits for a member that is silent before its partitions go to others.
///
/// librdkafka's default, 45 s, is what a run waits that is started right after a `kill -9`, since the dead one couldn't
/// leave the group. Heartbeats come every 3 s from a thread of librdkafka's own, however long a window takes, so 10 s,
/// the default of Kafka's clients before 3.0, still forgives three that are lost; and a member that is expelled by
/// mistake reads one window again, nothing worse. Static membership (`group.instance.id`) would let the same instance
/// come back at once, but two instances of one name throw each other out, and nothing here can tell them apart. Brokers
/// allow 6 s to 30 min (`group.min.session.timeout.ms`, Kafka 4.3).
const SESSION_TIMEOUT_MS: &str = "10000";

/// Whether a batch that isn't what its producer wrote is an error. librdkafka's default is off: a byte that flipped on a disk
/// then comes through as it is, or takes its record along where it can't be unpacked (2.12.1).
pub(crate) const CHECK_CRCS: &str = "check.crcs";

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

/// Makes the configuration of a consumer: what exactly-once needs of one, whatever the user's properties say.
///
/// - `group`: the group to join, or to ask about; a client that only asks about topics has none.
pub fn consumer(
    brokers: &str,
    read_committed: bool,
    client: &BTreeMap<String, String>,
    group: Option<&str>,
) -> ClientConfig {
    let mut config = base(brokers, client);
    if !client.contains_key("session.timeout.ms") {
        config.set("session.timeout.ms", SESSION_TIMEOUT_MS);
    }
    if !client.contains_key(CHECK_CRCS) {
        config.set(CHECK_CRCS, "true");
    }
    config
        .set(
            "isolation.level",
            if read_committed {
                "read_committed"
            } else {
                "read_uncommitted"
            },
        )
        // Members of one group must agree on it: a rebalance leaves the partitions that stay alone.
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Never jump: an offset that is gone is an outcome for the user.
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        // Asking for a topic must not make it.
        .set("allow.auto.create.topics", "false");
    match group {
        Some(group) => config.set("group.id", group),
        None => config.remove("group.id"),
    };
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

/// The context of a client that asks questions: it logs, and remembers why brokers couldn't be talked to.
///
/// A question that isn't answered only says that its time is over. The reason (connection refused, a wrong password)
/// comes as an event of the client, when it is polled.
#[derive(Debug, Default)]
pub struct ReasonContext {
    // A mutex, since rdkafka hands callbacks a shared reference; held for an assignment only.
    last: Mutex<Option<(RDKafkaErrorCode, String)>>,
}

impl ReasonContext {
    /// Takes the last error that the client was told of.
    pub(crate) fn take(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for ReasonContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: Cause, reason: &str) {
        debug!(target: "librdkafka", %error, "{reason}");
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" follows what says why.
        if code != RDKafkaErrorCode::AllBrokersDown || last.is_none() {
            *last = Some((code, reason.to_owned()));
        }
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

impl ConsumerContext for ReasonContext {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_may_set_what_exactly_once_does_not_need() {
        let ours = consumer("b:1", true, &BTreeMap::new(), Some("g"));
        assert_eq!(ours.get("session.timeout.ms"), Some(SESSION_TIMEOUT_MS));
        assert_eq!(ours.get("check.crcs"), Some("true"));
        let wanted = [
            ("session.timeout.ms", "45000"),
            ("client.id", "mine"),
            ("check.crcs", "false"),
            ("auto.offset.reset", "latest"),
            ("group.id", "other"),
        ];
        let client = wanted.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let theirs = consumer("b:1", false, &client, Some("g"));
        for (key, expect) in [
            ("session.timeout.ms", "45000"),
            ("client.id", "mine"),
            ("check.crcs", "false"),
            ("auto.offset.reset", "error"),
            ("group.id", "g"),
            ("isolation.level", "read_uncommitted"),
        ] {
            assert_eq!(theirs.get(key), Some(expect), "{key}");
        }
        assert_eq!(consumer("b:1", true, &client, None).get("group.id"), None);
    }
}
