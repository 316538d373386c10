use iceberg::spec::Type;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Reference, SchemaLanguage, SchemaText};
use super::kind::COLUMNS_MAX;
use super::*;
use crate::config::types::text;
use crate::schema::evolve::create_schema;

fn schema_text(text: &str, references: &[(&str, &str)]) -> SchemaText {
    let references = references.iter().map(|(name, text)| Reference {
        name: (*name).to_owned(),
        text: (*text).to_owned(),
    });
    SchemaText {
        language: SchemaLanguage::Json,
        text: text.to_owned(),
        references: references.collect(),
    }
}

/// Columns as `name type`, those that are required with a `!` behind, at the root and below.
fn written(columns: &[NestedField]) -> String {
    fn required(of: &Type, into: &mut Vec<String>) {
        match of {
            Type::Primitive(_) => {}
            Type::Struct(fields) => {
                for field in fields.fields() {
                    into.extend(field.required.then(|| field.name.clone()));
                    required(&field.field_type, into);
                }
            }
            Type::List(list) => required(&list.element_field.field_type, into),
            Type::Map(map) => required(&map.value_field.field_type, into),
        }
    }
    let columns = columns.iter().map(|column| {
        let mut below = Vec::new();
        required(&column.field_type, &mut below);
        let mark = if column.required { "!" } else { "" };
        let below = below.iter().map(|name| format!(" {name}!")).collect::<String>();
        format!("{} {}{mark}{below}", column.name, text(&column.field_type))
    });
    columns.collect::<Vec<_>>().join(", ")
}

fn check_with(schema: &str, references: &[(&str, &str)], expect: &str) {
    let columns = columns(&schema_text(schema, references)).expect(schema);
    assert_eq!(written(&columns), expect, "{schema}");
    create_schema(columns, &[], false);
}

fn check(schema: &str, expect: &str) {
    check_with(schema, &[], expect);
}

/// The type of a column `v` with this schema; `-` if there is none.
fn value(schema: &str, expect: &str) {
    let root = format!(r#"{{"type":"object","properties":{{"v":{schema}}},"required":["v"]}}"#);
    let columns = columns(&schema_text(&root, &[])).expect(schema);
    let of = match columns.as_slice() {
        [] => "-".to_owned(),
        columns => written(columns)[2..].to_owned(),
    };
    assert_eq!(of, expect, "{schema}");
}

#[track_caller]
fn refused(schema: &str, said: &str) {
    let why = columns(&schema_text(schema, &[])).expect_err(schema);
    assert!(why.contains(said), "{schema}: {why}");
}

#[test]
fn columns_come_in_the_order_of_the_text() {
    check(
        r#"{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","required":["z","b","gone"],
            "properties":{"z":{"type":"string"},"a":{"type":"integer"},"m":{"type":"number"},"b":{"type":"boolean"}}}"#,
        "z string!, a long, m double, b boolean!",
    );
    // Confluent's own library loses the order and notes it.
    check(
        r#"{"properties":{"b":{"connect.index":1,"type":"string"},"z":{"type":"string"},
            "a":{"connect.index":0,"oneOf":[{"type":"null"},{"type":"integer","connect.type":"int32"}]}}}"#,
        "a int, b string, z string",
    );
    check(
        r##"{"allOf":[{"$ref":"#/definitions/base"}],"definitions":{"base":{"properties":{"id":{"type":"string"}}}},
            "properties":{"x":{"type":"string"}}}"##,
        "id string, x string",
    );
    // Names that differ in case are one column, and a name is needed.
    check(
        r#"{"properties":{"Id":{"type":"integer"},"":{"type":"string"},"ID":{"type":"number"},"id":{"type":"null"}}}"#,
        "Id double",
    );
    check(r#"{"type":"object"}"#, "");
}

