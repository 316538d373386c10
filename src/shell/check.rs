//! `aperio check`: one thing that a run needs, reached with its credentials. Nothing is left behind.

use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use crate::catalog::{LoadedTable, ViewError};
use crate::config::{OnDecodeError, Pipeline};
use crate::error::{Exit, Failure, chain};
use crate::kafka::admin::Admin;
use crate::kafka::error::KafkaError;
use crate::registry::RegistryError;
use crate::schema::frame::Part;
use crate::shell::open::{catalog_failure, ident, ledger_failure, registry, registry_failure, table_of_record};
use crate::shell::schema_file::schema_file;
use crate::shell::schemas::subject;
use crate::store::{Store, StoreError};

/// How long a broker may take for one answer; somebody is waiting in front of the screen.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a question that wasn't answered is put again, and the wait before that.
const ASK_AGAIN_FOR: Duration = Duration::from_secs(5);
const ASK_PAUSE: Duration = Duration::from_millis(250);

/// How long the catalog or the store may take for one answer.
const ANSWER_WAIT: Duration = Duration::from_secs(15);

/// Values read of each partition, to see that we may: one says it all.
const SAMPLES: usize = 1;

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A broker answers, with our credentials.
    Brokers,
    /// The topic is there and may be described and read.
    Topic,
    /// The consumer group may be asked about.
    Group,
    /// The registry answers with our credentials, and has a schema of the topic; or `schemaFile` holds one.
    Schemas,
    /// The dead-letter topic is there, if there is to be one.
    DeadLetters,
    /// The catalog answers, and what it says of the table can be used.
    Catalog,
    /// An object can be written, read and deleted where the state and the table are.
    Store,
}

impl Subject {
    /// Those that a pipeline depends on, in the order of a record's path.
    pub fn of(pipeline: &Pipeline) -> Vec<Subject> {
        let source = &pipeline.source;
        let schemas = source.registry.is_some() || source.schema_file.is_some();
        let all = [
            Subject::Brokers,
            Subject::Topic,
            Subject::Group,
            Subject::Schemas,
            Subject::DeadLetters,
            Subject::Catalog,
            Subject::Store,
        ];
        let wanted = |subject: &Subject| *subject != Subject::Schemas || schemas;
        all.into_iter().filter(wanted).collect()
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Subject::Brokers => "brokers",
            Subject::Topic => "topic",
            Subject::Group => "group",
            Subject::Schemas => "schemas",
            Subject::DeadLetters => "dead letters",
            Subject::Catalog => "catalog",
            Subject::Store => "store",
        }
    }
}

/// Checks one subject; returns what was found, in a few words.
///
/// # Errors
/// Exit code 2 for what the file must be mended for, 3 where the table's history doesn't tell its offsets, 4 for what is
/// down or refuses us.
pub async fn check(pipeline: &Pipeline, subject: Subject) -> Result<String, Failure> {
    match subject {
        Subject::Brokers => ask(pipeline, brokers).await,
        Subject::Topic => ask(pipeline, topic).await,
        Subject::Group => ask(pipeline, group).await,
        Subject::DeadLetters => match &pipeline.errors.on_decode_error {
            OnDecodeError::DeadLetter { topic: Some(name), .. } => {
                let (name, source) = (name.clone(), &pipeline.source);
                let asked = name.clone();
                let answer = asking(pipeline, move |admin, _| admin.partitions(&asked)).await;
                let found = answer.map_err(|error| error.failure(&source.brokers, &name))?;
                Ok(format!("topic `{name}`, {} partitions", found.len()))
            }
            OnDecodeError::DeadLetter { table: Some(name), .. } => Ok(format!("go to table `{name}`")),
            _ => Ok("none are kept".to_owned()),
        },
        Subject::Schemas => in_time(pipeline, "schema registry", schemas(pipeline)).await,
        Subject::Catalog => in_time(pipeline, "catalog", table_found(pipeline)).await,
        Subject::Store => in_time(pipeline, "store", store_written(pipeline)).await,
    }
}

fn brokers(admin: &Admin, pipeline: &Pipeline) -> Result<String, KafkaError> {
    let id = admin.cluster_id(&pipeline.source.topic)?;
    let id = id.map_or("a cluster without an id".to_owned(), |id| format!("cluster {id}"));
    Ok(format!("{}: {id}", pipeline.source.brokers))
}

