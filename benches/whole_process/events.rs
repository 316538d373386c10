//! The events that are measured with: the same in every run.

use std::fmt::Write as _;

/// Bytes of every event.
pub const EVENT_BYTES: usize = 200;

/// Kafka partitions that the events are spread over, one after the other.
pub const PARTITIONS: u64 = 4;

/// The amounts are whole cents, so that their sum has one right value; this many of them are a unit.
pub const CENTS: u64 = 100;

/// Writes the `n`-th of `total` events behind what is in `text`: a JSON object of nine fields and [`EVENT_BYTES`], at its
/// place in the course of one day.
pub fn event(n: u64, total: u64, text: &mut String) {
    let mixed = mixed(n);
    let end = text.len() + EVENT_BYTES;
    let country = ["DE", "FR", "US", "JP", "BR", "IN", "GB", "CA"][(mixed % 8) as usize];
    let kind = ["view", "click", "order", "search"][(mixed >> 8) as usize % 4];
    let timestamp = 1_700_000_000_000 + n * 86_400_000 / total;
    let cents = cents(n);
    write!(
        text,
        r#"{{"id":{n},"user_id":{},"type":"{kind}","country":"{country}","amount":{}.{:02},"timestamp":{timestamp},"session":"{mixed:016x}","ok":{},"note":""#,
        mixed % 1_000_000,
        cents / CENTS,
        cents % CENTS,
        mixed.is_multiple_of(3),
    )
    .expect("a string takes everything");
    let mut filler = mixed;
    while text.len() < end - 2 {
        text.push(char::from(b'a' + (filler % 26) as u8));
        filler = filler.rotate_right(5);
    }
    text.push_str("\"}");
}

/// The amount of the `n`-th event.
pub fn cents(n: u64) -> u64 {
    mixed(n) % 50_000
}

fn mixed(n: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(31)
        .wrapping_mul(0xBF58_476D_1CE4_E5B9)
}
