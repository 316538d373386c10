//! `aperio demo`: the whole thing with nothing installed.
//!
//! An embedded broker gets made-up events; a first run is stopped in the middle; more events arrive; a second run goes on.
//! Then the result is looked at from outside: by the table's metadata, by reading its files, by the sync points.

mod broker;
mod events;
mod look;
mod queries;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::logs::{self, LogFormat};
use super::output::{complain, counted, say};
use super::run::summary;
use super::{Refused, block_on};
use crate::config::{self, Pipeline};
use crate::error::{Exit, Failure};
use crate::memory::Memory;
use crate::shell::report::{Counters, TableOutcome, TableReport};
use crate::shell::{self, RunOptions};
use crate::units::Millis;

use broker::Broker;
use events::Shop;

/// The topic that the demo reads.
const TOPIC: &str = "shop-events";
/// Partitions of the topic.
const PARTITIONS: i32 = 3;
/// Events before the first run.
const EVENTS_AT_FIRST: usize = 5_000;
/// Events that arrive between the runs.
const EVENTS_LATER: usize = 1_500;
/// Records at which a window closes, so that there are several.
const BATCH_SIZE: u64 = 1_000;
/// Records after which the first run is stopped: in the middle of a window.
const STOP_AFTER: u64 = 2_500;
/// How often the first run is looked at while it works.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// Plenty for some thousand events.
const MEMORY_BYTES: u64 = 256 << 20;
/// The broker is in this process: if it doesn't answer soon, it never will.
const RETRY_FOR: Millis = Millis(20_000);

/// The first line of the pipeline file, by which a later demo knows its own directory.
const MARK: &str = "# Written by `aperio demo`.";
const PIPELINE_FILE: &str = "events.yaml";
const WAREHOUSE: &str = "warehouse";

/// The arguments of `aperio demo`.
#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Where the pipeline file and the table are put; an earlier demo there is replaced
    #[arg(long, value_name = "DIR", default_value = "aperio-demo")]
    dir: PathBuf,
}

pub(super) fn run(args: DemoArgs) -> Result<u8, Refused> {
    logs::start(LogFormat::Text, "error", None);
    prepare(&args.dir)?;
    let file = args.dir.join(PIPELINE_FILE);

    say("1. A Kafka broker inside this process, and a shop's events");
    let broker = Broker::start(TOPIC, PARTITIONS)?;
    let mut shop = Shop::open(chrono::Utc::now().timestamp_millis());
    block_on(broker.produce(TOPIC, shop.events(EVENTS_AT_FIRST, true)))??;
    say(&format!(
        "   {} of the last hours in topic `{TOPIC}`, {PARTITIONS} partitions; one of them is cut off in the middle",
        counted(EVENTS_AT_FIRST as u64, "event")
    ));
    fs::write(&file, pipeline_text(&broker.address())).map_err(|error| unwritable(&file, &error))?;
    say(&format!("   the pipeline file is {}", file.display()));
    let pipelines = config::load(std::slice::from_ref(&file))?;
    let mut pipeline = pipelines.first().expect("a loaded file declares a table").clone();
    pipeline.source.client.extend(broker::client_properties());

    say("\n2. aperio run --once, stopped in the middle (the group takes some seconds to form)");
    // From here on answers take their time, as over a network, so that there is a middle.
    broker.slow_down()?;
    let first = block_on(run_once(pipeline.clone(), Some(STOP_AFTER)))?;
    if let Some(code) = tell(&first) {
        return Ok(code);
    }

    say("\n3. Meanwhile more events arrive; purchases may have a coupon now");
    block_on(broker.produce(TOPIC, shop.events(EVENTS_LATER, false)))??;
    say(&format!("   {} more", counted(EVENTS_LATER as u64, "event")));

    say("\n4. aperio run --once again: it goes on where the table ends");
    let second = block_on(run_once(pipeline.clone(), None))?;
    if let Some(code) = tell(&second) {
        return Ok(code);
    }

    say("\n5. What came out");
    let produced = (EVENTS_AT_FIRST + EVENTS_LATER) as u64;
    let found = block_on(look::look(&pipeline, produced))??;
    say("\n6. Query it");
    say(&queries::text(&pipeline, &found.metadata_location, &args.dir));
    say(&format!(
        "\nThe broker is gone now; the table and the pipeline file stay in {}. Put your own brokers and topic into a\n\
         copy of {}, and `aperio run --once` it.",
        args.dir.display(),
        file.display()
    ));
    // A demo that shows a doubled or lost record has found a bug.
    Ok(if found.whole { Exit::Done as u8 } else { Exit::Bug as u8 })
}

