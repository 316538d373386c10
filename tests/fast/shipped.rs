//! The files that the repository ships for others to use: pipeline files, the schema that completes them, the README.

use std::fs;
use std::path::{Path, PathBuf};

use aperio::schema::compatibility::Comparable;
use aperio::schema::{SchemaLanguage, SchemaText};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a directory with one of the endings, sorted; at least one.
fn files(directory: &str, endings: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(directory)).expect("the directory is there");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a directory is listed").path())
        .collect();
    files.retain(|file| endings.iter().any(|ending| file.to_string_lossy().ends_with(ending)));
    files.sort();
    assert!(!files.is_empty(), "{directory} holds no {endings:?}");
    files
}

/// Checks a pipeline file as a person would.
#[track_caller]
fn validate(file: &Path) {
    let pipelines = aperio::config::load(&[file.to_owned()]);
    let problems = pipelines.err().unwrap_or_default();
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_pipeline_file_is_right_and_names_the_schema_that_completes_it() {
    for file in files("pipelines", &[".yaml", ".yml"]) {
        validate(&file);
        let text = fs::read_to_string(&file).expect("a pipeline file is read");
        let first = text.lines().next().unwrap_or_default();
        let schema = first.strip_prefix("# yaml-language-server: $schema=");
        let schema = schema.unwrap_or_else(|| panic!("{} begins with `{first}`", file.display()));
        let schema = file.parent().expect("a directory").join(schema);
        assert!(schema.is_file(), "{} isn't there", schema.display());
    }
}

#[test]
fn the_schema_of_pipeline_files_is_the_programs_own() {
    let printed = serde_json::to_string_pretty(&aperio::config::json_schema()).expect("a schema serialises");
    let shipped = fs::read_to_string(root().join("schemas/pipeline.schema.json")).expect("it is there");
    assert!(
        shipped.trim_end() == printed,
        "schemas/pipeline.schema.json isn't what `aperio schema` prints: run `make schemas`"
    );
}

#[test]
fn every_schema_of_a_topic_is_one() {
    for file in files("schemas/sales", &[".avsc"]) {
        let text = SchemaText {
            language: SchemaLanguage::Avro,
            text: fs::read_to_string(&file).expect("a schema is read"),
            references: Vec::new(),
        };
        let schema = Comparable::parse(&text).expect("a schema");
        assert_eq!(schema.faults(), [""; 0]);
    }
}

#[test]
fn the_pipeline_files_of_the_readme_are_right() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md is there");
    let blocks = readme.split("```yaml\n").skip(1);
    let blocks: Vec<_> = blocks.filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
    let directory = tempfile::tempdir().expect("a directory");
    let secret = directory.path().join("secret");
    fs::write(&secret, "hunter2").expect("a file is written");
    let mut checked = 0;
    for (index, block) in blocks
        .iter()
        .enumerate()
        .filter(|(_, block)| block.contains("partitionedTables:"))
    {
        // A reader has these; whoever runs the tests doesn't.
        let block = block.replace("/run/secrets/kafka", &secret.to_string_lossy());
        let block = block.replace("${CATALOG_CREDENTIAL}", "${CATALOG_CREDENTIAL:-id:secret}");
        let file = directory.path().join(format!("block-{index}.yaml"));
        fs::write(&file, block).expect("a file is written");
        validate(&file);
        checked += 1;
    }
    assert!(checked >= 2, "the README shows pipeline files");
}
