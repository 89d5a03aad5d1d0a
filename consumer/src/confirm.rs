//! Asking before something is changed.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use outpour_schemas::program::Exit;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Unconfirmed {
    #[error("--yes is needed where nobody can be asked: {0}")]
    NobodyThere(String),
    #[error("given up by you; nothing was changed")]
    Declined,
}

impl Unconfirmed {
    /// How the command ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Unconfirmed::NobodyThere(_) => Exit::Usage,
            Unconfirmed::Declined => Exit::Failed,
        }
    }
}

/// Asks on the terminal, unless `yes` was said with the command.
///
/// # Errors
/// When the answer is no, or there is no terminal.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<(), Unconfirmed> {
    if yes {
        return Ok(());
    }
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Err(Unconfirmed::NobodyThere(question.to_owned()));
    }
    let mut answer = String::new();
    let asked = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    let heard = asked.and_then(|()| stdin.lock().read_line(&mut answer));
    match (heard, answer.trim().to_lowercase().as_str()) {
        (Ok(_), "y" | "yes") => Ok(()),
        _ => Err(Unconfirmed::Declined),
    }
}
