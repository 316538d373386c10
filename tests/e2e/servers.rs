//! Real servers on loopback: Apache Kafka, Iceberg's REST catalog, Project Nessie, S3. The schema registry is in
//! `registry.rs`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tempfile::TempDir;

pub use super::proxy::{Fault, Proxy, SeenCommit};
use super::setup;

const START_LIMIT: Duration = setup::PATIENCE; // 3 s alone, 30 s seen on two cores shared by five builds

/// A server process with its log; dropped, it is killed.
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `command` with its output going to `log`, and waits until that holds `ready`.
    pub fn start(mut command: Command, log: PathBuf, ready: &str) -> Self {
        let out = File::create(&log).expect("the log can be created");
        let err = out.try_clone().expect("the log can be opened twice");
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let mut server = Self {
            child: setup::spawn(command),
            log,
        };
        let mut ended = None;
        let started = setup::wait_until(START_LIMIT, || {
            ended = server.child.try_wait().expect("the child can be asked");
            ended.is_some() || fs::read_to_string(&server.log).is_ok_and(|log| log.contains(ready))
        });
        if !started || ended.is_some() {
            let log = fs::read_to_string(&server.log).unwrap_or_default();
            panic!("no `{ready}` within {START_LIMIT:?}; ended: {ended:?}; its log:\n{log}");
        }
        server
    }

    /// Stops it by SIGSTOP: connections are taken, by the kernel, and nothing is answered.
    pub fn pause(&self) {
        setup::signal(&self.child, libc::SIGSTOP);
        let stopped = setup::wait_until(setup::PATIENCE, || setup::state(&self.child) == Some('T'));
        assert!(stopped, "the server doesn't stop");
    }

    /// Lets it go on after [`Server::pause`], with what it was asked meanwhile.
    pub fn resume(&self) {
        setup::signal(&self.child, libc::SIGCONT);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        setup::kill_group(&mut self.child);
    }
}

/// A Java runtime with this heap, to be told what to run.
pub fn java(heap_mib: u32) -> Command {
    let mut command = Command::new(setup::java());
    command.arg(format!("-Xmx{heap_mib}m")).args([
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "--enable-native-access=ALL-UNNAMED",
    ]);
    command
}

// --- Kafka ---------------------------------------------------------------------------------------------------------

/// One Kafka broker, its own controller, with its data in a temporary folder.
pub struct Kafka {
    dir: TempDir,
    port: u16,
    login_port: u16,
    controller: u16,
    cluster_id: String,
    running: Mutex<(u32, Option<Server>)>,
}

