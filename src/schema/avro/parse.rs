//! From a schema's JSON to its types.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{Avro, AvroSchema, BytesAs, Decimal, Field, FixedAs, IntAs, LongAs, Named, NamedType, StringAs, TimeUnit};
use crate::schema::SchemaText;

/// The largest `fixed`, in bytes: no Arrow column is wider.
const FIXED_BYTES_MAX: u64 = i32::MAX as u64;

/// The most digits of a decimal: more are none that anybody writes, and each value would be padded to its scale.
const DIGITS_MAX: u32 = 10_000;

/// Parses a schema and those that it refers to.
///
/// Logical types that aren't known, or don't fit what they stand on, are looked past, as the specification says.
///
/// # Errors
/// What is wrong with it, and where.
pub fn parse(schema: &SchemaText) -> Result<AvroSchema, String> {
    let mut parser = Parser::default();
    for reference in &schema.references {
        let parsed = json(&reference.text)
            .and_then(|value| parser.of(&value, ""))
            .map_err(|why| format!("the schema `{}` that it refers to: {why}", reference.name))?;
        if let Avro::Named(index) = parsed {
            parser.index.entry(reference.name.clone()).or_insert(index);
        }
    }
    let root = parser.of(&json(&schema.text)?, "")?;
    let named = parser.named.into_iter().map(|open| {
        let of = open.of.expect("a type is complete once its definition was read");
        let empty = matches!(of, NamedType::Record(_) | NamedType::Fixed(0, _));
        Named {
            name: open.name,
            aliases: open.aliases,
            default: open.default,
            of,
            empty,
        }
    });
    let mut schema = AvroSchema {
        root,
        named: named.collect(),
        around: None,
    };
    // Ends: each round but the last finds a record that isn't. Both ways, so that a long row of records takes one or two.
    loop {
        let count = schema.named.len();
        let forth = (0..count).filter(|at| schema.see_bytes(*at)).count();
        let back = (0..count).rev().filter(|at| schema.see_bytes(*at)).count();
        if forth + back == 0 {
            return Ok(schema);
        }
    }
}

impl AvroSchema {
    /// Looks whether a record that seemed to take no bytes has a field that does; says whether that is news.
    fn see_bytes(&mut self, at: usize) -> bool {
        let named = &self.named[at];
        let NamedType::Record(fields) = &named.of else {
            return false;
        };
        let news = named.empty && fields.iter().any(|field| !self.takes_no_bytes(&field.of));
        self.named[at].empty &= !news;
        news
    }
}

/// A schema's text is JSON, or a bare type name as some registries store it.
fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).or_else(|error| {
        let word = text.trim();
        match primitive(word) {
            Some(_) => Ok(Value::String(word.to_owned())),
            None => Err(format!("it isn't JSON: {error}")),
        }
    })
}

#[derive(Default)]
struct Parser {
    named: Vec<OpenType>,
    index: HashMap<String, usize>,
}

/// A named type whose definition is being read.
struct OpenType {
    name: String,
    aliases: Vec<String>,
    default: Option<String>,
    /// What it is, once that was read.
    of: Option<NamedType>,
}

impl Parser {
    fn of(&mut self, value: &Value, namespace: &str) -> Result<Avro, String> {
        match value {
            Value::String(name) => self.by_name(name, namespace),
            Value::Array(arms) => {
                let arms: Vec<Avro> = arms
                    .iter()
                    .map(|arm| self.of(arm, namespace))
                    .collect::<Result<_, _>>()?;
                for (at, arm) in arms.iter().enumerate() {
                    if matches!(arm, Avro::Union(_)) {
                        return Err("a union holds a union".to_owned());
                    }
                    // Of types without a name one each: nobody could tell which a value is of.
                    if arms[..at].iter().any(|other| self.alike(other, arm)) {
                        return Err(format!("a union holds two `{}`", self.called(arm)));
                    }
                }
                Ok(Avro::Union(arms))
            }
            Value::Object(map) => self.complex(map, namespace),
            other => Err(format!("`{other}` is no type")),
        }
    }

    fn alike(&self, one: &Avro, other: &Avro) -> bool {
        match (one, other) {
            (Avro::Named(one), Avro::Named(other)) => one == other,
            _ => std::mem::discriminant(one) == std::mem::discriminant(other),
        }
    }

