//! Change events: what is inside their envelope, and what becomes of it.

mod framed;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::messagepack;
use crate::config::{Apply, Envelope, EnvelopeKind};
use crate::json::lexer::{Fault, Lexer};
use crate::schema::debezium::{self, Form, Is, Shape, Source};

pub use self::framed::EnvelopeDecoder;

/// The field of an event that is its own in all the topic.
pub const EVENT_ID: &str = "event_id";

/// The field that says of a row whether it was deleted, as Debezium's unwrap step writes it.
pub(super) const DELETED: &str = "__deleted";

/// Which fields of an envelope are looked at.
#[derive(Debug)]
pub(super) struct Names {
    kind: EnvelopeKind,
    /// Ids of events are wanted.
    ids: bool,
    /// The path of the event time, where that may be around the row.
    time: Option<Vec<String>>,
}

/// What a field of an envelope is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    operation: bool,
    event_id: bool,
    deleted: bool,
    /// It holds the row.
    pub row: bool,
    /// It holds, or is, the event time.
    pub time: bool,
}

/// What an envelope's fields say.
#[derive(Debug, Default)]
pub(super) struct Picked<'a> {
    operation: Option<String>,
    event_id: Option<String>,
    deleted: Option<String>,
    /// The field that the path of the event time begins with: a text, or JSON.
    time: Option<Vec<u8>>,
    /// The bytes of the row; where it is text, that.
    pub row: Option<Cow<'a, [u8]>>,
}

impl Names {
    /// Says what a field is, if it is looked at.
    ///
    /// - `around`: it is one of an envelope, not of a row that has none.
    pub fn place(&self, name: &str, around: bool) -> Option<Place> {
        let time = self.time.as_ref().and_then(|path| path.first());
        let flat = self.kind == EnvelopeKind::Debezium && !around;
        let place = Place {
            operation: around && name == self.kind.operation(),
            event_id: self.ids && name == EVENT_ID,
            deleted: flat && name == DELETED,
            row: around && name == self.kind.after(),
            time: time.is_some_and(|time| time == name),
        };
        (place != Place::default()).then_some(place)
    }
}

impl Picked<'_> {
    /// Takes the text of a field.
    pub fn put(&mut self, place: Place, text: Vec<u8>) {
        let plain = || Some(String::from_utf8_lossy(&text).into_owned());
        if place.operation {
            self.operation = plain();
        }
        if place.event_id {
            self.event_id = plain();
        }
        if place.deleted {
            self.deleted = plain();
        }
        if place.row && self.row.is_none() {
            self.row = Some(text.clone().into());
        }
        if place.time {
            self.time = Some(text);
        }
    }
}

/// What a change asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// A row, as it is after the change.
    Row,
    /// That a row, or all of them, be gone: in kstream mode nothing does that.
    Gone,
    /// Nothing: a message that was written to the log beside the changes.
    Nothing,
}

impl Change {
    /// Reads `op` or `operation`.
    ///
    /// # Errors
    /// If it is none that the envelope has.
    pub(super) fn of(kind: EnvelopeKind, operation: &str) -> Result<Change, String> {
        match (kind, operation) {
            (EnvelopeKind::Debezium, "c" | "u" | "r") => Ok(Change::Row),
            (EnvelopeKind::Debezium, "d" | "t") => Ok(Change::Gone),
            (EnvelopeKind::Debezium, "m") => Ok(Change::Nothing),
            (EnvelopeKind::Debezium, other) => Err(format!("`op` is \"{other}\", of c, r, u, d, t and m none")),
            // Protobuf's enums have the name of the enum in front.
            (EnvelopeKind::Cdc, other) => match other.rsplit('_').next().unwrap_or(other).to_ascii_uppercase().as_str()
            {
                "INSERT" | "UPDATE" => Ok(Change::Row),
                "DELETE" => Ok(Change::Gone),
                _ => Err(format!("`operation` is \"{other}\", of INSERT, UPDATE and DELETE none")),
            },
        }
    }
}

/// An opened envelope.
#[derive(Debug, PartialEq)]
pub(super) struct Opened<'a> {
    /// What was done.
    pub change: Change,
    /// The JSON of the row; empty where the change makes none.
    pub row: Cow<'a, [u8]>,
    /// The event's own id, as text.
    pub event_id: Option<String>,
}

