//! `aperio discover`: asks brokers and registry for what a guess about each topic needs. Nothing is changed, no group is joined.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{StreamExt, stream};

use crate::config::Pipeline;
use crate::discover::{self, Finding, Found, Newest, Sample, Schemas, Topic};
use crate::error::{Exit, Failure, chain};
use crate::kafka::admin::Looked;
use crate::kafka::error::KafkaError;
use crate::kafka::settings;
use crate::registry::{Registry, RegistryError};
use crate::schema::frame::{Part, SchemaName};
use crate::shell::check::asking;
use crate::shell::open::{patiently, registry};
use crate::shell::schemas::subject;
use crate::units::Millis;

/// How long the registry, or the brokers for the settings of topics, may take for one answer.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a registry that doesn't answer is asked again; somebody is waiting in front of the screen.
const ASK_AGAIN_FOR: Millis = Millis(5000);

/// Topics that are looked at side by side: each has clients with threads of their own.
const TOPICS_AT_ONCE: usize = 4;

/// What is read of one topic at most, in bytes of keys and values.
const SAMPLE_BYTES_MAX: usize = 4 << 20;

/// The names of topics that a message lists.
const NAMED_MAX: usize = 10;

/// What was found on a cluster.
#[derive(Debug)]
pub struct Discovered {
    /// One for each topic that was looked at, in the order of their names.
    pub findings: Vec<Finding>,
    /// Topics that weren't, and why.
    pub left_out: Vec<(String, &'static str)>,
}

/// Looks at topics and guesses what they hold.
///
/// - `pipeline`: how brokers and registry are reached; its topic doesn't matter.
/// - `patterns`: as [`discover::select`] takes them; `samples`: records of one topic, those of each partition at least two.
///
/// # Errors
/// Exit code 2 for a pattern that no topic matches, and where there is no topic; 4 where brokers or registry are down or
/// refuse us. A single topic that can't be read is a finding.
pub async fn discover(pipeline: &Pipeline, patterns: &[String], samples: usize) -> Result<Discovered, Failure> {
    let registry = match &pipeline.source.registry {
        Some(config) => Some(reached(registry(config, QUESTION_TIMEOUT)?).await?),
        None => None,
    };
    let brokers = &pipeline.source.brokers;
    let all = asking(pipeline, |admin, _| admin.topics()).await;
    let all = all.map_err(|error| unlisted(&error, brokers))?;
    let selection = discover::select(&all, patterns).map_err(|pattern| unmatched(&pattern, &all, brokers))?;
    if selection.taken.is_empty() {
        let left_out: Vec<&str> = selection.left_out.iter().map(|(topic, _)| topic.as_str()).collect();
        return Err(
            Failure::new(Exit::Config, format!("there is no topic at `{brokers}` to look at"))
                .detail(match left_out.is_empty() {
                    true => "the brokers know none, or don't let us see any".to_owned(),
                    false => format!("left out: {}", listed(&left_out)),
                })
                .hint("name one with `--topic`, or look at what this user may describe"),
        );
    }
    // Whoever may not see settings doesn't know more than that.
    let policies = settings::compacted(pipeline, &selection.taken, QUESTION_TIMEOUT);
    let (compacted, others) = policies.await.unwrap_or_default();
    let looks = selection.taken.iter().map(|topic| {
        let is_compacted = match (compacted.contains(topic), others.contains(topic)) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        };
        look(pipeline, registry.as_ref(), topic, is_compacted, samples)
    });
    let looked: Vec<_> = stream::iter(looks).buffered(TOPICS_AT_ONCE).collect().await;
    let mut findings = Vec::with_capacity(looked.len());
    let mut unread = None;
    for (topic, look) in selection.taken.iter().zip(looked) {
        match look {
            Ok(finding) => findings.push(finding),
            Err(Unread::Registry(failure)) => return Err(failure),
            Err(Unread::Kafka(error)) => {
                findings.push(discover::unread(topic, &chain(&error)));
                unread.get_or_insert((topic, error));
            }
        }
    }
    match unread {
        Some((topic, error)) if findings.iter().all(|finding| finding.unread) => Err(refused(&error, brokers, topic)),
        _ => Ok(Discovered {
            findings,
            left_out: selection.left_out,
        }),
    }
}

/// Why a topic couldn't be looked at.
enum Unread {
    /// The brokers don't let us, or can't: other topics may be fine.
    Kafka(KafkaError),
    /// Without the registry other topics would be guessed wrong.
    Registry(Failure),
}

async fn look(
    pipeline: &Pipeline,
    registry: Option<&Registry>,
    topic: &str,
    compacted: Option<bool>,
    samples: usize,
) -> Result<Finding, Unread> {
    let asked = topic.to_owned();
    let looked = asking(pipeline, move |admin, _| {
        let per_partition = |partitions: usize| samples.div_ceil(partitions.max(1)).max(2);
        admin.look(&asked, SAMPLE_BYTES_MAX, per_partition)
    });
    let topic = as_topic(topic, compacted, looked.await.map_err(Unread::Kafka)?);
    let schemas = match registry {
        Some(registry) => schemas(pipeline, registry, &topic).await.map_err(Unread::Registry)?,
        None => Schemas::default(),
    };
    // Decoding samples is work for a processor.
    let guessed = tokio::task::spawn_blocking(move || discover::guess(&topic, &schemas));
    Ok(guessed.await.expect("a guess doesn't panic"))
}

