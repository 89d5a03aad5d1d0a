//! Values for a type, as a payload writes them, with what ClickHouse must then
//! show. Everything here is reckoned with decimal text, unlike in the encoder.

use std::{
    cmp::Ordering,
    net::{Ipv4Addr, Ipv6Addr},
};

use serde_json::Value;

use super::{
    dice::Dice,
    kind::{ENUM8, ENUM16, Kind, NAMES},
};

/// What ClickHouse shows.
#[derive(Debug, Clone)]
pub(super) enum Shown {
    Null,
    Bool(bool),
    /// A number without fraction that may be quoted, or text.
    Text(String),
    Float(f64),
    Float32(f32),
    Address(Ipv6Addr),
    List(Vec<Shown>),
    Fields(Vec<(String, Shown)>),
}

impl Shown {
    pub(super) fn is(&self, found: &Value) -> bool {
        match (self, found) {
            (Shown::Null, Value::Null) => true,
            (Shown::Bool(expected), Value::Bool(found)) => expected == found,
            (Shown::Text(expected), Value::String(found)) => expected == found,
            (Shown::Text(expected), Value::Number(found)) => *expected == found.to_string(),
            (Shown::Float(expected), Value::String(found)) => Ok(*expected) == found.parse(),
            (Shown::Float32(expected), Value::Number(found)) => {
                Some(*expected) == found.as_f64().map(|found| found as f32)
            }
            (Shown::Address(expected), Value::String(found)) => Ok(*expected) == found.parse(),
            (Shown::List(expected), Value::Array(found)) => {
                expected.len() == found.len() && expected.iter().zip(found).all(|(e, f)| e.is(f))
            }
            (Shown::Fields(expected), Value::Object(found)) => {
                let is =
                    |(name, shown): &(String, Shown)| found.get(name).is_some_and(|f| shown.is(f));
                expected.len() == found.len() && expected.iter().all(is)
            }
            _ => false,
        }
    }
}

/// JSON text, and what it is shown as; `None` if it must be refused.
pub(super) type Written = (String, Option<Shown>);

