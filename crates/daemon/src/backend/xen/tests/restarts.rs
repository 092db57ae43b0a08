// SPDX-License-Identifier: MIT OR Apache-2.0
//! Back-ends that are killed, told to stop, and started again.

use super::world::*;
use rustix::io::Errno;
use std::time::Duration;
use vshmem_abi::Kind;
use vshmem_abi::link::LinkOp;
use vshmem_abi::wire::State;

#[test]
fn keys_survive_a_back_end_that_is_killed_and_guests_go_on_by_themselves() {
    let mut world = World::new();
    let (a, b) = (world.guest(1), world.guest(2));
    let id = a.make(KEY);
    let set = b.run(|front| front.get(Kind::Sem, KEY, EXCL)).unwrap();
    b.get(KEY, 0).unwrap();
    for _ in 0..3 {
        world.kill();
        world.start();
        assert_eq!(b.get(KEY, 0).unwrap().meta.id, id);
        let found = a.run(|front| front.get(Kind::Sem, KEY, 0)).unwrap();
        assert_eq!((found.created, found.meta.id), (0, set.meta.id));
        assert_eq!(b.call(about(LinkOp::Locate, id)).unwrap().domid, 1);
    }
    assert_eq!(b.remove(id), Ok(State::Free));
    a.await_that(move |front| !front.books.known.contains_key(&id));
}

#[test]
fn a_call_waits_for_the_back_end_that_is_away_and_is_done_when_it_is_there() {
    let mut world = World::new();
    let (a, b) = (world.guest(1), world.guest(2));
    let id = a.make(KEY);
    for killed in [false, true] {
        match killed {
            true => world.kill(),
            false => world.stop(),
        }
        let making = b.begin(move |front| front.get(Kind::Shm, KEY + 1 + i32::from(killed), EXCL));
        let finding = a.begin(|front| front.get(Kind::Shm, KEY, 0));
        world.start();
        assert_eq!(making.recv().unwrap().unwrap().created, 1);
        assert_eq!(finding.recv().unwrap().unwrap().meta.id, id);
    }
}

#[test]
fn a_removal_of_which_the_back_end_died_may_have_been_done_or_not() {
    let mut world = World::new();
    let a = world.guest(1);
    let id = a.make(KEY);
    world.kill();
    // It is not known that the back-end is away.
    let removing = a.begin(move |front| front.remove(id));
    while world.below("/local/domain/1/data/vshmem/up/").is_empty() {
        std::thread::yield_now();
    }
    world.start();
    assert_eq!(removing.recv().unwrap(), Err(Errno::NODEV));
    assert_eq!(a.get(KEY, 0).unwrap().meta.id, id);
}

#[test]
fn a_back_end_that_stays_away_is_waited_for_once_and_heard_of_when_it_is_back() {
    let mut world = World::new();
    let a = world.guest(1);
    let id = a.make(KEY);
    a.run(|front| front.link.set_patience(Duration::from_millis(1)));
    world.stop();
    assert_eq!(a.get(KEY, 0).err(), Some(Errno::NODEV));
    a.run(|front| front.link.set_patience(Duration::from_secs(600)));
    assert_eq!(a.get(KEY, 0).err(), Some(Errno::NODEV), "at once");
    world.start();
    a.await_that(|front| front.link.is_heard());
    assert_eq!(a.get(KEY, 0).unwrap().meta.id, id);
}

#[test]
fn a_guest_that_dies_while_the_back_end_is_away_is_found_dead() {
    let mut world = World::new();
    let (a, b) = (world.guest(1), world.guest(2));
    let id = a.make(KEY);
    let set = b.run(|front| front.get(Kind::Sem, KEY, EXCL)).unwrap();
    b.get(KEY, 0).unwrap();
    b.run(|front| front.books.nattch = 1);
    a.run(|front| front.get(Kind::Sem, KEY, 0)).unwrap();
    world.kill();
    world.store.release(1);
    world.start();
    b.await_that(move |front| {
        let known = front.books.known.get(&id);
        known.is_some_and(|meta| meta.state == State::Lost as u32)
    });
    assert_eq!(b.get(KEY, EXCL).unwrap().created, 1);
    assert_eq!(world.below("/vshmem/ready/"), ["/vshmem/ready/2"]);
    assert_eq!(b.state(set.meta.id), Some(State::Live));
    drop(a);
}

#[test]
fn a_vshmemd_that_is_started_again_meanwhile_is_another() {
    let mut world = World::new();
    let (a, b) = (world.guest(1), world.guest(2));
    let id = a.make(KEY);
    b.get(KEY, 0).unwrap();
    let epoch = a.run(|front| front.epoch);
    world.kill();
    a.kill(&world);
    let a = Guest::start(world.store.clone(), 1, 77);
    let enrolling = a.begin(|front| front.enrol());
    world.start();
    assert_eq!(enrolling.recv().unwrap(), Ok(()));
    assert_eq!(a.run(|front| front.epoch), (epoch + 1) % 256);
    b.await_that(move |front| !front.books.known.contains_key(&id));
    assert_eq!(a.get(KEY, 0).err(), Some(Errno::NOENT));
}

