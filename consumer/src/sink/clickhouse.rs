//! Inserts over HTTP.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use clickhouse::{Client, Compression, RowOwned, RowRead, query::Query};
use jiff::Timestamp;
use outpour_schemas::config::{self, ConfigError};

use super::{
    Part, Sink, SinkError,
    connection::{self, CONNECT_TIMEOUT},
    servers::Servers,
    settings::Known,
};
use crate::{
    batch::Insert,
    decode::Mapping,
    merging::Merging,
    source::TopicPartition,
    statement,
    table::{TableName, TableSchema},
    trace::Attempt,
};

/// A client of one ClickHouse: a server, or several replicas of which one is
/// spoken to at a time.
#[derive(Clone)]
pub(crate) struct ClickHouse {
    servers: Arc<Servers<Server>>,
    insert_timeout: Duration,
    pub(crate) database: String,
}

struct Server {
    /// As it may be shown.
    url: String,
    client: Client,
    /// Its settings, once they have been asked for.
    known: Mutex<Option<Arc<Known>>>,
}

/// One INSERT with its rows.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) sql: &'a str,
    pub(crate) body: &'a [Bytes],
    /// What ClickHouse knows a repeated one by.
    pub(crate) token: &'a str,
    pub(crate) attempt: &'a Attempt,
}

impl ClickHouse {
    /// # Errors
    /// When the certificates of the authorities cannot be read.
    pub(crate) fn new(config: &config::ClickHouse) -> Result<Self, ConfigError> {
        let client = connection::client(config.tls_ca_file.as_deref(), CONNECT_TIMEOUT)?
            .with_user(&config.user)
            .with_password(config.password.expose())
            .with_database(&config.database)
            .with_compression(match config.compression {
                config::Compression::Lz4 => Compression::Lz4,
                config::Compression::Zstd => Compression::zstd(),
                config::Compression::None => Compression::None,
            })
            .with_product_info("outpour-consumer", env!("CARGO_PKG_VERSION"));
        let server = |url: &str| Server {
            url: url.to_owned(),
            client: client.clone().with_url(url),
            known: Mutex::default(),
        };
        Ok(ClickHouse {
            servers: Arc::new(Servers::new(config.urls().map(server).collect())),
            insert_timeout: config.insert_timeout.0,
            database: config.database.clone(),
        })
    }

    /// Of the server that is spoken to.
    pub(crate) fn url(&self) -> &str {
        &self.servers.current().1.url
    }

