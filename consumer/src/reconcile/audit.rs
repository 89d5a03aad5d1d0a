//! One topic: both sides are summed up, and where they differ looked at closely.
//!
//! ```text
//! Kafka ──── records ──▶ Routing ──▶ Sums ─┐
//! letters ─────────────────────────────────┼─▶ ranges that differ ─▶ drill.rs
//! ClickHouse ── SELECT … GROUP BY ─▶ Sums ─┘
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use futures_util::future::try_join_all;
use indicatif::ProgressBar;
use outpour_schemas::config::Config;
use rdkafka::ClientConfig;
use tokio::task::spawn_blocking;

use super::{
    bounds::{Bounds, Topic},
    compare::{Comparison, Counts, Matter, Stretch},
    drill::{Drill, Drilled},
    letters::Letters,
    reader::Reader,
    report::{Compared, Report},
    routing::Routing,
    scan::{InKafka, scan},
    stored::{self, Stored},
    sums::{self, Sums},
    values::Values,
};
use crate::{
    dead_letter::dead_letter_topic, error::ConsumerError, merging::Merging, sink::ClickHouse,
};

/// How many partitions are read at the same time, where there are as many.
const MOST_READERS: usize = 4;

/// What one topic is compared with.
pub(super) struct Audit {
    pub(super) config: Arc<Config>,
    pub(super) client: ClientConfig,
    pub(super) clickhouse: ClickHouse,
    pub(super) topic: Arc<Topic>,
    pub(super) routing: Arc<Routing>,
    /// Whether rows are to hold what their records say.
    pub(super) values: bool,
    pub(super) bar: ProgressBar,
}

impl Audit {
    /// Adds what it finds to `report`.
    ///
    /// # Errors
    /// When either side cannot be read.
    pub(super) async fn run(&self, report: &mut Report) -> Result<(), ConsumerError> {
        let (letters, held, stored) =
            tokio::try_join!(self.letters(), self.in_kafka(), self.stored())?;
        if letters.some_are_gone {
            report.notes.push(format!(
                "`{}` has lost letters to its retention; the records that they stood for count as missing",
                dead_letter_topic(&self.topic.name)
            ));
        }
        let beyond = self.beyond(&stored).await?;
        let letters = Arc::new(letters);
        let mut partitions: BTreeSet<i32> = self.topic.partitions.keys().copied().collect();
        partitions.extend(stored.iter().flatten().flat_map(Stored::partitions));
        for partition in partitions {
            let sides = self.sides(partition, &held, &stored, &letters);
            let drilled = self.drill(partition, &sides, &stored, &letters).await?;
            report.looked_at_closely += drilled.ranges.len();
            self.tell(partition, sides, &stored, drilled, report);
        }
        if self.values {
            self.values(&letters, report).await?;
        }
        for (partition, table, stretch) in beyond {
            let name = &self.routing.tables[table].name;
            report.totals.stored += stretch.rows;
            report.totals.unexpected += stretch.rows;
            let mut compared = report.partitions.iter_mut().filter(|compared| {
                compared.topic == *self.topic.name
                    && compared.partition == partition
                    && compared.table.as_ref() == Some(name)
            });
            if let Some(compared) = compared.next() {
                compared.counts.stored += stretch.rows;
                compared.counts.unexpected += stretch.rows;
            }
            report.found((&self.topic.name, partition), Some(name), stretch);
        }
        Ok(())
    }

    async fn values(
        &self,
        letters: &Arc<Letters>,
        report: &mut Report,
    ) -> Result<(), ConsumerError> {
        let values = Values {
            config: Arc::clone(&self.config),
            clickhouse: self.clickhouse.clone(),
            topic: Arc::clone(&self.topic),
            routing: Arc::clone(&self.routing),
            letters: Arc::clone(letters),
            bar: self.bar.clone(),
        };
        let (config, client) = (Arc::clone(&self.config), self.client.clone());
        let comparing = spawn_blocking(move || {
            let reader = Reader::connect(&config, &client)?;
            values.run(&reader)
        });
        for different in comparing.await.map_err(ConsumerError::Worker)?? {
            let table = &self.routing.tables[different.table].name;
            let place = (&*self.topic.name, different.partition);
            report.differs(place, table, (different.offset, different.columns));
        }
        Ok(())
    }

    fn width(&self) -> u64 {
        let ranges = self.topic.partitions.values().map(Bounds::in_kafka);
        let offsets: i64 = ranges.map(|range| (range.end - range.start).max(0)).sum();
        sums::width(offsets.max(0).cast_unsigned())
    }

    async fn letters(&self) -> Result<Letters, ConsumerError> {
        let Some(partitions) = self.topic.letter_partitions else {
            return Ok(Letters::default());
        };
        let (config, client) = (Arc::clone(&self.config), self.client.clone());
        let topic = Arc::clone(&self.topic);
        let reading = spawn_blocking(move || {
            let name = dead_letter_topic(&topic.name);
            let reader = Reader::connect(&config, &client)?;
            let logs = reader.settled(&config, &client, &name, partitions)?;
            let mut letters = Letters::default();
            reader.read(&name, &logs, |message| {
                letters.take_mark(message);
                Ok(())
            })?;
            reader.read(&name, &logs, |message| {
                letters.take(message, &topic);
                Ok(())
            })?;
            letters.settle(&logs);
            Ok(letters)
        });
        reading.await.map_err(ConsumerError::Worker)?
    }

