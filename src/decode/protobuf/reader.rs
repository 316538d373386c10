//! A record's bytes, read one field after the other.

use std::ops::Range;

use super::super::framed::{Bad, BadRecord};
use super::super::problem::Problem;
use super::super::room::Room;
use super::super::varint;
use crate::schema::protobuf::{Number, ProtoSchema};

/// An integer of one to ten bytes.
pub(super) const VARINT: u8 = 0;
/// Eight bytes.
pub(super) const EIGHT: u8 = 1;
/// A length, and so many bytes.
pub(super) const BYTES: u8 = 2;
/// The start of a group.
pub(super) const GROUP: u8 = 3;
/// The end of a group.
const GROUP_END: u8 = 4;
/// Four bytes.
pub(super) const FOUR: u8 = 5;

/// Messages inside each other: more would let a record use up the stack.
pub(super) const DEPTH_MAX: usize = 128;

/// The bytes of a value that is absent: any kind of value reads its zero from them.
const ZEROS: [u8; 8] = [0; 8];

/// A position in a record's bytes.
pub(super) struct Reader<'a> {
    /// What the record was written with.
    pub schema: &'a ProtoSchema,
    bytes: &'a [u8],
    /// The next byte.
    pub at: usize,
    /// Where the message that is being read ends.
    pub end: usize,
    /// Values that no column takes.
    pub dropped: u64,
    /// What the record may still make: a message of two bytes has all of its columns.
    room: Room,
    /// Messages that may still be inside.
    depth_left: usize,
    /// Positions are those of the record.
    placed: bool,
}

