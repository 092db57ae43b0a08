// SPDX-License-Identifier: MIT OR Apache-2.0
//! A world: a back-end and domains, in which a test runs its programs.

use crate::guests::{ENV_GUESTS, ENV_KINDS, host_of};
use crate::{bin, cc, kernels, succeed, wait_until};
use nix::sys::signal::Signal;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A back-end and its domains: of a directory of its own, stopped and removed when dropped; or those of
/// the guests among which this test runs ([`crate::guests`]), from which all constructs are removed.
pub struct World {
    place: Place,
}

enum Place {
    Own(tempfile::TempDir),
    Guests { dir: PathBuf, guests: String },
}

impl World {
    /// A new world in which nothing runs yet; among guests theirs.
    #[allow(clippy::new_without_default)] // making a directory is not a default
    pub fn new() -> Self {
        if let Ok(guests) = std::env::var(ENV_GUESTS) {
            return Self::of_guests(&guests);
        }
        let dir = tempfile::Builder::new().prefix("vshmem-test-").tempdir();
        let place = Place::Own(dir.expect("tempdir"));
        Self { place }
    }

    /// The world of guests, in which domains are where `guests` says ([`ENV_GUESTS`]).
    pub fn of_guests(guests: &str) -> Self {
        let place = Place::Guests {
            dir: vshmem_abi::paths::default_dir(),
            guests: guests.to_owned(),
        };
        Self { place }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        match &self.place {
            Place::Own(dir) => dir.path(),
            Place::Guests { dir, .. } => dir,
        }
    }

    /// The address of the guest that is `domain`, if it is another than this one; `None` also where the
    /// world is no guests'.
    pub fn host(&self, domain: &str) -> Option<String> {
        match &self.place {
            Place::Own(_) => None,
            Place::Guests { guests, .. } => host_of(guests, domain),
        }
    }

    fn is_guests(&self) -> bool {
        matches!(self.place, Place::Guests { .. })
    }

    /// A command for `program` in `domain`, with `env` set; arguments can be added.
    fn command(&self, domain: &str, program: &OsStr, env: &[(&str, &OsStr)]) -> Command {
        match self.host(domain) {
            None => here(program, env),
            Some(host) => {
                let mut command = Command::new(bin("guest_agent"));
                command.args(["exec", &host]);
                for (name, value) in env {
                    command.arg(format!("{name}={}", value.display()));
                }
                command.arg("--").arg(program);
                command
            }
        }
    }

    /// The `vshmem` command with a subcommand, in this world. In a guest there is one domain, which has no
    /// other name there: `--domain NAME` chooses the guest.
    pub fn vshmem(&self, args: &[&str]) -> Command {
        let mut args = args.to_vec();
        let mut domain = None;
        if self.is_guests() {
            let end = args
                .iter()
                .position(|&arg| arg == "--")
                .unwrap_or(args.len());
            if let Some(at) = args[..end].iter().position(|&arg| arg == "--domain") {
                domain = args.drain(at..at + 2).nth(1);
            }
        }
        let program = bin("vshmem");
        let dir: &[_] = &[("VSHMEM_DIR", self.dir().as_os_str())];
        let mut command = match domain {
            Some(domain) => self.command(domain, program.as_os_str(), dir),
            None => here(program.as_os_str(), dir),
        };
        if kernels::are_separate() {
            command.env(kernels::ENV, "1");
        }
        command.args(args);
        command
    }

    /// A command that runs `program` in `domain` with `keys` routed; arguments can be added.
    pub fn run(&self, domain: &str, keys: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.vshmem(&["run", "--domain", domain, "--keys", keys, "--"]);
        command.arg(program);
        command
    }

    /// Starts the back-end and the daemon of `domain`; in guests they run already.
    pub fn up(&self, domain: &str) {
        if !self.is_guests() {
            succeed(self.run(domain, "all", "true"));
        }
    }

    /// The plain form, without the `vshmem` command: `LD_PRELOAD` and variables only. The daemon
    /// has to be up already.
    pub fn preload(&self, domain: &str, keys: &str, program: impl AsRef<OsStr>) -> Command {
        let plain = self.plain(&bin("libvshmem.so"), domain, keys, program);
        let env = plain.get_envs();
        let env: Vec<_> = env
            .filter_map(|(name, value)| Some((name.to_str()?, value?)))
            .collect();
        self.command(domain, plain.get_program(), &env)
    }

    /// The same for a program that somebody else starts, in the guest of `domain`.
    pub fn plain(
        &self,
        library: &Path,
        domain: &str,
        keys: &str,
        program: impl AsRef<OsStr>,
    ) -> Command {
        let mut command = Command::new(program);
        command
            .env("LD_PRELOAD", library)
            .env("VSHMEM_DIR", self.dir())
            .env("VSHMEM_KEYS", keys);
        if !self.is_guests() {
            command.env("VSHMEM_DOMAIN", domain);
        }
        command
    }

    /// The pid of a domain's `vshmemd`, or with `backend` of the back-end.
    pub fn pid(&self, name: &str) -> i32 {
        let path = self.dir().join(format!("{name}.pid"));
        let text = std::fs::read_to_string(&path).expect("pid file");
        text.trim().parse().expect("a pid")
    }

    /// Sends a signal to a daemon, by name as in [`World::pid`].
    pub fn kill(&self, name: &str, signal: Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid(name)), signal).expect("kill");
    }

    /// Sends `SIGKILL` to a daemon and waits until it is gone.
    pub fn kill_and_wait(&self, name: &str) {
        let pid = nix::unistd::Pid::from_raw(self.pid(name));
        self.kill(name, Signal::SIGKILL);
        wait_until(
            "the killed daemon is gone",
            || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
                // A zombie waits for a parent that a container may not have: it is gone all the same.
                Ok(stat) => stat
                    .rsplit(')')
                    .next()
                    .is_some_and(|rest| rest.trim_start().starts_with('Z')),
                Err(_) => true,
            },
        );
    }

    /// Removes all routed constructs, of the kinds that are the test's: other tests use the same guests.
    fn remove_all(&self) -> Result<(), String> {
        let kinds = std::env::var(ENV_KINDS).unwrap_or_default();
        let kinds: Vec<_> = kinds.split_whitespace().collect();
        let mut remover = self.preload("a", "all,private", cc("remove_all"));
        remover.args(&kinds);
        let ended = remover.status().map_err(|e| e.to_string())?;
        let left = self
            .vshmem(&[&["ls", "--domain", "a"], &kinds[..]].concat())
            .output()
            .map_err(|e| e.to_string())?;
        let left = String::from_utf8_lossy(&left.stdout).into_owned();
        if ended.success() && !left.contains("0x") {
            Ok(())
        } else {
            Err(format!("{ended}, left behind:\n{left}"))
        }
    }

    fn show_logs(&self) {
        let files = std::fs::read_dir(self.dir());
        for entry in files.into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|e| e == "log") {
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                eprintln!("--- {}\n{text}", entry.path().display());
            }
        }
    }
}

/// A command for `program` on this machine, or in this guest, with `env` set.
fn here(program: &OsStr, env: &[(&str, &OsStr)]) -> Command {
    let mut command = Command::new(program);
    command.envs(env.iter().copied());
    command
}

impl Drop for World {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        if panicking {
            self.show_logs();
        }
        if !self.is_guests() {
            // Nothing to stop is fine: not every test starts a daemon.
            let _ = self.vshmem(&["down", "--all", "--force"]).output();
        } else if let Err(left) = self.remove_all()
            && !panicking
        {
            panic!("the constructs of the test are not to be removed: {left}");
        }
    }
}
