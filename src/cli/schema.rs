//! `aperio schema`: the JSON Schema of the pipeline file.

use super::Refused;
use super::output::say_json;
use crate::config;
use crate::error::Exit;

pub(super) fn run() -> Result<u8, Refused> {
    say_json(&config::json_schema());
    Ok(Exit::Done as u8)
}
