//! What a topic holds, guessed from samples, and the pipeline file that a person would start from. Nothing here asks anybody:
//! topics come with their samples, and with the schemas that these name.
//!
//! A format is guessed by trying: samples are decoded as a run would decode them, so that what is said to fit fits.

mod columns;
mod envelope;
mod event_time;
mod fields;
mod file;
mod key;
mod kind;
mod layout;
mod names;
mod schemas;

#[cfg(test)]
mod tests;

use serde::Serialize;

pub use self::file::{Access, Built, UNSHOWN, file};
pub use self::names::{Selection, select, tables};
pub use self::schemas::{Found, Newest, Schemas};

use self::columns::Sampled;
use self::kind::Kind;
use crate::config::ValueFormat;
use crate::schema::frame::SchemaName;
use crate::schema::{SchemaLanguage, SchemaText, WriterSchema};

/// Fields named in remarks of one kind: a person reads a few.
const REMARKS_MAX: usize = 5;

/// The share of samples that don't fit from which on a run would stop by `maxRejected`, whose default is 1%, or nearly.
const MISFITS_SHARE_MAX: f64 = 0.005;

/// A topic and what was read of it.
#[derive(Debug, Clone, Default)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: usize,
    /// Offsets between its beginnings and its ends: about how many records it holds, fewer where it is compacted.
    pub offsets: u64,
    /// Whether Kafka keeps the last record of each key (`cleanup.policy`); `None`: nobody told.
    pub compacted: Option<bool>,
    /// Records of every partition, some from its beginning and some from its end.
    pub samples: Vec<Sample>,
}

/// A record that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// Milliseconds since 1970, UTC.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// What is written for a topic, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The topic.
    pub topic: String,
    /// How many partitions it has.
    pub partitions: usize,
    /// About how many records it holds.
    pub records: u64,
    /// How many of them were looked at.
    pub samples: usize,
    /// Why there can't be a table of it as things are; its entry is a comment then.
    pub obstacle: Option<String>,
    /// Its brokers didn't let us read it.
    pub unread: bool,
    /// `format`.
    pub format: Guess,
    /// Whether its values, those to come, or its keys name schemas of the registry.
    pub registry: bool,
    /// `envelope`.
    pub envelope: Option<Guess>,
    /// `keyFormat`, where it isn't `bytes`.
    pub key_format: Option<Guess>,
    /// `keyField`, if the topic looks as one of a table whose rows change.
    pub key_field: Option<Guess>,
    /// `eventTimeField`.
    pub event_time_field: Option<Guess>,
    /// `eventTimeFormat`, where it isn't the default.
    pub event_time_format: Option<String>,
    /// `partition`, as YAML.
    pub partition: Option<Guess>,
    /// Keys of `errors`, with their values.
    pub errors: Vec<(&'static str, Guess)>,
    /// What else a person should know before the first run.
    pub remarks: Vec<String>,
}

/// A value of the pipeline file, and why it is that one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Guess {
    /// The value.
    pub value: String,
    /// The reason, for a person.
    pub reason: String,
}

impl Guess {
    fn new(value: impl Into<String>, reason: impl Into<String>) -> Self {
        Guess {
            value: value.into(),
            reason: reason.into(),
        }
    }
}

impl Finding {
    /// Nothing is known yet.
    fn of(topic: &str) -> Finding {
        Finding {
            topic: topic.to_owned(),
            partitions: 0,
            records: 0,
            samples: 0,
            obstacle: None,
            unread: false,
            format: Guess::new("json", "a guess in the dark"),
            registry: false,
            envelope: None,
            key_format: None,
            key_field: None,
            event_time_field: None,
            event_time_format: None,
            partition: None,
            errors: Vec::new(),
            remarks: Vec::new(),
        }
    }
}

/// What is said of a topic that couldn't be read.
pub fn unread(topic: &str, why: &str) -> Finding {
    Finding {
        obstacle: Some(format!("it can't be read: {why}")),
        unread: true,
        ..Finding::of(topic)
    }
}

/// Names the schemas of a registry that a topic's samples seem to be written with, the most frequent first; at most some dozens,
/// since bytes that begin with a 0 may be anything.
pub fn schemas_named(topic: &Topic) -> Vec<SchemaName> {
    schemas::named(topic)
}

/// Guesses what a topic holds.
///
/// - `schemas`: what became of asking for those of [`schemas_named`].
pub fn guess(topic: &Topic, schemas: &Schemas) -> Finding {
    let values: Vec<&Sample> = topic.samples.iter().filter(|sample| sample.value.is_some()).collect();
    let mut finding = Finding {
        partitions: topic.partitions,
        records: topic.offsets,
        samples: topic.samples.len(),
        ..Finding::of(&topic.name)
    };
    let kinds = kind::count(&values, schemas);
    let Some(winner) = kind::winner(&kinds) else {
        unsampled(topic, schemas, &mut finding);
        return finding;
    };
    finding.format = Guess::new(winner.format(), kind::reason(&kinds, winner));
    if let Some(why) = winner.obstacle(schemas.asked) {
        finding.obstacle = Some(why);
    }
    finding.registry = matches!(winner, Kind::Framed(_));
    let sampled = columns::decode(winner, &values, schemas);
    match sampled.unusable.first().filter(|_| sampled.fields.is_empty()) {
        Some(why) => finding.obstacle = Some(why.clone()),
        None => misfits(&sampled, &mut finding),
    }
    if winner == Kind::Bytes {
        let remark = "bare Avro or Protobuf looks like this: if these are, write `format: avro` or `protobuf` and name the schema \
                      as `schemaFile`";
        finding.remarks.push(remark.to_owned());
    }
    if matches!(
        winner,
        Kind::Json | Kind::MessagePack | Kind::Framed(SchemaLanguage::Json)
    ) {
        finding.remarks.extend(fields::remarks(winner, &values));
    } else {
        finding.remarks.extend(fields::twins(&sampled.fields));
    }
    finding.envelope = envelope::guess(&sampled.fields);
    event_time(topic, &sampled, &mut finding);
    let key = key::guess(topic, schemas, &sampled);
    finding.key_format = key.format;
    // Keys have schemas of their own, whatever values are.
    let framed = |guess: &Guess| matches!(guess.value.as_str(), "avro" | "protobuf");
    finding.registry |= finding.key_format.as_ref().is_some_and(framed);
    finding.key_field = key.field;
    finding
}

