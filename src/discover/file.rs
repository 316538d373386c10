//! The pipeline file that is printed: what a person would write, each guess with its reason behind it.

use saphyr::{Scalar, Yaml, YamlEmitter};

use super::{Finding, Guess, tables};
use crate::config::named_like_secret;

/// What stands for a secret that was written out on the command line: an environment variable, which is named beside.
pub const UNSHOWN: &str = "it was given in clear, so it isn't printed";

/// The longest remark, in characters.
const REMARK_CHARS_MAX: usize = 240;

/// Which keys a run takes by now; the others are printed as comments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Built {
    /// `envelope`.
    pub envelopes: bool,
    /// `keyFormat`.
    pub key_formats: bool,
}

impl Built {
    /// What this program takes; a test compares it with the configuration.
    pub const NOW: Built = Built {
        envelopes: true,
        key_formats: true,
    };
}

/// How brokers and registry are reached: keys of `source`, with values as the file has them, `${…}` included.
#[derive(Clone, Default)]
pub struct Access {
    /// `brokers`.
    pub brokers: String,
    /// `schemaRegistry`, or `schemaRegistry.url`.
    pub registry: Option<String>,
    /// The other keys of `schemaRegistry`.
    pub registry_keys: Vec<(String, String)>,
    /// `security`.
    pub security: Vec<(String, String)>,
    /// `consumerConfig`.
    pub consumer_config: Vec<(String, String)>,
}

impl Access {
    /// Returns a pipeline file of one table, which only says how brokers and registry are reached. Secrets are in clear.
    pub fn pipeline(&self) -> String {
        let mut lines = vec![
            Line::new(0, "partitionedTables:"),
            Line::new(1, "- name: discover"),
            Line::new(2, "source:"),
        ];
        lines.push(Line::key(3, "topic", "discover"));
        lines.extend(self.lines(3, true, true));
        text(&lines)
    }

    /// The keys of `source`.
    ///
    /// - `clear`: with secrets that were given in clear.
    fn lines(&self, indent: usize, registry: bool, clear: bool) -> Vec<Line> {
        let mut lines = vec![Line::key(indent, "brokers", &self.brokers)];
        if registry {
            lines.extend(self.registry(indent, clear));
        }
        lines.extend(map(indent, "security", &self.security, "KAFKA", clear));
        lines.extend(map(indent, "consumerConfig", &self.consumer_config, "KAFKA", clear));
        lines
    }

    fn registry(&self, indent: usize, clear: bool) -> Vec<Line> {
        let Some(url) = &self.registry else { return Vec::new() };
        if self.registry_keys.is_empty() {
            return vec![Line::key(indent, "schemaRegistry", url)];
        }
        let mut lines = map(indent, "schemaRegistry", &self.registry_keys, "REGISTRY", clear);
        lines.insert(1, Line::key(indent + 1, "url", url));
        lines
    }
}

/// A map of texts under a key; nothing if it is empty.
fn map(indent: usize, name: &str, entries: &[(String, String)], prefix: &str, clear: bool) -> Vec<Line> {
    if entries.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![Line::new(indent, &format!("{name}:"))];
    for (key, value) in entries {
        let hidden = !clear && secret(key) && !value.contains("${");
        let line = match hidden {
            false => Line::key(indent + 1, key, value),
            true => {
                let variable = format!("${{{}}}", variable(prefix, key));
                Line::key(indent + 1, key, &variable).because(UNSHOWN)
            }
        };
        lines.push(line);
    }
    lines
}

/// Says whether the value of a key is one; where nobody knows, it is.
fn secret(key: &str) -> bool {
    // Both can hold `principalClaimName=…` as well as a signed token.
    let opaque = ["sasl.oauthbearer.config", "sasl.oauthbearer.extensions"];
    named_like_secret(key) || opaque.contains(&key)
}

/// The environment variable for a secret: `KAFKA_SASL_PASSWORD` for `saslPassword` and `sasl.password`.
fn variable(prefix: &str, key: &str) -> String {
    let mut name = format!("{prefix}_");
    for c in key.chars() {
        if c.is_ascii_uppercase() && !name.ends_with('_') {
            name.push('_');
        }
        name.push(if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        });
    }
    name
}

