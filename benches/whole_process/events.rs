//! The events that are measured with: the same in every run, and in every format.

use std::io::Write as _;

use aperio::schema::SchemaLanguage;

/// Bytes of every event in JSON.
pub const JSON_BYTES: usize = 200;

/// Kafka partitions that the events are spread over, one after the other.
pub const PARTITIONS: u64 = 4;

/// The amounts are whole cents, so that their sum has one right value; this many of them are a unit.
pub const CENTS: u64 = 100;

/// The time of the first event, milliseconds since 1970.
pub const FIRST_MS: u64 = 1_700_000_000_000;

const AVRO: &str = r#"{"type":"record","name":"Event","namespace":"bench","fields":[
  {"name":"id","type":"long"},{"name":"user_id","type":"long"},{"name":"type","type":"string"},
  {"name":"country","type":"string"},{"name":"amount","type":"double"},
  {"name":"timestamp","type":{"type":"long","logicalType":"timestamp-millis"}},
  {"name":"session","type":"string"},{"name":"ok","type":"boolean"},{"name":"note","type":["null","string"]}]}"#;

const PROTOBUF: &str = r#"syntax = "proto3";
package bench;
import "google/protobuf/timestamp.proto";
message Event {
  int64 id = 1;
  int64 user_id = 2;
  string type = 3;
  string country = 4;
  double amount = 5;
  google.protobuf.Timestamp timestamp = 6;
  string session = 7;
  bool ok = 8;
  optional string note = 9;
}
"#;

/// How events are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Avro,
    Protobuf,
}

impl Format {
    pub const ALL: [Format; 3] = [Format::Json, Format::Avro, Format::Protobuf];

    /// What a pipeline file calls it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Avro => "avro",
            Format::Protobuf => "protobuf",
        }
    }

    /// The schema of the events, for a registry; JSON has none.
    pub fn schema(self) -> Option<(SchemaLanguage, &'static str)> {
        match self {
            Format::Json => None,
            Format::Avro => Some((SchemaLanguage::Avro, AVRO)),
            Format::Protobuf => Some((SchemaLanguage::Protobuf, PROTOBUF)),
        }
    }
}

/// All events of a run.
#[derive(Debug, Clone, Copy)]
pub struct Events {
    pub format: Format,
    /// What the registry calls the schema: in front of every event that has one.
    pub schema_id: i32,
    /// How many they are.
    pub total: u64,
}

impl Events {
    /// Writes the `n`-th event behind what is in `out`: nine fields, at its place in the course of one day.
    pub fn write(&self, n: u64, out: &mut Vec<u8>) {
        match self.format {
            Format::Json => self.json(n, out),
            Format::Avro => self.avro(n, out),
            Format::Protobuf => self.protobuf(n, out),
        }
    }

    /// An object of [`JSON_BYTES`], filled up by its note.
    fn json(&self, n: u64, out: &mut Vec<u8>) {
        let Event {
            user_id,
            kind,
            country,
            cents,
            timestamp,
            mixed,
            ok,
        } = Event::new(n, self.total);
        let end = out.len() + JSON_BYTES;
        write!(
            out,
            r#"{{"id":{n},"user_id":{user_id},"type":"{kind}","country":"{country}","amount":{}.{:02},"timestamp":{timestamp},"session":"{mixed:016x}","ok":{ok},"note":""#,
            cents / CENTS,
            cents % CENTS,
        )
        .expect("a vector takes everything");
        note(mixed, end - 2 - out.len(), out);
        out.extend(b"\"}");
    }

    fn avro(&self, n: u64, out: &mut Vec<u8>) {
        let event = Event::new(n, self.total);
        out.push(0);
        out.extend(self.schema_id.to_be_bytes());
        let long = |out: &mut Vec<u8>, value: u64| varint(out, value << 1);
        let text = |out: &mut Vec<u8>, text: &[u8]| {
            long(out, text.len() as u64);
            out.extend_from_slice(text);
        };
        long(out, n);
        long(out, event.user_id);
        text(out, event.kind.as_bytes());
        text(out, event.country.as_bytes());
        out.extend(event.amount().to_le_bytes());
        long(out, event.timestamp);
        text(out, event.session().as_bytes());
        out.push(u8::from(event.ok));
        // The second type of the union.
        long(out, 1);
        let length = event.note_length(n);
        long(out, length as u64);
        note(event.mixed, length, out);
    }

