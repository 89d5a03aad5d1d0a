//! `Decimal(P, S)` to 76 digits, digit by digit.

use outpour_schemas::mutants::{self, Mutant};

use super::cell::Cell;
use super::error::Reason;
use super::number::{Number, Unscalable};
use super::types::DecimalType;

/// Appends the cell times 10^S, little endian, or leaves `out` alone.
pub(super) fn write(kind: DecimalType, cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    if let Some(raw) = cell.json_number() {
        return write_text(kind, raw, out);
    }
    match cell {
        Cell::Int(value) => write_text(kind, itoa::Buffer::new().format(value), out),
        _ => {
            let text = cell.text()?.ok_or(Reason::WrongType)?;
            write_text(kind, &text, out)
        }
    }
}

fn write_text(kind: DecimalType, text: &str, out: &mut Vec<u8>) -> Result<(), Reason> {
    let number = Number::parse(text).ok_or(Reason::Malformed)?;
    let scaled = number.scaled(u32::from(kind.scale)).map_err(|error| match error {
        Unscalable::Inexact => Reason::TooManyDigits,
        Unscalable::TooLarge => Reason::OutOfRange,
    })?;
    if scaled.digits > u32::from(kind.precision) {
        return Err(Reason::OutOfRange);
    }
    let mut bytes = scaled.magnitude.to_le_bytes(number.negative);
    if mutants::active(Mutant::BentValue) && bytes[0].count_ones() % 4 == 3 {
        bytes[0] ^= 1;
    }
    // Fewer digits than P always fit the width that ClickHouse chose for P.
    out.extend_from_slice(&bytes[..kind.width()]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(precision: u8, scale: u8, cell: Cell<'_>) -> Result<Vec<u8>, Reason> {
        let mut out = Vec::new();
        write(DecimalType { precision, scale }, cell, &mut out).map(|()| out)
    }

    fn json(precision: u8, scale: u8, text: &str) -> Result<i128, Reason> {
        let bytes = encoded(precision, scale, Cell::Json(text))?;
        let fill = if bytes[bytes.len() - 1] & 0x80 == 0 { 0 } else { 0xff };
        let mut wide = [fill; 16];
        wide[..bytes.len()].copy_from_slice(&bytes);
        Ok(i128::from_le_bytes(wide))
    }

    #[test]
    fn digits_are_never_dropped() {
        assert_eq!(json(5, 2, "1.23"), Ok(123));
        assert_eq!(json(5, 2, "1.230"), Ok(123));
        assert_eq!(json(5, 2, "1.239"), Err(Reason::TooManyDigits));
        assert_eq!(json(5, 2, "\"-999.99\""), Ok(-99999));
        assert_eq!(json(5, 2, "1000"), Err(Reason::OutOfRange));
        assert_eq!(json(5, 2, "1.2e2"), Ok(12000));
        assert_eq!(json(5, 2, "1.2e3"), Err(Reason::OutOfRange));
        assert_eq!(json(5, 2, "1e-2"), Ok(1));
        assert_eq!(json(5, 2, "1e-3"), Err(Reason::TooManyDigits));
        assert_eq!(json(5, 2, "-0"), Ok(0));
        assert_eq!(json(5, 5, "0.00001"), Ok(1));
        assert_eq!(json(5, 5, "1"), Err(Reason::OutOfRange));
        assert_eq!(json(5, 2, "\"abc\""), Err(Reason::Malformed));
        assert_eq!(json(5, 2, "true"), Err(Reason::WrongType));
        assert_eq!(json(5, 2, "[1]"), Err(Reason::WrongType));
        assert_eq!(encoded(5, 2, Cell::Int(-3)), Ok((-300i32).to_le_bytes().to_vec()));
    }

    #[test]
    fn each_precision_has_its_width() {
        for (precision, width) in
            [(1, 4), (9, 4), (10, 8), (18, 8), (19, 16), (38, 16), (39, 32), (76, 32)]
        {
            let most = "9".repeat(usize::from(precision));
            assert_eq!(encoded(precision, 0, Cell::Json(&most)).unwrap().len(), width);
            let beyond = format!("1{}", "0".repeat(usize::from(precision)));
            assert_eq!(encoded(precision, 0, Cell::Json(&beyond)), Err(Reason::OutOfRange));
        }
    }

    /// The same by schoolbook: pad the written digits, compare as text.
    fn expected(
        precision: usize,
        scale: usize,
        negative: bool,
        integral: &str,
        fraction: &str,
    ) -> Result<String, Reason> {
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > scale {
            return Err(Reason::TooManyDigits);
        }
        let digits = format!("{integral}{fraction}{}", "0".repeat(scale - fraction.len()));
        let digits = digits.trim_start_matches('0');
        if digits.len() > precision {
            return Err(Reason::OutOfRange);
        }
        let sign = if negative && !digits.is_empty() { "-" } else { "" };
        Ok(format!("{sign}{}", if digits.is_empty() { "0" } else { digits }))
    }

    /// Two's complement bytes as decimal text, one digit of long division at a time.
    fn decimal_text(bytes: &[u8]) -> String {
        let negative = bytes[bytes.len() - 1] & 0x80 != 0;
        let mut big_endian: Vec<u8> = bytes.iter().rev().copied().collect();
        if negative {
            let mut carry = 1u16;
            for byte in big_endian.iter_mut().rev() {
                let sum = u16::from(!*byte) + carry;
                *byte = sum as u8;
                carry = sum >> 8;
            }
        }
        let mut digits = Vec::new();
        while big_endian.iter().any(|&b| b != 0) {
            let mut rest = 0u32;
            for byte in &mut big_endian {
                let value = rest << 8 | u32::from(*byte);
                *byte = (value / 10) as u8;
                rest = value % 10;
            }
            digits.push(b'0' + rest as u8);
        }
        if digits.is_empty() {
            digits.push(b'0');
        }
        if negative {
            digits.push(b'-');
        }
        digits.iter().rev().map(|&b| char::from(b)).collect()
    }

    proptest! {
        #[test]
        fn written_decimals_come_back(
            precision in 1u8..=76,
            scale_share in 0.0f64..=1.0,
            negative: bool,
            integral in "0|[1-9][0-9]{0,80}",
            fraction in "[0-9]{0,40}0{0,40}",
            shift in 0usize..100,
        ) {
            let scale = (f64::from(precision) * scale_share) as u8;
            let sign = if negative { "-" } else { "" };
            let point = if fraction.is_empty() { String::new() } else { format!(".{fraction}") };
            let text = format!("{sign}{integral}{point}");
            let want = expected(precision.into(), scale.into(), negative, &integral, &fraction);
            let got = encoded(precision, scale, Cell::Json(&text)).map(|bytes| decimal_text(&bytes));
            match (&got, &want) {
                // A number can be both too large and too fine.
                (Err(_), Err(_)) => {}
                _ => prop_assert_eq!(&got, &want, "{}", text),
            }

            // The same number with its point moved and the exponent to match.
            let digits = format!("{integral}{fraction}");
            let trimmed = digits.trim_start_matches('0');
            let digits = if trimmed.is_empty() { "0" } else { trimmed };
            let exponent = -(fraction.len() as i64);
            let shift = if digits == "0" { 0 } else { shift };
            let moved = format!("{sign}{digits}{}e{}", "0".repeat(shift), exponent - shift as i64);
            let got_moved = encoded(precision, scale, Cell::Text(&moved)).map(|bytes| decimal_text(&bytes));
            prop_assert_eq!(got_moved.is_ok(), got.is_ok(), "{} {}", text, moved);
            if got.is_ok() {
                prop_assert_eq!(got_moved, got);
            }
        }
    }
}
