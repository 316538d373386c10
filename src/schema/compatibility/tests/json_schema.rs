use super::*;

/// Checks what keeps a new schema from taking an old one's values, and the other way round.
fn check(old: &str, new: &str, backward: &[&str], forward: &[&str]) {
    super::check(SchemaLanguage::Json, old, new, backward, forward);
}

/// Both as property `a` of an object without others.
fn check_types(old: &str, new: &str, backward: &[&str], forward: &[&str]) {
    let of = |of: &str| format!(r#"{{"type":"object","properties":{{"a":{of}}},"additionalProperties":false}}"#);
    check(&of(old), &of(new), backward, forward);
}

#[test]
fn types_are_not_narrowed() {
    check_types(
        r#"{"type":"integer"}"#,
        r#"{"type":"number"}"#,
        &[],
        &["$.a type: `integer` / `number`"],
    );
    check_types(
        r#"{"type":["string","null"]}"#,
        r#"{"type":"string"}"#,
        &["$.a type: `string` / `string` or `null`"],
        &[],
    );
    check_types(
        r#"{"type":"string"}"#,
        r#"{"type":"integer"}"#,
        &["$.a type: `integer` / `string`"],
        &["$.a type: `string` / `integer`"],
    );
    check_types(r#"{"type":"string"}"#, "{}", &[], &["$.a open: `string` / anything"]);
    check_types(
        r#"{"const":1}"#,
        r#"{"type":"integer"}"#,
        &[],
        &["$.a symbols: one of `1` / `integer`"],
    );
    check_types(
        r#"{"type":"string","nullable":true}"#,
        r#"{"type":["null","string"]}"#,
        &[],
        &[],
    );
    // Only what is told to people changes.
    check_types(
        r#"{"type":"string","title":"a","description":"b","format":"date","examples":[1]}"#,
        r#"{"type":"string","default":"x","deprecated":true}"#,
        &[],
        &[],
    );
}

#[test]
fn enums_are_not_narrowed() {
    check_types(
        r#"{"enum":["A","B"]}"#,
        r#"{"enum":["B","C","A"]}"#,
        &[],
        &["$.a symbols: no value `C` / `C`"],
    );
    check_types(
        r#"{"const":"A"}"#,
        r#"{"enum":["A",null]}"#,
        &[],
        &["$.a symbols: no value `null` / `null`"],
    );
}

#[test]
fn bounds_are_not_narrowed() {
    for (keyword, small, large, of) in [
        ("maxLength", 4, 5, "string"),
        ("maxItems", 4, 5, "array"),
        ("maxProperties", 4, 5, "object"),
        ("maximum", -5, 5, "number"),
        ("exclusiveMaximum", -5, 5, "integer"),
        ("minLength", 5, 4, "string"),
        ("minItems", 5, 4, "array"),
        ("minProperties", 5, 4, "object"),
        ("minimum", 5, -5, "number"),
        ("exclusiveMinimum", 5, -5, "integer"),
        ("multipleOf", 4, 2, "integer"),
    ] {
        let with = |number: i32| format!(r#"{{"type":"{of}","{keyword}":{number}}}"#);
        let narrowed = |of: &str| format!("$.a bound: `{keyword}` `{small}` / {of}");
        check_types(&with(small), &with(large), &[], &[&narrowed(&format!("`{large}`"))]);
        let bare = format!(r#"{{"type":"{of}"}}"#);
        check_types(&with(small), &bare, &[], &[&narrowed("no such bound")]);
    }
    let check_numbers = |old: &str, new: &str, forward: &[&str]| {
        check_types(
            &format!(r#"{{"type":"number",{old}}}"#),
            &format!(r#"{{"type":"number",{new}}}"#),
            &[],
            forward,
        );
    };
    check_numbers(
        r#""exclusiveMinimum":1"#,
        r#""minimum":1"#,
        &["$.a bound: `exclusiveMinimum` `1` / `1`"],
    );
    check_numbers(
        r#""maximum":1,"exclusiveMaximum":true"#,
        r#""maximum":1"#,
        &["$.a bound: `maximum` `1` / `1`"],
    );
    check_types(
        r#"{"type":"string","pattern":"a"}"#,
        r#"{"type":"string"}"#,
        &[],
        &["$.a bound: `pattern` `a` / another or none"],
    );
    check_types(
        r#"{"type":"array","uniqueItems":true}"#,
        r#"{"type":"array"}"#,
        &[],
        &["$.a bound: `uniqueItems` `true` / no such demand"],
    );
    // Of numbers only: nothing of it says anything of text.
    check_types(r#"{"type":"string"}"#, r#"{"type":"string","minimum":4}"#, &[], &[]);
}

fn object(more: &str) -> String {
    format!(r#"{{"type":"object",{more}}}"#)
}

#[test]
fn what_is_required_was_written() {
    let of = |required: &str, default: &str| {
        object(&format!(
            r#""properties":{{"a":{{"type":"integer"{default}}}}},"required":[{required}]"#
        ))
    };
    check(
        &of("", ""),
        &of(r#""a""#, ""),
        &["$.a required: a required property without a default / one that may be missing"],
        &[],
    );
    check(&of("", ""), &of(r#""a""#, r#","default":1"#), &[], &[]);
    let beside = |more: &str| object(&format!(r#""dependentRequired":{{"a":["b"{more}]}}"#));
    check(
        &beside(""),
        &beside(r#","c""#),
        &["$.c required: a property required beside `a` / one that may be missing"],
        &[],
    );
    let with = |of: &str| {
        object(&format!(
            r#""dependentSchemas":{{"a":{{"properties":{{"b":{{"type":"{of}"}}}}}}}}"#
        ))
    };
    check(
        &with("integer"),
        &with("number"),
        &[],
        &["$.b type: `integer` / `number`"],
    );
}

#[test]
fn content_models() {
    let open = object(r#""properties":{"a":{"type":"integer"}}"#);
    let open_with = object(r#""properties":{"a":{"type":"integer"},"b":{"type":"string"}}"#);
    let closed = object(r#""properties":{"a":{"type":"integer"}},"additionalProperties":false"#);
    let closed_with =
        object(r#""properties":{"a":{"type":"integer"},"b":{"type":"string"}},"additionalProperties":false"#);
    // An open object: old values may have anything as `b`.
    check(&open, &open_with, &["$.b open: `string` / anything"], &[]);
    let any = object(r#""properties":{"a":{"type":"integer"},"b":{}}"#);
    check(&open, &any, &[], &[]);
    // A closed one: old values have no `b`.
    check(
        &closed,
        &closed_with,
        &[],
        &["$.b closed: no such property, and `additionalProperties: false`, / `string`"],
    );
    check(
        &closed,
        &open,
        &[],
        &["$.* closed: no such property, and `additionalProperties: false`, / anything"],
    );
    check(
        &closed,
        &open_with,
        &[],
        &[
            "$.b closed: no such property, and `additionalProperties: false`, / `string`",
            "$.* closed: no such property, and `additionalProperties: false`, / anything",
        ],
    );
    // One of a type: between the two.
    let texts = object(r#""properties":{"a":{"type":"integer"}},"additionalProperties":{"type":"string"}"#);
    check(
        &texts,
        &closed_with,
        &["$.* closed: no such property, and `additionalProperties: false`, / `string`"],
        &[],
    );
    let typed_with = object(
        r#""properties":{"a":{"type":"integer"},"b":{"type":"integer"}},"additionalProperties":{"type":"string"}"#,
    );
    check(
        &texts,
        &typed_with,
        &["$.b type: `integer` / `string`"],
        &["$.b type: `string` / `integer`"],
    );
    check(
        &object(r#""properties":{"a":{"type":"integer"}},"unevaluatedProperties":false"#),
        &closed_with,
        &[],
        &["$.b closed: no such property, and `unevaluatedProperties: false`, / `string`"],
    );
}

#[test]
fn names_by_pattern() {
    let by = |pattern: &str, of: &str, others: &str| {
        object(&format!(
            r#""patternProperties":{{"{pattern}":{{"type":"{of}"}}}},"additionalProperties":{others}"#
        ))
    };
    check(
        &by("^s_", "integer", "false"),
        &by("^s_", "number", "false"),
        &[],
        &["$.* type: `integer` / `number`"],
    );
    let named = |name: &str, of: &str| {
        object(&format!(
            r#""properties":{{"{name}":{{"type":"{of}"}}}},"patternProperties":{{"^s_":{{"type":"string"}}}},"additionalProperties":false"#
        ))
    };
    // The name doesn't match the pattern, so that no old value has it; or it does, and is of that type.
    check(
        &by("^s_", "string", "false"),
        &named("a", "integer"),
        &[],
        &["$.a closed: no such property, and `additionalProperties: false`, / `integer`"],
    );
    check(&by("^s_", "string", "false"), &named("s_a", "string"), &[], &[]);
    // What a pattern means that isn't plain text is left to its engine: it may match.
    check(
        &by("[0-9]+", "string", "false"),
        &object(
            r#""properties":{"a":{"type":"integer"}},"patternProperties":{"[0-9]+":{"type":"string"}},"additionalProperties":false"#,
        ),
        &["$.a type: `integer` / `string`"],
        &["$.a closed: no such property, and `additionalProperties: false`, / `integer`"],
    );
    check(
        &object(r#""properties":{"ab":{"type":"string"}},"additionalProperties":false"#),
        &object(
            r#""properties":{"ab":{"type":"string"}},"patternProperties":{".b":{"type":"integer"}},"additionalProperties":false"#,
        ),
        &["$.ab type: `integer` / `string`"],
        &["$.* closed: no such property, and `additionalProperties: false`, / `integer`"],
    );
    check(
        &object(r#""propertyNames":{"maxLength":5}"#),
        &object(r#""propertyNames":{"maxLength":6}"#),
        &[],
        &["$.* bound: `maxLength` `5` / `6`"],
    );
}

#[test]
fn items() {
    let of = |items: &str| format!(r#"{{"type":"array",{items}}}"#);
    check(
        &of(r#""items":{"type":"integer"}"#),
        &of(r#""items":{"type":"number"}"#),
        &[],
        &["$[*] type: `integer` / `number`"],
    );
    check(
        &of(r#""prefixItems":[{"type":"integer"}],"items":false"#),
        &of(r#""prefixItems":[{"type":"integer"},{"type":"string"}],"items":false"#),
        &[],
        &["$[1] closed: nothing / `string`"],
    );
    check(
        &of(r#""items":[{"type":"integer"}]"#),
        &of(r#""items":[{"type":"integer"},{"type":"string"}]"#),
        &["$[1] open: `string` / anything"],
        &[],
    );
    check(
        &of(r#""items":[{"type":"integer"}],"maxItems":1"#),
        &of(r#""items":[{"type":"integer"}],"additionalItems":false"#),
        &[],
        &["$ bound: `maxItems` `1` / no such bound"],
    );
    check(
        &of(r#""contains":{"const":1}"#),
        &of(r#""contains":{"const":2}"#),
        &["$ opaque: this `contains` / another or none"],
        &["$ opaque: this `contains` / another or none"],
    );
}

#[test]
fn alternatives() {
    check_types(
        r#"{"oneOf":[{"type":"null"},{"type":"integer"}]}"#,
        r#"{"anyOf":[{"type":"number"},{"type":"null"},{"type":"string"}]}"#,
        &[],
        &[
            "$.a alternatives: 2 alternatives, none of which takes all / `number`",
            "$.a alternatives: 2 alternatives, none of which takes all / `string`",
        ],
    );
    check_types(
        r#"{"type":["null","integer"]}"#,
        r#"{"anyOf":[{"type":"integer"},{"type":"null"}]}"#,
        &[],
        &[],
    );
    let either = |of: &str| {
        format!(
            r#"{{"oneOf":[{{"type":"null"}},{{"type":"object","properties":{{"x":{{"type":"{of}"}}}},"additionalProperties":false}}]}}"#
        )
    };
    // The one that was meant says more.
    check_types(
        &either("integer"),
        &either("number"),
        &[],
        &["$.a.x type: `integer` / `number`"],
    );
    check_types(
        r#"{"allOf":[{"type":"integer"},{"minimum":1}]}"#,
        r#"{"type":"integer"}"#,
        &[],
        &["$.a bound: `minimum` `1` / no such bound"],
    );
    check_types(
        r#"{"type":"integer","not":{"minimum":5}}"#,
        r#"{"type":"integer","not":{"minimum":7}}"#,
        &[],
        &["$.a opaque: this `not` / one that excludes less, or none"],
    );
    check_types(
        r#"{"if":{"const":1},"then":{"type":"integer"}}"#,
        r#"{"if":{"const":1},"then":{"type":"number"}}"#,
        &["$.a opaque: this `if` / another or none"],
        &["$.a opaque: this `if` / another or none"],
    );
    check(
        "false",
        r#"{"type":"integer"}"#,
        &[],
        &["$ closed: nothing / `integer`"],
    );
}

#[test]
fn schemas_that_refer_to_others() {
    let tree = |of: &str| {
        format!(
            r##"{{"type":"object","properties":{{"v":{{"type":"{of}"}},"next":{{"$ref":"#"}},
               "all":{{"type":"array","items":{{"$ref":"#/$defs/leaf"}}}}}},"$defs":{{"leaf":{{"type":"{of}"}}}}}}"##
        )
    };
    check(
        &tree("integer"),
        &tree("number"),
        &[],
        &["$.v type: `integer` / `number`", "$.all[*] type: `integer` / `number`"],
    );
    check(
        r##"{"$ref":"#/$defs/a","$defs":{"a":{"type":"integer"}}}"##,
        r#"{"type":"integer"}"#,
        &[],
        &[],
    );
    let other = |of: &str| SchemaText {
        language: SchemaLanguage::Json,
        text: r#"{"$ref":"point.json"}"#.to_owned(),
        references: vec![crate::schema::Reference {
            name: "point.json".to_owned(),
            text: format!(r#"{{"type":"{of}"}}"#),
        }],
    };
    let parse = |of| Comparable::parse(&other(of)).expect("a schema");
    let misfits = parse("integer")
        .misfits(&parse("number"))
        .expect("they can be compared");
    assert_eq!(misfits[0].rule, Rule::Type);
    let nowhere = parsed(SchemaLanguage::Json, r##"{"$ref":"#/gone"}"##);
    let told = nowhere.misfits(&parse("number")).expect_err("it leads nowhere");
    assert!(told.contains("where nothing is"), "{told}");
    assert!(Comparable::parse(&text(SchemaLanguage::Json, "[]")).is_err());
}

#[test]
fn schemas_that_ask_for_too_much_are_told() {
    // Each level has alternatives of the next: 8 to the power of 12 pairs.
    let level = |at: usize| {
        let arm = |n: usize| {
            format!(
                r##"{{"properties":{{"p{n}":{{"$ref":"#/$defs/l{}"}}}},"minProperties":{n}}}"##,
                at + 1
            )
        };
        let arms: Vec<_> = (0..8).map(arm).collect();
        format!(r#""l{at}":{{"type":"object","anyOf":[{}]}}"#, arms.join(","))
    };
    let of = |last: &str| {
        let levels: Vec<_> = (0..12).map(level).collect();
        format!(
            r##"{{"$ref":"#/$defs/l0","$defs":{{{},"l12":{{"type":"{last}"}}}}}}"##,
            levels.join(",")
        )
    };
    let (one, other) = (
        parsed(SchemaLanguage::Json, &of("integer")),
        parsed(SchemaLanguage::Json, &of("number")),
    );
    let told = one.misfits(&other).expect_err("they are too large");
    assert!(told.contains("too large to be compared"), "{told}");
    let chain = |levels: usize, last: &str| {
        let of = |at: usize| {
            format!(
                r##""l{at}":{{"type":"object","properties":{{"x":{{"anyOf":[{{"$ref":"#/$defs/l{}"}}]}}}}}}"##,
                at + 1
            )
        };
        let levels_text: Vec<_> = (0..levels).map(of).collect();
        format!(
            r##"{{"$ref":"#/$defs/l0","$defs":{{{},"l{levels}":{{"type":"{last}"}}}}}}"##,
            levels_text.join(",")
        )
    };
    let compared = |levels| {
        let (one, other) = (chain(levels, "integer"), chain(levels, "number"));
        parsed(SchemaLanguage::Json, &one).misfits(&parsed(SchemaLanguage::Json, &other))
    };
    let told = compared(40).expect("they can be compared");
    assert_eq!(told[0].path, format!("${}", ".x".repeat(40)));
    assert!(
        compared(400)
            .expect_err("they are too deep")
            .contains("too large to be compared")
    );
}