fn as_topic(name: &str, compacted: Option<bool>, looked: Looked) -> Topic {
    let held = |(partition, end): (_, crate::offsets::Offset)| {
        looked.begins.get(partition).map_or(0, |begin| end.since(begin))
    };
    Topic {
        name: name.to_owned(),
        partitions: looked.ends.len(),
        offsets: looked.ends.iter().map(held).sum(),
        compacted,
        samples: looked
            .records
            .into_iter()
            .map(|record| Sample {
                timestamp_ms: record.timestamp_ms,
                key: record.key,
                value: record.value,
                headers: record.headers,
            })
            .collect(),
    }
}

/// Asks for the schemas that samples name, or for the topic's newest where there are no values.
async fn schemas(pipeline: &Pipeline, registry: &Registry, topic: &Topic) -> Result<Schemas, Failure> {
    let mut schemas = Schemas {
        asked: true,
        ..Schemas::default()
    };
    for name in discover::schemas_named(topic) {
        let ask = async || match &name {
            SchemaName::Id(id) => registry.schema(*id).await,
            SchemaName::Guid(guid) => registry.schema_by_guid(*guid).await,
            SchemaName::File => unreachable!("samples name no file"),
        };
        let found = match patiently(ASK_AGAIN_FOR, RegistryError::retryable, ask).await {
            Ok(text) => Found::Schema(text),
            Err(error) if of_the_schema(&error) => Found::Missing(chain(&error)),
            Err(error) => return Err(registry_failure(&error)),
        };
        schemas.found.insert(name, found);
    }
    if topic.samples.iter().all(|sample| sample.value.is_none()) {
        let mut source = pipeline.source.clone();
        source.topic.clone_from(&topic.name);
        if let Some(subject) = subject(&source, Part::Value, None) {
            let ask = async || registry.latest(&subject).await;
            match patiently(ASK_AGAIN_FOR, RegistryError::retryable, ask).await {
                Ok(newest) => {
                    schemas.newest = Some(Newest {
                        id: newest.id,
                        text: newest.schema,
                    });
                }
                Err(error) if of_the_schema(&error) => {}
                Err(error) => return Err(registry_failure(&error)),
            }
        }
    }
    Ok(schemas)
}

/// Says whether an error is about what was asked for, and not about the registry. One that knows no GUIDs has nothing at
/// their path.
fn of_the_schema(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::NotFound { .. } | RegistryError::Unusable { .. } | RegistryError::Answered { status: 404, .. }
    )
}

async fn reached(registry: Registry) -> Result<Registry, Failure> {
    match patiently(ASK_AGAIN_FOR, RegistryError::retryable, || registry.reach()).await {
        Ok(()) => Ok(registry),
        Err(error) => Err(registry_failure(&error)),
    }
}

fn registry_failure(error: &RegistryError) -> Failure {
    Failure::new(Exit::Remote, "the schema registry can't be used")
        .detail(chain(error))
        .hint("look at `--registry` and `--registry-config`, and whether the registry is up; Apicurio's address ends in `/apis/ccompat/v7`")
}

fn unlisted(error: &KafkaError, brokers: &str) -> Failure {
    let failure = error.failure(brokers, "");
    let what = match error {
        KafkaError::Configuration { .. } => failure.what,
        KafkaError::Refused { .. } => format!("Kafka at `{brokers}` refuses us"),
        _ => format!("Kafka at `{brokers}` can't be reached"),
    };
    Failure { what, ..failure }
        .hint("look at `--brokers`, `--security` and `--consumer-config`, and whether the brokers are up")
}

fn refused(error: &KafkaError, brokers: &str, topic: &str) -> Failure {
    error
        .failure(brokers, topic)
        .hint("look at what this user may do with the topics: `describe` and `read` are needed")
}

fn unmatched(pattern: &str, topics: &[String], brokers: &str) -> Failure {
    let near = |topic: &&String| strsim::damerau_levenshtein(pattern, topic) <= (pattern.len() / 3).max(1);
    let nearest = topics
        .iter()
        .filter(near)
        .min_by_key(|topic| strsim::damerau_levenshtein(pattern, topic));
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    Failure::new(Exit::Config, format!("no topic matches `{pattern}`"))
        .detail(match topics.is_empty() {
            true => format!("the brokers at `{brokers}` know no topic, or don't let us see any"),
            false => format!("the brokers at `{brokers}` know {}", listed(&names)),
        })
        .hint(match nearest {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "in `--topic`, `*` stands for any characters and `?` for one".to_owned(),
        })
}

fn listed(names: &[&str]) -> String {
    let shown: BTreeSet<String> = names.iter().take(NAMED_MAX).map(|name| format!("`{name}`")).collect();
    let more = match names.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", shown.into_iter().collect::<Vec<_>>().join(", "))
}
