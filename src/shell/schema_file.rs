//! The schema in `schemaFile`, and for Protobuf the files that it imports.

use std::path::Path;

use crate::config::{Pipeline, ValueFormat};
use crate::error::{Exit, Failure};
use crate::schema::{Reference, SchemaLanguage, SchemaText, WriterSchema, protobuf};

/// The most files that are imported, those of files that are imported included.
const IMPORTS_MAX: usize = 1000;

/// The language that schemas of a format are written in.
pub(crate) fn language(format: ValueFormat) -> SchemaLanguage {
    match format {
        ValueFormat::Avro => SchemaLanguage::Avro,
        ValueFormat::Protobuf => SchemaLanguage::Protobuf,
        ValueFormat::Json | ValueFormat::MessagePack | ValueFormat::String | ValueFormat::Bytes => SchemaLanguage::Json,
    }
}

/// Reads the schema in `schemaFile`, if there is one, and understands it.
///
/// # Errors
/// Exit code 2 if it can't be read, or is no schema.
pub(crate) fn schema_file(pipeline: &Pipeline) -> Result<Option<SchemaText>, Failure> {
    let Some(path) = &pipeline.source.schema_file else {
        return Ok(None);
    };
    let refused = |why: String| unusable_file(pipeline, why);
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    let text = SchemaText {
        language: language(pipeline.source.format),
        references: match language(pipeline.source.format) {
            SchemaLanguage::Protobuf => imported(Path::new(path), &text),
            SchemaLanguage::Avro | SchemaLanguage::Json => Vec::new(),
        },
        text,
    };
    WriterSchema::parse_named(&text, pipeline.source.message_type.as_deref()).map_err(refused)?;
    Ok(Some(text))
}

/// Tells that a schema file can't be used: exit code 2.
pub(crate) fn unusable_file(pipeline: &Pipeline, why: String) -> Failure {
    let path = pipeline.source.schema_file.as_deref().unwrap_or_default();
    Failure::new(Exit::Config, format!("the schema in `{path}` can't be used"))
        .detail(why)
        .hint("look at `source.schemaFile` in the pipeline file")
}

/// Reads the files that a `.proto` file imports, each after those that it imports itself.
///
/// A path in an import begins at a directory that only the producer's build knows: the file's own is tried, and those around
/// it. One that isn't found is told of by whoever understands the schema, who knows some that lie nowhere.
fn imported(path: &Path, text: &str) -> Vec<Reference> {
    fn collect(directory: &Path, text: &str, found: &mut Vec<Reference>, seen: &mut Vec<String>) {
        for name in protobuf::imported_paths(text) {
            if seen.contains(&name) || seen.len() >= IMPORTS_MAX {
                continue;
            }
            seen.push(name.clone());
            let texts = directory
                .ancestors()
                .map(|directory| std::fs::read_to_string(directory.join(&name)));
            let Some(text) = texts.filter_map(Result::ok).next() else {
                continue;
            };
            collect(directory, &text, found, seen);
            found.push(Reference { name, text });
        }
    }
    let mut found = Vec::new();
    let directory = path.parent().unwrap_or(Path::new(""));
    collect(directory, text, &mut found, &mut Vec::new());
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::protobuf::Message;

    #[test]
    fn imports_are_looked_for_around_the_file() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, format!("syntax = \"proto3\"; {text}")).expect("written");
        };
        write(
            "shop/v1/order.proto",
            "import \"shop/v1/line.proto\"; import \"google/protobuf/any.proto\"; message Order { Line line = 1; }",
        );
        write(
            "shop/v1/line.proto",
            "import \"unit.proto\"; message Line { Unit unit = 1; }",
        );
        write(
            "shop/v1/unit.proto",
            "import \"shop/v1/order.proto\"; enum Unit { PIECE = 0; }",
        );
        let path = root.path().join("shop/v1/order.proto");
        let text = std::fs::read_to_string(&path).expect("read");
        let names = |found: &[Reference]| found.iter().map(|found| found.name.clone()).collect::<Vec<_>>();
        let found = imported(&path, &text);
        assert_eq!(
            names(&found),
            ["shop/v1/order.proto", "unit.proto", "shop/v1/line.proto"],
            "also in a ring"
        );
        write("shop/v1/unit.proto", "enum Unit { PIECE = 0; }");
        let schema = SchemaText {
            language: SchemaLanguage::Protobuf,
            references: imported(&path, &text),
            text,
        };
        let parsed = protobuf::parse(&schema, Message::Named(Some("Order"))).expect("all files are there");
        assert_eq!(protobuf::natural(&parsed).expect("columns").len(), 1);
    }
}
