//! What came of a check, as people and programs read it.

use std::path::Path;

use serde::Serialize;

use crate::cli::output::{OutputFormat, complain, counted, say, say_json};
use crate::error::{Exit, Failure};
use crate::schema::compatibility::{Broken, Mode};

/// What `aperio schema check --output json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    exit_code: u8,
    files: Vec<FileReport>,
}

/// What came of one file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FileReport {
    file: String,
    ok: bool,
    /// The exit code that it alone would give.
    exit_code: u8,
    /// How many columns of a table it makes, inner ones not counted; absent if it isn't a schema.
    pub columns: Option<usize>,
    pub comparisons: Vec<Comparison>,
    /// What couldn't be done, as the user meets it: what, detail, hint.
    errors: Vec<String>,
}

/// What came of comparing a file with its earlier versions of one place.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Comparison {
    /// `git` or `registry`.
    kind: &'static str,
    /// The commit as it was named, or the subject.
    with: String,
    /// What was asked for: `backward`.
    mode: &'static str,
    verdict: Verdict,
    /// The registry's own level, as it calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The versions that it was compared with, newest first.
    pub versions: Vec<String>,
    /// By our own rules.
    pub findings: Vec<Finding>,
    /// By the registry's, in its words.
    #[serde(rename = "registryMessages")]
    pub said: Vec<String>,
    /// Why the registry didn't say anything, where it was asked.
    #[serde(rename = "registryFailed", skip_serializing_if = "Option::is_none")]
    pub silent: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Verdict {
    Compatible,
    Incompatible,
    /// There is no earlier version.
    New,
}

/// One reason.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Finding {
    version: String,
    direction: &'static str,
    path: String,
    rule: &'static str,
    /// What the file has there.
    new: String,
    /// What the version has there.
    old: String,
    hint: &'static str,
}

impl Finding {
    pub fn of(broken: &Broken, version: &str) -> Finding {
        Finding {
            version: version.to_owned(),
            direction: broken.direction.name(),
            path: broken.misfit.path.clone(),
            rule: broken.misfit.rule.name(),
            new: broken.new_side().to_owned(),
            old: broken.old_side().to_owned(),
            hint: broken.misfit.rule.advice(broken.direction),
        }
    }
}

impl Comparison {
    pub fn with(kind: &'static str, with: &str, mode: Mode) -> Comparison {
        Comparison {
            kind,
            with: with.to_owned(),
            mode: mode.name(),
            verdict: Verdict::New,
            level: None,
            versions: Vec::new(),
            findings: Vec::new(),
            said: Vec::new(),
            silent: None,
        }
    }

    fn judged(&mut self) {
        self.verdict = match (
            self.versions.is_empty(),
            self.findings.is_empty() && self.said.is_empty(),
        ) {
            (true, _) => Verdict::New,
            (false, true) => Verdict::Compatible,
            (false, false) => Verdict::Incompatible,
        };
    }

    /// What the file was compared with.
    fn partner(&self) -> String {
        let versions = match self.versions.as_slice() {
            [] => String::new(),
            [one] => format!("{one} of "),
            [newest, .., oldest] => format!("{} versions, {newest} to {oldest}, of ", self.versions.len()),
        };
        let place = match self.kind {
            "registry" => format!("subject `{}`", self.with),
            _ => format!("`{}`", self.with),
        };
        format!("{versions}{place}")
    }

    fn text(&self, columns: Option<usize>) -> String {
        let columns = columns
            .map(|count| format!("; {}", counted(count as u64, "column")))
            .unwrap_or_default();
        let (mode, partner) = (self.mode, self.partner());
        // Whoever relies on the registry's level must see that it isn't what was checked.
        let level = self.level.as_deref().filter(|level| !level.eq_ignore_ascii_case(mode));
        let level = level
            .map(|level| format!(" (the registry asks for {level})"))
            .unwrap_or_default();
        match self.verdict {
            Verdict::New => format!("new, {partner} has no version of it{columns}"),
            Verdict::Compatible if self.mode == Mode::None.name() => format!("not compared with {partner}{columns}"),
            Verdict::Compatible => format!("compatible, {mode}{level}, with {partner}{columns}"),
            Verdict::Incompatible => format!("INCOMPATIBLE, {mode}{level}, with {partner}"),
        }
    }

    fn reasons(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for finding in &self.findings {
            let Finding {
                version,
                path,
                new,
                old,
                hint,
                ..
            } = finding;
            let reads = match finding.direction {
                "forward" => "readers with the old schema can't read that",
                _ => "the file can't read that",
            };
            lines.push(format!("  {path}: {new} in the file, {old} in {version}: {reads}"));
            lines.push(format!("    hint: {hint}"));
        }
        let said = self.said.iter().map(|said| format!("  the registry says: {said}"));
        lines.extend(said);
        let silent = self.silent.as_ref();
        lines.extend(silent.map(|why| format!("  the registry itself can't say, {why}; aperio's rules alone decided")));
        lines
    }
}

impl FileReport {
    pub fn of(path: &Path) -> FileReport {
        FileReport {
            file: path.display().to_string(),
            ok: true,
            exit_code: Exit::Done as u8,
            columns: None,
            comparisons: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Adds what couldn't be done.
    pub fn failed(mut self, failure: Failure) -> FileReport {
        self.worse(failure.exit);
        self.errors.push(failure.to_string());
        self
    }

    /// Judges what was compared.
    pub fn finished(mut self) -> FileReport {
        self.comparisons.iter_mut().for_each(Comparison::judged);
        let incompatible = |comparison: &Comparison| comparison.verdict == Verdict::Incompatible;
        if self.comparisons.iter().any(incompatible) {
            self.worse(Exit::Data);
        }
        self
    }

    /// The smallest code but 0 counts, as everywhere.
    fn worse(&mut self, exit: Exit) {
        let code = exit as u8;
        self.exit_code = if self.ok { code } else { self.exit_code.min(code) };
        self.ok = false;
    }

    fn text(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for comparison in &self.comparisons {
            lines.push(format!("{}: {}", self.file, comparison.text(self.columns)));
            lines.extend(comparison.reasons());
        }
        if !self.errors.is_empty() {
            lines.push(format!("{}: FAILED, see below", self.file));
        }
        lines
    }
}

/// Prints what came of all files; returns the exit code.
pub(super) fn tell(files: Vec<FileReport>, output: OutputFormat) -> u8 {
    let codes = files.iter().map(|file| file.exit_code);
    let exit_code = codes
        .filter(|code| *code != Exit::Done as u8)
        .min()
        .unwrap_or(Exit::Done as u8);
    match output {
        OutputFormat::Json => say_json(&Report { exit_code, files }),
        OutputFormat::Text => {
            for file in &files {
                file.text().iter().for_each(|line| say(line));
                file.errors.iter().for_each(|error| complain(error));
            }
        }
    }
    exit_code
}
