//! Whether values that one schema wrote can be read with another one.
//!
//! Rules over parsed schemas, a module for each language; text is never compared. A reason names the place in the value, what
//! either schema has there, and what to do.
//!
//! Source: the modes are those of Confluent Platform 8.0, "Schema Evolution and Compatibility".

mod avro;
mod json_schema;
mod protobuf;
#[cfg(test)]
mod tests;

use prost_reflect::FileDescriptor;

use self::json_schema::JsonSchema;
use super::avro::AvroSchema;
use super::{SchemaLanguage, SchemaText};

/// What versions of a schema must be to one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    None,
    /// The new schema reads what the last version wrote.
    Backward,
    /// The new schema reads what any version wrote.
    BackwardTransitive,
    /// The last version reads what the new schema writes.
    Forward,
    /// Any version reads what the new schema writes.
    ForwardTransitive,
    /// Backward and forward.
    Full,
    /// Backward and forward, with every version.
    FullTransitive,
}

impl Mode {
    /// All modes.
    pub const ALL: [Mode; 7] = [
        Mode::None,
        Mode::Backward,
        Mode::BackwardTransitive,
        Mode::Forward,
        Mode::ForwardTransitive,
        Mode::Full,
        Mode::FullTransitive,
    ];

    /// Returns the mode that a registry calls so, in letters of any case.
    pub fn named(name: &str) -> Option<Mode> {
        Mode::ALL
            .into_iter()
            .find(|mode| mode.name().eq_ignore_ascii_case(name))
    }

    /// Returns the mode's name in a registry's answers, in small letters.
    pub fn name(self) -> &'static str {
        match self {
            Mode::None => "none",
            Mode::Backward => "backward",
            Mode::BackwardTransitive => "backward_transitive",
            Mode::Forward => "forward",
            Mode::ForwardTransitive => "forward_transitive",
            Mode::Full => "full",
            Mode::FullTransitive => "full_transitive",
        }
    }

    /// Says whether every earlier version counts, not only the last one.
    pub fn transitive(self) -> bool {
        matches!(
            self,
            Mode::BackwardTransitive | Mode::ForwardTransitive | Mode::FullTransitive
        )
    }

    /// Returns which of two schemas must read the other's values.
    pub fn directions(self) -> &'static [Direction] {
        match self {
            Mode::None => &[],
            Mode::Backward | Mode::BackwardTransitive => &[Direction::Backward],
            Mode::Forward | Mode::ForwardTransitive => &[Direction::Forward],
            Mode::Full | Mode::FullTransitive => &[Direction::Backward, Direction::Forward],
        }
    }
}

/// Which of two schemas reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The new one what the old one wrote.
    Backward,
    /// The old one what the new one writes.
    Forward,
}

impl Direction {
    /// What it is called in a registry, in small letters.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Backward => "backward",
            Direction::Forward => "forward",
        }
    }
}

/// Why a schema can't read what another one wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Where in a value: a JSON path, `$.lines[*].price`; in Protobuf a message and its field, `shop.Line.price`.
    pub path: String,
    /// Which rule says so.
    pub rule: Rule,
    /// What the schema that reads has there.
    pub reader: String,
    /// What the schema that wrote has there.
    pub writer: String,
}

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Both are written in one language.
    Language,
    /// Values of the one type can be read as the other.
    Type,
    /// Avro: named types are called alike.
    Name,
    /// Avro: a field that was not written has a default.
    Default,
    /// Avro: the default is of the field's type.
    DefaultValue,
    /// Avro: each type of a union can be read.
    Union,
    /// Each symbol of an enum is known, or the reader's enum has a default.
    Symbols,
    /// Avro: `fixed` is of one size.
    Size,
    /// Avro: decimals have one scale, and the reader's precision is no smaller.
    Decimal,
    /// Avro: a logical type keeps its meaning.
    Meaning,
    /// Protobuf: the package stays.
    Package,
    /// Protobuf: messages stay.
    Message,
    /// A field, or a property, that must be there was written.
    Required,
    /// Protobuf: single fields stay single, repeated ones repeated.
    Repeated,
    /// Protobuf: fields that could be set together aren't put into one `oneof`.
    OneofJoined,
    /// Protobuf: fields of a `oneof` stay in it.
    OneofField,
    /// JSON Schema: a property whose values could be anything isn't given a type.
    Open,
    /// JSON Schema: properties and items that were allowed stay so.
    Closed,
    /// JSON Schema: bounds, lengths and counts aren't narrowed.
    Bound,
    /// JSON Schema: one of several alternatives takes the values.
    Alternatives,
    /// JSON Schema: what can't be compared stays as it is.
    Opaque,
}

