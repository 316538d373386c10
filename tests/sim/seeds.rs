//! Random schedules of one to three processes on one pipeline, or on two that share store and letters: interleaved steps, faults, rebalances, zombies, and others
//! who work on the table.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aperio::table::ledger::stored::Form;

use crate::columns::CHANGES;
use crate::dice::Dice;
use crate::fates::{EXCUSES, Excuse};
use crate::process::{FAULTS, Order};
use crate::scene::{self, Scene};
use crate::world::{Act, Compares, PipelineFile, World};

/// Seeds played in CI; `APERIO_SIM_SEEDS=1000000` plays more.
const SEEDS_DEFAULT: u64 = 6_000;

/// Steps with faults; after them the world is kind.
const STEPS_WITH_FAULTS: u64 = 700;

/// What one seed came to.
#[derive(Default)]
struct Played {
    trace: Vec<String>,
    commits: u32,
    gave_up: u32,
    gave_way: u32,
    resets: u32,
    truncations: u32,
    unknown_offsets: u32,
    taken_back: u32,
    made_room: u32,
    excused: BTreeMap<Excuse, u32>,
}

fn play(seed: u64, traced: bool) -> Played {
    let mut dice = Dice(seed);
    let compares = if dice.once_in(2) {
        Compares::Location
    } else {
        Compares::Snapshot
    };
    let mut world = World::new(1 + dice.roll(3) as i32, 6 + dice.roll(40) as i64, compares);
    if dice.once_in(2) {
        // As a topic of a thousand partitions has it.
        world.form_of_ledger = Form {
            spare_bytes: 0,
            steps_max: 1 + dice.roll(4) as u32,
        };
    }
    let runs = 1 + dice.index(3);
    let (apart, batch_size) = (dice.once_in(4), 3 + dice.roll(12));
    // Faults and acts of others are rare in some schedules and crowd in others.
    let (fault_in, act_in, rebalance_in) = (4 + dice.roll(60), 20 + dice.roll(400), 15 + dice.roll(100));
    // Of its own, so that a schedule of one pipeline stays what it is.
    let mut pipelines = Dice(seed ^ 0x5A5A);
    let worlds = if pipelines.once_in(3) {
        let beside = world.beside(1 + pipelines.roll(2) as i32, 6 + pipelines.roll(20) as i64, compares);
        vec![world, beside]
    } else {
        vec![world]
    };
    let scenes = worlds.into_iter().zip(0..).map(|(world, nth)| {
        let (mut orders, mut files) = (Dice(seed ^ 0xA5A5 ^ nth), Dice(pipelines.roll(u64::MAX)));
        let launch = move |_| {
            let order = Order::Dice(Dice(orders.roll(u64::MAX)));
            let mended = files.once_in(2);
            let file = if mended {
                PipelineFile::Mended
            } else {
                PipelineFile::Broken
            };
            (order, file)
        };
        Scene::new(world, apart, batch_size, traced, Box::new(launch))
    });
    let mut scenes: Vec<_> = scenes.collect();
    for _ in 0..runs {
        let once = !dice.once_in(4);
        scenes.iter_mut().for_each(|scene| scene.add(once));
    }
    let played = std::panic::catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..dice.roll(STEPS_WITH_FAULTS) {
            let scene = match &mut scenes[..] {
                [scene] => scene,
                scenes => &mut scenes[pipelines.index(2)],
            };
            if dice.once_in(rebalance_in) {
                let partition = *scene
                    .world
                    .log
                    .keys()
                    .nth(dice.index(scene.world.log.len()))
                    .expect("in range");
                scene.rebalance(partition, dice.index(runs), dice.once_in(2));
            }
            if !scene.world.in_transit.is_empty() && dice.once_in(10) {
                let index = dice.index(scene.world.in_transit.len());
                scene.world.arrive(index);
                scene.world.check();
            }
            if dice.once_in(act_in) {
                let act = act(&mut dice);
                if scene.world.act(act) {
                    scene.trace.push(format!("* {act:?}"));
                }
                scene.world.check();
            }
            if dice.once_in(200) {
                scene.stop(dice.index(runs));
            }
            let (mut a, mut b) = (Dice(dice.roll(u64::MAX)), Dice(dice.roll(u64::MAX)));
            let mut fault = || a.once_in(fault_in).then(|| FAULTS[a.index(FAULTS.len())]);
            scene.step(dice.index(runs), &mut fault, &mut || b.once_in(2));
        }
        scene::end(&mut scenes);
    }));
    if let Err(cause) = played {
        if traced {
            eprintln!("{}", scene::traces(&scenes).join("\n"));
        }
        std::panic::resume_unwind(cause);
    }
    let mut played = Played {
        trace: scene::traces(&scenes),
        ..Played::default()
    };
    for scene in &scenes {
        let excused = &scene.world.excused;
        played.commits += scene.world.commits;
        played.gave_up += scene.gave_up;
        played.gave_way += scene.gave_way;
        played.resets += scene.world.resets;
        played.truncations += scene.world.truncations;
        played.unknown_offsets += scene.world.unknown_offsets;
        played.taken_back += excused.taken_back;
        played.made_room += excused.made_room;
        for (why, letters) in &excused.counts {
            *played.excused.entry(*why).or_default() += letters;
        }
    }
    played
}

