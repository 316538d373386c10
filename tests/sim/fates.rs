//! What became of each record, and which letters needn't fit that.
//!
//! What a record is, the pipeline file decides, and processes may have different ones. What counts is the last commit that
//! read the record: a letter stands for it, once, where that made none of it but a reject. Where it made something else, a letter
//! may stand as long as the table's ledger names it. The letters are in another table, so there are cases in which that
//! isn't so. Each has its name here, and nothing else is excused.

use std::collections::{BTreeMap, BTreeSet};

use aperio::offsets::{LeaderEpoch, RecordAt};
use aperio::table::WindowId;

use crate::letters::{LetterBase, Records};
use crate::world::{At, Entry};

/// What the commits of one snapshot's ancestry made of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    /// Commits that read it and made no row of it.
    pub no_row: u32,
    /// What the last one made of it.
    pub last: Entry,
}

pub type Fates = BTreeMap<At, Fate>;

/// Why a letter is where it needn't be, or isn't where it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Excuse {
    /// There: it was stored for a window that another run overtook, when that one had looked for the letters that its commit
    /// would supersede.
    StoredLate,
    /// There or gone: others moved the table to a snapshot in which the record is something else; letters don't move with it.
    TableMoved,
    /// Gone: it was taken back rightly, then others moved the table back over the commit that had superseded it, and a run that
    /// had found or stored it before commits the record as a reject.
    TakenBackBeforeMove,
    /// Gone in the same way, but that others moved the table between the load that told to take it back and that.
    TakenBackAfterMove,
    /// Gone: the log was cut, and of runs that had read it before and after that, one has put its letter of this offset in the
    /// place of the other's.
    ReadBesideCut,
}

pub const EXCUSES: [Excuse; 5] = [
    Excuse::StoredLate,
    Excuse::TableMoved,
    Excuse::TakenBackBeforeMove,
    Excuse::TakenBackAfterMove,
    Excuse::ReadBesideCut,
];

/// What is excused is by moments of the dead-letter table: as it was loaded, or as a swap left it.
type Moment = LetterBase;

/// The last time that a letter was taken back.
struct TakenBack {
    moment: Moment,
    /// How often others had moved the table by then.
    moves: u32,
    excuse: Excuse,
}

/// The letters that are excused.
#[derive(Default)]
pub struct Excused {
    /// They are there and may stay.
    left: BTreeSet<At>,
    /// They aren't there.
    gone: BTreeSet<At>,
    stored: BTreeMap<At, Moment>,
    taken: BTreeMap<At, TakenBack>,
    /// Another record's letter has taken their place.
    replaced: BTreeMap<At, Moment>,
    /// When it was looked which letters the commit of a window would supersede.
    looks: BTreeMap<WindowId, Moment>,
    /// How often others have moved the table, or its offsets.
    pub moves: u32,
    /// How many letters were excused, and why.
    pub counts: BTreeMap<Excuse, u32>,
    /// How many were taken back.
    pub taken_back: u32,
    /// How many made room for another record's.
    pub made_room: u32,
}

fn place(at: At) -> RecordAt {
    (at.0, at.1)
}

/// Whether the last commit that read a record at this place, under whatever leader, made something else of it than a reject.
fn superseded(fates: &Fates, at: At) -> bool {
    let (first, last) = ((at.0, at.1, LeaderEpoch(0)), (at.0, at.1, LeaderEpoch(i32::MAX)));
    fates.get(&at).is_none_or(|fate| fate.last != Entry::Reject)
        && fates.range(first..=last).any(|(_, fate)| fate.last != Entry::Reject)
}

impl Excused {
    /// A run has looked which letters the commit of these windows supersedes.
    pub fn looked(&mut self, windows: &[WindowId], moment: Moment) {
        self.looks.extend(windows.iter().map(|window| (*window, moment)));
    }

    /// A commit of this window made this of a record.
    ///
    /// - `named`: the ledger of the commit says that its letter is to be taken back.
    pub fn committed(&mut self, window: WindowId, at: At, made: Entry, named: bool, letters: &Records) {
        let there = letters.contains_key(&at);
        let look = self.looks.get(&window);
        self.left.remove(&at);
        self.gone.remove(&at);
        if made == Entry::Reject && !there {
            if look < self.replaced.get(&at) {
                self.miss(at, Excuse::ReadBesideCut);
            } else if let Some(taken) = self.taken.get(&at)
                && look < Some(&taken.moment)
                && taken.moves < self.moves
            {
                self.miss(at, taken.excuse);
            }
        } else if made != Entry::Reject && there && !named && look < self.stored.get(&at) {
            self.leave(at, Excuse::StoredLate);
        }
    }

