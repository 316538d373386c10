//! What a run says where a partition can't be read on: what is damaged, and how to go past it.

use bytesize::ByteSize;

use crate::error::{Exit, Failure, chain};
use crate::kafka::damage::Found;
use crate::kafka::error::KafkaError;
use crate::memory::Shares;
use crate::offsets::{Offset, Partition};
use crate::run::start::named;
use crate::shell::open::World;

impl World {
    /// Finds out how far the damage reaches that was met at `at`, and tells it.
    ///
    /// - `reason`: librdkafka's words.
    pub async fn damage(&self, partition: Partition, at: Offset, reason: String) -> Failure {
        let topic = self.pipeline.source.topic.clone();
        let found = self.damage_found(topic.clone(), partition, at).await;
        told(&topic, &self.pipeline.full_name(), partition, at, &reason, found)
    }

    /// Tells that a batch came as it was written and can't be unpacked.
    ///
    /// - `limit`: `--memory`, in bytes.
    pub fn too_large(&self, partition: Partition, at: Offset, reason: &str, shares: &Shares, limit: u64) -> Failure {
        let topic = named(&self.pipeline.source.topic, partition);
        let (batch, limit) = (ByteSize::b(shares.batch() as u64), ByteSize::b(limit));
        Failure::new(Exit::Config, format!("a batch of {topic} can't be unpacked within `--memory {limit}`"))
            .detail(format!("reading stopped at offset {at}: {reason}; {batch} are allowed for one batch"))
            .hint("nothing of it is in the table. Give the run more `--memory`. If no memory is enough, its producer packed it wrongly: \
                   `aperio sync-points reset` goes past it, and Kafka's `kafka-dump-log.sh` says where it ends")
    }
}

fn told(
    topic: &str,
    table: &str,
    partition: Partition,
    at: Offset,
    reason: &str,
    found: Result<Found, KafkaError>,
) -> Failure {
    let topic = named(topic, partition);
    let what = format!("{topic} is damaged: it can't be read on from offset {at}");
    let reset = |to: &str| format!("`aperio sync-points reset FILE --table {table} --partition {partition} --to {to}`");
    match found {
        Ok(Found::Damaged { next }) => Failure::new(Exit::Data, what)
            .detail(format!(
                "{reason}; the first offset behind it that can be read is {next}, {} further on",
                next.since(at)
            ))
            .hint(format!(
                "nothing of it is in the table. If another replica or a backup has these records whole, restore them and run again. \
                 To go on without them: {}, which shows first how many it skips",
                reset(&next.to_string())
            )),
        Ok(Found::Whole) => Failure::new(Exit::Remote, format!("{topic} came damaged from offset {at} on"))
            .detail(format!("{reason}; read once more, it is whole"))
            .hint("nothing of it is in the table. Run again; if it comes again, look at the brokers' disks and at the network"),
        Err(error) => Failure::new(Exit::Data, what)
            .detail(format!("{reason}; where it can be read again isn't known: {}", chain(&error)))
            .hint(format!(
                "nothing of it is in the table. Kafka's `kafka-dump-log.sh` lists the batches of a segment with their last offsets: \
                 to go on behind one, {}",
                reset("OFFSET")
            )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_told_with_the_command_that_goes_past_it() {
        let told = |found| {
            let at = Offset::new(40);
            let failure = told("orders", "sales.orders", Partition(3), at, "a checksum differs", found);
            (failure.exit, failure.to_string())
        };
        let (exit, text) = told(Ok(Found::Damaged { next: Offset::new(50) }));
        assert_eq!(exit, Exit::Data);
        for part in [
            "orders/3 is damaged: it can't be read on from offset 40",
            "a checksum differs; the first offset behind it that can be read is 50, 10 further on",
            "`aperio sync-points reset FILE --table sales.orders --partition 3 --to 50`, which shows first how many it skips",
        ] {
            assert!(text.contains(part), "{text}");
        }
        // Nothing on a disk is damaged: nothing is to be skipped.
        let (exit, text) = told(Ok(Found::Whole));
        assert_eq!(exit, Exit::Remote);
        assert!(!text.contains("reset"), "{text}");
        let unknown = KafkaError::Unreachable {
            doing: "looking".into(),
            reason: "nothing came in time".into(),
        };
        let (exit, text) = told(Err(unknown));
        assert_eq!(exit, Exit::Data);
        assert!(text.contains("--partition 3 --to OFFSET`"), "{text}");
    }
}
