//! What ClickHouse's answers mean.
//!
//! The codes are those of ClickHouse's `ErrorCodes.cpp`; the grouping is ours. A code
//! says what to expect and never decides what becomes of a row: an expression of the
//! table may throw any of them. That is for the server to answer, see `inquiry.rs`.

use std::fmt;

use outpour_schemas::program::error_line;

use crate::statement::TABLE_HAS_CHANGED;

/// What has to happen before the same insert can work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Nothing but time.
    Transient,
    /// Something in one of the rows, or in several.
    Data,
    /// The code alone does not tell: the server has to be asked.
    Unclear,
    /// The table is not what it was: read it again, encode again.
    SchemaDrift,
    /// Somebody has to change the table, a setting or a privilege.
    Configuration,
}

impl Class {
    /// A stable name for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Transient => "transient",
            Class::Data => "data",
            Class::Unclear => "unclear",
            Class::SchemaDrift => "schema_drift",
            Class::Configuration => "configuration",
        }
    }
}

const ROW_POLICY: &str = "a row policy";

/// An insert or a query that failed.
#[derive(Debug)]
pub struct SinkError {
    /// ClickHouse's error code, if the server answered with one.
    pub code: Option<u32>,
    /// On one line and without a stack trace.
    pub message: String,
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SinkError {}

impl SinkError {
    pub(crate) fn timed_out(seconds: u64) -> Self {
        SinkError { code: None, message: format!("no answer within {seconds} s") }
    }

    /// Which row of its block was refused, the first being 1, if ClickHouse says so: it
    /// does for constraints.
    pub(crate) fn refused_row(&self) -> Option<usize> {
        let (_, behind) = self.message.split_once(" is violated at row ")?;
        let digits = behind.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    }

    /// A table of which the user sees a part: as if it were not allowed to be read.
    pub(crate) fn hidden_rows(table: &str, filter: &str) -> Self {
        const ACCESS_DENIED: u32 = 497;
        let message = format!(
            "{ROW_POLICY} hides rows of table {table} from this user ({filter}): what is missing \
             there cannot be told from what is hidden. Exempt the user: ALTER ROW POLICY … TO ALL \
             EXCEPT …, or give it one USING 1"
        );
        SinkError { code: Some(ACCESS_DENIED), message }
    }

    pub(crate) fn is_of_hidden_rows(&self) -> bool {
        self.message.starts_with(ROW_POLICY)
    }

    /// The privilege that ClickHouse says is lacking.
    pub(crate) fn lacking_grant(&self) -> Option<&str> {
        let (_, grant) = self.message.split_once("it's necessary to have the grant ")?;
        Some(grant.split(". (").next().unwrap_or(grant).trim_end_matches('.'))
    }

    /// Whether that is what the server says: a value that it quotes may hold anything.
    fn says(&self, text: &str) -> bool {
        self.message.split_once("DB::Exception: ").is_some_and(|(_, said)| said.starts_with(text))
    }

    /// Whether the server is another version than the one that was asked what it knows, or
    /// has other rules for the user by now.
    pub(super) fn is_of_settings(&self) -> bool {
        /// `UNKNOWN_SETTING`, `READONLY`, `SETTING_CONSTRAINT_VIOLATION`.
        const OF_SETTINGS: [u32; 3] = [115, 164, 452];
        self.code.is_some_and(|code| OF_SETTINGS.contains(&code))
    }

    /// Whether the code tells of a value, whatever else may be wrong with the table. A row
    /// that is refused with another is only parked where the table takes others.
    pub(crate) fn is_of_a_value(&self) -> bool {
        self.code.is_some_and(|code| is_data(code) || is_arithmetic(code))
    }

