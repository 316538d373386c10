//! Filling topics, and reading them back as the truth that tables are compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::servers::Kafka;
use super::setup;

const LIMIT: Duration = Duration::from_secs(60); // a broker that just started is slow at its first transaction

/// A record to produce. Without a partition, the key decides (or chance, without a key).
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970, UTC; without it, now.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// A record with this value and nothing else.
    pub fn of(value: impl Into<Vec<u8>>) -> Self {
        Self {
            value: Some(value.into()),
            ..Self::default()
        }
    }

    /// A record of this key without a value.
    pub fn tombstone(key: impl Into<Vec<u8>>) -> Self {
        Self::default().key(key)
    }

    /// The same with a key.
    pub fn key(self, key: impl Into<Vec<u8>>) -> Self {
        Self {
            key: Some(key.into()),
            ..self
        }
    }

    /// The same in this partition.
    pub fn partition(self, partition: i32) -> Self {
        Self {
            partition: Some(partition),
            ..self
        }
    }

    /// The same with one header more.
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), Some(value.into())));
        self
    }

    /// The same with this time, in milliseconds since 1970, UTC.
    pub fn at(self, timestamp_ms: i64) -> Self {
        Self {
            timestamp_ms: Some(timestamp_ms),
            ..self
        }
    }
}

/// A record that was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

fn config(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.brokers());
    config
}

fn admin(kafka: &Kafka) -> AdminClient<DefaultClientContext> {
    config(kafka).create().expect("an admin client")
}

fn admin_options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(LIMIT))
        .operation_timeout(Some(LIMIT))
}

/// Creates a topic; `settings` are topic properties such as `retention.ms`.
pub fn create_topic(kafka: &Kafka, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    new.config.extend_from_slice(settings);
    let results = block_on(admin(kafka).create_topics([&new], &admin_options())).expect("the broker answers");
    results.into_iter().for_each(|result| {
        result.unwrap_or_else(|error| panic!("topic `{topic}` isn't created: {error:?}"));
    });
}

/// Creates a topic whose partitions are on these brokers, the first of each its leader.
pub fn create_topic_on(kafka: &Kafka, topic: &str, brokers: &[&[i32]]) {
    let new = NewTopic::new(topic, brokers.len() as i32, TopicReplication::Variable(brokers));
    let results = block_on(admin(kafka).create_topics([&new], &admin_options())).expect("the broker answers");
    results.into_iter().for_each(|result| {
        result.unwrap_or_else(|error| panic!("topic `{topic}` isn't created: {error:?}"));
    });
}

/// Makes a group that commits nothing: the broker has its topic of groups then.
pub fn join_group(kafka: &Kafka, group: &str) {
    let consumer: BaseConsumer = config(kafka).set("group.id", group).create().expect("a consumer");
    let mut asked = TopicPartitionList::new();
    asked.add_partition("any", 0);
    let known = setup::wait_until(LIMIT, || consumer.committed_offsets(asked.clone(), LIMIT).is_ok());
    assert!(known, "the broker knows its groups");
}

/// Deletes a topic, and waits until the broker no longer tells of it.
pub fn delete_topic(kafka: &Kafka, topic: &str) {
    block_on(admin(kafka).delete_topics(&[topic], &admin_options())).expect("the broker answers");
    let looker: BaseConsumer = config(kafka).create().expect("a consumer");
    let gone = setup::wait_until(LIMIT, || {
        let all = looker.fetch_metadata(None, LIMIT).expect("the broker lists its topics");
        all.topics().iter().all(|found| found.name() != topic)
    });
    assert!(gone, "topic `{topic}` is still told of");
}

/// Deletes the records of one partition below `before`, as retention does; open transactions don't hold it back.
pub fn delete_records(kafka: &Kafka, topic: &str, partition: i32, before: i64) {
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset(topic, partition, Offset::Offset(before))
        .expect("a valid offset");
    let done = block_on(admin(kafka).delete_records(&offsets, &admin_options())).expect("the broker answers");
    done.elements().iter().for_each(|element| {
        element
            .error()
            .unwrap_or_else(|error| panic!("records of `{topic}` aren't deleted: {error:?}"));
    });
}

/// The client ids of the members of a consumer group; none where nobody is in it or it doesn't exist.
pub fn group_members(kafka: &Kafka, group: &str) -> Vec<String> {
    let consumer: BaseConsumer = config(kafka).create().expect("a consumer");
    let groups = consumer
        .fetch_group_list(Some(group), LIMIT)
        .expect("the broker lists its groups");
    let members = groups.groups().iter().flat_map(|group| group.members());
    members.map(|member| member.client_id().to_owned()).collect()
}

/// The names of all consumer groups that ever stored anything or have members.
pub fn groups(kafka: &Kafka) -> Vec<String> {
    let consumer: BaseConsumer = config(kafka).create().expect("a consumer");
    let groups = consumer
        .fetch_group_list(None, LIMIT)
        .expect("the broker lists its groups");
    groups.groups().iter().map(|group| group.name().to_owned()).collect()
}

/// Raises the number of partitions to `count`, and waits until the broker tells of them: a record for one that isn't known is
/// thrown away.
pub fn add_partitions(kafka: &Kafka, topic: &str, count: usize) {
    let more = NewPartitions::new(topic, count);
    block_on(admin(kafka).create_partitions([&more], &admin_options())).expect("the broker answers");
    let looker: BaseConsumer = config(kafka).create().expect("a consumer");
    let known = setup::wait_until(LIMIT, || partitions(&looker, topic).len() == count);
    assert!(known, "topic `{topic}` has no {count} partitions");
}

