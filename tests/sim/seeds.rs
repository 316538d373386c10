//! Random schedules of two and three processes on one pipeline: interleaved steps, faults, rebalances, zombies.

use aperio::run::{Event, Outcome};
use aperio::units::Millis;

use crate::process::{FAULTS, Process, Stepped};
use crate::world::World;

/// Seeds played in CI; `APERIO_SIM_SEEDS=1000000` plays more.
const SEEDS_DEFAULT: u64 = 3_000;

/// Steps with faults; after them the world is kind.
const STEPS_WITH_FAULTS: u32 = 400;

/// Steps in which all processes together must be done once faults have stopped.
const STEPS_MAX: u32 = 20_000;

/// SplitMix64: small, seedable, the same everywhere. Source: Steele, Lea and Flood, OOPSLA 2014.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }
}

/// Plays one seed; returns everything that happened, for comparison.
fn play(seed: u64) -> Vec<String> {
    let mut dice = Dice(seed);
    let mut world = World::new(1 + dice.roll(3) as i32, 6 + dice.roll(40) as i64);
    let many = 1 + dice.roll(3) as usize;
    let mut started = 0_u128;
    let mut processes: Vec<Option<Process>> = (0..many).map(|_| Some(launch(&mut world, &mut started))).collect();
    let mut trace = Vec::new();
    for step in 0..STEPS_MAX {
        let kind = step >= STEPS_WITH_FAULTS;
        let at = dice.roll(many as u64) as usize;
        let Some(process) = &mut processes[at] else {
            if processes.iter().all(Option::is_none) {
                world.check_complete();
                return trace;
            }
            continue;
        };
        if !kind && dice.roll(40) == 0 {
            rebalance(process, &mut dice);
        }
        if !world.in_transit.is_empty() && dice.roll(10) == 0 {
            let plan = world.in_transit.remove(0);
            let _ = world.swap(&plan);
            world.check();
        }
        let fault = (!kind && dice.roll(12) == 0).then(|| FAULTS[dice.roll(FAULTS.len() as u64) as usize]);
        let stepped = process.step(&mut world, fault);
        world.check();
        trace.append(&mut process.trace);
        match stepped {
            Stepped::Alive => {}
            Stepped::Finished(Outcome::Done) => processes[at] = None,
            // Overtaken three times in a row: cron would start it again.
            Stepped::Finished(_) | Stepped::Crashed => processes[at] = Some(launch(&mut world, &mut started)),
        }
    }
    panic!(
        "seed {seed}: not done after {STEPS_MAX} steps; the last:\n{}",
        trace[trace.len().saturating_sub(60)..].join("\n")
    );
}

/// Starts a process; before every third one two days pass, so that the ledger is due to be written again.
fn launch(world: &mut World, started: &mut u128) -> Process {
    *started += 1;
    if started.is_multiple_of(3) {
        world.now = world.now.after(Millis(2 * 24 * 60 * 60 * 1000));
    }
    Process::start(world, *started, true)
}

/// Takes partitions away and gives them back, with or without time to say goodbye.
fn rebalance(process: &mut Process, dice: &mut Dice) {
    let partitions = process.members.clone();
    process.tell(Event::Revoked {
        partitions: partitions.clone(),
        lost: dice.roll(2) == 0,
    });
    process.tell(Event::Assigned(partitions));
}

fn seeds() -> u64 {
    std::env::var("APERIO_SIM_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(SEEDS_DEFAULT)
}

#[test]
fn random_schedules_lose_and_double_nothing() {
    for seed in 0..seeds() {
        let played = std::panic::catch_unwind(|| play(seed));
        if let Err(cause) = played {
            eprintln!("seed {seed} failed");
            std::panic::resume_unwind(cause);
        }
    }
}

#[test]
fn the_same_seed_plays_the_same_history() {
    for seed in [1, 7, 42] {
        assert_eq!(play(seed), play(seed), "seed {seed}");
    }
}
