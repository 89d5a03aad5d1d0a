//! Whether a table drops an insert that it has had before. Pure.
//!
//! The start of the consumer and its `doctor` judge by this alike.

use std::fmt;

use crate::{durability, table::TableName};

/// What exactly-once asks a table to remember at least: each partition's batch
/// under way, with room for the parts that a batch may fall into.
const MIN_WINDOW: u64 = 1000;

/// And for how long, where a table forgets by time. A token is relied on for
/// half of it, see the writer.
const MIN_SECONDS: u64 = 3600;

/// What somebody who has to choose is told to set.
const ADVISED_WINDOW: u64 = 10_000;

/// How a table remembers the inserts that it has had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Not at all, for what kind of table it is.
    None { engine: String },
    /// Not at all: it passes rows on to another table, of other servers, too.
    /// `target` is its name, if it is known.
    Elsewhere { target: Option<String> },
    /// The last `window` parts, on the server's own disk.
    Local { window: u64 },
    /// In Keeper, for all replicas: the last `window` parts, but none that is
    /// `seconds` older than the last.
    Shared { window: u64, seconds: u64 },
}

/// What the server gives to tables that say nothing of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults {
    pub(crate) local_window: u64,
    pub(crate) shared_window: u64,
    pub(crate) shared_seconds: u64,
}

const LOCAL_WINDOW: &str = "non_replicated_deduplication_window";
const SHARED_WINDOW: &str = "replicated_deduplication_window";
const SHARED_SECONDS: &str = "replicated_deduplication_window_seconds";

impl Memory {
    /// That of a table whose engine `system.tables` describes so.
    pub(crate) fn of(engine: &str, engine_full: &str, defaults: Defaults) -> Self {
        let set = |name| setting(engine_full, name)?.parse().ok();
        if engine == "Distributed" {
            return Memory::Elsewhere { target: distributed_to(engine_full) };
        }
        if !engine.ends_with("MergeTree") {
            return Memory::None { engine: engine.to_owned() };
        }
        if engine.starts_with("Replicated") || engine.starts_with("Shared") {
            return Memory::Shared {
                window: set(SHARED_WINDOW).unwrap_or(defaults.shared_window),
                seconds: set(SHARED_SECONDS).unwrap_or(defaults.shared_seconds),
            };
        }
        Memory::Local { window: set(LOCAL_WINDOW).unwrap_or(defaults.local_window) }
    }

    /// Parts that it remembers.
    pub(crate) fn window(&self) -> u64 {
        match self {
            Memory::None { .. } | Memory::Elsewhere { .. } => 0,
            Memory::Local { window } | Memory::Shared { window, .. } => *window,
        }
    }

    /// `replicas`: an insert may be repeated on another server.
    ///
    /// # Errors
    /// Says why exactly-once cannot be had of such a table.
    pub(crate) fn check(&self, replicas: bool) -> Result<(), Unfit> {
        match self {
            Memory::None { engine } => Err(Unfit::Engine { engine: engine.clone() }),
            Memory::Elsewhere { target } => Err(Unfit::Distributed { target: target.clone() }),
            Memory::Local { .. } if replicas => Err(Unfit::Unshared),
            Memory::Shared { seconds, .. } if *seconds < MIN_SECONDS => {
                Err(Unfit::Forgetful { seconds: *seconds })
            }
            Memory::Local { window } | Memory::Shared { window, .. } if *window < MIN_WINDOW => {
                let setting = self.window_setting();
                Err(Unfit::Window { window: *window, setting })
            }
            Memory::Local { .. } | Memory::Shared { .. } => Ok(()),
        }
    }

    /// The statement that has the table remember `window` parts.
    pub(crate) fn alter(&self, table: &TableName, window: u64) -> String {
        alter(table, self.window_setting(), window)
    }

    fn window_setting(&self) -> &'static str {
        match self {
            Memory::Shared { .. } => SHARED_WINDOW,
            Memory::None { .. } | Memory::Elsewhere { .. } | Memory::Local { .. } => LOCAL_WINDOW,
        }
    }
}

