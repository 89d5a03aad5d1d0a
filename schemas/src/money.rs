//! Amounts of money: decimal from end to end.

use std::{fmt, str::FromStr};

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An exact decimal amount, up to 28 significant digits.
///
/// In JSON it is a string (`"19.9999"`), since a JSON number becomes a binary
/// float in most readers and 0.1 has no binary form. A JSON number with a
/// fraction is refused for the same reason; whole numbers are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(pub Decimal);

impl Money {
    /// `minor` units of 10^-`scale`: `from_minor(199, 2)` is 1.99.
    ///
    /// # Errors
    /// When `scale` exceeds 28.
    pub fn from_minor(minor: i64, scale: u32) -> Result<Self, rust_decimal::Error> {
        Decimal::try_new(minor, scale).map(Money)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Money {
    type Err = rust_decimal::Error;

    /// Refuses digits past what the type holds instead of rounding them away.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Decimal::from_str_exact(text).map(Money)
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Amount;

        impl de::Visitor<'_> for Amount {
            type Value = Money;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount as a string, such as \"19.99\", or a whole number")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Money, E> {
                text.parse().map_err(|error| E::custom(format_args!("`{text}`: {error}")))
            }
            fn visit_i64<E: de::Error>(self, whole: i64) -> Result<Money, E> {
                Ok(Money(whole.into()))
            }
            fn visit_u64<E: de::Error>(self, whole: u64) -> Result<Money, E> {
                Ok(Money(whole.into()))
            }
        }

        deserializer.deserialize_any(Amount)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_amount_survives_json(minor: i64, scale in 0u32..=28) {
            let amount = Money::from_minor(minor, scale).unwrap();
            let json = serde_json::to_string(&amount).unwrap();
            let back: Money = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(back.to_string(), amount.to_string());
        }
    }

    #[test]
    fn the_amounts_that_floats_bend_are_exact() {
        for text in ["0.1", "19.9999", "123456789012.3456", "-0.0001"] {
            let json = format!("\"{text}\"");
            let amount: Money = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&amount).unwrap(), json);
        }
    }

    #[test]
    fn a_json_float_is_refused_and_a_whole_number_taken() {
        let error = serde_json::from_str::<Money>("19.99").unwrap_err().to_string();
        assert!(error.contains("an amount as a string"), "{error}");
        assert_eq!(serde_json::from_str::<Money>("20").unwrap().to_string(), "20");
    }

    #[test]
    fn digits_that_do_not_fit_are_refused_not_rounded() {
        assert!("0.12345678901234567890123456789".parse::<Money>().is_err());
    }
}
