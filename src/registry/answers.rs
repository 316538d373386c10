//! The bodies of a registry's answers.

use serde::{Deserialize, Deserializer, Serialize};

use crate::schema::SchemaLanguage;

/// A schema as the registry has it: what it refers to is named, not there.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SchemaBody {
    pub schema: String,
    schema_type: Option<String>,
    #[serde(default, deserialize_with = "null_is_none")]
    pub references: Vec<RefersTo>,
}

/// A name inside a schema, and the version of a subject that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct RefersTo {
    /// What it is referred to by: a type's full name in Avro, an import's path in Protobuf, a `$ref` in JSON Schema.
    pub name: String,
    /// The subject.
    pub subject: String,
    /// The subject's version.
    pub version: i32,
}

/// A version of a subject.
#[derive(Debug, Deserialize)]
pub(super) struct VersionBody {
    pub id: i32,
    pub version: i32,
    #[serde(flatten)]
    pub schema: SchemaBody,
}

/// The answer of `config`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CompatibilityLevel {
    pub compatibility_level: String,
}

/// The answer of `compatibility`.
#[derive(Debug, Deserialize)]
pub(super) struct Compatibility {
    pub is_compatible: bool,
    pub messages: Option<Vec<String>>,
}

/// The body of an answer that isn't 200.
#[derive(Debug, Deserialize)]
pub(super) struct ErrorBody {
    pub error_code: i64,
    #[serde(default, deserialize_with = "null_is_none")]
    pub message: String,
}

impl ErrorBody {
    /// What Jersey says where no resource has the path: an answer of Confluent's server, and not about a schema.
    const NO_SUCH_PATH: &str = "HTTP 404 Not Found";

    /// Says whether the registry speaks of what it was asked for, not of the path that it was asked at.
    ///
    /// Source: Confluent's `Errors.java`: 40401 subject, 40402 version, 40403 schema, 40408 and others a subject's settings.
    /// Apicurio gives 404 alone for some.
    pub fn is_miss(&self) -> bool {
        match self.error_code {
            40400..=40499 => true,
            404 => self.message != Self::NO_SUCH_PATH,
            _ => false,
        }
    }
}

impl SchemaBody {
    /// Returns what the schema is written in, or why that isn't known. Only Avro goes without saying: it was the first.
    pub fn language(&self) -> Result<SchemaLanguage, String> {
        let known = [SchemaLanguage::Avro, SchemaLanguage::Protobuf, SchemaLanguage::Json];
        let Some(name) = &self.schema_type else {
            return Ok(SchemaLanguage::Avro);
        };
        let found = known.into_iter().find(|language| language.name() == name);
        found.ok_or_else(|| format!("its type `{name}` is none of AVRO, PROTOBUF, JSON"))
    }
}

fn null_is_none<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
