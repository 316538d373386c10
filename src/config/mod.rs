//! The pipeline file: as written ([`json_schema`]) and as run ([`Pipeline`]).
//!
//! [`load`] reads YAML into a tree that knows its lines, fills in `${…}`, checks the tree against the file's own JSON
//! Schema, merges `defaults`, and resolves what is left. Every problem of every file is reported at once.

mod choices;
#[expect(
    dead_code,
    reason = "the file has keys that are read for their spelling only: fixed choices, other modes' keys"
)]
mod file;
mod formats;
mod kafka_keys;
mod names;
mod pipeline;
mod problem;
mod registry;
mod report;
mod resolve;
mod secret;
mod source;
mod tree;
pub mod types;
mod walk;

#[cfg(test)]
mod refusals;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use file::json_schema;
pub use pipeline::{
    Apply, CatalogConfig, CatalogKind, Column, Envelope, EnvelopeKind, Errors, EventTime, EventTimeFormat, Evolution,
    IncompatibleSchema, KafkaColumn, KafkaSource, KeyFormat, Materialize, MaxRejected, MissingSchema, OnDecodeError,
    PartitionField, Pipeline, RegistryAuth, RegistryConfig, StartOffset, SubjectNaming, TableFormat, ValueFormat,
};
pub use problem::Problem;
pub use secret::Secret;
pub(crate) use secret::named_like_secret;

use report::Report;
use tree::Surroundings;

/// Reads pipeline files, or every `*.yaml` and `*.yml` directly inside a directory, in the order of their names.
///
/// Touches no network; reads the environment and the files that `${…}` names.
///
/// # Errors
/// Everything that is wrong, by file and line; never empty.
pub fn load(paths: &[PathBuf]) -> Result<Vec<Pipeline>, Vec<Problem>> {
    load_with(paths, &|name| std::env::var(name).ok())
}

/// Reads where a registry is, and who we are to it, from a command line; `${…}` is filled in as in a pipeline file.
///
/// - `url`: as `schemaRegistry` takes it, several separated by commas.
/// - `keys`: the other keys of `schemaRegistry` that are about access, `username` to `key`; relative paths start where we are.
///
/// # Errors
/// What is wrong with them, without a secret; never empty. Paths begin with `schemaRegistry`.
pub fn registry_access(url: &str, keys: &[(String, String)]) -> Result<RegistryConfig, Vec<Problem>> {
    registry::access(url, keys, &|name| std::env::var(name).ok())
}

/// Reads the text of a pipeline file that isn't one yet.
///
/// - `name`: what messages call it; relative paths in it begin where this lies.
///
/// # Errors
/// Those of [`load`].
pub fn parse(name: &Path, text: &str) -> Result<Vec<Pipeline>, Vec<Problem>> {
    let mut problems = Vec::new();
    let origins = read(name, text, &|name| std::env::var(name).ok(), &mut problems);
    checked(origins, problems)
}

fn load_with(paths: &[PathBuf], variable: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Pipeline>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut origins = Vec::new();
    for file in files(paths, &mut problems) {
        match std::fs::read_to_string(&file) {
            Ok(text) => origins.extend(read(&file, &text, variable, &mut problems)),
            Err(error) => problems.push(whole_file(&file, format!("can't be read: {error}"))),
        }
    }
    checked(origins, problems)
}

fn checked(origins: Vec<Origin>, mut problems: Vec<Problem>) -> Result<Vec<Pipeline>, Vec<Problem>> {
    check_together(&origins, &mut problems);
    problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    if problems.is_empty() {
        Ok(origins.into_iter().map(|origin| origin.pipeline).collect())
    } else {
        Err(problems)
    }
}

/// A pipeline and where it was written.
struct Origin {
    file: PathBuf,
    path: String,
    name_line: usize,
    topic_line: usize,
    /// The table's name for a message.
    name_shown: String,
    pipeline: Pipeline,
}

