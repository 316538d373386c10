//! The schemas that records are written with: got from a registry or a file, understood, and followed by the table.

use std::collections::BTreeSet;
use std::sync::Arc;

use iceberg::spec::{FormatVersion, NestedField};
use tracing::{info, warn};

use crate::config::{
    Apply, Evolution, IncompatibleSchema, KafkaSource, KeyFormat, MissingSchema, SubjectNaming, ValueFormat,
};
use crate::decode::framed;
use crate::error::{Exit, Failure, chain};
use crate::kafka::admin::SampleRecord;
use crate::line::Given;
use crate::registry::RegistryError;
use crate::schema::frame::{self, Part, SchemaKey, SchemaName};
use crate::schema::json_schema::Check;
use crate::schema::{KEY, Missing, SchemaLanguage, SchemaText, WriterSchema, Writers, evolve, follow};
use crate::shell::open::{World, patiently, registry_failure};
use crate::shell::schema_file::language;
use crate::shell::tables::TableForm;

/// What became of asking for one schema.
enum Asked {
    Known(Arc<WriterSchema>),
    /// Nobody has it, or nobody can make sense of it: why.
    Missing(String),
}

impl World {
    /// Gets schemas that records name, and makes the table take their records.
    ///
    /// - returns how the line goes on, and the form of the table.
    ///
    /// # Errors
    /// Exit code 3 where a schema is missing, doesn't fit the table, or may not change it; 4 where the registry is away for
    /// longer than `--retry-for`.
    pub async fn learn(&self, keys: &[SchemaKey]) -> Result<(Given, TableForm), Failure> {
        let mut missing = Missing::new();
        let mut found = Vec::new();
        for key in keys {
            if let Some(writer) = self.writers(key.part).get_ahead(key) {
                // Another line asked just before, or the subject was asked for its newest.
                found.push((key.clone(), writer.clone()));
                continue;
            }
            match self.ask_schema(key).await? {
                Asked::Known(writer) => found.push((key.clone(), writer)),
                Asked::Missing(why) => drop(missing.insert(key.clone(), why)),
            }
        }
        self.add_writers(&found, Writers::add_ahead);
        let writers = |part| self.writers(part);
        let found: Vec<_> = found.iter().map(|(key, writer)| (key, writer.clone())).collect();
        // A field that the table lacks may be one that a newer schema calls otherwise.
        let newest =
            |(key, writer): &&(&SchemaKey, Arc<WriterSchema>)| writers(key.part).newest_of(writer) == Some(&**writer);
        let newest: Vec<_> = found.iter().filter(newest).cloned().collect();
        if self.adds_columns(&newest).await? {
            self.learn_newest(&newest).await;
        }
        let table = self.follow(&found).await?;
        let followed: Vec<_> = found
            .iter()
            .map(|(key, writer)| ((*key).clone(), writer.clone()))
            .collect();
        self.add_writers(&followed, Writers::add);
        let plan = self.line_plan(&table)?;
        for (key, writer) in &found {
            let fits = match key.part {
                Part::Value => framed::fits(writer, &plan.writers, &plan.rows),
                Part::Key => framed::fits(writer, &plan.key_writers, &Arc::new(evolve::key_plan(&plan.rows, KEY))),
            };
            if let Err(differences) = fits {
                self.incompatible(key, &differences)?;
            }
        }
        let form = TableForm::of(&table);
        let given = Given { plan, missing };
        Ok((given, form))
    }

