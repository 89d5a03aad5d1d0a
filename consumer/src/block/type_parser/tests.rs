use super::*;

fn shown(text: &str) -> String {
    parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).to_string()
}

#[test]
fn canonical_spellings_come_back() {
    for text in [
        "Int8",
        "UInt256",
        "BFloat16",
        "Time",
        "Time64(6)",
        "Float32",
        "Float64",
        "Bool",
        "String",
        "FixedString(3)",
        "UUID",
        "Date",
        "Date32",
        "IPv4",
        "IPv6",
        "DateTime",
        "DateTime('Europe/Paris')",
        "DateTime64(3)",
        "DateTime64(9, 'UTC')",
        "Decimal(5, 2)",
        "Decimal(76, 76)",
        r#"Enum8('it\'s\\n\t"q`' = -3, 'x' = 1)"#,
        "Enum16('z' = 1000)",
        "Nullable(Decimal(9, 3))",
        "LowCardinality(String)",
        "LowCardinality(Nullable(FixedString(2)))",
        "Array(Array(Nullable(Int8)))",
        "Map(LowCardinality(String), Array(UInt8))",
        "Tuple(UInt8, String)",
        "Tuple(a UInt8, `b c` Tuple(DateTime('UTC'), String))",
        "Tuple()",
        "JSON",
        "JSON(max_dynamic_paths=10, a UInt8, SKIP REGEXP '(x')",
        "Nullable(JSON)",
    ] {
        assert_eq!(shown(text), text);
    }
}

#[test]
fn other_spellings_become_canonical() {
    for (text, canonical) in [
        ("Decimal32(3)", "Decimal(9, 3)"),
        ("Decimal64(3)", "Decimal(18, 3)"),
        ("Decimal128(3)", "Decimal(38, 3)"),
        ("Decimal256(7)", "Decimal(76, 7)"),
        ("Decimal(7)", "Decimal(7, 0)"),
        ("Decimal", "Decimal(10, 0)"),
        ("DateTime64", "DateTime64(3)"),
        ("Time64", "Time64(3)"),
        ("SimpleAggregateFunction(groupUniqArrayArray(10), Array(UInt8))", "Array(UInt8)"),
        (" Array( UInt8 ) ", "Array(UInt8)"),
        ("Enum('b' = 2, 'a' = 1)", "Enum8('a' = 1, 'b' = 2)"),
        ("Enum('a', 'b')", "Enum8('a' = 1, 'b' = 2)"),
        ("Enum('it''s' = 300)", r"Enum16('it\'s' = 300)"),
        ("Nested(a UInt8, b String)", "Array(Tuple(a UInt8, b String))"),
        ("SimpleAggregateFunction(sum, UInt64)", "UInt64"),
        ("Ring", "Array(Tuple(Float64, Float64))"),
    ] {
        assert_eq!(shown(text), canonical);
    }
}

#[test]
fn what_is_not_supported_names_itself() {
    let error = parse("Array(Variant(String, UInt8))").unwrap_err();
    assert_eq!(error, TypeError::Unsupported("Variant".to_owned()));
    let expected = "column type `Variant` is not supported; a MATERIALIZED column can \
                    compute it from one of another type";
    assert_eq!(error.to_string(), expected);
    for text in [
        "Dynamic",
        "AggregateFunction(sum, UInt64)",
        "IntervalDay",
        "Geometry",
        "QBit(Float32, 8)",
        "Nothing",
        "Nullable(Tuple(UInt8))",
        "Int24",
        "LowCardinality(Decimal(5, 2))",
        "Nullable(Array(UInt8))",
    ] {
        assert!(matches!(parse(text), Err(TypeError::Unsupported(_))), "{text}");
    }
    assert_eq!(
        parse("DateTime('Mars/Base')"),
        Err(TypeError::UnknownTimeZone("Mars/Base".to_owned()))
    );
}

#[test]
fn broken_text_is_refused() {
    for text in [
        "",
        "Array",
        "Array(",
        "Array(UInt8",
        "UInt8)",
        "FixedString()",
        "FixedString(0)",
        "FixedString(16777216)",
        "FixedString(-1)",
        "Decimal(77, 1)",
        "Decimal(5, 6)",
        "DateTime64(10)",
        "Time64(10)",
        "Enum8('a' = 300)",
        "Enum8('a = 1)",
        "Enum8()",
        "Tuple(a UInt8, String)",
        "Map(String)",
        "JSON(",
        "DateTime('UTC'",
        "é",
    ] {
        assert!(matches!(parse(text), Err(TypeError::Syntax { .. })), "{text}");
    }
    let deep = "Array(".repeat(100_000);
    assert!(parse(&deep).is_err());
}
