// SPDX-License-Identifier: MIT OR Apache-2.0
//! Semaphore sets: each program first with the kernel's own calls, then routed.

use vshmem_tests::kernels::portions;
use vshmem_tests::program::{is_root, kept_natively_and_routed};

vshmem_tests::scenarios! {
    semget_looks_at_flags_and_numbers_as_the_kernel_does: "sem_rules" "get_rules";
    private_sets_are_shared_over_fork: "sem_rules" "private_sets";
    a_set_may_have_as_many_semaphores_as_the_kernels: "sem_rules" "largest_set";
    a_call_may_have_as_many_operations_as_the_kernels: "sem_rules" "most_operations";
    operations_of_a_call_happen_together_and_in_order: "sem_rules" "operations_are_one";
    operations_that_cannot_be_have_the_kernels_errors: "sem_rules" "operation_errors";
    adjustments_have_a_range: "sem_rules" "undo_errors";
    semctl_looks_at_its_arguments_in_the_kernels_order: "sem_rules" "control_rules";
    ipc_set_changes_owner_and_mode_alone: "sem_rules" "owner_and_mode";
    times_change_with_the_kernels_calls: "sem_rules" "times";
    limits_totals_and_listings_are_right: "sem_rules" "information";
    system_calls_by_number_are_the_same: "sem_rules" "raw_calls";
    errno_and_signal_mask_are_kept_by_calls_that_succeed: "sem_rules" "errno_and_mask_are_kept";
    threads_count_together: "sem_rules" "threads_count_together";

    who_must_wait_sleeps_until_it_can: "sem_wait" "blocks_and_wakes";
    what_a_sleeper_was_given_nobody_else_gets: "sem_wait" "given_is_given";
    sleepers_are_served_in_their_order: "sem_wait" "first_come_first_served";
    sleepers_with_one_and_with_several_operations_stand_in_one_order:
        "sem_wait" "simple_and_complex";
    who_waits_for_zero_is_served_before_who_takes: "sem_wait" "zero_before_decrement";
    sleepers_fail_when_their_operations_come_to_be_wrong: "sem_wait" "sleepers_may_fail";
    setval_and_setall_wake: "sem_wait" "setting_wakes";
    removal_wakes_with_eidrm: "sem_wait" "removal_wakes";
    timeouts_end_the_wait_and_bad_ones_are_refused: "sem_wait" "timeouts";
    a_sleeper_that_is_killed_is_neither_counted_nor_served: "sem_wait" "killed_sleepers";
    sleepers_use_no_processor_time: "sem_wait" "sleepers_sleep";
    a_post_for_one_disturbs_nobody_else: "sem_wait" "one_is_disturbed";
    sleeping_threads_go_with_their_process: "sem_wait" "other_threads_end_it";
    two_processes_take_turns: "sem_wait" "ping_pong";
    threads_sleep_on_their_own: "sem_wait" "threads_sleep_on_their_own";
    hundreds_sleep_at_once: "sem_wait" "many_sleepers";

    handlers_interrupt_with_and_without_sa_restart: "sem_signals" "handlers_interrupt";
    stopping_and_going_on_interrupts: "sem_signals" "stopping_interrupts";
    who_is_stopped_gets_all_or_nothing: "sem_signals" "stopped_processes_get_all_or_nothing";
    ignored_and_blocked_signals_do_not_interrupt: "sem_signals" "ignored_signals_do_not";
    jumping_out_of_a_handler_ends_the_wait: "sem_signals" "jumping_out_ends_it";
    handlers_may_use_the_set_that_they_interrupted: "sem_signals" "handlers_use_the_same_set";
    waits_in_handlers_are_interrupted_too: "sem_signals" "handlers_are_interrupted_too";
    a_signal_interrupts_the_thread_that_handles_it: "sem_signals" "only_the_thread_that_it_is_for";
    a_thread_is_not_cancelled_in_semop: "sem_signals" "semop_is_no_cancellation_point";
    fatal_signals_end_a_sleeper: "sem_signals" "fatal_signals_end_it";
    handlers_may_use_the_set_at_any_moment: "sem_signals" "handlers_operate_at_any_moment";
    an_alarm_ends_a_wait: "sem_signals" "alarms";

    every_way_to_end_undoes_before_the_parent_knows: "sem_undo" "every_end_undoes";
    undo_is_exact_at_any_moment_of_a_kill: "sem_undo" "killed_at_any_moment";
    undo_wakes_who_waited_for_it: "sem_undo" "undo_wakes";
    undo_keeps_values_in_their_range: "sem_undo" "undo_stays_in_range";
    setval_and_setall_clear_undo: "sem_undo" "setting_clears_undo";
    what_was_done_for_a_sleeper_is_undone_with_it: "sem_undo" "sleepers_undo";
    undo_is_not_inherited_over_fork: "sem_undo" "children_do_not_inherit";
    threads_share_their_undo: "sem_undo" "threads_share_it";
    undo_is_kept_over_exec: "sem_undo" "exec_keeps_it";
    undo_is_kept_over_exec_of_a_program_that_is_not_routed: "sem_undo" "exec_without_environment";
    exec_in_a_thread_keeps_undo: "sem_undo" "exec_in_a_thread";
    undo_of_a_removed_set_is_forgotten: "sem_undo" "removed_sets_undo_nothing";
    one_process_has_undo_on_many_sets: "sem_undo" "many_sets";
    many_processes_have_undo_on_one_set: "sem_undo" "many_processes";
}

/// Signals at random moments: 110,000 in all, 5,000 at a time for the sake of slow machines.
fn interrupted(scenario: &str, signals: u32) {
    for (seed, signals) in portions(signals, 5000).enumerate() {
        kept_natively_and_routed("sem_interrupted", &format!("{scenario} {signals} {seed}"));
    }
}

#[test]
fn no_signal_at_any_moment_of_a_wait_is_lost() {
    interrupted("alone", 40_000);
}

#[test]
fn no_signal_to_a_thread_at_any_moment_of_a_wait_is_lost() {
    interrupted("alone_to_a_thread", 20_000);
}

#[test]
fn a_signal_together_with_a_post_interrupts_or_not_but_loses_nothing() {
    interrupted("with_a_post", 40_000);
}

#[test]
fn a_signal_together_with_a_timeout_loses_nothing() {
    interrupted("by_a_timer", 10_000);
}

fn kept_as_root(scenario: &str) {
    if is_root() {
        kept_natively_and_routed("sem_perm", scenario);
    }
}

#[test]
fn mode_bits_decide_who_reads_and_who_alters() {
    kept_as_root("modes_decide");
}

#[test]
fn the_effective_ids_at_each_call_decide() {
    kept_as_root("ids_at_each_call");
}

#[test]
fn the_mode_at_each_call_decides() {
    kept_as_root("modes_at_each_call");
}

#[test]
fn a_sleeper_keeps_the_permission_that_it_had() {
    kept_as_root("sleepers_keep_their_permission");
}

#[test]
fn the_creator_keeps_control_when_the_owner_changes() {
    kept_as_root("creator_and_owner_control");
}

#[test]
fn a_listing_shows_what_the_mode_allows() {
    kept_as_root("listing_follows_the_mode");
}

#[test]
fn each_thread_is_judged_by_its_own_ids() {
    kept_as_root("each_thread_has_its_own_ids");
}
