//! How a ledger is stored: the texts in summaries and in the table property, of this version and of those before.
//!
//! Every snapshot keeps its summary, and every commit writes all of them again, so a text must not grow with the topic as
//! readable offsets do: 16 to 53 bytes for each partition. It is the first of these that is no longer than 2 KiB and 4 bytes for
//! each partition:
//!
//! 1. *readable*, `{"version":2,"topic":"orders","offsets":{"0":8812},…}`: up to some 45 partitions;
//! 2. *whole*, `{"version":2,"topic":"orders","partitions":120,"packed":"…"}`: see `packed.rs`, in base 64; up to
//!    some 200;
//! 3. *differences*, `{…,"base":77,"steps":3,"sum":"…","packed":"…"}`: what the commit moved, told from the ledger of snapshot 77,
//!    the commit of ours before it. 3 to 5 KB where all of 1,000 partitions moved.
//!
//! The table property isn't kept by snapshots: it is whole, always. So while the newest commit of ours in the history is the one
//! that the property names, nothing else is needed, whatever has expired. Otherwise the table was rolled back: the differences
//! are followed, base after base, to a ledger that is whole. There is one at the latest every [`Form::steps_max`] commits, and
//! at commits that add no rows: the first, a reset, the one of a quiet day. Where one of them has expired, older metadata files may
//! tell it ([`History`](super::History)). Each step is compared with the `sum` that was taken of the ledger it should come to.
//!
//! Version 1 was readable only, without leader epochs, of any length.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use iceberg::spec::TableMetadata;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::packed::{pack, sum, unpack};
use super::{LEDGER_KEY, LEDGER_VERSION, Ledger, LedgerProblem, by_runs, newest_in_history, property};
use crate::offsets::RecordAt;

/// When a text is too long to be written as it is.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// How many bytes a text may have, whatever the topic; 4 come on top for each partition.
    pub spare_bytes: usize,
    /// How many commits in a row may be told as differences: so many snapshots are needed to read one after a rollback.
    pub steps_max: u32,
}

impl Default for Form {
    fn default() -> Self {
        // A whole one of 1,000 partitions has 10 to 16 KB: a thirty-second of it each time is 500 bytes.
        Form {
            spare_bytes: 2048,
            steps_max: 32,
        }
    }
}

impl Form {
    fn fits(self, text: &str, ledger: &Ledger) -> bool {
        text.len() <= self.spare_bytes + 4 * ledger.offsets.len()
    }
}

/// What a commit writes of its ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    /// The entry in the snapshot's summary.
    pub summary: String,
    /// The table property.
    pub property: String,
}

/// A ledger as a summary tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stored {
    Whole(Ledger),
    Differences(Differences),
}

/// What of a ledger differs from that of another snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Differences {
    /// The snapshot.
    pub(super) base: i64,
    /// How many steps it is to a whole one, this one included.
    steps: u32,
    sum: u64,
    packed: Vec<u8>,
    /// Those of this snapshot, whatever the base says.
    stale_letters: BTreeSet<RecordAt>,
}

/// The ledger as the table property stores it: bound to a snapshot and a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerProperty {
    /// The snapshot whose summary tells the same ledger.
    pub snapshot_id: i64,
    /// The table that the property was written for.
    pub table_uuid: Uuid,
    /// The ledger.
    pub ledger: Ledger,
}

#[derive(Serialize)]
struct Readable<'a> {
    version: u32,
    #[serde(flatten)]
    ledger: &'a Ledger,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Packed {
    version: u32,
    topic: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster_id: Option<String>,
    /// How many there are, for a person.
    partitions: usize,
    #[serde(flatten)]
    from: Option<Origin>,
    packed: String,
    #[serde(default, with = "by_runs", skip_serializing_if = "BTreeSet::is_empty")]
    stale_letters: BTreeSet<RecordAt>,
}

#[derive(Serialize, Deserialize)]
struct Origin {
    base: i64,
    steps: u32,
    sum: String,
}

