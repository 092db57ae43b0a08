// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same scripts of calls on semaphore sets on the kernel and routed: traces must be equal.

use vshmem_tests::conform::run::Clock;
use vshmem_tests::conform::sets::generate::scripts;
use vshmem_tests::conform::{Native, Plan, Routed, compare};

/// Whether this process may make IPC namespaces, which every case has one of.
fn may_run() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "conformance needs root");
        eprintln!("skipped: conformance needs root (IPC namespaces, changes of user)");
    }
    root
}

#[test]
fn routed_calls_on_sets_do_what_the_kernels_do() {
    if !may_run() {
        return;
    }
    let plan = Plan::from_env(300, || scripts(1..=80));
    let native = || Native(Clock::Loose);
    let routed = || Routed::new(Clock::Loose, "all,private");
    if let Err(difference) = compare(&plan, native, routed) {
        panic!("{difference}");
    }
}

/// What random scripts must reach to be worth their while: the errors that the man pages name,
/// success, and sleep.
const WANTED: [&str; 48] = [
    "BadOp E2BIG",
    "BadOp EFAULT",
    "BadOp EFBIG",
    "BadOp EINVAL",
    "Become EPERM",
    "Become done",
    "CloseAll done",
    "Control EINVAL",
    "Control EPERM",
    "Control done",
    "Exec up",
    "Get EACCES",
    "Get EEXIST",
    "Get EINVAL",
    "Get ENOENT",
    "Get done",
    "GetAll EACCES",
    "GetAll EFAULT",
    "GetAll done",
    "Leave ended",
    "Limits EFAULT",
    "Limits done",
    "New born",
    "Number EACCES",
    "Number EINVAL",
    "Number done",
    "Op EACCES",
    "Op EAGAIN",
    "Op EFAULT",
    "Op EFBIG",
    "Op EINVAL",
    "Op ERANGE",
    "Op asleep",
    "Op done",
    "Set EFAULT",
    "Set EPERM",
    "Set done",
    "SetAll EACCES",
    "SetAll EFAULT",
    "SetAll ERANGE",
    "SetAll done",
    "SetVal EACCES",
    "SetVal EINVAL",
    "SetVal ERANGE",
    "SetVal done",
    "Signal sent",
    "Stat EACCES",
    "Stat done",
];

#[test]
fn the_kernel_agrees_with_itself_on_sets_in_all_that_can_happen() {
    if !may_run() {
        return;
    }
    let plan = Plan::from_env(400, || scripts(1..=80));
    let native = || Native(Clock::Loose);
    let outcomes = compare(&plan, native, native).unwrap_or_else(|d| panic!("{d}"));
    let missing: Vec<_> = WANTED
        .iter()
        .filter(|&&wanted| !outcomes.contains_key(wanted))
        .collect();
    assert!(
        missing.is_empty(),
        "never seen: {missing:?} of {outcomes:#?}"
    );
}
