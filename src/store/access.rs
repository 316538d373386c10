//! How a store is reached: properties, patience, and credentials that a catalog lends and renews.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::future::BoxFuture;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tracing::{debug, warn};

pub use super::s3::Connections;

/// How long a store may be away before a request to it fails, where nothing else is said.
const RETRY_FOR: Duration = Duration::from_secs(60);
/// Lent credentials are renewed this long before they end, or at half of their time if that is shorter.
///
/// Source: Iceberg 1.12 `VendedCredentialsProvider.java` renews five minutes ahead.
const RENEW_AHEAD: Duration = Duration::from_secs(300);
/// When credentials are renewed that don't say when they end; no lender's end sooner than after 15 minutes (AWS STS).
const RENEW_AFTER: Duration = Duration::from_secs(300);
/// How long credentials that still hold are used on after a renewal failed.
const RENEW_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The properties that are credentials; two sets of properties that differ in these only lead to one store.
const CREDENTIALS: [&str; 4] = [
    "s3.access-key-id",
    "s3.secret-access-key",
    "s3.session-token",
    "s3.session-token-expires-at-ms",
];

/// How a store is reached. `Debug` shows no property: those hold credentials.
#[derive(Clone)]
pub struct Access {
    /// File-io properties under Iceberg's names.
    pub properties: BTreeMap<String, String>,
    /// Credentials that win over those among the properties.
    pub lent: Option<Lent>,
    /// How long a failing request is tried again.
    pub retry_for: Duration,
    /// Connections that stores share; clones of an access share theirs.
    pub connections: Connections,
}

impl Default for Access {
    fn default() -> Access {
        Access {
            properties: BTreeMap::new(),
            lent: None,
            retry_for: RETRY_FOR,
            connections: Connections::default(),
        }
    }
}

impl From<&BTreeMap<String, String>> for Access {
    fn from(properties: &BTreeMap<String, String>) -> Access {
        Access {
            properties: properties.clone(),
            ..Access::default()
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("lent", &self.lent.is_some())
            .field("retry_for", &self.retry_for)
            .finish_non_exhaustive()
    }
}

/// Credentials as a catalog gives them for a table.
#[derive(Clone)]
pub struct Vended {
    credential: Arc<AwsCredential>,
    /// When they end; `None` if that wasn't said.
    ends: Option<SystemTime>,
}

impl Vended {
    /// Takes the credentials out of a table's properties; `None` if there are none.
    ///
    /// Source: `s3.session-token-expires-at-ms`, Iceberg 1.12 `S3FileIOProperties.java`.
    pub fn take(properties: &mut BTreeMap<String, String>) -> Option<Vended> {
        let [id, secret, token, ends] = CREDENTIALS.map(|key| properties.remove(key));
        let ends = ends.and_then(|text| text.parse().ok()).map(Duration::from_millis);
        let credential = AwsCredential {
            key_id: id?,
            secret_key: secret?,
            token,
        };
        Some(Vended {
            credential: Arc::new(credential),
            ends: ends.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)),
        })
    }
}

/// Asks the lender for new credentials; an error is text for the user.
pub type Renew = Arc<dyn Fn() -> BoxFuture<'static, Result<Vended, String>> + Send + Sync>;

/// Credentials that end, and are renewed before they do by whichever request finds them old. Clones share them.
#[derive(Clone)]
pub struct Lent(Arc<Shared>);

struct Shared {
    /// A lock and no channel: it guards a look-up, and no wait happens under it.
    held: Mutex<Held>,
    /// Held across a renewal, so that many uploads ask once.
    renewing: tokio::sync::Mutex<()>,
    renew: Renew,
}

struct Held {
    credential: Arc<AwsCredential>,
    ends: Option<SystemTime>,
    since: SystemTime,
    renew_at: SystemTime,
    /// They were refused: whatever comes next takes their place.
    doubted: bool,
}

impl Held {
    fn new(vended: Vended, now: SystemTime) -> Held {
        let lasts = vended.ends.map(|ends| ends.duration_since(now).unwrap_or_default());
        let fresh_for = lasts.map_or(RENEW_AFTER, |lasts| lasts - RENEW_AHEAD.min(lasts / 2));
        Held {
            credential: vended.credential,
            ends: vended.ends,
            since: now,
            renew_at: now + fresh_for,
            doubted: false,
        }
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").finish_non_exhaustive()
    }
}

impl Lent {
    /// Starts with the credentials that were just given.
    pub fn new(first: Vended, renew: Renew) -> Lent {
        Lent(Arc::new(Shared {
            held: Mutex::new(Held::new(first, SystemTime::now())),
            renewing: tokio::sync::Mutex::new(()),
            renew,
        }))
    }

