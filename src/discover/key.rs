//! What record keys are, and whether they stand for rows that change.

use std::collections::HashSet;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use iceberg::spec::PrimitiveType;

use super::columns::Sampled;
use super::kind::{self, Kind};
use super::schemas::header;
use super::{Guess, Sample, SchemaLanguage, Schemas, Topic};
use crate::schema::frame::KEY_HEADER;
use crate::schema::infer::Shape;

/// What keys tell.
#[derive(Debug, Default, PartialEq)]
pub(super) struct KeyGuess {
    /// `keyFormat`; `None`: there are no keys, or they are bytes.
    pub format: Option<Guess>,
    /// `keyField` of `mode: ktable`; `None`: nothing speaks for it.
    pub field: Option<Guess>,
}

pub(super) fn guess(topic: &Topic, schemas: &Schemas, sampled: &Sampled) -> KeyGuess {
    let keyed: Vec<&Sample> = topic.samples.iter().filter(|sample| sample.key.is_some()).collect();
    if keyed.is_empty() {
        return KeyGuess::default();
    }
    let format = format(&keyed, schemas);
    let name = format.as_ref().map_or("bytes", |guess| guess.value.as_str());
    let field = changes(topic, &keyed).map(|reason| {
        let field = field(name, topic, sampled).unwrap_or_else(|| "$key".to_owned());
        Guess::new(field, reason)
    });
    KeyGuess { format, field }
}

/// Why the records seem to be versions of rows.
fn changes(topic: &Topic, keyed: &[&Sample]) -> Option<String> {
    if topic.compacted == Some(true) {
        return Some("the topic is compacted: it keeps the last record of each key".to_owned());
    }
    let distinct: HashSet<&[u8]> = keyed.iter().filter_map(|sample| sample.key.as_deref()).collect();
    let tombstones = keyed.iter().filter(|sample| sample.value.is_none()).count();
    let repeated = keyed.len() - distinct.len();
    (tombstones > 0 && repeated > 0).then(|| {
        let many = kind::of(tombstones, topic.samples.len());
        format!("keys repeat, and {many} have no value, as those that delete")
    })
}

fn format(keyed: &[&Sample], schemas: &Schemas) -> Option<Guess> {
    let kinds = keyed.iter().map(|sample| {
        let key = sample.key.as_deref().unwrap_or_default();
        match Kind::of(key, header(&sample.headers, KEY_HEADER), schemas) {
            Kind::Framed(SchemaLanguage::Avro) => "avro",
            Kind::Framed(SchemaLanguage::Protobuf) => "protobuf",
            Kind::Framed(SchemaLanguage::Json) | Kind::Json => "json",
            Kind::MessagePack => "messagepack",
            Kind::Text if !key.is_empty() => "string",
            Kind::Bytes | Kind::Unregistered if key.len() == 4 => "int",
            Kind::Bytes | Kind::Unregistered if key.len() == 8 => "long",
            _ => "bytes",
        }
    });
    let kinds: Vec<&str> = kinds.collect();
    let first = *kinds.first()?;
    // A key that can't be read is a record that can't be: bytes are safe.
    let alike = kinds.iter().all(|kind| *kind == first);
    let reason = match first {
        _ if !alike => return None,
        "bytes" => return None,
        "int" => "four bytes each",
        "long" => "eight bytes each",
        "string" => "text",
        "json" => "JSON objects",
        "messagepack" => "MessagePack maps",
        _ => "of the registry",
    };
    Some(Guess::new(
        first,
        format!("the keys of {} are {reason}", kind::of(keyed.len(), keyed.len())),
    ))
}

/// The field of the value that holds the key, in all samples.
fn field(format: &str, topic: &Topic, sampled: &Sampled) -> Option<String> {
    let values: Vec<&Sample> = topic.samples.iter().filter(|sample| sample.value.is_some()).collect();
    let keys: Option<Vec<String>> = sampled
        .indexes
        .iter()
        .map(|index| text(format, values[*index as usize].key.as_deref()?))
        .collect();
    let keys = keys.filter(|keys| !keys.is_empty())?;
    let comparable = |of: &PrimitiveType| {
        matches!(
            of,
            PrimitiveType::Int | PrimitiveType::Long | PrimitiveType::String | PrimitiveType::Uuid
        )
    };
    let columns = sampled.columns.iter();
    let mut columns = columns.filter(|column| column.path.len() == 1 && comparable(&column.of));
    let found = columns.find(|column| {
        let Ok(texts) = cast(&column.values, &DataType::Utf8) else {
            return false;
        };
        let texts = texts.as_string::<i32>();
        let held = |(row, key): (usize, &String)| texts.is_valid(row) && texts.value(row) == key;
        keys.iter().enumerate().all(held)
    });
    found.map(|column| column.path[0].clone())
}

/// The key as a column shows it.
fn text(format: &str, key: &[u8]) -> Option<String> {
    match format {
        "string" => Some(String::from_utf8_lossy(key).into_owned()),
        "int" => Some(i32::from_be_bytes(key.try_into().ok()?).to_string()),
        "long" => Some(i64::from_be_bytes(key.try_into().ok()?).to_string()),
        "json" => sole_value(key),
        _ => None,
    }
}

/// The value of a JSON object of one field, such as `{"id": 7}`.
fn sole_value(key: &[u8]) -> Option<String> {
    let mut shape = Shape::default();
    shape.observe(key).ok()?;
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(key).ok()?;
    match object.values().collect::<Vec<_>>().as_slice() {
        [serde_json::Value::String(text)] => Some(text.clone()),
        [serde_json::Value::Number(number)] => Some(number.to_string()),
        _ => None,
    }
}