    /// What the code lets expect.
    #[must_use]
    pub fn class(&self) -> Class {
        let Some(code) = self.code else { return Class::Transient };
        match code {
            395 if self.says(TABLE_HAS_CHANGED) => Class::SchemaDrift,
            // Too many parts passes, too many partitions does not.
            252 if self.message.contains("Too many partitions") => Class::Configuration,
            code if is_transient(code) => Class::Transient,
            _ if self.is_of_a_view() => Class::Configuration,
            code if is_data(code) => Class::Data,
            // The table, its constraints, privileges, limits.
            60 | 81 | 115 | 164 | 192..=195 | 218 | 291 | 344 | 452 | 497 | 516 | 774 => {
                Class::Configuration
            }
            _ => Class::Unclear,
        }
    }

    /// Whether a materialised view threw it. The rows are in the table by then; the view
    /// gets them with the same token once somebody has mended it, and would not by any
    /// other.
    pub(crate) fn is_of_a_view(&self) -> bool {
        // The last that is said, after what may quote a value.
        let (_, behind) = self.message.rsplit_once(": while pushing to view ").unwrap_or_default();
        !behind.is_empty() && !behind.contains('\'')
    }

    /// Whether the insert may still be stored after this.
    pub(crate) fn leaves_it_open(&self) -> bool {
        const UNKNOWN_STATUS_OF_INSERT: u32 = 319;
        matches!(self.code, None | Some(UNKNOWN_STATUS_OF_INSERT))
    }

