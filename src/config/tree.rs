//! The YAML as a tree that knows its lines, with `${…}` filled in and `defaults` merged under every table.

use std::collections::HashMap;
use std::path::Path;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar as YamlScalar, YamlData};
use saphyr_parser::{Event, Parser};

use super::problem::Problem;
use super::secret::{HIDDEN, named_like_secret, without_passwords};

/// Lists and maps inside each other: the deepest key of the file is at 7, and more would only cost stack.
const DEPTH_MAX: usize = 64;

/// What the file may come to with its aliases filled in, in bytes of text, a value counting at least 32: a file of 10,000
/// tables, and far from what fills a memory.
const EXPANDED_BYTES_MAX: usize = 16 << 20;

/// What a value counts beside its text.
const VALUE_BYTES: usize = 32;

/// A YAML value and where it stands.
#[derive(Clone)]
pub(super) struct Node {
    /// The line of its key, or its own in a list; from 1.
    pub line: usize,
    /// Whether its value must not be printed.
    pub secret: bool,
    /// Whether a `${…}` was filled in, so that a number may stand where the text was.
    pub filled: bool,
    /// Whether it came from `defaults`.
    pub inherited: bool,
    /// The value.
    pub value: Value,
}

/// A YAML value.
#[derive(Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
    /// A value that couldn't be had; its problem is reported already.
    Failed,
}

/// Where `${…}` is looked up.
pub(super) struct Surroundings<'a> {
    /// Returns an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The directory of the YAML file, for relative paths.
    pub directory: &'a Path,
}

/// Reads the one YAML document of `text`; what can't be filled in is reported in `problems` and left as `Failed`.
///
/// Returns `None` if the text isn't YAML at all; the problem is then the only one.
pub(super) fn parse(file: &Path, text: &str, around: &Surroundings<'_>, problems: &mut Vec<Problem>) -> Option<Node> {
    let mut builder = Builder { around, file, problems };
    let text = text.trim_start_matches('\u{feff}');
    if let Err(Excess { line, message }) = within_limits(text) {
        builder.report(line, "", message, None);
        return None;
    }
    let documents = match MarkedYaml::load_from_str(text) {
        Ok(documents) => documents,
        Err(error) => {
            let hint = "look for a tab, a missing space after `:`, an open quote or a key written twice".to_owned();
            builder.report(
                error.marker().line(),
                "",
                format!("is not YAML: {}", error.info()),
                Some(hint),
            );
            return None;
        }
    };
    let [document] = documents.as_slice() else {
        let hint = (!documents.is_empty()).then(|| "remove the `---` lines".to_owned());
        builder.report(
            0,
            "",
            format!("holds {} YAML documents instead of 1", documents.len()),
            hint,
        );
        return None;
    };
    Some(builder.node(document, document.span.start.line(), "", false))
}

/// A document that would cost more than it can be worth.
struct Excess {
    line: usize,
    message: String,
}

/// Looks through the document before it is loaded: saphyr 0.3 loads and drops a document by recursion, and copies an
/// anchor's value for each alias. What isn't YAML is found by the loading.
fn within_limits(text: &str) -> Result<(), Excess> {
    // The open lists and maps: the anchor of each, and what it has come to so far.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut anchors: HashMap<usize, usize> = HashMap::new();
    let mut total: usize = 0;
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { return Ok(()) };
        let line = span.start.line();
        let bytes = match event {
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                open.push((anchor, VALUE_BYTES));
                if open.len() > DEPTH_MAX {
                    let message = format!("is nested more than {DEPTH_MAX} deep");
                    return Err(Excess { line, message });
                }
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some((anchor, bytes)) = open.pop() else {
                    return Ok(());
                };
                anchors.insert(anchor, bytes);
                bytes
            }
            Event::Scalar(text, _, anchor, _) => {
                let bytes = text.len() + VALUE_BYTES;
                anchors.insert(anchor, bytes);
                bytes
            }
            Event::Alias(anchor) => anchors.get(&anchor).copied().unwrap_or(VALUE_BYTES),
            _ => continue,
        };
        let sum = match open.last_mut() {
            Some((_, sum)) => sum,
            None => &mut total,
        };
        *sum = sum.saturating_add(bytes);
        if *sum > EXPANDED_BYTES_MAX {
            let message = format!(
                "comes to more than {} MiB with its aliases filled in",
                EXPANDED_BYTES_MAX >> 20
            );
            return Err(Excess { line, message });
        }
    }
    Ok(())
}

