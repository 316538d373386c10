//! `idempotent`: which events a Kafka partition brought of late, so that one that was sent again is known.
//!
//! An event is known by a row with its id, in the table or in a window on its way there, at most so many offsets before. One
//! that was sent again has no row and isn't remembered, so that what is known is the same whether the rows were seen
//! being made or were read from the table after a restart.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::chunk::Chunk;
use crate::decode::Decoded;
use crate::memory::{Held, Memory, Purpose};
use crate::offsets::{Offset, Partition};
use crate::table::WindowId;

/// What an event takes in memory, about: its place among the known ones, and in their order.
const EVENT_BYTES: usize = 100;

/// The events of a pipeline's partitions.
pub(super) struct Horizon {
    /// Offsets for which an event is remembered.
    length: i64,
    /// The memory that all may hold.
    bytes_max: usize,
    window: Option<WindowId>,
    of: HashMap<Partition, Recent>,
    held: Held,
}

/// The events of all partitions don't fit into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{events} events of {partitions} partitions hold {bytes} bytes, and {bytes_max} are for them")]
pub struct TooManyEvents {
    events: usize,
    partitions: usize,
    bytes: usize,
    bytes_max: usize,
}

/// The events of a partition.
#[derive(Default)]
struct Recent {
    /// The offset that comes next.
    next: i64,
    /// Where each event was.
    known: HashMap<EventKey, i64>,
    /// Those from before the window, ascending by offset.
    before: VecDeque<(i64, EventKey)>,
    /// Those of the window, likewise.
    within: VecDeque<(i64, EventKey)>,
    /// Where the window began, and what it overwrote in `known`: it may be dropped.
    began: Option<i64>,
    overwritten: Vec<(EventKey, i64)>,
}

impl Horizon {
    /// Starts without any event.
    ///
    /// - `length`: offsets for which an event is remembered.
    /// - `bytes_max`: the memory that all events may hold.
    pub fn new(length: u64, bytes_max: usize, memory: &Memory) -> Horizon {
        Horizon {
            length: i64::try_from(length).unwrap_or(i64::MAX),
            bytes_max,
            window: None,
            of: HashMap::new(),
            held: memory.hold(Purpose::Files),
        }
    }

    /// Goes on with a window: the one before is sealed.
    pub fn enter(&mut self, window: WindowId) {
        if self.window == Some(window) {
            return;
        }
        self.window = Some(window);
        for recent in self.of.values_mut() {
            recent.before.append(&mut recent.within);
            recent.overwritten.clear();
            recent.began = None;
            recent.forget_before(recent.next.saturating_sub(self.length));
        }
    }

    /// Takes back what a window brought, if it is the one that is open; one that is sealed shows when its records come again.
    pub fn drop_window(&mut self, window: WindowId) {
        if self.window.take_if(|open| *open == window).is_some() {
            self.of.values_mut().for_each(Recent::roll_back);
        }
    }

    /// Says whether all events before an offset of a partition are known, as far as they matter.
    pub fn knows(&self, partition: Partition, start: Offset) -> bool {
        self.of.get(&partition).is_some_and(|recent| recent.next == start.get())
    }

    /// Begins anew with a partition, with the events that the table holds.
    pub fn begin(&mut self, partition: Partition, start: Offset, events: Vec<(Offset, EventKey)>) {
        let mut events: Vec<_> = events.into_iter().map(|(at, key)| (at.get(), key)).collect();
        events.sort_unstable();
        let recent = Recent {
            next: start.get(),
            known: events.iter().map(|(at, key)| (*key, *at)).collect(),
            before: events.into(),
            ..Recent::default()
        };
        self.of.insert(partition, recent);
    }

