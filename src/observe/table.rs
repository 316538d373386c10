//! What is known of one table while its pipeline runs: written by its conductor, read by whoever asks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat};
use serde::Serialize;

use super::metrics::{Metrics, Shown, TableMetrics};
use crate::config::Pipeline;
use crate::offsets::{Offset, Offsets, Partition};
use crate::table::ledger::Ledger;

/// How long a conductor may stay silent before a service isn't taken for alive: it stirs ten times a second.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What a pipeline's part of the process is at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// It looks at the topic and the table.
    Starting,
    /// The topic is empty, and nothing but its records would tell the table's columns.
    Waiting,
    /// It reads and commits.
    Running,
    /// It was told to stop.
    Stopping,
    /// It ended well.
    Done,
    /// It ended by this failure; others may go on.
    Failed(String),
}

/// What is known of one table.
#[derive(Debug)]
pub struct Table {
    /// `schema.name`, the label of its metrics.
    pub name: String,
    topic: String,
    group: String,
    max_lag: Option<u64>,
    /// Its metrics.
    pub metrics: TableMetrics,
    made: Instant,
    /// When the conductor last stirred, in milliseconds since `made`.
    stirred_ms: AtomicU64,
    // A mutex: one writes, and any request reads, at any time; held for an assignment or a copy.
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    phase: Phase,
    /// What keeps it from working, by what it is about: brokers, catalog, deadline.
    troubles: BTreeMap<Trouble, String>,
    /// The topic's ends, as last asked.
    ends: Offsets,
    partitions: BTreeMap<Partition, Shown>,
    held: Offsets,
    snapshot: Option<i64>,
}

/// What a reason not to be ready is about; one of each at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// The brokers, as somebody asks them from time to time.
    Brokers,
    /// The brokers, as the consumer finds them.
    Consumer,
    /// The catalog.
    Catalog,
    /// The schema registry.
    Registry,
    /// Something is past its deadline.
    Deadline,
}

/// What `/status` shows of a table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TableStatus {
    table: String,
    topic: String,
    group: String,
    phase: Phase,
    ready: bool,
    /// Why it isn't ready.
    reasons: Vec<String>,
    snapshot: Option<i64>,
    /// ISO 8601; `None` before the first one.
    last_commit: Option<String>,
    commits: u64,
    rejected: u64,
    /// Sum over the partitions that this instance reads, where it is known.
    lag: Option<u64>,
    /// Those that this instance reads.
    partitions: Vec<PartitionStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PartitionStatus {
    partition: i32,
    /// In the table: the offset to read next.
    table: Option<i64>,
    /// The topic's end.
    end: Option<i64>,
    lag: Option<u64>,
}

impl Table {
    /// Makes the table of a pipeline that is about to start.
    pub fn new(metrics: &Arc<Metrics>, pipeline: &Pipeline) -> Arc<Table> {
        let source = &pipeline.source;
        let (name, max_lag) = (pipeline.full_name(), pipeline.max_lag);
        Arc::new(Table::of(metrics, name, &source.topic, &source.group, max_lag))
    }

