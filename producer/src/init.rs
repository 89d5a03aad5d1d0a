//! What the database has to have, and creating it.
//!
//! The publication always comes before the slot: a slot that is older than its
//! publication meets log records from before it, and replication stops there.

use outpour_schemas::config::{Config, Mode, PollAfter};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::{
    emit_function,
    error::RelayError,
    poll::claim,
    postgres::{PostgresError, Target},
    sql::{literal, quoted},
    waiting,
};

/// One object of the set-up.
struct Step {
    what: String,
    /// Whether it is there: a query for one boolean.
    exists: String,
    create: String,
}

/// The SQL for an operator who creates the objects by hand.
#[must_use]
pub(crate) fn print_sql(config: &Config) -> String {
    let mut sql = String::new();
    for step in steps(config, None) {
        sql.push_str(&format!("-- {}\n{};\n", step.what, step.create));
    }
    sql
}

/// Creates what is missing and leaves alone what is there. Tells each thing as it is
/// done, and whom it waits for.
///
/// # Errors
/// When the database refuses; what was created before stays, and the error names it.
pub(crate) async fn init(
    config: &Config,
    stop: &CancellationToken,
    tell: impl Fn(&str) -> std::io::Result<()>,
) -> Result<(), RelayError> {
    let target = Target::of(&config.postgres)?;
    let client = target.connect().await?;
    let looking = || target.failed("looking for the outbox's objects");
    let version = "SELECT current_setting('server_version_num')::int";
    let version = client.query_one(version, &[]).await.map_err(looking())?.get(0);
    if let Some(encoding) = encoding(&client, &target).await? {
        tell(&encoding)?;
    }
    let mut made = Vec::new();
    for step in steps(config, Some(version)) {
        let row = client.query_one(step.exists.as_str(), &[]).await.map_err(looking())?;
        if row.get::<_, bool>(0) {
            tell(&format!("{} is there\n", step.what))?;
            continue;
        }
        let created = waiting::execute(&client, &target, &step.create, &step.what, stop).await;
        created.map_err(|source| RelayError::Init {
            what: step.what.clone(),
            made: made_before(&made),
            source,
        })?;
        tell(&format!("{} created\n", step.what))?;
        made.push(step.what);
    }
    if config.relay.mode == Mode::Wal {
        crate::wal::slot::inspect(&client, &target, config).await?;
    }
    Ok(())
}

/// What is to be known of an encoding that does not take every character.
async fn encoding(client: &Client, target: &Target) -> Result<Option<String>, PostgresError> {
    let asked = client.query_one("SELECT getdatabaseencoding()::text", &[]).await;
    let name: String = asked.map_err(target.failed("reading the encoding"))?.get(0);
    Ok((name != "UTF8").then(|| {
        format!(
            "the database's encoding is {name}: text becomes UTF-8 on its way, and a row with \
             bytes that mean nothing is parked\n"
        )
    }))
}

/// What an error says of the objects that were created before it.
fn made_before(made: &[String]) -> String {
    match made {
        [] => "nothing was created before it".to_owned(),
        made => format!("created before it, and staying: {}", made.join(", ")),
    }
}

/// `version` is `server_version_num`, if the server could be asked.
fn steps(config: &Config, version: Option<i32>) -> Vec<Step> {
    let table = config.outbox.has_table().then(|| table(config));
    let rest = match (config.relay.mode, config.relay.poll_after) {
        // Who polls does not see messages, so that there is no function to write them.
        (Mode::Poll, PollAfter::Delete) => vec![index(config)],
        (Mode::Poll, PollAfter::Mark) => vec![mark(config), index(config)],
        (Mode::Wal, _) => vec![publication(config), slot(config, version), function(config)],
    };
    table.into_iter().chain(rest).collect()
}

fn qualified_table(config: &Config) -> String {
    let (schema, name) = config.outbox.qualified();
    format!("{}.{}", quoted(schema), quoted(name))
}

fn table(config: &Config) -> Step {
    let outbox = &config.outbox;
    let (schema, name) = outbox.qualified();
    let columns = [
        (&outbox.column_id, "uuid PRIMARY KEY"),
        (&outbox.column_aggregate_type, "text NOT NULL"),
        (&outbox.column_aggregate_id, "text NOT NULL"),
        (&outbox.column_type, "text NOT NULL"),
        (&outbox.column_payload, "jsonb"),
        (&outbox.column_occurred_at, "timestamptz NOT NULL DEFAULT clock_timestamp()"),
        (&outbox.column_schema_version, "integer NOT NULL DEFAULT 1"),
        (&outbox.column_traceparent, "text"),
    ]
    .map(|(column, definition)| format!("    {} {definition}", quoted(column)))
    .join(",\n");
    Step {
        what: format!("table {}", outbox.table),
        exists: format!(
            "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = {} AND tablename = {})",
            literal(schema),
            literal(name)
        ),
        create: format!("CREATE TABLE {} (\n{columns}\n)", qualified_table(config)),
    }
}