/// Tells a ledger for a commit that makes the snapshot `snapshot_id` on `base`.
///
/// - `adds_rows`: else it is told as a whole.
pub fn texts(ledger: &Ledger, base: &TableMetadata, adds_rows: bool, snapshot_id: i64, form: Form) -> Texts {
    let property = property_text(ledger, base.uuid(), snapshot_id, form);
    let readable = readable_text(ledger);
    if form.fits(&readable, ledger) {
        return Texts {
            summary: readable,
            property,
        };
    }
    let whole = packed_text(ledger, None);
    let summary = match form.fits(&whole, ledger) || !adds_rows {
        true => whole,
        false => differences(ledger, base, form)
            .filter(|text| text.len() < whole.len())
            .unwrap_or(whole),
    };
    Texts { summary, property }
}

/// Tells a ledger as what differs from the one before; `None` where there is none, or a whole one is due.
fn differences(ledger: &Ledger, metadata: &TableMetadata, form: Form) -> Option<String> {
    let (id, text) = newest_in_history(metadata)?;
    // Only this one is known for certain, and is at hand.
    let before = property(metadata)
        .ok()
        .flatten()
        .filter(|found| found.snapshot_id == id && found.table_uuid == metadata.uuid())?;
    let steps = match read(text, || LEDGER_KEY.to_owned()).ok()? {
        Stored::Whole(_) => 1,
        Stored::Differences(found) => found.steps + 1,
    };
    let packed = pack(ledger, Some(&before.ledger)).filter(|_| steps <= form.steps_max)?;
    let from = Origin {
        base: id,
        steps,
        sum: format!("{:016x}", sum(ledger)),
    };
    Some(packed_text(ledger, Some((from, packed))))
}

fn readable_text(ledger: &Ledger) -> String {
    json(&Readable {
        version: LEDGER_VERSION,
        ledger,
    })
}

fn packed_text(ledger: &Ledger, differences: Option<(Origin, Vec<u8>)>) -> String {
    let (from, bytes) = differences.map(|(from, bytes)| (Some(from), bytes)).unwrap_or_else(|| {
        let whole = pack(ledger, None).expect("a whole ledger can always be told");
        (None, whole)
    });
    json(&Packed {
        version: LEDGER_VERSION,
        topic: ledger.topic.clone(),
        topic_id: ledger.topic_id.clone(),
        cluster_id: ledger.cluster_id.clone(),
        partitions: ledger.offsets.len(),
        from,
        packed: STANDARD_NO_PAD.encode(bytes),
        stale_letters: ledger.stale_letters.clone(),
    })
}

fn property_text(ledger: &Ledger, table_uuid: Uuid, snapshot_id: i64, form: Form) -> String {
    let readable = readable_text(ledger);
    let whole = match form.fits(&readable, ledger) {
        true => readable,
        false => packed_text(ledger, None),
    };
    // The ledger is JSON already.
    format!(r#"{{"snapshotId":{snapshot_id},"tableUuid":"{table_uuid}","ledger":{whole}}}"#)
}

fn json(of: &impl Serialize) -> String {
    serde_json::to_string(of).expect("maps of numbers and strings always serialise")
}

/// Reads an entry of a summary.
///
/// # Errors
/// [`LedgerProblem::Unreadable`].
pub(super) fn read(text: &str, place: impl Fn() -> String) -> Result<Stored, LedgerProblem> {
    let unreadable = |reason: String| LedgerProblem::Unreadable { place: place(), reason };
    let value = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
    of_value(value).map_err(unreadable)
}

/// Reads the table property.
///
/// # Errors
/// [`LedgerProblem::Unreadable`].
pub(super) fn read_property(text: &str) -> Result<LedgerProperty, LedgerProblem> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Property {
        snapshot_id: i64,
        table_uuid: Uuid,
        ledger: serde_json::Value,
    }
    let unreadable = |reason: String| LedgerProblem::Unreadable {
        place: format!("the table property `{LEDGER_KEY}`"),
        reason,
    };
    let found: Property = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
    match of_value(found.ledger).map_err(unreadable)? {
        Stored::Whole(ledger) => Ok(LedgerProperty {
            snapshot_id: found.snapshot_id,
            table_uuid: found.table_uuid,
            ledger,
        }),
        Stored::Differences(_) => Err(unreadable("it isn't whole".to_owned())),
    }
}

