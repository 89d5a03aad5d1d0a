//! Why a replay does not come to its end.

use outpour_schemas::program::Exit;

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Nothing was changed.
    #[error("{0}")]
    Refused(String),
    #[error("interrupted at {done} of {all} offsets; the same command goes on from there")]
    Interrupted { done: i64, all: i64 },
    #[error("interrupted between two steps; the same command goes on from there")]
    Paused,
    #[error("{0}")]
    Unequal(String),
    #[error("{0}")]
    Stuck(String),
}

impl ReplayError {
    pub(crate) fn refused(text: impl Into<String>) -> Self {
        ReplayError::Refused(text.into())
    }

    /// How the command ends.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            ReplayError::Refused(_) => Exit::Usage,
            ReplayError::Unequal(_) => Exit::Finding,
            ReplayError::Interrupted { .. } | ReplayError::Paused | ReplayError::Stuck(_) => {
                Exit::Failed
            }
        }
    }
}
