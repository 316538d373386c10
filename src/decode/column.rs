//! Columns under construction: values appended one by one, cut back when a record fails, frozen into Arrow.

mod finish;
mod keys;
mod misfit;
mod nested;
mod primitive;
mod push;
mod valid;

use iceberg::spec::{NestedField, PrimitiveType, Type};

use self::nested::{fill_list, fill_map};
use self::valid::Valid;
use super::names::Names;
use super::problem::Failed;
use super::room;
use super::unknown::Unknown;
use crate::json::lexer::Lexer;
use crate::schema::infer::Shape;

/// One column under construction.
#[derive(Debug)]
pub(super) struct Column {
    /// The field's name.
    pub name: String,
    /// A null is a reject.
    pub required: bool,
    of: Type,
    /// See [`room::values`].
    values: usize,
    valid: Valid,
    store: Store,
}

/// Values of one column, by their kind.
///
/// With a tag of its own: every value that is pushed asks for it, and one in a niche takes five instructions to find out.
#[derive(Debug)]
#[repr(u8)]
enum Store {
    Boolean(Vec<bool>),
    Int(Vec<i32>),
    Long(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Decimal {
        values: Vec<i128>,
        precision: u32,
        scale: u32,
    },
    Date(Vec<i32>),
    Time(Vec<i64>),
    Timestamp {
        values: Vec<i64>,
        zoned: bool,
        nanos: bool,
    },
    Text {
        ends: Vec<i32>,
        bytes: Vec<u8>,
    },
    Uuid(Vec<u8>),
    Binary {
        ends: Vec<i64>,
        bytes: Vec<u8>,
    },
    Fixed {
        width: usize,
        bytes: Vec<u8>,
        scratch: Vec<u8>,
    },
    Struct(Group),
    List {
        ends: Vec<i32>,
        item: Box<Column>,
    },
    Map {
        ends: Vec<i32>,
        key: Box<Column>,
        value: Box<Column>,
    },
}

/// The fields of a struct column.
#[derive(Debug)]
struct Group {
    columns: Vec<Column>,
    names: Names,
    spelt: Vec<u64>,
}

impl Column {
    /// Makes an empty column for a field of the table.
    pub fn new(field: &NestedField) -> Self {
        let store = match &*field.field_type {
            Type::Primitive(primitive) => match primitive {
                PrimitiveType::Boolean => Store::Boolean(Vec::new()),
                PrimitiveType::Int => Store::Int(Vec::new()),
                PrimitiveType::Long => Store::Long(Vec::new()),
                PrimitiveType::Float => Store::Float(Vec::new()),
                PrimitiveType::Double => Store::Double(Vec::new()),
                PrimitiveType::Decimal { precision, scale } => Store::Decimal {
                    values: Vec::new(),
                    precision: *precision,
                    scale: *scale,
                },
                PrimitiveType::Date => Store::Date(Vec::new()),
                PrimitiveType::Time => Store::Time(Vec::new()),
                PrimitiveType::Timestamp => Store::Timestamp {
                    values: Vec::new(),
                    zoned: false,
                    nanos: false,
                },
                PrimitiveType::Timestamptz => Store::Timestamp {
                    values: Vec::new(),
                    zoned: true,
                    nanos: false,
                },
                PrimitiveType::TimestampNs => Store::Timestamp {
                    values: Vec::new(),
                    zoned: false,
                    nanos: true,
                },
                PrimitiveType::TimestamptzNs => Store::Timestamp {
                    values: Vec::new(),
                    zoned: true,
                    nanos: true,
                },
                PrimitiveType::String => Store::Text {
                    ends: vec![0],
                    bytes: Vec::new(),
                },
                PrimitiveType::Uuid => Store::Uuid(Vec::new()),
                PrimitiveType::Fixed(width) => {
                    let width = usize::try_from(*width).expect("a fixed column is at most 2^31 wide");
                    Store::Fixed {
                        width,
                        bytes: Vec::new(),
                        scratch: Vec::new(),
                    }
                }
                PrimitiveType::Binary => Store::Binary {
                    ends: vec![0],
                    bytes: Vec::new(),
                },
            },
            Type::Struct(fields) => {
                let columns: Vec<Column> = fields.fields().iter().map(|field| Column::new(field)).collect();
                let names = Names::new(columns.iter().map(|column| column.name.as_str()));
                Store::Struct(Group {
                    names,
                    spelt: vec![0; columns.len()],
                    columns,
                })
            }
            Type::List(list) => Store::List {
                ends: vec![0],
                item: Box::new(Column::new(&list.element_field)),
            },
            Type::Map(map) => Store::Map {
                ends: vec![0],
                key: Box::new(Column::new(&map.key_field)),
                value: Box::new(Column::new(&map.value_field)),
            },
        };
        let of = (*field.field_type).clone();
        Column {
            name: field.name.clone(),
            required: field.required,
            values: room::values(&of),
            of,
            valid: Valid::default(),
            store,
        }
    }

