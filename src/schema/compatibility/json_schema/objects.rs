//! What schemas say of the properties of an object.

use std::collections::BTreeSet;

use super::Check;
use super::facts::Conj;
use crate::schema::compatibility::{Misfit, Rule};
use crate::schema::json_schema::ANY_NAME;
use crate::schema::json_schema::documents::Place;
use crate::schema::json_schema::node::Node;

/// What a property may be, and the pattern of names that it goes by.
type Case<'a> = (Vec<Place<'a>>, Option<&'a str>);

impl<'a> Check<'a> {
    /// Checks that the reader takes all properties that an object of the writer's may have, and that it has those asked for.
    pub(super) fn object(
        &mut self,
        writer: &Conj<'a>,
        reader: Place<'a>,
        path: &str,
        out: &mut Vec<Misfit>,
    ) -> Result<(), String> {
        self.required(writer, reader, path, out);
        self.dependent(writer, reader, path, out)?;
        if let Some(names) = reader.node.get("propertyNames") {
            let written = writer
                .places
                .iter()
                .filter_map(|place| Some(self.writer.inside(*place, place.node.get("propertyNames")?)));
            let text = self.types.iter().find(|(_, node)| node.text("type") == Some("string"));
            let text = text.zip(writer.places.first());
            let text = text.map(|((_, node), place)| self.writer.inside(*place, node));
            let written: Vec<_> = written.chain(text).collect();
            let written = self.all_of(&written)?;
            let names = self.reader.inside(reader, names);
            self.fits(&written, names, &format!("{path}.*"), out)?;
        }
        let properties = fields(reader.node, "properties");
        for (name, inner) in properties {
            let inner = self.reader.inside(reader, inner);
            for (places, _) in self.named(writer, name) {
                let written = self.all_of(&places)?;
                self.fits(&written, inner, &format!("{path}.{name}"), out)?;
                self.patterns(writer, reader, (&places, None), name, &format!("{path}.{name}"), out)?;
            }
        }
        let patterns = fields(reader.node, "patternProperties");
        let others = others(reader.node);
        if patterns.is_empty() && others.is_none() {
            return Ok(());
        }
        let names: BTreeSet<&str> = writer
            .places
            .iter()
            .flat_map(|place| fields(place.node, "properties"))
            .map(|(name, _)| name.as_str())
            .filter(|name| !properties.iter().any(|(known, _)| known == name))
            .collect();
        for name in names {
            for (places, _) in self.named(writer, name) {
                self.other(writer, reader, (&places, None), name, &format!("{path}.{name}"), out)?;
            }
        }
        for (places, pattern) in self.unnamed(writer, None) {
            self.other(writer, reader, (&places, pattern), ANY, &format!("{path}.*"), out)?;
        }
        Ok(())
    }

    fn required(&self, writer: &Conj<'a>, reader: Place<'a>, path: &str, out: &mut Vec<Misfit>) {
        let properties = fields(reader.node, "properties");
        let has_default = |name: &str| {
            let found = properties.iter().find(|(known, _)| known == name);
            found.is_some_and(|(_, inner)| inner.get("default").is_some())
        };
        for name in texts(reader.node.list("required")) {
            if !requires(writer, name) && !has_default(name) {
                out.push(Misfit {
                    path: format!("{path}.{name}"),
                    rule: Rule::Required,
                    reader: "a required property without a default".to_owned(),
                    writer: "one that may be missing".to_owned(),
                });
            }
        }
    }

