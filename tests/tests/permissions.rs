// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may do what to a segment, for callers that change their ids, and for another user in
//! another domain. As the kernel decides it: see `tests/c/perm.c`.

use nix::errno::Errno;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use vshmem_tests::actor::Actor;
use vshmem_tests::program::{is_root, kept_natively_and_routed};
use vshmem_tests::{World, cc, copy_program};

const NOBODY: u32 = 65534;

fn kept(scenario: &str) {
    if is_root() {
        kept_natively_and_routed("perm", scenario);
    }
}

#[test]
fn mode_bits_decide_and_root_passes() {
    kept("modes_decide");
}

#[test]
fn effective_and_supplementary_groups_count() {
    kept("groups_count");
}

#[test]
fn the_effective_ids_at_each_call_decide() {
    kept("effective_ids_at_each_call");
}

#[test]
fn each_thread_is_judged_by_its_own_ids() {
    kept("each_thread_has_its_own_ids");
}

#[test]
fn the_creator_keeps_control_when_the_owner_changes() {
    kept("creator_and_owner_control");
}

#[test]
fn shm_exec_needs_execute_permission() {
    kept("execute_permission");
}

#[test]
fn what_is_attached_for_reading_cannot_be_made_writable() {
    kept("read_only_stays_read_only");
}

#[test]
fn a_listing_shows_what_the_mode_allows() {
    kept("listing_follows_the_mode");
}

#[test]
fn shm_lock_follows_owner_and_limit() {
    kept("lock_needs_a_limit");
}

/// An actor of another user; the world is opened to it.
fn actor_of_nobody(world: &World, domain: &str) -> Actor {
    std::fs::set_permissions(world.dir(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    // Where the tests are may be out of reach of other users.
    let program = world.dir().join("actor");
    copy_program(&cc("actor"), &program);
    let library = world.dir().join("libvshmem.so");
    copy_program(&vshmem_tests::bin("libvshmem.so"), &library);
    let mut command = world.preload(domain, "all,private", &program);
    command.env("LD_PRELOAD", &library).uid(NOBODY).gid(NOBODY);
    Actor::start(command)
}

#[test]
fn another_user_in_another_domain_is_refused_by_the_mode() {
    if !is_root() {
        return;
    }
    let world = World::new();
    world.up("b");
    let mut a = Actor::of(&world, "a");
    let mut b = actor_of_nobody(&world, "b");
    let id = a.make(0x201, 4096);
    for refused in [
        "get 0x201 4096 0600".to_owned(),
        format!("at {id} 0"),
        format!("at {id} 010000"),
        format!("stat {id}"),
    ] {
        assert_eq!(b.ask(&refused), Err(Errno::EACCES), "{refused}");
    }
    assert_eq!(b.call(&format!("rm {id}")), Err(Errno::EPERM));
    assert_eq!(
        b.call(&format!("set {id} {NOBODY} 0666")),
        Err(Errno::EPERM)
    );
    assert_eq!(a.nattch(id), 0);

    a.ok(&format!("set {id} 0 0644"));
    assert_eq!(b.call(&format!("at {id} 0")), Err(Errno::EACCES));
    let n = b.ok(&format!("at {id} 010000"));
    a.ok(&format!("at {id} 0"));
    a.ok("poke 0 5 77");
    assert_eq!(b.ok(&format!("peek {n} 5")), 77);

    a.ok(&format!("set {id} {NOBODY} 0600"));
    b.ok(&format!("at {id} 0"));
    b.ok(&format!("rm {id}"));
    assert_eq!(a.nattch(id), 3);
    b.kill();
    assert_eq!(a.nattch(id), 1);
}

#[test]
fn another_user_cannot_stop_a_domain() {
    if !is_root() {
        return;
    }
    let world = World::new();
    world.up("a");
    let pid = world.pid("a");
    std::fs::set_permissions(world.dir(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let command = world.dir().join("vshmem");
    copy_program(&vshmem_tests::bin("vshmem"), &command);
    for args in [&["--domain", "a"][..], &["--all"], &["--all", "--force"]] {
        let mut down = std::process::Command::new(&command);
        down.arg("down").args(args).env("VSHMEM_DIR", world.dir());
        let output = down.uid(NOBODY).gid(NOBODY).output().expect("vshmem down");
        assert!(!output.status.success(), "{args:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{args:?}: {output:?}");
    }
    world.up("a");
    assert_eq!(world.pid("a"), pid);
}
