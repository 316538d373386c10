//! Records written by `apache-avro` and by hand, read into columns.

use std::collections::HashSet;
use std::sync::Arc;

use apache_avro::types::Value;
use apache_avro::{Schema as Written, to_avro_datum};
use arrow::array::{
    Array, AsArray, BinaryArray, BinaryBuilder, Int64Array, ListBuilder, RecordBatch, StringBuilder, StructBuilder,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field as ArrowField, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit as ArrowUnit, TimestampMicrosecondType, TimestampNanosecondType,
};
use proptest::prelude::*;

use crate::chunk::Chunk;
use crate::config::{Column as Declared, types};
use crate::decode::Decoded;
use crate::decode::framed::{FramedDecoder, Framing};
use crate::offsets::{Offset, OffsetRange, Partition};
use crate::schema::frame::{self, SchemaKey, SchemaName};
use crate::schema::{Missing, SchemaLanguage, SchemaText, UnknownFields, WriterSchema, Writers, evolve, follow};

fn text(schema: &str) -> SchemaText {
    SchemaText {
        language: SchemaLanguage::Avro,
        text: schema.to_owned(),
        references: Vec::new(),
    }
}

fn writer(schema: &str) -> Arc<WriterSchema> {
    Arc::new(WriterSchema::parse(&SchemaKey::file(), &text(schema)).expect(schema))
}

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"r","fields":[{fields}]}}"#)
}

fn chunk(values: &[Option<Vec<u8>>]) -> Chunk {
    let count = values.len() as i64;
    Chunk {
        partition: Partition(0),
        range: OffsetRange::new(Offset::new(0), Offset::new(count.max(1))),
        offsets: (0..count).collect::<Int64Array>(),
        timestamps: (0..count).collect::<Int64Array>(),
        keys: BinaryArray::from(vec![None::<&[u8]>; values.len()]),
        values: values.iter().map(Option::as_deref).collect(),
        headers: None,
    }
}

/// A topic whose records are of these schemas, ids from 0; the table follows them in turn.
struct Topic {
    schemas: Vec<String>,
    declared: Option<Vec<Declared>>,
    unknown: UnknownFields,
    flatten: bool,
}

impl Topic {
    fn of(schemas: &[&str]) -> Topic {
        Topic {
            schemas: schemas.iter().map(|schema| (*schema).to_owned()).collect(),
            declared: None,
            unknown: UnknownFields::Evolve,
            flatten: false,
        }
    }

    fn declared(mut self, columns: &[(&str, &str, &str)]) -> Topic {
        let columns = columns.iter().map(|(name, from, of)| Declared {
            name: (*name).to_owned(),
            from: from.split('.').map(str::to_owned).collect(),
            of: types::parse(of).expect(of),
            required: false,
        });
        self.declared = Some(columns.collect());
        self.unknown = UnknownFields::Declared;
        self
    }

    fn decoder(&self) -> FramedDecoder {
        let mut writers = Writers::default();
        for (id, schema) in self.schemas.iter().enumerate() {
            writers.add(SchemaKey::id(id as i32), writer(schema));
        }
        let payload = match &self.declared {
            Some(columns) => {
                let fields = columns.iter().zip(1..);
                let fields = fields.map(|(column, id)| {
                    iceberg::spec::NestedField::new(id, &column.name, column.of.clone(), column.required)
                });
                fields.collect()
            }
            None => {
                let form = follow::Form {
                    nanos: false,
                    flatten: self.flatten,
                    ..follow::Form::default()
                };
                follow::merged(&writers, form)
            }
        };
        let schema = Arc::new(evolve::create_schema(payload, &[], false));
        let declared = self.declared.as_deref();
        let plan = evolve::row_plan(schema, declared, &[], false, self.unknown, self.flatten);
        FramedDecoder::new(
            Arc::new(plan),
            Arc::new(writers),
            Framing::Registry { indexes: false },
            None,
        )
    }

    fn decode(&self, values: &[(i32, Vec<u8>)]) -> Decoded {
        let framed = values.iter().map(|(id, body)| {
            let mut framed = vec![0];
            framed.extend(id.to_be_bytes());
            framed.extend(body);
            Some(framed)
        });
        self.decoder()
            .decode(&chunk(&framed.collect::<Vec<_>>()), &Missing::new())
    }

    /// The rows as JSON, and the reasons of rejection.
    fn check(&self, values: &[(i32, Vec<u8>)], rows: &[&str], rejects: &[&str]) {
        let decoded = self.decode(values);
        assert_eq!(decoded.unknown, []);
        let found: Vec<String> = (0..decoded.rows.num_rows())
            .map(|row| shown(&decoded.rows, row))
            .collect();
        let reasons: Vec<&str> = decoded.rejects.iter().map(|reject| reject.reason.as_str()).collect();
        assert_eq!(
            (found.iter().map(String::as_str).collect::<Vec<_>>(), reasons),
            (rows.to_vec(), rejects.to_vec())
        );
    }
}

