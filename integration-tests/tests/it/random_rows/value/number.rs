//! Numbers, reckoned with decimal text.

use std::cmp::Ordering;

use super::{super::dice::Dice, Shown, Written};
pub(super) fn integer(bits: usize, signed: bool, dice: &mut Dice) -> Written {
    let power = power_of_two(if signed { bits - 1 } else { bits });
    let digits = match dice.below(8) {
        0 => power.clone(),
        1 => add(&power, -1),
        2 => add(&power, 1),
        3 => "0".to_owned(),
        // Mostly such that fit.
        _ => {
            let most = power.len() - 1 + usize::from(dice.is_misfit());
            let count = 1 + dice.below(most.max(1));
            dice.digits(count)
        }
    };
    let negative = if signed { dice.one_in(2) } else { dice.is_misfit() };
    let fits = match (compare(&digits, &power), negative, signed) {
        (_, true, false) => digits == "0",
        (order, true, true) => order != Ordering::Greater,
        (order, false, _) => order == Ordering::Less,
    };
    let sign = if negative { "-" } else { "" };
    let shown = if digits == "0" { digits.clone() } else { format!("{sign}{digits}") };
    let json = match dice.below(6) {
        0 => format!("\"{sign}{digits}\""),
        1 => format!("{sign}{digits}.00"),
        2 => {
            let trimmed = digits.trim_end_matches('0');
            let zeros = digits.len() - trimmed.len();
            if trimmed.is_empty() {
                format!("{sign}0e3")
            } else {
                format!("{sign}{trimmed}e+{zeros}")
            }
        }
        3 if digits != "0" => format!("{sign}{digits}0E-1"),
        _ => format!("{sign}{digits}"),
    };
    match dice.rare() {
        0 => (dice.pick(&["0.5", "\"x\"", "true", "[]", "\"\"", "1e-1", "\"1 \""]).into(), None),
        _ => (json, fits.then_some(Shown::Text(shown))),
    }
}

pub(super) fn decimal(precision: usize, scale: usize, dice: &mut Dice) -> Written {
    let beyond = usize::from(dice.is_misfit());
    let before = dice.below(precision - scale + 1 + beyond);
    let integral = if before == 0 { "0".to_owned() } else { dice.digits(before) };
    let beyond = usize::from(dice.is_misfit());
    let after = dice.below(scale + 1 + beyond);
    let fraction: String = (0..after).map(|_| char::from(b'0' + dice.below(10) as u8)).collect();
    let (kept, sign) = (fraction.trim_end_matches('0'), if dice.one_in(2) { "-" } else { "" });
    let fits = kept.len() <= scale && before <= precision - scale;
    let shown = match (integral.as_str(), kept) {
        ("0", "") => "0".to_owned(),
        (integral, "") => format!("{sign}{integral}"),
        (integral, kept) => format!("{sign}{integral}.{kept}"),
    };
    let point = if fraction.is_empty() { "" } else { "." };
    let json = match dice.below(4) {
        0 => format!("\"{sign}{integral}{point}{fraction}\""),
        1 => {
            let digits = format!("{integral}{fraction}");
            let digits = digits.trim_start_matches('0');
            format!("{sign}{}e-{after}", if digits.is_empty() { "0" } else { digits })
        }
        2 if integral != "0" => format!("{sign}0.{integral}{fraction}e{before}"),
        _ => format!("{sign}{integral}{point}{fraction}"),
    };
    match dice.rare() {
        0 => (dice.pick(&["\"x\"", "true", "{}", "\"1,5\"", "1e99"]).into(), None),
        _ => (json, fits.then_some(Shown::Text(shown))),
    }
}

pub(super) fn float(text: String, shown: Shown, is_finite: bool, dice: &mut Dice) -> Written {
    match dice.rare() {
        0 => (dice.pick(&["1e309", "-1e400", "\"x\"", "\"1,5\"", "true"]).into(), None),
        1 if is_finite => (format!("\"{text}\""), Some(shown)),
        _ if is_finite => (text, Some(shown)),
        _ => ("true".into(), None),
    }
}

/// Text that fits, or the same with something after it.
pub(super) fn spoiled(text: String, shown: Shown, dice: &mut Dice) -> Written {
    match dice.rare() {
        0 => (format!("\"{text}x\""), None),
        1 => ("17".into(), None),
        _ => (format!("\"{text}\""), Some(shown)),
    }
}

fn power_of_two(exponent: usize) -> String {
    (0..exponent).fold("1".to_owned(), |power, _| sum(&power, &power))
}

fn add(digits: &str, one: i64) -> String {
    if one > 0 {
        return sum(digits, "1");
    }
    // A power of two does not end with a zero.
    let (rest, last) = digits.split_at(digits.len() - 1);
    format!("{rest}{}", last.parse::<u8>().unwrap() - 1)
}

fn sum(a: &str, b: &str) -> String {
    let digit = |text: &str, at: usize| {
        text.len().checked_sub(at + 1).map_or(0, |index| text.as_bytes()[index] - b'0')
    };
    let (mut reversed, mut carry) = (Vec::new(), 0);
    for at in 0..a.len().max(b.len()) {
        let value = digit(a, at) + digit(b, at) + carry;
        reversed.push(b'0' + value % 10);
        carry = value / 10;
    }
    reversed.extend((carry > 0).then_some(b'1'));
    reversed.iter().rev().map(|&byte| char::from(byte)).collect()
}

fn compare(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}
