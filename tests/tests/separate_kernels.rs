// SPDX-License-Identifier: MIT OR Apache-2.0
//! Semaphore sets and message queues of domains that do as if each had a kernel of its own, as on Xen: no
//! futex works in a region, and sleepers of other domains are woken by way of doorbells. What programs see is the same, so the
//! tests are those of others, in such worlds.

#[path = "queue_domains.rs"]
mod queue_domains;
#[path = "queue_faults.rs"]
mod queue_faults;
#[path = "queue_storm.rs"]
mod queue_storm;
#[path = "queues.rs"]
mod queues;
#[path = "sem_domains.rs"]
mod sem_domains;
#[path = "sem_faults.rs"]
mod sem_faults;
#[path = "sem_storm.rs"]
mod sem_storm;
#[path = "semaphores.rs"]
mod semaphores;

use vshmem_tests::audit::futexes_of;
use vshmem_tests::conform::Plan;
use vshmem_tests::conform::run::Clock;
use vshmem_tests::conform::test::{assert_routed_as_native, may_run};
use vshmem_tests::conform::{queues as calls_on_queues, sets as calls_on_sets};
use vshmem_tests::kernels::use_separate_kernels;

/// Run before `main`, and so before any test.
#[used]
// SAFETY: the C library calls what it finds there, with arguments that a function need not take.
#[unsafe(link_section = ".init_array")]
static BEFORE_ALL: extern "C" fn() = use_separate_kernels;

/// Of the random scripts, which run in full elsewhere.
const SCRIPTS: u64 = 60;

#[test]
fn routed_calls_on_sets_do_what_the_kernels_do() {
    if may_run() {
        let plan = Plan::from_env(SCRIPTS, || calls_on_sets::generate::scripts(1..=80));
        assert_routed_as_native(&plan, Clock::Loose);
    }
}

#[test]
fn routed_calls_on_queues_do_what_the_kernels_do() {
    if may_run() {
        let plan = Plan::from_env(SCRIPTS, || calls_on_queues::generate::scripts(1..=80));
        assert_routed_as_native(&plan, Clock::Loose);
    }
}

/// Processes that sleep, are woken, interrupted, cancelled and killed, in one domain and in two. Not such as
/// have children that end meanwhile: under strace a sleeper is interrupted by their signal, though it is ignored.
const AUDITED: [(&str, &str); 8] = [
    ("sem_storm", "killed 8 20"),
    ("sem_storm", "random 8 40"),
    ("msg_storm", "killed 8 20"),
    ("sem_wait", "removal_wakes"),
    ("sem_signals", "handlers_interrupt"),
    ("sem_undo", "undo_wakes"),
    ("msg_wait", "senders_sleep_and_wake"),
    ("msg_cancel", "after_a_signal"),
];

#[test]
fn nobody_sleeps_or_is_woken_by_a_futex_in_a_region() {
    let separate = futexes_of(&AUDITED, true);
    assert_eq!(separate.in_regions, 0);
    assert!(separate.in_wait_pages > 100, "{separate:?}");
    // Which shows only where one would be seen.
    let one_kernel = futexes_of(&AUDITED, false);
    assert_eq!(one_kernel.in_wait_pages, 0);
    assert!(one_kernel.in_regions > 100, "{one_kernel:?}");
}