/// One line of the file.
#[derive(Debug, Clone)]
struct Line {
    /// In steps of two spaces; lists are one step inside their key, and maps in lists one more.
    indent: usize,
    text: String,
    /// What stands behind it as a comment.
    remark: String,
}

impl Line {
    fn new(indent: usize, text: &str) -> Line {
        Line {
            indent,
            text: text.to_owned(),
            remark: String::new(),
        }
    }

    fn key(indent: usize, key: &str, value: &str) -> Line {
        Line::new(indent, &format!("{}: {}", scalar(key), scalar(value)))
    }

    fn because(mut self, remark: &str) -> Line {
        self.remark = plain(remark);
        self
    }

    /// The same as a comment, which ends with what keeps it from being a line.
    fn commented(self, why: &str) -> Line {
        let remark = match self.remark.is_empty() {
            true => why.to_owned(),
            false => format!("{}; {why}", self.remark),
        };
        Line::new(self.indent, &format!("# {}", self.text)).because(&remark)
    }

    fn remark(indent: usize, remark: &str) -> Line {
        Line::new(indent, &format!("# {}", plain(remark)))
    }
}

fn text(lines: &[Line]) -> String {
    let mut out = String::new();
    for line in lines {
        let remark = match line.remark.is_empty() {
            true => String::new(),
            false => format!(" # {}", line.remark),
        };
        out.push_str(&format!(
            "{:width$}{}{remark}\n",
            "",
            line.text,
            width = 2 * line.indent
        ));
    }
    out
}

/// Returns a text as YAML has it.
fn scalar(text: &str) -> String {
    let write = |quoted: bool| {
        let mut out = String::new();
        let mut emitter = YamlEmitter::new(&mut out);
        emitter.quoted_value(quoted);
        let node = Yaml::Value(Scalar::String(text.into()));
        emitter.dump(&node).expect("a text takes what is written to it");
        out.strip_prefix("---\n").unwrap_or(&out).to_owned()
    };
    // What doesn't begin with a letter may be a number, or a date, to others than the emitter's own reader.
    let wordlike = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.is_ascii();
    write(!wordlike)
}

