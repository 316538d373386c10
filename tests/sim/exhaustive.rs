//! Every single fault and every pair of faults at every effect, of one run and of two runs side by side; and whatever
//! others do to the table, at every moment.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};

use aperio::units::Millis;

use crate::columns::{CHANGES, Change};
use crate::process::{FAULTS, Fault};
use crate::scene::{self, Scene, in_turn};
use crate::world::{Act, Compares, World};

/// More steps than the script needs with all faults of a play.
const STEPS_MAX: u32 = 4_000;

/// How many runs, and how they share the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cast {
    One,
    /// One consumer group: each has some of the partitions.
    TwoTogether,
    /// Two groups, by mistake: both read everything, and one is always overtaken.
    TwoApart,
    ThreeTogether,
    ThreeApart,
    /// One run of two pipelines, whose tables share a path and a dead-letter table.
    TwoPipelines,
}

impl Cast {
    fn runs(self) -> usize {
        match self {
            Cast::One | Cast::TwoPipelines => 1,
            Cast::TwoTogether | Cast::TwoApart => 2,
            Cast::ThreeTogether | Cast::ThreeApart => 3,
        }
    }

    fn apart(self) -> bool {
        matches!(self, Cast::TwoApart | Cast::ThreeApart)
    }
}

/// What happens when, counted in effects.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Fault(Fault),
    /// Others do something just before the effect.
    Act(Act),
    /// A partition moves to another member, in peace or by force.
    Rebalance(bool),
}

const REBALANCES: [Happening; 2] = [Happening::Rebalance(false), Happening::Rebalance(true)];

const ACTS: [Act; 13] = [
    Act::Undo,
    Act::Rollback(1),
    Act::Rollback(2),
    Act::Insert,
    Act::Compact,
    Act::Expire(1),
    Act::Forget,
    Act::Change(Change::Add),
    Act::CherryPick,
    Act::Partition,
    Act::Produce,
    // Below all that was read, and to where some of it was.
    Act::Truncate {
        nth: 0,
        sixths: 2,
        grows: 4,
    },
    Act::Truncate {
        nth: 1,
        sixths: 5,
        grows: 0,
    },
];

/// Plays one topic into one table; returns how many effects there were until all runs had ended, and how often a run gave
/// up because the table's history was cut.
///
/// - [`scene`] returns also how often windows were dropped.
fn play(cast: Cast, length: i64, compares: Compares, happenings: &[(u32, Happening)]) -> (u32, u32) {
    let played = std::panic::catch_unwind(|| scene(cast, length, compares, happenings, false));
    let (effects, gave_up, _) = played.unwrap_or_else(|cause| {
        eprintln!("{cast:?}, {compares:?}, {happenings:?}: played again with a trace");
        scene(cast, length, compares, happenings, true);
        std::panic::resume_unwind(cause)
    });
    (effects, gave_up)
}

fn scene(
    cast: Cast,
    length: i64,
    compares: Compares,
    happenings: &[(u32, Happening)],
    traced: bool,
) -> (u32, u32, u32) {
    let world = World::new(2, length, compares);
    let worlds = match cast {
        Cast::TwoPipelines => {
            let beside = world.beside(2, length, compares);
            vec![world, beside]
        }
        _ => vec![world],
    };
    let set = |world| Scene::new(world, cast.apart(), 8, traced, Box::new(in_turn));
    let mut scenes: Vec<_> = worlds.into_iter().map(set).collect();
    let runs = cast.runs();
    for scene in &mut scenes {
        (0..runs).for_each(|_| scene.add(true));
    }
    let played = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let effects = act_out(&mut scenes, runs, happenings);
        let drops = scenes.iter().map(|scene| scene.drops).sum();
        scene::end(&mut scenes);
        (effects, scenes.iter().map(|scene| scene.gave_up).sum(), drops)
    }));
    played.unwrap_or_else(|cause| {
        if traced {
            eprintln!("{}", scene::traces(&scenes).join("\n"));
        }
        std::panic::resume_unwind(cause)
    })
}

