// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask miri`: the algorithms on shared memory, interpreted. Not a part of the tests, since
//! stable Rust has no Miri.

use crate::{Result, project};
use std::process::Command;

/// What is left out: tests that map memory or ask the kernel for more than Miri knows, those that a
/// model checker runs in all orders already, and those that try thousands of cases.
const LEFT_OUT: [&str; 11] = [
    "attach::",
    "client_page::",
    "death_mark::",
    "directory::",
    "mapping::",
    "wait_page::",
    "a_sleeper_of_another_domain_is_woken",
    "of_two_that_ring_at_the_same_time",
    "::tests::threads::",
    "::tests::hostile::",
    "a_death_at_any_store",
];

/// Runs the engine's tests, with few random cases each.
pub fn miri() -> Result<()> {
    let mut command = Command::new("cargo");
    command
        .current_dir(project::root())
        .env("MIRIFLAGS", "-Zmiri-disable-isolation")
        .env("PROPTEST_CASES", "4")
        .args(["+nightly", "miri", "test", "-p", "vshmem-engine", "--lib"])
        .arg("--");
    for name in LEFT_OUT {
        command.args(["--skip", name]);
    }
    project::run(&mut command)
}
