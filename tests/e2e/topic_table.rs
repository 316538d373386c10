//! A topic of three partitions whose table has its name: the pipeline file, what is produced, and what the table holds.

use serde_json::{Value, json};

use super::aperio::Workspace;
use super::encode;
use super::produce::{self, Record};
use super::readers::{self, Catalog, Engine};
use super::registry::Registry;
use super::servers::Kafka;

/// The pipeline file of a topic; `more` are lines of `source`, which may be followed by some of the table.
pub fn pipeline(topic: &str, format: &str, more: &str) -> String {
    format!(
        "partitionedTables:\n  - name: {name}\n    source:\n      brokers: \"{brokers}\"\n      topic: {topic}\n      format: {format}\n      \
         batchSize: 100\n      maxPollRecords: 20\n      consumerConfig: {{session.timeout.ms: \"6000\"}}\n{more}",
        name = table(topic),
        brokers = Kafka::shared().brokers(),
    )
}

/// The name of a topic's table.
pub fn table(topic: &str) -> String {
    topic.replace('-', "_")
}

/// Produces values, to each partition in turn.
pub fn produce(topic: &str, values: impl IntoIterator<Item = Vec<u8>>) {
    let records = values.into_iter().zip((0..3).cycle());
    produce::produce(
        Kafka::shared(),
        topic,
        records.map(|(value, partition)| Record::of(value).partition(partition)),
    );
}

/// Registers an Avro schema as the next version of the topic's subject, and produces values written with it.
pub fn produce_avro(topic: &str, schema: &Value, values: Vec<Value>) -> i32 {
    let id = Registry::shared().register(&format!("{topic}-value"), "AVRO", &schema.to_string(), &[]);
    produce(topic, encode::avro(Some(id), schema, values));
    id
}

/// The schema of an Avro record in the namespace `shop`.
pub fn avro_record(name: &str, fields: Value) -> Value {
    json!({"type": "record", "name": name, "namespace": "shop", "fields": fields})
}

/// The rows of a topic's table by their `id`, without the columns about Kafka.
pub fn rows(engine: Engine, work: &Workspace, topic: &str) -> Vec<Value> {
    let name = format!("default.{}", table(topic));
    payload(readers::read(engine, &Catalog::sql(&work.warehouse()), &name, None))
}

/// Rows by their `id`, without the columns about Kafka.
pub fn payload(mut rows: Vec<Value>) -> Vec<Value> {
    for row in &mut rows {
        row.as_object_mut()
            .expect("a row")
            .retain(|name, _| !name.starts_with("_kafka"));
    }
    rows.sort_by_key(|row| row["id"].as_i64());
    rows
}

/// Null fields left out, at every level: Spark's JSON has none.
pub fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            fields
                .map(|(name, value)| (name.clone(), without_nulls(value)))
                .collect()
        }
        other => other.clone(),
    }
}
