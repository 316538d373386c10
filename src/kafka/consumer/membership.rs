//! Membership of the group: the callbacks that say who came and who must leave, and what is done before they leave.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError as Cause, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{info, warn};

use super::state::{Phase, Reading, State};
use super::{Command, KafkaEvent};
use crate::kafka::config;
use crate::kafka::fetch_size::Received;
use crate::kafka::meter::Meter;
use crate::kafka::positions;
use crate::offsets::{Offsets, Partition};

/// How long a revoke waits for the caller; below it, `max.poll.interval.ms` (5 min) would put us out of the group.
const REVOKE_WAIT: Duration = Duration::from_secs(30);

/// Follows the group's rebalances.
///
/// Mutexes, since rdkafka hands callbacks a shared reference. The callbacks run inside `poll` on the one thread that
/// also holds the locks elsewhere, never across a poll: nobody ever waits for them.
pub(super) struct Membership {
    topic: String,
    meter: Arc<Meter>,
    events: UnboundedSender<KafkaEvent>,
    pub(super) state: Mutex<State>,
    inbox: Mutex<Inbox>,
}

struct Inbox {
    receiver: mpsc::Receiver<Command>,
    /// Commands met while a revoke looked for group commits, in order.
    kept: VecDeque<Command>,
}

pub(super) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        config::log(level, facility, line);
    }

    /// Keeps the words; the code comes back from the poll that calls this.
    fn error(&self, _error: Cause, reason: &str) {
        reason.clone_into(&mut held(&self.state).reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        held(&self.state).received = Received::parse(statistics);
    }
}

impl ConsumerContext for Membership {
    fn rebalance(&self, client: &BaseConsumer<Self>, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let mut partitions: Vec<Partition> = partitions
            .elements_for_topic(&self.topic)
            .iter()
            .map(|element| Partition(element.partition()))
            .collect();
        partitions.sort_unstable();
        self.meter.rebalanced();
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assigned(client, partitions);
        } else {
            self.revoked(client, partitions);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            warn!(%error, topic = %self.topic, "group offsets weren't committed");
        }
    }
}

impl Membership {
    pub(super) fn new(
        topic: String,
        meter: Arc<Meter>,
        events: UnboundedSender<KafkaEvent>,
        receiver: mpsc::Receiver<Command>,
    ) -> Self {
        Membership {
            topic,
            meter,
            events,
            state: Mutex::new(State::default()),
            inbox: Mutex::new(Inbox {
                receiver,
                kept: VecDeque::new(),
            }),
        }
    }

    /// Takes the oldest command that nobody has obeyed yet; never waits for one.
    pub(super) fn next_command(&self) -> Result<Command, mpsc::TryRecvError> {
        let mut inbox = held(&self.inbox);
        inbox.kept.pop_front().map_or_else(|| inbox.receiver.try_recv(), Ok)
    }

    fn assigned(&self, client: &BaseConsumer<Self>, partitions: Vec<Partition>) {
        // An empty assignment ends the rebalance; the partitions follow when it is known where to begin.
        self.expect_done(client.incremental_assign(&TopicPartitionList::new()));
        let mut state = held(&self.state);
        state.seek_where_read();
        state.generation += 1;
        let generation = state.generation;
        for partition in &partitions {
            state.partitions.insert(
                *partition,
                Reading {
                    generation,
                    epoch: 0,
                    phase: Phase::Waiting,
                },
            );
        }
        drop(state);
        info!(topic = %self.topic, generation, ?partitions, "partitions assigned");
        self.emit(KafkaEvent::Assigned { generation, partitions });
    }

    fn revoked(&self, client: &BaseConsumer<Self>, partitions: Vec<Partition>) {
        let lost = client.assignment_lost();
        info!(topic = %self.topic, ?partitions, lost, "partitions revoked");
        if !held(&self.state).stopping {
            let (ack, answer) = mpsc::sync_channel(1);
            self.emit(KafkaEvent::Revoked {
                partitions: partitions.clone(),
                lost,
                ack,
            });
            if answer.recv_timeout(REVOKE_WAIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                warn!(topic = %self.topic, ?partitions, "nobody answered a revoke; the partitions leave all the same");
            }
            self.commit_before_leaving(client);
        }
        let mut state = held(&self.state);
        let mut leaving = TopicPartitionList::new();
        for partition in partitions {
            let known = state.partitions.remove(&partition);
            if known.is_some_and(|reading| !matches!(reading.phase, Phase::Waiting)) {
                leaving.add_partition(&self.topic, partition.0);
            }
        }
        state.seek_where_read();
        drop(state);
        self.expect_done(client.incremental_unassign(&leaving));
    }

    /// Does the group commits that were sent before the revoke was acknowledged, while the partitions are still ours.
    fn commit_before_leaving(&self, client: &BaseConsumer<Self>) {
        let mut inbox = held(&self.inbox);
        while let Ok(command) = inbox.receiver.try_recv() {
            match command {
                Command::CommitGroup(offsets) => self.commit(client, &offsets),
                other => inbox.kept.push_back(other),
            }
        }
    }

    pub(super) fn commit(&self, client: &BaseConsumer<Self>, offsets: &Offsets) {
        let state = held(&self.state);
        let ours = offsets
            .iter()
            .filter(|(partition, _)| state.partitions.contains_key(partition));
        let list = positions::list(&self.topic, ours.map(|(partition, at)| (partition, at.into())));
        drop(state);
        if list.count() > 0
            && let Err(error) = client.commit(&list, CommitMode::Async)
        {
            warn!(%error, topic = %self.topic, "group offsets weren't committed");
        }
    }

    fn expect_done(&self, result: KafkaResult<()>) {
        if let Err(error) = result {
            self.emit(KafkaEvent::Failed {
                error: format!("the assignment couldn't be changed: {error}"),
            });
        }
    }

    pub(super) fn emit(&self, event: KafkaEvent) {
        // Nobody listens any more only when the run is over; `Stop` follows.
        let _ = self.events.send(event);
    }
}