    /// The columns of a new table for a part of the records, from the schemas that samples name; without samples from the
    /// newest of the subject.
    ///
    /// - returns `None` where there is nothing to go by.
    pub async fn schema_columns(
        &self,
        part: Part,
        samples: &[SampleRecord],
    ) -> Result<Option<Vec<NestedField>>, Failure> {
        let form = self.form(part, self.pipeline.materialize.format_version >= 3);
        let mut keys: BTreeSet<SchemaKey> = BTreeSet::new();
        match (part, &self.pipeline.source.registry) {
            (Part::Value, None) => drop(self.schema_file.is_some() && keys.insert(SchemaKey::file())),
            (Part::Key, None) => {}
            (_, Some(_)) => {
                let indexes = self.format_of(part) == ValueFormat::Protobuf;
                keys.extend(samples.iter().filter_map(|sample| named_by(sample, part, indexes)));
            }
        }
        let mut found = Vec::new();
        for key in &keys {
            // What is missing is told of when its first record is decoded.
            if let Asked::Known(writer) = self.ask_schema(key).await? {
                found.push((key.clone(), writer));
            }
        }
        if found.is_empty()
            && let Some((key, writer)) = self.newest_of_subject(part, None).await?
        {
            found.push((key, writer));
        }
        // Ahead of the table, which may be made by somebody else in this moment.
        self.add_writers(&found, Writers::add_ahead);
        let fields = follow::merged(&self.writers(part), form);
        info!(table = %self.ident, schemas = found.len(), fields = fields.len(), "columns from schemas");
        Ok((!fields.is_empty()).then_some(fields))
    }

    /// Changes the table so that it takes records of these schemas, as far as it may be changed.
    async fn follow(&self, found: &[(&SchemaKey, Arc<WriterSchema>)]) -> Result<crate::catalog::LoadedTable, Failure> {
        let evolution = self.pipeline.materialize.evolution;
        let declared = self.pipeline.columns.is_some();
        self.change_schema(None, |table| {
            let fixed = evolve::fixed(table.partition_specs_iter().map(AsRef::as_ref));
            let nanos = table.format_version() >= FormatVersion::V3;
            let before = table.current_schema();
            let (mut schema, mut last_id) = ((**before).clone(), table.last_column_id());
            for (key, writer) in found {
                // A column for keys that isn't there yet is none that anybody declared, or wants to be left out.
                let keyless = key.part == Part::Key && schema.field_by_name_case_insensitive(KEY).is_none();
                if (declared || evolution == Evolution::Ignore) && !keyless {
                    continue;
                }
                let (writers, form) = (self.writers(key.part), self.form(key.part, nanos));
                let changed = follow::follow(&schema, last_id, &fixed, writer, &writers, form)
                    .map_err(|why| self.unusable(key, &why))?;
                if let Some(changed) = changed {
                    last_id = last_id.max(changed.highest_field_id());
                    schema = changed;
                }
            }
            if schema == **before {
                return Ok(None);
            }
            match evolution == Evolution::Strict {
                true => Err(self.strict(&evolve::changed_lines(before, &schema))),
                false => Ok(Some(schema)),
            }
        })
        .await
    }

    /// Says whether the table would get new columns for these schemas.
    async fn adds_columns(&self, found: &[(&SchemaKey, Arc<WriterSchema>)]) -> Result<bool, Failure> {
        if found.is_empty() || self.pipeline.columns.is_some() || self.pipeline.source.registry.is_none() {
            return Ok(false);
        }
        let Some(table) = self.load().await? else {
            return Ok(false);
        };
        let (schema, last_id) = (table.metadata.current_schema(), table.metadata.last_column_id());
        let nanos = table.metadata.format_version() >= FormatVersion::V3;
        let changed = |key: &SchemaKey, writer: &WriterSchema| {
            let (writers, form) = (self.writers(key.part), self.form(key.part, nanos));
            let fixed = std::collections::HashSet::new();
            let changed = follow::follow(schema, last_id, &fixed, writer, &writers, form)
                .ok()
                .flatten();
            changed.is_some_and(|changed| changed.highest_field_id() > last_id)
        };
        Ok(found.iter().any(|(key, writer)| changed(key, writer)))
    }

    /// Gets the newest schemas of the subjects that these are of.
    async fn learn_newest(&self, found: &[(&SchemaKey, Arc<WriterSchema>)]) {
        let mut asked = BTreeSet::new();
        for (key, writer) in found {
            let Some(subject) = subject(&self.pipeline.source, key.part, writer.name()) else {
                continue;
            };
            if !asked.insert(subject) {
                continue;
            }
            match self.newest_of_subject(key.part, writer.name()).await {
                Ok(Some(newest)) => self.add_writers(&[newest], Writers::add_ahead),
                Ok(None) => {}
                Err(failure) => warn!(table = %self.ident, error = failure.what, "the newest schema isn't looked at"),
            }
        }
    }

