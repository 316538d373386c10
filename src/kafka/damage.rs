//! How far damage in a partition reaches: where records can be read again behind a batch that isn't what was written.
//!
//! Nobody says it: the length and the last offset of a batch stand in the batch. A broker finds the batch that holds an offset
//! without looking at its records, so an offset is asked for and the first thing that comes tells whether it lies in the
//! damage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset as Logical, TopicPartitionList};

use crate::kafka::admin::Admin;
use crate::kafka::batch::{Entry, FetchQueue};
use crate::kafka::config::LogContext;
use crate::kafka::error::{KafkaError, Kind, kind};
use crate::offsets::{Offset, Partition};

/// Damaged batches that follow one another and are passed in one go; behind more, a run says where the next begins.
const BATCHES_MAX: usize = 16;

/// How long one offset is waited for in one round.
const ROUND: Duration = Duration::from_millis(50);

/// How long one offset is waited for in all, connecting included. librdkafka says nothing at all of some batches when it is asked
/// for an offset in their middle (2.12.1: one of a format that it doesn't know); silence tells nothing.
const OFFSET_WAIT: Duration = Duration::from_secs(10);

/// What was found where reading stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Batches that can't be read.
    Damaged {
        /// The first offset behind them that can be; the partition's end, if nothing behind them can.
        next: Offset,
    },
    /// What is there can be read: it was damaged on its way, or has been mended.
    Whole,
}

/// What a broker gives first from an offset on.
enum First {
    /// A record, or the end.
    Whole,
    /// A batch that can't be read, and its first offset where that is known.
    Damaged(Option<Offset>),
}

impl First {
    /// Says whether the offset that was asked for lies in the batch that begins at `base`.
    ///
    /// Where a broker itself can't get past a batch, no first offset is told, and all behind it is lost with it.
    fn is_of(&self, base: Option<Offset>) -> bool {
        matches!(self, First::Damaged(found) if found.is_none() || *found == base)
    }
}

impl Admin {
    /// Finds out how far the damage reaches that was met when `at` was read. Blocks.
    ///
    /// # Errors
    /// As the brokers answered; [`KafkaError::Unreachable`] if they didn't in time.
    pub fn damage(&self, topic: &str, partition: Partition, at: Offset) -> Result<Found, KafkaError> {
        let doing = format!("looking for what can be read behind offset {at} of `{topic}`");
        let deadline = Instant::now() + self.timeout().saturating_mul(3);
        let end = self.high_watermarks(topic)?.get(partition).unwrap_or(at);
        let first = |offset| self.first(&doing, topic, partition, offset, deadline);
        let mut from = at;
        for _ in 0..BATCHES_MAX {
            let base = match first(from)? {
                First::Damaged(base) => base,
                First::Whole if from == at => return Ok(Found::Whole),
                First::Whole => break,
            };
            if base.is_some_and(|base| base > from) && from > at {
                break; // Records that can be read lie before it.
            }
            // `low` lies in the batch, or before it; `high` behind it.
            let (mut low, mut step) = (base.map_or(from, |base| base.max(from)), 1);
            let mut high = end;
            // Ends: the step doubles, so it passes the end.
            while low.get() + step < end.get() {
                let tried = Offset::new(low.get() + step);
                if !first(tried)?.is_of(base) {
                    high = tried;
                    break;
                }
                (low, step) = (tried, step * 2);
            }
            // Ends: what lies between is halved.
            while high.since(low) > 1 {
                let tried = Offset::new(low.get() + (high.get() - low.get()) / 2);
                if first(tried)?.is_of(base) {
                    low = tried;
                } else {
                    high = tried;
                }
            }
            from = high;
            if from >= end {
                break;
            }
        }
        Ok(Found::Damaged { next: from })
    }

    /// Reads the first that comes from `offset` on, with a client that has read nothing else.
    fn first(
        &self,
        doing: &str,
        topic: &str,
        partition: Partition,
        offset: Offset,
        deadline: Instant,
    ) -> Result<First, KafkaError> {
        let failed = |cause| KafkaError::of(doing, topic, &cause);
        let client: Arc<BaseConsumer<LogContext>> = Arc::new(self.reader(&BTreeMap::new())?);
        let mut queue = FetchQueue::new(Arc::clone(&client), 1, 1);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition.0, Logical::Offset(offset.get()))
            .map_err(failed)?;
        queue.divert(topic, partition);
        client.assign(&list).map_err(failed)?;
        // What came before the partition was known would come past the queue, and is waited for in vain.
        let deadline = deadline.min(Instant::now() + OFFSET_WAIT);
        let mut found = None;
        let mut answered: Option<Result<First, KafkaError>> = None;
        while answered.is_none() && Instant::now() < deadline {
            let _ = client.poll(Duration::ZERO);
            queue.drain(ROUND, |entry| {
                if answered.is_some() {
                    return;
                }
                answered = match entry {
                    Entry::Record(_) | Entry::End { .. } => Some(Ok(First::Whole)),
                    Entry::Error { code, at, reason, .. } => match kind(code) {
                        Kind::Damaged if code == RDKafkaErrorCode::InvalidMessage => Some(Ok(First::Damaged(None))),
                        Kind::Damaged => Some(Ok(First::Damaged(at))),
                        Kind::Unreachable => {
                            found = Some(reason);
                            None
                        }
                        _ => Some(Err(KafkaError::of_code(doing, topic, code, reason))),
                    },
                };
            });
        }
        answered.unwrap_or_else(|| {
            Err(KafkaError::Unreachable {
                doing: doing.to_owned(),
                reason: found.unwrap_or_else(|| "nothing came in time".to_owned()),
            })
        })
    }
}