    fn called(&self, of: &Avro) -> &str {
        match of {
            Avro::Named(index) => &self.named[*index].name,
            of => of.word().expect("only named types have no word"),
        }
    }

    fn complex(&mut self, map: &Map<String, Value>, namespace: &str) -> Result<Avro, String> {
        let Some(kind) = map.get("type") else {
            return Err("a type has no `type`".to_owned());
        };
        let of = match kind.as_str() {
            Some("record" | "error") => return self.define(map, namespace, Parser::record),
            Some("enum") => return self.define(map, namespace, |_, map, name| symbols(map, name)),
            Some("fixed") => return self.define(map, namespace, |_, map, name| fixed(map, name)),
            Some("array") => {
                let items = map.get("items").ok_or("an array has no `items`")?;
                Avro::Array(Box::new(self.of(items, namespace)?))
            }
            Some("map") => {
                let values = map.get("values").ok_or("a map has no `values`")?;
                Avro::Map(Box::new(self.of(values, namespace)?))
            }
            _ => self.of(kind, namespace)?,
        };
        Ok(logical(of, map))
    }

    fn by_name(&self, name: &str, namespace: &str) -> Result<Avro, String> {
        if let Some(primitive) = primitive(name) {
            return Ok(primitive);
        }
        let full = full_name(name, namespace);
        let found = self.index.get(&full).or_else(|| self.index.get(name));
        found
            .map(|index| Avro::Named(*index))
            .ok_or_else(|| format!("`{full}` isn't defined before it is used"))
    }

    fn define(
        &mut self,
        map: &Map<String, Value>,
        namespace: &str,
        read: impl FnOnce(&mut Parser, &Map<String, Value>, &str) -> Result<NamedType, String>,
    ) -> Result<Avro, String> {
        let name = text(map, "name")
            .filter(|name| !name.is_empty())
            .ok_or("a record, enum or fixed has no `name`")?;
        let namespace = text(map, "namespace").unwrap_or(namespace);
        let name = full_name(name, namespace);
        let namespace = name.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        let aliases = texts(map, "aliases")
            .map(|alias| full_name(alias, &namespace))
            .collect();
        let at = self.named.len();
        if self.index.contains_key(&name) {
            // Java's registries answer with the definition of a type at each of its uses, now and then.
            let first = self.index[&name];
            let again = read(self, map, &name)?;
            return match &self.named[first].of {
                Some(held) if *held == again => Ok(Avro::Named(first)),
                _ => Err(format!("`{name}` is defined twice")),
            };
        }
        self.index.insert(name.clone(), at);
        let default = text(map, "default").map(str::to_owned);
        self.named.push(OpenType {
            name: name.clone(),
            aliases,
            default,
            of: None,
        });
        let of = read(self, map, &name)?;
        self.named[at].of = Some(of);
        Ok(Avro::Named(at))
    }

    fn record(&mut self, map: &Map<String, Value>, name: &str) -> Result<NamedType, String> {
        let namespace = name.rsplit_once('.').map_or("", |(namespace, _)| namespace);
        let written = map
            .get("fields")
            .and_then(Value::as_array)
            .ok_or_else(|| format!("record `{name}` has no `fields`"))?;
        let mut fields: Vec<Field> = Vec::with_capacity(written.len());
        for field in written {
            let entry = field
                .as_object()
                .ok_or_else(|| format!("a field of `{name}` is no object"))?;
            let field_name = text(entry, "name")
                .filter(|name| !name.is_empty())
                .ok_or_else(|| format!("a field of `{name}` has no `name`"))?;
            if fields.iter().any(|other| other.name == field_name) {
                return Err(format!("`{name}` has two fields `{field_name}`"));
            }
            let kind = entry
                .get("type")
                .ok_or_else(|| format!("field `{field_name}` of `{name}` has no `type`"))?;
            let of = self
                .of(kind, namespace)
                .map_err(|why| format!("field `{field_name}` of `{name}`: {why}"))?;
            fields.push(Field {
                name: field_name.to_owned(),
                aliases: texts(entry, "aliases").map(str::to_owned).collect(),
                default: entry.get("default").cloned(),
                // Some producers write the logical type beside the field's type.
                of: logical(of, entry),
            });
        }
        Ok(NamedType::Record(fields))
    }
}

