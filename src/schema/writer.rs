//! The schemas that values were written with, as far as a run knows them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use iceberg::spec::{ListType, MapType, NestedField, StructType, Type};

use super::avro::{self, AvroSchema};
use super::debezium::{self, Form, Shape};
use super::frame::{Part, SchemaKey, SchemaName};
use super::json_schema::Check;
use super::protobuf::{self, Message, ProtoSchema};
use super::{KEY, SchemaLanguage, SchemaText, json_schema};
use crate::config::EnvelopeKind;

/// A schema that values were written with, understood.
#[derive(Debug, Clone, PartialEq)]
pub enum WriterSchema {
    /// Avro.
    Avro(Arc<AvroSchema>),
    /// JSON Schema: its columns, all optional; values are read as JSON is.
    Json(Vec<NestedField>),
    /// Protobuf: one message of it.
    Protobuf(Arc<ProtoSchema>),
}

impl WriterSchema {
    /// Understands the type that a key names in a schema's text.
    ///
    /// # Errors
    /// What can't be understood.
    pub fn parse(key: &SchemaKey, text: &SchemaText) -> Result<WriterSchema, String> {
        let message = match key.message.as_slice() {
            [] => Message::Named(None),
            indexes => Message::Indexes(indexes),
        };
        match key.part {
            Part::Value => WriterSchema::parse_message(text, message),
            Part::Key => WriterSchema::parse_key(text, message),
        }
    }

    /// The schema of what is inside the envelopes that values of this one are; itself where they are none.
    ///
    /// # Errors
    /// If it can't be told, or they are events that hold no rows.
    pub fn within(self, kind: EnvelopeKind) -> Result<WriterSchema, String> {
        let form = match (kind, &self) {
            (EnvelopeKind::Cdc, _) => Form::Event,
            (_, WriterSchema::Avro(schema)) => schema.shape().form(schema.name()),
            (_, WriterSchema::Protobuf(schema)) => schema.shape().form(Some(schema.name())),
            // Of each value its own fields tell.
            (_, WriterSchema::Json(_)) => Form::Event,
        };
        match form {
            Form::Event => {}
            Form::Row => return Ok(self),
            Form::Unclear => return Err(debezium::unclear()),
            Form::Other => return Err(debezium::of_something_else()),
        }
        let (operation, after) = (kind.operation(), kind.after());
        Ok(match self {
            WriterSchema::Avro(schema) => {
                WriterSchema::Avro(Arc::new(Arc::unwrap_or_clone(schema).within(operation, after)))
            }
            WriterSchema::Protobuf(schema) => {
                WriterSchema::Protobuf(Arc::new(Arc::unwrap_or_clone(schema).within(operation, after)))
            }
            WriterSchema::Json(columns) => WriterSchema::Json(json_rows(columns, kind)),
        })
    }

    /// Says whether values are envelopes, and this is of what is inside them; see [`WriterSchema::within`].
    pub fn is_inside(&self) -> bool {
        match self {
            WriterSchema::Avro(schema) => schema.around.is_some(),
            WriterSchema::Protobuf(schema) => schema.around.is_some(),
            WriterSchema::Json(_) => false,
        }
    }

    /// Says whether values are envelopes of rows that are JSON: the rows themselves say what they hold.
    pub fn holds_text(&self) -> bool {
        match self {
            WriterSchema::Avro(schema) => schema.around.as_ref().is_some_and(|around| around.text),
            WriterSchema::Protobuf(schema) => schema.around.is_some_and(|around| around.text),
            WriterSchema::Json(_) => false,
        }
    }

    /// Understands a schema of keys: as one of records with the one field [`KEY`].
    fn parse_key(text: &SchemaText, message: Message<'_>) -> Result<WriterSchema, String> {
        Ok(match text.language {
            SchemaLanguage::Avro => WriterSchema::Avro(Arc::new(avro::parse(text)?.inside(KEY))),
            SchemaLanguage::Protobuf => WriterSchema::Protobuf(Arc::new(protobuf::parse(text, message)?.inside(KEY))),
            // One of a scalar has no columns: the keys themselves say what they are.
            SchemaLanguage::Json => WriterSchema::Json(match json_schema::columns(text) {
                Ok(columns) if !columns.is_empty() => {
                    let fields = columns.iter().map(|field| Arc::new(optional(field)));
                    let of = Type::Struct(StructType::new(fields.collect()));
                    vec![NestedField::optional(0, KEY, of)]
                }
                _ => Vec::new(),
            }),
        })
    }

    /// Understands a schema whose type no record names, as that of `schemaFile`.
    ///
    /// - `message`: Protobuf: the full name of the message that values are; without one the first of the file.
    ///
    /// # Errors
    /// What can't be understood.
    pub fn parse_named(text: &SchemaText, message: Option<&str>) -> Result<WriterSchema, String> {
        WriterSchema::parse_message(text, Message::Named(message))
    }

