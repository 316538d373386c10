//! Values that say, or are known by a file, which schema they were written with: each is read by the plan of its schema.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use iceberg::spec::{NestedField, PrimitiveType, Type};

use super::column::Column;
use super::problem::{Failed, Problem};
use super::{Decoded, Reject, Stage};
use super::{avro, protobuf};
use crate::chunk::Chunk;
use crate::schema::frame::{self, Part, SchemaKey};
use crate::schema::{ColumnSource, Missing, RowPlanRef, UnknownFields, WriterSchema, Writers, evolve};

/// Where a record's schema is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// In front of the value, or in a header, by its name in a registry.
    Registry {
        /// The name is followed by message indexes, as Protobuf's is.
        indexes: bool,
    },
    /// Nowhere: all are of the one in `schemaFile`.
    File,
}

/// The names on the wire that are remembered: numbers in them may be written in more ways than anybody does.
const NAMES_MAX: usize = 4096;

/// Remembers what a name on the wire stands for.
pub(super) fn remember<T>(names: &mut HashMap<Vec<u8>, T>, name: &[u8], found: T) {
    if names.len() >= NAMES_MAX {
        names.clear();
    }
    names.insert(name.to_vec(), found);
}

impl Framing {
    /// Reads what names the schema of a value.
    ///
    /// # Errors
    /// Why it names none.
    pub(super) fn key(self, name: &[u8]) -> Result<SchemaKey, String> {
        match (self, name.first()) {
            (Framing::File, _) => Ok(SchemaKey::file()),
            (Framing::Registry { .. }, Some(0)) => frame::key(name),
            (Framing::Registry { indexes }, _) => frame::header_key(name, indexes),
        }
    }

    /// Returns what names the schema of a part of a record, in a header or in front of it, and what was written with it.
    #[inline]
    pub(super) fn named<'a>(
        self,
        chunk: &'a Chunk,
        index: usize,
        part: Part,
        writers: &Writers,
        value: &'a [u8],
    ) -> Result<(&'a [u8], &'a [u8]), String> {
        let Framing::Registry { indexes } = self else {
            return Ok((&[], without_fingerprint(writers, value)));
        };
        if let Some(headers) = &chunk.headers
            && let Some(header) = frame::header(headers, index, part.header())
        {
            return Ok((header, value));
        }
        let framed = frame::split(value, indexes)?;
        Ok((framed.prefix, framed.body))
    }
}

/// Avro's single-object encoding puts a fingerprint of the schema in front: where it is that of the file, it goes.
fn without_fingerprint<'a>(writers: &Writers, value: &'a [u8]) -> &'a [u8] {
    match (frame::single_object(value), writers.file_fingerprint()) {
        (Some((found, body)), Some(held)) if found == held => body,
        _ => value,
    }
}

/// Why a record can't be read.
#[derive(Debug)]
pub(super) struct BadRecord {
    /// From the value's own name up to its column's.
    path: Vec<String>,
    what: String,
    at: Option<usize>,
}

/// A boxed [`BadRecord`]: results stay small where everything is well.
pub(super) type Bad = Box<BadRecord>;

impl BadRecord {
    /// Says what is wrong, and at which byte of the record.
    #[cold]
    pub fn at(what: String, at: usize) -> Bad {
        Box::new(BadRecord {
            path: Vec::new(),
            what,
            at: Some(at),
        })
    }

    /// Says why a column doesn't take a value.
    #[cold]
    pub fn value(failed: Failed) -> Bad {
        let what = match *failed {
            Problem::Misfit { what, .. } | Problem::Refused(what) => what,
            Problem::Fault(fault) => fault.what.to_owned(),
        };
        Box::new(BadRecord {
            path: Vec::new(),
            what,
            at: None,
        })
    }

    /// Says why the column of a name doesn't take a value.
    #[cold]
    pub fn column(failed: Failed, name: &str) -> Bad {
        BadRecord::value(failed).inside(name)
    }

