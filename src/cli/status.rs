//! `aperio status`: where each table stands, by Kafka partition.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use super::output::{Columns, OutputFormat, complain, grouped, moment, moment_iso, say, say_json};
use super::sync_points::of_pipeline;
use super::{Refused, block_on, open};
use crate::config::{self, Pipeline};
use crate::error::{Exit, Failure};
use crate::offsets::{Offset, Offsets, Partition};
use crate::shell::check::asking;
use crate::shell::open::table_of_record;
use crate::table::TableView;

/// The arguments of `aperio status`.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// Pipeline files, or directories with them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// For people, or one JSON document
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// What `aperio status --output json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusReport {
    exit_code: u8,
    tables: Vec<TableStatus>,
}

/// Where one table stands. What couldn't be asked is `None`, and told in `errors`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TableStatus {
    table: String,
    topic: String,
    group: String,
    /// Whether the table exists; `None` if the catalog couldn't say.
    exists: Option<bool>,
    location: Option<String>,
    snapshot: Option<i64>,
    /// When the last commit of ours was made, ISO 8601.
    last_commit: Option<String>,
    #[serde(skip)]
    state: State,
    /// Sum over the partitions whose lag is known.
    lag: Option<u64>,
    partitions: Vec<PartitionStatus>,
    errors: Vec<String>,
}

/// What can be said of a table before its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The catalog didn't answer.
    Unasked,
    /// There is no table, and no sync point speaks of one.
    NotCreated,
    /// There is no table, or none of ours, but sync points speak of it.
    Gone,
    /// The table's history doesn't tell its offsets.
    Unknown,
    /// The table is another's until now.
    NoCommit,
    /// The newest commit of ours: when it was made, in milliseconds since 1970, unless it has expired.
    Committed(Option<i64>),
}

impl State {
    fn of(exists: Option<bool>, view: Option<&TableView>, points: usize) -> State {
        match (exists, view) {
            (None, _) => State::Unasked,
            (Some(true), None) => State::Unknown,
            (_, Some(view)) if view.ledger.is_some() => State::Committed(view.ledger_at.map(|at| at.0)),
            (_, _) if points > 0 => State::Gone,
            (_, Some(_)) => State::NoCommit,
            (Some(false), None) => State::NotCreated,
        }
    }
}

/// Where one partition stands; all numbers are offsets to read next.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct PartitionStatus {
    partition: i32,
    /// In the table: what counts.
    table: Option<i64>,
    /// In sync_points: the published copy.
    sync_point: Option<String>,
    /// In the consumer group: the copy for lag tools.
    group: Option<i64>,
    /// The topic's end.
    end: Option<i64>,
    lag: Option<u64>,
}

impl PartitionStatus {
    /// Says whether the sync point names a later offset than the table holds.
    fn ahead(&self) -> bool {
        let point = self.sync_point.as_ref().and_then(|value| value.parse::<i64>().ok());
        point.is_some_and(|point| self.table.is_none_or(|table| table < point))
    }
}

pub(super) fn run(args: StatusArgs) -> Result<u8, Refused> {
    let pipelines = config::load(&args.files)?;
    let (tables, codes): (Vec<_>, Vec<_>) = block_on(async {
        // Side by side: one catalog that doesn't answer costs its own time only.
        futures::future::join_all(pipelines.iter().map(of_table)).await
    })?
    .into_iter()
    .unzip();
    let exit_code = codes
        .into_iter()
        .filter(|code| *code != Exit::Done as u8)
        .min()
        .unwrap_or(Exit::Done as u8);
    match args.output {
        OutputFormat::Json => say_json(&StatusReport { exit_code, tables }),
        OutputFormat::Text => {
            for (index, table) in tables.iter().enumerate() {
                if index > 0 {
                    say("");
                }
                say(&text(table));
                table.errors.iter().for_each(|error| complain(error));
            }
        }
    }
    Ok(exit_code)
}

