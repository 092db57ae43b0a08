// SPDX-License-Identifier: MIT OR Apache-2.0
//! Message queues across two domains: sleeping in one and waking from the other, and what becomes of a
//! queue when processes and domains die.

use libc::IPC_NOWAIT;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use vshmem_tests::actor::Actor;
use vshmem_tests::program::is_root;
use vshmem_tests::{World, wait_until};

/// What `stat` tells, in this order.
const QNUM: usize = 0;
const CBYTES: usize = 1;
const QBYTES: usize = 2;
const LSPID: usize = 3;
const LRPID: usize = 4;
const STIME: usize = 5;

/// Bytes that an actor has room for.
const ROOM: i64 = 16384;

fn stat(actor: &mut Actor, id: i64, field: usize) -> i64 {
    actor.ask(&format!("stat {id}")).expect("stat")[field]
}

/// Messages and bytes in the queue.
fn held(actor: &mut Actor, id: i64) -> (i64, i64) {
    let all = actor.ask(&format!("stat {id}")).expect("stat");
    (all[QNUM], all[CBYTES])
}

fn send(actor: &mut Actor, id: i64, message: [i64; 3]) {
    let [kind, size, tag] = message;
    actor.ok(&format!("send {id} {kind} {size} {tag} {IPC_NOWAIT}"));
}

fn receive(id: i64, kind: i64) -> String {
    format!("receive {id} {ROOM} {kind} 0")
}

/// Receives what has to be there.
fn take(actor: &mut Actor, id: i64, kind: i64) -> Vec<i64> {
    let request = format!("receive {id} {ROOM} {kind} {IPC_NOWAIT}");
    actor.ask(&request).expect("a message")
}

fn set_bytes(actor: &mut Actor, id: i64, bytes: i64) {
    actor.ok(&format!("set {id} 0 0600 {bytes}"));
}

/// Two domains and a queue that the first one made.
fn two() -> (World, Actor, Actor, i64) {
    let world = World::new();
    let mut a = Actor::of_queues(&world, "a");
    let mut b = Actor::of_queues(&world, "b");
    let id = a.ok("get 0x701 03600");
    assert_eq!(b.ok("get 0x701 0600"), id);
    (world, a, b, id)
}

#[test]
fn messages_go_from_domain_to_domain() {
    let (_world, mut a, mut b, id) = two();
    for (tag, size) in [0, 4, 72, 73, 500, 5000, 8192].into_iter().enumerate() {
        let message = [1, size, if size < 4 { 0 } else { tag as i64 }];
        send(&mut a, id, message);
        assert_eq!(held(&mut b, id), (1, size));
        assert_eq!(take(&mut b, id, 0), message);
        assert_eq!(held(&mut a, id), (0, 0));
        send(&mut b, id, message);
        assert_eq!(take(&mut a, id, -5), message);
    }
}

#[test]
fn a_receiver_is_served_from_the_other_domain() {
    let (_world, mut a, mut b, id) = two();
    for tag in 0..50 {
        let message = [1 + tag % 3, 4 + tag * 100, tag];
        let request = receive(id, [0, message[0], -9][tag as usize % 3]);
        a.send_to_sleep(&request);
        send(&mut b, id, message);
        // It never was in the queue.
        assert_eq!(held(&mut b, id), (0, 0));
        assert_eq!(a.answer(&request), Ok(message.to_vec()));
        b.send_to_sleep(&request);
        send(&mut a, id, message);
        assert_eq!(held(&mut a, id), (0, 0));
        assert_eq!(b.answer(&request), Ok(message.to_vec()));
    }
}

#[test]
fn a_sender_is_let_in_from_the_other_domain() {
    let (_world, mut a, mut b, id) = two();
    set_bytes(&mut a, id, 4000);
    for tag in 0..30 {
        send(&mut a, id, [1, 4000, tag]);
        let request = format!("send {id} 2 {} {} 0", 100 + tag * 100, tag + 1000);
        b.send_to_sleep(&request);
        assert_eq!(take(&mut a, id, 1), [1, 4000, tag]);
        assert_eq!(held(&mut a, id), (1, 100 + tag * 100));
        assert_eq!(b.answer(&request), Ok(vec![0]));
        assert_eq!(take(&mut a, id, 0), [2, 100 + tag * 100, tag + 1000]);
        send(&mut b, id, [1, 4000, tag]);
        a.send_to_sleep(&request);
        assert_eq!(take(&mut b, id, 1), [1, 4000, tag]);
        assert_eq!(a.answer(&request), Ok(vec![0]));
        assert_eq!(take(&mut b, id, 0), [2, 100 + tag * 100, tag + 1000]);
    }
}

