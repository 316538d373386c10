//! Values that hold JSON, or what JSON can say: MessagePack, and JSON behind the frame of its schema. They go the way of JSON,
//! and so mean the same.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, BinaryArray, BooleanBufferBuilder, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};

use super::envelope::{self, Change};
use super::field::{FieldValue, field};
use super::json::JsonDecoder;
use super::{Decoded, Reject, Stage, messagepack};
use crate::chunk::Chunk;
use crate::config::{Envelope, ValueFormat};
use crate::json::lexer::Lexer;
use crate::schema::frame::{self, Part, SchemaKey};
use crate::schema::{Missing, RowPlanRef, Writers};

/// How values hold JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// As MessagePack.
    MessagePack,
    /// Behind a 0 byte and the id of its schema, or as it is.
    Framed,
    /// As it is.
    Bare,
}

/// Decodes values into the payload columns of a plan by way of JSON.
#[derive(Debug)]
pub struct TranscodedDecoder {
    holds: Holds,
    json: JsonDecoder,
    writers: Arc<Writers>,
    part: Part,
    /// The field that each value is put into.
    inside: Option<&'static str>,
    /// What is around each row.
    envelope: Option<Envelope>,
    /// Where the event time is, if no column of the plan holds it.
    event_time: Option<Vec<String>>,
}

/// A chunk's values as JSON.
struct Json {
    /// As many as there were; empty where there is none.
    values: BinaryArray,
    /// The records without JSON, ascending, and why.
    rejects: Vec<(u32, String)>,
    /// Schemas that aren't known.
    unknown: Vec<SchemaKey>,
}

impl Json {
    /// Takes the envelopes off; an event that makes no row becomes null.
    fn opened(mut self, envelope: Envelope) -> (Json, Events) {
        let mut events = Events::default();
        let mut bytes = Vec::with_capacity(self.values.value_data().len());
        let mut ends = Vec::with_capacity(self.values.len() + 1);
        ends.push(0);
        let mut rows = BooleanBufferBuilder::new(self.values.len());
        let mut broken = Vec::new();
        for (index, value) in self.values.iter().enumerate() {
            let (mut row, mut id) = (value.is_some(), None);
            // What was rejected is empty, and stays so.
            match value
                .filter(|value| !value.is_empty())
                .map(|value| envelope::open(envelope, value))
            {
                Some(Ok(opened)) => {
                    row = opened.change == Change::Row;
                    events.gone += u64::from(opened.change == Change::Gone);
                    bytes.extend_from_slice(&opened.row);
                    id = opened.event_id;
                }
                Some(Err(why)) => broken.push((index as u32, why)),
                None => {}
            }
            rows.append(row);
            events.ids.push(id);
            ends.push(bytes.len() as i32);
        }
        self.rejects.extend(broken);
        self.rejects.sort_unstable_by_key(|(index, _)| *index);
        let (ends, rows) = (OffsetBuffer::new(ends.into()), NullBuffer::new(rows.finish()));
        let json = Json {
            values: BinaryArray::new(ends, Buffer::from(bytes), Some(rows)),
            ..self
        };
        (json, events)
    }

    /// Puts each value into an object, as its one field; what is no JSON becomes empty.
    fn inside(mut self, name: &str) -> Json {
        let mut bytes = Vec::with_capacity(self.values.value_data().len() + self.values.len() * (name.len() + 5));
        let mut ends = Vec::with_capacity(self.values.len() + 1);
        ends.push(0);
        let mut broken = Vec::new();
        for (index, value) in self.values.iter().enumerate() {
            // Nothing that follows the value may become a field of its own.
            match value.map(whole) {
                Some(Ok(value)) => {
                    bytes.extend_from_slice(b"{\"");
                    bytes.extend_from_slice(name.as_bytes());
                    bytes.extend_from_slice(b"\":");
                    bytes.extend_from_slice(value);
                    bytes.push(b'}');
                }
                Some(Err(why)) => broken.push((index as u32, why)),
                None => {}
            }
            ends.push(bytes.len() as i32);
        }
        // Why it couldn't be had says more than that it is none.
        let told = |index: &u32| self.rejects.binary_search_by_key(index, |(index, _)| *index).is_ok();
        broken.retain(|(index, _)| !told(index));
        self.rejects.extend(broken);
        self.rejects.sort_unstable_by_key(|(index, _)| *index);
        let ends = OffsetBuffer::new(ends.into());
        Json {
            values: BinaryArray::new(ends, Buffer::from(bytes), self.values.nulls().cloned()),
            ..self
        }
    }
}

