//! A progress bar for each table, on a terminal.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::output::{counted, grouped};
use crate::shell::report::Counters;

/// How often the bars are drawn: often enough to look alive, seldom enough to cost nothing.
const REDRAW_INTERVAL: Duration = Duration::from_millis(200);

/// The bars of a run.
#[derive(Debug)]
pub(super) struct Bars {
    all: MultiProgress,
    tables: Vec<(ProgressBar, Arc<Counters>)>,
}

impl Bars {
    /// Draws a bar for each of the `names`, which `counters` belong to one by one.
    pub fn new(all: MultiProgress, names: &[String], counters: &[Arc<Counters>]) -> Self {
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let tables = names.iter().zip(counters).map(|(name, counters)| {
            let bar = all.add(ProgressBar::new_spinner());
            bar.set_prefix(format!("{name:width$}"));
            bar.set_style(counting_style());
            (bar, Arc::clone(counters))
        });
        Bars {
            tables: tables.collect(),
            all,
        }
    }

    /// Redraws until it is dropped.
    pub async fn draw(&self) {
        let mut tick = tokio::time::interval(REDRAW_INTERVAL);
        // Ends with the run, which races this and drops it.
        loop {
            tick.tick().await;
            self.redraw();
        }
    }

    /// Takes the bars off the terminal, so that the report stands alone.
    pub fn clear(&self) {
        for (bar, _) in &self.tables {
            bar.finish_and_clear();
        }
        let _ = self.all.clear();
    }

    fn redraw(&self) {
        for (bar, counters) in &self.tables {
            let total = counters.position_total.load(Relaxed);
            let read = counters.records_read.load(Relaxed);
            // What was read counts, not what was committed only: a large window would stand at 0 % until its end. Markers
            // and aborted records have offsets and aren't read, so that the commits may be ahead.
            let position = read.max(counters.position_done.load(Relaxed));
            if total > 0 && position > 0 {
                if bar.length() != Some(total) {
                    bar.set_length(total);
                    // Rate and time left count from here: the group took its time to form.
                    bar.reset_eta();
                    bar.set_style(towards_end_style());
                }
                bar.set_position(position.min(total));
            } else {
                bar.set_position(read);
            }
            bar.set_message(message(counters));
            bar.tick();
        }
    }
}

fn message(counters: &Counters) -> String {
    let mut text = format!(
        "{} in {}",
        counted(counters.rows_written.load(Relaxed), "row"),
        counted(counters.commits.load(Relaxed), "commit")
    );
    let rejected = counters.rejected.load(Relaxed);
    if rejected > 0 {
        text.push_str(&format!(", {} rejected", grouped(rejected)));
    }
    text
}

/// The style of a run that knows its end.
fn towards_end_style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} [{bar:24}] {percent:>3} %  {rate}, {eta} left  {msg}")
        .expect("the template is a constant and right")
        .with_key("rate", rate)
        .progress_chars("=> ")
}

/// The style of a run that has no end, or doesn't know it yet.
fn counting_style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} {spinner} {human_pos} records  {rate}  {msg}")
        .expect("the template is a constant and right")
        .with_key("rate", rate)
}

/// Writes the records per second, whole.
fn rate(state: &ProgressState, to: &mut dyn Write) {
    // A bar is best left as it is when its text can't be written.
    let _ = write!(to, "{}/s", grouped(state.per_sec() as u64));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_styles_are_right() {
        towards_end_style();
        counting_style();
    }
}
