// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask lab`: real Xen in QEMU, with a Debian dom0 and guests, for tests and a look around.
//! What it does and how to use it is in `docs/lab.md`. This file has its command line.
//!
//! `debian` fetches packages, `image` and `libraries` say what is in the domains, `tree` makes
//! archives of that, `machine` runs QEMU, `stream` takes apart what the domains say, `session`
//! decides what follows from it, `report` counts what Xen lists, and `run` has one follow the other.
//! `suite` puts together and runs the tests between guests, `figures` measures between them; both give
//! the domains what `files` copies.

mod commands;
mod debian;
mod figures;
mod files;
mod image;
mod libraries;
mod machine;
mod place;
mod qemu;
mod report;
mod run;
mod session;
mod stream;
mod suite;
mod tree;

use crate::Result;
use crate::test::Sum;
use clap::{Args, Subcommand, ValueEnum};
use commands::Commands;
use std::path::PathBuf;
use std::process::ExitCode;

/// The most guests there can be.
const MOST_GUESTS: usize = 9;

/// Seconds that all tests between guests of a kind may take in emulation.
const SUITE_LIMIT: u32 = 5400;

/// What to do in the lab
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Boot, run a command in each domain, all at once, and say how they ended
    ///
    /// The exit status is 0 only if that of every command was.
    Run(Run),
    /// Boot, and have a shell in dom0 on this terminal
    Shell(Setup),
    /// Run the tests between guests, and say how many passed and failed
    Test {
        /// The kind of the guests [default: first the one, then the other]
        #[arg(long, value_enum)]
        guest: Option<Kind>,

        /// Only the tests with this in their names, or with one of several parts between `|`, and without those that
        /// begin with `!` [default: all, which takes hours in emulation]
        filter: Option<String>,
    },
    /// Measure between two guests, by Vshmem and by the network, and write target/lab/figures.json
    Figures {
        /// The kind of the guests
        #[arg(long, value_enum, default_value_t = Kind::Pv)]
        guest: Kind,
    },
}

/// What to run
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    setup: Setup,

    /// Seconds that the commands may take, from when all domains are ready
    #[arg(long, value_name = "S", default_value_t = 600)]
    timeout: u64,

    #[command(flatten)]
    commands: Commands,
}

/// How the lab is to be
#[derive(Debug, Args)]
pub struct Setup {
    /// The kind of the guests
    #[arg(long, value_enum, default_value_t = Kind::Pv)]
    guest: Kind,

    /// Number of guests: dom1 and so on
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = guests)]
    domains: usize,

    /// Copy a directory to /lab of every domain, with the shared libraries its programs need
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,

    /// Have nothing of Vshmem in the domains
    #[arg(long)]
    bare: bool,

    /// Have a network between the domains; dom0 has the address 192.0.2.1, domN 192.0.2.1N
    #[arg(long)]
    network: bool,

    /// Memory of each guest, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(128..=4096))]
    memory: u32,

    /// What runs the machine [default: kvm where it can run Xen, else tcg]
    #[arg(long, value_enum)]
    accelerator: Option<Accelerator>,
}

/// The kind of a guest
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Paravirtualized
    Pv,
    /// With the processor's virtualization
    Pvh,
}

/// What QEMU runs the machine by
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Accelerator {
    /// The kernel's virtual machines
    Kvm,
    /// Emulation
    Tcg,
}

impl Kind {
    /// As options have it.
    fn word(self) -> &'static str {
        match self {
            Kind::Pv => "pv",
            Kind::Pvh => "pvh",
        }
    }
}

fn guests(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=MOST_GUESTS) => Ok(number),
        _ => Err(format!("a number from 1 to {MOST_GUESTS} is needed")),
    }
}

pub use suite::run as test;

/// Does it.
pub fn lab(task: Task) -> Result<ExitCode> {
    match task {
        Task::Run(run) => run::run(&run),
        Task::Shell(setup) => run::shell(&setup).map(|()| ExitCode::SUCCESS),
        Task::Figures { guest } => figures::run(guest).map(|()| ExitCode::SUCCESS),
        Task::Test { guest, filter } => {
            let mut sum = Sum::default();
            let kinds = guest.map_or(vec![Kind::Pv, Kind::Pvh], |kind| vec![kind]);
            for kind in kinds {
                suite::run(kind, filter.as_deref(), SUITE_LIMIT, &mut sum)?;
            }
            println!("{sum}");
            Ok(sum.status())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    /// The command line, as `cargo xtask lab` has it.
    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        task: Task,
    }

    fn parse(line: &[&str]) -> std::result::Result<Task, clap::Error> {
        Line::try_parse_from([&["lab"], line].concat()).map(|line| line.task)
    }

    #[test]
    fn each_domain_has_its_command() {
        let line = ["run", "--dom2", "b", "--domains", "3", "--dom0", "a 'x'"];
        let Ok(Task::Run(run)) = parse(&line) else {
            panic!("not taken");
        };
        let commands: Vec<_> = run.commands.of_domains().collect();
        assert_eq!(commands, [(0, "a 'x'"), (2, "b")]);
        assert_eq!(run.commands.check(run.setup.domains), Ok(()));
        let error = run.commands.check(1).unwrap_err();
        assert!(error.contains("--domains 2"), "{error}");
    }

    #[test]
    fn what_is_not_said_is_two_pv_guests_with_vshmem_and_without_a_network() {
        let Ok(Task::Shell(setup)) = parse(&["shell"]) else {
            panic!("not taken");
        };
        assert_eq!((setup.guest, setup.domains), (Kind::Pv, 2));
        assert!(!setup.bare && !setup.network && setup.files.is_none());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for line in [
            &["run", "--domains", "0"][..],
            &["run", "--domains", "10"],
            &["run", "--guest", "hvm"],
            &["run", "--dom10", "x"],
            &["run", "--memory", "64"],
            &["shell", "--dom1", "x"],
        ] {
            assert!(parse(line).is_err(), "{line:?}");
        }
    }
}