struct Builder<'a> {
    around: &'a Surroundings<'a>,
    file: &'a Path,
    problems: &'a mut Vec<Problem>,
}

impl Builder<'_> {
    fn report(&mut self, line: usize, path: &str, message: String, hint: Option<String>) {
        let path = path.to_owned();
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line,
            path,
            value: None,
            message,
            hint,
        });
    }

    // Recursion ends: the document is finite and nested no deeper than `DEPTH_MAX`; saphyr 0.3 puts a copy in the place of
    // an alias, which `within_limits` has counted.
    fn node(&mut self, yaml: &MarkedYaml<'_>, line: usize, path: &str, secret: bool) -> Node {
        let mut node = Node {
            line,
            secret,
            filled: false,
            inherited: false,
            value: Value::Null,
        };
        node.value = match &yaml.data {
            YamlData::Tagged(_, inner) => return self.node(inner, line, path, secret),
            YamlData::Value(YamlScalar::Null) => Value::Null,
            YamlData::Value(YamlScalar::Boolean(value)) => Value::Bool(*value),
            YamlData::Value(YamlScalar::Integer(value)) => Value::Int(*value),
            YamlData::Value(YamlScalar::FloatingPoint(value)) => Value::Float(value.into_inner()),
            YamlData::Value(YamlScalar::String(text)) => match fill(text, self.around) {
                Ok(None) => Value::Text(text.to_string()),
                Ok(Some(filled)) => {
                    node.secret = true;
                    node.filled = true;
                    Value::Text(filled)
                }
                Err((message, hint)) => {
                    self.report(line, path, message, hint);
                    Value::Failed
                }
            },
            YamlData::Sequence(items) => Value::List(
                items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.node(item, item.span.start.line(), &format!("{path}[{index}]"), secret))
                    .collect(),
            ),
            YamlData::Mapping(entries) => {
                let mut map = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    let line = key.span.start.line();
                    let Some(name) = key_text(key) else {
                        self.report(line, path, "has a key that is not a text".to_owned(), None);
                        continue;
                    };
                    let secret = secret || named_like_secret(&name);
                    let node = self.node(value, line, &joined(path, &name), secret);
                    map.push((name, node));
                }
                Value::Map(map)
            }
            // An empty document is a bad value without text.
            YamlData::BadValue if path.is_empty() => Value::Null,
            YamlData::BadValue | YamlData::Representation(..) | YamlData::Alias(_) => {
                self.report(line, path, "has a tag or an alias that can't be read".to_owned(), None);
                Value::Failed
            }
        };
        node
    }
}

fn key_text(key: &MarkedYaml<'_>) -> Option<String> {
    match &key.data {
        YamlData::Value(YamlScalar::String(text)) => Some(text.to_string()),
        YamlData::Value(YamlScalar::Integer(value)) => Some(value.to_string()),
        YamlData::Value(YamlScalar::Boolean(value)) => Some(value.to_string()),
        _ => None,
    }
}

/// Returns the path of `key` inside `path`.
pub(super) fn joined(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// Fills in every `${NAME}`, `${NAME:-default}` and `${file:/path}`; `$${` stands for `${`. `None`: nothing to fill in.
fn fill(text: &str, around: &Surroundings<'_>) -> Result<Option<String>, (String, Option<String>)> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut filled = String::new();
    let mut rest = text;
    // Ends: every turn takes at least the two characters of `${` off `rest`.
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            filled.push_str(&rest[..start]);
            filled.push('{');
            rest = &rest[start + 2..];
            continue;
        }
        filled.push_str(&rest[..start]);
        let Some(length) = rest[start..].find('}') else {
            return Err((
                "has a `${` without `}`".to_owned(),
                Some("write `$${` for the characters themselves".to_owned()),
            ));
        };
        filled.push_str(&look_up(&rest[start + 2..start + length], around)?);
        rest = &rest[start + length + 1..];
    }
    filled.push_str(rest);
    Ok(Some(filled))
}

