// SPDX-License-Identifier: MIT OR Apache-2.0
//! Semaphore sets across two domains: sleeping in one and waking from the other, and what becomes
//! of a set when processes and domains die.

use libc::{GETNCNT, GETPID, GETVAL, GETZCNT, IPC_RMID, SEM_UNDO, SETVAL};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use vshmem_tests::actor::Actor;
use vshmem_tests::{World, wait_until};

fn ctl(actor: &mut Actor, id: i64, sem: u16, command: i32) -> i64 {
    actor.ok(&format!("ctl {id} {sem} {command} 0"))
}

fn value(actor: &mut Actor, id: i64) -> i64 {
    ctl(actor, id, 0, GETVAL)
}

fn post(actor: &mut Actor, id: i64) {
    actor.ok(&format!("op {id} 0 1 0"));
}

/// Has an actor begin what makes it sleep, and waits until another one sees that it does.
fn sleep(actor: &mut Actor, other: &mut Actor, id: i64, request: &str, command: i32) {
    let before = ctl(other, id, 0, command);
    actor.send(request);
    wait_until("the sleeper is counted", || {
        ctl(other, id, 0, command) == before + 1
    });
}

/// Two domains and a set of two semaphores that the first one made.
fn two() -> (World, Actor, Actor, i64) {
    let world = World::new();
    let mut a = Actor::of_sets(&world, "a");
    let mut b = Actor::of_sets(&world, "b");
    let id = a.ok("get 0x301 2 03600");
    assert_eq!(b.ok("get 0x301 2 0600"), id);
    (world, a, b, id)
}

#[test]
fn a_sleeper_is_woken_from_the_other_domain() {
    let (_world, mut a, mut b, id) = two();
    let down = format!("op {id} 0 -1 0");
    for _ in 0..50 {
        sleep(&mut a, &mut b, id, &down, GETNCNT);
        post(&mut b, id);
        assert_eq!((value(&mut b, id), ctl(&mut b, id, 0, GETNCNT)), (0, 0));
        assert_eq!(a.answer(&down), Ok(vec![0]));
        sleep(&mut b, &mut a, id, &down, GETNCNT);
        post(&mut a, id);
        assert_eq!((value(&mut a, id), ctl(&mut a, id, 0, GETNCNT)), (0, 0));
        assert_eq!(b.answer(&down), Ok(vec![0]));
    }
    post(&mut b, id);
    let zero = format!("op {id} 0 0 0");
    sleep(&mut a, &mut b, id, &zero, GETZCNT);
    b.ok(&format!("ctl {id} 0 {SETVAL} 0"));
    assert_eq!(a.answer(&zero), Ok(vec![0]));
}

#[test]
fn sleepers_of_two_domains_stand_in_one_order() {
    let (world, mut a, mut b, id) = two();
    let (mut c, mut looks) = (Actor::of_sets(&world, "a"), Actor::of_sets(&world, "b"));
    let down = format!("op {id} 0 -1 0");
    for _ in 0..10 {
        sleep(&mut b, &mut looks, id, &down, GETNCNT);
        sleep(&mut a, &mut looks, id, &down, GETNCNT);
        sleep(&mut c, &mut looks, id, &down, GETNCNT);
        for (left, actor) in [&mut b, &mut a, &mut c].into_iter().enumerate() {
            post(&mut looks, id);
            assert_eq!(actor.answer(&down), Ok(vec![0]));
            assert_eq!(ctl(&mut looks, id, 0, GETNCNT), 2 - left as i64);
        }
    }
}

#[test]
fn a_signal_ends_the_wait_whatever_the_domain_of_the_set() {
    let (_world, mut a, mut b, id) = two();
    let down = format!("op {id} 0 -1 {SEM_UNDO}");
    b.ok(&format!("catch {}", libc::SIGUSR1));
    for _ in 0..20 {
        sleep(&mut b, &mut a, id, &down, GETNCNT);
        b.signal(Signal::SIGUSR1);
        assert_eq!(b.answer(&down), Err(Errno::EINTR));
        assert_eq!(ctl(&mut a, id, 0, GETNCNT), 0);
    }
    post(&mut a, id);
    assert_eq!(value(&mut b, id), 1);
}

#[test]
fn removal_ends_the_waits_of_both_domains() {
    let (world, mut a, mut b, _) = two();
    let mut other = Actor::of_sets(&world, "b");
    for remover in ["a", "b"] {
        let mut remover = Actor::of_sets(&world, remover);
        let id = remover.ok("get 0x302 2 03600");
        let (down, zero) = (format!("op {id} 0 -9 0"), format!("op {id} 0 0 {SEM_UNDO}"));
        post(&mut remover, id);
        sleep(&mut a, &mut remover, id, &down, GETNCNT);
        sleep(&mut b, &mut remover, id, &down, GETNCNT);
        sleep(&mut other, &mut remover, id, &zero, GETZCNT);
        remover.ok(&format!("ctl {id} 0 {IPC_RMID} 0"));
        assert_eq!(a.answer(&down), Err(Errno::EIDRM));
        assert_eq!(b.answer(&down), Err(Errno::EIDRM));
        assert_eq!(other.answer(&zero), Err(Errno::EIDRM));
        assert_eq!(b.call(&down), Err(Errno::EINVAL));
        assert_eq!(a.call(&zero), Err(Errno::EINVAL));
        assert_eq!(b.call("get 0x302 2 0"), Err(Errno::ENOENT));
    }
}

