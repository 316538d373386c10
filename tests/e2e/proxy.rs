//! An HTTP proxy before a REST catalog, an S3 server or a schema registry that spoils what passes: it loses answers,
//! falsifies them, refuses, hangs, cuts connections, closes its port, and asks for the papers of whoever comes by.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::setup;

/// What [`Proxy`] does to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Forwards the request and the answer.
    Pass,
    /// Forwards the request, then closes the connection instead of answering.
    SwallowAnswer,
    /// Answers with this status; the server never sees the request.
    Refuse(u16),
    /// Forwards the request, then answers with this status whatever the server said.
    LieAfter(u16),
    /// Closes the connection; the server never sees the request.
    Cut,
    /// Keeps the connection and says nothing; the server never sees the request.
    Hang,
    /// Answers 200 with a page for people, as a portal or a proxy that wants a login does; the server never sees the request.
    Page,
    /// Waits so many milliseconds, then forwards the request and the answer.
    Delay(u16),
    /// Answers with this status and a `location`, the same address: whoever follows it with a GET finds what is there. The
    /// server never sees this request.
    Redirect(u16),
    /// Forwards the request, then answers with the first half of what the server said, as if that were all.
    Half,
    /// Answers 200 with a body that never ends; the server never sees the request.
    Endless,
    /// Answers 404 with a page, as a gateway does that doesn't know where to; the server never sees the request.
    Lost,
}

/// A commit that came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenCommit {
    /// What was done to it.
    pub fault: Fault,
    /// The catalog's own answer; `None` if it wasn't asked.
    pub upstream_status: Option<u16>,
}

/// Says what is to be done to a request.
type Guard = Box<dyn FnMut(&Request) -> Fault + Send>;
/// Changes the server's answer to a request, which passes.
type Editor = Box<dyn FnMut(&Request, &mut Message) + Send>;

#[derive(Default)]
struct Plan {
    faults: BTreeMap<usize, Fault>,
    seen: Vec<SeenCommit>,
    guard: Option<Guard>,
    editor: Option<Editor>,
}

/// The proxy; everything passes that nobody said to spoil.
pub struct Proxy {
    port: u16,
    upstream: Arc<str>,
    plan: Arc<Mutex<Plan>>,
    listener: Mutex<Option<Arc<TcpListener>>>,
}

impl Proxy {
    /// Starts one in threads of this process; `upstream` is `host:port`.
    pub fn start(upstream: impl Into<String>) -> Self {
        Self::start_on(0, upstream)
    }

    /// The same on a port of one's own, for which 0 asks the kernel; one that is closed and opened has its own.
    pub fn start_on(port: u16, upstream: impl Into<String>) -> Self {
        let mut proxy = Self {
            port,
            upstream: upstream.into().into(),
            plan: Arc::default(),
            listener: Mutex::default(),
        };
        proxy.port = proxy.listen();
        proxy
    }

    /// Refuses connections until [`Proxy::open`]; requests that came by before are still answered.
    pub fn close(&self) {
        let listener = self.listener.lock().expect("no panic holds the listener").take();
        let listener = listener.expect("the proxy is open");
        // SAFETY: no memory involved; the socket is open while `listener` lives. It wakes the thread that accepts.
        unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
        // The port is free, for `open`, when that thread has let go of it too.
        let refused = setup::wait_until(setup::PATIENCE, || Arc::strong_count(&listener) == 1);
        assert!(refused, "the proxy doesn't close");
    }

    /// Takes connections again after [`Proxy::close`].
    pub fn open(&self) {
        self.listen();
    }

    fn listen(&self) -> u16 {
        let mut open = self.listener.lock().expect("no panic holds the listener");
        assert!(open.is_none(), "the proxy is open");
        let listener = TcpListener::bind(("127.0.0.1", self.port)).expect("the port is free");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let listener = Arc::new(listener);
        *open = Some(Arc::clone(&listener));
        let (upstream, plan) = (Arc::clone(&self.upstream), Arc::clone(&self.plan));
        // Ends with the process, unless it is closed: a thread that waits costs nothing, and a port of ours that is still
        // open can't be taken by another test.
        std::thread::spawn(move || {
            loop {
                let client = match listener.accept() {
                    Ok((client, _)) => client,
                    // accept(2): the socket no longer listens.
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return,
                    Err(_) => continue,
                };
                let (upstream, plan) = (Arc::clone(&upstream), Arc::clone(&plan));
                std::thread::spawn(move || {
                    // A broken connection is the client's to notice.
                    let _ = serve(client, &upstream, &plan);
                });
            }
        });
        port
    }

