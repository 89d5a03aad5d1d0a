//! What the block encoder writes is what ClickHouse reads: every type at its
//! limits goes in as JSON and comes back as the server's own text.

use std::sync::Arc;

use clickhouse::Client;
use integration_tests::stack::Stack;
use outpour_consumer::{
    block::{Block, Cell, Column, ColumnType},
    table::{DescribedColumn, TableName, TableSchema},
};

/// A type, JSON values that fit it, and how ClickHouse then shows each.
type Case = (&'static str, &'static [(&'static str, &'static str)]);

const NUMBERS: &[Case] = &[
    ("Int8", &[("-128", "-128"), ("127", "127")]),
    ("Int16", &[("-32768", "-32768"), ("32767", "32767")]),
    ("Int32", &[("-2147483648", "-2147483648"), ("2147483647", "2147483647")]),
    (
        "Int64",
        &[
            ("-9223372036854775808", "-9223372036854775808"),
            ("\"9223372036854775807\"", "9223372036854775807"),
        ],
    ),
    (
        "Int128",
        &[
            (
                "-170141183460469231731687303715884105728",
                "-170141183460469231731687303715884105728",
            ),
            ("170141183460469231731687303715884105727", "170141183460469231731687303715884105727"),
        ],
    ),
    (
        "Int256",
        &[
            (
                "-57896044618658097711785492504343953926634992332820282019728792003956564819968",
                "-57896044618658097711785492504343953926634992332820282019728792003956564819968",
            ),
            (
                "57896044618658097711785492504343953926634992332820282019728792003956564819967",
                "57896044618658097711785492504343953926634992332820282019728792003956564819967",
            ),
        ],
    ),
    ("UInt8", &[("0", "0"), ("255", "255"), ("2.5e1", "25")]),
    ("UInt16", &[("65535", "65535")]),
    ("UInt32", &[("4294967295", "4294967295")]),
    ("UInt64", &[("18446744073709551615", "18446744073709551615")]),
    (
        "UInt128",
        &[("340282366920938463463374607431768211455", "340282366920938463463374607431768211455")],
    ),
    (
        "UInt256",
        &[(
            "115792089237316195423570985008687907853269984665640564039457584007913129639935",
            "115792089237316195423570985008687907853269984665640564039457584007913129639935",
        )],
    ),
    ("Float32", &[("3.4028235e38", "3.4028235e38"), ("\"-0.5\"", "-0.5"), ("\"inf\"", "inf")]),
    (
        "Float64",
        &[
            ("1.7976931348623157e308", "1.7976931348623157e308"),
            ("\"0.1\"", "0.1"),
            ("\"NaN\"", "nan"),
            ("\"-Infinity\"", "-inf"),
        ],
    ),
    (
        "BFloat16",
        &[
            ("1.5", "1.5"),
            ("-3.3895314e38", "-3.3895314e38"),
            ("1.004", "1.0078125"),
            ("\"NaN\"", "nan"),
        ],
    ),
    ("Bool", &[("true", "true"), ("false", "false")]),
    ("Decimal(5, 2)", &[("999.99", "999.99"), ("-999.99", "-999.99"), ("1e-2", "0.01")]),
    ("Decimal(9, 0)", &[("999999999", "999999999")]),
    ("Decimal(18, 18)", &[("-0.999999999999999999", "-0.999999999999999999")]),
    (
        "Decimal(38, 10)",
        &[(
            "\"-9999999999999999999999999999.9999999999\"",
            "-9999999999999999999999999999.9999999999",
        )],
    ),
    (
        "Decimal(76, 38)",
        &[
            (
                "99999999999999999999999999999999999999.99999999999999999999999999999999999999",
                "99999999999999999999999999999999999999.99999999999999999999999999999999999999",
            ),
            (
                "-99999999999999999999999999999999999999.99999999999999999999999999999999999999",
                "-99999999999999999999999999999999999999.99999999999999999999999999999999999999",
            ),
        ],
    ),
];

