use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use iceberg::spec::Schema;
use proptest::prelude::*;

use super::*;
use crate::config::types;
use crate::schema::frame::SchemaKey;
use crate::schema::{Reference, SchemaLanguage, SchemaText, WriterSchema, Writers, follow};

fn schema_text(text: &str) -> SchemaText {
    SchemaText {
        language: SchemaLanguage::Protobuf,
        text: text.to_owned(),
        references: Vec::new(),
    }
}

fn shown(schema: &ProtoSchema) -> String {
    let columns = natural(schema).expect("columns");
    let columns = columns
        .iter()
        .map(|field| format!("{} {}", field.name, types::text(&field.field_type)));
    columns.collect::<Vec<_>>().join(", ")
}

fn check(text: &str, expect: &str) {
    let schema = parse(&schema_text(text), Message::Named(None)).expect(text);
    assert_eq!(shown(&schema), expect, "{text}");
}

#[test]
fn fields_become_columns() {
    check(
        "syntax = \"proto3\"; message M { bool a = 1; int32 b = 2; sint32 c = 3; sfixed32 d = 4; int64 e = 5; sint64 f = 6; \
         sfixed64 g = 7; uint32 h = 8; fixed32 i = 9; uint64 j = 10; fixed64 k = 11; float l = 12; double m = 13; string n = 14; \
         bytes o = 15; E p = 16; enum E { Z = 0; } }",
        "a boolean, b int, c int, d int, e long, f long, g long, h long, i long, j decimal(20, 0), k decimal(20, 0), l float, \
         m double, n string, o binary, p string",
    );
    // In the order of the file, not of the numbers.
    check(
        "syntax = \"proto3\"; message M { int32 z = 9; int32 a = 1; }",
        "z int, a int",
    );
    check(
        "syntax = \"proto3\"; message M { repeated int32 a = 1; map<string, uint64> b = 2; map<bool, N> c = 3; \
         map<fixed64, string> d = 4; repeated N e = 5; oneof o { int32 f = 6; N g = 7; } optional int32 h = 8; \
         message N { int32 x = 1; O y = 2; message O { string z = 1; } } }",
        "a list<int>, b map<string, decimal(20, 0)>, c map<boolean, struct<x: int, y: struct<z: string>>>, \
         d map<decimal(20, 0), string>, e list<struct<x: int, y: struct<z: string>>>, f int, \
         g struct<x: int, y: struct<z: string>>, h int",
    );
    check(
        "syntax = \"proto2\"; message M { required int32 a = 1; optional string b = 2 [default = \"x\"]; \
         repeated group C = 3 { optional int32 d = 1; } extensions 100 to 200; } extend M { optional int32 z = 100; }",
        "a int, b string, c list<struct<d: int>>",
    );
}

#[test]
fn messages_that_stand_for_something_are_columns() {
    check(
        "syntax = \"proto3\"; import \"google/protobuf/timestamp.proto\"; import \"google/protobuf/duration.proto\"; \
         import \"google/protobuf/wrappers.proto\"; import \"google/protobuf/struct.proto\"; \
         import \"google/protobuf/any.proto\"; import \"google/protobuf/field_mask.proto\"; \
         import \"google/protobuf/empty.proto\"; import \"google/type/date.proto\"; import \"google/type/timeofday.proto\"; \
         import \"google/type/decimal.proto\"; import \"confluent/type/decimal.proto\"; import \"confluent/meta.proto\"; \
         package p; \
         message M { google.protobuf.Timestamp a = 1; repeated google.protobuf.Duration b = 2; \
         google.protobuf.UInt64Value c = 3; google.protobuf.BytesValue d = 4; google.protobuf.Struct e = 5; \
         map<string, google.protobuf.Value> f = 6; google.protobuf.ListValue g = 7; google.protobuf.Any h = 8; \
         google.protobuf.FieldMask i = 9; google.protobuf.Empty j = 10; google.type.Date k = 11; google.type.TimeOfDay l = 12; \
         google.type.Decimal m = 13; confluent.type.Decimal n = 14 [(confluent.field_meta) = { \
         params: [{key: \"precision\", value: \"9\"}] }]; google.protobuf.BoolValue o = 15; }",
        "a timestamptz, b list<decimal(21, 9)>, c decimal(20, 0), d binary, e string, f map<string, string>, g string, h string, \
         i string, j string, k date, l time, m string, n string, o boolean",
    );
    check(
        "syntax = \"proto3\"; message M { int32 a = 1; N b = 2; message N { repeated N c = 1; M d = 2; E e = 3; } message E {} }",
        "a int, b struct<c: list<string>, d: string, e: string>",
    );
    let name = "google.protobuf.StringValue";
    let text = schema_text("syntax = \"proto3\"; import \"google/protobuf/wrappers.proto\"; message M {}");
    let schema = parse(&text, Message::Named(Some(name))).expect("a wrapper");
    assert_eq!((schema.name(), shown(&schema).as_str()), (name, "value string"));
}

