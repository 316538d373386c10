use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{BinaryArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::Schema;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::offsets::OffsetRange;

const P: Partition = Partition(3);

fn window(sequence: u64) -> WindowId {
    WindowId {
        run: Uuid::nil(),
        sequence,
    }
}

/// Takes a chunk of events, the first at `start`; returns the offsets of the rows that stay.
fn take(horizon: &mut Horizon, start: i64, ids: &[Option<&str>]) -> Vec<i64> {
    let count = ids.len() as i64;
    let range = OffsetRange::new(Offset::new(start), Offset::new(start + count));
    let chunk = Chunk {
        partition: P,
        range,
        offsets: (start..start + count).collect::<Int64Array>(),
        timestamps: Int64Array::new_null(ids.len()),
        keys: BinaryArray::new_null(ids.len()),
        values: BinaryArray::new_null(ids.len()),
        headers: None,
    };
    let options = RecordBatchOptions::new().with_row_count(Some(ids.len()));
    let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options);
    let mut decoded = Decoded {
        rows: rows.expect("no columns"),
        indexes: (0..count as u32).collect(),
        rejects: Vec::new(),
        filtered: 0,
        unseen: None,
        unknown: Vec::new(),
        event_time: None,
        keys: None,
        event_ids: None,
        gone: 0,
        fields_dropped: 0,
    };
    let ids: StringArray = ids.iter().copied().collect();
    let ids: ArrayRef = Arc::new(ids);
    let resent = horizon.take(&chunk, &mut decoded, &ids);
    horizon.ended(P, range.end()).expect("there is room");
    assert_eq!(decoded.indexes.len() as u64 + resent, count as u64);
    decoded
        .indexes
        .iter()
        .map(|index| chunk.offset(*index as usize).get())
        .collect()
}

fn begun(length: u64, start: i64, events: &[(i64, &str)]) -> Horizon {
    let mut horizon = Horizon::new(length, usize::MAX, &Memory::new(1 << 20));
    let events = events.iter().map(|(at, id)| (Offset::new(*at), event_key(id)));
    horizon.enter(window(1));
    horizon.begin(P, Offset::new(start), events.collect());
    horizon
}

#[test]
fn an_event_that_comes_again_is_known_for_so_many_offsets() {
    let mut horizon = begun(4, 10, &[(5, "old"), (7, "a")]);
    assert!(horizon.knows(P, Offset::new(10)) && !horizon.knows(P, Offset::new(11)));
    // "old" is 5 offsets away, "a" 4; an event without an id is never known.
    assert_eq!(
        take(
            &mut horizon,
            10,
            &[Some("old"), Some("a"), Some("b"), Some("b"), None, None]
        ),
        [10, 12, 14, 15]
    );
    // What was sent again isn't remembered: "b" is that of 12.
    assert_eq!(take(&mut horizon, 16, &[Some("b"), Some("b"), Some("b")]), [17]);
}

#[test]
fn a_window_that_is_dropped_was_never_there() {
    let mut horizon = begun(3, 10, &[(8, "a"), (9, "b")]);
    assert_eq!(
        take(&mut horizon, 10, &[Some("x"), Some("y"), Some("b"), Some("a")]),
        [10, 11, 13]
    );
    horizon.drop_window(window(7));
    assert!(horizon.knows(P, Offset::new(14)), "another window was dropped");
    horizon.drop_window(window(1));
    assert!(horizon.knows(P, Offset::new(10)));
    horizon.enter(window(2));
    assert_eq!(take(&mut horizon, 10, &[Some("x"), Some("a"), Some("b")]), [10]);
    // Once sealed, it isn't taken back here: its records come from where they aren't expected.
    horizon.enter(window(3));
    horizon.drop_window(window(2));
    assert!(horizon.knows(P, Offset::new(13)));
}

#[test]
fn a_row_that_could_not_be_placed_is_not_known() {
    let mut horizon = begun(9, 0, &[]);
    assert_eq!(take(&mut horizon, 0, &[Some("a"), Some("b")]), [0, 1]);
    horizon.forget(P, Offset::new(0));
    assert_eq!(take(&mut horizon, 2, &[Some("a"), Some("b")]), [2]);
}

proptest! {
    /// Windows are dropped, lines start again from the table's rows: each time the rows are those of the plain rule.
    #[test]
    fn rows_are_the_same_however_often_it_starts_again(
        ids in proptest::collection::vec(0u8..12, 1..120),
        length in 1i64..20,
        steps in proptest::collection::vec((1usize..9, 0u8..6), 1..80),
    ) {
        let names: Vec<String> = ids.iter().map(u8::to_string).collect();
        let mut expect = Vec::new();
        let mut last: BTreeMap<&str, i64> = BTreeMap::new();
        for (at, name) in (0i64..).zip(&names) {
            if last.get(name.as_str()).is_none_or(|before| at - before > length) {
                last.insert(name, at);
                expect.push(at);
            }
        }
        let (mut table, mut pending): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
        let (mut committed, mut at, mut sequence) = (0usize, 0usize, 1);
        let mut horizon = begun(length as u64, 0, &[]);
        for (count, what) in steps.into_iter().chain(std::iter::repeat_n((9, 1), 40)) {
            let end = (at + count).min(names.len());
            let chunk: Vec<_> = names[at..end].iter().map(|name| Some(name.as_str())).collect();
            if !chunk.is_empty() {
                pending.extend(take(&mut horizon, at as i64, &chunk));
            }
            at = end;
            match what {
                // The window is committed.
                0 | 1 => {
                    table.append(&mut pending);
                    committed = at;
                    sequence += 1;
                    horizon.enter(window(sequence));
                }
                // It is dropped, and read again.
                2 => {
                    pending.clear();
                    horizon.drop_window(window(sequence));
                    at = committed;
                    sequence += 1;
                    horizon.enter(window(sequence));
                    prop_assert!(horizon.knows(P, Offset::new(at as i64)));
                }
                // The process dies.
                3 => {
                    pending.clear();
                    at = committed;
                    let within = table.iter().filter(|offset| **offset >= at as i64 - length);
                    let events: Vec<_> = within.map(|offset| (*offset, names[*offset as usize].as_str())).collect();
                    horizon = begun(length as u64, at as i64, &events);
                    sequence = 1;
                }
                _ => {}
            }
        }
        table.append(&mut pending);
        prop_assert_eq!(table, expect);
    }
}

#[test]
fn more_events_than_there_is_memory_for_are_told_with_both_numbers() {
    let mut horizon = Horizon::new(1_000, 2 * EVENT_BYTES, &Memory::new(1 << 20));
    horizon.enter(window(1));
    let events = [(5, "a"), (6, "b"), (7, "c")].map(|(at, id)| (Offset::new(at), event_key(id)));
    horizon.begin(P, Offset::new(10), events[..2].to_vec());
    assert_eq!(horizon.ended(P, Offset::new(11)), Ok(()));
    horizon.begin(P, Offset::new(10), events.to_vec());
    let told = horizon
        .ended(P, Offset::new(11))
        .expect_err("three don't fit")
        .to_string();
    assert_eq!(told, "3 events of 1 partitions hold 300 bytes, and 200 are for them");
}
