//! Values of a registry: the message indexes behind the id say which message it is.

use arrow::array::{BinaryArray, Int64Array};

use super::bytes::{text, varint};
use super::*;
use crate::chunk::Chunk;
use crate::decode::framed::{FramedDecoder, Framing, fits};
use crate::offsets::{Offset, OffsetRange, Partition};
use crate::schema::frame::SchemaKey;
use crate::schema::{Missing, WriterSchema, Writers};

fn chunk(values: &[Option<Vec<u8>>]) -> Chunk {
    let n = values.len() as i64;
    Chunk {
        partition: Partition(0),
        range: OffsetRange::new(Offset::new(0), Offset::new(n)),
        offsets: Int64Array::from_iter_values(0..n),
        timestamps: Int64Array::from(vec![None; values.len()]),
        keys: BinaryArray::from(vec![None; values.len()]),
        values: BinaryArray::from_iter(values.iter().map(Option::as_deref)),
        headers: None,
    }
}

fn framed(indexes: &[u8], record: &[Vec<u8>]) -> Option<Vec<u8>> {
    Some([&[0, 0, 0, 0, 7], indexes, &record.concat()].concat())
}

#[test]
fn message_indexes_choose_the_message() {
    let text_of = SchemaText {
        language: SchemaLanguage::Protobuf,
        text: "syntax = \"proto3\"; message A { int32 a = 1; string s = 2; } message B { message C { int64 a = 5; } }"
            .to_owned(),
        references: Vec::new(),
    };
    let mut writers = Writers::default();
    for message in [vec![0], vec![1, 0]] {
        let key = SchemaKey {
            message,
            ..SchemaKey::id(7)
        };
        let writer = WriterSchema::parse(&key, &text_of).expect("a message");
        writers.add(key, Arc::new(writer));
    }
    let columns = ["a", "s"]
        .into_iter()
        .zip(["long", "string"])
        .map(|(name, of)| iceberg::spec::NestedField::optional(0, name, crate::config::types::parse(of).expect(of)));
    let table = Arc::new(create_schema(columns.collect(), &[], false));
    let plan = Arc::new(row_plan(table, None, &[], false, UnknownFields::Evolve, false));
    for (_, writer) in writers.all() {
        assert_eq!(fits(writer, &writers, &plan), Ok(()));
    }
    let mut decoder = FramedDecoder::new(plan, Arc::new(writers), Framing::Registry { indexes: true }, None);
    let values = [
        framed(&[0], &[varint(1, 5), text(2, "x")]),
        framed(&[4, 2, 0], &[varint(5, 6)]),
        None,
        // The first message, written out.
        framed(&[2, 0], &[text(2, "y")]),
        framed(&[2, 2], &[]),
        framed(&[0], &[super::bytes::bytes(2, &[0xFF])]),
        framed(&[0], &[]),
        Some(vec![8, 1]),
    ];
    for _ in 0..2 {
        let decoded = decoder.decode(&chunk(&values), &Missing::default());
        let rows = decoded.rows.columns();
        let row = |at| format!("{} {}", Cell::new(&rows[0], at), Cell::new(&rows[1], at));
        let shown: Vec<_> = (0..decoded.rows.num_rows()).map(row).collect();
        assert_eq!(shown, ["5 \"x\"", "6 null", "0 \"y\"", "0 \"\""]);
        assert_eq!((decoded.indexes, decoded.filtered), (vec![0, 1, 3, 6], 1));
        let rejects: Vec<_> = decoded
            .rejects
            .iter()
            .map(|reject| (reject.index, reject.reason.as_str()))
            .collect();
        assert_eq!(
            rejects,
            [
                (4, "schema 7, message [1] isn't known"),
                (5, "column `s` is text, the value in it is no UTF-8"),
                (
                    7,
                    "the value begins with byte 0x08, where a 0 byte and the id of its schema begin a framed one"
                ),
            ]
        );
        assert_eq!(decoded.unknown.len(), 1);
    }
}
