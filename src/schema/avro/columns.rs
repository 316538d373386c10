//! The columns that take records of an Avro schema.

use std::sync::Arc;

use iceberg::spec::{ListType, MapType, NestedField, PrimitiveType, StructType, Type};

use super::{Avro, AvroSchema, BytesAs, Decimal, FixedAs, IntAs, LongAs, Named, NamedType, StringAs, TimeUnit};
use crate::schema::{Rename, VALUE};

/// The most columns of one schema, those inside others included: names can refer to each other so that a short schema has
/// millions, and no reader opens a table of more than some thousands.
const COLUMNS_MAX: usize = 10_000;

/// Records inside each other that may become structs; what is further in is kept as the text of its JSON.
pub const DEPTH_MAX: usize = 64;

/// The widest `fixed` that has a column of its width, in bytes; wider ones are binary.
const FIXED_COLUMN_BYTES_MAX: usize = 4096;

/// The most digits of a decimal column.
pub const PRECISION_MAX: u32 = 38;

/// Returns the columns that take values of a schema, all optional, ids provisional, each its own from 1.
///
/// - `nanos`: nanoseconds are kept, as format version 3 can; else they are floored to microseconds.
///
/// A record's fields are the columns; any other value is one column `value`. Records inside themselves and records without
/// fields are text: their JSON. A union of several types is a struct of one optional field for each, see [`arm_names`].
///
/// # Errors
/// If there are too many columns.
pub fn natural(schema: &AvroSchema, nanos: bool) -> Result<Vec<NestedField>, String> {
    let mut mapping = Mapping {
        schema,
        nanos,
        last_id: 0,
        inside: Vec::new(),
    };
    let fields = match schema.record(&schema.root) {
        Some((index, _)) => mapping.fields(index),
        None => mapping.field(VALUE, &schema.root).into_iter().collect(),
    };
    match mapping.last_id as usize > COLUMNS_MAX {
        true => Err(format!(
            "it makes more than {COLUMNS_MAX} columns: declare those that you need in `columns`"
        )),
        false => Ok(fields.iter().map(|field| (**field).clone()).collect()),
    }
}

/// Returns the names of a union's arms as fields of a struct, in their order: of named types the simple name, where two are
/// alike the full one with `_` for dots; of others what Avro calls the type.
pub fn arm_names(schema: &AvroSchema, arms: &[Avro]) -> Vec<String> {
    let simple: Vec<&str> = arms.iter().map(|arm| type_name(schema, arm)).collect();
    let alone = |name: &str| simple.iter().filter(|other| other.eq_ignore_ascii_case(name)).count() == 1;
    let names = arms.iter().zip(&simple).map(|(arm, name)| match arm {
        Avro::Named(index) if !alone(name) => schema.named[*index].name.replace('.', "_"),
        _ => (*name).to_owned(),
    });
    names.collect()
}

/// Returns what Avro calls a type, without its namespace.
pub fn type_name<'a>(schema: &'a AvroSchema, of: &Avro) -> &'a str {
    match of {
        Avro::Named(index) => schema.named[*index].simple_name(),
        of => of.word().expect("only named types have no word"),
    }
}

/// Says whether values of so many bytes have a column of their width: none has no width, and a null takes as much as a value.
pub fn has_width(size: usize) -> bool {
    (1..=FIXED_COLUMN_BYTES_MAX).contains(&size)
}

/// Says whether values of a named type are kept as the text of their JSON, seen from inside `inside`.
pub fn as_text(named: &Named, index: usize, inside: &[usize]) -> bool {
    let NamedType::Record(fields) = &named.of else {
        return false;
    };
    inside.contains(&index) || inside.len() >= DEPTH_MAX || fields.iter().all(|field| field.of == Avro::Null)
}

struct Mapping<'a> {
    schema: &'a AvroSchema,
    nanos: bool,
    last_id: i32,
    /// The records that the current place is inside.
    inside: Vec<usize>,
}

