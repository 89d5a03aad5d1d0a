//! Whole records into rows: routes, forms and unknown fields together.

use outpour_schemas::config::{PayloadFormat, Route, UnknownFields};
use proptest::prelude::*;

use super::*;
use crate::{
    block::Block,
    source::RecordView,
    table::{DescribedColumn, TableName, TableSchema},
};

/// A route into a table of these columns, each `name type` or `name type = source`.
fn try_mapping(columns: &[&str], adjust: impl FnOnce(&mut Route)) -> Result<Mapping, MappingError> {
    let mut route = Route { columns: [].into(), ..default_route() };
    let mut described = Vec::new();
    for column in columns {
        let (declared, source) = match column.split_once(" = ") {
            Some((declared, source)) => (declared, Some(source)),
            None => (*column, None),
        };
        let (name, type_name) = declared.split_once(' ').unwrap();
        if let Some(source) = source {
            route.columns.insert(name.to_owned(), source.to_owned());
        }
        described.push(DescribedColumn {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            default_kind: String::new(),
        });
    }
    adjust(&mut route);
    let schema = TableSchema::of(TableName::parse("t", "db"), &described).unwrap();
    Mapping::new(0, &route, &schema)
}

fn mapping(columns: &[&str]) -> Mapping {
    try_mapping(columns, |_| {}).unwrap()
}

fn with(columns: &[&str], adjust: impl FnOnce(&mut Route)) -> Mapping {
    try_mapping(columns, adjust).unwrap()
}

type Header<'a> = (&'a str, Option<&'a [u8]>);

