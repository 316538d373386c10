//! `kill -9` and SIGTERM at every step of a run, on real servers: before and after each effect, and in the middle of those
//! that have one. Then the same command again, and the table equals the topic.
//!
//! The places are those of `src/kill_points.rs`; a run is killed by itself, at exactly that place, with SIGKILL.

#[cfg(not(feature = "failpoints"))]
#[test]
fn killed_at_every_step_and_resumed_nothing_is_lost_or_doubled() {
    panic!(
        "this program can't be killed at its steps: run `make test`, or `cargo test --locked --features failpoints`"
    );
}

#[cfg(feature = "failpoints")]
pub mod with_failpoints {
    use std::collections::BTreeMap;
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    use aperio::kill_points::{Effect, KillPoint, Place};
    use clap::ValueEnum;
    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer};

    use crate::aperio::{Aperio, Workspace};
    use crate::produce::{self, Record};
    use crate::readers::{self, Catalog};
    use crate::servers::{Kafka, RestCatalog};
    use crate::setup;

    /// Records that become rows, of each topic.
    const RECORDS: i64 = 600;

    /// `batchSize` where there are to be many windows.
    const SMALL_BATCH: usize = 20;

    /// Offsets of the records that can't: the first of each partition.
    const POISON: [&str; 3] = ["0/0", "1/0", "2/0"];

    /// The run that is killed.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Scene {
        /// The very first run, all in one window.
        First,
        /// The records bring a field that the table of an earlier run doesn't have.
        NewField,
        /// Many windows, and a slow catalog.
        Crowded,
        /// Another run commits everything while this one holds a sealed window.
        Overtaken,
        /// More records come after the run has looked where the topic ends.
        Beyond,
        /// A service whose partitions are taken away while it fills a window.
        Revoked,
        /// A service, many windows: it ends only because it is asked to.
        Serving,
    }

    /// What a killed run may leave behind for orphan cleanup.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Leaves {
        Nothing,
        /// A window's data file, its letters' file, the manifests of one attempt.
        Files,
        /// Those of several windows.
        Windows,
    }

    #[derive(Clone, Copy, Debug)]
    struct Kill {
        /// SIGKILL or SIGTERM.
        signal: i32,
        point: KillPoint,
        /// How often the place is passed before.
        passed: u32,
        scene: Scene,
        leaves: Leaves,
    }

    /// How a run gets to a place, and which time it dies there. In the first run the start is committed first, then the
    /// letters, then the window.
    fn kills(point: KillPoint) -> Vec<Kill> {
        use Leaves::{Files, Nothing, Windows};
        use Scene::{Beyond, Crowded, First, NewField, Overtaken, Revoked};
        let kills: &[(u32, Scene, Leaves)] = match point {
            KillPoint::Before(effect) | KillPoint::After(effect) => match effect {
                Effect::ResolveStart | Effect::Join | Effect::Read | Effect::Take => &[(0, First, Nothing)],
                Effect::Discard => &[(0, Beyond, Windows)],
                Effect::Seal | Effect::Prepare => &[(0, First, Files)],
                // For the start, for the assignment, for the window.
                Effect::Load => &[(0, First, Nothing), (1, First, Nothing), (2, First, Files)],
                Effect::Swap if matches!(point, KillPoint::Before(_)) => &[(0, First, Files), (1, First, Files)],
                Effect::Swap => &[(0, First, Nothing), (1, First, Nothing)],
                Effect::Publish => &[(0, First, Nothing), (1, First, Nothing)],
                Effect::Drop => &[(0, Overtaken, Windows)],
                Effect::Pause | Effect::Resume => &[(0, Crowded, Windows)],
                Effect::AckRevoke => &[(0, Revoked, Windows)],
                Effect::Finish => &[(0, First, Nothing)],
            },
            KillPoint::Inside(place) => match place {
                Place::TopicSeen => &[(0, First, Nothing)],
                Place::TableWritten => &[(0, First, Files), (1, First, Files)],
                Place::TableCreated => &[(0, First, Nothing), (1, First, Files)],
                Place::ChunkTaken => &[(0, First, Nothing)],
                Place::ColumnsUnseen | Place::ColumnsAdded => &[(0, NewField, Nothing)],
                Place::FileUploaded => &[(0, First, Files), (1, First, Files)],
                Place::LettersStored => &[(0, First, Files)],
                Place::ManifestsStaged => &[(0, First, Files), (1, First, Files)],
                Place::MetadataWritten => &[(0, First, Files), (1, First, Files), (2, First, Files)],
                Place::Swapped => &[(0, First, Nothing), (1, First, Files), (2, First, Nothing)],
                Place::AnswerHeld => &[(0, First, Nothing), (1, First, Nothing)],
                Place::PointsWritten | Place::PointsRenamed | Place::PointsPublished => {
                    &[(0, First, Nothing), (1, First, Nothing)]
                }
                // Of plain Parquet only: see `hive`.
                Place::FilePublished | Place::FilesPublished => &[],
                Place::RevokeHeard => &[(0, Revoked, Windows)],
                Place::FileDeleted => &[(0, Overtaken, Windows)],
            },
        };
        let kill = |(passed, scene, leaves): &(u32, Scene, Leaves)| Kill {
            signal: libc::SIGKILL,
            point,
            passed: *passed,
            scene: *scene,
            leaves: *leaves,
        };
        kills.iter().map(kill).collect()
    }

    /// Every place there is; the compiler makes the lists.
    pub fn every_point() -> Vec<KillPoint> {
        let effects = Effect::value_variants().iter();
        let around = effects.flat_map(|effect| [KillPoint::Before(*effect), KillPoint::After(*effect)]);
        let inside = Place::value_variants().iter().map(|place| KillPoint::Inside(*place));
        around.chain(inside).collect()
    }

    impl Kill {
        fn failpoints(self) -> String {
            let act = match self.signal {
                libc::SIGTERM => "1*return(term)",
                _ => "return",
            };
            let order = match self.passed {
                0 => act.to_owned(),
                passed => format!("{passed}*off->{act}"),
            };
            let before = match (self.scene, self.point) {
                (Scene::First | Scene::NewField | Scene::Revoked | Scene::Serving, _) => "",
                // A catalog so slow that the run is dead before it answers, or so slow that it must be waited for.
                // One that is asked to end waits for the catalog: as long as it takes, if that isn't too long.
                _ if self.signal == libc::SIGTERM && matches!(self.scene, Scene::Crowded | Scene::Beyond) => {
                    let beyond = "Before(Join)=1*return(stop);Inside(ManifestsStaged)=1*off->sleep(1500);";
                    match self.scene {
                        Scene::Beyond => beyond,
                        _ => "Inside(ManifestsStaged)=1*off->sleep(1500);",
                    }
                }
                (Scene::Crowded, KillPoint::Before(Effect::Pause) | KillPoint::After(Effect::Pause)) => {
                    "Inside(ManifestsStaged)=1*off->sleep(60000);"
                }
                (Scene::Crowded, _) => "Inside(ManifestsStaged)=1*off->sleep(1500);",
                (Scene::Overtaken, _) => "Before(Prepare)=1*return(stop);",
                (Scene::Beyond, _) => "Before(Join)=return(stop);Inside(ManifestsStaged)=1*off->sleep(60000);",
            };
            format!("{before}{:?}={order}", self.point)
        }
    }

    struct Servers<'a> {
        kafka: &'a Kafka,
        rest: Option<(String, PathBuf)>,
    }

    impl Servers<'_> {
        /// The broker that tests share, and a SQLite catalog in each workspace.
        fn with_sqlite() -> Self {
            Servers {
                kafka: Kafka::shared(),
                rest: None,
            }
        }
    }

    fn event(n: i64, more: &str) -> Record {
        Record::of(format!(r#"{{"id":{n},"name":"u{}"{more}}}"#, n % 7)).partition((n % 3) as i32)
    }

    fn fill(kafka: &Kafka, topic: &str) {
        produce::create_topic(kafka, topic, 3, &[]);
        produce::produce(kafka, topic, (0..3).map(|n| Record::of("{no JSON").partition(n)));
    }

    /// A table and the way to it.
    struct Played {
        kill: Kill,
        name: String,
        ids: i64,
        work: Workspace,
        seconds: f32,
    }

    /// Kills a run, and lets the same command do the rest.
    fn play(servers: &Servers<'_>, kill: Kill, number: usize, prefix: &str) -> Played {
        let started = Instant::now();
        let kafka = servers.kafka;
        let name = format!("{prefix}_{number}");
        let own_topic = matches!(kill.scene, Scene::NewField | Scene::Beyond | Scene::Revoked);
        let topic = if own_topic {
            name.clone()
        } else {
            format!("{prefix}-all")
        };
        let catalog = match &servers.rest {
            Some((uri, _)) => format!("catalog: {{type: rest, uri: \"{uri}\", warehouse: \"\"}}\nstateDir: state\n"),
            None => String::new(),
        };
        let batch_size = if matches!(kill.scene, Scene::Crowded | Scene::Serving) {
            SMALL_BATCH
        } else {
            1_000_000
        };
        let yaml = format!(
            "{catalog}partitionedTables:\n  - name: {name}\n    source:\n      brokers: \"{}\"\n      topic: {topic}\n      \
             format: json\n      batchSize: {batch_size}\n      batchWindow: \"20s\"\n      maxPollRecords: 20\n      \
             consumerConfig: {{session.timeout.ms: \"2000\", heartbeat.interval.ms: \"400\"}}\n",
            kafka.brokers()
        );
        let work = Workspace::new(&yaml);
        let mut ids = RECORDS;
        if own_topic {
            fill(kafka, &topic);
            produce::produce(kafka, &topic, (0..RECORDS).map(|n| event(n, "")));
        }
        let once = ["run", "--once", "pipeline.yaml"];
        let failpoints = kill.failpoints();
        let start = |args: &[&str]| Aperio::start_with(work.path(), args, &[("FAILPOINTS", &failpoints)]);
        let killed = match kill.scene {
            Scene::First | Scene::Crowded => start(&once).wait(),
            Scene::Serving => start(&["run", "pipeline.yaml"]).wait(),
            Scene::NewField => {
                work.start_once(&[]).wait().expect_code(0);
                ids += 60;
                produce::produce(kafka, &topic, (RECORDS..ids).map(|n| event(n, r#","color":"red""#)));
                start(&once).wait()
            }
            Scene::Overtaken => {
                let run = start(&once);
                run.wait_stopped();
                // The same table under another group: a second instance by mistake.
                let other = yaml.replace("      format", "      consumerGroup: other-of-{name}\n      format");
                let other = other.replace("{name}", &name);
                std::fs::write(work.path().join("other.yaml"), other).expect("the file can be written");
                Aperio::run(work.path(), &["run", "--once", "other.yaml"]).expect_code(0);
                run.go_on().wait()
            }
            Scene::Beyond => {
                let run = start(&once);
                run.wait_stopped();
                ids += 3_000;
                produce::produce(kafka, &topic, (RECORDS..ids).map(|n| event(n, "")));
                run.go_on().wait()
            }
            Scene::Revoked => {
                let service = start(&["run", "pipeline.yaml"]);
                // Its window is filling: nothing but the revoke closes it.
                let joined = setup::wait_until(setup::PATIENCE, || service.has_printed("partitions assigned"));
                assert!(joined, "{:#?}", service.printed());
                std::thread::sleep(Duration::from_millis(300));
                let member = joining(kafka, &topic, &name);
                let ended = setup::wait_until(setup::PATIENCE, || {
                    member.poll(Duration::from_millis(50));
                    service.ended()
                });
                drop(member);
                assert!(ended, "{kill:?}: a rebalance takes partitions away");
                service.wait()
            }
        };
        match kill.signal {
            libc::SIGTERM if kill.scene == Scene::Serving => assert_eq!(killed.code, Some(0), "{kill:?}: {killed:#?}"),
            // In time, or when all was done already.
            libc::SIGTERM => assert!(matches!(killed.code, Some(0 | 143)), "{kill:?}: {killed:#?}"),
            _ => assert_eq!(
                killed.signal,
                Some(libc::SIGKILL),
                "{kill:?} isn't reached: {killed:#?}"
            ),
        }
        work.start_once(&[]).wait().expect_code(0);
        Played {
            kill,
            name,
            ids,
            work,
            seconds: started.elapsed().as_secs_f32(),
        }
    }

    /// A second member of the run's group, that only takes partitions.
    fn joining(kafka: &Kafka, topic: &str, name: &str) -> BaseConsumer {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", kafka.brokers())
            .set("group.id", format!("aperio-{name}"))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "2000")
            .set("heartbeat.interval.ms", "400")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer");
        consumer.subscribe(&[topic]).expect("a topic");
        consumer
    }

    fn play_all(servers: &Servers<'_>, kills: &[Kill], prefix: &str) -> Vec<Played> {
        let topic = format!("{prefix}-all");
        fill(servers.kafka, &topic);
        produce::produce(servers.kafka, &topic, (0..RECORDS).map(|n| event(n, "")));
        setup::play_all(kills, |number, kill| play(servers, kill, number, prefix))
    }

    /// Every record once, every letter once, sync points as the table says, and no more rubbish than one death explains.
    fn check_all(servers: &Servers<'_>, played: &[Played]) {
        let requests = played.iter().map(|played| {
            let (catalog, state) = match &servers.rest {
                Some((uri, _)) => (Catalog::Rest { uri: uri.clone() }, "state/default"),
                None => (Catalog::sql(&played.work.warehouse()), "warehouse/.aperio/default"),
            };
            let points = played.work.path().join(state).join("sync_points.parquet");
            (catalog, format!("default.{}", played.name), points)
        });
        let states = readers::read_states(&requests.collect::<Vec<_>>());
        for (played, state) in played.iter().zip(states) {
            let kill = played.kill;
            let mut times: BTreeMap<i64, u32> = (0..played.ids).map(|id| (id, 0)).collect();
            for id in state["ids"].as_array().expect("ids") {
                *times.entry(id.as_i64().expect("a number")).or_default() += 1;
            }
            times.retain(|_, times| *times != 1);
            assert!(times.is_empty(), "{kill:?}: not there once: {times:?}");
            let mut letters: Vec<_> = state["letters"].as_array().expect("letters").iter().collect();
            letters.sort_by_key(|letter| letter.as_str());
            assert_eq!(letters, POISON, "{kill:?}: dead letters");
            assert_eq!(state["ledger"], state["sync_points"], "{kill:?}: sync points");
            let count = |what: &str| state[what].as_array().expect("a list").len();
            let most = match kill.leaves {
                Leaves::Nothing => 0,
                Leaves::Files => 1,
                Leaves::Windows => RECORDS as usize / SMALL_BATCH,
            };
            assert!(count("orphans") <= most, "{kill:?}: {state:#}");
            assert!(count("letter_orphans") <= most, "{kill:?}: {state:#}");
            assert!(count("metadata_orphans") <= most.min(1), "{kill:?}: {state:#}");
            assert!(count("manifest_orphans") <= 2 * most, "{kill:?}: {state:#}");
        }
    }

    fn tell(played: &[Played], started: Instant) {
        for played in played {
            println!("{:5.1} s  {:?}", played.seconds, played.kill);
        }
        println!("{} kills in {:.0} s", played.len(), started.elapsed().as_secs_f32());
    }

    #[test]
    fn killed_at_every_step_and_resumed_nothing_is_lost_or_doubled() {
        let started = Instant::now();
        let servers = Servers::with_sqlite();
        let all: Vec<_> = every_point().into_iter().flat_map(kills).collect();
        assert!(all.len() > 60, "{} kills", all.len());
        let played = play_all(&servers, &all, "steps");
        tell(&played, started);
        assert_eq!(played.len(), all.len());
        check_all(&servers, &played);
    }

    #[test]
    fn asked_to_end_at_every_step_it_does_and_nothing_is_lost_or_doubled() {
        let started = Instant::now();
        let servers = Servers::with_sqlite();
        let asked = |kill: Kill| Kill {
            signal: libc::SIGTERM,
            ..kill
        };
        let all: Vec<_> = every_point().into_iter().flat_map(kills).map(asked).collect();
        let played = play_all(&servers, &all, "asked");
        tell(&played, started);
        check_all(&servers, &played);
    }

    #[test]
    fn a_service_asked_to_end_at_any_step_does_and_nothing_is_lost_or_doubled() {
        use KillPoint::{After, Before, Inside};
        let started = Instant::now();
        let servers = Servers::with_sqlite();
        let at = |points: &[KillPoint], passed: u32| -> Vec<Kill> {
            let kill = |point: &KillPoint| Kill {
                signal: libc::SIGTERM,
                point: *point,
                passed,
                scene: Scene::Serving,
                leaves: Leaves::Windows,
            };
            points.iter().map(kill).collect()
        };
        let around = |effects: &[Effect]| -> Vec<KillPoint> {
            effects
                .iter()
                .flat_map(|effect| [Before(*effect), After(*effect)])
                .collect()
        };
        let mut all = at(&around(&[Effect::ResolveStart, Effect::Join, Effect::Read]), 0);
        all.extend(at(
            &[
                Place::TopicSeen,
                Place::TableWritten,
                Place::TableCreated,
                Place::LettersStored,
            ]
            .map(Inside),
            0,
        ));
        // In the middle of its work.
        let working = [
            Effect::Take,
            Effect::Seal,
            Effect::Prepare,
            Effect::Load,
            Effect::Swap,
            Effect::Publish,
        ];
        all.extend(at(&around(&working), 1));
        let working = [
            Place::ChunkTaken,
            Place::FileUploaded,
            Place::ManifestsStaged,
            Place::MetadataWritten,
            Place::Swapped,
            Place::AnswerHeld,
            Place::PointsWritten,
            Place::PointsRenamed,
            Place::PointsPublished,
        ];
        all.extend(at(&working.map(Inside), 1));
        let played = play_all(&servers, &all, "served");
        tell(&played, started);
        check_all(&servers, &played);
    }

    #[test]
    fn killed_around_the_commits_of_a_rest_catalog_nothing_is_lost_or_doubled() {
        let started = Instant::now();
        let warehouse = tempfile::tempdir().expect("a temporary folder");
        let rest = RestCatalog::start(warehouse.path());
        let servers = Servers {
            kafka: Kafka::shared(),
            rest: Some((rest.uri(), warehouse.path().to_owned())),
        };
        let points = [
            KillPoint::Inside(Place::TableCreated),
            KillPoint::Inside(Place::ManifestsStaged),
            KillPoint::Inside(Place::Swapped),
            KillPoint::Inside(Place::AnswerHeld),
            KillPoint::Inside(Place::ColumnsAdded),
        ];
        let all: Vec<_> = points.into_iter().flat_map(kills).collect();
        let played = play_all(&servers, &all, "rest_steps");
        tell(&played, started);
        check_all(&servers, &played);
    }
}
