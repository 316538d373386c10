//! `aperio discover` on clusters of topics in every format: what it prints is checked and run as it is, and the tables hold what
//! was written.

use serde_json::{Value, json};

use super::aperio::{Aperio, Workspace};
use super::encode;
use super::produce::{self, Record};
use super::proxy::Fault;
use super::readers::{self, Catalog};
use super::registry::{Registry, RegistryProxy};
use super::servers::Kafka;
use super::setup;

/// 2026-01-15T10:00:00Z.
const MORNING_MS: i64 = 1_768_471_200_000;

fn fill(kafka: &Kafka, topic: &str, values: Vec<Vec<u8>>) {
    let records = values.into_iter().zip(0..).map(|(value, n)| {
        let record = Record::of(value).partition((n % 2) as i32).at(MORNING_MS + 1000 * n);
        record.key(format!("k{}", n % 10))
    });
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, records);
}

fn texts(values: impl IntoIterator<Item = Value>) -> Vec<Vec<u8>> {
    values.into_iter().map(|value| value.to_string().into_bytes()).collect()
}

/// The part of the file that is about a topic: from the comment with its name up to the next one's.
fn about<'a>(file: &'a str, topic: &str) -> &'a str {
    let start = file
        .find(&format!("  # {topic}: "))
        .unwrap_or_else(|| panic!("`{topic}` isn't in it:\n{file}"));
    let rest = &file[start + 4..];
    let next = |at: &usize| {
        rest[at + 5..]
            .lines()
            .next()
            .is_some_and(|line| line.ends_with("looked at"))
    };
    let end = rest.match_indices("\n  # ").map(|(at, _)| at).find(next);
    let end = end.unwrap_or(rest.len());
    &rest[..end]
}

fn expect_about(file: &str, topic: &str, expect: &[&str]) {
    let found = about(file, topic);
    for line in expect {
        assert!(found.contains(line), "`{line}` isn't said of `{topic}`:\n{found}");
    }
}

