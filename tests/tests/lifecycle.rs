// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of attachments over the lives of processes and threads: each program first with
//! the kernel's own calls, then routed. Then the same across two domains.

use nix::errno::Errno;
use std::process::Command;
use vshmem_tests::actor::Actor;
use vshmem_tests::program::{is_root, kept_natively_and_routed, segments};
use vshmem_tests::{World, wait_until};

vshmem_tests::scenarios! {
    a_child_of_fork_inherits_and_counts_what_is_attached: "life" "fork_counts";
    a_removed_segment_is_inherited_over_fork: "life" "fork_copies_private_segments";
    children_outlive_their_parents_attached: "life" "grandchild_outlives";
    every_way_to_end_is_counted_at_once: "life" "every_end_is_counted";
    each_of_many_children_is_counted: "life" "each_of_many_children_is_counted";
    children_killed_at_birth_are_not_counted: "life" "children_killed_at_birth";
    every_kind_of_exec_detaches: "life" "exec_detaches";
    exec_in_a_thread_detaches: "life" "exec_in_a_thread_detaches";
    a_process_whose_first_thread_has_ended_keeps_its_attachments: "life" "main_thread_ends_first";
    children_made_by_raw_system_calls_can_use_everything: "life" "forks_behind_the_back_of_libc";

    a_program_that_closes_all_descriptors_goes_on: "descriptors" "closed_and_goes_on";
    files_at_every_number_are_left_alone: "descriptors" "own_files_at_the_numbers 3 1024";
    files_at_low_numbers_are_left_alone: "descriptors" "own_files_at_the_numbers 3 200";
    no_descriptor_is_low_or_inherited_over_exec: "descriptors" "none_is_low_or_inherited";
    descriptors_used_up_give_an_errno_and_pass: "descriptors" "all_numbers_used first";
    a_limit_of_descriptors_lowered_later_gives_an_errno_and_passes:
        "descriptors" "all_numbers_used later";
    a_program_without_descriptors_to_spare_gets_an_errno: "descriptors" "none_from_the_start";

    children_use_what_was_attached: "inherit" "use_what_is_attached";
    what_lies_over_a_part_of_an_attachment_stays_in_children: "inherit" "what_lies_over_a_part_stays";
    children_inherit_segments_that_are_removed: "inherit" "removed_segments_are_inherited";
    children_use_sets_and_queues: "inherit" "use_sets_and_queues";
    children_made_by_raw_system_calls_have_what_was_attached:
        "inherit" "raw_children_have_it_from_their_first_call_on";
    children_that_are_killed_leave_nothing: "inherit" "killed_children_leave_nothing";

    threads_attach_and_detach_at_once: "threads" "attach_and_detach_at_once";
    one_thread_wins_each_key: "threads" "one_thread_wins_each_key";
    a_fork_among_threads_that_attach_leaves_the_child_usable: "threads" "fork_among_threads";
    signal_handlers_may_attach_while_the_program_does: "threads" "handlers_call_too";
    handlers_threads_and_forks_together: "threads" "handlers_call_among_threads_and_forks";
    cancelled_threads_leave_no_lock_and_no_attachment: "threads" "cancelled_threads_leave_nothing";
    errno_and_signal_mask_are_kept_by_calls_that_succeed: "threads" "errno_and_mask_are_kept";

    shmdt_after_munmap_of_a_part: "maps" "detach_after_munmap";
    shmdt_after_munmap_of_all: "maps" "detach_after_munmap_of_all";
    shmdt_after_mprotect_has_split_the_mapping: "maps" "detach_after_mprotect";
    a_foreign_mapping_in_a_hole_survives_shmdt: "maps" "foreign_mappings_survive";
    another_attachment_in_a_hole_survives_shmdt: "maps" "other_attachments_survive";
    shm_remap_replaces_what_was_there: "maps" "replaced_by_remap";
    nothing_is_left_mapped: "maps" "nothing_is_left_mapped";
}

#[test]
fn a_program_started_without_stdio_keeps_these_numbers() {
    let world = World::new();
    let mut command = world.run("a", "all,private", "sh");
    command.args(["-c", "exec \"$0\" started_without_stdio <&- >&- 2>&-"]);
    command.arg(vshmem_tests::cc("descriptors"));
    vshmem_tests::program::succeed_silently(command);
}

#[test]
fn calls_work_after_chroot_and_setuid() {
    if is_root() {
        kept_natively_and_routed("descriptors", "in_another_root");
    }
}

#[test]
fn a_fork_that_fails_counts_nothing() {
    if is_root() {
        kept_natively_and_routed("life", "fork_that_fails");
    }
}

#[test]
fn a_client_in_a_pid_namespace_is_counted_and_forgotten() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let mut a = Actor::of(&world, "a");
    let id = a.make(0x105, 4096);
    for domain in ["a", "b"] {
        world.up(domain);
        // Its pid is 1 there, and the daemon may see another one or none.
        let inner = world.preload(domain, "all", vshmem_tests::cc("actor"));
        let mut contained = Command::new("unshare");
        contained.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        contained.arg(inner.get_program());
        for (name, value) in inner.get_envs() {
            contained.env(name, value.expect("a value"));
        }
        let mut contained = Actor::start(contained);
        contained.ok(&format!("at {id} 0"));
        let child = contained.ok("child");
        assert_eq!((a.nattch(id), contained.nattch(id)), (2, 2));
        contained.ok(&format!("end {child}"));
        assert_eq!((a.nattch(id), contained.nattch(id)), (1, 1));
        contained.ok("dt 0");
        assert_eq!((a.nattch(id), contained.nattch(id)), (0, 0));
        contained.ok(&format!("at {id} 0"));
        contained.kill();
        // It is its namespace's init that was waited for by nobody here.
        wait_until("the contained one is gone", || a.nattch(id) == 0);
    }
}

