//! Which changes the slot delivers: the inserts into the outbox, all of them, and
//! best nothing else.

use outpour_schemas::{
    config::Config,
    program::{Finding, named},
};

use super::{
    super::facts::{Coverage, Database, Publication},
    outbox::qualified,
};
use crate::{
    sql::{literal, quoted},
    wal::row::Wanted,
};

const CHECK: &str = "publication";

pub(super) fn judge(facts: &Database, wanted: &[Wanted], config: &Config) -> Vec<Finding> {
    let name = &config.relay.publication;
    let Some(publication) = &facts.publication else {
        let missing = Finding::problem(
            CHECK,
            format!("publication `{name}` does not exist"),
            "It says which tables the slot delivers. It has to be older than the slot.",
        );
        return vec![missing.fix("outpour-relay init")];
    };
    let alter = format!("ALTER PUBLICATION {}", quoted(name));
    let asked = Asked { facts, publication, wanted, config, name, alter, table: qualified(config) };
    let findings = [
        asked.partitions(),
        asked.outbox(),
        asked.children(),
        asked.operations(),
        asked.other_tables(),
        asked.row_filter(),
        asked.column_list(),
        asked.identity(),
        asked.age(),
    ];
    let findings: Vec<_> = findings.into_iter().flatten().collect();
    if findings.is_empty() { vec![asked.is_well()] } else { findings }
}

struct Asked<'a> {
    facts: &'a Database,
    publication: &'a Publication,
    wanted: &'a [Wanted],
    config: &'a Config,
    name: &'a str,
    /// How the SQL that mends it begins.
    alter: String,
    /// The outbox, as SQL takes it.
    table: String,
}