    fn leave(&mut self, at: At, why: Excuse) {
        if self.left.insert(at) {
            *self.counts.entry(why).or_default() += 1;
        }
    }

    fn miss(&mut self, at: At, why: Excuse) {
        if self.gone.insert(at) {
            *self.counts.entry(why).or_default() += 1;
        }
    }

    /// A letter is stored.
    pub fn stored(&mut self, at: At, fates: &Fates, moment: Moment) {
        self.stored.insert(at, moment);
        self.gone.remove(&at);
        if fates.get(&at).is_some_and(|fate| fate.last != Entry::Reject) {
            self.leave(at, Excuse::StoredLate);
        }
    }

    /// A letter is taken back.
    ///
    /// - `named`: the ledger says so.
    /// - `moves`: how often others had moved the table when it was loaded for that.
    pub fn taken_back(&mut self, at: At, fates: &Fates, named: bool, moves: u32, moment: Moment) {
        self.left.remove(&at);
        self.taken_back += 1;
        let rightly = named || superseded(fates, at);
        assert!(
            rightly || moves < self.moves,
            "the letter of record {at:?} is taken back, and no commit has superseded it"
        );
        let (moves, excuse) = match rightly {
            true => (self.moves, Excuse::TakenBackBeforeMove),
            false => (moves, Excuse::TakenBackAfterMove),
        };
        let taken = TakenBack { moment, moves, excuse };
        self.taken.insert(at, taken);
        if fates.get(&at).is_some_and(|fate| fate.last == Entry::Reject) {
            self.miss(at, excuse);
        }
    }

    /// A letter makes room for that of another record at its offset.
    pub fn replaced(&mut self, at: At, fates: &Fates, moment: Moment) {
        self.left.remove(&at);
        self.made_room += 1;
        self.replaced.insert(at, moment);
        if fates.get(&at).is_some_and(|fate| fate.last == Entry::Reject) {
            self.miss(at, Excuse::ReadBesideCut);
        }
    }

    /// Others have moved the table to where records were this, or its offsets.
    ///
    /// - `named`: the letters that the ledger says are to be taken back.
    pub fn moved(&mut self, fates: &Fates, named: &BTreeSet<RecordAt>, letters: &Records) {
        self.moves += 1;
        for (at, fate) in fates {
            let there = letters.contains_key(at);
            if fate.last == Entry::Reject {
                self.left.remove(at);
                if !there {
                    self.miss(*at, Excuse::TableMoved);
                }
            } else if there && !named.contains(&place(*at)) {
                self.leave(*at, Excuse::TableMoved);
            }
        }
    }

    /// Panics if letters are left of these records.
    pub fn assert_taken_back(&self, stale: &BTreeSet<RecordAt>, letters: &Records) {
        let of_these = |at: &&At| stale.contains(&place(**at)) && !self.left.contains(at);
        let left: Vec<_> = letters.keys().filter(of_these).collect();
        assert!(left.is_empty(), "letters that should have been taken back: {left:?}");
    }

    /// Panics unless letters stand for all rejects and for nothing else.
    ///
    /// - `named`: the letters that the ledger says are to be taken back.
    /// - `renamed`: whether a table that was renamed holds a letter of a record.
    pub fn check(&self, fates: &Fates, named: &BTreeSet<RecordAt>, letters: &Records, renamed: impl Fn(At) -> bool) {
        for (at, times) in letters {
            assert_eq!(*times, 1, "letters of record {at:?}");
        }
        let mut places = letters.keys().map(|at| place(*at));
        let mut last = places.next();
        for place in places {
            assert_ne!(last.replace(place), Some(place), "two letters have one key");
        }
        for (at, fate) in fates {
            let there = letters.contains_key(at);
            if fate.last == Entry::Reject {
                assert!(
                    there || self.gone.contains(at) || renamed(*at),
                    "record {at:?} is a reject, and there is no letter of it"
                );
            } else {
                let excused = named.contains(&place(*at)) || self.left.contains(at);
                assert!(
                    !there || excused,
                    "record {at:?} became {:?}, and there is a letter of it that nobody takes back",
                    fate.last
                );
            }
        }
    }
}
