use super::*;

/// Both as files of proto3, package `p`.
fn check(old: &str, new: &str, backward: &[&str], forward: &[&str]) {
    let file = |text: &str| match text.contains("syntax") {
        true => text.to_owned(),
        false => format!("syntax = \"proto3\"; package p; {text}"),
    };
    super::check(SchemaLanguage::Protobuf, &file(old), &file(new), backward, forward);
}

/// Both as field 1 of a message.
fn check_types(old: &str, new: &str, backward: &[&str], forward: &[&str]) {
    let file = |of: &str| format!("message M {{ {of} a = 1; }} message In {{ int32 x = 1; }} enum E {{ Z = 0; }}");
    check(&file(old), &file(new), backward, forward);
}

#[test]
fn kinds_that_are_written_alike_are_read() {
    let groups: [&[&str]; 8] = [
        &["int32", "int64", "uint32", "uint64", "bool", "E"],
        &["sint32", "sint64"],
        &["fixed32", "sfixed32"],
        &["fixed64", "sfixed64"],
        &["float"],
        &["double"],
        &["string", "bytes"],
        &["In"],
    ];
    let shown = |of: &str| match of {
        "E" => "`enum p.E` as field 1".to_owned(),
        "In" => "`message p.In` as field 1".to_owned(),
        of => format!("`{of}` as field 1"),
    };
    for (at, group) in groups.iter().enumerate() {
        for one in *group {
            check_types(group[0], one, &[], &[]);
        }
        for others in &groups[at + 1..] {
            let other = shown(others[0]);
            check_types(
                group[0],
                others[0],
                &[&format!("p.M.a type: {other} / {}", shown(group[0]))],
                &[&format!("p.M.a type: {} / {other}", shown(group[0]))],
            );
        }
    }
}

#[test]
fn fields_are_their_numbers() {
    check("message M { string a = 1; }", "message M { string b = 1; }", &[], &[]);
    check(
        "message M { string a = 1; }",
        "message M { string a = 1; int32 b = 2; }",
        &[],
        &[],
    );
    check(
        "message M { string a = 1; int32 b = 2; }",
        "message M { int32 b = 2; }",
        &[],
        &[],
    );
    check(
        "message M { string a = 1; }",
        "message M { int32 b = 1; }",
        &["p.M.b type: `int32` as field 1 / `string` as field 1"],
        &["p.M.a type: `string` as field 1 / `int32` as field 1"],
    );
    check(
        "message M { map<string, int32> a = 1; }",
        "message M { map<string, string> a = 1; }",
        &["p.M.A.value type: `string` as field 2 / `int32` as field 2"],
        &["p.M.A.value type: `int32` as field 2 / `string` as field 2"],
    );
    check(
        "message M { optional int32 a = 1; }",
        "message M { int32 a = 1; }",
        &[],
        &[],
    );
}

#[test]
fn single_fields_stay_single_if_they_may_be_packed() {
    for of in ["string", "bytes", "In"] {
        check_types(of, &format!("repeated {of}"), &[], &[]);
    }
    for of in ["int32", "double"] {
        check_types(
            of,
            &format!("repeated {of}"),
            &[&format!(
                "p.M.a repeated: `repeated {of}` as field 1 / `{of}` as field 1"
            )],
            &[&format!(
                "p.M.a repeated: `{of}` as field 1 / `repeated {of}` as field 1"
            )],
        );
    }
}

#[test]
fn required_fields_are_neither_added_nor_removed() {
    let file = |fields: &str| format!("syntax = \"proto2\"; package p; message M {{ {fields} }}");
    check(
        &file(""),
        &file("required string a = 1;"),
        &["p.M.a required: a required field 1 / no field 1"],
        &["p.M.a required: no field 1 / a required field 1"],
    );
    check(
        &file("optional string a = 1;"),
        &file("required string a = 1;"),
        &["p.M.a required: `required string` as field 1 / `string` as field 1"],
        &[],
    );
    check(
        &file("optional group G = 1 { optional int32 x = 1; }"),
        &file("optional G g = 1; message G { optional int32 x = 1; }"),
        &["p.M.g type: `message p.M.G` as field 1 / `group p.M.G` as field 1"],
        &["p.M.g type: `group p.M.G` as field 1 / `message p.M.G` as field 1"],
    );
}

