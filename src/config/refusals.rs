//! Whole files that are refused: every problem with its line, path and hint.

use super::ValueFormat;
use super::tests::{check, check_table, one, table};

#[test]
fn the_full_example_lacks_only_what_is_not_built() {
    check(
        include_str!("example.yaml"),
        &["a.yaml:51: partitionedTables[0].materialize.lateness: `lateness` is not supported yet"],
    );
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    for format in ["string", "bytes", "messagepack"] {
        check_table(&format!("source: {{format: {format}}}"), &[]);
    }
    for format in ["json", "string", "bytes", "messagepack", "int", "long"] {
        check_table(&format!("source: {{keyFormat: {format}}}"), &[]);
    }
    for format in ["avro", "protobuf"] {
        check_table(
            &format!("source: {{keyFormat: {format}, schemaRegistry: \"http://r\"}}"),
            &[],
        );
        check_table(
            &format!("source: {{keyFormat: {format}, schemaFile: a.avsc}}"),
            &[&format!(
                "4: source.keyFormat: `keyFormat: {format}` needs the schemas of the keys; name the registry that has them as `schemaRegistry`; `schemaFile` is the schema of values"
            )],
        );
    }
    check_table(
        "source: {keyFormat: bytes, format: json, mode: kstream, envelope: none}",
        &[],
    );
    check_table(
        "source: {mode: ktable, keyField: id}",
        &["4: source.mode: `ktable` is not supported yet"],
    );
    check_table("source: {schemaRegistry: {url: \"http://r\"}}", &[]);
    check_table(
        "materialize: {formatVersion: 3}",
        &["4: materialize.formatVersion: `formatVersion: 3` is not supported yet"],
    );
    check_table(
        "materialize: {lateness: {threshold: 2h}}",
        &["4: materialize.lateness: `lateness` is not supported yet"],
    );
    check_table(
        "materialize: {maintenance: {compact: true}}",
        &["4: materialize.maintenance: `maintenance` is not supported yet"],
    );
    check_table("materialize: {maintenance: {}, formatVersion: 2, format: iceberg}", &[]);
    check_table("errors: {onMissingSchema: deadLetter, onIncompatibleSchema: fail}", &[]);
    check_table("source: {format: avro, schemaFile: a.avsc, include: [schema_id]}", &[]);
    check_table(
        "source: {format: avro}\nerrors: {onMissingSchema: default}",
        &[
            "4: source.format: `format: avro` needs a schema; name a `schemaRegistry`, or the schema that all values are written with as `schemaFile`",
            "5: errors.onMissingSchema: `onMissingSchema: default` needs a schema to read such records with; name it as `source.schemaFile`",
        ],
    );
    for kind in ["glue", "s3tables", "hms"] {
        let text = format!("catalog: {{type: {kind}}}\n{}", table(""));
        check(
            &text,
            &[&format!("a.yaml:1: catalog.type: `{kind}` is not supported yet")],
        );
    }
    let text = format!("catalog: {{uri: \"postgres://u:p@h/d\"}}\n{}", table(""));
    check(&text, &["a.yaml:1: catalog.uri: `postgres` is not supported yet"]);
}

#[test]
fn only_json_is_validated() {
    check_table("source: {validate: true, schemaFile: a.json}", &[]);
    check_table(
        "source: {validate: true, format: json, schemaRegistry: \"http://r\"}",
        &[],
    );
    let refused = "4: source.validate: is for JSON with a JSON Schema; write `format: json`, and name a `schemaRegistry` or a `schemaFile`; other formats always follow their schemas";
    check_table("source: {validate: true}", &[refused]);
    check_table("source: {validate: true, format: avro, schemaFile: a.avsc}", &[refused]);
}

