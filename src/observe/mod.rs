//! What a process tells while it runs: metrics, health and status, over HTTP.
//!
//! Each pipeline has a [`Table`], which its conductor writes; [`server`] answers from what is known there and contacts
//! nobody: a request costs the same whatever is down.

pub mod metrics;
pub mod server;
mod table;

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use self::metrics::Metrics;
use self::table::TableStatus;
use crate::memory::Memory;
use crate::resident::resident;

pub use self::table::{Phase, Table, Trouble};

/// Everything that a process tells.
#[derive(Debug)]
pub struct Observed {
    /// The run's id.
    pub run: String,
    /// Its metrics.
    pub metrics: Arc<Metrics>,
    /// One for each pipeline.
    pub tables: Vec<Arc<Table>>,
    /// What `--memory` bounds.
    pub memory: Memory,
    /// When the process started.
    pub started: Instant,
}

/// What `/status` shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    version: &'static str,
    run: String,
    uptime_seconds: u64,
    ready: bool,
    memory: MemoryStatus,
    tables: Vec<TableStatus>,
}

/// In bytes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MemoryStatus {
    limit: u64,
    /// As the operating system counts; `None` where it doesn't say.
    resident: Option<u64>,
    /// As the program counts: queues, chunks, files and dead letters.
    in_use: u64,
}

/// What `/health/ready` shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Readiness {
    ready: bool,
    /// Those that aren't, with the reasons.
    tables: Vec<Unready>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Unready {
    table: String,
    reasons: Vec<String>,
}

/// One page: whether all is well, and its text.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    well: bool,
    content_type: &'static str,
    text: String,
}

impl Observed {
    /// Makes the page of a path; `None` where there is none.
    fn page(&self, path: &str) -> Option<Page> {
        match path {
            "/metrics" => {
                self.tables.iter().for_each(|table| table.metrics.refresh());
                Some(Page {
                    well: true,
                    content_type: metrics::CONTENT_TYPE,
                    text: self.metrics.text(&self.memory),
                })
            }
            "/health/live" => {
                let silent = self.tables.iter().filter(|table| !table.alive());
                let silent: Vec<_> = silent.map(|table| table.name.as_str()).collect();
                Some(json(
                    silent.is_empty(),
                    &serde_json::json!({"live": silent.is_empty(), "silent": silent}),
                ))
            }
            "/health/ready" => {
                let readiness = self.readiness();
                Some(json(readiness.ready, &readiness))
            }
            "/status" => Some(json(true, &self.status())),
            _ => None,
        }
    }

    fn readiness(&self) -> Readiness {
        let unready = self.tables.iter().map(|table| Unready {
            table: table.name.clone(),
            reasons: table.reasons(),
        });
        let tables: Vec<_> = unready.filter(|table| !table.reasons.is_empty()).collect();
        Readiness {
            ready: tables.is_empty(),
            tables,
        }
    }

    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION"),
            run: self.run.clone(),
            uptime_seconds: self.started.elapsed().as_secs(),
            ready: self.readiness().ready,
            memory: MemoryStatus {
                limit: self.memory.limit(),
                resident: resident().map(|resident| resident.now),
                in_use: self.memory.held(),
            },
            tables: self.tables.iter().map(|table| table.status()).collect(),
        }
    }
}

fn json(well: bool, document: &impl Serialize) -> Page {
    let text =
        serde_json::to_string_pretty(document).expect("our documents are maps with text keys, which always serialise");
    Page {
        well,
        content_type: "application/json",
        text: format!("{text}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed() -> Observed {
        Observed {
            run: "r".into(),
            metrics: Metrics::new(),
            tables: vec![Arc::default()],
            memory: Memory::new(1_000),
            started: Instant::now(),
        }
    }

    #[test]
    fn a_pipeline_that_failed_is_neither_ready_nor_dead() {
        let observed = observed();
        let well = |path: &str| observed.page(path).expect("a page").well;
        assert_eq!(
            (well("/health/ready"), well("/health/live")),
            (false, true),
            "it starts"
        );
        observed.tables[0].enters(Phase::Running);
        assert_eq!((well("/health/ready"), well("/health/live")), (true, true));
        observed.tables[0].enters(Phase::Failed("error: it broke".into()));
        assert_eq!((well("/health/ready"), well("/health/live")), (false, true));
        let text = observed.page("/health/ready").expect("a page").text;
        assert!(text.contains("it failed: error: it broke"), "{text}");
        assert_eq!(observed.page("/"), None);
    }

    #[test]
    fn the_status_tells_of_the_process_and_its_tables() {
        let status = serde_json::to_value(observed().status()).expect("JSON");
        assert_eq!(
            (&status["memory"]["limit"], &status["memory"]["inUse"]),
            (&1_000.into(), &0.into())
        );
        assert_eq!(status["tables"][0]["phase"], "starting");
    }
}
