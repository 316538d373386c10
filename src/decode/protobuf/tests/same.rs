//! Records that `prost-reflect` wrote, read by it and by ours; then shuffled, split and broken.

use std::sync::LazyLock;

use proptest::prelude::*;
use prost_reflect::prost::Message as _;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind as Described, MapKey, MessageDescriptor, ReflectMessage, Value,
};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::*;

const RICH: &str = r#"
syntax = "proto3";
package t;
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/empty.proto";
enum Color { RED = 0; GREEN = 1; FAR = 1000; MINUS = -5; }
message Rich {
  bool a = 1; int32 b = 2; sint32 c = 3; sfixed32 d = 4; int64 e = 5; sint64 f = 6; sfixed64 g = 7; uint32 h = 8;
  fixed32 i = 9; uint64 j = 10; fixed64 k = 11; float l = 12; double m = 13; string n = 14; bytes o = 15; Color p = 16;
  optional int32 oa = 17; optional string ob = 18; optional double oc = 19; optional Color od = 20; optional bytes oe = 2000;
  Inner ma = 21; Inner mb = 22;
  repeated int32 ra = 31; repeated string rb = 32; repeated double rc = 33 [packed = false]; repeated Color rd = 34;
  repeated Inner re = 35; repeated bool rf = 36; repeated fixed64 rg = 37; repeated bytes rh = 38;
  map<string, int32> pa = 41; map<int64, Inner> pb = 42; map<bool, string> pc = 43; map<uint64, double> pd = 44;
  map<sfixed32, Color> pe = 45;
  oneof one { int32 xa = 51; string xb = 52; Inner xc = 53; Inner xd = 54; google.protobuf.Int32Value xe = 55; }
  oneof other { bool ya = 56; bytes yb = 57; }
  google.protobuf.Timestamp ta = 61; repeated google.protobuf.Timestamp tb = 62; google.protobuf.Duration tc = 63;
  google.protobuf.UInt64Value wa = 64; google.protobuf.StringValue wb = 65; repeated google.protobuf.BoolValue wc = 66;
  google.protobuf.Struct sa = 67; google.protobuf.Empty sb = 68; Node sc = 69; repeated Node sd = 70;
  int32 last = 536870911;
}
message Inner {
  int32 x = 1; optional string y = 2; repeated int64 z = 3; Deep deep = 4; map<int32, string> m = 5;
  oneof o { sint64 p = 6; Deep q = 7; }
  message Deep { double v = 1; repeated Deep2 w = 2; message Deep2 { bool u = 1; optional fixed32 t = 2; } }
}
message Node { string name = 1; repeated Node children = 2; uint64 id = 3; map<string, Node> by = 4; Color color = 5;
  oneof o { Node left = 6; double right = 7; } bytes raw = 8; repeated sint32 nums = 9; }
"#;

struct Rich {
    described: MessageDescriptor,
    schema: Arc<ProtoSchema>,
    plan: RowPlan,
    program: Program,
}

static RICH_SCHEMA: LazyLock<Rich> = LazyLock::new(|| {
    struct One;
    impl FileResolver for One {
        fn open_file(&self, name: &str) -> Result<File, protox::Error> {
            match name {
                "rich.proto" => File::from_source(name, RICH),
                _ => Err(protox::Error::file_not_found(name)),
            }
        }
    }
    let mut files = ChainFileResolver::new();
    files.add(One);
    files.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(files);
    compiler.open_file("rich.proto").expect("a schema");
    let described = compiler
        .descriptor_pool()
        .get_message_by_name("t.Rich")
        .expect("a message");
    let schema = schema(RICH);
    let plan = natural_plan(&schema, UnknownFields::Evolve);
    let program = compile(&schema, None, &plan, None).expect("a table of the schema's own");
    Rich {
        described,
        schema,
        plan,
        program,
    }
});

/// Numbers that decide what a message holds: taken from the front, zeros when there are none left.
struct Dice(std::vec::IntoIter<u64>);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0.next().unwrap_or_default()
    }

    /// Small, large or both ends, as often.
    fn number(&mut self) -> u64 {
        let value = self.roll();
        match value % 4 {
            0 => value >> 56,
            1 => value,
            2 => u64::MAX - (value >> 58),
            _ => 1 << (value >> 58),
        }
    }

    fn text(&mut self) -> String {
        ["", "a", "b", "ä\"\\\n", "long text, longer than most of the others"][self.roll() as usize % 5].to_owned()
    }
}

