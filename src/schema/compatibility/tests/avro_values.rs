//! Made-up Avro schemas and their later versions: `apache-avro` resolves what is called compatible, and agrees on what isn't.

use apache_avro::schema_compatibility::SchemaCompatibility;
use apache_avro::types::Value;
use apache_avro::{Schema as Theirs, from_avro_datum, to_avro_datum};
use proptest::prelude::*;

use super::*;

/// A type of which names, defaults and versions follow.
#[derive(Debug, Clone)]
enum Made {
    /// By its name.
    Simple(&'static str),
    Enum(u8),
    Fixed(u8),
    Nullable(Box<Made>),
    Array(Box<Made>),
    Map(Box<Made>),
    /// Names of fields, their types, and whether they have defaults.
    Record(Vec<(u8, Made, bool)>),
}

const SIMPLE: [&str; 7] = ["boolean", "int", "long", "float", "double", "bytes", "string"];

fn made() -> impl Strategy<Value = Made> {
    let leaf = prop_oneof![
        3 => prop::sample::select(&SIMPLE[..]).prop_map(Made::Simple),
        1 => (1u8..8).prop_map(Made::Enum),
        1 => (1u8..4).prop_map(Made::Fixed),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_filter("a union holds no union", |of| !matches!(of, Made::Nullable(_)))
                .prop_map(|of| Made::Nullable(Box::new(of))),
            inner.clone().prop_map(|of| Made::Array(Box::new(of))),
            inner.clone().prop_map(|of| Made::Map(Box::new(of))),
            fields(inner).prop_map(Made::Record),
        ]
    })
}

fn fields(of: impl Strategy<Value = Made>) -> impl Strategy<Value = Vec<(u8, Made, bool)>> {
    prop::collection::btree_map(0u8..6, (of, any::<bool>()), 1..4).prop_map(|fields| {
        fields
            .into_iter()
            .map(|(name, (of, default))| (name, of, default))
            .collect()
    })
}

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

