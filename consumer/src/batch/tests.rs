use outpour_schemas::config::Route;
use smallvec::smallvec;

use super::*;
use crate::source::Headers;
use crate::table::{DescribedColumn, TableName, TableSchema};

fn mapping() -> Arc<Mapping> {
    let column = |name: &str, type_name: &str| DescribedColumn {
        name: name.into(),
        type_name: type_name.into(),
        default_kind: String::new(),
    };
    let described = [column("n", "UInt8"), column("_offset", "UInt64")];
    let name = TableName::parse("t", "db");
    let schema = TableSchema::of(name, &described).unwrap();
    let route = Route { topic: "topic".into(), table: "t".into(), ..Route::default() };
    Arc::new(Mapping::new(0, &route, &schema).unwrap())
}

fn batch(limits: Limits) -> Batch {
    Batch::new(&[mapping()], "test".into(), limits, 10)
}

fn limits(rows: usize, bytes: usize, delay_ms: u64) -> Limits {
    Limits { rows, bytes, delay: Duration::from_millis(delay_ms) }
}

fn record(offset: i64, value: &str) -> RecordView<'_> {
    RecordView {
        topic: "topic",
        partition: 0,
        offset,
        timestamp_ms: Some(0),
        key: None,
        value: Some(value.as_bytes()),
        headers: Headers::new(),
    }
}

