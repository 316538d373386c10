//! The columns that take messages of a Protobuf schema.

use std::sync::Arc;

use iceberg::spec::{ListType, MapType, NestedField, PrimitiveType, StructType, Type};

use super::{Field, Kind, Known, MessageType, Number, ProtoSchema, Shape};
use crate::schema::Rename;

/// The most columns of one schema, those inside others included: messages can refer to each other so that a short schema has
/// millions, and no reader opens a table of more than some thousands.
const COLUMNS_MAX: usize = 10_000;

/// Messages inside each other that may become structs; what is further in is kept as the text of its JSON.
pub const DEPTH_MAX: usize = 64;

/// The digits of a duration in seconds: all that `google.protobuf.Duration` can hold, 10,000 years in nanoseconds.
pub const DURATION_PRECISION: u32 = 21;

/// Those of them behind the point.
pub const DURATION_SCALE: u32 = 9;

/// The column of values that aren't made of fields, such as `google.protobuf.StringValue`.
pub const VALUE: &str = "value";

/// Returns the columns that take messages of a schema, all optional, in the order of the file, ids provisional, each its own
/// from 1.
///
/// | field | column |
/// |---|---|
/// | bool, string, bytes, float, double | boolean, string, binary, float, double |
/// | int32, sint32, sfixed32 | int |
/// | int64, sint64, sfixed64, uint32, fixed32 | long |
/// | uint64, fixed64 | decimal(20, 0) |
/// | enum | string: its name, or its digits where the schema has no name |
/// | message, group | struct |
/// | repeated, map | list, map |
/// | member of a `oneof` | a column beside the others |
/// | Timestamp | timestamptz: the nanoseconds behind microseconds are cut toward the past |
/// | Duration | decimal(21, 9): seconds |
/// | DoubleValue … BytesValue | the column of what they wrap |
/// | google.type.Date, TimeOfDay | date, time |
/// | google.type.Decimal, confluent.type.Decimal | string: the number, which has no scale that all values share |
/// | Struct, Value, ListValue, Any, messages inside themselves, messages without fields | string: the JSON |
/// | FieldMask | string: its paths with commas between them |
///
/// No engine that reads Iceberg has a type for durations. Seconds can be summed and compared as they are, and as a decimal none of
/// their digits is lost.
///
/// # Errors
/// If there are too many columns.
pub fn natural(schema: &ProtoSchema) -> Result<Vec<NestedField>, String> {
    let mut mapping = Mapping {
        schema,
        last_id: 0,
        inside: Vec::new(),
    };
    let fields = match schema.messages[schema.root].known {
        None => mapping.fields(schema.root),
        Some(_) => {
            mapping.last_id = 1;
            let of = mapping.kind(Kind::Message(schema.root));
            vec![Arc::new(NestedField::optional(1, VALUE, of))]
        }
    };
    match mapping.last_id as usize > COLUMNS_MAX {
        true => Err(format!(
            "it makes more than {COLUMNS_MAX} columns: declare those that you need in `columns`"
        )),
        false => Ok(fields.iter().map(|field| (**field).clone()).collect()),
    }
}

/// Says whether values of a message are kept as the text of their JSON, seen from inside `inside`.
pub fn as_text(message: &MessageType, index: usize, inside: &[usize]) -> bool {
    inside.contains(&index) || inside.len() >= DEPTH_MAX || message.fields.is_empty()
}

struct Mapping<'a> {
    schema: &'a ProtoSchema,
    last_id: i32,
    /// The messages that the current place is inside.
    inside: Vec<usize>,
}

