// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shared libraries that programs in a tree need, found by the loader itself.

use super::tree::Tree;
use crate::{Result, project};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The loader of programs for x86-64, at the place where they look for it.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// Where libraries go: the loader looks there.
const PLACE: &str = "lib/x86_64-linux-gnu";

/// Adds to a tree the loader, and the libraries that the programs and libraries in it name, from
/// `packages` before any of this machine.
pub fn add(tree: &mut Tree, packages: &Path) -> Result<()> {
    tree.file(LOADER, Path::new(LOADER))?;
    let mut found = BTreeSet::new();
    // Loaded when a thread is cancelled; no program names it.
    found.extend(named(
        tree,
        "libgcc_s.so.1",
        Path::new("/lib/x86_64-linux-gnu"),
    ));
    let programs: Vec<(String, PathBuf)> = tree
        .files()
        .filter(|(path, _)| !path.starts_with("boot/") && !path.ends_with(".ko"))
        .map(|(path, from)| (path.to_owned(), from.to_owned()))
        .collect();
    let own: BTreeSet<&Path> = programs.iter().map(|(_, from)| from.as_path()).collect();
    for (path, program) in &programs {
        for library in needed(path, program, packages)? {
            if !own.contains(library.as_path()) {
                found.insert(library);
            }
        }
    }
    for library in found {
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        tree.file(&format!("{PLACE}/{name}"), &library)?;
    }
    Ok(())
}

/// Adds a library by its name, for programs that load it while they run.
pub fn add_named(tree: &mut Tree, name: &str, dir: &Path) -> Result<()> {
    match named(tree, name, dir) {
        Some(from) => tree.file(&format!("{PLACE}/{name}"), &from),
        None => Err(format!("{} has no {name}", dir.display())),
    }
}

fn named(tree: &Tree, name: &str, dir: &Path) -> Option<PathBuf> {
    let from = dir.join(name);
    (from.exists() && !tree.has(&format!("{PLACE}/{name}"))).then_some(from)
}

/// What one program or library needs; nothing if it is neither.
fn needed(path: &str, program: &Path, packages: &Path) -> Result<Vec<PathBuf>> {
    let loader = |how: &str| {
        let mut loader = Command::new(LOADER);
        loader.args([
            Path::new("--library-path"),
            packages,
            Path::new(how),
            program,
        ]);
        loader.stderr(Stdio::null()).env_remove("LD_PRELOAD");
        loader
    };
    let mut verify = loader("--verify");
    let status = verify
        .stdout(Stdio::null())
        .status()
        .map_err(|e| project::cannot_run(&verify, &e))?;
    // 0: a program, 2: a library; else a static program, or no program at all.
    if !matches!(status.code(), Some(0 | 2)) {
        return Ok(Vec::new());
    }
    let mut list = loader("--list");
    let output = list.output().map_err(|e| project::cannot_run(&list, &e))?;
    resolved(&String::from_utf8_lossy(&output.stdout)).map_err(|missing| {
        format!(
            "/{path} needs {missing}, which is not on this machine ({})",
            program.display()
        )
    })
}

/// Reads a list as the loader prints it; an error is the name of a library that was not found.
fn resolved(list: &str) -> std::result::Result<Vec<PathBuf>, String> {
    list.lines()
        .filter_map(|line| line.trim().split_once(" => "))
        .map(|(name, found)| match found.split(" (").next() {
            Some(path) if path.starts_with('/') => Ok(path.into()),
            _ => Err(name.to_owned()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_gives_the_paths_and_leaves_out_the_loader() {
        let list = "\tlinux-vdso.so.1 (0x00007f8d54a7e000)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f8d54742000)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f8d54a80000)\n";
        let paths = [PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6")];
        assert_eq!(resolved(list).unwrap(), paths);
    }

    #[test]
    fn a_library_that_is_not_there_is_named() {
        assert_eq!(resolved("\tlibx.so => not found\n").unwrap_err(), "libx.so");
    }

    #[test]
    fn a_text_needs_nothing_and_a_program_its_c_library() {
        let none = Path::new("/nowhere");
        assert!(needed("x", Path::new(file!()), none).unwrap().is_empty());
        let own = std::env::current_exe().unwrap();
        let libraries = needed("x", &own, none).unwrap();
        assert!(libraries.iter().any(|l| l.ends_with("libc.so.6")));
    }
}