/// Lets the runs take turns until all have ended; returns how many effects there were. What others do, they do to the first
/// scene.
fn act_out(scenes: &mut [Scene], runs: usize, happenings: &[(u32, Happening)]) -> u32 {
    let mut effects = 0;
    let mut happened = 0;
    for step in 0.. {
        assert!(step < STEPS_MAX, "no end after {STEPS_MAX} steps");
        let mut processes = scenes.iter().flat_map(|scene| &scene.processes);
        if processes.all(Option::is_none) {
            break;
        }
        while let Some((at, happening)) = happenings.get(happened)
            && *at <= effects
        {
            match happening {
                Happening::Fault(_) => break,
                Happening::Act(act) => {
                    scenes[0].world.act(*act);
                    scenes[0].world.check();
                }
                Happening::Rebalance(lost) => {
                    let scene = &mut scenes[0];
                    let first = *scene.world.log.keys().next().expect("a topic has partitions");
                    (0..runs).for_each(|to| scene.rebalance(first, to, *lost));
                }
            }
            happened += 1;
        }
        let mut fault = || {
            let due = happenings.get(happened).filter(|(at, _)| *at <= effects);
            effects += 1;
            match due {
                Some((_, Happening::Fault(fault))) => {
                    happened += 1;
                    Some(*fault)
                }
                _ => None,
            }
        };
        let (turn, among) = (step as usize / scenes.len(), step as usize % scenes.len());
        let scene = &mut scenes[among];
        scene.step(turn % runs, &mut fault, &mut || false);
        // What is late arrives some time later, in the middle of what follows.
        if turn % 40 == 39 && !scene.world.in_transit.is_empty() {
            scene.world.arrive(0);
            scene.world.check();
        }
    }
    effects
}

/// Plays all of `plays`, on as many threads as there are cores.
fn play_all<T: Sync>(plays: &[T], play: impl Fn(&T) + Sync) {
    let next = AtomicU32::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(one) = plays.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    play(one);
                }
            });
        }
    });
}

/// Every pair of happenings of the two lists, the second later than the first.
fn pairs(effects: u32, first: &[Happening], second: &[Happening]) -> Vec<[(u32, Happening); 2]> {
    let mut found = Vec::new();
    for a in 0..effects {
        for b in a + 1..effects + 10 {
            for x in first {
                found.extend(second.iter().map(|y| [(a, *x), (b, *y)]));
            }
        }
    }
    found
}

/// Every happening of the list alone, at every effect.
fn singles(effects: u32, list: &[Happening]) -> Vec<[(u32, Happening); 1]> {
    let each = |at| list.iter().map(move |happening| [(at, *happening)]);
    (0..effects).flat_map(each).collect()
}

fn changes() -> Vec<Happening> {
    CHANGES
        .into_iter()
        .map(|change| Happening::Act(Act::Change(change)))
        .collect()
}

/// Offsets moved back, to where some of it is in the table, and forward; at once, and after a while.
fn resets() -> Vec<Happening> {
    let to = [(0, 0), (0, 3), (1, 6), (1, 4)];
    let each = |later| {
        to.into_iter()
            .map(move |(nth, sixths)| Happening::Act(Act::Reset { nth, sixths, later }))
    };
    each(false).chain(each(true)).collect()
}

fn faults() -> Vec<Happening> {
    FAULTS.into_iter().map(Happening::Fault).collect()
}

fn acts() -> Vec<Happening> {
    ACTS.into_iter().map(Happening::Act).collect()
}

#[test]
fn without_faults_every_record_is_there_once() {
    for cast in [Cast::One, Cast::TwoTogether, Cast::TwoApart, Cast::TwoPipelines] {
        let (effects, gave_up) = play(cast, 14, Compares::Location, &[]);
        assert!(
            effects > 20,
            "{cast:?}: the script has several windows, it took {effects} effects"
        );
        assert_eq!(gave_up, 0);
    }
}

