// SPDX-License-Identifier: MIT OR Apache-2.0
//! The policy for guests, by the names that XenStore has of them.

use super::world::*;
use rustix::io::Errno;
use vshmem_abi::Kind;
use vshmem_abi::ids::ROUTED_BIT;
use vshmem_abi::link::{FOR_NOBODY, FOR_READING, LinkMsg, LinkOp};
use vshmem_abi::wire::Meta;

const ALL: &str = "0x5600-0x56ff";

fn rule(domain: &str, access: &str) -> String {
    format!("[[policy.rule]]\ndomains = [{domain}]\nkeys = \"{ALL}\"\naccess = \"{access}\"\n")
}

/// Guest 1 may do everything, 2 read, others nothing.
fn rules() -> String {
    rule("\"guest-1\"", "read-write") + &rule("2", "read-only")
}

#[test]
fn guests_are_known_by_name_and_number_and_who_may_read_is_granted_that() {
    let mut world = World::without_backend();
    world.configure(&rules());
    world.start();
    let (a, b, c) = (world.guest(1), world.guest(2), world.guest(3));
    let id = a.make(KEY);
    assert_eq!(c.get(KEY, 0), Err(Errno::ACCESS));
    assert_eq!(b.get(KEY, CREAT).unwrap().meta.id, id);
    assert_eq!(b.call(about(LinkOp::Locate, id)).unwrap().domid, 1);
    assert_eq!(a.run(|front| front.books.granted_for), FOR_READING);
    assert_eq!(b.remove(id), Err(Errno::ACCESS));
    let set = a.run(|front| front.get(Kind::Sem, KEY, EXCL)).unwrap();
    assert_eq!(b.call(about(LinkOp::Find, set.meta.id)), Err(Errno::ACCESS));
    // Who makes something is told what the guest may do that it is for.
    let made_for = |peer, key| {
        let meta = Meta {
            kind: Kind::Shm as u32,
            key,
            size: 1,
            ..Meta::default()
        };
        let request = LinkMsg {
            domid: peer,
            flags: EXCL,
            ids: [key, key + 1, key + 2, key + 3].map(|id| id | ROUTED_BIT),
            ..LinkMsg::about(LinkOp::Get, meta)
        };
        a.call(request).unwrap().flags
    };
    assert_eq!(made_for(2, 0x5610), FOR_READING);
    assert_eq!(made_for(3, 0x5620), FOR_NOBODY);
}

#[test]
fn a_later_back_end_has_the_policy_too_and_one_that_reads_it_again_the_new_one() {
    let mut world = World::without_backend();
    world.configure(&rules());
    world.start();
    let (a, b) = (world.guest(1), world.guest(2));
    let id = a.make(KEY);
    b.get(KEY, 0).unwrap();
    world.kill();
    world.start();
    assert_eq!(b.remove(id), Err(Errno::ACCESS));
    // A file that is wrong changes nothing; the next one has been read when it shows.
    world.configure("[policy]\nrule = 5\n");
    world.reload();
    assert_eq!(b.remove(id), Err(Errno::ACCESS));
    world.configure(&rule("\"*\"", "read-write"));
    world.reload();
    while b.remove(id).is_err() {
        std::thread::yield_now();
    }
    world.assert_works();
}