#[test]
fn a_oneof_holds_one() {
    // A single field may move into a new one, several may not; a new field may join.
    check(
        "message M { string a = 1; }",
        "message M { oneof o { string a = 1; int32 b = 2; } }",
        &[],
        &[],
    );
    check(
        "message M { oneof o { string a = 1; int32 b = 2; } }",
        "message M { oneof q { string a = 1; int32 b = 2; } }",
        &[],
        &[],
    );
}

#[test]
fn fields_of_a_oneof_stay_in_it() {
    check(
        "message M { oneof o { string a = 1; int32 b = 2; } }",
        "message M { oneof o { string a = 1; } }",
        &["p.M.o oneofField: a `oneof` without `b` / a `oneof` with `b`"],
        &[],
    );
    check(
        "message M { string a = 1; int32 b = 2; }",
        "message M { oneof o { string a = 1; int32 b = 2; } }",
        &["p.M.o oneofJoined: `a`, `b` in one `oneof` / fields that can be set together"],
        &[],
    );
    check(
        "message M { int32 c = 3; oneof o { string a = 1; int32 b = 2; } }",
        "message M { oneof q { string a = 1; int32 b = 2; int32 c = 3; } }",
        &["p.M.q oneofJoined: `a`, `b`, `c` in one `oneof` / fields that can be set together"],
        &["p.M.q oneofField: a `oneof` without `c` / a `oneof` with `c`"],
    );
}

#[test]
fn messages_and_the_package_stay() {
    check(
        "message M { int32 a = 1; } message N { int32 a = 1; }",
        "message M { int32 a = 1; }",
        &["p.N message: no such message / message `N`"],
        &[],
    );
    // Their order is free: a record says by which schema its message's place counts.
    check(
        "message M { int32 a = 1; } message N { int32 a = 1; }",
        "message N { int32 a = 1; } message M { int32 a = 1; }",
        &[],
        &[],
    );
    check(
        "syntax = \"proto3\"; package p; message M { int32 a = 1; }",
        "syntax = \"proto3\"; package q; message M { int32 a = 1; }",
        &["$ package: package `q` / package `p`"],
        &["$ package: package `p` / package `q`"],
    );
    // Messages in fields are what they hold, whatever they are called, and may hold themselves.
    check(
        "message M { message A { int32 x = 1; M m = 2; } A a = 1; }",
        "message M { message A { int32 x = 1; M m = 2; } message B { string x = 1; M m = 2; } B a = 1; }",
        &["p.M.B.x type: `string` as field 1 / `int32` as field 1"],
        &[
            "p.M.A.x type: `int32` as field 1 / `string` as field 1",
            "p.M.B message: no such message / message `B`",
        ],
    );
}

#[test]
fn files_that_are_imported_count() {
    let with = |of: &str| SchemaText {
        language: SchemaLanguage::Protobuf,
        text: "syntax = \"proto3\"; import \"size.proto\"; message Shoe { Size size = 1; }".to_owned(),
        references: vec![crate::schema::Reference {
            name: "size.proto".to_owned(),
            text: format!("syntax = \"proto3\"; message Size {{ {of} n = 1; }}"),
        }],
    };
    let parse = |of| Comparable::parse(&with(of)).expect("a schema");
    let misfits = parse("string").misfits(&parse("int32")).expect("they can be compared");
    assert_eq!(misfits.len(), 1);
    assert_eq!((misfits[0].path.as_str(), misfits[0].rule), ("Size.n", Rule::Type));
}
