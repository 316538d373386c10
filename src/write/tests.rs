#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Decimal128Array, FixedSizeBinaryArray, Float32Array, Float64Array, Int32Array, Int64Array,
    LargeBinaryArray, ListArray, MapArray, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use bytes::Bytes;
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::{
    Datum, ListType, Literal, MapType, NestedField, NullOrder, PartitionSpec, PrimitiveType, Schema, SortDirection,
    SortField, SortOrder, Struct, StructType, Transform, Type,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::LogicalType;
use parquet::file::reader::{FileReader, SerializedFileReader};
use proptest::prelude::*;

use super::loose::{Gathered, Loose, Taken};
use super::*;
use crate::place::{PartitionValue, UTC, conform, partition_path};
use crate::schema::{ColumnSource, RowPlan, UnknownFields};

fn primitive(kind: PrimitiveType) -> Type {
    Type::Primitive(kind)
}

fn plan(fields: Vec<NestedField>) -> RowPlanRef {
    let schema = Schema::builder()
        .with_fields(fields.into_iter().map(Arc::new))
        .build()
        .unwrap();
    let sources = schema
        .as_struct()
        .fields()
        .iter()
        .map(|field| ColumnSource::Payload(vec![field.name.clone()]));
    Arc::new(RowPlan {
        sources: sources.collect(),
        arrow: Arc::new(schema_to_arrow_schema(&schema).unwrap()),
        schema: Arc::new(schema),
        required: HashSet::new(),
        unknown: UnknownFields::Evolve,
        flatten: false,
    })
}

fn rows(plan: &RowPlanRef, columns: Vec<ArrayRef>) -> RecordBatch {
    let columns = columns
        .iter()
        .zip(plan.arrow.fields())
        .map(|(column, field)| conform(column, field.data_type()));
    RecordBatch::try_new(plan.arrow.clone(), columns.collect::<Result<_, _>>().unwrap()).unwrap()
}

fn part(rows: RecordBatch) -> Part {
    Part {
        value: Struct::empty(),
        path: String::new(),
        rows,
    }
}

struct Setup {
    settings: ParquetSettings,
    sort_order: Option<SortOrderRef>,
    rows_per_file_max: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            settings: ParquetSettings::default(),
            sort_order: None,
            rows_per_file_max: u64::MAX,
        }
    }
}

impl Setup {
    fn writer(self, plan: &RowPlanRef, sinks: &MemorySinks) -> WindowWriter {
        let Setup {
            settings,
            sort_order,
            rows_per_file_max,
        } = self;
        let (location, stem) = ("memory://t/data/".to_owned(), "run-1-0".to_owned());
        let spec = Arc::new(PartitionSpec::unpartition_spec());
        let sinks = Box::new(sinks.clone());
        WindowWriter::new(
            plan.clone(),
            spec,
            sort_order,
            settings,
            location,
            stem,
            rows_per_file_max,
            sinks,
        )
    }

    fn write(self, plan: &RowPlanRef, batches: Vec<RecordBatch>) -> (Vec<DataFile>, MemorySinks) {
        let sinks = MemorySinks::default();
        let mut writer = self.writer(plan, &sinks);
        batches
            .into_iter()
            .for_each(|rows| writer.write(vec![part(rows)]).unwrap());
        (writer.seal().unwrap(), sinks)
    }
}

fn read(bytes: &Bytes) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

/// A file of one optional column, with a row group per batch, and its rows read back.
fn one_column(kind: PrimitiveType, groups: Vec<ArrayRef>, mode: MetricsMode) -> DataFile {
    let plan = plan(vec![NestedField::optional(1, "c", primitive(kind))]);
    let settings = ParquetSettings {
        metrics_default: mode,
        ..ParquetSettings::default()
    };
    let sinks = MemorySinks::default();
    let mut writer = Setup {
        settings,
        ..Setup::default()
    }
    .writer(&plan, &sinks);
    for group in groups {
        writer.write(vec![part(rows(&plan, vec![group]))]).unwrap();
        writer.write_loose(0, Then::FlushSmall).unwrap();
        writer.flush_largest().unwrap();
    }
    writer.seal().unwrap().pop().unwrap()
}

fn assert_within(file: &DataFile, value: &Datum) {
    if let Some(lower) = file.lower_bounds().get(&1) {
        assert!(lower <= value, "{value} lies below {lower}");
    }
    if let Some(upper) = file.upper_bounds().get(&1) {
        assert!(value <= upper, "{value} lies above {upper}");
    }
}

