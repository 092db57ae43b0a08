// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host port: the conformance suite, and what a hostile domain may try at the hub.

mod suite;

use rustix::net::{RecvFlags, SendFlags};
use std::os::fd::{AsFd, OwnedFd};
use suite::local::{self, Mapped};
use suite::{Memory, World};
use vshmem_gnt::host::hub::{self, HubHandle};
use vshmem_gnt::host::{HostPort, HostRegion};
use vshmem_gnt::{Event, Limits, LocalPort, Port, PortError, Region, RegionOptions};

struct HostWorld {
    hub: HubHandle,
    last: u32,
}

impl HostWorld {
    fn connection(&mut self) -> (u32, OwnedFd) {
        self.last += 1;
        (self.last, self.hub.add_domain(self.last).unwrap())
    }
}

impl World for HostWorld {
    type Port = HostPort;
    type Memory = Mapped;

    fn new(limits: Limits) -> Self {
        Self {
            hub: hub::serve(limits).unwrap(),
            last: 0,
        }
    }

    fn domain(&mut self) -> HostPort {
        let (domid, connection) = self.connection();
        HostPort::new(domid, connection).unwrap()
    }

    fn kill(&mut self, domain: HostPort) {
        drop(domain);
    }

    fn map(region: &HostRegion) -> Mapped {
        Mapped::new(region, true).unwrap()
    }

    fn await_event(port: &mut HostPort, end: LocalPort) -> Event {
        local::await_event(port, end)
    }

    fn pass_notifier(port: &mut HostPort, end: LocalPort) {
        local::pass_notifier(port, end);
    }
}

conformance!(HostWorld);

/// Whether two domains can still do something together.
fn assert_works(world: &mut HostWorld) {
    let (mut a, mut b) = (world.domain(), world.domain());
    let own = a.create(4096, RegionOptions::default()).unwrap();
    let gref = a.grant(&own, b.domid()).unwrap();
    b.map(a.domid(), gref).unwrap();
}

#[test]
fn what_is_granted_for_reading_cannot_be_written_to_and_shows_what_is() {
    let mut world = HostWorld::new(Limits::DEFAULT);
    let (mut a, mut b, mut c) = (world.domain(), world.domain(), world.domain());
    let own = a.create(4096, RegionOptions::default()).unwrap();
    let gref = a.grant_read_only(&own, b.domid()).unwrap();
    let theirs = b.map(a.domid(), gref).unwrap();
    assert!(theirs.is_read_only() && !own.is_read_only());
    assert!(Mapped::new(&theirs, true).is_err());
    let there = Mapped::new(&theirs, false).unwrap();
    Mapped::new(&own, true).unwrap().store(7, 8);
    assert_eq!(there.load(7), 8);
    let to_c = a.grant(&own, c.domid()).unwrap();
    assert!(!c.map(a.domid(), to_c).unwrap().is_read_only());
    let granted = b.grant_read_only(&theirs, c.domid());
    assert_eq!(granted.err(), Some(PortError::BadArgument));
}

/// The SplitMix64 sequence: the same garbage in every run.
fn garbage(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn garbage_from_one_domain_harms_no_other() {
    let mut world = HostWorld::new(Limits::DEFAULT);
    let mut seed = 1;
    for _ in 0..100 {
        let (_, connection) = world.connection();
        for _ in 0..20 {
            let len = (garbage(&mut seed) % 48) as usize;
            let bytes: Vec<u8> = (0..len).map(|_| garbage(&mut seed) as u8).collect();
            // Once the hub has cut the connection the rest goes nowhere.
            let _ = rustix::net::send(&connection, &bytes, SendFlags::NOSIGNAL);
        }
    }
    assert_works(&mut world);
}

#[test]
fn well_formed_requests_with_wild_numbers_are_answered_and_harm_no_other() {
    let mut world = HostWorld::new(Limits::DEFAULT);
    let (_, connection) = world.connection();
    let mut seed = 2;
    for _ in 0..5000 {
        let mut words = [0u32; 8];
        for word in &mut words {
            *word = match garbage(&mut seed) % 4 {
                0 => garbage(&mut seed) as u32,
                _ => (garbage(&mut seed) % 8) as u32,
            };
        }
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let fd = connection.as_fd();
        vshmem_abi::channel::send(
            fd,
            &<[u8; 32]>::try_from(bytes).unwrap(),
            &[fd],
            None,
            SendFlags::empty(),
        )
        .unwrap();
        let answer = vshmem_abi::channel::recv::<[u8; 32]>(fd, RecvFlags::empty());
        let (answer, _fds) = answer.unwrap();
        assert_eq!(answer[4..8], words[1].to_ne_bytes());
    }
    assert_works(&mut world);
}

#[test]
fn a_domain_that_never_reads_its_answers_makes_no_other_wait() {
    let mut world = HostWorld::new(Limits::DEFAULT);
    let (_, connection) = world.connection();
    // Ends when the hub cuts the connection.
    while rustix::net::send(&connection, &[0; 32], SendFlags::NOSIGNAL).is_ok() {}
    assert_works(&mut world);
}

#[test]
fn a_domain_whose_hub_is_gone_is_told_so() {
    let mut world = HostWorld::new(Limits::DEFAULT);
    let mut a = world.domain();
    drop(world);
    let own = a.create(4096, RegionOptions::default()).unwrap();
    assert_eq!(own.len(), 4096);
    assert_eq!(a.grant(&own, 2), Err(PortError::Disconnected));
}

#[test]
fn a_domain_that_is_removed_is_cut_off() {
    let mut world = HostWorld::new(Limits::DEFAULT);
    let (mut a, b) = (world.domain(), world.domain());
    world.hub.remove_domain(a.domid());
    let own = a.create(4096, RegionOptions::default()).unwrap();
    // The hub may still answer what came before it looked at its orders.
    let cut = (0..1000).any(|_| a.grant(&own, b.domid()) == Err(PortError::Disconnected));
    assert!(cut);
}

#[test]
fn futexes_are_said_to_work_in_regions_of_one_kernel_only() {
    let mut world = HostWorld::new(Limits::DEFAULT);
    for one_kernel in [true, false] {
        let pair = [world.domain(), world.domain()];
        let [mut a, mut b] = pair.map(|port| match one_kernel {
            true => port,
            false => port.with_separate_kernels(),
        });
        let own = a.create(4096, RegionOptions::default()).unwrap();
        let gref = a.grant(&own, b.domid()).unwrap();
        let theirs = b.map(a.domid(), gref).unwrap();
        assert_eq!([own.has_futexes(), theirs.has_futexes()], [one_kernel; 2]);
    }
}