#[test]
fn all_imports_compile() {
    for file in [
        "calendar_period",
        "color",
        "date",
        "datetime",
        "dayofweek",
        "decimal",
        "expr",
        "fraction",
        "interval",
        "latlng",
        "localized_text",
        "money",
        "month",
        "phone_number",
        "postal_address",
        "quaternion",
        "timeofday",
    ] {
        check(
            &format!("syntax = \"proto3\"; import \"google/type/{file}.proto\"; message M {{ int32 a = 1; }}"),
            "a int",
        );
    }
}

#[test]
fn references_are_imports() {
    let reference = |name: &str, text: &str| Reference {
        name: name.to_owned(),
        text: text.to_owned(),
    };
    let mut text = schema_text(
        "syntax = \"proto3\"; import \"b.proto\"; import \"google/protobuf/timestamp.proto\"; message M { B b = 1; }",
    );
    text.references = vec![
        reference("a.proto", "syntax = \"proto3\"; message A { int32 x = 1; }"),
        // Named like the file itself, and unlike what it imports.
        reference("schema.proto", "this is no file"),
        reference("google/protobuf/timestamp.proto", "neither is this"),
        reference(
            "b.proto",
            "syntax = \"proto3\"; import \"a.proto\"; message B { A a = 1; }",
        ),
    ];
    let schema = parse(&text, Message::Named(None)).expect("all are there");
    assert_eq!(shown(&schema), "b struct<a: struct<x: int>>");
    text.references.remove(0);
    let problem = parse(&text, Message::Named(None)).expect_err("a.proto is missing");
    assert!(problem.contains("'a.proto' not found"), "{problem}");
    let round = "syntax = \"proto3\"; import \"c.proto\";";
    text.references = vec![reference("c.proto", round), reference("b.proto", round)];
    let problem = parse(&text, Message::Named(None)).expect_err("a circle");
    assert!(problem.contains("import cycle"), "{problem}");
}

const NESTED: &str = "syntax = \"proto3\"; package p; message A { int32 a = 1; } \
                      message B { map<string, int32> m = 1; enum E { Z = 0; } message C { int32 c = 1; message D { int32 d = 1; } } \
                      message F { int32 f = 1; } }";

const DESCRIBED: &str = "syntax = \"proto2\"; package p; import public \"google/protobuf/timestamp.proto\"; \
                         message A { required int32 a = 1 [default = 5]; extensions 100 to 200; reserved 7, 8; reserved \"r\"; } \
                         extend A { optional int32 x = 100; } enum E { option allow_alias = true; Z = 0; Y = 0; X = -1; } \
                         message B { map<string, E> m = 1; oneof o { int32 p = 2; A q = 3; } \
                         message C { repeated group D = 1 { optional .google.protobuf.Timestamp t = 1; } optional C c = 2; } \
                         extend A { optional E y = 101; } } service S { rpc R (A) returns (B); }";

