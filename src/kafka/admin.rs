//! Questions to the brokers about a topic. All of it blocks: call it where blocking is allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError as Cause, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::metadata::Metadata;
use rdkafka::{Message, Offset as Logical, TopicPartitionList};

use crate::kafka::batch::{Entry, FetchQueue, Record, limit_fetch};
use crate::kafka::config::{self, LogContext, ReasonContext};
use crate::kafka::error::{KafkaError, Kind, kind};
use crate::kafka::{positions, topic_id};
use crate::offsets::{LeaderEpoch, Offset, Offsets, Partition, Position};
use crate::units::Millis;

/// Group of the reader of samples. It is never joined and nothing is committed for it; librdkafka wants one to assign.
const SAMPLE_GROUP: &str = "aperio-samples";

/// What one fetch of a look asks for: nobody knows yet what it becomes once it is unpacked.
const LOOK_BYTES: usize = 4 << 10;

/// Events looked at for the reason why a question wasn't answered: brokers that are tried in turn each leave a few, and
/// as many lines of the log.
const REASONS_MAX: usize = 200;

/// Partitions whose logs are compared at a time.
const COMPARED_MAX: usize = 100;

/// What one fetch of a comparison asks for: whatever comes is an answer.
const COMPARED_BYTES: usize = 32 << 10;

/// How long one look for answers of a comparison waits.
const COMPARE_ROUND: Duration = Duration::from_millis(50);

/// A client for questions; it joins no group.
pub struct Admin {
    brokers: String,
    read_committed: bool,
    properties: BTreeMap<String, String>,
    client: BaseConsumer<ReasonContext>,
    timeout: Duration,
}

impl Admin {
    /// Makes the client; connecting is left to the first question.
    ///
    /// - `read_committed`: whether a partition ends at its last stable offset, or at its last record.
    /// - `timeout`: how long one question may take.
    ///
    /// # Errors
    /// [`KafkaError::Configuration`] if librdkafka refuses a property.
    pub fn new(
        brokers: &str,
        read_committed: bool,
        properties: &BTreeMap<String, String>,
        timeout: Duration,
    ) -> Result<Admin, KafkaError> {
        let client = config::consumer(brokers, read_committed, properties, None)
            .create_with_context(ReasonContext::default())
            .map_err(|cause| KafkaError::of("connecting", "", &cause))?;
        Ok(Admin {
            brokers: brokers.to_owned(),
            read_committed,
            properties: properties.clone(),
            client,
            timeout,
        })
    }

    /// Returns the id of the cluster that `topic` was asked for in; `None` from brokers that have none.
    ///
    /// # Errors
    /// [`KafkaError::Unreachable`] and [`KafkaError::Refused`] if no broker would say.
    pub fn cluster_id(&self, topic: &str) -> Result<Option<String>, KafkaError> {
        // `rd_kafka_clusterid` doesn't tell a broker without an id from none at all; metadata does, and that of one topic
        // is small.
        self.metadata("reading the cluster's id", Some(topic))?;
        Ok(self.client.client().fetch_cluster_id(self.timeout))
    }

    /// Asks for the metadata of one topic, or of all.
    fn metadata(&self, doing: &str, topic: Option<&str>) -> Result<Metadata, KafkaError> {
        // What happened to connections before doesn't explain this answer.
        self.reason();
        self.client
            .fetch_metadata(topic, self.timeout)
            .map_err(|cause| self.error(doing, topic.unwrap_or_default(), &cause))
    }

    /// Sorts the cause of a question that wasn't answered, by what the client was told meanwhile.
    fn error(&self, doing: &str, topic: &str, cause: &Cause) -> KafkaError {
        match (KafkaError::of(doing, topic, cause), self.reason()) {
            (KafkaError::Unreachable { doing, .. }, Some((code, reason))) if kind(code) == Kind::Refused => {
                KafkaError::Refused { doing, reason }
            }
            (KafkaError::Unreachable { doing, .. }, Some((_, reason))) => KafkaError::Unreachable { doing, reason },
            (error, _) => error,
        }
    }

    /// Takes the last error that the client was told of since this was asked before.
    fn reason(&self) -> Option<(RDKafkaErrorCode, String)> {
        for _ in 0..REASONS_MAX {
            // Not until it returns nothing: it does that for a line of the log too, with errors still behind it.
            let _ = self.client.poll(Duration::ZERO);
        }
        self.client.context().take()
    }

