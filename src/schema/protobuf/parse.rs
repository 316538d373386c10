//! A schema from its text, and the message in it that values are.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::prost::Message as _;
use prost_reflect::prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, MessageOptions};
use prost_reflect::{EnumDescriptor, FieldDescriptor, FileDescriptor, Kind as Described, MessageDescriptor};
use protox::Compiler;
use protox::file::{File, FileResolver, GoogleFileResolver};

use super::{EnumType, Field, Kind, Known, Message, MessageType, Number, ProtoSchema, Shape, imports};
use crate::schema::SchemaText;

/// The most bytes of a schema and all that it refers to; registries take far less.
const TEXT_MAX: usize = 16 << 20;

/// The most files that a schema refers to.
const REFERENCES_MAX: usize = 1000;

/// The most brackets inside each other: options may hold values of any depth, and their reader uses the stack.
const NESTING_MAX: usize = 100;

/// Understands a schema.
///
/// The text is a `.proto` file, or base64 of a `FileDescriptorProto`, as registries hand it out if asked to. References are
/// files by their path in imports. Extensions are ignored.
///
/// - `message`: by its indexes. Entries of maps, messages that the compiler makes, aren't counted, as Java doesn't; Go and Python
///   do, and are understood where that makes no other message of it.
///
/// # Errors
/// What can't be understood, with its line where there is one.
pub fn parse(text: &SchemaText, message: Message<'_>) -> Result<ProtoSchema, String> {
    let file = compile(text)?;
    let root = match message {
        Message::Indexes(indexes) => by_indexes(&file, indexes)?,
        Message::Named(Some(name)) => by_name(&file, name)?,
        Message::Named(None) => file.messages().next().ok_or("it has no message")?,
    };
    let mut arena = Arena::default();
    let root = arena.message(&root);
    // Ends: each message of the files is pending once.
    while let Some((index, pending)) = arena.pending.pop() {
        arena.messages[index] = arena.described(&pending);
    }
    Ok(ProtoSchema {
        root,
        messages: arena.messages,
        enums: arena.enums,
        bare: false,
        around: None,
    })
}

/// Compiles the `.proto` file, or reads the descriptor, and all that it imports.
pub(in crate::schema) fn compile(text: &SchemaText) -> Result<FileDescriptor, String> {
    let bytes = text
        .references
        .iter()
        .map(|reference| reference.text.len())
        .sum::<usize>()
        + text.text.len();
    if bytes > TEXT_MAX || text.references.len() > REFERENCES_MAX {
        return Err(format!(
            "it has {bytes} bytes and {} references, {TEXT_MAX} and {REFERENCES_MAX} are possible",
            text.references.len()
        ));
    }
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for reference in &text.references {
        files.insert(reference.name.clone(), reference.text.clone());
    }
    let mut name = "schema.proto".to_owned();
    // Ends: there are fewer references than names.
    while files.contains_key(&name) {
        name.insert(0, '_');
    }
    files.insert(name.clone(), text.text.clone());
    let mut compiler = Compiler::with_file_resolver(Files {
        files,
        google: GoogleFileResolver::new(),
    });
    // In their order: each finds what it imports compiled. One that is wrong matters if it is imported, and is told of then.
    for reference in &text.references {
        drop(compiler.open_file(&reference.name));
    }
    compiler.open_file(&name).map_err(|error| told(&error))?;
    let found = compiler.descriptor_pool().get_file_by_name(&name);
    found.ok_or_else(|| "it has no file".to_owned())
}

/// Returns the paths of the files that a `.proto` file imports; none where it can't be read.
pub fn imported_paths(text: &str) -> Vec<String> {
    let file = open("schema.proto", text);
    file.map(|file| file.file_descriptor_proto().dependency.clone())
        .unwrap_or_default()
}

fn told(error: &protox::Error) -> String {
    // With the line and the column, other than what is displayed.
    let told = format!("{error:?}");
    match told.contains("found 'edition'") {
        true => format!("{told}; editions aren't read, `syntax = \"proto2\"` and `\"proto3\"` are"),
        false => told,
    }
}

