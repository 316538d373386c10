//! The metrics of a process, in Prometheus' words. Names and labels are a contract with users' dashboards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::kafka::meter::Meter;
use crate::memory::Memory;
use crate::offsets::Partition;
use crate::resident::resident;

/// The content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Upper bounds of commit latencies, in seconds: from a local SQLite file to the default `--retry-for`.
const LATENCIES_S: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// All metrics of a process; tables are told apart by their label.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    records_consumed: IntCounterVec,
    bytes_consumed: IntCounterVec,
    lag: IntGaugeVec,
    batch_size: IntGaugeVec,
    polls: IntCounterVec,
    empty_polls: IntCounterVec,
    rebalances: IntCounterVec,
    errors: IntCounterVec,
    rejected: IntCounterVec,
    resent: IntCounterVec,
    late: IntCounterVec,
    watermark: GaugeVec,
    commits: IntCounterVec,
    commit_failures: IntCounterVec,
    commit_conflicts: IntCounterVec,
    commit_latency: HistogramVec,
    last_commit: GaugeVec,
    files: IntCounterVec,
    bytes: IntCounterVec,
    memory: [IntGauge; 4],
}

/// The metrics of one table. What needs a partition is asked for by it; the others are at hand.
#[derive(Debug)]
pub struct TableMetrics {
    all: Arc<Metrics>,
    table: String,
    /// What the table's consumer counts; read at every look.
    pub consumer: Arc<Meter>,
    /// Records of committed windows that couldn't become rows.
    pub rejected: IntCounter,
    /// Events of committed windows that were sent again, and make no second row.
    pub resent: IntCounter,
    /// Commits of windows and starts that are in the table.
    pub commits: IntCounter,
    /// Attempts whose answer was an error, or none.
    pub commit_failures: IntCounter,
    /// Attempts that met a table that had moved.
    pub commit_conflicts: IntCounter,
    /// Seconds from a commit's first attempt until the table holds it.
    pub commit_latency: Histogram,
    /// Seconds since 1970 of the last commit, also one of an earlier process.
    pub last_commit: Gauge,
    /// Data files of committed windows.
    pub files: IntCounter,
    /// Their bytes.
    pub bytes: IntCounter,
}

