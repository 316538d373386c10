//! The rules of each language, both ways, and made-up schemas and values.

mod avro;
mod avro_values;
mod json_schema;
mod json_values;
mod protobuf;

use super::*;

fn text(language: SchemaLanguage, text: &str) -> SchemaText {
    SchemaText {
        language,
        text: text.to_owned(),
        references: Vec::new(),
    }
}

fn parsed(language: SchemaLanguage, schema: &str) -> Comparable {
    Comparable::parse(&text(language, schema)).expect(schema)
}

/// Why `reader` can't read what `writer` wrote: `path rule: reader / writer`.
fn told(language: SchemaLanguage, reader: &str, writer: &str) -> Vec<String> {
    let misfits = parsed(language, reader).misfits(&parsed(language, writer));
    let line = |misfit: Misfit| {
        let Misfit {
            path,
            rule,
            reader,
            writer,
        } = misfit;
        format!("{path} {}: {reader} / {writer}", rule.name())
    };
    misfits.expect("they can be compared").into_iter().map(line).collect()
}

/// Checks what keeps a new schema from reading an old one's values, and the other way round.
#[track_caller]
fn check(language: SchemaLanguage, old: &str, new: &str, backward: &[&str], forward: &[&str]) {
    assert_eq!(told(language, new, old), backward, "{new} reads {old}");
    assert_eq!(told(language, old, new), forward, "{old} reads {new}");
    assert_eq!(told(language, new, new), [""; 0], "{new} reads itself");
}

#[test]
fn modes_are_called_as_registries_call_them() {
    for mode in Mode::ALL {
        assert_eq!(Mode::named(&mode.name().to_uppercase()), Some(mode));
        assert_eq!(mode.transitive(), mode.name().ends_with("_transitive"));
    }
    assert_eq!(Mode::named("sideways"), None);
    let names = |mode: Mode| -> Vec<_> { mode.directions().iter().map(|of| of.name()).collect() };
    assert_eq!(names(Mode::None), [""; 0]);
    assert_eq!(names(Mode::BackwardTransitive), ["backward"]);
    assert_eq!(names(Mode::Forward), ["forward"]);
    assert_eq!(names(Mode::FullTransitive), ["backward", "forward"]);
}

#[test]
fn a_reason_is_told_from_the_side_of_the_new_schema() {
    let old = parsed(
        SchemaLanguage::Avro,
        r#"{"type":"record","name":"r","fields":[{"name":"a","type":"long"}]}"#,
    );
    let new = parsed(
        SchemaLanguage::Avro,
        r#"{"type":"record","name":"r","fields":[{"name":"b","type":"long"}]}"#,
    );
    let lines = |mode| -> Vec<String> {
        let broken = new.broken(&old, mode).expect("they can be compared");
        let line = |broken: &Broken| {
            let (path, advice) = (&broken.misfit.path, broken.misfit.rule.advice(broken.direction));
            format!("{path}: {}, before {}: {advice}", broken.new_side(), broken.old_side())
        };
        broken.iter().map(line).collect()
    };
    let backward = "$.b: `long` without a default, before no such field: give the field a default";
    let forward = "$.a: no such field, before `long` without a default: keep the field: readers with the old schema have no default for it";
    assert_eq!(lines(Mode::Backward), [backward]);
    assert_eq!(lines(Mode::Forward), [forward]);
    assert_eq!(lines(Mode::Full), [backward, forward]);
    assert_eq!(lines(Mode::None), [""; 0]);
}

#[test]
fn languages_do_not_mix() {
    let avro = parsed(SchemaLanguage::Avro, "\"long\"");
    let json = parsed(SchemaLanguage::Json, "{}");
    let misfits = avro.misfits(&json).expect("they can be compared");
    assert_eq!(misfits[0].rule, Rule::Language);
    assert_eq!(
        (misfits[0].reader.as_str(), misfits[0].writer.as_str()),
        ("Avro", "JSON Schema")
    );
}
