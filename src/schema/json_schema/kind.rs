//! What a schema says of the values it takes, as far as it matters to columns.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use iceberg::spec::{ListType, MapType, NestedField, PrimitiveType, StructType, Type};

/// Columns at all depths beyond which no table is made: some readers keep statistics and buffers for each.
pub(super) const COLUMNS_MAX: i32 = 10_000;

/// The values that a schema takes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kind {
    pub of: Of,
    /// Null is one of them.
    pub nullable: bool,
    /// Names that an object among them always has.
    pub required: BTreeSet<String>,
}

/// Values other than null.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Of {
    /// There are none.
    Nothing,
    /// Nothing is said of them.
    Any,
    /// Of several kinds: kept as the text of their JSON.
    Json,
    Primitive(PrimitiveType),
    /// Objects; without fields if nothing is said of these.
    Object(Fields),
    /// Objects whose names are data.
    Map(Box<Kind>),
    List(Box<Kind>),
}

/// Fields in order of first sight, found by name whatever its case.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Fields {
    list: Vec<(String, Kind)>,
    index: HashMap<String, usize>,
}

impl Fields {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds a field; `both` says what is known if there is one of its name.
    pub fn add(&mut self, name: String, kind: Kind, both: fn(Kind, Kind) -> Kind) {
        match self.index.get(&name.to_lowercase()) {
            Some(at) => {
                let known = &mut self.list[*at].1;
                *known = both(std::mem::replace(known, Of::Nothing.null(false)), kind);
            }
            None => {
                self.index.insert(name.to_lowercase(), self.list.len());
                self.list.push((name, kind));
            }
        }
    }

    fn join(mut self, other: Fields, both: fn(Kind, Kind) -> Kind) -> Fields {
        for (name, kind) in other.list {
            self.add(name, kind, both);
        }
        self
    }
}

impl Of {
    /// Returns the kind of these values, with null or without.
    pub fn null(self, nullable: bool) -> Kind {
        Kind {
            of: self,
            nullable,
            required: BTreeSet::new(),
        }
    }

    fn or(self, other: Of) -> Of {
        match (self, other) {
            (Of::Any, _) | (_, Of::Any) => Of::Any,
            (Of::Primitive(mine), Of::Primitive(other)) => either(mine, other).map_or(Of::Json, Of::Primitive),
            (Of::Object(mine), Of::Object(other)) => Of::Object(mine.join(other, Kind::or)),
            (Of::Map(mine), Of::Map(other)) => Of::Map(Box::new(mine.or(*other))),
            (Of::List(mine), Of::List(other)) => Of::List(Box::new(mine.or(*other))),
            _ => Of::Json,
        }
    }

    fn and(self, other: Of) -> Of {
        match (self, other) {
            (Of::Any, of) | (of, Of::Any) => of,
            (Of::Json, of) | (of, Of::Json) => of,
            (Of::Nothing, _) | (_, Of::Nothing) => Of::Nothing,
            (Of::Primitive(mine), Of::Primitive(other)) => both(mine, other).map_or(Of::Json, Of::Primitive),
            (Of::Object(mine), Of::Object(other)) => Of::Object(mine.join(other, Kind::and)),
            (Of::Map(mine), Of::Map(other)) => Of::Map(Box::new(mine.and(*other))),
            (Of::List(mine), Of::List(other)) => Of::List(Box::new(mine.and(*other))),
            (Of::Object(fields), map @ Of::Map(_)) | (map @ Of::Map(_), Of::Object(fields)) => {
                if fields.is_empty() {
                    map
                } else {
                    Of::Object(fields)
                }
            }
            // A contradiction takes no value at all; text takes whatever comes nevertheless.
            _ => Of::Json,
        }
    }
}

impl Kind {
    /// Returns the values of either kind. A field is required of neither then.
    pub fn or(self, other: Kind) -> Kind {
        let nullable = self.nullable || other.nullable;
        match (self.of, other.of) {
            (Of::Nothing, of) => Kind {
                of,
                nullable,
                required: other.required,
            },
            (of, Of::Nothing) => Kind {
                of,
                nullable,
                required: self.required,
            },
            (mine, other) => mine.or(other).null(nullable),
        }
    }

    /// Returns the values that are of both kinds.
    pub fn and(mut self, mut other: Kind) -> Kind {
        self.required.append(&mut other.required);
        Kind {
            of: self.of.and(other.of),
            nullable: self.nullable && other.nullable,
            required: self.required,
        }
    }