    /// Of all of them.
    pub(crate) fn urls(&self) -> String {
        self.servers.iter().map(|server| server.url.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Asks, and where it fails for the server's sake, asks each of the others once.
    pub(crate) async fn on_any<T, A: Future<Output = Result<T, SinkError>>>(
        &self,
        ask: impl Fn() -> A,
    ) -> Result<T, SinkError> {
        let mut others = self.servers.count() - 1;
        loop {
            match ask().await {
                Err(error) if others > 0 && error.is_of_the_server() => others -= 1,
                outcome => return outcome,
            }
        }
    }

    /// A query; every `?` in it is to be bound.
    pub(crate) fn query(&self, template: &str) -> Query {
        self.servers.current().1.client.query(template)
    }

    /// What a query returns.
    pub(crate) async fn fetch<T: RowOwned + RowRead>(
        &self,
        query: Query,
    ) -> Result<Vec<T>, SinkError> {
        self.fetch_from(self.servers.current(), query).await
    }

    async fn fetch_from<T: RowOwned + RowRead>(
        &self,
        (place, server): (usize, &Server),
        query: Query,
    ) -> Result<Vec<T>, SinkError> {
        self.within(place, async { Ok(server.pinned(query).await?.fetch_all().await?) }).await
    }

    /// The same of SQL in which a `?` is a `?`.
    pub(crate) async fn fetch_raw<T: RowOwned + RowRead>(
        &self,
        sql: &str,
    ) -> Result<Vec<T>, SinkError> {
        self.fetch(self.servers.current().1.client.query_raw(sql)).await
    }

    /// Runs a statement that returns nothing.
    pub(crate) async fn execute(&self, sql: &str) -> Result<(), SinkError> {
        self.execute_with(sql, &[]).await
    }

    /// The same with these settings on.
    pub(crate) async fn execute_with(&self, sql: &str, on: &[String]) -> Result<(), SinkError> {
        let (place, server) = self.servers.current();
        // Not a template: a `?` in it is a `?`.
        let query = server.client.query_raw(sql);
        let query = on.iter().fold(query, |query, name| query.with_setting(name, "1"));
        self.within(place, async { Ok(server.pinned(query).await?.execute().await?) }).await
    }

    /// What a query returns, in `format`.
    pub(crate) async fn fetch_bytes(&self, sql: &str, format: &str) -> Result<Bytes, SinkError> {
        self.fetch_bytes_from(self.servers.current(), sql, format).await
    }

    async fn fetch_bytes_from(
        &self,
        (place, server): (usize, &Server),
        sql: &str,
        format: &str,
    ) -> Result<Bytes, SinkError> {
        let query = server.client.query_raw(sql);
        let asking =
            async { Ok(server.pinned(query).await?.fetch_bytes(format)?.collect().await?) };
        self.within(place, asking).await
    }

    /// What `sql` returns, of a server that has all rows of `table` that any replica
    /// was given before. It may read all of the table.
    pub(crate) async fn fetch_settled<T: RowOwned + RowRead>(
        &self,
        table: &TableName,
        sql: &str,
    ) -> Result<Vec<T>, SinkError> {
        const PATIENCE: Duration = Duration::from_secs(600);
        self.on_any(|| async {
            let (place, server) = self.all_of(table).await?;
            let query = server.client.query_raw(sql);
            let asking = async { Ok(server.pinned(query).await?.fetch_all().await?) };
            self.within_time(PATIENCE.max(self.insert_timeout), place, asking).await
        })
        .await
    }

    /// Sends one INSERT with its rows.
    pub(crate) async fn send(&self, request: Request<'_>) -> Result<(), SinkError> {
        self.send_to(self.servers.current(), request).await
    }

    async fn send_to(
        &self,
        (place, server): (usize, &Server),
        Request { sql, body, token, attempt }: Request<'_>,
    ) -> Result<(), SinkError> {
        /// What is compressed at once, here and by the server.
        const FRAME: usize = 1 << 20;
        self.within(place, async {
            let known = server.known().await?;
            let mut insert = match attempt.traceparent() {
                None => server.client.insert_formatted_with(sql),
                Some(traceparent) => {
                    let client = server.client.clone().with_header("traceparent", traceparent);
                    client.insert_formatted_with(sql)
                }
            };
            insert = insert.with_setting("query_id", attempt.query_id());
            for (name, value) in known.of_inserts() {
                insert = insert.with_setting(name, value);
            }
            insert = insert.with_setting("insert_deduplication_token", token);
            for piece in body {
                for start in (0..piece.len()).step_by(FRAME) {
                    insert.send(piece.slice(start..piece.len().min(start + FRAME))).await?;
                }
            }
            Ok(insert.end().await?)
        })
        .await
    }

    /// Sends an INSERT of no rows, so that what it takes besides them is known.
    ///
    /// # Errors
    /// When it is refused, as one with rows would be.
    pub(crate) async fn try_insert(&self, schema: &TableSchema) -> Result<(), SinkError> {
        let columns: Vec<_> = schema.columns.iter().map(|column| column.column.clone()).collect();
        let sql = schema.insert_sql(&columns);
        let (token, attempt) = ("outpour/doctor/nothing", &Attempt::new(None));
        self.send(Request { sql: &sql, body: &[], token, attempt }).await
    }

    /// The server to ask what a table has: of several replicas, one that has all
    /// rows that any of them was given before. `select_sequential_consistency` would
    /// not do: without quorum inserts it waits for nothing, and with parallel ones it
    /// does not work.
    async fn caught_up(&self, name: &TableName) -> Result<(usize, &Server), SinkError> {
        const REPLICATED: &str = "SELECT count() FROM system.tables \
             WHERE database = ? AND name = ? AND match(engine, '^(Replicated|Shared)')";
        let (place, server) = self.servers.current();
        if self.servers.count() == 1 {
            return Ok((place, server));
        }
        let query = server.client.query(REPLICATED).bind(&name.database).bind(&name.table);
        if self.fetch_from::<u64>((place, server), query).await?.first().is_some_and(|n| *n > 0) {
            let sync = format!("SYSTEM SYNC REPLICA {} LIGHTWEIGHT", name.quoted());
            let query = server.client.query_raw(&sync);
            self.within(place, async { Ok(server.pinned(query).await?.execute().await?) }).await?;
        }
        Ok((place, server))
    }

    /// The same, if what the user sees of the table is all of it.
    async fn all_of(&self, name: &TableName) -> Result<(usize, &Server), SinkError> {
        let server = self.caught_up(name).await?;
        self.check_from(server, name).await?;
        Ok(server)
    }

    /// Whether a SELECT returns every row of a table, as far as the server tells.
    ///
    /// # Errors
    /// When a row policy hides some.
    pub(crate) async fn check_sees_all(&self, name: &TableName) -> Result<(), SinkError> {
        self.on_any(|| self.check_from(self.servers.current(), name)).await
    }

    async fn check_from(
        &self,
        server: (usize, &Server),
        name: &TableName,
    ) -> Result<(), SinkError> {
        // Who may not see policies sees them at work.
        let sql = format!("EXPLAIN actions = 1 SELECT count() FROM {}", name.quoted());
        let plan = self.fetch_bytes_from(server, &sql, "TabSeparatedRaw").await?;
        let plan = String::from_utf8_lossy(&plan).to_ascii_lowercase();
        let filter = plan.lines().find_map(|line| line.split_once("row level filter column:"));
        match (plan.contains("row level filter"), filter) {
            (false, _) => Ok(()),
            (true, filter) => {
                let filter = filter.map_or("", |(_, filter)| filter.trim());
                Err(SinkError::hidden_rows(&name.to_string(), filter))
            }
        }
    }

    /// What the table has of a part.
    async fn offsets_there(
        &self,
        server: (usize, &Server),
        mapping: &Mapping,
        part: &Part<'_>,
    ) -> Result<HashSet<i64>, SinkError> {
        let sql = format!(
            "SELECT DISTINCT toInt64(_offset) FROM {} \
             WHERE _topic = ? AND _partition = ? AND _offset >= ? AND _offset < ?",
            mapping.table_name().quoted()
        );
        let query = server.1.client.query(&sql);
        let query = query.bind(&*part.partition.topic).bind(part.partition.partition);
        let query = query.bind(part.range.start).bind(part.range.end);
        let there: Vec<i64> = self.fetch_from(server, query).await?;
        Ok(there.into_iter().collect())
    }

    /// Nothing that waits for ClickHouse waits for ever. What fails for the sake of
    /// the server at `place` is the last that is asked of it for now.
    async fn within<T>(
        &self,
        place: usize,
        work: impl Future<Output = Result<T, SinkError>>,
    ) -> Result<T, SinkError> {
        self.within_time(self.insert_timeout, place, work).await
    }

    async fn within_time<T>(
        &self,
        time: Duration,
        place: usize,
        work: impl Future<Output = Result<T, SinkError>>,
    ) -> Result<T, SinkError> {
        let outcome = tokio::time::timeout(time, work)
            .await
            .unwrap_or_else(|_| Err(SinkError::timed_out(time.as_secs())));
        outcome.map_err(|error| {
            if error.is_of_settings()
                && let Some(server) = self.servers.iter().nth(place)
            {
                server.forget_settings();
            }
            self.move_on(place, error)
        })
    }

    fn move_on(&self, place: usize, error: SinkError) -> SinkError {
        if self.servers.count() == 1 || !error.is_of_the_server() {
            return error;
        }
        let from = self.servers.iter().nth(place).map_or("", |server| &server.url);
        if let Some(next) = self.servers.give_up(place) {
            tracing::warn!(from, to = next.url, %error, "going on with another ClickHouse server");
        }
        SinkError { message: format!("{from}: {}", error.message), ..error }
    }
}

impl Server {
    /// Asked once, and again where the server turns out to be another version.
    async fn known(&self) -> Result<Arc<Known>, SinkError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let query = self.client.query(Known::SQL).bind(Known::all_names());
        // One row, whatever the profile leaves of a result.
        let query = query.with_setting("limit", "0").with_setting("offset", "0");
        let known = Arc::new(Known::parse(&query.fetch_one::<String>().await?));
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&known));
        Ok(known)
    }

    fn forget_settings(&self) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The query, returning what it says and nothing less.
    async fn pinned(&self, query: Query) -> Result<Query, SinkError> {
        let known = self.known().await?;
        Ok(known.of_reads().fold(query, |query, (name, value)| query.with_setting(name, value)))
    }
}

