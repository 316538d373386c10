//! Where the `$ref`s of a schema lead.

use std::collections::HashMap;

use url::Url;

use super::node::Node;

/// What relative addresses are relative to where no `$id` says so.
const NOWHERE: &str = "json-schema:///";

/// Keywords whose values are records, not schemas: an `id` in them is none of ours.
const RECORDS: [&str; 5] = ["const", "default", "enum", "example", "examples"];

/// A schema, and the resource that addresses in it are relative to.
#[derive(Debug, Clone, Copy)]
pub(in crate::schema) struct Place<'a> {
    pub node: &'a Node,
    resource: usize,
}

/// A schema that has an address of its own: a document, or a part of one with an `$id`.
#[derive(Debug)]
struct Resource<'a> {
    url: Url,
    root: &'a Node,
    /// The document that it is in.
    document: usize,
}

/// The schema and those that it refers to.
#[derive(Debug, Default)]
pub(in crate::schema) struct Documents<'a> {
    resources: Vec<Resource<'a>>,
    /// By the schema that the resource starts at.
    starts: HashMap<*const Node, usize>,
    urls: HashMap<String, usize>,
    /// By the names of references.
    names: HashMap<&'a str, usize>,
    anchors: HashMap<(usize, &'a str), Place<'a>>,
    /// What was asked for before.
    found: HashMap<(usize, &'a str), Place<'a>>,
}

impl<'a> Documents<'a> {
    /// Finds every address in the schema and in those that it refers to by name.
    pub fn new(root: &'a Node, references: impl IntoIterator<Item = (&'a str, &'a Node)>) -> Self {
        let mut documents = Documents::default();
        documents.add("", root);
        for (name, node) in references {
            let at = documents.resources.len();
            documents.add(name, node);
            documents.names.insert(name, at);
        }
        documents
    }

    /// Returns where reading starts.
    pub fn root(&self) -> Place<'a> {
        Place {
            node: self.resources[0].root,
            resource: 0,
        }
    }

    /// Returns the place of a schema inside another one.
    pub fn inside(&self, outer: Place<'a>, node: &'a Node) -> Place<'a> {
        let resource = self.starts.get(&std::ptr::from_ref(node)).copied();
        Place {
            node,
            resource: resource.unwrap_or(outer.resource),
        }
    }

    /// Returns where a `$ref` leads.
    ///
    /// # Errors
    /// That it leads nowhere; nothing is ever fetched.
    pub fn resolve(&mut self, from: Place<'a>, reference: &'a str) -> Result<Place<'a>, String> {
        let key = (from.resource, reference);
        if let Some(found) = self.found.get(&key) {
            return Ok(*found);
        }
        let (address, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let resource = match address {
            "" => Some(from.resource),
            address => self.resource(from.resource, reference, address),
        };
        let resource = resource.ok_or_else(|| {
            format!("the schema refers to `{reference}`, which is neither in it nor among its references")
        })?;
        let found = decoded(fragment).and_then(|fragment| self.fragment(resource, &fragment));
        let found = found.ok_or_else(|| format!("the schema refers to `{reference}`, where nothing is"))?;
        self.found.insert(key, found);
        Ok(found)
    }

    fn add(&mut self, name: &str, root: &'a Node) {
        let nowhere = Url::parse(NOWHERE).expect("the address is one");
        let url = nowhere.join(name).unwrap_or(nowhere);
        let at = self.open(url, root, self.resources.len());
        self.index(root, at);
    }

    fn open(&mut self, url: Url, root: &'a Node, document: usize) -> usize {
        let at = self.resources.len();
        self.urls.entry(bare(&url)).or_insert(at);
        self.starts.insert(std::ptr::from_ref(root), at);
        self.resources.push(Resource { url, root, document });
        at
    }

    /// Finds the addresses in a schema. The text's own depth bounds the recursion: `serde_json` reads 128 levels.
    fn index(&mut self, node: &'a Node, resource: usize) {
        let mut at = resource;
        if let Some(id) = node.text("$id").or_else(|| node.text("id")) {
            let (address, anchor) = id.split_once('#').unwrap_or((id, ""));
            let url = (!address.is_empty()).then(|| self.resources[at].url.join(address));
            if let Some(Ok(url)) = url {
                if std::ptr::eq(self.resources[at].root, node) {
                    self.urls.entry(bare(&url)).or_insert(at);
                    self.resources[at].url = url;
                } else {
                    at = self.open(url, node, self.resources[at].document);
                }
            }
            self.anchor(at, anchor, node);
        }
        for keyword in ["$anchor", "$dynamicAnchor"] {
            self.anchor(at, node.text(keyword).unwrap_or(""), node);
        }
        match node {
            Node::List(items) => items.iter().for_each(|item| self.index(item, at)),
            node => {
                let schemas = node
                    .fields()
                    .iter()
                    .filter(|(name, _)| !RECORDS.contains(&name.as_str()));
                schemas.for_each(|(_, inner)| self.index(inner, at));
            }
        }
    }

    fn anchor(&mut self, resource: usize, name: &'a str, node: &'a Node) {
        if !name.is_empty() {
            let place = Place { node, resource };
            self.anchors.entry((resource, name)).or_insert(place);
        }
    }

    fn resource(&self, from: usize, reference: &str, address: &str) -> Option<usize> {
        let url = self.resources[from].url.join(address).ok();
        let found = url.and_then(|url| self.urls.get(&bare(&url)));
        // A registry names a reference as the `$ref` has it, whatever that is relative to.
        let found = found
            .or_else(|| self.names.get(reference))
            .or_else(|| self.names.get(address));
        found.copied()
    }

    fn fragment(&self, resource: usize, fragment: &str) -> Option<Place<'a>> {
        // The document too: an `id` that is a mere property of ours must not hide the definitions.
        [resource, self.resources[resource].document]
            .into_iter()
            .find_map(|at| {
                if fragment.is_empty() || fragment.starts_with('/') {
                    self.pointer(at, fragment)
                } else {
                    self.anchors.get(&(at, fragment)).copied()
                }
            })
    }

    /// Source: RFC 6901.
    fn pointer(&self, resource: usize, pointer: &str) -> Option<Place<'a>> {
        let node = self.resources[resource].root;
        pointer
            .split('/')
            .skip(1)
            .try_fold(Place { node, resource }, |place, step| {
                let step = step.replace("~1", "/").replace("~0", "~");
                let inner = match place.node {
                    Node::List(items) => items.get(step.parse::<usize>().ok()?)?,
                    node => node.get(&step)?,
                };
                Some(self.inside(place, inner))
            })
    }
}

/// Returns an address without its fragment.
fn bare(url: &Url) -> String {
    let mut url = url.clone();
    url.set_fragment(None);
    url.into()
}

/// Resolves the percent signs of a fragment.
fn decoded(fragment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let [first, behind @ ..] = rest {
        let digit = |at: usize| Some((*behind.get(at)? as char).to_digit(16)? as u8);
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high << 4 | low);
                rest = &behind[2..];
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes).ok()
}