#[test]
fn rows_bytes_and_time_each_close_a_batch() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let mut by_rows = batch(limits(2, 1 << 20, 1000));
    by_rows.push(&record(10, r#"{"n":1}"#), now);
    assert!(!by_rows.has_reached_its_size());
    assert!(!by_rows.is_due(now, now) && by_rows.is_due(later, later), "by time");
    by_rows.push(&record(11, r#"{"n":1}"#), now);
    assert!(by_rows.has_reached_its_size(), "by rows");

    let mut by_bytes = batch(limits(1000, 9, 1000));
    by_bytes.push(&record(10, r#"{"n":1}"#), now);
    assert!(by_bytes.has_reached_its_size(), "by bytes: {}", by_bytes.byte_size());
}

#[test]
fn an_empty_batch_never_becomes_due() {
    let batch = batch(limits(1, 1, 0));
    let later = Instant::now() + Duration::from_secs(3600);
    assert!(!batch.is_due(later, later));
}

#[test]
fn a_batch_of_a_backlog_takes_its_time_but_not_for_ever() {
    let before = Instant::now();
    let opened = before + Duration::from_millis(1);
    let after = |ms| opened + Duration::from_millis(ms);
    let mut batch = batch(limits(100, 1 << 20, 1000));
    batch.push(&record(10, r#"{"n":1}"#), opened);
    assert!(!batch.is_due(after(9_999), before));
    assert!(batch.is_due(after(10_000), before));
    assert!(batch.is_due(after(1000), after(500)), "nothing more was at hand");
}

#[test]
fn the_next_batch_starts_where_the_last_one_ended() {
    let now = Instant::now();
    let mut batch = batch(limits(2, 1 << 20, 1000));
    batch.push(&record(12, r#"{"n":1}"#), now);
    batch.push(&record(15, r#"{"n":2}"#), now);
    let first = batch.seal();
    assert_eq!((first.start, first.end, first.rows()), (10, 16, 2));
    assert!(batch.is_empty());
    batch.push(&record(20, r#"{"n":1}"#), now);
    assert_eq!(batch.seal().start, 16);
}

#[test]
fn what_does_not_fit_is_parked_whole_and_the_rest_goes_on() {
    let now = Instant::now();
    let mut batch = batch(limits(10, 1 << 20, 1000));
    for (offset, value) in [(10, r#"{"n":255}"#), (11, r#"{"n":300}"#), (12, "{}"), (13, "[")] {
        batch.push(&record(offset, value), now);
    }
    let sealed = batch.seal();
    assert_eq!((sealed.rows(), sealed.records), (1, 4));
    let reasons: Vec<_> = sealed
        .parked
        .iter()
        .map(|letter| (letter.offset, letter.rejection.reason, letter.rejection.column.as_str()))
        .collect();
    let expected = [(11, "out_of_range", "n"), (12, "missing", "n"), (13, "malformed", "")];
    assert_eq!(reasons, expected);
    assert_eq!(sealed.parked[0].value.as_deref(), Some(br#"{"n":300}"#.as_slice()));
    assert_eq!(sealed.parked[0].rejection.expected, "UInt8");
    assert_eq!(sealed.parked[0].rejection.value, "300");
}

#[test]
fn a_batch_ends_before_its_plan_is_too_long_to_name_what_is_rejected() {
    let now = Instant::now();
    let mut batch = batch(limits(1_000_000, 1 << 30, 1000));
    let mut pushed = 0;
    while !batch.has_reached_its_size() {
        // Every other one does not fit.
        let value = if pushed % 2 == 0 { r#"{"n":1}"# } else { r#"{"n":300}"# };
        batch.push(&record(10 + pushed, value), now);
        pushed += 1;
        assert!(pushed < 10_000, "{}", batch.rejected.text_size());
    }
    assert!(pushed > 1000, "{pushed}");
}

#[test]
fn what_an_open_plan_has_parked_is_neither_parked_again_nor_stored() {
    let now = Instant::now();
    let values = [r#"{"n":1}"#, r#"{"n":300}"#, r#"{"n":2}"#];
    let fill = |mut batch: Batch| {
        for (offset, value) in (10..).zip(values) {
            batch.push(&record(offset, value), now);
        }
        batch.seal()
    };
    let first = fill(batch(limits(10, 1 << 20, 1000)));
    assert_eq!((first.rows(), first.parked.len()), (2, 1));
    let again = batch(limits(10, 1 << 20, 1000)).pinned(13, first.rejected.clone());
    let again = fill(again);
    assert_eq!((again.rows(), again.parked.len()), (2, 0));
    assert_eq!((&again.content, &again.rejected), (&first.content, &first.rejected));

    // It would fit the table by now.
    let mut settled = Rejected::default();
    settled.add(mapping().id(), 12);
    let other = fill(batch(limits(10, 1 << 20, 1000)).pinned(13, settled));
    assert_eq!((other.rows(), other.parked.len()), (1, 1));
    assert_eq!(other.rejected.iter().count(), 2);
}

#[test]
fn the_same_records_have_the_same_content_and_others_another() {
    let now = Instant::now();
    let content = |values: &[&str]| {
        let mut batch = batch(limits(10, 1 << 20, 1000));
        for (offset, value) in (10..).zip(values) {
            batch.push(&record(offset, value), now);
        }
        batch.seal().content
    };
    let base = content(&[r#"{"n":1}"#, r#"{"n":2}"#]);
    assert_eq!(base, content(&[r#"{"n":1}"#, r#"{ "n": 2 }"#]));
    assert_ne!(base, content(&[r#"{"n":1}"#, r#"{"n":3}"#]));
    assert_ne!(base, content(&[r#"{"n":1}"#, r#"{"n":300}"#]));
    assert_ne!(base, content(&[r#"{"n":1}"#]));
}

#[test]
fn a_batch_has_the_trace_of_its_first_stored_record_that_has_one() {
    let now = Instant::now();
    let parent = |digit: &str| format!("00-{}-{}-01", digit.repeat(32), "7".repeat(16));
    let traces = ["", "no trace", &parent("a"), &parent("b"), &parent("c")];
    let mut batch = batch(limits(10, 1 << 20, 1000));
    let mut seal = |records: &[(i64, &str)]| {
        for (offset, value) in records {
            let traceparent = traces[usize::try_from(*offset).unwrap() % 10].as_bytes();
            let headers = smallvec![("traceparent", Some(traceparent))];
            batch.push(&RecordView { headers, ..record(*offset, value) }, now);
        }
        batch.seal().trace
    };
    let (fits, does_not) = (r#"{"n":1}"#, r#"{"n":300}"#);
    // No header, none that is one, the first one that is, another.
    let first = seal(&[(10, fits), (11, fits), (12, fits), (13, fits)]);
    assert_eq!(first, TraceContext::parse(parent("a").as_bytes()));
    // Whatever is parked is in no insert.
    let second = seal(&[(23, does_not), (24, fits)]);
    assert_eq!(second, TraceContext::parse(parent("c").as_bytes()));
    assert_eq!(seal(&[(30, fits)]), None, "the next batch begins anew");
}

#[test]
fn a_pinned_batch_ends_where_its_plan_did_whatever_the_limits_say() {
    let now = Instant::now();
    let mut batch = batch(limits(1, 1, 0)).pinned(13, Rejected::default());
    batch.push(&record(10, r#"{"n":1}"#), now);
    assert!(!batch.has_reached_its_size() && !batch.is_due(now, now));
    assert!(!batch.is_past(12));
    batch.push(&record(12, r#"{"n":1}"#), now);
    assert!(batch.has_reached_its_size());
    assert!(batch.is_past(13));
    assert_eq!(batch.seal().end, 13);
    assert!(!batch.is_past(13), "the pin holds for one batch");
}
