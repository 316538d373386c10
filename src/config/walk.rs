//! Checks the tree against the file's own JSON Schema: keys, types, names, notations.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value as Schema;

use super::formats;
use super::problem::{Problem, did_you_mean, nearest};
use super::tree::{Node, Value, joined};

/// Checks `root` against `schema` and takes out of the tree what doesn't fit, so that the rest can be read.
///
/// Returns the paths of what was taken out; each has its problem.
pub(super) fn check(file: &Path, root: &mut Node, schema: &Schema, problems: &mut Vec<Problem>) -> BTreeSet<String> {
    let mut walk = Walk {
        file,
        root: schema,
        problems,
        removed: BTreeSet::new(),
    };
    if !walk.node(root, schema, "") {
        root.value = Value::Map(Vec::new());
    }
    walk.removed
}

struct Walk<'a> {
    file: &'a Path,
    root: &'a Schema,
    problems: &'a mut Vec<Problem>,
    removed: BTreeSet<String>,
}

impl<'a> Walk<'a> {
    /// Says whether `node` stays.
    fn node(&mut self, node: &mut Node, schema: &'a Schema, path: &str) -> bool {
        let mut leaves = Vec::new();
        self.leaves(schema, &mut leaves);
        // A schema without a type takes anything.
        if leaves.iter().any(|leaf| types(leaf).is_empty()) {
            return true;
        }
        convert_filled(node, &leaves);
        let kind = kind(&node.value);
        let fitting: Vec<&Schema> = leaves.iter().copied().filter(|leaf| accepts(leaf, kind)).collect();
        let stays = match (&mut node.value, fitting.first()) {
            (Value::Failed, _) => false,
            (_, None) => {
                self.wrong_type(node, &leaves, path);
                false
            }
            (Value::Map(_), Some(leaf)) => self.map(node, leaf, path),
            (Value::List(items), Some(leaf)) => {
                let mut stays = true;
                for (index, item) in items.iter_mut().enumerate() {
                    stays &= self.node(
                        item,
                        leaf.get("items").unwrap_or(&Schema::Bool(true)),
                        &format!("{path}[{index}]"),
                    );
                }
                stays
            }
            (Value::Text(_), _) => self.text(node, &fitting, path),
            (Value::Int(value), Some(leaf)) => {
                let value = *value;
                self.number(node, value, leaf, path)
            }
            (Value::Null | Value::Bool(_) | Value::Float(_), Some(_)) => true,
        };
        if !stays {
            self.removed.insert(path.to_owned());
        }
        stays
    }

    fn map(&mut self, node: &mut Node, schema: &'a Schema, path: &str) -> bool {
        let Value::Map(entries) = &mut node.value else {
            return true;
        };
        let none = &Schema::Null;
        let properties = schema.get("properties").unwrap_or(none);
        let additional = schema.get("additionalProperties").unwrap_or(none);
        let mut kept = Vec::with_capacity(entries.len());
        for (key, mut child) in std::mem::take(entries) {
            let path = joined(path, &key);
            let stays = match (properties.get(&key), additional) {
                (Some(property), _) => self.node(&mut child, property, &path),
                (None, Schema::Bool(false)) => {
                    let hint = self.right_key(&key, properties);
                    self.report(&child, &path, None, "unknown key".to_owned(), hint);
                    self.removed.insert(path);
                    false
                }
                (None, Schema::Object(_)) => self.node(&mut child, additional, &path),
                (None, _) => true,
            };
            if stays {
                kept.push((key, child));
            }
        }
        let required = schema
            .get("required")
            .and_then(Schema::as_array)
            .into_iter()
            .flatten()
            .filter_map(Schema::as_str);
        let missing: Vec<&str> = required
            .filter(|name| !kept.iter().any(|(key, _)| key == name) && !self.removed.contains(&joined(path, name)))
            .collect();
        *entries = kept;
        for name in &missing {
            self.report(node, &joined(path, name), None, format!("`{name}` is required"), None);
        }
        // A value that was taken out may be a required one, so the whole entry can't be read without it.
        let required_gone = schema.get("required").and_then(Schema::as_array).is_some_and(|names| {
            names
                .iter()
                .filter_map(Schema::as_str)
                .any(|name| self.removed.contains(&joined(path, name)))
        });
        missing.is_empty() && !required_gone
    }

