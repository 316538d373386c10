//! What a commit stores, byte for byte where bytes count: other engines, other versions of this program and people's
//! scripts read it. One window of three records goes the whole way from a chunk to the catalog's swap.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc;

use apache_avro::types::Value as Avro;
use aperio::catalog::stage::{Change, stage};
use aperio::catalog::{Catalog, LoadedTable, NewTable, SwapAnswer};
use aperio::chunk::Chunk;
use aperio::config::PartitionField;
use aperio::line::{Encoding, Line, LinePlan, LineSettings, LineWindow, NewSinks, Order, Reply, SinkMaker};
use aperio::memory::Memory;
use aperio::offsets::{Offset, OffsetRange, OffsetRanges, Offsets, Partition};
use aperio::place::partition_spec;
use aperio::schema::{KafkaColumn, UnknownFields, evolve};
use aperio::sync_points::{SyncPoint, SyncPoints};
use aperio::table::admit::{CommitPlan, Source, admit, admit_start, plan};
use aperio::table::ledger::LEDGER_KEY;
use aperio::table::{SealedWindow, WindowId};
use aperio::write::{MemorySinks, ParquetSettings};
use arrow::array::{BinaryArray, Int64Array};
use iceberg::TableIdent;
use iceberg::spec::{FormatVersion, NestedField, PrimitiveType, Transform, Type};
use serde_json::{Value, json};
use uuid::Uuid;

const SNAPSHOT_AT_START: i64 = 101;
const SNAPSHOT: i64 = 102;
const NOW_MS: i64 = 1_705_312_800_000; // 2024-01-15T10:00Z
const INCLUDE: [KafkaColumn; 3] = [KafkaColumn::Partition, KafkaColumn::Offset, KafkaColumn::Timestamp];

const RECORDS: [&str; 3] = [
    r#"{"id":1,"name":"Ada","country":"de","price":1.5}"#,
    r#"{"id":2,"name":null,"country":"de","price":2.25}"#,
    r#"{"id":9000000000,"name":"a name that is longer than sixteen characters","country":"de","price":null}"#,
];

fn source() -> Source {
    Source {
        topic: "user-events".to_owned(),
        topic_id: Some("q1Sh-9_ISgCP61Jq9QwUZA".to_owned()),
        cluster_id: Some("4L6g3nShT-eMCtK--X86sw".to_owned()),
    }
}

/// A table of format `version` in a SQLite catalog below `directory`, empty.
pub async fn create(directory: &tempfile::TempDir, version: FormatVersion) -> (Catalog, LoadedTable) {
    let root = directory.path().to_str().expect("the path is UTF-8");
    let catalog = Catalog::sql("aperio", &format!("sqlite://{root}/catalog.db"), root, &BTreeMap::new());
    let catalog = catalog.expect("a catalog");
    let column = |name: &str, of| NestedField::optional(0, name, Type::Primitive(of));
    let payload = vec![
        column("id", PrimitiveType::Long),
        column("name", PrimitiveType::String),
        column("country", PrimitiveType::String),
        column("price", PrimitiveType::Double),
    ];
    let schema = evolve::create_schema(payload, &INCLUDE, false);
    let country = PartitionField::Transform {
        transform: Transform::Identity,
        column: "country".to_owned(),
    };
    let fields = [PartitionField::Date, PartitionField::Hour, country];
    let spec = partition_spec(&schema, &fields, "_kafka_timestamp").expect("a spec");
    let creation = NewTable {
        schema,
        spec,
        properties: HashMap::new(),
        format_version: version,
    };
    let ident = TableIdent::from_strs(["sales", "events"]).expect("a name");
    let table = catalog.create(&ident, creation).await.expect("a table");
    (catalog, table)
}