#[test]
fn envelopes_are_what_they_can_be() {
    check_table("source: {envelope: debezium}", &[]);
    check_table(
        "source: {envelope: {type: cdc, apply: events, idempotent: true, horizon: 5}}",
        &[],
    );
    check_table("source: {envelope: {type: none, idempotent: true}}", &[]);
    check_table(
        "source: {envelope: {apply: rows}}",
        &["4: source.envelope.type: `type` is required; write `debezium` or `cdc`"],
    );
    check_table(
        "source: {format: string, envelope: cdc}",
        &[
            "4: source.envelope: is around records, and `format` says that values are one thing; write the format of the records as `format`",
        ],
    );
    check_table(
        "source: {envelope: {type: debezium, idempotent: true}}",
        &[
            "4: source.envelope.idempotent: `idempotent` knows an event by its `event_id`, and Debezium's have none; leave it out; with `mode: ktable` an event that comes again changes nothing",
        ],
    );
    check_table(
        "source: {envelope: {type: cdc, idempotent: true}, include: [offset]}\nmaterialize: {format: parquet}",
        &[
            "4: source.envelope.idempotent: `idempotent` needs the columns of the partition and the offset: events are known again by the table's own rows; let `include` name `partition` and `offset`, as it does if you leave it out",
            "4: source.envelope.idempotent: `idempotent` needs an Iceberg table: events are known again by the table's own rows; write `format: iceberg`",
        ],
    );
    check_table(
        "source: {envelope: {type: cdc, apply: events, idempotent: true}}\ncolumns: [{name: a, type: string}]",
        &[
            "4: source.envelope.idempotent: `idempotent` needs a column for `event_id`: events are known again by the table's own rows; add `{name: event_id, type: string}` to `columns`",
        ],
    );
    let format = |source: &str| one(source).source.format;
    assert_eq!(format("source: {envelope: cdc}"), ValueFormat::MessagePack);
    assert_eq!(format("source: {envelope: cdc, format: json}"), ValueFormat::Json);
    assert_eq!(format("source: {envelope: debezium}"), ValueFormat::Json);
}

#[test]
fn plain_parquet_needs_two_places_in_one_store() {
    let check_file = |head: &str, expect: Option<&str>| {
        let text = format!("{head}\n{}", table("materialize: {format: parquet, formatVersion: 2}"));
        let line = 4 + head.lines().count();
        let expect = expect.map(|hint| format!("a.yaml:{line}: partitionedTables[0].materialize.format: {hint}"));
        check(&text, &expect.as_deref().into_iter().collect::<Vec<_>>());
    };
    check_file("catalog: {warehouse: /w}", None);
    check_file("catalog: {warehouse: \"s3://b/w\"}", None);
    check_file("catalog: {warehouse: \"s3://b/w\"}\nstateDir: \"s3://b/state\"", None);
    check_file(
        "catalog: {warehouse: \"s3://b/w\"}\nstateDir: /state",
        Some(
            "`format: parquet` moves files from `stateDir` to `catalog.warehouse`; put both on disks, or both into one bucket",
        ),
    );
    check_file(
        "stateDir: warehouse/default/one/state",
        Some(
            "`stateDir` lies inside the table's directory; readers of the table would see files that aren't committed; choose another `stateDir`",
        ),
    );
    check_file(
        "catalog: {type: rest, uri: \"http://c\", warehouse: prod}",
        Some(
            "`format: parquet` needs a place for its files; write a path or URI as `catalog.warehouse`; the name of a REST catalog's warehouse is none",
        ),
    );
}

#[test]
fn misspelt_and_misplaced_keys_are_pointed_at() {
    check_table(
        "source:\n  batchSzie: 5\n  batch_size: 5",
        &[
            "5: source.batchSzie: unknown key; did you mean `batchSize`?",
            "6: source.batch_size: unknown key; did you mean `batchSize`?",
        ],
    );
    check_table(
        "topic: x",
        &["4: topic: unknown key; it belongs under `partitionedTables[].source`"],
    );
    check_table("qwertyuiop: x", &["4: qwertyuiop: unknown key"]);
    check_table(
        "source: {security: {saslMecanism: PLAIN}}",
        &["4: source.security.saslMecanism: unknown key; did you mean `saslMechanism`?"],
    );
    check_table(
        "columns:\n  - {name: a, typ: long}",
        &[
            "5: columns[0].typ: unknown key; did you mean `type`?",
            "5: columns[0].type: `type` is required",
        ],
    );
    check(
        "health: {maxlag: 5}\ntables: []\n",
        &[
            "a.yaml:1: health.maxlag: unknown key; did you mean `maxLag`?",
            "a.yaml:1: partitionedTables: names no table; add an entry with `name` and `source`",
            "a.yaml:2: tables: unknown key",
        ],
    );
    // A key in `defaults` is reported once, whatever the number of tables.
    check(
        "defaults:\n  source: {brokers: b, topic: t, fromat: json, mode: ktable}\npartitionedTables:\n  - {name: a}\n  - {name: b}\n",
        &[
            "a.yaml:2: defaults.source.fromat: unknown key; did you mean `format`?",
            "a.yaml:2: partitionedTables[0].source.mode: `ktable` is not supported yet",
        ],
    );
}

