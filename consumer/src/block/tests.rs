//! Whole blocks: their bytes, and that a refused row leaves none behind.

use proptest::prelude::*;

use super::*;

fn block(columns: &[(&str, &str)]) -> Block {
    let columns =
        columns.iter().map(|(name, kind)| Column::new(*name, kind.parse().unwrap())).collect();
    Block::new(columns)
}

fn taken(block: &mut Block) -> Vec<u8> {
    block.take().concat()
}

/// Pieces of an expected block, in order.
fn bytes(pieces: &[&[u8]]) -> Vec<u8> {
    pieces.concat()
}

#[test]
fn a_block_is_header_and_columns() {
    let mut block = block(&[("n", "UInt16"), ("s", "Nullable(String)")]);
    assert!(taken(&mut block).is_empty());
    block.push_row(&[Cell::Json("258"), Cell::Json("\"ab\"")]).unwrap();
    block.push_row(&[Cell::Int(1), Cell::Null]).unwrap();
    assert_eq!((block.rows(), block.byte_size()), (2, 4 + 2 + 4));
    assert_eq!(
        taken(&mut block),
        bytes(&[
            &[2, 2],
            b"\x01n\x06UInt16",
            &[2, 1, 1, 0],
            b"\x01s\x10Nullable(String)",
            &[0, 1],
            b"\x02ab\x00",
        ])
    );
    assert!(block.is_empty());
    assert_eq!(block.byte_size(), 0);
}