/// Returns the JSON of a sample, or what stands for it; `None` where there is none.
///
/// - `registry`: it may be behind the id of its schema.
pub fn sample(format: ValueFormat, part: Part, registry: bool, bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    match (format, part) {
        (ValueFormat::MessagePack, Part::Value) => messagepack::json(bytes).ok().map(Cow::Owned),
        (ValueFormat::MessagePack, Part::Key) => messagepack::key_json(bytes).ok().map(Cow::Owned),
        (ValueFormat::Json, _) if registry && frame::id(bytes).is_some() => Some(Cow::Borrowed(&bytes[5..])),
        (ValueFormat::Json, _) => Some(Cow::Borrowed(bytes)),
        _ => None,
    }
}

/// Finds a field of an event, which may have its schema around it.
fn around_it<'a>(event: &'a [u8], path: &[String]) -> Option<FieldValue<'a>> {
    let inside = || field(event, &[&["payload".to_owned()], path].concat());
    field(event, path).or_else(inside)
}

/// What envelopes tell beside the rows.
#[derive(Default)]
struct Events {
    /// The id of each event.
    ids: Vec<Option<String>>,
    /// Changes after which rows should be gone.
    gone: u64,
}

/// Returns the one JSON value that a text is, without a byte-order mark.
pub(super) fn whole(json: &[u8]) -> Result<&[u8], String> {
    if simdutf8::basic::from_utf8(json).is_err() {
        return Err("it isn't UTF-8".to_owned());
    }
    let mut lexer = Lexer::new(json);
    let start = lexer.pos;
    lexer.space();
    let read = lexer.skip().and_then(|()| lexer.end());
    read.map_err(|fault| format!("it isn't JSON: {} at byte {}", fault.what, fault.at))?;
    Ok(lexer.since(start))
}

impl TranscodedDecoder {
    /// Makes a decoder for the payload columns of a plan.
    ///
    /// - `event_time`: the path of the field that holds it.
    pub fn new(plan: RowPlanRef, writers: Arc<Writers>, holds: Holds, event_time: Option<&[String]>) -> Self {
        let event_time = event_time.filter(|path| plan.payload_column(path).is_none());
        TranscodedDecoder {
            holds,
            event_time: event_time.map(<[_]>::to_vec),
            json: JsonDecoder::new(plan),
            writers,
            part: Part::Value,
            inside: None,
            envelope: None,
        }
    }

    /// The same decoder for what is inside envelopes.
    #[must_use]
    pub fn within(mut self, envelope: Envelope) -> Self {
        self.envelope = Some(envelope);
        self
    }

    /// The same decoder for keys: each, whatever JSON it is, is the field `name` of an object.
    #[must_use]
    pub fn of_keys(mut self, name: &'static str) -> Self {
        self.part = Part::Key;
        self.inside = Some(name);
        self
    }

    /// Decodes one chunk; what isn't a row is a reject or filtered.
    pub fn decode(&mut self, chunk: &Chunk, missing: &Missing) -> Decoded {
        let json = match self.holds {
            Holds::MessagePack => {
                let made = match self.part {
                    Part::Value => messagepack::to_json(&chunk.values),
                    Part::Key => messagepack::keys_to_json(&chunk.values),
                };
                Json {
                    values: made.values,
                    rejects: made.rejects,
                    unknown: Vec::new(),
                }
            }
            Holds::Framed => self.unframed(&chunk.values, missing),
            Holds::Bare => self.bare(&chunk.values),
        };
        let json = match self.inside {
            Some(name) => json.inside(name),
            None => json,
        };
        let around = self.envelope.map(|_| json.values.clone());
        let (json, events) = match self.envelope {
            Some(envelope) => json.opened(envelope),
            None => (json, Events::default()),
        };
        let text = Chunk {
            values: json.values,
            ..chunk.clone()
        };
        let mut decoded = self.json.decode(&text);
        decoded.gone = events.gone;
        decoded.event_ids = self.envelope.filter(|envelope| envelope.keeps_ids()).map(|_| {
            let ids = decoded
                .indexes
                .iter()
                .map(|index| events.ids[*index as usize].as_deref());
            ids.collect()
        });
        // What isn't JSON at all is empty to the decoder: said better where it was found.
        for (index, reason) in json.rejects {
            match decoded.rejects.binary_search_by_key(&index, |reject| reject.index) {
                Ok(at) => decoded.rejects[at].reason = reason,
                Err(at) => decoded.rejects.insert(
                    at,
                    Reject {
                        index,
                        stage: Stage::Decode,
                        reason,
                    },
                ),
            }
        }
        decoded.unknown = json.unknown;
        decoded.event_time = self.event_time.as_ref().map(|path| {
            let times = decoded.indexes.iter().map(|index| {
                let index = *index as usize;
                // What isn't in the row may be around it.
                let found = field(text.values.value(index), path);
                let found = found.or_else(|| around_it(around.as_ref()?.value(index), path));
                found.map(FieldValue::into_text)
            });
            times.collect::<StringArray>()
        });
        decoded
    }

