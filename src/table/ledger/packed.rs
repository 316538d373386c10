//! A ledger in few bytes: as a whole, or what of it differs from the one that it was made of.
//!
//! All numbers are LEB128 varints; what a column repeats is stored as value and count. Partitions that didn't move since the
//! base aren't listed.
//!
//! | column | a number for each partition listed | a whole ledger of 1,000 | the differences |
//! |---|---|---|---|
//! | partitions | how many to skip, how many to take | 3 bytes | 3 bytes, where all moved |
//! | offsets | beyond that of the base | 5,000 to 6,000 (offsets up to 2^40) | 2,000 (up to 16,383 records of each) |
//! | windows | a run and a sequence, then which of these | 30 a window | 30 a window |
//! | leader epochs | the epoch; for differences, whether it is still the same | 2 for each change | 2 for each change |
//! | event times | how far behind the greatest | 1,000 to 4,000 | none |
//!
//! Event times are for those who watch, so differences leave them out: a ledger that is read from them has those of the whole one
//! that they begin at, which are never ahead.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::Ledger;
use crate::offsets::{LeaderEpoch, Offset, Partition};
use crate::table::WindowId;

/// Units that event times are multiples of, in microseconds: most of a topic are whole seconds or milliseconds.
const EVENT_TIME_UNITS: [i64; 3] = [1_000_000, 1_000, 1];

/// Numbers of one column in all partitions, more than any topic has: what says more isn't ours.
const PARTITIONS_MAX: u64 = 10_000_000;

/// Packs what of `ledger` differs from `base`; `None` where that can't be told so: another topic, a partition that is gone, or
/// one that went back.
pub(super) fn pack(ledger: &Ledger, base: Option<&Ledger>) -> Option<Vec<u8>> {
    let nothing = Ledger::new(String::new(), None, None);
    let whole = base.is_none();
    let base = base.unwrap_or(&nothing);
    if !whole
        && (&ledger.topic, &ledger.topic_id, &ledger.cluster_id) != (&base.topic, &base.topic_id, &base.cluster_id)
    {
        return None;
    }
    let kept = |partition: Partition| ledger.offsets.get(partition).is_some();
    let goes_on =
        |partition: &Partition| !base.windows.contains_key(partition) || ledger.windows.contains_key(partition);
    if !base
        .offsets
        .partitions()
        .all(|partition| kept(partition) && goes_on(&partition))
    {
        return None;
    }
    let listed: Vec<Partition> = ledger
        .offsets
        .partitions()
        .filter(|at| moved(ledger, base, *at))
        .collect();
    let mut out = Packer::default();
    out.runs(&listed);
    for partition in &listed {
        let at = |of: &Ledger| of.offsets.get(*partition).map_or(0, Offset::get);
        out.number(u64::try_from(at(ledger) - at(base)).ok()?);
    }
    out.windows(ledger, &listed);
    let epoch = |of: &Ledger, partition| of.leader_epochs.get(partition).copied();
    out.repeated(listed.iter().map(|partition| match epoch(ledger, partition) {
        same if !whole && same == epoch(base, partition) => 0,
        None => 1,
        Some(epoch) => 2 + u64::from(epoch.0.unsigned_abs()),
    }));
    if whole {
        out.event_times(ledger, &listed);
    }
    Some(out.bytes)
}

fn moved(ledger: &Ledger, base: &Ledger, partition: Partition) -> bool {
    ledger.offsets.get(partition) != base.offsets.get(partition)
        || ledger.windows.get(&partition) != base.windows.get(&partition)
        || ledger.leader_epochs.get(&partition) != base.leader_epochs.get(&partition)
}

