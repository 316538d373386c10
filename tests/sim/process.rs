//! One process: a [`Run`] and the shell's part around it, with a fault at any of its effects.
//!
//! The shell performs an event's actions in order; what they start (commits, loads, uploads) happens later, in any order,
//! and is heard of later still. The Kafka thread obeys commands when it comes to it, and what it fetched waits in a queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use aperio::dead_letters::keys::{self, KnownKeys};
use aperio::decode::DeadLetter;
use aperio::error::{Exit, Failure};
use aperio::offsets::{Offset, OffsetRange, OffsetRanges, Offsets, Partition, Position, RecordAt};
use aperio::run::deadline::{Deadlines, Patience};
use aperio::run::window::RejectLimit;
use aperio::run::{Action, Event, Outcome, Run, RunConfig, Swapped};
use aperio::table::admit::CommitPlan;
use aperio::table::ledger::{Ledger, LedgerProblem};
use aperio::table::{SealedWindow, TableView, Tally, WindowFile, WindowId};
use aperio::units::Millis;
use iceberg::spec::{DataContentType, DataFileBuilder, DataFileFormat, Struct};
use uuid::Uuid;

use crate::columns::Form;
use crate::dice::Dice;
use crate::letters::{LetterBase, LetterChange};
use crate::world::{At, Base, Entry, PipelineFile, Request, World};

/// What goes wrong at one effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails before it can have an effect, and says so.
    NotSent,
    /// It fails, and nothing happened, and nobody can tell.
    FailsBefore,
    /// It happens, and the answer is lost.
    AnswerLost,
    /// The process dies before it.
    CrashBefore,
    /// The process dies right after it.
    CrashAfter,
    /// The answer is a timeout, and it happens later.
    Late,
    /// It happens twice, and is answered twice.
    Twice,
}

const BATCH_WINDOW: Millis = Millis(60_000);
const RETRY_FOR: Millis = Millis(600_000);

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

/// In which order a process does what could be done next.
pub enum Order {
    /// One kind of thing after the other, so that everything overlaps and nothing starves.
    Turns(usize),
    /// By chance.
    Dice(Dice),
}

/// What a process is started with.
pub struct Start {
    pub id: u128,
    pub once: bool,
    pub batch_size: u64,
    pub chunk: i64,
    pub order: Order,
    pub file: PipelineFile,
    pub traced: bool,
}

#[derive(Debug, Clone, Default)]
struct Window {
    rows: Vec<At>,
    rejects: Vec<At>,
    tally: Tally,
    form: Form,
}

/// An effect that an action started.
enum Work {
    Resolve(Vec<Partition>),
    /// Compares letters with what their table holds; what follows from that is an effect of its own.
    Letters(Call),
    ChangeLetters(Call, LetterBase, Box<KnownKeys>, LetterChange),
    Load,
    Swap(Box<CommitPlan>, Base),
    /// A proxy lost the answer to a commit and sends it again; the first made this snapshot, or none.
    Echo(Box<CommitPlan>, Base, Option<i64>),
    /// Loads the table once more: letters are taken back only where it still says so.
    Reload(Publication),
    Publish(Publication),
    Delete(Vec<String>),
    Seal(WindowId, OffsetRanges, Window),
}

/// What the dead-letter table is asked for, and what follows.
enum Aim {
    /// Letters are stored, for these windows, which have read these ranges.
    Prepare(Vec<WindowId>, OffsetRanges),
    /// Those that committed windows have superseded are taken back, then is published.
    TakeBack(Publication),
}

struct Call {
    aim: Aim,
    /// The table's offsets before the windows are committed.
    ledger: Offsets,
    letters: Vec<DeadLetter>,
    moves: u32,
}

/// What is published, and what is done before that.
struct Publication {
    offsets: Offsets,
    /// The records whose letters are to be taken back, then those whose letters were.
    stale: BTreeSet<RecordAt>,
    /// All those that the ledger named, while nothing has failed, and how often others had moved the table then.
    named: Option<(BTreeSet<RecordAt>, u32)>,
}

impl Publication {
    fn failed(&mut self) {
        self.stale.clear();
        self.named = None;
    }
}

/// What the conductor hears of an effect.
#[derive(Clone)]
enum Answer {
    Event(Event),
    Loaded(TableView, Base, Form),
    Swapped(Vec<WindowId>, Swapped, Option<Base>),
    /// With the records whose letters are to be taken back after the commit.
    Prepared(Vec<WindowId>, BTreeSet<RecordAt>),
    /// With the records whose letters were taken back.
    Published(BTreeSet<RecordAt>, Result<Offsets, String>),
}

#[derive(Debug, Clone, Copy)]
enum Command {
    Start(u64, u64, Partition, Position),
    Seek(u64, Partition, Position),
    Pause(bool),
    CommitGroup(Partition, Offset),
}

struct Chunk {
    epoch: u64,
    partition: Partition,
    range: OffsetRange,
    taken: Window,
}

