//! What a check found, for people and for programs.

use std::{
    error::Error,
    fmt::{Display, Write as _},
    io::IsTerminal as _,
};

use comfy_table::{ContentArrangement, Table, presets::UTF8_BORDERS_ONLY};
use serde::Serialize;

use super::{Exit, error_line, print};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
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
pub struct Finding {
    /// A stable name of what was checked.
    pub check: &'static str,
    pub level: Level,
    pub what: String,
    /// Why it matters; absent where all is well.
    pub why: Option<String>,
    /// The SQL, command or key that puts it right.
    pub fix: Option<String>,
}

impl Finding {
    /// All is well, or there is something to know that needs no doing.
    #[must_use]
    pub fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Finding { check, level: Level::Ok, what: what.into(), why: None, fix: None }
    }

    #[must_use]
    pub fn warning(check: &'static str, what: impl Into<String>, why: &str) -> Self {
        Finding { level: Level::Warning, why: Some(why.to_owned()), ..Self::ok(check, what) }
    }

    #[must_use]
    pub fn problem(check: &'static str, what: impl Into<String>, why: &str) -> Self {
        Finding { level: Level::Problem, why: Some(why.to_owned()), ..Self::ok(check, what) }
    }

    /// What puts it right.
    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Finding { fix: Some(fix.into()), ..self }
    }
}

/// What a `doctor` found, and by whom nothing was said.
#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
    /// Why a side could not be asked, one line each.
    unanswered: Vec<String>,
}

/// Why a `doctor` does not end with 0.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    #[error("not everything could be checked: {0}")]
    Unanswered(String),
    #[error("{0} found")]
    Problems(String),
    #[error("cannot write the result")]
    Output(#[from] std::io::Error),
}

impl DoctorError {
    /// How the command ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            DoctorError::Unanswered(_) | DoctorError::Output(_) => Exit::Failed,
            DoctorError::Problems(_) => Exit::Finding,
        }
    }
}

impl Report {
    pub fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.findings.extend(findings);
    }

    /// A side that does not answer is a finding, too.
    pub fn unanswered(&mut self, check: &'static str, error: &dyn Error) {
        let line = error_line(error);
        let why = "Nothing of this side could be checked.";
        self.findings.push(Finding::problem(check, line.clone(), why));
        self.unanswered.push(line);
    }

    /// As a person reads it.
    fn text(&self) -> String {
        text(&self.findings, std::io::stdout().is_terminal())
    }

    /// As a program reads it: one line, a list of [`Finding`].
    ///
    /// # Errors
    /// Never for findings of our own making.
    fn json(&self) -> Result<String, serde_json::Error> {
        Ok(format!("{}\n", serde_json::to_string(&self.findings)?))
    }

    /// Prints it, for a person or for a program.
    ///
    /// # Errors
    /// When a side could not be asked, or a problem was found.
    pub fn tell(&self, json: bool) -> Result<(), DoctorError> {
        print(&if json { self.json().map_err(std::io::Error::from)? } else { self.text() })?;
        self.verdict()
    }

    fn verdict(&self) -> Result<(), DoctorError> {
        if !self.unanswered.is_empty() {
            return Err(DoctorError::Unanswered(self.unanswered.join("; ")));
        }
        let problems = self.findings.iter().filter(|finding| finding.level == Level::Problem);
        match problems.count() {
            0 => Ok(()),
            1 => Err(DoctorError::Problems("1 problem".to_owned())),
            n => Err(DoctorError::Problems(format!("{n} problems"))),
        }
    }
}

/// The first few of many names, for a finding.
#[must_use]
pub fn named(names: &[impl Display]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).map(|name| format!("`{name}`"));
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

/// The findings as a person reads them. On a terminal an overview that fits it, then what
/// to do; elsewhere each once, on lines that a search finds whole.
fn text(findings: &[Finding], is_terminal: bool) -> String {
    let mut text = String::new();
    if is_terminal {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["", "check", "finding"]);
        for finding in findings {
            table.add_row([finding.level.name(), finding.check, &finding.what]);
        }
        text = format!("{table}\n");
    }
    for finding in findings.iter().filter(|found| !is_terminal || found.level != Level::Ok) {
        let Finding { check, level, what, why, fix } = finding;
        let gap = if is_terminal { "\n" } else { "" };
        let mut lines = vec![format!("{gap}{} ({check}): {what}", level.name())];
        lines.extend(why.iter().map(|why| format!("  {why}")));
        // Outside the table, which would break lines that are to be copied.
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
        for is_terminal in [false, true] {
            let text = text(&findings, is_terminal);
            assert!(text.contains(&format!("    {fix}\n")), "{text}");
            let told = "problem (publication): `p` is empty\n  Nothing would";
            assert!(text.contains(told), "{text}");
        }
        let json = serde_json::to_value(&findings).unwrap();
        assert_eq!(json[0]["level"], "ok");
        assert_eq!(json[0]["fix"], serde_json::Value::Null);
        assert_eq!(json[1]["fix"], *fix);
    }

    #[test]
    fn a_finding_is_printed_once_where_nobody_sees_a_terminal() {
        let findings = [
            Finding::ok("wal_level", "logical"),
            Finding::warning("replicas", "one replica", "It may be lost.").fix("more of them"),
        ];
        assert_eq!(
            text(&findings, false),
            "ok (wal_level): logical\nwarning (replicas): one replica\n  It may be lost.\n    more of them\n"
        );
    }

    #[test]
    fn a_side_that_does_not_answer_weighs_more_than_what_the_other_says() {
        let mut report = Report::default();
        report.verdict().unwrap();
        report.extend([Finding::problem("slot", "gone", "why")]);
        let found = report.verdict().unwrap_err();
        assert!(matches!(&found, DoctorError::Problems(text) if text == "1 problem"), "{found}");
        assert_eq!(found.exit(), Exit::Finding);
        report.unanswered("kafka", &std::io::Error::other("refused"));
        let error = report.verdict().unwrap_err();
        assert_eq!(error.exit(), Exit::Failed, "{error}");
        assert!(error.to_string().contains("refused"));
        assert_eq!(report.findings[1].check, "kafka");
    }
}
