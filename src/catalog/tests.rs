//! Tables in a temporary directory and a SQLite file; a server that answers what it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use apache_avro::types::Value as Avro;
use flate2::read::GzDecoder;
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, ManifestContentType, ManifestList, ManifestStatus,
    NestedField, PrimitiveType, SnapshotReference, SnapshotRetention, Struct, Type,
};
use uuid::Uuid;

use super::sql::METADATA_CODEC;
use super::stage::{Change, StageError, Staged, fresh_snapshot_id, schema_change, stage};
use super::*;

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

fn ident() -> TableIdent {
    TableIdent::from_strs(["sales", "events"]).expect("ident")
}

fn schema() -> Schema {
    let id = NestedField::required(1, "id", Type::Primitive(PrimitiveType::Long));
    Schema::builder().with_fields([id.into()]).build().expect("schema")
}

fn new_table(format_version: FormatVersion, properties: &[(&str, &str)]) -> NewTable {
    let properties = properties.iter();
    NewTable {
        schema: schema(),
        spec: UnboundPartitionSpec::default(),
        properties: properties.map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        format_version,
    }
}

fn sql(directory: &tempfile::TempDir) -> Catalog {
    let root = directory.path().to_str().expect("utf-8");
    let uri = format!("sqlite://{root}/made/catalog.db");
    Catalog::sql("aperio", &uri, root, &none()).expect("open")
}

fn file(content: DataContentType, path: &str, records: u64) -> (i32, DataFile) {
    let mut builder = DataFileBuilder::default();
    builder
        .content(content)
        .file_path(path.to_string())
        .file_format(DataFileFormat::Parquet)
        .partition(Struct::empty())
        .partition_spec_id(0)
        .record_count(records)
        .file_size_in_bytes(1000);
    (0, builder.build().expect("data file"))
}

fn data(path: &str, records: u64) -> (i32, DataFile) {
    file(DataContentType::Data, path, records)
}

fn change(base: &LoadedTable, added_data: Vec<(i32, DataFile)>) -> Change {
    Change {
        added_data,
        added_deletes: Vec::new(),
        removed_data: BTreeSet::new(),
        removed_deletes: BTreeSet::new(),
        summary: BTreeMap::from([("aperio.ledger".to_string(), "{}".to_string())]),
        properties: HashMap::from([("aperio.ledger".to_string(), "{}".to_string())]),
        snapshot_id: fresh_snapshot_id(&base.metadata),
        now_ms: 1000,
    }
}

async fn swap(catalog: &Catalog, base: &LoadedTable, staged: Staged) -> SwapAnswer {
    catalog.swap(base, staged.requirements, staged.updates).await
}

async fn commit(catalog: &Catalog, base: &LoadedTable, change: Change) -> LoadedTable {
    let staged = stage(base, change).await.expect("stage");
    taken(swap(catalog, base, staged).await)
}

#[track_caller]
fn taken(answer: SwapAnswer) -> LoadedTable {
    match answer {
        SwapAnswer::Committed(table) => table,
        other => panic!("not committed: {other:?}"),
    }
}

/// The swap that gives a table one more column.
fn one_more_column(base: &LoadedTable, name: &str) -> (Vec<TableRequirement>, Vec<TableUpdate>) {
    let id = base.metadata.last_column_id() + 1;
    let more = NestedField::optional(id, name, Type::Primitive(PrimitiveType::String));
    let fields = base.metadata.current_schema().as_struct().fields().to_vec();
    let schema = Schema::builder()
        .with_fields(fields.into_iter().chain([more.into()]))
        .build()
        .expect("schema");
    schema_change(base, schema)
}

/// The live files of a table: content, path, data sequence number; ascending.
async fn live(table: &LoadedTable) -> Vec<(ManifestContentType, String, i64)> {
    let mut files = Vec::new();
    for manifest in manifests(table).await {
        let content = manifest.load_manifest(&table.file_io).await.expect("manifest");
        for entry in content.entries() {
            if entry.status() != ManifestStatus::Deleted {
                let number = entry.sequence_number().expect("inherited");
                files.push((manifest.content, entry.file_path().to_string(), number));
            }
        }
    }
    files.sort_by(|a, b| a.1.cmp(&b.1));
    files
}

async fn manifests(table: &LoadedTable) -> Vec<iceberg::spec::ManifestFile> {
    let snapshot = table.metadata.current_snapshot().expect("snapshot");
    let input = table.file_io.new_input(snapshot.manifest_list()).expect("input");
    let bytes = input.read().await.expect("read");
    let version = table.metadata.format_version();
    let list = ManifestList::parse_with_version(&bytes, version).expect("parse");
    list.entries().to_vec()
}