/// Asks everyone about one table; returns also the exit code that the answers that failed would give.
async fn of_table(pipeline: &Pipeline) -> (TableStatus, u8) {
    let mut failures: Vec<Failure> = Vec::new();
    let loaded = async {
        let catalog = table_of_record(pipeline)?;
        open::table(pipeline, &catalog, &pipeline.name).await
    };
    let (loaded, kafka) = tokio::join!(loaded, ask_kafka(pipeline));
    let exists = loaded.as_ref().ok().map(Option::is_some);
    let table = kept(loaded, &mut failures).flatten();
    let view = match &table {
        Some(table) => kept(open::view(pipeline, table).await, &mut failures),
        None => None,
    };
    let points = kept(of_pipeline(pipeline, table.as_ref()).await, &mut failures).unwrap_or_default();
    let (ends, group) = kept(kafka, &mut failures).unwrap_or_default();
    let state = State::of(exists, view.as_ref(), points.len());
    let last_commit_ms = view.as_ref().and_then(|view| view.ledger_at).map(|at| at.0);
    let offsets = view
        .and_then(|view| view.ledger)
        .map(|ledger| ledger.offsets)
        .unwrap_or_default();
    let mut partitions: BTreeSet<Partition> = offsets.partitions().chain(ends.partitions()).collect();
    partitions.extend(points.iter().filter_map(|point| point.partition().map(Partition)));
    let partitions: Vec<_> = partitions
        .into_iter()
        .map(|partition| {
            let (held, end) = (offsets.get(partition), ends.get(partition));
            let point = points.iter().find(|point| point.partition() == Some(partition.0));
            PartitionStatus {
                partition: partition.0,
                table: held.map(Offset::get),
                sync_point: point.map(|point| point.sync_value.clone()),
                group: group.get(partition).map(Offset::get),
                end: end.map(Offset::get),
                lag: held.zip(end).map(|(held, end)| end.since(held)),
            }
        })
        .collect();
    let lags: Vec<_> = partitions.iter().filter_map(|partition| partition.lag).collect();
    let code = failures
        .iter()
        .map(|failure| failure.exit as u8)
        .min()
        .unwrap_or(Exit::Done as u8);
    let status = TableStatus {
        table: pipeline.full_name(),
        topic: pipeline.source.topic.clone(),
        group: pipeline.source.group.clone(),
        exists,
        location: table.as_ref().map(|table| table.metadata.location().to_owned()),
        snapshot: table.as_ref().and_then(|table| table.metadata.current_snapshot_id()),
        last_commit: last_commit_ms.and_then(moment_iso),
        state,
        lag: (!lags.is_empty()).then(|| lags.iter().sum()),
        partitions,
        errors: failures.iter().map(ToString::to_string).collect(),
    };
    (status, code)
}

/// Returns the answer, or puts the failure with the others.
fn kept<T>(answer: Result<T, Failure>, failures: &mut Vec<Failure>) -> Option<T> {
    answer.map_err(|failure| failures.push(failure)).ok()
}

/// Asks the brokers for the topic's ends and the group's offsets.
async fn ask_kafka(pipeline: &Pipeline) -> Result<(Offsets, Offsets), Failure> {
    let asked = asking(pipeline, |admin, pipeline| {
        let source = &pipeline.source;
        Ok((
            admin.ends(&source.topic)?,
            admin.group_offsets(&source.group, &source.topic)?,
        ))
    });
    asked
        .await
        .map_err(|error| error.failure(&pipeline.source.brokers, &pipeline.source.topic))
}

fn text(status: &TableStatus) -> String {
    let state = match status.state {
        State::Unasked => "the catalog didn't answer".to_owned(),
        State::NotCreated => "not created yet".to_owned(),
        State::Gone => "gone, though sync points speak of it".to_owned(),
        State::Unknown => "its offsets can't be known".to_owned(),
        State::NoCommit => "no commit of aperio yet".to_owned(),
        State::Committed(None) => "last commit expired".to_owned(),
        State::Committed(Some(at)) => format!("last commit {}", moment(at)),
    };
    let lag = status
        .lag
        .map_or(String::new(), |lag| format!(", lag {}", grouped(lag)));
    let title = format!(
        "{} from topic {}, group {}: {state}{lag}",
        status.table, status.topic, status.group
    );
    if status.partitions.is_empty() {
        return title;
    }
    let shown = |offset: Option<i64>| offset.map_or("-".to_owned(), |offset| offset.to_string());
    let mut columns = Columns::new(&[">partition", ">table", ">sync_points", ">group", ">end", ">lag"]);
    for partition in &status.partitions {
        columns.row(vec![
            partition.partition.to_string(),
            shown(partition.table),
            partition.sync_point.clone().unwrap_or_else(|| "-".to_owned()),
            shown(partition.group),
            shown(partition.end),
            partition.lag.map_or("-".to_owned(), |lag| lag.to_string()),
        ]);
    }
    let overwritten = matches!(status.state, State::Committed(_));
    let ahead = status
        .partitions
        .iter()
        .filter(|partition| overwritten && partition.ahead());
    let ahead: Vec<_> = ahead.map(|partition| partition.partition.to_string()).collect();
    let note = if ahead.is_empty() {
        String::new()
    } else {
        format!(
            "\n  sync points are ahead of the table at partition {}: was it rolled back? The next run overwrites them",
            ahead.join(", ")
        )
    };
    format!("{title}\n{}{note}", columns.text(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_a_dash() {
        let status = TableStatus {
            table: "default.events".into(),
            topic: "events".into(),
            group: "aperio-events".into(),
            exists: Some(true),
            location: None,
            snapshot: Some(1),
            last_commit: None,
            state: State::Committed(Some(0)),
            lag: Some(8),
            partitions: vec![
                PartitionStatus {
                    partition: 0,
                    table: Some(2),
                    sync_point: Some("3".into()),
                    group: Some(2),
                    end: Some(10),
                    lag: Some(8),
                },
                PartitionStatus {
                    partition: 1,
                    table: Some(7),
                    sync_point: None,
                    group: None,
                    end: None,
                    lag: None,
                },
            ],
            errors: vec![],
        };
        insta::assert_snapshot!(text(&status), @r"
        default.events from topic events, group aperio-events: last commit 1970-01-01 00:00:00Z, lag 8
          partition  table  sync_points  group  end  lag
                  0      2            3      2   10    8
                  1      7            -      -    -    -
          sync points are ahead of the table at partition 0: was it rolled back? The next run overwrites them
        ");
    }
}
