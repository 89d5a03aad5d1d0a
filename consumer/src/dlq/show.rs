//! One letter, as a person or a program reads it. Pure.

use std::fmt::Write as _;

use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use serde_json::{Value, json};

use super::letter::Letter;

/// Bytes as text; what is none is shown in hexadecimal.
fn text(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => "null".to_owned(),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => {
                bytes.iter().fold("0x".to_owned(), |mut text, byte| {
                    // Writing to a String does not fail.
                    write!(text, "{byte:02x}").ok();
                    text
                })
            }
        },
    }
}

pub(super) fn json(letter: &Letter, state: &str) -> Value {
    let headers: Vec<_> = letter
        .headers
        .iter()
        .map(
            |(name, value)| json!({"name": name, "value": value.as_deref().map(|v| text(Some(v)))}),
        )
        .collect();
    json!({
        "id": letter.id.to_string(),
        "state": state,
        "source": {
            "topic": &*letter.id.topic,
            "partition": letter.partition,
            "offset": letter.offset,
            "timestamp_ms": letter.timestamp_ms,
        },
        "table": letter.table,
        "column": letter.column,
        "expected": letter.expected,
        "value": letter.refused,
        "reason": letter.reason,
        "error": letter.error,
        "attempts": letter.attempts,
        "parked_at": letter.parked_at,
        "key": letter.key.as_deref().map(|key| text(Some(key))),
        "headers": headers,
        "payload": letter.value.as_deref().map(|value| text(Some(value))),
    })
}

pub(super) fn readable(letter: &Letter, state: &str) -> String {
    let mut about = Table::new();
    about.load_style(UTF8_BORDERS_ONLY);
    let source = format!("{}/{}/{}", letter.id.topic, letter.partition, letter.offset);
    let parked_at = letter.parked_at.map(|at| at.to_string()).unwrap_or_default();
    let attempts = letter.attempts.to_string();
    for (name, value) in [
        ("letter", letter.id.to_string().as_str()),
        ("state", state),
        ("record", &source),
        ("table", &letter.table),
        ("reason", &letter.reason),
        ("column", &letter.column),
        ("expected", &letter.expected),
        ("value", &letter.refused),
        ("error", &letter.error),
        ("attempts", &attempts),
        ("parked", &parked_at),
        ("key", &text(letter.key.as_deref())),
    ] {
        if !value.is_empty() {
            about.add_row([name, value]);
        }
    }
    let mut headers = Table::new();
    headers.load_style(UTF8_BORDERS_ONLY).set_header(["header", "value"]);
    for (name, value) in &letter.headers {
        headers.add_row([name.clone(), text(value.as_deref())]);
    }
    let payload = text(letter.value.as_deref());
    let pretty = serde_json::from_str::<Value>(&payload)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or(payload);
    format!("{about}\n{headers}\n{pretty}\n")
}
