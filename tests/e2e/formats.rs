//! Topics in other formats than JSON and Avro: what is written is what the table holds, also while fields come and go and runs
//! are killed. Records are written by libraries that share nothing with ours.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::aperio::Workspace;
use super::encode;
use super::produce::{self, Record};
use super::readers::{self, Catalog, Engine};
use super::registry::Registry;
use super::servers::Kafka;
use super::topic_table::{pipeline, produce, rows, without_nulls};

/// A value of one of four versions: each adds fields, the third drops one.
fn value(id: i64, version: usize) -> Value {
    let mut value = json!({"id": id, "name": format!("n{id}"), "size": id});
    if version >= 2 {
        value["email"] = json!(format!("é{id}@x"));
    }
    if version >= 3 {
        value["address"] = json!({"city": format!("c{id}")});
        value.as_object_mut().expect("an object").remove("name");
    }
    if version >= 4 {
        value["address"]["zip"] = json!(id % 100);
        value["tags"] = json!(["a", format!("t{id}")]);
        value["ratio"] = json!(id as f64 + 0.5);
    }
    value
}

/// Produces the versions one after the other, each beside an old producer of the one before, kills runs meanwhile, and
/// compares what readers see in the end.
fn evolve(topic: &str, work: &Workspace, encode: impl Fn(usize, Vec<Value>) -> Vec<Vec<u8>>) {
    produce::create_topic(Kafka::shared(), topic, 3, &[]);
    let mut expect: Vec<Value> = Vec::new();
    for version in 1..=4 {
        let first = expect.len() as i64;
        let new: Vec<Value> = (first..first + 200).map(|id| value(id, version)).collect();
        let old: Vec<Value> = (first + 200..first + 250)
            .map(|id| value(id, (version - 1).max(1)))
            .collect();
        produce(topic, encode(version, new.clone()));
        produce(topic, encode((version - 1).max(1), old.clone()));
        expect.extend(new.into_iter().chain(old));
        for round in 0..4 {
            work.start_once(&[])
                .kill_after(Duration::from_millis(250 + 180 * round));
        }
        work.start_once(&[]).wait().expect_code(0);
    }
    for engine in [Engine::PyIceberg, Engine::Spark] {
        let found: Vec<Value> = rows(engine, work, topic).iter().map(without_nulls).collect();
        assert_eq!(found.len(), expect.len(), "{engine:?}: rows");
        for (found, expect) in found.iter().zip(&expect) {
            assert_eq!(found, expect, "{engine:?}");
        }
    }
}

#[test]
fn messagepack_evolves_while_runs_are_killed() {
    let topic = "formats-messagepack";
    let work = Workspace::new(&pipeline(topic, "messagepack", ""));
    evolve(topic, &work, |_, values| encode::msgpack(values));
}

