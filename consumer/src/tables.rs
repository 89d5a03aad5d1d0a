//! The tables that routes write to: found, understood and fit for the job
//! before the first record is read.

use std::{collections::HashSet, sync::Arc};

use outpour_schemas::{
    config::{Config, Delivery, Route},
    program::error_line,
};

use crate::{
    decode::{self, Mapping},
    deduplication::Unfit,
    error::ConsumerError,
    sink::{ClickHouse, TableFinding},
    source::Subscription,
    table::TableName,
};

/// The configured routes, or the default one, with what they leave to `[consumer]`.
/// A route into `event_log` that names no columns takes that table's own.
pub(crate) fn routes(config: &Config) -> Vec<Route> {
    let mut routes = config.routes.clone();
    if routes.is_empty() {
        routes.push(decode::default_route());
    }
    for route in &mut routes {
        route.payload_format.get_or_insert(config.consumer.payload_format);
        route.tombstones.get_or_insert(config.consumer.tombstones);
        let name = TableName::parse(&route.table, &config.clickhouse.database);
        if name.table == decode::EVENT_LOG && route.columns.is_empty() {
            route.columns = decode::default_route().columns;
        }
    }
    routes
}

/// A route with its table, as ClickHouse describes it.
#[derive(Debug)]
pub(crate) struct Found {
    route: Route,
    name: TableName,
    /// `None` if there is no such table.
    table: Option<TableFinding>,
    /// Of the server that was asked.
    url: String,
}

impl Found {
    pub(crate) fn name(&self) -> &TableName {
        &self.name
    }

    /// `None` if there is no such table.
    pub(crate) fn table(&self) -> Option<&TableFinding> {
        self.table.as_ref()
    }

    fn existing(&self) -> Result<&TableFinding, ConsumerError> {
        let (table, url) = (self.name.to_string(), self.url.clone());
        self.table.as_ref().ok_or(ConsumerError::NoTable { table, url })
    }
}

/// Routes, each joined with its table as far as that can be done.
#[derive(Debug)]
pub(crate) struct Routes {
    pub(crate) mappings: Vec<Arc<Mapping>>,
    pub(crate) held_back: Vec<HeldBack>,
}

/// A route whose table cannot be written to until somebody changes it. Its partitions
/// wait; others do not hear of it.
#[derive(Debug)]
pub(crate) struct HeldBack {
    topics: Subscription,
    pub(crate) table: TableName,
    pub(crate) error: ConsumerError,
}

impl HeldBack {
    pub(crate) fn takes_topic(&self, topic: &str) -> bool {
        self.topics.takes(topic)
    }
}

impl Routes {
    /// The tables that rows of `topic` go to.
    pub(crate) fn tables_of<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a TableName> {
        let fit = self.mappings.iter().filter(|mapping| mapping.takes_topic(topic));
        fit.map(|mapping| mapping.table_name())
            .chain(self.held_back_of(topic).map(|held| &held.table))
    }

    /// The routes that keep partitions of `topic` waiting.
    pub(crate) fn held_back_of<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a HeldBack> {
        self.held_back.iter().filter(move |held| held.takes_topic(topic))
    }

    /// All of them, if their tables can be written to.
    ///
    /// # Errors
    /// Says what is wrong with the first table that cannot.
    pub(crate) fn all(self) -> Result<Vec<Arc<Mapping>>, ConsumerError> {
        match self.held_back.into_iter().next() {
            None => Ok(self.mappings),
            Some(held) => Err(held.error),
        }
    }

    /// These, if there is something to begin with.
    ///
    /// # Errors
    /// Names what of a route is wrong whatever its table is; says what is wrong with the
    /// first table, if none can be written to.
    pub(crate) fn or_refuse(mut self) -> Result<Self, ConsumerError> {
        let is_wrong = |held: &HeldBack| match &held.error {
            ConsumerError::Mapping(error) => !error.is_of_the_table(),
            _ => false,
        };
        let wrong = self.held_back.iter().position(is_wrong);
        let none_fits = self.mappings.is_empty() && !self.held_back.is_empty();
        match wrong.or(none_fits.then_some(0)) {
            Some(place) => Err(self.held_back.swap_remove(place).error),
            None => Ok(self),
        }
    }
}

