//! Every single fault, and every pair of faults, at every action of a run of several windows.

use aperio::run::Outcome;
use aperio::units::Millis;

use crate::process::{FAULTS, Fault, Process, Stepped};
use crate::world::World;

/// More steps than any run with two faults needs; reaching it means that a run wedged.
const STEPS_MAX: u32 = 3_000;

/// Plays one topic into one table with the given faults, by the number of the action they hit; a crashed process is
/// started again. Returns how many actions were performed.
fn play(faults: &[(u32, Fault)]) -> u32 {
    play_in(&mut World::new(2, 14), faults)
}

/// The same in a world that may have a past.
fn play_in(world: &mut World, faults: &[(u32, Fault)]) -> u32 {
    let mut processes = 1 + world.commits() as u128;
    let mut process = Process::start(world, processes, true);
    let mut actions = 0;
    for _ in 0..STEPS_MAX {
        let mut fault = None;
        if process.has_actions() {
            fault = faults.iter().find(|(at, _)| *at == actions).map(|(_, fault)| *fault);
            actions += 1;
        }
        let stepped = process.step(world, fault);
        world.check();
        match stepped {
            Stepped::Alive => {}
            Stepped::Finished(Outcome::Done) => {
                arrive_late(world);
                world.check_complete();
                return actions;
            }
            Stepped::Finished(outcome) => panic!("the run ended as {outcome:?}\n{}", process.trace.join("\n")),
            Stepped::Crashed => {
                arrive_late(world);
                world.check();
                processes += 1;
                process = Process::start(world, processes, true);
            }
        }
    }
    panic!(
        "faults {faults:?}: no end after {STEPS_MAX} steps\n{}",
        process.trace.join("\n")
    );
}

/// Requests that were under way reach the catalog after all.
fn arrive_late(world: &mut World) {
    for plan in std::mem::take(&mut world.in_transit) {
        let _ = world.swap(&plan);
    }
}

#[test]
fn without_faults_every_record_is_there_once() {
    let actions = play(&[]);
    assert!(
        actions > 20,
        "the script has several windows, it took {actions} actions"
    );
}

/// A table in which everything is done, and how many commits that took.
fn finished() -> (World, usize) {
    let mut world = World::new(2, 14);
    play_in(&mut world, &[]);
    let commits = world.commits();
    (world, commits)
}

#[test]
fn a_run_with_nothing_new_commits_nothing() {
    let (mut world, before) = finished();
    play_in(&mut world, &[]);
    assert_eq!(world.commits(), before);
}

#[test]
fn after_a_quiet_day_the_ledger_is_written_once_more_whatever_fails() {
    let play_later = |faults: &[(u32, Fault)]| {
        let (mut world, before) = finished();
        let (ledger, day) = (world.ledger(), Millis(24 * 60 * 60 * 1000));
        world.now = world.now.after(day).after(Millis(1));
        let actions = play_in(&mut world, faults);
        assert_eq!(world.commits(), before + 1, "faults {faults:?}");
        assert_eq!(world.ledger(), ledger, "faults {faults:?}");
        actions
    };
    for at in 0..play_later(&[]) {
        for fault in FAULTS {
            play_later(&[(at, fault)]);
        }
    }
}

#[test]
fn one_fault_anywhere_loses_and_doubles_nothing() {
    let actions = play(&[]);
    for at in 0..actions {
        for fault in FAULTS {
            play(&[(at, fault)]);
        }
    }
}

#[test]
fn two_faults_anywhere_lose_and_double_nothing() {
    let actions = play(&[]);
    for first in 0..actions {
        for second in first + 1..actions + 12 {
            for a in FAULTS {
                for b in FAULTS {
                    play(&[(first, a), (second, b)]);
                }
            }
        }
    }
}
