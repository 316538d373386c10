//! Topics made up of samples, through [`guess`] and [`file`](super::file) as the command line calls them.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::{self, Pipeline};

/// 2026-01-15T10:00:00Z.
const MORNING_MS: i64 = 1_768_471_200_000;

fn sample(value: impl Into<Vec<u8>>) -> Sample {
    Sample {
        timestamp_ms: Some(MORNING_MS),
        value: Some(value.into()),
        ..Sample::default()
    }
}

fn topic(name: &str, samples: Vec<Sample>) -> Topic {
    Topic {
        name: name.to_owned(),
        partitions: 3,
        offsets: samples.len() as u64,
        compacted: Some(false),
        samples,
    }
}

fn json_topic(values: impl IntoIterator<Item = Value>) -> Topic {
    topic("t", values.into_iter().map(|value| sample(value.to_string())).collect())
}

fn guessed(topic: &Topic) -> Finding {
    guess(topic, &Schemas::default())
}

fn access() -> Access {
    Access {
        brokers: "kafka:9092".to_owned(),
        ..Access::default()
    }
}

fn known(id: i32, language: SchemaLanguage, text: &str) -> Schemas {
    let text = SchemaText {
        language,
        text: text.to_owned(),
        references: Vec::new(),
    };
    Schemas {
        asked: true,
        found: [(SchemaName::Id(id), Found::Schema(text.into()))].into(),
        newest: None,
    }
}

fn framed(id: i32, body: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), body].concat()
}

fn loaded(text: &str) -> Vec<Pipeline> {
    config::parse(Path::new("a.yaml"), text).unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"))
}

#[test]
fn formats_are_those_of_most_samples() {
    let check = |values: &[&[u8]], expect: &str| {
        let finding = guessed(&topic("t", values.iter().map(|value| sample(*value)).collect()));
        let Guess { value, reason } = finding.format;
        let obstacle = if finding.obstacle.is_some() {
            " (in the way)"
        } else {
            ""
        };
        assert_eq!(format!("{value}{obstacle}: {reason}"), expect, "{values:?}");
    };
    check(&[b"{\"a\":1}"], "json: the one sample is a JSON object");
    check(&[b"{}", b" {\"a\":null} "], "json: all 2 samples are JSON objects");
    check(&[b"[1]", b"7", b"x"], "string: all 3 samples are text");
    check(&[b"\x81\xa1a\x01"], "messagepack: the one sample is a MessagePack map");
    check(&[b"\xff\xfe", b"a\x00"], "bytes: all 2 samples are bytes");
    check(
        &[b"{}", b"{}", b"x", b"\xff"],
        "json: 2 of 4 samples are JSON objects, 1 is text, 1 is bytes",
    );
    check(
        &[b"\x00\x00\x00\x00\x07body"],
        "avro (in the way): the one sample is framed by a schema id",
    );
    // Eight bytes are a number, ids begin at 1.
    check(&[b"\x00\x00\x01\x9b\x00\x00\x00\x00"], "bytes: the one sample is bytes");
    check(&[b"\x00\x00\x00\x00\x00body"], "bytes: the one sample is bytes");
    check(
        &[b"\xc3\x01\x01\x02\x03\x04\x05\x06\x07\x08body"],
        "avro (in the way): the one sample is a single object of Avro",
    );
    check(&[b""], "string: the one sample is text");
}

