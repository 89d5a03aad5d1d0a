//! What a check found, for people and for programs.

use std::fmt::Write as _;

use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    Ok,
    /// It works, but somebody should know.
    Warning,
    /// Events do not arrive, or will not before long.
    Problem,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Problem => "problem",
        }
    }
}

/// The outcome of one check; `doctor --json` prints a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// A stable name of what was checked.
    pub(crate) check: &'static str,
    pub(crate) level: Level,
    pub(crate) what: String,
    /// Why it matters; absent where all is well.
    pub(crate) why: Option<String>,
    /// The SQL, command or key that puts it right.
    pub(crate) fix: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Finding { check, level: Level::Ok, what: what.into(), why: None, fix: None }
    }

    pub(super) fn warning(check: &'static str, what: impl Into<String>, why: &str) -> Self {
        Finding { level: Level::Warning, why: Some(why.to_owned()), ..Self::ok(check, what) }
    }

    pub(super) fn problem(check: &'static str, what: impl Into<String>, why: &str) -> Self {
        Finding { level: Level::Problem, why: Some(why.to_owned()), ..Self::ok(check, what) }
    }

    pub(super) fn fix(self, fix: impl Into<String>) -> Self {
        Finding { fix: Some(fix.into()), ..self }
    }
}

/// The findings as a person reads them: an overview, then what to do.
pub(crate) fn text(findings: &[Finding]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(["", "check", "finding"]);
    for finding in findings {
        table.add_row([finding.level.name(), finding.check, &finding.what]);
    }
    let mut text = format!("{table}\n");
    // Outside the table, which would break lines that are to be copied.
    for finding in findings.iter().filter(|finding| finding.level != Level::Ok) {
        let Finding { check, level, what, why, fix } = finding;
        let mut lines = vec![format!("\n{} ({check}): {what}", level.name())];
        lines.extend(why.iter().map(|why| format!("  {why}")));
        lines.extend(fix.iter().flat_map(|fix| fix.lines()).map(|line| format!("    {line}")));
        // Writing to a string does not fail.
        writeln!(text, "{}", lines.join("\n")).ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fix_stands_on_a_line_of_its_own_however_long() {
        let fix = format!("ALTER PUBLICATION p ADD TABLE {};", "x".repeat(300));
        let findings = [
            Finding::ok("wal_level", "logical"),
            Finding::problem("publication", "`p` is empty", "Nothing would arrive.").fix(&fix),
        ];
        let text = text(&findings);
        assert!(text.contains(&format!("    {fix}\n")), "{text}");
        assert!(text.contains("problem (publication): `p` is empty\n  Nothing would"), "{text}");
        let json = serde_json::to_value(&findings).unwrap();
        assert_eq!(json[0]["level"], "ok");
        assert_eq!(json[0]["fix"], serde_json::Value::Null);
        assert_eq!(json[1]["fix"], *fix);
    }
}