impl Metrics {
    /// Makes the families, without any table yet.
    pub fn new() -> Arc<Metrics> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let made = IntCounterVec::new(Opts::new(format!("aperio_{name}_total"), help), labels);
            registered(&registry, made)
        };
        let whole = |name: &str, help: &str, labels: &[&str]| {
            let made = IntGaugeVec::new(Opts::new(format!("aperio_{name}"), help), labels);
            registered(&registry, made)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let made = GaugeVec::new(Opts::new(format!("aperio_{name}"), help), labels);
            registered(&registry, made)
        };
        let single = |name: &str, help: &str| registered(&registry, IntGauge::new(format!("aperio_{name}"), help));
        let (table, partition) = (&["table"], &["table", "partition"]);
        let latency = HistogramOpts::new(
            "aperio_iceberg_commit_latency_seconds",
            "From a commit's first attempt until the table holds it",
        );
        Arc::new(Metrics {
            records_consumed: counter(
                "kafka_records_consumed",
                "Records taken from Kafka, those that are read again among them",
                partition,
            ),
            bytes_consumed: counter("kafka_bytes_consumed", "Bytes of their keys and values", partition),
            lag: whole(
                "kafka_lag",
                "Offsets between the table and the end of a partition that this instance reads",
                partition,
            ),
            batch_size: whole("kafka_batch_size", "Records of the last poll that brought any", table),
            polls: counter("kafka_polls", "Polls for records", table),
            empty_polls: counter("kafka_empty_polls", "Polls that brought none", table),
            rebalances: counter("kafka_rebalances", "Assignments and revokes", table),
            errors: counter("kafka_errors", "Errors that the Kafka client told of", table),
            rejected: counter(
                "records_rejected",
                "Records of committed windows that couldn't become rows",
                table,
            ),
            resent: counter(
                "records_resent",
                "Events of committed windows that were sent again, and make no second row",
                table,
            ),
            late: counter("records_late", "Rows that came too late", table),
            watermark: gauge(
                "event_time_watermark_seconds",
                "Greatest event time in the table, by partition that this instance reads, since 1970",
                partition,
            ),
            commits: counter("iceberg_commits", "Commits that are in the table", table),
            commit_failures: counter(
                "iceberg_commit_failures",
                "Attempts to commit whose answer was an error or none",
                table,
            ),
            commit_conflicts: counter(
                "iceberg_commit_conflicts",
                "Attempts to commit that met a table that had moved",
                table,
            ),
            commit_latency: registered(
                &registry,
                HistogramVec::new(latency.buckets(LATENCIES_S.to_vec()), table),
            ),
            last_commit: gauge(
                "iceberg_last_commit_timestamp_seconds",
                "When the offsets were last committed, since 1970",
                table,
            ),
            files: counter("iceberg_files_written", "Data files of commits", table),
            bytes: counter("iceberg_bytes_written", "Bytes of data files of commits", table),
            memory: [
                single("memory_limit_bytes", "What the process may use: --memory"),
                single("memory_resident_bytes", "What the operating system counts"),
                single("memory_headroom_bytes", "What of the limit isn't resident"),
                single(
                    "memory_in_use_bytes",
                    "What is counted of queues, chunks, files and dead letters",
                ),
            ],
            registry,
        })
    }

    /// Makes the metrics of a table, all at zero.
    pub fn table(self: &Arc<Self>, table: &str) -> TableMetrics {
        let label = &[table];
        // A counter that never moves is there all the same, so that its absence is no riddle.
        self.late.with_label_values(label);
        TableMetrics {
            all: Arc::clone(self),
            table: table.to_owned(),
            consumer: Arc::default(),
            rejected: self.rejected.with_label_values(label),
            resent: self.resent.with_label_values(label),
            commits: self.commits.with_label_values(label),
            commit_failures: self.commit_failures.with_label_values(label),
            commit_conflicts: self.commit_conflicts.with_label_values(label),
            commit_latency: self.commit_latency.with_label_values(label),
            last_commit: self.last_commit.with_label_values(label),
            files: self.files.with_label_values(label),
            bytes: self.bytes.with_label_values(label),
        }
    }

    /// Writes everything in Prometheus' text format, the memory as it is now.
    pub fn text(&self, memory: &Memory) -> String {
        let bytes = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let (limit, resident) = (
            bytes(memory.limit()),
            resident().map_or(0, |resident| bytes(resident.now)),
        );
        let values = [limit, resident, limit - resident, bytes(memory.held())];
        for (gauge, value) in self.memory.iter().zip(values) {
            gauge.set(value);
        }
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("the families have names and values, which a string takes")
    }
}

impl TableMetrics {
    /// Counts records that came out of Kafka.
    pub fn consumed(&self, partition: Partition, records: u64, bytes: u64) {
        let labels = [self.table.as_str(), &partition.to_string()];
        self.all.records_consumed.with_label_values(&labels).inc_by(records);
        self.all.bytes_consumed.with_label_values(&labels).inc_by(bytes);
    }

    /// Shows what is known of the partitions that this instance reads; a partition that left is shown no more.
    ///
    /// - `before`, `now`: by partition the lag in offsets and the greatest event time in microseconds since 1970.
    pub(super) fn show(&self, before: &BTreeMap<Partition, Shown>, now: &BTreeMap<Partition, Shown>) {
        for (partition, shown) in now {
            let labels = [self.table.as_str(), &partition.to_string()];
            if let Some(lag) = shown.lag {
                let lag = i64::try_from(lag).unwrap_or(i64::MAX);
                self.all.lag.with_label_values(&labels).set(lag);
            }
            if let Some(time) = shown.event_time_us {
                self.all.watermark.with_label_values(&labels).set(time as f64 / 1e6);
            }
        }
        for partition in before.keys().filter(|partition| !now.contains_key(*partition)) {
            let labels = [self.table.as_str(), &partition.to_string()];
            // What was never shown can't be removed, and needn't.
            let _ = self.all.lag.remove_label_values(&labels);
            let _ = self.all.watermark.remove_label_values(&labels);
        }
    }

