use super::*;
use crate::wal::row::Value;

const BEGIN: WalEvent = WalEvent::Begin { commit_lsn: Lsn(0x100), committed_at_us: 7 };

fn relation(id: u32, table: &str, columns: &[&str]) -> WalEvent {
    let mut bytes = vec![b'R'];
    bytes.extend(id.to_be_bytes());
    bytes.extend(format!("public\0{table}\0d").bytes());
    bytes.extend(u16::try_from(columns.len()).unwrap().to_be_bytes());
    for name in columns {
        bytes.push(0);
        bytes.extend(name.bytes());
        bytes.extend([0; 9]);
    }
    WalEvent::Change(bytes.into())
}

fn insert(id: u32, cells: &[Option<&str>]) -> WalEvent {
    let mut bytes = vec![b'I'];
    bytes.extend(id.to_be_bytes());
    bytes.push(b'N');
    bytes.extend(u16::try_from(cells.len()).unwrap().to_be_bytes());
    for cell in cells {
        match cell {
            None => bytes.push(b'n'),
            Some(text) => {
                bytes.push(b't');
                bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                bytes.extend(text.bytes());
            }
        }
    }
    WalEvent::Change(bytes.into())
}

const REQUIRED: [&str; 4] = ["payload", "id", "aggregateid", "aggregatetype"];

fn assembler() -> Assembler {
    let wanted = |column: &str, required, expects| Wanted {
        column: column.to_owned(),
        key: "outbox.column_x",
        required,
        expects,
    };
    let wanted = vec![
        wanted("aggregatetype", true, Expects::Anything),
        wanted("payload", true, Expects::Anything),
        wanted("traceparent", false, Expects::Anything),
        wanted("shard", false, Expects::Integer),
    ];
    Assembler::new(&OutboxTable::default(), "outpour", wanted)
}

fn rows(events: impl IntoIterator<Item = WalEvent>) -> Result<Vec<OutboxRow>, AssemblyError> {
    let mut assembler = assembler();
    let mut rows = Vec::new();
    for event in events {
        if let Progress::Row(row) = assembler.next(event)? {
            rows.push(row);
        }
    }
    Ok(rows)
}

#[test]
fn rows_are_numbered_within_their_transaction_and_found_by_column_name() {
    let cells = [Some("{}"), Some("e1"), Some("k"), Some("order")];
    let rows = rows([
        BEGIN,
        relation(1, "outbox", &REQUIRED),
        insert(1, &cells),
        insert(1, &cells),
        WalEvent::Commit { end_lsn: Lsn(0x130) },
        BEGIN,
        insert(1, &[None; 4]),
    ])
    .unwrap();
    let ordinals: Vec<_> = rows.iter().map(|row| row.position.ordinal).collect();
    assert_eq!(ordinals, [0, 1, 0]);
    let value = |text| Some(Value { type_oid: 0, text });
    assert_eq!(rows[0].values[0], value(Some(Bytes::from_static(b"order"))));
    assert_eq!(rows[0].values[2], None, "a column that the table does not have");
    assert_eq!(rows[2].values[1], value(None));
}

fn message(prefix: &str, transactional: bool, payload: &str) -> WalEvent {
    let content = serde_json::json!({
        "id": "0198c0de-0000-7000-8000-000000000001", "aggregatetype": "order",
        "aggregateid": "k", "type": "t", "payload": payload,
        "occurred_at": "2026-01-02 03:04:05+00", "schema_version": 1,
    });
    let content = content.to_string().into();
    WalEvent::LogicalMessage { transactional, prefix: prefix.to_owned(), content }
}

#[test]
fn messages_and_rows_are_numbered_together() {
    let cells = [Some("{}"), Some("e1"), Some("k"), Some("order")];
    let rows = rows([
        BEGIN,
        message("outpour", true, "first"),
        relation(1, "outbox", &REQUIRED),
        insert(1, &cells),
        message("someone_else", true, "not ours"),
        message("outpour", true, "third"),
        insert(1, &cells),
    ])
    .unwrap();
    let payloads: Vec<_> = rows
        .iter()
        .map(|row| (row.position.ordinal, row.values[1].clone().unwrap().text.unwrap()))
        .collect();
    let expected = [(0, "first"), (1, "{}"), (2, "third"), (3, "{}")];
    assert_eq!(payloads, expected.map(|(ordinal, text)| (ordinal, text.into())));
    assert_eq!(rows[0].committed_at_us, 7);
}

