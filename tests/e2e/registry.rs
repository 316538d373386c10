//! Apicurio Registry, a schema registry that answers as Confluent's does, and a proxy before it that refuses.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::encode;
use super::produce::{self, Record};
use super::proxy::{Fault, Proxy};
use super::servers::{self, Kafka, Server};
use super::setup;

/// Where Apicurio has Confluent's API.
const API: &str = "/apis/ccompat/v7";

/// A schema registry with its data in a temporary folder.
///
/// What Confluent's does otherwise: unless a test says so, any version may follow any other, compatible or not.
pub struct Registry {
    dir: TempDir,
    port: u16,
    running: Mutex<(u32, Option<Server>)>,
}

impl Registry {
    /// The registry that all tests of this process share; subjects are its rooms, so name them after the test.
    ///
    /// A test that stops or kills its registry starts its own with [`Registry::start`], or has a proxy of its own before
    /// this one.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Registry> = OnceLock::new();
        SHARED.get_or_init(|| {
            setup::at_exit(|| SHARED.get().into_iter().for_each(Self::remove));
            Self::start()
        })
    }

    /// Starts a registry of one's own: 6 s, 220 MB.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("aperio-registry-")
            .tempdir()
            .expect("a temporary folder");
        let registry = Self {
            dir,
            port: setup::free_port(),
            running: Mutex::new((0, None)),
        };
        registry.start_again();
        registry
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What goes into `schemaRegistry`.
    pub fn url(&self) -> String {
        format!("http://{}{API}", self.address())
    }

    /// Registers a schema as the next version of a subject, or finds it there; returns its id, which has gaps.
    ///
    /// - `language`: `AVRO`, `PROTOBUF` or `JSON`.
    /// - `references`: what the schema calls it, its subject, its version.
    pub fn register(&self, subject: &str, language: &str, schema: &str, references: &[(&str, &str, i32)]) -> i32 {
        let references: Vec<_> = references
            .iter()
            .map(|(name, subject, version)| json!({"name": name, "subject": subject, "version": version}))
            .collect();
        let body = json!({"schema": schema, "schemaType": language, "references": references});
        let (status, answer) = self.send("POST", &format!("/subjects/{subject}/versions"), &body);
        assert_eq!(status, 200, "`{subject}` isn't registered: {answer:#}");
        let id = answer["id"].as_i64().and_then(|id| i32::try_from(id).ok());
        id.unwrap_or_else(|| panic!("an id: {answer:#}"))
    }

    /// Asks for a path such as `/schemas/ids/1`; returns the status and the JSON of the answer.
    pub fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, &Value::Null)
    }

    /// The same with another method and a body, such as `PUT /config/{subject}` with `{"compatibility": "BACKWARD"}`.
    pub fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        servers::send_json(&self.address(), method, &format!("{API}{path}"), body)
    }

    /// Kills it as a power cut would: connections are refused. Its data stays.
    pub fn kill(&self) {
        self.running.lock().expect("no panic holds the registry").1 = None;
    }

    /// Starts the killed registry again with its data, on the same port.
    pub fn start_again(&self) {
        let mut running = self.running.lock().expect("no panic holds the registry");
        assert!(running.1.is_none(), "the registry runs");
        running.0 += 1;
        let dir = self.dir.path();
        let mut command = servers::java(384);
        command.current_dir(dir);
        for (name, value) in [
            ("java.io.tmpdir", dir.display().to_string()),
            ("quarkus.http.host", "127.0.0.1".to_owned()),
            ("quarkus.http.port", self.port.to_string()),
            // Without it, it doesn't say that it is there.
            ("quarkus.log.category.\"io.quarkus\".level", "INFO".to_owned()),
            // In a file, which is written before an answer is given, rather than in memory.
            (
                "apicurio.datasource.url",
                format!("jdbc:h2:file:{};WRITE_DELAY=0", dir.join("schemas").display()),
            ),
            ("apicurio.datasource.jdbc.initial-size", "2".to_owned()),
            ("apicurio.datasource.jdbc.min-size", "2".to_owned()),
        ] {
            command.arg(format!("-D{name}={value}"));
        }
        let app = setup::part("registry").join("app");
        command
            .arg("-jar")
            .arg(app.join("apicurio-registry-app-3.0.9-runner.jar"));
        let log = dir.join(format!("registry-{}.log", running.0));
        running.1 = Some(Server::start(command, log, "Listening on:"));
    }

    /// Freezes it: connections are taken and nothing is answered, until [`Registry::resume`].
    pub fn pause(&self) {
        let running = self.running.lock().expect("no panic holds the registry");
        running.1.as_ref().expect("the registry runs").pause();
    }

    /// Lets it go on, with what it was asked meanwhile.
    pub fn resume(&self) {
        let running = self.running.lock().expect("no panic holds the registry");
        running.1.as_ref().expect("the registry runs").resume();
    }

    fn remove(&self) {
        self.kill();
        let _ = fs::remove_dir_all(self.dir.path());
    }
}

// --- the proxy -------------------------------------------------------------------------------------------------------

