// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests that do what they should.

use super::world::*;
use rustix::io::Errno;
use std::rc::Rc;
use vshmem_abi::Kind;
use vshmem_abi::link::LinkOp;
use vshmem_abi::wire::State;
use vshmem_registry::xenstore::fake::{FakeStore, Quota};
use vshmem_registry::xenstore::{Announcement, Books, XenStore, paths};

#[test]
fn guests_find_each_others_keys_and_are_granted_regions_in_their_epoch() {
    let world = World::new();
    let (a, b) = (world.guest(1), world.guest(2));
    let id = a.make(KEY);
    let found = b.get(KEY, CREAT).unwrap();
    assert_eq!((found.created, found.meta.id, found.meta.owner), (0, id, 1));
    let place = b.call(about(LinkOp::Locate, id)).unwrap();
    assert_eq!((place.domid, place.gref), (1, 502));
    let epoch = b.run(|front| front.epoch);
    assert_eq!(a.run(|front| front.books.granted.clone()), [(2, epoch)]);
    assert_eq!(b.get(KEY, EXCL).err(), Some(Errno::EXIST));
}

#[test]
fn a_key_that_guests_race_for_has_one_winner() {
    let world = World::new();
    let guests: Vec<Guest> = (1..=4).map(|domid| world.guest(domid)).collect();
    let racing = guests.iter().map(|guest| {
        guest.begin(|front| {
            let won = (1..100).filter(|key| front.get(Kind::Shm, *key, EXCL).is_ok());
            won.collect::<Vec<i32>>()
        })
    });
    let racing: Vec<_> = racing.collect();
    let mut won: Vec<i32> = racing.iter().flat_map(|r| r.recv().unwrap()).collect();
    won.sort_unstable();
    assert_eq!(won, (1..100).collect::<Vec<i32>>());
}

#[test]
fn a_change_is_heard_by_all_that_know_before_its_maker_has_its_answer() {
    let world = World::new();
    let (a, b) = (world.guest(1), world.guest(2));
    let id = a.make(KEY);
    b.get(KEY, 0).unwrap();
    b.call(about(LinkOp::Locate, id)).unwrap();
    b.run(|front| front.books.nattch = 1);
    assert_eq!(a.remove(id), Ok(State::Dest));
    assert_eq!(b.state(id), Some(State::Dest));
    b.run(|front| front.books.nattch = 0);
    b.call(about(LinkOp::Zero, id)).unwrap();
    a.await_that(|front| front.books.known.is_empty());
}

#[test]
fn guests_know_which_others_are_ready() {
    let world = World::new();
    let (a, b) = (world.guest(1), world.guest(2));
    a.await_that(|front| front.books.ready == [(2, "guest-2".to_owned())].into());
    let c = world.guest(3);
    let names = |front: &Front| front.books.ready.keys().copied().collect::<Vec<_>>();
    a.await_that(move |front| names(front) == [2, 3]);
    drop(b);
    a.await_that(move |front| names(front) == [3]);
    assert_eq!(c.domid, 3);
}

#[test]
fn a_guest_that_comes_back_hears_who_is_ready_though_it_was_told_before_it_was_enrolled() {
    let world = World::new();
    let (_a, b) = (world.guest(1), world.guest(2));
    drop(b);
    for generation in 10..20 {
        let b = Guest::start(world.store.clone(), 2, generation);
        let ready = b.run(|front| {
            front.enrol().unwrap();
            front.books.ready.clone()
        });
        assert_eq!(ready, [(1, "guest-1".to_owned())].into());
    }
}

#[test]
fn all_that_is_written_is_gone_when_all_guests_are() {
    let mut world = World::new();
    let before = world.store.paths();
    let guests: Vec<Guest> = (1..=3).map(|domid| world.guest(domid)).collect();
    for guest in &guests {
        for n in 0..20 {
            guest.make(KEY + 100 * guest.domid as i32 + n);
            guest.get(KEY + 100 + n, 0).unwrap();
        }
    }
    for guest in guests {
        let domid = guest.domid;
        drop(guest);
        let own = format!("/local/domain/{domid}/data/vshmem");
        assert_eq!(world.below(&own), Vec::<String>::new());
        world.store.release(domid);
    }
    world.assert_works();
    while !world.below("/vshmem/domain/").is_empty() {
        std::thread::yield_now();
    }
    world.stop();
    let mut after = world.store.paths();
    after.push(paths::BACKEND.to_owned());
    after.sort();
    assert_eq!(after, before);
}

#[test]
fn a_guest_whose_quota_is_used_up_gets_enospc_until_there_is_room() {
    let world = World::new();
    let guest = world.guest(1);
    let own = world.store.connect(1);
    let mut n = 0;
    while own
        .write(&format!("data/other/{}/{n}", n / 100), b"")
        .is_ok()
    {
        n += 1;
    }
    assert_eq!(guest.get(KEY, EXCL).err(), Some(Errno::NOSPC));
    own.rm("data/other").unwrap();
    guest.make(KEY);
}

#[test]
fn a_guest_without_any_room_is_told_so_when_it_begins() {
    let world = World::new();
    world.store.set_quota(Quota {
        nodes: 1,
        ..Quota::default()
    });
    world.store.introduce(1, "one");
    let guest = Guest::start(world.store.clone(), 1, 1);
    assert_eq!(guest.run(|front| front.enrol()), Err(Errno::NOSPC));
}

#[test]
fn dom0_is_no_guest_and_a_guest_is_no_place_for_the_back_end() {
    let store = FakeStore::new();
    let in_dom0 = crate::front::link::Mailboxes::new(Rc::new(store.connect(0)), 1);
    assert_eq!(in_dom0.err(), Some(Errno::INVAL));
    super::super::check_dom0(&store.connect(0)).unwrap();
    store.introduce(5, "five");
    let refused = super::super::check_dom0(&store.connect(5)).unwrap_err();
    assert!(refused.to_string().contains("vshmemd --port xen"));
}

#[test]
fn a_back_end_of_another_version_is_none() {
    let world = World::without_backend();
    world.store.introduce(1, "one");
    let dom0 = world.store.connect(0);
    Books::open(Rc::new(world.store.connect(0))).unwrap();
    let other = Announcement {
        version: 1,
        ..Announcement::new(7)
    };
    dom0.write(paths::BACKEND, other.text().as_bytes()).unwrap();
    let guest = Guest::start(world.store.clone(), 1, 1);
    assert_eq!(guest.run(|front| front.enrol()), Err(Errno::NODEV));
    assert!(guest.run(|front| front.link.fd().is_none()));
}
