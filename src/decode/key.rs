//! Keys: decoded as values are, beside them, into one column.

use std::sync::Arc;

use arrow::array::{Array, BinaryArray, BooleanArray, UInt32Array};
use arrow::compute::take;

use super::framed::{FramedDecoder, Framing};
use super::raw::RawDecoder;
use super::transcoded::{self, Holds, TranscodedDecoder};
use super::{Decoded, Decoder, Reject, Stage};
use crate::chunk::Chunk;
use crate::config::{KeyFormat, ValueFormat};
use crate::schema::frame::Part;
use crate::schema::{KEY, Missing, RowPlan, VALUE, Writers, evolve};

/// Decodes the keys of records into the column [`KEY`] of a table.
///
/// A record without a key has null there. One whose key can't be decoded is a reject, as it would be for its value.
#[derive(Debug)]
pub struct KeyDecoder {
    format: KeyFormat,
    decoder: Decoder,
}

impl KeyDecoder {
    /// Makes a decoder of keys for the rows of a plan.
    ///
    /// - `writers`: the schemas of keys that are known.
    /// - `registry`: JSON may be behind the id of its schema.
    pub fn new(format: KeyFormat, rows: &RowPlan, writers: Arc<Writers>, registry: bool) -> KeyDecoder {
        let plan = |from| Arc::new(evolve::key_plan(rows, from));
        let transcoded = |holds| {
            let decoder = TranscodedDecoder::new(plan(KEY), writers.clone(), holds, None);
            Decoder::Transcoded(decoder.of_keys(KEY))
        };
        let framed = |indexes| {
            let decoder = FramedDecoder::new(plan(KEY), writers.clone(), Framing::Registry { indexes }, None);
            Decoder::Framed(decoder.of(Part::Key))
        };
        let decoder = match format {
            KeyFormat::Of(ValueFormat::Json) if registry => transcoded(Holds::Framed),
            KeyFormat::Of(ValueFormat::Json) => transcoded(Holds::Bare),
            KeyFormat::Of(ValueFormat::MessagePack) => transcoded(Holds::MessagePack),
            KeyFormat::Of(ValueFormat::Avro) => framed(false),
            KeyFormat::Of(ValueFormat::Protobuf) => framed(true),
            KeyFormat::Of(ValueFormat::String | ValueFormat::Bytes) | KeyFormat::Int | KeyFormat::Long => {
                Decoder::Raw(RawDecoder::new(&plan(VALUE), None))
            }
        };
        KeyDecoder { format, decoder }
    }

    /// Adds the keys to the rows of a chunk, and what the decoder of keys lacks to what that of values does.
    pub fn attach(&mut self, chunk: &Chunk, missing: &Missing, decoded: &mut Decoded) {
        let (values, mut rejects) = match self.format {
            KeyFormat::Int => integers::<4>(&chunk.keys, |bytes| i64::from(i32::from_be_bytes(bytes))),
            KeyFormat::Long => integers::<8>(&chunk.keys, i64::from_be_bytes),
            KeyFormat::Of(_) => (chunk.keys.clone(), Vec::new()),
        };
        let keys = Chunk {
            values,
            ..chunk.clone()
        };
        let found = self.decoder.decode(&keys, missing);
        decoded.unknown.extend(found.unknown);
        decoded.fields_dropped += found.fields_dropped;
        if let Some(unseen) = found.unseen {
            decoded.unseen.get_or_insert_default().merge(unseen);
        }
        rejects.extend(found.rejects);
        if !rejects.is_empty() {
            reject(decoded, rejects);
        }
        let Some(column) = found.rows.columns().first() else {
            // The table has no column for them yet.
            return;
        };
        // Both ascend: which key, if any, each row has.
        let mut next = found.indexes.iter().zip(0u32..).peekable();
        let of_row = decoded.indexes.iter().map(|index| {
            while next.next_if(|(key, _)| *key < index).is_some() {}
            next.next_if(|(key, _)| *key == index).map(|(_, at)| at)
        });
        let of_row: UInt32Array = of_row.collect();
        let all = of_row.null_count() == 0 && of_row.len() == column.len();
        decoded.keys = Some(match all {
            true => column.clone(),
            false => take(column, &of_row, None).expect("a place among the keys"),
        });
    }
}

/// Returns a key as the JSON object that its column is inferred from; `None` where it is no JSON, nor stands for it.
///
/// - `registry`: it may be behind the id of its schema.
pub fn sample(format: ValueFormat, registry: bool, key: &[u8]) -> Option<Vec<u8>> {
    let json = transcoded::sample(format, Part::Key, registry, key)?;
    let json = transcoded::whole(&json).ok()?;
    Some([b"{\"", KEY.as_bytes(), b"\":", json, b"}"].concat())
}

/// Returns big-endian integers as text; what has another length is a reject, and null.
fn integers<const BYTES: usize>(keys: &BinaryArray, read: impl Fn([u8; BYTES]) -> i64) -> (BinaryArray, Vec<Reject>) {
    let mut rejects = Vec::new();
    let texts = keys.iter().zip(0u32..).map(|(key, index)| {
        let key = key?;
        match key.try_into() {
            Ok(bytes) => Some(read(bytes).to_string()),
            Err(_) => {
                rejects.push(Reject {
                    index,
                    stage: Stage::Decode,
                    reason: format!("it has {} bytes, an integer of `keyFormat` has {BYTES}", key.len()),
                });
                None
            }
        }
    });
    let texts = texts.collect();
    (texts, rejects)
}

/// Takes rows away whose keys aren't what they should be.
fn reject(decoded: &mut Decoded, rejects: Vec<Reject>) {
    let mut kept = vec![true; decoded.indexes.len()];
    for mut reject in rejects {
        // A record that is no row for another reason stays what it is.
        if let Ok(row) = decoded.indexes.binary_search(&reject.index) {
            kept[row] = false;
            reject.reason = format!("key: {}", reject.reason);
            decoded.rejects.push(reject);
        }
    }
    decoded.rejects.sort_by_key(|reject| reject.index);
    decoded.keep(&BooleanArray::from(kept));
}

#[cfg(test)]
mod tests;
