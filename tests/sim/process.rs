//! One process: a [`Run`] and the shell's part, with a fault at any of its actions.

use std::collections::{BTreeMap, VecDeque};

use aperio::offsets::{Offset, OffsetRange, OffsetRanges, Offsets, Partition};
use aperio::run::window::RejectLimit;
use aperio::run::{Action, Event, Outcome, Run, RunConfig, Swapped};
use aperio::table::{SealedWindow, Tally, WindowFile, WindowId};
use aperio::units::Millis;
use iceberg::spec::{DataContentType, DataFileBuilder, DataFileFormat, Struct};
use uuid::Uuid;

use crate::world::{Entry, World, source};

/// What goes wrong at one action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails before it can have an effect, and says so.
    NotSent,
    /// It fails, and nothing happened.
    FailsBefore,
    /// It happens, and the answer is lost.
    AnswerLost,
    /// The process dies before it.
    CrashBefore,
    /// The process dies right after it.
    CrashAfter,
    /// The answer is a timeout, and it happens later.
    Late,
    /// It happens twice.
    Twice,
}

pub const FAULTS: [Fault; 7] = [
    Fault::NotSent,
    Fault::FailsBefore,
    Fault::AnswerLost,
    Fault::CrashBefore,
    Fault::CrashAfter,
    Fault::Late,
    Fault::Twice,
];

#[derive(Debug, PartialEq, Eq)]
pub enum Stepped {
    Alive,
    Crashed,
    Finished(Outcome),
}

#[derive(Default)]
struct Window {
    rows: Vec<(Partition, Offset)>,
    rejects: Vec<(Partition, Offset)>,
    tally: Tally,
}

pub struct Process {
    run: Run,
    id: Uuid,
    actions: VecDeque<Action>,
    windows: BTreeMap<WindowId, Window>,
    reading: BTreeMap<Partition, Offset>,
    epoch: u64,
    paused: bool,
    now: Millis,
    files: u32,
    pub members: Vec<Partition>,
    chunk: i64,
    pub trace: Vec<String>,
}

impl Process {
    pub fn start(world: &World, id: u128, once: bool) -> Self {
        let id = Uuid::from_u128(id);
        let config = RunConfig {
            run: id,
            once,
            batch_size: 8,
            batch_window: Millis(60_000),
            retry_for: Millis(600_000),
            grace: Millis(10_000),
            source: source(),
            reject_limit: RejectLimit::Count(u64::MAX),
        };
        let mut process = Process {
            run: Run::new(config),
            id,
            actions: VecDeque::new(),
            windows: BTreeMap::new(),
            reading: BTreeMap::new(),
            epoch: 0,
            paused: false,
            now: world.now,
            files: 0,
            members: world.log.keys().copied().collect(),
            chunk: 3,
            trace: Vec::new(),
        };
        let ends = if once { world.ends() } else { Offsets::default() };
        process.tell(Event::Opened {
            view: world.view(),
            partitions: world.log.keys().copied().collect(),
            ends,
        });
        process
    }

    pub fn tell(&mut self, event: Event) {
        self.trace.push(format!("{event:?}"));
        let actions = self.run.on(event, self.now);
        self.trace
            .extend(actions.iter().map(|action| format!("    {action:?}")));
        self.actions.extend(actions);
    }

