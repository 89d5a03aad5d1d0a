//! Questions to ClickHouse.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use outpour_schemas::config::Config;

use super::super::{
    facts::{Rights, Server, Setting, Shape, Table, View},
    probe::{SCRATCH_PATTERN, scratch_privileges, view_target},
};
use crate::{
    decode::PROVENANCE,
    error::ConsumerError,
    sink::{ClickHouse, INSERT_SETTINGS, NEWER_INSERT_SETTINGS, SinkError},
    table::{TableName, TableSchema, quoted},
    tables,
};

/// Settings that are not sent with inserts, and that change what becomes of them.
const OTHER_SETTINGS: [&str; 3] =
    ["insert_deduplication_token", "materialized_views_ignore_errors", "readonly"];

/// A scratch table this much older than now, in seconds, is nobody's any more.
const ABANDONED_AFTER: u32 = 600;

/// # Errors
/// When the server does not answer, or refuses to.
pub(in super::super) async fn ask(
    config: &Config,
    clickhouse: &ClickHouse,
) -> Result<Server, ConsumerError> {
    clickhouse.on_any(|| everything(config, clickhouse)).await.map_err(|source| {
        ConsumerError::clickhouse("asking for tables and rights", clickhouse, source)
    })
}

async fn everything(config: &Config, clickhouse: &ClickHouse) -> Result<Server, SinkError> {
    let (clock_ahead_ms, round_trip_ms) = clock(clickhouse).await?;
    let server: Vec<(String, String)> =
        clickhouse.fetch(clickhouse.query("SELECT version(), currentUser()")).await?;
    let (version, user) = server.into_iter().next().unwrap_or_default();
    let has_replicas = config.clickhouse.has_replicas();
    let mut tables: Vec<Table> = Vec::new();
    for route in tables::routes(config) {
        let name = TableName::parse(&route.table, &config.clickhouse.database);
        if tables.iter().all(|table| table.name != name) {
            tables.push(table(clickhouse, name, has_replicas).await?);
        }
    }
    let leftovers: Vec<(String, String)> = clickhouse
        .fetch(
            clickhouse
                .query(
                    "SELECT database, name FROM system.tables
                     WHERE match(name, ?) AND metadata_modification_time < now() - ?
                     ORDER BY engine = 'MaterializedView' DESC, database, name",
                )
                .bind(SCRATCH_PATTERN)
                .bind(ABANDONED_AFTER),
        )
        .await?;
    Ok(Server {
        version,
        user,
        has_replicas,
        settings: settings(clickhouse).await?,
        tables,
        leftovers: leftovers.into_iter().map(name).collect(),
        zone: zone(clickhouse).await?,
        clock_ahead_ms,
        round_trip_ms,
    })
}

fn name((database, table): (String, String)) -> TableName {
    TableName { database, table }
}

/// The time zone of columns that have none, unless it is UTC under any name: the offsets of
/// every season that a `DateTime` reaches tell.
async fn zone(clickhouse: &ClickHouse) -> Result<Option<String>, SinkError> {
    const SQL: &str = "SELECT timezone(), arrayExists(
        season -> timeZoneOffset(toDateTime(season * 7776000)) != 0, range(550))";
    let zone: Vec<(String, u8)> = clickhouse.fetch(clickhouse.query(SQL)).await?;
    Ok(zone.into_iter().find(|(_, has_offset)| *has_offset != 0).map(|(name, _)| name))
}

/// By how much the server's clock is ahead, taken at the middle of the way.
async fn clock(clickhouse: &ClickHouse) -> Result<(i64, i64), SinkError> {
    const NOW: &str = "SELECT toUnixTimestamp64Milli(now64(3))";
    // The first question also waits for the connection.
    let _: Vec<i64> = clickhouse.fetch(clickhouse.query(NOW)).await?;
    let (asked, asked_at) = (SystemTime::now(), Instant::now());
    let there: Vec<i64> = clickhouse.fetch(clickhouse.query(NOW)).await?;
    let took = asked_at.elapsed();
    let here = (asked + took / 2).duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = |n: u128| i64::try_from(n).unwrap_or(i64::MAX);
    let there = there.first().copied().unwrap_or_default();
    Ok((there - ms(here.as_millis()), ms(took.as_millis())))
}

async fn settings(clickhouse: &ClickHouse) -> Result<BTreeMap<String, Setting>, SinkError> {
    let names = INSERT_SETTINGS.iter().chain(&NEWER_INSERT_SETTINGS).map(|(name, _)| *name);
    let names: Vec<_> = names.chain(OTHER_SETTINGS).collect();
    type Row = (String, String, Option<String>, Option<String>, u8);
    let rows: Vec<Row> = clickhouse
        .fetch(
            clickhouse
                .query(
                    "SELECT name, value, min, max, readonly FROM system.settings WHERE name IN ?",
                )
                .bind(names),
        )
        .await?;
    let setting = |(name, value, min, max, readonly)| {
        (name, Setting { value, is_fixed: readonly != 0, min, max })
    };
    Ok(rows.into_iter().map(setting).collect())
}

