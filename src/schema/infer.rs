//! Inference: what a field's values have in common.

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::spec::{ListType, NestedField, PrimitiveType, StructType, Type};

use crate::config::types::widens;
use crate::json::lexer::{Fault, Lexer};

/// Objects and arrays inside each other that may become columns; more is a reject.
pub const DEPTH_MAX: usize = 128;

/// Fields of one object inside a record beyond which its names are data (a map by id): it is kept as JSON text.
pub const FIELDS_MAX: usize = 1000;

/// The kinds of values seen at one place of the payload; merges like a lattice.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Shape {
    /// Nothing but nulls so far.
    #[default]
    Null,
    /// `true` or `false`.
    Bool,
    /// Integers.
    Long,
    /// Numbers, at least one with a fraction.
    Double,
    /// Text.
    String,
    /// Values of several kinds: kept as the text of their JSON.
    Json,
    /// Objects, with the fields seen in any of them, in order of first sight.
    Object(Vec<(String, Shape)>),
    /// Arrays, with what their items have in common.
    List(Box<Shape>),
    /// Values that the table's column would take if it had this type, which its own can be widened to.
    Wider(PrimitiveType),
}

/// Why a value has no shape.
#[derive(Debug)]
pub(crate) enum Shapeless {
    /// It is no JSON.
    Fault(Fault),
    /// It is JSON that no table takes.
    Refused(String),
}

impl From<Fault> for Shapeless {
    fn from(fault: Fault) -> Self {
        Shapeless::Fault(fault)
    }
}

impl Shape {
    /// Returns the shape of an object's field.
    pub fn field(&self, name: &str) -> Option<Shape> {
        let Shape::Object(fields) = self else { return None };
        let found = fields.iter().find(|(field, _)| field == name);
        found.map(|(_, shape)| shape.clone())
    }

    /// Adds what one record shows; `json` is the whole value of the record.
    ///
    /// # Errors
    /// Why the record would be rejected whatever the columns are; the shape is then as it was.
    pub fn observe(&mut self, json: &[u8]) -> Result<(), String> {
        simdutf8::basic::from_utf8(json).map_err(|_| "the value is no UTF-8".to_owned())?;
        let mut lexer = Lexer::new(json);
        lexer.space();
        let seen = match lexer.peek() {
            b'{' => object(&mut lexer, 0, usize::MAX).and_then(|seen| Ok(lexer.end().map(|()| seen)?)),
            _ => return Err("the value is no JSON object".to_owned()),
        };
        match seen {
            Ok(seen) => self.merge(seen),
            Err(Shapeless::Fault(fault)) => {
                return Err(format!("the value is no JSON: {} at byte {}", fault.what, fault.at));
            }
            Err(Shapeless::Refused(why)) => return Err(why),
        }
        Ok(())
    }

    /// Adds what another shape knows. Field names that differ only in case are one field, in its first spelling.
    pub fn merge(&mut self, other: Shape) {
        *self = match (std::mem::take(self), other) {
            (Shape::Null, one) | (one, Shape::Null) => one,
            (Shape::Long, Shape::Double) | (Shape::Double, Shape::Long) => Shape::Double,
            (Shape::List(mut mine), Shape::List(other)) => {
                mine.merge(*other);
                Shape::List(mine)
            }
            (Shape::Object(mine), Shape::Object(other)) => {
                let mut fields = Fields::from(mine);
                for (name, shape) in other {
                    fields.merge(name, shape);
                }
                Shape::Object(fields.list)
            }
            (Shape::Wider(mine), Shape::Wider(other)) if widens(&mine, &other) => Shape::Wider(other),
            (Shape::Wider(mine), Shape::Wider(other)) if widens(&other, &mine) => Shape::Wider(mine),
            (mine, other) if mine == other => mine,
            _ => Shape::Json,
        };
    }

    /// Says whether this shape knows all of `other`: merging it would change nothing.
    pub fn covers(&self, other: &Shape) -> bool {
        let mut merged = self.clone();
        merged.merge(other.clone());
        merged == *self
    }

