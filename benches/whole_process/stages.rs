//! The stages a run is made of, each alone: the yardstick for the whole.

use std::ffi::CString;
use std::ptr;
use std::sync::Arc;

use aperio::chunk::Chunk;
use aperio::config::{EventTime, EventTimeFormat, PartitionField};
use aperio::decode::Decoder;
use aperio::decode::framed::{FramedDecoder, Framing};
use aperio::decode::json::JsonDecoder;
use aperio::offsets::{Offset, OffsetRange, Partition};
use aperio::place::{Placer, partition_spec};
use aperio::schema::evolve::{EVENT_TIME, create_schema, row_plan};
use aperio::schema::frame::SchemaKey;
use aperio::schema::infer::{Shape, schema};
use aperio::schema::{
    KafkaColumn, Missing, RowPlanRef, SchemaLanguage, SchemaText, UnknownFields, WriterSchema, Writers, follow,
};
use aperio::write::{FileSink, FileSinks, Finishing, ParquetSettings, WindowWriter};
use arrow::array::{BinaryBuilder, Int64Array};
use iceberg::spec::NestedField;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset as Start, TopicPartitionList};
use rdkafka_sys as sys;

use super::events::{Events, Format, PARTITIONS};

/// Rows of a chunk: what `maxPollRecords` lets come of one partition.
const CHUNK_ROWS: u64 = 8192;

/// Rows of a window: `batchSize`.
const WINDOW_ROWS: u64 = 1_000_000;

/// Reads `records` records of a topic with `rd_kafka_consume_batch_queue`, librdkafka's cheapest way, and looks at none.
///
/// - `bytes`: what their values have together.
///
/// # Panics
/// If they don't come.
pub fn consume(brokers: &str, topic: &str, records: u64, bytes: u64) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "bench-bare")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("queued.max.messages.kbytes", "65536")
        .set("fetch.queue.backoff.ms", "20")
        .create()
        .expect("a consumer");
    let client = consumer.client().native_ptr();
    // SAFETY: the client lives until the end of this function; the queue is destroyed once, below.
    let queue = unsafe { sys::rd_kafka_queue_new(client) };
    let name = CString::new(topic).expect("a topic's name has no NUL");
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS as i32 {
        all.add_partition_offset(topic, partition, Start::Beginning)
            .expect("a valid offset");
        // SAFETY: client, name and queue are valid; the reference is destroyed right after, once.
        unsafe {
            let source = sys::rd_kafka_queue_get_partition(client, name.as_ptr(), partition);
            sys::rd_kafka_queue_forward(source, queue);
            sys::rd_kafka_queue_destroy(source);
        }
    }
    consumer.assign(&all).expect("partitions can be assigned");
    let mut messages = vec![ptr::null_mut(); CHUNK_ROWS as usize];
    let (mut seen, mut seen_bytes) = (0, 0);
    while seen < records {
        // SAFETY: the queue is valid, and the array takes as many messages as it is said to.
        let count = unsafe { sys::rd_kafka_consume_batch_queue(queue, 1000, messages.as_mut_ptr(), messages.len()) };
        let count = usize::try_from(count).expect("the queue can be read");
        for message in &messages[..count] {
            // SAFETY: the message was handed to us and is destroyed once, after the last look at it.
            unsafe {
                let message = *message;
                seen += u64::from((*message).err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
                seen_bytes += (*message).len;
                sys::rd_kafka_message_destroy(message);
            }
        }
        // Callbacks of the client itself.
        assert!(
            consumer.poll(std::time::Duration::ZERO).is_none(),
            "records come by their own queue"
        );
    }
    assert_eq!(seen_bytes as u64, bytes, "bytes consumed");
    // SAFETY: made above; no message of it is held.
    unsafe { sys::rd_kafka_queue_destroy(queue) };
}

/// CPU seconds of one thread by stage, and the bytes of the files it made.
#[derive(Default)]
pub struct Path {
    pub decode_s: f64,
    pub place_s: f64,
    pub write_s: f64,
    pub file_bytes: u64,
    pub files: usize,
}