/// Whether the user has all of `privileges`.
async fn granted(
    clickhouse: &ClickHouse,
    privileges: &str,
    on: &str,
) -> Result<Option<bool>, SinkError> {
    let sql = format!("CHECK GRANT {privileges} ON {on}");
    match clickhouse.fetch_bytes(&sql, "TabSeparated").await {
        Ok(answer) => Ok(match answer.trim_ascii() {
            b"1" => Some(true),
            b"0" => Some(false),
            _ => None,
        }),
        // Older servers do not know the statement.
        Err(error) if error.code.is_some() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the server said; that it said nothing is an error.
fn only_said(outcome: Result<(), SinkError>) -> Result<Option<SinkError>, SinkError> {
    match outcome {
        Ok(()) => Ok(None),
        Err(error) if error.code.is_some() => Ok(Some(error)),
        Err(error) => Err(error),
    }
}

async fn table(
    clickhouse: &ClickHouse,
    name: TableName,
    has_replicas: bool,
) -> Result<Table, SinkError> {
    let shape = shape(clickhouse, &name).await?;
    let views = views(clickhouse, &name).await?;
    let on = name.quoted();
    let provenance: Vec<_> = shape
        .iter()
        .flat_map(|shape| &shape.finding.columns)
        .filter(|column| PROVENANCE.iter().any(|(name, _)| *name == column.name))
        .map(|column| quoted(&column.name))
        .collect();
    let select = if provenance.is_empty() {
        None
    } else {
        let privilege = format!("SELECT({})", provenance.join(", "));
        granted(clickhouse, &privilege, &on).await?
    };
    let sync = if has_replicas && shape.as_ref().is_some_and(|shape| shape.finding.is_replicated())
    {
        granted(clickhouse, "SYSTEM SYNC REPLICA", &on).await?
    } else {
        None
    };
    let database = format!("{}.*", quoted(&name.database));
    let rights = Rights {
        insert: granted(clickhouse, "INSERT", &on).await?,
        select,
        sync,
        scratch: granted(clickhouse, scratch_privileges(&views), &database).await?,
    };
    let schema = shape.as_ref().map(|s| TableSchema::of(name.clone(), &s.finding.columns));
    let refusal = match schema {
        // Of columns that cannot be written, routes.rs says which.
        Some(Ok(schema)) => only_said(clickhouse.try_insert(&schema).await)?,
        Some(Err(_)) | None => None,
    };
    let hidden = match &shape {
        Some(_) => only_said(clickhouse.check_sees_all(&name).await)?,
        None => None,
    };
    let hidden = hidden.filter(SinkError::is_of_hidden_rows);
    Ok(Table { name, shape, rights, refusal, hidden, views })
}

async fn shape(clickhouse: &ClickHouse, name: &TableName) -> Result<Option<Shape>, SinkError> {
    let Some(finding) = clickhouse.find_table(name).await? else { return Ok(None) };
    let keys: Vec<(String, String, String)> = clickhouse
        .fetch(
            clickhouse
                .query(
                    "SELECT engine_full, sorting_key, partition_key FROM system.tables
                     WHERE database = ? AND name = ?",
                )
                .bind(&name.database)
                .bind(&name.table),
        )
        .await?;
    let indices: Vec<String> = clickhouse
        .fetch(
            clickhouse
                .query(
                    "SELECT expr FROM system.data_skipping_indices
                     WHERE database = ? AND table = ?",
                )
                .bind(&name.database)
                .bind(&name.table),
        )
        .await?;
    let (engine_full, sorting_key, partition_key) = keys.into_iter().next().unwrap_or_default();
    Ok(Some(Shape { finding, engine_full, sorting_key, partition_key, indices }))
}

/// The views that an insert into `table` is pushed through, and the views of
/// their targets.
async fn views(clickhouse: &ClickHouse, table: &TableName) -> Result<Vec<View>, SinkError> {
    let mut found: Vec<View> = Vec::new();
    let mut sources = VecDeque::from([table.clone()]);
    while let Some(source) = sources.pop_front() {
        for name in dependents(clickhouse, &source).await? {
            if found.iter().any(|view| view.name == name) {
                continue;
            }
            let Some(view) = view(clickhouse, name, &source).await? else { continue };
            // Two views may write to one table.
            if let Some(target) = &view.target
                && *target != *table
                && found.iter().all(|other| other.target.as_ref() != Some(target))
            {
                sources.push_back(target.clone());
            }
            found.push(view);
        }
    }
    Ok(found)
}

async fn dependents(
    clickhouse: &ClickHouse,
    name: &TableName,
) -> Result<Vec<TableName>, SinkError> {
    let rows: Vec<(String, String)> = clickhouse
        .fetch(
            clickhouse
                .query(
                    "SELECT view.1, view.2 FROM (
                         SELECT arrayJoin(arrayZip(dependencies_database, dependencies_table)) AS view
                         FROM system.tables WHERE database = ? AND name = ?)",
                )
                .bind(&name.database)
                .bind(&name.table),
        )
        .await?;
    Ok(rows.into_iter().map(self::name).collect())
}

/// `None` for what is no materialised view.
async fn view(
    clickhouse: &ClickHouse,
    name: TableName,
    source: &TableName,
) -> Result<Option<View>, SinkError> {
    let rows: Vec<(String, String, String, String)> = clickhouse
        .fetch(
            clickhouse
                .query(
                    "SELECT engine, create_table_query, as_select, toString(uuid)
                     FROM system.tables WHERE database = ? AND name = ?",
                )
                .bind(&name.database)
                .bind(&name.table),
        )
        .await?;
    let source = source.clone();
    let Some((engine, create, select, uuid)) = rows.into_iter().next() else {
        let select = String::new();
        return Ok(Some(View { name, source, select, target: None, shape: None }));
    };
    if engine != "MaterializedView" {
        return Ok(None);
    }
    let target = view_target(&create, &name, &uuid);
    let shape = shape(clickhouse, &target).await?;
    Ok(Some(View { name, source, select, target: Some(target), shape }))
}
