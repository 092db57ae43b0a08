// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Xen has otherwise than the suite, which is of all ports: what it can do beside, and what it
//! cannot do, and says so.

use super::driver::Guests;
use super::remote::{RemotePort, RemoteRegion};
use super::suite::{Memory, World};
use rustix::io::Errno;
use vshmem_engine::mapping::MapError;
use vshmem_gnt::{Limit, Limits, LocalPort, Port, PortError, Region, RegionOptions};

fn domains() -> (Guests, RemotePort, RemotePort, RemotePort) {
    let mut world = Guests::new(Limits::DEFAULT);
    let (a, b, c) = (world.domain(), world.domain(), world.domain());
    (world, a, b, c)
}

fn create(port: &mut RemotePort, pages: u64, peer: &RemotePort) -> Result<RemoteRegion, PortError> {
    let options = RegionOptions {
        peer: Some(peer.domid()),
        ..RegionOptions::default()
    };
    port.create(pages * 4096, options)
}

pub fn a_region_is_granted_to_the_one_domain_it_was_made_for() {
    let (_world, mut a, b, mut c) = domains();
    let own = create(&mut a, 2, &b).unwrap();
    let refused = PortError::OtherPeer { peer: b.domid() };
    assert_eq!(a.grant(&own, c.domid()), Err(refused));
    let gref = a.grant(&own, b.domid()).unwrap();
    assert_eq!(c.map(a.domid(), gref).err(), Some(PortError::Refused));
}

pub fn a_region_made_for_nobody_is_granted_to_nobody() {
    let (_world, mut a, b, _c) = domains();
    let own = a.create(8192, RegionOptions::default()).unwrap();
    assert_eq!(a.grant(&own, b.domid()), Err(PortError::NoPeer));
    let here = Guests::map(&own);
    here.store(8191, 1);
    assert_eq!(here.load(8191), 1);
}

pub fn futexes_are_said_to_work_in_memory_that_is_not_shared_only() {
    let (_world, mut a, mut b, _c) = domains();
    let alone = a.create(4096, RegionOptions::default()).unwrap();
    let shared = create(&mut a, 1, &b).unwrap();
    let gref = a.grant(&shared, b.domid()).unwrap();
    let theirs = b.map(a.domid(), gref).unwrap();
    let said = [&alone, &shared, &theirs].map(Region::has_futexes);
    assert_eq!(said, [true, false, false]);
}

/// Its directory has several pages.
pub fn a_large_region_is_the_same_memory_from_its_first_page_to_its_last() {
    let (_world, mut a, mut b, _c) = domains();
    let before = a.set_limit(5000);
    let pages = 4000;
    let own = create(&mut a, pages, &b).unwrap();
    let gref = a.grant(&own, b.domid()).unwrap();
    let theirs = b.map(a.domid(), gref).unwrap();
    assert_eq!(theirs.len(), pages * 4096);
    let (here, there) = (Guests::map(&own), Guests::map(&theirs));
    for page in [0, 1, 1015, 1016, 1017, 2032, 3999] {
        let value = (page % 251) as u8 + 1;
        here.store(page * 4096 + page, value);
        assert_eq!(there.load(page * 4096 + page), value, "page {page}");
    }
    drop((here, there, theirs));
    a.end_grant(gref).unwrap();
    own.release();
    a.set_limit(before);
}

pub fn a_region_can_be_mapped_several_times() {
    let (_world, mut a, mut b, _c) = domains();
    let own = create(&mut a, 3, &b).unwrap();
    let gref = a.grant(&own, b.domid()).unwrap();
    let theirs = b.map(a.domid(), gref).unwrap();
    let again = b.map(a.domid(), gref).unwrap();
    let (one, two) = (Guests::map(&theirs), Guests::map(&theirs));
    let (three, here) = (Guests::map(&again), Guests::map(&own));
    here.store(9000, 5);
    assert_eq!([&one, &two, &three].map(|m| m.load(9000)), [5, 5, 5]);
    drop((one, again, three));
    two.store(9000, 6);
    assert_eq!(here.load(9000), 6);
}

