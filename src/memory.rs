//! What the process may hold in memory (`--memory`), how that is divided, and what is held of it.
//!
//! What grows with the data is counted by its owner: each has a [`Held`] and says how much it is. The rest of the limit is for
//! what doesn't: the program itself, its clients, and what the allocator keeps between two uses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a batch may come to however little memory there is: brokers take one of 1 MiB unless their owner says otherwise.
const BATCH_BYTES_MIN: usize = 16 << 20;

/// What the program holds before it reads a record: its code, its clients, their threads and tables.
const PROGRAM_BYTES: u64 = 64 << 20;

/// The most that the queues of one pipeline get, however much there is: what lies there longer than the processor's caches
/// keep it is read from memory again (`make bench`, with limits of 8 to 56 MiB: 20 cost 6 % less CPU than 56, and below 16 the
/// lines wait for Kafka).
const QUEUES_BYTES_MAX: usize = 20 << 20;

/// The least that one pipeline is given: a chunk, a fetch, and some rows, a MiB or more of each.
const PIPELINE_BYTES_MIN: u64 = 8 << 20;

/// What a process may hold where nobody says otherwise and its tables can do with it.
pub const LIMIT_DEFAULT: u64 = 512 << 20;

/// What counted memory is held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// What waits in librdkafka's queues, unpacked: as many entries as are there, each as large as they lately were.
    Queues,
    /// Chunks between Kafka and the lines.
    Chunks,
    /// Rows that wait to be encoded, open encoders, and encoded bytes on their way to the store.
    Files,
    /// Dead letters, from their chunk until they are stored.
    Letters,
}

impl Purpose {
    /// All purposes, in the order of a record's path.
    pub const ALL: [Purpose; 4] = [Purpose::Queues, Purpose::Chunks, Purpose::Files, Purpose::Letters];

    /// Its name in reports and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Queues => "queues",
            Purpose::Chunks => "chunks",
            Purpose::Files => "files",
            Purpose::Letters => "letters",
        }
    }
}

/// The memory of a process: the limit, and what is counted of its use; clones share it.
///
/// Read without order: a look at it while others write is as good as one a moment earlier.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    /// What counts too whatever is counted here.
    whole: Option<Memory>,
    limit: u64,
    of: [AtomicU64; Purpose::ALL.len()],
    all: AtomicU64,
    peak: AtomicU64,
}

impl Memory {
    /// Makes the memory of a process that may use `limit` bytes.
    pub fn new(limit: u64) -> Memory {
        Memory::counting(None, limit)
    }

    fn counting(whole: Option<Memory>, limit: u64) -> Memory {
        Memory(Arc::new(Counts {
            whole,
            limit,
            of: Default::default(),
            all: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        }))
    }

    /// Begins to count one part of the process, such as a pipeline, by itself; it counts here as well.
    pub fn part(&self) -> Memory {
        Memory::counting(Some(self.clone()), self.0.limit)
    }

    /// The limit, `--memory`, in bytes.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// What is held for `purpose` now, in bytes.
    pub fn held_for(&self, purpose: Purpose) -> u64 {
        self.0.of[purpose as usize].load(Ordering::Relaxed)
    }

    /// What is held for all purposes now, in bytes.
    pub fn held(&self) -> u64 {
        self.0.all.load(Ordering::Relaxed)
    }

    /// The most that was held at once, in bytes.
    pub fn held_peak(&self) -> u64 {
        self.0.peak.load(Ordering::Relaxed)
    }

    /// Begins to count what one owner holds; nothing yet.
    pub fn hold(&self, purpose: Purpose) -> Held {
        Held {
            memory: self.clone(),
            purpose,
            bytes: 0,
        }
    }

    /// The limit of `pipelines` in one process where nobody sets one: [`LIMIT_DEFAULT`], or what they take where that is more.
    pub fn default_for(pipelines: usize) -> u64 {
        LIMIT_DEFAULT.max(Memory::least_for(pipelines))
    }

    /// The smallest limit that `pipelines` in one process can be held to.
    pub fn least_for(pipelines: usize) -> u64 {
        PROGRAM_BYTES + PIPELINE_BYTES_MIN * pipelines as u64
    }

