//! The effects: what [`Action`](crate::run::Action)s do to foreign systems. No decision is taken here and nothing is
//! retried: what can't be known goes back to the run as such.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::Mutex;
use tracing::debug;
use uuid::Uuid;

use crate::catalog::stage::{Change, fresh_snapshot_id, stage};
use crate::catalog::{LoadedTable, SwapAnswer};
use crate::config::OnDecodeError;
use crate::dead_letters::{DeadLetter, DeadLetterTable};
use crate::error::{Exit, Failure, chain};
use crate::kafka::producer::{DeadLetterRecord, DeadLetterTopic};
use crate::kill_points::{self, KillPoint, Place};
use crate::offsets::Offsets;
use crate::run::Swapped;
use crate::shell::now;
use crate::shell::open::{World, kafka_failure};
use crate::store::Store;
use crate::sync_points::{SyncPoint, SyncPoints};
use crate::table::TableView;
use crate::table::admit::CommitPlan;
use crate::table::ledger::{self, LEDGER_KEY, Ledger};

/// Takes the view that a run decides on.
///
/// # Errors
/// Exit code 3: the table's history doesn't tell the offsets.
pub(super) fn view(table: &LoadedTable) -> Result<TableView, Failure> {
    ledger::view(&table.metadata).map_err(|problem| {
        Failure::new(Exit::Data, format!("the offsets of table `{}` can't be known", table.ident))
            .detail(problem.to_string())
            .hint("nothing was written. Roll the table back to a snapshot whose summary holds `aperio.ledger`, or reset its offsets")
    })
}

/// Writes the manifests of a plan on exactly the base it was made for, and swaps once.
pub(super) async fn swap(world: &World, base: LoadedTable, plan: CommitPlan) -> (Swapped, Option<LoadedTable>) {
    if base.metadata.uuid() != plan.base_uuid || base.metadata.current_snapshot_id() != plan.base_snapshot {
        return (Swapped::Conflict, None);
    }
    let snapshot_id = fresh_snapshot_id(&base.metadata);
    let mut summary = BTreeMap::from([(LEDGER_KEY.to_owned(), plan.ledger.to_text())]);
    if let Some(last) = plan.windows.last() {
        summary.insert("aperio.window".to_owned(), last.to_string());
    }
    let property = plan.ledger.to_property_text(snapshot_id, base.metadata.uuid());
    let change = Change {
        added_data: plan.files.into_iter().map(|file| (file.spec_id, file.file)).collect(),
        added_deletes: Vec::new(),
        removed_data: Default::default(),
        removed_deletes: Default::default(),
        summary,
        properties: HashMap::from([(LEDGER_KEY.to_owned(), property)]),
        snapshot_id,
        commit_uuid: Uuid::new_v4(),
        now_ms: now().0,
    };
    let staged = match stage(&base, change).await {
        Ok(staged) => staged,
        // Nothing was sent to the catalog; the run may try again as after any conflict.
        Err(error) if error.retryable() => {
            debug!(error = chain(&error), "staging failed");
            return (Swapped::Unknown(chain(&error)), None);
        }
        Err(error) => return (Swapped::Rejected(chain(&error)), None),
    };
    kill_points::pass(KillPoint::Inside(Place::ManifestsStaged));
    match world.catalog.swap(&base, staged.requirements, staged.updates).await {
        SwapAnswer::Committed(table) => match view(&table) {
            Ok(view) => (Swapped::Committed(view), Some(table)),
            Err(failure) => (Swapped::Rejected(failure.to_string()), None),
        },
        SwapAnswer::Conflict => {
            for file in staged.files {
                // Best effort: what stays is an orphan that no snapshot names.
                let _ = base.store.delete(&file).await;
            }
            (Swapped::Conflict, None)
        }
        SwapAnswer::Unknown(error) => (Swapped::Unknown(chain(&error)), None),
        SwapAnswer::Rejected(error) if error.retryable() => (Swapped::Unknown(chain(&error)), None),
        SwapAnswer::Rejected(error) => (Swapped::Rejected(chain(&error)), None),
    }
}

