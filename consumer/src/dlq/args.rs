//! The options of `outpour-consumer dlq`.

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{
    DlqError,
    letter::{Letter, LetterId},
};
use crate::source::Position;

#[derive(Debug, Clone, Subcommand)]
pub enum DlqCommand {
    /// What is parked, counted by topic, table, reason and column
    List(ListArgs),
    /// One letter, with its payload and headers
    Show(ShowArgs),
    /// Send letters through the present routes again
    ///
    /// What fits now gets its row, once; what does not is parked again with one more
    /// attempt. Killed at any point and started again, it goes on.
    Replay(SendArgs),
}

/// Which letters. What is not given takes all.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct SelectionArgs {
    /// Only letters of this topic, by the name of the topic that was consumed; by default of
    /// all that the group reads
    #[arg(long)]
    pub(super) topic: Option<String>,
    /// Only letters for this table
    #[arg(long)]
    pub(super) table: Option<String>,
    /// Only letters parked for this reason, such as out_of_range
    #[arg(long)]
    pub(super) reason: Option<String>,
    /// Only letters parked since a time, such as 2026-01-31T22:00:00Z or -2d
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    pub(super) since: Option<Position>,
}

#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub(super) selection: SelectionArgs,
    /// Count letters that are settled, too
    #[arg(long)]
    pub(super) all: bool,
    /// Every letter by itself, with the ID that show and replay take
    #[arg(long)]
    pub(super) letters: bool,
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// TOPIC/PARTITION/OFFSET, as `list --letters` prints it
    pub(super) id: LetterId,
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Args)]
pub struct SendArgs {
    /// Only these letters: TOPIC/PARTITION/OFFSET, as `list --letters` prints it
    pub(super) ids: Vec<LetterId>,
    #[command(flatten)]
    pub(super) selection: SelectionArgs,
    /// Tell what would fit now, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
    #[arg(long)]
    pub(super) json: bool,
}

/// The same, with times that are fixed.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    pub(super) topic: Option<String>,
    pub(super) table: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) since: Option<Timestamp>,
    pub(super) ids: Vec<LetterId>,
}

impl SelectionArgs {
    /// `database` is that of tables that are named without one.
    ///
    /// # Errors
    /// When `--since` is no time in the past.
    pub(super) fn at(&self, database: &str, now: Timestamp) -> Result<Selection, DlqError> {
        let since = match self.since {
            None => None,
            Some(since) => {
                let wrong = |why: String| DlqError::Refused(format!("--since: {why}"));
                let at = since.time(now).map_err(wrong)?;
                Some(at.ok_or_else(|| wrong("not a time".to_owned()))?)
            }
        };
        let full = |table: &String| match table.contains('.') {
            true => table.clone(),
            false => format!("{database}.{table}"),
        };
        Ok(Selection {
            topic: self.topic.clone(),
            table: self.table.as_ref().map(full),
            reason: self.reason.clone(),
            since,
            ids: Vec::new(),
        })
    }
}

impl Selection {
    pub(super) fn takes(&self, letter: &Letter) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        };
        is(&self.table, &letter.table)
            && is(&self.reason, &letter.reason)
            && self.since.is_none_or(|since| letter.parked_at.is_some_and(|at| at >= since))
            && (self.ids.is_empty() || self.ids.contains(&letter.id))
    }
}