/// The column that says when a row was published.
fn mark(config: &Config) -> Step {
    let (schema, table) = config.outbox.qualified();
    let column = &config.outbox.column_published_at;
    Step {
        what: format!("column {column} of {}", config.outbox.table),
        exists: format!(
            "SELECT EXISTS (SELECT FROM information_schema.columns WHERE table_schema = {} \
             AND table_name = {} AND column_name = {})",
            literal(schema),
            literal(table),
            literal(column)
        ),
        create: format!(
            "ALTER TABLE {} ADD COLUMN {} timestamptz",
            qualified_table(config),
            quoted(column)
        ),
    }
}

fn index(config: &Config) -> Step {
    let (schema, _) = config.outbox.qualified();
    let (name, create) = claim::index(config);
    Step {
        what: format!("index {name}"),
        exists: format!(
            "SELECT EXISTS (SELECT FROM pg_indexes WHERE schemaname = {} AND indexname = {})",
            literal(schema),
            literal(&name)
        ),
        create,
    }
}

fn publication(config: &Config) -> Step {
    let name = &config.relay.publication;
    // Messages belong to no table: without one the publication stays empty.
    let table = if config.outbox.has_table() {
        format!(" FOR TABLE {}", qualified_table(config))
    } else {
        String::new()
    };
    // Inserts only: deleting a row after it was written is housekeeping. The rows
    // of a partitioned table come under its own name.
    let options = "publish = 'insert', publish_via_partition_root = true";
    Step {
        what: format!("publication {name}"),
        exists: format!(
            "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = {})",
            literal(name)
        ),
        create: format!("CREATE PUBLICATION {}{table} WITH ({options})", quoted(name)),
    }
}

fn slot(config: &Config, version: Option<i32>) -> Step {
    /// From here on a standby may keep a copy of a slot, which outlives the primary.
    const FAILOVER: i32 = 170_000;
    let slot = &config.relay.slot;
    let name = literal(slot);
    let create = |options: &str| {
        format!("SELECT pg_create_logical_replication_slot({name}, 'pgoutput'{options})")
    };
    let with_failover = create(", failover => true");
    Step {
        what: format!("replication slot {slot}"),
        exists: format!(
            "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {name})"
        ),
        create: match version {
            None => format!("-- from PostgreSQL 17 on: {with_failover};\n{}", create("")),
            Some(FAILOVER..) => with_failover,
            Some(_) => create(""),
        },
    }
}

fn function(config: &Config) -> Step {
    Step {
        what: format!("function {}", emit_function::name(config)),
        exists: emit_function::exists(config),
        create: emit_function::create(config),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_publication_comes_before_the_slot_and_publishes_inserts_only() {
        let sql = print_sql(&Config::default());
        let publication = sql.find("CREATE PUBLICATION").unwrap();
        let slot = sql.find("pg_create_logical_replication_slot").unwrap();
        assert!(publication < slot);
        assert!(sql.contains("publish = 'insert'"));
    }

    #[test]
    fn a_standby_may_take_the_slot_over_where_the_server_knows_how() {
        let create = |version| slot(&Config::default(), version).create;
        assert!(create(Some(180_000)).ends_with("'pgoutput', failover => true)"));
        assert!(create(Some(160_004)).ends_with("'pgoutput')"));
        let by_hand = create(None);
        let (comment, sql) = by_hand.split_once('\n').unwrap();
        assert!(comment.starts_with("-- ") && comment.contains("failover"), "{comment}");
        assert!(sql.ends_with("'pgoutput')"), "{sql}");
    }

    #[test]
    fn polling_asks_for_nothing_of_replication() {
        let mut config = Config::default();
        config.relay.mode = Mode::Poll;
        let sql = print_sql(&config);
        for word in ["PUBLICATION", "slot", "outpour_emit", "published_at"] {
            assert!(!sql.contains(word), "{word}: {sql}");
        }
        config.relay.poll_after = PollAfter::Mark;
        let sql = print_sql(&config);
        let column = sql.find("ADD COLUMN \"published_at\"").unwrap();
        assert!(column < sql.find("CREATE INDEX").unwrap(), "{sql}");
    }

    #[test]
    fn names_are_quoted_whatever_they_hold() {
        let mut config = Config::default();
        config.outbox.table = "app.out\"box'; --".to_owned();
        let sql = print_sql(&config);
        assert!(sql.contains("CREATE TABLE \"app\".\"out\"\"box'; --\""), "{sql}");
    }
}
