//! Bytes to rows: by hand here, against `prost-reflect` as an independent reader in `same`.

mod bytes;
mod cell;
mod framed;
mod plans;
mod same;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema as ArrowSchema;

use self::bytes::{eight, four, group, text, varint};
use self::cell::Cell;
use super::super::column::Column;
use super::*;
use crate::schema::evolve::{create_schema, row_plan};
use crate::schema::protobuf::{Message, natural, parse};
use crate::schema::{RowPlan, SchemaLanguage, SchemaText, UnknownFields};

fn schema(text: &str) -> Arc<ProtoSchema> {
    let text = SchemaText {
        language: SchemaLanguage::Protobuf,
        text: text.to_owned(),
        references: Vec::new(),
    };
    Arc::new(parse(&text, Message::Named(None)).expect(&text.text))
}

/// A message of the fields, all types at hand.
fn proto3(fields: &str) -> Arc<ProtoSchema> {
    let imports = ["timestamp", "duration", "wrappers", "struct", "any", "field_mask"];
    let imports: String = imports
        .iter()
        .map(|file| format!("import \"google/protobuf/{file}.proto\"; "))
        .collect();
    let types = "import \"google/type/date.proto\"; import \"google/type/timeofday.proto\"; \
                 import \"google/type/decimal.proto\"; import \"confluent/type/decimal.proto\";";
    schema(&format!(
        "syntax = \"proto3\"; {imports} {types} message M {{ {fields} }}"
    ))
}

/// The plan of a table that was made for a schema.
fn natural_plan(schema: &ProtoSchema, unknown: UnknownFields) -> RowPlan {
    let table = create_schema(natural(schema).expect("columns"), &[], false);
    row_plan(Arc::new(table), None, &[], false, unknown, false)
}

/// Rows under construction.
struct Table {
    columns: Vec<Column>,
    arrow: Arc<ArrowSchema>,
}

impl Table {
    fn new(plan: &RowPlan) -> Self {
        let fields = plan.schema.as_struct().fields();
        let columns = fields.iter().map(|field| {
            let mut column = Column::new(field);
            column.required |= plan.required.contains(&field.id);
            column
        });
        Table {
            columns: columns.collect(),
            arrow: plan.arrow.clone(),
        }
    }

    /// Adds a row as [`crate::decode::framed::FramedDecoder`] does.
    fn add(&mut self, program: &Program, record: &[u8]) -> Result<u64, String> {
        let row = self.columns.first().map_or(0, Column::len);
        let done = program.run(record, &mut self.columns, row);
        let done = done.map_err(|bad| bad.reason()).and_then(|dropped| {
            match self.columns.iter().all(|column| column.holds_utf8(row)) {
                true => Ok(dropped.expect("every record is a row")),
                false => Err("no UTF-8".to_owned()),
            }
        });
        match &done {
            Ok(_) => assert!(
                self.columns.iter().all(|column| column.len() == row + 1),
                "one value for each column"
            ),
            Err(_) => self.columns.iter_mut().for_each(|column| column.truncate(row)),
        }
        done
    }

    fn finish(mut self) -> RecordBatch {
        let columns = self.columns.iter_mut().zip(self.arrow.fields());
        let columns = columns
            .map(|(column, field)| column.finish(field.data_type()))
            .collect();
        RecordBatch::try_new(self.arrow.clone(), columns).expect("columns of the plan's types")
    }

    fn cells(self) -> Vec<Vec<Cell>> {
        let rows = self.finish();
        let row = |at| rows.columns().iter().map(|column| Cell::new(column, at)).collect();
        (0..rows.num_rows()).map(row).collect()
    }
}

/// Reads a record into the columns that its schema makes, and shows the row.
fn read(schema: &Arc<ProtoSchema>, record: &[u8]) -> Result<String, String> {
    let plan = natural_plan(schema, UnknownFields::Evolve);
    let program = compile(schema, None, &plan, None).expect("a table of the schema's own");
    read_with(&program, &plan, record)
}

fn read_with(program: &Program, plan: &RowPlan, record: &[u8]) -> Result<String, String> {
    let mut table = Table::new(plan);
    // What a failed record leaves behind would be seen in the next row.
    let first = table.add(program, record);
    table.add(program, record)?;
    first?;
    let rows = table.cells();
    assert_eq!(rows[0], rows[1]);
    let cells = rows[0].iter().zip(plan.arrow.fields());
    let cells = cells.map(|(cell, field)| format!("{}={cell}", field.name()));
    Ok(cells.collect::<Vec<_>>().join(" "))
}

