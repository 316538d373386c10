//! Columns under construction: JSON values appended one by one, cut back when a record fails, frozen into Arrow.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array, Float64Array, Int32Array,
    Int64Array, LargeBinaryArray, ListArray, MapArray, StringArray, StructArray, Time64MicrosecondArray,
    TimestampMicrosecondArray, TimestampNanosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields as ArrowFields};
use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use iceberg::spec::{ListType, MapType, NestedField, PrimitiveType, StructType, Type};

use crate::config::types;
use crate::json::lexer::{Fault, Lexer, is_number};
use crate::json::scalar;
use crate::schema::UnknownFields;
use crate::schema::infer::{DEPTH_MAX, Fields, Shape, Shapeless, shape};

/// Spellings of names remembered per object; only a hostile producer has more, and those are worked out each time.
const SPELLINGS_MAX: usize = 4096;

/// Longest value that a reason quotes, in bytes.
const QUOTE_MAX: usize = 64;

const BASE64_CONFIG: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, BASE64_CONFIG);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, BASE64_CONFIG);

/// Why a value can't be taken.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The bytes aren't JSON: nothing behind the fault can be read.
    Fault(Fault),
    /// JSON that no table takes.
    Refused(String),
    /// JSON that a column doesn't take.
    Misfit {
        /// Names from the value's own up to the column's.
        path: Vec<String>,
        /// What the column is and the value isn't.
        what: String,
        /// The type of the outermost name that would take the value.
        fits: Type,
        /// The wider column that Iceberg allows and that would take it, seen from the outermost name.
        wider: Option<Shape>,
    },
}

/// A boxed [`Problem`]: results stay small where everything is well.
pub(crate) type Failed = Box<Problem>;

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Box::new(Problem::Fault(fault))
    }
}

impl From<Shapeless> for Failed {
    fn from(shapeless: Shapeless) -> Self {
        Box::new(match shapeless {
            Shapeless::Fault(fault) => Problem::Fault(fault),
            Shapeless::Refused(why) => Problem::Refused(why),
        })
    }
}

/// Says that one record holds a name in two spellings.
pub(crate) fn both_spellings(name: &str) -> Failed {
    Box::new(Problem::Refused(format!("the record holds two spellings of `{name}`")))
}

/// One step from a value to the one that holds it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    /// Out of the field of this name.
    Field(&'a str),
    /// Out of a list.
    Item,
    /// Out of a map, from one of its keys.
    MapKey,
    /// Out of a map, from one of its values.
    MapValue,
}

/// Adds one step to what is known of a value that doesn't fit; `outer` makes the type around one that would.
#[cold]
pub(crate) fn within(mut failed: Failed, step: Step<'_>, outer: impl FnOnce(Type) -> Type) -> Failed {
    if let Problem::Misfit { path, fits, wider, .. } = &mut *failed {
        let inner = std::mem::replace(fits, Type::Primitive(PrimitiveType::String));
        *fits = outer(inner);
        let object = |name: &str, shape| Shape::Object(vec![(name.to_owned(), shape)]);
        let (name, shape) = match step {
            Step::Field(name) => (name, wider.take().map(|inner| object(name, inner))),
            Step::Item => ("element", wider.take().map(|inner| Shape::List(Box::new(inner)))),
            Step::MapValue => ("value", wider.take().map(|inner| object("value", inner))),
            // A map's keys are what its values are found by: they stay.
            Step::MapKey => ("key", None),
        };
        path.push(name.to_owned());
        *wider = shape;
    }
    failed
}

/// What decoding does with fields that have no column, and what came of it in one record.
#[derive(Debug)]
pub(crate) struct Unknown {
    /// The rule.
    pub rule: UnknownFields,
    /// Values dropped and counted.
    pub dropped: u64,
}

