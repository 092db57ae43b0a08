// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every port has to do, as tests over a [`World`] of connected domains. A port's own test
//! file implements `World` and calls `conformance!` with it.

pub mod local;

use std::time::{Duration, Instant};
use vshmem_gnt::{
    Event, GrantRef, Limit, Limits, LocalPort, Port, PortError, Region, RegionOptions,
};

/// One hypervisor and its domains. A domain may be this very process, or one that is asked to do all
/// that is done.
pub trait World {
    /// The port under test.
    type Port: Port;
    /// Its regions in the memory of the domain that has them.
    type Memory: Memory;

    /// What a domain that is gone is to others.
    const GONE: PortError = PortError::Gone;

    /// A hypervisor that gives each domain `limits`.
    fn new(limits: Limits) -> Self;

    /// A new domain.
    fn domain(&mut self) -> Self::Port;

    /// The sudden end of a domain.
    fn kill(&mut self, domain: Self::Port);

    /// Maps a region, in the domain whose port it came from, for reading and writing.
    fn map(region: &<Self::Port as Port>::Region) -> Self::Memory;

    /// Sleeps on an end until something comes and says what.
    fn await_event(port: &mut Self::Port, end: LocalPort) -> Event;

    /// Raises the other end by the notifier, passed to somebody else in the domain.
    fn pass_notifier(port: &mut Self::Port, end: LocalPort);
}

/// A region that is mapped. Dropping it unmaps it.
pub trait Memory {
    /// Its byte at an offset.
    fn load(&self, at: usize) -> u8;

    /// Whether so many bytes from the beginning on are 0. All at once, where each takes long.
    fn is_zero(&self, bytes: usize) -> bool {
        (0..bytes).all(|at| self.load(at) == 0)
    }

    /// Writes that.
    fn store(&self, at: usize, value: u8);
}