/// The data of a block of this one row, or the rejection.
fn row(
    mapping: &Mapping,
    value: Option<&[u8]>,
    headers: &[Header<'_>],
) -> Result<Vec<u8>, Box<Rejection>> {
    let record = RecordView {
        topic: "outbox.event.order",
        partition: 3,
        offset: 42,
        timestamp_ms: Some(1000),
        key: Some(
            headers.iter().find(|(name, _)| *name == "key").and_then(|h| h.1).unwrap_or(b"key"),
        ),
        value,
        headers: headers.into(),
    };
    let mut block = Block::new(Arc::clone(&mapping.columns));
    let pushed = mapping.push(&record, "test", &mut block);
    assert_eq!(block.rows(), usize::from(pushed.is_ok()), "all or nothing");
    pushed?;
    Ok(block.take().concat())
}

/// The one `String` of a table that has no other column.
fn string(
    mapping: &Mapping,
    value: &[u8],
    headers: &[Header<'_>],
) -> Result<String, Box<Rejection>> {
    let bytes = row(mapping, Some(value), headers)?;
    let mut header = vec![1, 1, mapping.columns[0].name().len() as u8];
    header.extend_from_slice(mapping.columns[0].name().as_bytes());
    header.extend_from_slice(b"\x06String");
    let text = bytes.strip_prefix(header.as_slice()).expect("a String");
    assert!(text[0] < 0x80, "too long for this test");
    assert_eq!(usize::from(text[0]), text.len() - 1);
    Ok(String::from_utf8_lossy(&text[1..]).into_owned())
}

const OBJECT: &str = r#"{"a": "x", "b":1.50}"#;

#[test]
fn payload_and_fields_come_out_of_every_form() {
    let escaped = serde_json::to_string(OBJECT).unwrap();
    let framed = format!("\0\0\0\u{1}\u{2}{OBJECT}");
    let connect = format!(r#"{{"schema":{{"type":"string"}},"payload":{escaped}}}"#);
    for (format, value) in [
        (None, OBJECT),
        (None, &escaped),
        (None, &framed),
        (Some(PayloadFormat::Json), OBJECT),
        (Some(PayloadFormat::Escaped), &escaped),
        (Some(PayloadFormat::Confluent), &framed),
        (Some(PayloadFormat::Connect), &connect),
    ] {
        let of = |column| with(&[column], |route| route.payload_format = format);
        let found = |column| string(&of(column), value.as_bytes(), &[]).unwrap();
        assert_eq!(found("a String"), "x", "{format:?}");
        assert_eq!(found("b String"), "1.50");
        assert_eq!(found("p String = $payload"), OBJECT);
    }
}

#[test]
fn an_envelope_is_not_guessed() {
    let connect = r#"{"schema":null,"payload":{"a":"inner"}}"#;
    let guessing = mapping(&["payload String"]);
    assert_eq!(string(&guessing, connect.as_bytes(), &[]).unwrap(), r#"{"a":"inner"}"#);
    let whole = mapping(&["p String = $payload"]);
    assert_eq!(string(&whole, connect.as_bytes(), &[]).unwrap(), connect);
}

#[test]
fn what_is_not_in_its_form_is_rejected_with_the_key_and_the_value() {
    let mapping =
        with(&["p String = $payload"], |route| route.payload_format = Some(PayloadFormat::Escaped));
    let rejection = string(&mapping, OBJECT.as_bytes(), &[]).unwrap_err();
    assert_eq!(rejection.reason, "wrong_payload_format");
    assert!(rejection.error.starts_with("payload_format = \"escaped\""), "{}", rejection.error);
    assert_eq!(rejection.value, OBJECT);
    // Where nothing of the payload is asked for, its form does not matter.
    let mapping =
        with(&["k String = $key"], |route| route.payload_format = Some(PayloadFormat::Escaped));
    assert_eq!(string(&mapping, OBJECT.as_bytes(), &[]).unwrap(), "key");
}

#[test]
fn a_payload_that_is_no_json_says_what_it_may_be() {
    let mapping = mapping(&["a String"]);
    for (value, reason, said) in [
        (&b"\0\0\0\0\x01\x02ab"[..], "malformed", "schema registry"),
        (b"\xff\xfe{\0", "invalid_utf8", "UTF-16"),
        (b"{\"a\":\"\xff\"}", "invalid_utf8", "not UTF-8"),
        (b"[]", "malformed", "no JSON object"),
        (b"null", "malformed", "no JSON object"),
        (b"", "malformed", "no JSON object"),
    ] {
        let rejection = string(&mapping, value, &[]).unwrap_err();
        assert_eq!(rejection.reason, reason);
        assert!(rejection.error.contains(said), "{}", rejection.error);
    }
}

#[test]
fn a_record_without_payload_has_no_fields() {
    let null = r#"{"schema":{},"payload":null}"#;
    let none = |columns: &[&str]| {
        let mapping = with(columns, |route| route.payload_format = Some(PayloadFormat::Connect));
        let tombstone = row(&mapping, None, &[]);
        assert_eq!(tombstone, row(&mapping, Some(null.as_bytes()), &[]));
        tombstone.map_err(|rejection| rejection.reason)
    };
    assert_eq!(none(&["a Nullable(String)"]), Err("no_payload"));
    assert!(none(&["p String = $payload"]).unwrap().ends_with(b"String\0"));
    assert!(none(&["p Nullable(String) = $payload"]).unwrap().ends_with(b"\x01\0"));
    let extra = with(&["extra String"], |route| {
        route.unknown_fields = UnknownFields::Collect("extra".into());
    });
    assert!(row(&extra, None, &[]).unwrap().ends_with(b"\x02{}"));
}

#[test]
fn a_named_column_and_one_of_that_name_both_take_the_field() {
    let mapping = mapping(&["order_id UInt8 = id", "id UInt8"]);
    assert!(row(&mapping, Some(br#"{"id":7}"#), &[]).unwrap().ends_with(b"\x02id\x05UInt8\x07"));
    let rejection = row(&mapping, Some(br#"{"x":7}"#), &[]).unwrap_err();
    assert_eq!((rejection.reason, rejection.column.as_str()), ("missing", "order_id"));
}

#[test]
fn a_column_with_a_dot_in_its_name_takes_that_field_or_that_path() {
    let own = mapping(&["a.b String"]);
    let found = |json: &str| string(&own, json.as_bytes(), &[]).map_err(|r| r.reason);
    assert_eq!(found(r#"{"a.b":"x"}"#).as_deref(), Ok("x"));
    assert_eq!(found(r#"{"a":{"b":"x"}}"#).as_deref(), Ok("x"));
    assert_eq!(found(r#"{"a":{"b":"x"},"a.b":"y"}"#).as_deref(), Ok("y"));
    assert_eq!(found(r#"{"a":5}"#), Err("missing"));
    let path = mapping(&["c String = a.b"]);
    assert!(string(&path, br#"{"a.b":"x"}"#, &[]).is_err());
    let escaped = mapping(&[r"c String = a\.b.c"]);
    assert_eq!(string(&escaped, br#"{"a.b":{"c":"x"},"a":{"b":1}}"#, &[]).unwrap(), "x");
}

#[test]
fn the_columns_of_a_nested_are_filled_from_objects_and_from_arrays() {
    let nested = mapping(&["n.x Array(UInt8)", "n.y Array(Nullable(String))"]);
    let of = |json: &str| row(&nested, Some(json.as_bytes()), &[]).map_err(|r| r.reason);
    let objects = of(r#"{"n":[{"x":1,"y":"a"},{"x":2}]}"#);
    assert!(objects.is_ok());
    assert_eq!(of(r#"{"n":{"x":[1,2],"y":["a",null]}}"#), objects);
    assert_eq!(of(r#"{"n.x":[1,2],"n.y":["a",null]}"#), objects);
    assert!(of(r#"{"n":[]}"#).is_ok());
    assert_eq!(of(r#"{"n":[{"y":"a"}]}"#), Err("null_not_allowed"));
    assert_eq!(of(r#"{"n":[{"x":300}]}"#), Err("out_of_range"));
    assert_eq!(of(r#"{"n":[1]}"#), Err("missing"));
}

#[test]
fn unknown_fields_are_ignored_rejected_or_collected() {
    let with = |unknown_fields| {
        with(&["extra String", "a UInt8", "c UInt8 = o.c"], |route| {
            route.unknown_fields = unknown_fields;
        })
    };
    let json = br#"{"a":1,"x":[1.50, "y"],"extra":"own","o":{"c":2,"d":null}}"#;
    assert!(row(&with(UnknownFields::Ignore), Some(json), &[]).is_ok());
    let rejection = row(&with(UnknownFields::Reject), Some(json), &[]).unwrap_err();
    assert_eq!(rejection.reason, "unknown_field");
    assert_eq!(rejection.error, "no column takes the field `x`");

    let collecting = with(UnknownFields::Collect("extra".into()));
    let bytes = row(&collecting, Some(json), &[]).unwrap();
    let expected = br#"{"x":[1.50, "y"],"extra":"own","o":{"d":null}}"#;
    assert!(bytes.windows(expected.len()).any(|part| part == expected));
    let bytes = row(&collecting, Some(br#"{"a":1,"o":{"c":2}}"#), &[]).unwrap();
    assert!(bytes.windows(11).any(|part| part == b"\x06String\x02{}\x01"));
}

#[test]
fn a_route_without_fields_rejects_unless_it_keeps_the_payload() {
    let reject = |route: &mut Route| route.unknown_fields = UnknownFields::Reject;
    let json = Some(&br#"{"a":1}"#[..]);
    let rejection = row(&with(&["k String = $key"], reject), json, &[]).unwrap_err();
    assert_eq!(rejection.reason, "unknown_field");
    assert!(row(&with(&["k String = $key"], reject), Some(b"{}"), &[]).is_ok());
    assert!(row(&with(&["k String = $key", "p String = $payload"], reject), json, &[]).is_ok());
    assert!(row(&mapping(&["k String = $key"]), Some(b"no JSON"), &[]).is_ok());
}

#[test]
fn only_columns_that_hold_any_object_collect() {
    let collect = |route: &mut Route| route.unknown_fields = UnknownFields::Collect("e".into());
    for kind in [
        "String",
        "Nullable(String)",
        "JSON",
        "JSON(max_dynamic_paths=8)",
        "Nullable(JSON)",
        "Map(String, String)",
        "Map(LowCardinality(String), Nullable(String))",
    ] {
        let mapping = with(&[&format!("e {kind}")], collect);
        assert!(row(&mapping, Some(br#"{"a":"x","b":{}}"#), &[]).is_ok(), "{kind}");
    }
    for kind in ["UInt8", "Array(String)", "Map(String, UInt8)", "FixedString(9)", "Tuple(String)"]
    {
        let error = try_mapping(&[&format!("e {kind}")], collect).unwrap_err().to_string();
        let expected = format!(
            "routes: column `e` of table db.t is {kind}; unknown_fields collects into \
             String, JSON or Map(String, String)"
        );
        assert_eq!(error, expected);
    }
    let error = try_mapping(&["a UInt8"], collect).unwrap_err();
    assert_eq!(error.to_string(), "routes: table db.t has no column `e` that an INSERT may name");
}

#[test]
fn key_and_headers_of_a_converter_are_read_as_json() {
    let id = br#"{"schema":{"type":"string"},"payload":"5"}"#;
    let headers: &[Header<'_>] = &[
        ("id", Some(id)),
        ("eventType", Some(b"\"placed\"")),
        ("key", Some(br#""k\u00e9y""#)),
        ("plain", Some(b"x\"")),
        ("number", Some(b"7")),
        ("none", Some(br#"{"schema":null,"payload":null}"#)),
    ];
    let found = |format, column: &str| {
        let mapping = with(&[column], |route| route.payload_format = Some(format));
        string(&mapping, b"{}", headers).map_err(|rejection| rejection.reason)
    };
    for format in [PayloadFormat::Escaped, PayloadFormat::Connect] {
        assert_eq!(found(format, "c String = $id").as_deref(), Ok("5"));
        assert_eq!(found(format, "c String = $type").as_deref(), Ok("placed"));
        assert_eq!(found(format, "c String = $key").as_deref(), Ok("kéy"));
        assert_eq!(found(format, "c String = $headers.plain").as_deref(), Ok("x\""));
        assert_eq!(found(format, "c String = $headers.number").as_deref(), Ok("7"));
        assert_eq!(found(format, "c String = $headers.none"), Err("missing"));
        let mapping = with(&["a UInt8"], |route| {
            route.payload_format = Some(format);
            route.event_types = vec!["placed".into()];
        });
        assert!(mapping.takes_type(Some(b"\"placed\"")) && mapping.takes_type(Some(b"placed")));
        assert!(!mapping.takes_type(Some(b"\"other\"")) && !mapping.takes_type(None));
    }
    assert_eq!(found(PayloadFormat::Auto, "c String = $key").as_deref(), Ok(r#""k\u00e9y""#));
    assert_eq!(found(PayloadFormat::Auto, "c String = $type").as_deref(), Ok("\"placed\""));
}

#[test]
fn a_time_in_a_header_is_floored_whoever_wrote_it() {
    let column = "c DateTime64(3, 'UTC') = $occurred_at";
    let of = |format, text: &[u8]| {
        let mapping = with(&[column], |route| route.payload_format = Some(format));
        row(&mapping, Some(b"{}"), &[("occurredAt", Some(text))]).unwrap()
    };
    let plain = of(PayloadFormat::Auto, b"2024-01-01T00:00:00.123456Z");
    assert!(plain.ends_with(&1_704_067_200_123i64.to_le_bytes()));
    assert_eq!(of(PayloadFormat::Connect, b"\"2024-01-01T00:00:00.123456Z\""), plain);
}

#[test]
fn a_time_in_a_header_keeps_its_nine_digits_and_a_leap_second_is_refused() {
    let text = |text: &str| {
        let headers = [("occurredAt", Some(text.as_bytes()))];
        row(&with(&["c DateTime64(9, 'UTC') = $occurred_at"], |_| {}), Some(b"{}"), &headers)
            .map(|row| i64::from_le_bytes(row[row.len() - 8..].try_into().unwrap()))
            .map_err(|rejection| rejection.reason)
    };
    const SECOND: i64 = 1_704_067_200;
    assert_eq!(text("2024-01-01T00:00:00.123456789Z"), Ok(SECOND * 1_000_000_000 + 123_456_789));
    assert_eq!(
        text("2024-01-01T02:00:00.000000001+02:00"),
        Ok(SECOND * 1_000_000_000 + 1),
        "with an offset"
    );
    assert_eq!(text("1969-12-31T23:59:59.999999999Z"), Ok(-1));
    assert_eq!(text("2024-01-01T00:00:00.1234567891Z"), Err("too_many_digits"));
    assert_eq!(text("2016-12-31T23:59:60Z"), Err("invalid_date"));
}

/// Any JSON, spaced and escaped as no serializer would.
fn json() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        4 => "[a-c.]{0,2}".prop_map(|text| format!("\"{text}\"")),
        1 => Just(r#""\ud83d\ude00é\u0000""#.to_owned()),
        1 => Just(r#""\ud800""#.to_owned()),
        1 => Just("\"2024-02-29T12:00:00Z\"".to_owned()),
    ];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,80})([.][0-9]{1,40})?([eE][-+]?[0-9]{1,4})?",
        text,
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let space = "[ \n]{0,1}";
        let name = r#"(a|b|c|n|x|a\.b|\\u0061)"#;
        prop_oneof![
            (space, prop::collection::vec(inner.clone(), 0..4)).prop_map(|(space, items)| format!(
                "[{space}{}]",
                items.join(&format!("{space},"))
            )),
            (space, prop::collection::vec((name, inner), 0..5)).prop_map(|(space, members)| {
                let members: Vec<_> = members
                    .iter()
                    .map(|(n, v)| format!("{space}\"{n}\"{space}:{space}{v}"))
                    .collect();
                format!("{{{}{space}}}", members.join(","))
            }),
        ]
    })
}

const TYPES: &[&str] = &[
    "UInt8",
    "Int256",
    "Float32",
    "BFloat16",
    "Bool",
    "Decimal(76, 20)",
    "String",
    "FixedString(2)",
    "UUID",
    "Date",
    "DateTime64(3, 'UTC')",
    "Time64(3)",
    "Enum8('a', 'b')",
    "IPv6",
    "JSON",
    "Nullable(String)",
    "LowCardinality(Nullable(String))",
    "Array(String)",
    "Array(Array(Nullable(Int64)))",
    "Map(String, String)",
    "Map(String, Array(Tuple(a String, b Nullable(Bool))))",
    "Tuple(a Nullable(String), b Nullable(Float64))",
    "Nested(a String, b Nullable(String))",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A row or a rejection of any payload, and nothing is left of what is rejected.
    #[test]
    fn nothing_panics(
        json in json(),
        types in prop::collection::vec(prop::sample::select(TYPES), 5),
        paths in prop::collection::vec("(a|b|c|n|x)([.](a|b|x)){0,2}", 5),
        unknown in 0..4,
    ) {
        let mut columns: Vec<_> = types
            .iter()
            .zip(&paths)
            .enumerate()
            .map(|(index, (kind, path))| format!("c{index} {kind} = {path}"))
            .collect();
        columns.push(format!("e {}", ["String", "Map(String, String)"][(unknown & 1) as usize]));
        let columns: Vec<_> = columns.iter().map(String::as_str).collect();
        let mapping = with(&columns, |route| {
            route.unknown_fields = match unknown {
                0 => UnknownFields::Ignore,
                1 => UnknownFields::Reject,
                _ => UnknownFields::Collect("e".to_owned()),
            };
        });
        let _row_or_rejection = row(&mapping, Some(json.as_bytes()), &[]);
    }

    /// What no column takes and what is taken make up the payload again.
    #[test]
    fn nothing_is_lost_that_is_collected(
        members in prop::collection::btree_map("[a-e]", -9..9, 0..5),
        inner in prop::collection::btree_map("[a-e]", -9..9, 0..5),
    ) {
        let mut payload = serde_json::json!(members);
        payload["o"] = serde_json::json!(inner);
        let collect = |route: &mut Route| route.unknown_fields = UnknownFields::Collect("rest".into());
        let mapping = with(
            &["rest String", "a Nullable(String)", "b Nullable(String)", "oc Nullable(String) = o.c"],
            collect,
        );
        let bytes = row(&mapping, Some(payload.to_string().as_bytes()), &[]).unwrap();
        let start = 2 + "\u{4}rest\u{6}String".len();
        let (length, rest) = bytes[start..].split_first().unwrap();
        let rest: serde_json::Value = serde_json::from_slice(&rest[..usize::from(*length)]).unwrap();
        let mut expected = payload.clone();
        let object = expected.as_object_mut().unwrap();
        object.remove("a");
        object.remove("b");
        let o = object["o"].as_object_mut().unwrap();
        if o.remove("c").is_some() && o.is_empty() {
            object.remove("o");
        }
        prop_assert_eq!(rest, expected);
    }
}
