//! How much one fetch may bring, so that it fits into memory once it is unpacked.
//!
//! librdkafka unpacks an answer whole, all partitions of it, before it looks at its own limits again, and nobody says before how
//! much an answer holds: ordinary logs grow tenfold, one letter ten thousandfold. So fetches begin small, what came over the
//! wire is compared with what it became, and the size follows.

/// The smallest that is asked for. A broker gives the first batch whole, however large it is.
const SMALLEST: usize = 1 << 10;

/// How much more than before may be asked for at a time: what comes then is at most so much more than what came.
const GROWTH: usize = 4;

/// What is left of the packing that was seen, each time it is looked at, where packing is less: one dull batch among lively
/// ones is remembered for a while.
const REMEMBERED: f64 = 0.98;

/// librdkafka's entry of one record, beside its key and value (2.12.1, `rd_kafka_op_t`).
const ENTRY_BYTES: usize = 400;

/// What a client received since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// Bytes over the wire, those of all answers.
    pub(crate) wire: u64,
    /// Records, those among them that nobody wanted any more.
    pub(crate) records: u64,
    /// Bytes of their keys and values.
    pub(crate) bytes: u64,
}

impl Received {
    /// Reads it from librdkafka's statistics; `None` if they aren't what they were.
    ///
    /// Source: librdkafka 2.12.1, STATISTICS.md, "Top-level structure"; its fields come last.
    pub(crate) fn parse(statistics: &[u8]) -> Option<Received> {
        let text = std::str::from_utf8(statistics).ok()?;
        let number = |name: &str| -> Option<u64> {
            let (_, after) = text.rsplit_once(name)?;
            let end = after
                .find(|letter: char| !letter.is_ascii_digit())
                .unwrap_or(after.len());
            after[..end].parse().ok()
        };
        Some(Received {
            wire: number("\"rx_bytes\":")?,
            records: number("\"rxmsgs\":")?,
            bytes: number("\"rxmsg_bytes\":")?,
        })
    }

    /// What the records hold in librdkafka's memory.
    fn unpacked(self) -> u64 {
        self.bytes + self.records * ENTRY_BYTES as u64
    }
}

/// The size of a fetch, in bytes over the wire.
#[derive(Debug)]
pub(crate) struct FetchSize {
    now: usize,
    most: usize,
    /// What one answer may become.
    unpacked_max: usize,
    /// How many bytes became of one.
    packing: f64,
    /// What one record lately came to.
    entry_bytes: usize,
    before: Received,
    /// The queue is longer than foreseen, and that was answered.
    braked: bool,
}

impl FetchSize {
    /// Begins with the smallest.
    ///
    /// - `most`: what is asked for at most; `unpacked_max`: what an answer may come to in memory.
    pub(crate) fn new(most: usize, unpacked_max: usize) -> FetchSize {
        FetchSize {
            now: SMALLEST,
            most: most.max(SMALLEST),
            unpacked_max,
            packing: 1.0,
            entry_bytes: ENTRY_BYTES,
            before: Received::default(),
            braked: false,
        }
    }

    /// What is to be asked for.
    pub(crate) fn bytes(&self) -> usize {
        self.now
    }

    /// What one record lately came to in librdkafka's memory, in bytes.
    pub(crate) fn entry_bytes(&self) -> usize {
        self.entry_bytes
    }

    /// Follows what was received.
    pub(crate) fn follow(&mut self, received: Received) {
        let wire = received.wire.saturating_sub(self.before.wire);
        let unpacked = received.unpacked().saturating_sub(self.before.unpacked());
        let records = received.records.saturating_sub(self.before.records);
        if records == 0 || wire < self.now as u64 {
            // Too little came that would tell: what was received may be counted before its records are, and records that are
            // compared with the wrong answer seem packed a thousandfold.
            return;
        }
        self.before = received;
        self.entry_bytes = usize::try_from(unpacked / records).unwrap_or(usize::MAX);
        self.packing = (unpacked as f64 / wire as f64).max(self.packing * REMEMBERED).max(1.0);
        self.fit(self.now.saturating_mul(GROWTH));
    }

