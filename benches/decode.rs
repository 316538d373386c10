//! What decoding costs per record, each format beside the fastest public decoder that we know, in one run.
//!
//! `cargo bench --bench decode` prints nanoseconds per record, the best of several rounds, which are dealt out in turn;
//! `… -- NAME ROUNDS` runs one decoder alone: for `valgrind --tool=callgrind`, whose instruction counts are steady.
#![allow(missing_docs, reason = "a program")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apache_avro::types::Value;
use aperio::chunk::Chunk;
use aperio::decode::framed::{FramedDecoder, Framing};
use aperio::decode::json::JsonDecoder;
use aperio::offsets::{Offset, OffsetRange, Partition};
use aperio::schema::frame::SchemaKey;
use aperio::schema::{Missing, RowPlan, SchemaLanguage, SchemaText, UnknownFields, WriterSchema, Writers};
use aperio::schema::{evolve, follow};
use arrow::array::{BinaryArray, Int64Array};

/// Records of a chunk: what one poll brings of a partition.
const CHUNK_RECORDS: i64 = 8192;

/// Chunks of a round.
const CHUNKS: i64 = 12;

/// Rounds of each decoder.
const ROUNDS: usize = 9;

/// The id in front of every record.
const SCHEMA_ID: u32 = 7;

/// An event of 13 fields, one of them nullable, one inside another, one a list.
const SCHEMA: &str = r#"{"type":"record","name":"Event","fields":[
  {"name":"id","type":"long"},{"name":"user_id","type":"long"},{"name":"kind","type":"string"},
  {"name":"country","type":"string"},{"name":"amount","type":"double"},
  {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"session","type":"string"},
  {"name":"ok","type":"boolean"},{"name":"note","type":["null","string"]},{"name":"count","type":"int"},
  {"name":"place","type":{"type":"record","name":"Place","fields":[{"name":"city","type":"string"},{"name":"zip","type":"int"}]}},
  {"name":"tags","type":{"type":"array","items":"string"}}]}"#;

/// Decodes all chunks.
type Decode = Box<dyn FnMut()>;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let mut decoders = decoders();
    if let [name, rounds] = arguments.as_slice() {
        let rounds: usize = rounds.parse().expect("a number of rounds");
        let found = decoders.iter_mut().find(|(known, _)| known == name);
        let (_, decode) = found.expect("a decoder of this name");
        (0..rounds).for_each(|_| decode());
        println!("{} records", rounds as i64 * CHUNKS * CHUNK_RECORDS);
        return;
    }
    let mut best = vec![Duration::MAX; decoders.len()];
    for _ in 0..ROUNDS {
        for (at, (_, decode)) in decoders.iter_mut().enumerate() {
            let start = Instant::now();
            decode();
            best[at] = best[at].min(start.elapsed());
        }
    }
    let records = (CHUNKS * CHUNK_RECORDS) as f64;
    println!("{:<16}{:>12}", "decoder", "ns/record");
    for ((name, _), time) in decoders.iter().zip(best) {
        println!("{name:<16}{:>12.1}", time.as_nanos() as f64 / records);
    }
}

/// The decoders by name; each decodes all chunks.
fn decoders() -> Vec<(&'static str, Decode)> {
    let (avro, json) = (avro_records(), json_records());
    println!(
        "{} records, bytes of one: Avro {}, JSON {}",
        CHUNKS * CHUNK_RECORDS,
        avro.iter().map(Vec::len).sum::<usize>() / avro.len(),
        json.iter().map(Vec::len).sum::<usize>() / json.len(),
    );
    vec![
        ("avro", aperio_avro(&avro)),
        ("arrow-avro", arrow_avro(avro)),
        ("json", aperio_json(&json)),
        ("arrow-json", arrow_json(json)),
    ]
}

// --- ours ----------------------------------------------------------------------------------------------------------------

