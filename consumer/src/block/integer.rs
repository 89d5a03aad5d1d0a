//! Integers of 8 to 256 bits.

use super::cell::Cell;
use super::error::Reason;
use super::number::{Magnitude, Number, Unscalable};
use super::types::IntegerType;
use crate::json;

/// Appends the cell as `kind`, little endian, or leaves `out` alone.
pub(super) fn write(kind: IntegerType, cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    match cell {
        Cell::Int(value) => put(kind, value, out),
        Cell::Plain(text) | Cell::Text(text) => write_text(kind, text, out),
        Cell::Json(raw) => match raw.as_bytes().first() {
            Some(b'-' | b'0'..=b'9') => write_text(kind, raw, out),
            Some(b'"') => write_quoted(kind, cell, out),
            _ => Err(Reason::WrongType),
        },
        Cell::Bytes(_) => write_quoted(kind, cell, out),
        _ => Err(Reason::WrongType),
    }
}

/// The number a cell is, where a number stands for something else: an
/// enumeration's value, seconds, ticks. Text is not taken for a number here.
pub(super) fn value(cell: Cell<'_>) -> Result<i64, Reason> {
    match cell {
        Cell::Int(value) => Ok(value),
        _ => {
            let raw = cell.json_number().ok_or(Reason::WrongType)?;
            if let Some(value) = json::integer(raw) {
                return Ok(value);
            }
            let number = Number::parse(raw).ok_or(Reason::Malformed)?;
            let magnitude = match number.scaled(0) {
                Ok(scaled) => scaled.magnitude,
                Err(Unscalable::Inexact) => return Err(Reason::WrongType),
                Err(Unscalable::TooLarge) => return Err(Reason::OutOfRange),
            };
            // One value short of what 64 bits hold, and no loss: it is neither
            // an enumeration's value nor a date.
            if magnitude.bits() > 63 {
                return Err(Reason::OutOfRange);
            }
            let [low, ..] = magnitude.limbs();
            Ok(if number.negative { -(low as i64) } else { low as i64 })
        }
    }
}

fn write_quoted(kind: IntegerType, cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    let text = cell.text()?.ok_or(Reason::WrongType)?;
    write_text(kind, &text, out)
}

fn write_text(kind: IntegerType, text: &str, out: &mut Vec<u8>) -> Result<(), Reason> {
    if let Some(value) = json::integer(text) {
        return put(kind, value, out);
    }
    let number = Number::parse(text).ok_or(Reason::Malformed)?;
    match number.scaled(0) {
        Ok(scaled) => put_magnitude(kind, number.negative, scaled.magnitude, out),
        // 5.5 is not too fine an integer: it is no integer.
        Err(Unscalable::Inexact) => Err(Reason::WrongType),
        Err(Unscalable::TooLarge) => Err(Reason::OutOfRange),
    }
}

/// Appends the value as `kind`, or leaves `out` alone.
#[inline]
pub(super) fn put(kind: IntegerType, value: i64, out: &mut Vec<u8>) -> Result<(), Reason> {
    // Each width by itself: a copy of unknown length is a call.
    match (kind.bytes, kind.signed) {
        (1, false) => append(value, u8::to_le_bytes, out),
        (2, false) => append(value, u16::to_le_bytes, out),
        (4, false) => append(value, u32::to_le_bytes, out),
        (8, false) => append(value, u64::to_le_bytes, out),
        (1, true) => append(value, i8::to_le_bytes, out),
        (2, true) => append(value, i16::to_le_bytes, out),
        (4, true) => append(value, i32::to_le_bytes, out),
        (8, true) => append(value, i64::to_le_bytes, out),
        _ => put_magnitude(kind, value < 0, Magnitude::from_u64(value.unsigned_abs()), out),
    }
}

#[inline(always)]
fn append<T: TryFrom<i64>, const N: usize>(
    value: i64,
    bytes: impl Fn(T) -> [u8; N],
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    let Ok(value) = T::try_from(value) else { return Err(Reason::OutOfRange) };
    out.extend_from_slice(&bytes(value));
    Ok(())
}