enum KafkaEvent {
    Assigned(u64, Vec<Partition>),
    Revoked(Vec<Partition>, bool),
    Fetched(Chunk),
}

/// What the Kafka thread does with a partition: the generation that brought it, and epoch and position once it reads.
#[derive(Clone, Copy)]
struct Held {
    generation: u64,
    reading: Option<(u64, Position)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Answer,
    Work,
    Command,
    Heard,
    Fetch,
}

const CHOICES: [Choice; 5] = [
    Choice::Work,
    Choice::Fetch,
    Choice::Answer,
    Choice::Command,
    Choice::Heard,
];

pub struct Process {
    pub id: u128,
    pub once: bool,
    run: Run,
    chunk: i64,
    order: Order,
    file: PipelineFile,
    now: Millis,
    table: Option<Base>,
    /// What the next window is written for.
    form: Form,
    deadlines: Deadlines,
    /// The offsets that the table held at the last look.
    seen: Offsets,
    /// What it doesn't do any more, without an error.
    pub hangs: Option<Choice>,
    actions: VecDeque<Action>,
    hand: Option<Window>,
    windows: BTreeMap<WindowId, Window>,
    letters: BTreeMap<WindowId, Vec<At>>,
    // See `Conductor`.
    committing: Vec<WindowId>,
    stale: BTreeSet<RecordAt>,
    taken_back: BTreeSet<RecordAt>,
    /// See `DeadLetterTable`.
    known: Option<KnownKeys>,
    work: Vec<Work>,
    answers: VecDeque<Answer>,
    // The conductor's view of Kafka.
    generations: BTreeMap<Partition, u64>,
    started: BTreeSet<Partition>,
    acked: bool,
    // The Kafka thread.
    pub joined: bool,
    generation: u64,
    held: BTreeMap<Partition, Held>,
    commands: VecDeque<Command>,
    events: VecDeque<KafkaEvent>,
    paused: bool,
    leaving: Option<Vec<Partition>>,
    /// Partitions that this process has let go of, for the group to give away.
    pub released: Vec<Partition>,
    /// How often windows were dropped.
    pub drops: u32,
    stopping: bool,
    pub trace: Option<Vec<String>>,
}

/// What failures begin with that are faults of the play.
pub const INJECTED: &str = "injected: ";

fn down(what: &str) -> Failure {
    Failure::new(Exit::Remote, format!("{INJECTED}{what}"))
}

/// An event in a trace. A schema's own words come in another order each time, as those of all hash maps do.
fn told(event: &Event) -> String {
    let seen = |view: &TableView| {
        let ledger = view.ledger.as_ref().map(|ledger| (&ledger.offsets, &ledger.windows));
        let schema = view.layout.schema.schema_id();
        format!(
            "snapshot {:?}, sequence {}, schema {schema}, {ledger:?}",
            view.snapshot, view.sequence
        )
    };
    match event {
        Event::Opened { view, .. } => format!("Opened({})", seen(view)),
        Event::Loaded(Ok(view)) => format!("Loaded({})", seen(view)),
        Event::Swapped {
            windows,
            answer: Swapped::Committed(view),
        } => format!("Swapped({windows:?}, {})", seen(view)),
        Event::Sealed(window) => {
            let schemas: Vec<_> = window.schemas.iter().map(|schema| schema.schema_id()).collect();
            format!(
                "Sealed({}, {:?}, {:?}, schemas {schemas:?})",
                window.id, window.ranges, window.tally
            )
        }
        event => format!("{event:?}"),
    }
}

/// What the program says of a log that isn't any more what the table holds of it.
fn was_cut() -> Failure {
    Failure::new(Exit::Data, "a log was cut")
}

fn unknown_offsets(problem: &LedgerProblem) -> Failure {
    Failure::new(Exit::Data, problem.to_string())
}

