//! A record's value → a row of a table that has a column of every kind: it is
//! stored or parked, whatever it is.
#![no_main]

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, Instant},
};

use libfuzzer_sys::fuzz_target;
use outpour_consumer::{
    batch::{Batch, Limits},
    decode::Mapping,
    source::{Headers, RecordView},
};
use outpour_fuzz::table;
use outpour_schemas::config::Route;

thread_local! {
    static MAPPING: RefCell<Arc<Mapping>> = RefCell::new(Arc::new(mapping()));
}

fn mapping() -> Mapping {
    let route = serde_json::json!({
        "topic": "t",
        "table": "t",
        "columns": { "c0": "a.b", "c1": "a.c.d", "c13": "$payload", "c15": "$id" },
    });
    let route: Route = serde_json::from_value(route).expect("a route");
    Mapping::new(0, &route, &table()).expect("it fits the table")
}

fuzz_target!(|value: &[u8]| {
    let mapping = MAPPING.with_borrow(Arc::clone);
    let limits = Limits { rows: 10, bytes: 1 << 20, delay: Duration::from_secs(1) };
    let mut batch = Batch::new(&[mapping], "fuzz".into(), limits, 0);
    let record = RecordView {
        topic: "t",
        partition: 0,
        offset: 0,
        timestamp_ms: Some(0),
        key: None,
        value: Some(value),
        headers: Headers::new(),
    };
    batch.push(&record, Instant::now());
    let sealed = batch.seal();
    assert_eq!(sealed.rows() + sealed.parked.len(), 1, "I4: a row or a letter");
    assert_eq!(sealed.rejected.iter().count(), sealed.parked.len());
    for letter in &sealed.parked {
        assert_eq!(letter.value.as_deref(), Some(value), "a letter is whole");
    }
});
