use std::time::Duration;

use outpour_schemas::EnvelopeError;
#[cfg(feature = "sqlx")]
use sqlx::postgres::{PgDatabaseError, PgSeverity};
#[cfg(feature = "tokio-postgres")]
use tokio_postgres::error::Severity;

/// Why an event was not appended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[cfg(feature = "tokio-postgres")]
    #[error("cannot append to the outbox")]
    Database(#[from] tokio_postgres::Error),
    #[cfg(feature = "sqlx")]
    #[error("cannot append to the outbox")]
    Sqlx(#[from] sqlx::Error),
    #[error(
        "the database did not answer within {} s, so it is not known whether the event is in the outbox",
        after.as_secs_f64()
    )]
    TimedOut { after: Duration },
}

impl OutboxError {
    /// Whether a row with this id was there before. Of rows that are logged again
    /// since their outcome was unknown it says that they are safe.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        const UNIQUE_VIOLATION: &str = "23505";
        match self {
            #[cfg(feature = "tokio-postgres")]
            OutboxError::Database(error) => {
                error.code().is_some_and(|code| code.code() == UNIQUE_VIOLATION)
            }
            #[cfg(feature = "sqlx")]
            OutboxError::Sqlx(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| code == UNIQUE_VIOLATION)
            }
            _ => false,
        }
    }

    /// Whether the rows may be in the outbox in spite of the error: the
    /// connection was lost, or too slow, before an answer came.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            OutboxError::Envelope(_) => false,
            OutboxError::TimedOut { .. } => true,
            // An ERROR is the answer to the statement. What is worse ends the
            // connection, perhaps between the commit and its confirmation.
            #[cfg(feature = "tokio-postgres")]
            OutboxError::Database(error) => error
                .as_db_error()
                .is_none_or(|error| error.parsed_severity() != Some(Severity::Error)),
            #[cfg(feature = "sqlx")]
            OutboxError::Sqlx(sqlx::Error::Database(error)) => error
                .try_downcast_ref::<PgDatabaseError>()
                .is_none_or(|error| error.severity() != PgSeverity::Error),
            #[cfg(feature = "sqlx")]
            OutboxError::Sqlx(error) => matches!(
                error,
                sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed
            ),
        }
    }
}