#[test]
fn what_is_printed_runs_and_fills_the_tables() {
    let (kafka, registry) = (Kafka::start(), Registry::shared());
    let subject = |topic: &str| format!("{topic}-value");

    let orders = (0..12_000).map(|n| json!({"id": n, "created_at": "2026-01-15T10:00:00Z", "total": n as f64 / 2.0}));
    fill(&kafka, "discover.orders-v1", texts(orders));

    let at = json!({"type": "long", "logicalType": "timestamp-millis"});
    let user = json!({"type": "record", "name": "User", "namespace": "discover", "fields": [
        {"name": "id", "type": "long"}, {"name": "name", "type": "string"}, {"name": "seen", "type": at},
    ]});
    let id = registry.register(&subject("discover-users"), "AVRO", &user.to_string(), &[]);
    let users =
        (0..100).map(|n| json!({"id": n, "name": format!("u{n}"), "seen": {"$datetime": "2026-01-15T10:00:00Z"}}));
    let users = encode::avro(Some(id), &user, users);
    produce::create_topic(&kafka, "discover-users", 2, &[("cleanup.policy", "compact")]);
    let users = users
        .into_iter()
        .zip(0..)
        .map(|(value, n)| Record::of(value).key(format!("u{n}")).at(MORNING_MS));
    produce::produce(&kafka, "discover-users", users);

    let click = "syntax = \"proto3\"; package discover; import \"google/protobuf/timestamp.proto\";\
                 message Other {} message Click { int64 id = 1; google.protobuf.Timestamp at = 2; }";
    let id = registry.register(&subject("discover-clicks"), "PROTOBUF", click, &[]);
    let clicks = (0..100).map(|n| json!({"id": n, "at": "2026-01-15T10:00:00Z"}));
    fill(
        &kafka,
        "discover-clicks",
        encode::protobuf(Some(id), &[("click.proto", click)], "discover.Click", clicks),
    );

    let visit = json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {
        "id": {"type": "integer"}, "ts": {"type": "integer"},
    }});
    let id = registry.register(&subject("discover-visits"), "JSON", &visit.to_string(), &[]);
    let visits: Vec<_> = (0..100)
        .map(|n| json!({"value": {"id": n, "ts": MORNING_MS * 1000 + n}}))
        .collect();
    let document = json!({"format": "json", "frame": {"id": id}, "records": visits});
    fill(&kafka, "discover-visits", encode::encode(&document));

    let metrics = (0..100).map(|n| json!({"id": n, "time": MORNING_MS / 1000 + n, "Value": n, "tags": {"a": "b"}}));
    fill(&kafka, "discover-metrics", encode::msgpack(metrics));
    fill(
        &kafka,
        "discover-notes",
        (0..100).map(|n| format!("é{n}").into_bytes()).collect(),
    );
    let blobs = (0..100_i64).map(|n| Record::of([&[0xFF], &n.to_be_bytes()[..]].concat()).key(n.to_be_bytes()));
    produce::create_topic(&kafka, "discover-blobs", 2, &[]);
    produce::produce(&kafka, "discover-blobs", blobs);
    let change = |n: i64| {
        let source = json!({"connector": "postgresql", "table": "t"});
        json!({"before": null, "after": {"id": n}, "op": "c", "source": source, "ts_ms": MORNING_MS + n})
    };
    fill(&kafka, "discover.public.changes", texts((0..100).map(change)));
    let mut mixed = texts((0..95).map(|n| json!({"id": n, "odd": if n % 2 == 0 { json!(n) } else { json!("x") }})));
    mixed.extend((0..5).map(|n| format!("oops {n}").into_bytes()));
    fill(&kafka, "discover-mixed", mixed);
    produce::create_topic(&kafka, "discover-empty", 2, &[]);
    produce::create_topic(&kafka, "discover-awaited", 2, &[]);
    registry.register(&subject("discover-awaited"), "AVRO", &user.to_string(), &[]);
    produce::create_topic(&kafka, "discover-orders.dlq", 1, &[]);
    // A table of the same name.
    fill(&kafka, "discover_notes", texts((0..3).map(|n| json!({"id": n}))));

    let work = Workspace::new("");
    let brokers = kafka.brokers();
    let arguments = ["discover", "--brokers", &brokers, "--registry", &registry.url()];
    let told = Aperio::run(work.path(), &arguments).expect_code(0);
    let file = &told.stdout;
    expect_about(
        file,
        "discover.orders-v1",
        &[
            "- name: discover_orders_v1",
            "topic: discover.orders-v1",
            "format: json",
            "keyFormat: string",
            "eventTimeField: created_at",
            "partition: [date]",
        ],
    );
    expect_about(
        file,
        "discover-users",
        &["format: avro", "mode: ktable", "keyField: name", "eventTimeField: seen"],
    );
    expect_about(file, "discover-clicks", &["format: protobuf", "eventTimeField: at"]);
    expect_about(
        file,
        "discover-visits",
        &["format: json", "eventTimeField: ts", "eventTimeFormat: epoch_micros"],
    );
    expect_about(
        file,
        "discover-metrics",
        &[
            "format: messagepack",
            "eventTimeField: time",
            "eventTimeFormat: epoch_seconds",
        ],
    );
    expect_about(file, "discover-notes", &["format: string"]);
    expect_about(file, "discover-blobs", &["format: bytes", "keyFormat: long"]);
    expect_about(
        file,
        "discover.public.changes",
        &["envelope: debezium", "eventTimeField: ts_ms"],
    );
    expect_about(
        file,
        "discover-mixed",
        &[
            "95 of 100 samples are JSON objects, 5 are text",
            "maxRejected: 10%",
            "`odd` is a number in 48 and text in 47 samples",
        ],
    );
    expect_about(
        file,
        "discover-awaited",
        &["format: avro", "the topic is empty; the registry has schema"],
    );
    expect_about(
        file,
        "discover-empty",
        &["no table of it yet: the topic is empty", "# - name: discover_empty"],
    );
    expect_about(file, "discover_notes", &["- name: discover_notes_2"]);
    assert!(
        file.contains("# Left out, dead letters; `--topic NAME` takes it: discover-orders.dlq"),
        "{file}"
    );
    assert!(
        told.stderr.contains("12 topics; 1 only as comments, 1 left out"),
        "{}",
        told.stderr
    );

    work.rewrite(file);
    Aperio::run(work.path(), &["validate", "pipeline.yaml"]).expect_code(0);
    let report = work.start_once(&["--output", "json"]).wait().expect_code(0).report();
    let catalog = Catalog::sql(&work.warehouse());
    for (table, rows, what) in [
        (
            "discover_orders_v1",
            12_000,
            "sum(id) = 71994000 AND epoch_us(min(_event_time)) = 1768471200000000",
        ),
        (
            "discover_users",
            100,
            "count(DISTINCT name) = 100 AND epoch_us(min(seen)) = 1768471200000000",
        ),
        (
            "discover_clicks",
            100,
            "sum(id) = 4950 AND epoch_us(max(\"at\")) = 1768471200000000",
        ),
        ("discover_visits", 100, "sum(id) = 4950"),
        ("discover_metrics", 100, "sum(Value) = 4950"),
        ("discover_notes", 100, "max(value) = 'é99'"),
        ("discover_blobs", 100, "count(DISTINCT value) = 100"),
        ("discover_public_changes", 100, "sum(id) = 4950"),
        ("discover_mixed", 95, "sum(id) = 4465 AND count(odd) = 95"),
        ("discover_notes_2", 3, "sum(id) = 3"),
    ] {
        let found = readers::select(
            &catalog,
            &format!("default.{table}"),
            &format!("count(*) AS n, {what} AS holds"),
        );
        assert_eq!(found, [json!({"n": rows, "holds": true})], "{table}: {report:#}");
    }
    // Nothing was changed there by looking.
    let groups = produce::groups(&kafka);
    assert!(!groups.iter().any(|group| group.contains("samples")), "{groups:?}");
    assert_eq!(kafka_topics(&kafka), 13, "a topic was made");
}

