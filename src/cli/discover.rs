//! `aperio discover`: looks at a cluster and prints a pipeline file to start from.

use std::path::Path;

use serde::Serialize;
use url::Url;

use super::output::{Columns, OutputFormat, complain, counted, say, say_json};
use super::{Refused, block_on};
use crate::config::{self, Pipeline, Problem};
use crate::discover::{Access, Built, Finding, file, tables};
use crate::error::{Exit, Failure};
use crate::shell::discover::{self, Discovered};

/// The arguments of `aperio discover`.
#[derive(Debug, clap::Args)]
pub(super) struct DiscoverArgs {
    /// The brokers to ask first, `host:port` separated by commas
    #[arg(long, value_name = "HOST:PORT")]
    brokers: String,
    /// A schema registry, Confluent's REST API; or several addresses of one, separated by commas
    #[arg(long, value_name = "URL")]
    registry: Option<String>,
    /// Only topics of this name; `*` stands for any characters, `?` for one; may be repeated
    #[arg(long = "topic", value_name = "PATTERN")]
    topics: Vec<String>,
    /// A key of the file's `security`: protocol=SASL_SSL, saslMechanism=…, 'saslPassword=${KAFKA_PASSWORD}'; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    security: Vec<(String, String)>,
    /// A librdkafka property, as in the file's `consumerConfig`; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    consumer_config: Vec<(String, String)>,
    /// A key of the file's `schemaRegistry`: username=…, 'password=${REGISTRY_PASSWORD}', token, ca, …; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair, requires = "registry")]
    registry_config: Vec<(String, String)>,
    /// Records to look at in each topic, from both ends of every partition
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    samples: u32,
    /// The pipeline file, or one JSON document with it
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// What `aperio discover --output json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DiscoverReport<'a> {
    exit_code: u8,
    topics: Vec<Named<'a>>,
    left_out: Vec<LeftOut<'a>>,
    /// The text that is printed otherwise.
    pipeline_file: String,
}

#[derive(Debug, Serialize)]
struct Named<'a> {
    table: String,
    #[serde(flatten)]
    finding: &'a Finding,
}

#[derive(Debug, Serialize)]
struct LeftOut<'a> {
    topic: &'a str,
    reason: &'a str,
}

pub(super) fn run(args: DiscoverArgs) -> Result<u8, Refused> {
    let access = Access {
        brokers: args.brokers,
        registry: args.registry,
        registry_keys: args.registry_config,
        security: args.security,
        consumer_config: args.consumer_config,
    };
    without_user(access.registry.as_deref())?;
    let pipeline = pipeline(&access)?;
    let found = block_on(discover::discover(&pipeline, &args.topics, args.samples as usize))??;
    let text = file(&access, &found.findings, &found.left_out, Built::NOW);
    let names = tables(found.findings.iter().map(|finding| finding.topic.as_str()));
    match args.output {
        OutputFormat::Json => say_json(&report(&found, names, text)),
        OutputFormat::Text => {
            say(text.trim_end());
            complain(&summary(&found, &names));
        }
    }
    Ok(Exit::Done as u8)
}

fn report<'a>(found: &'a Discovered, names: Vec<String>, pipeline_file: String) -> DiscoverReport<'a> {
    let topics = found.findings.iter().zip(names);
    let left_out = found.left_out.iter();
    DiscoverReport {
        exit_code: Exit::Done as u8,
        topics: topics.map(|(finding, table)| Named { table, finding }).collect(),
        left_out: left_out.map(|(topic, reason)| LeftOut { topic, reason }).collect(),
        pipeline_file,
    }
}

/// Splits `key=value` at the first `=`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

/// A user and a password in the address would be printed with it.
fn without_user(registry: Option<&str>) -> Result<(), Failure> {
    let named = |part: &str| {
        let url = Url::parse(part.trim()).ok();
        part.contains('@')
            && !part.contains("${")
            && url.is_none_or(|url| !url.username().is_empty() || url.password().is_some())
    };
    if !registry.is_some_and(|registry| registry.split(',').any(named)) {
        return Ok(());
    }
    Err(
        Failure::new(Exit::Config, "`--registry` names a user, which would be printed")
            .hint("write `--registry-config username=NAME --registry-config 'password=${REGISTRY_PASSWORD}'`, and set that variable"),
    )
}

/// Reads the arguments as a pipeline file's keys are read.
fn pipeline(access: &Access) -> Result<Pipeline, Refused> {
    // Relative paths begin in the working directory.
    let mut pipelines = config::parse(Path::new("the command line"), &access.pipeline()).map_err(|problems| {
        let problems: Vec<Problem> = problems.into_iter().map(of_arguments).collect();
        Refused::Problems(problems)
    })?;
    Ok(pipelines.remove(0))
}