impl Made {
    /// The schema; named types are called after where they are, so that versions have the same names.
    fn schema(&self, at: &str) -> String {
        match self {
            Made::Simple(name) => format!("\"{name}\""),
            Made::Enum(bits) => format!(r#"{{"type":"enum","name":"e{at}","symbols":{:?}}}"#, symbols(*bits)),
            Made::Fixed(size) => format!(r#"{{"type":"fixed","name":"f{at}","size":{size}}}"#),
            Made::Nullable(of) => format!(r#"["null",{}]"#, of.schema(at)),
            Made::Array(of) => format!(r#"{{"type":"array","items":{}}}"#, of.schema(&format!("{at}_i"))),
            Made::Map(of) => format!(r#"{{"type":"map","values":{}}}"#, of.schema(&format!("{at}_v"))),
            Made::Record(fields) => {
                let field = |(name, of, default): &(u8, Made, bool)| {
                    let default = if *default {
                        format!(r#","default":{}"#, of.default())
                    } else {
                        String::new()
                    };
                    format!(
                        r#"{{"name":"f{name}","type":{}{default}}}"#,
                        of.schema(&format!("{at}_{name}"))
                    )
                };
                let fields: Vec<_> = fields.iter().map(field).collect();
                format!(r#"{{"type":"record","name":"r{at}","fields":[{}]}}"#, fields.join(","))
            }
        }
    }

    fn default(&self) -> String {
        match self {
            Made::Simple("boolean") => "false".to_owned(),
            Made::Simple("bytes" | "string") => "\"\"".to_owned(),
            Made::Simple(_) => "0".to_owned(),
            Made::Enum(bits) => format!("{:?}", symbols(*bits)[0]),
            Made::Fixed(size) => format!("\"{}\"", "x".repeat(usize::from(*size))),
            Made::Nullable(_) => "null".to_owned(),
            Made::Array(_) => "[]".to_owned(),
            Made::Map(_) => "{}".to_owned(),
            Made::Record(fields) => {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(name, of, _)| format!("\"f{name}\":{}", of.default()))
                    .collect();
                format!("{{{}}}", fields.join(","))
            }
        }
    }

    fn value(&self, dice: &mut Dice) -> Value {
        match self {
            Made::Simple("boolean") => Value::Boolean(dice.roll(2) == 1),
            Made::Simple("int") => Value::Int(dice.roll(1 << 30) as i32),
            Made::Simple("long") => Value::Long(dice.roll(1 << 30) as i64),
            Made::Simple("float") => Value::Float(dice.roll(1000) as f32),
            Made::Simple("double") => Value::Double(dice.roll(1000) as f64),
            Made::Simple("bytes") => Value::Bytes(vec![b'b'; dice.roll(3) as usize]),
            Made::Simple(_) => Value::String("s".repeat(dice.roll(3) as usize)),
            Made::Enum(bits) => {
                let symbols = symbols(*bits);
                let at = dice.roll(symbols.len() as u64);
                Value::Enum(at as u32, symbols[at as usize].to_owned())
            }
            Made::Fixed(size) => Value::Fixed(usize::from(*size), vec![7; usize::from(*size)]),
            Made::Nullable(of) => match dice.roll(2) {
                0 => Value::Union(0, Box::new(Value::Null)),
                _ => Value::Union(1, Box::new(of.value(dice))),
            },
            // Never empty: what doesn't fit inside must show.
            Made::Array(of) => Value::Array((0..1 + dice.roll(2)).map(|_| of.value(dice)).collect()),
            Made::Map(of) => Value::Map([("k".to_owned(), of.value(dice))].into()),
            Made::Record(fields) => {
                let fields = fields.iter().map(|(name, of, _)| (format!("f{name}"), of.value(dice)));
                Value::Record(fields.collect())
            }
        }
    }

    /// A later version: most of it stays.
    fn evolved(&self, dice: &mut Dice) -> Made {
        let turn = dice.roll(12);
        match self {
            of if turn == 0 && !matches!(of, Made::Nullable(_)) => Made::Nullable(Box::new(of.clone())),
            Made::Nullable(of) if turn == 0 => *of.clone(),
            Made::Simple(_) if turn < 4 => Made::Simple(SIMPLE[dice.roll(7) as usize]),
            Made::Enum(bits) if turn < 4 => Made::Enum((bits ^ (1 << dice.roll(3))).max(1)),
            Made::Fixed(size) if turn == 1 => Made::Fixed(size + 1),
            Made::Array(of) if turn == 1 => Made::Map(of.clone()),
            Made::Nullable(of) => match of.evolved(dice) {
                Made::Nullable(of) => Made::Nullable(of),
                of => Made::Nullable(Box::new(of)),
            },
            Made::Array(of) => Made::Array(Box::new(of.evolved(dice))),
            Made::Map(of) => Made::Map(Box::new(of.evolved(dice))),
            Made::Record(fields) => {
                let mut fields: Vec<_> = fields
                    .iter()
                    .map(|(name, of, default)| (*name, of.evolved(dice), *default))
                    .collect();
                if turn == 1 {
                    fields.remove(0);
                }
                if turn < 4 {
                    fields.push((7, Made::Simple(SIMPLE[dice.roll(7) as usize]), dice.roll(3) > 0));
                }
                Made::Record(fields)
            }
            of => of.clone(),
        }
    }
}

fn symbols(bits: u8) -> Vec<&'static str> {
    let all = ["A", "B", "C"].into_iter().enumerate();
    all.filter(|(at, _)| bits & (1 << at) != 0)
        .map(|(_, name)| name)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// What we call compatible `apache-avro` resolves; and as its own rules see it, so do ours.
    #[test]
    fn what_is_compatible_is_resolved_by_another_implementation(old in fields(made()), seed: u64) {
        let (mut dice, old) = (Dice(seed), Made::Record(old));
        let new = old.evolved(&mut dice);
        let (old_schema, new_schema) = (old.schema(""), new.schema(""));
        let misfits = told(SchemaLanguage::Avro, &new_schema, &old_schema);
        let (writer, reader) = (Theirs::parse_str(&old_schema), Theirs::parse_str(&new_schema));
        let (writer, reader) = (writer.expect("a schema"), reader.expect("a schema"));
        let theirs = SchemaCompatibility::can_read(&writer, &reader);
        prop_assert_eq!(misfits.is_empty(), theirs.is_ok(), "{:?} {:?} {} reads {}", misfits, theirs, new_schema, old_schema);
        for _ in 0..4 {
            let bytes = to_avro_datum(&writer, old.value(&mut dice)).expect("a value of the schema");
            let read = from_avro_datum(&writer, &mut bytes.as_slice(), Some(&reader));
            prop_assert!(!misfits.is_empty() || read.is_ok(), "{:?}: {} reads {}", read, new_schema, old_schema);
        }
    }
}
