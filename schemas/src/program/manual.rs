//! Completions and manual pages, made of the definitions of the commands.

use std::{io, path::PathBuf};

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;

use super::print;

/// `completions`: what a shell suggests for the program.
#[derive(Clone, Copy, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell that is to read them
    #[arg(value_enum)]
    shell: CompletedShell,
}

/// Shells that completions can be had for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CompletedShell {
    Bash,
    Elvish,
    Fish,
    #[value(name = "powershell")]
    PowerShell,
    Zsh,
}

impl From<CompletedShell> for Shell {
    fn from(shell: CompletedShell) -> Shell {
        match shell {
            CompletedShell::Bash => Shell::Bash,
            CompletedShell::Elvish => Shell::Elvish,
            CompletedShell::Fish => Shell::Fish,
            CompletedShell::PowerShell => Shell::PowerShell,
            CompletedShell::Zsh => Shell::Zsh,
        }
    }
}

impl CompletionsArgs {
    /// Prints the completions of `program`.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn run(self, mut program: Command) -> io::Result<()> {
        let name = program.get_name().to_owned();
        let mut text = Vec::new();
        clap_complete::generate(Shell::from(self.shell), &mut program, name, &mut text);
        print(&String::from_utf8_lossy(&text))
    }
}

/// `man`: the manual pages of the program.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Write a page for the program and one for each command to this folder; by default the
    /// program's page goes to standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl ManArgs {
    /// Writes the pages of `program`.
    ///
    /// # Errors
    /// When the folder, or standard output, cannot be written.
    pub fn run(&self, program: Command) -> io::Result<()> {
        if let Some(dir) = &self.out {
            return std::fs::create_dir_all(dir)
                .and_then(|()| clap_mangen::generate_to(program, dir))
                .map_err(|error| {
                    io::Error::new(error.kind(), format!("--out {}: {error}", dir.display()))
                });
        }
        let mut page = Vec::new();
        // As the pages in a folder have it.
        Man::new(program.disable_help_subcommand(true)).render(&mut page)?;
        print(&String::from_utf8_lossy(&page))
    }
}
