//! What is written: events as the relay publishes them, and tables that take
//! them.

use anyhow::Result;
use clap::ValueEnum;
use outpour_schemas::{Event as _, config::Route, identity::derived_event_id};
use serde_json::json;

use crate::flights;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dataset {
    /// A flight: a flat object of 17 fields.
    Flights,
    /// A push to a repository, as GitHub tells it: about 1 KB, nested.
    Pushes,
}

pub(super) const ALL: [Dataset; 2] = [Dataset::Flights, Dataset::Pushes];

/// Distinct events; as many as matter to compression and caches.
const DISTINCT: usize = 100_000;

pub(super) struct Event {
    pub(super) id: String,
    pub(super) event_type: &'static str,
    pub(super) key: String,
    pub(super) payload: String,
}

/// Name and type of the columns that are fields of the payload.
type Columns = &'static [(&'static str, &'static str)];

const FLIGHTS: Columns = &[
    ("carrier", "LowCardinality(String)"),
    ("flight", "UInt16"),
    ("tail_number", "LowCardinality(Nullable(String))"),
    ("origin", "LowCardinality(String)"),
    ("destination", "LowCardinality(String)"),
    ("scheduled_at", "DateTime64(3, 'UTC')"),
    ("year", "UInt16"),
    ("month", "UInt8"),
    ("day", "UInt8"),
    ("scheduled_departure", "UInt16"),
    ("departure", "Nullable(UInt16)"),
    ("departure_delay", "Nullable(Int16)"),
    ("scheduled_arrival", "UInt16"),
    ("arrival", "Nullable(UInt16)"),
    ("arrival_delay", "Nullable(Int16)"),
    ("air_time", "Nullable(Float64)"),
    ("distance", "UInt32"),
];

const PUSHES: Columns = &[
    ("id", "UInt64"),
    ("type", "LowCardinality(String)"),
    ("actor", "Tuple(id UInt64, login String, gravatar_id String, url String, avatar_url String)"),
    ("repo", "Tuple(id UInt64, name String, url String)"),
    (
        "payload",
        "Tuple(push_id UInt64, size UInt32, distinct_size UInt32, ref String, \
         head FixedString(40), before FixedString(40), commits Array(Tuple(sha FixedString(40), \
         author Tuple(email String, name String), message String, distinct Bool, url String)))",
    ),
    ("public", "Bool"),
    ("created_at", "DateTime('UTC')"),
];

impl Dataset {
    pub(super) fn name(self) -> &'static str {
        match self {
            Dataset::Flights => "flights",
            Dataset::Pushes => "pushes",
        }
    }

    pub(super) fn topic(self) -> String {
        format!("outbox.event.{}", self.name())
    }

    fn columns(self) -> Columns {
        match self {
            Dataset::Flights => FLIGHTS,
            Dataset::Pushes => PUSHES,
        }
    }

    /// The names of the columns that are fields of the payload.
    pub(super) fn names(self) -> String {
        let names: Vec<_> = self.columns().iter().map(|(name, _)| format!("`{name}`")).collect();
        names.join(", ")
    }

    /// … with their types.
    pub(super) fn definitions(self) -> String {
        let columns = self.columns().iter().map(|(name, kind)| format!("`{name}` {kind}"));
        columns.collect::<Vec<_>>().join(", ")
    }

    /// A table that takes all of it, and remembers inserts.
    pub(super) fn create(self, table: &str) -> String {
        let order = match self {
            Dataset::Flights => "(origin, carrier, scheduled_at)",
            Dataset::Pushes => "created_at",
        };
        format!(
            "CREATE TABLE {table} (event_id UUID, committed_at DateTime64(3, 'UTC'), {}, \
             _topic LowCardinality(String), _partition UInt32, _offset UInt64) \
             ENGINE = MergeTree ORDER BY {order} \
             SETTINGS non_replicated_deduplication_window = 10000",
            self.definitions()
        )
    }

    pub(super) fn route(self, table: &str) -> Route {
        let columns = [("event_id", "$id"), ("committed_at", "$timestamp")];
        Route {
            topic: self.topic(),
            table: table.to_owned(),
            columns: columns.map(|(name, from)| (name.to_owned(), from.to_owned())).into(),
            ..Route::default()
        }
    }

    /// The events, to be gone through again and again. Blocks.
    pub(super) fn events(self) -> Result<Vec<Event>> {
        match self {
            Dataset::Flights => flights::read(&flights::csv()?, DISTINCT)?
                .iter()
                .enumerate()
                .map(|(number, flight)| {
                    Ok(Event {
                        id: derived_event_id("flight", &number.to_string()).to_string(),
                        event_type: "flight_departed",
                        key: flight.aggregate_id(),
                        payload: serde_json::to_string(flight)?,
                    })
                })
                .collect(),
            Dataset::Pushes => Ok((0..DISTINCT as u64).map(push).collect()),
        }
    }
}

fn push(n: u64) -> Event {
    let hex = |what: &str| {
        let of = |half: &str| derived_event_id(what, &format!("{n}{half}")).simple().to_string();
        format!("{}{}", of("a"), &of("b")[..8])
    };
    let (user, repository) = (n % 5_000, n % 20_000);
    let login = format!("developer-{user}");
    let name = format!("{login}/project-{repository}");
    let sha = hex("head");
    let payload = json!({
        "id": (22_249_084_964 + n).to_string(),
        "type": "PushEvent",
        "actor": {
            "id": 583_231 + user,
            "login": login,
            "gravatar_id": "",
            "url": format!("https://api.github.com/users/{login}"),
            "avatar_url": format!("https://avatars.githubusercontent.com/u/{}?", 583_231 + user),
        },
        "repo": {
            "id": 41_881_900 + repository,
            "name": name,
            "url": format!("https://api.github.com/repos/{name}"),
        },
        "payload": {
            "push_id": 10_104_532_125_u64 + n,
            "size": 1,
            "distinct_size": 1,
            "ref": "refs/heads/main",
            "head": sha,
            "before": hex("before"),
            "commits": [{
                "sha": sha,
                "author": {
                    "email": format!("{login}@users.noreply.github.com"),
                    "name": login,
                },
                "message": format!(
                    "Merge pull request #{} from {login}/topic-{}\n\nKeep what \"was\" there",
                    n % 900,
                    n % 77
                ),
                "distinct": true,
                "url": format!("https://api.github.com/repos/{name}/commits/{sha}"),
            }],
        },
        "public": true,
        "created_at": format!(
            "2022-06-{:02}T{:02}:{:02}:{:02}Z",
            1 + n % 28,
            n % 24,
            n / 7 % 60,
            n % 60
        ),
    });
    Event {
        id: derived_event_id("push", &n.to_string()).to_string(),
        event_type: "push",
        key: name,
        payload: payload.to_string(),
    }
}
