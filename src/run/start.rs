//! Does the topic, as it is now, go on where the table left off? Where it doesn't, a person decides: exit code 3.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::error::{Exit, Failure};
use crate::offsets::{Offset, Offsets, Partition};
use crate::table::admit::{self, Source};
use crate::table::ledger::Ledger;

/// Partitions that a message lists; the others are counted.
const LISTED_MAX: usize = 5;

/// Says whether every offset that `ledger` holds can be read next from the topic.
///
/// - `source`: the topic that was found under the pipeline's name.
/// - `beginnings`: the first offset that each of its partitions still holds.
/// - `ends`: the end of each, open transactions included; the table may hold offsets behind one under another
///   `isolationLevel`.
///
/// # Errors
/// Another topic or cluster; a partition that isn't there; offsets below the beginning or past the end. Both numbers are
/// told, and what to do.
pub fn continues(ledger: &Ledger, source: &Source, beginnings: &Offsets, ends: &Offsets) -> Result<(), Failure> {
    if !admit::same_source(ledger, source) {
        return Err(other_source(source, &admit::source_of(ledger)));
    }
    let topic = &source.topic;
    let (mut lost, mut gone, mut ahead) = (Listing::default(), Listing::default(), Listing::default());
    for (partition, held) in ledger.offsets.iter() {
        match (beginnings.get(partition), ends.get(partition)) {
            (Some(beginning), _) if held < beginning => gone.add(|| {
                format!(
                    "{}: the table holds offset {held}, the topic begins at {beginning}",
                    named(topic, partition)
                )
            }),
            (_, Some(end)) if held > end => ahead.add(|| {
                format!(
                    "{}: the table holds offset {held}, the topic ends at {end}",
                    named(topic, partition)
                )
            }),
            (Some(_), Some(_)) => {}
            _ => lost.add(|| {
                format!(
                    "{}: the table holds offset {held}, the topic has no such partition",
                    named(topic, partition)
                )
            }),
        }
    }
    if let Some(detail) = lost.text() {
        return Err(Failure::new(
            Exit::Data,
            format!("topic `{topic}` has lost partitions: it was re-created"),
        )
        .detail(detail)
        .hint(ANOTHER_TABLE));
    }
    if let Some(detail) = gone.text() {
        return Err(Failure::new(
            Exit::Data,
            format!("records of topic `{topic}` are gone before they were read"),
        )
        .detail(format!(
            "{detail}; retention or a deletion was faster than this pipeline"
        ))
        .hint(format!(
            "nothing was skipped and nothing written; `aperio status` shows every partition. {ANOTHER_TABLE}"
        )));
    }
    if let Some(detail) = ahead.text() {
        return Err(Failure::new(Exit::Data, format!("topic `{topic}` ends before the offsets that the table holds"))
            .detail(format!("{detail}; the topic was re-created, restored from an older copy, or lost records in an unclean election"))
            .hint(format!("nothing was written: offsets that are given out again would be taken for ones that were read. {ANOTHER_TABLE}")));
    }
    Ok(())
}

/// Says that logs were truncated before the offsets that the table holds, and went on with other records.
///
/// - `diverged`: of each such partition the offset up to which its log still is what was read; `None` where nothing of it
///   is.
/// - `table`: what `--table` calls it.
pub fn diverges(
    ledger: &Ledger,
    source: &Source,
    diverged: &BTreeMap<Partition, Option<Offset>>,
    table: &str,
) -> Result<(), Failure> {
    if diverged.is_empty() {
        return Ok(());
    }
    let topic = &source.topic;
    let (mut found, mut commands) = (Listing::default(), Listing::default());
    for (partition, same) in diverged {
        let held = ledger.offsets.get(*partition).unwrap_or(Offset::ZERO);
        let epoch = ledger
            .leader_epochs
            .get(partition)
            .map_or("none".to_owned(), ToString::to_string);
        let named = named(topic, *partition);
        found.add(|| match same {
            Some(same) => format!(
                "{named}: the table holds offset {held} of leader epoch {epoch}, the log is what it was up to offset {same} only"
            ),
            None => format!(
                "{named}: the table holds offset {held} of leader epoch {epoch}, the log knows no epoch that is as old"
            ),
        });
        commands.add(|| {
            let to = same.map_or("earliest".to_owned(), |same| same.to_string());
            format!("`aperio sync-points reset FILE --table {table} --partition {partition} --to {to}`")
        });
    }
    let failure = Failure::new(
        Exit::Data,
        format!("topic `{topic}` lost records that the table holds, and other records have their offsets now"),
    )
    .detail(format!(
        "{}; an unclean leader election, or a broker that was restored from an older copy, cut the log",
        found.text().unwrap_or_default()
    ));
    Err(failure.hint(format!(
        "nothing was skipped and nothing written. To read the records that are there now, run {}; the rows of those that are lost stay in the table, delete them first if you don't want them. `--to` the offset that the table holds skips the new records instead",
        commands.text().unwrap_or_default()
    )))
}