    /// Returns the id of `topic`, which is another one after it was deleted and created again; `None` from brokers
    /// that have none, or name no controller to ask.
    ///
    /// # Errors
    /// As the broker answered; [`KafkaError::TopicMissing`] among them.
    pub fn topic_id(&self, topic: &str) -> Result<Option<String>, KafkaError> {
        // Also makes sure that a broker is reached and the topic is there: what follows then says only one thing.
        self.partitions(topic)?;
        let metadata = self.metadata(&format!("describing `{topic}`"), Some(topic))?;
        let brokers: Vec<i32> = metadata.brokers().iter().map(|broker| broker.id()).collect();
        // SAFETY: `self.client` lives for the whole call, and with it the pointer.
        let answer = unsafe { topic_id::describe(self.client.client().native_ptr(), topic, &brokers, self.timeout) };
        answer.map_err(|(code, reason)| KafkaError::of_code(&format!("describing `{topic}`"), topic, code, reason))
    }

    /// Lists the names of all topics that may be seen, ascending, Kafka's own left out.
    ///
    /// # Errors
    /// [`KafkaError::Unreachable`] and [`KafkaError::Refused`].
    pub fn topics(&self) -> Result<Vec<String>, KafkaError> {
        let metadata = self.metadata("listing topics", None)?;
        let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with("__")).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Lists the partitions of `topic`, ascending.
    ///
    /// # Errors
    /// [`KafkaError::TopicMissing`] if there is no such topic.
    pub fn partitions(&self, topic: &str) -> Result<Vec<Partition>, KafkaError> {
        let doing = format!("listing the partitions of `{topic}`");
        let metadata = self.metadata(&doing, Some(topic))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Err(KafkaError::TopicMissing {
                topic: topic.to_owned(),
            });
        };
        if let Some(error) = found.error() {
            let code = RDKafkaErrorCode::from(error);
            return Err(KafkaError::of_code(&doing, topic, code, code.to_string()));
        }
        let mut partitions: Vec<Partition> = found.partitions().iter().map(|found| Partition(found.id())).collect();
        if partitions.is_empty() {
            return Err(KafkaError::TopicMissing {
                topic: topic.to_owned(),
            });
        }
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// Returns the end of each partition: the last stable offset with `read_committed`, so that a run which must reach
    /// it doesn't wait for an open transaction.
    ///
    /// # Errors
    /// As the brokers answered, for any of the partitions.
    pub fn ends(&self, topic: &str) -> Result<Offsets, KafkaError> {
        Ok(self.ends_and_leaders(topic)?.0)
    }

    /// Returns the end of each partition, as [`Admin::ends`], and the epoch of its leader of now, where brokers tell it.
    ///
    /// # Errors
    /// As the brokers answered, for any of the partitions.
    pub fn ends_and_leaders(&self, topic: &str) -> Result<(Offsets, BTreeMap<Partition, LeaderEpoch>), KafkaError> {
        let (found, leaders) = self.look_up(topic, Logical::End, "ends")?;
        let ends = found.into_iter().map(|(partition, at)| Ok((partition, at?)));
        // What the answer about an end is under is the leader's own epoch (Kafka 4.3 `Partition.scala`, `fetchOffsetForTimestamp`).
        Ok((ends.collect::<Result<_, _>>()?, leaders))
    }

    /// Compares positions with the log: finds those that mean other records now, since the log was truncated before them and
    /// grew again.
    ///
    /// - `positions`: with the epoch that each was read under; those without one aren't compared.
    /// - returns for each such partition the offset up to which its log is what it was; `None` where no epoch of the log is as
    ///   old.
    ///
    /// librdkafka has no such question, so a client that is in no group is sought there and compares by itself: it tells what
    /// doesn't agree, and hands over a record or an end where all does. That takes one fetch.
    ///
    /// # Errors
    /// As the brokers answered; [`KafkaError::Unreachable`] if not all did in time.
    pub fn diverged(
        &self,
        topic: &str,
        positions: &BTreeMap<Partition, Position>,
    ) -> Result<BTreeMap<Partition, Option<Offset>>, KafkaError> {
        let compared = positions
            .iter()
            .filter(|(_, at)| at.leader_epoch.is_some() && at.offset > Offset::ZERO);
        let compared: Vec<_> = compared.map(|(partition, at)| (*partition, *at)).collect();
        let mut diverged = BTreeMap::new();
        for some in compared.chunks(COMPARED_MAX) {
            diverged.append(&mut self.compare(topic, some)?);
        }
        Ok(diverged)
    }

