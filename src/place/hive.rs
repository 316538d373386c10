//! Hive's layout: partition values are directories, and a column that is a directory isn't in the files.
//!
//! | `partition` | directory | in the files |
//! |---|---|---|
//! | `date` | `date=2024-01-15` | the event time's column |
//! | `hour`, or `date` and `hour` | `date=2024-01-15/hour=9` | the event time's column |
//! | `country` | `country=DE` | nothing: readers take the column from the directory |
//! | `geo.country` | `geo_country=DE` | the struct |
//! | `bucket(16, id)`, `truncate(4, name)` | `id_bucket=3`, `name_trunc=abcd` | the column |
//! | `hour(ts)`, `day(ts)` | `ts_hour=2024-01-15-09`, `ts_day=2024-01-15` | the column |
//!
//! A null is `__HIVE_DEFAULT_PARTITION__`; so is an empty text, since Hive and Spark have no directory for it. ASCII other
//! than letters, digits, `.`, `_`, `-` is written `%20`; other letters are written as they are, since Spark takes each
//! escape for a character. A value too long for a directory's name makes its row a reject.
//!
//! Source: Spark 4.1 `ExternalCatalogUtils.scala`, `escapePathName`, `unescapePathName`, `getPartitionPathString`.

use std::fmt::Write;
use std::sync::Arc;

use iceberg::spec::{
    Literal, NestedFieldRef, PartitionSpec, Schema, Struct, Transform, UnboundPartitionField, UnboundPartitionSpec,
};

use super::partition::{human, partition_spec};
use crate::config::PartitionField;
use crate::schema::{RowPlan, RowPlanRef};

/// Source: Hive's `hive.exec.default.partition.name`.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The longest directory name, in bytes: file systems take 255.
const SEGMENT_BYTES_MAX: usize = 250;

/// The name of a field whose value makes two directories.
const DATE_AND_HOUR: &str = "date/hour";

/// Makes the partition spec of a table in Hive's layout: that of an Iceberg table, its fields named like directories.
///
/// # Errors
/// For a person: those of [`partition_spec`], and a table all of whose columns would be directories.
pub fn hive_spec(
    schema: &Schema,
    fields: &[PartitionField],
    event_time_column: &str,
) -> Result<UnboundPartitionSpec, String> {
    let spec = partition_spec(schema, fields, event_time_column)?;
    let is_column = |name: &str| top_level(schema, |field| field.name.eq_ignore_ascii_case(name)).is_some();
    let asked = |field: PartitionField| fields.contains(&field);
    let named = |field: &UnboundPartitionField| -> String {
        let column = top_level(schema, |column| column.id == field.source_id);
        let of_event_time = schema.name_by_field_id(field.source_id) == Some(event_time_column);
        match (field.transform, column) {
            (Transform::Identity, Some(column)) => column.name.clone(),
            (Transform::Day, _) if of_event_time && asked(PartitionField::Date) && !is_column("date") => {
                "date".to_owned()
            }
            (Transform::Hour, _) if of_event_time && asked(PartitionField::Hour) && !is_column("hour") => {
                // A date of its own would be taken for the column.
                if is_column("date") { "hour" } else { DATE_AND_HOUR }.to_owned()
            }
            _ => field.name.clone(),
        }
    };
    let renamed = spec.fields().iter().map(|field| {
        UnboundPartitionField::builder()
            .source_id(field.source_id)
            .name(named(field))
            .transform(field.transform)
            .build()
    });
    let spec = UnboundPartitionSpec::builder()
        .add_partition_fields(renamed.collect::<Vec<_>>())
        .map_err(|error| error.message().to_owned())?
        .build();
    let bound = spec
        .clone()
        .bind(schema.clone())
        .map_err(|error| error.message().to_owned())?;
    let directories = directories(&bound, schema);
    if schema
        .as_struct()
        .fields()
        .iter()
        .all(|field| directories.contains(&field.id))
    {
        return Err("every column would be a directory, and the files would be empty".to_owned());
    }
    Ok(spec)
}

