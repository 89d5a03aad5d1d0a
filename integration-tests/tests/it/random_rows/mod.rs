//! Random payloads for random columns: every record is stored to the exact value
//! or parked, and it is known beforehand which.

mod dice;
mod kind;
mod value;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clickhouse::Client;
use integration_tests::stack::Stack;
use outpour_consumer::{
    batch::{Batch, Limits},
    decode::Mapping,
    source::{Headers, RecordView},
    table::{DescribedColumn, TableName, TableSchema},
};
use outpour_schemas::config::Route;
use serde_json::Value;

use self::{dice::Dice, kind::Kind, value::Shown};

const ROWS: i64 = 50;
const COLUMNS: usize = 4;

/// A payload, and the row that it must become; `None` if it must be parked.
struct Record {
    payload: String,
    row: Option<Vec<Shown>>,
}

impl Record {
    fn random(kinds: &[Kind], dice: &mut Dice) -> Record {
        let (mut members, mut row) = (Vec::new(), Some(Vec::new()));
        for (index, kind) in kinds.iter().enumerate() {
            let (json, shown) = kind.value(dice);
            let is_absent = dice.one_in(60);
            if !is_absent {
                // The last of two is the one that counts.
                if dice.one_in(30) {
                    members.push(format!("\"c{index}\": [{{}}, \"x\"]"));
                }
                members.push(format!("\"c{index}\":{json}"));
            }
            let shown = match (is_absent, kind.takes_null()) {
                (false, _) => shown,
                (true, true) => Some(Shown::Null),
                (true, false) => None,
            };
            row = row.zip(shown).map(|(mut row, shown)| {
                row.push(shown);
                row
            });
        }
        if dice.one_in(4) {
            members.insert(0, "\"unknown\" : {\"c0\":[1e5, null]}".to_owned());
        }
        let separator = dice.pick(&[",", " ,\n\t"]);
        Record { payload: format!("{{{}}}", members.join(separator)), row }
    }
}

struct Table {
    client: Client,
    name: String,
    kinds: Vec<Kind>,
    mapping: Arc<Mapping>,
    insert_sql: Arc<str>,
}

impl Table {
    async fn create(client: &Client, database: &str, name: String, kinds: &[Kind]) -> Table {
        let declared: Vec<_> = kinds
            .iter()
            .enumerate()
            .map(|(index, kind)| format!("c{index} {}", kind.sql()))
            .collect();
        let sql = format!(
            "CREATE TABLE {name} (_offset UInt64, {}) ENGINE = MergeTree ORDER BY _offset",
            declared.join(", ")
        );
        client.query_raw(&sql).execute().await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let described: Vec<(String, String, String)> = client
            .query(
                "SELECT name, type, default_kind FROM system.columns \
                 WHERE database = currentDatabase() AND table = ? ORDER BY position",
            )
            .bind(&name)
            .fetch_all()
            .await
            .unwrap();
        let described: Vec<_> = described
            .into_iter()
            .map(|(name, type_name, default_kind)| DescribedColumn {
                name,
                type_name,
                default_kind,
            })
            .collect();
        let schema = TableSchema::of(TableName::parse(&name, database), &described).unwrap();
        let route = Route { topic: "^.*".to_owned(), table: name.clone(), ..Route::default() };
        let columns: Vec<_> = schema.columns.iter().map(|column| column.column.clone()).collect();
        Table {
            client: client.clone(),
            name,
            kinds: kinds.to_vec(),
            mapping: Arc::new(Mapping::new(0, &route, &schema).unwrap()),
            insert_sql: schema.insert_sql(&columns),
        }
    }