/// Reads what [`pack`] wrote.
///
/// - `onto`: the base; for a whole ledger an empty one of its topic.
///
/// # Errors
/// What is wrong with the bytes.
pub(super) fn unpack(bytes: &[u8], onto: &Ledger, whole: bool) -> Result<Ledger, String> {
    let mut ledger = onto.clone();
    let mut from = Unpacker { bytes };
    let listed = from.runs()?;
    for partition in &listed {
        let more = i64::try_from(from.number()?).ok();
        let at = ledger.offsets.get(*partition).map_or(0, Offset::get);
        let at = more
            .and_then(|more| at.checked_add(more))
            .ok_or("an offset is too large")?;
        ledger.offsets.set(*partition, Offset::new(at));
    }
    from.windows(&mut ledger, &listed)?;
    for (partition, code) in listed.iter().zip(from.repeated(listed.len())?) {
        match code {
            0 => {}
            1 => drop(ledger.leader_epochs.remove(partition)),
            code => {
                let epoch = i32::try_from(code - 2).map_err(|_| "a leader epoch is too large")?;
                ledger.leader_epochs.insert(*partition, LeaderEpoch(epoch));
            }
        }
    }
    if whole {
        from.event_times(&mut ledger, &listed)?;
    }
    match from.bytes {
        [] => Ok(ledger),
        more => Err(format!("{} bytes more than expected", more.len())),
    }
}

/// A number that two ledgers hardly share, their event times aside: FNV-1a of 64 bits over the packed bytes.
///
/// It tells a slip (a property that somebody set, a snapshot that isn't the one meant), not a forger.
pub(super) fn sum(ledger: &Ledger) -> u64 {
    let timeless = Ledger {
        event_times: BTreeMap::new(),
        ..ledger.clone()
    };
    let bytes = pack(&timeless, None).expect("a whole ledger can always be told");
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[derive(Default)]
struct Packer {
    bytes: Vec<u8>,
}

impl Packer {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// Which partitions: so many runs, of each how many to skip and how many to take.
    fn runs(&mut self, listed: &[Partition]) {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut next = 0;
        for Partition(at) in listed {
            match runs.last_mut() {
                Some((_, length)) if *at == next => *length += 1,
                _ => runs.push((u64::from(at.abs_diff(next)), 1)),
            }
            next = at + 1;
        }
        self.number(runs.len() as u64);
        for (skipped, length) in runs {
            self.number(skipped);
            self.number(length);
        }
    }

    fn repeated(&mut self, values: impl Iterator<Item = u64>) {
        let mut current: Option<(u64, u64)> = None;
        for value in values {
            match &mut current {
                Some((held, times)) if *held == value => *times += 1,
                _ => {
                    if let Some((held, times)) = current.replace((value, 1)) {
                        self.number(held);
                        self.number(times);
                    }
                }
            }
        }
        if let Some((held, times)) = current {
            self.number(held);
            self.number(times);
        }
    }

    fn windows(&mut self, ledger: &Ledger, listed: &[Partition]) {
        let of = |partition: &Partition| ledger.windows.get(partition).copied();
        let mut windows: Vec<WindowId> = listed.iter().filter_map(of).collect();
        windows.sort_unstable();
        windows.dedup();
        let mut runs: Vec<Uuid> = windows.iter().map(|window| window.run).collect();
        runs.dedup();
        self.number(runs.len() as u64);
        runs.iter().for_each(|run| self.bytes.extend(run.as_bytes()));
        self.number(windows.len() as u64);
        for window in &windows {
            let run = runs.binary_search(&window.run).expect("every window's run is listed");
            self.number(run as u64);
            self.number(window.sequence);
        }
        self.repeated(listed.iter().map(|partition| match of(partition) {
            None => 0,
            Some(window) => 1 + windows.binary_search(&window).expect("every window is listed") as u64,
        }));
    }

    fn event_times(&mut self, ledger: &Ledger, listed: &[Partition]) {
        let times: Vec<Option<i64>> = listed.iter().map(|at| ledger.event_times.get(at).copied()).collect();
        let known = || times.iter().flatten();
        let Some(greatest) = known().max().copied() else {
            self.number(0);
            return;
        };
        let whole = |unit: &&i64| known().all(|time| time % **unit == 0);
        let unit = EVENT_TIME_UNITS.iter().find(whole).copied().unwrap_or(1);
        self.number(unit.unsigned_abs());
        // Zigzag: times before 1970 are small numbers too.
        self.number(((greatest << 1) ^ (greatest >> 63)).cast_unsigned());
        for time in &times {
            self.number(time.map_or(0, |time| 1 + greatest.abs_diff(time) / unit.unsigned_abs()));
        }
    }
}

struct Unpacker<'a> {
    bytes: &'a [u8],
}

