// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests that write what they like below their `data`, or nothing.

use super::world::*;
use rustix::io::Errno;
use std::time::Duration;
use vshmem_abi::Domid;
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::wire::State;
use vshmem_registry::xenstore::fake::Client;
use vshmem_registry::xenstore::mailbox::{Inbox, Outbox};
use vshmem_registry::xenstore::{Announcement, Session, XenStore, paths};

/// A guest that is written to by hand.
struct Bad {
    domid: Domid,
    store: Client,
    session: Session,
    up: Outbox,
    down: Inbox,
    seq: u32,
}

impl Bad {
    fn new(world: &World, domid: Domid) -> Self {
        world.store.introduce(domid, "bad");
        let store = world.store.connect(domid);
        let backend = store.read(paths::BACKEND).unwrap();
        let session = Session {
            front: 666,
            back: Announcement::parse(&backend).unwrap().generation,
            number: 1,
        };
        let at = |pattern| paths::of_domain(pattern, domid);
        Self {
            domid,
            store,
            session,
            up: Outbox::new(at(paths::UP), 1, u32::MAX),
            down: Inbox::new(at(paths::DOWN), 1),
            seq: 0,
        }
    }

    fn begin(&self) {
        self.write(paths::FRONT, self.session.text().as_bytes());
    }

    /// Writes a node of its own; whether it may is its affair.
    fn write(&self, pattern: &str, value: &[u8]) {
        let path = paths::of_domain(pattern, self.domid);
        let _ = self.store.write(&path, value);
    }

    fn say(&mut self, message: &LinkMsg) -> Result<(), Errno> {
        self.seq += 1;
        let seq = self.seq;
        self.up.put(&self.store, &LinkMsg { seq, ..*message })
    }

    /// The next message that it gets; `None` when it is cut off.
    fn hear(&mut self) -> Option<LinkMsg> {
        loop {
            if let Some(message) = self.down.take(&self.store).unwrap() {
                return Some(message);
            }
            let ready = paths::of_domain(paths::READY_DOMAIN, self.domid);
            if self.seq > 1 && self.store.read(&ready) == Err(Errno::NOENT) {
                return self.down.take(&self.store).unwrap();
            }
            std::thread::yield_now();
        }
    }

    fn enrol(&mut self) {
        self.begin();
        let request = LinkMsg {
            generation: self.session.front,
            ..LinkMsg::new(LinkOp::Enrol)
        };
        self.say(&request).unwrap();
        let answer = self.hear().unwrap();
        assert_eq!((answer.errno, answer.domid), (0, self.domid));
    }

    fn ask(&mut self, request: &LinkMsg) -> LinkMsg {
        self.say(request).unwrap();
        loop {
            let message = self.hear().unwrap();
            if message.op == request.op && message.seq == self.seq {
                return message;
            }
        }
    }

    fn await_cut(&mut self) {
        while self.hear().is_some() {}
    }
}

