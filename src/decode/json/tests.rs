use std::fmt::Write as _;

use arrow::array::{ArrayRef, AsArray, BinaryArray, Int64Array};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use iceberg::spec::{NestedField, PrimitiveType};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::config::Column;
use crate::offsets::{Offset, OffsetRange, Partition};
use crate::schema::evolve::{create_schema, row_plan};
use crate::schema::infer;

fn chunk(values: &[Option<&[u8]>]) -> Chunk {
    let n = values.len() as i64;
    Chunk {
        partition: Partition(0),
        range: OffsetRange::new(Offset::new(0), Offset::new(n)),
        offsets: Int64Array::from_iter_values(0..n),
        timestamps: Int64Array::from(vec![None; values.len()]),
        keys: BinaryArray::from(vec![None; values.len()]),
        values: BinaryArray::from(values.to_vec()),
        headers: None,
    }
}

/// A decoder for columns written `name: type`, a `!` behind the name for required, `name<from.path` for a path.
fn decoder(columns: &[&str], unknown: UnknownFields, flatten: bool) -> JsonDecoder {
    let mut fields = Vec::new();
    let mut declared = Vec::new();
    for column in columns {
        let (name, of) = column.split_once(": ").expect("name: type");
        let (name, required) = name.strip_suffix('!').map_or((name, false), |name| (name, true));
        let (name, from) = name.split_once('<').unwrap_or((name, name));
        fields.push(NestedField::new(0, name, types::parse(of).expect(of), required));
        declared.push(Column {
            name: name.to_owned(),
            from: from.split('.').map(str::to_owned).collect(),
            of: types::parse(of).expect(of),
            required,
        });
    }
    let schema = Arc::new(create_schema(fields, &[], false));
    JsonDecoder::new(Arc::new(row_plan(
        schema,
        Some(&declared),
        &[],
        false,
        unknown,
        flatten,
    )))
}

fn decode(decoder: &mut JsonDecoder, records: &[&[u8]]) -> Decoded {
    let values: Vec<_> = records.iter().map(|record| Some(*record)).collect();
    let decoded = decoder.decode(&chunk(&values));
    assert_eq!(decoded.rows.num_rows() + decoded.rejects.len(), records.len());
    assert_eq!(decoded.rows.num_rows(), decoded.indexes.len());
    decoded
}

/// Writes a row as `a|b|c`, the columns' values in Arrow's own notation.
fn row(decoded: &Decoded, at: usize) -> String {
    let options = FormatOptions::new().with_null("null");
    let mut text = String::new();
    for (index, column) in decoded.rows.columns().iter().enumerate() {
        let formatter = ArrayFormatter::try_new(column, &options).expect("every type has a format");
        write!(text, "{}{}", if index > 0 { "|" } else { "" }, formatter.value(at)).expect("a string takes it");
    }
    text
}

/// One record into one or more columns (`;` between): the row, or the reason behind `! `.
fn check(columns: &str, json: &str, expect: &str) {
    let columns: Vec<&str> = columns.split("; ").collect();
    let decoded = decode(
        &mut decoder(&columns, UnknownFields::Declared, false),
        &[json.as_bytes()],
    );
    let got = match decoded.rejects.first() {
        Some(reject) => format!("! {}", reject.reason),
        None => row(&decoded, 0),
    };
    assert_eq!(got, expect, "{json} into {columns:?}");
}

