//! The real input: every flight that left New York City in 2013, from a line of
//! the data set to the event that a service would emit.

mod dataset;

use std::{path::Path, str::FromStr};

use anyhow::{Context, Result};
use outpour_schemas::{Envelope, EnvelopeError, Event, identity};
use serde::{Deserialize, Deserializer, Serialize, de};
use uuid::Uuid;

pub(crate) use self::dataset::csv;

/// A flight as the CSV has it. `NA` is R's word for what is not known.
#[derive(Debug, Deserialize)]
struct Line {
    year: u16,
    month: u8,
    day: u8,
    #[serde(deserialize_with = "known")]
    dep_time: Option<u16>,
    sched_dep_time: u16,
    #[serde(deserialize_with = "known")]
    dep_delay: Option<i16>,
    #[serde(deserialize_with = "known")]
    arr_time: Option<u16>,
    sched_arr_time: u16,
    #[serde(deserialize_with = "known")]
    arr_delay: Option<i16>,
    carrier: String,
    flight: u16,
    #[serde(deserialize_with = "known")]
    tailnum: Option<String>,
    origin: String,
    dest: String,
    #[serde(deserialize_with = "known")]
    air_time: Option<f64>,
    distance: u32,
    minute: u8,
    time_hour: String,
}

fn known<'de, T: FromStr<Err: std::fmt::Display>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "" | "NA" => Ok(None),
        text => text.parse().map(Some).map_err(|e| de::Error::custom(format!("`{text}`: {e}"))),
    }
}

/// An aircraft has left, or should have. Times of day are local, as `hhmm`;
/// delays are minutes, below zero for early.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct FlightDeparted {
    pub(crate) carrier: String,
    pub(crate) flight: u16,
    pub(crate) tail_number: Option<String>,
    pub(crate) origin: String,
    pub(crate) destination: String,
    /// RFC 3339 in UTC.
    pub(crate) scheduled_at: String,
    pub(crate) year: u16,
    pub(crate) month: u8,
    pub(crate) day: u8,
    pub(crate) scheduled_departure: u16,
    /// `None`: it never left.
    pub(crate) departure: Option<u16>,
    pub(crate) departure_delay: Option<i16>,
    pub(crate) scheduled_arrival: u16,
    pub(crate) arrival: Option<u16>,
    pub(crate) arrival_delay: Option<i16>,
    /// Minutes.
    pub(crate) air_time: Option<f64>,
    /// Miles.
    pub(crate) distance: u32,
}

impl Event for FlightDeparted {
    const AGGREGATE_TYPE: &'static str = "flight";

    fn aggregate_id(&self) -> String {
        format!("{}{}", self.carrier, self.flight)
    }
}

impl TryFrom<Line> for FlightDeparted {
    type Error = anyhow::Error;

    fn try_from(line: Line) -> Result<Self> {
        // The hour is given in UTC and without its minutes.
        let hour = line.time_hour.get(..13).context("`time_hour` is no time")?;
        Ok(Self {
            scheduled_at: format!("{hour}:{:02}:00Z", line.minute),
            carrier: line.carrier,
            flight: line.flight,
            tail_number: line.tailnum,
            origin: line.origin,
            destination: line.dest,
            year: line.year,
            month: line.month,
            day: line.day,
            scheduled_departure: line.sched_dep_time,
            departure: line.dep_time,
            departure_delay: line.dep_delay,
            scheduled_arrival: line.sched_arr_time,
            arrival: line.arr_time,
            arrival_delay: line.arr_delay,
            air_time: line.air_time,
            distance: line.distance,
        })
    }
}

/// The first `limit` flights of the file. Blocks.
pub(crate) fn read(csv: &Path, limit: usize) -> Result<Vec<FlightDeparted>> {
    let reader =
        csv::Reader::from_path(csv).with_context(|| format!("cannot read {}", csv.display()))?;
    parse(reader, limit).with_context(|| format!("cannot read {}", csv.display()))
}

fn parse<R: std::io::Read>(
    mut reader: csv::Reader<R>,
    limit: usize,
) -> Result<Vec<FlightDeparted>> {
    reader.deserialize::<Line>().take(limit).map(|line| line?.try_into()).collect()
}

/// The outbox row of the flight in row `number`, the same one every time.
pub(crate) fn envelope(flight: &FlightDeparted, number: usize) -> Result<Envelope, EnvelopeError> {
    Ok(Envelope { id: event_id(number), ..Envelope::of(flight)? })
}

fn event_id(number: usize) -> Uuid {
    identity::derived_event_id(FlightDeparted::AGGREGATE_TYPE, &number.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    const CSV: &str = "\
year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour
2013,1,1,517,515,-2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z
2013,1,1,NA,1935,NA,NA,2240,,AA,791,,LGA,DFW,NA,1389,19,35,2013-01-02T00:00:00Z
";

    pub(crate) fn two_flights() -> Vec<FlightDeparted> {
        parse(csv::Reader::from_reader(CSV.as_bytes()), usize::MAX).unwrap()
    }

    #[test]
    fn what_is_not_known_is_null_and_never_zero() {
        let flights = two_flights();
        assert_eq!(flights[0].departure_delay, Some(-2));
        assert_eq!(flights[0].scheduled_at, "2013-01-01T10:15:00Z");
        let unknown = serde_json::to_value(&flights[1]).unwrap();
        for field in
            ["departure", "departure_delay", "arrival", "arrival_delay", "air_time", "tail_number"]
        {
            assert_eq!(unknown.get(field), Some(&serde_json::Value::Null), "{field}");
        }
    }

    #[test]
    fn the_same_row_is_the_same_event_every_time() {
        let flights = two_flights();
        let first = envelope(&flights[0], 0).unwrap();
        assert_eq!(first.id, envelope(&flights[0], 0).unwrap().id);
        assert_ne!(first.id, envelope(&flights[0], 1).unwrap().id);
        assert_eq!(
            (first.aggregate_id.as_str(), first.event_type.as_str()),
            ("UA1545", "flight_departed")
        );
    }

    #[test]
    fn a_limit_shortens_the_feed() {
        assert_eq!(parse(csv::Reader::from_reader(CSV.as_bytes()), 1).unwrap().len(), 1);
    }
}
