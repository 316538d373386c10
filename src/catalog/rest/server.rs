//! Requests to a REST catalog: its settings, the token that goes with each request, and what an answer says.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use iceberg::TableIdent;
use iceberg::spec::TableMetadata;
use reqwest::header::{ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use reqwest::{Client, Method, RequestBuilder};
use serde::Deserialize;
use serde_json::Value;
use serde_json::error::Category;

use super::token::Tokens;
use crate::catalog::CatalogError;
use crate::catalog::asked::Asked;
use crate::error::chain;
use crate::http::{self, BodyError};
use crate::store::Access;

/// How long a request may take where `--retry-for` isn't shorter; a commit of a table with many snapshots takes seconds
/// on slow servers.
const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// How long a request may take however short `--retry-for` is.
const REQUEST_TIMEOUT_MIN: Duration = Duration::from_secs(10);
/// A look at a table is asked for again after this part of `--retry-for`: it does nothing, so asking twice is no harm, and an
/// answer that was lost must not use up the time in which a second one would come.
const LOOKS_WITHIN_RETRY_FOR: u32 = 3;
/// How long a TCP and TLS handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of an answer that is a table. One of 10,000 snapshots has some 10 MB, one whose snapshots carry the offsets
/// of a thousand partitions some hundred: beyond this it is no table, or one that no reader opens any more.
const TABLE_BYTES_MAX: usize = 256 << 20;
/// The most bytes of any other answer, a token or settings, and of an error's text: servers add their stack to it.
pub(super) const WORDS_BYTES_MAX: usize = 1 << 20;
/// A longer message from the server is cut; proxies answer with whole pages.
const MESSAGE_CHARS_MAX: usize = 500;
/// What separates the levels of a namespace in a URL, percent-encoded, unless the server says otherwise.
const NAMESPACE_SEPARATOR: &str = "%1F";

/// A server that speaks the REST protocol, and who we are to it.
pub(super) struct Server {
    http: Client,
    /// How long a request that only looks may take.
    look_timeout: Duration,
    uri: String,
    warehouse: Option<String>,
    given: BTreeMap<String, String>,
    settings: Asked<Arc<Settings>>,
    tokens: Tokens,
}

impl fmt::Debug for Server {
    /// Shows where the catalog is and no property: those hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("uri", &self.uri)
            .field("warehouse", &self.warehouse)
            .finish_non_exhaustive()
    }
}

/// What the server's `config` and the pipeline file say together.
#[derive(Debug)]
pub(super) struct Settings {
    /// `{uri}/v1` or `{uri}/v1/{prefix}`.
    pub base: String,
    separator: String,
    pub properties: BTreeMap<String, String>,
}

impl Settings {
    pub fn namespace_url(&self, ident: &TableIdent) -> String {
        let levels: Vec<_> = ident.namespace().iter().map(|level| encoded(level)).collect();
        format!("{}/namespaces/{}", self.base, levels.join(&self.separator))
    }

    pub fn table_url(&self, ident: &TableIdent) -> String {
        format!("{}/tables/{}", self.namespace_url(ident), encoded(ident.name()))
    }
}

/// An answer that arrived whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    /// The `ETag` header: what the server calls the table as this answer has it.
    pub etag: Option<String>,
    /// Of a redirect: where it points to.
    sent_on_to: Option<String>,
    body: Vec<u8>,
}

/// A request, which may have to be sent twice.
struct Request<'a> {
    method: Method,
    url: &'a str,
    body: Option<&'a Value>,
    /// Goes into `If-None-Match`: the answer is 304 if that is still so.
    known: Option<&'a str>,
    /// The longest answer that is taken.
    bytes_max: usize,
}

/// Why there is no answer: whether the request can have had an effect.
#[derive(Debug)]
pub(super) enum NoAnswer {
    NotSent(CatalogError),
    MayBeSent(CatalogError),
}

impl From<NoAnswer> for CatalogError {
    fn from(no: NoAnswer) -> CatalogError {
        match no {
            NoAnswer::NotSent(error) | NoAnswer::MayBeSent(error) => error,
        }
    }
}

#[derive(Deserialize)]
struct ConfigBody {
    #[serde(default)]
    defaults: BTreeMap<String, String>,
    #[serde(default)]
    overrides: BTreeMap<String, String>,
}

/// The body of a load, create or commit answer.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct TableBody {
    metadata_location: Option<String>,
    pub metadata: TableMetadata,
    #[serde(default)]
    pub config: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub storage_credentials: Option<Vec<StorageCredential>>,
}

#[derive(Deserialize)]
pub(super) struct StorageCredential {
    pub prefix: String,
    pub config: BTreeMap<String, String>,
}

