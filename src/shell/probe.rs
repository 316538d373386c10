//! Asks brokers, catalog and registry from time to time how they are, for those who ask us.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::error::chain;
use crate::observe::{Table, Trouble};
use crate::shell::open::World;

/// The wait between two questions: as often as Kubernetes asks a pod by default, and little for a catalog.
const PERIOD: Duration = Duration::from_secs(10);

/// How long the catalog may take for an answer. The question to the brokers has a limit of its own.
const CATALOG_WAIT: Duration = Duration::from_secs(5);

/// Questions in a row without an answer from the brokers, from which on the log says so: a leader that moves is no news, a
/// partition that nobody leads is, and the consumer, which waits for one, tells of neither.
const SILENT_MAX: u32 = 3;

/// Asks until it is dropped.
pub(super) async fn probe(world: Arc<World>, table: Arc<Table>) {
    let source = &world.pipeline.source;
    let mut silent = 0;
    // Ends with the pipeline, which drops it.
    loop {
        let catalog = tokio::time::timeout(CATALOG_WAIT, world.catalog.reach());
        let (ends, catalog) = tokio::join!(world.ends_now(), catalog);
        let brokers = match ends {
            Ok(ends) => {
                if silent >= SILENT_MAX {
                    info!(table = %world.ident, "the brokers answer again");
                }
                silent = 0;
                table.ends_at(ends);
                None
            }
            Err(error) => {
                silent += 1;
                let told = format!(
                    "Kafka at `{}` can't be asked about topic `{}`: {error}",
                    source.brokers, source.topic
                );
                if silent == SILENT_MAX {
                    warn!(table = %world.ident, "{told}");
                }
                Some(told)
            }
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
        if let Some(registry) = &world.registry {
            let answer = registry.reach().await.err();
            table.troubled(Trouble::Registry, answer.map(|error| chain(&error)));
        }
        tokio::time::sleep(PERIOD).await;
    }
}
