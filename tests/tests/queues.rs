// SPDX-License-Identifier: MIT OR Apache-2.0
//! Message queues: each program first with the kernel's own calls, then routed.

use vshmem_tests::actor::Actor;
use vshmem_tests::kernels::portions;
use vshmem_tests::program::{is_root, kept_natively_and_routed, succeed_silently};
use vshmem_tests::{World, cc};

vshmem_tests::scenarios! {
    msgget_looks_at_flags_as_the_kernel_does: "msg_rules" "get_rules";
    private_queues_are_shared_over_fork: "msg_rules" "private_queues";
    ids_that_are_none_are_refused: "msg_rules" "wrong_ids";
    messages_that_cannot_be_have_the_kernels_errors: "msg_rules" "send_errors";
    a_queue_is_full_by_bytes: "msg_rules" "full_by_bytes";
    a_queue_is_full_by_messages: "msg_rules" "full_by_count";
    types_choose_what_is_received: "msg_rules" "receive_by_type";
    messages_of_a_type_keep_their_order: "msg_rules" "first_in_first_out";
    a_message_too_long_for_the_room_stays_or_is_cut: "msg_rules" "too_long_for_the_room";
    copies_leave_the_message: "msg_rules" "copies";
    system_calls_by_number_are_the_same: "msg_rules" "raw_calls";
    errno_and_signal_mask_are_kept_by_calls_that_succeed: "msg_rules" "errno_and_mask_are_kept";

    msgctl_looks_at_its_arguments_in_the_kernels_order: "msg_control" "control_rules";
    ipc_set_changes_owner_mode_and_room_alone: "msg_control" "setting_changes";
    ipc_stat_tells_who_did_what_when: "msg_control" "stat_tells";
    limits_totals_and_listings_are_right: "msg_control" "information";

    text_goes_from_and_to_every_kind_of_memory: "msg_memory" "every_kind_of_memory";
    text_need_not_be_aligned: "msg_memory" "unaligned_memory";
    text_may_end_where_memory_ends: "msg_memory" "at_the_end_of_memory";
    a_message_received_into_no_memory_is_gone: "msg_memory" "received_into_nothing";
    a_message_from_no_memory_is_not_sent: "msg_memory" "sent_from_nothing";
    the_largest_messages_arrive_whole: "msg_memory" "big_messages";

    a_receiver_sleeps_until_its_message_comes: "msg_wait" "receivers_sleep_and_wake";
    what_a_receiver_was_given_nobody_else_gets: "msg_wait" "given_is_given";
    receivers_are_served_in_their_order: "msg_wait" "receivers_in_their_order";
    receivers_of_other_types_sleep_on: "msg_wait" "the_other_sleeps_on";
    a_receiver_with_too_little_room_leaves_the_message_to_the_next: "msg_wait" "sleepers_with_little_room";
    a_sender_sleeps_until_there_is_room: "msg_wait" "senders_sleep_and_wake";
    a_message_that_fits_passes_one_that_does_not: "msg_wait" "small_ones_pass";
    all_senders_that_wait_come_in: "msg_wait" "many_senders";
    a_sender_that_waited_hands_over_to_a_receiver_that_waits: "msg_wait" "from_sleeper_to_sleeper";
    ipc_set_lets_senders_in: "msg_wait" "setting_wakes";
    sleepers_use_no_processor_time: "msg_wait" "sleepers_sleep";
    a_message_for_one_disturbs_nobody_else: "msg_wait" "one_is_disturbed";
    system_calls_by_number_sleep_in_the_same_way: "msg_wait" "raw_calls_sleep";
    two_processes_take_turns: "msg_wait" "ping_pong";
    a_stream_through_a_small_queue_arrives_whole: "msg_wait" "stream";

    removal_wakes_with_eidrm: "msg_ends" "removal_wakes";
    a_receiver_that_is_killed_gets_nothing: "msg_ends" "killed_receivers";
    a_message_is_there_or_received_at_any_moment_of_a_kill: "msg_ends" "killed_at_any_moment";
    nothing_comes_from_a_sender_that_is_killed: "msg_ends" "killed_senders";
    threads_sleep_on_their_own: "msg_ends" "threads_sleep_on_their_own";
    sleeping_threads_go_with_their_process: "msg_ends" "other_threads_end_it";
    messages_outlive_their_sender: "msg_ends" "messages_outlive_who_sent_them";
    hundreds_sleep_at_once: "msg_ends" "many_sleepers";

    handlers_interrupt_with_and_without_sa_restart: "msg_signals" "handlers_interrupt";
    stopping_and_going_on_does_not_interrupt: "msg_signals" "stopping_does_not_interrupt";
    who_is_stopped_loses_nothing: "msg_signals" "stopped_processes_lose_nothing";
    ignored_and_blocked_signals_do_not_interrupt: "msg_signals" "ignored_signals_do_not";
    jumping_out_of_a_handler_ends_the_wait: "msg_signals" "jumping_out_ends_it";
    handlers_may_use_the_queue_that_they_interrupted: "msg_signals" "handlers_use_the_same_queue";
    waits_in_handlers_are_interrupted_too: "msg_signals" "handlers_are_interrupted_too";
    a_signal_interrupts_the_thread_that_handles_it: "msg_signals" "only_the_thread_that_it_is_for";
    fatal_signals_end_a_sleeper: "msg_signals" "fatal_signals_end_it";
    an_alarm_ends_a_wait: "msg_signals" "alarms";
    handlers_may_use_the_queue_at_any_moment: "msg_signals" "handlers_operate_at_any_moment";

    a_thread_that_sleeps_is_cancelled: "msg_cancel" "blocked_threads_end";
    a_pending_cancellation_acts_at_msgsnd_and_msgrcv_alone: "msg_cancel" "pending_acts_at_once";
    a_thread_that_cannot_be_cancelled_is_not: "msg_cancel" "disabled_it_does_nothing";
    cancellation_at_any_moment_leaves_the_queue_in_order: "msg_cancel" "at_any_moment";
    a_thread_is_cancelled_after_a_signal: "msg_cancel" "after_a_signal";
}

