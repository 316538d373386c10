//! What is wrong with a pipeline file, told to the one who wrote it.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// One thing that has to be changed in a pipeline file.
///
/// Never holds a secret: what came from the environment or a file is shown as `***`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file as it was named on the command line, or found in the directory named there.
    pub file: PathBuf,
    /// The line, from 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// The YAML path, like `partitionedTables[0].source.batchSize`; empty for the file as a whole.
    pub path: String,
    /// The value as written, where one value is at fault.
    pub value: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

/// Returns the candidate that `written` most likely meant, if one is near.
///
/// Case, `_`, `-` and `.` don't count: `batch_size` means `batchSize`.
pub(super) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = plain(written);
    // A third of the letters: more, and short words all look alike.
    let distance_max = (written.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&written, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Returns "did you mean …?" for the candidate nearest to `written`.
pub(super) fn did_you_mean<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(written, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| !matches!(c, '_' | '-' | '.' | ' '))
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(written: &str, expect: Option<&str>) {
        assert_eq!(
            nearest(written, ["batchSize", "batchWindow", "brokers", "key"]),
            expect,
            "{written}"
        );
    }

    #[test]
    fn the_nearest_spelling_is_found_and_far_ones_are_not() {
        check("batchSzie", Some("batchSize"));
        check("batch_size", Some("batchSize"));
        check("kye", Some("key"));
        check("bat", None);
        check("somethingElse", None);
    }
}
