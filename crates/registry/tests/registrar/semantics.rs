// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each request does, case by case.

use crate::case::{KEY, Test, test};
use crate::fake::{about, get, state};
use libc::{EAGAIN, EEXIST, EINVAL, ENODEV, ENOENT, ENOSPC, IPC_CREAT, IPC_EXCL};
use vshmem_abi::ids::ROUTED_BIT;
use vshmem_abi::limits::{MsgLimits, SemLimits, ShmLimits};
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::wire::{MODE_LOCKED, Meta, QueueUse, State, Usage};
use vshmem_abi::{Domid, Kind};
use vshmem_registry::EnrolError;

#[test]
fn a_new_segment_has_what_was_asked_and_what_the_registrar_adds() {
    let mut t = test();
    let mut request = get(Kind::Shm, KEY, 5000, IPC_CREAT | 0o7640, [3, 4, 5, 6]);
    request.seq = 99;
    request.meta.uid = 10;
    request.meta.cgid = 21;
    request.meta.cpid = 77;
    let made = t.ask(2, &request);
    let want = Meta {
        id: 3 | ROUTED_BIT,
        state: State::Live as u32,
        mode: 0o640,
        owner: 2,
        made_with: KEY,
        ..request.meta
    };
    assert_eq!(made.meta, want);
    assert!(t.peers.asked.is_empty());
}

#[test]
fn a_key_is_made_once_and_found_by_all() {
    let mut t = test();
    let id = t.make();
    let found = t.get(2, Kind::Shm, KEY, IPC_CREAT);
    assert_eq!((found.errno, found.created, found.meta.id), (0, 0, id));
    assert_eq!(t.get(3, Kind::Shm, KEY, 0).meta.id, id);
    let refused = t.get(2, Kind::Shm, KEY, IPC_CREAT | IPC_EXCL);
    assert_eq!(refused.errno, EEXIST);
    // IPC_EXCL alone means nothing, as in the kernel.
    assert_eq!(t.get(2, Kind::Shm, KEY, IPC_EXCL).errno, 0);
}

#[test]
fn a_key_that_is_not_there_is_made_only_on_demand() {
    let mut t = test();
    assert_eq!(t.get(1, Kind::Shm, KEY, 0).errno, ENOENT);
    assert_eq!(t.get(1, Kind::Shm, KEY, IPC_EXCL).errno, ENOENT);
}

#[test]
fn ipc_private_makes_a_new_one_each_time_and_is_found_by_no_key() {
    let mut t = test();
    let first = t.get(1, Kind::Shm, 0, 0);
    let second = t.get(1, Kind::Shm, 0, IPC_CREAT | IPC_EXCL);
    assert_eq!((first.created, second.created), (1, 1));
    assert_ne!(first.meta.id, second.meta.id);
}

#[test]
fn the_kinds_have_keys_and_indices_of_their_own() {
    let mut t = test();
    for kind in [Kind::Shm, Kind::Sem, Kind::Msg] {
        let made = t.get(1, kind, KEY, IPC_CREAT);
        assert_eq!((made.created, made.meta.index), (1, 0), "{kind}");
        let mut find = about(LinkOp::Find, made.meta.id);
        find.meta.kind = kind as u32 % 3 + 1;
        assert_eq!(t.ask(1, &find).errno, EINVAL);
    }
}

#[test]
fn a_candidate_id_must_be_free_and_routed() {
    let mut t = test();
    let taken = t.make();
    let ask = |ids| LinkMsg {
        ids,
        ..get(Kind::Shm, 0, 1, 0, [0; 4])
    };
    let bad = [5, -5, taken, i32::MIN | ROUTED_BIT];
    assert_eq!(t.ask(1, &ask(bad)).errno, EAGAIN);
    let good = 0x1234 | ROUTED_BIT;
    assert_eq!(t.ask(1, &ask([5, -1, taken, good])).meta.id, good);
}

