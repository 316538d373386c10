//! What an answer must show before a swap counts as made.
//!
//! A catalog's yes is its own word and passes through others: a redirect that was followed, a page in a cache, a portal that
//! asks for a login, a server behind the same address that knows an older table. What none of them can make up is the snapshot
//! id that this attempt drew, so that is looked for, and all else that the swap asked for.

use std::collections::HashMap;

use iceberg::TableUpdate;
use iceberg::spec::{MAIN_BRANCH, Schema, TableMetadata};
use uuid::Uuid;

/// Says whether metadata that answers a swap has all of its updates in it.
///
/// A table that others moved on since shows our snapshot among main's ancestors, and may show our columns or properties no
/// more; then this is no, and whoever asks looks at the table, which tells.
///
/// - `uuid`: the table's, as it was loaded.
///
/// # Errors
/// What is missing, as a fragment: for people.
pub(super) fn shows(uuid: Uuid, updates: &[TableUpdate], answer: &TableMetadata) -> Result<(), String> {
    if answer.uuid() != uuid {
        return Err(format!("is of table {}, not of {uuid}", answer.uuid()));
    }
    let mut added = Added::default();
    for update in updates {
        match update {
            TableUpdate::AddSnapshot { snapshot } => added.snapshots.push(snapshot.snapshot_id()),
            TableUpdate::AddSchema { schema } => added.schema = Some(schema),
            _ => {}
        }
    }
    updates.iter().try_for_each(|update| one(update, &added, answer))
}

/// What a swap adds, which its other updates then speak of.
#[derive(Default)]
struct Added<'a> {
    snapshots: Vec<i64>,
    /// The last one.
    schema: Option<&'a Schema>,
}

fn one(update: &TableUpdate, added: &Added<'_>, answer: &TableMetadata) -> Result<(), String> {
    let held = |holds: bool, missing: &dyn Fn() -> String| if holds { Ok(()) } else { Err(missing()) };
    match update {
        TableUpdate::AddSnapshot { snapshot } => {
            let id = snapshot.snapshot_id();
            held(answer.snapshot_by_id(id).is_some(), &|| format!("has no snapshot {id}"))
        }
        TableUpdate::SetSnapshotRef { ref_name, reference } => {
            let id = reference.snapshot_id;
            let at = answer.snapshot_for_ref(ref_name).map(|snapshot| snapshot.snapshot_id());
            // Of a snapshot that this swap adds, those after it tell as well. One that was there before may have any after it.
            let beyond = ref_name == MAIN_BRANCH && added.snapshots.contains(&id) && is_of_main(answer, id);
            held(at == Some(id) || beyond, &|| match at {
                Some(at) => format!("has `{ref_name}` at snapshot {at}, and {id} isn't behind it"),
                None => format!("has no `{ref_name}`, which was to be at snapshot {id}"),
            })
        }
        TableUpdate::AddSchema { schema } => {
            let there = answer.schemas_iter().any(|other| alike(other, schema));
            let (has, needs) = (answer.last_column_id(), schema.highest_field_id());
            held(there, &|| "has no schema with the new columns".to_owned())?;
            held(has >= needs, &|| {
                format!("counts columns up to {has}, the new ones go up to {needs}")
            })
        }
        TableUpdate::SetCurrentSchema { schema_id } => {
            let current = answer.current_schema();
            let right = match (schema_id, added.schema) {
                (-1, Some(schema)) => alike(current, schema),
                (-1, None) => false,
                (id, _) => current.schema_id() == *id,
            };
            held(right, &|| {
                format!("has other columns, those of schema {}", current.schema_id())
            })
        }
        TableUpdate::SetProperties { updates } => has_properties(updates, answer),
        TableUpdate::RemoveProperties { removals } => {
            let left = removals.iter().find(|key| answer.properties().contains_key(*key));
            left.map_or(Ok(()), |key| Err(format!("still has the property `{key}`")))
        }
        TableUpdate::RemoveSnapshots { snapshot_ids } => {
            let left = snapshot_ids.iter().find(|id| answer.snapshot_by_id(**id).is_some());
            left.map_or(Ok(()), |id| Err(format!("still has snapshot {id}")))
        }
        // Nobody here sends another: how it would show is for whoever does.
        _ => Err("can't show a change of this kind".to_owned()),
    }
}