/// Tells a problem of a key as one of the argument that it came from.
fn of_arguments(mut problem: Problem) -> Problem {
    let path = problem
        .path
        .strip_prefix("partitionedTables[0].source.")
        .unwrap_or(&problem.path);
    let arguments = [
        ("schemaRegistry.url", "--registry"),
        ("schemaRegistry.", "--registry-config "),
        ("schemaRegistry", "--registry"),
        ("security.", "--security "),
        ("security", "--security"),
        ("consumerConfig.", "--consumer-config "),
        ("brokers", "--brokers"),
    ];
    let argument = arguments
        .iter()
        .find_map(|(key, argument)| Some(format!("{argument}{}", path.strip_prefix(key)?)));
    problem.path = argument.unwrap_or_else(|| path.to_owned());
    problem.line = 0;
    problem
}

/// What was found, for whoever sends the file elsewhere.
fn summary(found: &Discovered, names: &[String]) -> String {
    let mut columns = Columns::new(&["topic", "table", ">records", "format", "event time", "partition"]);
    for (finding, name) in found.findings.iter().zip(names) {
        let guess = |guess: Option<&crate::discover::Guess>| guess.map_or("-".to_owned(), |guess| guess.value.clone());
        columns.row(vec![
            finding.topic.clone(),
            if finding.obstacle.is_some() {
                "-".to_owned()
            } else {
                name.clone()
            },
            super::output::grouped(finding.records),
            if finding.obstacle.is_some() {
                "?".to_owned()
            } else {
                finding.format.value.clone()
            },
            guess(finding.event_time_field.as_ref()),
            guess(finding.partition.as_ref()),
        ]);
    }
    let unread = found
        .findings
        .iter()
        .filter(|finding| finding.obstacle.is_some())
        .count() as u64;
    let looked = counted(found.findings.len() as u64, "topic");
    let left_out = found.left_out.len();
    format!(
        "{}\n{looked}; {unread} only as comments, {left_out} left out",
        columns.text(0)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(change: impl FnOnce(&mut Access)) -> Access {
        let mut access = Access {
            brokers: "b:9092".to_owned(),
            ..Access::default()
        };
        change(&mut access);
        access
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn arguments_mean_what_the_keys_of_the_file_mean() {
        let access = access(|access| {
            access.registry = Some("http://r".to_owned());
            access.registry_keys = pairs(&[("username", "u"), ("password", "hunter2")]);
            access.security = pairs(&[
                ("protocol", "SASL_SSL"),
                ("saslMechanism", "PLAIN"),
                ("saslUsername", "u"),
                ("saslPassword", "hunter2: #"),
            ]);
            access.consumer_config = pairs(&[("client.id", "007")]);
        });
        let found = pipeline(&access).expect("all is well");
        let client = &found.source.client;
        assert_eq!(client["sasl.password"], "hunter2: #");
        assert_eq!(client["client.id"], "007");
        assert_eq!(found.source.registry.expect("a registry").urls, ["http://r"]);
    }

    #[test]
    fn problems_name_the_argument() {
        let access = access(|access| {
            access.brokers = "a,".to_owned();
            access.registry = Some("nowhere".to_owned());
            access.registry_keys = pairs(&[("usrname", "u")]);
            access.security = pairs(&[("protocol", "TLS")]);
            access.consumer_config = pairs(&[("group.id", "g")]);
        });
        let Err(Refused::Problems(problems)) = pipeline(&access) else {
            panic!("it is refused")
        };
        let mut told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        told.sort();
        insta::assert_snapshot!(told.join("\n"), @r##"
        the command line: --brokers: has an empty entry; write it like `kafka-1:9092,kafka-2:9092`
        the command line: --consumer-config group.id: `group.id` is set by aperio; write it as `source.consumerGroup`
        the command line: --registry-config usrname: unknown key; did you mean `username`?
        the command line: --registry: is not an HTTP address; write it like `http://registry:8081`, or several separated by commas
        the command line: --security protocol: `TLS` is not known; write one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL
        "##);
    }

    #[test]
    fn a_user_in_the_address_of_the_registry_is_refused() {
        for (registry, expect) in [
            ("http://r:8081", true),
            ("http://u:p@r:8081", false),
            ("http://a,http://u@b", false),
            ("http://u:p/@r", false),
            ("http://${USER}:${PASSWORD}@r", true),
        ] {
            assert_eq!(without_user(Some(registry)).is_ok(), expect, "{registry}");
        }
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        pair("=b").expect_err("no key");
        pair("a").expect_err("no value");
    }
}
