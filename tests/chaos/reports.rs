//! What the processes say that they did: their reports at the end, their metrics before. Of those that are killed nothing is
//! known, so the sums are below what is stored or equal to it, never above.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::servers::page;

/// What was counted of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub windows: u64,
    pub records: u64,
    pub rows: u64,
    pub rejected: u64,
    pub files: u64,
}

impl Counts {
    /// What a report says of each table.
    pub fn of(report: &Value) -> BTreeMap<String, Self> {
        let counts = |table: &Value| {
            let number = |name: &str| table[name].as_u64().expect("a count");
            Self {
                windows: table["windows"].as_array().expect("windows").len() as u64,
                records: number("recordsRead"),
                rows: number("rowsWritten"),
                rejected: number("rejected"),
                files: number("filesWritten"),
            }
        };
        let tables = report["tables"].as_array().expect("tables").iter();
        tables.map(|table| (name(table), counts(table))).collect()
    }
}

fn name(table: &Value) -> String {
    table["table"].as_str().expect("a name").to_owned()
}

/// The reports of all that weren't killed, added up.
#[derive(Default)]
pub struct Reports {
    /// By table.
    pub sums: BTreeMap<String, Counts>,
}

impl Reports {
    /// Adds a report.
    ///
    /// # Panics
    /// If it contradicts itself.
    pub fn take(&mut self, report: &Value) {
        for (table, counts) in Counts::of(report) {
            let sum = self.sums.entry(table).or_default();
            sum.windows += counts.windows;
            sum.records += counts.records;
            sum.rows += counts.rows;
            sum.rejected += counts.rejected;
            sum.files += counts.files;
        }
        for table in report["tables"].as_array().expect("tables") {
            let windows = table["windows"].as_array().expect("windows");
            for count in ["records", "rows", "rejected"] {
                let of_table = match count {
                    "records" => "recordsRead",
                    "rows" => "rowsWritten",
                    same => same,
                };
                let sum: u64 = windows
                    .iter()
                    .map(|window| window[count].as_u64().expect("a count"))
                    .sum();
                assert_eq!(
                    Some(sum),
                    table[of_table].as_u64(),
                    "`{count}` of the windows in {table}"
                );
            }
            let [read, rows, rejected, filtered] = ["recordsRead", "rowsWritten", "rejected", "filtered"]
                .map(|name| table[name].as_u64().expect("a count"));
            assert_eq!(
                read,
                rows + rejected + filtered,
                "what became of the records in {table}"
            );
        }
    }
}

/// Expects that a process reports no less than its metrics have shown before.
///
/// # Panics
/// If it does.
pub fn expect_at_least(before: &BTreeMap<String, Counts>, report: &Value) {
    let after = Counts::of(report);
    for (table, before) in before {
        let after = after.get(table).copied().unwrap_or_default();
        assert!(
            before.rejected <= after.rejected && before.files <= after.files,
            "`{table}`: metrics {before:?}, the report {after:?}"
        );
    }
}

/// The rejects and files in the metrics of a service whose log this is; none if it doesn't serve yet.
pub fn metrics(log: &str) -> BTreeMap<String, Counts> {
    let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
    let serving = log.lines().find(|line| line.contains("serving /metrics"));
    let address = serving
        .and_then(|line| line.split("address=").nth(1))
        .map(str::trim_end);
    let Some((200, text)) = address.and_then(|address| page(address, "/metrics")) else {
        return counts;
    };
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((metric, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let Some((metric, labels)) = metric.split_once('{') else {
            continue;
        };
        let table = labels.split("table=\"").nth(1).and_then(|rest| rest.split('"').next());
        let (Some(table), Ok(value)) = (table, value.parse::<u64>()) else {
            continue;
        };
        let counts = counts.entry(table.to_owned()).or_default();
        match metric {
            "aperio_records_rejected_total" => counts.rejected = value,
            "aperio_iceberg_files_written_total" => counts.files = value,
            _ => {}
        }
    }
    counts
}
