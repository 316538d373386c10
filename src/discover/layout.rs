//! Partitions by time, from how much there is of a day.

use super::Guess;

/// Records of a day below which partitions would be files of some hundred kilobytes: slower than none.
const DAY_RECORDS_MIN: u64 = 10_000;

/// Records in the topic below which nothing is worth a partition.
const TOPIC_RECORDS_MIN: u64 = 10_000;

/// What a day may come to before it is worth its hours: some ten full files of Iceberg's target size, 512 MiB, counted as
/// the topic has the values, which Parquet packs to about half.
const DAY_BYTES_MAX: u64 = 10 << 30;

/// The same for records that are small: a row group has some 100,000 of them, and a query of an hour shouldn't read more than a
/// few hundred.
const DAY_RECORDS_MAX: u64 = 50_000_000;

const DAY_US: u64 = 86_400_000_000;

/// The least time that a rate is taken over: a burst of a second is no day.
const SPAN_US_MIN: u64 = 3_600_000_000;

/// Guesses `partition`.
///
/// - `records`: in the topic; `mean_bytes`: of a value.
/// - `times_us`: event times of samples from both ends of the topic, microseconds since 1970.
pub(super) fn guess(records: u64, mean_bytes: u64, times_us: &[i64]) -> Option<Guess> {
    let (first, last) = (times_us.iter().min()?, times_us.iter().max()?);
    if records < TOPIC_RECORDS_MIN {
        return None;
    }
    let span_us = last.abs_diff(*first).max(SPAN_US_MIN);
    let of_day = u64::try_from(u128::from(records) * u128::from(DAY_US) / u128::from(span_us)).unwrap_or(u64::MAX);
    let bytes = of_day.saturating_mul(mean_bytes);
    let about = format!("about {} records a day, {}", rounded(of_day), megabytes(bytes));
    if of_day < DAY_RECORDS_MIN {
        None
    } else if of_day > DAY_RECORDS_MAX || bytes > DAY_BYTES_MAX {
        Some(Guess::new("[date, hour]", about))
    } else {
        Some(Guess::new("[date]", about))
    }
}

/// Two digits of a count say all that an estimate knows.
fn rounded(count: u64) -> String {
    let digits = count.checked_ilog10().unwrap_or(0);
    let unit = 10_u64.pow(digits.saturating_sub(1));
    let count = count / unit * unit;
    let text = count.to_string();
    let mut out = String::new();
    for (at, digit) in text.chars().enumerate() {
        if at > 0 && (text.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn megabytes(bytes: u64) -> String {
    match bytes >> 20 {
        0 => "less than 1 MiB".to_owned(),
        mebi if mebi < 10 << 10 => format!("{} MiB", rounded(mebi)),
        mebi => format!("{} GiB", rounded(mebi >> 10)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(records: u64, mean_bytes: u64, hours: i64, expect: Option<&str>) {
        let found = guess(records, mean_bytes, &[0, hours * 3_600_000_000]);
        let found = found.map(|guess| format!("{}: {}", guess.value, guess.reason));
        assert_eq!(found.as_deref(), expect, "{records} records in {hours} h");
    }

    #[test]
    fn partitions_follow_from_what_a_day_holds() {
        check(0, 0, 24, None);
        check(9_999, 100, 24, None);
        check(1_000_000, 100, 24 * 365, None);
        check(
            10_000,
            100,
            24,
            Some("[date]: about 10,000 records a day, less than 1 MiB"),
        );
        check(10_000, 100, 0, Some("[date]: about 240,000 records a day, 22 MiB"));
        check(
            50_000_000,
            100,
            24,
            Some("[date]: about 50,000,000 records a day, 4,700 MiB"),
        );
        check(
            50_000_001,
            100,
            24,
            Some("[date, hour]: about 50,000,000 records a day, 4,700 MiB"),
        );
        check(
            5_000_000,
            4000,
            24,
            Some("[date, hour]: about 5,000,000 records a day, 18 GiB"),
        );
        check(
            u64::MAX,
            u64::MAX,
            1,
            Some("[date, hour]: about 18,000,000,000,000,000,000 records a day, 17,000,000,000 GiB"),
        );
        assert_eq!(guess(1_000_000, 1, &[]), None);
        assert!(guess(u64::MAX, 1, &[i64::MIN, i64::MAX]).is_some());
    }
}
