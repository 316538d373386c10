//! Positions with their leader epochs, given to librdkafka and taken from it. rdkafka 0.39 knows of offsets only.
//!
//! How librdkafka 2.12.1 finds that a log was truncated, which decides how it is asked:
//! - It compares what it is *sought* to, with OffsetForLeaderEpoch (rdkafka_partition.c, `rd_kafka_toppar_seek`), and, whenever
//!   the leader's epoch grows, where it reads (rdkafka_topic.c, `rd_kafka_toppar_leader_update`). What it is assigned at, it
//!   begins to fetch without a question (`rd_kafka_toppar_fetch_start`): so an assignment is followed by a seek.
//! - A position without an epoch is not compared (rdkafka_offset.c, `rd_kafka_offset_validate`): so each seek carries one.
//! - With `auto.offset.reset=error` it tells `_AUTO_OFFSET_RESET`, as for an offset that is gone, says "truncation" in words only
//!   (rdkafka_offset.c, `rd_kafka_toppar_handle_OffsetForLeaderEpoch`), and fetches no more until it is assigned anew.
//! - A broker without such requests, before Kafka 2.3, makes it go on as without an epoch.

use std::ffi::CStr;
use std::os::raw::c_char;

use rdkafka::TopicPartitionList;
use rdkafka_sys as sys;

use crate::offsets::{LeaderEpoch, Offset, Partition, Position};

/// What librdkafka writes where it knows no epoch.
const UNKNOWN: i32 = -1;

/// Reads an epoch as librdkafka writes it.
pub(crate) fn epoch(number: i32) -> Option<LeaderEpoch> {
    (number > UNKNOWN).then_some(LeaderEpoch(number))
}

/// Lists partitions of `topic` with positions, for an assignment or a seek.
pub(crate) fn list(topic: &str, positions: impl IntoIterator<Item = (Partition, Position)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, at) in positions {
        list.add_partition_offset(topic, partition.0, rdkafka::Offset::Offset(at.offset.get()))
            .expect("an offset of ours is never negative, so librdkafka takes it");
        let Some(LeaderEpoch(epoch)) = at.leader_epoch else {
            continue;
        };
        // SAFETY: the list is valid and ours alone, and its last element is the one that was just added.
        unsafe {
            let list = &*list.ptr();
            let last = usize::try_from(list.cnt - 1).expect("a list that was just added to isn't empty");
            sys::rd_kafka_topic_partition_set_leader_epoch(list.elems.add(last), epoch);
        }
    }
    list
}

/// Reads the leader epochs that an answer brought, by partition; those that it doesn't tell are left out.
pub(crate) fn leader_epochs(list: &TopicPartitionList) -> Vec<(Partition, LeaderEpoch)> {
    (0..list.count())
        .filter_map(|at| {
            // SAFETY: the list is valid while it is borrowed, and has so many elements.
            let (partition, number) = unsafe {
                let element = (*list.ptr()).elems.add(at);
                let number = sys::rd_kafka_topic_partition_get_leader_epoch(element);
                (Partition((*element).partition), number)
            };
            Some((partition, epoch(number)?))
        })
        .collect()
}

/// Returns where the application is in a partition: behind the last record or transaction marker that it was handed.
///
/// # Safety
/// `client` is a valid consumer for the whole call, and `topic` is NUL-terminated and lives as long.
pub(crate) unsafe fn passed(
    client: *mut sys::rd_kafka_t,
    topic: *const c_char,
    partition: Partition,
) -> Option<Position> {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(topic) }.to_str().ok()?;
    let mut list = TopicPartitionList::new();
    list.add_partition(name, partition.0);
    // SAFETY: the client is valid by the caller's promise. The list is valid, is filled in during the call, and has the one
    // element that was added.
    let (offset, number) = unsafe {
        sys::rd_kafka_position(client, list.ptr());
        let element = (*list.ptr()).elems;
        let number = sys::rd_kafka_topic_partition_get_leader_epoch(element);
        ((*element).offset, number)
    };
    (offset >= 0).then(|| Position {
        offset: Offset::new(offset),
        leader_epoch: epoch(number),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_carries_the_epochs_that_are_known() {
        let known = Position {
            offset: Offset::new(7),
            leader_epoch: Some(LeaderEpoch(0)),
        };
        let list = list("t", [(Partition(3), known), (Partition(5), Offset::new(9).into())]);
        assert_eq!(leader_epochs(&list), [(Partition(3), LeaderEpoch(0))]);
        let offsets: Vec<_> = list.elements().iter().map(|element| element.offset()).collect();
        assert_eq!(offsets, [rdkafka::Offset::Offset(7), rdkafka::Offset::Offset(9)]);
    }
}
