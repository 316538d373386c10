//! Parquet settings under the names that Iceberg gives them as table properties.

use std::collections::HashMap;
use std::str::FromStr;

use iceberg::spec::Schema;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use crate::place::leaves;

/// Bytes of a string's first 16 characters at most; Parquet's statistics are kept at least this long.
const STATISTICS_BYTES_MIN: usize = 64;

const CODECS: &str = "zstd, snappy, gzip, lz4, uncompressed";

/// How much of a column's metrics goes into the manifest (`write.metadata.metrics.*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsMode {
    /// Nothing but the size.
    None,
    /// Counts of values, nulls and NaNs.
    Counts,
    /// Counts, and bounds of at most so many characters or bytes.
    Truncate(usize),
    /// Counts, and bounds in full.
    Full,
}

impl FromStr for MetricsMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        match lower.as_str() {
            "none" => return Ok(Self::None),
            "counts" => return Ok(Self::Counts),
            "full" => return Ok(Self::Full),
            _ => {}
        }
        let length = lower.strip_prefix("truncate(").and_then(|rest| rest.strip_suffix(')'));
        match length.and_then(|length| length.trim().parse::<usize>().ok()) {
            Some(length) if length > 0 => Ok(Self::Truncate(length)),
            _ => Err(format!("`{text}` is not one of none, counts, truncate(N), full")),
        }
    }
}

/// How Parquet files are written.
#[derive(Debug, Clone, PartialEq)]
pub struct ParquetSettings {
    /// `write.parquet.compression-codec` and `-level`; zstd at level 1.
    pub compression: Compression,
    /// `write.parquet.row-group-size-bytes`; 128 MiB. The memory an open file takes grows with it.
    pub row_group_bytes_max: usize,
    /// `write.parquet.page-size-bytes`; 1 MiB.
    pub page_bytes_max: usize,
    /// `write.parquet.page-row-limit`; 20,000.
    pub page_rows_max: usize,
    /// `write.parquet.dict-size-bytes`; 2 MiB.
    pub dictionary_bytes_max: usize,
    /// `write.target-file-size-bytes`; 512 MiB. A file is closed at the first check at which it is this large.
    pub file_bytes_target: u64,
    /// The rows that one file of a sorted table holds in memory at most; 64 MiB, no table property.
    pub sort_bytes_max: usize,
    /// `write.metadata.metrics.default`; truncate(16).
    pub metrics_default: MetricsMode,
    /// `write.metadata.metrics.max-inferred-column-defaults`; 100. Columns after these have no metrics, unless
    /// `write.metadata.metrics.default` is set.
    pub metrics_columns_max: usize,
    /// `write.metadata.metrics.column.{name}`.
    pub metrics_of: HashMap<String, MetricsMode>,
}

impl Default for ParquetSettings {
    fn default() -> Self {
        ParquetSettings {
            compression: Compression::ZSTD(ZstdLevel::try_new(1).expect("zstd has a level 1")),
            row_group_bytes_max: 128 << 20,
            page_bytes_max: 1 << 20,
            page_rows_max: 20_000,
            dictionary_bytes_max: 2 << 20,
            file_bytes_target: 512 << 20,
            sort_bytes_max: 64 << 20,
            metrics_default: MetricsMode::Truncate(16),
            metrics_columns_max: 100,
            metrics_of: HashMap::new(),
        }
    }
}

