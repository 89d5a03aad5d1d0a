//! Where a replay writes: the routes of a topic, and the table that takes their
//! place. Pure but for the look at the tables.

use outpour_schemas::{
    config::{Config, Delivery, GroupProtocol, Route},
    program::error_line,
};

use super::{args::ReplayArgs, error::ReplayError};
use crate::{
    decode::{Mapping, PROVENANCE},
    error::ConsumerError,
    sink::{ClickHouse, TableFinding},
    source::Subscription,
    table::TableName,
    tables,
};

/// What becomes of the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// The tables get what they lack.
    Live,
    /// Another table gets it.
    Into(TableName),
    /// A table takes the place of the live one.
    Swap { live: TableName, shadow: TableName },
}

/// The tables of a replay, and the routes into them.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) kind: Kind,
    /// What the topic goes to when it is consumed.
    pub(super) live: Vec<TableName>,
    routes: Vec<Route>,
}

/// Ends the name of the table that is to take a live one's place, and of the old
/// one afterwards.
const SHADOW: &str = "__replay";

impl Target {
    /// # Errors
    /// When the topic has no such table.
    pub(super) fn choose(config: &Config, args: &ReplayArgs) -> Result<Self, ReplayError> {
        let database = &config.clickhouse.database;
        let name = |text: &str| TableName::parse(text, database);
        let topic = &args.topic;
        let mut routes = tables::routes(config);
        routes.retain(|route| takes(route, topic));
        if routes.is_empty() {
            return Err(ReplayError::refused(format!(
                "no route takes topic `{topic}`; see [[routes]]"
            )));
        }
        let mut live: Vec<_> = routes.iter().map(|route| name(&route.table)).collect();
        live.sort();
        live.dedup();
        let all = listed(&live);
        if let Some(table) = &args.table {
            let table = name(table);
            live.retain(|found| *found == table);
            routes.retain(|route| name(&route.table) == table);
            if live.is_empty() {
                return Err(ReplayError::refused(format!(
                    "--table {table}: topic `{topic}` goes to {all}"
                )));
            }
        }
        if args.live {
            return Ok(Target { kind: Kind::Live, live, routes });
        }
        let [only] = live.as_slice() else {
            return Err(ReplayError::refused(format!(
                "topic `{topic}` goes to {all}; choose with --table"
            )));
        };
        let kind = match &args.into {
            Some(into) if name(into) == *only => {
                return Err(ReplayError::refused(format!(
                    "--into {only}: that is where topic `{topic}` goes anyway; use --live to add \
                     what it lacks, or --swap to build it anew"
                )));
            }
            Some(into) => Kind::Into(name(into)),
            None => Kind::Swap {
                live: only.clone(),
                shadow: TableName { table: format!("{}{SHADOW}", only.table), ..only.clone() },
            },
        };
        Ok(Target { kind, live, routes })
    }

    /// The target as part of a group's name.
    pub(super) fn id(&self) -> String {
        match &self.kind {
            Kind::Live => "live".to_owned(),
            Kind::Into(table) => format!("into.{table}"),
            Kind::Swap { live, .. } => format!("swap.{live}"),
        }
    }

    /// What is written to, for people.
    pub(super) fn text(&self) -> String {
        match &self.kind {
            Kind::Live => listed(&self.live),
            Kind::Into(table) => table.to_string(),
            Kind::Swap { live, shadow } => format!("{live}, by way of {shadow}"),
        }
    }

    /// The table in the place of the live one; `None` to write to the live ones.
    pub(super) fn other(&self) -> Option<&TableName> {
        match &self.kind {
            Kind::Live => None,
            Kind::Into(table) => Some(table),
            Kind::Swap { shadow, .. } => Some(shadow),
        }
    }

    /// The configuration of a consumer that replays `topic` into `other`, or into
    /// the live tables.
    pub(super) fn config(
        &self,
        config: &Config,
        group: &str,
        topic: &str,
        other: Option<&TableName>,
    ) -> Config {
        let mut replaying = config.clone();
        replaying.routes.clone_from(&self.routes);
        if let Some(other) = other {
            replaying.routes.iter_mut().for_each(|route| route.table = other.to_string());
        }
        let consumer = &mut replaying.consumer;
        group.clone_into(&mut consumer.group);
        consumer.topics = vec![topic.to_owned()];
        consumer.delivery = Delivery::ExactlyOnce;
        consumer.group_protocol = GroupProtocol::Classic;
        // Both belong to the live consumer.
        consumer.group_instance_id = String::new();
        consumer.http_listen = String::new();
        consumer.client_id.push_str("-replay");
        replaying
    }
}

pub(super) fn takes(route: &Route, topic: &str) -> bool {
    Subscription::of(std::slice::from_ref(&route.topic)).takes(topic)
}

