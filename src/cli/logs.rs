//! Logs: to standard error, around the progress bars where there are any.

mod repeats;

use std::io::{self, IsTerminal, Write};

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::repeats::Repeats;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging; `RUST_LOG` says what, else `default_filter`.
///
/// - `bars`: the progress bars that lines must not run into, if there are any.
pub(super) fn start(format: LogFormat, default_filter: &str, bars: Option<MultiProgress>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_filter));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Lines { bars });
    // An error means that logs were started before, which is no harm.
    let _ = match format {
        LogFormat::Text => lines
            .with_ansi(io::stderr().is_terminal())
            .finish()
            .with(Repeats::default())
            .try_init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .finish()
            .with(Repeats::default())
            .try_init(),
    };
}

/// Makes a writer for each line.
struct Lines {
    bars: Option<MultiProgress>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line {
            bars: self.bars.clone(),
        }
    }
}

/// Writes one line; tracing hands it over in one piece.
struct Line {
    bars: Option<MultiProgress>,
}

impl Write for Line {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let write = || io::stderr().lock().write_all(text);
        match &self.bars {
            Some(bars) => bars.suspend(write)?,
            None => write()?,
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
