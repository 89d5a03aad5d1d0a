//! Whether a table can be exchanged at all, and what of it Kafka cannot give back.

use std::{collections::BTreeSet, sync::Arc};

use clickhouse::{RowOwned, RowRead};
use tokio_util::sync::CancellationToken;

use super::super::{Scene, error::ReplayError, escaped, run::blocking, target};
use crate::{
    error::ConsumerError, source::Subscription, statement::literal, table::TableName, tables,
};

async fn ask<T: RowOwned + RowRead>(scene: &Scene<'_>, sql: &str) -> Result<Vec<T>, ConsumerError> {
    let clickhouse = &scene.clickhouse;
    let asking = clickhouse.on_any(|| clickhouse.fetch::<T>(clickhouse.query(&escaped(sql))));
    asking
        .await
        .map_err(|source| ConsumerError::clickhouse("reading the tables", clickhouse, source))
}

/// # Errors
/// Says why not.
pub(super) async fn check(scene: &Scene<'_>, live: &TableName) -> Result<(), ConsumerError> {
    let finding = target::found(&scene.clickhouse, live).await?;
    let refused = |why: String| Err(ReplayError::refused(format!("--swap: {why}")).into());
    if finding.is_replicated() {
        return refused(format!(
            "table {live} is replicated: a table like it would claim the same path in Keeper. Make \
             one by hand, fill it with --into, and exchange the two ON CLUSTER"
        ));
    }
    // Views, Distributed tables and those without columns of provenance, too.
    // What comes while the two are exchanged is added to the new one.
    target::check(&scene.settings(None), &scene.clickhouse, true).await?;
    let (database, table) = (literal(&live.database), literal(&live.table));
    let engines: Vec<String> =
        ask(scene, &format!("SELECT engine FROM system.databases WHERE name = {database}")).await?;
    if !engines.iter().any(|engine| engine == "Atomic") {
        return refused(format!(
            "database {} has engine {}; tables are exchanged in one of engine Atomic alone",
            live.database,
            engines.first().map_or("unknown", String::as_str)
        ));
    }
    let views: Vec<String> = ask(
        scene,
        &format!(
            "SELECT arrayJoin(dependencies_table) FROM system.tables \
             WHERE database = {database} AND name = {table}"
        ),
    )
    .await?;
    if !views.is_empty() {
        return refused(format!(
            "materialised views read from table {live}: {}. They would count what is added after \
             the exchange a second time; drop them, and make them again afterwards",
            views.join(", ")
        ));
    }
    other_topics(scene, live).await
}

/// # Errors
/// When the table has, or gets, what is not of the topic.
async fn other_topics(scene: &Scene<'_>, live: &TableName) -> Result<(), ConsumerError> {
    let reader = Arc::clone(&scene.reader);
    let all = blocking(move || reader.topics()).await?;
    let subscribed = Subscription::of(&scene.config.consumer.topics);
    let into_it: Vec<_> = tables::routes(scene.config)
        .into_iter()
        .filter(|route| TableName::parse(&route.table, &scene.config.clickhouse.database) == *live)
        .collect();
    let fed = all.into_iter().filter(|topic| {
        *topic != scene.args.topic
            && subscribed.takes(topic)
            && into_it.iter().any(|route| target::takes(route, topic))
    });
    let mut others: BTreeSet<String> = fed.collect();
    let topic = literal(&scene.args.topic);
    let sql = format!(
        "SELECT toString(_topic) FROM {} WHERE _topic != {topic} LIMIT 1 BY _topic LIMIT 10",
        live.quoted()
    );
    others.extend(ask::<String>(scene, &sql).await?);
    if others.is_empty() {
        return Ok(());
    }
    let others: Vec<_> = others.into_iter().collect();
    Err(ReplayError::refused(format!(
        "--swap: table {live} holds other topics, too: {}. A table with this one alone would lose \
         them; use --live, or --into another table",
        others.join(", ")
    ))
    .into())
}

/// The rows of one partition that Kafka no longer has.
struct Lost {
    partition: i64,
    /// First and last offset.
    first: i64,
    last: i64,
    rows: u64,
}

async fn all_lost(scene: &Scene<'_>, live: &TableName) -> Result<Vec<Lost>, ConsumerError> {
    let newest: Vec<(i64, i64)> = ask(
        scene,
        &format!(
            "SELECT toInt64(_partition), toInt64(max(_offset)) FROM {} GROUP BY 1",
            live.quoted()
        ),
    )
    .await?;
    // Asked afterwards: the topic only grows.
    let (reader, topic) = (Arc::clone(&scene.reader), scene.args.topic.clone());
    let whole = blocking(move || reader.whole(&topic)).await?;
    for (partition, last) in newest {
        let part = whole.iter().find(|part| i64::from(part.partition) == partition);
        if part.is_none_or(|part| last >= part.until) {
            return Err(ReplayError::refused(format!(
                "--swap: table {live} has offset {last} of partition {partition}, which topic `{}` \
                 has not reached: the topic was made anew. Use --into another table",
                scene.args.topic
            ))
            .into());
        }
    }
    let lost = whole
        .iter()
        .map(|part| format!("(_partition = {} AND _offset < {})", part.partition, part.from));
    let lost = lost.collect::<Vec<_>>().join(" OR ");
    let rows: Vec<(i64, i64, i64, u64)> = ask(
        scene,
        &format!(
            "SELECT toInt64(_partition), toInt64(min(_offset)), toInt64(max(_offset)), count() \
             FROM {} WHERE {lost} GROUP BY 1 ORDER BY 1",
            live.quoted()
        ),
    )
    .await?;
    let lost = |(partition, first, last, rows)| Lost { partition, first, last, rows };
    Ok(rows.into_iter().map(lost).collect())
}

/// How many rows Kafka no longer has.
pub(super) async fn lost(scene: &Scene<'_>, live: &TableName) -> Result<u64, ConsumerError> {
    Ok(all_lost(scene, live).await?.iter().map(|lost| lost.rows).sum())
}

/// Copies them, and says how many.
pub(super) async fn copy(
    scene: &Scene<'_>,
    live: &TableName,
    shadow: &TableName,
    stop: &CancellationToken,
) -> Result<u64, ConsumerError> {
    /// Offsets of one statement, which has to end in `clickhouse.insert_timeout`.
    const AT_ONCE: i64 = 500_000;
    let mut copied = 0;
    for Lost { partition, first, last, rows } in all_lost(scene, live).await? {
        let mut from = first;
        while from <= last {
            if stop.is_cancelled() {
                return Err(ReplayError::Paused.into());
            }
            let until = (from + AT_ONCE).min(last + 1);
            let sql = format!(
                "INSERT INTO {} SELECT * FROM {} WHERE _partition = {partition} \
                 AND _offset >= {from} AND _offset < {until} \
                 SETTINGS insert_deduplicate = 0, max_partitions_per_insert_block = 0",
                shadow.quoted(),
                live.quoted()
            );
            target::execute(&scene.clickhouse, "copying rows that Kafka no longer has", &sql)
                .await?;
            from = until;
        }
        copied += rows;
    }
    Ok(copied)
}