#[derive(Default)]
struct Plan {
    seen: Vec<String>,
    /// For the requests to come, one each; then `always`.
    faults: VecDeque<Fault>,
    always: Option<Fault>,
    authorization: Option<String>,
}

/// A proxy before a [`Registry`], which may be the shared one, that counts and refuses.
pub struct RegistryProxy {
    proxy: Proxy,
    plan: Arc<Mutex<Plan>>,
}

impl RegistryProxy {
    /// Starts one through which everything passes.
    pub fn start(registry: &Registry) -> Self {
        let proxy = Proxy::start_on(setup::free_port(), registry.address());
        let plan = Arc::new(Mutex::new(Plan::default()));
        let shared = Arc::clone(&plan);
        proxy.guard(move |request| {
            let mut plan = shared.lock().expect("no panic holds the plan");
            let path = request.target().strip_prefix(API).unwrap_or(request.target());
            plan.seen.push(format!("{} {path}", request.method()));
            let fault = plan.faults.pop_front().or(plan.always);
            let known =
                plan.authorization.is_none() || plan.authorization.as_deref() == request.header("authorization");
            fault.unwrap_or(if known { Fault::Pass } else { Fault::Refuse(401) })
        });
        Self { proxy, plan }
    }

    /// What goes into `schemaRegistry`.
    pub fn url(&self) -> String {
        format!("{}{API}", self.proxy.uri())
    }

    /// All requests that came by, in order, also those refused: `GET /schemas/ids/1`.
    pub fn requests(&self) -> Vec<String> {
        self.plan.lock().expect("no panic holds the plan").seen.clone()
    }

    /// How many requests came for this path, whatever query followed it.
    pub fn count(&self, path: &str) -> usize {
        let requests = self.requests();
        let paths = requests.iter().filter_map(|request| request.split([' ', '?']).nth(1));
        paths.filter(|seen| *seen == path).count()
    }

    /// Does this to the next `n` requests.
    pub fn fail_next(&self, n: usize, fault: Fault) {
        let mut plan = self.plan.lock().expect("no panic holds the plan");
        plan.faults.extend(std::iter::repeat_n(fault, n));
    }

    /// Does this to every request until [`RegistryProxy::pass`].
    pub fn fail(&self, fault: Fault) {
        self.plan.lock().expect("no panic holds the plan").always = Some(fault);
    }

    /// Lets everything pass from now on.
    pub fn pass(&self) {
        let mut plan = self.plan.lock().expect("no panic holds the plan");
        plan.faults.clear();
        (plan.always, plan.authorization) = (None, None);
    }

    /// Answers 401 from now on to whoever sends another `authorization` header than this one.
    pub fn demand(&self, authorization: &str) {
        self.plan.lock().expect("no panic holds the plan").authorization = Some(authorization.to_owned());
    }

    /// Refuses connections until [`RegistryProxy::open`], as where nothing listens.
    pub fn close(&self) {
        self.proxy.close();
    }

    /// Takes connections again.
    pub fn open(&self) {
        self.proxy.open();
    }
}

// --- the tools of this file, tried on themselves -----------------------------------------------------------------------

#[test]
fn records_and_the_schema_that_their_frame_names_come_back() {
    let (kafka, registry, topic) = (Kafka::shared(), Registry::shared(), "registry-orders");
    let schema = json!({"type": "record", "name": "Order", "fields": [{"name": "n", "type": "long"}]});
    let subject = format!("{topic}-value");
    let id = registry.register(&subject, "AVRO", &schema.to_string(), &[]);
    assert_eq!(
        registry.register(&subject, "AVRO", &schema.to_string(), &[]),
        id,
        "it is there"
    );
    produce::create_topic(kafka, topic, 1, &[]);
    let values = encode::avro(Some(id), &schema, (0..3).map(|n| json!({"n": n})));
    produce::produce(kafka, topic, values.into_iter().map(Record::of));

    for (n, record) in (0..).zip(produce::read_all(kafka, topic, "read_committed")) {
        let value = record.value.expect("a value");
        let (frame, rest) = value.split_at(5);
        assert_eq!((frame[0], rest), (0, &[n * 2][..]), "record {n}");
        let named = u32::from_be_bytes(frame[1..].try_into().expect("four bytes"));
        let (status, answer) = registry.get(&format!("/schemas/ids/{named}"));
        assert_eq!((status, &answer["schemaType"]), (200, &json!("AVRO")), "{answer}");
        let text = answer["schema"].as_str().expect("text");
        assert_eq!(serde_json::from_str::<Value>(text).expect("JSON"), schema);
    }
    let (status, answer) = registry.get("/schemas/ids/999999");
    assert_eq!((status, &answer["error_code"]), (404, &json!(40403)), "{answer}");
}

