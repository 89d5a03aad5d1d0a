//! The JSON document in a record's value, out of the form that its serializer
//! gave it.

use std::borrow::Cow;

use outpour_schemas::config::PayloadFormat;
use serde::Deserialize;
use serde_json::value::RawValue;

/// How Confluent's serializers begin: this byte, then the schema's id.
const MAGIC: u8 = 0;
/// Both together.
const FRAME: usize = 5;
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A value that is not in the form that the route names.
#[derive(Debug, thiserror::Error)]
pub(super) enum FormError {
    #[error("payload_format = \"escaped\" takes a JSON string that holds the document: {0}")]
    Escaped(serde_json::Error),
    #[error(
        "payload_format = \"confluent\" takes a zero byte, a schema id of four bytes and JSON, \
         not Avro or Protobuf: {0}"
    )]
    Confluent(String),
    #[error("payload_format = \"connect\" takes {{\"schema\":…,\"payload\":…}}: {0}")]
    Connect(serde_json::Error),
}

/// The document in `value`; `None` where the form says that there is none.
///
/// # Errors
/// When `value` is not in that form. [`PayloadFormat::Auto`] and
/// [`PayloadFormat::Json`] have no such: what is in no form they know is given
/// back as it stands.
pub(super) fn document(
    format: PayloadFormat,
    value: &[u8],
) -> Result<Option<Cow<'_, [u8]>>, FormError> {
    // The way nearly every payload goes.
    if value.first() == Some(&b'{') && matches!(format, PayloadFormat::Auto | PayloadFormat::Json) {
        return Ok(Some(Cow::Borrowed(value)));
    }
    match format {
        PayloadFormat::Auto => Ok(Some(detected(value))),
        PayloadFormat::Json => Ok(Some(Cow::Borrowed(without_mark(value)))),
        PayloadFormat::Escaped => {
            let text: Option<String> = serde_json::from_slice(value).map_err(FormError::Escaped)?;
            Ok(text.map(|text| Cow::Owned(text.into_bytes())))
        }
        PayloadFormat::Confluent => framed(value).map(Some),
        PayloadFormat::Connect => {
            let payload = connect(value).map_err(FormError::Connect)?.get();
            Ok(match payload.as_bytes() {
                b"null" => None,
                [b'"', ..] => {
                    let text: String = serde_json::from_str(payload).map_err(FormError::Connect)?;
                    Some(Cow::Owned(text.into_bytes()))
                }
                raw => Some(Cow::Borrowed(raw)),
            })
        }
    }
}

/// What is in the envelope that `JsonConverter` puts around values with schemas.
pub(super) fn connect(value: &[u8]) -> Result<&RawValue, serde_json::Error> {
    serde_json::from_slice(value).map(|envelope: Envelope<'_>| envelope.payload)
}

/// These two fields and no other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow, rename = "schema")]
    _schema: &'a RawValue,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// A form is taken off only where an object or an array is in it: the payload
/// could be any bytes, and then has to stay as it is.
fn detected(value: &[u8]) -> Cow<'_, [u8]> {
    let framed = match value {
        [MAGIC, ..] => value.get(FRAME..).and_then(composite),
        _ => composite(value),
    };
    framed.unwrap_or(Cow::Borrowed(value))
}

fn framed(value: &[u8]) -> Result<Cow<'_, [u8]>, FormError> {
    let refuse = |reason: String| Err(FormError::Confluent(reason));
    let Some(inner) = value.get(FRAME..).filter(|_| value[0] == MAGIC) else {
        return refuse("the value does not begin so".to_owned());
    };
    if let Some(document) = composite(inner) {
        return Ok(document);
    }
    match serde_json::from_slice::<&RawValue>(inner) {
        Ok(_) => Ok(Cow::Borrowed(inner)),
        Err(error) => refuse(error.to_string()),
    }
}

/// The object or array that `text` is, or that the JSON string holds which it is.
fn composite(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let text = without_mark(text);
    if is_bracketed(text) {
        return Some(Cow::Borrowed(text));
    }
    if text.trim_ascii_start().first() != Some(&b'"') {
        return None;
    }
    let inner: String = serde_json::from_slice(text).ok()?;
    is_bracketed(inner.as_bytes()).then(|| Cow::Owned(inner.into_bytes()))
}

/// Whether `text` begins and ends as an object or an array does. Bytes of Avro
/// may begin so by chance.
fn is_bracketed(text: &[u8]) -> bool {
    matches!(text.trim_ascii(), [b'{', .., b'}'] | [b'[', .., b']']) && str::from_utf8(text).is_ok()
}

