//! Records as others encode them: `encode.py`, run by the Python of the set-up, which shares nothing with our decoders.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::setup;

/// Encodes the records of a document, each in Confluent's frame if it says so; `encode.py` says what goes into one.
///
/// # Panics
/// If it refuses the document: a schema that can't be read, a value that doesn't fit it.
pub fn encode(document: &Value) -> Vec<Vec<u8>> {
    let decode = |line: &str| STANDARD.decode(line).expect("a line of Base64");
    run(document).lines().map(decode).collect()
}

/// Encodes values in the one schema, in the frame of `id` if it is given.
pub fn avro(id: Option<i32>, schema: &Value, values: impl IntoIterator<Item = Value>) -> Vec<Vec<u8>> {
    encode(&document(json!({"format": "avro", "schemas": [schema]}), id, values))
}

/// Encodes messages of the type of this full name, in the frame of `id` if it is given.
///
/// - `files`: path and text of the .proto files.
/// - `values`: in Protobuf's JSON.
pub fn protobuf(
    id: Option<i32>,
    files: &[(&str, &str)],
    message: &str,
    values: impl IntoIterator<Item = Value>,
) -> Vec<Vec<u8>> {
    encode(&document(of_protobuf(files, message), id, values))
}

/// The path of a message type in its .proto file, as a frame tells it: `[1, 0]` is the first in the second.
pub fn message_indexes(files: &[(&str, &str)], message: &str) -> Vec<i32> {
    let mut document = of_protobuf(files, message);
    document["ask"] = "indexes".into();
    serde_json::from_str(&run(&document)).expect("a list")
}

/// Encodes values as MessagePack.
pub fn msgpack(values: impl IntoIterator<Item = Value>) -> Vec<Vec<u8>> {
    encode(&document(json!({"format": "msgpack"}), None, values))
}

fn of_protobuf(files: &[(&str, &str)], message: &str) -> Value {
    let files: serde_json::Map<_, _> = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), Value::from(*text)))
        .collect();
    json!({"format": "protobuf", "files": files, "message": message})
}

fn document(mut document: Value, id: Option<i32>, values: impl IntoIterator<Item = Value>) -> Value {
    document["records"] = values.into_iter().map(|value| json!({"value": value})).collect();
    if let Some(id) = id {
        document["frame"] = json!({"id": id});
    }
    document
}

fn run(document: &Value) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/encode.py");
    let mut command = Command::new(setup::part("python").join("bin/python"));
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = setup::spawn(command);
    let mut input = child.stdin.take().expect("piped");
    // Before anything is printed all of it is read. What ends without reading says why on standard error.
    let _ = input.write_all(document.to_string().as_bytes());
    drop(input);
    let output = child.wait_with_output().expect("it can be waited for");
    assert!(output.status.success(), "encode.py refuses {document:#}");
    String::from_utf8(output.stdout).expect("text")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn avro_is_written_as_its_specification_says() {
    let schema = json!({"type": "record", "name": "a.R", "fields": [
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
        {"name": "one_of", "type": ["null", "int", {"type": "record", "name": "X", "fields": [{"name": "f", "type": "double"}]}]},
        {"name": "span", "type": {"type": "fixed", "size": 12, "name": "Span", "logicalType": "duration"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "at_local", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "hour", "type": {"type": "long", "logicalType": "time-micros"}},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "raw", "type": "bytes"},
    ]});
    let id = "00000000-0000-0000-0000-000000000001";
    let value = json!({
        "amount": {"$decimal": "-1.23"}, "one_of": {"$union": ["a.X", {"f": {"$float": "NaN"}}]}, "span": {"$duration": [1, 2, 3]},
        "at": {"$datetime": "1970-01-01T00:00:00.000001Z"}, "at_local": {"$datetime": "1970-01-01T00:00:00.001"},
        "day": {"$date": "1970-01-02"}, "hour": {"$time": "00:00:00.000003"}, "id": {"$uuid": id}, "raw": {"$bytes": "AQI="},
    });
    let parts = [
        "0000000007",               // the frame
        "0285",                     // one byte: -123
        "04000000000000f87f",       // the third of the union
        "010000000200000003000000", // months, days, milliseconds
        "02020206",                 // 1 µs, 1 ms, day 1, 3 µs
        "48",                       // 36 bytes of text
        &hex(id.as_bytes()),
        "040102",
    ];
    assert_eq!(hex(&avro(Some(7), &schema, [value])[0]), parts.concat());
    assert_eq!(avro(None, &json!("long"), [json!(-1), json!(1)]), [[1], [2]]);
}

#[test]
fn each_record_of_avro_may_have_a_schema_and_an_id_of_its_own() {
    let version = |fields: Value| json!({"type": "record", "name": "R", "fields": fields});
    let color = json!({"type": "enum", "name": "Color", "symbols": ["red", "green"]});
    let old = version(json!([{"name": "n", "type": "int"}]));
    let new = version(json!([{"name": "n", "type": "int"}, {"name": "c", "type": "Color"}]));
    let document = json!({"format": "avro", "named": [color], "schemas": [old, new], "records": [
        {"value": {"n": 1}, "frame": {"id": 5}},
        {"value": {"n": 2, "c": "green"}, "schema": 1, "frame": {"id": 258}},
    ]});
    let records: Vec<_> = encode(&document).iter().map(|record| hex(record)).collect();
    assert_eq!(records, ["000000000502", "00000001020402"]);
}

#[test]
fn protobuf_is_written_with_the_path_of_its_message() {
    let files = [
        (
            "shop/order.proto",
            "syntax = 'proto3'; package shop; import 'parts.proto'; import 'google/protobuf/timestamp.proto';\
             message First {}\
             message Order { message Other {} message Line { int32 n = 1; google.protobuf.Timestamp at = 2; Part part = 3; } }",
        ),
        (
            "parts.proto",
            "syntax = 'proto2'; package shop; message Part { required string name = 1; optional group G = 2 { optional bytes raw = 3; } }",
        ),
    ];
    for (message, path, framed) in [
        ("shop.First", &[0][..], "000000000900"),
        ("shop.Order", &[1], "00000000090202"),
        ("shop.Order.Line", &[1, 1], "0000000009040202"),
    ] {
        assert_eq!(message_indexes(&files, message), path, "{message}");
        assert_eq!(
            hex(&protobuf(Some(9), &files, message, [json!({})])[0]),
            framed,
            "{message}"
        );
    }
    let value = json!({"n": 150, "at": "1970-01-01T00:00:01Z", "part": {"name": "a", "g": {"raw": "AQI="}}});
    let line = &protobuf(None, &files, "shop.Order.Line", [value])[0];
    assert_eq!(hex(line), "089601120208011a090a0161131a02010214");
}

#[test]
fn messagepack_is_written_with_what_json_has_no_word_for() {
    let value = json!({
        "a": {"$bytes": "AQI="}, "b": {"$datetime": "1970-01-01T00:00:01Z"}, "c": {"$timestamp": [1, 5]},
        "d": {"$ext": [5, "AQ=="]}, "e": {"$pairs": [[1, null]]}, "f": {"$float": "Infinity"},
    });
    let parts = [
        "86a161c4020102",
        "a162d6ff00000001",
        "a163d7ff0000001400000001",
        "a164d40501",
        "a1658101c0",
        "a166cb7ff0000000000000",
    ];
    assert_eq!(hex(&msgpack([value])[0]), parts.concat());
}