impl Unknown {
    /// Takes the value of a field without a column.
    pub fn take(
        &mut self,
        lexer: &mut Lexer<'_>,
        name: &[u8],
        depth: usize,
        unseen: &mut Unseen,
    ) -> Result<(), Failed> {
        match self.rule {
            UnknownFields::Evolve | UnknownFields::Strict => {
                let seen = shape(lexer, depth)?;
                self.dropped += u64::from(seen.to_type().is_some());
                unseen.set(&String::from_utf8_lossy(name), seen)?;
            }
            UnknownFields::Ignore => {
                self.dropped += u64::from(lexer.peek() != b'n');
                lexer.skip()?;
            }
            UnknownFields::Declared => lexer.skip()?,
        }
        Ok(())
    }
}

/// The unseen fields of one object; allocates with the first.
#[derive(Debug, Default)]
pub(crate) struct Unseen(Option<Box<Fields>>);

impl Unseen {
    /// Sets what was seen under a name, in place of an earlier value of that name.
    pub fn set(&mut self, name: &str, shape: Shape) -> Result<(), Failed> {
        if shape == Shape::Null && self.0.is_none() {
            return Ok(());
        }
        Ok(self.0.get_or_insert_default().set(name, shape)?)
    }

    /// Returns the fields as the shape of an object, unless nothing in it has a type yet.
    pub fn into_shape(self) -> Option<Box<Shape>> {
        let mut fields = self.0?.list;
        fields.retain(|(name, shape)| !name.is_empty() && shape.to_type().is_some());
        (!fields.is_empty()).then(|| Box::new(Shape::Object(fields)))
    }
}

/// Names of one object's fields, found exactly or whatever their case.
#[derive(Debug)]
pub(crate) struct Names {
    names: Vec<Box<[u8]>>,
    /// Each as most producers write it, `"name":`; empty where that needs escapes.
    quoted: Vec<Box<[u8]>>,
    lower: HashMap<String, usize>,
    spellings: HashMap<Box<[u8]>, Option<(usize, bool)>>,
    next: usize,
}

impl Names {
    /// Indexes the names.
    pub fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.collect();
        Names {
            lower: names
                .iter()
                .enumerate()
                .rev()
                .map(|(at, name)| (name.to_lowercase(), at))
                .collect(),
            spellings: names
                .iter()
                .enumerate()
                .map(|(at, name)| (name.as_bytes().into(), Some((at, true))))
                .collect(),
            names: names.iter().map(|name| name.as_bytes().into()).collect(),
            quoted: names.iter().map(|name| quoted(name)).collect(),
            next: 0,
        }
    }

    /// Says that another object begins: its first name is the first, as far as anybody knows.
    #[inline]
    pub fn restart(&mut self) {
        self.next = 0;
    }

    /// Goes behind the field name at the position, and its colon, if it is the one that follows the name found last;
    /// returns its index. Where it returns `None` the lexer hasn't moved.
    #[inline]
    pub fn follow(&mut self, lexer: &mut Lexer<'_>) -> Option<usize> {
        let at = if self.next < self.quoted.len() { self.next } else { 0 };
        let quoted = self.quoted.get(at).filter(|quoted| !quoted.is_empty())?;
        lexer.key_is(quoted).then(|| {
            self.next = at + 1;
            at
        })
    }

    /// Returns the index of a name, and whether it is spelt exactly so. Looks first behind the name found last:
    /// records of a topic mostly hold their fields in one order.
    #[inline]
    pub fn find(&mut self, name: &[u8]) -> Option<(usize, bool)> {
        let from = if self.next < self.names.len() { self.next } else { 0 };
        for (ahead, known) in self.names[from..].iter().take(3).enumerate() {
            if **known == *name {
                self.next = from + ahead + 1;
                return Some((from + ahead, true));
            }
        }
        let found = match self.spellings.get(name) {
            Some(found) => *found,
            None => {
                let lower = String::from_utf8_lossy(name).to_lowercase();
                let found = self.lower.get(&lower).map(|at| (*at, false));
                if self.spellings.len() < SPELLINGS_MAX {
                    self.spellings.insert(name.into(), found);
                }
                found
            }
        };
        if let Some((at, _)) = found {
            self.next = at + 1;
        }
        found
    }
}

