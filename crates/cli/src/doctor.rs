// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem doctor`: looks at everything that Vshmem needs here, and says of each finding what to do.

mod domains;
mod machine;
mod probe;
mod xen;

pub use probe::{ENV_PROBE, probe};

use crate::world::World;
use crate::{DirArg, Failure, find, say, show};
use machine::Place;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use vshmem_abi::keys::KeySet;
use vshmem_abi::paths;

/// Of a limit, how much in a hundred may be used before it is worth a warning.
const NEARLY: u64 = 90;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub dir: DirArg,

    /// Only what is not as it should be
    #[arg(long, short)]
    pub quiet: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// As it should be.
    Fine,
    /// It works, but may not for long, or not for everything.
    Warning,
    /// Something does not work.
    Wrong,
}

/// What was found.
#[derive(Debug)]
struct Finding {
    level: Level,
    what: &'static str,
    text: String,
    advice: Option<String>,
}

/// All that was found, in the order in which it was looked at.
#[derive(Debug, Default)]
pub struct Findings {
    all: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, level: Level, what: &'static str, text: String, advice: Option<String>) {
        self.all.push(Finding {
            level,
            what,
            text,
            advice,
        });
    }

    /// It is as it should be.
    fn fine(&mut self, what: &'static str, text: impl Into<String>) {
        self.add(Level::Fine, what, text.into(), None);
    }

    /// It works; the advice says what may go wrong.
    fn warn(&mut self, what: &'static str, text: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Warning, what, text.into(), Some(advice.into()));
    }

    /// It does not work; the advice says what to do.
    fn wrong(&mut self, what: &'static str, text: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Wrong, what, text.into(), Some(advice.into()));
    }

    fn number(&self, level: Level) -> u64 {
        self.all.iter().filter(|one| one.level == level).count() as u64
    }

    /// A line for each, and one more where there is something to do.
    fn text(&self, quiet: bool) -> String {
        let mut text = String::new();
        for one in &self.all {
            let level = match one.level {
                Level::Fine if quiet => continue,
                Level::Fine => "ok",
                Level::Warning => "warn",
                Level::Wrong => "WRONG",
            };
            text.push_str(&format!("{level:<6} {:<9} {}\n", one.what, one.text));
            if let Some(advice) = &one.advice {
                text.push_str(&format!("{:17}{advice}\n", ""));
            }
        }
        text
    }
}

/// Looks, and prints what was found.
pub fn doctor(args: &Args) -> Result<(), Failure> {
    let mut found = Findings::default();
    let dir = args.dir.path();
    let place = Place::here();
    installed(&mut found);
    environment(&mut found);
    machine::look(&mut found);
    let world = directory(&mut found, &dir);
    configuration(&mut found, &dir, place);
    let library = find::library().ok();
    domains::look(&mut found, world.as_ref(), place, library.as_deref());
    say(&found.text(args.quiet))?;
    let (wrong, warnings) = (found.number(Level::Wrong), found.number(Level::Warning));
    if wrong == 0 {
        let well = match warnings {
            0 => "all is well\n".to_owned(),
            some => format!("it works; {} to look at\n", show::count(some, "warning")),
        };
        return say(&well);
    }
    let verb = if wrong == 1 { "is" } else { "are" };
    Err(Failure::new(format!(
        "{} {verb} wrong",
        show::count(wrong, "thing")
    )))
}

/// Command, library and daemon.
fn installed(found: &mut Findings) {
    let version = env!("CARGO_PKG_VERSION");
    found.fine("command", format!("vshmem {version}"));
    match find::library() {
        Err(failure) => found.wrong("library", "libvshmem.so is not found", failure.text),
        Ok(path) => match preloads(&path) {
            Ok(()) => found.fine("library", path.display().to_string()),
            Err(said) => found.wrong(
                "library",
                format!("{} cannot be preloaded: {said}", path.display()),
                "build or install it for this machine and C library",
            ),
        },
    }
    match find::vshmemd() {
        Err(failure) => found.wrong("daemon", "vshmemd is not found", failure.text),
        Ok(path) => {
            let told = Command::new(&path).arg("--version").output();
            let told = told.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
            match told {
                Ok(told) if told == format!("vshmemd {version}") => {
                    found.fine("daemon", path.display().to_string());
                }
                Ok(told) => found.wrong(
                    "daemon",
                    format!("{} is '{told}', this is vshmem {version}", path.display()),
                    "install command, library and daemon of one version",
                ),
                Err(error) => found.wrong(
                    "daemon",
                    format!("{} cannot be run: {error}", path.display()),
                    "see that it may be executed, and that its file system is not mounted noexec",
                ),
            }
        }
    }
}