impl Process {
    pub fn start(world: &World, start: Start) -> Self {
        let config = RunConfig {
            run: Uuid::from_u128(start.id),
            once: start.once,
            batch_size: start.batch_size,
            batch_window: BATCH_WINDOW,
            retry_for: RETRY_FOR,
            grace: Millis(10_000),
            source: world.origin.source.clone(),
            reject_limit: RejectLimit::Count(u64::MAX),
        };
        let mut process = Process {
            id: start.id,
            once: start.once,
            run: Run::new(config),
            chunk: start.chunk,
            order: start.order,
            file: start.file,
            now: world.now,
            table: None,
            form: world.form(),
            deadlines: Deadlines::new(
                Patience {
                    batch_window: BATCH_WINDOW,
                    retry_for: RETRY_FOR,
                },
                world.now,
            ),
            seen: Offsets::default(),
            hangs: None,
            actions: VecDeque::new(),
            hand: None,
            windows: BTreeMap::new(),
            letters: BTreeMap::new(),
            committing: Vec::new(),
            stale: BTreeSet::new(),
            taken_back: BTreeSet::new(),
            known: None,
            work: Vec::new(),
            answers: VecDeque::new(),
            generations: BTreeMap::new(),
            started: BTreeSet::new(),
            acked: false,
            joined: false,
            generation: 0,
            held: BTreeMap::new(),
            commands: VecDeque::new(),
            events: VecDeque::new(),
            paused: false,
            leaving: None,
            released: Vec::new(),
            drops: 0,
            stopping: false,
            trace: start.traced.then(Vec::new),
        };
        match world.load() {
            Ok((view, _))
                if view
                    .ledger
                    .as_ref()
                    .is_some_and(|ledger| !world.diverged(ledger).is_empty()) =>
            {
                process.actions.push_back(Action::Finish(Outcome::Failed(was_cut())));
            }
            Ok((view, base)) => {
                process.table = Some(base);
                process.tell(Event::Opened {
                    view,
                    partitions: world.log.keys().copied().collect(),
                    ends: if start.once { world.ends() } else { Offsets::default() },
                });
            }
            Err(problem) => {
                let outcome = Outcome::Failed(unknown_offsets(&problem));
                process.actions.push_back(Action::Finish(outcome));
            }
        }
        process
    }

    /// Somebody asks the process to stop; once is enough.
    pub fn stop(&mut self) {
        if !std::mem::replace(&mut self.stopping, true) {
            self.tell(Event::Stop);
        }
    }

