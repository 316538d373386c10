//! What decoding costs per record, each format beside the fastest public decoder that we know, in one run.
//!
//! - `cargo bench --bench decode`: nanoseconds per record, the best of several rounds, which are dealt out in turn. First both
//!   of a pair decode everything, and their columns are compared value by value.
//! - `… -- instructions`: instructions per record, which a busy machine doesn't change (needs valgrind).
//! - `… -- NAME ROUNDS`: one decoder alone. The one to profile.
#![allow(missing_docs, reason = "a program")]

mod events;
mod instructions;
mod others;
mod ours;

use std::hint::black_box;
use std::time::{Duration, Instant};

use aperio::chunk::Chunk;
use aperio::offsets::{Offset, OffsetRange, Partition};
use arrow::array::{Array, BinaryArray, Int64Array, RecordBatch};
use arrow::compute::{cast, concat_batches};

use events::{avro_records, json_records, protobuf_records};

/// Records of a chunk: what one poll brings of a partition.
const CHUNK_RECORDS: i64 = 8192;

/// Chunks of a round.
const CHUNKS: i64 = 12;

/// Rounds of each decoder.
const ROUNDS: usize = 9;

/// The id in front of every Avro and Protobuf record.
const SCHEMA_ID: i32 = 7;

/// Decodes a chunk.
type Decode = Box<dyn FnMut(&Chunk) -> Vec<RecordBatch>>;

/// Our decoder of a format, and another one.
struct Pair {
    format: &'static str,
    records: fn() -> Vec<Vec<u8>>,
    ours: fn() -> Decode,
    other: &'static str,
    others: fn() -> Decode,
}

const PAIRS: [Pair; 3] = [
    Pair {
        format: "avro",
        records: avro_records,
        ours: ours::avro,
        other: "arrow-avro",
        others: others::arrow_avro,
    },
    Pair {
        format: "protobuf",
        records: protobuf_records,
        ours: ours::protobuf,
        other: "ptars",
        others: others::ptars,
    },
    Pair {
        format: "json",
        records: json_records,
        ours: ours::json,
        other: "arrow-json",
        others: others::arrow_json,
    },
];

fn main() {
    // Cargo adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match *words {
        [] => times(),
        ["instructions"] => instructions::print(),
        [name, rounds] => alone(name, rounds.parse().expect("a number of rounds")),
        _ => panic!("nothing, or `instructions`, or a decoder's name and a number of rounds: {words:?}"),
    }
}

fn alone(name: &str, rounds: usize) {
    let decoder = PAIRS.iter().find_map(|pair| match name {
        name if name == pair.format => Some((pair.records, pair.ours)),
        name if name == pair.other => Some((pair.records, pair.others)),
        _ => None,
    });
    let (records, decode) = decoder.expect("a decoder of this name");
    let (chunks, mut decode) = (chunks(&records()), decode());
    (0..rounds).for_each(|_| round(&chunks, &mut decode));
}

fn round(chunks: &[Chunk], decode: &mut Decode) {
    for chunk in chunks {
        black_box(decode(chunk));
    }
}

fn times() {
    let total = CHUNKS * CHUNK_RECORDS;
    println!("{total} records, chunks of {CHUNK_RECORDS}, the best of {ROUNDS} rounds; ns per record");
    for pair in PAIRS {
        let records = (pair.records)();
        let bytes = records.iter().map(Vec::len).sum::<usize>() / records.len();
        let chunks = chunks(&records);
        let mut decoders = [(pair.ours)(), (pair.others)()];
        let [ours, others] = &mut decoders;
        for chunk in &chunks {
            assert_same(&ours(chunk), &others(chunk), chunk.len());
        }
        let mut best = [Duration::MAX; 2];
        for _ in 0..ROUNDS {
            for (best, decode) in best.iter_mut().zip(&mut decoders) {
                let start = Instant::now();
                round(&chunks, decode);
                *best = start.elapsed().min(*best);
            }
        }
        let [ours, others] = best.map(|time| time.as_nanos() as f64 / total as f64);
        print_pair(&pair, ours, others);
        println!("    a record has {bytes} bytes");
    }
}

fn print_pair(pair: &Pair, ours: f64, others: f64) {
    let (format, other) = (pair.format, pair.other);
    println!(
        "{format:<9}{ours:>8.1}   {other:<11}{others:>8.1}   {:>5.2}",
        others / ours
    );
}

/// Checks that two decoders made the same columns of the same values, whatever their types.
///
/// # Panics
/// If they differ in anything.
fn assert_same(ours: &[RecordBatch], others: &[RecordBatch], records: usize) {
    let whole = |parts: &[RecordBatch]| concat_batches(&parts[0].schema(), parts).expect("parts of one schema");
    let (ours, others) = (whole(ours), whole(others));
    assert_eq!(ours.num_rows(), records, "our rows");
    assert_eq!(ours.num_columns(), others.num_columns(), "columns");
    for (field, column) in ours.schema().fields().iter().zip(ours.columns()) {
        let name = field.name();
        let found = others.column_by_name(name).expect("a column of the same name");
        let found = cast(found, column.data_type()).expect("a type that becomes ours");
        assert!(
            column.to_data() == found.to_data(),
            "column `{name}` has the same values:\n{column:?}\n{found:?}"
        );
    }
}

fn chunks(records: &[Vec<u8>]) -> Vec<Chunk> {
    let chunks = records.chunks(CHUNK_RECORDS as usize);
    let chunks = chunks.map(|records| Chunk {
        partition: Partition(0),
        range: OffsetRange::new(Offset::new(0), Offset::new(CHUNK_RECORDS)),
        offsets: (0..CHUNK_RECORDS).collect::<Int64Array>(),
        timestamps: (0..CHUNK_RECORDS).collect::<Int64Array>(),
        keys: BinaryArray::from(vec![None::<&[u8]>; records.len()]),
        values: records.iter().map(Some).collect(),
        headers: None,
    });
    chunks.collect()
}