fn check(fields: &str, record: &[Vec<u8>], expect: &str) {
    assert_eq!(
        read(&proto3(fields), &record.concat()).as_deref(),
        Ok(expect),
        "{fields}: {record:?}"
    );
}

fn refuse(fields: &str, record: &[Vec<u8>], expect: &str) {
    assert_eq!(
        read(&proto3(fields), &record.concat()),
        Err(expect.to_owned()),
        "{fields}: {record:?}"
    );
}

#[test]
fn scalars_are_read() {
    let fields = "bool a = 1; int32 b = 2; sint32 c = 3; sfixed32 d = 4; int64 e = 5; sint64 f = 6; sfixed64 g = 7; uint32 h = 8; \
                  fixed32 i = 9; uint64 j = 10; fixed64 k = 11; float l = 12; double m = 13; string n = 14; bytes o = 15;";
    let full = [
        varint(1, 1),
        varint(2, u64::MAX),
        varint(3, 3),
        four(4, -5i32 as u32),
        varint(5, i64::MIN as u64),
        varint(6, u64::MAX),
        eight(7, u64::MAX),
        varint(8, u64::from(u32::MAX)),
        four(9, u32::MAX),
        varint(10, u64::MAX),
        eight(11, u64::MAX),
        four(12, 1.5f32.to_bits()),
        eight(13, (-0.25f64).to_bits()),
        text(14, "ä"),
        bytes::bytes(15, &[0xFF]),
    ];
    let max = i64::MAX;
    check(
        fields,
        &full,
        &format!(
            "a=true b=-1 c=-2 d=-5 e={} f={} g=-1 h=4294967295 i=4294967295 j=18446744073709551615 k=18446744073709551615 \
             l=1.5 m=-0.25 n=\"ä\" o=[255]",
            i64::MIN,
            -max - 1
        ),
    );
    check(
        fields,
        &[],
        "a=false b=0 c=0 d=0 e=0 f=0 g=0 h=0 i=0 j=0 k=0 l=0.0 m=0.0 n=\"\" o=[]",
    );
    // The last one counts; of an int32 the low bits do.
    check(
        "int32 a = 1; string b = 2;",
        &[varint(1, 1), text(2, "x"), varint(1, 1 << 32 | 7), text(2, "y")],
        "a=7 b=\"y\"",
    );
    // Fields that the schema doesn't have.
    check(
        "int32 a = 2;",
        &[
            varint(1, 5),
            text(3, "x"),
            four(4, 1),
            eight(536_870_911, 1),
            group(6, &[varint(2, 9), group(7, &[])]),
            varint(2, 3),
        ],
        "a=3",
    );
}

#[test]
fn absent_fields_are_null_where_they_can_be() {
    let fields = "optional int32 a = 1; N b = 2; oneof o { int32 c = 3; N d = 4; } int32 e = 5; N f = 6; repeated int32 g = 7; \
                  map<string, int32> h = 8; message N { int32 x = 1; optional int32 y = 2; }";
    check(fields, &[], "a=null b=null c=null d=null e=0 f=null g=[] h={}");
    check(
        fields,
        &[
            varint(1, 0),
            bytes::bytes(2, &[]),
            varint(3, 0),
            bytes::bytes(6, &varint(2, 4)),
        ],
        "a=0 b=(0, null) c=0 d=null e=0 f=(0, 4) g=[] h={}",
    );
    let proto2 = schema(
        "message M { required int32 a = 1; optional string b = 2 [default = \"x\"]; optional E c = 3 [default = B]; \
                         enum E { A = 0; B = 1; } }",
    );
    assert_eq!(read(&proto2, &[]).as_deref(), Ok("a=null b=null c=null"));
}