#[test]
fn shmmni_counts_segments_and_removed_ones_too() {
    let mut t = test();
    let limits = ShmLimits {
        mni: 2,
        ..ShmLimits::DEFAULT
    };
    t.env.limits.set(limits);
    let id = t.make();
    assert_eq!(t.remove(1, id, 1).errno, 0);
    assert_eq!(t.get(1, Kind::Shm, 0, 0).errno, 0);
    assert_eq!(t.get(1, Kind::Shm, 0, 0).errno, ENOSPC);
    assert_eq!(t.get(1, Kind::Sem, 0, 0).errno, 0);
    assert_eq!(state(&t.zero(1, id)), State::Free);
    assert_eq!(t.get(1, Kind::Shm, 0, 0).errno, 0);
}

#[test]
fn shmall_counts_whole_pages_and_overflow_is_refused() {
    let mut t = test();
    let limits = ShmLimits {
        all: 4,
        ..ShmLimits::DEFAULT
    };
    t.env.limits.set(limits);
    let mut make = |size| {
        t.ask(
            1,
            &get(Kind::Shm, 0, size, 0, [size as i32 & 0xff, 2, 3, 4]),
        )
    };
    assert_eq!(make(4097).errno, 0);
    assert_eq!(make(8193).errno, ENOSPC);
    assert_eq!(make(u64::MAX).errno, ENOSPC);
    assert_eq!(make(u64::MAX - 5000).errno, ENOSPC);
    assert_eq!(make(8192).errno, 0);
}

#[test]
fn semmni_counts_sets_and_semmns_their_semaphores() {
    let mut t = test();
    let limits = SemLimits {
        mns: 10,
        mni: 3,
        ..SemLimits::DEFAULT
    };
    t.env.sem_limits.set(limits);
    let mut last = 0;
    let mut make = |t: &mut Test, nsems| {
        last += 1;
        t.ask(1, &get(Kind::Sem, 0, nsems, 0, [last; 4]))
    };
    let first = make(&mut t, 6).meta.id;
    assert_eq!(make(&mut t, 5).errno, ENOSPC);
    assert_eq!(make(&mut t, u64::MAX).errno, ENOSPC);
    assert_eq!(make(&mut t, 4).errno, 0);
    let totals = |t: &mut Test| {
        let mut request = LinkMsg::new(LinkOp::Totals);
        request.meta.kind = Kind::Sem as u32;
        let totals = t.ask(2, &request).totals;
        (totals.used, totals.indices, totals.pages)
    };
    assert_eq!(totals(&mut t), (2, 2, 10));
    assert_eq!(t.remove(1, first, 0).errno, 0);
    assert_eq!(totals(&mut t), (1, 2, 4));
    for _ in 0..2 {
        assert_eq!(make(&mut t, 1).errno, 0);
    }
    assert_eq!(make(&mut t, 1).errno, ENOSPC);
}

#[test]
fn msgmni_counts_queues() {
    let mut t = test();
    let limits = MsgLimits {
        mni: 2,
        ..MsgLimits::DEFAULT
    };
    t.env.msg_limits.set(limits);
    let first = t.get(1, Kind::Msg, 0, 0).meta.id;
    assert_eq!(t.get(2, Kind::Msg, 0, 0).errno, 0);
    assert_eq!(t.get(2, Kind::Msg, 0, 0).errno, ENOSPC);
    assert_eq!(t.get(2, Kind::Shm, 0, 0).errno, 0);
    assert_eq!(t.remove(1, first, 0).errno, 0);
    assert_eq!(t.get(2, Kind::Msg, 0, 0).errno, 0);
    assert_eq!(t.get(1, Kind::Msg, 0, 0).errno, ENOSPC);
}

#[test]
fn limits_are_those_of_the_moment() {
    let mut t = test();
    let none = ShmLimits {
        mni: 0,
        ..ShmLimits::DEFAULT
    };
    t.env.limits.set(none);
    assert_eq!(t.get(1, Kind::Shm, 0, 0).errno, ENOSPC);
    t.env.limits.set(ShmLimits::DEFAULT);
    assert_eq!(t.get(1, Kind::Shm, 0, 0).errno, 0);
}