fn has_properties(wanted: &HashMap<String, String>, answer: &TableMetadata) -> Result<(), String> {
    let missing = wanted
        .iter()
        .find(|(key, value)| answer.properties().get(*key) != Some(value));
    missing.map_or(Ok(()), |(key, _)| {
        Err(format!("doesn't have the property `{key}` as it was set"))
    })
}

/// The same columns under the same ids; a catalog gives schemas numbers of its own.
fn alike(one: &Schema, other: &Schema) -> bool {
    one.as_struct() == other.as_struct()
        && one.identifier_field_ids().collect::<Vec<_>>() == other.identifier_field_ids().collect::<Vec<_>>()
}

/// Says whether a snapshot is main's, or came before it.
fn is_of_main(metadata: &TableMetadata, id: i64) -> bool {
    let mut at = metadata.current_snapshot();
    // As many steps as there are snapshots: parents that lead in a circle are possible in what somebody made up.
    for _ in 0..metadata.snapshots().len() {
        match at {
            Some(snapshot) if snapshot.snapshot_id() == id => return true,
            Some(snapshot) => at = snapshot.parent_snapshot_id().and_then(|id| metadata.snapshot_by_id(id)),
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use iceberg::spec::{
        FormatVersion, NestedField, Operation, PrimitiveType, Snapshot, SnapshotReference, SnapshotRetention, Summary,
        Type, UnboundPartitionSpec,
    };
    use iceberg::{TableCreation, TableRequirement};

    use super::super::rebuilt;
    use super::*;

    fn columns(names: &[&str]) -> Schema {
        let fields = names.iter().zip(1..);
        let field = |(name, id): (&&str, i32)| NestedField::optional(id, *name, Type::Primitive(PrimitiveType::Long));
        Schema::builder()
            .with_fields(fields.map(|field_of| field(field_of).into()))
            .build()
            .expect("a schema")
    }

    fn table() -> TableMetadata {
        let creation = TableCreation::builder()
            .name("t".to_owned())
            .location("/w/t".to_owned())
            .schema(columns(&["a"]))
            .partition_spec(UnboundPartitionSpec::default())
            .format_version(FormatVersion::V2)
            .build();
        let built =
            iceberg::spec::TableMetadataBuilder::from_table_creation(creation).and_then(|builder| builder.build());
        built.expect("a table").metadata
    }

    fn after(base: &TableMetadata, updates: &[TableUpdate]) -> TableMetadata {
        let built = rebuilt(base, None, Vec::<TableRequirement>::new(), updates.to_vec());
        built.expect("updates that fit").expect("no requirement").metadata
    }

    fn set_main(id: i64) -> TableUpdate {
        let retention = SnapshotRetention::Branch {
            min_snapshots_to_keep: None,
            max_snapshot_age_ms: None,
            max_ref_age_ms: None,
        };
        TableUpdate::SetSnapshotRef {
            ref_name: MAIN_BRANCH.to_owned(),
            reference: SnapshotReference::new(id, retention),
        }
    }

    fn set(key: &str, value: &str) -> TableUpdate {
        TableUpdate::SetProperties {
            updates: HashMap::from([(key.to_owned(), value.to_owned())]),
        }
    }

    /// What a window's commit sends.
    fn commit(base: &TableMetadata, id: i64) -> Vec<TableUpdate> {
        let snapshot = Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(base.current_snapshot_id())
            .with_sequence_number(base.next_sequence_number())
            .with_timestamp_ms(base.last_updated_ms())
            .with_manifest_list(format!("/w/t/metadata/snap-{id}.avro"))
            .with_summary(Summary {
                operation: Operation::Append,
                additional_properties: HashMap::new(),
            })
            .build();
        vec![
            TableUpdate::AddSnapshot { snapshot },
            set_main(id),
            set("k", &id.to_string()),
        ]
    }

    #[track_caller]
    fn check(base: &TableMetadata, updates: &[TableUpdate], answer: &TableMetadata, missing: Option<&str>) {
        let shown = shows(base.uuid(), updates, answer);
        match (missing, &shown) {
            (None, Ok(())) => {}
            (Some(missing), Err(told)) if told.contains(missing) => {}
            _ => panic!("{missing:?}: {shown:?}"),
        }
    }

    #[test]
    fn a_commit_is_shown_by_its_snapshot_only() {
        let base = after(&table(), &commit(&table(), 1));
        let base = after(&base, &[]);
        let ours = commit(&base, 2);
        let committed = after(&base, &ours);
        check(&base, &ours, &committed, None);
        // The table as it was: what a redirect that is followed answers.
        check(&base, &ours, &base, Some("has no snapshot 2"));
        // That of somebody else, who came first.
        check(
            &base,
            &ours,
            &after(&base, &commit(&base, 3)),
            Some("has no snapshot 2"),
        );
        // Others came after it: its property is theirs by now, so the table is looked at.
        let later = after(&committed, &commit(&committed, 4));
        check(&base, &ours, &later, Some("property `k`"));
        check(&base, &ours[..2], &later, None);
        // It is there, and main isn't at it: undone, or on another branch.
        let undone = after(&committed, &[set_main(1)]);
        check(
            &base,
            &ours,
            &undone,
            Some("has `main` at snapshot 1, and 2 isn't behind it"),
        );
        let elsewhere = after(&base, &ours[..1]);
        check(&base, &ours, &elsewhere, Some("`main`"));
        check(&base, &ours, &table(), Some("is of table"));
    }

    #[test]
    fn main_is_taken_back_only_where_it_is_there() {
        let first = after(&table(), &commit(&table(), 1));
        let second = after(&first, &commit(&first, 2));
        let back = [set_main(1)];
        check(&second, &back, &after(&second, &back), None);
        check(&second, &back, &second, Some("has `main` at snapshot 2"));
        let gone = [TableUpdate::RemoveSnapshots { snapshot_ids: vec![1] }];
        check(&second, &gone, &second, Some("still has snapshot 1"));
        check(&second, &gone, &after(&second, &gone), None);
    }

    #[test]
    fn columns_are_shown_by_their_names_types_and_ids() {
        let base = table();
        let change = |names: &[&str]| {
            let schema = columns(names);
            vec![
                TableUpdate::AddSchema { schema },
                TableUpdate::SetCurrentSchema { schema_id: -1 },
            ]
        };
        let ours = change(&["a", "b"]);
        let changed = after(&base, &ours);
        check(&base, &ours, &changed, None);
        check(&base, &ours, &base, Some("has no schema with the new columns"));
        check(&base, &ours, &after(&base, &change(&["a", "c"])), Some("has no schema"));
        check(&base, &ours, &after(&base, &ours[..1]), Some("has other columns"));
        check(
            &base,
            &ours,
            &after(&changed, &change(&["a", "b", "c"])),
            Some("has other columns"),
        );
        // Nobody says what -1 is.
        check(&base, &ours[1..], &base, Some("has other columns"));
        let by_id = [TableUpdate::SetCurrentSchema { schema_id: 0 }];
        check(&base, &by_id, &base, None);
        check(&base, &by_id, &changed, Some("those of schema 1"));
    }

    #[test]
    fn properties_are_shown_as_they_were_set() {
        let base = after(&table(), &[set("k", "1")]);
        check(&base, &[set("k", "1")], &base, None);
        check(&base, &[set("k", "2")], &base, Some("property `k`"));
        let removal = |key: &str| {
            [TableUpdate::RemoveProperties {
                removals: vec![key.to_owned()],
            }]
        };
        check(&base, &removal("k"), &base, Some("still has the property `k`"));
        check(&base, &removal("j"), &base, None);
        let location = TableUpdate::SetLocation {
            location: "/w/t".to_owned(),
        };
        check(&base, &[location], &base, Some("can't show"));
    }
}
