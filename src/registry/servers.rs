//! Requests to the servers of one registry: who we are, which of them is asked, and what an answer says.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, Identity};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::warn;
use url::Url;
use url::form_urlencoded::byte_serialize;

use super::RegistryError;
use super::answers::ErrorBody;
use crate::config::{RegistryAuth, RegistryConfig};
use crate::error::chain;
use crate::http::{self, BodyError};

/// The most bytes of an answer, and of a schema with all that it refers to: Confluent's registry keeps a schema in a record of
/// a topic, 1 MiB unless somebody raised that, and a list of 100,000 subjects has some 5 MB.
pub(super) const BODY_BYTES_MAX: usize = 16 << 20;
/// How long a TCP and TLS handshake may take.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// A longer message from the server is cut; proxies answer with whole pages.
const MESSAGE_CHARS_MAX: usize = 500;
/// What we take and send. Source: Confluent's API reference, "Content Types".
const ACCEPTED: &str = "application/vnd.schemaregistry.v1+json, application/json";
const SENT: &str = "application/vnd.schemaregistry.v1+json";
/// What stands where a server repeats a secret to us.
const HIDDEN: &str = "***";

/// The servers of one registry, any of which has the answer.
pub(super) struct Servers {
    http: Client,
    urls: Vec<String>,
    /// The place of the one that answered last, which is asked first.
    first: AtomicUsize,
    requests: AtomicU64,
    /// What no message may hold; none is empty.
    secrets: Vec<String>,
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers")
            .field("urls", &self.urls)
            .finish_non_exhaustive()
    }
}

/// One question, which may be put to several servers.
pub(super) struct Question {
    /// Begins with a slash, percent-encoded.
    path: String,
    /// Begins with a question mark, if there is any.
    pub query: &'static str,
    /// With a body it is a POST.
    pub body: Option<Value>,
    /// What is asked for, as messages call it.
    pub what: String,
}

impl Question {
    /// Asks for what lies at a path, whose segments may hold anything.
    pub fn get(segments: &[&str], what: String) -> Question {
        let encoded = |segment: &&str| {
            let form: String = byte_serialize(segment.as_bytes()).collect();
            // Forms have a plus where paths have a blank; a plus itself is encoded by now.
            format!("/{}", form.replace('+', "%20"))
        };
        Question {
            path: segments.iter().map(encoded).collect(),
            query: "",
            body: None,
            what,
        }
    }
}