#[test]
fn receivers_of_two_domains_stand_in_one_order() {
    let (world, mut a, mut b, id) = two();
    let (mut c, mut sends) = (Actor::of_queues(&world, "a"), Actor::of_queues(&world, "b"));
    let request = receive(id, 0);
    for _ in 0..10 {
        b.send_to_sleep(&request);
        a.send_to_sleep(&request);
        c.send_to_sleep(&request);
        for (tag, actor) in [&mut b, &mut a, &mut c].into_iter().enumerate() {
            let message = [1, 8, tag as i64];
            send(&mut sends, id, message);
            assert_eq!(actor.answer(&request), Ok(message.to_vec()));
        }
    }
}

#[test]
fn senders_of_two_domains_are_let_in_in_their_order() {
    let (world, mut a, mut b, id) = two();
    let (mut c, mut takes) = (Actor::of_queues(&world, "a"), Actor::of_queues(&world, "b"));
    set_bytes(&mut a, id, 100);
    for _ in 0..10 {
        send(&mut takes, id, [9, 100, 0]);
        let requests = [1, 2, 3].map(|tag| format!("send {id} {tag} 50 {tag} 0"));
        b.send_to_sleep(&requests[0]);
        a.send_to_sleep(&requests[1]);
        c.send_to_sleep(&requests[2]);
        assert_eq!(take(&mut takes, id, 0), [9, 100, 0]);
        assert_eq!(b.answer(&requests[0]), Ok(vec![0]));
        assert_eq!(a.answer(&requests[1]), Ok(vec![0]));
        assert!(!c.has_answered());
        assert_eq!(take(&mut takes, id, 0), [1, 50, 1]);
        assert_eq!(c.answer(&requests[2]), Ok(vec![0]));
        assert_eq!(take(&mut takes, id, 0), [2, 50, 2]);
        assert_eq!(take(&mut takes, id, 0), [3, 50, 3]);
        // Who does not fit lets pass who does.
        send(&mut takes, id, [9, 40, 0]);
        send(&mut takes, id, [9, 60, 0]);
        let requests = [90, 30].map(|size| format!("send {id} 1 {size} 5 0"));
        b.send_to_sleep(&requests[0]);
        a.send_to_sleep(&requests[1]);
        assert_eq!(take(&mut takes, id, 0), [9, 40, 0]);
        assert_eq!(a.answer(&requests[1]), Ok(vec![0]));
        assert_eq!(take(&mut takes, id, 0), [9, 60, 0]);
        assert!(!b.has_answered());
        assert_eq!(take(&mut takes, id, 0), [1, 30, 5]);
        assert_eq!(b.answer(&requests[0]), Ok(vec![0]));
        assert_eq!(take(&mut takes, id, 0), [1, 90, 5]);
    }
}

#[test]
fn more_room_set_in_one_domain_lets_in_a_sender_of_the_other() {
    let (_world, mut a, mut b, id) = two();
    set_bytes(&mut a, id, 10);
    for (sleeps, sets) in [(true, 20), (false, 30)] {
        let (sender, setter) = if sleeps {
            (&mut b, &mut a)
        } else {
            (&mut a, &mut b)
        };
        let request = format!("send {id} 1 {sets} 7 0");
        sender.send_to_sleep(&request);
        set_bytes(setter, id, sets);
        assert_eq!(sender.answer(&request), Ok(vec![0]));
        assert_eq!(stat(sender, id, QBYTES), sets);
        assert_eq!(take(setter, id, 0), [1, sets, 7]);
    }
}

#[test]
fn a_stricter_mode_set_in_one_domain_ends_the_wait_in_the_other() {
    if !is_root() {
        return;
    }
    let (world, mut a, mut b, id) = two();
    let mut stays = Actor::of_queues(&world, "b");
    for round in 0..10 {
        a.ok(&format!("set {id} 4001 0666 10"));
        b.ok("user 4002");
        stays.ok("user 4001");
        let request = receive(id, 0);
        b.send_to_sleep(&request);
        stays.send_to_sleep(&request);
        a.ok(&format!("set {id} 4001 0600 10"));
        assert_eq!(b.answer(&request), Err(Errno::EACCES), "round {round}");
        send(&mut a, id, [1, 10, 4]);
        assert_eq!(stays.answer(&request), Ok(vec![1, 10, 4]));
        assert_eq!(b.call(&format!("send {id} 1 1 1 0")), Err(Errno::EACCES));
        b.ok("user 0");
        stays.ok("user 0");
    }
}

