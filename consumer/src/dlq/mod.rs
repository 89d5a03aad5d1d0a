//! Dead letters: listed, shown, and sent through again.
//!
//! ```text
//! dead-letter topics ─▶ read.rs ─▶ letters, less what marks have settled ─▶ list.rs, show.rs
//!         ▲                                    │
//!         └── store.rs: marks, new letters ◀── send.rs: the present routes ─▶ ClickHouse
//! ```
//!
//! A letter is never changed or removed. What became of it stands in a mark, a
//! record behind it in the same partition, which holds nothing that a letter has.

mod args;
mod error;
mod letter;
mod list;
pub(crate) mod read;
mod send;
mod show;
mod store;
mod windows;

use std::{io::IsTerminal as _, sync::Arc};

use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use indicatif::ProgressBar;
use jiff::Timestamp;
use outpour_schemas::{config::Config, program::error_line};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use self::{args::DlqCommand, error::DlqError};
use self::{
    args::{ListArgs, Selection, SendArgs, ShowArgs},
    letter::Letter,
    read::Letters,
    send::{Came, Routes, Sender},
    store::Store,
};
use crate::{
    confirm::confirm,
    error::ConsumerError,
    replay::blocking,
    sink::ClickHouse,
    source::{Subscription, reader::TopicReader},
    tables,
};

/// # Errors
/// When something keeps it from being done; what is refused changes nothing.
pub(crate) async fn run(
    config: &Config,
    command: DlqCommand,
    stop: &CancellationToken,
) -> Result<String, ConsumerError> {
    match command {
        DlqCommand::List(args) => list(config, &args).await,
        DlqCommand::Show(args) => show(config, args).await,
        DlqCommand::Replay(args) => replay(config, &args, stop).await,
    }
}

async fn connect(config: &Config) -> Result<Arc<TopicReader>, ConsumerError> {
    let config = config.clone();
    blocking(move || Ok(Arc::new(TopicReader::connect(&config)?))).await
}

/// How much of letters is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// Why they are there.
    Reasons,
    /// What tells their route, too.
    Headers,
    All,
}

/// The letters that are selected, topic by topic.
async fn letters(
    config: &Config,
    reader: &Arc<TopicReader>,
    selection: &Selection,
    keep: Keep,
) -> Result<Vec<Letters>, ConsumerError> {
    let (reader, selection) = (Arc::clone(reader), selection.clone());
    let own = Subscription::of(&config.consumer.topics);
    blocking(move || {
        let mut sources = read::sources(&reader)?;
        if let Some(topic) = &selection.topic {
            sources.retain(|source| source == topic);
            if sources.is_empty() {
                let none = format!("--topic {topic}: nothing of such a topic was ever parked");
                return Err(DlqError::Refused(none).into());
            }
        }
        if !selection.ids.is_empty() {
            sources.retain(|source| selection.ids.iter().any(|id| *id.topic == **source));
        } else if selection.topic.is_none() {
            // Others have their dead letters in the same cluster, with other routes.
            sources.retain(|source| own.takes(source));
        }
        let of = |source: &String| {
            read::read(&reader, source, |letter| {
                if keep != Keep::All {
                    (letter.key, letter.value) = (None, None);
                }
                if keep == Keep::Reasons {
                    letter.headers = Vec::new();
                }
                selection.takes(letter)
            })
        };
        sources.iter().map(of).collect()
    })
    .await
}

fn json<T: Serialize>(value: &T) -> Result<String, ConsumerError> {
    Ok(format!("{}\n", serde_json::to_string(value).map_err(std::io::Error::from)?))
}

async fn list(config: &Config, args: &ListArgs) -> Result<String, ConsumerError> {
    let selection = args.selection.at(&config.clickhouse.database, Timestamp::now())?;
    let found = letters(config, &connect(config).await?, &selection, Keep::Reasons).await?;
    if args.letters {
        let lines = list::lines(&found, args.all);
        return if args.json {
            json(&lines)
        } else {
            text(&list::table_of_lines(&lines), lines.len())
        };
    }
    let groups = list::groups(&found, args.all);
    if args.json {
        json(&groups)
    } else {
        text(&list::table_of_groups(&groups, args.all), groups.len())
    }
}

fn text(table: &Table, rows: usize) -> Result<String, ConsumerError> {
    Ok(if rows == 0 { "no letter is open\n".to_owned() } else { format!("{table}\n") })
}

async fn show(config: &Config, args: ShowArgs) -> Result<String, ConsumerError> {
    let selection = Selection { ids: vec![args.id.clone()], ..Selection::default() };
    let found = letters(config, &connect(config).await?, &selection, Keep::All).await?;
    let letter = found.iter().find_map(|letters| Some((letters, letters.letters.first()?)));
    let (letters, letter) = letter.ok_or_else(|| {
        DlqError::Refused(format!(
            "there is no letter {}; `outpour-consumer dlq list --letters --all` has their IDs",
            args.id
        ))
    })?;
    let state = list::state(letters, letter);
    if args.json { json(&show::json(letter, state)) } else { Ok(show::readable(letter, state)) }
}

/// What `dlq replay --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    /// `done`, `nothing` or `dry_run`.
    state: &'static str,
    /// Letters that were or would be sent.
    letters: usize,
    /// Whose rows are in their tables.
    replayed: usize,
    /// That did not fit again, by what keeps them from it.
    again: Vec<Again>,
    /// That no route takes; they are left as they are.
    without_route: usize,
}

