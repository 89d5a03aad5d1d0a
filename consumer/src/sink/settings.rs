//! What is sent along with statements, whatever the profile of the user says. Pure.

use std::collections::BTreeMap;

type Pinned = (&'static str, &'static str);

/// What every insert depends on.
pub(crate) const INSERT_SETTINGS: [Pinned; 7] = [
    // On by default since 26.2; it would gather blocks anew and answer early.
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    // A NULL asks for the DEFAULT in columns that have one.
    ("input_format_null_as_default", "1"),
    ("insert_null_as_default", "1"),
    // Of JSON from text; what else there is to convert, the statement forbids.
    ("input_format_native_allow_types_conversion", "1"),
    // A batch of old events may touch many months.
    ("max_partitions_per_insert_block", "0"),
];

/// The same, of settings that not every version has.
pub(crate) const NEWER_INSERT_SETTINGS: [Pinned; 2] = [
    // Overrides insert_deduplicate, from 26.2 on.
    ("deduplicate_insert", "enable"),
    // Overrides both for INSERT … SELECT, from 25.12 on. The select of ours is stable.
    ("deduplicate_insert_select", "enable_even_for_bad_queries"),
];

/// Types that a table may have been made with, and that ClickHouse does not let be named
/// otherwise. Sent where the user may change them; where not, a table without such types
/// needs none.
const TYPE_SETTINGS: [Pinned; 6] = [
    ("allow_suspicious_low_cardinality_types", "1"),
    ("allow_suspicious_fixed_string_types", "1"),
    ("enable_time_time64_type", "1"),
    ("allow_experimental_time_time64_type", "1"),
    ("allow_experimental_bfloat16_type", "1"),
    ("allow_suspicious_variant_types", "1"),
];

/// What cuts off, leaves out or changes rows that a SELECT returns. Limits may stay: what
/// goes beyond them is to fail, and not to end early.
const READ_SETTINGS: [Pinned; 36] = [
    ("limit", "0"),
    ("offset", "0"),
    ("page", "0"),
    ("select", ""),
    ("order", ""),
    ("sort", ""),
    // ClickHouse Cloud's: parts that are new are left out.
    ("ignore_cold_parts_seconds", "0"),
    ("additional_table_filters", "{}"),
    ("additional_result_filter", ""),
    ("final", "0"),
    // Rows that are deleted are there without it.
    ("apply_deleted_mask", "1"),
    ("use_query_cache", "0"),
    ("enable_parallel_replicas", "0"),
    ("skip_unavailable_shards", "0"),
    ("read_overflow_mode", "throw"),
    ("read_overflow_mode_leaf", "throw"),
    ("result_overflow_mode", "throw"),
    ("timeout_overflow_mode", "throw"),
    ("timeout_overflow_mode_leaf", "throw"),
    ("transfer_overflow_mode", "throw"),
    ("group_by_overflow_mode", "throw"),
    ("distinct_overflow_mode", "throw"),
    ("sort_overflow_mode", "throw"),
    ("set_overflow_mode", "throw"),
    ("join_overflow_mode", "throw"),
    ("extremes", "0"),
    ("transform_null_in", "0"),
    ("aggregate_functions_null_for_empty", "0"),
    ("empty_result_for_aggregation_by_empty_set", "0"),
    ("group_by_use_nulls", "0"),
    ("join_use_nulls", "0"),
    ("session_timezone", ""),
    // Of what is written: values that do not fit, and columns that are named.
    ("type_json_skip_invalid_typed_paths", "0"),
    ("type_json_skip_duplicated_paths", "0"),
    ("data_type_default_nullable", "0"),
    ("ignore_materialized_views_with_dropped_target_table", "0"),
];

/// Which of them a server has, and whether the user may change them.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<String, bool>);

impl Known {
    /// One line for each setting that the server has: its name, and 1 if it is fixed.
    pub(super) const SQL: &'static str = "SELECT arrayStringConcat(groupArray(\
         concat(name, ' ', toString(readonly))), '\\n') FROM system.settings WHERE name IN ?";

    pub(super) fn all_names() -> Vec<&'static str> {
        let all = NEWER_INSERT_SETTINGS.iter().chain(&TYPE_SETTINGS).chain(&READ_SETTINGS);
        all.map(|(name, _)| *name).collect()
    }

    /// Of what [`SQL`](Self::SQL) came to.
    pub(super) fn parse(lines: &str) -> Self {
        let setting = |line: &str| {
            let (name, fixed) = line.split_once(' ')?;
            Some((name.to_owned(), fixed != "0"))
        };
        Known(lines.lines().filter_map(setting).collect())
    }

    fn has(&self, (name, _): &Pinned) -> bool {
        self.0.contains_key(*name)
    }

    /// Those that go with statements and questions. One that is fixed at another value is
    /// sent all the same: better no answer than half of one.
    pub(super) fn of_reads(&self) -> impl Iterator<Item = Pinned> {
        READ_SETTINGS.into_iter().filter(|pinned| self.has(pinned)).chain(self.of_types())
    }

    /// Those that go with inserts, and the questions in them.
    pub(super) fn of_inserts(&self) -> impl Iterator<Item = Pinned> {
        let newer = NEWER_INSERT_SETTINGS.into_iter().filter(|pinned| self.has(pinned));
        INSERT_SETTINGS.into_iter().chain(newer).chain(self.of_reads())
    }

    fn of_types(&self) -> impl Iterator<Item = Pinned> {
        TYPE_SETTINGS.into_iter().filter(|(name, _)| self.0.get(*name) == Some(&false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_sent_what_it_knows_and_a_user_what_matters() {
        let known = Known::parse(
            "limit 1\ndeduplicate_insert 1\nallow_suspicious_low_cardinality_types 1\n\
             allow_suspicious_fixed_string_types 0",
        );
        let reads: Vec<_> = known.of_reads().collect();
        assert_eq!(reads, [("limit", "0"), ("allow_suspicious_fixed_string_types", "1")]);
        let inserts: Vec<_> = known.of_inserts().collect();
        assert_eq!(inserts[..7], INSERT_SETTINGS);
        assert_eq!(inserts[7..8], [("deduplicate_insert", "enable")]);
        assert_eq!(inserts[8..], reads);
        assert_eq!(Known::parse("").of_inserts().count(), INSERT_SETTINGS.len());
    }
}