fn look_up(inner: &str, around: &Surroundings<'_>) -> Result<String, (String, Option<String>)> {
    if let Some(path) = inner.strip_prefix("file:") {
        let text = std::fs::read_to_string(around.directory.join(path))
            .map_err(|error| (format!("the file `{path}` can't be read: {}", error.kind()), None))?;
        // Files end in a newline that belongs to no password.
        return Ok(text.trim_end_matches(['\n', '\r']).to_owned());
    }
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let well_formed = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if name.is_empty() || !well_formed || name.starts_with(|c: char| c.is_ascii_digit()) {
        let hint = "write `${NAME}`, `${NAME:-default}` or `${file:/path}`".to_owned();
        return Err((format!("`${{{name}}}` names no environment variable"), Some(hint)));
    }
    // As in a shell, `:-` also stands in for an empty value.
    match ((around.variable)(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => {
            let hint = format!("set it, or write `${{{name}:-default}}`");
            Err((format!("the environment variable `{name}` is not set"), Some(hint)))
        }
    }
}

impl Node {
    /// Returns the value for a message: itself if it is short and no secret.
    pub fn shown(&self) -> String {
        match &self.value {
            _ if self.secret => HIDDEN.to_owned(),
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Text(text) => without_passwords(text),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
            Value::Failed => HIDDEN.to_owned(),
        }
    }

    /// Finds the node at `path`, or the deepest one on the way to it; says whether it is the one.
    pub fn find(&self, path: &str) -> (&Node, bool) {
        let path = path.strip_prefix('.').unwrap_or(path);
        if path.is_empty() {
            return (self, true);
        }
        let next = match &self.value {
            Value::List(items) => path
                .strip_prefix('[')
                .and_then(|rest| rest.split_once(']'))
                .and_then(|(index, rest)| Some((items.get(index.parse::<usize>().ok()?)?, rest))),
            // Keys may hold dots themselves, as librdkafka's do: the longest one that fits is meant.
            Value::Map(entries) => entries
                .iter()
                .filter_map(|(key, node)| Some((key.len(), node, path.strip_prefix(key.as_str())?)))
                .filter(|(_, _, rest)| rest.is_empty() || rest.starts_with(['.', '[']))
                .max_by_key(|(length, _, _)| *length)
                .map(|(_, node, rest)| (node, rest)),
            _ => None,
        };
        match next {
            Some((node, rest)) => node.find(rest),
            None => (self, false),
        }
    }

    /// Turns the tree into JSON for serde, lines forgotten; nulls and failed values in maps are left out.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null | Value::Failed => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Text(text) => text.clone().into(),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => entries
                .iter()
                .filter(|(_, node)| !matches!(node.value, Value::Null | Value::Failed))
                .map(|(key, node)| (key.clone(), node.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    fn inherit(&mut self) {
        self.inherited = true;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(Node::inherit),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, node)| node.inherit()),
            _ => {}
        }
    }
}

/// Takes `defaults` out of the file's tree and merges it under every table.
pub(super) fn merge_defaults(root: &mut Node) {
    let Value::Map(entries) = &mut root.value else { return };
    let Some(at) = entries.iter().position(|(key, _)| key == "defaults") else {
        return;
    };
    let (_, mut defaults) = entries.remove(at);
    defaults.inherit();
    let tables = entries.iter_mut().find(|(key, _)| key == "partitionedTables");
    if let Some((
        _,
        Node {
            value: Value::List(tables),
            ..
        },
    )) = tables
    {
        tables.iter_mut().for_each(|table| merge(&defaults, table));
    }
}