#[test]
fn indices_are_the_lowest_free_ones() {
    let mut t = test();
    let ids: Vec<i32> = (0..4).map(|_| t.get(1, Kind::Shm, 0, 0).meta.id).collect();
    t.remove(1, ids[2], 0);
    t.remove(1, ids[1], 0);
    let indices: Vec<u32> = (0..3)
        .map(|_| t.get(1, Kind::Shm, 0, 0).meta.index)
        .collect();
    assert_eq!(indices, [1, 2, 4]);
}

#[test]
fn a_segment_that_nobody_has_attached_is_gone_when_it_is_removed() {
    let mut t = test();
    let id = t.shared();
    let removed = t.remove(1, id, 0);
    assert_eq!((removed.errno, state(&removed)), (0, State::Free));
    let told: Vec<_> = t.peers.take_asked();
    let states: Vec<_> = told.iter().map(|(d, op, m)| (*d, *op, m.state)).collect();
    assert_eq!(
        states,
        [
            (2, LinkOp::Update, State::Dest as u32),
            (2, LinkOp::Update, State::Free as u32)
        ]
    );
    assert_eq!(t.find(2, id).errno, EINVAL);
}

#[test]
fn a_segment_lives_until_the_last_detach_anywhere_but_its_key_is_free_at_once() {
    let mut t = test();
    let id = t.shared();
    t.peers.attach(2, id, 1);
    let removed = t.remove(1, id, 1);
    assert_eq!((state(&removed), removed.meta.key), (State::Dest, 0));
    assert_eq!(t.get(3, Kind::Shm, KEY, 0).errno, ENOENT);
    let other = t.get(3, Kind::Shm, KEY, IPC_CREAT | IPC_EXCL);
    assert_eq!(other.created, 1);
    assert_eq!(state(&t.zero(2, id)), State::Dest);
    t.peers.take_asked();
    assert_eq!(state(&t.zero(1, id)), State::Free);
    assert_eq!(t.peers.domains[&2].told[&id], State::Free as u32);
    // The one who said it was the last needs not to be told.
    assert!(t.peers.take_asked().iter().all(|(d, ..)| *d == 2));
}

#[test]
fn a_removal_changes_no_ctime_and_can_be_repeated() {
    let mut t = test();
    let id = t.make();
    for _ in 0..2 {
        let removed = t.remove(1, id, 1);
        assert_eq!((state(&removed), removed.meta.ctime), (State::Dest, 1000));
    }
    assert_eq!(state(&t.remove(1, id, 0)), State::Free);
    assert_eq!(t.remove(1, id, 0).errno, EINVAL);
}

#[test]
fn sets_and_queues_are_gone_when_they_are_removed() {
    let mut t = test();
    for kind in [Kind::Sem, Kind::Msg] {
        let id = t.get(1, kind, KEY, IPC_CREAT).meta.id;
        t.get(2, kind, KEY, 0);
        assert_eq!(state(&t.remove(2, id, 0)), State::Free);
        assert_eq!(t.peers.domains[&1].told[&id], State::Free as u32);
        assert_eq!(t.get(1, kind, KEY, 0).errno, ENOENT);
    }
}

#[test]
fn a_set_reaches_every_domain_that_knows_and_moves_ctime() {
    let mut t = test();
    let id = t.shared();
    let mut request = about(LinkOp::Set, id);
    request.meta.ctime = 2000;
    (request.meta.uid, request.meta.gid) = (5, 6);
    request.meta.mode = 0o7123;
    let done = t.ask(2, &request);
    let meta = done.meta;
    assert_eq!((meta.uid, meta.gid, meta.mode), (5, 6, 0o123));
    assert_eq!((meta.cuid, meta.ctime), (0, 2000));
    assert_eq!(t.peers.take_asked(), [(1, LinkOp::Update, meta)]);
}

#[test]
fn a_lock_sets_its_bit_alone_and_leaves_ctime() {
    let mut t = test();
    let id = t.make();
    let mut lock = about(LinkOp::Set, id);
    lock.meta.ctime = 2000;
    lock.flags = 1;
    lock.meta.mode = 0o777 | MODE_LOCKED;
    let meta = t.ask(1, &lock).meta;
    assert_eq!((meta.mode, meta.ctime), (0o640 | MODE_LOCKED, 1000));
    let mut set = about(LinkOp::Set, id);
    set.meta.mode = 0o600;
    assert_eq!(t.ask(1, &set).meta.mode, 0o600 | MODE_LOCKED);
    lock.meta.mode = 0;
    assert_eq!(t.ask(1, &lock).meta.mode, 0o600);
}

