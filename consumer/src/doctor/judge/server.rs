//! The server, what its profile does to inserts, and the clocks.

use outpour_schemas::program::{Finding, named};

use super::super::facts::Server;
use crate::{
    sink::{INSERT_SETTINGS, NEWER_INSERT_SETTINGS},
    table::quoted,
};

/// Clocks that differ by more bend what is measured across them.
const CLOCK_MS: i64 = 2_000;

/// `once`: exactly-once is asked for.
pub(super) fn judge(facts: &Server, once: bool) -> Vec<Finding> {
    let Server { version, user, .. } = facts;
    let mut findings = vec![Finding::ok("server", format!("ClickHouse {version}, user `{user}`"))];
    findings.push(clock(facts));
    let bad = insert_settings(facts, once);
    if bad.is_empty() {
        findings.push(Finding::ok("insert-settings", "every setting of an insert can be given"));
    }
    findings.extend(bad);
    findings
}

fn clock(facts: &Server) -> Finding {
    let check = "clock";
    let (ahead, doubt) = (facts.clock_ahead_ms, facts.round_trip_ms / 2 + 1);
    let text = format!("ClickHouse's clock is {ahead} ms ahead of this host's (± {doubt} ms)");
    if ahead.abs() <= CLOCK_MS + doubt {
        return Finding::ok(check, text);
    }
    Finding::warning(
        check,
        text,
        "Columns that are filled with now(), and what a TTL removes, are off by the difference.",
    )
    .fix("keep the clocks by NTP")
}

/// What keeps an insert from being what it is meant to be.
fn insert_settings(facts: &Server, once: bool) -> Vec<Finding> {
    let check = "insert-settings";
    let alter =
        |setting: &str| format!("ALTER USER {} MODIFY SETTING {setting};", quoted(&facts.user));
    let value = |name: &str| facts.settings.get(name).map(|setting| setting.value.as_str());
    let mut findings = Vec::new();
    if !matches!(value("readonly"), None | Some("0")) {
        findings.push(
            Finding::problem(
                check,
                format!("user `{}` is read-only (the setting readonly)", facts.user),
                "ClickHouse refuses every insert.",
            )
            .fix(alter("readonly = 0")),
        );
    }
    let wanted = INSERT_SETTINGS.iter().map(|(name, value)| (*name, Some(*value)));
    let wanted: Vec<_> = wanted.chain([("insert_deduplication_token", None)]).collect();
    let unknown: Vec<_> =
        wanted.iter().map(|(name, _)| *name).filter(|name| value(name).is_none()).collect();
    if !unknown.is_empty() {
        findings.push(
            Finding::problem(
                check,
                format!("ClickHouse {} does not know {}", facts.version, named(&unknown)),
                "It refuses inserts with a setting that it does not know.",
            )
            .fix("use a newer version of ClickHouse"),
        );
    }
    for (name, wanted) in wanted {
        let Some(setting) = facts.settings.get(name) else { continue };
        let is_taken = match wanted {
            Some(wanted) => setting.takes(wanted),
            None => !setting.is_fixed,
        };
        if !is_taken {
            let wanted = wanted.map_or("another value".to_owned(), |wanted| format!("`{wanted}`"));
            findings.push(
                Finding::problem(
                    check,
                    format!("{name} is {} for this user, inserts need {wanted}", setting.bounds()),
                    "ClickHouse refuses inserts with a setting that the user may not have so.",
                )
                .fix(
                    alter(&format!("{name} CHANGEABLE_IN_READONLY"))
                        + "\n-- or take the constraint out of the user's settings profile",
                ),
            );
        }
    }
    for (name, wanted) in NEWER_INSERT_SETTINGS {
        let found = facts.settings.get(name);
        if once && found.is_some_and(|found| found.value == "disable" && !found.takes(wanted)) {
            findings.push(
                Finding::problem(
                    check,
                    format!("{name} is fixed at `disable` for this user"),
                    "It overrides insert_deduplicate: an insert that is repeated after its outcome \
                     was open is stored twice.",
                )
                .fix(alter(&format!("{name} = '{wanted}'"))),
            );
        }
    }
    if value("materialized_views_ignore_errors") == Some("1") {
        findings.push(
            Finding::warning(
                check,
                "materialized_views_ignore_errors is 1 for this user",
                "What a view cannot take is missing from it without a word.",
            )
            .fix(alter("materialized_views_ignore_errors = 0")),
        );
    }
    findings
}

/// Scratch tables of a probe that was killed.
pub(super) fn leftovers(facts: &Server) -> Option<Finding> {
    if facts.leftovers.is_empty() {
        return None;
    }
    let drops: Vec<_> =
        facts.leftovers.iter().map(|name| format!("DROP TABLE {};", name.quoted())).collect();
    Some(
        Finding::warning(
            "scratch",
            format!("left by a probe that came to no end: {}", named(&facts.leftovers)),
            "They hold a few rows each and are of no use.",
        )
        .fix(drops.join("\n")),
    )
}