    fn tell(&mut self, event: Event) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:x}: {}", self.id, told(&event)));
        }
        let actions = self.run.on(event, self.now);
        if let Some(trace) = &mut self.trace {
            trace.extend(actions.iter().map(|action| format!("    {action:?}")));
        }
        self.actions.extend(actions);
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let text = what();
            trace.push(format!("{:x}: * {text}", self.id));
        }
    }

    // --- the group ---------------------------------------------------------------------------------------------------

    /// The group gives partitions to this member.
    pub fn assign(&mut self, partitions: Vec<Partition>) {
        self.note(|| format!("the group gives {partitions:?}"));
        self.released.retain(|partition| !partitions.contains(partition));
        self.generation += 1;
        for partition in &partitions {
            let held = Held {
                generation: self.generation,
                reading: None,
            };
            self.held.insert(*partition, held);
        }
        self.events.push_back(KafkaEvent::Assigned(self.generation, partitions));
    }

    /// The group takes partitions away: asked for, and given up when the run says so; or lost already.
    pub fn revoke(&mut self, partitions: Vec<Partition>, lost: bool) {
        self.note(|| format!("the group takes {partitions:?}, lost: {lost}"));
        self.leaving = Some(partitions.clone());
        self.events.push_back(KafkaEvent::Revoked(partitions, lost));
    }

    /// The group gave this partition to this member, and it hasn't left.
    pub fn knows(&self, partition: Partition) -> bool {
        self.held.contains_key(&partition)
    }

    /// A rebalance waits for this member.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    // --- steps -------------------------------------------------------------------------------------------------------

    /// Does one thing. `fault` is asked once for each effect.
    pub fn step(&mut self, world: &mut World, fault: &mut dyn FnMut() -> Option<Fault>) -> Stepped {
        world.now = world.now.max(self.now);
        if let Some(action) = self.actions.pop_front() {
            return self.perform(action, world, fault);
        }
        if self.acked {
            // The callback returns: nothing is read of them any more, and others may have them.
            self.acked = false;
            let leaving = self.leaving.take().unwrap_or_default();
            self.note(|| format!("{leaving:?} left"));
            self.held.retain(|partition, _| !leaving.contains(partition));
            self.released.extend(leaving);
            return Stepped::Alive;
        }
        match self.choose(world) {
            None => {
                self.now = self.now.after(Millis(1_500));
                self.tell(Event::Tick);
                if let Some(failure) = self.watch() {
                    return Stepped::Finished(Outcome::Failed(failure));
                }
            }
            Some(Choice::Answer) => {
                let answer = self.answers.pop_front().expect("chosen where there is one");
                self.hear(answer);
            }
            Some(Choice::Work) => {
                let index = match &mut self.order {
                    // The newest first: windows are completed out of order.
                    Order::Turns(_) => self.work.len() - 1,
                    Order::Dice(dice) => dice.index(self.work.len()),
                };
                let work = self.work.remove(index);
                if let Some(work) = self.compare_letters(work, world) {
                    return self.work_off(work, world, fault());
                }
            }
            Some(Choice::Command) => self.obey(world),
            Some(Choice::Heard) => self.heard(),
            Some(Choice::Fetch) => self.fetch(world),
        }
        Stepped::Alive
    }

    /// What the conductor does once a second: with `once`, what has been waited for too long ends the run.
    fn watch(&mut self) -> Option<Failure> {
        let held = self
            .run
            .ledger()
            .map(|ledger| ledger.offsets.clone())
            .unwrap_or_default();
        if held != self.seen {
            self.seen = held;
            self.deadlines.moved();
        }
        self.deadlines.look(self.run.look(self.run.ends()), self.now);
        let overdue = self.deadlines.overdue(self.now).filter(|_| self.once)?;
        Some(Failure::new(Exit::Remote, overdue.to_string()))
    }

    fn choose(&mut self, world: &World) -> Option<Choice> {
        let possible = |choice: Choice| match choice {
            Choice::Answer => !self.answers.is_empty(),
            Choice::Work => !self.work.is_empty(),
            // The thread waits in its callback while a rebalance waits for it.
            Choice::Command => !self.commands.is_empty() && self.leaving.is_none(),
            Choice::Heard => !self.events.is_empty(),
            Choice::Fetch => {
                !self.paused && self.leaving.is_none() && self.events.len() < 4 && self.next_fetch(world).is_some()
            }
        };
        let found: Vec<_> = CHOICES
            .into_iter()
            .filter(|choice| self.hangs != Some(*choice) && possible(*choice))
            .collect();
        match &mut self.order {
            Order::Dice(dice) => {
                let waits = found.is_empty() || dice.once_in(50);
                (!waits).then(|| found[dice.index(found.len())])
            }
            Order::Turns(turn) => {
                *turn += 1;
                let from = *turn % CHOICES.len();
                let next = CHOICES[from..].iter().chain(&CHOICES[..from]);
                next.copied().find(|choice| found.contains(choice))
            }
        }
    }

    /// Every action is matched, so that one that no fault covers doesn't compile. What starts work has its faults there.
    fn perform(&mut self, action: Action, world: &mut World, fault: &mut dyn FnMut() -> Option<Fault>) -> Stepped {
        let starts_work = match &action {
            Action::ResolveStart { .. }
            | Action::Seal { .. }
            | Action::Prepare { .. }
            | Action::Load { .. }
            | Action::Swap(_)
            | Action::Publish { .. } => true,
            Action::Join
            | Action::Read { .. }
            | Action::Take(_)
            | Action::Discard
            | Action::Drop { .. }
            | Action::Pause
            | Action::Resume
            | Action::AckRevoke
            | Action::Finish(_) => false,
        };
        let fault = if starts_work { None } else { fault() };
        if let Some(fault) = fault {
            self.note(|| format!("{fault:?}"));
        }
        if fault == Some(Fault::CrashBefore) {
            return Stepped::Crashed;
        }
        let fails = matches!(fault, Some(Fault::FailsBefore | Fault::NotSent));
        match action {
            Action::ResolveStart { partitions, .. } => self.work.push(Work::Resolve(partitions)),
            Action::Join if fails => self.fail("the Kafka client"),
            Action::Join => self.joined = true,
            Action::Read { .. } if fails => self.fail("a seek"),
            Action::Read { epoch, positions } => self.read(epoch, positions),
            Action::Take(_) if fails => self.fail("a line's disk"),
            Action::Take(id) => {
                let taken = self.hand.take().expect("a chunk is at hand when it is taken");
                self.deadlines.fetched(true, self.now);
                self.deadlines.staged(self.now);
                let form = &self.form;
                let window = self.windows.entry(id).or_insert_with(|| Window {
                    form: form.clone(),
                    ..Window::default()
                });
                if let Order::Dice(dice) = &mut self.order
                    && dice.once_in(40)
                {
                    // All files of a window are of the spec that it was opened under.
                    self.form = world.evolve();
                    window.form.schemas.extend(self.form.schemas.iter().cloned());
                }
                window.rows.extend(taken.rows);
                window.rejects.extend(taken.rejects);
                window.tally.add(taken.tally);
            }
            Action::Discard => {
                self.deadlines.fetched(false, self.now);
                self.hand = None;
            }
            Action::Seal { window, ranges, .. } => {
                self.deadlines.seals(window, self.now);
                let filled = self.windows.remove(&window).unwrap_or_default();
                self.work.push(Work::Seal(window, ranges, filled));
            }
            Action::Prepare { windows, after } => {
                self.now = self.now.after(after);
                let held = windows.iter().filter_map(|id| self.letters.get(id));
                let letters: Vec<_> = held.flatten().map(|at| world.letter(*at)).collect();
                let ledger = self.run.ledger().map(|ledger| ledger.offsets.clone());
                self.committing.clone_from(&windows);
                self.work.push(Work::Letters(Call {
                    aim: Aim::Prepare(windows, self.run.committing()),
                    ledger: ledger.unwrap_or_default(),
                    letters,
                    moves: world.excused.moves,
                }));
            }
            Action::Load { after } => {
                self.now = self.now.after(after);
                self.work.push(Work::Load);
            }
            Action::Swap(mut plan) => {
                self.note_stale(&mut plan.ledger);
                let base = self.table.expect("a table is loaded before a swap");
                self.work.push(Work::Swap(plan, base));
            }
            Action::Publish { ledger, after } => {
                self.now = self.now.after(after);
                self.deadlines.commit_ended();
                self.stale.clear();
                self.taken_back.retain(|at| ledger.stale_letters.contains(at));
                let stale: BTreeSet<_> = ledger.stale_letters.difference(&self.taken_back).copied().collect();
                let nothing = stale.is_empty();
                let publication = Publication {
                    offsets: ledger.offsets,
                    stale,
                    named: Some((ledger.stale_letters, world.excused.moves)),
                };
                self.work.push(match nothing {
                    true => Work::Publish(publication),
                    false => Work::Reload(publication),
                });
            }
            Action::Drop { windows, files } => {
                self.drops += 1;
                if windows.iter().any(|window| self.committing.contains(window)) {
                    self.stale.clear();
                    self.abort_preparing(world);
                    self.deadlines.commit_ended();
                }
                self.taken_back.clear();
                for window in windows {
                    self.windows.remove(&window);
                    self.letters.remove(&window);
                }
                if !files.is_empty() && !fails {
                    self.work.push(Work::Delete(files));
                }
            }
            Action::Pause => self.commands.push_back(Command::Pause(true)),
            Action::Resume => self.commands.push_back(Command::Pause(false)),
            Action::AckRevoke => self.acked = true,
            Action::Finish(outcome) => return Stepped::Finished(outcome),
        }
        if fault == Some(Fault::CrashAfter) {
            return Stepped::Crashed;
        }
        Stepped::Alive
    }

    fn fail(&mut self, what: &str) {
        self.hand = None;
        self.answers.push_back(Answer::Event(Event::Failed(down(what))));
    }

    /// Starts partitions that are new here, and seeks those that are being read.
    fn read(&mut self, epoch: u64, positions: Vec<(Partition, Position)>) {
        for (partition, at) in positions {
            self.commands.push_back(if self.started.insert(partition) {
                let generation = self.generations.get(&partition).copied().unwrap_or_default();
                Command::Start(generation, epoch, partition, at)
            } else {
                Command::Seek(epoch, partition, at)
            });
        }
    }

    /// See `Conductor`.
    fn note_stale(&mut self, ledger: &mut Ledger) {
        ledger.stale_letters.retain(|at| !self.taken_back.contains(at));
        self.taken_back.retain(|at| !self.stale.contains(at));
        ledger.stale_letters.extend(&self.stale);
    }

    /// Stores no letters any more of windows that are dropped, unless that is under way already.
    fn abort_preparing(&mut self, world: &mut World) {
        for work in std::mem::take(&mut self.work) {
            match work {
                Work::Letters(Call {
                    aim: Aim::Prepare(..), ..
                }) => {}
                Work::ChangeLetters(
                    Call {
                        aim: Aim::Prepare(..), ..
                    },
                    base,
                    _,
                    change,
                ) => {
                    let sent = match &mut self.order {
                        Order::Turns(_) => true,
                        Order::Dice(dice) => dice.once_in(2),
                    };
                    if sent {
                        world.in_transit.push(Request::Letters(base, change));
                    }
                }
                work => self.work.push(work),
            }
        }
    }

    /// What `DeadLetterTable` does before each attempt: looks what the table lacks and what is too much. Returns the work that
    /// is an effect here: not that.
    fn compare_letters(&mut self, work: Work, world: &mut World) -> Option<Work> {
        let call = match work {
            Work::Letters(call) => call,
            work => return Some(work),
        };
        let letters: Vec<&DeadLetter> = call.letters.iter().collect();
        let nothing = BTreeSet::new();
        let (from, stale) = match &call.aim {
            Aim::Prepare(_, ranges) => (keys::floor_of(&call.ledger, ranges, &letters), &nothing),
            Aim::TakeBack(publication) => {
                let stale = &publication.stale;
                (keys::floor(&call.ledger, stale.iter().copied()), stale)
            }
        };
        let table = world.letters.borrow();
        let (base, origin) = (table.load(), &world.origin);
        let mut known = match self.known.take() {
            Some(known) if known.cover(base.table, base.snapshot, origin, &from) => known,
            before => table.read(origin, &from, before),
        };
        drop(table);
        known.forget_below(&from);
        let missing = known.missing(&letters);
        let mut gone = known.held(stale);
        gone.extend(known.in_place_of(&missing));
        let change = LetterChange {
            stored: missing.into_iter().cloned().collect(),
            taken_back: gone,
            moves: call.moves,
        };
        if !change.stored.is_empty() || !change.taken_back.is_empty() {
            self.work.push(Work::ChangeLetters(call, base, Box::new(known), change));
            return None;
        }
        self.known = Some(known);
        match call.aim {
            Aim::Prepare(..) => Some(Work::Letters(call)),
            Aim::TakeBack(publication) => {
                self.work.push(Work::Publish(publication));
                None
            }
        }
    }

    /// An effect happens, or doesn't.
    fn work_off(&mut self, work: Work, world: &mut World, fault: Option<Fault>) -> Stepped {
        if let Some(fault) = fault {
            let what = std::mem::discriminant(&work);
            self.note(|| format!("{fault:?} at work {what:?}"));
        }
        if fault == Some(Fault::CrashBefore) {
            return Stepped::Crashed;
        }
        let fails = matches!(fault, Some(Fault::FailsBefore | Fault::NotSent));
        let lost = matches!(fault, Some(Fault::AnswerLost | Fault::Late));
        let late = fault == Some(Fault::Late);
        let failed = || "injected".to_owned();
        let answer = match work {
            Work::Resolve(_) if fails || lost => Answer::Event(Event::Failed(down("the broker"))),
            Work::Resolve(partitions) => {
                let starts = partitions.into_iter().map(|partition| (partition, Offset::ZERO));
                Answer::Event(Event::StartResolved(starts.collect()))
            }
            Work::Letters(call) => {
                let now = (!fails && !lost).then(|| world.letters.borrow().load());
                return self.lettered(call, now, world, fault);
            }
            Work::ChangeLetters(call, base, mut known, change) => {
                let mut now = None;
                if late {
                    world.in_transit.push(Request::Letters(base, change));
                } else if !fails {
                    now = world.change_letters(base, &change);
                    self.note(|| {
                        let stored: Vec<_> = change.stored.iter().map(keys::key).collect();
                        format!(
                            "letters stored {stored:?}, taken back {:?}, then: {now:?}",
                            change.taken_back
                        )
                    });
                    let Some(now) = now else {
                        // Another run was faster.
                        self.known = Some(*known);
                        self.work.push(Work::Letters(call));
                        return self.after(fault);
                    };
                    let stored: Vec<&DeadLetter> = change.stored.iter().collect();
                    if !lost {
                        known.change(now.snapshot.expect("it was swapped"), &stored, &change.taken_back);
                    }
                }
                // What was never sent is an error, past which nothing is known.
                self.known = (fault != Some(Fault::NotSent)).then_some(*known);
                return self.lettered(call, now.filter(|_| !lost), world, fault);
            }
            Work::Reload(mut publication) => {
                let loaded = world.load().ok().filter(|_| !fails && !lost);
                let held = loaded.and_then(|(view, _)| view.ledger);
                match held {
                    Some(held) => publication.stale.retain(|at| held.stale_letters.contains(at)),
                    None => publication.failed(),
                }
                self.work.push(match publication.stale.is_empty() {
                    true => Work::Publish(publication),
                    false => Work::Letters(Call {
                        aim: Aim::TakeBack(publication),
                        ledger: Offsets::default(),
                        letters: Vec::new(),
                        moves: world.excused.moves,
                    }),
                });
                return self.after(fault);
            }
            Work::Load if fails || lost => Answer::Event(Event::Loaded(Err(failed()))),
            Work::Load => match world.load() {
                Ok((view, base)) => Answer::Loaded(view, base, world.form()),
                Err(problem) => Answer::Event(Event::Failed(unknown_offsets(&problem))),
            },
            Work::Swap(plan, base) => {
                let unknown = || Swapped::Unknown("nobody knows".into());
                let windows = plan.windows.clone();
                let (swapped, base) = if fault == Some(Fault::NotSent) {
                    (Swapped::Failed("injected".into()), None)
                } else if fails {
                    (unknown(), None)
                } else if late {
                    world.in_transit.push(Request::Swap(plan, base));
                    (unknown(), None)
                } else {
                    let answered = world.swap(&plan, base);
                    if fault == Some(Fault::Twice) && world.repeats_requests() {
                        let made = answered.1.and_then(|_| world.current());
                        self.work.push(Work::Echo(plan, base, made));
                        return Stepped::Alive;
                    }
                    if fault == Some(Fault::Twice) {
                        let _ = world.swap(&plan, base);
                    }
                    if lost { (unknown(), None) } else { answered }
                };
                Answer::Swapped(windows, swapped, base)
            }
            Work::Echo(plan, base, made) => {
                let windows = plan.windows.clone();
                let (swapped, base) = match world.swap(&plan, base) {
                    (Swapped::Conflict, _) => (world.refused(base, made), None),
                    answered => answered,
                };
                Answer::Swapped(windows, swapped, base)
            }
            Work::Publish(publication) => {
                let Publication { offsets, stale, named } = publication;
                if let Some((named, moves)) = named {
                    world.assert_taken_back(&named, moves);
                }
                let version = world.points_version();
                let wanted = world.to_publish(&offsets);
                if let (None, Some(problem)) = (&wanted, world.problem().filter(|_| !fails && !lost)) {
                    let failure = unknown_offsets(problem);
                    world.unknown_offsets += 1;
                    self.answers.push_back(Answer::Event(Event::Failed(failure)));
                    return self.after(fault);
                }
                match &wanted {
                    Some(wanted) if late => world.in_transit.push(Request::Points(version, wanted.clone())),
                    Some(wanted) if !fails => world.publish(version, wanted),
                    _ => {}
                }
                let answer = match fails || lost || wanted.is_none() {
                    true => Err(failed()),
                    false => Ok(offsets),
                };
                Answer::Published(stale, answer)
            }
            Work::Delete(files) => {
                if late {
                    world.in_transit.push(Request::Delete(files));
                } else if !fails {
                    world.delete(&files);
                }
                return self.after(fault);
            }
            Work::Seal(..) if fault == Some(Fault::NotSent) => Answer::Event(Event::Failed(down("a line's store"))),
            // What was complete before that is there.
            Work::Seal(id, ranges, window) if fails => {
                let sealed = self.seal(id, ranges, window, world);
                let files = sealed.files.iter().map(|file| file.file.file_path().to_owned());
                Answer::Event(Event::Unwritten {
                    window: id,
                    files: files.collect(),
                    since: self.now,
                    failure: down("a line's store"),
                })
            }
            Work::Seal(id, ranges, window) => {
                self.letters.insert(id, window.rejects.clone());
                Answer::Event(Event::Sealed(self.seal(id, ranges, window, world)))
            }
        };
        if fault == Some(Fault::Twice) {
            self.answers.push_back(match &answer {
                Answer::Published(_, answer) => Answer::Published(BTreeSet::new(), answer.clone()),
                answer => answer.clone(),
            });
        }
        self.answers.push_back(answer);
        self.after(fault)
    }

    /// The dead-letter table has answered.
    ///
    /// - `now`: as it is now; nothing if that failed.
    fn lettered(&mut self, call: Call, now: Option<LetterBase>, world: &mut World, fault: Option<Fault>) -> Stepped {
        match call.aim {
            Aim::Prepare(windows, ranges) => {
                let Some(now) = now else {
                    let answer = Err("injected".to_owned());
                    self.answers
                        .push_back(Answer::Event(Event::Prepared { windows, answer }));
                    return self.after(fault);
                };
                let letters: Vec<&DeadLetter> = call.letters.iter().collect();
                let stale = self.known.as_ref().map(|known| known.stale(&ranges, &letters));
                world.excused.looked(&windows, now);
                self.answers
                    .push_back(Answer::Prepared(windows.clone(), stale.unwrap_or_default()));
                if fault == Some(Fault::Twice) {
                    let answer = Ok(());
                    self.answers
                        .push_back(Answer::Event(Event::Prepared { windows, answer }));
                }
            }
            // The commit stands all the same.
            Aim::TakeBack(mut publication) => {
                if now.is_none() {
                    publication.failed();
                }
                self.work.push(Work::Publish(publication));
            }
        }
        self.after(fault)
    }

    fn after(&self, fault: Option<Fault>) -> Stepped {
        if fault == Some(Fault::CrashAfter) {
            Stepped::Crashed
        } else {
            Stepped::Alive
        }
    }

    /// The process is dead; requests of its that `sent` says had left it arrive later.
    pub fn die(self, world: &mut World, sent: &mut dyn FnMut() -> bool) {
        for work in self.work {
            if !sent() {
                continue;
            }
            match work {
                Work::ChangeLetters(_, base, _, change) => world.in_transit.push(Request::Letters(base, change)),
                Work::Swap(plan, base) | Work::Echo(plan, base, _) => {
                    world.in_transit.push(Request::Swap(plan, base));
                }
                Work::Publish(publication) => {
                    let version = world.points_version();
                    let wanted = world.to_publish(&publication.offsets);
                    world
                        .in_transit
                        .extend(wanted.map(|wanted| Request::Points(version, wanted)));
                }
                Work::Delete(files) => world.in_transit.push(Request::Delete(files)),
                Work::Resolve(_) | Work::Letters(_) | Work::Load | Work::Reload(_) | Work::Seal(..) => {}
            }
        }
    }

    fn hear(&mut self, answer: Answer) {
        match answer {
            Answer::Event(event) => {
                match &event {
                    Event::Sealed(SealedWindow { id, .. }) | Event::Unwritten { window: id, .. } => {
                        self.deadlines.sealed(*id, self.now);
                    }
                    _ => {}
                }
                self.tell(event);
            }
            Answer::Loaded(view, base, form) => {
                self.table = Some(base);
                self.form = form;
                self.tell(Event::Loaded(Ok(view)));
            }
            Answer::Swapped(windows, answer, base) => {
                self.table = base.or(self.table);
                self.tell(Event::Swapped { windows, answer });
            }
            Answer::Prepared(windows, stale) => {
                if windows == self.committing {
                    self.stale = stale;
                }
                let answer = Ok(());
                self.tell(Event::Prepared { windows, answer });
            }
            Answer::Published(taken_back, answer) => {
                self.taken_back.extend(taken_back);
                for (partition, offset) in answer.iter().flat_map(Offsets::iter) {
                    self.commands.push_back(Command::CommitGroup(partition, offset));
                }
                self.tell(Event::Published(answer.map(drop)));
            }
        }
    }

    fn seal(&mut self, id: WindowId, ranges: OffsetRanges, window: Window, world: &mut World) -> SealedWindow {
        let mut files = Vec::new();
        if !window.rows.is_empty() {
            let path = world.write(id, window.form.clone(), window.rows.clone());
            let file = DataFileBuilder::default()
                .content(DataContentType::Data)
                .file_path(path)
                .file_format(DataFileFormat::Parquet)
                .partition(Struct::empty())
                .partition_spec_id(window.form.spec)
                .record_count(window.rows.len() as u64)
                .file_size_in_bytes(1)
                .build()
                .expect("all fields are set");
            let spec_id = window.form.spec;
            files.push(WindowFile { spec_id, file });
        }
        world.sealed(id, &ranges, window.tally, self.file);
        SealedWindow {
            id,
            ranges,
            files,
            tally: window.tally,
            event_times: BTreeMap::new(),
            schemas: window.form.schemas,
        }
    }

    // --- the Kafka thread --------------------------------------------------------------------------------------------

    fn obey(&mut self, world: &mut World) {
        match self.commands.pop_front().expect("chosen where there is one") {
            Command::Start(generation, epoch, partition, at) => {
                if let Some(held) = self
                    .held
                    .get_mut(&partition)
                    .filter(|held| held.generation == generation)
                {
                    held.reading = Some((epoch, at));
                }
            }
            Command::Seek(epoch, partition, at) => {
                if let Some(held) = self.held.get_mut(&partition).filter(|held| held.reading.is_some()) {
                    held.reading = Some((epoch, at));
                }
            }
            Command::Pause(paused) => self.paused = paused,
            Command::CommitGroup(partition, offset) => {
                if self.held.contains_key(&partition) {
                    world.commit_group(partition, offset);
                }
            }
        }
    }

    fn heard(&mut self) {
        match self.events.pop_front().expect("chosen where there is one") {
            KafkaEvent::Assigned(generation, partitions) => {
                for partition in &partitions {
                    self.generations.insert(*partition, generation);
                    self.started.remove(partition);
                }
                self.tell(Event::Assigned(partitions));
            }
            KafkaEvent::Revoked(partitions, lost) => {
                for partition in &partitions {
                    self.started.remove(partition);
                }
                self.tell(Event::Revoked { partitions, lost });
            }
            KafkaEvent::Fetched(chunk) => {
                let event = Event::Fetched {
                    epoch: chunk.epoch,
                    partition: chunk.partition,
                    range: chunk.range,
                    records: chunk.taken.tally.records,
                };
                self.hand = Some(chunk.taken);
                self.tell(event);
            }
        }
    }

    /// The partition that is furthest behind, or whose log was cut.
    fn next_fetch(&self, world: &World) -> Option<(Partition, u64, Position)> {
        self.held
            .iter()
            .filter_map(|(partition, held)| held.reading.map(|(epoch, at)| (*partition, epoch, at)))
            .filter(|(partition, _, at)| {
                let log = &world.log[partition];
                at.offset < log.end() || log.diverged(*at).is_some()
            })
            .min_by_key(|(_, _, at)| at.offset)
    }

    fn fetch(&mut self, world: &World) {
        let (partition, epoch, start) = self.next_fetch(world).expect("chosen where there is something");
        let log = &world.log[&partition];
        let held = self.held.get_mut(&partition).expect("read here");
        if log.diverged(start).is_some() {
            // librdkafka says so once, and fetches no more.
            held.reading = None;
            let cut = self
                .run
                .ledger()
                .is_some_and(|ledger| !world.diverged(ledger).is_empty());
            let failure = if cut { was_cut() } else { down("a log was cut") };
            self.answers.push_back(Answer::Event(Event::Failed(failure)));
            return;
        }
        let start = start.offset;
        let end = Offset::new((start.get() + self.chunk).min(log.end().get()));
        let position = log.position(end);
        held.reading = Some((epoch, position));
        let mut taken = Window::default();
        for offset in start.get()..end.get() {
            let (entry, written) = log.entry(offset);
            let at = (partition, Offset::new(offset), written);
            match self.file.makes(entry) {
                Entry::Row => taken.rows.push(at),
                Entry::Reject => taken.rejects.push(at),
                Entry::Filtered => taken.tally.filtered += 1,
                Entry::Hole => continue,
                entry => unreachable!("{entry:?} is made something of"),
            }
            taken.tally.records += 1;
        }
        taken.tally.rows = taken.rows.len() as u64;
        taken.tally.rejected = taken.rejects.len() as u64;
        self.events.push_back(KafkaEvent::Fetched(Chunk {
            epoch,
            partition,
            range: OffsetRange::new(start, end).under(position.leader_epoch),
            taken,
        }));
    }
}
