//! The shell: async tasks that feed what happens to [`crate::run::Run`] and do what it says, one conductor a pipeline.

pub mod check;
mod conductor;
mod damage;
pub mod discover;
mod horizon;
pub(crate) mod open;
mod perform;
mod probe;
pub mod report;
pub mod reset;
mod schema_file;
mod schemas;
mod silence;
mod tables;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::watch;
use uuid::Uuid;

use crate::config::Pipeline;
use crate::memory::Memory;
use crate::shell::open::Clients;
use crate::shell::report::{Counters, TableReport};
use crate::units::Millis;

/// What the command line says about a run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The run's id: the first part of its windows' names, and `run` in its report.
    pub run: Uuid,
    /// End when the tables reach the ends that the topics had at the start.
    pub once: bool,
    /// The memory of the process, shared by its pipelines.
    pub memory: Memory,
    /// Threads per pipeline that decode and encode, at most; at least one.
    pub lines: usize,
    /// How long something remote may fail.
    pub retry_for: Millis,
    /// Somebody may ask how the run is: remotes are asked from time to time.
    pub observed: bool,
}

/// Runs all pipelines at once, each failing alone, until they are done or `stop` says so.
///
/// - `counters`: one per pipeline, in their order.
/// - returns one report per pipeline, in their order.
///
/// With `once`, a pipeline whose task doesn't stir any more is given up and reported as failed; a service tells that by
/// its health.
///
/// # Panics
/// If a pipeline's task panicked: a bug, which ends the process.
pub async fn run_all(
    pipelines: Vec<Pipeline>,
    options: RunOptions,
    counters: Vec<Arc<Counters>>,
    stop: watch::Receiver<bool>,
) -> Vec<TableReport> {
    let shares = options.memory.share_of_one_in(pipelines.len());
    let watched = counters.iter().filter(|_| options.once);
    let mut silent = silence::watch(
        watched.map(|counters| Arc::clone(&counters.table)).collect(),
        silence::limit(options.retry_for),
    )
    .into_iter();
    let clients = Arc::new(Clients::default());
    let tasks: Vec<_> = pipelines
        .into_iter()
        .zip(counters)
        .map(|(pipeline, counters)| {
            let name = pipeline.full_name();
            let conducted = conductor::conduct(
                pipeline,
                options.clone(),
                clients.clone(),
                shares,
                counters,
                stop.clone(),
            );
            (name, tokio::spawn(conducted), silent.next())
        })
        .collect();
    let mut reports = Vec::with_capacity(tasks.len());
    for (name, task, silent) in tasks {
        let gone_silent = async {
            let told = match silent {
                Some(silent) => silent.await.is_ok(),
                None => false,
            };
            if !told {
                std::future::pending::<()>().await;
            }
        };
        reports.push(tokio::select! {
            biased;
            report = task => report.expect("a pipeline's task ends with a report"),
            () = gone_silent => silence::report(name, silence::limit(options.retry_for)),
        });
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