fn total<'a>(table: &'a LoadedTable, name: &str) -> &'a str {
    let snapshot = table.metadata.current_snapshot().expect("snapshot");
    let summary = &snapshot.summary().additional_properties;
    summary.get(name).map_or("", String::as_str)
}

#[tokio::test]
async fn appends_are_read_back_with_their_counts() {
    for version in [FormatVersion::V2, FormatVersion::V3] {
        let directory = tempfile::tempdir().expect("tempdir");
        let catalog = sql(&directory);
        assert!(catalog.load(&ident()).await.expect("load").is_none());
        let created = catalog.create(&ident(), new_table(version, &[])).await;
        let table = created.expect("create");
        let table = commit(&catalog, &table, change(&table, vec![data("/d/1", 10)])).await;
        let two = vec![data("/d/2", 20), data("/d/3", 3)];
        let table = commit(&catalog, &table, change(&table, two)).await;
        let table = commit(&catalog, &table, change(&table, vec![])).await;

        let loaded = catalog.load(&ident()).await.expect("load").expect("there");
        assert_eq!(loaded.metadata, table.metadata);
        assert_eq!(loaded.metadata_location, table.metadata_location);
        let counts: Vec<_> = live(&loaded).await.into_iter().map(|f| (f.1, f.2)).collect();
        let expect = [("/d/1", 1), ("/d/2", 2), ("/d/3", 2)].map(|(p, n)| (p.to_string(), n));
        assert_eq!(counts, expect);
        assert_eq!(manifests(&loaded).await.len(), 2, "an empty change adds none");
        assert_eq!(total(&loaded, "total-records"), "33");
        assert_eq!(total(&loaded, "total-data-files"), "3");
        assert_eq!(total(&loaded, "total-files-size"), "3000");
        assert_eq!(total(&loaded, "changed-partition-count"), "0");
        assert_eq!(total(&loaded, "added-records"), "");
        assert_eq!(total(&loaded, "engine-name"), "aperio");
        assert!(loaded.metadata.properties().contains_key("aperio.ledger"));
        let last = loaded.metadata.current_snapshot().expect("snapshot");
        assert!(last.timestamp_ms() > 1000, "never before the table's own time");
        if version == FormatVersion::V3 {
            assert_eq!(loaded.metadata.next_row_id(), 33);
        }
    }
}

#[tokio::test]
async fn of_two_writers_from_one_base_exactly_one_commits() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (one, two) = (sql(&directory), sql(&directory));
    let new = || new_table(FormatVersion::V2, &[]);
    let base = one.create(&ident(), new()).await.expect("create");
    let again = two.create(&ident(), new()).await.expect("a race is a load");
    assert_eq!(again.metadata.uuid(), base.metadata.uuid());

    let a = stage(&base, change(&base, vec![data("/d/a", 1)])).await.expect("a");
    let b = stage(&base, change(&base, vec![data("/d/b", 1)])).await.expect("b");
    let (a, b) = tokio::join!(swap(&one, &base, a), swap(&two, &base, b));
    let answers = [a, b];
    let committed = answers.iter().filter(|a| matches!(a, SwapAnswer::Committed(_)));
    let conflicts = answers.iter().filter(|a| matches!(a, SwapAnswer::Conflict));
    assert_eq!((committed.count(), conflicts.count()), (1, 1), "{answers:?}");
    let table = one.load(&ident()).await.expect("load").expect("there");
    assert_eq!(live(&table).await.len(), 1);

    // The loser's metadata file is gone: creation, and one commit.
    let metadata = directory.path().join("sales/events/metadata");
    let files = std::fs::read_dir(metadata).expect("directory");
    let names = files.map(|f| f.expect("file").file_name().into_string().expect("utf-8"));
    assert_eq!(names.filter(|n| n.ends_with(".metadata.json")).count(), 2);

    // Requirements of an older snapshot are a conflict on a newer base, too.
    let late = stage(&base, change(&base, vec![])).await.expect("late");
    assert!(matches!(swap(&one, &table, late).await, SwapAnswer::Conflict));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_catalog_serves_writers_of_one_table_and_of_others_at_once() {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = Arc::new(sql(&directory));
    let idents = ["a", "b"].map(|name| TableIdent::from_strs(["sales", name]).expect("ident"));
    for ident in &idents {
        let created = catalog.create(ident, new_table(FormatVersion::V2, &[])).await;
        created.expect("create");
    }
    let writers = (0..8).map(|n| {
        let (catalog, ident) = (catalog.clone(), idents[n % 2].clone());
        tokio::spawn(async move {
            let mut made = 0;
            // Ends: each conflict is a commit of another's.
            while made < 5 {
                let base = catalog.load(&ident).await.expect("load").expect("there");
                let staged = stage(&base, change(&base, vec![])).await.expect("stage");
                match swap(&catalog, &base, staged).await {
                    SwapAnswer::Committed(_) => made += 1,
                    SwapAnswer::Conflict => {}
                    other => panic!("{other:?}"),
                }
            }
        })
    });
    for writer in futures::future::join_all(writers).await {
        writer.expect("no panic");
    }
    // What each metadata file says was put together from the one before it, which others may have written meanwhile.
    for ident in &idents {
        let read = sql(&directory).load(ident).await.expect("load").expect("there");
        let known = catalog.load(ident).await.expect("load").expect("there");
        assert_eq!(read.metadata, known.metadata);
        assert_eq!(
            (read.metadata.snapshots().len(), read.metadata.history().len()),
            (20, 20)
        );
    }
}

