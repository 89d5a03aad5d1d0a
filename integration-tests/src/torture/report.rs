//! The result: a table for a person, `report.json` for programs.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};
use serde::Serialize;
use uuid::Uuid;

use super::{
    crew::Memory,
    recovery::{Recovery, Spread},
    schedule::Fault,
};

/// Something that may not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Violation {
    pub(super) what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) event: Option<Uuid>,
}

impl Violation {
    const UNREST: &str = "it does not come to rest: ";

    pub(super) fn unrest(error: &anyhow::Error) -> Self {
        Violation { what: format!("{}{error:#}", Self::UNREST), event: None }
    }

    /// Whether it may have taken too long, and nothing else is wrong.
    pub(super) fn is_unrest(&self) -> bool {
        self.what.starts_with(Self::UNREST)
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) seed: u64,
    /// Of the faults; the end, in which everything comes to rest, comes on top.
    pub(super) duration_s: u64,
    /// Committed ones.
    pub(super) events: u64,
    pub(super) transactions: u64,
    pub(super) rolled_back: u64,
    /// Events that were parked, as they had to be.
    pub(super) dead_letters: u64,
    pub(super) faults: BTreeMap<Fault, u64>,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) out_of_order: u64,
    pub(super) bent: u64,
    pub(super) unexpected: u64,
    pub(super) violations: Vec<Violation>,
    pub(super) recovery: BTreeMap<Fault, Recovery>,
    /// Largest resident memory of a process in each quarter of the run, in MiB.
    pub(super) relay_rss_mib: [f64; 4],
    pub(super) consumer_rss_mib: [f64; 4],
    /// How often each process ended by itself and was started again.
    pub(super) restarts: BTreeMap<String, usize>,
    /// From the last fault's end until everything was there, in seconds.
    pub(super) settled_s: f64,
}

impl Report {
    pub(super) fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self)?;
        fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn print(&self) {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        table.set_header(["in s: p50 p99 worst", "times", "stall", "progress", "recovery"]);
        for (fault, recovery) in &self.recovery {
            let times = |Spread { p50, p99, worst }| format!("{p50:.1} {p99:.1} {worst:.1}");
            table.add_row([
                fault.name().to_owned(),
                recovery.count.to_string(),
                times(recovery.stall),
                times(recovery.progress),
                times(recovery.recovery),
            ]);
        }
        for at in 1..5 {
            if let Some(column) = table.column_mut(at) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("{table}");
        println!(
            "seed {}: {} events in {} transactions, {} rolled back, {} parked, {} faults in {} s",
            self.seed,
            self.events,
            self.transactions,
            self.rolled_back,
            self.dead_letters,
            self.faults.values().sum::<u64>(),
            self.duration_s,
        );
        println!(
            "lost {}, duplicated {}, out of order {}, bent {}, unexpected {}",
            self.lost, self.duplicated, self.out_of_order, self.bent, self.unexpected,
        );
        let quarters = |mib: &[f64; 4]| mib.map(|mib| format!("{mib:.0}")).join(", ");
        println!(
            "resident memory, largest of each quarter: relay {} MiB, consumer {} MiB",
            quarters(&self.relay_rss_mib),
            quarters(&self.consumer_rss_mib),
        );
        for violation in &self.violations {
            println!("VIOLATION {}", violation.what);
        }
    }
}

/// The largest of each quarter.
pub(super) fn quarters(memory: &[Memory], of_relays: bool) -> [f64; 4] {
    let (Some(first), Some(last)) = (memory.first(), memory.last()) else { return [0.0; 4] };
    let quarter = (last.at - first.at).as_secs_f64() / 4.0;
    let mut largest = [0.0_f64; 4];
    for look in memory.iter().filter(|look| look.is_relay == of_relays) {
        let at = (look.at - first.at).as_secs_f64() / quarter.max(f64::MIN_POSITIVE);
        let at = (at as usize).min(3);
        largest[at] = largest[at].max(look.mib);
    }
    largest
}

/// Every look at the memory, for whoever wonders where it went.
pub(super) fn write_memory(memory: &[Memory], path: &Path) -> Result<()> {
    let Some(first) = memory.first() else { return Ok(()) };
    let mut lines = csv::Writer::from_path(path)?;
    lines.write_record(["s", "program", "rss_mib"])?;
    for look in memory {
        let at = (look.at - first.at).as_secs_f64();
        lines.write_record([&format!("{at:.1}"), &look.member, &format!("{:.1}", look.mib)])?;
    }
    lines.flush().with_context(|| format!("cannot write {}", path.display()))
}
