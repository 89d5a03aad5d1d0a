//! Which tables the records of a topic belong in: by the consumer's own routes.

use std::{collections::BTreeMap, sync::Arc};

use outpour_schemas::wire;
use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers},
};

use crate::{decode::Mapping, merging::Merging, table::TableName};

/// A table that routes write to.
#[derive(Debug)]
pub(super) struct Table {
    /// As reports and letters name it.
    pub(super) name: String,
    pub(super) table: TableName,
    /// The routes of the topic that write to it.
    pub(super) routes: Vec<Arc<Mapping>>,
    pub(super) has_provenance: bool,
    /// Of any route, since it is the table's.
    mapping: Arc<Mapping>,
}

impl Table {
    pub(super) fn merging(&self) -> &Merging {
        self.mapping.merging()
    }

    pub(super) fn engine(&self) -> &str {
        self.mapping.engine()
    }
}

/// The routes of one topic, by table.
#[derive(Debug)]
pub(super) struct Routing {
    pub(super) tables: Vec<Table>,
    /// What every record is taken by, where no route asks for its type or its value.
    same_for_all: Option<Vec<u32>>,
}

impl Routing {
    pub(super) fn of(topic: &str, mappings: &[Arc<Mapping>]) -> Self {
        let mut tables: BTreeMap<&str, Table> = BTreeMap::new();
        for mapping in mappings {
            let table = tables.entry(&mapping.table).or_insert_with(|| Table {
                name: mapping.table.to_string(),
                table: mapping.table_name().clone(),
                routes: Vec::new(),
                has_provenance: mapping.has_provenance(),
                mapping: Arc::clone(mapping),
            });
            if mapping.takes_topic(topic) {
                table.routes.push(Arc::clone(mapping));
            }
        }
        let tables: Vec<_> = tables.into_values().collect();
        let mut routing = Routing { tables, same_for_all: None };
        let mut routes = routing.tables.iter().flat_map(|table| &table.routes);
        if routes.all(|route| route.takes_every_type() && !route.skips_tombstones()) {
            let mut takes = Vec::new();
            routing.takes_record(None, None, &mut takes);
            routing.same_for_all = Some(takes);
        }
        routing
    }

    /// Whether any route of the topic writes to the table at `index`.
    pub(super) fn writes_to(&self, index: usize) -> bool {
        !self.tables[index].routes.is_empty()
    }

    /// Appends how many rows `record` has in each table, and 1 if no route takes
    /// it, else 0.
    pub(super) fn takes(&self, record: &BorrowedMessage<'_>, takes: &mut Vec<u32>) {
        match &self.same_for_all {
            Some(same) => takes.extend(same),
            None => self.takes_record(event_type(record), record.payload(), takes),
        }
    }

    fn takes_record(&self, event_type: Option<&[u8]>, value: Option<&[u8]>, takes: &mut Vec<u32>) {
        let mut is_taken = false;
        for table in &self.tables {
            let by = table.routes.iter().filter(|route| route.takes_type(event_type));
            let by = by.inspect(|_| is_taken = true).filter(|route| !route.passes_over(value));
            // Routes are few.
            takes.push(by.count() as u32);
        }
        takes.push(u32::from(!is_taken));
    }
}

fn event_type<'a>(record: &'a BorrowedMessage<'_>) -> Option<&'a [u8]> {
    let mut headers = record.headers()?.iter();
    headers.find(|header| header.key == wire::header::EVENT_TYPE)?.value
}