    /// Adds the name of what the value is inside.
    #[cold]
    #[must_use]
    pub fn inside(mut self: Box<Self>, name: &str) -> Bad {
        self.path.push(name.to_owned());
        self
    }

    /// Says it all, for a person.
    pub fn reason(mut self) -> String {
        self.path.reverse();
        let field = match self.path.is_empty() {
            true => String::new(),
            false => format!("field `{}`: ", self.path.join(".")),
        };
        let at = self
            .at
            .map(|at| format!(", at byte {at} of the record"))
            .unwrap_or_default();
        format!("{field}{}{at}", self.what)
    }
}

/// A compiled plan.
#[derive(Debug)]
enum Program {
    Avro(avro::Program),
    Protobuf(protobuf::Program),
}

/// Decodes values into the payload columns of a plan, each by its own schema.
#[derive(Debug)]
pub struct FramedDecoder {
    plan: RowPlanRef,
    writers: Arc<Writers>,
    framing: Framing,
    part: Part,
    arrow: SchemaRef,
    columns: Vec<Column>,
    /// Where the event time is, if no column of the plan holds it: it goes to one more, behind the others.
    event_time: Option<Vec<String>>,
    /// By what names a schema on the wire: a compiled plan, or why there is none.
    found: HashMap<Vec<u8>, Result<usize, String>>,
    /// The same by schema, which the wire may name in many ways.
    compiled: HashMap<SchemaKey, Result<usize, String>>,
    programs: Vec<Program>,
    /// What named the schema of the last record,
    last: Vec<u8>,
    /// in front of its value: such bytes are no beginning of other ones,
    last_in_front: bool,
    /// and its plan.
    last_program: Option<usize>,
}

/// What became of one record.
enum Read {
    Row { dropped: u64 },
    Filtered,
    Reject(String),
}

impl FramedDecoder {
    /// Makes a decoder for the payload columns of a plan.
    ///
    /// - `event_time`: the path of the field that holds it.
    pub fn new(plan: RowPlanRef, writers: Arc<Writers>, framing: Framing, event_time: Option<&[String]>) -> Self {
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        for (at, (field, source)) in plan.schema.as_struct().fields().iter().zip(&plan.sources).enumerate() {
            if matches!(source, ColumnSource::Payload(_)) {
                let mut column = Column::new(field);
                column.required |= plan.required.contains(&field.id);
                columns.push(column);
                fields.push(plan.arrow.fields()[at].clone());
            }
        }
        let event_time = event_time
            .filter(|path| plan.payload_column(path).is_none())
            .map(<[_]>::to_vec);
        if event_time.is_some() {
            columns.push(Column::new(&event_time_field()));
        }
        FramedDecoder {
            event_time,
            plan,
            writers,
            framing,
            part: Part::Value,
            arrow: Arc::new(Schema::new(fields)),
            columns,
            found: HashMap::new(),
            compiled: HashMap::new(),
            programs: Vec::new(),
            last: Vec::new(),
            last_in_front: false,
            last_program: None,
        }
    }

    /// The same decoder for another part of the records: what it decodes stands where the values of a chunk do.
    #[must_use]
    pub fn of(mut self, part: Part) -> Self {
        self.part = part;
        self
    }

    /// Decodes one chunk; what isn't a row is a reject or filtered. Records whose schema isn't known are rejects too, and
    /// [`Decoded::unknown`] has their schemas, but for those in `missing`: whoever gets them decodes the chunk again.
    pub fn decode(&mut self, chunk: &Chunk, missing: &Missing) -> Decoded {
        let mut pass = self.pass(chunk, missing, false);
        // One check for all text of the chunk; where it fails, one for each record.
        if !self.columns.iter().all(|column| column.holds_utf8(0)) {
            self.columns.iter_mut().for_each(|column| column.truncate(0));
            pass = self.pass(chunk, missing, true);
        }
        let columns = self.columns.iter_mut().zip(self.arrow.fields());
        let columns = columns
            .map(|(column, field)| column.finish(field.data_type()))
            .collect();
        let event_time = self.event_time.as_ref().map(|_| {
            let column = self.columns.last_mut().expect("it was added when the decoder was made");
            column.finish(&DataType::Utf8).as_string::<i32>().clone()
        });
        let options = RecordBatchOptions::new().with_row_count(Some(pass.indexes.len()));
        let rows = RecordBatch::try_new_with_options(self.arrow.clone(), columns, &options)
            .expect("all columns have one value per row, of the plan's types");
        Decoded {
            keys: None,
            event_ids: None,
            gone: 0,
            rows,
            indexes: pass.indexes,
            rejects: pass.rejects,
            filtered: pass.filtered,
            unseen: None,
            unknown: pass.unknown.into_iter().collect(),
            event_time,
            fields_dropped: pass.dropped,
        }
    }

