//! Dates and times as RFC 3339 and ISO 8601 write them.

use super::error::Reason;

/// A date, perhaps with a time, as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) year: i16,
    pub(super) month: i8,
    pub(super) day: i8,
    /// Days from the Unix epoch to the written date.
    pub(super) days: i64,
    pub(super) second_of_day: u32,
    /// Nanoseconds below the second.
    pub(super) fraction: u32,
    /// Whether digits that are not zeros follow the ninth.
    pub(super) finer: bool,
    /// Seconds east of UTC, where an offset was written.
    pub(super) offset: Option<i32>,
}

/// Reads `YYYY-MM-DD`, or that with `T` or a space, `HH:MM[:SS[.fraction]]` and
/// perhaps `Z` or an offset (`+02:00`, `+0200`, `+02`).
///
/// A leap second is refused: no column could tell it from the next minute.
pub(super) fn parse(text: &str) -> Result<Written, Reason> {
    read(text.as_bytes()).ok_or(Reason::InvalidDate)
}

fn read(bytes: &[u8]) -> Option<Written> {
    let (date, rest) = bytes.split_at_checked(10)?;
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = date else {
        return None;
    };
    let year = pair(y1, y2)? * 100 + pair(y3, y4)?;
    let month = pair(m1, m2)?;
    let day = pair(d1, d2)?;
    if !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    let mut written = Written {
        year: year as i16,
        month: month as i8,
        day: day as i8,
        days: days_from_civil(year, month, day),
        second_of_day: 0,
        fraction: 0,
        finer: false,
        offset: None,
    };
    match rest {
        [] => Some(written),
        [b'T' | b't' | b' ', time @ ..] => {
            let rest = read_time(time, &mut written)?;
            written.offset = read_offset(rest)?;
            Some(written)
        }
        _ => None,
    }
}

/// Reads the time of day and gives back what follows it.
fn read_time<'a>(bytes: &'a [u8], written: &mut Written) -> Option<&'a [u8]> {
    let &[h1, h2, b':', m1, m2, ref rest @ ..] = bytes else {
        return None;
    };
    let (hour, minute) = (pair(h1, h2)?, pair(m1, m2)?);
    let (second, rest) = match rest {
        &[b':', s1, s2, ref rest @ ..] => (pair(s1, s2)?, rest),
        rest => (0, rest),
    };
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    written.second_of_day = hour * 3600 + minute * 60 + second;
    let (fraction, finer, rest) = read_fraction(rest)?;
    written.fraction = fraction;
    written.finer = finer;
    Some(rest)
}

/// Reads the digits below the second, if there are any: nanoseconds, whether
/// digits that are not zeros follow, and what comes then.
pub(super) fn read_fraction(bytes: &[u8]) -> Option<(u32, bool, &[u8])> {
    let [b'.' | b',', rest @ ..] = bytes else {
        return Some((0, false, bytes));
    };
    let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let (digits, rest) = rest.split_at(count);
    let (kept, beyond) = digits.split_at(count.min(9));
    let value = kept.iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    let nanos = value * 10u32.pow(9 - kept.len() as u32);
    Some((nanos, beyond.iter().any(|&digit| digit != b'0'), rest))
}

/// `Some(None)` where nothing is written, `None` where something else is.
fn read_offset(bytes: &[u8]) -> Option<Option<i32>> {
    let (sign, hours, minutes) = match *bytes {
        [] => return Some(None),
        [b'Z' | b'z'] => return Some(Some(0)),
        [sign, h1, h2] => (sign, pair(h1, h2)?, 0),
        [sign, h1, h2, m1, m2] | [sign, h1, h2, b':', m1, m2] => {
            (sign, pair(h1, h2)?, pair(m1, m2)?)
        }
        _ => return None,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = (hours * 3600 + minutes * 60) as i32;
    match sign {
        b'+' => Some(Some(seconds)),
        b'-' => Some(Some(-seconds)),
        _ => None,
    }
}

#[inline]
fn pair(tens: u8, ones: u8) -> Option<u32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| u32::from(tens) * 10 + u32::from(ones))
}

fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        _ => 31,
    }
}

/// Days since the Unix epoch in the proleptic Gregorian calendar. Years are
/// counted from March, so that the leap day comes last.
fn days_from_civil(year: u32, month: u32, day: u32) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use jiff::civil;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written() {
        let written = parse("2024-02-29T12:34:56.789+02:30").unwrap();
        assert_eq!(written.second_of_day, 12 * 3600 + 34 * 60 + 56);
        assert_eq!(written.fraction, 789_000_000);
        assert_eq!(written.offset, Some(9000));
        for same in [
            "2024-02-29 12:34:56.789+02:30",
            "2024-02-29t12:34:56,789+0230",
            "2024-02-29T12:34:56.78900000000+02:30",
        ] {
            assert_eq!(parse(same), Ok(written), "{same}");
        }
        assert_eq!(parse("2024-01-01T00:00").unwrap().offset, None);
        assert_eq!(parse("2024-01-01T00:00z").unwrap().offset, Some(0));
        assert_eq!(parse("2024-01-01T00:00-05").unwrap().offset, Some(-18_000));
        assert!(parse("2024-01-01T00:00:00.0000000001").unwrap().finer);
    }

    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "2024",
            "2024-1-1",
            "2024-00-01",
            "2024-13-01",
            "2024-01-00",
            "2023-02-29",
            "1900-02-29",
            "2024-01-01T",
            "2024-01-01T24:00:00",
            "2024-01-01T23:60:00",
            "2024-01-01T23:59:60Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00+24:00",
            "2024-01-01T00:00:00 Z",
            "2024-01-01Z",
            "2024-01-01T00:00:00Z ",
            "20240101",
            "2024-01-01T00:00:00[UTC]",
            "2024-01-0é",
            "+2024-01-01",
        ] {
            assert_eq!(parse(text), Err(Reason::InvalidDate), "{text}");
        }
    }

    proptest! {
        #[test]
        fn days_agree_with_the_calendar_of_jiff(days in -719_528i32..=2_932_896) {
            let epoch = civil::date(1970, 1, 1);
            let date = epoch.checked_add(jiff::Span::new().days(days)).unwrap();
            prop_assert_eq!(parse(&date.to_string()).unwrap().days, i64::from(days));
        }
    }
}
