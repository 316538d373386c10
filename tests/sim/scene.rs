//! Processes on one pipeline, their consumer group, and the world, step by step.

use std::collections::BTreeMap;

use aperio::error::{Exit, Failure};
use aperio::offsets::Partition;
use aperio::run::Outcome;

use crate::process::{Fault, INJECTED, Order, Process, Start, Stepped};
use crate::world::{PipelineFile, World};

/// Records of one fetch.
const CHUNK: i64 = 3;

/// More steps than any play needs once nothing is in its way any more; reaching it means that a run wedged.
const STEPS_TO_END_MAX: u32 = 6_000;

/// Starts processes that take turns, with one pipeline file and the other.
pub fn in_turn(process: u128) -> (Order, PipelineFile) {
    (Order::Turns(0), PipelineFile::in_turn(process))
}

pub struct Scene {
    pub world: World,
    pub processes: Vec<Option<Process>>,
    /// Each process is alone in a group of its own, and all read everything.
    apart: bool,
    owners: BTreeMap<Partition, usize>,
    /// Partitions that are on their way from one member to another.
    moving: BTreeMap<Partition, usize>,
    started: u128,
    batch_size: u64,
    /// What the next process is started with.
    launch: Box<dyn FnMut(u128) -> (Order, PipelineFile)>,
    traced: bool,
    /// Ended because the table's history doesn't tell the offsets.
    pub gave_up: u32,
    /// Ended because others overtook them again and again.
    pub gave_way: u32,
    /// How often processes that have ended had dropped windows.
    pub drops: u32,
    /// A process hangs, so that others may end by a deadline; nobody starts them again.
    pub hung: bool,
    /// What those ended with.
    pub failures: Vec<Failure>,
    pub trace: Vec<String>,
}

impl Scene {
    /// - `launch`: what the process of that number is started with.
    pub fn new(
        world: World,
        apart: bool,
        batch_size: u64,
        traced: bool,
        launch: Box<dyn FnMut(u128) -> (Order, PipelineFile)>,
    ) -> Self {
        Scene {
            world,
            processes: Vec::new(),
            apart,
            owners: BTreeMap::new(),
            moving: BTreeMap::new(),
            started: 0,
            batch_size,
            launch,
            traced,
            gave_up: 0,
            gave_way: 0,
            drops: 0,
            hung: false,
            failures: Vec::new(),
            trace: Vec::new(),
        }
    }

    fn launch(&mut self, once: bool) -> Process {
        self.started += 1;
        let (order, file) = (self.launch)(self.started);
        let start = Start {
            id: self.started,
            once,
            batch_size: self.batch_size,
            chunk: CHUNK,
            order,
            file,
            traced: self.traced,
        };
        Process::start(&self.world, start)
    }

    /// Starts one more process.
    pub fn add(&mut self, once: bool) {
        let process = self.launch(once);
        self.processes.push(Some(process));
    }

    /// Lets process `at` do one thing; one that ended otherwise than done is started again. Returns whether there is one.
    ///
    /// - `sent`: whether a request of a process that dies had left it.
    pub fn step(
        &mut self,
        at: usize,
        fault: &mut dyn FnMut() -> Option<Fault>,
        sent: &mut dyn FnMut() -> bool,
    ) -> bool {
        self.balance();
        let Some(process) = &mut self.processes[at] else {
            return false;
        };
        let stepped = process.step(&mut self.world, fault);
        self.world.check();
        if let Some(trace) = &mut process.trace {
            self.trace.append(trace);
        }
        if stepped == Stepped::Alive {
            return true;
        }
        let process = self.processes[at].take().expect("it has just stepped");
        let once = process.once;
        self.drops += process.drops;
        self.owners.retain(|_, owner| *owner != at);
        self.moving.retain(|partition, _| self.owners.contains_key(partition));
        process.die(&mut self.world, sent);
        match stepped {
            Stepped::Finished(Outcome::Done | Outcome::Stopped) => {}
            Stepped::Finished(Outcome::Failed(failure)) if self.hung => self.failures.push(failure),
            Stepped::Finished(Outcome::Failed(failure))
                // Ends of a log that was cut meanwhile are never reached.
                if failure.exit == Exit::Remote
                    && !failure.what.starts_with(INJECTED)
                    && self.world.truncations == 0 =>
            {
                panic!("nobody hangs, and yet a run has waited for too long: {failure:?}");
            }
            Stepped::Finished(Outcome::Failed(failure)) if failure.exit == Exit::Data => {
                // The program says that it can't know the offsets: only true where others cut the table's history.
                assert!(
                    self.world.act_of_others(),
                    "nothing was done to the table, and yet: {failure:?}"
                );
                self.gave_up += 1;
                if self.world.problem().is_some() {
                    self.trace.push("* the table is mended".into());
                    self.world.mend();
                    self.world.check();
                }
                self.world.go_back_to_the_log();
                self.world.check();
                self.processes[at] = Some(self.launch(once));
            }
            // Cron or Kubernetes starts it again.
            ended => {
                let gave_way = matches!(&ended, Stepped::Finished(Outcome::Failed(why)) if why.exit == Exit::Overtaken);
                self.gave_way += u32::from(gave_way);
                self.processes[at] = Some(self.launch(once));
            }
        }
        true
    }