    fn protobuf(&self, n: u64, out: &mut Vec<u8>) {
        let event = Event::new(n, self.total);
        out.push(0);
        out.extend(self.schema_id.to_be_bytes());
        // The file's first message.
        out.push(0);
        number(out, 1, n);
        number(out, 2, event.user_id);
        text(out, 3, event.kind.as_bytes());
        text(out, 4, event.country.as_bytes());
        if event.cents != 0 {
            out.push(5 << 3 | 1);
            out.extend(event.amount().to_le_bytes());
        }
        let mut timestamp = Vec::with_capacity(12);
        number(&mut timestamp, 1, event.timestamp / 1000);
        number(&mut timestamp, 2, event.timestamp % 1000 * 1_000_000);
        text(out, 6, &timestamp);
        text(out, 7, event.session().as_bytes());
        number(out, 8, u64::from(event.ok));
        let length = event.note_length(n);
        out.push(9 << 3 | 2);
        varint(out, length as u64);
        note(event.mixed, length, out);
    }
}

/// The `n`-th event's fields but its number and its note.
struct Event {
    user_id: u64,
    kind: &'static str,
    country: &'static str,
    cents: u64,
    /// Milliseconds since 1970, UTC.
    timestamp: u64,
    mixed: u64,
    ok: bool,
}

impl Event {
    fn new(n: u64, total: u64) -> Self {
        let mixed = mixed(n);
        Event {
            user_id: mixed % 1_000_000,
            kind: ["view", "click", "order", "search"][(mixed >> 8) as usize % 4],
            country: ["DE", "FR", "US", "JP", "BR", "IN", "GB", "CA"][(mixed % 8) as usize],
            cents: mixed % 50_000,
            timestamp: FIRST_MS + n * 86_400_000 / total,
            mixed,
            ok: mixed.is_multiple_of(3),
        }
    }

    fn amount(&self) -> f64 {
        self.cents as f64 / CENTS as f64
    }

    fn session(&self) -> String {
        format!("{:016x}", self.mixed)
    }

    /// As long as the note of the same event in JSON is, so that all formats hold the same.
    fn note_length(&self, n: u64) -> usize {
        let digits = |number: u64| number.checked_ilog10().unwrap_or_default() as usize + 1;
        // The names, the punctuation, the cents, the time, the session and the country are as long in every event.
        const FIXED: usize = r#"{"id":,"user_id":,"type":"","country":"DE","amount":.00,"timestamp":1700000000000,"session":"0123456789abcdef","ok":,"note":""}"#.len();
        let ok = if self.ok { "true" } else { "false" };
        let varying = digits(n) + digits(self.user_id) + self.kind.len() + digits(self.cents / CENTS) + ok.len();
        JSON_BYTES - FIXED - varying
    }
}

fn note(mixed: u64, length: usize, out: &mut Vec<u8>) {
    let mut filler = mixed;
    for _ in 0..length {
        out.push(b'a' + (filler % 26) as u8);
        filler = filler.rotate_right(5);
    }
}

/// A Protobuf field of an integer, unless it is 0: then it isn't written.
fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        out.push(field << 3);
        varint(out, value);
    }
}

/// A Protobuf field of a string or a message.
fn text(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What the columns of a table of all events come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub ids: u64,
    pub users: u64,
    pub cents: u64,
    /// Since the first event.
    pub milliseconds: u64,
    pub ok: u64,
    /// Characters of all notes.
    pub notes: u64,
    pub searches: u64,
    pub from_japan: u64,
}

/// Adds up all events.
pub fn sums(total: u64) -> Sums {
    let mut sums = Sums::default();
    for n in 0..total {
        let event = Event::new(n, total);
        sums.ids += n;
        sums.users += event.user_id;
        sums.cents += event.cents;
        sums.milliseconds += event.timestamp - FIRST_MS;
        sums.ok += u64::from(event.ok);
        sums.notes += event.note_length(n) as u64;
        sums.searches += u64::from(event.kind == "search");
        sums.from_japan += u64::from(event.country == "JP");
    }
    sums
}

fn mixed(n: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(31)
        .wrapping_mul(0xBF58_476D_1CE4_E5B9)
}
