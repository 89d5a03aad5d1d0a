//! The relay and two consumers of one group, as the processes they are.

use std::fs;

use anyhow::{Result, bail};

use super::counters::Standstill;
use crate::{
    place::Place,
    program::{Binary, Program},
};

/// `init` of both, each of which tells what is wrong.
pub(super) async fn init(place: &Place) -> Result<()> {
    for binary in [Binary::Relay, Binary::Consumer] {
        let output = binary.output(&place.config(), &["init"]).await?;
        let said = [output.stdout, output.stderr].concat();
        if !output.status.success() {
            bail!("{} init failed: {}", binary.name(), String::from_utf8_lossy(&said).trim());
        }
        fs::write(place.log(&format!("{}-init", binary.name())), said)?;
    }
    Ok(())
}

/// All three. Dropping them kills them.
pub(super) struct Programs {
    relay: Program,
    consumers: [Program; 2],
}

impl Programs {
    pub(super) fn start(place: &Place) -> Result<Self> {
        let start = |binary: Binary, name: &str| {
            let log = place.log(name);
            // What an earlier run said is not this one's.
            if log.exists() {
                fs::remove_file(&log)?;
            }
            binary.start(&place.config(), &log, &[])
        };
        let programs = Self {
            relay: start(Binary::Relay, "relay")?,
            consumers: [
                start(Binary::Consumer, "consumer-1")?,
                start(Binary::Consumer, "consumer-2")?,
            ],
        };
        let all = std::iter::once(&programs.relay).chain(&programs.consumers);
        place.record_programs(&all.filter_map(Program::id).collect::<Vec<_>>())?;
        Ok(programs)
    }

    /// Fails if one has ended that nobody has told to.
    pub(super) fn check(&mut self) -> Result<()> {
        std::iter::once(&mut self.relay).chain(&mut self.consumers).try_for_each(Program::check)
    }

    /// What those say that stand still.
    pub(super) fn last_words(&self, of: Standstill) -> String {
        let words: Vec<_> = match of {
            Standstill::Feed => Vec::new(),
            Standstill::Relay => vec![self.relay.last_words()],
            Standstill::Consumers => self.consumers.iter().map(Program::last_words).collect(),
        };
        words.join("\n")
    }

    /// Ends them orderly. The consumers last: they have the shorter way left.
    pub(super) async fn stop(self) -> Result<()> {
        let [first, second] = self.consumers;
        self.relay.stop().await?;
        tokio::try_join!(first.stop(), second.stop())?;
        Ok(())
    }
}