/// Finds a schema's files.
struct Files {
    files: BTreeMap<String, String>,
    google: GoogleFileResolver,
}

impl FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        // Those that the compiler itself works with are never read from elsewhere.
        if let Ok(file) = self.google.open_file(name) {
            return Ok(file);
        }
        match self.files.get(name) {
            Some(text) => open(name, text),
            None => match imports::text(name) {
                Some(text) => File::from_source(name, &text),
                None => Err(protox::Error::file_not_found(name)),
            },
        }
    }
}

fn open(name: &str, text: &str) -> Result<File, protox::Error> {
    let Some(bytes) = descriptor_bytes(text) else {
        if nesting(text) > NESTING_MAX {
            return Err(protox::Error::new(format!(
                "{name} has more than {NESTING_MAX} brackets inside each other"
            )));
        }
        return File::from_source(name, text);
    };
    let mut file = FileDescriptorProto::decode(bytes.as_slice())
        .map_err(|error| protox::Error::new(format!("{name} is base64, but of no file descriptor: {error}")))?;
    // Said here: of other syntaxes `prost-reflect` 0.16 can't even say that they are wrong.
    if !matches!(file.syntax(), "" | "proto2" | "proto3") {
        return Err(protox::Error::new(format!(
            "{name} is of the syntax `{}`, proto2 and proto3 are read",
            file.syntax()
        )));
    }
    file.name = Some(name.to_owned());
    file.options = None;
    file.service.clear();
    file.source_code_info = None;
    file.message_type.iter_mut().for_each(without_options);
    file.enum_type.iter_mut().for_each(enum_without_options);
    file.extension.iter_mut().for_each(|field| field.options = None);
    Ok(File::from_file_descriptor_proto(file))
}

/// Options of descriptors may be text that is still to be read. None of them matters here, except what makes a map.
fn without_options(message: &mut DescriptorProto) {
    message.options = message.options.take().map(|options| MessageOptions {
        map_entry: options.map_entry,
        ..MessageOptions::default()
    });
    message.field.iter_mut().for_each(|field| field.options = None);
    message.extension.iter_mut().for_each(|field| field.options = None);
    message.oneof_decl.iter_mut().for_each(|oneof| oneof.options = None);
    message
        .extension_range
        .iter_mut()
        .for_each(|range| range.options = None);
    message.enum_type.iter_mut().for_each(enum_without_options);
    message.nested_type.iter_mut().for_each(without_options);
}

fn enum_without_options(of: &mut EnumDescriptorProto) {
    // With aliases allowed: two names of one number are the writer's business.
    of.options = Some(prost_reflect::prost_types::EnumOptions {
        allow_alias: of.options.as_ref().and_then(|options| options.allow_alias),
        ..Default::default()
    });
    of.value.iter_mut().for_each(|value| value.options = None);
}

/// Returns what a text is the base64 of; no `.proto` file is, since those have semicolons or brackets.
fn descriptor_bytes(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    if text.is_empty() || text.bytes().any(|byte| matches!(byte, b';' | b'{' | b'"')) {
        return None;
    }
    STANDARD.decode(text).ok()
}

/// Returns how many brackets are open at most, outside of strings and comments.
fn nesting(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut open, mut most) = (0usize, 0usize, 0usize);
    let line_end = |at: usize| memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |ahead| at + ahead);
    // Ends: each round goes on by a byte at least.
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match (byte, bytes.get(at)) {
            (b'#', _) | (b'/', Some(b'/')) => at = line_end(at),
            (b'/', Some(b'*')) => {
                at += 1;
                at = memchr::memmem::find(&bytes[at..], b"*/").map_or(bytes.len(), |ahead| at + ahead + 2);
            }
            (quote @ (b'"' | b'\''), _) => {
                // A string ends on its line.
                while let Some(byte) = bytes.get(at).filter(|byte| **byte != b'\n') {
                    at += if *byte == b'\\' { 2 } else { 1 };
                    if byte == quote {
                        break;
                    }
                }
            }
            (b'{' | b'[' | b'<', _) => {
                open += 1;
                most = most.max(open);
            }
            (b'}' | b']' | b'>', _) => open = open.saturating_sub(1),
            _ => {}
        }
    }
    most
}