#[cfg(test)]
mod tests {
    use outpour_schemas::program::Level;

    use super::{
        super::super::{
            facts::Setting,
            tests::{assert_one, server},
        },
        *,
    };
    use crate::table::TableName;

    fn found(change: impl FnOnce(&mut Server)) -> Vec<Finding> {
        let mut facts = server();
        change(&mut facts);
        let mut findings = judge(&facts, true);
        findings.extend(leftovers(&facts));
        findings.retain(|finding| finding.level != Level::Ok);
        findings
    }

    fn set(name: &'static str, value: &'static str, is_fixed: bool) -> Vec<Finding> {
        found(|facts| {
            let setting = Setting { value: value.into(), is_fixed, min: None, max: None };
            facts.settings.insert(name.into(), setting);
        })
    }

    #[test]
    fn a_good_server_has_no_finding() {
        assert_eq!(found(|_| {}), []);
        // Older versions do not know it.
        assert_eq!(found(|facts| drop(facts.settings.remove("deduplicate_insert"))), []);
    }

    #[test]
    fn what_keeps_inserts_from_being_deduplicated_is_a_problem() {
        let check = "insert-settings";
        for name in ["deduplicate_insert", "deduplicate_insert_select"] {
            assert_one(&set(name, "disable", true), Level::Problem, check, "disable");
        }
        assert_eq!(set("deduplicate_insert", "disable", false), [], "inserts say otherwise");
        assert_one(&set("async_insert", "1", true), Level::Problem, check, "fixed at `1`");
        assert_one(&set("insert_deduplication_token", "", true), Level::Problem, check, "fixed");
        assert_one(&set("readonly", "1", false), Level::Problem, check, "read-only");
        let unknown = found(|facts| drop(facts.settings.remove("insert_deduplicate")));
        assert_one(&unknown, Level::Problem, check, "does not know `insert_deduplicate`");
        let ignored = set("materialized_views_ignore_errors", "1", false);
        assert_one(&ignored, Level::Warning, check, "ignore_errors");
    }

    #[test]
    fn a_setting_that_is_kept_within_bounds_is_a_problem_where_inserts_need_another() {
        let check = "insert-settings";
        let bounded = |name: &'static str, value: &str, min: Option<&str>, max: Option<&str>| {
            let (min, max) = (min.map(str::to_owned), max.map(str::to_owned));
            let setting = Setting { value: value.into(), is_fixed: false, min, max };
            found(|facts| drop(facts.settings.insert(name.into(), setting)))
        };
        let async_insert = bounded("async_insert", "1", Some("1"), Some("1"));
        assert_one(&async_insert, Level::Problem, check, "kept between `1` and `1`");
        let nulls = bounded("input_format_null_as_default", "0", None, Some("0"));
        assert_one(
            &nulls,
            Level::Problem,
            check,
            "at `0` or below for this user, inserts need `1`",
        );
        // 0 is no bound of parts; as text, 100 would be less than 9.
        let parts = bounded("max_partitions_per_insert_block", "100", Some("9"), None);
        assert_one(&parts, Level::Problem, check, "at `9` or above");
        assert_eq!(bounded("async_insert", "1", Some("0"), Some("1")), []);
        assert_eq!(bounded("async_insert", "0", Some("1"), Some("1")), [], "it is so already");
    }

    #[test]
    fn what_is_as_it_should_be_may_be_fixed_and_the_rest_is_sent_along() {
        assert_eq!(set("async_insert", "0", true), []);
        assert_eq!(set("async_insert", "1", false), []);
    }

    #[test]
    fn clocks_apart_are_a_warning() {
        let findings = found(|facts| facts.clock_ahead_ms = -90_000);
        assert_one(&findings, Level::Warning, "clock", "-90000 ms");
        // Within what a slow answer leaves open.
        let slow = |facts: &mut Server| {
            (facts.clock_ahead_ms, facts.round_trip_ms) = (3_000, 4_000);
        };
        assert_eq!(found(slow), []);
    }

    #[test]
    fn what_a_killed_probe_left_is_named_with_the_way_to_be_rid_of_it() {
        let name = TableName::parse("t_outpour_doctor_0123abcd_1", "db");
        let findings = found(|facts| facts.leftovers = vec![name]);
        assert_one(&findings, Level::Warning, "scratch", "0123abcd");
        let fix = findings[0].fix.as_ref().unwrap();
        assert_eq!(fix, "DROP TABLE `db`.`t_outpour_doctor_0123abcd_1`;");
    }
}
