//! Committed versions of a file, asked of `git` itself: it knows every layout of a repository.

use std::path::Path;
use std::process::{Command, Output};

use super::earlier::Earlier;
use crate::error::{Exit, Failure};

/// What files are compared with if nothing is named.
pub(super) const HEAD: &str = "HEAD";

/// How many letters of a commit's id are shown.
const ID_SHOWN: usize = 10;

/// Returns the versions of a file that are committed where `reference` points to, newest first.
///
/// - `all`: those of all commits that led there too; a file that was renamed has only those of its name.
///
/// # Errors
/// Exit code 2 if there is no git, no repository, no such commit, or its history isn't all there.
pub(super) fn versions(file: &Path, reference: &str, all: bool) -> Result<Vec<Earlier>, Failure> {
    let named = format!("`{}`", file.display());
    let directory = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let Some(name) = file.file_name().and_then(|name| name.to_str()) else {
        return Err(Failure::new(Exit::Config, format!("{named} has no name in UTF-8")));
    };
    let git = |arguments: &[&str]| ask(directory, arguments);
    let inside = git(&["rev-parse", "--is-inside-work-tree"])?;
    if !inside.status.success() {
        // Git's own words: it also says so of a repository that belongs to somebody else.
        let told = String::from_utf8_lossy(&inside.stderr);
        return Err(Failure::new(Exit::Config, format!("{named} isn't in a git repository"))
            .detail(told.trim())
            .hint("name a schema registry with `--registry URL`, or run it where the repository is checked out"));
    }
    let resolved = |reference: &str| {
        let output = git(&["rev-parse", "--verify", "--quiet", &format!("{reference}^{{commit}}")])?;
        Ok::<_, Failure>(text(&output))
    };
    // What begins with a dash would be an option.
    let commit = match reference.starts_with('-') {
        true => None,
        false => resolved(reference)?,
    };
    let Some(commit) = commit else {
        // A repository without a commit: all is new.
        if reference == HEAD {
            return Ok(Vec::new());
        }
        let what = format!("the git repository has no commit `{reference}`");
        return Err(Failure::new(Exit::Config, what)
            .detail(format!("{named} is to be compared with what it has there"))
            .hint("fetch it: `git fetch origin`, in GitHub Actions `fetch-depth: 0`; there branches are called `origin/…`"));
    };
    let commits = match all {
        false => vec![commit],
        true => {
            if text(&git(&["rev-parse", "--is-shallow-repository"])?).as_deref() == Some("true") {
                return Err(Failure::new(Exit::Config, "the git repository's history is cut off")
                    .detail(format!("{named} is to be compared with all its versions"))
                    .hint("fetch the rest: `git fetch --unshallow`; in GitHub Actions `fetch-depth: 0`"));
            }
            let log = git(&["log", "--full-history", "--format=%H", &commit, "--", name])?;
            if !log.status.success() {
                return Err(failed(&named, &log));
            }
            String::from_utf8_lossy(&log.stdout)
                .lines()
                .map(str::to_owned)
                .collect()
        }
    };
    let mut versions: Vec<Earlier> = Vec::new();
    for commit in commits {
        let object = format!("{commit}:./{name}");
        // A commit that took the file away has none.
        if !git(&["cat-file", "-e", &object])?.status.success() {
            continue;
        }
        let shown = git(&["cat-file", "blob", &object])?;
        if !shown.status.success() {
            return Err(failed(&named, &shown));
        }
        let version = Earlier {
            name: format!("commit {}", &commit[..commit.len().min(ID_SHOWN)]),
            text: String::from_utf8_lossy(&shown.stdout).into_owned(),
            registered: None,
        };
        if versions.iter().all(|known| known.text != version.text) {
            versions.push(version);
        }
    }
    Ok(versions)
}

fn ask(directory: &Path, arguments: &[&str]) -> Result<Output, Failure> {
    let mut command = Command::new("git");
    // Filters of the checkout are none of a schema's: `cat-file` shows what was committed.
    command.arg("-C").arg(directory).args(arguments).env("LC_ALL", "C");
    command.output().map_err(|error| {
        Failure::new(Exit::Config, "`git` can't be run")
            .detail(error.to_string())
            .hint("install git, or name a schema registry with `--registry URL`")
    })
}

fn failed(named: &str, output: &Output) -> Failure {
    let told = String::from_utf8_lossy(&output.stderr);
    Failure::new(
        Exit::Config,
        format!("git doesn't show the earlier versions of {named}"),
    )
    .detail(told.trim())
}

fn text(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