    /// Takes in credentials that came along with another answer, unless those at hand last longer: answers overtake
    /// one another.
    pub fn put(&self, vended: Vended) {
        let mut held = self.held();
        if held.doubted || vended.ends.is_none() || vended.ends >= held.ends {
            *held = Held::new(vended, SystemTime::now());
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // A panic while it was replaced leaves the old or the new ones.
        self.0.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Has them renewed before the next use, whatever their time: they were refused, so they may have been taken back.
    pub(super) fn doubt(&self) {
        let mut held = self.held();
        let now = SystemTime::now();
        // Those that were renewed a moment ago are refused for another reason.
        if held.since.elapsed().is_ok_and(|age| age >= RENEW_AGAIN_AFTER) {
            held.renew_at = now;
            held.doubted = true;
        }
    }

    /// Returns the credentials that needn't be renewed yet.
    fn fresh(&self) -> Option<Arc<AwsCredential>> {
        let held = self.held();
        (SystemTime::now() < held.renew_at).then(|| held.credential.clone())
    }
}

#[async_trait]
impl CredentialProvider for Lent {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        if let Some(credential) = self.fresh() {
            return Ok(credential);
        }
        let _alone = self.0.renewing.lock().await;
        if let Some(credential) = self.fresh() {
            return Ok(credential);
        }
        match (self.0.renew)().await {
            Ok(vended) => {
                debug!("renewed the credentials that the catalog lends");
                let credential = vended.credential.clone();
                self.put(vended);
                Ok(credential)
            }
            Err(error) => {
                let now = SystemTime::now();
                let mut held = self.held();
                if held.ends.is_some_and(|ends| ends <= now) {
                    return Err(object_store::Error::Generic {
                        store: "S3",
                        source: format!("the catalog's credentials have ended and it gives no new ones: {error}")
                            .into(),
                    });
                }
                warn!(error, "the catalog's credentials can't be renewed yet; they still hold");
                held.renew_at = now + RENEW_AGAIN_AFTER;
                Ok(held.credential.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vended(id: &str, lasts: Option<Duration>) -> Vended {
        let mut properties = BTreeMap::from([
            ("s3.access-key-id".to_owned(), id.to_owned()),
            ("s3.secret-access-key".to_owned(), "s".to_owned()),
            ("s3.region".to_owned(), "r".to_owned()),
        ]);
        if let Some(lasts) = lasts {
            let ends = (SystemTime::now() + lasts).duration_since(SystemTime::UNIX_EPOCH);
            let ends = ends.expect("now is after 1970").as_millis().to_string();
            properties.insert("s3.session-token-expires-at-ms".to_owned(), ends);
        }
        let vended = Vended::take(&mut properties).expect("credentials are there");
        assert_eq!(properties.len(), 1, "only the credentials are taken out");
        vended
    }

    /// A lender that gives what is pushed to it, last first, and then nothing.
    fn lent(first: Vended, more: Vec<Vended>) -> Lent {
        let more = Arc::new(Mutex::new(more));
        Lent::new(
            first,
            Arc::new(move || {
                let next = more.lock().expect("no panic").pop();
                Box::pin(async move { next.ok_or_else(|| "nothing left".to_owned()) })
            }),
        )
    }

    async fn id(lent: &Lent) -> Option<String> {
        lent.get_credential().await.ok().map(|held| held.key_id.clone())
    }

    #[tokio::test]
    async fn lent_credentials_are_renewed_before_they_end() {
        let hour = Some(Duration::from_secs(3600));
        let ended = Some(Duration::ZERO);
        let fresh = lent(vended("a", hour), vec![vended("b", hour)]);
        assert_eq!(id(&fresh).await.as_deref(), Some("a"));
        let old = lent(vended("a", ended), vec![vended("b", hour)]);
        assert_eq!(id(&old).await.as_deref(), Some("b"));
        assert_eq!(id(&old).await.as_deref(), Some("b"), "asked for once");
        let lost = lent(vended("a", ended), vec![]);
        assert_eq!(id(&lost).await, None, "ended ones are of no use");
        lost.put(vended("c", None));
        assert_eq!(id(&lost).await.as_deref(), Some("c"));
    }

    #[tokio::test]
    async fn credentials_that_still_hold_are_used_while_the_lender_is_away() {
        let lent = lent(vended("a", Some(Duration::from_secs(3600))), vec![]);
        lent.held().renew_at = SystemTime::UNIX_EPOCH;
        assert_eq!(id(&lent).await.as_deref(), Some("a"));
        assert!(lent.held().renew_at > SystemTime::now(), "not asked for again at once");
    }

    #[tokio::test]
    async fn credentials_that_are_refused_are_renewed_whatever_their_time() {
        let hours = |hours: u64| Some(Duration::from_secs(3600 * hours));
        let lent = lent(vended("a", hours(2)), vec![vended("b", hours(1))]);
        lent.doubt();
        assert_eq!(id(&lent).await.as_deref(), Some("a"), "they are new");
        lent.held().since = SystemTime::UNIX_EPOCH;
        lent.doubt();
        assert_eq!(id(&lent).await.as_deref(), Some("b"));
        lent.doubt();
        assert_eq!(id(&lent).await.as_deref(), Some("b"), "they are new");
    }

    #[test]
    fn credentials_are_renewed_ahead_by_five_minutes_or_half_of_their_time() {
        let now = SystemTime::now();
        let check = |lasts: Option<u64>, expect: u64| {
            let mut vended = vended("a", None);
            vended.ends = lasts.map(|seconds| now + Duration::from_secs(seconds));
            let fresh_for = Held::new(vended, now).renew_at.duration_since(now);
            assert_eq!(fresh_for.expect("later"), Duration::from_secs(expect), "{lasts:?}");
        };
        check(Some(3600), 3300);
        check(Some(60), 30);
        check(Some(0), 0);
        check(None, 300);
    }
}