const TEXTS: &[Case] = &[
    (
        "String",
        &[("\"\"", ""), (r#""é \ud83d\ude00""#, "é 😀"), (r#"{"a": [1.50]}"#, r#"{"a": [1.50]}"#)],
    ),
    ("FixedString(3)", &[("\"abc\"", "abc"), ("\"a\"", "a\0\0")]),
    (
        "UUID",
        &[("\"01020304-0506-0708-090a-0b0c0d0e0f10\"", "01020304-0506-0708-090a-0b0c0d0e0f10")],
    ),
    ("IPv4", &[("\"0.0.0.0\"", "0.0.0.0"), ("\"255.254.253.252\"", "255.254.253.252")]),
    (
        "IPv6",
        &[
            ("\"2001:db8::ff00:42:8329\"", "2001:db8::ff00:42:8329"),
            ("\"1.2.3.4\"", "::ffff:1.2.3.4"),
        ],
    ),
    ("Enum8('it\\'s' = -128, 'x' = 127)", &[("\"it's\"", "it's"), ("127", "x")]),
    ("Enum16('low' = -32768, 'high' = 32767)", &[("\"low\"", "low"), ("32767", "high")]),
    ("JSON", &[(r#"{"b": {"c": "x"}, "a": 1}"#, r#"{"a":1,"b":{"c":"x"}}"#), ("{}", "{}")]),
    ("JSON(a UInt8)", &[(r#"{"a": 255}"#, r#"{"a":255}"#)]),
];

const TIMES: &[Case] = &[
    ("Date", &[("\"1970-01-01\"", "1970-01-01"), ("\"2149-06-06\"", "2149-06-06")]),
    ("Date32", &[("\"1900-01-01\"", "1900-01-01"), ("\"2299-12-31\"", "2299-12-31")]),
    (
        "DateTime('UTC')",
        &[
            ("\"1970-01-01T00:00:00Z\"", "1970-01-01 00:00:00"),
            ("\"2106-02-07 06:28:15\"", "2106-02-07 06:28:15"),
            ("1700000000", "2023-11-14 22:13:20"),
        ],
    ),
    (
        "DateTime('Asia/Kolkata')",
        &[
            ("\"2024-06-01 12:00:00\"", "2024-06-01 12:00:00"),
            ("\"2024-06-01T12:00:00Z\"", "2024-06-01 17:30:00"),
        ],
    ),
    ("DateTime64(0, 'UTC')", &[("\"2299-12-31T23:59:59Z\"", "2299-12-31 23:59:59")]),
    (
        "DateTime64(3, 'UTC')",
        &[
            ("\"1900-01-01T00:00:00.001Z\"", "1900-01-01 00:00:00.001"),
            ("\"1969-12-31T23:59:59.999Z\"", "1969-12-31 23:59:59.999"),
            ("1700000000123", "2023-11-14 22:13:20.123"),
        ],
    ),
    (
        "DateTime64(6, 'America/New_York')",
        &[("\"2024-07-04 09:30:00.123456\"", "2024-07-04 09:30:00.123456")],
    ),
    (
        "DateTime64(9, 'UTC')",
        &[
            ("\"1900-01-01T00:00:00Z\"", "1900-01-01 00:00:00.000000000"),
            ("\"2262-04-11T23:47:16.854775807Z\"", "2262-04-11 23:47:16.854775807"),
        ],
    ),
    ("Time", &[("\"-999:59:59\"", "-999:59:59"), ("\"1:02:03\"", "01:02:03"), ("61", "00:01:01")]),
    ("Time64(3)", &[("\"999:59:59.999\"", "999:59:59.999"), ("-1500", "-00:00:01.500")]),
    ("Time64(9)", &[("\"-999:59:59.999999999\"", "-999:59:59.999999999")]),
];

const COMPOSED: &[Case] = &[
    ("Nullable(String)", &[("null", "\\N"), ("\"\"", ""), ("\"a\"", "a")]),
    ("Nullable(Decimal(76, 0))", &[("null", "\\N"), ("-1", "-1")]),
    ("Nullable(Enum8('a' = 1))", &[("null", "\\N"), ("\"a\"", "a")]),
    ("Nullable(JSON)", &[("null", "\\N"), (r#"{"a":1}"#, r#"{"a":1}"#)]),
    ("LowCardinality(String)", &[("\"b\"", "b"), ("\"\"", ""), ("\"b\"", "b")]),
    (
        "LowCardinality(Nullable(String))",
        &[("null", "\\N"), ("\"\"", ""), ("\"a\"", "a"), ("null", "\\N")],
    ),
    ("LowCardinality(FixedString(2))", &[("\"ab\"", "ab"), ("\"\"", "\0\0")]),
    ("LowCardinality(UInt64)", &[("7", "7"), ("0", "0"), ("7", "7")]),
    ("LowCardinality(Nullable(Int16))", &[("-1", "-1"), ("0", "0"), ("null", "\\N")]),
    ("LowCardinality(Date)", &[("\"2024-01-01\"", "2024-01-01")]),
    ("LowCardinality(Bool)", &[("true", "true"), ("false", "false")]),
    (
        "LowCardinality(UUID)",
        &[("\"01020304-0506-0708-090a-0b0c0d0e0f10\"", "01020304-0506-0708-090a-0b0c0d0e0f10")],
    ),
    ("Array(UInt8)", &[("[]", "[]"), ("[1, 255]", "[1,255]")]),
    ("Array(Array(Nullable(Int8)))", &[("[[null,-1],[]]", "[[NULL,-1],[]]"), ("[]", "[]")]),
    ("Array(LowCardinality(String))", &[("[\"a\",\"\",\"a\"]", "['a','','a']"), ("[]", "[]")]),
    ("Array(LowCardinality(Nullable(String)))", &[("[]", "[]"), ("[null,\"a\"]", "[NULL,'a']")]),
    ("Array(JSON)", &[(r#"[{"a":1},{}]"#, r#"['{"a":1}','{}']"#), ("[]", "[]")]),
    (
        "Map(String, UInt8)",
        &[
            ("{}", "{}"),
            (r#"{"b":1,"a":2}"#, "{'b':1,'a':2}"),
            (r#"{"b":1,"b":2}"#, "{'b':1,'b':2}"),
        ],
    ),
    (
        "Map(LowCardinality(String), Array(Nullable(String)))",
        &[(r#"{"k":["x",null]}"#, "{'k':['x',NULL]}"), ("{}", "{}")],
    ),
    ("Map(UInt64, String)", &[(r#"{"18446744073709551615":"x"}"#, "{18446744073709551615:'x'}")]),
    ("Tuple(UInt8, String)", &[("[1,\"a\"]", "(1,'a')")]),
    (
        "Tuple(a UInt8, `b c` Tuple(x LowCardinality(String), y Nullable(Int8)))",
        &[(r#"{"b c":{"x":"v"},"a":1}"#, "(1,('v',NULL))")],
    ),
    (
        "Tuple(LowCardinality(FixedString(2)), Map(LowCardinality(String), LowCardinality(Nullable(String))))",
        &[(r#"["ab",{"k":null}]"#, "('ab',{'k':NULL})")],
    ),
    (
        "Tuple(`select` UInt8, `TRUE` UInt8, `from` UInt8, `nan` UInt8, order UInt8, `1a` UInt8, `a\\`b` UInt8, `é` UInt8)",
        &[("[1,2,3,4,5,6,7,8]", "(1,2,3,4,5,6,7,8)")],
    ),
    ("Tuple(j JSON, n UInt8)", &[(r#"{"j":{"a":1},"n":2}"#, r#"('{"a":1}',2)"#)]),
];

/// Types that are read as the type they are stored as.
const OTHERWISE_NAMED: &[Case] = &[
    ("SimpleAggregateFunction(sum, UInt64)", &[("5", "5")]),
    ("SimpleAggregateFunction(anyLast, Nullable(String))", &[("null", "\\N"), ("\"a\"", "a")]),
    ("SimpleAggregateFunction(groupArrayArray, Array(UInt8))", &[("[2,1]", "[2,1]")]),
    ("Nested(a UInt8, b LowCardinality(String))", &[(r#"[{"a":1,"b":"x"}]"#, "[(1,'x')]")]),
    ("Point", &[("[1.5,-2]", "(1.5,-2)")]),
    ("Ring", &[("[[0,0],[1,0]]", "[(0,0),(1,0)]")]),
    ("LineString", &[("[[0,0],[1,0]]", "[(0,0),(1,0)]")]),
    ("MultiPoint", &[("[[0,0],[1,0]]", "[(0,0),(1,0)]")]),
    ("MultiLineString", &[("[[[0,0],[1,0]]]", "[[(0,0),(1,0)]]")]),
    ("Polygon", &[("[[[0,0],[1,0],[1,1]]]", "[[(0,0),(1,0),(1,1)]]")]),
    ("MultiPolygon", &[("[[[[0,0],[1,0],[1,1]]]]", "[[[(0,0),(1,0),(1,1)]]]")]),
];

/// A database of the test's own, and the settings that its tables need.
struct Server {
    client: Client,
    database: String,
}

impl Server {
    async fn new() -> Self {
        let stack = Stack::shared().await.unwrap();
        let database = stack.clickhouse_database().await.unwrap();
        let client = Client::default()
            .with_url(stack.clickhouse.url())
            .with_database(&database)
            .with_setting("async_insert", "0")
            .with_setting("input_format_null_as_default", "1")
            .with_setting("input_format_native_allow_types_conversion", "1")
            .with_setting("allow_suspicious_low_cardinality_types", "1")
            .with_setting("flatten_nested", "0");
        Self { client, database }
    }

    async fn execute(&self, sql: &str) {
        self.client.query_raw(sql).execute().await.unwrap();
    }

    async fn insert(&self, table: &str, block: &mut Block) {
        let described: Vec<(String, String, String)> = self
            .client
            .query(
                "SELECT name, type, default_kind FROM system.columns \
                 WHERE database = currentDatabase() AND table = ?",
            )
            .bind(table)
            .fetch_all()
            .await
            .unwrap();
        let described = described.into_iter().map(|(name, type_name, default_kind)| {
            DescribedColumn { name, type_name, default_kind }
        });
        let described: Vec<_> = described.collect();
        let schema = TableSchema::of(TableName::parse(table, &self.database), &described).unwrap();
        let mut insert = self.client.insert_formatted_with(&*schema.insert_sql(block.columns()));
        for piece in block.take() {
            insert.send(piece).await.unwrap();
        }
        insert.end().await.unwrap_or_else(|error| panic!("{table}: {error}"));
    }

    async fn text(&self, sql: &str) -> String {
        let mut rows = self.client.query_raw(sql).fetch_bytes("TSVRaw").unwrap();
        String::from_utf8(rows.collect().await.unwrap().to_vec()).unwrap()
    }
}

fn columns(columns: &[(&str, &str)]) -> Arc<[Column]> {
    columns.iter().map(|(name, kind)| Column::new(*name, kind.parse().unwrap())).collect()
}

/// Each case in a table of its own: the values, and the type's canonical name.
async fn check(cases: &[Case], canonical: bool) {
    let server = Server::new().await;
    for (index, (kind, values)) in cases.iter().enumerate() {
        server
            .execute(&format!(
                "CREATE TABLE t{index} (n UInt32, v {kind}) ENGINE = MergeTree ORDER BY n"
            ))
            .await;
        let known = server
            .text(&format!(
                "SELECT type FROM system.columns WHERE database = currentDatabase() \
                 AND table = 't{index}' AND name = 'v'"
            ))
            .await;
        let parsed: ColumnType = known.trim_end().parse().unwrap();
        if canonical {
            assert_eq!(parsed.to_string(), known.trim_end());
        }
        let mut block = Block::new(
            [Column::new("n", "UInt32".parse().unwrap()), Column::new("v", parsed)].into(),
        );
        for (n, (json, _)) in values.iter().enumerate() {
            block.push_row(&[Cell::Int(n as i64), Cell::Json(json)]).unwrap();
        }
        server.insert(&format!("t{index}"), &mut block).await;
        let expected: String = values.iter().map(|(_, text)| format!("{text}\n")).collect();
        let found = server.text(&format!("SELECT v FROM t{index} ORDER BY n")).await;
        assert_eq!(found, expected, "{kind}");
    }
}

#[tokio::test]
async fn numbers_at_their_limits() {
    check(NUMBERS, true).await;
}

#[tokio::test]
async fn texts_identifiers_and_enumerations() {
    check(TEXTS, true).await;
}

#[tokio::test]
async fn dates_and_times_at_their_limits() {
    check(TIMES, true).await;
}

#[tokio::test]
async fn nullable_dictionaries_arrays_maps_and_tuples() {
    check(COMPOSED, true).await;
}

#[tokio::test]
async fn types_that_are_stored_as_others() {
    check(OTHERWISE_NAMED, false).await;
}

#[tokio::test]
async fn dictionaries_of_every_index_width() {
    let server = Server::new().await;
    // The empty string is a key too: 255 and 65,535 more fill a width exactly.
    for (index, keys) in [255u32, 256, 65_535, 65_536, 70_000].into_iter().enumerate() {
        server
            .execute(&format!(
                "CREATE TABLE t{index} (n UInt32, v LowCardinality(String), \
                 a Array(LowCardinality(Nullable(String)))) ENGINE = MergeTree ORDER BY n"
            ))
            .await;
        let mut block = Block::new(columns(&[
            ("n", "UInt32"),
            ("v", "LowCardinality(String)"),
            ("a", "Array(LowCardinality(Nullable(String)))"),
        ]));
        for n in 0..keys {
            let (v, a) = (format!("k{n}"), format!("[\"{n}\",null,\"{n}\"]"));
            block.push_row(&[Cell::Int(n.into()), Cell::Text(&v), Cell::Json(&a)]).unwrap();
        }
        server.insert(&format!("t{index}"), &mut block).await;
        let found = server
            .text(&format!(
                "SELECT count(), uniqExact(v), \
                 countIf(v = concat('k', toString(n)) AND a = [toString(n), NULL, toString(n)]) \
                 FROM t{index}"
            ))
            .await;
        assert_eq!(found, format!("{keys}\t{keys}\t{keys}\n"));
    }
}

#[tokio::test]
async fn an_empty_block_is_accepted_and_adds_nothing() {
    let server = Server::new().await;
    server
        .execute("CREATE TABLE t (n UInt8, v LowCardinality(String)) ENGINE = MergeTree ORDER BY n")
        .await;
    let mut block = Block::new(columns(&[("n", "UInt8")]));
    server.insert("t", &mut block).await;
    block.push_row(&[Cell::Int(1)]).unwrap();
    drop(block.take());
    server.insert("t", &mut block).await;
    assert_eq!(server.text("SELECT count() FROM t").await, "0\n");
}

#[tokio::test]
async fn a_default_is_computed_for_the_rows_that_ask_for_it() {
    let server = Server::new().await;
    let types = [
        ("u", "UInt8", "7", "9"),
        ("s", "String", "concat('row ', toString(n))", "\"given\""),
        ("l", "LowCardinality(String)", "'low'", "\"given\""),
        ("e", "Enum8('a' = 1, 'b' = 2)", "'b'", "\"a\""),
        ("d", "DateTime64(3, 'UTC')", "toDateTime64(n, 3, 'UTC')", "\"2024-01-01\""),
        ("i", "IPv6", "'::1'", "\"::2\""),
        ("f", "FixedString(2)", "'xy'", "\"a\""),
        ("m", "Decimal(76, 2)", "n / 4", "-1.5"),
        ("b", "Bool", "true", "false"),
        (
            "g",
            "UUID",
            "toUUID('01020304-0506-0708-090a-0b0c0d0e0f10')",
            "\"11111111-1111-1111-1111-111111111111\"",
        ),
    ];
    let declared: Vec<_> = types
        .iter()
        .map(|(name, kind, default, _)| format!("{name} {kind} DEFAULT {default}"))
        .collect();
    server
        .execute(&format!(
            "CREATE TABLE t (n UInt8, {}) ENGINE = MergeTree ORDER BY n",
            declared.join(", ")
        ))
        .await;
    let mut columns = vec![Column::new("n", "UInt8".parse().unwrap())];
    for (name, kind, ..) in types {
        let column = Column::new(name, kind.parse().unwrap()).with_default();
        assert!(column.takes_default());
        columns.push(column);
    }
    let mut block = Block::new(columns.into());
    let mut asking = vec![Cell::Int(1)];
    asking.resize(types.len() + 1, Cell::Default);
    block.push_row(&asking).unwrap();
    let mut giving = vec![Cell::Int(2)];
    giving.extend(types.map(|(_, _, _, given)| Cell::Json(given)));
    block.push_row(&giving).unwrap();
    server.insert("t", &mut block).await;
    assert_eq!(
        server.text("SELECT * FROM t ORDER BY n").await,
        "1\t7\trow 1\tlow\tb\t1970-01-01 00:00:01.000\t::1\txy\t0.25\ttrue\t01020304-0506-0708-090a-0b0c0d0e0f10\n\
         2\t9\tgiven\tgiven\ta\t2024-01-01 00:00:00.000\t::2\ta\0\t-1.5\tfalse\t11111111-1111-1111-1111-111111111111\n"
    );
}