/// A line that fills windows of a table.
pub fn line(table: &LoadedTable, sinks: SinkMaker) -> Line {
    let metadata = &table.metadata;
    let rows = evolve::row_plan(
        metadata.current_schema().clone(),
        None,
        &INCLUDE,
        false,
        UnknownFields::Evolve,
        false,
    );
    let plan = LinePlan {
        writers: Arc::default(),
        key_writers: Arc::default(),
        stored: Arc::new(rows.clone()),
        rows: Arc::new(rows),
        hive: false,
        spec: metadata.default_partition_spec().clone(),
        sort_order: None,
        settings: ParquetSettings::from_properties(metadata.properties()).expect("default settings"),
        data_location: "/warehouse/sales/events/data".to_owned(),
    };
    let settings = LineSettings {
        memory: Memory::new(1 << 30),
        topic: source().topic,
        encoding: Encoding::Json,
        keys: None,
        envelope: None,
        event_time: None,
        rows_per_file_max: 1_000,
        number: 0,
        lines: 1,
        open_bytes_max: usize::MAX,
        letters_bytes_max: usize::MAX,
        keeps_rejects: true,
    };
    Line::new(settings, plan, sinks).expect("a line")
}

/// The records, at offsets 40 to 43 of partition 2.
pub fn chunk() -> Chunk {
    Chunk {
        partition: Partition(2),
        range: OffsetRange::new(Offset::new(40), Offset::new(43)),
        offsets: Int64Array::from(vec![40, 41, 42]),
        timestamps: Int64Array::from(vec![NOW_MS, NOW_MS + 1, NOW_MS + 2]),
        keys: BinaryArray::from(vec![None::<&[u8]>; 3]),
        values: BinaryArray::from(RECORDS.map(|record| Some(record.as_bytes())).to_vec()),
        headers: None,
    }
}

/// Sends the records through a line into a window.
fn fill(table: &LoadedTable, id: WindowId) -> (LineWindow, OffsetRanges) {
    let sinks = || NewSinks {
        unique: Uuid::from_u128(7),
        sinks: Box::new(MemorySinks::default()),
    };
    let line = line(table, Box::new(sinks));
    let chunk = chunk();
    let range = chunk.range;
    let (orders, inbox) = mpsc::channel();
    let take = Order::Take {
        window: id,
        chunk,
        ticket: Box::new(()),
    };
    orders.send(take).expect("the line waits");
    orders.send(Order::Seal(id)).expect("the line waits");
    drop(orders);
    let mut sealed = None;
    line.work(inbox, |reply| match reply {
        Reply::Sealed(window) => sealed = Some(*window),
        Reply::Staged(_) | Reply::Crowded(_) => {}
        Reply::Wants { .. } => panic!("the table has every column"),
        Reply::WantsEvents { .. } => panic!("nothing is idempotent"),
        Reply::Failed(error) => panic!("{error}"),
    });
    let window = sealed.expect("the line answers a seal");
    assert_eq!(window.tally.rows, 3, "{:?}", window.reasons);
    (window, [(Partition(2), range)].into_iter().collect())
}

async fn swap(catalog: &Catalog, base: &LoadedTable, change: Change) -> LoadedTable {
    let staged = stage(base, change).await.expect("the change fits");
    match catalog.swap(base, staged.requirements, staged.updates).await {
        SwapAnswer::Committed(table) => table,
        other => panic!("not committed: {other:?}"),
    }
}

/// The change of a plan, with ids and times that don't change.
fn change(plan: CommitPlan, base: &LoadedTable, snapshot_id: i64) -> Change {
    Change::of(plan, &base.metadata, snapshot_id, NOW_MS)
}

/// A table after its first commit, which only says where partitions start, and a second one, which adds the window.
async fn committed(directory: &tempfile::TempDir, version: FormatVersion) -> LoadedTable {
    let (catalog, table) = create(directory, version).await;
    let starts: Offsets = [(Partition(2), Offset::new(40)), (Partition(0), Offset::ZERO)]
        .into_iter()
        .collect();
    let view = table.view().await.expect("no ledger yet");
    let start = admit_start(view, &source(), &starts)
        .expect("fits")
        .expect("there is something to add");
    let table = swap(&catalog, &table, change(plan(start), &table, SNAPSHOT_AT_START)).await;
    let id = WindowId {
        run: Uuid::from_u128(7),
        sequence: 3,
    };
    let (window, ranges) = fill(&table, id);
    let sealed = SealedWindow {
        id,
        ranges,
        files: window.files,
        tally: window.tally,
        event_times: window.event_times,
        schemas: window.schemas,
    };
    let view = table.view().await.expect("a ledger");
    let admitted = admit(view, &source(), vec![sealed]).expect("the window starts where the ledger ends");
    swap(&catalog, &table, change(plan(admitted), &table, SNAPSHOT)).await
}

