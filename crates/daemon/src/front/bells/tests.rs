// SPDX-License-Identifier: MIT OR Apache-2.0
//! The doorbells of domains at a real hub.

use super::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;
use vshmem_abi::doorbell::RUNG;
use vshmem_abi::token::Token;
use vshmem_engine::wait_page::WaitMaster;
use vshmem_engine::wait_page::WaitPage;
use vshmem_gnt::host::hub::{HubHandle, serve};
use vshmem_gnt::host::{HostPort, HostRegion};
use vshmem_gnt::{Limit, Limits};

const ID: i32 = 0x4000_0001;

/// A domain with a client that sleeps in some slot of its wait page.
struct Domain {
    port: HostPort,
    bells: Bells<HostRegion>,
    waits: WaitMaster,
    page: &'static WaitPage,
    slot: u32,
}

impl Domain {
    fn new(hub: &HubHandle, domid: Domid) -> Self {
        let port = HostPort::new(domid, hub.add_domain(domid).unwrap()).unwrap();
        let waits = WaitMaster::create(domid.into()).unwrap();
        let page = WaitPage::map(waits.fd()).unwrap();
        let (slot, _) = page.claim(Token::new(domid, 1), 100 + domid).unwrap();
        Self {
            port,
            bells: Bells::new(),
            waits,
            page,
            slot,
        }
    }

    fn domid(&self) -> Domid {
        self.port.domid()
    }

    /// How often the sleeper was woken.
    fn wakes(&self) -> u32 {
        self.page.sleep_word(self.slot).unwrap().expected()
    }

    fn offer(&mut self, to: Domid, epoch: u8) -> Numbers {
        self.bells.offer(to, epoch, &mut self.port).unwrap()
    }

    fn take_up(&mut self, from: Domid, numbers: Numbers) -> Result<(), BellError> {
        self.bells.take_up(from, numbers, &mut self.port)
    }

    fn wake(&self, other: &Self) {
        self.bells.wake(ID, other.domid(), other.slot, &self.port);
    }

    /// Waits until the event channel of the doorbell with `other` is raised, or closed.
    fn hear(&mut self, other: Domid) {
        let bell = self.bells.with(other).unwrap();
        let (serial, channel) = (bell.serial, bell.channel());
        let fd = self.port.wait_fd(channel).unwrap();
        let minute = Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        };
        let ready = poll(
            &mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)],
            Some(&minute),
        );
        assert_eq!(ready, Ok(1), "waited a minute in vain");
        self.bells.raised(serial, &mut self.port);
    }

    fn answer(&mut self) {
        assert!(self.bells.answer(|slot| self.waits.wake(slot)));
    }

    fn end_those_over(&mut self) -> usize {
        let mut ended = 0;
        while let Some(bell) = self.bells.next_over() {
            bell.close(&mut self.port);
            ended += 1;
        }
        ended
    }
}

/// Two domains with a doorbell that the first one has made, and all quiet.
fn pair(hub: &HubHandle) -> (Domain, Domain) {
    let (mut a, mut b) = (Domain::new(hub, 1), Domain::new(hub, 2));
    let numbers = a.offer(2, 0);
    b.take_up(1, numbers).unwrap();
    b.hear(1);
    a.answer();
    b.answer();
    (a, b)
}

fn hub() -> HubHandle {
    serve(Limits::DEFAULT).unwrap()
}

#[test]
fn sleepers_are_woken_from_either_side() {
    let hub = hub();
    let (mut a, mut b) = pair(&hub);
    for round in 1..4 {
        a.wake(&b);
        b.hear(1);
        b.answer();
        b.wake(&a);
        a.hear(2);
        a.answer();
        assert_eq!((a.wakes(), b.wakes()), (round, round));
    }
    a.bells.with(2).unwrap().ring(None, &a.port);
    b.hear(1);
    b.answer();
    assert_eq!((a.wakes(), b.wakes()), (3, 4));
    assert!(!a.bells.has_missing() && !b.bells.has_missing());
}

#[test]
fn what_was_rung_before_the_other_side_was_there_is_answered_when_it_is() {
    let hub = hub();
    let (mut a, mut b) = (Domain::new(&hub, 1), Domain::new(&hub, 2));
    let numbers = a.offer(2, 0);
    a.wake(&b);
    b.take_up(1, numbers).unwrap();
    b.answer();
    assert_eq!(b.wakes(), 1);
}