fn of_value(value: serde_json::Value) -> Result<Stored, String> {
    let words = |error: serde_json::Error| error.to_string();
    super::readable(value.get("version").and_then(|version| version.as_u64()))?;
    if value.get("packed").is_none() {
        return serde_json::from_value(value).map(Stored::Whole).map_err(words);
    }
    let told_from_another = value.get("base").is_some();
    let found: Packed = serde_json::from_value(value).map_err(words)?;
    if told_from_another && found.from.is_none() {
        return Err("`base`, `steps` and `sum` don't go together".to_owned());
    }
    let packed = STANDARD_NO_PAD
        .decode(&found.packed)
        .map_err(|error| format!("`packed` is no base 64: {error}"))?;
    match found.from {
        Some(from) => Ok(Stored::Differences(Differences {
            base: from.base,
            steps: from.steps,
            sum: u64::from_str_radix(&from.sum, 16).map_err(|error| format!("`sum` is no number: {error}"))?,
            packed,
            stale_letters: found.stale_letters,
        })),
        None => {
            let empty = Ledger::new(found.topic, found.topic_id, found.cluster_id);
            let mut ledger = unpack(&packed, &empty, true)?;
            ledger.stale_letters = found.stale_letters;
            Ok(Stored::Whole(ledger))
        }
    }
}

impl Differences {
    /// Returns the ledger that these come to.
    ///
    /// # Errors
    /// What is wrong: `base` isn't the ledger that they were told from.
    pub(super) fn onto(&self, base: &Ledger) -> Result<Ledger, String> {
        let mut ledger = unpack(&self.packed, base, false)?;
        ledger.stale_letters.clone_from(&self.stale_letters);
        self.agrees(&ledger).map(|()| ledger)
    }