/// Replaces what differs from run to run or with the version of the Parquet library.
fn masked(text: &str, table: &LoadedTable) -> String {
    let uuid = table.metadata.uuid().to_string();
    text.replace(&uuid, "<table uuid>")
        .replace(table.metadata.location(), "<table>")
        .replace(concat!('"', env!("CARGO_PKG_VERSION"), '"'), "\"<version>\"")
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("JSON serialises")
}

/// An Avro value as JSON; bytes in hexadecimal.
fn shown(value: &Avro) -> Value {
    let hex = |bytes: &[u8]| Value::from(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    match value {
        Avro::Null => Value::Null,
        Avro::Boolean(value) => json!(value),
        Avro::Int(value) => json!(value),
        Avro::Long(value) => json!(value),
        Avro::Float(value) => json!(value),
        Avro::Double(value) => json!(value),
        Avro::String(value) => json!(value),
        Avro::Bytes(bytes) | Avro::Fixed(_, bytes) => hex(bytes),
        Avro::Union(_, inner) => shown(inner),
        Avro::Array(items) => items.iter().map(shown).collect(),
        Avro::Record(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), shown(value)))
            .collect(),
        other => panic!("Iceberg's metadata holds no {other:?}"),
    }
}

/// The records of an Avro file, sizes masked, and the fields of its schema with their ids.
async fn avro(table: &LoadedTable, location: &str) -> (Value, Vec<String>, BTreeMap<String, String>) {
    let input = table.file_io.new_input(location).expect("a location");
    let bytes = input.read().await.expect("the file is read");
    let reader = apache_avro::Reader::new(&bytes[..]).expect("an Avro file");
    let header = reader.user_metadata().iter();
    let header = header.map(|(key, value)| (key.clone(), String::from_utf8_lossy(value).into_owned()));
    let header = header.filter(|(key, _)| !key.starts_with("avro.")).collect();
    let schema = serde_json::to_value(reader.writer_schema()).expect("a schema serialises");
    let mut fields = Vec::new();
    list_fields(&schema, "", &mut fields);
    let mut records: Value = reader.map(|record| shown(&record.expect("a record is read"))).collect();
    mask_sizes(&mut records);
    (records, fields, header)
}

/// What depends on the version of the Parquet or Avro library.
fn mask_sizes(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(mask_sizes),
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "file_size_in_bytes" | "manifest_length" | "split_offsets" => *value = json!("<bytes>"),
                    "column_sizes" => {
                        let sizes = value.as_array_mut().expect("sizes are a list");
                        sizes.sort_by_key(|entry| entry["key"].as_i64());
                        sizes.iter_mut().for_each(|entry| entry["value"] = json!("<bytes>"));
                    }
                    "value_counts" | "null_value_counts" | "nan_value_counts" | "lower_bounds" | "upper_bounds" => {
                        // A map in any order; Avro has it as a list.
                        if let Some(entries) = value.as_array_mut() {
                            entries.sort_by_key(|entry| entry["key"].as_i64());
                        }
                    }
                    _ => mask_sizes(value),
                }
            }
        }
        _ => {}
    }
}