    /// Returns the number of values.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.valid.len()
    }

    /// Makes room for `rows` more values.
    pub fn reserve(&mut self, rows: usize) {
        match &mut self.store {
            Store::Boolean(values) => values.reserve(rows),
            Store::Int(values) | Store::Date(values) => values.reserve(rows),
            Store::Long(values) | Store::Time(values) | Store::Timestamp { values, .. } => values.reserve(rows),
            Store::Float(values) => values.reserve(rows),
            Store::Double(values) => values.reserve(rows),
            Store::Decimal { values, .. } => values.reserve(rows),
            Store::Text { ends, .. } | Store::List { ends, .. } | Store::Map { ends, .. } => ends.reserve(rows),
            Store::Binary { ends, .. } => ends.reserve(rows),
            Store::Uuid(bytes) => bytes.reserve(rows * 16),
            Store::Fixed { .. } => {}
            Store::Struct(group) => group.columns.iter_mut().for_each(|column| column.reserve(rows)),
        }
    }

    /// Cuts the column, and whatever a failed record left half written below it, back to `rows` values.
    pub fn truncate(&mut self, rows: usize) {
        self.valid.truncate(rows);
        match &mut self.store {
            Store::Boolean(values) => values.truncate(rows),
            Store::Int(values) | Store::Date(values) => values.truncate(rows),
            Store::Long(values) | Store::Time(values) | Store::Timestamp { values, .. } => values.truncate(rows),
            Store::Float(values) => values.truncate(rows),
            Store::Double(values) => values.truncate(rows),
            Store::Decimal { values, .. } => values.truncate(rows),
            Store::Text { ends, bytes } => {
                ends.truncate(rows + 1);
                bytes.truncate(ends[rows] as usize);
            }
            Store::Uuid(bytes) => bytes.truncate(rows * 16),
            Store::Binary { ends, bytes } => {
                ends.truncate(rows + 1);
                bytes.truncate(ends[rows] as usize);
            }
            Store::Fixed { width, bytes, .. } => bytes.truncate(rows * *width),
            Store::Struct(group) => group.columns.iter_mut().for_each(|column| column.truncate(rows)),
            Store::List { ends, item } => {
                ends.truncate(rows + 1);
                item.truncate(ends[rows] as usize);
            }
            Store::Map { ends, key, value } => {
                ends.truncate(rows + 1);
                key.truncate(ends[rows] as usize);
                value.truncate(ends[rows] as usize);
            }
        }
    }

    /// Appends a null, whatever the column requires: below a null struct nobody sees it.
    pub fn push_null(&mut self) {
        self.valid.push_null();
        match &mut self.store {
            Store::Boolean(values) => values.push(false),
            Store::Int(values) | Store::Date(values) => values.push(0),
            Store::Long(values) | Store::Time(values) | Store::Timestamp { values, .. } => values.push(0),
            Store::Float(values) => values.push(0.0),
            Store::Double(values) => values.push(0.0),
            Store::Decimal { values, .. } => values.push(0),
            Store::Text { ends, bytes } => ends.push(bytes.len() as i32),
            Store::Uuid(bytes) => bytes.extend([0; 16]),
            Store::Binary { ends, bytes } => ends.push(bytes.len() as i64),
            Store::Fixed { width, bytes, .. } => bytes.resize(bytes.len() + *width, 0),
            Store::Struct(group) => group.columns.iter_mut().for_each(Column::push_null),
            Store::List { ends, item } => ends.push(item.len() as i32),
            Store::Map { ends, key, .. } => ends.push(key.len() as i32),
        }
    }

    /// Appends a null for a field that a record doesn't hold.
    pub fn push_missing(&mut self) -> Result<(), Failed> {
        if self.required {
            return Err(self.missing());
        }
        self.push_null();
        Ok(())
    }

    /// Appends the value at the lexer's position; returns the unseen fields in it. After an error the column is to be
    /// truncated.
    pub fn fill(
        &mut self,
        lexer: &mut Lexer<'_>,
        depth: usize,
        unknown: &mut Unknown,
    ) -> Result<Option<Box<Shape>>, Failed> {
        let first = lexer.peek();
        if first == b'n' {
            lexer.word("null")?;
            self.push_missing()?;
            return Ok(None);
        }
        let start = lexer.pos;
        let nested = match (&mut self.store, first) {
            (Store::Struct(group), b'{') => Some(group.fill(lexer, self.valid.len(), depth, unknown, &self.of)),
            (Store::List { ends, item }, b'[') => Some(fill_list(ends, item, lexer, depth, unknown)),
            (Store::Map { ends, key, value }, b'{') => Some(fill_map(ends, key, value, lexer, depth, unknown)),
            (store, _) => {
                if !store.scalar(lexer, first)? {
                    lexer.pos = start;
                    lexer.skip()?;
                    return Err(self.misfit(lexer.since(start)));
                }
                None
            }
        };
        let unseen = nested.transpose()?.flatten();
        self.valid.push();
        Ok(unseen)
    }
}
