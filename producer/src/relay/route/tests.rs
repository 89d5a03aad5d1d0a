//! Debezium's own cases and ours, as rows and the records that they become.

use bytes::Bytes;
use outpour_schemas::{
    Lsn, OutboxTable, Position, Record,
    config::{AdditionalFields, Compat, FieldMissing, JsonEmptyArray, JsonNull, Relay},
    example, wire,
};

use super::*;

/// A router, and the table it is used with: names, types, and no more.
struct Case {
    router: Router,
    table: Vec<(&'static str, u32)>,
}

const UUID: u32 = 2950;
const JSONB: u32 = 3802;

/// The table that `outpour-relay init` creates.
fn table() -> Vec<(&'static str, u32)> {
    vec![
        ("id", UUID),
        ("aggregatetype", oid::TEXT),
        ("aggregateid", oid::TEXT),
        ("type", oid::TEXT),
        ("payload", JSONB),
        ("occurred_at", oid::TIMESTAMPTZ),
        ("schema_version", oid::INT4),
        ("traceparent", oid::TEXT),
    ]
}

fn fields(text: &str) -> Option<AdditionalFields> {
    Some(AdditionalFields::parse(text.split(',')).unwrap())
}

fn case(change: impl FnOnce(&mut Relay)) -> Case {
    case_of(&OutboxTable::default(), change)
}

fn case_of(outbox: &OutboxTable, change: impl FnOnce(&mut Relay)) -> Case {
    let mut relay = Relay::default();
    change(&mut relay);
    Case { router: Router::new(outbox, &relay).unwrap(), table: table() }
}

/// Debezium's defaults, and what is changed of them.
fn debezium(change: impl FnOnce(&mut Relay)) -> Case {
    case(|relay| {
        relay.compat = Compat::Debezium;
        change(relay);
    })
}

impl Case {
    /// With more columns, or other types of those there are.
    fn with(mut self, columns: &[(&'static str, u32)]) -> Self {
        self.table.retain(|(name, _)| columns.iter().all(|(changed, _)| changed != name));
        self.table.extend(columns);
        self
    }

    /// A row with what is given, and something usual for the rest.
    fn row(&self, given: &[(&str, Option<&str>)]) -> OutboxRow {
        let usual = |name: &str| match name {
            "id" => Some("e1"),
            "aggregatetype" => Some("order"),
            "aggregateid" => Some("k"),
            "type" => Some("placed"),
            "payload" => Some("{}"),
            _ => None,
        };
        let value = |wanted: &Wanted| {
            let (name, type_oid) = *self.table.iter().find(|(name, _)| *name == wanted.column)?;
            let given = given.iter().find(|(given, _)| *given == name);
            let text = given.map_or_else(|| usual(name), |(_, text)| *text);
            Some(Value { type_oid, text: text.map(|text| Bytes::copy_from_slice(text.as_bytes())) })
        };
        OutboxRow {
            position: Position { commit_lsn: Lsn(1), ordinal: 0 },
            committed_at_us: 5_000_999,
            values: self.router.wanted().iter().map(value).collect(),
            unreadable: None,
        }
    }

    fn routed(&self, given: &[(&str, Option<&str>)]) -> Routed {
        self.router.route(&self.row(given))
    }

    fn record(&self, given: &[(&str, Option<&str>)]) -> Record {
        match self.routed(given) {
            Routed::Publish(record) => record,
            other => panic!("{other:?}"),
        }
    }

    fn value(&self, given: &[(&str, Option<&str>)]) -> Option<String> {
        self.record(given).value.map(|value| String::from_utf8(value).unwrap())
    }

    fn parked(&self, given: &[(&str, Option<&str>)]) -> (Record, Unroutable) {
        match self.routed(given) {
            Routed::Park(record, reason) => (record, reason),
            other => panic!("{other:?}"),
        }
    }
}

fn header<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    let (_, value) = record.headers.iter().find(|(header, _)| header == name)?;
    Some(std::str::from_utf8(value.as_deref()?).unwrap())
}

fn header_names(record: &Record) -> Vec<&str> {
    record.headers.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn every_golden_row_becomes_its_golden_record() {
    let case = case(|_| {});
    for example in example::all().unwrap() {
        let given: Vec<_> =
            example.outbox.iter().map(|(name, text)| (name.as_str(), text.as_deref())).collect();
        let row = OutboxRow {
            position: Position { commit_lsn: example.commit_lsn, ordinal: example.ordinal },
            committed_at_us: example.committed_at_us,
            ..case.row(&given)
        };
        let expected = Routed::Publish(example.record());
        assert_eq!(case.router.route(&row), expected, "{}", example.says);
    }
}

#[test]
fn in_debeziums_mode_the_only_header_is_the_id() {
    let record = debezium(|_| {}).record(&[("occurred_at", Some("2026-01-02 03:04:05+00"))]);
    assert_eq!(record.headers, [("id".to_owned(), Some(b"e1".to_vec()))]);
    assert_eq!((record.topic.as_str(), record.timestamp_ms), ("outbox.event.order", 5000));
}

#[test]
fn configured_fields_win_over_the_defaults_of_either_mode() {
    let type_only = fields("type:header");
    let record = debezium(|relay| relay.additional_fields = type_only.clone()).record(&[]);
    assert_eq!(header_names(&record), ["id", "type"]);
    let record = case(|relay| relay.additional_fields = type_only).record(&[]);
    assert_eq!(header_names(&record), ["id", "type", "outpour-lsn"]);
    let none = Some(AdditionalFields::default());
    let record = case(|relay| relay.additional_fields = none).record(&[]);
    assert_eq!(header_names(&record), ["id", "outpour-lsn"]);
}

#[test]
fn a_table_without_the_optional_columns_has_fewer_headers() {
    let mut case = case(|_| {});
    case.table.retain(|(name, _)| !matches!(*name, "occurred_at" | "traceparent"));
    let record = case.record(&[("schema_version", Some("1"))]);
    assert_eq!(header_names(&record), ["id", "eventType", "schemaVersion", "outpour-lsn"]);
}

#[test]
fn the_topic_is_made_of_the_column_that_is_configured() {
    let case = case(|relay| relay.route_by_field = Some("type".into()));
    assert_eq!(case.record(&[]).topic, "outbox.event.placed");
    let (_, reason) = case.parked(&[("type", None)]);
    assert_eq!(reason, Unroutable::NoTopic { column: "type".into() });
    assert_eq!(case.router.wanted()[ROUTE].key, "relay.route_by_field");
}

#[test]
fn every_column_can_have_another_name() {
    let outbox = OutboxTable {
        column_id: "event_id".into(),
        column_aggregate_type: "root_type".into(),
        column_aggregate_id: "root_id".into(),
        column_payload: "body".into(),
        column_type: "kind".into(),
        ..OutboxTable::default()
    };
    let columns =
        ["event_id", "root_type", "root_id", "body", "kind"].map(|name| (name, oid::TEXT));
    let record = case_of(&outbox, |_| {}).with(&columns).record(&[
        ("event_id", Some("1")),
        ("root_type", Some("user")),
        ("root_id", Some("2")),
        ("body", Some("b")),
        ("kind", Some("created")),
    ]);
    assert_eq!((record.topic.as_str(), header(&record, "id")), ("outbox.event.user", Some("1")));
    assert_eq!((record.key, record.value.clone()), (Some(b"2".to_vec()), Some(b"b".to_vec())));
    assert_eq!(record.headers[1], ("eventType".to_owned(), Some(b"created".to_vec())));
}

#[test]
fn a_column_that_is_named_must_be_there_unless_told_otherwise() {
    let required = |change: fn(&mut Relay)| {
        let case = case(change);
        let wanted = case.router.wanted().iter().find(|wanted| wanted.column == "extra");
        wanted.unwrap().required
    };
    assert!(required(|relay| relay.route_by_field = Some("extra".into())));
    assert!(required(|relay| relay.timestamp_column = Some("extra".into())));
    assert!(required(|relay| relay.additional_fields = fields("extra:header")));
    assert!(!required(|relay| {
        relay.additional_fields = fields("extra:header");
        relay.additional_field_missing = FieldMissing::Ignore;
    }));
    let record = debezium(|relay| {
        relay.additional_fields = fields("extra:header,extra:envelope,type:header");
        relay.additional_field_missing = FieldMissing::Ignore;
    })
    .record(&[]);
    assert_eq!(header_names(&record), ["id", "type"]);
    assert_eq!(record.value.unwrap(), b"{\"payload\":\"{}\"}");
}

#[test]
fn a_key_is_text_a_number_bytes_or_null() {
    let key = |type_oid, text| {
        case(|_| {}).with(&[("aggregateid", type_oid)]).record(&[("aggregateid", text)]).key
    };
    assert_eq!(key(oid::TEXT, Some("a b")), Some(b"a b".to_vec()));
    assert_eq!(key(oid::INT4, Some("42")), Some(b"42".to_vec()));
    assert_eq!(key(oid::BYTEA, Some("\\x0aff")), Some(b"\x0a\xff".to_vec()));
    assert_eq!(key(oid::TEXT, Some("")), Some(Vec::new()));
    assert_eq!(key(oid::TEXT, None), None);
}

#[test]
fn a_binary_payload_is_its_bytes_and_never_blank() {
    let tombstones = case(|relay| relay.tombstone_on_empty_payload = true);
    let case = tombstones.with(&[("payload", oid::BYTEA)]);
    assert_eq!(case.record(&[("payload", Some("\\x0001"))]).value, Some(vec![0, 1]));
    assert_eq!(case.record(&[("payload", Some("\\x"))]).value, Some(Vec::new()));
    assert_eq!(case.record(&[("payload", None)]).value, None);
}

#[test]
fn a_column_picks_the_partition_and_null_leaves_it_to_the_key() {
    let case = debezium(|relay| relay.additional_fields = fields("shard:partition"))
        .with(&[("shard", oid::INT4)]);
    assert_eq!(case.record(&[("shard", Some("3"))]).partition, Some(3));
    assert_eq!(case.record(&[("shard", None)]).partition, None);
    for wrong in ["-1", "2147483648"] {
        let (letter, reason) = case.parked(&[("shard", Some(wrong))]);
        assert_eq!(reason.reason(), "invalid_partition");
        assert_eq!(
            (letter.partition, letter.topic.as_str()),
            (None, wire::RELAY_DEAD_LETTER_TOPIC)
        );
        assert!(reason.to_string().contains(wrong), "{reason}");
    }
}

#[test]
fn a_partition_that_the_topic_does_not_have_is_parked() {
    let case = debezium(|relay| relay.additional_fields = fields("shard:partition"))
        .with(&[("shard", oid::INT4)]);
    let record = case.record(&[("shard", Some("99"))]);
    let (letter, reason) = case.router.park_without_partition(record, 99);
    assert_eq!(
        reason.to_string(),
        "column `shard` holds 99, which is no partition of topic `outbox.event.order`"
    );
    assert_eq!((letter.partition, header(&letter, "outpour-source-partition")), (None, Some("99")));
}

#[test]
fn the_timestamp_is_the_commit_or_a_column() {
    assert_eq!(case(|_| {}).record(&[]).timestamp_ms, 5000);
    let of = |type_oid, text| {
        case(|relay| relay.timestamp_column = Some("at".into()))
            .with(&[("at", type_oid)])
            .routed(&[("at", text)])
    };
    let ms = |routed| match routed {
        Routed::Publish(record) => record.timestamp_ms,
        other => panic!("{other:?}"),
    };
    assert_eq!(ms(of(oid::TIMESTAMPTZ, Some("1970-01-01 01:00:01.2345+01"))), 1234);
    assert_eq!(ms(of(oid::TIMESTAMP, Some("1970-01-01 00:00:01.5"))), 1500);
    assert_eq!(ms(of(oid::INT8, Some("1553460779000"))), 1_553_460_779_000);
    assert_eq!(ms(of(oid::TIMESTAMPTZ, None)), 5000);
    let Routed::Park(_, reason) = of(oid::TIMESTAMPTZ, Some("infinity")) else { panic!() };
    assert_eq!(
        reason.to_string(),
        "column `at` holds `infinity`, which is no timestamp from 1970 on"
    );
}

#[test]
fn the_version_of_the_schema_is_a_header_in_outpours_mode_only() {
    let given: &[(&str, Option<&str>)] = &[("schema_version", Some("7"))];
    assert_eq!(header(&case(|_| {}).record(given), "schemaVersion"), Some("7"));
    assert_eq!(header(&case(|_| {}).record(&[]), "schemaVersion"), None);
    assert_eq!(header(&debezium(|_| {}).record(given), "schemaVersion"), None);
}

#[test]
fn headers_follow_the_configured_order_and_null_is_a_null_value() {
    let case = debezium(|relay| {
        relay.additional_fields =
            fields("deleted:header:isDeleted, type:header:eventType,n:header");
    })
    .with(&[("deleted", oid::BOOL), ("n", oid::INT4)]);
    let record = case.record(&[("deleted", Some("t")), ("n", Some("42")), ("type", None)]);
    let expected = [
        ("id".to_owned(), Some(b"e1".to_vec())),
        ("isDeleted".to_owned(), Some(b"true".to_vec())),
        ("eventType".to_owned(), None),
        ("n".to_owned(), Some(b"42".to_vec())),
    ];
    assert_eq!(record.headers, expected);
}

#[test]
fn an_envelope_has_the_payload_first_and_then_the_fields_in_order() {
    let case = debezium(|relay| {
        relay.additional_fields = fields("type:envelope,deleted:envelope:isDeleted,n:envelope");
    })
    .with(&[("deleted", oid::BOOL), ("n", oid::INT8)]);
    let given: &[(&str, Option<&str>)] =
        &[("deleted", Some("f")), ("n", Some("7")), ("payload", Some(r#"{"a": "b"}"#))];
    assert_eq!(
        case.value(given).unwrap(),
        r#"{"payload":"{\"a\": \"b\"}","type":"placed","isDeleted":false,"n":7}"#
    );
    assert_eq!(
        case.value(&[("payload", None)]).unwrap(),
        r#"{"payload":null,"type":"placed","isDeleted":null,"n":null}"#
    );
}

#[test]
fn a_column_can_be_header_and_value_at_once() {
    let case = debezium(|relay| {
        relay.additional_fields = fields("type:header:eventType,type:envelope:eventType");
    });
    let record = case.record(&[]);
    assert_eq!(header(&record, "eventType"), Some("placed"));
    assert_eq!(record.value.unwrap(), br#"{"payload":"{}","eventType":"placed"}"#);
}

#[test]
fn a_null_or_blank_payload_is_a_tombstone_only_where_asked_for() {
    let plain = case(|_| {});
    assert_eq!(plain.value(&[("payload", Some(" "))]).as_deref(), Some(" "));
    assert_eq!(plain.value(&[("payload", None)]), None);
    let tombstones = case(|relay| {
        relay.tombstone_on_empty_payload = true;
        relay.additional_fields = fields("type:header,type:envelope");
    });
    for payload in [None, Some(""), Some(" \n\t")] {
        let record = tombstones.record(&[("payload", payload)]);
        assert_eq!(record.value, None, "the envelope goes with the payload");
        assert_eq!(
            (record.key.as_deref(), header(&record, "type")),
            (Some(&b"k"[..]), Some("placed"))
        );
    }
    let null = tombstones.value(&[("payload", Some("null"))]).unwrap();
    assert_eq!(null, r#"{"payload":"null","type":"placed"}"#);
}

#[test]
fn a_payload_is_expanded_alone_and_in_its_envelope() {
    let payload: &[(&str, Option<&str>)] =
        &[("payload", Some(r#"{"a": [1, 2.50], "b": null, "c": []}"#))];
    let case = debezium(|relay| relay.expand_json_payload = true);
    assert_eq!(case.value(payload).unwrap(), r#"{"a":[1,2.50]}"#);
    let case = debezium(|relay| {
        relay.expand_json_payload = true;
        relay.json_payload_null_behavior = JsonNull::OptionalBytes;
        relay.json_payload_empty_array_behavior = JsonEmptyArray::OptionalString;
        relay.additional_fields = fields("type:envelope:eventType");
    });
    assert_eq!(
        case.value(payload).unwrap(),
        r#"{"payload":{"a":[1,2.50],"b":null,"c":[]},"eventType":"placed"}"#
    );
}

#[test]
fn a_payload_that_cannot_be_expanded_is_published_as_it_is_and_told() {
    let case = debezium(|relay| relay.expand_json_payload = true);
    let Routed::PublishUnexpanded(record, reason) = case.routed(&[("payload", Some(" {}"))]) else {
        panic!("expanded");
    };
    assert_eq!((record.value, reason), (Some(b" {}".to_vec()), NotExpanded::NoStructure));
    // A payload that is not there is nothing to tell about.
    assert_eq!(case.value(&[("payload", None)]), None);
    assert_eq!(case.value(&[("payload", Some(""))]).as_deref(), Some(""));
}

#[test]
fn a_topic_that_kafka_refuses_is_parked_with_the_reason() {
    let (record, reason) = case(|_| {}).parked(&[("aggregatetype", Some("Bücher"))]);
    assert_eq!(record.topic, wire::RELAY_DEAD_LETTER_TOPIC);
    assert_eq!(reason.reason(), "invalid_topic");
    assert!(header(&record, "outpour-error").unwrap().contains("'ü'"));
    assert_eq!(header(&record, "id"), Some("e1"));
    assert_eq!(record.value, Some(b"{}".to_vec()));
}

#[test]
fn a_record_too_large_is_parked_with_its_beginning_and_fits() {
    let payload = format!("\"{}\"", "x".repeat(5000));
    let case = case(|relay| relay.max_record_size = bytesize::ByteSize(2000));
    let (record, reason) = case.parked(&[("payload", Some(&payload))]);
    assert_eq!(reason.reason(), "record_too_large");
    assert!(record.wire_size() <= 2000);
    assert_eq!(header(&record, "outpour-source-topic"), Some("outbox.event.order"));
    assert_eq!(header(&record, "outpour-original-size"), Some("5002"));
    assert!(payload.as_bytes().starts_with(&record.value.unwrap()));
}
