#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array,
    LargeBinaryArray, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Date32Type, Field, Fields, Int32Type, Schema as ArrowSchema};
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::{Literal, NestedField, PartitionSpec, PrimitiveType, Schema, Struct, StructType, Transform, Type};

use super::*;
use crate::config::{EventTimeFormat, PartitionField};
use crate::offsets::{Offset, OffsetRange, Partition};
use crate::schema::{RowPlan, UnknownFields};

fn primitive(kind: PrimitiveType) -> Type {
    Type::Primitive(kind)
}

fn schema() -> Schema {
    let meta = StructType::new(vec![
        NestedField::optional(10, "country", primitive(PrimitiveType::String)).into(),
        NestedField::optional(11, "seen", primitive(PrimitiveType::Timestamptz)).into(),
    ]);
    let fields = vec![
        NestedField::optional(1, "id", primitive(PrimitiveType::Long)).into(),
        NestedField::optional(2, "ts", primitive(PrimitiveType::Long)).into(),
        NestedField::optional(3, "meta", Type::Struct(meta)).into(),
        NestedField::optional(4, "_kafka_topic", primitive(PrimitiveType::String)).into(),
        NestedField::optional(5, "_kafka_offset", primitive(PrimitiveType::Long)).into(),
        NestedField::optional(6, "_kafka_timestamp", primitive(PrimitiveType::Timestamptz)).into(),
        NestedField::optional(7, "_kafka_key", primitive(PrimitiveType::Binary)).into(),
        NestedField::optional(8, "_event_time", primitive(PrimitiveType::Timestamptz)).into(),
        NestedField::optional(9, "theirs", primitive(PrimitiveType::Double)).into(),
        NestedField::optional(12, "_kafka_partition", primitive(PrimitiveType::Int)).into(),
    ];
    Schema::builder().with_fields(fields).build().unwrap()
}

fn plan() -> RowPlanRef {
    let schema = schema();
    let payload = |name: &str| ColumnSource::Payload(vec![name.to_owned()]);
    Arc::new(RowPlan {
        arrow: Arc::new(schema_to_arrow_schema(&schema).unwrap()),
        schema: Arc::new(schema),
        sources: vec![
            payload("id"),
            payload("ts"),
            payload("meta"),
            ColumnSource::Kafka(KafkaColumn::Topic),
            ColumnSource::Kafka(KafkaColumn::Offset),
            ColumnSource::Kafka(KafkaColumn::Timestamp),
            ColumnSource::Kafka(KafkaColumn::Key),
            ColumnSource::EventTime,
            ColumnSource::Absent,
            ColumnSource::Kafka(KafkaColumn::Partition),
        ],
        required: HashSet::new(),
        unknown: UnknownFields::Evolve,
        flatten: false,
    })
}

fn chunk(records: i64) -> Chunk {
    Chunk {
        partition: Partition(3),
        range: OffsetRange::new(Offset::new(100), Offset::new(100 + records)),
        offsets: (100..100 + records).collect::<Vec<_>>().into(),
        timestamps: (0..records).map(|n| 1_705_312_800_000 + n).collect::<Vec<_>>().into(),
        keys: BinaryArray::from_iter((0..records).map(|n| (n % 2 == 0).then(|| format!("k{n}")))),
        values: BinaryArray::from_iter((0..records).map(|_| Some("{}"))),
        headers: None,
    }
}

fn decoded(indexes: Vec<u32>, ts: Vec<Option<i64>>, countries: Vec<Option<&str>>) -> Decoded {
    let arrow = plan().arrow.clone();
    let rows = indexes.len();
    let DataType::Struct(fields) = arrow.field(2).data_type().clone() else {
        panic!("meta is a struct")
    };
    let seen = TimestampMicrosecondArray::from(vec![Some(0); rows]).with_timezone(UTC);
    let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(countries)), Arc::new(seen)];
    let meta = StructArray::new(fields, columns, None);
    let ids = Int64Array::from_iter_values(indexes.iter().map(|index| i64::from(*index)));
    let payload = ArrowSchema::new(Fields::from(arrow.fields()[..3].to_vec()));
    let columns: Vec<ArrayRef> = vec![Arc::new(ids), Arc::new(Int64Array::from(ts)), Arc::new(meta)];
    Decoded {
        keys: None,
        event_ids: None,
        gone: 0,
        rows: RecordBatch::try_new(Arc::new(payload), columns).unwrap(),
        indexes,
        rejects: vec![Reject {
            index: 1,
            stage: Stage::Decode,
            reason: "not JSON".to_owned(),
        }],
        filtered: 0,
        unseen: None,
        unknown: Vec::new(),
        event_time: None,
        fields_dropped: 0,
    }
}

