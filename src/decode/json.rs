//! JSON records straight into Arrow columns, as the schema says.
//!
//! No map and no tree per record: the lexer's values go into the columns' buffers, and a record that fails is cut off
//! again. What is a value of which column type is said in [`JsonDecoder`].

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};

use super::column::Column;
use super::names::{Names, spelling};
use super::problem::{Failed, Problem, Step, both_spellings, forgivable, within};
use super::room::Room;
use super::unknown::{Unknown, Unseen};
use super::{Decoded, Reject, Stage};
use crate::chunk::Chunk;
use crate::config::types;
use crate::json::lexer::Lexer;
use crate::schema::infer::{DEPTH_MAX, Shape};
use crate::schema::{ColumnSource, RowPlanRef, UnknownFields};

/// Decodes JSON objects into the payload columns of a plan.
///
/// | column | takes |
/// |---|---|
/// | boolean | `true`, `false` |
/// | int, long | numbers that are integers in range, also written `1e2` or `1.0` |
/// | float, double | numbers in range |
/// | decimal | numbers, or strings that hold one, which fit without rounding |
/// | date, time | `"2024-01-15"`, `"10:30:00.5"`; digits behind microseconds are cut |
/// | timestamptz | ISO 8601 with `Z` or an offset; a number is epoch milliseconds |
/// | timestamp | ISO 8601 without either; a number is epoch milliseconds |
/// | string | strings as they are, any other value as its JSON text |
/// | uuid | its text |
/// | binary, fixed | base64, standard or URL-safe, padded or not; fixed: of that length |
/// | struct, map | objects; a map's key is read as text, or as the number or boolean its text is |
/// | list | arrays |
///
/// Null and a missing field are null. Names match whatever their case; two spellings of one name in one object reject
/// the record; of equal names the last counts, even if an earlier value doesn't fit.
#[derive(Debug)]
pub struct JsonDecoder {
    plan: RowPlanRef,
    arrow: SchemaRef,
    columns: Vec<Column>,
    paths: Vec<Vec<String>>,
    root: Router,
    record: u64,
}

/// Where the fields of an object of the payload go.
#[derive(Debug, Default)]
struct Router {
    entries: Vec<Entry>,
    names: Option<Names>,
}

/// Where one field goes: into columns, to the router of its own fields, or nowhere.
#[derive(Debug)]
struct Entry {
    name: String,
    columns: Vec<usize>,
    inner: Option<Router>,
    /// A column of the table that isn't the payload's: the field is dropped.
    reserved: bool,
    record: u64,
    spelt: u64,
}

impl Router {
    fn entry(&mut self, name: &str) -> &mut Entry {
        let at = self
            .entries
            .iter()
            .position(|entry| entry.name == name)
            .unwrap_or_else(|| {
                let name = name.to_owned();
                self.entries.push(Entry {
                    name,
                    columns: Vec::new(),
                    inner: None,
                    reserved: false,
                    record: 0,
                    spelt: 0,
                });
                self.entries.len() - 1
            });
        &mut self.entries[at]
    }

    fn add(&mut self, path: &[String], column: usize) {
        let [first, rest @ ..] = path else { return };
        let entry = self.entry(first);
        match rest {
            [] => entry.columns.push(column),
            rest => entry.inner.get_or_insert_default().add(rest, column),
        }
    }

    fn index(&mut self) {
        self.names = Some(Names::new(self.entries.iter().map(|entry| entry.name.as_str())));
        self.entries
            .iter_mut()
            .filter_map(|entry| entry.inner.as_mut())
            .for_each(Router::index);
    }
}

impl Entry {
    fn each_column(&self, act: &mut dyn FnMut(usize)) {
        self.columns.iter().for_each(|column| act(*column));
        for entry in self.inner.iter().flat_map(|inner| &inner.entries) {
            entry.each_column(act);
        }
    }
}

/// One record on its way into the columns.
struct Record<'a> {
    columns: &'a mut [Column],
    unknown: &'a mut Unknown,
    row: usize,
    number: u64,
    flatten: bool,
    /// Columns whose value doesn't fit, unless the same field comes again.
    late: Vec<(usize, Failed)>,
}

