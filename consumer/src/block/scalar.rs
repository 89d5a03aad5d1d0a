//! One value into the bytes of its type.

use std::str::FromStr;

use super::cell::Cell;
use super::error::Reason;
use super::number::Number;
use super::types::ScalarType;
use super::{datetime, decimal, integer, text, time};

impl ScalarType {
    /// Appends the cell in this type's wire form. A refused cell leaves `out`
    /// as it was.
    pub(super) fn write(&self, cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
        let outcome = match self {
            Self::Integer(kind) => integer::write(*kind, cell, out),
            Self::String => text::write_string(cell, out),
            Self::Decimal(kind) => decimal::write(*kind, cell, out),
            Self::Float64 => write_float64(cell, out),
            Self::Float32 => write_float32(cell, out),
            Self::BFloat16 => write_bfloat16(cell, out),
            Self::Bool => write_bool(cell, out),
            Self::FixedString(length) => text::write_fixed_string(*length, cell, out),
            Self::Uuid => text::write_uuid(cell, out),
            Self::Date => datetime::write_date(cell, out),
            Self::Date32 => datetime::write_date32(cell, out),
            Self::DateTime(zone) => datetime::write_date_time(zone, cell, out),
            Self::DateTime64 { precision, zone } => {
                datetime::write_date_time64(*precision, zone, cell, out)
            }
            Self::Time => time::write_time(cell, out),
            Self::Time64 { precision } => time::write_time64(*precision, cell, out),
            Self::Enum(names) => names.write(cell, out),
            Self::Ipv4 => text::write_ipv4(cell, out),
            Self::Ipv6 => text::write_ipv6(cell, out),
            Self::Json(_) => text::write_json(cell, out),
        };
        match outcome {
            // No type takes it, and only this says what it is.
            Err(_) if cell.is_null() || matches!(cell, Cell::Default) => {
                Err(Reason::NullNotAllowed)
            }
            outcome => outcome,
        }
    }
}

fn write_bool(cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    let value = match cell {
        Cell::Json("true") => true,
        Cell::Json("false") => false,
        _ => return Err(Reason::WrongType),
    };
    out.push(u8::from(value));
    Ok(())
}

fn write_float64(cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    out.extend_from_slice(&float64(cell)?.to_le_bytes());
    Ok(())
}

fn float64(cell: Cell<'_>) -> Result<f64, Reason> {
    match cell {
        // To the nearest float: rounding is how floats work.
        Cell::Int(value) => Ok(value as f64),
        _ => float(cell, |value: &f64| value.is_finite()),
    }
}

fn write_float32(cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    let value = match cell {
        Cell::Int(value) => value as f32,
        // From the text, not by way of 64 bits: that would round twice.
        _ => float(cell, |value: &f32| value.is_finite())?,
    };
    out.extend_from_slice(&value.to_le_bytes());
    Ok(())
}

/// A JSON number, text that holds one, or text that says what JSON's numbers cannot. What
/// is written as a number and is none of the type's is refused.
fn float<F: FromStr>(cell: Cell<'_>, is_finite: fn(&F) -> bool) -> Result<F, Reason> {
    let number = |text: &str| {
        let value = text.parse().map_err(|_| Reason::Malformed)?;
        if is_finite(&value) { Ok(value) } else { Err(Reason::OutOfRange) }
    };
    if let Some(raw) = cell.json_number() {
        return number(raw);
    }
    let text = cell.text()?.ok_or(Reason::WrongType)?;
    let magnitude = text.strip_prefix(['-', '+']).unwrap_or(&text);
    if ["NaN", "Infinity", "inf"].iter().any(|name| magnitude.eq_ignore_ascii_case(name)) {
        return text.parse().map_err(|_| Reason::Malformed);
    }
    Number::parse(&text).ok_or(Reason::Malformed)?;
    number(&text)
}