fn hard_text() -> impl Strategy<Value = Option<String>> {
    let chars = prop_oneof![
        Just('\u{10FFFF}'),
        Just('\u{D7FF}'),
        Just('\u{7F}'),
        Just('\u{7FF}'),
        Just('\u{FFFF}'),
        Just('a'),
        any::<char>()
    ];
    let runs = prop::collection::vec((chars, 1..40_usize), 0..5);
    prop::option::of(runs.prop_map(|runs| runs.iter().flat_map(|(c, n)| std::iter::repeat_n(*c, *n)).collect()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_string_lies_within_its_bounds(
        groups in prop::collection::vec(prop::collection::vec(hard_text(), 1..6), 1..4),
        mode in prop_oneof![
            Just(MetricsMode::Truncate(16)), Just(MetricsMode::Truncate(1)), Just(MetricsMode::Truncate(30)), Just(MetricsMode::Full)
        ],
    ) {
        let arrays = groups.iter().map(|group| Arc::new(StringArray::from(group.clone())) as ArrayRef).collect();
        let file = one_column(PrimitiveType::String, arrays, mode);
        let values: Vec<&String> = groups.iter().flatten().flatten().collect();
        values.iter().for_each(|value| assert_within(&file, &Datum::string(value)));
        prop_assert_eq!(file.lower_bounds().is_empty(), values.is_empty());
        if mode == MetricsMode::Full {
            prop_assert_eq!(file.lower_bounds().get(&1).cloned(), values.iter().min().map(Datum::string));
            prop_assert_eq!(file.upper_bounds().get(&1).cloned(), values.iter().max().map(Datum::string));
        }
        if let MetricsMode::Truncate(length) = mode {
            for bound in file.lower_bounds().values().chain(file.upper_bounds().values()) {
                prop_assert!(bound.to_human_string().chars().count() <= length);
            }
        }
        let nulls = groups.iter().flatten().filter(|value| value.is_none()).count() as u64;
        prop_assert_eq!(file.null_value_counts()[&1], nulls);
        prop_assert_eq!(file.split_offsets().unwrap().len(), groups.len());
    }

    #[test]
    fn every_binary_lies_within_its_bounds(
        groups in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(prop_oneof![Just(255_u8), Just(0), any::<u8>()], 0..100), 1..5), 1..4)
    ) {
        let arrays = groups.iter().map(|group| {
            Arc::new(LargeBinaryArray::from_iter_values(group)) as ArrayRef
        }).collect();
        let file = one_column(PrimitiveType::Binary, arrays, MetricsMode::Truncate(16));
        groups.iter().flatten().for_each(|value| assert_within(&file, &Datum::binary(value.clone())));
        prop_assert!(file.lower_bounds().contains_key(&1));
    }

    #[test]
    fn every_number_lies_within_its_bounds_and_nan_is_in_none(
        groups in prop::collection::vec(prop::collection::vec(prop::option::of(prop_oneof![
            Just(f64::NAN), Just(-f64::NAN), Just(0.0), Just(-0.0), Just(f64::INFINITY), any::<f64>()
        ]), 1..5), 1..4)
    ) {
        let arrays = groups.iter().map(|group| Arc::new(Float64Array::from(group.clone())) as ArrayRef).collect();
        let file = one_column(PrimitiveType::Double, arrays, MetricsMode::Truncate(16));
        let values: Vec<f64> = groups.iter().flatten().flatten().copied().collect();
        let nans = values.iter().filter(|value| value.is_nan()).count();
        prop_assert_eq!(file.nan_value_counts()[&1], nans as u64);
        values.iter().filter(|value| !value.is_nan()).for_each(|value| assert_within(&file, &Datum::double(*value)));
        prop_assert!(file.lower_bounds().values().chain(file.upper_bounds().values()).all(|bound| !bound.is_nan()));
    }

    #[test]
    fn every_decimal_and_uuid_lies_within_its_bounds(
        groups in prop::collection::vec(prop::collection::vec(any::<i64>(), 1..5), 1..4),
        precision in prop_oneof![Just(9_u8), Just(18), Just(38)],
        ids in prop::collection::vec(any::<[u8; 16]>(), 1..4),
    ) {
        let value = |value: i64| i128::from(value % 999_999_999) * if precision == 38 { 1 << 70 } else { 1 };
        let arrays = groups.iter().map(|group| {
            let values = Decimal128Array::from_iter_values(group.iter().map(|n| value(*n)));
            Arc::new(values.with_precision_and_scale(precision, 2).unwrap()) as ArrayRef
        }).collect();
        let kind = PrimitiveType::Decimal { precision: precision.into(), scale: 2 };
        let file = one_column(kind.clone(), arrays, MetricsMode::Truncate(16));
        for number in groups.iter().flatten() {
            assert_within(&file, &Datum::try_from_bytes(&value(*number).to_be_bytes(), kind.clone()).unwrap());
        }
        let min = groups.iter().flatten().map(|n| value(*n)).min().unwrap();
        let min = Datum::try_from_bytes(&min.to_be_bytes(), kind).unwrap();
        prop_assert_eq!(file.lower_bounds().get(&1), Some(&min));

        let array = FixedSizeBinaryArray::try_from_iter(ids.iter()).unwrap();
        let file = one_column(PrimitiveType::Uuid, vec![Arc::new(array)], MetricsMode::Truncate(16));
        ids.iter().for_each(|id| assert_within(&file, &Datum::uuid(uuid::Uuid::from_bytes(*id))));
        prop_assert_eq!(file.lower_bounds().is_empty(), ids.iter().any(|id| id[0] >> 7 != ids[0][0] >> 7));
    }

    #[test]
    fn no_file_holds_more_rows_than_allowed(batches in prop::collection::vec(1..40_000_usize, 1..4), cap in 1000..30_000_u64) {
        let plan = plan(vec![NestedField::optional(1, "c", primitive(PrimitiveType::Long))]);
        let mut next = 0..;
        let batches: Vec<_> = batches.iter().map(|rows_of| {
            let values: Vec<i64> = next.by_ref().take(*rows_of).collect();
            rows(&plan, vec![Arc::new(Int64Array::from(values))])
        }).collect();
        let all: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let (files, sinks) = Setup { rows_per_file_max: cap, ..Setup::default() }.write(&plan, batches);
        prop_assert!(files[..files.len() - 1].iter().all(|file| file.record_count() == cap));
        let found: Vec<i64> = sinks.files().values().flat_map(|bytes| {
            read(bytes).column(0).as_primitive::<Int64Type>().values().to_vec()
        }).collect();
        prop_assert_eq!(found, (0..all as i64).collect::<Vec<_>>());
    }
}

