//! What a running program is at.

/// By which probes and metrics know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not yet at work for the first time.
    Starting,
    /// Others have all the work, and it takes over when they are gone.
    Standby,
    /// At work, or waiting for some.
    Active,
    /// Between a session that failed and the next one.
    Retrying,
}

impl State {
    pub const ALL: [State; 4] = [State::Starting, State::Standby, State::Active, State::Retrying];

    /// As many sessions in a row have to fail before somebody should look.
    pub const REPEATEDLY: u32 = 3;

    /// A stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Standby => "standby",
            State::Active => "active",
            State::Retrying => "retrying",
        }
    }
}
