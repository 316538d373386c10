//! Holds back warnings and errors that come again and again, of ours and of librdkafka's: what happens ten thousand times a
//! second must not fill a disk.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::fmt::{self, Write as _};
use std::hash::{Hash as _, Hasher as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// How many lines that are alike but for their numbers are written within [`PERIOD`]: enough to see a pattern.
const LINES_MAX: u64 = 10;

/// The time that lines are counted over. Once it is over, the next is written again, with the number of those held back.
const PERIOD: Duration = Duration::from_secs(60);

/// Kinds of lines that are known at a time; there are some hundred places in the program that write one.
const KINDS_MAX: usize = 1_000;

/// The target of the lines about lines, which are never held back.
const TARGET: &str = "aperio::repeats";

/// Lets a line through, or holds it back.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// A mutex, since lines are written by all threads; held for a look into a map.
    kinds: Mutex<Kinds>,
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let about = event.metadata();
        if *about.level() > Level::WARN || about.target() == TARGET {
            return true;
        }
        let mut words = Words::default();
        event.record(&mut words);
        let mut kind = DefaultHasher::new();
        about.callsite().hash(&mut kind);
        words.text.hash(&mut kind);
        let verdict = self
            .kinds
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .look(kind.finish(), Instant::now());
        match verdict {
            Verdict::Write { held: 0 } => true,
            Verdict::Write { held } => {
                warn!(target: TARGET, held, "lines like the next were held back");
                true
            }
            Verdict::Last => {
                warn!(target: TARGET, "lines like the next come often: more of them are held back for a minute");
                true
            }
            Verdict::Hold => false,
        }
    }
}

/// What is to be done with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Write it; so many like it weren't written since the last that was.
    Write {
        held: u64,
    },
    /// Write it, the last for now.
    Last,
    Hold,
}

/// How often each kind of line came.
#[derive(Debug, Default)]
struct Kinds(HashMap<u64, Seen>);

#[derive(Debug)]
struct Seen {
    since: Instant,
    lines: u64,
}

impl Kinds {
    fn look(&mut self, kind: u64, now: Instant) -> Verdict {
        if self.0.len() >= KINDS_MAX && !self.0.contains_key(&kind) {
            self.0.retain(|_, seen| now.duration_since(seen.since) < PERIOD);
            if self.0.len() >= KINDS_MAX {
                self.0.clear(); // A few lines more than allowed are written, and the memory has its bound.
            }
        }
        let mut seen = match self.0.entry(kind) {
            Entry::Occupied(seen) => seen,
            Entry::Vacant(new) => {
                new.insert(Seen { since: now, lines: 1 });
                return Verdict::Write { held: 0 };
            }
        };
        let seen = seen.get_mut();
        if now.duration_since(seen.since) >= PERIOD {
            let held = seen.lines.saturating_sub(LINES_MAX);
            *seen = Seen { since: now, lines: 1 };
            return Verdict::Write { held };
        }
        seen.lines += 1;
        match seen.lines {
            ..LINES_MAX => Verdict::Write { held: 0 },
            LINES_MAX => Verdict::Last,
            _ => Verdict::Hold,
        }
    }
}

/// The words of a line, with one sign for each number, offset or id.
#[derive(Debug, Default)]
struct Words {
    text: String,
}

impl Words {
    fn add(&mut self, text: &str) {
        for word in text.split_inclusive(|letter: char| !(letter.is_ascii_hexdigit() || letter == '-')) {
            let mut letters = word.chars();
            let end = letters.next_back().filter(|letter| !letter.is_ascii_hexdigit());
            if word.bytes().any(|byte| byte.is_ascii_digit()) {
                self.text.push('#');
                self.text.extend(end);
            } else {
                self.text.push_str(word);
            }
        }
        self.text.push('\n');
    }
}

impl Visit for Words {
    fn record_str(&mut self, _: &Field, value: &str) {
        self.add(value);
    }

    fn record_debug(&mut self, _: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // A string takes everything.
        let _ = write!(text, "{value:?}");
        self.add(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_alike_are_written_a_few_times_in_a_minute_and_counted() {
        let (mut kinds, begin) = (Kinds::default(), Instant::now());
        let verdicts: Vec<Verdict> = (0..LINES_MAX + 5).map(|_| kinds.look(7, begin)).collect();
        let written = verdicts
            .iter()
            .filter(|verdict| **verdict == Verdict::Write { held: 0 });
        assert_eq!(written.count() as u64, LINES_MAX - 1);
        assert_eq!(verdicts[LINES_MAX as usize - 1], Verdict::Last);
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Hold).count(), 5);
        assert_eq!(kinds.look(8, begin), Verdict::Write { held: 0 });
        assert_eq!(kinds.look(7, begin + PERIOD), Verdict::Write { held: 5 });
        assert_eq!(kinds.look(7, begin + PERIOD), Verdict::Write { held: 0 });
    }

    #[test]
    fn kinds_have_a_bound() {
        let (mut kinds, begin) = (Kinds::default(), Instant::now());
        for kind in 0..10 * KINDS_MAX as u64 {
            kinds.look(kind, begin);
            assert!(kinds.0.len() <= KINDS_MAX);
        }
    }

    #[test]
    fn numbers_and_ids_make_no_difference() {
        let words = |text: &str| {
            let mut words = Words::default();
            words.add(text);
            words.text
        };
        assert_eq!(words("offset 12 (0xdead1) of t/3"), words("offset 8 (0xb1) of t/11"));
        assert_eq!(words("file 0190a-7b2-c.parquet"), words("file 1-1.parquet"));
        assert_ne!(words("added"), words("faced"));
    }
}
