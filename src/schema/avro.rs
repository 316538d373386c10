//! Avro schemas: parsed, and as columns of a table.
//!
//! Read here and not by `apache-avro`: its parsed schema doesn't tell a uuid in a string from one in `fixed(16)`, it panics on
//! names that aren't Avro names, and it refuses namespaces that Java's registries and producers take.
//!
//! Source: Apache Avro 1.12 specification, "Schema Declaration", "Logical Types", "Names", "Aliases".

mod canonical;
mod columns;
mod default;
mod parse;

use serde_json::Value;

use super::debezium::{Is, Shape};

pub use self::canonical::{canonical, fingerprint};
pub use self::columns::{DEPTH_MAX, PRECISION_MAX, arm_names, as_text, has_width, natural, renames, type_name};
pub use self::default::encode as encode_default;
pub use self::parse::parse;

/// One parsed schema, its named types in one list so that they can refer to each other.
#[derive(Debug, Clone, PartialEq)]
pub struct AvroSchema {
    /// The type of the value.
    pub root: Avro,
    /// Its named types, in order of their definition.
    pub named: Vec<Named>,
    /// What is around each value, see [`AvroSchema::within`].
    pub around: Option<Around>,
}

/// The envelope that values are inside.
#[derive(Debug, Clone, PartialEq)]
pub struct Around {
    /// Its type.
    pub of: Avro,
    /// The row in it is no record: its text, or that of its JSON, is the row's JSON.
    pub text: bool,
}

impl AvroSchema {
    /// The fields of values as they tell an event of Debezium's from a row.
    pub fn shape(&self) -> Shape {
        let mut shape = Shape::default();
        let fields = self.record(&self.root).map_or(&[][..], |(_, fields)| fields);
        for field in fields {
            let of = match &field.of {
                Avro::Union(arms) => arms.iter().find(|arm| **arm != Avro::Null).unwrap_or(&Avro::Null),
                of => of,
            };
            let is = match (of, self.record(of)) {
                (_, Some((_, fields))) => Is::fields(fields.iter().map(|field| field.name.as_str())),
                (Avro::String(_), _) => Is::Text,
                (Avro::Int(_) | Avro::Long(_), _) => Is::Number,
                (Avro::Null, _) => Is::Null,
                (Avro::Named(at), _) if matches!(self.named[*at].of, NamedType::Enum { .. }) => Is::Text,
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
        let Some((_, fields)) = self.record(&self.root) else {
            return self;
        };
        let field = |name: &str| fields.iter().find(|field| field.name == name);
        let (Some(_), Some(after)) = (field(operation), field(after)) else {
            return self;
        };
        let row = after.of.clone();
        let text = self.record(&row).is_none();
        let root = if text { self.root.clone() } else { row };
        self.around = Some(Around {
            of: std::mem::replace(&mut self.root, root),
            text,
        });
        self
    }

    /// Returns the schema of records with one field, `name`, whose values are those of this schema: the same bytes, since a
    /// record is its fields' values one behind the other.
    #[must_use]
    pub fn inside(mut self, name: &str) -> Self {
        let called = self.name().unwrap_or(name).to_owned();
        let of = std::mem::replace(&mut self.root, Avro::Null);
        self.root = Avro::Named(self.named.len());
        self.named.push(Named {
            name: called,
            aliases: Vec::new(),
            default: None,
            empty: self.takes_no_bytes(&of),
            of: NamedType::Record(vec![Field {
                name: name.to_owned(),
                aliases: Vec::new(),
                default: None,
                of,
            }]),
        });
        self
    }
}

/// A type at one place of a schema.
#[derive(Debug, Clone, PartialEq)]
pub enum Avro {
    /// `null`.
    Null,
    /// `boolean`.
    Boolean,
    /// `int`.
    Int(IntAs),
    /// `long`.
    Long(LongAs),
    /// `float`.
    Float,
    /// `double`.
    Double,
    /// `bytes`.
    Bytes(BytesAs),
    /// `string`.
    String(StringAs),
    /// `array` of items.
    Array(Box<Avro>),
    /// `map` of values; keys are strings.
    Map(Box<Avro>),
    /// `union` of arms, in their order.
    Union(Vec<Avro>),
    /// The named type at this index.
    Named(usize),
}

/// What an `int` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntAs {
    /// Itself.
    Plain,
    /// Days since 1970-01-01.
    Date,
    /// Milliseconds since midnight.
    TimeMillis,
}

/// What a `long` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongAs {
    /// Itself.
    Plain,
    /// Microseconds since midnight.
    TimeMicros,
    /// Since 1970-01-01T00:00, in UTC where `zoned`, else on the wall's clock.
    Timestamp {
        /// What is counted.
        unit: TimeUnit,
        /// `timestamp-*`, not `local-timestamp-*`.
        zoned: bool,
    },
}

