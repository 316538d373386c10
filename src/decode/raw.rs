//! Values that are one thing: text, or bytes. They go to the column `value`.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{Schema, SchemaRef};
use iceberg::spec::{PrimitiveType, Type};

use super::column::Column;
use super::problem::{Failed, Problem};
use super::{Decoded, Reject, Stage};
use crate::chunk::Chunk;
use crate::schema::{ColumnSource, RowPlanRef, VALUE};

/// Decodes values into the columns whose field is `value`: bytes as they are into binary columns, text as it is into string
/// columns, and into others the value that the text stands for.
#[derive(Debug)]
pub struct RawDecoder {
    arrow: SchemaRef,
    columns: Vec<(Column, Kind)>,
    /// Somebody asks for an event time that isn't in a column, and so nowhere.
    no_event_time: bool,
}

/// What a column takes of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing: its field isn't there.
    Absent,
    /// The bytes.
    Whole,
    /// What the text stands for.
    Parsed,
}

impl RawDecoder {
    /// Makes a decoder for the payload columns of a plan.
    ///
    /// - `event_time`: the path of the field that holds it.
    pub fn new(plan: &RowPlanRef, event_time: Option<&[String]>) -> Self {
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        for (at, (field, source)) in plan.schema.as_struct().fields().iter().zip(&plan.sources).enumerate() {
            if let ColumnSource::Payload(path) = source {
                let whole = matches!(
                    &*field.field_type,
                    Type::Primitive(PrimitiveType::String | PrimitiveType::Binary)
                );
                let kind = match (path.as_slice(), whole) {
                    ([name], true) if name.eq_ignore_ascii_case(VALUE) => Kind::Whole,
                    ([name], false) if name.eq_ignore_ascii_case(VALUE) => Kind::Parsed,
                    _ => Kind::Absent,
                };
                let mut column = Column::new(field);
                column.required |= plan.required.contains(&field.id);
                columns.push((column, kind));
                fields.push(plan.arrow.fields()[at].clone());
            }
        }
        RawDecoder {
            arrow: Arc::new(Schema::new(fields)),
            columns,
            no_event_time: event_time.is_some_and(|path| plan.payload_column(path).is_none()),
        }
    }

    /// Decodes one chunk; what isn't a row is a reject or filtered.
    pub fn decode(&mut self, chunk: &Chunk) -> Decoded {
        let mut pass = self.pass(chunk, false);
        // One check for all text of the chunk; where it fails, one for each record.
        if !self.columns.iter().all(|(column, _)| column.holds_utf8(0)) {
            self.columns.iter_mut().for_each(|(column, _)| column.truncate(0));
            pass = self.pass(chunk, true);
        }
        let (indexes, rejects, filtered) = pass;
        let columns = self.columns.iter_mut().zip(self.arrow.fields());
        let columns = columns
            .map(|((column, _), field)| column.finish(field.data_type()))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(indexes.len()));
        let rows = RecordBatch::try_new_with_options(self.arrow.clone(), columns, &options)
            .expect("all columns have one value per row, of the plan's types");
        Decoded {
            keys: None,
            event_ids: None,
            gone: 0,
            event_time: self.no_event_time.then(|| StringArray::new_null(indexes.len())),
            rows,
            indexes,
            rejects,
            filtered,
            unseen: None,
            unknown: Vec::new(),
            fields_dropped: 0,
        }
    }

    fn pass(&mut self, chunk: &Chunk, check_text: bool) -> (Vec<u32>, Vec<Reject>, u64) {
        let (mut indexes, mut rejects, mut filtered) = (Vec::with_capacity(chunk.len()), Vec::new(), 0);
        for index in 0..chunk.len() {
            if chunk.values.is_null(index) {
                filtered += 1;
                continue;
            }
            let row = indexes.len();
            match self.record(chunk.values.value(index), row, check_text) {
                Ok(()) => indexes.push(index as u32),
                Err(reason) => {
                    self.columns.iter_mut().for_each(|(column, _)| column.truncate(row));
                    rejects.push(Reject {
                        index: index as u32,
                        stage: Stage::Decode,
                        reason,
                    });
                }
            }
        }
        (indexes, rejects, filtered)
    }

    fn record(&mut self, value: &[u8], row: usize, check_text: bool) -> Result<(), String> {
        for (column, kind) in &mut self.columns {
            match kind {
                Kind::Absent => {
                    if let Err(failed) = column.push_missing() {
                        return Err(reason(column, failed));
                    }
                }
                Kind::Whole => column.push_bytes(value),
                Kind::Parsed => {
                    if let Err(failed) = column.push_spelt(value) {
                        return Err(reason(column, failed));
                    }
                }
            }
            if check_text && !column.holds_utf8(row) {
                return Err(format!("column `{}` is text, the value is no UTF-8", column.name));
            }
        }
        Ok(())
    }
}

