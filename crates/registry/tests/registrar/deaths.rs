// SPDX-License-Identifier: MIT OR Apache-2.0
//! Domains that die, and those that say nothing for a while.

use crate::case::{KEY, test};
use crate::fake::{about, state};
use libc::{EIDRM, EINVAL, ENOENT, IPC_CREAT};
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::wire::{State, Usage};
use vshmem_abi::{Domid, Kind};

#[test]
fn what_a_dead_domain_owned_is_lost_and_its_key_free() {
    let mut t = test();
    let id = t.shared();
    t.peers.attach(2, id, 1);
    t.die(1);
    assert_eq!(t.peers.domains[&2].told[&id], State::Lost as u32);
    assert_eq!(t.get(3, Kind::Shm, KEY, 0).errno, ENOENT);
    let found = t.find(2, id);
    assert_eq!((found.errno, state(&found)), (0, State::Lost));
    assert_eq!(found.meta.key, 0);
    for op in [LinkOp::Set, LinkOp::Remove, LinkOp::Locate, LinkOp::Usage] {
        assert_eq!(t.ask(2, &about(op, id)).errno, EIDRM, "{op:?}");
    }
    assert_eq!(state(&t.zero(2, id)), State::Free);
    assert_eq!(t.find(2, id).errno, EINVAL);
}

#[test]
fn what_a_dead_domain_owned_is_forgotten_where_nobody_has_it_attached() {
    let mut t = test();
    let id = t.shared();
    t.die(1);
    assert_eq!(t.peers.domains[&2].told[&id], State::Lost as u32);
    assert_eq!(t.find(2, id).errno, EINVAL);
}

#[test]
fn the_owner_of_a_set_hears_of_the_death_of_a_domain_that_had_it() {
    for kind in [Kind::Sem, Kind::Msg] {
        let mut t = test();
        let id = t.get(1, kind, KEY, IPC_CREAT).meta.id;
        for domid in [2, 3] {
            assert_eq!(t.get(domid, kind, KEY, 0).errno, 0);
        }
        assert_eq!(t.ask(2, &about(LinkOp::Locate, id)).errno, 0);
        // Whether it answers or not.
        t.peers.domains.get_mut(&1).unwrap().silent = true;
        t.die(3);
        t.die(2);
        assert_eq!(t.peers.domains[&1].departed, [(id, 2)]);
        assert_eq!(t.find(1, id).errno, 0);
    }
}

#[test]
fn the_death_of_the_last_user_ends_a_removed_segment() {
    let mut t = test();
    let id = t.shared();
    t.peers.attach(2, id, 1);
    assert_eq!(state(&t.remove(1, id, 0)), State::Dest);
    t.die(2);
    assert_eq!(t.find(1, id).errno, EINVAL);
    assert_eq!(t.peers.domains[&1].told[&id], State::Free as u32);
}

#[test]
fn the_times_of_a_dead_domain_are_kept_but_not_its_attachments() {
    let mut t = test();
    let id = t.shared();
    let usage = Usage {
        nattch: 4,
        atime: 50,
        ..Usage::default()
    };
    t.peers.domains.get_mut(&2).unwrap().usage.insert(id, usage);
    assert_eq!(t.ask(1, &about(LinkOp::Usage, id)).usage.nattch, 4);
    t.die(2);
    let usage = t.ask(1, &about(LinkOp::Usage, id)).usage;
    assert_eq!((usage.nattch, usage.atime), (0, 50));
}

#[test]
fn a_silent_domain_counts_as_it_was_last_heard() {
    let mut t = test();
    let id = t.shared();
    t.peers.attach(2, id, 3);
    t.ask(1, &about(LinkOp::Usage, id));
    t.peers.domains.get_mut(&2).unwrap().silent = true;
    t.peers.attach(2, id, 9);
    assert_eq!(t.ask(1, &about(LinkOp::Usage, id)).usage.nattch, 3);
}

#[test]
fn a_segment_that_a_silent_domain_may_have_attached_is_kept_until_it_speaks_or_dies() {
    for dies in [false, true] {
        let mut t = test();
        let id = t.shared();
        t.peers.domains.get_mut(&2).unwrap().silent = true;
        assert_eq!(state(&t.remove(1, id, 0)), State::Dest);
        if dies {
            t.die(2);
        } else {
            t.peers.domains.get_mut(&2).unwrap().silent = false;
            t.registrar.domain_spoke(2, &mut t.peers);
        }
        assert_eq!(t.find(1, id).errno, EINVAL);
    }
}

#[test]
fn a_silent_domain_that_never_had_the_region_keeps_nothing() {
    let mut t = test();
    let id = t.make();
    t.find(2, id);
    t.peers.domains.get_mut(&2).unwrap().silent = true;
    assert_eq!(state(&t.remove(1, id, 0)), State::Free);
}

#[test]
fn a_domain_that_does_not_know_a_construct_has_none_of_it_attached() {
    struct Refuses;
    impl vshmem_registry::Peers for Refuses {
        fn query(
            &mut self,
            _: Domid,
            query: &LinkMsg,
        ) -> Result<LinkMsg, vshmem_registry::NoAnswer> {
            let mut refusal = query.refuse(EINVAL);
            refusal.usage.nattch = 1;
            Ok(refusal)
        }
    }
    let mut t = test();
    let id = t.shared();
    let removed = t
        .registrar
        .handle(1, &about(LinkOp::Remove, id), &mut Refuses);
    assert_eq!(state(&removed), State::Free);
}