#[tokio::test]
async fn a_refused_attempt_is_left_behind_only_where_the_table_shows_it() {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = sql(&directory);
    let base = catalog.create(&ident(), new_table(FormatVersion::V2, &[])).await;
    let base = base.expect("create");
    assert!(!catalog.left_behind(&base, 7).await, "it may still arrive");
    let table = commit(&catalog, &base, change(&base, vec![data("/d/1", 1)])).await;
    let committed = table.metadata.current_snapshot_id().expect("a snapshot");
    assert!(
        catalog.left_behind(&base, committed ^ 1).await,
        "main has moved on without it"
    );
    assert!(!catalog.left_behind(&base, committed).await, "it is the table's");
    let table = commit(&catalog, &table, change(&table, vec![])).await;
    assert!(
        !catalog.left_behind(&base, committed).await,
        "it is in the table's past"
    );
    assert!(!catalog.left_behind(&table, 7).await, "it may still arrive");

    // A commit that others have undone and expired isn't there, but it was.
    let undone = commit(&catalog, &table, change(&table, vec![])).await;
    let gone = undone.metadata.current_snapshot_id().expect("a snapshot");
    let retention = SnapshotRetention::Branch {
        min_snapshots_to_keep: None,
        max_snapshot_age_ms: None,
        max_ref_age_ms: None,
    };
    let back = TableUpdate::SetSnapshotRef {
        ref_name: "main".into(),
        reference: SnapshotReference::new(table.metadata.current_snapshot_id().expect("a snapshot"), retention),
    };
    let expired = TableUpdate::RemoveSnapshots {
        snapshot_ids: vec![gone],
    };
    let rolled_back = taken(catalog.swap(&undone, vec![], vec![back, expired]).await);
    commit(&catalog, &rolled_back, change(&rolled_back, vec![])).await;
    assert!(!catalog.left_behind(&table, gone).await, "nothing has its number");
}

#[tokio::test]
async fn deletes_and_replacements_keep_the_numbers_of_what_stays() {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = sql(&directory);
    let new = new_table(FormatVersion::V2, &[]);
    let table = catalog.create(&ident(), new).await.expect("create");
    let two = vec![data("/d/1", 10), data("/d/2", 20)];
    let table = commit(&catalog, &table, change(&table, two)).await;

    let mut row_delta = change(&table, vec![data("/d/3", 5)]);
    row_delta.added_deletes = vec![file(DataContentType::PositionDeletes, "/d/x", 2)];
    let table = commit(&catalog, &table, row_delta).await;
    assert_eq!(total(&table, "total-position-deletes"), "2");
    assert_eq!(total(&table, "total-delete-files"), "1");

    let mut replace = change(&table, vec![data("/d/4", 8)]);
    replace.removed_data = BTreeSet::from(["/d/1".to_string()]);
    replace.removed_deletes = BTreeSet::from([("/d/x".to_string(), None)]);
    replace.summary.insert("operation".to_string(), "replace".to_string());
    let again = replace.clone();
    let table = commit(&catalog, &table, replace).await;
    let expect = [("/d/2", 1), ("/d/3", 2), ("/d/4", 3)].map(|(p, n)| (ManifestContentType::Data, p.to_string(), n));
    assert_eq!(live(&table).await, expect);
    assert_eq!(total(&table, "total-records"), "33");
    assert_eq!(total(&table, "total-delete-files"), "0");
    assert_eq!(total(&table, "deleted-records"), "10");
    let snapshot = table.metadata.current_snapshot().expect("snapshot");
    assert_eq!(snapshot.summary().operation.as_str(), "replace");

    let gone = stage(&table, again).await.expect_err("gone");
    let StageError::TargetsGone { files } = gone else {
        panic!("{gone}");
    };
    assert_eq!(files, ["/d/1", "/d/x"]);
}

