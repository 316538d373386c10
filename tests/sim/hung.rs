//! Parts of a process that stop without an error, at every moment: nobody waits for them without an end.

use aperio::error::Exit;

use crate::process::Choice;
use crate::scene::{Scene, in_turn};
use crate::world::{Compares, World};

/// More steps than a run needs until everything that it waits for is overdue: each idle one is 1.5 s of its time.
const STEPS_UNTIL_OVERDUE_MAX: u32 = 2_500;

/// Lets `steps` turns of `runs` runs pass, then something of the first hangs; returns how many turns there were before all
/// runs had ended of themselves, if they had by then.
///
/// - `hangs`: what; `None`: the whole process.
fn play(runs: usize, steps: u32, hangs: Option<Choice>) -> Option<u32> {
    let world = World::new(2, 14, Compares::Location);
    let mut scene = Scene::new(world, false, 8, false, Box::new(in_turn));
    (0..runs).for_each(|_| scene.add(true));
    scene.hung = true;
    for turn in 0..steps {
        if scene.processes.iter().all(Option::is_none) {
            return Some(turn);
        }
        for at in 0..runs {
            scene.step(at, &mut || None, &mut || true);
        }
    }
    let stopped = match (&mut scene.processes[0], hangs) {
        (None, _) => None,
        (Some(_), None) => Some(0),
        (Some(process), hangs) => {
            process.hangs = hangs;
            None
        }
    };
    for turn in 0.. {
        let what = format!("{runs} runs, {hangs:?} hangs after {steps} turns");
        assert!(turn < STEPS_UNTIL_OVERDUE_MAX, "{what}: no end after {turn} turns more");
        let mut works = false;
        for at in (0..runs).filter(|at| Some(*at) != stopped) {
            works |= scene.step(at, &mut || None, &mut || true);
        }
        if works {
            continue;
        }
        // Whoever waited for it says so, with the exit code for what may be there again later.
        let reached = scene.world.ledger().reaches(&scene.world.ends());
        let told = scene.failures.iter().all(|failure| failure.exit == Exit::Remote);
        assert!(told, "{what}: {:?}", scene.failures);
        assert!(reached || !scene.failures.is_empty(), "{what}: silence");
        return None;
    }
    None
}

fn at_every_moment(runs: usize, hangs: Option<Choice>) {
    let mut steps = 0;
    while play(runs, steps, hangs).is_none() {
        steps += 1;
    }
    assert!(steps > 40, "it was played at {steps} moments");
}

#[test]
fn a_holder_that_makes_no_progress_ends_those_that_wait_for_it() {
    at_every_moment(2, None);
}

#[test]
fn a_part_that_hangs_ends_its_run_and_those_beside_it() {
    for runs in [1, 2] {
        for hangs in [Choice::Work, Choice::Command, Choice::Fetch] {
            at_every_moment(runs, Some(hangs));
        }
    }
}