/// What a Distributed table is over: `Distributed('cluster', 'database', 'table', …)`.
/// `None` for names that are no plain constants.
fn distributed_to(engine_full: &str) -> Option<String> {
    let mut arguments = engine_full.strip_prefix("Distributed(")?.split(['(', ')', ',']).skip(1);
    let mut name = || {
        let name = arguments.next()?.trim().strip_prefix('\'')?.strip_suffix('\'')?;
        (!name.is_empty() && !name.contains(['\\', '\''])).then(|| name.to_owned())
    };
    Some(format!("{}.{}", name()?, name()?))
}

/// The value of a setting in a table's definition, without quotes.
pub(crate) fn setting<'a>(engine_full: &'a str, name: &str) -> Option<&'a str> {
    let settings = &engine_full[engine_full.rfind(" SETTINGS ")? + " SETTINGS ".len()..];
    settings.split(", ").find_map(|part| {
        let (found, value) = part.split_once(" = ")?;
        (found == name).then(|| value.trim_matches('\''))
    })
}

fn alter(table: &TableName, setting: &str, value: u64) -> String {
    format!("ALTER TABLE {} MODIFY SETTING {setting} = {value}", table.quoted())
}

/// Why exactly-once cannot be had of a table. It is worded to follow its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// Of which no insert is ever dropped.
    Engine { engine: String },
    /// A table that stands for another one.
    Distributed { target: Option<String> },
    /// Inserts are remembered by one server alone, of several that get them.
    Unshared,
    /// Too few inserts are remembered.
    Window { window: u64, setting: &'static str },
    /// Inserts are not remembered for long enough.
    Forgetful { seconds: u64 },
    /// Inserts are confirmed before they are on the disk, where that is asked for.
    Unsynced,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Engine { engine } => {
                write!(f, "has engine {engine}, which {}", what_it_does(engine))
            }
            Unfit::Distributed { .. } => f.write_str(
                "has engine Distributed, which passes rows on later, and nothing says whether a \
                 repeated insert was dropped",
            ),
            Unfit::Unshared => f.write_str(
                "remembers inserts on each server for itself, and clickhouse.url names several: \
                 what is repeated on another one would be stored twice",
            ),
            Unfit::Window { window, .. } => {
                write!(f, "remembers {window} inserts, exactly-once needs {MIN_WINDOW}")
            }
            Unfit::Unsynced => f.write_str(
                "confirms inserts before they are on its disk, and clickhouse.fsync asks for that",
            ),
            Unfit::Forgetful { seconds } => {
                write!(f, "remembers inserts for {seconds} s, exactly-once needs {MIN_SECONDS} s")
            }
        }
    }
}

impl Unfit {
    /// What puts it right.
    pub(crate) fn fix(&self, table: &TableName) -> String {
        match self {
            Unfit::Engine { .. } => {
                "use a MergeTree table or consumer.delivery = \"at-least-once\"".to_owned()
            }
            Unfit::Distributed { target } => {
                let target = target.as_ref().map_or_else(
                    || "the local table behind it".to_owned(),
                    |target| format!("the local table behind it, {target},"),
                );
                format!(
                    "route to {target} on the servers of one shard (routes.table, clickhouse.url), or use \
                     consumer.delivery = \"at-least-once\""
                )
            }
            Unfit::Unshared => {
                "use a ReplicatedMergeTree table, which shares that in Keeper, name one server in \
                 clickhouse.url, or use consumer.delivery = \"at-least-once\""
                    .to_owned()
            }
            Unfit::Window { setting, .. } => alter(table, setting, ADVISED_WINDOW),
            Unfit::Forgetful { .. } => alter(table, SHARED_SECONDS, MIN_SECONDS),
            Unfit::Unsynced => durability::alter(table),
        }
    }
}