    fn compare(
        &self,
        topic: &str,
        positions: &[(Partition, Position)],
    ) -> Result<BTreeMap<Partition, Option<Offset>>, KafkaError> {
        let doing = format!("comparing the log of `{topic}` with what was read of it");
        let failed = |cause: Cause| KafkaError::of(&doing, topic, &cause);
        let deadline = Instant::now() + self.timeout;
        let mut config = config::consumer(&self.brokers, false, &self.properties, Some(SAMPLE_GROUP));
        // One batch of each is enough, and an end is told at once.
        config
            .remove("max.partition.fetch.bytes")
            .set("fetch.message.max.bytes", "65536")
            .set("queued.min.messages", "1")
            // An entry of one partition holds up the fetches of all.
            .set("fetch.queue.backoff.ms", "1")
            .set("fetch.wait.max.ms", "10");
        let client: BaseConsumer<LogContext> = config.create_with_context(LogContext).map_err(failed)?;
        let list = positions::list(topic, positions.iter().copied());
        client.assign(&list).map_err(failed)?;
        limit_fetch(&client, COMPARED_BYTES);
        let mut queue = FetchQueue::new(Arc::new(client), COMPARED_MAX, usize::MAX);
        let late = |reason: &str| KafkaError::Unreachable {
            doing: doing.clone(),
            reason: reason.to_owned(),
        };
        let mut reason = "no answer in time".to_owned();
        // What is assigned is fetched without a question; only a seek compares, and it makes stale what came before it. It is
        // refused while the partition is still being started.
        let mut unsought: BTreeMap<Partition, Position> = positions.iter().copied().collect();
        let mut unanswered: BTreeSet<Partition> = unsought.keys().copied().collect();
        let mut diverged = BTreeMap::new();
        while !unanswered.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(late(&reason));
            }
            // Callbacks and errors of the client itself.
            if let Some(Err(error)) = queue.consumer().poll(Duration::ZERO) {
                reason = error.to_string();
            }
            if !unsought.is_empty() {
                unsought.keys().for_each(|partition| {
                    queue.divert(topic, *partition);
                });
                let list = positions::list(topic, unsought.clone());
                if let Ok(sought) = queue.consumer().seek_partitions(list, left) {
                    for element in sought.elements().iter().filter(|element| element.error().is_ok()) {
                        unsought.remove(&Partition(element.partition()));
                    }
                }
            }
            let open = unanswered.clone();
            queue.drain(COMPARE_ROUND, |entry| match entry {
                Entry::Record(record) => drop(unanswered.remove(&record.partition())),
                Entry::End { partition, .. } => drop(unanswered.remove(&partition)),
                Entry::Error {
                    partition,
                    code,
                    reason: words,
                    ..
                } => match (code, agrees_to(&words)) {
                    (RDKafkaErrorCode::AutoOffsetReset, Some(at)) => {
                        unanswered.remove(&partition);
                        diverged.insert(partition, at);
                    }
                    // It was compared, or nothing would have been fetched, and what was fetched is damaged.
                    (code, _) if kind(code) == Kind::Damaged => drop(unanswered.remove(&partition)),
                    // It was compared, and may only not be read.
                    (RDKafkaErrorCode::TopicAuthorizationFailed, _) => drop(unanswered.remove(&partition)),
                    _ => reason = words,
                },
            });
            // Whatever came of those that aren't sought yet came before anything was compared.
            unanswered.extend(unsought.keys());
            // Those that have answered would take the place of those that haven't in the next fetches.
            let mut answered = TopicPartitionList::new();
            open.difference(&unanswered).for_each(|partition| {
                answered.add_partition(topic, partition.0);
            });
            if answered.count() > 0 {
                queue.consumer().pause(&answered).map_err(failed)?;
            }
        }
        Ok(diverged)
    }

    /// Returns the end of each partition past which nothing was ever written, open transactions included.
    ///
    /// # Errors
    /// As the brokers answered, for any of the partitions.
    pub fn high_watermarks(&self, topic: &str) -> Result<Offsets, KafkaError> {
        if !self.read_committed {
            return self.ends(topic);
        }
        Admin::new(&self.brokers, false, &self.properties, self.timeout)?.ends(topic)
    }

    /// Returns the first offset that each partition still holds.
    ///
    /// # Errors
    /// As the brokers answered, for any of the partitions.
    pub fn beginnings(&self, topic: &str) -> Result<Offsets, KafkaError> {
        let (found, _) = self.look_up(topic, Logical::Beginning, "beginnings")?;
        found.into_iter().map(|(partition, at)| Ok((partition, at?))).collect()
    }

    /// Returns for each partition the offset of its first record at or after `time`, or its end if there is none.
    ///
    /// # Errors
    /// As the brokers answered, for any of the partitions.
    pub fn offsets_for_time(&self, topic: &str, time: Millis) -> Result<Offsets, KafkaError> {
        // The ends come first: a record that arrives between the two questions is then read, not skipped.
        let mut offsets = self.ends(topic)?;
        let (found, _) = self.look_up(topic, Logical::Offset(time.0.max(0)), "offsets by time")?;
        for (partition, at) in found {
            if let Ok(at) = at {
                offsets.set(partition, at);
            }
        }
        Ok(offsets)
    }

    /// One ListOffsets request to each leader. `rd_kafka_offsets_for_times` passes -1 and -2 on to the broker as they
    /// are, so it answers for end and beginning too, under the client's `isolation.level` (librdkafka 2.12.1,
    /// rdkafka_request.c:929). `Err` inside stands for "no such offset".
    #[expect(clippy::type_complexity, reason = "used in this file only")]
    fn look_up(
        &self,
        topic: &str,
        what: Logical,
        name: &str,
    ) -> Result<
        (
            Vec<(Partition, Result<Offset, KafkaError>)>,
            BTreeMap<Partition, LeaderEpoch>,
        ),
        KafkaError,
    > {
        let doing = format!("reading the {name} of `{topic}`");
        let partitions = self.partitions(topic)?;
        let mut asked = TopicPartitionList::new();
        for partition in &partitions {
            asked
                .add_partition_offset(topic, partition.0, what)
                .map_err(|cause| KafkaError::of(&doing, topic, &cause))?;
        }
        let answer = self
            .client
            .offsets_for_times(asked, self.timeout)
            .map_err(|cause| self.error(&doing, topic, &cause))?;
        let mut found = Vec::with_capacity(partitions.len());
        for element in answer.elements_for_topic(topic) {
            element.error().map_err(|cause| KafkaError::of(&doing, topic, &cause))?;
            let at = match element.offset() {
                Logical::Offset(at) if at >= 0 => Ok(Offset::new(at)),
                other => Err(KafkaError::Failed {
                    doing: doing.clone(),
                    reason: format!("the answer was {other:?}"),
                }),
            };
            found.push((Partition(element.partition()), at));
        }
        Ok((found, positions::leader_epochs(&answer).into_iter().collect()))
    }

    /// Returns what `group` has committed for `topic`; partitions without a commit are left out.
    ///
    /// # Errors
    /// As the group's coordinator answered.
    pub fn group_offsets(&self, group: &str, topic: &str) -> Result<Offsets, KafkaError> {
        let doing = format!("reading the offsets of group `{group}`");
        let mut asked = TopicPartitionList::new();
        for partition in self.partitions(topic)? {
            asked.add_partition(topic, partition.0);
        }
        let client = self.client_of(group)?;
        let answer = client
            .committed_offsets(asked, self.timeout)
            .map_err(|cause| KafkaError::of(&doing, topic, &cause))?;
        let mut offsets = Offsets::default();
        for element in answer.elements_for_topic(topic) {
            element.error().map_err(|cause| KafkaError::of(&doing, topic, &cause))?;
            if let Logical::Offset(at) = element.offset()
                && at >= 0
            {
                offsets.set(Partition(element.partition()), Offset::new(at));
            }
        }
        Ok(offsets)
    }

    /// Counts the members of `group`; none where nobody is in it.
    ///
    /// # Errors
    /// As the brokers answered.
    pub fn group_members(&self, group: &str) -> Result<usize, KafkaError> {
        let listed = self.client.fetch_group_list(Some(group), self.timeout);
        let listed = listed.map_err(|cause| KafkaError::of(&format!("asking about group `{group}`"), "", &cause))?;
        Ok(listed.groups().iter().map(|found| found.members().len()).sum())
    }

    /// Makes a client that may be assigned partitions or ask about `group`; it doesn't join it.
    fn client_of(&self, group: &str) -> Result<BaseConsumer<LogContext>, KafkaError> {
        config::consumer(&self.brokers, self.read_committed, &self.properties, Some(group))
            .create_with_context(LogContext)
            .map_err(|cause| KafkaError::of("connecting", "", &cause))
    }

    /// Makes a client that may be assigned partitions and fetches little at a time, with these properties of its own.
    pub(super) fn reader(&self, own: &BTreeMap<String, String>) -> Result<BaseConsumer<LogContext>, KafkaError> {
        let mut properties = self.properties.clone();
        properties.extend(own.clone());
        let client = config::consumer(&self.brokers, self.read_committed, &properties, Some(SAMPLE_GROUP))
            .create_with_context(LogContext)
            .map_err(|cause| KafkaError::of("connecting", "", &cause))?;
        limit_fetch(&client, LOOK_BYTES);
        Ok(client)
    }

    /// How long one question may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Reads values from every partition, half from its beginning and half before its end; nulls are left out.
    ///
    /// - `per_partition_max`: values of one partition; `bytes_max`: of all together, the last may exceed it.
    /// - Ends early, with what it has, once the timeout is over: a sample is no promise.
    ///
    /// # Errors
    /// As the brokers answered, if they did before anything was read; [`KafkaError::Unreachable`] if nothing came although
    /// there is something, so that no answer at all means an empty topic, or one of nulls.
    pub fn samples(
        &self,
        topic: &str,
        per_partition_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<SampleRecord>, KafkaError> {
        Ok(self.look(topic, bytes_max, |_| per_partition_max)?.records)
    }

    /// Reads records from every partition, half from its beginning and half before its end.
    ///
    /// - `bytes_max`: of keys and values of all together, the last may exceed it; `per_partition_max`: records of one
    ///   partition, given how many partitions there are.
    ///
    /// # Errors
    /// Those of [`Admin::samples`].
    pub fn look(
        &self,
        topic: &str,
        bytes_max: usize,
        per_partition_max: impl Fn(usize) -> usize,
    ) -> Result<Looked, KafkaError> {
        let begins = self.beginnings(topic)?;
        let ends = self.ends(topic)?;
        // A few batches at a time, whatever they become.
        let client = self.reader(&BTreeMap::from([(
            "queued.max.messages.kbytes".to_owned(),
            "1024".to_owned(),
        )]))?;
        let mut sample = Sample {
            client,
            topic,
            deadline: Instant::now() + self.timeout,
            bytes_left: bytes_max,
            records: Vec::new(),
            damaged: None,
        };
        let per_partition_max = per_partition_max(ends.len());
        let early = per_partition_max.div_ceil(2);
        let reached = sample.read(&begins, &ends, early, bytes_max / 2)?;
        let late = per_partition_max - early;
        let mut starts = Offsets::default();
        for (partition, at) in reached.iter() {
            let end = ends.get(partition).unwrap_or(at);
            let back = end.get() - i64::try_from(late).unwrap_or(i64::MAX);
            starts.set(partition, Offset::new(back.max(at.get())));
        }
        sample.read(&starts, &ends, late, 0)?;
        if let (false, Some(damaged)) = (sample.has_values(), sample.damaged) {
            return Err(damaged);
        }
        Ok(Looked {
            records: sample.records,
            begins,
            ends,
        })
    }
}