pub(super) fn listed(tables: &[TableName]) -> String {
    tables.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Sees to it that what `config` routes to can be replayed into exactly once. With
/// `beside_others`, rows are added to a table that has newer ones.
///
/// # Errors
/// Names the table that is missing or does not do.
pub(super) async fn check(
    config: &Config,
    clickhouse: &ClickHouse,
    beside_others: bool,
) -> Result<(), ConsumerError> {
    let refused = |error: &dyn std::error::Error| ReplayError::refused(error_line(error));
    let found = match tables::find(config, clickhouse).await {
        Err(error @ ConsumerError::NoTable { .. }) => return Err(refused(&error).into()),
        found => found?,
    };
    let mappings = tables::mappings(config, &found).map_err(|error| refused(&error))?;
    if let Some(mapping) = mappings.iter().find(|mapping| !mapping.has_provenance()) {
        return Err(without_provenance(&mapping.table).into());
    }
    if let Some(mapping) = mappings.iter().find(|m| beside_others && !m.takes_again()) {
        return Err(merging(mapping).into());
    }
    for mapping in &mappings {
        let seen = clickhouse.check_sees_all(mapping.table_name()).await;
        seen.map_err(|source| ConsumerError::clickhouse("reading the tables", clickhouse, source))?;
    }
    Ok(())
}

fn merging(mapping: &Mapping) -> ReplayError {
    ReplayError::refused(format!(
        "table {} has engine {}, {}; replay the whole topic into another table (--into), or {}",
        mapping.table,
        mapping.engine(),
        mapping.merging().harm(),
        mapping.merging().remedy(mapping.table_name()),
    ))
}

fn without_provenance(table: &str) -> ReplayError {
    let names = PROVENANCE.map(|(name, _)| format!("`{name}`")).join(", ");
    ReplayError::refused(format!(
        "table {table} lacks one of the columns {names}, by which it is known what it has; \
         replay into one that has them"
    ))
}

/// The table, which has to be there.
pub(super) async fn found(
    clickhouse: &ClickHouse,
    table: &TableName,
) -> Result<TableFinding, ConsumerError> {
    let finding = finding(clickhouse, table).await?;
    finding.ok_or_else(|| {
        ReplayError::refused(format!("table {table} does not exist in ClickHouse")).into()
    })
}

pub(super) async fn finding(
    clickhouse: &ClickHouse,
    table: &TableName,
) -> Result<Option<TableFinding>, ConsumerError> {
    let asking = clickhouse.on_any(|| clickhouse.find_table(table));
    asking
        .await
        .map_err(|source| ConsumerError::clickhouse("reading the tables", clickhouse, source))
}

/// Makes `table` like `live`, with its columns, engine and settings, if it is not
/// there yet.
pub(super) async fn create_like(
    clickhouse: &ClickHouse,
    table: &TableName,
    live: &TableName,
) -> Result<(), ConsumerError> {
    let sql = format!("CREATE TABLE IF NOT EXISTS {} AS {}", table.quoted(), live.quoted());
    execute(clickhouse, "creating the table", &sql).await
}

pub(super) async fn execute(
    clickhouse: &ClickHouse,
    doing: &'static str,
    sql: &str,
) -> Result<(), ConsumerError> {
    let executing = clickhouse.on_any(|| clickhouse.execute(sql));
    executing.await.map_err(|source| ConsumerError::clickhouse(doing, clickhouse, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(routes: &[(&str, &str)]) -> Config {
        let mut config = Config::default();
        config.clickhouse.database = "db".into();
        config.routes = routes
            .iter()
            .map(|(topic, table)| Route {
                topic: (*topic).into(),
                table: (*table).into(),
                ..Route::default()
            })
            .collect();
        config
    }

    fn choose(config: &Config, line: &str) -> Result<Target, String> {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: ReplayArgs,
        }
        let words = ["replay", "--topic", "t"].into_iter().chain(line.split_whitespace());
        let args = <Line as clap::Parser>::parse_from(words).args;
        Target::choose(config, &args).map_err(|error| error.to_string())
    }

    #[test]
    fn without_routes_everything_goes_to_event_log() {
        let target = choose(&config(&[]), "--swap").unwrap();
        assert_eq!(target.text(), "db.event_log, by way of db.event_log__replay");
        let replaying = target.config(&config(&[]), "g", "t", target.other());
        assert_eq!(replaying.routes[0].table, "db.event_log__replay");
        assert!(!replaying.routes[0].columns.is_empty(), "the columns of event_log stay");
        assert_eq!(replaying.consumer.topics, ["t"]);
    }

    #[test]
    fn a_topic_of_several_tables_asks_which() {
        let config = config(&[("t", "a"), ("^.*", "b"), ("other", "c")]);
        assert_eq!(choose(&config, "--live").unwrap().text(), "db.a, db.b");
        let several = choose(&config, "--swap").unwrap_err();
        assert!(several.contains("db.a, db.b; choose with --table"), "{several}");
        assert_eq!(choose(&config, "--into n --table b").unwrap().text(), "db.n");
        assert!(choose(&config, "--live --table c").unwrap_err().contains("goes to db.a, db.b"));
        assert!(choose(&config, "--into b --table b").unwrap_err().contains("use --live"));
    }

    #[test]
    fn a_topic_without_a_route_is_refused() {
        let refused = choose(&config(&[("other", "a")]), "--live").unwrap_err();
        assert!(refused.contains("no route takes topic `t`"), "{refused}");
    }
}
