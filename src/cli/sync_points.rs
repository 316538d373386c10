//! `aperio sync-points`: the published copies of the offsets as they are stored, and moving the offsets.

mod reset;

use std::path::PathBuf;

use serde::Serialize;

use super::output::{Columns, OutputFormat, moment, moment_iso, say, say_json};
use super::{Refused, block_on, open};
use crate::config::{self, Pipeline};
use crate::error::{Exit, Failure};
use crate::shell::open::{catalog, sync_points, sync_points_failure};

/// The commands about sync points.
#[derive(Debug, clap::Subcommand)]
pub(super) enum SyncPointsCommand {
    /// Print them
    Show(ShowArgs),
    /// Move the offsets of a table: shows how many records will double or be skipped, and asks
    Reset(reset::ResetArgs),
}

/// The arguments of `aperio sync-points show`.
#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// Pipeline files, or directories with them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// For people, or one JSON document
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// One sync point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PointShown {
    /// The table that the point belongs to.
    pub source_name: String,
    /// `partition:0`.
    pub sync_key: String,
    /// The offset to read next.
    pub sync_value: String,
    /// When it was stored, ISO 8601.
    pub committed_at: Option<String>,
    /// The same in milliseconds since 1970.
    #[serde(skip)]
    pub committed_at_ms: i64,
}

pub(super) fn run(command: SyncPointsCommand) -> Result<u8, Refused> {
    match command {
        SyncPointsCommand::Show(args) => show(args),
        SyncPointsCommand::Reset(args) => reset::run(args),
    }
}

fn show(args: ShowArgs) -> Result<u8, Refused> {
    let pipelines = config::load(&args.files)?;
    let points = block_on(async {
        let mut all = Vec::new();
        for pipeline in &pipelines {
            let table = match pipeline.state_dir {
                Some(_) => None,
                None => open::table(pipeline, &catalog(&pipeline.catalog)?, &pipeline.name).await?,
            };
            all.extend(of_pipeline(pipeline, table.as_ref()).await?);
        }
        Ok::<_, Failure>(all)
    })??;
    match args.output {
        OutputFormat::Json => say_json(&points),
        OutputFormat::Text if points.is_empty() => say("no sync points yet; the first `aperio run` writes them"),
        OutputFormat::Text => say(&columns(&points).text(0)),
    }
    Ok(Exit::Done as u8)
}

/// Reads the sync points of one pipeline.
pub(super) async fn of_pipeline(
    pipeline: &Pipeline,
    table: Option<&crate::catalog::LoadedTable>,
) -> Result<Vec<PointShown>, Failure> {
    let Some(points) = sync_points(pipeline, table)? else {
        return Ok(Vec::new());
    };
    let rows = points
        .read()
        .await
        .map_err(|error| sync_points_failure(&points, &error))?;
    let ours = rows.into_iter().filter(|row| row.source_name == pipeline.name);
    let mut shown: Vec<_> = ours
        .map(|row| PointShown {
            source_name: row.source_name,
            sync_key: row.sync_key,
            sync_value: row.sync_value,
            committed_at: moment_iso(row.committed_at_us.div_euclid(1000)),
            committed_at_ms: row.committed_at_us.div_euclid(1000),
        })
        .collect();
    // By number, so that partition 10 doesn't stand before partition 2.
    shown.sort_by_key(|point| (point.partition(), point.sync_key.clone()));
    Ok(shown)
}

impl PointShown {
    /// Returns the partition that the point is about, if it is about one.
    pub fn partition(&self) -> Option<i32> {
        self.sync_key.strip_prefix("partition:")?.parse().ok()
    }
}

/// The longest value that people are shown whole; JSON output has them all.
const SHOWN_MAX: usize = 60;

fn shortened(value: &str) -> String {
    match value.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

/// Lays sync points out for people.
pub(super) fn columns(points: &[PointShown]) -> Columns {
    let mut columns = Columns::new(&["source_name", "sync_key", ">sync_value", "committed_at"]);
    for point in points {
        columns.row(vec![
            point.source_name.clone(),
            point.sync_key.clone(),
            shortened(&point.sync_value),
            moment(point.committed_at_ms),
        ]);
    }
    columns
}
