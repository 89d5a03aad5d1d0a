//! What a comparison came to.

use std::collections::BTreeMap;

use outpour_schemas::program::Exit;
use serde::Serialize;

use super::{
    compare::{Counts, Matter, Stretch},
    error::ReconcileError,
    outbox::Outbox,
};

/// `reconcile --json` prints it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) group: String,
    /// Where it began; absent: where Kafka does.
    pub(crate) since: Option<String>,
    pub(crate) clean: bool,
    pub(crate) totals: Counts,
    /// Ranges of offsets whose sums differed, so that they were compared offset by
    /// offset.
    pub(crate) looked_at_closely: usize,
    /// By topic, partition and table.
    pub(crate) partitions: Vec<Compared>,
    pub(crate) missing: Vec<OffsetRange>,
    pub(crate) duplicated: Vec<OffsetRange>,
    pub(crate) different: Vec<Different>,
    pub(crate) unexpected: Vec<Unexpected>,
    /// Ranges beyond the most that are listed; the counts have their rows.
    pub(crate) ranges_left_out: u64,
    /// What to know when reading it, a sentence each.
    pub(crate) notes: Vec<String>,
    /// The table that events come from, where that was asked for.
    pub(crate) outbox: Option<Outbox>,
    /// Tables, with their engines, in which a row that is stored again may hide newer ones.
    #[serde(skip)]
    pub(crate) keeps_no_order: BTreeMap<String, String>,
    /// The relay's, for what is said of it.
    #[serde(skip)]
    pub(crate) slot: String,
}

/// One partition and one table that its records go to.
#[derive(Debug, Serialize)]
pub(crate) struct Compared {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// Absent for the records that no route takes: they go to the dead letters.
    pub(crate) table: Option<String>,
    /// First offset that was compared.
    pub(crate) from: i64,
    /// One past the last: the group's committed offset.
    pub(crate) to: i64,
    #[serde(flatten)]
    pub(crate) counts: Counts,
}

/// Consecutive records of one partition, as far as one table is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct OffsetRange {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// Absent if no route takes the records, and what is missing are their letters.
    pub(crate) table: Option<String>,
    pub(crate) from: i64,
    /// One past the last.
    pub(crate) to: i64,
    /// Rows that are missing, or too many.
    pub(crate) rows: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Unexpected {
    #[serde(flatten)]
    pub(crate) range: OffsetRange,
    pub(crate) reason: Matter,
}

/// Rows that do not hold what their records say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Different {
    #[serde(flatten)]
    pub(crate) range: OffsetRange,
    /// In which columns.
    pub(crate) columns: Vec<String>,
}

/// More are no list any more.
const MOST_RANGES: usize = 100_000;

impl Report {
    /// Adds what one partition and table came to.
    pub(super) fn add(&mut self, compared: Compared) {
        self.totals.add(&compared.counts);
        self.partitions.push(compared);
    }

    pub(super) fn found(
        &mut self,
        (topic, partition): (&str, i32),
        table: Option<&str>,
        stretch: Stretch,
    ) {
        if self.is_full() {
            self.ranges_left_out += 1;
            return;
        }
        let Stretch { matter, from, to, rows } = stretch;
        let range = OffsetRange {
            topic: topic.to_owned(),
            partition,
            table: table.map(str::to_owned),
            from,
            to,
            rows,
        };
        match matter {
            Matter::Missing => self.missing.push(range),
            Matter::Duplicated => self.duplicated.push(range),
            reason => self.unexpected.push(Unexpected { range, reason }),
        }
    }

    fn is_full(&self) -> bool {
        let (twice, different) = (self.duplicated.len(), self.different.len());
        self.missing.len() + twice + different + self.unexpected.len() >= MOST_RANGES
    }