#[test]
fn a_message_is_found_by_its_indexes_or_its_name() {
    let text = schema_text(NESTED);
    let name = |message| parse(&text, message).map(|schema| schema.name().to_owned());
    for (indexes, expect) in [
        (&[0][..], "p.A"),
        (&[1], "p.B"),
        (&[1, 0], "p.B.C"),
        (&[1, 0, 0], "p.B.C.D"),
        (&[1, 1], "p.B.F"),
        // Go and Python count the entry of the map.
        (&[1, 2], "p.B.F"),
    ] {
        assert_eq!(name(Message::Indexes(indexes)).as_deref(), Ok(expect), "{indexes:?}");
    }
    for indexes in [&[][..], &[2], &[-1], &[0, 0], &[1, 3], &[1, 0, 0, 0]] {
        assert_eq!(
            name(Message::Indexes(indexes)),
            Err(format!("it has no message at {indexes:?}"))
        );
    }
    assert_eq!(name(Message::Named(None)).as_deref(), Ok("p.A"));
    assert_eq!(name(Message::Named(Some("p.B.C.D"))).as_deref(), Ok("p.B.C.D"));
    assert_eq!(
        name(Message::Named(Some("B"))),
        Err("it has no message `B`, it has `p.A`, `p.B`".to_owned())
    );
}

#[test]
fn what_is_no_schema_is_told_with_its_line() {
    let check = |text: &str, expect: &str| {
        let problem = parse(&schema_text(text), Message::Named(None)).expect_err(text);
        assert!(problem.contains(expect), "{text}: {problem}");
    };
    check("", "it has no message");
    check(
        "syntax = \"proto3\";\nmessage M { int32 a = 0; }",
        "schema.proto:2:23: ",
    );
    check("syntax = \"proto3\";\nmessage M { N a = 1; }", "schema.proto:2:13: ");
    check("edition = \"2023\"; message M {}", "editions aren't read");
    check("{\"type\":\"record\"}", "schema.proto:1:1: ");
    check("aGVsbG8gd29ybGQ=", "base64, but of no file descriptor");
    check(
        &format!(
            "syntax = \"proto3\"; option (x) = {}{};",
            "{a:".repeat(50_000),
            "}".repeat(50_000)
        ),
        "more than 100 brackets",
    );
    check(
        &format!("syntax = \"proto3\"; {}{}", "message M {".repeat(60), "}".repeat(60)),
        "message",
    );
    // Brackets that are none.
    let fine = format!(
        "// {}\n/* {} */ message M {{ optional string s = 1 [default = \"{}\"]; }}",
        "{".repeat(200),
        "<".repeat(200),
        "[".repeat(200)
    );
    assert!(parse(&schema_text(&fine), Message::Named(None)).is_ok());
    let wide: String = (0..200)
        .map(|at| {
            format!(
                "message M{at} {{ {} }}",
                (0..9)
                    .map(|field| format!("optional M{} f{field} = {};", at + 1, field + 1))
                    .collect::<String>()
            )
        })
        .collect();
    let schema = parse(
        &schema_text(&format!("{wide} message M200 {{ optional int32 a = 1; }}")),
        Message::Named(None),
    );
    let problem = natural(&schema.expect("a short schema")).expect_err("many columns");
    assert!(problem.contains("more than 10000 columns"), "{problem}");
}

#[test]
fn descriptors_are_read_like_files() {
    use prost_reflect::prost::Message as _;
    let file = protox::file::File::from_source("other.proto", NESTED).expect("a file");
    let bytes = file.file_descriptor_proto().encode_to_vec();
    let text = schema_text(&STANDARD.encode(bytes));
    let schema = parse(&text, Message::Indexes(&[1])).expect("a descriptor");
    assert_eq!((schema.name(), shown(&schema).as_str()), ("p.B", "m map<string, int>"));
    assert_eq!(
        schema,
        parse(&schema_text(NESTED), Message::Indexes(&[1])).expect("a file")
    );
}

fn parsed(fields: &str) -> Arc<WriterSchema> {
    let text = schema_text(&format!("syntax = \"proto3\"; message M {{ {fields} }}"));
    Arc::new(WriterSchema::parse(&SchemaKey::file(), &text).expect(fields))
}

