//! The result: tables for a person, `report.json` for programs.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};
use indicatif::HumanCount;
use serde::{Serialize, Serializer};

use super::{
    latency::Latency,
    prober::Resolution,
    stations::Station,
    truth::{ALL_FLIGHTS, Facts},
};

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) counts: Counts,
    /// Over all stations.
    pub(super) missing: u64,
    pub(super) duplicates: u64,
    pub(super) stations: Stations,
    pub(super) throughput: Throughput,
    pub(super) latency: Latencies,
    pub(super) answers: Facts,
    /// What each stage took, in the order in which they ran.
    #[serde(serialize_with = "as_object")]
    pub(super) seconds: Vec<(&'static str, f64)>,
    /// Empty if everything is as it should be.
    pub(super) differences: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Counts {
    pub(super) committed: u64,
    pub(super) rolled_back: u64,
    pub(super) kafka: u64,
    pub(super) flights: u64,
    pub(super) orders: u64,
    pub(super) event_log: u64,
    pub(super) dead_letters: u64,
    pub(super) group_lag: i64,
}

#[derive(Debug, Serialize)]
pub(super) struct Stations {
    pub(super) kafka: Station,
    pub(super) flights: Station,
    pub(super) orders: Station,
    pub(super) event_log: Station,
}

/// Of the part that was fed at full speed.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Throughput {
    pub(super) events: u64,
    /// From the first commit to the last.
    pub(super) committed_in_s: f64,
    /// From the first commit until the last row was seen.
    pub(super) visible_in_s: f64,
    pub(super) events_per_s: f64,
}

/// From commit, by whether the feed ran at full speed or at a steady pace.
#[derive(Debug, Serialize)]
pub(super) struct Latencies {
    pub(super) full_speed_to_kafka: Option<Latency>,
    pub(super) full_speed_to_clickhouse: Option<Latency>,
    pub(super) paced_to_kafka: Option<Latency>,
    pub(super) paced_to_clickhouse: Option<Latency>,
    pub(super) paced_events_per_s: f64,
    /// Each latency to ClickHouse is too long by up to one gap between looks.
    pub(super) resolution: Option<Resolution>,
}

impl Report {
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self)?;
        fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn print(&self) {
        println!("\n{}", self.stations());
        println!("{}", self.speed());
        println!("{}", self.answers());
        if let Some(resolution) = self.latency.resolution {
            println!(
                "Latencies run from the commit in Postgres until a query shows the row. The query \
                 ran every {} ms\n(99% within {} ms), so each may be that much shorter than shown.",
                resolution.p50_ms, resolution.p99_ms
            );
        }
        let stages = self.seconds.iter().map(|(stage, s)| format!("{stage} {s:.1}"));
        println!("Seconds: {}.", stages.collect::<Vec<_>>().join(", "));
        if self.differences.is_empty() {
            println!("\nEverything arrived, once, in order, and as it was.");
        } else {
            println!("\nNOT as it should be:");
            for difference in &self.differences {
                println!("  {difference}");
            }
        }
    }

    fn stations(&self) -> Table {
        let Self { counts, stations, .. } = self;
        let mut table = titled(["station", "events", "missing", "duplicates", "never committed"]);
        table.add_row(row(["committed in Postgres".into(), count(counts.committed)]));
        let each = [
            ("in Kafka, read committed", &stations.kafka),
            ("in ClickHouse: flights", &stations.flights),
            ("in ClickHouse: orders", &stations.orders),
            ("in ClickHouse: event_log", &stations.event_log),
        ];
        for (name, station) in each {
            table.add_row(row([
                name.into(),
                count(station.events),
                count(station.missing),
                count(station.duplicates),
                count(station.unexpected),
            ]));
        }
        let leaked: u64 = each.iter().map(|(_, station)| station.rolled_back).sum();
        table.add_row(row(["dead letters".into(), count(counts.dead_letters)]));
        table.add_row(row(["rolled back".into(), count(counts.rolled_back)]));
        table.add_row(row(["… and seen anywhere".into(), count(leaked)]));
        right_aligned(table)
    }

    fn speed(&self) -> Table {
        let Self { throughput, latency, .. } = self;
        let mut table = titled(["commit → visible", "events", "events/s", "p50", "p99", "longest"]);
        let rate = throughput.events_per_s as u64;
        let paced = latency.paced_events_per_s as u64;
        let rows = [
            ("full speed, in Kafka", &latency.full_speed_to_kafka, None),
            ("full speed, in ClickHouse", &latency.full_speed_to_clickhouse, Some(rate)),
            ("steady, in Kafka", &latency.paced_to_kafka, None),
            ("steady, in ClickHouse", &latency.paced_to_clickhouse, Some(paced)),
        ];
        for (name, latency, rate) in rows {
            let Some(latency) = latency else { continue };
            let rate = rate.map(count).unwrap_or_default();
            let ms = |ms: i64| format!("{ms} ms");
            table.add_row(row([
                name.into(),
                count(latency.events),
                rate,
                ms(latency.p50_ms),
                ms(latency.p99_ms),
                ms(latency.max_ms),
            ]));
        }
        right_aligned(table)
    }

    fn answers(&self) -> Table {
        let facts = &self.answers;
        let whole = facts.flights == ALL_FLIGHTS;
        let against = if whole { "as published" } else { "as in the input" };
        let mut table = titled(["ClickHouse answers", against]);
        let origins = facts.flights_by_origin.iter();
        let origins: Vec<_> =
            origins.map(|(from, n)| format!("{from} {}", HumanCount(*n))).collect();
        let delays = facts.longest_mean_delays.iter();
        let delays: Vec<_> = delays.map(|(carrier, mean)| format!("{carrier} {mean:.2}")).collect();
        table.add_row(["flights per origin", &origins.join(", ")]);
        table.add_row(["longest mean departure delays, min", &delays.join(", ")]);
        if let Some((from, to, n)) = &facts.busiest_route {
            table.add_row(["busiest route", &format!("{from} → {to}, {} flights", HumanCount(*n))]);
        }
        table.add_row(["without a departure (NULL)", &count(facts.without_departure)]);
        table.add_row(["carriers", &count(facts.carriers)]);
        table.add_row(["sum of distances, miles", &count(facts.distance_sum)]);
        let sign = if facts.departure_delay_sum < 0 { "-" } else { "" };
        let delay = format!("{sign}{}", count(facts.departure_delay_sum.unsigned_abs()));
        table.add_row(["sum of departure delays, min", &delay]);
        table
    }
}

fn as_object<S: Serializer>(
    seconds: &[(&'static str, f64)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(seconds.iter().copied())
}

fn count(n: u64) -> String {
    HumanCount(n).to_string()
}

fn titled<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(header);
    table
}

fn row<const N: usize>(cells: [String; N]) -> Vec<String> {
    cells.into()
}

/// All columns but the first.
fn right_aligned(mut table: Table) -> Table {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