/// The bytes are what a server wrote for the same rows.
#[test]
fn states_of_dictionaries_precede_all_data_of_their_column() {
    let mut block = block(&[(
        "t",
        "Tuple(LowCardinality(FixedString(2)), UInt8, Map(LowCardinality(String), LowCardinality(Nullable(String))))",
    )]);
    block.push_row(&[Cell::Json(r#"["a", 3, {"a": "b"}]"#)]).unwrap();
    let eight = |n: u8| [n, 0, 0, 0, 0, 0, 0, 0];
    let additional = [0, 6, 0, 0, 0, 0, 0, 0];
    assert_eq!(
        taken(&mut block)[5 + 0x6b..],
        bytes(&[
            &eight(1),
            &eight(1),
            &eight(1),
            &additional,
            &eight(2),
            b"\0\0a\0",
            &eight(1),
            &[1],
            &[3],
            &eight(1),
            &additional,
            &eight(2),
            b"\0\x01a",
            &eight(1),
            &[1],
            &additional,
            &eight(2),
            b"\0\x01b",
            &eight(1),
            &[1],
        ])
    );
}

#[test]
fn arrays_end_where_their_offsets_say() {
    let mut block = block(&[("a", "Array(Array(UInt8))")]);
    block.push_row(&[Cell::Json("[[1,2],[]]")]).unwrap();
    block.push_row(&[Cell::Json("[]")]).unwrap();
    block.push_row(&[Cell::Json("[[3]]")]).unwrap();
    let data = taken(&mut block);
    let offsets = |values: &[u64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let expected = bytes(&[&offsets(&[2, 2, 3]), &offsets(&[2, 2, 3]), &[1, 2, 3]]);
    assert_eq!(data[data.len() - expected.len()..], expected);
}

#[test]
fn json_travels_as_text_and_a_default_as_null() {
    let columns = [
        Column::new("j", "Array(JSON(a UInt8))".parse().unwrap()),
        Column::new("d", "UInt8".parse().unwrap()).with_default(),
        Column::new("l", "LowCardinality(String)".parse().unwrap()).with_default(),
        Column::new("m", "Map(String, UInt8)".parse().unwrap()).with_default(),
    ];
    let wire: Vec<_> = columns.iter().map(|c| c.wire_type().to_string()).collect();
    assert_eq!(
        wire,
        [
            "Array(String)",
            "Nullable(UInt8)",
            "LowCardinality(Nullable(String))",
            "Map(String, UInt8)"
        ]
    );
    assert_eq!(columns.each_ref().map(Column::takes_default), [false, true, true, false]);
    let mut block = Block::new(columns.into());
    let row = [Cell::Json("[{}]"), Cell::Default, Cell::Default, Cell::Json("{}")];
    block.push_row(&row).unwrap();
    // NULL in the record is not the same as nothing in the record.
    let error = block.push_row(&[row[0], Cell::Json("null"), row[2], row[3]]).unwrap_err();
    assert_eq!(error.reason, Reason::NullNotAllowed);
    let error = block.push_row(&[row[0], row[1], row[2], Cell::Default]).unwrap_err();
    assert_eq!((error.column.as_str(), error.reason), ("m", Reason::NullNotAllowed));
}

#[test]
fn an_error_names_column_type_reason_and_part() {
    let mut block =
        block(&[("tags", "Array(UInt8)"), ("point", "Tuple(x Int8, y Nullable(Int8))")]);
    let error = block.push_row(&[Cell::Json("[1, 300]"), Cell::Null]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "column `tags` of type Array(UInt8) refuses 300: it is out of the type's range"
    );
    for (json, reason, value) in [
        (r#"{"x":1,"z":2}"#, Reason::Malformed, "\"z\""),
        (r#"{"x":1,"x":2}"#, Reason::Malformed, "\"x\""),
        (r#"{"y":1}"#, Reason::NullNotAllowed, r#"{"y":1}"#),
        (r#"{"x":null}"#, Reason::NullNotAllowed, "null"),
        ("[1]", Reason::WrongLength, "[1]"),
        ("[1,2,3]", Reason::WrongLength, "[1,2,3]"),
        ("5", Reason::WrongType, "5"),
    ] {
        let error = block.push_row(&[Cell::Json("[]"), Cell::Json(json)]).unwrap_err();
        assert_eq!((error.reason, error.value.as_str()), (reason, value), "{json}");
    }
    assert!(block.is_empty());
    assert_eq!(block.byte_size(), 0);
    block.push_row(&[Cell::Json("[]"), Cell::Json(r#"{"y":2,"x":1}"#)]).unwrap();
    block.push_row(&[Cell::Json("[]"), Cell::Json(r#"{"x":1}"#)]).unwrap();
}

const COLUMNS: [(&str, &str); 9] = [
    ("i", "Int32"),
    ("s", "String"),
    ("n", "Nullable(String)"),
    ("l", "LowCardinality(String)"),
    ("ln", "LowCardinality(Nullable(String))"),
    ("a", "Array(LowCardinality(String))"),
    ("m", "Map(String, Nullable(UInt8))"),
    ("t", "Tuple(x String, y Array(UInt8))"),
    ("d", "Decimal(5, 2)"),
];

/// The JSON of a row. Most rows fit; each column also gets what it refuses.
fn row() -> impl Strategy<Value = Vec<String>> {
    let text = prop_oneof![
        8 => "[a-c]{0,2}".prop_map(|s| format!("\"{s}\"")),
        1 => Just("null".to_owned()),
        1 => Just("\"\\ud800\"".to_owned()),
    ];
    let small =
        prop_oneof![8 => (0..260).prop_map(|n: i32| n.to_string()), 1 => Just("null".to_owned())];
    let texts =
        prop::collection::vec(text.clone(), 0..4).prop_map(|v| format!("[{}]", v.join(",")));
    let numbers =
        prop::collection::vec(small.clone(), 0..3).prop_map(|v| format!("[{}]", v.join(",")));
    let map = prop::collection::vec(small, 0..4).prop_map(|v| {
        let members: Vec<_> = v.iter().enumerate().map(|(i, n)| format!("\"k{i}\":{n}")).collect();
        format!("{{{}}}", members.join(","))
    });
    let tuple = (text.clone(), numbers).prop_map(|(x, y)| format!("{{\"x\":{x},\"y\":{y}}}"));
    let decimal = (0..1100i32, 0..99i32).prop_map(|(a, b)| format!("{a}.{b}"));
    (any::<i16>(), text.clone(), text.clone(), text.clone(), text, texts, map, tuple, decimal)
        .prop_map(|(i, s, n, l, ln, a, m, t, d)| vec![i.to_string(), s, n, l, ln, a, m, t, d])
}

proptest! {
    #[test]
    fn a_refused_row_leaves_nothing(rows in prop::collection::vec(row(), 0..60)) {
        let mut all = block(&COLUMNS);
        let mut accepted = block(&COLUMNS);
        for row in &rows {
            let cells: Vec<_> = row.iter().map(|text| Cell::Json(text)).collect();
            if all.push_row(&cells).is_ok() {
                accepted.push_row(&cells).unwrap();
            }
        }
        prop_assert_eq!(all.rows(), accepted.rows());
        prop_assert_eq!(all.byte_size(), accepted.byte_size());
        let expected = taken(&mut accepted);
        prop_assert_eq!(&taken(&mut all), &expected);

        // What is left is as good as new.
        for row in &rows {
            let cells: Vec<_> = row.iter().map(|text| Cell::Json(text)).collect();
            let _refused = all.push_row(&cells);
        }
        prop_assert_eq!(&taken(&mut all), &expected);
    }
}

#[test]
fn large_columns_are_handed_over_in_pieces_and_the_next_rows_start_anew() {
    let mut block = block(&[("n", "UInt64"), ("s", "String"), ("a", "Array(Nullable(UInt8))")]);
    let mut fill = |rows: i64| {
        for n in 0..rows {
            block.push_row(&[Cell::Int(n), Cell::Text("text"), Cell::Json("[1,null]")]).unwrap();
        }
        block.take()
    };
    let few: Vec<_> = (0..100).map(|_| fill(1).concat()).collect();
    assert!(few.iter().all(|block| *block == few[0]));
    let many = fill(20_000);
    assert!(many.len() > 3 && many.iter().all(|piece| !piece.is_empty()), "{}", many.len());
    assert_eq!(many.concat(), fill(20_000).concat());
}

#[test]
fn a_row_without_a_cell_leaves_earlier_rows_as_they_are() {
    let mut block = block(&[("a", "String"), ("b", "String"), ("c", "LowCardinality(String)")]);
    let cells = [Cell::Text("x"), Cell::Text("yz"), Cell::Text("w")];
    block.push_row(&cells).unwrap();
    block.push_row(&cells).unwrap();
    let before = block.byte_size();
    for missing in 0..3 {
        let mut cells = [Some(Cell::Text("other")); 3];
        cells[missing] = None;
        let refused = block.push_found(&cells);
        assert!(matches!(refused, Err(RowError::Missing(found)) if found == missing));
        assert_eq!((block.rows(), block.byte_size()), (2, before), "without {missing}");
    }
}
