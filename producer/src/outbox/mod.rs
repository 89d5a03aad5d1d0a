//! The call that a service with a database makes: append an event to the
//! outbox.
//!
//! ```text
//! append(tx, event) ────┐ the service's own transaction
//!                       ├─▶ rows.rs ─▶ driver/ ─▶ one INSERT
//! log_event(db, event) ─┘ a transaction of its own
//! ```
//!
//! The call talks to the database that the service talks to anyway, and to
//! nothing else, so no trouble of Kafka or ClickHouse can reach the service.

mod driver;
mod error;
mod rows;

use std::{sync::Arc, time::Duration};

use outpour_schemas::{Envelope, Event, OutboxTable};
use uuid::Uuid;

pub use self::error::OutboxError;
use self::{driver::Insert, rows::Rows};

/// A transaction of the service's, by either driver:
///
/// | driver | pass |
/// | --- | --- |
/// | tokio-postgres | `&Transaction` or `&mut Transaction`, savepoints too |
/// | deadpool-postgres, bb8-postgres | the same; `&*tx` where the pool wraps the transaction |
/// | sqlx | `&mut Transaction<'_, Postgres>`, or `&mut PgConnection` inside a transaction |
///
/// On a `PgConnection` that is in no transaction the append is one by itself.
pub trait OutboxTransaction: Insert {}

/// A database in which [`Outbox::log_event`] has a transaction of its own:
/// tokio-postgres' `&Client` (`&**client` of a pool's), or sqlx's `&PgPool`.
///
/// A connection of sqlx is none, since it may be inside a transaction, and then
/// nothing would be committed yet.
pub trait OutboxDatabase: Insert {}

/// An outbox table, ready to be written to. Cheap to clone; make it once.
#[derive(Debug, Clone)]
pub struct Outbox {
    insert: Arc<str>,
    log_timeout: Duration,
}

/// How long `log_event` waits unless told otherwise.
const LOG_TIMEOUT: Duration = Duration::from_secs(10);

impl Default for Outbox {
    /// The table `public.outbox` that `outpour-relay init` creates.
    fn default() -> Self {
        Outbox::of(&OutboxTable::default())
    }
}

impl Outbox {
    /// The outbox in `table`, with its column names.
    #[must_use]
    pub fn of(table: &OutboxTable) -> Self {
        Outbox::of_columns(table, |_| true)
    }

    /// The same where only those of its columns are written that `written` says; the
    /// others get their default.
    pub(crate) fn of_columns(table: &OutboxTable, written: impl Fn(&str) -> bool) -> Self {
        Outbox { insert: rows::insert_into(table, written).into(), log_timeout: LOG_TIMEOUT }
    }

    /// With another limit of [`Self::log_event`] than 10 s.
    #[must_use]
    pub fn with_log_timeout(mut self, timeout: Duration) -> Self {
        self.log_timeout = timeout;
        self
    }

    /// Appends `event` inside `tx` and returns its id. The event is in the
    /// outbox exactly when that transaction commits.
    ///
    /// With tokio-postgres:
    #[cfg_attr(feature = "tokio-postgres", doc = "```no_run")]
    #[cfg_attr(not(feature = "tokio-postgres"), doc = "```ignore")]
    /// use outpour_producer::{Event, Money, Outbox};
    ///
    /// #[derive(serde::Serialize)]
    /// struct OrderPlaced { order_id: i64, total: Money }
    ///
    /// impl Event for OrderPlaced {
    ///     const AGGREGATE_TYPE: &'static str = "order";
    ///     fn aggregate_id(&self) -> String { self.order_id.to_string() }
    /// }
    ///
    /// async fn place(
    ///     client: &mut tokio_postgres::Client,
    ///     outbox: &Outbox,
    ///     event: OrderPlaced,
    /// ) -> Result<(), Box<dyn std::error::Error>> {
    ///     let tx = client.transaction().await?;
    ///     tx.execute("INSERT INTO orders (id) VALUES ($1)", &[&event.order_id]).await?;
    ///     outbox.append(&tx, &event).await?;
    ///     tx.commit().await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// With sqlx:
    #[cfg_attr(feature = "sqlx", doc = "```no_run")]
    #[cfg_attr(not(feature = "sqlx"), doc = "```ignore")]
    /// # use outpour_producer::{Event, Outbox};
    /// # #[derive(serde::Serialize)]
    /// # struct OrderPlaced { order_id: i64 }
    /// # impl Event for OrderPlaced {
    /// #     const AGGREGATE_TYPE: &'static str = "order";
    /// #     fn aggregate_id(&self) -> String { self.order_id.to_string() }
    /// # }
    /// async fn place(
    ///     pool: &sqlx::PgPool,
    ///     outbox: &Outbox,
    ///     event: OrderPlaced,
    /// ) -> Result<(), Box<dyn std::error::Error>> {
    ///     let mut tx = pool.begin().await?;
    ///     sqlx::query("INSERT INTO orders (id) VALUES ($1)")
    ///         .bind(event.order_id)
    ///         .execute(&mut *tx)
    ///         .await?;
    ///     outbox.append(&mut tx, &event).await?;
    ///     tx.commit().await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// When the event cannot be written as JSON, or the database refuses it. After
    /// a refusal the transaction can only be rolled back, as after any statement
    /// that failed.
    pub async fn append<E: Event>(
        &self,
        tx: impl OutboxTransaction,
        event: &E,
    ) -> Result<Uuid, OutboxError> {
        let envelope = Envelope::of(event)?;
        let id = envelope.id;
        self.append_all(tx, &[envelope]).await?;
        Ok(id)
    }

