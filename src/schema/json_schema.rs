//! JSON Schema to columns: drafts 4, 6 and 7, 2019-09 and 2020-12 read as one language.
//!
//! The columns are those that the JSON decoder fills; it keeps any value as its JSON text in a string column, which is
//! what a schema's values become wherever no column holds them all.

mod check;
pub(super) mod documents;
mod kind;
pub(super) mod node;
#[cfg(test)]
mod tests;

use iceberg::spec::{NestedField, PrimitiveType};

use self::documents::{Documents, Place};
use self::kind::{Fields, Kind, Of};
use self::node::Node;
use super::SchemaText;

pub use self::check::Check;

/// Schemas inside each other, those that a `$ref` leads to and the arms of `allOf`, `anyOf` and `oneOf` counted; what
/// is deeper is kept as JSON text. Without a `$ref` no text gets there: `serde_json` reads 128 levels, two for each.
const DEPTH_MAX: usize = 64;

/// Keywords and values that are read, as often as a `$ref` leads to them: a hundred for each column of the largest table.
/// A few lines of `$ref`s can ask for more schemas than there are atoms.
const READ_MAX: usize = 1_000_000;

/// Patterns of names that every name matches.
pub(super) const ANY_NAME: [&str; 5] = ["", ".*", "^.*$", ".+", "^.+$"];

/// Returns the columns for records of a schema, in the order of its text, or in that of Kafka Connect's `connect.index`;
/// ids are provisional, each its own, from 1.
///
/// | schema | column |
/// |---|---|
/// | `object` with `properties` | struct |
/// | `object` with only `additionalProperties: {…}`, or one pattern for all names | map of strings to that |
/// | any other `object` | string, its JSON text |
/// | `array` | list; a tuple whose items differ: string, its JSON text |
/// | `integer` | long; decimal(20, 0), decimal(38, 0) or JSON text where its bounds are beyond 64 bits |
/// | `number` | double |
/// | `string` | string; by `format`: `date` date, `date-time` timestamptz, `uuid` uuid; base64 (`format: byte`, `contentEncoding`) binary |
/// | `boolean` | boolean |
/// | `null`, `false` | none |
/// | `enum`, `const` without a type | by their values |
/// | several types or arms | one that takes all: objects one struct of all fields, integers and numbers double; else string, the JSON text |
/// | `true`, nothing said of the type, a schema inside itself | string, the JSON text |
///
/// A `time` is a string: JSON Schema's has an offset, Iceberg's has none. Kafka Connect's `connect.type` narrows: `int8`
/// to `int32` int, `float32` float, `bytes` binary, its `Timestamp` timestamptz. Its `Decimal` is a string: whether a
/// converter writes the number or its bytes in base64 isn't in the schema, and `"1234"` could be either.
///
/// A column is required where the schema says so and doesn't take null. `not`, `if`, `then`, `else` and what depends on
/// other fields change no column. A root that is an object of which nothing is said has no columns.
///
/// # Errors
/// A sentence for a person: the text is no JSON, its root is no object, a `$ref` leads nowhere, or there are too many
/// columns.
///
/// Source: JSON Schema drafts 4 to 2020-12, core and validation; Confluent's `JsonSchemaData` 7.x for `connect.*`.
pub fn columns(schema: &SchemaText) -> Result<Vec<NestedField>, String> {
    let root = parsed(&schema.text).map_err(|error| format!("the schema is no JSON: {error}"))?;
    let references = schema.references.iter().map(|reference| {
        let node = parsed(&reference.text)
            .map_err(|error| format!("the schema's reference `{}` is no JSON: {error}", reference.name))?;
        Ok((reference.name.as_str(), node))
    });
    let references = references.collect::<Result<Vec<_>, String>>()?;
    let mut reader = Reader {
        documents: Documents::new(&root, references.iter().map(|(name, node)| (*name, node))),
        open: Vec::new(),
        read: 0,
    };
    let root = reader.documents.root();
    reader.schema(root)?.columns()
}

fn parsed(text: &str) -> Result<Node, serde_json::Error> {
    serde_json::from_str(text)
}

/// What is being read.
struct Reader<'a> {
    documents: Documents<'a>,
    /// The schemas that the one being read is inside of.
    open: Vec<&'a Node>,
    read: usize,
}

impl<'a> Reader<'a> {
    fn inside(&mut self, outer: Place<'a>, node: &'a Node) -> Result<Kind, String> {
        let place = self.documents.inside(outer, node);
        self.schema(place)
    }