#[test]
fn a_guest_that_stays_silent_after_a_restart_keeps_what_it_may_have_attached() {
    let mut world = World::new();
    let (a, b) = (world.guest(1), world.guest(2));
    let id = a.make(KEY);
    b.get(KEY, 0).unwrap();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let busy = b.begin(move |_| held.recv().is_err());
    world.kill();
    world.start();
    assert_eq!(a.remove(id), Ok(State::Dest));
    drop(hold);
    assert!(busy.recv().unwrap());
    a.await_that(move |front| !front.books.known.contains_key(&id));
    b.await_that(move |front| !front.books.known.contains_key(&id));
}

#[test]
fn vshmemd_waits_for_a_back_end_that_is_not_there_yet() {
    let mut world = World::without_backend();
    world.store.introduce(1, "one");
    let a = Guest::start(world.store.clone(), 1, 1);
    let enrolling = a.begin(|front| front.enrol());
    world.start();
    assert_eq!(enrolling.recv().unwrap(), Ok(()));
    a.make(KEY);
}

#[test]
fn what_was_wiped_from_the_store_cannot_be_gone_on_with() {
    let mut world = World::new();
    let a = world.guest(1);
    a.make(KEY);
    world.kill();
    let dom0 = world.store.connect(0);
    vshmem_registry::xenstore::XenStore::rm(&dom0, "/vshmem").unwrap();
    world.start();
    a.await_that(|front| front.link.fd().is_none());
    assert_eq!(a.get(KEY, 0).err(), Some(Errno::NODEV));
    drop(a);
    let again = world.vshmemd(1, 2);
    again.make(KEY);
}

/// The back-end is killed after each of the requests that it makes of XenStore in the course of this, and
/// another goes on; guests see at the most that a call is not answered.
#[test]
fn a_back_end_may_be_killed_at_any_moment() {
    let mut fuse = 0;
    while is_killed_after(fuse) {
        fuse += 1;
    }
    assert!(fuse > 100, "it makes more requests than {fuse}");
}

/// Whether the back-end makes so many requests in the course of two guests' lives.
fn is_killed_after(fuse: u32) -> bool {
    let mut world = World::without_backend();
    world.start_after(Some(fuse));
    let guests = [1, 2].map(|domid| {
        world.store.introduce(domid, "some guest");
        Guest::start(world.store.clone(), domid, domid.into())
    });
    let script = std::thread::spawn(move || {
        lives(&guests[0], &guests[1]);
        guests
    });
    let mut killed = false;
    while !script.is_finished() {
        if !killed && world.has_ended() {
            killed = true;
            world.restart_ended();
        }
        std::thread::yield_now();
    }
    let guests = script.join().unwrap();
    assert_eq!(world.below("/vshmem/domain/").len(), 2, "after {fuse}");
    // Wherever it was killed, or not, the next one finds all in order.
    world.kill();
    world.start();
    assert_eq!(world.below("/vshmem/construct/").len(), 1, "after {fuse}");
    drop(guests);
    world.store.release(1);
    world.store.release(2);
    world.assert_works();
    assert_eq!(world.below("/vshmem/construct/"), Vec::<String>::new());
    killed
}

/// What happens to two guests. At the end there is one construct.
fn lives(a: &Guest, b: &Guest) {
    for guest in [a, b] {
        guest.run(|front| front.enrol()).unwrap();
    }
    let kept = a.get(KEY, CREAT).unwrap().meta.id;
    assert_eq!(b.get(KEY, 0).unwrap().meta.id, kept);
    let gone = b.get(KEY + 1, CREAT).unwrap().meta.id;
    a.get(KEY + 1, 0).unwrap();
    // Its owner may not have gone on yet.
    while b.call(about(LinkOp::Locate, kept)) == Err(Errno::NODEV) {}
    a.call(about(LinkOp::Set, gone)).unwrap();
    if b.remove(gone) == Err(Errno::NODEV) && b.remove(gone) == Err(Errno::INVAL) {
        // It had been done.
        b.run(move |front| front.books.known.remove(&gone));
    }
    for guest in [a, b] {
        guest.await_that(move |front| !front.books.known.contains_key(&gone));
        assert_eq!(guest.get(KEY + 1, 0).err(), Some(Errno::NOENT));
        assert_eq!(guest.get(KEY, 0).unwrap().meta.id, kept);
    }
}
