//! The text of a number, taken apart and scaled exactly: no float in between.

/// A number as JSON writes it: sign, digits around the point, exponent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number<'a> {
    pub(super) negative: bool,
    integral: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

/// Why a number has no exact integer at the scale asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unscalable {
    /// Digits that are not zeros would be lost.
    Inexact,
    /// More than 256 bits.
    TooLarge,
}

/// A magnitude at some scale, with the count of its digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scaled {
    pub(super) magnitude: Magnitude,
    pub(super) digits: u32,
}

impl<'a> Number<'a> {
    /// Reads a number by JSON's grammar, the whole text or nothing.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (negative, rest) = match bytes {
            [b'-', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let (integral, rest) = split_digits(rest);
        // JSON has no leading zeros; such text is an identifier, not a number.
        if integral.is_empty() || (integral.len() > 1 && integral[0] == b'0') {
            return None;
        }
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => {
                let (fraction, rest) = split_digits(rest);
                if fraction.is_empty() {
                    return None;
                }
                (fraction, rest)
            }
            rest => (&rest[..0], rest),
        };
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => parse_exponent(rest)?,
            _ => return None,
        };
        Some(Self { negative, integral, fraction, exponent })
    }

    /// The magnitude times 10^`scale`, if that is an integer of 256 bits.
    pub(super) fn scaled(&self, scale: u32) -> Result<Scaled, Unscalable> {
        let mut integral = trim_leading_zeros(self.integral);
        let mut fraction = self.fraction;
        // How many digits stand before the point once it has been moved.
        let mut before = integral.len() as i64 + self.exponent + i64::from(scale);
        if integral.is_empty() {
            let significant = trim_leading_zeros(fraction);
            before -= (fraction.len() - significant.len()) as i64;
            fraction = significant;
        }
        let written = integral.len() + fraction.len();
        if written == 0 {
            return Ok(Scaled { magnitude: Magnitude::ZERO, digits: 0 });
        }
        if before > Magnitude::MAX_DIGITS {
            return Err(Unscalable::TooLarge);
        }
        // The cast is exact: `before` is at most 78, and negative counts as none.
        let before = before.max(0) as usize;
        if before < integral.len() {
            let (kept, lost) = integral.split_at(before);
            if !all_zeros(lost) || !all_zeros(fraction) {
                return Err(Unscalable::Inexact);
            }
            (integral, fraction) = (kept, &[]);
        } else if before < written {
            let (kept, lost) = fraction.split_at(before - integral.len());
            if !all_zeros(lost) {
                return Err(Unscalable::Inexact);
            }
            fraction = kept;
        }
        let zeros = before.saturating_sub(written);
        let magnitude = Magnitude::ZERO
            .push_digits(integral)
            .and_then(|m| m.push_digits(fraction))
            .and_then(|m| m.push_zeros(zeros))
            .ok_or(Unscalable::TooLarge)?;
        Ok(Scaled { magnitude, digits: before as u32 })
    }
}

fn split_digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|b| !b.is_ascii_digit()).unwrap_or(bytes.len());
    bytes.split_at(end)
}

/// Reads an exponent, saturating far beyond where any digit could still matter.
fn parse_exponent(bytes: &[u8]) -> Option<i64> {
    let (sign, digits) = match bytes {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        rest => (1, rest),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value: i64 = 0;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = (value * 10 + i64::from(byte - b'0')).min(1_000_000_000_000_000);
    }
    Some(sign * value)
}

fn trim_leading_zeros(digits: &[u8]) -> &[u8] {
    let start = digits.iter().position(|&b| b != b'0').unwrap_or(digits.len());
    &digits[start..]
}

fn all_zeros(digits: &[u8]) -> bool {
    digits.iter().all(|&b| b == b'0')
}

/// An unsigned integer of 256 bits, the lowest limb first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Magnitude([u64; 4]);

impl Magnitude {
    pub(super) const ZERO: Self = Self([0; 4]);
    /// The digits of 2^256.
    const MAX_DIGITS: i64 = 78;
    /// The most digits that always fit 64 bits.
    const CHUNK: usize = 19;

    pub(super) fn from_u64(value: u64) -> Self {
        Self([value, 0, 0, 0])
    }

    /// 64 bits each, the lowest first.
    pub(super) fn limbs(self) -> [u64; 4] {
        self.0
    }

    pub(super) fn is_zero(self) -> bool {
        self.0 == [0; 4]
    }

    /// How many bits it takes.
    pub(super) fn bits(self) -> u32 {
        for (index, limb) in self.0.iter().enumerate().rev() {
            if *limb != 0 {
                return index as u32 * 64 + 64 - limb.leading_zeros();
            }
        }
        0
    }

