//! Values for a type, as a payload writes them, with what ClickHouse must then
//! show. Everything here is reckoned with decimal text, unlike in the encoder.

mod nested;
mod number;
mod time;

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use self::{
    nested::{document, list, map, named_tuple, quoted, text},
    number::{decimal, float, integer, spoiled},
    time::{date, date_time, date_time64, time},
};
use super::{
    dice::Dice,
    kind::{ENUM8, ENUM16, Kind},
};

/// What ClickHouse shows.
#[derive(Debug, Clone)]
pub(super) enum Shown {
    Null,
    Bool(bool),
    /// A number without fraction that may be quoted, or text.
    Text(String),
    Float(f64),
    Float32(f32),
    Address(Ipv6Addr),
    List(Vec<Shown>),
    Fields(Vec<(String, Shown)>),
}

impl Shown {
    pub(super) fn is(&self, found: &Value) -> bool {
        match (self, found) {
            (Shown::Null, Value::Null) => true,
            (Shown::Bool(expected), Value::Bool(found)) => expected == found,
            (Shown::Text(expected), Value::String(found)) => expected == found,
            (Shown::Text(expected), Value::Number(found)) => *expected == found.to_string(),
            (Shown::Float(expected), Value::String(found)) => Ok(*expected) == found.parse(),
            (Shown::Float32(expected), Value::Number(found)) => {
                Some(*expected) == found.as_f64().map(|found| found as f32)
            }
            (Shown::Address(expected), Value::String(found)) => Ok(*expected) == found.parse(),
            (Shown::List(expected), Value::Array(found)) => {
                expected.len() == found.len() && expected.iter().zip(found).all(|(e, f)| e.is(f))
            }
            (Shown::Fields(expected), Value::Object(found)) => {
                let is =
                    |(name, shown): &(String, Shown)| found.get(name).is_some_and(|f| shown.is(f));
                expected.len() == found.len() && expected.iter().all(is)
            }
            _ => false,
        }
    }
}

/// JSON text, and what it is shown as; `None` if it must be refused.
pub(super) type Written = (String, Option<Shown>);

impl Kind {
    pub(super) fn value(&self, dice: &mut Dice) -> Written {
        if !self.takes_null() && dice.is_misfit() {
            return ("null".into(), None);
        }
        match self {
            Kind::Nullable(_) if dice.one_in(4) => ("null".into(), Some(Shown::Null)),
            Kind::Nullable(inner) => match inner.value(dice) {
                (json, None) if json == "null" => (json, Some(Shown::Null)),
                written => written,
            },
            Kind::LowCardinality(inner) | Kind::SimpleAggregate(inner) => inner.value(dice),
            Kind::Integer { bits, signed } => integer(*bits, *signed, dice),
            Kind::Decimal(precision, scale) => decimal(*precision, *scale, dice),
            Kind::BFloat16 => {
                let bits = dice.bits() as u32 & 0xffff_0000;
                let value = f32::from_bits(bits);
                float(format!("{value:e}"), Shown::Float32(value), value.is_finite(), dice)
            }
            Kind::Float32 => {
                let value = f32::from_bits(dice.bits() as u32);
                float(format!("{value:e}"), Shown::Float32(value), value.is_finite(), dice)
            }
            Kind::Float64 => {
                let value = f64::from_bits(dice.bits());
                let text = if dice.one_in(2) { format!("{value}") } else { format!("{value:e}") };
                float(text, Shown::Float(value), value.is_finite(), dice)
            }
            Kind::Bool => match dice.rare() {
                0 => (dice.pick(&["0", "1", "\"true\"", "[]"]).into(), None),
                n => ((n % 2 == 0).to_string(), Some(Shown::Bool(n % 2 == 0))),
            },
            Kind::String => match dice.rare() {
                0 => (dice.pick(&["\"\\ud800\"", "\"a\\udfffb\""]).into(), None),
                // What is no text is kept as its JSON.
                1..4 => {
                    let json =
                        dice.pick(&["1.50", "true", "-0", "[1, 2]", r#"{"a": "\u00e9"}"#, "1e400"]);
                    (json.into(), Some(Shown::Text(json.into())))
                }
                _ => {
                    let text = text(dice, 12);
                    (quoted(&text, dice), Some(Shown::Text(text)))
                }
            },
            Kind::FixedString(length) => {
                let beyond = usize::from(dice.is_misfit());
                let text = text(dice, length + beyond);
                let padding = length.checked_sub(text.len()).map(|zeros| "\0".repeat(zeros));
                (quoted(&text, dice), padding.map(|zeros| Shown::Text(text + &zeros)))
            }
            Kind::Uuid => {
                let uuid = uuid::Uuid::from_u64_pair(dice.bits(), dice.bits());
                let text = dice.pick(&[
                    uuid.to_string(),
                    uuid.to_string().to_uppercase(),
                    uuid.simple().to_string(),
                ]);
                let shown = Shown::Text(uuid.to_string());
                spoiled(text, shown, dice)
            }
            Kind::Ipv4 => {
                let address = Ipv4Addr::from_bits(dice.bits() as u32).to_string();
                spoiled(address.clone(), Shown::Text(address), dice)
            }
            Kind::Ipv6 => {
                let high = if dice.one_in(2) { 0 } else { dice.bits() };
                let bits = u128::from(high) << 64 | u128::from(dice.bits() >> dice.below(64));
                let address = Ipv6Addr::from_bits(bits);
                spoiled(address.to_string(), Shown::Address(address), dice)
            }
            Kind::Enum8 => member(ENUM8, dice),
            Kind::Enum16 => member(ENUM16, dice),
            Kind::Date => date(0, 65_535, dice),
            Kind::Date32 => date(-25_567, 120_529, dice),
            Kind::DateTime => date_time(dice),
            Kind::DateTime64(precision) => date_time64(*precision, dice),
            Kind::Time => time(0, dice),
            Kind::Time64(precision) => time(*precision, dice),
            Kind::Json => match dice.rare() {
                0 => (dice.pick(&["[1]", "\"{}\"", "1", "true"]).into(), None),
                _ => document(dice, 2),
            },
            Kind::Point => Kind::Tuple(vec![Kind::Float64, Kind::Float64]).value(dice),
            Kind::Array(inner) => list((0..dice.below(4)).map(|_| inner.value(dice)).collect()),
            Kind::Map(key, value) => map(key, value, dice),
            Kind::Tuple(kinds) => {
                let mut parts: Vec<_> = kinds.iter().map(|kind| kind.value(dice)).collect();
                if dice.is_misfit() {
                    parts.push(("0".into(), None));
                }
                list(parts)
            }
            Kind::NamedTuple(kinds) => named_tuple(kinds, dice),
            Kind::Nested(kinds) => {
                list((0..dice.below(4)).map(|_| named_tuple(kinds, dice)).collect())
            }
        }
    }
}

fn member(all: &[(&str, i64)], dice: &mut Dice) -> Written {
    let (name, value) = dice.pick(all);
    match dice.rare() {
        0 => (dice.pick(&["\"none\"", "77", "1.5", "99999", "false"]).into(), None),
        1..10 => (value.to_string(), Some(Shown::Text(name.into()))),
        _ => (quoted(name, dice), Some(Shown::Text(name.into()))),
    }
}
