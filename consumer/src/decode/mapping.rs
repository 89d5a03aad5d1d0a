//! A route joined with its table: where each column's value comes from.

use std::{collections::BTreeMap, sync::Arc};

use outpour_schemas::config::{
    PayloadFormat, Route, Tombstones, TopicPattern, TopicPatternError, UnknownFields,
};

use super::{
    envelope::{self, EnvelopeValue, EnvelopeValueError},
    form, path,
    payload::Wanted,
    unknown::{Collected, Unknown},
};
use crate::{
    block::{
        Cell, Column, ColumnType,
        types::ScalarType::{Json, String as Text},
    },
    merging::Merging,
    rejected::RouteId,
    table::{DescribedColumn, SchemaError, TableName, TableSchema},
};

/// The table that everything goes to when no route is configured.
pub(crate) const EVENT_LOG: &str = "event_log";

/// The columns that say where in Kafka a row came from. They are filled
/// wherever a table has them.
pub(crate) const PROVENANCE: [(&str, EnvelopeValue); 3] = [
    ("_topic", EnvelopeValue::Topic),
    ("_partition", EnvelopeValue::Partition),
    ("_offset", EnvelopeValue::Offset),
];

/// The route that is taken when none is configured.
pub(crate) fn default_route() -> Route {
    let columns = [
        ("event_id", "$id"),
        ("event_type", "$type"),
        ("event_date_time", "$occurred_at"),
        ("environment", "$environment"),
        ("event_context", "$payload"),
        ("metadata_version", "$schema_version"),
        ("aggregate_type", "$aggregate_type"),
        ("aggregate_id", "$key"),
    ];
    Route {
        topic: "^.*".to_owned(),
        table: EVENT_LOG.to_owned(),
        columns: columns.map(|(column, from)| (column.to_owned(), from.to_owned())).into(),
        ..Route::default()
    }
}

/// A route that does not fit its table.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    #[error("routes: table {table} has no column `{column}` that an INSERT may name")]
    UnknownColumn { table: String, column: String },
    #[error("routes name a column that cannot be written")]
    Unwritable(#[source] SchemaError),
    #[error("routes: column `{column}` of table {table}: {source}")]
    Value { table: String, column: String, source: EnvelopeValueError },
    #[error(
        "routes: column `{column}` of table {table} is {kind}; unknown_fields collects into \
         String, JSON or Map(String, String)"
    )]
    Collect { table: String, column: String, kind: String },
    #[error(
        "routes: column `{column}` of table {table} is {kind}; empty_if_absent is for Array, Map, \
         Tuple and JSON, others can have a DEFAULT"
    )]
    Empty { table: String, column: String, kind: String },
    #[error("routes: topic {0}")]
    Topic(#[from] TopicPatternError),
}

impl MappingError {
    /// Whether the route is as it should be, for a table with other columns.
    pub(crate) fn is_of_the_table(&self) -> bool {
        match self {
            MappingError::UnknownColumn { .. }
            | MappingError::Unwritable(_)
            | MappingError::Collect { .. }
            | MappingError::Empty { .. } => true,
            MappingError::Value { .. } | MappingError::Topic { .. } => false,
        }
    }
}

/// One route, ready to make rows.
#[derive(Debug)]
pub struct Mapping {
    topic: TopicPattern,
    event_types: Vec<String>,
    pub(crate) table: Arc<str>,
    table_name: TableName,
    index: usize,
    target: String,
    id: RouteId,
    has_provenance: bool,
    /// Columns that other columns are computed from and that no row has.
    ephemeral: Vec<String>,
    is_partitioned: bool,
    shares_inserts: bool,
    /// Whether the route itself says what some of these columns hold.
    fills_provenance: bool,
    /// The table's, and what it makes of rows later.
    engine: String,
    merging: Merging,
    /// As `statement.rs` begins it.
    insert: String,
    pub(crate) columns: Arc<[Column]>,
    /// All columns of the table, as ClickHouse describes them.
    pub(crate) described: Arc<[DescribedColumn]>,
    pub(super) format: PayloadFormat,
    /// What each column gets that nothing is found for; `None`: the record is parked.
    pub(super) absent: Vec<Option<Cell<'static>>>,
    /// In place of that, JSON for columns that it takes to say what they have.
    pub(super) constants: Vec<(usize, Arc<str>)>,
    /// The columns that are not filled from the payload's fields, by their place.
    pub(super) envelope: Vec<(usize, EnvelopeValue)>,
    /// The column of the fields that no other takes.
    pub(super) collecting: Option<usize>,
    /// The fields of all other columns; a slot is a column's place.
    pub(super) wanted: Wanted,
    /// Whether rows take anything from the payload.
    pub(super) reads_payload: bool,
    unknown: OnUnknown,
    skips_tombstones: bool,
}

