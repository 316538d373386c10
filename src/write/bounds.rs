//! Bounds of a file's columns: every value that isn't null or NaN lies within, however they are shortened.

use iceberg::spec::{Datum, PrimitiveLiteral, PrimitiveType};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use super::settings::MetricsMode;

/// The lower and the upper bound of a column; each is left out on its own where it can't be said.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Bounds {
    pub lower: Option<Datum>,
    pub upper: Option<Datum>,
}

/// Reads the bounds of leaf `column` from the statistics of all row groups.
///
/// A row group that has values but no statistics (all NaN, or a type that has none) leaves both bounds out: what it holds is
/// unknown. Statistics that Parquet shortened are taken: it rounds them outward.
pub(super) fn column_bounds(
    metadata: &ParquetMetaData,
    column: usize,
    kind: &PrimitiveType,
    mode: MetricsMode,
) -> Bounds {
    let mut merged: Option<(Datum, Datum)> = None;
    for row_group in metadata.row_groups() {
        let chunk = row_group.column(column);
        let Some(statistics) = chunk.statistics() else {
            return Bounds::default();
        };
        let values = u64::try_from(chunk.num_values()).expect("a count isn't negative");
        if statistics.null_count_opt() == Some(values) {
            continue;
        }
        let (Some(min), Some(max)) = (datum(statistics, kind, Side::Min), datum(statistics, kind, Side::Max)) else {
            return Bounds::default();
        };
        merged = Some(match merged {
            None => (min, max),
            Some((lower, upper)) => (
                if min < lower { min } else { lower },
                if max > upper { max } else { upper },
            ),
        });
    }
    let Some((lower, upper)) = merged else {
        return Bounds::default();
    };
    // Java up to Iceberg 1.10 compares UUIDs as two signed longs, others as bytes. Both agree on UUIDs of one first bit; of
    // other columns a reader with the other order would skip files that have its rows.
    if let (PrimitiveLiteral::UInt128(a), PrimitiveLiteral::UInt128(b)) = (lower.literal(), upper.literal())
        && a >> 127 != b >> 127
    {
        return Bounds::default();
    }
    match mode {
        MetricsMode::None | MetricsMode::Counts => Bounds::default(),
        MetricsMode::Full => Bounds {
            lower: Some(lower),
            upper: Some(upper),
        },
        MetricsMode::Truncate(length) => Bounds {
            lower: Some(shortened_lower(lower, length)),
            upper: shortened_upper(upper, length),
        },
    }
}

#[derive(Clone, Copy)]
enum Side {
    Min,
    Max,
}

/// Reads one side of a row group's statistics as a value of the column's type; `None` where it has none or isn't whole.
fn datum(statistics: &Statistics, kind: &PrimitiveType, side: Side) -> Option<Datum> {
    macro_rules! side_of {
        ($values:expr) => {
            match side {
                Side::Min => $values.min_opt(),
                Side::Max => $values.max_opt(),
            }
        };
    }
    // Decimals of few digits are stored as integers; Iceberg's form is big-endian whatever the digits.
    let is_decimal = matches!(kind, PrimitiveType::Decimal { .. });
    let bytes: Vec<u8> = match statistics {
        Statistics::Boolean(values) => vec![u8::from(*side_of!(values)?)],
        Statistics::Int32(values) if is_decimal => i128::from(*side_of!(values)?).to_be_bytes().to_vec(),
        Statistics::Int64(values) if is_decimal => i128::from(*side_of!(values)?).to_be_bytes().to_vec(),
        Statistics::Int32(values) => side_of!(values)?.to_le_bytes().to_vec(),
        Statistics::Int64(values) => side_of!(values)?.to_le_bytes().to_vec(),
        Statistics::Float(values) => Some(side_of!(values)?)
            .filter(|value| !value.is_nan())?
            .to_le_bytes()
            .to_vec(),
        Statistics::Double(values) => Some(side_of!(values)?)
            .filter(|value| !value.is_nan())?
            .to_le_bytes()
            .to_vec(),
        Statistics::ByteArray(values) => side_of!(values)?.data().to_vec(),
        Statistics::FixedLenByteArray(values) => side_of!(values)?.data().to_vec(),
        Statistics::Int96(_) => return None,
    };
    let whole = match kind {
        PrimitiveType::Fixed(length) => bytes.len() as u64 == *length,
        PrimitiveType::Uuid => bytes.len() == 16,
        _ => true,
    };
    if whole {
        Datum::try_from_bytes(&bytes, kind.clone()).ok()
    } else {
        None
    }
}

/// Shortens a lower bound: a prefix sorts before all that begins with it.
fn shortened_lower(bound: Datum, length: usize) -> Datum {
    match (bound.data_type(), bound.literal()) {
        (PrimitiveType::String, PrimitiveLiteral::String(text)) => Datum::string(prefix(text, length)),
        (PrimitiveType::Binary, PrimitiveLiteral::Binary(bytes)) if bytes.len() > length => {
            Datum::binary(bytes[..length].to_vec())
        }
        _ => bound,
    }
}

/// Shortens an upper bound to the next larger prefix; `None` where no string of that length is larger.
fn shortened_upper(bound: Datum, length: usize) -> Option<Datum> {
    match (bound.data_type(), bound.literal()) {
        (PrimitiveType::String, PrimitiveLiteral::String(text)) => {
            let prefix = prefix(text, length);
            if prefix.len() == text.len() {
                Some(bound)
            } else {
                next_text(prefix).map(Datum::string)
            }
        }
        (PrimitiveType::Binary, PrimitiveLiteral::Binary(bytes)) if bytes.len() > length => {
            next_bytes(&bytes[..length]).map(Datum::binary)
        }
        _ => Some(bound),
    }
}

fn prefix(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

/// Returns the smallest string of at most as many characters that is larger than all strings beginning with `text`.
fn next_text(text: &str) -> Option<String> {
    text.char_indices().rev().find_map(|(start, last)| {
        let next = match last {
            '\u{D7FF}' => '\u{E000}', // Surrogates are no characters.
            _ => char::from_u32(u32::from(last) + 1)?,
        };
        Some(format!("{}{next}", &text[..start]))
    })
}

fn next_bytes(bytes: &[u8]) -> Option<Vec<u8>> {
    let last = bytes.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = bytes[..=last].to_vec();
    next[last] += 1;
    Some(next)
}
