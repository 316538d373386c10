//! Windows while they fill, and what closes them.

use std::collections::BTreeSet;
use std::fmt;

use crate::offsets::{OffsetRange, OffsetRanges, Partition};
use crate::table::{Tally, WindowId};
use crate::units::Millis;

/// Rejects from which a share of them counts; below, one bad record in a quiet topic would stop it.
const REJECTS_TO_COUNT: u64 = 10;

/// The window that takes chunks now.
#[derive(Debug)]
pub struct Filling {
    /// Its name.
    pub id: WindowId,
    /// When its first chunk came.
    pub opened_at: Millis,
    /// What it covers so far.
    pub ranges: OffsetRanges,
    /// Records in it.
    pub records: u64,
}

impl Filling {
    pub(super) fn open(id: WindowId, now: Millis) -> Self {
        Filling {
            id,
            opened_at: now,
            ranges: OffsetRanges::default(),
            records: 0,
        }
    }

    pub(super) fn add(&mut self, partition: Partition, range: OffsetRange, records: u64) {
        self.ranges
            .extend(partition, range)
            .expect("a chunk is taken only at its partition's position");
        self.records += records;
    }

    pub(super) fn touches(&self, partitions: &BTreeSet<Partition>) -> bool {
        self.ranges.iter().any(|(partition, _)| partitions.contains(&partition))
    }
}

/// Why a window closed; reported by its lower-case name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealReason {
    /// It reached `batchSize`.
    Size,
    /// It reached the age `batchWindow`.
    Age,
    /// Its dead letters hold as much memory as they may.
    Memory,
    /// The run has read the ends.
    End,
    /// Its partitions are being taken away.
    Revoke,
    /// The run is asked to stop.
    Stop,
}

impl fmt::Display for SealReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SealReason::Size => "size",
            SealReason::Age => "age",
            SealReason::Memory => "memory",
            SealReason::End => "end",
            SealReason::Revoke => "revoke",
            SealReason::Stop => "stop",
        })
    }
}

/// `errors.maxRejected`: how many rejects one window may hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RejectLimit {
    /// A share of the window's records, `0.0..=1.0`, from ten rejects on.
    Share(f64),
    /// A count.
    Count(u64),
}

impl RejectLimit {
    /// Says whether a window holds more rejects than allowed.
    pub fn exceeded(self, tally: Tally) -> bool {
        match self {
            RejectLimit::Count(most) => tally.rejected > most,
            RejectLimit::Share(share) => {
                tally.rejected >= REJECTS_TO_COUNT && tally.rejected as f64 > share * tally.records as f64
            }
        }
    }
}

impl fmt::Display for RejectLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RejectLimit::Share(share) => write!(f, "{} %", share * 100.0),
            RejectLimit::Count(most) => write!(f, "{most}"),
        }
    }
}