    /// Returns the shape with every object inside replaced by its fields, named `a_b`; items of arrays stay as they are.
    pub fn flattened(&self) -> Shape {
        fn collect(prefix: &str, fields: &[(String, Shape)], into: &mut Fields) {
            for (name, shape) in fields {
                let name = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}_{name}")
                };
                match shape {
                    Shape::Object(inner) => collect(&name, inner, into),
                    shape => into.merge(name, shape.clone()),
                }
            }
        }
        let Shape::Object(fields) = self else {
            return self.clone();
        };
        let mut flat = Fields::default();
        collect("", fields, &mut flat);
        Shape::Object(flat.list)
    }

    /// Returns the type of a column that takes these values; `None` while nothing but nulls, empty objects and empty
    /// arrays were seen. Field ids are provisional.
    pub fn to_type(&self) -> Option<Type> {
        self.typed(&mut 0)
    }

    fn typed(&self, last_id: &mut i32) -> Option<Type> {
        Some(match self {
            Shape::Null => return None,
            Shape::Bool => Type::Primitive(PrimitiveType::Boolean),
            Shape::Long => Type::Primitive(PrimitiveType::Long),
            Shape::Double => Type::Primitive(PrimitiveType::Double),
            Shape::String | Shape::Json => Type::Primitive(PrimitiveType::String),
            Shape::Wider(wider) => Type::Primitive(wider.clone()),
            Shape::Object(fields) => {
                let fields = typed_fields(fields, last_id);
                if fields.is_empty() {
                    return None;
                }
                Type::Struct(StructType::new(fields.into_iter().map(Arc::new).collect()))
            }
            Shape::List(item) => {
                let item = item.typed(last_id)?;
                *last_id += 1;
                Type::List(ListType::new(Arc::new(NestedField::list_element(
                    *last_id, item, false,
                ))))
            }
        })
    }
}

/// Returns the columns of a table for records of this shape, all optional, ids provisional from 1; `flatten`: objects
/// become columns named `a_b`. What has no type yet waits.
pub fn schema(shape: &Shape, flatten: bool) -> Vec<NestedField> {
    let flat;
    let shape = if flatten {
        flat = shape.flattened();
        &flat
    } else {
        shape
    };
    match shape {
        Shape::Object(fields) => typed_fields(fields, &mut 0),
        _ => Vec::new(),
    }
}

/// Returns the fields that have a type, optional, ids provisional behind `last_id`.
pub(super) fn typed_fields(fields: &[(String, Shape)], last_id: &mut i32) -> Vec<NestedField> {
    let mut typed = Vec::new();
    // A field without a name can't be a column: no engine can ask for it.
    for (name, shape) in fields.iter().filter(|(name, _)| !name.is_empty()) {
        if let Some(of) = shape.typed(last_id) {
            *last_id += 1;
            typed.push(NestedField::optional(*last_id, name, of));
        }
    }
    typed
}

/// The fields of an object under construction, found by name whatever its case.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// The fields in order of first sight.
    pub list: Vec<(String, Shape)>,
    index: HashMap<String, usize>,
}

impl From<Vec<(String, Shape)>> for Fields {
    fn from(list: Vec<(String, Shape)>) -> Self {
        let index = list
            .iter()
            .enumerate()
            .map(|(at, (name, _))| (name.to_lowercase(), at))
            .collect();
        Fields { list, index }
    }
}

impl Fields {
    /// Merges what is known about a field.
    pub fn merge(&mut self, name: String, shape: Shape) {
        match self.index.get(&name.to_lowercase()) {
            Some(at) => self.list[*at].1.merge(shape),
            None => self.add(name, shape),
        }
    }

    /// Sets a field of one record: of equal names the last wins, two spellings of one name are an error.
    pub fn set(&mut self, name: &str, shape: Shape) -> Result<(), Shapeless> {
        match self.index.get(&name.to_lowercase()) {
            Some(at) if self.list[*at].0 == name => self.list[*at].1 = shape,
            Some(at) => {
                let other = &self.list[*at].0;
                return Err(Shapeless::Refused(format!(
                    "the record holds both `{other}` and `{name}`"
                )));
            }
            None => self.add(name.to_owned(), shape),
        }
        Ok(())
    }

    fn add(&mut self, name: String, shape: Shape) {
        self.index.insert(name.to_lowercase(), self.list.len());
        self.list.push((name, shape));
    }
}

