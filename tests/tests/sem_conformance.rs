// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same scripts of calls on semaphore sets on the kernel and routed: traces must be equal.

use vshmem_tests::conform::Plan;
use vshmem_tests::conform::run::Clock;
use vshmem_tests::conform::sets::generate::scripts;
use vshmem_tests::conform::test::{assert_kernel_reaches, assert_routed_as_native, may_run};

#[test]
fn routed_calls_on_sets_do_what_the_kernels_do() {
    if !may_run() {
        return;
    }
    let plan = Plan::from_env(300, || scripts(1..=80));
    assert_routed_as_native(&plan, Clock::Loose);
}

/// What random scripts must reach to be worth their while: the errors that the man pages name,
/// success, and sleep.
const WANTED: [&str; 51] = [
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
    "Wake EIDRM",
    "Wake EINTR",
    "Wake done",
];

#[test]
fn the_kernel_agrees_with_itself_on_sets_in_all_that_can_happen() {
    if !may_run() {
        return;
    }
    let plan = Plan::from_env(400, || scripts(1..=80));
    assert_kernel_reaches(&plan, &WANTED);
}