fn topic(admin: &Admin, pipeline: &Pipeline) -> Result<String, KafkaError> {
    let topic = &pipeline.source.topic;
    let (begins, ends) = (admin.beginnings(topic)?, admin.ends(topic)?);
    let offsets: u64 = ends
        .iter()
        .map(|(partition, end)| begins.get(partition).map_or(0, |begin| end.since(begin)))
        .sum();
    // Describing a topic and reading it are two rights.
    admin.samples(topic, SAMPLES, 1)?;
    let told = if offsets == 0 {
        "empty, so whether it may be read isn't known"
    } else {
        "read"
    };
    Ok(format!("`{topic}`, {} partitions, {told}", ends.len()))
}

fn group(admin: &Admin, pipeline: &Pipeline) -> Result<String, KafkaError> {
    let (group, topic) = (&pipeline.source.group, &pipeline.source.topic);
    admin.group_offsets(group, topic)?;
    let members = admin.group_members(group)?;
    let told = match members {
        0 => "nobody is in it".to_owned(),
        1 => "1 member".to_owned(),
        count => format!("{count} members"),
    };
    Ok(format!("`{group}`, {told}"))
}

async fn ask(
    pipeline: &Pipeline,
    question: fn(&Admin, &Pipeline) -> Result<String, KafkaError>,
) -> Result<String, Failure> {
    let source = &pipeline.source;
    let answer = asking(pipeline, question).await;
    answer.map_err(|error| error.failure(&source.brokers, &source.topic))
}

/// Asks the brokers for somebody who waits in front of the screen, on a thread that may block. What passes by itself within
/// some seconds, such as a coordinator that isn't chosen yet, is asked again.
///
/// # Errors
/// As the brokers answered last.
pub async fn asking<T: Send + 'static>(
    pipeline: &Pipeline,
    question: impl Fn(&Admin, &Pipeline) -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, KafkaError> {
    let pipeline = pipeline.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let source = &pipeline.source;
        let admin = Admin::new(&source.brokers, source.read_committed, &source.client, QUESTION_TIMEOUT)?;
        let since = Instant::now();
        // Ends: by the answer, or when the time is over.
        loop {
            match question(&admin, &pipeline) {
                Err(error) if error.passes() && since.elapsed() < ASK_AGAIN_FOR => std::thread::sleep(ASK_PAUSE),
                answer => return answer,
            }
        }
    });
    asked.await.expect("a question to a broker doesn't panic")
}

async fn in_time(
    pipeline: &Pipeline,
    what: &str,
    work: impl Future<Output = Result<String, Failure>>,
) -> Result<String, Failure> {
    let answer = tokio::time::timeout(ANSWER_WAIT, work).await;
    answer.unwrap_or_else(|_| {
        let what = format!("the {what} of table `{}` gives no answer", pipeline.full_name());
        Err(Failure::new(Exit::Remote, what)
            .detail(format!("it was asked for {} s", ANSWER_WAIT.as_secs()))
            .hint("look at `catalog` in the pipeline file, and whether what it names is up"))
    })
}

async fn schemas(pipeline: &Pipeline) -> Result<String, Failure> {
    let source = &pipeline.source;
    schema_file(pipeline)?;
    let file = source.schema_file.as_deref().map(|file| format!("`{file}`"));
    let Some(config) = &source.registry else {
        return Ok(file.unwrap_or_default());
    };
    let asked = registry(config, QUESTION_TIMEOUT)?;
    let refused = |error: RegistryError| registry_failure(&error);
    asked.reach().await.map_err(refused)?;
    let Some(subject) = subject(source, Part::Value, None) else {
        return Ok(format!("{}: reached", config.urls.join(", ")));
    };
    match asked.latest(&subject).await {
        Ok(newest) => {
            let (id, version) = (newest.id, newest.version);
            Ok(format!("subject `{subject}`, version {version} is schema {id}"))
        }
        // Its records may be of other subjects, or there may be none yet.
        Err(RegistryError::NotFound { .. }) => Ok(format!("{}: no subject `{subject}`", config.urls.join(", "))),
        Err(error) => Err(refused(error)),
    }
}

async fn table_found(pipeline: &Pipeline) -> Result<String, Failure> {
    let catalog = table_of_record(pipeline)?;
    let failed = |error| catalog_failure(&pipeline.catalog, &error);
    let ident = ident(pipeline, &pipeline.name)?;
    let shown = pipeline.catalog.shown();
    catalog.reach().await.map_err(failed)?;
    let Some(table) = catalog.load(&ident).await.map_err(failed)? else {
        return Ok(format!("{shown}: table `{ident}` is made by the first run"));
    };
    let view = table.view().await.map_err(|error| match error {
        ViewError::Ledger(problem) => ledger_failure(&ident, &problem),
        ViewError::Catalog(error) => catalog_failure(&pipeline.catalog, &error),
    })?;
    let told = if view.ledger.is_some() {
        "holds its offsets"
    } else {
        "is there, without a commit of aperio"
    };
    Ok(format!("{shown}: table `{ident}` {told}"))
}