fn primitive(name: &str) -> Option<Avro> {
    Some(match name {
        "null" => Avro::Null,
        "boolean" => Avro::Boolean,
        "int" => Avro::Int(IntAs::Plain),
        "long" => Avro::Long(LongAs::Plain),
        "float" => Avro::Float,
        "double" => Avro::Double,
        "bytes" => Avro::Bytes(BytesAs::Plain),
        "string" => Avro::String(StringAs::Plain),
        _ => return None,
    })
}

fn symbols(map: &Map<String, Value>, name: &str) -> Result<NamedType, String> {
    let written = map.get("symbols").and_then(Value::as_array);
    let symbols = written.and_then(|list| list.iter().map(|symbol| symbol.as_str().map(str::to_owned)).collect());
    symbols
        .map(NamedType::Enum)
        .ok_or_else(|| format!("enum `{name}` has no list of texts as `symbols`"))
}

fn fixed(map: &Map<String, Value>, name: &str) -> Result<NamedType, String> {
    let size = map
        .get("size")
        .and_then(Value::as_u64)
        .filter(|size| *size <= FIXED_BYTES_MAX)
        .ok_or_else(|| format!("fixed `{name}` has no `size` from 0 to {FIXED_BYTES_MAX}"))?;
    let size = usize::try_from(size).expect("checked above");
    let of = match text(map, "logicalType") {
        Some("decimal") => decimal(map).map_or(FixedAs::Plain, FixedAs::Decimal),
        Some("uuid") if size == 16 => FixedAs::Uuid,
        _ => FixedAs::Plain,
    };
    Ok(NamedType::Fixed(size, of))
}

/// Returns the type as the logical type beside it says, where there is one that fits.
fn logical(of: Avro, map: &Map<String, Value>) -> Avro {
    let Some(name) = text(map, "logicalType") else {
        return of;
    };
    let timestamp = |unit, zoned| Avro::Long(LongAs::Timestamp { unit, zoned });
    match (name, &of) {
        ("date", Avro::Int(_)) => Avro::Int(IntAs::Date),
        ("time-millis", Avro::Int(_)) => Avro::Int(IntAs::TimeMillis),
        ("time-micros", Avro::Long(_)) => Avro::Long(LongAs::TimeMicros),
        ("timestamp-millis", Avro::Long(_)) => timestamp(TimeUnit::Millis, true),
        ("timestamp-micros", Avro::Long(_)) => timestamp(TimeUnit::Micros, true),
        ("timestamp-nanos", Avro::Long(_)) => timestamp(TimeUnit::Nanos, true),
        ("local-timestamp-millis", Avro::Long(_)) => timestamp(TimeUnit::Millis, false),
        ("local-timestamp-micros", Avro::Long(_)) => timestamp(TimeUnit::Micros, false),
        ("local-timestamp-nanos", Avro::Long(_)) => timestamp(TimeUnit::Nanos, false),
        ("decimal", Avro::Bytes(_)) => decimal(map).map_or(of, |decimal| Avro::Bytes(BytesAs::Decimal(decimal))),
        ("uuid", Avro::String(_)) => Avro::String(StringAs::Uuid),
        _ => of,
    }
}

fn decimal(map: &Map<String, Value>) -> Option<Decimal> {
    let number = |key: &str| u32::try_from(map.get(key)?.as_u64()?).ok();
    let precision = number("precision").filter(|precision| (1..=DIGITS_MAX).contains(precision))?;
    let scale = match map.contains_key("scale") {
        true => number("scale")?,
        false => 0,
    };
    (scale <= precision).then_some(Decimal { precision, scale })
}

fn full_name(name: &str, namespace: &str) -> String {
    match name.contains('.') || namespace.is_empty() {
        true => name.trim_start_matches('.').to_owned(),
        false => format!("{namespace}.{name}"),
    }
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    map.get(key).and_then(Value::as_str)
}

fn texts<'a>(map: &'a Map<String, Value>, key: &str) -> impl Iterator<Item = &'a str> {
    map.get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}
