//! The options of `outpour-consumer replay`.

use clap::{ArgGroup, Args};

use super::{error::ReplayError, terms::Selection};
use crate::source::Position;

#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("target").required(true)))]
pub struct ReplayArgs {
    /// The topic to read again
    #[arg(long)]
    pub(super) topic: String,
    /// The first record: beginning, an offset, a time such as 2026-01-31T22:00:00Z,
    /// or one before now such as -6h or -2d
    #[arg(long, value_name = "WHERE", default_value = "beginning", allow_hyphen_values = true)]
    pub(super) from: Position,
    /// Where it ends: the first record that is not read again; now is where the
    /// topic ends when the command is first started
    #[arg(long, value_name = "WHERE", default_value = "now", allow_hyphen_values = true)]
    pub(super) to: Position,
    /// Into the tables that the topic goes to: adds the rows that are not there
    #[arg(long, group = "target")]
    pub(super) live: bool,
    /// Into another table, which is made like the live one if it does not exist
    #[arg(long, value_name = "TABLE", group = "target")]
    pub(super) into: Option<String>,
    /// Fill a table like the live one with the whole topic, check it, and exchange
    /// the two while consumers go on
    #[arg(long, group = "target")]
    pub(super) swap: bool,
    /// Which of its tables, if the topic goes to several
    #[arg(long)]
    pub(super) table: Option<String>,
    /// Only this partition; may be given several times
    #[arg(long = "partition", value_name = "N")]
    pub(super) partitions: Vec<i32>,
    /// Only records of this key; may be given several times
    #[arg(long = "key", value_name = "KEY")]
    pub(super) keys: Vec<String>,
    /// Only events of this type; may be given several times
    #[arg(long = "event-type", value_name = "TYPE")]
    pub(super) event_types: Vec<String>,
    /// Tell what would be done, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
    /// Begin anew, whatever an earlier replay to the same target has done
    #[arg(long)]
    pub(super) restart: bool,
    /// With --swap: drop the old table in the end
    #[arg(long)]
    pub(super) drop_old: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl ReplayArgs {
    /// # Errors
    /// Names the options that make no sense together.
    pub(super) fn check(&self) -> Result<(), ReplayError> {
        let refused = |text: &str| Err(ReplayError::refused(text));
        if matches!(self.from, Position::Now) {
            return refused("--from now: there is nothing to read again");
        }
        if matches!(self.to, Position::Beginning) {
            return refused("--to beginning: there is nothing to read again");
        }
        if let (Position::Offset(from), Position::Offset(to)) = (self.from, self.to)
            && from >= to
        {
            return refused("--from is not before --to; the offset of --to is not read any more");
        }
        if self.drop_old && !self.swap {
            return refused("--drop-old goes with --swap, which alone leaves an old table");
        }
        let is_whole =
            (self.from, self.to) == (Position::Beginning, Position::Now) && !self.is_partial();
        if self.swap && !is_whole {
            return refused(
                "--swap takes the whole topic: it does not go with --from, --to, --partition, \
                 --key or --event-type. Use --live or --into for a part",
            );
        }
        Ok(())
    }

    fn is_partial(&self) -> bool {
        !self.partitions.is_empty() || self.selection().is_partial()
    }

    pub(super) fn selection(&self) -> Selection {
        Selection {
            keys: self.keys.clone(),
            event_types: self.event_types.clone(),
            ..Selection::default()
        }
    }

    /// What is asked for, whatever order it is named in and however it is to be told.
    pub(super) fn asked_for(&self) -> String {
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort_unstable();
            names
        };
        let mut partitions = self.partitions.clone();
        partitions.sort_unstable();
        format!(
            "{:?} {:?} {partitions:?} {:?} {:?} {:?}",
            self.from,
            self.to,
            sorted(&self.keys),
            sorted(&self.event_types),
            self.table
        )
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: ReplayArgs,
    }

    fn args(line: &str) -> Result<ReplayArgs, String> {
        let words = ["replay", "--topic", "t"].into_iter().chain(line.split_whitespace());
        let args = Line::try_parse_from(words).map_err(|error| error.to_string())?.args;
        args.check().map_err(|error| error.to_string())?;
        Ok(args)
    }

    #[test]
    fn what_makes_no_sense_together_is_refused() {
        for (line, why) in [
            ("", "required"),
            ("--live --swap", "cannot be used with"),
            ("--live --into x", "cannot be used with"),
            ("--live --from now", "nothing to read"),
            ("--live --to beginning", "nothing to read"),
            ("--live --from 5 --to 5", "not before"),
            ("--swap --from -6h", "whole topic"),
            ("--swap --partition 1", "whole topic"),
            ("--swap --key a", "whole topic"),
            ("--live --drop-old", "goes with --swap"),
            ("--live --from yesterday", "neither beginning"),
        ] {
            let refused = args(line).unwrap_err();
            assert!(refused.contains(why), "{line}: {refused}");
        }
    }

    #[test]
    fn the_same_request_is_known_again_and_another_is_not() {
        let of = |line: &str| args(line).unwrap().asked_for();
        assert_eq!(of("--live --key a --key b"), of("--yes --key b --live --key a --json"));
        assert_eq!(of("--live --from -6h"), of("--live --from -360m"));
        let distinct = [
            "--live",
            "--live --key a",
            "--live --event-type a",
            "--live --from -6h",
            "--live --partition 0",
        ];
        let names: std::collections::HashSet<_> = distinct.map(of).into();
        assert_eq!(names.len(), distinct.len());
    }
}
