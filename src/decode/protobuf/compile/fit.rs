//! Which columns take values of which kind.

use iceberg::spec::{PrimitiveType, Type};

use super::super::fill::{Fill, Symbols, wire};
use super::super::message::MessageFill;
use super::Compiler;
use crate::schema::protobuf::{self, DURATION_PRECISION, DURATION_SCALE, Kind, Known, Number};

impl Compiler<'_> {
    pub(super) fn fitting(&mut self, path: &str, of: Kind, newest: Option<Kind>, column: &Type) -> Option<Fill> {
        match (of, column) {
            (Kind::Message(index), column) => {
                let newest = match newest {
                    Some(Kind::Message(newest)) => Some(newest),
                    _ => None,
                };
                let fill = self.message(path, index, newest, column)?;
                Some(Fill::Message(Box::new(fill)))
            }
            (of, Type::Primitive(column)) => self.primitive(of, column),
            _ => None,
        }
    }

    fn message(&mut self, path: &str, index: usize, newest: Option<usize>, column: &Type) -> Option<MessageFill> {
        let schema = self.writer;
        let message = &schema.messages[index];
        let primitive = match column {
            Type::Primitive(column) => column,
            // What stands for something is its fields by the user's wish only.
            Type::Struct(columns) if message.known.is_none() || self.declared => {
                return Some(MessageFill::Struct(self.group(path, index, newest, columns.fields())));
            }
            _ => return None,
        };
        if let Some(known) = message.known
            && let Some(fill) = self.known(path, index, known, primitive)
        {
            return Some(fill);
        }
        let text = match message.known {
            None => protobuf::as_text(message, index, &self.inside),
            Some(known) => matches!(
                known,
                Known::Struct
                    | Known::ListValue
                    | Known::Value
                    | Known::Any
                    | Known::FieldMask
                    | Known::UnscaledDecimal
            ),
        };
        (*primitive == PrimitiveType::String && (text || self.declared)).then_some(MessageFill::Text(index))
    }

    fn known(&mut self, path: &str, index: usize, known: Known, column: &PrimitiveType) -> Option<MessageFill> {
        use PrimitiveType as P;
        Some(match (known, column) {
            (Known::Timestamp, P::Timestamptz) => MessageFill::Timestamp { nanos: false },
            (Known::Timestamp, P::TimestamptzNs) => MessageFill::Timestamp { nanos: true },
            (Known::Duration, P::Decimal { precision, scale }) => {
                let whole = DURATION_PRECISION - DURATION_SCALE;
                if !self.declared && (*scale < DURATION_SCALE || precision - scale < whole) {
                    return None;
                }
                MessageFill::Duration {
                    times: power(scale.saturating_sub(DURATION_SCALE))?,
                    by: power(DURATION_SCALE.saturating_sub(*scale))?,
                }
            }
            (Known::Duration, P::Double) if self.declared => MessageFill::DurationToDouble,
            (Known::Date, P::Date) => MessageFill::Date,
            (Known::TimeOfDay, P::Time) => MessageFill::TimeOfDay,
            (Known::UnscaledDecimal, P::Decimal { scale, .. }) if self.declared => MessageFill::UnscaledDecimal(*scale),
            (Known::Wrapper | Known::Decimal, column) => {
                let message = &self.writer.messages[index];
                let kind = message.fields.first().and_then(|field| field.shape.kind())?;
                MessageFill::Wrapper {
                    value: self.fitting(path, kind, None, &Type::Primitive(column.clone()))?,
                    kind,
                    wire: wire(kind),
                }
            }
            _ => return None,
        })
    }

    fn primitive(&mut self, of: Kind, column: &PrimitiveType) -> Option<Fill> {
        use PrimitiveType as P;
        let declared = self.declared;
        Some(match (of, column) {
            (Kind::Bool, P::Boolean) => Fill::Bool,
            (Kind::Number(of @ (Number::Int32 | Number::Sint32 | Number::Sfixed32)), P::Int) => Fill::Int(of),
            (Kind::Number(of), P::Int) if declared => Fill::Int(of),
            (Kind::Number(of), P::Long) if declared || of.digits() < 20 => Fill::Long(of),
            (Kind::Number(of), P::Float) => Fill::ToFloat(of),
            (Kind::Number(of), P::Double) => Fill::ToDouble(of),
            (Kind::Number(of), P::Decimal { precision, scale }) if declared || precision - scale >= of.digits() => {
                Fill::Decimal(of, power(*scale)?)
            }
            // Epoch milliseconds, as of a number in JSON.
            (Kind::Number(of), P::Timestamp | P::Timestamptz) if declared => Fill::Millis(of),
            (Kind::Float, P::Float) => Fill::Float,
            (Kind::Float, P::Double) => Fill::FloatToDouble,
            (Kind::Double, P::Double) => Fill::Double,
            (Kind::Double, P::Float) if declared => Fill::DoubleToFloat,
            (Kind::String | Kind::Bytes, P::String | P::Binary) => Fill::Bytes,
            (Kind::String, P::Uuid | P::Date | P::Time | P::Timestamp | P::Timestamptz | P::Decimal { .. })
                if declared =>
            {
                Fill::Parsed
            }
            (Kind::Bytes, P::Uuid) if declared => Fill::Sized(16),
            (Kind::Bytes, P::Fixed(width)) if declared => Fill::Sized(usize::try_from(*width).ok()?),
            (Kind::Enum(index), P::String) => Fill::Enum(Symbols::new(&self.writer.enums[index].values)),
            // Its number, which is written as that of an int32: a field may change from one to the other.
            (Kind::Enum(_), P::Int) => Fill::Int(Number::Int32),
            (Kind::Enum(_), P::Long) => Fill::Long(Number::Int32),
            (Kind::Bool | Kind::Number(_) | Kind::Float | Kind::Double, P::String) if declared => Fill::Text(of),
            _ => return None,
        })
    }
}

fn power(scale: u32) -> Option<i128> {
    10i128.checked_pow(scale)
}
