//! Events with values that are easily bent, and some that fit nowhere.

use fastrand::Rng;
use outpour_schemas::Envelope;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// The aggregate types. The orders' table has a materialised view on it.
pub(super) const KINDS: [&str; 2] = ["order", "payment"];
/// An aggregate type that no topic can have.
const UNPUBLISHABLE: &str = "no such topic!";

/// A note that a constraint of the tables refuses: it can be encoded, and
/// ClickHouse does not take it.
pub(super) const FORBIDDEN: &str = "forbidden";
/// The kind of poison that has it, after those that cannot be encoded.
const REFUSED: u8 = 5;

/// Larger than a topic takes while it is made to take small records only.
const BULK: std::ops::Range<usize> = 30_000..60_000;
/// What such a topic takes, in bytes.
pub(super) const TINY_BYTES: u32 = 20_000;

/// What has to become of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fate {
    /// A row.
    Stored,
    /// A row, or a dead letter of the relay's if its topic took only small ones.
    Bulky,
    /// A dead letter of the consumer's.
    Poison,
    /// A dead letter of the relay's.
    Unpublishable,
}

/// What the row of an event must hold, each value as ClickHouse writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Values {
    pub(super) amount: String,
    pub(super) quantity: i64,
    pub(super) small: u8,
    pub(super) note: String,
    pub(super) at: String,
    pub(super) maybe: Option<i32>,
    pub(super) tags: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) kind: &'static str,
    pub(super) key: String,
    pub(super) seq: i64,
    pub(super) fate: Fate,
    pub(super) values: Values,
    pub(super) envelope: Envelope,
}

impl Event {
    /// The `seq`th of its key.
    pub(super) fn new(random: &mut Rng, kind: &'static str, key: &str, seq: i64) -> Self {
        let fate = match random.u32(0..1000) {
            0..10 => Fate::Poison,
            10..13 => Fate::Bulky,
            13..15 => Fate::Unpublishable,
            _ => Fate::Stored,
        };
        let values = values(random, fate);
        let payload = payload(random, key, seq, fate, &values);
        let envelope = Envelope {
            id: Uuid::from_u128(random.u128(..)),
            aggregate_type: if fate == Fate::Unpublishable { UNPUBLISHABLE } else { kind }.into(),
            aggregate_id: key.to_owned(),
            event_type: format!("{kind}_placed"),
            payload: RawValue::from_string(payload).ok(),
            occurred_at: None,
            schema_version: 1,
            traceparent: None,
        };
        Self { kind, key: key.to_owned(), seq, fate, values, envelope }
    }
}

fn values(random: &mut Rng, fate: Fate) -> Values {
    const NOTES: [&str; 6] = [
        "",
        "plain",
        "Zürich — 東京 🗼",
        "\"quoted\\\"",
        "two\nlines\tand a tab",
        "'; DROP TABLE orders",
    ];
    let bulk = if fate == Fate::Bulky { "x".repeat(random.usize(BULK)) } else { String::new() };
    let tags = (0..random.usize(0..4)).map(|_| format!("t{}", random.u8(0..20))).collect();
    Values {
        amount: amount(random),
        quantity: random.choice([i64::MIN, i64::MAX, 0, -1, 1 << 53, (1 << 53) + 1]).unwrap_or(0)
            ^ random.i64(0..2),
        small: random.u8(..),
        note: format!("{}{bulk}", random.choice(NOTES).unwrap_or_default()),
        at: moment(random),
        maybe: random.bool().then(|| random.i32(..)),
        tags,
    }
}

/// Up to 26 digits before the point and 12 behind it, none of them a zero at the
/// end: no binary float holds such a number.
fn amount(random: &mut Rng) -> String {
    let digits = random.u32(1..26);
    let whole = random.u128(0..10u128.pow(digits));
    let fraction = format!("{:012}", random.u64(0..1_000_000_000_000));
    let fraction = fraction.trim_end_matches('0');
    let sign = if random.bool() && (whole > 0 || !fraction.is_empty()) { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

fn moment(random: &mut Rng) -> String {
    let (year, month, day) = (random.u16(1970..2099), random.u8(1..13), random.u8(1..29));
    let (hour, minute, second) = (random.u8(0..24), random.u8(0..60), random.u8(0..60));
    let micros = random.u32(0..1_000_000);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}")
}

/// The payload, which for poison has one field that fits no column.
fn payload(random: &mut Rng, key: &str, seq: i64, fate: Fate, values: &Values) -> String {
    let poison = (fate == Fate::Poison).then(|| random.u8(0..=REFUSED));
    let text = |value: &str| serde_json::Value::from(value).to_string();
    let Values { amount, quantity, small, note, at, maybe, tags } = values;
    let amount = match poison {
        Some(0) => "0.1234567890123".to_owned(),
        _ if random.bool() => amount.clone(),
        _ => text(amount),
    };
    let quantity =
        if poison == Some(1) { "9223372036854775808".to_owned() } else { quantity.to_string() };
    let small = if poison == Some(2) { "300".to_owned() } else { small.to_string() };
    let at = if poison == Some(3) { text("someday") } else { text(&at.replace(' ', "T")) };
    let tags =
        if poison == Some(4) { "{}".to_owned() } else { serde_json::json!(tags).to_string() };
    let note = if poison == Some(REFUSED) { FORBIDDEN } else { note };
    let maybe = maybe.map_or("null".to_owned(), |maybe| maybe.to_string());
    format!(
        r#"{{"key":{},"seq":{seq},"amount":{amount},"quantity":{quantity},"small":{small},"note":{},"at":{at},"maybe":{maybe},"tags":{tags}}}"#,
        text(key),
        text(note),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_fate_comes_and_every_payload_is_json() {
        let mut random = Rng::with_seed(3);
        let events: Vec<_> =
            (0..5000).map(|seq| Event::new(&mut random, "order", "k", seq)).collect();
        for fate in [Fate::Stored, Fate::Bulky, Fate::Poison, Fate::Unpublishable] {
            assert!(events.iter().any(|event| event.fate == fate), "{fate:?}");
        }
        for event in events {
            let payload: serde_json::Value =
                serde_json::from_str(event.envelope.payload_text().unwrap()).unwrap();
            assert_eq!(payload["seq"], event.seq);
        }
    }
}