    /// A row of a topic's partition and table that differs in some columns.
    pub(super) fn differs(
        &mut self,
        (topic, partition): (&str, i32),
        table: &str,
        (offset, columns): (i64, Vec<String>),
    ) {
        self.totals.different += 1;
        let mut compared = self.partitions.iter_mut().filter(|compared| {
            compared.topic == topic
                && compared.partition == partition
                && compared.table.as_deref() == Some(table)
        });
        if let Some(compared) = compared.next() {
            compared.counts.different += 1;
        }
        if let Some(last) = self.different.last_mut()
            && last.columns == columns
            && last.range.to == offset
            && (last.range.topic.as_str(), last.range.partition) == (topic, partition)
            && last.range.table.as_deref() == Some(table)
        {
            last.range.to += 1;
            last.range.rows += 1;
            return;
        }
        if self.is_full() {
            self.ranges_left_out += 1;
            return;
        }
        let range = OffsetRange {
            topic: topic.to_owned(),
            partition,
            table: Some(table.to_owned()),
            from: offset,
            to: offset + 1,
            rows: 1,
        };
        self.different.push(Different { range, columns });
    }

    /// Ranges of which all rows have to go before they are read again.
    pub(super) fn wrong(&self) -> impl Iterator<Item = &OffsetRange> {
        self.duplicated.iter().chain(self.different.iter().map(|different| &different.range))
    }

    pub(super) fn finish(&mut self) {
        let lost = self.outbox.as_ref().map_or(0, |outbox| outbox.missing);
        self.clean = self.totals.is_clean() && lost == 0;
    }

    /// As a program reads it, on one line.
    ///
    /// # Errors
    /// Never for a report of our own making.
    pub(crate) fn json(&self) -> Result<String, serde_json::Error> {
        Ok(format!("{}\n", serde_json::to_string(self)?))
    }

    /// # Errors
    /// When the two sides are not the same.
    pub(crate) fn verdict(&self) -> Result<(), ReconcileError> {
        if !self.clean {
            let error = ReconcileError::Discrepancies(self.differences());
            debug_assert_eq!(error.exit(), Exit::Finding);
            return Err(error);
        }
        match &self.outbox {
            Some(outbox) if outbox.waiting > 0 => Err(ReconcileError::NotPublished {
                waiting: outbox.waiting,
                table: outbox.table.clone(),
                slot: self.slot.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn differences(&self) -> String {
        let Counts { missing, duplicated, different, unexpected, .. } = self.totals;
        let mut sentences = Vec::new();
        let counts = [
            (missing, "missing"),
            (duplicated, "duplicated"),
            (different, "different"),
            (unexpected, "unexpected"),
        ];
        let parts = counts.iter().filter(|(rows, _)| *rows > 0);
        let parts: Vec<_> = parts.map(|(rows, what)| format!("{rows} {what}")).collect();
        if !parts.is_empty() {
            let rows =
                if missing + duplicated + different + unexpected == 1 { "row" } else { "rows" };
            let parts = parts.join(", ");
            sentences
                .push(format!("ClickHouse is not what Kafka says it should be: {parts} {rows}"));
        }
        if let Some(outbox) = self.outbox.as_ref().filter(|outbox| outbox.missing > 0) {
            let Outbox { missing, table, .. } = outbox;
            let events = if *missing == 1 { "event" } else { "events" };
            sentences.push(format!("{missing} {events} of {table} never came to Kafka"));
        }
        sentences.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_matter_is_one_line() {
        let mut report = Report::default();
        report.finish();
        report.verdict().unwrap();
        let counts = Counts { missing: 3, unexpected: 1, ..Counts::default() };
        report.add(Compared {
            topic: "t".into(),
            partition: 0,
            table: None,
            from: 0,
            to: 9,
            counts,
        });
        report.finish();
        let error = report.verdict().unwrap_err();
        assert_eq!(error.exit(), Exit::Finding);
        assert!(error.to_string().ends_with(": 3 missing, 1 unexpected rows"), "{error}");
    }

    #[test]
    fn a_list_has_an_end_and_says_so() {
        let mut report = Report::default();
        for offset in 0..i64::try_from(MOST_RANGES).unwrap() + 2 {
            let stretch =
                Stretch { matter: Matter::Missing, from: offset, to: offset + 1, rows: 1 };
            report.found(("t", 0), Some("db.x"), stretch);
        }
        assert_eq!((report.missing.len(), report.ranges_left_out), (MOST_RANGES, 2));
    }
}
