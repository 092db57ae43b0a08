// SPDX-License-Identifier: MIT OR Apache-2.0
//! `docs/xenstore-paths.md` describes every path of XenStore that the code knows, and the code knows
//! them from one place. This check fails when it is not so any more.

use std::path::{Path, PathBuf};
use vshmem_registry::xenstore::paths;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn every_path_has_a_row_in_the_document() {
    let page = project().join("docs/xenstore-paths.md");
    let page = std::fs::read_to_string(page).expect("docs/xenstore-paths.md");
    for path in paths::ALL {
        let row = format!("| `{path}` |");
        assert!(page.contains(&row), "no row that begins with {row}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    for row in rows {
        let path = row.split('`').nth(1).unwrap();
        // The rows of messages are in the same place as their box.
        let known = paths::ALL.contains(&path.trim_end_matches("/<n>"));
        assert!(known, "{path} is in the document and nowhere else");
    }
}

#[test]
fn no_path_is_written_down_elsewhere_in_the_code() {
    let mut files = Vec::new();
    for dir in ["crates/registry/src", "crates/daemon/src"] {
        collect(&project().join(dir), &mut files);
    }
    assert!(files.len() > 40, "where has the code gone?");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        // Tests name paths to look at them.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            let comment = line.trim_start().starts_with("//");
            let literals = ["\"/vshmem", "\"/local", "\"data/", "\"@"];
            let named = literals.iter().any(|literal| line.contains(literal));
            let place = format!("{}:{}", file.display(), number + 1);
            assert!(comment || !named, "{place}: a path of XenStore: {line}");
        }
    }
}

/// The files of a directory, but for the paths themselves, the fake, and tests.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if ["tests", "tests.rs", "fake", "fake.rs", "paths.rs"].contains(&name) {
            continue;
        }
        match path.is_dir() {
            true => collect(&path, files),
            false => files.push(path),
        }
    }
}
