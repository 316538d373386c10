//! Partitions: from the words of the pipeline file to an Iceberg spec, and from a partition value to a directory.

use std::fmt::Write;

use chrono::{DateTime, Datelike, Days, NaiveDate};
use iceberg::spec::{
    Literal, NestedFieldRef, PartitionSpec, PrimitiveLiteral, PrimitiveType, Schema, Struct, Transform, Type,
    UnboundPartitionField, UnboundPartitionSpec,
};

use crate::config::PartitionField;

/// The longest name or value in a directory's name, in bytes after escaping: `name=value` then stays below the 255 bytes
/// that file systems allow.
const SEGMENT_BYTES_MAX: usize = 110;

/// Makes the Iceberg partition spec that `materialize.partition` asks for.
///
/// - `event_time_column`: the column that `date` and `hour` are taken of.
/// - `[date, hour]` becomes the hour alone: it prunes by date as well, and Iceberg refuses both of one column.
/// - a real column called `date` or `hour` is meant before the event time.
///
/// Names are the ones that Iceberg's Java gives: `ts_hour`, `id_bucket`, `country_trunc`, the column's own for the
/// identity; what Avro doesn't take in them is `_`. Source: `PartitionSpec.Builder`, Iceberg 1.10.
///
/// # Errors
/// For a person: a column that isn't there, or that the transform doesn't take.
pub fn partition_spec(
    schema: &Schema,
    fields: &[PartitionField],
    event_time_column: &str,
) -> Result<UnboundPartitionSpec, String> {
    let hour_of_event_time = fields.contains(&PartitionField::Hour) && top_level(schema, "hour").is_none();
    let mut unbound: Vec<UnboundPartitionField> = Vec::new();
    for field in fields {
        let (transform, source) = match field {
            PartitionField::Date => match top_level(schema, "date") {
                Some(column) => (Transform::Identity, column),
                None if hour_of_event_time => continue,
                None => (Transform::Day, source(schema, event_time_column)?),
            },
            PartitionField::Hour => match top_level(schema, "hour") {
                Some(column) => (Transform::Identity, column),
                None => (Transform::Hour, source(schema, event_time_column)?),
            },
            PartitionField::Transform { transform, column } => (*transform, source(schema, column)?),
        };
        transform.result_type(&source.field_type).map_err(|_| {
            format!(
                "`{transform}` doesn't take column `{}` of type {}",
                source.name, source.field_type
            )
        })?;
        let column = schema.name_by_field_id(source.id).unwrap_or(&source.name);
        let name = free_name(schema, &unbound, transform, column);
        unbound.push(
            UnboundPartitionField::builder()
                .source_id(source.id)
                .name(name)
                .transform(transform)
                .build(),
        );
    }
    let spec = UnboundPartitionSpec::builder()
        .add_partition_fields(unbound)
        .map_err(|error| error.message().to_owned())?
        .build();
    // Binding finds what can't go together, such as day and hour of one column.
    spec.clone()
        .bind(schema.clone())
        .map_err(|error| error.message().to_owned())?;
    Ok(spec)
}

fn top_level<'a>(schema: &'a Schema, name: &str) -> Option<&'a NestedFieldRef> {
    schema
        .as_struct()
        .fields()
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case(name))
}

fn source<'a>(schema: &'a Schema, column: &str) -> Result<&'a NestedFieldRef, String> {
    schema
        .field_by_name(column)
        .or_else(|| schema.field_by_name_case_insensitive(column))
        .ok_or_else(|| format!("partition column `{column}` is not a column of the table"))
}

fn free_name(schema: &Schema, taken: &[UnboundPartitionField], transform: Transform, column: &str) -> String {
    let plain = avro_name(column);
    let name = match transform {
        Transform::Year => format!("{plain}_year"),
        Transform::Month => format!("{plain}_month"),
        Transform::Day => format!("{plain}_day"),
        Transform::Hour => format!("{plain}_hour"),
        Transform::Bucket(_) => format!("{plain}_bucket"),
        Transform::Truncate(_) => format!("{plain}_trunc"),
        Transform::Identity | Transform::Void | Transform::Unknown if plain == column => return plain,
        Transform::Identity | Transform::Void | Transform::Unknown => plain,
    };
    // Iceberg refuses a partition named like a column. One of the finitely many taken names isn't `name_N`.
    let is_free = |name: &str| schema.field_by_name(name).is_none() && taken.iter().all(|field| field.name != name);
    if is_free(&name) {
        return name;
    }
    (2..)
        .map(|number| format!("{name}_{number}"))
        .find(|name| is_free(name))
        .expect("names don't run out")
}

/// Makes a name that Avro takes: manifests have a field of each partition's name, which the `iceberg` crate 0.10 writes as
/// it is, and DuckDB 1.5 reads no manifest with a field `geo.zone`.
fn avro_name(column: &str) -> String {
    let digit_first = column.starts_with(|letter: char| letter.is_ascii_digit());
    let letters = column.chars().map(|letter| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => letter,
        _ => '_',
    });
    digit_first.then_some('_').into_iter().chain(letters).collect()
}

