// SPDX-License-Identifier: MIT OR Apache-2.0
//! The project's places and the building of what is run.

use crate::Result;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// What a user of Vshmem runs.
const PACKAGES: [&str; 3] = ["vshmem-cli", "vshmem-daemon", "vshmem-preload"];

/// The root of the project.
pub fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own)
}

/// Where cargo puts release builds: the alias in `.cargo/config.toml` has this program built there.
pub fn bin_dir() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(|e| format!("cannot tell where xtask is: {e}"))?;
    match own.parent() {
        Some(dir) if dir.ends_with("release") => Ok(dir.to_owned()),
        _ => Err("run it as `cargo xtask`, which builds it for release".into()),
    }
}

/// A cargo command in the project, with `VSHMEM_BIN_DIR` set for the tests and benchmarks.
pub fn cargo<const N: usize>(args: [&str; N]) -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(args)
        .current_dir(root())
        .env("VSHMEM_BIN_DIR", bin_dir()?);
    Ok(command)
}

/// Builds the command, the daemon and the library for release, and the C programs that need no more
/// than a compiler.
pub fn build() -> Result<()> {
    let mut build = cargo(["build", "--release"])?;
    for package in PACKAGES {
        build.args(["-p", package]);
    }
    run(&mut build)?;
    let mut make = Command::new("make");
    run(make.arg("-sC").arg(root().join("dwarfs-c")).arg("basic"))
}

/// A C program of `dwarfs-c`.
pub fn dwarf(name: &str) -> PathBuf {
    root().join("dwarfs-c").join(name)
}

/// Runs a command to its end; a failing one is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|e| cannot_run(command, &e))?;
    judge(command, status)
}

/// The error for a command that does not start.
pub fn cannot_run(command: &Command, error: &std::io::Error) -> String {
    format!("cannot run {}: {error}", shown(command))
}

/// The error for a command that failed.
pub fn judge(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() {
        Ok(())
    } else {
        Err(format!("{} failed ({status})", shown(command)))
    }
}

/// A command as a person would type it, its program without directories.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words: Vec<_> = std::iter::once(name)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_where_the_workspace_is() {
        assert!(root().join("crates/xtask/Cargo.toml").exists());
    }

    #[test]
    fn a_failed_command_is_named_as_it_was_typed() {
        let error = run(Command::new("/bin/sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error, "sh -c exit 3 failed (exit status: 3)");
    }
}
