//! The conductor shows how it is, and sees what is past its deadline: a service isn't ready then, a `--once` run ends.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::error::{Exit, Failure};
use crate::observe::Trouble;
use crate::shell::conductor::Conductor;
use crate::units::Millis;

/// How often the state is shown: as fresh as anybody needs it, and nothing beside the work.
const SHOW_PERIOD: Duration = Duration::from_secs(1);

impl Conductor {
    /// The deadlines' time: unlike the wall clock it only goes forward.
    pub(super) fn clock(&self) -> Millis {
        Millis::from(self.born.elapsed())
    }

    /// Notes that time has passed; with `--once`, returns what ends a run that makes no progress.
    pub(super) fn watch(&mut self) -> Option<Failure> {
        let table = &self.counters.table;
        table.stir();
        if self.shown.is_some_and(|at| at.elapsed() < SHOW_PERIOD) {
            return None;
        }
        self.shown = Some(Instant::now());
        let ledger = self.run.ledger();
        table.holds(self.run.assigned(), ledger, self.table.metadata.current_snapshot_id());
        let unreachable = self.unreachable_since.as_ref();
        table.troubled(
            Trouble::Consumer,
            unreachable.map(|(_, error)| format!("Kafka can't be reached: {error}")),
        );
        let held = ledger.map(|ledger| ledger.offsets.clone()).unwrap_or_default();
        if held != self.held {
            self.held = held;
            self.deadlines.moved();
        }
        let ends = if self.once {
            self.run.ends().clone()
        } else {
            table.ends()
        };
        let now = self.clock();
        self.deadlines.look(self.run.look(&ends), now);
        let overdue = self.deadlines.overdue(now);
        let table = &self.counters.table;
        table.troubled(Trouble::Deadline, overdue.map(|overdue| overdue.to_string()));
        match (overdue, self.overdue) {
            (Some(overdue), false) => warn!(table = %self.world.ident, "{overdue}"),
            (None, true) => info!(table = %self.world.ident, "what was past its deadline has come"),
            _ => {}
        }
        self.overdue = overdue.is_some();
        let overdue = overdue.filter(|_| self.once)?;
        let what = format!("the work on table `{}` doesn't go on", self.world.ident);
        let hint = "nothing is lost: the table holds the offsets. Look at the log of this run and of the other instances, \
                    then run again; `--retry-for` and `source.batchWindow` make the limit";
        Some(Failure::new(Exit::Remote, what).detail(overdue.to_string()).hint(hint))
    }
}