fn plan() -> (Arc<RowPlan>, Arc<Writers>) {
    let mut writers = Writers::default();
    let text = SchemaText {
        language: SchemaLanguage::Avro,
        text: SCHEMA.to_owned(),
        references: Vec::new(),
    };
    let key = SchemaKey::id(SCHEMA_ID as i32);
    let writer = WriterSchema::parse(&key, &text).expect("a schema");
    writers.add(key, Arc::new(writer));
    let columns = evolve::create_schema(follow::merged(&writers, follow::Form::default()), &[], false);
    let plan = evolve::row_plan(Arc::new(columns), None, &[], false, UnknownFields::Evolve, false);
    (Arc::new(plan), Arc::new(writers))
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

fn aperio_avro(records: &[Vec<u8>]) -> Decode {
    let (plan, writers) = plan();
    let mut decoder = FramedDecoder::new(plan, writers, Framing::Registry { indexes: false }, None);
    let chunks = chunks(records);
    Box::new(move || {
        for chunk in &chunks {
            let decoded = decoder.decode(chunk, &Missing::new());
            assert_eq!(decoded.rows.num_rows(), chunk.len());
            black_box(decoded);
        }
    })
}

fn aperio_json(records: &[Vec<u8>]) -> Decode {
    let mut decoder = JsonDecoder::new(plan().0);
    let chunks = chunks(records);
    Box::new(move || {
        for chunk in &chunks {
            let decoded = decoder.decode(chunk);
            assert_eq!(decoded.rows.num_rows(), chunk.len());
            black_box(decoded);
        }
    })
}

// --- others --------------------------------------------------------------------------------------------------------------

fn arrow_avro(records: Vec<Vec<u8>>) -> Decode {
    use arrow_avro::reader::ReaderBuilder;
    use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    let schema = AvroSchema::new(SCHEMA.to_owned());
    store.set(Fingerprint::Id(SCHEMA_ID), schema).expect("a schema");
    let mut decoder = ReaderBuilder::new()
        .with_writer_schema_store(store)
        .with_batch_size(CHUNK_RECORDS as usize)
        .build_decoder()
        .expect("a decoder");
    Box::new(move || {
        for chunk in records.chunks(CHUNK_RECORDS as usize) {
            for record in chunk {
                let taken = decoder.decode(record).expect("a record");
                assert_eq!(taken, record.len());
            }
            let rows = decoder.flush().expect("good records").expect("rows");
            assert_eq!(rows.num_rows(), chunk.len());
            black_box(rows);
        }
    })
}

fn arrow_json(records: Vec<Vec<u8>>) -> Decode {
    use arrow_json::reader::ReaderBuilder;
    let schema = Arc::new(plan().0.arrow.as_ref().clone());
    // Smaller batches are the cheaper ones there.
    let batch = 1024;
    let mut decoder = ReaderBuilder::new(schema)
        .with_batch_size(batch)
        .build_decoder()
        .expect("a decoder");
    Box::new(move || {
        for chunk in records.chunks(batch) {
            for record in chunk {
                decoder.decode(record).expect("a record");
            }
            let rows = decoder.flush().expect("good records").expect("rows");
            assert_eq!(rows.num_rows(), chunk.len());
            black_box(rows);
        }
    })
}

// --- records -------------------------------------------------------------------------------------------------------------

/// Record `n`: its fields in the order of the schema.
struct Event {
    id: i64,
    user_id: i64,
    kind: &'static str,
    country: &'static str,
    amount: f64,
    at: i64,
    session: String,
    ok: bool,
    note: Option<String>,
    count: i32,
    city: String,
    zip: i32,
    tags: Vec<&'static str>,
}

fn event(n: i64) -> Event {
    let mixed = (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31);
    Event {
        id: n,
        user_id: (mixed % 1_000_000) as i64,
        kind: ["view", "click", "order", "search"][(mixed >> 8) as usize % 4],
        country: ["DE", "FR", "US", "JP"][(mixed >> 12) as usize % 4],
        amount: (mixed % 50_000) as f64 / 100.0,
        at: 1_700_000_000_000 + n * 13,
        session: format!("{mixed:016x}"),
        ok: mixed.is_multiple_of(3),
        note: mixed.is_multiple_of(2).then(|| format!("note {}", mixed % 1000)),
        count: (mixed % 300) as i32,
        city: format!("city {}", mixed % 500),
        zip: (mixed % 100_000) as i32,
        tags: ["new", "sale", "gift"][..(mixed >> 20) as usize % 3].to_vec(),
    }
}

fn events() -> impl Iterator<Item = Event> {
    (0..CHUNKS * CHUNK_RECORDS).map(event)
}

/// Behind the five bytes of Confluent's frame.
fn avro_records() -> Vec<Vec<u8>> {
    let schema = apache_avro::Schema::parse_str(SCHEMA).expect("a schema");
    let text = |text: &str| Value::String(text.to_owned());
    let encode = |event: Event| {
        let note = match &event.note {
            None => Value::Union(0, Box::new(Value::Null)),
            Some(note) => Value::Union(1, Box::new(text(note))),
        };
        let place = vec![
            ("city".to_owned(), text(&event.city)),
            ("zip".to_owned(), Value::Int(event.zip)),
        ];
        let fields = [
            ("id", Value::Long(event.id)),
            ("user_id", Value::Long(event.user_id)),
            ("kind", text(event.kind)),
            ("country", text(event.country)),
            ("amount", Value::Double(event.amount)),
            ("at", Value::TimestampMillis(event.at)),
            ("session", text(&event.session)),
            ("ok", Value::Boolean(event.ok)),
            ("note", note),
            ("count", Value::Int(event.count)),
            ("place", Value::Record(place)),
            ("tags", Value::Array(event.tags.iter().map(|tag| text(tag)).collect())),
        ];
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
        let body = apache_avro::to_avro_datum(&schema, Value::Record(fields.collect())).expect("it fits");
        [&[0][..], &SCHEMA_ID.to_be_bytes(), &body].concat()
    };
    events().map(encode).collect()
}

fn json_records() -> Vec<Vec<u8>> {
    let encode = |event: Event| {
        let note = serde_json::to_string(&event.note).expect("JSON");
        let tags = serde_json::to_string(&event.tags).expect("JSON");
        let Event {
            id,
            user_id,
            kind,
            country,
            amount,
            at,
            session,
            ok,
            count,
            city,
            zip,
            ..
        } = event;
        format!(
            r#"{{"id":{id},"user_id":{user_id},"kind":"{kind}","country":"{country}","amount":{amount},"at":{at},"session":"{session}","ok":{ok},"note":{note},"count":{count},"place":{{"city":"{city}","zip":{zip}}},"tags":{tags}}}"#
        )
        .into_bytes()
    };
    events().map(encode).collect()
}