/// What can be run where a topic doesn't go on.
const ANOTHER_TABLE: &str = "To read what the topic holds now into this table, move its offsets with `aperio sync-points reset`, \
     which shows first what it does; or give the pipeline another `name`: it starts a table of its own, this one stays as it is";

/// Tells that the table's offsets are those of another topic than the one that is there.
pub(super) fn other_source(source: &Source, held: &Source) -> Failure {
    let topic = &source.topic;
    let (what, detail) = if held.topic != *topic {
        (
            format!("the table belongs to topic `{}`, not to `{topic}`", held.topic),
            "its offsets mean nothing in another topic".to_owned(),
        )
    } else if differ(&held.cluster_id, &source.cluster_id) {
        (
            format!("topic `{topic}` is in another cluster than the one the table was filled from"),
            format!(
                "the table holds offsets of cluster {}, `brokers` leads to cluster {}",
                shown(&held.cluster_id),
                shown(&source.cluster_id)
            ),
        )
    } else {
        (
            format!("topic `{topic}` was deleted and created again"),
            format!(
                "the table holds offsets of the topic with id {}, now its id is {}",
                shown(&held.topic_id),
                shown(&source.topic_id)
            ),
        )
    };
    Failure::new(Exit::Data, what).detail(detail).hint(format!(
        "look at `source.brokers` and `source.topic`; nothing was written. {ANOTHER_TABLE}"
    ))
}

/// Tells that the topic that the table was filled from isn't there.
pub fn topic_gone(topic: &str, held: &Offsets) -> Failure {
    let mut listing = Listing::default();
    for (partition, offset) in held.iter() {
        listing.add(|| format!("{}: {offset}", named(topic, partition)));
    }
    let failure = Failure::new(Exit::Data, format!("topic `{topic}` is gone"));
    let failure = match listing.text() {
        Some(text) => failure.detail(format!("the table was filled from it up to offsets {text}")),
        None => failure,
    };
    failure.hint("look at `source.brokers` and `source.topic`. A topic that is created anew under this name is another one and is refused until `aperio sync-points reset` moves the offsets; the table stays as it is")
}

pub(crate) fn named(topic: &str, partition: Partition) -> String {
    format!("{topic}/{partition}")
}

fn differ(a: &Option<String>, b: &Option<String>) -> bool {
    a.is_some() && b.is_some() && a != b
}

fn shown(id: &Option<String>) -> &str {
    id.as_deref().unwrap_or("unknown")
}

/// A few of many, for a message.
#[derive(Default)]
pub(super) struct Listing {
    text: String,
    count: usize,
}

impl Listing {
    pub(super) fn add(&mut self, entry: impl FnOnce() -> String) {
        self.count += 1;
        if self.count <= LISTED_MAX {
            let between = if self.count > 1 { "; " } else { "" };
            write!(self.text, "{between}{}", entry()).expect("a string takes everything");
        }
    }

