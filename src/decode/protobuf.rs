//! Protobuf records straight into Arrow columns: a plan, compiled once for each message, reads a record's bytes into them.
//!
//! No value and no map per record. Fields come in any order and any number of times; what that means is the specification's: of
//! a single field the last value counts, single messages are merged, and of a `oneof` the last member counts.
//!
//! A field that is written as another wire type than its kind's is a reject: most readers drop such a field as one they don't
//! know, which would be a value lost without a word.
//!
//! Source: protobuf.dev, "Encoding" and "Field Presence", 2025.

mod compile;
mod fill;
mod group;
mod map;
mod message;
mod pick;
mod reader;
mod text;

use std::sync::Arc;

use self::group::Group;
use self::message::MessageFill;
use self::reader::Reader;
use super::column::Column;
use super::framed::{Bad, BadRecord};
use crate::schema::protobuf::ProtoSchema;

pub(super) use self::compile::compile;
pub(super) use self::pick::{json, pick};

/// How records of one message become rows of one table.
#[derive(Debug)]
pub(super) struct Program {
    schema: Arc<ProtoSchema>,
    root: Root,
}

/// What a record is.
#[derive(Debug)]
enum Root {
    /// Fields that go to columns.
    Message(Group),
    /// One value: the column `value`, if the table has it.
    Value(Option<(usize, MessageFill)>),
}

impl Program {
    /// Reads a record's bytes into the columns; returns how many values no column takes. `None` isn't returned: every Protobuf
    /// record makes a row, that of no bytes too.
    ///
    /// # Errors
    /// What is wrong with the record; the columns are to be truncated then.
    pub fn run(&self, body: &[u8], columns: &mut [Column], row: usize) -> Result<Option<u64>, Bad> {
        let whole;
        let body = match self.schema.bare {
            false => body,
            true => {
                whole = delimited(body);
                &whole
            }
        };
        let mut reader = Reader::new(body, &self.schema);
        match &self.root {
            Root::Message(group) => group.run(&mut reader, columns, row)?,
            Root::Value(found) => {
                if let Some((at, fill)) = found {
                    fill.run(&mut reader, &mut columns[*at])?;
                }
                for column in columns.iter_mut().filter(|column| column.len() == row) {
                    let missing = column.push_missing();
                    missing.map_err(|failed| BadRecord::column(failed, &column.name))?;
                }
            }
        }
        Ok(Some(reader.dropped))
    }
}

/// Puts the tag and the length in front of the one field of a message that was written without.
fn delimited(body: &[u8]) -> Vec<u8> {
    const LENGTH_DELIMITED: u32 = 2;
    let mut whole = Vec::with_capacity(body.len() + 11);
    whole.push((ProtoSchema::INSIDE << 3 | LENGTH_DELIMITED) as u8);
    let mut left = body.len();
    while left >= 0x80 {
        whole.push(left as u8 | 0x80);
        left >>= 7;
    }
    whole.push(left as u8);
    whole.extend_from_slice(body);
    whole
}

#[cfg(test)]
mod tests;
