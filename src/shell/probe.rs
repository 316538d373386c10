//! Asks brokers and catalog from time to time how they are, for those who ask us.

use std::sync::Arc;
use std::time::Duration;

use crate::error::chain;
use crate::observe::{Table, Trouble};
use crate::shell::open::World;

/// The wait between two questions: as often as Kubernetes asks a pod by default, and little for a catalog.
const PERIOD: Duration = Duration::from_secs(10);

/// How long the catalog may take for an answer. The question to the brokers has a limit of its own.
const CATALOG_WAIT: Duration = Duration::from_secs(5);

/// Asks until it is dropped.
pub(super) async fn probe(world: Arc<World>, table: Arc<Table>) {
    let source = &world.pipeline.source;
    // Ends with the pipeline, which drops it.
    loop {
        let catalog = tokio::time::timeout(CATALOG_WAIT, world.catalog.reach());
        let (ends, catalog) = tokio::join!(world.ends_now(), catalog);
        let brokers = match ends {
            Ok(ends) => {
                table.ends_at(ends);
                None
            }
            Err(error) => Some(format!(
                "Kafka at `{}` can't be asked about topic `{}`: {error}",
                source.brokers, source.topic
            )),
        };
        table.troubled(Trouble::Brokers, brokers);
        let shown = world.pipeline.catalog.shown();
        let catalog = match catalog {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("the catalog at `{shown}` can't be used: {}", chain(&error))),
            Err(_) => Some(format!(
                "the catalog at `{shown}` gave no answer for {} s",
                CATALOG_WAIT.as_secs()
            )),
        };
        table.troubled(Trouble::Catalog, catalog);
        tokio::time::sleep(PERIOD).await;
    }
}