    fn schema(&mut self, place: Place<'a>) -> Result<Kind, String> {
        let node = place.node;
        let lists = ["required", "enum", "type"].map(|name| node.list(name).len());
        self.read += 1 + node.fields().len() + lists.iter().sum::<usize>();
        if self.read > READ_MAX {
            return Err(format!(
                "the schema has more than {READ_MAX} keywords once its `$ref`s are followed"
            ));
        }
        match node {
            Node::Object(_) => {}
            Node::Bool(false) => return Ok(Of::Nothing.null(false)),
            _ => return Ok(Of::Any.null(true)),
        }
        if self.open.len() >= DEPTH_MAX || self.open.iter().any(|open| std::ptr::eq(*open, node)) {
            return Ok(Of::Json.null(true));
        }
        self.open.push(node);
        let kind = self.all(place);
        self.open.pop();
        kind
    }

    /// Joins what a schema's keywords say, each on its own, in the order of the text: so are the fields then.
    fn all(&mut self, place: Place<'a>) -> Result<Kind, String> {
        let node = place.node;
        let mut kind = Of::Any.null(true);
        for (keyword, said) in node.fields() {
            let part = match (keyword.as_str(), said) {
                ("properties", _) => self.own(place)?,
                ("$ref" | "$recursiveRef" | "$dynamicRef", Node::Text(reference)) => {
                    let target = self.documents.resolve(place, reference)?;
                    self.schema(target)?
                }
                ("allOf", Node::List(parts)) => {
                    for part in parts {
                        kind = kind.and(self.inside(place, part)?);
                    }
                    continue;
                }
                ("anyOf" | "oneOf", Node::List(arms)) if !arms.is_empty() => {
                    let mut either = Of::Nothing.null(false);
                    for arm in arms {
                        either = either.or(self.inside(place, arm)?);
                    }
                    either
                }
                _ => continue,
            };
            kind = kind.and(part);
        }
        if node.get("properties").is_none() {
            kind = kind.and(self.own(place)?);
        }
        kind.required.extend(texts(node.list("required")).map(str::to_owned));
        // OpenAPI 3.0 has this in place of the type `null`.
        kind.nullable |= matches!(node.get("nullable"), Some(Node::Bool(true)));
        Ok(kind)
    }

    /// Reads what a schema says of a value's type.
    fn own(&mut self, place: Place<'a>) -> Result<Kind, String> {
        let node = place.node;
        let types: Vec<&str> = match node.get("type") {
            Some(Node::Text(one)) => vec![one],
            _ => texts(node.list("type")).collect(),
        };
        if types.is_empty() {
            return self.untyped(place);
        }
        let mut kind = Of::Nothing.null(false);
        for (at, name) in types.iter().enumerate() {
            if types[..at].contains(name) {
                continue;
            }
            let of = match *name {
                "null" => {
                    kind.nullable = true;
                    continue;
                }
                "object" => self.object(place)?,
                "array" => self.array(place)?,
                "boolean" => Of::Primitive(PrimitiveType::Boolean),
                "integer" => integer(node),
                "number" => number(node),
                "string" => string(node),
                _ => return Ok(Of::Any.null(true)),
            };
            kind = kind.or(of.null(false));
        }
        Ok(kind)
    }

    fn untyped(&mut self, place: Place<'a>) -> Result<Kind, String> {
        let node = place.node;
        let values = node.get("const").into_iter().chain(node.list("enum"));
        let values = values.map(value).reduce(Kind::or);
        if let Some(kind) = values {
            return Ok(kind);
        }
        // Whoever describes the fields of an object means an object, although any other value would pass.
        let has = |names: &[&str]| names.iter().any(|name| node.get(name).is_some_and(is_schemas));
        let object = has(&["properties", "patternProperties", "additionalProperties"]);
        let array = has(&["items", "prefixItems"]);
        let of = match (object, array) {
            (true, false) => self.object(place)?,
            (false, true) => self.array(place)?,
            _ => Of::Any,
        };
        Ok(of.null(true))
    }

    fn object(&mut self, place: Place<'a>) -> Result<Of, String> {
        let node = place.node;
        let mut properties: Vec<_> = node.get("properties").map_or(&[][..], Node::fields).iter().collect();
        if !properties.is_empty() {
            properties.sort_by_key(|(_, inner)| inner.number("connect.index").map_or(i64::MAX, |at| at as i64));
            let mut fields = Fields::default();
            for (name, inner) in properties {
                let kind = self.inside(place, inner)?;
                fields.add(name.clone(), kind, Kind::or);
            }
            return Ok(Of::Object(fields));
        }
        let patterns = node.get("patternProperties").map_or(&[][..], Node::fields);
        let others = match node.get("additionalProperties") {
            Some(Node::Bool(false)) => None,
            Some(others) => Some(self.inside(place, others)?),
            None if patterns.iter().any(|(pattern, _)| ANY_NAME.contains(&pattern.as_str())) => None,
            None => Some(Of::Any.null(true)),
        };
        let mut values = others.unwrap_or(Of::Nothing.null(false));
        for (_, inner) in patterns {
            values = values.or(self.inside(place, inner)?);
        }
        Ok(match values.of {
            Of::Any | Of::Nothing => Of::Object(Fields::default()),
            _ => Of::Map(Box::new(values)),
        })
    }

