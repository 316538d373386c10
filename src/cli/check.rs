//! `aperio check`: reaches everything that a run needs, with its credentials, and says what failed and why.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::output::{Columns, OutputFormat, complain, counted, say, say_json};
use super::{Refused, block_on};
use crate::config::{self, Pipeline};
use crate::error::{Exit, Failure};
use crate::shell::check::{self, Subject};

/// How long one subject may take: its questions have limits of their own, of ten seconds and more; this is for the rest.
const SUBJECT_WAIT: Duration = Duration::from_secs(60);

/// The arguments of `aperio check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// Pipeline files, or directories with them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// For people, or one JSON document
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// What `aperio check --output json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckReport {
    exit_code: u8,
    tables: Vec<TableChecks>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TableChecks {
    table: String,
    ok: bool,
    checks: Vec<Checked>,
}

/// What came of one subject.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checked {
    subject: &'static str,
    ok: bool,
    /// What was found, in a few words.
    found: Option<String>,
    /// The exit code that it alone would give.
    exit_code: u8,
    /// Why it failed, as the user meets it: what, detail, hint.
    error: Option<String>,
}

pub(super) fn run(args: CheckArgs) -> Result<u8, Refused> {
    let pipelines = config::load(&args.files)?;
    let tables = block_on(futures::future::join_all(pipelines.iter().map(of_table)))?;
    let codes = tables
        .iter()
        .flat_map(|table| table.checks.iter().map(|checked| checked.exit_code));
    let exit_code = codes
        .filter(|code| *code != Exit::Done as u8)
        .min()
        .unwrap_or(Exit::Done as u8);
    match args.output {
        OutputFormat::Json => say_json(&CheckReport { exit_code, tables }),
        OutputFormat::Text => tables.iter().for_each(tell),
    }
    Ok(exit_code)
}

/// Checks all subjects of one table, side by side: one that doesn't answer costs its own time only.
async fn of_table(pipeline: &Pipeline) -> TableChecks {
    let checks = futures::future::join_all(Subject::of(pipeline).into_iter().map(|subject| async move {
        let answer = tokio::time::timeout(SUBJECT_WAIT, check::check(pipeline, subject)).await;
        let answer = answer.unwrap_or_else(|_| {
            let what = format!("the check of the {} didn't end", subject.name());
            Err(Failure::new(Exit::Remote, what).detail(format!("it was given {} s", SUBJECT_WAIT.as_secs())))
        });
        checked(subject, answer)
    }))
    .await;
    TableChecks {
        table: pipeline.full_name(),
        ok: checks.iter().all(|checked| checked.ok),
        checks,
    }
}

fn checked(subject: Subject, answer: Result<String, Failure>) -> Checked {
    let subject = subject.name();
    match answer {
        Ok(found) => Checked {
            subject,
            ok: true,
            found: Some(found),
            exit_code: Exit::Done as u8,
            error: None,
        },
        Err(failure) => Checked {
            subject,
            ok: false,
            found: None,
            exit_code: failure.exit as u8,
            error: Some(failure.to_string()),
        },
    }
}

fn tell(table: &TableChecks) {
    say(&text(table));
    table
        .checks
        .iter()
        .filter_map(|checked| checked.error.as_ref())
        .for_each(|error| complain(error));
}

fn text(table: &TableChecks) -> String {
    let failed = table.checks.iter().filter(|checked| !checked.ok).count() as u64;
    let verdict = match failed {
        0 => "all well".to_owned(),
        count => format!("{} failed", counted(count, "check")),
    };
    let mut columns = Columns::new(&["", "", ""]);
    for checked in &table.checks {
        let found = checked.found.clone().unwrap_or_else(|| "see below".to_owned());
        let ok = if checked.ok { "ok" } else { "FAILED" };
        columns.row(vec![checked.subject.to_owned(), ok.to_owned(), found]);
    }
    let rows = columns.text(2);
    let rows = rows.trim_start_matches('\n');
    format!("{}: {verdict}\n{rows}", table.table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_stands_out() {
        let checks = vec![
            checked(Subject::Brokers, Ok("cluster abc".into())),
            checked(Subject::Catalog, Err(Failure::new(Exit::Remote, "it is down"))),
        ];
        let table = TableChecks {
            table: "sales.orders".into(),
            ok: false,
            checks,
        };
        insta::assert_snapshot!(text(&table), @r"
        sales.orders: 1 check failed
          brokers  ok      cluster abc
          catalog  FAILED  see below
        ");
    }
}
