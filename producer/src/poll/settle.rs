//! What becomes of rows once Kafka has them, and whether it does.

use bytes::Bytes;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{PollError, claim::Statements};
use crate::{
    postgres::{PostgresError, Target},
    wal::{charset::Charset, pgoutput::Cell},
};

/// Removes or marks rows, and makes sure of it.
pub(super) struct Settling {
    pub(super) statements: Statements,
    pub(super) table: String,
    pub(super) target: Target,
    pub(super) charset: Charset,
}

impl Settling {
    /// Settles the first rows that wait, and takes it back: what a trigger keeps is
    /// to be known before it is published. A session that has found such rows ends,
    /// and the next one publishes none of them again.
    pub(super) async fn rehearse(&self, client: &Client) -> Result<(), PollError> {
        client.batch_execute("BEGIN").await.map_err(self.failed())?;
        let ids = self.ids(client, &self.statements.first(&self.charset)).await?;
        let ids: Vec<_> = ids.iter().map(|id| self.charset.literal(id)).collect();
        if !ids.is_empty() {
            self.settle(client, &ids).await?;
        }
        Ok(client.batch_execute("ROLLBACK").await.map_err(self.failed())?)
    }

    /// `ids` are constants.
    ///
    /// # Errors
    /// [`PollError::Kept`] if any of the rows waits as before.
    pub(super) async fn settle(&self, client: &Client, ids: &[String]) -> Result<(), PollError> {
        let kept = self.ids(client, &self.statements.settle(ids, &self.charset)).await?;
        match kept.first() {
            None => Ok(()),
            Some(example) => Err(PollError::Kept {
                rows: kept.len(),
                table: self.table.clone(),
                verb: self.statements.verb(),
                example: String::from_utf8_lossy(example).into_owned(),
            }),
        }
    }

    async fn ids(&self, client: &Client, sql: &str) -> Result<Vec<Bytes>, PostgresError> {
        let answers = client.simple_query(sql).await.map_err(self.failed())?;
        let id = |answer: &SimpleQueryMessage| match answer {
            SimpleQueryMessage::Row(row) => match self.charset.cell(row.get(0)) {
                Cell::Text(id) => Some(id),
                Cell::Null | Cell::Unchanged => None,
            },
            _ => None,
        };
        Ok(answers.iter().filter_map(id).collect())
    }

    pub(super) fn failed(&self) -> impl FnOnce(tokio_postgres::Error) -> PostgresError {
        self.target.failed("polling the outbox")
    }
}
