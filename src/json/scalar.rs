//! Reading single values from their text: decimals, dates, times.

/// Returns the number written in `text`, a JSON number, times 10^`scale`, if that is an integer below 10^38.
pub(crate) fn decimal(text: &str, scale: i64) -> Option<i128> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], saturating(&text[at + 1..])?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let mut shift = exponent.saturating_add(scale).saturating_sub(fraction.len() as i64);
    let mut whole = whole;
    if fraction.is_empty() {
        let short = whole.trim_end_matches('0');
        shift = shift.saturating_add((whole.len() - short.len()) as i64);
        whole = short;
    }
    let digits = whole.trim_start_matches('0').bytes().chain(fraction.bytes());
    let mut value: i128 = 0;
    for (count, digit) in digits.enumerate() {
        // 38 significant digits stay below 2^127; a zero behind the point of `0.01` is one too much at worst.
        if !digit.is_ascii_digit() || count > 38 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    if value == 0 {
        return Some(0);
    }
    // The last digit isn't 0, so a negative shift would leave a fraction.
    let power = u32::try_from(shift).ok().filter(|power| *power <= 38)?;
    let value = value.checked_mul(10i128.checked_pow(power)?)?;
    Some(if negative { -value } else { value })
}

fn saturating(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let size = digits
        .bytes()
        .try_fold(0i64, |sum, digit| {
            digit
                .is_ascii_digit()
                .then(|| sum.saturating_mul(10).saturating_add(i64::from(digit - b'0')))
        })?
        .min(1 << 40);
    Some(if negative { -size } else { size })
}

/// A moment as written: seconds since 1970-01-01T00:00, in UTC if there is an offset, and the nanoseconds behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds of the second.
    pub nanos: u32,
    /// Written with `Z` or an offset.
    pub zoned: bool,
}

/// Reads `YYYY-MM-DD` as days since 1970-01-01.
pub(crate) fn date(text: &[u8]) -> Option<i32> {
    let &[a, b, c, d, b'-', e, f, b'-', g, h] = text else {
        return None;
    };
    let year = number(&[a, b, c, d])?;
    let month = number(&[e, f])?;
    let day = number(&[g, h])?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if day < 1 || day > longest {
        return None;
    }
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (i64::from(month) + if month > 2 { -3 } else { 9 }) + 2) / 5 + i64::from(day) - 1;
    i32::try_from(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468).ok()
}

/// Reads `HH:MM`, `HH:MM:SS` or `HH:MM:SS.fraction` as seconds and nanoseconds; digits beyond nanoseconds are cut.
pub(crate) fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (clock, fraction) = match text.iter().position(|byte| matches!(byte, b'.' | b',')) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let (hour, minute, second) = match *clock {
        [a, b, b':', c, d] if fraction.is_none() => (number(&[a, b])?, number(&[c, d])?, 0),
        [a, b, b':', c, d, b':', e, f] => (number(&[a, b])?, number(&[c, d])?, number(&[e, f])?),
        _ => return None,
    };
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut nanos = 0;
    if let Some(fraction) = fraction {
        if fraction.is_empty() || !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        for place in 0..9 {
            nanos = nanos * 10 + u32::from(fraction.get(place).map_or(0, |digit| digit - b'0'));
        }
    }
    Some((i64::from(hour * 3600 + minute * 60 + second), nanos))
}

/// Reads a date and a time with `T` or a space between, and `Z` or an offset (`+02:00`, `+0200`, `+02`) or neither.
pub(crate) fn moment(text: &[u8]) -> Option<Moment> {
    if text.len() < 16 || !matches!(text[10], b'T' | b't' | b' ') {
        return None;
    }
    let days = date(&text[..10])?;
    let rest = &text[11..];
    let (clock, zone) = match rest.iter().position(|byte| matches!(byte, b'Z' | b'z' | b'+' | b'-')) {
        Some(at) => (rest[..at].trim_ascii_end(), &rest[at..]),
        None => (rest, &rest[rest.len()..]),
    };
    let (seconds, nanos) = time(clock)?;
    let offset = match *zone {
        [] | [b'Z' | b'z'] => 0,
        [sign, a, b] => shift(sign, number(&[a, b])?, 0)?,
        [sign, a, b, c, d] | [sign, a, b, b':', c, d] => shift(sign, number(&[a, b])?, number(&[c, d])?)?,
        _ => return None,
    };
    Some(Moment {
        seconds: i64::from(days) * 86_400 + seconds - offset,
        nanos,
        zoned: !zone.is_empty(),
    })
}

fn shift(sign: u8, hours: u32, minutes: u32) -> Option<i64> {
    let seconds = i64::from(hours * 3600 + minutes * 60);
    match sign {
        b'+' if hours <= 18 && minutes <= 59 => Some(seconds),
        b'-' if hours <= 18 && minutes <= 59 => Some(-seconds),
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |sum, digit| {
        digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0'))
    })
}
