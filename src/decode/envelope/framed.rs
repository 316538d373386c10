//! Envelopes of events that were written with schemas: opened one by one, so that what is decoded are rows.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, BinaryArray, BooleanBufferBuilder, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};

use super::super::field::{FieldValue, field};
use super::super::framed::{FramedDecoder, Framing, Unknown, remember};
use super::super::json::JsonDecoder;
use super::super::{Decoded, Reject, Stage, avro, protobuf};
use super::{Change, Names, Picked, no_operation, no_row, row_of_text};
use crate::chunk::Chunk;
use crate::config::{Envelope, EnvelopeKind};
use crate::schema::frame::{Part, SchemaKey};
use crate::schema::{Missing, RowPlanRef, WriterSchema, Writers};

/// Decodes the rows inside events that were written with schemas.
#[derive(Debug)]
pub struct EnvelopeDecoder {
    kind: EnvelopeKind,
    framing: Framing,
    writers: Arc<Writers>,
    names: Names,
    rows: Rows,
    /// By what names a schema on the wire.
    found: HashMap<Vec<u8>, Arc<WriterSchema>>,
}

/// How rows are written inside their events.
#[derive(Debug)]
enum Rows {
    /// As fields.
    Fields(Box<FramedDecoder>),
    /// As JSON text; where some of the topic's schemas say so, all are read as such.
    Text(Box<JsonDecoder>),
}

/// The rows of a chunk, as far as they were taken out of their envelopes.
struct Inside {
    /// One value for each of the chunk's; null where there is no row.
    bytes: Vec<u8>,
    ends: Vec<i32>,
    rows: BooleanBufferBuilder,
    event_ids: Vec<Option<String>>,
    times: Vec<Option<String>>,
    rejects: Vec<Reject>,
    unknown: BTreeSet<SchemaKey>,
    gone: u64,
}

impl EnvelopeDecoder {
    /// Makes a decoder for the payload columns of a plan.
    ///
    /// - `writers`: schemas of what is inside envelopes, see [`WriterSchema::within`].
    /// - `event_time`: the path of the field that holds it, in the row or in its envelope.
    pub fn new(
        envelope: Envelope,
        plan: RowPlanRef,
        writers: Arc<Writers>,
        framing: Framing,
        event_time: Option<&[String]>,
    ) -> Self {
        let time = event_time.filter(|path| plan.payload_column(path).is_none());
        let text = writers.all().any(|(_, writer)| writer.holds_text());
        EnvelopeDecoder {
            kind: envelope.kind,
            framing,
            names: Names {
                kind: envelope.kind,
                ids: envelope.keeps_ids(),
                time: time.map(<[_]>::to_vec),
            },
            rows: match text {
                true => Rows::Text(Box::new(JsonDecoder::new(plan))),
                false => Rows::Fields(Box::new(FramedDecoder::new(plan, writers.clone(), framing, None))),
            },
            writers,
            found: HashMap::new(),
        }
    }

    /// Decodes one chunk; what isn't a row is a reject or filtered, as [`FramedDecoder::decode`] says.
    pub fn decode(&mut self, chunk: &Chunk, missing: &Missing) -> Decoded {
        let inside = self.inside(chunk, missing);
        let ends = OffsetBuffer::new(inside.ends.into());
        let mut rows = inside.rows;
        let values = BinaryArray::new(ends, Buffer::from(inside.bytes), Some(NullBuffer::new(rows.finish())));
        let rows = Chunk {
            values,
            ..chunk.clone()
        };
        let mut decoded = match &mut self.rows {
            Rows::Fields(framed) => framed.decode(&rows, missing),
            Rows::Text(json) => json.decode(&rows),
        };
        let of_rows = |texts: &[Option<String>]| -> StringArray {
            let texts = decoded.indexes.iter().map(|index| texts[*index as usize].as_deref());
            texts.collect()
        };
        if let Some(path) = &self.names.time {
            let text = matches!(self.rows, Rows::Text(_));
            let times = decoded.indexes.iter().map(|index| {
                let index = *index as usize;
                let own = text.then(|| time_text(rows.values.value(index), path)).flatten();
                own.or_else(|| inside.times[index].clone())
            });
            decoded.event_time = Some(times.collect());
        }
        decoded.event_ids = self.names.ids.then(|| of_rows(&inside.event_ids));
        decoded.gone = inside.gone;
        // They were handed on as null.
        decoded.filtered -= inside.rejects.len() as u64;
        decoded.rejects.extend(inside.rejects);
        decoded.rejects.sort_by_key(|reject| reject.index);
        decoded.unknown.extend(inside.unknown);
        decoded
    }