    /// Values as they are, without those that violate the schema in `schemaFile`, where they are validated.
    fn bare(&self, values: &BinaryArray) -> Json {
        let mut json = Json {
            values: values.clone(),
            rejects: Vec::new(),
            unknown: Vec::new(),
        };
        if let Some(check) = self.writers.check(&SchemaKey::file()) {
            let kept = values.iter().enumerate().map(|(index, value)| {
                let value = value?;
                match check.validate(value) {
                    Ok(()) => Some(value),
                    Err(why) => {
                        json.rejects.push((index as u32, why));
                        Some(&b""[..])
                    }
                }
            });
            json.values = kept.collect();
        }
        json
    }

    /// Takes the frames off; what has none is JSON as it is.
    fn unframed(&self, values: &BinaryArray, missing: &Missing) -> Json {
        let mut bytes = Vec::with_capacity(values.value_data().len());
        let mut ends = Vec::with_capacity(values.len() + 1);
        ends.push(0);
        let (mut rejects, mut unknown) = (Vec::new(), Vec::new());
        for index in 0..values.len() {
            let value = if values.is_null(index) {
                &[]
            } else {
                values.value(index)
            };
            match frame::id(value).map(|id| SchemaKey::id(id).of(self.part)) {
                None => bytes.extend_from_slice(value),
                Some(key) => match missing.get(&key) {
                    Some(why) => rejects.push((index as u32, why.clone())),
                    None => {
                        let json = &value[5..];
                        match self.writers.check(&key).map_or(Ok(()), |check| check.validate(json)) {
                            Ok(()) => bytes.extend_from_slice(json),
                            Err(why) => rejects.push((index as u32, why)),
                        }
                        if self.writers.get(&key).is_none() && !unknown.contains(&key) {
                            unknown.push(key);
                        }
                    }
                },
            }
            ends.push(bytes.len() as i32);
        }
        let ends = OffsetBuffer::new(ends.into());
        Json {
            values: BinaryArray::new(ends, Buffer::from(bytes), values.nulls().cloned()),
            rejects,
            unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use iceberg::spec::{NestedField, PrimitiveType, Type};

    use super::*;
    use crate::offsets::{Offset, OffsetRange, Partition};
    use crate::schema::{UnknownFields, WriterSchema, evolve};

    fn decoder(holds: Holds) -> TranscodedDecoder {
        let id = NestedField::optional(1, "id", Type::Primitive(PrimitiveType::Long));
        let schema = Arc::new(evolve::create_schema(vec![id.clone()], &[], false));
        let plan = Arc::new(evolve::row_plan(schema, None, &[], false, UnknownFields::Evolve, false));
        let mut writers = Writers::default();
        writers.add(SchemaKey::id(1), Arc::new(WriterSchema::Json(vec![id])));
        TranscodedDecoder::new(plan, Arc::new(writers), holds, Some(&["at".to_owned()]))
    }

    fn chunk(values: &[Option<&[u8]>]) -> Chunk {
        let count = values.len() as i64;
        Chunk {
            partition: Partition(0),
            range: OffsetRange::new(Offset::new(0), Offset::new(count)),
            offsets: (0..count).collect::<Int64Array>(),
            timestamps: (0..count).collect::<Int64Array>(),
            keys: BinaryArray::from(vec![None::<&[u8]>; values.len()]),
            values: values.iter().copied().collect(),
            headers: None,
        }
    }

    fn decode(holds: Holds, values: &[Option<&[u8]>], missing: &Missing) -> Decoded {
        decoder(holds).decode(&chunk(values), missing)
    }

    #[test]
    fn framed_and_bare_json_share_a_chunk() {
        let missing = Missing::from([(SchemaKey::id(9), "gone".to_owned())]);
        let framed = |id: u8, json: &str| [&[0, 0, 0, 0, id], json.as_bytes()].concat();
        let values = [
            framed(1, r#"{"id":1,"at":5}"#),
            br#"{"id":2,"at":"x"}"#.to_vec(),
            framed(9, r#"{"id":3}"#),
            framed(7, r#"{"id":4,"at":{}}"#),
            framed(1, "{"),
        ];
        let mut values: Vec<Option<&[u8]>> = values.iter().map(|value| Some(value.as_slice())).collect();
        values.push(None);
        let decoded = decode(Holds::Framed, &values, &missing);
        assert_eq!(decoded.unknown, [SchemaKey::id(7)]);
        assert_eq!(decoded.rows.column(0).as_primitive::<Int64Type>().values(), &[1, 2, 4]);
        let reasons: Vec<_> = decoded
            .rejects
            .iter()
            .map(|reject| (reject.index, reject.reason.as_str()))
            .collect();
        assert_eq!(reasons[0], (2, "gone"));
        assert_eq!((reasons[1].0, decoded.filtered), (4, 1));
        let times = decoded.event_time.expect("it is no column");
        let times: Vec<_> = times.iter().collect();
        assert_eq!(times, [Some("5"), Some("x"), Some("neither text nor a number")]);
    }

    #[test]
    fn values_that_violate_their_schema_are_rejects_where_that_is_asked_for() {
        let text = crate::schema::SchemaText {
            language: crate::schema::SchemaLanguage::Json,
            text: r#"{"type":"object","properties":{"id":{"maximum":5}}}"#.to_owned(),
            references: Vec::new(),
        };
        let check = || Arc::new(crate::schema::json_schema::Check::new(&text).expect("a schema"));
        let mut framed = decoder(Holds::Framed);
        Arc::make_mut(&mut framed.writers).add_check(SchemaKey::id(1), check());
        let with_id = |json: &str| [b"\0\0\0\0\x01", json.as_bytes()].concat();
        let (good, bad) = (with_id(r#"{"id":5}"#), with_id(r#"{"id":6}"#));
        // A value that names no schema isn't validated.
        let chunk = chunk(&[Some(&good), Some(&bad), Some(br#"{"id":7}"#), None]);
        let decoded = framed.decode(&chunk, &Missing::new());
        assert_eq!(decoded.rows.column(0).as_primitive::<Int64Type>().values(), &[5, 7]);
        assert_eq!((decoded.filtered, decoded.rejects[0].index), (1, 1));
        let reason = "the value violates its JSON Schema at `/id`: 6 is greater than the maximum of 5";
        assert_eq!(decoded.rejects[0].reason, reason);
        let mut bare = decoder(Holds::Bare);
        Arc::make_mut(&mut bare.writers).add_check(SchemaKey::file(), check());
        let decoded = bare.decode(
            &super::tests::chunk(&[Some(br#"{"id":6}"#), None, Some(br#"{"id":1}"#), Some(b"{")]),
            &Missing::new(),
        );
        let indexes: Vec<_> = decoded.rejects.iter().map(|reject| reject.index).collect();
        assert_eq!((indexes, decoded.filtered, decoded.indexes), (vec![0, 3], 1, vec![2]));
    }

    #[test]
    fn messagepack_is_decoded_as_json_would_be() {
        let good: &[u8] = &[0x82, 0xA2, b'i', b'd', 7, 0xA2, b'a', b't', 0xCC, 200];
        let decoded = decode(Holds::MessagePack, &[Some(good), Some(&[0xC1]), None], &Missing::new());
        assert_eq!(decoded.rows.column(0).as_primitive::<Int64Type>().values(), &[7]);
        assert_eq!(decoded.event_time.expect("no column").value(0), "200");
        assert_eq!((decoded.rejects.len(), decoded.filtered), (1, 1));
        assert!(!decoded.rejects[0].reason.contains("empty"), "{:?}", decoded.rejects);
    }
}
