//! A route joined with its table: where each column's value comes from.

use std::{collections::BTreeMap, sync::Arc};

use outpour_schemas::config::{Route, UnknownFields};
use regex::Regex;
use smallvec::{SmallVec, smallvec};

use super::{
    Rejection,
    envelope::{EnvelopeValue, EnvelopeValueError},
    payload::Wanted,
};
use crate::{
    block::{Block, Cell, Column},
    source::RecordView,
    table::TableSchema,
};

/// One for each column, without a trip to the allocator for most tables.
type OnStack<T> = SmallVec<[T; 32]>;

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
    }
}

/// A route that does not fit its table.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    #[error("routes: table {table} has no column `{column}`")]
    UnknownColumn { table: String, column: String },
    #[error("routes: column `{column}` of table {table}: {source}")]
    Value { table: String, column: String, source: EnvelopeValueError },
    #[error("routes: topic `{topic}`")]
    Topic { topic: String, source: regex::Error },
}

#[derive(Debug)]
enum Source {
    /// A payload field, by its slot.
    Field(usize),
    Envelope(EnvelopeValue),
}

/// What to do in a row that lacks the value.
#[derive(Debug, Clone, Copy)]
enum Missing {
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
    table_sql: String,
    /// Tells routes into the same table apart.
    index: usize,
    has_provenance: bool,
    pub(crate) insert_sql: Arc<str>,
    pub(crate) columns: Arc<[Column]>,
    sources: Vec<(Source, Missing)>,
    wanted: Wanted,
    fields: usize,
    unknown_fields: UnknownFields,
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
        if let Some(column) = route.columns.keys().find(|name| !is_column(name)) {
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
        let mut sources = Vec::with_capacity(schema.columns.len());
        for column in &schema.columns {
            let name = column.column.name();
            let source = match (route.columns.get(name), provenance.get(name)) {
                (Some(from), _) if from.starts_with('$') => {
                    Source::Envelope(from.parse().map_err(|source| MappingError::Value {
                        table: table.clone(),
                        column: name.to_owned(),
                        source,
                    })?)
                }
                (None, Some(value)) => Source::Envelope(value.clone()),
                (path, _) => {
                    wanted.add(path.map_or(name, String::as_str), fields);
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
        let columns: Arc<[Column]> = schema.columns.iter().map(|c| c.column.clone()).collect();
        Ok(Mapping {
            topic,
            event_types: route.event_types.clone(),
            table: table.into(),
            table_sql: schema.name.quoted(),
            index,
            has_provenance: PROVENANCE.iter().all(|(name, _)| is_column(&(*name).to_owned())),
            insert_sql: schema.insert_sql(&columns),
            columns,
            sources,
            wanted,
            fields,
            unknown_fields: route.unknown_fields,
        })
    }

    /// The table as SQL takes it.
    pub(crate) fn table_sql(&self) -> &str {
        &self.table_sql
    }

    /// The table and the route, as a deduplication token names them.
    pub(crate) fn target(&self) -> String {
        format!("{}#{}", self.table, self.index)
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

    pub(crate) fn takes_type(&self, event_type: Option<&[u8]>) -> bool {
        self.event_types.is_empty()
            || event_type.is_some_and(|found| {
                self.event_types.iter().any(|wanted| wanted.as_bytes() == found)
            })
    }

    /// Appends the record's row to `block`, or says why there is none.
    pub(crate) fn push(
        &self,
        record: &RecordView<'_>,
        environment: &str,
        block: &mut Block,
    ) -> Result<(), Box<Rejection>> {
        let slots = self.fields(record)?;
        let mut cells = OnStack::with_capacity(self.sources.len());
        for (index, (source, missing)) in self.sources.iter().enumerate() {
            let found = match source {
                Source::Field(slot) => slots[*slot].map(Cell::Json),
                Source::Envelope(value) => value.of(record, environment),
            };
            cells.push(match (found, missing) {
                (Some(cell), _) => cell,
                (None, Missing::Null) => Cell::Null,
                (None, Missing::Default) => Cell::Default,
                (None, Missing::Empty) => Cell::Text(""),
                (None, Missing::Reject) => {
                    return Err(Box::new(Rejection::missing(self, &self.columns[index])));
                }
            });
        }
        block.push_row(&cells).map_err(|error| Box::new(Rejection::cell(self, error)))
    }

    fn fields<'a>(
        &self,
        record: &RecordView<'a>,
    ) -> Result<OnStack<Option<&'a str>>, Box<Rejection>> {
        let mut slots = smallvec![None; self.fields];
        if self.wanted.is_empty() {
            return Ok(slots);
        }
        let refuse = |reason, error: String| {
            Box::new(Rejection::payload(self, reason, error, record.value.unwrap_or_default()))
        };
        let Some(value) = record.value else {
            return Err(refuse("no_payload", "the record has no value".to_owned()));
        };
        let json = std::str::from_utf8(value).map_err(|error| {
            refuse("invalid_utf8", format!("the payload is not UTF-8: {error}"))
        })?;
        let unknown = self.wanted.find(json, &mut slots).map_err(|error| {
            refuse("malformed", format!("the payload is no JSON object: {error}"))
        })?;
        match (unknown, self.unknown_fields) {
            (Some(name), UnknownFields::Reject) => {
                Err(refuse("unknown_field", format!("no column takes the field `{name}`")))
            }
            _ => Ok(slots),
        }
    }
}
