//! Getting at catalogs and stores: bearer tokens, OAuth2, buckets, credentials that a catalog lends and that end.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::aperio::{Aperio, Workspace};
use crate::produce::{self, Record};
use crate::readers::{self, Catalog, Engine};
use crate::servers::{Fault, Kafka, Nessie, Proxy, RestCatalog, S3, S3_KEY};
use crate::setup;

/// Records `ids`, spread over three partitions.
pub fn produce(kafka: &Kafka, topic: &str, ids: std::ops::Range<i64>) {
    let record = |id: i64| Record::of(format!(r#"{{"id":{id},"name":"n{id}"}}"#)).partition((id % 3) as i32);
    produce::produce(kafka, topic, ids.map(record));
}

/// A pipeline whose topic is named as its table, with `-` for `_`; the topic is made.
pub fn pipeline(kafka: &Kafka, table: &str, source: &str) -> String {
    let topic = table.replace('_', "-");
    produce::create_topic(kafka, &topic, 3, &[]);
    format!(
        "  - name: {table}\n    source: {{brokers: \"{}\", topic: {topic}, format: json, batchSize: 100, maxPollRecords: 50{source}}}\n",
        kafka.brokers()
    )
}

/// Expects each of these ids once, and nothing else.
pub fn expect_each_once(rows: &[Value], ids: std::ops::Range<i64>) {
    let mut found: Vec<_> = rows.iter().map(|row| row["id"].as_i64().expect("an id")).collect();
    found.sort_unstable();
    assert_eq!(found, ids.collect::<Vec<_>>());
}

/// The file-io properties of the S3 server at `endpoint`, for a pipeline file.
pub fn s3_properties(endpoint: &str) -> String {
    format!(
        "{{s3.endpoint: \"{endpoint}\", s3.path-style-access: \"true\", s3.region: us-east-1, s3.access-key-id: {}, s3.secret-access-key: {}}}",
        S3_KEY.0, S3_KEY.1
    )
}

/// A SQLite catalog of `work` whose tables are in a bucket, as PyIceberg finds it.
pub fn sqlite_over_s3(work: &Workspace, s3: &S3) -> Catalog {
    Catalog::Properties(json!({
        "name": "aperio", "type": "sql",
        "uri": format!("sqlite:///{}", work.path().join("catalog.db").display()),
        "s3.endpoint": s3.uri(), "s3.region": "us-east-1",
        "s3.access-key-id": S3_KEY.0, "s3.secret-access-key": S3_KEY.1,
    }))
}

#[test]
fn a_bucket_keeps_the_tables_and_sync_points_of_writers_that_run_at_once() {
    let (kafka, s3) = (Kafka::shared(), S3::shared());
    s3.make_bucket("two-writers");
    let tables = ["bucket_a", "bucket_b", "bucket_c"];
    let pipelines: String = tables.iter().map(|table| pipeline(kafka, table, "")).collect();
    let work = Workspace::new(&format!(
        "catalog: {{uri: \"sqlite://./catalog.db\", warehouse: \"s3://two-writers/lake\", properties: {}}}\npartitionedTables:\n{pipelines}",
        s3_properties(&s3.uri())
    ));
    for round in 0..3 {
        for table in tables {
            produce(kafka, &table.replace('_', "-"), round * 150..(round + 1) * 150);
        }
        let runs = tables.map(|table| work.start_once(&["--table", table]));
        runs.into_iter().for_each(|run| drop(run.wait().expect_code(0)));
    }
    for table in tables {
        let catalog = sqlite_over_s3(&work, s3);
        let rows = readers::read(Engine::PyIceberg, &catalog, &format!("default.{table}"), None);
        expect_each_once(&rows, 0..450);
    }
    let keys = s3.keys("two-writers");
    assert!(
        keys.contains(&"lake/.aperio/default/sync_points.parquet".to_owned()),
        "{keys:?}"
    );
    let points = sync_points(work.path());
    let ends: Vec<_> = tables.iter().flat_map(|table| [(*table, "150"); 3]).collect();
    let held: Vec<_> = points.iter().map(|(source, value)| (&**source, &**value)).collect();
    assert_eq!(held, ends);
}

/// Source and value of every sync point, as `aperio sync-points show` tells them.
pub fn sync_points(dir: &Path) -> Vec<(String, String)> {
    let shown = Aperio::run(dir, &["sync-points", "show", "pipeline.yaml", "--output", "json"]).expect_code(0);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let report = shown.report();
    let points = report.as_array().expect("a list");
    points
        .iter()
        .map(|point| (text(&point["sourceName"]), text(&point["syncValue"])))
        .collect()
}

#[test]
fn a_bearer_token_opens_the_catalog_and_is_never_printed() {
    const TOKEN: &str = "a-bearer-token-of-tests";
    let (kafka, table) = (Kafka::shared(), "bearer");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rest = RestCatalog::start(dir.path());
    let proxy = Proxy::start(rest.address());
    proxy.guard(|request| match request.header("authorization") {
        Some(header) if header == format!("Bearer {TOKEN}") => Fault::Pass,
        _ => Fault::Refuse(401),
    });
    let state = dir.path().join("state");
    let catalog = format!(
        "catalog: {{type: rest, uri: \"{}\", schema: a.b, properties: {{token: \"${{TOKEN}}\"}}}}\nstateDir: \"{}\"\n",
        proxy.uri(),
        state.display()
    );
    let work = Workspace::new(&format!("{catalog}partitionedTables:\n{}", pipeline(kafka, table, "")));
    produce(kafka, "bearer", 0..250);
    let run = |token: &str| {
        let variables = [("TOKEN", token), ("RUST_LOG", "trace")];
        let args = ["run", "--once", "pipeline.yaml", "--retry-for", "8s"];
        Aperio::start_with(work.path(), &args, &variables).wait()
    };
    let wrong = run("a-wrong-one").expect_code(4);
    assert!(wrong.stderr.contains("401"), "{wrong:#?}");
    let right = run(TOKEN).expect_code(0);
    for (outcome, token) in [(&wrong, "a-wrong-one"), (&right, TOKEN)] {
        let printed = outcome.stdout.contains(token) || outcome.stderr.contains(token);
        assert!(!printed, "the token was printed: {outcome:#?}");
    }
    let catalog = Catalog::Properties(json!({"type": "rest", "uri": proxy.uri(), "token": TOKEN}));
    expect_each_once(&readers::read(Engine::PyIceberg, &catalog, "a.b.bearer", None), 0..250);
}

/// What a server that gives tokens knows.
#[derive(Default)]
struct Issuer {
    issued: u32,
    valid: bool,
    refused: u32,
    revoked_in_commits: u32,
}

impl Issuer {
    fn token(&self) -> String {
        format!("Bearer token-{}", self.issued)
    }
}

#[test]
fn a_token_is_renewed_when_it_ends_and_when_a_commit_is_refused() {
    const SECRET: &str = "a-client-secret-of-tests";
    let (kafka, table) = (Kafka::shared(), "oauth");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rest = RestCatalog::start(dir.path());
    let proxy = Proxy::start(rest.address());
    let issuer = Arc::new(Mutex::new(Issuer::default()));
    let (guard, editor) = (Arc::clone(&issuer), Arc::clone(&issuer));
    proxy.guard(move |request| {
        let mut issuer = guard.lock().expect("no panic holds it");
        if request.target() == "/v1/oauth/tokens" {
            let form = request.text();
            let right = form.contains("client_id=us") && form.contains(SECRET) && form.contains("scope=lake");
            return if right { Fault::Pass } else { Fault::Refuse(401) };
        }
        if !issuer.valid || request.header("authorization") != Some(&issuer.token()) {
            issuer.refused += 1;
            return Fault::Refuse(401);
        }
        if request.is_commit() && issuer.revoked_in_commits < 4 {
            // Every second time the commit happens all the same.
            issuer.valid = false;
            issuer.revoked_in_commits += 1;
            return match issuer.revoked_in_commits % 2 {
                0 => Fault::LieAfter(401),
                _ => Fault::Refuse(401),
            };
        }
        Fault::Pass
    });
    proxy.edit(move |request, answer| {
        if request.target() == "/v1/oauth/tokens" {
            let mut issuer = editor.lock().expect("no panic holds it");
            issuer.issued += 1;
            issuer.valid = true;
            let token = format!("token-{}", issuer.issued);
            let body = json!({"access_token": token, "token_type": "bearer", "expires_in": 2});
            answer.body = body.to_string().into_bytes();
        }
    });
    let catalog = format!(
        "catalog: {{type: rest, uri: \"{0}\", properties: {{credential: \"us:{SECRET}\", scope: lake, oauth2-server-uri: \"{0}/v1/oauth/tokens\"}}}}\nstateDir: \"{1}\"\n",
        proxy.uri(),
        dir.path().join("state").display()
    );
    let work = Workspace::new(&format!(
        "{catalog}partitionedTables:\n{}",
        pipeline(kafka, table, ", batchWindow: 1s")
    ));
    produce(kafka, table, 0..300);
    work.start_once(&[]).wait().expect_code(0);
    let issued = issuer.lock().expect("no panic holds it").issued;
    assert!(issued >= 5, "one to start with, one for each refused commit: {issued}");

    // A service outlives its tokens.
    let mut service = Aperio::start(work.path(), &["run", "pipeline.yaml"]);
    for round in 0..3 {
        produce(kafka, table, 300 + round * 100..400 + round * 100);
        std::thread::sleep(Duration::from_millis(1500));
    }
    assert!(service.wait_for("committed"));
    let ended = service.signal(libc::SIGTERM).expect_code(0);
    work.start_once(&[]).wait().expect_code(0);
    assert!(
        !ended.stderr.contains(SECRET) && !ended.stderr.contains("token-"),
        "{ended:#?}"
    );
    let issuer = issuer.lock().expect("no panic holds it");
    assert!(issuer.issued > issued + 2, "{} of {issued}", issuer.issued);
    let catalog = Catalog::Rest { uri: rest.uri() };
    let rows = readers::read(Engine::PyIceberg, &catalog, "default.oauth", None);
    expect_each_once(&rows, 0..600);
}

/// How many commits a run has told of.
pub fn commits(run: &Aperio) -> usize {
    run.printed().iter().map(|text| text.matches("committed").count()).sum()
}

/// What a catalog that lends credentials knows: when each of them was given.
#[derive(Default)]
struct Lender {
    given: Vec<Instant>,
    used: BTreeSet<usize>,
    refused: Vec<String>,
}

/// How long credentials are said to hold, and how long the bucket takes them in truth: slow machines are late.
const LENT_FOR: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(9));

#[test]
fn nessie_lends_credentials_that_are_renewed_when_they_end() {
    let (kafka, s3) = (Kafka::shared(), S3::shared());
    s3.make_bucket("lent");
    let store = Proxy::start(s3.address());
    let nessie = Nessie::start(&store.uri(), "lent");
    let catalog = Proxy::start(nessie.address());
    let lender = Arc::new(Mutex::new(Lender::default()));
    let (guard, editor) = (Arc::clone(&lender), Arc::clone(&lender));
    // The bucket takes Nessie's own key and lent ones that haven't ended.
    store.guard(move |request| {
        let signed = request.header("authorization").unwrap_or_default();
        let key = signed
            .split("Credential=")
            .nth(1)
            .and_then(|rest| rest.split('/').next());
        let mut lender = guard.lock().expect("no panic holds it");
        let lent = key.and_then(|key| key.strip_prefix("lent-")?.parse::<usize>().ok());
        let holds = lent.is_some_and(|n| lender.given[n].elapsed() < LENT_FOR.1);
        lender.used.extend(lent);
        if holds || key == Some(S3_KEY.0) {
            return Fault::Pass;
        }
        lender
            .refused
            .push(format!("{} {} as {key:?}", request.method(), request.target()));
        Fault::Refuse(403)
    });
    catalog.edit(move |_, answer| {
        let Ok(mut body) = serde_json::from_slice::<Value>(&answer.body) else {
            return;
        };
        let Some(config) = body
            .get_mut("config")
            .filter(|config| config["s3.session-token"].is_string())
        else {
            return;
        };
        let mut lender = editor.lock().expect("no panic holds it");
        let ends = std::time::SystemTime::now() + LENT_FOR.0;
        let ends = ends
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_millis();
        config["s3.access-key-id"] = json!(format!("lent-{}", lender.given.len()));
        config["s3.session-token-expires-at-ms"] = json!(ends.to_string());
        lender.given.push(Instant::now());
        answer.body = body.to_string().into_bytes();
    });
    let work = Workspace::new(&format!(
        "catalog: {{type: rest, uri: \"{}/iceberg\", warehouse: lake, schema: a.b}}\npartitionedTables:\n{}",
        catalog.uri(),
        pipeline(kafka, "lent", ", batchWindow: 1s")
    ));
    produce(kafka, "lent", 0..250);
    work.start_once(&[]).wait().expect_code(0);

    let mut service = Aperio::start(work.path(), &["run", "pipeline.yaml"]);
    produce(kafka, "lent", 250..300);
    assert!(service.wait_for("committed"));
    // Nothing is loaded meanwhile; the next data file is written with credentials that were asked for it.
    std::thread::sleep(LENT_FOR.1 + Duration::from_secs(1));
    let before = commits(&service);
    produce(kafka, "lent", 300..400);
    let committed = setup::wait_until(setup::PATIENCE, || commits(&service) > before);
    let ended = service.signal(libc::SIGTERM).expect_code(0);
    assert!(committed, "{ended:#?}");
    let refused = std::mem::take(&mut lender.lock().expect("no panic holds it").refused);
    assert_eq!(refused, Vec::<String>::new(), "{ended:#?}");
    work.start_once(&[]).wait().expect_code(0);
    // PyIceberg's credentials come from Nessie itself.
    store.pass();
    let catalog = Catalog::Properties(json!({"type": "rest", "uri": nessie.uri(), "warehouse": "lake"}));
    expect_each_once(&readers::read(Engine::PyIceberg, &catalog, "a.b.lent", None), 0..400);
    let lender = lender.lock().expect("no panic holds it");
    assert!(lender.used.len() >= 3, "{:?}", lender.used);
    let keys = s3.keys("lent");
    let points = |key: &&String| key.contains("/.aperio/a.b/sync_points.parquet");
    assert_eq!(
        keys.iter().filter(points).count(),
        1,
        "under the table's location: {keys:?}"
    );
}

#[test]
fn the_pipeline_file_of_the_compose_set_up_runs_against_what_it_starts() {
    let (kafka, s3) = (Kafka::shared(), S3::shared());
    s3.make_bucket("warehouse");
    let nessie = Nessie::of_compose_file(&s3.uri());
    produce::create_topic(kafka, "events", 4, &[]);
    let event = |id: i64| {
        let hour = id % 24;
        let text = format!(r#"{{"id": {id}, "ts": "2026-01-15T{hour:02}:00:00Z", "user": {{"name": "Ada"}}}}"#);
        Record::of(text).partition((id % 4) as i32)
    };
    produce::produce(kafka, "events", (0..480).map(event));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/events-s3.yaml");
    let file = file.to_str().expect("a path is text");
    let (brokers, catalog, endpoint) = (kafka.brokers(), nessie.uri(), s3.uri());
    let addresses = [
        ("KAFKA_BROKERS", &*brokers),
        ("CATALOG_URI", &*catalog),
        ("S3_ENDPOINT", &*endpoint),
    ];
    for _ in 0..2 {
        let args = ["run", "--once", file];
        Aperio::start_with(dir.path(), &args, &addresses).wait().expect_code(0);
    }
    let status = Aperio::start_with(dir.path(), &["status", file], &addresses).wait();
    let status = status.expect_code(0);
    assert!(
        status.stdout.contains("480") || status.stdout.contains("120"),
        "{status:#?}"
    );
    let catalog = Catalog::Properties(json!({
        "type": "rest", "uri": nessie.uri(), "warehouse": "warehouse",
        "s3.access-key-id": S3_KEY.0, "s3.secret-access-key": S3_KEY.1,
    }));
    let read = readers::read(Engine::PyIceberg, &catalog, "default.events_s3", None);
    expect_each_once(&read, 0..480);
}
