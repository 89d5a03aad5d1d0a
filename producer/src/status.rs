//! How the relay stands, from the database's and from Kafka's side.

use std::time::Duration;

use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use outpour_schemas::{
    Lsn,
    config::Config,
    program::{Standing, per_second},
};
use serde::Serialize;

use crate::{
    error::RelayError, kafka::checkpoint, postgres::Target, relay::SnapshotProgress, wal::slot,
};

/// What `status --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    pub(crate) slot: String,
    /// Process id of the database backend that streams to a relay.
    pub(crate) held_by_pid: Option<i32>,
    /// The end of the log.
    pub(crate) current_lsn: Lsn,
    /// Everything before it was confirmed by the relay.
    pub(crate) confirmed_lsn: Lsn,
    /// Bytes of log that wait to be published.
    pub(crate) lag_bytes: u64,
    /// Bytes of log that the slot keeps on disk.
    pub(crate) retained_bytes: u64,
    /// Everything before it is in Kafka; absent before the first run.
    pub(crate) published_lsn: Option<Lsn>,
    pub(crate) checkpoints: Option<u64>,
    /// How fast the log is published; absent at the first look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) published_bytes_per_s: Option<f64>,
    /// How fast the log grows, whatever is written to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) written_bytes_per_s: Option<f64>,
    /// Absent if rows older than the slot were never asked for.
    pub(crate) snapshot: Option<SnapshotProgress>,
}

/// # Errors
/// When either side cannot be asked.
pub(crate) async fn status(config: &Config) -> Result<Status, RelayError> {
    let target = Target::of(&config.postgres)?;
    let client = target.connect().await?;
    let state = slot::inspect(&client, &target, config).await?;
    let published = checkpoint::read(config).await?;
    let published_lsn = published.as_ref().map(|checkpoint| checkpoint.end_lsn);
    Ok(Status {
        slot: config.relay.slot.clone(),
        held_by_pid: state.held_by,
        current_lsn: state.current,
        confirmed_lsn: state.confirmed,
        lag_bytes: state.current.bytes_since(published_lsn.unwrap_or(state.confirmed)),
        retained_bytes: state.retained_bytes,
        published_lsn,
        checkpoints: published.as_ref().map(|checkpoint| checkpoint.sequence),
        published_bytes_per_s: None,
        written_bytes_per_s: None,
        snapshot: published.and_then(|checkpoint| checkpoint.snapshot).map(|s| s.progress()),
    })
}

impl Standing for Status {
    fn compare(&mut self, before: &Self, elapsed: Duration) {
        let rate = |before: Lsn, now: Lsn| {
            (now >= before).then(|| per_second(0, now.bytes_since(before), elapsed)).flatten()
        };
        self.written_bytes_per_s = rate(before.current_lsn, self.current_lsn);
        let published = before.published_lsn.zip(self.published_lsn);
        self.published_bytes_per_s = published.and_then(|(before, now)| rate(before, now));
    }

    fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY).set_header(["relay", &self.slot]);
        let running = match self.held_by_pid {
            Some(pid) => format!("yes (backend {pid})"),
            None => "no".to_owned(),
        };
        let published = match self.published_lsn {
            Some(lsn) => lsn.to_string(),
            None => "nothing yet".to_owned(),
        };
        let snapshot = match self.snapshot {
            Some(SnapshotProgress { rows, done: true }) => format!("done ({rows} rows)"),
            Some(SnapshotProgress { rows, done: false }) => format!("{rows} rows so far"),
            None => "none".to_owned(),
        };
        table
            .add_row(["running", &running])
            .add_row(["snapshot", &snapshot])
            .add_row(["published up to", &published])
            .add_row(["confirmed up to", &self.confirmed_lsn.to_string()])
            .add_row(["end of log", &self.current_lsn.to_string()])
            .add_row(["lag", &bytes(self.lag_bytes)])
            .add_row(["log kept on disk", &bytes(self.retained_bytes)]);
        for (name, rate) in
            [("published", self.published_bytes_per_s), ("written", self.written_bytes_per_s)]
        {
            if let Some(rate) = rate {
                table.add_row([name, &format!("{}/s", bytes(rate as u64))]);
            }
        }
        format!("{table}\n")
    }
}

fn bytes(n: u64) -> String {
    bytesize::ByteSize(n).to_string()
}
