//! The client of a bucket, from Iceberg's file-io properties.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService};
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, RetryConfig};
use reqwest::Method;
use reqwest::header::{HeaderValue, IF_NONE_MATCH};

use super::Access;
use crate::http;

/// How long one request to S3 may take; an 8 MiB part passes even at 100 KB/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a TCP and TLS handshake with S3 may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait between two attempts at a request.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A request is signed once for all its attempts, and S3 takes a signature of up to 15 minutes ago; `object_store` asks
/// for less than 5 (0.13.2, `RetryConfig`).
const RETRY_TIMEOUT_MAX: Duration = Duration::from_secs(240);
/// Attempts at a request: never reached, since the time is over first.
const RETRIES_MAX: usize = 10_000;

/// The HTTP clients of buckets and of their credentials, one for each way to connect: with a client of its own, each store of
/// each table would have its own connections and its own copy of all trusted certificates. Clones share them.
///
/// Those of `object_store` 0.13.2 itself follow redirects: of a PUT that is answered with 303 they make a GET, whose answer, an
/// object that was there before, they take for the write's.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    /// By whether they may do without TLS, and how long a handshake may take. A lock and no channel: it guards a look-up.
    clients: Arc<Mutex<BTreeMap<(bool, Duration), reqwest::Client>>>,
}

impl HttpConnector for Connections {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allows = options.get_config_value(&ClientConfigKey::AllowHttp);
        let allows = allows.as_deref() == Some("true");
        // Who asks a machine for its credentials waits less for a connection, in the words of `humantime`.
        let connect = options.get_config_value(&ClientConfigKey::ConnectTimeout);
        let connect = connect.and_then(|text| humantime::parse_duration(&text).ok());
        let connect = connect.unwrap_or(CONNECT_TIMEOUT);
        // A panic under it leaves a map with or without one more.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&(allows, connect)) {
            return Ok(conditional(client.clone()));
        }
        let built = http::client()
            .https_only(!allows)
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(connect)
            .build();
        let client = built.map_err(|error| object_store::Error::Generic {
            store: "S3",
            source: Box::new(error),
        })?;
        clients.insert((allows, connect), client.clone());
        Ok(conditional(client))
    }
}

/// Sets up the client; nothing is contacted yet.
pub(super) fn client(bucket: &str, access: &Access) -> object_store::Result<AmazonS3> {
    let get = |key: &str| access.properties.get(key).map(String::as_str);
    let client = ClientOptions::new()
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT);
    let retry = RetryConfig {
        backoff: BackoffConfig {
            max_backoff: PAUSE_MAX,
            ..BackoffConfig::default()
        },
        max_retries: RETRIES_MAX,
        retry_timeout: access.retry_for.min(RETRY_TIMEOUT_MAX),
    };
    let mut builder = AmazonS3Builder::from_env()
        .with_client_options(client)
        .with_http_connector(access.connections.clone())
        .with_bucket_name(bucket)
        .with_retry(retry)
        .with_conditional_put(S3ConditionalPut::ETagMatch);
    if let Some(region) = get("s3.region").or_else(|| get("client.region")) {
        builder = builder.with_region(region);
    }
    if let Some(id) = get("s3.access-key-id") {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = get("s3.secret-access-key") {
        builder = builder.with_secret_access_key(secret);
    }
    if let Some(token) = get("s3.session-token") {
        builder = builder.with_token(token);
    }
    if let Some(lent) = &access.lent {
        builder = builder.with_credentials(Arc::new(lent.clone()));
    }
    let path_style = get("s3.path-style-access").map(|v| v.eq_ignore_ascii_case("true"));
    match (get("s3.endpoint"), path_style) {
        (Some(endpoint), Some(false)) => {
            // Host-style: `object_store` wants the bucket in the endpoint then.
            let endpoint = endpoint.trim_end_matches('/');
            let endpoint = endpoint.replacen("://", &format!("://{bucket}."), 1);
            builder = builder
                .with_allow_http(endpoint.starts_with("http://"))
                .with_virtual_hosted_style_request(true)
                .with_endpoint(endpoint);
        }
        (Some(endpoint), _) => {
            builder = builder
                .with_allow_http(endpoint.starts_with("http://"))
                .with_virtual_hosted_style_request(false)
                .with_endpoint(endpoint.trim_end_matches('/'));
        }
        (None, style) => {
            builder = builder.with_virtual_hosted_style_request(style == Some(false));
        }
    }
    builder.build()
}