#[test]
fn a_killed_sleeper_is_forgotten_in_both_domains() {
    let (world, mut a, mut b, id) = two();
    let down = format!("op {id} 0 -1 0");
    for _ in 0..20 {
        sleep(&mut b, &mut a, id, &down, GETNCNT);
        std::mem::replace(&mut b, Actor::of_sets(&world, "b")).kill();
        // In its own domain that is known at once.
        assert_eq!(ctl(&mut b, id, 0, GETNCNT), 0);
        assert_eq!(ctl(&mut a, id, 0, GETNCNT), 0);
        post(&mut a, id);
        assert_eq!(value(&mut b, id), 1);
        a.ok(&format!("op {id} 0 -1 04000"));
    }
}

#[test]
fn undo_of_a_process_is_seen_in_the_other_domain() {
    let (world, mut a, mut b, id) = two();
    a.ok(&format!("ctl {id} 0 {SETVAL} 5"));
    for _ in 0..20 {
        b.ok(&format!("two {id} 0 -3 1 4"));
        assert_eq!(value(&mut a, id), 2);
        let down = format!("op {id} 0 -5 0");
        a.send(&down);
        std::mem::replace(&mut b, Actor::of_sets(&world, "b")).kill();
        assert_eq!(a.answer(&down), Ok(vec![0]));
        assert_eq!(ctl(&mut a, id, 1, GETVAL), 0);
        a.ok(&format!("op {id} 0 5 0"));
    }
}

#[test]
fn pids_of_the_own_domain_are_shown_and_others_are_zero() {
    let (_world, mut a, mut b, id) = two();
    assert_eq!(ctl(&mut b, id, 0, GETPID), 0);
    post(&mut a, id);
    let pid = i64::from(a.pid());
    assert_eq!(ctl(&mut a, id, 0, GETPID), pid);
    assert_eq!(ctl(&mut b, id, 0, GETPID), 0);
    // Who does an operation for a sleeper of the other domain does it in that one's name.
    let down = format!("op {id} 0 -2 0");
    sleep(&mut b, &mut a, id, &down, GETNCNT);
    post(&mut a, id);
    assert_eq!(b.answer(&down), Ok(vec![0]));
    let pid = i64::from(b.pid());
    assert_eq!(ctl(&mut a, id, 0, GETPID), 0);
    assert_eq!(ctl(&mut b, id, 0, GETPID), pid);
}

#[test]
fn times_are_the_same_in_both_domains() {
    let (_world, mut a, mut b, id) = two();
    for _ in 0..3 {
        post(&mut b, id);
        a.ok(&format!("ctl {id} 1 {SETVAL} 5"));
        let times = a.ask(&format!("times {id}")).expect("times");
        assert!(times.iter().all(|&time| time > 0), "{times:?}");
        assert_eq!(b.ask(&format!("times {id}")).expect("times"), times);
    }
}

#[test]
fn the_death_of_a_domain_undoes_what_its_processes_did() {
    let (world, mut a, b, id) = two();
    let mut b = [b, Actor::of_sets(&world, "b"), Actor::of_sets(&world, "b")];
    a.ok(&format!("ctl {id} 0 {SETVAL} 5"));
    b[0].ok(&format!("two {id} 0 -2 1 1"));
    b[1].ok(&format!("two {id} 0 -3 1 1"));
    let down = format!("op {id} 0 -9 {SEM_UNDO}");
    sleep(&mut b[2], &mut a, id, &down, GETNCNT);
    assert_eq!((value(&mut a, id), ctl(&mut a, id, 1, GETVAL)), (0, 2));
    // Nobody is left there who could take anything back.
    world.kill_and_wait("b");
    for actor in b {
        actor.kill();
    }
    wait_until("undo is applied", || {
        value(&mut a, id) == 5 && ctl(&mut a, id, 1, GETVAL) == 0
    });
    wait_until("no sleeper is left", || ctl(&mut a, id, 0, GETNCNT) == 0);
    a.ok(&format!("op {id} 0 4 0"));
    assert_eq!(value(&mut a, id), 9);
    // Another domain of the same name begins anew.
    let mut b = Actor::of_sets(&world, "b");
    b.ok(&format!("op {id} 0 -9 {SEM_UNDO}"));
    b.kill();
    wait_until("undo is applied", || value(&mut a, id) == 9);
}

#[test]
fn the_end_of_the_owner_domain_ends_the_waits_in_the_other() {
    let (world, mut a, mut b, _) = two();
    let mut other = Actor::of_sets(&world, "a");
    let id = b.ok("get 0x303 1 03600");
    let down = format!("op {id} 0 -1 {SEM_UNDO}");
    sleep(&mut a, &mut other, id, &down, GETNCNT);
    world.kill_and_wait("b");
    b.kill();
    assert_eq!(a.answer(&down), Err(Errno::EIDRM));
    for request in [
        format!("op {id} 0 1 0"),
        format!("ctl {id} 0 {GETVAL} 0"),
        format!("times {id}"),
    ] {
        assert_eq!(other.ask(&request), Err(Errno::EIDRM), "{request}");
        assert_eq!(a.ask(&request), Err(Errno::EIDRM), "{request}");
    }
}
