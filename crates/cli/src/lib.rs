// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command `vshmem`: runs programs in a domain (`run`), stops domains (`down`), shows, makes and
//! removes constructs (`ls`, `stat`, `mk`, `rm`), shows and waits for domains (`peers`, `wait`), shows all in the terminal (`top`), tells what
//! a configuration lets domains do (`policy`) and looks for what is wrong (`doctor`). It starts daemons and talks to them with the messages of
//! [`vshmem_abi::wire`]; no semantics of System V are decided here.

mod ask;
mod constructs;
mod doctor;
mod down;
mod find;
mod ls;
mod mk;
mod peers;
mod pick;
mod policy;
mod rm;
mod run;
mod show;
mod start;
mod stat;
mod survey;
mod top;
mod wait;
mod world;

use clap::{CommandFactory, Parser, Subcommand};
use std::path::PathBuf;
use vshmem_abi::paths;

/// Shared memory of System V IPC across domains
#[derive(Debug, Parser)]
#[command(name = "vshmem", version)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run a program in a domain; starts what has to be up for that
    Run(run::Args),
    /// Stop domains
    Down(down::Args),
    /// List the shared memory segments, semaphore sets and message queues of all domains
    Ls(ls::Args),
    /// Show everything that is known of one of them, or how it ended
    Stat(stat::Args),
    /// Make one, as ipcmk does
    Mk(mk::Args),
    /// Remove some, as ipcrm does, or those that nobody uses
    Rm(rm::Args),
    /// List the domains, and what they have used up
    Peers(peers::Args),
    /// Watch domains and constructs in the terminal
    Top(top::Args),
    /// Wait until a domain is ready or a key is there
    Wait(wait::Args),
    /// Check a vshmem.toml, and show what it lets each domain do
    Policy(policy::Args),
    /// Look for what is wrong, and say what to do; status 1 if something is
    Doctor(doctor::Args),
    /// Write completions for a shell to stdout
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// Shells that completions are written for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl From<Shell> for clap_complete::Shell {
    fn from(shell: Shell) -> Self {
        match shell {
            Shell::Bash => Self::Bash,
            Shell::Zsh => Self::Zsh,
            Shell::Fish => Self::Fish,
        }
    }
}

/// `--dir`, which every subcommand has.
#[derive(Debug, Default, clap::Args)]
struct DirArg {
    /// Directory of sockets and pid files [default: $VSHMEM_DIR, else /run/vshmem for root,
    /// $XDG_RUNTIME_DIR/vshmem or /tmp/vshmem-UID for others]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl DirArg {
    fn path(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(paths::default_dir)
    }
}

/// Why the command ends without having done what it was asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
struct Failure {
    /// Exit status.
    status: u8,
    /// What is wrong and what to do about it; nothing where it was said already.
    text: String,
}

impl Failure {
    /// A failure at work: exit status 1.
    fn new(text: impl Into<String>) -> Self {
        Self::with_status(1, text)
    }

    fn with_status(status: u8, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
        }
    }
}

/// Turns what a system call says into a [`Failure`].
trait Doing<T> {
    /// Says `what` was being done when the call failed.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<std::io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(format!("{}: {}", what(), error.into())))
    }
}

/// Writes to stdout.
fn say(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    std::io::stdout()
        .write_all(text.as_bytes())
        .doing(|| "cannot write to stdout".into())
}

/// Writes JSON to stdout.
fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
    say(&format!("{text}\n"))
}

/// The command line with all its subcommands, for man pages to be written from.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Writes completions to stdout.
fn completions(shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    let shell = clap_complete::Shell::from(shell);
    clap_complete::generate(shell, &mut command(), "vshmem", &mut text);
    say(&String::from_utf8_lossy(&text))
}

/// The domain that was named, or else the default one, if it can be one.
fn domain(named: Option<&str>) -> Result<String, Failure> {
    let name = named.map_or_else(paths::default_domain, str::to_owned);
    match paths::domain_name_error(&name) {
        None => Ok(name),
        Some(why) => Err(Failure::with_status(
            2,
            format!("bad domain name '{name}': {why}"),
        )),
    }
}

/// Does what the command line says and returns the exit status; where `run` succeeds, the process
/// has become another program instead.
pub fn main() -> i32 {
    if std::env::var_os(doctor::ENV_PROBE).is_some() {
        return doctor::probe();
    }
    let result = world::occupy_standard_descriptors().and_then(|()| match Cli::parse().command {
        Action::Run(args) => run::run(&args),
        Action::Down(args) => down::down(&args),
        Action::Ls(args) => ls::ls(&args),
        Action::Stat(args) => stat::stat(&args),
        Action::Mk(args) => mk::mk(&args),
        Action::Rm(args) => rm::rm(&args),
        Action::Peers(args) => peers::peers(&args),
        Action::Top(args) => top::top(&args),
        Action::Wait(args) => wait::wait(&args),
        Action::Policy(args) => policy::policy(&args),
        Action::Doctor(args) => doctor::doctor(&args),
        Action::Completions { shell } => completions(shell),
    });
    match result {
        Ok(()) => 0,
        Err(failure) => {
            if !failure.text.is_empty() {
                eprintln!("vshmem: {failure}");
            }
            failure.status.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bad_domain_name_is_refused_with_status_2_and_the_reason() {
        let failure = domain(Some("a/b")).unwrap_err();
        assert_eq!(failure.status, 2);
        assert!(failure.text.contains("'a/b'") && failure.text.contains("letters"));
    }

    #[test]
    fn the_arguments_of_the_command_to_run_are_not_read_as_ours() {
        for line in [
            &[
                "vshmem", "run", "--domain", "a", "--", "prog", "--domain", "b",
            ][..],
            &["vshmem", "run", "--domain", "a", "prog", "--domain", "b"][..],
        ] {
            let Action::Run(args) = Cli::parse_from(line).command else {
                panic!("not run: {line:?}");
            };
            assert_eq!(args.domain.as_deref(), Some("a"));
            assert_eq!(args.command, ["prog", "--domain", "b"]);
        }
    }

    #[test]
    fn down_takes_one_domain_or_all_of_them_but_not_both() {
        assert!(Cli::try_parse_from(["vshmem", "down", "--all", "--domain", "a"]).is_err());
    }
}