async fn store_written(pipeline: &Pipeline) -> Result<String, Failure> {
    let catalog = table_of_record(pipeline)?;
    // What the catalog says is told by its own check; here it only tells where the table is.
    let table = catalog.load(&ident(pipeline, &pipeline.name)?).await.ok().flatten();
    let mut probed = Vec::new();
    if let Some(table) = &table {
        probe(&table.store, &data_location(table)).await?;
        probed.push(data_location(table));
    }
    let state = match &pipeline.state_dir {
        Some(directory) => directory.clone(),
        None => match &table {
            Some(table) => format!("{}/.aperio", table.metadata.location()),
            None => return Ok("is known once the table is there: the catalog says where".to_owned()),
        },
    };
    let store = Store::open(&state, &pipeline.catalog.properties).map_err(|error| refused(&state, &error))?;
    let state = store.warehouse().to_owned();
    probe(&store, &state).await?;
    probed.push(state);
    Ok(format!("wrote, read and deleted an object in {}", probed.join(" and ")))
}

fn data_location(table: &LoadedTable) -> String {
    let named = table.metadata.properties().get("write.data.path").cloned();
    named.unwrap_or_else(|| format!("{}/data", table.metadata.location()))
}

/// Writes an object of a name that nobody else uses, reads it and deletes it. On a disk nothing stays, not even a folder:
/// one that isn't there is stood for by the nearest above it.
async fn probe(store: &Store, directory: &str) -> Result<(), Failure> {
    const TEXT: &[u8] = b"written by `aperio check`, which deletes it at once\n";
    let failed = |error: StoreError| refused(directory, &error);
    let mut at = directory.trim_end_matches('/').to_owned();
    // Ends: each round leaves a shorter path, and the root is there.
    while let Some(path) = store.local_path(&at) {
        let above = at.rfind('/').filter(|end| *end > 0);
        match above {
            Some(end) if !tokio::fs::try_exists(&path).await.unwrap_or(true) => at.truncate(end),
            _ => break,
        }
    }
    let location = format!("{at}/.aperio-check-{}", Uuid::new_v4().simple());
    let written = store.create(&location, Bytes::from_static(TEXT)).await;
    // A store that replaces what it was asked to create can't keep two writers apart.
    let again = store
        .create(&location, Bytes::from_static(b"never to be written"))
        .await;
    let read = match written {
        Ok(()) => store.get(&location).await,
        Err(error) => Err(error),
    };
    // Also after a failure: a write without an answer may have happened.
    let deleted = store.delete(&location).await;
    let found = read.map_err(failed)?;
    deleted.map_err(failed)?;
    if again.is_ok() {
        return Err(Failure::new(
            Exit::Config,
            format!("the store of `{directory}` replaces objects that are to be created"),
        )
        .detail("a conditional write (`If-None-Match: *`) was answered as done where an object was already")
        .hint(
            "use a store with conditional writes, as S3 has them: without them two writers can overwrite each other",
        ));
    }
    match found {
        Some((bytes, _)) if bytes == TEXT => Ok(()),
        _ => Err(Failure::new(
            Exit::Remote,
            format!("what is written to `{directory}` isn't read back"),
        )
        .detail("an object was written and is not there, or is another one")
        .hint("look at the store; it must show what was written at once")),
    }
}

fn refused(directory: &str, error: &StoreError) -> Failure {
    let exit = match error {
        StoreError::Unsupported { .. } => Exit::Config,
        _ => Exit::Remote,
    };
    Failure::new(exit, format!("`{directory}` can't be written to"))
        .detail(chain(error))
        .hint("look at `catalog.warehouse`, `catalog.properties` and `stateDir`, and at what these credentials may do")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_probe_leaves_neither_object_nor_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().display().to_string();
        let store = Store::open(&root, &Default::default()).expect("a disk");
        probe(&store, &format!("{root}/not/there"))
            .await
            .expect("it is written above");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0);
        // In the place of a folder stands a file.
        std::fs::write(dir.path().join("file"), "x").expect("a file");
        let failure = probe(&store, &format!("{root}/file")).await.expect_err("no folder");
        assert_eq!(failure.exit, Exit::Remote);
    }
}
