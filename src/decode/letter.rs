//! One dead letter: a record as Kafka had it, with what went wrong.

use arrow::array::{Array, AsArray, BinaryArray};

use super::Reject;
use crate::chunk::Chunk;
use crate::offsets::{Offset, Partition};

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

impl DeadLetter {
    /// Takes the rejected record out of its chunk.
    ///
    /// `schema_id` is left empty: whether a value begins with one is known to its decoder only.
    ///
    /// # Panics
    /// If the reject isn't of this chunk.
    pub fn of(topic: &str, chunk: &Chunk, reject: &Reject) -> DeadLetter {
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
            schema_id: None,
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