/// With the rows that it is given.
fn what_it_does(engine: &str) -> &'static str {
    match engine {
        "Buffer" => "keeps rows in memory, where a crash loses them after they were confirmed",
        "Null" => "keeps nothing",
        "View" => "is a query",
        "MaterializedView" | "WindowView" | "LiveView" => "passes rows on to a table of its own",
        "Kafka" | "RabbitMQ" | "NATS" => "passes rows on to a broker",
        _ => "does not drop repeated inserts",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Defaults =
        Defaults { local_window: 0, shared_window: 10_000, shared_seconds: 3600 };

    fn of(engine: &str, engine_full: &str) -> Memory {
        Memory::of(engine, engine_full, DEFAULTS)
    }

    fn unfit(memory: &Memory) -> String {
        memory.check(false).unwrap_err().to_string()
    }

    #[test]
    fn a_table_remembers_what_it_says_or_else_what_the_server_says() {
        let plain = "MergeTree ORDER BY a SETTINGS index_granularity = 8192";
        assert_eq!(of("MergeTree", plain), Memory::Local { window: 0 });
        let set = "MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 1000, x = 1";
        assert_eq!(of("ReplacingMergeTree", set), Memory::Local { window: 1000 });
        let defaults = Defaults { local_window: 77, ..DEFAULTS };
        assert_eq!(Memory::of("MergeTree", plain, defaults), Memory::Local { window: 77 });
        let replicated = "ReplicatedMergeTree('/x', '{replica}') ORDER BY a SETTINGS \
                          index_granularity = 8192, replicated_deduplication_window_seconds = 60";
        let memory = of("ReplicatedMergeTree", replicated);
        assert_eq!(memory, Memory::Shared { window: 10_000, seconds: 60 });
    }

    #[test]
    fn a_setting_is_not_taken_from_what_only_looks_like_one() {
        let text = "MergeTree ORDER BY if(s = 'non_replicated_deduplication_window = 5000', 1, 2) \
                    SETTINGS index_granularity = 8192";
        assert_eq!(of("MergeTree", text), Memory::Local { window: 0 });
    }

    #[test]
    fn what_is_too_small_is_refused_with_the_statement_that_makes_it_enough() {
        let table = TableName::parse("t", "db");
        let small = of("MergeTree", "MergeTree ORDER BY a");
        assert_eq!(unfit(&small), "remembers 0 inserts, exactly-once needs 1000");
        assert_eq!(
            small.check(false).unwrap_err().fix(&table),
            "ALTER TABLE `db`.`t` MODIFY SETTING non_replicated_deduplication_window = 10000"
        );
        let few = Memory::Shared { window: 100, seconds: 3600 };
        let fix = few.check(false).unwrap_err().fix(&table);
        assert!(fix.ends_with(" replicated_deduplication_window = 10000"), "{fix}");
        let brief = Memory::Shared { window: 10_000, seconds: 60 };
        assert_eq!(unfit(&brief), "remembers inserts for 60 s, exactly-once needs 3600 s");
        let fix = brief.check(false).unwrap_err().fix(&table);
        assert!(fix.ends_with(" replicated_deduplication_window_seconds = 3600"), "{fix}");
        assert_eq!(Memory::Local { window: 1000 }.check(false), Ok(()));
    }

    #[test]
    fn what_is_no_merge_tree_is_refused_with_the_reason() {
        assert!(unfit(&of("Log", "Log")).contains("does not drop"));
    }

    #[test]
    fn a_distributed_table_is_refused_with_the_local_one_behind_it() {
        let fix = |engine_full: &str| {
            let memory = of("Distributed", engine_full);
            assert!(unfit(&memory).contains("has engine Distributed, which passes"));
            memory.check(false).unwrap_err().fix(&TableName::parse("t", "db"))
        };
        let known = fix("Distributed('{cluster}', 'shop', 'orders_local', rand())");
        assert!(known.starts_with("route to the local table behind it, shop.orders_local, on"));
        let plain = fix("Distributed('main', 'shop', 'orders_local')");
        assert!(plain.contains("shop.orders_local"), "{plain}");
        for unknown in ["", "Distributed", "Distributed('main', currentDatabase(), 'o')"] {
            let fix = fix(unknown);
            assert!(fix.starts_with("route to the local table behind it on the"), "{fix}");
        }
    }

    #[test]
    fn what_one_server_remembers_is_not_enough_where_inserts_may_go_to_another() {
        let local = Memory::Local { window: 10_000 };
        assert_eq!(local.check(false), Ok(()));
        assert_eq!(local.check(true), Err(Unfit::Unshared));
        let shared = Memory::Shared { window: 10_000, seconds: 3600 };
        assert_eq!(shared.check(true), Ok(()));
        let forgetful = Memory::Shared { window: 10_000, seconds: 60 };
        assert_eq!(forgetful.check(true), Err(Unfit::Forgetful { seconds: 60 }));
    }
}