#[test]
fn attachments_of_two_domains_are_counted_together() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    let id = a.make(0x101, 10_000);
    assert_eq!(b.ok("get 0x101 10000 0600"), id);
    a.ok(&format!("at {id} 0"));
    let seen = b.stat(id).expect("stat");
    assert_eq!((seen.nattch, seen.size, seen.key), (1, 10_000, 0x101));
    b.ok(&format!("at {id} 0"));
    b.ok(&format!("at {id} 0"));
    assert_eq!((a.nattch(id), b.nattch(id)), (3, 3));
    let child = b.ok("child");
    assert_eq!((a.nattch(id), b.nattch(id)), (5, 5));
    b.ok("dt 0");
    assert_eq!((a.nattch(id), b.nattch(id)), (4, 4));
    b.ok(&format!("end {child}"));
    assert_eq!((a.nattch(id), b.nattch(id)), (2, 2));
    b.kill();
    assert_eq!(a.nattch(id), 1);
    a.ok("dt 0");
    assert_eq!(a.nattch(id), 0);
}

#[test]
fn children_inherit_the_memory_of_another_domain() {
    const KEY: i32 = 0x5653_484d;
    // With how many segments, sets and queues.
    for (scenario, [segments, sets, queues]) in [
        ("use_what_is_attached", [2, 0, 0]),
        ("what_lies_over_a_part_stays", [2, 0, 0]),
        ("removed_segments_are_inherited", [1, 0, 0]),
        ("use_sets_and_queues", [0, 1, 1]),
        ("raw_children_have_it_from_their_first_call_on", [1, 1, 0]),
        ("killed_children_leave_nothing", [1, 0, 0]),
    ] {
        let world = World::new();
        world.up("b");
        let mut a = Actor::of(&world, "a");
        (0..segments).for_each(|n| assert!(a.make(KEY + n, 8 * 4096) > 0));
        if sets > 0 {
            Actor::of_sets(&world, "a").ok(&format!("get {KEY} 3 {}", 0o1600));
        }
        if queues > 0 {
            Actor::of_queues(&world, "a").ok(&format!("get {KEY} {}", 0o1600));
        }
        // It finds them made, and removes them in the end.
        let mut command = world.run("b", "all,private", vshmem_tests::cc("inherit"));
        command.arg(scenario);
        vshmem_tests::program::succeed_silently(command);
    }
}

#[test]
fn pids_of_the_own_domain_are_shown_and_others_are_zero() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    let id = a.make(0x102, 4096);
    a.ok(&format!("at {id} 0"));
    let pid = i64::from(a.pid());
    let seen = a.stat(id).expect("stat");
    assert_eq!((seen.cpid, seen.lpid), (pid, pid));
    let seen = b.stat(id).expect("stat");
    assert_eq!((seen.cpid, seen.lpid), (0, 0));
    b.ok(&format!("at {id} 0"));
    let seen = a.stat(id).expect("stat");
    assert_eq!((seen.cpid, seen.lpid), (pid, 0));
    let seen = b.stat(id).expect("stat");
    assert_eq!((seen.cpid, seen.lpid), (0, i64::from(b.pid())));
}

#[test]
fn a_removed_segment_lives_until_the_last_detach_in_another_domain() {
    const DEST: i64 = 0o1000;
    let world = World::new();
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    let id = a.make(0x103, 4096);
    a.ok(&format!("at {id} 0"));
    b.ok(&format!("at {id} 0"));
    let child = b.ok("child");
    a.ok("poke 0 0 1");
    a.ok(&format!("rm {id}"));
    // The key is free at once, for either domain, and finds another segment.
    assert_eq!(b.call("get 0x103 4096 0"), Err(Errno::ENOENT));
    let next = b.make(0x103, 4096);
    assert_ne!(next, id);
    assert_eq!(a.ok("get 0x103 0 0"), next);

    for actor in [&mut a, &mut b] {
        let seen = actor.stat(id).expect("stat");
        assert_eq!((seen.nattch, seen.mode & DEST, seen.key), (3, DEST, 0));
    }
    a.ok("dt 0");
    assert_eq!(a.nattch(id), 2);
    // Who knows the id may attach as long as it lives.
    a.ok(&format!("at {id} 0"));
    assert_eq!(a.ok("peek 1 0"), 1);
    a.ok("dt 1");
    b.ok("dt 0");
    assert_eq!((a.nattch(id), b.nattch(id)), (1, 1));
    b.ok(&format!("end {child}"));
    for actor in [&mut a, &mut b] {
        assert_eq!(actor.stat(id), Err(Errno::EINVAL));
        assert_eq!(actor.call(&format!("at {id} 0")), Err(Errno::EINVAL));
    }
    let left: Vec<_> = segments(&world, "a").iter().map(|s| s.id).collect();
    assert_eq!(left, [next]);
}

#[test]
fn a_removed_segment_goes_when_its_last_user_in_another_domain_is_killed() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    for _ in 0..5 {
        let id = a.make(0x104, 4096);
        b.ok(&format!("at {id} 0"));
        b.ok(&format!("at {id} 0"));
        let child = b.ok("child");
        assert_eq!(a.nattch(id), 4);
        a.ok(&format!("rm {id}"));
        b.ok(&format!("end {child}"));
        assert_eq!(a.nattch(id), 2);
        std::mem::replace(&mut b, Actor::of(&world, "b")).kill();
        assert_eq!(a.stat(id), Err(Errno::EINVAL));
    }
    assert_eq!(segments(&world, "b"), []);
}
