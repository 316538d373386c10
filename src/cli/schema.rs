//! `aperio schema`: the JSON Schema of the pipeline file, and the compatibility of schemas of topics.

mod check;
mod earlier;
mod git;

use super::Refused;
use super::output::say_json;
use crate::config;
use crate::error::Exit;

/// The arguments of `aperio schema`.
#[derive(Debug, clap::Args)]
pub(super) struct SchemaArgs {
    #[command(subcommand)]
    command: Option<SchemaCommand>,
}

/// The commands about schemas of topics.
#[derive(Debug, clap::Subcommand)]
enum SchemaCommand {
    /// Check that schema files may follow their earlier versions, committed or registered
    Check(check::SchemaCheckArgs),
}

pub(super) fn run(args: SchemaArgs) -> Result<u8, Refused> {
    match args.command {
        Some(SchemaCommand::Check(args)) => check::run(args),
        None => {
            say_json(&config::json_schema());
            Ok(Exit::Done as u8)
        }
    }
}
