// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the man pages say, beside what there is.

use std::process::Command;
use vshmem_tests::{bin, root, stdout_of};

#[test]
fn the_page_of_the_library_has_every_function_that_it_takes_over() {
    let page = std::fs::read_to_string(root().join("docs/man/libvshmem.7")).expect("page");
    let words: Vec<_> = page
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .collect();
    let mut nm = Command::new("nm");
    nm.args(["-D", "--defined-only", "--format=just-symbols"])
        .arg(bin("libvshmem.so"));
    let symbols = stdout_of(nm);
    assert!(
        symbols.lines().any(|symbol| symbol == "shmget"),
        "{symbols}"
    );
    for symbol in symbols.lines() {
        assert!(words.contains(&symbol), "{symbol}");
    }
}