#[test]
fn upper_bounds_are_rounded_up_or_left_out() {
    let upper = |text: &str| {
        let array: ArrayRef = Arc::new(StringArray::from(vec![text]));
        let file = one_column(PrimitiveType::String, vec![array], MetricsMode::Truncate(3));
        file.upper_bounds().get(&1).map(Datum::to_human_string)
    };
    assert_eq!(upper("abc").unwrap(), "abc");
    assert_eq!(upper("abcd").unwrap(), "abd");
    assert_eq!(upper("ab\u{10FFFF}d").unwrap(), "ac");
    assert_eq!(upper("a\u{D7FF}\u{D7FF}d").unwrap(), "a\u{D7FF}\u{E000}");
    assert_eq!(upper(&"\u{10FFFF}".repeat(100)), None);
}

#[test]
fn metrics_modes_are_honoured() {
    let array = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let counts = one_column(PrimitiveType::String, vec![array("a")], MetricsMode::Counts);
    assert!(counts.value_counts()[&1] == 1 && counts.lower_bounds().is_empty());
    let none = one_column(PrimitiveType::String, vec![array("a")], MetricsMode::None);
    assert!(none.value_counts().is_empty() && none.column_sizes()[&1] > 0);
    let long = "x".repeat(5000);
    let full = one_column(PrimitiveType::String, vec![array(&long)], MetricsMode::Full);
    assert_eq!(full.upper_bounds()[&1], Datum::string(&long));
}

#[test]
fn settings_come_from_table_properties() {
    let read = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        ParquetSettings::from_properties(&pairs.collect::<HashMap<_, _>>())
    };
    assert_eq!(read(&[]), Ok(ParquetSettings::default()));
    let settings = read(&[
        ("write.parquet.compression-codec", "SNAPPY"),
        ("write.target-file-size-bytes", "1000"),
        ("write.metadata.metrics.default", "counts"),
        ("write.metadata.metrics.column.a.b", "truncate(4)"),
    ])
    .unwrap();
    assert_eq!(settings.compression, parquet::basic::Compression::SNAPPY);
    assert_eq!(
        (settings.file_bytes_target, settings.metrics_default),
        (1000, MetricsMode::Counts)
    );
    assert_eq!(settings.metrics_of["a.b"], MetricsMode::Truncate(4));
    let check = |key: &str, value: &str, part: &str| {
        let error = read(&[(key, value)]).unwrap_err();
        assert!(error.contains(part) && error.contains(key), "{error}");
    };
    check(
        "write.parquet.compression-codec",
        "zip",
        "zstd, snappy, gzip, lz4, uncompressed",
    );
    check("write.parquet.compression-level", "40", "1 to 22");
    check("write.parquet.row-group-size-bytes", "0", "above 0");
    check("write.metadata.metrics.default", "truncate(0)", "truncate(N)");
}

