use proptest::prelude::*;

use super::*;

fn decode(bytes: Bytes) -> Result<Message, PgoutputError> {
    super::decode(bytes, &Charset::Utf8)
}

fn relation_bytes() -> Vec<u8> {
    let mut bytes = b"R\0\0\x40\x01public\0outbox\0d\0\x02".to_vec();
    bytes.extend(b"\x01id\0\0\0\x0b\x86\xff\xff\xff\xff");
    bytes.extend(b"\0payload\0\0\0\x0e\xda\xff\xff\xff\xff");
    bytes
}

fn insert_bytes() -> Vec<u8> {
    b"I\0\0\x40\x01N\0\x03t\0\0\0\x02{}nu".to_vec()
}

#[test]
fn a_relation_names_its_table_and_columns() {
    let Message::Relation(relation) = decode(relation_bytes().into()).unwrap() else {
        panic!("not a relation");
    };
    assert_eq!((relation.id, relation.namespace.as_str()), (0x4001, "public"));
    assert_eq!(relation.name, "outbox");
    let columns: Vec<_> =
        relation.columns.iter().map(|column| (column.name.as_str(), column.type_oid)).collect();
    assert_eq!(columns, [("id", 2950), ("payload", 3802)]);
}

#[test]
fn an_insert_keeps_text_null_and_unchanged_apart() {
    let row = vec![Cell::Text(Bytes::from_static(b"{}")), Cell::Null, Cell::Unchanged];
    assert_eq!(decode(insert_bytes().into()).unwrap(), Message::Insert { relation: 0x4001, row });
}

#[test]
fn an_update_names_its_table() {
    let bytes = Bytes::from_static(b"U\0\0\x40\x01N\0\x01n");
    assert_eq!(decode(bytes), Ok(Message::Update { relation: 0x4001 }));
    assert!(decode(Bytes::from_static(b"U\0\0")).is_err());
}

fn type_bytes() -> Vec<u8> {
    b"Y\0\0\x40\x07\0bytea\0".to_vec()
}

#[test]
fn a_domain_names_the_type_that_it_is_at_bottom() {
    let (namespace, name) = ("pg_catalog".to_owned(), "bytea".to_owned());
    let expected = Message::Type { id: 0x4007, namespace, name };
    assert_eq!(decode(type_bytes().into()), Ok(expected));
}

#[test]
fn every_truncation_is_an_error() {
    for whole in [relation_bytes(), insert_bytes(), type_bytes()] {
        for end in 0..whole.len() {
            let cut = Bytes::copy_from_slice(&whole[..end]);
            assert!(decode(cut).is_err(), "cut at {end}");
        }
    }
}

#[test]
fn what_follows_the_message_is_an_error() {
    let mut bytes = insert_bytes();
    bytes.push(0);
    assert_eq!(decode(bytes.into()), Err(PgoutputError::Trailing(1)));
}

/// Any text that stands in a zero-terminated string.
fn name() -> impl Strategy<Value = String> {
    "[^\\x00]{0,20}"
}

fn cell() -> impl Strategy<Value = Cell> {
    prop_oneof![
        Just(Cell::Null),
        Just(Cell::Unchanged),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|text| Cell::Text(text.into())),
    ]
}

fn encoded_insert(relation: u32, row: &[Cell]) -> Vec<u8> {
    let mut bytes = vec![b'I'];
    bytes.extend(relation.to_be_bytes());
    bytes.push(b'N');
    bytes.extend(u16::try_from(row.len()).unwrap().to_be_bytes());
    for cell in row {
        match cell {
            Cell::Null => bytes.push(b'n'),
            Cell::Unchanged => bytes.push(b'u'),
            Cell::Text(text) => {
                bytes.push(b't');
                bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                bytes.extend(text);
            }
        }
    }
    bytes
}

fn encoded_relation(relation: &Relation) -> Vec<u8> {
    let mut bytes = vec![b'R'];
    bytes.extend(relation.id.to_be_bytes());
    bytes.extend(format!("{}\0{}\0d", relation.namespace, relation.name).bytes());
    bytes.extend(u16::try_from(relation.columns.len()).unwrap().to_be_bytes());
    for column in &relation.columns {
        bytes.extend(format!("\u{1}{}\0", column.name).bytes());
        bytes.extend(column.type_oid.to_be_bytes());
        bytes.extend((-1_i32).to_be_bytes());
    }
    bytes
}

/// What a row looks like apart from the bytes of its texts.
fn shape(row: &[Cell]) -> Vec<Option<usize>> {
    let length = |cell: &Cell| match cell {
        Cell::Text(text) => Some(text.len()),
        Cell::Null => None,
        Cell::Unchanged => Some(usize::MAX),
    };
    row.iter().map(length).collect()
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused_without_panic(bytes: Vec<u8>) {
        drop(decode(bytes.into()));
    }

    #[test]
    fn what_is_encoded_is_decoded(
        relation: u32,
        row in prop::collection::vec(cell(), 0..12),
        namespace in name(),
        table in name(),
        columns in prop::collection::vec((name(), any::<u32>()), 0..12),
    ) {
        let insert = encoded_insert(relation, &row);
        prop_assert_eq!(decode(insert.into()), Ok(Message::Insert { relation, row }));
        let columns =
            columns.into_iter().map(|(name, type_oid)| Column { name, type_oid }).collect();
        let namespace =
            if namespace.is_empty() { "pg_catalog".to_owned() } else { namespace };
        let relation = Relation { id: relation, namespace, name: table, columns };
        let bytes = encoded_relation(&relation);
        prop_assert_eq!(decode(bytes.into()), Ok(Message::Relation(relation)));
    }

    /// No checksum protects a text, but no damage makes it another cell's, or
    /// more or fewer cells of it.
    #[test]
    fn a_damaged_row_is_refused_or_keeps_its_shape(
        row in prop::collection::vec(cell(), 0..12),
        bit: prop::sample::Index,
        end: prop::sample::Index,
    ) {
        let whole = encoded_insert(7, &row);
        let cut = Bytes::copy_from_slice(&whole[..end.index(whole.len())]);
        prop_assert!(decode(cut).is_err());
        let mut flipped = whole.clone();
        let bit = bit.index(whole.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        match decode(flipped.into()) {
            Ok(Message::Insert { relation, row: found }) => {
                prop_assert_eq!(shape(&found), shape(&row));
                // Of an unknown relation it is refused further on.
                prop_assert!((relation == 7) != (found == row));
            }
            // An insert's tag that has become another's.
            Ok(other) => prop_assert!(bit < 8, "{:?}", other),
            Err(_) => {}
        }
    }

    #[test]
    fn a_flipped_bit_never_panics(bit in 0usize..400) {
        for mut bytes in [relation_bytes(), insert_bytes()] {
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            drop(decode(bytes.into()));
        }
    }
}
