//! Why a `--once` run can't get to its ends although nothing is wrong here: exit code 4.

use std::collections::BTreeSet;

use crate::error::{Exit, Failure};
use crate::offsets::{Offset, Offsets, Partition};
use crate::run::start::{Listing, named};
use crate::table::admit::Source;
use crate::table::ledger::Ledger;

/// Tells which partitions don't come to their ends, and with whom they are.
///
/// - `assigned`: those that this run reads itself.
pub(super) fn stuck(
    source: &Source,
    ledger: Option<&Ledger>,
    ends: &Offsets,
    assigned: &BTreeSet<Partition>,
) -> Failure {
    let topic = &source.topic;
    let held = |partition| {
        ledger
            .and_then(|ledger| ledger.offsets.get(partition))
            .unwrap_or(Offset::ZERO)
    };
    let mut listing = Listing::default();
    for (partition, end) in ends.iter().filter(|(partition, end)| held(*partition) < *end) {
        let reader = match assigned.contains(&partition) {
            true => "this run reads it and gets no records",
            false => "another member of the group has it, or nobody",
        };
        listing.add(|| {
            format!(
                "{}: the table holds offset {}, the end is {end}; {reader}",
                named(topic, partition),
                held(partition)
            )
        });
    }
    let failure = Failure::new(
        Exit::Remote,
        format!("topic `{topic}` doesn't come to its ends: nothing moves any more"),
    )
    .hint(
        "does another instance hold partitions without committing? Look at it, or end it, and run again: its partitions come back when its session is over. Or wait longer with `--retry-for`",
    );
    match listing.text() {
        Some(text) => failure.detail(text),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn partitions_behind_their_ends_are_told_with_both_numbers_and_who_has_them() {
        let offsets = |of: &[(i32, i64)]| -> Offsets {
            of.iter()
                .map(|(partition, offset)| (Partition(*partition), Offset::new(*offset)))
                .collect()
        };
        let source = Source {
            topic: "t".into(),
            topic_id: None,
            cluster_id: None,
        };
        let ledger = Ledger {
            topic: "t".into(),
            topic_id: None,
            cluster_id: None,
            offsets: offsets(&[(0, 10), (1, 4), (2, 3)]),
            windows: BTreeMap::new(),
            event_times: BTreeMap::new(),
            leader_epochs: BTreeMap::new(),
            stale_letters: BTreeSet::new(),
        };
        let ends = offsets(&[(0, 10), (1, 5), (2, 9)]);
        let failure = stuck(&source, Some(&ledger), &ends, &[Partition(1)].into());
        assert_eq!(failure.exit, Exit::Remote);
        insta::assert_snapshot!(
            failure.detail.expect("numbers"),
            @"t/1: the table holds offset 4, the end is 5; this run reads it and gets no records; t/2: the table holds offset 3, the end is 9; another member of the group has it, or nobody"
        );
    }
}