impl Sink for ClickHouse {
    async fn insert(
        &self,
        insert: &Insert,
        token: &str,
        attempt: &Attempt,
    ) -> Result<(), SinkError> {
        let sql = statement::whole(insert.mapping.insert());
        self.send(Request { sql: &sql, body: &insert.body, token, attempt }).await
    }

    async fn insert_part(
        &self,
        insert: &Insert,
        part: Part<'_>,
        attempt: &Attempt,
    ) -> Result<(), SinkError> {
        let mapping = &insert.mapping;
        // Of rows that a table has merged away it does not say that it has had them: then
        // all of them again, in their order, are as close as can be.
        let is_asked = part.is_asked && *mapping.merging() == Merging::Never;
        let (server, there) = if is_asked {
            let server = self.all_of(mapping.table_name()).await?;
            (server, self.offsets_there(server, mapping, &part).await?)
        } else {
            (self.servers.current(), HashSet::new())
        };
        let is_wanted = |offset| part.range.contains(&offset) && !there.contains(&offset);
        let body = insert.body_of(is_wanted);
        if body.is_empty() {
            return Ok(());
        }
        let sql = statement::whole(mapping.insert());
        self.send_to(server, Request { sql: &sql, body: &body, token: &part.token, attempt }).await
    }

    async fn insert_nothing(&self, mapping: &Mapping, attempt: &Attempt) -> Result<(), SinkError> {
        let token = "outpour/nothing";
        // The way that rows go takes rights of its own, and nothing of the table is computed
        // on it where there are none: hence the plain way, too.
        let sql = statement::whole(mapping.insert());
        self.send(Request { sql: &sql, body: &[], token, attempt }).await?;
        let sql = statement::plain(mapping.table_name(), &mapping.columns);
        let (place, server) = self.servers.current();
        self.within(place, async {
            let known = server.known().await?;
            let insert = server.client.query_raw(&sql);
            let insert =
                known.of_inserts().fold(insert, |insert, (n, v)| insert.with_setting(n, v));
            Ok(insert.execute().await?)
        })
        .await
    }