/// Finds the table of every route.
///
/// # Errors
/// When ClickHouse cannot be asked.
pub(crate) async fn find(
    config: &Config,
    clickhouse: &ClickHouse,
) -> Result<Vec<Found>, ConsumerError> {
    let routes = routes(config).into_iter().map(|route| {
        let name = TableName::parse(&route.table, &clickhouse.database);
        (route, name)
    });
    let routes: Vec<_> = routes.collect();
    let asking = clickhouse.on_any(|| async {
        let mut tables = Vec::new();
        for (_, name) in &routes {
            tables.push(clickhouse.find_table(name).await?);
        }
        Ok(tables)
    });
    let tables = asking
        .await
        .map_err(|source| ConsumerError::clickhouse("reading the tables", clickhouse, source))?;
    let url = clickhouse.url();
    let found = routes.into_iter().zip(tables).map(|((route, name), table)| Found {
        route,
        name,
        table,
        url: url.to_owned(),
    });
    Ok(found.collect())
}

/// Joins every route with its table, and tells which tables cannot be written to, or
/// would not drop a repeated insert.
pub(crate) fn join(config: &Config, found: &[Found]) -> Routes {
    join_if(found, |name, table| {
        let remembers = match config.consumer.delivery {
            Delivery::ExactlyOnce => table.memory.check(config.clickhouse.has_replicas()),
            Delivery::AtLeastOnce => Ok(()),
        };
        let is_synced = table.is_synced || !config.clickhouse.fsync;
        let is_fit = remembers.and(is_synced.then_some(()).ok_or(Unfit::Unsynced));
        is_fit.map_err(|unfit| ConsumerError::Unfit {
            table: name.to_string(),
            fix: unfit.fix(name),
            unfit,
        })
    })
}

fn join_if(
    found: &[Found],
    is_fit: impl Fn(&TableName, &TableFinding) -> Result<(), ConsumerError>,
) -> Routes {
    let mut routes = Routes { mappings: Vec::new(), held_back: Vec::new() };
    for (index, one) in found.iter().enumerate() {
        let joined = one.existing().and_then(|table| {
            is_fit(&one.name, table)?;
            let schema = table.schema(one.name.clone())?;
            let mapping = Mapping::new(index, &one.route, &schema)?;
            let mapping = mapping
                .partitioned(table.is_partitioned)
                .sharing_inserts(
                    table.can_be_asked && !table.has_dependents && table.memory.window() > 0,
                )
                .merging_as(table.engine.clone(), table.merging.clone());
            Ok((mapping, schema.left_out))
        });
        match joined {
            Ok((mapping, left_out)) => {
                for left_out in left_out {
                    let error = error_line(&left_out);
                    tracing::warn!(error, "column left out of every row: ClickHouse fills it");
                }
                let is_alike =
                    |other: &&Found| other.name == one.name && other.route.topic == one.route.topic;
                let alike = found[..index].iter().filter(is_alike).count();
                routes.mappings.push(Arc::new(mapping.after_alike(alike)));
            }
            Err(error) => routes.held_back.push(HeldBack {
                topics: Subscription::of(std::slice::from_ref(&one.route.topic)),
                table: one.name.clone(),
                error,
            }),
        }
    }
    routes
}

/// Joins every route with its table.
///
/// # Errors
/// Names the table that is missing, has columns that cannot be written, or would not
/// drop a repeated insert.
pub(crate) fn mappings(
    config: &Config,
    found: &[Found],
) -> Result<Vec<Arc<Mapping>>, ConsumerError> {
    join(config, found).all()
}

/// The same for who writes nothing.
///
/// # Errors
/// Names the table that is missing, or has columns that cannot be written.
pub(crate) fn mappings_to_read(found: &[Found]) -> Result<Vec<Arc<Mapping>>, ConsumerError> {
    join_if(found, |_, _| Ok(())).all()
}

