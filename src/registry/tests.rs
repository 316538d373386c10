//! The client against servers that give made-up answers.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use futures::future::join_all;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::*;
use crate::config::{RegistryAuth, Secret, SubjectNaming};
use crate::error::chain;
use crate::schema::SchemaLanguage;

const PASSWORD: &str = "hunter2";

/// Longer than any test takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a server does with a request.
#[derive(Clone)]
enum Reply {
    Answer(u16, String),
    Redirect(u16, String),
    HangUp,
    Never,
}

/// A server, and the requests that it got.
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// The first lines of the requests, without the protocol.
    fn asked(&self) -> Vec<String> {
        let requests = self.requests.lock().expect("no panic");
        let line = |request: &String| request.split(" HTTP/1.1").next().unwrap_or_default().to_owned();
        requests.iter().map(line).collect()
    }

    fn last(&self) -> String {
        let requests = self.requests.lock().expect("no panic");
        requests.last().cloned().expect("a request")
    }
}

/// Starts a server that does with each request, "GET /path", what `answer` says.
async fn serve(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (requests, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
    let noted = requests.clone();
    tokio::spawn(async move {
        // Ends with the test's runtime.
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let (noted, answer) = (noted.clone(), answer.clone());
            tokio::spawn(async move { converse(stream, &noted, &*answer).await });
        }
    });
    Server { url, requests }
}