/// Returns the directory of a partition, relative to the data location: `ts_hour=2024-01-15-10/country=de`; empty for an
/// unpartitioned table.
///
/// Values read as Iceberg's Java writes them. Every byte outside `[A-Za-z0-9._-]` is escaped as in URLs, so nothing leaves
/// its directory or ends an address early; a long value is cut and ends with its hash. Two values may share a directory
/// (`null` and the text "null"): what a file holds is said by its partition value, never by its path.
///
/// # Panics
/// If `value` isn't of the spec's partition type for `schema`.
pub fn partition_path(spec: &PartitionSpec, schema: &Schema, value: &Struct) -> String {
    if spec.is_unpartitioned() {
        return String::new();
    }
    let kinds = spec.partition_type(schema).expect("the spec belongs to the schema");
    let mut path = String::new();
    for (position, field) in spec.fields().iter().enumerate() {
        let text = match &value[position] {
            Some(Literal::Primitive(literal)) => human(field.transform, &kinds.fields()[position].field_type, literal),
            _ => "null".to_owned(),
        };
        if position > 0 {
            path.push('/');
        }
        path.push_str(&escaped(&field.name));
        path.push('=');
        path.push_str(&escaped(&text));
    }
    path
}

pub(super) fn human(transform: Transform, kind: &Type, literal: &PrimitiveLiteral) -> String {
    let primitive = kind.as_primitive_type();
    match (transform, literal) {
        (Transform::Void, _) => "null".to_owned(),
        (Transform::Year, PrimitiveLiteral::Int(years)) => {
            format!("{:04}", 1970 + i64::from(*years))
        }
        (Transform::Month, PrimitiveLiteral::Int(months)) => {
            format!("{:04}-{:02}", 1970 + months.div_euclid(12), months.rem_euclid(12) + 1)
        }
        (Transform::Day, PrimitiveLiteral::Int(days)) => date(i64::from(*days)),
        (Transform::Hour, PrimitiveLiteral::Int(hours)) => {
            format!("{}-{:02}", date(i64::from(hours.div_euclid(24))), hours.rem_euclid(24))
        }
        (_, PrimitiveLiteral::Boolean(value)) => value.to_string(),
        (_, PrimitiveLiteral::Int(days)) if primitive == Some(&PrimitiveType::Date) => date(i64::from(*days)),
        (_, PrimitiveLiteral::Int(value)) => value.to_string(),
        (_, PrimitiveLiteral::Long(value)) => human_long(primitive, *value),
        (_, PrimitiveLiteral::Float(value)) => value.to_string(),
        (_, PrimitiveLiteral::Double(value)) => value.to_string(),
        (_, PrimitiveLiteral::String(value)) => value.clone(),
        (_, PrimitiveLiteral::UInt128(value)) => uuid::Uuid::from_u128(*value).to_string(),
        (_, PrimitiveLiteral::Int128(value)) => human_decimal(primitive, *value),
        (_, PrimitiveLiteral::Binary(bytes)) => base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes),
        (_, PrimitiveLiteral::AboveMax | PrimitiveLiteral::BelowMin) => "null".to_owned(),
    }
}

fn human_long(kind: Option<&PrimitiveType>, value: i64) -> String {
    let (time, zone) = match kind {
        Some(PrimitiveType::Time) => {
            return DateTime::from_timestamp_micros(value)
                .map_or_else(|| value.to_string(), |time| time.time().to_string());
        }
        Some(PrimitiveType::Timestamp) => (DateTime::from_timestamp_micros(value), ""),
        Some(PrimitiveType::Timestamptz) => (DateTime::from_timestamp_micros(value), "+00:00"),
        Some(PrimitiveType::TimestampNs) => (Some(DateTime::from_timestamp_nanos(value)), ""),
        Some(PrimitiveType::TimestamptzNs) => (Some(DateTime::from_timestamp_nanos(value)), "+00:00"),
        _ => (None, ""),
    };
    time.map_or_else(
        || value.to_string(),
        |time| format!("{}{zone}", time.naive_utc().format("%Y-%m-%dT%H:%M:%S%.f")),
    )
}

fn human_decimal(kind: Option<&PrimitiveType>, unscaled: i128) -> String {
    let scale = match kind {
        Some(PrimitiveType::Decimal { scale, .. }) => *scale as usize,
        _ => 0,
    };
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    if scale == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    }
}

fn date(days: i64) -> String {
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).expect("1970-01-01 is a day");
    let span = Days::new(days.unsigned_abs());
    let day = if days < 0 {
        epoch.checked_sub_days(span)
    } else {
        epoch.checked_add_days(span)
    };
    day.map_or_else(
        || days.to_string(),
        |day| format!("{:04}-{:02}-{:02}", day.year(), day.month(), day.day()),
    )
}

/// Escapes one name or value of a path, and cuts it to [`SEGMENT_BYTES_MAX`].
fn escaped(text: &str) -> String {
    // `.` and `..` name directories, and some stores normalise them away.
    let only_dots = text.bytes().all(|byte| byte == b'.');
    let mut segment = String::with_capacity(text.len());
    let mut cut = 0;
    for byte in text.bytes() {
        match byte {
            b'.' if only_dots => segment.push_str("%2E"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => segment.push(char::from(byte)),
            _ => write!(segment, "%{byte:02X}").expect("a string takes all that is written"),
        }
        if segment.len() <= SEGMENT_BYTES_MAX - 17 {
            cut = segment.len();
        }
        if segment.len() > SEGMENT_BYTES_MAX {
            segment.truncate(cut);
            write!(segment, "-{:016x}", fnv1a(text.as_bytes())).expect("a string takes all that is written");
            return segment;
        }
    }
    segment
}

/// FNV-1a, 64 bits: keeps cut values apart for people; nothing depends on it being free of collisions.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
