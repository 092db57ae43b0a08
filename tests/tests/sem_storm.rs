// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many processes of four domains on one set, some of them killed at random moments.

use vshmem_tests::kernels::share;
use vshmem_tests::program::kept_natively_and_in_domains;

const DOMAINS: [&str; 4] = ["a", "b", "c", "d"];

#[test]
fn sixty_four_processes_of_four_domains_exclude_each_other_and_count_exactly() {
    kept_natively_and_in_domains("sem_storm", "exact 64 500", &DOMAINS);
}

#[test]
fn who_is_killed_with_a_mutex_gives_it_back() {
    for _ in 0..share(4) {
        kept_natively_and_in_domains("sem_storm", "killed 32 500", &DOMAINS);
    }
}

#[test]
fn thousands_of_kills_leave_every_value_as_it_was() {
    for _ in 0..share(4) {
        kept_natively_and_in_domains("sem_storm", "random 24 1000", &DOMAINS);
    }
}
