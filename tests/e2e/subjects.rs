//! Subjects that are named after the topic, the record, both, or by hand: the newest schema under them says how columns are
//! called and which an empty topic's table has. And schemas that refer to others, through a real registry.

use serde_json::{Value, json};

use super::aperio::Workspace;
use super::encode;
use super::produce;
use super::readers::Engine;
use super::registry::Registry;
use super::servers::Kafka;
use super::topic_table::{self, avro_record as record, rows, table};

/// A pipeline whose registry is told how subjects are named.
fn pipeline(topic: &str, format: &str, naming: &str) -> Workspace {
    let registry = format!(
        "      schemaRegistry: {{url: \"{}\"{naming}}}\n",
        Registry::shared().url()
    );
    Workspace::new(&topic_table::pipeline(topic, format, &registry))
}

/// The names of the columns of records.
fn names(work: &Workspace, topic: &str) -> Vec<String> {
    let metadata = work.metadata(&table(topic));
    let current = &metadata["current-schema-id"];
    let schemas = metadata["schemas"].as_array().expect("schemas");
    let schema = schemas.iter().find(|schema| schema["schema-id"] == *current);
    let fields = schema.expect("the current one")["fields"].as_array().expect("fields");
    let names = fields
        .iter()
        .map(|field| field["name"].as_str().expect("a name").to_owned());
    names.filter(|name| !name.starts_with("_kafka")).collect()
}

#[test]
fn the_newest_schema_of_the_subject_says_what_columns_are_called() {
    // How subjects are named, the subject of the records, and whether a topic without records has one.
    for (at, (naming, subject, known)) in [
        ("", "{topic}-value", true),
        (", subjectStrategy: topic", "{topic}-value", true),
        (", subjectStrategy: record", "shop.{name}", false),
        (", subjectStrategy: topic-record", "{topic}-shop.{name}", false),
        (", subject: orders-of-all-shops", "orders-of-all-shops", true),
    ]
    .into_iter()
    .enumerate()
    {
        let topic = format!("subjects-{at}");
        let name = format!("Order{at}");
        let subject = subject.replace("{topic}", &topic).replace("{name}", &name);
        produce::create_topic(Kafka::shared(), &topic, 3, &[]);
        let id = json!({"name": "id", "type": "long"});
        let old = record(&name, json!([id, {"name": "amount", "type": "int"}]));
        let new = record(
            &name,
            json!([id, {"name": "total", "aliases": ["amount"], "type": "long"}]),
        );
        let [old_id, new_id] =
            [&old, &new].map(|schema| Registry::shared().register(&subject, "AVRO", &schema.to_string(), &[]));
        let work = pipeline(&topic, "avro", naming);
        work.start_once(&[]).wait().expect_code(0);
        if known {
            assert_eq!(names(&work, &topic), ["id", "total"], "{naming}: of an empty topic");
        }
        let send = |schema: &Value, schema_id: i32, id: i64, field: &str| {
            let values = encode::avro(Some(schema_id), schema, [json!({"id": id, field: id + 100})]);
            topic_table::produce(&topic, values);
        };
        send(&new, new_id, 0, "total");
        work.start_once(&[]).wait().expect_code(0);
        // A program that never saw the new schema meets a record of the old one.
        send(&old, old_id, 1, "amount");
        work.start_once(&[]).wait().expect_code(0);
        assert_eq!(names(&work, &topic), ["id", "total"], "{naming}");
        let found = rows(Engine::DuckDb, &work, &topic);
        let expect = [json!({"id": 0, "total": 100}), json!({"id": 1, "total": 101})];
        assert_eq!(found, expect, "{naming}");
    }
}

