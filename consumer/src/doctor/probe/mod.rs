//! The proof that a repeated insert is dropped, by the table and by what the
//! views on it write to.
//!
//! ```text
//! twins.rs ─▶ create ─▶ insert, count, insert, count ─▶ drop
//! (pure)               └── the same bytes, settings and token ──┘
//! ```
//!
//! Nothing is written to the table itself, and no view is put on it: twins read
//! and fill twins alone. What was created is dropped, however the probe ends.

mod sql;
mod twins;

use std::collections::HashMap;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use self::twins::{TableTwin, Twins};
pub(super) use self::{
    sql::view_target,
    twins::{SCRATCH_PATTERN, scratch_privileges},
};
use super::facts::{Count, Outcome, Probed, Shape, Table};
use crate::{
    sink::{ClickHouse, Request, SinkError},
    statement,
    table::TableName,
    trace::Attempt,
};

/// Rows of the table that its twin is given.
const SAMPLE: u32 = 10;

/// What is off and can be put on, and without which a server refuses columns, keys and
/// the like that it has taken once.
const PERMISSIONS: &str = "SELECT name FROM system.settings
     WHERE type = 'Bool' AND value = '0' AND readonly = 0 AND isNull(min) AND isNull(max)
     AND match(name, '^(allow_suspicious_|(allow_experimental|enable)_.*_(type|codec|key|index|indice)s{0,1}$)')";

/// What failed, and at what.
type Failure = (&'static str, SinkError);

/// Probes `table`, whose shape is `shape`.
pub(super) async fn probe(
    clickhouse: &ClickHouse,
    table: &Table,
    shape: &Shape,
    stop: &CancellationToken,
) -> Probed {
    // Its end is random.
    let run = &uuid::Uuid::now_v7().simple().to_string()[24..];
    let twins = Twins::of(table, shape, run);
    let mut scratch = Scratch { clickhouse, created: Vec::new(), permissions: Vec::new() };
    let outcome = tokio::select! {
        biased;
        () = stop.cancelled() => Outcome::Interrupted,
        counted = scratch.count(table, shape, &twins, run) => match counted {
            Ok(counts) => Outcome::Counted(counts),
            Err((doing, error)) => {
                Outcome::Failed { doing, error: in_their_names(error, &twins) }
            }
        },
    };
    Probed { table: table.name.clone(), outcome, leftovers: scratch.drop_all().await }
}

/// What a twin is called means nothing to anybody.
fn in_their_names(mut error: SinkError, twins: &Twins) -> SinkError {
    let tables = twins.tables.iter().map(|twin| (&twin.name, &twin.original));
    let views = twins.views.iter().map(|twin| (&twin.name, &twin.original));
    for (name, original) in tables.chain(views) {
        error.message = error.message.replace(&name.table, &original.table);
    }
    error
}

struct Scratch<'a> {
    clickhouse: &'a ClickHouse,
    /// What is there, or may be, in the order of its creation.
    created: Vec<TableName>,
    /// Settings without which tables like those that are there may not be created.
    permissions: Vec<String>,
}

