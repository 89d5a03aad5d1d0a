//! A table that routes write to: that it is there, may be written to, and drops
//! what it has had.

use outpour_schemas::{config::Config, program::Finding};

use super::super::facts::{Kafka, Server, Shape, Table};
use crate::{
    decode::EVENT_LOG,
    merging::Merging,
    source::Subscription,
    table::{TableName, quoted},
    tables,
};

/// `once`: exactly-once is asked for.
pub(super) fn judge(server: &Server, table: &Table, once: bool, config: &Config) -> Vec<Finding> {
    let check = "table";
    let name = &table.name;
    let Some(shape) = &table.shape else {
        return vec![
            Finding::problem(
                check,
                format!("table {name} does not exist, or user `{}` may not see it", server.user),
                "What goes to this table waits, with an alarm; if there is none, the consumer does not \
                 start.",
            )
            .fix(create(name, server.has_replicas)),
        ];
    };
    let engine = &shape.finding.engine;
    let mut findings = vec![Finding::ok(
        check,
        format!("{name}: {engine}, {} columns", shape.finding.columns.len()),
    )];
    findings.extend(deduplication(server, name, shape, once));
    findings.extend(merging(table, shape, once, config));
    findings.extend(rights(server, table, once));
    findings
}

fn create(name: &TableName, has_replicas: bool) -> String {
    if name.table == EVENT_LOG {
        return "outpour-consumer init".to_owned();
    }
    let (engine, setting) = if has_replicas {
        ("ReplicatedMergeTree", "replicated_deduplication_window")
    } else {
        ("MergeTree", "non_replicated_deduplication_window")
    };
    format!(
        "CREATE TABLE {} (…,\n    _topic LowCardinality(String), _partition UInt32, _offset UInt64,\n    \
         INDEX provenance _offset TYPE minmax)\nENGINE = {engine} ORDER BY …\n\
         SETTINGS {setting} = 10000;",
        name.quoted()
    )
}

fn deduplication(server: &Server, name: &TableName, shape: &Shape, once: bool) -> Option<Finding> {
    let check = "deduplication";
    let memory = &shape.finding.memory;
    if !once {
        return Some(Finding::ok(
            check,
            format!("{name}: not asked for (consumer.delivery = \"at-least-once\")"),
        ));
    }
    Some(match memory.check(server.has_replicas) {
        Ok(()) => Finding::ok(check, format!("{name} remembers {} inserts", memory.window())),
        Err(unfit) => Finding::problem(
            check,
            format!("table {name} {unfit}"),
            "What goes to this table waits, with an alarm, and if there is no other, the consumer \
             refuses to start: an insert that is repeated after its outcome was open would be \
             stored twice.",
        )
        .fix(unfit.fix(name)),
    })
}

/// Whether a row that is stored again does harm.
fn merging(table: &Table, shape: &Shape, once: bool, config: &Config) -> Option<Finding> {
    let (name, merging) = (&table.name, &shape.finding.merging);
    if !once || *merging == Merging::Never {
        return None;
    }
    let check = "engine";
    let engine = &shape.finding.engine;
    let routes = tables::routes(config);
    let mut ours = routes
        .iter()
        .filter(|route| TableName::parse(&route.table, &config.clickhouse.database) == *name);
    let takes_again = ours.all(|route| {
        merging.takes_again(|column| match route.columns.get(column) {
            Some(from) => from == "$offset",
            None => column == "_offset",
        })
    });
    if takes_again {
        let what = format!(
            "{name}: of rows of one sorting key, {engine} keeps that of the highest offset"
        );
        return Some(Finding::ok(check, what));
    }
    let what = format!("table {name} has engine {engine}, {}", merging.harm());
    let why = "Where a batch's outcome is open and its token may be forgotten, its rows are stored \
               again. reconcile cannot tell a row that was merged from one that is missing, and \
               replay --live refuses such a table.";
    let finding = match merging {
        // In their order, which is what the engine goes by.
        Merging::Replaced { .. } => Finding::warning(check, what, why),
        _ => Finding::problem(check, what, why),
    };
    Some(finding.fix(merging.remedy(name)))
}

