//! Which tables are the outbox's, asked while a session goes on.

use std::collections::HashSet;

use outpour_schemas::OutboxTable;
use tokio_postgres::Client;

use crate::{
    postgres::{PostgresError, Target},
    wal::table,
};

/// A connection that is kept for as long as it works.
pub(super) struct Catalog {
    client: Client,
    target: Target,
    outbox: OutboxTable,
}

impl Catalog {
    pub(super) fn new(client: Client, target: &Target, outbox: &OutboxTable) -> Self {
        Catalog { client, target: target.clone(), outbox: outbox.clone() }
    }

    /// Their object ids, now.
    pub(super) async fn members(&mut self) -> Result<HashSet<u32>, PostgresError> {
        if self.client.is_closed() {
            self.client = self.target.connect().await?;
        }
        table::members(&self.client, &self.target, &self.outbox).await
    }
}