fn spec(fields: &[&str]) -> PartitionSpecRef {
    let fields: Vec<PartitionField> = fields.iter().map(|field| field.parse().unwrap()).collect();
    Arc::new(
        partition_spec(&schema(), &fields, "_event_time")
            .unwrap()
            .bind(schema())
            .unwrap(),
    )
}

fn event_time(field: &str) -> Option<EventTime> {
    let (path, format) = (vec![field.to_owned()], EventTimeFormat::Default);
    Some(EventTime { path, format })
}

const TEN: i64 = 1_705_312_800_000; // 2024-01-15T10:00Z

#[test]
fn rows_become_whole_and_go_to_their_partitions() {
    let event_time = event_time("ts");
    let placer = Placer::new(plan(), spec(&["date", "hour", "meta.country"]), "events", event_time).unwrap();
    let hour = 3_600_000;
    let rows = decoded(
        vec![0, 2, 3, 4, 5],
        vec![Some(TEN), Some(TEN + hour), None, Some(TEN + 1), Some(TEN + 2)],
        vec![Some("de"), Some("de"), Some("de"), None, Some("de")],
    );
    let placed = placer.place(rows, &chunk(6));
    let paths: Vec<&str> = placed.parts.iter().map(|part| part.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "_event_time_hour=2024-01-15-10/meta_country=de",
            "_event_time_hour=2024-01-15-10/meta_country=null",
            "_event_time_hour=2024-01-15-11/meta_country=de",
        ]
    );
    let hours = i32::try_from(TEN / hour).unwrap();
    assert_eq!(
        placed.parts[0].value,
        Struct::from_iter([Some(Literal::int(hours)), Some(Literal::string("de"))])
    );
    assert_eq!(
        placed.parts[1].value,
        Struct::from_iter([Some(Literal::int(hours)), None])
    );
    let rows = &placed.parts[0].rows;
    assert_eq!(rows.schema(), plan().arrow);
    assert_eq!(
        rows.column(0).as_primitive::<arrow::datatypes::Int64Type>().values(),
        &[0, 5]
    );
    assert_eq!(rows.column(3).as_string::<i32>().value(1), "events");
    assert_eq!(
        rows.column(4).as_primitive::<arrow::datatypes::Int64Type>().values(),
        &[100, 105]
    );
    assert_eq!(
        rows.column(5).as_primitive::<TimestampMicrosecondType>().value(1),
        (TEN + 5) * 1000
    );
    let keys = rows.column(6).as_any().downcast_ref::<LargeBinaryArray>().unwrap();
    assert_eq!((keys.value(0), keys.is_null(1)), (b"k0".as_slice(), true));
    assert_eq!(
        rows.column(7).as_primitive::<TimestampMicrosecondType>().value(1),
        (TEN + 2) * 1000
    );
    assert_eq!(rows.column(8).null_count(), 2);
    assert_eq!(rows.column(9).as_primitive::<Int32Type>().value(0), 3);
    assert_eq!(placed.event_time_max_us, Some((TEN + hour) * 1000));
    let rejects: Vec<_> = placed
        .rejects
        .iter()
        .map(|reject| (reject.index, reject.stage))
        .collect();
    assert_eq!(rejects, [(1, Stage::Decode), (3, Stage::Place)]);
    assert_eq!(placed.rejects[1].reason, "event time field `ts`: it is null or missing");
}

