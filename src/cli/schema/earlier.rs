//! Earlier versions of a schema: what they are, and those that a registry has.

use std::time::Duration;

use crate::error::{Exit, Failure, chain};
use crate::registry::{RefersTo, Registered, Registry, RegistryError, Version};
use crate::schema::SchemaText;
use crate::schema::compatibility::Mode;

/// How long a registry may take for one answer.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// An earlier version of a schema.
#[derive(Debug)]
pub(super) struct Earlier {
    /// What messages call it.
    pub name: String,
    /// The schema.
    pub text: String,
    /// Where it is from, if that is a registry.
    pub registered: Option<Registered>,
}

/// What a registry has of a subject.
#[derive(Debug)]
pub(super) struct Subject {
    /// What versions must be to one another, by the registry; not asked for where that is settled.
    pub level: Option<String>,
    /// Newest first; without `all` the newest only.
    pub versions: Vec<Earlier>,
}

/// Returns a subject's versions: all of them if the mode asks for that; without a mode the registry's level is the mode.
///
/// # Errors
/// Exit code 4 if the registry is down or refuses us; 3 if it has something that is of no use.
pub(super) async fn subject(registry: &Registry, name: &str, mode: Option<Mode>) -> Result<Subject, Failure> {
    let told = |error: RegistryError| failure(&error);
    let level = match mode {
        Some(_) => None,
        None => Some(registry.compatibility_level(name).await.map_err(told)?),
    };
    let numbers = match registry.versions(name).await {
        Err(RegistryError::NotFound { .. }) => Vec::new(),
        answer => answer.map_err(told)?,
    };
    let all = mode
        .or(level.as_deref().and_then(Mode::named))
        .is_some_and(Mode::transitive);
    let mut versions = Vec::new();
    for number in numbers.into_iter().rev().take(if all { usize::MAX } else { 1 }) {
        let registered = registry.version(name, number).await.map_err(told)?;
        versions.push(Earlier {
            name: format!("version {number}"),
            text: registered.schema.text.clone(),
            registered: Some(registered),
        });
    }
    Ok(Subject { level, versions })
}

/// What a registry says of a schema.
#[derive(Debug)]
pub(super) enum Said {
    /// Its reasons against it; none if it may follow.
    Reasons(Vec<String>),
    /// It failed at the question, and says why.
    Nothing(String),
}

/// Asks the registry whether a schema may follow one of its versions.
///
/// # Errors
/// Exit code 4 if the registry is down or refuses us.
pub(super) async fn verdict(
    registry: &Registry,
    name: &str,
    version: &Registered,
    schema: &SchemaText,
    refers_to: &[RefersTo],
) -> Result<Said, Failure> {
    let asked = Version::Number(version.version);
    match registry.compatible(name, asked, schema, refers_to).await {
        // Apicurio 3.0.9 doesn't look at references when it is asked this, but does so when the schema is registered.
        Err(RegistryError::Answered {
            status: status @ (422 | 500),
            message,
            ..
        }) if !refers_to.is_empty() => Ok(Said::Nothing(format!("status {status}: {message}"))),
        // What the registry can't read it won't take.
        Err(RegistryError::Answered {
            status: 422, message, ..
        }) => Ok(Said::Reasons(vec![format!("it can't read the file: {message}")])),
        Err(error) => Err(failure(&error)),
        Ok(reasons) => Ok(Said::Reasons(reasons)),
    }
}

/// Tells a registry's error to the user.
pub(super) fn failure(error: &RegistryError) -> Failure {
    let (exit, hint) = match error {
        RegistryError::Config { .. } => (Exit::Config, "look at `--registry` and `--registry-config`"),
        RegistryError::Unusable { .. } | RegistryError::NotFound { .. } => (
            Exit::Data,
            "register the versions anew, or name others with `--subject` or `--against`",
        ),
        _ => (
            Exit::Remote,
            "look at `--registry`, and whether the registry is up; Apicurio's address ends in `/apis/ccompat/v7`",
        ),
    };
    Failure::new(exit, "the schema registry can't be used")
        .detail(chain(error))
        .hint(hint)
}