    fn pass(&mut self, chunk: &Chunk, missing: &Missing, check_text: bool) -> Pass {
        for column in &mut self.columns {
            column.reserve(chunk.len());
        }
        let mut pass = Pass::default();
        let mut unknown = Unknown::new(missing);
        for index in 0..chunk.len() {
            let row = pass.indexes.len();
            let read = match chunk.values.is_null(index) {
                true => Read::Filtered,
                false => self.record(chunk, index, row, check_text, &mut unknown),
            };
            match read {
                Read::Row { dropped } => {
                    pass.indexes.push(index as u32);
                    pass.dropped += dropped;
                }
                Read::Filtered => pass.filtered += 1,
                Read::Reject(reason) => {
                    self.columns.iter_mut().for_each(|column| column.truncate(row));
                    pass.rejects.push(Reject {
                        index: index as u32,
                        stage: Stage::Decode,
                        reason,
                    });
                }
            }
        }
        pass.unknown = unknown.found();
        pass
    }

    fn record(&mut self, chunk: &Chunk, index: usize, row: usize, check_text: bool, unknown: &mut Unknown<'_>) -> Read {
        let value = chunk.values.value(index);
        // Most records are of the schema of the one before.
        let again = match self.last_program {
            Some(program) if self.last_in_front && chunk.headers.is_none() => {
                value.strip_prefix(self.last.as_slice()).map(|body| (program, body))
            }
            _ => None,
        };
        let (program, body) = match again {
            Some(again) => again,
            None => match self.program_of(chunk, index, value, unknown) {
                Ok(found) => found,
                Err(reason) => return Read::Reject(reason),
            },
        };
        let done = match &self.programs[program] {
            Program::Avro(program) => program.run(body, &mut self.columns, row),
            Program::Protobuf(program) => program.run(body, &mut self.columns, row),
        };
        match done {
            Ok(None) => Read::Filtered,
            Ok(Some(dropped)) if check_text => match self.columns.iter().find(|column| !column.holds_utf8(row)) {
                Some(column) => Read::Reject(format!("column `{}` is text, the value in it is no UTF-8", column.name)),
                None => Read::Row { dropped },
            },
            Ok(Some(dropped)) => Read::Row { dropped },
            Err(bad) => Read::Reject(bad.reason()),
        }
    }

    /// Returns the plan of a record's schema, and what was written with it.
    #[inline(never)]
    fn program_of<'a>(
        &mut self,
        chunk: &'a Chunk,
        index: usize,
        value: &'a [u8],
        unknown: &mut Unknown<'_>,
    ) -> Result<(usize, &'a [u8]), String> {
        let (name, body) = self.framing.named(chunk, index, self.part, &self.writers, value)?;
        if let Some(program) = self.last_program.filter(|_| self.last == name) {
            return Ok((program, body));
        }
        let program = self.program(name, unknown)?;
        self.last.clear();
        self.last.extend_from_slice(name);
        // A header names it apart from the value.
        self.last_in_front = !name.is_empty() && name.len() + body.len() == value.len();
        self.last_program = Some(program);
        Ok((program, body))
    }

    /// Returns the plan of a schema, compiled if it is the first record of it.
    #[cold]
    fn program(&mut self, name: &[u8], unknown: &mut Unknown<'_>) -> Result<usize, String> {
        if let Some(found) = self.found.get(name) {
            return found.clone();
        }
        let key = self.framing.key(name)?.of(self.part);
        if let Some(found) = self.compiled.get(&key) {
            let found = found.clone();
            self.remember(name, &found);
            return found;
        }
        let writer = unknown.known(&self.writers, &key)?;
        let compiled = compile(writer, &self.writers, &self.plan, self.event_time.as_deref());
        let found = match compiled {
            Ok(program) => {
                self.programs.push(program);
                Ok(self.programs.len() - 1)
            }
            Err(differences) => Err(format!("{key} doesn't fit the table: {}", differences.join("; "))),
        };
        self.remember(name, &found);
        self.compiled.insert(key, found.clone());
        found
    }

    fn remember(&mut self, name: &[u8], found: &Result<usize, String>) {
        remember(&mut self.found, name, found.clone());
    }
}