#[test]
fn usage_is_that_of_all_other_domains() {
    let mut t = test();
    let id = t.shared();
    t.find(3, id);
    t.ask(3, &about(LinkOp::Locate, id));
    t.peers.attach(1, id, 100);
    for (domid, atime) in [(2, 10), (3, 20)] {
        let usage = Usage {
            nattch: u64::from(domid),
            atime,
            lpid: 40 + domid as i32,
            lpid_domain: 9,
            ..Usage::default()
        };
        t.peers
            .domains
            .get_mut(&domid)
            .unwrap()
            .usage
            .insert(id, usage);
    }
    let usage = t.ask(1, &about(LinkOp::Usage, id)).usage;
    assert_eq!((usage.nattch, usage.atime), (5, 20));
    assert_eq!((usage.lpid, usage.lpid_domain), (43, 3));
}

#[test]
fn a_domain_that_never_had_the_region_is_not_asked_for_its_use() {
    let mut t = test();
    let id = t.make();
    t.find(2, id);
    t.peers.take_asked();
    t.ask(3, &about(LinkOp::Usage, id));
    let asked: Vec<Domid> = t.peers.take_asked().iter().map(|(d, ..)| *d).collect();
    assert_eq!(asked, [1]);
}

#[test]
fn locate_asks_the_owner_to_grant_and_is_not_for_the_owner() {
    let mut t = test();
    let id = t.make();
    let located = t.ask(3, &about(LinkOp::Locate, id));
    assert_eq!((located.domid, located.gref), (1, 7003));
    assert_eq!((located.bell_gref, located.bell_port), (8003, 9003));
    assert_eq!(t.ask(1, &about(LinkOp::Locate, id)).errno, EINVAL);
    t.peers.domains.get_mut(&1).unwrap().silent = true;
    assert_eq!(t.ask(2, &about(LinkOp::Locate, id)).errno, ENODEV);
}

#[test]
fn a_doorbell_is_asked_of_a_domain_that_has_the_same_region() {
    let mut t = test();
    let id = t.shared();
    let mut bell = about(LinkOp::Bell, id);
    bell.domid = 3;
    // Neither one who has not got the region gives one, nor does it get one.
    t.find(3, id);
    assert_eq!(t.ask(2, &bell).errno, EINVAL);
    assert_eq!(t.ask(3, &LinkMsg { domid: 2, ..bell }).errno, EINVAL);
    assert_eq!(t.ask(2, &LinkMsg { domid: 2, ..bell }).errno, EINVAL);
    assert_eq!(t.ask(2, &LinkMsg { domid: 77, ..bell }).errno, EINVAL);
    t.ask(3, &about(LinkOp::Locate, id));
    t.peers.take_asked();
    let offered = t.ask(2, &bell);
    assert_eq!((offered.bell_gref, offered.bell_port), (8002, 9002));
    let asked: Vec<_> = t.peers.take_asked().iter().map(|a| (a.0, a.1)).collect();
    assert_eq!(asked, [(3, LinkOp::Offer)]);
    t.peers.domains.get_mut(&3).unwrap().silent = true;
    assert_eq!(t.ask(2, &bell).errno, ENODEV);
}

#[test]
fn next_lists_by_index_and_finds_one_index() {
    let mut t = test();
    let ids: Vec<i32> = (0..3).map(|_| t.get(1, Kind::Shm, 0, 0).meta.id).collect();
    t.remove(1, ids[1], 0);
    let mut ask = |index, flags| {
        let mut request = LinkMsg::new(LinkOp::Next);
        request.flags = flags;
        request.meta.kind = Kind::Shm as u32;
        request.meta.index = index;
        let answer = t.ask(2, &request);
        (answer.errno, answer.meta.id)
    };
    assert_eq!(ask(0, 0), (0, ids[0]));
    assert_eq!(ask(1, 0), (0, ids[2]));
    assert_eq!(ask(1, 1), (ENOENT, 0));
    assert_eq!(ask(2, 1), (0, ids[2]));
    assert_eq!(ask(3, 0), (ENOENT, 0));
    assert_eq!(ask(u32::MAX, 0), (ENOENT, 0));
}