/// Signals at random moments: 110,000 in all, in portions for the sake of slow machines.
fn interrupted(scenario: &str, signals: u32, at_a_time: u32) {
    for (seed, signals) in portions(signals, at_a_time).enumerate() {
        kept_natively_and_routed("msg_interrupted", &format!("{scenario} {signals} {seed}"));
    }
}

#[test]
fn a_signal_alone_ends_a_wait() {
    interrupted("alone", 10_000, 5000);
}

#[test]
fn a_signal_together_with_a_message_loses_nothing() {
    interrupted("receiving", 20_000, 5000);
}

#[test]
fn a_signal_to_a_thread_together_with_a_message_loses_nothing() {
    interrupted("receiving_in_a_thread", 10_000, 5000);
}

#[test]
fn a_signal_together_with_room_sends_a_message_once() {
    interrupted("sending", 20_000, 5000);
}

#[test]
fn a_signal_to_a_thread_together_with_room_sends_a_message_once() {
    interrupted("sending_in_a_thread", 10_000, 5000);
}

#[test]
fn a_stream_between_processes_that_are_interrupted_all_the_time_arrives_whole() {
    interrupted("stream", 40_000, 20_000);
}

fn kept_as_root(scenario: &str) {
    if is_root() {
        kept_natively_and_routed("msg_perm", scenario);
    }
}

#[test]
fn mode_bits_decide_who_reads_and_who_writes() {
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
fn a_stricter_mode_ends_waits() {
    kept_as_root("stricter_modes_end_waits");
}

#[test]
fn more_room_than_the_default_takes_privilege() {
    kept_as_root("raising_needs_privilege");
}

#[test]
fn the_creator_keeps_control_when_the_owner_changes() {
    kept_as_root("creator_and_owner_control");
}

#[test]
fn a_listing_shows_what_the_mode_allows() {
    kept_as_root("listing_follows_the_mode");
}

fn limits_of(world: &World) -> Vec<i64> {
    Actor::of_queues(world, "a").ask("limits").expect("limits")
}

#[test]
fn limits_are_the_kernels_unless_the_configuration_raises_them() {
    let kernels = limits_of(&World::new());
    let configured = |limits: [i64; 3]| {
        let world = World::new();
        let [msgmni, msgmax, msgmnb] = limits;
        let text = format!("[limits]\nmsgmni = {msgmni}\nmsgmax = {msgmax}\nmsgmnb = {msgmnb}\n");
        std::fs::write(world.dir().join("vshmem.toml"), text).expect("vshmem.toml");
        world
    };
    let raised = [50_000, 1 << 20, 8 << 20];
    let world = configured(raised);
    assert_eq!(limits_of(&world), raised);
    // And they are not only shown.
    let mut command = world.run("a", "all", cc("msg_memory"));
    command.arg("big_messages");
    succeed_silently(command);
    assert_eq!(limits_of(&configured([1, 1, 1])), kernels);
}