/// Whether a program starts with the library in it; else what it says.
fn preloads(library: &Path) -> Result<(), String> {
    let mut command = Command::new("true");
    command
        .env("LD_PRELOAD", library)
        .env_remove(paths::ENV_KEYS);
    let run = command.stdin(Stdio::null()).output();
    let run = run.map_err(|error| format!("true: {error}"))?;
    let said = String::from_utf8_lossy(&run.stderr);
    match (run.status.success(), said.lines().next()) {
        (true, None) => Ok(()),
        (_, Some(line)) => Err(line.to_owned()),
        (false, None) => Err(format!("a program with it ends with {}", run.status)),
    }
}

/// What programs of this shell would be told.
fn environment(found: &mut Findings) {
    if let Some(keys) = std::env::var_os(paths::ENV_KEYS) {
        let read = keys.to_str().map(|keys| KeySet::parse(keys).map(|_| ()));
        match read {
            Some(Ok(())) => found.fine("keys", format!("VSHMEM_KEYS={}", keys.display())),
            Some(Err(error)) => found.wrong("keys", error.to_string(), "correct VSHMEM_KEYS"),
            None => found.wrong("keys", "VSHMEM_KEYS is not text", "correct VSHMEM_KEYS"),
        }
    }
    let name = paths::default_domain();
    if let Some(why) = paths::domain_name_error(&name) {
        found.wrong(
            "domain",
            format!("bad name '{name}': {why}"),
            "correct VSHMEM_DOMAIN",
        );
    }
}

/// The directory, if there is one that can be used.
fn directory(found: &mut Findings, dir: &Path) -> Option<World> {
    match World::open(dir) {
        Ok(Some(world)) => {
            let mode = world.dir().metadata().map_or(0, |meta| meta.mode() & 0o777);
            let own = match world.is_own() {
                true => "",
                false => ", not yours: you can run programs, not start domains",
            };
            let text = format!("{} (mode {mode:03o}{own})", world.dir().display());
            found.fine("directory", text);
            if rustix::fs::access(world.dir(), rustix::fs::Access::EXEC_OK).is_err() {
                found.wrong(
                    "directory",
                    "you may not enter it",
                    "ask its owner, or name another one (VSHMEM_DIR)",
                );
                return None;
            }
            Some(world)
        }
        Ok(None) => {
            found.warn(
                "directory",
                format!("{} is not there: no domain has been up", dir.display()),
                "`vshmem run` makes it; name another one with --dir or VSHMEM_DIR",
            );
            None
        }
        Err(failure) => {
            let advice = "all of Vshmem refuses to use it until that is changed";
            found.wrong("directory", failure.text, advice);
            None
        }
    }
}

/// The configuration, and what there is to say of its policy.
fn configuration(found: &mut Findings, dir: &Path, place: Place) {
    let settings = match vshmem_config::read(None, dir) {
        Ok(settings) => settings,
        Err(error) => {
            return found.wrong(
                "config",
                error.to_string(),
                "correct the file: no daemon starts with it, or reads it again (docs/configuration.md)",
            );
        }
    };
    let Some(file) = settings.file else {
        return found.fine("config", "no vshmem.toml; none is needed");
    };
    found.fine("config", file.display().to_string());
    let policy = settings.policy;
    if policy.is_open() && policy.limits().is_empty() {
        return;
    }
    if place == Place::Guest {
        return found.warn(
            "policy",
            "that of this file is looked at by nobody: of a guest, dom0's counts",
            "put [policy] into /etc/vshmem/vshmem.toml of dom0",
        );
    }
    let (rules, limits) = (policy.rules().len() as u64, policy.limits().len() as u64);
    let (rules, limits) = (show::count(rules, "rule"), show::count(limits, "limit"));
    found.fine("policy", format!("{rules} and {limits}"));
    for (idle, first) in policy.idle_rules() {
        let (idle, first) = (idle.line, first.line);
        found.warn(
            "policy",
            format!("the rule of line {idle} never counts"),
            format!("that of line {first} has all its domains and keys: put it after, or drop it"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_has_a_line_and_its_advice_another_one() {
        let mut found = Findings::default();
        found.fine("keys", "as they should be");
        found.warn("grants", "nearly used up", "raise the limit");
        found.wrong("config", "bad", "correct it");
        let text = found.text(false);
        assert_eq!(
            text,
            "ok     keys      as they should be\n\
             warn   grants    nearly used up\n                 raise the limit\n\
             WRONG  config    bad\n                 correct it\n"
        );
        assert!(!found.text(true).contains("keys"));
        assert_eq!(
            (found.number(Level::Wrong), found.number(Level::Warning)),
            (1, 1)
        );
    }

    #[test]
    fn a_library_that_cannot_be_preloaded_is_told_from_one_that_can() {
        assert!(preloads(Path::new("/no/such/library.so")).is_err());
        assert_eq!(preloads(Path::new("")), Ok(()));
    }

    #[test]
    fn a_directory_that_is_not_there_is_no_fault() {
        let mut found = Findings::default();
        let tmp = tempfile::tempdir().unwrap();
        assert!(directory(&mut found, &tmp.path().join("none")).is_none());
        assert_eq!(found.number(Level::Wrong), 0);
    }
}