fn scalar(dice: &mut Dice, of: &Described, depth: usize) -> Value {
    let number = dice.number();
    match of {
        Described::Bool => Value::Bool(number % 2 == 1),
        Described::Int32 | Described::Sint32 | Described::Sfixed32 => Value::I32(number as i32),
        Described::Int64 | Described::Sint64 | Described::Sfixed64 => Value::I64(number as i64),
        Described::Uint32 | Described::Fixed32 => Value::U32(number as u32),
        Described::Uint64 | Described::Fixed64 => Value::U64(number),
        Described::Float => Value::F32(number as i32 as f32 / 3.0),
        Described::Double => Value::F64(number as i64 as f64 / 3.0),
        Described::String => Value::String(dice.text()),
        Described::Bytes => Value::Bytes(number.to_le_bytes()[..number as usize % 9].to_vec().into()),
        Described::Enum(_) => Value::EnumNumber([0, 1, 1000, -5, 7][number as usize % 5]),
        Described::Message(message) => Value::Message(made(dice, message, depth + 1)),
    }
}

fn made(dice: &mut Dice, of: &MessageDescriptor, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    if of.full_name() == "google.protobuf.Timestamp" || of.full_name() == "google.protobuf.Duration" {
        // Of those 10,000 years that they are for.
        let seconds = dice.number() as i64 % 250_000_000_000;
        message.set_field_by_name("seconds", Value::I64(seconds));
        message.set_field_by_name("nanos", Value::I32((dice.number() % 1_000_000_000) as i32));
        return message;
    }
    for field in of.fields() {
        if depth > 4 || dice.roll().is_multiple_of(3) {
            continue;
        }
        message.set_field(&field, value(dice, &field, depth));
    }
    message
}

fn value(dice: &mut Dice, field: &FieldDescriptor, depth: usize) -> Value {
    if field.is_map() {
        let Described::Message(entry) = field.kind() else {
            panic!("a map has entries")
        };
        let (key, held) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let entries = (0..dice.roll() % 4).map(|_| {
            let key = scalar(dice, &key, depth).into_map_key().expect("a key");
            (key, scalar(dice, &held, depth))
        });
        return Value::Map(entries.collect());
    }
    match field.is_list() {
        true => Value::List(
            (0..dice.roll() % 4)
                .map(|_| scalar(dice, &field.kind(), depth))
                .collect(),
        ),
        false => scalar(dice, &field.kind(), depth),
    }
}

/// What a field's column holds, by the words of `prost-reflect`.
fn expected(message: &DynamicMessage, field: &FieldDescriptor, inside: &[String]) -> Cell {
    if field.supports_presence() && !message.has_field(field) {
        return Cell::Null;
    }
    let value = message.get_field(field);
    match &*value {
        Value::List(items) => Cell::List(items.iter().map(|item| single(item, &field.kind(), inside)).collect()),
        Value::Map(entries) => {
            let Described::Message(entry) = field.kind() else {
                panic!("a map has entries")
            };
            let held = entry.map_entry_value_field().kind();
            let entries = entries
                .iter()
                .map(|(key, value)| (map_key(key), single(value, &held, inside)));
            Cell::Map(entries.collect())
        }
        value => single(value, &field.kind(), inside),
    }
}

fn map_key(key: &MapKey) -> Cell {
    match key {
        MapKey::Bool(value) => Cell::Bool(*value),
        MapKey::I32(value) => Cell::Number((*value).into()),
        MapKey::I64(value) => Cell::Number((*value).into()),
        MapKey::U32(value) => Cell::Number((*value).into()),
        MapKey::U64(value) => Cell::Number((*value).into()),
        MapKey::String(text) => Cell::Text(text.clone()),
    }
}

fn enum_name(of: &Described, number: i32) -> String {
    let Described::Enum(of) = of else { panic!("an enum") };
    of.get_value(number)
        .map_or_else(|| number.to_string(), |value| value.name().to_owned())
}

fn single(value: &Value, of: &Described, inside: &[String]) -> Cell {
    match value {
        Value::Bool(value) => Cell::Bool(*value),
        Value::I32(value) => Cell::Number((*value).into()),
        Value::I64(value) => Cell::Number((*value).into()),
        Value::U32(value) => Cell::Number((*value).into()),
        Value::U64(value) => Cell::Number((*value).into()),
        Value::F32(value) => Cell::float((*value).into()),
        Value::F64(value) => Cell::float(*value),
        Value::String(text) => Cell::Text(text.clone()),
        Value::Bytes(bytes) => Cell::Bytes(bytes.to_vec()),
        Value::EnumNumber(number) => Cell::Text(enum_name(of, *number)),
        Value::Message(message) => {
            let described = message.descriptor();
            let name = described.full_name();
            match name {
                "google.protobuf.Timestamp" => Cell::Number(nanos(message).div_euclid(1000)),
                "google.protobuf.Duration" => Cell::Number(nanos(message)),
                "google.protobuf.Struct" => Cell::Text(json(message).to_string()),
                "google.protobuf.Empty" => Cell::Text("{}".to_owned()),
                _ if name.ends_with("Value") => {
                    let field = described.get_field(1).expect("a wrapper's field");
                    single(&message.get_field(&field), &field.kind(), inside)
                }
                _ if inside.iter().any(|other| other == name) => Cell::Text(json(message).to_string()),
                _ => {
                    let inside = [inside, &[name.to_owned()]].concat();
                    // All fields of these are in the order of their numbers.
                    let fields = described.fields().collect::<Vec<_>>();
                    Cell::Struct(fields.iter().map(|field| expected(message, field, &inside)).collect())
                }
            }
        }
        other => panic!("no single value: {other:?}"),
    }
}

