// SPDX-License-Identifier: MIT OR Apache-2.0
//! A domain with a real hub, and clients that are all this process.

use super::*;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::os::fd::{BorrowedFd, OwnedFd};
use vshmem_abi::Kind;
use vshmem_abi::layout::Directory;
use vshmem_engine::client_page::PageMine;
use vshmem_engine::{attach, directory};
use vshmem_gnt::host::HostPort;
use vshmem_gnt::host::hub::{HubHandle, serve};
use vshmem_gnt::{Limits, RegionOptions};

const ID: i32 = 0x4000_0001;
const KEY: i32 = 0x1234;
const FIRST: u64 = 16;
const SECOND: u64 = 17;
const OTHER_DOMAIN: Domid = 2;
const RUN: Run = Run {
    generation: 9,
    epoch: 0,
};

struct World {
    domain: Domain,
    directory: &'static Directory,
    /// The hub's connection to domain 2, which is gone without it.
    _other: OwnedFd,
    _hub: HubHandle,
}

fn meta(state: State) -> Meta {
    Meta {
        id: ID,
        kind: Kind::Shm as u32,
        key: if state == State::Live { KEY } else { 0 },
        state: state as u32,
        owner: 1,
        size: 8192,
        ..Meta::default()
    }
}

fn query(op: LinkOp, state: State) -> LinkMsg {
    LinkMsg {
        domid: OTHER_DOMAIN,
        ..LinkMsg::about(op, meta(state))
    }
}

impl World {
    /// Domain 1 with one segment of two pages, and a domain 2 that the hub knows.
    fn new() -> Self {
        let hub = serve(Limits::DEFAULT).unwrap();
        let port = HostPort::new(1, hub.add_domain(1).unwrap()).unwrap();
        let other = hub.add_domain(OTHER_DOMAIN).unwrap();
        let port = AnyPort::from(port);
        let peers = Peers::default();
        let mut domain = Domain::new(port, peers, RUN, MsgLimits::default()).unwrap();
        let region = domain.port.create(8192, RegionOptions::default()).unwrap();
        domain.constructs.learn(&meta(State::Live)).unwrap();
        domain.constructs.hold(ID, region, None);
        let directory = directory::map_for_reading(domain.constructs.directory_fd()).unwrap();
        Self {
            domain,
            directory,
            _other: other,
            _hub: hub,
        }
    }

    fn client(&mut self, number: u64, pid: i32) -> PageMine {
        let client = self.domain.clients.add(number).unwrap();
        PageMine::map(client.page.fd(), pid).unwrap()
    }

    fn slot(&self) -> u32 {
        self.domain.constructs.find(ID).unwrap().0
    }

    fn attach(&self, page: &PageMine, at: i64) -> State {
        attach::begin(page, self.directory, self.slot(), ID, at)
    }

    fn detach(&self, page: &PageMine, at: i64) -> bool {
        attach::end(page, self.directory, self.slot(), ID, at)
    }

    fn region(&self) -> BorrowedFd<'_> {
        self.domain.constructs.get(ID).unwrap().fd().unwrap()
    }

    fn nattch(&mut self) -> u64 {
        self.domain.usage(ID, None).nattch
    }
}

#[test]
fn a_client_that_dies_has_detached_at_that_moment_with_its_pid() {
    let mut world = World::new();
    let (a, b) = (world.client(FIRST, 41), world.client(SECOND, 42));
    world.attach(&a, 100);
    world.attach(&b, 200);
    let usage = world.domain.usage(ID, None);
    assert_eq!((usage.nattch, usage.lpid, usage.dtime), (2, 42, 0));
    let before = now();
    drop(a);
    let usage = world.domain.usage(ID, None);
    assert_eq!((usage.nattch, usage.lpid, usage.atime), (1, 41, 200));
    assert!(usage.dtime >= before);
    assert_eq!(world.domain.orphaned, [FIRST]);
}

#[test]
fn use_by_a_client_that_had_detached_before_it_died_is_remembered() {
    let mut world = World::new();
    let a = world.client(FIRST, 41);
    world.attach(&a, 100);
    world.detach(&a, 300);
    drop(a);
    world.domain.ended(FIRST);
    let usage = world.domain.usage(ID, None);
    let want = (0, 100, 300, 41);
    assert_eq!((usage.nattch, usage.atime, usage.dtime, usage.lpid), want);
}

#[test]
fn a_client_that_only_closed_its_connection_still_counts_until_it_ends() {
    let mut world = World::new();
    let a = world.client(FIRST, 41);
    world.attach(&a, 100);
    world.domain.ended(FIRST);
    assert!(world.domain.has_leftovers());
    world.domain.look_at_leftovers();
    assert_eq!(world.nattch(), 1);
    drop(a);
    world.domain.look_at_leftovers();
    assert_eq!(world.nattch(), 0);
    assert!(!world.domain.has_leftovers());
}

