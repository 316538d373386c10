//! The schemas that records are written with: got from a registry or a file, understood, and followed by the table.

use std::collections::BTreeSet;
use std::sync::Arc;

use iceberg::spec::{FormatVersion, NestedField};
use tracing::{info, warn};

use crate::config::{Evolution, IncompatibleSchema, KafkaSource, MissingSchema, SubjectNaming, ValueFormat};
use crate::decode::framed;
use crate::error::{Exit, Failure, chain};
use crate::line::Given;
use crate::registry::RegistryError;
use crate::schema::frame::{self, SchemaKey, SchemaName};
use crate::schema::{Missing, SchemaLanguage, SchemaText, WriterSchema, evolve, follow};
use crate::shell::open::{World, language, patiently, registry_failure};
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
            if self.writers().get(key).is_some() {
                // Another line asked just before.
                continue;
            }
            match self.ask_schema(key).await? {
                Asked::Known(writer) => found.push((key.clone(), writer)),
                Asked::Missing(why) => drop(missing.insert(key.clone(), why)),
            }
        }
        self.add_writers(&found);
        let writers = self.writers();
        let found: Vec<_> = keys
            .iter()
            .filter_map(|key| Some((key, writers.get(key)?.clone())))
            .collect();
        // A field that the table lacks may be one that a newer schema calls otherwise.
        let newest = |(_, writer): &&(&SchemaKey, Arc<WriterSchema>)| writers.newest_of(writer) == Some(&**writer);
        let newest: Vec<_> = found.iter().filter(newest).cloned().collect();
        if self.adds_columns(&newest).await? {
            self.learn_newest(&newest).await;
        }
        let table = self.follow(&found).await?;
        let plan = self.line_plan(&table)?;
        for (key, writer) in &found {
            let fits = framed::fits(writer, &plan.writers, &plan.rows);
            if let Err(differences) = fits {
                self.incompatible(key, &differences)?;
            }
        }
        let form = TableForm::of(&table);
        Ok((Given { plan, missing }, form))
    }

    /// The columns of a new table, from the schemas that samples name; without samples from the newest of the subject.
    ///
    /// - returns `None` where there is nothing to go by.
    pub async fn schema_columns(&self, samples: &[Vec<u8>]) -> Result<Option<Vec<NestedField>>, Failure> {
        let form = self.form(self.pipeline.materialize.format_version >= 3);
        let mut keys: BTreeSet<SchemaKey> = BTreeSet::new();
        match self.pipeline.source.registry {
            None => drop(self.schema_file.is_some() && keys.insert(SchemaKey::file())),
            Some(_) => {
                let indexes = self.pipeline.source.format == ValueFormat::Protobuf;
                let named = samples.iter().filter_map(|value| frame::split(value, indexes).ok());
                keys.extend(named.filter_map(|framed| frame::key(framed.prefix).ok()));
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
            && let Some((key, writer)) = self.newest_of_subject(None).await?
        {
            found.push((key, writer));
        }
        self.add_writers(&found);
        let fields = follow::merged(&self.writers(), form);
        info!(table = %self.ident, schemas = found.len(), fields = fields.len(), "columns from schemas");
        Ok((!fields.is_empty()).then_some(fields))
    }

    /// Changes the table so that it takes records of these schemas, as far as it may be changed.
    async fn follow(&self, found: &[(&SchemaKey, Arc<WriterSchema>)]) -> Result<crate::catalog::LoadedTable, Failure> {
        let evolution = self.pipeline.materialize.evolution;
        let declared = self.pipeline.columns.is_some();
        let writers = self.writers();
        self.change_schema(None, |table| {
            if declared || evolution == Evolution::Ignore {
                return Ok(None);
            }
            let fixed = evolve::fixed(table.partition_specs_iter().map(AsRef::as_ref));
            let form = self.form(table.format_version() >= FormatVersion::V3);
            let before = table.current_schema();
            let (mut schema, mut last_id) = ((**before).clone(), table.last_column_id());
            for (key, writer) in found {
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
        let writers = self.writers();
        let form = self.form(table.metadata.format_version() >= FormatVersion::V3);
        let changed = |writer: &WriterSchema| {
            let fixed = std::collections::HashSet::new();
            let changed = follow::follow(schema, last_id, &fixed, writer, &writers, form)
                .ok()
                .flatten();
            changed.is_some_and(|changed| changed.highest_field_id() > last_id)
        };
        Ok(found.iter().any(|(_, writer)| changed(writer)))
    }

    /// Gets the newest schemas of the subjects that these are of.
    async fn learn_newest(&self, found: &[(&SchemaKey, Arc<WriterSchema>)]) {
        let mut asked = BTreeSet::new();
        for (_, writer) in found {
            let Some(subject) = subject(&self.pipeline.source, writer.name()) else {
                continue;
            };
            if !asked.insert(subject) {
                continue;
            }
            match self.newest_of_subject(writer.name()).await {
                Ok(Some(newest)) => self.add_writers(&[newest]),
                Ok(None) => {}
                Err(failure) => warn!(table = %self.ident, error = failure.what, "the newest schema isn't looked at"),
            }
        }
    }

    /// Returns the newest schema of the topic's subject; `None` where there is no such subject, or none can be named.
    ///
    /// - `record`: the full name of the record, which some subjects are named by.
    async fn newest_of_subject(&self, record: Option<&str>) -> Result<Option<(SchemaKey, Arc<WriterSchema>)>, Failure> {
        let (Some(registry), Some(subject)) = (&self.registry, subject(&self.pipeline.source, record)) else {
            return Ok(None);
        };
        let asked = patiently(self.retry_for, RegistryError::retryable, || registry.latest(&subject)).await;
        let newest = match asked {
            Ok(newest) => newest,
            Err(RegistryError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(registry_failure(&error)),
        };
        let mut key = SchemaKey::id(newest.id);
        if newest.schema.language == SchemaLanguage::Protobuf {
            // Which of its messages the records are, only they say: most are the first.
            key.message = vec![0];
        }
        match WriterSchema::parse(&key, &newest.schema) {
            Ok(writer) => Ok(Some((key, Arc::new(writer)))),
            Err(why) => {
                warn!(table = %self.ident, subject, error = why, "the newest schema can't be used");
                Ok(None)
            }
        }
    }

    fn form(&self, nanos: bool) -> follow::Form {
        follow::Form {
            nanos,
            flatten: self.pipeline.source.flatten,
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
        let wanted = language(self.pipeline.source.format);
        let parsed = match text.language == wanted {
            true => WriterSchema::parse(key, text),
            false => Err(format!(
                "it is a schema of {}, `format` says {}",
                text.language.name(),
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
            MissingSchema::Default => self.of_file().map(Asked::Known),
            MissingSchema::Fail => Err(Failure::new(
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

/// Names the subject of the topic's values; `None` where only a record's name would tell.
pub(super) fn subject(source: &KafkaSource, record: Option<&str>) -> Option<String> {
    match &source.registry.as_ref()?.subject {
        SubjectNaming::Topic => Some(format!("{}-value", source.topic)),
        SubjectNaming::Record => record.map(str::to_owned),
        SubjectNaming::TopicRecord => record.map(|record| format!("{}-{record}", source.topic)),
        SubjectNaming::Named(subject) => Some(subject.clone()),
    }
}