    /// Appends prepared rows in their order, with one statement.
    ///
    /// # Errors
    /// When a row is invalid, before any is written, or the database refuses one.
    pub async fn append_all(
        &self,
        tx: impl OutboxTransaction,
        rows: &[Envelope],
    ) -> Result<(), OutboxError> {
        tx.insert(&self.insert, Rows::of(rows)?).await
    }

    /// Logs `event` in a transaction of its own and returns its id.
    ///
    /// `Ok` means that the transaction is committed: from there on the event is as
    /// safe as anything in the database, and reaches Kafka and ClickHouse whatever
    /// becomes of this service. Neither of the two is waited for.
    #[cfg_attr(feature = "sqlx", doc = "```no_run")]
    #[cfg_attr(not(feature = "sqlx"), doc = "```ignore")]
    /// # use outpour_producer::{Event, Outbox, OutboxError};
    /// # #[derive(serde::Serialize)]
    /// # struct LoggedIn { user: String }
    /// # impl Event for LoggedIn {
    /// #     const AGGREGATE_TYPE: &'static str = "user";
    /// #     fn aggregate_id(&self) -> String { self.user.clone() }
    /// # }
    /// async fn logged_in(pool: &sqlx::PgPool, outbox: &Outbox, user: String) -> Result<(), OutboxError> {
    ///     outbox.log_event(pool, &LoggedIn { user }).await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`Self::append`]; nothing is in the outbox then. When the connection is
    /// lost or the database does not answer within the limit
    /// ([`Self::with_log_timeout`]), it is not known whether the event is:
    /// [`OutboxError::is_outcome_unknown`] tells. To send it again without
    /// doubling it, prepare it and use [`Self::log_events`].
    ///
    /// # Cancellation
    /// One statement is the whole transaction. Dropping the future withdraws
    /// nothing that was sent: the event is in the outbox as a whole or not at
    /// all, and no transaction stays open.
    pub async fn log_event<E: Event>(
        &self,
        database: impl OutboxDatabase,
        event: &E,
    ) -> Result<Uuid, OutboxError> {
        let envelope = Envelope::of(event)?;
        let id = envelope.id;
        self.log_events(database, &[envelope]).await?;
        Ok(id)
    }

    /// Logs prepared rows in a transaction of their own: all of them or none, in
    /// their order.
    ///
    /// If the outcome is unknown, log the same rows again: where they are in the
    /// outbox already, [`OutboxError::is_duplicate`] says so.
    ///
    /// # Errors
    /// As [`Self::log_event`].
    ///
    /// # Cancellation
    /// As [`Self::log_event`].
    pub async fn log_events(
        &self,
        database: impl OutboxDatabase,
        rows: &[Envelope],
    ) -> Result<(), OutboxError> {
        let insert = database.insert(&self.insert, Rows::of(rows)?);
        match tokio::time::timeout(self.log_timeout, insert).await {
            Ok(result) => result,
            Err(_) => Err(OutboxError::TimedOut { after: self.log_timeout }),
        }
    }
}