impl<'a> Opened<'a> {
    fn row(row: impl Into<Cow<'a, [u8]>>) -> Self {
        Opened {
            change: Change::Row,
            row: row.into(),
            event_id: None,
        }
    }

    fn no_row(change: Change) -> Self {
        Opened {
            change,
            row: Cow::Borrowed(b""),
            event_id: None,
        }
    }
}

/// Opens the envelope of an event; what isn't JSON at all is left to whoever decodes the row.
///
/// # Errors
/// Why the event has no row where it should have one.
pub(super) fn open<'a>(envelope: Envelope, json: &'a [u8]) -> Result<Opened<'a>, String> {
    if simdutf8::basic::from_utf8(json).is_err() {
        return Ok(Opened::row(json));
    }
    let opened = match envelope.kind {
        EnvelopeKind::Debezium => debezium(envelope.apply, json),
        EnvelopeKind::Cdc => cdc(envelope, json),
    };
    opened.unwrap_or_else(|_| Ok(Opened::row(json)))
}

/// Returns the JSON of the row inside an event, if there is one.
pub fn row(envelope: Envelope, json: &[u8]) -> Option<Cow<'_, [u8]>> {
    let opened = open(envelope, json).ok()?;
    (opened.change == Change::Row).then_some(opened.row)
}

fn debezium(apply: Apply, json: &[u8]) -> Result<Result<Opened<'_>, String>, Fault> {
    let outer = Fields::of(json)?;
    let (schema, json) = match outer.with_schema() {
        // A tombstone with its schema.
        Some((_, b"null")) => return Ok(Ok(Opened::no_row(Change::Nothing))),
        Some((schema, payload)) => (Some(schema), payload),
        None => (None, json),
    };
    if apply == Apply::Events {
        return Ok(Ok(Opened::row(json)));
    }
    let (fields, name) = match schema {
        None => (outer, None),
        Some(schema) => {
            let [name] = members(schema, ["name"])?;
            (Fields::of(json)?, name.map(text).transpose()?.flatten())
        }
    };
    match fields.shape.form(name.as_deref()) {
        Form::Event => {
            let op = fields.op.map(text).transpose()?.flatten();
            Ok(of_change(EnvelopeKind::Debezium, op, fields.after))
        }
        // As the unwrap step flattens it: the row itself.
        Form::Row => Ok(Ok(match fields.deleted.map(text).transpose()?.flatten().as_deref() {
            Some("true") => Opened::no_row(Change::Gone),
            _ => Opened::row(json),
        })),
        Form::Unclear => Ok(Err(debezium::unclear())),
        Form::Other => Ok(Err(debezium::of_something_else())),
    }
}

/// The fields of a value as they tell an event from a row; of each the JSON, of equal names the last.
#[derive(Default)]
struct Fields<'a> {
    shape: Shape,
    op: Option<&'a [u8]>,
    after: Option<&'a [u8]>,
    deleted: Option<&'a [u8]>,
    schema: Option<&'a [u8]>,
    payload: Option<&'a [u8]>,
    count: usize,
}

impl<'a> Fields<'a> {
    fn of(json: &'a [u8]) -> Result<Self, Fault> {
        let mut fields = Fields::default();
        each_member(json, |name, value| {
            fields.count += 1;
            let Ok(name) = std::str::from_utf8(name) else {
                return Ok(());
            };
            match name {
                "op" => fields.op = Some(value),
                "after" => fields.after = Some(value),
                DELETED => fields.deleted = Some(value),
                "schema" => fields.schema = Some(value),
                "payload" => fields.payload = Some(value),
                _ => {}
            }
            fields.shape.see(name, is(name, value)?);
            Ok(())
        })?;
        Ok(fields)
    }

    /// The schema and the value, as the JSON converter writes them side by side; rows may have columns of these names.
    fn with_schema(&self) -> Option<(&'a [u8], &'a [u8])> {
        let (schema, payload) = (self.schema?, self.payload?);
        let both = |of: &[u8]| of.starts_with(b"{") || of == b"null";
        (self.count == 2 && both(schema) && both(payload)).then_some((schema, payload))
    }
}

fn is(name: &str, value: &[u8]) -> Result<Is, Fault> {
    Ok(match value.first() {
        Some(b'n') => Is::Null,
        Some(b'"') => Is::Text,
        Some(b'-' | b'0'..=b'9') => Is::Number,
        Some(b'{') => {
            let mut source = Source::default();
            if name == "source" {
                each_member(value, |name, _| {
                    source.see(&String::from_utf8_lossy(name));
                    Ok(())
                })?;
            }
            Is::Fields(source)
        }
        _ => Is::Else,
    })
}

