use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, Int64Array, ListArray, RecordBatch, StringArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Fields, TimestampMicrosecondType};
use futures::TryStreamExt;
use iceberg::NamespaceIdent;
use iceberg::spec::{NestedField, PrimitiveType, Schema, Transform, Type};

use super::*;
use crate::chunk::Chunk;
use crate::decode::{Reject, Stage};
use crate::offsets::{Offset, OffsetRange, Partition};

const TOPIC: &str = "user-events";

fn catalog(directory: &tempfile::TempDir) -> Arc<Catalog> {
    let root = directory.path().display();
    let (uri, warehouse) = (format!("sqlite://{root}/catalog.db"), format!("{root}/warehouse"));
    Arc::new(Catalog::sql("local", &uri, &warehouse, &BTreeMap::new()).expect("a catalog"))
}

fn ident() -> TableIdent {
    TableIdent::new(
        NamespaceIdent::new("lake".to_owned()),
        "user_events_dead_letters".to_owned(),
    )
}

fn origin() -> Origin {
    Origin {
        pipeline: "lake.user_events".to_owned(),
        table: Uuid::from_u128(1),
        source: Source {
            topic: TOPIC.to_owned(),
            topic_id: Some("topic-1".to_owned()),
            cluster_id: Some("cluster-1".to_owned()),
        },
    }
}

fn table(catalog: &Arc<Catalog>) -> DeadLetterTable {
    DeadLetterTable::new(Arc::clone(catalog), ident(), origin())
}

fn of(catalog: &Arc<Catalog>, change: impl FnOnce(&mut Origin)) -> DeadLetterTable {
    let mut origin = origin();
    change(&mut origin);
    DeadLetterTable::new(Arc::clone(catalog), ident(), origin)
}

/// What windows that read these offsets of partition 0 have read.
fn read(offsets: std::ops::Range<i64>) -> OffsetRanges {
    let mut ranges = OffsetRanges::default();
    let range = OffsetRange::new(Offset::new(offsets.start), Offset::new(offsets.end));
    ranges.extend(Partition(0), range).expect("one range");
    ranges
}

fn letter(partition: i32, offset: i64) -> DeadLetter {
    DeadLetter {
        topic: TOPIC.to_owned(),
        partition: Partition(partition),
        offset: Offset::new(offset),
        timestamp_ms: Some(1_700_000_000_123),
        key: Some(vec![0xff, offset as u8]),
        value: None,
        headers: vec![("trace".to_owned(), Some(vec![1])), ("trace".to_owned(), None)],
        stage: "decode",
        error: format!("column `a` is a long, offset {offset} has text"),
        schema_id: Some(7),
    }
}

fn letters(partition: i32, offsets: std::ops::Range<i64>) -> Vec<DeadLetter> {
    offsets.map(|offset| letter(partition, offset)).collect()
}

fn ledger(offsets: &[(i32, i64)]) -> Offsets {
    offsets
        .iter()
        .map(|(partition, offset)| (Partition(*partition), Offset::new(*offset)))
        .collect()
}

async fn loaded(catalog: &Catalog) -> LoadedTable {
    catalog.load(&ident()).await.expect("a catalog").expect("a table")
}

async fn rows(catalog: &Catalog) -> RecordBatch {
    let table = loaded(catalog).await;
    let table = iceberg::table::Table::builder()
        .identifier(table.ident)
        .metadata(table.metadata)
        .metadata_location(table.metadata_location)
        .file_io(table.file_io)
        .runtime(iceberg::Runtime::current())
        .build()
        .expect("a table");
    let scan = table.scan().select_all().build().expect("a scan");
    let batches: Vec<RecordBatch> = scan
        .to_arrow()
        .await
        .expect("a stream")
        .try_collect()
        .await
        .expect("batches");
    concat_batches(batches[0].schema_ref(), &batches).expect("one schema")
}

async fn keys(catalog: &Catalog) -> Vec<(i32, i64)> {
    let rows = rows(catalog).await;
    let partitions = rows["partition"]
        .as_primitive::<arrow::datatypes::Int32Type>()
        .values()
        .to_vec();
    let offsets = rows["offset"]
        .as_primitive::<arrow::datatypes::Int64Type>()
        .values()
        .to_vec();
    let mut keys: Vec<_> = partitions.into_iter().zip(offsets).collect();
    keys.sort_unstable();
    keys
}