impl Asked<'_> {
    fn partitions(&self) -> Option<Finding> {
        let Self { name, alter, .. } = self;
        let is_partitioned = self.facts.table.as_ref().is_some_and(|table| table.is_partitioned);
        (is_partitioned && !self.publication.via_root).then(|| {
            Finding::problem(
                CHECK,
                format!(
                    "`{name}` publishes the partitions of {} as tables of their own",
                    self.config.outbox.table
                ),
                "Their rows come under the partitions' names, and not as the outbox's.",
            )
            .fix(format!("{alter} SET (publish_via_partition_root = true);"))
        })
    }

    fn outbox(&self) -> Option<Finding> {
        let Self { publication, config, name, alter, table, .. } = self;
        let has_none = publication.outbox.is_none() && !publication.has_partitions;
        (config.outbox.has_table() && has_none).then(|| {
            Finding::problem(
                CHECK,
                format!("`{name}` does not have {}", config.outbox.table),
                "No event is published, and PostgreSQL does not complain.",
            )
            .fix(format!("{alter} ADD TABLE {table};"))
        })
    }

    fn children(&self) -> Option<Finding> {
        let Self { publication, config, name, alter, .. } = self;
        let left_out = &publication.children_left_out;
        (!left_out.is_empty()).then(|| {
            Finding::problem(
                CHECK,
                format!(
                    "`{name}` does not have {}, whose rows are {}'s (INHERITS)",
                    named(left_out),
                    config.outbox.table
                ),
                "A child's rows come under its own name. Those of one that is left out are in the \
                 table and never arrive: the relay refuses to start.",
            )
            .fix(format!("{alter} ADD TABLE {};", left_out.join(", ")))
        })
    }

    fn operations(&self) -> Option<Finding> {
        let Self { publication, name, alter, .. } = self;
        let finding = if !publication.inserts {
            Finding::problem(
                CHECK,
                format!("`{name}` does not publish inserts"),
                "An event is an insert: none is published, and PostgreSQL does not complain.",
            )
        } else if !publication.others.is_empty() {
            Finding::warning(
                CHECK,
                format!("`{name}` publishes {} besides inserts", publication.others.join(", ")),
                "Only an insert is an event; the rest is sent for nothing, and an update makes \
                 the relay complain (relay.op_invalid_behavior).",
            )
        } else {
            return None;
        };
        Some(finding.fix(format!("{alter} SET (publish = 'insert');")))
    }

    fn other_tables(&self) -> Option<Finding> {
        let Self { publication, name, alter, table, .. } = self;
        if publication.all_tables {
            let finding = Finding::warning(
                CHECK,
                format!("`{name}` is FOR ALL TABLES"),
                "Every change of the database is decoded and sent, to be thrown away by the relay.",
            );
            return Some(finding.fix(format!(
                "CREATE PUBLICATION a_new_name FOR TABLE {table} WITH (publish = 'insert');\n\
                 -- then relay.publication, and a new slot when everything is published"
            )));
        }
        let others: Vec<_> = publication.other_tables.iter().map(String::as_str).collect();
        (!others.is_empty()).then(|| {
            Finding::warning(
                CHECK,
                format!("`{name}` has other tables, too: {}", named(&others)),
                "Their changes are decoded and sent, to be thrown away by the relay.",
            )
            .fix(format!("{alter} SET TABLE {table};"))
        })
    }

    fn row_filter(&self) -> Option<Finding> {
        let Self { config, name, alter, table, .. } = self;
        let filter = self.publication.outbox.as_ref()?.row_filter.as_ref()?;
        let finding = Finding::problem(
            CHECK,
            format!("`{name}` has {} with a row filter: {filter}", config.outbox.table),
            "Events that it leaves out never arrive, and nothing tells of them.",
        );
        Some(finding.fix(format!("{alter} SET TABLE {table};")))
    }

    /// Of the columns that are there; those that are not are the table's affair.
    fn column_list(&self) -> Option<Finding> {
        let Self { name, alter, table, .. } = self;
        let list = self.publication.outbox.as_ref()?.columns.as_ref()?;
        let columns = &self.facts.table.as_ref()?.columns;
        let is_there = |name: &str| columns.iter().any(|c| c.name == name && c.generated.is_none());
        let wanted = self.wanted.iter().map(|wanted| wanted.column.as_str());
        let left_out: Vec<_> = wanted
            .filter(|column| is_there(column) && !list.iter().any(|listed| listed == column))
            .collect();
        (!left_out.is_empty()).then(|| {
            Finding::problem(
                CHECK,
                format!("`{name}` has a list of columns without {}", named(&left_out)),
                "Records are made of them: the relay stops at the first row, or leaves them out.",
            )
            .fix(format!("{alter} SET TABLE {table};"))
        })
    }

    fn age(&self) -> Option<Finding> {
        let (name, slot) = (self.name, &self.config.relay.slot);
        match self.publication.covers_slot {
            Coverage::Whole => None,
            Coverage::Unknown => Some(Finding::warning(
                CHECK,
                format!(
                    "`{name}` may have been created after the position that slot `{slot}` reads from"
                ),
                "PostgreSQL reads the log with the catalog of that time, and could not be asked \
                 whether it can. If the publication did not exist yet, replication stops there.",
            )),
            Coverage::Lacking => {
                let finding = Finding::problem(
                    CHECK,
                    format!(
                        "`{name}` was created after rows that slot `{slot}` has still to deliver"
                    ),
                    "PostgreSQL reads the log with the catalog of that time, and cannot decode \
                     them: replication stops there. They are in the outbox table all the same.",
                );
                Some(finding.fix(format!(
                    "SELECT pg_drop_replication_slot({});\n\
                     -- and then: outpour-relay init; outpour-relay run --accept-gap; and \
                     outpour-consumer reconcile --outbox --fix, which has those rows published",
                    literal(slot)
                )))
            }
        }
    }

    /// What publishing more than inserts takes.
    fn identity(&self) -> Option<Finding> {
        let Self { publication, config, table, .. } = self;
        let has_identity = self.facts.table.as_ref()?.has_identity;
        let others = publication.others.iter().copied();
        let published: Vec<_> = others.filter(|&operation| operation != "truncate").collect();
        (!has_identity && !published.is_empty()).then(|| {
            Finding::problem(
                CHECK,
                format!(
                    "`{}` publishes {} of {}, which has no replica identity",
                    self.name,
                    published.join(" and "),
                    config.outbox.table
                ),
                "PostgreSQL refuses such statements on it: no event can be removed from it.",
            )
            .fix(format!(
                "{} SET (publish = 'insert');\n-- or: ALTER TABLE {table} REPLICA IDENTITY FULL;",
                self.alter
            ))
        })
    }

    fn is_well(&self) -> Finding {
        let Self { config, name, .. } = self;
        let what = if config.outbox.has_table() {
            format!("`{name}` publishes inserts of {}", config.outbox.table)
        } else {
            format!("`{name}` is there")
        };
        Finding::ok(CHECK, what)
    }
}
