//! Builds a chunk's columns; every byte is copied once, from librdkafka's buffer into Arrow's.

use arrow::array::{BinaryBuilder, Int64Builder, ListBuilder, StringBuilder, StructBuilder};
use arrow::datatypes::{DataType, Field};

use crate::chunk::Chunk;
use crate::kafka::batch::Record;
use crate::offsets::{Offset, OffsetRange, Partition};

/// Counted for each record beside its key and value: 32 bytes in the columns, and what becomes of it before its count is
/// given back, a row of a dozen columns or a dead letter of some 300 bytes.
const RECORD_BYTES: usize = 256;

/// What a chunk's columns hold, to make the next ones as large at once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sizes {
    rows: usize,
    key_bytes: usize,
    value_bytes: usize,
}

/// The columns of a chunk that is being filled.
pub(crate) struct Columns {
    offsets: Int64Builder,
    timestamps: Int64Builder,
    keys: BinaryBuilder,
    values: BinaryBuilder,
    headers: Option<ListBuilder<StructBuilder>>,
    rows: usize,
    bytes: usize,
}

impl Columns {
    /// Makes empty columns with room for `sizes`.
    pub(crate) fn new(sizes: Sizes) -> Self {
        Columns {
            offsets: Int64Builder::with_capacity(sizes.rows),
            timestamps: Int64Builder::with_capacity(sizes.rows),
            keys: BinaryBuilder::with_capacity(sizes.rows, sizes.key_bytes),
            values: BinaryBuilder::with_capacity(sizes.rows, sizes.value_bytes),
            headers: None,
            rows: 0,
            bytes: 0,
        }
    }

    /// Returns about how much memory the columns hold.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns what the columns hold.
    pub(crate) fn sizes(&self) -> Sizes {
        Sizes {
            rows: self.rows,
            key_bytes: self.keys.values_slice().len(),
            value_bytes: self.values.values_slice().len(),
        }
    }

    /// Appends one record.
    pub(crate) fn push(&mut self, record: &Record<'_>) {
        let (key, value) = (record.key(), record.value());
        self.offsets.append_value(record.offset().get());
        self.timestamps.append_option(record.timestamp_ms());
        self.keys.append_option(key);
        self.values.append_option(value);
        self.bytes += RECORD_BYTES + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        self.push_headers(record);
        self.rows += 1;
    }

    /// The column appears with the first record that has a header; those before it have an empty list.
    fn push_headers(&mut self, record: &Record<'_>) {
        let mut headers = record.headers().peekable();
        if self.headers.is_none() && headers.peek().is_none() {
            return;
        }
        let rows = self.rows;
        let lists = self.headers.get_or_insert_with(|| {
            let mut lists = ListBuilder::new(header_builder());
            (0..rows).for_each(|_| lists.append(true));
            lists
        });
        for (name, value) in headers {
            self.bytes += name.len() + value.map_or(0, <[u8]>::len);
            let fields = lists.values();
            fields
                .field_builder::<StringBuilder>(0)
                .expect("field 0 is a string")
                .append_value(&name);
            fields
                .field_builder::<BinaryBuilder>(1)
                .expect("field 1 is binary")
                .append_option(value);
            fields.append(true);
        }
        lists.append(true);
    }

    /// Closes the columns; `range` must hold all their offsets.
    pub(crate) fn finish(mut self, partition: Partition, range: OffsetRange) -> Chunk {
        let offsets = self.offsets.finish();
        if let (Some(first), Some(last)) = (offsets.values().first(), offsets.values().last()) {
            assert!(
                range.contains(Offset::new(*first)) && range.contains(Offset::new(*last)),
                "records {first} to {last} of partition {partition} lie outside {range}"
            );
        }
        Chunk {
            partition,
            range,
            offsets,
            timestamps: self.timestamps.finish(),
            keys: self.keys.finish(),
            values: self.values.finish(),
            headers: self.headers.map(|mut lists| lists.finish()),
        }
    }
}

fn header_builder() -> StructBuilder {
    StructBuilder::new(
        vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", DataType::Binary, true),
        ],
        vec![Box::new(StringBuilder::new()), Box::new(BinaryBuilder::new())],
    )
}