    /// Reads the whole topic once, several partitions at a time.
    async fn in_kafka(&self) -> Result<InKafka, ConsumerError> {
        let width = self.width();
        let readers = std::thread::available_parallelism().map_or(1, usize::from);
        let mut shares: Vec<BTreeMap<i32, Range<i64>>> = Vec::new();
        shares.resize(readers.min(MOST_READERS).min(self.topic.partitions.len()), BTreeMap::new());
        let ranges = self.topic.partitions.iter().map(|(p, bounds)| (*p, bounds.in_kafka()));
        let ranges: Vec<_> = ranges.filter(|(_, range)| !range.is_empty()).collect();
        for (index, (partition, range)) in ranges.into_iter().enumerate() {
            let share = index % shares.len();
            shares[share].insert(partition, range);
        }
        let reading = shares.into_iter().filter(|share| !share.is_empty()).map(|share| {
            let (config, client) = (Arc::clone(&self.config), self.client.clone());
            let (topic, routing) = (Arc::clone(&self.topic), Arc::clone(&self.routing));
            let bar = self.bar.clone();
            spawn_blocking(move || {
                let reader = Reader::connect(&config, &client)?;
                scan(&reader, &topic.name, &share, &routing, width, &bar)
            })
        });
        let mut all = InKafka::new();
        for part in try_join_all(reading).await.map_err(ConsumerError::Worker)? {
            all.extend(part?);
        }
        Ok(all)
    }

    /// By table; `None` for one whose rows do not say where they came from.
    async fn stored(&self) -> Result<Vec<Option<Stored>>, ConsumerError> {
        let width = self.width();
        let asking = self.routing.tables.iter().map(|table| async move {
            if !table.has_provenance {
                return Ok(None);
            }
            let sums = stored::sums(&self.clickhouse, &table.table, &self.topic, width).await;
            sums.map(Some)
        });
        try_join_all(asking).await.map_err(|source| self.asking_failed(source))
    }

    fn asking_failed(&self, source: crate::sink::SinkError) -> ConsumerError {
        ConsumerError::clickhouse("comparing offsets", &self.clickhouse, source)
    }

    /// Rows behind everything that Kafka has. The consumer cannot have stored them,
    /// since the end is asked for after they were seen.
    async fn beyond(
        &self,
        stored: &[Option<Stored>],
    ) -> Result<Vec<(i32, usize, Stretch)>, ConsumerError> {
        let reader = Arc::new(Reader::connect(&self.config, &self.client)?);
        let mut found = Vec::new();
        for (table, stored) in stored.iter().enumerate() {
            for (partition, highest) in stored.iter().flat_map(|stored| &stored.highest_ahead) {
                let Some(bounds) = self.topic.partitions.get(partition) else { continue };
                if *highest < bounds.high.max(0).cast_unsigned() {
                    continue;
                }
                let stretch = self.beyond_end(&reader, *partition, table).await?;
                found.extend(stretch.map(|stretch| (*partition, table, stretch)));
            }
        }
        Ok(found)
    }

    async fn beyond_end(
        &self,
        reader: &Arc<Reader>,
        partition: i32,
        table: usize,
    ) -> Result<Option<Stretch>, ConsumerError> {
        let name = &self.routing.tables[table].table;
        let mut end = self.end(reader, partition).await?;
        loop {
            let place = (&*self.topic.name, partition);
            let rows = stored::beyond(&self.clickhouse, name, place, end).await;
            let (rows, first, last) = rows.map_err(|source| self.asking_failed(source))?;
            if rows == 0 {
                return Ok(None);
            }
            end = self.end(reader, partition).await?;
            // Whatever arrived between the two questions lies before the new end.
            if first >= end {
                let to = if last < first { i64::MAX } else { last.saturating_add(1) };
                return Ok(Some(Stretch { matter: Matter::NotInKafka, from: first, to, rows }));
            }
        }
    }

    async fn end(&self, reader: &Arc<Reader>, partition: i32) -> Result<i64, ConsumerError> {
        let (reader, topic) = (Arc::clone(reader), Arc::clone(&self.topic));
        let asking = spawn_blocking(move || reader.watermarks(&topic.name, partition));
        Ok(asking.await.map_err(ConsumerError::Worker)??.end)
    }

