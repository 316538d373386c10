//! The shell: async tasks that feed what happens to [`crate::run::Run`] and do what it says, one conductor a pipeline.

mod conductor;
pub(crate) mod open;
mod perform;
pub mod report;
mod tables;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::watch;
use uuid::Uuid;

use crate::config::Pipeline;
use crate::shell::report::{Counters, TableReport};
use crate::units::Millis;

/// What the command line says about a run.
#[derive(Debug, Clone, Copy)]
pub struct RunOptions {
    /// The run's id: the first part of its windows' names, and `run` in its report.
    pub run: Uuid,
    /// End when the tables reach the ends that the topics had at the start.
    pub once: bool,
    /// The most memory the process should use, in bytes, shared by its pipelines.
    pub memory: u64,
    /// How long something remote may fail.
    pub retry_for: Millis,
}

/// Runs all pipelines at once, each failing alone, until they are done or `stop` says so.
///
/// - `counters`: one per pipeline, in their order.
/// - returns one report per pipeline, in their order.
///
/// # Panics
/// If a pipeline's task panicked: a bug, which ends the process.
pub async fn run_all(
    pipelines: Vec<Pipeline>,
    options: RunOptions,
    counters: Vec<Arc<Counters>>,
    stop: watch::Receiver<bool>,
) -> Vec<TableReport> {
    let share = options.memory / pipelines.len().max(1) as u64;
    let tasks: Vec<_> = pipelines
        .into_iter()
        .zip(counters)
        .map(|(pipeline, counters)| {
            let options = RunOptions {
                memory: share,
                ..options
            };
            tokio::spawn(conductor::conduct(pipeline, options, counters, stop.clone()))
        })
        .collect();
    let mut reports = Vec::with_capacity(tasks.len());
    for task in tasks {
        reports.push(task.await.expect("a pipeline's task ends with a report"));
    }
    reports
}

/// The time now, for deciding: it never goes back nor jumps when somebody sets the machine's clock, so that no window stays
/// open, and no patience ends, because of that.
pub(crate) fn now() -> Millis {
    static START: OnceLock<(Millis, Instant)> = OnceLock::new();
    let (wall, instant) = START.get_or_init(|| (wall_clock(), Instant::now()));
    wall.after(instant.elapsed().into())
}

/// The time that the machine's clock shows, for others to read.
pub(crate) fn wall_clock() -> Millis {
    Millis(chrono::Utc::now().timestamp_millis())
}
