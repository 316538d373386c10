//! JSON as it is written: with the order of its fields.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value. `serde_json`'s own sorts the fields of an object, and columns come in the order of the text.
#[derive(Debug, PartialEq)]
pub(in crate::schema) enum Node {
    Null,
    Bool(bool),
    /// As the nearest double: bounds and kinds of numbers need no more.
    Number {
        value: f64,
        /// Written without a fraction and an exponent, and in 64 bits.
        integer: bool,
    },
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    /// Returns the fields of an object; of anything else there are none.
    pub fn fields(&self) -> &[(String, Node)] {
        match self {
            Node::Object(fields) => fields,
            _ => &[],
        }
    }

    /// Returns the field of this name; of equal ones the last counts.
    pub fn get(&self, name: &str) -> Option<&Node> {
        let found = self.fields().iter().rev().find(|(field, _)| field == name);
        found.map(|(_, node)| node)
    }

    /// Returns the field's text, if it is one.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the field's number, if it is one.
    pub fn number(&self, name: &str) -> Option<f64> {
        match self.get(name)? {
            Node::Number { value, .. } => Some(*value),
            _ => None,
        }
    }

    /// Returns the items of the field, if it is an array; of anything else there are none.
    pub fn list(&self, name: &str) -> &[Node] {
        match self.get(name) {
            Some(Node::List(items)) => items,
            _ => &[],
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(Anything)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Node;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        let value = value as f64;
        Ok(Node::Number { value, integer: true })
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        let value = value as f64;
        Ok(Node::Number { value, integer: true })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Number { value, integer: false })
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Node, E> {
        Ok(Node::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = source.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = source.next_entry()? {
            fields.push(field);
        }
        Ok(Node::Object(fields))
    }
}