/// Makes a test of each function of this suite.
#[macro_export]
macro_rules! conformance {
    ($world:ty) => {
        conformance!($world:
            both_sides_of_a_grant_see_the_same_bytes,
            a_new_region_is_zero_and_as_long_as_asked,
            what_was_not_granted_cannot_be_mapped,
            what_was_granted_to_another_cannot_be_mapped,
            one_region_can_be_granted_to_two_domains,
            an_ended_grant_cannot_be_mapped_but_what_is_mapped_stays,
            only_the_owner_of_a_region_can_grant_it,
            grants_are_limited_and_come_back,
            the_limit_of_one_domain_is_not_another_domains,
            what_a_dead_domain_granted_stays_where_it_is_mapped_and_is_gone_elsewhere,
            nothing_is_granted_or_offered_to_a_domain_that_is_not_there,
            a_channel_wakes_both_ways,
            many_notifications_before_a_look_are_one_or_two,
            a_notification_before_the_bind_is_not_lost,
            a_notification_wakes_the_end_it_is_for_and_no_other,
            who_is_passed_a_notifier_raises_the_other_end,
            only_the_domain_it_was_made_for_binds_to_a_channel,
            a_channel_is_bound_once,
            closing_one_end_closes_the_other,
            the_death_of_a_domain_closes_the_ends_bound_to_it,
            the_death_of_a_domain_closes_what_was_offered_to_it,
            channels_are_limited_and_come_back,
            a_port_that_is_not_there_is_a_bad_argument,
        );
    };
    ($world:ty: $($name:ident),* $(,)?) => {
        $(#[test] fn $name() { $crate::suite::$name::<$world>(); })*
    };
}

/// A region of ordinary pages, to be granted to another domain.
fn region<P: Port>(port: &mut P, pages: u64, peer: &P) -> P::Region {
    let options = RegionOptions {
        peer: Some(peer.domid()),
        ..RegionOptions::default()
    };
    let region = port.create(pages * 4096, options);
    region.expect("a region of ordinary pages")
}

/// Waits until `condition` holds: what one domain does, the hypervisor tells others in its time.
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "waited a minute in vain until {what}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A channel between two domains, with what the bind raised taken off.
fn channel<P: Port>(a: &mut P, b: &mut P) -> (LocalPort, LocalPort) {
    let here = a.alloc_unbound(b.domid()).unwrap();
    let there = b.bind_interdomain(a.domid(), here).unwrap();
    assert_eq!(b.take(there), Ok(Event::Raised));
    (here, there)
}

fn three<W: World>(limits: Limits) -> (W, W::Port, W::Port, W::Port) {
    let mut world = W::new(limits);
    let (a, b, c) = (world.domain(), world.domain(), world.domain());
    (world, a, b, c)
}

pub fn both_sides_of_a_grant_see_the_same_bytes<W: World>() {
    let (_world, mut a, mut b, _c) = three::<W>(Limits::DEFAULT);
    let own = region(&mut a, 3, &b);
    let gref = a.grant(&own, b.domid()).unwrap();
    let theirs = b.map(a.domid(), gref).unwrap();
    assert_eq!(theirs.len(), own.len());
    let (here, there) = (W::map(&own), W::map(&theirs));
    for at in [0, 4095, 4096, 3 * 4096 - 1] {
        here.store(at, 7);
        assert_eq!(there.load(at), 7);
        there.store(at, 8);
        assert_eq!(here.load(at), 8);
    }
}

pub fn a_new_region_is_zero_and_as_long_as_asked<W: World>() {
    let (_world, mut a, _b, _c) = three::<W>(Limits::DEFAULT);
    let own = a.create(5000, RegionOptions::default()).unwrap();
    assert!(!own.is_empty());
    assert_eq!(own.len(), 8192);
    let here = W::map(&own);
    assert!(here.is_zero(8192));
    let nothing = a.create(0, RegionOptions::default());
    assert_eq!(nothing.err(), Some(PortError::BadArgument));
}

pub fn what_was_not_granted_cannot_be_mapped<W: World>() {
    let (_world, mut a, mut b, _c) = three::<W>(Limits::DEFAULT);
    let _own = region(&mut a, 1, &b);
    for number in [0, 1, 8, u32::MAX] {
        let mapped = b.map(a.domid(), GrantRef(number));
        assert_eq!(mapped.err(), Some(PortError::Refused), "{number}");
    }
}

pub fn what_was_granted_to_another_cannot_be_mapped<W: World>() {
    let (_world, mut a, mut b, mut c) = three::<W>(Limits::DEFAULT);
    let own = region(&mut a, 1, &b);
    let gref = a.grant(&own, b.domid()).unwrap();
    assert_eq!(c.map(a.domid(), gref).err(), Some(PortError::Refused));
    assert!(b.map(a.domid(), gref).is_ok());
}

pub fn one_region_can_be_granted_to_two_domains<W: World>() {
    let (_world, mut a, mut b, mut c) = three::<W>(Limits::DEFAULT);
    let own = region(&mut a, 1, &b);
    let to_b = a.grant(&own, b.domid()).unwrap();
    let to_c = a.grant(&own, c.domid()).unwrap();
    let at_b = W::map(&b.map(a.domid(), to_b).unwrap());
    let at_c = W::map(&c.map(a.domid(), to_c).unwrap());
    at_b.store(9, 3);
    assert_eq!(at_c.load(9), 3);
}

pub fn an_ended_grant_cannot_be_mapped_but_what_is_mapped_stays<W: World>() {
    let (_world, mut a, mut b, _c) = three::<W>(Limits::DEFAULT);
    let own = region(&mut a, 1, &b);
    let gref = a.grant(&own, b.domid()).unwrap();
    let there = W::map(&b.map(a.domid(), gref).unwrap());
    a.end_grant(gref).unwrap();
    assert_eq!(b.map(a.domid(), gref).err(), Some(PortError::Refused));
    W::map(&own).store(0, 5);
    assert_eq!(there.load(0), 5);
    assert_eq!(a.end_grant(gref), Err(PortError::BadArgument));
}

pub fn only_the_owner_of_a_region_can_grant_it<W: World>() {
    let (_world, mut a, mut b, c) = three::<W>(Limits::DEFAULT);
    let own = region(&mut a, 1, &b);
    let gref = a.grant(&own, b.domid()).unwrap();
    let theirs = b.map(a.domid(), gref).unwrap();
    assert_eq!(
        b.grant(&theirs, c.domid()).err(),
        Some(PortError::BadArgument)
    );
}

pub fn grants_are_limited_and_come_back<W: World>() {
    let limits = Limits {
        grants: 8,
        ..Limits::DEFAULT
    };
    let (_world, mut a, b, _c) = three::<W>(limits);
    let five = region(&mut a, 5, &b);
    let four = region(&mut a, 4, &b);
    let full = Err(PortError::NoSpace(Limit::Grants));
    let gref = a.grant(&five, b.domid()).unwrap();
    assert_eq!(a.grant(&four, b.domid()), full);
    assert_eq!(a.grant(&five, b.domid()), full);
    a.end_grant(gref).unwrap();
    a.grant(&four, b.domid()).unwrap();
    a.grant(&four, b.domid()).unwrap();
}

pub fn the_limit_of_one_domain_is_not_another_domains<W: World>() {
    let limits = Limits {
        grants: 1,
        channels: 1,
    };
    let (_world, mut a, mut b, c) = three::<W>(limits);
    let (of_a, of_b) = (region(&mut a, 1, &c), region(&mut b, 1, &c));
    a.grant(&of_a, c.domid()).unwrap();
    b.grant(&of_b, c.domid()).unwrap();
    a.alloc_unbound(c.domid()).unwrap();
    b.alloc_unbound(c.domid()).unwrap();
}

pub fn what_a_dead_domain_granted_stays_where_it_is_mapped_and_is_gone_elsewhere<W: World>() {
    let (mut world, mut a, mut b, mut c) = three::<W>(Limits::DEFAULT);
    let (for_b, for_c) = (region(&mut a, 1, &b), region(&mut a, 1, &c));
    let to_b = a.grant(&for_b, b.domid()).unwrap();
    let to_c = a.grant(&for_c, c.domid()).unwrap();
    let there = W::map(&b.map(a.domid(), to_b).unwrap());
    there.store(1, 6);
    let domid = a.domid();
    drop((for_b, for_c));
    world.kill(a);
    wait_until("the grant is gone", || {
        c.map(domid, to_c).err() == Some(W::GONE)
    });
    assert_eq!(there.load(1), 6);
}

pub fn nothing_is_granted_or_offered_to_a_domain_that_is_not_there<W: World>() {
    let (mut world, mut a, b, _c) = three::<W>(Limits::DEFAULT);
    let own = region(&mut a, 1, &b);
    let dead = b.domid();
    world.kill(b);
    wait_until("the dead domain is known to be gone", || {
        a.grant(&own, dead) == Err(PortError::Gone)
    });
    for domid in [dead, 4711] {
        assert_eq!(a.grant(&own, domid), Err(PortError::Gone));
        assert_eq!(a.alloc_unbound(domid), Err(PortError::Gone));
        let bound = a.bind_interdomain(domid, LocalPort(1));
        assert_eq!(bound, Err(PortError::Gone));
    }
}

pub fn a_channel_wakes_both_ways<W: World>() {
    let (_world, mut a, mut b, _c) = three::<W>(Limits::DEFAULT);
    let (here, there) = channel(&mut a, &mut b);
    for _ in 0..3 {
        assert_eq!(a.take(here), Ok(Event::Idle));
        b.notify(there).unwrap();
        assert_eq!(W::await_event(&mut a, here), Event::Raised);
        assert_eq!(b.take(there), Ok(Event::Idle));
        a.notify(here).unwrap();
        assert_eq!(W::await_event(&mut b, there), Event::Raised);
    }
}

pub fn many_notifications_before_a_look_are_one_or_two<W: World>() {
    let (_world, mut a, mut b, _c) = three::<W>(Limits::DEFAULT);
    let (here, there) = channel(&mut a, &mut b);
    for _ in 0..1000 {
        a.notify(here).unwrap();
    }
    assert_eq!(W::await_event(&mut b, there), Event::Raised);
    let second = b.take(there);
    assert!(
        matches!(second, Ok(Event::Idle | Event::Raised)),
        "{second:?}"
    );
    assert_eq!(b.take(there), Ok(Event::Idle));
}

pub fn a_notification_before_the_bind_is_not_lost<W: World>() {
    let (_world, mut a, mut b, _c) = three::<W>(Limits::DEFAULT);
    let here = a.alloc_unbound(b.domid()).unwrap();
    a.notify(here).unwrap();
    let there = b.bind_interdomain(a.domid(), here).unwrap();
    assert_eq!(W::await_event(&mut b, there), Event::Raised);
}

pub fn a_notification_wakes_the_end_it_is_for_and_no_other<W: World>() {
    let (_world, mut a, mut b, mut c) = three::<W>(Limits::DEFAULT);
    let (first, at_b) = channel(&mut a, &mut b);
    let (second, at_c) = channel(&mut a, &mut c);
    let (third, also_b) = channel(&mut a, &mut b);
    a.notify(first).unwrap();
    assert_eq!(W::await_event(&mut b, at_b), Event::Raised);
    assert_eq!(b.take(also_b), Ok(Event::Idle));
    assert_eq!(c.take(at_c), Ok(Event::Idle));
    c.notify(at_c).unwrap();
    assert_eq!(W::await_event(&mut a, second), Event::Raised);
    assert_eq!(a.take(first), Ok(Event::Idle));
    assert_eq!(a.take(third), Ok(Event::Idle));
}

pub fn who_is_passed_a_notifier_raises_the_other_end<W: World>() {
    let (_world, mut a, mut b, _c) = three::<W>(Limits::DEFAULT);
    let (here, there) = channel(&mut a, &mut b);
    assert_eq!(b.take(there), Ok(Event::Idle));
    W::pass_notifier(&mut a, here);
    assert_eq!(W::await_event(&mut b, there), Event::Raised);
    W::pass_notifier(&mut b, there);
    assert_eq!(W::await_event(&mut a, here), Event::Raised);
}

pub fn only_the_domain_it_was_made_for_binds_to_a_channel<W: World>() {
    let (_world, mut a, mut b, mut c) = three::<W>(Limits::DEFAULT);
    let here = a.alloc_unbound(b.domid()).unwrap();
    let bound = c.bind_interdomain(a.domid(), here);
    assert_eq!(bound, Err(PortError::Refused));
    b.bind_interdomain(a.domid(), here).unwrap();
}

pub fn a_channel_is_bound_once<W: World>() {
    let (_world, mut a, mut b, _c) = three::<W>(Limits::DEFAULT);
    let (here, _there) = channel(&mut a, &mut b);
    let again = b.bind_interdomain(a.domid(), here);
    assert_eq!(again, Err(PortError::BadArgument));
}

pub fn closing_one_end_closes_the_other<W: World>() {
    let (_world, mut a, mut b, _c) = three::<W>(Limits::DEFAULT);
    let (here, there) = channel(&mut a, &mut b);
    a.notify(here).unwrap();
    a.close(here).unwrap();
    assert_eq!(W::await_event(&mut b, there), Event::Closed);
    assert_eq!(b.take(there), Ok(Event::Closed));
    b.notify(there).unwrap();
    b.close(there).unwrap();
    assert_eq!(b.close(there), Err(PortError::BadArgument));
}

pub fn the_death_of_a_domain_closes_the_ends_bound_to_it<W: World>() {
    let (mut world, mut a, mut b, mut c) = three::<W>(Limits::DEFAULT);
    let (_at_a, at_b) = channel(&mut a, &mut b);
    let (at_c, also_a) = channel(&mut c, &mut a);
    let (between, _) = channel(&mut b, &mut c);
    assert_eq!(a.take(also_a), Ok(Event::Idle));
    world.kill(a);
    assert_eq!(W::await_event(&mut b, at_b), Event::Closed);
    assert_eq!(W::await_event(&mut c, at_c), Event::Closed);
    assert_eq!(b.take(between), Ok(Event::Idle));
}

pub fn the_death_of_a_domain_closes_what_was_offered_to_it<W: World>() {
    let (mut world, mut a, b, _c) = three::<W>(Limits::DEFAULT);
    let here = a.alloc_unbound(b.domid()).unwrap();
    world.kill(b);
    assert_eq!(W::await_event(&mut a, here), Event::Closed);
}

pub fn channels_are_limited_and_come_back<W: World>() {
    let limits = Limits {
        channels: 3,
        ..Limits::DEFAULT
    };
    let (_world, mut a, mut b, _c) = three::<W>(limits);
    let ends: Vec<LocalPort> = (0..3)
        .map(|_| a.alloc_unbound(b.domid()).unwrap())
        .collect();
    let full = Err(PortError::NoSpace(Limit::Channels));
    assert_eq!(a.alloc_unbound(b.domid()), full);
    let offered = b.alloc_unbound(a.domid()).unwrap();
    assert_eq!(a.bind_interdomain(b.domid(), offered), full);
    a.close(ends[1]).unwrap();
    a.bind_interdomain(b.domid(), offered).unwrap();
}

pub fn a_port_that_is_not_there_is_a_bad_argument<W: World>() {
    let (_world, mut a, mut b, _c) = three::<W>(Limits::DEFAULT);
    let bad = LocalPort(99);
    assert_eq!(a.notify(bad), Err(PortError::BadArgument));
    assert_eq!(a.take(bad), Err(PortError::BadArgument));
    assert_eq!(a.close(bad), Err(PortError::BadArgument));
    assert_eq!(a.wait_fd(bad).err(), Some(PortError::BadArgument));
    assert_eq!(a.notifier(bad).err(), Some(PortError::BadArgument));
    let bound = b.bind_interdomain(a.domid(), bad);
    assert_eq!(bound, Err(PortError::BadArgument));
}
