//! The lines of a pipeline: one thread each, and which of them fill a window.
//!
//! One line makes the fewest files, so more than one fill a window only while they are what reading waits for. A line has all
//! chunks that a Kafka partition brings into a window, so their order stays; and it gets its seal after them, by the same
//! channel, so a seal can't overtake a chunk.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc;

use tokio::sync::mpsc::UnboundedSender;

use crate::chunk::Chunk;
use crate::line::{Line, LineError, LinePlan, LineSettings, Order, Reply, SinkMaker};
use crate::offsets::Partition;
use crate::table::WindowId;

/// The lines.
pub(super) struct Lines {
    orders: Vec<mpsc::Sender<Order>>,
    windows: HashMap<WindowId, Routes>,
}

/// Who fills a window.
#[derive(Debug)]
struct Routes {
    /// How many lines may take part.
    lines: usize,
    /// The line of each Kafka partition, from its first chunk in the window on; dealt out in turn.
    of: BTreeMap<Partition, usize>,
}

impl Routes {
    fn line_of(&mut self, partition: Partition) -> usize {
        let next = self.of.len() % self.lines;
        *self.of.entry(partition).or_insert(next)
    }

    /// The lines that have a part in the window: the first so many.
    fn taking_part(&self) -> usize {
        self.of.len().min(self.lines).max(1)
    }
}

impl Lines {
    /// Starts `count` lines, at least one; they answer by `replies`.
    ///
    /// # Errors
    /// [`LineError::Place`] if the plan's spec doesn't fit its rows, [`LineError::Thread`] if there is no thread for one.
    pub(super) fn start(
        count: usize,
        settings: &LineSettings,
        plan: &LinePlan,
        sinks: impl Fn() -> SinkMaker,
        replies: &UnboundedSender<Reply>,
    ) -> Result<Lines, LineError> {
        let mut orders = Vec::with_capacity(count);
        for number in 0..count.max(1) {
            let settings = LineSettings {
                number,
                ..settings.clone()
            };
            let line = Line::new(settings, plan.clone(), sinks())?;
            let (sender, inbox) = mpsc::channel();
            let outbox = replies.clone();
            std::thread::Builder::new()
                .name(format!("line-{number}"))
                .spawn(move || {
                    // A conductor that is gone wants no answers.
                    line.work(inbox, |reply| drop(outbox.send(reply)));
                })
                .map_err(LineError::Thread)?;
            orders.push(sender);
        }
        Ok(Lines {
            orders,
            windows: HashMap::new(),
        })
    }

    /// Hands a chunk to the line of its Kafka partition.
    ///
    /// - `behind`: whether the lines are what reading waits for; what counts is how it is when the window begins.
    pub(super) fn take(&mut self, window: WindowId, chunk: Chunk, ticket: Box<dyn Send>, behind: bool) {
        let routes = self.windows.entry(window).or_insert_with(|| Routes {
            lines: if behind { self.orders.len() } else { 1 },
            of: BTreeMap::new(),
        });
        let line = routes.line_of(chunk.partition);
        self.order(line, Order::Take { window, chunk, ticket });
    }

    /// Has the lines that took part complete their files of a window; returns how many will answer.
    pub(super) fn seal(&mut self, window: WindowId) -> usize {
        let count = self.windows.remove(&window).map_or(1, |routes| routes.taking_part());
        (0..count).for_each(|line| self.order(line, Order::Seal(window)));
        count
    }

    /// Has all lines forget a window.
    pub(super) fn forget(&mut self, window: WindowId) {
        self.windows.remove(&window);
        (0..self.orders.len()).for_each(|line| self.order(line, Order::Drop(window)));
    }

    /// Has every line make its next window by this plan.
    pub(super) fn plan(&self, plan: &LinePlan) {
        for line in 0..self.orders.len() {
            self.order(line, Order::Plan(Box::new(plan.clone())));
        }
    }

    fn order(&self, line: usize, order: Order) {
        // A line that is gone has said why: `Reply::Failed` is on its way.
        let _ = self.orders[line].send(order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_keeps_its_line_and_lines_are_dealt_out_in_turn() {
        let mut routes = Routes {
            lines: 3,
            of: BTreeMap::new(),
        };
        assert_eq!(routes.taking_part(), 1, "an empty window has one part");
        let dealt: Vec<usize> = [8, 2, 8, 4, 6, 2]
            .map(|partition| routes.line_of(Partition(partition)))
            .into();
        assert_eq!(dealt, [0, 1, 0, 2, 0, 1]);
        assert_eq!(routes.taking_part(), 3);
        let mut one = Routes {
            lines: 1,
            of: BTreeMap::new(),
        };
        assert_eq!([5, 6, 7].map(|partition| one.line_of(Partition(partition))), [0; 3]);
        assert_eq!(one.taking_part(), 1);
    }
}
