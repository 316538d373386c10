//! What the conductor counts: commits and their windows, for the progress and for the report; how the run ended.

use std::sync::atomic::Ordering;

use iceberg::spec::Summary;
use tracing::info;

use crate::catalog::stage::WINDOW_KEY;
use crate::chunk::Chunk;
use crate::error::Exit;
use crate::line::LineWindow;
use crate::run::{Outcome, Swapped};
use crate::shell::conductor::Conductor;
use crate::shell::now;
use crate::shell::report::{TableOutcome, TableReport, WindowReport};
use crate::table::{TableView, WindowId};
use crate::units::Millis;

impl Conductor {
    pub(super) fn note_commit(&self, view: &TableView, report: &mut TableReport) {
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        report.snapshots.extend(view.snapshot);
        if let (Some(before), Some(after)) = (self.run.ledger(), &view.ledger) {
            let moved: u64 = after
                .offsets
                .iter()
                .map(|(partition, offset)| offset.since(before.offsets.get(partition).unwrap_or(offset)))
                .sum();
            self.counters.position_done.fetch_add(moved, Ordering::Relaxed);
            info!(table = %self.world.ident, snapshot = view.snapshot, offsets = moved, "committed");
        }
    }

    /// Counts the commit of these windows if it isn't yet: its answer was lost, and the table shows it.
    fn note_found(&self, windows: &[WindowId], report: &mut TableReport) {
        let Some(last) = windows.last().map(WindowId::to_string) else {
            return;
        };
        let of_ours = |summary: &Summary| summary.additional_properties.get(WINDOW_KEY) == Some(&last);
        let found = self
            .table
            .metadata
            .snapshots()
            .find(|snapshot| of_ours(snapshot.summary()));
        if let Some(id) = found.map(|snapshot| snapshot.snapshot_id())
            && !report.snapshots.contains(&id)
        {
            self.counters.commits.fetch_add(1, Ordering::Relaxed);
            report.snapshots.push(id);
            info!(table = %self.world.ident, snapshot = id, "committed; the answer had been lost");
        }
    }

    pub(super) fn count_fetched(&self, chunk: &Chunk) {
        let bytes = chunk.keys.value_data().len() + chunk.values.value_data().len();
        let metrics = &self.counters.table.metrics;
        metrics.consumed(chunk.partition, chunk.len() as u64, bytes as u64);
    }

    pub(super) fn count_answer(&self, answer: &Swapped) {
        let metrics = &self.counters.table.metrics;
        match answer {
            Swapped::Committed(_) => {}
            Swapped::Conflict => metrics.commit_conflicts.inc(),
            Swapped::Failed(_) | Swapped::Unknown(_) | Swapped::Rejected(_) => metrics.commit_failures.inc(),
        }
    }

    /// Counts a commit that is in the table, also one whose answer was lost; nothing where only copies are repaired.
    pub(super) fn note_committed(&mut self) {
        self.deadlines.commit_ended();
        if let Some(began) = self.commit_began.take() {
            let metrics = &self.counters.table.metrics;
            metrics.commits.inc();
            metrics.commit_latency.observe(began.elapsed().as_secs_f64());
            metrics.last_commit.set(now().0 as f64 / 1e3);
        }
    }

    /// Counts the windows of a commit that is in the table, and lets go of them; those that were dropped are gone already.
    pub(super) fn count_committed(&mut self, report: &mut TableReport) {
        let committed = std::mem::take(&mut self.committing);
        self.note_found(&committed, report);
        for id in committed {
            let Some((window, reason)) = self.sealed.remove(&id) else {
                continue;
            };
            let tally = window.tally;
            self.counters.rows_written.fetch_add(tally.rows, Ordering::Relaxed);
            self.counters.rejected.fetch_add(tally.rejected, Ordering::Relaxed);
            let metrics = &self.counters.table.metrics;
            metrics.rejected.inc_by(tally.rejected);
            metrics.files.inc_by(window.files.len() as u64);
            metrics.bytes.inc_by(bytes(&window));
            report.records_read += tally.records;
            report.rows_written += tally.rows;
            report.rejected += tally.rejected;
            report.filtered += tally.filtered;
            report.fields_dropped += window.fields_dropped;
            report.resent += window.resent;
            metrics.resent.inc_by(window.resent);
            report.bytes_written += bytes(&window);
            report.files_written += window.files.len() as u64;
            report.windows.push(WindowReport {
                id: id.to_string(),
                reason: reason.to_string(),
                records: tally.records,
                rows: tally.rows,
                rejected: tally.rejected,
            });
        }
    }
}

pub(in crate::shell) fn close(report: &mut TableReport, outcome: &Outcome, millis: Millis) {
    (report.outcome, report.exit_code, report.error) = match outcome {
        Outcome::Done => (TableOutcome::Done, Exit::Done as u8, None),
        Outcome::Stopped => (TableOutcome::Stopped, Exit::Done as u8, None),
        Outcome::Failed(failure) => (TableOutcome::Failed, failure.exit as u8, Some(failure.to_string())),
    };
    report.millis = millis.0.unsigned_abs();
}

pub(super) fn bytes(window: &LineWindow) -> u64 {
    window.files.iter().map(|file| file.file.file_size_in_bytes()).sum()
}