    /// Its address: what goes into `catalog.uri` or `s3.endpoint`.
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

    /// Asks `guard` about every request from now on for which [`Proxy::on_commit`] doesn't say anything.
    pub fn guard(&self, guard: impl FnMut(&Request) -> Fault + Send + 'static) {
        self.plan.lock().expect("no panic holds the plan").guard = Some(Box::new(guard));
    }

    /// Lets `editor` change every answer from now on that passes.
    pub fn edit(&self, editor: impl FnMut(&Request, &mut Message) + Send + 'static) {
        self.plan.lock().expect("no panic holds the plan").editor = Some(Box::new(editor));
    }

    /// Lets everything pass from now on.
    pub fn pass(&self) {
        self.guard(|_| Fault::Pass);
    }

    /// All commits that came by, in order.
    pub fn commits(&self) -> Vec<SeenCommit> {
        self.plan.lock().expect("no panic holds the plan").seen.clone()
    }
}

/// A request that came by.
pub struct Request(Message);

impl Request {
    /// `GET`, `POST`, …
    pub fn method(&self) -> &str {
        self.0.start_line.split(' ').next().unwrap_or_default()
    }

    /// The path with its query, as it was sent.
    pub fn target(&self) -> &str {
        self.0.start_line.split(' ').nth(1).unwrap_or_default()
    }

    /// A header by its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.header(name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.body).into_owned()
    }

    /// Whether it commits to a table: `POST …/tables/{table}` or `POST …/transactions/commit`.
    pub fn is_commit(&self) -> bool {
        let path = self.target().split('?').next().unwrap_or_default();
        let mut segments = path.rsplit('/');
        let (last, before) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
        self.method() == "POST" && (before == "tables" || (before, last) == ("transactions", "commit"))
    }
}

/// A request or an answer.
pub struct Message {
    start_line: String,
    headers: Vec<(String, String)>,
    /// The body, whole.
    pub body: Vec<u8>,
}

/// How a message's body ends.
#[derive(Clone, Copy, PartialEq)]
enum Body {
    /// At the length that its headers tell, or at none.
    Told,
    /// The same, or with the connection where they tell none.
    ToEnd,
    /// There is none, whatever the headers tell.
    None,
}

impl Message {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    fn read(from: &mut impl BufRead, body: Body) -> io::Result<Option<Self>> {
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
        let chunked = message.header("transfer-encoding");
        if body == Body::None {
        } else if chunked.is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            message.body = read_chunks(from)?;
        } else if let Some(length) = message.header("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            from.take(length).read_to_end(&mut message.body)?;
        } else if body == Body::ToEnd {
            from.read_to_end(&mut message.body)?;
        }
        Ok(Some(message))
    }

    /// Writes it as the last message of its connection, with a plain length; an answer that has no body keeps the length
    /// it tells of.
    fn write(&self, to: &mut impl Write, bodiless: bool) -> io::Result<()> {
        let mut text = format!("{}\r\n", self.start_line);
        for (key, value) in &self.headers {
            let ours = match key.to_ascii_lowercase().as_str() {
                "connection" | "keep-alive" | "transfer-encoding" | "expect" => true,
                "content-length" => !bodiless,
                _ => false,
            };
            if !ours {
                text.push_str(&format!("{key}: {value}\r\n"));
            }
        }
        if !bodiless {
            text.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        text.push_str("connection: close\r\n\r\n");
        to.write_all(text.as_bytes())?;
        to.write_all(&self.body)?;
        to.flush()
    }

    fn status(&self) -> Option<u16> {
        self.start_line.split(' ').nth(1)?.parse().ok()
    }
}

fn read_chunks(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        from.read_line(&mut size)?;
        let size = size.trim_end().split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
        let mut chunk = Vec::new();
        from.take(size + 2).read_to_end(&mut chunk)?;
        if size == 0 {
            return Ok(body);
        }
        chunk.truncate(chunk.len().saturating_sub(2));
        body.extend(chunk);
    }
}