    fn of(metrics: &Arc<Metrics>, name: String, topic: &str, group: &str, max_lag: Option<u64>) -> Table {
        Table {
            metrics: metrics.table(&name),
            name,
            topic: topic.to_owned(),
            group: group.to_owned(),
            max_lag,
            made: Instant::now(),
            stirred_ms: AtomicU64::new(0),
            known: Mutex::new(Known {
                phase: Phase::Starting,
                troubles: BTreeMap::new(),
                ends: Offsets::default(),
                partitions: BTreeMap::new(),
                held: Offsets::default(),
                snapshot: None,
            }),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the conductor is alive; called with every one of its steps.
    pub fn stir(&self) {
        let elapsed = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.stirred_ms.store(elapsed, Ordering::Relaxed);
    }

    /// The conductor's last sign of life, as a mark that changes with each.
    pub fn stirred(&self) -> u64 {
        self.stirred_ms.load(Ordering::Relaxed)
    }

    /// Notes what the pipeline is at.
    pub fn enters(&self, phase: Phase) {
        self.stir();
        self.known().phase = phase;
    }

    /// Notes something that keeps the pipeline from working, or that it no longer does.
    pub fn troubled(&self, about: Trouble, reason: Option<String>) {
        let mut known = self.known();
        match reason {
            Some(reason) => drop(known.troubles.insert(about, reason)),
            None => drop(known.troubles.remove(&about)),
        }
    }

    /// Notes the topic's ends.
    pub fn ends_at(&self, ends: Offsets) {
        self.known().ends = ends;
    }

    /// The topic's ends, as last asked; empty before that.
    pub fn ends(&self) -> Offsets {
        self.known().ends.clone()
    }

    /// Notes what the table holds of the partitions that this instance reads, and shows how far they are behind.
    pub fn holds(&self, assigned: impl Iterator<Item = Partition>, ledger: Option<&Ledger>, snapshot: Option<i64>) {
        let mut known = self.known();
        let shown: BTreeMap<_, _> = assigned
            .map(|partition| {
                let held = ledger.and_then(|ledger| ledger.offsets.get(partition));
                let end = known.ends.get(partition);
                let shown = Shown {
                    lag: held.zip(end).map(|(held, end)| end.since(held)),
                    event_time_us: ledger.and_then(|ledger| ledger.event_times.get(&partition).copied()),
                };
                (partition, shown)
            })
            .collect();
        self.metrics.show(&known.partitions, &shown);
        known.partitions = shown;
        known.snapshot = snapshot;
        known.held = ledger.map(|ledger| ledger.offsets.clone()).unwrap_or_default();
    }

    /// Says whether the conductor stirred lately, or has ended; remotes are no matter.
    pub(super) fn alive(&self) -> bool {
        let (known, stirred) = (self.known(), Duration::from_millis(self.stirred()));
        // Starting and leaving wait for remotes, each for a time of its own.
        known.phase != Phase::Running || self.made.elapsed().saturating_sub(stirred) <= SILENCE_MAX
    }

    /// Tells why this table's pipeline isn't ready; nothing if it is.
    pub(super) fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.alive() {
            reasons.push(format!(
                "nothing has happened for more than {} s",
                SILENCE_MAX.as_secs()
            ));
        }
        let known = self.known();
        match &known.phase {
            Phase::Starting => reasons.push("it starts: the topic and the table are being looked at".to_owned()),
            Phase::Waiting | Phase::Running | Phase::Done => {}
            Phase::Stopping => reasons.push("it was told to stop".to_owned()),
            Phase::Failed(failure) => reasons.push(format!("it failed: {failure}")),
        }
        reasons.extend(known.troubles.values().cloned());
        if let (Some(lag), Some(most)) = (known.lag(), self.max_lag)
            && lag > most
        {
            reasons.push(format!("the lag is {lag}, `health.maxLag` is {most}"));
        }
        reasons
    }

    pub(super) fn status(&self) -> TableStatus {
        let reasons = self.reasons();
        let known = self.known();
        let last_commit = self.metrics.last_commit.get();
        let partitions = known.partitions.iter().map(|(partition, shown)| PartitionStatus {
            partition: partition.0,
            table: known.held.get(*partition).map(Offset::get),
            end: known.ends.get(*partition).map(Offset::get),
            lag: shown.lag,
        });
        TableStatus {
            table: self.name.clone(),
            topic: self.topic.clone(),
            group: self.group.clone(),
            phase: known.phase.clone(),
            ready: reasons.is_empty(),
            reasons,
            snapshot: known.snapshot,
            last_commit: iso(last_commit),
            commits: self.metrics.commits.get(),
            rejected: self.metrics.rejected.get(),
            lag: known.lag(),
            partitions: partitions.collect(),
        }
    }
}

/// A time in seconds since 1970 as ISO 8601; `None` for 0, which stands for never.
fn iso(seconds: f64) -> Option<String> {
    let time = DateTime::from_timestamp_millis((seconds * 1e3) as i64).filter(|_| seconds > 0.0)?;
    Some(time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

impl Known {
    fn lag(&self) -> Option<u64> {
        let lags: Vec<_> = self.partitions.values().filter_map(|shown| shown.lag).collect();
        (!lags.is_empty()).then(|| lags.iter().sum())
    }
}

impl Default for Table {
    /// A table that nobody looks at.
    fn default() -> Self {
        Table::of(&Metrics::new(), String::new(), "", "", None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(offset: i64) -> Ledger {
        Ledger {
            topic: "orders".into(),
            topic_id: None,
            cluster_id: None,
            offsets: [(Partition(0), Offset::new(offset)), (Partition(1), Offset::ZERO)]
                .into_iter()
                .collect(),
            windows: BTreeMap::new(),
            event_times: BTreeMap::new(),
            leader_epochs: BTreeMap::new(),
            stale_letters: Default::default(),
        }
    }

    fn table() -> Table {
        Table::of(
            &Metrics::new(),
            "sales.orders".into(),
            "orders",
            "aperio-orders",
            Some(10),
        )
    }

    #[test]
    fn it_is_ready_once_it_runs_and_nothing_is_in_its_way() {
        let table = table();
        assert_eq!(table.reasons().len(), 1, "it starts: {:?}", table.reasons());
        table.enters(Phase::Running);
        assert!(table.reasons().is_empty());
        table.troubled(Trouble::Catalog, Some("the catalog is away".into()));
        table.troubled(Trouble::Catalog, Some("the catalog is still away".into()));
        table.troubled(Trouble::Brokers, Some("the brokers are away".into()));
        assert_eq!(table.reasons(), ["the brokers are away", "the catalog is still away"]);
        assert!(table.alive(), "remotes are no matter");
        table.troubled(Trouble::Catalog, None);
        table.troubled(Trouble::Brokers, None);
        assert!(table.reasons().is_empty());
        table.enters(Phase::Failed("error: it broke".into()));
        assert_eq!(table.reasons(), ["it failed: error: it broke"]);
    }

    #[test]
    fn only_the_lag_of_own_partitions_counts_and_only_above_the_limit() {
        let table = table();
        table.enters(Phase::Running);
        let ends = [(Partition(0), Offset::new(100)), (Partition(1), Offset::new(500))];
        table.ends_at(ends.into_iter().collect());
        let check = |held: i64, expect: &[&str]| {
            table.holds([Partition(0)].into_iter(), Some(&ledger(held)), Some(7));
            assert_eq!(table.reasons(), expect);
        };
        check(90, &[]);
        check(89, &["the lag is 11, `health.maxLag` is 10"]);
        let status = serde_json::to_value(table.status()).expect("JSON");
        assert_eq!(status["lag"], 11);
        assert_eq!(
            status["partitions"],
            serde_json::json!([{"partition": 0, "table": 89, "end": 100, "lag": 11}])
        );
        table.holds(std::iter::empty(), Some(&ledger(0)), Some(7));
        assert!(table.reasons().is_empty(), "a member without partitions waits for some");
    }
}
