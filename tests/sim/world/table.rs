//! The table's metadata: real ones, and read by the program's own functions.

use std::collections::HashMap;

use aperio::dead_letters::Origin;
use aperio::table::TableView;
use aperio::table::admit::CommitPlan;
use aperio::table::ledger::{self, History, LEDGER_KEY, Ledger, LedgerProblem, stored};
use aperio::units::Millis;
use iceberg::TableCreation;
use iceberg::spec::{FormatVersion, MAIN_BRANCH, Operation, Summary, TableMetadata, TableMetadataBuilder};

use crate::columns;
use crate::store::DATA_PATH;
use crate::world::World;
use crate::world::truth::Truth;

pub(super) fn empty_table(origin: &Origin) -> TableMetadata {
    let name = &origin.source.topic;
    let creation = TableCreation::builder()
        .name(name.clone())
        .location(format!("s3://b/{name}"))
        .properties([("write.data.path".to_owned(), DATA_PATH.to_owned())])
        .schema(columns::first_schema())
        .format_version(FormatVersion::V2)
        .build();
    TableMetadataBuilder::from_table_creation(creation)
        .expect("a table")
        .assign_uuid(origin.table)
        .build()
        .expect("a table")
        .metadata
}

/// The same metadata as of `now`: the crate stamps some changes with the time of the machine.
pub(super) fn at_time(metadata: TableMetadata, now: Millis) -> TableMetadata {
    if metadata.last_updated_ms() <= now.0 {
        return metadata;
    }
    let mut value = serde_json::to_value(&metadata).expect("metadata are JSON");
    value["last-updated-ms"] = now.0.into();
    if let Some(log) = value["snapshot-log"].as_array_mut() {
        for entry in log {
            let at = entry["timestamp-ms"].as_i64().unwrap_or_default();
            entry["timestamp-ms"] = at.min(now.0).into();
        }
    }
    serde_json::from_value(value).expect("metadata are JSON")
}

impl World {
    /// A snapshot with a ledger of ours.
    pub(super) fn add_ours(&mut self, plan: &CommitPlan, truth: Truth) {
        self.add_ledger(&plan.ledger, !plan.windows.is_empty(), truth);
    }

    pub(super) fn add_ledger(&mut self, ledger: &Ledger, adds_rows: bool, truth: Truth) {
        let texts = stored::texts(
            ledger,
            &self.metadata,
            adds_rows,
            self.next_snapshot,
            self.form_of_ledger,
        );
        let summary = [(LEDGER_KEY.to_owned(), texts.summary)].into();
        self.add_snapshot(Operation::Append, summary, Some(texts.property), truth);
    }

    pub(super) fn add_snapshot(
        &mut self,
        operation: Operation,
        summary: HashMap<String, String>,
        property: Option<String>,
        truth: Truth,
    ) {
        let id = self.next_snapshot;
        self.next_snapshot += 1;
        let snapshot = iceberg::spec::Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(self.metadata.current_snapshot_id())
            .with_sequence_number(self.metadata.next_sequence_number())
            .with_timestamp_ms(self.now.0)
            .with_manifest_list(String::new())
            .with_summary(Summary {
                operation,
                additional_properties: summary,
            })
            .with_schema_id(self.metadata.current_schema_id())
            .build();
        self.truths.insert(id, truth);
        let mut builder = self.metadata.clone().into_builder(None);
        builder = builder
            .set_branch_snapshot(snapshot, MAIN_BRANCH)
            .expect("a snapshot fits");
        if let Some(property) = property {
            let properties = [(LEDGER_KEY.to_owned(), property)].into();
            builder = builder.set_properties(properties).expect("a property fits");
        }
        self.install(builder);
    }

    pub(super) fn install(&mut self, builder: TableMetadataBuilder) {
        let next = at_time(builder.build().expect("a table").metadata, self.now);
        self.past.push(std::mem::replace(&mut self.metadata, next));
        self.version += 1;
        self.view = self.read();
        self.dirty = true;
    }

    /// Reads the ledger as the program does: through older metadata files, newest first, where the snapshots don't tell.
    fn read(&self) -> Result<TableView, LedgerProblem> {
        let mut history = History::default();
        for older in self.past.iter().rev() {
            match ledger::view(&self.metadata, &history) {
                Err(problem) if problem.open_to_history() => history.add(older),
                answer => return answer,
            }
        }
        history.complete();
        ledger::view(&self.metadata, &history)
    }

    /// Snapshots from `main` back, as far as they are still there.
    pub(super) fn ancestry(&self) -> Vec<i64> {
        let mut found = Vec::new();
        let mut next = self.metadata.current_snapshot();
        while let Some(snapshot) = next {
            found.push(snapshot.snapshot_id());
            next = snapshot
                .parent_snapshot_id()
                .and_then(|id| self.metadata.snapshot_by_id(id));
        }
        found
    }
}