#[test]
fn enums_are_their_names() {
    let fields =
        "E a = 1; repeated E b = 2; enum E { option allow_alias = true; ZERO = 0; ONE = 1; UNO = 1; MINUS = -2; }";
    let packed = bytes::bytes(2, &[1, 2, 0]);
    check(
        fields,
        &[varint(1, -2i64 as u64), packed],
        "a=\"MINUS\" b=[\"ONE\", \"2\", \"ZERO\"]",
    );
    check(fields, &[varint(1, -7i64 as u64)], "a=\"-7\" b=[]");
    check(fields, &[], "a=\"ZERO\" b=[]");
    let closed = schema("message M { optional E a = 1; enum E { X = 5; Y = 9; } }");
    assert_eq!(read(&closed, &varint(1, 9)).as_deref(), Ok("a=\"Y\""));
    assert_eq!(read(&closed, &varint(1, 6)).as_deref(), Ok("a=\"6\""));
}

#[test]
fn repeated_fields_are_packed_or_not() {
    let fields = "repeated int32 a = 1; repeated double b = 2; repeated string c = 3; repeated N d = 4; \
                  message N { repeated sint32 x = 1; }";
    check(
        fields,
        &[
            varint(1, 1),
            text(3, "p"),
            bytes::bytes(4, &varint(1, 1)),
            bytes::bytes(1, &[2, 3]),
            eight(2, 1f64.to_bits()),
            bytes::bytes(4, &bytes::bytes(1, &[2, 3])),
            text(3, ""),
            bytes::bytes(2, &[2f64.to_le_bytes(), 3f64.to_le_bytes()].concat()),
            bytes::bytes(1, &[]),
            varint(1, 4),
            bytes::bytes(4, &[]),
        ],
        "a=[1, 2, 3, 4] b=[1.0, 2.0, 3.0] c=[\"p\", \"\"] d=[([-1]), ([1, -2]), ([])]",
    );
    refuse(
        fields,
        &[bytes::bytes(1, &[2, 0x80])],
        "field `a.element`: the value ends there, at byte 3 of the record",
    );
    refuse(
        fields,
        &[bytes::bytes(2, &[0; 9])],
        "field `b.element`: the value ends there, at byte 10 of the record",
    );
}

#[test]
fn maps_hold_each_key_once() {
    let fields = "map<string, int32> a = 1; map<sint64, N> b = 2; message N { int32 x = 1; int32 y = 2; }";
    let entry = |number, parts: &[Vec<u8>]| bytes::bytes(number, &parts.concat());
    check(
        fields,
        &[
            entry(1, &[text(1, "k"), varint(2, 1)]),
            entry(2, &[varint(1, 4), bytes::bytes(2, &varint(1, 5))]),
            entry(1, &[varint(2, 2), text(1, "l")]),
            entry(1, &[varint(9, 2)]),
            entry(1, &[text(1, "k"), varint(2, 3), varint(2, 4)]),
            entry(
                2,
                &[
                    varint(1, 3),
                    varint(1, 4),
                    bytes::bytes(2, &varint(1, 6)),
                    bytes::bytes(2, &varint(2, 7)),
                ],
            ),
            entry(2, &[]),
        ],
        "a={\"\": 0, \"k\": 4, \"l\": 2} b={0: (0, 0), 2: (6, 7)}",
    );
    let many: Vec<_> = (0..100)
        .map(|at| entry(1, &[text(1, &(at % 20).to_string()), varint(2, at)]))
        .collect();
    let row = read(&proto3("map<string, int32> a = 1;"), &many.concat()).expect("a row");
    assert_eq!(row.matches(": ").count(), 20);
    assert!(row.contains("\"19\": 99"), "{row}");
    refuse(
        fields,
        &[entry(1, &[varint(1, 3)])],
        "field `a`: a key of the map is written as a length and bytes, the record has a varint: \
         it was written with another schema, at byte 3 of the record",
    );
}

#[test]
fn messages_that_come_twice_are_merged() {
    let fields =
        "N a = 1; N b = 2; message N { int32 x = 1; repeated int32 y = 2; N z = 3; google.protobuf.Timestamp t = 4; }";
    let a = |parts: &[Vec<u8>]| bytes::bytes(1, &parts.concat());
    check(
        fields,
        &[
            a(&[
                varint(1, 1),
                varint(2, 5),
                bytes::bytes(3, &varint(1, 8)),
                bytes::bytes(4, &varint(1, 7)),
            ]),
            bytes::bytes(2, &varint(1, 9)),
            a(&[
                varint(2, 6),
                bytes::bytes(3, &varint(2, 9)),
                bytes::bytes(4, &varint(2, 3000)),
            ]),
            a(&[varint(1, 2)]),
        ],
        "a=(2, [5, 6], \"{\\\"x\\\":8,\\\"y\\\":[9]}\", 7000003) b=(9, [], null, null)",
    );
}