    fn parse_message(text: &SchemaText, message: Message<'_>) -> Result<WriterSchema, String> {
        match text.language {
            SchemaLanguage::Avro => Ok(WriterSchema::Avro(Arc::new(avro::parse(text)?))),
            SchemaLanguage::Json => Ok(WriterSchema::Json(
                json_schema::columns(text)?.iter().map(optional).collect(),
            )),
            SchemaLanguage::Protobuf => Ok(WriterSchema::Protobuf(Arc::new(protobuf::parse(text, message)?))),
        }
    }

    /// Returns the columns that take values of the schema, ids provisional.
    ///
    /// - `nanos`: the table can hold nanoseconds.
    ///
    /// # Errors
    /// Why there are none.
    pub fn columns(&self, nanos: bool) -> Result<Vec<NestedField>, String> {
        if self.holds_text() {
            return Ok(Vec::new());
        }
        match self {
            WriterSchema::Avro(schema) => avro::natural(schema, nanos),
            WriterSchema::Json(columns) => Ok(columns.clone()),
            // Microseconds in every table: those of a nanosecond column end in 2262.
            WriterSchema::Protobuf(schema) => protobuf::natural(schema),
        }
    }

    /// Returns the full name of the record that values are, if they are records.
    pub fn name(&self) -> Option<&str> {
        match self {
            WriterSchema::Avro(schema) => schema.name(),
            WriterSchema::Json(_) => None,
            WriterSchema::Protobuf(schema) => Some(schema.name()),
        }
    }

    /// Returns the fields that were called otherwise before, as far as the schema says so itself.
    pub fn renames(&self) -> Vec<Rename> {
        match self {
            WriterSchema::Avro(schema) => avro::renames(schema),
            WriterSchema::Json(_) => Vec::new(),
            WriterSchema::Protobuf(_) => Vec::new(),
        }
    }

    /// Returns the fields that are called otherwise in an older schema of the same record, as far as the two say so together:
    /// Protobuf's fields are the same if their numbers are.
    pub fn renames_since(&self, older: &WriterSchema) -> Vec<Rename> {
        match (self, older) {
            (WriterSchema::Protobuf(newest), WriterSchema::Protobuf(older)) => protobuf::renames_between(newest, older),
            _ => Vec::new(),
        }
    }

    fn fingerprint(&self) -> Option<u64> {
        match self {
            WriterSchema::Avro(schema) => Some(avro::fingerprint(schema)),
            WriterSchema::Json(_) => None,
            WriterSchema::Protobuf(_) => None,
        }
    }
}

/// Returns the columns of the rows inside events with these columns, with or without what tells of their schema.
fn json_rows(columns: Vec<NestedField>, kind: EnvelopeKind) -> Vec<NestedField> {
    fn inside<'c>(columns: &[&'c NestedField], name: &str) -> Option<Vec<&'c NestedField>> {
        let found = columns.iter().find(|column| column.name == name)?;
        match &*found.field_type {
            Type::Struct(fields) => Some(fields.fields().iter().map(|field| &**field).collect()),
            _ => Some(Vec::new()),
        }
    }
    let all: Vec<&NestedField> = columns.iter().collect();
    let payload = inside(&all, "schema").and_then(|_| inside(&all, "payload"));
    let event = payload.unwrap_or(all);
    let is_event = match kind {
        EnvelopeKind::Cdc => true,
        EnvelopeKind::Debezium => matches!(Shape::of_columns(&event).form(None), Form::Event | Form::Unclear),
    };
    let rows = inside(&event, kind.operation()).filter(|_| is_event);
    let rows = rows.and_then(|_| inside(&event, kind.after()));
    rows.unwrap_or(event).into_iter().cloned().collect()
}

/// Returns a field, and those inside it, optional: rows of other writers, and of other versions, stay possible.
fn optional(field: &NestedField) -> NestedField {
    let inner = |field: &Arc<NestedField>| Arc::new(optional(field));
    let of = match &*field.field_type {
        Type::Primitive(_) => (*field.field_type).clone(),
        Type::Struct(fields) => Type::Struct(StructType::new(fields.fields().iter().map(inner).collect())),
        Type::List(list) => Type::List(ListType::new(inner(&list.element_field))),
        Type::Map(map) => Type::Map(MapType::new(map.key_field.clone(), inner(&map.value_field))),
    };
    NestedField::optional(field.id, &field.name, of)
}

/// A field that was called otherwise before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    /// The names of the structs it is inside, from the top; `element` and `value` lead into lists and maps.
    pub within: Vec<String>,
    /// Its name.
    pub name: String,
    /// What it was called.
    pub before: Vec<String>,
}

/// What values are validated against, by their schemas.
pub type Checks = BTreeMap<SchemaKey, Arc<Check>>;

/// Schemas that nobody could get, and why: true of the moment that it was found out.
pub type Missing = BTreeMap<SchemaKey, String>;