    /// Whether exactly one bit is set.
    pub(super) fn is_power_of_two(self) -> bool {
        self.0.iter().map(|limb| limb.count_ones()).sum::<u32>() == 1
    }

    /// The value in two's complement, little endian, negated if asked.
    #[inline]
    pub(super) fn to_le_bytes(self, negative: bool) -> [u8; 32] {
        let mut limbs = self.0;
        if negative {
            let mut carry = true;
            for limb in &mut limbs {
                let (value, overflow) = (!*limb).overflowing_add(u64::from(carry));
                *limb = value;
                carry = overflow;
            }
        }
        let mut bytes = [0; 32];
        for (place, limb) in bytes.chunks_exact_mut(8).zip(limbs) {
            place.copy_from_slice(&limb.to_le_bytes());
        }
        bytes
    }

    /// Appends decimal digits; `None` beyond 256 bits.
    fn push_digits(mut self, digits: &[u8]) -> Option<Self> {
        for chunk in digits.chunks(Self::CHUNK) {
            let value =
                chunk.iter().fold(0u64, |value, digit| value * 10 + u64::from(digit - b'0'));
            self = self.mul_add(10u64.pow(chunk.len() as u32), value)?;
        }
        Some(self)
    }

    /// Appends decimal zeros; `None` beyond 256 bits.
    fn push_zeros(mut self, mut count: usize) -> Option<Self> {
        while count > 0 {
            let step = count.min(Self::CHUNK);
            self = self.mul_add(10u64.pow(step as u32), 0)?;
            count -= step;
        }
        Some(self)
    }

    fn mul_add(self, factor: u64, addend: u64) -> Option<Self> {
        let mut limbs = self.0;
        let mut carry = u128::from(addend);
        for limb in &mut limbs {
            carry += u128::from(*limb) * u128::from(factor);
            *limb = carry as u64;
            carry >>= 64;
        }
        (carry == 0).then_some(Self(limbs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled(text: &str, scale: u32) -> Result<u128, Unscalable> {
        let bytes = Number::parse(text).unwrap().scaled(scale)?.magnitude;
        Ok(u128::from_le_bytes(bytes.to_le_bytes(false)[..16].try_into().unwrap()))
    }

    #[test]
    fn the_grammar_is_json() {
        for text in ["0", "-0", "10", "1.50", "1e3", "1E+3", "-1.5e-3", "0e99999999999999999999"] {
            assert!(Number::parse(text).is_some(), "{text}");
        }
        for text in
            ["", "-", "01", "+1", ".5", "5.", "1e", "1e+", "1_0", " 1", "1 ", "0x1", "NaN", "1.2.3"]
        {
            assert!(Number::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn scaling_is_exact_or_refused() {
        assert_eq!(scaled("1.25", 2), Ok(125));
        assert_eq!(scaled("1.2500", 2), Ok(125));
        assert_eq!(scaled("1.251", 2), Err(Unscalable::Inexact));
        assert_eq!(scaled("0.001", 3), Ok(1));
        assert_eq!(scaled("0.0010", 3), Ok(1));
        assert_eq!(scaled("0.0001", 3), Err(Unscalable::Inexact));
        assert_eq!(scaled("1e3", 0), Ok(1000));
        assert_eq!(scaled("1200e-2", 0), Ok(12));
        assert_eq!(scaled("1250e-2", 0), Err(Unscalable::Inexact));
        assert_eq!(scaled("0.5e1", 0), Ok(5));
        assert_eq!(scaled("0e999999999999", 0), Ok(0));
        assert_eq!(scaled("0.000e5", 0), Ok(0));
        assert_eq!(scaled("1e999999999999", 0), Err(Unscalable::TooLarge));
        assert_eq!(scaled("1e-999999999999", 0), Err(Unscalable::Inexact));
        assert_eq!(scaled("340282366920938463463374607431768211455", 0), Ok(u128::MAX));
    }

    #[test]
    fn magnitudes_stop_at_256_bits() {
        let most = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
        let number = Number::parse(most).unwrap().scaled(0).unwrap();
        assert_eq!(number.magnitude.to_le_bytes(false), [0xff; 32]);
        assert_eq!(number.magnitude.bits(), 256);
        let beyond =
            "115792089237316195423570985008687907853269984665640564039457584007913129639936";
        assert_eq!(Number::parse(beyond).unwrap().scaled(0), Err(Unscalable::TooLarge));
        assert_eq!(Magnitude::from_u64(1).to_le_bytes(true), [0xff; 32]);
        assert_eq!(Magnitude::ZERO.to_le_bytes(true), [0; 32]);
    }
}
