//! Letters with their payloads, a bounded part of them at a time.

use std::{collections::HashSet, ops::Range, sync::Arc};

use super::{
    letter::{Letter, LetterId},
    read,
};
use crate::{
    error::ConsumerError,
    replay::blocking,
    source::reader::{Part, TopicReader},
};

/// What is held at once, unless a single letter is larger.
const BYTES: usize = 32 << 20;
const LETTERS: usize = 10_000;

/// Runs of letters of one topic that are held together, in the order of their IDs.
pub(super) fn windows(letters: &[&Letter]) -> Vec<Vec<LetterId>> {
    let mut sorted = letters.to_vec();
    sorted.sort_by(|a, b| a.id.cmp(&b.id));
    let mut windows: Vec<Vec<LetterId>> = Vec::new();
    let mut bytes = 0;
    for letter in sorted {
        bytes += letter.value_size;
        match windows.last_mut() {
            Some(window)
                if window.len() < LETTERS
                    && bytes <= BYTES
                    && window.last().is_some_and(|last| last.topic == letter.id.topic) =>
            {
                window.push(letter.id.clone());
            }
            _ => {
                bytes = letter.value_size;
                windows.push(vec![letter.id.clone()]);
            }
        }
    }
    windows
}

/// The letters of a window, whole.
pub(super) async fn fetch(
    reader: &Arc<TopicReader>,
    window: Vec<LetterId>,
) -> Result<Vec<Letter>, ConsumerError> {
    let Some(source) = window.first().map(|id| Arc::clone(&id.topic)) else {
        return Ok(Vec::new());
    };
    let reader = Arc::clone(reader);
    blocking(move || {
        let parts: Vec<_> = spans(&window)
            .into_iter()
            .map(|(partition, span)| Part { partition, from: span.start, until: span.end })
            .collect();
        let window: HashSet<_> = window.into_iter().collect();
        let found =
            read::read_parts(&reader, &source, &parts, |letter| window.contains(&letter.id))?;
        Ok(found.letters)
    })
    .await
}

/// Where they lie in each partition.
fn spans(window: &[LetterId]) -> Vec<(i32, Range<i64>)> {
    let mut spans: Vec<(i32, Range<i64>)> = Vec::new();
    for LetterId { partition, offset, .. } in window {
        match spans.last_mut() {
            Some((last, span)) if last == partition => span.end = offset + 1,
            _ => spans.push((*partition, *offset..offset + 1)),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(topic: &str, partition: i32, offset: i64, value_size: usize) -> Letter {
        Letter {
            id: LetterId { topic: topic.into(), partition, offset },
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            table: String::new(),
            column: String::new(),
            expected: String::new(),
            refused: String::new(),
            reason: String::new(),
            error: String::new(),
            attempts: 1,
            parked_at: None,
            key: None,
            value: None,
            value_size,
            headers: Vec::new(),
        }
    }

    #[test]
    fn a_window_is_of_one_topic_and_of_a_bounded_size() {
        let letters = [
            letter("b", 0, 1, 1),
            letter("a", 1, 7, 1),
            letter("a", 0, 9, BYTES - 1),
            letter("a", 0, 3, 1),
            letter("a", 1, 5, 2 * BYTES),
        ];
        let windows = windows(&letters.iter().collect::<Vec<_>>());
        let names: Vec<Vec<_>> =
            windows.iter().map(|w| w.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(names, [vec!["a/0/3", "a/0/9"], vec!["a/1/5"], vec!["a/1/7"], vec!["b/0/1"]]);
        assert_eq!(spans(&windows[0]), [(0, 3..10)]);
        let many: Vec<_> = (0..25_000).map(|offset| letter("a", 0, offset, 1)).collect();
        let sizes: Vec<_> =
            super::windows(&many.iter().collect::<Vec<_>>()).iter().map(Vec::len).collect();
        assert_eq!(sizes, [10_000, 10_000, 5000]);
    }
}