impl ParquetSettings {
    /// Reads the settings from a table's properties; properties that aren't about writing Parquet are looked past.
    ///
    /// # Errors
    /// All properties with a value that can't be used, for a person, one per line.
    ///
    /// Source: Iceberg 1.10, `TableProperties.java` and the "Configuration" page; the codec's level 1 is ours.
    pub fn from_properties(properties: &HashMap<String, String>) -> Result<ParquetSettings, String> {
        let mut settings = ParquetSettings::default();
        let mut problems = Vec::new();
        let sizes = [
            ("write.parquet.row-group-size-bytes", &mut settings.row_group_bytes_max),
            ("write.parquet.page-size-bytes", &mut settings.page_bytes_max),
            ("write.parquet.page-row-limit", &mut settings.page_rows_max),
            ("write.parquet.dict-size-bytes", &mut settings.dictionary_bytes_max),
            (
                "write.metadata.metrics.max-inferred-column-defaults",
                &mut settings.metrics_columns_max,
            ),
        ];
        for (key, size) in sizes {
            match properties.get(key).map(|text| positive(key, text)) {
                Some(Ok(value)) => *size = value,
                Some(Err(problem)) => problems.push(problem),
                None => {}
            }
        }
        let target = "write.target-file-size-bytes";
        match properties.get(target).map(|text| positive(target, text)) {
            Some(Ok(value)) => settings.file_bytes_target = value as u64,
            Some(Err(problem)) => problems.push(problem),
            None => {}
        }
        match compression(properties) {
            Ok(compression) => settings.compression = compression,
            Err(problem) => problems.push(problem),
        }
        for (key, text) in properties {
            let Some(place) = key.strip_prefix("write.metadata.metrics.") else {
                continue;
            };
            let column = place.strip_prefix("column.");
            if place != "default" && column.is_none() {
                continue;
            }
            match (text.parse::<MetricsMode>(), column) {
                (Ok(mode), Some(column)) => {
                    settings.metrics_of.insert(column.to_owned(), mode);
                }
                (Ok(mode), None) => {
                    settings.metrics_default = mode;
                    settings.metrics_columns_max = usize::MAX;
                }
                (Err(problem), _) => problems.push(format!("`{key}`: {problem}")),
            }
        }
        problems.sort();
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(problems.join("\n"))
        }
    }

    /// Returns the metrics mode of every primitive column outside lists and maps, by field id; the rest have bounds never.
    pub fn metrics_modes(&self, schema: &Schema) -> HashMap<i32, MetricsMode> {
        let modes = leaves(schema).into_iter().enumerate().map(|(position, leaf)| {
            let name = schema.name_by_field_id(leaf.field_id).unwrap_or_default();
            let inferred = match position < self.metrics_columns_max {
                true => self.metrics_default,
                false => MetricsMode::None,
            };
            (leaf.field_id, self.metrics_of.get(name).copied().unwrap_or(inferred))
        });
        modes.collect()
    }

    /// Returns the properties for the `parquet` crate; the columns `plain` have no dictionary.
    ///
    /// Parquet's own statistics stay longer than the bounds we take from them, and unlimited where a column's bounds are
    /// kept in full: a shortened statistic is still a bound, so no value leaves it, but a 5 MB string would sit four times in
    /// every footer.
    pub fn writer_properties(&self, schema: &Schema, plain: &[ColumnPath]) -> WriterProperties {
        let longest =
            self.metrics_modes(schema)
                .into_values()
                .try_fold(STATISTICS_BYTES_MIN, |longest, mode| match mode {
                    MetricsMode::Full => None,
                    MetricsMode::Truncate(chars) => Some(longest.max(chars.saturating_mul(4))),
                    MetricsMode::None | MetricsMode::Counts => Some(longest),
                });
        let builder = WriterProperties::builder()
            .set_compression(self.compression)
            .set_max_row_group_bytes(Some(self.row_group_bytes_max))
            .set_max_row_group_row_count(None)
            .set_data_page_size_limit(self.page_bytes_max)
            .set_data_page_row_count_limit(self.page_rows_max)
            .set_dictionary_page_size_limit(self.dictionary_bytes_max)
            .set_statistics_truncate_length(longest);
        let plain = plain.iter().cloned();
        plain
            .fold(builder, |builder, column| {
                builder.set_column_dictionary_enabled(column, false)
            })
            .build()
    }
}

fn positive(key: &str, text: &str) -> Result<usize, String> {
    text.trim()
        .parse::<usize>()
        .ok()
        .filter(|value| *value > 0)
        .ok_or_else(|| format!("`{key}`: `{text}` is not a whole number above 0"))
}

fn compression(properties: &HashMap<String, String>) -> Result<Compression, String> {
    let codec = properties
        .get("write.parquet.compression-codec")
        .map_or("zstd", String::as_str);
    let key = "write.parquet.compression-level";
    let level = match properties.get(key).map(|text| (text, text.trim().parse::<i32>())) {
        None => None,
        Some((_, Ok(level))) => Some(level),
        Some((text, Err(_))) => return Err(format!("`{key}`: `{text}` is not a whole number")),
    };
    let unfit = |range: &str| {
        format!(
            "`{key}`: `{}` is not in {range}, the levels of {codec}",
            level.unwrap_or(0)
        )
    };
    match codec.trim().to_ascii_lowercase().as_str() {
        "zstd" => ZstdLevel::try_new(level.unwrap_or(1))
            .map(Compression::ZSTD)
            .map_err(|_| unfit("1 to 22")),
        "gzip" => {
            let level = u32::try_from(level.unwrap_or(6)).map_err(|_| unfit("0 to 9"))?;
            GzipLevel::try_new(level)
                .map(Compression::GZIP)
                .map_err(|_| unfit("0 to 9"))
        }
        "snappy" => Ok(Compression::SNAPPY),
        "lz4" | "lz4_raw" => Ok(Compression::LZ4_RAW),
        "uncompressed" | "none" => Ok(Compression::UNCOMPRESSED),
        "brotli" => Err(format!(
            "`write.parquet.compression-codec`: `brotli` isn't built in; use one of {CODECS}"
        )),
        _ => Err(format!(
            "`write.parquet.compression-codec`: `{codec}` is not one of {CODECS}"
        )),
    }
}