    /// Checks what holds where a property is there.
    fn dependent(
        &mut self,
        writer: &Conj<'a>,
        reader: Place<'a>,
        path: &str,
        out: &mut Vec<Misfit>,
    ) -> Result<(), String> {
        for (name, said) in dependencies(reader.node) {
            let written: Vec<_> = writer
                .places
                .iter()
                .flat_map(|place| dependencies(place.node).map(|(name, said)| (*place, name, said)))
                .filter(|(_, other, _)| *other == name)
                .map(|(place, _, said)| (place, said))
                .collect();
            if let Node::List(names) = said {
                for needed in texts(names) {
                    let listed = written
                        .iter()
                        .any(|(_, said)| matches!(said, Node::List(names) if texts(names).any(|name| name == needed)));
                    if !listed && !requires(writer, needed) {
                        out.push(Misfit {
                            path: format!("{path}.{needed}"),
                            rule: Rule::Required,
                            reader: format!("a property required beside `{name}`"),
                            writer: "one that may be missing".to_owned(),
                        });
                    }
                }
                continue;
            }
            let mut with = writer.clone();
            for (place, said) in written {
                if !matches!(said, Node::List(_)) {
                    let inner = self.writer.inside(place, said);
                    with.add(&mut self.writer, inner)?;
                }
            }
            let inner = self.reader.inside(reader, said);
            self.fits(&with, inner, path, out)?;
        }
        Ok(())
    }

