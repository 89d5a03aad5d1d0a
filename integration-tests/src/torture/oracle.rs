//! Whether everything that was committed, and nothing else, is where it belongs.
//! Pure; it knows nothing of how Outpour works.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::{
    event::Fate,
    follower::{Letter, Record},
    ledger::Entry,
    report::Violation,
    tables::Stored,
};

/// What was found at the end of a run.
pub(super) struct Found<'a> {
    pub(super) ledger: &'a HashMap<Uuid, Entry>,
    pub(super) records: &'a [Record],
    pub(super) letters: &'a [Letter],
    /// By aggregate type.
    pub(super) rows: BTreeMap<&'static str, Vec<Stored>>,
}

#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) out_of_order: u64,
    /// Rows with a value that is not the one that was committed.
    pub(super) bent: u64,
    /// Records, rows and letters of events that were not committed, or that belong
    /// elsewhere.
    pub(super) unexpected: u64,
    pub(super) violations: Vec<Violation>,
}

/// What became of one event.
#[derive(Default)]
struct Traces<'a> {
    records: Vec<&'a Record>,
    rows: Vec<&'a Stored>,
    letters: Vec<&'a Letter>,
}

pub(super) fn judge(found: &Found<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut traces: HashMap<Uuid, Traces<'_>> = HashMap::new();
    for record in found.records {
        traces.entry(record.id).or_default().records.push(record);
    }
    for row in found.rows.values().flatten() {
        traces.entry(row.event_id).or_default().rows.push(row);
    }
    for letter in found.letters {
        traces.entry(letter.id).or_default().letters.push(letter);
    }
    for (id, entry) in found.ledger {
        verdict.event(*id, entry, &traces.remove(id).unwrap_or_default());
    }
    for (id, traces) in traces {
        verdict.unexpected += 1;
        let what = format!("was never committed: {traces}");
        verdict.tell(what, id);
    }
    verdict.order(found);
    verdict
}

impl Verdict {
    fn tell(&mut self, what: String, event: Uuid) {
        self.violations.push(Violation { what, event: Some(event) });
    }

    fn event(&mut self, id: Uuid, entry: &Entry, traces: &Traces<'_>) {
        let Traces { records, rows, letters } = traces;
        let is_parked_by_relay = records.is_empty() && !letters.is_empty();
        // How often it has to be in Kafka, in the table, and among the letters.
        let expected = match entry.fate {
            Fate::Stored => (1, 1, 0),
            Fate::Bulky if is_parked_by_relay => (0, 0, 1),
            Fate::Bulky => (1, 1, 0),
            Fate::Poison => (1, 0, 1),
            Fate::Unpublishable => (0, 0, 1),
        };
        let found = (records.len(), rows.len(), letters.len());
        let stations = [(found.0, expected.0), (found.1, expected.1), (found.2, expected.2)];
        if stations.iter().any(|(found, expected)| found < expected) {
            self.lost += 1;
            self.tell(format!("lost ({:?}): {traces}", entry.fate), id);
        }
        if stations.iter().any(|(found, expected)| *found > (*expected).max(1)) {
            self.duplicated += 1;
            self.tell(format!("there more than once ({:?}): {traces}", entry.fate), id);
        } else if stations.iter().any(|(found, expected)| found > expected) {
            self.unexpected += 1;
            self.tell(format!("where it does not belong ({:?}): {traces}", entry.fate), id);
        }
        let ([record], [row]) = (&records[..], &rows[..]) else {
            if let ([record], [letter]) = (&records[..], &letters[..])
                && letter.source.as_ref() != Some(&record.place)
            {
                self.unexpected += 1;
                self.tell(format!("parked as of another place: {traces}"), id);
            }
            return;
        };
        let place = (i64::from(row.partition), row.offset.cast_signed());
        if place != (i64::from(record.place.partition), record.place.offset) {
            self.unexpected += 1;
            self.tell(format!("stored as of another place: {traces}"), id);
        }
        let values = super::event::Values {
            amount: row.amount.clone(),
            quantity: row.quantity,
            small: row.small,
            note: row.note.clone(),
            at: row.at.clone(),
            maybe: row.maybe,
            tags: row.tags.clone(),
        };
        if values != entry.values || row.key != entry.key || row.seq != entry.seq {
            self.bent += 1;
            self.tell(format!("bent: {:?} became {values:?}", entry.values), id);
        }
    }

    /// The events of a key stand in one partition, in the order in which they were
    /// committed.
    fn order(&mut self, found: &Found<'_>) {
        let mut of_key: BTreeMap<(&str, &str), Vec<(&Record, i64)>> = BTreeMap::new();
        for record in found.records {
            if let Some(entry) = found.ledger.get(&record.id) {
                let events = of_key.entry((entry.kind, &entry.key)).or_default();
                events.push((record, entry.seq));
            }
        }
        for events in of_key.values_mut() {
            events.sort_by_key(|(record, _)| (record.place.partition, record.place.offset));
            for pair in events.windows(2) {
                let [(before, number), (record, next)] = pair else { continue };
                let is_elsewhere = before.place.partition != record.place.partition;
                // The same event again has been told.
                if before.id != record.id && (is_elsewhere || number >= next) {
                    self.out_of_order += 1;
                    let what = format!(
                        "out of order: number {next} of key {} stands behind {number}",
                        record.key
                    );
                    self.tell(what, record.id);
                }
            }
        }
    }
}