    /// Whether it is about the server, or the way to it, and not about what was
    /// asked: another replica may well do what this one did not.
    pub(crate) fn is_of_the_server(&self) -> bool {
        let Some(code) = self.code else {
            // Refused, broken off, silent, or a proxy's answer in the server's place.
            return true;
        };
        matches!(
            code,
            // The network between servers, and time-outs on it.
            3 | 159 | 198 | 203 | 209 | 210 | 279
            // More than it can do, or no disk left.
            | 202 | 243 | 439 | 745 | 749 | 762
            // Shutting down, starting, or what was done is not known.
            | 236 | 319 | 394 | 733
            // Without Keeper, and so read-only.
            | 225 | 242 | 244 | 999
            // Anything that its operating system or a library of its own threw.
            | 425 | 499 | 1000..=1002
        )
    }
}

/// Networks, time-outs, overload, memory, too many parts, no disk, no Keeper: the state
/// that a server is in.
fn is_transient(code: u32) -> bool {
    matches!(
        code,
        3 | 159
            | 198
            | 201..=203
            | 209
            | 210
            | 225
            | 236
            | 241..=244
            | 252
            | 254
            | 265
            | 279
            | 285
            | 286
            | 289
            | 297
            | 319
            | 364
            | 373
            | 394
            | 425
            | 439
            | 473
            | 499
            | 574
            | 692
            | 733..=735
            | 745
            | 749
            | 762
            | 999
            | 1000
    )
}

/// Text, numbers and times that do not parse or fit, columns of a Nested that are
/// not of one length, constraints, `throwIf`.
fn is_data(code: u32) -> bool {
    matches!(
        code,
        6 | 26
            | 27
            | 38
            | 41
            | 53
            | 69
            | 70
            | 72
            | 117
            | 130
            | 190
            | 321
            | 349
            | 376
            | 395
            | 407
            | 441
            | 467
            | 469
            | 563
            | 632
            | 675
            | 676
            | 691
    )
}

/// What functions throw for their arguments: ends of input, bad ones, strings that are too
/// long, divisions by zero, sizes, expressions that do not compile.
fn is_arithmetic(code: u32) -> bool {
    matches!(code, 32 | 36 | 131 | 135 | 153 | 427 | 454)
}

impl From<clickhouse::error::Error> for SinkError {
    fn from(error: clickhouse::error::Error) -> Self {
        let text = error_line(&error);
        let text = text.strip_prefix("bad response: ").unwrap_or(&text);
        let text = text.split("Stack trace:").next().unwrap_or(text);
        SinkError { code: code(text), message: text.trim_end().to_owned() }
    }
}

/// The number in `Code: 60. DB::Exception: …`.
fn code(text: &str) -> Option<u32> {
    let rest = &text[text.find("Code: ")? + "Code: ".len()..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(message: &str) -> Class {
        SinkError { code: code(message), message: message.to_owned() }.class()
    }

    #[test]
    fn the_code_in_the_answer_decides() {
        let unknown_table = "Code: 60. DB::Exception: Table default.x does not exist";
        assert_eq!(class(unknown_table), Class::Configuration);
        assert_eq!(class("Code: 16. DB::Exception: No such column"), Class::Unclear);
        assert_eq!(class("Code: 153. DB::Exception: Division by zero"), Class::Unclear);
        assert_eq!(class("Code: 241. DB::Exception: Memory limit exceeded"), Class::Transient);
        assert_eq!(class("connection refused"), Class::Transient);
        let constraint =
            "Code: 469. DB::Exception: Constraint `c` for table t is violated at row 2";
        assert_eq!(class(constraint), Class::Data);
        let row = |message: &str| SinkError { code: None, message: message.into() }.refused_row();
        assert_eq!(row(constraint), Some(2));
        assert_eq!(row("`c` is violated at row 31. Expression: (n < 5)"), Some(31));
        assert_eq!(row("is violated at row x"), None);
        assert_eq!(row("Cannot parse JSON object at row 3"), None);
        let nested = "Code: 190. DB::Exception: Elements 'n.x' and 'n.y' of Nested data structure";
        assert_eq!(class(nested), Class::Data);
        let view = "Code: 395. DB::Exception: Value is not zero: while pushing to view db.v (1-2)";
        assert_eq!(class(view), Class::Configuration);
        let view = "Code: 153. DB::Exception: Division by zero: while pushing to view db.v (1-2)";
        assert_eq!(class(view), Class::Configuration);
        let value = "Code: 469. DB::Exception: Constraint `c` for table t is violated at row 1. \
                     Column values: s = 'x: while pushing to view y'. (VIOLATED_CONSTRAINT)";
        assert_eq!(class(value), Class::Data);
        let memory = "Code: 241. DB::Exception: Memory limit exceeded: while pushing to view db.v";
        assert_eq!(class(memory), Class::Transient);
    }

    #[test]
    fn too_many_parts_passes_and_too_many_partitions_does_not() {
        let parts = "Code: 252. DB::Exception: Too many parts (300)";
        let total = "Code: 252. DB::Exception: Too many parts (100000) in all partitions in total";
        let partitions = "Code: 252. DB::Exception: Too many partitions for single INSERT block";
        assert_eq!(class(parts), Class::Transient);
        assert_eq!(class(total), Class::Transient);
        assert_eq!(class(partitions), Class::Configuration);
    }

    #[test]
    fn what_is_about_the_server_is_told_from_what_is_about_the_insert() {
        let is_of_the_server =
            |text: &str| SinkError { code: code(text), message: text.into() }.is_of_the_server();
        for text in [
            "network error: client error (Connect): tcp connect error: Connection refused",
            "no answer within 60 s",
            "503 Service Unavailable",
            "Code: 242. DB::Exception: Table is in readonly mode (TABLE_IS_READ_ONLY)",
            "Code: 999. Coordination::Exception: Session expired",
            "Code: 319. DB::Exception: Unknown status, client must retry",
        ] {
            assert!(is_of_the_server(text), "{text}");
        }
        for text in [
            "Code: 252. DB::Exception: Too many parts (300)",
            "Code: 241. DB::Exception: Memory limit (for query) exceeded",
            "Code: 285. DB::Exception: Number of alive replicas (1) is less than requested quorum",
            "Code: 60. DB::Exception: Table default.x does not exist",
            "Code: 516. DB::Exception: Authentication failed",
        ] {
            assert!(!is_of_the_server(text), "{text}");
        }
    }

    #[test]
    fn an_answer_becomes_one_line() {
        let error = clickhouse::error::Error::BadResponse(
            "Code: 60. DB::Exception: no\n table. Stack trace:\n0. x".into(),
        );
        let error = SinkError::from(error);
        assert_eq!(error.code, Some(60));
        assert_eq!(error.to_string(), "Code: 60. DB::Exception: no table.");
    }
}