fn files(paths: &[PathBuf], problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        let mut found = vec![path.clone()];
        if path.is_dir() {
            found = std::fs::read_dir(path)
                .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
                .unwrap_or_default();
            found.retain(|file| {
                file.is_file()
                    && file
                        .extension()
                        .is_some_and(|ending| ending == "yaml" || ending == "yml")
            });
            found.sort();
            if found.is_empty() {
                problems.push(whole_file(path, "holds no `*.yaml` or `*.yml` file".to_owned()));
            }
        }
        for file in found {
            // A file that is named twice, or also lies in a directory that is named, is one file.
            if !files.iter().any(|held| held == &file || same_file(held, &file)) {
                files.push(file);
            }
        }
    }
    files
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn read(
    file: &Path,
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
) -> Vec<Origin> {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let directory = absolute.parent().unwrap_or(Path::new("/"));
    let around = Surroundings { variable, directory };
    let Some(mut root) = tree::parse(file, text, &around, problems) else {
        return vec![];
    };
    let removed = walk::check(file, &mut root, &json_schema(), problems);
    tree::merge_defaults(&mut root);
    let written = match serde_json::from_value(root.to_json()) {
        Ok(written) => written,
        Err(error) => {
            // serde's own text may quote a secret; its category doesn't.
            problems.push(whole_file(
                file,
                format!("doesn't fit the types it was checked for ({:?})", error.classify()),
            ));
            return vec![];
        }
    };
    let mut report = Report::new(file, &root, removed);
    let pipelines = resolve::resolve(written, directory, &mut report);
    problems.extend(report.into_problems());
    let origin = |(index, pipeline): (usize, Pipeline)| {
        let path = format!("partitionedTables[{index}]");
        let (name, _) = root.find(&format!("{path}.name"));
        let (topic, _) = root.find(&format!("{path}.source.topic"));
        Origin {
            file: file.to_owned(),
            name_line: name.line,
            topic_line: topic.line,
            name_shown: name.shown(),
            path,
            pipeline,
        }
    };
    pipelines.into_iter().enumerate().map(origin).collect()
}

/// Finds what is right in each table and wrong in two of them together.
fn check_together(origins: &[Origin], problems: &mut Vec<Problem>) {
    let mut tables = BTreeMap::new();
    let mut groups = BTreeMap::new();
    for origin in origins {
        let Pipeline {
            name,
            schema,
            source,
            catalog,
            ..
        } = &origin.pipeline;
        let named = !name.is_empty();
        if let Some(first) = tables
            .insert((&catalog.uri, &catalog.warehouse, schema, name), origin)
            .filter(|_| named)
        {
            let message = format!("the table `{}` is declared twice", origin.name_shown);
            let hint = format!("the other is {}:{}", first.file.display(), first.name_line);
            problems.push(origin.problem("name", origin.name_line, message, hint));
            continue;
        }
        let mut brokers: Vec<&str> = source.brokers.split(',').map(str::trim).collect();
        brokers.sort_unstable();
        let complete = named && !source.topic.is_empty();
        if let Some(first) = groups
            .insert((brokers, &source.topic, &source.group), origin)
            .filter(|_| complete)
        {
            let message = format!(
                "shares its consumer group on this topic with the table `{}`",
                first.name_shown
            );
            let hint = format!(
                "give one of them another `consumerGroup`; the other is {}:{}",
                first.file.display(),
                first.topic_line
            );
            problems.push(origin.problem("source.consumerGroup", origin.topic_line, message, hint));
        }
    }
    for origin in origins {
        let Pipeline {
            schema,
            catalog,
            errors,
            ..
        } = &origin.pipeline;
        let OnDecodeError::DeadLetter { table: Some(dead), .. } = &errors.on_decode_error else {
            continue;
        };
        let declared = tables.get(&(&catalog.uri, &catalog.warehouse, schema, dead));
        if let Some(other) = declared.filter(|other| !std::ptr::eq(**other, origin)) {
            let message = "is a table that is declared itself".to_owned();
            let hint = format!(
                "name another table; the other is {}:{}",
                other.file.display(),
                other.name_line
            );
            problems.push(origin.problem("errors.deadLetter.table", origin.name_line, message, hint));
        }
    }
}

impl Origin {
    fn problem(&self, key: &str, line: usize, message: String, hint: String) -> Problem {
        let path = format!("{}.{key}", self.path);
        Problem {
            file: self.file.clone(),
            line,
            path,
            value: None,
            message,
            hint: Some(hint),
        }
    }
}

fn whole_file(file: &Path, message: String) -> Problem {
    Problem {
        file: file.to_owned(),
        line: 0,
        path: String::new(),
        value: None,
        message,
        hint: None,
    }
}