#[test]
fn values_with_schemas_of_the_registry_are_decoded_with_them() {
    let schema = json!({"type": "record", "name": "R", "fields": [
        {"name": "id", "type": "long"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ]});
    let mut value = vec![14];
    // A zigzag varint.
    let mut left = (MORNING_MS as u64) << 1;
    while left > 0 {
        value.push((left & 0x7F) as u8 | if left > 0x7F { 0x80 } else { 0 });
        left >>= 7;
    }
    let mut samples = vec![sample(framed(7, &value)); 30];
    let schemas = known(7, SchemaLanguage::Avro, &schema.to_string());
    let finding = guess(&topic("t", samples.clone()), &schemas);
    assert_eq!((finding.format.value.as_str(), finding.registry), ("avro", true));
    let field = finding.event_time_field.expect("a timestamp");
    assert_eq!(field.value, "at");
    assert_eq!(
        field.reason,
        "a timestamp in all samples, within a minute of the records' own times"
    );
    assert_eq!((finding.errors, finding.remarks), (vec![], Vec::<String>::new()));
    // Of another schema, and without one.
    samples.push(sample(framed(8, &value)));
    samples.push(sample("x"));
    assert_eq!(
        schemas_named(&topic("t", samples.clone())),
        [SchemaName::Id(7), SchemaName::Id(8)]
    );
    let finding = guess(&topic("t", samples), &schemas);
    let errors: Vec<_> = finding
        .errors
        .iter()
        .map(|(key, guess)| (*key, guess.value.as_str()))
        .collect();
    assert_eq!(errors, [("onMissingSchema", "deadLetter"), ("maxRejected", "13%")]);
    // Nobody has the schema.
    let nothing = Schemas {
        asked: true,
        ..Schemas::default()
    };
    let finding = guess(&topic("t", vec![sample(framed(7, &value))]), &nothing);
    assert!(finding.obstacle.expect("an obstacle").contains("doesn't have"));
}

#[test]
fn a_schema_may_be_named_in_a_header() {
    let guid = uuid::Uuid::from_u128(7);
    let schema = known(
        1,
        SchemaLanguage::Avro,
        "{\"type\":\"record\",\"name\":\"R\",\"fields\":[{\"name\":\"n\",\"type\":\"long\"}]}",
    );
    let schemas = Schemas {
        found: schema
            .found
            .into_values()
            .map(|found| (SchemaName::Guid(guid), found))
            .collect(),
        ..schema
    };
    let header = [&[1][..], guid.as_bytes()].concat();
    let named = Sample {
        headers: vec![("__value_schema_id".to_owned(), Some(header))],
        ..sample([14])
    };
    let topic = topic("t", vec![named]);
    assert_eq!(schemas_named(&topic), [SchemaName::Guid(guid)]);
    let finding = guess(&topic, &schemas);
    assert_eq!(
        (finding.format.value.as_str(), finding.obstacle, finding.remarks),
        ("avro", None, vec![])
    );
    assert!(guessed(&topic).obstacle.is_some());
}

#[test]
fn schemas_that_do_not_go_together_or_cannot_be_used_are_told_of() {
    let schema =
        |of: &str| format!("{{\"type\":\"record\",\"name\":\"R\",\"fields\":[{{\"name\":\"n\",\"type\":\"{of}\"}}]}}");
    let mut schemas = known(1, SchemaLanguage::Avro, &schema("string"));
    schemas
        .found
        .extend(known(2, SchemaLanguage::Avro, &schema("int")).found);
    let both = topic("t", vec![sample(framed(1, b"\x02x")), sample(framed(2, b"\x02"))]);
    let finding = guess(&both, &schemas);
    let errors: Vec<_> = finding
        .errors
        .iter()
        .map(|(key, guess)| format!("{key}: {}", guess.value))
        .collect();
    assert_eq!(errors, ["onIncompatibleSchema: deadLetter", "maxRejected: 100%"]);
    assert!(finding.errors[0].1.reason.contains("schema 2"), "{finding:?}");
    let useless = known(1, SchemaLanguage::Avro, "{\"type\":\"recrd\"}");
    let finding = guess(&topic("t", vec![sample(framed(1, b"\x02x"))]), &useless);
    assert!(
        finding
            .obstacle
            .expect("an obstacle")
            .starts_with("schema 1 can't be used: ")
    );
}

#[test]
fn an_empty_topic_is_what_the_registry_says() {
    assert!(
        guessed(&topic("t", vec![]))
            .obstacle
            .expect("an obstacle")
            .starts_with("the topic is empty")
    );
    let text = SchemaText {
        language: SchemaLanguage::Protobuf,
        text: "syntax = \"proto3\"; import \"google/protobuf/timestamp.proto\"; message M { google.protobuf.Timestamp event_time = 1; }"
            .to_owned(),
        references: Vec::new(),
    };
    let schemas = Schemas {
        asked: true,
        newest: Some(Newest {
            id: 3,
            text: text.into(),
        }),
        ..Schemas::default()
    };
    let finding = guess(&topic("t", vec![]), &schemas);
    assert_eq!(
        (finding.format.value.as_str(), finding.registry, finding.obstacle),
        ("protobuf", true, None)
    );
    assert_eq!(
        finding.event_time_field.map(|guess| guess.value).as_deref(),
        Some("event_time")
    );
}

#[test]
fn event_times_are_found_by_name_value_and_nearness() {
    let check = |fields: Value, expect: &str| {
        let finding = guessed(&json_topic((0..10).map(|_| fields.clone())));
        let field = finding.event_time_field.map_or("none".to_owned(), |field| field.value);
        let format = finding
            .event_time_format
            .map_or(String::new(), |format| format!(" {format}"));
        assert_eq!(format!("{field}{format}"), expect, "{fields}");
    };
    let now = MORNING_MS;
    check(json!({"ts": now}), "ts");
    check(json!({"ts": now / 1000}), "ts epoch_seconds");
    check(json!({"ts": now as f64 / 1000.0 + 0.25}), "ts epoch_seconds");
    check(json!({"ts": now * 1000}), "ts epoch_micros");
    check(json!({"ts": now * 1_000_000}), "ts epoch_nanos");
    check(json!({"ts": now.to_string()}), "ts epoch_millis");
    check(json!({"ts": "2026-01-15T10:00:00Z"}), "ts");
    check(json!({"ts": "2026-01-15 10:00:00.123"}), "ts");
    check(json!({"ts": "2026/01/15 10:00:00"}), "ts %Y/%m/%d %H:%M:%S");
    check(json!({"ts": "yesterday"}), "none");
    check(json!({"ts": 12}), "none");
    check(json!({"amount": now}), "none");
    check(json!({"seen": "2026-01-15T10:00:00Z"}), "seen");
    check(json!({"seen": "2016-01-15T10:00:00Z"}), "none");
    check(
        json!({"birthday": "1990-01-15", "expires_at": "2026-01-15T10:00:00Z"}),
        "none",
    );
    check(json!({"updated_at": now, "created_at": now}), "created_at");
    check(json!({"meta": {"timestamp": now}, "created_at": now}), "meta.timestamp");
    check(json!({"a.b": {"timestamp": now}, "ts${x}": now}), "none");
    // One without a time is one dead letter.
    let values = (0..10).map(|n| {
        if n == 3 {
            json!({"id": n})
        } else {
            json!({"id": n, "ts": now})
        }
    });
    let finding = guessed(&json_topic(values));
    assert_eq!(finding.event_time_field, None);
    assert_eq!(
        finding.remarks,
        ["`ts` is no `eventTimeField`: it has no time in 1 of 10 samples"]
    );
}

#[test]
fn fields_that_disagree_are_told_of() {
    let values = [
        json!({"a": 1, "b": {"c": true}, "e": [1]}),
        json!({"A": 2, "b": {"c": "x"}, "d": 1, "e": ["x"]}),
        json!({"a": 2.5, "d": null}),
    ];
    let finding = guessed(&json_topic(values));
    assert_eq!(
        finding.remarks,
        [
            "`A` and `a` differ in case only: they are one column",
            "`b.c` is text in 1 and true or false in 1 samples: its column is text, the JSON of each value",
            "`e[]` is a number in 1 and text in 1 samples: its column is text, the JSON of each value",
        ]
    );
}

#[test]
fn keys_are_what_all_of_them_are() {
    let check = |keys: &[&[u8]], expect: Option<&str>| {
        let samples = keys.iter().map(|key| Sample {
            key: Some(key.to_vec()),
            ..sample("{}")
        });
        let found = guessed(&topic("t", samples.collect())).key_format;
        assert_eq!(found.map(|guess| guess.value).as_deref(), expect, "{keys:?}");
    };
    check(&[], None);
    check(&[b"k1", b"k2"], Some("string"));
    check(&[b"abcd", b"efghijkl"], Some("string"));
    check(&[b"\x00\x00\x00\x01"], Some("int"));
    check(&[b"\x00\x00\x00\x00\x00\x00\x00\x01"], Some("long"));
    check(&[b"{\"id\":1}"], Some("json"));
    check(&[b"\xff"], None);
    check(&[b"k1", b"\xff"], None);
}

#[test]
fn versions_of_rows_propose_a_table_of_rows() {
    let keyed = |key: &str, value: Option<Value>| Sample {
        key: Some(key.into()),
        value: value.map(|value| value.to_string().into_bytes()),
        ..Sample::default()
    };
    let value = |id: &str| Some(json!({"n": 1, "user_id": id}));
    let versions = vec![keyed("u1", value("u1")), keyed("u1", None), keyed("u2", value("u2"))];
    let field = |topic: &Topic| guessed(topic).key_field.map(|guess| guess.value);
    assert_eq!(field(&topic("t", versions.clone())).as_deref(), Some("user_id"));
    assert_eq!(field(&topic("t", versions[..1].to_vec())), None);
    let mut compacted = topic("t", vec![keyed("u1", value("other"))]);
    compacted.compacted = Some(true);
    assert_eq!(field(&compacted).as_deref(), Some("$key"));
}

#[test]
fn change_events_are_known_by_their_fields() {
    let check = |value: Value, expect: Option<&str>| {
        let found = guessed(&json_topic([value.clone()])).envelope;
        assert_eq!(found.map(|guess| guess.value).as_deref(), expect, "{value}");
    };
    let change = json!({"before": null, "after": {"id": 1}, "op": "c", "source": {"db": "x"}, "ts_ms": MORNING_MS});
    check(change.clone(), Some("debezium"));
    check(
        json!({"schema": {"type": "struct"}, "payload": change}),
        Some("debezium"),
    );
    check(json!({"id": 1, "__op": "u"}), Some("debezium"));
    check(
        json!({"event_id": "a", "operation": "INSERT", "payload_after": {"id": 1}}),
        Some("cdc"),
    );
    check(json!({"id": 1, "op": "c", "source": "x"}), None);
}

#[test]
fn a_file_is_what_a_person_would_write() {
    let order = |n: i64| json!({"id": n, "created_at": "2026-01-15T10:00:00Z"});
    let mut orders = json_topic((0..40).map(order));
    orders.name = "shop.Orders".to_owned();
    orders.offsets = 50_000;
    orders.samples.push(sample("oops"));
    orders
        .samples
        .iter_mut()
        .for_each(|sample| sample.key = Some(b"k".to_vec()));
    orders.compacted = Some(true);
    let avro = topic("007", vec![sample(framed(7, b"x"))]);
    let schemas = known(
        9,
        SchemaLanguage::Avro,
        "{\"type\":\"record\",\"name\":\"R\",\"fields\":[{\"name\":\"s\",\"type\":\"string\"}]}",
    );
    let users = guess(&topic("users", vec![sample(framed(9, b"\x02x"))]), &schemas);
    let access = Access {
        registry: Some("http://registry:8081".to_owned()),
        registry_keys: vec![
            ("username".to_owned(), "u".to_owned()),
            ("password".to_owned(), "hunter2".to_owned()),
        ],
        security: vec![("saslPassword".to_owned(), "${PASSWORD}".to_owned())],
        ..access()
    };
    let left_out = [
        ("a.dlq".to_owned(), "dead letters"),
        ("_schemas".to_owned(), "the platform's own"),
        ("b.dlq".to_owned(), "dead letters"),
    ];
    let findings = [guessed(&avro), guessed(&orders), users];
    insta::assert_snapshot!(file(&access, &findings, &left_out, Built { envelopes: false, key_formats: false }), @r##"
    # Guessed by `aperio discover` from samples: read it through, and change what isn't so. Then:
    # aperio validate FILE, aperio check FILE, aperio run --once FILE
    defaults:
      source:
        brokers: "kafka:9092"
        security:
          saslPassword: "${PASSWORD}"
    partitionedTables:
      # 007: 3 partitions, 1 record, 1 looked at
      # no table of it yet: its values begin with the id of a schema: name the registry that has it, with `--registry`; the format may be protobuf or json, too
      # - name: topic_007
      #   source:
      #     topic: "007"
      #     format: avro # the one sample is framed by a schema id
      #     schemaFile: schemas/topic_007.avsc
      # shop.Orders: 3 partitions, 50000 records, 41 looked at
      # 1 of 41 samples would be rejected, the first since the value is no JSON object
      - name: shop_orders
        source:
          topic: shop.Orders
          format: json # 40 of 41 samples are JSON objects, 1 is text
          # keyFormat: string # the keys of all 41 samples are text; not supported yet
          # mode: ktable # the topic is compacted: it keeps the last record of each key; this would keep the newest row of each key; not supported yet
          # keyField: "$key"
          eventTimeField: created_at # ISO 8601 text in all samples, within a minute of the records' own times
        materialize:
          partition: [date] # about 1,200,000 records a day, 49 MiB
        errors:
          maxRejected: 5% # 1 of 41 samples doesn't fit; at the default, 1%, a run would end
      # users: 3 partitions, 1 record, 1 looked at
      - name: users
        source:
          topic: users
          format: avro # the one sample is Avro of the registry
          schemaRegistry:
            url: "http://registry:8081"
            username: u
            password: "${REGISTRY_PASSWORD}" # it was given in clear, so it isn't printed
    # Left out, dead letters; `--topic NAME` takes it: a.dlq, b.dlq
    # Left out, the platform's own; `--topic NAME` takes it: _schemas
    "##);
}

#[test]
fn one_topic_needs_no_defaults() {
    let finding = guessed(&json_topic([json!({"ts": MORNING_MS / 1000})]));
    let text = file(&access(), &[finding], &[], Built::NOW);
    insta::assert_snapshot!(text, @r##"
    # Guessed by `aperio discover` from samples: read it through, and change what isn't so. Then:
    # aperio validate FILE, aperio check FILE, aperio run --once FILE
    partitionedTables:
      # t: 3 partitions, 1 record, 1 looked at
      - name: t
        source:
          brokers: "kafka:9092"
          topic: t
          format: json # the one sample is a JSON object
          eventTimeField: ts # seconds since 1970 in all samples, within a minute of the records' own times
          eventTimeFormat: epoch_seconds
    "##);
    let found = loaded(&text);
    assert_eq!((found[0].source.topic.as_str(), found[0].name.as_str()), ("t", "t"));
}

#[test]
fn what_is_printed_as_a_comment_is_what_the_configuration_refuses() {
    let takes = |key: &str| {
        let text = format!("partitionedTables:\n  - name: a\n    source: {{brokers: b, topic: t, {key}}}\n");
        config::parse(Path::new("a.yaml"), &text).is_ok()
    };
    let now = Built {
        envelopes: takes("envelope: debezium") && takes("envelope: cdc"),
        key_formats: takes("keyFormat: string") && takes("keyFormat: long"),
    };
    assert_eq!(now, Built::NOW, "print it as it is taken: `Built::NOW`");
    assert!(
        !takes("mode: ktable, keyField: id"),
        "print `mode: ktable` without a comment"
    );
}

#[test]
fn secrets_given_in_clear_are_not_printed() {
    let entry = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let access = Access {
        registry: Some("http://r".to_owned()),
        registry_keys: vec![entry("token", "hunter2")],
        security: vec![entry("saslPassword", "hunter2"), entry("keyPassword", "${file:/k}")],
        consumer_config: vec![
            entry("sasl.oauthbearer.config", "hunter2"),
            entry("fetch.min.bytes", "1"),
        ],
        ..access()
    };
    let mut finding = guessed(&json_topic([json!({"a": 1})]));
    finding.registry = true;
    let text = file(&access, &[finding], &[], Built::NOW);
    assert!(!text.contains("hunter2"), "{text}");
    for expect in [
        "${REGISTRY_TOKEN}",
        "${KAFKA_SASL_PASSWORD}",
        "${file:/k}",
        "${KAFKA_SASL_OAUTHBEARER_CONFIG}",
        "fetch.min.bytes: \"1\"",
    ] {
        assert!(text.contains(expect), "{expect}: {text}");
    }
    assert!(access.pipeline().contains("hunter2"));
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let any = proptest::collection::vec(any::<u8>(), 0..64);
    let framed = any.clone().prop_map(|body| framed(7, &body));
    let json = "\\{\"[a-cA-C.$]{0,3}\":([0-9]{1,20}|\"[ -~]{0,20}\"|\\[1,\"x\"\\]|\\{\"ts\":1768471200\\})\\}"
        .prop_map(String::into_bytes);
    prop_oneof![any, framed, json, ".{0,30}".prop_map(String::into_bytes)]
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let header = proptest::option::of(bytes()).prop_map(|value| ("__value_schema_id".to_owned(), value));
    let one = (
        proptest::option::of(any::<i64>()),
        proptest::option::of(bytes()),
        proptest::option::of(bytes()),
        proptest::collection::vec(header, 0..2),
    );
    let one = one.prop_map(|(timestamp_ms, key, value, headers)| Sample {
        timestamp_ms,
        key,
        value,
        headers,
    });
    proptest::collection::vec(one, 0..12)
}

proptest! {
    #[test]
    fn any_records_make_a_file_that_loads(samples in samples(), language in 0..4, offsets in any::<u64>()) {
        let schemas = match language {
            0 => Schemas::default(),
            1 => known(7, SchemaLanguage::Avro, "{\"type\":\"record\",\"name\":\"R\",\"fields\":[{\"name\":\"a\",\"type\":\"long\"},{\"name\":\"A\",\"type\":\"string\"}]}"),
            2 => known(7, SchemaLanguage::Protobuf, "syntax = \"proto3\"; message M { int64 ts = 1; string b = 2; }"),
            _ => known(7, SchemaLanguage::Json, "{\"type\":\"object\",\"properties\":{\"ts\":{\"type\":\"integer\"}}}"),
        };
        let mut topic = topic("any", samples);
        topic.offsets = offsets;
        let finding = guess(&topic, &schemas);
        let access = Access { registry: (language > 0).then(|| "http://r".to_owned()), ..access() };
        let live = finding.obstacle.is_none();
        let text = file(&access, &[finding], &[], Built::NOW);
        match config::parse(Path::new("a.yaml"), &text) {
            Ok(pipelines) => prop_assert_eq!(pipelines[0].source.topic.as_str(), "any"),
            Err(problems) => prop_assert!(!live, "{:?}\n{}", problems, text),
        }
    }

    #[test]
    fn names_come_back_from_the_file(names in proptest::collection::btree_set("[a-zA-Z0-9._-]{1,249}", 1..5)) {
        let findings: Vec<Finding> = names.iter().map(|name| Finding::of(name)).collect();
        let text = file(&access(), &findings, &[], Built::NOW);
        let found = loaded(&text);
        let topics: Vec<&str> = found.iter().map(|pipeline| pipeline.source.topic.as_str()).collect();
        prop_assert_eq!(topics, names.iter().map(String::as_str).collect::<Vec<_>>());
        let tables = tables(names.iter().map(String::as_str));
        prop_assert_eq!(found.iter().map(|pipeline| pipeline.name.clone()).collect::<Vec<_>>(), tables);
    }

    #[test]
    fn any_text_comes_back_from_the_file(value in "[^$]{1,40}", remark in ".{0,40}") {
        let mut finding = Finding::of("t");
        finding.remarks.push(remark.clone());
        finding.format.reason = format!("{remark}\n  x: y");
        // Of any text, this is what the file keeps as it is.
        let access = Access { consumer_config: vec![("client.id".to_owned(), value.clone())], ..access() };
        let found = loaded(&file(&access, &[finding], &[], Built::NOW));
        prop_assert_eq!(&found[0].source.client["client.id"], &value);
    }
}
