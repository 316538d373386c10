//! Protobuf: what the wire, and Confluent's registry, allow.
//!
//! Messages of a file match by name, their fields by number, and the messages in fields by what they hold. Names of fields and
//! enum constants, and the order of messages, are free: a record's message indexes count in the schema that it was written with.
//!
//! Source: protobuf.dev, "Language Guide (proto 3)", "Updating A Message Type", 2025; the table of changes in Confluent Platform
//! 8.0, "Protobuf compatibility rules".

use std::collections::{BTreeMap, HashSet};

use prost_reflect::{Cardinality, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor, OneofDescriptor};

use super::{Misfit, Rule};

/// Returns why a schema can't read all that another one wrote.
pub(super) fn misfits(reader: &FileDescriptor, writer: &FileDescriptor) -> Vec<Misfit> {
    if reader.package_name() != writer.package_name() {
        let shown = |name: &str| match name {
            "" => "no package".to_owned(),
            name => format!("package `{name}`"),
        };
        return vec![Misfit {
            path: "$".to_owned(),
            rule: Rule::Package,
            reader: shown(reader.package_name()),
            writer: shown(writer.package_name()),
        }];
    }
    let known = messages(reader);
    let mut check = Check {
        seen: HashSet::new(),
        pending: Vec::new(),
        out: Vec::new(),
    };
    for (name, written) in messages(writer) {
        match known.get(&name) {
            Some(message) => check.pend(message, &written),
            None => check.out.push(Misfit {
                path: name.clone(),
                rule: Rule::Message,
                reader: "no such message".to_owned(),
                writer: format!("message `{}`", written.name()),
            }),
        }
    }
    // Ends: each pair is pending once.
    while let Some((reader, writer)) = check.pending.pop() {
        check.message(&reader, &writer);
    }
    check.out.sort_by(|one, other| one.path.cmp(&other.path));
    check.out
}

/// Returns the messages of a file by their full names, those inside others included, entries of maps not.
fn messages(file: &FileDescriptor) -> BTreeMap<String, MessageDescriptor> {
    let mut found = BTreeMap::new();
    let mut open: Vec<_> = file.messages().collect();
    // Ends: each message of the file is open once.
    while let Some(message) = open.pop() {
        open.extend(message.child_messages());
        if !message.is_map_entry() {
            found.insert(message.full_name().to_owned(), message);
        }
    }
    found
}

struct Check {
    /// Pairs of messages whose fields are looked at, by their full names: the reader's and the writer's.
    seen: HashSet<(String, String)>,
    pending: Vec<(MessageDescriptor, MessageDescriptor)>,
    out: Vec<Misfit>,
}

impl Check {
    fn pend(&mut self, reader: &MessageDescriptor, writer: &MessageDescriptor) {
        let pair = (reader.full_name().to_owned(), writer.full_name().to_owned());
        if self.seen.insert(pair) {
            self.pending.push((reader.clone(), writer.clone()));
        }
    }