/// Where in the payload an object is read.
struct Place<'p> {
    depth: usize,
    /// `flatten`: the names above, each followed by `_`.
    prefix: &'p [u8],
    /// `flatten`: tells apart paths that give one name.
    seed: u64,
}

impl JsonDecoder {
    /// Makes a decoder for the payload columns of a plan.
    pub fn new(plan: RowPlanRef) -> Self {
        let mut root = Router::default();
        let mut columns = Vec::new();
        let mut paths = Vec::new();
        let mut fields = Vec::new();
        let table = plan.schema.as_struct().fields();
        assert_eq!(table.len(), plan.sources.len(), "a plan has one source per column");
        for (at, (field, source)) in table.iter().zip(&plan.sources).enumerate() {
            if let ColumnSource::Payload(path) = source {
                root.add(path, columns.len());
                let mut column = Column::new(field);
                column.required |= plan.required.contains(&field.id);
                columns.push(column);
                paths.push(path.clone());
                fields.push(plan.arrow.fields()[at].clone());
            }
        }
        for (field, source) in table.iter().zip(&plan.sources) {
            let taken = root
                .entries
                .iter()
                .any(|entry| entry.name.to_lowercase() == field.name.to_lowercase());
            if !matches!(source, ColumnSource::Payload(_)) && !taken {
                root.entry(&field.name).reserved = true;
            }
        }
        root.index();
        JsonDecoder {
            plan,
            arrow: Arc::new(Schema::new(fields)),
            columns,
            paths,
            root,
            record: 0,
        }
    }

    /// Decodes one chunk; what isn't a row is a reject or filtered.
    pub fn decode(&mut self, chunk: &Chunk) -> Decoded {
        let values = &chunk.values;
        for column in &mut self.columns {
            column.reserve(chunk.len());
        }
        // One check for the chunk: if all bytes together are UTF-8, so is each record that ends in `}`, as an accepted
        // one does, and starts with `{`, white space or a byte-order mark.
        let ends = values.value_offsets();
        let held = &values.value_data()[ends[0] as usize..ends[chunk.len()] as usize];
        let utf8 = simdutf8::basic::from_utf8(held).is_ok();
        let mut indexes = Vec::with_capacity(chunk.len());
        let mut rejects = Vec::new();
        let mut filtered = 0;
        let mut unseen = Shape::Null;
        let mut unknown = Unknown {
            rule: self.plan.unknown,
            dropped: 0,
            room: Room::of(0),
        };
        for index in 0..chunk.len() {
            if values.is_null(index) {
                filtered += 1;
                continue;
            }
            let dropped = unknown.dropped;
            let (row, value) = (indexes.len(), values.value(index));
            let known = utf8 || simdutf8::basic::from_utf8(value).is_ok();
            match self.record(value, known, row, &mut unknown) {
                Ok(shape) => {
                    indexes.push(index as u32);
                    if let Some(shape) = shape {
                        unseen.merge(*shape);
                    }
                }
                Err(failed) => {
                    unknown.dropped = dropped;
                    self.columns.iter_mut().for_each(|column| column.truncate(row));
                    if let Some(wider) = self.wider(&failed) {
                        unseen.merge(wider);
                    }
                    rejects.push(Reject {
                        index: index as u32,
                        stage: Stage::Decode,
                        reason: self.reason(*failed),
                    });
                }
            }
        }
        let columns = self.columns.iter_mut().zip(self.arrow.fields());
        let columns = columns
            .map(|(column, field)| column.finish(field.data_type()))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(indexes.len()));
        let rows = RecordBatch::try_new_with_options(self.arrow.clone(), columns, &options)
            .expect("all columns have one value per row, of the plan's types");
        let unseen = (unseen != Shape::Null).then_some(unseen);
        Decoded {
            keys: None,
            event_ids: None,
            gone: 0,
            rows,
            indexes,
            rejects,
            filtered,
            unseen,
            unknown: Vec::new(),
            event_time: None,
            fields_dropped: unknown.dropped,
        }
    }

    fn record(
        &mut self,
        value: &[u8],
        utf8: bool,
        row: usize,
        unknown: &mut Unknown,
    ) -> Result<Option<Box<Shape>>, Failed> {
        let refuse = |why: &str| Err(Box::new(Problem::Refused(why.to_owned())));
        if !utf8 {
            return refuse("the value is no UTF-8");
        }
        let mut lexer = Lexer::new(value);
        lexer.space();
        if lexer.peek() != b'{' {
            let empty = lexer.pos >= value.len();
            return refuse(if empty {
                "the value is empty"
            } else {
                "the value is no JSON object"
            });
        }
        self.record += 1;
        unknown.room = Room::of(value.len());
        let flatten = self.plan.flatten;
        let mut record = Record {
            columns: &mut self.columns,
            unknown,
            row,
            number: self.record,
            flatten,
            late: Vec::new(),
        };
        let unseen = record.object(
            &mut self.root,
            &mut lexer,
            &Place {
                depth: 0,
                prefix: b"",
                seed: 0,
            },
        )?;
        lexer.end()?;
        if let Some((at, failed)) = record.late.into_iter().next() {
            return Err(named(failed, &self.columns[at].name));
        }
        for column in self.columns.iter_mut().filter(|column| column.len() == row) {
            column.push_missing().map_err(|failed| named(failed, &column.name))?;
        }
        Ok(unseen)
    }

    /// Says which column would have to be wider for a record that failed, if the table may be changed so.
    fn wider(&self, failed: &Problem) -> Option<Shape> {
        match failed {
            Problem::Misfit { wider, .. } if self.plan.unknown == UnknownFields::Evolve => wider.clone(),
            _ => None,
        }
    }

    /// Says why a record failed, and which line of `columns` would take it.
    fn reason(&self, failed: Problem) -> String {
        let (mut path, what, fits) = match failed {
            Problem::Fault(fault) => return format!("the value is no JSON: {} at byte {}", fault.what, fault.at),
            Problem::Refused(why) => return why,
            Problem::Misfit { path, what, fits, .. } => (path, what, fits),
        };
        path.reverse();
        let name = path.first().map_or("", String::as_str);
        let from = self
            .columns
            .iter()
            .position(|column| column.name == name)
            .map(|at| self.paths[at].join("."));
        let from = from.filter(|from| from != name);
        let line = types::column_line(name, from.as_deref(), &fits);
        format!("column `{}` {what}; `{line}` would take it", path.join("."))
    }
}

