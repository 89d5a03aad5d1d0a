//! Whether the publication sends the outbox's rows. The server itself never tells
//! that it does not.

use outpour_schemas::config::Config;
use tokio_postgres::Client;

use super::{slot::SlotError, table::MEMBERS};
use crate::postgres::Target;

/// What the catalog has for the outbox. Where two of them differ, the publication
/// or the table was not the same all the time between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    /// The table's object id.
    table: Option<u32>,
    /// The versions of the publication and of the table's place in it.
    versions: String,
}

/// # Errors
/// When rows of the outbox would not be sent, or under a name that is not its own.
pub(crate) async fn check(
    client: &Client,
    target: &Target,
    config: &Config,
) -> Result<Published, SlotError> {
    let (schema, table) = config.outbox.qualified();
    let publication = &config.relay.publication;
    // Who is a child of the table is to be found under its own name; a partition
    // comes under the table's.
    let sql = format!(
        "{MEMBERS}, root AS (
             SELECT c.oid, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')
         ), sent AS (
             SELECT c.oid FROM pg_publication_tables t
             JOIN pg_publication p USING (pubname)
             JOIN pg_namespace n ON n.nspname = t.schemaname
             JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
             WHERE t.pubname = $3 AND p.pubinsert)
         SELECT
             (SELECT oid FROM root) AS table_oid,
             p.oid IS NOT NULL AS publication_there,
             p.pubinsert AS has_inserts,
             EXISTS (SELECT FROM root JOIN sent USING (oid)) AS published,
             p.pubinsert AND NOT p.pubviaroot AND EXISTS (
                 SELECT FROM root WHERE relkind = 'p'
                   AND (p.puballtables
                     OR EXISTS (SELECT FROM pg_publication_rel
                                WHERE prpubid = p.oid AND prrelid = root.oid)
                     OR EXISTS (SELECT FROM member JOIN sent USING (oid)))) AS under_partitions,
             (SELECT format('%I.%I', n.nspname, c.relname)
              FROM member JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE NOT c.relispartition AND c.oid NOT IN (SELECT oid FROM root)
                AND c.oid NOT IN (SELECT oid FROM sent) LIMIT 1) AS child,
             concat_ws(' ', p.oid, p.xmin, (SELECT concat_ws(' ', r.oid, r.xmin)
                 FROM pg_publication_rel r JOIN root ON r.prrelid = root.oid
                 WHERE r.prpubid = p.oid)) AS versions
         FROM (SELECT) one LEFT JOIN pg_publication p ON p.pubname = $3"
    );
    let row = client
        .query_one(&sql, &[&schema, &table, publication])
        .await
        .map_err(target.failed("reading the publication"))?;
    let (name, publication) = (|| config.outbox.table.clone(), publication.clone());
    let (has_table, there) = (config.outbox.has_table(), row.get::<_, Option<u32>>("table_oid"));
    let is = |column: &str| row.get::<_, Option<bool>>(column).unwrap_or_default();
    if has_table && there.is_none() {
        return Err(SlotError::NoTable { table: name(), target: target.to_string() });
    }
    if !is("publication_there") {
        return Err(SlotError::NoPublication { publication, target: target.to_string() });
    }
    // Messages belong to no table, and so to every publication.
    if has_table {
        if !is("has_inserts") {
            return Err(SlotError::NoInserts { publication });
        }
        if is("under_partitions") {
            return Err(SlotError::UnderPartitions { publication, table: name() });
        }
        if !is("published") {
            return Err(SlotError::NotPublished { publication, table: name() });
        }
        if let Some(child) = row.get("child") {
            return Err(SlotError::ChildNotPublished { publication, table: name(), child });
        }
    }
    Ok(Published { table: there, versions: row.get("versions") })
}
