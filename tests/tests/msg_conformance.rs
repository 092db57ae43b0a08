// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same scripts of calls on message queues on the kernel and routed: traces must be equal.

use vshmem_tests::conform::Plan;
use vshmem_tests::conform::queues::generate::scripts;
use vshmem_tests::conform::run::Clock;
use vshmem_tests::conform::test::{assert_kernel_reaches, assert_routed_as_native, may_run};

#[test]
fn routed_calls_on_queues_do_what_the_kernels_do() {
    if !may_run() {
        return;
    }
    let plan = Plan::from_env(300, || scripts(1..=80));
    assert_routed_as_native(&plan, Clock::Loose);
}

/// What random scripts must reach to be worth their while: the errors that the man pages name,
/// success, and sleep.
const WANTED: [&str; 44] = [
    "Become EPERM",
    "Become done",
    "CloseAll done",
    "Control EINVAL",
    "Control EPERM",
    "Control done",
    "Exec up",
    "Get EACCES",
    "Get EEXIST",
    "Get ENOENT",
    "Get done",
    "Leave ended",
    "Limits EFAULT",
    "Limits done",
    "New born",
    "Receive E2BIG",
    "Receive EACCES",
    "Receive EFAULT",
    "Receive EINVAL",
    "Receive ENOMSG",
    "Receive asleep",
    "Receive done",
    "Send EACCES",
    "Send EAGAIN",
    "Send EFAULT",
    "Send EINVAL",
    "Send asleep",
    "Send done",
    "Set EFAULT",
    "Set EINVAL",
    "Set EPERM",
    "Set done",
    "Signal sent",
    "Stat EACCES",
    "Stat EFAULT",
    "Stat done",
    "Totals EFAULT",
    "Totals done",
    "Wake E2BIG",
    "Wake EACCES",
    "Wake EFAULT",
    "Wake EIDRM",
    "Wake EINTR",
    "Wake done",
];

#[test]
fn the_kernel_agrees_with_itself_on_queues_in_all_that_can_happen() {
    if !may_run() {
        return;
    }
    let plan = Plan::from_env(400, || scripts(1..=80));
    assert_kernel_reaches(&plan, &WANTED);
}
