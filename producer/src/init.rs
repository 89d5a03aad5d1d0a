//! What the database has to have, and creating it.
//!
//! The publication always comes before the slot: a slot that is older than its
//! publication meets log records from before it, and replication stops there.

use outpour_schemas::config::{Config, Mode, PollAfter};

use crate::{
    emit_function,
    error::RelayError,
    poll::claim,
    postgres::Target,
    sql::{literal, quoted},
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
    for step in steps(config) {
        sql.push_str(&format!("-- {}\n{};\n", step.what, step.create));
    }
    sql
}

/// Creates what is missing and leaves alone what is there. Returns what it did,
/// a line each.
///
/// # Errors
/// When the database refuses; what was created before stays.
pub(crate) async fn init(config: &Config) -> Result<Vec<String>, RelayError> {
    let target = Target::of(&config.postgres)?;
    let client = target.connect().await?;
    let mut report = Vec::new();
    for step in steps(config) {
        let row = client
            .query_one(step.exists.as_str(), &[])
            .await
            .map_err(target.failed("looking for the outbox's objects"))?;
        if row.get::<_, bool>(0) {
            report.push(format!("{} is there", step.what));
        } else {
            client
                .batch_execute(&step.create)
                .await
                .map_err(target.failed("creating the outbox's objects"))?;
            report.push(format!("{} created", step.what));
        }
    }
    if config.relay.mode == Mode::Wal {
        crate::wal::slot::inspect(&client, &target, config).await?;
    }
    Ok(report)
}

fn steps(config: &Config) -> Vec<Step> {
    let table = config.outbox.has_table().then(|| table(config));
    let rest = match (config.relay.mode, config.relay.poll_after) {
        // Who polls does not see messages, so that there is no function to write them.
        (Mode::Poll, PollAfter::Delete) => vec![index(config)],
        (Mode::Poll, PollAfter::Mark) => vec![mark(config), index(config)],
        (Mode::Wal, _) => vec![publication(config), slot(config), function(config)],
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

fn slot(config: &Config) -> Step {
    let slot = &config.relay.slot;
    Step {
        what: format!("replication slot {slot}"),
        exists: format!(
            "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {})",
            literal(slot)
        ),
        create: format!("SELECT pg_create_logical_replication_slot({}, 'pgoutput')", literal(slot)),
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