    /// What the group's coordinator does: partitions without an owner go to the member that has fewest.
    fn balance(&mut self) {
        for (at, process) in self.processes.iter_mut().enumerate() {
            let Some(process) = process else { continue };
            for partition in std::mem::take(&mut process.released) {
                // Where it was lost, somebody has it already.
                if self.owners.get(&partition) == Some(&at) {
                    self.owners.remove(&partition);
                }
            }
        }
        if self.apart {
            for process in self.processes.iter_mut().flatten().filter(|process| process.joined) {
                let new: Vec<_> = self.world.log.keys().copied().filter(|p| !process.knows(*p)).collect();
                if !new.is_empty() && !process.is_leaving() {
                    process.assign(new);
                }
            }
            return;
        }
        let free: Vec<_> = self
            .world
            .log
            .keys()
            .copied()
            .filter(|p| !self.owners.contains_key(p))
            .collect();
        for partition in free {
            let wished = self.moving.remove(&partition).filter(|at| self.member(*at));
            let Some(to) = wished.or_else(|| self.least_loaded()) else {
                continue;
            };
            self.give(partition, to);
        }
    }

    fn give(&mut self, partition: Partition, to: usize) {
        if let Some(process) = &mut self.processes[to] {
            self.owners.insert(partition, to);
            process.assign(vec![partition]);
        }
    }

    /// Whether this process can be given partitions: not while it still has to let go of some.
    fn member(&self, at: usize) -> bool {
        let process = self.processes[at].as_ref();
        process.is_some_and(|process| process.joined && !process.is_leaving())
    }

    fn least_loaded(&self) -> Option<usize> {
        let load = |at: &usize| self.owners.values().filter(|owner| *owner == at).count();
        (0..self.processes.len()).filter(|at| self.member(*at)).min_by_key(load)
    }

    /// Moves a partition to another member: given up in peace, or lost while its owner doesn't know it yet (a zombie).
    pub fn rebalance(&mut self, partition: Partition, to: usize, lost: bool) {
        if self.apart {
            if let Some(process) = &mut self.processes[to]
                && process.knows(partition)
                && !process.is_leaving()
            {
                process.revoke(vec![partition], lost);
            }
            return;
        }
        let Some(from) = self.owners.get(&partition).copied() else {
            return;
        };
        if from == to || !self.member(to) {
            return;
        }
        let Some(process) = &mut self.processes[from] else {
            return;
        };
        if process.is_leaving() {
            return;
        }
        process.revoke(vec![partition], lost);
        if lost {
            self.give(partition, to);
        } else {
            self.moving.insert(partition, to);
        }
    }

    /// Asks a process to stop.
    pub fn stop(&mut self, at: usize) {
        if let Some(process) = &mut self.processes[at] {
            process.stop();
        }
    }

    /// Everything that is under way arrives, every process ends, and one more that nobody disturbs does the rest.
    pub fn end(&mut self) {
        for steps in 0.. {
            assert!(
                steps < STEPS_TO_END_MAX,
                "no end after {STEPS_TO_END_MAX} steps without faults; the table is at {:?} of {:?}",
                self.world.ledger(),
                self.world.ends()
            );
            while !self.world.in_transit.is_empty() {
                self.world.arrive(0);
                self.world.check();
            }
            if self.processes.iter().all(Option::is_none) {
                break;
            }
            for at in 0..self.processes.len() {
                self.step(at, &mut || None, &mut || true);
                let reached = self.world.ledger().reaches(&self.world.ends());
                if reached && self.processes[at].as_ref().is_some_and(|process| !process.once) {
                    self.stop(at);
                }
            }
        }
        self.add(true);
        let last = self.processes.len() - 1;
        for steps in 0.. {
            assert!(
                steps < STEPS_TO_END_MAX,
                "no end after {STEPS_TO_END_MAX} steps of one process alone"
            );
            if !self.step(last, &mut || None, &mut || true) {
                break;
            }
        }
        self.world.check_complete();
    }
}

/// Ends scenes that share a store and a dead-letter table.
pub fn end(scenes: &mut [Scene]) {
    scenes.iter_mut().for_each(Scene::end);
    // Whatever the others did since.
    scenes.iter_mut().for_each(|scene| scene.world.check_complete());
}

/// What happened, one scene after the other.
pub fn traces(scenes: &[Scene]) -> Vec<String> {
    let last = |scene: &Scene| {
        let processes = scene.processes.iter().flatten();
        processes
            .filter_map(|process| process.trace.clone())
            .flatten()
            .collect()
    };
    scenes
        .iter()
        .flat_map(|scene| [scene.trace.clone(), last(scene)])
        .flatten()
        .collect()
}
