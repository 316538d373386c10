//! Protobuf schemas: parsed, and as columns of a table.
//!
//! `.proto` files are compiled by `protox`, which brings `google/protobuf/*.proto`; what comes of it is kept here in a form of
//! our own, small and without locks, that plans are compiled from.
//!
//! Source: protobuf.dev, "Language Guide" of proto2 and proto3, "Encoding", "ProtoJSON Format", 2025.

mod columns;
mod imports;
mod parse;

pub use self::columns::{DEPTH_MAX, DURATION_PRECISION, DURATION_SCALE, VALUE, as_text, natural, renames_between};
pub(in crate::schema) use self::parse::compile;
pub use self::parse::{imported_paths, parse};

use super::debezium::{self, Is};

/// Which message of a schema values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// The one at these places, one for each level from the file down.
    Indexes(&'a [i32]),
    /// The one of this full name; the first of the file where there is no name.
    Named(Option<&'a str>),
}

/// One parsed schema: the message that values are, and all that it refers to, in lists so that they can refer to each other.
#[derive(Debug, Clone, PartialEq)]
pub struct ProtoSchema {
    /// The message that values are.
    pub root: usize,
    /// The messages, without those that are entries of maps.
    pub messages: Vec<MessageType>,
    /// The enums.
    pub enums: Vec<EnumType>,
    /// Values are written without the tag and the length of the one field that `root` has, see [`ProtoSchema::inside`].
    pub bare: bool,
    /// What is around each value, see [`ProtoSchema::within`].
    pub around: Option<Around>,
}

/// The envelope that values are inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Around {
    /// Its message.
    pub root: usize,
    /// The row in it is no message: its text, or that of its JSON, is the row's JSON.
    pub text: bool,
}

/// A message.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageType {
    /// Its full name, with its package.
    pub name: String,
    /// Its fields, in the order of the file.
    pub fields: Vec<Field>,
    /// What it stands for, where that is more than its fields.
    pub known: Option<Known>,
    /// Its fields' numbers, ascending, and the places of the fields.
    by_number: Vec<(u32, usize)>,
}

/// A message that stands for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// `google.protobuf.Timestamp`.
    Timestamp,
    /// `google.protobuf.Duration`.
    Duration,
    /// `google.protobuf.DoubleValue` and its like: a scalar that may be null.
    Wrapper,
    /// `google.protobuf.Struct`: a JSON object.
    Struct,
    /// `google.protobuf.ListValue`: a JSON array.
    ListValue,
    /// `google.protobuf.Value`: any JSON.
    Value,
    /// `google.protobuf.Any`.
    Any,
    /// `google.protobuf.FieldMask`.
    FieldMask,
    /// `google.type.Date`.
    Date,
    /// `google.type.TimeOfDay`.
    TimeOfDay,
    /// `google.type.Decimal`: a number's text.
    Decimal,
    /// `confluent.type.Decimal`: a number's unscaled value, big-endian two's complement, and its scale.
    UnscaledDecimal,
}

/// A field of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name, as the file has it.
    pub name: String,
    /// Its number.
    pub number: u32,
    /// Its values.
    pub shape: Shape,
    /// The `oneof` it is in, counted within its message; those that the compiler makes for `optional` aren't.
    pub oneof: Option<usize>,
}

/// How many values a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One.
    Single {
        /// Of this kind.
        of: Kind,
        /// It may be absent; else a record that lacks it has the kind's zero.
        presence: bool,
    },
    /// Any number, in order.
    Repeated(Kind),
    /// Any number, each by its key.
    Map {
        /// Of the keys.
        key: Kind,
        /// Of the values.
        value: Kind,
    },
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `bool`.
    Bool,
    /// An integer.
    Number(Number),
    /// `float`.
    Float,
    /// `double`.
    Double,
    /// `string`.
    String,
    /// `bytes`.
    Bytes,
    /// The enum at this index.
    Enum(usize),
    /// The message at this index; a group is one too.
    Message(usize),
}

/// The kinds of integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are called as the language calls them")]
pub enum Number {
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
}

/// An enum.
#[derive(Debug, Clone, PartialEq)]
pub struct EnumType {
    /// Its full name, with its package.
    pub name: String,
    /// Numbers ascending, each once, and the first name of each.
    pub values: Vec<(i32, String)>,
}

impl ProtoSchema {
    /// The number of the field that [`ProtoSchema::inside`] makes.
    pub const INSIDE: u32 = 1;

    /// The fields of values as they tell an event of Debezium's from a row.
    pub fn shape(&self) -> debezium::Shape {
        let mut shape = debezium::Shape::default();
        for field in &self.messages[self.root].fields {
            let is = match (field.shape, field.shape.message()) {
                (_, Some(index)) if self.messages[index].known.is_none() => {
                    Is::fields(self.messages[index].fields.iter().map(|member| member.name.as_str()))
                }
                (Shape::Single { of, .. }, _) => match of {
                    Kind::String | Kind::Enum(_) => Is::Text,
                    Kind::Number(_) => Is::Number,
                    _ => Is::Else,
                },
                _ => Is::Else,
            };
            shape.see(&field.name, is);
        }
        shape
    }