impl Kafka {
    /// The broker that all tests of this process share; topics are its rooms, so name them after the test.
    ///
    /// A test that stops or kills its broker starts its own with [`Kafka::start`].
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(|| {
            setup::at_exit(|| SHARED.get().into_iter().for_each(Self::remove));
            Self::start()
        })
    }

    /// Starts a broker of one's own, in a cluster of its own.
    pub fn start() -> Self {
        Self::start_with_user("nobody", "of-no-use")
    }

    /// Starts a broker of one's own that knows this user, who may log in by SCRAM-SHA-512 at [`Kafka::login_brokers`].
    pub fn start_with_user(user: &str, password: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("aperio-kafka-")
            .tempdir()
            .expect("a temporary folder");
        let (port, controller, login_port) = (setup::free_port(), setup::free_port(), setup::free_port());
        let cluster_id = URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().as_bytes());
        let own = [
            ("process.roles", "broker,controller".to_owned()),
            ("node.id", "1".to_owned()),
            (
                "listeners",
                format!(
                    "PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{login_port},CONTROLLER://127.0.0.1:{controller}"
                ),
            ),
        ];
        let scram = format!("SCRAM-SHA-512=[name={user},password={password}]");
        let format = ["--add-scram", &scram];
        Self::prepare(dir, (port, login_port, controller), &cluster_id, &own, &format)
    }

    /// Starts a second broker of the same cluster. The first stays its only controller.
    pub fn start_second(&self) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("aperio-kafka-")
            .tempdir()
            .expect("a temporary folder");
        let (port, login_port) = (setup::free_port(), setup::free_port());
        let own = [
            ("process.roles", "broker".to_owned()),
            ("node.id", "2".to_owned()),
            (
                "listeners",
                format!("PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{login_port}"),
            ),
        ];
        Self::prepare(dir, (port, login_port, self.controller), &self.cluster_id, &own, &[])
    }

    /// Writes a broker's configuration, formats its folder, and starts it.
    ///
    /// - `ports`: for clients, for clients that log in, of the controller.
    fn prepare(
        dir: TempDir,
        ports: (u16, u16, u16),
        cluster_id: &str,
        own: &[(&str, String)],
        format: &[&str],
    ) -> Self {
        let (port, login_port, controller) = ports;
        let data = dir.path().join("data");
        let mut properties = String::new();
        for (key, value) in own {
            writeln!(properties, "{key}={value}").expect("a string takes everything");
        }
        for (key, value) in [
            ("controller.quorum.voters", format!("1@127.0.0.1:{controller}")),
            (
                "advertised.listeners",
                format!("PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{login_port}"),
            ),
            // Whoever doesn't log in may do everything, as may others where no rule names the topic.
            (
                "authorizer.class.name",
                "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned(),
            ),
            ("super.users", "User:ANONYMOUS".to_owned()),
            ("allow.everyone.if.no.acl.found", "true".to_owned()),
            ("sasl.enabled.mechanisms", "SCRAM-SHA-512".to_owned()),
            (
                "listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config",
                "org.apache.kafka.common.security.scram.ScramLoginModule required;".to_owned(),
            ),
            ("controller.listener.names", "CONTROLLER".to_owned()),
            (
                "listener.security.protocol.map",
                "PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned(),
            ),
            ("log.dirs", data.display().to_string()),
            ("auto.create.topics.enable", "false".to_owned()),
            ("offsets.topic.num.partitions", "4".to_owned()),
            ("offsets.topic.replication.factor", "1".to_owned()),
            ("transaction.state.log.num.partitions", "4".to_owned()),
            ("transaction.state.log.replication.factor", "1".to_owned()),
            ("transaction.state.log.min.isr", "1".to_owned()),
            ("share.coordinator.state.topic.num.partitions", "1".to_owned()),
            ("share.coordinator.state.topic.replication.factor", "1".to_owned()),
            ("share.coordinator.state.topic.min.isr", "1".to_owned()),
            ("group.initial.rebalance.delay.ms", "0".to_owned()),
            // A killed member is gone as soon as a test wants it.
            ("group.min.session.timeout.ms", "1000".to_owned()),
            ("log.retention.check.interval.ms", "1000".to_owned()),
            // Events of the past stay, unless a topic says otherwise.
            ("log.retention.ms", "-1".to_owned()),
            ("message.max.bytes", "20000000".to_owned()),
        ] {
            writeln!(properties, "{key}={value}").expect("a string takes everything");
        }
        fs::write(dir.path().join("server.properties"), properties).expect("the configuration can be written");

        let format = Self::tool(dir.path(), 256, "kafka.tools.StorageTool")
            // In one word with its value, which may begin with a dash.
            .args(["format", &format!("--cluster-id={cluster_id}"), "-c"])
            .arg(dir.path().join("server.properties"))
            .args(format)
            .output()
            .expect("java starts");
        assert!(
            format.status.success(),
            "StorageTool format: {}",
            String::from_utf8_lossy(&format.stderr)
        );

        let kafka = Self {
            dir,
            port,
            login_port,
            controller,
            cluster_id: cluster_id.to_owned(),
            running: Mutex::new((0, None)),
        };
        kafka.start_again();
        kafka
    }

    /// `host:port` for clients.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `host:port` for clients that log in.
    pub fn login_brokers(&self) -> String {
        format!("127.0.0.1:{}", self.login_port)
    }

    fn remove(&self) {
        self.kill();
        let _ = fs::remove_dir_all(self.dir.path());
    }

    /// Kills the broker as a power cut would; clients see it gone. Its data stays.
    pub fn kill(&self) {
        self.running.lock().expect("no panic holds the broker").1 = None;
    }

    /// Stops the broker as its operator would: it looks at none of its data when it starts again.
    pub fn stop(&self) {
        let mut running = self.running.lock().expect("no panic holds the broker");
        let mut server = running.1.take().expect("the broker runs");
        setup::signal(&server.child, libc::SIGTERM);
        let ended = setup::wait_until(START_LIMIT, || {
            server.child.try_wait().expect("the child can be asked").is_some()
        });
        assert!(ended, "the broker doesn't stop");
    }

    /// The folder that holds a folder of each partition.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts the killed broker again with its data, on the same port.
    pub fn start_again(&self) {
        let mut running = self.running.lock().expect("no panic holds the broker");
        assert!(running.1.is_none(), "the broker runs");
        running.0 += 1;
        let mut command = Self::tool(self.dir.path(), 512, "kafka.Kafka");
        command.arg(self.dir.path().join("server.properties"));
        let log = self.dir.path().join(format!("server-{}.log", running.0));
        running.1 = Some(Server::start(command, log, "Kafka Server started"));
    }

    /// The folder of a partition's log, to be looked into while the broker is dead.
    pub fn log_folder(&self, topic: &str, partition: i32) -> PathBuf {
        self.dir.path().join("data").join(format!("{topic}-{partition}"))
    }

    /// Kills the broker and starts it again.
    pub fn restart(&self) {
        self.kill();
        self.start_again();
    }

    /// Runs one of Kafka's own tools, such as `org.apache.kafka.tools.TopicCommand`, and returns what it printed.
    pub fn run_tool(&self, class: &str, args: &[&str]) -> String {
        let mut command = Self::tool(self.dir.path(), 256, class);
        let output = command
            .args(["--bootstrap-server", &self.brokers()])
            .args(args)
            .output()
            .expect("java starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{class} {args:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    fn tool(dir: &Path, heap_mib: u32, class: &str) -> Command {
        let mut command = java(heap_mib);
        command
            .current_dir(dir)
            .arg("-cp")
            .arg(setup::part("kafka").join("libs/*"))
            .arg(class);
        command
    }
}