#[test]
fn files_roll_at_their_target_size() {
    let plan = plan(vec![NestedField::optional(1, "c", primitive(PrimitiveType::String))]);
    let mut seed = 1_u64;
    let values: Vec<String> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        format!("{seed:032x}")
    })
    .take(100_000)
    .collect();
    let rows = rows(&plan, vec![Arc::new(StringArray::from(values))]);
    let settings = ParquetSettings {
        file_bytes_target: 500_000,
        ..ParquetSettings::default()
    };
    let (files, sinks) = Setup {
        settings,
        ..Setup::default()
    }
    .write(&plan, vec![rows]);
    assert!(files.len() > 2, "{}", files.len());
    assert_eq!(files.iter().map(DataFile::record_count).sum::<u64>(), 100_000);
    for file in &files {
        assert_eq!(sinks.files()[file.file_path()].len() as u64, file.file_size_in_bytes());
        assert!(file.file_size_in_bytes() < 1_500_000);
    }
    assert_eq!(files[1].file_path(), "memory://t/data/run-1-0-00001.parquet");
}

#[test]
fn columns_that_never_repeat_have_no_dictionary() {
    let inner = NestedField::optional(4, "unique", primitive(PrimitiveType::String));
    let plan = plan(vec![
        NestedField::optional(1, "unique", primitive(PrimitiveType::Long)),
        NestedField::optional(2, "few", primitive(PrimitiveType::Long)),
        NestedField::optional(3, "inside", Type::Struct(StructType::new(vec![Arc::new(inner)]))),
        NestedField::optional(5, "empty", primitive(PrimitiveType::Long)),
    ]);
    let batch = |numbers: std::ops::Range<i64>| {
        let text = StringArray::from_iter_values(numbers.clone().map(|n| format!("{n:032}")));
        let text: ArrayRef = Arc::new(text);
        let field = arrow::datatypes::Field::new("unique", DataType::Utf8, true);
        let inside: ArrayRef = Arc::new(StructArray::from(vec![(Arc::new(field), text)]));
        let unique: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.clone()));
        let few: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.clone().map(|n| n % 1000)));
        let empty: ArrayRef = Arc::new(Int64Array::new_null(unique.len()));
        rows(&plan, vec![unique, few, inside, empty])
    };
    let has_dictionary = |sinks: &MemorySinks| -> Vec<bool> {
        let bytes = sinks.files().into_values().next().unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        let columns = reader.metadata().row_group(0).columns().iter();
        columns
            .map(|column| column.dictionary_page_offset().is_some())
            .collect()
    };
    let (files, sinks) = Setup::default().write(&plan, vec![batch(0..5000), batch(5000..9000)]);
    assert_eq!(has_dictionary(&sinks), [false, true, false, true]);
    assert_eq!(read(&sinks.files()[files[0].file_path()]).num_rows(), 9000);

    // Too few rows to judge by.
    let (_, sinks) = Setup::default().write(&plan, vec![batch(0..100)]);
    assert_eq!(has_dictionary(&sinks), [true; 4]);
}

fn nested_plan() -> RowPlanRef {
    let kinds = StructType::new(vec![
        NestedField::optional(21, "price", primitive(PrimitiveType::Float)).into(),
        NestedField::optional(22, "at", primitive(PrimitiveType::Timestamptz)).into(),
    ]);
    let list = ListType {
        element_field: NestedField::list_element(31, primitive(PrimitiveType::String), false).into(),
    };
    let map = MapType {
        key_field: NestedField::map_key_element(41, primitive(PrimitiveType::String)).into(),
        value_field: NestedField::map_value_element(42, primitive(PrimitiveType::Uuid), false).into(),
    };
    plan(vec![
        NestedField::optional(1, "id", primitive(PrimitiveType::Uuid)),
        NestedField::optional(2, "item", Type::Struct(kinds)),
        NestedField::optional(3, "tags", Type::List(list)),
        NestedField::optional(4, "keys", Type::Map(map)),
    ])
}

