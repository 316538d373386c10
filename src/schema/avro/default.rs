//! Defaults: the value that a reader takes for a field which a record lacks, as the bytes of a record that has it.

use serde_json::Value;

use super::{Avro, AvroSchema, NamedType};

/// Defaults inside each other; a schema can't write more, since its JSON is no deeper.
const DEPTH_MAX: usize = 128;

/// Writes a default as Avro writes values of its type.
///
/// A union's default is of its first arm; of another one where it fits only that, as producers write it all the same.
///
/// # Errors
/// What doesn't fit the type.
///
/// Source: Apache Avro 1.12 specification, "Complex Types", records: `default`.
pub fn encode(schema: &AvroSchema, of: &Avro, default: &Value) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    write(schema, of, default, &mut bytes, 0)?;
    Ok(bytes)
}

fn write(schema: &AvroSchema, of: &Avro, value: &Value, bytes: &mut Vec<u8>, depth: usize) -> Result<(), String> {
    let misfit = || format!("the default `{value}` doesn't fit its type");
    if depth > DEPTH_MAX {
        return Err(misfit());
    }
    match of {
        Avro::Null if value.is_null() => {}
        Avro::Boolean => bytes.push(u8::from(value.as_bool().ok_or_else(misfit)?)),
        Avro::Int(_) => {
            let value = value.as_i64().filter(|value| i32::try_from(*value).is_ok());
            long(value.ok_or_else(misfit)?, bytes);
        }
        Avro::Long(_) => long(value.as_i64().ok_or_else(misfit)?, bytes),
        Avro::Float => bytes.extend((float(value).ok_or_else(misfit)? as f32).to_le_bytes()),
        Avro::Double => bytes.extend(float(value).ok_or_else(misfit)?.to_le_bytes()),
        Avro::Bytes(_) => {
            let value = latin1(value).ok_or_else(misfit)?;
            long(value.len() as i64, bytes);
            bytes.extend(value);
        }
        Avro::String(_) => {
            let text = value.as_str().ok_or_else(misfit)?;
            long(text.len() as i64, bytes);
            bytes.extend(text.as_bytes());
        }
        Avro::Array(items) => {
            let values = value.as_array().ok_or_else(misfit)?;
            if !values.is_empty() {
                long(values.len() as i64, bytes);
            }
            for value in values {
                write(schema, items, value, bytes, depth + 1)?;
            }
            bytes.push(0);
        }
        Avro::Map(of) => {
            let values = value.as_object().ok_or_else(misfit)?;
            if !values.is_empty() {
                long(values.len() as i64, bytes);
            }
            for (key, value) in values {
                long(key.len() as i64, bytes);
                bytes.extend(key.as_bytes());
                write(schema, of, value, bytes, depth + 1)?;
            }
            bytes.push(0);
        }
        Avro::Union(arms) => {
            let start = bytes.len();
            for (index, arm) in arms.iter().enumerate() {
                long(index as i64, bytes);
                if write(schema, arm, value, bytes, depth + 1).is_ok() {
                    return Ok(());
                }
                bytes.truncate(start);
            }
            return Err(misfit());
        }
        Avro::Named(index) => match &schema.named[*index].of {
            NamedType::Enum(symbols) => {
                let at = symbols
                    .iter()
                    .position(|symbol| Some(symbol.as_str()) == value.as_str());
                long(at.ok_or_else(misfit)? as i64, bytes);
            }
            NamedType::Fixed(size, _) => {
                let value = latin1(value).filter(|value| value.len() == *size);
                bytes.extend(value.ok_or_else(misfit)?);
            }
            NamedType::Record(fields) => {
                let values = value.as_object().ok_or_else(misfit)?;
                for field in fields {
                    let value = values.get(&field.name).or(field.default.as_ref());
                    write(schema, &field.of, value.ok_or_else(misfit)?, bytes, depth + 1)?;
                }
            }
        },
        _ => return Err(misfit()),
    }
    Ok(())
}

fn float(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some("NaN") => Some(f64::NAN),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        _ => value.as_f64(),
    }
}

/// Bytes are written as text whose characters up to U+00FF are the bytes.
fn latin1(value: &Value) -> Option<Vec<u8>> {
    value
        .as_str()?
        .chars()
        .map(|letter| u8::try_from(u32::from(letter)).ok())
        .collect()
}

/// Zigzag, seven bits a byte, the lowest first.
fn long(value: i64, bytes: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}