// --- the REST catalog ------------------------------------------------------------------------------------------------

/// Iceberg's reference REST catalog, over local files.
pub struct RestCatalog {
    port: u16,
    _server: Server,
}

impl RestCatalog {
    /// Starts it with its tables and its own database in `warehouse`; one that was there goes on.
    pub fn start(warehouse: &Path) -> Self {
        Self::start_with(warehouse, 256)
    }

    /// The same with a heap for large tables, in MiB: the server takes metadata apart in memory.
    pub fn start_with(warehouse: &Path, heap_mib: u32) -> Self {
        let rest = setup::part("rest");
        assert!(
            rest.join("classes").exists(),
            "the REST catalog isn't compiled: run `make setup`"
        );
        fs::create_dir_all(warehouse).expect("the warehouse can be created");
        let port = setup::free_port();
        let mut classes = rest.join("classes").into_os_string();
        classes.push(":");
        classes.push(rest.join("libs/*"));
        let mut command = java(heap_mib);
        command.current_dir(warehouse).arg("-cp").arg(classes);
        command.arg("CatalogServer").arg(port.to_string()).arg(warehouse);
        let server = Server::start(command, warehouse.join("rest-catalog.log"), "REST catalog started");
        Self { port, _server: server }
    }

    /// `host:port`, for [`Proxy::start`].
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What goes into `catalog.uri`.
    pub fn uri(&self) -> String {
        format!("http://{}", self.address())
    }
}

/// Project Nessie, an Iceberg REST catalog over a bucket of [`S3`]; what it knows is in its memory.
pub struct Nessie {
    port: u16,
    _server: Server,
    _dir: TempDir,
}

impl Nessie {
    /// Starts it with one warehouse, `lake`, in a bucket that is there already, and lends credentials for it. `s3_uri` is
    /// where its clients go too.
    pub fn start(s3_uri: &str, bucket: &str) -> Self {
        let options = "nessie.catalog.service.s3.default-options";
        let endpoint = format!("{s3_uri}/");
        let role = "arn:aws:iam::123456789012:role/lake";
        let properties = [
            ("nessie.catalog.default-warehouse", "lake"),
            (
                "nessie.catalog.warehouses.lake.location",
                &format!("s3://{bucket}/lake"),
            ),
            (&format!("{options}.endpoint"), &endpoint),
            (&format!("{options}.sts-endpoint"), &endpoint),
            (&format!("{options}.path-style-access"), "true"),
            (&format!("{options}.region"), "us-east-1"),
            (&format!("{options}.request-signing-enabled"), "false"),
            (&format!("{options}.client-iam.enabled"), "true"),
            (&format!("{options}.client-iam.assume-role"), role),
            (&format!("{options}.access-key"), "urn:nessie-secret:quarkus:lake.key"),
            ("lake.key.name", S3_KEY.0),
            ("lake.key.secret", S3_KEY.1),
        ];
        Self::start_with(properties.map(|(name, value)| (name.to_owned(), value.to_owned())))
    }

