//! What a probe creates: twins of a table, of the views on it and of what they
//! write to, under names that are nobody else's. Pure.

use super::{
    super::facts::{Shape, Table, View},
    sql,
};
use crate::table::{DescribedColumn, TableName, quoted};

/// What the names of scratch tables and views match.
pub(in super::super) const SCRATCH_PATTERN: &str =
    "_outpour_(doctor|reconcile)_[0-9a-f]{8}_[0-9]+$";

/// What a probe asks for in the database of a table with these views.
pub(in super::super) fn scratch_privileges(views: &[View]) -> &'static str {
    if views.is_empty() {
        "CREATE TABLE, DROP TABLE, SELECT, INSERT"
    } else {
        "CREATE TABLE, CREATE VIEW, DROP TABLE, DROP VIEW, SELECT, INSERT"
    }
}

/// Everything that a probe creates.
#[derive(Debug)]
pub(super) struct Twins {
    /// The first is that of the table itself.
    pub(super) tables: Vec<TableTwin>,
    /// Each after the one whose target it reads.
    pub(super) views: Vec<ViewTwin>,
}

#[derive(Debug)]
pub(super) struct TableTwin {
    pub(super) original: TableName,
    /// The view by which rows come there.
    pub(super) view: Option<TableName>,
    pub(super) name: TableName,
    pub(super) create: String,
    /// Not so for Null, which only passes them on.
    pub(super) keeps_rows: bool,
}

#[derive(Debug)]
pub(super) struct ViewTwin {
    pub(super) original: TableName,
    pub(super) name: TableName,
    /// Index of the table that it fills.
    pub(super) target: usize,
    /// With the view's own query; none where that cannot be made to read the twin.
    pub(super) create: Option<String>,
    /// With a query that gives a row of defaults for each row that comes.
    pub(super) create_stand_in: String,
}

impl Twins {
    /// Those of `table`, which exists. `run` is eight hexadecimal digits.
    ///
    /// Targets of no MergeTree engine are left out, and what is beyond them: they
    /// remember nothing, which needs no proof. Null stands between others and is
    /// kept.
    pub(super) fn of(table: &Table, shape: &Shape, run: &str) -> Self {
        let mut names = Names { run, count: 0 };
        let name = names.next(&table.name);
        let create = create_table(&table.name, &name, &shape.engine_full);
        let original = table.name.clone();
        let first = TableTwin { original, view: None, name, create, keeps_rows: true };
        let mut twins = Twins { tables: vec![first], views: Vec::new() };
        for view in &table.views {
            twins.add(view, &mut names);
        }
        twins
    }

    fn position(&self, original: &TableName) -> Option<usize> {
        self.tables.iter().position(|twin| twin.original == *original)
    }

    fn add(&mut self, view: &View, names: &mut Names<'_>) {
        let (Some(target), Some(shape)) = (&view.target, &view.shape) else { return };
        let engine = &shape.finding.engine;
        if !engine.ends_with("MergeTree") && engine != "Null" {
            return;
        }
        let Some(source) = self.position(&view.source) else { return };
        let index = self.position(target).unwrap_or_else(|| {
            let name = names.next(target);
            let create = create_table(target, &name, &shape.engine_full);
            let (original, view) = (target.clone(), Some(view.name.clone()));
            let keeps_rows = engine != "Null";
            self.tables.push(TableTwin { original, view, name, create, keeps_rows });
            self.tables.len() - 1
        });
        let (from, to) = (&self.tables[source].name, &self.tables[index].name);
        let name = names.next(&view.name);
        let create = |select: &str| {
            format!("CREATE MATERIALIZED VIEW {} TO {} AS {select}", name.quoted(), to.quoted())
        };
        let own = sql::read_from(&view.select, &view.source, from);
        let stand_in = defaults(&shape.finding.columns);
        let twin = ViewTwin {
            original: view.name.clone(),
            target: index,
            create: own.map(|select| create(&select)),
            create_stand_in: create(&format!("{stand_in} FROM {}", from.quoted())),
            name: name.clone(),
        };
        self.views.push(twin);
    }
}

struct Names<'a> {
    run: &'a str,
    count: usize,
}

impl Names<'_> {
    /// A name beside `original`, so that the same rights and disks serve.
    fn next(&mut self, original: &TableName) -> TableName {
        /// What the name of a file has room for, beside the rest.
        const KEPT: usize = 60;
        let kept: String = original.table.trim_start_matches('.').chars().take(KEPT).collect();
        self.count += 1;
        TableName {
            database: original.database.clone(),
            table: format!("{kept}_outpour_doctor_{}_{}", self.run, self.count),
        }
    }
}

fn create_table(original: &TableName, name: &TableName, engine_full: &str) -> String {
    format!(
        "CREATE TABLE {} AS {} ENGINE = {}",
        name.quoted(),
        original.quoted(),
        own_path(engine_full, &name.table)
    )
}

