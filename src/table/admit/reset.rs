//! A person moves the offsets that a table holds: what that does, and the commit that does it.
//!
//! The commit adds no rows. It is pinned to the base that the person was shown, so whatever another run commits meanwhile
//! makes it a conflict; and a run that works on the table meanwhile finds its own starts refused afterwards.

use std::collections::BTreeMap;

use super::{Admitted, Source, same_source};
use crate::offsets::{Offset, Offsets, Partition};
use crate::table::TableView;
use crate::table::ledger::Ledger;

/// What a reset is to do, and the topic as it is.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The topic that is there now; the ledger becomes its.
    pub source: Source,
    /// The first offset that each of its partitions still holds.
    pub beginnings: Offsets,
    /// The end of each, open transactions included.
    pub ends: Offsets,
    /// The partitions to move, and where to.
    pub to: Offsets,
    /// Of the partitions whose log isn't any more what was read of it: up to where it still is.
    pub diverged: Offsets,
}

/// What moving one partition does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// What the table holds; `None` if it holds nothing of this partition of this topic.
    pub from: Option<Offset>,
    /// What it will hold.
    pub to: Offset,
    /// Offsets whose records are read again, so that they are in the table twice: at most so many records.
    pub doubled: u64,
    /// Offsets that are never read, those that the topic doesn't hold any more among them: at most so many records.
    pub skipped: u64,
}

/// What a reset does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    /// The partitions that move, and those that the table didn't know.
    pub moves: BTreeMap<Partition, Move>,
    /// The table's offsets are those of another topic than the one that is there, or aren't known.
    pub starts_over: bool,
    /// The ledger as it will be.
    pub ledger: Ledger,
}

/// Why a wish can't be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResetRefusal {
    /// The topic has no such partition.
    NoPartition(Partition),
    /// The topic doesn't hold that offset: a run would refuse to start there.
    OutOfRange {
        /// Where.
        partition: Partition,
        /// Where it was to go.
        to: Offset,
        /// The topic's first offset.
        beginning: Offset,
        /// The topic's end.
        end: Offset,
    },
    /// The offsets of these partitions are unknown or of another topic, so that they must be moved too.
    Partly(Vec<Partition>),
}

/// Works out what a wish does to a table that holds `held`; `None` where its offsets aren't known.
///
/// A partition that isn't moved keeps what is known of it. One that is forgets the window that moved it last, so that no
/// window is ever taken for committed that isn't in the table any more, its leader epoch, and, going back, the greatest event
/// time of what comes again.
///
/// # Errors
/// [`ResetRefusal`], for the first partition that doesn't fit.
pub fn reset(held: Option<&Ledger>, wish: &Wish) -> Result<Reset, ResetRefusal> {
    let starts_over = held.is_none_or(|ledger| !same_source(ledger, &wish.source));
    let held = held.filter(|_| !starts_over);
    let new = || Ledger::new(wish.source.topic.clone(), None, None);
    let mut ledger = held.cloned().unwrap_or_else(new);
    // What is known by now stays known, should a broker not tell it today.
    ledger.topic_id = wish.source.topic_id.clone().or(ledger.topic_id);
    ledger.cluster_id = wish.source.cluster_id.clone().or(ledger.cluster_id);
    let gone = |partition: &Partition| wish.ends.get(*partition).is_none();
    let unmoved = |partition: &Partition| wish.to.get(*partition).is_none();
    // Only a topic that was made anew has fewer partitions; then the others' offsets mean as little.
    let shrunk = ledger.offsets.partitions().any(|partition| gone(&partition));
    let left: Vec<_> = wish.ends.partitions().filter(unmoved).collect();
    if (starts_over || shrunk) && !left.is_empty() {
        return Err(ResetRefusal::Partly(left));
    }
    if shrunk {
        ledger.offsets = ledger
            .offsets
            .iter()
            .filter(|(partition, _)| !gone(partition))
            .collect();
        ledger.windows.retain(|partition, _| !gone(partition));
        ledger.event_times.retain(|partition, _| !gone(partition));
        ledger.leader_epochs.retain(|partition, _| !gone(partition));
        ledger.stale_letters.retain(|(partition, _)| !gone(partition));
    }
    let mut moves = BTreeMap::new();
    for (partition, to) in wish.to.iter() {
        let (Some(beginning), Some(end)) = (wish.beginnings.get(partition), wish.ends.get(partition)) else {
            return Err(ResetRefusal::NoPartition(partition));
        };
        if to < beginning || to > end {
            return Err(ResetRefusal::OutOfRange {
                partition,
                to,
                beginning,
                end,
            });
        }
        let from = ledger.offsets.get(partition);
        let diverged = wish.diverged.get(partition);
        if from == Some(to) && diverged.is_none() {
            continue;
        }
        // Of a topic that the table knows nothing of, everything before is skipped; of a log that lost its end, what the
        // table holds from there on is none of what it holds now.
        let known = diverged.or(from).unwrap_or(beginning);
        moves.insert(
            partition,
            Move {
                from,
                to,
                // Never more than the topic holds.
                doubled: if to < known { known.min(end).since(to) } else { 0 },
                skipped: to.since(known),
            },
        );
        ledger.offsets.set(partition, to);
        ledger.windows.remove(&partition);
        // It was that of another offset, or of a log that is no more.
        ledger.leader_epochs.remove(&partition);
        // What is read again is judged again.
        ledger
            .stale_letters
            .retain(|(of, offset)| *of != partition || *offset < to);
        if from.is_none_or(|from| to < from) {
            ledger.event_times.remove(&partition);
        }
    }
    Ok(Reset {
        moves,
        starts_over,
        ledger,
    })
}