    /// Starts it as `docker-compose.yml` does, with the same settings: only the addresses are others, and there is no
    /// PostgreSQL.
    pub fn of_compose_file(s3_uri: &str) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker-compose.yml");
        let text = fs::read_to_string(file).expect("docker-compose.yml is there");
        let mut lines = text.lines().skip_while(|line| *line != "  catalog:").skip(1);
        let service = lines.by_ref().take_while(|line| line.starts_with("    "));
        let properties: Vec<_> = service
            .filter_map(|line| line.trim().split_once(": "))
            .filter(|(name, _)| name.starts_with("nessie.catalog.") || name.starts_with("lake."))
            .map(|(name, value)| {
                let value = value.trim_matches('"');
                // `${NAME:-default}`
                let default = value.split_once(":-").map(|(_, default)| default.trim_end_matches('}'));
                let is_address = value.starts_with("http://");
                let value = if is_address { s3_uri } else { default.unwrap_or(value) };
                (name.to_owned(), value.to_owned())
            })
            .collect();
        assert!(properties.len() >= 10, "the settings of `catalog`: {properties:?}");
        Self::start_with(properties)
    }

    fn start_with(properties: impl IntoIterator<Item = (String, String)>) -> Self {
        let jar = setup::part("nessie").join("libs/nessie-quarkus-0.99.0-runner.jar");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (port, management) = (setup::free_port(), setup::free_port());
        let mut command = java(384);
        command.current_dir(dir.path());
        for (name, value) in [
            ("quarkus.http.host", "127.0.0.1"),
            ("quarkus.http.port", &port.to_string()),
            ("quarkus.management.host", "127.0.0.1"),
            ("quarkus.management.port", &management.to_string()),
            ("nessie.version.store.type", "IN_MEMORY"),
        ] {
            command.arg(format!("-D{name}={value}"));
        }
        for (name, value) in properties {
            command.arg(format!("-D{name}={value}"));
        }
        command.arg("-jar").arg(jar);
        let server = Server::start(command, dir.path().join("nessie.log"), "Listening on:");
        Self {
            port,
            _server: server,
            _dir: dir,
        }
    }

    /// `host:port`, for [`Proxy::start`].
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What goes into `catalog.uri`.
    pub fn uri(&self) -> String {
        format!("http://{}/iceberg", self.address())
    }
}

// --- S3 --------------------------------------------------------------------------------------------------------------

/// An access key id with its secret, for [`S3`], which takes any.
pub const S3_KEY: (&str, &str) = ("key-of-tests", "secret-of-tests");

/// An S3 server that keeps its buckets in memory: moto. Conditional writes are answered as by S3, secrets aren't checked.
pub struct S3 {
    port: u16,
    _server: Server,
}

impl S3 {
    /// The server that all tests of this process share; buckets are its rooms, so name them after the test.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<S3> = OnceLock::new();
        // A static isn't dropped: the kernel kills the server when this process ends.
        SHARED.get_or_init(|| {
            let port = setup::free_port();
            let mut command = Command::new(setup::part("s3").join("bin/python"));
            command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
            let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("s3-{}.log", std::process::id()));
            let server = Server::start(command, log.clone(), "Running on");
            // The server writes on into the file that has lost its name.
            let _ = fs::remove_file(log);
            Self { port, _server: server }
        })
    }

    /// Makes a bucket.
    pub fn make_bucket(&self, bucket: &str) {
        let (status, _) = send(&self.address(), "PUT", &format!("/{bucket}"));
        assert_eq!(status, 200, "bucket {bucket}");
    }

    /// The keys in a bucket.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let (status, listing) = send(&self.address(), "GET", &format!("/{bucket}?list-type=2"));
        assert_eq!(status, 200, "{listing}");
        let keys = listing.split("<Key>").skip(1);
        keys.map(|rest| rest.split('<').next().unwrap_or_default().to_owned())
            .collect()
    }

    /// `host:port`, for [`Proxy::start`].
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What goes into `s3.endpoint`.
    pub fn uri(&self) -> String {
        format!("http://{}", self.address())
    }
}

/// Sends a request without a body to the server at `address`, as `host:port`; returns the status and all that it answers.
pub fn send(address: &str, method: &str, target: &str) -> (u16, String) {
    send_text(address, method, target, "", "")
}

/// Sends a request with a body of JSON; returns the status and the answer's JSON, null where it is none.
pub fn send_json(address: &str, method: &str, target: &str, body: &Value) -> (u16, Value) {
    let header = "content-type: application/json\r\n";
    let (status, answer) = send_text(address, method, target, header, &body.to_string());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// Gets a page; returns the status and the body, or nothing where nobody answers.
pub fn page(address: &str, target: &str) -> Option<(u16, String)> {
    let (status, answer) = exchange(address, "GET", target, "", "").ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}

fn send_text(address: &str, method: &str, target: &str, header: &str, body: &str) -> (u16, String) {
    exchange(address, method, target, header, body).expect("the server answers")
}

fn exchange(address: &str, method: &str, target: &str, header: &str, body: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    let length = body.len();
    // HTTP/1.0: the answer ends with its connection and isn't cut into chunks.
    write!(
        stream,
        "{method} {target} HTTP/1.0\r\nhost: {address}\r\n{header}content-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status in `{answer}`")))?;
    Ok((status, answer))
}