    /// Returns the schema of the rows inside events of this schema; the same where it has no such fields.
    ///
    /// - `operation`, `after`: the fields that say what was done, and hold the row as it is then.
    #[must_use]
    pub fn within(mut self, operation: &str, after: &str) -> Self {
        let fields = &self.messages[self.root].fields;
        let field = |name: &str| fields.iter().find(|field| field.name == name);
        let (Some(_), Some(after)) = (field(operation), field(after)) else {
            return self;
        };
        let row = after
            .shape
            .message()
            .filter(|index| self.messages[*index].known.is_none());
        self.around = Some(Around {
            root: self.root,
            text: row.is_none(),
        });
        self.root = row.unwrap_or(self.root);
        self
    }

    /// Returns the schema of messages with one field, `name`, whose values are those of this schema.
    #[must_use]
    pub fn inside(mut self, name: &str) -> Self {
        let field = Field {
            name: name.to_owned(),
            number: ProtoSchema::INSIDE,
            shape: Shape::Single {
                of: Kind::Message(self.root),
                presence: true,
            },
            oneof: None,
        };
        let outer = MessageType::new(self.name().to_owned(), vec![field]);
        self.root = self.messages.len();
        self.messages.push(outer);
        self.bare = true;
        self
    }

    /// Returns the full name of the message that values are.
    pub fn name(&self) -> &str {
        &self.messages[self.root].name
    }

    /// Returns what a kind is called to a person.
    pub fn kind_name(&self, of: Kind) -> &str {
        match of {
            Kind::Bool => "bool",
            Kind::Number(number) => number.name(),
            Kind::Float => "float",
            Kind::Double => "double",
            Kind::String => "string",
            Kind::Bytes => "bytes",
            Kind::Enum(index) => &self.enums[index].name,
            Kind::Message(index) => &self.messages[index].name,
        }
    }

    /// Returns what a field's values are called to a person.
    pub fn shape_name(&self, of: Shape) -> String {
        let named = |kind| {
            let word = match kind {
                Kind::Enum(_) => "enum ",
                Kind::Message(index) if self.messages[index].known.is_none() => "message ",
                _ => "",
            };
            format!("{word}{}", self.kind_name(kind))
        };
        match of {
            Shape::Single { of, .. } => named(of),
            Shape::Repeated(of) => format!("repeated {}", named(of)),
            Shape::Map { key, value } => format!("map<{}, {}>", named(key), named(value)),
        }
    }
}

impl MessageType {
    /// Makes a message.
    fn new(name: String, fields: Vec<Field>) -> Self {
        let mut by_number: Vec<_> = fields
            .iter()
            .enumerate()
            .map(|(at, field)| (field.number, at))
            .collect();
        by_number.sort_unstable();
        MessageType {
            known: None,
            name,
            fields,
            by_number,
        }
    }

    /// Returns the place of the field of a number.
    pub fn field(&self, number: u32) -> Option<usize> {
        let found = self.by_number.binary_search_by_key(&number, |(number, _)| *number);
        found.ok().map(|at| self.by_number[at].1)
    }
}

impl Shape {
    /// The kind of a single or repeated field's values.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Shape::Single { of, .. } | Shape::Repeated(of) => Some(of),
            Shape::Map { .. } => None,
        }
    }

    /// The message that a single field holds.
    pub fn message(self) -> Option<usize> {
        match self {
            Shape::Single {
                of: Kind::Message(index),
                ..
            } => Some(index),
            _ => None,
        }
    }
}

impl Number {
    /// What the language calls it.
    pub fn name(self) -> &'static str {
        match self {
            Number::Int32 => "int32",
            Number::Int64 => "int64",
            Number::Uint32 => "uint32",
            Number::Uint64 => "uint64",
            Number::Sint32 => "sint32",
            Number::Sint64 => "sint64",
            Number::Fixed32 => "fixed32",
            Number::Fixed64 => "fixed64",
            Number::Sfixed32 => "sfixed32",
            Number::Sfixed64 => "sfixed64",
        }
    }

    /// The decimal digits of its largest value.
    pub fn digits(self) -> u32 {
        match self {
            Number::Int32 | Number::Uint32 | Number::Sint32 | Number::Fixed32 | Number::Sfixed32 => 10,
            Number::Int64 | Number::Sint64 | Number::Sfixed64 => 19,
            Number::Uint64 | Number::Fixed64 => 20,
        }
    }
}

#[cfg(test)]
mod tests;