/// What to do with fields that no column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnUnknown {
    Ignore,
    Reject,
    Collect { as_text: bool },
}

impl Mapping {
    /// # Errors
    /// Names what of the route the table does not have.
    pub fn new(index: usize, route: &Route, schema: &TableSchema) -> Result<Self, MappingError> {
        let table = schema.name.to_string();
        let is_column = |name: &String| schema.columns.iter().any(|c| c.column.name() == name);
        let is_stored = |name: &str| {
            let mut stored = schema.columns.iter().filter(|c| !c.is_ephemeral);
            stored.any(|c| c.column.name() == name)
        };
        let collecting = match &route.unknown_fields {
            UnknownFields::Collect(column) => Some(column),
            UnknownFields::Ignore | UnknownFields::Reject => None,
        };
        let named = route.columns.keys().chain(collecting).chain(&route.empty_if_absent);
        if let Some(column) = named.into_iter().find(|name| !is_column(name)) {
            let left_out = schema.left_out.iter().find(|left_out| left_out.column == *column);
            return Err(match left_out {
                Some(left_out) => MappingError::Unwritable(left_out.clone()),
                None => MappingError::UnknownColumn { table, column: column.clone() },
            });
        }
        let topic = route.topic.parse()?;
        let provenance: BTreeMap<_, _> = PROVENANCE.into();
        let mut unknown = match route.unknown_fields {
            UnknownFields::Reject => OnUnknown::Reject,
            UnknownFields::Ignore | UnknownFields::Collect(_) => OnUnknown::Ignore,
        };
        let (mut wanted, mut envelope, mut collects) = (Wanted::default(), Vec::new(), None);
        let mut absent = Vec::with_capacity(schema.columns.len());
        let mut constants = Vec::new();
        for (place, described) in schema.columns.iter().enumerate() {
            let column = &described.column;
            let name = column.name();
            let mut otherwise = None;
            match (route.columns.get(name), provenance.get(name)) {
                _ if collecting.is_some_and(|collecting| collecting == name) => {
                    let as_text = collects_as_text(column.column_type());
                    let as_text = as_text.ok_or_else(|| MappingError::Collect {
                        table: table.clone(),
                        column: name.to_owned(),
                        kind: column.column_type().to_string(),
                    })?;
                    unknown = OnUnknown::Collect { as_text };
                    collects = Some(place);
                }
                (Some(from), _) if from.starts_with('$') => {
                    let value = from.parse().map_err(|source| MappingError::Value {
                        table: table.clone(),
                        column: name.to_owned(),
                        source,
                    })?;
                    // Text that a record without a payload has.
                    otherwise = (value == EnvelopeValue::Payload).then_some(Cell::Text(""));
                    envelope.push((place, value));
                }
                (None, Some(value)) => envelope.push((place, value.clone())),
                (path, _) => want(&mut wanted, column, path.map(String::as_str), place),
            }
            let constant = if route.empty_if_absent.iter().any(|empty| empty == name) {
                let empty = column.column_type().empty().ok_or_else(|| MappingError::Empty {
                    table: table.clone(),
                    column: name.to_owned(),
                    kind: column.column_type().to_string(),
                })?;
                Some(empty.into())
            } else {
                described.constant.clone()
            };
            let has_constant = constant.is_some();
            constants.extend(constant.map(|json| (place, json)));
            absent.push(if column.takes_default() || has_constant {
                Some(Cell::Default)
            } else if described.nullable {
                Some(Cell::Null)
            } else {
                otherwise
            });
        }
        let takes_payload = envelope.iter().any(|(_, value)| *value == EnvelopeValue::Payload);
        // A column that holds the whole payload takes every field of it.
        if takes_payload && wanted.is_leaf() && unknown == OnUnknown::Reject {
            unknown = OnUnknown::Ignore;
        }
        let columns: Arc<[Column]> = schema.columns.iter().map(|c| c.column.clone()).collect();
        let target = format!("{table}#{}", route.topic);
        Ok(Mapping {
            topic,
            event_types: route.event_types.clone(),
            id: RouteId::of(&target),
            target,
            table: table.into(),
            table_name: schema.name.clone(),
            index,
            is_partitioned: false,
            shares_inserts: false,
            fills_provenance: PROVENANCE.iter().any(|(name, _)| route.columns.contains_key(*name)),
            has_provenance: PROVENANCE.iter().all(|(name, _)| is_stored(name)),
            ephemeral: schema
                .columns
                .iter()
                .filter(|described| described.is_ephemeral)
                .map(|described| described.column.name().to_owned())
                .collect(),
            engine: String::new(),
            merging: Merging::Never,
            insert: schema.insert(&columns),
            columns,
            described: Arc::clone(&schema.described),
            format: route.payload_format.unwrap_or_default(),
            reads_payload: takes_payload || !wanted.is_leaf() || unknown != OnUnknown::Ignore,
            absent,
            constants,
            envelope,
            collecting: collects,
            wanted,
            unknown,
            skips_tombstones: route.tombstones == Some(Tombstones::Skip),
        })
    }

