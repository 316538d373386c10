//! Types as people write them in `columns`: `long`, `decimal(10, 2)`, `struct<a: int, b: list<string>>`.

use std::sync::Arc;

use iceberg::spec::{ListType, MapType, NestedField, PrimitiveType, StructType, Type};

/// More nesting than any reader takes; keeps the recursion bounded.
const DEPTH_MAX: usize = 64;

/// Those that are written as one word.
pub(super) const PRIMITIVES: [&str; 12] = [
    "boolean",
    "int",
    "long",
    "float",
    "double",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "string",
    "uuid",
    "binary",
];

const NAMES: &str = "boolean, int, long, float, double, decimal(p, s), date, time, timestamp, timestamptz, string, uuid, \
                     binary, fixed(n), struct<name: type, …>, list<type>, map<type, type>";

/// Reads a type.
///
/// Field ids are provisional, from 1; all fields, items and map values are optional. A field name that isn't made of
/// letters, digits and `_` is written between backticks, a backtick inside doubled.
///
/// # Errors
/// What is wrong and at which character, from 1.
pub fn parse(text: &str) -> Result<Type, String> {
    let mut reader = Reader {
        text,
        at: 0,
        last_id: 0,
    };
    let parsed = reader.read(0)?;
    reader.space();
    if reader.at < text.len() {
        return Err(reader.problem("something follows the type"));
    }
    Ok(parsed)
}

/// Returns the text that [`parse`] reads as this type.
pub fn text(of: &Type) -> String {
    match of {
        Type::Primitive(PrimitiveType::Decimal { precision, scale }) => format!("decimal({precision}, {scale})"),
        Type::Primitive(PrimitiveType::Fixed(length)) => format!("fixed({length})"),
        Type::Primitive(primitive) => primitive.to_string(),
        Type::Struct(fields) => {
            let fields = fields
                .fields()
                .iter()
                .map(|field| format!("{}: {}", name(&field.name), text(&field.field_type)));
            format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
        }
        Type::List(list) => format!("list<{}>", text(&list.element_field.field_type)),
        Type::Map(map) => format!(
            "map<{}, {}>",
            text(&map.key_field.field_type),
            text(&map.value_field.field_type)
        ),
    }
}

/// Says whether Iceberg lets a column of type `narrow` become `wide`.
///
/// Source: Iceberg table spec, "Schema Evolution", the promotions of format version 2.
pub fn widens(narrow: &PrimitiveType, wide: &PrimitiveType) -> bool {
    match (narrow, wide) {
        (PrimitiveType::Int, PrimitiveType::Long) | (PrimitiveType::Float, PrimitiveType::Double) => true,
        (
            PrimitiveType::Decimal { precision, scale },
            PrimitiveType::Decimal {
                precision: wide_precision,
                scale: wide_scale,
            },
        ) => wide_precision > precision && wide_scale == scale,
        _ => false,
    }
}

/// Returns the line of `columns` that declares a column.
///
/// - `from`: the payload field it is read from, where that isn't its name.
pub fn column_line(name: &str, from: Option<&str>, of: &Type) -> String {
    let from = from.map(|from| format!(", from: {}", scalar(from)));
    let (name, of) = (scalar(name), scalar(&text(of)));
    format!("- {{name: {name}{}, type: {of}}}", from.unwrap_or_default())
}

