//! Real servers on loopback: Apache Kafka, Iceberg's REST catalog, and a proxy that loses or falsifies answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tempfile::TempDir;

use super::setup;

const START_LIMIT: Duration = Duration::from_secs(90); // 3 s alone, 30 s seen on two cores shared by five builds

/// A server process with its log; dropped, it is killed.
struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `command` with its output going to `log`, and waits until that holds `ready`.
    fn start(mut command: Command, log: PathBuf, ready: &str) -> Self {
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
}

impl Drop for Server {
    fn drop(&mut self) {
        setup::kill_group(&mut self.child);
    }
}

fn java(heap_mib: u32) -> Command {
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
        static DIR: OnceLock<PathBuf> = OnceLock::new();
        // A static isn't dropped: the kernel kills the broker when this process ends, this removes its folder.
        extern "C" fn remove_dir() {
            if let Some(dir) = DIR.get() {
                SHARED.get().expect("set before DIR").kill();
                let _ = fs::remove_dir_all(dir);
            }
        }
        let kafka = SHARED.get_or_init(Self::start);
        DIR.get_or_init(|| {
            // SAFETY: the function is `extern "C"`, takes nothing and doesn't unwind in any way that matters at exit.
            unsafe { libc::atexit(remove_dir) };
            kafka.dir.path().to_owned()
        });
        kafka
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
            .args(["format", "-t", cluster_id, "-c"])
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

    /// Kills the broker as a power cut would; clients see it gone. Its data stays.
    pub fn kill(&self) {
        self.running.lock().expect("no panic holds the broker").1 = None;
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
        let mut command = java(256);
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

// --- the proxy ---------------------------------------------------------------------------------------------------------

/// What [`Proxy`] does to one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Forwards the commit and the answer.
    Pass,
    /// Forwards the commit, then closes the connection instead of answering.
    SwallowAnswer,
    /// Answers with this status; the catalog never sees the commit.
    Refuse(u16),
    /// Forwards the commit, then answers with this status whatever the catalog said.
    LieAfter(u16),
}

/// A commit that came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenCommit {
    /// What was done to it.
    pub fault: Fault,
    /// The catalog's own answer; `None` if it wasn't asked.
    pub upstream_status: Option<u16>,
}

#[derive(Default)]
struct Plan {
    faults: BTreeMap<usize, Fault>,
    seen: Vec<SeenCommit>,
}

/// An HTTP proxy before a REST catalog that can spoil chosen commits: `POST …/tables/{table}` and
/// `POST …/transactions/commit`. Everything else passes.
pub struct Proxy {
    port: u16,
    plan: Arc<Mutex<Plan>>,
}

impl Proxy {
    /// Starts one in threads of this process; `upstream` is `host:port`.
    pub fn start(upstream: impl Into<String>) -> Self {
        let upstream: Arc<str> = upstream.into().into();
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let plan = Arc::new(Mutex::new(Plan::default()));
        let shared = Arc::clone(&plan);
        // Ends with the process: a thread that waits costs nothing, and a port of ours that is still open can't be
        // taken by another test.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (upstream, plan) = (Arc::clone(&upstream), Arc::clone(&shared));
                std::thread::spawn(move || {
                    // A broken connection is the client's to notice.
                    let _ = serve(client, &upstream, &plan);
                });
            }
        });
        Self { port, plan }
    }

    /// What goes into `catalog.uri`.
    pub fn uri(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Spoils the `n`-th commit from now on; the next is 1.
    pub fn on_commit(&self, n: usize, fault: Fault) {
        assert!(n > 0, "the next commit is 1");
        let mut plan = self.plan.lock().expect("no panic holds the plan");
        let index = plan.seen.len() + n - 1;
        plan.faults.insert(index, fault);
    }

    /// All commits that came by, in order.
    pub fn commits(&self) -> Vec<SeenCommit> {
        self.plan.lock().expect("no panic holds the plan").seen.clone()
    }
}

