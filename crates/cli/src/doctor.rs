// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem doctor`: looks at everything that Vshmem needs here, and says of each finding what to do.

mod machine;

use crate::ask::{self, Daemon};
use crate::survey::Survey;
use crate::world::{BACKEND, World};
use crate::{DirArg, Failure, find, say, show, start};
use rustix::io::Errno;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use vshmem_abi::keys::KeySet;
use vshmem_abi::paths;
use vshmem_report::DomainReport;

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
    installed(&mut found);
    environment(&mut found);
    machine::look(&mut found);
    if let Some(world) = directory(&mut found, &dir) {
        configuration(&mut found, world.dir());
        back_end(&mut found, &world);
        domains(&mut found, &world);
    }
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

/// Has `vshmemd` read the configuration.
fn configuration(found: &mut Findings, dir: &Path) {
    let files = paths::config_files(dir);
    let Some(file) = files.iter().find(|file| file.exists()) else {
        return found.fine("config", "no vshmem.toml; none is needed");
    };
    // That it is missing is found elsewhere.
    let Ok(daemon) = find::vshmemd() else {
        return;
    };
    let mut command = Command::new(daemon);
    command.arg("--check-config").arg("--dir").arg(dir);
    match command.output() {
        Ok(run) if run.status.success() => found.fine("config", file.display().to_string()),
        Ok(run) => {
            let said = String::from_utf8_lossy(&run.stderr);
            let said = said.trim().trim_start_matches("vshmemd: ").to_owned();
            found.wrong(
                "config",
                said,
                "correct the file: no daemon starts with it (docs/configuration.md)",
            );
        }
        Err(error) => found.wrong("config", format!("vshmemd: {error}"), "see above"),
    }
}

/// The back-end of a directory of one's own.
fn back_end(found: &mut Findings, world: &World) {
    if !world.is_own() {
        return;
    }
    let running = world.lock().and_then(|_lock| world.running(BACKEND));
    match running {
        Ok(Some(running)) => {
            let pid = running.pid.as_raw_nonzero();
            found.fine("back-end", format!("runs (pid {pid})"));
        }
        Ok(None) if world.domains().is_ok_and(|domains| domains.is_empty()) => {
            found.fine("back-end", "nothing runs");
        }
        Ok(None) => found.warn(
            "back-end",
            "does not run",
            "`vshmem run` starts it, and anew every domain that has no clients",
        ),
        Err(failure) => found.wrong("back-end", failure.text, "see above"),
    }
}

/// Every domain of the directory.
fn domains(found: &mut Findings, world: &World) {
    let survey = match Survey::of(world.dir()) {
        Ok(survey) => survey,
        Err(failure) => return found.wrong("domains", failure.text, "see above"),
    };
    for silent in &survey.silent {
        let (name, why) = (&silent.name, ask::text(silent.why.raw_os_error()));
        match silent.why {
            Errno::CONNRESET | Errno::PIPE => found.wrong(
                "domain",
                format!("{name}: its vshmemd is of another version"),
                format!("start it anew: `vshmem down --domain {name}`, then `vshmem run`"),
            ),
            Errno::ACCESS | Errno::PERM => found.wrong(
                "domain",
                format!("{name}: its socket is not for you ({why})"),
                format!("the socket is to be writable for all: chmod 666 {name}.sock"),
            ),
            _ => found.wrong(
                "domain",
                format!("{name}: its vshmemd does not answer ({why})"),
                format!("see {name}.log; `vshmem down --domain {name} --force` ends it"),
            ),
        }
    }
    for report in &survey.domains {
        domain(found, world, report);
    }
    for name in world.domains().unwrap_or_default() {
        let is_up = survey.domains.iter().any(|report| report.name == name);
        if !is_up && !survey.silent.iter().any(|silent| silent.name == name) {
            found.warn(
                "domain",
                format!("{name}: it has ended without clearing up"),
                format!("`vshmem down --domain {name}` does, or its next start"),
            );
        }
    }
}

fn domain(found: &mut Findings, world: &World, report: &DomainReport) {
    let name = &report.name;
    let version = env!("CARGO_PKG_VERSION");
    if report.version != version || report.abi != vshmem_abi::ABI_VERSION {
        let (its, abi) = (&report.version, report.abi);
        found.wrong(
            "domain",
            format!("{name}: its vshmemd is {its} (ABI {abi}), this is vshmem {version}"),
            format!("start it anew: `vshmem down --domain {name}`, then `vshmem run`"),
        );
        return;
    }
    let connected = Daemon::connect(world.dir(), name, ask::PATIENCE);
    let has_back_end =
        connected.is_ok_and(|daemon| start::has_back_end(&daemon, name).unwrap_or(false));
    if !has_back_end {
        found.wrong(
            "domain",
            format!("{name}: it has lost its back-end"),
            format!("end its programs, then `vshmem run --domain {name} -- true`"),
        );
        return;
    }
    let since = show::moment(report.since);
    let clients = show::count(report.clients, "client");
    let text = format!("{name}: ready since {since}, {clients}");
    found.fine("domain", text);
    let (used, limit) = (report.grants_used, report.grants_limit);
    if limit > 0 && used >= limit / 100 * NEARLY {
        found.warn(
            "grants",
            format!("{name}: {used} of {limit} pages are granted"),
            "remove what is not needed (vshmem rm --orphans), or raise VSHMEM_GRANT_LIMIT",
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