/// Returns a text that a comment may hold: in one line, and not too long.
fn plain(text: &str) -> String {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}');
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == REMARK_CHARS_MAX {
            out.push('…');
            break;
        }
        if breaks(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Writes the pipeline file.
///
/// - `left_out`: topics that weren't looked at, and why.
pub fn file(access: &Access, findings: &[Finding], left_out: &[(String, &'static str)], built: Built) -> String {
    let names = tables(findings.iter().map(|finding| finding.topic.as_str()));
    let live: Vec<&Finding> = findings.iter().filter(|finding| finding.obstacle.is_none()).collect();
    let registered = live.iter().filter(|finding| finding.registry).count();
    // Of several tables most of which need it: said once, and without effect on the others.
    let registry_shared = registered > 1 && 2 * registered >= live.len();
    let alone = findings.len() == 1;
    let mut lines = vec![
        Line::remark(
            0,
            "Guessed by `aperio discover` from samples: read it through, and change what isn't so. Then:",
        ),
        Line::remark(0, "aperio validate FILE, aperio check FILE, aperio run --once FILE"),
    ];
    if !alone {
        lines.push(Line::new(0, "defaults:"));
        lines.push(Line::new(1, "source:"));
        lines.extend(access.lines(2, registry_shared, false));
    }
    if live.is_empty() {
        lines.push(Line::remark(0, "No topic can be read as it is; the reasons are below."));
        lines.push(Line::new(0, "partitionedTables: []"));
    } else {
        lines.push(Line::new(0, "partitionedTables:"));
    }
    for (finding, name) in findings.iter().zip(&names) {
        let mut reached = Reached::default();
        match alone {
            true => reached.before = access.lines(3, finding.registry, false),
            false if finding.registry && !registry_shared => reached.behind = access.registry(3, false),
            false => {}
        }
        entry(finding, name, reached, built, &mut lines);
    }
    let mut reasons: Vec<&str> = left_out.iter().map(|(_, why)| *why).collect();
    reasons.sort_unstable();
    reasons.dedup();
    for why in reasons {
        let of_it = left_out.iter().filter(|(_, other)| *other == why);
        let of_it: Vec<&str> = of_it.map(|(topic, _)| topic.as_str()).collect();
        lines.push(Line::remark(
            0,
            &format!("Left out, {why}; `--topic NAME` takes it: {}", of_it.join(", ")),
        ));
    }
    text(&lines)
}

/// What an entry says of brokers and registry itself, before its topic and behind its format.
#[derive(Default)]
struct Reached {
    before: Vec<Line>,
    behind: Vec<Line>,
}

/// Writes a table; as a comment where there is an obstacle.
fn entry(finding: &Finding, name: &str, reached: Reached, built: Built, into: &mut Vec<Line>) {
    let about = format!(
        "{}: {}, {}, {} looked at",
        finding.topic,
        counted(finding.partitions as u64, "partition"),
        counted(finding.records, "record"),
        finding.samples
    );
    into.push(Line::remark(1, &about));
    if let Some(why) = &finding.obstacle {
        into.push(Line::remark(1, &format!("no table of it yet: {why}")));
    }
    for remark in &finding.remarks {
        into.push(Line::remark(1, remark));
    }
    let mut lines = vec![
        Line::new(1, &format!("- name: {}", scalar(name))),
        Line::new(2, "source:"),
    ];
    lines.extend(reached.before);
    lines.push(Line::key(3, "topic", &finding.topic));
    lines.push(Line::key(3, "format", &finding.format.value).because(&finding.format.reason));
    lines.extend(reached.behind);
    if finding.obstacle.is_some() {
        let schema = Line::key(3, "schemaFile", &format!("schemas/{name}.avsc"));
        lines.extend((finding.format.value == "avro").then_some(schema));
    }
    lines.extend(
        finding
            .envelope
            .iter()
            .map(|guess| maybe("envelope", guess, built.envelopes)),
    );
    lines.extend(
        finding
            .key_format
            .iter()
            .map(|guess| maybe("keyFormat", guess, built.key_formats)),
    );
    if let Some(field) = &finding.key_field {
        let reason = format!("{}; this would keep the newest row of each key", field.reason);
        lines.push(
            Line::key(3, "mode", "ktable")
                .because(&reason)
                .commented("not supported yet"),
        );
        lines.push(Line::new(3, &format!("# keyField: {}", scalar(&field.value))));
    }
    if let Some(field) = &finding.event_time_field {
        lines.push(Line::key(3, "eventTimeField", &field.value).because(&field.reason));
    }
    if let Some(format) = &finding.event_time_format {
        lines.push(Line::key(3, "eventTimeFormat", format));
    }
    if let Some(partition) = &finding.partition {
        lines.push(Line::new(2, "materialize:"));
        let text = format!("partition: {}", partition.value);
        lines.push(Line::new(3, &text).because(&partition.reason));
    }
    if !finding.errors.is_empty() {
        lines.push(Line::new(2, "errors:"));
        for (key, guess) in &finding.errors {
            // Our own words, which need no quotes.
            lines.push(Line::new(3, &format!("{key}: {}", guess.value)).because(&guess.reason));
        }
    }
    if finding.obstacle.is_some() {
        for line in &mut lines {
            *line = Line {
                indent: 1,
                text: format!("# {:width$}{}", "", line.text, width = 2 * (line.indent - 1)),
                remark: std::mem::take(&mut line.remark),
            };
        }
    }
    into.extend(lines);
}

/// A key that isn't built yet is a comment.
fn maybe(key: &str, guess: &Guess, built: bool) -> Line {
    let line = Line::key(3, key, &guess.value).because(&guess.reason);
    if built {
        line
    } else {
        line.commented("not supported yet")
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