/// The SplitMix64 sequence: the same garbage in every run.
fn garbage(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn guests_that_write_garbage_everywhere_harm_nobody_else() {
    let world = World::new();
    let mut seed = 5;
    for round in 0..60 {
        let mut bad = Bad::new(&world, 10 + round);
        if round % 2 == 0 {
            bad.enrol();
        }
        for _ in 0..20 {
            let place = match garbage(&mut seed) % 8 {
                0 => paths::FRONT.to_owned(),
                1 => paths::UP.to_owned(),
                2 => paths::GUEST.to_owned(),
                3 => format!("{}/deep/{}/er/x", paths::DOWN, garbage(&mut seed) % 50),
                4 => format!("{}/{}", paths::DOWN, garbage(&mut seed) % 5),
                _ => format!("{}/{}", paths::UP, garbage(&mut seed) % 5),
            };
            let len = garbage(&mut seed) % 2100;
            let mut value: Vec<u8> = (0..len).map(|_| garbage(&mut seed) as u8).collect();
            if garbage(&mut seed).is_multiple_of(2) {
                let digits = value
                    .iter()
                    .map(|b| b"0123456789abcdef "[usize::from(b % 17)]);
                value = digits.collect();
            }
            bad.write(&place, &value);
            if garbage(&mut seed).is_multiple_of(5) {
                bad.begin();
            }
            if garbage(&mut seed).is_multiple_of(9) {
                let path = paths::of_domain(&place, bad.domid);
                bad.store.rm(&path).unwrap();
            }
        }
    }
    world.assert_works();
}

#[test]
fn messages_with_wild_fields_harm_nobody_else() {
    let world = World::with_patience(Duration::from_millis(1));
    let sound = world.guest(1);
    let id = sound.make(KEY);
    let mut seed = 4;
    for round in 0..20 {
        let mut bad = Bad::new(&world, 10 + round);
        bad.enrol();
        for _ in 0..50 {
            let mut message = LinkMsg::new(LinkOp::Get);
            let small = |seed: &mut u64| (garbage(seed) % 14) as u32;
            message.op = 2 + small(&mut seed);
            if garbage(&mut seed).is_multiple_of(8) {
                message.op = garbage(&mut seed) as u32 % 40;
            }
            message.flags = garbage(&mut seed) as i32 & 0o3001;
            message.domid = small(&mut seed);
            message.epoch = garbage(&mut seed) as u32;
            message.meta.kind = 1 + small(&mut seed) % 4;
            message.meta.key = small(&mut seed) as i32;
            message.meta.size = garbage(&mut seed) >> (garbage(&mut seed) % 64);
            message.meta.index = small(&mut seed);
            message.meta.id = match garbage(&mut seed) % 2 {
                0 => garbage(&mut seed) as i32,
                _ => id,
            };
            if message.op == LinkOp::Remove as u32 && message.meta.id == id {
                continue;
            }
            message.usage.nattch = garbage(&mut seed);
            message.ids = [(); 4].map(|()| small(&mut seed) as i32 | vshmem_abi::ids::ROUTED_BIT);
            if bad.say(&message).is_err() {
                break;
            }
        }
    }
    assert_eq!(sound.call(about(LinkOp::Find, id)).unwrap().meta.owner, 1);
}

#[test]
fn who_does_not_enrol_first_is_refused() {
    let world = World::new();
    let others = [
        LinkMsg::new(LinkOp::Get),
        LinkMsg::new(LinkOp::Resumed),
        LinkMsg::new(LinkOp::Update),
        LinkMsg {
            generation: 1,
            ..LinkMsg::new(LinkOp::Enrol)
        },
        LinkMsg {
            version: 1,
            generation: 666,
            ..LinkMsg::new(LinkOp::Enrol)
        },
    ];
    for (domid, request) in (10..).zip(others) {
        let mut bad = Bad::new(&world, domid);
        bad.begin();
        bad.say(&request).unwrap();
        assert_eq!(bad.hear().unwrap().errno, libc::EPROTO);
    }
    let mut goes_on = Bad::new(&world, 20);
    goes_on.begin();
    let again = LinkMsg {
        flags: 1,
        generation: 666,
        ..LinkMsg::new(LinkOp::Enrol)
    };
    goes_on.say(&again).unwrap();
    assert_eq!(goes_on.hear().unwrap().errno, libc::ESTALE);
    assert_eq!(world.below("/vshmem/ready/"), Vec::<String>::new());
    world.assert_works();
}

#[test]
fn a_guest_speaks_for_itself_whatever_it_says() {
    let world = World::new();
    let sound = world.guest(1);
    let id = sound.make(KEY);
    let mut bad = Bad::new(&world, 10);
    bad.enrol();
    let question = LinkMsg {
        domid: 1,
        ..about(LinkOp::Locate, id)
    };
    let place = bad.ask(&question);
    assert_eq!((place.errno, place.gref), (0, 510), "granted to it alone");
}

#[test]
fn a_guest_that_asks_without_end_and_reads_nothing_is_cut_off() {
    let world = World::new();
    let mut bad = Bad::new(&world, 10);
    bad.enrol();
    // Its own quota holds it up at times.
    while world.below("/vshmem/ready/10") == ["/vshmem/ready/10"] {
        if bad.say(&LinkMsg::new(LinkOp::Totals)).is_err() {
            std::thread::yield_now();
        }
    }
    bad.await_cut();
    world.assert_works();
}

#[test]
fn a_guest_that_does_not_hear_of_changes_is_waited_for_once_and_cut_off_at_last() {
    let world = World::with_patience(Duration::from_millis(1));
    let sound = world.guest(1);
    let id = sound.make(KEY);
    let mut bad = Bad::new(&world, 10);
    bad.enrol();
    assert_eq!(bad.ask(&about(LinkOp::Find, id)).errno, 0);
    while world.below("/vshmem/ready/10") == ["/vshmem/ready/10"] {
        sound.call(about(LinkOp::Set, id)).unwrap();
    }
    bad.await_cut();
    assert_eq!(sound.remove(id), Ok(State::Free));
    world.assert_works();
}

#[test]
fn a_guest_that_never_answers_keeps_what_it_may_have_attached_until_it_is_gone() {
    let world = World::with_patience(Duration::from_millis(1));
    let sound = world.guest(1);
    let id = sound.make(KEY);
    let mut bad = Bad::new(&world, 10);
    bad.enrol();
    // So little patience the back-end has with the owner too.
    while bad.ask(&about(LinkOp::Locate, id)).errno != 0 {}
    assert_eq!(sound.remove(id), Ok(State::Dest));
    world.store.release(10);
    sound.await_that(move |front| !front.books.known.contains_key(&id));
}

#[test]
fn a_guest_that_begins_again_all_the_time_costs_only_itself() {
    let world = World::new();
    let sound = world.guest(1);
    let mut bad = Bad::new(&world, 10);
    for n in 0..300 {
        bad.session.front = n % 3;
        bad.session.number = n;
        bad.begin();
        bad.store.rm("data/vshmem/up").unwrap();
        bad.up = Outbox::new(paths::of_domain(paths::UP, 10), n, 9);
        let request = LinkMsg {
            generation: n % 3,
            ..LinkMsg::new(LinkOp::Enrol)
        };
        bad.say(&request).unwrap();
    }
    sound.make(KEY);
    world.assert_works();
}

#[test]
fn nodes_that_are_taken_away_under_the_back_end_are_only_missed() {
    let world = World::new();
    let sound = world.guest(1);
    let id = sound.make(KEY);
    for n in 0..50 {
        let mut bad = Bad::new(&world, 10 + n);
        bad.enrol();
        assert_eq!(bad.ask(&about(LinkOp::Find, id)).errno, 0);
        let changing = sound.begin(move |front| front.call(&about(LinkOp::Set, id)).is_ok());
        bad.store.rm("data/vshmem").unwrap();
        assert!(changing.recv().unwrap());
    }
    world.assert_works();
    assert_eq!(sound.state(id), Some(State::Live));
}