#[test]
fn the_last_detach_of_a_removed_segment_by_death_is_to_be_told() {
    let mut world = World::new();
    let a = world.client(FIRST, 41);
    world.attach(&a, 100);
    let answer = world.domain.answer(&query(LinkOp::Update, State::Dest));
    assert_eq!(answer.usage.nattch, 1);
    assert!(world.domain.constructs.find_key(Kind::Shm, KEY).is_none());
    drop(a);
    world.domain.ended(FIRST);
    assert_eq!(world.domain.vacated, [ID]);
}

#[test]
fn a_segment_that_was_made_too_late_gets_its_memory_unless_nobody_can_find_it() {
    let mut world = World::new();
    let late = |id: i32, key: i32| LinkMsg {
        created: 1,
        ..LinkMsg::about(
            LinkOp::Get,
            Meta {
                id,
                key,
                ..meta(State::Live)
            },
        )
    };
    world.domain.late(&late(ID + 1, KEY + 1));
    let grant = LinkMsg {
        domid: OTHER_DOMAIN,
        ..late(ID + 1, KEY + 1)
    };
    let answer = world.domain.query(&LinkMsg {
        op: LinkOp::Grant as u32,
        ..grant
    });
    assert_eq!(answer.errno, 0);
    assert!(
        world
            .domain
            .constructs
            .find_key(Kind::Shm, KEY + 1)
            .is_some()
    );
    world.domain.late(&late(ID + 2, IPC_PRIVATE));
    assert_eq!(world.domain.unwanted, [ID + 2]);
    // One that was only found is another's affair.
    world.domain.late(&LinkMsg {
        created: 0,
        ..late(ID + 3, KEY + 3)
    });
    assert!(world.domain.constructs.find(ID + 3).is_none());
    assert_eq!(world.domain.unwanted, [ID + 2]);
}

#[test]
fn a_child_counts_from_the_fork_on_and_one_that_never_was_has_not_detached() {
    let mut world = World::new();
    let parent = world.client(FIRST, 41);
    world.attach(&parent, 100);
    world.domain.clients.add_child(SECOND, FIRST).unwrap();
    world.domain.note_fork(FIRST);
    let usage = world.domain.usage(ID, None);
    assert_eq!((usage.nattch, usage.lpid), (2, 41));
    assert!(usage.atime > 100, "the kernel counts a fork as an attach");
    world.domain.ended(SECOND);
    let usage = world.domain.usage(ID, None);
    assert_eq!((usage.nattch, usage.dtime), (1, 0));
}

#[test]
fn a_segment_that_is_no_more_keeps_its_slot_while_a_client_counts_it() {
    let mut world = World::new();
    let a = world.client(FIRST, 41);
    world.attach(&a, 100);
    world.domain.answer(&query(LinkOp::Update, State::Free));
    assert_eq!(world.attach(&a, 200), State::Free);
    attach::cancel(&a, world.slot(), ID);
    world.domain.look_at_leftovers();
    assert!(world.domain.constructs.find(ID).is_some());
    world.detach(&a, 300);
    world.domain.look_at_leftovers();
    assert!(world.domain.constructs.find(ID).is_none());
}

#[test]
fn memory_is_freed_when_the_segment_is_buried_though_a_descriptor_is_left() {
    let mut world = World::new();
    let kept = world.region().try_clone_to_owned().unwrap();
    rustix::io::pwrite(&kept, &[1; 8192], 0).unwrap();
    assert_eq!(world.domain.usage(ID, None).resident, 2);
    world.domain.answer(&query(LinkOp::Update, State::Free));
    world.domain.bury();
    assert_eq!(rustix::fs::fstat(&kept).unwrap().st_blocks, 0);
}

#[test]
fn a_domain_gets_one_grant_however_often_it_asks_and_none_of_what_is_not_there() {
    let mut world = World::new();
    let first = world.domain.answer(&query(LinkOp::Grant, State::Live));
    assert_eq!(first.errno, 0);
    let second = world.domain.answer(&query(LinkOp::Grant, State::Live));
    assert_eq!(second.gref, first.gref);
    world.domain.answer(&query(LinkOp::Update, State::Free));
    let gone = world.domain.answer(&query(LinkOp::Grant, State::Live));
    assert_eq!(gone.errno, libc::EINVAL);
}

#[test]
fn a_lost_segment_without_attachments_is_forgotten_but_not_mistaken_for_one_that_never_was() {
    let mut world = World::new();
    world.domain.answer(&query(LinkOp::Update, State::Lost));
    assert!(world.domain.constructs.find(ID).is_none());
    assert!(world.domain.was_lost(ID));
    assert!(!world.domain.was_lost(ID + 1));
}

