//! `materialize.format: parquet`: Hive's directories, read by DuckDB and PyArrow; killed at every step of its commits, two
//! at once, and frozen while others go on. Each record is there once.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::aperio::{Aperio, Workspace};
use crate::produce::{self, Record};
use crate::readers;
use crate::servers::Kafka;
use crate::setup;

/// Records that become rows, of each topic.
const RECORDS: i64 = 240;

/// Offsets of the records that can't: the first of each partition.
const POISON: [&str; 3] = ["0/0", "1/0", "2/0"];

const COUNTRIES: [Option<&str>; 4] = [Some("DE"), None, Some("a/b c=%"), Some("ü")];

fn event(n: i64, more: &str) -> Record {
    let country = COUNTRIES[(n % 4) as usize].map_or("null".to_owned(), |country| format!("\"{country}\""));
    let hour = 9 + n % 2;
    let text = format!(r#"{{"id":{n},"ts":"2024-01-15T{hour:02}:30:00Z","country":{country}{more}}}"#);
    Record::of(text).partition((n % 3) as i32)
}

fn fill(kafka: &Kafka, topic: &str) {
    produce::create_topic(kafka, topic, 3, &[]);
    produce::produce(kafka, topic, (0..3).map(|n| Record::of("{no JSON").partition(n)));
    produce::produce(kafka, topic, (0..RECORDS).map(|n| event(n, "")));
}

fn pipeline(kafka: &Kafka, topic: &str, name: &str, more: &str) -> String {
    format!(
        "partitionedTables:\n  - name: {name}\n    source:\n      brokers: \"{}\"\n      topic: {topic}\n      \
         format: json\n      eventTimeField: ts\n      maxPollRecords: 20\n      \
         consumerConfig: {{session.timeout.ms: \"2000\", heartbeat.interval.ms: \"400\"}}\n{more}    \
         materialize: {{format: parquet, partition: [date, hour, country]}}\n",
        kafka.brokers()
    )
}

/// The same table under another group: a second instance by mistake.
fn of_another_group(yaml: &str) -> String {
    yaml.replace("      format: json", "      consumerGroup: other\n      format: json")
}

/// Every record once, in its directory, by both readers; every letter once; nothing half done.
fn check(label: &str, state: &Value, ids: i64, staged_max: usize) {
    let rows = |engine: &str| -> Vec<Value> { state[engine].as_array().expect("rows").clone() };
    let expect: Vec<_> = (0..ids)
        .map(|n| json!([n, COUNTRIES[(n % 4) as usize], "2024-01-15", 9 + n % 2]))
        .collect();
    for engine in ["duckdb", "pyarrow"] {
        let found = rows(engine);
        let missing: Vec<_> = expect.iter().filter(|row| !found.contains(row)).take(3).collect();
        let counts = (found.len(), expect.len());
        assert!(
            found == expect,
            "{label}: {engine} reads {counts:?} rows, not {missing:?}"
        );
    }
    assert_eq!(state["letters"], json!(POISON), "{label}: dead letters");
    assert_eq!(state["unpublished"], json!([]), "{label}");
    let end = 1 + ids / 3;
    assert_eq!(state["offsets"], json!({"0": end, "1": end, "2": end}), "{label}");
    let count = |what: &str| state[what].as_array().expect("a list").len();
    assert!(count("staged") <= staged_max, "{label}: {state:#}");
    // The last step deletes it; killed before that, it stays.
    assert!(count("manifests") <= 1, "{label}: {state:#}");
}

fn read(tables: &[(PathBuf, String)]) -> Vec<Value> {
    let request = |(warehouse, name): &(PathBuf, String)| json!({"warehouse": warehouse, "name": name});
    readers::read_hive(&tables.iter().map(request).collect::<Vec<_>>())
}

fn read_one(work: &Workspace, name: &str) -> Value {
    read(&[(work.warehouse(), name.to_owned())]).remove(0)
}

#[test]
fn records_are_in_hives_directories_and_new_fields_in_later_files() {
    let (kafka, name) = (Kafka::shared(), "hive_first");
    fill(kafka, name);
    let yaml = pipeline(kafka, name, name, "");
    let work = Workspace::new(&yaml);
    let report = work.start_once(&["--output", "json"]).wait().expect_code(0).report();
    let table = &report["tables"][0];
    assert_eq!(
        (&table["rowsWritten"], &table["rejected"]),
        (&json!(RECORDS), &json!(3))
    );
    let directory = work.warehouse().join("default").join(name).join("date=2024-01-15");
    let names = |path: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(path).expect("a directory");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&directory), ["hour=10", "hour=9"]);
    assert_eq!(
        names(&directory.join("hour=9")),
        ["country=DE", "country=a%2Fb%20c%3D%25"]
    );
    assert_eq!(
        names(&directory.join("hour=10")),
        ["country=__HIVE_DEFAULT_PARTITION__", "country=ü"]
    );
    check("first", &read_one(&work, name), RECORDS, 0);

    let more = RECORDS + 60;
    produce::produce(kafka, name, (RECORDS..more).map(|n| event(n, r#","color":"red""#)));
    work.start_once(&[]).wait().expect_code(0);
    check("with a new field", &read_one(&work, name), more, 0);
    let again = work.start_once(&["--output", "json"]).wait().expect_code(0).report();
    assert_eq!(again["tables"][0]["rowsWritten"], json!(0), "nothing is new");
    let status = Aperio::run(work.path(), &["status", "--output", "json", "pipeline.yaml"]).expect_code(0);
    assert_eq!(status.report()["tables"][0]["lag"], json!(0));

    // A person moves a partition's offsets back: what is read again is there again, and nothing else.
    let to = ["--to", "1", "--partition", "0", "--yes"];
    let reset = [&["sync-points", "reset", "pipeline.yaml", "--table", name], &to[..]].concat();
    Aperio::run(work.path(), &reset).expect_code(0);
    work.start_once(&[]).wait().expect_code(0);
    let state = read_one(&work, name);
    assert_eq!(state["offsets"], json!({"0": 101, "1": 101, "2": 101}));
    for engine in ["duckdb", "pyarrow"] {
        let ids = state[engine]
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| row[0].as_i64().expect("an id"));
        let twice = (0..more).flat_map(|n| std::iter::repeat_n(n, if n % 3 == 0 { 2 } else { 1 }));
        assert!(ids.eq(twice), "{engine}: {state:#}");
    }

    // What a person should know of is told, and nothing starts over: a row of the record is gone, or all of it is.
    let iceberg = yaml.replace("format: parquet, ", "");
    work.rewrite(&iceberg);
    let refused = work.start_once(&[]).wait().expect_code(3);
    assert!(
        refused.stderr.contains("is gone, but sync points have"),
        "{}",
        refused.stderr
    );
}

#[test]
fn two_at_once_and_frozen_ones_write_each_record_once() {
    let (kafka, topic) = (Kafka::shared(), "hive-crowd");
    fill(kafka, topic);
    let small = "      batchSize: 20\n";
    let mut done = Vec::new();
    // Two instances by mistake, from one offset to the next.
    let name = "hive_race";
    let yaml = pipeline(kafka, topic, name, small);
    let work = Workspace::new(&yaml);
    std::fs::write(work.path().join("other.yaml"), of_another_group(&yaml)).expect("written");
    let other = Aperio::start(work.path(), &["run", "--once", "other.yaml"]);
    let one = work.start_once(&[]);
    for outcome in [one.wait(), other.wait()] {
        // 5: overtaken three times in a row.
        assert!(matches!(outcome.code, Some(0 | 5)), "{outcome:#?}");
    }
    work.start_once(&[]).wait().expect_code(0);
    done.push((work, name.to_owned(), usize::MAX));

    #[cfg(feature = "failpoints")]
    for (number, (frozen, staged)) in [
        ("Before(Swap)=1*off->1*return(stop)", usize::MAX),
        ("Inside(ManifestsStaged)=1*off->1*return(stop)", usize::MAX),
        ("Inside(Swapped)=1*off->1*return(stop)", 0),
        ("Inside(FilePublished)=1*return(stop)", 0),
        ("Inside(FilesPublished)=1*return(stop)", 0),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("hive_frozen_{number}");
        let work = with_failpoints::overtake(&pipeline(kafka, topic, &name, ""), frozen, |work| {
            let state = read_one(work, &name);
            check(&format!("before it wakes: {frozen}"), &state, RECORDS, usize::MAX);
        });
        done.push((work, name, staged));
    }
    let tables: Vec<_> = done
        .iter()
        .map(|(work, name, _)| (work.warehouse(), name.clone()))
        .collect();
    for ((_, name, staged), state) in done.iter().zip(read(&tables)) {
        check(name, &state, RECORDS, *staged);
    }
}

#[test]
fn a_committed_file_that_is_lost_before_it_is_published_stops_the_run() {
    let (kafka, name) = (Kafka::shared(), "hive_lost");
    fill(kafka, name);
    let work = Workspace::new(&pipeline(kafka, name, name, ""));
    // Readers may not look yet: a file stands where the table's directory should be.
    std::fs::create_dir_all(work.warehouse().join("default")).expect("made");
    let directory = work.warehouse().join("default").join(name);
    std::fs::write(&directory, "in the way").expect("written");
    work.start_once(&["--retry-for", "6s"]).wait().expect_code(4);
    std::fs::remove_file(&directory).expect("removed");
    let staged = work.warehouse().join(".aperio/default").join(name).join("staged");
    let hidden = staged.with_file_name("hidden");
    std::fs::rename(&staged, &hidden).expect("moved");
    let refused = work.start_once(&[]).wait().expect_code(3);
    assert!(
        refused
            .stderr
            .contains("was committed, and is gone before it was published"),
        "{}",
        refused.stderr
    );
    std::fs::rename(&hidden, &staged).expect("moved back");
    work.start_once(&[]).wait().expect_code(0);
    check("restored", &read_one(&work, name), RECORDS, 0);
}

#[cfg(feature = "failpoints")]
mod with_failpoints {
    use std::time::Instant;

    use aperio::kill_points::{Effect, KillPoint, Place};

    use super::*;
    use crate::access::s3_properties;
    use crate::servers::{S3, S3_KEY};

    /// Files of a window that may stay where it was killed before it was committed: one of each directory.
    const WINDOW: usize = 4;

    /// A place, how often it is passed before the kill, and the staged files that may stay. In the first run the table's
    /// description is written first, then the start is committed, then the window, then its files are shown.
    fn kills() -> Vec<(KillPoint, u32, usize)> {
        use KillPoint::{After, Before, Inside};
        let mut kills = Vec::new();
        let mut add = |point: KillPoint, passed: &[u32], uncommitted: usize| {
            kills.extend(passed.iter().map(|passed| (point, *passed, uncommitted)));
        };
        for effect in [Effect::ResolveStart, Effect::Join, Effect::Read] {
            add(Before(effect), &[0], 0);
            add(After(effect), &[0], 0);
        }
        for effect in [Effect::Seal, Effect::Prepare] {
            add(Before(effect), &[0], WINDOW);
            add(After(effect), &[0], WINDOW);
        }
        add(Before(Effect::Load), &[0, 1, 2], WINDOW);
        add(After(Effect::Load), &[0, 1, 2], WINDOW);
        add(Before(Effect::Swap), &[0, 1], WINDOW);
        add(After(Effect::Swap), &[0, 1], 0);
        add(Before(Effect::Publish), &[0, 1], 0);
        add(After(Effect::Publish), &[0, 1], 0);
        add(After(Effect::Finish), &[0], 0);
        add(Inside(Place::TableCreated), &[0], WINDOW);
        add(Inside(Place::ChunkTaken), &[0], WINDOW);
        add(Inside(Place::FileUploaded), &[0, 1], WINDOW);
        add(Inside(Place::LettersStored), &[0], WINDOW);
        add(Inside(Place::ManifestsStaged), &[0, 1], WINDOW);
        add(Inside(Place::PointsWritten), &[0, 1, 2], WINDOW);
        add(Inside(Place::PointsWritten), &[3], 0);
        add(Inside(Place::PointsRenamed), &[0, 1, 2, 3], 0);
        // The second is that of the dead letters.
        add(Inside(Place::Swapped), &[1], WINDOW);
        add(Inside(Place::Swapped), &[2], 0);
        add(Inside(Place::AnswerHeld), &[0, 1], 0);
        add(Inside(Place::FilePublished), &[0, 1, 3], 0);
        add(Inside(Place::FilesPublished), &[0], 0);
        add(Inside(Place::FileDeleted), &[0], 0);
        add(Inside(Place::PointsPublished), &[0, 1], 0);
        kills
    }

    /// Kills a run, and lets the same command do the rest.
    fn play(yaml: &str, point: KillPoint, passed: u32) -> Workspace {
        let order = match passed {
            0 => "return".to_owned(),
            passed => format!("{passed}*off->return"),
        };
        let work = Workspace::new(yaml);
        let failpoints = format!("{point:?}={order}");
        let once = ["run", "--once", "pipeline.yaml"];
        let killed = Aperio::start_with(work.path(), &once, &[("FAILPOINTS", &failpoints)]).wait();
        assert_eq!(
            killed.signal,
            Some(libc::SIGKILL),
            "{failpoints} isn't reached: {killed:#?}"
        );
        work.start_once(&[]).wait().expect_code(0);
        work
    }

    /// Freezes a run at `place`, lets an instance of another group do the work, and lets the first go on after `look`.
    pub fn overtake(yaml: &str, place: &str, look: impl FnOnce(&Workspace)) -> Workspace {
        let work = Workspace::new(yaml);
        let once = ["run", "--once", "pipeline.yaml"];
        let zombie = Aperio::start_with(work.path(), &once, &[("FAILPOINTS", place)]);
        zombie.wait_stopped();
        std::fs::write(work.path().join("other.yaml"), of_another_group(yaml)).expect("written");
        Aperio::run(work.path(), &["run", "--once", "other.yaml"]).expect_code(0);
        look(&work);
        zombie.go_on().wait().expect_code(0);
        work
    }

    #[test]
    fn killed_at_every_step_and_resumed_nothing_is_lost_or_doubled() {
        let started = Instant::now();
        let (kafka, topic) = (Kafka::shared(), "hive-steps");
        fill(kafka, topic);
        let kills = kills();
        let played = setup::play_all(&kills, |number, kill| {
            let name = format!("hive_steps_{number}");
            let work = play(&pipeline(kafka, topic, &name, ""), kill.0, kill.1);
            (kill, name, work)
        });
        println!("{} kills in {:.0} s", played.len(), started.elapsed().as_secs_f32());
        let tables: Vec<_> = played
            .iter()
            .map(|(_, name, work)| (work.warehouse(), name.clone()))
            .collect();
        for (((point, passed, staged), ..), state) in played.iter().zip(read(&tables)) {
            check(&format!("{point:?} after {passed}"), &state, RECORDS, *staged);
        }
    }

    #[test]
    fn a_bucket_is_no_less_safe_than_a_disk() {
        use KillPoint::{Before, Inside};
        let (kafka, s3, topic) = (Kafka::shared(), S3::shared(), "hive-bucket");
        s3.make_bucket(topic);
        fill(kafka, topic);
        let in_bucket = |name: &str| {
            let properties = s3_properties(&s3.uri());
            let catalog = format!(
                "{{uri: \"sqlite://./catalog.db\", warehouse: \"s3://{topic}/{name}\", properties: {properties}}}"
            );
            format!("catalog: {catalog}\n{}", pipeline(kafka, topic, name, ""))
        };
        let kills = [
            (Before(Effect::Load), 2, WINDOW),
            (Inside(Place::ManifestsStaged), 1, WINDOW),
            (Inside(Place::Swapped), 2, 0),
            (Inside(Place::FilePublished), 0, 0),
            (Inside(Place::FilePublished), 3, 0),
            (Inside(Place::FilesPublished), 0, 0),
            (Inside(Place::FileDeleted), 0, 0),
        ];
        let freezes = [
            "Before(Swap)=1*off->1*return(stop)",
            "Inside(FilePublished)=1*return(stop)",
        ];
        let plays: Vec<_> = kills.map(Ok).into_iter().chain(freezes.map(Err)).collect();
        let played = setup::play_all(&plays, |number, how| {
            let name = format!("table_{number}");
            let yaml = in_bucket(&name);
            match how {
                Ok((point, passed, staged)) => (play(&yaml, point, passed), name, staged),
                Err(place) => (overtake(&yaml, place, |_| ()), name, usize::MAX),
            }
        });
        let requests: Vec<_> = played
            .iter()
            .map(|(work, name, _)| {
                json!({
                    "warehouse": format!("s3://{topic}/{name}"), "name": name,
                    "catalog": work.path().join("catalog.db"),
                    "s3": {"endpoint": s3.uri(), "key": S3_KEY.0, "secret": S3_KEY.1},
                })
            })
            .collect();
        for ((_, name, staged), state) in played.iter().zip(readers::read_hive(&requests)) {
            check(name, &state, RECORDS, *staged);
        }
    }
}
