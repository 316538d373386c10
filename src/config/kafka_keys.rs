//! Which librdkafka properties `consumerConfig` may set, and which ones belong to aperio.

use super::problem::did_you_mean;

/// Properties that aperio sets itself, each with what to write instead or why nothing may be written.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "write it as `source.brokers`"),
    ("metadata.broker.list", "write it as `source.brokers`"),
    ("group.id", "write it as `source.consumerGroup`"),
    (
        "auto.offset.reset",
        "write `source.startOffset` for the first run; later runs start where the table ends",
    ),
    ("isolation.level", "write it as `source.isolationLevel`"),
    (
        "enable.auto.commit",
        "offsets are stored after the Iceberg commit, never before",
    ),
    (
        "auto.commit.enable",
        "offsets are stored after the Iceberg commit, never before",
    ),
    (
        "auto.commit.interval.ms",
        "offsets are stored after the Iceberg commit, never before",
    ),
    (
        "enable.auto.offset.store",
        "offsets are stored after the Iceberg commit, never before",
    ),
    ("offset.store.method", "offsets are stored in the table"),
    ("offset.store.path", "offsets are stored in the table"),
    ("offset.store.sync.interval.ms", "offsets are stored in the table"),
    (
        "partition.assignment.strategy",
        "instances of one table must agree on it",
    ),
    ("group.protocol", "instances of one table must agree on it"),
    ("group.remote.assignor", "instances of one table must agree on it"),
    (
        "allow.auto.create.topics",
        "a topic that is read is never made by reading it",
    ),
    ("enable.partition.eof", "`--once` relies on it"),
    ("queued.max.messages.kbytes", "it follows from `--memory`"),
    ("queued.min.messages", "it follows from `--memory`"),
    ("statistics.interval.ms", "the metrics rely on it"),
    ("consume.callback.max.messages", "write `source.maxPollRecords`"),
];

/// Properties of the Java client that people bring along, and what stands for them here.
const JAVA: &[(&str, &str)] = &[
    ("max.poll.records", "write `source.maxPollRecords`"),
    ("key.deserializer", "write `source.keyFormat`"),
    ("value.deserializer", "write `source.format`"),
    ("schema.registry.url", "write `source.schemaRegistry`"),
    (
        "sasl.jaas.config",
        "write `source.security.saslUsername` and `saslPassword`",
    ),
    ("ssl.truststore.location", "write the CA as PEM in `source.security.ca`"),
    ("fetch.max.wait.ms", "librdkafka calls it `fetch.wait.max.ms`"),
    ("default.api.timeout.ms", "it is a property of the Java client only"),
    ("request.timeout.ms", "librdkafka calls it `socket.timeout.ms`"),
];

/// What a consumer may set otherwise, ascending.
///
/// Source: librdkafka CONFIGURATION.md as packed in the rdkafka-sys that Cargo.lock names, rows `C` and `*`, without
/// callbacks and without [`OWNED`].
const KNOWN: &[&str] = &[
    "api.version.fallback.ms",
    "api.version.request",
    "api.version.request.timeout.ms",
    "broker.address.family",
    "broker.address.ttl",
    "broker.version.fallback",
    "check.crcs",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "connections.max.idle.ms",
    "coordinator.query.interval.ms",
    "debug",
    "enable.metrics.push",
    "enable.random.seed",
    "enable.sasl.oauthbearer.unsecure.jwt",
    "enable.ssl.certificate.verification",
    "enabled_events",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.instance.id",
    "group.protocol.type",
    "heartbeat.interval.ms",
    "https.ca.location",
    "https.ca.pem",
    "internal.termination.signal",
    "log.connection.close",
    "log.queue",
    "log.thread.name",
    "log_level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "message.copy.max.bytes",
    "message.max.bytes",
    "metadata.max.age.ms",
    "metadata.recovery.rebootstrap.trigger.ms",
    "metadata.recovery.strategy",
    "plugin.library.paths",
    "receive.message.max.bytes",
    "reconnect.backoff.jitter.ms",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.kerberos.keytab",
    "sasl.kerberos.kinit.cmd",
    "sasl.kerberos.min.time.before.relogin",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.assertion.algorithm",
    "sasl.oauthbearer.assertion.claim.aud",
    "sasl.oauthbearer.assertion.claim.exp.seconds",
    "sasl.oauthbearer.assertion.claim.iss",
    "sasl.oauthbearer.assertion.claim.jti.include",
    "sasl.oauthbearer.assertion.claim.nbf.seconds",
    "sasl.oauthbearer.assertion.claim.sub",
    "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.jwt.template.file",
    "sasl.oauthbearer.assertion.private.key.file",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.client.credentials.client.id",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.grant.type",
    "sasl.oauthbearer.metadata.authentication.type",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "session.timeout.ms",
    "socket.blocking.max.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.max.fails",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "ssl.ca.certificate.stores",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.curves.list",
    "ssl.endpoint.identification.algorithm",
    "ssl.engine.id",
    "ssl.engine.location",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.providers",
    "ssl.sigalgs.list",
    "topic.blacklist",
    "topic.metadata.propagation.max.ms",
    "topic.metadata.refresh.fast.cnt",
    "topic.metadata.refresh.fast.interval.ms",
    "topic.metadata.refresh.interval.ms",
    "topic.metadata.refresh.sparse",
];

/// Why a property is refused: the message and a hint.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

/// Checks that `consumerConfig` may set `key`.
///
/// # Errors
/// [`Refused`] if the property is aperio's own or librdkafka has none of that name.
pub(super) fn check(key: &str) -> Result<(), Refused> {
    if let Some((_, instead)) = OWNED.iter().find(|(owned, _)| *owned == key) {
        return Err(Refused {
            message: format!("`{key}` is set by aperio"),
            hint: Some((*instead).to_owned()),
        });
    }
    if KNOWN.binary_search(&key).is_ok() {
        return Ok(());
    }
    let message = format!("librdkafka has no consumer property `{key}`");
    let hint = match JAVA.iter().find(|(java, _)| *java == key) {
        Some((_, instead)) => Some((*instead).to_owned()),
        None => did_you_mean(key, KNOWN.iter().copied()),
    };
    Err(Refused { message, hint })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(key: &str, expect: &str) {
        let found = check(key).expect_err(key);
        assert_eq!(format!("{}; {}", found.message, found.hint.unwrap_or_default()), expect);
    }

    #[test]
    fn every_owned_property_is_refused() {
        for (key, instead) in OWNED {
            refused(key, &format!("`{key}` is set by aperio; {instead}"));
        }
    }

    #[test]
    fn librdkafka_properties_pass_and_others_do_not() {
        assert!(KNOWN.is_sorted(), "binary search needs an ascending list");
        assert!(JAVA.iter().all(|(key, _)| KNOWN.binary_search(key).is_err()));
        for key in [
            "fetch.min.bytes",
            "session.timeout.ms",
            "client.id",
            "sasl.password",
            "ssl.ca.location",
        ] {
            assert_eq!(check(key), Ok(()), "{key}");
        }
        refused(
            "fetch.min.byte",
            "librdkafka has no consumer property `fetch.min.byte`; did you mean `fetch.min.bytes`?",
        );
        refused(
            "max.poll.records",
            "librdkafka has no consumer property `max.poll.records`; write `source.maxPollRecords`",
        );
    }
}
