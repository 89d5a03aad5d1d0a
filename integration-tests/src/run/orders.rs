//! A few orders, for their money: amounts that binary floats bend.

use anyhow::{Context, Result};
use outpour_schemas::{Envelope, Event, Money, identity};
use serde::Serialize;

/// Written as ClickHouse writes a Decimal, without zeros at the end, so that
/// they can be compared as text. The largest fill Decimal(18, 4) to its limit.
pub(super) const AMOUNTS: [&str; 12] = [
    "0.1",
    "0.2",
    "0.3",
    "19.9999",
    "123456789012.3456",
    "-0.0001",
    "0",
    "4.35",
    "1.005",
    "-20",
    "99999999999999.9999",
    "-99999999999999.9999",
];

#[derive(Debug, Serialize)]
struct OrderPlaced {
    order_id: u64,
    total: Money,
    lines: u16,
}

impl Event for OrderPlaced {
    const AGGREGATE_TYPE: &'static str = "order";

    fn aggregate_id(&self) -> String {
        self.order_id.to_string()
    }
}

/// The outbox rows of all orders; order n has the n-th amount.
pub(super) fn envelopes() -> Result<Vec<Envelope>> {
    let order = |(order_id, amount): (u64, &str)| {
        let total = amount.parse().with_context(|| format!("`{amount}` is no amount"))?;
        let order = OrderPlaced { order_id, total, lines: 1 };
        let id = identity::derived_event_id(OrderPlaced::AGGREGATE_TYPE, &order_id.to_string());
        Ok(Envelope { id, ..Envelope::of(&order)? })
    };
    (0..).zip(AMOUNTS).map(order).collect()
}

/// Amounts that did not come through as they are, given those that did come,
/// in the order of their orders.
pub(super) fn differences(found: &[String]) -> Vec<String> {
    let count = (found.len() != AMOUNTS.len())
        .then(|| format!("orders: {} amounts, expected {}", found.len(), AMOUNTS.len()));
    let bent = AMOUNTS.iter().zip(found).filter(|(expected, found)| *expected != found);
    count
        .into_iter()
        .chain(bent.map(|(expected, found)| format!("orders: amount {expected} became {found}")))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_text_in_the_payload() {
        let envelopes = envelopes().unwrap();
        assert_eq!(
            envelopes[3].payload_text(),
            Some(r#"{"order_id":3,"total":"19.9999","lines":1}"#)
        );
    }

    #[test]
    fn a_bent_amount_is_told() {
        let mut found = AMOUNTS.map(str::to_owned).to_vec();
        assert_eq!(differences(&found), Vec::<String>::new());
        found[0] = "0.10000000000000001".to_owned();
        assert_eq!(differences(&found), ["orders: amount 0.1 became 0.10000000000000001"]);
        assert_eq!(differences(&found[..11]).len(), 2);
    }
}