    fn array(&mut self, place: Place<'a>) -> Result<Of, String> {
        let node = place.node;
        let (first, rest) = match (node.list("prefixItems"), node.list("items")) {
            ([], []) => (&[][..], node.get("items")),
            ([], items) => (items, node.get("additionalItems")),
            (first, _) => (first, node.get("items")),
        };
        let mut kinds = Vec::new();
        let rest = rest.filter(|rest| first.is_empty() || is_schemas(rest));
        for inner in first.iter().chain(rest) {
            kinds.push(self.inside(place, inner)?);
        }
        let Some(mut item) = kinds.pop() else {
            return Ok(Of::List(Box::new(Of::Any.null(true))));
        };
        for other in kinds {
            if other.of != item.of {
                return Ok(Of::Json);
            }
            item.nullable |= other.nullable;
        }
        Ok(Of::List(Box::new(item)))
    }
}

/// Says whether a keyword's value is a schema that says something, or holds some.
fn is_schemas(node: &Node) -> bool {
    matches!(node, Node::Object(_) | Node::List(_))
}

fn texts(nodes: &[Node]) -> impl Iterator<Item = &str> {
    nodes.iter().filter_map(|node| match node {
        Node::Text(text) => Some(text.as_str()),
        _ => None,
    })
}

/// Returns the kind of one value of an `enum` or a `const`.
fn value(node: &Node) -> Kind {
    let of = match node {
        Node::Null => return Of::Nothing.null(true),
        Node::Bool(_) => Of::Primitive(PrimitiveType::Boolean),
        Node::Number { value, integer: true } => integers_up_to(value.abs()),
        Node::Number { .. } => Of::Primitive(PrimitiveType::Double),
        Node::Text(_) => Of::Primitive(PrimitiveType::String),
        Node::List(_) | Node::Object(_) => Of::Json,
    };
    of.null(false)
}

fn integer(node: &Node) -> Of {
    let timestamp = node.text("title") == Some("org.apache.kafka.connect.data.Timestamp");
    let connect = node.text("connect.type");
    if timestamp && matches!(connect, None | Some("int64")) {
        // Epoch milliseconds, as the decoder reads a number in such a column.
        return Of::Primitive(PrimitiveType::Timestamptz);
    }
    match connect {
        Some("int8" | "int16" | "int32") => Of::Primitive(PrimitiveType::Int),
        Some("int64") => Of::Primitive(PrimitiveType::Long),
        _ => {
            let bounds = ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"];
            let bounds = bounds.iter().filter_map(|name| node.number(name));
            integers_up_to(bounds.map(f64::abs).fold(0.0, f64::max))
        }
    }
}

/// Returns what takes integers of this size. 2^63 is within a long: as a double it is also the nearest to the largest
/// long, and JavaScript writes both as 9223372036854776000.
fn integers_up_to(size: f64) -> Of {
    let decimal = |precision| Of::Primitive(PrimitiveType::Decimal { precision, scale: 0 });
    match size {
        size if size <= -(i64::MIN as f64) => Of::Primitive(PrimitiveType::Long),
        size if size <= 1e20 => decimal(20),
        size if size <= 1e38 => decimal(38),
        _ => Of::Json,
    }
}

fn number(node: &Node) -> Of {
    let decimal = node.text("title") == Some("org.apache.kafka.connect.data.Decimal");
    match node.text("connect.type") {
        Some("bytes") => Of::Json,
        _ if decimal => Of::Json,
        Some("float32") => Of::Primitive(PrimitiveType::Float),
        _ => Of::Primitive(PrimitiveType::Double),
    }
}

fn string(node: &Node) -> Of {
    let bytes = node.text("connect.type") == Some("bytes");
    let base64 = matches!(node.text("contentEncoding"), Some("base64" | "base64url"));
    Of::Primitive(match node.text("format") {
        _ if bytes || base64 => PrimitiveType::Binary,
        Some("byte") => PrimitiveType::Binary,
        Some("date") => PrimitiveType::Date,
        Some("date-time") => PrimitiveType::Timestamptz,
        Some("uuid") => PrimitiveType::Uuid,
        _ => PrimitiveType::String,
    })
}