#[test]
fn totals_are_of_one_kind_with_what_the_owners_say_is_in_memory() {
    let mut t = test();
    let ids = [t.make(), t.get(2, Kind::Shm, 0, 0).meta.id];
    t.get(1, Kind::Sem, 0, 0);
    for (domid, id) in [(1, ids[0]), (2, ids[1])] {
        let usage = Usage {
            resident: u64::from(domid),
            ..Usage::default()
        };
        t.peers
            .domains
            .get_mut(&domid)
            .unwrap()
            .usage
            .insert(id, usage);
    }
    let mut request = LinkMsg::new(LinkOp::Totals);
    request.meta.kind = Kind::Shm as u32;
    let totals = t.ask(1, &request).totals;
    assert_eq!((totals.used, totals.indices), (2, 2));
    assert_eq!((totals.pages, totals.resident), (4, 3));
}

#[test]
fn totals_of_queues_are_what_the_owners_count_in_them() {
    let mut t = test();
    let ids = [1, 2].map(|domid| t.get(domid, Kind::Msg, 0, 0).meta.id);
    t.get(1, Kind::Shm, 0, 0);
    for (domid, id) in (1..).zip(ids) {
        let queue = QueueUse {
            qnum: domid.into(),
            cbytes: 10,
            ..QueueUse::default()
        };
        let owner = t.peers.domains.get_mut(&domid).unwrap();
        owner.queues.insert(id, queue);
    }
    let of_second = t.ask(1, &about(LinkOp::Usage, ids[1]));
    assert_eq!((of_second.queue.qnum, of_second.queue.cbytes), (2, 10));
    let totals = |t: &mut Test| {
        let mut request = LinkMsg::new(LinkOp::Totals);
        request.meta.kind = Kind::Msg as u32;
        let totals = t.ask(1, &request).totals;
        (totals.used, totals.indices, totals.pages, totals.resident)
    };
    assert_eq!(totals(&mut t), (2, 2, 3, 20));
    // One that does not say is not waited for, and counts nothing.
    t.peers.domains.get_mut(&2).unwrap().silent = true;
    assert_eq!(totals(&mut t), (2, 2, 1, 10));
}

#[test]
fn a_name_is_enrolled_once_at_a_time_and_numbers_never_come_back() {
    let mut t = test();
    assert_eq!(t.registrar.enrol("a"), Err(EnrolError::Taken(1)));
    t.die(1);
    assert_eq!(t.registrar.enrol("a"), Ok(4));
    for (domid, errno) in [(1, libc::ENOENT), (2, 0), (4, 0), (5, libc::ENOENT)] {
        let request = LinkMsg {
            domid,
            ..LinkMsg::new(LinkOp::Enrolled)
        };
        assert_eq!(t.ask(2, &request).errno, errno, "{domid}");
    }
    let bad = t.registrar.enrol("no/name");
    assert!(matches!(bad, Err(EnrolError::BadName(_))));
}

#[test]
fn what_is_no_request_is_refused() {
    let mut t = test();
    for op in [0, 1, 12, 31, 32, 33, 34, 35, 36, u32::MAX] {
        let request = LinkMsg {
            op,
            ..LinkMsg::default()
        };
        assert_eq!(t.ask(1, &request).errno, EINVAL, "{op}");
    }
}

#[test]
fn numbers_that_mean_nothing_are_refused() {
    let mut t = test();
    for kind in [0, 4, u32::MAX] {
        let mut request = get(Kind::Shm, KEY, 1, IPC_CREAT, [1, 2, 3, 4]);
        request.meta.kind = kind;
        assert_eq!(t.ask(1, &request).errno, EINVAL);
    }
    for op in [LinkOp::Find, LinkOp::Set, LinkOp::Remove, LinkOp::Usage] {
        for id in [0, -1, 1, i32::MIN, i32::MAX] {
            assert_eq!(t.ask(1, &about(op, id)).errno, EINVAL);
        }
    }
}
