//! Questions about the outbox table and its publication.

use outpour_schemas::config::Config;
use serde_json::Value;
use tokio_postgres::error::SqlState;

use super::{
    super::facts::{Column, Coverage, Generated, Publication, Published, Table},
    database::Asking,
};
use crate::{
    postgres::PostgresError,
    sql::quoted,
    wal::table::{BASE_TYPE, MEMBERS},
};

pub(super) async fn table(
    asking: &Asking<'_>,
    config: &Config,
) -> Result<Option<Table>, PostgresError> {
    let (schema, name) = config.outbox.qualified();
    let doing = "reading the outbox table";
    let rows = asking
        .all(
            doing,
            "SELECT c.oid, c.relkind = 'p' AS is_partitioned,
                    c.relpersistence = 'p' AND NOT EXISTS (
                        SELECT FROM pg_partition_tree(c.oid) part JOIN pg_class leaf ON leaf.oid = part.relid
                        WHERE leaf.relpersistence <> 'p') AS is_logged,
                    c.relreplident IN ('f', 'i') OR (c.relreplident = 'd' AND EXISTS (
                        SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)) AS has_identity,
                    has_schema_privilege(n.oid, 'USAGE') AS can_use_schema,
                    has_table_privilege(c.oid, 'SELECT') AS can_select,
                    has_table_privilege(c.oid, 'INSERT') AS can_insert,
                    has_any_column_privilege(c.oid, 'UPDATE') AS can_update,
                    has_table_privilege(c.oid, 'DELETE') AS can_delete,
                    row_security_active(c.oid) AS hides_rows,
                    pg_has_role(c.relowner, 'USAGE') AS is_owned
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')",
            &[&schema, &name],
        )
        .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let columns = asking
        .all(
            doing,
            &format!(
                "SELECT attname::text AS name, {BASE_TYPE} AS type_oid,
                        attgenerated::text AS generated,
                        format_type(atttypid, atttypmod) AS type_name
                 FROM pg_attribute a WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped"
            ),
            &[&row.get::<_, u32>("oid")],
        )
        .await?;
    Ok(Some(Table {
        is_partitioned: row.get("is_partitioned"),
        is_logged: row.get("is_logged"),
        has_identity: row.get("has_identity"),
        can_use_schema: row.get("can_use_schema"),
        can_select: row.get("can_select"),
        can_insert: row.get("can_insert"),
        can_update: row.get("can_update"),
        can_delete: row.get("can_delete"),
        hides_rows: row.get("hides_rows"),
        is_owned: row.get("is_owned"),
        columns: columns
            .iter()
            .map(|column| Column {
                name: column.get("name"),
                type_oid: column.get("type_oid"),
                type_name: column.get("type_name"),
                generated: match column.get("generated") {
                    "" => None,
                    "s" => Some(Generated::Stored),
                    _ => Some(Generated::Virtual),
                },
            })
            .collect(),
    }))
}

pub(super) async fn publication(
    asking: &Asking<'_>,
    config: &Config,
) -> Result<Option<Publication>, PostgresError> {
    let (schema, name) = config.outbox.qualified();
    let doing = "reading the publication";
    let rows = asking
        .all(
            doing,
            "SELECT p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete,
                    p.pubtruncate, p.pubviaroot, s.is_newer, s.is_free
             FROM pg_publication p LEFT JOIN LATERAL (
                 SELECT age(p.xmin) < age(s.catalog_xmin) AS is_newer,
                        NOT s.active AND s.plugin = 'pgoutput' AND s.wal_status <> 'lost'
                            AND s.database = current_database() AS is_free
                 FROM pg_replication_slots s WHERE s.slot_name = $2) s ON true
             WHERE p.pubname = $1",
            &[&config.relay.publication, &config.relay.slot],
        )
        .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    // As JSON, since columns and row filters are there from version 15 on only.
    let tables = asking
        .all(
            doing,
            // By ids: who may not use a schema may not look a name up in it.
            &format!(
                "{MEMBERS}
                 SELECT to_jsonb(t), t.schemaname = $1 AND t.tablename = $2 AS is_outbox,
                        c.relispartition AS is_partition, m.oid IS NOT NULL AS is_member
                 FROM pg_publication_tables t
                 JOIN pg_namespace n ON n.nspname = t.schemaname
                 JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
                 LEFT JOIN member m ON m.oid = c.oid
                 WHERE t.pubname = $3"
            ),
            &[&schema, &name, &config.relay.publication],
        )
        .await?;
    let left_out = asking
        .all(
            doing,
            &format!(
                "{MEMBERS}
                 SELECT format('%I.%I', n.nspname, c.relname)
                 FROM member JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE NOT c.relispartition AND NOT (n.nspname = $1 AND c.relname = $2)
                   AND NOT EXISTS (SELECT FROM pg_publication_tables t WHERE t.pubname = $3
                                   AND t.schemaname = n.nspname AND t.tablename = c.relname)"
            ),
            &[&schema, &name, &config.relay.publication],
        )
        .await?;
    let covers_slot = match (row.get("is_newer"), row.get("is_free")) {
        (Some(true), Some(true)) => tried(asking, config).await,
        _ => Coverage::Whole,
    };
    let mut outbox = None;
    let (mut has_partitions, mut other_tables) = (false, Vec::new());
    for row_of_table in &tables {
        let table: Value = row_of_table.get(0);
        let text = |field: &str| table[field].as_str().map(str::to_owned);
        if row_of_table.get("is_outbox") {
            let names = table["attnames"].as_array().map(|names| {
                names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
            });
            outbox = Some(Published { columns: names, row_filter: text("rowfilter") });
        } else if row_of_table.get("is_member") {
            has_partitions |= row_of_table.get::<_, bool>("is_partition");
        } else {
            let (schema, name) = (text("schemaname"), text("tablename"));
            other_tables.push(format!(
                "{}.{}",
                schema.unwrap_or_default(),
                name.unwrap_or_default()
            ));
        }
    }
    let others = [("update", "pubupdate"), ("delete", "pubdelete"), ("truncate", "pubtruncate")];
    Ok(Some(Publication {
        all_tables: row.get("puballtables"),
        inserts: row.get("pubinsert"),
        others: others
            .into_iter()
            .filter(|(_, column)| row.get(*column))
            .map(|(operation, _)| operation)
            .collect(),
        via_root: row.get("pubviaroot"),
        has_partitions,
        other_tables,
        children_left_out: left_out.iter().map(|row| row.get(0)).collect(),
        outbox,
        covers_slot,
    }))
}

/// Whether the server can read on for the slot, which the ages of their entries in
/// the catalog do not tell where another slot lags. Nothing is moved by it.
async fn tried(asking: &Asking<'_>, config: &Config) -> Coverage {
    let (slot, publication) = (&config.relay.slot, quoted(&config.relay.publication));
    let sql = "SELECT FROM pg_logical_slot_peek_binary_changes($1::text::name, NULL, 1,
                   'proto_version', '1', 'publication_names', $2, 'messages', 'true')";
    match asking.client.query(sql, &[slot, &publication]).await {
        Ok(_) => Coverage::Whole,
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Coverage::Lacking,
        Err(_) => Coverage::Unknown,
    }
}
