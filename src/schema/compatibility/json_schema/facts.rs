//! What schemas say of a value itself: its types, its values, its bounds.

use crate::schema::json_schema::documents::{Documents, Place};
use crate::schema::json_schema::node::Node;

/// Types of JSON values; integers are numbers too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Types(u8);

impl Types {
    pub const OBJECT: Types = Types(1);
    pub const ARRAY: Types = Types(2);
    const STRING: Types = Types(4);
    const BOOLEAN: Types = Types(8);
    const NULL: Types = Types(16);
    const INTEGER: Types = Types(32);
    /// Numbers with a fraction.
    const FRACTION: Types = Types(64);
    const ANY: Types = Types(127);

    const NAMES: [(Types, &'static str); 7] = [
        (Types::OBJECT, "object"),
        (Types::ARRAY, "array"),
        (Types::STRING, "string"),
        (Types::BOOLEAN, "boolean"),
        (Types(96), "number"),
        (Types::INTEGER, "integer"),
        (Types::NULL, "null"),
    ];

    fn named(name: &str) -> Types {
        let found = Types::NAMES.iter().find(|(_, known)| *known == name);
        // A type that isn't known says nothing that can be relied on.
        found.map_or(Types::ANY, |(types, _)| *types)
    }

    /// Says whether there are any of these types.
    pub fn has(self, other: Types) -> bool {
        self.0 & other.0 != 0
    }

    /// Says whether all of these types are among them.
    pub fn all(self, other: Types) -> bool {
        other.0 & !self.0 == 0
    }

    pub fn shown(self) -> String {
        if self == Types::ANY {
            return "any type".to_owned();
        }
        let mut left = self;
        let mut names = Vec::new();
        for (types, name) in Types::NAMES {
            if left.0 & types.0 == types.0 {
                left.0 &= !types.0;
                names.push(format!("`{name}`"));
            }
        }
        match names.is_empty() {
            true => "nothing".to_owned(),
            false => names.join(" or "),
        }
    }
}

/// Returns a schema for each type that can be told from the others.
pub(super) fn single_types() -> Vec<(Types, Node)> {
    let schema = |name: &str| Node::Object(vec![("type".to_owned(), Node::Text(name.to_owned()))]);
    let single = Types::NAMES.into_iter().filter(|(_, name)| *name != "integer");
    single.map(|(types, name)| (types, schema(name))).collect()
}

/// Returns the types that a schema's own `type` allows.
pub(super) fn own_types(node: &Node) -> Types {
    let named = match node.get("type") {
        Some(Node::Text(name)) => Types::named(name),
        Some(Node::List(names)) => names.iter().fold(Types(0), |all, name| match name {
            Node::Text(name) => Types(all.0 | Types::named(name).0),
            _ => Types::ANY,
        }),
        _ => return Types::ANY,
    };
    // OpenAPI 3.0 has this in place of the type `null`.
    match node.get("nullable") {
        Some(Node::Bool(true)) => Types(named.0 | Types::NULL.0),
        _ => named,
    }
}

fn type_of(value: &Node) -> Types {
    match value {
        Node::Null => Types::NULL,
        Node::Bool(_) => Types::BOOLEAN,
        Node::Number { value, .. } if value.fract() == 0.0 => Types::INTEGER,
        Node::Number { .. } => Types::FRACTION,
        Node::Text(_) => Types::STRING,
        Node::List(_) => Types::ARRAY,
        Node::Object(_) => Types::OBJECT,
    }
}

/// Returns the values that a schema's own `const` or `enum` allows.
pub(super) fn values(node: &Node) -> Option<Vec<&Node>> {
    match (node.get("const"), node.get("enum")) {
        (Some(value), _) => Some(vec![value]),
        (None, Some(Node::List(values))) => Some(values.iter().collect()),
        _ => None,
    }
}

pub(super) fn values_shown(values: &[&Node]) -> String {
    let values: Vec<_> = values.iter().map(|value| json(value)).collect();
    format!("one of {}", values.join(", "))
}

/// Returns a value as a person reads it.
pub(super) fn json(value: &Node) -> String {
    match value {
        Node::Null => "`null`".to_owned(),
        Node::Bool(value) => format!("`{value}`"),
        Node::Number { value, .. } => format!("`{value}`"),
        Node::Text(text) => format!("`{text}`"),
        Node::List(_) => "a list".to_owned(),
        Node::Object(_) => "an object".to_owned(),
    }
}

/// Schemas that all hold of a value: one, what its `$ref`s lead to, and its `allOf`.
#[derive(Debug, Clone, Default)]
pub(super) struct Conj<'a> {
    pub places: Vec<Place<'a>>,
    /// One of them is `false`.
    pub nothing: bool,
    /// Lists of alternatives of which one was taken.
    spent: Vec<*const Node>,
}