fn nested_rows(plan: &RowPlanRef) -> RecordBatch {
    let ids = || FixedSizeBinaryArray::try_from_iter([[1_u8; 16], [2; 16]].iter()).unwrap();
    let DataType::Struct(item) = plan.arrow.field(1).data_type() else {
        panic!("item is a struct")
    };
    let at = TimestampMicrosecondArray::from(vec![Some(5), None]).with_timezone(UTC);
    let item = StructArray::new(
        item.clone(),
        vec![Arc::new(Float32Array::from(vec![f32::NAN, 2.5])), Arc::new(at)],
        Some(vec![false, true].into()),
    );
    let DataType::List(element) = plan.arrow.field(2).data_type() else {
        panic!("tags is a list")
    };
    let tags = StringArray::from(vec![Some("a"), None, Some("c")]);
    let tags = ListArray::new(
        element.clone(),
        OffsetBuffer::from_lengths([3, 0]),
        Arc::new(tags),
        None,
    );
    let DataType::Map(entries, _) = plan.arrow.field(3).data_type() else {
        panic!("keys is a map")
    };
    let DataType::Struct(fields) = entries.data_type() else {
        panic!("entries are structs")
    };
    let pairs = StructArray::new(
        fields.clone(),
        vec![Arc::new(StringArray::from(vec!["x", "y"])), Arc::new(ids())],
        None,
    );
    let keys = MapArray::new(entries.clone(), OffsetBuffer::from_lengths([0, 2]), pairs, None, false);
    rows(
        plan,
        vec![Arc::new(ids()), Arc::new(item), Arc::new(tags), Arc::new(keys)],
    )
}

#[test]
fn nested_columns_come_back_and_are_counted() {
    let plan = nested_plan();
    let written = nested_rows(&plan);
    let (files, sinks) = Setup::default().write(&plan, vec![written.clone()]);
    let bytes = &sinks.files()[files[0].file_path()];
    let found = read(bytes);
    for (position, field) in plan.arrow.fields().iter().enumerate() {
        let column = conform(found.column(position), field.data_type()).unwrap();
        assert_eq!(&column, written.column(position), "{}", field.name());
    }
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap();
    let parquet = reader.parquet_schema();
    let leaves: Vec<_> = parquet
        .columns()
        .iter()
        .map(|column| column.self_type().get_basic_info().clone())
        .collect();
    assert_eq!(
        leaves.iter().map(|leaf| leaf.id()).collect::<Vec<_>>(),
        [1, 21, 22, 31, 41, 42]
    );
    assert_eq!(leaves[0].logical_type_ref(), Some(&LogicalType::Uuid));
    assert_eq!(leaves[5].logical_type_ref(), Some(&LogicalType::Uuid));
    assert_eq!(parquet.root_schema().get_fields()[1].get_basic_info().id(), 2);

    let file = &files[0];
    assert_eq!(file.record_count(), 2);
    assert_eq!(file.nan_value_counts()[&21], 0, "the NaN lies below a null struct");
    assert_eq!((file.null_value_counts()[&21], file.value_counts()[&21]), (1, 2));
    assert_eq!(file.lower_bounds()[&21], Datum::float(2.5));
    assert_eq!(
        file.null_value_counts()[&31],
        2,
        "an empty list counts as Parquet counts it"
    );
    assert!(!file.lower_bounds().contains_key(&31) && !file.lower_bounds().contains_key(&41));
    assert_eq!(file.lower_bounds()[&1], Datum::uuid(uuid::Uuid::from_bytes([1; 16])));
}

#[test]
fn a_sort_order_of_columns_is_kept_and_stamped() {
    let plan = plan(vec![
        NestedField::optional(1, "a", primitive(PrimitiveType::Long)),
        NestedField::optional(2, "b", primitive(PrimitiveType::String)),
    ]);
    let order = |transform| {
        let field = |source_id, direction| SortField {
            source_id,
            transform,
            direction,
            null_order: NullOrder::Last,
        };
        let fields = vec![field(1, SortDirection::Descending), field(2, SortDirection::Ascending)];
        Some(Arc::new(SortOrder { order_id: 7, fields }))
    };
    let batch = |values: Vec<Option<i64>>, texts: Vec<&str>| {
        rows(
            &plan,
            vec![Arc::new(Int64Array::from(values)), Arc::new(StringArray::from(texts))],
        )
    };
    let batches = vec![
        batch(vec![Some(1), None, Some(3)], vec!["x", "y", "z"]),
        batch(vec![Some(3), Some(2)], vec!["a", "b"]),
    ];
    let setup = Setup {
        sort_order: order(Transform::Identity),
        rows_per_file_max: 4,
        ..Setup::default()
    };
    let (files, sinks) = setup.write(&plan, batches.clone());
    assert_eq!(
        files.iter().map(DataFile::sort_order_id).collect::<Vec<_>>(),
        [Some(7), Some(7)]
    );
    let found = read(&sinks.files()[files[0].file_path()]);
    let values: Vec<_> = found.column(0).as_primitive::<Int64Type>().iter().collect();
    assert_eq!(values, [Some(3), Some(3), Some(1), None]);
    assert_eq!(found.column(1).as_string::<i32>().value(0), "a");

    let setup = Setup {
        sort_order: order(Transform::Bucket(4)),
        ..Setup::default()
    };
    let (files, _) = setup.write(&plan, batches);
    assert_eq!(files[0].sort_order_id(), None);
}

