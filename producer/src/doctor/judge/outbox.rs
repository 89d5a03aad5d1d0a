//! The outbox table, and the publication with it.

use outpour_schemas::{
    config::{Config, PollAfter},
    program::Finding,
};

use super::{
    super::facts::{Column, Database, Generated, Table},
    publication, rights,
};
use crate::{emit_function, sql::quoted, wal::row::Wanted};

pub(super) fn judge(facts: &Database, wanted: &[Wanted], config: &Config) -> Vec<Finding> {
    let mut findings = match &facts.table {
        None if !config.outbox.has_table() => vec![messages(facts, config)],
        None => vec![missing(config)],
        Some(table) => {
            let mut findings = vec![persistence(table, config)];
            findings.extend(columns(table, wanted, config, |column| is_published(column, facts)));
            findings.push(emit(facts, table));
            findings.extend(rights::retention(facts, table, config));
            findings.push(rights::row_security(facts, table, config));
            findings
        }
    };
    findings.extend(publication::judge(facts, wanted, config));
    findings
}

/// What polling needs of the table.
pub(super) fn polled(facts: &Database, wanted: &[Wanted], config: &Config) -> Vec<Finding> {
    let Some(table) = &facts.table else { return vec![missing(config)] };
    // What is read from the table has all of them.
    let mut findings = columns(table, wanted, config, |_| true);
    let mark = &config.outbox.column_published_at;
    let is_marked = table.columns.iter().any(|column| column.name == *mark);
    if config.relay.poll_after == PollAfter::Mark && !is_marked {
        findings.push(
            Finding::problem(
                "columns",
                format!(
                    "{} has no column `{mark}` (outbox.column_published_at)",
                    config.outbox.table
                ),
                "It tells the rows that are published from those that wait (relay.poll_after).",
            )
            .fix("outpour-relay init"),
        );
    }
    findings.push(emit(facts, table));
    findings.push(rights::polling(facts, table, config));
    findings.push(rights::row_security(facts, table, config));
    findings
}

/// Without a table, messages are the only way in.
fn messages(facts: &Database, config: &Config) -> Finding {
    if facts.has_emit_function {
        return Finding::ok("table", "none: events are logical messages (outbox.table)");
    }
    Finding::warning(
        "table",
        format!("none, and no function {} as it should be, either", emit_function::name(config)),
        "Events are logical messages (outbox.table), which services would have to write by hand.",
    )
    .fix("outpour-relay init")
}

fn missing(config: &Config) -> Finding {
    Finding::problem(
        "table",
        format!("table {} does not exist", config.outbox.table),
        "There is nothing to write events to.",
    )
    .fix("outpour-relay init")
}

pub(super) fn qualified(config: &Config) -> String {
    let (schema, name) = config.outbox.qualified();
    format!("{}.{}", quoted(schema), quoted(name))
}

fn persistence(table: &Table, config: &Config) -> Finding {
    let name = &config.outbox.table;
    if table.is_logged {
        return Finding::ok("table", format!("{name} is there"));
    }
    Finding::problem(
        "table",
        format!("{name}, or a partition of it, is unlogged or temporary"),
        "What is written to it is not in the log, so that no event ever arrives.",
    )
    .fix(format!("ALTER TABLE {} SET LOGGED;  -- or the partition", qualified(config)))
}

/// `is_seen` says whether the relay gets to see a column that is there.
fn columns(
    table: &Table,
    wanted: &[Wanted],
    config: &Config,
    is_seen: impl Fn(&Column) -> bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for Wanted { column, key, required, expects } in wanted {
        let found = table.columns.iter().find(|found| found.name == *column);
        let finding = match found {
            None if *required => Finding::problem(
                "columns",
                format!("{} has no column `{column}` ({key})", config.outbox.table),
                "Records are made of it; the relay stops at the first row.",
            )
            .fix(format!(
                "{key}: name a column that is there, or add it:\nALTER TABLE {} ADD COLUMN {} {};",
                qualified(config),
                quoted(column),
                default_type(column, config)
            )),
            // Left out of the record, as it is meant to be.
            None => continue,
            Some(found) if !is_seen(found) => Finding::problem(
                "columns",
                format!("column `{column}` ({key}) is generated"),
                "PostgreSQL does not publish generated columns, unless they are stored and it is \
                 told to (publish_generated_columns, from version 18 on): the relay never sees it.",
            )
            .fix(format!("{key}: name a column that is written, or have a trigger write this one")),
            Some(found) if !expects.takes(found.type_oid) => Finding::problem(
                "columns",
                format!("column `{column}` ({key}) is {}", found.type_name),
                "The relay stops at the first row.",
            )
            .fix(format!("{key}: name a column that is {expects}")),
            Some(_) => continue,
        };
        findings.push(finding);
    }
    if findings.is_empty() {
        findings.push(Finding::ok("columns", "every column that records are made of is there"));
    }
    findings
}