    /// Returns the newest schema of the topic's subject; `None` where there is no such subject, or none can be named.
    ///
    /// - `record`: the full name of the record, which some subjects are named by.
    async fn newest_of_subject(
        &self,
        part: Part,
        record: Option<&str>,
    ) -> Result<Option<(SchemaKey, Arc<WriterSchema>)>, Failure> {
        let (Some(registry), Some(subject)) = (&self.registry, subject(&self.pipeline.source, part, record)) else {
            return Ok(None);
        };
        let asked = patiently(self.retry_for, RegistryError::retryable, || registry.latest(&subject)).await;
        let newest = match asked {
            Ok(newest) => newest,
            Err(RegistryError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(registry_failure(&error)),
        };
        let mut key = SchemaKey::id(newest.id).of(part);
        if newest.schema.language == SchemaLanguage::Protobuf {
            // Which of its messages the records are, only they say: most are the first.
            key.message = vec![0];
        }
        let checked = self.checked(&key, &newest.schema);
        match checked.and_then(|writer| self.of_rows(part, writer)) {
            Ok(writer) => Ok(Some((key, Arc::new(writer)))),
            Err(why) => {
                warn!(table = %self.ident, subject, error = why, "the newest schema can't be used");
                Ok(None)
            }
        }
    }

    /// Understands a schema, also as what values are validated against, if they are.
    fn checked(&self, key: &SchemaKey, text: &SchemaText) -> Result<WriterSchema, String> {
        let writer = WriterSchema::parse(key, text)?;
        if self.pipeline.source.validate && key.part == Part::Value {
            self.add_check(key.clone(), Check::new(text)?);
        }
        Ok(writer)
    }

    /// Envelopes around rows aren't what becomes columns.
    ///
    /// # Errors
    /// What keeps the one from being told from the other.
    fn of_rows(&self, part: Part, writer: WriterSchema) -> Result<WriterSchema, String> {
        match self.pipeline.source.envelope {
            Some(envelope) if part == Part::Value && envelope.apply == Apply::Rows => writer.within(envelope.kind),
            _ => Ok(writer),
        }
    }

    fn form(&self, part: Part, nanos: bool) -> follow::Form {
        follow::Form {
            nanos,
            part,
            flatten: part == Part::Value && self.pipeline.source.flatten,
        }
    }

    /// How a part of the records is encoded.
    pub fn format_of(&self, part: Part) -> ValueFormat {
        match (part, self.pipeline.source.key_format) {
            (Part::Value, _) => self.pipeline.source.format,
            (Part::Key, KeyFormat::Of(format)) => format,
            (Part::Key, KeyFormat::Int | KeyFormat::Long) => ValueFormat::Bytes,
        }
    }

    async fn ask_schema(&self, key: &SchemaKey) -> Result<Asked, Failure> {
        let registry = match (&key.name, &self.registry) {
            (SchemaName::File, _) | (_, None) => return self.of_file().map(Asked::Known),
            (_, Some(registry)) => registry,
        };
        let ask = async || match &key.name {
            SchemaName::Guid(guid) => registry.schema_by_guid(*guid).await,
            SchemaName::Id(id) => registry.schema(*id).await,
            SchemaName::File => unreachable!("answered above"),
        };
        let tell = async || {
            ask().await.inspect_err(|error| {
                if error.retryable() {
                    warn!(table = %self.ident, error = chain(error), "{key} can't be had; asking again");
                }
            })
        };
        let text = match patiently(self.retry_for, RegistryError::retryable, tell).await {
            Ok(text) => text,
            Err(error @ RegistryError::NotFound { .. }) => return self.missing(key, &error),
            Err(error) => return Err(registry_failure(&error)),
        };
        self.understand(key, &text)
    }

    fn understand(&self, key: &SchemaKey, text: &SchemaText) -> Result<Asked, Failure> {
        let wanted = language(self.format_of(key.part));
        let parsed = match text.language == wanted {
            true => {
                let checked = self.checked(key, text);
                checked.and_then(|writer| self.of_rows(key.part, writer))
            }
            false => Err(format!(
                "it is a schema of {}, `{}` says {}",
                text.language.name(),
                match key.part {
                    Part::Value => "format",
                    Part::Key => "keyFormat",
                },
                wanted.name()
            )),
        };
        match parsed {
            Ok(writer) => {
                info!(table = %self.ident, schema = %key, language = text.language.name(), "a schema");
                Ok(Asked::Known(Arc::new(writer)))
            }
            Err(why) => match self.pipeline.errors.on_incompatible_schema {
                IncompatibleSchema::Fail => Err(self.unusable(key, &why)),
                IncompatibleSchema::DeadLetter => Ok(Asked::Missing(format!("{key} can't be used: {why}"))),
            },
        }
    }

    fn missing(&self, key: &SchemaKey, error: &RegistryError) -> Result<Asked, Failure> {
        match self.pipeline.errors.on_missing_schema {
            MissingSchema::DeadLetter => Ok(Asked::Missing(format!("{key} isn't in the registry"))),
            MissingSchema::Default if key.part == Part::Value => self.of_file().map(Asked::Known),
            MissingSchema::Default | MissingSchema::Fail => Err(Failure::new(
                Exit::Data,
                format!(
                    "records of topic `{}` name {key}, which the registry doesn't have",
                    self.pipeline.source.topic
                ),
            )
            .detail(chain(error))
            .hint(
                "is `schemaRegistry` the one that the producer writes to? `errors.onMissingSchema` can set such records aside (deadLetter) or read them with `schemaFile` (default)",
            )),
        }
    }

    fn of_file(&self) -> Result<Arc<WriterSchema>, Failure> {
        let file = self
            .schema_file
            .as_ref()
            .expect("the configuration has one where it is needed");
        WriterSchema::parse_named(file, self.pipeline.source.message_type.as_deref())
            .and_then(|writer| self.of_rows(Part::Value, writer))
            .map(Arc::new)
            .map_err(|why| self.unusable(&SchemaKey::file(), &why))
    }

    fn incompatible(&self, key: &SchemaKey, differences: &[String]) -> Result<(), Failure> {
        let differences = differences.join("; ");
        match self.pipeline.errors.on_incompatible_schema {
            IncompatibleSchema::DeadLetter => {
                warn!(table = %self.ident, schema = %key, differences, "records of this schema go aside");
                Ok(())
            }
            IncompatibleSchema::Fail => Err(Failure::new(
                Exit::Data,
                format!("{key} doesn't fit table `{}`", self.ident),
            )
            .detail(differences)
            .hint(
                "change the schema back, or write to another table; `errors.onIncompatibleSchema: deadLetter` sets just its records aside, `columns` says how to read them",
            )),
        }
    }

    fn unusable(&self, key: &SchemaKey, why: &str) -> Failure {
        Failure::new(
            Exit::Data,
            format!("{key} of topic `{}` can't be used", self.pipeline.source.topic),
        )
        .detail(why)
        .hint("mend the schema; `errors.onIncompatibleSchema: deadLetter` sets just its records aside")
    }
}

/// Returns what names the schema of a part of a record, if something does.
fn named_by(sample: &SampleRecord, part: Part, indexes: bool) -> Option<SchemaKey> {
    let header = sample.headers.iter().rev().find(|(name, _)| name == part.header());
    let key = match header.and_then(|(_, value)| value.as_ref()) {
        Some(header) => frame::header_key(header, indexes).ok()?,
        None => {
            let bytes = match part {
                Part::Value => sample.value.as_ref(),
                Part::Key => sample.key.as_ref(),
            };
            frame::key(frame::split(bytes?, indexes).ok()?.prefix).ok()?
        }
    };
    Some(key.of(part))
}

/// Names the subject of a part of the topic's records; `None` where only a record's name would tell.
pub(super) fn subject(source: &KafkaSource, part: Part, record: Option<&str>) -> Option<String> {
    match (&source.registry.as_ref()?.subject, part) {
        (SubjectNaming::Topic, Part::Value) => Some(format!("{}-value", source.topic)),
        // The one that is named is that of values.
        (SubjectNaming::Topic | SubjectNaming::Named(_), Part::Key) => Some(format!("{}-key", source.topic)),
        (SubjectNaming::Record, _) => record.map(str::to_owned),
        (SubjectNaming::TopicRecord, _) => record.map(|record| format!("{}-{record}", source.topic)),
        (SubjectNaming::Named(subject), Part::Value) => Some(subject.clone()),
    }
}
