//! The part of `[relay]` that says what a record looks like: the options of
//! Debezium's outbox event router, under names of our own.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Whose defaults hold for the keys that are not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compat {
    #[default]
    Outpour,
    /// The records are those of Debezium's router.
    Debezium,
}

/// What to do about an additional field whose column the table does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FieldMissing {
    #[default]
    Error,
    /// Leave the field out.
    Ignore,
}

/// What to do about an update of the outbox table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpInvalid {
    /// Log a warning and pass over it.
    #[default]
    Warn,
    /// Log an error and pass over it.
    Error,
    /// Stop the relay.
    Fatal,
}

/// What becomes of the null fields of an expanded payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JsonNull {
    /// They are left out.
    #[default]
    Ignore,
    /// They stay. The name is Debezium's, which needs a type for them.
    OptionalBytes,
}

/// What becomes of the empty arrays of an expanded payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JsonEmptyArray {
    /// They are left out.
    #[default]
    Ignore,
    /// They stay. The name is Debezium's, which needs a type for them.
    OptionalString,
}

/// Where in the record an additional field goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    Header,
    /// Into the value, beside the payload.
    Envelope,
    /// It is the number of the partition.
    Partition,
}

/// A column that is part of the record besides id, key and payload:
/// `column:header|envelope|partition[:alias]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdditionalField {
    pub column: String,
    pub placement: Placement,
    /// Its name in the record; the column's unless given.
    pub alias: String,
}

/// Additional fields in their order; one text with commas, or a list of texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdditionalFields(pub Vec<AdditionalField>);

impl AdditionalFields {
    /// # Errors
    /// Says which of the fields is wrong and how.
    pub fn parse<'a>(fields: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let fields: Vec<_> = fields.into_iter().map(parse_field).collect::<Result<_, _>>()?;
        for (at, field) in fields.iter().enumerate() {
            let before = || fields[..at].iter().filter(|other| other.placement == field.placement);
            match field.placement {
                Placement::Partition if before().next().is_some() => {
                    return Err(format!(
                        "`{}`: another column is the partition already",
                        field.column
                    ));
                }
                // Headers may repeat in Kafka; the fields of an object may not.
                Placement::Envelope
                    if field.alias == "payload"
                        || before().any(|other| other.alias == field.alias) =>
                {
                    return Err(format!(
                        "`{}`: the envelope has `{}` already; give it another alias",
                        field.column, field.alias
                    ));
                }
                _ => {}
            }
        }
        Ok(AdditionalFields(fields))
    }
}

fn parse_field(text: &str) -> Result<AdditionalField, String> {
    const EXPECTED: &str = "expected column:header|envelope|partition[:alias]";
    let parts: Vec<_> = text.split(':').map(str::trim).collect();
    let (column, placement, alias) = match parts.as_slice() {
        [column, placement] => (*column, *placement, *column),
        [column, placement, alias] => (*column, *placement, *alias),
        _ => return Err(format!("`{}`: {EXPECTED}", text.trim())),
    };
    if column.is_empty() || alias.is_empty() {
        return Err(format!("`{}`: {EXPECTED}", text.trim()));
    }
    let placement = match placement.to_ascii_lowercase().as_str() {
        "header" => Placement::Header,
        "envelope" => Placement::Envelope,
        "partition" => Placement::Partition,
        _ => return Err(format!("`{}`: no placement `{placement}`; {EXPECTED}", text.trim())),
    };
    Ok(AdditionalField { column: column.to_owned(), placement, alias: alias.to_owned() })
}

impl Serialize for AdditionalFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|field| {
            let placement = match field.placement {
                Placement::Header => "header",
                Placement::Envelope => "envelope",
                Placement::Partition => "partition",
            };
            format!("{}:{placement}:{}", field.column, field.alias)
        }))
    }
}

impl<'de> Deserialize<'de> for AdditionalFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a text or a list of texts")]
        enum Written {
            Text(String),
            List(Vec<String>),
        }
        match Written::deserialize(deserializer)? {
            Written::Text(text) => AdditionalFields::parse(text.split(',')),
            Written::List(list) => AdditionalFields::parse(list.iter().map(String::as_str)),
        }
        .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_a_text_with_commas_or_a_list_and_parts_are_trimmed() {
        let text = r#"" type : header : eventType , is_deleted:Envelope""#;
        let list = r#"["type:header:eventType", "is_deleted:envelope"]"#;
        let fields: AdditionalFields = serde_json::from_str(text).unwrap();
        assert_eq!(fields, serde_json::from_str(list).unwrap());
        assert_eq!(fields.0[0].alias, "eventType");
        assert_eq!(
            (fields.0[1].alias.as_str(), fields.0[1].placement),
            ("is_deleted", Placement::Envelope)
        );
        let written = serde_json::to_string(&fields).unwrap();
        assert_eq!(serde_json::from_str::<AdditionalFields>(&written).unwrap(), fields);
    }

    #[test]
    fn an_empty_list_asks_for_no_field_at_all() {
        assert_eq!(serde_json::from_str::<AdditionalFields>("[]").unwrap().0, []);
    }

    #[test]
    fn what_is_no_field_is_named() {
        let cases = [
            ("", "column:header"),
            ("type", "`type`"),
            ("type:header,", "``"),
            ("type:body", "`body`"),
            ("type:", "no placement ``"),
            (":header", "`:header`"),
            ("type:header:", "`type:header:`"),
            ("a:header:b:c", "`a:header:b:c`"),
            ("a:partition,b:partition", "`b`"),
            ("a:envelope:x,b:envelope:x", "`b`"),
            ("payload:envelope", "`payload`"),
        ];
        for (text, part) in cases {
            let error = AdditionalFields::parse(text.split(',')).unwrap_err();
            assert!(error.contains(part), "{text:?}: `{error}` should say {part}");
        }
    }
}
