//! Failures as the user meets them: what, about which object; detail; a hint with the command to run.

use std::fmt;

/// How a process ends; the numbers are part of the contract with users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Done, also with nothing new.
    Done = 0,
    /// A bug in aperio.
    Bug = 1,
    /// The configuration is at fault.
    Config = 2,
    /// The data is at fault: too many rejects, offsets gone, an incompatible schema.
    Data = 3,
    /// Something remote is down or refused us for longer than `--retry-for`.
    Remote = 4,
    /// Other instances overtook this one three times in a row.
    Overtaken = 5,
}

/// One failure, told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code that it leads to.
    pub exit: Exit,
    /// What failed, and which object it is about: a lower-case fragment.
    pub what: String,
    /// More facts, both numbers of a mismatch among them.
    pub detail: Option<String>,
    /// What to do, with the command to run.
    pub hint: Option<String>,
}

impl Failure {
    /// Makes a failure that needs no more words.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Failure {
            exit,
            what: what.into(),
            detail: None,
            hint: None,
        }
    }

    /// Adds facts.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        if let Some(detail) = &self.detail {
            write!(f, "\n  detail: {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint:   {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// Finds the first error of a type among an error and its causes.
pub fn cause<'e, T: std::error::Error + 'static>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e T> {
    let mut cause = Some(error);
    // Ends: a chain of sources is finite.
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        cause = match error.downcast_ref::<std::io::Error>() {
            // Its own `source` passes over what it holds.
            Some(error) => error.get_ref().map(|held| held as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// Returns an error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    // Ends: a chain of sources is finite.
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