/// Returns how rows are stored: the plan without the columns that are directories, and the places of those that stay.
pub fn stored(plan: &RowPlanRef, spec: &PartitionSpec) -> (RowPlanRef, Vec<usize>) {
    let directories = directories(spec, &plan.schema);
    let fields = plan.schema.as_struct().fields();
    let kept: Vec<usize> = (0..fields.len())
        .filter(|at| !directories.contains(&fields[*at].id))
        .collect();
    if kept.len() == fields.len() {
        return (Arc::clone(plan), kept);
    }
    let schema = Schema::builder()
        .with_schema_id(plan.schema.schema_id())
        .with_fields(kept.iter().map(|at| Arc::clone(&fields[*at])))
        .build()
        .expect("some columns of a schema are a schema");
    let arrow = plan
        .arrow
        .project(&kept)
        .expect("the plan's two schemas have the same columns");
    let stored = RowPlan {
        schema: Arc::new(schema),
        arrow: Arc::new(arrow),
        sources: kept.iter().map(|at| plan.sources[*at].clone()).collect(),
        required: plan.required.clone(),
        unknown: plan.unknown,
        flatten: plan.flatten,
    };
    (Arc::new(stored), kept)
}

/// Returns the directories of a partition, relative to the table's location; empty for a table without partitions.
///
/// # Errors
/// For the reject: the value whose directory no file system takes.
///
/// # Panics
/// If `value` isn't of the spec's partition type for `schema`.
pub fn hive_path(spec: &PartitionSpec, schema: &Schema, value: &Struct) -> Result<String, String> {
    let kinds = spec.partition_type(schema).expect("the spec belongs to the schema");
    let mut path = String::new();
    for (position, field) in spec.fields().iter().enumerate() {
        let kind = &kinds.fields()[position].field_type;
        let text = match &value[position] {
            Some(Literal::Primitive(literal)) => Some(human(field.transform, kind, literal)),
            _ => None,
        };
        if field.name == DATE_AND_HOUR {
            let (date, hour) = text.as_deref().and_then(|text| text.rsplit_once('-')).unzip();
            add(&mut path, "date", date)?;
            // As Spark and Hive write a number; to DuckDB `09` is a text.
            add(
                &mut path,
                "hour",
                hour.map(|hour| hour.strip_prefix('0').unwrap_or(hour)),
            )?;
        } else {
            add(&mut path, &field.name, text.as_deref())?;
        }
    }
    Ok(path)
}

/// The ids of the columns that are directories.
fn directories(spec: &PartitionSpec, schema: &Schema) -> Vec<i32> {
    let is_column = |id: i32, name: &str| top_level(schema, |column| column.id == id && column.name == name).is_some();
    let whole = spec
        .fields()
        .iter()
        .filter(|field| field.transform == Transform::Identity && is_column(field.source_id, &field.name));
    whole.map(|field| field.source_id).collect()
}

fn top_level(schema: &Schema, wanted: impl Fn(&NestedFieldRef) -> bool) -> Option<&NestedFieldRef> {
    schema.as_struct().fields().iter().find(|field| wanted(field))
}

fn add(path: &mut String, name: &str, value: Option<&str>) -> Result<(), String> {
    if !path.is_empty() {
        path.push('/');
    }
    let start = path.len();
    escape(path, name);
    path.push('=');
    escape(path, value.filter(|value| !value.is_empty()).unwrap_or(NULL));
    let bytes = path.len() - start;
    if bytes > SEGMENT_BYTES_MAX {
        return Err(format!(
            "the directory of partition `{name}` would have a name of {bytes} bytes, at most {SEGMENT_BYTES_MAX} are possible"
        ));
    }
    Ok(())
}

