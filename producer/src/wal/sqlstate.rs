//! What kind of error the server sent on the replication connection. Pure.
//!
//! Its words come in the language of `lc_messages`; the SQLSTATE is the same in
//! all of them. The library hands on the text alone, with the SQLSTATE at its end.

use pgwire_replication::PgWireError;

/// `object_in_use`: another session has the slot.
pub(super) const IN_USE: &str = "55006";
/// `undefined_object`: once a stream has begun, of all its objects the publication.
pub(super) const UNDEFINED: &str = "42704";

/// `protocol_violation`: PostgreSQL knows the parameters that a connection begins with.
pub(super) const PROTOCOL: &str = "08P01";

/// The SQLSTATE, if it was the server that complained.
pub(super) fn sqlstate(error: &PgWireError) -> Option<&str> {
    let PgWireError::Server(text) = error else { return None };
    text.strip_suffix(')')?.rsplit_once(" (SQLSTATE ").map(|(_, code)| code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_known_in_every_language_and_not_by_what_it_quotes() {
        let of = |text: &str| sqlstate(&PgWireError::Server(text.to_owned())).map(str::to_owned);
        let german = "Publikation »outpour« existiert nicht (SQLSTATE 42704)";
        assert_eq!(of(german).as_deref(), Some(UNDEFINED));
        let quoting = "publication \"a (SQLSTATE 55006)\" does not exist (SQLSTATE 42704)";
        assert_eq!(of(quoting).as_deref(), Some(UNDEFINED));
        assert_eq!(of("publication does not exist"), None);
        assert_eq!(sqlstate(&PgWireError::Protocol("x (SQLSTATE 42704)".to_owned())), None);
    }
}