    /// Brings the counters to what the consumer counted meanwhile.
    pub(super) fn refresh(&self) {
        let label = &[self.table.as_str()];
        for (counter, count) in [
            (&self.all.polls, &self.consumer.polls),
            (&self.all.empty_polls, &self.consumer.empty_polls),
            (&self.all.rebalances, &self.consumer.rebalances),
            (&self.all.errors, &self.consumer.errors),
        ] {
            let counter = counter.with_label_values(label);
            counter.inc_by(count.load(Ordering::Relaxed).saturating_sub(counter.get()));
        }
        let last = self.consumer.batch_size.load(Ordering::Relaxed);
        let gauge = self.all.batch_size.with_label_values(label);
        gauge.set(i64::try_from(last).unwrap_or(i64::MAX));
    }
}

/// What the metrics show of one partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub lag: Option<u64>,
    pub event_time_us: Option<i64>,
}

fn registered<C>(registry: &Registry, made: prometheus::Result<C>) -> C
where
    C: prometheus::core::Collector + Clone + 'static,
{
    let family = made.expect("names and labels are constants, and right");
    registry
        .register(Box::new(family.clone()))
        .expect("each name is registered once");
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_contract_is_there_for_a_table() {
        let metrics = Metrics::new();
        let table = metrics.table("sales.orders");
        table.consumed(Partition(3), 7, 70);
        let of = |lag, time| {
            BTreeMap::from([(
                Partition(3),
                Shown {
                    lag: Some(lag),
                    event_time_us: Some(time),
                },
            )])
        };
        table.show(&BTreeMap::new(), &of(12, 1_500_000));
        table.consumer.polled(7);
        table.consumer.polled(0);
        table.commit_latency.observe(0.2);
        table.refresh();
        table.refresh();
        let text = metrics.text(&Memory::new(1 << 20));
        for line in [
            "aperio_kafka_records_consumed_total{partition=\"3\",table=\"sales.orders\"} 7",
            "aperio_kafka_bytes_consumed_total{partition=\"3\",table=\"sales.orders\"} 70",
            "aperio_kafka_lag{partition=\"3\",table=\"sales.orders\"} 12",
            "aperio_kafka_batch_size{table=\"sales.orders\"} 7",
            "aperio_kafka_polls_total{table=\"sales.orders\"} 2",
            "aperio_kafka_empty_polls_total{table=\"sales.orders\"} 1",
            "aperio_kafka_rebalances_total{table=\"sales.orders\"} 0",
            "aperio_kafka_errors_total{table=\"sales.orders\"} 0",
            "aperio_records_rejected_total{table=\"sales.orders\"} 0",
            "aperio_records_resent_total{table=\"sales.orders\"} 0",
            "aperio_records_late_total{table=\"sales.orders\"} 0",
            "aperio_event_time_watermark_seconds{partition=\"3\",table=\"sales.orders\"} 1.5",
            "aperio_iceberg_commits_total{table=\"sales.orders\"} 0",
            "aperio_iceberg_commit_failures_total{table=\"sales.orders\"} 0",
            "aperio_iceberg_commit_conflicts_total{table=\"sales.orders\"} 0",
            "aperio_iceberg_commit_latency_seconds_bucket{table=\"sales.orders\",le=\"0.25\"} 1",
            "aperio_iceberg_last_commit_timestamp_seconds{table=\"sales.orders\"} 0",
            "aperio_iceberg_files_written_total{table=\"sales.orders\"} 0",
            "aperio_iceberg_bytes_written_total{table=\"sales.orders\"} 0",
            "aperio_memory_limit_bytes 1048576",
            "aperio_memory_in_use_bytes 0",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in:\n{text}");
        }
        table.show(&of(12, 1_500_000), &BTreeMap::new());
        assert!(
            !metrics.text(&Memory::new(1)).contains("aperio_kafka_lag{"),
            "a partition that left"
        );
    }
}
