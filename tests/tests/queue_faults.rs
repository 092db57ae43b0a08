// SPDX-License-Identifier: MIT OR Apache-2.0
//! Daemons that are killed or stopped under the users of message queues.

use libc::IPC_NOWAIT;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use vshmem_tests::actor::Actor;
use vshmem_tests::kernels::share;
use vshmem_tests::{World, wait_until};

fn receive(id: i64) -> String {
    format!("receive {id} 16384 0 0")
}

fn take(actor: &mut Actor, id: i64) -> Vec<i64> {
    let request = format!("receive {id} 16384 0 {IPC_NOWAIT}");
    actor.ask(&request).expect("a message")
}

/// Has what sleeps in `sleeper` ended by `waker`, both ways: receiving, and sending into a queue that
/// its 100 bytes fill.
fn serve(sleeper: &mut Actor, waker: &mut Actor, id: i64) {
    let request = receive(id);
    sleeper.send_to_sleep(&request);
    waker.ok(&format!("send {id} 1 100 1 0"));
    assert_eq!(sleeper.answer(&request), Ok(vec![1, 100, 1]));
    waker.ok(&format!("send {id} 1 100 2 0"));
    let request = format!("send {id} 2 90 3 0");
    sleeper.send_to_sleep(&request);
    assert_eq!(take(waker, id), [1, 100, 2]);
    assert_eq!(sleeper.answer(&request), Ok(vec![0]));
    assert_eq!(take(waker, id), [2, 90, 3]);
}

#[test]
fn while_the_back_end_is_away_queues_go_on() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of_queues(&world, "a"), Actor::of_queues(&world, "b"));
    let id = a.ok("get 0x801 03600");
    a.ok(&format!("set {id} 0 0600 100"));
    // So that each of them knows the queue.
    serve(&mut a, &mut b, id);
    world.kill_and_wait("backend");
    for _ in 0..10 {
        serve(&mut b, &mut a, id);
        serve(&mut a, &mut b, id);
    }
    b.send_to_sleep(&receive(id));
    b.kill();
    let send = format!("send {id} 1 100 4 {IPC_NOWAIT}");
    a.ok(&send);
    wait_until("the message is back", || {
        a.ask(&format!("receive {id} 16384 0 {IPC_NOWAIT}")) == Ok(vec![1, 100, 4])
    });
}

#[test]
fn a_stopped_daemon_does_not_keep_processes_from_a_queue() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of_queues(&world, "a"), Actor::of_queues(&world, "b"));
    let mut other = Actor::of_queues(&world, "a");
    let id = a.ok("get 0x802 03600");
    a.ok(&format!("set {id} 0 0600 100"));
    serve(&mut a, &mut b, id);
    serve(&mut a, &mut other, id);
    for name in ["a", "b", "backend"] {
        world.kill(name, Signal::SIGSTOP);
    }
    for _ in 0..share(20) {
        serve(&mut a, &mut other, id);
        // Nobody can ring the bell of another domain: who sleeps there looks by itself.
        other.ok(&format!("send {id} 1 100 1 0"));
        assert_eq!(take(&mut b, id), [1, 100, 1]);
    }
    b.send_to_sleep(&receive(id));
    other.ok(&format!("send {id} 1 10 1 0"));
    assert_eq!(b.answer("receive"), Ok(vec![1, 10, 1]));
    for name in ["a", "b", "backend"] {
        world.kill(name, Signal::SIGCONT);
    }
    serve(&mut b, &mut a, id);
}

#[test]
fn without_a_daemon_no_queue_is_made_and_none_of_the_kernels_either() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of_queues(&world, "a"), Actor::of_queues(&world, "b"));
    let id = a.ok("get 0x803 03600");
    assert_eq!(b.ok("get 0x803 0"), id);
    world.kill_and_wait("a");
    assert_eq!(a.call("get 0x804 03600"), Err(Errno::ENODEV));
    assert_eq!(a.call("get 0x803 0"), Err(Errno::ENODEV));
    let said = a.said();
    assert_eq!(said.lines().count(), 1, "{said}");
    world.up("a");
    for request in [
        format!("send {id} 1 1 1 0"),
        format!("send {id} 1 1000 1 {IPC_NOWAIT}"),
        receive(id),
        format!("stat {id}"),
        format!("set {id} 0 0600 100"),
        format!("remove {id}"),
    ] {
        assert_eq!(a.ask(&request), Err(Errno::EIDRM), "{request}");
        assert_eq!(b.ask(&request), Err(Errno::EIDRM), "{request}");
    }
    let next = b.ok("get 0x803 03600");
    assert_ne!(next, id);
    assert_eq!(a.ok("get 0x803 0"), next);
    b.ok(&format!("set {next} 0 0600 100"));
    serve(&mut a, &mut b, next);
    serve(&mut b, &mut a, next);
}

#[test]
fn sleepers_learn_that_their_daemon_has_died() {
    let world = World::new();
    let mut b = Actor::of_queues(&world, "b");
    let mut a = [(); 4].map(|()| Actor::of_queues(&world, "a"));
    let own = a[0].ok("get 0x805 03600");
    let other = b.ok("get 0x806 03600");
    a[0].ok(&format!("set {own} 0 0600 100"));
    b.ok(&format!("set {other} 0 0600 100"));
    let requests = [
        receive(own),
        receive(other),
        format!("send {own} 1 101 1 0"),
        format!("send {other} 1 101 1 0"),
    ];
    for (actor, request) in a.iter_mut().zip(&requests) {
        actor.send_to_sleep(request);
    }
    world.kill_and_wait("a");
    for (actor, request) in a.iter_mut().zip(&requests) {
        assert_eq!(actor.answer(request), Err(Errno::ENODEV), "{request}");
    }
    // The queue of the other domain goes on: nobody takes what is sent, and nothing comes by itself.
    world.up("a");
    wait_until("nobody waits for it", || {
        b.ok(&format!("send {other} 1 10 5 0"));
        let kept = b.ask(&format!("receive {other} 16384 0 {IPC_NOWAIT}"));
        kept == Ok(vec![1, 10, 5])
    });
    b.ok(&format!("set {other} 0 0600 4000"));
    assert_eq!(b.ask(&format!("stat {other}")).expect("stat")[0], 0);
    b.ok(&format!("set {other} 0 0600 100"));
    serve(&mut Actor::of_queues(&world, "a"), &mut b, other);
    assert_eq!(a[0].ask(&requests[0]), Err(Errno::EIDRM));
    assert_eq!(a[2].ask(&requests[2]), Err(Errno::EIDRM));
}

#[test]
fn a_queue_of_another_domain_goes_on_after_the_own_daemon_was_started_again() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of_queues(&world, "a"), Actor::of_queues(&world, "b"));
    // What the domain had before need not be where it was.
    a.ok("get 0x807 03600");
    let id = b.ok("get 0x808 03600");
    b.ok(&format!("set {id} 0 0600 100"));
    serve(&mut a, &mut b, id);
    world.kill_and_wait("a");
    world.up("a");
    serve(&mut a, &mut b, id);
    serve(&mut b, &mut a, id);
}
