//! What a topic takes, and what it keeps.

use outpour_schemas::kafka::{Settings, setting};

const HOUR_MS: i64 = 60 * 60 * 1000;

/// Of one topic, by its settings. Where they may not be read, or a broker does not
/// know one, it is what Kafka has by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The largest batch, which is also the largest record, in bytes.
    pub(crate) largest: usize,
    /// Whether it takes no record without a key.
    pub(crate) needs_key: bool,
    /// How old the time of a record may be, in milliseconds.
    past_ms: i64,
    /// How far ahead of now it may be, in milliseconds.
    future_ms: i64,
}

impl Limits {
    pub(crate) fn of(settings: &Settings) -> Self {
        let text = |name| setting::<String>(settings, name);
        // Kafka writes "no limit" as the largest number, or as -1.
        let span_ms = |name, default: i64| match setting(settings, name).unwrap_or(default) {
            ..0 => i64::MAX,
            ms => ms,
        };
        let largest = setting(settings, "max.message.bytes").unwrap_or(usize::MAX);
        let policy = text("cleanup.policy");
        let needs_key = policy.as_ref().is_some_and(|policy| policy.contains("compact"));
        if text("message.timestamp.type").is_some_and(|kind| kind != "CreateTime") {
            // Kafka sets the time itself.
            return Limits { largest, needs_key, past_ms: i64::MAX, future_ms: i64::MAX };
        }
        let removes = policy.is_none_or(|policy| policy.contains("delete"));
        let kept_ms = if removes { span_ms("retention.ms", 7 * 24 * HOUR_MS) } else { i64::MAX };
        // Before Kafka 4 one setting could stand for both directions.
        let either_ms = span_ms("message.timestamp.difference.max.ms", i64::MAX);
        let before_ms = span_ms("message.timestamp.before.max.ms", i64::MAX).min(either_ms);
        let after_ms = span_ms("message.timestamp.after.max.ms", HOUR_MS).min(either_ms);
        // The other half is left to those who read, and to clocks that disagree.
        let (past_ms, future_ms) = (kept_ms.min(before_ms) / 2, after_ms / 2);
        Limits { largest, needs_key, past_ms, future_ms }
    }

    /// Whether Kafka takes a record of this time, and leaves those who read it time
    /// before it is removed. Both times are in milliseconds since the Unix epoch.
    pub(crate) fn keeps(self, timestamp_ms: i64, now_ms: i64) -> bool {
        let limit = if timestamp_ms < now_ms { self.past_ms } else { self.future_ms };
        timestamp_ms.abs_diff(now_ms) <= limit.unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = HOUR_MS;
    const DAY: i64 = 24 * HOUR;
    const NOW: i64 = 10_000 * DAY;

    fn limits(settings: &[(&str, &str)]) -> Limits {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        Limits::of(&Some(settings.iter().map(owned).collect()))
    }

    /// The oldest and the newest time from now that `limits` keeps.
    fn assert_span(limits: Limits, oldest: i64, newest: i64) {
        for (at, is_kept) in
            [(oldest, true), (oldest - 1, false), (0, true), (newest, true), (newest + 1, false)]
        {
            assert_eq!(limits.keeps(NOW + at, NOW), is_kept, "{at} of {limits:?}");
        }
    }

    #[test]
    fn half_of_what_the_topic_keeps_is_left_to_readers() {
        let unreadable = Limits::of(&None);
        assert_eq!(unreadable, limits(&[]));
        assert_eq!((unreadable.largest, unreadable.needs_key), (usize::MAX, false));
        assert_span(unreadable, -7 * DAY / 2, HOUR / 2);
        assert_span(limits(&[("retention.ms", "7200000")]), -HOUR, HOUR / 2);
        assert_span(limits(&[("cleanup.policy", "compact,delete")]), -7 * DAY / 2, HOUR / 2);
        assert_eq!(limits(&[("max.message.bytes", "1000")]).largest, 1000);
        for (policy, needs_key) in [("delete", false), ("compact", true), ("compact,delete", true)]
        {
            assert_eq!(limits(&[("cleanup.policy", policy)]).needs_key, needs_key, "{policy}");
        }
    }

    #[test]
    fn what_kafka_refuses_is_not_sent() {
        let forever = ("retention.ms", "-1");
        let before = ("message.timestamp.before.max.ms", "7200000");
        let after = ("message.timestamp.after.max.ms", "172800000");
        let either = ("message.timestamp.difference.max.ms", "14400000");
        assert_span(limits(&[forever, before, after]), -HOUR, DAY);
        assert_span(limits(&[forever, after, either]), -2 * HOUR, 2 * HOUR);
        assert_span(limits(&[("cleanup.policy", "compact"), before]), -HOUR, HOUR / 2);
    }

    #[test]
    fn any_time_is_kept_where_kafka_removes_and_refuses_none() {
        let after = ("message.timestamp.after.max.ms", "9223372036854775807");
        let cases: [&[_]; 3] = [
            &[("retention.ms", "-1"), after],
            &[("cleanup.policy", "compact"), after],
            &[("message.timestamp.type", "LogAppendTime"), ("retention.ms", "1")],
        ];
        for limits in cases.map(limits) {
            assert!(limits.keeps(0, NOW) && limits.keeps(100 * NOW, NOW), "{limits:?}");
        }
    }
}
