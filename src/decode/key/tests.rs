use arrow::array::{AsArray, Int64Array};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use iceberg::spec::{NestedField, PrimitiveType, Type};

use super::*;
use crate::config::types;
use crate::decode::json::JsonDecoder;
use crate::offsets::{Offset, OffsetRange, Partition};
use crate::schema::follow::{self, Form};
use crate::schema::frame::SchemaKey;
use crate::schema::infer::Shape;
use crate::schema::{KafkaColumn, SchemaLanguage, SchemaText, UnknownFields, WriterSchema};

/// A table with a column `id`, and one for keys of the type.
fn table(of: Option<&str>, unknown: UnknownFields) -> Arc<RowPlan> {
    let mut fields = vec![NestedField::optional(0, "id", Type::Primitive(PrimitiveType::Long))];
    if let Some(of) = of {
        fields.push(NestedField::optional(0, KEY, types::parse(of).expect(of)));
    }
    let schema = Arc::new(evolve::create_schema(fields, &[], false));
    Arc::new(evolve::row_plan(
        schema,
        None,
        &[KafkaColumn::Key],
        false,
        unknown,
        false,
    ))
}

fn chunk(keys: &[Option<&[u8]>], values: &[Option<&[u8]>]) -> Chunk {
    let count = keys.len() as i64;
    Chunk {
        partition: Partition(0),
        range: OffsetRange::new(Offset::new(0), Offset::new(count)),
        offsets: (0..count).collect::<Int64Array>(),
        timestamps: (0..count).collect::<Int64Array>(),
        keys: keys.iter().copied().collect(),
        values: values.iter().copied().collect(),
        headers: None,
    }
}

/// Decodes keys beside values that are all well.
fn decode(format: KeyFormat, plan: &Arc<RowPlan>, writers: Writers, keys: &[Option<&[u8]>]) -> Decoded {
    let value: &[u8] = br#"{"id":1}"#;
    let chunk = chunk(keys, &vec![Some(value); keys.len()]);
    let mut decoded = JsonDecoder::new(plan.clone()).decode(&chunk);
    let mut decoder = KeyDecoder::new(format, plan, Arc::new(writers), true);
    decoder.attach(&chunk, &Missing::new(), &mut decoded);
    decoded
}

fn shown(decoded: &Decoded) -> Vec<String> {
    let keys = decoded.keys.as_ref().expect("the table has a column for keys");
    assert_eq!(keys.len(), decoded.indexes.len(), "one for each row");
    let options = FormatOptions::new().with_null("-");
    let text = ArrayFormatter::try_new(keys, &options).expect("all types are shown");
    let keys = (0..keys.len()).map(|row| text.value(row).to_string());
    let rejects = decoded
        .rejects
        .iter()
        .map(|reject| format!("{}: {}", reject.index, reject.reason));
    keys.chain(rejects).collect()
}

fn schemas(language: SchemaLanguage, texts: &[&str]) -> Writers {
    let mut writers = Writers::default();
    for (id, text) in (1..).zip(texts) {
        let mut key = SchemaKey::id(id).of(Part::Key);
        if language == SchemaLanguage::Protobuf {
            key.message = vec![0];
        }
        let text = SchemaText {
            language,
            text: (*text).to_owned(),
            references: Vec::new(),
        };
        writers.add(
            key.clone(),
            Arc::new(WriterSchema::parse(&key, &text).expect("a schema")),
        );
    }
    writers
}

fn columns(writers: &Writers) -> String {
    let form = Form {
        part: Part::Key,
        ..Form::default()
    };
    let columns = follow::merged(writers, form);
    let columns = columns
        .iter()
        .map(|field| format!("{} {}", field.name, types::text(&field.field_type)));
    columns.collect::<Vec<_>>().join(", ")
}

