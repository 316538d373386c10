//! The algebra of Kafka offsets.
//!
//! An offset is always the *next to read*; ranges are half-open `[start, end)`. Holes inside a range are normal:
//! compaction, transaction markers and aborted records use up offsets without a record for us.
//!
//! | ledger holds | window brings | outcome of [`Offsets::advance`] |
//! |---|---|---|
//! | a | `[a, b)` | holds b |
//! | a | `[c, d)`, c > a | [`Discontinuity`]: records `[a, c)` would be skipped |
//! | a | `[c, d)`, c < a | [`Discontinuity`]: records `[c, a)` would be doubled |

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A Kafka partition of the pipeline's topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub i32);

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The offset of the next record to read in one partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(i64);

impl Offset {
    /// The offset of a topic's very first record.
    pub const ZERO: Offset = Offset(0);

    /// Makes an offset from Kafka's number.
    ///
    /// # Panics
    /// On a negative number: librdkafka's logical offsets (`BEGINNING`, `END`, `INVALID`) are resolved in `kafka/`
    /// and never come this far.
    pub fn new(value: i64) -> Self {
        assert!(value >= 0, "an offset is never negative, got {value}");
        Offset(value)
    }

    /// Returns the number that Kafka knows this offset by.
    pub fn get(self) -> i64 {
        self.0
    }

    /// Returns the offset to read after the record at this one.
    pub fn next(self) -> Offset {
        Offset(self.0 + 1)
    }

    /// Returns how many offsets lie from `earlier` to this, never less than zero.
    pub fn since(self, earlier: Offset) -> u64 {
        (self.0 - earlier.0).max(0).unsigned_abs()
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Counts the leaders that a partition has had: its broker writes the number into each batch of records.
///
/// A log that lost its end, in an unclean election or with a backup, goes on under a greater one. So an offset means the same
/// records as before only if the log still holds the epoch that the record before it was written under up to there.
///
/// Source: KIP-320.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaderEpoch(pub i32);

impl fmt::Debug for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}", self.0)
    }
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where to read a partition, and what makes sure that it still is the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The offset of the next record to read.
    pub offset: Offset,
    /// The epoch of what comes right before it; `None` where that isn't known, so that nothing can be compared.
    pub leader_epoch: Option<LeaderEpoch>,
}

impl From<Offset> for Position {
    fn from(offset: Offset) -> Self {
        Position {
            offset,
            leader_epoch: None,
        }
    }
}

/// Where in its topic one record is.
pub type RecordAt = (Partition, Offset);

/// A run of offsets `[start, end)` in one partition; never empty.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OffsetRange {
    start: Offset,
    end: Offset,
    leader_epoch: Option<LeaderEpoch>,
}

impl OffsetRange {
    /// Makes the range `[start, end)`.
    ///
    /// # Panics
    /// If it is empty or reversed.
    pub fn new(start: Offset, end: Offset) -> Self {
        assert!(start < end, "an offset range is never empty, got [{start}, {end})");
        OffsetRange {
            start,
            end,
            leader_epoch: None,
        }
    }

    /// The same range, with the leader epoch of what comes right before its end, if that is known.
    pub fn under(self, leader_epoch: Option<LeaderEpoch>) -> Self {
        OffsetRange { leader_epoch, ..self }
    }

    /// The leader epoch of what comes right before the end; `None` where it isn't known.
    pub fn leader_epoch(self) -> Option<LeaderEpoch> {
        self.leader_epoch
    }

    /// The first offset in the range.
    pub fn start(self) -> Offset {
        self.start
    }

    /// The offset to resume at.
    pub fn end(self) -> Offset {
        self.end
    }

    /// Returns how many offsets the range covers, holes included.
    pub fn offsets(self) -> u64 {
        self.end.since(self.start)
    }

    /// Says whether `offset` lies inside.
    pub fn contains(self, offset: Offset) -> bool {
        self.start <= offset && offset < self.end
    }
}

impl fmt::Debug for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

/// At most one contiguous range for each partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetRanges(BTreeMap<Partition, OffsetRange>);

impl OffsetRanges {
    /// Appends `range` to what `partition` has so far.
    ///
    /// # Errors
    /// [`Discontinuity`] if the range doesn't start where the partition's range ends; nothing is changed then.
    pub fn extend(&mut self, partition: Partition, range: OffsetRange) -> Result<(), Discontinuity> {
        match self.0.get_mut(&partition) {
            None => {
                self.0.insert(partition, range);
                Ok(())
            }
            Some(held) if held.end == range.start => {
                *held = OffsetRange {
                    start: held.start,
                    ..range
                };
                Ok(())
            }
            Some(held) => Err(Discontinuity {
                partition,
                held: Some(held.end),
                start: range.start,
            }),
        }
    }

    /// Returns the range of `partition`.
    pub fn get(&self, partition: Partition) -> Option<OffsetRange> {
        self.0.get(&partition).copied()
    }