    fn message(&mut self, reader: &MessageDescriptor, writer: &MessageDescriptor) {
        let path = |name: &str| match reader.is_map_entry() {
            // The entry's own name is made up by the compiler.
            true => format!("{}.{name}", reader.full_name().trim_end_matches("Entry")),
            false => format!("{}.{name}", reader.full_name()),
        };
        for field in numbered(writer) {
            match reader.get_field(field.number()) {
                Some(known) => self.field(&known, &field, &path(known.name())),
                None if field.cardinality() == Cardinality::Required => self.out.push(Misfit {
                    path: path(field.name()),
                    rule: Rule::Required,
                    reader: format!("no field {}", field.number()),
                    writer: format!("a required field {}", field.number()),
                }),
                None => {}
            }
        }
        for field in numbered(reader) {
            if field.cardinality() == Cardinality::Required && writer.get_field(field.number()).is_none() {
                self.out.push(Misfit {
                    path: path(field.name()),
                    rule: Rule::Required,
                    reader: format!("a required field {}", field.number()),
                    writer: format!("no field {}", field.number()),
                });
            }
        }
        for oneof in reader.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            self.joined(&oneof, writer, &path(oneof.name()));
        }
        for oneof in writer.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            self.left(&oneof, reader, &path(oneof.name()));
        }
    }

    fn field(&mut self, reader: &FieldDescriptor, writer: &FieldDescriptor, path: &str) {
        let mut misfit = |rule, reader, writer| {
            self.out.push(Misfit {
                path: path.to_owned(),
                rule,
                reader,
                writer,
            });
        };
        let (known, written) = (reader.kind(), writer.kind());
        if reader.is_group() != writer.is_group() || !same_wire(&known, &written) {
            return misfit(Rule::Type, shown(reader), shown(writer));
        }
        let repeated = |field: &FieldDescriptor| field.cardinality() == Cardinality::Repeated;
        // Of these the last value counts; numbers may be packed, which a single field isn't.
        let packable = !matches!(known, Kind::String | Kind::Bytes | Kind::Message(_));
        if repeated(reader) != repeated(writer) && packable {
            misfit(Rule::Repeated, shown(reader), shown(writer));
        }
        if reader.cardinality() == Cardinality::Required && writer.cardinality() != Cardinality::Required {
            misfit(Rule::Required, shown(reader), shown(writer));
        }
        if let (Kind::Message(known), Kind::Message(written)) = (known, written) {
            self.pend(&known, &written);
        }
    }

    /// Of a `oneof` one field is kept: what the writer could set together must not be in it.
    fn joined(&mut self, oneof: &OneofDescriptor, writer: &MessageDescriptor, path: &str) {
        let written: Vec<_> = oneof
            .fields()
            .filter_map(|field| writer.get_field(field.number()))
            .collect();
        let one = |field: &FieldDescriptor| field.containing_oneof().map(|oneof| oneof.name().to_owned());
        let apart = written
            .windows(2)
            .any(|pair| one(&pair[0]).is_none() || one(&pair[0]) != one(&pair[1]));
        if apart {
            let names: Vec<_> = written.iter().map(|field| format!("`{}`", field.name())).collect();
            self.out.push(Misfit {
                path: path.to_owned(),
                rule: Rule::OneofJoined,
                reader: format!("{} in one `oneof`", names.join(", ")),
                writer: "fields that can be set together".to_owned(),
            });
        }
    }

    /// A `oneof` without one of its fields can't tell that field from none.
    fn left(&mut self, oneof: &OneofDescriptor, reader: &MessageDescriptor, path: &str) {
        let inside = |field: &FieldDescriptor| {
            let known = reader.get_field(field.number())?;
            known.containing_oneof().filter(|oneof| !oneof.is_synthetic())
        };
        let (kept, gone): (Vec<_>, Vec<_>) = oneof.fields().partition(|field| inside(field).is_some());
        // One that went as a whole is as fields that went.
        let called = reader.oneofs().any(|other| other.name() == oneof.name());
        if gone.is_empty() || (kept.is_empty() && !called) {
            return;
        }
        let names: Vec<_> = gone.iter().map(|field| format!("`{}`", field.name())).collect();
        let names = names.join(", ");
        self.out.push(Misfit {
            path: path.to_owned(),
            rule: Rule::OneofField,
            reader: format!("a `oneof` without {names}"),
            writer: format!("a `oneof` with {names}"),
        });
    }
}

/// Returns the fields of a message by their numbers, ascending.
fn numbered(message: &MessageDescriptor) -> Vec<FieldDescriptor> {
    let mut fields: Vec<_> = message.fields().collect();
    fields.sort_by_key(FieldDescriptor::number);
    fields
}

/// Says whether values of two kinds are written alike, and mean the same.
///
/// Source: protobuf.dev as above: numbers of variable length are one kind, enums among them, and are cut to the reader's size;
/// zigzag ones another; text is bytes.
fn same_wire(one: &Kind, other: &Kind) -> bool {
    fn group(of: &Kind) -> u8 {
        match of {
            Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Bool | Kind::Enum(_) => 0,
            Kind::Sint32 | Kind::Sint64 => 1,
            Kind::Fixed32 | Kind::Sfixed32 => 2,
            Kind::Fixed64 | Kind::Sfixed64 => 3,
            Kind::Float => 4,
            Kind::Double => 5,
            Kind::String | Kind::Bytes => 6,
            Kind::Message(_) => 7,
        }
    }
    group(one) == group(other)
}

/// Returns what a field is called to a person.
fn shown(field: &FieldDescriptor) -> String {
    let label = match field.cardinality() {
        Cardinality::Repeated if field.is_map() => "",
        Cardinality::Repeated => "repeated ",
        Cardinality::Required => "required ",
        Cardinality::Optional => "",
    };
    let kind = match field.kind() {
        Kind::Message(_) if field.is_map() => "map".to_owned(),
        Kind::Message(of) if field.is_group() => format!("group {}", of.full_name()),
        Kind::Message(of) => format!("message {}", of.full_name()),
        Kind::Enum(of) => format!("enum {}", of.full_name()),
        kind => format!("{kind:?}").to_lowercase(),
    };
    format!("`{label}{kind}` as field {}", field.number())
}