struct Message {
    start_line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Message {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Reads one message; `to_end` says that a body without a length ends with the connection (answers only).
    fn read(from: &mut impl BufRead, to_end: bool) -> io::Result<Option<Self>> {
        let mut start_line = String::new();
        if from.read_line(&mut start_line)? == 0 {
            return Ok(None);
        }
        let mut message = Self {
            start_line: start_line.trim_end().to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let Some((key, value)) = line.trim_end().split_once(':') else {
                break;
            };
            message.headers.push((key.to_owned(), value.trim().to_owned()));
        }
        if message
            .header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            loop {
                let mut size = String::new();
                from.read_line(&mut size)?;
                let size = size.trim_end().split(';').next().unwrap_or_default();
                let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
                let mut chunk = Vec::new();
                from.take(size + 2).read_to_end(&mut chunk)?;
                if size == 0 {
                    break;
                }
                chunk.truncate(chunk.len().saturating_sub(2));
                message.body.extend(chunk);
            }
        } else if let Some(length) = message.header("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            from.take(length).read_to_end(&mut message.body)?;
        } else if to_end {
            from.read_to_end(&mut message.body)?;
        }
        Ok(Some(message))
    }

    /// Writes it with a plain length, as the last message of its connection.
    fn write(&self, to: &mut impl Write, host: Option<&str>, with_length: bool) -> io::Result<()> {
        const OURS: [&str; 5] = [
            "connection",
            "keep-alive",
            "transfer-encoding",
            "content-length",
            "expect",
        ];
        let mut text = format!("{}\r\n", self.start_line);
        for (key, value) in &self.headers {
            let value = if key.eq_ignore_ascii_case("host") {
                host.unwrap_or(value)
            } else {
                value
            };
            if !OURS.iter().any(|ours| key.eq_ignore_ascii_case(ours)) {
                text.push_str(&format!("{key}: {value}\r\n"));
            }
        }
        if with_length {
            text.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        text.push_str("connection: close\r\n\r\n");
        to.write_all(text.as_bytes())?;
        to.write_all(&self.body)?;
        to.flush()
    }
}

fn serve(mut client: TcpStream, upstream: &str, plan: &Mutex<Plan>) -> io::Result<()> {
    let Some(request) = Message::read(&mut BufReader::new(client.try_clone()?), false)? else {
        return Ok(());
    };
    let fault = if is_commit(&request.start_line) {
        let mut plan = plan.lock().expect("no panic holds the plan");
        let index = plan.seen.len();
        let fault = plan.faults.remove(&index).unwrap_or(Fault::Pass);
        plan.seen.push(SeenCommit {
            fault,
            upstream_status: None,
        });
        Some((index, fault))
    } else {
        None
    };
    if let Some((_, Fault::Refuse(status))) = fault {
        return made_up(status).write(&mut client, None, true);
    }

    let mut server = TcpStream::connect(upstream)?;
    request.write(&mut server, Some(upstream), true)?;
    let Some(answer) = read_answer(server, &request.start_line)? else {
        return Ok(());
    };
    if let Some((index, _)) = fault {
        let status = answer
            .start_line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        plan.lock().expect("no panic holds the plan").seen[index].upstream_status = status;
    }
    match fault {
        Some((_, Fault::SwallowAnswer)) => client.shutdown(Shutdown::Both),
        Some((_, Fault::LieAfter(status))) => made_up(status).write(&mut client, None, true),
        _ => {
            // 204 and 304 must not carry a length, and that of a HEAD isn't its body's; the closed connection ends them.
            let bodiless = request.start_line.starts_with("HEAD ") || answer.start_line.contains(" 204");
            answer.write(&mut client, None, !bodiless)
        }
    }
}

/// Reads an answer; that to a HEAD has no body whatever its headers say.
fn read_answer(server: TcpStream, request_line: &str) -> io::Result<Option<Message>> {
    if !request_line.starts_with("HEAD ") {
        return Message::read(&mut BufReader::new(server), true);
    }
    let mut head = Vec::new();
    let mut server = server;
    server.read_to_end(&mut head)?;
    let lengthless = String::from_utf8_lossy(&head).replace("Content-Length", "x-content-length");
    Message::read(&mut lengthless.as_bytes(), true)
}

fn is_commit(request_line: &str) -> bool {
    let mut words = request_line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let mut segments = path.rsplit('/');
    let (last, before) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    method == "POST" && (before == "tables" || (before, last) == ("transactions", "commit"))
}

/// An error answer as the REST catalog's specification shapes it.
fn made_up(status: u16) -> Message {
    let (reason, kind) = match status {
        409 => ("Conflict", "CommitFailedException"),
        503 => ("Service Unavailable", "ServiceUnavailableException"),
        _ => ("Internal Server Error", "InternalServerError"),
    };
    let body = serde_json::json!({"error": {"message": "made up by the proxy", "type": kind, "code": status}});
    Message {
        start_line: format!("HTTP/1.1 {status} {reason}"),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: body.to_string().into_bytes(),
    }
}
