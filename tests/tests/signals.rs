// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signal handlers of programs behave the same with the library between them and the kernel. What
//! they do to a waiting `semop` is in the tests of semaphores.

use vshmem_tests::scenarios;

scenarios! {
    sigaction_says_what_the_program_gave: "signals_handlers" "queries";
    the_older_functions_behave_and_return_the_same: "signals_handlers" "old_functions";
    handlers_get_their_siginfo: "signals_handlers" "siginfo";
    a_handler_that_resets_itself_runs_once: "signals_handlers" "resethand";
    signals_are_blocked_in_handlers_as_asked: "signals_handlers" "masks_in_handlers";
    handlers_run_on_the_stack_that_was_asked_for: "signals_handlers" "onstack";
    handlers_may_jump_away: "signals_handlers" "jumping_out";
    handlers_of_faults_see_and_mend_them: "signals_handlers" "faults";
    handlers_are_inherited_by_fork_and_lost_by_exec: "signals_handlers" "after_fork_and_exec";
    a_child_of_vfork_does_not_change_its_parents_handlers: "signals_handlers" "after_vfork";
    abort_runs_a_handler: "signals_handlers" "aborting";
    handlers_run_on_the_thread_that_the_signal_is_for: "signals_handlers" "threads";
    system_calls_go_on_after_a_handler_or_not_as_asked: "signals_handlers" "restarting";
}
