//! The run-books of docs/operations.md, command by command.

mod clickhouse_down;
mod retention;
mod shell;
mod slot;
mod tables;
mod upgrade;

/// Those that the modules here run.
const RUN: [&str; 8] = [
    "Replay last night",
    "Poison",
    "A wrong column type was deployed",
    "Moving to a new table",
    "ClickHouse is down",
    "The slot is lost",
    "Kafka retention overran",
    "Upgrading with no gap",
];

fn page() -> &'static str {
    let page = include_str!("../../../../docs/operations.md");
    page.split_once("\n# Run-books\n").expect("run-books").1
}

/// The commands of one run-book, as they are printed.
fn commands(title: &str) -> Vec<String> {
    let (_, book) = page().split_once(&format!("\n## {title}\n")).expect(title);
    let book = book.split("\n#").next().unwrap_or(book);
    let commands = book.lines().filter_map(|line| line.strip_prefix("    "));
    let commands: Vec<_> = commands.map(str::to_owned).collect();
    assert!(commands.len() > 1, "{title}: {commands:?}");
    commands
}

/// The same where there are to be so many.
fn steps<const N: usize>(title: &str) -> [String; N] {
    commands(title).try_into().unwrap_or_else(|found| panic!("{title}: {found:#?}"))
}

#[test]
fn no_run_book_stands_there_that_nobody_runs() {
    let titles: Vec<_> = page().lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(titles, RUN);
}
