//! How a command ends: one line and a code.

use std::{error::Error, io::Write, process::ExitCode};

/// What an error means to whoever called the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did not work this time.
    Failed,
    /// The command line or the configuration is wrong: trying again will not help.
    Usage,
    /// A check ran and found something wrong.
    Finding,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Finding => 3,
        })
    }
}

/// Ends `main`: prints an error, with its causes, as one line to standard error.
pub fn finish<E: Error>(result: Result<(), E>, exit: impl Fn(&E) -> Exit) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error_line(&error));
            exit(&error).into()
        }
    }
}

/// Writes to standard output. A reader that has gone away is no error.
///
/// # Errors
/// When the text cannot be written for another reason.
pub fn print(text: &str) -> std::io::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// An error and its causes on one line, leaving out a cause that the text
/// before it quotes already.
pub fn error_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the door")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("the key\nis bent")]
    struct Inner;

    #[test]
    fn an_error_and_its_causes_make_one_line() {
        assert_eq!(error_line(&Outer(Inner)), "cannot open the door: the key is bent");
    }
}
