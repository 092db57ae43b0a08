// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory of what commands in the domains need (`--files`), and a run of the lab with it.

use super::Kind;
use crate::{Result, project};
use std::path::Path;
use std::process::Command;

/// An empty directory.
pub fn fresh(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {e}", dir.display()))
        }
        _ => std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display())),
    }
}

/// Copies a program without what only a debugger wants.
pub fn copy(from: &Path, dir: &Path, name: &str) -> Result<()> {
    let mut strip = Command::new("strip");
    strip.args(["--strip-debug", "-o"]).arg(dir.join(name));
    project::run(strip.arg(from))
}

/// `cargo xtask lab run` with guests on a network, these files, and so many seconds; commands are to be added.
pub fn on_network(kind: Kind, guests: usize, limit: u32, files: &Path) -> Result<Command> {
    let this = std::env::current_exe().map_err(|e| format!("which program this is: {e}"))?;
    let mut lab = Command::new(this);
    lab.args(["lab", "run", "--network", "--guest", kind.word()]);
    lab.args(["--domains", &guests.to_string()]);
    lab.args(["--timeout", &limit.to_string()]);
    lab.arg("--files").arg(files);
    Ok(lab)
}

/// What has a guest grant many pages: more than tests and measurements need at a time.
pub fn more_grants() -> &'static str {
    "echo 60000 >/sys/module/xen_gntalloc/parameters/limit"
}
