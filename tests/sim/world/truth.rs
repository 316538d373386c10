//! What is true of a snapshot.

use std::collections::{BTreeMap, BTreeSet};

use aperio::offsets::{LeaderEpoch, Offset, Offsets, Partition, Position, RecordAt};

use crate::fates::Fates;
use crate::store::Bytes;
use crate::world::{At, Log};

/// What is true of one snapshot, whatever its metadata say.
#[derive(Clone, Default)]
pub(super) struct Truth {
    /// The sum of the ranges that are in it.
    pub(super) offsets: Offsets,
    /// The leader epochs of the last records of these.
    pub(super) lineage: BTreeMap<Partition, LeaderEpoch>,
    /// Those of them that the ledger holds: not where a person put it.
    pub(super) leader_epochs: BTreeMap<Partition, LeaderEpoch>,
    /// Its data files.
    pub(super) files: BTreeMap<String, Bytes>,
    /// The records in them, and how often.
    pub(super) visible: BTreeMap<At, u32>,
    /// What became of the records that were read.
    pub(super) fates: Fates,
    /// Those of them whose letters are to be taken back, as the ledger has them.
    pub(super) stale: BTreeSet<RecordAt>,
    /// What persons announced when they moved offsets: how much more or less often than once a record is there.
    pub(super) owed: BTreeMap<At, i32>,
    /// Rows are in it twice or without their offsets, by somebody's cherry-pick.
    pub(super) spoiled: bool,
}

impl Truth {
    /// Where a log still is what was read of it, at most where the table is. Rows of records that it lost stay, and are read
    /// no more.
    pub(super) fn go_back(&mut self, partition: Partition, log: &Log) -> Offset {
        let held = Position {
            offset: self.offsets.get(partition).unwrap_or(Offset::ZERO),
            leader_epoch: self.lineage.get(&partition).copied(),
        };
        let same = log.diverged(held).unwrap_or(held.offset);
        for offset in same.get()..held.offset.get() {
            let (at, last) = (Offset::new(offset), held.leader_epoch.expect("it diverged"));
            *self.owed.entry((partition, at, log.lineage(at, last))).or_default() += 1;
        }
        same
    }

    /// A person puts a partition to this offset of the log as it is.
    pub(super) fn place(&mut self, partition: Partition, at: Offset, log: &Log) {
        self.offsets.set(partition, at);
        self.leader_epochs.remove(&partition);
        match log.position(at).leader_epoch {
            Some(epoch) => self.lineage.insert(partition, epoch),
            None => self.lineage.remove(&partition),
        };
    }
}
