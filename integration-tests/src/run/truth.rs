//! What must come out at the end: figures computed from the input, the same
//! figures as ClickHouse answers them, and those that are published for the
//! whole data set.

use std::{cmp::Ordering, collections::BTreeMap};

use anyhow::{Context, Result};
use clickhouse::Client;
use serde::Serialize;

use crate::flights::FlightDeparted;

/// As many flights as the data set has.
pub(super) const ALL_FLIGHTS: u64 = 336_776;

/// Carriers that are named with their mean delay.
const MOST_DELAYED: usize = 5;

/// Answers about flights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Facts {
    pub(super) flights: u64,
    pub(super) flights_by_origin: BTreeMap<String, u64>,
    pub(super) without_departure: u64,
    pub(super) carriers: u64,
    pub(super) distance_sum: u64,
    pub(super) departure_delay_sum: i64,
    /// Minutes, by carrier, the longest first.
    pub(super) longest_mean_delays: Vec<(String, f64)>,
    /// Origin, destination, flights.
    pub(super) busiest_route: Option<(String, String, u64)>,
}

impl Facts {
    /// From the input itself.
    pub(super) fn of(flights: &[FlightDeparted]) -> Self {
        let mut by_origin = BTreeMap::<_, u64>::new();
        let mut by_route = BTreeMap::<_, u64>::new();
        let mut delays = BTreeMap::<_, (i64, u64)>::new();
        for flight in flights {
            *by_origin.entry(flight.origin.clone()).or_default() += 1;
            *by_route.entry((&flight.origin, &flight.destination)).or_default() += 1;
            let (sum, known) = delays.entry(flight.carrier.clone()).or_default();
            if let Some(delay) = flight.departure_delay {
                *sum += i64::from(delay);
                *known += 1;
            }
        }
        // The first of equals, in the order of the alphabet.
        let busiest = by_route.iter().min_by_key(|(_, count)| std::cmp::Reverse(**count));
        Self {
            flights: flights.len() as u64,
            flights_by_origin: by_origin,
            without_departure: flights.iter().filter(|f| f.departure.is_none()).count() as u64,
            carriers: delays.len() as u64,
            distance_sum: flights.iter().map(|f| u64::from(f.distance)).sum(),
            departure_delay_sum: delays.values().map(|(sum, _)| sum).sum(),
            busiest_route: busiest.map(|((from, to), n)| ((*from).clone(), (*to).clone(), *n)),
            longest_mean_delays: longest(delays),
        }
    }

    /// From the table, by its own queries.
    pub(super) async fn ask(client: &Client) -> Result<Self> {
        let (flights, without_departure, carriers, distance_sum, departure_delay_sum) = client
            .query(
                "SELECT count(), countIf(departure IS NULL), uniqExact(carrier), \
                 sum(distance), toInt64(ifNull(sum(departure_delay), 0)) FROM flights",
            )
            .fetch_one::<(u64, u64, u64, u64, i64)>()
            .await?;
        let by_origin = client
            .query("SELECT toString(origin), count() FROM flights GROUP BY origin")
            .fetch_all::<(String, u64)>()
            .await?;
        let longest_mean_delays = client
            .query(
                "SELECT toString(carrier), assumeNotNull(avg(departure_delay)) AS mean \
                 FROM flights WHERE departure_delay IS NOT NULL \
                 GROUP BY carrier ORDER BY mean DESC, carrier LIMIT ?",
            )
            .bind(MOST_DELAYED)
            .fetch_all::<(String, f64)>()
            .await?;
        let busiest_route = client
            .query(
                "SELECT toString(origin), toString(destination), count() AS n FROM flights \
                 GROUP BY origin, destination ORDER BY n DESC, origin, destination LIMIT 1",
            )
            .fetch_optional::<(String, String, u64)>()
            .await?;
        Ok(Self {
            flights,
            flights_by_origin: by_origin.into_iter().collect(),
            without_departure,
            carriers,
            distance_sum,
            departure_delay_sum,
            longest_mean_delays,
            busiest_route,
        })
    }

    /// Each figure in which `found` is not as it is here.
    pub(super) fn differences(&self, found: &Self) -> Result<Vec<String>> {
        let fields = |facts: &Self| {
            let value = serde_json::to_value(facts)?;
            value.as_object().cloned().context("facts are an object")
        };
        let (expected, found) = (fields(self)?, fields(found)?);
        let differing = expected.iter().filter(|(name, value)| found.get(*name) != Some(value));
        Ok(differing
            .map(|(name, value)| {
                let found = found.get(name).unwrap_or(&serde_json::Value::Null);
                format!("flights: {name} is {found}, expected {value}")
            })
            .collect())
    }

    /// Where the figures of the whole data set are not those it is known for.
    pub(super) fn differences_from_published(&self) -> Vec<String> {
        let origin = |name: &str| self.flights_by_origin.get(name).copied().unwrap_or_default();
        let figures = [
            ("flights", self.flights as i64, ALL_FLIGHTS as i64),
            ("flights from EWR", origin("EWR") as i64, 120_835),
            ("flights from JFK", origin("JFK") as i64, 111_279),
            ("flights from LGA", origin("LGA") as i64, 104_662),
            ("flights without a departure", self.without_departure as i64, 8_255),
            ("carriers", self.carriers as i64, 16),
            ("sum of distances", self.distance_sum as i64, 350_217_607),
            ("sum of departure delays", self.departure_delay_sum, 4_152_200),
        ];
        let wrong = figures.into_iter().filter(|(_, found, published)| found != published);
        wrong
            .map(|(what, found, published)| format!("{what}: {found}, published {published}"))
            .collect()
    }
}

fn longest(delays: BTreeMap<String, (i64, u64)>) -> Vec<(String, f64)> {
    let mut means: Vec<_> = delays
        .into_iter()
        .filter(|(_, (_, known))| *known > 0)
        // ClickHouse divides the same two whole numbers.
        .map(|(carrier, (sum, known))| (carrier, sum as f64 / known as f64))
        .collect();
    // Stable, so that equals stay in the order of the alphabet.
    means.sort_by(|(_, a), (_, b)| b.partial_cmp(a).unwrap_or(Ordering::Equal));
    means.truncate(MOST_DELAYED);
    means
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::flights::tests::two_flights;

    #[test]
    fn facts_count_what_is_not_known_as_such() {
        let facts = Facts::of(&two_flights());
        assert_eq!((facts.flights, facts.without_departure, facts.carriers), (2, 1, 2));
        assert_eq!((facts.distance_sum, facts.departure_delay_sum), (2789, -2));
        assert_eq!(facts.longest_mean_delays, [("UA".to_owned(), -2.0)]);
        assert_eq!(facts.busiest_route, Some(("EWR".into(), "IAH".into(), 1)));
    }

    #[test]
    fn a_difference_names_the_figure_and_both_values() {
        let facts = Facts::of(&two_flights());
        assert_eq!(facts.differences(&facts).unwrap(), Vec::<String>::new());
        let wrong = Facts { without_departure: 0, ..facts.clone() };
        assert_eq!(
            facts.differences(&wrong).unwrap(),
            ["flights: without_departure is 0, expected 1"]
        );
        assert_eq!(facts.differences_from_published().len(), 8);
    }
}
