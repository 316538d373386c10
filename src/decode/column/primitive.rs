//! Values without values in them: JSON strings, numbers and booleans into the buffers of one kind.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use super::Store;
use crate::json::lexer::{Fault, Lexer, is_number};
use crate::json::scalar;

const BASE64_CONFIG: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, BASE64_CONFIG);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, BASE64_CONFIG);

impl Store {
    /// Appends the value at the position if it is of this kind, else returns `false`.
    #[inline]
    pub(super) fn scalar(&mut self, lexer: &mut Lexer<'_>, first: u8) -> Result<bool, Fault> {
        // Text first: most values of most topics.
        if let Store::Text { ends, bytes } = self {
            if first == b'"' {
                lexer.string()?.append_to(bytes);
            } else {
                let start = lexer.pos;
                lexer.skip()?;
                bytes.extend_from_slice(lexer.since(start));
            }
            ends.push(bytes.len() as i32);
            return Ok(true);
        }
        if first == b'"' {
            let text = lexer.string()?.bytes();
            return Ok(self.text(&text));
        }
        if let Store::Boolean(values) = self {
            let word = if first == b't' { "true" } else { "false" };
            if matches!(first, b't' | b'f') {
                lexer.word(word)?;
                values.push(first == b't');
            }
            return Ok(matches!(first, b't' | b'f'));
        }
        let Some(number) = lexer.number()? else {
            return Ok(false);
        };
        Ok(match self {
            Store::Int(values) => push(values, number.long().and_then(|value| i32::try_from(value).ok())),
            Store::Long(values) => push(values, number.long()),
            Store::Float(values) => push(
                values,
                number.text().parse().ok().filter(|value: &f32| value.is_finite()),
            ),
            Store::Double(values) => push(values, number.double()),
            Store::Decimal {
                values,
                precision,
                scale,
            } => {
                let value = scalar::decimal(number.text(), i64::from(*scale));
                push(
                    values,
                    value.filter(|value| value.unsigned_abs() < 10u128.pow(*precision)),
                )
            }
            // Epoch milliseconds, with a fraction down to the unit of the column.
            Store::Timestamp { values, nanos, .. } => {
                let value = scalar::decimal(number.text(), if *nanos { 6 } else { 3 });
                push(values, value.and_then(|value| i64::try_from(value).ok()))
            }
            _ => false,
        })
    }

    /// Appends a value given as text, in JSON or as a map's key, if the text is one of this kind.
    pub(super) fn text(&mut self, text: &[u8]) -> bool {
        match self {
            Store::Decimal {
                values,
                precision,
                scale,
            } if is_number(text) => {
                let text = std::str::from_utf8(text).expect("a number is ASCII");
                let value = scalar::decimal(text, i64::from(*scale));
                push(
                    values,
                    value.filter(|value| value.unsigned_abs() < 10u128.pow(*precision)),
                )
            }
            Store::Date(values) => push(values, scalar::date(text)),
            Store::Time(values) => {
                let micros = |(seconds, nanos)| seconds * 1_000_000 + i64::from(nanos / 1000);
                push(values, scalar::time(text).map(micros))
            }
            Store::Timestamp { values, zoned, nanos } => {
                let moment = scalar::moment(text).filter(|moment| moment.zoned == *zoned);
                let value = moment.and_then(|moment| {
                    let (unit, part) = if *nanos {
                        (1_000_000_000, moment.nanos)
                    } else {
                        (1_000_000, moment.nanos / 1000)
                    };
                    moment.seconds.checked_mul(unit)?.checked_add(i64::from(part))
                });
                push(values, value)
            }
            Store::Uuid(bytes) => match uuid::Uuid::try_parse_ascii(text) {
                Ok(uuid) => {
                    bytes.extend_from_slice(uuid.as_bytes());
                    true
                }
                Err(_) => false,
            },
            Store::Binary { ends, bytes } => {
                let fits = base64_into(text, bytes);
                if fits {
                    ends.push(bytes.len() as i64);
                }
                fits
            }
            Store::Fixed { width, bytes, scratch } => {
                scratch.clear();
                let fits = base64_into(text, scratch) && scratch.len() == *width;
                if fits {
                    bytes.extend_from_slice(scratch);
                }
                fits
            }
            Store::Text { ends, bytes } => {
                bytes.extend_from_slice(text);
                ends.push(bytes.len() as i32);
                true
            }
            _ => false,
        }
    }
}

#[inline]
fn push<T>(values: &mut Vec<T>, value: Option<T>) -> bool {
    let fits = value.is_some();
    values.extend(value);
    fits
}

fn base64_into(text: &[u8], bytes: &mut Vec<u8>) -> bool {
    let url = memchr::memchr2(b'-', b'_', text).is_some();
    (if url { BASE64_URL } else { BASE64 }).decode_vec(text, bytes).is_ok()
}