#[test]
fn the_last_member_of_a_oneof_counts() {
    let fields = "oneof o { int32 a = 1; string b = 2; N c = 3; N d = 4; } oneof p { N e = 5; int32 f = 6; } \
                  message N { int32 x = 1; repeated int32 y = 2; }";
    let n = |number, y| bytes::bytes(number, &varint(2, y));
    check(
        fields,
        &[varint(1, 1), text(2, "x")],
        "a=null b=\"x\" c=null d=null e=null f=null",
    );
    check(
        fields,
        &[text(2, "x"), varint(1, 1), n(5, 3)],
        "a=1 b=null c=null d=null e=(0, [3]) f=null",
    );
    check(
        fields,
        &[n(3, 1), n(3, 2), n(4, 3)],
        "a=null b=null c=null d=(0, [3]) e=null f=null",
    );
    check(
        fields,
        &[n(3, 1), n(4, 2), n(3, 3)],
        "a=null b=null c=(0, [3]) d=null e=null f=null",
    );
    check(
        fields,
        &[n(3, 1), varint(1, 2), n(3, 3), n(3, 4)],
        "a=null b=null c=(0, [3, 4]) d=null e=null f=null",
    );
    check(
        fields,
        &[n(3, 1), n(3, 3), varint(1, 2), n(3, 4), n(3, 5)],
        "a=null b=null c=(0, [4, 5]) d=null e=null f=null",
    );
    check(
        fields,
        &[n(3, 1), n(3, 3), n(5, 7), text(2, "z"), varint(6, 4)],
        "a=null b=\"z\" c=null d=null e=null f=4",
    );
    // More of them than are remembered.
    let many: String = (0..10)
        .map(|at| {
            format!(
                "oneof o{at} {{ int32 a{at} = {}; N b{at} = {}; }} ",
                at * 2 + 1,
                at * 2 + 2
            )
        })
        .collect();
    let schema = proto3(&format!("{many} message N {{ int32 x = 1; }}"));
    let record = [
        varint(19, 5),
        bytes::bytes(20, &[]),
        varint(19, 6),
        varint(17, 1),
        bytes::bytes(18, &varint(1, 2)),
    ]
    .concat();
    let row = read(&schema, &record).expect("a row");
    assert!(row.ends_with("a8=null b8=(2) a9=6 b9=null"), "{row}");
}

#[test]
fn groups_are_messages() {
    let schema = schema(
        "message M { optional group A = 1 { optional int32 x = 2; optional group B = 3 { optional int32 y = 1; } } \
                         repeated group C = 4 { optional string z = 1; } }",
    );
    let record = [
        group(1, &[varint(2, 5), group(3, &[varint(1, 6)])]),
        group(4, &[text(1, "p")]),
        group(4, &[]),
        group(1, &[varint(2, 7)]),
    ];
    assert_eq!(
        read(&schema, &record.concat()).as_deref(),
        Ok("a=(7, (6)) c=[(\"p\"), (null)]")
    );
    let open = [vec![1 << 3 | 3], varint(2, 5)].concat();
    assert_eq!(
        read(&schema, &open),
        Err("field `a`: the group 1 has no end, at byte 3 of the record".to_owned())
    );
}

