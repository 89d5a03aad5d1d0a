//! What a replay came to, and what one would.

use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use serde::Serialize;

use crate::source::reader::Part;

/// What `replay --json` prints.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    /// `done`, `done_before`, `nothing` or `dry_run`.
    pub(super) state: &'static str,
    pub(super) topic: String,
    /// `live`, `into` or `swap`.
    pub(super) mode: &'static str,
    /// What is written to.
    pub(super) target: String,
    /// Under which the replay keeps how far it is.
    pub(super) group: String,
    pub(super) partitions: Vec<PartReport>,
    /// Of all partitions; markers of transactions count, too.
    pub(super) offsets: i64,
    /// Rows of these offsets in the target; absent where nothing was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rows: Option<u64>,
    /// How many of them this run has added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rows_added: Option<u64>,
    /// Records that do not fit, and were in the dead letters before.
    pub(super) parked_before: u64,
    /// Records that do not fit, and are now.
    pub(super) parked: u64,
    pub(super) seconds: f64,
    /// What was or would be done, in order.
    pub(super) steps: Vec<String>,
    /// The statement that removes the old table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) drop_old: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) estimate: Option<Estimate>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct PartReport {
    pub(super) partition: i32,
    /// First offset.
    pub(super) from: i64,
    /// One past the last.
    pub(super) until: i64,
}

/// From samples of both ends of each partition.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Estimate {
    /// At most: markers of transactions take offsets, and a selection takes fewer.
    pub(super) records: i64,
    /// Of keys, values and headers, from the mean of the sample.
    pub(super) bytes: u64,
    /// RFC 3339.
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
}

impl From<&Part> for PartReport {
    fn from(part: &Part) -> Self {
        PartReport { partition: part.partition, from: part.from, until: part.until }
    }
}

impl Report {
    pub(super) fn json(&self) -> Result<String, std::io::Error> {
        Ok(format!("{}\n", serde_json::to_string(self)?))
    }

    /// As a person reads it.
    pub(super) fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY).set_header(["partition", "from", "until", "offsets"]);
        for part in self.partitions.iter().filter(|part| part.from < part.until) {
            table.add_row([
                part.partition.to_string(),
                part.from.to_string(),
                part.until.to_string(),
                (part.until - part.from).to_string(),
            ]);
        }
        let mut lines = vec![match self.state {
            "dry_run" => format!("would replay {} into {}:", self.topic, self.target),
            "nothing" => format!("nothing of {} lies there; nothing was done", self.topic),
            "done_before" => format!(
                "this replay of {} into {} is done already; --restart does it again, with what \
                 has come since",
                self.topic, self.target
            ),
            _ => format!("replayed {} into {}:", self.topic, self.target),
        }];
        lines.push(table.to_string());
        if let Some(estimate) = &self.estimate {
            lines.push(format!(
                "at most {} records, about {}",
                estimate.records,
                bytesize::ByteSize(estimate.bytes)
            ));
            if let (Some(first), Some(last)) = (&estimate.first, &estimate.last) {
                lines.push(format!("from {first} to {last}"));
            }
        }
        lines.extend(self.steps.iter().map(|step| format!("- {step}")));
        if let Some(rows) = self.rows {
            let added = self.rows_added.map(|n| format!(", {n} of them added")).unwrap_or_default();
            lines.push(format!("{rows} rows of these records are in the table{added}"));
        }
        if self.parked + self.parked_before > 0 {
            lines.push(format!(
                "{} records do not fit: {} were in the dead letters before, {} are new there; see \
                 `outpour-consumer dlq list --topic {}`",
                self.parked + self.parked_before,
                self.parked_before,
                self.parked,
                self.topic
            ));
        }
        if self.state == "done" {
            lines.push(format!("{:.1} s", self.seconds));
        }
        if let Some(drop) = &self.drop_old {
            lines.push(format!("the old table is kept; remove it with: {drop}"));
        }
        lines.join("\n") + "\n"
    }
}