/// Reads up to where a log is still the same out of what librdkafka says of a truncated one; `None` if it says something
/// else. `Some(None)`: the log knows no epoch that is as old.
///
/// Source: librdkafka 2.12.1, rdkafka_offset.c, `rd_kafka_toppar_handle_OffsetForLeaderEpoch`.
fn agrees_to(words: &str) -> Option<Option<Offset>> {
    let (_, after) = words.split_once("broker end offset is ")?;
    let number: i64 = after.split(' ').next()?.parse().ok()?;
    Some((number >= 0).then(|| Offset::new(number)))
}

/// What was seen of a topic.
#[derive(Debug, Clone)]
pub struct Looked {
    /// Some of its records.
    pub records: Vec<SampleRecord>,
    /// The first offset of each partition.
    pub begins: Offsets,
    /// The end of each partition.
    pub ends: Offsets,
}

/// A record that was read as a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleRecord {
    /// Milliseconds since 1970, UTC; `None` from producers that gave none.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl SampleRecord {
    fn of(record: &BorrowedMessage<'_>) -> SampleRecord {
        let record = Record::of(record);
        let headers = record
            .headers()
            .map(|(name, value)| (name.into_owned(), value.map(<[u8]>::to_vec)));
        SampleRecord {
            timestamp_ms: record.timestamp_ms(),
            headers: headers.collect(),
            key: record.key().map(<[u8]>::to_vec),
            value: record.value().map(<[u8]>::to_vec),
        }
    }

    fn bytes(&self) -> usize {
        let length = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        length(&self.key) + length(&self.value)
    }
}

