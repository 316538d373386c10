//! A catalog server that speaks the Iceberg REST protocol.
//!
//! The server writes the metadata file and checks the requirements; what matters here is to read its answers to a
//! commit no better than they are: everything that isn't a clear yes or no is [`SwapAnswer::Unknown`], redirects and words that
//! are no catalog's included.
//!
//! Source: Iceberg's `open-api/rest-catalog-open-api.yaml`, 1.12.

mod files;
mod local;
mod server;
mod token;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iceberg::spec::{Schema, UnboundPartitionSpec};
use iceberg::{TableIdent, TableRequirement, TableUpdate};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

use self::files::Stores;
use self::local::LocalFiles;
use self::server::{Answer, NoAnswer, Server};
use super::asked::Asked;
use super::{CatalogError, LoadedTable, NewTable, SwapAnswer};
use crate::store::Access;

/// How long a sign of life counts: every table of a process asks for one every ten seconds, and one answer is for all.
const ALIVE_FOR: Duration = Duration::from_secs(5);

/// A catalog behind HTTP.
pub struct RestCatalog {
    server: Arc<Server>,
    /// When it last gave a sign of life.
    alive: Asked<Instant>,
    stores: Stores,
    local_files: LocalFiles,
}

impl fmt::Debug for RestCatalog {
    /// Shows where the catalog is and no property: those hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RestCatalog").field(&self.server).finish()
    }
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
    /// - `access`: properties `aperio.allow-local-files`, `token`, or `credential` (`id:secret`) with `oauth2-server-uri` and `scope`; `prefix`;
    ///   `header.NAME`; and file-io properties, which win over the server's defaults and lose to its overrides. A request
    ///   waits for its answer as long as `access.retry_for` says, but 10 s at least and 60 s at most.
    ///
    /// # Errors
    /// [`CatalogError::Unsupported`] for request signing and for a header that can't be sent.
    pub fn open(uri: &str, warehouse: Option<&str>, access: impl Into<Access>) -> Result<RestCatalog, CatalogError> {
        let access = access.into();
        let signed = access.properties.get("rest.sigv4-enabled");
        if signed.is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            return Err(CatalogError::Unsupported("`rest.sigv4-enabled` isn't built yet".into()));
        }
        Ok(RestCatalog {
            server: Arc::new(Server::open(uri, warehouse, &access)?),
            alive: Asked::new(),
            stores: Stores::new(&access),
            local_files: LocalFiles::of(uri, warehouse, &access.properties),
        })
    }

    pub(super) async fn reach(&self) -> Result<(), CatalogError> {
        let ask = async { self.server.ask_settings().await.map(|_| Instant::now()) };
        self.alive.get(|at| at.elapsed() < ALIVE_FOR, ask).await.map(drop)
    }

    pub(super) async fn load(&self, ident: &TableIdent) -> Result<Option<LoadedTable>, CatalogError> {
        let url = self.server.settings().await?.table_url(ident);
        let answer = self.server.send(Method::GET, &url, None).await?;
        match answer.status {
            200 => self.table(ident, &answer).await.map(Some),
            404 if answer.says_missing() => Ok(None),
            _ => Err(answer.error()),
        }
    }

    /// Loads a table anew, unless the server says that it still is as known.
    pub(super) async fn reload(&self, known: &LoadedTable) -> Result<Option<LoadedTable>, CatalogError> {
        let Some(etag) = &known.etag else {
            return self.load(&known.ident).await;
        };
        let url = self.server.settings().await?.table_url(&known.ident);
        let answer = self.server.look_again(&url, etag).await?;
        match answer.status {
            200 => self.table(&known.ident, &answer).await.map(Some),
            304 => Ok(Some(known.clone())),
            404 if answer.says_missing() => Ok(None),
            _ => Err(answer.error()),
        }
    }

    pub(super) async fn create(&self, ident: &TableIdent, creation: NewTable) -> Result<LoadedTable, CatalogError> {
        let url = format!("{}/tables", self.server.settings().await?.namespace_url(ident));
        let fields = creation.schema.as_struct().fields().iter();
        let columns: Vec<_> = fields.map(|field| field.name.clone()).collect();
        let body = create_body(ident, creation)?;
        let mut answer = self.server.send(Method::POST, &url, Some(&body)).await?;
        if answer.status == 409 || answer.says_missing() {
            // Some say 409 where the namespace is missing, as Nessie 0.99 does; others where the table is there.
            if answer.status == 409
                && let Some(table) = self.load(ident).await?
            {
                return Ok(table);
            }
            // Only now: who may create tables here may well not be allowed to create namespaces.
            self.create_namespaces(ident).await?;
            answer = self.server.send(Method::POST, &url, Some(&body)).await?;
        }
        let made = match answer.status {
            200 => self.table(ident, &answer).await.and_then(|table| made(table, &columns)),
            _ => Err(answer.error()),
        };
        match made {
            // It may be there all the same, by this request or by another's: the catalog says.
            Err(error) if matches!(answer.status, 200..=299 | 409) => self.load(ident).await?.ok_or(error),
            made => made,
        }
    }

    pub(super) async fn swap(
        &self,
        base: &LoadedTable,
        requirements: Vec<TableRequirement>,
        updates: Vec<TableUpdate>,
    ) -> SwapAnswer {
        let url = match self.server.settings().await {
            Ok(settings) => settings.table_url(&base.ident),
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
        let answer = match self.server.send(Method::POST, &url, Some(&body)).await {
            Ok(answer) => answer,
            Err(NoAnswer::NotSent(error)) => return SwapAnswer::Rejected(error),
            Err(NoAnswer::MayBeSent(error)) => return SwapAnswer::Unknown(error),
        };
        match answer.status {
            200 => match answer.table_body() {
                Ok((location, body)) => SwapAnswer::Committed(LoadedTable {
                    metadata: Arc::new(body.metadata),
                    metadata_location: location,
                    etag: answer.etag.clone(),
                    ..base.clone()
                }),
                Err(error) => SwapAnswer::Unknown(error),
            },
            409 => SwapAnswer::Conflict,
            400 if speaks_of_a_race(&answer.message()) => SwapAnswer::Conflict,
            // 408: the server gave up on reading, or a proxy on waiting.
            400..=407 | 409..=499 => match answer.error() {
                // Not in the catalog's words, so its own are lost, and may have been a yes.
                error @ CatalogError::Unreachable(_) => SwapAnswer::Unknown(error),
                error => SwapAnswer::Rejected(error),
            },
            _ => SwapAnswer::Unknown(answer.error()),
        }
    }

    /// Creates a namespace with those that it is in; the ones that are there are fine.
    async fn create_namespaces(&self, ident: &TableIdent) -> Result<(), CatalogError> {
        let url = format!("{}/namespaces", self.server.settings().await?.base);
        let levels: &[String] = ident.namespace();
        for depth in 1..=levels.len() {
            let body = json!({"namespace": &levels[..depth], "properties": {}});
            let answer = self.server.ask(Method::POST, &url, Some(&body)).await?;
            let created = matches!(answer.status, 200 | 409);
            // Who may not touch the outer ones may still be allowed to create the innermost.
            if !created && depth == levels.len() {
                return Err(answer.error());
            }
        }
        Ok(())
    }

    /// Reads a load or create answer, with the store that serves the table's files.
    async fn table(&self, ident: &TableIdent, answer: &Answer) -> Result<LoadedTable, CatalogError> {
        let (metadata_location, body) = answer.table_body()?;
        self.local_files.check(ident, &body.metadata)?;
        let properties = self.server.settings().await?.properties.clone();
        let store = self.stores.of(&self.server, ident, properties, &body)?;
        Ok(LoadedTable {
            ident: ident.clone(),
            metadata: Arc::new(body.metadata),
            metadata_location,
            file_io: store.file_io(),
            store,
            etag: answer.etag.clone(),
            rows: None,
        })
    }
}

/// Takes the answer to a creation, if it is the table that was asked for.
fn made(table: LoadedTable, columns: &[String]) -> Result<LoadedTable, CatalogError> {
    let schema = table.metadata.current_schema();
    let missing = columns.iter().find(|name| schema.field_by_name(name).is_none());
    let wrong = match missing {
        Some(name) => format!("has no column `{name}`"),
        None if table.metadata.uuid().is_nil() => "has no UUID".to_owned(),
        None if table.metadata.location().is_empty() => "has no location".to_owned(),
        None => return Ok(table),
    };
    Err(CatalogError::Unreachable(format!(
        "it says that `{}` was created, and the table in its answer {wrong}",
        table.ident
    )))
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
    // Optional too, wanted by Nessie 0.99, which else says `HTTP 400 Bad Request`. Partition fields count from 1000.
    let fields = spec["fields"].as_array_mut().into_iter().flatten();
    for (field, id) in fields.zip(1000..) {
        field["field-id"] = json!(id);
    }
    Ok(json!({
        "name": ident.name(),
        "schema": schema,
        "partition-spec": spec,
        "stage-create": false,
        "properties": properties,
    }))
}
