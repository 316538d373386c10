//! Decoding: a chunk's bytes become rows; what can't be decoded becomes rejects.
//!
//! Decoding never fails: a bad record is data, not an error, and never costs its neighbours.

mod avro;
mod column;
pub mod envelope;
pub(crate) mod field;
pub mod framed;
pub mod json;
pub mod key;
mod letter;
pub mod messagepack;
mod names;
mod problem;
mod protobuf;
pub mod raw;
mod room;
mod target;
pub mod transcoded;
mod unknown;
mod varint;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::{filter, filter_record_batch};

use crate::chunk::Chunk;
use crate::schema::Missing;
use crate::schema::frame::SchemaKey;
use crate::schema::infer::Shape;

use self::envelope::EnvelopeDecoder;
use self::framed::FramedDecoder;
use self::json::JsonDecoder;
use self::raw::RawDecoder;
use self::transcoded::TranscodedDecoder;

pub use self::letter::{DeadLetter, Letters, steps};

/// A decoder, by the format of the topic.
#[derive(Debug)]
pub enum Decoder {
    /// `format: json`.
    Json(JsonDecoder),
    /// Values of schemas: `format: avro` and `protobuf`.
    Framed(FramedDecoder),
    /// The same, of which the rows are inside envelopes.
    Envelope(Box<EnvelopeDecoder>),
    /// `format: messagepack`, and JSON with schemas of a registry.
    Transcoded(TranscodedDecoder),
    /// `format: string`, `format: bytes`.
    Raw(RawDecoder),
}

impl Decoder {
    /// Decodes one chunk.
    ///
    /// - `missing`: schemas that can't be had at the moment: their records are rejects.
    pub fn decode(&mut self, chunk: &Chunk, missing: &Missing) -> Decoded {
        match self {
            Decoder::Json(json) => json.decode(chunk),
            Decoder::Framed(framed) => framed.decode(chunk, missing),
            Decoder::Envelope(envelope) => envelope.decode(chunk, missing),
            Decoder::Transcoded(transcoded) => transcoded.decode(chunk, missing),
            Decoder::Raw(raw) => raw.decode(chunk),
        }
    }
}

/// What a decoder made of one chunk. `rows.num_rows() + rejects.len() + filtered` equals the chunk's records.
#[derive(Debug)]
pub struct Decoded {
    /// One column per payload column of the [`crate::schema::RowPlan`], in its order.
    pub rows: RecordBatch,
    /// For each row, the index of its record in the chunk; ascending.
    pub indexes: Vec<u32>,
    /// The records that couldn't be decoded, ascending by index.
    pub rejects: Vec<Reject>,
    /// Records that make no row by definition (null values in kstream mode).
    pub filtered: u64,
    /// Fields that the plan has no column for and whose values weren't null, with the types seen, and columns that are too
    /// narrow for values of rejected records ([`Shape::Wider`]); `None` if there were none. Under `schemaEvolution:
    /// evolve` the caller evolves the table and decodes the chunk again.
    pub unseen: Option<Shape>,
    /// Schemas of records that aren't known yet. The caller gets them and decodes the chunk again.
    pub unknown: Vec<SchemaKey>,
    /// The event time of each row as text, where no column of the plan holds it and the decoder knows where it is.
    pub event_time: Option<StringArray>,
    /// The key of each row, where keys were decoded; else they are bytes as they came.
    pub keys: Option<ArrayRef>,
    /// The id of the event that each row is of, as text; `None` where there are no envelopes around rows.
    pub event_ids: Option<StringArray>,
    /// Of `filtered`: changes after which a row should be gone, which in kstream mode nothing does.
    pub gone: u64,
    /// Values in `rows`' records that were dropped because no column takes them; of those in `unseen` too.
    pub fields_dropped: u64,
}

impl Decoded {
    /// Keeps the rows that `kept` says and no others; what becomes of their records is the caller's to say.
    ///
    /// # Panics
    /// If `kept` has another length than the rows.
    pub fn keep(&mut self, kept: &BooleanArray) {
        assert_eq!(kept.len(), self.indexes.len(), "one word for each row");
        if kept.true_count() == kept.len() {
            return;
        }
        let of = |column: &dyn Array| filter(column, kept).expect("the mask has the length of the rows");
        self.rows = filter_record_batch(&self.rows, kept).expect("the mask has the length of the rows");
        self.event_time = self.event_time.as_ref().map(|times| of(times).as_string().clone());
        self.keys = self.keys.as_ref().map(|keys| of(keys));
        self.event_ids = self.event_ids.as_ref().map(|ids| of(ids).as_string().clone());
        let mut row = 0;
        self.indexes.retain(|_| {
            row += 1;
            kept.value(row - 1)
        });
    }
}

/// One record that can't become a row, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The record's index in its chunk.
    pub index: u32,
    /// Where on its way the record failed.
    pub stage: Stage,
    /// Why, for a person; names the column and the value's kind, and the `columns` line that would take it.
    pub reason: String,
}

/// The step at which a record was rejected; stored in the dead-letter table by its lower-case name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The value couldn't be decoded into the table's columns.
    Decode,
    /// The event time couldn't be read, or no partition value follows from it.
    Place,
}

impl Stage {
    /// Returns the stored name.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Place => "place",
        }
    }
}