#[test]
fn keys_are_what_their_format_says() {
    let check = |format: KeyFormat, of: &str, keys: &[Option<&[u8]>], expect: &[&str]| {
        let plan = table(Some(of), UnknownFields::Evolve);
        let decoded = decode(format, &plan, Writers::default(), keys);
        assert_eq!(shown(&decoded), expect, "{format:?} into {of}");
    };
    let text = KeyFormat::Of(ValueFormat::String);
    check(
        text,
        "string",
        &[Some(b"a"), None, Some(b""), Some(&[0xFF]), Some("\u{e9}".as_bytes())],
        &[
            "a",
            "-",
            "",
            "\u{e9}",
            "3: key: column `_kafka_key` is text, the value is no UTF-8",
        ],
    );
    check(
        KeyFormat::Of(ValueFormat::Bytes),
        "string",
        &[Some(b"a"), None],
        &["a", "-"],
    );
    check(text, "binary", &[Some(b"a")], &["61"]);
    check(
        KeyFormat::Int,
        "int",
        &[
            Some(&[0xFF, 0xFF, 0xFF, 0xFE]),
            None,
            Some(&[1]),
            Some(&[0x7F, 0xFF, 0xFF, 0xFF]),
        ],
        &[
            "-2",
            "-",
            "2147483647",
            "2: key: it has 1 bytes, an integer of `keyFormat` has 4",
        ],
    );
    check(KeyFormat::Int, "long", &[Some(&[0, 0, 1, 0])], &["256"]);
    check(
        KeyFormat::Long,
        "long",
        &[Some(&i64::MIN.to_be_bytes()), Some(&[0; 4])],
        &[
            "-9223372036854775808",
            "1: key: it has 4 bytes, an integer of `keyFormat` has 8",
        ],
    );
    let json = KeyFormat::Of(ValueFormat::Json);
    check(
        json,
        "string",
        &[Some(br#""a""#), Some(b"null"), Some(b" 1 "), None],
        &["a", "-", "1", "-"],
    );
    check(
        json,
        "struct<id: long>",
        &[
            Some(br#"{"id":5}"#),
            Some(b"\xEF\xBB\xBF{\"id\":6}"),
            // Behind the id of a schema, as a registry's serializer writes it.
            Some(&[b"\0\0\0\0\x07".as_slice(), br#"{"id":7}"#].concat()),
            Some(br#"{"id":8},"id":9"#),
            Some(&[0xC3]),
        ],
        &[
            "{id: 5}",
            "{id: 6}",
            "{id: 7}",
            "3: key: it isn't JSON: something follows the object at byte 8",
            "4: key: it isn't UTF-8",
        ],
    );
    check(
        KeyFormat::Of(ValueFormat::MessagePack),
        "struct<id: long>",
        &[Some(&[0x81, 0xA2, b'i', b'd', 5]), Some(&[0xC1])],
        &[
            "{id: 5}",
            "1: key: the value is no MessagePack: no value starts with the byte c1 at byte 0",
        ],
    );
}

#[test]
fn framed_keys_follow_their_schemas() {
    let record = |fields: &str| format!(r#"{{"type":"record","name":"K","fields":[{fields}]}}"#);
    let (old, new) = (
        record(r#"{"name":"a","type":"int"}"#),
        record(r#"{"name":"b","type":"long","aliases":["a"]},{"name":"c","type":"string","default":"x"}"#),
    );
    let avro = KeyFormat::Of(ValueFormat::Avro);
    let writers = schemas(SchemaLanguage::Avro, &[&old, &new]);
    let of = "struct<b: long, c: string>";
    assert_eq!(columns(&writers), format!("{KEY} {of}"));
    let keys: [Option<&[u8]>; 4] = [
        Some(&[0, 0, 0, 0, 1, 6]),
        None,
        Some(&[0, 0, 0, 0, 2, 8, 2, b'y']),
        Some(&[0, 0, 0, 0, 9]),
    ];
    let decoded = decode(avro, &table(Some(of), UnknownFields::Evolve), writers, &keys);
    assert_eq!(
        shown(&decoded),
        [
            "{b: 3, c: x}",
            "-",
            "{b: 4, c: y}",
            "3: key: schema 9 of keys isn't known"
        ]
    );
    assert_eq!(decoded.unknown, [SchemaKey::id(9).of(Part::Key)]);

    let writers = schemas(SchemaLanguage::Avro, &[r#""string""#]);
    assert_eq!(columns(&writers), format!("{KEY} string"));
    let decoded = decode(
        avro,
        &table(Some("string"), UnknownFields::Evolve),
        writers,
        &[Some(&[0, 0, 0, 0, 1, 2, b'k'])],
    );
    assert_eq!(shown(&decoded), ["k"]);

    let proto = r#"syntax = "proto3"; message K { int64 id = 3; string name = 200; }"#;
    let writers = schemas(SchemaLanguage::Protobuf, &[proto]);
    let of = "struct<id: long, name: string>";
    assert_eq!(columns(&writers), format!("{KEY} {of}"));
    let name = "n".repeat(200);
    let body = [&[0, 0, 0, 0, 1, 0, 0x18, 9, 0xC2, 0x0C, 0xC8, 1], name.as_bytes()].concat();
    let keys: [Option<&[u8]>; 4] = [
        Some(&body),
        Some(&[0, 0, 0, 0, 1, 0]),
        None,
        Some(&[0, 0, 0, 0, 1, 0, 0x18]),
    ];
    let decoded = decode(
        KeyFormat::Of(ValueFormat::Protobuf),
        &table(Some(of), UnknownFields::Evolve),
        writers,
        &keys,
    );
    let shown = shown(&decoded);
    assert_eq!(
        shown[..3],
        [
            format!("{{id: 9, name: {name}}}"),
            "{id: 0, name: }".to_owned(),
            "-".to_owned()
        ]
    );
    assert!(shown[3].starts_with("3: key: "), "{shown:?}");
}

#[test]
fn a_table_without_a_column_for_keys_is_asked_for_one() {
    for unknown in [UnknownFields::Evolve, UnknownFields::Declared, UnknownFields::Ignore] {
        let plan = table(None, unknown);
        let keys: [Option<&[u8]>; 2] = [Some(br#"{"id":5}"#), None];
        let decoded = decode(KeyFormat::Of(ValueFormat::Json), &plan, Writers::default(), &keys);
        let unseen = decoded.unseen.as_ref().and_then(|shape| shape.field(KEY));
        assert_eq!(unseen, Some(Shape::Object(vec![("id".to_owned(), Shape::Long)])));
        assert_eq!((decoded.indexes.len(), decoded.keys.is_none()), (2, true));
    }
}

#[test]
fn a_key_goes_with_its_row() {
    let plan = table(Some("string"), UnknownFields::Evolve);
    let keys: [Option<&[u8]>; 5] = [Some(b"a"), Some(b"b"), Some(&[0xFF]), Some(b"d"), Some(b"e")];
    let values: [Option<&[u8]>; 5] = [
        Some(b"x"),
        Some(br#"{"id":1}"#),
        Some(br#"{"id":2}"#),
        None,
        Some(br#"{"id":4}"#),
    ];
    let chunk = chunk(&keys, &values);
    let mut decoded = JsonDecoder::new(plan.clone()).decode(&chunk);
    let mut decoder = KeyDecoder::new(KeyFormat::Of(ValueFormat::String), &plan, Arc::default(), false);
    decoder.attach(&chunk, &Missing::new(), &mut decoded);
    assert_eq!(decoded.indexes, [1, 4]);
    let kept = decoded.keys.as_ref().expect("a column").as_string::<i32>();
    assert_eq!(kept.iter().flatten().collect::<Vec<_>>(), ["b", "e"]);
    let rejects: Vec<_> = decoded.rejects.iter().map(|reject| reject.index).collect();
    assert_eq!((rejects, decoded.filtered), (vec![0, 2], 1));
}
