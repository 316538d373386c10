//! A catalog server that speaks the Iceberg REST protocol.
//!
//! The server writes the metadata file and checks the requirements; what matters here is to read its answers to a
//! commit no better than they are: everything that isn't a clear yes or no is [`SwapAnswer::Unknown`].
//!
//! Source: Iceberg's `open-api/rest-catalog-open-api.yaml`, 1.12.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use iceberg::spec::{Schema, TableMetadata, UnboundPartitionSpec};
use iceberg::{TableIdent, TableRequirement, TableUpdate};
use reqwest::{Client, Method, RequestBuilder};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{CatalogError, LoadedTable, NewTable, SwapAnswer};
use crate::store::Store;

/// How long a request may take; a commit of a table with many snapshots takes seconds on slow servers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a TCP and TLS handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A token is renewed this long before it ends, so that it doesn't end on its way.
const TOKEN_SLACK: Duration = Duration::from_secs(60);
/// A longer message from the server is cut; proxies answer with whole pages.
const MESSAGE_CHARS_MAX: usize = 500;

/// A catalog behind HTTP.
pub struct RestCatalog {
    http: Client,
    uri: String,
    warehouse: Option<String>,
    given: BTreeMap<String, String>,
    settings: OnceCell<Settings>,
    /// Held across a refresh, so that many tables whose token ended ask for one new token, not for many.
    token: tokio::sync::Mutex<Option<Token>>,
    /// The stores of tables by their properties, so that loads share connections. A lock and no channel: it guards a
    /// look-up, and no wait happens under it.
    stores: Mutex<HashMap<TableIdent, Opened>>,
}

/// A store and the properties that it was opened with.
type Opened = (BTreeMap<String, String>, Store);

impl fmt::Debug for RestCatalog {
    /// Shows where the catalog is and no property: those hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestCatalog")
            .field("uri", &self.uri)
            .field("warehouse", &self.warehouse)
            .finish_non_exhaustive()
    }
}

