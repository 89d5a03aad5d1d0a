//! `Time` and `Time64`: spans of up to a thousand hours, or times of day.

use super::cell::Cell;
use super::error::Reason;
use super::integer;
use super::timestamp_text::read_fraction;

/// 999:59:59, either way.
const MOST_SECONDS: i64 = 3_599_999;

/// Appends the seconds, 32 bits and signed.
pub(super) fn write_time(cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    let seconds = ticks(0, cell)?;
    // The range was checked.
    out.extend_from_slice(&(seconds as i32).to_le_bytes());
    Ok(())
}

/// Appends the ticks of 10^-`precision` seconds, 64 bits and signed.
pub(super) fn write_time64(precision: u8, cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    out.extend_from_slice(&ticks(precision, cell)?.to_le_bytes());
    Ok(())
}

fn ticks(precision: u8, cell: Cell<'_>) -> Result<i64, Reason> {
    let a_second = 10i64.pow(u32::from(precision));
    let ticks = match cell.text()? {
        Some(text) => {
            let (negative, seconds, nanos, finer) = read(text.as_bytes())?;
            let a_tick = 1_000_000_000 / a_second;
            if nanos % a_tick != 0 || finer {
                return Err(Reason::TooManyDigits);
            }
            let ticks = seconds * a_second + nanos / a_tick;
            if negative { -ticks } else { ticks }
        }
        None => integer::value(cell)?,
    };
    if (ticks / a_second).abs() > MOST_SECONDS {
        return Err(Reason::OutOfRange);
    }
    Ok(ticks)
}

/// Reads `[-]H:MM:SS[.fraction]` with one to three digits of hours: sign,
/// seconds, nanoseconds, and whether finer digits follow.
fn read(bytes: &[u8]) -> Result<(bool, i64, i64, bool), Reason> {
    let (negative, rest) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (hours, rest) = rest.split_at(digits);
    let &[
        b':',
        m1 @ b'0'..=b'5',
        m2 @ b'0'..=b'9',
        b':',
        s1 @ b'0'..=b'5',
        s2 @ b'0'..=b'9',
        ref rest @ ..,
    ] = rest
    else {
        return Err(Reason::InvalidDate);
    };
    if !(1..=3).contains(&hours.len()) {
        return Err(Reason::InvalidDate);
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0'));
    let seconds = number(hours) * 3600 + number(&[m1, m2]) * 60 + number(&[s1, s2]);
    match read_fraction(rest) {
        Some((nanos, finer, [])) => Ok((negative, seconds, nanos.into(), finer)),
        _ => Err(Reason::InvalidDate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(precision: u8, text: &str) -> Result<i64, Reason> {
        ticks(precision, Cell::Text(text))
    }

    #[test]
    fn times_at_their_limits() {
        assert_eq!(text(0, "00:00:00"), Ok(0));
        assert_eq!(text(0, "1:02:03"), Ok(3723));
        assert_eq!(text(0, "-999:59:59"), Ok(-3_599_999));
        assert_eq!(text(3, "999:59:59.999"), Ok(3_599_999_999));
        assert_eq!(text(9, "-999:59:59.999999999"), Ok(-3_599_999_999_999_999));
        assert_eq!(text(6, "-00:00:00.5"), Ok(-500_000));
        assert_eq!(text(0, "12:00:00.000"), Ok(43_200));
        assert_eq!(text(0, "12:00:00.5"), Err(Reason::TooManyDigits));
        assert_eq!(text(9, "12:00:00.0000000001"), Err(Reason::TooManyDigits));
        for wrong in [
            "",
            "12",
            "12:00",
            "1000:00:00",
            ":00:00",
            "12:60:00",
            "12:00:60",
            "12:0:00",
            "+1:00:00",
            "12:00:00Z",
            "12:00:00.",
            "--1:00:00",
            "12:00:00 ",
            "é:00:00",
            "2024-01-01T12:00:00",
        ] {
            assert_eq!(text(3, wrong), Err(Reason::InvalidDate), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_ticks() {
        let json = |precision, raw| ticks(precision, Cell::Json(raw));
        assert_eq!(json(0, "3599999"), Ok(3_599_999));
        assert_eq!(json(0, "3600000"), Err(Reason::OutOfRange));
        assert_eq!(json(3, "-3599999999"), Ok(-3_599_999_999));
        assert_eq!(json(3, "-3600000000"), Err(Reason::OutOfRange));
        assert_eq!(json(0, "1.5"), Err(Reason::WrongType));
        assert_eq!(json(0, "true"), Err(Reason::WrongType));
        assert_eq!(ticks(0, Cell::milliseconds(0)), Err(Reason::WrongType));
    }
}
