//! What fields of samples disagree in, which a table must settle one way.

use std::collections::{BTreeMap, BTreeSet};

use iceberg::spec::NestedField;

use super::columns::json_of;
use super::kind::Kind;
use super::{REMARKS_MAX, Sample};
use crate::schema::infer::Shape;

/// Places in the payload that are followed: an object of ids has one for each.
const PLACES_MAX: usize = 10_000;

/// What was seen at one place of the payload.
#[derive(Debug, Default)]
struct Seen {
    spellings: BTreeSet<String>,
    kinds: BTreeMap<&'static str, usize>,
}

/// By path, in lower case.
type Places = BTreeMap<String, Seen>;

/// Tells of fields whose values are of several kinds, and of those that differ in the case of their letters only.
pub(super) fn remarks(kind: Kind, values: &[&Sample]) -> Vec<String> {
    let mut places = Places::new();
    for sample in values {
        let mut shape = Shape::default();
        if json_of(kind, sample).is_some_and(|json| shape.observe(&json).is_ok()) {
            collect("", &shape, &mut places);
        }
    }
    let twins = places.values().filter(|seen| seen.spellings.len() > 1);
    let twins = twins.map(|seen| twin(&seen.spellings));
    let mixed = places.values().filter(|seen| seen.kinds.len() > 1).map(|seen| {
        let kinds = seen.kinds.iter().map(|(kind, count)| format!("{kind} in {count}"));
        let kinds: Vec<String> = kinds.collect();
        let name = seen.spellings.first().map_or("", String::as_str);
        format!(
            "`{name}` is {} samples: its column is text, the JSON of each value",
            kinds.join(" and ")
        )
    });
    twins.chain(mixed).take(REMARKS_MAX).collect()
}

/// Tells of columns that differ in the case of their letters only.
pub(super) fn twins(fields: &[NestedField]) -> Vec<String> {
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for field in fields {
        names
            .entry(field.name.to_lowercase())
            .or_default()
            .insert(field.name.clone());
    }
    let twins = names.values().filter(|spellings| spellings.len() > 1);
    twins.map(twin).take(REMARKS_MAX).collect()
}

fn twin(spellings: &BTreeSet<String>) -> String {
    let all: Vec<String> = spellings.iter().map(|name| format!("`{name}`")).collect();
    format!("{} differ in case only: they are one column", all.join(" and "))
}

// Recursion ends: a shape is nested no deeper than `infer::DEPTH_MAX`.
fn collect(path: &str, shape: &Shape, into: &mut Places) {
    match shape {
        Shape::Object(fields) => {
            for (name, shape) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                see(&path, shape, into);
            }
        }
        Shape::List(item) => see(&format!("{path}[]"), item, into),
        _ => {}
    }
}

fn see(path: &str, shape: &Shape, into: &mut Places) {
    let kind = match shape {
        Shape::Null => return,
        Shape::Bool => "true or false",
        Shape::Long | Shape::Double | Shape::Wider(_) => "a number",
        Shape::String => "text",
        Shape::Json => "of several types",
        Shape::Object(_) => "an object",
        Shape::List(_) => "a list",
    };
    let lower = path.to_lowercase();
    if into.len() >= PLACES_MAX && !into.contains_key(&lower) {
        return;
    }
    let seen = into.entry(lower).or_default();
    seen.spellings.insert(path.to_owned());
    *seen.kinds.entry(kind).or_default() += 1;
    collect(path, shape, into);
}