fn shown(rows: &RecordBatch, row: usize) -> String {
    let fields = rows.schema();
    let fields = fields.fields().iter().zip(rows.columns());
    let fields: Vec<_> = fields
        .map(|(field, column)| format!("{}:{}", field.name(), seen(column, row)))
        .collect();
    fields.join(" ")
}

/// A value as a text that tells it from every other of its type.
fn seen(column: &dyn Array, row: usize) -> String {
    if column.is_null(row) {
        return "null".to_owned();
    }
    match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float32 => format!("{:?}", column.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => format!("{:?}", column.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => format!("{:?}", column.as_string::<i32>().value(row)),
        DataType::LargeBinary => format!("{:?}", column.as_binary::<i64>().value(row)),
        DataType::FixedSizeBinary(_) => format!("{:?}", column.as_fixed_size_binary().value(row)),
        DataType::Date32 => format!("{}d", column.as_primitive::<Date32Type>().value(row)),
        DataType::Time64(_) => format!("{}us", column.as_primitive::<Time64MicrosecondType>().value(row)),
        DataType::Timestamp(ArrowUnit::Microsecond, zone) => {
            let value = column.as_primitive::<TimestampMicrosecondType>().value(row);
            format!("{value}us{}", if zone.is_some() { "Z" } else { "" })
        }
        DataType::Timestamp(_, zone) => {
            let value = column.as_primitive::<TimestampNanosecondType>().value(row);
            format!("{value}ns{}", if zone.is_some() { "Z" } else { "" })
        }
        DataType::Decimal128(_, scale) => {
            format!("{}e-{scale}", column.as_primitive::<Decimal128Type>().value(row))
        }
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns().iter().zip(fields);
            let columns: Vec<_> = columns
                .map(|(column, field)| format!("{}:{}", field.name(), seen(column, row)))
                .collect();
            format!("{{{}}}", columns.join(" "))
        }
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            let items: Vec<_> = (0..items.len()).map(|item| seen(&items, item)).collect();
            format!("[{}]", items.join(" "))
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            let mut entries: Vec<_> = (0..entries.len())
                .map(|at| format!("{}={}", seen(keys, at), seen(values, at)))
                .collect();
            entries.sort();
            format!("<{}>", entries.join(" "))
        }
        other => panic!("no column is {other}"),
    }
}

fn long(value: i64) -> Vec<u8> {
    to_avro_datum(&Written::Long, Value::Long(value)).expect("a long")
}

fn string(value: &str) -> Vec<u8> {
    [long(value.len() as i64), value.as_bytes().to_vec()].concat()
}

