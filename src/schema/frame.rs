//! Wire framing: which schema a value was written with, and where its body begins.
//!
//! Sources: Confluent Platform 8.0, "Wire format" (the five-byte prefix, message indexes, the id in a header); Apache Avro
//! 1.12 specification, "Single-object encoding".

use std::fmt;

use arrow::array::{Array, AsArray, ListArray};
use uuid::Uuid;

/// The header that names the schema of a record's value.
pub const VALUE_HEADER: &str = "__value_schema_id";

/// The header that names the schema of a record's key.
pub const KEY_HEADER: &str = "__key_schema_id";

/// Begins a value that is framed by an id.
const MAGIC_ID: u8 = 0;

/// Begins a header that holds a GUID.
const MAGIC_GUID: u8 = 1;

/// Begin a value in Avro's single-object encoding.
const SINGLE_OBJECT: [u8; 2] = [0xC3, 0x01];

/// The most message indexes: one for each level of messages inside each other.
const INDEXES_MAX: i64 = 64;

/// What a schema is called on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SchemaName {
    /// Its id in the registry.
    Id(i32),
    /// Its GUID, the same in every registry.
    Guid(Uuid),
    /// The one in `schemaFile`.
    File,
}

/// Which part of a record a schema is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Part {
    /// Its value.
    #[default]
    Value,
    /// Its key.
    Key,
}

impl Part {
    /// The header that names the schema.
    pub fn header(self) -> &'static str {
        match self {
            Part::Value => VALUE_HEADER,
            Part::Key => KEY_HEADER,
        }
    }
}

/// Which type a value, or a key, was written with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaKey {
    /// What was written.
    pub part: Part,
    /// The schema.
    pub name: SchemaName,
    /// Protobuf: the message in it, by its place at each level from the file down. Else empty.
    pub message: Vec<i32>,
}

impl SchemaKey {
    /// The schema of `schemaFile`.
    pub fn file() -> Self {
        SchemaKey {
            part: Part::Value,
            name: SchemaName::File,
            message: Vec::new(),
        }
    }

    /// The schema of an id in the registry.
    pub fn id(id: i32) -> Self {
        SchemaKey {
            part: Part::Value,
            name: SchemaName::Id(id),
            message: Vec::new(),
        }
    }

    /// The same schema, of another part of the record.
    #[must_use]
    pub fn of(mut self, part: Part) -> Self {
        self.part = part;
        self
    }
}

impl fmt::Display for SchemaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            SchemaName::Id(id) => write!(f, "schema {id}")?,
            SchemaName::Guid(guid) => write!(f, "schema {guid}")?,
            SchemaName::File => f.write_str("the schema of `schemaFile`")?,
        }
        if self.part == Part::Key {
            f.write_str(" of keys")?;
        }
        match self.message.as_slice() {
            [] => Ok(()),
            message => write!(f, ", message {message:?}"),
        }
    }
}

/// A framed value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framed<'a> {
    /// What names the schema: equal bytes name equal schemas.
    pub prefix: &'a [u8],
    /// What was written with it.
    pub body: &'a [u8],
}

/// Splits a value that begins with the id of its schema.
///
/// - `indexes`: the id is followed by message indexes, as Protobuf's is.
///
/// # Errors
/// Why it isn't framed.
#[inline]
pub fn split(value: &[u8], indexes: bool) -> Result<Framed<'_>, String> {
    if value.len() < 5 || value[0] != MAGIC_ID {
        return Err(unframed(value));
    }
    let length = match indexes {
        false => 5,
        true => 5 + indexes_length(&value[5..])?,
    };
    let (prefix, body) = value.split_at(length);
    Ok(Framed { prefix, body })
}

/// Reads the prefix of a value.
///
/// # Errors
/// Why it names no schema.
pub fn key(prefix: &[u8]) -> Result<SchemaKey, String> {
    let id = prefix
        .get(1..5)
        .filter(|_| prefix[0] == MAGIC_ID)
        .and_then(|id| id.try_into().ok())
        .ok_or_else(|| unframed(prefix))?;
    Ok(SchemaKey {
        part: Part::Value,
        name: SchemaName::Id(i32::from_be_bytes(id)),
        message: read_indexes(&prefix[5..])?,
    })
}

/// Reads the header of a record whose schema is named there; what follows the GUID are message indexes.
///
/// # Errors
/// Why it names no schema.
pub fn header_key(header: &[u8], indexes: bool) -> Result<SchemaKey, String> {
    let guid = header
        .get(1..17)
        .filter(|_| header[0] == MAGIC_GUID)
        .and_then(|guid| guid.try_into().ok());
    let name = match guid {
        Some(guid) => SchemaName::Guid(Uuid::from_bytes(guid)),
        None => {
            return header
                .get(1..5)
                .map_or_else(|| Err(odd_header(header)), |_| key(header));
        }
    };
    let message = match indexes {
        true => read_indexes(&header[17..])?,
        false => Vec::new(),
    };
    Ok(SchemaKey {
        part: Part::Value,
        name,
        message,
    })
}

/// Returns the registry's id that a value begins with, if it begins with one.
pub fn id(value: &[u8]) -> Option<i32> {
    let id = value.get(1..5).filter(|_| value[0] == MAGIC_ID)?;
    Some(i32::from_be_bytes(id.try_into().expect("four bytes")))
}

/// Returns the fingerprint and the body of a value in Avro's single-object encoding.
pub fn single_object(value: &[u8]) -> Option<(u64, &[u8])> {
    let rest = value.strip_prefix(&SINGLE_OBJECT)?;
    let (fingerprint, body) = rest.split_at_checked(8)?;
    Some((u64::from_le_bytes(fingerprint.try_into().expect("eight bytes")), body))
}

