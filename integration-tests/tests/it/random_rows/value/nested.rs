//! Lists, maps, tuples, documents and text.

use super::{
    super::{
        dice::Dice,
        kind::{Kind, NAMES},
    },
    Shown, Written,
};
pub(super) fn list(parts: Vec<Written>) -> Written {
    let json: Vec<_> = parts.iter().map(|(json, _)| json.as_str()).collect();
    let json = format!("[{}]", json.join(", "));
    let shown: Option<Vec<_>> = parts.into_iter().map(|(_, shown)| shown).collect();
    (json, shown.map(Shown::List))
}

pub(super) fn map(key: &Kind, value: &Kind, dice: &mut Dice) -> Written {
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

pub(super) fn named_tuple(kinds: &[Kind], dice: &mut Dice) -> Written {
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
pub(super) fn document(dice: &mut Dice, levels: usize) -> Written {
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
pub(super) fn text(dice: &mut Dice, most: usize) -> String {
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
pub(super) fn quoted(text: &str, dice: &mut Dice) -> String {
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