    /// Both sides of one partition, by table.
    fn sides(
        &self,
        partition: i32,
        held: &InKafka,
        stored: &[Option<Stored>],
        letters: &Letters,
    ) -> Vec<Side> {
        let width = self.width();
        let of_table = |index: usize| {
            let name = self.routing.tables.get(index).map_or("", |table| &table.name);
            let mut expected =
                held.get(&partition).map_or_else(Sums::default, |h| h[index].clone());
            let mut parked: BTreeMap<u64, u64> = BTreeMap::new();
            for offset in letters.of(partition, name).iter().flat_map(|offsets| offsets.iter()) {
                let offset = offset.cast_unsigned();
                expected.remove(offset, width);
                *parked.entry(offset / width).or_default() += 1;
            }
            let stored = stored.get(index).and_then(Option::as_ref);
            let stored = stored.and_then(|stored| stored.sums.get(&partition).cloned());
            Side { expected, parked, stored: stored.unwrap_or_default() }
        };
        (0..=self.routing.tables.len()).map(of_table).collect()
    }

    /// Looks at what differs, offset by offset.
    async fn drill(
        &self,
        partition: i32,
        sides: &[Side],
        stored: &[Option<Stored>],
        letters: &Arc<Letters>,
    ) -> Result<Drilled, ConsumerError> {
        let mut ranges = BTreeSet::new();
        for side in sides {
            ranges.extend(side.expected.differences(&side.stored));
        }
        let mut drilled = Drilled { ranges, tables: Vec::new() };
        drilled.tables.resize_with(sides.len(), Default::default);
        if drilled.ranges.is_empty() {
            return Ok(drilled);
        }
        self.bar.set_message(format!(
            "looking at offsets of {}/{partition} one by one",
            self.topic.name
        ));
        let has_rows = stored.iter().map(|stored| {
            stored.as_ref().is_some_and(|stored| stored.sums.contains_key(&partition))
        });
        let drill = Drill {
            topic: Arc::clone(&self.topic),
            routing: Arc::clone(&self.routing),
            clickhouse: self.clickhouse.clone(),
            letters: Arc::clone(letters),
            partition,
            width: self.width(),
            has_rows: has_rows.collect(),
        };
        let (config, client) = (Arc::clone(&self.config), self.client.clone());
        let drilling = spawn_blocking(move || {
            let reader = Reader::connect(&config, &client)?;
            drill.run(&reader, drilled)
        });
        let drilled = drilling.await.map_err(ConsumerError::Worker)??;
        self.bar.set_message("");
        Ok(drilled)
    }

    fn tell(
        &self,
        partition: i32,
        sides: Vec<Side>,
        stored: &[Option<Stored>],
        drilled: Drilled,
        report: &mut Report,
    ) {
        let place = (&*self.topic.name, partition);
        let bounds = self.topic.partitions.get(&partition);
        for (index, (side, (comparison, stretches))) in
            sides.into_iter().zip(drilled.tables).enumerate()
        {
            let table = self.routing.tables.get(index);
            let mut counts = side.counts_without(&drilled.ranges, table.is_none());
            counts.add(&counted(comparison, table.is_none()));
            let merges = table.is_some_and(|table| *table.merging() != Merging::Never);
            if merges {
                counts.merged = std::mem::take(&mut counts.missing);
            }
            if let Some(stored) = stored.get(index).and_then(Option::as_ref) {
                counts.no_longer_in_kafka += stored.gone.get(&partition).copied().unwrap_or(0);
            }
            let name = table.map(|table| table.name.as_str());
            let is_ahead = stored
                .get(index)
                .and_then(Option::as_ref)
                .is_some_and(|stored| stored.highest_ahead.contains_key(&partition));
            let is_shown = counts != Counts::default()
                || is_ahead
                || table.is_some() && self.routing.writes_to(index) && bounds.is_some();
            if is_shown {
                report.add(Compared {
                    topic: self.topic.name.to_string(),
                    partition,
                    table: name.map(str::to_owned),
                    from: bounds.map_or(0, |bounds| bounds.from),
                    to: bounds.map_or(0, |bounds| bounds.to),
                    counts,
                });
            }
            let is_merged = |stretch: &Stretch| merges && stretch.matter == Matter::Missing;
            for stretch in stretches.into_iter().filter(|stretch| !is_merged(stretch)) {
                report.found(place, name, stretch);
            }
        }
    }
}

/// What was compared with the dead letters has them for rows.
fn counted(comparison: Comparison, is_letters: bool) -> Counts {
    let counts = comparison.counts;
    match is_letters {
        true => Counts { parked: counts.stored, missing: counts.missing, ..Counts::default() },
        false => counts,
    }
}

/// One table and one partition, summed up.
struct Side {
    /// Kafka's records less the letters.
    expected: Sums,
    /// Letters by range.
    parked: BTreeMap<u64, u64>,
    stored: Sums,
}

impl Side {
    fn counts_without(&self, ranges: &BTreeSet<u64>, is_letters: bool) -> Counts {
        let parked = self.parked.iter().filter(|(range, _)| !ranges.contains(range));
        let parked = parked.map(|(_, letters)| letters).sum();
        if is_letters {
            return Counts { parked, ..Counts::default() };
        }
        Counts {
            expected: self.expected.rows_without(ranges),
            stored: self.stored.rows_without(ranges),
            parked,
            ..Counts::default()
        }
    }
}
