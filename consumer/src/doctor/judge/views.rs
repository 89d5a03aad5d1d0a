//! Materialised views: a repeated insert is pushed through them again, and what
//! they write to has to drop it, too.

use outpour_schemas::program::Finding;

use super::super::facts::{Server, Table, View};
use crate::{deduplication::Unfit, table::quoted};

const CHECK: &str = "views";

/// `once`: exactly-once is asked for.
pub(super) fn judge(server: &Server, table: &Table, once: bool) -> Vec<Finding> {
    table.views.iter().map(|view| one(server, view, once)).collect()
}

fn one(server: &Server, view: &View, once: bool) -> Finding {
    let View { name, source, .. } = view;
    let Some(target) = &view.target else {
        return Finding::warning(
            CHECK,
            format!("view {name} on {source} may not be seen by this user"),
            "Whether its target drops repeated inserts is not known.",
        )
        .fix(format!(
            "GRANT SHOW TABLES ON {} TO {};",
            name.quoted(),
            quoted(&server.user)
        ));
    };
    let Some(shape) = &view.shape else {
        return Finding::problem(
            CHECK,
            format!("view {name} on {source} writes to {target}, which does not exist, or may not be seen"),
            "ClickHouse refuses inserts that a view cannot pass on.",
        )
        .fix(format!("DROP TABLE {};  -- or create {target} again", name.quoted()));
    };
    let engine = &shape.finding.engine;
    let writes = format!("view {name} on {source} writes to {target}");
    if !once || engine == "Null" {
        return Finding::ok(CHECK, format!("{writes} ({engine})"));
    }
    match shape.finding.memory.check(server.has_replicas) {
        Ok(()) => Finding::ok(
            CHECK,
            format!("{writes}, which remembers {} inserts", shape.finding.memory.window()),
        ),
        Err(unfit) => {
            let fix = match &unfit {
                Unfit::Engine { .. } | Unfit::Distributed { .. } => {
                    format!("have {name} write to a MergeTree table")
                }
                _ => unfit.fix(target),
            };
            Finding::problem(
                CHECK,
                format!("{writes}, which {unfit}"),
                "An insert that is repeated after its outcome was open is dropped by the table and \
                 counted twice by the view.",
            )
            .fix(fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use outpour_schemas::program::Level;

    use super::{
        super::super::tests::{assert_one, server, view},
        *,
    };
    use crate::deduplication::Memory;

    fn found(once: bool, change: impl FnOnce(&mut View)) -> Vec<Finding> {
        found_by(server(), once, change)
    }

    fn found_by(mut server: Server, once: bool, change: impl FnOnce(&mut View)) -> Vec<Finding> {
        let mut table = server.tables.remove(0);
        table.views = vec![view("v", "orders", "sums")];
        change(&mut table.views[0]);
        let mut findings = judge(&server, &table, once);
        assert_eq!(findings.len(), 1);
        findings.retain(|finding| finding.level != Level::Ok);
        findings
    }

    fn remember(memory: Memory) -> impl FnOnce(&mut View) {
        |view| {
            let shape = view.shape.as_mut().unwrap();
            if let Memory::None { engine } = &memory {
                shape.finding.engine.clone_from(engine);
            }
            shape.finding.memory = memory;
        }
    }

    #[test]
    fn a_view_whose_target_remembers_has_no_finding() {
        assert_eq!(found(true, |_| {}), []);
        let null = Memory::None { engine: "Null".into() };
        assert_eq!(found(true, remember(null)), [], "it stores nothing twice");
    }

    #[test]
    fn a_target_that_forgets_is_a_problem_for_exactly_once_alone() {
        let findings = found(true, remember(Memory::Local { window: 0 }));
        assert_one(&findings, Level::Problem, CHECK, "view db.v on db.orders writes to db.sums");
        assert!(findings[0].fix.as_ref().unwrap().starts_with("ALTER TABLE `db`.`sums` "));
        assert_eq!(found(false, remember(Memory::Local { window: 0 })), []);
        let log = found(true, remember(Memory::None { engine: "Log".into() }));
        assert_one(&log, Level::Problem, CHECK, "has engine Log");
    }

    #[test]
    fn a_target_that_its_replicas_do_not_share_is_a_problem_where_there_are_several() {
        let server = Server { has_replicas: true, ..server() };
        let findings = found_by(server, true, |_| {});
        assert_one(&findings, Level::Problem, CHECK, "each server for itself");
        let fix = findings[0].fix.as_ref().unwrap();
        assert!(fix.starts_with("use a ReplicatedMergeTree table"), "{fix}");
    }

    #[test]
    fn what_cannot_be_seen_is_said() {
        let hidden = found(true, |view| (view.target, view.shape) = (None, None));
        assert_one(&hidden, Level::Warning, CHECK, "may not be seen");
        let gone = found(true, |view| view.shape = None);
        assert_one(&gone, Level::Problem, CHECK, "db.sums, which does not exist");
    }
}
