//! `aperio schema check`: whether schema files may follow their earlier versions.

mod report;

use std::path::{Path, PathBuf};

use super::earlier::{self, Earlier, Said};
use super::git;
use crate::cli::output::OutputFormat;
use crate::cli::{Refused, block_on};
use crate::config::{self, Problem};
use crate::error::{Exit, Failure};
use crate::registry::{RefersTo, Registry};
use crate::schema::compatibility::{Comparable, Mode};
use crate::schema::{Reference, SchemaLanguage, SchemaText, WriterSchema};
use report::{Comparison, FileReport, Finding};

/// The arguments of `aperio schema check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 all are compatible, or new; 2 a file or the command line is wrong; 3 a schema is \
incompatible; 4 the registry is down."
)]
pub(crate) struct SchemaCheckArgs {
    /// Files `<domain>/<topic>.avsc`, `.proto` or `.json` (JSON Schema)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Compare with the versions registered as `<topic>-value`; several addresses of one registry separated by commas
    ///
    /// A user may be in it, and what `${NAME}` stands for: 'https://ci:${REGISTRY_PASSWORD}@registry:8081'.
    #[arg(long, value_name = "URL")]
    registry: Option<String>,
    /// How to get into the registry: username, password, token, ca, cert or key, as in `schemaRegistry` of a pipeline file
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair, requires = "registry")]
    registry_config: Vec<(String, String)>,
    /// The subject of the one file, if it isn't `<topic>-value`
    #[arg(long, requires = "registry")]
    subject: Option<String>,
    /// Compare with the versions committed there, such as origin/main; HEAD if there is no --registry either
    #[arg(long, value_name = "GIT_REF")]
    against: Option<String>,
    /// What versions must be to one another: none, backward, forward, full, backward_transitive, forward_transitive or
    /// full_transitive; else what the registry asks of the subject, and backward
    #[arg(long, value_name = "MODE", value_parser = mode)]
    compatibility: Option<Mode>,
    /// For people, or one JSON document
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn mode(text: &str) -> Result<Mode, String> {
    Mode::named(&text.replace('-', "_")).ok_or_else(|| {
        let names: Vec<_> = Mode::ALL.iter().map(|mode| mode.name()).collect();
        format!("it is one of {}", names.join(", "))
    })
}

pub(super) fn run(args: SchemaCheckArgs) -> Result<u8, Refused> {
    if args.subject.is_some() && args.files.len() > 1 {
        let what = format!("`--subject` names one subject, for {} files", args.files.len());
        return Err(Failure::new(Exit::Config, what).hint("check that file alone").into());
    }
    let registry = match &args.registry {
        Some(url) => Some(open(url, &args.registry_config)?),
        None => None,
    };
    let check = Check {
        against: match (&args.against, &registry) {
            (None, None) => Some(git::HEAD.to_owned()),
            (against, _) => against.clone(),
        },
        registry,
        subject: args.subject,
        mode: args.compatibility,
    };
    let reports = block_on(async {
        let mut reports = Vec::new();
        let mut down = None;
        for file in &args.files {
            reports.push(check.file(file, &mut down).await);
        }
        reports
    })?;
    Ok(report::tell(reports, args.output))
}

/// Sets up the registry's client; nothing is contacted yet.
fn open(url: &str, keys: &[(String, String)]) -> Result<Registry, Refused> {
    let config = config::registry_access(url, keys).map_err(|problems| {
        let told: Vec<_> = problems.iter().map(told).collect();
        Failure::new(Exit::Config, "the schema registry's access isn't right").detail(told.join("; "))
    })?;
    Registry::new(&config, earlier::ANSWER_WAIT).map_err(|error| earlier::failure(&error).into())
}

/// Tells a problem by the option that it is about.
fn told(problem: &Problem) -> String {
    let key = problem.path.strip_prefix("schemaRegistry.").filter(|key| *key != "url");
    let option = match key {
        Some(key) => format!("`--registry-config {key}`"),
        None => "`--registry`".to_owned(),
    };
    let hint = problem
        .hint
        .as_ref()
        .map(|hint| format!(" ({hint})"))
        .unwrap_or_default();
    format!("{option} {}{hint}", problem.message)
}

/// What all files are checked by.
struct Check {
    registry: Option<Registry>,
    against: Option<String>,
    subject: Option<String>,
    mode: Option<Mode>,
}

impl Check {
    /// Checks one file.
    ///
    /// - `down`: how the registry failed; it isn't asked again then, so that many files don't wait one after the other.
    async fn file(&self, path: &Path, down: &mut Option<Failure>) -> FileReport {
        let mut report = FileReport::of(path);
        let own = match read(path) {
            Ok(own) => own,
            Err(failure) => return report.failed(failure),
        };
        // The versions that are registered also say what the file's names stand for.
        let mut registered = None;
        if let Some(registry) = &self.registry {
            let name = self.subject.clone().unwrap_or_else(|| format!("{}-value", topic(path)));
            let asked = match down.clone() {
                Some(failure) => Err(failure),
                None => earlier::subject(registry, &name, self.mode).await,
            };
            match asked {
                Ok(subject) => registered = Some((registry, name, subject)),
                Err(failure) => {
                    if failure.exit == Exit::Remote {
                        *down = Some(failure.clone());
                    }
                    report = report.failed(failure);
                }
            }
        }
        let newest = registered
            .as_ref()
            .and_then(|(_, _, subject)| subject.versions.first()?.registered.as_ref());
        let (references, refers_to) = match newest {
            Some(newest) => (newest.schema.references.clone(), newest.refers_to.clone()),
            None => (Vec::new(), Vec::new()),
        };
        let file = match File::understood(path, SchemaText { references, ..own }) {
            Ok(file) => file,
            Err(failure) => return report.failed(failure),
        };
        report.columns = Some(file.columns);
        if let Some((registry, name, subject)) = registered {
            match self.registered(&file, registry, &name, subject, &refers_to).await {
                Ok(comparison) => report.comparisons.push(comparison),
                Err(failure) => report = report.failed(failure),
            }
        }
        if let Some(reference) = &self.against {
            match self.committed(path, &file, reference) {
                Ok(comparison) => report.comparisons.push(comparison),
                Err(failure) => report = report.failed(failure),
            }
        }
        report.finished()
    }

