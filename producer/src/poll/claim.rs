//! Which rows are taken, in which order, and what becomes of them: as SQL, and
//! as the rule that keeps a key in order. Pure.

use std::collections::HashSet;

use bytes::Bytes;
use outpour_schemas::config::{Config, PollAfter};

use crate::{sql::quoted, wal::charset::Charset};

/// The statements of one relay.
#[derive(Debug)]
pub(super) struct Statements {
    /// `"schema"."table"`
    table: String,
    id: String,
    /// What rows are ordered by, and have to be indexed by.
    order: String,
    /// What makes a row one that waits, if not that it is there.
    waiting: Option<String>,
    after: PollAfter,
    published_at: String,
    batch_rows: u32,
}

impl Statements {
    /// `has_time` says whether the table has the column that orders it.
    pub(super) fn of(config: &Config, has_time: bool) -> Self {
        let outbox = &config.outbox;
        let (schema, table) = outbox.qualified();
        let (id, published_at) = (quoted(&outbox.column_id), quoted(&outbox.column_published_at));
        Statements {
            table: format!("{}.{}", quoted(schema), quoted(table)),
            order: if has_time {
                format!("{}, {id}", quoted(&outbox.column_occurred_at))
            } else {
                id.clone()
            },
            waiting: (config.relay.poll_after == PollAfter::Mark)
                .then(|| format!("{published_at} IS NULL")),
            after: config.relay.poll_after,
            batch_rows: config.relay.poll_batch_rows,
            id,
            published_at,
        }
    }

    /// The first rows that wait, in order: whether each could be locked, the
    /// time in microseconds since the Unix epoch, and `columns`.
    ///
    /// A row that somebody else has locked is part of the answer, since it may
    /// hold up others.
    pub(super) fn claim<'a>(
        &self,
        columns: impl Iterator<Item = &'a str>,
        charset: &Charset,
    ) -> String {
        let Statements { table, id, order, batch_rows, .. } = self;
        let filter = |word: &str| {
            self.waiting.as_ref().map_or_else(String::new, |waiting| format!(" {word} {waiting}"))
        };
        let columns: Vec<_> =
            columns.map(|column| charset.select(&format!("o.{}", quoted(column)))).collect();
        format!(
            "WITH head AS MATERIALIZED (
                SELECT {id} FROM {table}{} ORDER BY {order} LIMIT {batch_rows}
            ), claimed AS MATERIALIZED (
                SELECT {id} FROM {table} WHERE {id} IN (SELECT {id} FROM head){}
                FOR UPDATE SKIP LOCKED
            )
            SELECT {id} IN (SELECT {id} FROM claimed),
                   (extract(epoch FROM statement_timestamp()) * 1000000)::bigint, {}
            FROM {table} AS o WHERE {id} IN (SELECT {id} FROM head) ORDER BY {order}",
            filter("WHERE"),
            filter("AND"),
            columns.join(", "),
        )
    }

    /// The ids of the first rows that wait and that nobody has locked.
    pub(super) fn first(&self, charset: &Charset) -> String {
        let Statements { table, id, order, batch_rows, .. } = self;
        let waiting = self.waiting.as_deref().unwrap_or("true");
        format!(
            "SELECT {} FROM {table} WHERE {waiting} AND {id} IS NOT NULL
             ORDER BY {order} LIMIT {batch_rows} FOR UPDATE SKIP LOCKED",
            charset.select(id)
        )
    }

    /// Removes published rows, or marks them, and asks which of them wait still.
    ///
    /// How many rows a statement touched says less: a trigger may have moved a row
    /// elsewhere itself, or put back what was changed. One that acts at the end of
    /// the transaction is to do so before it is asked. `ids` are constants.
    pub(super) fn settle(&self, ids: &[String], charset: &Charset) -> String {
        let Statements { table, id, published_at, .. } = self;
        let ids = ids.join(", ");
        let settle = match self.after {
            PollAfter::Delete => format!("DELETE FROM {table} WHERE {id} IN ({ids})"),
            PollAfter::Mark => {
                format!(
                    "UPDATE {table} SET {published_at} = clock_timestamp() WHERE {id} IN ({ids})"
                )
            }
        };
        let waiting = self.waiting.as_deref().unwrap_or("true");
        format!(
            "{settle}; SET CONSTRAINTS ALL IMMEDIATE;
             SELECT {} FROM {table} WHERE {id} IN ({ids}) AND {waiting}",
            charset.select(id)
        )
    }

    /// The statement that settles, for a person.
    pub(super) fn verb(&self) -> &'static str {
        match self.after {
            PollAfter::Delete => "DELETE",
            PollAfter::Mark => "UPDATE",
        }
    }

    /// How many rows wait, the time of the oldest as the log has it, and the
    /// server's in milliseconds since the Unix epoch.
    pub(super) fn count(&self, occurred_at: Option<&str>) -> String {
        let Statements { table, .. } = self;
        let waiting = self.waiting.as_deref().unwrap_or("true");
        let oldest = occurred_at.map_or_else(
            || "NULL".to_owned(),
            |column| {
                let column = quoted(column);
                format!(
                    "(SELECT {column}::text FROM {table}
                      WHERE {waiting} AND {column}::text NOT IN ('infinity', '-infinity')
                      ORDER BY {column} LIMIT 1)"
                )
            },
        );
        format!(
            "SELECT count(*), {oldest}, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
             FROM {table} WHERE {waiting}"
        )
    }
}