fn rights(server: &Server, table: &Table, once: bool) -> Vec<Finding> {
    let check = "privileges";
    let (name, user) = (&table.name, &server.user);
    let to = quoted(user);
    let mut findings = Vec::new();
    if table.rights.insert == Some(false) {
        findings.push(
            Finding::problem(
                check,
                format!("user `{user}` may not INSERT into {name}"),
                "ClickHouse refuses every row; they wait in Kafka.",
            )
            .fix(format!("GRANT INSERT ON {} TO {to};", name.quoted())),
        );
    }
    if once && table.rights.select == Some(false) {
        findings.push(
            Finding::problem(
                check,
                format!("user `{user}` may not SELECT where rows of {name} came from"),
                "A batch whose outcome is open, and whose token may be forgotten, cannot be \
                 completed.",
            )
            .fix(format!(
                "GRANT SELECT(_topic, _partition, _offset) ON {} TO {to};",
                name.quoted()
            )),
        );
    }
    if once && table.rights.sync == Some(false) {
        findings.push(
            Finding::problem(
                check,
                format!("user `{user}` may not have a replica of {name} catch up"),
                "Before a table is asked what it has of a batch, its replica has to have what the \
                 others were given; else that batch waits.",
            )
            .fix(format!("GRANT SYSTEM SYNC REPLICA ON {} TO {to};", name.quoted())),
        );
    }
    if let Some(refusal) = table.refusal.as_ref().filter(|_| findings.is_empty()) {
        findings.push(
            Finding::problem(
                check,
                format!("an insert of no rows into {name} is refused: {refusal}"),
                "So is every other. Inserts go through the function input, and compare the table's \
                 columns with those that the rows were made for; some versions ask for a privilege \
                 of its own there, such as CREATE TEMPORARY TABLE.",
            )
            .fix(match refusal.lacking_grant() {
                Some(grant) => format!("GRANT {grant} TO {to};"),
                None => "change what ClickHouse names".to_owned(),
            }),
        );
    }
    if let Some(hidden) = &table.hidden {
        findings.push(
            Finding::problem(
                check,
                hidden.to_string(),
                "A batch whose outcome is open is completed by what the table has of it: rows that \
                 are hidden would be stored twice. reconcile and replay refuse to work.",
            )
            .fix(format!("CREATE ROW POLICY outpour ON {} USING 1 TO {to};", name.quoted())),
        );
    }
    if findings.is_empty() {
        let known = [table.rights.insert, table.rights.select];
        findings.push(Finding::ok(
            check,
            if known.contains(&None) && table.rights.insert.is_none() {
                format!("{name}: not known, this version cannot tell (CHECK GRANT)")
            } else {
                format!("user `{user}` has what it needs on {name}")
            },
        ));
    }
    findings
}