impl Mapping<'_> {
    fn fields(&mut self, index: usize) -> Vec<Arc<NestedField>> {
        let schema = self.schema;
        self.inside.push(index);
        let fields = schema.messages[index].fields.iter();
        let fields = fields.filter_map(|field| self.field(field)).collect();
        self.inside.pop();
        fields
    }

    /// Returns the column of a field; `None` where there are too many, which is told at the end.
    fn field(&mut self, field: &Field) -> Option<Arc<NestedField>> {
        if self.last_id as usize > COLUMNS_MAX {
            return None;
        }
        self.last_id += 1;
        let id = self.last_id;
        let of = match field.shape {
            Shape::Single { of, .. } => self.kind(of),
            Shape::Repeated(of) => {
                let item = self.kind(of);
                self.last_id += 1;
                let element = NestedField::list_element(self.last_id, item, false);
                Type::List(ListType::new(Arc::new(element)))
            }
            Shape::Map { key, value } => {
                let (key, value) = (self.kind(key), self.kind(value));
                self.last_id += 2;
                Type::Map(MapType::optional(self.last_id - 1, key, self.last_id, value))
            }
        };
        Some(Arc::new(NestedField::optional(id, &field.name, of)))
    }

    fn kind(&mut self, of: Kind) -> Type {
        Type::Primitive(match of {
            Kind::Bool => PrimitiveType::Boolean,
            Kind::Number(number) => match number {
                Number::Int32 | Number::Sint32 | Number::Sfixed32 => PrimitiveType::Int,
                Number::Uint64 | Number::Fixed64 => PrimitiveType::Decimal {
                    precision: 20,
                    scale: 0,
                },
                _ => PrimitiveType::Long,
            },
            Kind::Float => PrimitiveType::Float,
            Kind::Double => PrimitiveType::Double,
            Kind::String | Kind::Enum(_) => PrimitiveType::String,
            Kind::Bytes => PrimitiveType::Binary,
            Kind::Message(index) => return self.message(index),
        })
    }

    fn message(&mut self, index: usize) -> Type {
        let schema = self.schema;
        let message = &schema.messages[index];
        Type::Primitive(match message.known {
            Some(Known::Timestamp) => PrimitiveType::Timestamptz,
            Some(Known::Duration) => PrimitiveType::Decimal {
                precision: DURATION_PRECISION,
                scale: DURATION_SCALE,
            },
            Some(Known::Wrapper) => {
                let wrapped = message.fields.first().and_then(|field| field.shape.kind());
                return self.kind(wrapped.unwrap_or(Kind::String));
            }
            Some(Known::Date) => PrimitiveType::Date,
            Some(Known::TimeOfDay) => PrimitiveType::Time,
            Some(_) => PrimitiveType::String,
            None if as_text(message, index, &self.inside) => PrimitiveType::String,
            None => {
                let fields = self.fields(index);
                // Cut off by the limit on columns, which is told at the end.
                if fields.is_empty() {
                    return Type::Primitive(PrimitiveType::String);
                }
                return Type::Struct(StructType::new(fields));
            }
        })
    }
}

/// Returns the fields of `newest` that `older` has under the same number and another name, wherever they become a column.
pub fn renames_between(newest: &ProtoSchema, older: &ProtoSchema) -> Vec<Rename> {
    let mut search = Search {
        newest,
        older,
        within: Vec::new(),
        inside: Vec::new(),
        visited: 0,
        found: Vec::new(),
    };
    search.message(newest.root, older.root);
    search.found
}

struct Search<'a> {
    newest: &'a ProtoSchema,
    older: &'a ProtoSchema,
    within: Vec<String>,
    inside: Vec<usize>,
    /// Fields looked at: as many as may become columns.
    visited: usize,
    found: Vec<Rename>,
}

impl Search<'_> {
    fn message(&mut self, newest: usize, older: usize) {
        let (now, before) = (&self.newest.messages[newest], &self.older.messages[older]);
        let text = as_text(now, newest, &self.inside);
        if text || now.known.is_some() || before.known.is_some() || self.visited > COLUMNS_MAX {
            return;
        }
        self.visited += now.fields.len();
        self.inside.push(newest);
        for field in &now.fields {
            let Some(at) = before.field(field.number) else { continue };
            let former = &before.fields[at];
            // A name that another field has now isn't a former one of this.
            let free = now.fields.iter().all(|other| other.name != former.name);
            if free {
                self.found.push(Rename {
                    within: self.within.clone(),
                    name: field.name.clone(),
                    before: vec![former.name.clone()],
                });
            }
            let depth = self.within.len();
            self.within.push(field.name.clone());
            let inner = match (field.shape, former.shape) {
                (Shape::Single { of, .. }, Shape::Single { of: former, .. }) => Some((of, former)),
                (Shape::Repeated(of), Shape::Repeated(former)) => {
                    self.within.push("element".to_owned());
                    Some((of, former))
                }
                (Shape::Map { value, .. }, Shape::Map { value: former, .. }) => {
                    self.within.push("value".to_owned());
                    Some((value, former))
                }
                _ => None,
            };
            if let Some((Kind::Message(newest), Kind::Message(older))) = inner {
                self.message(newest, older);
            }
            self.within.truncate(depth);
        }
        self.inside.pop();
    }
}