    /// The same, where so many routes before it have its topic and its table, too: event
    /// types tell them apart, and may be edited, so that a number does.
    #[must_use]
    pub(crate) fn after_alike(mut self, alike: usize) -> Self {
        if alike > 0 {
            self.target = format!("{}#{alike}", self.target);
            self.id = RouteId::of(&self.target);
        }
        self
    }

    /// The same, for a table of which one insert may be several parts.
    #[must_use]
    pub(crate) fn partitioned(mut self, is_partitioned: bool) -> Self {
        self.is_partitioned = is_partitioned;
        self
    }

    /// Whether one insert may be several parts, each stored by itself.
    pub(crate) fn is_partitioned(&self) -> bool {
        self.is_partitioned
    }

    /// The same, for a table that may get rows of several partitions at once: it remembers
    /// inserts, says what it has, and has no views.
    #[must_use]
    pub(crate) fn sharing_inserts(mut self, shares_inserts: bool) -> Self {
        self.shares_inserts = shares_inserts;
        self
    }

    /// Whether rows of several partitions may be inserted together. Apart from each other
    /// they are stored by asking the table what it has: it has to tell by what Kafka says,
    /// and has to be all that there is. A view that has missed the joint insert would miss
    /// some for ever.
    pub(crate) fn takes_joint_inserts(&self) -> bool {
        self.has_provenance
            && !self.fills_provenance
            && self.shares_inserts
            && self.merging == Merging::Never
    }

    /// The same, into a table of an engine that is no plain one.
    #[must_use]
    pub(crate) fn merging_as(mut self, engine: String, merging: Merging) -> Self {
        (self.engine, self.merging) = (engine, merging);
        self
    }

    pub(crate) fn engine(&self) -> &str {
        &self.engine
    }

    /// What the table makes of rows later.
    pub(crate) fn merging(&self) -> &Merging {
        &self.merging
    }

    /// Whether the table comes to the same when a row is stored again, after others.
    pub(crate) fn takes_again(&self) -> bool {
        let is_offset = |(place, value): &(usize, EnvelopeValue), name: &str| {
            *value == EnvelopeValue::Offset && self.columns[*place].name() == name
        };
        self.merging.takes_again(|name| self.envelope.iter().any(|found| is_offset(found, name)))
    }

