use super::*;

/// What is found at each path; one that ends with `[]` is a column of arrays.
fn find(paths: &[&str], json: &str) -> Result<Vec<Option<String>>, String> {
    let mut wanted = Wanted::default();
    for (slot, path) in paths.iter().enumerate() {
        let is_list = path.ends_with("[]");
        wanted.add(path.trim_end_matches("[]").split('.'), slot, is_list);
    }
    let (mut found, mut gathered) = (vec![None; paths.len()], Gathered::new());
    let mut slots = Slots { found: &mut found, gathered: &mut gathered };
    wanted.find(json, &mut slots, &mut Unknown::Ignored).map_err(|error| error.to_string())?;
    for (slot, text) in &gathered {
        found[*slot] = Some(Cell::Json(text));
    }
    let text = |cell| match cell {
        Cell::Null => "null".to_owned(),
        Cell::Plain(text) => format!("\"{text}\""),
        Cell::Int(value) => value.to_string(),
        Cell::Json(raw) => raw.to_owned(),
        other => panic!("{other:?}"),
    };
    Ok(found.into_iter().map(|cell| cell.map(text)).collect())
}

#[track_caller]
fn assert_found(json: &str, expected: &[(&str, Option<&str>)]) {
    let (paths, texts): (Vec<_>, Vec<_>) = expected.iter().copied().unzip();
    let found = find(&paths, json).unwrap();
    let found: Vec<_> = found.iter().map(Option::as_deref).collect();
    assert_eq!(found, texts, "{json}");
}

#[test]
fn fields_keep_the_text_they_have() {
    let json = r#"{"b": 0.10, "a":12345678901234567890.5 , "c":{"d":[1, 2]}, "e\n":null}"#;
    assert_found(
        json,
        &[
            ("a", Some("12345678901234567890.5")),
            ("b", Some("0.10")),
            ("c.d", Some("[1, 2]")),
            ("c", Some(r#"{"d":[1, 2]}"#)),
            ("e\n", Some("null")),
            ("x", None),
            ("c.y", None),
        ],
    );
}

#[test]
fn several_columns_may_want_the_same_field() {
    let json = r#"{"id":1,"a":{"b":[2]}}"#;
    let expected =
        [("id", Some("1")), ("id", Some("1")), ("a.b[]", Some("[2]")), ("a.b", Some("[2]"))];
    assert_found(json, &expected);
}

#[test]
fn of_fields_of_one_name_the_last_one_wins() {
    assert_found(r#"{"a":1,"b":2,"a":3}"#, &[("a", Some("3")), ("b", Some("2"))]);
    assert_found(r#"{"a":{"b":1,"b":2}}"#, &[("a.b", Some("2"))]);
    assert_found(r#"{"\u0061":1,"a":2,"\u0061":3}"#, &[("a", Some("3"))]);
    // Whichever way they are written.
    assert_found(r#"{"n":{"x":[1]},"n":[{"x":2}]}"#, &[("n.x[]", Some("[2]"))]);
    assert_found(r#"{"n":[{"x":2}],"n":{"x":[1]}}"#, &[("n.x[]", Some("[1]"))]);
    assert_found(r#"{"n":[{"x":2}],"n":[{"x":3}]}"#, &[("n.x[]", Some("[3]"))]);
}

#[test]
fn a_path_ends_where_there_is_no_object() {
    for value in ["null", "\"{\\\"b\\\":1}\"", "5", "true", "[1]", "{}", "[{\"b\":1}]"] {
        assert_found(&format!("{{\"a\":{value}}}"), &[("a.b", None), ("a", Some(value))]);
    }
    assert_found(r#"{"a.b":1}"#, &[("a.b", None)]);
}

#[test]
fn names_are_compared_as_what_they_say() {
    let json = r#"{"\u00e9\ud83d\ude00":1,"a\"b":2,"":3,"a\u0000":4}"#;
    let expected = [("é😀", Some("1")), ("a\"b", Some("2")), ("", Some("3")), ("a\0", Some("4"))];
    assert_found(json, &expected);
}

#[test]
fn columns_of_arrays_gather_from_the_objects_of_an_array() {
    let json = r#"{"n":[{"x":1,"y":"a"},{"y":"b\n", "x" : 2.50},{"x":3},null]}"#;
    assert_found(
        json,
        &[
            ("n.x[]", Some("[1,2.50,3,null]")),
            ("n.y[]", Some(r#"["a","b\n",null,null]"#)),
            ("n.x", None),
            ("n.z[]", Some("[null,null,null,null]")),
        ],
    );
    assert_found(r#"{"n":[]}"#, &[("n.x[]", Some("[]"))]);
    assert_found(r#"{"n":{"x":[1]}}"#, &[("n.x[]", Some("[1]"))]);
    let deep = r#"{"n":{"m":[{"o":[{"x":1},{"x":2}]},{"o":[]},{"o":5},{"o":{"x":3}}]}}"#;
    assert_found(deep, &[("n.m.o.x[]", Some("[[1,2],[],null,3]"))]);
    for value in ["[1]", "[[]]", "[{},1]", "\"\"", "null", "[[{\"x\":1}]]"] {
        assert_found(&format!("{{\"n\":{value}}}"), &[("n.x[]", None)]);
    }
}

#[test]
fn what_is_no_object_is_refused() {
    for json in [
        "",
        "[1]",
        "1",
        "null",
        "{",
        r#"{"a":1}x"#,
        r#"{"a":1}{}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        "{a:1}",
        "{'a':1}",
        r#"{"a":01}"#,
        r#"{"a":+1}"#,
        r#"{"a":NaN}"#,
        r#"{"a":.5}"#,
        r#"{"a":tru}"#,
        r#"{"a":"\x"}"#,
        r#"{"a":"\u12"}"#,
        "{\"a\":\"\u{0}\"}",
        "{\"a\":\"\n\"}",
        "{\"a\":1}\0",
        "\u{feff}{}",
        r#"{"\ud800":1}"#,
        r#"{"a":[1}"#,
        "{\"b\":[}",
    ] {
        assert!(find(&["a"], json).is_err(), "{json}");
    }
}

#[test]
fn nothing_is_too_deep_or_too_long() {
    const DEEP: usize = 200_000;
    let arrays = format!("{}{}", "[".repeat(DEEP), "]".repeat(DEEP));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(DEEP), "}".repeat(DEEP));
    let digits = format!("1{}.5e{}", "0".repeat(DEEP), "9".repeat(DEEP));
    for value in [arrays.as_str(), objects.as_str(), digits.as_str()] {
        let json = format!("{{\"a\":{value},\"other\":{value}}}");
        assert_found(&json, &[("a", Some(value))]);
        let paths = ["a.b.c", "a.b[]", "a.a.a.a[]"];
        assert!(find(&paths, &json).is_ok());
        assert!(find(&paths, &format!("{{\"a\":[{{\"b\":{value}}}]}}")).is_ok());
    }
}
