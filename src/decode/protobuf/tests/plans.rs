//! Schemas that meet tables which weren't made for them.

use super::bytes::{self, eight, text, varint};
use super::*;
use crate::config::{Column as Declared, types};

fn declared(columns: &[(&str, &str, &str)], unknown: UnknownFields) -> RowPlan {
    let columns: Vec<Declared> = columns
        .iter()
        .map(|(name, from, of)| Declared {
            name: (*name).to_owned(),
            from: from.split('.').map(str::to_owned).collect(),
            of: types::parse(of).expect(of),
            required: name.ends_with('!'),
        })
        .collect();
    let fields = columns
        .iter()
        .map(|column| iceberg::spec::NestedField::optional(0, &column.name, column.of.clone()));
    let table = create_schema(fields.collect(), &[], false);
    row_plan(Arc::new(table), Some(&columns), &[], false, unknown, false)
}

/// A table with these columns, of records whose columns aren't declared.
fn table(columns: &[(&str, &str)], unknown: UnknownFields, flatten: bool) -> RowPlan {
    let fields = columns
        .iter()
        .map(|(name, of)| iceberg::spec::NestedField::optional(0, *name, types::parse(of).expect(of)));
    let table = create_schema(fields.collect(), &[], false);
    row_plan(Arc::new(table), None, &[], false, unknown, flatten)
}

fn row(schema: &Arc<ProtoSchema>, plan: &RowPlan, record: &[Vec<u8>]) -> Result<String, String> {
    let program = compile(schema, None, plan, None).map_err(|differences| differences.join("; "))?;
    read_with(&program, plan, &record.concat())
}

#[test]
fn values_go_to_columns_that_hold_them_all() {
    let plan = |of: &str| table(&[("a", of)], UnknownFields::Evolve, false);
    let fits = |fields: &str, of: &str, record: Vec<u8>, expect: &str| {
        assert_eq!(
            row(&proto3(fields), &plan(of), &[record]).as_deref(),
            Ok(format!("a={expect}").as_str()),
            "{fields} as {of}"
        );
    };
    fits("int32 a = 1;", "long", varint(1, 5), "5");
    fits("uint32 a = 1;", "long", varint(1, 5), "5");
    fits("int64 a = 1;", "decimal(20, 0)", varint(1, u64::MAX), "-1");
    fits("uint64 a = 1;", "decimal(22, 1)", varint(1, 7), "70");
    fits("int32 a = 1;", "double", varint(1, 5), "5.0");
    fits("float a = 1;", "double", bytes::four(1, 1.5f32.to_bits()), "1.5");
    fits("E a = 1; enum E { Z = 0; }", "int", varint(1, 7), "7");
    fits("E a = 1; enum E { Z = 0; }", "long", vec![], "0");
    fits("string a = 1;", "binary", text(1, "x"), "[120]");
    fits("bytes a = 1;", "string", text(1, "x"), "\"x\"");
    fits(
        "google.protobuf.Int32Value a = 1;",
        "long",
        bytes::bytes(1, &varint(1, 9)),
        "9",
    );
    fits(
        "google.protobuf.Duration a = 1;",
        "decimal(38, 9)",
        bytes::bytes(1, &varint(1, 1)),
        "1000000000",
    );
    let differs = |fields: &str, of: &str, wanted: &str| {
        assert_eq!(
            row(&proto3(fields), &plan(of), &[]),
            Err(format!("column `a` is {of} in the table, but {wanted} in the schema"))
        );
    };
    differs("string a = 1;", "int", "string");
    differs("int64 a = 1;", "int", "int64");
    differs("uint64 a = 1;", "long", "uint64");
    differs("double a = 1;", "float", "double");
    differs("int32 a = 1;", "string", "int32");
    differs("repeated int32 a = 1;", "int", "repeated int32");
    differs("int32 a = 1;", "list<int>", "int32");
    differs("map<string, int32> a = 1;", "string", "map<string, int32>");
    differs("N a = 1; message N { int32 x = 1; }", "string", "message M.N");
    differs("E a = 1; enum E { Z = 0; }", "boolean", "enum M.E");
    differs(
        "google.protobuf.Timestamp a = 1;",
        "timestamp",
        "google.protobuf.Timestamp",
    );
    differs(
        "google.protobuf.Duration a = 1;",
        "decimal(9, 2)",
        "google.protobuf.Duration",
    );
    differs("google.type.Decimal a = 1;", "decimal(9, 2)", "google.type.Decimal");
    let deep = proto3("repeated N a = 1; message N { map<string, int64> x = 1; string y = 2; }");
    assert_eq!(
        row(&deep, &plan("list<struct<x: map<string, int>>>"), &[]),
        Err(
            "column `a.element.x.value` is int in the table, but int64 in the schema; \
             field `a.element.y` has no column in the table"
                .to_owned()
        )
    );
}