/// Answers one request.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    noted: &Mutex<Vec<String>>,
    answer: &(impl Fn(&str) -> Reply + ?Sized),
) {
    let mut request = String::new();
    let mut block = [0; 4096];
    // Ends: with the request, or with the connection.
    while !complete(&request) {
        let read = stream.read(&mut block).await.unwrap_or(0);
        if read == 0 {
            return;
        }
        request.push_str(std::str::from_utf8(&block[..read]).expect("UTF-8"));
    }
    noted.lock().expect("no panic").push(request.clone());
    match answer(request.split(" HTTP/1.1").next().unwrap_or_default()) {
        Reply::HangUp => {}
        Reply::Never => std::future::pending().await,
        Reply::Redirect(status, to) => {
            let head =
                format!("HTTP/1.1 {status} X\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        Reply::Answer(status, body) => {
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            // Who asked may be gone.
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    }
}

fn complete(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().expect("a length"))
}

/// Starts a server that has these answers, and 40403 for all else.
async fn serve_these(answers: &[(&str, Value)]) -> Server {
    let answers: BTreeMap<String, String> = answers
        .iter()
        .map(|(path, body)| (format!("GET {path}"), body.to_string()))
        .collect();
    serve(move |request| match answers.get(request) {
        Some(body) => Reply::Answer(200, body.clone()),
        None => Reply::Answer(404, miss(40403)),
    })
    .await
}

/// Starts a server that answers everything alike.
async fn serve_always(status: u16, body: &str) -> Server {
    let reply = Reply::Answer(status, body.to_owned());
    serve(move |_| reply.clone()).await
}

fn miss(code: u32) -> String {
    json!({"error_code": code, "message": "not found"}).to_string()
}

fn config(urls: &[&str]) -> RegistryConfig {
    RegistryConfig {
        urls: urls.iter().map(|url| (*url).to_owned()).collect(),
        auth: RegistryAuth::None,
        ca: None,
        cert: None,
        key: None,
        subject: SubjectNaming::Topic,
    }
}

fn registry(urls: &[&str]) -> Registry {
    Registry::new(&config(urls), PATIENCE).expect("a client")
}

fn long() -> Value {
    json!({"schema": "\"long\""})
}

fn referring(text: &str, to: &[(&str, &str, i32)]) -> Value {
    let references: Vec<Value> = to
        .iter()
        .map(|(name, subject, version)| json!({"name": name, "subject": subject, "version": version}))
        .collect();
    json!({"id": 1, "version": 1, "schema": text, "schemaType": "PROTOBUF", "references": references})
}

#[tokio::test]
async fn a_schema_is_asked_for_once() {
    let server = serve_these(&[("/schemas/ids/7", long()), ("/schemas/ids/8", long())]).await;
    let registry = registry(&[&server.url]);
    let expect = SchemaText {
        language: SchemaLanguage::Avro,
        text: "\"long\"".to_owned(),
        references: vec![],
    };
    for _ in 0..3 {
        assert_eq!(*registry.schema(7).await.expect("a schema"), expect);
    }
    registry.schema(8).await.expect("a schema");
    assert_eq!(server.asked(), ["GET /schemas/ids/7", "GET /schemas/ids/8"]);
    assert_eq!(registry.requests(), 2);
    let accepted = "accept: application/vnd.schemaregistry.v1+json, application/json\r\n";
    assert!(server.last().contains(accepted) && !server.last().contains("authorization"));
}

#[tokio::test]
async fn those_who_ask_at_the_same_time_share_one_request_and_its_failure() {
    let server = serve_these(&[("/schemas/ids/7", long())]).await;
    let client = registry(&[&server.url]);
    let answers = join_all((0..50).map(|_| client.schema(7))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(client.requests(), 1);
    let down = serve_always(500, "").await;
    let client = registry(&[&down.url]);
    let answers = join_all((0..50).map(|_| client.schema(7))).await;
    assert!(answers.iter().all(Result::is_err));
    assert_eq!(client.requests(), 1);
    client
        .schema(7)
        .await
        .expect_err("asked again, as a failure isn't kept");
    assert_eq!(client.requests(), 2);
}

#[tokio::test]
async fn that_a_schema_is_missing_is_believed_for_a_while() {
    let server = serve_these(&[]).await;
    let client = registry(&[&server.url]);
    for _ in 0..3 {
        let error = client.schema(7).await.expect_err("a miss");
        assert_eq!(error.to_string(), "the schema registry has no schema 7");
        assert!(matches!(error, RegistryError::NotFound { .. }) && !error.retryable());
    }
    assert_eq!(client.requests(), 1);
    let client = Registry::open(&config(&[&server.url]), PATIENCE, Duration::ZERO).expect("a client");
    for expect in 1..3 {
        client.schema(7).await.expect_err("a miss");
        assert_eq!(client.requests(), expect);
    }
}

#[tokio::test]
async fn a_guid_finds_a_schema_and_the_base_path_is_kept() {
    let guid = "3ed9f0c4-3a70-4d8c-9e8a-3f1a5cbb7a01";
    let path = format!("/apis/ccompat/v7/schemas/guids/{guid}");
    let body = json!({"schema": "{}", "schemaType": "JSON", "references": null});
    let server = serve_these(&[(&path, body)]).await;
    let registry = registry(&[&format!("{}/apis/ccompat/v7/", server.url)]);
    let guid = Uuid::parse_str(guid).expect("a GUID");
    for _ in 0..2 {
        let schema = registry.schema_by_guid(guid).await.expect("a schema");
        assert_eq!(schema.language, SchemaLanguage::Json);
    }
    assert_eq!(registry.requests(), 1);
}

#[tokio::test]
async fn references_come_before_what_refers_to_them_and_once() {
    let server = serve_these(&[
        (
            "/schemas/ids/1",
            referring("a", &[("b.proto", "b", 1), ("c.proto", "c", 2)]),
        ),
        (
            "/schemas/ids/2",
            referring("e", &[("c.proto", "c", 2), ("again.proto", "d", 3)]),
        ),
        (
            "/subjects/b/versions/1?deleted=true",
            referring("b", &[("d.proto", "d", 3)]),
        ),
        (
            "/subjects/c/versions/2?deleted=true",
            referring("c", &[("d.proto", "d", 3)]),
        ),
        ("/subjects/d/versions/3?deleted=true", referring("d", &[])),
    ])
    .await;
    let registry = registry(&[&server.url]);
    let references = |schema: &SchemaText| -> Vec<String> {
        let both = |to: &Reference| format!("{}={}", to.name, to.text);
        schema.references.iter().map(both).collect()
    };
    let first = registry.schema(1).await.expect("a schema");
    assert_eq!((first.text.as_str(), first.language), ("a", SchemaLanguage::Protobuf));
    assert_eq!(references(&first), ["d.proto=d", "b.proto=b", "c.proto=c"]);
    assert_eq!(registry.requests(), 4);
    // What is known is not asked for again, and one subject may have two names.
    let second = registry.schema(2).await.expect("a schema");
    assert_eq!(references(&second), ["d.proto=d", "c.proto=c", "again.proto=d"]);
    assert_eq!(registry.requests(), 5);
}

#[tokio::test]
async fn references_that_lead_nowhere_or_back_are_refused() {
    let server = serve_these(&[
        ("/schemas/ids/1", referring("a", &[("b", "b", 1)])),
        ("/subjects/b/versions/1?deleted=true", referring("b", &[("c", "c", 1)])),
        ("/subjects/c/versions/1?deleted=true", referring("c", &[("b", "b", 1)])),
        ("/schemas/ids/2", referring("a", &[("s", "s", 1)])),
        ("/subjects/s/versions/1?deleted=true", referring("s", &[("s", "s", 1)])),
        ("/schemas/ids/3", referring("a", &[("x", "x", 1)])),
        ("/schemas/ids/4", json!({"schema": "a", "schemaType": "XML"})),
    ])
    .await;
    let registry = registry(&[&server.url]);
    for (id, expect) in [
        (
            1,
            "schema 1 of the schema registry can't be used: `b` refers to itself, through others",
        ),
        (
            2,
            "schema 2 of the schema registry can't be used: `s` refers to itself, through others",
        ),
        (
            3,
            "the schema registry has no version 1 of subject `x` (needed by schema 3)",
        ),
        (
            4,
            "schema 4 of the schema registry can't be used: its type `XML` is none of AVRO, PROTOBUF, JSON",
        ),
    ] {
        let error = registry.schema(id).await.expect_err(expect);
        assert_eq!((error.to_string().as_str(), error.retryable()), (expect, false));
    }
}

#[tokio::test]
async fn references_and_bodies_have_a_bound() {
    // Each schema refers to the next one, without end.
    let server = serve(|request| {
        let number = request.rsplit(['/', '?']).find_map(|part| part.parse::<i32>().ok());
        let next = number.unwrap_or(0) + 1;
        let name = format!("n{next}");
        Reply::Answer(200, referring("a", &[(&name, "s", next)]).to_string())
    })
    .await;
    let client = registry(&[&server.url]);
    let error = client.schema(1).await.expect_err("too many");
    assert_eq!(
        error.to_string(),
        "schema 1 of the schema registry can't be used: it refers to more than 1000 schemas"
    );
    let half = "x".repeat(BODY_BYTES_MAX / 2);
    let server = serve_these(&[
        ("/schemas/ids/1", referring(&half, &[("b", "b", 1)])),
        (
            "/subjects/b/versions/1?deleted=true",
            referring(&format!("{half}x"), &[]),
        ),
        ("/schemas/ids/2", referring(&half.repeat(2), &[])),
    ])
    .await;
    let client = registry(&[&server.url]);
    for (id, expect) in [
        (1, "it comes to more than 16 MiB with all that it refers to"),
        (2, "bytes, and 16777216 are taken at most"),
    ] {
        let error = client.schema(id).await.expect_err(expect);
        assert!(error.to_string().ends_with(expect), "{error}");
        assert!(!error.retryable());
    }
}

#[tokio::test]
async fn a_registry_that_points_elsewhere_is_not_followed_there() {
    let good = serve_these(&[("/schemas/ids/7", long())]).await;
    let to = good.url.clone();
    for status in [301, 302, 303, 307, 308] {
        let to = format!("{to}/schemas/ids/7?token=t");
        let server = serve(move |_| Reply::Redirect(status, to.clone())).await;
        let error = registry(&[&server.url]).schema(7).await.expect_err("no schema");
        let told = error.to_string();
        assert!(
            told.contains(&format!("status {status}")) && told.contains(&good.url),
            "{told}"
        );
        assert!(!told.contains("token"), "{told}");
    }
    assert_eq!(good.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn another_server_is_asked_where_one_has_no_answer() {
    // Nobody listens where only root may, and a port that was just free may be another test's now.
    let closed = "http://127.0.0.1:1".to_owned();
    let good = serve_these(&[("/schemas/ids/7", long())]).await;
    let hangs_up = serve(|_| Reply::HangUp).await;
    let mut bad = vec![closed, hangs_up.url.clone()];
    for status in [408, 429, 500, 503] {
        bad.push(serve_always(status, "<html>").await.url);
    }
    for url in &bad {
        let client = registry(&[url, &good.url]);
        client.schema(7).await.expect("the other has it");
        assert_eq!(client.requests(), 2, "{url}");
        client.schema(8).await.expect_err("a miss is an answer");
        assert_eq!(client.requests(), 3, "the one that answered is asked first");
        let error = registry(&[url]).schema(7).await.expect_err("no other");
        assert!(error.retryable(), "{error}");
    }
    let all: Vec<&str> = bad.iter().map(String::as_str).collect();
    let client = registry(&all);
    let error = client.schema(7).await.expect_err("none has it");
    assert!(matches!(error, RegistryError::Answered { status: 503, .. }), "{error}");
    assert_eq!(client.requests(), 6, "each is asked once");
}

#[tokio::test]
async fn a_refusal_and_a_miss_are_not_taken_elsewhere() {
    let other = serve_these(&[("/schemas/ids/7", long())]).await;
    for (status, body, expect) in [
        (
            401,
            r#"{"error_code":401,"message":"Unauthorized"}"#,
            "the schema registry at `URL` refused us when asked for schema 7 (status 401): Unauthorized",
        ),
        (
            403,
            "<h1>no\n  entry</h1>",
            "the schema registry at `URL` refused us when asked for schema 7 (status 403): <h1>no entry</h1>",
        ),
        (
            404,
            r#"{"error_code":40403,"message":"Schema 7 not found"}"#,
            "the schema registry has no schema 7",
        ),
        (
            404,
            r#"{"error_code":404,"message":"No artifact"}"#,
            "the schema registry has no schema 7",
        ),
        (
            404,
            r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#,
            "the schema registry at `URL` answered with status 404 when asked for schema 7: HTTP 404 Not Found",
        ),
        (
            404,
            "<html>nginx</html>",
            "the schema registry at `URL` answered with status 404 when asked for schema 7: <html>nginx</html>",
        ),
        (
            422,
            r#"{"error_code":42202,"message":null}"#,
            "the schema registry at `URL` answered with status 422 when asked for schema 7: it gives no reason",
        ),
    ] {
        let server = serve_always(status, body).await;
        let client = registry(&[&server.url, &other.url]);
        let error = client.schema(7).await.expect_err(expect);
        assert_eq!(error.to_string().replace(&server.url, "URL"), expect);
        assert!(!error.retryable(), "{error}");
        assert_eq!(client.requests(), 1);
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_may_be_another_one_later() {
    for (body, expect) in [
        ("<html>", "expected value at line 1 column 1"),
        (
            "{\"schema\": 5}",
            "invalid type: integer `5`, expected a string at line 1 column 12",
        ),
        ("", "EOF while parsing a value at line 1 column 0"),
    ] {
        let server = serve_always(200, body).await;
        let error = registry(&[&server.url]).schema(7).await.expect_err(expect);
        assert!(error.retryable() && error.to_string().ends_with(expect), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let server = serve(|_| Reply::Never).await;
    let since = Instant::now();
    let client = Registry::new(&config(&[&server.url]), Duration::from_millis(20)).expect("a client");
    let error = client.schema(7).await.expect_err("no answer");
    assert!(
        matches!(&error, RegistryError::Unreachable { source, .. } if source.is_timeout()),
        "{error}"
    );
    assert!(error.retryable() && since.elapsed() < PATIENCE);
}

#[tokio::test]
async fn credentials_are_sent_and_never_shown() {
    let basic = |password: &str| RegistryAuth::Basic {
        username: "user".to_owned(),
        password: Secret::new(password),
    };
    for (auth, expect, secret) in [
        (basic(PASSWORD), "Basic dXNlcjpodW50ZXIy", PASSWORD),
        (basic(""), "Basic dXNlcjo=", "dXNlcjo="),
        (RegistryAuth::Bearer(Secret::new(PASSWORD)), "Bearer hunter2", PASSWORD),
    ] {
        let header = format!("authorization: {expect}\r\n");
        // A server that shows what it was sent: in a message that is cut inside it, in JSON, and as what can't be read.
        let repeated = format!("{} {expect} {secret} {}", "x".repeat(480), "y".repeat(100));
        for (status, body) in [
            (401, repeated.clone()),
            (500, json!({"error_code": 50001, "message": repeated}).to_string()),
            (200, json!({"schema": "", "references": expect}).to_string()),
        ] {
            let server = serve_always(status, &body).await;
            let config = RegistryConfig {
                auth: auth.clone(),
                ..config(&[&server.url])
            };
            let client = Registry::new(&config, PATIENCE).expect("a client");
            let error = client.schema(7).await.expect_err("no schema");
            assert!(server.last().contains(&header), "{}", server.last());
            let shown = format!("{} {error:?} {client:?} {config:?}", chain(&error));
            for secret in [&secret[..4], "dXNlcj"] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
    }
    let broken = RegistryConfig {
        auth: RegistryAuth::Bearer(Secret::new("hunter2\n")),
        ..config(&["http://a"])
    };
    for config in [
        broken,
        config(&["http://u:hunter2@a"]),
        config(&["hunter2"]),
        config(&[]),
    ] {
        let error = Registry::new(&config, PATIENCE).expect_err("refused");
        assert!(matches!(error, RegistryError::Config { .. }) && !error.retryable());
        assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error}");
    }
}

#[tokio::test]
async fn subjects_and_versions_are_asked_for_each_time() {
    let a = referring("a", &[("d.proto", "d", 3)]);
    let server = serve_these(&[
        ("/subjects", json!(["a", "b"])),
        ("/subjects/a%2Fb%20%C3%A9%2B%3B%25/versions", json!([3, 1])),
        ("/subjects/a/versions/latest", a.clone()),
        ("/subjects/a/versions/1", a),
        ("/subjects/d/versions/3?deleted=true", referring("d", &[])),
        ("/schemas/types", json!(["AVRO"])),
    ])
    .await;
    let registry = registry(&[&server.url]);
    assert_eq!(registry.subjects().await.expect("subjects"), ["a", "b"]);
    assert_eq!(registry.versions("a/b é+;%").await.expect("versions"), [1, 3]);
    let latest = registry.latest("a").await.expect("a version");
    assert_eq!((latest.id, latest.version, latest.schema.references.len()), (1, 1, 1));
    let to = &latest.refers_to[0];
    assert_eq!((to.name.as_str(), to.subject.as_str(), to.version), ("d.proto", "d", 3));
    assert_eq!(registry.version("a", 1).await.expect("a version"), latest);
    assert_eq!(registry.requests(), 5, "the reference is known by then");
    registry.reach().await.expect("it is there");
    let error = registry.version("a", 2).await.expect_err("no such version");
    assert_eq!(error.to_string(), "the schema registry has no version 2 of subject `a`");
    registry.latest("x").await.expect_err("no such subject");
    registry.latest("x").await.expect_err("asked again");
    assert_eq!(registry.requests(), 9);
}

#[tokio::test]
async fn a_wrong_address_is_not_reached() {
    // A whole page, as from the root of Apicurio.
    for (status, body) in [(200, "<html>"), (404, "<html>"), (401, "")] {
        let server = serve_always(status, body).await;
        registry(&[&server.url]).reach().await.expect_err(body);
    }
}

#[tokio::test]
async fn the_compatibility_level_is_the_subjects_or_the_registrys() {
    let own = ("/config/a?defaultToGlobal=true", json!({"compatibilityLevel": "FULL"}));
    let global = ("/config", json!({"compatibilityLevel": "NONE"}));
    let server = serve_these(&[own, global]).await;
    let registry = registry(&[&server.url]);
    assert_eq!(registry.compatibility_level("a").await.expect("a level"), "FULL");
    assert_eq!(registry.compatibility_level("b").await.expect("a level"), "NONE");
}

#[tokio::test]
async fn a_schema_that_does_not_fit_is_told_why() {
    let schema = SchemaText {
        language: SchemaLanguage::Avro,
        text: "\"long\"".to_owned(),
        references: vec![],
    };
    let to = [RefersTo {
        name: "n".to_owned(),
        subject: "s".to_owned(),
        version: 2,
    }];
    for (body, expect) in [
        (json!({"is_compatible": true, "messages": []}), vec![]),
        (
            json!({"is_compatible": false, "messages": ["one", "two"]}),
            vec!["one", "two"],
        ),
        (json!({"is_compatible": false}), vec!["the registry gives no reason"]),
    ] {
        let server = serve_always(200, &body.to_string()).await;
        let registry = registry(&[&server.url]);
        let found = registry.compatible("a b", Version::Latest, &schema, &to).await;
        assert_eq!(found.expect("an answer"), expect);
        let request = server.last();
        assert!(request.starts_with("POST /compatibility/subjects/a%20b/versions/latest?verbose=true "));
        assert!(request.contains("content-type: application/vnd.schemaregistry.v1+json\r\n"));
        let (_, sent) = request.split_once("\r\n\r\n").expect("a body");
        let sent: Value = serde_json::from_str(sent).expect("JSON");
        let references = json!([{"name": "n", "subject": "s", "version": 2}]);
        assert_eq!(
            sent,
            json!({"schema": "\"long\"", "schemaType": "AVRO", "references": references})
        );
    }
    let server = serve_always(404, &miss(40401)).await;
    let registry = registry(&[&server.url]);
    let found = registry.compatible("a", Version::Number(3), &schema, &[]).await;
    let error = found.expect_err("no such version");
    assert_eq!(error.to_string(), "the schema registry has no version 3 of subject `a`");
}

/// A file of `src/registry/tls`: an authority, and a server and a client that it vouches for, until the year 2120.
fn tls(name: &str) -> String {
    format!("{}/src/registry/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Starts a server that wants a client's certificate, and has one schema for everybody.
async fn serve_tls() -> String {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(tls("ca.pem")).expect("a certificate");
    roots.add(ca).expect("an authority");
    let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build();
    let certificate = CertificateDer::from_pem_file(tls("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(tls("server.pem")).expect("a key");
    let config = ServerConfig::builder()
        .with_client_cert_verifier(clients.expect("a verifier"))
        .with_single_cert(vec![certificate], key)
        .expect("a server");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        // Ends with the test's runtime.
        loop {
            let (stream, _): (TcpStream, _) = listener.accept().await.expect("a connection");
            // Whom it doesn't know it doesn't speak to.
            if let Ok(stream) = acceptor.accept(stream).await {
                let reply = Reply::Answer(200, long().to_string());
                converse(stream, &Mutex::default(), &move |_: &str| reply.clone()).await;
            }
        }
    });
    url
}

#[tokio::test]
async fn both_sides_of_tls_show_their_certificates() {
    let url = serve_tls().await;
    let with = |ca: bool, client: bool| {
        let file = |wanted: bool, name: &str| wanted.then(|| tls(name));
        let config = RegistryConfig {
            ca: file(ca, "ca.pem"),
            cert: file(client, "client_cert.pem"),
            key: file(client, "client_key.pem"),
            ..config(&[&url])
        };
        Registry::new(&config, PATIENCE).expect("a client")
    };
    with(true, true).schema(7).await.expect("both are known");
    for (ca, client) in [(true, false), (false, true)] {
        let error = with(ca, client).schema(7).await.expect_err("one is unknown");
        assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    }
    // One file may hold both.
    let (cert, key) = (Some(tls("server.pem")), Some(tls("server.pem")));
    let config = RegistryConfig {
        cert,
        key,
        ..config(&[&url])
    };
    Registry::new(&config, PATIENCE).expect("a client");
}

#[test]
fn files_that_hold_nothing_of_use_are_named() {
    let check = |files: [Option<String>; 3], expect: &str| {
        let [ca, cert, key] = files;
        let config = RegistryConfig {
            ca,
            cert,
            key,
            ..config(&["https://a"])
        };
        let error = Registry::new(&config, PATIENCE).expect_err(expect);
        let found = error.to_string().replace(&tls(""), "");
        assert_eq!(found, format!("the schema registry's client can't be set up: {expect}"));
    };
    let file = |name: &str| Some(tls(name));
    let absent = "`absent` can't be read: No such file or directory (os error 2)";
    check([file("absent"), None, None], absent);
    check([None, file("absent"), file("client_key.pem")], absent);
    check([None, file("client_cert.pem"), file("absent")], absent);
    check(
        [file("client_key.pem"), None, None],
        "`client_key.pem` holds no certificate in PEM",
    );
    check(
        [None, file("client_cert.pem"), file("ca.pem")],
        "`client_cert.pem` and `ca.pem` hold no certificate and unencrypted key in PEM, PKCS #8, PKCS #1 or SEC 1",
    );
    check(
        [None, file("client_cert.pem"), None],
        "`client_cert.pem` is of use only with both `cert` and `key`",
    );
}
