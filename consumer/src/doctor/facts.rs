//! What the services answered; what to make of it is in `judge/`.

use std::{collections::BTreeMap, ops::Range};

use outpour_schemas::kafka::Settings;

use crate::{
    plan::{Plan, PlanError},
    sink::{SinkError, TableFinding},
    table::TableName,
};

/// The side of ClickHouse.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) version: String,
    pub(super) user: String,
    /// Whether it is one of several that inserts may go to.
    pub(super) has_replicas: bool,
    /// Those that inserts depend on and that the server knows.
    pub(super) settings: BTreeMap<String, Setting>,
    /// Those of the routes, each once.
    pub(super) tables: Vec<Table>,
    /// Tables and views of a probe that came to no end.
    pub(super) leftovers: Vec<TableName>,
    /// Its time zone, unless that is UTC under any name.
    pub(super) zone: Option<String>,
    /// Milliseconds by which its clock is ahead of the one here.
    pub(super) clock_ahead_ms: i64,
    /// Milliseconds that the question took; the clock is known no better.
    pub(super) round_trip_ms: i64,
}

#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) value: String,
    /// Whether the user may not change it.
    pub(super) is_fixed: bool,
    /// The least and the most that the user may set it to.
    pub(super) min: Option<String>,
    pub(super) max: Option<String>,
}

impl Setting {
    /// Whether the user may have inserts say `value`. What it is already it may be.
    pub(super) fn takes(&self, value: &str) -> bool {
        let is_less = |a: &str, b: &str| match (a.parse::<f64>(), b.parse::<f64>()) {
            (Ok(a), Ok(b)) => a < b,
            _ => a < b,
        };
        let is_below = self.min.as_ref().is_some_and(|min| is_less(value, min));
        let is_above = self.max.as_ref().is_some_and(|max| is_less(max, value));
        self.value == value || !(self.is_fixed || is_below || is_above)
    }

    /// What the user may set it to, as the end of a sentence.
    pub(super) fn bounds(&self) -> String {
        match (self.is_fixed, &self.min, &self.max) {
            (false, Some(min), Some(max)) => format!("kept between `{min}` and `{max}`"),
            (false, Some(min), None) => format!("kept at `{min}` or above"),
            (false, None, Some(max)) => format!("kept at `{max}` or below"),
            _ => format!("fixed at `{}`", self.value),
        }
    }
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: TableName,
    /// Absent where it does not exist, or may not be seen.
    pub(super) shape: Option<Shape>,
    pub(super) rights: Rights,
    /// What was said to an insert of no rows, if it was refused.
    pub(super) refusal: Option<SinkError>,
    /// What hides rows of it from the user.
    pub(super) hidden: Option<SinkError>,
    /// All that an insert reaches, the nearest first.
    pub(super) views: Vec<View>,
}

/// What the user may do; `None` where the server cannot tell.
#[derive(Debug, Clone, Default)]
pub(super) struct Rights {
    pub(super) insert: Option<bool>,
    /// To ask for provenance.
    pub(super) select: Option<bool>,
    /// To have a replica catch up; asked where there are several.
    pub(super) sync: Option<bool>,
    /// To make, fill, read and drop tables beside this one.
    pub(super) scratch: Option<bool>,
}

/// A table as the server describes it.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) finding: TableFinding,
    /// The engine with its parameters and settings, as SQL.
    pub(super) engine_full: String,
    pub(super) sorting_key: String,
    pub(super) partition_key: String,
    /// The expressions of data skipping indices.
    pub(super) indices: Vec<String>,
}

/// A materialised view that inserts are pushed through.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) name: TableName,
    /// The table whose inserts it sees.
    pub(super) source: TableName,
    pub(super) select: String,
    /// The table that it writes to; absent where the view may not be seen.
    pub(super) target: Option<TableName>,
    /// That of the target, where it exists.
    pub(super) shape: Option<Shape>,
}

/// What came of inserting twice under one token into a twin of a table.
#[derive(Debug)]
pub(super) struct Probed {
    pub(super) table: TableName,
    pub(super) outcome: Outcome,
    /// What could not be dropped again.
    pub(super) leftovers: Vec<TableName>,
}

#[derive(Debug)]
pub(super) enum Outcome {
    Counted(Vec<Count>),
    Failed { doing: &'static str, error: SinkError },
    Interrupted,
}

/// Parts in the twin of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) table: TableName,
    /// By which the rows came there; none for the table itself.
    pub(super) view: Option<TableName>,
    /// Whether a plain query stood for the view's own.
    pub(super) stand_in: bool,
    pub(super) after_first: u64,
    pub(super) after_second: u64,
}

/// The side of Kafka.
#[derive(Debug)]
pub(super) struct Kafka {
    pub(super) cluster: String,
    pub(super) brokers: usize,
    /// Of the topic in which Kafka keeps the group's offsets; the fewest of any partition.
    pub(super) offsets_replicas: Option<usize>,
    /// Settings of a broker.
    pub(super) broker: Settings,
    /// Those that `consumer.topics` takes.
    pub(super) topics: Vec<Topic>,
    /// One for each of them.
    pub(super) dead_letters: Vec<DeadLetters>,
    pub(super) group: Group,
    /// Of every partition; or why the group may not be asked.
    pub(super) offsets: Result<Vec<Offsets>, String>,
}

#[derive(Debug, Clone)]
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) partitions: usize,
    /// Partitions that no broker leads.
    pub(super) leaderless: usize,
    /// The fewest of any partition.
    pub(super) replicas: usize,
    pub(super) settings: Settings,
}

/// The topic that keeps what is parked of another.
#[derive(Debug, Clone)]
pub(super) struct DeadLetters {
    pub(super) name: String,
    pub(super) source: String,
    pub(super) topic: Option<Topic>,
    /// Why Kafka would not create it.
    pub(super) refusal: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    /// `Stable`, `Empty`, `Dead` where there is none, or on the way to one of them.
    pub(super) state: String,
    pub(super) protocol_type: String,
    /// How partitions are shared out: `range`, say.
    pub(super) protocol: String,
    pub(super) members: Vec<Member>,
}

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) client: String,
    pub(super) host: String,
    /// `topic/partition`.
    pub(super) partitions: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Offsets {
    /// `topic/partition`.
    pub(super) partition: String,
    pub(super) topic: String,
    pub(super) number: i32,
    pub(super) committed: Option<i64>,
    pub(super) plan: Result<Option<Plan>, PlanError>,
    /// Of the log; absent where nobody leads the partition.
    pub(super) log: Option<Range<i64>>,
}
