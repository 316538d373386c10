//! Values for every decoder.

use std::sync::Arc;

use aperio::config::types;
use aperio::decode::framed::{FramedDecoder, Framing};
use aperio::decode::json::JsonDecoder;
use aperio::decode::raw::RawDecoder;
use aperio::decode::transcoded::{Holds, TranscodedDecoder};
use aperio::decode::{Decoded, Decoder};
use aperio::schema::frame::{self, SchemaKey};
use aperio::schema::{Missing, SchemaLanguage, UnknownFields, WriterSchema, Writers, follow};
use arrow::array::Array;
use iceberg::spec::NestedField;

use super::cases::{cases, variants};
use super::counted::peak;
use super::{PER_BYTE, as_text, chunk, parsed, plan, shown};

/// What a record may cost: 4 million values of 17 bytes at most, twice while their vectors grow, and room for plans.
const RECORD_BYTES_MAX: usize = 256 << 20;

/// A decoder, and a record that it makes a row of.
struct Target {
    name: &'static str,
    decoder: Decoder,
    good: Vec<u8>,
}

impl Target {
    /// - `good`: goes between its frame and zeros, as many as it takes.
    fn new(name: &'static str, decoder: Decoder, good: &[u8]) -> Target {
        let mut target = Target {
            name,
            decoder,
            good: good.to_vec(),
        };
        for _ in 0..4000 {
            let decoded = target.decoder.decode(&chunk(&[&target.good]), &Missing::new());
            if decoded.rows.num_rows() == 1 {
                return target;
            }
            target.good.push(0);
        }
        panic!("{name}: no run of zeros is a record");
    }

    /// Returns the most bytes that were held at once.
    fn check(&mut self, name: &str, value: &[u8]) -> usize {
        let what = || format!("{}, {name}: {}", self.name, shown(value));
        let values = [&self.good[..], value, &self.good];
        let chunk = chunk(&values);
        let decoder = &mut self.decoder;
        let (bytes, decoded) = peak(|| decoder.decode(&chunk, &Missing::new()));
        assert!(
            bytes <= RECORD_BYTES_MAX + PER_BYTE * value.len(),
            "{bytes} bytes for {}",
            what()
        );
        check_decoded(&decoded, &what);
        bytes
    }
}

/// The neighbours are rows, what is between them is a row or a reject, and Arrow finds nothing wrong with it.
fn check_decoded(decoded: &Decoded, what: &dyn Fn() -> String) {
    let rejects = decoded.rejects.len();
    assert_eq!(
        decoded.rows.num_rows() + rejects + decoded.filtered as usize,
        3,
        "{}",
        what()
    );
    assert!(
        rejects <= 1 && decoded.rejects.iter().all(|reject| reject.index == 1),
        "{}",
        what()
    );
    assert!(
        decoded.rejects.iter().all(|reject| !reject.reason.is_empty()),
        "{}",
        what()
    );
    for column in decoded.rows.columns() {
        let data = column.to_data();
        data.validate_full()
            .unwrap_or_else(|error| panic!("{error}: {}", what()));
    }
}

/// A decoder of values of the first schema, into columns for all of them.
fn natural(language: SchemaLanguage, schemas: &[&str]) -> Decoder {
    let mut writers = Writers::default();
    for (schema, id) in schemas.iter().zip(0..) {
        writers.add(SchemaKey::id(id), parsed(language, schema));
    }
    let plan = plan(
        follow::merged(&writers, follow::Form::default()),
        None,
        UnknownFields::Ignore,
    );
    let indexes = language == SchemaLanguage::Protobuf;
    let framing = Framing::Registry { indexes };
    let mut found = Writers::default();
    let first = writers.get(&SchemaKey::id(0)).expect("it was added").clone();
    let key = SchemaKey {
        message: if indexes { vec![0] } else { Vec::new() },
        ..SchemaKey::id(0)
    };
    found.add(key, first);
    Decoder::Framed(FramedDecoder::new(plan, Arc::new(found), framing, None))
}

/// Each case, and variants of it, through each decoder.
///
/// - `prefix`: what a target's values begin with.
fn replay(corpus: &str, targets: &mut [(Target, Vec<u8>)]) {
    let cases = cases(corpus);
    let (mut inputs, mut most) = (0, 0);
    for case in &cases {
        let count = match case.bytes.len() {
            0..=300 => 60,
            301..=8000 => 10,
            _ => 0,
        };
        for (target, prefix) in targets.iter_mut() {
            let framed = |bytes: &[u8]| [&prefix[..], bytes].concat();
            most = most.max(target.check(&case.name, &framed(&case.bytes)));
            for variant in variants(&case.bytes, &cases, count) {
                most = most.max(target.check(&case.name, &framed(&variant)));
                inputs += 1;
            }
            inputs += 1;
        }
    }
    println!("{} cases, {inputs} inputs, {} MiB at most", cases.len(), most >> 20);
}