impl Mapping<'_> {
    fn fields(&mut self, index: usize) -> Vec<Arc<NestedField>> {
        let NamedType::Record(fields) = &self.schema.named[index].of else {
            return Vec::new();
        };
        self.inside.push(index);
        let fields = fields
            .iter()
            .filter_map(|field| self.field(&field.name, &field.of))
            .collect();
        self.inside.pop();
        fields
    }

    /// Returns the column of a field; `None` where its values are always null, so that it has no type.
    fn field(&mut self, name: &str, of: &Avro) -> Option<Arc<NestedField>> {
        if self.last_id as usize > COLUMNS_MAX {
            return None;
        }
        self.last_id += 1;
        let id = self.last_id;
        let of = self.of(of)?;
        Some(Arc::new(NestedField::optional(id, name, of)))
    }

    fn of(&mut self, of: &Avro) -> Option<Type> {
        let primitive = match of {
            Avro::Null => return None,
            Avro::Boolean => PrimitiveType::Boolean,
            Avro::Int(IntAs::Plain) => PrimitiveType::Int,
            Avro::Int(IntAs::Date) => PrimitiveType::Date,
            Avro::Int(IntAs::TimeMillis) | Avro::Long(LongAs::TimeMicros) => PrimitiveType::Time,
            Avro::Long(LongAs::Plain) => PrimitiveType::Long,
            Avro::Long(LongAs::Timestamp { unit, zoned }) => match (*unit == TimeUnit::Nanos && self.nanos, zoned) {
                (false, true) => PrimitiveType::Timestamptz,
                (false, false) => PrimitiveType::Timestamp,
                (true, true) => PrimitiveType::TimestamptzNs,
                (true, false) => PrimitiveType::TimestampNs,
            },
            Avro::Float => PrimitiveType::Float,
            Avro::Double => PrimitiveType::Double,
            Avro::Bytes(BytesAs::Plain) => PrimitiveType::Binary,
            Avro::Bytes(BytesAs::Decimal(of)) => decimal(*of),
            Avro::String(StringAs::Plain) => PrimitiveType::String,
            Avro::String(StringAs::Uuid) => PrimitiveType::Uuid,
            Avro::Array(items) => {
                let item = self.inner(items);
                self.last_id += 1;
                return Some(Type::List(ListType::new(Arc::new(NestedField::list_element(
                    self.last_id,
                    item,
                    false,
                )))));
            }
            Avro::Map(values) => {
                let value = self.inner(values);
                self.last_id += 2;
                return Some(Type::Map(MapType::optional(
                    self.last_id - 1,
                    Type::Primitive(PrimitiveType::String),
                    self.last_id,
                    value,
                )));
            }
            Avro::Union(arms) => return self.union(arms),
            Avro::Named(index) => return Some(self.named(*index)),
        };
        Some(Type::Primitive(primitive))
    }

    /// Items and values that are always null make a column of text without any.
    fn inner(&mut self, of: &Avro) -> Type {
        self.of(of).unwrap_or(Type::Primitive(PrimitiveType::String))
    }

    fn union(&mut self, arms: &[Avro]) -> Option<Type> {
        if let Some(sole) = self.schema.sole(arms) {
            return self.of(sole);
        }
        let names = arm_names(self.schema, arms);
        let fields: Vec<_> = names
            .iter()
            .zip(arms)
            .filter_map(|(name, arm)| self.field(name, arm))
            .collect();
        (!fields.is_empty()).then(|| Type::Struct(StructType::new(fields)))
    }

    fn named(&mut self, index: usize) -> Type {
        let named = &self.schema.named[index];
        Type::Primitive(match &named.of {
            NamedType::Enum(_) => PrimitiveType::String,
            NamedType::Fixed(0, _) => PrimitiveType::Binary,
            NamedType::Fixed(size, FixedAs::Plain) if !has_width(*size) => PrimitiveType::Binary,
            NamedType::Fixed(_, FixedAs::Decimal(of)) => decimal(*of),
            NamedType::Fixed(_, FixedAs::Uuid) => PrimitiveType::Uuid,
            NamedType::Fixed(size, FixedAs::Plain) => PrimitiveType::Fixed(*size as u64),
            NamedType::Record(_) if as_text(named, index, &self.inside) => PrimitiveType::String,
            NamedType::Record(_) => {
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

/// A decimal of more digits than a column has is kept as text.
fn decimal(of: Decimal) -> PrimitiveType {
    match of.precision > PRECISION_MAX {
        true => PrimitiveType::String,
        false => PrimitiveType::Decimal {
            precision: of.precision,
            scale: of.scale,
        },
    }
}

/// Returns the fields that have aliases, wherever they become a column.
pub fn renames(schema: &AvroSchema) -> Vec<Rename> {
    let mut found = Vec::new();
    if let Some((index, _)) = schema.record(&schema.root) {
        collect_renames(schema, index, &mut Vec::new(), &mut Vec::new(), &mut found);
    }
    found
}

fn collect_renames(
    schema: &AvroSchema,
    index: usize,
    within: &mut Vec<String>,
    inside: &mut Vec<usize>,
    found: &mut Vec<Rename>,
) {
    let NamedType::Record(fields) = &schema.named[index].of else {
        return;
    };
    if as_text(&schema.named[index], index, inside) || found.len() > COLUMNS_MAX {
        return;
    }
    inside.push(index);
    for field in fields {
        // A name that another field has now isn't a former one of this.
        let free = |alias: &&String| fields.iter().all(|other| other.name != **alias);
        let before: Vec<String> = field.aliases.iter().filter(free).cloned().collect();
        if !before.is_empty() {
            found.push(Rename {
                within: within.clone(),
                name: field.name.clone(),
                before,
            });
        }
        let depth = within.len();
        within.push(field.name.clone());
        let mut of = &field.of;
        // Ends: each step goes further into the type.
        loop {
            of = match of {
                Avro::Array(items) => {
                    within.push("element".to_owned());
                    items
                }
                Avro::Map(values) => {
                    within.push("value".to_owned());
                    values
                }
                Avro::Union(arms) => match schema.sole(arms) {
                    Some(arm) => arm,
                    None => break,
                },
                Avro::Named(inner) => {
                    collect_renames(schema, *inner, within, inside, found);
                    break;
                }
                _ => break,
            };
        }
        within.truncate(depth);
    }
    inside.pop();
}
