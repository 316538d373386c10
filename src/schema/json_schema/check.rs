//! Values against their schema, where somebody wants that: the schema's columns take more than the schema does.

use std::fmt;

use jsonschema::{Retrieve, Uri, Validator};
use serde_json::Value;

use crate::schema::SchemaText;

/// A schema that values are validated against.
pub struct Check(Validator);

impl Check {
    /// Makes ready to validate; what the schema refers to must be among its references.
    ///
    /// # Errors
    /// Why it is no schema.
    pub fn new(schema: &SchemaText) -> Result<Check, String> {
        let parsed = |text: &str| -> Result<Value, String> {
            serde_json::from_str(text).map_err(|error| format!("the schema is no JSON: {error}"))
        };
        let references = schema.references.iter();
        let references = references.map(|reference| Ok((reference.name.clone(), parsed(&reference.text)?)));
        let references = References(references.collect::<Result<_, String>>()?);
        let built = jsonschema::options()
            .with_retriever(references)
            .build(&parsed(&schema.text)?);
        built
            .map(Check)
            .map_err(|error| format!("values can't be validated against it: {error}"))
    }

    /// Validates a value; what is no JSON is left to its decoder.
    ///
    /// # Errors
    /// The first violation: where, and what.
    pub fn validate(&self, json: &[u8]) -> Result<(), String> {
        let Ok(value) = serde_json::from_slice::<Value>(json) else {
            return Ok(());
        };
        self.0.validate(&value).map_err(|error| {
            let at = error.instance_path().to_string();
            let at = if at.is_empty() {
                "as a whole".to_owned()
            } else {
                format!("at `{at}`")
            };
            format!("the value violates its JSON Schema {at}: {error}")
        })
    }
}

/// What a schema refers to: names, and the schemas.
struct References(Vec<(String, Value)>);

impl Retrieve for References {
    /// A name in a `$ref` is taken for one beside the schema that it is in, so that a path stands in front of it here.
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let uri = uri.as_str();
        let meant = |name: &str| {
            uri.strip_suffix(name)
                .is_some_and(|path| path.is_empty() || path.ends_with('/'))
        };
        let found = self.0.iter().find(|(name, _)| meant(name));
        found
            .map(|(_, schema)| schema.clone())
            .ok_or_else(|| format!("`{uri}` isn't among its references").into())
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Check")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Reference, SchemaLanguage};

    fn check(schema: &str, references: &[(&str, &str)]) -> Result<Check, String> {
        let references = references.iter().map(|(name, text)| Reference {
            name: (*name).to_owned(),
            text: (*text).to_owned(),
        });
        Check::new(&SchemaText {
            language: SchemaLanguage::Json,
            text: schema.to_owned(),
            references: references.collect(),
        })
    }

    #[test]
    fn what_violates_a_schema_is_told_with_its_place() {
        let schema = r#"{"type":"object","properties":{"a":{"type":"array","items":{"maximum":5}}},"required":["a"]}"#;
        let check = check(schema, &[]).expect("a schema");
        assert_eq!(check.validate(br#"{"a":[1,5]}"#), Ok(()));
        let violated = |json: &str| check.validate(json.as_bytes()).expect_err(json);
        assert_eq!(
            violated("{}"),
            "the value violates its JSON Schema as a whole: \"a\" is a required property"
        );
        assert_eq!(
            violated(r#"{"a":[1,7]}"#),
            "the value violates its JSON Schema at `/a/1`: 7 is greater than the maximum of 5"
        );
        assert_eq!(check.validate(b"{"), Ok(()), "its decoder tells it better");
    }

    #[test]
    fn every_draft_and_references_are_read() {
        for draft in [
            "http://json-schema.org/draft-07/schema#",
            "https://json-schema.org/draft/2020-12/schema",
        ] {
            let schema = format!(r#"{{"$schema":"{draft}","properties":{{"p":{{"$ref":"point.json"}}}}}}"#);
            let check = check(&schema, &[("point.json", r#"{"type":"integer"}"#)]).expect("a schema");
            assert_eq!(
                (
                    check.validate(br#"{"p":1}"#).is_ok(),
                    check.validate(br#"{"p":"x"}"#).is_ok()
                ),
                (true, false)
            );
        }
        let unknown = check(r#"{"$ref":"gone.json"}"#, &[]).expect_err("nobody has it");
        assert!(unknown.contains("gone.json"), "{unknown}");
    }
}