/// What to go on with behind a message.
pub(super) struct Outer {
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], schema: &'a ProtoSchema) -> Self {
        Reader {
            schema,
            bytes,
            at: 0,
            end: bytes.len(),
            dropped: 0,
            room: Room::of(bytes.len()),
            depth_left: DEPTH_MAX,
            placed: true,
        }
    }

    /// A reader of a value that is absent.
    pub fn of_zeros(schema: &'a ProtoSchema) -> Self {
        Reader {
            placed: false,
            ..Reader::new(&ZEROS, schema)
        }
    }

    #[cold]
    pub fn bad_at(&self, what: impl Into<String>, at: usize) -> Bad {
        match self.placed {
            true => BadRecord::at(what.into(), at),
            false => BadRecord::value(Box::new(Problem::Refused(what.into()))),
        }
    }

    #[cold]
    pub fn bad(&self, what: impl Into<String>) -> Bad {
        self.bad_at(what, self.at)
    }

    #[cold]
    fn short(&self) -> Bad {
        self.bad("the value ends there")
    }

    /// The tag of the field that begins here, if it has one byte.
    #[inline(always)]
    pub fn short_tag(&self) -> Option<u8> {
        self.bytes.get(self.at).copied().filter(|byte| *byte < 0x80)
    }

    /// A field's number, and how its value is written.
    #[inline(always)]
    pub fn tag(&mut self) -> Result<(u32, u8), Bad> {
        let start = self.at;
        let tag = self.varint()?;
        let wire = (tag & 7) as u8;
        // A number of 0 is below 8.
        if !(8..=u64::from(u32::MAX)).contains(&tag) || wire > FOUR {
            return Err(self.bad_tag(tag, start));
        }
        Ok(((tag >> 3) as u32, wire))
    }

    #[cold]
    fn bad_tag(&self, tag: u64, at: usize) -> Bad {
        let (number, wire) = (tag >> 3, tag & 7);
        self.bad_at(
            match wire > 5 {
                true => format!("field {number} is written as type {wire}, 0 to 5 are possible"),
                false => format!("a field has the number {number}, 1 to 536870911 are possible"),
            },
            at,
        )
    }

    #[inline(always)]
    pub fn varint(&mut self) -> Result<u64, Bad> {
        match self.bytes.get(self.at) {
            Some(byte) if *byte < 0x80 && self.at < self.end => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, Bad> {
        // What of the record is behind the message is looked at too, a word at a time.
        let (value, length) = varint::read(&self.bytes[self.at..]);
        let left = self.end - self.at;
        match length {
            1.. if length <= left => {
                self.at += length;
                Ok(value)
            }
            0 if left >= varint::BYTES_MAX => Err(self.bad("a number has more than 64 bits")),
            _ => Err(self.short()),
        }
    }

    #[inline]
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Bad> {
        match self.bytes[self.at..self.end].get(..length) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => Err(self.short()),
        }
    }

    #[inline]
    pub fn four(&mut self) -> Result<[u8; 4], Bad> {
        Ok(self.take(4)?.try_into().expect("four bytes"))
    }

    #[inline]
    pub fn eight(&mut self) -> Result<[u8; 8], Bad> {
        Ok(self.take(8)?.try_into().expect("eight bytes"))
    }

    #[inline]
    pub fn float(&mut self) -> Result<f32, Bad> {
        Ok(f32::from_le_bytes(self.four()?))
    }

    #[inline]
    pub fn double(&mut self) -> Result<f64, Bad> {
        Ok(f64::from_le_bytes(self.eight()?))
    }

    /// An integer; those of 64 bits without a sign as the signed one of the same bits.
    #[inline]
    pub fn long(&mut self, of: Number) -> Result<i64, Bad> {
        Ok(match of {
            Number::Int64 | Number::Uint64 => self.varint()? as i64,
            // Of more than 32 bits the low ones count: a negative number is written with 64.
            Number::Int32 => i64::from(self.varint()? as i32),
            Number::Uint32 => i64::from(self.varint()? as u32),
            Number::Sint32 => {
                let value = self.varint()? as u32;
                i64::from((value >> 1) as i32 ^ -((value & 1) as i32))
            }
            Number::Sint64 => {
                let value = self.varint()?;
                (value >> 1) as i64 ^ -((value & 1) as i64)
            }
            Number::Fixed32 => i64::from(u32::from_le_bytes(self.four()?)),
            Number::Sfixed32 => i64::from(i32::from_le_bytes(self.four()?)),
            Number::Fixed64 | Number::Sfixed64 => i64::from_le_bytes(self.eight()?),
        })
    }

    /// An integer of any kind.
    #[inline]
    pub fn wide(&mut self, of: Number) -> Result<i128, Bad> {
        let value = self.long(of)?;
        Ok(match of {
            Number::Uint64 | Number::Fixed64 => i128::from(value as u64),
            _ => i128::from(value),
        })
    }

    /// The content of bytes or a string.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], Bad> {
        let (from, length) = self.head()?;
        Ok(&from[..length])
    }

    /// The content of bytes or a string, with what of the message is behind it, and its length.
    #[inline(always)]
    pub fn head(&mut self) -> Result<(&'a [u8], usize), Bad> {
        let length = self.varint()?;
        let from = &self.bytes[self.at..self.end];
        match usize::try_from(length) {
            Ok(length) if length <= from.len() => {
                self.at += length;
                Ok((from, length))
            }
            _ => Err(self.short()),
        }
    }

    /// Where a message's fields are, and goes behind it.
    #[inline]
    pub fn body(&mut self, number: u32, wire: u8) -> Result<Range<usize>, Bad> {
        if wire == GROUP {
            return self.group(number, 0);
        }
        let (_, length) = self.head()?;
        Ok(self.at - length..self.at)
    }

    /// The bytes at a place.
    pub fn at_place(&self, place: Range<usize>) -> &'a [u8] {
        &self.bytes[place]
    }

    /// Goes into a message whose end is already known.
    #[inline]
    pub fn enter(&mut self, body: Range<usize>) -> Result<Outer, Bad> {
        if self.depth_left == 0 {
            return Err(self.deep());
        }
        self.depth_left -= 1;
        let outer = Outer {
            at: self.at,
            end: self.end,
        };
        self.at = body.start;
        self.end = body.end;
        Ok(outer)
    }

    /// Goes on behind a message.
    #[inline]
    pub fn leave(&mut self, outer: Outer) {
        self.depth_left += 1;
        self.at = outer.at;
        self.end = outer.end;
    }

    /// Reads bytes that aren't at one place of the record.
    pub fn elsewhere<T>(
        &mut self,
        bytes: &[u8],
        act: impl FnOnce(&mut Reader<'_>) -> Result<T, Bad>,
    ) -> Result<T, Bad> {
        let mut reader = Reader {
            room: self.room,
            depth_left: self.depth_left,
            placed: false,
            ..Reader::new(bytes, self.schema)
        };
        let done = act(&mut reader)?;
        self.room = reader.room;
        self.dropped += reader.dropped;
        Ok(done)
    }

    /// Takes so many values off what the record may still make.
    #[inline]
    pub fn spend(&mut self, values: usize) -> Result<(), Bad> {
        self.room.spend(values).map_err(|why| self.bad(why))
    }

    /// Takes text off that the schema has, and the record doesn't.
    #[inline]
    pub fn spend_text(&mut self, text: &[u8]) -> Result<(), Bad> {
        self.room.spend_text(text.len()).map_err(|why| self.bad(why))
    }

    /// Goes behind a field's value.
    #[inline]
    pub fn skip(&mut self, number: u32, wire: u8) -> Result<(), Bad> {
        self.skip_inside(number, wire, 0)
    }

    fn skip_inside(&mut self, number: u32, wire: u8, depth: usize) -> Result<(), Bad> {
        match wire {
            VARINT => drop(self.varint()?),
            EIGHT => drop(self.take(8)?),
            BYTES => drop(self.bytes()?),
            GROUP => {
                self.group(number, depth)?;
            }
            FOUR => drop(self.take(4)?),
            _ => return Err(self.bad(format!("a group {number} ends there that didn't begin"))),
        }
        Ok(())
    }

    fn group(&mut self, number: u32, depth: usize) -> Result<Range<usize>, Bad> {
        if depth >= self.depth_left {
            return Err(self.deep());
        }
        let start = self.at;
        // Ends: each field takes a byte at least.
        loop {
            let end = self.at;
            if end >= self.end {
                return Err(self.bad(format!("the group {number} has no end")));
            }
            let (inner, wire) = self.tag()?;
            if (inner, wire) == (number, GROUP_END) {
                return Ok(start..end);
            }
            self.skip_inside(inner, wire, depth + 1)?;
        }
    }

    #[cold]
    pub fn deep(&self) -> Bad {
        self.bad(format!("the value is nested more than {DEPTH_MAX} deep"))
    }
}

/// Says how a value is written.
pub(super) fn wire_name(wire: u8) -> &'static str {
    match wire {
        VARINT => "a varint",
        EIGHT => "8 bytes",
        BYTES => "a length and bytes",
        GROUP => "a group",
        _ => "4 bytes",
    }
}
