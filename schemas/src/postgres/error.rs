//! Why there is no connection, or why a statement failed.

use tokio_postgres::error::{DbError, SqlState};

use crate::config::ConfigError;

/// The database did not answer, or not as it should.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error("cannot connect to {target}")]
    Connect { target: String, source: tokio_postgres::Error },
    #[error("cannot connect to {target}: {reason}")]
    Tls { target: String, reason: String },
    /// They were there at the start, and are read anew for every connection.
    #[error(transparent)]
    Certificates(ConfigError),
    #[error("cannot connect to {target}")]
    Reach { target: String, source: std::io::Error },
    #[error("cannot connect to {target}: no answer within {seconds} s")]
    ConnectTimeout { target: String, seconds: u64 },
    #[error("{target} is a standby, and what is needed is on the primary")]
    Standby { target: String },
    #[error("no host of postgres.url can be used: {refusals}")]
    NoHost { refusals: String },
    #[error("{doing} on {target} failed")]
    Query { doing: &'static str, target: String, source: tokio_postgres::Error },
    /// What the user sees of a table is not all of it.
    #[error(
        "{failed}: row-level security hides rows from user `{user}`; \
         run: ALTER ROLE {} BYPASSRLS",
        quoted(user)
    )]
    RowSecurity { failed: String, user: String, source: tokio_postgres::Error },
    /// A prepared statement was there that this session did not make, or one that it made
    /// was not: each transaction goes to another session.
    #[error(
        "{failed}: what answers is a pooler in transaction mode; \
         connect to the server itself, or through a pooler in session mode"
    )]
    Pooler { failed: String, source: tokio_postgres::Error },
}

impl PostgresError {
    pub(super) fn of_statement(
        doing: &'static str,
        target: String,
        user: String,
        source: tokio_postgres::Error,
    ) -> Self {
        let failed = format!("{doing} on {target} failed");
        match source.as_db_error() {
            Some(error) if is_row_security(error) => {
                PostgresError::RowSecurity { failed, user, source }
            }
            Some(error) if is_of_another_session(error) => PostgresError::Pooler { failed, source },
            _ => PostgresError::Query { doing, target, source },
        }
    }
}

fn is_of_another_session(error: &DbError) -> bool {
    [SqlState::DUPLICATE_PSTATEMENT, SqlState::INVALID_SQL_STATEMENT_NAME].contains(error.code())
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// With `row_security` off the server refuses what a policy would cut. It has the
/// SQLSTATE of a privilege that is missing, but comes from a place of its own.
fn is_row_security(error: &DbError) -> bool {
    *error.code() == SqlState::INSUFFICIENT_PRIVILEGE && error.routine() == Some("check_enable_rls")
}