    async fn has_changed(&self, mapping: &Mapping) -> Result<bool, SinkError> {
        let found = self.find_table(mapping.table_name()).await?;
        // One that is gone refuses whatever comes.
        Ok(found.is_some_and(|found| found.columns != *mapping.described))
    }

    async fn remembers(&self, mapping: &Mapping, since: Timestamp) -> Result<bool, SinkError> {
        let name = mapping.table_name();
        let (place, server) = self.caught_up(name).await?;
        let Some(found) = self.find_table(name).await? else { return Ok(false) };
        let window = found.memory.window();
        if window == 0 {
            // Good enough for at-least-once alone, which does not go by it.
            return Ok(true);
        }
        let sql = parts_since(found.is_replicated(), since);
        let query = server.client.query(&sql).bind(&name.database).bind(&name.table);
        let parts: Vec<u64> = self.fetch_from((place, server), query).await?;
        // The other half is for those that come while it is sent.
        Ok(parts.first().is_some_and(|parts| *parts < window / 2))
    }

    async fn last_offset(
        &self,
        mapping: &Mapping,
        partition: &TopicPartition,
    ) -> Result<Option<i64>, SinkError> {
        let sql = format!(
            "SELECT toInt64(maxOrNull(_offset)) FROM {} WHERE _topic = ? AND _partition = ?",
            mapping.table_name().quoted()
        );
        let (place, server) = self.all_of(mapping.table_name()).await?;
        let query = server.client.query(&sql).bind(&*partition.topic).bind(partition.partition);
        let found: Vec<Option<i64>> = self.fetch_from((place, server), query).await?;
        Ok(found.into_iter().next().flatten())
    }
}

/// How many parts a table was given since then, or more: parts are numbered as they
/// come, those of a replicated table in each partition anew, and what is left of older
/// ones tells where the numbers were. Mutations take numbers, too.
fn parts_since(is_replicated: bool, since: Timestamp) -> String {
    /// The server's clock may be that far off, and has whole seconds.
    const CLOCKS_DIFFER_BY: i64 = 5;
    let since = since.as_second() - CLOCKS_DIFFER_BY;
    let of_each = if is_replicated { "GROUP BY partition_id" } else { "" };
    format!(
        "SELECT toUInt64(sum(parts)) FROM (
           SELECT max(max_block_number + 1)
             - maxIf(max_block_number + 1, toUnixTimestamp(modification_time) < {since}) AS parts
           FROM system.parts WHERE database = ? AND table = ? {of_each})"
    )
}