fn named(failed: Failed, name: &str) -> Failed {
    within(failed, Step::Field(name), |inner| inner)
}

impl Record<'_> {
    /// Reads an object of the payload; returns the fields in it that no column takes.
    fn object(
        &mut self,
        router: &mut Router,
        lexer: &mut Lexer<'_>,
        place: &Place<'_>,
    ) -> Result<Option<Box<Shape>>, Failed> {
        if place.depth >= DEPTH_MAX {
            return Err(Box::new(Problem::Refused(format!(
                "the value is nested more than {DEPTH_MAX} deep"
            ))));
        }
        let mut unseen = Unseen::default();
        // `flatten`: the objects entered here, to find names that come twice.
        let mut entered: Vec<Vec<u8>> = Vec::new();
        router.names.iter_mut().for_each(Names::restart);
        let mut more = lexer.open(b'}');
        while more {
            // Records of a topic mostly hold their fields in one order, so the next name is known before it is read.
            if !self.flatten
                && let Some(at) = router.names.as_mut().and_then(|names| names.follow(lexer))
            {
                self.known(&mut router.entries[at], None, 0, lexer, place, &mut unseen)?;
                more = lexer.more(b'}')?;
                continue;
            }
            let key = lexer.key()?.bytes();
            let composed;
            let name: &[u8] = if place.prefix.is_empty() {
                &key
            } else {
                composed = [place.prefix, &key].concat();
                &composed
            };
            let found = router.names.as_mut().and_then(|names| names.find(name));
            let flat = self.flatten && lexer.peek() == b'{';
            match found {
                Some((at, exact)) if !flat || !router.entries[at].columns.is_empty() || router.entries[at].reserved => {
                    let spelt = spelling(&key, exact && place.prefix.is_empty(), place.seed);
                    self.known(&mut router.entries[at], Some(&key), spelt, lexer, place, &mut unseen)?;
                }
                _ if flat => {
                    self.again(router, name, &key, &mut entered)?;
                    let prefix = [name, b"_"].concat();
                    let seed = spelling(&key, false, place.seed).rotate_left(17);
                    let inner = Place {
                        depth: place.depth + 1,
                        prefix: &prefix,
                        seed,
                    };
                    if let Some(shape) = self.object(router, lexer, &inner)? {
                        unseen.set(&String::from_utf8_lossy(&key), *shape)?;
                    }
                }
                _ => self.unknown.take(lexer, &key, place.depth + 1, &mut unseen)?,
            }
            more = lexer.more(b'}')?;
        }
        Ok(unseen.into_shape())
    }

    /// Reads the value of a field that is known; `key` is how it is spelt, if not as the column.
    #[inline]
    fn known(
        &mut self,
        entry: &mut Entry,
        key: Option<&[u8]>,
        spelt: u64,
        lexer: &mut Lexer<'_>,
        place: &Place<'_>,
        unseen: &mut Unseen,
    ) -> Result<(), Failed> {
        let again = entry.record == self.number;
        let shape = self.field(entry, lexer, place, spelt)?;
        // What an earlier value of this name showed doesn't count.
        if shape.is_some() || again {
            let name = key.map_or(Cow::Borrowed(entry.name.as_str()), String::from_utf8_lossy);
            unseen.set(&name, shape.map_or(Shape::Null, |shape| *shape))?;
        }
        Ok(())
    }

    /// `flatten`: forgets what an earlier object of the same name has left.
    fn again(&mut self, router: &Router, name: &[u8], key: &[u8], entered: &mut Vec<Vec<u8>>) -> Result<(), Failed> {
        let lower = |name: &[u8]| String::from_utf8_lossy(name).to_lowercase();
        if entered.iter().any(|other| other == key) {
            let prefix = lower(&[name, b"_"].concat());
            for entry in router
                .entries
                .iter()
                .filter(|entry| entry.name.to_lowercase().starts_with(&prefix))
            {
                entry.each_column(&mut |column| self.forget(column));
            }
        } else if entered.iter().any(|other| lower(other) == lower(key)) {
            return Err(both_spellings(&String::from_utf8_lossy(key)));
        } else {
            entered.push(key.to_owned());
        }
        Ok(())
    }

    fn forget(&mut self, column: usize) {
        self.columns[column].truncate(self.row);
        self.late.retain(|(other, _)| *other != column);
    }

    /// Reads the value of a field that has columns, or fields with columns.
    fn field(
        &mut self,
        entry: &mut Entry,
        lexer: &mut Lexer<'_>,
        place: &Place<'_>,
        spelt: u64,
    ) -> Result<Option<Box<Shape>>, Failed> {
        if entry.record == self.number {
            let columns_empty = entry
                .columns
                .iter()
                .all(|column| self.columns[*column].len() == self.row)
                && entry.inner.is_none()
                && !self.late.iter().any(|(other, _)| entry.columns.contains(other));
            if entry.spelt != spelt && !columns_empty {
                return Err(both_spellings(&entry.name));
            }
            entry.each_column(&mut |column| self.forget(column));
        }
        (entry.record, entry.spelt) = (self.number, spelt);
        if entry.reserved {
            self.unknown.dropped += u64::from(lexer.peek() != b'n');
            lexer.skip()?;
            return Ok(None);
        }
        let start = lexer.pos;
        let mut unseen = None;
        for at in &entry.columns {
            lexer.pos = start;
            match self.columns[*at].fill(lexer, place.depth + 1, self.unknown) {
                Ok(shape) => unseen = shape,
                Err(failed) => {
                    let failed = forgivable(failed, lexer, start)?;
                    self.forget(*at);
                    self.late.push((*at, failed));
                }
            }
        }
        if let Some(inner) = &mut entry.inner {
            lexer.pos = start;
            if lexer.peek() == b'{' {
                let place = Place {
                    depth: place.depth + 1,
                    prefix: b"",
                    seed: 0,
                };
                let flatten = std::mem::replace(&mut self.flatten, false);
                unseen = self.object(inner, lexer, &place)?;
                self.flatten = flatten;
            } else {
                // No object, so none of its fields: their columns are null, or say that they are required.
                lexer.skip()?;
            }
        }
        Ok(unseen)
    }
}

#[cfg(test)]
mod tests;