fn cdc(envelope: Envelope, json: &[u8]) -> Result<Result<Opened<'_>, String>, Fault> {
    let [id, operation, after] = members(json, [EVENT_ID, "operation", "payload_after"])?;
    let opened = match envelope.apply {
        Apply::Events => Ok(Opened::row(json)),
        Apply::Rows => {
            let operation = operation.map(text).transpose()?.flatten();
            of_change(EnvelopeKind::Cdc, operation, after)
        }
    };
    let event_id = id.filter(|_| envelope.keeps_ids()).map(text).transpose()?.flatten();
    Ok(opened.map(|opened| Opened { event_id, ..opened }))
}

fn of_change(kind: EnvelopeKind, operation: Option<String>, after: Option<&[u8]>) -> Result<Opened<'_>, String> {
    let operation = operation.ok_or_else(|| no_operation(kind))?;
    match Change::of(kind, &operation)? {
        Change::Row => match after.filter(|after| *after != b"null") {
            Some(after) if after.starts_with(b"\"") => match text(after).ok().flatten() {
                Some(text) => Ok(Opened::row(row_of_text(kind, &text)?)),
                None => Err(no_row(kind, &operation)),
            },
            Some(after) => Ok(Opened::row(after)),
            None => Err(no_row(kind, &operation)),
        },
        change => Ok(Opened::no_row(change)),
    }
}

#[cold]
pub(super) fn no_operation(kind: EnvelopeKind) -> String {
    format!(
        "the event has no `{}`; `envelope.apply: events` keeps every event as a row",
        kind.operation()
    )
}

#[cold]
pub(super) fn no_row(kind: EnvelopeKind, operation: &str) -> String {
    format!(
        "`{}` is {operation}, and `{}` holds no row",
        kind.operation(),
        kind.after()
    )
}

/// Returns the JSON of a row that an event holds as text: JSON, or the base64 of JSON or of MessagePack.
pub(super) fn row_of_text(kind: EnvelopeKind, text: &str) -> Result<Vec<u8>, String> {
    if text.trim_start().starts_with('{') {
        return Ok(text.as_bytes().to_vec());
    }
    let bytes = STANDARD.decode(text).map_err(|_| {
        format!(
            "`{}` is text that holds no row: neither JSON nor base64 of one",
            kind.after()
        )
    })?;
    match bytes.trim_ascii_start().first() {
        Some(b'{') => Ok(bytes),
        _ => messagepack::json(&bytes).map_err(|why| format!("`{}`: {why}", kind.after())),
    }
}

/// Finds fields of an object: of each the JSON of its value, of equal names the last.
fn members<'a, const NAMES: usize>(json: &'a [u8], names: [&str; NAMES]) -> Result<[Option<&'a [u8]>; NAMES], Fault> {
    let mut found = [None; NAMES];
    each_member(json, |name, value| {
        if let Some(at) = names.iter().position(|wanted| *name == *wanted.as_bytes()) {
            found[at] = Some(value);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Walks over the fields of an object, each with the JSON of its value; of what is no object there are none.
fn each_member<'a>(json: &'a [u8], mut see: impl FnMut(&[u8], &'a [u8]) -> Result<(), Fault>) -> Result<(), Fault> {
    let mut lexer = Lexer::new(json);
    lexer.space();
    if lexer.peek() != b'{' {
        return Ok(());
    }
    let mut more = lexer.open(b'}');
    while more {
        let key = lexer.key()?;
        let name = key.bytes();
        let start = lexer.pos;
        lexer.skip()?;
        see(&name, lexer.since(start))?;
        more = lexer.more(b'}')?;
    }
    lexer.end()
}

/// Returns a value as text: a string without its quotes, `None` for null, anything else as it is written.
fn text(json: &[u8]) -> Result<Option<String>, Fault> {
    Ok(match json.first() {
        Some(b'"') => {
            let text = Lexer::new(json).string()?.bytes();
            Some(String::from_utf8_lossy(&text).into_owned())
        }
        _ if json == b"null" => None,
        _ => Some(String::from_utf8_lossy(json).into_owned()),
    })
}
