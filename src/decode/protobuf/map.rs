//! Entries of a map.

use std::collections::HashMap;
use std::ops::Range;

use super::super::column::Column;
use super::super::framed::Bad;
use super::fill::Fill;
use super::group::{framed, mismatch};
use super::reader::Reader;
use crate::schema::protobuf::Kind;

/// How entries of a map are read.
#[derive(Debug)]
pub(super) struct MapFill {
    pub key: Fill,
    pub key_kind: Kind,
    pub key_wire: u8,
    pub value: Fill,
    pub value_wire: u8,
}

impl MapFill {
    /// Reads an entry; its key and its value may come in any order, or not at all.
    pub fn entry(&self, body: Range<usize>, reader: &mut Reader<'_>, column: &mut Column) -> Result<(), Bad> {
        let outer = reader.enter(body)?;
        let mut key = None;
        let mut value = None;
        let mut values = 0;
        let start = reader.at;
        while reader.at < reader.end {
            let (number, wire) = reader.tag()?;
            let place = match number {
                1 => &mut key,
                2 => {
                    values += 1;
                    &mut value
                }
                _ => {
                    reader.skip(number, wire)?;
                    continue;
                }
            };
            let wanted = if number == 1 { self.key_wire } else { self.value_wire };
            if wire != wanted {
                let of = if number == 1 {
                    "a key of the map"
                } else {
                    "a value of the map"
                };
                return Err(mismatch(reader, of.to_owned(), wanted, wire));
            }
            *place = Some(reader.at);
            reader.skip(number, wire)?;
        }
        let schema = reader.schema;
        let (keys, items) = column.entry();
        match key {
            Some(at) => {
                reader.at = at;
                self.key.run(reader, keys).map_err(|bad| bad.inside("key"))?;
            }
            None => self.key.push_zero(schema, keys).map_err(|bad| bad.inside("key"))?,
        }
        let done = match (value, &self.value) {
            (Some(_), fill @ Fill::Message(_)) if values > 1 => {
                let parts = parts(start, reader)?;
                let whole = framed(reader, &parts);
                reader.spend(whole.len())?;
                reader.elsewhere(&whole, |reader| fill.run(reader, items))
            }
            (Some(at), fill) => {
                reader.at = at;
                fill.run(reader, items)
            }
            (None, fill) => fill.push_zero(schema, items),
        };
        done.map_err(|bad| bad.inside("value"))?;
        reader.leave(outer);
        Ok(())
    }

    /// Writes an entry's key so that equal keys are equal bytes.
    fn write_key(&self, body: Range<usize>, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Bad> {
        let outer = reader.enter(body)?;
        let mut place = None;
        while reader.at < reader.end {
            let (number, wire) = reader.tag()?;
            if number == 1 {
                place = Some(reader.at);
            }
            reader.skip(number, wire)?;
        }
        if let Some(at) = place {
            reader.at = at;
        }
        match (place, self.key_kind) {
            (None, Kind::Bool) => out.push(0),
            (None, Kind::Number(_)) => out.extend(0i64.to_le_bytes()),
            (None, _) => {}
            (Some(_), Kind::Bool) => out.push(u8::from(reader.varint()? != 0)),
            (Some(_), Kind::Number(of)) => out.extend(reader.long(of)?.to_le_bytes()),
            (Some(_), _) => out.extend_from_slice(reader.bytes()?),
        }
        reader.leave(outer);
        Ok(())
    }

    /// A map has two entries of one key: it is made again, of the last entry of each key.
    ///
    /// - `start`: where the message began that the map is a field of.
    #[cold]
    pub fn last_entries(
        &self,
        field: u32,
        start: usize,
        reader: &mut Reader<'_>,
        column: &mut Column,
    ) -> Result<(), Bad> {
        let mut entries: Vec<Range<usize>> = Vec::new();
        let mut place_of: HashMap<Vec<u8>, usize> = HashMap::new();
        let outer = reader.enter(start..reader.end)?;
        while reader.at < reader.end {
            let (number, wire) = reader.tag()?;
            if number != field {
                reader.skip(number, wire)?;
                continue;
            }
            let body = reader.body(number, wire)?;
            let mut key = Vec::new();
            self.write_key(body.clone(), reader, &mut key)?;
            match place_of.get(&key) {
                Some(place) => entries[*place] = body,
                None => {
                    place_of.insert(key, entries.len());
                    entries.push(body);
                }
            }
        }
        reader.leave(outer);
        for body in entries {
            self.entry(body, reader, column)?;
        }
        Ok(())
    }
}

/// The parts of an entry's value that came several times.
fn parts(start: usize, reader: &mut Reader<'_>) -> Result<Vec<Range<usize>>, Bad> {
    reader.at = start;
    let mut parts = Vec::new();
    while reader.at < reader.end {
        let (number, wire) = reader.tag()?;
        match number {
            2 => parts.push(reader.body(number, wire)?),
            _ => reader.skip(number, wire)?,
        }
    }
    Ok(parts)
}