#[test]
fn an_answer_that_was_lost_is_found_in_the_table_and_nothing_is_read_again() {
    let answers_lost: Vec<_> = (0..200).map(|at| (at, Happening::Fault(Fault::AnswerLost))).collect();
    let (effects, _) = play(Cast::One, 14, Compares::Location, &[]);
    let mut drops = 0;
    for first in 0..effects {
        // At the Kafka client and a line an answer that is lost is none at all, so every effect is fair game.
        for pair in answers_lost.windows(2).skip(first as usize).take(1) {
            drops += scene(Cast::One, 14, Compares::Location, pair, false).2;
        }
    }
    assert_eq!(drops, 0);
}

#[test]
fn a_commit_that_is_repeated_and_undone_in_between_is_read_again() {
    let (effects, _) = play(Cast::One, 14, Compares::Snapshot, &[]);
    for at in 0..effects {
        // The proxy's second request finds another snapshot in place of the first one's, whose files are gone.
        let happenings = [
            (at, Happening::Fault(Fault::Twice)),
            (at + 1, Happening::Act(Act::Undo)),
            (at + 1, Happening::Act(Act::Insert)),
        ];
        play(Cast::One, 14, Compares::Snapshot, &happenings);
    }
}

#[test]
fn two_faults_anywhere_lose_and_double_nothing() {
    let (effects, _) = play(Cast::One, 14, Compares::Location, &[]);
    play_all(&pairs(effects, &faults(), &faults()), |pair| {
        play(Cast::One, 14, Compares::Location, pair);
    });
}

#[test]
fn two_faults_anywhere_in_two_runs_side_by_side_lose_and_double_nothing() {
    for cast in [Cast::TwoTogether, Cast::TwoApart] {
        let (effects, _) = play(cast, 6, Compares::Snapshot, &[]);
        play_all(&pairs(effects, &faults(), &faults()), |pair| {
            play(cast, 6, Compares::Snapshot, pair);
        });
    }
}

#[test]
fn faults_anywhere_in_two_pipelines_that_share_a_path_and_letters_mix_nothing() {
    let fatal: Vec<_> = [Fault::CrashAfter, Fault::Late]
        .into_iter()
        .map(Happening::Fault)
        .collect();
    let (effects, _) = play(Cast::TwoPipelines, 6, Compares::Location, &[]);
    play_all(&pairs(effects, &fatal, &faults()), |pair| {
        play(Cast::TwoPipelines, 6, Compares::Location, pair);
    });
}

#[test]
fn a_rebalance_and_a_fault_anywhere_lose_and_double_nothing() {
    for cast in [Cast::TwoTogether, Cast::TwoApart] {
        let (effects, _) = play(cast, 6, Compares::Location, &[]);
        for pairs in [
            pairs(effects, &REBALANCES, &faults()),
            pairs(effects, &faults(), &REBALANCES),
            pairs(effects, &REBALANCES, &REBALANCES),
        ] {
            play_all(&pairs, |pair| {
                play(cast, 6, Compares::Location, pair);
            });
        }
    }
}

#[test]
fn a_fault_or_a_rebalance_anywhere_in_three_runs_side_by_side_loses_and_doubles_nothing() {
    for cast in [Cast::ThreeTogether, Cast::ThreeApart] {
        let (effects, _) = play(cast, 6, Compares::Snapshot, &[]);
        for plays in [singles(effects, &faults()), singles(effects, &REBALANCES)] {
            play_all(&plays, |one| {
                play(cast, 6, Compares::Snapshot, one);
            });
        }
    }
    let (effects, _) = play(Cast::ThreeTogether, 4, Compares::Snapshot, &[]);
    play_all(&pairs(effects, &REBALANCES, &faults()), |pair| {
        play(Cast::ThreeTogether, 4, Compares::Snapshot, pair);
    });
}

#[test]
fn columns_that_change_at_any_moment_lose_no_value() {
    for (cast, compares) in [(Cast::One, Compares::Snapshot), (Cast::TwoTogether, Compares::Location)] {
        let (effects, _) = play(cast, 10, compares, &[]);
        play_all(&singles(effects, &changes()), |one| {
            play(cast, 10, compares, one);
        });
    }
    let (effects, _) = play(Cast::One, 6, Compares::Snapshot, &[]);
    for pairs in [
        pairs(effects, &changes(), &faults()),
        pairs(effects, &changes(), &changes()),
    ] {
        play_all(&pairs, |pair| {
            play(Cast::One, 6, Compares::Snapshot, pair);
        });
    }
}

