//! Names and paths as they are written: what they may hold, and where relative ones lead.

use std::collections::BTreeMap;
use std::path::Path;

use super::file::Scalar;
use super::report::Report;

/// Returns the value of a key that has no default.
pub(super) fn required(value: Option<String>, at: &str, key: &str, report: &mut Report<'_>) -> String {
    let path = format!("{at}.{key}");
    match &value {
        None => report.add(&path, &format!("`{key}` is required"), None),
        Some(text) if text.trim().is_empty() => report.add(&path, &format!("`{key}` is empty"), None),
        Some(_) => {}
    }
    value.unwrap_or_default()
}

/// Names become directories and catalog entries, so they hold nothing that means something there.
pub(super) fn check_name(name: &str, path: &str, report: &mut Report<'_>) {
    if name.contains(['/', '\\', '`', '"']) || name.contains(char::is_control) || name.contains(char::is_whitespace) {
        report.add(
            path,
            &format!(
                "`{}` has a character that a table can't be named with",
                report.shown(path)
            ),
            Some("use letters, digits, `_`, `-` and `.`"),
        );
    } else if name.split('.').any(str::is_empty) && !name.is_empty() {
        report.add(path, &format!("`{}` has an empty part", report.shown(path)), None);
    }
}

/// Source: Apache Kafka 3.9, `org.apache.kafka.common.internals.Topic`: at most 249 of `[a-zA-Z0-9._-]`.
pub(super) fn check_topic(topic: &str, path: &str, report: &mut Report<'_>) {
    const LENGTH_MAX: usize = 249;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.starts_with('^') {
        report.add(
            path,
            "is a pattern; one table reads one topic",
            Some("write one table per topic"),
        );
    } else if topic.len() > LENGTH_MAX || !topic.chars().all(legal) {
        report.add(
            path,
            &format!("`{}` can't be a topic's name", report.shown(path)),
            Some("topics have up to 249 letters, digits, `.`, `_` and `-`"),
        );
    }
}

/// Splits a dotted path.
pub(super) fn dotted(text: &str, path: &str, report: &mut Report<'_>) -> Vec<String> {
    if text.split('.').any(str::is_empty) {
        report.add(
            path,
            &format!("`{}` has an empty step", report.shown(path)),
            Some("write it like `payload.created_at`"),
        );
    }
    text.split('.').map(str::to_owned).collect()
}

/// Returns properties as librdkafka and Iceberg take them.
pub(super) fn texts(map: Option<BTreeMap<String, Scalar>>) -> BTreeMap<String, String> {
    map.unwrap_or_default()
        .into_iter()
        .map(|(key, value)| (key, value.into_text()))
        .collect()
}

/// Says whether a warehouse is a path or URI rather than the name a REST catalog knows.
pub(super) fn looks_like_path(text: &str) -> bool {
    text.contains("://") || text.starts_with(['/', '.'])
}

/// Makes a path absolute, from the YAML file's directory; a URI stays as it is.
pub(super) fn absolute(text: &str, directory: &Path) -> String {
    if text.contains("://") {
        return text.to_owned();
    }
    let mut path = directory.to_path_buf();
    for part in Path::new(text).components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                path.pop();
            }
            other => path.push(other),
        }
    }
    path.to_string_lossy().into_owned()
}

/// Makes the path in a `sqlite:` address absolute, its query kept.
pub(super) fn absolute_sqlite(uri: &str, directory: &Path) -> String {
    let rest = uri.trim_start_matches("sqlite:");
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (rest, String::new()),
    };
    if path.is_empty() || path == ":memory:" {
        return uri.to_owned();
    }
    format!("sqlite://{}{query}", absolute(path, directory))
}
