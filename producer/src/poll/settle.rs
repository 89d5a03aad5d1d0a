//! What becomes of rows once Kafka has them, and whether it does.

use tokio_postgres::{Client, SimpleQueryMessage};

use super::{PollError, claim::Statements};
use crate::postgres::{PostgresError, Target};

/// Removes or marks rows, and makes sure of it.
pub(super) struct Settling {
    pub(super) statements: Statements,
    pub(super) table: String,
    pub(super) target: Target,
}

impl Settling {
    /// Settles the first rows that wait, and takes it back: what a trigger keeps is
    /// to be known before it is published. A session that has found such rows ends,
    /// and the next one publishes none of them again.
    pub(super) async fn rehearse(&self, client: &Client) -> Result<(), PollError> {
        client.batch_execute("BEGIN").await.map_err(self.failed())?;
        let ids = self.ids(client, &self.statements.first()).await?;
        if !ids.is_empty() {
            self.settle(client, &ids).await?;
        }
        Ok(client.batch_execute("ROLLBACK").await.map_err(self.failed())?)
    }

    /// # Errors
    /// [`PollError::Kept`] if any of the rows waits as before.
    pub(super) async fn settle(&self, client: &Client, ids: &[String]) -> Result<(), PollError> {
        let kept = self.ids(client, &self.statements.settle(ids)).await?;
        match kept.first() {
            None => Ok(()),
            Some(example) => Err(PollError::Kept {
                rows: kept.len(),
                table: self.table.clone(),
                verb: self.statements.verb(),
                example: example.clone(),
            }),
        }
    }

    async fn ids(&self, client: &Client, sql: &str) -> Result<Vec<String>, PostgresError> {
        let answers = client.simple_query(sql).await.map_err(self.failed())?;
        let id = |answer: &SimpleQueryMessage| match answer {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        };
        Ok(answers.iter().filter_map(id).collect())
    }

    pub(super) fn failed(&self) -> impl FnOnce(tokio_postgres::Error) -> PostgresError {
        self.target.failed("polling the outbox")
    }
}