fn by_indexes(file: &FileDescriptor, indexes: &[i32]) -> Result<MessageDescriptor, String> {
    let found = |entries: bool| {
        let mut places = indexes.iter().map(|index| usize::try_from(*index).ok());
        let mut message = file.messages().nth(places.next()??)?;
        for place in places {
            let inner = message
                .child_messages()
                .filter(|inner| entries || !inner.is_map_entry());
            message = inner.collect::<Vec<_>>().get(place?)?.clone();
        }
        Some(message).filter(|message| !message.is_map_entry())
    };
    found(false)
        .or_else(|| found(true))
        .ok_or_else(|| format!("it has no message at {indexes:?}"))
}

fn by_name(file: &FileDescriptor, name: &str) -> Result<MessageDescriptor, String> {
    let pool = file.parent_pool();
    let found = pool.get_message_by_name(name).filter(|message| !message.is_map_entry());
    found.ok_or_else(|| {
        let names: Vec<_> = file
            .messages()
            .map(|message| format!("`{}`", message.full_name()))
            .collect();
        format!("it has no message `{name}`, it has {}", names.join(", "))
    })
}

#[derive(Default)]
struct Arena {
    messages: Vec<MessageType>,
    enums: Vec<EnumType>,
    message_of: HashMap<String, usize>,
    enum_of: HashMap<String, usize>,
    pending: Vec<(usize, MessageDescriptor)>,
}

impl Arena {
    fn message(&mut self, of: &MessageDescriptor) -> usize {
        if let Some(index) = self.message_of.get(of.full_name()) {
            return *index;
        }
        let index = self.messages.len();
        self.message_of.insert(of.full_name().to_owned(), index);
        self.messages.push(MessageType::new(String::new(), Vec::new()));
        self.pending.push((index, of.clone()));
        index
    }

    fn enumeration(&mut self, of: &EnumDescriptor) -> usize {
        if let Some(index) = self.enum_of.get(of.full_name()) {
            return *index;
        }
        let mut values: Vec<(i32, String)> = Vec::new();
        for value in &of.enum_descriptor_proto().value {
            values.push((value.number(), value.name().to_owned()));
        }
        // The first of several names of a number stays.
        values.sort_by_key(|(number, _)| *number);
        values.dedup_by_key(|(number, _)| *number);
        let index = self.enums.len();
        self.enum_of.insert(of.full_name().to_owned(), index);
        self.enums.push(EnumType {
            name: of.full_name().to_owned(),
            values,
        });
        index
    }

    fn described(&mut self, of: &MessageDescriptor) -> MessageType {
        // In the order of the file; the descriptor's own is that of their numbers.
        let mut fields = Vec::new();
        for written in &of.descriptor_proto().field {
            let number = u32::try_from(written.number()).unwrap_or_default();
            if let Some(field) = of.get_field(number) {
                fields.push(self.field(&field));
            }
        }
        let mut message = MessageType::new(of.full_name().to_owned(), fields);
        message.known = known(&message);
        message
    }

    fn field(&mut self, of: &FieldDescriptor) -> Field {
        let shape = match of.kind() {
            Described::Message(entry) if of.is_map() => {
                let mut inside = |number| entry.get_field(number).map(|field| self.kind(&field.kind()));
                // An entry that isn't one: a list of messages is what a reader without maps sees.
                match (inside(1), inside(2)) {
                    (Some(key), Some(value)) => Shape::Map { key, value },
                    _ => Shape::Repeated(self.kind(&of.kind())),
                }
            }
            kind if of.is_list() => Shape::Repeated(self.kind(&kind)),
            kind => Shape::Single {
                of: self.kind(&kind),
                presence: of.supports_presence(),
            },
        };
        let oneof = of.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        let place = oneof.and_then(|oneof| oneof.path().last().copied());
        Field {
            name: of.name().to_owned(),
            number: of.number(),
            shape,
            oneof: place.and_then(|place| usize::try_from(place).ok()),
        }
    }

