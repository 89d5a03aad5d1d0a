//! What an insert that failed has come to, by what the server says when it is asked.
//!
//! ```text
//! has the table other columns? ──yes──▶ it is read again, rows are encoded anew
//!             │ no
//! does a view throw? ──yes──▶ the insert waits, with an alarm
//!             │ no
//! is an insert without rows refused, too? ──yes──▶ the table, the user or the server: it waits
//!             │ no
//! it is something in the rows: they are found
//! ```

use super::{Class, Sink, SinkError};
use crate::{decode::Mapping, trace::Attempt};

/// How many failures with one code in a row say more than that something went wrong.
const OF_ONE_KIND: u32 = 3;
/// The same for codes that tell of the state of a server, which passes: with the delays
/// between them this is some ten seconds.
const OF_ITS_STATE: u32 = 8;

/// The failures of one insert, each judged as it comes.
#[derive(Debug, Default)]
pub(crate) struct Inquiry {
    code: Option<u32>,
    /// How often it came in a row.
    times: u32,
    /// What was said of these rows among others, and found to be about rows.
    known: Option<u32>,
    is_of_several: bool,
}

impl Inquiry {
    /// Of an insert of some rows of one that was refused with the code `known`: of a single
    /// one, or of several, which are only told apart further.
    pub(crate) fn of_some(known: Option<u32>, is_of_several: bool) -> Self {
        Inquiry { known, is_of_several, ..Inquiry::default() }
    }

    /// What has to happen before `error`, of an insert for `mapping`, is over.
    /// [`Class::Data`] is said only where the table takes an insert without these rows.
    pub(crate) async fn judge<S: Sink>(
        &mut self,
        sink: &S,
        mapping: &Mapping,
        error: &SinkError,
    ) -> Class {
        let expected = error.class();
        self.times = if self.code == error.code { self.times + 1 } else { 1 };
        self.code = error.code;
        let is_due = self.times >= self.needed(error);
        let is_known = self.known == error.code && !error.leaves_it_open();
        if self.is_of_several && is_known && is_due && !error.is_of_a_view() {
            return Class::Data;
        }
        if error.leaves_it_open() || (expected == Class::Transient && !is_due) {
            return Class::Transient;
        }
        match sink.has_changed(mapping).await {
            Ok(false) => {}
            Ok(true) => return Class::SchemaDrift,
            Err(_) => return Class::Transient,
        }
        match expected {
            // The server has seen other columns, whatever they are by now.
            Class::SchemaDrift => Class::SchemaDrift,
            _ if error.is_of_a_view() => Class::Configuration,
            Class::Configuration if !is_due => Class::Configuration,
            _ if !is_due => Class::Transient,
            _ => match sink.insert_nothing(mapping, &Attempt::new(None)).await {
                Ok(()) => Class::Data,
                Err(error) if error.class() == Class::Transient => Class::Transient,
                Err(_) => Class::Configuration,
            },
        }
    }

    fn needed(&self, error: &SinkError) -> u32 {
        let is_known = self.known.is_some() && self.known == error.code;
        match error.class() {
            Class::Transient if is_known && self.is_of_several => OF_ONE_KIND,
            Class::Transient => OF_ITS_STATE,
            Class::Data => 1,
            _ if is_known => 1,
            _ => OF_ONE_KIND,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_given_time() {
        let error = |code| SinkError { code: Some(code), message: String::new() };
        let needed =
            |inquiry: &Inquiry| [469, 153, 60, 241].map(|code| inquiry.needed(&error(code)));
        assert_eq!(needed(&Inquiry::default()), [1, OF_ONE_KIND, OF_ONE_KIND, OF_ITS_STATE]);
        let known = |code, is_of_several| Inquiry::of_some(Some(code), is_of_several);
        assert_eq!(needed(&known(153, false)), [1, 1, OF_ONE_KIND, OF_ITS_STATE]);
        assert_eq!(needed(&known(241, false)), [1, OF_ONE_KIND, OF_ONE_KIND, OF_ITS_STATE]);
        assert_eq!(needed(&known(241, true)), [1, OF_ONE_KIND, OF_ONE_KIND, OF_ONE_KIND]);
    }
}