/// A list of fields, each as `one` has it with its number.
fn fields(count: usize, one: impl Fn(usize) -> String, between: &str) -> String {
    let fields: Vec<String> = (0..count).map(one).collect();
    fields.join(between)
}

fn wide_avro() -> String {
    let many = fields(
        500,
        |n| format!(r#"{{"name":"f{n}","type":["null","long"],"default":null}}"#),
        ",",
    );
    format!(r#"{{"type":"record","name":"w","fields":[{{"name":"a","type":"long"}},{many}]}}"#)
}

/// Records of one byte each for a table that knows five hundred fields of them; and of none.
fn avro_of_lists(item: &str) -> String {
    format!(
        r#"{{"type":"record","name":"r","fields":[
            {{"name":"list","type":{{"type":"array","items":{item}}}}},
            {{"name":"map","type":{{"type":"map","values":{}}}}}]}}"#,
        match item.contains("\"name\":\"w\"") {
            true => "\"w\"",
            false => item,
        }
    )
}

const AVRO_ALL: &str = r#"{"type":"record","name":"all","fields":[
    {"name":"yes","type":"boolean"},{"name":"small","type":"int"},{"name":"large","type":"long"},
    {"name":"half","type":"float"},{"name":"whole","type":"double"},{"name":"raw","type":"bytes"},{"name":"text","type":"string"},
    {"name":"color","type":{"type":"enum","name":"Color","symbols":["RED","BLUE"]}},
    {"name":"four","type":{"type":"fixed","name":"Four","size":4}},{"name":"none","type":{"type":"fixed","name":"None","size":0}},
    {"name":"date","type":{"type":"int","logicalType":"date"}},{"name":"time","type":{"type":"long","logicalType":"time-micros"}},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"uuid","type":["null",{"type":"string","logicalType":"uuid"}]},
    {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
    {"name":"huge","type":{"type":"bytes","logicalType":"decimal","precision":9000,"scale":8000}},
    {"name":"either","type":["null","long","string",{"type":"record","name":"P","fields":[{"name":"x","type":"int"}]}]},
    {"name":"counts","type":{"type":"map","values":"long"}},
    {"name":"tree","type":{"type":"record","name":"Tree","fields":[{"name":"kids","type":{"type":"array","items":"Tree"}}]}},
    {"name":"maybe","type":["null",{"type":"array","items":["null","P"]}]}]}"#;

const AVRO_NAMES: [&str; 20] = [
    "yes", "small", "large", "half", "whole", "raw", "text", "color", "four", "none", "date", "time", "at", "uuid",
    "price", "huge", "either", "counts", "tree", "maybe",
];

const AVRO_EMPTIES: &str = r#"{"type":"record","name":"e","fields":[
    {"name":"list","type":{"type":"array","items":"null"}},{"name":"map","type":{"type":"map","values":"null"}},
    {"name":"none","type":{"type":"array","items":{"type":"fixed","name":"None","size":0}}},
    {"name":"gone","type":{"type":"array","items":{"type":"record","name":"Gone","fields":[
        {"name":"a","type":{"type":"record","name":"Inner","fields":[{"name":"n","type":"null"}]}},{"name":"b","type":"Inner"}]}}}]}"#;

