//! What was measured, for programs and for people.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};
use serde::Serialize;

/// What one run of a case came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outcome {
    pub(super) rows_per_s: f64,
    /// Processor seconds of the measured program, and of the services.
    pub(super) client_cpu_s: f64,
    pub(super) server_cpu_s: f64,
    /// Peak resident memory of the measured program.
    pub(super) rss_mib: f64,
}

/// A figure as other programs read it.
#[derive(Debug, Serialize)]
struct Measurement {
    suite: &'static str,
    dataset: String,
    case: &'static str,
    metric: &'static str,
    value: f64,
    unit: &'static str,
}

#[derive(Debug, Default)]
pub(super) struct Results {
    measurements: Vec<Measurement>,
}

impl Results {
    /// The medians of what the rounds of a case came to, each of `rows` rows.
    pub(super) fn add(
        &mut self,
        suite: &'static str,
        dataset: &str,
        case: &'static str,
        rows: u64,
        rounds: &[Outcome],
    ) {
        let median = |of: fn(&Outcome) -> f64| median(rounds.iter().map(of).collect());
        for (metric, value, unit) in [
            ("rows_per_s", median(|outcome| outcome.rows_per_s), "rows/s"),
            ("client_cpu_s", median(|outcome| outcome.client_cpu_s), "s"),
            ("server_cpu_s", median(|outcome| outcome.server_cpu_s), "s"),
            ("rss_mib", median(|outcome| outcome.rss_mib), "MiB"),
            (
                "cpu_us_per_row",
                median(|outcome| outcome.client_cpu_s + outcome.server_cpu_s) * 1e6 / rows as f64,
                "µs",
            ),
        ] {
            self.add_figure(suite, dataset, case, metric, value, unit);
        }
    }

    pub(super) fn add_figure(
        &mut self,
        suite: &'static str,
        dataset: &str,
        case: &'static str,
        metric: &'static str,
        value: f64,
        unit: &'static str,
    ) {
        let dataset = dataset.to_owned();
        self.measurements.push(Measurement { suite, dataset, case, metric, value, unit });
    }

    fn value(&self, suite: &str, dataset: &str, case: &str, metric: &str) -> Option<f64> {
        let found = self.measurements.iter().find(|measurement| {
            (measurement.suite, measurement.dataset.as_str(), measurement.case, measurement.metric)
                == (suite, dataset, case, metric)
        });
        found.map(|measurement| measurement.value)
    }

    /// A line a case, in the order of measuring.
    pub(super) fn table(&self) -> Table {
        const METRICS: [&str; 7] = [
            "rows_per_s",
            "client_cpu_s",
            "server_cpu_s",
            "cpu_us_per_row",
            "rss_mib",
            "latency_p50_ms",
            "latency_p99_ms",
        ];
        let mut cases: Vec<(&str, &str, &str)> = Vec::new();
        let mut values = BTreeMap::new();
        for measurement in &self.measurements {
            let Measurement { suite, dataset, case, .. } = measurement;
            let key = (*suite, dataset.as_str(), *case);
            if !cases.contains(&key) {
                cases.push(key);
            }
            values.insert((key, measurement.metric), measurement.value);
        }
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        let names =
            ["rows/s", "of the limit", "client CPU s", "server CPU s", "CPU µs/row", "RSS MiB"];
        let head = ["suite", "rows", "case"].into_iter().chain(names).chain(["p50 ms", "p99 ms"]);
        table.set_header(head);
        for key in cases {
            let mut line = vec![key.0.to_owned(), key.1.to_owned(), key.2.to_owned()];
            for metric in METRICS {
                let value = values.get(&(key, metric)).copied();
                line.push(value.map_or_else(String::new, |value| shown(metric, value)));
                if metric == "rows_per_s" {
                    let share =
                        value.zip(self.limit(key.0, key.1)).map(|(value, limit)| value / limit);
                    line.push(share.map_or_else(String::new, |share| format!("{share:.2}")));
                }
            }
            table.add_row(line);
        }
        for column in 3..10 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }

    /// The smallest of a suite's limits, in rows a second.
    fn limit(&self, suite: &str, dataset: &str) -> Option<f64> {
        let limits: &[_] = match suite {
            "relay" => &["decode-floor", "produce-ceiling"],
            _ => &["kafka-limit", "encode", "clickhouse-limit"],
        };
        let values =
            limits.iter().filter_map(|case| self.value(suite, dataset, case, "rows_per_s"));
        values.reduce(f64::min)
    }

    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(&self.measurements)?;
        fs::write(file, json).with_context(|| format!("cannot write {}", file.display()))
    }
}

fn shown(metric: &str, value: f64) -> String {
    match metric {
        "rows_per_s" => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_the_rounds_counts() {
        let mut results = Results::default();
        let rounds = [5.0, 1.0, 3.0].map(|rows_per_s| Outcome { rows_per_s, ..Outcome::default() });
        results.add("relay", "rows", "decode-floor", 1, &rounds);
        assert_eq!(results.value("relay", "rows", "decode-floor", "rows_per_s"), Some(3.0));
        assert!((median(vec![1.0, 2.0]) - 1.5).abs() < f64::EPSILON);
    }

    #[test]
    fn the_table_shows_the_share_of_the_smaller_limit() {
        let mut results = Results::default();
        for (case, rows_per_s) in
            [("decode-floor", 400.0), ("produce-ceiling", 200.0), ("transactional", 180.0)]
        {
            let outcome = Outcome { rows_per_s, ..Outcome::default() };
            results.add("relay", "rows", case, 1, &[outcome]);
        }
        assert!(results.table().to_string().contains("0.90"), "{}", results.table());
    }
}