    /// Says whether `ledger` is what these come to.
    ///
    /// # Errors
    /// Both sums.
    pub(super) fn agrees(&self, ledger: &Ledger) -> Result<(), String> {
        match sum(ledger) {
            found if found == self.sum => Ok(()),
            found => Err(format!(
                "it comes to a ledger of sum {found:016x}, and should to one of {:016x}",
                self.sum
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use iceberg::TableCreation;
    use iceberg::spec::{
        FormatVersion, MAIN_BRANCH, NestedField, Operation, PrimitiveType, Schema, Snapshot, SnapshotReference,
        SnapshotRetention, Summary, TableMetadataBuilder, Type,
    };

    use super::*;
    use crate::offsets::{LeaderEpoch, Offset, Partition};
    use crate::table::WindowId;
    use crate::table::ledger::{self, History};

    fn read_text(text: &str) -> Result<Stored, LedgerProblem> {
        read(text, || "x".into())
    }

    #[test]
    fn the_stored_text_is_what_the_contract_names() {
        let run = Uuid::from_u128(7);
        let ledger = Ledger {
            topic: "user-events".into(),
            topic_id: Some("abc".into()),
            cluster_id: Some("c1".into()),
            offsets: [(Partition(0), Offset::new(8812)), (Partition(1), Offset::ZERO)]
                .into_iter()
                .collect(),
            windows: [(0, 3), (1, 4), (2, 3)]
                .map(|(partition, sequence)| (Partition(partition), WindowId { run, sequence }))
                .into(),
            event_times: BTreeMap::new(),
            leader_epochs: [(Partition(0), LeaderEpoch(5)), (Partition(1), LeaderEpoch(1))].into(),
            stale_letters: BTreeSet::new(),
        };
        let text = readable_text(&ledger);
        insta::assert_snapshot!(text, @r#"{"version":2,"topic":"user-events","topicId":"abc","clusterId":"c1","offsets":{"0":8812,"1":0},"windows":{"00000000000000000000000000000007/3":[0,2],"00000000000000000000000000000007/4":[1]},"eventTimes":{},"leaderEpochs":{"1":[1],"5":[0]}}"#);
        assert_eq!(read_text(&text), Ok(Stored::Whole(ledger)));
    }

    #[test]
    fn a_ledger_of_the_first_version_is_read_and_written_anew() {
        let stored = r#"{"version":1,"topic":"t","offsets":{"0":8812},"windows":{"00000000000000000000000000000007/3":[0]},"eventTimes":{"0":5}}"#;
        let Ok(Stored::Whole(ledger)) = read_text(stored) else {
            panic!("version 1 is read")
        };
        assert_eq!(ledger.position(Partition(0)), Some(Offset::new(8812).into()));
        let anew = r#"{"version":2,"topic":"t","offsets":{"0":8812},"windows":{"00000000000000000000000000000007/3":[0]},"eventTimes":{"0":5}}"#;
        assert_eq!(readable_text(&ledger), anew);
    }

    #[test]
    fn a_ledger_of_a_later_version_is_refused_by_its_number() {
        let problem = read_text(r#"{"version":3}"#).expect_err("version 3 is unknown");
        assert!(problem.to_string().contains("version is 3"), "{problem}");
    }

    #[test]
    fn what_is_packed_shows_its_version_where_earlier_programs_look_for_it() {
        // Version 1 read `version` of a summary, and `ledger.version` of the property, before anything else.
        let base = commit(&table(), &topic(20, 0), 1, PACKED);
        let now = commit(&base, &topic(20, 1), 2, PACKED);
        let summary = summary(&now, 2);
        insta::assert_snapshot!(summary, @r#"{"version":2,"topic":"user-events","topicId":"q1Sh-9_ISgCP61Jq9QwUZA","clusterId":"4L6g3nShT-eMCtK--X86sw","partitions":20,"base":1,"steps":1,"sum":"0c945b25c556765e","packed":"AQAU6AfXRa4OnUz0FONSuhupWYAi71/GKLVmjC/7bNI1wXOYPId63kK1CwEAAAAAAAAAAAAAAAAAAAAHAQDpBwEUABQ"}"#);
        let property = &now.properties()[LEDGER_KEY];
        insta::assert_snapshot!(property, @r#"{"snapshotId":2,"tableUuid":"00000000-0000-0000-0000-000000000005","ledger":{"version":2,"topic":"user-events","topicId":"q1Sh-9_ISgCP61Jq9QwUZA","clusterId":"4L6g3nShT-eMCtK--X86sw","partitions":20,"packed":"AQAU6IeAgIAgisWAgIAglI2AgIAgtsqAgIAgwJKAgIAg4s+AgIAg7JeAgIAgjtWAgIAgmJ2AgIAgutqAgIAgxKKAgIAg5t+AgIAg8KeAgIAgkuWAgIAgnK2AgIAgvuqAgIAgyLKAgIAg6u+AgIAg9LeAgIAg/v////8fAQAAAAAAAAAAAAAAAAAAAAcBAOkHARQCAQMBBAEFAQYBAgEDAQQBBQEGAQIBAwEEAQUBBgECAQMBBAEFAQYBAf6R9PKDiYUGgPvyG7GQ5Qz6qKYaq76YC/TW2Ril7MsJ7oSNF5+a/wfossAVmciyBuLg8xOT9uUE3I6nEo2kmQPWvNoQh9LMAdDqjQ8BypjBDZOxghs"}}"#);
        let of = |text: &str, pointer: &str| {
            let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
            value.pointer(pointer).cloned()
        };
        assert_eq!(of(&summary, "/version"), Some(2.into()));
        assert_eq!(of(property, "/ledger/version"), Some(2.into()));
    }

    /// Whatever the topic, as one of a thousand partitions.
    const PACKED: Form = Form {
        spare_bytes: 0,
        steps_max: 3,
    };

    fn table() -> TableMetadata {
        let field = NestedField::required(1, "a", Type::Primitive(PrimitiveType::Long));
        let schema = Schema::builder().with_fields([field.into()]).build().expect("a schema");
        let creation = TableCreation::builder()
            .name("t".into())
            .location("/t".into())
            .schema(schema)
            .format_version(FormatVersion::V2)
            .build();
        let builder = TableMetadataBuilder::from_table_creation(creation).expect("a table");
        let builder = builder.assign_uuid(Uuid::from_u128(5));
        builder.build().expect("a table").metadata
    }

    /// A busy topic after so many commits of 1,000 to 16,000 records of each partition, event times in microseconds.
    fn topic(partitions: i32, commits: i64) -> Ledger {
        let mut ledger = Ledger::new(
            "user-events".into(),
            Some("q1Sh-9_ISgCP61Jq9QwUZA".into()),
            Some("4L6g3nShT-eMCtK--X86sw".into()),
        );
        for number in 0..partitions {
            let (partition, some) = (Partition(number), i64::from(number) * 7_919 % 15_000);
            let offset = (1 << 40) - 77 * i64::from(number) + commits * (1_000 + some);
            ledger.offsets.set(partition, Offset::new(offset));
            let window = WindowId {
                run: Uuid::from_u128(7),
                sequence: 1_000 + commits.unsigned_abs(),
            };
            ledger.windows.insert(partition, window);
            ledger.leader_epochs.insert(partition, LeaderEpoch(number % 5));
            let time = 1_700_000_000_000_000 + commits * 60_000_000 + some * 4_001;
            ledger.event_times.insert(partition, time);
        }
        ledger
    }

    /// Adds a snapshot with what is told of `ledger`.
    fn commit(base: &TableMetadata, ledger: &Ledger, id: i64, form: Form) -> TableMetadata {
        let texts = texts(ledger, base, true, id, form);
        add(base, id, Some(texts))
    }

    fn add(base: &TableMetadata, id: i64, texts: Option<Texts>) -> TableMetadata {
        let told = texts
            .as_ref()
            .map(|texts| (LEDGER_KEY.to_owned(), texts.summary.clone()));
        let snapshot = Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(base.current_snapshot_id())
            .with_sequence_number(base.next_sequence_number())
            .with_timestamp_ms(base.last_updated_ms() + 1)
            .with_manifest_list(String::new())
            .with_summary(Summary {
                operation: Operation::Append,
                additional_properties: told.into_iter().collect(),
            })
            .with_schema_id(0)
            .build();
        let mut builder = base.clone().into_builder(None);
        builder = builder.set_branch_snapshot(snapshot, MAIN_BRANCH).expect("it fits");
        if let Some(texts) = texts {
            let properties = [(LEDGER_KEY.to_owned(), texts.property)].into();
            builder = builder.set_properties(properties).expect("it fits");
        }
        builder.build().expect("a table").metadata
    }

    fn roll_back(base: &TableMetadata, id: i64) -> TableMetadata {
        let retention = SnapshotRetention::Branch {
            min_snapshots_to_keep: None,
            max_snapshot_age_ms: None,
            max_ref_age_ms: None,
        };
        let builder = base.clone().into_builder(None);
        let builder = builder.set_ref(MAIN_BRANCH, SnapshotReference::new(id, retention));
        builder
            .expect("a snapshot of the table")
            .build()
            .expect("a table")
            .metadata
    }

    fn expire(base: &TableMetadata, ids: &[i64]) -> TableMetadata {
        let builder = base.clone().into_builder(None).remove_snapshots(ids);
        builder.build().expect("a table").metadata
    }

    fn summary(of: &TableMetadata, id: i64) -> String {
        let snapshot = of.snapshot_by_id(id).expect("a snapshot");
        snapshot.summary().additional_properties[LEDGER_KEY].clone()
    }

    /// What is read of the table; the event times aside, which differences don't tell.
    fn known(of: &TableMetadata, older: &[&TableMetadata]) -> Result<Ledger, LedgerProblem> {
        let mut history = History::default();
        older.iter().for_each(|older| history.add(older));
        history.complete();
        let (ledger, _) = ledger::read(of, &history)?.expect("a commit of ours is in it");
        Ok(timeless(&ledger))
    }

    fn timeless(ledger: &Ledger) -> Ledger {
        Ledger {
            event_times: BTreeMap::new(),
            ..ledger.clone()
        }
    }

    /// A table after five commits; the third and the last are told as differences of two, and of one step.
    fn five() -> TableMetadata {
        (1..=5).fold(table(), |base, id| commit(&base, &topic(20, id), id, PACKED))
    }

    fn steps(of: &TableMetadata, id: i64) -> u32 {
        match read_text(&summary(of, id)).expect("readable") {
            Stored::Whole(_) => 0,
            Stored::Differences(found) => found.steps,
        }
    }

    #[test]
    fn stale_letters_are_those_of_the_snapshot_itself_in_every_form() {
        let stale = |offsets: &[i64]| -> BTreeSet<RecordAt> {
            offsets
                .iter()
                .map(|at| (Partition((at % 2) as i32), Offset::new(*at)))
                .collect()
        };
        let told = |id: i64, letters: &[i64]| Ledger {
            stale_letters: stale(letters),
            ..topic(20, id)
        };
        let readable = readable_text(&told(1, &[4, 6, 7, 9, 11]));
        assert!(
            readable.ends_with(r#""staleLetters":{"0":[[4,1],[6,1]],"1":[[7,1],[9,1],[11,1]]}}"#),
            "{readable}"
        );
        let run = Ledger {
            stale_letters: (5..900).map(|at| (Partition(3), Offset::new(at))).collect(),
            ..topic(1, 1)
        };
        let text = readable_text(&run);
        assert!(text.ends_with(r#""staleLetters":{"3":[[5,895]]}}"#), "{text}");
        assert_eq!(read_text(&text), Ok(Stored::Whole(run)));
        let now = [(1, &[][..]), (2, &[4, 7]), (3, &[9]), (4, &[])]
            .iter()
            .fold(table(), |base, (id, letters)| {
                commit(&base, &told(*id, letters), *id, PACKED)
            });
        assert_eq!([1, 2, 3, 4].map(|id| steps(&now, id)), [0, 1, 2, 3]);
        assert_eq!(known(&now, &[]), Ok(timeless(&told(4, &[]))));
        assert_eq!(known(&roll_back(&now, 3), &[]), Ok(timeless(&told(3, &[9]))));
        assert_eq!(known(&roll_back(&now, 2), &[]), Ok(timeless(&told(2, &[4, 7]))));
        for hostile in [
            r#"{"0":[[-1,1]]}"#,
            r#"{"0":[[9223372036854775807,1]]}"#,
            r#"{"0":[[0,2000000]]}"#,
        ] {
            let text = text.replace(r#"{"3":[[5,895]]}"#, hostile);
            assert!(read_text(&text).is_err(), "{text}");
        }
        let scattered = Ledger {
            stale_letters: (0..5_000).map(|at| (Partition(0), Offset::new(at * 2))).collect(),
            ..topic(1, 1)
        };
        let Ok(Stored::Whole(found)) = read_text(&readable_text(&scattered)) else {
            panic!("it is whole")
        };
        assert_eq!(found.stale_letters.len(), super::super::STALE_RUNS_MAX);
    }

    #[test]
    fn a_whole_ledger_comes_after_so_many_differences_and_with_every_commit_without_rows() {
        let now = five();
        assert_eq!([1, 2, 3, 4, 5].map(|id| steps(&now, id)), [0, 1, 2, 3, 0]);
        let quiet = add(&now, 6, Some(texts(&topic(20, 5), &now, false, 6, PACKED)));
        assert_eq!(steps(&quiet, 6), 0);
        // What a person did in between is no base to tell differences from.
        let back = roll_back(&now, 3);
        let after = commit(&back, &topic(20, 4), 7, PACKED);
        assert_eq!(steps(&after, 7), 0);
    }

    #[test]
    fn differences_are_read_by_the_property_and_after_a_rollback_step_by_step() {
        let now = expire(&roll_back(&five(), 4), &[5]);
        for (id, gone) in [(4, vec![]), (3, vec![]), (2, vec![4]), (1, vec![])] {
            let back = expire(&roll_back(&now, id), &gone);
            assert_eq!(known(&back, &[]), Ok(timeless(&topic(20, id))), "at {id}");
        }
    }

    #[test]
    fn the_newest_ledger_is_known_whatever_has_expired() {
        let four = expire(&roll_back(&five(), 4), &[5]);
        // Its property is of the fifth, which was rolled back: only the steps tell.
        assert_eq!(known(&four, &[]), Ok(timeless(&topic(20, 4))));
        let newest = (1..=4).fold(table(), |base, id| commit(&base, &topic(20, id), id, PACKED));
        assert_eq!(steps(&newest, 4), 3);
        let alone = expire(&newest, &[1, 2, 3]);
        assert_eq!(known(&alone, &[]), Ok(timeless(&topic(20, 4))));
        // And below another engine's.
        let below = expire(&add(&newest, 9, None), &[1, 2, 3, 4]);
        assert_eq!(known(&below, &[]), Ok(timeless(&topic(20, 4))));
    }

    #[test]
    fn a_ledger_whose_base_has_expired_is_told_by_older_files_or_not_at_all() {
        let now = (1..=4).fold(table(), |base, id| commit(&base, &topic(20, id), id, PACKED));
        let back = expire(&roll_back(&now, 3), &[1, 4]);
        assert_eq!(known(&back, &[&now]), Ok(timeless(&topic(20, 3))));
        let problem = known(&back, &[]).expect_err("its base is gone");
        assert!(problem.open_to_history());
        let expect = LedgerProblem::Cut {
            missing: 1,
            property: Some(4),
            aside: None,
        };
        assert_eq!(problem, expect);
    }

    #[test]
    fn a_step_that_comes_to_something_else_is_refused() {
        let now = (1..=3).fold(table(), |base, id| commit(&base, &topic(20, id), id, PACKED));
        let forged = texts(&topic(20, 9), &table(), true, 3, PACKED);
        let properties = [(LEDGER_KEY.to_owned(), forged.property)].into();
        let builder = now.clone().into_builder(None).set_properties(properties);
        let forged = builder.expect("it fits").build().expect("a table").metadata;
        let problem = known(&forged, &[])
            .expect_err("the property is of another ledger")
            .to_string();
        assert!(problem.contains("the table property `aperio.ledger`"), "{problem}");
        assert!(problem.contains("it comes to a ledger of sum"), "{problem}");
    }

    #[test]
    fn a_text_does_not_grow_with_the_topic_as_readable_offsets_do() {
        let bytes = |partitions: i32| {
            let form = Form::default();
            let base = commit(&table(), &topic(partitions, 0), 1, form);
            let now = commit(&base, &topic(partitions, 1), 2, form);
            let bound = form.spare_bytes + 4 * partitions as usize;
            let text = summary(&now, 2);
            assert!(
                text.len() <= bound,
                "{partitions} partitions: {} of {bound} bytes",
                text.len()
            );
            (text.len(), now.properties()[LEDGER_KEY].len(), text.contains("offsets"))
        };
        let found = [1, 16, 45, 200, 1_000].map(bytes);
        insta::assert_snapshot!(format!("{found:?}"), @"[(254, 331, true), (947, 1024, true), (897, 974, false), (755, 3451, false), (2889, 16212, false)]");
    }
}
