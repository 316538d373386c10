//! What a commit costs as a table grows: the load, the manifests and the swap of one small window after another, on a
//! SQLite catalog on this disk, the way a service that holds the table does them. The largest table is then given to a REST
//! catalog, and the next commits go there.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use aperio::catalog::stage::{Change, fresh_snapshot_id, stage};
use aperio::catalog::{Catalog, LoadedTable, NewTable, SwapAnswer};
use aperio::offsets::{LeaderEpoch, Offset, OffsetRange, OffsetRanges, Partition};
use aperio::table::admit::{Source, admit, admit_start, plan};
use aperio::table::{SealedWindow, Tally, WindowFile, WindowId};
use iceberg::TableIdent;
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, FormatVersion, Literal, NestedField,
    PrimitiveType, Schema, Struct, Transform, Type, UnboundPartitionSpec,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::servers::{RestCatalog, send_json};

/// Kafka partitions whose offsets each commit moves: those of a usual topic, and of a large one.
const PARTITIONS: [i32; 2] = [12, 1_000];
/// Columns of the table, each with bounds in the manifests.
const COLUMNS: i32 = 13;
/// Rows of each window's one file.
const ROWS: u64 = 10_000;
/// Commits around a mark whose median is its cost: a merge of manifests among them doesn't count as the usual.
const AROUND: usize = 21;

/// One commit's cost.
#[derive(Clone, Copy)]
struct Cost {
    seconds: f64,
    read_bytes: u64,
    written_bytes: u64,
}

impl Cost {
    /// The median of each part.
    fn median(of: &[Cost]) -> Cost {
        Cost {
            seconds: median(of.iter().map(|cost| cost.seconds)),
            read_bytes: median(of.iter().map(|cost| cost.read_bytes as f64)) as u64,
            written_bytes: median(of.iter().map(|cost| cost.written_bytes as f64)) as u64,
        }
    }

    fn words(self) -> String {
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        let (read, written) = (kib(self.read_bytes), kib(self.written_bytes));
        format!(
            "{:>7.1} ms, {read:>8.1} KiB read, {written:>8.1} KiB written",
            self.seconds * 1e3
        )
    }

    fn figure(self) -> Value {
        json!({"ms": self.seconds * 1e3, "read_bytes": self.read_bytes, "written_bytes": self.written_bytes})
    }
}

/// Makes commits up to the last of `marks` and prints what they cost there, with plain metadata files and with packed ones.
///
/// # Panics
/// If a commit isn't a yes, or the table doesn't hold the rows of all of them at the end.
pub fn commits(marks: &[usize]) -> Value {
    let [usual, large] = PARTITIONS;
    json!({
        "none": commits_in(marks, "none", usual),
        "gzip": commits_in(marks, "gzip", usual),
        "gzip, 1,000 partitions": commits_in(marks, "gzip", large),
    })
}

/// - `codec`: the table's `write.metadata.compression-codec`.
/// - `partitions`: of the topic; the table of a large one goes on in a REST catalog.
fn commits_in(marks: &[usize], codec: &str, partitions: i32) -> Value {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().to_str().expect("a path in UTF-8");
    let _inside = runtime.enter();
    let catalog = Catalog::sql("aperio", &format!("sqlite://{path}/catalog.db"), path, &BTreeMap::new());
    let catalog = catalog.expect("a catalog");
    let last = marks.iter().copied().max().expect("at least one mark") + AROUND / 2;
    let (costs, table) = runtime.block_on(async {
        let table = create(&catalog, codec, partitions).await;
        measured(&catalog, table, 0..last as u64, partitions).await
    });
    let summary = table.metadata.current_snapshot().expect("commits").summary();
    let total = summary.additional_properties.get("total-records");
    assert_eq!(total, Some(&(last as u64 * ROWS).to_string()), "rows of all commits");

    println!(
        "\ncommits on SQLite, one file and {partitions} partitions each, metadata files {codec}: median of the {AROUND} around, and the dearest of the 100 before"
    );
    let bytes = serde_json::to_vec(&*table.metadata).expect("metadata are JSON").len();
    println!(
        "  {:.1} MiB of metadata unpacked, {} bytes a snapshot",
        bytes as f64 / f64::from(1 << 20),
        bytes / table.metadata.snapshots().len()
    );
    let mut figures = serde_json::Map::new();
    for &mark in marks {
        let around = &costs[mark.saturating_sub(AROUND / 2)..(mark + AROUND / 2 + 1).min(costs.len())];
        let usual = Cost::median(around);
        let before = &costs[mark.saturating_sub(100)..mark];
        let dearest = before.iter().map(|cost| cost.seconds * 1e3).fold(0.0, f64::max);
        println!("  {mark:>6}: {}; dearest {dearest:.1} ms", usual.words());
        let mut figure = usual.figure();
        figure["dearest_ms"] = json!(dearest);
        figures.insert(mark.to_string(), figure);
    }
    if partitions > 100 {
        let ms = runtime.block_on(on_rest(dir.path(), &table, last as u64, partitions)) * 1e3;
        println!("  the next on a REST catalog: {ms:.1} ms");
        figures.insert("rest".to_owned(), json!({"ms": ms}));
    }
    Value::Object(figures)
}

