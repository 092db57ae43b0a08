// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directed test programs of `tests/c`: run natively, where the kernel judges the program,
//! and then routed, where the program judges Vshmem.

use crate::{World, cc, kernels, wait_until};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// What a program that has ended left.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Runs a command to its end, in a process group of its own of which nothing is left. A program
/// that does not end within [`wait_until`]'s minute fails the test.
pub fn run_to_end(mut command: Command) -> Ended {
    // Files, not pipes: what the program leaves running could keep a pipe open for ever.
    let mut stdout = tempfile::tempfile().expect("temporary file");
    let mut stderr = tempfile::tempfile().expect("temporary file");
    let copy = |file: &File| Stdio::from(file.try_clone().expect("dup"));
    let mut child = command
        .process_group(0)
        .stdout(copy(&stdout))
        .stderr(copy(&stderr))
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let group = Pid::from_raw(child.id().cast_signed());
    let mut status = None;
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until("the program has ended", || {
            status = child.try_wait().expect("wait");
            status.is_some()
        });
    }));
    // No process left is an error here, and fine.
    let _ = killpg(group, Signal::SIGKILL);
    let stdout = text(&mut stdout);
    let stderr = text(&mut stderr);
    let Some(status) = status else {
        let _ = child.wait();
        panic!("{command:?} hangs ({waited:?})\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
    };
    Ended {
        status,
        stdout,
        stderr,
    }
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("rewind");
    file.read_to_end(&mut bytes).expect("read");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs a command that has to succeed and to say nothing on stderr; returns its stdout.
pub fn succeed_silently(command: Command) -> String {
    let what = format!("{command:?}");
    let ended = run_to_end(command);
    assert!(
        ended.status.success() && ended.stderr.is_empty(),
        "{what}: {}\n--- stdout\n{}\n--- stderr\n{}",
        ended.status,
        ended.stdout,
        ended.stderr
    );
    ended.stdout
}

/// A command that runs `program` with the kernel's own System V IPC, in an IPC namespace that is
/// empty at its start.
pub fn native(program: &Path) -> Command {
    in_own_namespace(&Command::new(program))
}

/// The same command in an IPC namespace of its own.
pub fn in_own_namespace(command: &Command) -> Command {
    let mut own = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        own.arg("--map-root-user");
    }
    own.args(["--ipc", "--"]).arg(command.get_program());
    own.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => own.env(name, value),
            None => own.env_remove(name),
        };
    }
    own
}

/// Runs a scenario with the kernel's own calls, if that is not done elsewhere; returns the program and its
/// arguments, for more runs.
fn kept_natively<'a>(program: &str, scenario: &'a str) -> (PathBuf, Vec<&'a str>) {
    let program = cc(program);
    let args: Vec<_> = scenario.split(' ').collect();
    if !kernels::differ() {
        let mut command = native(&program);
        command.args(&args);
        succeed_silently(command);
    }
    (program, args)
}

/// Runs a scenario of a program of `tests/c` with the kernel's own calls, then with all of them
/// routed; both have to succeed in silence. Arguments are separated by blanks.
pub fn kept_natively_and_routed(program: &str, scenario: &str) {
    let (program, args) = kept_natively(program, scenario);
    let world = World::new();
    world.up("a");
    let mut command = world.run("a", "all,private", &program);
    command.args(&args);
    // What others have of the kernel's would show in listings.
    succeed_silently(in_own_namespace(&command));
    // Nothing is left of the program, wherever it failed to clean up behind itself.
    wait_until("no attachment is left", || {
        segments(&world, "a").iter().all(|s| s.nattch == 0)
    });
}

/// Runs a scenario natively, then routed in several domains: the program starts its processes in those
/// that `DOMAINS` names.
pub fn kept_natively_and_in_domains(program: &str, scenario: &str, domains: &[&str]) {
    let (program, args) = kept_natively(program, scenario);
    let world = World::new();
    for domain in domains {
        world.up(domain);
    }
    let mut command = world.preload(domains[0], "all,private", &program);
    command.args(&args).env("DOMAINS", domains.join(" "));
    succeed_silently(command);
}

/// One test for each scenario: `name: PROGRAM SCENARIO;`, see [`kept_natively_and_routed`].
#[macro_export]
macro_rules! scenarios {
    ($($name:ident: $program:literal $scenario:literal;)*) => {
        $(
            #[test]
            fn $name() {
                $crate::program::kept_natively_and_routed($program, $scenario);
            }
        )*
    };
}

/// One line of `vshmem ls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Key as shown.
    pub key: String,
    /// Public id.
    pub id: i64,
    /// Attachments of all domains.
    pub nattch: u64,
    /// `-`, or what is special: `dest`, `locked`, `lost`.
    pub status: String,
}

/// What `vshmem ls -m` shows, asking the daemon of `domain`.
pub fn segments(world: &World, domain: &str) -> Vec<Segment> {
    let text = succeed_silently(world.vshmem(&["ls", "-m", "--domain", domain]));
    let lines = text.lines().skip(1).map(|line| {
        let cells: Vec<_> = line.split_whitespace().collect();
        let [key, id, _, _, _, nattch, status, ..] = cells[..] else {
            panic!("a line of vshmem ls: {line}");
        };
        Segment {
            key: key.to_owned(),
            id: id.parse().expect("id"),
            nattch: nattch.parse().expect("nattch"),
            status: status.to_owned(),
        }
    });
    lines.collect()
}

/// Whether the test may go on: some need root. Without it they are skipped, which is said, and
/// which is a failure where `CI` is set.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        let skipped = "skipped: this test takes other identities or mounts, and needs root";
        assert!(std::env::var_os("CI").is_none(), "{skipped}");
        eprintln!("{skipped}");
    }
    root
}

/// Descriptors that the process has open, as far as they matter: number and what they lead to.
pub fn descriptors(pid: i32) -> Vec<String> {
    let dir = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("/proc/PID/fd");
    let mut list: Vec<_> = dir
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .map(|to| to.display().to_string())
        .collect();
    list.sort();
    list
}
