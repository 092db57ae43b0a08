// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the daemon and the library are: beside this command as cargo builds them, or where a
//! package puts them.

use crate::{Doing, Failure};
use std::path::{Path, PathBuf};

/// The directory that Debian names after the machine, under `lib`.
fn multiarch() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}

/// The daemon.
pub fn vshmemd() -> Result<PathBuf, Failure> {
    find(
        "vshmemd",
        &own_dir()?,
        &["../sbin", "../libexec", "/usr/sbin", "/usr/libexec"].map(PathBuf::from),
    )
}

/// The client library, by a path that `LD_PRELOAD` can hold.
pub fn library() -> Result<PathBuf, Failure> {
    let arch = multiarch();
    let library = find(
        "libvshmem.so",
        &own_dir()?,
        &[
            Path::new("../lib").join(&arch),
            PathBuf::from("../lib"),
            Path::new("/usr/lib").join(&arch),
        ],
    )?;
    // ld.so(8): the list is separated by spaces or colons, and nothing escapes them.
    if library.to_string_lossy().contains([' ', ':']) {
        return Err(Failure::new(format!(
            "LD_PRELOAD cannot hold the path '{}'; install Vshmem where the path has no space \
             and no colon",
            library.display()
        )));
    }
    Ok(library)
}

fn own_dir() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().doing(|| "cannot tell where vshmem is".into())?;
    Ok(own.parent().unwrap_or(Path::new("/")).to_owned())
}

/// Looks for `name` in `own` and then in `others`, of which relative ones are meant from `own`.
fn find(name: &str, own: &Path, others: &[PathBuf]) -> Result<PathBuf, Failure> {
    let places = || std::iter::once(own.to_owned()).chain(others.iter().map(|dir| own.join(dir)));
    let found = places()
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .and_then(|path| path.canonicalize().ok());
    found.ok_or_else(|| {
        let places: Vec<_> = places().map(|dir| dir.display().to_string()).collect();
        Failure::new(format!(
            "{name} is neither beside vshmem nor installed (looked in {}); build it with \
             `cargo build --release`",
            places.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_the_command_comes_before_what_is_installed() {
        let root = tempfile::tempdir().unwrap();
        let (bin, lib) = (root.path().join("bin"), root.path().join("lib"));
        for dir in [&bin, &lib] {
            std::fs::create_dir(dir).unwrap();
            std::fs::write(dir.join("thing"), "").unwrap();
        }
        let others = [PathBuf::from("../lib")];
        assert_eq!(find("thing", &bin, &others).unwrap(), bin.join("thing"));
        std::fs::remove_file(bin.join("thing")).unwrap();
        assert_eq!(find("thing", &bin, &others).unwrap(), lib.join("thing"));
    }

    #[test]
    fn what_is_nowhere_is_reported_with_all_places_that_were_looked_in() {
        let text = find("thing", Path::new("/a"), &["/b".into(), "../c".into()])
            .unwrap_err()
            .text;
        assert!(text.contains("/a, /b, /a/../c"), "{text}");
    }
}
