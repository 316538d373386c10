use std::sync::Arc;

use arrow::array::{AsArray, BinaryArray, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use iceberg::spec::{NestedField, PrimitiveType, Type};

use super::*;
use crate::chunk::Chunk;
use crate::decode::Decoded;
use crate::decode::framed::Framing;
use crate::decode::transcoded::{Holds, TranscodedDecoder};
use crate::offsets::{Offset, OffsetRange, Partition};
use crate::schema::frame::SchemaKey;
use crate::schema::{
    Missing, RowPlan, SchemaLanguage, SchemaText, UnknownFields, WriterSchema, Writers, evolve, follow,
};

fn envelope(kind: EnvelopeKind, apply: Apply) -> Envelope {
    Envelope {
        kind,
        apply,
        horizon: (kind == EnvelopeKind::Cdc).then_some(1),
    }
}

/// What an event becomes: its row's JSON, the word for a change without one, or why it is a reject.
fn opened(kind: EnvelopeKind, apply: Apply, json: &str) -> String {
    match open(envelope(kind, apply), json.as_bytes()) {
        Ok(opened) if opened.change == Change::Row => String::from_utf8(opened.row.into_owned()).expect("UTF-8"),
        Ok(opened) => format!("{:?}", opened.change),
        Err(why) => why,
    }
}

#[test]
fn debezium_events_are_opened() {
    let check = |json: &str, rows: &str, events: &str| {
        assert_eq!(opened(EnvelopeKind::Debezium, Apply::Rows, json), rows, "{json}");
        assert_eq!(opened(EnvelopeKind::Debezium, Apply::Events, json), events, "{json}");
    };
    let same = |json: &str, rows: &str| check(json, rows, json);
    same(
        r#"{"before":null,"after":{"id":1},"op":"c","source":{}}"#,
        r#"{"id":1}"#,
    );
    same(r#"{"op":"u","before":{"id":1},"after":{"id":2}}"#, r#"{"id":2}"#);
    same(r#"{"op":"r","after":{"id":3}}"#, r#"{"id":3}"#);
    same(r#"{"op":"d","before":{"id":3},"after":null}"#, "Gone");
    same(r#"{"op":"t","source":{"table":"t"}}"#, "Gone");
    same(r#"{"op":"m","before":null,"message":{}}"#, "Nothing");
    same(r#"{"op":"x","after":{}}"#, "`op` is \"x\", of c, r, u, d, t and m none");
    same(
        r#"{"op":"c","after":null,"ts_ms":1}"#,
        "`op` is c, and `after` holds no row",
    );
    // With its schema around.
    check(
        r#"{"schema":{"type":"struct"},"payload":{"op":"c","after":{"id":1}}}"#,
        r#"{"id":1}"#,
        r#"{"op":"c","after":{"id":1}}"#,
    );
    check(r#"{"schema":{},"payload":null}"#, "Nothing", "Nothing");
    // As the unwrap step flattens it.
    same(r#"{"id":1,"name":"x"}"#, r#"{"id":1,"name":"x"}"#);
    same(
        r#"{"id":1,"op":"mine","__deleted":"false"}"#,
        r#"{"id":1,"op":"mine","__deleted":"false"}"#,
    );
    for columns in [
        r#""after":"{\"id\": 99, \"x\": 0}""#,
        r#""before":{"a":1},"after":{"b":2},"ts_ms":5"#,
        r#""after":{"b":2},"source":{"name":"web","version":"2"},"ts_ms":5"#,
        r#""schema":{"type":"struct"},"payload":{"op":"c","after":{"id":99}}"#,
        r#""payload":{"id":99},"schema":"public""#,
    ] {
        let row = format!(r#"{{"id":1,"op":"c",{columns}}}"#);
        same(&row, &row);
    }
    let either = opened(
        EnvelopeKind::Debezium,
        Apply::Rows,
        r#"{"op":"c","after":"{\"id\":1}"}"#,
    );
    assert!(either.contains("can't be told"), "{either}");
    let schema = |name: &str| {
        let json =
            format!(r#"{{"schema":{{"type":"struct","name":"{name}"}},"payload":{{"op":"c","after":{{"id":1}}}}}}"#);
        opened(EnvelopeKind::Debezium, Apply::Rows, &json)
    };
    assert_eq!(schema("shop.orders.Envelope"), r#"{"id":1}"#);
    assert_eq!(schema("shop.orders.Value"), r#"{"op":"c","after":{"id":1}}"#);
    same(r#"{"id":1,"__deleted":"true"}"#, "Gone");
    same(r#"{"id":1,"__deleted":true}"#, "Gone");
    // What is no JSON is told of by whoever decodes rows.
    same(r#"{"op":"c","after":{"id":1}"#, r#"{"op":"c","after":{"id":1}"#);
    same("[1]", "[1]");
}

#[test]
fn cdc_events_are_opened() {
    let check = |json: &str, expect: &str| assert_eq!(opened(EnvelopeKind::Cdc, Apply::Rows, json), expect, "{json}");
    check(
        r#"{"event_id":"a","operation":"INSERT","payload_after":{"id":1}}"#,
        r#"{"id":1}"#,
    );
    check(
        r#"{"operation":"update","payload_before":{"id":0},"payload_after":{"id":1}}"#,
        r#"{"id":1}"#,
    );
    check(r#"{"operation":"DELETE","payload_before":{"id":0}}"#, "Gone");
    check(r#"{"operation":"INSERT","payload_after":"{\"id\":1}"}"#, r#"{"id":1}"#);
    // MessagePack inside, as JSON holds bytes.
    check(r#"{"operation":"INSERT","payload_after":"gaJpZAU="}"#, r#"{"id":5}"#);
    check(
        r#"{"operation":"INSERT","payload_after":"?"}"#,
        "`payload_after` is text that holds no row: neither JSON nor base64 of one",
    );
    check(
        r#"{"operation":"INSERT"}"#,
        "`operation` is INSERT, and `payload_after` holds no row",
    );
    check(
        r#"{"operation":"MERGE","payload_after":{}}"#,
        "`operation` is \"MERGE\", of INSERT, UPDATE and DELETE none",
    );
    check(
        r#"{"event_id":1,"ddl_sql":"create table t ()"}"#,
        "the event has no `operation`; `envelope.apply: events` keeps every event as a row",
    );
    let whole = r#"{"event_id":1,"ddl_sql":"create table t ()"}"#;
    assert_eq!(opened(EnvelopeKind::Cdc, Apply::Events, whole), whole);
    let id = |json: &str| open(envelope(EnvelopeKind::Cdc, Apply::Rows), json.as_bytes()).map(|opened| opened.event_id);
    assert_eq!(
        id(r#"{"event_id":"\u0061","operation":"DELETE"}"#),
        Ok(Some("a".to_owned()))
    );
    assert_eq!(id(r#"{"event_id":12,"operation":"DELETE"}"#), Ok(Some("12".to_owned())));
    assert_eq!(id(r#"{"event_id":null,"operation":"DELETE"}"#), Ok(None));
}

fn chunk(values: &[Option<Vec<u8>>]) -> Chunk {
    let count = values.len() as i64;
    Chunk {
        partition: Partition(0),
        range: OffsetRange::new(Offset::new(0), Offset::new(count)),
        offsets: (0..count).collect::<Int64Array>(),
        timestamps: (0..count).collect::<Int64Array>(),
        keys: BinaryArray::new_null(values.len()),
        values: values.iter().map(Option::as_deref).collect(),
        headers: None,
    }
}

fn plan(fields: Vec<NestedField>) -> Arc<RowPlan> {
    let schema = Arc::new(evolve::create_schema(fields, &[], false));
    Arc::new(evolve::row_plan(schema, None, &[], false, UnknownFields::Evolve, false))
}

fn ids(decoded: &Decoded) -> Vec<i64> {
    let (at, _) = decoded
        .rows
        .schema()
        .column_with_name("id")
        .map(|(at, field)| (at, field.clone()))
        .expect("a column");
    decoded.rows.column(at).as_primitive::<Int64Type>().values().to_vec()
}

fn texts(array: &Option<StringArray>) -> Vec<Option<&str>> {
    array.as_ref().expect("it was asked for").iter().collect()
}

fn reasons(decoded: &Decoded) -> Vec<(u32, &str)> {
    let reasons = decoded
        .rejects
        .iter()
        .map(|reject| (reject.index, reject.reason.as_str()));
    reasons.collect()
}

#[test]
fn json_events_become_rows() {
    let id = NestedField::optional(0, "id", Type::Primitive(PrimitiveType::Long));
    let path = ["commit_ts_utc".to_owned()];
    let decoder = TranscodedDecoder::new(plan(vec![id]), Arc::default(), Holds::Bare, Some(&path));
    let events = [
        r#"{"event_id":"a","operation":"INSERT","commit_ts_utc":17,"payload_after":{"id":1}}"#,
        r#"{"event_id":"b","operation":"DELETE","commit_ts_utc":18,"payload_before":{"id":1}}"#,
        r#"{"event_id":"c","operation":"MERGE"}"#,
        r#"{"event_id":"d","operation":"UPDATE","commit_ts_utc":19,"payload_after":{"id":2,"commit_ts_utc":5}}"#,
        r#"{"event_id":"e","operation":"UPDATE","payload_after":{"id":"x"}}"#,
        "{",
    ];
    let mut values: Vec<_> = events.iter().map(|event| Some(event.as_bytes().to_vec())).collect();
    values.push(None);
    let decoded = decoder
        .within(envelope(EnvelopeKind::Cdc, Apply::Rows))
        .decode(&chunk(&values), &Missing::new());
    assert_eq!((ids(&decoded), decoded.filtered, decoded.gone), (vec![1, 2], 2, 1));
    assert_eq!(texts(&decoded.event_ids), [Some("a"), Some("d")]);
    // The row's own field comes first.
    assert_eq!(texts(&decoded.event_time), [Some("17"), Some("5")]);
    let indexes: Vec<_> = decoded.rejects.iter().map(|reject| reject.index).collect();
    assert_eq!(indexes, [2, 4, 5]);
    // The field that the table lacks is one of rows, not of envelopes.
    assert_eq!(
        decoded
            .unseen
            .as_ref()
            .map(|shape| shape.field("commit_ts_utc").is_some()),
        Some(true)
    );
    assert!(decoded.unseen.is_some_and(|shape| shape.field("operation").is_none()));
}

/// Schemas of events, and the columns of their rows.
fn schemas(kind: EnvelopeKind, language: SchemaLanguage, texts: &[&str]) -> (Arc<Writers>, Vec<NestedField>) {
    let mut writers = Writers::default();
    for (id, text) in (1..).zip(texts) {
        let mut key = SchemaKey::id(id);
        if language == SchemaLanguage::Protobuf {
            key.message = vec![0];
        }
        let text = SchemaText {
            language,
            text: (*text).to_owned(),
            references: Vec::new(),
        };
        let writer = WriterSchema::parse(&key, &text).expect("a schema");
        let writer = writer.within(kind).expect("it can be told");
        writers.add(key, Arc::new(writer));
    }
    let columns = follow::merged(&writers, follow::Form::default());
    (Arc::new(writers), columns)
}

const AVRO: &str = r#"{"type":"record","name":"Envelope","namespace":"db.t","fields":[
  {"name":"before","type":["null",{"type":"record","name":"Value","fields":[
    {"name":"id","type":"long"},{"name":"name","type":["null","string"]}]}]},
  {"name":"after","type":["null","Value"]},
  {"name":"source","type":{"type":"record","name":"Source","fields":[{"name":"ts_ms","type":"long"}]}},
  {"name":"op","type":"string"}]}"#;

/// A later version of the flattened form of the same.
const AVRO_FLAT: &str = r#"{"type":"record","name":"Value","namespace":"db.t","fields":[
  {"name":"id","type":"long"},{"name":"name","type":["null","string"]},{"name":"__deleted","type":["null","string"]}]}"#;

#[test]
fn avro_events_become_rows() {
    let (writers, columns) = schemas(EnvelopeKind::Debezium, SchemaLanguage::Avro, &[AVRO, AVRO_FLAT]);
    let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["id", "name", "__deleted"]);
    let path = ["source".to_owned(), "ts_ms".to_owned()];
    let framing = Framing::Registry { indexes: false };
    let mut decoder = EnvelopeDecoder::new(
        envelope(EnvelopeKind::Debezium, Apply::Rows),
        plan(columns),
        writers,
        framing,
        Some(&path),
    );
    let event = |id: u8, body: &[&[u8]]| Some([&[0, 0, 0, 0, id], body.concat().as_slice()].concat());
    let (none, op) = (&[0][..], |op: u8| [2, op]);
    // The union's second arm, id 1, name "x" or null.
    let (row, unnamed) = (&[2, 2, 2, 2, b'x'][..], &[2, 4, 0][..]);
    let values = [
        event(1, &[none, row, &[34], &op(b'c')]),
        event(1, &[row, none, &[36], &op(b'd')]),
        event(1, &[row, unnamed, &[38], &op(b'u')]),
        event(1, &[none, none, &[38], &op(b'u')]),
        event(1, &[none, row, &[38]]),
        event(2, &[&[6, 0, 0]]),
        event(2, &[&[6, 0, 2, 8, b't', b'r', b'u', b'e']]),
        event(9, &[none]),
        None,
    ];
    let decoded = decoder.decode(&chunk(&values), &Missing::new());
    assert_eq!((ids(&decoded), decoded.filtered, decoded.gone), (vec![1, 2, 3], 3, 2));
    assert_eq!(texts(&decoded.event_time), [Some("17"), Some("19"), None]);
    assert_eq!(
        reasons(&decoded),
        [
            (3, "`op` is u, and `after` holds no row"),
            (4, "the value ends there, at byte 7 of the record"),
            (7, "schema 9 isn't known"),
        ]
    );
    assert_eq!(decoded.unknown, [SchemaKey::id(9)]);
}

#[test]
fn protobuf_events_become_rows() {
    let proto = r#"syntax = "proto3";
        message Event { string event_id = 1; Operation operation = 2; Row payload_after = 3; int64 commit_ts_utc = 4; }
        message Row { int64 id = 1; string name = 2; }
        enum Operation { OPERATION_UNKNOWN = 0; OPERATION_INSERT = 1; OPERATION_DELETE = 2; }"#;
    let (writers, columns) = schemas(EnvelopeKind::Cdc, SchemaLanguage::Protobuf, &[proto]);
    let path = ["commit_ts_utc".to_owned()];
    let framing = Framing::Registry { indexes: true };
    let mut decoder = EnvelopeDecoder::new(
        envelope(EnvelopeKind::Cdc, Apply::Rows),
        plan(columns),
        writers,
        framing,
        Some(&path),
    );
    let event = |body: &[u8]| Some([&[0, 0, 0, 0, 1, 0], body].concat());
    let values = [
        event(&[0x0A, 1, b'a', 0x10, 1, 0x1A, 2, 8, 5, 0x20, 9]),
        event(&[0x0A, 1, b'b', 0x10, 2, 0x20, 10]),
        // A message in two parts is both.
        event(&[0x1A, 2, 8, 6, 0x10, 1, 0x1A, 3, 0x12, 1, b'x']),
        event(&[0x10, 1]),
        event(&[0x1A, 2, 8, 5]),
    ];
    let decoded = decoder.decode(&chunk(&values), &Missing::new());
    assert_eq!((ids(&decoded), decoded.filtered, decoded.gone), (vec![5, 6], 1, 1));
    assert_eq!(decoded.rows.column(1).as_string::<i32>().value(1), "x");
    assert_eq!(texts(&decoded.event_ids), [Some("a"), None]);
    assert_eq!(texts(&decoded.event_time), [Some("9"), None]);
    assert_eq!(
        reasons(&decoded),
        [
            (3, "`operation` is OPERATION_INSERT, and `payload_after` holds no row"),
            (
                4,
                "the event has no `operation`; `envelope.apply: events` keeps every event as a row"
            ),
        ]
    );
}

#[test]
fn rows_inside_protobuf_may_be_json() {
    let proto = r#"syntax = "proto3"; import "google/protobuf/struct.proto";
        message Event { string event_id = 1; string operation = 2; google.protobuf.Struct payload_after = 3; }"#;
    let (writers, columns) = schemas(EnvelopeKind::Cdc, SchemaLanguage::Protobuf, &[proto]);
    assert!(columns.is_empty(), "the rows say it");
    let id = NestedField::optional(0, "id", Type::Primitive(PrimitiveType::Long));
    let framing = Framing::Registry { indexes: true };
    let mut decoder = EnvelopeDecoder::new(
        envelope(EnvelopeKind::Cdc, Apply::Rows),
        plan(vec![id]),
        writers,
        framing,
        Some(&["at".to_owned()]),
    );
    // {"id": 5} and {"at": "x"}: a map's entry with a key, and a Value with a number or a string.
    let number = [&[0x0A, 15, 0x0A, 2, b'i', b'd', 0x12, 9, 0x11][..], &5f64.to_le_bytes()].concat();
    let text = [0x0A, 9, 0x0A, 2, b'a', b't', 0x12, 3, 0x1A, 1, b'x'];
    let event = |row: &[u8]| {
        let operation = [0x12, 6, b'I', b'N', b'S', b'E', b'R', b'T'];
        Some([&[0, 0, 0, 0, 1, 0], &operation[..], &[0x1A, row.len() as u8], row].concat())
    };
    let values = [event(&[&number[..], &text].concat()), event(&[0xFF]), None];
    let decoded = decoder.decode(&chunk(&values), &Missing::new());
    assert_eq!(
        (ids(&decoded), decoded.filtered, decoded.rejects.len()),
        (vec![5], 1, 1),
        "{decoded:?}"
    );
    assert_eq!(texts(&decoded.event_time), [Some("x")]);
}
