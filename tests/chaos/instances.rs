//! The services that share the pipelines, the `--once` runs beside them, what each may end with, and what it then reports.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::aperio::{Aperio, Outcome};
use crate::dice::Dice;
use crate::reports::{Counts, Reports, expect_at_least, metrics};
use crate::say;

/// A service that is told to stop before this age may not know yet how to.
const STOPPABLE_AFTER: Duration = Duration::from_secs(3);
/// How long the processes wait for what is down; longer than a request that is never answered, which is 60 s.
const RETRY_FOR: [&str; 2] = ["--retry-for", "120s"];
/// Nothing gives up on an outage that is shorter: [`RETRY_FOR`], less what it takes to come back from.
const PATIENCE: Duration = Duration::from_secs(100);
/// How long afterwards such an outage excuses an exit code of 4.
const EXCUSED_FOR: Duration = Duration::from_secs(180);
/// What the services are.
const SERVICE: [&str; 6] = ["run", "pipeline.yaml", "--listen", "127.0.0.1:0", "--output", "json"];
/// What is started beside them.
const ONCE: [&str; 5] = ["run", "--once", "pipeline.yaml", "--output", "json"];
/// Lines of a log that are shown of what ended as it may not.
const SHOWN_LINES: usize = 60;

/// One of the services, as it is now.
enum State {
    Up(Aperio, Instant),
    Frozen(Aperio, Instant),
    Stopping(JoinHandle<Outcome>, Instant),
    Down(Instant),
}

/// What was seen in the logs.
#[derive(Default)]
pub struct Seen {
    /// How many ended in which way, by its name.
    pub ends: BTreeMap<String, u64>,
    /// Lines that hold a text.
    pub lines: BTreeMap<&'static str, u64>,
    /// What those that weren't killed have reported.
    pub reports: Reports,
}

/// What is counted in the logs: the name it gets, and what its lines hold.
const COUNTED: [(&str, &str); 7] = [
    ("commits", " committed table=default."),
    ("conflicts", "the table moved; admitting again"),
    ("answers_lost", "the commit's answer is not a yes"),
    ("found_committed", "committed; the answer had been lost"),
    ("dropped", "windows dropped"),
    ("letters_contended", "was moved by other writers"),
    ("assignments", "partitions assigned"),
];

/// The instances of the same pipelines.
pub struct Instances {
    dir: PathBuf,
    states: Vec<State>,
    once: Vec<JoinHandle<Outcome>>,
    logs: u32,
    last_outage: Option<(Instant, Duration)>,
    /// What was seen of those that ended.
    pub seen: Seen,
}

impl Instances {
    /// Starts `count` services in `dir`, which holds the pipeline file.
    pub fn start(dir: &Path, count: usize) -> Self {
        std::fs::create_dir_all(dir.join("logs")).expect("a folder for logs");
        Self {
            dir: dir.to_owned(),
            states: (0..count).map(|_| up(dir)).collect(),
            once: Vec::new(),
            logs: 0,
            last_outage: None,
            seen: Seen::default(),
        }
    }

    /// Tells that something remote was away for so long until now.
    pub fn outage(&mut self, long: Duration) {
        if long >= PATIENCE {
            self.last_outage = Some((Instant::now(), long));
        }
    }

