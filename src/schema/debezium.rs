//! What Debezium wraps rows into, told from rows by its whole shape: rows that its unwrap step leaves have whatever columns
//! their table has, `op`, `before` and `after` among them.
//!
//! Source: Debezium 3, connector documentation, "Data change events": every event has `op`, `ts_ms` and `source`, whose
//! members all connectors share; transforms may add fields.

use iceberg::spec::{NestedField, PrimitiveType, Type};

/// The members of an event; a value with only these is hardly a row.
const MEMBERS: [&str; 12] = [
    "before",
    "after",
    "source",
    "op",
    "ts_ms",
    "ts_us",
    "ts_ns",
    "transaction",
    "message",
    "databaseName",
    "ddl",
    "tableChanges",
];

/// Members of `source` that more than one connector has.
const SOURCE: [&str; 11] = [
    "version",
    "connector",
    "name",
    "ts_ms",
    "snapshot",
    "db",
    "schema",
    "table",
    "collection",
    "sequence",
    "query",
];

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An event, with its row in `after`.
    Event,
    /// An event of something else than a row: of a schema, say.
    Other,
    /// A row.
    Row,
    /// Its fields could be either's.
    Unclear,
}

/// What a field is, as far as it tells the one from the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    /// Null.
    Null,
    /// Text, or an enum.
    Text,
    /// A whole number.
    Number,
    /// Fields of its own.
    Fields(Source),
    /// Anything else.
    Else,
}

impl Is {
    /// What has these fields.
    pub fn fields<'n>(names: impl Iterator<Item = &'n str>) -> Is {
        let mut source = Source::default();
        names.for_each(|name| source.see(name));
        Is::Fields(source)
    }
}

/// The members of what may be an event's `source`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Source {
    known: u8,
    others: bool,
    connector: bool,
    time: bool,
}

impl Source {
    /// Takes in a member.
    pub fn see(&mut self, name: &str) {
        match SOURCE.contains(&name) {
            true => self.known += 1,
            false => self.others = true,
        }
        self.connector |= name == "connector";
        self.time |= name == "ts_ms";
    }

    /// All events have these two.
    fn is_debezium(self) -> bool {
        self.connector && self.time
    }

    fn may_be(self) -> bool {
        self.known > 0 || !self.others
    }
}

/// The fields of a value, or of its schema.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shape {
    op: Option<Is>,
    before: Option<Is>,
    after: Option<Is>,
    source: Option<Is>,
    message: Option<Is>,
    time: bool,
    /// Fields that tell of a change of the schema.
    of_schema: bool,
    /// Fields that no event has by itself.
    others: bool,
}

impl Shape {
    /// Takes in a field.
    pub fn see(&mut self, name: &str, is: Is) {
        match name {
            "op" => self.op = Some(is),
            "before" => self.before = Some(is),
            "after" => self.after = Some(is),
            "source" => self.source = Some(is),
            "message" => self.message = Some(is),
            _ => {}
        }
        self.time |= name == "ts_ms" && is == Is::Number;
        self.of_schema |= matches!(name, "databaseName" | "ddl" | "tableChanges");
        self.others |= !MEMBERS.contains(&name);
    }

    /// The shape of values with these columns.
    pub fn of_columns(columns: &[&NestedField]) -> Shape {
        let mut shape = Shape::default();
        for column in columns {
            let is = match &*column.field_type {
                Type::Struct(members) => Is::fields(members.fields().iter().map(|member| member.name.as_str())),
                Type::Primitive(PrimitiveType::String) => Is::Text,
                Type::Primitive(PrimitiveType::Int | PrimitiveType::Long) => Is::Number,
                _ => Is::Else,
            };
            shape.see(&column.name, is);
        }
        shape
    }

    /// Says what a value with these fields is.
    ///
    /// - `name`: that of its schema, where it has one; Debezium's own end with `.Envelope` and `.Value`.
    pub fn form(&self, name: Option<&str>) -> Form {
        let last = name.map(|name| name.rsplit('.').next().unwrap_or(name));
        let source = match self.source {
            Some(Is::Fields(source)) => Some(source),
            _ => None,
        };
        let holds = |of: Option<Is>| matches!(of, Some(Is::Fields(_)));
        let image = |of: Option<Is>| matches!(of, None | Some(Is::Null | Is::Text | Is::Fields(_)));
        let images = image(self.before) && image(self.after);
        let certain = self.time && source.is_some_and(Source::is_debezium);
        if self.op != Some(Is::Text) {
            let of_event = self.of_schema || self.before.is_some() || self.after.is_some();
            return if certain && of_event && self.op.is_none() {
                Form::Other
            } else {
                Form::Row
            };
        }
        let named = last == Some("Envelope") && (self.before.is_some() || self.after.is_some());
        if images && (certain || named) {
            return Form::Event;
        }
        if !images || last == Some("Value") || self.others {
            return Form::Row;
        }
        // It has an event's members only.
        let foreign = match self.source {
            None | Some(Is::Null) => false,
            Some(Is::Fields(source)) => !source.may_be(),
            Some(_) => true,
        };
        let rows = [self.before, self.after, self.message].into_iter().any(holds);
        let nothing = [self.before, self.after]
            .into_iter()
            .all(|of| matches!(of, None | Some(Is::Null)));
        match () {
            () if foreign => Form::Unclear,
            () if rows || (nothing && (source.is_some() || self.time)) => Form::Event,
            // A column of that name, alone.
            () if self.before.is_none() && self.after.is_none() => Form::Row,
            () => Form::Unclear,
        }
    }
}