#[test]
fn a_doorbell_is_made_and_taken_up_once_and_anew_for_a_later_vshmemd() {
    let hub = hub();
    let (mut a, mut b) = pair(&hub);
    let first = a.offer(2, 0);
    assert_eq!(a.offer(2, 0), first);
    let serial = b.bells.with(1).unwrap().serial;
    b.take_up(1, first).unwrap();
    assert_eq!(b.bells.with(1).unwrap().serial, serial);
    let second = a.offer(2, 1);
    assert_ne!(first, second);
    assert_eq!(a.end_those_over(), 1);
    assert!(matches!(b.take_up(1, first), Ok(())), "it has it still");
    b.take_up(1, second).unwrap();
    assert_ne!(b.bells.with(1).unwrap().serial, serial);
    assert_eq!(b.end_those_over(), 1);
    b.answer();
    a.wake(&b);
    b.hear(1);
    b.answer();
    assert_eq!(b.wakes(), 1);
}

#[test]
fn each_of_two_domains_may_make_one_and_either_works() {
    let hub = hub();
    let (mut a, mut b) = pair(&hub);
    let back = b.offer(1, 0);
    a.take_up(2, back).unwrap();
    a.answer();
    b.wake(&a);
    a.wake(&b);
    a.hear(2);
    b.hear(1);
    a.answer();
    b.answer();
    assert_eq!((a.wakes(), b.wakes()), (1, 1));
}

#[test]
fn the_end_of_the_other_side_gives_a_doorbell_up_and_clients_see_it() {
    let hub = hub();
    let (mut a, b) = pair(&hub);
    let page = a.bells.with(2).unwrap().page().fd().try_clone_to_owned();
    let page = Mapping::<Page>::new(page.unwrap().as_fd(), true).unwrap();
    let is_answered = || Doorbell::new(&page.directions[0]).unwrap().is_answered();
    assert!(is_answered());
    drop(b);
    a.hear(2);
    assert!(a.bells.with(2).is_none());
    assert!(!is_answered());
    assert_eq!(a.end_those_over(), 1);
    // Another one of that number, as on Xen.
    a.bells.wake(ID, 2, 7, &a.port);
    let missing = a.bells.take_missing();
    assert_eq!(missing.len(), 1);
}

#[test]
fn one_that_was_made_for_somebody_else_is_not_taken_up() {
    let hub = hub();
    let (mut a, mut c) = (Domain::new(&hub, 1), Domain::new(&hub, 3));
    let _of_b = Domain::new(&hub, 2);
    let numbers = a.offer(2, 0);
    let refused = c.take_up(1, numbers);
    assert_eq!(refused, Err(BellError::Port(PortError::Refused)));
    assert!(c.bells.with(1).is_none());
}

#[test]
fn without_a_channel_there_is_no_doorbell_and_no_grant_is_left() {
    let hub = serve(Limits {
        grants: 2,
        channels: 0,
    });
    let hub = hub.unwrap();
    let (mut a, _b) = (Domain::new(&hub, 1), Domain::new(&hub, 2));
    for _ in 0..2 {
        let refused = a.bells.offer(2, 0, &mut a.port);
        let full = PortError::NoSpace(Limit::Channels);
        assert_eq!(refused, Err(BellError::Port(full)));
    }
}

#[test]
fn wakes_without_a_doorbell_are_kept_for_as_many_domains_as_there_may_be() {
    let hub = hub();
    let a = Domain::new(&hub, 1);
    for domid in 0..100 {
        a.bells.wake(ID, 10 + domid, 5, &a.port);
    }
    a.bells.wake(ID, 10, 5, &a.port);
    a.bells.wake(ID, 11, 6, &a.port);
    assert!(a.bells.has_missing());
    let missing = a.bells.take_missing();
    assert_eq!(missing.len(), MISSING);
    let slots: Vec<_> = missing.iter().take(3).map(|m| (m.domid, m.slot)).collect();
    assert_eq!(slots, [(10, Some(5)), (11, None), (12, Some(5))]);
    assert!(!a.bells.has_missing());
}

#[test]
fn what_a_dead_client_has_begun_to_ring_is_completed() {
    let hub = hub();
    let (a, mut b) = pair(&hub);
    let bell = a.bells.with(2).unwrap();
    let (word, bit) = (b.slot as usize / 64, b.slot % 64);
    bell.map.directions[0][RUNG + word].store(1 << bit, Relaxed);
    a.bells.mend(&a.port);
    b.hear(1);
    b.answer();
    assert_eq!(b.wakes(), 1);
}

#[test]
fn garbage_in_a_page_wakes_sleepers_for_nothing_and_does_no_other_harm() {
    let hub = hub();
    let (mut a, mut b) = pair(&hub);
    let bell = a.bells.with(2).unwrap();
    for direction in &bell.map.directions {
        for word in direction {
            word.store(u64::MAX, Relaxed);
        }
    }
    a.bells.mend(&a.port);
    b.hear(1);
    b.answer();
    assert_eq!(b.wakes(), 1);
    a.wake(&b);
    b.hear(1);
    b.answer();
    assert_eq!(b.wakes(), 2);
    // Clients have the same page.
    a.bells.with(2).unwrap().ring(None, &a.port);
    a.end_those_over();
}