fn nanos(message: &DynamicMessage) -> i128 {
    let part = |name| match &*message.get_field_by_name(name).expect("a part") {
        Value::I64(value) => i128::from(*value),
        Value::I32(value) => i128::from(*value),
        other => panic!("no number: {other:?}"),
    };
    part("seconds") * 1_000_000_000 + part("nanos")
}

/// The JSON of a message; objects' names sorted, as are those of what it is compared with.
fn json(message: &DynamicMessage) -> serde_json::Value {
    let described = message.descriptor();
    let inner = |number| {
        let field = described.get_field(number).expect("a field");
        json_field(&message.get_field(&field), &field)
    };
    match described.full_name() {
        "google.protobuf.Struct" | "google.protobuf.ListValue" => return inner(1),
        "google.protobuf.Value" => {
            let field = described.fields().find(|field| message.has_field(field));
            return match field.map(|field| field.number()) {
                None | Some(1) => serde_json::Value::Null,
                Some(number) => inner(number),
            };
        }
        _ => {}
    }
    let fields: Vec<_> = described.fields().filter(|field| message.has_field(field)).collect();
    let fields = fields
        .iter()
        .map(|field| (field.name().to_owned(), json_field(&message.get_field(field), field)));
    serde_json::Value::Object(fields.collect())
}

fn json_field(value: &Value, field: &FieldDescriptor) -> serde_json::Value {
    match value {
        Value::List(items) => items.iter().map(|item| json_single(item, &field.kind())).collect(),
        Value::Map(entries) => {
            let Described::Message(entry) = field.kind() else {
                panic!("a map has entries")
            };
            let held = entry.map_entry_value_field().kind();
            let entries = entries.iter().map(|(key, value)| {
                let MapKey::String(key) = key else {
                    panic!("keys of these are text")
                };
                (key.clone(), json_single(value, &held))
            });
            serde_json::Value::Object(entries.collect())
        }
        value => json_single(value, &field.kind()),
    }
}

fn json_single(value: &Value, of: &Described) -> serde_json::Value {
    use base64::Engine as _;
    match value {
        Value::Bool(value) => (*value).into(),
        Value::I32(value) => (*value).into(),
        Value::I64(value) => value.to_string().into(),
        Value::U32(value) => (*value).into(),
        Value::U64(value) => value.to_string().into(),
        Value::F64(value) if value.is_nan() => "NaN".into(),
        Value::F64(value) if value.is_infinite() => if *value > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Value::F64(value) => (*value).into(),
        Value::String(text) => text.clone().into(),
        Value::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
        Value::EnumNumber(number) => match enum_name(of, *number) {
            name if name == number.to_string() => (*number).into(),
            name => name.into(),
        },
        Value::Message(message) => json(message),
        other => panic!("not in these: {other:?}"),
    }
}

/// Numbers to ten digits: of two shortest texts of one number either is right, and `serde_json` reads the last digits loosely.
fn rounded(json: serde_json::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match json {
        Json::Number(number) if number.is_f64() => format!("{:.10e}", number.as_f64().expect("a number")).into(),
        Json::Array(items) => items.into_iter().map(rounded).collect(),
        Json::Object(fields) => Json::Object(fields.into_iter().map(|(name, value)| (name, rounded(value))).collect()),
        other => other,
    }
}

/// Text that is JSON is compared as such.
fn settled(cell: Cell) -> Cell {
    match cell {
        Cell::Text(text) if text.starts_with('{') => {
            Cell::Text(serde_json::from_str(&text).map_or(text, |json| rounded(json).to_string()))
        }
        Cell::List(items) => Cell::List(items.into_iter().map(settled).collect()),
        Cell::Struct(fields) => Cell::Struct(fields.into_iter().map(settled).collect()),
        Cell::Map(entries) => Cell::Map(entries.into_iter().map(|(key, value)| (key, settled(value))).collect()),
        other => other,
    }
}