impl Scratch<'_> {
    async fn count(
        &mut self,
        table: &Table,
        shape: &Shape,
        twins: &Twins,
        run: &str,
    ) -> Result<Vec<Count>, Failure> {
        let permissions = self.clickhouse.fetch(self.clickhouse.query(PERMISSIONS)).await;
        self.permissions = permissions.map_err(|error| ("asking for settings", error))?;
        for twin in &twins.tables {
            let created = self.create(&twin.name, &twin.create).await;
            created.map_err(|error| ("creating a twin of the table", error))?;
        }
        // Views without rows to show for themselves get a stand-in.
        let mut stands_in = vec![false; twins.views.len()];
        for (view, stands_in) in twins.views.iter().zip(&mut stands_in) {
            let own = match &view.create {
                Some(create) => self.create(&view.name, create).await.is_ok(),
                None => false,
            };
            if !own {
                *stands_in = true;
                let created = self.create(&view.name, &view.create_stand_in).await;
                created.map_err(|error| ("creating a twin of a view", error))?;
            }
        }
        let columns = &shape.finding.columns;
        let body = self.sample(table, shape).await?;
        let typed = twins::inserted(columns).map(|c| (c.name.clone(), c.type_name.clone()));
        let fingerprint = statement::fingerprint(columns);
        let into = statement::insert(&twins.tables[0].name, typed, fingerprint);
        let insert = statement::whole(&into);
        let mut counts = self.insert_twice(twins, &insert, &body, &format!("{run}/1")).await?;
        let is_empty = |counts: &[Count], target: usize| {
            counts[target].after_first == 0 && twins.tables[target].keeps_rows
        };
        if twins.views.iter().any(|view| is_empty(&counts, view.target)) {
            for (view, stands_in) in twins.views.iter().zip(&mut stands_in) {
                if *stands_in || !is_empty(&counts, view.target) {
                    continue;
                }
                *stands_in = true;
                self.drop(&view.name)
                    .await
                    .map_err(|error| ("dropping a twin of a view", error))?;
                let created = self.create(&view.name, &view.create_stand_in).await;
                created.map_err(|error| ("creating a twin of a view", error))?;
            }
            // A table that adds rows up would leave out what adds up to nothing.
            let insert = statement::whole(&format!("{into} SETTINGS optimize_on_insert = 0"));
            let again = self.insert_twice(twins, &insert, &body, &format!("{run}/2")).await?;
            for (count, again) in counts.iter_mut().zip(again) {
                if count.after_first == 0 {
                    *count = again;
                }
            }
        }
        for (view, stands_in) in twins.views.iter().zip(stands_in) {
            counts[view.target].stand_in |= stands_in;
        }
        let kept = counts.into_iter().zip(&twins.tables).filter(|(_, twin)| twin.keeps_rows);
        Ok(kept.map(|(count, _)| count).collect())
    }

    /// Rows of the table, or where it has none, one of defaults.
    async fn sample(&self, table: &Table, shape: &Shape) -> Result<Bytes, Failure> {
        let columns = &shape.finding.columns;
        let rows = format!(
            "SELECT {} FROM {} LIMIT {SAMPLE}",
            twins::column_list(columns),
            table.name.quoted()
        );
        for sql in [rows, twins::defaults(columns)] {
            let body = self.clickhouse.fetch_bytes(&sql, "Native").await;
            let body = body.map_err(|error| ("reading rows to insert", error))?;
            if !body.is_empty() {
                return Ok(body);
            }
        }
        Ok(Bytes::new())
    }

    /// Parts that came to every twin by the first insert, and by both.
    async fn insert_twice(
        &self,
        twins: &Twins,
        insert: &str,
        body: &Bytes,
        token: &str,
    ) -> Result<Vec<Count>, Failure> {
        let counting = |error| ("counting what was inserted", error);
        let before = self.parts(twins).await.map_err(counting)?;
        let mut counted = Vec::new();
        for _ in 0..2 {
            let token = format!("outpour/doctor/{token}");
            let request = Request {
                sql: insert,
                body: std::slice::from_ref(body),
                token: &token,
                attempt: &Attempt::new(None),
            };
            let sent = self.clickhouse.send(request).await;
            sent.map_err(|error| ("inserting into the twin of the table", error))?;
            counted.push(self.parts(twins).await.map_err(counting)?);
        }
        let count = |(index, twin): (usize, &TableTwin)| Count {
            table: twin.original.clone(),
            view: twin.view.clone(),
            stand_in: false,
            after_first: counted[0][index].saturating_sub(before[index]),
            after_second: counted[1][index].saturating_sub(before[index]),
        };
        Ok(twins.tables.iter().enumerate().map(count).collect())
    }

    /// Parts that inserts have made in each twin. Rows would not tell: a merge may
    /// have removed some, or added them up.
    async fn parts(&self, twins: &Twins) -> Result<Vec<u64>, SinkError> {
        let names: Vec<_> = twins.tables.iter().map(|twin| twin.name.table.clone()).collect();
        let rows: Vec<(String, String, u64)> = self
            .clickhouse
            .fetch(
                self.clickhouse
                    .query(
                        "SELECT database, table, uniqExact(partition_id, min_block_number)
                         FROM system.parts
                         WHERE table IN ? AND min_block_number = max_block_number
                         GROUP BY database, table",
                    )
                    .bind(names),
            )
            .await?;
        let found: HashMap<_, _> = rows
            .into_iter()
            .map(|(database, table, parts)| (TableName { database, table }, parts))
            .collect();
        let parts = |twin: &TableTwin| found.get(&twin.name).copied().unwrap_or_default();
        Ok(twins.tables.iter().map(parts).collect())
    }

    async fn create(&mut self, name: &TableName, sql: &str) -> Result<(), SinkError> {
        // Noted before, since an answer may not come.
        self.created.push(name.clone());
        let created = self.clickhouse.execute_with(sql, &self.permissions).await;
        if created.as_ref().is_err_and(|error| error.code.is_some()) {
            self.created.pop();
        }
        created
    }

    async fn drop(&mut self, name: &TableName) -> Result<(), SinkError> {
        let sql = format!("DROP TABLE IF EXISTS {} SYNC", name.quoted());
        self.clickhouse.execute(&sql).await?;
        self.created.retain(|created| created != name);
        Ok(())
    }

    /// Drops what was created, views first. What cannot be dropped is returned.
    async fn drop_all(mut self) -> Vec<TableName> {
        let created: Vec<_> = self.created.iter().rev().cloned().collect();
        let mut left = Vec::new();
        for name in created {
            if self.drop(&name).await.is_err() {
                left.push(name);
            }
        }
        left
    }
}
