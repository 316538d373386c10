//! The schemas that samples name, as far as a registry has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{SchemaText, Topic};
use crate::schema::frame::{self, KEY_HEADER, SchemaName, VALUE_HEADER};

/// Schemas that are asked for of one topic. Real ones have a handful; values that only look framed have one for each.
const ASKED_MAX: usize = 50;

/// The highest id that is believed without a registry's word. Registries count from 1, Confluent's in the cloud from 100,001.
const PLAUSIBLE_ID_MAX: i32 = 10_000_000;

/// What was found out about the schemas of one topic.
#[derive(Debug, Clone, Default)]
pub struct Schemas {
    /// A registry was asked.
    pub asked: bool,
    /// What became of each schema that was asked for.
    pub found: BTreeMap<SchemaName, Found>,
    /// The newest schema of the topic's subject; asked for where the topic has no values.
    pub newest: Option<Newest>,
}

/// The newest schema of a subject.
#[derive(Debug, Clone)]
pub struct Newest {
    /// Its id.
    pub id: i32,
    /// Its text.
    pub text: Arc<SchemaText>,
}

/// What became of asking for a schema.
#[derive(Debug, Clone)]
pub enum Found {
    /// The registry has it.
    Schema(Arc<SchemaText>),
    /// It doesn't, or what it has is of no use: why.
    Missing(String),
}

impl Schemas {
    /// Returns a schema that the registry has.
    pub(super) fn text(&self, name: &SchemaName) -> Option<&Arc<SchemaText>> {
        match self.found.get(name)? {
            Found::Schema(text) => Some(text),
            Found::Missing(_) => None,
        }
    }
}

/// The header of a name, the last one if there are several.
pub(super) fn header<'a>(headers: &'a [(String, Option<Vec<u8>>)], name: &str) -> Option<&'a [u8]> {
    let (_, value) = headers.iter().rev().find(|(key, _)| key == name)?;
    value.as_deref()
}

/// Names the schema that a value seems to be written with: the one in its header, else the one in front of it.
pub(super) fn name_in(value: &[u8], header: Option<&[u8]>) -> Option<SchemaName> {
    match header {
        Some(header) => frame::header_key(header, false).ok().map(|key| key.name),
        None => frame::id(value).filter(|id| *id > 0).map(SchemaName::Id),
    }
}

/// Says whether a value looks as if the id of a schema were in front, whoever has that.
pub(super) fn looks_framed(value: &[u8]) -> bool {
    // A number of eight bytes begins with a 0, too.
    value.len() != 8 && frame::id(value).is_some_and(|id| (1..=PLAUSIBLE_ID_MAX).contains(&id))
}

pub(super) fn named(topic: &Topic) -> Vec<SchemaName> {
    let mut counts: BTreeMap<SchemaName, usize> = BTreeMap::new();
    for sample in &topic.samples {
        let parts = [(&sample.value, VALUE_HEADER), (&sample.key, KEY_HEADER)];
        for (bytes, name) in parts {
            let bytes = bytes.as_deref();
            let named = bytes.and_then(|bytes| name_in(bytes, header(&sample.headers, name)));
            if let Some(named) = named {
                *counts.entry(named).or_default() += 1;
            }
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.into_iter().map(|(name, _)| name).take(ASKED_MAX).collect()
}
