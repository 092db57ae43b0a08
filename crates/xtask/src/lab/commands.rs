// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options `--dom0 CMD`, `--dom1 CMD` and so on.

use super::MOST_GUESTS;
use crate::Result;
use clap::{Arg, ArgMatches, Args, FromArgMatches};
use std::collections::BTreeMap;

/// The options' names.
const NAMES: [&str; MOST_GUESTS + 1] = [
    "dom0", "dom1", "dom2", "dom3", "dom4", "dom5", "dom6", "dom7", "dom8", "dom9",
];

/// Shell commands by domain: 0 is dom0.
#[derive(Debug, Default)]
pub struct Commands(BTreeMap<usize, String>);

impl Commands {
    /// Which domain has which command.
    pub fn of_domains(&self) -> impl Iterator<Item = (usize, &str)> {
        self.0.iter().map(|(&number, text)| (number, text.as_str()))
    }

    /// Refuses a command for a guest that there will not be.
    pub fn check(&self, guests: usize) -> Result<()> {
        match self.0.keys().next_back() {
            Some(&last) if last > guests => Err(format!(
                "--dom{last} has a command, but there are {guests} guests: --domains {last}"
            )),
            _ => Ok(()),
        }
    }
}

impl Args for Commands {
    fn augment_args(command: clap::Command) -> clap::Command {
        NAMES
            .iter()
            .enumerate()
            .fold(command, |command, (n, &name)| {
                let arg = Arg::new(name).long(name).value_name("CMD").hide(n > 2);
                command.arg(match n {
                    0 => arg.help("Command for sh in dom0, which has xl, xenstore-ls, and `lab`"),
                    1 => arg.help("Command for sh in the first guest; for more, --dom2 to --dom9"),
                    _ => arg.help("Command for sh in this guest"),
                })
            })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Commands {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let given = NAMES.iter().enumerate().filter_map(|(number, name)| {
            let text = matches.get_one::<String>(name)?;
            Some((number, text.clone()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(
        &mut self,
        matches: &ArgMatches,
    ) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
