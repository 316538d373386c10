//! The stores that serve tables' files, with the credentials that the catalog lends for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use iceberg::TableIdent;
use reqwest::Method;

use super::server::{Server, TableBody};
use crate::catalog::CatalogError;
use crate::error::chain;
use crate::store::{Access, Connections, Lent, Renew, Store, Vended};

/// The stores of tables, so that loads share connections, and a table's uploads the newest credentials. It has no
/// `Debug`: properties hold secrets.
pub(super) struct Stores {
    retry_for: Duration,
    connections: Connections,
    /// A lock and no channel: it guards a look-up, and no wait happens under it.
    open: Mutex<HashMap<TableIdent, Opened>>,
}

struct Opened {
    /// Without credentials that the catalog lent.
    properties: BTreeMap<String, String>,
    lent: Option<Lent>,
    store: Store,
}

impl Stores {
    /// - `access`: how the catalog is reached; its patience and its connections are the stores' too.
    pub fn new(access: &Access) -> Stores {
        Stores {
            retry_for: access.retry_for,
            connections: access.connections.clone(),
            open: Mutex::new(HashMap::new()),
        }
    }

    /// Returns the store of a table that was just loaded or created.
    ///
    /// Credentials in the answer win over the pipeline file's, as in Java. A store that is open already gets the new
    /// ones too, wherever it is in use.
    ///
    /// - `properties`: the catalog's settings.
    pub fn of(
        &self,
        server: &Arc<Server>,
        ident: &TableIdent,
        mut properties: BTreeMap<String, String>,
        body: &TableBody,
    ) -> Result<Store, CatalogError> {
        let location = body.metadata.location();
        let mut own = of_table(body);
        let vended = Vended::take(&mut own);
        properties.extend(own);

        let mut open = self.open.lock().unwrap_or_else(|poisoned| {
            // A panic while the map was changed leaves at worst a missing entry.
            poisoned.into_inner()
        });
        if let Some(known) = open.get(ident)
            && known.properties == properties
            && known.lent.is_some() == vended.is_some()
            && known.store.warehouse() == location.trim_end_matches('/')
        {
            if let (Some(lent), Some(vended)) = (&known.lent, vended) {
                lent.put(vended);
            }
            return Ok(known.store.clone());
        }
        let lent = vended.map(|first| Lent::new(first, renewal(server.clone(), ident.clone())));
        let access = Access {
            properties: properties.clone(),
            lent: lent.clone(),
            retry_for: self.retry_for,
            connections: self.connections.clone(),
        };
        let store = Store::open(location, access)?;
        let opened = Opened {
            properties,
            lent,
            store: store.clone(),
        };
        open.insert(ident.clone(), opened);
        Ok(store)
    }
}

/// What an answer says about its table's files: its `config`, and of its credentials those nearest to the location.
fn of_table(body: &TableBody) -> BTreeMap<String, String> {
    let mut properties = body.config.clone().unwrap_or_default();
    let nearest = body
        .storage_credentials
        .iter()
        .flatten()
        .filter(|credential| body.metadata.location().starts_with(&credential.prefix))
        .max_by_key(|credential| credential.prefix.len());
    properties.extend(nearest.map(|credential| credential.config.clone()).unwrap_or_default());
    properties
}

/// Loads the table again for its credentials.
///
/// The protocol's own endpoint for them isn't used: it came late, and servers that vend needn't have it.
fn renewal(server: Arc<Server>, ident: TableIdent) -> Renew {
    Arc::new(move || {
        let (server, ident) = (server.clone(), ident.clone());
        Box::pin(async move {
            let asked = async {
                let url = format!("{}?snapshots=refs", server.settings().await?.table_url(&ident));
                let answer = server.send(Method::GET, &url, None).await?;
                if answer.status != 200 {
                    return Err(answer.error());
                }
                let (_, body) = answer.table_body()?;
                Vended::take(&mut of_table(&body)).ok_or_else(|| {
                    CatalogError::Broken(format!(
                        "the catalog's answer for `{ident}` has no credentials any more"
                    ))
                })
            };
            asked.await.map_err(|error| chain(&error))
        })
    })
}
