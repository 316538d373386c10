//! Text that must not be printed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

/// What is printed in place of a secret.
pub const HIDDEN: &str = "***";

/// A password, token or the like: usable, never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// Returns the text itself, for the one call that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "examples": ["${KAFKA_PASSWORD}", "${file:/run/secrets/kafka}"]})
    }
}

/// Prints the keys of a property map and hides every value.
///
/// Every value, because which of a foreign system's properties hold secrets is known only to that system.
pub(super) struct KeysOnly<'a>(pub &'a BTreeMap<String, String>);

impl fmt::Debug for KeysOnly<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.0.keys().map(|key| (key, Secret(String::new()))))
            .finish()
    }
}

/// Says whether a key's name announces a secret.
pub(crate) fn named_like_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let parts = [
        "password",
        "passwd",
        "passphrase",
        "token",
        "credential",
        "secret",
        "key.pem",
        "jaas",
        "account-key",
    ];
    // `token-refresh-enabled` and the like are hidden too: a hidden switch costs less than a printed token.
    parts.iter().any(|part| key.contains(part))
}

/// Returns `uri` with the password in its authority hidden.
pub(super) fn without_password(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return uri.to_owned();
    };
    let authority_end = rest.find('/').unwrap_or(rest.len());
    match rest[..authority_end].rfind('@') {
        Some(at) => format!("{scheme}://{HIDDEN}{}", &rest[at..]),
        None => uri.to_owned(),
    }
}

/// Returns what may hold several addresses, or half of one, with all that may be a password in it hidden.
///
/// It hides more than [`without_password`]: a password with an unescaped `/` or `,` is one too.
pub(super) fn without_passwords(text: &str) -> String {
    let bounds = text.find("://").zip(text.rfind('@'));
    match bounds.map(|(scheme, at)| (scheme + 3, at)) {
        Some((start, at)) if start <= at => format!("{}{HIDDEN}{}", &text[..start], &text[at..]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_stars() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.expose(), "hunter2");
        let map = BTreeMap::from([("sasl.password".to_owned(), "hunter2".to_owned())]);
        assert_eq!(format!("{:?}", KeysOnly(&map)), r#"{"sasl.password": ***}"#);
        assert_eq!(without_password("http://u:hunter2@host/x"), "http://***@host/x");
        assert_eq!(without_password("s3://bucket/a@b"), "s3://bucket/a@b");
        assert_eq!(
            without_passwords("http://u:hunter2@a,http://v:hunter3@b"),
            "http://***@b"
        );
        assert_eq!(without_passwords("http://u:hun/ter2@a"), "http://***@a");
        assert_eq!(without_passwords("a@b http://c"), "a@b http://c");
    }
}