fn escape(path: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '_' | '-' => path.push(letter),
            letter if letter.is_ascii() => {
                write!(path, "%{:02X}", u32::from(letter)).expect("a string takes all that is written");
            }
            letter => path.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use iceberg::spec::{NestedField, PrimitiveType, Type};

    use super::*;

    fn schema(columns: &[(&str, PrimitiveType)]) -> Schema {
        let fields = columns
            .iter()
            .zip(1..)
            .map(|((name, kind), id)| Arc::new(NestedField::optional(id, *name, Type::Primitive(kind.clone()))));
        Schema::builder().with_fields(fields).build().expect("a schema")
    }

    fn columns() -> Vec<(&'static str, PrimitiveType)> {
        vec![
            ("ts", PrimitiveType::Timestamptz),
            ("country", PrimitiveType::String),
            ("id", PrimitiveType::Long),
        ]
    }

    fn path(
        columns: &[(&str, PrimitiveType)],
        fields: &[PartitionField],
        value: Vec<Option<Literal>>,
    ) -> Result<String, String> {
        let schema = schema(columns);
        let spec = hive_spec(&schema, fields, "ts")?.bind(schema.clone()).expect("binds");
        hive_path(&spec, &schema, &Struct::from_iter(value))
    }

    fn column(transform: Transform, column: &str) -> PartitionField {
        PartitionField::Transform {
            transform,
            column: column.to_owned(),
        }
    }

    #[test]
    fn directories_are_named_as_the_table_says() {
        use PartitionField::{Date, Hour};
        let check = |fields: &[PartitionField], value: Vec<Option<Literal>>, expect: &str| {
            assert_eq!(path(&columns(), fields, value).as_deref(), Ok(expect));
        };
        // 2024-01-15 is day 19737.
        let (day, hour) = (Literal::int(19_737), Literal::int(19_737 * 24 + 9));
        check(&[Date], vec![Some(day)], "date=2024-01-15");
        check(&[Date, Hour], vec![Some(hour.clone())], "date=2024-01-15/hour=9");
        check(&[Hour], vec![Some(hour.clone())], "date=2024-01-15/hour=9");
        let null = "date=__HIVE_DEFAULT_PARTITION__/hour=__HIVE_DEFAULT_PARTITION__";
        check(&[Date, Hour], vec![None], null);
        check(
            &[column(Transform::Hour, "ts")],
            vec![Some(hour)],
            "ts_hour=2024-01-15-09",
        );
        let text = |text: &str| vec![Some(Literal::string(text))];
        let country = [column(Transform::Identity, "country")];
        check(&country, text("DE"), "country=DE");
        check(&country, text("a/b=c %ü*"), "country=a%2Fb%3Dc%20%25ü%2A");
        check(&country, text(".."), "country=..");
        check(&country, text(""), "country=__HIVE_DEFAULT_PARTITION__");
        check(&country, vec![None], "country=__HIVE_DEFAULT_PARTITION__");
        check(
            &[column(Transform::Bucket(16), "id")],
            vec![Some(Literal::int(3))],
            "id_bucket=3",
        );
        check(
            &[column(Transform::Truncate(2), "country")],
            text("DE"),
            "country_trunc=DE",
        );
        let long = path(&columns(), &country, text(&"x".repeat(243)));
        assert!(long.expect_err("251 bytes").contains("251 bytes"));
        assert!(path(&columns(), &country, text(&"x".repeat(242))).is_ok());
    }

    #[test]
    fn a_real_column_comes_before_the_event_time() {
        use PartitionField::{Date, Hour};
        let mut with_date = columns();
        with_date.push(("date", PrimitiveType::String));
        let value = vec![Some(Literal::string("x")), Some(Literal::int(19_737 * 24 + 9))];
        let found = path(&with_date, &[Date, Hour], value);
        assert_eq!(found.as_deref(), Ok("date=x/hour=2024-01-15-09"));
    }

    #[test]
    fn a_column_that_is_a_directory_is_not_in_the_files() {
        let check = |fields: &[PartitionField], expect: &[&str]| {
            let schema = schema(&columns());
            let spec = hive_spec(&schema, fields, "ts")
                .expect("a spec")
                .bind(schema.clone())
                .expect("binds");
            let arrow = iceberg::arrow::schema_to_arrow_schema(&schema).expect("arrow");
            let sources = vec![crate::schema::ColumnSource::Absent; 3];
            let plan = RowPlan {
                schema: Arc::new(schema),
                arrow: Arc::new(arrow),
                sources,
                required: Default::default(),
                unknown: crate::schema::UnknownFields::Ignore,
                flatten: false,
            };
            let (stored, kept) = stored(&Arc::new(plan), &spec);
            let names: Vec<_> = stored
                .arrow
                .fields()
                .iter()
                .map(|field| field.name().as_str())
                .collect();
            assert_eq!(
                (names.as_slice(), kept.len(), stored.sources.len()),
                (expect, expect.len(), expect.len())
            );
            assert_eq!(stored.schema.as_struct().fields().len(), expect.len());
        };
        check(&[PartitionField::Date], &["ts", "country", "id"]);
        check(&[column(Transform::Identity, "country")], &["ts", "id"]);
        check(&[column(Transform::Bucket(4), "country")], &["ts", "country", "id"]);
        let all = ["ts", "country", "id"].map(|name| column(Transform::Identity, name));
        hive_spec(&schema(&columns()), &all, "ts").expect_err("nothing would be left");
    }
}