/// Makes the directory, empty; what an earlier demo left there is removed, what anybody else left is not.
fn prepare(dir: &Path) -> Result<(), Failure> {
    fs::create_dir_all(dir).map_err(|error| unwritable(dir, &error))?;
    let entries = fs::read_dir(dir).map_err(|error| unwritable(dir, &error))?;
    let names: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    if names.is_empty() {
        return Ok(());
    }
    let file = dir.join(PIPELINE_FILE);
    let marked = fs::read_to_string(&file).is_ok_and(|text| text.starts_with(MARK));
    if !marked || names.iter().any(|name| name != PIPELINE_FILE && name != WAREHOUSE) {
        return Err(Failure::new(
            Exit::Config,
            format!("directory `{}` holds other things than a demo", dir.display()),
        )
        .hint("name another one with `--dir`, or empty it"));
    }
    let warehouse = dir.join(WAREHOUSE);
    if warehouse.exists() {
        fs::remove_dir_all(&warehouse).map_err(|error| unwritable(&warehouse, &error))?;
    }
    // The marked file goes last: a removal that was cut short can be repeated.
    fs::remove_file(&file).map_err(|error| unwritable(&file, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Config, format!("`{}` can't be written", path.display()))
        .detail(error.to_string())
        .hint("name another directory with `--dir`")
}

/// The pipeline file of the demo.
fn pipeline_text(brokers: &str) -> String {
    format!(
        "{MARK}
partitionedTables:
  - name: events
    source:
      type: kafka
      brokers: \"{brokers}\"   # the demo's own broker, which ended with it
      topic: {TOPIC}
      format: json
      eventTimeField: occurred_at
      batchSize: {BATCH_SIZE}        # so small only to show several windows; the default is a million
      maxPollRecords: 100
    materialize:
      partition: [date, hour]
"
    )
}

/// Runs the pipeline up to the ends; with `stop_after`, asks it to stop once it has read so many records.
async fn run_once(pipeline: Pipeline, stop_after: Option<u64>) -> TableReport {
    let options = RunOptions {
        run: Uuid::now_v7(),
        once: true,
        memory: Memory::new(MEMORY_BYTES),
        lines: 1,
        retry_for: RETRY_FOR,
        observed: false,
    };
    let counters = Arc::new(Counters::default());
    let (stop, stopping) = watch::channel(false);
    let stopper = async {
        match stop_after {
            None => std::future::pending().await,
            // Ends when enough is read, or with the run, which races this and drops it.
            Some(records) => {
                while counters.records_read.load(Relaxed) < records {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                }
            }
        }
    };
    let work = shell::run_all(vec![pipeline], options, vec![Arc::clone(&counters)], stopping);
    tokio::pin!(work);
    let mut reports = tokio::select! {
        reports = &mut work => reports,
        () = stopper => {
            // No receiver is left only where the run has just ended.
            let _ = stop.send(true);
            work.await
        }
    };
    reports.pop().expect("one pipeline makes one report")
}

/// Prints how a run went; returns an exit code if the demo can't go on.
fn tell(report: &TableReport) -> Option<u8> {
    say(&format!("   {}", summary(report)));
    for window in &report.windows {
        say(&format!(
            "   window of {}, closed by {}{}",
            counted(window.records, "record"),
            window.reason,
            if window.rejected > 0 {
                format!("; {} rejected", window.rejected)
            } else {
                String::new()
            }
        ));
    }
    if report.outcome != TableOutcome::Failed {
        return None;
    }
    if let Some(error) = &report.error {
        complain(error);
    }
    Some(report.exit_code.max(Exit::Bug as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_directory_is_refused_and_an_earlier_demo_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let demo = dir.path().join("demo");
        prepare(&demo).expect("a new directory");
        fs::write(demo.join(PIPELINE_FILE), pipeline_text("127.0.0.1:1")).expect("writes");
        fs::create_dir_all(demo.join(WAREHOUSE)).expect("creates");
        prepare(&demo).expect("an earlier demo");
        assert_eq!(fs::read_dir(&demo).expect("lists").count(), 0);
        fs::write(demo.join(PIPELINE_FILE), "partitionedTables: []").expect("writes");
        assert_eq!(prepare(&demo).expect_err("someone's own file").exit, Exit::Config);
        fs::write(demo.join(PIPELINE_FILE), MARK).expect("writes");
        fs::write(demo.join("notes.txt"), "mine").expect("writes");
        assert_eq!(prepare(&demo).expect_err("someone's notes").exit, Exit::Config);
    }

    #[test]
    fn the_pipeline_file_of_the_demo_is_right() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join(PIPELINE_FILE);
        fs::write(&file, pipeline_text("127.0.0.1:1")).expect("writes");
        let pipelines = config::load(&[file]).expect("no problems");
        assert_eq!(pipelines[0].source.batch_size, BATCH_SIZE);
    }
}