    fn right_key(&self, key: &str, properties: &Schema) -> Option<String> {
        let names = properties
            .as_object()
            .into_iter()
            .flat_map(|map| map.keys().map(String::as_str));
        did_you_mean(key, names).or_else(|| {
            let mut homes = Vec::new();
            self.homes(key, self.root, "", 0, &mut homes);
            let (_, home) = homes.into_iter().min()?;
            Some(if home.is_empty() {
                "it belongs to the top of the file".to_owned()
            } else {
                format!("it belongs under `{home}`")
            })
        })
    }

    /// Finds the maps that have `key`.
    fn homes(&self, key: &str, schema: &'a Schema, path: &str, depth: usize, homes: &mut Vec<(usize, String)>) {
        const DEPTH_MAX: usize = 6; // The file nests four deep; more would be a schema that refers to itself.
        if depth > DEPTH_MAX {
            return;
        }
        let mut leaves = Vec::new();
        self.leaves(schema, &mut leaves);
        for leaf in leaves {
            if let Some(items) = leaf.get("items") {
                self.homes(key, items, &format!("{path}[]"), depth + 1, homes);
            }
            let Some(properties) = leaf.get("properties").and_then(Schema::as_object) else {
                continue;
            };
            if properties.contains_key(key) {
                homes.push((depth, path.to_owned()));
            }
            // `defaults` has every key of a table too; the table is the better advice.
            for (name, property) in properties.iter().filter(|(name, _)| *name != "defaults") {
                self.homes(key, property, &joined(path, name), depth + 1, homes);
            }
        }
    }

    fn text(&mut self, node: &Node, fitting: &[&Schema], path: &str) -> bool {
        let Value::Text(text) = &node.value else { return true };
        let shown = node.shown();
        if fitting.iter().all(|leaf| !names(leaf).is_empty()) {
            let known: Vec<&str> = fitting.iter().flat_map(|leaf| names(leaf)).collect();
            if known.contains(&text.as_str()) {
                return true;
            }
            // The hint would tell what a secret is like.
            let near = if node.secret {
                None
            } else {
                nearest(text, known.iter().copied())
            };
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("write one of {}", known.join(", ")),
            };
            self.report(
                node,
                path,
                Some(shown.clone()),
                format!("`{shown}` is not known"),
                Some(hint),
            );
            return false;
        }
        let notation = fitting
            .iter()
            .find_map(|leaf| leaf.get("x-format"))
            .and_then(Schema::as_str);
        match notation.map_or(Ok(()), |notation| formats::check(notation, text)) {
            Ok(()) => true,
            Err((message, hint)) if !node.secret => {
                self.report(node, path, Some(shown), message, hint);
                false
            }
            Err(_) => {
                let hint = notation.and_then(|notation| formats::advice(notation, "60"));
                self.report(
                    node,
                    path,
                    Some(shown.clone()),
                    format!("`{shown}` is not a {}", notation.unwrap_or("value")),
                    hint,
                );
                false
            }
        }
    }

    fn number(&mut self, node: &Node, value: i64, leaf: &Schema, path: &str) -> bool {
        let bound = |name: &str| leaf.get(name).and_then(Schema::as_f64);
        let shown = node.shown();
        // Bounds are small whole numbers, which f64 holds exactly.
        let message = match (bound("minimum"), bound("maximum")) {
            (Some(least), _) if (value as f64) < least => format!("`{shown}` is below {least}"),
            (_, Some(most)) if (value as f64) > most => format!("`{shown}` is above {most}"),
            _ => return true,
        };
        self.report(node, path, Some(shown), message, None);
        false
    }

    fn wrong_type(&mut self, node: &Node, leaves: &[&Schema], path: &str) {
        let mut expected: Vec<&str> = leaves
            .iter()
            .flat_map(|leaf| types(leaf))
            .filter(|name| *name != "null")
            .map(named)
            .collect();
        expected.dedup();
        let shown = node.shown();
        let notation = leaves
            .iter()
            .find_map(|leaf| leaf.get("x-format"))
            .and_then(Schema::as_str);
        let takes_text = expected.contains(&"a text");
        let scalar = matches!(node.value, Value::Int(_) | Value::Float(_) | Value::Bool(_));
        let hint = match notation {
            Some(notation) if scalar => formats::advice(notation, &shown),
            _ if takes_text && scalar => {
                let known: Vec<&str> = leaves.iter().flat_map(|leaf| names(leaf)).collect();
                Some(if known.is_empty() {
                    format!("write it in quotes, `\"{shown}\"`")
                } else {
                    format!("write one of {}", known.join(", "))
                })
            }
            _ => None,
        };
        let message = match (notation, scalar) {
            (Some("duration"), true) => format!("`{shown}` has no unit"),
            _ => format!("is {}, not {}", described(&node.value, &shown), expected.join(" or ")),
        };
        self.report(node, path, Some(shown), message, hint);
    }

    fn report(&mut self, node: &Node, path: &str, value: Option<String>, message: String, hint: Option<String>) {
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line: node.line,
            path: path.to_owned(),
            value,
            message,
            hint,
        });
    }

    /// Collects the alternatives of `schema`, references followed.
    fn leaves(&self, schema: &'a Schema, leaves: &mut Vec<&'a Schema>) {
        let referred = schema
            .get("$ref")
            .and_then(Schema::as_str)
            .and_then(|name| name.strip_prefix('#'));
        if let Some(target) = referred.and_then(|pointer| self.root.pointer(pointer)) {
            return self.leaves(target, leaves);
        }
        match schema
            .get("anyOf")
            .or_else(|| schema.get("oneOf"))
            .and_then(Schema::as_array)
        {
            Some(branches) => branches.iter().for_each(|branch| self.leaves(branch, leaves)),
            None => leaves.push(schema),
        }
    }
}