    async fn registered(
        &self,
        file: &File,
        registry: &Registry,
        name: &str,
        subject: earlier::Subject,
        refers_to: &[RefersTo],
    ) -> Result<Comparison, Failure> {
        // Who asks for a check wants one; a registry that asks for nothing, or for something new, doesn't say which.
        let asked = subject.level.as_deref().and_then(Mode::named);
        let asked = asked.filter(|level| *level != Mode::None);
        let mode = self.mode.or(asked).unwrap_or(Mode::Backward);
        let mut comparison = Comparison::with("registry", name, mode);
        comparison.level = subject.level;
        comparison.findings = compared(file, &subject.versions, mode)?;
        comparison.versions = names(&subject.versions);
        if self.mode.is_none() {
            for version in subject
                .versions
                .iter()
                .filter_map(|version| version.registered.as_ref())
            {
                match earlier::verdict(registry, name, version, &file.text, refers_to).await? {
                    Said::Reasons(reasons) => comparison.said.extend(reasons),
                    Said::Nothing(why) => comparison.silent = Some(why),
                }
            }
            comparison.said.dedup();
        }
        Ok(comparison)
    }

    fn committed(&self, path: &Path, file: &File, reference: &str) -> Result<Comparison, Failure> {
        let mode = self.mode.unwrap_or(Mode::Backward);
        let versions = git::versions(path, reference, mode.transitive())?;
        let mut comparison = Comparison::with("git", reference, mode);
        comparison.findings = compared(file, &versions, mode)?;
        comparison.versions = names(&versions);
        Ok(comparison)
    }
}

fn names(versions: &[Earlier]) -> Vec<String> {
    versions.iter().map(|version| version.name.clone()).collect()
}

/// A file that is a schema.
struct File {
    text: SchemaText,
    schema: Comparable,
    columns: usize,
}

impl File {
    fn understood(path: &Path, text: SchemaText) -> Result<File, Failure> {
        let refused = |why: String| {
            let unknown = [
                "isn't defined before it is used",
                "not found",
                "neither in it nor among its references",
            ];
            let failure = Failure::new(
                Exit::Config,
                format!("`{}` isn't a schema that can be used", path.display()),
            );
            match unknown.iter().any(|unknown| why.contains(unknown)) {
                true => failure.detail(why).hint(
                    "other files aren't read: define all names in the file, or name the registry, whose newest version says what it refers to",
                ),
                false => failure.detail(why),
            }
        };
        let schema = Comparable::parse(&text).map_err(refused)?;
        let faults = schema.faults();
        if !faults.is_empty() {
            return Err(refused(faults.join("; ")));
        }
        let columns = WriterSchema::parse_named(&text, None)
            .and_then(|schema| schema.columns(true))
            .map_err(refused)?;
        Ok(File {
            text,
            schema,
            columns: columns.len(),
        })
    }
}

/// Compares a file with versions; one with the file's own text is left out.
fn compared(file: &File, versions: &[Earlier], mode: Mode) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for version in versions {
        let (language, references) = match &version.registered {
            Some(registered) => (registered.schema.language, registered.schema.references.clone()),
            None => (file.text.language, file.text.references.clone()),
        };
        let text = SchemaText {
            language,
            text: version.text.clone(),
            references,
        };
        if text == file.text || mode == Mode::None {
            continue;
        }
        let broken = Comparable::parse(&text).and_then(|older| file.schema.broken(&older, mode));
        let broken = broken.map_err(|why| {
            Failure::new(Exit::Data, format!("{} can't be compared with the file", version.name)).detail(why)
        })?;
        findings.extend(broken.iter().map(|broken| Finding::of(broken, &version.name)));
    }
    Ok(findings)
}

/// Reads a file.
fn read(path: &Path) -> Result<SchemaText, Failure> {
    let shown = path.display();
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let language = match ending {
        "avsc" => SchemaLanguage::Avro,
        "proto" => SchemaLanguage::Protobuf,
        "json" => SchemaLanguage::Json,
        _ => {
            return Err(
                Failure::new(Exit::Config, format!("`{shown}` doesn't say what it is written in"))
                    .hint("name files that end in `.avsc`, `.proto` or `.json`, such as schemas/*/*.avsc"),
            );
        }
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(Exit::Config, format!("`{shown}` can't be read")).detail(error.to_string()))?;
    Ok(SchemaText {
        language,
        text,
        references: Vec::<Reference>::new(),
    })
}

/// The topic of a file: its name without the ending, whatever other dots are in it.
fn topic(path: &Path) -> String {
    path.file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default()
}