/// Gives a table to a REST catalog, goes on committing there, and returns the median of the seconds that a commit takes: what goes
/// over a socket isn't among the bytes that are counted.
///
/// - `commits`: how many the table holds.
async fn on_rest(warehouse: &Path, table: &LoadedTable, commits: u64, partitions: i32) -> f64 {
    let server = RestCatalog::start_with(warehouse, 2048);
    let address = server.address();
    let (status, answer) = send_json(&address, "POST", "/v1/namespaces", &json!({"namespace": ["default"]}));
    assert_eq!(status, 200, "{answer}");
    let wish = json!({"name": table.ident.name(), "metadata-location": table.metadata_location});
    let (status, answer) = send_json(&address, "POST", "/v1/namespaces/default/register", &wish);
    assert_eq!(status, 200, "{answer}");
    let warehouse = warehouse.to_str().expect("a path in UTF-8");
    let catalog = Catalog::rest(&server.uri(), Some(warehouse), &BTreeMap::new()).expect("a catalog");
    let table = catalog.load(&table.ident).await.expect("a load").expect("the table");
    let (costs, _) = measured(&catalog, table, commits..commits + AROUND as u64, partitions).await;
    Cost::median(&costs).seconds
}

/// Commits a window for each of `sequences`; returns what each cost, and the table after all.
async fn measured(
    catalog: &Catalog,
    mut table: LoadedTable,
    sequences: Range<u64>,
    partitions: i32,
) -> (Vec<Cost>, LoadedTable) {
    let run = Uuid::new_v4();
    let mut costs = Vec::new();
    for sequence in sequences {
        let (before, start) = (io(), Instant::now());
        table = commit(catalog, table, WindowId { run, sequence }, partitions).await;
        let (seconds, after) = (start.elapsed().as_secs_f64(), io());
        costs.push(Cost {
            seconds,
            read_bytes: after.0 - before.0,
            written_bytes: after.1 - before.1,
        });
    }
    (costs, table)
}

async fn create(catalog: &Catalog, codec: &str, partitions: i32) -> LoadedTable {
    let fields = (1..=COLUMNS).map(|id| {
        let of = if id == 1 {
            PrimitiveType::Timestamptz
        } else {
            PrimitiveType::Long
        };
        NestedField::optional(id, format!("column_{id}"), Type::Primitive(of)).into()
    });
    let schema = Schema::builder().with_fields(fields).build().expect("a schema");
    let spec = UnboundPartitionSpec::builder()
        .add_partition_field(1, "hour", Transform::Hour)
        .expect("a partition field")
        .build();
    let ident = TableIdent::from_strs(["default", "events"]).expect("a table's name");
    let new = NewTable {
        schema,
        spec,
        properties: aperio::catalog::creation_properties(BTreeMap::from([(
            "write.metadata.compression-codec".to_owned(),
            codec.to_owned(),
        )])),
        format_version: FormatVersion::V2,
    };
    let table = catalog.create(&ident, new).await.expect("a table");
    let starts = (0..partitions)
        .map(|partition| (Partition(partition), Offset::ZERO))
        .collect();
    let view = table.view().await.expect("a view");
    let admitted = admit_start(view, &source(), &starts)
        .expect("a new table")
        .expect("a start");
    let change = Change::of(plan(admitted), &table.metadata, 1, now_ms());
    swap(catalog, table, change).await
}

