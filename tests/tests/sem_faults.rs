// SPDX-License-Identifier: MIT OR Apache-2.0
//! Daemons that are killed or stopped under the users of semaphore sets.

use libc::{GETNCNT, GETVAL, IPC_RMID, SEM_UNDO, SETVAL};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use vshmem_tests::actor::Actor;
use vshmem_tests::kernels::share;
use vshmem_tests::{World, wait_until};

fn number(actor: &mut Actor, id: i64, command: i32) -> i64 {
    actor.ok(&format!("ctl {id} 0 {command} 0"))
}

/// Has an actor begin what makes it sleep, and waits until another one sees that it does.
fn sleep(actor: &mut Actor, other: &mut Actor, id: i64, request: &str) {
    let before = number(other, id, GETNCNT);
    actor.send(request);
    wait_until("the sleeper is counted", || {
        number(other, id, GETNCNT) == before + 1
    });
}

#[test]
fn while_the_back_end_is_away_sets_go_on() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of_sets(&world, "a"), Actor::of_sets(&world, "b"));
    let id = a.ok("get 0x501 2 03600");
    b.ok(&format!("op {id} 0 2 0"));
    world.kill_and_wait("backend");
    let down = format!("op {id} 0 -3 {SEM_UNDO}");
    for _ in 0..10 {
        sleep(&mut b, &mut a, id, &down);
        a.ok(&format!("op {id} 0 1 0"));
        assert_eq!(b.answer(&down), Ok(vec![0]));
        assert_eq!(number(&mut a, id, GETVAL), 0);
        b.ok(&format!("op {id} 0 2 {SEM_UNDO}"));
    }
    b.kill();
    // Ten times one, which it has kept.
    wait_until("undo is applied", || number(&mut a, id, GETVAL) == 12);
}

#[test]
fn a_stopped_daemon_does_not_keep_processes_from_a_set() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of_sets(&world, "a"), Actor::of_sets(&world, "b"));
    let mut other = Actor::of_sets(&world, "a");
    let id = a.ok("get 0x502 1 03600");
    for actor in [&mut a, &mut b, &mut other] {
        actor.ok(&format!("op {id} 0 1 {SEM_UNDO}"));
        actor.ok(&format!("op {id} 0 -1 {SEM_UNDO}"));
    }
    for name in ["a", "b", "backend"] {
        world.kill(name, Signal::SIGSTOP);
    }
    let down = format!("op {id} 0 -1 {SEM_UNDO}");
    for _ in 0..share(20) {
        sleep(&mut a, &mut other, id, &down);
        sleep(&mut b, &mut other, id, &down);
        other.ok(&format!("op {id} 0 1 0"));
        assert_eq!(a.answer(&down), Ok(vec![0]));
        other.ok(&format!("ctl {id} 0 {SETVAL} 1"));
        assert_eq!(b.answer(&down), Ok(vec![0]));
    }
    for name in ["a", "b", "backend"] {
        world.kill(name, Signal::SIGCONT);
    }
    assert_eq!(number(&mut b, id, GETVAL), 0);
}

#[test]
fn without_a_daemon_no_set_is_made_and_none_of_the_kernels_either() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of_sets(&world, "a"), Actor::of_sets(&world, "b"));
    let id = a.ok("get 0x503 1 03600");
    assert_eq!(b.ok("get 0x503 1 0"), id);
    world.kill_and_wait("a");
    assert_eq!(a.call("get 0x504 1 03600"), Err(Errno::ENODEV));
    assert_eq!(a.call("get 0x503 1 0"), Err(Errno::ENODEV));
    let said = a.said();
    assert_eq!(said.lines().count(), 1, "{said}");
    world.up("a");
    for request in [
        format!("op {id} 0 1 0"),
        format!("op {id} 0 -1 {SEM_UNDO}"),
        format!("ctl {id} 0 {GETVAL} 0"),
        format!("ctl {id} 0 {SETVAL} 1"),
        format!("ctl {id} 0 {IPC_RMID} 0"),
    ] {
        assert_eq!(a.call(&request), Err(Errno::EIDRM), "{request}");
        assert_eq!(b.call(&request), Err(Errno::EIDRM), "{request}");
    }
    let next = b.ok("get 0x503 1 03600");
    assert_ne!(next, id);
    assert_eq!(a.ok("get 0x503 1 0"), next);
    let down = format!("op {next} 0 -1 {SEM_UNDO}");
    sleep(&mut a, &mut b, next, &down);
    b.ok(&format!("op {next} 0 1 0"));
    assert_eq!(a.answer(&down), Ok(vec![0]));
    a.kill();
    wait_until("undo is applied", || number(&mut b, next, GETVAL) == 1);
}

#[test]
fn sleepers_learn_that_their_daemon_has_died() {
    let world = World::new();
    let mut b = Actor::of_sets(&world, "b");
    let mut a = [Actor::of_sets(&world, "a"), Actor::of_sets(&world, "a")];
    let ids = [a[0].ok("get 0x505 1 03600"), b.ok("get 0x506 1 03600")];
    let downs = ids.map(|id| format!("op {id} 0 -1 {SEM_UNDO}"));
    for ((a, down), id) in a.iter_mut().zip(&downs).zip(ids) {
        sleep(a, &mut b, id, down);
    }
    world.kill_and_wait("a");
    for (a, down) in a.iter_mut().zip(&downs) {
        assert_eq!(a.answer(down), Err(Errno::ENODEV));
    }
    // The set of the other domain goes on, and nobody waits for it any more.
    wait_until("no sleeper is left", || {
        number(&mut b, ids[1], GETNCNT) == 0
    });
    world.up("a");
    b.ok(&format!("op {} 0 1 0", ids[1]));
    a[0].ok(&downs[1]);
    assert_eq!(a[1].call(&downs[0]), Err(Errno::EIDRM));
}