/// Returns the last header of a name in row `row`.
///
/// - `headers`: as [`crate::chunk::Chunk::headers`] has them.
pub fn header<'a>(headers: &'a ListArray, row: usize, name: &str) -> Option<&'a [u8]> {
    if headers.is_null(row) {
        return None;
    }
    let ends = headers.value_offsets();
    let entries = headers.values().as_struct();
    let (keys, values) = (
        entries.column(0).as_string::<i32>(),
        entries.column(1).as_binary::<i32>(),
    );
    let found = (ends[row] as usize..ends[row + 1] as usize)
        .rev()
        .find(|at| keys.value(*at) == name)?;
    values.is_valid(found).then(|| values.value(found))
}

fn indexes_length(bytes: &[u8]) -> Result<usize, String> {
    let mut at = 0;
    let count = varint(bytes, &mut at)?;
    if !(0..=INDEXES_MAX).contains(&count) {
        return Err(format!(
            "the value names {count} message indexes, 0 to {INDEXES_MAX} are possible"
        ));
    }
    for _ in 0..count {
        varint(bytes, &mut at)?;
    }
    Ok(at)
}

fn read_indexes(bytes: &[u8]) -> Result<Vec<i32>, String> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut at = 0;
    let count = varint(bytes, &mut at)?;
    // The first message of a file is what most topics hold: written as no indexes at all.
    if count == 0 {
        return Ok(vec![0]);
    }
    let mut indexes = Vec::new();
    for _ in 0..count.min(INDEXES_MAX) {
        let index = varint(bytes, &mut at)?;
        indexes.push(i32::try_from(index).map_err(|_| format!("the message index {index} is out of range"))?);
    }
    Ok(indexes)
}

/// A zigzag varint.
fn varint(bytes: &[u8], at: &mut usize) -> Result<i64, String> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or("the value ends inside its message indexes")?;
        *at += 1;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err("a message index is longer than 64 bits".to_owned())
}

#[cold]
fn unframed(value: &[u8]) -> String {
    match value.len() {
        0 => "the value is empty, where a 0 byte and the id of its schema begin a framed one".to_owned(),
        length if length < 5 && value[0] == MAGIC_ID => {
            format!("the value has {length} bytes, a 0 byte and the id of its schema alone are 5")
        }
        _ => format!(
            "the value begins with byte {:#04x}, where a 0 byte and the id of its schema begin a framed one",
            value[0]
        ),
    }
}

fn odd_header(header: &[u8]) -> String {
    format!(
        "the header that names the schema has {} bytes, 17 are a version and a GUID",
        header.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_names_a_schema_and_a_message() {
        let check = |value: &[u8], indexes, expect: Result<(SchemaKey, &[u8]), &str>| {
            let found = split(value, indexes).and_then(|framed| Ok((key(framed.prefix)?, framed.body)));
            assert_eq!(found, expect.map_err(str::to_owned), "{value:?}");
        };
        let message = |message: &[i32]| SchemaKey {
            message: message.to_vec(),
            ..SchemaKey::id(258)
        };
        check(&[0, 0, 0, 1, 2, 9], false, Ok((message(&[]), &[9])));
        check(&[0, 0, 0, 1, 2], false, Ok((message(&[]), &[])));
        check(&[0, 0, 0, 1, 2, 0, 9], true, Ok((message(&[0]), &[9])));
        check(&[0, 0, 0, 1, 2, 4, 2, 0, 9], true, Ok((message(&[1, 0]), &[9])));
        check(
            &[0, 0, 0, 1, 2, 4, 2],
            true,
            Err("the value ends inside its message indexes"),
        );
        check(
            &[0, 0, 0, 1, 2, 1],
            true,
            Err("the value names -1 message indexes, 0 to 64 are possible"),
        );
        check(
            &[
                0, 0, 0, 1, 2, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
            ],
            true,
            Err("a message index is longer than 64 bits"),
        );
        check(
            &[0, 0, 0, 1],
            false,
            Err("the value has 4 bytes, a 0 byte and the id of its schema alone are 5"),
        );
        check(
            b"{\"a\":1}",
            false,
            Err("the value begins with byte 0x7b, where a 0 byte and the id of its schema begin a framed one"),
        );
        check(
            b"",
            false,
            Err("the value is empty, where a 0 byte and the id of its schema begin a framed one"),
        );
    }

    #[test]
    fn a_header_names_a_schema() {
        let guid = Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
        let mut header = vec![1];
        header.extend(guid.as_bytes());
        let key = header_key(&header, false).expect("a GUID");
        assert_eq!((key.name, key.message), (SchemaName::Guid(guid), vec![]));
        header.extend([4, 2, 0]);
        let key = header_key(&header, true).expect("a GUID and a message");
        assert_eq!((key.name, key.message), (SchemaName::Guid(guid), vec![1, 0]));
        assert_eq!(header_key(&[0, 0, 0, 0, 7], false), Ok(SchemaKey::id(7)));
        assert_eq!(
            header_key(&[1, 2], false),
            Err("the header that names the schema has 2 bytes, 17 are a version and a GUID".to_owned())
        );
    }

    #[test]
    fn single_objects_carry_a_fingerprint() {
        assert_eq!(
            single_object(&[0xC3, 1, 1, 0, 0, 0, 0, 0, 0, 0, 9]),
            Some((1, &[9][..]))
        );
        assert_eq!(single_object(&[0xC3, 1, 1, 0, 0, 0]), None);
        assert_eq!(single_object(b"x"), None);
    }
}
