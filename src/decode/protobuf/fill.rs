//! Values of one kind into columns of one type.

use std::io::Write as _;

use super::super::column::Column;
use super::super::framed::{Bad, BadRecord};
use super::message::MessageFill;
use super::reader::{BYTES, EIGHT, FOUR, Reader, VARINT};
use super::text;
use crate::config::types;
use crate::schema::protobuf::{Kind, Number, ProtoSchema};

/// How a value is read into a column.
#[derive(Debug)]
pub(super) enum Fill {
    /// Stands in where there is a difference: such a plan never runs.
    Never,
    Bool,
    /// An integer that may be too long for the column.
    Int(Number),
    Long(Number),
    /// Times a power of ten.
    Decimal(Number, i128),
    ToFloat(Number),
    ToDouble(Number),
    /// Milliseconds since 1970.
    Millis(Number),
    Float,
    FloatToDouble,
    Double,
    DoubleToFloat,
    /// Bytes or a string as they are.
    Bytes,
    /// So many bytes as they are.
    Sized(usize),
    /// Text of a kind that the column reads.
    Parsed,
    /// The name of an enum's value.
    Enum(Symbols),
    /// Any value as text.
    Text(Kind),
    Message(Box<MessageFill>),
}

/// The names of an enum's values.
#[derive(Debug)]
pub(super) struct Symbols {
    /// By number, ascending.
    values: Box<[(i32, Box<[u8]>)]>,
    /// The numbers are the places.
    dense: bool,
}

impl Symbols {
    /// Takes numbers in ascending order.
    pub fn new(values: &[(i32, String)]) -> Self {
        let dense = values.iter().zip(0..).all(|((number, _), at)| *number == at);
        let values = values.iter().map(|(number, name)| (*number, name.as_bytes().into()));
        Symbols {
            values: values.collect(),
            dense,
        }
    }

    #[inline]
    fn name(&self, number: i32) -> Option<&[u8]> {
        let at = match self.dense {
            true => usize::try_from(number).ok()?,
            false => self.values.binary_search_by_key(&number, |(number, _)| *number).ok()?,
        };
        self.values.get(at).map(|(_, name)| &**name)
    }
}

/// Returns the wire type of a kind's values.
pub(super) fn wire(of: Kind) -> u8 {
    match of {
        Kind::Bool | Kind::Enum(_) => VARINT,
        Kind::Number(Number::Fixed32 | Number::Sfixed32) | Kind::Float => FOUR,
        Kind::Number(Number::Fixed64 | Number::Sfixed64) | Kind::Double => EIGHT,
        Kind::Number(_) => VARINT,
        Kind::String | Kind::Bytes | Kind::Message(_) => BYTES,
    }
}

impl Fill {
    /// Reads one value into a column; its wire type is right.
    #[inline(always)]
    pub fn run(&self, reader: &mut Reader<'_>, column: &mut Column) -> Result<(), Bad> {
        // What most values are is done in place; a call of the whole costs as much as one of these.
        match self {
            Fill::Bool => column.push_boolean(reader.varint()? != 0),
            // Of more than 32 bits the low ones count: a negative number is written with 64.
            Fill::Int(Number::Int32) => column.push_int(reader.varint()? as i32),
            Fill::Long(Number::Int64) => column.push_long(reader.varint()? as i64),
            Fill::Double => column.push_double(reader.double()?),
            Fill::Bytes => {
                let (from, length) = reader.head()?;
                column.push_head(from, length);
            }
            _ => return self.run_any(reader, column),
        }
        Ok(())
    }

    #[inline(never)]
    fn run_any(&self, reader: &mut Reader<'_>, column: &mut Column) -> Result<(), Bad> {
        match self {
            Fill::Never => unreachable!("a plan with differences isn't made"),
            Fill::Bool | Fill::Long(Number::Int64) | Fill::Double | Fill::Bytes => {
                unreachable!("it was done in place")
            }
            Fill::Int(of) => {
                let value = reader.wide(*of)?;
                let value = i32::try_from(value).map_err(|_| misfit(reader, column, &value))?;
                column.push_int(value);
            }
            Fill::Long(of @ (Number::Uint64 | Number::Fixed64)) => {
                let value = reader.wide(*of)?;
                let value = i64::try_from(value).map_err(|_| misfit(reader, column, &value))?;
                column.push_long(value);
            }
            Fill::Long(of) => column.push_long(reader.long(*of)?),
            Fill::Decimal(of, times) => {
                let value = reader.wide(*of)?;
                if !value
                    .checked_mul(*times)
                    .is_some_and(|value| column.push_decimal(value))
                {
                    return Err(misfit(reader, column, &value));
                }
            }
            Fill::ToFloat(of) => column.push_float(reader.wide(*of)? as f32),
            Fill::ToDouble(of) => column.push_double(reader.wide(*of)? as f64),
            Fill::Millis(of) => {
                let value = reader.wide(*of)?;
                let micros = i64::try_from(value).ok().and_then(|value| value.checked_mul(1000));
                column.push_long(micros.ok_or_else(|| misfit(reader, column, &value))?);
            }
            Fill::Float => column.push_float(reader.float()?),
            Fill::FloatToDouble => column.push_double(f64::from(reader.float()?)),
            Fill::DoubleToFloat => {
                let value = reader.double()?;
                if value.is_finite() && !(value as f32).is_finite() {
                    return Err(misfit(reader, column, &value));
                }
                column.push_float(value as f32);
            }
            Fill::Sized(width) => {
                let bytes = reader.bytes()?;
                if bytes.len() != *width {
                    return Err(misfit(reader, column, &format_args!("of {} bytes", bytes.len())));
                }
                column.push_bytes(bytes);
            }
            Fill::Parsed => {
                let text = reader.bytes()?;
                column.push_parsed(text).map_err(BadRecord::value)?;
            }
            Fill::Enum(symbols) => {
                let number = reader.varint()? as i32;
                match symbols.name(number) {
                    Some(name) => {
                        reader.spend_text(name)?;
                        column.push_bytes(name);
                    }
                    None => digits(column, number),
                }
            }
            Fill::Text(of) => column.push_text(|out| text::write(reader, *of, out))?,
            Fill::Message(fill) => {
                let body = reader.body(0, BYTES)?;
                let outer = reader.enter(body)?;
                fill.run(reader, column)?;
                reader.leave(outer);
            }
        }
        Ok(())
    }

    /// Appends the zero of the field's kind: what a field without presence has where a record lacks it.
    pub fn push_zero(&self, schema: &ProtoSchema, column: &mut Column) -> Result<(), Bad> {
        match self {
            Fill::Bool => column.push_boolean(false),
            Fill::Int(_) => column.push_int(0),
            Fill::Long(_) => column.push_long(0),
            Fill::Float => column.push_float(0.0),
            Fill::Double | Fill::FloatToDouble => column.push_double(0.0),
            Fill::Bytes => column.push_bytes(b""),
            // Text that is unset stands for none of the column's values.
            Fill::Parsed | Fill::Sized(_) => column.push_missing().map_err(BadRecord::value)?,
            fill => fill.run(&mut Reader::of_zeros(schema), column)?,
        }
        Ok(())
    }
}

#[cold]
fn digits(column: &mut Column, number: i32) {
    let written: Result<(), std::io::Error> = column.push_text(|out| write!(out, "{number}"));
    written.expect("a vector takes all");
}

#[cold]
pub(super) fn misfit(reader: &Reader<'_>, column: &Column, value: &dyn std::fmt::Display) -> Bad {
    reader.bad(format!("the value {value} doesn't fit {}", types::text(column.of())))
}
