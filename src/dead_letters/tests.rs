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

fn table(catalog: &Arc<Catalog>) -> DeadLetterTable {
    DeadLetterTable::new(Arc::clone(catalog), ident())
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

async fn stores(table: &mut DeadLetterTable, ledger: &Offsets, letters: &[DeadLetter], expect: u64) {
    assert_eq!(table.store(ledger, letters).await.expect("stored"), expect);
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
    stores(&mut second, &from, &other, 2).await;
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
                tokio::spawn(async move { (run.store(&from, &brought).await.expect("stored"), run) })
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
    let base = table(&catalog).load_or_create().await.expect("a table");
    let brought = letters(0, 0..2);
    let brought: Vec<_> = brought.iter().collect();
    let first = attempt(&catalog, &base, &brought).await.expect("an answer");
    assert!(matches!(first, Attempt::Stored(_)), "{first:?}");
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
async fn a_lost_answer_is_counted_once_and_stored_once() {
    let directory = tempfile::tempdir().expect("tempdir");
    let catalog = catalog(&directory);
    let mut run = table(&catalog);
    let from = ledger(&[(0, 0)]);
    let base = run.load_or_create().await.expect("a table");
    let brought = letters(0, 0..3);
    let Attempt::Stored(snapshot) = attempt(&catalog, &base, &brought.iter().collect::<Vec<_>>())
        .await
        .expect("an answer")
    else {
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
    let answer = table(&catalog).store(&ledger(&[(0, 0)]), &letters(0, 0..2)).await;
    match expect {
        Ok(count) => {
            assert_eq!(answer.expect("stored"), count);
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