pub fn what_is_granted_for_reading_cannot_be_mapped_for_writing() {
    let (_world, mut a, mut b, _c) = domains();
    let options = RegionOptions {
        peer: Some(b.domid()),
        read_only: true,
        ..RegionOptions::default()
    };
    let own = a.create(4096, options).unwrap();
    let gref = a.grant_read_only(&own, b.domid()).unwrap();
    let theirs = b.map(a.domid(), gref).unwrap();
    assert!(theirs.is_read_only() && !own.is_read_only());
    let here = Guests::map(&own);
    here.store(7, 8);
    assert_eq!(theirs.attach("read").unwrap().load(7), 8);
    assert_eq!(
        theirs.attach("read-write").err().as_deref(),
        Some("ReadOnly")
    );
    let writable = RegionOptions {
        read_only: false,
        ..options
    };
    let own = a.create(4096, writable).unwrap();
    let granted = a.grant_read_only(&own, b.domid());
    assert_eq!(granted, Err(PortError::MadeWritable));
}

pub fn gntallocs_limit_is_named_and_what_was_released_counts_no_more() {
    let (_world, mut a, b, _c) = domains();
    // The port keeps 8 pages for itself.
    let before = a.set_limit(108);
    let full = Some(PortError::NoSpace(Limit::GrantedPages));
    assert_eq!(create(&mut a, 101, &b).err(), full);
    let own = create(&mut a, 100, &b).unwrap();
    assert_eq!(create(&mut a, 1, &b).err(), full);
    assert_eq!(a.grant(&own, b.domid()).err(), full);
    assert_eq!(a.alloc_unbound(b.domid()).err(), full);
    own.release();
    let own = create(&mut a, 99, &b).unwrap();
    let gref = a.grant(&own, b.domid()).unwrap();
    a.end_grant(gref).unwrap();
    a.grant(&own, b.domid()).unwrap();
    a.set_limit(before);
}

pub fn a_released_region_stays_where_it_is_mapped_and_cannot_be_mapped_again() {
    let (_world, mut a, mut b, _c) = domains();
    let own = create(&mut a, 4, &b).unwrap();
    let gref = a.grant(&own, b.domid()).unwrap();
    let there = Guests::map(&b.map(a.domid(), gref).unwrap());
    let here = Guests::map(&own);
    let kept = own.keep();
    kept().unwrap();
    there.store(3 * 4096, 4);
    a.end_grant(gref).unwrap();
    own.release();
    let gone = format!("{:?}", MapError::Os(Errno::NOENT));
    assert_eq!(kept(), Err(gone));
    assert_eq!(here.load(3 * 4096), 4);
    drop(here);
    assert_eq!(there.load(3 * 4096), 4);
    there.store(3 * 4096, 5);
    assert_eq!(there.load(3 * 4096), 5);
}

/// If any of it stayed, the grant table (of 131,072 in the lab) would be full in the end.
pub fn a_region_that_a_killed_domain_mapped_is_free_again() {
    let (mut world, mut a, b, _c) = domains();
    let before = a.set_limit(5000);
    world.kill(b);
    for _ in 0..35 {
        let mut b = world.domain_in(1);
        let own = create(&mut a, 4000, &b).unwrap();
        let gref = a.grant(&own, b.domid()).unwrap();
        let theirs = b.map(a.domid(), gref).unwrap();
        let there = Guests::map(&theirs);
        there.store(0, 1);
        world.kill(b);
        a.end_grant(gref).unwrap();
        own.release();
    }
    a.set_limit(before);
}

pub fn event_channels_are_limited_and_come_back() {
    let (_world, mut a, mut b, _c) = domains();
    let before = a.set_limit(5000);
    let mut ends: Vec<LocalPort> = Vec::new();
    let full = loop {
        match a.alloc_unbound(b.domid()) {
            Ok(end) => ends.push(end),
            Err(error) => break error,
        }
    };
    assert_eq!(full, PortError::NoSpace(Limit::Channels));
    println!("   {} event channels", ends.len());
    a.close(ends.pop().unwrap()).unwrap();
    let here = a.alloc_unbound(b.domid()).unwrap();
    b.bind_interdomain(a.domid(), here).unwrap();
    for end in ends {
        a.close(end).unwrap();
    }
    a.set_limit(before);
}

pub fn the_grant_table_is_named_when_it_is_full_and_comes_back() {
    let (_world, mut a, b, _c) = domains();
    let before = a.set_limit(1_000_000);
    let mut regions = Vec::new();
    let full = loop {
        match create(&mut a, 2000, &b) {
            Ok(region) => regions.push(region),
            Err(error) => break error,
        }
    };
    assert_eq!(full, PortError::NoSpace(Limit::GrantTable));
    println!("   {} pages granted", regions.len() * 2000);
    for region in regions.drain(..) {
        region.release();
    }
    let again = create(&mut a, 2000, &b).unwrap();
    again.release();
    a.set_limit(before);
}
