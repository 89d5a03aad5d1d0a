//! A record into a row.

use smallvec::SmallVec;

use super::{
    Mapping, Rejection, form,
    payload::{Gathered, Slots},
    unknown::Unknown,
};
use crate::{
    block::{Block, Cell, RowError},
    source::RecordView,
};

/// One for each column, without a trip to the allocator for most tables.
type Cells<'a> = SmallVec<[Option<Cell<'a>>; 32]>;

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
        let collected: String;
        let mut cells = Cells::from_slice(&self.absent);
        for (place, json) in &self.constants {
            cells[*place] = Some(Cell::Json(json));
        }
        let mut slots = Slots { found: &mut cells, gathered: &mut gathered };
        self.find(document, &mut slots, &mut unknown)?;
        for (place, text) in &gathered {
            cells[*place] = Some(Cell::Json(text));
        }
        for (place, value) in &self.envelope {
            if let Some(cell) = value.of(record, document, self.format, environment) {
                cells[*place] = Some(cell);
            }
        }
        if let Unknown::Named(Some(name)) = unknown {
            let error = format!("no column takes the field `{name}`");
            return Err(self.refuse("unknown_field", error, document.unwrap_or_default()));
        }
        if let (Some(place), Unknown::Collected(members)) = (self.collecting, unknown) {
            collected = members.into_object();
            cells[place] = Some(Cell::Json(&collected));
        }
        block.push_found(&cells).map_err(|error| {
            Box::new(match error {
                RowError::Cell(error) => Rejection::cell(self, error),
                RowError::Missing(index) => {
                    let source = self.envelope.iter().find(|(place, _)| *place == index);
                    Rejection::missing(self, &self.columns[index], source.map(|(_, value)| value))
                }
            })
        })
    }

    /// The wanted fields of the payload into their slots.
    fn find<'a>(
        &self,
        document: Option<&'a [u8]>,
        slots: &mut Slots<'_, 'a>,
        unknown: &mut Unknown,
    ) -> Result<(), Box<Rejection>> {
        if self.wanted.is_leaf() && unknown.is_ignored() {
            return Ok(());
        }
        let Some(document) = document else {
            // Without a payload there is nothing that could be unknown.
            return match self.wanted.is_leaf() {
                true => Ok(()),
                false => Err(self.refuse("no_payload", "the record has no payload", &[])),
            };
        };
        let json = simdutf8::compat::from_utf8(document).map_err(|error| {
            let error = format!("the payload is not UTF-8: {error}{}", hint(document));
            self.refuse("invalid_utf8", error, document)
        })?;
        self.wanted.find(json, slots, unknown).map_err(|error| {
            let error = format!("the payload is no JSON object: {error}{}", hint(document));
            self.refuse("malformed", error, document)
        })
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
