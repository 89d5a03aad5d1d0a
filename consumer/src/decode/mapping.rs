//! A route joined with its table: where each column's value comes from.

use std::{collections::BTreeMap, sync::Arc};

use outpour_schemas::config::{PayloadFormat, Route, UnknownFields};
use regex::Regex;

use super::{
    envelope::{self, EnvelopeValue, EnvelopeValueError},
    path,
    payload::Wanted,
    unknown::{Collected, Unknown},
};
use crate::{
    block::{
        Column, ColumnType,
        types::ScalarType::{Json, String as Text},
    },
    rejected::RouteId,
    table::{TableName, TableSchema},
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
        event_types: Vec::new(),
        table: EVENT_LOG.to_owned(),
        columns: columns.map(|(column, from)| (column.to_owned(), from.to_owned())).into(),
        unknown_fields: UnknownFields::Ignore,
        payload_format: None,
    }
}

/// A route that does not fit its table.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    #[error("routes: table {table} has no column `{column}`")]
    UnknownColumn { table: String, column: String },
    #[error("routes: column `{column}` of table {table}: {source}")]
    Value { table: String, column: String, source: EnvelopeValueError },
    #[error(
        "routes: column `{column}` of table {table} is {kind}; unknown_fields collects into \
         String, JSON or Map(String, String)"
    )]
    Collect { table: String, column: String, kind: String },
    #[error("routes: topic `{topic}`")]
    Topic { topic: String, source: regex::Error },
}

#[derive(Debug)]
pub(super) enum Source {
    /// A payload field, by its slot.
    Field(usize),
    Envelope(EnvelopeValue),
    /// The fields that no column takes.
    Unknown,
}

/// What to do in a row that lacks the value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Missing {
    Null,
    Default,
    /// Text that a record without a payload has.
    Empty,
    Reject,
}

/// One route, ready to make rows.
#[derive(Debug)]
pub struct Mapping {
    topic: TopicPattern,
    event_types: Vec<String>,
    pub(crate) table: Arc<str>,
    table_name: TableName,
    table_sql: String,
    /// Tells routes into the same table apart.
    index: usize,
    id: RouteId,
    has_provenance: bool,
    pub(crate) insert_sql: Arc<str>,
    pub(crate) columns: Arc<[Column]>,
    pub(super) format: PayloadFormat,
    pub(super) sources: Vec<(Source, Missing)>,
    pub(super) wanted: Wanted,
    /// How many slots `wanted` fills.
    pub(super) fields: usize,
    /// Whether rows take anything from the payload.
    pub(super) reads_payload: bool,
    unknown: OnUnknown,
}

/// What to do with fields that no column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnUnknown {
    Ignore,
    Reject,
    Collect { as_text: bool },
}

fn target(table: &str, index: usize) -> String {
    format!("{table}#{index}")
}

#[derive(Debug)]
enum TopicPattern {
    Name(String),
    Pattern(Regex),
}

impl Mapping {
    /// # Errors
    /// Names what of the route the table does not have.
    pub fn new(index: usize, route: &Route, schema: &TableSchema) -> Result<Self, MappingError> {
        let table = schema.name.to_string();
        let is_column = |name: &String| schema.columns.iter().any(|c| c.column.name() == name);
        let collecting = match &route.unknown_fields {
            UnknownFields::Collect(column) => Some(column),
            UnknownFields::Ignore | UnknownFields::Reject => None,
        };
        if let Some(column) = route.columns.keys().chain(collecting).find(|name| !is_column(name)) {
            return Err(MappingError::UnknownColumn { table, column: column.clone() });
        }
        let topic = if route.topic.starts_with('^') {
            TopicPattern::Pattern(
                Regex::new(&route.topic)
                    .map_err(|source| MappingError::Topic { topic: route.topic.clone(), source })?,
            )
        } else {
            TopicPattern::Name(route.topic.clone())
        };
        let provenance: BTreeMap<_, _> = PROVENANCE.into();
        let (mut wanted, mut fields) = (Wanted::default(), 0);
        let mut unknown = match route.unknown_fields {
            UnknownFields::Reject => OnUnknown::Reject,
            UnknownFields::Ignore | UnknownFields::Collect(_) => OnUnknown::Ignore,
        };
        let mut sources = Vec::with_capacity(schema.columns.len());
        for column in &schema.columns {
            let name = column.column.name();
            let source = match (route.columns.get(name), provenance.get(name)) {
                _ if collecting.is_some_and(|collecting| collecting == name) => {
                    let as_text = collects_as_text(column.column.column_type());
                    let as_text = as_text.ok_or_else(|| MappingError::Collect {
                        table: table.clone(),
                        column: name.to_owned(),
                        kind: column.column.column_type().to_string(),
                    })?;
                    unknown = OnUnknown::Collect { as_text };
                    Source::Unknown
                }
                (Some(from), _) if from.starts_with('$') => {
                    Source::Envelope(from.parse().map_err(|source| MappingError::Value {
                        table: table.clone(),
                        column: name.to_owned(),
                        source,
                    })?)
                }
                (None, Some(value)) => Source::Envelope(value.clone()),
                (path, _) => {
                    want(&mut wanted, &column.column, path.map(String::as_str), fields);
                    fields += 1;
                    Source::Field(fields - 1)
                }
            };
            let missing = if column.column.takes_default() {
                Missing::Default
            } else if column.nullable {
                Missing::Null
            } else if matches!(source, Source::Envelope(EnvelopeValue::Payload)) {
                Missing::Empty
            } else {
                Missing::Reject
            };
            sources.push((source, missing));
        }
        let takes_payload =
            sources.iter().any(|(s, _)| matches!(s, Source::Envelope(EnvelopeValue::Payload)));
        // A column that holds the whole payload takes every field of it.
        if takes_payload && fields == 0 && unknown == OnUnknown::Reject {
            unknown = OnUnknown::Ignore;
        }
        let columns: Arc<[Column]> = schema.columns.iter().map(|c| c.column.clone()).collect();
        Ok(Mapping {
            topic,
            event_types: route.event_types.clone(),
            id: RouteId::of(&target(&table, index)),
            table: table.into(),
            table_sql: schema.name.quoted(),
            table_name: schema.name.clone(),
            index,
            has_provenance: PROVENANCE.iter().all(|(name, _)| is_column(&(*name).to_owned())),
            insert_sql: schema.insert_sql(&columns),
            columns,
            format: route.payload_format.unwrap_or_default(),
            reads_payload: takes_payload || fields > 0 || unknown != OnUnknown::Ignore,
            sources,
            wanted,
            fields,
            unknown,
        })
    }

    /// The table as SQL takes it.
    pub(crate) fn table_sql(&self) -> &str {
        &self.table_sql
    }

    pub(crate) fn table_name(&self) -> &TableName {
        &self.table_name
    }

    /// The table and the route, as a deduplication token names them.
    pub(crate) fn target(&self) -> String {
        target(&self.table, self.index)
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

    /// The columns that a record has to have a payload field for: without it
    /// the record is parked.
    pub(crate) fn required_fields(&self) -> impl Iterator<Item = &Column> {
        let all = self.columns.iter().zip(&self.sources);
        all.filter(|(_, found)| matches!(found, (Source::Field(_), Missing::Reject)))
            .map(|(column, _)| column)
    }

    pub(crate) fn takes_topic(&self, topic: &str) -> bool {
        match &self.topic {
            TopicPattern::Name(name) => name == topic,
            TopicPattern::Pattern(pattern) => pattern.is_match(topic),
        }
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