/// Why a value is neither.
#[cold]
pub fn unclear() -> String {
    "it can't be told whether it is a change event or a row: it has `op`, and neither the `source` and `ts_ms` of events nor columns that no event has; \
     without `envelope` every value is a row"
        .to_owned()
}

/// Why an event is no change of a row.
#[cold]
pub fn of_something_else() -> String {
    "it is an event without `op`, of a change of the schema perhaps; `envelope.apply: events` keeps every event as a row"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// - `fields`: names, each with `{`, `"`, `1`, `0` for null, or `[`; of `source` its members after it.
    fn check(fields: &[(&str, &str)], name: Option<&str>, expect: Form) {
        let mut shape = Shape::default();
        for (field, is) in fields {
            let is = match is.split_at(1) {
                ("{", members) => Is::fields(members.split_whitespace()),
                ("\"", _) => Is::Text,
                ("1", _) => Is::Number,
                ("0", _) => Is::Null,
                _ => Is::Else,
            };
            shape.see(field, is);
        }
        assert_eq!(shape.form(name), expect, "{fields:?}, {name:?}");
    }

    const OP: (&str, &str) = ("op", "\"");
    const SOURCE: (&str, &str) = ("source", "{version connector name ts_ms db lsn");
    const TIME: (&str, &str) = ("ts_ms", "1");

    #[test]
    fn events_are_known_whatever_is_added_to_them() {
        let check = |fields: &[(&str, &str)]| check(fields, None, Form::Event);
        check(&[("before", "0"), ("after", "{"), SOURCE, OP, TIME, ("transaction", "0")]);
        check(&[("before", "{"), ("after", "0"), SOURCE, OP, TIME]);
        // MongoDB's rows are text; truncates have none; a transform has added a field.
        check(&[("after", "\""), SOURCE, OP, TIME]);
        check(&[SOURCE, OP, TIME]);
        check(&[("after", "{"), SOURCE, OP, TIME, ("kafka_topic", "\"")]);
        // Made by hand.
        check(&[OP, ("after", "{")]);
        check(&[OP, ("before", "{"), ("after", "0"), ("source", "{")]);
        check(&[OP, ("source", "{table")]);
        check(&[OP, ("after", "0"), TIME]);
        check(&[OP, ("message", "{"), ("before", "0")]);
    }

    #[test]
    fn rows_have_columns_of_any_name() {
        let check = |fields: &[(&str, &str)]| check(fields, None, Form::Row);
        let id = ("id", "1");
        check(&[id, OP, ("after", "\"")]);
        check(&[id, OP, ("before", "{"), ("after", "{"), TIME]);
        check(&[id, OP, ("after", "{"), ("source", "{name db"), TIME]);
        check(&[id, OP, ("after", "{"), ("source", "\"")]);
        check(&[("op", "1"), ("after", "{"), ("before", "{")]);
        check(&[OP, ("after", "1")]);
        check(&[OP, ("after", "[")]);
        check(&[OP]);
        check(&[("before", "{"), ("after", "{")]);
        check(&[]);
    }

    #[test]
    fn what_could_be_either_is_neither() {
        check(&[OP, ("after", "\"")], None, Form::Unclear);
        check(&[OP, ("after", "0")], None, Form::Unclear);
        check(&[OP, ("after", "{"), ("source", "\"")], None, Form::Unclear);
        check(&[OP, ("after", "{"), ("source", "{a b")], None, Form::Unclear);
        check(
            &[SOURCE, TIME, ("ddl", "\""), ("databaseName", "\"")],
            None,
            Form::Other,
        );
    }

    #[test]
    fn a_schemas_name_decides() {
        let fields = [OP, ("after", "\""), ("id", "1")];
        check(&fields, Some("shop.orders.Envelope"), Form::Event);
        check(&fields, Some("shop.orders.Value"), Form::Row);
        check(&fields, Some("shop.Order"), Form::Row);
        check(&[OP, ("after", "{")], Some("shop.orders.Value"), Form::Row);
        check(&[OP, ("after", "{")], Some("shop.Change"), Form::Event);
    }
}