    /// Wakes and starts what is due, and looks at everything that has ended.
    ///
    /// # Panics
    /// If something ended with a code that nothing done to it explains.
    pub fn look_after(&mut self, broker_is_down: bool) {
        let now = Instant::now();
        for index in 0..self.states.len() {
            let state = std::mem::replace(&mut self.states[index], State::Down(now));
            self.states[index] = match state {
                State::Up(run, _) | State::Frozen(run, _) if run.ended() => {
                    self.ended(&format!("instance {index}"), &run.wait(), &[]);
                    State::Down(now)
                }
                State::Frozen(run, until) if until <= now => {
                    say!("instance {index} goes on");
                    State::Up(run.go_on(), now)
                }
                State::Stopping(run, since) if run.is_finished() => {
                    let seconds = since.elapsed().as_secs_f64();
                    if seconds > 5.0 {
                        say!("instance {index} ends {seconds:.1} s after its SIGTERM");
                    }
                    let outcome = run.join().expect("it ends when it is told to");
                    self.ended(&format!("instance {index}"), &outcome, &[0]);
                    State::Down(now + Duration::from_secs(1))
                }
                // A start while Kafka is away is what a start script does too, but then it ends with 4.
                State::Down(until) if until <= now && !broker_is_down => {
                    say!("instance {index} starts");
                    up(&self.dir)
                }
                same => same,
            };
        }
        let (done, running) = self.once.drain(..).partition(JoinHandle::is_finished);
        self.once = running;
        let done: Vec<JoinHandle<Outcome>> = done;
        for run in done {
            let outcome = run.join().expect("a run ends by itself");
            self.ended("--once", &outcome, &[0, 5]);
        }
    }

    /// `kill -9` of one that is up or frozen, and how long it stays away; `None` if it is neither.
    pub fn kill(&mut self, index: usize, dice: &mut Dice) -> Option<String> {
        let now = Instant::now();
        let away = Duration::from_millis(dice.roll(8000));
        match std::mem::replace(&mut self.states[index], State::Down(now + away)) {
            State::Up(run, _) | State::Frozen(run, _) => {
                let outcome = run.kill();
                self.ended(&format!("instance {index}"), &outcome, &[]);
                Some(format!(
                    "kill -9 of instance {index}, away for {:.1} s",
                    away.as_secs_f64()
                ))
            }
            other => {
                self.states[index] = other;
                None
            }
        }
    }

    /// SIGSTOP of one that is up, for 1 to 25 s.
    pub fn freeze(&mut self, index: usize, dice: &mut Dice) -> Option<String> {
        let now = Instant::now();
        let long = Duration::from_millis(1000 + dice.roll(24_000));
        match std::mem::replace(&mut self.states[index], State::Down(now)) {
            State::Up(run, _) if !run.ended() => {
                run.freeze();
                self.states[index] = State::Frozen(run, now + long);
                Some(format!("instance {index} is frozen for {:.1} s", long.as_secs_f64()))
            }
            other => {
                self.states[index] = other;
                None
            }
        }
    }

    /// SIGTERM to one that has been up for a moment.
    pub fn stop(&mut self, index: usize) -> Option<String> {
        match std::mem::replace(&mut self.states[index], State::Down(Instant::now())) {
            State::Up(run, since) if since.elapsed() > STOPPABLE_AFTER => {
                let stopping = std::thread::spawn(move || run.signal(libc::SIGTERM));
                self.states[index] = State::Stopping(stopping, Instant::now());
                Some(format!("SIGTERM to instance {index}"))
            }
            other => {
                self.states[index] = other;
                None
            }
        }
    }

    /// A `--once` run beside them, unless there are two.
    pub fn once(&mut self) -> Option<String> {
        if self.once.len() >= 2 {
            return None;
        }
        let run = Aperio::start(&self.dir, &[&ONCE[..], &RETRY_FOR].concat());
        self.once.push(std::thread::spawn(move || run.wait()));
        Some("a `--once` run beside them".to_owned())
    }