impl Server {
    /// Sets up the client; see [`super::RestCatalog::open`].
    pub fn open(uri: &str, warehouse: Option<&str>, access: &Access) -> Result<Server, CatalogError> {
        let timeout = access.retry_for.clamp(REQUEST_TIMEOUT_MIN, REQUEST_TIMEOUT_MAX);
        let http = http::client()
            .default_headers(headers(&access.properties)?)
            .timeout(timeout)
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|error| CatalogError::Unsupported(format!("HTTP client: {error}")))?;
        let uri = uri.trim_end_matches('/').to_string();
        let look_timeout = (access.retry_for / LOOKS_WITHIN_RETRY_FOR).clamp(REQUEST_TIMEOUT_MIN, timeout);
        Ok(Server {
            look_timeout,
            tokens: Tokens::new(&uri, &access.properties),
            http,
            uri,
            warehouse: warehouse.map(str::to_string),
            given: access.properties.clone(),
            settings: Asked::new(),
        })
    }

    /// Returns the settings, which are asked for once.
    pub async fn settings(&self) -> Result<Arc<Settings>, CatalogError> {
        let ask = async { self.ask_settings().await.map(Arc::new) };
        self.settings.get(|_| true, ask).await
    }

    pub async fn ask_settings(&self) -> Result<Settings, CatalogError> {
        let mut url = format!("{}/v1/config", self.uri);
        if let Some(warehouse) = &self.warehouse {
            url = format!("{url}?warehouse={}", encoded(warehouse));
        }
        let answer = self.ask(Method::GET, &url, None).await?;
        if answer.status != 200 {
            return Err(answer.error());
        }
        let config: ConfigBody = answer.json()?;
        let mut properties = config.defaults;
        properties.extend(self.given.clone());
        properties.extend(config.overrides);
        let uri = properties.get("uri").unwrap_or(&self.uri);
        let mut base = format!("{}/v1", uri.trim_end_matches('/'));
        if let Some(prefix) = properties.get("prefix").filter(|p| !p.is_empty()) {
            base = format!("{base}/{}", prefix.trim_matches('/'));
        }
        // Source: Iceberg 1.12 `RESTCatalogProperties.java`, `NAMESPACE_SEPARATOR`; its value is percent-encoded.
        let separator = properties.get("namespace-separator").filter(|s| !s.is_empty());
        Ok(Settings {
            base,
            separator: separator.map_or(NAMESPACE_SEPARATOR, String::as_str).to_owned(),
            properties,
        })
    }

    /// Sends a request whose answer is a table, and once more with a new token if the server doesn't take the old one.
    pub async fn send(&self, method: Method, url: &str, body: Option<&Value>) -> Result<Answer, NoAnswer> {
        self.send_twice(Request {
            method,
            url,
            body,
            known: None,
            bytes_max: TABLE_BYTES_MAX,
        })
        .await
    }

    /// Sends a request whose answer is a few words; else as [`Server::send`].
    pub async fn ask(&self, method: Method, url: &str, body: Option<&Value>) -> Result<Answer, NoAnswer> {
        self.send_twice(Request {
            method,
            url,
            body,
            known: None,
            bytes_max: WORDS_BYTES_MAX,
        })
        .await
    }

    /// Asks for a table that is known; the answer is 304, without a body, if it still is as `known` says.
    ///
    /// Servers without ETags answer as always. Source: `rest-catalog-open-api.yaml`, `loadTable`, `If-None-Match`.
    pub async fn look_again(&self, url: &str, known: &str) -> Result<Answer, NoAnswer> {
        self.send_twice(Request {
            method: Method::GET,
            url,
            body: None,
            known: Some(known),
            bytes_max: TABLE_BYTES_MAX,
        })
        .await
    }

    async fn send_twice(&self, request: Request<'_>) -> Result<Answer, NoAnswer> {
        let token = self.tokens.get(&self.http, None).await.map_err(NoAnswer::NotSent)?;
        let answer = self.send_with(&request, token.as_deref()).await?;
        // 419: the session ended; Iceberg's own status for it.
        if !matches!(answer.status, 401 | 419) || !self.tokens.renewable() {
            return Ok(answer);
        }
        let token = self.tokens.get(&self.http, token.as_deref()).await;
        // The refused request may have been answered by a gateway behind which it went on: nobody says it wasn't sent.
        let token = token.map_err(NoAnswer::MayBeSent)?;
        self.send_with(&request, token.as_deref()).await
    }

    async fn send_with(&self, asked: &Request<'_>, token: Option<&str>) -> Result<Answer, NoAnswer> {
        let looks = asked.method == Method::GET;
        let mut request = self.http.request(asked.method.clone(), asked.url);
        if looks {
            request = request.timeout(self.look_timeout);
        }
        if let Some(known) = asked.known {
            request = request.header(IF_NONE_MATCH, known);
        }
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = asked.body {
            request = request.json(body);
        }
        received(request, asked.bytes_max).await
    }
}