#[test]
fn offsets_that_a_person_moves_at_any_moment_double_and_skip_what_was_announced() {
    for compares in [Compares::Location, Compares::Snapshot] {
        let (effects, _) = play(Cast::TwoTogether, 10, compares, &[]);
        play_all(&singles(effects, &resets()), |one| {
            play(Cast::TwoTogether, 10, compares, one);
        });
    }
    let (effects, _) = play(Cast::One, 6, Compares::Snapshot, &[]);
    for pairs in [
        pairs(effects, &resets(), &faults()),
        pairs(effects, &faults(), &resets()),
        pairs(effects, &resets(), &resets()),
    ] {
        play_all(&pairs, |pair| {
            play(Cast::One, 6, Compares::Snapshot, pair);
        });
    }
}

#[test]
fn whatever_others_do_at_any_moment_with_a_fault_beside_it_loses_and_doubles_nothing() {
    let gave_up = AtomicU32::new(0);
    for compares in [Compares::Location, Compares::Snapshot] {
        let (effects, _) = play(Cast::One, 10, compares, &[]);
        for pairs in [pairs(effects, &acts(), &faults()), pairs(effects, &faults(), &acts())] {
            play_all(&pairs, |pair| {
                gave_up.fetch_add(play(Cast::One, 10, compares, pair).1, Ordering::Relaxed);
            });
        }
    }
    println!("gave up {gave_up:?} times, for a history that was cut");
}

#[test]
fn two_acts_of_others_anywhere_between_two_runs_lose_and_double_nothing() {
    let (effects, _) = play(Cast::TwoTogether, 5, Compares::Snapshot, &[]);
    let gave_up = AtomicU32::new(0);
    play_all(&pairs(effects, &acts(), &acts()), |pair| {
        gave_up.fetch_add(
            play(Cast::TwoTogether, 5, Compares::Snapshot, pair).1,
            Ordering::Relaxed,
        );
    });
    assert!(
        gave_up.into_inner() > 0,
        "some of these cut the history, and the run says so"
    );
}

/// A table in which everything is done, and a day later a run with these faults; returns how many effects it had.
fn play_a_day_later(after: Millis, faults: &[(u32, Fault)], expect_commits: u32) -> u32 {
    let mut scene = Scene::new(
        World::new(2, 14, Compares::Location),
        false,
        8,
        false,
        Box::new(in_turn),
    );
    scene.end();
    let (ledger, before) = (scene.world.ledger(), scene.world.commits);
    scene.world.now = scene.world.now.after(after);
    scene.add(true);
    let last = scene.processes.len() - 1;
    let mut effects = 0;
    for step in 0.. {
        assert!(step < STEPS_MAX, "faults {faults:?}: no end after {STEPS_MAX} steps");
        let mut fault = || {
            effects += 1;
            faults.iter().find(|(at, _)| at + 1 == effects).map(|(_, fault)| *fault)
        };
        if !scene.step(last, &mut fault, &mut || false) {
            break;
        }
    }
    while !scene.world.in_transit.is_empty() {
        scene.world.arrive(0);
    }
    assert_eq!(scene.world.commits, before + expect_commits, "faults {faults:?}");
    assert_eq!(scene.world.ledger(), ledger, "faults {faults:?}");
    effects
}

#[test]
fn a_run_with_nothing_new_commits_nothing() {
    play_a_day_later(Millis(1_000), &[], 0);
}

#[test]
fn after_a_quiet_day_the_ledger_is_written_once_more_whatever_fails() {
    let day = Millis(24 * 60 * 60 * 1000 + 60_000);
    for at in 0..play_a_day_later(day, &[], 1) {
        for fault in FAULTS {
            play_a_day_later(day, &[(at, fault)], 1);
        }
    }
}
