// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests share: worlds of their own, programs compiled from `tests/c`, and where the
//! built binaries are.

pub mod actor;
pub mod audit;
pub mod conform;
pub mod guests;
pub mod kernels;
pub mod program;
mod world;

pub use world::World;

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

/// Whether this runs in a guest, among others ([`guests`]).
pub fn in_guests() -> bool {
    std::env::var_os(guests::ENV_GUESTS).is_some()
}

/// Compiles `tests/c/NAME.c` (once a change of its source or of a header) and returns the program. In
/// guests, where there is no compiler, they have been compiled before.
pub fn cc(name: &str) -> PathBuf {
    if let Some(programs) = std::env::var_os(guests::ENV_PROGRAMS) {
        return PathBuf::from(programs).join(name);
    }
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

/// Copies a program that is to be run. A process of its own does it: this one's file, open for writing, would be
/// inherited by what another test's thread starts meanwhile, and who runs it then gets ETXTBSY.
pub fn copy_program(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    command.arg(from).arg(to);
    succeed(command);
}

/// Copies the project's programs and library to where every user can reach them, which where they were built need not be.
pub fn copy_product(dir: &Path) {
    for name in ["vshmem", "vshmemd", "libvshmem.so"] {
        copy_program(&bin(name), &dir.join(name));
    }
}

/// What a successful command wrote to stdout.
pub fn stdout_of(command: Command) -> String {
    String::from_utf8(succeed(command).stdout).expect("UTF-8 output")
}

/// Waits until `condition` holds; a minute without it, or five in a guest, which may be emulated, is a
/// failure, not a slow machine.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    let patience = Duration::from_secs(if in_guests() { 300 } else { 60 });
    while !condition() {
        assert!(
            start.elapsed() < patience,
            "waited {patience:?} in vain until {what}"
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
/// taken up yet, still has that number, while its state is no longer `S`. Nor is the state, looked at
/// later: it may sleep elsewhere by then.
pub fn sleeps(pid: i32) -> bool {
    if let Some(far) = guests::far(pid.cast_unsigned()) {
        return matches!(
            far.ask(&guests::Ask::Sleeps(far.pid)),
            guests::Answer::Is(true)
        );
    }
    let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let call = read("syscall");
    let number = call.split(' ').next().and_then(|word| word.parse().ok());
    let waiting = number.is_some_and(|number: i64| WAITING.contains(&number));
    // The state follows the name, which may have anything in it, in parentheses.
    let stat = read("stat");
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    waiting && state.is_some_and(|rest| rest.starts_with('S')) && read("syscall") == call
}