fn put_magnitude(
    kind: IntegerType,
    negative: bool,
    magnitude: Magnitude,
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    let bits = u32::from(kind.bytes) * 8;
    let fits = match (kind.signed, negative) {
        (false, false) => magnitude.bits() <= bits,
        (false, true) => magnitude.is_zero(),
        (true, false) => magnitude.bits() < bits,
        (true, true) => {
            magnitude.bits() < bits || (magnitude.bits() == bits && magnitude.is_power_of_two())
        }
    };
    if !fits {
        return Err(Reason::OutOfRange);
    }
    out.extend_from_slice(&magnitude.to_le_bytes(negative)[..usize::from(kind.bytes)]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(bytes: u8, signed: bool) -> IntegerType {
        IntegerType { bytes, signed }
    }

    fn encoded(kind: IntegerType, cell: Cell<'_>) -> Result<Vec<u8>, Reason> {
        let mut out = Vec::new();
        let result = write(kind, cell, &mut out);
        assert!(result.is_ok() || out.is_empty(), "a refused value left bytes");
        result.map(|()| out)
    }

    fn json(kind: IntegerType, text: &str) -> Result<Vec<u8>, Reason> {
        encoded(kind, Cell::Json(text))
    }

    #[test]
    fn limits_of_the_small_widths() {
        let u8_ = kind(1, false);
        assert_eq!(json(u8_, "255"), Ok(vec![255]));
        assert_eq!(json(u8_, "256"), Err(Reason::OutOfRange));
        assert_eq!(json(u8_, "-1"), Err(Reason::OutOfRange));
        assert_eq!(json(u8_, "-0"), Ok(vec![0]));
        let i8_ = kind(1, true);
        assert_eq!(json(i8_, "-128"), Ok(vec![0x80]));
        assert_eq!(json(i8_, "-129"), Err(Reason::OutOfRange));
        assert_eq!(json(i8_, "128"), Err(Reason::OutOfRange));
        let u64_ = kind(8, false);
        assert_eq!(json(u64_, "18446744073709551615"), Ok(vec![255; 8]));
        assert_eq!(json(u64_, "18446744073709551616"), Err(Reason::OutOfRange));
        let i64_ = kind(8, true);
        assert_eq!(json(i64_, "-9223372036854775808"), Ok(i64::MIN.to_le_bytes().to_vec()));
        assert_eq!(json(i64_, "-9223372036854775809"), Err(Reason::OutOfRange));
        assert_eq!(json(i64_, "9223372036854775808"), Err(Reason::OutOfRange));
    }

    #[test]
    fn integral_spellings_and_others() {
        let u16_ = kind(2, false);
        assert_eq!(json(u16_, "1e3"), json(u16_, "1000"));
        assert_eq!(json(u16_, "5.0"), json(u16_, "5"));
        assert_eq!(json(u16_, "\"1000\""), json(u16_, "1000"));
        assert_eq!(json(u16_, "5.5"), Err(Reason::WrongType));
        assert_eq!(json(u16_, "true"), Err(Reason::WrongType));
        assert_eq!(json(u16_, "\"x\""), Err(Reason::Malformed));
        assert_eq!(json(u16_, "\"007\""), Err(Reason::Malformed));
        assert_eq!(json(u16_, "1e999999999"), Err(Reason::OutOfRange));
        assert_eq!(encoded(u16_, Cell::Bytes(b"7")), Ok(vec![7, 0]));
        assert_eq!(encoded(u16_, Cell::Int(-1)), Err(Reason::OutOfRange));
    }

    #[test]
    fn limits_of_256_bits() {
        let signed = kind(32, true);
        let least =
            "-57896044618658097711785492504343953926634992332820282019728792003956564819968";
        let mut bytes = [0; 32];
        bytes[31] = 0x80;
        assert_eq!(json(signed, least), Ok(bytes.to_vec()));
        assert_eq!(json(signed, &least[1..]), Err(Reason::OutOfRange));
        assert_eq!(json(kind(32, false), least), Err(Reason::OutOfRange));
        assert_eq!(json(kind(32, false), &least[1..]), Ok(bytes.to_vec()));
    }

    proptest! {
        #[test]
        fn written_integers_come_back(value: i128, shift in 0u32..127) {
            let value = value >> shift;
            let text = value.to_string();
            prop_assert_eq!(json(kind(16, true), &text), Ok(value.to_le_bytes().to_vec()));
            let narrow = |ok: bool, bytes: &[u8]| if ok { Ok(bytes.to_vec()) } else { Err(Reason::OutOfRange) };
            prop_assert_eq!(json(kind(1, true), &text), narrow(i8::try_from(value).is_ok(), &(value as i8).to_le_bytes()));
            prop_assert_eq!(json(kind(2, false), &text), narrow(u16::try_from(value).is_ok(), &(value as u16).to_le_bytes()));
            prop_assert_eq!(json(kind(4, true), &text), narrow(i32::try_from(value).is_ok(), &(value as i32).to_le_bytes()));
            prop_assert_eq!(json(kind(8, true), &text), narrow(i64::try_from(value).is_ok(), &(value as i64).to_le_bytes()));
            prop_assert_eq!(json(kind(8, false), &text), narrow(u64::try_from(value).is_ok(), &(value as u64).to_le_bytes()));
            prop_assert_eq!(json(kind(16, false), &text), narrow(value >= 0, &value.to_le_bytes()));
        }
    }
}
