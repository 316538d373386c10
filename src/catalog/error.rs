//! What can go wrong with a catalog, by what the caller can do about it.

use crate::error::cause;
use crate::store::StoreError;

/// Why a catalog didn't do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The catalog can't be reached, is busy, or failed inside: later it may work.
    #[error("catalog can't be reached: {0}")]
    Unreachable(String),
    /// The catalog doesn't accept these credentials, also not after a refresh.
    #[error("catalog refuses these credentials: {0}")]
    Unauthorized(String),
    /// The catalog understood the request and refuses it.
    #[error("catalog refuses the request with status {status}: {message}")]
    Refused {
        /// HTTP status; 409 stands for a failed requirement also where there is no HTTP.
        status: u16,
        /// The catalog's own words.
        message: String,
    },
    /// A REST catalog names files of this machine, and nothing says that it may.
    #[error("table `{table}`: its {what} is `{location}`, on the disk of this machine, while {warehouse}")]
    OnOurDisk {
        /// The table.
        table: String,
        /// What of it lies there.
        what: &'static str,
        /// Where it is said to lie.
        location: String,
        /// What the pipeline file says of the warehouse.
        warehouse: String,
        /// The catalog property that would allow it.
        property: &'static str,
    },
    /// The configuration asks for something that isn't built.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The catalog's answer or the table's metadata makes no sense to us.
    #[error("{0}")]
    Broken(String),
    /// The catalog works, but the store that holds the table's metadata doesn't.
    #[error("table metadata: {0}")]
    Storage(#[from] StoreError),
}

impl CatalogError {
    /// Returns whether the same call may succeed later without anyone changing the configuration. That goes for refused
    /// credentials too: a gateway in trouble refuses what it takes a moment later.
    pub fn retryable(&self) -> bool {
        match self {
            CatalogError::Unreachable(_) | CatalogError::Unauthorized(_) => true,
            CatalogError::Refused { status, .. } => matches!(status, 408 | 409 | 425 | 429),
            CatalogError::Storage(error) => error.retryable(),
            _ => false,
        }
    }

    /// The same for another who waited for the same answer.
    pub(super) fn again(&self) -> CatalogError {
        match self {
            CatalogError::Unauthorized(why) => CatalogError::Unauthorized(why.clone()),
            CatalogError::Refused { status, message } => CatalogError::Refused {
                status: *status,
                message: message.clone(),
            },
            CatalogError::Unsupported(why) => CatalogError::Unsupported(why.clone()),
            CatalogError::Unreachable(why) => CatalogError::Unreachable(why.clone()),
            CatalogError::Broken(why) => CatalogError::Broken(why.clone()),
            other if other.retryable() => CatalogError::Unreachable(other.to_string()),
            other => CatalogError::Broken(other.to_string()),
        }
    }

    /// Tells apart the store's failures and broken metadata in an error of the `iceberg` crate.
    pub(super) fn of_iceberg(doing: &str, error: &iceberg::Error) -> CatalogError {
        match store_error(error) {
            Some(StoreError::Unauthorized { message, .. }) => CatalogError::Unauthorized(format!("{doing}: {message}")),
            Some(cause) if cause.retryable() => CatalogError::Unreachable(format!("{doing}: {cause}")),
            _ => CatalogError::Broken(format!("{doing}: {error}")),
        }
    }
}

/// Finds the store's own error below one of the `iceberg` crate.
pub(super) fn store_error(error: &iceberg::Error) -> Option<&StoreError> {
    cause(error)
}