/// Reads the shape of the value at the lexer's position, which is behind it then.
pub(crate) fn shape(lexer: &mut Lexer<'_>, depth: usize) -> Result<Shape, Shapeless> {
    Ok(match lexer.peek() {
        b'{' => return object(lexer, depth, FIELDS_MAX),
        b'[' => {
            deeper(depth)?;
            let mut items = Shape::Null;
            if lexer.open(b']') {
                loop {
                    items.merge(shape(lexer, depth + 1)?);
                    if !lexer.more(b']')? {
                        break;
                    }
                }
            }
            Shape::List(Box::new(items))
        }
        b'"' => {
            lexer.string()?;
            Shape::String
        }
        other => match lexer.number()? {
            Some(number) if number.fraction => Shape::Double,
            Some(number) if number.long().is_some() => Shape::Long,
            Some(number) if number.exponent && number.double().is_some() => Shape::Double,
            // Integers beyond 64 bits keep all their digits as text.
            Some(_) => Shape::Json,
            None => {
                lexer.skip()?;
                if other == b'n' { Shape::Null } else { Shape::Bool }
            }
        },
    })
}

fn deeper(depth: usize) -> Result<(), Shapeless> {
    if depth < DEPTH_MAX {
        return Ok(());
    }
    Err(Shapeless::Refused(format!(
        "the value is nested more than {DEPTH_MAX} deep"
    )))
}

fn object(lexer: &mut Lexer<'_>, depth: usize, fields_max: usize) -> Result<Shape, Shapeless> {
    deeper(depth)?;
    let mut fields = Fields::default();
    if lexer.open(b'}') {
        loop {
            let name = lexer.key()?.bytes();
            let value = shape(lexer, depth + 1)?;
            fields.set(&String::from_utf8_lossy(&name), value)?;
            if !lexer.more(b'}')? {
                break;
            }
        }
    }
    Ok(if fields.list.len() > fields_max {
        Shape::Json
    } else {
        Shape::Object(fields.list)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::types::text;

    fn check(records: &[&str], flatten: bool, expect: &str) {
        let mut shape = Shape::default();
        for record in records {
            shape.observe(record.as_bytes()).expect(record);
        }
        let columns = schema(&shape, flatten).into_iter();
        let columns = columns.map(|column| format!("{} {}", column.name, text(&column.field_type)));
        assert_eq!(columns.collect::<Vec<_>>().join(", "), expect, "{records:?}");
    }

    #[test]
    fn columns_follow_from_values() {
        check(
            &[r#"{"a":1,"b":1.0,"c":"x","d":true,"e":1e2}"#],
            false,
            "a long, b double, c string, d boolean, e long",
        );
        check(&[r#"{"a":1}"#, r#"{"a":2.5}"#, r#"{"a":null}"#], false, "a double");
        check(&[r#"{"a":1}"#, r#"{"a":"x"}"#], false, "a string");
        check(&[r#"{"a":true}"#, r#"{"a":1}"#], false, "a string");
        check(
            &[r#"{"a":{"b":1}}"#, r#"{"a":{"c":[1,2.5]}}"#],
            false,
            "a struct<b: long, c: list<double>>",
        );
        check(
            &[r#"{"a":null,"b":{},"c":[],"d":[null],"e":{"f":null},"g":0}"#],
            false,
            "g long",
        );
        check(
            &[r#"{"a":18446744073709551615,"b":1e300}"#],
            false,
            "a string, b double",
        );
        check(&[r#"{"Id":1}"#, r#"{"ID":2,"id2":3}"#], false, "Id long, id2 long");
        check(
            &[r#"{"a":{"b":1,"c":{"d":"x"}},"e":[{"f":1}]}"#],
            true,
            "a_b long, a_c_d string, e list<struct<f: long>>",
        );
        check(&[r#"{"a":1,"a":"x","":1}"#], false, "a string");
    }

    #[test]
    fn what_no_table_takes_has_no_shape() {
        for record in [
            "",
            " ",
            "1",
            "[]",
            "{",
            r#"{"a":1,"A":2}"#,
            r#"{"a":1}x"#,
            r#"{"a":NaN}"#,
            r#"{"a":"\ud800"}"#,
        ] {
            let mut shape = Shape::default();
            shape.observe(record.as_bytes()).expect_err(record);
            assert_eq!(shape, Shape::Null);
        }
        let deep = format!("{{\"a\":{}", "[".repeat(50_000));
        Shape::default().observe(deep.as_bytes()).expect_err("deep");
    }

    #[test]
    fn an_object_of_ids_is_text() {
        let fields: Vec<_> = (0..=FIELDS_MAX).map(|id| format!("\"{id}\":1")).collect();
        check(&[&format!("{{\"a\":{{{}}}}}", fields.join(","))], false, "a string");
    }
}