/// Writes a text as a YAML scalar inside a flow mapping.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
        && text
            .chars()
            .all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '.' | '-'))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "null" | "true" | "false" | "yes" | "no" | "on" | "off"
        );
    if plain {
        text.to_owned()
    } else {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

fn name(name: &str) -> String {
    if !name.is_empty() && name.chars().all(plain) {
        name.to_owned()
    } else {
        format!("`{}`", name.replace('`', "``"))
    }
}

fn plain(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    last_id: i32,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn problem(&self, what: &str) -> String {
        format!(
            "{what} at character {} of `{}`",
            self.text[..self.at].chars().count() + 1,
            self.text
        )
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn take(&mut self, mark: char) -> Result<(), String> {
        self.space();
        if !self.rest().starts_with(mark) {
            return Err(self.problem(&format!("`{mark}` is missing")));
        }
        self.at += mark.len_utf8();
        Ok(())
    }

    fn word(&mut self) -> String {
        self.space();
        let end = self.rest().find(|letter| !plain(letter)).unwrap_or(self.rest().len());
        let word = self.rest()[..end].to_owned();
        self.at += end;
        word
    }

    fn number(&mut self, what: &str, from: u64, to: u64) -> Result<u64, String> {
        self.space();
        let start = self.at;
        let number = self.word().parse().ok().filter(|number| (from..=to).contains(number));
        number.ok_or_else(|| {
            self.at = start;
            self.problem(&format!("{what} from {from} to {to} is missing"))
        })
    }

    fn field_name(&mut self) -> Result<String, String> {
        self.space();
        if !self.rest().starts_with('`') {
            let word = self.word();
            return if word.is_empty() {
                Err(self.problem("a field name is missing"))
            } else {
                Ok(word)
            };
        }
        self.at += 1;
        let mut name = String::new();
        loop {
            let end = self
                .rest()
                .find('`')
                .ok_or_else(|| self.problem("a closing backtick is missing"))?;
            name.push_str(&self.rest()[..end]);
            self.at += end + 1;
            if !self.rest().starts_with('`') {
                return Ok(name);
            }
            name.push('`');
            self.at += 1;
        }
    }

    fn id(&mut self) -> i32 {
        self.last_id += 1;
        self.last_id
    }

    fn read(&mut self, depth: usize) -> Result<Type, String> {
        self.space();
        let start = self.at;
        if depth > DEPTH_MAX {
            return Err(self.problem("the type is nested too deep"));
        }
        let word = self.word();
        let primitive = match word.to_ascii_lowercase().as_str() {
            "boolean" => PrimitiveType::Boolean,
            "int" => PrimitiveType::Int,
            "long" => PrimitiveType::Long,
            "float" => PrimitiveType::Float,
            "double" => PrimitiveType::Double,
            "date" => PrimitiveType::Date,
            "time" => PrimitiveType::Time,
            "timestamp" => PrimitiveType::Timestamp,
            "timestamptz" => PrimitiveType::Timestamptz,
            "string" => PrimitiveType::String,
            "uuid" => PrimitiveType::Uuid,
            "binary" => PrimitiveType::Binary,
            "decimal" => self.decimal()?,
            "fixed" => {
                self.take('(')?;
                let length = self.number("a length", 1, i32::MAX as u64)?;
                self.take(')')?;
                PrimitiveType::Fixed(length)
            }
            "struct" => return self.fields(depth),
            "list" => {
                self.take('<')?;
                let id = self.id();
                let item = self.read(depth + 1)?;
                self.take('>')?;
                return Ok(Type::List(ListType::new(Arc::new(NestedField::list_element(
                    id, item, false,
                )))));
            }
            "map" => {
                self.take('<')?;
                let (key_id, value_id) = (self.id(), self.id());
                let key = self.read(depth + 1)?;
                self.take(',')?;
                let value = self.read(depth + 1)?;
                self.take('>')?;
                return Ok(Type::Map(MapType::optional(key_id, key, value_id, value)));
            }
            _ => {
                self.at = start;
                let what = if word.is_empty() {
                    "a type is missing".to_owned()
                } else {
                    format!("`{word}` is no type")
                };
                return Err(format!("{}; types are {NAMES}", self.problem(&what)));
            }
        };
        Ok(Type::Primitive(primitive))
    }

    fn decimal(&mut self) -> Result<PrimitiveType, String> {
        self.take('(')?;
        let precision = self.number("a precision", 1, 38)?;
        self.take(',')?;
        let scale = self.number("a scale", 0, precision)?;
        self.take(')')?;
        Ok(PrimitiveType::Decimal {
            precision: precision as u32,
            scale: scale as u32,
        })
    }

    fn fields(&mut self, depth: usize) -> Result<Type, String> {
        self.take('<')?;
        let mut fields: Vec<Arc<NestedField>> = Vec::new();
        loop {
            self.space();
            let start = self.at;
            let name = self.field_name()?;
            if fields
                .iter()
                .any(|field| field.name.to_lowercase() == name.to_lowercase())
            {
                self.at = start;
                return Err(self.problem(&format!("a second field `{name}`")));
            }
            self.take(':')?;
            let id = self.id();
            fields.push(Arc::new(NestedField::optional(id, name, self.read(depth + 1)?)));
            self.space();
            if self.rest().starts_with('>') {
                self.at += 1;
                return Ok(Type::Struct(StructType::new(fields)));
            }
            if !self.rest().starts_with(',') {
                return Err(self.problem("`,` or `>` is missing"));
            }
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_read_and_written_alike() {
        for (given, written) in [
            ("boolean", "boolean"),
            (" LONG ", "long"),
            ("decimal(10,2)", "decimal(10, 2)"),
            ("timestamptz", "timestamptz"),
            ("fixed( 16 )", "fixed(16)"),
            ("list<string>", "list<string>"),
            ("map<string,list<long>>", "map<string, list<long>>"),
            ("struct<a:int,b:struct<c:uuid>>", "struct<a: int, b: struct<c: uuid>>"),
            ("struct<`a b`: date, `c``d`: time>", "struct<`a b`: date, `c``d`: time>"),
        ] {
            let parsed = parse(given).expect(given);
            assert_eq!(text(&parsed), written);
            assert_eq!(parse(written).expect(written), parsed);
        }
        for primitive in [
            "int",
            "float",
            "double",
            "date",
            "time",
            "timestamp",
            "string",
            "uuid",
            "binary",
        ] {
            assert_eq!(text(&parse(primitive).expect(primitive)), primitive);
        }
    }

    #[test]
    fn types_are_widened_as_iceberg_allows() {
        use PrimitiveType as P;
        let decimal = |precision, scale| P::Decimal { precision, scale };
        for (narrow, wide, allowed) in [
            (P::Int, P::Long, true),
            (P::Float, P::Double, true),
            (decimal(9, 2), decimal(10, 2), true),
            (P::Int, P::Int, false),
            (P::Long, P::Int, false),
            (P::Int, P::Double, false),
            (P::Int, P::String, false),
            (decimal(9, 2), decimal(10, 3), false),
            (decimal(9, 2), decimal(8, 2), false),
            (P::Date, P::Timestamp, false),
        ] {
            assert_eq!(widens(&narrow, &wide), allowed, "{narrow} to {wide}");
        }
    }

    #[test]
    fn what_is_no_type_is_named_with_its_place() {
        for (given, said) in [
            ("", "a type is missing at character 1"),
            ("varchar", "`varchar` is no type at character 1"),
            ("decimal(39,2)", "a precision from 1 to 38 is missing at character 9"),
            ("decimal(4,5)", "a scale from 0 to 4 is missing at character 11"),
            ("list<string", "`>` is missing at character 12"),
            ("struct<>", "a field name is missing at character 8"),
            ("struct<a: int, A: int>", "a second field `A` at character 16"),
            ("struct<a int>", "`:` is missing at character 10"),
            ("long long", "something follows the type at character 6"),
            ("map<string>", "`,` is missing at character 11"),
        ] {
            let problem = parse(given).expect_err(given);
            assert!(problem.starts_with(said), "{given}: {problem}");
        }
        assert!(parse(&"list<".repeat(50_000)).expect_err("deep").contains("too deep"));
    }
}