#[test]
fn schemas_of_each_language_refer_to_others() {
    let registry = Registry::shared();
    let color = json!({"type": "enum", "name": "Color", "symbols": ["red"]}).to_string();
    let car = json!({"type": "record", "name": "Car", "fields": [{"name": "color", "type": "Color"}]}).to_string();
    let size = "syntax = \"proto3\"; message Size { int32 n = 1; }";
    let shoe = "syntax = \"proto3\"; import \"size.proto\"; message Shoe { Size size = 1; }";
    let point = json!({"type": "object", "properties": {"x": {"type": "number"}}}).to_string();
    let line = json!({"type": "object", "properties": {"from": {"$ref": "point.json"}}}).to_string();
    for (language, name, inner, outer) in [
        ("AVRO", "Color", color.as_str(), car.as_str()),
        ("PROTOBUF", "size.proto", size, shoe),
        ("JSON", "point.json", &point, &line),
    ] {
        let subject = |which: &str| format!("registry-{which}-{language}");
        registry.register(&subject("inner"), language, inner, &[]);
        let id = registry.register(&subject("outer"), language, outer, &[(name, &subject("inner"), 1)]);
        let (status, answer) = registry.get(&format!("/schemas/ids/{id}"));
        assert_eq!((status, &answer["schemaType"]), (200, &json!(language)), "{answer}");
        let reference = json!([{"name": name, "subject": subject("inner"), "version": 1}]);
        assert_eq!(answer["references"], reference, "{answer}");
        let (status, answer) = registry.get(&format!("/subjects/{}/versions/1", subject("inner")));
        assert_eq!((status, &answer["version"]), (200, &json!(1)), "{answer}");
    }
}

#[test]
fn a_version_that_may_not_follow_is_refused_once_that_is_asked_for() {
    let (registry, subject) = (Registry::shared(), "registry-compatible-value");
    let record =
        |kind: &str| json!({"type": "record", "name": "R", "fields": [{"name": "n", "type": kind}]}).to_string();
    let first = registry.register(subject, "AVRO", &record("long"), &[]);
    let (status, answer) = registry.send(
        "PUT",
        &format!("/config/{subject}"),
        &json!({"compatibility": "BACKWARD"}),
    );
    assert_eq!(status, 200, "{answer}");
    let body = json!({"schema": record("string"), "schemaType": "AVRO"});
    let (status, answer) = registry.send("POST", &format!("/subjects/{subject}/versions"), &body);
    assert_eq!(status, 409, "{answer}");
    assert_ne!(registry.register(subject, "AVRO", &record("double"), &[]), first);
    assert_eq!(
        registry.get(&format!("/subjects/{subject}/versions/latest")).1["version"],
        2
    );
}

#[test]
fn a_registry_comes_back_with_its_schemas_after_a_kill_and_after_a_freeze() {
    let registry = Registry::start();
    let id = registry.register("a-value", "AVRO", "\"long\"", &[]);
    let path = format!("/schemas/ids/{id}");
    registry.kill();
    assert!(TcpStream::connect(registry.address()).is_err(), "nothing listens");
    let url = registry.url();
    registry.start_again();
    assert_eq!(registry.url(), url, "its port is the same");
    assert_eq!(registry.get(&path).1["schema"], "\"long\"");

    registry.pause();
    let mut asking = TcpStream::connect(registry.address()).expect("the kernel takes connections");
    write!(asking, "GET {API}{path} HTTP/1.0\r\n\r\n").expect("the kernel reads");
    asking
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a limit");
    assert!(asking.read(&mut [0]).is_err(), "it answers");
    registry.resume();
    asking.set_read_timeout(Some(setup::PATIENCE)).expect("a limit");
    let mut answer = String::new();
    asking.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains(" 200 "), "{answer}");
}

#[test]
fn the_proxy_of_the_registry_counts_refuses_and_closes() {
    let registry = Registry::shared();
    let id = registry.register("registry-proxy-value", "AVRO", "\"int\"", &[]);
    let path = format!("/schemas/ids/{id}");
    let proxy = RegistryProxy::start(registry);
    let url = proxy.url();
    let address = url
        .strip_prefix("http://")
        .and_then(|rest| rest.strip_suffix(API))
        .expect("an address");
    let ask = || servers::send_json(address, "GET", &format!("{API}{path}?deleted=true"), &Value::Null);

    proxy.fail_next(1, Fault::Refuse(500));
    proxy.fail_next(1, Fault::Refuse(404));
    let codes = [ask(), ask()].map(|(status, answer)| (status, answer["error_code"].clone()));
    assert_eq!(codes, [(500, json!(50001)), (404, json!(40403))]);
    assert_eq!(ask().1["schema"], "\"int\"");
    proxy.fail(Fault::Refuse(503));
    assert_eq!([ask().0, ask().0], [503, 503]);
    proxy.pass();
    assert_eq!(ask().0, 200);
    proxy.close();
    let refused = TcpStream::connect(address).expect_err("nothing listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    proxy.open();
    assert_eq!(ask().0, 200);
    proxy.demand("Basic dTpw");
    assert_eq!(ask().0, 401);
    proxy.pass();
    assert_eq!(ask().0, 200);

    assert_eq!(proxy.count(&path), 9);
    assert_eq!(proxy.count("/schemas/ids/0"), 0);
    assert_eq!(proxy.requests()[0], format!("GET {path}?deleted=true"));
}