/// Whether a column is in the log and in what is published of it. The publication's
/// list of columns has generated ones from version 18 on, if they are.
fn is_published(column: &Column, facts: &Database) -> bool {
    const SINCE: u32 = 180_000;
    let outbox = facts.publication.as_ref().and_then(|publication| publication.outbox.as_ref());
    let listed = outbox.and_then(|outbox| outbox.columns.as_ref());
    match column.generated {
        None => true,
        Some(Generated::Stored) => {
            facts.version >= SINCE && listed.is_some_and(|listed| listed.contains(&column.name))
        }
        // Only a query makes it.
        Some(Generated::Virtual) => false,
    }
}

/// What `init` would make of a column that is missing.
fn default_type(column: &str, config: &Config) -> &'static str {
    let outbox = &config.outbox;
    match column {
        _ if column == outbox.column_id => "uuid NOT NULL DEFAULT gen_random_uuid()",
        _ if column == outbox.column_payload => "jsonb",
        _ if column == outbox.column_occurred_at => {
            "timestamptz NOT NULL DEFAULT clock_timestamp()"
        }
        _ if column == outbox.column_schema_version => "integer NOT NULL DEFAULT 1",
        _ => "text",
    }
}

fn emit(facts: &Database, table: &Table) -> Finding {
    // Least privilege is nothing to warn of.
    let writes = if table.can_insert && table.can_use_schema { "may" } else { "may not" };
    Finding::ok("emit", format!("user `{}` {writes} write events by `emit`", facts.user.name))
}

#[cfg(test)]
mod tests {
    use outpour_schemas::{config::Config, program::Level};

    use super::{
        super::super::{
            facts::{Column, Coverage, Publication, Published},
            tests::{database, wanted},
        },
        *,
    };
    use crate::wal::oid;

    /// What is found besides what is well.
    fn found(change: impl FnOnce(&mut Table, &mut Publication)) -> Vec<Finding> {
        let mut facts = database();
        let (mut table, mut publication) =
            (facts.table.clone().unwrap(), facts.publication.clone().unwrap());
        change(&mut table, &mut publication);
        (facts.table, facts.publication) = (Some(table), Some(publication));
        let config = Config::default();
        let mut findings = judge(&facts, &wanted(&config), &config);
        findings.retain(|finding| finding.level != Level::Ok);
        findings
    }

    /// One finding, with these words in it and its fix.
    fn assert_one(findings: &[Finding], level: Level, what: &str, fix: &str) {
        assert_eq!(findings.len(), 1, "{findings:#?}");
        let finding = &findings[0];
        assert_eq!(finding.level, level);
        assert!(finding.what.contains(what), "{finding:?}");
        assert!(finding.fix.as_ref().unwrap().contains(fix), "{finding:?}");
    }

    #[test]
    fn what_init_makes_has_no_finding() {
        assert_eq!(found(|_, _| {}), []);
    }

    #[test]
    fn nothing_at_all_is_two_problems() {
        let facts = Database { table: None, publication: None, ..database() };
        let config = Config::default();
        let findings = judge(&facts, &wanted(&config), &config);
        assert_eq!(findings.len(), 2);
        assert!(
            findings.iter().all(|finding| finding.fix.as_deref() == Some("outpour-relay init"))
        );
    }

    #[test]
    fn a_column_is_missed_before_the_first_row_is() {
        let findings = found(|table, publication| {
            table.columns.retain(|column| column.name != "payload");
            publication.outbox.as_mut().unwrap().columns = None;
        });
        assert_one(
            &findings,
            Level::Problem,
            "`payload` (outbox.column_payload)",
            "ADD COLUMN \"payload\" jsonb",
        );
        // One that is used where it is there may be missing.
        assert_eq!(
            found(|table, _| table.columns.retain(|column| column.name != "traceparent")),
            []
        );
        let findings = found(|table, _| table.columns[3].generated = Some(Generated::Stored));
        assert_one(&findings, Level::Problem, "generated", "name a column that is written");
    }