fn act(dice: &mut Dice) -> Act {
    match dice.roll(20) {
        0 | 1 => Act::Rollback(1 + dice.index(4)),
        2 | 3 => Act::Insert,
        4 | 5 => Act::Compact,
        6 | 7 => Act::Expire(1 + dice.index(3)),
        8 | 14 | 15 => Act::Change(CHANGES[dice.index(CHANGES.len())]),
        16 | 17 => Act::Reset {
            nth: dice.index(4),
            sixths: dice.roll(7) as i64,
            later: dice.once_in(2),
        },
        9 => Act::CherryPick,
        18 | 19 => Act::Truncate {
            nth: dice.index(4),
            sixths: 3 + dice.roll(4) as i64,
            grows: dice.roll(12) as i64,
        },
        10 => Act::Partition,
        12 => Act::Undo,
        11 => Act::Forget,
        _ => Act::Produce,
    }
}

fn seeds() -> u64 {
    std::env::var("APERIO_SIM_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(SEEDS_DEFAULT)
}

#[test]
fn random_schedules_lose_and_double_nothing() {
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let [commits, gave_up, gave_way, resets, truncations, taken_back, made_room] = [(); 7].map(|()| AtomicU64::new(0));
    let excused = BTreeMap::from(EXCUSES.map(|why| (why, AtomicU64::new(0))));
    let seeds = seeds();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || failed.load(Ordering::Relaxed) {
                        return;
                    }
                    match std::panic::catch_unwind(|| play(seed, false)) {
                        Ok(played) => {
                            commits.fetch_add(played.commits.into(), Ordering::Relaxed);
                            gave_up.fetch_add(played.gave_up.into(), Ordering::Relaxed);
                            gave_way.fetch_add(played.gave_way.into(), Ordering::Relaxed);
                            resets.fetch_add(played.resets.into(), Ordering::Relaxed);
                            truncations.fetch_add(played.truncations.into(), Ordering::Relaxed);
                            taken_back.fetch_add(played.taken_back.into(), Ordering::Relaxed);
                            made_room.fetch_add(played.made_room.into(), Ordering::Relaxed);
                            for (why, letters) in played.excused {
                                excused[&why].fetch_add(letters.into(), Ordering::Relaxed);
                            }
                        }
                        Err(_) if failed.swap(true, Ordering::Relaxed) => return,
                        Err(cause) => {
                            eprintln!("seed {seed} failed; once more, with all that happened:");
                            play(seed, true);
                            std::panic::resume_unwind(cause);
                        }
                    }
                }
            });
        }
    });
    println!(
        "{seeds} seeds, {commits:?} commits, {resets:?} resets, {truncations:?} logs cut; a run gave up {gave_up:?} times, for \
         a history or a log that was cut, and gave way {gave_way:?} times; {taken_back:?} letters taken back, {made_room:?} made room for others', and excused: {excused:?}"
    );
    assert!(commits.into_inner() > seeds, "the schedules commit something");
    assert!(resets.into_inner() > 0, "some schedules move the offsets");
    assert!(truncations.into_inner() > 0, "some schedules cut a log");
    assert!(
        taken_back.into_inner() > 0,
        "some records are rejects first, and rows then"
    );
    assert!(
        made_room.into_inner() > 0,
        "some logs lose rejects that were never committed"
    );
    assert!(gave_way.into_inner() > 0, "some runs are overtaken again and again");
    assert!(gave_up.into_inner() > 0, "some schedules cut the table's history");
}

#[test]
fn a_publication_does_not_wait_for_offsets_that_nobody_knows() {
    // It went on trying until `--retry-for`, for a table that only a person can mend.
    let played = play(2_450, false);
    assert!(played.unknown_offsets > 0, "this seed doesn't come to it any more");
}

#[test]
fn the_same_seed_plays_the_same_history() {
    for seed in [1, 7, 42] {
        assert_eq!(play(seed, true).trace, play(seed, true).trace, "seed {seed}");
    }
}
