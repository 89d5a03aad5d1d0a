//! `Date`, `Date32`, `DateTime` and `DateTime64`.

use jiff::Timestamp;
use jiff::civil;

use super::cell::Cell;
use super::error::Reason;
use super::integer;
use super::timestamp_text::{self, Written};
use super::types::Zone;

const SECONDS_A_DAY: i64 = 86_400;
const NANOS_A_SECOND: i64 = 1_000_000_000;
/// 1900-01-01 and 2299-12-31, as days since the Unix epoch: the calendar that
/// ClickHouse computes with.
const CALENDAR: std::ops::RangeInclusive<i64> = -25_567..=120_529;

/// Appends the days since the Unix epoch, 16 bits.
pub(super) fn write_date(cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    let days = u16::try_from(days(cell)?).map_err(|_| Reason::OutOfRange)?;
    out.extend_from_slice(&days.to_le_bytes());
    Ok(())
}

/// Appends the days since the Unix epoch, 32 bits and signed.
pub(super) fn write_date32(cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    let days = days(cell)?;
    if !CALENDAR.contains(&days) {
        return Err(Reason::OutOfRange);
    }
    // The calendar is far within 32 bits.
    out.extend_from_slice(&(days as i32).to_le_bytes());
    Ok(())
}

/// Appends the seconds since the Unix epoch, 32 bits.
pub(super) fn write_date_time(
    zone: &Zone,
    cell: Cell<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    let seconds = match cell {
        Cell::Timestamp { seconds, .. } => seconds,
        _ => match cell.text()? {
            Some(text) => {
                let written = timestamp_text::parse(&text)?;
                if written.fraction != 0 || written.finer {
                    return Err(Reason::TooManyDigits);
                }
                seconds(zone, &written)?
            }
            None => integer::value(cell)?,
        },
    };
    let seconds = u32::try_from(seconds).map_err(|_| Reason::OutOfRange)?;
    out.extend_from_slice(&seconds.to_le_bytes());
    Ok(())
}

/// Appends the ticks of 10^-`precision` seconds since the Unix epoch.
pub(super) fn write_date_time64(
    precision: u8,
    zone: &Zone,
    cell: Cell<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    let a_second = 10i64.pow(u32::from(precision));
    let a_tick = NANOS_A_SECOND / a_second;
    let (seconds, ticks) = match cell {
        Cell::Timestamp { seconds, nanos } => (seconds, nanos / a_tick),
        _ => match cell.text()? {
            Some(text) => {
                let written = timestamp_text::parse(&text)?;
                let nanos = i64::from(written.fraction);
                if nanos % a_tick != 0 || written.finer {
                    return Err(Reason::TooManyDigits);
                }
                (seconds(zone, &written)?, nanos / a_tick)
            }
            None => {
                let ticks = integer::value(cell)?;
                (ticks.div_euclid(a_second), ticks.rem_euclid(a_second))
            }
        },
    };
    if !CALENDAR.contains(&seconds.div_euclid(SECONDS_A_DAY)) {
        return Err(Reason::OutOfRange);
    }
    let ticks = seconds
        .checked_mul(a_second)
        .and_then(|whole| whole.checked_add(ticks))
        .ok_or(Reason::OutOfRange)?;
    out.extend_from_slice(&ticks.to_le_bytes());
    Ok(())
}

fn days(cell: Cell<'_>) -> Result<i64, Reason> {
    if let Cell::Timestamp { seconds, .. } = cell {
        return Ok(seconds.div_euclid(SECONDS_A_DAY));
    }
    let text = cell.text()?.ok_or(Reason::WrongType)?;
    let written = timestamp_text::parse(&text)?;
    // Midnight in UTC is how many serializers spell a date. Any other time of
    // day would be dropped, and another offset could mean another day.
    let midnight = written.second_of_day == 0 && written.fraction == 0 && !written.finer;
    if !midnight || written.offset.unwrap_or(0) != 0 {
        return Err(Reason::TooManyDigits);
    }
    Ok(written.days)
}