/// What the server's `config` and the pipeline file say together.
#[derive(Debug)]
struct Settings {
    /// `{uri}/v1` or `{uri}/v1/{prefix}`.
    base: String,
    properties: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Token {
    value: String,
    ends: Option<Instant>,
}

/// An answer that arrived whole.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// Why there is no answer: whether the request can have had an effect.
#[derive(Debug)]
enum NoAnswer {
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

#[derive(Deserialize)]
struct TokenBody {
    access_token: String,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct TableBody {
    metadata_location: Option<String>,
    metadata: TableMetadata,
    #[serde(default)]
    config: Option<BTreeMap<String, String>>,
    #[serde(default)]
    storage_credentials: Option<Vec<StorageCredential>>,
}

#[derive(Deserialize)]
struct StorageCredential {
    prefix: String,
    config: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct CommitBody<'a> {
    identifier: &'a TableIdent,
    requirements: &'a [TableRequirement],
    updates: &'a [TableUpdate],
}

impl RestCatalog {
    /// Opens the catalog; the server is first asked when something is needed from it.
    ///
    /// - `uri`: as `http://host:8181` or with a path; `/v1/…` is added here;
    /// - `warehouse`: the name or location the server knows it by;
    /// - `properties`: `token`, or `credential` (`id:secret`) with `oauth2-server-uri` and `scope`; `prefix`;
    ///   `header.NAME`; and file-io properties, which win over the server's defaults and lose to its overrides.
    ///
    /// # Errors
    /// [`CatalogError::Unsupported`] for request signing and for a header that can't be sent.
    pub fn open(
        uri: &str,
        warehouse: Option<&str>,
        properties: &BTreeMap<String, String>,
    ) -> Result<RestCatalog, CatalogError> {
        let unsupported = |what: String| CatalogError::Unsupported(what);
        if properties
            .get("rest.sigv4-enabled")
            .is_some_and(|v| v.eq_ignore_ascii_case("true"))
        {
            return Err(unsupported("`rest.sigv4-enabled` isn't built yet".into()));
        }
        let mut headers = reqwest::header::HeaderMap::new();
        if !properties.contains_key("s3.access-key-id") {
            headers.insert(
                "x-iceberg-access-delegation",
                reqwest::header::HeaderValue::from_static("vended-credentials"),
            );
        }
        for (key, value) in properties {
            let Some(name) = key.strip_prefix("header.") else {
                continue;
            };
            let name = reqwest::header::HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| unsupported(format!("`{key}` is no name of an HTTP header")))?;
            let mut value = reqwest::header::HeaderValue::from_str(value)
                .map_err(|_| unsupported(format!("the value of `{key}` can't be sent")))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let http = Client::builder()
            .user_agent(concat!("aperio/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|error| unsupported(format!("HTTP client: {error}")))?;
        Ok(RestCatalog {
            http,
            uri: uri.trim_end_matches('/').to_string(),
            warehouse: warehouse.map(str::to_string),
            given: properties.clone(),
            settings: OnceCell::new(),
            token: tokio::sync::Mutex::new(None),
            stores: Mutex::new(HashMap::new()),
        })
    }

    pub(super) async fn reach(&self) -> Result<(), CatalogError> {
        self.ask_settings().await.map(drop)
    }

    pub(super) async fn load(&self, ident: &TableIdent) -> Result<Option<LoadedTable>, CatalogError> {
        let url = self.table_url(ident).await?;
        let answer = self.send(Method::GET, &url, None).await?;
        match answer.status {
            200 => self.table(ident, &answer).map(Some),
            404 => Ok(None),
            _ => Err(answer.error()),
        }
    }

    pub(super) async fn create(&self, ident: &TableIdent, creation: NewTable) -> Result<LoadedTable, CatalogError> {
        let url = format!("{}/tables", self.namespace_url(ident).await?);
        let body = create_body(ident, creation)?;
        let mut answer = self.send(Method::POST, &url, Some(&body)).await?;
        if answer.status == 404 {
            // Only now: who may create tables here may well not be allowed to create namespaces.
            self.create_namespace(ident).await?;
            answer = self.send(Method::POST, &url, Some(&body)).await?;
        }
        match answer.status {
            200 => self.table(ident, &answer),
            409 => self.load(ident).await?.ok_or_else(|| answer.error()),
            _ => Err(answer.error()),
        }
    }

    pub(super) async fn swap(
        &self,
        base: &LoadedTable,
        requirements: Vec<TableRequirement>,
        updates: Vec<TableUpdate>,
    ) -> SwapAnswer {
        let url = match self.table_url(&base.ident).await {
            Ok(url) => url,
            Err(error) => return SwapAnswer::Rejected(error),
        };
        let body = match serde_json::to_value(CommitBody {
            identifier: &base.ident,
            requirements: &requirements,
            updates: &updates,
        }) {
            Ok(body) => body,
            Err(error) => return SwapAnswer::Rejected(CatalogError::Broken(error.to_string())),
        };
        let answer = match self.send(Method::POST, &url, Some(&body)).await {
            Ok(answer) => answer,
            Err(NoAnswer::NotSent(error)) => return SwapAnswer::Rejected(error),
            Err(NoAnswer::MayBeSent(error)) => return SwapAnswer::Unknown(error),
        };
        match answer.status {
            200 => match answer.table_body() {
                Ok((location, body)) => SwapAnswer::Committed(LoadedTable {
                    metadata: Arc::new(body.metadata),
                    metadata_location: location,
                    ..base.clone()
                }),
                Err(error) => SwapAnswer::Unknown(error),
            },
            409 => SwapAnswer::Conflict,
            400 if speaks_of_a_race(&answer.message()) => SwapAnswer::Conflict,
            // 408: the server gave up on reading, or a proxy on waiting.
            400..=407 | 409..=499 => SwapAnswer::Rejected(answer.error()),
            _ => SwapAnswer::Unknown(answer.error()),
        }
    }

    async fn create_namespace(&self, ident: &TableIdent) -> Result<(), CatalogError> {
        let url = format!("{}/namespaces", self.settings().await?.base);
        let body = json!({"namespace": ident.namespace(), "properties": {}});
        let answer = self.send(Method::POST, &url, Some(&body)).await?;
        match answer.status {
            200 | 409 => Ok(()),
            _ => Err(answer.error()),
        }
    }

    async fn namespace_url(&self, ident: &TableIdent) -> Result<String, CatalogError> {
        let base = &self.settings().await?.base;
        let namespace = encoded(&ident.namespace().join("\u{1f}"));
        Ok(format!("{base}/namespaces/{namespace}"))
    }

    async fn table_url(&self, ident: &TableIdent) -> Result<String, CatalogError> {
        let namespace = self.namespace_url(ident).await?;
        Ok(format!("{namespace}/tables/{}", encoded(ident.name())))
    }

    async fn settings(&self) -> Result<&Settings, CatalogError> {
        self.settings.get_or_try_init(|| self.ask_settings()).await
    }

    async fn ask_settings(&self) -> Result<Settings, CatalogError> {
        let mut url = format!("{}/v1/config", self.uri);
        if let Some(warehouse) = &self.warehouse {
            url = format!("{url}?warehouse={}", encoded(warehouse));
        }
        let answer = self.send(Method::GET, &url, None).await?;
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
        Ok(Settings { base, properties })
    }

    /// Sends a request, and once more with a new token if the server doesn't take the old one.
    async fn send(&self, method: Method, url: &str, body: Option<&Value>) -> Result<Answer, NoAnswer> {
        let token = self.token(None).await.map_err(NoAnswer::NotSent)?;
        let answer = self.send_with(method.clone(), url, body, token.as_deref()).await?;
        // 419: the session ended; Iceberg's own status for it.
        let refreshable = self.given.contains_key("credential");
        if !matches!(answer.status, 401 | 419) || !refreshable {
            return Ok(answer);
        }
        let token = self.token(token.as_deref()).await.map_err(NoAnswer::NotSent)?;
        self.send_with(method, url, body, token.as_deref()).await
    }

    async fn send_with(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
        token: Option<&str>,
    ) -> Result<Answer, NoAnswer> {
        let mut request = self.http.request(method, url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        received(request).await
    }

    /// Returns the token to send, or `None` where none is configured. One equal to `refused` isn't returned again.
    async fn token(&self, refused: Option<&str>) -> Result<Option<String>, CatalogError> {
        let Some(credential) = self.given.get("credential") else {
            return Ok(self.given.get("token").cloned());
        };
        let mut held = self.token.lock().await;
        if let Some(token) = held.as_ref() {
            let lasts = token.ends.is_none_or(|ends| Instant::now() < ends);
            if lasts && refused != Some(token.value.as_str()) {
                return Ok(Some(token.value.clone()));
            }
        }
        let fresh = self.ask_token(credential).await?;
        Ok(Some(held.insert(fresh).value.clone()))
    }

    /// Asks for a token with the OAuth2 client credentials flow (RFC 6749, 4.4).
    async fn ask_token(&self, credential: &str) -> Result<Token, CatalogError> {
        let property = |name: &str| self.given.get(name).map(String::as_str);
        let server = match property("oauth2-server-uri") {
            Some(server) => server.to_string(),
            None => format!("{}/v1/oauth/tokens", self.uri),
        };
        let (id, secret) = match credential.split_once(':') {
            Some((id, secret)) => (Some(id), secret),
            None => (None, credential),
        };
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_secret", secret),
            ("scope", property("scope").unwrap_or("catalog")),
        ];
        form.extend(id.map(|id| ("client_id", id)));
        for optional in ["audience", "resource"] {
            form.extend(property(optional).map(|value| (optional, value)));
        }
        let answer = received(self.http.post(&server).form(&form)).await?;
        match answer.status {
            200 => {
                let body: TokenBody = answer.json()?;
                let lasts = body.expires_in.map(Duration::from_secs);
                Ok(Token {
                    value: body.access_token,
                    ends: lasts.map(|lasts| Instant::now() + lasts.saturating_sub(TOKEN_SLACK)),
                })
            }
            400 => Err(CatalogError::Unauthorized(answer.message())),
            _ => Err(answer.error()),
        }
    }

    /// Reads a load or create answer, with the store that serves the table's files.
    fn table(&self, ident: &TableIdent, answer: &Answer) -> Result<LoadedTable, CatalogError> {
        let (metadata_location, body) = answer.table_body()?;
        let location = body.metadata.location().to_string();
        let mut properties = match self.settings.get() {
            Some(settings) => settings.properties.clone(),
            None => self.given.clone(),
        };
        properties.extend(body.config.unwrap_or_default());
        let nearest = body
            .storage_credentials
            .unwrap_or_default()
            .into_iter()
            .filter(|credential| location.starts_with(&credential.prefix))
            .max_by_key(|credential| credential.prefix.len());
        properties.extend(nearest.map(|c| c.config).unwrap_or_default());

        let mut stores = self.stores.lock().unwrap_or_else(|poisoned| {
            // A panic while the map was changed leaves at worst a missing entry.
            poisoned.into_inner()
        });
        let store = match stores.get(ident) {
            Some((known, store)) if *known == properties && store.warehouse() == location => store.clone(),
            _ => {
                let store = Store::open(&location, &properties)?;
                stores.insert(ident.clone(), (properties, store.clone()));
                store
            }
        };
        Ok(LoadedTable {
            ident: ident.clone(),
            metadata: Arc::new(body.metadata),
            metadata_location,
            file_io: store.file_io(),
            store,
            rows: None,
        })
    }
}

impl Answer {
    fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, CatalogError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| CatalogError::Broken(format!("the catalog's answer: {error}")))
    }

