//! What the group gave to this consumer and how far each partition is read. Rebalances and the reader's rounds both
//! change it, on the same thread.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::kafka::fetch_size::Received;
use crate::offsets::{Partition, Position};

/// What this consumer does with one partition of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) generation: u64,
    pub(super) epoch: u64,
    pub(super) phase: Phase,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    /// Nobody has said yet where to begin; librdkafka doesn't know that the partition is ours.
    Waiting,
    /// `position` is the end of the last chunk that was made.
    Reading { position: Position },
    /// librdkafka must still be told; what comes in until then is stale.
    Seeking { to: Position, since: Instant },
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) generation: u64,
    pub(super) partitions: BTreeMap<Partition, Reading>,
    pub(super) reason: String,
    pub(super) stopping: bool,
    /// What the client has received, where it was told since it was last asked.
    pub(super) received: Option<Received>,
}

impl State {
    /// Makes every partition that is read be sought at its own position.
    ///
    /// Whatever comes of it until then is stale. Resuming after a rebalance, librdkafka 2.12.1 starts at the application's
    /// position (rdkafka_partition.c, `rd_kafka_toppar_pause_resume`), which a marker of a transaction moves even if it was
    /// fetched before a seek (rdkafka_op.c, `rd_kafka_op_handle_std` looks at no version): records would be skipped.
    /// It pauses only where it then calls back (rdkafka_cgrp.c:1260, 1380), so this covers every pause.
    pub(super) fn seek_where_read(&mut self) {
        for reading in self.partitions.values_mut() {
            if let Phase::Reading { position } = reading.phase {
                reading.phase = Phase::Seeking {
                    to: position,
                    since: Instant::now(),
                };
            }
        }
    }
}
