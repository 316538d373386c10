//! The token that goes with each request: a given one, or OAuth2 client credentials.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::Client;
use serde::Deserialize;

use super::server::{WORDS_BYTES_MAX, received};
use crate::catalog::CatalogError;
use crate::catalog::asked::Asked;

/// A token is renewed this long before it ends, or at half of its time if that is shorter, so that it doesn't end on
/// its way.
const RENEW_AHEAD: Duration = Duration::from_secs(60);

/// Where tokens come from. It has no `Debug`: everything in it is secret.
pub(super) enum Tokens {
    /// No request carries a token.
    None,
    /// `token`: the same with every request.
    Given(String),
    /// `credential`: exchanged for tokens that end.
    Exchanged(Box<Exchange>),
}

/// The OAuth2 client credentials flow (RFC 6749, 4.4).
pub(super) struct Exchange {
    server: String,
    id: Option<String>,
    secret: String,
    scope: String,
    /// `audience` and `resource`, as far as they are given.
    more: Vec<(&'static str, String)>,
    /// Many requests whose token ended ask for one new token, not for many.
    held: Asked<Token>,
}

#[derive(Clone)]
struct Token {
    value: String,
    /// `None`: the server didn't say when it ends; it is used until it is refused.
    renew_at: Option<Instant>,
}

#[derive(Deserialize)]
struct TokenBody {
    access_token: String,
    expires_in: Option<u64>,
}

impl Tokens {
    /// - `catalog`: the catalog's own address, which gives tokens where `oauth2-server-uri` isn't set;
    /// - `given`: `token`, or `credential` (`id:secret` or `secret`) with `oauth2-server-uri`, `scope`, `audience`,
    ///   `resource`. A credential wins over a token.
    pub fn new(catalog: &str, given: &BTreeMap<String, String>) -> Tokens {
        let property = |name: &str| given.get(name).cloned();
        let Some(credential) = given.get("credential") else {
            return property("token").map_or(Tokens::None, Tokens::Given);
        };
        let (id, secret) = match credential.split_once(':') {
            Some((id, secret)) => (Some(id.to_owned()), secret),
            None => (None, credential.as_str()),
        };
        Tokens::Exchanged(Box::new(Exchange {
            server: property("oauth2-server-uri").unwrap_or_else(|| format!("{catalog}/v1/oauth/tokens")),
            id,
            secret: secret.to_owned(),
            scope: property("scope").unwrap_or_else(|| "catalog".to_owned()),
            more: ["audience", "resource"]
                .into_iter()
                .filter_map(|name| Some((name, property(name)?)))
                .collect(),
            held: Asked::new(),
        }))
    }

    /// Returns whether a refused token can be replaced by a new one.
    pub fn renewable(&self) -> bool {
        matches!(self, Tokens::Exchanged(_))
    }

    /// Returns the token to send; a renewable one is never the one that was `refused`.
    pub async fn get(&self, http: &Client, refused: Option<&str>) -> Result<Option<String>, CatalogError> {
        match self {
            Tokens::None => Ok(None),
            Tokens::Given(token) => Ok(Some(token.clone())),
            Tokens::Exchanged(exchange) => exchange.get(http, refused).await.map(Some),
        }
    }
}

impl Exchange {
    async fn get(&self, http: &Client, refused: Option<&str>) -> Result<String, CatalogError> {
        let holds = |token: &Token| {
            let fresh = token.renew_at.is_none_or(|renew_at| Instant::now() < renew_at);
            fresh && refused != Some(token.value.as_str())
        };
        self.held.get(holds, self.ask(http)).await.map(|token| token.value)
    }

    async fn ask(&self, http: &Client) -> Result<Token, CatalogError> {
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_secret", &self.secret),
            ("scope", &self.scope),
        ];
        form.extend(self.id.as_deref().map(|id| ("client_id", id)));
        form.extend(self.more.iter().map(|(name, value)| (*name, value.as_str())));
        let answer = received(http.post(&self.server).form(&form), WORDS_BYTES_MAX).await?;
        match answer.status {
            200 => {
                let body: TokenBody = answer.json()?;
                Ok(Token {
                    value: body.access_token,
                    renew_at: body.expires_in.map(|seconds| {
                        let lasts = Duration::from_secs(seconds);
                        Instant::now() + (lasts - RENEW_AHEAD.min(lasts / 2))
                    }),
                })
            }
            // A server may show what it was sent.
            400..=499 => Err(CatalogError::Unauthorized(format!(
                "no token: {} {}",
                answer.status,
                answer.message().replace(&self.secret, "…")
            ))),
            _ => Err(answer.error_at("catalog.properties.oauth2-server-uri")),
        }
    }
}