/// The engine, and if it is a replicated one, with a path in Keeper that is not
/// the original's.
fn own_path(engine_full: &str, name: &str) -> String {
    // Its path is the server's affair.
    let engine_full = engine_full.strip_prefix("Shared").unwrap_or(engine_full);
    if !engine_full.starts_with("Replicated") {
        return engine_full.to_owned();
    }
    match sql::first_text(engine_full) {
        Some((at, path)) => {
            let path = path.replace("{uuid}", name);
            format!("{}'{path}/{name}'{}", &engine_full[..at.start], &engine_full[at.end..])
        }
        None => engine_full.to_owned(),
    }
}

/// A query of one value for each column that can be inserted.
pub(super) fn defaults(columns: &[DescribedColumn]) -> String {
    let values: Vec<_> = inserted(columns)
        .map(|column| {
            let type_name = column.type_name.replace('\\', "\\\\").replace('\'', "\\'");
            format!("defaultValueOfTypeName('{type_name}') AS {}", quoted(&column.name))
        })
        .collect();
    format!("SELECT {}", values.join(", "))
}

/// The names of the columns that can be inserted, as SQL takes them.
pub(super) fn column_list(columns: &[DescribedColumn]) -> String {
    let names: Vec<_> = inserted(columns).map(|column| quoted(&column.name)).collect();
    names.join(", ")
}

pub(super) fn inserted(columns: &[DescribedColumn]) -> impl Iterator<Item = &DescribedColumn> {
    columns.iter().filter(|column| matches!(column.default_kind.as_str(), "" | "DEFAULT"))
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::tests::{server, view},
        *,
    };

    fn twins(change: impl FnOnce(&mut Table)) -> Twins {
        let mut table = server().tables.remove(0);
        change(&mut table);
        let shape = table.shape.clone().unwrap();
        Twins::of(&table, &shape, "0123abcd")
    }

    #[test]
    fn a_table_s_twin_is_beside_it_and_has_its_engine() {
        let twins = twins(|_| {});
        assert_eq!(twins.tables.len(), 1);
        assert_eq!(
            twins.tables[0].create,
            "CREATE TABLE `db`.`orders_outpour_doctor_0123abcd_1` AS `db`.`orders` ENGINE = \
             MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 10000"
        );
    }

    #[test]
    fn a_view_reads_the_twin_and_fills_the_twin_of_its_target() {
        let twins = twins(|table| table.views = vec![view("sums_view", "orders", "sums")]);
        assert_eq!(twins.tables[1].original.table, "sums");
        assert_eq!(
            twins.views[0].create.as_deref().unwrap(),
            "CREATE MATERIALIZED VIEW `db`.`sums_view_outpour_doctor_0123abcd_3` TO \
             `db`.`sums_outpour_doctor_0123abcd_2` AS SELECT id FROM \
             `db`.`orders_outpour_doctor_0123abcd_1` AS `orders`"
        );
        assert!(
            twins.views[0].create_stand_in.ends_with(
                " AS SELECT defaultValueOfTypeName('UInt64') AS `id` FROM \
                 `db`.`orders_outpour_doctor_0123abcd_1`"
            ),
            "{}",
            twins.views[0].create_stand_in
        );
    }

    #[test]
    fn views_of_views_follow_and_two_may_share_a_target() {
        let twins = twins(|table| {
            table.views = vec![
                view("a", "orders", "sums"),
                view("b", "orders", "sums"),
                view("c", "sums", "totals"),
            ];
        });
        let originals: Vec<_> = twins.tables.iter().map(|t| t.original.table.as_str()).collect();
        assert_eq!(originals, ["orders", "sums", "totals"]);
        let targets: Vec<_> = twins.views.iter().map(|twin| twin.target).collect();
        assert_eq!(targets, [1, 1, 2]);
    }

    #[test]
    fn what_is_no_merge_tree_is_left_out_with_what_is_beyond_it() {
        let twins = twins(|table| {
            table.views = vec![view("a", "orders", "sums"), view("b", "sums", "totals")];
            table.views[0].shape.as_mut().unwrap().finding.engine = "Distributed".into();
        });
        assert_eq!((twins.tables.len(), twins.views.len()), (1, 0));
    }

    #[test]
    fn a_view_whose_query_cannot_be_rewritten_has_a_stand_in_alone() {
        let twins = twins(|table| {
            table.views = vec![view("a", "orders", "sums")];
            table.views[0].select = "SELECT id FROM orders".into();
        });
        assert_eq!(twins.views[0].create, None);
    }

    #[test]
    fn a_replicated_twin_has_a_path_of_its_own() {
        assert_eq!(
            own_path("ReplicatedMergeTree('/t/{uuid}/{shard}', '{replica}') ORDER BY a", "x_1"),
            "ReplicatedMergeTree('/t/x_1/{shard}/x_1', '{replica}') ORDER BY a"
        );
        assert_eq!(own_path("SharedMergeTree ORDER BY a", "x_1"), "MergeTree ORDER BY a");
    }

    #[test]
    fn a_long_name_leaves_room_and_matches_the_pattern() {
        let twins = twins(|table| table.name.table = "ü".repeat(200));
        let name = &twins.tables[0].name.table;
        assert!(name.len() < 200, "{name}");
        assert!(regex::Regex::new(SCRATCH_PATTERN).unwrap().is_match(name), "{name}");
    }
}
