// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests of all kinds of constructs assert.

use super::run::Clock;
use super::{Native, Plan, Routed, Scripted, compare};

/// Whether this process may make IPC namespaces, which every case has one of.
pub fn may_run() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "conformance needs root");
        eprintln!("skipped: conformance needs root (IPC namespaces, changes of user)");
    }
    root
}

/// Asserts that what is routed does what the kernel does, in all cases of `plan`.
pub fn assert_routed_as_native<S: Scripted>(plan: &Plan<S>, clock: Clock) {
    let native = || Native(clock);
    let routed = || Routed::new(clock, "all,private");
    if let Err(difference) = compare(plan, native, routed) {
        panic!("{difference}");
    }
}

/// Asserts that the kernel does the same as itself in all cases of `plan`, and that these reach
/// each of `wanted`, which has the form `CALL OUTCOME`.
pub fn assert_kernel_reaches<S: Scripted>(plan: &Plan<S>, wanted: &[&str]) {
    let native = || Native(Clock::Loose);
    let outcomes = compare(plan, native, native).unwrap_or_else(|d| panic!("{d}"));
    let missing: Vec<_> = wanted
        .iter()
        .filter(|&&wanted| !outcomes.contains_key(wanted))
        .collect();
    assert!(
        missing.is_empty(),
        "never seen: {missing:?} of {outcomes:#?}"
    );
}
