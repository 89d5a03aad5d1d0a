//! What it means that a second insert under the same token did or did not arrive.

use outpour_schemas::program::{Finding, named};

use super::{
    super::{
        facts::{Count, Outcome, Probed, Server, Table, View},
        probe::scratch_privileges,
    },
    may_be_proved,
};
use crate::{
    sink::{Class, SinkError},
    table::{TableName, quoted},
};

const CHECK: &str = "probe";

const UNPROVED: &str = "Nothing is proved: what the settings say is all there is to go by.";

pub(super) fn judge(probed: &Probed, server: &Server) -> Vec<Finding> {
    let mut findings = match &probed.outcome {
        Outcome::Counted(counts) => {
            counts.iter().map(|count| one(count, &probed.table, server)).collect()
        }
        Outcome::Failed { doing, error } => vec![failed(probed, server, doing, error)],
        Outcome::Interrupted => Vec::new(),
    };
    if !probed.leftovers.is_empty() {
        let drops: Vec<_> =
            probed.leftovers.iter().map(|name| format!("DROP TABLE {};", name.quoted())).collect();
        findings.push(
            Finding::warning(
                "scratch",
                format!("could not be dropped again: {}", named(&probed.leftovers)),
                "They hold a few rows each and are of no use.",
            )
            .fix(drops.join("\n")),
        );
    }
    findings
}

fn one(count: &Count, table: &TableName, server: &Server) -> Finding {
    let Count { after_first, after_second, .. } = count;
    let of = match &count.view {
        None => format!("table {}", count.table),
        Some(view) => format!("{}, which view {view} writes to,", count.table),
    };
    if after_second > after_first {
        return Finding::problem(
            CHECK,
            format!("a twin of {of} stored an insert twice that was sent twice under one token"),
            "So does the table itself when an insert is repeated after its outcome was open.",
        )
        .fix(remedy(&count.table, server));
    }
    if *after_first == 0 {
        return Finding::warning(
            CHECK,
            format!("nothing arrived in a twin of {of} when one of {table} was written to"),
            UNPROVED,
        )
        .fix("look whether system.parts shows the tables of this database to the user");
    }
    let how = if count.stand_in { ", by a query in the place of the view's own" } else { "" };
    Finding::ok(CHECK, format!("a twin of {of} dropped a repeated insert{how}"))
}

/// What has the original of a twin drop what it has had.
fn remedy(name: &TableName, server: &Server) -> String {
    let tables = server.tables.iter().map(|table| (Some(&table.name), &table.shape));
    let views = server.tables.iter().flat_map(|table| &table.views);
    let mut all = tables.chain(views.map(|view| (view.target.as_ref(), &view.shape)));
    let shape = all.find(|(found, _)| *found == Some(name)).and_then(|(_, shape)| shape.as_ref());
    match shape.map(|shape| shape.finding.memory.check(server.has_replicas)) {
        Some(Err(unfit)) => unfit.fix(name),
        _ => "look at the findings on insert-settings, and use a newer version of ClickHouse"
            .to_owned(),
    }
}

fn failed(probed: &Probed, server: &Server, doing: &str, error: &SinkError) -> Finding {
    /// ACCESS_DENIED, UNKNOWN_TABLE.
    const DENIED: u32 = 497;
    const GONE: u32 = 60;
    let table = &probed.table;
    let views = server.tables.iter().find(|found| found.name == *table);
    let fix = match error.code {
        Some(DENIED) => grant(table, views.map_or(&[][..], |table| &table.views), &server.user),
        Some(GONE) => {
            "clickhouse.url: name servers, not an address at which several take turns".to_owned()
        }
        _ if error.class() == Class::Data => {
            "see to it if rows look like that; else run this again once the table has others"
                .to_owned()
        }
        _ => "outpour-consumer doctor --no-probe leaves the probe out".to_owned(),
    };
    Finding::warning(CHECK, format!("no probe of {table}: {doing} failed: {error}"), UNPROVED)
        .fix(fix)
}