/// Schemas that aren't known: those that nobody could get, and those that nobody was asked for.
pub(super) struct Unknown<'m> {
    missing: &'m Missing,
    found: BTreeSet<SchemaKey>,
}

impl<'m> Unknown<'m> {
    pub fn new(missing: &'m Missing) -> Self {
        Unknown {
            missing,
            found: BTreeSet::new(),
        }
    }

    /// Returns a schema, or remembers that it isn't known.
    ///
    /// # Errors
    /// Why it isn't there.
    pub fn known<'w>(&mut self, writers: &'w Writers, key: &SchemaKey) -> Result<&'w Arc<WriterSchema>, String> {
        if let Some(writer) = writers.get(key) {
            return Ok(writer);
        }
        if let Some(why) = self.missing.get(key) {
            return Err(why.clone());
        }
        self.found.insert(key.clone());
        Err(format!("{key} isn't known"))
    }

    /// Those that nobody was asked for.
    pub fn found(self) -> BTreeSet<SchemaKey> {
        self.found
    }
}

#[derive(Default)]
struct Pass {
    indexes: Vec<u32>,
    rejects: Vec<Reject>,
    filtered: u64,
    dropped: u64,
    unknown: BTreeSet<SchemaKey>,
}

/// The column that an event time goes to which no column of the table holds.
fn event_time_field() -> NestedField {
    NestedField::optional(0, "event time", Type::Primitive(PrimitiveType::String))
}

fn compile(
    writer: &WriterSchema,
    writers: &Writers,
    plan: &RowPlanRef,
    event_time: Option<&[String]>,
) -> Result<Program, Vec<String>> {
    let field = event_time_field();
    let more = event_time.map(|path| (path, &field));
    match writer {
        WriterSchema::Avro(schema) => {
            let newest = match writers.newest_of(writer) {
                Some(WriterSchema::Avro(newest)) => Some(newest),
                _ => None,
            };
            avro::compile(schema, newest, plan, more).map(Program::Avro)
        }
        WriterSchema::Json(_) => Err(vec!["it is a JSON Schema".to_owned()]),
        WriterSchema::Protobuf(schema) => {
            let newest = match writers.newest_of(writer) {
                Some(WriterSchema::Protobuf(newest)) => Some(newest),
                _ => None,
            };
            protobuf::compile(schema, newest, plan, more).map(Program::Protobuf)
        }
    }
}

/// Says whether values of a schema fit the columns of a plan.
///
/// # Errors
/// Every difference, for a person.
pub fn fits(writer: &WriterSchema, writers: &Writers, plan: &RowPlanRef) -> Result<(), Vec<String>> {
    if writer.holds_text() {
        return Ok(());
    }
    if let WriterSchema::Json(columns) = writer {
        // Where columns aren't as the schema says by somebody's choice, each value is looked at.
        let follows = matches!(plan.unknown, UnknownFields::Evolve | UnknownFields::Strict) && !plan.flatten;
        let wanted = evolve::create_schema(columns.clone(), &[], false);
        return match follows {
            true => evolve::compatible(&plan.schema, &wanted),
            false => Ok(()),
        };
    }
    compile(writer, writers, plan, None).map(drop)
}