/// Produces records in batches that are packed with `codec`, and waits until the broker has them all.
pub fn produce_packed(kafka: &Kafka, topic: &str, codec: &str, records: impl IntoIterator<Item = Record>) {
    let mut settings = config(kafka);
    settings
        .set("linger.ms", "200")
        .set("compression.type", codec)
        .set("message.max.bytes", "200000000")
        .set("queue.buffering.max.kbytes", "400000");
    produce_with(&settings, topic, records);
}

/// Produces records and waits until the broker has them all.
pub fn produce(kafka: &Kafka, topic: &str, records: impl IntoIterator<Item = Record>) {
    let mut settings = config(kafka);
    settings
        .set("linger.ms", "20")
        .set("enable.idempotence", "true")
        .set("message.max.bytes", "20000000");
    produce_with(&settings, topic, records);
}

fn produce_with(settings: &ClientConfig, topic: &str, records: impl IntoIterator<Item = Record>) {
    let producer: BaseProducer = settings.create().expect("a producer");
    send_all(&producer, topic, records);
    producer.flush(LIMIT).expect("the broker takes all");
}

fn send_all(producer: &BaseProducer, topic: &str, records: impl IntoIterator<Item = Record>) {
    for record in records {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header {
                key,
                value: value.as_ref(),
            });
        }
        let mut message = BaseRecord::<Vec<u8>, Vec<u8>>::to(topic).headers(headers);
        message.partition = record.partition;
        message.key = record.key.as_ref();
        message.payload = record.value.as_ref();
        message.timestamp = record.timestamp_ms;
        while let Err((error, same)) = producer.send(message) {
            let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            assert_eq!(error, full, "a record for `{topic}` isn't taken");
            producer.poll(Duration::from_millis(100));
            message = same;
        }
    }
}

/// A Kafka transaction; dropped unfinished, it stays open as that of a crashed producer does.
pub struct Transaction {
    producer: BaseProducer,
}

impl Transaction {
    /// Begins one; beginning another of the same `id` ends this one from outside (it fences the producer).
    pub fn begin(kafka: &Kafka, id: &str) -> Self {
        let producer: BaseProducer = config(kafka)
            .set("transactional.id", id)
            .set("transaction.timeout.ms", "600000")
            .create()
            .expect("a producer");
        producer
            .init_transactions(LIMIT)
            .expect("the broker starts transactions");
        producer.begin_transaction().expect("a new producer has no transaction");
        Self { producer }
    }

    /// Produces records into it and waits until the broker has them all.
    pub fn send(&self, topic: &str, records: impl IntoIterator<Item = Record>) {
        send_all(&self.producer, topic, records);
        self.producer.flush(LIMIT).expect("the broker takes all");
    }

    /// Commits it: readers see its records.
    pub fn commit(self) {
        self.producer
            .commit_transaction(LIMIT)
            .expect("the transaction commits");
    }

    /// Aborts it: `read_committed` readers never see its records.
    pub fn abort(self) {
        self.producer.abort_transaction(LIMIT).expect("the transaction aborts");
    }
}

fn consumer(kafka: &Kafka, isolation: &str) -> BaseConsumer {
    config(kafka)
        .set("group.id", "e2e-truth")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation)
        .set("auto.offset.reset", "error")
        .create()
        .expect("a consumer")
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> Vec<i32> {
    let metadata = consumer
        .fetch_metadata(Some(topic), LIMIT)
        .expect("the broker describes its topic");
    metadata.topics()[0]
        .partitions()
        .iter()
        .map(|partition| partition.id())
        .collect()
}

/// The end offsets (next to be written) of every partition.
pub fn ends(kafka: &Kafka, topic: &str) -> BTreeMap<i32, i64> {
    let consumer = consumer(kafka, "read_uncommitted");
    let end = |partition| {
        consumer
            .fetch_watermarks(topic, partition, LIMIT)
            .expect("the broker knows its ends")
            .1
    };
    partitions(&consumer, topic)
        .into_iter()
        .map(|partition| (partition, end(partition)))
        .collect()
}

/// Everything that is in the topic now, as a `read_committed` or `read_uncommitted` consumer sees it; per partition in
/// offset order, the partitions one after the other.
pub fn read_all(kafka: &Kafka, topic: &str, isolation: &str) -> Vec<Read> {
    let consumer = consumer(kafka, isolation);
    let mut open: BTreeSet<i32> = partitions(&consumer, topic).into_iter().collect();
    let mut all = TopicPartitionList::new();
    for partition in &open {
        all.add_partition_offset(topic, *partition, Offset::Beginning)
            .expect("a valid offset");
    }
    consumer.assign(&all).expect("partitions can be assigned");
    let mut records = Vec::new();
    while !open.is_empty() {
        match consumer
            .poll(LIMIT)
            .unwrap_or_else(|| panic!("nothing came from `{topic}` for {LIMIT:?}"))
        {
            Err(KafkaError::PartitionEOF(partition)) => {
                open.remove(&partition);
            }
            Err(error) => panic!("reading `{topic}`: {error}"),
            Ok(message) => records.push(Read {
                partition: message.partition(),
                offset: message.offset(),
                timestamp_ms: message.timestamp().to_millis(),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                headers: message.headers().map_or_else(Vec::new, |headers| {
                    let owned = |header: Header<'_, &[u8]>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
                    headers.iter().map(owned).collect()
                }),
            }),
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}