/// Whether tables remember inserts for as long as somebody may come back to
/// them, at the pace at which batches are made.
pub(super) fn windows(server: &Server, kafka: &Kafka, config: &Config) -> Vec<Finding> {
    /// A batch whose outcome is open is taken up again once the group has noticed
    /// that its owner is gone, which is soon; this leaves time for a restart.
    const RECOVERY_SECONDS: u64 = 300;
    /// A partitioned table gets a batch in several parts, at the turn of a month.
    const PARTS: u64 = 2;
    let check = "window";
    let delay_ms = u64::try_from(config.batch.max_delay.0.as_millis()).unwrap_or(u64::MAX);
    let batches = RECOVERY_SECONDS * 1000 / delay_ms.max(100);
    let mut findings = Vec::new();
    for table in &server.tables {
        let Some(shape) = &table.shape else { continue };
        let memory = &shape.finding.memory;
        if memory.check(server.has_replicas).is_err() {
            continue;
        }
        let streams: u64 = tables::routes(config)
            .iter()
            .filter(|route| {
                TableName::parse(&route.table, &config.clickhouse.database) == table.name
            })
            .map(|route| {
                let taken = Subscription::of(std::slice::from_ref(&route.topic));
                let topics = kafka.topics.iter().filter(|topic| taken.takes(&topic.name));
                topics.map(|topic| topic.partitions as u64).sum::<u64>()
            })
            .sum();
        let parts = if shape.partition_key.is_empty() { 1 } else { PARTS };
        let needed = streams * parts * batches.max(1);
        let name = &table.name;
        let text = format!(
            "{name} remembers {} parts; {streams} partitions make up to {needed} within 5 minutes",
            memory.window()
        );
        findings.push(if memory.window() >= needed {
            Finding::ok(check, text)
        } else {
            Finding::warning(
                check,
                text,
                "A batch whose outcome is open for as long is looked for in the table, which takes \
                 long in a large one; what views write to is not asked, and may have it twice. A \
                 longer batch.max_delay makes fewer parts, too.",
            )
            .fix(memory.alter(name, needed.next_multiple_of(10_000)))
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use outpour_schemas::{config::Span, program::Level};

    use super::{
        super::super::tests::{assert_one, config, kafka, server},
        *,
    };
    use crate::{deduplication::Memory, sink::SinkError};

    fn found_with(once: bool, change: impl FnOnce(&mut Server)) -> Vec<Finding> {
        let mut facts = server();
        change(&mut facts);
        let mut findings = judge(&facts, &facts.tables[0], once, &config());
        findings.retain(|finding| finding.level != Level::Ok);
        findings
    }

    fn found(change: impl FnOnce(&mut Table)) -> Vec<Finding> {
        found_with(true, |facts| change(&mut facts.tables[0]))
    }

    fn remember(memory: Memory) -> impl FnOnce(&mut Table) {
        |table| table.shape.as_mut().unwrap().finding.memory = memory
    }

    #[test]
    fn a_good_table_has_no_finding() {
        assert_eq!(found(|_| {}), []);
    }

    #[test]
    fn a_missing_table_comes_with_the_way_to_make_it() {
        let findings = found(|table| table.shape = None);
        assert_one(&findings, Level::Problem, "table", "db.orders does not exist");
        assert!(findings[0].fix.as_ref().unwrap().starts_with("CREATE TABLE `db`.`orders` ("));
        let log = found(|table| {
            table.shape = None;
            table.name.table = "event_log".into();
        });
        assert_eq!(log[0].fix.as_deref(), Some("outpour-consumer init"));
    }

    #[test]
    fn a_table_that_forgets_is_a_problem_for_exactly_once_alone() {
        let findings = found(remember(Memory::Local { window: 0 }));
        assert_one(&findings, Level::Problem, "deduplication", "db.orders remembers 0 inserts");
        assert!(findings[0].fix.as_ref().unwrap().starts_with("ALTER TABLE `db`.`orders` "));
        let engine = Memory::Elsewhere { target: Some("db.orders_local".into()) };
        let findings = found(remember(engine));
        assert_one(&findings, Level::Problem, "deduplication", "engine Distributed");
        let fix = findings[0].fix.as_ref().unwrap();
        assert!(fix.starts_with("route to the local table behind it, db.orders_local"), "{fix}");
        let forgets = remember(Memory::Local { window: 0 });
        assert_eq!(found_with(false, |facts| forgets(&mut facts.tables[0])), []);
    }

    #[test]
    fn of_several_servers_each_has_to_know_what_the_others_were_given() {
        let replicas = |memory: Memory, once| {
            found_with(once, |facts| {
                facts.has_replicas = true;
                remember(memory)(&mut facts.tables[0]);
            })
        };
        let findings = replicas(Memory::Local { window: 10_000 }, true);
        assert_one(&findings, Level::Problem, "deduplication", "each server for itself");
        assert_eq!(replicas(Memory::Local { window: 10_000 }, false), []);
        assert_eq!(replicas(Memory::Shared { window: 10_000, seconds: 3600 }, true), []);
        let missing = found_with(true, |facts| {
            facts.has_replicas = true;
            facts.tables[0].shape = None;
        });
        assert!(missing[0].fix.as_ref().unwrap().contains("ENGINE = ReplicatedMergeTree"));
        let findings = found(|table| table.rights.sync = Some(false));
        assert_one(&findings, Level::Problem, "privileges", "may not have a replica");
        let expected = "GRANT SYSTEM SYNC REPLICA ON `db`.`orders` TO `outpour`;";
        assert_eq!(findings[0].fix.as_deref(), Some(expected));
    }

    #[test]
    fn rights_that_are_lacking_come_with_their_grant() {
        let findings = found(|table| table.rights.insert = Some(false));
        assert_one(&findings, Level::Problem, "privileges", "may not INSERT");
        assert_eq!(findings[0].fix.as_deref(), Some("GRANT INSERT ON `db`.`orders` TO `outpour`;"));
        let findings = found(|table| table.rights.select = Some(false));
        assert_one(&findings, Level::Problem, "privileges", "may not SELECT");
        let message = "Code: 497. DB::Exception: outpour: Not enough privileges. To execute this \
                       query, it's necessary to have the grant CREATE TEMPORARY TABLE ON *.*. (ACCESS_DENIED)";
        let refusal = SinkError { code: Some(497), message: message.into() };
        let findings = found(|table| table.refusal = Some(refusal));
        assert_one(&findings, Level::Problem, "privileges", "is refused");
        let grant = "GRANT CREATE TEMPORARY TABLE ON *.* TO `outpour`;";
        assert_eq!(findings[0].fix.as_deref(), Some(grant));
        assert_eq!(found(|table| table.rights = Default::default()), []);
    }

    #[test]
    fn rows_that_are_hidden_are_a_problem() {
        let hidden = SinkError::hidden_rows("db.orders", "n < 100");
        let findings = found(|table| table.hidden = Some(hidden));
        assert_one(
            &findings,
            Level::Problem,
            "privileges",
            "a row policy hides rows of table db.orders",
        );
    }

    #[test]
    fn an_engine_that_merges_rows_is_judged_by_what_a_repeated_row_does() {
        let merging = |merging, once| {
            found_with(once, |facts| {
                facts.tables[0].shape.as_mut().unwrap().finding.merging = merging;
            })
        };
        let replaced =
            |version: Option<&str>| Merging::Replaced { version: version.map(Into::into) };
        assert_one(
            &merging(replaced(None), true),
            Level::Warning,
            "engine",
            "takes the place of newer",
        );
        assert_one(
            &merging(replaced(Some("at")), true),
            Level::Warning,
            "engine",
            "takes the place",
        );
        assert_eq!(merging(replaced(Some("_offset")), true), []);
        assert_one(&merging(Merging::Combined, true), Level::Problem, "engine", "counted twice");
        assert_eq!(merging(Merging::Combined, false), []);
    }

    #[test]
    fn a_window_is_held_against_the_partitions_that_write_to_it() {
        let windows = |partitions, delay_ms: u64, partitioned: bool| {
            let (mut server, mut kafka, mut config) = (server(), kafka(), config());
            kafka.topics[0].partitions = partitions;
            config.batch.max_delay = Span(std::time::Duration::from_millis(delay_ms));
            if partitioned {
                let shape = server.tables[0].shape.as_mut().unwrap();
                shape.partition_key = "toYYYYMM(at)".into();
            }
            let mut findings = windows(&server, &kafka, &config);
            findings.retain(|finding| finding.level != Level::Ok);
            findings
        };
        assert_eq!(windows(33, 1000, false), []);
        let findings = windows(34, 1000, false);
        assert_one(&findings, Level::Warning, "window", "34 partitions make up to 10200");
        assert!(findings[0].fix.as_ref().unwrap().ends_with("window = 20000"), "{findings:?}");
        assert_one(&windows(17, 1000, true), Level::Warning, "window", "10200");
        assert_eq!(windows(34, 10_000, false), []);
        assert_one(&windows(4, 0, false), Level::Warning, "window", "12000");
    }
}