    fn inside(&mut self, chunk: &Chunk, missing: &Missing) -> Inside {
        let mut unknown = Unknown::new(missing);
        let mut inside = Inside {
            bytes: Vec::with_capacity(chunk.values.value_data().len()),
            ends: vec![0],
            rows: BooleanBufferBuilder::new(chunk.len()),
            event_ids: Vec::with_capacity(chunk.len()),
            times: Vec::with_capacity(chunk.len()),
            rejects: Vec::new(),
            unknown: BTreeSet::new(),
            gone: 0,
        };
        for index in 0..chunk.len() {
            inside.event_ids.push(None);
            inside.times.push(None);
            let row = match chunk.values.is_valid(index) {
                true => self.event(chunk, index, &mut unknown, &mut inside),
                false => Ok(false),
            };
            inside.rows.append(row == Ok(true));
            inside.ends.push(inside.bytes.len() as i32);
            if let Err(reason) = row {
                inside.rejects.push(Reject {
                    index: index as u32,
                    stage: Stage::Decode,
                    reason,
                });
            }
        }
        inside.unknown = unknown.found();
        inside
    }

    /// Opens one event; says whether there is a row in it.
    fn event(
        &mut self,
        chunk: &Chunk,
        index: usize,
        unknown: &mut Unknown<'_>,
        inside: &mut Inside,
    ) -> Result<bool, String> {
        let value = chunk.values.value(index);
        let (name, body) = self.framing.named(chunk, index, Part::Value, &self.writers, value)?;
        let writer = self.writer(name, unknown)?;
        let picked = match &*writer {
            WriterSchema::Avro(schema) => avro::pick(schema, schema.around.as_ref(), body, &self.names),
            WriterSchema::Protobuf(schema) => protobuf::pick(schema, body, &self.names),
            WriterSchema::Json(_) => return Err("its schema is a JSON Schema".to_owned()),
        };
        let picked = picked.map_err(|bad| bad.reason())?;
        let around = writer.is_inside();
        let change = self.change(&picked, around)?;
        inside.event_ids[index].clone_from(&picked.event_id);
        inside.times[index] = match (&self.names.time, &picked.time) {
            (Some(path), Some(found)) => time_of(found, path),
            _ => None,
        };
        if change != Change::Row {
            inside.gone += u64::from(change == Change::Gone);
            return Ok(false);
        }
        let operation = picked.operation.as_deref().unwrap_or_default();
        match (&self.rows, around) {
            (Rows::Fields(_), false) => inside.bytes.extend_from_slice(value),
            (Rows::Fields(_), true) => {
                let row = picked.row.ok_or_else(|| no_row(self.kind, operation))?;
                // A header names the schema of what follows as well.
                let prefix = if name.len() + body.len() == value.len() {
                    name
                } else {
                    &[]
                };
                inside.bytes.extend_from_slice(prefix);
                inside.bytes.extend_from_slice(&row);
            }
            (Rows::Text(_), around) => {
                let body = if around { picked.row.as_deref() } else { Some(body) };
                let text = match (&*writer, body) {
                    (_, None) | (WriterSchema::Json(_), _) => None,
                    (writer, Some(row)) if writer.holds_text() => Some(row.to_vec()),
                    (WriterSchema::Avro(schema), Some(row)) => {
                        Some(avro::json(schema, row).map_err(|bad| bad.reason())?)
                    }
                    (WriterSchema::Protobuf(schema), Some(row)) => {
                        Some(protobuf::json(schema, row).map_err(|bad| bad.reason())?)
                    }
                };
                let text = text.ok_or_else(|| no_row(self.kind, operation))?;
                let text = String::from_utf8(text).map_err(|_| "the row is no UTF-8".to_owned())?;
                inside.bytes.extend_from_slice(&row_of_text(self.kind, &text)?);
            }
        }
        Ok(true)
    }

    fn change(&self, picked: &Picked<'_>, around: bool) -> Result<Change, String> {
        match (self.kind, around, &picked.operation) {
            (_, true, Some(operation)) => Change::of(self.kind, operation),
            (EnvelopeKind::Debezium, false, _) => Ok(match picked.deleted.as_deref() {
                Some("true") => Change::Gone,
                _ => Change::Row,
            }),
            _ => Err(no_operation(self.kind)),
        }
    }

    fn writer(&mut self, name: &[u8], unknown: &mut Unknown<'_>) -> Result<Arc<WriterSchema>, String> {
        if let Some(found) = self.found.get(name) {
            return Ok(found.clone());
        }
        let writer = unknown.known(&self.writers, &self.framing.key(name)?)?.clone();
        remember(&mut self.found, name, writer.clone());
        Ok(writer)
    }
}

/// Returns the time at a path in a row's JSON, as text.
fn time_text(json: &[u8], path: &[String]) -> Option<String> {
    field(json, path).map(FieldValue::into_text)
}

/// Returns the time in the field that a path begins with.
fn time_of(found: &[u8], path: &[String]) -> Option<String> {
    match path {
        [] | [_] => Some(String::from_utf8_lossy(found).into_owned()),
        [_, rest @ ..] => time_text(found, rest),
    }
}
