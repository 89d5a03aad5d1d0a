//! Tables that become others while the consumer runs, by every way there is: what comes
//! next is encoded for what the table is, and nothing is bent on the way.

use integration_tests::{
    pipeline::{Pipeline, header},
    stack::Stack,
};

use crate::{consumer::Feed, diagnosis::create_topic};

const PROVENANCE: &str = "_topic LowCardinality(String), _partition UInt32, _offset UInt64";

const ENGINE: &str =
    "ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 10000";

/// A table of these columns beside an id and a number.
async fn create(pipeline: &Pipeline<'_>, name: &str, columns: &str) {
    let sql =
        format!("CREATE TABLE {name} (event_id UUID, n UInt32, {columns}, {PROVENANCE}) {ENGINE}");
    pipeline.execute(&sql).await.unwrap();
}

/// What is done to the table, what comes then, and what becomes of it: a value of the
/// table, or the reason of a letter.
type Step<'a> = (&'a [&'a str], &'a str, Result<(&'a str, &'a str), &'a str>);

/// Each alteration is followed at once by a record that fitted the table before. What fits
/// it now is stored as it is, what does not is parked with the reason.
#[tokio::test(flavor = "multi_thread")]
async fn consumer_bends_nothing_in_a_table_that_became_another() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let topic = pipeline.topic("thing");
    pipeline.route("thing", "things", "max_delay = '50ms'").unwrap();
    create(&pipeline, "things", "v UInt32").await;
    let feed = Feed::of(&pipeline, "thing").await;
    let consumer = pipeline.consumer().unwrap();
    feed.send(0, r#"{"n": 0, "v": 300}"#);
    pipeline.arrived("things", 1).await.unwrap();
    let letters = format!("outpour.dead-letter.{topic}");
    create_topic(pipeline.stack, &letters, &[]).await;
    let letters = pipeline.reader(&letters).unwrap();
    let (mut n, mut rows) = (0_u64, 1);
    let columns = "d Decimal(9, 4), at DateTime64(3, 'UTC'), e Enum8('a' = 1, 'b' = 2), \
                   p Tuple(x UInt8, y UInt8), m Nullable(UInt8), z DateTime('UTC')";
    let all = r#""d": 1.2399, "at": "1930-01-01", "e": "a", "p": {"x": 1, "y": 2}, "m": null, "z": "2026-01-01 00:00:00""#;
    let steps: [Step<'_>; 9] = [
        (&["ALTER TABLE things MODIFY COLUMN v UInt8"], r#""v": 300"#, Err("out_of_range")),
        (&["ALTER TABLE things MODIFY COLUMN v Int8"], r#""v": -1"#, Ok(("v", "-1"))),
        (
            &["ALTER TABLE things ADD COLUMN note String DEFAULT 'none'"],
            r#""v": 1, "note": "said""#,
            Ok(("note", "said")),
        ),
        (&["CREATE", "DROP TABLE things", "RENAME TABLE next TO things"], all, Ok(("d", "1.2399"))),
        (&["ALTER TABLE things MODIFY COLUMN d Decimal(9, 2)"], all, Err("too_many_digits")),
        (
            &["ALTER TABLE things MODIFY COLUMN d Decimal(9, 4), MODIFY COLUMN at DateTime('UTC')"],
            all,
            Err("out_of_range"),
        ),
        (
            &[
                "TRUNCATE TABLE things",
                "ALTER TABLE things MODIFY COLUMN at Nullable(DateTime64(3, 'UTC')), MODIFY COLUMN m UInt8 DEFAULT 7",
            ],
            all,
            Err("null_not_allowed"),
        ),
        // The same names and numbers, the other way round.
        (
            &[
                "CREATE",
                "ALTER TABLE next DROP COLUMN e, DROP COLUMN p",
                "ALTER TABLE next ADD COLUMN e Enum8('b' = 1, 'a' = 2), ADD COLUMN p Tuple(y UInt8, x UInt8)",
                "EXCHANGE TABLES things AND next",
                "DROP TABLE next",
            ],
            all,
            Ok(("concat(e, toString(p.x))", "a1")),
        ),
        // Times without a zone are those of the column's.
        (
            &["ALTER TABLE things MODIFY COLUMN z DateTime('Asia/Tokyo')"],
            all,
            Ok(("toUnixTimestamp(z)", "1767193200")),
        ),
    ];
    for (altered, fields, outcome) in steps {
        // What was stored and is not committed is read again, and has to fit.
        pipeline.at_rest(n.cast_signed() + 1).await.unwrap();
        for sql in altered {
            match *sql {
                "CREATE" => create(&pipeline, "next", columns).await,
                sql => pipeline.execute(sql).await.unwrap(),
            }
        }
        if altered.iter().any(|sql| sql.contains("TABLE next") || sql.starts_with("TRUNCATE")) {
            rows = 0;
        }
        n += 1;
        feed.send(n, &format!("{{\"n\": {n}, {fields}}}"));
        match outcome {
            Ok((value, expected)) => {
                rows += 1;
                pipeline.arrived("things", rows).await.unwrap();
                let sql = format!("SELECT toString({value}) FROM things WHERE n = {n}");
                let found: String = pipeline.clickhouse().query(&sql).fetch_one().await.unwrap();
                assert_eq!(found, expected, "{altered:?}");
            }
            Err(reason) => {
                let letter = letters.take(1, |message| {
                    Some((
                        header(message, "outpour-source-offset")?,
                        header(message, "outpour-reason")?,
                    ))
                });
                assert_eq!(letter.unwrap(), [(n.to_string(), reason.to_owned())], "{altered:?}");
            }
        }
    }
    pipeline.at_rest(n.cast_signed() + 1).await.unwrap();
    letters.nothing_more().unwrap();
    let log = consumer.log_text();
    assert!(log.contains("has other columns by now"), "{log}");
    consumer.stop().await.unwrap();
}
