//! The suite `relay`: from PostgreSQL's log to Kafka.
//!
//! | case | what it does with the rows |
//! | --- | --- |
//! | `decode-floor` | reads them from the slot and throws them away |
//! | `produce-ceiling` | writes the same records from memory to Kafka |
//! | `transactional` | the relay, exactly once |
//! | `at-least-once` | the relay without Kafka transactions |
//!
//! The cases take turns, round by round, each with a slot and a topic of its
//! own; every slot stands before the same rows. Before the first round a relay
//! works the backlog off that is not measured: Kafka's virtual machine compiles
//! what it is asked to do while it does it, on the same processor, and in the first
//! half minute takes half as much again for a record.

mod backlog;
mod ceiling;
mod drain;
mod floor;
mod latency;

use anyhow::Result;

use self::backlog::Backlog;
pub use self::{ceiling::Ceiling, floor::Floor};
use super::{Options, results::Results};
use crate::{place::Place, stack::Stack};

const SUITE: &str = "relay";

pub(super) async fn measure(
    stack: &Stack,
    place: &Place,
    options: Options,
    results: &mut Results,
) -> Result<()> {
    let rounds = options.rounds.get();
    let dataset = format!("{} rows, {} a transaction", options.rows, options.per_transaction);
    let slots: Vec<_> = (0..rounds)
        .flat_map(|round| [exactly_once(round), at_least_once(round)])
        .chain(["floor".to_owned(), "warm".to_owned()])
        .collect();
    let backlog = Backlog::write(stack, place, options, &slots).await?;
    let (mut floor, mut ceiling, mut exactly, mut least) = (vec![], vec![], vec![], vec![]);
    drain::measure(stack, place, &backlog, "warm", drain::Mode::ExactlyOnce).await?;
    for round in 0..rounds {
        floor.push(floor::measure(stack, &backlog).await?);
        ceiling.push(ceiling::measure(stack, &backlog, round).await?);
        for (slot, mode, outcomes) in [
            (exactly_once(round), drain::Mode::ExactlyOnce, &mut exactly),
            (at_least_once(round), drain::Mode::AtLeastOnce, &mut least),
        ] {
            outcomes.push(drain::measure(stack, place, &backlog, &slot, mode).await?);
        }
    }
    results.add(SUITE, &dataset, "decode-floor", options.rows, &floor);
    results.add(SUITE, &dataset, "produce-ceiling", options.rows, &ceiling);
    results.add(SUITE, &dataset, "transactional", options.rows, &exactly);
    results.add(SUITE, &dataset, "at-least-once", options.rows, &least);
    for (case, mode) in
        [("transactional", drain::Mode::ExactlyOnce), ("at-least-once", drain::Mode::AtLeastOnce)]
    {
        let latency = latency::measure(stack, place, mode).await?;
        let dataset = format!("{} events/s, one a transaction", latency.events_per_s);
        for (metric, value) in
            [("latency_p50_ms", latency.p50_ms), ("latency_p99_ms", latency.p99_ms)]
        {
            results.add_figure(SUITE, &dataset, case, metric, value, "ms");
        }
    }
    Ok(())
}

fn exactly_once(round: u32) -> String {
    format!("exactly_{round}")
}

fn at_least_once(round: u32) -> String {
    format!("least_{round}")
}