fn quoted(name: &str) -> Box<[u8]> {
    let plain = name.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
    if plain {
        format!("\"{name}\":").into_bytes().into()
    } else {
        Box::default()
    }
}

/// Tells one spelling of a name from another: 0 for the column's own.
#[inline]
pub(crate) fn spelling(name: &[u8], exact: bool, seed: u64) -> u64 {
    if exact {
        return 0;
    }
    // FNV-1a; a collision would let the last of two spellings win.
    name.iter().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    }) | 1
}

/// The fields of a struct column.
#[derive(Debug)]
pub(crate) struct Group {
    columns: Vec<Column>,
    names: Names,
    spelt: Vec<u64>,
}

/// Values of one column, by their kind.
#[derive(Debug)]
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

/// One column under construction.
#[derive(Debug)]
pub(crate) struct Column {
    /// The field's name.
    pub name: String,
    /// A null is a reject.
    pub required: bool,
    of: Type,
    valid: Vec<bool>,
    store: Store,
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
            of,
            valid: Vec::new(),
            store,
        }
    }

    /// Returns the number of values.
    #[inline]
    pub fn len(&self) -> usize {
        self.valid.len()
    }

    /// Makes room for `rows` more values.
    pub fn reserve(&mut self, rows: usize) {
        self.valid.reserve(rows);
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
        self.valid.push(false);
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

    #[cold]
    fn missing(&self) -> Failed {
        let what = "is required and has no value".to_owned();
        Box::new(Problem::Misfit {
            path: Vec::new(),
            what,
            fits: self.of.clone(),
            wider: None,
        })
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
        self.valid.push(true);
        Ok(unseen)
    }

    #[cold]
    fn misfit(&self, value: &[u8]) -> Failed {
        let mut quote = String::from_utf8_lossy(&value[..value.len().min(QUOTE_MAX)]).into_owned();
        if value.len() > QUOTE_MAX {
            quote.push('…');
        }
        let what = format!("is {}, the value {quote} is not", types::text(&self.of));
        Box::new(Problem::Misfit {
            path: Vec::new(),
            what,
            fits: fitting(&self.of, value),
            wider: wider(&self.of, value).map(Shape::Wider),
        })
    }

    /// Freezes the column as the Arrow type of the plan and leaves it empty.
    pub fn finish(&mut self, to: &DataType) -> ArrayRef {
        let valid = std::mem::take(&mut self.valid);
        let nulls = (!valid.iter().all(|valid| *valid)).then(|| NullBuffer::new(BooleanBuffer::from(valid.as_slice())));
        let rows = valid.len();
        match &mut self.store {
            Store::Boolean(values) => Arc::new(BooleanArray::new(BooleanBuffer::from(std::mem::take(values)), nulls)),
            Store::Int(values) => Arc::new(Int32Array::new(std::mem::take(values).into(), nulls)),
            Store::Long(values) => Arc::new(Int64Array::new(std::mem::take(values).into(), nulls)),
            Store::Float(values) => Arc::new(Float32Array::new(std::mem::take(values).into(), nulls)),
            Store::Double(values) => Arc::new(Float64Array::new(std::mem::take(values).into(), nulls)),
            Store::Decimal { values, .. } => {
                Arc::new(Decimal128Array::new(std::mem::take(values).into(), nulls).with_data_type(to.clone()))
            }
            Store::Date(values) => Arc::new(Date32Array::new(std::mem::take(values).into(), nulls)),
            Store::Time(values) => Arc::new(Time64MicrosecondArray::new(std::mem::take(values).into(), nulls)),
            Store::Timestamp {
                values, nanos: false, ..
            } => {
                let values: ScalarBuffer<i64> = std::mem::take(values).into();
                Arc::new(TimestampMicrosecondArray::new(values, nulls).with_data_type(to.clone()))
            }
            Store::Timestamp { values, .. } => {
                let values: ScalarBuffer<i64> = std::mem::take(values).into();
                Arc::new(TimestampNanosecondArray::new(values, nulls).with_data_type(to.clone()))
            }
            Store::Text { ends, bytes } => {
                let bytes = Buffer::from(std::mem::take(bytes));
                Arc::new(StringArray::new(taken(ends), bytes, nulls))
            }
            Store::Uuid(bytes) => Arc::new(FixedSizeBinaryArray::new(16, std::mem::take(bytes).into(), nulls)),
            Store::Binary { ends, bytes } => {
                let ends = OffsetBuffer::new(std::mem::replace(ends, vec![0]).into());
                Arc::new(LargeBinaryArray::new(ends, std::mem::take(bytes).into(), nulls))
            }
            Store::Fixed { width, bytes, .. } => {
                let width = i32::try_from(*width).expect("a fixed column is at most 2^31 wide");
                Arc::new(FixedSizeBinaryArray::new(width, std::mem::take(bytes).into(), nulls))
            }
            Store::Struct(group) => {
                let fields = struct_fields(to);
                if fields.is_empty() {
                    return Arc::new(StructArray::new_empty_fields(rows, nulls));
                }
                let columns = group
                    .columns
                    .iter_mut()
                    .zip(fields)
                    .map(|(column, field)| column.finish(field.data_type()));
                Arc::new(StructArray::new(fields.clone(), columns.collect(), nulls))
            }
            Store::List { ends, item } => {
                let field = item_field(to);
                let items = item.finish(field.data_type());
                Arc::new(ListArray::new(field.clone(), taken(ends), items, nulls))
            }
            Store::Map { ends, key, value } => {
                let DataType::Map(entry, sorted) = to else {
                    unreachable!("the plan's Arrow type follows its Iceberg type")
                };
                let fields = struct_fields(entry.data_type());
                let columns = vec![key.finish(fields[0].data_type()), value.finish(fields[1].data_type())];
                let entries = StructArray::new(fields.clone(), columns, None);
                Arc::new(MapArray::new(entry.clone(), taken(ends), entries, nulls, *sorted))
            }
        }
    }
}

