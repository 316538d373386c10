//! Collects what the meaning of a file has wrong, with the lines of its tree.

use std::collections::BTreeSet;
use std::path::Path;

use super::formats::Wrong;
use super::problem::Problem;
use super::tree::Node;

/// The problems of one file so far.
pub(super) struct Report<'a> {
    file: &'a Path,
    tree: &'a Node,
    /// The paths whose values had problems before and were taken out of the tree.
    removed: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl<'a> Report<'a> {
    /// Starts a report; what is said about a path in `removed` follows from another problem and is left out.
    pub fn new(file: &'a Path, tree: &'a Node, removed: BTreeSet<String>) -> Self {
        Report {
            file,
            tree,
            removed,
            problems: Vec::new(),
        }
    }

    /// Adds a problem at `path`; a value inherited from `defaults` is reported for the first table only.
    pub fn add(&mut self, path: &str, message: &str, hint: Option<&str>) {
        // Below a list or a map that was taken out, nothing can be said either.
        let mut above = self
            .removed
            .iter()
            .filter_map(|removed| path.strip_prefix(removed.as_str()));
        if self.removed.contains("") || above.any(|rest| rest.is_empty() || rest.starts_with(['.', '['])) {
            return;
        }
        let (node, exact) = self.tree.find(path);
        let problem = Problem {
            file: self.file.to_owned(),
            line: node.line,
            path: path.to_owned(),
            value: exact.then(|| node.shown()),
            message: message.to_owned(),
            hint: hint.map(str::to_owned),
        };
        let same =
            |held: &Problem| (held.line, &held.message, &held.hint) == (problem.line, &problem.message, &problem.hint);
        if !(exact && node.inherited && self.problems.iter().any(same)) {
            self.problems.push(problem);
        }
    }

    /// Adds what a notation has wrong, without its text if that is a secret.
    pub fn add_wrong(&mut self, path: &str, (message, hint): Wrong) {
        if self.secret(path) {
            self.add(path, "`***` can't be read", None);
        } else {
            self.add(path, &message, hint.as_deref());
        }
    }

    /// Adds that what `path` says isn't built; `what` names it where the value alone wouldn't.
    pub fn unsupported(&mut self, path: &str, what: Option<&str>) {
        let what = what.map_or_else(|| self.shown(path), str::to_owned);
        self.add(path, &format!("`{what}` is not supported yet"), None);
    }

    /// Returns the value at `path` for a message.
    pub fn shown(&self, path: &str) -> String {
        match self.tree.find(path) {
            (node, true) => node.shown(),
            (_, false) => "nothing".to_owned(),
        }
    }

    /// Says whether the value at `path` must not be printed.
    pub fn secret(&self, path: &str) -> bool {
        self.tree.find(path).0.secret
    }

    /// Returns what was found, in the order it was found.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}
