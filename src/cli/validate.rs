//! `aperio validate`: everything that is wrong with pipeline files, without contacting anything.

use std::path::PathBuf;

use super::Refused;
use super::output::{counted, say};
use crate::config::{self, TableFormat};
use crate::error::Exit;

/// The arguments of `aperio validate`.
#[derive(Debug, clap::Args)]
pub(super) struct ValidateArgs {
    /// Pipeline files, or directories with them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn run(args: &ValidateArgs) -> Result<u8, Refused> {
    let pipelines = config::load(&args.files)?;
    for pipeline in &pipelines {
        let (topic, table) = (&pipeline.source.topic, pipeline.full_name());
        let place = match pipeline.materialize.format {
            TableFormat::Iceberg => format!("in catalog `{}`", pipeline.catalog.name),
            TableFormat::Parquet => format!("of plain Parquet files in `{}`", pipeline.catalog.warehouse),
        };
        say(&format!("ok: topic `{topic}` to table `{table}` {place}"));
    }
    say(&format!("{}, no problems", counted(pipelines.len() as u64, "table")));
    Ok(Exit::Done as u8)
}