fn taken(ends: &mut Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(std::mem::replace(ends, vec![0]).into())
}

fn struct_fields(of: &DataType) -> &ArrowFields {
    let DataType::Struct(fields) = of else {
        unreachable!("the plan's Arrow type follows its Iceberg type")
    };
    fields
}

fn item_field(of: &DataType) -> &FieldRef {
    let DataType::List(field) = of else {
        unreachable!("the plan's Arrow type follows its Iceberg type")
    };
    field
}

impl Store {
    /// Appends the value at the position if it is of this kind, else returns `false`.
    #[inline]
    fn scalar(&mut self, lexer: &mut Lexer<'_>, first: u8) -> Result<bool, Fault> {
        // Text first: most values of most topics.
        if let Store::Text { ends, bytes } = self {
            if first == b'"' {
                lexer.string()?.append_to(bytes);
            } else {
                let start = lexer.pos;
                lexer.skip()?;
                bytes.extend_from_slice(lexer.since(start));
            }
            ends.push(bytes.len() as i32);
            return Ok(true);
        }
        if first == b'"' {
            let text = lexer.string()?.bytes();
            return Ok(self.text(&text));
        }
        if let Store::Boolean(values) = self {
            let word = if first == b't' { "true" } else { "false" };
            if matches!(first, b't' | b'f') {
                lexer.word(word)?;
                values.push(first == b't');
            }
            return Ok(matches!(first, b't' | b'f'));
        }
        let Some(number) = lexer.number()? else {
            return Ok(false);
        };
        Ok(match self {
            Store::Int(values) => push(values, number.long().and_then(|value| i32::try_from(value).ok())),
            Store::Long(values) => push(values, number.long()),
            Store::Float(values) => push(
                values,
                number.text().parse().ok().filter(|value: &f32| value.is_finite()),
            ),
            Store::Double(values) => push(values, number.double()),
            Store::Decimal {
                values,
                precision,
                scale,
            } => {
                let value = scalar::decimal(number.text(), i64::from(*scale));
                push(
                    values,
                    value.filter(|value| value.unsigned_abs() < 10u128.pow(*precision)),
                )
            }
            // Epoch milliseconds, with a fraction down to the unit of the column.
            Store::Timestamp { values, nanos, .. } => {
                let value = scalar::decimal(number.text(), if *nanos { 6 } else { 3 });
                push(values, value.and_then(|value| i64::try_from(value).ok()))
            }
            _ => false,
        })
    }