/// The index that finds the rows that wait, for `init`: its name, and what
/// creates it.
pub(crate) fn index(config: &Config) -> (String, String) {
    /// As long as PostgreSQL takes names.
    const LONGEST: usize = 63;
    // One that was made for the other way is no good for this one.
    let suffix = match config.relay.poll_after {
        PollAfter::Delete => "_order_idx",
        PollAfter::Mark => "_unpublished_idx",
    };
    let statements = Statements::of(config, true);
    let (_, table) = config.outbox.qualified();
    let mut end = table.len().min(LONGEST - suffix.len());
    while !table.is_char_boundary(end) {
        end -= 1;
    }
    let name = format!("{}{suffix}", &table[..end]);
    let filter =
        statements.waiting.as_ref().map_or_else(String::new, |waiting| format!(" WHERE {waiting}"));
    let create = format!(
        "CREATE INDEX {} ON {} ({}){filter}",
        quoted(&name),
        statements.table,
        statements.order
    );
    (name, create)
}

/// Keeps a key in order within a batch: behind a row that somebody else has
/// locked, no other row of its key is published.
#[derive(Debug, Default)]
pub(super) struct Order {
    held_up: HashSet<Bytes>,
    /// Whether a row was passed over.
    pub(super) has_locked: bool,
}

impl Order {
    /// No later row of this key goes out.
    pub(super) fn hold(&mut self, key: Option<&Bytes>) {
        self.held_up.extend(key.cloned());
    }

    /// Whether the next row may be published. A row without a key keeps no
    /// order.
    pub(super) fn admits(&mut self, is_claimed: bool, key: Option<&Bytes>) -> bool {
        if !is_claimed {
            self.has_locked = true;
            self.hold(key);
        }
        is_claimed && key.is_none_or(|key| !self.held_up.contains(key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config(after: PollAfter) -> Config {
        let mut config = Config::default();
        config.relay.poll_after = after;
        config.outbox.table = "app.out\"box".to_owned();
        config
    }

    #[test]
    fn rows_come_by_time_then_id_and_only_by_id_without_a_time() {
        let sql = Statements::of(&config(PollAfter::Delete), true)
            .claim(["id"].into_iter(), &Charset::Utf8);
        assert!(
            sql.contains("FROM \"app\".\"out\"\"box\" ORDER BY \"occurred_at\", \"id\" LIMIT 1000")
        );
        assert!(sql.ends_with("ORDER BY \"occurred_at\", \"id\""), "{sql}");
        assert!(!sql.contains("published_at"), "{sql}");
        let sql = Statements::of(&config(PollAfter::Delete), false)
            .claim(["id"].into_iter(), &Charset::Utf8);
        assert!(!sql.contains("occurred_at"), "{sql}");
    }

    #[test]
    fn marked_rows_wait_no_more_and_the_index_leaves_them_out() {
        let config = config(PollAfter::Mark);
        let statements = Statements::of(&config, true);
        let sql = statements.claim(["id"].into_iter(), &Charset::Utf8);
        assert_eq!(sql.matches("\"published_at\" IS NULL").count(), 2, "{sql}");
        let (name, sql) = index(&config);
        assert_eq!(name, "out\"box_unpublished_idx");
        assert!(sql.ends_with("(\"occurred_at\", \"id\") WHERE \"published_at\" IS NULL"), "{sql}");
        let sql = statements.settle(&["'1'".to_owned(), "'2'".to_owned()], &Charset::Utf8);
        assert!(sql.starts_with("UPDATE"), "{sql}");
        assert!(sql.ends_with("IN ('1', '2') AND \"published_at\" IS NULL"), "{sql}");
    }

    #[test]
    fn the_name_of_the_index_is_cut_between_characters() {
        let mut config = config(PollAfter::Delete);
        config.outbox.table = format!("app.x{}", "ü".repeat(31));
        let (name, _) = index(&config);
        assert_eq!(name, format!("x{}_order_idx", "ü".repeat(26)));
    }

    proptest! {
        /// Whatever is locked: of each key the rows that go out are the first ones.
        #[test]
        fn what_goes_out_of_a_key_has_nothing_left_before_it(
            rows in proptest::collection::vec((any::<bool>(), 0..4_u8), 0..40),
        ) {
            let mut order = Order::default();
            let mut stopped = HashSet::new();
            for (is_claimed, key) in rows {
                let admitted = order.admits(is_claimed, Some(&Bytes::from(vec![key])));
                prop_assert!(!admitted || (is_claimed && !stopped.contains(&key)));
                prop_assert!(admitted || !is_claimed || stopped.contains(&key), "held up for nothing");
                if !admitted {
                    stopped.insert(key);
                }
            }
        }
    }
}