    /// Wakes and starts everything, and waits until the `--once` runs are done and all services are up.
    pub fn all_up(&mut self) {
        for state in &mut self.states {
            match state {
                State::Frozen(_, until) | State::Down(until) => *until = Instant::now(),
                State::Up(..) | State::Stopping(..) => {}
            }
        }
        // Ends: whatever stops or runs has a limit of its own.
        while !self.once.is_empty() || !self.states.iter().all(|state| matches!(state, State::Up(..))) {
            self.look_after(false);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops all services, and expects each to end well and to report no less than its metrics did before.
    pub fn stop_all(&mut self) {
        let states = std::mem::take(&mut self.states);
        let stopping: Vec<_> = states
            .into_iter()
            .filter_map(|state| match state {
                State::Up(run, _) => Some((
                    metrics(&run.printed()[1]),
                    std::thread::spawn(move || run.signal(libc::SIGTERM)),
                )),
                _ => None,
            })
            .collect();
        for (before, run) in stopping {
            let outcome = run.join().expect("it ends when it is told to");
            self.ended("a service at the end", &outcome, &[0]);
            expect_at_least(&before, &outcome.report());
        }
    }

    /// Runs `--once` where nothing else does; returns what it counted of each table.
    pub fn last_once(&mut self) -> BTreeMap<String, Counts> {
        let outcome = Aperio::run(&self.dir, &[&ONCE[..], &RETRY_FOR].concat());
        self.ended("the last --once", &outcome, &[0]);
        Counts::of(&outcome.report())
    }

    /// How many commits the logs tell of, those of services that still run too.
    pub fn commits(&self) -> u64 {
        let running = self.states.iter().map(|state| match state {
            State::Up(run, _) | State::Frozen(run, _) => count(&run.printed()[1], COUNTED[0].1),
            State::Stopping(..) | State::Down(_) => 0,
        });
        self.seen.lines.get("commits").copied().unwrap_or_default() + running.sum::<u64>()
    }

    /// Keeps the log of what ended, and judges how it did.
    fn ended(&mut self, who: &str, outcome: &Outcome, expected: &[i32]) {
        self.logs += 1;
        let log = self.dir.join("logs").join(format!("{:04} {who}.log", self.logs));
        std::fs::write(&log, format!("{}\n{}", outcome.stderr, outcome.stdout)).expect("a log can be written");
        for (name, text) in COUNTED {
            *self.seen.lines.entry(name).or_default() += count(&outcome.stderr, text);
        }
        let end = match (outcome.code, outcome.signal) {
            (Some(code), _) => format!("exit {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "nothing".to_owned(),
        };
        let kind = who.trim_end_matches(|last: char| last.is_ascii_digit() || last == ' ');
        *self.seen.ends.entry(format!("{kind}: {end}")).or_default() += 1;
        let excused = self.last_outage.is_some_and(|(at, _)| at.elapsed() < EXCUSED_FOR);
        let may_be = match outcome.code {
            Some(4) => excused,
            Some(code) => expected.contains(&code),
            // Nobody else kills them.
            None => outcome.signal == Some(libc::SIGKILL) && expected.is_empty(),
        };
        if !may_be || outcome.code.is_some_and(|code| code != 0) {
            say!("{who} ended with {end}, log {}", log.display());
        }
        let lines: Vec<_> = outcome.stderr.lines().collect();
        let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        assert!(
            may_be,
            "{who} ended with {end}, which nothing done to it explains:\n{shown}"
        );
        assert!(!outcome.stderr.contains("panicked"), "{who} panicked:\n{shown}");
        if outcome.code.is_some() {
            self.seen.reports.take(&outcome.report());
        }
    }
}

impl Drop for Instances {
    /// Kills what runs and keeps its logs.
    fn drop(&mut self) {
        for (index, state) in self.states.drain(..).enumerate() {
            if let State::Up(run, _) | State::Frozen(run, _) = state {
                let log = self.dir.join("logs").join(format!("last of instance {index}.log"));
                // The folder may be gone, and there may be a panic under way already.
                let _ = std::fs::write(log, run.printed()[1].as_bytes());
            }
        }
    }
}

fn up(dir: &Path) -> State {
    State::Up(Aperio::start(dir, &[&SERVICE[..], &RETRY_FOR].concat()), Instant::now())
}

fn count(log: &str, text: &str) -> u64 {
    log.lines().filter(|line| line.contains(text)).count() as u64
}