    /// Appends a value given as text, in JSON or as a map's key, if the text is one of this kind.
    fn text(&mut self, text: &[u8]) -> bool {
        match self {
            Store::Decimal {
                values,
                precision,
                scale,
            } if is_number(text) => {
                let text = std::str::from_utf8(text).expect("a number is ASCII");
                let value = scalar::decimal(text, i64::from(*scale));
                push(
                    values,
                    value.filter(|value| value.unsigned_abs() < 10u128.pow(*precision)),
                )
            }
            Store::Date(values) => push(values, scalar::date(text)),
            Store::Time(values) => {
                let micros = |(seconds, nanos)| seconds * 1_000_000 + i64::from(nanos / 1000);
                push(values, scalar::time(text).map(micros))
            }
            Store::Timestamp { values, zoned, nanos } => {
                let moment = scalar::moment(text).filter(|moment| moment.zoned == *zoned);
                let value = moment.and_then(|moment| {
                    let (unit, part) = if *nanos {
                        (1_000_000_000, moment.nanos)
                    } else {
                        (1_000_000, moment.nanos / 1000)
                    };
                    moment.seconds.checked_mul(unit)?.checked_add(i64::from(part))
                });
                push(values, value)
            }
            Store::Uuid(bytes) => match uuid::Uuid::try_parse_ascii(text) {
                Ok(uuid) => {
                    bytes.extend_from_slice(uuid.as_bytes());
                    true
                }
                Err(_) => false,
            },
            Store::Binary { ends, bytes } => {
                let fits = base64_into(text, bytes);
                if fits {
                    ends.push(bytes.len() as i64);
                }
                fits
            }
            Store::Fixed { width, bytes, scratch } => {
                scratch.clear();
                let fits = base64_into(text, scratch) && scratch.len() == *width;
                if fits {
                    bytes.extend_from_slice(scratch);
                }
                fits
            }
            Store::Text { ends, bytes } => {
                bytes.extend_from_slice(text);
                ends.push(bytes.len() as i32);
                true
            }
            _ => false,
        }
    }
}

#[inline]
fn push<T>(values: &mut Vec<T>, value: Option<T>) -> bool {
    let fits = value.is_some();
    values.extend(value);
    fits
}

fn base64_into(text: &[u8], bytes: &mut Vec<u8>) -> bool {
    let url = memchr::memchr2(b'-', b'_', text).is_some();
    (if url { BASE64_URL } else { BASE64 }).decode_vec(text, bytes).is_ok()
}

fn deeper(depth: usize) -> Result<usize, Failed> {
    if depth < DEPTH_MAX {
        return Ok(depth + 1);
    }
    Err(Box::new(Problem::Refused(format!(
        "the value is nested more than {DEPTH_MAX} deep"
    ))))
}