async fn data_files(catalog: &Catalog) -> Vec<String> {
    let table = loaded(catalog).await;
    let data = format!("{}/data", table.metadata.location());
    let files = table.store.list(&data).expect("a list").try_collect::<Vec<_>>();
    files
        .await
        .expect("files")
        .into_iter()
        .map(|file| file.location)
        .collect()
}

async fn stores(table: &mut DeadLetterTable, ledger: &Offsets, letters: &[DeadLetter], expect: u64) {
    let stored = table.store(ledger, &OffsetRanges::default(), letters).await;
    assert_eq!(stored.expect("stored").new, expect);
}

/// Stores the letters of windows that have read `ranges`, commits them, and takes back what is stale.
async fn committed(table: &mut DeadLetterTable, ledger: &Offsets, ranges: &OffsetRanges, letters: &[DeadLetter]) {
    let stored = table.store(ledger, ranges, letters).await.expect("stored");
    table.take_back(&stored.stale).await.expect("taken back");
}

#[tokio::test]
async fn a_letter_is_stored_whole_and_a_replay_stores_nothing() {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = catalog(&directory);
    let mut first = table(&catalog);
    let from = ledger(&[(0, 5)]);
    stores(&mut first, &from, &[], 0).await;
    assert!(
        catalog.load(&ident()).await.expect("a catalog").is_none(),
        "no letter, no table"
    );

    let bare = DeadLetter {
        timestamp_ms: Some(i64::MAX),
        key: None,
        value: Some(b"\x00{".to_vec()),
        headers: Vec::new(),
        stage: "place",
        schema_id: None,
        ..letter(0, 9)
    };
    // One key twice in a call is one letter.
    let brought = [letter(0, 5), bare, letter(0, 5)];
    stores(&mut first, &from, &brought, 2).await;
    stores(&mut first, &from, &brought, 0).await;
    assert_eq!(
        loaded(&catalog).await.metadata.snapshots().len(),
        1,
        "a replay makes no snapshot"
    );

    let rows = rows(&catalog).await;
    assert_eq!(rows.num_rows(), 2);
    assert_eq!(rows["topic"].as_string::<i32>().value(1), TOPIC);
    let times = rows["timestamp"].as_primitive::<TimestampMicrosecondType>();
    assert_eq!((times.value(0), times.is_null(1)), (1_700_000_000_123_000, true));
    let (keys, values) = (rows["key"].as_binary::<i64>(), rows["value"].as_binary::<i64>());
    assert_eq!((keys.value(0), keys.is_null(1)), (&[0xff, 5][..], true));
    assert_eq!((values.is_null(0), values.value(1)), (true, &b"\x00{"[..]));
    let headers = rows["headers"].as_list::<i32>();
    let held = headers.value(0);
    let held = held.as_struct();
    assert_eq!((held.len(), headers.is_null(1)), (2, true));
    assert_eq!(held.column(0).as_string::<i32>().value(1), "trace");
    assert!(held.column(1).is_valid(0) && held.column(1).is_null(1));
    assert_eq!(rows["stage"].as_string::<i32>().value(1), "place");
    assert_eq!(
        rows["error"].as_string::<i32>().value(0),
        "column `a` is a long, offset 5 has text"
    );
    assert!(rows["schema_id"].is_valid(0) && rows["schema_id"].is_null(1));
}

#[tokio::test]
async fn a_new_run_reads_the_keys_and_stores_only_what_is_missing() {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = catalog(&directory);
    let from = ledger(&[(0, 5), (1, 0)]);
    stores(&mut table(&catalog), &from, &letters(0, 5..8), 3).await;
    stores(&mut table(&catalog), &from, &letters(0, 5..8), 0).await;
    let mut second = table(&catalog);
    let more: Vec<_> = letters(0, 7..10).into_iter().chain(letters(1, 7..8)).collect();
    stores(&mut second, &from, &more, 3).await;
    // What another run stores meanwhile is seen, in a topic partition that the ledger doesn't know too.
    stores(&mut table(&catalog), &from, &letters(2, 0..2), 2).await;
    stores(&mut second, &from, &letters(2, 0..3), 1).await;
    // Letters of another topic have keys of their own.
    let other: Vec<_> = letters(0, 5..7)
        .into_iter()
        .map(|letter| DeadLetter {
            topic: "other".to_owned(),
            ..letter
        })
        .collect();
    let mut of_other = of(&catalog, |origin| origin.source.topic = "other".to_owned());
    stores(&mut of_other, &from, &other, 2).await;
    let expect = [
        (0, 5),
        (0, 5),
        (0, 6),
        (0, 6),
        (0, 7),
        (0, 8),
        (0, 9),
        (1, 7),
        (2, 0),
        (2, 1),
        (2, 2),
    ];
    assert_eq!(keys(&catalog).await, expect);
}