    /// Does the next thing there is to do: an action, else a fetch, else let time pass.
    pub fn step(&mut self, world: &mut World, fault: Option<Fault>) -> Stepped {
        world.now = world.now.max(self.now);
        let Some(action) = self.actions.pop_front() else {
            if !self.fetch(world) {
                self.now = self.now.after(Millis(1_500));
                self.tell(Event::Tick);
            }
            return Stepped::Alive;
        };
        if fault == Some(Fault::CrashBefore) {
            return Stepped::Crashed;
        }
        let stepped = self.perform(action, world, fault);
        if fault == Some(Fault::CrashAfter) && stepped == Stepped::Alive {
            Stepped::Crashed
        } else {
            stepped
        }
    }

    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Every action is matched, so that one that no fault covers doesn't compile.
    fn perform(&mut self, action: Action, world: &mut World, fault: Option<Fault>) -> Stepped {
        let fails = matches!(fault, Some(Fault::FailsBefore | Fault::NotSent));
        let lost = matches!(fault, Some(Fault::AnswerLost | Fault::Late));
        let answer = |ok: bool| if ok { Ok(()) } else { Err("injected".to_owned()) };
        match action {
            Action::ResolveStart { .. } if fails || lost => self.actions.push_front(action),
            Action::ResolveStart { partitions, .. } => {
                let starts = partitions
                    .into_iter()
                    .map(|partition| (partition, Offset::ZERO))
                    .collect();
                self.tell(Event::StartResolved(starts));
            }
            Action::Join => self.tell(Event::Assigned(self.members.clone())),
            Action::Read { epoch, offsets } => {
                if epoch != self.epoch {
                    self.reading.clear();
                }
                self.epoch = epoch;
                self.reading.extend(offsets);
            }
            Action::Take(_) | Action::Discard => unreachable!("answered where the chunk is at hand"),
            Action::Seal { window, ranges, .. } => self.seal(window, ranges, world),
            Action::Prepare { windows, after } => {
                self.now = self.now.after(after);
                if !fails {
                    for window in windows {
                        world.dead_letters.extend(
                            self.windows
                                .get(&window)
                                .iter()
                                .flat_map(|held| held.rejects.iter().copied()),
                        );
                    }
                }
                self.tell(Event::Prepared(answer(!fails && !lost)));
            }
            Action::Load { after } => {
                self.now = self.now.after(after);
                let view = if fails || lost {
                    Err("injected".to_owned())
                } else {
                    Ok(world.view())
                };
                self.tell(Event::Loaded(view));
            }
            Action::Swap(plan) => {
                let swapped = match fault {
                    Some(Fault::NotSent) => Swapped::Failed("injected".into()),
                    Some(Fault::FailsBefore) => Swapped::Unknown("nothing happened, nobody knows".into()),
                    Some(Fault::Late) => {
                        world.in_transit.push(*plan);
                        Swapped::Unknown("it is still under way".into())
                    }
                    Some(Fault::AnswerLost) => {
                        let _ = world.swap(&plan);
                        Swapped::Unknown("the answer was lost".into())
                    }
                    Some(Fault::Twice) => {
                        let first = world.swap(&plan);
                        let _ = world.swap(&plan);
                        first
                    }
                    Some(Fault::CrashBefore | Fault::CrashAfter) | None => world.swap(&plan),
                };
                if fault == Some(Fault::CrashAfter) {
                    return Stepped::Crashed;
                }
                self.tell(Event::Swapped(swapped));
            }
            Action::Publish { ledger, after } => {
                self.now = self.now.after(after);
                if !fails {
                    // Written from a fresh load, by replace-if-unchanged: a copy never goes back.
                    for (partition, offset) in ledger.offsets.iter() {
                        if world.sync_points.get(partition).is_none_or(|at| at < offset) {
                            world.sync_points.set(partition, offset);
                        }
                        if !lost && world.group.get(partition).is_none_or(|at| at < offset) {
                            world.group.set(partition, offset);
                        }
                    }
                }
                self.tell(Event::Published(answer(!fails && !lost)));
            }
            Action::Drop { windows, files } => {
                for window in windows {
                    self.windows.remove(&window);
                }
                if !fails {
                    for file in files {
                        world.bucket.remove(&file);
                    }
                }
            }
            Action::Pause => self.paused = true,
            Action::Resume => self.paused = false,
            Action::AckRevoke => {}
            Action::Finish(outcome) => return Stepped::Finished(outcome),
        }
        Stepped::Alive
    }

    fn seal(&mut self, id: WindowId, ranges: OffsetRanges, world: &mut World) {
        let Some(window) = self.windows.get(&id) else { return };
        let mut files = Vec::new();
        if !window.rows.is_empty() {
            self.files += 1;
            let path = format!("{}-{}-{}.parquet", self.id.simple(), id.sequence, self.files);
            world.bucket.insert(path.clone(), window.rows.clone());
            let file = DataFileBuilder::default()
                .content(DataContentType::Data)
                .file_path(path)
                .file_format(DataFileFormat::Parquet)
                .partition(Struct::empty())
                .partition_spec_id(0)
                .record_count(window.rows.len() as u64)
                .file_size_in_bytes(1)
                .build()
                .expect("all fields are set");
            files.push(WindowFile { spec_id: 0, file });
        }
        let sealed = SealedWindow {
            id,
            ranges,
            files,
            tally: window.tally,
            event_times: BTreeMap::new(),
        };
        self.tell(Event::Sealed(sealed));
    }

    /// Fetches one chunk from the partition that is furthest behind.
    fn fetch(&mut self, world: &World) -> bool {
        if self.paused {
            return false;
        }
        let next = self
            .reading
            .iter()
            .filter(|(partition, at)| at.get() < world.log[partition].len() as i64)
            .min_by_key(|(_, at)| at.get())
            .map(|(partition, at)| (*partition, *at));
        let Some((partition, start)) = next else { return false };
        let entries = &world.log[&partition];
        let end = (start.get() + self.chunk).min(entries.len() as i64);
        self.reading.insert(partition, Offset::new(end));
        let at = |offset: i64| (partition, Offset::new(offset));
        let mut taken = Window::default();
        for offset in start.get()..end {
            match entries[offset as usize] {
                Entry::Row => taken.rows.push(at(offset)),
                Entry::Reject => taken.rejects.push(at(offset)),
                Entry::Filtered => taken.tally.filtered += 1,
                Entry::Hole => continue,
            }
            taken.tally.records += 1;
        }
        taken.tally.rows = taken.rows.len() as u64;
        taken.tally.rejected = taken.rejects.len() as u64;
        let range = OffsetRange::new(start, Offset::new(end));
        let event = Event::Fetched {
            epoch: self.epoch,
            partition,
            range,
            records: taken.tally.records,
        };
        self.tell(event);
        // The answer concerns the chunk at hand; everything else stays in order.
        let answer = self
            .actions
            .iter()
            .rposition(|action| matches!(action, Action::Take(_) | Action::Discard));
        match answer.and_then(|index| self.actions.remove(index)) {
            Some(Action::Take(id)) => {
                let window = self.windows.entry(id).or_default();
                window.rows.extend(taken.rows);
                window.rejects.extend(taken.rejects);
                window.tally.add(taken.tally);
            }
            Some(_) => {}
            None => panic!("a fetched chunk is always answered"),
        }
        true
    }
}
