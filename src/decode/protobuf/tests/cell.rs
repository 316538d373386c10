//! One value of an Arrow column, to be compared and shown.

use std::collections::BTreeMap;
use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    /// Integers, and what is counted: days, microseconds, unscaled decimals.
    Number(i128),
    /// By its bits: not a number is one too.
    Float(u64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Cell>),
    Struct(Vec<Cell>),
    Map(BTreeMap<Cell, Cell>),
}

impl Cell {
    pub fn float(value: f64) -> Cell {
        Cell::Float(if value.is_nan() { f64::NAN } else { value }.to_bits())
    }

    pub fn new(array: &ArrayRef, at: usize) -> Cell {
        if array.is_null(at) {
            return Cell::Null;
        }
        match array.data_type() {
            DataType::Boolean => Cell::Bool(array.as_boolean().value(at)),
            DataType::Int32 => Cell::Number(array.as_primitive::<Int32Type>().value(at).into()),
            DataType::Date32 => Cell::Number(array.as_primitive::<Date32Type>().value(at).into()),
            DataType::Int64 => Cell::Number(array.as_primitive::<Int64Type>().value(at).into()),
            DataType::Time64(_) => Cell::Number(array.as_primitive::<Time64MicrosecondType>().value(at).into()),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                Cell::Number(array.as_primitive::<TimestampNanosecondType>().value(at).into())
            }
            DataType::Timestamp(..) => Cell::Number(array.as_primitive::<TimestampMicrosecondType>().value(at).into()),
            DataType::Decimal128(..) => Cell::Number(array.as_primitive::<Decimal128Type>().value(at)),
            DataType::Float32 => Cell::float(array.as_primitive::<Float32Type>().value(at).into()),
            DataType::Float64 => Cell::float(array.as_primitive::<Float64Type>().value(at)),
            DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(at).to_owned()),
            DataType::LargeBinary => Cell::Bytes(array.as_binary::<i64>().value(at).to_vec()),
            DataType::FixedSizeBinary(_) => Cell::Bytes(array.as_fixed_size_binary().value(at).to_vec()),
            DataType::List(_) => {
                let items = array.as_list::<i32>().value(at);
                Cell::List((0..items.len()).map(|at| Cell::new(&items, at)).collect())
            }
            DataType::Struct(_) => {
                let columns = array.as_struct().columns().iter();
                Cell::Struct(columns.map(|column| Cell::new(column, at)).collect())
            }
            DataType::Map(..) => {
                let entries = array.as_map().value(at);
                let cells =
                    (0..entries.len()).map(|at| (Cell::new(entries.column(0), at), Cell::new(entries.column(1), at)));
                let map: BTreeMap<_, _> = cells.collect();
                assert_eq!(map.len(), entries.len(), "each key is there once");
                Cell::Map(map)
            }
            other => panic!("no column is {other}"),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |cells: &[Cell]| cells.iter().map(Cell::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Cell::Null => f.write_str("null"),
            Cell::Bool(value) => write!(f, "{value}"),
            Cell::Number(value) => write!(f, "{value}"),
            Cell::Float(bits) => write!(f, "{:?}", f64::from_bits(*bits)),
            Cell::Text(text) => write!(f, "{text:?}"),
            Cell::Bytes(bytes) => write!(f, "{bytes:?}"),
            Cell::List(items) => write!(f, "[{}]", joined(items)),
            Cell::Struct(fields) => write!(f, "({})", joined(fields)),
            Cell::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| format!("{key}: {value}"));
                write!(f, "{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }
}