// Maps merge key by key; anything else that `over` says wins whole, an explicit null too.
fn merge(under: &Node, over: &mut Node) {
    let (Value::Map(under), Value::Map(over)) = (&under.value, &mut over.value) else {
        return;
    };
    for (key, node) in under {
        match over.iter_mut().find(|(name, _)| name == key) {
            Some((_, held)) => merge(node, held),
            None => over.push((key.clone(), node.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_fill(text: &str, expect: Result<Option<&str>, &str>) {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("password"), "hunter2\n").expect("a file");
        let variable = |name: &str| match name {
            "SET" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let around = Surroundings {
            variable: &variable,
            directory: directory.path(),
        };
        let found = fill(text, &around).map_err(|(message, _)| message);
        assert_eq!(
            found,
            expect.map(|text| text.map(str::to_owned)).map_err(str::to_owned),
            "{text}"
        );
    }

    #[test]
    fn values_are_filled_in() {
        check_fill("plain $5 {schema}", Ok(None));
        check_fill("${SET}", Ok(Some("value")));
        check_fill("a${SET}b${SET:-x}c", Ok(Some("avaluebvaluec")));
        check_fill("${UNSET:-x y}", Ok(Some("x y")));
        check_fill("${UNSET:-}", Ok(Some("")));
        check_fill("${EMPTY:-x}", Ok(Some("x")));
        check_fill("${EMPTY}", Ok(Some("")));
        check_fill("${file:password}", Ok(Some("hunter2")));
        check_fill("$${SET}", Ok(Some("${SET}")));
        check_fill("${UNSET}", Err("the environment variable `UNSET` is not set"));
        check_fill(
            "${file:absent}",
            Err("the file `absent` can't be read: entity not found"),
        );
        check_fill("${SET", Err("has a `${` without `}`"));
        check_fill("${}", Err("`${}` names no environment variable"));
        check_fill("${a b}", Err("`${a b}` names no environment variable"));
    }

    fn tree(text: &str) -> Node {
        let around = Surroundings {
            variable: &|_| None,
            directory: Path::new("."),
        };
        let mut problems = Vec::new();
        let node = parse(Path::new("a.yaml"), text, &around, &mut problems);
        assert_eq!(problems, vec![]);
        node.expect("YAML")
    }

    fn refusal(text: &str) -> String {
        let around = Surroundings {
            variable: &|_| None,
            directory: Path::new("."),
        };
        let mut problems = Vec::new();
        assert!(parse(Path::new("a.yaml"), text, &around, &mut problems).is_none());
        assert_eq!(problems.len(), 1, "{problems:?}");
        format!("{}: {}", problems[0].line, problems[0].message)
    }

    #[test]
    fn no_nesting_and_no_alias_costs_more_than_a_problem() {
        assert_eq!(refusal(&"- ".repeat(100_000)), "1: is nested more than 64 deep");
        assert_eq!(refusal(&"? ".repeat(100_000)), "1: is nested more than 64 deep");
        let flow = "[".repeat(65) + &"]".repeat(65);
        assert_eq!(refusal(&flow), "1: is nested more than 64 deep");
        // The scanner looks ahead for a key, and has a limit of its own.
        let unclosed = "1: is not YAML: recursion limit exceeded";
        assert_eq!(refusal(&"[".repeat(100_000)), unclosed);
        assert_eq!(refusal(&"{b: ".repeat(100_000)), unclosed);
        let indented: String = (0..1000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert_eq!(refusal(&indented), "65: is nested more than 64 deep");
        // Each line holds the one before ten times.
        let laughs: String = (1..10).fold("l0: &l0 lol\n".to_owned(), |text, line| {
            text + &format!(
                "l{line}: &l{line} [{}]\n",
                vec![format!("*l{}", line - 1); 10].join(", ")
            )
        });
        assert_eq!(
            refusal(&laughs),
            "7: comes to more than 16 MiB with its aliases filled in"
        );
        let long = format!("a: &a {}\nb: [{}]", "x".repeat(1 << 20), ["*a"; 100].join(", "));
        assert_eq!(
            refusal(&long),
            "2: comes to more than 16 MiB with its aliases filled in"
        );
        let deep = "[".repeat(64) + &"]".repeat(64);
        tree(&deep);
        tree("a: &a {b: 1}\nc: *a\nd: [*a, *a]");
    }

    #[test]
    fn defaults_merge_under_every_table_and_the_table_wins() {
        let mut root = tree(
            "defaults: {a: {x: 1, y: [1, 2], z: 0}, b: 5}\npartitionedTables:\n  - {a: {x: 2, y: [3], z: null}}\n  - {b: {c: 1}}\n",
        );
        merge_defaults(&mut root);
        assert_eq!(
            root.to_json().to_string(),
            r#"{"partitionedTables":[{"a":{"x":2,"y":[3]},"b":5},{"a":{"x":1,"y":[1,2],"z":0},"b":{"c":1}}]}"#
        );
        let (node, exact) = root.find("partitionedTables[1].a.y[1]");
        assert!(exact && node.inherited && node.line == 1);
    }

    #[test]
    fn a_path_finds_its_line_or_the_nearest_above() {
        let root = tree("a:\n  b.c: 1\n  b:\n    - x\n    - {d: 2}\n");
        for (path, line, exact) in [
            ("a.b.c", 2, true),
            ("a.b[1].d", 5, true),
            ("a.b[1].e", 5, false),
            ("z", 1, false),
        ] {
            let (node, found) = root.find(path);
            assert_eq!((node.line, found), (line, exact), "{path}");
        }
    }
}
