//! The topic's log: what stands in it, and what becomes of it.

use aperio::offsets::{LeaderEpoch, Offset, Partition, Position};

/// What stands at one offset of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Row,
    Reject,
    Filtered,
    /// A transaction marker or an aborted record: uses up an offset, is never delivered.
    Hole,
    /// A reject, unless the pipeline file was mended: then a row.
    RowOnceMended,
    /// A reject, unless the pipeline file was mended: then filtered.
    FilteredOnceMended,
}

/// What a process was started with: it decides what records become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipelineFile {
    Broken,
    Mended,
}

impl PipelineFile {
    /// Processes have one and the other in turn: a mended one is rolled back, too.
    pub fn in_turn(process: u128) -> Self {
        if process % 2 == 1 {
            PipelineFile::Broken
        } else {
            PipelineFile::Mended
        }
    }

    pub fn makes(self, entry: Entry) -> Entry {
        match (entry, self) {
            (Entry::RowOnceMended | Entry::FilteredOnceMended, PipelineFile::Broken) => Entry::Reject,
            (Entry::RowOnceMended, PipelineFile::Mended) => Entry::Row,
            (Entry::FilteredOnceMended, PipelineFile::Mended) => Entry::Filtered,
            (entry, _) => entry,
        }
    }
}

/// A record, or what stands in its place: where it is, and the leader epoch that it was written under. A log that is cut and
/// grows again has others at the same offsets.
pub type At = (Partition, Offset, LeaderEpoch);

/// A partition: what stands at each offset, and where each of its leaders began.
#[derive(Debug, Clone)]
pub struct Log {
    pub(super) entries: Vec<(Entry, LeaderEpoch)>,
    pub(super) leaders: Vec<Offset>,
}

impl Log {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        let first = |entry| (entry, LeaderEpoch(0));
        Log {
            entries: entries.into_iter().map(first).collect(),
            leaders: vec![Offset::ZERO],
        }
    }

    pub fn end(&self) -> Offset {
        Offset::new(self.entries.len() as i64)
    }

    pub(super) fn leader(&self) -> LeaderEpoch {
        LeaderEpoch(self.leaders.len() as i32 - 1)
    }

    pub fn entry(&self, offset: i64) -> (Entry, LeaderEpoch) {
        self.entries[offset as usize]
    }

    /// Where a read that goes on at this offset would be: with the epoch of what comes right before it.
    pub fn position(&self, offset: Offset) -> Position {
        let before = offset.get().checked_sub(1).and_then(|at| self.entries.get(at as usize));
        Position {
            offset,
            leader_epoch: before.map(|(_, epoch)| *epoch),
        }
    }

    /// Up to where the log is what it was when it was read up to `position`, if that isn't all: what OffsetsForLeaderEpoch
    /// tells.
    pub fn diverged(&self, position: Position) -> Option<Offset> {
        let held = position.leader_epoch?;
        let end = self.entries.iter().take_while(|(_, epoch)| *epoch <= held).count();
        let end = Offset::new(end as i64);
        (end < position.offset).then_some(end)
    }

    /// The epoch under which the record at `offset` was written, for whoever read on to a record of `last`.
    pub(super) fn lineage(&self, offset: Offset, last: LeaderEpoch) -> LeaderEpoch {
        let upto = &self.leaders[..=last.0 as usize];
        let found = upto.iter().rposition(|begin| *begin <= offset);
        LeaderEpoch(found.expect("the first leader began at the beginning") as i32)
    }
}

/// What the topics hold is alike: at some offsets all have rejects; at some also what is written under the next leader.
pub(super) fn entry(partition: i32, offset: i64, epoch: LeaderEpoch) -> Entry {
    match (offset * 7 + i64::from(partition) * 3 + i64::from(epoch.0) * 4) % 11 {
        3 => Entry::Reject,
        6 => Entry::RowOnceMended,
        7 => Entry::FilteredOnceMended,
        5 => Entry::Filtered,
        8 | 9 => Entry::Hole,
        _ => Entry::Row,
    }
}