#[test]
fn messages_that_stand_for_something_are_read() {
    let moment = |seconds: i64, nanos: i32| [varint(1, seconds as u64), varint(2, nanos as i64 as u64)].concat();
    let fields = "google.protobuf.Timestamp a = 1; google.protobuf.Duration b = 2; google.protobuf.Int64Value c = 3; \
                  repeated google.protobuf.StringValue d = 4;";
    check(
        fields,
        &[
            bytes::bytes(1, &moment(1_700_000_000, 123_456_789)),
            bytes::bytes(2, &moment(-1, -500_000_000)),
            bytes::bytes(3, &[]),
            bytes::bytes(4, &text(1, "x")),
            bytes::bytes(4, &[]),
        ],
        "a=1700000000123456 b=-1500000000 c=0 d=[\"x\", \"\"]",
    );
    check(
        fields,
        &[bytes::bytes(1, &moment(-1, 999_999_999)), bytes::bytes(2, &[])],
        "a=-1 b=0 c=null d=[]",
    );
    check(
        fields,
        &[bytes::bytes(1, &moment(-2, 1)), bytes::bytes(3, &varint(1, 7))],
        "a=-2000000 b=null c=7 d=[]",
    );
    refuse(
        fields,
        &[bytes::bytes(1, &moment(i64::MAX, 0))],
        "field `a`: the value 9223372036854775807 s since 1970 doesn't fit timestamptz, at byte 14 of the record",
    );
    let fields =
        "google.type.Date a = 1; google.type.TimeOfDay b = 2; google.type.Decimal c = 3; confluent.type.Decimal d = 4;";
    let date = |year, month, day| bytes::bytes(1, &[varint(1, year), varint(2, month), varint(3, day)].concat());
    let time =
        |hours, seconds, nanos| bytes::bytes(2, &[varint(1, hours), varint(3, seconds), varint(4, nanos)].concat());
    let decimal = |unscaled: &[u8], scale: i32| {
        bytes::bytes(4, &[bytes::bytes(1, unscaled), varint(3, scale as i64 as u64)].concat())
    };
    check(
        fields,
        &[
            date(1970, 2, 1),
            time(23, 59, 1999),
            bytes::bytes(3, &text(1, "-2.50")),
            decimal(&[0xFF, 0x38], 1),
        ],
        "a=31 b=82859000001 c=\"-2.50\" d=\"-20.0\"",
    );
    check(
        fields,
        &[date(0, 0, 0), decimal(&[7], -3)],
        "a=null b=null c=null d=\"7000\"",
    );
    check(fields, &[decimal(&[], 2)], "a=null b=null c=null d=\"0.00\"");
    refuse(
        fields,
        &[date(2024, 2, 0)],
        "field `a`: the value of year 2024, month 2, day 0 doesn't fit date, at byte 9 of the record",
    );
    refuse(
        fields,
        &[time(24, 0, 0)],
        "field `b`: the value 24:0:0 and 0 ns doesn't fit time, at byte 8 of the record",
    );
    refuse(
        fields,
        &[decimal(&[7], 1001)],
        "field `d`: a decimal has the scale 1001, -1000 to 1000 are possible, at byte 8 of the record",
    );
}

#[test]
fn json_is_text() {
    let fields = "google.protobuf.Struct a = 1; google.protobuf.Value b = 2; google.protobuf.Any c = 3; \
                  google.protobuf.FieldMask d = 4; N e = 5; message N { N n = 1; int64 i = 2; repeated E l = 3; \
                  map<int32, double> m = 4; bytes b = 5; google.protobuf.Duration d = 6; google.protobuf.Timestamp t = 7; \
                  oneof o { bool p = 8; float q = 9; } google.protobuf.UInt32Value w = 10; confluent.type.Decimal x = 11; } \
                  enum E { Z = 0; O = 1; }";
    let value = |field: Vec<u8>| bytes::bytes(2, &field);
    let entry = |key: &str, held: Vec<u8>| bytes::bytes(1, &[text(1, key), value(held)].concat());
    let list = bytes::bytes(
        6,
        &[
            bytes::bytes(1, &varint(4, 1)),
            bytes::bytes(1, &varint(1, 0)),
            bytes::bytes(1, &[]),
        ]
        .concat(),
    );
    let object = [
        entry("n\"", eight(2, 1.5f64.to_bits())),
        entry("l", list),
        entry("n\"", text(3, "t")),
    ]
    .concat();
    let deep = [
        varint(2, u64::MAX),
        bytes::bytes(3, &[1, 7]),
        bytes::bytes(4, &[varint(1, 5), eight(2, f64::NAN.to_bits())].concat()),
        bytes::bytes(5, &[0xFF]),
        bytes::bytes(6, &[varint(1, 3), varint(2, 1_000_000)].concat()),
        bytes::bytes(7, &varint(1, 0)),
        varint(8, 1),
        four(9, 0.1f32.to_bits()),
        bytes::bytes(10, &varint(1, 9)),
        bytes::bytes(11, &[bytes::bytes(1, &[5]), varint(3, 2)].concat()),
    ]
    .concat();
    let row = read(
        &proto3(fields),
        &[
            bytes::bytes(1, &object),
            bytes::bytes(2, &text(3, "s")),
            bytes::bytes(3, &[text(1, "type/x"), bytes::bytes(2, b"abc")].concat()),
            bytes::bytes(4, &[text(1, "a.b"), text(1, "c")].concat()),
            bytes::bytes(5, &bytes::bytes(1, &deep)),
        ]
        .concat(),
    );
    let row = row.expect("a row").replace("\\\"", "'");
    assert_eq!(
        row.split(" e=").next(),
        Some("a=\"{'n\\\\'':'t','l':[true,null,null]}\" b=\"'s'\" c=\"{'@type':'type/x','value':'YWJj'}\" d=\"a.b,c\"")
    );
    assert_eq!(
        row.split(" e=").nth(1),
        Some(
            "(\"{'i':'-1','l':['O',7],'m':{'5':'NaN'},'b':'/w==','d':'3.001s','t':'1970-01-01T00:00:00Z','q':0.1,'w':9,\
             'x':'0.05'}\", 0, [], {}, [], null, null, null, null, null, null)"
        )
    );
    check(
        fields,
        &[bytes::bytes(2, &varint(1, 0))],
        "a=null b=\"null\" c=null d=null e=null",
    );
    let node = "N n = 1; message N { N n = 1; }";
    refuse(
        node,
        &[bytes::bytes(1, &bytes::bytes(1, &[0x0A, 5]))],
        "field `n.n`: the value ends there, at byte 6 of the record",
    );
    refuse(
        "N n = 1; message N { N n = 1; string s = 2; }",
        &[bytes::bytes(1, &bytes::bytes(1, &bytes::bytes(2, &[0xFF])))],
        "field `n.n.s`: the text is no UTF-8, at byte 7 of the record",
    );
}

