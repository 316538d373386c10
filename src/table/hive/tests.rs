use std::collections::HashMap;

use iceberg::TableCreation;
use iceberg::spec::{
    DataContentType, DataFileBuilder, DataFileFormat, FormatVersion, NestedField, PrimitiveType, Schema, Struct,
    TableMetadataBuilder, Type,
};

use super::*;
use crate::table::WindowFile;

const RUN: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);

fn metadata() -> TableMetadata {
    let id = NestedField::optional(1, "id", Type::Primitive(PrimitiveType::Long));
    let schema = Schema::builder().with_fields([id.into()]).build().expect("a schema");
    let creation = TableCreation::builder()
        .name("t".into())
        .location("/w/default/t".into())
        .schema(schema)
        .format_version(FormatVersion::V2)
        .build();
    TableMetadataBuilder::from_table_creation(creation)
        .expect("a table")
        .assign_uuid(Uuid::from_u128(9))
        .build()
        .expect("a table")
        .metadata
}

fn id(run: Uuid, sequence: u64) -> WindowId {
    WindowId { run, sequence }
}

/// Moves partitions to offsets by one window.
fn plan(rows: &Rows, window: WindowId, to: &[(i32, i64)]) -> CommitPlan {
    let mut ledger = ledger_of(rows);
    for (partition, offset) in to {
        ledger.offsets.set(Partition(*partition), Offset::new(*offset));
        ledger.windows.insert(Partition(*partition), window);
    }
    let file = DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path("/w/.aperio/default/t/staged/x.parquet".into())
        .file_format(DataFileFormat::Parquet)
        .partition(Struct::empty())
        .partition_spec_id(0)
        .record_count(1)
        .file_size_in_bytes(1)
        .build()
        .expect("all fields are set");
    CommitPlan {
        base_uuid: Uuid::from_u128(9),
        base_snapshot: view(&metadata(), rows).expect("rows that go together").snapshot,
        files: vec![WindowFile { spec_id: 0, file }],
        ledger,
        windows: vec![window],
    }
}

fn ledger_of(rows: &Rows) -> Ledger {
    let held = view(&metadata(), rows).expect("rows that go together").ledger;
    held.unwrap_or_else(|| Ledger::new("t".into(), None, None))
}

/// A table that starts at 0 in two partitions.
fn started() -> Rows {
    let rows = with_table(&Rows::new(), &metadata(), 5);
    let mut start = plan(&rows, id(RUN, 0), &[(0, 0), (1, 0)]);
    start.files.clear();
    start.windows.clear();
    start.ledger.windows.clear();
    committed(&rows, &rows, &start, None, 6).expect("nothing is in the way")
}

fn commit(now: &Rows, base: &Rows, plan: &CommitPlan) -> Option<Rows> {
    committed(now, base, plan, manifest_name(&plan.windows).as_deref(), 7)
}