/// The written time in seconds since the Unix epoch.
fn seconds(zone: &Zone, written: &Written) -> Result<i64, Reason> {
    let local = written.days * SECONDS_A_DAY + i64::from(written.second_of_day);
    match written.offset {
        Some(offset) => Ok(local - i64::from(offset)),
        None if zone.is_utc() => Ok(local),
        None => {
            let time = i64::from(written.second_of_day);
            let date_time = civil::DateTime::new(
                written.year,
                written.month,
                written.day,
                (time / 3600) as i8,
                (time / 60 % 60) as i8,
                (time % 60) as i8,
                0,
            )
            .map_err(|_| Reason::InvalidDate)?;
            // When clocks change, a local time can be missing or come twice.
            // Either would have to be guessed.
            zone.rules
                .to_ambiguous_timestamp(date_time)
                .unambiguous()
                .map(Timestamp::as_second)
                .map_err(|_| Reason::InvalidDate)
        }
    }
}

/// A moment as RFC 3339, in UTC.
pub(super) fn rfc3339(seconds: i64, nanos: i64) -> String {
    // Less than a second.
    match Timestamp::new(seconds, nanos as i32) {
        Ok(moment) => moment.to_string(),
        // Beyond the year 9999 there is no RFC 3339.
        Err(_) => format!("{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::types::{ColumnType, ScalarType};

    fn zone(text: &str) -> Zone {
        match text.parse() {
            Ok(ColumnType::Scalar(ScalarType::DateTime(zone))) => zone,
            other => panic!("{other:?}"),
        }
    }

    fn date(text: &str) -> Result<u16, Reason> {
        let mut out = Vec::new();
        write_date(Cell::Text(text), &mut out)?;
        Ok(u16::from_le_bytes(out.try_into().unwrap()))
    }

    fn date32(text: &str) -> Result<i32, Reason> {
        let mut out = Vec::new();
        write_date32(Cell::Text(text), &mut out)?;
        Ok(i32::from_le_bytes(out.try_into().unwrap()))
    }

    fn date_time(zone_text: &str, cell: Cell<'_>) -> Result<u32, Reason> {
        let mut out = Vec::new();
        write_date_time(&zone(zone_text), cell, &mut out)?;
        Ok(u32::from_le_bytes(out.try_into().unwrap()))
    }

    fn date_time64(precision: u8, cell: Cell<'_>) -> Result<i64, Reason> {
        let mut out = Vec::new();
        write_date_time64(precision, &Zone::unnamed(), cell, &mut out)?;
        Ok(i64::from_le_bytes(out.try_into().unwrap()))
    }

    #[test]
    fn dates_at_their_limits() {
        assert_eq!(date("1970-01-01"), Ok(0));
        assert_eq!(date("2149-06-06"), Ok(65535));
        assert_eq!(date("2149-06-07"), Err(Reason::OutOfRange));
        assert_eq!(date("1969-12-31"), Err(Reason::OutOfRange));
        assert_eq!(date32("1900-01-01"), Ok(-25567));
        assert_eq!(date32("2299-12-31"), Ok(120_529));
        assert_eq!(date32("1899-12-31"), Err(Reason::OutOfRange));
        assert_eq!(date32("2300-01-01"), Err(Reason::OutOfRange));
        assert_eq!(date("2024-02-29T00:00:00.000Z"), date("2024-02-29"));
        assert_eq!(date("2024-02-29T00:00:01Z"), Err(Reason::TooManyDigits));
        assert_eq!(date("2024-02-29T00:00:00+02:00"), Err(Reason::TooManyDigits));
        assert_eq!(write_date(Cell::Json("19000"), &mut Vec::new()), Err(Reason::WrongType));
    }

    #[test]
    fn date_times_at_their_limits() {
        let utc = |text| date_time("DateTime", Cell::Text(text));
        assert_eq!(utc("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(utc("2106-02-07 06:28:15"), Ok(u32::MAX));
        assert_eq!(utc("2106-02-07 06:28:16"), Err(Reason::OutOfRange));
        assert_eq!(utc("1970-01-01T00:00:00+01:00"), Err(Reason::OutOfRange));
        assert_eq!(utc("2024-01-01T00:00:00.5Z"), Err(Reason::TooManyDigits));
        assert_eq!(utc("2024-01-01T00:00:00.000Z"), Ok(1_704_067_200));
        assert_eq!(utc("2024-01-01"), Ok(1_704_067_200));
        assert_eq!(utc("1704067200"), Err(Reason::InvalidDate));
        assert_eq!(date_time("DateTime", Cell::Json("1704067200")), Ok(1_704_067_200));
        assert_eq!(date_time("DateTime", Cell::Json("1.5")), Err(Reason::WrongType));
        assert_eq!(date_time("DateTime", Cell::Json("-1")), Err(Reason::OutOfRange));
        assert_eq!(date_time("DateTime", Cell::milliseconds(1_999)), Ok(1));
        assert_eq!(date_time("DateTime", Cell::milliseconds(-1)), Err(Reason::OutOfRange));
    }

    #[test]
    fn a_time_without_offset_is_in_the_columns_zone() {
        let paris = |text| date_time("DateTime('Europe/Paris')", Cell::Text(text));
        assert_eq!(paris("2024-07-01 12:00:00"), paris("2024-07-01T10:00:00Z"));
        assert_eq!(paris("2024-01-01"), paris("2023-12-31T23:00:00Z"));
        // Clocks go from 02:00 to 03:00 in March, from 03:00 to 02:00 in October.
        assert_eq!(paris("2024-03-31 02:30:00"), Err(Reason::InvalidDate));
        assert_eq!(paris("2024-10-27 02:30:00"), Err(Reason::InvalidDate));
        assert!(paris("2024-10-27T02:30:00+01:00").is_ok());
    }

    #[test]
    fn ticks_are_exact() {
        let text = |precision, text| date_time64(precision, Cell::Text(text));
        assert_eq!(text(3, "1970-01-01T00:00:01.234Z"), Ok(1234));
        assert_eq!(text(3, "1970-01-01T00:00:01.2340000000000Z"), Ok(1234));
        assert_eq!(text(3, "1970-01-01T00:00:01.2345Z"), Err(Reason::TooManyDigits));
        assert_eq!(text(9, "1970-01-01T00:00:00.0000000001Z"), Err(Reason::TooManyDigits));
        assert_eq!(text(0, "1969-12-31T23:59:59Z"), Ok(-1));
        assert_eq!(text(1, "1969-12-31T23:59:59.5Z"), Ok(-5));
        assert_eq!(text(6, "1900-01-01T00:00:00Z"), Ok(-2_208_988_800_000_000));
        assert_eq!(text(6, "1899-12-31T23:59:59.999999Z"), Err(Reason::OutOfRange));
        assert_eq!(text(8, "2299-12-31T23:59:59.99999999Z"), Ok(1_041_379_199_999_999_999));
        assert_eq!(text(3, "2300-01-01T00:00:00Z"), Err(Reason::OutOfRange));
        assert_eq!(text(9, "2262-04-11T23:47:16.854775807Z"), Ok(i64::MAX));
        assert_eq!(text(9, "2262-04-11T23:47:16.854775808Z"), Err(Reason::OutOfRange));
    }

    #[test]
    fn integers_are_ticks_and_timestamps_are_floored() {
        assert_eq!(date_time64(3, Cell::Json("1704067200123")), Ok(1_704_067_200_123));
        assert_eq!(date_time64(3, Cell::Json("1704067200123456")), Err(Reason::OutOfRange));
        let moment = |text: &str| Cell::from(text.parse::<Timestamp>().unwrap());
        let second = moment("1970-01-01T00:00:01.234567891Z");
        assert_eq!(date_time64(9, second), Ok(1_234_567_891));
        assert_eq!(date_time64(8, second), Ok(123_456_789));
        assert_eq!(date_time64(6, second), Ok(1_234_567));
        assert_eq!(date_time64(3, second), Ok(1234));
        assert_eq!(date_time64(0, second), Ok(1));
        let before = moment("1969-12-31T23:59:59.999999999Z");
        assert_eq!(date_time64(9, before), Ok(-1));
        assert_eq!(date_time64(3, before), Ok(-1));
        assert_eq!(date_time64(9, Cell::milliseconds(-1)), Ok(-1_000_000));
        assert_eq!(date_time64(0, Cell::milliseconds(i64::MAX)), Err(Reason::OutOfRange));
        // Nanoseconds since 1970 fit 64 bits until 2262, other ticks until the calendar ends.
        assert_eq!(date_time64(9, moment("2262-04-11T23:47:16.854775807Z")), Ok(i64::MAX));
        assert_eq!(date_time64(9, moment("2299-01-01T00:00:00Z")), Err(Reason::OutOfRange));
        assert!(date_time64(8, moment("2299-01-01T00:00:00.12345678Z")).is_ok());
    }
}