#[test]
fn json_with_schemas_evolves_while_runs_are_killed() {
    let topic = "formats-json-schema";
    let registry = Registry::shared();
    let schema = |version: usize| {
        let mut properties =
            json!({"id": {"type": "integer"}, "name": {"type": "string"}, "size": {"type": "integer"}});
        if version >= 2 {
            properties["email"] = json!({"type": ["string", "null"]});
        }
        if version >= 3 {
            properties["address"] = json!({"type": "object", "properties": {"city": {"type": "string"}}});
            properties.as_object_mut().expect("an object").remove("name");
        }
        if version >= 4 {
            properties["address"]["properties"]["zip"] = json!({"type": "integer"});
            properties["tags"] = json!({"type": "array", "items": {"type": "string"}});
            properties["ratio"] = json!({"type": "number"});
        }
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": properties})
    };
    let subject = format!("{topic}-value");
    let more = format!("      schemaRegistry: \"{}\"\n", registry.url());
    let work = Workspace::new(&pipeline(topic, "json", &more));
    evolve(topic, &work, |version, values| {
        let id = registry.register(&subject, "JSON", &schema(version).to_string(), &[]);
        let records: Vec<Value> = values.into_iter().map(|value| json!({"value": value})).collect();
        encode::encode(&json!({"format": "json", "frame": {"id": id}, "records": records}))
    });
    // Unframed values are JSON all the same, and a number in `email` is no string of the schema: kept as its text.
    produce(topic, vec![br#"{"id":1000,"email":"x"}"#.to_vec()]);
    work.start_once(&[]).wait().expect_code(0);
    let found = rows(Engine::DuckDb, &work, topic);
    assert_eq!((found.len(), &found[1000]["email"]), (1001, &json!("x")));
    // A number among the tags is taken as text; where values are validated, it is a reject.
    let id = registry.register(&subject, "JSON", &schema(4).to_string(), &[]);
    let record = json!({"value": {"id": 1001, "tags": [5]}});
    produce(
        topic,
        encode::encode(&json!({"format": "json", "frame": {"id": id}, "records": [record]})),
    );
    for (more, rejected) in [(more.clone(), 0), (format!("{more}      validate: true\n"), 1)] {
        let work = Workspace::new(&pipeline(topic, "json", &more));
        let report = work.start_once(&["--output", "json"]).wait().expect_code(0).report();
        let table = &report["tables"][0];
        assert_eq!(
            (&table["rejected"], &table["rowsWritten"]),
            (&json!(rejected), &json!(1002 - rejected)),
            "{report:#}"
        );
    }
}

#[test]
fn protobuf_evolves_while_runs_are_killed() {
    let topic = "formats-protobuf";
    let registry = Registry::shared();
    let proto = |version: usize| {
        let mut fields = "optional int64 id = 1;\n  optional int64 size = 3;\n".to_owned();
        fields.push_str(if version <= 2 {
            "  optional string name = 2;\n"
        } else {
            "  reserved 2;\n"
        });
        if version >= 2 {
            fields.push_str("  optional string email = 4;\n");
        }
        if version >= 3 {
            fields.push_str(if version == 3 {
                "  Address address = 5;\n  message Address { optional string city = 1; }\n"
            } else {
                "  Address address = 5;\n  message Address { optional int32 zip = 2; optional string city = 1; }\n"
            });
        }
        if version >= 4 {
            fields.push_str("  repeated string tags = 6;\n  optional double ratio = 7;\n");
        }
        // The second message of its file, so that the frame names it.
        format!("syntax = \"proto3\";\npackage shop;\nmessage Other {{}}\nmessage Event {{\n  {fields}}}\n")
    };
    let subject = format!("{topic}-value");
    let more = format!("      schemaRegistry: \"{}\"\n", registry.url());
    let work = Workspace::new(&pipeline(topic, "protobuf", &more));
    evolve(topic, &work, |version, values| {
        let text = proto(version);
        let id = registry.register(&subject, "PROTOBUF", &text, &[]);
        encode::protobuf(Some(id), &[("event.proto", &text)], "shop.Event", values)
    });
}

#[test]
fn values_of_every_protobuf_type_are_as_they_were_written() {
    let topic = "formats-protobuf-types";
    produce::create_topic(Kafka::shared(), topic, 3, &[]);
    let text = r#"syntax = "proto3";
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/struct.proto";
message All {
  int64 id = 1; bool yes = 2; int32 small = 3; sint32 zig = 4; sfixed64 wide = 5; uint32 natural = 6; uint64 large = 7;
  fixed64 larger = 8; float half = 9; double whole = 10; string text = 11; bytes raw = 12;
  enum Color { RED = 0; BLUE = 1; }
  Color color = 13; optional int32 maybe = 14; google.protobuf.Timestamp at = 15;
  google.protobuf.StringValue wrapped = 16; google.protobuf.Struct any = 17;
  oneof one { string a = 18; int64 b = 19; }
  map<string, int64> counts = 20; repeated int32 numbers = 21;
  message Point { int32 x = 1; }
  repeated Point points = 22; Tree tree = 23; Empty empty = 24;
  message Tree { int32 v = 1; repeated Tree kids = 2; }
  message Empty {}
}
"#;
    let full = json!({
        "id": "0", "yes": true, "small": -7, "zig": -8, "wide": "-9", "natural": 4_000_000_000_u32, "large": "18446744073709551615",
        "larger": "9", "half": 1.5, "whole": 0.1, "text": "é", "raw": "AAH/", "color": "BLUE", "maybe": 0,
        "at": "2024-01-15T10:30:00.123456Z", "wrapped": "w", "any": {"k": [1, null, "s"]}, "b": "5", "counts": {"a": "1"},
        "numbers": [1, 2, 300], "points": [{"x": 1}, {}], "tree": {"v": 1, "kids": [{"v": 2}]}, "empty": {},
    });
    produce(
        topic,
        encode::protobuf(None, &[("all.proto", text)], "All", [full, json!({"id": "1"})]),
    );
    let yaml = pipeline(
        topic,
        "protobuf",
        "      schemaFile: all.proto\n      messageType: All\n",
    );
    let work = Workspace::new(&yaml);
    std::fs::write(work.path().join("all.proto"), text).expect("written");
    work.start_once(&[]).wait().expect_code(0);
    let found = rows(Engine::PyIceberg, &work, topic);
    let expect = json!({
        "id": 0, "yes": true, "small": -7, "zig": -8, "wide": -9, "natural": 4_000_000_000_u32, "large": "18446744073709551615",
        "larger": "9", "half": 1.5, "whole": 0.1, "text": "é", "raw": "AAH/", "color": "BLUE", "maybe": 0,
        "at": "2024-01-15T10:30:00.123456+00:00", "wrapped": "w", "any": "{\"k\":[1.0,null,\"s\"]}", "a": null, "b": 5,
        "counts": [["a", 1]], "numbers": [1, 2, 300], "points": [{"x": 1}, {"x": 0}],
        "tree": {"v": 1, "kids": ["{\"v\":2}"]}, "empty": "{}",
    });
    for (name, value) in expect.as_object().expect("fields") {
        assert_eq!(found[0][name], *value, "{name}");
    }
    // Without presence the default, with it null; lists and maps are empty.
    let least = json!({
        "id": 1, "yes": false, "small": 0, "large": "0", "text": "", "raw": "", "color": "RED", "maybe": null, "at": null,
        "wrapped": null, "any": null, "a": null, "b": null, "counts": [], "numbers": [], "points": [], "tree": null, "empty": null,
    });
    for (name, value) in least.as_object().expect("fields") {
        assert_eq!(found[1][name], *value, "{name}");
    }
}

#[test]
fn text_and_bytes_are_one_column() {
    for (format, topic) in [("string", "formats-string"), ("bytes", "formats-bytes")] {
        produce::create_topic(Kafka::shared(), topic, 3, &[]);
        let mut values: Vec<Vec<u8>> = (0..300).map(|n| format!("é{n}").into_bytes()).collect();
        values.push(Vec::new());
        produce(topic, values);
        produce(topic, vec![vec![0xFF, 0xFE]]);
        produce::produce(Kafka::shared(), topic, [Record::tombstone("k")]);
        let work = Workspace::new(&pipeline(topic, format, ""));
        let report = work.start_once(&["--output", "json"]).wait().expect_code(0).report();
        let rejected = u64::from(format == "string");
        assert_eq!(report["tables"][0]["rejected"], rejected, "{report:#}");
        assert_eq!(report["tables"][0]["filtered"], 1, "{report:#}");
        let table = format!("default.{}", topic.replace('-', "_"));
        let found = readers::read(Engine::PyIceberg, &Catalog::sql(&work.warehouse()), &table, None);
        assert_eq!(found.len() as u64, 302 - rejected);
        let wanted = |text: &str| match format {
            "string" => json!(text),
            _ => json!(STANDARD.encode(text)),
        };
        for text in ["é7", ""] {
            assert!(
                found.iter().any(|row| row["value"] == wanted(text)),
                "{format}: {text:?}"
            );
        }
    }
}
