//! `outpour-relay emit`: JSON lines into the outbox.
//!
//! A file is checked as a whole before its first row is written, so that a
//! mistake in it leaves nothing behind. A stream cannot be read twice: there
//! the error says up to which line everything is committed.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader, Read, Seek},
    path::Path,
};

use outpour_schemas::{Envelope, config::Config};
use tokio_postgres::Client;

use crate::{
    Outbox,
    error::{EmitError, RelayError},
    postgres::Target,
};

/// What became of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Emitted {
    pub(crate) events: u64,
    pub(crate) transactions: u64,
}

/// Writes each line of `file`, or of standard input, as an outbox row,
/// `per_transaction` rows a transaction.
///
/// # Errors
/// Names the input and the line, and says what has been committed before it.
pub(crate) async fn emit(
    config: &Config,
    file: Option<&Path>,
    per_transaction: usize,
) -> Result<Emitted, RelayError> {
    // What could never be published is refused here, where somebody is looking.
    let max_payload = usize::try_from(config.relay.max_record_size.as_u64()).unwrap_or(usize::MAX);
    let (name, mut source): (String, Box<dyn BufRead>) = match file {
        Some(path) => {
            let name = path.display().to_string();
            let read = |source| EmitError::Read { input: name.clone(), source };
            let mut file = File::open(path).map_err(read)?;
            // Only a regular file can be read a second time.
            if file.metadata().map_err(read)?.is_file() {
                check(Lines::new(&name, BufReader::new(&mut file), max_payload))?;
                file.rewind().map_err(read)?;
            }
            (name, Box::new(BufReader::new(file)))
        }
        None => ("standard input".to_owned(), Box::new(BufReader::new(std::io::stdin()))),
    };
    let target = Target::of(&config.postgres)?;
    let mut client = target.connect().await?;
    // Nothing is read: a policy for inserts lets a row in, or says that it does not.
    let policies = client.batch_execute("SET row_security = on").await;
    policies.map_err(target.failed("preparing to write"))?;
    let columns = Columns::ask(&client, &target, config).await?;
    let outbox = Outbox::of_columns(&config.outbox, |column| columns.0.contains(column));
    let mut lines = Lines::new(&name, &mut source, max_payload);
    let mut emitted = Emitted { events: 0, transactions: 0 };
    let mut committed_line = 0;
    loop {
        let mut rows = Vec::new();
        while rows.len() < per_transaction {
            let row = lines.next().transpose();
            let row = row.and_then(|row| match row {
                Some(row) => {
                    columns.take(&row, config).map_err(|why| lines.refuse(why)).map(|()| Some(row))
                }
                None => Ok(None),
            });
            match row {
                Ok(Some(row)) => rows.push(row),
                Ok(None) => break,
                Err(EmitError::Line { input, line, reason, .. }) => {
                    let written = written(committed_line);
                    return Err(EmitError::Line { input, line, reason, written }.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
        if rows.is_empty() {
            break;
        }
        let tx = client.transaction().await.map_err(target.failed("beginning a transaction"))?;
        outbox.append_all(&tx, &rows).await.map_err(|source| EmitError::Write {
            input: name.clone(),
            line: lines.line,
            source,
            written: written(committed_line),
        })?;
        tx.commit().await.map_err(target.failed("committing"))?;
        committed_line = lines.line;
        emitted.events += rows.len() as u64;
        emitted.transactions += 1;
    }
    if emitted.events == 0 {
        return Err(EmitError::Empty { input: name }.into());
    }
    Ok(emitted)
}

/// The columns of the table that a value can be written to.
struct Columns(HashSet<String>);

impl Columns {
    /// # Errors
    /// When there is no such table, or an event cannot do without a column that it
    /// lacks.
    async fn ask(client: &Client, target: &Target, config: &Config) -> Result<Self, RelayError> {
        let outbox = &config.outbox;
        let (schema, table) = outbox.qualified();
        let sql = "SELECT attname::text FROM pg_attribute
                   WHERE attrelid = to_regclass(format('%I.%I', $1::text, $2::text))
                     AND attnum > 0 AND NOT attisdropped
                     AND attgenerated = '' AND attidentity <> 'a'";
        let rows = client.query(sql, &[&schema, &table]).await;
        let rows = rows.map_err(target.failed("reading the table's columns"))?;
        let columns = Columns(rows.iter().map(|row| row.get(0)).collect());
        let needed = [
            ("outbox.column_id", &outbox.column_id),
            ("outbox.column_aggregate_type", &outbox.column_aggregate_type),
            ("outbox.column_aggregate_id", &outbox.column_aggregate_id),
            ("outbox.column_type", &outbox.column_type),
            ("outbox.column_payload", &outbox.column_payload),
        ];
        for (key, column) in needed {
            if !columns.0.contains(column) {
                let (table, column) = (outbox.table.clone(), column.clone());
                return Err(EmitError::NoColumn { table, column, key }.into());
            }
        }
        Ok(columns)
    }

    /// # Errors
    /// When something would be lost of the event: the table has no column for it.
    fn take(&self, event: &Envelope, config: &Config) -> Result<(), String> {
        let outbox = &config.outbox;
        let given = [
            ("occurred_at", &outbox.column_occurred_at, event.occurred_at.is_some()),
            ("schema_version", &outbox.column_schema_version, event.schema_version != 1),
            ("traceparent", &outbox.column_traceparent, event.traceparent.is_some()),
        ];
        let lost = given.iter().find(|(_, column, is)| *is && !self.0.contains(*column));
        lost.map_or(Ok(()), |(field, column, _)| {
            Err(format!("`{field}` is given, and {} has no column `{column}`", outbox.table))
        })
    }
}

fn written(line: u64) -> String {
    match line {
        0 => "; nothing was written".to_owned(),
        line => format!("; the lines up to {line} are committed"),
    }
}

fn check<R: BufRead>(mut lines: Lines<'_, R>) -> Result<(), EmitError> {
    let mut any = false;
    for envelope in &mut lines {
        envelope?;
        any = true;
    }
    if any { Ok(()) } else { Err(EmitError::Empty { input: lines.name.to_owned() }) }
}

/// Envelopes, one a line; blank lines are passed over.
struct Lines<'a, R> {
    name: &'a str,
    source: R,
    max_payload: usize,
    /// The line read last, from 1.
    line: u64,
    buffer: Vec<u8>,
}

/// What a line may hold besides its payload.
const MAX_FIELDS_BYTES: usize = 64 * 1024;

impl<'a, R: BufRead> Lines<'a, R> {
    fn new(name: &'a str, source: R, max_payload: usize) -> Self {
        Lines { name, source, max_payload, line: 0, buffer: Vec::new() }
    }

    fn refuse(&self, reason: impl ToString) -> EmitError {
        EmitError::Line {
            input: self.name.to_owned(),
            line: self.line,
            reason: reason.to_string(),
            written: written(0),
        }
    }

    /// Reads a line, never more of it than could be accepted.
    fn read(&mut self) -> Result<bool, EmitError> {
        let limit = self.max_payload.saturating_add(MAX_FIELDS_BYTES);
        self.buffer.clear();
        self.line += 1;
        let mut bounded = (&mut self.source).take(limit as u64 + 1);
        bounded
            .read_until(b'\n', &mut self.buffer)
            .map_err(|source| EmitError::Read { input: self.name.to_owned(), source })?;
        // Some editors begin a file with it.
        if self.line == 1 && self.buffer.starts_with("\u{feff}".as_bytes()) {
            self.buffer.drain(..'\u{feff}'.len_utf8());
        }
        if self.buffer.len() > limit {
            return Err(self.refuse(format!(
                "longer than {limit} bytes; relay.max_record_size allows payloads of {} bytes",
                self.max_payload
            )));
        }
        Ok(!self.buffer.is_empty())
    }

    fn parse(&self) -> Result<Envelope, EmitError> {
        let text = std::str::from_utf8(&self.buffer).map_err(|error| {
            self.refuse(format!("invalid UTF-8 at byte {}", error.valid_up_to() + 1))
        })?;
        if text.trim_start().starts_with('[') {
            return Err(self.refuse(
                "a JSON array; expected one JSON object a line, which `jq -c '.[]'` makes of it",
            ));
        }
        let envelope: Envelope = serde_json::from_str(text).map_err(|error| {
            // The parser counts lines of its own input, which is one line.
            let reason = error.to_string();
            let reason = reason.split(" at line ").next().unwrap_or(&reason).to_owned();
            self.refuse(format!("{reason} (column {})", error.column()))
        })?;
        envelope.validate().map_err(|error| self.refuse(error))?;
        let payload = envelope.payload_text().map_or(0, str::len);
        if payload > self.max_payload {
            return Err(self.refuse(format!(
                "the payload has {payload} bytes, relay.max_record_size allows {}",
                self.max_payload
            )));
        }
        Ok(envelope)
    }
}

impl<R: BufRead> Iterator for Lines<'_, R> {
    type Item = Result<Envelope, EmitError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.read() {
                Ok(true) if self.buffer.trim_ascii().is_empty() => {}
                Ok(true) => return Some(self.parse()),
                Ok(false) => {
                    self.line -= 1;
                    return None;
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"aggregatetype":"o","aggregateid":"1","type":"t","payload":{}}"#;

    fn verdict(input: &[u8]) -> Result<(), String> {
        check(Lines::new("in.jsonl", input, 1000)).map_err(|error| error.to_string())
    }

    #[test]
    fn good_lines_and_blank_ones_pass() {
        verdict(format!("{GOOD}\n\n{GOOD}").as_bytes()).unwrap();
        verdict(format!("\u{feff}{GOOD}\r\n{GOOD}").as_bytes()).unwrap();
        // Once, where a file begins.
        assert!(verdict(format!("{GOOD}\n\u{feff}{GOOD}").as_bytes()).is_err());
    }

    #[test]
    fn every_bad_line_is_named_with_its_number_and_reason() {
        let big = format!(
            r#"{{"aggregatetype":"o","aggregateid":"1","type":"t","payload":"{}"}}"#,
            "x".repeat(1000)
        );
        let cases: &[(&[u8], &[&str])] = &[
            (b"", &["in.jsonl is empty"]),
            (b"\n \n", &["in.jsonl is empty"]),
            (b"{", &["line 1", "EOF"]),
            (b" [{}, {}]", &["line 1", "a JSON array", "jq -c '.[]'"]),
            (b"[\n{}\n]", &["line 1", "a JSON array"]),
            (b"\xef\xbb\xbf", &["in.jsonl is empty"]),
            (br#"{"aggregatetype":"o","type":"t"}"#, &["line 1", "aggregateid"]),
            (
                br#"{"aggregatetype":"","aggregateid":"1","type":"t"}"#,
                &["line 1", "`aggregatetype` is empty"],
            ),
            (b"{\"aggregatetype\":\"\xff\"}", &["line 1", "UTF-8", "byte 19"]),
            (big.as_bytes(), &["line 1", "1002 bytes", "relay.max_record_size"]),
        ];
        for (input, parts) in cases {
            let error = verdict(input).unwrap_err();
            for part in *parts {
                assert!(error.contains(part), "`{error}` should say `{part}`");
            }
            assert_eq!(error.lines().count(), 1);
        }
        let second = format!("{GOOD}\nnonsense\n");
        assert!(verdict(second.as_bytes()).unwrap_err().contains("line 2"));
    }

    #[test]
    fn a_line_without_end_is_not_read_into_memory() {
        let endless = std::io::BufReader::new(std::io::repeat(b'x'));
        let mut lines = Lines::new("in", endless, 1000);
        let error = lines.next().unwrap().unwrap_err().to_string();
        assert!(error.contains("longer than"), "{error}");
        assert!(lines.buffer.len() <= 1001 + MAX_FIELDS_BYTES);
    }
}