fn expected_row(message: &DynamicMessage) -> Vec<Cell> {
    let rich = &*RICH_SCHEMA;
    let fields = rich.schema.messages[rich.schema.root].fields.iter();
    let fields = fields.map(|field| rich.described.get_field(field.number).expect("the same field"));
    fields
        .map(|field| settled(expected(message, &field, &["t.Rich".to_owned()])))
        .collect()
}

fn row(record: &[u8]) -> Result<Vec<Cell>, String> {
    let rich = &*RICH_SCHEMA;
    let mut table = Table::new(&rich.plan);
    table.add(&rich.program, record)?;
    Ok(table.cells().remove(0).into_iter().map(settled).collect())
}

fn message(numbers: Vec<u64>) -> DynamicMessage {
    made(&mut Dice(numbers.into_iter()), &RICH_SCHEMA.described, 0)
}

fn numbers() -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::vec(any::<u64>(), 0..400)
}

/// The fields of a message, one after the other: their numbers and bytes.
fn split(record: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let schema = &RICH_SCHEMA.schema;
    let mut reader = Reader::new(record, schema);
    let mut fields = Vec::new();
    while reader.at < reader.end {
        let start = reader.at;
        let (number, wire) = reader.tag().expect("a field");
        reader.skip(number, wire).expect("a value");
        fields.push((number, record[start..reader.at].to_vec()));
    }
    fields
}

proptest! {
    #[test]
    fn what_others_write_is_read(numbers in numbers()) {
        let message = message(numbers);
        let record = message.encode_to_vec();
        prop_assert_eq!(row(&record), Ok(expected_row(&message)));
    }

    #[test]
    fn the_order_of_fields_is_no_matter(numbers in numbers(), order in proptest::collection::vec(any::<u32>(), 64)) {
        let record = message(numbers).encode_to_vec();
        let mut fields: Vec<_> = split(&record).into_iter().map(|(number, bytes)| (order[number as usize % 64], number, bytes)).collect();
        // Those of one number stay in their order.
        fields.sort_by_key(|(order, number, _)| (*order, *number));
        let mut shuffled = Vec::new();
        for (order, _, bytes) in &fields {
            shuffled.extend(bytes);
            // And fields that nobody knows.
            if order % 3 == 0 {
                shuffled.extend(bytes::varint(1999, 5));
                shuffled.extend(bytes::group(3000, &[bytes::text(1, "x")]));
            }
        }
        prop_assert_eq!(row(&shuffled), row(&record));
    }

    #[test]
    fn messages_may_come_in_parts(numbers in numbers(), before in numbers(), seed in any::<u64>()) {
        let record = message(numbers).encode_to_vec();
        let parts = [21, 22, 61, 63, 64, 67, 69];
        let mut torn = Vec::new();
        for (number, field) in split(&record) {
            if !parts.contains(&number) {
                torn.extend(field);
                continue;
            }
            let mut reader = Reader::new(&field, &RICH_SCHEMA.schema);
            let (_, wire) = reader.tag().expect("a field");
            let body = reader.body(number, wire).expect("a message");
            let inner = split(&field[body]);
            let cut = seed as usize % (inner.len() + 1);
            for half in [&inner[..cut], &inner[cut..]] {
                let half: Vec<u8> = half.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
                torn.extend(bytes::bytes(number, &half));
                torn.extend(bytes::varint(2222, 1));
            }
        }
        prop_assert_eq!(row(&torn), row(&record));
        // Two records behind each other are the merger of both.
        let both = [message(before).encode_to_vec(), record].concat();
        let merged = DynamicMessage::decode(RICH_SCHEMA.described.clone(), both.as_slice()).expect("a message");
        prop_assert_eq!(row(&both), Ok(expected_row(&merged)));
    }

    #[test]
    fn broken_records_are_read_alike_or_refused(
        numbers in numbers(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut record = message(numbers).encode_to_vec();
        if !record.is_empty() {
            for (at, byte) in changes {
                let at = at.index(record.len());
                record[at] = byte;
            }
        }
        let others = DynamicMessage::decode(RICH_SCHEMA.described.clone(), record.as_slice());
        match (row(&record), others) {
            (Ok(row), Ok(message)) => prop_assert_eq!(row, expected_row(&message)),
            // They don't look into the groups that they skip, nor at the wire types of what nobody asks for.
            (Ok(_), Err(_)) => {}
            // They take a map's entry that is written as a group for one with a length. What they made of it, ours reads.
            (Err(_), Ok(message)) => {
                match row(&message.encode_to_vec()) {
                    Ok(row) => prop_assert_eq!(row, expected_row(&message)),
                    Err(why) => prop_assert!(["doesn't fit", "has no date"].iter().any(|known| why.contains(known)), "{}", why),
                }
            }
            (Err(_), Err(_)) => {}
        }
    }

    #[test]
    fn no_bytes_are_too_strange(record in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(row(&record));
    }
}
