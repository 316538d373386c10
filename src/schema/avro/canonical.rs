//! The canonical form of a schema, and the fingerprint of that.
//!
//! Source: Apache Avro 1.12 specification, "Parsing Canonical Form for Schemas" and "Schema Fingerprints".

use super::{Avro, AvroSchema, Named, NamedType};

/// The fingerprint of nothing, and the polynomial of CRC-64-AVRO.
const EMPTY: u64 = 0xc15d_213a_a4d7_a795;

/// Returns the CRC-64-AVRO fingerprint of a schema's canonical form.
pub fn fingerprint(schema: &AvroSchema) -> u64 {
    canonical(schema).bytes().fold(EMPTY, |hash, byte| {
        let mut low = (hash ^ u64::from(byte)) & 0xFF;
        for _ in 0..8 {
            low = (low >> 1) ^ (EMPTY & (low & 1).wrapping_neg());
        }
        (hash >> 8) ^ low
    })
}

/// Returns the canonical form of a schema.
pub fn canonical(schema: &AvroSchema) -> String {
    let mut out = String::new();
    write(schema, &schema.root, &mut vec![false; schema.named.len()], &mut out);
    out
}

fn write(schema: &AvroSchema, of: &Avro, written: &mut [bool], out: &mut String) {
    match of {
        Avro::Array(items) => {
            out.push_str("{\"type\":\"array\",\"items\":");
            write(schema, items, written, out);
            out.push('}');
        }
        Avro::Map(values) => {
            out.push_str("{\"type\":\"map\",\"values\":");
            write(schema, values, written, out);
            out.push('}');
        }
        Avro::Union(arms) => {
            out.push('[');
            for (at, arm) in arms.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                write(schema, arm, written, out);
            }
            out.push(']');
        }
        Avro::Named(index) => {
            let named = &schema.named[*index];
            if std::mem::replace(&mut written[*index], true) {
                out.push_str(&quoted(&named.name));
            } else {
                define(schema, named, written, out);
            }
        }
        primitive => out.push_str(&quoted(super::type_name(schema, primitive))),
    }
}

fn define(schema: &AvroSchema, named: &Named, written: &mut [bool], out: &mut String) {
    out.push_str(&format!("{{\"name\":{},\"type\":", quoted(&named.name)));
    match &named.of {
        NamedType::Record(fields) => {
            out.push_str("\"record\",\"fields\":[");
            for (at, field) in fields.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                out.push_str(&format!("{{\"name\":{},\"type\":", quoted(&field.name)));
                write(schema, &field.of, written, out);
                out.push('}');
            }
            out.push(']');
        }
        NamedType::Enum(symbols) => {
            let symbols: Vec<_> = symbols.iter().map(|symbol| quoted(symbol)).collect();
            out.push_str(&format!("\"enum\",\"symbols\":[{}]", symbols.join(",")));
        }
        NamedType::Fixed(size, _) => out.push_str(&format!("\"fixed\",\"size\":{size}")),
    }
    out.push('}');
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text is JSON")
}