/// Adds `path id type` for every field below an Avro schema; `id` is what engines find a field by.
fn list_fields(schema: &Value, path: &str, into: &mut Vec<String>) {
    match schema {
        Value::Array(branches) => branches.iter().for_each(|branch| list_fields(branch, path, into)),
        Value::Object(object) => match object.get("type") {
            Some(Value::String(kind)) if kind == "record" => {
                for field in object["fields"].as_array().expect("a record has fields") {
                    let name = field["name"].as_str().expect("a field has a name");
                    let path = if path.is_empty() {
                        name.to_owned()
                    } else {
                        format!("{path}.{name}")
                    };
                    into.push(format!("{path} {}", field["field-id"]));
                    list_fields(&field["type"], &path, into);
                }
            }
            Some(Value::String(kind)) if kind == "array" => {
                if let Some(id) = object.get("element-id") {
                    into.push(format!("{path}[] {id}"));
                }
                list_fields(&object["items"], path, into);
            }
            _ => {}
        },
        _ => {}
    }
}

#[tokio::test]
async fn a_snapshot_and_its_ledger() {
    let directory = tempfile::tempdir().expect("a directory");
    let table = committed(&directory, FormatVersion::V2).await;
    let mut text = String::new();
    for id in [SNAPSHOT_AT_START, SNAPSHOT] {
        let snapshot = table.metadata.snapshot_by_id(id).expect("the snapshot is there");
        let summary = snapshot.summary();
        let mut entries: BTreeMap<_, _> = summary.additional_properties.clone().into_iter().collect();
        for (key, value) in &mut entries {
            if key.ends_with("-files-size") && value != "0" {
                "<bytes>".clone_into(value);
            }
        }
        text.push_str(&format!("snapshot {id}: {}\n", summary.operation.as_str()));
        text.push_str(&pretty(&json!(entries)));
        text.push('\n');
    }
    let property = &table.metadata.properties()[LEDGER_KEY];
    text.push_str(&format!("property {LEDGER_KEY}\n{property}"));
    insta::assert_snapshot!(masked(&text, &table));
}

#[tokio::test]
async fn a_manifest_list_and_a_manifest() {
    for version in [FormatVersion::V2, FormatVersion::V3] {
        let directory = tempfile::tempdir().expect("a directory");
        let table = committed(&directory, version).await;
        let snapshot = table.metadata.current_snapshot().expect("a snapshot");
        let (list, list_fields, list_header) = avro(&table, snapshot.manifest_list()).await;
        let manifest = list[0]["manifest_path"].as_str().expect("a manifest").to_owned();
        let (entries, entry_fields, mut header) = avro(&table, &manifest).await;
        // The schema as JSON; its fields are in the table's metadata, too.
        header.remove("schema");
        let stored = json!({
            "manifest list": {"header": list_header, "fields": list_fields, "records": list},
            "manifest": {"header": header, "fields": entry_fields, "records": entries},
        });
        // Fresh for each attempt.
        let (_, name) = manifest.rsplit_once('/').expect("a path");
        let shown = pretty(&stored).replace(&name[..36], "<attempt>");
        insta::assert_snapshot!(format!("manifest_{version}"), masked(&shown, &table));
    }
}

#[tokio::test]
async fn sync_points_are_a_parquet_file_of_four_columns() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().to_str().expect("the path is UTF-8");
    let points = SyncPoints::open(root, "sales", &BTreeMap::new()).expect("a store");
    let point = |sync_key: &str, sync_value: &str| SyncPoint {
        source_name: "events".to_owned(),
        sync_key: sync_key.to_owned(),
        sync_value: sync_value.to_owned(),
        committed_at_us: NOW_MS * 1000,
    };
    let rows = vec![point("partition:0", "0"), point("partition:2", "43")];
    points.replace("events", &[], rows).await.expect("they are written");
    let file = std::fs::File::open(directory.path().join("sales/sync_points.parquet")).expect("the file is there");
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
    let schema = reader.parquet_schema().clone();
    let mut text = Vec::new();
    parquet::schema::printer::print_schema(&mut text, schema.root_schema());
    for batch in reader.build().expect("a reader") {
        let batch = batch.expect("rows");
        let columns: Vec<_> = batch.columns().iter().map(|column| format!("{column:?}\n")).collect();
        text.extend_from_slice(columns.concat().as_bytes());
    }
    insta::assert_snapshot!(String::from_utf8(text).expect("UTF-8"));
}