    /// Checks that the reader takes a property by the patterns that its name matches, or may match.
    ///
    /// - returns whether there is one that it matches for sure.
    fn patterns(
        &mut self,
        writer: &Conj<'a>,
        reader: Place<'a>,
        (places, pattern): (&[Place<'a>], Option<&str>),
        name: &str,
        path: &str,
        out: &mut Vec<Misfit>,
    ) -> Result<bool, String> {
        let mut taken = false;
        for (known, inner) in fields(reader.node, "patternProperties") {
            let same = Some(known.as_str()) == pattern;
            match matches(known, name) {
                Some(false) if !same => continue,
                matches => taken |= same || matches == Some(true),
            }
            // If the name matches, the writer's schema of the same pattern holds as well.
            let own = writer.places.iter().filter_map(|place| {
                let mut own = fields(place.node, "patternProperties").iter();
                let (_, own) = own.find(|(pattern, _)| pattern == known)?;
                Some(self.writer.inside(*place, own))
            });
            let written: Vec<_> = places.iter().copied().chain(own).collect();
            let written = self.all_of(&written)?;
            let inner = self.reader.inside(reader, inner);
            self.fits(&written, inner, path, out)?;
        }
        Ok(taken)
    }

    /// Checks that the reader takes a property that it has no name for.
    fn other(
        &mut self,
        writer: &Conj<'a>,
        reader: Place<'a>,
        (places, pattern): (&[Place<'a>], Option<&str>),
        name: &str,
        path: &str,
        out: &mut Vec<Misfit>,
    ) -> Result<(), String> {
        let written = self.all_of(places)?;
        if written.never() {
            return Ok(());
        }
        let taken = self.patterns(writer, reader, (places, pattern), name, path, out)?;
        match others(reader.node) {
            Some((keyword, _)) if !taken && keyword == "unevaluatedProperties" && combined(reader.node) => {
                out.push(Misfit {
                    path: path.to_owned(),
                    rule: Rule::Opaque,
                    reader: format!("this `{keyword}`"),
                    writer: written.shown(),
                });
            }
            Some((keyword, Node::Bool(false))) if !taken => out.push(Misfit {
                path: path.to_owned(),
                rule: Rule::Closed,
                reader: format!("no such property, and `{keyword}: false`,"),
                writer: written.shown(),
            }),
            Some((_, inner)) if !taken => {
                let inner = self.reader.inside(reader, inner);
                self.fits(&written, inner, path, out)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns what a property of this name may be in the writer's objects; nothing if there is none of it.
    fn named(&self, writer: &Conj<'a>, name: &str) -> Vec<Case<'a>> {
        let mut exact = Vec::new();
        for place in &writer.places {
            let own = fields(place.node, "properties")
                .iter()
                .rev()
                .find(|(known, _)| known == name);
            exact.extend(own.map(|(_, inner)| self.writer.inside(*place, inner)));
        }
        let mut cases = self.unnamed(writer, Some(name));
        cases.iter_mut().for_each(|(places, _)| places.extend(&exact));
        cases
    }

    /// Returns what a property may be that no schema of the writer's names, or only others than `known` do.
    fn unnamed(&self, writer: &Conj<'a>, known: Option<&str>) -> Vec<Case<'a>> {
        let mut all = Vec::new();
        let mut patterns: Vec<Case<'a>> = Vec::new();
        for place in &writer.places {
            let names = fields(place.node, "properties");
            if known.is_some_and(|known| names.iter().any(|(name, _)| name == known)) {
                continue;
            }
            // Of `unevaluatedProperties` beside other schemas nothing is relied on: that it allows more than it does is safe.
            let others =
                others(place.node).filter(|(keyword, _)| *keyword == "additionalProperties" || !combined(place.node));
            let others = others.map(|(_, inner)| self.writer.inside(*place, inner));
            match fields(place.node, "patternProperties") {
                [] => all.extend(others),
                // One schema with patterns is taken apart; what others say on top is left out, which is safe as well.
                listed if patterns.is_empty() => {
                    let said = |pattern: &str| matches(pattern, known.unwrap_or(ANY));
                    for (pattern, inner) in listed.iter().filter(|(pattern, _)| said(pattern) != Some(false)) {
                        patterns.push((vec![self.writer.inside(*place, inner)], Some(pattern)));
                    }
                    if !listed.iter().any(|(pattern, _)| said(pattern) == Some(true)) {
                        patterns.push((others.into_iter().collect(), None));
                    }
                }
                _ => {}
            }
        }
        if patterns.is_empty() {
            return vec![(all, None)];
        }
        patterns.iter_mut().for_each(|(places, _)| places.extend(&all));
        patterns
    }
}

/// Stands for a name that isn't known.
const ANY: &str = "";

/// Says whether a pattern matches a name; `None` if that isn't seen without the engine that the schema is meant for.
fn matches(pattern: &str, name: &str) -> Option<bool> {
    if ANY_NAME.contains(&pattern) {
        return Some(true);
    }
    let (start, rest) = pattern.strip_prefix('^').map_or((false, pattern), |rest| (true, rest));
    let (end, text) = rest.strip_suffix('$').map_or((false, rest), |text| (true, text));
    let plain = text
        .chars()
        .all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-' | ' '));
    if name == ANY || !plain {
        return None;
    }
    Some(match (start, end) {
        (true, true) => name == text,
        (true, false) => name.starts_with(text),
        (false, true) => name.ends_with(text),
        (false, false) => name.contains(text),
    })
}

/// Returns the fields of a keyword that is an object.
fn fields<'a>(node: &'a Node, keyword: &str) -> &'a [(String, Node)] {
    node.get(keyword).map_or(&[], Node::fields)
}

/// Returns what a schema says of properties that it has no name and no pattern for, and in which keyword.
fn others(node: &Node) -> Option<(&'static str, &Node)> {
    ["additionalProperties", "unevaluatedProperties"]
        .into_iter()
        .find_map(|keyword| Some((keyword, node.get(keyword)?)))
}

/// Says whether other schemas beside this one may name properties too.
fn combined(node: &Node) -> bool {
    let others = [
        "$ref",
        "allOf",
        "anyOf",
        "oneOf",
        "if",
        "dependentSchemas",
        "$dynamicRef",
    ];
    others.iter().any(|keyword| node.get(keyword).is_some())
}

fn dependencies(node: &Node) -> impl Iterator<Item = (&str, &Node)> {
    ["dependencies", "dependentRequired", "dependentSchemas"]
        .into_iter()
        .flat_map(|keyword| fields(node, keyword))
        .map(|(name, said)| (name.as_str(), said))
}

fn requires(writer: &Conj<'_>, name: &str) -> bool {
    let mut lists = writer.places.iter().map(|place| place.node.list("required"));
    lists.any(|list| texts(list).any(|required| required == name))
}

fn texts(nodes: &[Node]) -> impl Iterator<Item = &str> {
    nodes.iter().filter_map(|node| match node {
        Node::Text(text) => Some(text.as_str()),
        _ => None,
    })
}