/// The schemas that a run knows, and which of them is the newest. Immutable where lines see it; one more makes a new one.
#[derive(Debug, Clone, Default)]
pub struct Writers {
    known: BTreeMap<SchemaKey, Arc<WriterSchema>>,
    /// Those of them that the table wasn't made to follow yet.
    ahead: BTreeSet<SchemaKey>,
    file_fingerprint: Option<u64>,
    checks: Checks,
}

impl Writers {
    /// Returns a schema, if it is known and the table was made to follow it.
    pub fn get(&self, key: &SchemaKey) -> Option<&Arc<WriterSchema>> {
        self.known.get(key).filter(|_| !self.ahead.contains(key))
    }

    /// Returns a schema, if it is known; the table may lack columns for it.
    pub fn get_ahead(&self, key: &SchemaKey) -> Option<&Arc<WriterSchema>> {
        self.known.get(key)
    }

    /// Returns the newest schema of the same record: it says what fields are which a record lacks, and how they were called.
    ///
    /// Ids of a registry ascend with time, so the highest is the newest; what has no id counts where nothing has one.
    pub fn newest_of(&self, writer: &WriterSchema) -> Option<&WriterSchema> {
        let age = |key: &SchemaKey| match key.name {
            SchemaName::Id(id) => Some(id),
            _ => None,
        };
        let alike = self.known.iter().filter(|(_, other)| other.name() == writer.name());
        alike.max_by_key(|(key, _)| age(key)).map(|(_, newest)| &**newest)
    }

    /// Returns the fields of the newest schema of a record that were called otherwise before: by its own word, and compared with
    /// the schemas of that record that are known.
    pub fn renames(&self, writer: &WriterSchema) -> Vec<Rename> {
        let newest = self.newest_of(writer).unwrap_or(writer);
        let mut renames = newest.renames();
        let alike = self.known.values().filter(|other| other.name() == writer.name());
        for other in alike.map(|other| &**other).chain([writer]) {
            for since in newest.renames_since(other) {
                let mut known = renames.iter_mut();
                match known.find(|rename| rename.within == since.within && rename.name == since.name) {
                    Some(rename) => {
                        let new = since.before.iter().filter(|name| !rename.before.contains(name));
                        let new: Vec<String> = new.cloned().collect();
                        rename.before.extend(new);
                    }
                    None => renames.push(since),
                }
            }
        }
        renames
    }

    /// Adds a schema that no record was seen of: it has a say in what fields are called, and the table doesn't follow it before
    /// a record names it.
    pub fn add_ahead(&mut self, key: SchemaKey, schema: Arc<WriterSchema>) {
        if !self.known.contains_key(&key) {
            self.ahead.insert(key.clone());
            self.known.insert(key, schema);
        }
    }

    /// Adds a schema that the table follows.
    pub fn add(&mut self, key: SchemaKey, schema: Arc<WriterSchema>) {
        self.ahead.remove(&key);
        if key.name == SchemaName::File {
            self.file_fingerprint = schema.fingerprint();
        }
        self.known.insert(key, schema);
    }

    /// Has values of a schema validated.
    pub fn add_check(&mut self, key: SchemaKey, check: Arc<Check>) {
        self.checks.insert(key, check);
    }

    /// What values of a schema are validated against, if they are.
    pub fn check(&self, key: &SchemaKey) -> Option<&Check> {
        self.checks.get(key).map(|check| &**check)
    }

    /// The schemas in order of their keys: ids ascending.
    pub fn all(&self) -> impl Iterator<Item = (&SchemaKey, &Arc<WriterSchema>)> {
        self.known.iter()
    }

    /// The fingerprint of the schema in `schemaFile`, where that is Avro.
    pub fn file_fingerprint(&self) -> Option<u64> {
        self.file_fingerprint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_ahead_of_the_table_says_how_fields_are_called_and_reads_no_record() {
        let parsed = |text: &str| {
            let text = SchemaText {
                language: SchemaLanguage::Avro,
                text: format!(r#"{{"type":"record","name":"r","fields":[{text}]}}"#),
                references: Vec::new(),
            };
            Arc::new(WriterSchema::parse(&SchemaKey::file(), &text).expect("a schema"))
        };
        let old = parsed(r#"{"name":"a","type":"int"}"#);
        let new = parsed(r#"{"name":"b","aliases":["a"],"type":"int"}"#);
        let (first, second) = (SchemaKey::id(1), SchemaKey::id(2));
        let mut writers = Writers::default();
        writers.add(first.clone(), old.clone());
        writers.add_ahead(second.clone(), new.clone());
        assert!(writers.get(&second).is_none() && writers.get_ahead(&second).is_some());
        assert_eq!(writers.renames(&old).len(), 1);
        writers.add(second.clone(), new.clone());
        assert!(writers.get(&second).is_some());
        // What is followed stays so.
        writers.add_ahead(second.clone(), new);
        assert!(writers.get(&first).is_some() && writers.get(&second).is_some());
    }
}
