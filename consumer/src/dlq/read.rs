//! All letters of a topic, as they stand. Blocks.

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use outpour_schemas::wire::DEAD_LETTER_PREFIX;

use super::letter::{Entry, Letter, LetterId, Outcome};
use crate::{
    dead_letter::dead_letter_topic,
    error::ConsumerError,
    replay::Parked,
    source::reader::{Part, TopicReader},
};

/// The topics whose records were parked.
pub(crate) fn sources(reader: &TopicReader) -> Result<Vec<String>, ConsumerError> {
    let topics = reader.topics()?;
    let mut sources: Vec<_> =
        topics.iter().filter_map(|topic| topic.strip_prefix(DEAD_LETTER_PREFIX)).collect();
    sources.sort_unstable();
    Ok(sources.into_iter().map(str::to_owned).collect())
}

/// Letters, and what became of those that are settled.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    pub(crate) letters: Vec<Letter>,
    pub(crate) settled: HashMap<LetterId, Outcome>,
}

impl Letters {
    /// Those that stand for a record that is in no table.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Letter> {
        self.letters.iter().filter(|letter| !self.settled.contains_key(&letter.id))
    }
}

/// What `wanted` selects of the letters of `source`, and all marks.
pub(crate) fn read(
    reader: &TopicReader,
    source: &str,
    wanted: impl FnMut(&mut Letter) -> bool,
) -> Result<Letters, ConsumerError> {
    let whole = reader.whole(&dead_letter_topic(source))?;
    read_parts(reader, source, &whole, wanted)
}

/// The same of parts of it.
pub(crate) fn read_parts(
    reader: &TopicReader,
    source: &str,
    parts: &[Part],
    mut wanted: impl FnMut(&mut Letter) -> bool,
) -> Result<Letters, ConsumerError> {
    let mut found = Letters::default();
    reader.read(&dead_letter_topic(source), parts, |record| {
        match Entry::of(record) {
            Some(Entry::Letter(mut letter)) => {
                found.letters.extend(wanted(&mut letter).then_some(*letter));
            }
            Some(Entry::Mark { letter, outcome }) => {
                found.settled.insert(letter, outcome);
            }
            // Somebody else's.
            None => {}
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// Which records of `source` have a letter, whatever became of it.
pub(crate) fn parked(reader: &TopicReader, source: &str) -> Result<Parked, ConsumerError> {
    let topic = dead_letter_topic(source);
    let mut parked = Parked::new();
    reader.read(&topic, &reader.whole(&topic)?, |record| {
        if let Some(Entry::Letter(letter)) = Entry::of(record) {
            let tables = parked.entry(letter.partition).or_default();
            let offsets = match tables.get_mut(letter.table.as_str()) {
                Some(offsets) => offsets,
                None => tables.entry(Arc::from(letter.table)).or_default(),
            };
            offsets.insert(letter.offset);
        }
        ControlFlow::Continue(())
    })?;
    Ok(parked)
}