fn conditional(client: reqwest::Client) -> HttpClient {
    HttpClient::new(OnCondition(HttpClient::new(client)))
}

/// Completes an upload in parts only where there is no object yet.
///
/// `object_store` 0.13.2 can ask for that in a whole put and not for parts (`aws/mod.rs`, `CompleteMultipartMode::Overwrite`).
/// The header comes after the signature, which covers those of its time: S3 wants `host` and `x-amz-*` signed, no others.
///
/// Source: S3 API reference, `CompleteMultipartUpload`, `If-None-Match`; "Authenticating Requests", `SignedHeaders`.
#[derive(Debug)]
struct OnCondition(HttpClient);

#[async_trait]
impl HttpService for OnCondition {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if completes_parts(request.method(), request.uri().query()) {
            request
                .headers_mut()
                .insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
        self.0.execute(request).await
    }
}

/// Says whether a request is `CompleteMultipartUpload`; the other `POST`s, such as `?uploads` and `?delete`, name no upload.
fn completes_parts(method: &Method, query: Option<&str>) -> bool {
    let names_upload = |pair: &str| pair.starts_with("uploadId=");
    *method == Method::POST && query.is_some_and(|query| query.split('&').any(names_upload))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use super::super::Store;
    use super::*;

    /// A bucket that answers every PUT with a redirect, and a GET with an object; notes the first lines of what it is asked.
    fn redirecting(status: u16) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let uri = format!("http://{}", listener.local_addr().expect("an address"));
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                let mut lines = BufReader::new(stream);
                let (mut head, mut length) = (Vec::new(), 0);
                loop {
                    let mut line = String::new();
                    lines.read_line(&mut line).expect("a line");
                    if let Some((name, value)) = line.split_once(": ")
                        && name.eq_ignore_ascii_case("content-length")
                    {
                        length = value.trim().parse().expect("a length");
                    }
                    if line.trim().is_empty() {
                        break;
                    }
                    head.push(line);
                }
                lines.read_exact(&mut vec![0; length]).expect("the body");
                let first = head.first().cloned().unwrap_or_default();
                let answer = match first.starts_with("PUT") {
                    true => format!("{status} X\r\nlocation: /b/elsewhere\r\ncontent-length: 0"),
                    false => "200 OK\r\netag: \"1\"\r\ncontent-length: 0".to_owned(),
                };
                noted.lock().expect("no panic").push(first);
                let answer = format!("HTTP/1.1 {answer}\r\nconnection: close\r\n\r\n");
                lines.get_mut().write_all(answer.as_bytes()).expect("it waits");
            }
        });
        (uri, asked)
    }

    #[test]
    fn parts_are_completed_on_condition_and_nothing_else_is() {
        let check = |method: Method, query: Option<&str>, expect: bool| {
            assert_eq!(completes_parts(&method, query), expect, "{method} {query:?}");
        };
        check(Method::POST, Some("uploadId=abc"), true);
        check(Method::POST, Some("x=1&uploadId=abc"), true);
        check(Method::POST, Some("uploads"), false);
        check(Method::POST, Some("delete"), false);
        check(Method::POST, None, false);
        check(Method::PUT, Some("partNumber=1&uploadId=abc"), false);
        check(Method::DELETE, Some("uploadId=abc"), false);
    }

    #[tokio::test]
    async fn a_bucket_that_points_elsewhere_is_not_followed_there() {
        for status in [301, 302, 303, 307, 308] {
            let (uri, asked) = redirecting(status);
            let properties = [
                ("s3.endpoint", uri.as_str()),
                ("s3.region", "r"),
                ("s3.access-key-id", "k"),
                ("s3.secret-access-key", "s"),
            ];
            let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned()));
            let store = Store::open("s3://b/w", &BTreeMap::from(properties)).expect("a store");
            let error = store.create("s3://b/w/x", "1".into()).await.expect_err("not written");
            assert!(crate::error::chain(&error).contains(&status.to_string()), "{error:?}");
            let asked = asked.lock().expect("no panic");
            assert_eq!(asked.len(), 1, "{asked:?}");
        }
    }
}