#[test]
fn a_signal_ends_the_wait_whatever_the_domain_of_the_queue() {
    let (_world, mut a, mut b, id) = two();
    b.ok(&format!("catch {}", libc::SIGUSR1));
    set_bytes(&mut a, id, 10);
    for request in [receive(id, 2), format!("send {id} 2 11 0 0")] {
        for _ in 0..20 {
            b.send_to_sleep(&request);
            b.signal(Signal::SIGUSR1);
            assert_eq!(b.answer(&request), Err(Errno::EINTR));
            send(&mut a, id, [2, 4, 3]);
            assert_eq!(held(&mut b, id), (1, 4));
            assert_eq!(take(&mut a, id, 0), [2, 4, 3]);
        }
    }
}

#[test]
fn removal_ends_the_waits_of_both_domains() {
    let (world, mut a, mut b, _) = two();
    let mut sends = Actor::of_queues(&world, "b");
    for remover in ["a", "b"] {
        let mut remover = Actor::of_queues(&world, remover);
        let id = remover.ok("get 0x702 03600");
        set_bytes(&mut remover, id, 10);
        let (any, full) = (receive(id, 0), format!("send {id} 1 11 0 0"));
        a.send_to_sleep(&any);
        b.send_to_sleep(&any);
        sends.send_to_sleep(&full);
        remover.ok(&format!("remove {id}"));
        assert_eq!(a.answer(&any), Err(Errno::EIDRM));
        assert_eq!(b.answer(&any), Err(Errno::EIDRM));
        assert_eq!(sends.answer(&full), Err(Errno::EIDRM));
        assert_eq!(b.ask(&any), Err(Errno::EINVAL));
        assert_eq!(a.call(&full), Err(Errno::EINVAL));
        assert_eq!(b.call("get 0x702 0"), Err(Errno::ENOENT));
    }
}

#[test]
fn a_killed_receiver_of_the_other_domain_eats_no_message() {
    let (world, mut a, mut b, id) = two();
    for tag in 0..20 {
        b.send_to_sleep(&receive(id, tag % 2));
        std::mem::replace(&mut b, Actor::of_queues(&world, "b")).kill();
        let message = [1, 4 + tag * 50, tag];
        if tag % 3 == 0 {
            // In its own domain that is known at once.
            send(&mut b, id, message);
            assert_eq!(held(&mut a, id), (1, message[1]));
        } else {
            send(&mut a, id, message);
            wait_until("the message is back", || {
                held(&mut a, id) == (1, message[1])
            });
        }
        assert_eq!(take(&mut a, id, 0), message);
        assert_eq!(held(&mut b, id), (0, 0));
    }
}

#[test]
fn a_message_that_comes_back_goes_to_its_place_or_to_who_waits() {
    let (world, mut a, mut b, id) = two();
    let mut next = Actor::of_queues(&world, "a");
    for _ in 0..20 {
        let request = receive(id, 0);
        b.send_to_sleep(&request);
        next.send_to_sleep(&request);
        std::mem::replace(&mut b, Actor::of_queues(&world, "b")).kill();
        send(&mut a, id, [1, 8, 1]);
        // Handed to the dead or not, the living one gets it.
        assert_eq!(next.answer(&request), Ok(vec![1, 8, 1]));
        b.send_to_sleep(&request);
        std::mem::replace(&mut b, Actor::of_queues(&world, "b")).kill();
        for tag in 1..=3 {
            send(&mut a, id, [1, 8, tag]);
        }
        wait_until("all are there", || stat(&mut a, id, QNUM) == 3);
        for tag in 1..=3 {
            assert_eq!(take(&mut a, id, 0), [1, 8, tag]);
        }
    }
}

#[test]
fn a_killed_sender_sends_nothing() {
    let (world, mut a, mut b, id) = two();
    set_bytes(&mut a, id, 100);
    for tag in 0..20 {
        send(&mut a, id, [1, 100, tag]);
        b.send_to_sleep(&format!("send {id} 2 {} 7 0", 10 + tag * 100));
        std::mem::replace(&mut b, Actor::of_queues(&world, "b")).kill();
        // In its own domain that is known at once.
        assert_eq!(take(&mut b, id, 0), [1, 100, tag]);
        set_bytes(&mut b, id, 4000);
        assert_eq!(held(&mut a, id), (0, 0));
        set_bytes(&mut b, id, 100);
    }
}

