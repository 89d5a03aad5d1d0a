//! Why dead letters cannot be dealt with.

use outpour_schemas::program::Exit;

#[derive(Debug, thiserror::Error)]
pub enum DlqError {
    /// Nothing was changed.
    #[error("{0}")]
    Refused(String),
    #[error("another `dlq replay` of the group has begun and taken over; this one has ended")]
    Fenced,
    #[error("interrupted; the same command goes on with the letters that are open")]
    Interrupted,
    #[error("a table has changed meanwhile; start the command again to go on")]
    TableChanged,
}

impl DlqError {
    /// How the command ends.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            DlqError::Refused(_) => Exit::Usage,
            DlqError::Fenced | DlqError::Interrupted | DlqError::TableChanged => Exit::Failed,
        }
    }
}