#[test]
fn every_type_becomes_its_column() {
    let check = |of: &str, column: &str| {
        let schema = record(&format!(r#"{{"name":"x","type":{of}}}"#));
        let columns = writer(&schema).columns(false).expect(of);
        let found: Vec<_> = columns.iter().map(|column| types::text(&column.field_type)).collect();
        assert_eq!(found.join(", "), column, "{of}");
    };
    check(r#""boolean""#, "boolean");
    check(r#""int""#, "int");
    check(r#""long""#, "long");
    check(r#""float""#, "float");
    check(r#""double""#, "double");
    check(r#""bytes""#, "binary");
    check(r#""string""#, "string");
    check(r#""null""#, "");
    check(r#"["null","string"]"#, "string");
    check(r#"["string"]"#, "string");
    check(r#"["null"]"#, "");
    check(r#"{"type":"string","avro.java.string":"String"}"#, "string");
    check(r#"{"type":"enum","name":"e","symbols":["A"]}"#, "string");
    check(r#"{"type":"fixed","name":"f","size":5}"#, "fixed(5)");
    check(r#"{"type":"array","items":"int"}"#, "list<int>");
    check(r#"{"type":"array","items":"null"}"#, "list<string>");
    check(r#"{"type":"map","values":["null","long"]}"#, "map<string, long>");
    check(r#"{"type":"record","name":"e","fields":[]}"#, "string");
    check(
        r#"{"type":"record","name":"i","fields":[{"name":"a","type":"int"},{"name":"n","type":"null"}]}"#,
        "struct<a: int>",
    );
    check(
        r#"{"type":"record","name":"t","fields":[{"name":"v","type":"int"},{"name":"next","type":["null","t"]}]}"#,
        "struct<v: int, next: string>",
    );
    check(r#"["null","string","long"]"#, "struct<string: string, long: long>");
    check(
        r#"[{"type":"record","name":"a.R","fields":[{"name":"x","type":"int"}]},{"type":"record","name":"b.r","fields":[{"name":"y","type":"int"}]},{"type":"fixed","name":"F","size":1}]"#,
        "struct<a_R: struct<x: int>, b_r: struct<y: int>, F: fixed(1)>",
    );
    let logical = |base: &str, name: &str, column: &str| {
        check(&format!(r#"{{"type":"{base}","logicalType":"{name}"}}"#), column);
    };
    logical("int", "date", "date");
    logical("int", "time-millis", "time");
    logical("long", "time-micros", "time");
    for unit in ["millis", "micros", "nanos"] {
        logical("long", &format!("timestamp-{unit}"), "timestamptz");
        logical("long", &format!("local-timestamp-{unit}"), "timestamp");
    }
    logical("string", "uuid", "uuid");
    logical("string", "date", "string");
    logical("long", "made-up", "long");
    check(
        r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#,
        "decimal(9, 2)",
    );
    check(
        r#"{"type":"bytes","logicalType":"decimal","precision":39,"scale":2}"#,
        "string",
    );
    check(
        r#"{"type":"bytes","logicalType":"decimal","precision":2,"scale":9}"#,
        "binary",
    );
    check(
        r#"{"type":"fixed","name":"d","size":4,"logicalType":"decimal","precision":9}"#,
        "decimal(9, 0)",
    );
    check(r#"{"type":"fixed","name":"u","size":16,"logicalType":"uuid"}"#, "uuid");
    check(
        r#"{"type":"fixed","name":"u","size":12,"logicalType":"duration"}"#,
        "fixed(12)",
    );
    let nanos = record(r#"{"name":"x","type":{"type":"long","logicalType":"timestamp-nanos"}}"#);
    let column = &writer(&nanos).columns(true).expect("columns")[0];
    assert_eq!(types::text(&column.field_type), "timestamptz_ns");
}

#[test]
fn schemas_that_are_none_are_told() {
    let check = |schema: &str, expect: &str| {
        let found = WriterSchema::parse(&SchemaKey::file(), &text(schema)).expect_err(schema);
        assert_eq!(found, expect, "{schema}");
    };
    check("{", "it isn't JSON: EOF while parsing an object at line 1 column 1");
    check("1", "`1` is no type");
    check(r#""x""#, "`x` isn't defined before it is used");
    check(r#"{"type":"record","name":"r"}"#, "record `r` has no `fields`");
    check(
        &record(r#"{"name":"a","type":"int"},{"name":"a","type":"int"}"#),
        "`r` has two fields `a`",
    );
    check(
        &record(r#"{"name":"a","type":"foo"}"#),
        "field `a` of `r`: `foo` isn't defined before it is used",
    );
    check(&record(r#"{"name":"a"}"#), "field `a` of `r` has no `type`");
    check(r#"[["null"]]"#, "a union holds a union");
    check(
        r#"{"type":"fixed","name":"f","size":-1}"#,
        "fixed `f` has no `size` from 0 to 2147483647",
    );
    check(
        r#"[{"type":"fixed","name":"f","size":1},{"type":"fixed","name":"f","size":2}]"#,
        "`f` is defined twice",
    );
    assert!(
        WriterSchema::parse(&SchemaKey::file(), &text("string")).is_ok(),
        "a bare name"
    );
}

#[test]
fn a_short_schema_of_millions_of_columns_is_refused() {
    let mut fields =
        vec![r#"{"name":"f0","type":{"type":"record","name":"t0","fields":[{"name":"x","type":"int"}]}}"#.to_owned()];
    for level in 1..40 {
        let inner = level - 1;
        fields.push(format!(
            r#"{{"name":"f{level}","type":{{"type":"record","name":"t{level}","fields":[{{"name":"l","type":"t{inner}"}},{{"name":"r","type":"t{inner}"}}]}}}}"#
        ));
    }
    let why = writer(&record(&fields.join(","))).columns(false).expect_err("millions");
    assert_eq!(
        why,
        "it makes more than 10000 columns: declare those that you need in `columns`"
    );
}

#[test]
fn several_schemas_share_a_chunk() {
    let topic = Topic::of(&[
        &record(r#"{"name":"a","type":"int"}"#),
        &record(r#"{"name":"b","type":["null","string"],"default":null},{"name":"a","type":"long"}"#),
        &record(r#"{"name":"a","type":"long"},{"name":"c","type":"string","default":"none"}"#),
    ]);
    topic.check(
        &[
            (0, long(7)),
            (1, [long(1), string("x"), long(1 << 40)].concat()),
            (2, [long(3), string("y")].concat()),
            (0, long(-8)),
            (1, [long(0), long(5)].concat()),
        ],
        // What the newest schema has a default for isn't null in records of older ones.
        &[
            "a:7 b:null c:\"none\"",
            "a:1099511627776 b:\"x\" c:\"none\"",
            "a:3 b:null c:\"y\"",
            "a:-8 b:null c:\"none\"",
            "a:5 b:null c:\"none\"",
        ],
        &[],
    );
}

#[test]
fn aliases_bring_old_fields_to_new_columns() {
    let topic = Topic::of(&[
        &record(
            r#"{"name":"a","type":"int"},{"name":"s","type":{"type":"record","name":"s","fields":[{"name":"x","type":"int"}]}}"#,
        ),
        &record(
            r#"{"name":"b","aliases":["a"],"type":"long"},{"name":"s","type":{"type":"record","name":"s","fields":[{"name":"y","aliases":["x"],"type":"int"}]}}"#,
        ),
    ]);
    topic.check(
        &[(0, [long(1), long(2)].concat()), (1, [long(3), long(4)].concat())],
        &["b:1 s:{y:2}", "b:3 s:{y:4}"],
        &[],
    );
}

#[test]
fn what_is_wrong_with_a_record_is_told_and_costs_no_other() {
    let topic = Topic::of(&[&record(
        r#"{"name":"a","type":"int"},{"name":"t","type":{"type":"int","logicalType":"time-millis"}},{"name":"s","type":"string"},{"name":"e","type":{"type":"enum","name":"e","symbols":["A","B"]}}"#,
    )]);
    let good = [long(1), long(2), string("é"), long(1)].concat();
    topic.check(
        &[
            (0, good.clone()),
            (0, long(1 << 31)),
            (0, vec![]),
            (0, [long(1), long(86_400_000)].concat()),
            (0, [long(1), long(2), long(5), vec![b'x']].concat()),
            (0, [long(1), long(2), long(-5)].concat()),
            (0, [long(1), long(2), long(1), vec![0xFF], long(0)].concat()),
            (0, [long(1), long(2), string("x"), long(2)].concat()),
            (0, [good.clone(), vec![9]].concat()),
            (0, vec![0xFF; 11]),
            (0, good.clone()),
        ],
        &["a:1 t:2000us s:\"é\" e:\"B\"", "a:1 t:2000us s:\"é\" e:\"B\""],
        &[
            "field `a`: an int has 32 bits, 2147483648 has more, at byte 5 of the record",
            "field `a`: the value ends there, at byte 0 of the record",
            "field `t`: the value 86400000000 µs since midnight doesn't fit time, at byte 5 of the record",
            "field `s`: the value ends there, at byte 3 of the record",
            "field `s`: a length is -5, at byte 3 of the record",
            "column `s` is text, the value in it is no UTF-8",
            "field `e`: an enum of 2 symbols has none at 2, at byte 5 of the record",
            "1 bytes are left behind the record: it was written with another schema, at byte 6 of the record",
            "field `a`: a number has more than 64 bits, at byte 0 of the record",
        ],
    );
}

#[test]
fn a_schema_that_does_not_fit_the_table_rejects_just_its_records() {
    let topic = Topic::of(&[
        &record(r#"{"name":"a","type":"string"},{"name":"b","type":"int"}"#),
        &record(r#"{"name":"a","type":"int"},{"name":"b","type":["null","double"]}"#),
    ]);
    topic.check(
        &[(0, [string("x"), long(1)].concat()), (1, [long(1), long(0)].concat())],
        &["a:\"x\" b:1"],
        &["schema 1 doesn't fit the table: column `a` is string in the table, but int in the schema; column `b` is int in the table, but double in the schema"],
    );
}

#[test]
fn declared_columns_take_what_json_would_give_them() {
    let schema = record(
        r#"{"name":"id","type":"long"},{"name":"p","type":["null",{"type":"record","name":"p","fields":[{"name":"at","type":"long"},{"name":"price","type":"string"}]}]},{"name":"u","type":"string"},{"name":"rest","type":{"type":"map","values":"int"}}"#,
    );
    let topic = Topic::of(&[&schema]).declared(&[
        ("key", "id", "string"),
        ("n", "id", "int"),
        ("at", "p.at", "timestamptz"),
        ("price", "p.price", "decimal(5, 2)"),
        ("u", "u", "uuid"),
        ("rest", "rest", "string"),
        ("p", "p", "string"),
        ("no", "nowhere.x", "long"),
    ]);
    let uuid = "00000000-0000-0000-0000-000000000001";
    let map = [long(1), string("k"), long(7), long(0)].concat();
    topic.check(
        &[
            (0, [long(5), long(1), long(1000), string("1.5"), string(uuid), map.clone()].concat()),
            (0, [long(6), long(0), string(uuid), map.clone()].concat()),
            (0, [long(1 << 31), long(0), string(uuid), map.clone()].concat()),
            (0, [long(6), long(0), string("x"), map.clone()].concat()),
            (0, [long(6), long(1), long(0), string("1.555"), string(uuid), map].concat()),
        ],
        &[
            "key:\"5\" n:5 at:1000000usZ price:150e-2 u:[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] rest:\"{\\\"k\\\":7}\" p:\"{\\\"at\\\":1000,\\\"price\\\":\\\"1.5\\\"}\" no:null",
            "key:\"6\" n:6 at:null price:null u:[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] rest:\"{\\\"k\\\":7}\" p:null no:null",
        ],
        &[
            "field `id`: the value 2147483648 doesn't fit int, at byte 5 of the record",
            "field `u`: is uuid, the value \"x\" is not",
            "field `p.price`: is decimal(5, 2), the value \"1.555\" is not",
        ],
    );
}

#[test]
fn a_hostile_record_holds_no_memory_and_no_stack() {
    let schema = record(
        r#"{"name":"n","type":{"type":"array","items":"null"}},{"name":"l","type":{"type":"record","name":"l","fields":[{"name":"next","type":["null","l"]}]}}"#,
    );
    let topic = Topic::of(&[&schema]);
    let reasons = |value: Vec<u8>| -> String {
        let decoded = topic.decode(&[(0, value)]);
        decoded.rejects.iter().map(|reject| reject.reason.clone()).collect()
    };
    assert_eq!(
        reasons(long(i64::MAX)),
        "field `n`: a block has 9223372036854775807 items, 65536 are possible, at byte 10 of the record"
    );
    assert_eq!(
        reasons([long(i64::MIN), long(0)].concat()),
        "field `n`: a block has no count, at byte 11 of the record"
    );
    let deep = [long(0), vec![2; 100_000], long(0)].concat();
    let found = reasons(deep);
    assert!(found.contains("nested more than 128 deep"), "{found}");
}

#[test]
fn values_that_are_no_records_leave_columns_of_other_names_null() {
    let topic = Topic::of(&[r#""long""#]).declared(&[("a", "a", "int"), ("b", "b", "string")]);
    topic.check(&[(0, long(1)), (0, long(2))], &["a:null b:null"; 2], &[]);
}

#[test]
fn items_have_room_for_their_columns_and_decimals_for_their_digits() {
    let fields = |names: std::ops::Range<usize>| -> String {
        let fields: Vec<String> = names
            .map(|n| format!(r#"{{"name":"f{n}","type":["null","long"],"default":null}}"#))
            .collect();
        fields.join(",")
    };
    let list = |names| {
        let item = format!(r#"{{"type":"record","name":"w","fields":[{}]}}"#, fields(names));
        record(&format!(
            r#"{{"name":"n","type":{{"type":"array","items":["null",{item}]}}}}"#
        ))
    };
    let topic = Topic::of(&[&list(0..1), &list(0..1000)]);
    let nulls = |count: i64| [long(count), vec![0; count as usize], long(0)].concat();
    let decoded = topic.decode(&[(0, nulls(4000)), (0, nulls(5000)), (0, nulls(1))]);
    assert_eq!((decoded.rows.num_rows(), decoded.rejects.len()), (2, 1));
    let reason = &decoded.rejects[0].reason;
    assert!(
        reason.contains("`n`: the record makes more than 4214316 values"),
        "{reason}"
    );
    // The digits of a number that is cut are another number.
    let topic = Topic::of(&[&record(
        r#"{"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":9999,"scale":0}}"#,
    )]);
    let number = |length: usize| [long(length as i64), vec![1; length]].concat();
    let decoded = topic.decode(&[(0, number(4096)), (0, number(4097))]);
    assert_eq!(decoded.rows.num_rows(), 1);
    let reason = &decoded.rejects[0].reason;
    assert!(
        reason.contains("a decimal has 4097 bytes, 4096 are possible"),
        "{reason}"
    );
}

#[test]
fn flat_columns_take_fields_of_records_inside() {
    let mut topic = Topic::of(&[&record(
        r#"{"name":"a","type":["null",{"type":"record","name":"a","fields":[{"name":"b","type":"int"},{"name":"c","type":{"type":"record","name":"c","fields":[{"name":"d","type":"string"}]}}]}]},{"name":"e","type":"int"}"#,
    )]);
    topic.flatten = true;
    topic.check(
        &[
            (0, [long(1), long(7), string("x"), long(8)].concat()),
            (0, [long(0), long(9)].concat()),
        ],
        &["a_b:7 a_c_d:\"x\" e:8", "a_b:null a_c_d:null e:9"],
        &[],
    );
}

#[test]
fn unknown_schemas_are_asked_for_and_fields_without_columns_counted() {
    let topic = Topic::of(&[&record(r#"{"name":"a","type":"int"}"#)]);
    let decoded = topic.decode(&[(0, long(1)), (5, long(2)), (5, long(3)), (9, long(1))]);
    assert_eq!(decoded.unknown, [SchemaKey::id(5), SchemaKey::id(9)]);
    let mut topic = Topic::of(&[&record(
        r#"{"name":"a","type":"int"},{"name":"b","type":["null","string"]},{"name":"c","type":"int"}"#,
    )])
    .declared(&[("a", "a", "int")]);
    topic.unknown = UnknownFields::Ignore;
    let records = [
        (0, [long(1), long(1), string("x"), long(1)].concat()),
        (0, [long(1), long(0), long(1)].concat()),
    ];
    assert_eq!(
        topic.decode(&records).fields_dropped,
        3,
        "null isn't a value that is dropped"
    );
}

#[test]
fn a_header_names_the_schema_of_its_record() {
    let guid = uuid::Uuid::from_u128(7);
    let mut writers = Writers::default();
    let schema = writer(&record(r#"{"name":"a","type":"int"}"#));
    let key = SchemaKey {
        name: SchemaName::Guid(guid),
        ..SchemaKey::file()
    };
    writers.add(key, schema);
    writers.add(SchemaKey::id(1), writer(&record(r#"{"name":"a","type":"long"}"#)));
    let columns = evolve::create_schema(follow::merged(&writers, follow::Form::default()), &[], false);
    let plan = evolve::row_plan(Arc::new(columns), None, &[], false, UnknownFields::Evolve, false);
    let mut decoder = FramedDecoder::new(
        Arc::new(plan),
        Arc::new(writers),
        Framing::Registry { indexes: false },
        None,
    );
    // The first record has a header, the second a prefix, the third neither.
    let mut headers = ListBuilder::new(StructBuilder::from_fields(
        vec![
            ArrowField::new("key", DataType::Utf8, false),
            ArrowField::new("value", DataType::Binary, true),
        ],
        3,
    ));
    let named = headers.values();
    named
        .field_builder::<StringBuilder>(0)
        .expect("keys")
        .append_value(frame::VALUE_HEADER);
    let value = [&[1][..], guid.as_bytes()].concat();
    named
        .field_builder::<BinaryBuilder>(1)
        .expect("values")
        .append_value(&value);
    named.append(true);
    headers.append(true);
    headers.append(false);
    headers.append(true);
    let mut chunk = chunk(&[
        Some(long(5)),
        Some([vec![0, 0, 0, 0, 1], long(6)].concat()),
        Some(long(7)),
    ]);
    chunk.headers = Some(headers.finish());
    let decoded = decoder.decode(&chunk, &Missing::new());
    assert_eq!(decoded.unknown, []);
    let rows: Vec<_> = (0..decoded.rows.num_rows())
        .map(|row| shown(&decoded.rows, row))
        .collect();
    assert_eq!(
        (rows, decoded.rejects.len()),
        (vec!["a:5".to_owned(), "a:6".to_owned()], 1)
    );

    // What a header holds names nothing in front of a value, where the record before had that header.
    chunk.headers = chunk.headers.map(|headers| headers.slice(0, 1));
    chunk.values = chunk.values.slice(0, 1);
    chunk.offsets = chunk.offsets.slice(0, 1);
    assert_eq!(decoder.decode(&chunk, &Missing::new()).rows.num_rows(), 1);
    let odd = self::chunk(&[Some([value, long(5)].concat())]);
    assert_eq!(decoder.decode(&odd, &Missing::new()).rejects.len(), 1);
}

#[test]
fn a_file_holds_the_schema_of_bare_records_and_of_single_objects() {
    let mut writers = Writers::default();
    let schema = record(r#"{"name":"a","type":"int"},{"name":"b","type":"string"}"#);
    writers.add(SchemaKey::file(), writer(&schema));
    let fingerprint = crate::schema::avro::fingerprint(&crate::schema::avro::parse(&text(&schema)).expect("a schema"));
    let columns = evolve::create_schema(follow::merged(&writers, follow::Form::default()), &[], false);
    let plan = evolve::row_plan(Arc::new(columns), None, &[], false, UnknownFields::Evolve, false);
    let mut decoder = FramedDecoder::new(Arc::new(plan), Arc::new(writers), Framing::File, None);
    let body = [long(5), string("x")].concat();
    let single = [&[0xC3, 0x01][..], &fingerprint.to_le_bytes(), &body].concat();
    // -98 is written as the two bytes that begin a single object.
    let alike = [long(-98), string("y")].concat();
    assert_eq!(alike[..2], [0xC3, 0x01]);
    let decoded = decoder.decode(&chunk(&[Some(body), None, Some(single), Some(alike)]), &Missing::new());
    let rows: Vec<_> = (0..decoded.rows.num_rows())
        .map(|row| shown(&decoded.rows, row))
        .collect();
    assert_eq!(rows, ["a:5 b:\"x\"", "a:5 b:\"x\"", "a:-98 b:\"y\""]);
    assert_eq!((decoded.filtered, decoded.rejects), (1, vec![]));
}

#[test]
fn canonical_forms_have_the_fingerprints_of_others() {
    for schema in [
        r#""int""#,
        r#"{"type":"record","name":"r","namespace":"n","doc":"d","fields":[{"name":"a","type":["null","string"],"default":null},{"name":"e","type":{"type":"enum","name":"e","symbols":["A","B"]}},{"name":"f","type":{"type":"array","items":"e"}}]}"#,
        r#"{"type":"map","values":{"type":"fixed","name":"x.f","size":4}}"#,
    ] {
        let theirs = Written::parse_str(schema).expect(schema);
        let ours = crate::schema::avro::parse(&text(schema)).expect(schema);
        assert_eq!(crate::schema::avro::canonical(&ours), theirs.canonical_form());
        let fingerprint = theirs.fingerprint::<apache_avro::rabin::Rabin>().bytes;
        assert_eq!(crate::schema::avro::fingerprint(&ours).to_le_bytes(), *fingerprint);
    }
}

// --- schemas and values that are made up -----------------------------------------------------------------------------

/// A made-up type: its schema, and how a seed becomes a value of it.
#[derive(Debug, Clone)]
enum Made {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Date,
    TimeMillis,
    TimestampMicros,
    Nullable(Box<Made>),
    Array(Box<Made>),
    Map(Box<Made>),
    Record(Vec<Made>),
}

fn made() -> impl Strategy<Value = Made> {
    let leaf = prop_oneof![
        Just(Made::Boolean),
        Just(Made::Int),
        Just(Made::Long),
        Just(Made::Float),
        Just(Made::Double),
        Just(Made::Bytes),
        Just(Made::String),
        Just(Made::Date),
        Just(Made::TimeMillis),
        Just(Made::TimestampMicros),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_filter("a union holds no union", |of| !matches!(of, Made::Nullable(_)))
                .prop_map(|of| Made::Nullable(Box::new(of))),
            inner.clone().prop_map(|of| Made::Array(Box::new(of))),
            inner.clone().prop_map(|of| Made::Map(Box::new(of))),
            prop::collection::vec(inner, 1..5).prop_map(Made::Record),
        ]
    })
}

impl Made {
    fn schema(&self, named: &mut usize) -> String {
        match self {
            Made::Boolean => r#""boolean""#.to_owned(),
            Made::Int => r#""int""#.to_owned(),
            Made::Long => r#""long""#.to_owned(),
            Made::Float => r#""float""#.to_owned(),
            Made::Double => r#""double""#.to_owned(),
            Made::Bytes => r#""bytes""#.to_owned(),
            Made::String => r#""string""#.to_owned(),
            Made::Date => r#"{"type":"int","logicalType":"date"}"#.to_owned(),
            Made::TimeMillis => r#"{"type":"int","logicalType":"time-millis"}"#.to_owned(),
            Made::TimestampMicros => r#"{"type":"long","logicalType":"timestamp-micros"}"#.to_owned(),
            Made::Nullable(of) => format!(r#"["null",{}]"#, of.schema(named)),
            Made::Array(of) => format!(r#"{{"type":"array","items":{}}}"#, of.schema(named)),
            Made::Map(of) => format!(r#"{{"type":"map","values":{}}}"#, of.schema(named)),
            Made::Record(fields) => {
                *named += 1;
                let name = format!("r{named}");
                let fields = fields.iter().enumerate();
                let fields: Vec<_> = fields
                    .map(|(at, of)| format!(r#"{{"name":"f{at}","type":{}}}"#, of.schema(named)))
                    .collect();
                format!(r#"{{"type":"record","name":"{name}","fields":[{}]}}"#, fields.join(","))
            }
        }
    }

    /// A value, and what a reader of the table sees of it.
    fn value(&self, seed: &mut u64) -> (Value, String) {
        *seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let dice = *seed >> 16;
        match self {
            Made::Boolean => (Value::Boolean(dice & 1 == 1), (dice & 1 == 1).to_string()),
            Made::Int => (Value::Int(dice as i32), (dice as i32).to_string()),
            Made::Long => (Value::Long((dice << 13) as i64), ((dice << 13) as i64).to_string()),
            Made::Float => {
                let value = (dice as i32) as f32 / 7.0;
                (Value::Float(value), format!("{value:?}"))
            }
            Made::Double => {
                let value = (dice as i64) as f64 / 7.0;
                (Value::Double(value), format!("{value:?}"))
            }
            Made::Bytes => {
                let value = dice.to_le_bytes()[..(dice % 7) as usize].to_vec();
                (Value::Bytes(value.clone()), format!("{value:?}"))
            }
            Made::String => {
                let value = "aé\u{1F600}\"".repeat((dice % 4) as usize);
                (Value::String(value.clone()), format!("{value:?}"))
            }
            Made::Date => (Value::Date(dice as i32 >> 8), format!("{}d", dice as i32 >> 8)),
            Made::TimeMillis => {
                let value = (dice % 86_400_000) as i32;
                (Value::TimeMillis(value), format!("{}us", i64::from(value) * 1000))
            }
            Made::TimestampMicros => (Value::TimestampMicros(dice as i64), format!("{}usZ", dice as i64)),
            Made::Nullable(_) if dice.is_multiple_of(3) => (Value::Union(0, Box::new(Value::Null)), "null".to_owned()),
            Made::Nullable(of) => {
                let (value, seen) = of.value(seed);
                (Value::Union(1, Box::new(value)), seen)
            }
            Made::Array(of) => {
                let (values, seen): (Vec<_>, Vec<_>) = (0..dice % 4).map(|_| of.value(seed)).unzip();
                (Value::Array(values), format!("[{}]", seen.join(" ")))
            }
            Made::Map(of) => {
                let entries: Vec<_> = (0..dice % 4).map(|key| (format!("k{key}"), of.value(seed))).collect();
                let mut seen: Vec<_> = entries
                    .iter()
                    .map(|(key, (_, seen))| format!("{key:?}={seen}"))
                    .collect();
                seen.sort();
                let values = entries.into_iter().map(|(key, (value, _))| (key, value)).collect();
                (Value::Map(values), format!("<{}>", seen.join(" ")))
            }
            Made::Record(fields) => {
                let fields: Vec<_> = fields.iter().map(|of| of.value(seed)).collect();
                let seen = fields.iter().enumerate();
                let seen: Vec<_> = seen.map(|(at, (_, seen))| format!("f{at}:{seen}")).collect();
                let values = fields.into_iter().enumerate();
                let values = values.map(|(at, (value, _))| (format!("f{at}"), value)).collect();
                (Value::Record(values), format!("{{{}}}", seen.join(" ")))
            }
        }
    }
}

proptest! {
    #[test]
    fn records_of_made_up_schemas_come_back(fields in prop::collection::vec(made(), 1..6), seed: u64) {
        let of = Made::Record(fields);
        let schema = of.schema(&mut 0);
        let theirs = Written::parse_str(&schema).expect("a schema");
        let topic = Topic::of(&[&schema]);
        let mut seed = seed;
        let made: Vec<_> = (0..4).map(|_| of.value(&mut seed)).collect();
        let values: Vec<_> = made
            .iter()
            .map(|(value, _)| (0, to_avro_datum(&theirs, value.clone()).expect("a value of the schema")))
            .collect();
        let decoded = topic.decode(&values);
        prop_assert_eq!(&decoded.rejects, &[]);
        for (row, (_, expect)) in made.iter().enumerate() {
            prop_assert_eq!(&format!("{{{}}}", shown(&decoded.rows, row)), expect);
        }
        // Cut off anywhere, it is a reject; with the same columns as before.
        for (id, value) in &values {
            for end in 0..value.len() {
                let decoded = topic.decode(&[(*id, value[..end].to_vec())]);
                prop_assert!(decoded.rejects.len() == 1 && decoded.rows.num_rows() == 0, "cut at {}", end);
            }
        }
    }

    #[test]
    fn any_bytes_are_rows_or_rejects(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let schema = record(r#"{"name":"a","type":["null","int","string",{"type":"array","items":{"type":"map","values":"double"}}]},{"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":20,"scale":3}},{"name":"n","type":{"type":"array","items":{"type":"record","name":"e","fields":[]}}},{"name":"t","type":{"type":"record","name":"t","fields":[{"name":"b","type":"bytes"},{"name":"t","type":["null","t"]},{"name":"w","type":{"type":"long","logicalType":"timestamp-millis"}}]}}"#);
        let topic = Topic::of(&[&schema]);
        let decoded = topic.decode(&[(0, bytes)]);
        prop_assert_eq!(decoded.rows.num_rows() + decoded.rejects.len(), 1);
    }

    #[test]
    fn any_text_is_a_schema_or_told_not_to_be(schema in "[\\[\\]{}\":,a-z \"typenamefieldsrecord]{0,80}") {
        drop(WriterSchema::parse(&SchemaKey::file(), &text(&schema)));
    }
}

#[test]
fn ids_of_columns_are_each_their_own() {
    let schema = record(
        r#"{"name":"a","type":{"type":"map","values":{"type":"array","items":["null","int","string"]}}},{"name":"b","type":"int"}"#,
    );
    let columns = writer(&schema).columns(false).expect("columns");
    let mut ids = HashSet::new();
    fn collect(field: &iceberg::spec::NestedField, ids: &mut HashSet<i32>) {
        assert!(ids.insert(field.id), "id {} is there twice", field.id);
        match &*field.field_type {
            iceberg::spec::Type::Primitive(_) => {}
            iceberg::spec::Type::Struct(fields) => fields.fields().iter().for_each(|field| collect(field, ids)),
            iceberg::spec::Type::List(list) => collect(&list.element_field, ids),
            iceberg::spec::Type::Map(map) => {
                collect(&map.key_field, ids);
                collect(&map.value_field, ids);
            }
        }
    }
    columns.iter().for_each(|column| collect(column, &mut ids));
    assert_eq!(ids.len(), 7);
}
