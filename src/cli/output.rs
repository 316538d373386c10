//! Text on standard output and standard error, which may be gone before we are.

use std::io::{self, Write};

use serde::Serialize;

/// How a command answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON document on standard output.
    Json,
}

/// Prints `text` and a line's end to standard output. A reader that has closed the pipe has seen enough: no error.
pub(super) fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints `text` and a line's end to standard error.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints a document to standard output.
pub(super) fn say_json(document: &impl Serialize) {
    say(&serde_json::to_string_pretty(document).expect("our documents are maps with text keys, which always serialise"));
}

/// Rows of text in columns that line up.
#[derive(Debug)]
pub(super) struct Columns {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Columns {
    /// Starts with the titles; a title that begins with `>` makes its column flush right.
    pub fn new(titles: &[&str]) -> Self {
        Columns {
            rows: vec![
                titles
                    .iter()
                    .map(|title| title.trim_start_matches('>').to_owned())
                    .collect(),
            ],
            right: titles.iter().map(|title| title.starts_with('>')).collect(),
        }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// If it has not as many cells as there are titles.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.right.len(), "a row has a cell for each title");
        self.rows.push(cells);
    }

    /// Returns the lines, each indented by `indent` spaces, without a line's end after the last.
    pub fn text(&self, indent: usize) -> String {
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.right.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).zip(&self.right);
            let cells = cells.map(|((cell, width), right)| match right {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            });
            format!("{:indent$}{}", "", cells.collect::<Vec<_>>().join("  "))
                .trim_end()
                .to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Returns a count with its thousands apart: `1,234,567`.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a count and what is counted: `1 row`, `2 rows`.
pub(super) fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// Returns a time in UTC, to the second.
pub(super) fn moment(millis: i64) -> String {
    match chrono::DateTime::from_timestamp_millis(millis) {
        Some(time) => time.format("%Y-%m-%d %H:%M:%SZ").to_string(),
        None => format!("{millis} ms"),
    }
}

/// Returns a time as ISO 8601, for JSON.
pub(super) fn moment_iso(millis: i64) -> Option<String> {
    chrono::DateTime::from_timestamp_millis(millis)
        .map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let mut columns = Columns::new(&["name", ">rows", "note"]);
        columns.row(vec!["a".into(), "1".into(), String::new()]);
        columns.row(vec!["long name".into(), "12,000".into(), "new".into()]);
        insta::assert_snapshot!(columns.text(2), @r"
          name         rows  note
          a               1
          long name  12,000  new
        ");
    }

    #[test]
    fn thousands_stand_apart() {
        for (count, expect) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(count), expect);
        }
    }
}
