//! A record's bytes, read one primitive value after the other.

use super::super::framed::{Bad, BadRecord};
use super::super::room::Room;
use super::super::varint;
use crate::schema::avro::{Avro, AvroSchema, NamedType};

/// Items in a record's arrays that take no bytes, nulls say: more would let a short record fill the memory.
const EMPTY_ITEMS_MAX: usize = 65_536;

/// Values inside each other: more would let a record use up the stack.
pub(super) const DEPTH_MAX: usize = 128;

/// A position in a record's bytes.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// The next byte.
    pub at: usize,
    /// What the record was written with.
    pub schema: &'a AvroSchema,
    /// Values that no column takes.
    pub dropped: u64,
    /// Items without bytes that there may still be.
    empty_left: usize,
    /// What the record may still make.
    pub room: Room,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], schema: &'a AvroSchema) -> Self {
        Reader {
            bytes,
            at: 0,
            schema,
            dropped: 0,
            empty_left: EMPTY_ITEMS_MAX,
            room: Room::of(bytes.len()),
        }
    }

    /// The bytes that are left.
    #[inline]
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    #[cold]
    pub fn bad(&self, what: impl Into<String>) -> Bad {
        BadRecord::at(what.into(), self.at)
    }

    #[cold]
    fn short(&self) -> Bad {
        self.bad("the value ends there")
    }

    /// Takes values off what the record may still make.
    #[inline]
    pub fn spend(&mut self, values: usize) -> Result<(), Bad> {
        self.room.spend(values).map_err(|why| self.bad(why))
    }

    /// Takes text off that the schema has, and the record doesn't.
    #[inline]
    pub fn spend_text(&mut self, text: &[u8]) -> Result<(), Bad> {
        self.room.spend_text(text.len()).map_err(|why| self.bad(why))
    }

    /// Checks that the record is over.
    #[inline]
    pub fn end(&self) -> Result<(), Bad> {
        if self.left() == 0 {
            return Ok(());
        }
        Err(self.bad(format!(
            "{} bytes are left behind the record: it was written with another schema",
            self.left()
        )))
    }

    #[inline]
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Bad> {
        match self.bytes[self.at..].get(..length) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => Err(self.short()),
        }
    }

    #[inline]
    pub fn boolean(&mut self) -> Result<bool, Bad> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            other => Err(self.bad(format!("a boolean is 0 or 1, not {}", other[0]))),
        }
    }

    /// A zigzag varint.
    #[inline(always)]
    pub fn long(&mut self) -> Result<i64, Bad> {
        let value = match self.bytes.get(self.at) {
            Some(byte) if *byte < 0x80 => {
                self.at += 1;
                u64::from(*byte)
            }
            _ => self.long_varint()?,
        };
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, Bad> {
        let (value, length) = varint::read(&self.bytes[self.at..]);
        match length {
            1.. => {
                self.at += length;
                Ok(value)
            }
            0 if self.left() >= varint::BYTES_MAX => Err(self.bad("a number has more than 64 bits")),
            0 => Err(self.short()),
        }
    }

    #[inline(always)]
    pub fn int(&mut self) -> Result<i32, Bad> {
        let value = self.long()?;
        match i32::try_from(value) {
            Ok(value) => Ok(value),
            Err(_) => Err(self.bad_int(value)),
        }
    }

    #[cold]
    fn bad_int(&self, value: i64) -> Bad {
        self.bad(format!("an int has 32 bits, {value} has more"))
    }

    #[inline]
    pub fn float(&mut self) -> Result<f32, Bad> {
        let bytes = self.take(4)?.try_into().expect("four bytes");
        Ok(f32::from_le_bytes(bytes))
    }

    #[inline]
    pub fn double(&mut self) -> Result<f64, Bad> {
        let bytes = self.take(8)?.try_into().expect("eight bytes");
        Ok(f64::from_le_bytes(bytes))
    }

    /// The content of bytes or a string.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], Bad> {
        let (from, length) = self.head()?;
        Ok(&from[..length])
    }

    /// The content of bytes or a string, with all that is behind it, and its length.
    #[inline(always)]
    pub fn head(&mut self) -> Result<(&'a [u8], usize), Bad> {
        let length = self.long()?;
        let from = &self.bytes[self.at..];
        match usize::try_from(length) {
            Ok(length) if length <= from.len() => {
                self.at += length;
                Ok((from, length))
            }
            _ => Err(self.bad_length(length)),
        }
    }

    #[cold]
    fn bad_length(&self, length: i64) -> Bad {
        match length {
            0.. => self.short(),
            _ => self.bad(format!("a length is {length}")),
        }
    }

    /// The index of a union's arm, of so many.
    #[inline(always)]
    pub fn arm(&mut self, arms: usize) -> Result<usize, Bad> {
        let index = self.long()?;
        match usize::try_from(index) {
            Ok(arm) if arm < arms => Ok(arm),
            _ => Err(self.bad_arm(arms, index)),
        }
    }

    #[cold]
    fn bad_arm(&self, arms: usize, index: i64) -> Bad {
        self.bad(format!("a union of {arms} types has none at {index}"))
    }

    /// The count of the next block of an array or map, 0 at its end.
    ///
    /// - `empty`: its items take no bytes.
    #[inline]
    pub fn block(&mut self, empty: bool) -> Result<usize, Bad> {
        // Every array and map ends with one of none.
        if self.bytes.get(self.at) == Some(&0) {
            self.at += 1;
            return Ok(0);
        }
        self.full_block(empty)
    }

    fn full_block(&mut self, empty: bool) -> Result<usize, Bad> {
        let mut count = self.long()?;
        if count < 0 {
            // Its bytes follow, for those who skip it.
            self.long()?;
            count = count.checked_neg().ok_or_else(|| self.bad("a block has no count"))?;
        }
        let limit = match empty {
            true => self.empty_left,
            false => self.left(),
        };
        let count = usize::try_from(count)
            .ok()
            .filter(|count| *count <= limit)
            .ok_or_else(|| self.bad(format!("a block has {count} items, {limit} are possible")))?;
        if empty {
            self.empty_left -= count;
        }
        Ok(count)
    }

    /// Goes behind a value.
    pub fn skip(&mut self, of: &Avro, depth: usize) -> Result<(), Bad> {
        if depth > DEPTH_MAX {
            return Err(self.deep());
        }
        let schema = self.schema;
        match of {
            // Also a record of records without bytes, of which there may be more than anybody can count.
            of if schema.takes_no_bytes(of) => {}
            Avro::Null => {}
            Avro::Boolean => drop(self.boolean()?),
            Avro::Int(_) | Avro::Long(_) => drop(self.long()?),
            Avro::Float => drop(self.take(4)?),
            Avro::Double => drop(self.take(8)?),
            Avro::Bytes(_) | Avro::String(_) => drop(self.bytes()?),
            Avro::Array(items) => {
                let empty = schema.takes_no_bytes(items);
                self.skip_blocks(empty, |reader| reader.skip(items, depth + 1))?;
            }
            Avro::Map(values) => self.skip_blocks(false, |reader| {
                reader.bytes()?;
                reader.skip(values, depth + 1)
            })?,
            Avro::Union(arms) => {
                let arm = self.arm(arms.len())?;
                self.skip(&arms[arm], depth + 1)?;
            }
            Avro::Named(index) => match &schema.named[*index].of {
                NamedType::Enum(_) => drop(self.long()?),
                NamedType::Fixed(size, _) => drop(self.take(*size)?),
                NamedType::Record(fields) => {
                    for field in fields {
                        self.skip(&field.of, depth + 1)?;
                    }
                }
            },
        }
        Ok(())
    }

    fn skip_blocks(&mut self, empty: bool, mut item: impl FnMut(&mut Self) -> Result<(), Bad>) -> Result<(), Bad> {
        // Ends: each block takes a byte at least, and each item, unless they are empty.
        loop {
            let count = self.long()?;
            match count {
                0 => return Ok(()),
                1.. if empty => {}
                1.. => {
                    for _ in 0..count {
                        item(self)?;
                    }
                }
                _ => {
                    let length = self.long()?;
                    let length = usize::try_from(length).map_err(|_| self.bad(format!("a length is {length}")))?;
                    self.take(length)?;
                }
            }
        }
    }

    #[cold]
    pub fn deep(&self) -> Bad {
        self.bad(format!("the value is nested more than {DEPTH_MAX} deep"))
    }
}
