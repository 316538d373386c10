//! How topics are kept, as far as their brokers tell.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, OwnedResourceSpecifier, ResourceSpecifier};

use crate::config::Pipeline;
use crate::kafka::config::{self, LogContext};
use crate::kafka::error::KafkaError;

/// Topics that one request asks about: brokers answer with all settings of each.
const ASKED_MAX: usize = 200;

/// Returns those of the topics that keep the last record of each key (`cleanup.policy` has `compact`). Topics whose settings
/// we may not see are left out of both lists.
///
/// - returns the compacted ones, and those that aren't.
///
/// # Errors
/// As the brokers answered the request as a whole.
pub async fn compacted(
    pipeline: &Pipeline,
    topics: &[String],
    timeout: Duration,
) -> Result<(BTreeSet<String>, BTreeSet<String>), KafkaError> {
    let source = &pipeline.source;
    let failed = |cause| KafkaError::of("reading the settings of topics", "", &cause);
    let client: AdminClient<LogContext> = config::base(&source.brokers, &source.client)
        .create_with_context(LogContext)
        .map_err(failed)?;
    let options = AdminOptions::new().request_timeout(Some(timeout));
    let (mut compacted, mut others) = (BTreeSet::new(), BTreeSet::new());
    for part in topics.chunks(ASKED_MAX) {
        let asked: Vec<ResourceSpecifier<'_>> = part.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        for answer in client
            .describe_configs(&asked, &options)
            .await
            .map_err(failed)?
            .into_iter()
            .flatten()
        {
            let policy = answer.get("cleanup.policy").and_then(|entry| entry.value.clone());
            if let (OwnedResourceSpecifier::Topic(topic), Some(policy)) = (answer.specifier, policy) {
                let compacts = policy.split(',').any(|policy| policy.trim() == "compact");
                let of = if compacts { &mut compacted } else { &mut others };
                of.insert(topic);
            }
        }
    }
    Ok((compacted, others))
}