#[derive(Debug, Serialize)]
struct Again {
    reason: String,
    column: String,
    letters: usize,
}

impl Report {
    fn of(state: &'static str, came: Came, without_route: usize) -> Self {
        let letters = came.letters();
        let again = |((reason, column), letters)| Again { reason, column, letters };
        let replayed = came.replayed;
        let again = came.again.into_iter().map(again).collect();
        Report { state, letters, replayed, again, without_route }
    }

    fn text(&self) -> String {
        let would = if self.state == "dry_run" { "would " } else { "" };
        let mut lines = match self.state {
            "nothing" => vec!["no letter is open that is selected; nothing was done".to_owned()],
            _ => vec![format!(
                "{} letters: {} {would}fit, {} {would}not",
                self.letters,
                self.replayed,
                self.letters - self.replayed
            )],
        };
        if !self.again.is_empty() {
            let mut table = Table::new();
            table.load_style(UTF8_BORDERS_ONLY).set_header(["reason", "column", "letters"]);
            for again in &self.again {
                let letters = again.letters.to_string();
                table.add_row([again.reason.clone(), again.column.clone(), letters]);
            }
            lines.push(table.to_string());
        }
        if self.without_route > 0 {
            lines.push(format!(
                "{} letters have no route into their table any more; they stay as they are",
                self.without_route
            ));
        }
        lines.join("\n") + "\n"
    }
}

async fn replay(
    config: &Config,
    args: &SendArgs,
    stop: &CancellationToken,
) -> Result<String, ConsumerError> {
    let selection = args.selection.at(&config.clickhouse.database, Timestamp::now())?;
    let selection = Selection { ids: args.ids.clone(), ..selection };
    let reader = connect(config).await?;
    let clickhouse = ClickHouse::new(&config.clickhouse)?;
    let joined = tables::join(config, &tables::find(config, &clickhouse).await?);
    let routes = Routes { joined, environment: config.consumer.environment.clone() };
    let found = letters(config, &reader, &selection, Keep::Headers).await?;
    are_open(&args.ids, &found)?;
    let (sent, without_route) = sendable(&routes, &found)?;
    let print = |report: Report| if args.json { json(&report) } else { Ok(report.text()) };
    if sent.is_empty() {
        return print(Report::of("nothing", Came::default(), without_route));
    }
    if args.dry_run {
        let mut came = Came::default();
        for window in windows::windows(&sent) {
            let whole = windows::fetch(&reader, window).await?;
            came.add(routes.would(&whole.iter().collect::<Vec<_>>()));
        }
        return print(Report::of("dry_run", came, without_route));
    }
    let question = format!("Send {} letters through the present routes?", sent.len());
    confirm(&question, args.yes)?;
    let settings = config.clone();
    let store = blocking(move || Store::open(&settings)).await?;
    // Whoever wrote marks before writes none from now on: only now is known what is open.
    let found = letters(config, &reader, &selection, Keep::Headers).await?;
    let (sent, without_route) = sendable(&routes, &found)?;
    let asked = Arc::clone(&reader);
    let cluster = blocking(move || Ok(asked.cluster())).await?;
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(sent.len() as u64),
        false => ProgressBar::hidden(),
    };
    let sender =
        Sender { routes: &routes, clickhouse: &clickhouse, store: &store, cluster: &cluster, stop };
    let mut came = Came::default();
    for window in windows::windows(&sent) {
        let whole = windows::fetch(&reader, window).await?;
        came.add(sender.send(&whole.iter().collect::<Vec<_>>()).await?);
        bar.set_position(came.letters() as u64);
    }
    bar.finish_and_clear();
    print(Report::of("done", came, without_route))
}

/// # Errors
/// Names a letter that is not there, or is settled.
fn are_open(ids: &[letter::LetterId], found: &[Letters]) -> Result<(), DlqError> {
    for id in ids {
        let is_there = |letters: &&Letters| letters.letters.iter().any(|letter| letter.id == *id);
        let why = match found.iter().find(is_there) {
            None => "there is no such letter".to_owned(),
            Some(letters) => match letters.settled.get(id) {
                None => continue,
                Some(outcome) => format!("it was {} before", outcome.name()),
            },
        };
        return Err(DlqError::Refused(format!("letter {id}: {why}")));
    }
    Ok(())
}

/// The open letters that a route takes, and how many none does.
///
/// # Errors
/// When a table cannot be written to, or cannot tell what it has.
fn sendable<'l>(
    routes: &Routes,
    found: &'l [Letters],
) -> Result<(Vec<&'l Letter>, usize), DlqError> {
    let (mut sent, mut without_route) = (Vec::new(), 0);
    for letter in found.iter().flat_map(Letters::open) {
        if let Some(held) = routes.held_back(letter) {
            return Err(DlqError::Refused(format!(
                "{}. Select letters of other tables with --table",
                error_line(&held.error)
            )));
        }
        let taken = routes.of(letter);
        if let Some(mapping) = taken.iter().find(|mapping| !mapping.has_provenance()) {
            return Err(DlqError::Refused(format!(
                "table {} lacks `_topic`, `_partition` or `_offset`, by which it is known what it \
                 has: a letter that went through could not be told from one that did not. Select \
                 letters of other tables with --table",
                mapping.table
            )));
        }
        match taken.is_empty() {
            true => without_route += 1,
            false => sent.push(letter),
        }
    }
    Ok((sent, without_route))
}