#[test]
fn types_units_and_names_are_checked_all_at_once() {
    check_table(
        "source:\n  batchWindow: 60\n  batchSize: 1m\n  nested: Keep\n  isolationLevel: 3\n  include: partition\n  topic: 2024\nmaterialize: []",
        &[
            "5: source.batchWindow: `60` has no unit; add the unit, like `60s` or `60ms`",
            "6: source.batchSize: is the text `1m`, not a whole number",
            "7: source.nested: `Keep` is not known; did you mean `keep`?",
            "8: source.isolationLevel: is the number `3`, not a text; write one of read_committed, read_uncommitted",
            "9: source.include: is the text `partition`, not a list",
            "10: source.topic: is the number `2024`, not a text; write it in quotes, `\"2024\"`",
            "11: materialize: is a list, not a map",
        ],
    );
    check_table(
        "source: {batchWindow: soon}",
        &["4: source.batchWindow: `soon` is not a duration; write it like `60s`, `1 minute` or `2h`"],
    );
    check_table(
        "source: {batchWindow: 0s}",
        &["4: source.batchWindow: is not above 0; write it like `60s`"],
    );
    check_table(
        "source: {batchSize: 0, maxPollRecords: -1}",
        &[
            "4: source.batchSize: `0` is below 1",
            "4: source.maxPollRecords: `-1` is below 1",
        ],
    );
    check_table(
        "materialize: {formatVersion: 4}",
        &["4: materialize.formatVersion: `4` is above 3"],
    );
    check_table(
        "errors: {maxRejected: 1.5}",
        &[
            "4: errors.maxRejected: is the number `1.5`, not a text or a whole number; write a share like `1%` or a whole number of records",
        ],
    );
    check_table("errors: {maxRejected: -1}", &["4: errors.maxRejected: `-1` is below 0"]);
    check_table(
        "errors: {maxRejected: 200%}",
        &["4: errors.maxRejected: `200%` is not between 0% and 100%"],
    );
    check(
        "a: b: c\n",
        &[
            "a.yaml:1: is not YAML: mapping values are not allowed in this context; look for a tab, a missing space after `:`, an open quote or a key written twice",
        ],
    );
    check(
        "defaults: {}\ndefaults: {}\n",
        &[
            "a.yaml:2: is not YAML: duplicated key in mapping; look for a tab, a missing space after `:`, an open quote or a key written twice",
        ],
    );
    check(
        "a: 1\n---\nb: 1\n",
        &["a.yaml: holds 2 YAML documents instead of 1; remove the `---` lines"],
    );
    check("- 1\n", &["a.yaml:1: is a list, not a map"]);
    check("", &["a.yaml: holds 0 YAML documents instead of 1"]);
}

