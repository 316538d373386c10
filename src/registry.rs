//! A schema registry: schemas by the ids that records carry, and what else its REST API says.
//!
//! The API is Confluent's, which Apicurio speaks at `/apis/ccompat/v7` and Karapace and Redpanda at their root. The client is
//! our own: `schema_registry_converter` doesn't tell a schema that isn't there from a registry that is down, and has neither
//! GUIDs nor questions about compatibility.
//!
//! Nothing is tried again here but at the other addresses of the same registry, once: the caller has the patience, and
//! [`RegistryError::retryable`] says where it is of use.
//!
//! Source: Confluent Platform 8.0, "Schema Registry API Reference".

mod answers;
mod error;
mod kept;
mod servers;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::config::RegistryConfig;
use crate::schema::{Reference, SchemaText};

pub use answers::RefersTo;
pub use error::RegistryError;

use answers::{Compatibility, CompatibilityLevel, SchemaBody, VersionBody};
use kept::Kept;
use servers::{BODY_BYTES_MAX, Question, Servers};

/// How long a schema that isn't there is believed not to be: one that is written while its records are on their way appears
/// within seconds, and a topic of records with a wrong id must not ask once for each.
const MISS_LIFETIME: Duration = Duration::from_secs(10);

/// The most schemas that one schema may refer to, at any remove: each is a request, and the largest trees of Protobuf imports
/// that are known have some hundreds of files.
const REFERENCES_MAX: usize = 1000;

/// A schema registry and who we are to it. Callers share one; what it was asked once by id is kept.
pub struct Registry {
    servers: Servers,
    /// Whole schemas, by what names them for ever.
    schemas: Kept<Ask, SchemaText>,
    /// Schemas that others refer to, without those that they refer to themselves: by subject and version.
    referred: Kept<(String, i32), SchemaBody>,
}

/// What names a schema for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Ask {
    Id(i32),
    Guid(Uuid),
}

/// A version of a subject, as a question names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// The newest one.
    Latest,
    /// This one, from 1.
    Number(i32),
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Latest => f.write_str("latest"),
            Version::Number(number) => number.fmt(f),
        }
    }
}