#[test]
fn a_sorted_file_is_closed_when_its_memory_is_wanted() {
    let plan = plan(vec![NestedField::optional(1, "a", primitive(PrimitiveType::Int))]);
    let field = SortField {
        source_id: 1,
        transform: Transform::Identity,
        direction: SortDirection::Ascending,
        null_order: NullOrder::First,
    };
    let sort_order = Some(Arc::new(SortOrder {
        order_id: 1,
        fields: vec![field],
    }));
    let sinks = MemorySinks::default();
    let mut writer = Setup {
        sort_order,
        ..Setup::default()
    }
    .writer(&plan, &sinks);
    writer
        .write(vec![part(rows(&plan, vec![Arc::new(Int32Array::from(vec![2, 1]))]))])
        .unwrap();
    assert!(writer.held_bytes() >= 8);
    writer.relieve(7).unwrap();
    assert_eq!((writer.held_bytes(), writer.open.len()), (0, 0));
    assert_eq!(writer.seal().unwrap().len(), 1);
}

#[test]
fn partitions_that_share_a_directory_have_files_of_their_own() {
    let plan = plan(vec![NestedField::optional(1, "c", primitive(PrimitiveType::String))]);
    let spec = PartitionSpec::builder(plan.schema.clone())
        .with_spec_id(5)
        .add_partition_field("c", "c", Transform::Identity)
        .unwrap()
        .build()
        .unwrap();
    let sinks = MemorySinks::default();
    let settings = ParquetSettings::default();
    let (location, stem) = ("memory://t/data".to_owned(), "s".to_owned());
    let sink = Box::new(sinks.clone());
    let mut writer = WindowWriter::new(
        plan.clone(),
        Arc::new(spec.clone()),
        None,
        settings,
        location,
        stem,
        100,
        sink,
    );
    for text in [None, Some("null"), Some("a/../../b"), None] {
        let value = Struct::from_iter([text.map(Literal::string)]);
        let path = partition_path(&spec, &plan.schema, &value);
        writer
            .write(vec![Part {
                value,
                path,
                rows: rows(&plan, vec![Arc::new(StringArray::from(vec![text]))]),
            }])
            .unwrap();
    }
    let files = writer.seal().unwrap();
    let paths: Vec<_> = files.iter().map(DataFile::file_path).collect();
    assert_eq!(
        paths,
        [
            "memory://t/data/c=null/s-00000.parquet",
            "memory://t/data/c=null/s-00001.parquet",
            "memory://t/data/c=a%2F..%2F..%2Fb/s-00002.parquet",
        ]
    );
    assert_eq!(
        (files[0].record_count(), files[0].partition()),
        (2, &Struct::from_iter([None]))
    );
}

/// A plan of a number and a hundred bytes of text.
fn wide_plan() -> RowPlanRef {
    plan(vec![
        NestedField::optional(1, "c", primitive(PrimitiveType::Int)),
        NestedField::optional(2, "text", primitive(PrimitiveType::String)),
    ])
}

fn wide_rows(plan: &RowPlanRef, numbers: Vec<i32>) -> RecordBatch {
    let text = StringArray::from_iter_values(numbers.iter().map(|number| format!("{:0100}", number / 100)));
    rows(plan, vec![Arc::new(Int32Array::from(numbers)), Arc::new(text)])
}

/// Chunks of `rows` rows each, in which a row's value is what `value_of` makes of its number through all chunks.
fn scattered(plan: &RowPlanRef, chunks: i32, rows_each: i32, value_of: impl Fn(i32) -> i32) -> Vec<Scattered> {
    let chunk = |chunk: i32| {
        let numbers: Vec<i32> = (chunk * rows_each..(chunk + 1) * rows_each).collect();
        let mut rows_of: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
        for (row, number) in numbers.iter().enumerate() {
            rows_of.entry(value_of(*number)).or_default().push(row as u32);
        }
        let value = |value: &i32| {
            Arc::new(PartitionValue {
                value: Struct::from_iter([Some(Literal::int(*value))]),
                path: format!("p={value}"),
            })
        };
        Scattered {
            rows: wide_rows(plan, numbers),
            values: rows_of.keys().map(value).collect(),
            rows_of: rows_of.into_values().collect(),
        }
    };
    (0..chunks).map(chunk).collect()
}

