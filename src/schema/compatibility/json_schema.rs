//! JSON Schema: whether a schema takes every value that another one takes.
//!
//! What is called compatible is: each keyword of the reader must follow from what the writer's schema says. The other way round
//! some changes are refused that no value shows: regular expressions, `contains` and conditions are compared as they stand, and a
//! new property beside `patternProperties` may match them. As in Confluent's registry,
//!
//! - a property that an open object gets may hold anything in old values, and must take anything;
//! - a property that has a `default` may become required;
//! - `oneOf` is read as `anyOf`, and `format` and all that only describes are looked past.
//!
//! Source: JSON Schema drafts 4 to 2020-12, core and validation; Confluent Platform 8.0, "JSON Schema compatibility rules".

mod arrays;
mod facts;
mod objects;

use self::facts::{Conj, Types};
use super::{Misfit, Rule};
use crate::schema::SchemaText;
use crate::schema::json_schema::documents::{Documents, Place};
use crate::schema::json_schema::node::Node;

/// Schemas that are compared, as often as that is needed: a few lines of alternatives in alternatives can ask for more than a
/// machine can do.
const COMPARED_MAX: usize = 200_000;

/// Schemas inside each other; each costs stack, and no text without a `$ref` gets there.
const DEPTH_MAX: usize = 100;

/// A schema and those that it refers to, as JSON.
#[derive(Debug)]
pub(super) struct JsonSchema {
    root: Node,
    references: Vec<(String, Node)>,
}

impl JsonSchema {
    /// Reads the JSON.
    pub fn parse(text: &SchemaText) -> Result<JsonSchema, String> {
        let node = |text: &str| serde_json::from_str(text).map_err(|error| format!("it isn't JSON: {error}"));
        let references = text.references.iter().map(|reference| {
            let root = node(&reference.text)
                .map_err(|why| format!("the schema `{}` that it refers to: {why}", reference.name))?;
            Ok((reference.name.clone(), root))
        });
        let root: Node = node(&text.text)?;
        if !matches!(root, Node::Object(_) | Node::Bool(_)) {
            return Err("a JSON Schema is an object, or true or false".to_owned());
        }
        Ok(JsonSchema {
            root,
            references: references.collect::<Result<_, String>>()?,
        })
    }

    fn documents(&self) -> Documents<'_> {
        let references = self.references.iter();
        Documents::new(&self.root, references.map(|(name, node)| (name.as_str(), node)))
    }
}

/// Returns why a schema doesn't take all that another one takes.
pub(super) fn misfits(reader: &JsonSchema, writer: &JsonSchema) -> Result<Vec<Misfit>, String> {
    if reader.root == writer.root && reader.references == writer.references {
        return Ok(Vec::new());
    }
    let types = facts::single_types();
    let mut check = Check {
        reader: reader.documents(),
        writer: writer.documents(),
        types: &types,
        open: Vec::new(),
        compared: 0,
    };
    let (root, written) = (check.reader.root(), check.writer.root());
    let mut out = Vec::new();
    let written = check.all_of(&[written])?;
    check.fits(&written, root, "$", &mut out)?;
    Ok(out)
}

/// Two schemas that are being compared.
struct Check<'a> {
    reader: Documents<'a>,
    writer: Documents<'a>,
    /// A schema for each type, that allows just it.
    types: &'a [(Types, Node)],
    /// What is being compared, from the root down: a pair inside itself fits if all else does.
    open: Vec<(Vec<*const Node>, Vec<*const Node>)>,
    compared: usize,
}

