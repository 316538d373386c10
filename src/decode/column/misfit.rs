//! Values that a column doesn't take: what is said of them, and which types would take them.

use iceberg::spec::{PrimitiveType, Type};

use super::super::problem::{Failed, Problem};
use super::Column;
use crate::config::types;
use crate::json::lexer::{Lexer, is_number};
use crate::json::scalar;
use crate::schema::infer::Shape;

/// Longest value that a reason quotes, in bytes.
const QUOTE_MAX: usize = 64;

impl Column {
    #[cold]
    pub(super) fn missing(&self) -> Failed {
        let what = "is required and has no value".to_owned();
        Box::new(Problem::Misfit {
            path: Vec::new(),
            what,
            fits: self.of.clone(),
            wider: None,
        })
    }

    #[cold]
    pub(super) fn misfit(&self, value: &[u8]) -> Failed {
        let mut quote = String::from_utf8_lossy(&value[..value.len().min(QUOTE_MAX)]).into_owned();
        if value.len() > QUOTE_MAX {
            quote.push('…');
        }
        let what = format!("is {}, the value {quote} is not", types::text(&self.of));
        Box::new(Problem::Misfit {
            path: Vec::new(),
            what,
            fits: fitting(&self.of, value),
            wider: wider(&self.of, value).map(Shape::Wider),
        })
    }
}

/// Returns the type that Iceberg lets `of` be widened to and that takes a value which `of` doesn't.
fn wider(of: &Type, value: &[u8]) -> Option<PrimitiveType> {
    let Type::Primitive(narrow) = of else { return None };
    let mut lexer = Lexer::new(value);
    match narrow {
        PrimitiveType::Int => lexer.number().ok()??.long().map(|_| PrimitiveType::Long),
        PrimitiveType::Float => lexer.number().ok()??.double().map(|_| PrimitiveType::Double),
        PrimitiveType::Decimal { scale, .. } => {
            let held;
            let text = if lexer.peek() == b'"' {
                held = lexer.string().ok()?.bytes();
                std::str::from_utf8(&held)
                    .ok()
                    .filter(|text| is_number(text.as_bytes()))?
            } else {
                lexer.number().ok()??.text()
            };
            let unscaled = scalar::decimal(text, i64::from(*scale))?.unsigned_abs();
            let precision = unscaled.checked_ilog10()? + 1;
            (precision <= 38).then_some(PrimitiveType::Decimal {
                precision,
                scale: *scale,
            })
        }
        _ => None,
    }
}

/// Returns the simplest type that takes a value which `of` doesn't.
fn fitting(of: &Type, value: &[u8]) -> Type {
    let string = PrimitiveType::String;
    let fits = match value.first() {
        Some(b't' | b'f') => PrimitiveType::Boolean,
        Some(b'"') => {
            let moment = Lexer::new(value)
                .string()
                .ok()
                .and_then(|text| scalar::moment(&text.bytes()));
            match (of, moment) {
                (Type::Primitive(PrimitiveType::Timestamp), Some(moment)) if moment.zoned => PrimitiveType::Timestamptz,
                (Type::Primitive(PrimitiveType::Timestamptz), Some(moment)) if !moment.zoned => {
                    PrimitiveType::Timestamp
                }
                _ => string,
            }
        }
        Some(b'-' | b'0'..=b'9') if !matches!(of, Type::Primitive(PrimitiveType::Decimal { .. })) => {
            match Lexer::new(value).number() {
                Ok(Some(number)) if number.long().is_some() => PrimitiveType::Long,
                Ok(Some(number)) if !number.fraction && !number.exponent => match scalar::decimal(number.text(), 0) {
                    Some(value) if value.unsigned_abs() < 10u128.pow(38) => PrimitiveType::Decimal {
                        precision: 38,
                        scale: 0,
                    },
                    _ => string,
                },
                Ok(Some(number)) if number.double().is_some() => PrimitiveType::Double,
                _ => string,
            }
        }
        _ => string,
    };
    Type::Primitive(fits)
}