/// Appends the nearest of the floats whose lower 16 bits are zeros, the even one
/// of two that are as near.
fn write_bfloat16(cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    let value = float64(cell)?;
    let nearest = value as f32;
    if !value.is_finite() {
        out.extend_from_slice(&((nearest.to_bits() >> 16) as u16).to_le_bytes());
        return Ok(());
    }
    let mut bits = nearest.to_bits();
    // What the first rounding lost must not decide the second: towards zero
    // instead, with a last bit that says that something was lost.
    if f64::from(nearest) != value {
        bits -= u32::from(f64::from(nearest).abs() > value.abs());
        bits |= 1;
    }
    let rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    if rounded & 0x7f80 == 0x7f80 {
        return Err(Reason::OutOfRange);
    }
    // 16 bits are left.
    out.extend_from_slice(&(rounded as u16).to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(kind: &ScalarType, cell: Cell<'_>) -> Result<Vec<u8>, Reason> {
        let mut out = Vec::new();
        kind.write(cell, &mut out).map(|()| out)
    }

    #[test]
    fn floats_are_finite_numbers_where_they_are_written_as_numbers() {
        let json = |kind, text| encoded(kind, Cell::Json(text));
        assert_eq!(json(&ScalarType::Float64, "1e308"), Ok(1e308f64.to_le_bytes().to_vec()));
        assert_eq!(json(&ScalarType::Float64, "1e309"), Err(Reason::OutOfRange));
        assert_eq!(json(&ScalarType::Float32, "3.4028235e38"), Ok(f32::MAX.to_le_bytes().to_vec()));
        assert_eq!(json(&ScalarType::Float32, "3.5e38"), Err(Reason::OutOfRange));
        assert_eq!(
            json(&ScalarType::Float64, "9007199254740993"),
            Ok(9_007_199_254_740_992f64.to_le_bytes().to_vec())
        );
        assert_eq!(
            encoded(&ScalarType::Float32, Cell::Int(-2)),
            Ok((-2f32).to_le_bytes().to_vec())
        );
    }

    #[test]
    fn floats_take_text_of_numbers_and_what_json_has_no_number_for() {
        let text = |kind, text| encoded(kind, Cell::Text(text));
        let float64 = |value: f64| Ok(value.to_le_bytes().to_vec());
        assert_eq!(text(&ScalarType::Float64, "1.5"), float64(1.5));
        assert_eq!(text(&ScalarType::Float64, "-1e-3"), float64(-1e-3));
        assert_eq!(encoded(&ScalarType::Float64, Cell::Json("\"\\u0031\"")), float64(1.0));
        for (name, value) in [
            ("NaN", f32::NAN),
            ("nan", f32::NAN),
            ("Infinity", f32::INFINITY),
            ("inf", f32::INFINITY),
            ("-Infinity", f32::NEG_INFINITY),
        ] {
            assert_eq!(text(&ScalarType::Float64, name), float64(value.into()), "{name}");
            assert_eq!(text(&ScalarType::Float32, name), Ok(value.to_le_bytes().to_vec()));
            let upper = value.to_le_bytes()[2..].to_vec();
            assert_eq!(text(&ScalarType::BFloat16, name), Ok(upper), "{name}");
        }
        assert_eq!(text(&ScalarType::Float64, "1e309"), Err(Reason::OutOfRange));
        assert_eq!(text(&ScalarType::Float32, "1e39"), Err(Reason::OutOfRange));
        for wrong in ["", "x", "1,5", "007", " 1", "0x1p3", "+1", "NaN(1)", "infinit"] {
            assert_eq!(text(&ScalarType::Float64, wrong), Err(Reason::Malformed), "{wrong}");
        }
        assert_eq!(encoded(&ScalarType::Float64, Cell::Json("true")), Err(Reason::WrongType));
    }

    #[test]
    fn brain_floats_are_rounded_once() {
        let json = |text| encoded(&ScalarType::BFloat16, Cell::Json(text));
        let bits = |bits: u16| Ok(bits.to_le_bytes().to_vec());
        assert_eq!(json("0"), bits(0));
        assert_eq!(json("-0"), bits(0x8000));
        assert_eq!(json("1.5"), bits(0x3fc0));
        assert_eq!(json("-2"), bits(0xc000));
        // Between 1 and the next one, 1.0078125.
        assert_eq!(json("1.00390625"), bits(0x3f80));
        assert_eq!(json("1.00390625000001"), bits(0x3f81));
        assert_eq!(json("1.003906249999999"), bits(0x3f80));
        assert_eq!(json("1.01171875"), bits(0x3f82));
        assert_eq!(json("3.38953138925153547590470800371487866880e38"), bits(0x7f7f));
        assert_eq!(json("3.4e38"), Err(Reason::OutOfRange));
        assert_eq!(json("-1e300"), Err(Reason::OutOfRange));
        assert_eq!(json("1e400"), Err(Reason::OutOfRange));
        assert_eq!(json("1e-60"), bits(0));
        assert_eq!(json("9.2e-41"), bits(1));
        assert_eq!(json("\"1\""), bits(0x3f80));
        assert_eq!(json("18446744073709551615"), bits(0x5f80));
    }

    #[test]
    fn truth_is_not_a_number() {
        assert_eq!(encoded(&ScalarType::Bool, Cell::Json("true")), Ok(vec![1]));
        assert_eq!(encoded(&ScalarType::Bool, Cell::Json("false")), Ok(vec![0]));
        assert_eq!(encoded(&ScalarType::Bool, Cell::Json("1")), Err(Reason::WrongType));
        assert_eq!(encoded(&ScalarType::Bool, Cell::Json("\"true\"")), Err(Reason::WrongType));
    }

    #[test]
    fn null_is_for_nullable_columns() {
        for kind in [ScalarType::String, ScalarType::Bool, ScalarType::Json(String::new())] {
            for cell in [Cell::Null, Cell::Json("null"), Cell::Default] {
                assert_eq!(encoded(&kind, cell), Err(Reason::NullNotAllowed));
            }
        }
    }
}
