// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask deb`: the Debian package, packed by cargo-deb of what is described in `crates/cli/Cargo.toml`.

use crate::{Result, man, packages, project};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version of cargo-deb that packs; it is built below `target` once.
const CARGO_DEB: &str = "3.8.0";
/// Bytes that the library may have when it is stripped: it is loaded into other people's programs.
const LIBRARY_LIMIT: u64 = 1 << 20;
/// Shells, and what their completions are called where they look for them.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "vshmem"),
    ("zsh", "_vshmem"),
    ("fish", "vshmem.fish"),
];

/// Builds the package and returns it.
pub fn deb() -> Result<PathBuf> {
    packages::require(["dpkg-dev", "xz-utils", "binutils"])?;
    project::build()?;
    man::man()?;
    completions()?;
    judge_library()?;
    let tool = cargo_deb()?;
    let package = project::root().join("target/debian/vshmem.deb");
    let mut pack = Command::new(tool);
    pack.current_dir(project::root())
        .args(["-p", "vshmem-cli", "--no-build", "--no-dbgsym", "--quiet"])
        .arg("--output")
        .arg(&package);
    project::run(&mut pack)?;
    Ok(package)
}

/// cargo-deb, which is built if it is not there.
fn cargo_deb() -> Result<PathBuf> {
    let root = project::root()
        .join("target/tools")
        .join(format!("cargo-deb-{CARGO_DEB}"));
    let tool = root.join("bin/cargo-deb");
    if !tool.exists() {
        // Without the library for xz, in whose place it runs xz.
        let mut install =
            project::cargo(["install", "--quiet", "--locked", "--no-default-features"])?;
        install
            .args(["--version", CARGO_DEB, "--root"])
            .arg(&root)
            .arg("cargo-deb");
        project::run(&mut install)?;
    }
    Ok(tool)
}

/// Writes the completions of all shells to `target/completions`.
fn completions() -> Result<()> {
    let out = project::root().join("target/completions");
    let fail = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    std::fs::create_dir_all(&out).map_err(|e| fail(&out, e))?;
    for (shell, file) in COMPLETIONS {
        let mut command = Command::new(project::bin_dir()?.join("vshmem"));
        command.args(["completions", shell]);
        let output = command
            .output()
            .map_err(|e| project::cannot_run(&command, &e))?;
        project::judge(&command, output.status)?;
        let path = out.join(file);
        std::fs::write(&path, output.stdout).map_err(|e| fail(&path, e))?;
    }
    Ok(())
}

/// Refuses a library that has grown too large.
fn judge_library() -> Result<()> {
    let library = project::bin_dir()?.join("libvshmem.so");
    let stripped = project::root().join("target/libvshmem-stripped.so");
    project::run(
        Command::new("strip")
            .arg("--strip-unneeded")
            .arg("-o")
            .arg(&stripped)
            .arg(&library),
    )?;
    let size = std::fs::metadata(&stripped)
        .map_err(|e| format!("{}: {e}", stripped.display()))?
        .len();
    if size >= LIBRARY_LIMIT {
        return Err(format!(
            "libvshmem.so has {size} bytes when it is stripped, and may have less than {LIBRARY_LIMIT}: \
             see what has come into it (cargo bloat)"
        ));
    }
    eprintln!("xtask: libvshmem.so has {size} bytes when it is stripped");
    Ok(())
}
