//! Which column goes where in the record: the configuration and the defaults of
//! its mode, resolved once.

use outpour_schemas::{
    OutboxTable,
    config::{Compat, FieldMissing, Mode, Placement, Relay},
    wire::header,
};

use crate::wal::row::{Expects, Wanted};

/// Places of the columns that every record needs among the wanted ones.
pub(super) const ID: usize = 0;
pub(super) const ROUTE: usize = 1;
pub(super) const KEY: usize = 2;
pub(super) const PAYLOAD: usize = 3;

/// Every index is that of a wanted column.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) wanted: Vec<Wanted>,
    /// Besides the id, in the order of writing.
    pub(super) headers: Vec<(String, usize)>,
    /// Beside the payload; none, and the payload is the value.
    pub(super) envelope: Vec<(String, usize)>,
    pub(super) partition: Option<usize>,
    pub(super) timestamp: Option<usize>,
    /// Whether the position in the log is a header.
    pub(super) has_position: bool,
}

impl Plan {
    pub(super) fn of(outbox: &OutboxTable, relay: &Relay) -> Self {
        let required = |column: &str, key| Wanted {
            column: column.to_owned(),
            key,
            required: true,
            expects: Expects::Anything,
        };
        let route = match &relay.route_by_field {
            Some(column) => required(column, "relay.route_by_field"),
            None => required(&outbox.column_aggregate_type, "outbox.column_aggregate_type"),
        };
        let mut plan = Plan {
            wanted: vec![
                required(&outbox.column_id, "outbox.column_id"),
                route,
                required(&outbox.column_aggregate_id, "outbox.column_aggregate_id"),
                required(&outbox.column_payload, "outbox.column_payload"),
            ],
            headers: Vec::new(),
            envelope: Vec::new(),
            partition: None,
            timestamp: None,
            // A row that was polled has no known place in the log.
            has_position: relay.compat == Compat::Outpour && relay.mode == Mode::Wal,
        };
        match &relay.additional_fields {
            Some(fields) => {
                let must = relay.additional_field_missing == FieldMissing::Error;
                for field in &fields.0 {
                    let key = "relay.additional_fields";
                    let mut wanted = Wanted { required: must, ..required(&field.column, key) };
                    if field.placement == Placement::Partition {
                        wanted.expects = Expects::Integer;
                    }
                    let at = plan.want(wanted);
                    match field.placement {
                        Placement::Header => plan.headers.push((field.alias.clone(), at)),
                        Placement::Envelope => plan.envelope.push((field.alias.clone(), at)),
                        Placement::Partition => plan.partition = Some(at),
                    }
                }
            }
            None if relay.compat == Compat::Outpour => plan.add_default_headers(outbox),
            None => {}
        }
        if let Some(column) = &relay.timestamp_column {
            let wanted = required(column, "relay.timestamp_column");
            plan.timestamp = Some(plan.want(Wanted { expects: Expects::Moment, ..wanted }));
        }
        plan
    }

    fn want(&mut self, wanted: Wanted) -> usize {
        self.wanted.push(wanted);
        self.wanted.len() - 1
    }

    /// Of columns that a table made for another relay need not have.
    fn add_default_headers(&mut self, outbox: &OutboxTable) {
        let headers = [
            (header::EVENT_TYPE, &outbox.column_type, "outbox.column_type"),
            (header::SCHEMA_VERSION, &outbox.column_schema_version, "outbox.column_schema_version"),
            (header::OCCURRED_AT, &outbox.column_occurred_at, "outbox.column_occurred_at"),
            (header::TRACEPARENT, &outbox.column_traceparent, "outbox.column_traceparent"),
        ];
        for (name, column, key) in headers {
            let column = column.clone();
            let wanted = Wanted { column, key, required: false, expects: Expects::Anything };
            let at = self.want(wanted);
            self.headers.push((name.to_owned(), at));
        }
    }
}