impl Answer {
    /// Reads the body.
    ///
    /// # Errors
    /// [`CatalogError::Unreachable`] for what is no JSON: a page for people, or the first half of an answer, isn't a catalog's
    /// word, and the next may be one. [`CatalogError::Broken`] for JSON that says something else.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, CatalogError> {
        serde_json::from_slice(&self.body).map_err(|error| match error.classify() {
            Category::Data => CatalogError::Broken(format!("the catalog's answer: {error}")),
            Category::Io | Category::Syntax | Category::Eof => CatalogError::Unreachable(format!(
                "status {}, and {} bytes that are no JSON: {error}",
                self.status,
                self.body.len()
            )),
        })
    }

    /// Reads a table, with the location of its metadata file.
    pub fn table_body(&self) -> Result<(String, TableBody), CatalogError> {
        let mut body: TableBody = self.json()?;
        match body.metadata_location.take() {
            Some(location) => Ok((location, body)),
            None => Err(CatalogError::Broken(
                "the catalog's answer has no metadata-location".into(),
            )),
        }
    }

    /// The server's own words: `error.message` of the protocol, `error_description` of OAuth2, else the text.
    pub fn message(&self) -> String {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let text = ["/error/message", "/error_description", "/error", "/message"]
            .iter()
            .find_map(|at| json.pointer(at).and_then(Value::as_str))
            .map_or_else(|| String::from_utf8_lossy(&self.body).into_owned(), str::to_string);
        text.trim().chars().take(MESSAGE_CHARS_MAX).collect()
    }

    /// Says whether it is a catalog that speaks of an error, and not somebody before it.
    ///
    /// Source: `rest-catalog-open-api.yaml`, `IcebergErrorResponse`: an object `error` with `message`, `type` and `code`.
    fn is_of_a_catalog(&self) -> bool {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let error = json.get("error");
        error.is_some_and(|error| error["type"].is_string() && error["code"].is_number())
    }

    /// Says whether the catalog has no such table or namespace. A 404 alone doesn't: a gateway that has lost its catalog, or
    /// was given another path, says the same, and a table is not gone because of that.
    pub fn says_missing(&self) -> bool {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let named = json.pointer("/error/type").and_then(Value::as_str).unwrap_or_default();
        let named = matches!(named, "NoSuchTableException" | "NoSuchNamespaceException");
        self.status == 404 && self.is_of_a_catalog() && (named || json.pointer("/error/code") == Some(&404.into()))
    }

    /// What an answer means that isn't the one that was hoped for.
    pub fn error(&self) -> CatalogError {
        self.error_at("catalog.uri")
    }

    /// The same of a server whose address is the setting `written`.
    pub fn error_at(&self, written: &str) -> CatalogError {
        let (status, message) = (self.status, self.message());
        match (status, &self.sent_on_to) {
            (300..=399, Some(to)) => CatalogError::Unreachable(format!(
                "status {status} points to `{to}`, and no request is sent there: a commit would be lost on the way, and \
                 credentials are for the address that was written down; let `{written}` name the one that answers itself"
            )),
            (401 | 403 | 407 | 419, _) => CatalogError::Unauthorized(format!("{status} {message}")),
            (400..=499, _) if self.is_of_a_catalog() => CatalogError::Refused { status, message },
            (400..=499, _) => CatalogError::Unreachable(format!(
                "status {status}, not in the words of a catalog: is `{written}` right, and what stands before it well? {message}"
            )),
            (500..=599, _) => CatalogError::Unreachable(format!("status {status}: {message}")),
            _ => CatalogError::Broken(format!("status {status}: {message}")),
        }
    }
}

/// Sends a request and waits for the whole answer, or for as much of an error's as is told to people.
pub(super) async fn received(request: RequestBuilder, bytes_max: usize) -> Result<Answer, NoAnswer> {
    let unreachable = |error: reqwest::Error| CatalogError::Unreachable(chain(&error.without_url()));
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_builder() => {
            let message = chain(&error.without_url());
            return Err(NoAnswer::NotSent(CatalogError::Broken(message)));
        }
        Err(error) => return Err(NoAnswer::MayBeSent(unreachable(error))),
    };
    let status = response.status().as_u16();
    let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
    let etag = etag.map(str::to_owned);
    let sent_on_to = http::sent_on_to(&response);
    let body = match status {
        200 => http::body(response, bytes_max).await,
        _ => http::beginning(response, WORDS_BYTES_MAX)
            .await
            .map_err(BodyError::from),
    };
    match body {
        Ok(body) => Ok(Answer {
            status,
            etag,
            sent_on_to,
            body,
        }),
        Err(BodyError::Failed(error)) => Err(NoAnswer::MayBeSent(unreachable(error))),
        // It may be a gateway's: the catalog's own may come the next time.
        Err(long) => Err(NoAnswer::MayBeSent(CatalogError::Unreachable(long.to_string()))),
    }
}

/// The headers of every request: the user's own, and the wish for credentials where none are given.
fn headers(properties: &BTreeMap<String, String>) -> Result<HeaderMap, CatalogError> {
    let unsupported = |what: String| CatalogError::Unsupported(what);
    let mut headers = HeaderMap::new();
    if !properties.contains_key("s3.access-key-id") {
        let delegation = HeaderValue::from_static("vended-credentials");
        headers.insert("x-iceberg-access-delegation", delegation);
    }
    for (key, value) in properties {
        let Some(name) = key.strip_prefix("header.") else {
            continue;
        };
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| unsupported(format!("`{key}` is no name of an HTTP header")))?;
        let mut value =
            HeaderValue::from_str(value).map_err(|_| unsupported(format!("the value of `{key}` can't be sent")))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Percent-encodes everything but what RFC 3986 calls unreserved.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(byte as char);
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