/// Permits the commit of a reset to exactly the base that it was worked out for. A person has decided.
pub fn admit_reset(base: TableView, reset: Reset) -> Admitted {
    Admitted {
        base,
        windows: Vec::new(),
        ledger: reset.ledger,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::offsets::LeaderEpoch;
    use crate::table::WindowId;

    fn offsets(of: &[(i32, i64)]) -> Offsets {
        of.iter()
            .map(|(partition, offset)| (Partition(*partition), Offset::new(*offset)))
            .collect()
    }

    fn source(id: &str) -> Source {
        Source {
            topic: "t".into(),
            topic_id: Some(id.into()),
            cluster_id: None,
        }
    }

    /// A topic of two partitions that hold 10 to 100.
    fn wish(id: &str, to: &[(i32, i64)]) -> Wish {
        Wish {
            source: source(id),
            beginnings: offsets(&[(0, 10), (1, 10)]),
            ends: offsets(&[(0, 100), (1, 100)]),
            to: offsets(to),
            diverged: Offsets::default(),
        }
    }

    fn held(of: &[(i32, i64)]) -> Ledger {
        let moved_by = WindowId {
            run: Uuid::from_u128(1),
            sequence: 3,
        };
        Ledger {
            topic: "t".into(),
            topic_id: Some("id".into()),
            cluster_id: Some("c".into()),
            offsets: offsets(of),
            windows: of
                .iter()
                .map(|(partition, _)| (Partition(*partition), moved_by))
                .collect(),
            event_times: of.iter().map(|(partition, _)| (Partition(*partition), 5)).collect(),
            leader_epochs: BTreeMap::new(),
            stale_letters: Default::default(),
        }
    }

    /// What moving partition 0 does: from, to, doubled, skipped.
    fn check(from: i64, to: i64, expect: Option<(i64, i64, u64, u64)>) {
        let done = reset(Some(&held(&[(0, from), (1, 50)])), &wish("id", &[(0, to)])).expect("it fits");
        let found = done.moves.get(&Partition(0)).map(|found| {
            (
                found.from.expect("known").get(),
                found.to.get(),
                found.doubled,
                found.skipped,
            )
        });
        assert_eq!(found, expect);
        assert_eq!(done.ledger.offsets, offsets(&[(0, to), (1, 50)]));
        assert!(
            done.ledger.windows.contains_key(&Partition(1)),
            "what isn't moved stays"
        );
    }

    #[test]
    fn what_doubles_and_what_is_skipped_is_counted() {
        check(50, 50, None);
        check(50, 49, Some((50, 49, 1, 0)));
        check(50, 51, Some((50, 51, 0, 1)));
        check(50, 10, Some((50, 10, 40, 0)));
        check(50, 100, Some((50, 100, 0, 50)));
        // Offsets were gone before they were read, and a topic ends before what the table holds.
        check(5, 10, Some((5, 10, 0, 5)));
        check(120, 100, Some((120, 100, 0, 0)));
        check(120, 90, Some((120, 90, 10, 0)));
    }

    #[test]
    fn a_log_that_was_cut_is_read_from_where_it_still_is_the_same_and_its_epoch_is_forgotten() {
        let mut ledger = held(&[(0, 50), (1, 50)]);
        ledger.leader_epochs = [(Partition(0), LeaderEpoch(4)), (Partition(1), LeaderEpoch(4))].into();
        let letter = |partition, at| (Partition(partition), Offset::new(at));
        ledger.stale_letters = [letter(0, 9), letter(0, 49), letter(1, 49)].into();
        let moved = |to: i64| {
            let wish = Wish {
                diverged: offsets(&[(0, 30)]),
                ..wish("id", &[(0, to)])
            };
            let done = reset(Some(&ledger), &wish).expect("it fits");
            assert_eq!(done.ledger.leader_epochs, [(Partition(1), LeaderEpoch(4))].into());
            assert!(
                done.ledger.stale_letters.contains(&letter(1, 49)),
                "its partition stays"
            );
            assert_eq!(done.ledger.stale_letters.contains(&letter(0, 9)), to > 9);
            assert_eq!(done.ledger.stale_letters.contains(&letter(0, 49)), to > 49);
            let found: &Move = &done.moves[&Partition(0)];
            (found.doubled, found.skipped)
        };
        assert_eq!(
            [moved(30), moved(20), moved(50), moved(60)],
            [(0, 0), (10, 0), (0, 20), (0, 30)]
        );
    }

    #[test]
    fn a_partition_that_goes_back_forgets_its_window_and_its_event_time_one_that_goes_on_only_its_window() {
        let moved = |to| {
            let ledger = reset(Some(&held(&[(0, 50), (1, 50)])), &wish("id", &[(0, to)]))
                .expect("it fits")
                .ledger;
            (
                ledger.windows.contains_key(&Partition(0)),
                ledger.event_times.contains_key(&Partition(0)),
            )
        };
        assert_eq!(moved(50), (true, true));
        assert_eq!(moved(49), (false, false));
        assert_eq!(moved(51), (false, true));
    }

    #[test]
    fn an_offset_that_the_topic_does_not_hold_is_refused() {
        let refused = |to: &[(i32, i64)]| reset(Some(&held(&[(0, 50), (1, 50)])), &wish("id", to)).err();
        assert_eq!(refused(&[(0, 10), (1, 100)]), None);
        for to in [9, 101] {
            let expect = ResetRefusal::OutOfRange {
                partition: Partition(0),
                to: Offset::new(to),
                beginning: Offset::new(10),
                end: Offset::new(100),
            };
            assert_eq!(refused(&[(0, to)]), Some(expect));
        }
        assert_eq!(refused(&[(2, 10)]), Some(ResetRefusal::NoPartition(Partition(2))));
    }

    #[test]
    fn another_topic_takes_the_place_of_the_ledger_only_as_a_whole() {
        let old = held(&[(0, 50), (1, 50), (2, 50)]);
        let done = reset(Some(&old), &wish("new", &[(0, 10), (1, 30)])).expect("it fits");
        assert!(done.starts_over);
        assert_eq!(done.ledger.topic_id.as_deref(), Some("new"));
        assert_eq!(done.ledger.offsets, offsets(&[(0, 10), (1, 30)]));
        assert!(done.ledger.windows.is_empty() && done.ledger.event_times.is_empty());
        let counts = |partition| {
            let found: &Move = &done.moves[&Partition(partition)];
            (found.from, found.doubled, found.skipped)
        };
        assert_eq!((counts(0), counts(1)), ((None, 0, 0), (None, 0, 20)));
        for ledger in [Some(&old), None] {
            let refusal = reset(ledger, &wish("new", &[(0, 10)])).expect_err("partition 1 is left");
            assert_eq!(refusal, ResetRefusal::Partly(vec![Partition(1)]));
        }
        // Without ids nothing but the number of partitions tells that the topic is another.
        let nameless = Wish {
            source: Source {
                topic_id: None,
                ..source("id")
            },
            ..wish("id", &[(0, 10), (1, 10)])
        };
        let done = reset(Some(&old), &nameless).expect("it fits");
        assert_eq!(done.ledger.offsets, offsets(&[(0, 10), (1, 10)]));
        assert_eq!(done.ledger.topic_id.as_deref(), Some("id"));
    }

    #[test]
    fn a_partition_that_the_table_never_knew_can_be_placed() {
        let done = reset(Some(&held(&[(0, 50)])), &wish("id", &[(1, 40)])).expect("it fits");
        assert_eq!(done.ledger.offsets, offsets(&[(0, 50), (1, 40)]));
        assert_eq!(done.moves[&Partition(1)].skipped, 30);
    }
}