impl Group {
    fn fill(
        &mut self,
        lexer: &mut Lexer<'_>,
        row: usize,
        depth: usize,
        unknown: &mut Unknown,
        of: &Type,
    ) -> Result<Option<Box<Shape>>, Failed> {
        let depth = deeper(depth)?;
        let mut unseen = Unseen::default();
        // Fields whose value doesn't fit: forgiven if the same name comes again, since the last one counts.
        let mut late: Vec<(usize, Failed)> = Vec::new();
        self.names.restart();
        let mut more = lexer.open(b'}');
        while more {
            let (found, key) = match self.names.follow(lexer) {
                Some(at) => (Some((at, true)), Cow::Borrowed(&b""[..])),
                None => {
                    let key = lexer.key()?.bytes();
                    (self.names.find(&key), key)
                }
            };
            if let Some((at, exact)) = found {
                let column = &mut self.columns[at];
                let spelt = spelling(&key, exact, 0);
                if column.len() > row || late.iter().any(|(other, _)| *other == at) {
                    if self.spelt[at] != spelt {
                        return Err(both_spellings(&column.name));
                    }
                    column.truncate(row);
                    late.retain(|(other, _)| *other != at);
                    unseen.set(&column.name, Shape::Null)?;
                }
                self.spelt[at] = spelt;
                let start = lexer.pos;
                match column.fill(lexer, depth, unknown) {
                    Ok(None) => {}
                    Ok(Some(shape)) => unseen.set(&column.name, *shape)?,
                    Err(failed) => {
                        let failed = forgivable(failed, lexer, start)?;
                        late.push((
                            at,
                            within(failed, Step::Field(&column.name), |inner| with_field(of, at, inner)),
                        ));
                        column.truncate(row);
                    }
                }
            } else {
                unknown.take(lexer, &key, depth, &mut unseen)?;
            }
            more = lexer.more(b'}')?;
        }
        if let Some((_, failed)) = late.into_iter().next() {
            return Err(failed);
        }
        for (at, column) in self.columns.iter_mut().enumerate() {
            if column.len() == row {
                let name = &column.name;
                let missing = if column.required { Err(column.missing()) } else { Ok(()) };
                missing.map_err(|failed| within(failed, Step::Field(name), |inner| with_field(of, at, inner)))?;
                column.push_null();
            }
        }
        Ok(unseen.into_shape())
    }
}

/// Goes behind the value at `start` if only its kind is wrong; anything else stays an error.
pub(crate) fn forgivable(failed: Failed, lexer: &mut Lexer<'_>, start: usize) -> Result<Failed, Failed> {
    if matches!(*failed, Problem::Fault(_)) {
        return Err(failed);
    }
    lexer.pos = start;
    lexer.skip()?;
    Ok(failed)
}

fn with_field(of: &Type, at: usize, inner: Type) -> Type {
    let Type::Struct(fields) = of else { return inner };
    let mut fields = fields.fields().to_vec();
    let mut field = (*fields[at]).clone();
    field.field_type = Box::new(inner);
    fields[at] = Arc::new(field);
    Type::Struct(StructType::new(fields))
}

fn fill_list(
    ends: &mut Vec<i32>,
    item: &mut Column,
    lexer: &mut Lexer<'_>,
    depth: usize,
    unknown: &mut Unknown,
) -> Result<Option<Box<Shape>>, Failed> {
    let depth = deeper(depth)?;
    let mut unseen = Shape::Null;
    let mut more = lexer.open(b']');
    while more {
        let filled = item.fill(lexer, depth, unknown).map_err(|failed| {
            within(failed, Step::Item, |inner| {
                Type::List(ListType::new(Arc::new(NestedField::list_element(0, inner, false))))
            })
        })?;
        if let Some(shape) = filled {
            unseen.merge(*shape);
        }
        more = lexer.more(b']')?;
    }
    ends.push(item.len() as i32);
    Ok((unseen != Shape::Null).then(|| Box::new(Shape::List(Box::new(unseen)))))
}

