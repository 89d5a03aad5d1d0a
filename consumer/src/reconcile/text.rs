//! A report as a person reads it: an overview, the ranges, and what to do.

use std::{collections::BTreeMap, fmt::Write as _};

use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};

use super::{
    compare::{Counts, Matter},
    outbox::Outbox,
    report::{OffsetRange, Report},
};
use crate::{statement::literal, table::TableName};

/// Ranges that are shown of each kind.
const SHOWN: usize = 20;

/// Stands for records that no route takes.
const NO_ROUTE: &str = "(no route)";

impl Report {
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n", self.overview());
        for note in &self.notes {
            line(&mut text, &format!("note: {note}"));
        }
        let unexpected: Vec<_> = self.unexpected.iter().map(|u| u.range.clone()).collect();
        section(&mut text, "missing", &self.missing, None);
        section(&mut text, "duplicated", &self.duplicated, None);
        let different: Vec<_> = self.different.iter().map(|d| d.range.clone()).collect();
        let columns: Vec<_> = self.different.iter().map(|d| d.columns.join(", ")).collect();
        let columns: Vec<_> = columns.iter().map(String::as_str).collect();
        section(&mut text, "different", &different, Some(&columns));
        let reasons: Vec<_> = self.unexpected.iter().map(|u| in_words(u.reason)).collect();
        section(&mut text, "unexpected", &unexpected, Some(&reasons));
        if self.ranges_left_out > 0 {
            line(&mut text, &format!("\n{} more ranges are not listed", self.ranges_left_out));
        }
        self.advice(&mut text);
        self.outbox_line(&mut text);
        if self.clean && self.totals.merged > 0 {
            line(
                &mut text,
                "ClickHouse has what Kafka says it should have, as far as it keeps rows apart.",
            );
        } else if self.clean {
            line(&mut text, "ClickHouse has what Kafka says it should have, once.");
        }
        text
    }

    fn outbox_line(&self, text: &mut String) {
        let Some(outbox) = &self.outbox else { return };
        let Outbox { table, rows, in_kafka, missing, waiting, no_longer_in_kafka, missing_ids } =
            outbox;
        line(
            text,
            &format!(
                "\n{table}: {rows} rows, {in_kafka} in Kafka, {missing} missing, {waiting} not \
                 published yet, {no_longer_in_kafka} older than what Kafka keeps"
            ),
        );
        for row in missing_ids.iter().take(SHOWN) {
            line(text, &format!("    missing: {}", row.id));
        }
        if missing_ids.len() > SHOWN {
            line(text, "    and more; --json lists them");
        }
        if *missing > 0 {
            line(text, "To publish them, write them to the table anew, as --fix does.");
        }
    }

    fn overview(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY).set_header([
            "topic",
            "partition",
            "table",
            "expected",
            "stored",
            "parked",
            "missing",
            "duplicated",
            "unexpected",
            "no longer in Kafka",
        ]);
        for compared in &self.partitions {
            let name = compared.table.as_deref().unwrap_or(NO_ROUTE);
            let place = [compared.topic.clone(), compared.partition.to_string(), name.to_owned()];
            table.add_row(row(place, &compared.counts));
        }
        table.add_row(row(["all".to_owned(), String::new(), String::new()], &self.totals));
        align(&mut table, &[1, 3, 4, 5, 6, 7, 8, 9]);
        table
    }

    /// Commands that bring in what is missing, and SQL that shows the rest.
    fn advice(&self, text: &mut String) {
        let replays = extents(&self.missing);
        if !replays.is_empty() {
            line(
                text,
                "\nBring in what is missing (--fix does); rows that are there stay as they are:",
            );
            for ((topic, partition, table), (from, to)) in shown(&replays) {
                line(
                    text,
                    &format!(
                        "    outpour-consumer replay --topic {topic} --partition {partition} \
                         --from {from} --to {to} --live --table {table}"
                    ),
                );
            }
        }
        let doubles = extents(&self.duplicated);
        if !doubles.is_empty() {
            line(text, "\nLook at what is there more than once:");
            for (place, extent) in shown(&doubles) {
                line(
                    text,
                    &format!(
                        "    SELECT _offset, count() FROM {} GROUP BY _offset HAVING count() > 1 \
                         ORDER BY _offset LIMIT 100;",
                        rows_of(place, *extent)
                    ),
                );
            }
            line(text, "To have it once, delete each range listed and replay it, as --fix does.");
        }
        if !self.different.is_empty() {
            line(
                text,
                "\nRows that differ do not hold what their records say, in the columns named. To have \
                 that, delete each range listed and replay it, as --fix does.",
            );
        }
        if !self.unexpected.is_empty() {
            line(text, "\nLook at what should not be there, and delete it if nobody needs it:");
            for unexpected in self.unexpected.iter().take(SHOWN) {
                let OffsetRange { topic, partition, table, from, to, .. } = &unexpected.range;
                let Some(table) = table else { continue };
                let rows = rows_of(&(topic, *partition, table), (*from, *to));
                line(text, &format!("    SELECT * FROM {rows} LIMIT 100;"));
            }
        }
    }
}