#[test]
fn each_schema_has_its_column() {
    for (schema, expect) in [
        (r#"{"type":"integer"}"#, "long!"),
        (r#"{"type":"number"}"#, "double!"),
        (r#"{"type":"boolean"}"#, "boolean!"),
        (r#"{"type":"string"}"#, "string!"),
        (r#"{"type":"null"}"#, "-"),
        ("false", "-"),
        ("true", "string"),
        ("{}", "string"),
        ("7", "string"),
        (r#"{"type":"any"}"#, "string"),
        (r#"{"type":"string","format":"date"}"#, "date!"),
        (r#"{"type":"string","format":"date-time"}"#, "timestamptz!"),
        (r#"{"type":"string","format":"time"}"#, "string!"),
        (r#"{"type":"string","format":"uuid"}"#, "uuid!"),
        (r#"{"type":"string","format":"byte"}"#, "binary!"),
        (r#"{"type":"string","contentEncoding":"base64"}"#, "binary!"),
        (r#"{"type":"string","format":"email"}"#, "string!"),
        (r#"{"type":"integer","format":"int32"}"#, "long!"),
        (r#"{"type":"integer","format":"date-time"}"#, "long!"),
        (
            r#"{"type":"integer","maximum":9223372036854775807,"minimum":-9223372036854775808}"#,
            "long!",
        ),
        (r#"{"type":"integer","maximum":9223372036854776000}"#, "long!"),
        (
            r#"{"type":"integer","minimum":0,"maximum":18446744073709551615}"#,
            "decimal(20, 0)!",
        ),
        (
            r#"{"type":"integer","exclusiveMaximum":18446744073709551616}"#,
            "decimal(20, 0)!",
        ),
        (
            r#"{"type":"integer","exclusiveMaximum":true,"maximum":1e37}"#,
            "decimal(38, 0)!",
        ),
        (r#"{"type":"integer","minimum":-1.7976931348623157e308}"#, "string!"),
        (r#"{"type":["string","null"]}"#, "string"),
        (r#"{"type":["null","string"],"format":"date-time"}"#, "timestamptz"),
        (r#"{"type":["integer","string"]}"#, "string!"),
        (r#"{"type":["integer","number"]}"#, "double!"),
        (r#"{"type":"string","nullable":true}"#, "string"),
        (r#"{"type":"object"}"#, "string!"),
        (r#"{"type":"object","additionalProperties":true}"#, "string!"),
        (r#"{"type":"object","properties":{}}"#, "string!"),
        (r#"{"type":"object","properties":{"a":{"type":"null"}}}"#, "string!"),
        (
            r#"{"type":"object","additionalProperties":{"type":"integer"}}"#,
            "map<string, long>!",
        ),
        (
            r#"{"type":"object","additionalProperties":{"type":["integer","string"]}}"#,
            "map<string, string>!",
        ),
        (
            r#"{"additionalProperties":{"properties":{"a":{"type":"integer"}}}}"#,
            "map<string, struct<a: long>>",
        ),
        (
            r#"{"type":"object","patternProperties":{"^a":{"type":"integer"},"^b":{"type":"number"}},"additionalProperties":false}"#,
            "map<string, double>!",
        ),
        (
            r#"{"type":"object","patternProperties":{"^.*$":{"type":"integer"}}}"#,
            "map<string, long>!",
        ),
        (
            r#"{"type":"object","patternProperties":{"^a":{"type":"integer"}}}"#,
            "string!",
        ),
        (
            r#"{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"integer"}},"required":["a"],"additionalProperties":{"type":"string"}}"#,
            "struct<a: string, b: long>! a!",
        ),
        (r#"{"type":"array","items":{"type":"integer"}}"#, "list<long>!"),
        (r#"{"items":{"type":["integer","null"]}}"#, "list<long>"),
        (r#"{"type":"array"}"#, "list<string>!"),
        (r#"{"type":"array","items":false}"#, "list<string>!"),
        (
            r#"{"type":"array","prefixItems":[{"type":"number"},{"type":"number"}],"items":false}"#,
            "list<double>!",
        ),
        (
            r#"{"type":"array","items":[{"type":"number"},{"type":"string"}]}"#,
            "string!",
        ),
        (
            r#"{"type":"array","items":[{"type":"number"}],"additionalItems":{"type":"string"}}"#,
            "string!",
        ),
        (
            r#"{"type":"array","prefixItems":[{"type":"number"}],"items":{"type":"number"}}"#,
            "list<double>!",
        ),
    ] {
        value(schema, expect);
    }
}

#[test]
fn arms_are_joined() {
    for (schema, expect) in [
        (r#"{"oneOf":[{"type":"null"},{"type":"integer"}]}"#, "long"),
        (r#"{"anyOf":[{"type":"integer"},{"type":"integer"}]}"#, "long!"),
        (
            r#"{"anyOf":[{"type":"integer"},{"type":"number"},{"type":"null"}]}"#,
            "double",
        ),
        (r#"{"anyOf":[{"type":"integer"},{"type":"string"}]}"#, "string!"),
        (
            r#"{"anyOf":[{"type":"string","format":"date"},{"type":"string","format":"date-time"}]}"#,
            "string!",
        ),
        (
            r#"{"anyOf":[{"type":"integer","maximum":1e19},{"type":"integer"}]}"#,
            "decimal(20, 0)!",
        ),
        (
            r#"{"anyOf":[{"type":"integer","maximum":1e19},{"type":"number"}]}"#,
            "string!",
        ),
        (r#"{"anyOf":[{"type":"integer"},{}]}"#, "string"),
        (r#"{"anyOf":[]}"#, "string"),
        (
            r#"{"oneOf":[{"type":"boolean"},{"type":"array","items":{"type":"boolean"}}]}"#,
            "string!",
        ),
        (
            r#"{"oneOf":[{"type":"array","items":{"type":"integer"}},{"type":"array","items":{"type":"number"}}]}"#,
            "list<double>!",
        ),
        (
            r#"{"oneOf":[{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},"required":["a","b"]},
                {"type":"object","properties":{"a":{"type":"number"},"c":{"type":"string"}},"required":["a"]},{"type":"null"}]}"#,
            "struct<a: double, b: string, c: string>",
        ),
        (
            r#"{"oneOf":[{"type":"null"},{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}]}"#,
            "struct<a: long> a!",
        ),
        (
            r#"{"oneOf":[{"type":"object","properties":{"a":{"type":"integer"}}},
                {"type":"object","additionalProperties":{"type":"integer"}}]}"#,
            "string!",
        ),
        (
            r#"{"type":"object","properties":{"a":{"type":"integer"}},"anyOf":[{"required":["a"]},{"required":["b"]}]}"#,
            "struct<a: long>!",
        ),
        (
            r#"{"allOf":[{"type":"object","properties":{"a":{"type":"integer"}}},{"properties":{"b":{"type":"string"}}},
                {"required":["a"]}]}"#,
            "struct<a: long, b: string>! a!",
        ),
        (r#"{"allOf":[{"type":"number"},{"type":"integer"}]}"#, "long!"),
        (r#"{"type":"string","allOf":[{"format":"date"}]}"#, "string!"),
        (
            r#"{"type":"string","allOf":[{"type":"string","format":"date"}]}"#,
            "date!",
        ),
        (r#"{"type":"string","allOf":[{"type":"integer"}]}"#, "string!"),
        (
            r#"{"type":"integer","not":{"type":"string"},"if":{"type":"string"},"then":{"type":"string"}}"#,
            "long!",
        ),
        (r#"{"enum":["a","b"]}"#, "string!"),
        (r#"{"enum":["a",null]}"#, "string"),
        (r#"{"enum":[1,2]}"#, "long!"),
        (r#"{"enum":[1,2.5]}"#, "double!"),
        (r#"{"enum":[1,"a"]}"#, "string!"),
        (r#"{"enum":[18446744073709551615,1]}"#, "decimal(20, 0)!"),
        (r#"{"enum":[{"a":1}]}"#, "string!"),
        (r#"{"const":true}"#, "boolean!"),
        (r#"{"const":null}"#, "-"),
    ] {
        value(schema, expect);
    }
    check(
        r##"{"oneOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/b"}],"$defs":{
            "a":{"type":"object","properties":{"kind":{"const":"a"},"x":{"type":"integer"}},"required":["kind"]},
            "b":{"type":"object","properties":{"kind":{"const":"b"},"y":{"type":"integer"}},"required":["kind"]}}}"##,
        "kind string, x long, y long",
    );
}

#[test]
fn what_kafka_connect_notes_narrows() {
    for (schema, expect) in [
        (r#"{"type":"integer","connect.type":"int8"}"#, "int!"),
        (r#"{"type":"integer","connect.type":"int64"}"#, "long!"),
        (r#"{"type":"number","connect.type":"float32"}"#, "float!"),
        (r#"{"type":"number","connect.type":"float64"}"#, "double!"),
        (r#"{"type":"string","connect.type":"bytes"}"#, "binary!"),
        (
            r#"{"type":"integer","title":"org.apache.kafka.connect.data.Timestamp","connect.version":1,"connect.type":"int64"}"#,
            "timestamptz!",
        ),
        (
            r#"{"type":"integer","title":"org.apache.kafka.connect.data.Date","connect.type":"int32"}"#,
            "int!",
        ),
        (
            r#"{"type":"number","title":"org.apache.kafka.connect.data.Decimal","connect.type":"bytes","connect.parameters":{"scale":"2"}}"#,
            "string!",
        ),
        (
            r#"{"type":"object","connect.type":"map","additionalProperties":{"type":"integer","connect.type":"int32"}}"#,
            "map<string, int>!",
        ),
    ] {
        value(schema, expect);
    }
}

#[test]
fn references_are_followed() {
    check(
        r##"{"type":"object","properties":{"a":{"$ref":"#/definitions/x~1y%20z~0"},"b":{"$ref":"#/properties/a"},
            "c":{"$ref":"#anchored"},"d":{"$ref":"#old"},"e":{"$ref":"#/definitions/list/items/1"},"f":{"$ref":"part.json"},
            "g":{"$ref":"https://example.com/part.json#/properties/u"}},
            "$id":"https://example.com/root.json",
            "definitions":{"x/y z~":{"type":"integer"},"b":{"$anchor":"anchored","type":"number"},
                "c":{"$id":"#old","type":"boolean"},"list":{"items":[{},{"type":"string","format":"date"}]},
                "part":{"$id":"part.json","type":"object","properties":{"t":{"$ref":"#/properties/u"},"u":{"type":"boolean"}}}}}"##,
        "a long, b long, c double, d boolean, e date, f struct<t: boolean, u: boolean>, g boolean",
    );
    let address = r##"{"$id":"https://example.com/address","type":"object",
        "properties":{"city":{"type":"string"},"country":{"$ref":"country.json#/$defs/code"}},"$defs":{"zip":{"type":"integer"}}}"##;
    let country = r#"{"$defs":{"code":{"enum":["de","at"]}}}"#;
    check_with(
        r##"{"properties":{"home":{"$ref":"address.json"},"zip":{"$ref":"address.json#/$defs/zip"},
            "work":{"$ref":"https://example.com/address"},"id":{"type":"string"}}}"##,
        &[("country.json", country), ("address.json", address)],
        "home struct<city: string, country: string>, zip long, work struct<city: string, country: string>, id string",
    );
    // The root may be elsewhere, and an `id` that isn't the schema's hides nothing.
    check_with(
        r#"{"$ref":"root"}"#,
        &[("root", r#"{"properties":{"a":{}}}"#)],
        "a string",
    );
    check(
        r##"{"id":"urn:x","properties":{"a":{"id":"odd","$ref":"#/definitions/b"}},"definitions":{"b":{"type":"integer"}}}"##,
        "a long",
    );
    check(
        r##"{"$dynamicAnchor":"node","properties":{"a":{"$dynamicRef":"#leaf"}},
            "$defs":{"leaf":{"$dynamicAnchor":"leaf","type":"integer"}}}"##,
        "a long",
    );
}

#[test]
fn a_schema_inside_itself_is_text() {
    check(
        r##"{"type":"object","properties":{"value":{"type":"integer"},"next":{"$ref":"#"},
            "children":{"type":"array","items":{"$ref":"#"}},"by_name":{"type":"object","additionalProperties":{"$ref":"#"}}}}"##,
        "value long, next string, children list<string>, by_name map<string, string>",
    );
    check(
        r##"{"properties":{"a":{"$ref":"#/$defs/a"}},"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##,
        "a string",
    );
    check(
        r##"{"properties":{"a":{"$ref":"#/$defs/a"}},
            "$defs":{"a":{"properties":{"b":{"$ref":"#/$defs/b"}}},"b":{"properties":{"a":{"$ref":"#/$defs/a"}}}}}"##,
        "a struct<b: struct<a: string>>",
    );
    let chain: Vec<String> = (0..5000)
        .map(|at| format!(r##""d{at}":{{"properties":{{"x":{{"$ref":"#/$defs/d{}"}}}}}}"##, at + 1))
        .collect();
    let deep = format!(
        r##"{{"$ref":"#/$defs/d0","$defs":{{{},"d5000":{{"type":"integer"}}}}}}"##,
        chain.join(",")
    );
    let columns = columns(&schema_text(&deep, &[])).expect("deep");
    // Every second schema is a column's, the other one a mere `$ref`.
    let expect = format!("x: string{}", ">".repeat(DEPTH_MAX / 2 - 1));
    assert!(written(&columns).ends_with(&expect), "{}", written(&columns));
}

#[test]
fn what_makes_no_columns_is_refused_with_a_sentence() {
    refused("", "is no JSON");
    refused("{", "is no JSON");
    refused(&"[".repeat(50_000), "is no JSON");
    refused(&format!("{}{}", r#"{"items":"#.repeat(50_000), "{}"), "is no JSON");
    for root in [
        "true",
        "false",
        "{}",
        "1",
        r#"{"type":"string"}"#,
        r#"{"type":"array","items":{"properties":{"a":{}}}}"#,
        r##"{"$ref":"#"}"##,
        r#"{"anyOf":[{"type":"string"},{"properties":{"a":{}}}]}"#,
    ] {
        refused(root, "the schema's root is no object");
    }
    refused(r#"{"additionalProperties":{"type":"integer"}}"#, "its names are data");
    for (reference, said) in [
        ("#/definitions/gone", "where nothing is"),
        ("#gone", "where nothing is"),
        ("#/properties/a/-1", "where nothing is"),
        ("#%ff", "where nothing is"),
        ("other.json", "neither in it nor among its references"),
        ("http://[", "neither in it nor among its references"),
    ] {
        refused(&json!({"properties": {"a": {"$ref": reference}}}).to_string(), said);
    }
    let broken = columns(&schema_text("{}", &[("other.json", "{")])).expect_err("broken");
    assert!(
        broken.starts_with("the schema's reference `other.json` is no JSON"),
        "{broken}"
    );
}

#[test]
fn references_that_multiply_are_bounded() {
    // 2^40 columns, then 2^40 schemas without any.
    for arms in [
        r##"{"properties":{"a":{"$ref":"#/$defs/d@"},"b":{"$ref":"#/$defs/d@"}}}"##,
        r##"{"allOf":[{"$ref":"#/$defs/d@"},{"$ref":"#/$defs/d@"}]}"##,
        r##"{"anyOf":[{"$ref":"#/$defs/d@"},{"$ref":"#/$defs/d@"}]}"##,
    ] {
        let levels: Vec<String> = (0..40)
            .map(|at| format!(r#""d{at}":{}"#, arms.replace('@', &(at + 1).to_string())))
            .collect();
        let schema = format!(
            r##"{{"$ref":"#/$defs/d0","$defs":{{{},"d40":{{"properties":{{"x":{{}}}}}}}}}}"##,
            levels.join(",")
        );
        refused(&schema, "more than 1000000 keywords");
    }
    let table = |columns: i32| {
        let fields: Vec<_> = (0..columns)
            .map(|at| format!(r#""c{at}":{{"type":"string"}}"#))
            .collect();
        columns_of(&format!(r#"{{"properties":{{{}}}}}"#, fields.join(",")))
    };
    let most = table(COLUMNS_MAX).expect("as many as may be");
    assert_eq!(most.last().expect("columns").id, COLUMNS_MAX);
    assert!(
        table(COLUMNS_MAX + 1)
            .expect_err("one more")
            .contains("more than 10000 columns")
    );
}

fn columns_of(schema: &str) -> Result<Vec<NestedField>, String> {
    columns(&schema_text(schema, &[]))
}

#[test]
fn every_id_is_its_own() {
    let schema = r#"{"properties":{"a":{"properties":{"b":{"type":"array","items":{"properties":{"c":{}}}}}},
        "m":{"additionalProperties":{"type":"integer"}}}}"#;
    let columns = columns_of(schema).expect(schema);
    let mut ids = Vec::new();
    let mut rest: Vec<NestedField> = columns;
    while let Some(field) = rest.pop() {
        ids.push(field.id);
        match *field.field_type {
            Type::Primitive(_) => {}
            Type::Struct(fields) => rest.extend(fields.fields().iter().map(|field| (**field).clone())),
            Type::List(list) => rest.push((*list.element_field).clone()),
            Type::Map(map) => rest.extend([(*map.key_field).clone(), (*map.value_field).clone()]),
        }
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..=ids.len() as i32).collect::<Vec<_>>());
}

/// Any JSON, made of the words that mean something in a schema.
fn schema_like() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "type",
        "properties",
        "additionalProperties",
        "patternProperties",
        "items",
        "prefixItems",
        "additionalItems",
        "required",
        "enum",
        "const",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "$ref",
        "$id",
        "id",
        "$anchor",
        "$dynamicRef",
        "$defs",
        "definitions",
        "format",
        "title",
        "connect.type",
        "connect.index",
        "minimum",
        "maximum",
        "nullable",
        "a",
        "A",
        "",
        "0",
    ]);
    let text = prop::sample::select(vec![
        "object",
        "array",
        "string",
        "integer",
        "number",
        "null",
        "boolean",
        "date",
        "uuid",
        "#",
        "#/",
        "#/a",
        "#/$defs/a",
        "#/definitions/0",
        "#a",
        "a",
        "a#/a",
        "other",
        "other#a",
        "http://x/y",
        "urn:x",
        "//",
        "int32",
        "bytes",
        "%",
        "#%",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, move |inner| {
        let key = prop_oneof![8 => word.clone().prop_map(str::to_owned), 1 => ".{0,4}"];
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            4 => prop::collection::vec((key, inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_schema_panics(root in schema_like(), properties in schema_like(), other in schema_like(), rooted in any::<bool>()) {
        let root = if rooted {
            let mut properties = properties;
            if !properties.is_object() {
                properties = json!({ "a": properties });
            }
            json!({"type": "object", "properties": properties, "$defs": {"a": root}})
        } else {
            root
        };
        let schema = schema_text(&root.to_string(), &[("other", &other.to_string())]);
        if let Ok(columns) = columns(&schema) {
            // What comes out makes a table.
            create_schema(columns, &[], false);
        }
    }
}
