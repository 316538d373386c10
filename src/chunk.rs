//! A chunk: consecutive records of one Kafka partition as Arrow columns, as they were fetched.

use arrow::array::{Array, BinaryArray, Int64Array, ListArray};

use crate::offsets::{Offset, OffsetRange, Partition};

/// Consecutive records of one Kafka partition.
///
/// - `range`: the offsets that the chunk accounts for; holes inside (markers, aborted records) are normal.
/// - all columns have one length `n`, ordered by offset; `n` may be 0 where a range holds no record at all.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The Kafka partition.
    pub partition: Partition,
    /// The offsets this chunk accounts for, `[start, end)`.
    pub range: OffsetRange,
    /// `(n,)`, no nulls, strictly ascending, each inside `range`.
    pub offsets: Int64Array,
    /// `(n,)`, milliseconds since the epoch, UTC; null where the record has no timestamp.
    pub timestamps: Int64Array,
    /// `(n,)`, null where the record has no key.
    pub keys: BinaryArray,
    /// `(n,)`, null where the record's value is null (a tombstone).
    pub values: BinaryArray,
    /// `(n,)` of `list<struct<key: utf8, value: binary?>>`, order and repeats kept; `None` if no record has any.
    pub headers: Option<ListArray>,
}

impl Chunk {
    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Says whether the chunk only moves the position.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Returns the offset of the record in row `index`.
    ///
    /// # Panics
    /// If `index` isn't below [`Chunk::len`].
    pub fn offset(&self, index: usize) -> Offset {
        Offset::new(self.offsets.value(index))
    }

    /// Returns the timestamp of the record in row `index`, in milliseconds, if it has one.
    pub fn timestamp_ms(&self, index: usize) -> Option<i64> {
        self.timestamps.is_valid(index).then(|| self.timestamps.value(index))
    }
}