#[test]
fn values_that_fit_their_columns() {
    for (columns, json, expect) in [
        ("a: boolean; b: boolean", r#"{"a":true,"b":false}"#, "true|false"),
        (
            "a: int; b: long",
            r#"{"a":-2147483648,"b":9223372036854775807}"#,
            "-2147483648|9223372036854775807",
        ),
        (
            "a: long; b: long; c: long",
            r#"{"a":1e2,"b":1.0,"c":-1.5E1}"#,
            "100|1|-15",
        ),
        ("a: long", r#"{"a":-9223372036854775808}"#, "-9223372036854775808"),
        ("a: double; b: double", r#"{"a":3,"b":-0.25}"#, "3.0|-0.25"),
        ("a: float", r#"{"a":1.5e3}"#, "1500.0"),
        (
            "a: decimal(5, 2); b: decimal(5, 2)",
            r#"{"a":123.4500,"b":"-0.01"}"#,
            "123.45|-0.01",
        ),
        (
            "a: decimal(38, 0)",
            r#"{"a":99999999999999999999999999999999999999}"#,
            "99999999999999999999999999999999999999",
        ),
        (
            "a: date; b: date",
            r#"{"a":"2024-02-29","b":"1969-12-31"}"#,
            "2024-02-29|1969-12-31",
        ),
        ("a: time", r#"{"a":"10:30:00.1234567"}"#, "10:30:00.123456"),
        (
            "a: timestamp",
            r#"{"a":"2024-01-15T10:30:00.5"}"#,
            "2024-01-15T10:30:00.500",
        ),
        (
            "a: timestamptz",
            r#"{"a":"2024-01-15T10:30:00+02:00"}"#,
            "2024-01-15T08:30:00Z",
        ),
        ("a: timestamptz", r#"{"a":1705311000123}"#, "2024-01-15T09:30:00.123Z"),
        ("a: timestamp", r#"{"a":-1}"#, "1969-12-31T23:59:59.999"),
        (
            "a: string; b: string",
            r#"{"a":"x\n\u00e9\ud83d\ude00","b":{"c": [1]}}"#,
            "x\né😀|{\"c\": [1]}",
        ),
        ("a: string; b: string", r#"{"a":1.50,"b":true}"#, "1.50|true"),
        (
            "a: uuid",
            r#"{"a":"6f9619ff-8b86-d011-b42d-00c04fc964ff"}"#,
            "6f9619ff8b86d011b42d00c04fc964ff",
        ),
        ("a: binary; b: binary", r#"{"a":"AP8=","b":"-_8"}"#, "00ff|fbff"),
        ("a: fixed(2)", r#"{"a":"AP8="}"#, "00ff"),
        ("a: list<long>", r#"{"a":[1, null ,3]}"#, "[1, null, 3]"),
        (
            "a: struct<b: long, c: list<string>>",
            r#"{"a":{"C":["x"],"z":0}}"#,
            "{b: null, c: [x]}",
        ),
        ("a: map<string, long>", r#"{"a":{"x":1,"y":2,"x":3}}"#, "{x: 3, y: 2}"),
        ("a: map<int, string>", r#"{"a":{"7":"x"}}"#, "{7: x}"),
        (
            "a: list<list<long>>; b: map<string, long>",
            r#"{"a":[[],[1]],"b":{}}"#,
            "[[], [1]]|{}",
        ),
        ("A: long; b: long", r#"{"a":1,"b":null}"#, "1|null"),
        ("a: long", "\u{feff}{\"a\":1}", "1"),
        ("a: long", " \r\n\t{ \"a\" : 1 } \n", "1"),
        ("a: long", r#"{}"#, "null"),
        ("a: long", r#"{"\u0061":1}"#, "1"),
        ("a: long", r#"{"a":1,"a":2}"#, "2"),
        ("a: long", r#"{"a":1,"a":null}"#, "null"),
        ("a: long", r#"{"a":"x","a":2}"#, "2"),
        ("a: struct<b: long>", r#"{"a":{"b":"x","b":[1]},"a":{"b":5}}"#, "{b: 5}"),
        ("a: struct<b: long>", r#"{"a":{"b":1,"b":2}}"#, "{b: 2}"),
        ("id<p.ID: long; all<p: string", r#"{"p":{"id":7}}"#, "7|{\"id\":7}"),
        ("id<p.id: long", r#"{"p":5}"#, "null"),
        ("id<p.id: long", r#"{"p":{"id":1},"p":{}}"#, "null"),
    ] {
        check(columns, json, expect);
    }
}

#[test]
fn values_that_do_not_fit_say_what_would_take_them() {
    for (columns, json, expect) in [
        (
            "n: long",
            r#"{"n":1.5}"#,
            "! column `n` is long, the value 1.5 is not; `- {name: n, type: double}` would take it",
        ),
        (
            "n: long",
            r#"{"n":"12"}"#,
            "! column `n` is long, the value \"12\" is not; `- {name: n, type: string}` would take it",
        ),
        (
            "n: int",
            r#"{"n":2147483648}"#,
            "! column `n` is int, the value 2147483648 is not; `- {name: n, type: long}` would take it",
        ),
        (
            "n: long",
            r#"{"n":9223372036854775808}"#,
            "! column `n` is long, the value 9223372036854775808 is not; `- {name: n, type: \"decimal(38, 0)\"}` would take it",
        ),
        (
            "n: boolean",
            r#"{"n":1}"#,
            "! column `n` is boolean, the value 1 is not; `- {name: n, type: long}` would take it",
        ),
        (
            "n: double",
            r#"{"n":1e999}"#,
            "! column `n` is double, the value 1e999 is not; `- {name: n, type: string}` would take it",
        ),
        (
            "n: decimal(3, 1)",
            r#"{"n":1.25}"#,
            "! column `n` is decimal(3, 1), the value 1.25 is not; `- {name: n, type: string}` would take it",
        ),
        (
            "t: timestamp",
            r#"{"t":"2024-01-15T10:30:00Z"}"#,
            "! column `t` is timestamp, the value \"2024-01-15T10:30:00Z\" is not; `- {name: t, type: timestamptz}` would take it",
        ),
        (
            "t: timestamptz",
            r#"{"t":"2024-01-15T10:30:00"}"#,
            "! column `t` is timestamptz, the value \"2024-01-15T10:30:00\" is not; `- {name: t, type: timestamp}` would take it",
        ),
        (
            "d: date",
            r#"{"d":"2023-02-29"}"#,
            "! column `d` is date, the value \"2023-02-29\" is not; `- {name: d, type: string}` would take it",
        ),
        (
            "f: fixed(2)",
            r#"{"f":"AA=="}"#,
            "! column `f` is fixed(2), the value \"AA==\" is not; `- {name: f, type: string}` would take it",
        ),
        (
            "a: struct<b: list<long>, c: int>",
            r#"{"a":{"b":[1,true]}}"#,
            "! column `a.b.element` is long, the value true is not; \
             `- {name: a, type: \"struct<b: list<boolean>, c: int>\"}` would take it",
        ),
        (
            "m: map<string, long>",
            r#"{"m":{"x":{}}}"#,
            "! column `m.value` is long, the value {} is not; `- {name: m, type: \"map<string, string>\"}` would take it",
        ),
        (
            "a: list<long>",
            r#"{"a":1}"#,
            "! column `a` is list<long>, the value 1 is not; `- {name: a, type: long}` would take it",
        ),
        (
            "id<p.id: long",
            r#"{"p":{"id":"x"}}"#,
            "! column `id` is long, the value \"x\" is not; `- {name: id, from: p.id, type: string}` would take it",
        ),
        (
            "r!: long",
            r#"{}"#,
            "! column `r` is required and has no value; `- {name: r, type: long}` would take it",
        ),
        (
            "r!: long",
            r#"{"r":null}"#,
            "! column `r` is required and has no value; `- {name: r, type: long}` would take it",
        ),
        ("a: long", r#"{"a":1,"A":2}"#, "! the record holds two spellings of `a`"),
        (
            "a: long",
            r#"{"A":1,"\u0041":2,"a":1}"#,
            "! the record holds two spellings of `a`",
        ),
        (
            "a: struct<b: long>",
            r#"{"a":{"b":1,"B":1}}"#,
            "! the record holds two spellings of `b`",
        ),
        (
            "id<p.id: long",
            r#"{"p":{},"P":{}}"#,
            "! the record holds two spellings of `p`",
        ),
    ] {
        check(columns, json, expect);
    }
}

#[test]
fn what_is_no_json_object_is_a_reject() {
    for (json, expect) in [
        ("", "! the value is empty"),
        (" ", "! the value is empty"),
        ("null", "! the value is no JSON object"),
        ("[1]", "! the value is no JSON object"),
        (
            "{",
            "! the value is no JSON: a field name in double quotes is missing at byte 1",
        ),
        ("{}}", "! the value is no JSON: something follows the object at byte 2"),
        (
            r#"{"a":1,}"#,
            "! the value is no JSON: a field name in double quotes is missing at byte 7",
        ),
        (r#"{"a" 1}"#, "! the value is no JSON: a colon is missing at byte 5"),
        (
            r#"{"a":1 "b":2}"#,
            "! the value is no JSON: a comma or the closing bracket is missing at byte 7",
        ),
        (
            r#"{"a":NaN}"#,
            "! the value is no JSON: no JSON value starts like this at byte 5",
        ),
        (
            r#"{"a":-Infinity}"#,
            "! the value is no JSON: a digit is missing at byte 6",
        ),
        (
            r#"{"a":01}"#,
            "! the value is no JSON: a number starts with a superfluous 0 at byte 5",
        ),
        (r#"{"a":1.}"#, "! the value is no JSON: a digit is missing at byte 7"),
        (
            r#"{"x":"\ud800"}"#,
            "! the value is no JSON: an escape is no character at byte 6",
        ),
        (
            r#"{"x":"\udc00\ud800"}"#,
            "! the value is no JSON: an escape is no character at byte 6",
        ),
        (
            r#"{"x":"\x"}"#,
            "! the value is no JSON: an escape isn't one of JSON's at byte 6",
        ),
        (
            r#"{"x":"\u+123"}"#,
            "! the value is no JSON: an escape is no character at byte 6",
        ),
        (
            "{\"x\":\"\t\"}",
            "! the value is no JSON: a control character in a string isn't escaped at byte 6",
        ),
        (r#"{"x":"abc"#, "! the value is no JSON: a string has no end at byte 5"),
        (
            r#"{"x":tru}"#,
            "! the value is no JSON: no JSON value starts like this at byte 5",
        ),
    ] {
        check("a: long", json, expect);
    }
}

#[test]
fn one_bad_record_costs_only_itself() {
    let mut decoder = decoder(
        &[
            "l: list<struct<a: long, b: list<string>>>",
            "m: map<string, list<long>>",
            "s: string",
            "n!: long",
        ],
        UnknownFields::Declared,
        false,
    );
    let good = br#"{"l":[{"a":1,"b":["x","y"]},{"a":2}],"m":{"k":[1,2]},"s":"t","n":1}"#;
    let bad: [&[u8]; 6] = [
        br#"{"l":[{"a":9,"b":["z"]},{"a":"no"}],"m":{"q":[9]},"s":"u","n":2}"#,
        br#"{"m":{"q":[9],"r":["no"]},"l":[{"a":9,"b":["z"]}],"s":"u","n":2}"#,
        br#"{"l":[{"a":9,"b":["z"#,
        b"{\"s\":\"\xff\",\"n\":1}",
        b"{\"s\":\"\xc3",
        br#"{"l":[{"a":9,"b":["z"]}],"m":{"q":[9]},"s":"u"}"#,
    ];
    for bad in bad {
        let decoded = decode(&mut decoder, &[good, bad, good]);
        assert_eq!(decoded.indexes, [0, 2]);
        assert_eq!(decoded.rejects[0].index, 1);
        assert_eq!(row(&decoded, 0), "[{a: 1, b: [x, y]}, {a: 2, b: null}]|{k: [1, 2]}|t|1");
        assert_eq!(row(&decoded, 0), row(&decoded, 1));
    }
    let decoded = decoder.decode(&chunk(&[Some(good), None, Some(b"")]));
    assert_eq!(
        (decoded.rows.num_rows(), decoded.filtered, decoded.rejects.len()),
        (1, 1, 1)
    );
}

#[test]
fn unknown_fields_follow_the_rule() {
    let json: &[u8] = br#"{"a":1,"b":{"c":1,"d":[{"e":"x"}]},"m":{"k":{"v":1,"w":2}},"f":1.5,"g":null,"h":{},"":1}"#;
    let rejected: &[u8] = br#"{"zz":1,"a":"x"}"#;
    let columns = [
        "a: long",
        "b: struct<d: list<struct<z: int>>>",
        "m: map<string, struct<v: long>>",
    ];
    let of = |rule| decode(&mut decoder(&columns, rule, false), &[json, rejected]);
    let unseen = of(UnknownFields::Evolve).unseen.expect("fields are unseen");
    let mut shape = Shape::default();
    shape
        .observe(br#"{"b":{"c":1,"d":[{"e":"x"}]},"m":{"value":{"w":2}},"f":1.5}"#)
        .expect("it is JSON");
    assert_eq!(unseen, shape);
    assert_eq!(of(UnknownFields::Strict).unseen, Some(shape));
    let ignored = of(UnknownFields::Ignore);
    // `c`, `e`, `w`, `f`, `h` and the field without a name.
    assert_eq!((ignored.fields_dropped, ignored.unseen), (6, None));
    let last: &[u8] = br#"{"b":{"c":1},"b":{"n":1},"B2":"x","B2":1.5}"#;
    let mut shape = Shape::default();
    shape.observe(br#"{"b":{"n":1},"B2":1.5}"#).expect("it is JSON");
    assert_eq!(
        decode(&mut decoder(&columns, UnknownFields::Evolve, false), &[last]).unseen,
        Some(shape)
    );
    // Under evolve they are dropped only if the table doesn't get the columns: `c`, `d`'s `e`, `w`, `f`, and the one
    // without a name; `h` has no type yet.
    assert_eq!(of(UnknownFields::Evolve).fields_dropped, 5);
    let declared = of(UnknownFields::Declared);
    assert_eq!((declared.fields_dropped, declared.unseen), (0, None));
}

#[test]
fn a_value_that_a_wider_column_would_take_is_reported_and_rejected() {
    let columns = [
        "i: int",
        "f: float",
        "d: decimal(4, 2)",
        "s: struct<i: int>",
        "l: list<int>",
        "m: map<int, struct<f: float>>",
        "w: long",
    ];
    let check = |rule, json: &str, expect: Option<(&str, PrimitiveType)>| {
        let decoded = decode(&mut decoder(&columns, rule, false), &[json.as_bytes()]);
        assert_eq!(decoded.rejects.len(), 1, "{json}");
        let shape = expect.map(|(path, of)| {
            path.split('.').rev().fold(Shape::Wider(of), |inner, step| match step {
                "[]" => Shape::List(Box::new(inner)),
                name => Shape::Object(vec![(name.to_owned(), inner)]),
            })
        });
        assert_eq!(decoded.unseen, shape, "{json}");
        assert!(
            decoded.rejects[0].reason.contains("would take it"),
            "{:?}",
            decoded.rejects
        );
    };
    let evolve = |json, path, of| check(UnknownFields::Evolve, json, Some((path, of)));
    evolve(r#"{"i":3000000000}"#, "i", PrimitiveType::Long);
    evolve(r#"{"I":-3e9}"#, "i", PrimitiveType::Long);
    evolve(r#"{"f":1e300}"#, "f", PrimitiveType::Double);
    let decimal = |precision| PrimitiveType::Decimal { precision, scale: 2 };
    evolve(r#"{"d":123.45}"#, "d", decimal(5));
    evolve(r#"{"d":"-100000"}"#, "d", decimal(8));
    evolve(r#"{"s":{"i":3000000000}}"#, "s.i", PrimitiveType::Long);
    evolve(r#"{"l":[1,3000000000]}"#, "l.[]", PrimitiveType::Long);
    evolve(r#"{"m":{"1":{"f":-1e300}}}"#, "m.value.f", PrimitiveType::Double);
    for json in [
        r#"{"i":1.5}"#,
        r#"{"i":"3000000000"}"#,
        r#"{"i":1e30}"#,
        r#"{"f":1e999}"#,
        r#"{"d":1.234}"#,
        r#"{"d":1e40}"#,
        r#"{"m":{"3000000000":null}}"#,
        r#"{"w":1e30}"#,
    ] {
        check(UnknownFields::Evolve, json, None);
    }
    for rule in [UnknownFields::Ignore, UnknownFields::Strict, UnknownFields::Declared] {
        check(rule, r#"{"i":3000000000}"#, None);
    }
    // Of equal names the last counts.
    let json: &[u8] = br#"{"i":3000000000,"i":1}"#;
    let decoded = decode(&mut decoder(&columns, UnknownFields::Evolve, false), &[json]);
    assert_eq!((decoded.rejects.len(), decoded.unseen), (0, None));
}

#[test]
fn a_declared_column_may_require_more_than_the_table() {
    let field = NestedField::optional(0, "a", types::parse("long").expect("long"));
    let schema = Arc::new(create_schema(vec![field], &[], false));
    let declared = [Column {
        name: "A".to_owned(),
        from: vec!["a".to_owned()],
        of: types::parse("long").expect("long"),
        required: true,
    }];
    let plan = row_plan(schema, Some(&declared), &[], false, UnknownFields::Declared, false);
    let decoded = decode(
        &mut JsonDecoder::new(Arc::new(plan)),
        &[br#"{"a":null}"#, br#"{"a":1}"#, b"{}"],
    );
    assert_eq!(decoded.indexes, [1]);
    assert!(decoded.rejects[0].reason.contains("is required and has no value"));
}

#[test]
fn flattened_objects_fill_columns_named_by_their_path() {
    let columns = ["a_b: long", "a_c_d: string", "own: struct<x: long>"];
    let mut decoder = decoder(&columns, UnknownFields::Evolve, true);
    let decoded = decode(
        &mut decoder,
        &[
            br#"{"a":{"b":1,"c":{"d":"x"}},"own":{"x":2}}"#,
            br#"{"a_b":3,"a":{"n":true}}"#,
            br#"{"a":{"b":1},"a_b":2}"#,
            br#"{"a":{"b":1},"A":{"b":2}}"#,
            br#"{"a":{"b":1},"a":{"c":{"d":"y"}}}"#,
        ],
    );
    assert_eq!(decoded.indexes, [0, 1, 4]);
    assert_eq!(row(&decoded, 0), "1|x|{x: 2}");
    assert_eq!(row(&decoded, 1), "3|null|null");
    assert_eq!(row(&decoded, 2), "null|y|null");
    let mut shape = Shape::default();
    shape.observe(br#"{"a":{"n":true}}"#).expect("it is JSON");
    assert_eq!(decoded.unseen, Some(shape));
}

#[test]
fn any_depth_and_any_size_is_at_worst_one_reject() {
    let lists = "[".repeat(50_000) + &"]".repeat(50_000);
    let objects = "{\"a\":".repeat(50_000) + "1" + &"}".repeat(50_000);
    for rule in [
        UnknownFields::Evolve,
        UnknownFields::Strict,
        UnknownFields::Ignore,
        UnknownFields::Declared,
    ] {
        for value in [&lists, &objects] {
            for flatten in [false, true] {
                let mut decoder = decoder(&["s: string", "l: list<long>"], rule, flatten);
                let text = format!("{{\"s\":{value}}}");
                let own = decode(&mut decoder, &[text.as_bytes()]);
                assert_eq!(row(&own, 0), format!("{value}|null"));
                let fit = decode(&mut decoder, &[format!("{{\"l\":{value}}}").as_bytes()]);
                assert_eq!(fit.rejects.len(), 1);
                let other = decode(&mut decoder, &[format!("{{\"x\":{value}}}").as_bytes()]);
                let kept =
                    matches!(rule, UnknownFields::Evolve | UnknownFields::Strict) || flatten && value == &objects;
                assert_eq!(other.rejects.len(), usize::from(kept));
                let cut = decode(
                    &mut decoder,
                    &[format!("{{\"x\":{}", "[{\"a\":".repeat(50_000)).as_bytes()],
                );
                assert_eq!(cut.rejects.len(), 1);
            }
        }
    }
    let big = "x\\n".repeat(1_700_000);
    let decoded = decode(
        &mut decoder(&["s: string"], UnknownFields::Evolve, false),
        &[format!("{{\"s\":\"{big}\"}}").as_bytes()],
    );
    assert_eq!(decoded.rows.column(0).as_string::<i32>().value(0).len(), 3_400_000);
}

/// Generates JSON values; names from few letters, so that they meet.
fn json(depth: u32) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>()
            .prop_map(Value::from)
            .prop_filter("serde_json itself reads it back", |value| value
                .to_string()
                .parse::<Value>()
                .ok()
                .as_ref()
                == Some(value)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(depth, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec(("[a-d]", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn same(array: &ArrayRef, at: usize, expect: &Value) {
    if array.is_null(at) {
        assert!(expect.is_null(), "null for {expect}");
        return;
    }
    match array.data_type() {
        DataType::Boolean => assert_eq!(Value::from(array.as_boolean().value(at)), *expect),
        DataType::Int64 => assert_eq!(Some(array.as_primitive::<Int64Type>().value(at)), expect.as_i64()),
        DataType::Float64 => assert_eq!(Some(array.as_primitive::<Float64Type>().value(at)), expect.as_f64()),
        DataType::Utf8 => match (array.as_string::<i32>().value(at), expect) {
            (text, Value::String(expect)) => assert_eq!(text, expect),
            (text, expect) => assert_eq!(serde_json::from_str::<Value>(text).expect(text), *expect),
        },
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(at);
            let expect = expect.as_array().expect("a list is an array");
            assert_eq!(items.len(), expect.len());
            expect
                .iter()
                .enumerate()
                .for_each(|(index, item)| same(&items, index, item));
        }
        DataType::Struct(fields) => {
            let object = expect.as_object().expect("a struct is an object");
            for (index, field) in fields.iter().enumerate() {
                same(
                    array.as_struct().column(index),
                    at,
                    object.get(field.name()).unwrap_or(&Value::Null),
                );
            }
        }
        other => panic!("nothing is inferred as {other}"),
    }
}

proptest! {
    #[test]
    fn inferred_columns_hold_what_serde_reads(records in proptest::collection::vec(json(4), 1..4), pretty in any::<bool>()) {
        let records: Vec<Value> = records.into_iter().map(|value| serde_json::json!({"v": value, "w": 1})).collect();
        let texts: Vec<String> = records
            .iter()
            .map(|record| if pretty { serde_json::to_string_pretty(record) } else { serde_json::to_string(record) })
            .collect::<Result<_, _>>()
            .expect("a value has a text");
        let mut shape = Shape::default();
        for text in &texts {
            shape.observe(text.as_bytes()).expect("it is JSON");
        }
        let schema = Arc::new(create_schema(infer::schema(&shape, false), &[], false));
        let plan = row_plan(schema, None, &[], false, UnknownFields::Strict, false);
        let values: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
        let decoded = decode(&mut JsonDecoder::new(Arc::new(plan)), &values);
        prop_assert_eq!(&decoded.rejects, &[]);
        prop_assert_eq!(&decoded.unseen, &None);
        for (index, field) in decoded.rows.schema().fields().iter().enumerate() {
            for (at, record) in records.iter().enumerate() {
                same(decoded.rows.column(index), at, &record[field.name()]);
            }
        }
    }

    #[test]
    fn bytes_never_panic(
        records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..30), 0..5),
        broken in json(4),
        cut in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        rule in prop_oneof![Just(UnknownFields::Evolve), Just(UnknownFields::Ignore), Just(UnknownFields::Declared)],
        flatten in any::<bool>(),
    ) {
        let mut text = serde_json::to_vec(&serde_json::json!({"a": broken})).expect("a value has a text");
        let at = cut.index(text.len());
        text[at] = byte;
        let mut values: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        values.push(&text);
        let accepted = serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok();
        for columns in [["a: long"], ["a: struct<a: list<long>, b: map<string, string>>"], ["a: string"], ["a: timestamp"]] {
            let decoded = decode(&mut decoder(&columns, rule, flatten), &values);
            prop_assert!(accepted || !decoded.indexes.contains(&(values.len() as u32 - 1)));
            let _ = Shape::default().observe(&text);
        }
    }

    #[test]
    fn names_and_types_read_back(text in "[a-z<>(),: 0-9]{0,20}") {
        if let Ok(of) = types::parse(&text) {
            prop_assert_eq!(types::parse(&types::text(&of)), Ok(of));
        }
    }
}