/// Records that are being read.
struct Sample<'a> {
    client: BaseConsumer<LogContext>,
    topic: &'a str,
    deadline: Instant,
    bytes_left: usize,
    records: Vec<SampleRecord>,
    /// Where reading ended early, since what came isn't what was written.
    damaged: Option<KafkaError>,
}

impl Sample<'_> {
    fn has_values(&self) -> bool {
        self.records.iter().any(|record| record.value.is_some())
    }

    /// Reads up to `records_max` records of each partition, while more than `bytes_kept` bytes are left; returns where
    /// each was left.
    fn read(
        &mut self,
        starts: &Offsets,
        ends: &Offsets,
        records_max: usize,
        bytes_kept: usize,
    ) -> Result<Offsets, KafkaError> {
        let doing = format!("reading samples of `{}`", self.topic);
        let mut reached = starts.clone();
        let mut list = TopicPartitionList::new();
        let mut left: BTreeMap<Partition, usize> = BTreeMap::new();
        for (partition, start) in starts.iter() {
            if records_max > 0 && ends.get(partition).is_some_and(|end| start < end) {
                left.insert(partition, records_max);
                list.add_partition_offset(self.topic, partition.0, Logical::Offset(start.get()))
                    .map_err(|cause| KafkaError::of(&doing, self.topic, &cause))?;
            }
        }
        if left.is_empty() {
            return Ok(reached);
        }
        self.client
            .assign(&list)
            .map_err(|cause| KafkaError::of(&doing, self.topic, &cause))?;
        while !left.is_empty() && self.bytes_left > bytes_kept {
            let wait = self.deadline.saturating_duration_since(Instant::now());
            if wait.is_zero() && !self.has_values() {
                // A topic that has records must not be taken for an empty one.
                return Err(KafkaError::Unreachable {
                    doing,
                    reason: "its records didn't come in time".to_owned(),
                });
            }
            if wait.is_zero() {
                break;
            }
            match self.client.poll(wait) {
                None => {}
                Some(Ok(record)) => {
                    let partition = Partition(record.partition());
                    let Some(wanted) = left.get_mut(&partition) else {
                        continue;
                    };
                    let next = Offset::new(record.offset()).next();
                    reached.set(partition, next);
                    let record = SampleRecord::of(&record);
                    self.bytes_left = self.bytes_left.saturating_sub(record.bytes());
                    self.records.push(record);
                    *wanted -= 1;
                    if *wanted == 0 || ends.get(partition).is_none_or(|end| next >= end) {
                        left.remove(&partition);
                    }
                }
                Some(Err(Cause::PartitionEOF(partition))) => {
                    left.remove(&Partition(partition));
                }
                Some(Err(cause)) => match cause.rdkafka_error_code() {
                    // Rights on the group aren't needed: it is neither joined nor committed to.
                    Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {}
                    // Retention moved on meanwhile; other partitions can still be read.
                    Some(RDKafkaErrorCode::AutoOffsetReset) => {}
                    Some(code) if kind(code) == Kind::Unreachable => {}
                    // librdkafka would tell of it again and again; from the ends, other records are read.
                    Some(code) if kind(code) == Kind::Damaged => {
                        self.damaged = Some(KafkaError::of(&doing, self.topic, &cause));
                        break;
                    }
                    _ if !self.has_values() => return Err(KafkaError::of(&doing, self.topic, &cause)),
                    _ => break,
                },
            }
        }
        self.client
            .unassign()
            .map_err(|cause| KafkaError::of(&doing, self.topic, &cause))?;
        Ok(reached)
    }
}