#[test]
fn the_rows_are_what_the_documentation_shows() {
    let base = started();
    let rows = commit(&base, &base, &plan(&base, id(RUN, 3), &[(0, 8)])).expect("admitted");
    let text: Vec<_> = rows
        .iter()
        .filter(|(key, _)| *key != TABLE)
        .map(|(key, row)| format!("{key} {}", row.value))
        .collect();
    insta::assert_snapshot!(text.join("\n"), @r#"
    ledger {"version":2,"commit":2,"tableUuid":"00000000-0000-0000-0000-000000000009","topic":"t","partitions":[0,1],"windows":{"0":"00000000000000000000000000000001/3"},"eventTimes":{}}
    manifest:00000000000000000000000000000001-00003-00003 1
    partition:0 8
    partition:1 0
    "#);
    let read = table(&rows).expect("readable").expect("a table");
    assert_eq!((read.uuid(), read.location()), (Uuid::from_u128(9), "/w/default/t"));
    assert_eq!(
        read.current_schema().as_struct(),
        metadata().current_schema().as_struct()
    );
    let view = view(&read, &rows).expect("readable");
    assert_eq!(
        view.ledger.expect("offsets").offsets.get(Partition(0)),
        Some(Offset::new(8))
    );
    assert_eq!((view.sequence, view.snapshot), (2, Some(2)));
}

#[test]
fn leader_epochs_and_stale_letters_are_kept_beside_the_offsets_and_rows_of_the_first_version_have_none() {
    let base = started();
    let mut moved = plan(&base, id(RUN, 3), &[(0, 8)]);
    moved.ledger.leader_epochs = [(Partition(0), LeaderEpoch(4))].into();
    moved.ledger.stale_letters = [(Partition(0), Offset::new(5))].into();
    let rows = commit(&base, &base, &moved).expect("admitted");
    assert_eq!(rows["partition:0"].value, "8");
    assert!(
        rows[LEDGER]
            .value
            .ends_with(r#""leaderEpochs":{"4":[0]},"staleLetters":{"0":[[5,1]]}}"#),
        "{}",
        rows[LEDGER].value
    );
    assert_eq!(ledger_of(&rows), moved.ledger);
    let mut old = base.clone();
    let first = base[LEDGER].value.replace(r#""version":2"#, r#""version":1"#);
    set(&mut old, LEDGER, first, 0);
    assert_eq!(ledger_of(&old), ledger_of(&base));
}

#[test]
fn a_commit_is_made_only_onto_the_offsets_that_admission_saw() {
    let base = started();
    let mine = plan(&base, id(RUN, 0), &[(0, 8)]);
    let theirs = commit(&base, &base, &plan(&base, id(OTHER, 0), &[(1, 5)])).expect("admitted");
    assert_eq!(
        commit(&theirs, &base, &mine),
        None,
        "another partition moved: to be admitted again"
    );
    // What was published or evolved meanwhile is no matter, and isn't undone.
    let first = commit(&base, &base, &mine).expect("admitted");
    let next = plan(&first, id(RUN, 1), &[(0, 9)]);
    let shown = published(&first, &unpublished(&first)).expect("a manifest was there");
    let shown = with_table(&shown, &metadata(), 99);
    let after = commit(&shown, &first, &next).expect("admitted");
    assert_eq!(unpublished(&after), ["00000000000000000000000000000001-00001-00001"]);
    assert_eq!(after[TABLE].at_us, 99);
    assert_eq!(published(&after, &["else".to_owned()]), None);
    let mut before = next.clone();
    before.base_snapshot = Some(1);
    assert_eq!(commit(&shown, &first, &before), None, "made for what was there before");
    let mut other_table = next.clone();
    other_table.base_uuid = OTHER;
    assert_eq!(commit(&shown, &first, &other_table), None);
}

#[test]
fn what_became_of_a_commit_is_told_by_the_windows_that_last_moved_its_partitions() {
    let base = started();
    let mine = plan(&base, id(RUN, 0), &[(0, 8), (1, 3)]);
    let landed = commit(&base, &base, &mine).expect("admitted");
    assert_eq!(fate(&landed, &base, &mine), Fate::Landed);
    let after = |rows: &Rows, to: &[(i32, i64)]| commit(rows, rows, &plan(rows, id(OTHER, 0), to)).expect("admitted");
    assert_eq!(fate(&after(&landed, &[(1, 4)]), &base, &mine), Fate::Landed);
    assert_eq!(fate(&after(&base, &[(1, 4)]), &base, &mine), Fate::Refused);
    // Either this one came first and both partitions moved on, or it never came.
    assert_eq!(fate(&after(&landed, &[(0, 9), (1, 4)]), &base, &mine), Fate::Unclear);
    assert_eq!(fate(&after(&base, &[(0, 9), (1, 4)]), &base, &mine), Fate::Unclear);
}

#[test]
fn rows_that_do_not_go_together_are_refused() {
    let check = |change: fn(&mut Rows), expect: &str| {
        let base = started();
        let mut rows = commit(&base, &base, &plan(&base, id(RUN, 0), &[(0, 8)])).expect("admitted");
        change(&mut rows);
        let found = view(&metadata(), &rows).expect_err(expect).to_string();
        assert!(found.contains(expect), "{found}");
    };
    check(
        |rows| drop(rows.remove(LEDGER)),
        "`ledger` of sync_points is not one that this version reads: it is missing",
    );
    check(|rows| drop(rows.remove("partition:1")), "`partition:1` of sync_points");
    check(|rows| set(rows, "partition:1", "x".into(), 0), "its value is `x`");
    check(|rows| set(rows, "partition:1", "-1".into(), 0), "its value is `-1`");
    check(
        |rows| set(rows, LEDGER, "{\"version\":3}".into(), 0),
        "its version is 3",
    );
    let mut other = metadata()
        .into_builder(None)
        .assign_uuid(OTHER)
        .build()
        .expect("a table")
        .metadata;
    let found = view(&other, &started()).expect_err("another table").to_string();
    assert!(found.contains("it belongs to table"), "{found}");
    other = metadata();
    assert_eq!(
        view(&other, &with_table(&Rows::new(), &other, 1))
            .expect("no offsets yet")
            .ledger,
        None
    );
    let copies: Rows = HashMap::from([(
        "partition:0".to_owned(),
        Row {
            value: "1".into(),
            at_us: 0,
        },
    )])
    .into_iter()
    .collect();
    assert!(
        table(&copies).expect("readable").is_none(),
        "an Iceberg table's copies describe no table"
    );
}
