//! The decoders of others, used as their documentation says, to columns of the kinds that ours makes.

use std::sync::Arc;

use prost_reflect::DescriptorPool;

use super::events::{AVRO, PROTOBUF};
use super::ours::json_plan;
use super::{CHUNK_RECORDS, Decode, SCHEMA_ID};

pub fn arrow_avro() -> Decode {
    use arrow_avro::reader::ReaderBuilder;
    use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    let schema = AvroSchema::new(AVRO.to_owned());
    store.set(Fingerprint::Id(SCHEMA_ID as u32), schema).expect("a schema");
    let mut decoder = ReaderBuilder::new()
        .with_writer_schema_store(store)
        .with_batch_size(CHUNK_RECORDS as usize)
        .build_decoder()
        .expect("a decoder");
    Box::new(move |chunk| {
        for record in chunk.values.iter().flatten() {
            let taken = decoder.decode(record).expect("a record");
            assert_eq!(taken, record.len());
        }
        let rows = decoder.flush().expect("good records").expect("rows");
        assert_eq!(rows.num_rows(), chunk.len());
        vec![rows]
    })
}

pub fn arrow_json() -> Decode {
    use arrow_json::reader::ReaderBuilder;
    let schema = Arc::new(json_plan().arrow.as_ref().clone());
    // Smaller batches are the cheaper ones there.
    let mut decoder = ReaderBuilder::new(schema)
        .with_batch_size(1024)
        .build_decoder()
        .expect("a decoder");
    Box::new(move |chunk| {
        let mut parts = Vec::new();
        for (number, record) in (1..).zip(chunk.values.iter().flatten()) {
            decoder.decode(record).expect("a record");
            if number % 1024 == 0 || number == chunk.len() {
                parts.push(decoder.flush().expect("good records").expect("rows"));
            }
        }
        parts
    })
}

pub fn ptars() -> Decode {
    use ptars::{ConfluentWirePolicy, PtarsConfig, binary_array_to_record_batch_direct};
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join("event.proto"), PROTOBUF).expect("a file can be written");
    let files = protox::compile(["event.proto"], [dir.path()]).expect("a schema");
    let pool = DescriptorPool::from_file_descriptor_set(files).expect("descriptors");
    let event = pool.get_message_by_name("Event").expect("a message");
    let config = PtarsConfig::new()
        .with_confluent_wire_policy(ConfluentWirePolicy::Protobuf)
        .with_timestamp_unit(arrow::datatypes::TimeUnit::Microsecond);
    Box::new(move |chunk| {
        let rows = binary_array_to_record_batch_direct(&chunk.values, &event, &config).expect("good records");
        assert_eq!(rows.num_rows(), chunk.len());
        vec![rows]
    })
}
