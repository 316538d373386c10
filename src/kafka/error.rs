//! What can go wrong with Kafka, by what the caller can do about it.

use rdkafka::error::{KafkaError as Cause, RDKafkaErrorCode};

/// An outcome of talking to Kafka that isn't an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    /// A client property was refused by librdkafka: only the configuration helps.
    #[error("the Kafka client refused its configuration: {reason}")]
    Configuration {
        /// librdkafka's words; they name the property.
        reason: String,
    },
    /// No broker answered in time: another attempt may succeed.
    #[error("Kafka didn't answer while {doing}: {reason}")]
    Unreachable {
        /// What was being tried, as "reading the ends of `orders`".
        doing: String,
        /// librdkafka's words.
        reason: String,
    },
    /// A broker answered and denied: credentials, TLS or rights.
    #[error("Kafka refused {doing}: {reason}")]
    Refused {
        /// What was being tried.
        doing: String,
        /// librdkafka's words.
        reason: String,
    },
    /// The topic doesn't exist, or may not be seen with these credentials.
    #[error("topic `{topic}` doesn't exist")]
    TopicMissing {
        /// Its name.
        topic: String,
    },
    /// Anything else: it isn't known to pass by itself.
    #[error("Kafka failed while {doing}: {reason}")]
    Failed {
        /// What was being tried.
        doing: String,
        /// librdkafka's words.
        reason: String,
    },
}

/// Which of the outcomes a librdkafka code stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Unreachable,
    Refused,
    TopicMissing,
    Other,
}

/// Sorts a code of librdkafka 2.12 (`rdkafka.h`, `rd_kafka_resp_err_t`).
pub(crate) fn kind(code: RDKafkaErrorCode) -> Kind {
    use RDKafkaErrorCode as Code;
    match code {
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::OperationTimedOut
        | Code::MessageTimedOut
        | Code::TimedOutQueue
        | Code::RequestTimedOut
        | Code::NetworkException
        | Code::BrokerNotAvailable
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::WaitingForCoordinator => Kind::Unreachable,
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::SSL
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed => Kind::Refused,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => Kind::TopicMissing,
        _ => Kind::Other,
    }
}

impl KafkaError {
    /// Sorts `cause`, met while `doing` something with `topic`.
    pub(crate) fn of(doing: &str, topic: &str, cause: &Cause) -> KafkaError {
        match cause {
            Cause::ClientConfig(_, description, key, _) => {
                // The value isn't repeated: it may be a secret.
                return KafkaError::Configuration {
                    reason: format!("{description} (`{key}`)"),
                };
            }
            Cause::ClientCreation(reason) => return KafkaError::Configuration { reason: reason.clone() },
            _ => {}
        }
        let reason = cause.to_string();
        match cause.rdkafka_error_code() {
            Some(code) => KafkaError::of_code(doing, topic, code, reason),
            None => KafkaError::Failed {
                doing: doing.to_owned(),
                reason,
            },
        }
    }

    /// Sorts `code`, met while `doing` something with `topic`.
    pub(crate) fn of_code(doing: &str, topic: &str, code: RDKafkaErrorCode, reason: String) -> KafkaError {
        let doing = doing.to_owned();
        match kind(code) {
            Kind::Unreachable => KafkaError::Unreachable { doing, reason },
            Kind::Refused => KafkaError::Refused { doing, reason },
            Kind::TopicMissing => KafkaError::TopicMissing {
                topic: topic.to_owned(),
            },
            Kind::Other => KafkaError::Failed { doing, reason },
        }
    }
}
