//! The query for a snapshot's rows, as text. Pure.

use super::{Place, TimePlace};
use crate::{
    sql::{literal, quoted},
    wal::charset::Charset,
};

/// Holds the ids that the slot's stream has, of the connection's own.
pub(super) const STREAMED: &str = "pg_temp.outpour_streamed";

/// What is asked of the table.
#[derive(Debug, Clone)]
pub(super) struct Select {
    /// `"schema"."table"`
    pub(super) table: String,
    pub(super) columns: Vec<String>,
    pub(super) id: String,
    /// Orders the rows, before the id.
    pub(super) time: Option<String>,
    /// The publication's row filter, which the stream obeys, too.
    pub(super) filter: Option<String>,
    /// How the text of the columns is to come.
    pub(super) charset: Charset,
}

impl Select {
    /// All rows behind `after` that the stream does not have, in order.
    ///
    /// Ids are compared as the text that the stream has of them, whatever their
    /// type; `format` writes a value like the type's own output function does.
    /// Rows without an id sort nowhere, and are let through to be complained of.
    pub(super) fn sql(&self, after: Option<&Place>) -> String {
        let of = |column: &String| format!("o.{}", quoted(column));
        let id = of(&self.id);
        let columns = self.columns.iter().map(|column| self.charset.select(&of(column)));
        let columns: Vec<_> = columns.collect();
        let mut sql = format!(
            "SELECT {} FROM {} AS o WHERE NOT EXISTS \
             (SELECT FROM {STREAMED} AS s WHERE s.id COLLATE \"C\" = format('%s', {id}) COLLATE \"C\")",
            columns.join(", "),
            self.table
        );
        if let Some(filter) = &self.filter {
            sql.push_str(&format!(" AND ({filter})"));
        }
        if let Some(place) = after {
            let last = literal(&place.id);
            let behind = match &place.time {
                None => format!("{id} > {last}"),
                Some(TimePlace { column, value: None }) => {
                    let time = of(column);
                    format!("({time} IS NULL AND {id} > {last}) OR {time} IS NOT NULL")
                }
                Some(TimePlace { column, value: Some(value) }) => {
                    format!("({}, {id}) > ({}, {last})", of(column), literal(value))
                }
            };
            sql.push_str(&format!(" AND ({behind} OR {id} IS NULL)"));
        }
        sql.push_str(" ORDER BY ");
        if let Some(time) = &self.time {
            sql.push_str(&format!("{} NULLS FIRST, ", of(time)));
        }
        sql.push_str(&id);
        sql
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(time: Option<&str>) -> Select {
        Select {
            table: "\"public\".\"outbox\"".to_owned(),
            columns: vec!["id".to_owned(), "payload".to_owned()],
            id: "id".to_owned(),
            time: time.map(str::to_owned),
            filter: None,
            charset: Charset::Utf8,
        }
    }

    #[test]
    fn rows_come_by_time_then_id_and_go_on_behind_the_last() {
        let place = |value: Option<&str>| Place {
            id: "i'1".to_owned(),
            time: Some(TimePlace { column: "at".to_owned(), value: value.map(str::to_owned) }),
        };
        let by_time = select(Some("at"));
        assert!(by_time.sql(None).ends_with(" ORDER BY o.\"at\" NULLS FIRST, o.\"id\""));
        assert!(
            by_time.sql(Some(&place(Some("2026-01-01")))).contains(
                "AND ((o.\"at\", o.\"id\") > ('2026-01-01', 'i''1') OR o.\"id\" IS NULL)"
            )
        );
        assert!(by_time.sql(Some(&place(None))).contains("OR o.\"at\" IS NOT NULL OR"));
        let by_id = select(None).sql(Some(&Place { id: "7".to_owned(), time: None }));
        assert!(by_id.ends_with("AND (o.\"id\" > '7' OR o.\"id\" IS NULL) ORDER BY o.\"id\""));
    }

    #[test]
    fn the_publication_s_filter_counts_here_too() {
        let filter = Some("(aggregatetype = 'order'::text)".to_owned());
        let sql = Select { filter, ..select(None) }.sql(None);
        assert!(sql.contains(" AND ((aggregatetype = 'order'::text)) ORDER BY"), "{sql}");
    }
}