/// Brings the sync points of one source to the ledger; writes nothing where they agree.
pub(super) async fn publish(points: &SyncPoints, source_name: &str, ledger: &Ledger) -> Result<(), String> {
    let held = points.read().await.map_err(|error| chain(&error))?;
    let held: BTreeMap<_, _> = held
        .into_iter()
        .filter(|row| row.source_name == source_name)
        .map(|row| (row.sync_key, row.sync_value))
        .collect();
    let wanted: BTreeMap<_, _> = ledger
        .offsets
        .iter()
        .map(|(partition, offset)| (format!("partition:{partition}"), offset.to_string()))
        .collect();
    if held == wanted {
        return Ok(());
    }
    let committed_at_us = now().0 * 1_000;
    let rows = wanted
        .into_iter()
        .map(|(sync_key, sync_value)| SyncPoint {
            source_name: source_name.to_owned(),
            sync_key,
            sync_value,
            committed_at_us,
        })
        .collect();
    points.replace(source_name, rows).await.map_err(|error| chain(&error))
}

/// Where rejects go, by `errors.onDecodeError`.
pub(super) struct Aside {
    topic: Option<DeadLetterTopic>,
    // A mutex, since the table's known keys are shared by preparations, which follow one another.
    table: Option<Mutex<DeadLetterTable>>,
}

impl Aside {
    pub fn open(world: &World, store: &Store) -> Result<Aside, Failure> {
        let OnDecodeError::DeadLetter { topic, table } = &world.pipeline.errors.on_decode_error else {
            return Ok(Aside {
                topic: None,
                table: None,
            });
        };
        let source = &world.pipeline.source;
        let topic = match topic {
            None => None,
            Some(topic) => Some(
                DeadLetterTopic::new(&source.brokers, topic, &source.client)
                    .map_err(|error| kafka_failure(&error, topic))?,
            ),
        };
        let table = table.as_ref().map(|name| {
            let ident = iceberg::TableIdent::new(world.ident.namespace().clone(), name.clone());
            Mutex::new(DeadLetterTable::new(world.catalog.clone(), store.clone(), ident))
        });
        Ok(Aside { topic, table })
    }

    /// Stores letters; in the table each once, in the topic at least once.
    pub async fn store(&self, ledger: &Offsets, letters: &[DeadLetter]) -> Result<(), String> {
        if letters.is_empty() {
            return Ok(());
        }
        if let Some(table) = &self.table {
            table
                .lock()
                .await
                .store(ledger, letters)
                .await
                .map_err(|error| chain(&error))?;
        }
        kill_points::pass(KillPoint::Inside(Place::LettersStored));
        if let Some(topic) = &self.topic {
            let records: Vec<_> = letters.iter().map(record).collect();
            topic.send(&records).await.map_err(|error| chain(&error))?;
        }
        Ok(())
    }
}

fn record(letter: &DeadLetter) -> DeadLetterRecord {
    let header = |name: &str, value: String| (format!("aperio.{name}"), value);
    DeadLetterRecord {
        key: letter.key.clone(),
        value: letter.value.clone(),
        headers: letter.headers.clone(),
        error_headers: vec![
            header("topic", letter.topic.clone()),
            header("partition", letter.partition.to_string()),
            header("offset", letter.offset.to_string()),
            header(
                "timestamp",
                letter.timestamp_ms.map(|ms| ms.to_string()).unwrap_or_default(),
            ),
            header("stage", letter.stage.to_owned()),
            header("error", letter.error.clone()),
        ],
    }
}

/// Deletes files that no snapshot can name any more; what stays is left to orphan cleanup.
pub(super) async fn delete(store: Arc<Store>, files: Vec<String>) {
    for file in files {
        if let Err(error) = store.delete(&file).await {
            debug!(%file, error = chain(&error), "an abandoned file stays");
        }
        kill_points::pass(KillPoint::Inside(Place::FileDeleted));
    }
}
