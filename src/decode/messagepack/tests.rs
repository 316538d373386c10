use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::json::scalar::moment;

/// Reads bytes as people write them: hex, with text between `'` and spaces anywhere.
fn bytes(written: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, part) in written.split('\'').enumerate() {
        if at % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
            continue;
        }
        let digits: Vec<u8> = part.bytes().filter(|byte| *byte != b' ').collect();
        for pair in digits.chunks(2) {
            let pair = std::str::from_utf8(pair).expect("hex is ASCII");
            bytes.push(u8::from_str_radix(pair, 16).expect(part));
        }
    }
    bytes
}

/// A value inside `{"a": …}`.
fn value(written: &str, expect: &str) {
    let text = json(&bytes(&format!("81 a1'a' {written}"))).expect(written);
    assert_eq!(
        String::from_utf8(text).expect("UTF-8"),
        format!("{{\"a\":{expect}}}"),
        "{written}"
    );
}

fn record(written: &str, expect: &str) {
    let text = json(&bytes(written)).expect(written);
    assert_eq!(String::from_utf8(text).expect("UTF-8"), expect, "{written}");
}

#[track_caller]
fn refused(written: &str, said: &str) {
    assert_eq!(json(&bytes(written)).expect_err(written), said, "{written}");
}

#[test]
fn each_value_has_its_json() {
    for (written, expect) in [
        ("c0", "null"),
        ("c2", "false"),
        ("c3", "true"),
        ("00", "0"),
        ("7f", "127"),
        ("e0", "-32"),
        ("ff", "-1"),
        ("cc ff", "255"),
        ("cd ffff", "65535"),
        ("ce ffffffff", "4294967295"),
        ("cf ffffffffffffffff", "18446744073709551615"),
        ("d0 80", "-128"),
        ("d1 8000", "-32768"),
        ("d2 80000000", "-2147483648"),
        ("d3 8000000000000000", "-9223372036854775808"),
        ("ca 3dcccccd", "0.1"),
        ("ca 3f800000", "1.0"),
        ("ca 80000000", "-0.0"),
        ("cb 3fb999999999999a", "0.1"),
        ("cb 3ff0000000000000", "1.0"),
        ("cb 4341c37937e08000", "1.0e+16"),
        ("cb c341c37937e08000", "-1.0e+16"),
        ("cb 7e37e43c8800759c", "1.0e+300"),
        ("cb 0000000000000001", "5.0e-324"),
        ("cb 7fefffffffffffff", "1.7976931348623157e+308"),
        ("a0", "\"\""),
        ("a5'a\"b\\c'", r#""a\"b\\c""#),
        ("d9 02 0a01", r#""\n\u0001""#),
        ("da 0002 c3a4", "\"ä\""),
        ("db 00000004 f09f9880", "\"😀\""),
        ("c4 00", "\"\""),
        ("c4 01 ff", "\"/w==\""),
        ("c5 0002 fbff", "\"+/8=\""),
        ("c6 00000003 000000", "\"AAAA\""),
        ("90", "[]"),
        ("93 01 c0 91 02", "[1,null,[2]]"),
        ("dc 0001 c3", "[true]"),
        ("dd 00000002 01 02", "[1,2]"),
        ("80", "{}"),
        ("82 a1'b' 01 a1'c' 80", r#"{"b":1,"c":{}}"#),
        ("de 0001 a1'b' 01", r#"{"b":1}"#),
        ("df 00000001 a1'b' 01", r#"{"b":1}"#),
        (
            "86 01 01 ff 02 cf ffffffffffffffff 03 c2 04 c3 05 c4 01'k' 06",
            r#"{"1":1,"-1":2,"18446744073709551615":3,"false":4,"true":5,"k":6}"#,
        ),
        ("82 a1'b' 01 a1'b' 02", r#"{"b":1,"b":2}"#),
        ("d4 05 ff", r#"{"type":5,"data":"/w=="}"#),
        ("d5 80 0001", r#"{"type":-128,"data":"AAE="}"#),
        (
            "d8 01 00000000000000000000000000000000",
            r#"{"type":1,"data":"AAAAAAAAAAAAAAAAAAAAAA=="}"#,
        ),
        ("c7 00 07", r#"{"type":7,"data":""}"#),
        ("c8 0001 07 00", r#"{"type":7,"data":"AA=="}"#),
        ("c9 00000001 07 00", r#"{"type":7,"data":"AA=="}"#),
        ("d6 ff 00000000", "\"1970-01-01T00:00:00Z\""),
        ("d6 ff ffffffff", "\"2106-02-07T06:28:15Z\""),
        ("d7 ff 773594 00 65a50938", "\"2024-01-15T10:30:16.5Z\""),
        ("d7 ff ee6b27fc 65a50938", "\"2024-01-15T10:30:16.999999999Z\""),
        (
            "c7 0c ff 00000001 ffffffffffffffff",
            "\"1969-12-31T23:59:59.000000001Z\"",
        ),
        ("c7 0c ff 00000000 0000003afff4417f", "\"9999-12-31T23:59:59Z\""),
        ("c7 0c ff 00000000 fffffff1868b8400", "\"0000-01-01T00:00:00Z\""),
    ] {
        value(written, expect);
    }
    record("80", "{}");
    record("82 a1'a' 01 a1'b' a1'x'", r#"{"a":1,"b":"x"}"#);
}

#[test]
fn what_has_no_json_is_refused_with_its_place() {
    for (written, said) in [
        ("", "the value is empty"),
        ("c0", "the value is no MessagePack map but nil"),
        ("90", "the value is no MessagePack map but an array"),
        // The most likely mix-up: JSON starts with `{`, an int here.
        ("'{\"a\":1}'", "the value is no MessagePack map but an int"),
        (
            "c1",
            "the value is no MessagePack: no value starts with the byte c1 at byte 0",
        ),
        (
            "81 a1'a' c1",
            "the value is no MessagePack: no value starts with the byte c1 at byte 3",
        ),
        (
            "80 c0",
            "the value is no MessagePack: something follows the map at byte 1",
        ),
        ("81", "the value is no MessagePack: it ends too early at byte 1"),
        ("81 a1'a'", "the value is no MessagePack: it ends too early at byte 3"),
        (
            "81 a1'a' a2'b'",
            "the value is no MessagePack: it ends too early at byte 4",
        ),
        (
            "df ffffffff",
            "the value is no MessagePack: it ends too early at byte 5",
        ),
        (
            "81 a1'a' dd ffffffff 00",
            "the value is no MessagePack: it ends too early at byte 8",
        ),
        (
            "81 a1'a' db ffffffff 00",
            "the value is no MessagePack: it ends too early at byte 8",
        ),
        (
            "81 a1'a' c9 ffffffff 00",
            "the value is no MessagePack: it ends too early at byte 9",
        ),
        (
            "81 a1'a' cb 00",
            "the value is no MessagePack: it ends too early at byte 4",
        ),
        (
            "81 a1'a' ca 7fc00000",
            "field `a` is NaN: the value passes as JSON, which has no such number",
        ),
        (
            "81 a1'a' 91 81 a1'b' cb fff0000000000000",
            "field `a.element.b` is infinite: the value passes as JSON, which has no such number",
        ),
        ("81 a1'a' a1 ff", "field `a` is a str that isn't UTF-8"),
        ("81 a1 ff 00", "the record has a key that isn't UTF-8"),
        (
            "81 a1'a' 81 c4 01 ff 00",
            "field `a` has a key of bytes that aren't UTF-8",
        ),
        ("81 a1'a' 81 c0 00", "field `a` has a key that is nil"),
        ("81 cb 0000000000000000 00", "the record has a key that is a float"),
        ("81 90 00", "the record has a key that is an array"),
        (
            "81 a1'a' d5 ff 0000",
            "field `a` is a timestamp of 2 bytes, not 4, 8 or 12",
        ),
        (
            "81 a1'a' d7 ff ee6b2800 00000000",
            "field `a` is a timestamp of 1000000000 nanoseconds, more than a second",
        ),
        (
            "81 a1'a' c7 0c ff 00000000 0000003afff44180",
            "field `a` is a timestamp of 253402300800 seconds from 1970, outside of the years 0 to 9999",
        ),
        (
            "81 a1'a' c7 0c ff 00000000 8000000000000000",
            "field `a` is a timestamp of -9223372036854775808 seconds from 1970, outside of the years 0 to 9999",
        ),
    ] {
        refused(written, said);
    }
}

#[test]
fn nesting_ends_where_that_of_json_does() {
    let nested = |depth: usize| [&[0x81, 0xa1, b'a'].repeat(depth)[..], &[0x01]].concat();
    let json_of = json(&nested(DEPTH_MAX)).expect("as deep as may be");
    crate::schema::infer::Shape::default()
        .observe(&json_of)
        .expect("as deep as may be");
    for deep in [
        nested(DEPTH_MAX + 1),
        nested(100_000),
        [&nested(DEPTH_MAX)[..384], &[0xd4, 1, 1]].concat(),
    ] {
        assert_eq!(json(&deep).expect_err("deep"), "the value is nested more than 128 deep");
    }
}

#[test]
fn a_bad_record_costs_its_neighbours_nothing() {
    let good = bytes("81 a1'a' 01");
    let values: Vec<Option<&[u8]>> = vec![
        Some(&good),
        Some(&good),
        None,
        Some(&good[..3]),
        Some(b"{}"),
        Some(&good),
        Some(b""),
        None,
    ];
    let array = BinaryArray::from_iter(values);
    for slice in [array.slice(0, 8), array.slice(1, 7)] {
        let skipped = 8 - slice.len() as u32;
        let Transcoded { values, rejects } = to_json(&slice);
        let expect: Vec<Option<&[u8]>> = vec![
            Some(br#"{"a":1}"#),
            Some(br#"{"a":1}"#),
            None,
            Some(b""),
            Some(b""),
            Some(br#"{"a":1}"#),
            Some(b""),
            None,
        ];
        assert_eq!(values.iter().collect::<Vec<_>>(), expect[skipped as usize..]);
        let indexes: Vec<u32> = rejects.iter().map(|(index, _)| index + skipped).collect();
        assert_eq!(indexes, [3, 4, 6]);
    }
    assert_eq!(to_json(&array.slice(0, 0)).values.len(), 0);
}

#[test]
fn a_chunk_never_outgrows_its_column() {
    let good = bytes("81 a1'a' 01");
    let array = BinaryArray::from_iter_values([&good, &good, &good]);
    let Transcoded { values, rejects } = transcode(&array, 14, Root::Map);
    assert_eq!(values.iter().flatten().map(<[u8]>::len).collect::<Vec<_>>(), [7, 7, 0]);
    assert_eq!(rejects.len(), 1);
}

/// Values as `rmpv` has them, without those that are refused.
fn tree() -> impl Strategy<Value = rmpv::Value> {
    let key = prop_oneof![
        4 => ".{0,5}".prop_map(rmpv::Value::from),
        1 => any::<i64>().prop_map(rmpv::Value::from),
        1 => any::<bool>().prop_map(rmpv::Value::from),
    ];
    let leaf = prop_oneof![
        Just(rmpv::Value::Nil),
        any::<bool>().prop_map(rmpv::Value::from),
        any::<i64>().prop_map(rmpv::Value::from),
        any::<u64>().prop_map(rmpv::Value::from),
        (-200i64..70_000).prop_map(rmpv::Value::from),
        prop::num::f32::NORMAL.prop_map(rmpv::Value::from),
        prop::num::f64::NORMAL.prop_map(rmpv::Value::from),
        (-1_000_000i64..1_000_000).prop_map(|value| rmpv::Value::from(value as f64)),
        ".{0,40}".prop_map(rmpv::Value::from),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(rmpv::Value::from),
        (0i8..100, prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(of, data)| rmpv::Value::Ext(of, data)),
    ];
    leaf.prop_recursive(5, 60, 20, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(rmpv::Value::Array),
            prop::collection::vec((key.clone(), inner), 0..20).prop_map(rmpv::Value::Map),
        ]
    })
}

fn same(json: &Value, of: &rmpv::Value) {
    match of {
        rmpv::Value::Nil => assert!(json.is_null()),
        rmpv::Value::Boolean(value) => assert_eq!(json.as_bool(), Some(*value)),
        rmpv::Value::Integer(value) => assert_eq!((json.as_i64(), json.as_u64()), (value.as_i64(), value.as_u64())),
        rmpv::Value::F32(value) => {
            assert!(json.is_f64());
            assert_eq!(json.to_string().parse(), Ok(*value));
        }
        rmpv::Value::F64(value) => {
            assert!(json.is_f64());
            // `serde_json` may read the last digit wrong; that each is written right is shown below.
            let read = json.as_f64().expect("a number");
            assert!((read - value).abs() <= value.abs() * 1e-15, "{read} for {value}");
        }
        rmpv::Value::String(value) => assert_eq!(json.as_str(), value.as_str()),
        rmpv::Value::Binary(value) => assert_eq!(json.as_str(), Some(STANDARD.encode(value).as_str())),
        rmpv::Value::Ext(of, data) => {
            assert_eq!(json["type"].as_i64(), Some(i64::from(*of)));
            assert_eq!(json["data"].as_str(), Some(STANDARD.encode(data).as_str()));
        }
        rmpv::Value::Array(items) => {
            let json = json.as_array().expect("an array");
            assert_eq!(json.len(), items.len());
            json.iter().zip(items).for_each(|(json, item)| same(json, item));
        }
        rmpv::Value::Map(entries) => {
            let json = json.as_object().expect("an object");
            let key = |key: &rmpv::Value| key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            for (at, (name, value)) in entries.iter().enumerate() {
                let name = key(name);
                // Of equal names `serde_json` keeps the last.
                if !entries[at + 1..].iter().any(|(later, _)| key(later) == name) {
                    same(&json[&name], value);
                }
            }
        }
    }
}

fn encoded(of: &rmpv::Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, of).expect("a Vec takes it");
    bytes
}

/// What passes is JSON, and MessagePack to somebody else too, to its last byte.
fn agrees(value: &[u8]) {
    let Ok(text) = json(value) else { return };
    serde_json::from_slice::<serde::de::IgnoredAny>(&text).expect("it is JSON");
    let mut rest = value;
    rmpv::decode::read_value_ref(&mut rest).expect("it is MessagePack");
    assert!(rest.is_empty());
}

proptest! {
    #[test]
    fn what_others_write_is_read(of in tree()) {
        let of = rmpv::Value::Map(vec![("v".into(), of)]);
        let bytes = encoded(&of);
        let text = json(&bytes).expect("it is a map");
        same(&serde_json::from_slice(&text).expect("it is JSON"), &of);
        crate::schema::infer::Shape::default().observe(&text).ok();
    }

    #[test]
    fn bytes_never_panic(
        noise in prop::collection::vec(any::<u8>(), 0..60),
        of in tree(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        agrees(&noise);
        agrees(&[&[0x81, 0xa1, b'a'], &noise[..]].concat());
        let mut broken = encoded(&rmpv::Value::Map(vec![("v".into(), of)]));
        let at = at.index(broken.len());
        agrees(&broken[..at]);
        broken[at] = byte;
        agrees(&broken);
    }

    #[test]
    fn a_float_is_read_back_to_its_last_bit(double in any::<u64>(), float in any::<u32>()) {
        let text = |marker: u8, data: &[u8]| {
            let text = json(&[&[0x81, 0xa1, b'a', marker], data].concat()).ok()?;
            Some(String::from_utf8(text[5..text.len() - 1].to_vec()).expect("digits are ASCII"))
        };
        let written = text(0xcb, &double.to_be_bytes());
        prop_assert_eq!(written.is_some(), f64::from_bits(double).is_finite());
        if let Some(written) = written {
            prop_assert!(written.contains('.') && crate::json::lexer::is_number(written.as_bytes()));
            prop_assert_eq!(written.parse::<f64>().expect("a number").to_bits(), double);
        }
        let written = text(0xca, &float.to_be_bytes());
        prop_assert_eq!(written.is_some(), f32::from_bits(float).is_finite());
        if let Some(written) = written {
            prop_assert!(written.contains('.') && crate::json::lexer::is_number(written.as_bytes()));
            prop_assert_eq!(written.parse::<f32>().expect("a number").to_bits(), float);
        }
    }

    #[test]
    fn a_timestamp_is_read_back(seconds in -62_167_219_200i64..253_402_300_800, nanos in 0u32..1_000_000_000) {
        let data = [&nanos.to_be_bytes()[..], &seconds.to_be_bytes()].concat();
        let text = json(&[&[0x81, 0xa1, b'a', 0xc7, 12, 0xff][..], &data].concat()).expect("it is one");
        let text = text.strip_prefix(b"{\"a\":\"").and_then(|text| text.strip_suffix(b"\"}")).expect("a string");
        let moment = moment(text).expect("a moment");
        prop_assert_eq!((moment.seconds, moment.nanos, moment.zoned), (seconds, nanos, true));
    }
}