/// The rows of each finished file, by its directory.
fn numbers_of(sinks: &MemorySinks) -> Vec<(String, Vec<i32>)> {
    let files = sinks.files().into_iter().map(|(path, bytes)| {
        let directory = path.rsplit('/').nth(1).expect("a directory").to_owned();
        let rows = read(&bytes);
        (directory, rows.column(0).as_primitive::<Int32Type>().values().to_vec())
    });
    files.collect()
}

#[test]
fn rows_scattered_over_many_values_make_one_file_each_within_the_memory_allowed() {
    const VALUES: i32 = 200;
    const BYTES_MAX: usize = 24 << 20;
    let plan = wide_plan();
    let sinks = MemorySinks::default();
    let mut writer = Setup::default().writer(&plan, &sinks);
    let mut relieved = 0;
    for chunk in scattered(&plan, 100, 4_000, |number| (number * 7) % VALUES) {
        writer.scatter(chunk).unwrap();
        relieved += i32::from(writer.held_bytes() > BYTES_MAX);
        writer.relieve(BYTES_MAX).unwrap();
        assert!(writer.held_bytes() <= BYTES_MAX, "{}", writer.held_bytes());
    }
    assert!(relieved > 0, "the memory was never spent");
    let files = writer.seal().unwrap();
    assert_eq!(files.len(), VALUES as usize);
    assert_eq!(files.iter().map(DataFile::record_count).sum::<u64>(), 400_000);
    for (directory, numbers) in numbers_of(&sinks) {
        assert_eq!(numbers.len(), 2_000, "{directory}");
        assert!(numbers.is_sorted(), "rows of one value keep their order");
        assert!(
            numbers
                .iter()
                .all(|number| format!("p={}", (number * 7) % VALUES) == directory)
        );
    }
}

fn gathered(plan: &RowPlanRef, taken: &Taken, part: &Gathered) -> RecordBatch {
    let batches: Vec<RecordBatch> = taken.batches(part).map(Result::unwrap).collect();
    concat_batches(&plan.arrow, &batches).unwrap()
}

/// The most that one page holds once it is unpacked, in bytes.
fn largest_page(bytes: &Bytes) -> usize {
    let reader = SerializedFileReader::new(bytes.clone()).unwrap();
    let mut largest = 0;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).unwrap();
        for column in 0..group.num_columns() {
            let pages = group.get_column_page_reader(column).unwrap();
            largest = pages.map(|page| page.unwrap().buffer().len()).fold(largest, usize::max);
        }
    }
    largest
}

#[test]
fn large_rows_are_copied_and_encoded_a_few_at_a_time() {
    const ROW_BYTES: usize = 500_000;
    let plan = wide_plan();
    let chunk = |from: i32, count: i32| {
        let numbers: Vec<i32> = (from..from + count).rev().collect();
        let text = numbers
            .iter()
            .map(|number| format!("{number:05}").repeat(ROW_BYTES / 5));
        let text = StringArray::from_iter_values(text);
        rows(&plan, vec![Arc::new(Int32Array::from(numbers)), Arc::new(text)])
    };
    // Some that fill a page at once, some that wait for others, and some that are sorted.
    let descending = SortField {
        source_id: 1,
        transform: Transform::Identity,
        direction: SortDirection::Descending,
        null_order: NullOrder::Last,
    };
    let order = SortOrder {
        order_id: 1,
        fields: vec![descending],
    };
    for (sort_order, count) in [(None, 4), (None, 1), (Some(Arc::new(order)), 4)] {
        let sorted = sort_order.is_some();
        let setup = Setup {
            sort_order,
            ..Setup::default()
        };
        let chunks = (0..60 / count).map(|at| chunk(at * count, count)).collect();
        let (_, sinks) = setup.write(&plan, chunks);
        let files = sinks.files();
        assert_eq!(files.len(), 1);
        for bytes in files.values() {
            assert!(largest_page(bytes) < 6 << 20, "{}", largest_page(bytes));
            let numbers = read(bytes).column(0).as_primitive::<Int32Type>().values().to_vec();
            assert_eq!(numbers.iter().copied().collect::<HashSet<_>>(), (0..60).collect());
            assert!(!sorted || numbers.is_sorted_by(|one, next| one > next));
        }
    }
}

