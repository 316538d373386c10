//! `aperio run`: materializes until it is stopped, or with `--once` up to the ends that the topics have now.

use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytesize::ByteSize;
use indicatif::MultiProgress;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use uuid::Uuid;

use super::logs::{self, LogFormat};
use super::output::{OutputFormat, complain, counted, grouped, say, say_json};
use super::progress::Bars;
use super::{Refused, block_on};
use crate::config::{self, Pipeline};
use crate::error::{Exit, Failure};
use crate::memory::{LIMIT_DEFAULT, Memory};
use crate::observe::metrics::Metrics;
use crate::observe::{Observed, Table, server};
use crate::resident::resident;
use crate::shell::report::{Counters, MemoryReport, RunReport, TableOutcome, TableReport};
use crate::shell::{self, RunOptions};
use crate::units::Millis;

/// Where a service serves its metrics.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// What is logged where nothing else is seen.
const LOG_FILTER: &str = "info";

/// What is logged beside progress bars: problems, and what the target `aperio::notice` marks as worth an interruption.
const LOG_FILTER_WITH_BARS: &str = "warn,aperio::notice=info";

/// The arguments of `aperio run`.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// Pipeline files, or directories with them
    #[arg(required = true, value_name = "FILE_OR_DIR")]
    files: Vec<PathBuf>,
    /// End when the tables reach the ends that the topics have now
    #[arg(long)]
    once: bool,
    /// Only this table; may be repeated
    #[arg(long = "table", value_name = "NAME")]
    tables: Vec<String>,
    /// The most memory for the whole process [default: 512MiB, or 64MiB and 8MiB for each table where that is more]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<ByteSize>,
    /// Threads per table that decode and encode, at most; more than one work only while they are behind [default: the cores but one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    lines: Option<u16>,
    /// How long something remote may be down before the run gives up
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = span)]
    retry_for: Millis,
    /// Where /metrics, /health/live, /health/ready and /status are served; --once serves them only with this [default of a
    /// service: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// The report on standard output at the end
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
    /// Log lines, also on a terminal, where otherwise progress bars are shown
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
}

pub(super) fn run(args: RunArgs) -> Result<u8, Refused> {
    let started = Instant::now();
    let id = Uuid::now_v7();
    let loaded = config::load(&args.files)
        .map_err(Refused::from)
        .and_then(|pipelines| chosen(pipelines, &args.tables).map_err(Refused::from))
        .and_then(|pipelines| held(pipelines, args.memory).map_err(Refused::from));
    let tables = loaded.as_ref().map_or(1, Vec::len);
    let memory = Memory::new(
        args.memory
            .map_or_else(|| Memory::default_for(tables), |set| set.as_u64()),
    );
    let pipelines = match loaded {
        Ok(pipelines) => pipelines,
        Err(refused) => {
            // A script that reads the report gets one also then; what is wrong is told on standard error.
            if args.output == OutputFormat::Json {
                say_json(&report(id, Vec::new(), Exit::Config as u8, started, &memory));
            }
            return Err(refused);
        }
    };
    let bars = (args.log_format.is_none() && std::io::stderr().is_terminal()).then(MultiProgress::new);
    let filter = if bars.is_some() {
        LOG_FILTER_WITH_BARS
    } else {
        LOG_FILTER
    };
    logs::start(args.log_format.unwrap_or(LogFormat::Text), filter, bars.clone());
    // Each table has a dozen of them, and shells give a process 1,024; what may not be raised stays as it is.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    if args.memory.is_none() && memory.limit() > LIMIT_DEFAULT {
        let limit = ByteSize::b(memory.limit());
        tracing::info!(
            tables,
            "`--memory` isn't set: {limit}, since these tables don't fit into less"
        );
    }
    let listen = args.listen.or((!args.once).then_some(LISTEN_DEFAULT));
    let options = RunOptions {
        run: id,
        once: args.once,
        memory: memory.clone(),
        lines: args.lines.map_or_else(default_lines, usize::from),
        retry_for: args.retry_for,
        observed: listen.is_some(),
    };
    let (tables, stopped_by) = block_on(until_done(pipelines, options, listen, bars))??;
    let code = exit_code(&tables, args.once, stopped_by);
    for table in &tables {
        tell_failure(table, tables.len());
    }
    match args.output {
        OutputFormat::Text => tables.iter().for_each(|table| say(&summary(table))),
        OutputFormat::Json => say_json(&report(id, tables, code, started, &memory)),
    }
    Ok(code)
}

/// A signal that asks for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopSignal {
    Interrupt,
    Terminate,
}

impl StopSignal {
    /// The exit code of a process that the signal ended before its work was done: 128 and the signal's number.
    fn code(self) -> u8 {
        match self {
            StopSignal::Interrupt => 130,
            StopSignal::Terminate => 143,
        }
    }
}