#[test]
fn a_message_that_is_no_event_is_kept_whole_and_takes_a_place() {
    let content = Bytes::from_static(b"hello");
    let invalid = WalEvent::LogicalMessage {
        transactional: true,
        prefix: "outpour".to_owned(),
        content: content.clone(),
    };
    let mut assembler = assembler();
    assembler.next(BEGIN).unwrap();
    let Progress::InvalidMessage(message) = assembler.next(invalid).unwrap() else {
        panic!("taken for a row");
    };
    assert_eq!((message.content, message.position.ordinal), (content, 0));
    let Progress::Row(row) = assembler.next(self::message("outpour", true, "")).unwrap() else {
        panic!("no row");
    };
    assert_eq!(row.position.ordinal, 1);
}

#[test]
fn a_message_outside_of_transactions_is_told_if_it_is_ours_and_no_event() {
    let mut assembler = assembler();
    let told = assembler.next(message("outpour", false, "")).unwrap();
    assert_eq!(told, Progress::NonTransactional);
    assert_eq!(assembler.next(message("other", false, "")).unwrap(), Progress::Nothing);
    let told = assembler.next(message("other", true, "")).unwrap();
    assert_eq!(told, Progress::OtherPrefix { prefix: "other".to_owned() });
    let (prefix, content) = ("other".to_owned(), Bytes::from_static(b"{}"));
    let not_an_event = WalEvent::LogicalMessage { transactional: true, prefix, content };
    assert_eq!(assembler.next(not_an_event).unwrap(), Progress::Nothing);
    let outside = assembler.next(message("outpour", true, "")).unwrap_err();
    assert_eq!(outside, AssemblyError::OutsideTransaction("message"));
}

#[test]
fn rows_of_other_tables_are_passed_over() {
    let events = [BEGIN, relation(9, "other", &["x"]), insert(9, &[Some("1")])];
    assert_eq!(rows(events).unwrap(), []);
}

/// Whether the next row of the relation counts as the outbox's.
fn is_row(assembler: &mut Assembler, id: u32) -> bool {
    matches!(assembler.next(insert(id, &[Some("x"); 4])).unwrap(), Progress::Row(_))
}

#[test]
fn rows_of_member_tables_are_rows_of_the_outbox_whatever_they_are_called() {
    let mut assembler = assembler();
    assembler.adopt(HashSet::from([7]));
    assembler.next(BEGIN).unwrap();
    assert_eq!(assembler.next(relation(7, "outbox_2026", &REQUIRED)).unwrap(), Progress::Nothing);
    let table = || "public.outbox_2027".to_owned();
    let stranger = |is_alike| Progress::Stranger { table: table(), is_alike };
    let told = assembler.next(relation(8, "outbox_2027", &["x"])).unwrap();
    assert_eq!(told, stranger(false));
    let told = assembler.next(relation(8, "outbox_2027", &REQUIRED)).unwrap();
    assert_eq!(told, stranger(true));
    assert!(is_row(&mut assembler, 7));
    assert!(!is_row(&mut assembler, 8), "a table of somebody else");
    assert!(!assembler.adopt(HashSet::from([7, 9])));
    assert!(assembler.adopt(HashSet::from([7, 8])), "it became one");
    assert!(is_row(&mut assembler, 8));
}

/// Why the first row of `columns` is unfit.
fn unfit(columns: &[&str]) -> String {
    let mut assembler = assembler();
    assembler.next(BEGIN).unwrap();
    assert_eq!(assembler.next(relation(1, "outbox", columns)).unwrap(), Progress::Nothing);
    let cells = vec![Some("x"); columns.len()];
    let told = assembler.next(insert(1, &cells)).unwrap();
    let Progress::Unfit { row, reason, columns: has } = told else { panic!("{told:?}") };
    assert_eq!(row.position.ordinal, 0);
    assert_eq!(has, columns);
    reason.to_string()
}

#[test]
fn a_missing_column_is_named_with_its_configuration_key_when_a_row_needs_it() {
    let expected = "table public.outbox has no column `aggregatetype` (outbox.column_x)";
    assert_eq!(unfit(&["id"]), expected);
}