    fn table_body(&self) -> Result<(String, TableBody), CatalogError> {
        let mut body: TableBody = self.json()?;
        match body.metadata_location.take() {
            Some(location) => Ok((location, body)),
            None => Err(CatalogError::Broken(
                "the catalog's answer has no metadata-location".into(),
            )),
        }
    }

    /// The server's own words: `error.message` of the protocol, `error_description` of OAuth2, else the text.
    fn message(&self) -> String {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let text = ["/error/message", "/error_description", "/error", "/message"]
            .iter()
            .find_map(|at| json.pointer(at).and_then(Value::as_str))
            .map_or_else(|| String::from_utf8_lossy(&self.body).into_owned(), str::to_string);
        text.trim().chars().take(MESSAGE_CHARS_MAX).collect()
    }

    fn error(&self) -> CatalogError {
        let (status, message) = (self.status, self.message());
        match status {
            401 | 403 | 407 | 419 => CatalogError::Unauthorized(format!("{status} {message}")),
            400..=499 => CatalogError::Refused { status, message },
            500..=599 => CatalogError::Unreachable(format!("status {status}: {message}")),
            _ => CatalogError::Broken(format!("status {status}: {message}")),
        }
    }
}

async fn received(request: RequestBuilder) -> Result<Answer, NoAnswer> {
    let unreachable = |error: reqwest::Error| CatalogError::Unreachable(with_causes(&error.without_url()));
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_builder() => {
            let message = with_causes(&error);
            return Err(NoAnswer::NotSent(CatalogError::Broken(message)));
        }
        Err(error) => return Err(NoAnswer::MayBeSent(unreachable(error))),
    };
    let status = response.status().as_u16();
    match response.bytes().await {
        Ok(body) => Ok(Answer {
            status,
            body: body.into(),
        }),
        Err(error) => Err(NoAnswer::MayBeSent(unreachable(error))),
    }
}

/// Returns whether a refusal of a commit tells of another commit that came first.
///
/// Servers find these only when they apply the updates. Java's answers 400 before 1.11 and 409 since to "Cannot add
/// snapshot with sequence number … older than last sequence number" and "first-row-id is behind table next-row-id", and
/// still 400 to "Invalid update timestamp … before last snapshot log entry". Sources: Iceberg 1.12 `TableMetadata.java`
/// and `CatalogHandlers.java`, `commit`; "Invalid snapshot timestamp … before last" is of servers on the Rust crate,
/// `iceberg` 0.10.1 `table_metadata_builder.rs`.
fn speaks_of_a_race(message: &str) -> bool {
    let message = message.to_lowercase();
    ["sequence number", "row id", "row-id", "timestamp"]
        .iter()
        .any(|words| message.contains(words))
}

fn create_body(ident: &TableIdent, creation: NewTable) -> Result<Value, CatalogError> {
    let broken = |error: serde_json::Error| CatalogError::Broken(error.to_string());
    let NewTable {
        schema,
        spec,
        mut properties,
        format_version,
    } = creation;
    properties.insert("format-version".to_string(), (format_version as u8).to_string());
    let schema: Value = serde_json::to_value::<Schema>(schema).map_err(broken)?;
    let mut spec: Value = serde_json::to_value::<UnboundPartitionSpec>(spec).map_err(broken)?;
    // Optional in the protocol, wanted by Java (`PartitionSpecParser.java`, 1.12).
    spec["spec-id"] = json!(0);
    Ok(json!({
        "name": ident.name(),
        "schema": schema,
        "partition-spec": spec,
        "stage-create": false,
        "properties": properties,
    }))
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

/// `reqwest` prints only its outermost error; the reason is further down.
fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    // Ends: a chain of sources is finite.
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