#[test]
fn avro_makes_a_row_or_a_reject_of_anything() {
    const LANGUAGE: SchemaLanguage = SchemaLanguage::Avro;
    let frame = vec![0; 5];
    let narrow = avro_of_lists(r#"{"type":"record","name":"w","fields":[{"name":"a","type":"long"}]}"#);
    let wide = avro_of_lists(&wide_avro());
    let nullable = avro_of_lists(&format!(r#"["null",{}]"#, wide_avro())).replacen(
        &format!(r#""values":["null",{}]"#, wide_avro()),
        r#""values":["null","w"]"#,
        1,
    );
    let empties = parsed(LANGUAGE, AVRO_EMPTIES);
    let mut targets = [
        (
            Target::new("all", natural(LANGUAGE, &[AVRO_ALL]), &frame),
            frame.clone(),
        ),
        (
            Target::new(
                "all as text",
                as_text(LANGUAGE, parsed(LANGUAGE, AVRO_ALL), &AVRO_NAMES),
                &[],
            ),
            Vec::new(),
        ),
        (
            Target::new("narrow", natural(LANGUAGE, &[&narrow, &wide]), &frame),
            frame.clone(),
        ),
        (
            Target::new("nullable", natural(LANGUAGE, &[&nullable]), &frame),
            frame.clone(),
        ),
        (
            Target::new("empties", natural(LANGUAGE, &[AVRO_EMPTIES]), &frame),
            frame,
        ),
        (
            Target::new(
                "empties as text",
                as_text(LANGUAGE, empties.clone(), &["list", "map", "none", "gone"]),
                &[],
            ),
            Vec::new(),
        ),
        (
            Target::new("empties skipped", as_text(LANGUAGE, empties, &["no"]), &[]),
            Vec::new(),
        ),
    ];
    replay(include_str!("avro.txt"), &mut targets);
}

fn proto_all() -> String {
    let wide = fields(500, |n| format!("optional int64 f{n} = {};", n + 1), " ");
    format!(
        "syntax = \"proto3\"; import \"google/protobuf/timestamp.proto\"; import \"google/protobuf/struct.proto\";
        import \"google/protobuf/wrappers.proto\"; import \"google/protobuf/duration.proto\"; import \"google/protobuf/any.proto\";
        message All {{
            bool yes = 1; sint32 zig = 2; uint64 large = 3; fixed32 four = 4; double whole = 5; string text = 6; bytes raw = 7;
            enum Color {{ RED = 0; BLUE = 1; }}
            Color color = 8; repeated int32 numbers = 9; repeated Color colors = 10; map<string, Wide> wides = 11;
            repeated Wide list = 12; Tree tree = 13; google.protobuf.Timestamp at = 14; google.protobuf.Struct any = 15;
            google.protobuf.StringValue wrapped = 16; oneof one {{ string a = 17; Point b = 18; int64 c = 19; }}
            google.protobuf.Duration span = 20; google.protobuf.Any other = 21; map<int32, bool> flags = 22; Point point = 23;
            google.protobuf.Value value = 24; repeated google.protobuf.Timestamp times = 25;
        }}
        message Wide {{ {wide} }}
        message Tree {{ int32 v = 1; repeated Tree kids = 2; Tree one = 3; map<string, Tree> by = 4; }}
        message Point {{ int32 x = 1; Point2 deeper = 2; }}
        message Point2 {{ int32 y = 1; repeated int32 zs = 2 [packed = true]; }}"
    )
}

#[test]
fn protobuf_makes_a_row_or_a_reject_of_anything() {
    const LANGUAGE: SchemaLanguage = SchemaLanguage::Protobuf;
    let frame = vec![0; 6];
    let all = proto_all();
    let names = [
        "yes", "zig", "large", "four", "whole", "text", "raw", "color", "numbers", "colors", "wides", "list", "tree",
        "at", "any", "wrapped", "a", "b", "c", "span", "other", "flags", "point", "value", "times",
    ];
    let mut targets = [
        (Target::new("all", natural(LANGUAGE, &[&all]), &frame), frame),
        (
            Target::new("all as text", as_text(LANGUAGE, parsed(LANGUAGE, &all), &names), &[]),
            Vec::new(),
        ),
    ];
    replay(include_str!("protobuf.txt"), &mut targets);
}

/// Messages inside each other, each with its field twice: what is merged of it is read again at each depth.
#[test]
fn protobuf_messages_that_come_twice_at_every_depth_are_no_endless_work() {
    const DEPTH: usize = 60;
    const LANGUAGE: SchemaLanguage = SchemaLanguage::Protobuf;
    let again = [0x12, 0x02, 0x18, 0x01];
    // A message after another, and an entry of a map that has its value twice.
    let message = |inner: &[u8]| [&[0x12], &varint(inner.len())[..], inner, &again].concat();
    let entry = |inner: &[u8]| {
        let entry = message(inner);
        [&[0x12], &varint(entry.len())[..], &entry].concat()
    };
    type Around<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let around: [(&str, Around<'_>); 2] = [("M%", &message), ("map<string, M%>", &entry)];
    for (of, around) in around {
        let one = |n: usize| {
            let of = of.replace('%', &(n + 1).to_string());
            format!("message M{n} {{ {of} a = 2; int32 x = 3; }}")
        };
        let messages = fields(DEPTH, one, " ");
        let schema = parsed(
            LANGUAGE,
            &format!("syntax = \"proto3\"; {messages} message M{DEPTH} {{ int32 x = 3; }}"),
        );
        let value = (0..DEPTH).fold(vec![0x18, 0x01], |inner, _| around(&inner));
        let mut writers = Writers::default();
        writers.add(SchemaKey::file(), schema.clone());
        let plan = plan(schema.columns(false).expect("columns"), None, UnknownFields::Ignore);
        let structs = FramedDecoder::new(plan, Arc::new(writers), Framing::File, None);
        Target::new("structs", Decoder::Framed(structs), &[]).check(of, &value);
        Target::new("text", as_text(LANGUAGE, schema, &["a"]), &[]).check(of, &value);
    }
}

fn varint(mut rest: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn json_columns() -> Vec<NestedField> {
    let wide = fields(500, |n| format!(r#""f{n}":{{"type":"integer"}}"#), ",");
    let object = format!(r#"{{"type":"object","properties":{{{wide}}}}}"#);
    let schema = format!(
        r#"{{"type":"object","properties":{{
            "list":{{"type":"array","items":{object}}},"map":{{"type":"object","additionalProperties":{object}}},"wide":{object},
            "lists":{{"type":"array","items":{{"type":"array","items":{{"type":"number"}}}}}},
            "yes":{{"type":"boolean"}},"whole":{{"type":"number"}},"n":{{"type":"integer"}},"text":{{"type":"string"}},
            "at":{{"type":"string","format":"date-time"}},"day":{{"type":"string","format":"date"}},
            "uuid":{{"type":"string","format":"uuid"}},"raw":{{"type":"string","format":"byte"}},
            "large":{{"type":"integer","maximum":1e37}}}}}}"#
    );
    parsed(SchemaLanguage::Json, &schema).columns(false).expect("columns")
}

#[test]
fn json_makes_a_row_or_a_reject_of_anything() {
    let known = |unknown| Decoder::Json(JsonDecoder::new(plan(json_columns(), None, unknown)));
    let transcoded = {
        let mut writers = Writers::default();
        writers.add(SchemaKey::id(0), Arc::new(WriterSchema::Json(json_columns())));
        let plan = plan(json_columns(), None, UnknownFields::Ignore);
        let at = ["elsewhere".to_owned(), "at".to_owned()];
        Decoder::Transcoded(TranscodedDecoder::new(
            plan,
            Arc::new(writers),
            Holds::Framed,
            Some(&at),
        ))
    };
    let mut targets = [
        (Target::new("known", known(UnknownFields::Ignore), b"{}"), Vec::new()),
        (Target::new("evolving", known(UnknownFields::Evolve), b"{}"), Vec::new()),
        (Target::new("framed", transcoded, b"\0\0\0\0\0{}"), vec![0; 5]),
    ];
    replay(include_str!("json.txt"), &mut targets);
}

#[test]
fn messagepack_makes_a_row_or_a_reject_of_anything() {
    let plan = plan(json_columns(), None, UnknownFields::Evolve);
    let decoder = TranscodedDecoder::new(plan, Arc::new(Writers::default()), Holds::MessagePack, None);
    let target = Target::new("messagepack", Decoder::Transcoded(decoder), &[0x80]);
    replay(include_str!("messagepack.txt"), &mut [(target, Vec::new())]);
}

#[test]
fn text_and_bytes_make_a_row_or_a_reject_of_anything() {
    for of in ["string", "binary"] {
        let value = NestedField::optional(1, "value", types::parse(of).expect("a type"));
        let decoder = RawDecoder::new(&plan(vec![value], None, UnknownFields::Ignore), None);
        let mut targets = [(Target::new("raw", Decoder::Raw(decoder), b"good"), Vec::new())];
        replay(include_str!("json.txt"), &mut targets);
        replay(include_str!("messagepack.txt"), &mut targets);
    }
}

#[test]
fn frames_name_a_schema_or_are_refused() {
    let cases = cases(include_str!("frames.txt"));
    let mut avro = Target::new("avro", natural(SchemaLanguage::Avro, &[AVRO_EMPTIES]), &[0; 5]);
    let mut protobuf = Target::new("protobuf", natural(SchemaLanguage::Protobuf, &[&proto_all()]), &[0; 6]);
    for case in &cases {
        for bytes in variants(&case.bytes, &cases, 300).iter().chain([&case.bytes]) {
            let (held, ()) = peak(|| {
                for indexes in [false, true] {
                    if let Ok(framed) = frame::split(bytes, indexes) {
                        assert_eq!(framed.prefix.len() + framed.body.len(), bytes.len(), "{}", case.name);
                        let _ = frame::key(framed.prefix);
                    }
                    let _ = frame::header_key(bytes, indexes);
                }
                let _ = (frame::key(bytes), frame::id(bytes), frame::single_object(bytes));
            });
            assert!(held < 64 << 10, "{}: {held} bytes for {}", case.name, shown(bytes));
            for target in [&mut avro, &mut protobuf] {
                // Another schema is unknown, and its record a reject until that is known.
                target.check(&case.name, bytes);
            }
        }
    }
}