#[test]
fn a_column_of_the_wrong_type_is_named_with_its_configuration_key() {
    let expected = "column `shard` of table public.outbox (outbox.column_x) must be \
                    smallint, integer or bigint";
    assert_eq!(unfit(&["aggregatetype", "payload", "shard"]), expected);
}

#[test]
fn a_domain_counts_as_the_type_that_it_is_over() {
    let mut assembler = assembler();
    assembler.next(BEGIN).unwrap();
    let types: [&'static [u8]; 2] = [b"Y\0\0\x40\x07\0int4\0", b"Y\0\0\x40\x08app\0int4\0"];
    for bytes in types {
        assembler.next(WalEvent::Change(Bytes::from_static(bytes))).unwrap();
    }
    // The one is a domain, the other somebody's own type of that name.
    for (low, is_fit) in [(7, true), (8, false)] {
        let mut bytes = b"R\0\0\0\x01public\0outbox\0d\0\x03".to_vec();
        bytes.extend(b"\0aggregatetype\0\0\0\0\x19\0\0\0\0\0payload\0\0\0\0\x19\0\0\0\0");
        bytes.extend(b"\0shard\0\0\0\x40");
        bytes.extend([low, 0, 0, 0, 0]);
        assembler.next(WalEvent::Change(bytes.into())).unwrap();
        let told = assembler.next(insert(1, &[Some("1"); 3])).unwrap();
        assert_eq!(matches!(told, Progress::Row(_)), is_fit, "{told:?}");
    }
}

#[test]
fn a_value_that_is_no_text_is_kept_and_told() {
    let mut assembler = assembler().with_charset(Charset::Unchecked);
    assembler.next(BEGIN).unwrap();
    assembler.next(relation(1, "outbox", &["aggregatetype", "payload"])).unwrap();
    let insert = b"I\0\0\0\x01N\0\x02t\0\0\0\x01ot\0\0\0\x01\xff";
    let told = assembler.next(WalEvent::Change(Bytes::from_static(insert))).unwrap();
    let Progress::Row(row) = told else { panic!("{told:?}") };
    assert_eq!(row.unreadable, Some(1));
    let kept = row.values[1].clone().unwrap().text.unwrap();
    assert_eq!(kept.as_ref(), b"\xff");
}

#[test]
fn an_update_of_the_outbox_is_told_and_its_deletes_are_passed_over() {
    let mut assembler = assembler();
    assembler.next(BEGIN).unwrap();
    assembler.next(relation(1, "outbox", &REQUIRED)).unwrap();
    assembler.next(relation(2, "other", &["x"])).unwrap();
    let mut next =
        |bytes: &'static [u8]| assembler.next(WalEvent::Change(Bytes::from_static(bytes))).unwrap();
    let table = "public.outbox".to_owned();
    assert_eq!(next(b"U\0\0\0\x01N"), Progress::Updated { table });
    assert_eq!(next(b"U\0\0\0\x02N"), Progress::Nothing);
    assert_eq!(next(b"D\0\0\0\x01K"), Progress::Nothing);
    assert_eq!(next(b"T\0\0\0\x01"), Progress::Nothing);
}

#[test]
fn a_stream_out_of_order_is_refused() {
    assert!(matches!(rows([BEGIN, BEGIN]), Err(AssemblyError::NestedTransaction)));
    let error = rows([BEGIN, insert(5, &[])]).unwrap_err();
    assert_eq!(error, AssemblyError::UnknownRelation(5));
    let outside = [relation(1, "outbox", &REQUIRED), insert(1, &[None; 4])];
    assert_eq!(rows(outside).unwrap_err(), AssemblyError::OutsideTransaction("row"));
    let short = [BEGIN, relation(1, "outbox", &REQUIRED), insert(1, &[None])];
    assert!(matches!(rows(short), Err(AssemblyError::CellCount { .. })));
}

#[test]
fn a_keepalive_inside_a_transaction_says_nothing_about_being_caught_up() {
    let mut assembler = assembler();
    let keepalive = || WalEvent::KeepAlive { wal_end: Lsn(9) };
    let caught_up = Progress::CaughtUp { wal_end: Lsn(9) };
    assert_eq!(assembler.next(keepalive()).unwrap(), caught_up);
    assembler.next(BEGIN).unwrap();
    assert_eq!(assembler.next(keepalive()).unwrap(), Progress::Nothing);
}