/// How many topics there are, Kafka's own left out.
fn kafka_topics(kafka: &Kafka) -> usize {
    let listed = kafka.run_tool("org.apache.kafka.tools.TopicCommand", &["--list", "--exclude-internal"]);
    listed.lines().filter(|line| !line.trim().is_empty()).count()
}

#[test]
fn without_a_registry_framed_values_wait_for_one() {
    let (kafka, registry) = (Kafka::shared(), Registry::shared());
    let schema = json!({"type": "record", "name": "R", "fields": [{"name": "id", "type": "long"}]});
    let id = registry.register("framed-discover-value", "AVRO", &schema.to_string(), &[]);
    let values = encode::avro(Some(id), &schema, (0..100).map(|n| json!({"id": n})));
    fill(kafka, "framed-discover", values);
    let work = Workspace::new("");
    let brokers = kafka.brokers();
    let discover = |more: &[&str], variables: &[(&str, &str)]| {
        let arguments = [&["discover", "--brokers", &brokers, "--topic", "framed-disc*"], more].concat();
        Aperio::start_with(work.path(), &arguments, variables).wait()
    };
    let file = discover(&[], &[]).expect_code(0).stdout;
    assert!(
        file.contains("name the registry that has it, with `--registry`"),
        "{file}"
    );
    assert!(file.contains("  # - name: framed_discover"), "{file}");

    // One that lets only those in that it knows: what is printed has the variable, not the password.
    let proxy = RegistryProxy::start(registry);
    proxy.demand("Basic dTpzZWNyZXQ=");
    let url = proxy.url();
    let login = [
        "--registry",
        &url,
        "--registry-config",
        "username=u",
        "--registry-config",
        "password=${REGISTRY_PASSWORD}",
    ];
    discover(&["--registry", &url], &[]).expect_code(4);
    discover(&login, &[]).expect_code(2);
    let variables = [("REGISTRY_PASSWORD", "secret")];
    let file = discover(&login, &variables).expect_code(0).stdout;
    assert!(
        !file.contains("secret") && file.contains("${REGISTRY_PASSWORD}"),
        "{file}"
    );
    work.rewrite(&file);
    let arguments = ["run", "--once", "pipeline.yaml"];
    Aperio::start_with(work.path(), &arguments, &variables)
        .wait()
        .expect_code(0);
    let found = readers::select(
        &Catalog::sql(&work.warehouse()),
        "default.framed_discover",
        "sum(id)::BIGINT AS sum",
    );
    assert_eq!(found, [json!({"sum": 4950})]);

    let report = discover(&["--output", "json"], &[]).expect_code(0).report();
    assert_eq!(report["topics"][0]["topic"], "framed-discover", "{report:#}");
    assert_eq!(report["topics"][0]["samples"], 100, "{report:#}");
    assert!(
        report["pipelineFile"]
            .as_str()
            .is_some_and(|text| text.contains("framed_discover")),
        "{report:#}"
    );

    proxy.pass();
    proxy.fail(Fault::Refuse(500));
    let told = discover(&["--registry", &url], &[]).expect_code(4);
    assert!(told.stderr.contains("the schema registry can't be used"), "{told:#?}");
}

