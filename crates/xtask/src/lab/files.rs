// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory of what commands in the domains need (`--files`).

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
