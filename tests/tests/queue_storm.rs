// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many processes of four domains on one queue, some of them killed at random moments.

use vshmem_tests::kernels::share;
use vshmem_tests::program::kept_natively_and_in_domains;

const DOMAINS: [&str; 4] = ["a", "b", "c", "d"];

#[test]
fn sixty_four_processes_of_four_domains_get_each_message_once() {
    kept_natively_and_in_domains("msg_storm", "exact 64 2000", &DOMAINS);
}

#[test]
fn many_processes_of_which_any_may_be_killed_get_whole_messages_and_none_twice() {
    for _ in 0..share(2) {
        kept_natively_and_in_domains("msg_storm", "killed 32 500", &DOMAINS);
    }
}

#[test]
fn a_thousand_kills_leave_the_queue_as_large_as_it_was() {
    for _ in 0..share(2) {
        kept_natively_and_in_domains("msg_storm", "killed 24 1000", &DOMAINS);
    }
}