#[test]
fn avro_schemas_refer_to_others() {
    let (topic, registry) = ("subjects-avro", Registry::shared());
    produce::create_topic(Kafka::shared(), topic, 3, &[]);
    let color = json!({"type": "enum", "name": "Color", "namespace": "shop", "symbols": ["RED", "BLUE"]});
    let part = json!({"type": "record", "name": "Part", "namespace": "shop.parts", "fields": [{"name": "color", "type": "shop.Color"}, {"name": "n", "type": "int"}]});
    let car = record(
        "Car",
        json!([{"name": "id", "type": "long"}, {"name": "part", "type": "shop.parts.Part"}, {"name": "other", "type": ["null", "Color"]}]),
    );
    registry.register("subjects-color", "AVRO", &color.to_string(), &[]);
    registry.register(
        "subjects-part",
        "AVRO",
        &part.to_string(),
        &[("shop.Color", "subjects-color", 1)],
    );
    // One that is referred to directly and by another reference.
    let id = registry.register(
        &format!("{topic}-value"),
        "AVRO",
        &car.to_string(),
        &[
            ("shop.parts.Part", "subjects-part", 1),
            ("shop.Color", "subjects-color", 1),
        ],
    );
    let record = json!({"id": 1, "part": {"color": "BLUE", "n": 7}, "other": "RED"});
    let document = json!({"format": "avro", "named": [color, part], "schemas": [car], "records": [{"value": record, "frame": {"id": id}}]});
    topic_table::produce(topic, encode::encode(&document));
    let work = pipeline(topic, "avro", "");
    work.start_once(&[]).wait().expect_code(0);
    assert_eq!(rows(Engine::PyIceberg, &work, topic), [record]);
}

#[test]
fn protobuf_files_import_others() {
    let (topic, registry) = ("subjects-protobuf", Registry::shared());
    produce::create_topic(Kafka::shared(), topic, 3, &[]);
    let size = "syntax = \"proto3\"; package shop; message Size { optional int32 n = 1; }";
    let part = "syntax = \"proto3\"; package shop.parts; import public \"shop/size.proto\"; import \"google/protobuf/timestamp.proto\";\
                message Part { shop.Size size = 1; google.protobuf.Timestamp at = 2; }";
    let shoe = "syntax = \"proto3\"; package shop; import \"shop/parts/part.proto\";\
                message Shoe { int64 id = 1; parts.Part part = 2; Size size = 3; }";
    registry.register("subjects-size", "PROTOBUF", size, &[]);
    registry.register(
        "subjects-proto-part",
        "PROTOBUF",
        part,
        &[("shop/size.proto", "subjects-size", 1)],
    );
    let id = registry.register(
        &format!("{topic}-value"),
        "PROTOBUF",
        shoe,
        &[("shop/parts/part.proto", "subjects-proto-part", 1)],
    );
    let files = [
        ("shop/size.proto", size),
        ("shop/parts/part.proto", part),
        ("shoe.proto", shoe),
    ];
    let record = json!({"id": "1", "part": {"size": {"n": 7}, "at": "2024-01-15T10:30:00Z"}, "size": {"n": 8}});
    topic_table::produce(topic, encode::protobuf(Some(id), &files, "shop.Shoe", [record]));
    let work = pipeline(topic, "protobuf", "");
    work.start_once(&[]).wait().expect_code(0);
    let expect = json!({"id": 1, "part": {"size": {"n": 7}, "at": "2024-01-15T10:30:00+00:00"}, "size": {"n": 8}});
    assert_eq!(rows(Engine::PyIceberg, &work, topic), [expect]);
}

#[test]
fn json_schemas_refer_to_others() {
    let (topic, registry) = ("subjects-json", Registry::shared());
    produce::create_topic(Kafka::shared(), topic, 3, &[]);
    let point =
        json!({"type": "object", "properties": {"x": {"type": "number"}, "on": {"type": "string", "format": "date"}}});
    let line = json!({"type": "object", "properties": {"id": {"type": "integer"}, "from": {"$ref": "point.json"}, "to": {"$ref": "point.json#/properties/x"}}});
    registry.register("subjects-point", "JSON", &point.to_string(), &[]);
    let reference = [("point.json", "subjects-point", 1)];
    let id = registry.register(&format!("{topic}-value"), "JSON", &line.to_string(), &reference);
    let record = json!({"id": 1, "from": {"x": 0.5, "on": "2024-01-15"}, "to": 2.0});
    let document = json!({"format": "json", "frame": {"id": id}, "records": [{"value": record}]});
    topic_table::produce(topic, encode::encode(&document));
    let work = pipeline(topic, "json", "");
    work.start_once(&[]).wait().expect_code(0);
    assert_eq!(rows(Engine::PyIceberg, &work, topic), [record]);
}
