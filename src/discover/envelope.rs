//! Wrappings around rows: known by the names of their fields.

use iceberg::spec::{NestedField, Type};

use super::Guess;
use crate::schema::debezium::{Form, Shape};

/// What Debezium's unwrapping step adds to rows.
///
/// Source: Debezium 3, "New Record State Extraction": `add.fields` are prefixed with `__`, and `__deleted` marks deletions.
const UNWRAPPED: [&str; 2] = ["__op", "__deleted"];

pub(super) fn guess(fields: &[NestedField]) -> Option<Guess> {
    let has = |fields: &[&NestedField], name: &str| fields.iter().any(|field| field.name == name);
    let top: Vec<&NestedField> = fields.iter().collect();
    // The JSON converter writes the schema beside each value unless it is told not to.
    let payload = top
        .iter()
        .find(|field| field.name == "payload")
        .filter(|_| has(&top, "schema"));
    let inside: Vec<&NestedField> = match payload.map(|field| &*field.field_type) {
        Some(Type::Struct(inner)) => inner.fields().iter().map(|field| &**field).collect(),
        _ => Vec::new(),
    };
    for fields in [&top, &inside] {
        let image = ["before", "after"].into_iter().find(|name| has(fields, name));
        let image = image.filter(|_| has(fields, "source") && Shape::of_columns(fields).form(None) == Form::Event);
        if let Some(image) = image {
            let reason = format!("change events: they have `op`, `source` and `{image}`");
            return Some(Guess::new("debezium", reason));
        }
        let image = ["payload_after", "payload_before"]
            .into_iter()
            .find(|name| has(fields, name));
        if let Some(image) = image.filter(|_| has(fields, "event_id") && has(fields, "operation")) {
            let reason = format!("change events: they have `event_id`, `operation` and `{image}`");
            return Some(Guess::new("cdc", reason));
        }
    }
    let mark = UNWRAPPED.into_iter().find(|name| has(&top, name))?;
    Some(Guess::new(
        "debezium",
        format!("unwrapped change events: they have `{mark}`"),
    ))
}
