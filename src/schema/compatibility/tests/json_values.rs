//! Made-up JSON Schemas and values: what is called compatible takes every value that a small validator says was taken before.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

/// Says whether a schema takes a value; written from the standard's text, apart from the rules.
fn takes(schema: &Value, value: &Value) -> bool {
    let Some(keywords) = schema.as_object() else {
        return schema.as_bool().expect("a schema");
    };
    let holds = |(keyword, said): (&String, &Value)| match keyword.as_str() {
        "type" => match said {
            Value::Array(types) => types.iter().any(|of| is(of, value)),
            of => is(of, value),
        },
        "enum" => said.as_array().expect("values").contains(value),
        "const" => said == value,
        "minimum" => value
            .as_f64()
            .is_none_or(|value| value >= said.as_f64().expect("a number")),
        "exclusiveMaximum" => value
            .as_f64()
            .is_none_or(|value| value < said.as_f64().expect("a number")),
        "maxLength" => value
            .as_str()
            .is_none_or(|value| value.len() as u64 <= said.as_u64().expect("a number")),
        "minItems" => value
            .as_array()
            .is_none_or(|value| value.len() as u64 >= said.as_u64().expect("a number")),
        "items" => value
            .as_array()
            .is_none_or(|value| value.iter().all(|item| takes(said, item))),
        "properties" => value.as_object().is_none_or(|value| {
            let mut said = said.as_object().expect("schemas").iter();
            said.all(|(name, of)| value.get(name).is_none_or(|value| takes(of, value)))
        }),
        "patternProperties" => value.as_object().is_none_or(|value| {
            let by = |name: &str| {
                said.as_object()
                    .expect("schemas")
                    .iter()
                    .filter(move |(of, _)| matches(of, name))
                    .collect::<Vec<_>>()
            };
            value
                .iter()
                .all(|(name, value)| by(name).iter().all(|(_, of)| takes(of, value)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|value| {
            let named = |name: &str| {
                let in_names = keywords.get("properties").is_some_and(|of| of.get(name).is_some());
                let patterns = keywords.get("patternProperties").and_then(Value::as_object);
                in_names || patterns.is_some_and(|of| of.keys().any(|of| matches(of, name)))
            };
            value.iter().all(|(name, value)| named(name) || takes(said, value))
        }),
        "required" => value.as_object().is_none_or(|value| {
            said.as_array()
                .expect("names")
                .iter()
                .all(|name| value.contains_key(name.as_str().expect("a name")))
        }),
        "anyOf" => said.as_array().expect("schemas").iter().any(|of| takes(of, value)),
        "allOf" => said.as_array().expect("schemas").iter().all(|of| takes(of, value)),
        "not" => !takes(said, value),
        other => panic!("`{other}` isn't made up here"),
    };
    keywords.iter().all(holds)
}

/// Patterns are `^x`, or `.b` for a name whose second letter is a b.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('^') {
        Some(start) => name.starts_with(start),
        None => name.chars().nth(1) == Some('b'),
    }
}

fn is(of: &Value, value: &Value) -> bool {
    match of.as_str().expect("a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_f64().is_some_and(|value| value.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    }
}

const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];

const NAMES: [&str; 4] = ["a", "b", "ab", "bb"];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i32..4).prop_map(Value::from),
        Just(json!(0.5)),
        "x{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            fields(inner),
        ]
    })
}

fn fields(of: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    prop::collection::btree_map(prop::sample::select(&NAMES[..]), of, 0..4)
        .prop_map(|fields| Value::Object(fields.into_iter().map(|(name, of)| (name.to_owned(), of)).collect()))
}

fn object(of: impl Strategy<Value = Value> + Clone) -> impl Strategy<Value = Value> {
    let named = prop::collection::btree_map(prop::sample::select(&NAMES[..]), of.clone(), 0..3);
    let patterns = prop::collection::btree_map(prop::sample::select(&["^a", "^b", ".b"][..]), of.clone(), 0..2);
    let required = prop::sample::subsequence(&NAMES[..], 0..2);
    (named, patterns, of, required).prop_map(|(named, patterns, others, required)| {
        let mut of =
            json!({"type": "object", "properties": named, "required": required, "additionalProperties": others});
        if !patterns.is_empty() {
            of["patternProperties"] = json!(patterns);
        }
        of
    })
}