#[test]
fn a_large_value_among_small_ones_goes_first_and_leaves_them_time() {
    let plan = wide_plan();
    let mut loose = Loose::default();
    for chunk in scattered(&plan, 2, 400, |number| if number % 2 == 0 { -1 } else { number % 40 }) {
        loose.add(chunk).unwrap();
    }
    let taken = loose.take(500).unwrap();
    assert_eq!(taken.parts.len(), 1, "the large one is enough");
    let rows = gathered(&plan, &taken, &taken.parts[0]);
    let expected: Vec<i32> = (0..800).step_by(2).collect();
    assert_eq!(rows.column(0).as_primitive::<Int32Type>().values(), &expected[..]);
    assert_eq!(loose.rows(), 400);
    let taken = loose.take(0).unwrap();
    assert_eq!((taken.parts.len(), loose.rows(), loose.bytes()), (20, 0, 0));
    let mut all = Vec::new();
    for part in &taken.parts {
        let rows = gathered(&plan, &taken, part);
        let numbers = rows.column(0).as_primitive::<Int32Type>().values().to_vec();
        assert!(
            numbers
                .iter()
                .all(|number| part.value == Struct::from_iter([Some(Literal::int(number % 40))]))
        );
        all.extend(numbers);
    }
    all.sort_unstable();
    assert_eq!(all, (1..800).step_by(2).collect::<Vec<i32>>());
}

#[test]
fn rows_that_trickle_in_wait_together() {
    let plan = plan(vec![NestedField::optional(1, "c", primitive(PrimitiveType::Int))]);
    let sinks = MemorySinks::default();
    let mut writer = Setup::default().writer(&plan, &sinks);
    for number in 0..1_000 {
        let rows = rows(&plan, vec![Arc::new(Int32Array::from(vec![number]))]);
        let value = Struct::from_iter([Some(Literal::int(number % 3))]);
        let path = format!("p={}", number % 3);
        writer.write(vec![Part { value, path, rows }]).unwrap();
    }
    assert_eq!(writer.open.len(), 0, "no encoder is open for them");
    assert!(writer.held_bytes() < 1 << 20, "{}", writer.held_bytes());
    assert_eq!(writer.seal().unwrap().len(), 3);
    let mut found = numbers_of(&sinks);
    found.sort();
    let expected: Vec<(String, Vec<i32>)> = (0..3)
        .map(|value| (format!("p={value}"), (value..1_000).step_by(3).collect()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_new_plan_begins_new_files() {
    let narrow = plan(vec![NestedField::optional(1, "a", primitive(PrimitiveType::Int))]);
    let wide = plan(vec![
        NestedField::optional(1, "a", primitive(PrimitiveType::Int)),
        NestedField::optional(2, "b", primitive(PrimitiveType::Int)),
    ]);
    let sinks = MemorySinks::default();
    let mut writer = Setup::default().writer(&narrow, &sinks);
    let column = || Arc::new(Int32Array::from(vec![1])) as ArrayRef;
    writer.write(vec![part(rows(&narrow, vec![column()]))]).unwrap();
    writer.replan(wide.clone()).unwrap();
    writer.write(vec![part(rows(&wide, vec![column(), column()]))]).unwrap();
    let files = writer.seal().unwrap();
    assert_eq!(
        files.iter().map(|file| file.value_counts().len()).collect::<Vec<_>>(),
        [1, 2]
    );
}

struct Failing {
    opens: bool,
    lies: bool,
}

impl FileSinks for Failing {
    fn open(&mut self, _: &str) -> io::Result<Box<dyn FileSink>> {
        let sink = Failing {
            opens: self.opens,
            lies: self.lies,
        };
        if self.opens {
            Ok(Box::new(sink))
        } else {
            Err(io::Error::other("no"))
        }
    }
}

impl io::Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FileSink for Failing {
    fn finish(self: Box<Self>) -> Finishing {
        Finishing::new(move || match self.lies {
            true => Ok(3),
            false => Err(io::Error::other("gone")),
        })
    }
}

#[test]
fn what_the_store_refuses_is_said() {
    let plan = plan(vec![NestedField::optional(1, "a", primitive(PrimitiveType::Int))]);
    let outcome = |opens, lies| {
        let spec = Arc::new(PartitionSpec::unpartition_spec());
        let (settings, sinks) = (ParquetSettings::default(), Box::new(Failing { opens, lies }));
        let mut writer = WindowWriter::new(
            plan.clone(),
            spec,
            None,
            settings,
            "d".to_owned(),
            "s".to_owned(),
            9,
            sinks,
        );
        writer.write(vec![part(rows(&plan, vec![Arc::new(Int32Array::from(vec![1]))]))])?;
        writer.seal()
    };
    assert!(matches!(outcome(false, false), Err(WriteError::Open { .. })));
    assert!(matches!(outcome(true, false), Err(WriteError::Finish { .. })));
    assert!(matches!(outcome(true, true), Err(WriteError::Size { stored: 3, .. })));
}