fn fill_map(
    ends: &mut Vec<i32>,
    keys: &mut Column,
    values: &mut Column,
    lexer: &mut Lexer<'_>,
    depth: usize,
    unknown: &mut Unknown,
) -> Result<Option<Box<Shape>>, Failed> {
    let depth = deeper(depth)?;
    // Of equal keys the last counts: all keys are found first, then the values that count are read.
    let mut entries: Vec<(Cow<'_, [u8]>, usize)> = Vec::new();
    let mut last: HashMap<Cow<'_, [u8]>, usize> = HashMap::new();
    let mut more = lexer.open(b'}');
    while more {
        let key = lexer.key()?.bytes();
        match last.get(&key) {
            Some(at) => entries[*at].1 = lexer.pos,
            None => {
                last.insert(key.clone(), entries.len());
                entries.push((key, lexer.pos));
            }
        }
        lexer.skip()?;
        more = lexer.more(b'}')?;
    }
    let end = lexer.pos;
    let mut unseen = Shape::Null;
    for (key, value) in entries {
        if !keys.push_key(&key)? {
            let quoted = format!("\"{}\"", String::from_utf8_lossy(&key));
            let of = values.of.clone();
            return Err(within(keys.misfit(quoted.as_bytes()), Step::MapKey, |inner| {
                Type::Map(MapType::optional(0, inner, 0, of))
            }));
        }
        lexer.pos = value;
        let of = keys.of.clone();
        let filled = values.fill(lexer, depth, unknown).map_err(|failed| {
            within(failed, Step::MapValue, |inner| {
                Type::Map(MapType::optional(0, of, 0, inner))
            })
        })?;
        if let Some(shape) = filled {
            unseen.merge(*shape);
        }
    }
    lexer.pos = end;
    ends.push(keys.len() as i32);
    Ok((unseen != Shape::Null).then(|| Box::new(Shape::Object(vec![("value".to_owned(), unseen)]))))
}

impl Column {
    /// Appends a map's key: text as it is, numbers and booleans as JSON writes them.
    fn push_key(&mut self, key: &[u8]) -> Result<bool, Failed> {
        let mut fits = self.store.text(key);
        if !fits && (is_number(key) || matches!(key, b"true" | b"false")) {
            fits = self.store.scalar(&mut Lexer::new(key), key[0])?;
        }
        if fits {
            self.valid.push(true);
        }
        Ok(fits)
    }
}

/// Returns the type that Iceberg lets `of` be widened to and that takes a value which `of` doesn't.
fn wider(of: &Type, value: &[u8]) -> Option<PrimitiveType> {
    let Type::Primitive(narrow) = of else { return None };
    let mut lexer = Lexer::new(value);
    match narrow {
        PrimitiveType::Int => lexer.number().ok()??.long().map(|_| PrimitiveType::Long),
        PrimitiveType::Float => lexer.number().ok()??.double().map(|_| PrimitiveType::Double),
        PrimitiveType::Decimal { scale, .. } => {
            let held;
            let text = if lexer.peek() == b'"' {
                held = lexer.string().ok()?.bytes();
                std::str::from_utf8(&held)
                    .ok()
                    .filter(|text| is_number(text.as_bytes()))?
            } else {
                lexer.number().ok()??.text()
            };
            let unscaled = scalar::decimal(text, i64::from(*scale))?.unsigned_abs();
            let precision = unscaled.checked_ilog10()? + 1;
            (precision <= 38).then_some(PrimitiveType::Decimal {
                precision,
                scale: *scale,
            })
        }
        _ => None,
    }
}

/// Returns the simplest type that takes a value which `of` doesn't.
fn fitting(of: &Type, value: &[u8]) -> Type {
    let string = PrimitiveType::String;
    let fits = match value.first() {
        Some(b't' | b'f') => PrimitiveType::Boolean,
        Some(b'"') => {
            let moment = Lexer::new(value)
                .string()
                .ok()
                .and_then(|text| scalar::moment(&text.bytes()));
            match (of, moment) {
                (Type::Primitive(PrimitiveType::Timestamp), Some(moment)) if moment.zoned => PrimitiveType::Timestamptz,
                (Type::Primitive(PrimitiveType::Timestamptz), Some(moment)) if !moment.zoned => {
                    PrimitiveType::Timestamp
                }
                _ => string,
            }
        }
        Some(b'-' | b'0'..=b'9') if !matches!(of, Type::Primitive(PrimitiveType::Decimal { .. })) => {
            match Lexer::new(value).number() {
                Ok(Some(number)) if number.long().is_some() => PrimitiveType::Long,
                Ok(Some(number)) if !number.fraction && !number.exponent => match scalar::decimal(number.text(), 0) {
                    Some(value) if value.unsigned_abs() < 10u128.pow(38) => PrimitiveType::Decimal {
                        precision: 38,
                        scale: 0,
                    },
                    _ => string,
                },
                Ok(Some(number)) if number.double().is_some() => PrimitiveType::Double,
                _ => string,
            }
        }
        _ => string,
    };
    Type::Primitive(fits)
}