    /// Sends the records through a batch, and compares. Returns how many were
    /// stored, and how many parked.
    async fn check(&self, records: &[Record]) -> (usize, usize) {
        let limits = Limits { rows: usize::MAX, bytes: usize::MAX, delay: Duration::MAX };
        let mut batch = Batch::new(&[Arc::clone(&self.mapping)], "test".into(), limits, 0);
        for (offset, record) in (0..).zip(records) {
            let view = RecordView {
                topic: "topic",
                partition: 0,
                offset,
                timestamp_ms: None,
                key: None,
                value: Some(record.payload.as_bytes()),
                headers: Headers::new(),
            };
            batch.push(&view, Instant::now());
        }
        let sealed = batch.seal();
        for letter in &sealed.parked {
            let record = &records[usize::try_from(letter.offset).unwrap()];
            assert!(record.row.is_none(), "{:?}\n{}", letter.rejection, record.payload);
        }
        for insert in sealed.inserts {
            let mut request = self.client.insert_formatted_with(&*self.insert_sql);
            for piece in insert.body {
                request.send(piece).await.unwrap();
            }
            request.end().await.unwrap_or_else(|error| panic!("{:?}: {error}", self.kinds));
        }
        let stored = self.compare(records).await;
        assert_eq!(stored + sealed.parked.len(), records.len());
        (stored, sealed.parked.len())
    }

    async fn compare(&self, records: &[Record]) -> usize {
        let sql = format!("SELECT * FROM {} ORDER BY _offset", self.name);
        let mut found = self.client.query_raw(&sql).fetch_bytes("JSONCompactEachRow").unwrap();
        let found = String::from_utf8(found.collect().await.unwrap().to_vec()).unwrap();
        for line in found.lines() {
            let values: Vec<Value> = serde_json::from_str(line).unwrap();
            let (offset, values) = values.split_first().unwrap();
            let offset: usize = offset.as_str().unwrap().parse().unwrap();
            let Record { payload, row } = &records[offset];
            let Some(row) = row else {
                panic!("{:?}\n{payload}\nshould be refused, and is stored as\n{line}", self.kinds)
            };
            for ((kind, expected), found) in self.kinds.iter().zip(row).zip(values) {
                assert!(expected.is(found), "{}: {expected:?} is {found}\n{payload}", kind.sql());
            }
        }
        found.lines().count()
    }
}

/// A client of a database of the test's own.
async fn client() -> (Client, String) {
    let stack = Stack::shared().await.unwrap();
    let database = stack.clickhouse_database().await.unwrap();
    let client = Client::default().with_url(stack.clickhouse.url()).with_database(&database);
    let client = [
        ("async_insert", "0"),
        ("allow_suspicious_low_cardinality_types", "1"),
        ("flatten_nested", "0"),
        ("output_format_json_quote_64bit_integers", "1"),
        ("output_format_json_quote_64bit_floats", "1"),
        ("output_format_json_quote_decimals", "1"),
    ]
    .into_iter()
    .fold(client, |client, (name, value)| client.with_setting(name, value));
    (client, database)
}

/// Tables of these columns, a few at a time, each with rows of its own.
async fn check_all(kinds: &[Kind], dice: &mut Dice) {
    let (client, database) = client().await;
    let (mut stored, mut parked) = (0, 0);
    for (number, kinds) in kinds.chunks(COLUMNS).enumerate() {
        let table = Table::create(&client, &database, format!("t{number}"), kinds).await;
        let records: Vec<_> = (0..ROWS).map(|_| Record::random(kinds, dice)).collect();
        let (rows, letters) = table.check(&records).await;
        stored += rows;
        parked += letters;
    }
    // Neither is the rule, or little would have been shown.
    assert!(stored > parked / 2 && parked > stored / 20, "{stored} stored, {parked} parked");
}

/// Other ones with every run; what fails is shown whole, so that no seed is needed.
fn dice(misfits: usize) -> Dice {
    Dice::new(uuid::Uuid::now_v7().as_u64_pair().1, misfits)
}

#[tokio::test]
async fn every_scalar_type_takes_what_fits_and_refuses_the_rest() {
    let kinds: Vec<_> = Kind::scalars().into_iter().flat_map(Kind::around).collect();
    check_all(&kinds, &mut dice(40)).await;
}

#[tokio::test]
async fn types_in_types_take_what_fits_and_refuse_the_rest() {
    // A row of these has hundreds of values.
    let mut dice = dice(400);
    let kinds: Vec<_> =
        (0..60 * COLUMNS).map(|number| Kind::any(&mut dice, 1 + number % 3)).collect();
    check_all(&kinds, &mut dice).await;
}
