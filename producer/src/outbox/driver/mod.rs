//! The two drivers that a service may have, behind one sealed trait.

#[cfg(feature = "sqlx")]
mod sqlx;
#[cfg(feature = "tokio-postgres")]
mod tokio_postgres;

use super::{OutboxError, rows::Rows};

/// Something that takes the statement of an outbox.
pub trait Insert: Send {
    #[doc(hidden)]
    fn insert(
        self,
        sql: &std::sync::Arc<str>,
        rows: Rows<'_>,
    ) -> impl Future<Output = Result<(), OutboxError>> + Send;
}
