//! The records that are measured with: one event in three formats.

use apache_avro::types::Value;

use super::{CHUNK_RECORDS, CHUNKS, SCHEMA_ID};

/// An event of 13 values, one of them nullable, one a moment, two inside another, one a list.
pub const AVRO: &str = r#"{"type":"record","name":"Event","fields":[
  {"name":"id","type":"long"},{"name":"user_id","type":"long"},{"name":"kind","type":"string"},
  {"name":"country","type":"string"},{"name":"amount","type":"double"},
  {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"session","type":"string"},
  {"name":"ok","type":"boolean"},{"name":"note","type":["null","string"]},{"name":"count","type":"int"},
  {"name":"place","type":{"type":"record","name":"Place","fields":[{"name":"city","type":"string"},{"name":"zip","type":"int"}]}},
  {"name":"tags","type":{"type":"array","items":"string"}}]}"#;

/// The same event.
pub const PROTOBUF: &str = r#"syntax = "proto3";
import "google/protobuf/timestamp.proto";
message Event {
  int64 id = 1;
  int64 user_id = 2;
  string kind = 3;
  string country = 4;
  double amount = 5;
  google.protobuf.Timestamp at = 6;
  string session = 7;
  bool ok = 8;
  optional string note = 9;
  int32 count = 10;
  Place place = 11;
  repeated string tags = 12;
}
message Place {
  string city = 1;
  int32 zip = 2;
}
"#;

/// One event.
struct Event {
    id: i64,
    user_id: i64,
    kind: &'static str,
    country: &'static str,
    amount: f64,
    /// Milliseconds since 1970, UTC.
    at: i64,
    session: String,
    ok: bool,
    note: Option<String>,
    count: i32,
    city: String,
    zip: i32,
    tags: Vec<&'static str>,
}

fn event(n: i64) -> Event {
    let mixed = (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31);
    Event {
        id: n,
        user_id: (mixed % 1_000_000) as i64,
        kind: ["view", "click", "order", "search"][(mixed >> 8) as usize % 4],
        country: ["DE", "FR", "US", "JP"][(mixed >> 12) as usize % 4],
        amount: (mixed % 50_000) as f64 / 100.0,
        at: 1_700_000_000_000 + n * 13,
        session: format!("{mixed:016x}"),
        ok: mixed.is_multiple_of(3),
        note: mixed.is_multiple_of(2).then(|| format!("note {}", mixed % 1000)),
        count: (mixed % 300) as i32,
        city: format!("city {}", mixed % 500),
        zip: (mixed % 100_000) as i32,
        tags: ["new", "sale", "gift"][..(mixed >> 20) as usize % 3].to_vec(),
    }
}

fn events() -> impl Iterator<Item = Event> {
    (0..CHUNKS * CHUNK_RECORDS).map(event)
}

/// Records behind the five bytes of Confluent's frame.
pub fn avro_records() -> Vec<Vec<u8>> {
    let schema = apache_avro::Schema::parse_str(AVRO).expect("a schema");
    let text = |text: &str| Value::String(text.to_owned());
    let encode = |event: Event| {
        let note = match &event.note {
            None => Value::Union(0, Box::new(Value::Null)),
            Some(note) => Value::Union(1, Box::new(text(note))),
        };
        let place = vec![
            ("city".to_owned(), text(&event.city)),
            ("zip".to_owned(), Value::Int(event.zip)),
        ];
        let fields = [
            ("id", Value::Long(event.id)),
            ("user_id", Value::Long(event.user_id)),
            ("kind", text(event.kind)),
            ("country", text(event.country)),
            ("amount", Value::Double(event.amount)),
            ("at", Value::TimestampMillis(event.at)),
            ("session", text(&event.session)),
            ("ok", Value::Boolean(event.ok)),
            ("note", note),
            ("count", Value::Int(event.count)),
            ("place", Value::Record(place)),
            ("tags", Value::Array(event.tags.iter().map(|tag| text(tag)).collect())),
        ];
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
        let body = apache_avro::to_avro_datum(&schema, Value::Record(fields.collect())).expect("it fits");
        [&[0][..], &SCHEMA_ID.to_be_bytes(), &body].concat()
    };
    events().map(encode).collect()
}

/// Records behind Confluent's frame, with the byte that stands for the file's first message.
pub fn protobuf_records() -> Vec<Vec<u8>> {
    let encode = |event: Event| {
        let mut out = [&[0][..], &SCHEMA_ID.to_be_bytes(), &[0]].concat();
        number(&mut out, 1, event.id);
        number(&mut out, 2, event.user_id);
        text(&mut out, 3, event.kind.as_bytes());
        text(&mut out, 4, event.country.as_bytes());
        if event.amount != 0.0 {
            varint(&mut out, 5 << 3 | 1);
            out.extend(event.amount.to_le_bytes());
        }
        let mut at = Vec::new();
        number(&mut at, 1, event.at / 1000);
        number(&mut at, 2, event.at % 1000 * 1_000_000);
        text(&mut out, 6, &at);
        text(&mut out, 7, event.session.as_bytes());
        number(&mut out, 8, i64::from(event.ok));
        if let Some(note) = &event.note {
            text(&mut out, 9, note.as_bytes());
        }
        number(&mut out, 10, i64::from(event.count));
        let mut place = Vec::new();
        text(&mut place, 1, event.city.as_bytes());
        number(&mut place, 2, i64::from(event.zip));
        text(&mut out, 11, &place);
        for tag in event.tags {
            text(&mut out, 12, tag.as_bytes());
        }
        out
    };
    events().map(encode).collect()
}

/// A field of an integer, unless it is 0: then it isn't written.
fn number(out: &mut Vec<u8>, field: u64, value: i64) {
    if value != 0 {
        varint(out, field << 3);
        varint(out, value as u64);
    }
}

/// A field of a string or a message.
fn text(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// One JSON object each.
pub fn json_records() -> Vec<Vec<u8>> {
    let encode = |event: Event| {
        let note = serde_json::to_string(&event.note).expect("JSON");
        let tags = serde_json::to_string(&event.tags).expect("JSON");
        let Event {
            id,
            user_id,
            kind,
            country,
            amount,
            at,
            session,
            ok,
            count,
            city,
            zip,
            ..
        } = event;
        format!(
            r#"{{"id":{id},"user_id":{user_id},"kind":"{kind}","country":"{country}","amount":{amount},"at":{at},"session":"{session}","ok":{ok},"note":{note},"count":{count},"place":{{"city":"{city}","zip":{zip}}},"tags":{tags}}}"#
        )
        .into_bytes()
    };
    events().map(encode).collect()
}