#[test]
fn declared_columns_take_what_json_would() {
    let schema = proto3(
        "int32 i = 1; uint64 u = 2; double d = 3; string s = 4; bytes b = 5; repeated int32 l = 6; map<string, int64> m = 7; N n = 8; \
         google.protobuf.Timestamp t = 9; google.protobuf.Duration p = 10; confluent.type.Decimal c = 11; E e = 12; bool o = 13; \
         google.type.Date day = 14; google.type.Decimal g = 15; \
         message N { int32 x = 1; N n = 2; string y = 3; } enum E { Z = 0; A = 1; }",
    );
    let record = [
        varint(1, 1000),
        varint(2, 7),
        eight(3, 0.5f64.to_bits()),
        text(4, "2024-01-02"),
        bytes::bytes(5, &[7; 16]),
        bytes::bytes(6, &[1, 2]),
        bytes::bytes(7, &[text(1, "k"), varint(2, 9)].concat()),
        bytes::bytes(8, &[varint(1, 5), text(3, "2.50")].concat()),
        bytes::bytes(9, &varint(1, 60)),
        bytes::bytes(10, &[varint(1, 90), varint(2, 500_000_000)].concat()),
        bytes::bytes(11, &[bytes::bytes(1, &[1, 0]), varint(3, 2)].concat()),
        varint(12, 1),
        varint(13, 1),
        bytes::bytes(14, &[varint(1, 2024), varint(2, 1), varint(3, 2)].concat()),
        bytes::bytes(15, &text(1, "1.25")),
    ];
    let plan = |columns: &[(&str, &str, &str)]| declared(columns, UnknownFields::Declared);
    let check = |from: &str, of: &str, expect: &str| {
        let plan = plan(&[("column", from, of)]);
        assert_eq!(
            row(&schema, &plan, &record),
            Ok(format!("column={expect}")),
            "{from} as {of}"
        );
    };
    let refuse = |from: &str, of: &str, expect: &str| {
        let plan = plan(&[("column", from, of)]);
        let problem = row(&schema, &plan, &record).expect_err(from);
        assert!(problem.starts_with(expect), "{from} as {of}: {problem}");
    };
    check("i", "string", "\"1000\"");
    check("i", "timestamptz", "1000000");
    check("i", "decimal(7, 2)", "100000");
    refuse(
        "i",
        "decimal(5, 2)",
        "field `i`: the value 1000 doesn't fit decimal(5, 2), at byte 3 of the record",
    );
    check("u", "int", "7");
    check("u", "string", "\"7\"");
    check("d", "float", "0.5");
    check("d", "string", "\"0.5\"");
    check("s", "date", "19724");
    refuse("s", "uuid", "field `s`: is uuid, the value \"2024-01-02\" is not");
    check("b", "uuid", "[7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]");
    refuse("b", "fixed(3)", "field `b`: the value of 16 bytes doesn't fit fixed(3)");
    check("l", "string", "\"[1,2]\"");
    check("l", "list<string>", "[\"1\", \"2\"]");
    check("m", "string", "\"{\\\"k\\\":\\\"9\\\"}\"");
    check("m", "map<string, int>", "{\"k\": 9}");
    check("n", "string", "\"{\\\"x\\\":5,\\\"y\\\":\\\"2.50\\\"}\"");
    check("n", "struct<Y: decimal(3, 2)>", "(250)");
    check("n.x", "long", "5");
    check("n.n.x", "long", "null");
    check("i.x", "long", "null");
    check("nothing", "long", "null");
    check("t", "string", "\"1970-01-01T00:01:00Z\"");
    check("t", "struct<seconds: long, nanos: int>", "(60, 0)");
    check("t.seconds", "long", "60");
    check("p", "string", "\"90.500s\"");
    check("p", "double", "90.5");
    check("p", "decimal(5, 1)", "905");
    refuse(
        "p",
        "decimal(5, 0)",
        "field `p`: the value 90 s and 500000000 ns doesn't fit decimal(5, 0)",
    );
    check("c", "decimal(9, 4)", "25600");
    refuse(
        "c",
        "decimal(9, 1)",
        "field `c`: the value 256 of scale 2 doesn't fit decimal(9, 1)",
    );
    check("e", "string", "\"A\"");
    check("e", "int", "1");
    check("o", "string", "\"true\"");
    check("day", "string", "\"2024-01-02\"");
    check("g", "decimal(3, 2)", "125");
    let absent = plan(&[
        ("a", "s", "date"),
        ("b", "l", "string"),
        ("c", "m", "string"),
        ("d", "b", "uuid"),
    ]);
    assert_eq!(
        row(&schema, &absent, &[]).as_deref(),
        Ok("a=null b=\"[]\" c=\"{}\" d=null")
    );
}