    fn kind(&mut self, of: &Described) -> Kind {
        match of {
            Described::Double => Kind::Double,
            Described::Float => Kind::Float,
            Described::Int32 => Kind::Number(Number::Int32),
            Described::Int64 => Kind::Number(Number::Int64),
            Described::Uint32 => Kind::Number(Number::Uint32),
            Described::Uint64 => Kind::Number(Number::Uint64),
            Described::Sint32 => Kind::Number(Number::Sint32),
            Described::Sint64 => Kind::Number(Number::Sint64),
            Described::Fixed32 => Kind::Number(Number::Fixed32),
            Described::Fixed64 => Kind::Number(Number::Fixed64),
            Described::Sfixed32 => Kind::Number(Number::Sfixed32),
            Described::Sfixed64 => Kind::Number(Number::Sfixed64),
            Described::Bool => Kind::Bool,
            Described::String => Kind::String,
            Described::Bytes => Kind::Bytes,
            Described::Message(message) => Kind::Message(self.message(message)),
            Described::Enum(of) => Kind::Enum(self.enumeration(of)),
        }
    }
}

/// Says what a message stands for: it has the name, and the fields that are counted on.
fn known(message: &MessageType) -> Option<Known> {
    const I32: Kind = Kind::Number(Number::Int32);
    const I64: Kind = Kind::Number(Number::Int64);
    let single = |number: u32, kind: Kind| {
        let field = message.field(number).map(|at| message.fields[at].shape);
        matches!(field, Some(Shape::Single { of, .. }) if of == kind)
    };
    let shape = |number: u32| message.field(number).map(|at| message.fields[at].shape);
    let wrapped = |kind| single(1, kind).then_some(Known::Wrapper);
    let all = |kinds: &[Kind], known| {
        let alike = kinds.iter().zip(1..).all(|(kind, number)| single(number, *kind));
        alike.then_some(known)
    };
    match message.name.as_str() {
        "google.protobuf.Timestamp" => all(&[I64, I32], Known::Timestamp),
        "google.protobuf.Duration" => all(&[I64, I32], Known::Duration),
        "google.protobuf.DoubleValue" => wrapped(Kind::Double),
        "google.protobuf.FloatValue" => wrapped(Kind::Float),
        "google.protobuf.Int64Value" => wrapped(I64),
        "google.protobuf.UInt64Value" => wrapped(Kind::Number(Number::Uint64)),
        "google.protobuf.Int32Value" => wrapped(I32),
        "google.protobuf.UInt32Value" => wrapped(Kind::Number(Number::Uint32)),
        "google.protobuf.BoolValue" => wrapped(Kind::Bool),
        "google.protobuf.StringValue" => wrapped(Kind::String),
        "google.protobuf.BytesValue" => wrapped(Kind::Bytes),
        "google.protobuf.Struct" => matches!(shape(1), Some(Shape::Map { .. })).then_some(Known::Struct),
        "google.protobuf.ListValue" => matches!(shape(1), Some(Shape::Repeated(_))).then_some(Known::ListValue),
        "google.protobuf.Value" => Some(Known::Value),
        "google.protobuf.Any" => all(&[Kind::String, Kind::Bytes], Known::Any),
        "google.protobuf.FieldMask" => (shape(1) == Some(Shape::Repeated(Kind::String))).then_some(Known::FieldMask),
        "google.type.Date" => all(&[I32, I32, I32], Known::Date),
        "google.type.TimeOfDay" => all(&[I32, I32, I32, I32], Known::TimeOfDay),
        "google.type.Decimal" => all(&[Kind::String], Known::Decimal),
        "confluent.type.Decimal" => {
            let alike = single(1, Kind::Bytes) && single(3, I32);
            alike.then_some(Known::UnscaledDecimal)
        }
        _ => None,
    }
}