fn serve(mut client: TcpStream, upstream: &str, plan: &Mutex<Plan>) -> io::Result<()> {
    let Some(request) = Message::read(&mut BufReader::new(client.try_clone()?), Body::Told)? else {
        return Ok(());
    };
    let request = Request(request);
    let (index, fault) = decide(&request, plan);
    match fault {
        Fault::Refuse(status) => return made_up(status).write(&mut client, false),
        Fault::Cut => return client.shutdown(Shutdown::Both),
        // Until the client goes away.
        Fault::Hang => return client.read(&mut [0; 1]).map(drop),
        Fault::Page => return page("200 OK").write(&mut client, false),
        Fault::Lost => return page("404 Not Found").write(&mut client, false),
        Fault::Redirect(status) => return redirect(status, &request).write(&mut client, false),
        Fault::Endless => return endless(&mut client),
        Fault::Delay(millis) => std::thread::sleep(Duration::from_millis(millis.into())),
        Fault::Pass | Fault::SwallowAnswer | Fault::LieAfter(_) | Fault::Half => {}
    }

    let mut server = TcpStream::connect(upstream)?;
    // The client's own Host goes along: it is part of what S3 clients sign, and of the addresses that catalogs tell.
    request.0.write(&mut server, false)?;
    let body = match request.method() {
        "HEAD" => Body::None,
        _ => Body::ToEnd,
    };
    let Some(mut answer) = Message::read(&mut BufReader::new(server), body)? else {
        return Ok(());
    };
    let mut plan = plan.lock().expect("no panic holds the plan");
    if let Some(index) = index {
        plan.seen[index].upstream_status = answer.status();
    }
    if let Some(editor) = plan.editor.as_mut().filter(|_| fault == Fault::Pass) {
        editor(&request, &mut answer);
    }
    drop(plan);
    if fault == Fault::Half {
        let half = answer.body.len() / 2;
        answer.body.truncate(half);
    }
    match fault {
        Fault::SwallowAnswer => client.shutdown(Shutdown::Both),
        Fault::LieAfter(status) => made_up(status).write(&mut client, false),
        _ => {
            let bodiless = body == Body::None || matches!(answer.status(), Some(204 | 304));
            answer.write(&mut client, bodiless)
        }
    }
}

/// Says what happens to a request, and where a commit stands among those seen.
fn decide(request: &Request, plan: &Mutex<Plan>) -> (Option<usize>, Fault) {
    let mut plan = plan.lock().expect("no panic holds the plan");
    let index = request.is_commit().then_some(plan.seen.len());
    let planned = index.and_then(|index| plan.faults.remove(&index));
    let guarded = || plan.guard.as_mut().map_or(Fault::Pass, |guard| guard(request));
    let fault = planned.unwrap_or_else(guarded);
    if index.is_some() {
        plan.seen.push(SeenCommit {
            fault,
            upstream_status: None,
        });
    }
    (index, fault)
}

/// An error answer as the REST catalog's specification shapes it, and Confluent's registry; S3 clients look at the status
/// only.
fn made_up(status: u16) -> Message {
    let (reason, kind) = match status {
        401 => ("Unauthorized", "NotAuthorizedException"),
        403 => ("Forbidden", "ForbiddenException"),
        404 => ("Not Found", "NotFoundException"),
        409 => ("Conflict", "CommitFailedException"),
        429 => ("Too Many Requests", "TooManyRequestsException"),
        503 => ("Service Unavailable", "ServiceUnavailableException"),
        _ => ("Internal Server Error", "InternalServerError"),
    };
    let message = "made up by the proxy";
    // Source: confluentinc/schema-registry, `rest/exceptions/Errors.java`: 40403 is "schema not found", 50001 a store's error.
    let error_code = match status {
        404 => 40403,
        500 => 50001,
        other => i32::from(other),
    };
    let body = serde_json::json!({
        "error": {"message": message, "type": kind, "code": status}, "error_code": error_code, "message": message,
    });
    Message {
        start_line: format!("HTTP/1.1 {status} {reason}"),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: body.to_string().into_bytes(),
    }
}

/// A page for people.
fn page(status: &str) -> Message {
    Message {
        start_line: format!("HTTP/1.1 {status}"),
        headers: vec![("content-type".to_owned(), "text/html".to_owned())],
        body: b"<!DOCTYPE html><html><body>Who are you?</body></html>".to_vec(),
    }
}

/// Sends whoever asked to the address that they asked at.
fn redirect(status: u16, request: &Request) -> Message {
    let host = request.header("host").unwrap_or_default();
    Message {
        start_line: format!("HTTP/1.1 {status} Elsewhere"),
        headers: vec![("location".to_owned(), format!("http://{host}{}", request.target()))],
        body: Vec::new(),
    }
}

/// Answers until the client goes away.
fn endless(client: &mut TcpStream) -> io::Result<()> {
    client.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")?;
    let chunk = [&b"100000\r\n"[..], &vec![b' '; 0x100000], b"\r\n"].concat();
    // Ends with the connection.
    loop {
        client.write_all(&chunk)?;
    }
}