#[test]
fn a_lost_segment_stays_until_its_last_detach() {
    let mut world = World::new();
    let a = world.client(FIRST, 41);
    world.attach(&a, 100);
    let answer = world.domain.answer(&query(LinkOp::Update, State::Lost));
    assert_eq!(answer.usage.nattch, 1);
    assert_eq!(world.attach(&a, 200), State::Lost);
    assert!(world.domain.constructs.find(ID).is_some());
}

#[test]
fn queries_about_what_the_domain_does_not_know_are_answered_with_nothing() {
    let mut world = World::new();
    for op in [LinkOp::Update, LinkOp::Count] {
        let mut query = query(op, State::Dest);
        query.meta.id = ID + 1;
        let answer = world.domain.answer(&query);
        assert_eq!((answer.errno, answer.usage.nattch), (0, 0));
    }
    let unknown = LinkMsg {
        op: 99,
        ..LinkMsg::default()
    };
    assert_eq!(world.domain.answer(&unknown).errno, libc::ENOSYS);
}

/// A world in which this process is a client that counts two attachments and has mapped one.
fn half_mapped() -> (World, PageMine, *mut std::ffi::c_void) {
    let mut world = World::new();
    let page = world.client(FIRST, 41);
    let client = world.domain.clients.get_mut(FIRST).unwrap();
    client.identify(std::process::id() as i32);
    world.attach(&page, 100);
    world.attach(&page, 100);
    let (prot, flags) = (ProtFlags::READ, MapFlags::SHARED);
    let region = world.region();
    // SAFETY: a new mapping at an address of the kernel's choice, which nothing touches.
    let at = unsafe { mmap(std::ptr::null_mut(), 4096, prot, flags, region, 0) }.unwrap();
    (world, page, at)
}

fn unmap(at: *mut std::ffi::c_void) {
    // SAFETY: the mapping that `half_mapped` made; nothing refers to it.
    unsafe { munmap(at, 4096) }.unwrap();
}

#[test]
fn what_a_client_unmapped_behind_our_back_does_not_count() {
    let (mut world, _page, at) = half_mapped();
    assert_eq!(world.nattch(), 1);
    unmap(at);
    assert_eq!(world.nattch(), 0);
}

#[test]
fn a_client_that_may_be_about_to_map_keeps_a_removed_segment() {
    let (mut world, _page, at) = half_mapped();
    unmap(at);
    let answer = world.domain.answer(&query(LinkOp::Update, State::Dest));
    assert_eq!(answer.usage.nattch, 2);
    // Nor is it the one that asks, as long as it has other threads.
    std::thread::scope(|scope| {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || wait.recv());
        let own = std::process::id() as i32;
        assert_eq!(world.domain.usage(ID, Some(own)).nattch, 2);
        drop(done);
    });
}

#[test]
fn memory_is_made_anew_for_a_domain_that_may_not_write_to_it() {
    assert_eq!(anew(Some(3), FOR_READING), Some((Some(3), true)));
    assert_eq!(anew(Some(3), FOR_NOBODY), Some((None, false)));
    for (peer, flags) in [(Some(3), 0), (None, FOR_READING), (None, FOR_NOBODY)] {
        assert_eq!(anew(peer, flags), None);
    }
}

#[test]
fn memory_for_a_domain_that_may_not_have_it_is_for_nobody() {
    let World {
        mut domain, _hub, ..
    } = World::new();
    let plan = domain.rules.plan_of(&Meta {
        kind: Kind::Shm as u32,
        size: 4096,
        ..Meta::default()
    });
    let plan = plan.unwrap();
    let made = Made {
        region: domain.make_region(&plan).unwrap().region,
        peer: Some(3),
    };
    let made = domain.as_permitted(made, &plan, FOR_NOBODY).unwrap();
    assert_eq!((made.peer, made.region.len()), (None, 4096));
}

#[test]
fn a_region_is_granted_for_reading_and_for_writing_each_once() {
    let mut world = World::new();
    let hub = world._other.try_clone().unwrap();
    let mut other = HostPort::new(OTHER_DOMAIN, hub).unwrap();
    let mut granted = |flags| {
        let wanted = LinkMsg {
            flags,
            ..query(LinkOp::Grant, State::Live)
        };
        let answer = world.domain.answer(&wanted);
        assert_eq!(answer.errno, 0);
        answer.gref
    };
    let (reading, writing) = (granted(FOR_READING), granted(0));
    assert_eq!((granted(FOR_READING), granted(0)), (reading, writing));
    let mut is_read_only = |gref| other.map(1, GrantRef(gref)).unwrap().is_read_only();
    assert!(is_read_only(reading) && !is_read_only(writing));
}