#[test]
fn bytes_that_are_no_record_are_refused() {
    let fields = "int32 a = 1; string b = 2; N c = 3; message N { fixed64 d = 1; }";
    refuse(
        fields,
        &[vec![0]],
        "a field has the number 0, 1 to 536870911 are possible, at byte 0 of the record",
    );
    refuse(
        fields,
        &[varint(1, 1), vec![1 << 3 | 6]],
        "field 1 is written as type 6, 0 to 5 are possible, at byte 2 of the record",
    );
    refuse(
        fields,
        &[vec![1 << 3 | 4]],
        "field `a`: int32 is written as a varint, the record has 4 bytes: it was written with another schema, at byte 1 of the record",
    );
    refuse(
        fields,
        &[vec![9 << 3 | 4]],
        "a group 9 ends there that didn't begin, at byte 1 of the record",
    );
    refuse(
        fields,
        &[vec![1 << 3]],
        "field `a`: the value ends there, at byte 1 of the record",
    );
    refuse(
        fields,
        &[vec![2 << 3 | 2, 2, b'x']],
        "field `b`: the value ends there, at byte 2 of the record",
    );
    refuse(
        fields,
        &[vec![1 << 3], vec![0xFF; 10]],
        "field `a`: a number has more than 64 bits, at byte 1 of the record",
    );
    refuse(
        fields,
        &[four(1, 1)],
        "field `a`: int32 is written as a varint, the record has 4 bytes: it was written with another schema, at byte 1 of the record",
    );
    refuse(
        fields,
        &[bytes::bytes(3, &[1 << 3 | 1, 0])],
        "field `c.d`: the value ends there, at byte 3 of the record",
    );
    refuse(fields, &[bytes::bytes(2, &[0xFF])], "no UTF-8");
    refuse(
        fields,
        &[vec![9 << 3 | 3; 200]],
        "the value is nested more than 128 deep, at byte 129 of the record",
    );
    let deep = (0..200).fold(Vec::new(), |inner, _| bytes::bytes(1, &inner));
    let problem = read(&proto3("N n = 1; message N { N n = 1; }"), &deep).expect_err("deep");
    assert!(problem.contains("nested more than 128 deep"), "{problem}");
    // A message of two bytes has hundreds of columns: millions of them are refused.
    let wide: String = (1..500).map(|at| format!("optional int32 f{at} = {at};")).collect();
    let schema = proto3(&format!("repeated N n = 1; message N {{ {wide} }}"));
    let problem = read(&schema, &bytes::bytes(1, &[]).repeat(100_000)).expect_err("many");
    assert!(
        problem.contains("the record makes more than 4994304 values"),
        "{problem}"
    );
    assert!(read(&schema, &bytes::bytes(1, &[]).repeat(1000)).is_ok());
}
