//! One field out of a JSON record, for what no column of the table holds.

use std::borrow::Cow;

use crate::json::lexer::Lexer;

/// A field's value, as far as a time can be read from it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FieldValue<'a> {
    /// A string's UTF-8 bytes.
    Text(Cow<'a, [u8]>),
    /// A number as written.
    Number(&'a str),
    /// Anything else but null.
    Other,
}

impl FieldValue<'_> {
    /// Returns it as the text that a time is read from.
    pub fn into_text(self) -> String {
        match self {
            FieldValue::Text(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            FieldValue::Number(number) => number.to_owned(),
            FieldValue::Other => "neither text nor a number".to_owned(),
        }
    }
}

/// Returns the value at `path` in a record that was decoded without fault; `None` for null and where there is none.
///
/// Names match whatever the case of their ASCII letters; of equal names the last counts.
pub(crate) fn field<'a>(json: &'a [u8], path: &[String]) -> Option<FieldValue<'a>> {
    let mut lexer = Lexer::new(json);
    lexer.space();
    for name in path {
        if lexer.peek() != b'{' {
            return None;
        }
        let mut found = None;
        let mut more = lexer.open(b'}');
        while more {
            if lexer.key().ok()?.bytes().eq_ignore_ascii_case(name.as_bytes()) {
                found = Some(lexer.pos);
            }
            lexer.skip().ok()?;
            more = lexer.more(b'}').ok()?;
        }
        lexer.pos = found?;
    }
    match lexer.peek() {
        b'"' => Some(FieldValue::Text(lexer.string().ok()?.bytes())),
        b'n' => None,
        _ => Some(match lexer.number().ok()? {
            Some(number) => FieldValue::Number(number.text()),
            None => FieldValue::Other,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_path() {
        let check = |json: &str, expect: Option<FieldValue<'_>>| {
            let path = ["a".to_owned(), "b".to_owned()];
            assert_eq!(field(json.as_bytes(), &path), expect, "{json}");
        };
        check(r#"{"x":[{}],"a":{"c":"}","b":1.5}}"#, Some(FieldValue::Number("1.5")));
        check(r#"{"A":{"B":"\u0031"}}"#, Some(FieldValue::Text(b"1".into())));
        check(r#" {"a":{"b":1},"a":{"b":2,"b":3}}"#, Some(FieldValue::Number("3")));
        check(r#"{"a":{"b":[1]}}"#, Some(FieldValue::Other));
        check(r#"{"a":{"b":null}}"#, None);
        check(r#"{"a":{"b":1},"a":{}}"#, None);
        check(r#"{"a":1}"#, None);
        check("{}", None);
        check("\u{feff}{\"a\":{\"b\":true}}", Some(FieldValue::Other));
    }
}
