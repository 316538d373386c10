//! The command line: reads arguments, owns the runtime, the signals and the terminal, and ends with an exit code.
//!
//! Each command is one file with its arguments and `run(…) -> Result<u8, Problems>`. Nothing here decides anything about
//! data; what a command prints goes to standard output, failures and logs go to standard error.

mod check;
mod demo;
mod discover;
mod logs;
mod open;
mod output;
mod progress;
mod run;
mod schema;
mod status;
mod sync_points;
mod validate;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::config::Problem;
use crate::error::{Exit, Failure};

/// Threads that wait for remotes; no CPU work is done on them.
const RUNTIME_WORKERS: usize = 2;

/// How long requests that nobody waits for any more may hold up the end of the process.
const SHUTDOWN_WAIT: Duration = Duration::from_millis(200);

/// Turns Kafka topics into Apache Iceberg tables, exactly once.
#[derive(Debug, Parser)]
#[command(name = "aperio", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done (also: nothing new), 1 a bug in aperio, 2 the configuration, 3 the data, \
4 something remote is down, 5 overtaken by other instances, 130 or 143 --once was stopped before it was done.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Materialize: until stopped, or with --once up to the ends the topics have now
    Run(run::RunArgs),
    /// Check pipeline files; contacts nothing
    Validate(validate::ValidateArgs),
    /// Reach brokers, catalog and store with their credentials, and say what fails and why
    Check(check::CheckArgs),
    /// Look at a cluster's topics, and print a pipeline file to start from
    Discover(discover::DiscoverArgs),
    /// Print the JSON Schema of the pipeline file, for editors; or check schemas of topics
    Schema(schema::SchemaArgs),
    /// Show offsets, lag and the last commit of each table
    Status(status::StatusArgs),
    /// Look at the published copies of the offsets, or move the offsets
    #[command(subcommand)]
    SyncPoints(sync_points::SyncPointsCommand),
    /// See the whole thing with nothing installed: a broker inside the process, made-up events, a local table
    Demo(demo::DemoArgs),
}

/// Why a command could not do its work.
#[derive(Debug)]
enum Refused {
    /// The pipeline files are wrong; never empty.
    Problems(Vec<Problem>),
    /// Anything else.
    Failure(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Refused::Failure(failure)
    }
}

impl From<Vec<Problem>> for Refused {
    fn from(problems: Vec<Problem>) -> Self {
        Refused::Problems(problems)
    }
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            // Clap's own code for a wrong command line is 2, the code of a wrong configuration; help ends with 0.
            let code = u8::try_from(told.exit_code()).unwrap_or(Exit::Config as u8);
            // Nothing can be done about a terminal that is gone.
            let _ = told.print();
            return ExitCode::from(code);
        }
    };
    end_on_panic();
    let answer = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Validate(args) => validate::run(&args),
        Command::Check(args) => check::run(args),
        Command::Discover(args) => discover::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Status(args) => status::run(args),
        Command::SyncPoints(command) => sync_points::run(command),
        Command::Demo(args) => demo::run(args),
    };
    ExitCode::from(answer.unwrap_or_else(|refused| tell(&refused)))
}

/// Prints why a command could not do its work, once, and returns the exit code.
fn tell(refused: &Refused) -> u8 {
    match refused {
        Refused::Failure(failure) => {
            output::complain(&failure.to_string());
            failure.exit as u8
        }
        Refused::Problems(problems) => {
            for problem in problems {
                output::complain(&format!("error: {problem}"));
            }
            let count = problems.len();
            output::complain(&format!(
                "{count} problem{} in all; nothing was touched",
                if count == 1 { "" } else { "s" }
            ));
            Exit::Config as u8
        }
    }
}

/// Makes a panic on any thread end the process: a restart is always safe, going on with half of the threads isn't.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        output::complain(
            "error: this is a bug in aperio\n  detail: the table holds whole commits only, nothing of it is lost or doubled\n  hint:   \
             run it again; please report the lines above, with RUST_BACKTRACE=1 if it can be repeated",
        );
        std::process::exit(Exit::Bug as i32);
    }));
}

/// Runs `work` on a runtime of its own.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_WORKERS)
        .thread_name("aperio-io")
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(Exit::Remote, "the operating system gives no threads").detail(error.to_string())
        })?;
    let answer = runtime.block_on(work);
    runtime.shutdown_timeout(SHUTDOWN_WAIT);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn only_what_is_built_is_listed() {
        let command = Cli::command();
        let names: Vec<_> = command.get_subcommands().map(clap::Command::get_name).collect();
        assert_eq!(
            names,
            [
                "run",
                "validate",
                "check",
                "discover",
                "schema",
                "status",
                "sync-points",
                "demo"
            ]
        );
    }
}