#[test]
fn one_value_is_one_part_and_no_rows_are_none() {
    let placer = Placer::new(plan(), spec(&["hour"]), "events", None).unwrap();
    let placed = placer.place(decoded(vec![0, 2], vec![None, None], vec![None, None]), &chunk(3));
    assert_eq!(placed.parts.len(), 1);
    assert_eq!(placed.parts[0].rows.num_rows(), 2);
    assert_eq!(placed.event_time_max_us, Some((TEN + 2) * 1000));
    let placed = placer.place(decoded(vec![], vec![], vec![]), &chunk(3));
    assert!(placed.parts.is_empty() && placed.event_time_max_us.is_none());
    let unpartitioned = Placer::new(plan(), Arc::new(PartitionSpec::unpartition_spec()), "events", None).unwrap();
    let placed = unpartitioned.place(decoded(vec![0, 2], vec![None, None], vec![None, None]), &chunk(3));
    assert_eq!((placed.parts.len(), placed.parts[0].path.as_str()), (1, ""));
}

#[test]
fn a_timestamp_no_engine_reads_is_a_reject() {
    let placer = Placer::new(plan(), spec(&["day(_kafka_timestamp)"]), "events", None).unwrap();
    let mut chunk = chunk(3);
    chunk.timestamps = vec![Some(TEN), Some(TEN * 1_000_000), None].into();
    let placed = placer.place(decoded(vec![0, 1, 2], vec![None; 3], vec![None; 3]), &chunk);
    assert_eq!(placed.parts.iter().map(|part| part.rows.num_rows()).sum::<usize>(), 1);
    assert_eq!(
        placed.rejects.len(),
        3,
        "one from decoding, two from placing: {:?}",
        placed.rejects
    );
}

#[test]
fn a_field_nobody_has_sent_yet_rejects_its_rows() {
    let event_time = event_time("created");
    let placer = Placer::new(plan(), spec(&["hour"]), "events", event_time).unwrap();
    let placed = placer.place(decoded(vec![0], vec![None], vec![None]), &chunk(2));
    assert_eq!(
        placed.rejects[0].reason,
        "event time field `created`: it is null or missing"
    );
}

#[test]
fn days_before_1970_are_floored() {
    let placer = Placer::new(plan(), spec(&["day(meta.seen)"]), "events", None).unwrap();
    let times = TimestampMicrosecondArray::from(vec![-86_400_500_000, -1, 0]).with_timezone(UTC);
    let days = placer.keys[0].transformed(Arc::new(times)).unwrap();
    assert_eq!(days.as_primitive::<Date32Type>().values(), &[-2, -1, 0]);
}

#[test]
fn a_value_below_a_null_struct_is_null() {
    let fields = Fields::from(vec![Field::new("a", DataType::Int32, true)]);
    let nulls = Some(NullBuffer::from(vec![true, false]));
    let column: ArrayRef = Arc::new(StructArray::new(
        fields,
        vec![Arc::new(Int32Array::from(vec![1, 2]))],
        nulls,
    ));
    let child = columns::column_below(&column, &["A".to_owned()]).unwrap();
    assert!(child.is_valid(0) && child.is_null(1));
    assert!(columns::column_below(&column, &["b".to_owned()]).is_none());
}

#[test]
fn partitions_are_named_and_folded_as_iceberg_does() {
    let check = |fields: &[&str], expect: &[&str]| {
        let found: Vec<String> = spec(fields)
            .fields()
            .iter()
            .map(|field| format!("{}:{}", field.name, field.transform))
            .collect();
        assert_eq!(found, expect);
    };
    check(&["date", "hour"], &["_event_time_hour:hour"]);
    check(&["hour"], &["_event_time_hour:hour"]);
    check(&["date"], &["_event_time_day:day"]);
    check(
        &["bucket(16, id)", "truncate(4, meta.country)"],
        &["id_bucket:bucket[16]", "meta_country_trunc:truncate[4]"],
    );
    check(
        &["ID", "month(_kafka_timestamp)"],
        &["id:identity", "_kafka_timestamp_month:month"],
    );
}