#[tokio::test]
async fn keys_that_were_forgotten_are_read_again_after_a_rollback_of_the_main_table() {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = catalog(&directory);
    let mut run = table(&catalog);
    stores(&mut run, &ledger(&[(0, 0)]), &letters(0, 0..4), 4).await;
    stores(&mut run, &ledger(&[(0, 4)]), &letters(0, 4..6), 2).await;
    stores(&mut run, &ledger(&[(0, 0)]), &letters(0, 0..6), 0).await;
    // Below the ledger: the letter's own offset counts.
    stores(&mut run, &ledger(&[(0, 6)]), &letters(0, 3..7), 1).await;
    stores(&mut table(&catalog), &ledger(&[(0, 6)]), &letters(0, 3..7), 0).await;
}

#[tokio::test]
async fn a_ledger_of_many_partitions_reads_the_same_keys() {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = catalog(&directory);
    let from: Offsets = (0..100)
        .map(|partition| (Partition(partition), Offset::new(i64::from(partition))))
        .collect();
    let brought: Vec<_> = (0..100)
        .map(|partition| letter(partition, i64::from(partition)))
        .collect();
    stores(&mut table(&catalog), &from, &brought, 100).await;
    stores(&mut table(&catalog), &from, &brought, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_bring_the_same_letters_at_once_double_none() {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = catalog(&directory);
    let from = ledger(&[(0, 0)]);
    let mut runs: Vec<_> = (0..3).map(|_| table(&catalog)).collect();
    for round in 0..4 {
        let brought = letters(0, round * 10..round * 10 + 10);
        let tasks: Vec<_> = runs
            .drain(..)
            .map(|mut run| {
                let (from, brought) = (from.clone(), brought.clone());
                tokio::spawn(async move {
                    (
                        run.store(&from, &OffsetRanges::default(), &brought)
                            .await
                            .expect("stored")
                            .new,
                        run,
                    )
                })
            })
            .collect();
        let mut stored = 0;
        for task in tasks {
            let (count, run) = task.await.expect("no panic");
            stored += count;
            runs.push(run);
        }
        assert_eq!(stored, 10, "each letter is stored by one run");
    }
    assert_eq!(
        keys(&catalog).await,
        (0..40).map(|offset| (0, offset)).collect::<Vec<_>>()
    );
    assert_eq!(
        loaded(&catalog).await.metadata.snapshots().len(),
        4,
        "one commit for each round"
    );
}

#[tokio::test]
async fn an_attempt_is_pinned_to_the_snapshot_whose_keys_were_read() {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = catalog(&directory);
    let base = table(&catalog).create().await.expect("a table");
    let (origin, brought) = (origin(), letters(0, 0..2));
    let brought: Vec<_> = brought.iter().collect();
    let brought = Letters {
        origin: &origin,
        stored: &brought,
        taken_back: &HashSet::new(),
    };
    let first = attempt(&catalog, &base, &brought).await.expect("an answer");
    assert!(matches!(first, Attempt::Stored(..)), "{first:?}");
    let second = attempt(&catalog, &base, &brought).await.expect("an answer");
    assert!(matches!(second, Attempt::Conflict), "{second:?}");
    let data = format!("{}/data", base.metadata.location());
    let files: Vec<_> = base
        .store
        .list(&data)
        .expect("a list")
        .try_collect()
        .await
        .expect("files");
    assert_eq!(files.len(), 1, "the loser's file is gone: {files:?}");
}

#[tokio::test]
async fn what_others_store_costs_no_second_look_at_what_is_known() {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = catalog(&directory);
    let from = ledger(&[(0, 0)]);
    stores(&mut table(&catalog), &from, &letters(0, 0..4), 4).await;
    let mut run = table(&catalog);
    stores(&mut run, &from, &letters(0, 0..4), 0).await;
    let first = data_files(&catalog).await;
    let mut other = table(&catalog);
    stores(&mut other, &from, &letters(0, 0..6), 2).await;
    // Nobody could read the first file again.
    let file = first[0].trim_start_matches("file://");
    std::fs::rename(file, format!("{file}.away")).expect("renamed");
    stores(&mut run, &from, &letters(0, 0..7), 1).await;
    let snapshots = loaded(&catalog).await.metadata.snapshots().len();
    assert_eq!(snapshots, 3, "one of each that stored something");
    std::fs::rename(format!("{file}.away"), file).expect("renamed");
    // What was in a file that has ended is known no more.
    let stale = BTreeSet::from([(Partition(0), Offset::new(0))]);
    other.take_back(&stale).await.expect("taken back");
    stores(&mut run, &from, &letters(0, 0..7), 1).await;
    assert_eq!(
        keys(&catalog).await,
        (0..7).map(|offset| (0, offset)).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_lost_answer_is_counted_once_and_stored_once() {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = catalog(&directory);
    let mut run = table(&catalog);
    let from = ledger(&[(0, 0)]);
    let base = run.create().await.expect("a table");
    let (origin, brought) = (origin(), letters(0, 0..3));
    let change = Letters {
        origin: &origin,
        stored: &brought.iter().collect::<Vec<_>>(),
        taken_back: &HashSet::new(),
    };
    let Attempt::Stored(_, snapshot) = attempt(&catalog, &base, &change).await.expect("an answer") else {
        panic!("nobody else writes");
    };
    // Neither of them was answered, and only one of them came through.
    run.unsure.push(Unsure {
        base: None,
        snapshot,
        letters: 3,
    });
    run.unsure.push(Unsure {
        base: None,
        snapshot: snapshot ^ 1,
        letters: 3,
    });
    stores(&mut run, &from, &brought, 3).await;
    stores(&mut run, &from, &brought, 0).await;
    assert!(run.unsure.is_empty());
    assert_eq!(keys(&catalog).await, [(0, 0), (0, 1), (0, 2)]);
}

#[tokio::test]
async fn pipelines_clusters_and_topics_that_share_a_table_lose_no_letter() {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = catalog(&directory);
    let from = ledger(&[(0, 0)]);
    let others: [fn(&mut Origin); 7] = [
        |_| {},
        |origin| origin.pipeline = "lake.copies".to_owned(),
        |origin| origin.table = Uuid::from_u128(2),
        |origin| origin.source.topic_id = Some("topic-2".to_owned()),
        |origin| origin.source.topic_id = None,
        |origin| origin.source.cluster_id = Some("cluster-2".to_owned()),
        |origin| origin.source.cluster_id = None,
    ];
    for change in others {
        stores(&mut of(&catalog, change), &from, &letters(0, 0..2), 2).await;
    }
    for change in others {
        stores(&mut of(&catalog, change), &from, &letters(0, 0..3), 1).await;
        // That of each other origin stays, whatever these offsets bring now.
        let mut own = of(&catalog, change);
        committed(&mut own, &from, &read(0..1), &letters(0, 1..3)).await;
    }
    let (keys, rows) = (keys(&catalog).await, rows(&catalog).await);
    assert_eq!(keys, [[(0, 1); 7], [(0, 2); 7]].concat());
    let text = |name: &str, row: usize| {
        let column = rows[name].as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let of_row = |row| ["pipeline", "table_uuid", "cluster_id", "topic_id"].map(|name| text(name, row));
    let ours = [
        "lake.user_events",
        "00000000-0000-0000-0000-000000000001",
        "cluster-1",
        "topic-1",
    ];
    let ours = ours.map(|text| Some(text.to_owned()));
    assert_eq!((0..rows.num_rows()).filter(|row| of_row(*row) == ours).count(), 2);
}

#[tokio::test]
async fn letters_of_an_attempt_that_was_never_committed_are_taken_back() {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = catalog(&directory);
    let from = ledger(&[(0, 5)]);
    stores(&mut table(&catalog), &from, &letters(0, 5..9), 4).await;
    // Its commit never came. What is read again rejects 6 still, and 9 for the first time; 8 isn't read yet.
    let mut next = table(&catalog);
    let rejected: Vec<_> = letters(0, 6..7).into_iter().chain(letters(0, 9..10)).collect();
    stores(&mut next, &from, &rejected, 1).await;
    assert_eq!(
        keys(&catalog).await,
        [(0, 5), (0, 6), (0, 7), (0, 8), (0, 9)],
        "none before the commit"
    );
    committed(&mut next, &from, &read(5..8), &rejected).await;
    assert_eq!(keys(&catalog).await, [(0, 6), (0, 8), (0, 9)]);
    let snapshot = loaded(&catalog).await.metadata.current_snapshot_id();
    committed(&mut next, &from, &read(5..8), &rejected).await;
    assert_eq!(
        loaded(&catalog).await.metadata.current_snapshot_id(),
        snapshot,
        "nothing to do"
    );
    // A window without letters takes the rest back; the letter before the ledger stays.
    let none: [DeadLetter; 0] = [];
    let from = ledger(&[(0, 7)]);
    committed(&mut next, &from, &read(7..12), &none).await;
    assert_eq!(keys(&catalog).await, [(0, 6)]);
    assert_eq!(
        rows(&catalog).await["error"].as_string::<i32>().value(0),
        letter(0, 6).error
    );
}

#[tokio::test]
async fn what_a_window_supersedes_is_found_though_another_run_has_overtaken_it() {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = catalog(&directory);
    stores(&mut table(&catalog), &ledger(&[(0, 5)]), &letters(0, 6..8), 2).await;
    // The ledger is past the window, by a commit that is undone before this one is tried.
    let (mut run, none): (_, [DeadLetter; 0]) = (table(&catalog), []);
    let stored = run.store(&ledger(&[(0, 9)]), &read(5..9), &none).await.expect("stored");
    assert_eq!(stored.stale, [6, 7].map(|at| (Partition(0), Offset::new(at))).into());
}

#[tokio::test]
async fn a_letter_of_a_record_that_the_log_has_lost_makes_room_for_that_of_the_record_there_now() {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = catalog(&directory);
    let from = ledger(&[(0, 5)]);
    let at = |offset: i64, timestamp_ms: Option<i64>| DeadLetter {
        timestamp_ms,
        error: format!("{offset} of {timestamp_ms:?}"),
        ..letter(0, offset)
    };
    let lost = [
        at(5, Some(1_000)),
        at(6, Some(1_000)),
        at(7, None),
        at(8, Some(i64::MAX)),
        at(9, Some(1_000)),
    ];
    stores(&mut table(&catalog), &from, &lost, 5).await;
    stores(
        &mut of(&catalog, |origin| origin.pipeline = "lake.copies".to_owned()),
        &from,
        &lost[..1],
        1,
    )
    .await;
    let errors = async |catalog: &Catalog| {
        let rows = rows(catalog).await;
        let errors = rows["error"].as_string::<i32>();
        let mut errors: Vec<_> = errors.iter().flatten().map(str::to_owned).collect();
        errors.sort_unstable();
        errors
    };
    // A time that can't be stored is as good as none; what has none is the same as before.
    let now = [at(5, Some(2_000)), at(6, None), at(7, None), at(8, None)];
    let mut run = table(&catalog);
    let snapshots = loaded(&catalog).await.metadata.snapshots().len();
    stores(&mut run, &from, &now, 2).await;
    assert_eq!(
        loaded(&catalog).await.metadata.snapshots().len(),
        snapshots + 1,
        "one swap"
    );
    let expect = [
        "5 of Some(1000)",
        "5 of Some(2000)",
        "6 of None",
        "7 of None",
        "8 of Some(9223372036854775807)",
        "9 of Some(1000)",
    ];
    assert_eq!(errors(&catalog).await, expect, "the first is another pipeline's");
    stores(&mut run, &from, &now, 0).await;
    stores(&mut table(&catalog), &from, &now, 0).await;
    // It is one letter, and is taken back as one.
    let none: [DeadLetter; 0] = [];
    committed(&mut run, &from, &read(5..10), &none).await;
    assert_eq!(errors(&catalog).await, expect[..1]);
}

#[tokio::test]
async fn a_table_of_an_earlier_version_gets_the_new_columns_and_keeps_its_letters() {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = catalog(&directory);
    let earlier = columns::fields().into_iter().filter(|field| field.id < 14);
    let creation = NewTable {
        schema: Schema::builder().with_fields(earlier).build().expect("a schema"),
        spec: UnboundPartitionSpec::default(),
        properties: HashMap::new(),
        format_version: FormatVersion::V2,
    };
    let base = catalog.create(&ident(), creation).await.expect("a table");
    let (origin, held) = (origin(), letters(0, 0..2));
    let change = Letters {
        origin: &origin,
        stored: &held.iter().collect::<Vec<_>>(),
        taken_back: &HashSet::new(),
    };
    // As the earlier version wrote them.
    let earlier = write_as_it_is(&base, &change).await;
    let stored = catalog.swap(&base, earlier.requirements, earlier.updates).await;
    assert!(matches!(stored, SwapAnswer::Committed(_)), "{stored:?}");

    let from = ledger(&[(0, 0)]);
    let mut run = table(&catalog);
    // A look alone changes nothing.
    let none: [DeadLetter; 0] = [];
    committed(&mut run, &from, &read(0..9), &none).await;
    assert_eq!(run.count_from(&from).await.expect("counted"), 0);
    assert_eq!(loaded(&catalog).await.metadata.snapshots().len(), 1);
    // Killed once the columns were there: the snapshot is still of the schema before.
    let table_now = loaded(&catalog).await;
    let schema = columns::evolved(&table_now.metadata).expect("columns are lacking");
    assert!(run.evolve(&table_now, schema).await.expect("an answer").is_some());
    assert_eq!(run.count_from(&from).await.expect("counted"), 0);
    let mut run = table(&catalog);
    // Whose the old ones are can't be told, so they are nobody's: none is lost.
    stores(&mut run, &from, &letters(0, 1..3), 2).await;
    assert_eq!(keys(&catalog).await, [(0, 0), (0, 1), (0, 1), (0, 2)]);
    let rows = rows(&catalog).await;
    let whose = rows["pipeline"].as_string::<i32>();
    assert_eq!((0..4).filter(|row| whose.is_valid(*row)).count(), 2);
    committed(&mut run, &from, &read(0..9), &none).await;
    assert_eq!(keys(&catalog).await, [(0, 0), (0, 1)]);
}

/// Stages letters in a table that lacks the columns of today.
async fn write_as_it_is(base: &LoadedTable, letters: &Letters<'_>) -> crate::catalog::stage::Staged {
    let schema = base.metadata.current_schema();
    let arrow = iceberg::arrow::schema_to_arrow_schema(schema).expect("a schema");
    let full = columns::schema().expect("a schema");
    let plan = columns::plan(&Arc::new(full)).expect("a plan");
    let rows = columns::rows(&plan, letters.origin, letters.stored).expect("rows");
    let columns = arrow
        .fields()
        .iter()
        .map(|field| Arc::clone(&rows[field.name().as_str()]));
    let rows = RecordBatch::try_new(Arc::new(arrow.clone()), columns.collect()).expect("fewer columns");
    let plan = crate::schema::RowPlan {
        schema: Arc::clone(schema),
        arrow: Arc::new(arrow),
        ..plan.as_ref().clone()
    };
    let sinks = Box::new(UploadSinks {
        store: base.store.clone(),
        handle: Handle::current(),
    });
    let writer = WindowWriter::new(
        Arc::new(plan),
        base.metadata.default_partition_spec().clone(),
        None,
        ParquetSettings::from_properties(base.metadata.properties()).expect("settings"),
        format!("{}/data", base.metadata.location()),
        "earlier".to_owned(),
        u64::MAX,
        sinks,
    );
    let writer = written(writer, rows).await.unwrap_or_else(|error| panic!("{error}"));
    let files = blocking(move || writer.seal()).await.expect("files");
    let change = Change {
        added_data: files.into_iter().map(|file| (0, file)).collect(),
        added_deletes: Vec::new(),
        removed_data: BTreeSet::new(),
        removed_deletes: BTreeSet::new(),
        summary: BTreeMap::new(),
        properties: HashMap::new(),
        snapshot_id: fresh_snapshot_id(&base.metadata),
        now_ms: Utc::now().timestamp_millis(),
    };
    stage(base, change).await.expect("staged")
}

async fn check_made_by_others(fields: Vec<NestedField>, spec: UnboundPartitionSpec, expect: Result<u64, &str>) {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = catalog(&directory);
    let schema = Schema::builder()
        .with_fields(fields.into_iter().map(Arc::new))
        .build()
        .expect("a schema");
    let creation = NewTable {
        schema,
        spec,
        properties: HashMap::new(),
        format_version: FormatVersion::V2,
    };
    catalog.create(&ident(), creation).await.expect("a table");
    let answer = table(&catalog)
        .store(&ledger(&[(0, 0)]), &OffsetRanges::default(), &letters(0, 0..2))
        .await;
    match expect {
        Ok(count) => {
            assert_eq!(answer.expect("stored").new, count);
            stores(&mut table(&catalog), &ledger(&[(0, 0)]), &letters(0, 0..2), 0).await;
        }
        Err(reason) => {
            let error = answer.expect_err("unsuitable");
            assert!(!error.retryable() && error.to_string().ends_with(reason), "{error}");
        }
    }
}

#[tokio::test]
async fn a_table_made_by_others_is_used_if_it_can_hold_letters_whole() {
    let ours = || {
        columns::fields()
            .iter()
            .map(|field| field.as_ref().clone())
            .collect::<Vec<_>>()
    };
    let none = UnboundPartitionSpec::default;
    let handled = || NestedField::optional(20, "handled", Type::Primitive(PrimitiveType::Boolean));
    let reversed = || ours().into_iter().rev().chain([handled()]).collect();
    check_made_by_others(reversed(), none(), Ok(2)).await;

    let required = NestedField::required(20, "owner", Type::Primitive(PrimitiveType::String));
    let fields = ours().into_iter().chain([required]).collect();
    check_made_by_others(
        fields,
        none(),
        Err("its column `owner` is required, and dead letters have nothing for it"),
    )
    .await;

    let fields = ours().into_iter().filter(|field| field.name != "value").collect();
    check_made_by_others(fields, none(), Err("it has no column `value`")).await;

    let narrow = |field: NestedField| match field.name.as_str() {
        "offset" => NestedField::required(3, "offset", Type::Primitive(PrimitiveType::Int)),
        _ => field,
    };
    let fields = ours().into_iter().map(narrow).collect();
    check_made_by_others(fields, none(), Err("its column `offset` is int, not long")).await;

    let spec = UnboundPartitionSpec::builder()
        .with_spec_id(0)
        .add_partition_field(2, "p", Transform::Identity);
    let spec = spec.expect("a field").build();
    let reason = "it was never without partitions; name a table of your own";
    check_made_by_others(ours(), spec, Err(reason)).await;
}

#[test]
fn a_letter_is_the_record_that_the_reject_names() {
    let fields = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Binary, true),
    ]);
    let headers = StructArray::new(
        fields.clone(),
        vec![
            Arc::new(StringArray::from(vec!["a", "b", "b"])),
            Arc::new(BinaryArray::from_opt_vec(vec![None, Some(b"1"), Some(b"2")])),
        ],
        None,
    );
    let element = Arc::new(Field::new("element", DataType::Struct(fields), false));
    let nulls = NullBuffer::from(vec![true, false, true]);
    let lengths = OffsetBuffer::from_lengths([1, 0, 2]);
    let chunk = Chunk {
        partition: Partition(3),
        range: OffsetRange::new(Offset::new(10), Offset::new(20)),
        offsets: Int64Array::from(vec![10, 12, 19]),
        timestamps: Int64Array::from(vec![None, None, Some(-1)]),
        keys: BinaryArray::from_opt_vec(vec![None, None, Some(b"k")]),
        values: BinaryArray::from_opt_vec(vec![Some(b"v"), None, None]),
        headers: Some(ListArray::new(element, lengths, Arc::new(headers), Some(nulls))),
    };
    let of = |index| {
        DeadLetter::of(
            TOPIC,
            &chunk,
            &Reject {
                index,
                stage: Stage::Place,
                reason: "because".to_owned(),
            },
            false,
        )
    };
    let expect = DeadLetter {
        topic: TOPIC.to_owned(),
        partition: Partition(3),
        offset: Offset::new(19),
        timestamp_ms: Some(-1),
        key: Some(b"k".to_vec()),
        value: None,
        headers: vec![
            ("b".to_owned(), Some(b"1".to_vec())),
            ("b".to_owned(), Some(b"2".to_vec())),
        ],
        stage: "place",
        error: "because".to_owned(),
        schema_id: None,
    };
    assert_eq!(of(2), expect);
    assert_eq!(of(1).headers, []);
    assert_eq!(
        (of(0).value, of(0).timestamp_ms, of(0).headers.len()),
        (Some(b"v".to_vec()), None, 1)
    );
}
