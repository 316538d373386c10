//! Made-up events of a shop: views, baskets, purchases of the last hours, the same at every call but for the time.

use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};
use uuid::Builder;

/// How far back the events begin.
const HOURS: i64 = 5;
/// Where in the first batch the record stands that was cut off.
const CUT_OFF_AT: usize = 1_234;
/// What the events begin with, any number.
const SEED: u64 = 0x5EED_0FA9_E210;

const COUNTRIES: [&str; 6] = ["DE", "FR", "US", "BR", "JP", "IN"];
const CATEGORIES: [&str; 5] = ["books", "garden", "kitchen", "music", "toys"];
const COUPONS: [&str; 3] = ["WELCOME10", "SPRING", "THANKYOU"];

/// One event as a Kafka record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// The user, so that a user's events stay in order.
    pub key: String,
    /// JSON, but for the one that was cut off.
    pub value: String,
    /// When it happened, in milliseconds since 1970.
    pub time_ms: i64,
}

/// A shop that goes on where it was.
#[derive(Debug)]
pub(super) struct Shop {
    random: Random,
    clock_ms: i64,
    step_ms: i64,
    sold: usize,
}

impl Shop {
    /// Opens a shop whose events began some hours before `now_ms`.
    pub fn open(now_ms: i64) -> Self {
        let span_ms = HOURS * 3_600_000;
        let events = super::EVENTS_AT_FIRST + super::EVENTS_LATER;
        let step_ms = span_ms / i64::try_from(events).expect("a few thousand");
        Shop {
            random: Random(SEED),
            clock_ms: now_ms - span_ms,
            step_ms,
            sold: 0,
        }
    }

    /// Makes the next events; `early` ones know no coupons yet, and one of them is cut off in the middle.
    pub fn events(&mut self, count: usize, early: bool) -> Vec<Event> {
        (0..count).map(|_| self.event(early)).collect()
    }

    fn event(&mut self, early: bool) -> Event {
        self.clock_ms += self.step_ms;
        // Phones report late: events don't come in the order of their times.
        let time_ms = self.clock_ms - self.random.below(90_000).cast_signed();
        let user = self.random.below(400) + 1;
        let kind = match self.random.below(100) {
            0..70 => "view",
            70..90 => "basket",
            _ => "purchase",
        };
        let cents = self.random.below(9_000) + 100;
        let mut event = Map::new();
        let id = Builder::from_random_bytes(self.random.bytes()).into_uuid();
        event.insert("event_id".into(), json!(id.to_string()));
        event.insert("type".into(), json!(kind));
        event.insert("occurred_at".into(), json!(iso(time_ms)));
        event.insert(
            "user".into(),
            json!({"id": user, "country": self.random.pick(&COUNTRIES)}),
        );
        // One cent of a hundred is never 0, so the price always has a fraction and is a double.
        let price = (cents - cents % 100 + 95) as f64 / 100.0;
        event.insert(
            "product".into(),
            json!({"sku": format!("SKU-{:04}", self.random.below(250)), "category": self.random.pick(&CATEGORIES), "price": price}),
        );
        if kind != "view" {
            event.insert("quantity".into(), json!(self.random.below(3) + 1));
        }
        if !early && kind == "purchase" {
            event.insert("coupon".into(), json!(self.random.pick(&COUPONS)));
        }
        let mut value = Value::Object(event).to_string();
        if early && self.sold == CUT_OFF_AT {
            value.truncate(value.len() * 2 / 3);
        }
        self.sold += 1;
        Event {
            key: format!("user-{user}"),
            value,
            time_ms,
        }
    }
}

fn iso(time_ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(time_ms).expect("the last hours are within chrono's range");
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// SplitMix64: even enough for a shop, and the same everywhere.
///
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn bytes(&mut self) -> [u8; 16] {
        (u128::from(self.next()) << 64 | u128::from(self.next())).to_be_bytes()
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        let index = self.below(from.len() as u64);
        from[usize::try_from(index).expect("below the length of a slice")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_event_is_no_json_and_all_lie_in_the_last_hours() {
        let now_ms = 1_767_225_600_000;
        let mut shop = Shop::open(now_ms);
        let mut events = shop.events(crate::cli::demo::EVENTS_AT_FIRST, true);
        events.extend(shop.events(crate::cli::demo::EVENTS_LATER, false));
        let broken = events
            .iter()
            .filter(|event| serde_json::from_str::<Value>(&event.value).is_err())
            .count();
        assert_eq!(broken, 1);
        let oldest_ms = now_ms - (HOURS * 3_600_000 + 90_000);
        assert!(
            events
                .iter()
                .all(|event| event.time_ms >= oldest_ms && event.time_ms <= now_ms)
        );
        let bytes: usize = events.iter().map(|event| event.value.len()).sum();
        assert!(
            bytes < 4 << 20,
            "the embedded broker keeps 5 MiB a partition, got {bytes}"
        );
    }

    #[test]
    fn every_price_has_a_fraction() {
        for event in Shop::open(1_767_225_600_000).events(500, false) {
            let value: Value = serde_json::from_str(&event.value).expect("later events are whole");
            assert!(value["product"]["price"].is_f64(), "{}", event.value);
        }
    }
}
