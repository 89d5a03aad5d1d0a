//! How far polling is, from the database's side. Kafka holds nothing of it.

use std::time::Duration;

use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use outpour_schemas::{config::Config, program::Standing};
use serde::Serialize;

use super::{claim::Statements, table};
use crate::{error::RelayError, postgres::Target, relay::moment_ms};

/// What `status --json` prints of a relay that polls.
#[derive(Debug, Serialize)]
pub(crate) struct PollStatus {
    pub(crate) slot: String,
    /// Process id of the database backend that a relay holds its lock with.
    pub(crate) held_by_pid: Option<i32>,
    /// Rows that are not published yet, or not yet settled.
    pub(crate) waiting_rows: i64,
    /// Age of the oldest of them; absent where none waits, or none has a time
    /// that means one.
    pub(crate) oldest_seconds: Option<f64>,
    /// How fast `waiting_rows` grows, or if negative shrinks; absent at the first
    /// look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waiting_rows_change_per_s: Option<f64>,
}

/// # Errors
/// When the database cannot be asked.
pub(crate) async fn status(config: &Config) -> Result<PollStatus, RelayError> {
    let target = Target::of(&config.postgres)?;
    let client = target.connect().await?;
    let time = &config.outbox.column_occurred_at;
    let relation = table::columns(&client, &target, config, |name| name == time).await?;
    let has_time = !relation.columns.is_empty();
    let sql = Statements::of(config, has_time).count(has_time.then_some(time));
    let row = client.query_one(&sql, &[]).await.map_err(target.failed("counting rows"))?;
    let oldest: Option<String> = row.get(1);
    let (oldest_ms, now_ms) = (oldest.and_then(|time| moment_ms(time.as_bytes())), row.get(2));
    let age = |oldest_ms: i64| (i64::saturating_sub(now_ms, oldest_ms)) as f64 / 1000.0;
    Ok(PollStatus {
        slot: config.relay.slot.clone(),
        held_by_pid: table::holder(&client, &target, &config.relay.slot).await?,
        waiting_rows: row.get(0),
        oldest_seconds: oldest_ms.map(age),
        waiting_rows_change_per_s: None,
    })
}

impl Standing for PollStatus {
    fn compare(&mut self, before: &Self, elapsed: Duration) {
        let change = (self.waiting_rows - before.waiting_rows) as f64 / elapsed.as_secs_f64();
        self.waiting_rows_change_per_s = change.is_finite().then(|| (change * 10.0).round() / 10.0);
    }

    fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY).set_header(["relay (polls)", &self.slot]);
        let running = match self.held_by_pid {
            Some(pid) => format!("yes (backend {pid})"),
            None => "no".to_owned(),
        };
        let oldest = match self.oldest_seconds {
            Some(seconds) => format!("{seconds:.1} s"),
            None => "-".to_owned(),
        };
        table
            .add_row(["running", &running])
            .add_row(["rows waiting", &self.waiting_rows.to_string()])
            .add_row(["age of the oldest", &oldest]);
        if let Some(change) = self.waiting_rows_change_per_s {
            table.add_row(["change of rows waiting", &format!("{change:+.1}/s")]);
        }
        format!("{table}\n")
    }
}
