use super::super::avro;
use super::*;

fn check(old: &str, new: &str, backward: &[&str], forward: &[&str]) {
    super::check(SchemaLanguage::Avro, old, new, backward, forward);
}

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"r","fields":[{fields}]}}"#)
}

/// Both types as field `a` of a record.
fn check_types(old: &str, new: &str, backward: &[&str], forward: &[&str]) {
    let field = |of: &str| record(&format!(r#"{{"name":"a","type":{of}}}"#));
    check(&field(old), &field(new), backward, forward);
}

#[test]
fn numbers_are_promoted_and_text_is_bytes() {
    let narrows = [
        ("int", "long"),
        ("int", "float"),
        ("int", "double"),
        ("long", "float"),
        ("long", "double"),
        ("float", "double"),
    ];
    for (small, large) in narrows {
        let forward = format!("$.a type: `{small}` / `{large}`");
        check_types(&format!("\"{small}\""), &format!("\"{large}\""), &[], &[&forward]);
    }
    check_types("\"string\"", "\"bytes\"", &[], &[]);
    let others = [
        ("null", r#""null""#),
        ("boolean", r#""boolean""#),
        ("int", r#""int""#),
        ("string", r#""string""#),
        ("array", r#"{"type":"array","items":"int"}"#),
        ("map", r#"{"type":"map","values":"int"}"#),
    ];
    for (at, (a, old)) in others.iter().enumerate() {
        for (b, new) in &others[at + 1..] {
            let (backward, forward) = (format!("$.a type: `{b}` / `{a}`"), format!("$.a type: `{a}` / `{b}`"));
            check_types(old, new, &[&backward], &[&forward]);
        }
    }
    let map = |of: &str| format!(r#"{{"type":"map","values":{{"type":"array","items":"{of}"}}}}"#);
    check_types(&map("int"), &map("long"), &[], &["$.a.*[*] type: `int` / `long`"]);
}

#[test]
fn a_field_that_was_not_written_needs_a_default() {
    check(
        &record(""),
        &record(r#"{"name":"a","type":"long"}"#),
        &["$.a default: `long` without a default / no such field"],
        &[],
    );
    check(
        &record(""),
        &record(r#"{"name":"a","type":"long","default":1}"#),
        &[],
        &[],
    );
    check(
        &record(""),
        &record(r#"{"name":"a","type":["null","long"],"default":null}"#),
        &[],
        &[],
    );
    check(
        &record(""),
        &record(r#"{"name":"a","type":"long","default":"x"}"#),
        &["$.a defaultValue: `long` with the default `\"x\"` / no such field"],
        &[],
    );
    let address = |fields: &str| {
        record(&format!(
            r#"{{"name":"to","type":{{"type":"array","items":{{"type":"record","name":"Address","fields":[{fields}]}}}}}}"#
        ))
    };
    check(
        &address(r#"{"name":"zip","type":"string"}"#),
        &address(r#"{"name":"city","type":"string"}"#),
        &["$.to[*].city default: `string` without a default / no such field"],
        &["$.to[*].zip default: `string` without a default / no such field"],
    );
}

#[test]
fn aliases_are_the_readers() {
    check(
        &record(r#"{"name":"a","type":"int"}"#),
        &record(r#"{"name":"b","type":"long","aliases":["a"]}"#),
        &[],
        &["$.a default: `int` without a default / no such field"],
    );
    // A field of the name itself comes before one of an alias.
    check(
        &record(r#"{"name":"a","type":"string"},{"name":"b","type":"int"}"#),
        &record(r#"{"name":"b","type":"long","aliases":["a"]}"#),
        &[],
        &[
            "$.a default: `string` without a default / no such field",
            "$.b type: `int` / `long`",
        ],
    );
    let named = |name: &str, more: &str| format!(r#"{{"type":"record","name":"{name}","fields":[]{more}}}"#);
    check(&named("n.a", ""), &named("m.a", ""), &[], &[]);
    check(
        &named("n.a", ""),
        &named("n.b", ""),
        &["$ name: record `n.b` / record `n.a`"],
        &["$ name: record `n.a` / record `n.b`"],
    );
    check(
        &named("n.a", ""),
        &named("n.b", r#","aliases":["a"]"#),
        &[],
        &["$ name: record `n.a` / record `n.b`"],
    );
    check(
        &named("n.a", ""),
        &named("n.b", r#","aliases":["m.a"]"#),
        &["$ name: record `n.b` / record `n.a`"],
        &["$ name: record `n.a` / record `n.b`"],
    );
}

#[test]
fn each_type_of_a_union_is_read() {
    check_types(
        r#""string""#,
        r#"["null","string"]"#,
        &[],
        &["$.a union: `string` / `null`, one type of a union,"],
    );
    check_types(
        r#"["null","int"]"#,
        r#"["long","null"]"#,
        &[],
        &["$.a union: a union of `null`, `int` / `long`"],
    );
    check_types(
        r#"["int","string"]"#,
        r#"["string","boolean"]"#,
        &["$.a union: a union of `string`, `boolean` / `int`"],
        &["$.a union: a union of `int`, `string` / `boolean`"],
    );
    // The arm that was meant says more.
    let arm =
        |of: &str| format!(r#"["null",{{"type":"record","name":"Inner","fields":[{{"name":"x","type":"{of}"}}]}}]"#);
    check_types(
        &arm("int"),
        &arm("string"),
        &["$.a.x type: `string` / `int`"],
        &["$.a.x type: `int` / `string`"],
    );
    check_types(r#"["int"]"#, r#""int""#, &[], &[]);
}

#[test]
fn enums_know_all_symbols_or_have_a_default() {
    let of = |symbols: &str, more: &str| format!(r#"{{"type":"enum","name":"e","symbols":[{symbols}]{more}}}"#);
    check_types(
        &of(r#""A","B""#, ""),
        &of(r#""B""#, ""),
        &["$.a symbols: no symbol `A` / `A`"],
        &[],
    );
    check_types(&of(r#""A","B""#, ""), &of(r#""B""#, r#","default":"B""#), &[], &[]);
    check_types(
        &of(r#""A""#, ""),
        &of(r#""B""#, r#","default":"C""#),
        &["$.a symbols: no symbol `A` / `A`"],
        &["$.a symbols: no symbol `B` / `B`"],
    );
    check_types(
        &of(r#""A""#, ""),
        r#""string""#,
        &["$.a type: `string` / enum `e`"],
        &["$.a type: enum `e` / `string`"],
    );
}

#[test]
fn fixed_keeps_its_size_and_name() {
    let of = |name: &str, size: u32| format!(r#"{{"type":"fixed","name":"{name}","size":{size}}}"#);
    check_types(
        &of("f", 4),
        &of("f", 8),
        &["$.a size: 8 bytes / 4 bytes"],
        &["$.a size: 4 bytes / 8 bytes"],
    );
    check_types(
        &of("f", 4),
        &of("g", 4),
        &["$.a name: fixed `g` / fixed `f`"],
        &["$.a name: fixed `f` / fixed `g`"],
    );
    check_types(
        &of("f", 4),
        "\"bytes\"",
        &["$.a type: `bytes` / fixed `f`"],
        &["$.a type: fixed `f` / `bytes`"],
    );
}

#[test]
fn logical_types_keep_their_meaning() {
    let of = |of: &str, logical: &str| format!(r#"{{"type":"{of}","logicalType":"{logical}"}}"#);
    check_types("\"long\"", &of("long", "timestamp-millis"), &[], &[]);
    check_types(
        "\"int\"",
        &of("long", "timestamp-millis"),
        &[],
        &["$.a type: `int` / `long` (timestamp-millis)"],
    );
    check_types(&of("int", "date"), "\"int\"", &[], &[]);
    check_types("\"string\"", &of("string", "uuid"), &[], &[]);
    for (old, new) in [
        ("timestamp-millis", "timestamp-micros"),
        ("timestamp-micros", "local-timestamp-micros"),
        ("time-micros", "timestamp-micros"),
    ] {
        check_types(
            &of("long", old),
            &of("long", new),
            &[&format!("$.a meaning: `long` ({new}) / `long` ({old})")],
            &[&format!("$.a meaning: `long` ({old}) / `long` ({new})")],
        );
    }
    check_types(
        &of("int", "date"),
        &of("long", "timestamp-millis"),
        &["$.a meaning: `long` (timestamp-millis) / `int` (date)"],
        &["$.a type: `int` (date) / `long` (timestamp-millis)"],
    );
    let decimal = |precision: u32, scale: u32| {
        format!(r#"{{"type":"bytes","logicalType":"decimal","precision":{precision},"scale":{scale}}}"#)
    };
    check_types(
        &decimal(10, 2),
        &decimal(12, 2),
        &[],
        &["$.a decimal: decimal(10, 2) / decimal(12, 2)"],
    );
    check_types(
        &decimal(10, 2),
        &decimal(12, 4),
        &["$.a decimal: decimal(12, 4) / decimal(10, 2)"],
        &["$.a decimal: decimal(10, 2) / decimal(12, 4)"],
    );
    check_types(&decimal(10, 2), "\"bytes\"", &[], &[]);
    check_types(
        &decimal(10, 2),
        "\"string\"",
        &["$.a meaning: `string` / decimal(10, 2)"],
        &["$.a meaning: decimal(10, 2) / `string`"],
    );
    let fixed = |scale: u32| {
        format!(r#"{{"type":"fixed","name":"f","size":8,"logicalType":"decimal","precision":10,"scale":{scale}}}"#)
    };
    check_types(
        &fixed(2),
        &fixed(3),
        &["$.a decimal: decimal(10, 3) / decimal(10, 2)"],
        &["$.a decimal: decimal(10, 2) / decimal(10, 3)"],
    );
}

#[test]
fn types_inside_themselves_end() {
    let tree = |value: &str, more: &str| {
        format!(
            r#"{{"type":"record","name":"Node","fields":[{{"name":"v","type":"{value}"}},{{"name":"next","type":["null","Node"]}},
               {{"name":"all","type":{{"type":"map","values":"Node"}}}}{more}]}}"#
        )
    };
    check(&tree("int", ""), &tree("long", ""), &[], &["$.v type: `int` / `long`"]);
    check(
        &tree("int", ""),
        &tree("int", r#",{"name":"w","type":["null","Node"]}"#),
        &["$.w default: a union of `null`, record `Node` without a default / no such field"],
        &[],
    );
    // Two that hold each other, and a union in which an arm fits as long as it isn't looked into.
    let pair = |of: &str| {
        format!(
            r#"{{"type":"record","name":"A","fields":[{{"name":"b","type":["null",{{"type":"record","name":"B","fields":[
               {{"name":"a","type":["null","A"]}},{{"name":"x","type":"{of}"}}]}}]}}]}}"#
        )
    };
    check(
        &pair("int"),
        &pair("string"),
        &["$.b.x type: `string` / `int`"],
        &["$.b.x type: `int` / `string`"],
    );
    // The only arm of the name is wrong deep inside: no other arm takes it either.
    let arms = |of: &str| format!(r#"["null",{}]"#, pair(of));
    check(
        &arms("int"),
        &arms("string"),
        &["$.b.x type: `string` / `int`"],
        &["$.b.x type: `int` / `string`"],
    );
}

#[test]
fn defaults_are_looked_at_for_themselves() {
    let faults = |schema: &str| parsed(SchemaLanguage::Avro, schema).faults();
    assert_eq!(faults(&record(r#"{"name":"a","type":"int","default":1}"#)), [""; 0]);
    assert_eq!(
        faults(&record(r#"{"name":"a","type":"int","default":null}"#)),
        ["field `a` of `r`: the default `null` is no `int`"]
    );
    assert_eq!(
        faults(r#"{"type":"enum","name":"e","symbols":["A"],"default":"B"}"#),
        ["enum `e`: the default `B` is none of its symbols"]
    );
}

#[test]
fn a_fault_at_the_end_of_a_chain_of_types_is_found() {
    // Pairs are taken to fit until it shows that they don't: a chain in which only the last one shows it.
    let chain = |last: &str| {
        let mut of = format!("\"{last}\"");
        for at in 0..20 {
            of = format!(r#"{{"type":"record","name":"c{at}","fields":[{{"name":"x","type":["null",{of}]}}]}}"#);
        }
        of
    };
    let (reader, writer) = (
        text(SchemaLanguage::Avro, &chain("int")),
        text(SchemaLanguage::Avro, &chain("string")),
    );
    let parse = |text| crate::schema::avro::parse(text).expect("a schema");
    let misfits = avro::misfits(&parse(&reader), &parse(&writer));
    assert_eq!(misfits.len(), 1);
    assert_eq!(misfits[0].path, format!("${}", ".x".repeat(20)));
}
