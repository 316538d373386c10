//! Bytes that flip on a broker's disk: what a run says of it, and what is in the table once it is gone past.

use std::fs;
use std::path::Path;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::aperio::{Aperio, Outcome, Workspace};
use crate::produce;
use crate::readers::{self, Catalog};
use crate::servers::Kafka;
use crate::setup;

const BATCHES: i64 = 6;
const RECORDS: i64 = 10; // of one batch

/// Log lines that a run may write over the damage: as many as a person reads.
const LINES_MAX: usize = 60;

/// Some damage to one batch.
struct Damage {
    topic: &'static str,
    codec: &'static str,
    /// The number of the batch, from 0.
    batch: i64,
    /// Where in the batch; from its end where it is negative.
    at: i64,
    /// The bits that flip.
    bits: u8,
    /// How many offsets of the batch a broker can't give any more; `None` where a run can't find out.
    lost: Option<i64>,
}

const fn damage(topic: &'static str, codec: &'static str, batch: i64, at: i64, bits: u8) -> Damage {
    Damage {
        topic,
        codec,
        batch,
        at,
        bits,
        lost: Some(RECORDS),
    }
}

/// Source of the positions: Kafka's documentation, "Record Batch". 8: length, 16: magic, 17: checksum, 21: attributes, 23: last
/// offset's distance, 27: first time, 61: records.
const DAMAGES: [Damage; 12] = [
    damage("damage_value", "none", 2, -5, 1),
    damage("damage_zstd", "zstd", 2, -6, 0x10),
    damage("damage_lz4", "lz4", 2, -20, 0x10),
    damage("damage_gzip", "gzip", 2, -20, 0x10),
    damage("damage_snappy", "snappy", 2, -20, 0x10),
    damage("damage_first", "zstd", 0, 70, 0x55),
    damage("damage_last", "none", BATCHES - 1, 70, 0x55),
    damage("damage_codec", "zstd", 2, 22, 7),
    damage("damage_checksum", "none", 2, 18, 1),
    Damage {
        lost: None,
        ..damage("damage_magic", "none", 2, 16, 1)
    },
    // The broker looks at it: it gives the batch for one offset less.
    Damage {
        lost: Some(RECORDS - 1),
        ..damage("damage_delta", "none", 2, 26, 1)
    },
    damage("damage_time", "lz4", 3, 30, 1),
];