    /// Takes away the rows of a chunk whose events are known, and remembers the others; returns how many went.
    ///
    /// - `ids`: one for each row; an event without an id is none that could be known.
    ///
    /// # Panics
    /// If nobody said [`Horizon::begin`] of the partition.
    pub fn take(&mut self, chunk: &Chunk, decoded: &mut Decoded, ids: &ArrayRef) -> u64 {
        let length = self.length;
        let mut recent = self.of.remove(&chunk.partition).expect("the partition was begun");
        recent.began.get_or_insert(chunk.range.start().get());
        let options = FormatOptions::new();
        let texts = ArrayFormatter::try_new(ids, &options).expect("every type of a column is shown as text");
        let kept = decoded.indexes.iter().enumerate().map(|(row, index)| {
            if ids.is_null(row) {
                return true;
            }
            let offset = chunk.offset(*index as usize).get();
            let key = event_key(&texts.value(row).to_string());
            recent.is_new(key, offset, length)
        });
        let kept: BooleanArray = kept.map(Some).collect();
        let gone = kept.len() - kept.true_count();
        decoded.keep(&kept);
        self.of.insert(chunk.partition, recent);
        gone as u64
    }

    /// Says that a partition was read up to an offset.
    ///
    /// # Errors
    /// If the events hold more memory than they may.
    pub fn ended(&mut self, partition: Partition, end: Offset) -> Result<(), TooManyEvents> {
        if let Some(recent) = self.of.get_mut(&partition) {
            recent.next = end.get();
        }
        let events: usize = self
            .of
            .values()
            .map(|recent| recent.before.len() + recent.within.len())
            .sum();
        self.held.set(events * EVENT_BYTES);
        match self.held.bytes() <= self.bytes_max {
            true => Ok(()),
            false => Err(TooManyEvents {
                events,
                partitions: self.of.len(),
                bytes: self.held.bytes(),
                bytes_max: self.bytes_max,
            }),
        }
    }

    /// Forgets the event of an offset: its row didn't come to be.
    pub fn forget(&mut self, partition: Partition, offset: Offset) {
        let Some(recent) = self.of.get_mut(&partition) else {
            return;
        };
        let found = recent.within.binary_search_by_key(&offset.get(), |(at, _)| *at);
        if let Some((at, key)) = found.ok().and_then(|place| recent.within.remove(place)) {
            recent.remove(at, key);
        }
    }
}

/// What an event is known by.
pub type EventKey = u128;

/// Returns the key of an id, 128 bits: that two ids of billions have the same is less likely than a fault of the machine.
pub fn event_key(id: &str) -> EventKey {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, id).hash(&mut hasher);
        EventKey::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

impl Recent {
    /// Says whether no event of this id was there within `length` offsets, and remembers it then.
    fn is_new(&mut self, key: EventKey, offset: i64, length: i64) -> bool {
        let oldest = offset.saturating_sub(length);
        match self.known.get(&key) {
            Some(at) if *at >= oldest => return false,
            Some(at) if self.began.is_some_and(|began| *at < began) => self.overwritten.push((key, *at)),
            _ => {}
        }
        self.known.insert(key, offset);
        self.within.push_back((offset, key));
        // Those from before the window are needed again if it is dropped.
        while let Some((at, key)) = self.within.pop_front_if(|(at, _)| *at < oldest) {
            self.remove(at, key);
        }
        true
    }

    fn forget_before(&mut self, oldest: i64) {
        while let Some((at, key)) = self.before.pop_front_if(|(at, _)| *at < oldest) {
            self.remove(at, key);
        }
    }

    fn remove(&mut self, at: i64, key: EventKey) {
        // A later event of the same id stays.
        if self.known.get(&key) == Some(&at) {
            self.known.remove(&key);
        }
    }

    fn roll_back(&mut self) {
        let Some(began) = self.began.take() else { return };
        while let Some((at, key)) = self.within.pop_back() {
            self.remove(at, key);
        }
        self.known.extend(self.overwritten.drain(..));
        self.next = began;
    }
}

#[cfg(test)]
mod tests;