/// Where a `${…}` filled in a number or a switch and no text is expected, makes it one.
fn convert_filled(node: &mut Node, leaves: &[&Schema]) {
    let Value::Text(text) = &node.value else { return };
    let takes = |kind| leaves.iter().any(|leaf| accepts(leaf, kind));
    if !node.filled || takes("string") {
        return;
    }
    let text = text.trim();
    if let (true, Ok(value)) = (takes("integer"), text.parse()) {
        node.value = Value::Int(value);
    } else if let (true, Ok(value)) = (takes("boolean"), text.parse()) {
        node.value = Value::Bool(value);
    }
}

fn types(leaf: &Schema) -> Vec<&str> {
    match leaf.get("type") {
        Some(Schema::String(name)) => vec![name],
        Some(Schema::Array(names)) => names.iter().filter_map(Schema::as_str).collect(),
        _ if leaf.get("const").is_some() || leaf.get("enum").is_some() => vec!["string"],
        _ => vec![],
    }
}

fn names(leaf: &Schema) -> Vec<&str> {
    match (leaf.get("const"), leaf.get("enum").and_then(Schema::as_array)) {
        (Some(name), _) => name.as_str().into_iter().collect(),
        (None, Some(names)) => names.iter().filter_map(Schema::as_str).collect(),
        (None, None) => vec![],
    }
}

fn accepts(leaf: &Schema, kind: &str) -> bool {
    types(leaf)
        .iter()
        .any(|name| *name == kind || (*name == "number" && kind == "integer"))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Int(_) => "integer",
        Value::Float(_) => "number",
        Value::Text(_) => "string",
        Value::List(_) => "array",
        Value::Map(_) => "object",
        Value::Failed => "failed",
    }
}

fn named(kind: &str) -> &str {
    match kind {
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "object" => "a map",
        "array" => "a list",
        other => other,
    }
}

fn described(value: &Value, shown: &str) -> String {
    match value {
        Value::Int(_) | Value::Float(_) => format!("the number `{shown}`"),
        Value::Bool(_) => format!("the switch `{shown}`"),
        Value::Text(_) => format!("the text `{shown}`"),
        Value::Null => "empty".to_owned(),
        Value::List(_) | Value::Map(_) | Value::Failed => shown.to_owned(),
    }
}