fn fill(kafka: &Kafka, topic: &str, codec: &str) {
    produce::create_topic(kafka, topic, 1, &[]);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .set("compression.type", codec)
        .set("linger.ms", "1000")
        .create()
        .expect("a producer");
    for batch in 0..BATCHES {
        for n in batch * RECORDS..(batch + 1) * RECORDS {
            let text = format!(r#"{{"id":{n},"text":"{:0300}"}}"#, n * 7_919);
            let record = BaseRecord::<(), _>::to(topic).partition(0).payload(&text);
            producer.send(record).expect("the queue has room");
        }
        producer.flush(setup::PATIENCE).expect("the broker takes a batch");
    }
}

/// Flips bits of one batch in the only segment of the topic's only partition.
fn flip(data: &Path, damage: &Damage) {
    let file = data
        .join(format!("{}-0", damage.topic))
        .join("00000000000000000000.log");
    let mut bytes = fs::read(&file).expect("the segment");
    let length = |bytes: &[u8], start: usize| {
        let length: [u8; 4] = bytes[start + 8..start + 12].try_into().expect("four bytes");
        12 + u32::from_be_bytes(length) as usize
    };
    let mut start = 0;
    for _ in 0..damage.batch {
        start += length(&bytes, start);
    }
    let base: [u8; 8] = bytes[start..start + 8].try_into().expect("eight bytes");
    assert_eq!(
        i64::from_be_bytes(base),
        damage.batch * RECORDS,
        "one batch for each flush"
    );
    let at = match usize::try_from(damage.at) {
        Ok(at) => start + at,
        Err(_) => start + length(&bytes, start) - damage.at.unsigned_abs() as usize,
    };
    bytes[at] ^= damage.bits;
    fs::write(&file, bytes).expect("the segment can be written");
}

fn workspace(kafka: &Kafka, topic: &str, more: &str) -> Workspace {
    let brokers = kafka.brokers();
    Workspace::new(&format!(
        "partitionedTables:\n  - name: {topic}\n    source:\n      brokers: \"{brokers}\"\n      topic: {topic}\n      format: json\n{more}"
    ))
}

fn ids(work: &Workspace, topic: &str) -> Vec<i64> {
    let found = readers::select(&Catalog::sql(&work.warehouse()), &format!("default.{topic}"), "id");
    let mut ids: Vec<i64> = found.iter().map(|row| row["id"].as_i64().expect("an id")).collect();
    ids.sort_unstable();
    ids
}

/// The command that the run says, as it would be typed.
fn hinted(outcome: &Outcome) -> Vec<String> {
    let (_, from) = outcome
        .stderr
        .split_once("`aperio sync-points reset FILE")
        .unwrap_or_else(|| panic!("no command: {outcome:#?}"));
    let (rest, _) = from.split_once('`').expect("the command ends");
    let start = ["sync-points", "reset", "pipeline.yaml"].map(str::to_owned);
    start
        .into_iter()
        .chain(rest.split_whitespace().map(str::to_owned))
        .collect()
}

#[test]
fn damage_on_a_disk_ends_the_run_at_once_and_is_gone_past_as_it_says() {
    let kafka = Kafka::start();
    for damage in &DAMAGES {
        fill(&kafka, damage.topic, damage.codec);
    }
    kafka.stop();
    for damage in &DAMAGES {
        flip(&kafka.data(), damage);
    }
    kafka.start_again();
    for (number, damage) in DAMAGES.iter().enumerate() {
        let topic = damage.topic;
        println!("{topic}");
        let work = workspace(
            &kafka,
            topic,
            "    columns: [{name: id, type: long}, {name: text, type: string}]\n",
        );
        let outcome = match number % 4 {
            0 => Aperio::start(work.path(), &["run", "pipeline.yaml", "--listen", "127.0.0.1:0"]).wait(),
            _ => work.start_once(&[]).wait(),
        };
        let outcome = outcome.expect_code(3);
        let at = damage.batch * RECORDS;
        let told = format!("{topic}/0 is damaged: it can't be read on from offset {at}");
        assert!(outcome.stderr.contains(&told), "{outcome:#?}");
        assert!(outcome.stderr.lines().count() <= LINES_MAX, "{outcome:#?}");
        // All before it is in the table.
        assert_eq!(ids(&work, topic), (0..at).collect::<Vec<_>>(), "{topic}");

        let mut reset = hinted(&outcome);
        let to = reset.last_mut().expect("the command has words");
        match damage.lost {
            Some(lost) => assert_eq!(*to, (at + lost).to_string(), "{outcome:#?}"),
            None => {
                assert!(outcome.stderr.contains("kafka-dump-log.sh"), "{outcome:#?}");
                assert_eq!(to, "OFFSET");
                *to = (at + RECORDS).to_string();
            }
        }
        reset.push("--yes".to_owned());
        let reset: Vec<&str> = reset.iter().map(String::as_str).collect();
        Aperio::run(work.path(), &reset).expect_code(0);
        work.start_once(&[]).wait().expect_code(0);
        // What a broker can't give isn't asked for: the batch behind it comes whole.
        let whole = |n: &i64| *n < at || *n >= at + RECORDS;
        let expect: Vec<i64> = (0..BATCHES * RECORDS).filter(whole).collect();
        assert_eq!(ids(&work, topic), expect, "{topic}");
    }

    // Damage is believed only by who asks for it, and is warned of.
    let believed = "      consumerConfig: {check.crcs: false}\n    columns: [{name: id, type: long}, {name: text, type: string}]\n";
    let work = workspace(&kafka, "damage_value", believed);
    let outcome = work.start_once(&[]).wait().expect_code(0);
    assert!(
        outcome.stderr.contains("`consumerConfig` switches `check.crcs` off"),
        "{outcome:#?}"
    );
    assert_eq!(ids(&work, "damage_value").len() as i64, BATCHES * RECORDS);
}
