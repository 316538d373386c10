//! Fetched records become chunks, one partition each, whose ranges follow one another without a gap.

use std::collections::VecDeque;

use super::state::{Phase, State};
use crate::chunk::Chunk;
use crate::kafka::batch::Record;
use crate::kafka::columns::{Columns, Sizes};
use crate::offsets::{LeaderEpoch, Offset, OffsetRange, Partition, Position};

/// Arrow's binary columns count bytes in 31 bits; one record of up to 1 GiB may come on top.
const CHUNK_BYTES_LIMIT: usize = 512 << 20;

/// Fetched entries on their way into chunks.
pub(super) struct Assembly {
    /// The partitions that are being read, ascending.
    pub(super) open: Vec<Open>,
    /// The one that the last entry was of: records come in runs of one partition.
    current: usize,
    chunk_bytes_max: usize,
    pub(super) sizes: Sizes,
    pub(super) out: VecDeque<Outgoing>,
    /// To be sent after all that was fetched before.
    pub(super) halted: Vec<Outgoing>,
}

/// One partition of an [`Assembly`].
pub(super) struct Open {
    pub(super) partition: Partition,
    generation: u64,
    epoch: u64,
    /// The end of the last chunk that was made.
    pub(super) position: Offset,
    /// The offset after the last record in `columns`; `position` without any.
    end: Offset,
    /// The epoch of what comes right before `end`.
    pub(super) leader_epoch: Option<LeaderEpoch>,
    columns: Option<Columns>,
}

/// Something fetched that hasn't been sent yet.
pub(super) struct Outgoing {
    pub(super) generation: u64,
    pub(super) epoch: u64,
    pub(super) partition: Partition,
    pub(super) what: What,
}

#[expect(
    clippy::large_enum_variant,
    reason = "nearly every one is a chunk: a box would be made for each"
)]
pub(super) enum What {
    Chunk(Chunk, usize),
    Caught(Offset),
    Damaged {
        at: Offset,
        unpackable: bool,
        reason: String,
    },
}

fn opened(state: &State) -> Vec<Open> {
    let reading = state.partitions.iter().filter_map(|(partition, reading)| {
        let Phase::Reading { position } = reading.phase else {
            return None;
        };
        Some(Open {
            partition: *partition,
            generation: reading.generation,
            epoch: reading.epoch,
            position: position.offset,
            end: position.offset,
            leader_epoch: position.leader_epoch,
            columns: None,
        })
    });
    reading.collect()
}

impl Assembly {
    /// Starts with every partition that is being read, and chunks as large as `sizes` says.
    pub(super) fn new(state: &State, chunk_bytes_max: usize, sizes: Sizes) -> Self {
        Assembly {
            open: opened(state),
            current: 0,
            chunk_bytes_max: chunk_bytes_max.clamp(1, CHUNK_BYTES_LIMIT),
            sizes,
            out: VecDeque::new(),
            halted: Vec::new(),
        }
    }

    /// Finds the partition; `None` if what comes of it is stale: it left, or is sought elsewhere.
    fn find(&mut self, partition: Partition) -> Option<usize> {
        if self
            .open
            .get(self.current)
            .is_none_or(|open| open.partition != partition)
        {
            self.current = self.open.binary_search_by_key(&partition, |open| open.partition).ok()?;
        }
        Some(self.current)
    }

    pub(super) fn push(&mut self, record: &Record<'_>) {
        let Some(at) = self.find(record.partition()) else {
            return;
        };
        let open = &mut self.open[at];
        if record.offset() < open.end {
            return; // Stale: fetched before a seek.
        }
        let columns = open.columns.get_or_insert_with(|| Columns::new(self.sizes));
        columns.push(record);
        open.end = record.offset().next();
        open.leader_epoch = record.leader_epoch();
        if columns.bytes() >= self.chunk_bytes_max {
            self.close_one(at, None);
        }
    }

    pub(super) fn end(&mut self, partition: Partition, at: Position) {
        if let Some(index) = self.find(partition) {
            self.close_one(index, Some(at));
        }
    }

    /// Ends a partition at a batch that can't be read: what librdkafka goes on with, behind it, isn't taken.
    pub(super) fn halt(&mut self, partition: Partition, unpackable: bool, reason: String) {
        let Some(index) = self.find(partition) else {
            return; // Stale, or halted already.
        };
        self.close_one(index, None);
        let open = self.open.remove(index);
        self.halted.push(Outgoing {
            generation: open.generation,
            epoch: open.epoch,
            partition,
            what: What::Damaged {
                at: open.position,
                unpackable,
                reason,
            },
        });
    }

    /// Closes the chunk of a partition. At its end the range reaches past markers and aborted records, up to `caught`.
    fn close_one(&mut self, index: usize, caught: Option<Position>) {
        let open = &mut self.open[index];
        let Open {
            partition,
            generation,
            epoch,
            position,
            ..
        } = *open;
        let columns = open.columns.take();
        let caught_at = caught.map(|at| at.offset);
        let end = caught_at.map_or(open.end, |at| at.max(open.end));
        if let Some(at) = caught.filter(|at| at.offset > open.end) {
            // What the markers were written under, which may be a later epoch than that of the last record.
            open.leader_epoch = at.leader_epoch;
        }
        let leader_epoch = open.leader_epoch;
        let outgoing = |what| Outgoing {
            generation,
            epoch,
            partition,
            what,
        };
        if end > position {
            (open.position, open.end) = (end, end);
            let columns = columns.unwrap_or_else(|| Columns::new(Sizes::default()));
            let bytes = columns.bytes();
            if bytes > 0 {
                self.sizes = columns.sizes();
            }
            let chunk = columns.finish(partition, OffsetRange::new(position, end).under(leader_epoch));
            self.out.push_back(outgoing(What::Chunk(chunk, bytes)));
        }
        // An end below the position is stale: it was fetched before a seek.
        if let Some(at) = caught_at.filter(|at| *at >= position) {
            self.out.push_back(outgoing(What::Caught(at)));
        }
    }

    pub(super) fn close(&mut self) {
        (0..self.open.len()).for_each(|index| self.close_one(index, None));
    }
}
