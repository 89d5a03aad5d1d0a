//! Putting right what was found: rows that are missing are read again from Kafka;
//! of those that are there more than once, all go first; events that never came to
//! Kafka are written to the outbox once more. Whatever happens on the
//! way, what a table lacks by then is missing, and the next time finds it.

use outpour_schemas::config::{Config, Mode};
use tokio_util::sync::CancellationToken;

use super::{
    Args, ReconcileError,
    compare::Counts,
    reconcile,
    report::{OffsetRange, Report},
    republish::republish,
    text::rows_of,
};
use crate::{
    confirm::confirm,
    error::ConsumerError,
    replay::{ReplayRange, replay_ranges},
    sink::ClickHouse,
};

/// Asks, repairs, and compares once more. What is unexpected stays: nothing says
/// that nobody needs it.
///
/// # Errors
/// When it may not, or cannot; it may be called again.
pub(crate) async fn fix(
    config: &Config,
    args: &Args,
    found: Report,
    stop: &CancellationToken,
) -> Result<Report, ConsumerError> {
    let ranges: Vec<_> = found.missing.iter().chain(found.wrong()).filter_map(wanted).collect();
    let unpublished = events_missing(&found);
    if ranges.is_empty() && unpublished == 0 {
        return Ok(found);
    }
    if unpublished > 0 && config.relay.mode == Mode::Poll {
        return Err(ReconcileError::Polled {
            table: config.outbox.table.clone(),
            column: config.outbox.column_published_at.clone(),
        }
        .into());
    }
    for table in found.wrong().filter_map(|range| range.table.as_ref()) {
        if let Some(engine) = found.keeps_no_order.get(table) {
            let (table, engine) = (table.clone(), engine.clone());
            return Err(ReconcileError::Merges { table, engine }.into());
        }
    }
    let Counts { missing, duplicated, different, .. } = found.totals;
    let question = question(&found, !ranges.is_empty());
    confirm(&question, args.yes)?;
    let clickhouse = ClickHouse::new(&config.clickhouse)?;
    for range in found.wrong() {
        if let Some(sql) = delete(range) {
            clickhouse.execute(&sql).await.map_err(|source| {
                ConsumerError::clickhouse("deleting what is wrong", &clickhouse, source)
            })?;
        }
    }
    if !ranges.is_empty() {
        replay_ranges(config, &ranges, stop).await?;
    }
    let (mut now, mut left, mut written) = (found, unpublished, 0);
    loop {
        if let Some(outbox) = now.outbox.as_ref().filter(|outbox| outbox.missing > 0) {
            written += republish(config, &outbox.missing_ids).await?;
        }
        now = reconcile(config, args).await?;
        // More of them than a report lists take another round.
        match events_missing(&now) {
            rest if rest == 0 || rest >= left => break,
            rest => left = rest,
        }
    }
    if !ranges.is_empty() {
        now.notes.push(format!(
            "{missing} missing rows, {duplicated} duplicates and {different} rows of other values were \
             found, and {} ranges replayed",
            ranges.len()
        ));
    }
    if unpublished > 0 {
        now.notes.push(format!("{written} events that never came to Kafka were written anew"));
    }
    Ok(now)
}

fn events_missing(report: &Report) -> u64 {
    report.outbox.as_ref().map_or(0, |outbox| outbox.missing)
}

fn question(found: &Report, replays: bool) -> String {
    let Counts { missing, duplicated, different, .. } = found.totals;
    let mut questions = Vec::new();
    if replays {
        questions.push(format!(
            "Replay {missing} missing rows, and delete and replay those of {duplicated} duplicates{}?",
            match different {
                0 => String::new(),
                rows => format!(" and {rows} rows of other values"),
            }
        ));
    }
    if let Some(outbox) = found.outbox.as_ref().filter(|outbox| outbox.missing > 0) {
        questions.push(format!(
            "Write {} events to {} anew, for the relay to publish?",
            outbox.missing, outbox.table
        ));
    }
    questions.join(" ")
}

fn wanted(range: &OffsetRange) -> Option<ReplayRange> {
    // The letters of what no route takes are no rows of any table.
    let table = range.table.clone()?;
    Some(ReplayRange {
        topic: range.topic.clone(),
        partition: range.partition,
        table,
        from: range.from,
        until: range.to,
    })
}

fn delete(range: &OffsetRange) -> Option<String> {
    let table = range.table.as_deref()?;
    let place = (range.topic.as_str(), range.partition, table);
    let rows = rows_of(&place, (range.from, range.to));
    let (table, rows) = rows.split_once(" WHERE ")?;
    Some(format!("ALTER TABLE {table} DELETE WHERE {rows} SETTINGS mutations_sync = 2"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::outbox::Outbox;

    #[test]
    fn the_question_names_what_is_changed_and_nothing_else() {
        let totals = Counts { missing: 3, duplicated: 2, ..Counts::default() };
        let mut report = Report { totals, ..Report::default() };
        assert!(question(&report, true).ends_with("those of 2 duplicates?"));
        let table = "public.outbox".to_owned();
        report.outbox = Some(Outbox { table, missing: 7, ..Outbox::default() });
        let both = question(&report, true);
        assert!(
            both.contains("Replay 3 missing rows") && both.contains("? Write 7 events"),
            "{both}"
        );
        assert!(question(&report, false).starts_with("Write 7 events to public.outbox anew"));
    }

    #[test]
    fn all_rows_of_a_doubled_range_are_deleted_and_no_others() {
        let range = OffsetRange {
            topic: "it's".into(),
            partition: 3,
            table: Some("shop.orders".into()),
            from: 5,
            to: 9,
            rows: 4,
        };
        assert_eq!(
            delete(&range).unwrap(),
            r"ALTER TABLE `shop`.`orders` DELETE WHERE _topic = 'it\'s' AND _partition = 3 AND _offset >= 5 AND _offset < 9 SETTINGS mutations_sync = 2"
        );
    }
}
