//! Asking before something is changed.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    No,
    /// There is no terminal, and nobody has said yes beforehand.
    NobodyThere,
}

/// Asks on the terminal, unless `yes` was said with the command.
pub(crate) fn confirm(question: &str, yes: bool) -> Answer {
    if yes {
        return Answer::Yes;
    }
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Answer::NobodyThere;
    }
    let mut answer = String::new();
    let asked = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    let heard = asked.and_then(|()| stdin.lock().read_line(&mut answer));
    match (heard, answer.trim().to_lowercase().as_str()) {
        (Ok(_), "y" | "yes") => Answer::Yes,
        _ => Answer::No,
    }
}