#[test]
fn a_field_goes_to_several_columns() {
    let schema = proto3(
        "N n = 1; oneof o { N p = 2; int32 q = 3; } repeated int32 l = 4; \
         message N { int32 x = 1; repeated int32 y = 2; O o = 3; map<int32, int32> m = 4; } message O { int32 z = 1; int32 w = 2; }",
    );
    let plan = declared(
        &[
            ("whole", "n", "struct<x: int, y: list<int>>"),
            ("x", "n.x", "int"),
            ("x2", "n.x", "string"),
            ("y", "n.y", "list<int>"),
            ("z", "n.o.z", "int"),
            ("w", "n.o.w", "int"),
            ("m", "n.m", "map<int, int>"),
            ("px", "p.x", "int"),
            ("q", "q", "int"),
            ("l1", "l", "list<int>"),
            ("l2", "l", "string"),
        ],
        UnknownFields::Declared,
    );
    let check = |record: &[Vec<u8>], expect: &str| assert_eq!(row(&schema, &plan, record).as_deref(), Ok(expect));
    let none = "whole=null x=null x2=null y=null z=null w=null m=null px=null q=null l1=[] l2=\"[]\"";
    check(&[], none);
    let entry = |key, value| bytes::bytes(4, &[varint(1, key), varint(2, value)].concat());
    let first = [
        varint(1, 1),
        varint(2, 2),
        bytes::bytes(3, &varint(1, 3)),
        entry(1, 2),
        entry(1, 3),
    ]
    .concat();
    let second = [varint(2, 4), bytes::bytes(3, &varint(2, 5)), entry(2, 4), entry(1, 5)].concat();
    check(
        &[
            bytes::bytes(1, &first),
            varint(4, 9),
            bytes::bytes(2, &varint(1, 7)),
            varint(4, 8),
        ],
        "whole=(1, [2]) x=1 x2=\"1\" y=[2] z=3 w=0 m={1: 3} px=7 q=null l1=[9, 8] l2=\"[9,8]\"",
    );
    check(
        &[
            bytes::bytes(1, &first),
            bytes::bytes(2, &varint(1, 7)),
            varint(3, 6),
            bytes::bytes(1, &second),
        ],
        "whole=(1, [2, 4]) x=1 x2=\"1\" y=[2, 4] z=3 w=5 m={1: 5, 2: 4} px=null q=6 l1=[] l2=\"[]\"",
    );
    check(
        &[bytes::bytes(2, &varint(1, 7)), varint(3, 6), bytes::bytes(2, &[])],
        "whole=null x=null x2=null y=null z=null w=null m=null px=0 q=null l1=[] l2=\"[]\"",
    );
}

#[test]
fn flatten_joins_names() {
    let schema = proto3(
        "int32 a = 1; N n = 2; message N { int32 x = 1; O o = 2; repeated int32 l = 3; } message O { string y = 1; O o = 2; }",
    );
    let plan = table(
        &[
            ("a", "int"),
            ("N_x", "long"),
            ("n_o_y", "string"),
            ("n_o_o", "string"),
            ("n_l", "list<int>"),
            ("z", "int"),
        ],
        UnknownFields::Evolve,
        true,
    );
    assert_eq!(
        row(&schema, &plan, &[varint(1, 1)]).as_deref(),
        Ok("a=1 N_x=null n_o_y=null n_o_o=null n_l=null z=null")
    );
    let inner = [
        varint(1, 2),
        bytes::bytes(2, &bytes::bytes(2, &text(1, "t"))),
        varint(3, 3),
    ]
    .concat();
    assert_eq!(
        row(
            &schema,
            &plan,
            &[bytes::bytes(2, &inner), bytes::bytes(2, &varint(3, 4))]
        )
        .as_deref(),
        Ok("a=0 N_x=2 n_o_y=\"\" n_o_o=\"{\\\"y\\\":\\\"t\\\"}\" n_l=[3, 4] z=null")
    );
    let twice = proto3("int32 n_x = 1; N n = 2; message N { int32 x = 1; }");
    let plan = table(&[("n_x", "int")], UnknownFields::Evolve, true);
    assert_eq!(
        row(&twice, &plan, &[]),
        Err("2 fields would be column `n_x` with `nested: flatten`".to_owned())
    );
    let plan = table(&[("a", "int")], UnknownFields::Evolve, true);
    assert_eq!(
        row(&schema, &plan, &[]),
        Err(["n_x", "n_o_y", "n_o_o", "n_l"]
            .map(|name| format!("field `{name}` has no column in the table"))
            .join("; "))
    );
}