#[test]
fn what_cannot_be_asked_says_why() {
    let (kafka, work) = (Kafka::start_with_user("reader", "secret"), Workspace::new(""));
    let discover = |arguments: &[&str]| {
        let variables = [("KAFKA_SASL_PASSWORD", "secret")];
        Aperio::start_with(work.path(), &[&["discover"], arguments].concat(), &variables).wait()
    };
    let nobody = format!("127.0.0.1:{}", setup::free_port());
    let told = discover(&["--brokers", &nobody]).expect_code(4);
    assert!(
        told.stderr.contains("can't be reached") && told.stderr.contains("hint:   look at `--brokers`"),
        "{told:#?}"
    );

    for topic in ["open", "secret"] {
        fill(&kafka, topic, texts((0..10).map(|n| json!({"id": n}))));
    }
    let brokers = kafka.login_brokers();
    let login = [
        "--brokers",
        &brokers,
        "--security",
        "protocol=SASL_PLAINTEXT",
        "--security",
        "saslMechanism=SCRAM-SHA-512",
        "--security",
        "saslUsername=reader",
        "--security",
        "saslPassword=secret",
    ];
    let rights = |topic: &str, operation: &str| {
        let all = [
            "--add",
            "--allow-principal",
            "User:reader",
            "--operation",
            operation,
            "--force",
            "--topic",
            topic,
        ];
        kafka.run_tool("org.apache.kafka.tools.AclCommand", &all);
    };
    for topic in ["open", "secret"] {
        rights(topic, "Describe");
    }
    // Nothing may be read.
    let told = discover(&login).expect_code(4);
    assert!(told.stderr.contains("refuses us for topic `open`"), "{told:#?}");
    rights("open", "Read");
    let file = discover(&login).expect_code(0).stdout;
    expect_about(&file, "open", &["- name: open", "format: json"]);
    expect_about(&file, "secret", &["# - name: secret", "it can't be read: Kafka "]);
    let told = discover(&[&login[..], &["--topic", "opne"]].concat()).expect_code(2);
    assert!(
        told.stderr.contains("no topic matches `opne`") && told.stderr.contains("did you mean `open`?"),
        "{told:#?}"
    );
    let told = discover(&[&login[..], &["--consumer-config", "group.id=x"]].concat()).expect_code(2);
    assert!(
        told.stderr
            .contains("--consumer-config group.id: `group.id` is set by aperio"),
        "{told:#?}"
    );
    // The password isn't printed, and the file runs with the variable that stands for it.
    assert!(
        !file.contains("saslPassword: secret") && file.contains("${KAFKA_SASL_PASSWORD}"),
        "{file}"
    );
    kafka.run_tool(
        "org.apache.kafka.tools.AclCommand",
        &[
            "--add",
            "--allow-principal",
            "User:reader",
            "--operation",
            "Read",
            "--force",
            "--group",
            "aperio-open",
        ],
    );
    work.rewrite(&file);
    let variables = [("KAFKA_SASL_PASSWORD", "secret")];
    Aperio::start_with(work.path(), &["run", "--once", "pipeline.yaml"], &variables)
        .wait()
        .expect_code(0);
    let found = readers::select(
        &Catalog::sql(&work.warehouse()),
        "default.open",
        "sum(id)::BIGINT AS sum",
    );
    assert_eq!(found, [json!({"sum": 45})]);
}
