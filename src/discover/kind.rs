//! What single values look like, and what most of a topic's do.

use std::collections::BTreeMap;

use super::schemas::{header, looks_framed, name_in};
use super::{Sample, SchemaLanguage, Schemas};
use crate::decode::messagepack;
use crate::schema::frame::{self, VALUE_HEADER};
use crate::schema::infer::Shape;

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It names a schema, in front or in a header, that the registry has.
    Framed(SchemaLanguage),
    /// It seems to name a schema, and nobody has that.
    Unregistered,
    /// Avro's single-object encoding.
    SingleObject,
    /// A JSON object.
    Json,
    /// A MessagePack map.
    MessagePack,
    /// UTF-8 without control characters but those of lines.
    Text,
    /// Anything else.
    Bytes,
}

/// In the order that decides where two are equally frequent.
const ALL: [Kind; 9] = [
    Kind::Framed(SchemaLanguage::Avro),
    Kind::Framed(SchemaLanguage::Protobuf),
    Kind::Framed(SchemaLanguage::Json),
    Kind::Unregistered,
    Kind::SingleObject,
    Kind::Json,
    Kind::MessagePack,
    Kind::Text,
    Kind::Bytes,
];

impl Kind {
    /// Looks at one value.
    ///
    /// - `header`: the header that names its schema, if it has one.
    pub fn of(value: &[u8], header: Option<&[u8]>, schemas: &Schemas) -> Kind {
        if let Some(text) = name_in(value, header).and_then(|name| schemas.text(&name)) {
            return Kind::Framed(text.language);
        }
        if header.is_some() {
            return Kind::Unregistered;
        }
        if frame::single_object(value).is_some() {
            return Kind::SingleObject;
        }
        if Shape::default().observe(value).is_ok() {
            return Kind::Json;
        }
        if messagepack::json(value).is_ok() {
            return Kind::MessagePack;
        }
        if looks_framed(value) {
            return Kind::Unregistered;
        }
        match is_text(value) {
            true => Kind::Text,
            false => Kind::Bytes,
        }
    }

    /// `format` for values that look like this.
    pub fn format(self) -> &'static str {
        match self {
            Kind::Framed(SchemaLanguage::Avro) | Kind::Unregistered | Kind::SingleObject => "avro",
            Kind::Framed(SchemaLanguage::Protobuf) => "protobuf",
            Kind::Framed(SchemaLanguage::Json) | Kind::Json => "json",
            Kind::MessagePack => "messagepack",
            Kind::Text => "string",
            Kind::Bytes => "bytes",
        }
    }

    /// Why values that look like this can't be read with what is known.
    pub fn obstacle(self, asked: bool) -> Option<String> {
        match self {
            Kind::Unregistered if asked => Some(
                "its values name schemas that the registry doesn't have: is it the one that the producers write to?".to_owned(),
            ),
            Kind::Unregistered => Some(
                "its values begin with the id of a schema: name the registry that has it, with `--registry`; the format may be \
                 protobuf or json, too"
                    .to_owned(),
            ),
            Kind::SingleObject => Some(
                "its values are Avro in the single-object encoding, which names a schema by its fingerprint: put that schema into \
                 a file, and name it below"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    fn words(self, many: bool) -> &'static str {
        let (one, several) = match self {
            Kind::Framed(SchemaLanguage::Avro) => ("Avro of the registry", "Avro of the registry"),
            Kind::Framed(SchemaLanguage::Protobuf) => ("Protobuf of the registry", "Protobuf of the registry"),
            Kind::Framed(SchemaLanguage::Json) => ("JSON of the registry", "JSON of the registry"),
            Kind::Unregistered => ("framed by a schema id", "framed by schema ids"),
            Kind::SingleObject => ("a single object of Avro", "single objects of Avro"),
            Kind::Json => ("a JSON object", "JSON objects"),
            Kind::MessagePack => ("a MessagePack map", "MessagePack maps"),
            Kind::Text => ("text", "text"),
            Kind::Bytes => ("bytes", "bytes"),
        };
        if many { several } else { one }
    }
}

/// Says whether bytes are what a person reads.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    let unreadable = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
    simdutf8::basic::from_utf8(bytes).is_ok_and(|text| !text.contains(unreadable))
}

/// How many values look like what; none that nobody looks like.
pub(super) type Kinds = Vec<(Kind, usize)>;

/// Counts what values look like.
pub(super) fn count(values: &[&Sample], schemas: &Schemas) -> Kinds {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for sample in values {
        let value = sample.value.as_deref().unwrap_or_default();
        let kind = Kind::of(value, header(&sample.headers, VALUE_HEADER), schemas);
        let place = ALL
            .iter()
            .position(|other| *other == kind)
            .expect("all kinds are listed");
        *counts.entry(place).or_default() += 1;
    }
    counts.into_iter().map(|(place, count)| (ALL[place], count)).collect()
}

/// What most values look like; `None` without values.
pub(super) fn winner(kinds: &Kinds) -> Option<Kind> {
    // The first of the most frequent.
    let (best, _) = kinds.iter().rev().max_by_key(|(_, count)| *count)?;
    // Read as JSON of the registry, JSON without a frame is read as well.
    let framed = Kind::Framed(SchemaLanguage::Json);
    let both = *best == Kind::Json && kinds.iter().any(|(kind, _)| *kind == framed);
    Some(if both { framed } else { *best })
}

/// Says what values look like.
pub(super) fn reason(kinds: &Kinds, winner: Kind) -> String {
    let total: usize = kinds.iter().map(|(_, count)| count).sum();
    let of_winner = kinds.iter().find(|(kind, _)| *kind == winner);
    let of_winner = of_winner.map_or(0, |(_, count)| *count);
    let others = kinds.iter().filter(|(kind, _)| *kind != winner);
    let others = others.map(|(kind, count)| {
        let verb = if *count == 1 { "is" } else { "are" };
        format!(", {count} {verb} {}", kind.words(*count > 1))
    });
    let others: String = others.collect();
    let verb = if of_winner == 1 { "is" } else { "are" };
    format!(
        "{} {verb} {}{others}",
        of(of_winner, total),
        winner.words(of_winner > 1)
    )
}

/// Says how many of the samples.
pub(super) fn of(count: usize, total: usize) -> String {
    match (count, total) {
        (1, 1) => "the one sample".to_owned(),
        (count, total) if count == total => format!("all {total} samples"),
        _ => format!("{count} of {total} samples"),
    }
}