impl<'a> Check<'a> {
    /// Returns what holds of the values that all these schemas of the writer take.
    fn all_of(&mut self, places: &[Place<'a>]) -> Result<Conj<'a>, String> {
        let mut conj = Conj::default();
        for place in places {
            conj.add(&mut self.writer, *place)?;
        }
        Ok(conj)
    }

    /// Checks that a schema of the reader takes all that the writer's take.
    fn fits(&mut self, writer: &Conj<'a>, reader: Place<'a>, path: &str, out: &mut Vec<Misfit>) -> Result<(), String> {
        self.compared += 1;
        if self.compared > COMPARED_MAX || self.open.len() > DEPTH_MAX {
            return Err(format!(
                "the schemas are too large to be compared: more than {COMPARED_MAX} parts with others, or {DEPTH_MAX} inside each other"
            ));
        }
        if writer.never() {
            return Ok(());
        }
        let mut parts = Conj::default();
        parts.add(&mut self.reader, reader)?;
        if parts.nothing {
            out.push(Misfit {
                path: path.to_owned(),
                rule: Rule::Closed,
                reader: "nothing".to_owned(),
                writer: writer.shown(),
            });
            return Ok(());
        }
        let key = (writer.key(), parts.key());
        if self.open.contains(&key) {
            return Ok(());
        }
        self.open.push(key);
        let mut found = Vec::new();
        for part in &parts.places {
            self.part(writer, *part, path, &mut found)?;
        }
        self.open.pop();
        if writer.places.is_empty() && !found.is_empty() {
            // Of what may be anything, one reason says all.
            found = vec![Misfit {
                path: path.to_owned(),
                rule: Rule::Open,
                reader: parts.shown(),
                writer: writer.shown(),
            }];
        }
        out.append(&mut found);
        Ok(())
    }

    /// Checks one part of the reader's schema; where the writer has alternatives, with each of them if need be.
    fn part(&mut self, writer: &Conj<'a>, reader: Place<'a>, path: &str, out: &mut Vec<Misfit>) -> Result<(), String> {
        self.compared += 1;
        let mut found = Vec::new();
        let several = ["anyOf", "oneOf"].iter().any(|name| reader.node.get(name).is_some());
        // Alternatives meet alternatives one by one at once: to try them as a whole first would double the work at each level.
        let mut cases = match several {
            true => writer.arms(&mut self.writer)?,
            false => Vec::new(),
        };
        if cases.is_empty() {
            self.keywords(writer, reader, path, &mut found)?;
            if found.is_empty() {
                return Ok(());
            }
            cases = match several {
                true => writer.by_type(self.types, &self.writer)?,
                false => writer.arms(&mut self.writer)?,
            };
        }
        if !cases.is_empty() {
            found.clear();
            for case in cases {
                if !case.never() {
                    let mut each = Vec::new();
                    self.part(&case, reader, path, &mut each)?;
                    each.retain(|misfit| !found.contains(misfit));
                    found.append(&mut each);
                }
            }
        }
        out.append(&mut found);
        Ok(())
    }

    fn keywords(
        &mut self,
        writer: &Conj<'a>,
        reader: Place<'a>,
        path: &str,
        out: &mut Vec<Misfit>,
    ) -> Result<(), String> {
        let node = reader.node;
        let mut misfit = |rule, reader: String, writer: String| {
            out.push(Misfit {
                path: path.to_owned(),
                rule,
                reader,
                writer,
            });
        };
        let (takes, written) = (facts::own_types(node), writer.types());
        if !takes.all(written) {
            misfit(Rule::Type, takes.shown(), written.shown());
            // What else is said of values that aren't taken at all tells nothing more.
            return Ok(());
        }
        if let Some(values) = facts::values(node) {
            match writer.values() {
                Some(written) => {
                    let gone: Vec<_> = written.iter().filter(|value| !values.contains(value)).collect();
                    if !gone.is_empty() {
                        let gone: Vec<_> = gone.iter().map(|value| facts::json(value)).collect();
                        let gone = gone.join(", ");
                        misfit(Rule::Symbols, format!("no value {gone}"), gone);
                    }
                }
                None => misfit(Rule::Symbols, facts::values_shown(&values), writer.shown()),
            }
        }
        for (keyword, reader, writer) in facts::narrowed(node, writer) {
            misfit(Rule::Bound, format!("`{keyword}` {reader}"), writer);
        }
        for keyword in facts::opaque(node, writer) {
            misfit(Rule::Opaque, format!("this `{keyword}`"), "another or none".to_owned());
        }
        for list in ["anyOf", "oneOf"].map(|name| node.list(name)) {
            if !list.is_empty() {
                self.alternatives(writer, reader, list, path, out)?;
            }
        }
        if let Some(not) = node.get("not") {
            self.not(writer, self.reader.inside(reader, not), path, out)?;
        }
        if written.has(Types::OBJECT) {
            self.object(writer, reader, path, out)?;
        }
        if written.has(Types::ARRAY) {
            self.array(writer, reader, path, out)?;
        }
        Ok(())
    }

    fn alternatives(
        &mut self,
        writer: &Conj<'a>,
        reader: Place<'a>,
        arms: &'a [Node],
        path: &str,
        out: &mut Vec<Misfit>,
    ) -> Result<(), String> {
        let mut nearest: Option<Vec<Misfit>> = None;
        for arm in arms {
            let mut found = Vec::new();
            self.fits(writer, self.reader.inside(reader, arm), path, &mut found)?;
            if found.is_empty() {
                return Ok(());
            }
            // An arm that takes the value but for something inside it is the one that was meant.
            let inside = found.iter().all(|misfit| misfit.path != path);
            if inside && nearest.as_ref().is_none_or(|nearest| nearest.len() > found.len()) {
                nearest = Some(found);
            }
        }
        match nearest {
            Some(mut found) => out.append(&mut found),
            None => out.push(Misfit {
                path: path.to_owned(),
                rule: Rule::Alternatives,
                reader: format!("{} alternatives, none of which takes all", arms.len()),
                writer: writer.shown(),
            }),
        }
        Ok(())
    }

    /// A value that isn't what the reader excludes: the writer excludes at least as much.
    fn not(&mut self, writer: &Conj<'a>, excluded: Place<'a>, path: &str, out: &mut Vec<Misfit>) -> Result<(), String> {
        for not in writer.excluded(&self.writer) {
            std::mem::swap(&mut self.reader, &mut self.writer);
            let mut found = Vec::new();
            let excludes = match self.all_of(&[excluded]) {
                Ok(written) => self.fits(&written, not, path, &mut found),
                Err(why) => Err(why),
            };
            std::mem::swap(&mut self.reader, &mut self.writer);
            excludes?;
            if found.is_empty() {
                return Ok(());
            }
        }
        out.push(Misfit {
            path: path.to_owned(),
            rule: Rule::Opaque,
            reader: "this `not`".to_owned(),
            writer: "one that excludes less, or none".to_owned(),
        });
        Ok(())
    }
}