fn grant(table: &TableName, views: &[View], user: &str) -> String {
    format!(
        "GRANT {} ON {}.* TO {};",
        scratch_privileges(views),
        quoted(&table.database),
        quoted(user)
    )
}

/// A probe that was not tried, since it is known that it may not.
pub(super) fn forbidden(table: &Table, server: &Server) -> Option<Finding> {
    if table.rights.scratch != Some(false) || !may_be_proved(table) {
        return None;
    }
    let (name, user) = (&table.name, &server.user);
    Some(
        Finding::warning(
            CHECK,
            format!("no probe of {name}: user `{user}` may not create scratch tables beside it"),
            UNPROVED,
        )
        .fix(grant(name, &table.views, user)),
    )
}

#[cfg(test)]
mod tests {
    use outpour_schemas::program::Level;

    use super::{
        super::super::tests::{assert_one, server, view},
        *,
    };
    use crate::deduplication::Memory;

    fn found(outcome: Outcome, leftovers: Vec<TableName>) -> Vec<Finding> {
        let mut server = server();
        server.tables[0].views = vec![view("v", "orders", "sums")];
        let table = server.tables[0].name.clone();
        judge(&Probed { table, outcome, leftovers }, &server)
    }

    fn counted(view: Option<&str>, after_first: u64, after_second: u64) -> Vec<Finding> {
        let name = |table: &str| TableName::parse(table, "db");
        let table = name(if view.is_some() { "sums" } else { "orders" });
        let view = view.map(name);
        let count = Count { table, view, stand_in: false, after_first, after_second };
        found(Outcome::Counted(vec![count]), Vec::new())
    }

    #[test]
    fn what_arrives_once_is_proved_and_what_arrives_twice_is_a_problem() {
        assert_eq!(counted(None, 2, 2)[0].level, Level::Ok);
        assert_one(&counted(None, 2, 4), Level::Problem, CHECK, "table db.orders stored");
        let twice = counted(Some("v"), 1, 2);
        assert_one(&twice, Level::Problem, CHECK, "db.sums, which view db.v writes to,");
        assert!(twice[0].fix.as_ref().unwrap().contains("insert-settings"));
        let mut server = server();
        server.tables[0].shape.as_mut().unwrap().finding.memory = Memory::Local { window: 0 };
        let fix = remedy(&server.tables[0].name, &server);
        assert!(fix.starts_with("ALTER TABLE `db`.`orders` "), "{fix}");
    }

    #[test]
    fn what_does_not_arrive_proves_nothing() {
        assert_one(&counted(Some("v"), 0, 0), Level::Warning, CHECK, "nothing arrived");
    }

    #[test]
    fn a_probe_that_may_not_be_made_names_its_grant() {
        let error = SinkError { code: Some(497), message: "Not enough privileges".into() };
        let denied = found(Outcome::Failed { doing: "creating", error }, Vec::new());
        assert_one(&denied, Level::Warning, CHECK, "no probe of db.orders");
        let expected = "GRANT CREATE TABLE, CREATE VIEW, DROP TABLE, DROP VIEW, SELECT, INSERT \
                        ON `db`.* TO `outpour`;";
        assert_eq!(denied[0].fix.as_deref(), Some(expected));

        let mut server = server();
        assert_eq!(forbidden(&server.tables[0], &server), None);
        server.tables[0].rights.scratch = Some(false);
        let finding = forbidden(&server.tables[0], &server).unwrap();
        let expected = "GRANT CREATE TABLE, DROP TABLE, SELECT, INSERT ON `db`.* TO `outpour`;";
        assert_eq!(finding.fix.as_deref(), Some(expected));
    }

    #[test]
    fn what_could_not_be_dropped_is_named() {
        let left = vec![TableName::parse("x_outpour_doctor_0123abcd_1", "db")];
        let findings = found(Outcome::Interrupted, left);
        assert_one(&findings, Level::Warning, "scratch", "x_outpour_doctor_0123abcd_1");
    }
}