/// Runs the pipelines to their end, with bars and signals.
async fn until_done(
    pipelines: Vec<Pipeline>,
    options: RunOptions,
    listen: Option<SocketAddr>,
    bars: Option<MultiProgress>,
) -> Result<(Vec<TableReport>, Option<StopSignal>), Failure> {
    let observed = observe(&pipelines, &options);
    let counters = observed
        .tables
        .iter()
        .map(|table| Arc::new(Counters::of(Arc::clone(table))));
    let counters: Vec<_> = counters.collect();
    if let Some(address) = listen
        && let Err(error) = server::start(address, Arc::clone(&observed)).await
    {
        tracing::warn!(%address, %error, "metrics and health can't be served there; going on without: `--listen` names another address");
    }
    let names: Vec<_> = pipelines.iter().map(Pipeline::full_name).collect();
    let bars = bars.map(|all| Bars::new(all, &names, &counters));
    let (stop, stopping) = watch::channel(false);
    let refused = |error: std::io::Error| {
        Failure::new(Exit::Remote, "the operating system lets no signals be awaited").detail(error.to_string())
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
    let mut stopped_by = None;
    let work = shell::run_all(pipelines, options, counters, stopping);
    tokio::pin!(work);
    let drawing = async {
        match &bars {
            Some(bars) => bars.draw().await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(drawing);
    // Ends with the work: a signal only asks it to end, a second one doesn't wait for it.
    let tables = loop {
        let asked = tokio::select! {
            tables = &mut work => break tables,
            () = &mut drawing => continue,
            Some(()) = interrupt.recv() => StopSignal::Interrupt,
            Some(()) = terminate.recv() => StopSignal::Terminate,
        };
        if stopped_by.is_some() {
            // Safe at any moment: whole commits only are in the table.
            std::process::exit(i32::from(asked.code()));
        }
        tracing::info!(signal = ?asked, "stopping: the window under way is finished or dropped");
        stopped_by = Some(asked);
        // No receiver is left only where the work has just ended.
        let _ = stop.send(true);
    };
    if let Some(bars) = &bars {
        bars.clear();
    }
    Ok((tables, stopped_by))
}

/// Makes what others may see of the run.
fn observe(pipelines: &[Pipeline], options: &RunOptions) -> Arc<Observed> {
    let metrics = Metrics::new();
    let tables = pipelines.iter().map(|pipeline| Table::new(&metrics, pipeline));
    Arc::new(Observed {
        run: options.run.simple().to_string(),
        tables: tables.collect(),
        metrics,
        memory: options.memory.clone(),
        started: Instant::now(),
    })
}

/// The smallest non-zero code of the tables; where none failed, the signal's if `--once` was stopped before its end.
fn exit_code(tables: &[TableReport], once: bool, stopped_by: Option<StopSignal>) -> u8 {
    let failed = tables.iter().filter(|table| table.outcome == TableOutcome::Failed);
    if let Some(code) = failed.map(|table| table.exit_code.max(Exit::Bug as u8)).min() {
        return code;
    }
    let cut = tables.iter().any(|table| table.outcome == TableOutcome::Stopped);
    match stopped_by {
        Some(signal) if once && cut => signal.code(),
        _ => Exit::Done as u8,
    }
}

/// Keeps the tables that `--table` names; all, where it names none.
pub(super) fn chosen(pipelines: Vec<Pipeline>, names: &[String]) -> Result<Vec<Pipeline>, Failure> {
    let called = |pipeline: &Pipeline, name: &String| *name == pipeline.name || *name == pipeline.full_name();
    for name in names {
        if !pipelines.iter().any(|pipeline| called(pipeline, name)) {
            let known: Vec<_> = pipelines
                .iter()
                .map(|pipeline| format!("`{}`", pipeline.name))
                .collect();
            return Err(Failure::new(Exit::Config, format!("no table is named `{name}`"))
                .detail(format!("the files declare {}", known.join(", ")))
                .hint("mend `--table`"));
        }
    }
    let named = |pipeline: &Pipeline| names.is_empty() || names.iter().any(|name| called(pipeline, name));
    Ok(pipelines.into_iter().filter(named).collect())
}

/// Refuses a limit that so many tables can't be held to.
fn held(pipelines: Vec<Pipeline>, limit: Option<ByteSize>) -> Result<Vec<Pipeline>, Failure> {
    let Some(limit) = limit else { return Ok(pipelines) };
    let (least, tables) = (Memory::least_for(pipelines.len()), pipelines.len());
    if limit.as_u64() >= least {
        return Ok(pipelines);
    }
    let tables = if tables == 1 {
        "a table".to_owned()
    } else {
        format!("{tables} tables")
    };
    Err(
        Failure::new(Exit::Config, format!("`--memory {limit}` is too little for {tables}"))
            .detail(format!("it takes {} at least", ByteSize::b(least)))
            .hint("give it more; or run the tables in several processes, each with a `--table` of its own"),
    )
}

fn tell_failure(table: &TableReport, tables: usize) {
    let Some(error) = &table.error else { return };
    if tables > 1 {
        complain(&format!("table `{}` failed:", table.table));
    }
    complain(error);
}

fn report(id: Uuid, tables: Vec<TableReport>, exit_code: u8, started: Instant, memory: &Memory) -> RunReport {
    let peak_resident = resident().map(|resident| resident.peak);
    RunReport {
        run: id.simple().to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        exit_code,
        millis: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        memory: MemoryReport::new(memory, peak_resident),
        tables,
    }
}

/// What one table of a run came to, in one line.
pub(super) fn summary(table: &TableReport) -> String {
    let outcome = match table.outcome {
        TableOutcome::Done if table.windows.is_empty() => "nothing new",
        TableOutcome::Done => "done",
        TableOutcome::Stopped => "stopped",
        TableOutcome::Failed => "failed",
    };
    let mut text = format!("{}: {outcome}", table.table);
    if !table.windows.is_empty() {
        text.push_str(&format!(
            ", {} in {}",
            counted(table.rows_written, "row"),
            counted(table.windows.len() as u64, "window")
        ));
    }
    for (count, what) in [
        (table.rejected, "rejected"),
        (table.filtered, "filtered"),
        (table.resent, "sent again"),
        (table.late, "late"),
        (table.fields_dropped, "fields dropped"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {} {what}", grouped(count)));
        }
    }
    if table.bytes_written > 0 {
        let bytes = ByteSize::b(table.bytes_written);
        text.push_str(&format!(", {bytes} in {}", counted(table.files_written, "file")));
    }
    if let Some(lag) = table.lag {
        text.push_str(&format!(", lag {}", grouped(lag)));
    }
    text.push_str(&format!(", {:.1} s", table.millis as f64 / 1000.0));
    text
}

/// One line for each core, and a core for the Kafka thread and the uploads.
fn default_lines() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    cores.saturating_sub(1).max(1)
}

fn size(text: &str) -> Result<ByteSize, String> {
    let unit_missing = !text.ends_with(|last: char| last.is_ascii_alphabetic());
    let size = text
        .parse::<ByteSize>()
        .ok()
        .filter(|size| !unit_missing && size.as_u64() > 0);
    size.ok_or_else(|| "write a number and its unit, like `512MiB`".to_owned())
}

pub(super) fn span(text: &str) -> Result<Millis, String> {
    humantime::parse_duration(text)
        .map(Millis::from)
        .map_err(|_| "write a number and its unit, like `60s` or `5 minutes`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(outcome: TableOutcome, exit_code: u8) -> TableReport {
        TableReport {
            outcome,
            exit_code,
            millis: 1_234,
            lag: Some(0),
            ..TableReport::new("default.events".into())
        }
    }

    #[test]
    fn the_smallest_failure_wins_and_only_a_cut_once_run_tells_its_signal() {
        use StopSignal::{Interrupt, Terminate};
        use TableOutcome::{Done, Failed, Stopped};
        let check = |tables: &[(TableOutcome, u8)], once, signal, expect| {
            let tables: Vec<_> = tables.iter().map(|(outcome, code)| table(*outcome, *code)).collect();
            assert_eq!(exit_code(&tables, once, signal), expect, "{tables:?}");
        };
        check(&[(Done, 0)], true, None, 0);
        check(&[(Done, 0), (Failed, 4), (Failed, 3)], true, None, 3);
        check(&[(Stopped, 0)], true, Some(Terminate), 143);
        check(&[(Stopped, 0)], true, Some(Interrupt), 130);
        check(&[(Stopped, 0)], false, Some(Terminate), 0);
        check(&[(Done, 0)], true, Some(Terminate), 0);
        check(&[(Stopped, 0), (Failed, 4)], true, Some(Terminate), 4);
        check(&[(Failed, 0)], true, None, 1);
    }

    #[test]
    fn sizes_and_times_need_their_unit() {
        assert_eq!(size("512MiB"), Ok(ByteSize::mib(512)));
        assert!(size("512").is_err());
        assert!(size("0MiB").is_err());
        assert_eq!(span("60s"), Ok(Millis(60_000)));
        assert!(span("60").is_err());
    }

    #[test]
    fn a_summary_is_one_line_without_what_is_zero() {
        assert_eq!(
            summary(&table(TableOutcome::Done, 0)),
            "default.events: nothing new, lag 0, 1.2 s"
        );
    }
}
