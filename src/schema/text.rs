//! A schema as its registry or its file has it: text, not yet understood.

/// The languages of schemas, by their names in a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaLanguage {
    /// `AVRO`, files `.avsc`.
    Avro,
    /// `PROTOBUF`, files `.proto`.
    Protobuf,
    /// `JSON`, files `.json`.
    Json,
}

impl SchemaLanguage {
    /// Returns the language's name in a registry's answers.
    pub fn name(self) -> &'static str {
        match self {
            SchemaLanguage::Avro => "AVRO",
            SchemaLanguage::Protobuf => "PROTOBUF",
            SchemaLanguage::Json => "JSON",
        }
    }
}

/// A schema's text, with the schemas that it refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaText {
    /// What it is written in.
    pub language: SchemaLanguage,
    /// The schema.
    pub text: String,
    /// What it refers to, at any remove, each once; a schema comes behind those that it refers to itself.
    pub references: Vec<Reference>,
}

/// A schema that another one refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The name that it is referred to by: a type's full name in Avro, an import's path in Protobuf, a `$ref` in JSON Schema.
    pub name: String,
    /// The schema.
    pub text: String,
}
