//! Windows whose files the store doesn't take: their records are read again, for as long as something remote may fail.

use std::collections::BTreeSet;

use crate::error::Failure;
use crate::run::commit::backoff;
use crate::run::{Action, Outcome, Run};
use crate::table::{TableView, WindowId};
use crate::units::Millis;

/// What is known of windows that could not be written.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// They wait until what comes before them is in the table; then they are dropped, and what comes after them too.
    windows: BTreeSet<WindowId>,
    /// They are dropped as soon as the table was loaded.
    loads: bool,
    /// How many there were since one could be written.
    failures: u32,
    since: Option<Millis>,
}

impl Unwritten {
    /// Says whether a window waits to be dropped: nothing that comes after it can be committed.
    pub(super) fn waits(&self) -> bool {
        !self.windows.is_empty()
    }

    /// Says whether the load under way is the one that they wait for.
    pub(super) fn awaits_view(&self) -> bool {
        self.loads
    }

    /// A window could be written.
    pub(super) fn written(&mut self) {
        (self.failures, self.since) = (0, None);
    }

    /// Returns the windows that wait; they are being dropped.
    pub(super) fn take(&mut self) -> BTreeSet<WindowId> {
        self.loads = false;
        std::mem::take(&mut self.windows)
    }
}

impl Run {
    pub(super) fn window_unwritten(
        &mut self,
        window: WindowId,
        files: Vec<String>,
        since: Millis,
        failure: Failure,
        now: Millis,
    ) {
        let waits = self.sealing.contains_key(&window);
        if !waits && !self.abandoned.remove(&window) {
            return;
        }
        // No attempt ever named its files.
        let windows = vec![window];
        self.actions.push_back(Action::Drop { windows, files });
        if !waits {
            return;
        }
        self.unwritten.windows.insert(window);
        self.unwritten.failures += 1;
        let since = *self.unwritten.since.get_or_insert(since);
        if now.since(since) >= self.config.retry_for {
            self.finish(Outcome::Failed(failure));
        }
    }

    /// Asks for the table, to read again from its offsets, once what comes before the unwritten windows is in it.
    pub(super) fn settle_unwritten(&mut self) {
        let Some(first) = self.unwritten.windows.first() else {
            return;
        };
        let before = |id: Option<&WindowId>| id.is_some_and(|id| id < first);
        if self.commit.is_some() || before(self.sealing.keys().next()) || before(self.sealed.keys().next()) {
            return;
        }
        if self.stop_deadline.is_some() {
            self.drop_windows();
        } else if !self.loading {
            self.unwritten.loads = true;
            self.load(backoff(self.unwritten.failures));
        }
    }

    /// Drops the unwritten windows, and reads again from where the table is.
    pub(super) fn read_again(&mut self, view: TableView) {
        let Some(ledger) = view.ledger else {
            self.other_source(None);
            return;
        };
        self.ledger = Some(ledger.clone());
        self.drop_windows();
        self.see(ledger);
    }
}
