//! What can go wrong with a schema registry, by what the caller can do about it.

use std::sync::Arc;

/// An outcome of asking a schema registry that isn't an answer. It holds no secret, also where the registry repeats one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// The registry answered: there is no such thing.
    #[error("the schema registry has no {what}")]
    NotFound {
        /// What was asked for, as "schema 7".
        what: String,
    },
    /// The registry doesn't take our credentials, or they give no right to this.
    #[error("the schema registry at `{url}` refused us when asked for {what} (status {status}): {message}")]
    Refused {
        /// What was asked for.
        what: String,
        /// 401, 403 or 407.
        status: u16,
        /// The address that was asked.
        url: String,
        /// The server's words.
        message: String,
    },
    /// There was no answer, or not a whole one in time; with several addresses, from the last of them.
    #[error("the schema registry at `{url}` can't be reached")]
    Unreachable {
        /// The address that was asked.
        url: String,
        /// Why.
        source: Arc<reqwest::Error>,
    },
    /// The answer is another status than those that are understood.
    #[error("the schema registry at `{url}` answered with status {status} when asked for {what}: {message}")]
    Answered {
        /// What was asked for.
        what: String,
        /// The status. 404 is none of a registry's misses: nothing is at this path, so the address is likely wrong.
        status: u16,
        /// The address that was asked.
        url: String,
        /// The server's words.
        message: String,
    },
    /// The answer is none of a registry: another server, or a proxy, may have answered.
    #[error("the answer of the schema registry at `{url}` when asked for {what} can't be read: {reason}")]
    Unreadable {
        /// What was asked for.
        what: String,
        /// The address that was asked.
        url: String,
        /// Why.
        reason: String,
    },
    /// What the registry has is of no use, and stays so.
    #[error("{what} of the schema registry can't be used: {reason}")]
    Unusable {
        /// What was asked for.
        what: String,
        /// Why.
        reason: String,
    },
    /// The client can't be set up.
    #[error("the schema registry's client can't be set up: {reason}")]
    Config {
        /// Why; names the file that is at fault.
        reason: String,
    },
}

impl RegistryError {
    /// Returns whether the same question may be answered later without anybody doing anything.
    ///
    /// [`RegistryError::NotFound`] is an answer, and not among them: what was just registered is on every server of a registry
    /// only after a while, so a caller may ask again for its own reasons.
    pub fn retryable(&self) -> bool {
        match self {
            RegistryError::Unreadable { .. } => true,
            RegistryError::Unreachable { .. } | RegistryError::Answered { .. } => self.of_one_server(),
            RegistryError::NotFound { .. }
            | RegistryError::Refused { .. }
            | RegistryError::Unusable { .. }
            | RegistryError::Config { .. } => false,
        }
    }

    /// Returns whether the server says, or shows, that it and not the question is at fault: another one may answer now.
    pub(super) fn of_one_server(&self) -> bool {
        matches!(
            self,
            RegistryError::Unreachable { .. }
                | RegistryError::Answered {
                    status: 408 | 429 | 500..=599,
                    ..
                }
        )
    }
}