    pub(super) fn text(mut self) -> Option<String> {
        let more = self.count.saturating_sub(LISTED_MAX);
        if more > 0 {
            write!(self.text, "; and {more} more").expect("a string takes everything");
        }
        (self.count > 0).then_some(self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offsets::LeaderEpoch;

    fn source() -> Source {
        Source {
            topic: "t".into(),
            topic_id: Some("id".into()),
            cluster_id: Some("c".into()),
        }
    }

    fn offsets(of: &[(i32, i64)]) -> Offsets {
        of.iter()
            .map(|(partition, offset)| (Partition(*partition), Offset::new(*offset)))
            .collect()
    }

    fn ledger(held: &[(i32, i64)]) -> Ledger {
        Ledger {
            topic: "t".into(),
            topic_id: Some("id".into()),
            cluster_id: Some("c".into()),
            offsets: offsets(held),
            windows: BTreeMap::new(),
            event_times: BTreeMap::new(),
            leader_epochs: BTreeMap::new(),
            stale_letters: Default::default(),
        }
    }

    #[test]
    fn offsets_between_beginning_and_end_go_on() {
        let (begins, ends) = (offsets(&[(0, 5), (1, 0)]), offsets(&[(0, 10), (1, 0)]));
        for held in [5, 6, 9, 10] {
            assert_eq!(
                continues(&ledger(&[(0, held), (1, 0)]), &source(), &begins, &ends),
                Ok(()),
                "{held}"
            );
        }
        // A partition that the table doesn't know yet is no matter here.
        assert_eq!(continues(&ledger(&[(0, 5)]), &source(), &begins, &ends), Ok(()));
        let check = |held: &[(i32, i64)], what: &str, detail: &str| {
            let failure = continues(&ledger(held), &source(), &begins, &ends).expect_err(what);
            assert_eq!((failure.exit, failure.what.as_str()), (Exit::Data, what));
            let found = failure.detail.expect("numbers");
            assert!(found.contains(detail), "{found}");
        };
        check(
            &[(0, 4), (1, 0)],
            "records of topic `t` are gone before they were read",
            "t/0: the table holds offset 4, the topic begins at 5",
        );
        check(
            &[(0, 10), (1, 1)],
            "topic `t` ends before the offsets that the table holds",
            "t/1: the table holds offset 1, the topic ends at 0",
        );
        check(
            &[(0, 10), (2, 0)],
            "topic `t` has lost partitions: it was re-created",
            "t/2: the table holds offset 0, the topic has no such partition",
        );
    }

    #[test]
    fn another_topic_of_the_same_name_is_told_by_what_differs() {
        let (begins, ends) = (offsets(&[(0, 0)]), offsets(&[(0, 10)]));
        let check = |change: fn(&mut Source), expect: Option<&str>| {
            let mut found = source();
            change(&mut found);
            let answer = continues(&ledger(&[(0, 3)]), &found, &begins, &ends);
            assert_eq!(answer.err().map(|failure| failure.what), expect.map(str::to_owned));
        };
        check(|_| {}, None);
        check(|source| source.topic_id = None, None);
        check(|source| source.cluster_id = None, None);
        check(
            |source| source.topic_id = Some("other".into()),
            Some("topic `t` was deleted and created again"),
        );
        check(
            |source| source.cluster_id = Some("d".into()),
            Some("topic `t` is in another cluster than the one the table was filled from"),
        );
        check(
            |source| source.topic = "u".into(),
            Some("the table belongs to topic `t`, not to `u`"),
        );
    }

    #[test]
    fn a_log_that_was_cut_is_told_with_both_offsets_and_what_to_run() {
        let mut held = ledger(&[(0, 150), (1, 7), (2, 9)]);
        held.leader_epochs = [(Partition(0), LeaderEpoch(4)), (Partition(2), LeaderEpoch(5))].into();
        assert_eq!(diverges(&held, &source(), &BTreeMap::new(), "d.t"), Ok(()));
        let diverged = [(Partition(0), Some(Offset::new(100))), (Partition(2), None)].into();
        let failure = diverges(&held, &source(), &diverged, "d.t").expect_err("it was cut");
        assert_eq!(failure.exit, Exit::Data);
        insta::assert_snapshot!(failure.what, @"topic `t` lost records that the table holds, and other records have their offsets now");
        insta::assert_snapshot!(failure.detail.expect("numbers"), @"t/0: the table holds offset 150 of leader epoch 4, the log is what it was up to offset 100 only; t/2: the table holds offset 9 of leader epoch 5, the log knows no epoch that is as old; an unclean leader election, or a broker that was restored from an older copy, cut the log");
        insta::assert_snapshot!(failure.hint.expect("commands"), @"nothing was skipped and nothing written. To read the records that are there now, run `aperio sync-points reset FILE --table d.t --partition 0 --to 100`; `aperio sync-points reset FILE --table d.t --partition 2 --to earliest`; the rows of those that are lost stay in the table, delete them first if you don't want them. `--to` the offset that the table holds skips the new records instead");
    }

    #[test]
    fn a_long_list_is_cut_and_counted() {
        let held: Vec<_> = (0..7).map(|partition| (partition, 1)).collect();
        let detail = topic_gone("t", &offsets(&held)).detail.expect("offsets");
        assert!(detail.ends_with("t/4: 1; and 2 more"), "{detail}");
    }
}