/// Guesses of a topic without values: by the registry, if that has its subject.
fn unsampled(topic: &Topic, schemas: &Schemas, finding: &mut Finding) {
    let found = match topic.samples.is_empty() {
        true => "the topic is empty".to_owned(),
        false => format!("all {} samples are tombstones", topic.samples.len()),
    };
    match &schemas.newest {
        Some(newest) => {
            let format = format_of(newest.text.language);
            let reason = format!("{found}; the registry has schema {} for its values", newest.id);
            finding.format = Guess::new(name_of(format), reason);
            finding.registry = true;
            let sampled = columns::of_schema(newest);
            finding.remarks.extend(sampled.unusable.iter().cloned());
            finding.envelope = envelope::guess(&sampled.fields);
            event_time(topic, &sampled, finding);
        }
        None => {
            let why = match schemas.asked {
                true => format!("{found}, and the registry has no schema for its values: nothing tells their format"),
                false => format!("{found}: nothing tells the format of its values"),
            };
            finding.obstacle = Some(why);
        }
    }
}

fn event_time(topic: &Topic, sampled: &Sampled, finding: &mut Finding) {
    let guessed = event_time::guess(&sampled.columns, &sampled.timestamps_ms);
    finding.remarks.extend(guessed.remarks);
    let records_ms: Vec<i64> = topic.samples.iter().filter_map(|sample| sample.timestamp_ms).collect();
    let mut times_us: Vec<i64> = records_ms.iter().map(|time| time.saturating_mul(1000)).collect();
    if let Some(best) = guessed.best {
        if !best.times_us.is_empty() {
            times_us = best.times_us;
        }
        finding.event_time_field = Some(Guess::new(best.path, best.reason));
        finding.event_time_format = best.format.map(str::to_owned);
    }
    let bytes: usize = topic
        .samples
        .iter()
        .filter_map(|sample| sample.value.as_ref())
        .map(Vec::len)
        .sum();
    let mean_bytes = bytes as u64 / topic.samples.len().max(1) as u64;
    finding.partition = layout::guess(topic.offsets, mean_bytes, &times_us);
}

/// Says which samples a run would reject, and keeps it going.
fn misfits(sampled: &Sampled, finding: &mut Finding) {
    for why in sampled.unusable.iter().take(REMARKS_MAX) {
        finding.remarks.push(why.clone());
    }
    if sampled.unregistered > 0 {
        let reason = format!(
            "{} name schemas that the registry doesn't have or that can't be used",
            kind::of(sampled.unregistered, sampled.values)
        );
        finding
            .errors
            .push(("onMissingSchema", Guess::new("deadLetter", reason)));
    }
    if let Some(why) = sampled.unusable.first().or(sampled.differences.first()) {
        let reason = format!("else a run ends: {why}");
        finding
            .errors
            .push(("onIncompatibleSchema", Guess::new("deadLetter", reason)));
    }
    let rejects = sampled.rejects.len();
    if let Some(first) = sampled.rejects.first() {
        let many = kind::of(rejects, sampled.values);
        finding
            .remarks
            .push(format!("{many} would be rejected, the first since {first}"));
        if rejects as f64 / sampled.values as f64 > MISFITS_SHARE_MAX {
            // Twice what the samples show, since the rest of the topic isn't them.
            let share = (200 * rejects).div_ceil(sampled.values).clamp(2, 100);
            let verb = if rejects == 1 { "doesn't" } else { "don't" };
            let reason = format!("{many} {verb} fit; at the default, 1%, a run would end");
            finding
                .errors
                .push(("maxRejected", Guess::new(format!("{share}%"), reason)));
        }
    }
}

/// What the file calls a format.
fn name_of(format: ValueFormat) -> &'static str {
    match format {
        ValueFormat::Json => "json",
        ValueFormat::Avro => "avro",
        ValueFormat::Protobuf => "protobuf",
        ValueFormat::MessagePack => "messagepack",
        ValueFormat::String => "string",
        ValueFormat::Bytes => "bytes",
    }
}

fn format_of(language: SchemaLanguage) -> ValueFormat {
    match language {
        SchemaLanguage::Avro => ValueFormat::Avro,
        SchemaLanguage::Protobuf => ValueFormat::Protobuf,
        SchemaLanguage::Json => ValueFormat::Json,
    }
}
