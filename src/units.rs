//! Quantities that carry their unit: a duration is never mistaken for a point in time, nor a size for a count.

use std::fmt;

/// A point in time or a span, in milliseconds; points count from 1970-01-01T00:00:00Z.
///
/// Signed, because Kafka and Iceberg both store signed milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub i64);

impl Millis {
    /// Returns the time that lies `span` after this one, held at the largest representable time.
    pub fn after(self, span: Millis) -> Millis {
        Millis(self.0.saturating_add(span.0))
    }

    /// Returns how much time has passed from `earlier` to this, never less than zero.
    pub fn since(self, earlier: Millis) -> Millis {
        Millis(self.0.saturating_sub(earlier.0).max(0))
    }
}

impl From<std::time::Duration> for Millis {
    fn from(span: std::time::Duration) -> Self {
        Millis(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
    }
}

impl From<Millis> for std::time::Duration {
    /// Takes the span without its sign.
    fn from(span: Millis) -> Self {
        Self::from_millis(span.0.unsigned_abs())
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}