impl Kind {
    pub(super) fn value(&self, dice: &mut Dice) -> Written {
        if !self.takes_null() && dice.is_misfit() {
            return ("null".into(), None);
        }
        match self {
            Kind::Nullable(_) if dice.one_in(4) => ("null".into(), Some(Shown::Null)),
            Kind::Nullable(inner) => match inner.value(dice) {
                (json, None) if json == "null" => (json, Some(Shown::Null)),
                written => written,
            },
            Kind::LowCardinality(inner) | Kind::SimpleAggregate(inner) => inner.value(dice),
            Kind::Integer { bits, signed } => integer(*bits, *signed, dice),
            Kind::Decimal(precision, scale) => decimal(*precision, *scale, dice),
            Kind::BFloat16 => {
                let bits = dice.bits() as u32 & 0xffff_0000;
                let value = f32::from_bits(bits);
                float(format!("{value:e}"), Shown::Float32(value), value.is_finite(), dice)
            }
            Kind::Float32 => {
                let value = f32::from_bits(dice.bits() as u32);
                float(format!("{value:e}"), Shown::Float32(value), value.is_finite(), dice)
            }
            Kind::Float64 => {
                let value = f64::from_bits(dice.bits());
                let text = if dice.one_in(2) { format!("{value}") } else { format!("{value:e}") };
                float(text, Shown::Float(value), value.is_finite(), dice)
            }
            Kind::Bool => match dice.rare() {
                0 => (dice.pick(&["0", "1", "\"true\"", "[]"]).into(), None),
                n => ((n % 2 == 0).to_string(), Some(Shown::Bool(n % 2 == 0))),
            },
            Kind::String => match dice.rare() {
                0 => (dice.pick(&["\"\\ud800\"", "\"a\\udfffb\""]).into(), None),
                // What is no text is kept as its JSON.
                1..4 => {
                    let json =
                        dice.pick(&["1.50", "true", "-0", "[1, 2]", r#"{"a": "\u00e9"}"#, "1e400"]);
                    (json.into(), Some(Shown::Text(json.into())))
                }
                _ => {
                    let text = text(dice, 12);
                    (quoted(&text, dice), Some(Shown::Text(text)))
                }
            },
            Kind::FixedString(length) => {
                let beyond = usize::from(dice.is_misfit());
                let text = text(dice, length + beyond);
                let padding = length.checked_sub(text.len()).map(|zeros| "\0".repeat(zeros));
                (quoted(&text, dice), padding.map(|zeros| Shown::Text(text + &zeros)))
            }
            Kind::Uuid => {
                let uuid = uuid::Uuid::from_u64_pair(dice.bits(), dice.bits());
                let text = dice.pick(&[
                    uuid.to_string(),
                    uuid.to_string().to_uppercase(),
                    uuid.simple().to_string(),
                ]);
                let shown = Shown::Text(uuid.to_string());
                spoiled(text, shown, dice)
            }
            Kind::Ipv4 => {
                let address = Ipv4Addr::from_bits(dice.bits() as u32).to_string();
                spoiled(address.clone(), Shown::Text(address), dice)
            }
            Kind::Ipv6 => {
                let high = if dice.one_in(2) { 0 } else { dice.bits() };
                let bits = u128::from(high) << 64 | u128::from(dice.bits() >> dice.below(64));
                let address = Ipv6Addr::from_bits(bits);
                spoiled(address.to_string(), Shown::Address(address), dice)
            }
            Kind::Enum8 => member(ENUM8, dice),
            Kind::Enum16 => member(ENUM16, dice),
            Kind::Date => date(0, 65_535, dice),
            Kind::Date32 => date(-25_567, 120_529, dice),
            Kind::DateTime => date_time(dice),
            Kind::DateTime64(precision) => date_time64(*precision, dice),
            Kind::Time => time(0, dice),
            Kind::Time64(precision) => time(*precision, dice),
            Kind::Json => match dice.rare() {
                0 => (dice.pick(&["[1]", "\"{}\"", "1", "true"]).into(), None),
                _ => document(dice, 2),
            },
            Kind::Point => Kind::Tuple(vec![Kind::Float64, Kind::Float64]).value(dice),
            Kind::Array(inner) => list((0..dice.below(4)).map(|_| inner.value(dice)).collect()),
            Kind::Map(key, value) => map(key, value, dice),
            Kind::Tuple(kinds) => {
                let mut parts: Vec<_> = kinds.iter().map(|kind| kind.value(dice)).collect();
                if dice.is_misfit() {
                    parts.push(("0".into(), None));
                }
                list(parts)
            }
            Kind::NamedTuple(kinds) => named_tuple(kinds, dice),
            Kind::Nested(kinds) => {
                list((0..dice.below(4)).map(|_| named_tuple(kinds, dice)).collect())
            }
        }
    }
}

fn integer(bits: usize, signed: bool, dice: &mut Dice) -> Written {
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

fn decimal(precision: usize, scale: usize, dice: &mut Dice) -> Written {
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

fn float(text: String, shown: Shown, is_finite: bool, dice: &mut Dice) -> Written {
    match dice.rare() {
        0 => (dice.pick(&["1e309", "-1e400", "\"1.5\"", "\"NaN\"", "true"]).into(), None),
        _ if is_finite => (text, Some(shown)),
        _ => ("true".into(), None),
    }
}

/// Text that fits, or the same with something after it.
fn spoiled(text: String, shown: Shown, dice: &mut Dice) -> Written {
    match dice.rare() {
        0 => (format!("\"{text}x\""), None),
        1 => ("17".into(), None),
        _ => (format!("\"{text}\""), Some(shown)),
    }
}

fn member(all: &[(&str, i64)], dice: &mut Dice) -> Written {
    let (name, value) = dice.pick(all);
    match dice.rare() {
        0 => (dice.pick(&["\"none\"", "77", "1.5", "99999", "false"]).into(), None),
        1..10 => (value.to_string(), Some(Shown::Text(name.into()))),
        _ => (quoted(name, dice), Some(Shown::Text(name.into()))),
    }
}

fn date(first: i64, last: i64, dice: &mut Dice) -> Written {
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

fn date_time(dice: &mut Dice) -> Written {
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

fn date_time64(precision: u32, dice: &mut Dice) -> Written {
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

fn time(precision: u32, dice: &mut Dice) -> Written {
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

fn list(parts: Vec<Written>) -> Written {
    let json: Vec<_> = parts.iter().map(|(json, _)| json.as_str()).collect();
    let json = format!("[{}]", json.join(", "));
    let shown: Option<Vec<_>> = parts.into_iter().map(|(_, shown)| shown).collect();
    (json, shown.map(Shown::List))
}

fn map(key: &Kind, value: &Kind, dice: &mut Dice) -> Written {
    let (mut json, mut fields) = (Vec::new(), Some(Vec::<(String, Shown)>::new()));
    for _ in 0..dice.below(4) {
        let name = match key {
            Kind::Uuid => uuid::Uuid::from_u64_pair(dice.bits(), dice.bits()).to_string(),
            Kind::Integer { .. } => dice.bits().to_string(),
            _ => text(dice, 6),
        };
        // One name twice would be two pairs, and one member of what is shown.
        if fields.iter().flatten().any(|(known, _)| *known == name) {
            continue;
        }
        let (text, shown) = value.value(dice);
        json.push(format!("{}:{text}", quoted(&name, dice)));
        fields = fields.zip(shown).map(|(mut fields, shown)| {
            fields.push((name, shown));
            fields
        });
    }
    (format!("{{{}}}", json.join(",")), fields.map(Shown::Fields))
}

fn named_tuple(kinds: &[Kind], dice: &mut Dice) -> Written {
    let parts: Vec<_> = kinds.iter().map(|kind| kind.value(dice)).collect();
    let by_position = dice.one_in(4);
    let mut members = Vec::new();
    for ((json, _), name) in parts.iter().zip(NAMES) {
        // What is absent is NULL.
        if json != "null" || dice.one_in(2) {
            members.push(format!("{}:{json}", quoted(name, dice)));
        }
    }
    let names = NAMES.iter().map(|name| (*name).to_owned());
    let (array, shown) = list(parts);
    let shown = shown.map(|shown| match shown {
        Shown::List(parts) => Shown::Fields(names.zip(parts).collect()),
        other => other,
    });
    if by_position {
        return (array, shown);
    }
    if dice.one_in(2) {
        members.reverse();
    }
    match dice.rare() {
        0 => (format!("{{\"unknown\":1,{}}}", members.join(",")), None),
        _ => (format!("{{{}}}", members.join(",")), shown),
    }
}

/// A document of texts, integers, truths and objects: ClickHouse reads anything
/// else in its own way.
fn document(dice: &mut Dice, levels: usize) -> Written {
    let (mut json, mut fields) = (Vec::new(), Vec::new());
    for name in ["a", "b", "é"].into_iter().take(1 + dice.below(3)) {
        let (text, shown) = match dice.below(4) {
            0 if levels > 0 => document(dice, levels - 1),
            1 => {
                let number = dice.bits().cast_signed();
                (number.to_string(), Some(Shown::Text(number.to_string())))
            }
            2 => ("true".to_owned(), Some(Shown::Bool(true))),
            _ => {
                let text = format!("x{}", text(dice, 5));
                (quoted(&text, dice), Some(Shown::Text(text)))
            }
        };
        json.push(format!("\"{name}\" :{text}"));
        fields.extend(shown.map(|shown| (name.to_owned(), shown)));
    }
    (format!("{{{}}}", json.join(" , ")), Some(Shown::Fields(fields)))
}

/// Text of up to so many bytes.
fn text(dice: &mut Dice, most: usize) -> String {
    const SIGNS: [&str; 12] =
        ["a", "Z", "0", " ", "\"", "\\", "\n", "\0", "/", "é", "\u{7f}", "😀"];
    let mut text = String::new();
    for _ in 0..dice.below(most + 1) {
        let sign = dice.pick(&SIGNS);
        if text.len() + sign.len() <= most {
            text.push_str(sign);
        }
    }
    text
}

/// As a JSON string, with escapes that need not be there.
fn quoted(text: &str, dice: &mut Dice) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        if c == '"' || c == '\\' || c < ' ' || dice.one_in(5) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                json.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            json.push(c);
        }
    }
    json.push('"');
    json
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