/// A schema that is registered under a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// What records carry.
    pub id: i32,
    /// Which version of the subject it is, from 1.
    pub version: i32,
    /// The schema.
    pub schema: Arc<SchemaText>,
    /// What it refers to itself, as registered: [`Registry::compatible`] wants it so.
    pub refers_to: Vec<RefersTo>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// Sets up the client; reads the PEM files, contacts nobody.
    ///
    /// - `request_timeout`: how long one request to one address may take, its answer included.
    ///
    /// # Errors
    /// [`RegistryError::Config`] for a file that can't be read or holds nothing of use, and for what can't be sent.
    pub fn new(config: &RegistryConfig, request_timeout: Duration) -> Result<Registry, RegistryError> {
        Registry::open(config, request_timeout, MISS_LIFETIME)
    }

    fn open(
        config: &RegistryConfig,
        request_timeout: Duration,
        miss_lifetime: Duration,
    ) -> Result<Registry, RegistryError> {
        Ok(Registry {
            servers: Servers::open(config, request_timeout)?,
            schemas: Kept::new(miss_lifetime),
            referred: Kept::new(miss_lifetime),
        })
    }

    /// Returns the schema that records carry the id of, with all that it refers to.
    ///
    /// It is asked for once, however many ask at the same time; that it isn't there is believed for ten seconds.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] if the registry doesn't have it, or not one that it refers to; see [`RegistryError`].
    pub async fn schema(&self, id: i32) -> Result<Arc<SchemaText>, RegistryError> {
        self.whole(
            Ask::Id(id),
            &["schemas", "ids", &id.to_string()],
            format!("schema {id}"),
        )
        .await
    }

    /// Returns the schema that records carry the GUID of in their headers; else as [`Registry::schema`].
    ///
    /// # Errors
    /// As those of [`Registry::schema`]; [`RegistryError::Answered`] with status 404 where a registry knows no GUIDs, as
    /// Confluent's before 8.0.
    pub async fn schema_by_guid(&self, guid: Uuid) -> Result<Arc<SchemaText>, RegistryError> {
        let (path, what) = (guid.to_string(), format!("schema {guid}"));
        self.whole(Ask::Guid(guid), &["schemas", "guids", &path], what).await
    }

    /// Returns the newest version of a subject, asked for each time.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] for a subject without versions; see [`RegistryError`].
    pub async fn latest(&self, subject: &str) -> Result<Registered, RegistryError> {
        self.registered(subject, Version::Latest).await
    }

    /// Returns a version of a subject, asked for each time.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] if there is no such version; see [`RegistryError`].
    pub async fn version(&self, subject: &str, version: i32) -> Result<Registered, RegistryError> {
        self.registered(subject, Version::Number(version)).await
    }

    /// Returns the numbers of a subject's versions, ascending.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] if there is no such subject; see [`RegistryError`].
    pub async fn versions(&self, subject: &str) -> Result<Vec<i32>, RegistryError> {
        let question = Question::get(&["subjects", subject, "versions"], format!("subject `{subject}`"));
        let mut versions: Vec<i32> = self.servers.ask(&question).await?;
        versions.sort_unstable();
        Ok(versions)
    }

    /// Returns all subjects that we may see, in the registry's order.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn subjects(&self) -> Result<Vec<String>, RegistryError> {
        let question = Question::get(&["subjects"], "subjects".to_owned());
        self.servers.ask(&question).await
    }

    /// Returns what a subject's versions must be to one another, as `BACKWARD`: its own level, or the registry's.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn compatibility_level(&self, subject: &str) -> Result<String, RegistryError> {
        let what = format!("compatibility level of subject `{subject}`");
        let mut question = Question::get(&["config", subject], what);
        question.query = "?defaultToGlobal=true";
        let answer: Result<CompatibilityLevel, _> = self.servers.ask(&question).await;
        let answer = match answer {
            // Registries that don't know the parameter: a subject without a level of its own isn't there for them.
            Err(RegistryError::NotFound { .. }) => {
                let global = Question::get(&["config"], "the compatibility level".to_owned());
                self.servers.ask(&global).await
            }
            answer => answer,
        };
        Ok(answer?.compatibility_level)
    }

    /// Asks whether a schema may follow a version of a subject; nothing is registered.
    ///
    /// - `refers_to`: what the schema refers to itself, as it would be registered.
    /// - returns the registry's reasons against it; none if the schema is compatible.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] if there is no such version, [`RegistryError::Answered`] with status 422 for a schema that
    /// the registry can't read; see [`RegistryError`].
    pub async fn compatible(
        &self,
        subject: &str,
        version: Version,
        schema: &SchemaText,
        refers_to: &[RefersTo],
    ) -> Result<Vec<String>, RegistryError> {
        let path = ["compatibility", "subjects", subject, "versions", &version.to_string()];
        let mut question = Question::get(&path, named(subject, version));
        question.query = "?verbose=true";
        question.body = Some(json!({
            "schema": schema.text,
            "schemaType": schema.language.name(),
            "references": refers_to,
        }));
        let answer: Compatibility = self.servers.ask(&question).await?;
        Ok(match (answer.is_compatible, answer.messages) {
            (true, _) => vec![],
            (false, Some(messages)) if !messages.is_empty() => messages,
            // Registries that don't know `verbose`.
            (false, _) => vec!["the registry gives no reason".to_owned()],
        })
    }

    /// Asks for as little as shows that a registry is there, and that it lets us in: the languages that it knows.
    ///
    /// Rights to single subjects show only when these are asked for.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn reach(&self) -> Result<(), RegistryError> {
        let question = Question::get(&["schemas", "types"], "schema types".to_owned());
        let _: Vec<String> = self.servers.ask(&question).await?;
        Ok(())
    }

    /// Returns how many requests were made since the start, to any address.
    pub fn requests(&self) -> u64 {
        self.servers.requests()
    }

    async fn whole(&self, ask: Ask, path: &[&str], what: String) -> Result<Arc<SchemaText>, RegistryError> {
        let request = async {
            let question = Question::get(path, what);
            let body: SchemaBody = self.servers.ask(&question).await?;
            self.resolved(&question.what, Arc::new(body)).await
        };
        self.schemas.get(ask, request).await
    }

    async fn registered(&self, subject: &str, version: Version) -> Result<Registered, RegistryError> {
        let path = ["subjects", subject, "versions", &version.to_string()];
        let question = Question::get(&path, named(subject, version));
        let VersionBody { id, version, schema } = self.servers.ask(&question).await?;
        let refers_to = schema.references.clone();
        let schema = Arc::new(self.resolved(&question.what, Arc::new(schema)).await?);
        Ok(Registered {
            id,
            version,
            schema,
            refers_to,
        })
    }

    /// Fetches what a schema refers to, at any remove, each name once: where two paths lead from one name to different
    /// versions, the first counts.
    ///
    /// Source: `resolveReferences` in `AbstractSchemaProvider.java` of Confluent's client 8.0, which is how producers and
    /// consumers see the schema; there a cycle is passed over in silence.
    async fn resolved(&self, what: &str, schema: Arc<SchemaBody>) -> Result<SchemaText, RegistryError> {
        /// A schema whose references are being looked at.
        struct Step {
            name: String,
            schema: Arc<SchemaBody>,
            next: usize,
        }
        let unusable = |reason: String| RegistryError::Unusable {
            what: what.to_owned(),
            reason,
        };
        let language = schema.language().map_err(unusable)?;
        let mut bytes = schema.schema.len();
        let mut references = Vec::new();
        let mut names = HashSet::new();
        let mut open: Vec<Step> = Vec::new();
        let mut at = Step {
            name: String::new(),
            schema: schema.clone(),
            next: 0,
        };
        // Ends: a turn takes up a reference or leaves a schema, and a name is taken up once, `REFERENCES_MAX` in all.
        loop {
            let Some(to) = at.schema.references.get(at.next).cloned() else {
                let Some(above) = open.pop() else { break };
                references.push(Reference {
                    name: at.name,
                    text: at.schema.schema.clone(),
                });
                at = above;
                continue;
            };
            at.next += 1;
            if at.name == to.name || open.iter().skip(1).any(|step| step.name == to.name) {
                return Err(unusable(format!("`{}` refers to itself, through others", to.name)));
            }
            if !names.insert(to.name.clone()) {
                continue;
            }
            if names.len() > REFERENCES_MAX {
                return Err(unusable(format!("it refers to more than {REFERENCES_MAX} schemas")));
            }
            let schema = self.referred(what, &to).await?;
            bytes += schema.schema.len();
            if bytes > BODY_BYTES_MAX {
                let most = BODY_BYTES_MAX >> 20;
                return Err(unusable(format!(
                    "it comes to more than {most} MiB with all that it refers to"
                )));
            }
            let name = to.name;
            open.push(std::mem::replace(&mut at, Step { name, schema, next: 0 }));
        }
        let text = schema.schema.clone();
        Ok(SchemaText {
            language,
            text,
            references,
        })
    }

    async fn referred(&self, what: &str, to: &RefersTo) -> Result<Arc<SchemaBody>, RegistryError> {
        let RefersTo { subject, version, .. } = to;
        let request = async {
            let path = ["subjects", subject, "versions", &version.to_string()];
            let what = format!("{} (needed by {what})", named(subject, Version::Number(*version)));
            let mut question = Question::get(&path, what);
            // A deleted version is still what the schema was written with. Source: as of `resolved`.
            question.query = "?deleted=true";
            self.servers.ask(&question).await
        };
        self.referred.get((subject.clone(), *version), request).await
    }
}

/// What messages call a version.
fn named(subject: &str, version: Version) -> String {
    match version {
        Version::Latest => format!("subject `{subject}`"),
        Version::Number(number) => format!("version {number} of subject `{subject}`"),
    }
}
