// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same scripts of calls on the kernel and routed: traces must be equal.

use vshmem_tests::conform::generate::{scripts, timed_scripts};
use vshmem_tests::conform::run::{Clock, INDENT};
use vshmem_tests::conform::script::{Call, Step};
use vshmem_tests::conform::{Native, Plan, Routed, Side, compare};

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
fn routed_calls_do_what_the_kernels_do() {
    if !may_run() {
        return;
    }
    let plan = Plan::from_env(500, || scripts(1..=100));
    let native = || Native(Clock::Loose);
    let routed = || Routed::new(Clock::Loose, "all,private");
    if let Err(difference) = compare(&plan, native, routed) {
        panic!("{difference}");
    }
}

#[test]
fn calls_with_keys_that_are_not_routed_are_the_kernels() {
    if !may_run() {
        return;
    }
    for keys in ["", "0x1"] {
        let plan = Plan::from_env(100, || scripts(1..=100));
        let native = || Native(Clock::Loose);
        let local = || Routed::new(Clock::Loose, keys);
        if let Err(difference) = compare(&plan, native, local) {
            panic!("VSHMEM_KEYS={keys}: {difference}");
        }
    }
}

#[test]
fn times_change_with_the_same_calls_as_the_kernels() {
    if !may_run() {
        return;
    }
    // Every step takes a second, so that each can be told by its time; many cases at once.
    let plan = Plan {
        workers: 12,
        ..Plan::from_env(24, || timed_scripts(1..=25))
    };
    let native = || Native(Clock::Steps);
    let routed = || Routed::new(Clock::Steps, "all,private");
    if let Err(difference) = compare(&plan, native, routed) {
        panic!("{difference}");
    }
}

/// What random scripts must reach to be worth their while: the errors that the man pages name,
/// and success.
const WANTED: [&str; 39] = [
    "Attach EACCES",
    "Attach EINVAL",
    "Attach ENOMEM",
    "Attach done",
    "Become done",
    "CloseAll done",
    "Control EINVAL",
    "Control EPERM",
    "Control done",
    "Detach EINVAL",
    "Detach done",
    "Exec up",
    "Get EACCES",
    "Get EEXIST",
    "Get EINVAL",
    "Get ENOENT",
    "Get ENOMEM",
    "Get done",
    "Leave ended",
    "Limits EFAULT",
    "Limits done",
    "New born",
    "Protect ENOMEM",
    "Protect done",
    "Read SEGV",
    "Read done",
    "Set EFAULT",
    "Set EINVAL",
    "Set EPERM",
    "Set done",
    "Stat EACCES",
    "Stat EFAULT",
    "Stat EINVAL",
    "Stat done",
    "Stat unlisted",
    "Totals EFAULT",
    "Totals done",
    "Write SEGV",
    "Write done",
];

#[test]
fn the_kernel_agrees_with_itself_in_all_that_can_happen() {
    if !may_run() {
        return;
    }
    let plan = Plan::from_env(400, || scripts(1..=100));
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

/// A kernel that refuses every second removal.
struct Altered(Native);

impl Side for Altered {
    fn trace(&mut self, script: &[Step]) -> Vec<String> {
        let mut trace = self.0.trace(script);
        let removals = trace
            .iter_mut()
            .filter(|line| !line.starts_with(INDENT))
            .filter(|line| line.contains("IPC_RMID") && line.ends_with("-> 0 -"));
        for line in removals.skip(1).step_by(2) {
            *line = line.replace("-> 0 -", "-> -1 EINVAL");
        }
        trace
    }
}

#[test]
fn a_difference_is_found_and_shrunk_to_the_calls_that_it_takes() {
    if !may_run() {
        return;
    }
    let plan = Plan::from_env(400, || scripts(1..=100));
    let native = || Native(Clock::Loose);
    let altered = || Altered(Native(Clock::Loose));
    let difference = compare(&plan, native, altered).expect_err("the sides differ");
    // Of two segments each is removed; or of one that lives on, attached, twice.
    let count = |wanted: fn(&Call) -> bool| {
        let calls = difference.script.iter().map(|step| &step.call);
        calls.filter(|call| wanted(call)).count()
    };
    let removals = count(|call| matches!(call, Call::Control { .. }));
    let others = count(|call| matches!(call, Call::Get { .. } | Call::Attach { .. }));
    assert_eq!((removals, others), (2, 2), "{difference}");
    assert_eq!(difference.script.len(), 4, "{difference}");
    let lines = difference.left.iter().zip(&difference.right);
    let (left, right) = lines
        .into_iter()
        .find(|(l, r)| l != r)
        .expect("a line that differs");
    assert!(left.ends_with("-> 0 -") && right.ends_with("-> -1 EINVAL"));
}