/// The schemas come one after the other, as records of new schemas do; the table is as the last leaves it.
fn follows(schemas: &[&str], expect: &str) {
    let mut writers = Writers::default();
    let mut table = Schema::builder().build().expect("an empty schema");
    for (id, fields) in schemas.iter().enumerate() {
        let writer = parsed(fields);
        writers.add(SchemaKey::id(id as i32), writer.clone());
        let last = table.highest_field_id();
        let changed = follow::follow(
            &table,
            last,
            &HashSet::new(),
            &writer,
            &writers,
            follow::Form::default(),
        )
        .expect("columns");
        table = changed.unwrap_or(table);
    }
    let fields = table.as_struct().fields().iter();
    let fields = fields.map(|field| format!("{}:{} {}", field.id, field.name, types::text(&field.field_type)));
    assert_eq!(fields.collect::<Vec<_>>().join(", "), expect, "{schemas:?}");
}

#[test]
fn a_table_follows_its_messages() {
    follows(
        &[
            "int32 a = 1; float b = 2;",
            "int64 a = 1; double b = 2; string c = 3;",
            "int32 a = 1;",
        ],
        "1:a long, 2:b double, 3:c string",
    );
    // The number is the field.
    follows(
        &["int32 a = 1; int32 c = 2;", "int32 b = 1; int32 c = 2;"],
        "1:b int, 2:c int",
    );
    follows(
        &["int32 a = 1;", "int32 b = 1;", "int32 c = 1;", "int32 a = 1;"],
        "1:a int",
    );
    follows(
        &[
            "repeated N n = 1; message N { int32 x = 1; }",
            "repeated N l = 1; message N { int64 y = 1; int32 z = 2; }",
        ],
        "1:l list<struct<y: long, z: int>>",
    );
    follows(
        &[
            "map<string, N> n = 1; message N { int32 x = 1; }",
            "map<string, N> n = 1; message N { int32 y = 1; }",
        ],
        "1:n map<string, struct<y: int>>",
    );
    // Another field has the name of old: it stays that one's.
    follows(
        &[
            "int32 a = 1;",
            "int32 b = 1; string c = 2;",
            "int32 b = 1; int32 a = 3;",
        ],
        "1:b int, 2:c string, 3:a int",
    );
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in "[a-z{}<>\\[\\]();=\"'0-9 .,/*#\\n\\\\-]{0,200}") {
        drop(parse(&schema_text(&text), Message::Named(None)));
    }

    #[test]
    fn no_words_are_too_strange(words in proptest::collection::vec(prop_oneof![
        Just("message"), Just("M"), Just("N"), Just("{"), Just("}"), Just("{"), Just("}"), Just("repeated"), Just("optional"), Just("oneof"),
        Just("int32"), Just("string"), Just("a"), Just("b"), Just("="), Just("="), Just("1"), Just("2"), Just(";"), Just(";"), Just(";"),
        Just("enum"), Just("map<string, M>"), Just("group"), Just("G"), Just("syntax = \"proto3\";"), Just("package p;"), Just("extend"),
        Just("option"), Just("["), Just("]"), Just("default"), Just("(x)"), Just("{a: 1}"), Just("extensions 1 to max;"),
        Just("reserved 1;"), Just("import \"google/protobuf/descriptor.proto\";"), Just("-1"), Just("1e400"), Just("packed"), Just("true"),
    ], 0..60)) {
        if let Ok(schema) = parse(&schema_text(&words.join(" ")), Message::Named(None)) {
            drop(natural(&schema));
        }
    }

    #[test]
    fn no_descriptor_is_too_strange(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
        use prost_reflect::prost::Message as _;
        let file = protox::file::File::from_source("other.proto", DESCRIBED).expect("a file");
        let mut bytes = file.file_descriptor_proto().encode_to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let text = schema_text(&STANDARD.encode(bytes));
        for message in [Message::Indexes(&[1, 0]), Message::Indexes(&[1]), Message::Named(None)] {
            if let Ok(schema) = parse(&text, message) {
                drop(natural(&schema));
                drop(renames_between(&schema, &schema));
            }
        }
    }
}
