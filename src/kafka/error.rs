//! What can go wrong with Kafka, by what the caller can do about it.

use rdkafka::error::{KafkaError as Cause, RDKafkaErrorCode};

use crate::error::{Exit, Failure, chain};

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
    /// Records aren't what was written.
    #[error("records of topic `{topic}` are damaged: {reason}")]
    Damaged {
        /// The topic's name.
        topic: String,
        /// librdkafka's words; they name the offset.
        reason: String,
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
    /// The group doesn't take a member that is configured like this one.
    Unfit,
    /// A batch of records isn't what was written.
    Damaged,
    Other,
}

/// Sorts a code of librdkafka 2.12 (`rdkafka.h`, `rd_kafka_resp_err_t`). What Kafka's protocol guide calls retriable
/// ("Error Codes") passes, but for a corrupt record, which somebody should hear of; the topic that isn't there has a kind of
/// its own.
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
        | Code::ReplicaNotAvailable
        | Code::PreferredLeaderNotAvailable
        | Code::EligibleLeadersNotAvailable
        | Code::ListenerNotFound
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::OffsetNotAvailable
        | Code::UnstableOffsetCommit
        | Code::FetchSessionIdNotFound
        | Code::InvalidFetchSessionEpoch
        | Code::UnknownTopicId
        | Code::KafkaStorageError
        | Code::ThrottlingQuotaExceeded
        | Code::NotController
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
        | Code::ClusterAuthorizationFailed
        | Code::GroupMaxSizeReached => Kind::Refused,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => Kind::TopicMissing,
        Code::InvalidSessionTimeout | Code::InconsistentGroupProtocol | Code::InvalidGroupId | Code::InvalidTopic => {
            Kind::Unfit
        }
        // By librdkafka: a checksum that is another, what doesn't unpack, a format nobody knows. By a broker: its own look at a
        // batch (Kafka's `CORRUPT_MESSAGE`), or a length that leads nowhere.
        Code::BadMessage
        | Code::BadCompression
        | Code::NotImplemented
        | Code::InvalidMessage
        | Code::InvalidMessageSize
        | Code::MessageSizeTooLarge => Kind::Damaged,
        _ => Kind::Other,
    }
}

impl KafkaError {
    /// Says whether the same question may be answered later, with nothing changed here.
    pub fn passes(&self) -> bool {
        matches!(self, KafkaError::Unreachable { .. } | KafkaError::Refused { .. })
    }

    /// Tells the user, with what to do. No error here holds a secret: librdkafka's words name properties, not values.
    ///
    /// - `brokers`: as the pipeline file names them; `topic`: the one that was asked about.
    pub fn failure(&self, brokers: &str, topic: &str) -> Failure {
        match self {
            KafkaError::TopicMissing { topic } => {
                Failure::new(Exit::Config, format!("topic `{topic}` doesn't exist"))
                    .detail(format!("the brokers at `{brokers}` know no topic of that name, or don't let us see it"))
                    .hint("look at `source.topic` and `source.brokers`, or create the topic; aperio never creates the topic it reads")
            }
            KafkaError::Configuration { .. } => Failure::new(Exit::Config, "the Kafka client refuses its configuration")
                .detail(chain(self))
                .hint("look at `source.consumerConfig` and `source.security`"),
            KafkaError::Refused { .. } => {
                Failure::new(Exit::Remote, format!("Kafka at `{brokers}` refuses us for topic `{topic}`"))
                    .detail(chain(self))
                    .hint("look at `source.security`, and at what this user may do with the topic and the consumer group; then run again")
            }
            KafkaError::Unreachable { .. } => {
                Failure::new(Exit::Remote, format!("Kafka at `{brokers}` can't be reached for topic `{topic}`"))
                    .detail(chain(self))
                    .hint("look at `source.brokers` and whether they are up; run again, or wait longer with `--retry-for`")
            }
            KafkaError::Damaged { .. } => {
                Failure::new(Exit::Data, format!("topic `{topic}` is damaged where samples were taken of it"))
                    .detail(chain(self))
                    .hint("declare `columns`, so that none are needed; a run then says how to go past the damage")
            }
            KafkaError::Failed { .. } => {
                Failure::new(Exit::Remote, format!("Kafka at `{brokers}` gives no answer of use about topic `{topic}`"))
                    .detail(chain(self))
                    .hint("run again; if it stays, look at the brokers' logs")
            }
        }
    }

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
            Kind::Damaged => KafkaError::Damaged {
                topic: topic.to_owned(),
                reason,
            },
            Kind::Unfit | Kind::Other => KafkaError::Failed { doing, reason },
        }
    }
}