impl std::fmt::Display for Traces<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let places: Vec<_> = self
            .records
            .iter()
            .map(|record| format!("{}/{}", record.place.partition, record.place.offset))
            .collect();
        let rows: Vec<_> =
            self.rows.iter().map(|row| format!("{}/{}", row.partition, row.offset)).collect();
        let letters: Vec<_> = self.letters.iter().map(|letter| letter.reason.as_str()).collect();
        write!(
            f,
            "published at [{}], stored from [{}], parked for [{}]",
            places.join(", "),
            rows.join(", "),
            letters.join(", ")
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::torture::{event::Values, follower::Place};

    fn values() -> Values {
        Values {
            amount: "1.5".to_owned(),
            quantity: 1,
            small: 1,
            note: String::new(),
            at: "2026-01-02 03:04:05.000006".to_owned(),
            maybe: None,
            tags: Vec::new(),
        }
    }

    fn id(seq: i64) -> Uuid {
        Uuid::from_u128(seq.cast_unsigned().into())
    }

    fn entry(seq: i64, fate: Fate) -> (Uuid, Entry) {
        let entry = Entry { kind: "order", key: "k".to_owned(), seq, fate, values: values() };
        (id(seq), entry)
    }

    fn place(offset: i64) -> Place {
        Place { topic: Arc::from("outbox.event.order"), partition: 0, offset }
    }

    fn record(seq: i64, offset: i64) -> Record {
        let position = format!("0/{offset:X}/0").parse().unwrap();
        Record { id: id(seq), key: "k".to_owned(), position, place: place(offset) }
    }

    fn row(seq: i64, offset: u64) -> Stored {
        let Values { amount, quantity, small, note, at, maybe, tags } = values();
        Stored {
            event_id: id(seq),
            key: "k".to_owned(),
            seq,
            amount,
            quantity,
            small,
            note,
            at,
            maybe,
            tags,
            partition: 0,
            offset,
        }
    }

    fn letter(seq: i64, source: Option<i64>) -> Letter {
        Letter { id: id(seq), reason: "why".to_owned(), source: source.map(place) }
    }

    /// One of each fate, all where they belong.
    fn clean() -> (HashMap<Uuid, Entry>, Vec<Record>, Vec<Letter>, Vec<Stored>) {
        (
            HashMap::from([
                entry(1, Fate::Stored),
                entry(2, Fate::Poison),
                entry(3, Fate::Unpublishable),
                entry(4, Fate::Bulky),
                entry(5, Fate::Bulky),
            ]),
            vec![record(1, 0), record(2, 1), record(4, 3)],
            vec![letter(2, Some(1)), letter(3, None), letter(5, None)],
            vec![row(1, 0), row(4, 3)],
        )
    }

    /// Lost, doubled, out of order, bent, unexpected.
    fn numbers(
        (ledger, records, letters, rows): (
            HashMap<Uuid, Entry>,
            Vec<Record>,
            Vec<Letter>,
            Vec<Stored>,
        ),
    ) -> [u64; 5] {
        let rows = BTreeMap::from([("order", rows)]);
        let found = Found { ledger: &ledger, records: &records, letters: &letters, rows };
        let verdict = judge(&found);
        let Verdict { lost, duplicated, out_of_order, bent, unexpected, violations } = verdict;
        let numbers = [lost, duplicated, out_of_order, bent, unexpected];
        assert_eq!(violations.is_empty(), numbers == [0; 5]);
        numbers
    }

    #[test]
    fn what_is_where_it_belongs_is_no_violation() {
        assert_eq!(numbers(clean()), [0; 5]);
    }

    #[test]
    fn each_way_to_go_wrong_is_seen() {
        let mut case = clean();
        case.3.remove(0);
        assert_eq!(numbers(case), [1, 0, 0, 0, 0]);
        let mut case = clean();
        case.2.remove(0);
        assert_eq!(numbers(case), [1, 0, 0, 0, 0]);
        let mut case = clean();
        case.3.push(row(1, 0));
        assert_eq!(numbers(case), [0, 1, 0, 0, 0]);
        let mut case = clean();
        case.2.push(letter(3, None));
        assert_eq!(numbers(case), [0, 1, 0, 0, 0]);
        let mut case = clean();
        case.1[0].place.offset = 9;
        case.3[0].offset = 9;
        assert_eq!(numbers(case), [0, 0, 1, 0, 0]);
        let mut case = clean();
        case.3[0].amount = "1.50000000000001".to_owned();
        assert_eq!(numbers(case), [0, 0, 0, 1, 0]);
        let mut case = clean();
        case.3.push(row(2, 1));
        assert_eq!(numbers(case), [0, 0, 0, 0, 1]);
        let mut case = clean();
        case.1.push(record(9, 7));
        assert_eq!(numbers(case), [0, 0, 0, 0, 1]);
        let mut case = clean();
        case.2[0].source = Some(place(8));
        assert_eq!(numbers(case), [0, 0, 0, 0, 1]);
    }
}