#[test]
fn fields_without_a_column_follow_the_rule() {
    let schema = proto3("int32 a = 1; string b = 2; N n = 3; message N { int32 x = 1; int32 y = 2; }");
    let record = [
        varint(1, 1),
        text(2, "x"),
        bytes::bytes(3, &[varint(1, 2), varint(2, 3)].concat()),
        varint(50, 1),
    ]
    .concat();
    let columns = [("a", "int"), ("n", "struct<x: int>")];
    for (rule, expect) in [
        (UnknownFields::Ignore, Ok(3)),
        (UnknownFields::Declared, Ok(0)),
        (UnknownFields::Evolve, Err(2)),
        (UnknownFields::Strict, Err(2)),
    ] {
        let plan = table(&columns, rule, false);
        let done = compile(&schema, None, &plan, None).map_err(|differences| differences.len());
        let done = done.map(|program| Table::new(&plan).add(&program, &record).expect("a row"));
        assert_eq!(done, expect, "{rule:?}");
    }
    // What the producer's own schema doesn't say, no rule can give a column.
    let plan = natural_plan(&schema, UnknownFields::Strict);
    let program = compile(&schema, None, &plan, None).expect("all have columns");
    assert_eq!(Table::new(&plan).add(&program, &record), Ok(1));
}

#[test]
fn required_columns_have_a_value() {
    let schema = proto3("optional int32 a = 1; int32 b = 2; N n = 3; message N { optional int32 x = 1; }");
    let plan = declared(&[("a!", "a", "int"), ("b!", "b", "int")], UnknownFields::Declared);
    assert_eq!(row(&schema, &plan, &[varint(1, 3)]).as_deref(), Ok("a!=3 b!=0"));
    assert_eq!(
        row(&schema, &plan, &[]),
        Err("field `a!`: is required and has no value".to_owned())
    );
    let plan = declared(&[("c!", "n.x", "int")], UnknownFields::Declared);
    assert_eq!(
        row(&schema, &plan, &[bytes::bytes(3, &[])]),
        Err("field `c!`: is required and has no value".to_owned())
    );
}

#[test]
fn numbers_say_which_field_a_column_is() {
    let old = proto3("int32 a = 1; string c = 2; N n = 3; message N { int32 x = 1; }");
    let new = proto3("int32 b = 1; string a = 4; N n = 3; message N { int32 y = 1; int32 x = 2; }");
    let plan = table(
        &[
            ("b", "int"),
            ("a", "string"),
            ("c", "string"),
            ("n", "struct<x: int, y: int>"),
        ],
        UnknownFields::Evolve,
        false,
    );
    let program = compile(&old, Some(&new), &plan, None).expect("both fit");
    let record = [varint(1, 1), text(2, "c"), bytes::bytes(3, &varint(1, 7))].concat();
    assert_eq!(
        read_with(&program, &plan, &record).as_deref(),
        Ok("b=1 a=null c=\"c\" n=(null, 7)")
    );
    // A column that kept a name of old: what goes under that name.
    let plan = table(
        &[("a", "int"), ("c", "string"), ("n", "struct<x: int>")],
        UnknownFields::Evolve,
        false,
    );
    let new = proto3("int32 b = 1; N n = 3; message N { int32 x = 1; }");
    let program = compile(&old, Some(&new), &plan, None).expect("they fit");
    assert_eq!(read_with(&program, &plan, &record).as_deref(), Ok("a=1 c=\"c\" n=(7)"));
}

#[test]
fn values_that_are_one_thing_go_to_one_column() {
    let text = SchemaText {
        language: SchemaLanguage::Protobuf,
        text: "syntax = \"proto3\"; import \"google/protobuf/wrappers.proto\"; message M {}".to_owned(),
        references: Vec::new(),
    };
    let message = Message::Named(Some("google.protobuf.Int64Value"));
    let schema = Arc::new(parse(&text, message).expect("a wrapper"));
    let plan = table(&[("value", "long"), ("other", "int")], UnknownFields::Evolve, false);
    assert_eq!(
        row(&schema, &plan, &[varint(1, 5)]).as_deref(),
        Ok("value=5 other=null")
    );
    assert_eq!(row(&schema, &plan, &[]).as_deref(), Ok("value=0 other=null"));
    let plan = table(&[("v", "long")], UnknownFields::Strict, false);
    assert_eq!(
        row(&schema, &plan, &[]),
        Err("the table has no column `value` for values of google.protobuf.Int64Value".to_owned())
    );
}