    #[test]
    fn a_generated_column_will_do_where_it_is_stored_and_published() {
        for (version, generated, problems) in [
            (170_000, Generated::Stored, 1),
            (180_000, Generated::Stored, 0),
            (180_000, Generated::Virtual, 1),
        ] {
            let mut facts = Database { version, ..database() };
            facts.table.as_mut().unwrap().columns[3].generated = Some(generated);
            let config = Config::default();
            let findings = judge(&facts, &wanted(&config), &config);
            let found = findings.iter().filter(|finding| finding.level == Level::Problem).count();
            assert_eq!(found, problems, "{version} {generated:?}: {findings:#?}");
        }
    }

    #[test]
    fn a_column_of_the_wrong_type_is_named_with_what_is_expected() {
        let mut config = Config::default();
        config.relay.timestamp_column = Some("shipped".to_owned());
        let mut facts = database();
        facts.table.as_mut().unwrap().columns.push(Column {
            name: "shipped".into(),
            type_oid: oid::BOOL,
            type_name: "boolean".into(),
            generated: None,
        });
        facts.publication.as_mut().unwrap().outbox.as_mut().unwrap().columns = None;
        let mut findings = judge(&facts, &wanted(&config), &config);
        findings.retain(|finding| finding.level != Level::Ok);
        assert_one(&findings, Level::Problem, "is boolean", "a timestamp");
    }

    #[test]
    fn an_unlogged_table_delivers_nothing() {
        assert_one(
            &found(|table, _| table.is_logged = false),
            Level::Problem,
            "unlogged",
            "SET LOGGED",
        );
    }

    #[test]
    fn a_user_that_may_not_write_events_is_nothing_to_warn_of() {
        assert_eq!(found(|table, _| table.can_insert = false), []);
    }

    #[test]
    fn every_way_for_a_publication_to_lose_events_is_a_problem() {
        let add = found(|_, publication| publication.outbox = None);
        assert_one(&add, Level::Problem, "does not have", "ADD TABLE \"public\".\"outbox\"");
        let child = found(|_, publication| {
            publication.children_left_out = vec!["public.outbox_eu".into()];
        });
        assert_one(&child, Level::Problem, "INHERITS", "ADD TABLE public.outbox_eu;");
        let inserts = found(|_, publication| publication.inserts = false);
        assert_one(&inserts, Level::Problem, "inserts", "publish = 'insert'");
        let filter = found(|_, publication| {
            publication.outbox.as_mut().unwrap().row_filter = Some("(type = 'a')".into());
        });
        assert_one(&filter, Level::Problem, "(type = 'a')", "SET TABLE");
        let list = found(|_, publication| {
            publication.outbox.as_mut().unwrap().columns = Some(vec!["id".into(), "type".into()]);
        });
        assert_one(&list, Level::Problem, "`aggregatetype`, `aggregateid`, `payload`", "SET TABLE");
        let leaves = found(|table, publication| {
            table.is_partitioned = true;
            (publication.via_root, publication.has_partitions) = (false, true);
            publication.outbox = None;
        });
        assert_one(&leaves, Level::Problem, "partitions", "publish_via_partition_root = true");
    }

    #[test]
    fn what_is_sent_for_nothing_is_a_warning() {
        let updates = found(|_, publication| publication.others = vec!["update", "delete"]);
        assert_one(&updates, Level::Warning, "update, delete", "publish = 'insert'");
        let all = found(|_, publication| publication.all_tables = true);
        assert_one(&all, Level::Warning, "ALL TABLES", "CREATE PUBLICATION");
        let others = found(|_, publication| publication.other_tables = vec!["public.a".into()]);
        assert_one(&others, Level::Warning, "public.a", "SET TABLE");
    }

    #[test]
    fn a_publication_that_is_too_young_is_a_problem_if_the_server_says_so() {
        let covers = |coverage| found(|_, publication| publication.covers_slot = coverage);
        assert_one(
            &covers(Coverage::Lacking),
            Level::Problem,
            "created after rows",
            "SELECT pg_drop_replication_slot('outpour');",
        );
        assert_eq!(covers(Coverage::Unknown)[0].level, Level::Warning);
    }

    #[test]
    fn deletes_are_published_only_of_a_table_with_an_identity() {
        let findings = found(|table, publication| {
            table.has_identity = false;
            publication.others = vec!["delete"];
        });
        let problem = findings.iter().find(|finding| finding.level == Level::Problem).unwrap();
        assert!(problem.what.contains("no replica identity"), "{problem:?}");
        assert_eq!(found(|table, _| table.has_identity = false), []);
    }

    #[test]
    fn a_server_without_column_lists_has_all_columns() {
        let all = found(|_, publication| {
            publication.outbox = Some(Published { columns: None, row_filter: None });
        });
        assert_eq!(all, []);
    }
}