/// Admits a window to the table as the catalog has it now, and commits it.
async fn commit(catalog: &Catalog, known: LoadedTable, id: WindowId, partitions: i32) -> LoadedTable {
    let table = catalog.reload(&known).await.expect("a load").expect("the table");
    let view = table.view().await.expect("a view");
    let start = Offset::new(id.sequence as i64 * 1000);
    let end = Offset::new(start.get() + 1000);
    let mut ranges = OffsetRanges::default();
    for partition in 0..partitions {
        let range = OffsetRange::new(start, end).under(Some(LeaderEpoch(partition % 5)));
        ranges.extend(Partition(partition), range).expect("a fresh range");
    }
    let window = SealedWindow {
        id,
        ranges,
        files: vec![WindowFile {
            spec_id: table.metadata.default_partition_spec_id(),
            file: data_file(table.metadata.location(), id),
        }],
        tally: Tally {
            records: ROWS,
            rows: ROWS,
            ..Tally::default()
        },
        schemas: vec![table.metadata.current_schema().clone()],
        event_times: (0..partitions)
            .map(|partition| (Partition(partition), now_ms() * 1000 + i64::from(partition)))
            .collect(),
    };
    let admitted = admit(view, &source(), vec![window]).expect("nobody else commits");
    let snapshot = fresh_snapshot_id(&table.metadata);
    let change = Change::of(plan(admitted), &table.metadata, snapshot, now_ms());
    swap(catalog, table, change).await
}

async fn swap(catalog: &Catalog, base: LoadedTable, change: Change) -> LoadedTable {
    let staged = stage(&base, change).await.expect("manifests");
    match catalog.swap(&base, staged.requirements, staged.updates).await {
        SwapAnswer::Committed(table) => table,
        other => panic!("a commit that nobody disturbs: {other:?}"),
    }
}

/// An entry as a real file's; the file itself isn't there, since nobody reads it.
fn data_file(location: &str, id: WindowId) -> DataFile {
    let hour = 480_000 + (id.sequence / 60) as i32;
    let bounds = |from: i64| {
        (1..=COLUMNS)
            .map(|id| (id, Datum::long(from + i64::from(id))))
            .collect()
    };
    let counts = |of: u64| (1..=COLUMNS).map(|id| (id, of)).collect();
    DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path(format!(
            "{location}/data/hour={hour}/{}-{:05}-0.parquet",
            id.run.simple(),
            id.sequence
        ))
        .file_format(DataFileFormat::Parquet)
        .partition(Struct::from_iter([Some(Literal::int(hour))]))
        .partition_spec_id(0)
        .record_count(ROWS)
        .file_size_in_bytes(700_000)
        .column_sizes(counts(50_000))
        .value_counts(counts(ROWS))
        .null_value_counts(counts(0))
        .lower_bounds(bounds(id.sequence as i64))
        .upper_bounds(bounds(id.sequence as i64 + 1_000_000))
        .split_offsets(Some(vec![4]))
        .build()
        .expect("a data file")
}

fn source() -> Source {
    Source {
        topic: "events".to_owned(),
        topic_id: Some("AAAAAAAAAAAAAAAAAAAAAA".to_owned()),
        cluster_id: Some("BBBBBBBBBBBBBBBBBBBBBB".to_owned()),
    }
}

/// Bytes that this process has read from files and written to them so far. Source: proc(5), `/proc/pid/io`.
fn io() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/self/io").expect("Linux counts what a process reads");
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().parse::<u64>().ok())
            .expect("a number of bytes")
    };
    (field("rchar:"), field("wchar:"))
}

fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = of.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