#[test]
fn pids_of_the_own_domain_are_shown_and_others_are_zero() {
    let (_world, mut a, mut b, id) = two();
    let pids = [a.pid(), b.pid()].map(i64::from);
    let shown = |a: &mut Actor, b: &mut Actor, field, pids| {
        assert_eq!((stat(a, id, field), stat(b, id, field)), pids);
    };
    shown(&mut a, &mut b, LSPID, (0, 0));
    shown(&mut a, &mut b, LRPID, (0, 0));
    send(&mut a, id, [1, 4, 4]);
    take(&mut b, id, 0);
    shown(&mut a, &mut b, LSPID, (pids[0], 0));
    shown(&mut a, &mut b, LRPID, (0, pids[1]));
    // What is done for a sleeper of the other domain is done in that one's name.
    let request = receive(id, 0);
    a.send_to_sleep(&request);
    send(&mut b, id, [1, 4, 4]);
    assert_eq!(a.answer(&request), Ok(vec![1, 4, 4]));
    shown(&mut a, &mut b, LSPID, (0, pids[1]));
    shown(&mut a, &mut b, LRPID, (pids[0], 0));
    set_bytes(&mut a, id, 4);
    send(&mut b, id, [1, 4, 4]);
    let request = format!("send {id} 1 4 5 0");
    a.send_to_sleep(&request);
    take(&mut b, id, 0);
    assert_eq!(a.answer(&request), Ok(vec![0]));
    shown(&mut a, &mut b, LSPID, (pids[0], 0));
    shown(&mut a, &mut b, LRPID, (0, pids[1]));
}

#[test]
fn times_are_the_same_in_both_domains() {
    let (_world, mut a, mut b, id) = two();
    for _ in 0..3 {
        send(&mut b, id, [1, 4, 4]);
        take(&mut a, id, 0);
        let all = a.ask(&format!("stat {id}")).expect("stat");
        assert!(all[STIME..].iter().all(|&time| time > 0), "{all:?}");
        let other = b.ask(&format!("stat {id}")).expect("stat");
        assert_eq!(other[STIME..], all[STIME..]);
    }
}

#[test]
fn the_death_of_a_domain_leaves_no_waiter_and_eats_no_message() {
    let (world, mut a, b, id) = two();
    let mut b = [
        b,
        Actor::of_queues(&world, "b"),
        Actor::of_queues(&world, "b"),
        Actor::of_queues(&world, "b"),
    ];
    set_bytes(&mut a, id, 100);
    let own = b[0].ok("get 0x704 03600");
    assert_eq!(a.ok("get 0x704 0"), own);
    // What it has sent stays.
    send(&mut b[0], id, [9, 100, 9]);
    b[0].send_to_sleep(&receive(id, 1));
    b[1].send_to_sleep(&receive(id, -5));
    b[2].send_to_sleep(&format!("send {id} 3 8 3 0"));
    b[3].send_to_sleep(&format!("send {id} 4 5000 4 0"));
    // Nobody is left there who could take anything back.
    world.kill_and_wait("b");
    for actor in b {
        actor.kill();
    }
    wait_until("the domain is known to be gone", || {
        a.ask(&format!("stat {own}")) == Err(Errno::EIDRM)
    });
    assert_eq!(take(&mut a, id, 0), [9, 100, 9]);
    for tag in 0..5 {
        send(&mut a, id, [1 + tag % 2, 20, tag]);
    }
    wait_until("all are there", || held(&mut a, id) == (5, 100));
    set_bytes(&mut a, id, 16384);
    assert_eq!(held(&mut a, id), (5, 100));
    for tag in 0..5 {
        assert_eq!(take(&mut a, id, 0), [1 + tag % 2, 20, tag]);
    }
    // All its room is there, and another domain of the same name begins anew.
    let mut b = Actor::of_queues(&world, "b");
    for tag in 0..16 {
        send(&mut b, id, [1, 1024, tag]);
    }
    assert_eq!(
        b.call(&format!("send {id} 1 1 0 {IPC_NOWAIT}")),
        Err(Errno::EAGAIN)
    );
    for tag in 0..16 {
        assert_eq!(take(&mut a, id, 0), [1, 1024, tag]);
    }
}

#[test]
fn the_end_of_the_owner_domain_ends_the_waits_in_the_other() {
    let (world, mut a, mut b, _) = two();
    let mut other = Actor::of_queues(&world, "a");
    let id = b.ok("get 0x703 03600");
    set_bytes(&mut b, id, 10);
    let (any, full) = (receive(id, 0), format!("send {id} 1 11 0 0"));
    a.send_to_sleep(&any);
    other.send_to_sleep(&full);
    world.kill_and_wait("b");
    b.kill();
    assert_eq!(a.answer(&any), Err(Errno::EIDRM));
    assert_eq!(other.answer(&full), Err(Errno::EIDRM));
    for request in [
        any,
        full,
        format!("stat {id}"),
        format!("set {id} 0 0600 10"),
    ] {
        assert_eq!(other.ask(&request), Err(Errno::EIDRM), "{request}");
        assert_eq!(a.ask(&request), Err(Errno::EIDRM), "{request}");
    }
}
