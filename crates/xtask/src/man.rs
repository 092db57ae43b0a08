// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask man`: the man pages. Those of the command and its subcommands are written from its command
//! line, the others are in `docs/man` as they are.

use crate::{Result, packages, project};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Writes all pages to `target/man`, has them looked at for mistakes, and returns them.
pub fn man() -> Result<Vec<PathBuf>> {
    packages::require(["mandoc"])?;
    let (out, sources) = (
        project::root().join("target/man"),
        project::root().join("docs/man"),
    );
    let fail = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    if out.exists() {
        std::fs::remove_dir_all(&out).map_err(|e| fail(&out, e))?;
    }
    let mut generator = project::cargo([
        "run",
        "--quiet",
        "-p",
        "vshmem-cli",
        "--example",
        "man",
        "--",
    ])?;
    project::run(generator.arg(&out).arg(&sources))?;
    let list = |dir: &Path| -> Result<Vec<PathBuf>> {
        let entries = dir.read_dir().map_err(|e| fail(dir, e))?;
        entries
            .map(|entry| Ok(entry.map_err(|e| fail(dir, e))?.path()))
            .collect()
    };
    for page in list(&sources)?
        .iter()
        .filter(|path| section(path).is_some())
    {
        if let Some(name) = page.file_name() {
            std::fs::copy(page, out.join(name)).map_err(|e| fail(page, e))?;
        }
    }
    let mut pages = list(&out)?;
    pages.sort();
    project::run(
        Command::new("mandoc")
            .args(["-T", "lint", "-W", "warning"])
            .args(&pages),
    )?;
    Ok(pages)
}

/// The section of the manual that a page belongs to, if the file is one.
pub fn section(page: &Path) -> Option<char> {
    let extension = page.extension()?.to_str()?;
    let mut characters = extension.chars();
    let section = characters.next().filter(char::is_ascii_digit)?;
    characters.next().is_none().then_some(section)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_file_that_ends_in_a_section() {
        for (file, want) in [
            ("a.b.5", Some('5')),
            ("vshmem-rm.man", None),
            ("a.1x", None),
            ("7", None),
        ] {
            assert_eq!(section(Path::new(file)), want, "{file}");
        }
    }
}