#[test]
fn contradictions_are_reported() {
    check_table(
        "source: {startOffset: timestamp}",
        &[
            "4: source.startTimestamp: `startOffset: timestamp` needs `startTimestamp`; write it like `\"2024-01-01T00:00:00Z\"`",
        ],
    );
    check_table(
        "source: {startOffset: timestamp, startTimestamp: yesterday}",
        &[
            "4: source.startTimestamp: `yesterday` is not a point in time with its zone; write it like `\"2024-01-01T00:00:00Z\"`",
        ],
    );
    check_table(
        "source: {startOffset: earliest, startTimestamp: \"2024-01-01T00:00:00Z\", keyField: [a, b], orderBy: c}",
        &[],
    );
    check_table(
        "source: {security: {saslMechanism: PLAIN}}",
        &[
            "4: source.security.saslMechanism: `saslMechanism` contradicts `protocol: PLAINTEXT`; write `protocol: SASL_SSL` or leave it out",
        ],
    );
    check_table(
        "source: {security: {protocol: SASL_SSL, saslMechanism: PLAIN, saslUsername: u}}",
        &["4: source.security.saslPassword: `protocol: SASL_SSL` needs `saslPassword`"],
    );
    check_table(
        "source: {security: {protocol: SSL}, consumerConfig: {security.protocol: SSL}}",
        &[
            "4: source.consumerConfig.security.protocol: `security.protocol` is set by `security` too; keep one of the two",
        ],
    );
    check_table(
        "source:\n  consumerConfig:\n    fetch.min.bytes: 5\n    group.id: x\n    auto.offset.reset: latest",
        &[
            "7: source.consumerConfig.group.id: `group.id` is set by aperio; write it as `source.consumerGroup`",
            "8: source.consumerConfig.auto.offset.reset: `auto.offset.reset` is set by aperio; write `source.startOffset` for the first run; later runs start where the table ends",
        ],
    );
    check_table(
        "materialize: {partition: [date, \"buckt(16, a)\", date]}",
        &[
            "4: materialize.partition[1]: `buckt` is not a partition transform; did you mean `bucket`?",
            "4: materialize.partition[2]: `date` is listed twice",
        ],
    );
    check_table(
        "columns: [{name: id, type: long}, {name: ID, type: int}, {name: _kafka_offset, type: long}]\nmaterialize: {partition: [idd, id, _kafka_partition]}",
        &[
            "4: columns[1].name: the column `ID` is declared twice; names match case-insensitively",
            "4: columns[2].name: `include` adds a column `_kafka_offset` too; rename it and name its field in `from`",
            "5: materialize.partition[0]: names a column that `columns` doesn't declare; did you mean `id`?",
        ],
    );
    check_table(
        "columns:\n  - {name: a, type: lnog}\n  - {name: b, type: \"list<struct<x: int>\"}\nmaterialize: {partition: [a]}",
        &[
            "5: columns[0].type: `lnog` is no type at character 1 of `lnog`; types are boolean, int, long, float, double, decimal(p, s), date, time, timestamp, timestamptz, string, uuid, binary, fixed(n), struct<name: type, …>, list<type>, map<type, type>; did you mean `long`?",
            "6: columns[1].type: `>` is missing at character 20 of `list<struct<x: int>`",
        ],
    );
    check_table(
        "errors: {deadLetter: {topic: t}}",
        &[
            "4: errors.deadLetter.topic: is the topic that is read; dead letters would be read again; name another topic",
        ],
    );
    check_table(
        "errors: {deadLetter: {table: one}}",
        &["4: errors.deadLetter.table: is the table itself; name another table"],
    );
    check_table(
        "source: {eventTimeField: a..b, eventTimeFormat: epoch_milis}",
        &[
            "4: source.eventTimeFormat: `epoch_milis` is not a time format; did you mean `epoch_millis`?",
            "4: source.eventTimeField: `a..b` has an empty step; write it like `payload.created_at`",
        ],
    );
    check_table(
        "source: {topic: \"^a.*\"}\nschema: a/b",
        &[
            "4: source.topic: is a pattern; one table reads one topic; write one table per topic",
            "5: schema: `a/b` has a character that a table can't be named with; use letters, digits, `_`, `-` and `.`",
        ],
    );
    check_table(
        "source: {include: [key, key]}",
        &["4: source.include[1]: is listed twice"],
    );
    check(
        "partitionedTables:\n  - source: {topic: t}\n  - name: b\n",
        &[
            "a.yaml:2: partitionedTables[0].name: `name` is required",
            "a.yaml:2: partitionedTables[0].source.brokers: `brokers` is required",
            "a.yaml:3: partitionedTables[1].source: `source` is required; add `brokers` and `topic` to it",
        ],
    );
    let text = format!(
        "stateDir: \"{{warehouse}}/x\"\ncatalog: {{type: rest, warehouse: prod, properties: {{uri: x}}}}\n{}",
        table("")
    );
    check(
        &text,
        &[
            "a.yaml:1: stateDir: `{warehouse}` is a catalog's name here, not a path; leave `stateDir` out, or write a path or URI",
            "a.yaml:2: catalog.uri: `uri` is required for a REST catalog; write it like `http://catalog:8181`",
            "a.yaml:2: catalog.properties.uri: `uri` has a place of its own; write it as `catalog.uri`",
        ],
    );
}