impl Servers {
    /// Sets up the client; see [`super::Registry::new`].
    pub fn open(config: &RegistryConfig, request_timeout: Duration) -> Result<Servers, RegistryError> {
        let (headers, secrets) = headers(&config.auth)?;
        let mut builder = http::client()
            .use_rustls_tls()
            .default_headers(headers)
            .timeout(request_timeout)
            .connect_timeout(request_timeout.min(CONNECT_TIMEOUT_MAX));
        if let Some(path) = &config.ca {
            for certificate in authorities(path)? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        match (&config.cert, &config.key) {
            (Some(cert), Some(key)) => builder = builder.identity(identity(cert, key)?),
            (None, None) => {}
            (Some(path), None) | (None, Some(path)) => {
                return Err(wrong(format!("`{path}` is of use only with both `cert` and `key`")));
            }
        }
        let http = builder.build().map_err(|error| wrong(chain(&error.without_url())))?;
        let urls: Vec<String> = config.urls.iter().map(|url| base(url)).collect::<Result<_, _>>()?;
        if urls.is_empty() {
            return Err(wrong("it has no address".to_owned()));
        }
        Ok(Servers {
            http,
            urls,
            first: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            secrets,
        })
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Puts a question to one server after another until one has an answer, each once; that one is asked first from then on.
    pub async fn ask<T: DeserializeOwned>(&self, question: &Question) -> Result<T, RegistryError> {
        let first = self.first.load(Ordering::Relaxed);
        let mut place = first;
        let mut failed = None;
        // Ends: with an answer, or at the server before the first.
        loop {
            let url = &self.urls[place];
            let next = (place + 1) % self.urls.len();
            match self.ask_at(url, question).await {
                Err(error) if error.of_one_server() => {
                    if next == first {
                        return Err(error);
                    }
                    failed = Some(error);
                    place = next;
                }
                answer => {
                    if let Some(error) = failed {
                        self.first.store(place, Ordering::Relaxed);
                        warn!(
                            error = chain(&error),
                            url, "another server of the schema registry is asked from now on"
                        );
                    }
                    return answer;
                }
            }
        }
    }

    async fn ask_at<T: DeserializeOwned>(&self, url: &str, question: &Question) -> Result<T, RegistryError> {
        let Question {
            path,
            query,
            body,
            what,
        } = question;
        let address = format!("{url}{path}{query}");
        let request = match body {
            None => self.http.get(address),
            Some(body) => self.http.post(address).header(CONTENT_TYPE, SENT).json(body),
        };
        self.requests.fetch_add(1, Ordering::Relaxed);
        let unreachable = |error: reqwest::Error| RegistryError::Unreachable {
            url: url.to_owned(),
            source: Arc::new(error.without_url()),
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        if let Some(to) = http::sent_on_to(&response) {
            let message =
                format!("it points to `{to}`, and nothing is sent there; name the address that answers itself");
            return Err(RegistryError::Answered {
                what: what.clone(),
                status,
                url: url.to_owned(),
                message,
            });
        }
        let body = match http::body(response, BODY_BYTES_MAX).await {
            Ok(body) => body,
            Err(BodyError::Failed(error)) => return Err(unreachable(error)),
            Err(long) => {
                let (what, reason) = (what.clone(), long.to_string());
                return Err(RegistryError::Unusable { what, reason });
            }
        };
        if status == 200 {
            return serde_json::from_slice(&body).map_err(|error| RegistryError::Unreadable {
                what: what.clone(),
                url: url.to_owned(),
                reason: self.without_secrets(error.to_string()),
            });
        }
        Err(self.refusal(url, what, status, &body))
    }

    /// Says what an answer means that isn't 200.
    fn refusal(&self, url: &str, what: &str, status: u16, body: &[u8]) -> RegistryError {
        let said: Option<ErrorBody> = serde_json::from_slice(body).ok();
        if status == 404 && said.as_ref().is_some_and(ErrorBody::is_miss) {
            return RegistryError::NotFound { what: what.to_owned() };
        }
        let text = said.map_or_else(|| String::from_utf8_lossy(body).into_owned(), |said| said.message);
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        // Cut after the secrets are hidden, so that none is cut in two and passes.
        let mut message: String = self.without_secrets(line).chars().take(MESSAGE_CHARS_MAX).collect();
        if message.is_empty() {
            message.push_str("it gives no reason");
        }
        let (what, url) = (what.to_owned(), url.to_owned());
        match status {
            401 | 403 | 407 => RegistryError::Refused {
                what,
                status,
                url,
                message,
            },
            _ => RegistryError::Answered {
                what,
                status,
                url,
                message,
            },
        }
    }

    fn without_secrets(&self, text: String) -> String {
        let hide = |text: String, secret: &String| text.replace(secret.as_str(), HIDDEN);
        self.secrets.iter().fold(text, hide)
    }
}

/// The headers of every request, and what of them no message may hold.
fn headers(auth: &RegistryAuth) -> Result<(HeaderMap, Vec<String>), RegistryError> {
    let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(ACCEPTED))]);
    let (value, mut secrets) = match auth {
        RegistryAuth::None => return Ok((headers, vec![])),
        RegistryAuth::Basic { username, password } => {
            let both = STANDARD.encode(format!("{username}:{}", password.expose()));
            (format!("Basic {both}"), vec![both, password.expose().to_owned()])
        }
        RegistryAuth::Bearer(token) => (format!("Bearer {}", token.expose()), vec![token.expose().to_owned()]),
    };
    let value = HeaderValue::from_str(&value);
    let mut value = value.map_err(|_| wrong("the token has a character that can't be sent".to_owned()))?;
    value.set_sensitive(true);
    headers.insert(AUTHORIZATION, value);
    secrets.retain(|secret| !secret.is_empty());
    Ok((headers, secrets))
}

/// Checks an address once more, as it goes into messages, and nobody but the pipeline file's reader has looked at it.
fn base(url: &str) -> Result<String, RegistryError> {
    let parsed = Url::parse(url).ok();
    let parsed = parsed.filter(|url| url.username().is_empty() && url.password().is_none());
    // The address itself isn't shown: a password may be in it.
    let parsed = parsed.ok_or_else(|| wrong("an address is none, or holds credentials".to_owned()))?;
    Ok(parsed.as_str().trim_end_matches('/').to_owned())
}

fn authorities(path: &str) -> Result<Vec<Certificate>, RegistryError> {
    let certificates = Certificate::from_pem_bundle(&read(path)?).unwrap_or_default();
    match certificates.is_empty() {
        true => Err(wrong(format!("`{path}` holds no certificate in PEM"))),
        false => Ok(certificates),
    }
}

fn identity(cert: &str, key: &str) -> Result<Identity, RegistryError> {
    let mut pem = read(cert)?;
    if key != cert {
        pem.push(b'\n');
        pem.extend(read(key)?);
    }
    let reason = "hold no certificate and unencrypted key in PEM, PKCS #8, PKCS #1 or SEC 1";
    Identity::from_pem(&pem).map_err(|_| wrong(format!("`{cert}` and `{key}` {reason}")))
}

fn read(path: &str) -> Result<Vec<u8>, RegistryError> {
    std::fs::read(path).map_err(|error| wrong(format!("`{path}` can't be read: {error}")))
}

fn wrong(reason: String) -> RegistryError {
    RegistryError::Config { reason }
}
