// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests that are destroyed, and guests whose `vshmemd` is.

use super::world::*;
use rustix::io::Errno;
use vshmem_abi::Kind;
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::wire::State;

/// Two guests; the first has a segment and a set, of which the second has the regions.
fn sharing(world: &World) -> (Guest, Guest, i32, i32) {
    let (a, b) = (world.guest(1), world.guest(2));
    let segment = a.make(KEY);
    let set = a.run(|front| front.get(Kind::Sem, KEY, EXCL)).unwrap();
    b.get(KEY, 0).unwrap();
    b.run(|front| front.get(Kind::Sem, KEY, 0)).unwrap();
    for id in [segment, set.meta.id] {
        b.call(about(LinkOp::Locate, id)).unwrap();
    }
    (a, b, segment, set.meta.id)
}

#[test]
fn what_a_destroyed_guest_owned_is_lost_and_nothing_of_it_is_left() {
    let world = World::new();
    let (a, b, segment, set) = sharing(&world);
    b.run(|front| front.books.nattch = 1);
    world.store.release(1);
    for id in [segment, set] {
        b.await_that(move |front| {
            let known = front.books.known.get(&id);
            known.is_some_and(|meta| meta.state == State::Lost as u32)
        });
    }
    // Its keys are free at once.
    let again = b.get(KEY, EXCL).unwrap();
    assert_eq!((again.created, again.meta.owner), (1, 2));
    assert_eq!(world.below("/vshmem/domain/"), ["/vshmem/domain/2"]);
    assert_eq!(world.below("/vshmem/ready/"), ["/vshmem/ready/2"]);
    assert_eq!(world.below("/local/domain/1"), Vec::<String>::new());
    // The last detach ends what was lost.
    b.run(|front| front.books.nattch = 0);
    for id in [segment, set] {
        b.call(about(LinkOp::Zero, id)).unwrap();
    }
    assert_eq!(world.below("/vshmem/construct/").len(), 1);
    drop(a);
}

#[test]
fn a_guest_that_shared_a_set_and_is_destroyed_has_departed() {
    let world = World::new();
    let (a, b, segment, set) = sharing(&world);
    let epoch = b.run(|front| front.epoch);
    world.store.release(2);
    a.await_that(move |front| front.books.departed == [(set, 2, epoch)]);
    assert_eq!(a.state(segment), Some(State::Live));
    drop(b);
}

#[test]
fn a_guest_that_reboots_joins_again_as_another() {
    let world = World::new();
    let (a, b, ..) = sharing(&world);
    world.store.release(1);
    drop(a);
    let again = world.guest(7);
    assert_eq!(again.get(KEY, 0).err(), Some(Errno::NOENT));
    let id = again.make(KEY);
    assert_eq!(b.get(KEY, 0).unwrap().meta.id, id);
}

#[test]
fn a_vshmemd_that_stops_is_gone_at_once() {
    let world = World::new();
    let (a, b, segment, _) = sharing(&world);
    drop(a);
    b.await_that(move |front| !front.books.known.contains_key(&segment));
    assert_eq!(world.below("/vshmem/ready/"), ["/vshmem/ready/2"]);
}

#[test]
fn a_vshmemd_that_was_killed_is_dead_when_the_next_one_of_its_guest_enrols() {
    let world = World::new();
    let (a, b, segment, set) = sharing(&world);
    let (other, own) = (a.run(|front| front.epoch), b.run(|front| front.epoch));
    let known = b.run(|front| front.get(Kind::Sem, KEY + 1, EXCL)).unwrap();
    a.run(|front| front.get(Kind::Sem, KEY + 1, 0)).unwrap();
    a.call(about(LinkOp::Locate, known.meta.id)).unwrap();
    a.kill(&world);
    // Until then its keys are taken.
    assert_eq!(b.get(KEY, EXCL).err(), Some(Errno::EXIST));
    let a = world.vshmemd(1, 99);
    b.await_that(move |front| {
        let lost = [segment, set].map(|id| !front.books.known.contains_key(&id));
        lost == [true, true] && front.books.departed == [(known.meta.id, 1, other)]
    });
    let epoch = a.run(|front| front.epoch);
    assert_eq!(epoch, (other + 1) % 256, "its tokens are of another epoch");
    // Which it is, the back-end says of each.
    let enrolled = |domid, epoch| {
        let question = LinkMsg {
            domid,
            epoch,
            ..LinkMsg::new(LinkOp::Enrolled)
        };
        a.call(question).map(drop)
    };
    assert_eq!(enrolled(1, epoch), Ok(()));
    assert_eq!(enrolled(1, other), Err(Errno::NOENT));
    assert_eq!(enrolled(2, own), Ok(()));
    a.make(KEY);
}

#[test]
fn a_second_vshmemd_in_a_guest_takes_its_place_and_the_first_knows() {
    let world = World::new();
    let (a, b, segment, _) = sharing(&world);
    let second = world.vshmemd(1, 99);
    a.await_that(|front| front.link.fd().is_none());
    assert_eq!(a.get(KEY + 5, CREAT).err(), Some(Errno::NODEV));
    b.await_that(move |front| !front.books.known.contains_key(&segment));
    // What the first one leaves alone when it ends.
    drop(a);
    second.make(KEY + 5);
    assert_eq!(b.get(KEY + 5, 0).unwrap().meta.owner, 1);
}

#[test]
fn a_guest_that_dies_while_it_is_asked_has_nothing_attached() {
    let world = World::new();
    let (a, b, segment, _) = sharing(&world);
    let (hold, held) = std::sync::mpsc::channel::<()>();
    // It hears nothing while it does this.
    let busy = b.begin(move |_| held.recv().is_err());
    let removing = a.begin(move |front| front.remove(segment));
    while world.below("/local/domain/2/data/vshmem/down/").is_empty() {
        std::thread::yield_now();
    }
    world.store.release(2);
    assert_eq!(removing.recv().unwrap(), Ok(State::Free));
    drop(hold);
    assert!(busy.recv().unwrap());
}