impl Unpacker<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let (taken, left) = self.bytes.split_at_checked(count).ok_or("it ends too early")?;
        self.bytes = left;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let part = u64::from(byte & 0x7f);
            if (part << shift) >> shift != part {
                break;
            }
            number |= part << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number is too large".to_owned())
    }

    fn count(&mut self) -> Result<usize, String> {
        let number = self.number()?;
        match number <= PARTITIONS_MAX {
            true => Ok(number as usize),
            false => Err(format!("it counts {number}")),
        }
    }

    fn runs(&mut self) -> Result<Vec<Partition>, String> {
        let (mut listed, mut next) = (Vec::new(), 0i32);
        for _ in 0..self.count()? {
            let (skipped, length) = (self.count()?, self.count()?);
            let past = listed.len() + length;
            if past as u64 > PARTITIONS_MAX {
                return Err(format!("it lists {past} partitions"));
            }
            let begin = i64::from(next) + skipped as i64;
            let end = i32::try_from(begin + length as i64).map_err(|_| "a partition's number is too large")?;
            listed.extend((begin as i32..end).map(Partition));
            next = end;
        }
        Ok(listed)
    }

    fn repeated(&mut self, length: usize) -> Result<Vec<u64>, String> {
        let mut values = Vec::with_capacity(length);
        // Ends: each round adds one value at least.
        while values.len() < length {
            let (value, times) = (self.number()?, self.count()?);
            if times == 0 || values.len() + times > length {
                return Err("a column isn't as long as the others".to_owned());
            }
            values.extend(std::iter::repeat_n(value, times));
        }
        Ok(values)
    }

    fn windows(&mut self, ledger: &mut Ledger, listed: &[Partition]) -> Result<(), String> {
        let mut runs = Vec::new();
        for _ in 0..self.count()? {
            let bytes = self.take(16)?;
            runs.push(Uuid::from_slice(bytes).map_err(|error| error.to_string())?);
        }
        let mut windows = Vec::new();
        for _ in 0..self.count()? {
            let (run, sequence) = (self.count()?, self.number()?);
            let run = *runs.get(run).ok_or("a window is of no run")?;
            windows.push(WindowId { run, sequence });
        }
        for (partition, code) in listed.iter().zip(self.repeated(listed.len())?) {
            match code.checked_sub(1) {
                None => drop(ledger.windows.remove(partition)),
                Some(index) => {
                    let found = usize::try_from(index).ok().and_then(|index| windows.get(index));
                    ledger
                        .windows
                        .insert(*partition, *found.ok_or("a window isn't listed")?);
                }
            }
        }
        Ok(())
    }

    fn event_times(&mut self, ledger: &mut Ledger, listed: &[Partition]) -> Result<(), String> {
        let unit = self.number()?;
        if unit == 0 {
            return Ok(());
        }
        let greatest = self.number()?;
        let greatest = (greatest >> 1).cast_signed() ^ -(greatest & 1).cast_signed();
        for partition in listed {
            let Some(behind) = self.number()?.checked_sub(1) else {
                continue;
            };
            let behind = behind.checked_mul(unit).and_then(|behind| i64::try_from(behind).ok());
            let time = behind.and_then(|behind| greatest.checked_sub(behind));
            ledger
                .event_times
                .insert(*partition, time.ok_or("an event time is too early")?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ledgers() -> impl Strategy<Value = (Ledger, Ledger)> {
        let window = (0u128..4, 0u64..300).prop_map(|(run, sequence)| WindowId {
            run: Uuid::from_u128(run << 100 | run),
            sequence,
        });
        let time = prop_oneof![
            Just(None),
            any::<i32>().prop_map(|at| Some(i64::from(at) * 1_000)),
            (-4_000_000_000_000_000i64..4_000_000_000_000_000).prop_map(Some)
        ];
        let partition = (
            (0i64..1 << 40, 0i64..1 << 22),
            proptest::option::of(window.clone()),
            window,
            proptest::option::of(0i32..5),
            proptest::option::of(0i32..i32::MAX),
            time,
            any::<(bool, bool)>(),
        );
        proptest::collection::btree_map(0i32..200, partition, 0..60).prop_map(|partitions| {
            let new = || Ledger::new("t".into(), Some("id".into()), None);
            let (mut base, mut ledger) = (new(), new());
            for (number, ((from, more), window, later, epoch, later_epoch, time, (known, moves))) in partitions {
                let partition = Partition(number);
                let put = |of: &mut Ledger, offset, window: Option<WindowId>, epoch: Option<i32>| {
                    of.offsets.set(partition, Offset::new(offset));
                    of.windows.extend(window.map(|window| (partition, window)));
                    of.leader_epochs
                        .extend(epoch.map(|epoch| (partition, LeaderEpoch(epoch))));
                };
                if known {
                    put(&mut base, from, window, epoch);
                }
                match moves {
                    true => put(&mut ledger, from + more, Some(later), later_epoch),
                    false => put(&mut ledger, from, window, epoch),
                }
                ledger.event_times.extend(time.map(|time| (partition, time)));
            }
            (base, ledger)
        })
    }

    proptest! {
        #[test]
        fn what_is_packed_is_read_back((base, ledger) in ledgers()) {
            let empty = Ledger::new("t".into(), Some("id".into()), None);
            let whole = pack(&ledger, None).expect("a whole ledger can always be told");
            prop_assert_eq!(unpack(&whole, &empty, true), Ok(ledger.clone()));
            let differences = pack(&ledger, Some(&base)).expect("it goes on from the base");
            let read = unpack(&differences, &base, false).expect("readable");
            prop_assert_eq!(&read.event_times, &base.event_times);
            prop_assert_eq!(sum(&read), sum(&ledger));
            let expect = Ledger { event_times: base.event_times.clone(), ..ledger.clone() };
            prop_assert_eq!(read, expect);
            prop_assert_eq!(sum(&ledger) == sum(&base), (&ledger.offsets, &ledger.windows, &ledger.leader_epochs) == (&base.offsets, &base.windows, &base.leader_epochs));
        }

        #[test]
        fn what_is_not_ours_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), whole: bool) {
            let _ = unpack(&bytes, &Ledger::new("t".into(), None, None), whole);
        }

        #[test]
        fn what_was_cut_short_or_goes_on_is_an_error((_, ledger) in ledgers(), keep in 0.0..1.0f64) {
            let mut whole = pack(&ledger, None).expect("a whole ledger can always be told");
            let empty = Ledger::new("t".into(), None, None);
            let cut = (whole.len() as f64 * keep) as usize;
            prop_assert!(unpack(&whole[..cut], &empty, true).is_err());
            whole.push(0);
            prop_assert!(unpack(&whole, &empty, true).is_err());
        }
    }

    #[test]
    fn what_did_not_go_on_from_the_base_is_not_told_as_differences() {
        let of = |topic: &str, offsets: &[(i32, i64)]| {
            let mut ledger = Ledger::new(topic.into(), None, None);
            offsets
                .iter()
                .for_each(|(partition, at)| ledger.offsets.set(Partition(*partition), Offset::new(*at)));
            ledger
        };
        let base = of("t", &[(0, 5), (1, 5)]);
        for other in [
            of("t", &[(0, 4), (1, 5)]),
            of("t", &[(0, 9)]),
            of("u", &[(0, 5), (1, 5)]),
        ] {
            assert_eq!(pack(&other, Some(&base)), None, "{other:?}");
        }
        assert!(pack(&of("t", &[(0, 5), (1, 6), (2, 0)]), Some(&base)).is_some());
    }
}