/// A byte order mark before JSON is no part of it.
fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).filter(|rest| is_bracketed(rest)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(format: PayloadFormat, value: impl AsRef<[u8]>) -> Result<Option<String>, String> {
        let document = document(format, value.as_ref()).map_err(|error| error.to_string())?;
        Ok(document.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn some(text: &str) -> Result<Option<String>, String> {
        Ok(Some(text.to_owned()))
    }

    const OBJECT: &str = r#"{"a": "é\n", "b":1.50}"#;

    fn framed_as(inner: &str) -> Vec<u8> {
        [&[0, 0, 0, 1, 7], inner.as_bytes()].concat()
    }

    fn escaped(inner: &str) -> String {
        serde_json::to_string(inner).unwrap()
    }

    #[test]
    fn every_form_gives_the_same_document() {
        use PayloadFormat::{Auto, Confluent, Connect, Escaped, Json};
        let connect = |payload: &str| {
            format!(r#"{{"schema":{{"type":"string","optional":true}}, "payload": {payload}}}"#)
        };
        let marked = format!("\u{feff}{OBJECT}");
        for (format, value) in [
            (Auto, OBJECT.as_bytes().to_vec()),
            (Json, OBJECT.as_bytes().to_vec()),
            (Auto, marked.clone().into_bytes()),
            (Json, marked.into_bytes()),
            (Auto, escaped(OBJECT).into_bytes()),
            (Escaped, format!(" {}\n", escaped(OBJECT)).into_bytes()),
            (Auto, framed_as(OBJECT)),
            (Confluent, framed_as(OBJECT)),
            // Debezium by way of Confluent's converter: both at once.
            (Auto, framed_as(&escaped(OBJECT))),
            (Confluent, framed_as(&escaped(OBJECT))),
            (Connect, connect(OBJECT).into_bytes()),
            (Connect, connect(&escaped(OBJECT)).into_bytes()),
        ] {
            assert_eq!(text(format, &value), some(OBJECT), "{format:?} {value:?}");
        }
    }

    #[test]
    fn what_is_in_no_form_stays_as_it_is() {
        for value in [
            "",
            "5",
            "\"text\"",
            "\"{\"",
            "\"{\\\"",
            "\"{} \" x",
            "\u{feff}text",
            "null",
            "{",
            " {}",
            "\"\\ud800{}\"",
            r#"{"schema":null,"payload":{}}"#,
            // Avro: what follows the id is no object.
            "\0\0\0\0\u{1}\u{2}{",
            "\0\0\0\0\u{1}",
            "\0{}",
            "\0\0\0\0\u{1}\"text\"",
        ] {
            assert_eq!(text(PayloadFormat::Auto, value), some(value));
            assert_eq!(text(PayloadFormat::Json, value), some(value));
        }
        let bytes = [0, 0, 0, 0, 1, b'{', 0xff, b'}'];
        assert_eq!(&*document(PayloadFormat::Auto, &bytes).unwrap().unwrap(), bytes);
    }

    #[test]
    fn a_named_form_must_be_there() {
        use PayloadFormat::{Confluent, Connect, Escaped};
        for (format, value) in [
            (Escaped, "{}"),
            (Escaped, "5"),
            (Escaped, "\"{}"),
            (Escaped, "\"{}\"x"),
            (Escaped, "\"\\ud800\""),
            (Escaped, ""),
            (Confluent, ""),
            (Confluent, "{}"),
            (Confluent, "\0\0\0"),
            (Confluent, "\0\0\0\0\u{1}"),
            (Confluent, "\u{1}\0\0\0\u{1}{}"),
            (Confluent, "\0\0\0\0\u{1}\u{2}ab"),
            (Connect, "{}"),
            (Connect, r#"{"payload":{}}"#),
            (Connect, r#"{"schema":null}"#),
            (Connect, r#"{"schema":null,"payload":{},"more":1}"#),
            (Connect, r#"{"schema":null,"payload":{},"payload":1}"#),
            (Connect, r#"{"schema":null,"payload":"\udc00"}"#),
            (Connect, "null"),
        ] {
            let error = text(format, value).unwrap_err();
            let name = format!("{format:?}").to_lowercase();
            assert!(error.starts_with(&format!("payload_format = \"{name}\"")), "{error}");
        }
    }

    #[test]
    fn a_converter_says_that_there_is_none() {
        assert_eq!(text(PayloadFormat::Escaped, "null"), Ok(None));
        let none = r#"{"schema":{"type":"string"},"payload":null}"#;
        assert_eq!(text(PayloadFormat::Connect, none), Ok(None));
    }

    #[test]
    fn texts_that_are_no_document_are_given_too() {
        assert_eq!(text(PayloadFormat::Escaped, "\"a\\tb\""), some("a\tb"));
        assert_eq!(text(PayloadFormat::Connect, r#"{"schema":1,"payload":1.50}"#), some("1.50"));
        assert_eq!(text(PayloadFormat::Confluent, framed_as("1.50")), some("1.50"));
    }

    proptest! {
        /// Whatever the bytes are, detection gives back a part of them or what the
        /// string says that they are.
        #[test]
        fn nothing_panics(value: Vec<u8>, json in r#"[\x00]{0,6}[\[{"\\a }\]]{0,12}"#) {
            for value in [value.as_slice(), json.as_bytes()] {
                for format in [
                    PayloadFormat::Auto,
                    PayloadFormat::Json,
                    PayloadFormat::Escaped,
                    PayloadFormat::Confluent,
                    PayloadFormat::Connect,
                ] {
                    let _document = document(format, value);
                }
                if !value.starts_with(&[0]) && !value.contains(&b'"') {
                    let detected = document(PayloadFormat::Auto, value).unwrap().unwrap();
                    prop_assert!(value.ends_with(&detected));
                }
            }
        }
    }
}