    /// Lists the ranges by ascending partition.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, OffsetRange)> + '_ {
        self.0.iter().map(|(partition, range)| (*partition, *range))
    }

    /// Says whether no partition has a range.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many offsets all the ranges cover, holes included.
    pub fn offsets(&self) -> u64 {
        self.0.values().map(|range| range.offsets()).sum()
    }
}

impl FromIterator<(Partition, OffsetRange)> for OffsetRanges {
    fn from_iter<I: IntoIterator<Item = (Partition, OffsetRange)>>(ranges: I) -> Self {
        OffsetRanges(ranges.into_iter().collect())
    }
}

/// For each partition, the offset to read next.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offsets(BTreeMap<Partition, Offset>);

impl Offsets {
    /// Returns the next offset of `partition`, if it is known.
    pub fn get(&self, partition: Partition) -> Option<Offset> {
        self.0.get(&partition).copied()
    }

    /// Puts `partition` at `offset`, whatever it held.
    pub fn set(&mut self, partition: Partition, offset: Offset) {
        self.0.insert(partition, offset);
    }

    /// Moves past `ranges`, or returns the first mismatch and changes nothing.
    ///
    /// # Errors
    /// [`Discontinuity`] for the first partition, in ascending order, whose offset isn't the start of its range.
    pub fn advance(&mut self, ranges: &OffsetRanges) -> Result<(), Discontinuity> {
        for (partition, range) in ranges.iter() {
            let held = self.get(partition);
            if held != Some(range.start) {
                return Err(Discontinuity {
                    partition,
                    held,
                    start: range.start,
                });
            }
        }
        for (partition, range) in ranges.iter() {
            self.0.insert(partition, range.end);
        }
        Ok(())
    }

    /// Lists partitions and offsets, ascending by partition.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, Offset)> + '_ {
        self.0.iter().map(|(partition, offset)| (*partition, *offset))
    }

    /// Returns the known partitions in ascending order.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + '_ {
        self.0.keys().copied()
    }

    /// Says whether no partition is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many partitions are known.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says whether every partition of `ends` is known here and at or past its end there.
    pub fn reaches(&self, ends: &Offsets) -> bool {
        ends.iter()
            .all(|(partition, end)| self.get(partition).is_some_and(|at| at >= end))
    }
}

impl fmt::Debug for Offsets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter()).finish()
    }
}

impl FromIterator<(Partition, Offset)> for Offsets {
    fn from_iter<I: IntoIterator<Item = (Partition, Offset)>>(offsets: I) -> Self {
        Offsets(offsets.into_iter().collect())
    }
}

/// Two ends that should meet and don't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discontinuity {
    /// Where it was found.
    pub partition: Partition,
    /// The offset that is held, if the partition is known at all.
    pub held: Option<Offset>,
    /// The start of the range that was to follow it.
    pub start: Offset,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: i64, end: i64) -> OffsetRange {
        OffsetRange::new(Offset::new(start), Offset::new(end))
    }

    fn check_advance(start: i64, moved: bool) {
        let mut offsets: Offsets = [(Partition(0), Offset::new(5)), (Partition(1), Offset::new(7))]
            .into_iter()
            .collect();
        let before = offsets.clone();
        let ranges = [(Partition(0), range(5, 6)), (Partition(1), range(start, 20))]
            .into_iter()
            .collect();
        let answer = offsets.advance(&ranges);
        assert_eq!(answer.is_ok(), moved, "start {start}");
        if moved {
            assert_eq!(offsets.get(Partition(1)), Some(Offset::new(20)));
        } else {
            assert_eq!(offsets, before, "a refused advance must change nothing");
        }
    }

    #[test]
    fn an_advance_moves_only_from_the_held_offset() {
        check_advance(6, false);
        check_advance(7, true);
        check_advance(8, false);
    }

    #[test]
    fn an_unknown_partition_is_a_discontinuity() {
        let mut offsets = Offsets::default();
        let ranges = [(Partition(3), range(0, 1))].into_iter().collect();
        let found = offsets.advance(&ranges).expect_err("partition 3 is unknown");
        assert_eq!(
            found,
            Discontinuity {
                partition: Partition(3),
                held: None,
                start: Offset::ZERO
            }
        );
    }

    #[test]
    fn ranges_extend_only_where_they_end() {
        let mut ranges = OffsetRanges::default();
        ranges.extend(Partition(0), range(0, 3)).expect("first");
        ranges.extend(Partition(0), range(3, 9)).expect("adjacent");
        assert!(ranges.extend(Partition(0), range(10, 11)).is_err());
        assert!(ranges.extend(Partition(0), range(8, 11)).is_err());
        assert_eq!(ranges.get(Partition(0)), Some(range(0, 9)));
    }

    #[test]
    #[should_panic(expected = "never empty")]
    fn an_empty_range_is_a_bug() {
        range(4, 4);
    }
}