fn schema() -> impl Strategy<Value = Value> + Clone {
    let leaf = prop_oneof![
        1 => any::<bool>().prop_map(Value::from),
        2 => prop::sample::select(&TYPES[..]).prop_map(|of| json!({"type": of})),
        2 => prop::sample::subsequence(&TYPES[..], 1..4).prop_map(|of| json!({"type": of})),
        1 => prop::collection::vec(value(), 1..3).prop_map(|of| json!({"enum": of})),
        1 => value().prop_map(|of| json!({"const": of})),
        1 => (-2i32..3).prop_map(|of| json!({"minimum": of})),
        1 => (-2i32..3).prop_map(|of| json!({"exclusiveMaximum": of})),
        1 => (0u32..3).prop_map(|of| json!({"maxLength": of})),
        1 => (0u32..3).prop_map(|of| json!({"minItems": of})),
        1 => prop::sample::subsequence(&NAMES[..], 0..3).prop_map(|of| json!({"required": of})),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let named = prop::collection::btree_map(prop::sample::select(&NAMES[..]), inner.clone(), 0..3);
        prop_oneof![
            2 => object(inner.clone()),
            1 => named.prop_map(|named| json!({"properties": named})),
            1 => inner.clone().prop_map(|of| json!({"type": "array", "items": of})),
            1 => prop::collection::vec(inner.clone(), 1..4).prop_map(|of| json!({"anyOf": of})),
            1 => prop::collection::vec(inner.clone(), 1..3).prop_map(|of| json!({"allOf": of})),
            1 => inner.clone().prop_map(|of| json!({"not": of})),
        ]
    })
}

/// A later version: at some places another schema.
fn evolved(schema: &Value, other: &Value, seed: &mut u64) -> Value {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    let turn = (*seed >> 33) % 16;
    match (turn, schema) {
        (0, _) => other.clone(),
        (1, of) => json!({"anyOf": [of, other]}),
        (2, of) => json!({"allOf": [of, other]}),
        (3, Value::Object(fields)) => {
            let mut fields = fields.clone();
            let first = fields.keys().next().cloned();
            first.map(|first| fields.remove(&first));
            Value::Object(fields)
        }
        (4..=6, Value::Object(fields)) if fields.contains_key("properties") => {
            let mut of = schema.clone();
            match turn {
                4 => of["patternProperties"] = json!({".b": other}),
                5 => of["properties"]["ab"] = other.clone(),
                _ => of["additionalProperties"] = other.clone(),
            }
            of
        }
        (_, Value::Object(fields)) => {
            let inner = |(name, of): (&String, &Value)| {
                let of = match (name.as_str(), of) {
                    ("properties" | "patternProperties", Value::Object(fields)) => {
                        let fields = fields.iter().map(|(name, of)| (name.clone(), evolved(of, other, seed)));
                        Value::Object(fields.collect::<Map<_, _>>())
                    }
                    ("items" | "additionalProperties" | "not", of) => evolved(of, other, seed),
                    ("anyOf" | "allOf", Value::Array(arms)) => {
                        arms.iter().map(|arm| evolved(arm, other, seed)).collect()
                    }
                    (_, of) => of.clone(),
                };
                (name.clone(), of)
            };
            Value::Object(fields.iter().map(inner).collect())
        }
        (_, of) => of.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn what_is_compatible_takes_every_value_that_was_taken(
        old in prop_oneof![1 => schema(), 3 => object(schema())],
        other in schema(),
        values in prop::collection::vec(prop_oneof![1 => value(), 2 => fields(value())], 12),
        mut seed: u64,
    ) {
        let new = evolved(&old, &other, &mut seed);
        let misfits = told(SchemaLanguage::Json, &new.to_string(), &old.to_string());
        for value in values {
            let lost = takes(&old, &value) && !takes(&new, &value);
            prop_assert!(!lost || !misfits.is_empty(), "{} was taken by {}, and isn't by {}", value, old, new);
        }
        prop_assert_eq!(told(SchemaLanguage::Json, &old.to_string(), &old.to_string()), [""; 0]);
    }
}