fn in_words(matter: Matter) -> &'static str {
    match matter {
        Matter::Missing => "missing",
        Matter::Duplicated => "more than once",
        Matter::NotInKafka => "Kafka holds no such record",
        Matter::RoutedElsewhere => "belongs in another table",
        Matter::Parked => "parked, and stored too",
    }
}

fn row(place: [String; 3], counts: &Counts) -> Vec<String> {
    let numbers = [
        counts.expected,
        counts.stored,
        counts.parked,
        counts.missing,
        counts.duplicated,
        counts.unexpected,
        counts.no_longer_in_kafka,
    ];
    place.into_iter().chain(numbers.map(|n| n.to_string())).collect()
}

/// Numbers to the right.
fn align(table: &mut Table, columns: &[usize]) {
    for index in columns {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn section(text: &mut String, what: &str, ranges: &[OffsetRange], reasons: Option<&[&str]>) {
    if ranges.is_empty() {
        return;
    }
    let mut table = Table::new();
    let mut header = vec![what, "partition", "table", "from", "to (exclusive)", "rows"];
    header.extend(reasons.map(|_| "why"));
    table.load_style(UTF8_BORDERS_ONLY).set_header(header);
    for (index, range) in ranges.iter().take(SHOWN).enumerate() {
        let mut row = vec![
            range.topic.clone(),
            range.partition.to_string(),
            range.table.as_deref().unwrap_or(NO_ROUTE).to_owned(),
            range.from.to_string(),
            range.to.to_string(),
            range.rows.to_string(),
        ];
        row.extend(reasons.map(|reasons| reasons[index].to_owned()));
        table.add_row(row);
    }
    align(&mut table, &[1, 3, 4, 5]);
    line(text, &format!("\n{table}"));
    if ranges.len() > SHOWN {
        let more = ranges.len() - SHOWN;
        line(text, &format!("and {more} more ranges {what}; --json lists them"));
    }
}

type Place<'a> = (&'a str, i32, &'a str);

/// From the first to the last range of each partition and table.
fn extents(ranges: &[OffsetRange]) -> BTreeMap<Place<'_>, (i64, i64)> {
    let mut all: BTreeMap<Place<'_>, (i64, i64)> = BTreeMap::new();
    for range in ranges {
        let Some(table) = &range.table else { continue };
        let extent =
            all.entry((&range.topic, range.partition, table)).or_insert((range.from, range.to));
        *extent = (extent.0.min(range.from), extent.1.max(range.to));
    }
    all
}

fn shown<'a, 'b>(
    extents: &'b BTreeMap<Place<'a>, (i64, i64)>,
) -> impl Iterator<Item = (&'b Place<'a>, &'b (i64, i64))> {
    extents.iter().take(SHOWN)
}

/// What follows a FROM.
pub(super) fn rows_of((topic, partition, table): &Place<'_>, (from, to): (i64, i64)) -> String {
    format!(
        "{} WHERE _topic = {} AND _partition = {partition} AND _offset >= {from} AND _offset < {to}",
        TableName::parse(table, "default").quoted(),
        literal(topic)
    )
}

fn line(text: &mut String, line: &str) {
    // Writing to a string does not fail.
    writeln!(text, "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::{
        compare::{Counts, Stretch},
        report::Compared,
    };

    fn report() -> Report {
        let mut report = Report::default();
        let counts = Counts { expected: 30, stored: 31, missing: 25, ..Counts::default() };
        report.add(Compared {
            topic: "orders".into(),
            partition: 3,
            table: Some("shop.orders".into()),
            from: 0,
            to: 60,
            counts,
        });
        let mut found = |matter, from, to| {
            let stretch = Stretch { matter, from, to, rows: 1 };
            report.found(("orders", 3), Some("shop.orders"), stretch);
        };
        for n in 0..25 {
            found(Matter::Missing, 2 * n, 2 * n + 1);
        }
        found(Matter::Duplicated, 51, 52);
        found(Matter::NotInKafka, 55, 56);
        report.finish();
        report
    }

    #[test]
    fn ranges_are_bounded_and_followed_by_commands_that_can_be_copied() {
        let text = report().text();
        for part in [
            "and 5 more ranges missing; --json lists them",
            "    outpour-consumer replay --topic orders --partition 3 --from 0 --to 49 --live --table shop.orders\n",
            "    SELECT _offset, count() FROM `shop`.`orders` WHERE _topic = 'orders' AND _partition = 3 \
             AND _offset >= 51 AND _offset < 52 GROUP BY",
            "Kafka holds no such record",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("once."), "{text}");
    }

    #[test]
    fn nothing_but_the_overview_where_all_is_well() {
        let mut report = Report::default();
        report.finish();
        let text = report.text();
        assert!(text.contains("no longer in Kafka") && text.contains("once."), "{text}");
        assert!(!text.contains("SELECT") && !text.contains("replay"), "{text}");
    }
}