#[tokio::test]
async fn manifests_are_merged_and_old_metadata_is_let_go() {
    for version in [FormatVersion::V2, FormatVersion::V3] {
        let directory = tempfile::tempdir().expect("tempdir");
        let catalog = sql(&directory);
        let properties = [
            ("commit.manifest.min-count-to-merge", "3"),
            ("write.metadata.delete-after-commit.enabled", "true"),
            ("write.metadata.previous-versions-max", "2"),
        ];
        let new = new_table(version, &properties);
        let mut table = catalog.create(&ident(), new).await.expect("create");
        for n in 0..7 {
            let added = vec![data(&format!("/d/{n}"), 10)];
            table = commit(&catalog, &table, change(&table, added)).await;
        }
        assert!(manifests(&table).await.len() < 3);
        let numbers: Vec<_> = live(&table).await.into_iter().map(|f| f.2).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(total(&table, "total-records"), "70");
        let metadata = directory.path().join("sales/events/metadata");
        let files = std::fs::read_dir(metadata).expect("directory");
        let names = files.map(|f| f.expect("file").file_name().into_string().expect("utf-8"));
        assert_eq!(names.filter(|n| n.ends_with(".metadata.json")).count(), 3);
    }
}

#[tokio::test]
async fn a_column_is_added_once() {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = sql(&directory);
    let new = new_table(FormatVersion::V2, &[]);
    let base = catalog.create(&ident(), new).await.expect("create");
    let (requirements, updates) = one_more_column(&base, "more");
    let table = taken(catalog.swap(&base, requirements.clone(), updates.clone()).await);
    assert!(table.metadata.current_schema().field_by_name("more").is_some());
    let answer = catalog.swap(&table, requirements, updates).await;
    assert!(matches!(answer, SwapAnswer::Conflict), "{answer:?}");
}