/// What a timestamp counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

/// What `bytes` stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BytesAs {
    /// Themselves.
    Plain,
    /// A number's unscaled value, big-endian two's complement.
    Decimal(Decimal),
}

/// The digits of a decimal, and how many of them are behind the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    /// The most digits; above 0.
    pub precision: u32,
    /// Those behind the point; at most `precision`.
    pub scale: u32,
}

/// What a `string` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StringAs {
    /// Itself.
    Plain,
    /// A uuid's text.
    Uuid,
}

/// A type with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// Its full name, with its namespace.
    pub name: String,
    /// Other full names of it.
    pub aliases: Vec<String>,
    /// Of an enum: the symbol that a reader takes for one that it doesn't know.
    pub default: Option<String>,
    /// What it is.
    pub of: NamedType,
    /// Its values are written without a byte; a record that holds nothing but itself has no end, and so no value.
    pub empty: bool,
}

impl Named {
    /// Returns the name without its namespace.
    pub fn simple_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

/// What a named type is.
#[derive(Debug, Clone, PartialEq)]
pub enum NamedType {
    /// `record`, its fields in the order of their values.
    Record(Vec<Field>),
    /// `enum`.
    Enum(Vec<String>),
    /// `fixed`, of so many bytes.
    Fixed(usize, FixedAs),
}

/// What a `fixed` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FixedAs {
    /// Its bytes.
    Plain,
    /// A number's unscaled value, big-endian two's complement.
    Decimal(Decimal),
    /// A uuid's 16 bytes.
    Uuid,
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Names it had in other versions.
    pub aliases: Vec<String>,
    /// What a reader takes where a record lacks it, in the notation of defaults.
    pub default: Option<Value>,
    /// Its type.
    pub of: Avro,
}

impl Avro {
    /// Returns what Avro calls the type; `None` for those that have names of their own.
    pub fn word(&self) -> Option<&'static str> {
        Some(match self {
            Avro::Null => "null",
            Avro::Boolean => "boolean",
            Avro::Int(_) => "int",
            Avro::Long(_) => "long",
            Avro::Float => "float",
            Avro::Double => "double",
            Avro::Bytes(_) => "bytes",
            Avro::String(_) => "string",
            Avro::Array(_) => "array",
            Avro::Map(_) => "map",
            Avro::Union(_) => "union",
            Avro::Named(_) => return None,
        })
    }
}

impl AvroSchema {
    /// Returns the fields of a record, or of the record in a union with null.
    pub fn record<'a>(&'a self, of: &'a Avro) -> Option<(usize, &'a [Field])> {
        match of {
            Avro::Named(index) => match &self.named[*index].of {
                NamedType::Record(fields) => Some((*index, fields)),
                _ => None,
            },
            Avro::Union(arms) => match self.sole(arms) {
                Some(Avro::Union(_)) | None => None,
                Some(arm) => self.record(arm),
            },
            _ => None,
        }
    }

    /// Returns the arm of a union that isn't null, where there is one only.
    pub fn sole<'a>(&self, arms: &'a [Avro]) -> Option<&'a Avro> {
        let mut others = arms.iter().filter(|arm| **arm != Avro::Null);
        let sole = others.next()?;
        others.next().is_none().then_some(sole)
    }

    /// Says whether values of a type are written without a byte.
    pub fn takes_no_bytes(&self, of: &Avro) -> bool {
        match of {
            Avro::Null => true,
            Avro::Named(index) => self.named[*index].empty,
            _ => false,
        }
    }

    /// Returns the full name of the record that values are, if they are records.
    pub fn name(&self) -> Option<&str> {
        let (index, _) = self.record(&self.root)?;
        Some(&self.named[index].name)
    }
}