/// Takes events the way a run takes them, in windows, with this library's decoder, placer and writer, from chunks in memory
/// to files that nobody keeps.
///
/// # Panics
/// If a row is lost on the way.
pub fn path(events: Events) -> Path {
    let include = [KafkaColumn::Partition, KafkaColumn::Offset, KafkaColumn::Timestamp];
    let (fields, writers) = fields(events);
    let columns = create_schema(fields, &include, true);
    let spec = partition_spec(&columns, &[PartitionField::Date, PartitionField::Hour], EVENT_TIME).expect("a spec");
    let spec = Arc::new(spec.bind(columns.clone()).expect("the spec is of this schema"));
    let plan = Arc::new(row_plan(
        Arc::new(columns),
        None,
        &include,
        true,
        UnknownFields::Evolve,
        false,
    ));
    let mut decoder = decoder(events.format, plan.clone(), writers);
    let missing = Missing::new();
    let event_time = Some(EventTime {
        path: vec!["timestamp".to_owned()],
        format: EventTimeFormat::EpochMillis,
    });
    let placer = Placer::new(plan.clone(), spec.clone(), "bench-events", event_time).expect("a placer");

    let mut used = Path::default();
    let mut rows = 0;
    let mut seal = |writer: WindowWriter, used: &mut Path| {
        let at = cpu_s();
        let files = writer.seal().expect("nothing to fail at");
        used.write_s += cpu_s() - at;
        used.files += files.len();
        for file in files {
            rows += file.record_count();
            used.file_bytes += file.file_size_in_bytes();
        }
    };
    let mut writer = None;
    let mut in_window = 0;
    for chunk in chunks(events) {
        let at = cpu_s();
        let decoded = decoder.decode(&chunk, &missing);
        used.decode_s += cpu_s() - at;
        assert!(
            decoded.rejects.is_empty() && decoded.unseen.is_none() && decoded.unknown.is_empty(),
            "every event is a row"
        );
        let at = cpu_s();
        let placed = placer.place(decoded, &chunk);
        used.place_s += cpu_s() - at;
        in_window += chunk.len() as u64;
        let at = cpu_s();
        let open: &mut WindowWriter = writer.get_or_insert_with(|| {
            WindowWriter::new(
                plan.clone(),
                spec.clone(),
                None,
                ParquetSettings::default(),
                "/nowhere".to_owned(),
                format!("{:012}", used.files),
                WINDOW_ROWS,
                Box::new(Nowhere),
            )
        });
        open.write(placed.parts).expect("nothing to fail at");
        if let Some(scattered) = placed.scattered {
            open.scatter(scattered).expect("nothing to fail at");
        }
        used.write_s += cpu_s() - at;
        if in_window >= WINDOW_ROWS {
            seal(writer.take().expect("written to above"), &mut used);
            in_window = 0;
        }
    }
    if let Some(writer) = writer {
        seal(writer, &mut used);
    }
    assert_eq!(rows, events.total, "rows written");
    used
}

/// The columns that a table gets for the events, and their schema, if they have one.
fn fields(events: Events) -> (Vec<NestedField>, Writers) {
    let mut writers = Writers::default();
    let Some((language, text)) = events.format.schema() else {
        let mut text = Vec::new();
        events.write(0, &mut text);
        let mut shape = Shape::default();
        shape.observe(&text).expect("an event is a JSON object");
        return (schema(&shape, false), writers);
    };
    let key = SchemaKey {
        message: match language {
            SchemaLanguage::Protobuf => vec![0],
            _ => Vec::new(),
        },
        ..SchemaKey::id(events.schema_id)
    };
    let text = SchemaText {
        language,
        text: text.to_owned(),
        references: Vec::new(),
    };
    let writer = WriterSchema::parse(&key, &text).expect("a schema");
    writers.add(key, Arc::new(writer));
    (follow::merged(&writers, follow::Form::default()), writers)
}

fn decoder(format: Format, plan: RowPlanRef, writers: Writers) -> Decoder {
    let indexes = match format {
        Format::Json => return Decoder::Json(JsonDecoder::new(plan)),
        Format::Avro => false,
        Format::Protobuf => true,
    };
    let framing = Framing::Registry { indexes };
    Decoder::Framed(FramedDecoder::new(plan, Arc::new(writers), framing, None))
}

/// Makes all events, partition by partition, as they come of a broker: event `n` is in partition `n % PARTITIONS`.
pub fn chunks(events: Events) -> impl Iterator<Item = Chunk> {
    const BLOCK: u64 = CHUNK_ROWS * PARTITIONS;
    let records = events.total;
    let blocks = (0..records).step_by(BLOCK as usize);
    let chunks = blocks.flat_map(move |block| {
        (0..PARTITIONS).map(move |partition| {
            let numbers = (block + partition..records.min(block + BLOCK)).step_by(PARTITIONS as usize);
            chunk(partition, numbers, events)
        })
    });
    chunks.filter(|chunk| !chunk.is_empty())
}

fn chunk(partition: u64, numbers: impl Iterator<Item = u64>, events: Events) -> Chunk {
    let mut values = BinaryBuilder::new();
    let mut offsets = Vec::new();
    let mut value = Vec::new();
    for number in numbers {
        value.clear();
        events.write(number, &mut value);
        values.append_value(&value);
        offsets.push((number / PARTITIONS) as i64);
    }
    let mut keys = BinaryBuilder::new();
    keys.append_nulls(offsets.len());
    let start = offsets.first().copied().unwrap_or_default();
    Chunk {
        partition: Partition(partition as i32),
        range: OffsetRange::new(Offset::new(start), Offset::new(start + offsets.len().max(1) as i64)),
        timestamps: offsets.iter().map(|offset| 1_700_000_000_000 + offset / 1000).collect(),
        offsets: Int64Array::from(offsets),
        keys: keys.finish(),
        values: values.finish(),
        headers: None,
    }
}

/// Sinks that count bytes and forget them.
struct Nowhere;

impl FileSinks for Nowhere {
    fn open(&mut self, _path: &str) -> std::io::Result<Box<dyn FileSink>> {
        Ok(Box::new(Counted(0)))
    }
}

struct Counted(u64);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl FileSink for Counted {
    fn finish(self: Box<Self>) -> Finishing {
        Finishing::new(move || Ok(self.0))
    }
}

/// CPU seconds of this thread so far.
fn cpu_s() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live value of the right type.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(answer, 0, "a thread has a clock");
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