/// What one of two writers does to the table in [`metadata_files_say_what_the_table_is`].
#[derive(Debug, Clone, Copy)]
enum Act {
    Commit,
    Column,
    Tag,
    Expire,
    Properties,
    Codec(&'static str),
}

impl Act {
    async fn of(self, catalog: &Catalog, base: &LoadedTable) -> LoadedTable {
        let snapshots = base.metadata.snapshots();
        let oldest = snapshots
            .map(|snapshot| (snapshot.timestamp_ms(), snapshot.snapshot_id()))
            .min();
        let update = match (self, oldest) {
            (Act::Commit, _) | (Act::Tag | Act::Expire, None) => {
                return commit(catalog, base, change(base, vec![])).await;
            }
            (Act::Column, _) => {
                let name = format!("more_{}", base.metadata.last_column_id());
                let (requirements, updates) = one_more_column(base, &name);
                return taken(catalog.swap(base, requirements, updates).await);
            }
            (Act::Tag, Some((_, oldest))) => TableUpdate::SetSnapshotRef {
                ref_name: format!("tag-{}", base.metadata.last_updated_ms()),
                reference: SnapshotReference::new(oldest, SnapshotRetention::Tag { max_ref_age_ms: None }),
            },
            (Act::Expire, Some((_, oldest))) if base.metadata.current_snapshot_id() != Some(oldest) => {
                TableUpdate::RemoveSnapshots {
                    snapshot_ids: vec![oldest],
                }
            }
            (Act::Expire | Act::Properties, _) => TableUpdate::SetProperties {
                updates: HashMap::from([("comment".to_owned(), r#"a "quoted" one"#.to_owned())]),
            },
            (Act::Codec(codec), _) => TableUpdate::SetProperties {
                updates: HashMap::from([(METADATA_CODEC.to_owned(), codec.to_owned())]),
            },
        };
        taken(catalog.swap(base, vec![], vec![update]).await)
    }
}

#[tokio::test]
async fn metadata_files_say_what_the_table_is() {
    const ACTS: &[(usize, &[Act])] = &[
        (0, &[Act::Commit; 6]),
        (1, &[Act::Commit, Act::Tag]),
        (
            0,
            &[
                Act::Commit,
                Act::Column,
                Act::Commit,
                Act::Commit,
                Act::Tag,
                Act::Commit,
                Act::Properties,
                Act::Commit,
            ],
        ),
        (1, &[Act::Expire, Act::Column]),
        (
            0,
            &[
                Act::Commit,
                Act::Commit,
                Act::Expire,
                Act::Commit,
                Act::Commit,
                Act::Codec("gzip"),
                Act::Commit,
                Act::Commit,
                Act::Column,
            ],
        ),
        (1, &[Act::Commit]),
        (0, &[Act::Codec("none"), Act::Commit, Act::Commit]),
    ];
    for (version, codec) in [(FormatVersion::V2, "none"), (FormatVersion::V3, "gzip")] {
        let directory = tempfile::tempdir().expect("tempdir");
        let writers = [sql(&directory), sql(&directory)];
        let mut table = writers[0]
            .create(&ident(), new_table(version, &[(METADATA_CODEC, codec)]))
            .await
            .expect("create");
        let (mut joined, mut whole) = (0, 0);
        for (writer, act) in ACTS
            .iter()
            .flat_map(|(writer, acts)| acts.iter().map(|act| (*writer, *act)))
        {
            table = act.of(&writers[writer], &table).await;
            let read = sql(&directory).load(&ident()).await.expect("load").expect("there");
            assert_eq!(read.metadata, table.metadata, "after {act:?} of {writer}");
            assert_eq!(read.metadata_location, table.metadata_location);
            let mut text = std::fs::read(&table.metadata_location).expect("a metadata file");
            if table.metadata_location.ends_with(".gz.metadata.json") {
                let packed = std::mem::take(&mut text);
                GzDecoder::new(packed.as_slice())
                    .read_to_end(&mut text)
                    .expect("one gzip member");
            }
            let joins = text.starts_with(br#"{"snapshots""#);
            *(if joins { &mut joined } else { &mut whole }) += 1;
        }
        assert!(
            joined >= 16 && whole >= 8,
            "{joined} files follow ours, {whole} are made whole"
        );
    }
}

#[test]
fn what_no_catalog_is_behind_is_refused() {
    let open = |uri| Catalog::sql("aperio", uri, "/w", &none()).expect_err(uri).to_string();
    assert!(!open("postgresql://u:secret@host/db").contains("secret"));
    assert!(open("sqlite://").contains("sqlite:///path"));
    let signed = BTreeMap::from([("rest.sigv4-enabled".to_string(), "true".to_string())]);
    assert!(matches!(
        Catalog::rest("http://h", None, &signed),
        Err(CatalogError::Unsupported(_))
    ));
}

/// A server that gives its answers in order, one a connection, and notes the requests; `0` hangs up unanswered.
struct Server {
    uri: String,
    requests: Arc<Mutex<Vec<String>>>,
}

/// Answers one request after another, each with its number as ETag; status 0 is no answer, and a redirect is to the same
/// server.
fn serve(answers: Vec<(u16, String)>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let uri = format!("http://{}", listener.local_addr().expect("address"));
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (noted, own) = (requests.clone(), uri.clone());
    std::thread::spawn(move || {
        for (number, (status, body)) in answers.into_iter().enumerate() {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut bytes = Vec::new();
            let mut block = [0; 4096];
            loop {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                if let Some((head, rest)) = text.split_once("\r\n\r\n") {
                    let length = head.lines().find_map(|line| {
                        let (name, value) = line.split_once(": ")?;
                        let is = name.eq_ignore_ascii_case("content-length");
                        is.then(|| value.parse::<usize>().expect("length"))
                    });
                    if rest.len() >= length.unwrap_or(0) {
                        break;
                    }
                }
                let read = stream.read(&mut block).expect("read");
                assert!(read > 0, "the client hung up");
                bytes.extend_from_slice(&block[..read]);
            }
            noted
                .lock()
                .expect("lock")
                .push(String::from_utf8(bytes).expect("utf-8"));
            if status != 0 {
                let length = body.len();
                let location = match status {
                    300..=399 => format!("location: {own}/elsewhere?token=t\r\n"),
                    _ => String::new(),
                };
                let head = format!(
                    "HTTP/1.1 {status} X\r\n{location}content-length: {length}\r\netag: \"{number}\"\r\nconnection: close\r\n\r\n"
                );
                stream.write_all(format!("{head}{body}").as_bytes()).expect("write");
            }
        }
    });
    Server { uri, requests }
}

fn error_body(message: &str) -> String {
    format!(r#"{{"error":{{"message":"{message}","type":"T","code":1}}}}"#)
}

/// What a catalog says of a table or namespace that it doesn't have.
fn missing(kind: &str) -> (u16, String) {
    let body = format!(r#"{{"error":{{"message":"none such","type":"{kind}","code":404}}}}"#);
    (404, body)
}

fn config() -> (u16, String) {
    let body = r#"{"defaults":{"prefix":"a/b"},"overrides":{}}"#;
    (200, body.to_string())
}

async fn base(directory: &tempfile::TempDir) -> LoadedTable {
    let new = new_table(FormatVersion::V2, &[]);
    let created = sql(directory).create(&ident(), new).await;
    created.expect("create")
}

fn table_body(table: &LoadedTable) -> String {
    let metadata = serde_json::to_value(&*table.metadata).expect("json");
    serde_json::json!({"metadata-location": table.metadata_location, "metadata": metadata,
        "config": {"k": "v"}})
    .to_string()
}

/// The answer of a server that made a swap.
fn swapped_body(base: &LoadedTable, staged: &Staged) -> String {
    let built = rebuilt(&base.metadata, None, vec![], staged.updates.clone());
    let built = built.expect("updates that fit").expect("no requirement");
    table_body(&LoadedTable {
        metadata: Arc::new(built.metadata),
        ..base.clone()
    })
}

#[tokio::test]
async fn a_rest_answer_is_read_no_better_than_it_is() {
    let directory = tempfile::tempdir().expect("tempdir");
    let base = base(&directory).await;
    let staged = stage(&base, change(&base, vec![])).await.expect("stage");
    let other = stage(&base, change(&base, vec![])).await.expect("stage");
    let made = swapped_body(&base, &staged);
    let cases: Vec<(u16, String, &str)> = vec![
        (200, made.clone(), "Committed"),
        (200, "{".to_string(), "Unknown"),
        (200, made[..made.len() / 2].to_owned(), "Unknown"),
        (200, "<html>Who are you?</html>".to_string(), "Unknown"),
        // The table as it was, that of another attempt, and another table.
        (200, table_body(&base), "Unknown"),
        (200, swapped_body(&base, &other), "Unknown"),
        (
            200,
            made.replace(&base.metadata.uuid().to_string(), &Uuid::new_v4().to_string()),
            "Unknown",
        ),
        // A yes without a word, and another's.
        (201, made.clone(), "Unknown"),
        (202, String::new(), "Unknown"),
        (204, String::new(), "Unknown"),
        (300, String::new(), "Unknown"),
        (301, String::new(), "Unknown"),
        (302, String::new(), "Unknown"),
        (303, String::new(), "Unknown"),
        (307, String::new(), "Unknown"),
        (308, String::new(), "Unknown"),
        (409, error_body("moved"), "Conflict"),
        (
            400,
            error_body("Cannot add snapshot with sequence number 3"),
            "Conflict",
        ),
        (400, error_body("first-row-id is behind: Row ID"), "Conflict"),
        (400, error_body("Invalid snapshot timestamp 5"), "Conflict"),
        (400, error_body("no such field"), "Rejected"),
        (401, error_body("who?"), "Rejected"),
        (404, missing("NoSuchTableException").1, "Rejected"),
        // Not in a catalog's words.
        (400, "<html>".to_string(), "Unknown"),
        (404, "<html>".to_string(), "Unknown"),
        (405, r#"{"message":"no route"}"#.to_string(), "Unknown"),
        (413, String::new(), "Unknown"),
        (408, String::new(), "Unknown"),
        (500, error_body("oops"), "Unknown"),
        (502, "<html>".to_string(), "Unknown"),
        (503, String::new(), "Unknown"),
        (504, String::new(), "Unknown"),
        (0, String::new(), "Unknown"),
    ];
    for (status, body, expect) in cases {
        // What a redirect would lead to, if it were followed, is a commit.
        let server = serve(vec![config(), (status, body.clone()), (200, made.clone())]);
        let catalog = Catalog::rest(&server.uri, Some("a warehouse"), &none()).expect("open");
        let again = Staged {
            requirements: staged.requirements.clone(),
            updates: staged.updates.clone(),
            files: vec![],
        };
        let answer = format!("{:?}", swap(&catalog, &base, again).await);
        assert!(answer.starts_with(expect), "{status} {body}: {answer}");
        if (300..400).contains(&status) {
            let to = format!("status {status} points to `{}`", server.uri);
            assert!(answer.contains(&to) && !answer.contains("token"), "{answer}");
        }
        let requests = server.requests.lock().expect("lock");
        assert_eq!(requests.len(), 2, "{status}: {requests:?}");
        assert!(requests[0].starts_with("GET /v1/config?warehouse=a%20warehouse "));
        assert!(requests[1].starts_with("POST /v1/a/b/namespaces/sales/tables/events "));
        assert!(requests[1].contains(r#""type":"assert-ref-snapshot-id""#));
    }
    let closed = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr();
    let uri = format!("http://{}", closed.expect("address"));
    let catalog = Catalog::rest(&uri, None, &none()).expect("open");
    let error = catalog.reach().await.expect_err("nobody listens");
    assert!(error.retryable(), "{error}");
}

#[tokio::test]
async fn an_ended_token_is_renewed_once() {
    let directory = tempfile::tempdir().expect("tempdir");
    let base = base(&directory).await;
    let token = |value: &str| {
        let body = format!(r#"{{"access_token":"{value}","token_type":"bearer","expires_in":3600}}"#);
        (200, body)
    };
    let staged = stage(&base, change(&base, vec![])).await.expect("stage");
    let server = serve(vec![
        token("first"),
        config(),
        (401, error_body("ended")),
        token("second"),
        (200, swapped_body(&base, &staged)),
        (419, error_body("ended")),
        token("third"),
        (401, error_body("still")),
    ]);
    let credential = BTreeMap::from([("credential".to_string(), "id:s&cret".to_string())]);
    let catalog = Catalog::rest(&server.uri, None, &credential).expect("open");
    let answer = swap(&catalog, &base, staged).await;
    assert!(matches!(answer, SwapAnswer::Committed(_)), "{answer:?}");
    let staged = stage(&base, change(&base, vec![])).await.expect("stage");
    let answer = swap(&catalog, &base, staged).await;
    assert!(
        matches!(answer, SwapAnswer::Rejected(CatalogError::Unauthorized(_))),
        "{answer:?}"
    );
    let requests = server.requests.lock().expect("lock");
    assert!(requests[0].contains("client_secret=s%26cret"));
    assert!(requests[4].contains("Bearer second"));
    assert!(!format!("{catalog:?}").contains("cret"));
}

#[tokio::test]
async fn a_rest_table_is_created_with_its_namespace_and_loaded() {
    let directory = tempfile::tempdir().expect("tempdir");
    let base = base(&directory).await;
    let server = serve(vec![
        config(),
        missing("NoSuchNamespaceException"),
        (409, error_body("another made it")),
        (409, error_body("another made this too")),
        (200, table_body(&base)),
        missing("NoSuchTableException"),
        (403, error_body("not yours")),
    ]);
    let catalog = Catalog::rest(&server.uri, None, &none()).expect("open");
    let new = new_table(FormatVersion::V3, &[]);
    let table = catalog.create(&ident(), new).await.expect("create");
    assert_eq!(table.metadata, base.metadata);
    let deep = TableIdent::from_strs(["a", "b", "t"]).expect("ident");
    assert!(catalog.load(&deep).await.expect("load").is_none());
    let refused = catalog.load(&deep).await.expect_err("403");
    assert!(matches!(refused, CatalogError::Unauthorized(_)) && refused.retryable());
    let requests = server.requests.lock().expect("lock");
    assert!(requests[1].contains(r#""format-version":"3""#));
    assert!(requests[5].starts_with("GET /v1/a/b/namespaces/a%1Fb/tables/t "));
}

#[tokio::test]
async fn a_rest_table_that_is_known_is_not_read_again() {
    let directory = tempfile::tempdir().expect("tempdir");
    let first = base(&directory).await;
    let second = commit(&sql(&directory), &first, change(&first, vec![])).await;
    let server = serve(vec![
        config(),
        (200, table_body(&first)),
        (304, String::new()),
        (200, table_body(&second)),
        (404, "<html>".to_owned()),
        missing("NoSuchTableException"),
    ]);
    let catalog = Catalog::rest(&server.uri, None, &none()).expect("open");
    let known = catalog.load(&ident()).await.expect("load").expect("there");
    let same = catalog.reload(&known).await.expect("load").expect("there");
    assert!(Arc::ptr_eq(&same.metadata, &known.metadata));
    let next = catalog.reload(&same).await.expect("load").expect("there");
    assert_eq!(next.metadata, second.metadata);
    let lost = catalog.reload(&next).await.expect_err("a gateway's word");
    assert!(matches!(lost, CatalogError::Unreachable(_)), "{lost}");
    assert!(catalog.reload(&next).await.expect("load").is_none());
    let requests = server.requests.lock().expect("lock");
    for (request, known) in [(2, r#""1""#), (3, r#""1""#), (4, r#""3""#)] {
        let header = format!("if-none-match: {known}\r\n");
        assert!(requests[request].contains(&header), "{known}: {}", requests[request]);
    }
    assert!(!requests[1].contains("if-none-match"));
}

#[tokio::test]
async fn a_table_is_missing_by_the_catalog_s_word_only() {
    let directory = tempfile::tempdir().expect("tempdir");
    let base = base(&directory).await;
    let of = |body: &str| (404, body.to_owned());
    let cases = [
        (missing("NoSuchTableException"), true),
        (missing("NoSuchNamespaceException"), true),
        (missing("EntityNotFoundException"), true),
        (
            of(r#"{"error":{"message":"m","type":"NoSuchTableException","code":0}}"#),
            true,
        ),
        (of(r#"{"error":{"message":"m","type":"T","code":400}}"#), false),
        (of(r#"{"error":{"message":"no route","code":404}}"#), false),
        (of(r#"{"error":"not_found"}"#), false),
        (of("<html>"), false),
        (of(""), false),
        ((302, String::new()), false),
        ((200, "<html>".to_owned()), false),
        ((200, table_body(&base)[..100].to_owned()), false),
    ];
    for ((status, body), is_missing) in cases {
        let server = serve(vec![config(), (status, body.clone())]);
        let catalog = Catalog::rest(&server.uri, None, &none()).expect("open");
        match catalog.load(&ident()).await {
            Ok(None) => assert!(is_missing, "{status} {body}"),
            Err(error) => assert!(
                !is_missing && (error.retryable() || body.contains("400")),
                "{status} {body}: {error}"
            ),
            Ok(Some(_)) => panic!("{status} {body}"),
        }
    }
}

#[tokio::test]
async fn a_created_table_is_the_one_that_was_asked_for_or_the_catalog_is_asked() {
    let directory = tempfile::tempdir().expect("tempdir");
    let base = base(&directory).await;
    let other = one_more_column(&base, "more");
    let other = taken(sql(&directory).swap(&base, other.0, other.1).await);
    let (more, found) = (table_body(&other), table_body(&base));
    let nameless = found.replace(r#""name":"id""#, r#""name":"di""#);
    let gateway = || (404, "<html>".to_owned());
    let cases: Vec<(Vec<(u16, String)>, bool)> = vec![
        (vec![(200, more.clone())], true),
        // Nobody's word: what is there is looked at.
        (vec![(200, nameless.clone()), (200, found.clone())], true),
        (vec![(200, "<html>".to_owned()), (200, found.clone())], true),
        (vec![(204, String::new()), (200, found.clone())], true),
        (vec![(200, nameless), missing("NoSuchTableException")], false),
        (vec![(200, "<html>".to_owned()), missing("NoSuchTableException")], false),
        (vec![(302, String::new())], false),
        (vec![gateway()], false),
    ];
    for (answers, made) in cases {
        let told = format!("{answers:?}");
        let server = serve([vec![config()], answers].concat());
        let catalog = Catalog::rest(&server.uri, None, &none()).expect("open");
        let created = catalog.create(&ident(), new_table(FormatVersion::V2, &[])).await;
        match created {
            Ok(table) => assert!(made && table.metadata.uuid() == base.metadata.uuid(), "{told}"),
            Err(error) => assert!(!made && error.retryable(), "{told}: {error}"),
        }
    }
}

/// Writes the manifest list of a table's snapshot anew: its manifests without counts, or with counts under the names that Java
/// and PyIceberg have for them, which is what the crate's reader of version 1 doesn't know.
async fn written_elsewhere(table: &LoadedTable, counts: bool) {
    let path = table
        .metadata
        .current_snapshot()
        .expect("snapshot")
        .manifest_list()
        .to_owned();
    let input = table.file_io.new_input(&path).expect("input");
    let bytes = input.read().await.expect("read");
    let reader = apache_avro::Reader::new(&bytes[..]).expect("Avro");
    let theirs = |name: &str| name.replace("_data_files_count", "_files_count");
    let schema = apache_avro::Schema::parse_str(&theirs(&reader.writer_schema().canonical_form())).expect("a schema");
    let mut writer = apache_avro::Writer::new(&schema, Vec::new());
    for value in reader {
        let Avro::Record(fields) = value.expect("a record") else {
            panic!("a manifest is a record")
        };
        let fields = fields.into_iter().map(|(name, value)| {
            let none = Avro::Union(0, Box::new(Avro::Null));
            let keeps = counts || !name.ends_with("_count");
            (theirs(&name), if keeps { value } else { none })
        });
        writer.append(Avro::Record(fields.collect())).expect("of the schema");
    }
    let bytes = writer.into_inner().expect("written");
    // Not by our own store, which replaces nothing.
    std::fs::write(path, bytes).expect("written");
}

#[tokio::test]
async fn a_list_of_version_1_keeps_its_counts_or_gets_them() {
    for counts in [true, false] {
        let directory = tempfile::tempdir().expect("tempdir");
        let catalog = sql(&directory);
        let created = catalog.create(&ident(), new_table(FormatVersion::V1, &[])).await;
        let table = created.expect("create");
        let first = commit(
            &catalog,
            &table,
            change(&table, vec![data("/d/1", 10), data("/d/2", 5)]),
        )
        .await;
        written_elsewhere(&first, counts).await;
        let theirs = manifests(&first).await;
        assert_eq!(theirs[0].added_files_count, None, "the crate's reader finds none");
        let table = commit(&catalog, &first, change(&first, vec![data("/d/3", 1)])).await;
        let mut found: Vec<_> = manifests(&table)
            .await
            .iter()
            .map(|manifest| {
                (
                    manifest.added_files_count,
                    manifest.added_rows_count,
                    manifest.existing_files_count,
                    manifest.deleted_files_count,
                )
            })
            .collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                (Some(1), Some(1), Some(0), Some(0)),
                (Some(2), Some(15), Some(0), Some(0))
            ],
            "counts in the list: {counts}"
        );
    }
}