    /// Follows what waits in the queue, which is known sooner.
    pub(crate) fn queued(&mut self, bytes: usize) {
        // The queue is filled up to its own limit, and one answer comes on top. Nothing is fetched while it is that long.
        let long = bytes > self.unpacked_max.saturating_mul(3);
        if long && !self.braked {
            self.fit(self.now / GROWTH);
        }
        self.braked = long;
    }

    /// Goes back to the smallest.
    pub(crate) fn shrink(&mut self) {
        self.now = SMALLEST;
    }

    fn fit(&mut self, most: usize) {
        let fits = (self.unpacked_max as f64 / self.packing) as usize;
        self.now = fits.min(most).min(self.most).max(SMALLEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Receives answers of the size that is asked for, each of records of `record` bytes packed so many times.
    fn after(size: &mut FetchSize, received: &mut Received, packing: u64, record: u64, answers: usize) {
        for _ in 0..answers {
            let wire = size.bytes() as u64;
            received.wire += wire;
            received.bytes += wire * packing;
            received.records += (wire * packing).div_ceil(record);
            size.follow(*received);
        }
    }

    #[test]
    fn a_fetch_fits_once_unpacked_however_well_it_was_packed() {
        for (packing, record) in [
            (1, 1_500),
            (10, 1_500),
            (100, 1_500),
            (2_000, 500_000),
            (1_000_000, 500_000),
        ] {
            let (mut size, mut received) = (FetchSize::new(1 << 20, 4 << 20), Received::default());
            for _ in 0..20 {
                after(&mut size, &mut received, packing, record, 1);
                let unpacked = size.bytes() as u64 * packing;
                assert!(size.bytes() == SMALLEST || unpacked <= 4 << 20, "{packing}: {unpacked}");
            }
            let expect = (4 << 20) / packing as usize * 7 / 10;
            assert!(
                size.bytes() >= expect.clamp(SMALLEST, 1 << 20),
                "{packing}: {}",
                size.bytes()
            );
        }
    }

    #[test]
    fn dull_records_behind_lively_ones_are_found_out() {
        let (mut size, mut received) = (FetchSize::new(1 << 20, 4 << 20), Received::default());
        after(&mut size, &mut received, 2, 1_500, 20);
        assert_eq!(size.bytes(), 1 << 20);
        size.queued(100 << 20);
        assert!(size.bytes() <= 512 << 10);
        after(&mut size, &mut received, 1_000, 500_000, 1);
        assert!(size.bytes() <= (4 << 20) / 1_000);
        // And forgotten again.
        after(&mut size, &mut received, 2, 1_500, 1_000);
        assert_eq!(size.bytes(), 1 << 20);
    }

    #[test]
    fn records_that_are_counted_after_their_answer_are_not_taken_for_packed_ones() {
        let (mut size, mut received) = (FetchSize::new(1 << 20, 4 << 20), Received::default());
        after(&mut size, &mut received, 2, 1_500, 20);
        // An answer is there, and its records come with the next look, in which hardly anything is received.
        received.wire += size.bytes() as u64;
        size.follow(received);
        received.wire += 100;
        received.bytes += 2 * size.bytes() as u64;
        received.records += 1_000;
        size.follow(received);
        after(&mut size, &mut received, 2, 1_500, 1);
        assert_eq!(size.bytes(), 1 << 20);
    }

    #[test]
    fn nothing_new_tells_nothing() {
        let (mut size, mut received) = (FetchSize::new(1 << 20, 4 << 20), Received::default());
        after(&mut size, &mut received, 10, 1_500, 1);
        let bytes = size.bytes();
        for _ in 0..100 {
            received.wire += 100; // Metadata and heartbeats.
            size.follow(received);
        }
        assert_eq!(size.bytes(), bytes);
        size.shrink();
        assert_eq!(size.bytes(), SMALLEST);
    }

    #[test]
    fn statistics_are_read_from_their_end() {
        let text = r#"{"name":"a","brokers":{"b":{"rxbytes":5}},"topics":{"t":{"partitions":{"0":{"rxmsgs":3,"rxbytes":4}}}},"rx":9,"rx_bytes":1234,"txmsgs":0,"rxmsgs":56,"rxmsg_bytes":789}"#;
        let expect = Received {
            wire: 1_234,
            records: 56,
            bytes: 789,
        };
        assert_eq!(Received::parse(text.as_bytes()), Some(expect));
        assert_eq!(Received::parse(b"{}"), None);
    }
}