    /// Divides the limit between `pipelines` of one process, and within each.
    ///
    /// What the program itself needs is set aside first, and at least three eighths of the rest stay undivided: see the module.
    pub fn share_of_one_in(&self, pipelines: usize) -> Shares {
        let data = self.0.limit.saturating_sub(PROGRAM_BYTES).max(self.0.limit / 4);
        let own = usize::try_from(data / pipelines.max(1) as u64).unwrap_or(usize::MAX);
        Shares {
            queues: (own / 8).min(QUEUES_BYTES_MAX),
            chunks: own / 8,
            files: own / 8 * 3,
            pipelines,
        }
    }
}

impl Shares {
    /// What one batch of records may come to once it is unpacked: half of all that the pipeline has, since its records are
    /// copied into chunks while it is there. Never less than what brokers take into a batch, which comes as it is where it
    /// wasn't packed.
    pub fn batch(&self) -> usize {
        (self.chunks * 4).clamp(BATCH_BYTES_MIN, i32::MAX as usize)
    }
}

/// The parts of the limit that one pipeline may use, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Of [`Purpose::Queues`].
    pub queues: usize,
    /// Of [`Purpose::Chunks`] and [`Purpose::Letters`] together: letters take the place of the chunks they came in.
    pub chunks: usize,
    /// Of [`Purpose::Files`].
    pub files: usize,
    /// How many pipelines share the process.
    pub pipelines: usize,
}

/// What one owner holds; nothing any more once it is dropped.
#[derive(Debug)]
pub struct Held {
    memory: Memory,
    purpose: Purpose,
    bytes: u64,
}

impl Held {
    /// Says how much is held now, in bytes.
    pub fn set(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        let mut next = Some(&self.memory);
        // Ends: a part is made of what was there before it.
        while let Some(memory) = next {
            let Counts {
                whole, of, all, peak, ..
            } = &*memory.0;
            let of = &of[self.purpose as usize];
            if bytes >= self.bytes {
                let more = bytes - self.bytes;
                of.fetch_add(more, Ordering::Relaxed);
                peak.fetch_max(all.fetch_add(more, Ordering::Relaxed) + more, Ordering::Relaxed);
            } else {
                let less = self.bytes - bytes;
                of.fetch_sub(less, Ordering::Relaxed);
                all.fetch_sub(less, Ordering::Relaxed);
            }
            next = whole.as_ref();
        }
        self.bytes = bytes;
    }

    /// Returns how much is held, in bytes.
    pub fn bytes(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_counted_by_purpose_and_at_its_peak() {
        let process = Memory::new(1_000);
        let memory = process.part();
        let mut rows = memory.hold(Purpose::Files);
        let mut letters = memory.hold(Purpose::Letters);
        rows.set(300);
        letters.set(50);
        rows.set(100);
        assert_eq!((memory.held(), memory.held_peak()), (150, 350));
        assert_eq!(memory.held_for(Purpose::Files), 100);
        assert_eq!((process.held(), process.held_for(Purpose::Letters)), (150, 50));
        assert_eq!(process.part().held(), 0);
        drop(rows);
        drop(letters);
        assert_eq!((memory.held(), memory.held_peak()), (0, 350));
    }

    #[test]
    fn shares_leave_room_for_what_is_not_counted() {
        for (limit_mib, pipelines) in [(16, 1), (64, 1), (128, 2), (512, 1), (512, 10), (16_384, 3)] {
            let Shares {
                queues, chunks, files, ..
            } = Memory::new(limit_mib << 20).share_of_one_in(pipelines);
            assert_eq!(Memory::default_for(56), LIMIT_DEFAULT);
            assert_eq!(Memory::default_for(60), Memory::least_for(60));
            let all = ((queues + chunks + files) * pipelines) as u64;
            assert!(queues > 0 && chunks > 0 && files > 0, "{limit_mib} MiB");
            assert!(all <= (limit_mib << 20) * 5 / 8, "{limit_mib} MiB: {all}");
        }
    }
}
