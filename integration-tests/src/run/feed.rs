//! The business: a service that commits flights with the outbox call, in
//! transactions of mixed sizes, and changes its mind about some.
//!
//! What is rolled back, whole or to a savepoint, has ids of its own, so that a
//! trace of it anywhere would be found.

use std::{ops::Range, time::Duration};

use anyhow::{Context, Result};
use outpour_producer::Outbox;
use outpour_schemas::{Envelope, identity};
use tokio::time::{Instant, sleep_until};
use tokio_postgres::{Client, NoTls, Transaction};
use uuid::Uuid;

use super::counters::Counters;
use crate::flights::{self, FlightDeparted};

const SEED: u64 = 20_130_101;

/// Rows of the largest transaction at full speed.
const LARGEST: u64 = 500;
/// … and at a steady pace, where it makes a commit every few milliseconds.
const LARGEST_PACED: u64 = 20;
/// One in so many transactions is rolled back …
const ROLLED_BACK: u64 = 20;
/// … and one in so many has a savepoint that is.
const WITH_SAVEPOINT: u64 = 10;

/// One transaction: rows that it commits, and others that it takes back.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    rows: Range<usize>,
    /// Rows that are written and rolled back first: to a savepoint, or with
    /// the whole transaction if it commits none.
    taken_back: usize,
}

/// Covers `rows` in order. The same seed gives the same steps.
fn steps(rows: Range<usize>, largest: u64, random: &mut Random) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut next = rows.start;
    while next < rows.end {
        // Half of the transactions are small, as a service's own are.
        let size = match random.below(4) {
            0 => 1,
            1 => random.between(1, largest.min(10)),
            _ => random.between(1, largest),
        } as usize;
        if random.below(ROLLED_BACK) == 0 {
            steps.push(Step { rows: next..next, taken_back: size });
            continue;
        }
        let end = rows.end.min(next + size);
        let with_savepoint = random.below(WITH_SAVEPOINT) == 0;
        let taken_back = if with_savepoint { random.between(1, largest) as usize } else { 0 };
        steps.push(Step { rows: next..end, taken_back });
        next = end;
    }
    steps
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Both ends included.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }
}

pub(super) struct Feed<'a> {
    client: Client,
    outbox: Outbox,
    flights: &'a [FlightDeparted],
    counters: &'a Counters,
    random: Random,
    rolled_back: Vec<Uuid>,
}

impl<'a> Feed<'a> {
    pub(super) async fn connect(
        url: &str,
        flights: &'a [FlightDeparted],
        counters: &'a Counters,
    ) -> Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        // Ends when the client is dropped.
        tokio::spawn(connection);
        let (outbox, random) = (Outbox::default(), Random(SEED));
        Ok(Self { client, outbox, flights, counters, random, rolled_back: Vec::new() })
    }

    /// Commits these flights as fast as the database takes them.
    pub(super) async fn at_full_speed(&mut self, rows: Range<usize>) -> Result<()> {
        for step in steps(rows, LARGEST, &mut self.random) {
            self.run(&step).await?;
        }
        Ok(())
    }

    /// Commits these flights at `rate` a second.
    pub(super) async fn paced(&mut self, rows: Range<usize>, rate: f64) -> Result<()> {
        let (began, first) = (Instant::now(), rows.start);
        for step in steps(rows, LARGEST_PACED, &mut self.random) {
            let due = Duration::from_secs_f64((step.rows.start - first) as f64 / rate);
            sleep_until(began + due).await;
            self.run(&step).await?;
        }
        Ok(())
    }

    /// Commits these rows in one transaction.
    pub(super) async fn together(&mut self, rows: &[Envelope]) -> Result<()> {
        let tx = self.client.transaction().await?;
        self.outbox.append_all(&tx, rows).await?;
        tx.commit().await.context("cannot commit")?;
        self.counters.committed.add(rows.len() as u64);
        Ok(())
    }

    async fn run(&mut self, step: &Step) -> Result<()> {
        let envelope = |number| flights::envelope(&self.flights[number], number);
        let rows = step.rows.clone().map(envelope).collect::<Result<Vec<_>, _>>()?;
        let doomed = self.doomed(step)?;
        let mut tx = self.client.transaction().await?;
        if !doomed.is_empty() {
            let savepoint = tx.transaction().await?;
            append_in_parts(&self.outbox, &savepoint, &doomed).await?;
            if !rows.is_empty() {
                savepoint.rollback().await?;
            } else {
                // Kept by its savepoint, lost with the transaction.
                savepoint.commit().await?;
            }
        }
        if rows.is_empty() {
            tx.rollback().await?;
        } else {
            self.outbox.append_all(&tx, &rows).await?;
            tx.commit().await.context("cannot commit")?;
        }
        self.counters.committed.add(rows.len() as u64);
        self.counters.rolled_back.add(doomed.len() as u64);
        self.rolled_back.extend(doomed.iter().map(|row| row.id));
        Ok(())
    }

    /// Flights under ids that no committed one has.
    fn doomed(&self, step: &Step) -> Result<Vec<Envelope>> {
        let numbers = self.rolled_back.len()..self.rolled_back.len() + step.taken_back;
        numbers
            .map(|number| {
                let id = identity::derived_event_id("flight rolled back", &number.to_string());
                let flight = &self.flights[number % self.flights.len()];
                Ok(Envelope { id, ..Envelope::of(flight)? })
            })
            .collect()
    }

    /// The ids of everything that was taken back.
    pub(super) fn into_rolled_back(self) -> Vec<Uuid> {
        self.rolled_back
    }
}

/// As a service does that appends more than once.
async fn append_in_parts(outbox: &Outbox, tx: &Transaction<'_>, rows: &[Envelope]) -> Result<()> {
    let (first, second) = rows.split_at(rows.len() / 2);
    for part in [first, second] {
        outbox.append_all(tx, part).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_cover_every_row_once_and_in_order() {
        let steps = steps(7..20_000, LARGEST, &mut Random(SEED));
        let mut next = 7;
        for step in &steps {
            assert_eq!(step.rows.start, next);
            assert!(step.rows.len() as u64 <= LARGEST && step.taken_back as u64 <= LARGEST);
            next = step.rows.end;
        }
        assert_eq!(next, 20_000);
        assert!(steps.iter().any(|step| step.rows.is_empty() && step.taken_back > 0));
        assert!(steps.iter().any(|step| !step.rows.is_empty() && step.taken_back > 0));
        assert!(steps.iter().any(|step| step.rows.len() == 1));
        assert!(steps.iter().any(|step| step.rows.len() > 400));
    }

    #[test]
    fn the_same_seed_gives_the_same_steps() {
        let made = || steps(0..5000, LARGEST, &mut Random(SEED));
        assert_eq!(made(), made());
    }

    #[test]
    fn nothing_to_feed_is_no_step() {
        assert!(steps(3..3, LARGEST, &mut Random(SEED)).is_empty());
    }
}
