//! One dead letter: a record as Kafka had it, with what went wrong.

use arrow::array::{Array, AsArray, BinaryArray};

use super::Reject;
use crate::chunk::Chunk;
use crate::memory::{Held, Memory, Purpose};
use crate::offsets::{Offset, Partition};
use crate::schema::frame;

/// A record that went aside, as it was in Kafka, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The topic's name.
    pub topic: String,
    /// The Kafka partition.
    pub partition: Partition,
    /// The record's offset; with topic and partition the letter's key, stored once.
    pub offset: Offset,
    /// Milliseconds since the epoch, UTC; `None` where the record has none. A time outside the years 1 to 9999 is stored
    /// as null, since most engines fail on it.
    pub timestamp_ms: Option<i64>,
    /// The key's bytes; `None` where the record has no key.
    pub key: Option<Vec<u8>>,
    /// The value's bytes; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers, order and repeats kept; stored as null where there are none.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Where on its way the record failed: [`super::Stage::name`].
    pub stage: &'static str,
    /// Why, for a person.
    pub error: String,
    /// The id of the registry's schema that the value names, where its format has one.
    pub schema_id: Option<i32>,
}

/// Counted for each allocation of a letter: what the allocator adds and rounds up to.
const ALLOCATION_BYTES: usize = 24;

/// The dead letters of a window, and the memory they hold until nobody needs them.
#[derive(Debug)]
pub struct Letters {
    letters: Vec<DeadLetter>,
    held: Held,
}

impl Letters {
    /// Makes none, to be counted in `memory`.
    pub fn new(memory: &Memory) -> Letters {
        Letters {
            letters: Vec::new(),
            held: memory.hold(Purpose::Letters),
        }
    }

    /// Adds letters.
    pub fn extend(&mut self, letters: impl Iterator<Item = DeadLetter>) {
        let before = self.letters.len();
        self.letters.extend(letters);
        let more: usize = self.letters[before..].iter().map(DeadLetter::held_bytes).sum();
        if more > 0 {
            self.held.set(self.held.bytes() + more);
        }
    }

    /// The letters, in the order they came.
    pub fn all(&self) -> &[DeadLetter] {
        &self.letters
    }

    /// The memory they hold, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.held.bytes()
    }
}

/// Cuts letters into steps of at most so many, and of at most so many bytes unless one alone has more.
pub fn steps<'a, 'b>(
    letters: &'b [&'a DeadLetter],
    letters_max: usize,
    bytes_max: usize,
) -> impl Iterator<Item = &'b [&'a DeadLetter]> {
    let mut rest = letters;
    // Ends: each step takes one letter at least.
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |letter: &&&DeadLetter| {
            bytes += letter.held_bytes();
            bytes <= bytes_max
        };
        let count = rest.iter().take(letters_max).take_while(fits).count();
        let (step, after) = rest.split_at(count.max(1).min(rest.len()));
        rest = after;
        (!step.is_empty()).then_some(step)
    })
}

impl DeadLetter {
    /// Returns about how much memory the letter holds, in bytes.
    pub fn held_bytes(&self) -> usize {
        let optional = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, |bytes| bytes.capacity() + ALLOCATION_BYTES);
        let headers = self.headers.iter().map(|(name, value)| {
            size_of::<(String, Option<Vec<u8>>)>() + name.capacity() + ALLOCATION_BYTES + optional(value)
        });
        // Twice its own size: a list that grows has room for as many again.
        2 * size_of::<DeadLetter>()
            + self.topic.capacity()
            + self.error.capacity()
            + 2 * ALLOCATION_BYTES
            + optional(&self.key)
            + optional(&self.value)
            + headers.sum::<usize>()
    }

    /// Takes the rejected record out of its chunk.
    ///
    /// - `framed`: values begin with the id of their schema.
    ///
    /// # Panics
    /// If the reject isn't of this chunk.
    pub fn of(topic: &str, chunk: &Chunk, reject: &Reject, framed: bool) -> DeadLetter {
        let index = reject.index as usize;
        DeadLetter {
            topic: topic.to_owned(),
            partition: chunk.partition,
            offset: chunk.offset(index),
            timestamp_ms: chunk.timestamp_ms(index),
            key: bytes_at(&chunk.keys, index),
            value: bytes_at(&chunk.values, index),
            headers: headers_at(chunk, index),
            stage: reject.stage.name(),
            error: reject.reason.clone(),
            schema_id: match framed && chunk.values.is_valid(index) {
                true => frame::id(chunk.values.value(index)),
                false => None,
            },
        }
    }
}

fn bytes_at(column: &BinaryArray, index: usize) -> Option<Vec<u8>> {
    column.is_valid(index).then(|| column.value(index).to_vec())
}

fn headers_at(chunk: &Chunk, index: usize) -> Vec<(String, Option<Vec<u8>>)> {
    let Some(lists) = chunk.headers.as_ref().filter(|lists| lists.is_valid(index)) else {
        return Vec::new();
    };
    let headers = lists.value(index);
    let headers = headers.as_struct();
    let (keys, values) = (
        headers.column(0).as_string::<i32>(),
        headers.column(1).as_binary::<i32>(),
    );
    (0..headers.len())
        .map(|header| (keys.value(header).to_owned(), bytes_at(values, header)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(offset: i64, value_bytes: usize) -> DeadLetter {
        DeadLetter {
            topic: "t".to_owned(),
            partition: Partition(0),
            offset: Offset::new(offset),
            timestamp_ms: None,
            key: None,
            value: Some(vec![0; value_bytes]),
            headers: Vec::new(),
            stage: "decode",
            error: "no JSON".to_owned(),
            schema_id: None,
        }
    }

    #[test]
    fn steps_are_cut_by_count_and_by_bytes_and_lose_none() {
        let letters: Vec<DeadLetter> = (0..7).map(|at| letter(at, if at == 3 { 5_000 } else { 10 })).collect();
        let letters: Vec<&DeadLetter> = letters.iter().collect();
        let sizes = |letters_max, bytes_max| -> Vec<usize> {
            steps(&letters, letters_max, bytes_max).map(<[_]>::len).collect()
        };
        assert_eq!(sizes(100, 1 << 20), [7]);
        assert_eq!(sizes(3, 1 << 20), [3, 3, 1]);
        assert_eq!(sizes(100, 4_000), [3, 1, 3], "one that is too large goes alone");
        assert_eq!(sizes(100, 0), [1; 7]);
        assert_eq!(steps(&[], 3, 3).count(), 0);
    }

    #[test]
    fn letters_count_as_long_as_somebody_has_them() {
        let memory = Memory::new(1 << 20);
        let mut letters = Letters::new(&memory);
        letters.extend([letter(0, 1_000), letter(1, 10)].into_iter());
        let held = memory.held_for(Purpose::Letters);
        assert!((1_010..3_000).contains(&held), "{held}");
        assert_eq!(held, letters.held_bytes() as u64);
        drop(letters);
        assert_eq!(memory.held(), 0);
    }
}