impl Rule {
    /// The rule's name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Language => "language",
            Rule::Type => "type",
            Rule::Name => "name",
            Rule::Default => "default",
            Rule::DefaultValue => "defaultValue",
            Rule::Union => "union",
            Rule::Symbols => "symbols",
            Rule::Size => "size",
            Rule::Decimal => "decimal",
            Rule::Meaning => "meaning",
            Rule::Package => "package",
            Rule::Message => "message",
            Rule::Required => "required",
            Rule::Repeated => "repeated",
            Rule::OneofJoined => "oneofJoined",
            Rule::OneofField => "oneofField",
            Rule::Open => "open",
            Rule::Closed => "closed",
            Rule::Bound => "bound",
            Rule::Alternatives => "alternatives",
            Rule::Opaque => "opaque",
        }
    }

    /// What to do with the new schema, which alone can still be changed.
    pub fn advice(self, direction: Direction) -> &'static str {
        let backward = direction == Direction::Backward;
        match self {
            Rule::Language => "register it under a subject of its own",
            Rule::Type if backward => "keep the type or widen it, or add a field of another name",
            Rule::Type => "keep the type: readers with the old schema know no other",
            Rule::Name => "keep the name, or list the old one in `aliases`",
            Rule::Default if backward => "give the field a default",
            Rule::Default => "keep the field: readers with the old schema have no default for it",
            Rule::DefaultValue if backward => "write a default of the field's type",
            Rule::DefaultValue => "keep the field: the old schema's default for it is of no use",
            Rule::Union if backward => "keep this type in the union",
            Rule::Union => "leave this type out: readers with the old schema can't take it",
            Rule::Symbols if backward => {
                "keep the symbols; an Avro enum may have a `default` for those it doesn't know"
            }
            Rule::Symbols => "add no symbol: readers with the old schema don't know it",
            Rule::Size => "keep the size, or add a field of another name",
            Rule::Decimal if backward => "keep the scale, and make the precision no smaller",
            Rule::Decimal => "keep the precision and the scale",
            Rule::Meaning => "keep the logical type: the same number would mean something else",
            Rule::Package => "keep the package",
            Rule::Message if backward => "keep the message",
            Rule::Message => "add no message: readers with the old schema don't know it",
            Rule::Required => "make it optional where it is added, and keep it where it was",
            Rule::Repeated => "keep it as it was, or add a field of another number",
            Rule::OneofJoined => "leave at most one field that was there before in a new `oneof`",
            Rule::OneofField if backward => "keep the field in its `oneof`",
            Rule::OneofField => "add no field to the `oneof`: readers with the old schema don't know it",
            Rule::Open if backward => {
                "values of any type may be there: leave its type open, or use a name that `additionalProperties: false` kept free"
            }
            Rule::Open => "keep it: readers with the old schema ask for its type",
            Rule::Closed if backward => "keep it, or allow more with `additionalProperties`",
            Rule::Closed => "leave it out: readers with the old schema refuse it",
            Rule::Bound if backward => "keep the bound or widen it",
            Rule::Bound => "keep the bound: readers with the old schema ask for it",
            Rule::Alternatives if backward => "keep an alternative that takes these values",
            Rule::Alternatives => "write no values that the old schema's alternatives don't take",
            Rule::Opaque => "keep it as it was: what it takes can't be compared",
        }
    }
}

/// A misfit between a new schema and an old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which of them reads.
    pub direction: Direction,
    /// Why it can't.
    pub misfit: Misfit,
}

impl Broken {
    /// Returns what the new schema has there.
    pub fn new_side(&self) -> &str {
        match self.direction {
            Direction::Backward => &self.misfit.reader,
            Direction::Forward => &self.misfit.writer,
        }
    }

    /// Returns what the old schema has there.
    pub fn old_side(&self) -> &str {
        match self.direction {
            Direction::Backward => &self.misfit.writer,
            Direction::Forward => &self.misfit.reader,
        }
    }
}

/// A schema that others can be compared with.
#[derive(Debug)]
pub struct Comparable(Parsed);

#[derive(Debug)]
enum Parsed {
    Avro(AvroSchema),
    Protobuf(FileDescriptor),
    Json(JsonSchema),
}

impl Comparable {
    /// Understands a schema.
    ///
    /// # Errors
    /// What can't be understood.
    pub fn parse(text: &SchemaText) -> Result<Comparable, String> {
        Ok(Comparable(match text.language {
            SchemaLanguage::Avro => Parsed::Avro(super::avro::parse(text)?),
            SchemaLanguage::Protobuf => Parsed::Protobuf(super::protobuf::compile(text)?),
            SchemaLanguage::Json => Parsed::Json(JsonSchema::parse(text)?),
        }))
    }

    /// Returns what is wrong with the schema itself, although it can be understood; each with its place.
    pub fn faults(&self) -> Vec<String> {
        match &self.0 {
            Parsed::Avro(schema) => avro::faults(schema),
            Parsed::Protobuf(_) | Parsed::Json(_) => Vec::new(),
        }
    }

    /// Returns why this schema can't read all that another one wrote; nothing if it can.
    ///
    /// # Errors
    /// Why that can't be said: the schemas are too large, or a `$ref` leads nowhere.
    pub fn misfits(&self, writer: &Comparable) -> Result<Vec<Misfit>, String> {
        match (&self.0, &writer.0) {
            (Parsed::Avro(reader), Parsed::Avro(writer)) => Ok(avro::misfits(reader, writer)),
            (Parsed::Protobuf(reader), Parsed::Protobuf(writer)) => Ok(protobuf::misfits(reader, writer)),
            (Parsed::Json(reader), Parsed::Json(writer)) => json_schema::misfits(reader, writer),
            (reader, writer) => Ok(vec![Misfit {
                path: "$".to_owned(),
                rule: Rule::Language,
                reader: reader.language().to_owned(),
                writer: writer.language().to_owned(),
            }]),
        }
    }

    /// Returns why this schema isn't to an older one what a mode asks for; nothing if it is.
    ///
    /// # Errors
    /// As those of [`Comparable::misfits`].
    pub fn broken(&self, older: &Comparable, mode: Mode) -> Result<Vec<Broken>, String> {
        let mut all = Vec::new();
        for direction in mode.directions() {
            let misfits = match direction {
                Direction::Backward => self.misfits(older)?,
                Direction::Forward => older.misfits(self)?,
            };
            let direction = *direction;
            all.extend(misfits.into_iter().map(|misfit| Broken { direction, misfit }));
        }
        Ok(all)
    }
}

impl Parsed {
    fn language(&self) -> &'static str {
        match self {
            Parsed::Avro(_) => "Avro",
            Parsed::Protobuf(_) => "Protobuf",
            Parsed::Json(_) => "JSON Schema",
        }
    }
}