    /// The INSERT of its rows, to which conditions may be added.
    pub(crate) fn insert(&self) -> &str {
        &self.insert
    }

    pub(crate) fn table_name(&self) -> &TableName {
        &self.table_name
    }

    /// The table and the route, as a deduplication token names them: not by the
    /// route's place, which is another once a route is added.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// The same, as a plan names it.
    pub(crate) fn id(&self) -> RouteId {
        self.id
    }

    /// Which of the routes it is.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Whether its rows say where in Kafka they came from.
    pub(crate) fn has_provenance(&self) -> bool {
        self.has_provenance
    }

    /// Whether rows have the column, once they are in the table.
    pub(crate) fn is_stored(&self, column: &str) -> bool {
        self.ephemeral.iter().all(|ephemeral| ephemeral != column)
    }

    /// The columns that a record has to have a payload field for: without it
    /// the record is parked.
    pub(crate) fn required_fields(&self) -> impl Iterator<Item = &Column> {
        let is_field = |place: &usize| {
            self.collecting != Some(*place) && self.envelope.iter().all(|(taken, _)| taken != place)
        };
        let required = (0..self.columns.len()).filter(|place| self.absent[*place].is_none());
        required.filter(move |place| is_field(place)).map(|place| &self.columns[place])
    }

    pub(crate) fn takes_topic(&self, topic: &str) -> bool {
        self.topic.takes(topic)
    }

    pub(crate) fn takes_every_type(&self) -> bool {
        self.event_types.is_empty()
    }

    pub(crate) fn takes_type(&self, event_type: Option<&[u8]>) -> bool {
        self.event_types.is_empty()
            || event_type.is_some_and(|found| {
                let is = |wanted: &String| envelope::is_text(self.format, found, wanted);
                self.event_types.iter().any(is)
            })
    }

    /// Whether a record of this value is a deletion that the route is told to pass over.
    pub(crate) fn passes_over(&self, value: Option<&[u8]>) -> bool {
        let has_none = |value: &[u8]| matches!(form::document(self.format, value), Ok(None));
        self.skips_tombstones && value.is_none_or(has_none)
    }

    pub(crate) fn skips_tombstones(&self) -> bool {
        self.skips_tombstones
    }

    /// Nothing unknown yet.
    pub(super) fn unknown(&self) -> Unknown {
        match self.unknown {
            OnUnknown::Ignore => Unknown::Ignored,
            OnUnknown::Reject => Unknown::Named(None),
            OnUnknown::Collect { as_text } => Unknown::Collected(Collected::new(as_text)),
        }
    }
}

/// Wants the field for a column: the one at `path`, or that of the column's name.
fn want(wanted: &mut Wanted, column: &Column, path: Option<&str>, slot: usize) {
    let is_list = matches!(column.column_type(), ColumnType::Array(_));
    let Some(path) = path else {
        wanted.add([column.name()], slot, is_list);
        // As the columns of a Nested are named.
        if column.name().contains('.') {
            wanted.add(column.name().split('.'), slot, is_list);
        }
        return;
    };
    wanted.add(path::names(path).iter().map(String::as_str), slot, is_list);
}

/// How a column of this type takes an object of unknown fields: with each value
/// as JSON, or as a text that holds its JSON. `None` if it cannot.
fn collects_as_text(kind: &ColumnType) -> Option<bool> {
    let is_text = |kind: &ColumnType| {
        matches!(
            kind,
            ColumnType::Scalar(Text)
                | ColumnType::Nullable(Text)
                | ColumnType::LowCardinality { of: Text, .. }
        )
    };
    match kind {
        ColumnType::Scalar(Text | Json(_)) | ColumnType::Nullable(Text | Json(_)) => Some(false),
        ColumnType::Map(key, value) if is_text(key) && is_text(value) => Some(true),
        _ => None,
    }
}
