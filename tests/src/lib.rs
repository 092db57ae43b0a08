// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests share: worlds of their own, programs compiled from `tests/c`, and where the
//! built binaries are.

pub mod actor;
pub mod conform;
pub mod program;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The root of the project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .expect("project root")
}

/// A built binary or library (`vshmem`, `vshmemd`, `libvshmem.so`) of the release build, or of
/// the directory that `VSHMEM_BIN_DIR` names.
pub fn bin(name: &str) -> PathBuf {
    let dir = match std::env::var_os("VSHMEM_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let target = std::env::var_os("CARGO_TARGET_DIR")
                .map_or_else(|| root().join("target"), PathBuf::from);
            target.join("release")
        }
    };
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --release` first",
        path.display()
    );
    path
}

/// Compiles `tests/c/NAME.c` (once a change of its source or of a header) and returns the program.
pub fn cc(name: &str) -> PathBuf {
    let sources = root().join("tests/c");
    let source = sources.join(format!("{name}.c"));
    let out_dir = root().join("target/tests-c");
    std::fs::create_dir_all(&out_dir).expect("target/tests-c");
    let program = out_dir.join(name);
    let modified = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    let headers = std::fs::read_dir(&sources)
        .expect("tests/c")
        .map(|entry| entry.expect("an entry of tests/c").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "h"));
    let changed = headers
        .map(|header| modified(&header))
        .fold(modified(&source), Ord::max);
    if modified(&program).is_some_and(|built| Some(built) > changed) {
        return program;
    }
    // Tests run at the same time: each compiles to a name of its own, then renames.
    let own = out_dir.join(format!(
        "{name}.{}.{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let status = Command::new("gcc")
        .args([
            "-std=gnu11",
            "-O1",
            "-g",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pthread",
            "-o",
        ])
        .arg(&own)
        .arg(&source)
        .status()
        .expect("gcc runs");
    assert!(status.success(), "gcc failed on {}", source.display());
    std::fs::rename(&own, &program).expect("rename of the compiled program");
    program
}

/// A directory with a back-end and domains of its own; stopped and removed when dropped.
pub struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// A new world in which nothing runs yet.
    #[allow(clippy::new_without_default)] // making a directory is not a default
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("vshmem-test-")
            .tempdir()
            .expect("tempdir");
        Self { dir }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The `vshmem` command with a subcommand, in this world.
    pub fn vshmem(&self, args: &[&str]) -> Command {
        let mut command = Command::new(bin("vshmem"));
        command.env("VSHMEM_DIR", self.dir()).args(args);
        command
    }

    /// A command that runs `program` in `domain` with `keys` routed; arguments can be added.
    pub fn run(&self, domain: &str, keys: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.vshmem(&["run", "--domain", domain, "--keys", keys, "--"]);
        command.arg(program);
        command
    }

    /// Starts the back-end and the daemon of `domain`.
    pub fn up(&self, domain: &str) {
        succeed(self.run(domain, "all", "true"));
    }

    /// The plain form, without the `vshmem` command: `LD_PRELOAD` and variables only. The daemon
    /// has to be up already.
    pub fn preload(
        &self,
        domain: &str,
        keys: &str,
        program: impl AsRef<std::ffi::OsStr>,
    ) -> Command {
        let mut command = Command::new(program);
        command
            .env("LD_PRELOAD", bin("libvshmem.so"))
            .env("VSHMEM_DIR", self.dir())
            .env("VSHMEM_DOMAIN", domain)
            .env("VSHMEM_KEYS", keys);
        command
    }

    /// The pid of a domain's `vshmemd`, or with `backend` of the back-end.
    pub fn pid(&self, name: &str) -> i32 {
        let path = self.dir().join(format!("{name}.pid"));
        let text = std::fs::read_to_string(&path).expect("pid file");
        text.trim().parse().expect("a pid")
    }

    /// Sends a signal to a daemon, by name as in [`World::pid`].
    pub fn kill(&self, name: &str, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid(name)), signal).expect("kill");
    }

    /// Sends `SIGKILL` to a daemon and waits until it is gone.
    pub fn kill_and_wait(&self, name: &str) {
        let pid = nix::unistd::Pid::from_raw(self.pid(name));
        self.kill(name, nix::sys::signal::Signal::SIGKILL);
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
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for entry in std::fs::read_dir(self.dir())
                .into_iter()
                .flatten()
                .flatten()
            {
                if entry.path().extension().is_some_and(|e| e == "log") {
                    let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                    eprintln!("--- {}\n{text}", entry.path().display());
                }
            }
        }
        // Nothing to stop is fine: not every test starts a daemon.
        let _ = self.vshmem(&["down", "--all", "--force"]).output();
    }
}

/// Runs a command and returns its output; fails the test when it does.
pub fn succeed(mut command: Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// What a successful command wrote to stdout.
pub fn stdout_of(command: Command) -> String {
    String::from_utf8(succeed(command).stdout).expect("UTF-8 output")
}

/// Waits until `condition` holds; a minute without it is a failure, not a slow machine.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "waited a minute in vain until {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Numbers of the system calls in which a process waits for another.
const WAITING: [i64; 5] = [
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_futex,
];

/// Whether a process sleeps in a call that waits for others: natively that is the call itself, routed
/// a futex. The number of the call is not enough: one that was woken, but that its processor has not
/// taken up yet, still has that number, while its state is no longer `S`.
pub fn sleeps(pid: i32) -> bool {
    let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let call = read("syscall");
    let number = call.split(' ').next().and_then(|word| word.parse().ok());
    let waiting = number.is_some_and(|number: i64| WAITING.contains(&number));
    // The state follows the name, which may have anything in it, in parentheses.
    let stat = read("stat");
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    waiting && state.is_some_and(|rest| rest.starts_with('S'))
}