    /// Returns the columns for records of this kind, ids from 1.
    pub fn columns(self) -> Result<Vec<NestedField>, String> {
        match self.of {
            Of::Object(fields) => columns(fields, &self.required, &mut 0),
            Of::Map(_) => Err("the schema's root is an object without `properties`: \
                               its names are data, and no columns follow from it"
                .to_owned()),
            _ => Err("the schema's root is no object, so no columns follow from it".to_owned()),
        }
    }

    /// Returns the type of a column for these values; `None` if they are nothing but nulls.
    fn into_type(self, last_id: &mut i32) -> Result<Option<Type>, String> {
        const TEXT: Type = Type::Primitive(PrimitiveType::String);
        Ok(Some(match self.of {
            Of::Nothing => return Ok(None),
            Of::Any | Of::Json => TEXT,
            Of::Primitive(primitive) => Type::Primitive(primitive),
            Of::Object(fields) => {
                let fields = columns(fields, &self.required, last_id)?;
                if fields.is_empty() {
                    TEXT
                } else {
                    Type::Struct(StructType::new(fields.into_iter().map(Arc::new).collect()))
                }
            }
            Of::Map(value) => {
                let value = value.into_type(last_id)?.unwrap_or(TEXT);
                let (key_id, value_id) = (next(last_id)?, next(last_id)?);
                Type::Map(MapType::optional(key_id, TEXT, value_id, value))
            }
            Of::List(item) => {
                let item = item.into_type(last_id)?.unwrap_or(TEXT);
                let item = NestedField::list_element(next(last_id)?, item, false);
                Type::List(ListType::new(Arc::new(item)))
            }
        }))
    }
}

fn columns(fields: Fields, required: &BTreeSet<String>, last_id: &mut i32) -> Result<Vec<NestedField>, String> {
    let mut columns = Vec::new();
    // A field without a name can't be a column: no engine can ask for it.
    for (name, kind) in fields.list.into_iter().filter(|(name, _)| !name.is_empty()) {
        let required = required.contains(&name) && !kind.nullable;
        if let Some(of) = kind.into_type(last_id)? {
            columns.push(NestedField::new(next(last_id)?, name, of, required));
        }
    }
    Ok(columns)
}

fn next(last_id: &mut i32) -> Result<i32, String> {
    if *last_id >= COLUMNS_MAX {
        return Err(format!(
            "the schema has more than {COLUMNS_MAX} columns, nested ones counted"
        ));
    }
    *last_id += 1;
    Ok(*last_id)
}

/// Returns the place of a type among numbers, ascending by what they hold; only integers come before the floats.
fn rank(of: &PrimitiveType) -> Option<u32> {
    Some(match of {
        PrimitiveType::Int => 0,
        PrimitiveType::Long => 1,
        PrimitiveType::Decimal { precision, .. } => *precision,
        PrimitiveType::Float => FLOAT,
        PrimitiveType::Double => FLOAT + 1,
        _ => return None,
    })
}

/// Above the precision of any decimal.
const FLOAT: u32 = 100;

/// Says whether JSON has these values as strings.
fn is_text(of: &PrimitiveType) -> bool {
    use PrimitiveType as P;
    matches!(of, P::String | P::Date | P::Timestamptz | P::Uuid | P::Binary)
}

/// Returns the type that takes the values of either.
fn either(mine: PrimitiveType, other: PrimitiveType) -> Option<PrimitiveType> {
    if mine == other {
        return Some(mine);
    }
    match (rank(&mine), rank(&other)) {
        (Some(a), Some(b)) => {
            let (small, large) = (a.min(b), a.max(b));
            // A double would round a decimal's digits.
            let rounds = large >= FLOAT && (2..FLOAT).contains(&small);
            match large {
                _ if rounds => None,
                FLOAT.. => Some(PrimitiveType::Double),
                _ => Some(if a == large { mine } else { other }),
            }
        }
        _ => (is_text(&mine) && is_text(&other)).then_some(PrimitiveType::String),
    }
}

/// Returns the type that takes the values of both.
fn both(mine: PrimitiveType, other: PrimitiveType) -> Option<PrimitiveType> {
    match (rank(&mine), rank(&other)) {
        (Some(a), Some(b)) => Some(if a <= b { mine } else { other }),
        _ if mine == other || (other == PrimitiveType::String && is_text(&mine)) => Some(mine),
        _ => (mine == PrimitiveType::String && is_text(&other)).then_some(other),
    }
}