/// The tables that are not what they were when they were found before.
pub(crate) fn changed(before: &[Found], now: &[Found]) -> HashSet<TableName> {
    let is_other = |(before, now): &(&Found, &Found)| before.table != now.table;
    let changed = before.iter().zip(now).filter(is_other);
    changed.map(|(_, now)| now.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{deduplication::Memory, merging::Merging, table::DescribedColumn};

    fn found(topic: &str, table: &str) -> Found {
        let column = |(name, type_name): (&str, &str)| DescribedColumn {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            default_kind: String::new(),
        };
        let columns = [("event_id", "UUID"), ("n", "UInt64")].map(column).into();
        let mut route = decode::default_route();
        topic.clone_into(&mut route.topic);
        route.columns.clear();
        Found {
            route,
            name: TableName::parse(table, "db"),
            table: Some(TableFinding {
                columns,
                constants: Default::default(),
                engine: "MergeTree".into(),
                is_partitioned: false,
                has_dependents: false,
                can_be_asked: true,
                memory: Memory::Local { window: 100 },
                is_synced: false,
                expires: false,
                merging: Merging::Never,
            }),
            url: String::new(),
        }
    }

    #[test]
    fn routes_are_named_apart_and_not_by_where_they_stand() {
        let targets = |found: &[Found]| -> Vec<_> {
            let mappings = mappings_to_read(found).unwrap();
            mappings.iter().map(|mapping| (mapping.target().to_owned(), mapping.id())).collect()
        };
        let routes =
            [found("a", "t"), found("a", "u"), found("b", "t"), found("a", "t"), found("^a", "t")];
        let of_all = targets(&routes);
        let names = of_all.iter().map(|(target, _)| target.as_str()).collect::<Vec<_>>();
        assert_eq!(names, ["db.t#a", "db.u#a", "db.t#b", "db.t#a#1", "db.t#^a"]);
        let ids: std::collections::HashSet<_> = of_all.iter().map(|(_, id)| *id).collect();
        assert_eq!(ids.len(), of_all.len());
        assert_eq!(targets(&routes[1..3]), of_all[1..3], "the first one is gone");
    }

    #[test]
    fn a_table_that_cannot_be_written_to_is_held_back_and_no_other() {
        let mut renamed = found("a", "u");
        renamed.route.columns = [("gone".to_owned(), "$id".to_owned())].into();
        let dropped = Found { table: None, ..found("^b", "v") };
        let routes = join_if(&[found("a", "t"), renamed, dropped], |_, _| Ok(()));
        assert_eq!(routes.mappings.len(), 1);
        let tables = |topic| routes.tables_of(topic).map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            (tables("a"), tables("bc")),
            (vec!["db.t".into(), "db.u".into()], vec!["db.v".into()])
        );
        let held = |topic| routes.held_back_of(topic).count();
        assert_eq!([held("a"), held("bc"), held("c")], [1, 1, 0]);
        let routes = routes.or_refuse().unwrap();
        assert!(routes.all().unwrap_err().to_string().contains("`gone`"));

        let begins_with = |found: &[Found]| join_if(found, |_, _| Ok(())).or_refuse();
        let mut wrong = found("a", "t");
        wrong.route.columns = [("n".to_owned(), "$nothing".to_owned())].into();
        let refused = begins_with(&[found("a", "t"), wrong]).unwrap_err();
        assert!(matches!(refused, ConsumerError::Mapping(_)), "no table mends that");
        let dropped = Found { table: None, ..found("b", "v") };
        let refused = begins_with(&[dropped]).unwrap_err();
        assert!(matches!(refused, ConsumerError::NoTable { .. }), "nothing is left");
    }

    #[test]
    fn a_table_that_is_altered_or_gone_has_changed() {
        let before = || [found("a", "t"), found("b", "u"), found("c", "v")];
        let mut now = before();
        now[1].table.as_mut().unwrap().columns.pop();
        now[2].table = None;
        let mut names: Vec<_> =
            changed(&before(), &now).into_iter().map(|name| name.table).collect();
        names.sort();
        assert_eq!(names, ["u", "v"]);
        assert_eq!(changed(&before(), &before()).len(), 0);
    }
}