impl<'a> Conj<'a> {
    /// Adds a schema and all that holds with it.
    pub fn add(&mut self, documents: &mut Documents<'a>, place: Place<'a>) -> Result<(), String> {
        let mut open = vec![place];
        let mut seen: Vec<&Node> = Vec::new();
        // Ends: a schema is looked at once.
        while let Some(place) = open.pop() {
            match place.node {
                Node::Bool(false) => self.nothing = true,
                Node::Object(fields) => {
                    let same = |known: &Node| std::ptr::eq(known, place.node);
                    let known =
                        seen.iter().any(|known| same(known)) || self.places.iter().any(|known| same(known.node));
                    seen.push(place.node);
                    if known || !fields.iter().any(|(keyword, _)| SPEAKING.contains(&keyword.as_str())) {
                        continue;
                    }
                    // What only leads elsewhere says nothing itself.
                    let leads = |keyword: &str| LEADING.contains(&keyword) || !SPEAKING.contains(&keyword);
                    if !fields.iter().all(|(keyword, _)| leads(keyword)) {
                        self.places.push(place);
                    }
                    for (keyword, said) in fields {
                        match (keyword.as_str(), said) {
                            ("$ref" | "$recursiveRef" | "$dynamicRef", Node::Text(reference)) => {
                                open.push(documents.resolve(place, reference)?);
                            }
                            ("allOf", Node::List(parts)) => {
                                open.extend(parts.iter().map(|part| documents.inside(place, part)));
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Says whether there is certainly no such value.
    pub fn never(&self) -> bool {
        self.nothing || self.types() == Types(0)
    }

    pub fn key(&self) -> Vec<*const Node> {
        let mut key: Vec<_> = self.places.iter().map(|place| std::ptr::from_ref(place.node)).collect();
        key.extend(&self.spent);
        key.sort_unstable();
        key
    }

    pub fn types(&self) -> Types {
        let own = |place: &Place<'a>| {
            let listed = values(place.node).map_or(Types::ANY.0, |values| {
                values.iter().fold(0, |all, value| all | type_of(value).0)
            });
            own_types(place.node).0 & listed
        };
        Types(self.places.iter().map(own).fold(Types::ANY.0, |all, own| all & own))
    }

    /// Returns the values that are allowed, where they are listed.
    pub fn values(&self) -> Option<Vec<&'a Node>> {
        let types = self.types();
        let mut listed = self.places.iter().filter_map(|place| values(place.node));
        let mut values = listed.next()?;
        for others in listed {
            values.retain(|value| others.contains(value));
        }
        values.retain(|value| types.has(type_of(value)));
        Some(values)
    }

    /// Returns the cases of the first alternatives of which none was taken yet.
    pub fn arms(&self, documents: &mut Documents<'a>) -> Result<Vec<Conj<'a>>, String> {
        for place in &self.places {
            for keyword in ["anyOf", "oneOf"] {
                let Some(list) = place.node.get(keyword).filter(|list| !self.is_spent(list)) else {
                    continue;
                };
                let Node::List(arms) = list else { continue };
                let cases = arms.iter().map(|arm| {
                    let mut case = self.clone();
                    case.spent.push(std::ptr::from_ref(list));
                    case.add(documents, documents.inside(*place, arm))?;
                    Ok(case)
                });
                return cases.collect();
            }
        }
        Ok(Vec::new())
    }

    /// Returns a case for each type, where there are several.
    pub fn by_type(&self, single: &'a [(Types, Node)], documents: &Documents<'a>) -> Result<Vec<Conj<'a>>, String> {
        let types = self.types();
        let cases: Vec<_> = single.iter().filter(|(single, _)| types.has(*single)).collect();
        let Some(place) = self.places.first().filter(|_| cases.len() > 1 && types != Types::ANY) else {
            return Ok(Vec::new());
        };
        let case = |(_, node): &&'a (Types, Node)| {
            let mut case = self.clone();
            case.places.push(documents.inside(*place, node));
            case
        };
        Ok(cases.iter().map(case).collect())
    }

    /// Returns what the values aren't.
    pub fn excluded(&self, documents: &Documents<'a>) -> Vec<Place<'a>> {
        let not = |place: &Place<'a>| Some(documents.inside(*place, place.node.get("not")?));
        self.places.iter().filter_map(not).collect()
    }

    pub fn shown(&self) -> String {
        if self.places.is_empty() {
            return "anything".to_owned();
        }
        match self.values() {
            Some(values) => values_shown(&values),
            None => self.types().shown(),
        }
    }

    fn is_spent(&self, list: &Node) -> bool {
        self.spent.iter().any(|spent| std::ptr::eq(*spent, list))
    }

    /// Returns the largest, or the smallest, of a keyword's numbers.
    fn number(&self, keyword: &str, pick: fn(f64, f64) -> f64) -> Option<f64> {
        let numbers = self.places.iter().filter_map(|place| place.node.number(keyword));
        numbers.reduce(pick)
    }

    fn says(&self, keyword: &str, value: &Node) -> bool {
        self.places.iter().any(|place| place.node.get(keyword) == Some(value))
    }
}

/// Keywords that say that other schemas hold as well.
const LEADING: [&str; 4] = ["$ref", "$recursiveRef", "$dynamicRef", "allOf"];

/// Keywords that say something of values; a schema without any takes all.
const SPEAKING: [&str; 43] = [
    "$ref",
    "$recursiveRef",
    "$dynamicRef",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "type",
    "nullable",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "items",
    "prefixItems",
    "additionalItems",
    "minItems",
    "maxItems",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "properties",
    "patternProperties",
    "additionalProperties",
    "required",
    "minProperties",
    "maxProperties",
    "propertyNames",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedProperties",
    "unevaluatedItems",
];

/// Returns the bounds of a schema that don't follow from what was written: keyword, the reader's, the writer's.
pub(super) fn narrowed<'a>(reader: &'a Node, writer: &Conj<'_>) -> Vec<(&'a str, String, String)> {
    let types = writer.types();
    let bare = |number: Option<f64>| number.map_or("no such bound".to_owned(), |number| format!("`{number}`"));
    let mut found = Vec::new();
    for (keyword, said) in reader.fields() {
        let keyword = keyword.as_str();
        let of = match keyword {
            "minLength" | "maxLength" | "pattern" => Types::STRING,
            "minItems" | "maxItems" | "uniqueItems" => Types::ARRAY,
            "minProperties" | "maxProperties" => Types::OBJECT,
            _ => Types(Types::INTEGER.0 | Types::FRACTION.0),
        };
        if !types.has(of) {
            continue;
        }
        let (follows, written) = match (keyword, said) {
            ("minLength" | "minItems" | "minProperties", Node::Number { value, .. }) => {
                let least = writer.number(keyword, f64::max);
                let follows = *value <= 0.0 || least.is_some_and(|least| least >= *value);
                (follows, bare(least))
            }
            ("maxLength" | "maxItems" | "maxProperties", Node::Number { value, .. }) => {
                let most = writer.number(keyword, f64::min);
                (most.is_some_and(|most| most <= *value), bare(most))
            }
            ("minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum", Node::Number { .. }) => {
                let low = keyword.to_ascii_lowercase().contains("min");
                // The mirror image of an upper bound is a lower one.
                let bound = |node: &Node| bound(node, low);
                let Some(reader) = bound(reader) else { continue };
                let written = writer.places.iter().filter_map(|place| bound(place.node));
                let written = written.reduce(|one, other| if one >= other { one } else { other });
                let number = written.map(|(value, _)| if low { value } else { -value });
                (written.is_some_and(|written| written >= reader), bare(number))
            }
            ("multipleOf", Node::Number { value, .. }) => {
                let whole = *value == 1.0 && !types.has(Types::FRACTION);
                let follows = writer.places.iter().any(|place| {
                    let written = place.node.number("multipleOf");
                    written.is_some_and(|written| (written / value).fract() == 0.0)
                });
                (whole || follows, bare(writer.number(keyword, f64::max)))
            }
            ("uniqueItems", Node::Bool(true)) => (writer.says(keyword, said), "no such demand".to_owned()),
            ("pattern", Node::Text(_)) => (writer.says(keyword, said), "another or none".to_owned()),
            _ => continue,
        };
        if !follows {
            found.push((keyword, json(said), written));
        }
    }
    found
}

/// Returns the lower bound of a schema's numbers, and whether it is none of them itself; of the upper one the mirror image.
fn bound(node: &Node, low: bool) -> Option<(f64, bool)> {
    let (inclusive, exclusive) = match low {
        true => ("minimum", "exclusiveMinimum"),
        false => ("maximum", "exclusiveMaximum"),
    };
    let sign = if low { 1.0 } else { -1.0 };
    // A boolean in draft 4, where it speaks of the other keyword.
    let open = matches!(node.get(exclusive), Some(Node::Bool(true)));
    let inclusive = node.number(inclusive).map(|value| (value * sign, open));
    let exclusive = node.number(exclusive).map(|value| (value * sign, true));
    match (inclusive, exclusive) {
        (Some(one), Some(other)) => Some(if one >= other { one } else { other }),
        (one, other) => one.or(other),
    }
}

/// Returns the keywords of a schema that can't be compared, and that the writer's schemas don't say in the same words.
pub(super) fn opaque(reader: &Node, writer: &Conj<'_>) -> Vec<&'static str> {
    let types = writer.types();
    let same = |names: &[&'static str]| {
        let said = |node: &Node| names.iter().all(|name| reader.get(name) == node.get(name));
        writer.places.iter().any(|place| said(place.node))
    };
    let groups: [(Types, &[&'static str]); 3] = [
        (Types::ANY, &["if", "then", "else"]),
        (Types::ARRAY, &["contains", "minContains", "maxContains"]),
        (Types::ARRAY, &["unevaluatedItems"]),
    ];
    let groups = groups
        .into_iter()
        .filter(|(of, names)| types.has(*of) && reader.get(names[0]).is_some());
    groups
        .filter(|(_, names)| !same(names))
        .map(|(_, names)| names[0])
        .collect()
}