#[test]
fn a_time_that_no_column_holds_is_read_from_the_record() {
    let (path, format) = (vec!["Meta".to_owned(), "at".to_owned()], EventTimeFormat::Default);
    let placer = Placer::new(plan(), spec(&["hour"]), "events", Some(EventTime { path, format })).unwrap();
    let mut chunk = chunk(5);
    chunk.values = BinaryArray::from_iter([
        Some(r#"{"meta":{"at":1705312800000}}"#),
        None,
        Some(r#"{"meta":{"at":"2024-01-15T10:59:59Z"}}"#),
        Some(r#"{"meta":{"at":1705316400000.5}}"#),
        Some(r#"{"meta":{"at":true}}"#),
    ]);
    let rows = decoded(vec![0, 2, 3, 4], vec![None; 4], vec![None; 4]);
    let placed = placer.place(rows, &chunk);
    let parts: Vec<_> = placed
        .parts
        .iter()
        .map(|part| (part.path.as_str(), part.rows.num_rows()))
        .collect();
    assert_eq!(
        parts,
        [
            ("_event_time_hour=2024-01-15-10", 2),
            ("_event_time_hour=2024-01-15-11", 1)
        ]
    );
    let rejects: Vec<_> = placed.rejects.iter().map(|reject| reject.index).collect();
    assert!(rejects.ends_with(&[4]), "{:?}", placed.rejects);
}

#[test]
fn a_real_column_called_date_is_meant_first() {
    let fields = vec![
        NestedField::optional(1, "date", primitive(PrimitiveType::String)).into(),
        NestedField::optional(2, "ts", primitive(PrimitiveType::Timestamptz)).into(),
    ];
    let schema = Schema::builder().with_fields(fields).build().unwrap();
    let spec = partition_spec(&schema, &[PartitionField::Date, PartitionField::Hour], "ts").unwrap();
    let found: Vec<_> = spec
        .fields()
        .iter()
        .map(|field| (field.source_id, field.transform))
        .collect();
    assert_eq!(found, [(1, Transform::Identity), (2, Transform::Hour)]);
}

#[test]
fn partitions_that_cannot_be_are_refused() {
    let check = |fields: &[&str], part: &str| {
        let fields: Result<Vec<PartitionField>, String> = fields.iter().map(|field| field.parse()).collect();
        let error = fields
            .and_then(|fields| partition_spec(&schema(), &fields, "_event_time"))
            .unwrap_err();
        assert!(error.contains(part), "{error}");
    };
    check(&["nothing"], "`nothing` is not a column");
    check(&["hour(id)"], "doesn't take column `id`");
    check(&["day(_event_time)", "hour(_event_time)"], "redundant");
}

fn path_of(kind: PrimitiveType, transform: Transform, literal: Option<Literal>) -> String {
    let field = NestedField::optional(1, "a b", primitive(kind)).into();
    let schema = Schema::builder().with_fields(vec![field]).build().unwrap();
    let name = if transform == Transform::Identity { "a b" } else { "p" };
    let spec = PartitionSpec::builder(schema.clone())
        .add_partition_field("a b", name, transform)
        .unwrap()
        .build()
        .unwrap();
    partition_path(&spec, &schema, &Struct::from_iter([literal]))
}

#[test]
fn paths_read_as_java_writes_them() {
    use PrimitiveType as P;
    let check = |kind, transform, literal, expect: &str| assert_eq!(path_of(kind, transform, Some(literal)), expect);
    check(
        P::Timestamptz,
        Transform::Hour,
        Literal::int(473_794),
        "p=2024-01-19-10",
    );
    check(P::Timestamptz, Transform::Hour, Literal::int(-1), "p=1969-12-31-23");
    check(P::Timestamptz, Transform::Day, Literal::int(19_737), "p=2024-01-15");
    check(P::Timestamptz, Transform::Month, Literal::int(-1), "p=1969-12");
    check(P::Timestamptz, Transform::Year, Literal::int(54), "p=2024");
    check(P::Long, Transform::Bucket(16), Literal::int(7), "p=7");
    check(P::Date, Transform::Identity, Literal::date(19_737), "a%20b=2024-01-15");
    check(P::Boolean, Transform::Identity, Literal::bool(true), "a%20b=true");
    check(
        P::Decimal { precision: 9, scale: 2 },
        Transform::Identity,
        Literal::decimal(-5),
        "a%20b=-0.05",
    );
    check(
        P::Timestamptz,
        Transform::Identity,
        Literal::timestamp(0),
        "a%20b=1970-01-01T00%3A00%3A00%2B00%3A00",
    );
    assert_eq!(path_of(P::Long, Transform::Identity, None), "a%20b=null");
}

#[test]
fn paths_stay_in_their_directory() {
    let check = |value: &str, expect: &str| {
        let path = path_of(PrimitiveType::String, Transform::Identity, Some(Literal::string(value)));
        assert_eq!(path, format!("a%20b={expect}"));
    };
    check("a/../../b", "a%2F..%2F..%2Fb");
    check("a#b?c", "a%23b%3Fc");
    check("", "");
    check("null", "null");
    check("..", "%2E%2E");
    check("größe 100%", "gr%C3%B6%C3%9Fe%20100%25");
    check("a=b\\c\n", "a%3Db%5Cc%0A");
    let long = |end: &str| {
        let value = Some(Literal::string(format!("{}{end}", "ü".repeat(500))));
        path_of(PrimitiveType::String, Transform::Identity, value)
    };
    assert!(long("a").len() <= 120 && long("a") != long("b"), "{}", long("a"));
    assert!(long("a").starts_with("a%20b=%C3%BC%C3%BC"));
}

#[test]
fn event_times_are_read_from_every_kind_of_column() {
    use EventTimeFormat as F;
    let check = |format: F, column: ArrayRef, expect: &[Option<i64>]| {
        let times = EventTimes::compute(&format, Some(&column), &Int64Array::from(vec![0; column.len()]));
        assert_eq!(
            times.times.iter().collect::<Vec<_>>(),
            expect,
            "{format:?}: {:?}",
            times.failures
        );
        let failed: Vec<_> = times.failures.iter().map(|(row, _)| *row as usize).collect();
        assert_eq!(
            failed,
            (0..expect.len())
                .filter(|row| expect[*row].is_none())
                .collect::<Vec<_>>()
        );
    };
    let long = |values: Vec<Option<i64>>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
    let text = |values: Vec<&str>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let ten = TEN * 1000;
    check(
        F::Default,
        long(vec![Some(TEN), None, Some(-1)]),
        &[Some(ten), None, Some(-1000)],
    );
    check(
        F::EpochSeconds,
        long(vec![Some(TEN / 1000), Some(TEN)]),
        &[Some(ten), None],
    );
    check(
        F::EpochMicros,
        long(vec![Some(ten), Some(i64::MAX)]),
        &[Some(ten), None],
    );
    check(
        F::EpochNanos,
        long(vec![Some(ten * 1000 + 999), Some(-1)]),
        &[Some(ten), Some(-1)],
    );
    check(
        F::Strftime("%Y%m%d".to_owned()),
        long(vec![Some(20_240_115), Some(3)]),
        &[Some(1_705_276_800_000_000), None],
    );
    check(F::Iso8601, long(vec![Some(TEN)]), &[None]);
    let doubles = Float64Array::from(vec![1_705_312_800.123456, f64::NAN, f64::INFINITY]);
    check(F::EpochSeconds, Arc::new(doubles), &[Some(ten + 123_456), None, None]);
    let texts = [
        "2024-01-15T10:00:00Z",
        "2024-01-15T11:00:00.5+01:00",
        " 2024-01-15 10:00:00.000001 ",
        "2024-01-15",
        "soon",
        "",
    ];
    let times = [
        Some(ten),
        Some(ten + 500_000),
        Some(ten + 1),
        Some(1_705_276_800_000_000),
        None,
        None,
    ];
    check(F::Default, text(texts.to_vec()), &times);
    check(
        F::EpochMillis,
        text(vec!["1705312800000", "1705312800000.25", "x"]),
        &[Some(ten), Some(ten + 250), None],
    );
    check(
        F::Strftime("%d/%m/%Y %H:%M:%S %z".to_owned()),
        text(vec!["15/01/2024 12:00:00 +0200", "15/01/2024"]),
        &[Some(ten), None],
    );
    check(
        F::Strftime("%d.%m.%Y %H:%M".to_owned()),
        text(vec!["15.01.2024 10:00"]),
        &[Some(ten)],
    );
    check(F::Strftime("%s".to_owned()), text(vec!["1705312800"]), &[Some(ten)]);
    let date: ArrayRef = Arc::new(arrow::array::Date32Array::from(vec![Some(19_737), None]));
    check(F::Default, date, &[Some(1_705_276_800_000_000), None]);
    check(
        F::Default,
        Arc::new(arrow::array::BooleanArray::from(vec![true])),
        &[None],
    );
}

#[test]
fn every_primitive_column_can_partition() {
    use PrimitiveType as P;
    let check = |kind: P, transform: Transform, value: &str, expect: &str| {
        let fields = vec![NestedField::optional(1, "c", primitive(kind)).into()];
        let schema = Schema::builder().with_fields(fields).build().unwrap();
        let arrow = Arc::new(schema_to_arrow_schema(&schema).unwrap());
        let fields = [PartitionField::Transform {
            transform,
            column: "c".to_owned(),
        }];
        let spec = partition_spec(&schema, &fields, "c")
            .unwrap()
            .bind(schema.clone())
            .unwrap();
        let plan = Arc::new(RowPlan {
            schema: Arc::new(schema),
            arrow: arrow.clone(),
            sources: vec![ColumnSource::Payload(vec!["c".to_owned()])],
            required: HashSet::new(),
            unknown: UnknownFields::Evolve,
            flatten: false,
        });
        let placer = Placer::new(plan, Arc::new(spec), "t", None).unwrap();
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some(value), None, Some(value)]));
        let column = match arrow.field(0).data_type() {
            DataType::FixedSizeBinary(width) => {
                let bytes = [Some(value.as_bytes()), None, Some(value.as_bytes())].into_iter();
                Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes, *width).unwrap())
            }
            kind => cast(&text, kind).unwrap(),
        };
        let decoded = Decoded {
            keys: None,
            event_ids: None,
            gone: 0,
            rows: RecordBatch::try_new(arrow, vec![column]).unwrap(),
            indexes: vec![0, 1, 2],
            rejects: vec![],
            filtered: 0,
            unseen: None,
            unknown: Vec::new(),
            event_time: None,
            fields_dropped: 0,
        };
        let parts = placer.place(decoded, &chunk(3)).parts;
        let mut found: Vec<_> = parts
            .iter()
            .map(|part| (part.path.as_str(), part.rows.num_rows()))
            .collect();
        found.sort_by_key(|(_, rows)| *rows);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].0.ends_with("=null"));
        assert_eq!(found[1], (expect, 2));
    };
    let id = Transform::Identity;
    check(P::Boolean, id, "true", "c=true");
    check(P::Int, id, "-7", "c=-7");
    check(P::Long, id, "7", "c=7");
    check(P::Float, id, "1.5", "c=1.5");
    check(P::Double, id, "-0.5", "c=-0.5");
    check(P::Decimal { precision: 9, scale: 2 }, id, "12.5", "c=12.50");
    check(P::Date, id, "2024-01-15", "c=2024-01-15");
    check(P::Time, id, "10:00:01", "c=10%3A00%3A01");
    check(P::Timestamp, id, "2024-01-15T10:00:00", "c=2024-01-15T10%3A00%3A00");
    check(P::String, id, "x y", "c=x%20y");
    check(
        P::Uuid,
        id,
        "0123456789abcdef",
        "c=30313233-3435-3637-3839-616263646566",
    );
    check(P::Fixed(2), id, "ab", "c=YWI%3D");
    check(P::Binary, id, "ab", "c=YWI%3D");
    check(P::Binary, Transform::Truncate(1), "ab", "c_trunc=YQ%3D%3D");
    check(P::String, Transform::Truncate(2), "üüü", "c_trunc=%C3%BC%C3%BC");
    check(
        P::Timestamptz,
        Transform::Month,
        "1969-12-31T23:59:59Z",
        "c_month=1969-12",
    );
    check(P::Timestamptz, Transform::Year, "2024-01-15T10:00:00Z", "c_year=2024");
    check(
        P::TimestamptzNs,
        Transform::Hour,
        "2024-01-15T10:00:00Z",
        "c_hour=2024-01-15-10",
    );
    check(P::Date, Transform::Day, "2024-01-15", "c_day=2024-01-15");
    // 34 hashes to 2017239379. Source: Iceberg table spec, appendix B.
    check(P::Long, Transform::Bucket(16), "34", "c_bucket=3");
}
