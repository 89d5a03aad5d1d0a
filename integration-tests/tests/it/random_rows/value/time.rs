//! Dates and times.

use super::{super::dice::Dice, Shown, Written};
pub(super) fn date(first: i64, last: i64, dice: &mut Dice) -> Written {
    let days = match dice.rare() {
        0 => dice.pick(&[first - 1, last + 1]),
        1 => dice.pick(&[first, last]),
        _ => dice.between(first, last),
    };
    let text = civil(days);
    let fits = (first..=last).contains(&days);
    let json = match dice.below(4) {
        0 => format!("\"{text}T00:00:00Z\""),
        _ => format!("\"{text}\""),
    };
    match dice.rare() {
        0 => (dice.pick(&["\"2023-02-29\"", "0", "\"2024-01-01T00:00:01Z\"", "\"\""]).into(), None),
        _ => (json, fits.then_some(Shown::Text(text))),
    }
}

pub(super) fn date_time(dice: &mut Dice) -> Written {
    const LAST: i64 = 4_294_967_295;
    let seconds = match dice.rare() {
        0 => dice.pick(&[-1, LAST + 1]),
        1 => dice.pick(&[0, LAST]),
        _ => dice.between(0, LAST),
    };
    let shown =
        format!("{} {}", civil(seconds.div_euclid(86_400)), clock(seconds.rem_euclid(86_400)));
    let json = match dice.below(4) {
        0 => seconds.to_string(),
        1 => format!("\"{shown}\""),
        2 => {
            let east = seconds + 19_800;
            let local =
                format!("{}T{}", civil(east.div_euclid(86_400)), clock(east.rem_euclid(86_400)));
            format!("\"{local}+05:30\"")
        }
        _ => format!("\"{}Z\"", shown.replace(' ', "T")),
    };
    match dice.rare() {
        0 => (dice.pick(&["\"2024-01-01T00:00:00.5Z\"", "1.5", "\"x\"", "{}"]).into(), None),
        _ => (json, (0..=LAST).contains(&seconds).then_some(Shown::Text(shown))),
    }
}

pub(super) fn date_time64(precision: u32, dice: &mut Dice) -> Written {
    let first = -25_567 * 86_400;
    // Nine digits end with 64 bits, in 2262.
    let last = if precision == 9 { 9_223_372_035 } else { 120_530 * 86_400 - 1 };
    let beyond = if precision == 9 { last + 2 } else { last + 1 };
    let seconds = match dice.rare() {
        0 => dice.pick(&[first - 1, beyond]),
        1 => dice.pick(&[first, last]),
        _ => dice.between(first, last),
    };
    let (digits, fits) = fraction(precision, dice);
    let whole =
        format!("{}T{}", civil(seconds.div_euclid(86_400)), clock(seconds.rem_euclid(86_400)));
    let point = if digits.is_empty() { "" } else { "." };
    let json = format!("\"{whole}{point}{digits}{}\"", dice.pick(&["Z", "+00:00", ""]));
    let shown = Shown::Text(whole.replace('T', " ") + &kept(&digits, precision));
    (json, (fits && (first..=last).contains(&seconds)).then_some(shown))
}

pub(super) fn time(precision: u32, dice: &mut Dice) -> Written {
    const LAST: i64 = 3_599_999;
    let seconds = if dice.one_in(4) { LAST } else { dice.between(0, LAST) };
    let seconds = seconds + i64::from(dice.is_misfit()) * 3_600_000;
    let (digits, fits) = fraction(precision, dice);
    let sign = if dice.one_in(2) { "-" } else { "" };
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let point = if digits.is_empty() { "" } else { "." };
    let json = format!("\"{sign}{clock}{point}{digits}\"");
    let is_zero = seconds == 0 && digits.bytes().all(|digit| digit == b'0');
    let sign = if is_zero { "" } else { sign };
    let shown = Shown::Text(format!("{sign}{clock}{}", kept(&digits, precision)));
    (json, (fits && seconds <= LAST).then_some(shown))
}

/// Digits below the second, and whether a type of this precision takes them.
fn fraction(precision: u32, dice: &mut Dice) -> (String, bool) {
    let precision = precision as usize;
    let mut digits: String = match dice.below(4) {
        0 => String::new(),
        _ => (0..precision).map(|_| char::from(b'0' + dice.below(10) as u8)).collect(),
    };
    if dice.one_in(8) {
        digits.extend(std::iter::repeat_n('0', precision + 2 - digits.len()));
    }
    if dice.is_misfit() {
        digits.extend(std::iter::repeat_n('0', precision - digits.len().min(precision)));
        digits.push('7');
        return (digits, false);
    }
    (digits, true)
}

/// The fraction as a type of this precision shows it.
fn kept(digits: &str, precision: u32) -> String {
    match precision as usize {
        0 => String::new(),
        precision => format!(".{:0<precision$}", &digits[..digits.len().min(precision)]),
    }
}

fn clock(second: i64) -> String {
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// The date so many days after 1970-01-01, by counting.
fn civil(days: i64) -> String {
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    // 400 years are 146,097 days.
    let (mut year, mut days) = (1970 - 400, days + 146_097);
    while days >= 365 + i64::from(is_leap(year)) {
        days -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + i64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}", days + 1)
}
