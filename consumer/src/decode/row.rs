//! A record into a row.

use smallvec::{SmallVec, smallvec};

use super::{
    Mapping, Rejection, form,
    mapping::{Missing, Source},
    payload::{Gathered, Slots},
    unknown::Unknown,
};
use crate::{
    block::{Block, Cell, RowError},
    source::RecordView,
};

/// One for each column, without a trip to the allocator for most tables.
type OnStack<T> = SmallVec<[T; 32]>;

impl Mapping {
    /// Appends the record's row to `block`, or says why there is none.
    pub(crate) fn push(
        &self,
        record: &RecordView<'_>,
        environment: &str,
        block: &mut Block,
    ) -> Result<(), Box<Rejection>> {
        let document = match record.value {
            Some(value) if self.reads_payload => form::document(self.format, value)
                .map_err(|error| self.refuse("wrong_payload_format", error, value))?,
            _ => None,
        };
        let document = document.as_deref();
        let (mut gathered, mut unknown) = (Gathered::new(), self.unknown());
        let mut fields = self.fields(document, &mut gathered, &mut unknown)?;
        for (slot, text) in &gathered {
            fields[*slot].get_or_insert(text.as_str());
        }
        let collected = match unknown {
            Unknown::Ignored | Unknown::Named(None) => String::new(),
            Unknown::Named(Some(name)) => {
                let error = format!("no column takes the field `{name}`");
                return Err(self.refuse("unknown_field", error, document.unwrap_or_default()));
            }
            Unknown::Collected(collected) => collected.into_object(),
        };
        let cell = |index: usize| {
            let (source, missing): &(Source, Missing) = &self.sources[index];
            let found = match source {
                Source::Field(slot) => fields[*slot].map(Cell::Json),
                Source::Envelope(value) => value.of(record, document, self.format, environment),
                Source::Unknown => Some(Cell::Json(&collected)),
            };
            found.or(match missing {
                Missing::Null => Some(Cell::Null),
                Missing::Default => Some(Cell::Default),
                Missing::Empty => Some(Cell::Text("")),
                Missing::Reject => None,
            })
        };
        block.push_row_of(cell).map_err(|error| {
            Box::new(match error {
                RowError::Cell(error) => Rejection::cell(self, error),
                RowError::Missing(index) => Rejection::missing(self, &self.columns[index]),
            })
        })
    }

    /// The text of each wanted field, by slot.
    fn fields<'a>(
        &self,
        document: Option<&'a [u8]>,
        gathered: &mut Gathered,
        unknown: &mut Unknown,
    ) -> Result<OnStack<Option<&'a str>>, Box<Rejection>> {
        let mut found = smallvec![None; self.fields];
        if self.fields == 0 && unknown.is_ignored() {
            return Ok(found);
        }
        let Some(document) = document else {
            // Without a payload there is nothing that could be unknown.
            return if self.fields == 0 {
                Ok(found)
            } else {
                Err(self.refuse("no_payload", "the record has no payload", &[]))
            };
        };
        let json = str::from_utf8(document).map_err(|error| {
            let error = format!("the payload is not UTF-8: {error}{}", hint(document));
            self.refuse("invalid_utf8", error, document)
        })?;
        self.wanted.find(json, &mut Slots { found: &mut found, gathered }, unknown).map_err(
            |error| {
                let error = format!("the payload is no JSON object: {error}{}", hint(document));
                self.refuse("malformed", error, document)
            },
        )?;
        Ok(found)
    }

    #[cold]
    fn refuse(
        &self,
        reason: &'static str,
        error: impl std::fmt::Display,
        value: &[u8],
    ) -> Box<Rejection> {
        Box::new(Rejection::payload(self, reason, error.to_string(), value))
    }
}

/// What else the payload may be.
fn hint(document: &[u8]) -> &'static str {
    match document {
        [0, ..] => "; it begins as Avro and Protobuf of a schema registry do",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "; it begins as UTF-16 does",
        _ => "",
    }
}
