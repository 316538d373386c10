//! Avro records straight into Arrow columns: a plan, compiled once for each schema, reads a record's bytes into them.
//!
//! No value and no map per record. `arrow-avro` isn't used: what is wrong with one record costs its whole batch there.
//!
//! Source: Apache Avro 1.12 specification, "Binary Encoding" and "Schema Resolution".

mod compile;
mod fill;
mod pick;
mod reader;
mod text;

use std::sync::Arc;

use self::fill::{Fill, Group};
use self::reader::Reader;
use super::column::Column;
use super::framed::{Bad, BadRecord};
use crate::schema::avro::AvroSchema;

pub(super) use self::compile::compile;
pub(super) use self::fill::unscaled;
pub(super) use self::pick::{json, pick};
pub(super) use self::text::{DECIMAL_BYTES_MAX, binary, decimal as decimal_text, float, string};

/// How records of one schema become rows of one table.
#[derive(Debug)]
pub(super) struct Program {
    schema: Arc<AvroSchema>,
    root: Root,
    /// Columns that no field goes to are found after each record: some are filled by fields inside others.
    sparse: bool,
}

/// What a value is.
#[derive(Debug)]
enum Root {
    /// A record: its fields go to columns.
    Record(Group),
    /// A record or null.
    RecordOrNull { null: usize, record: Group },
    /// Anything else: the column `value`, if the table has it.
    Value { column: Option<usize>, fill: Fill },
}

impl Program {
    /// Reads a record's bytes into the columns; returns how many values no column takes, `None` where the value is null as a
    /// whole and makes no row.
    ///
    /// # Errors
    /// What is wrong with the record; the columns are to be truncated then.
    pub fn run(&self, body: &[u8], columns: &mut [Column], row: usize) -> Result<Option<u64>, Bad> {
        let mut reader = Reader::new(body, &self.schema);
        match &self.root {
            Root::Record(group) => group.run(&mut reader, columns)?,
            Root::RecordOrNull { null, record } => match reader.arm(2)? == *null {
                true => {
                    reader.end()?;
                    return Ok(None);
                }
                false => record.run(&mut reader, columns)?,
            },
            Root::Value { column: Some(at), fill } => fill.run(&mut reader, &mut columns[*at])?,
            Root::Value { column: None, .. } => reader.at = body.len(),
        }
        reader.end()?;
        if self.sparse {
            for column in columns.iter_mut().filter(|column| column.len() == row) {
                let name = column.name.clone();
                column
                    .push_missing()
                    .map_err(|failed| BadRecord::column(failed, &name))?;
            }
        }
        Ok(Some(reader.dropped))
    }
}

#[cfg(test)]
mod tests;