fn reason(column: &Column, failed: Failed) -> String {
    match *failed {
        Problem::Misfit { what, .. } => format!("column `{}` {what}", column.name),
        Problem::Refused(why) => why,
        Problem::Fault(fault) => fault.what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, BinaryArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::config::{Column as Declared, types};
    use crate::offsets::{Offset, OffsetRange, Partition};
    use crate::schema::{UnknownFields, evolve};

    fn decode(columns: &[(&str, &str, bool)], values: &[Option<&[u8]>]) -> Decoded {
        let declared: Vec<_> = columns
            .iter()
            .map(|(name, of, required)| Declared {
                name: (*name).to_owned(),
                from: vec![if *name == "other" { "other" } else { "value" }.to_owned()],
                of: types::parse(of).expect(of),
                required: *required,
            })
            .collect();
        let fields = declared.iter().zip(1..);
        let fields =
            fields.map(|(column, id)| iceberg::spec::NestedField::optional(id, &column.name, column.of.clone()));
        let schema = Arc::new(evolve::create_schema(fields.collect(), &[], false));
        let plan = evolve::row_plan(schema, Some(&declared), &[], false, UnknownFields::Declared, false);
        let count = values.len() as i64;
        let chunk = Chunk {
            partition: Partition(0),
            range: OffsetRange::new(Offset::new(0), Offset::new(count)),
            offsets: (0..count).collect::<Int64Array>(),
            timestamps: (0..count).collect::<Int64Array>(),
            keys: BinaryArray::from(vec![None::<&[u8]>; values.len()]),
            values: values.iter().copied().collect(),
            headers: None,
        };
        RawDecoder::new(&Arc::new(plan), Some(&["value".to_owned()])).decode(&chunk)
    }

    fn reasons(decoded: &Decoded) -> Vec<&str> {
        decoded.rejects.iter().map(|reject| reject.reason.as_str()).collect()
    }

    #[test]
    fn text_is_checked_record_by_record() {
        let values: [Option<&[u8]>; 5] = [Some("é".as_bytes()), Some(&[0xC3]), Some(&[0xA9]), None, Some(b"")];
        let decoded = decode(&[("value", "string", false), ("raw", "binary", false)], &values);
        assert_eq!(decoded.indexes, [0, 4], "two halves of a letter are no letter");
        assert_eq!(decoded.rows.column(1).as_binary::<i64>().value(0), "é".as_bytes());
        let reason = "column `value` is text, the value is no UTF-8";
        assert_eq!((reasons(&decoded), decoded.filtered), (vec![reason, reason], 1));
        let bytes = decode(&[("value", "binary", false)], &values);
        assert_eq!((bytes.indexes.len(), bytes.rejects.len()), (4, 0));
        assert!(bytes.event_time.is_none(), "a column holds it");
    }

    #[test]
    fn declared_columns_take_what_the_text_stands_for() {
        let columns = [("n", "long", false), ("s", "string", false)];
        let decoded = decode(&columns, &[Some(b"-12"), Some(b"1.5"), Some(b"x"), Some(b"12 ")]);
        assert_eq!(decoded.rows.column(0).as_primitive::<Int64Type>().values(), &[-12]);
        assert_eq!(
            reasons(&decoded),
            ["1.5", "x", "12 "].map(|value| format!("column `n` is long, the value \"{value}\" is not"))
        );
        let decoded = decode(&[("other", "long", true)], &[Some(b"1")]);
        assert_eq!(reasons(&decoded), ["column `other` is required and has no value"]);
    }
}
