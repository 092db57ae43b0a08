// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the policy lets each domain do.

use crate::fake::{Env, Fake, about, get};
use libc::{EACCES, EEXIST, EINVAL, ENOENT, ENOSPC, IPC_CREAT, IPC_EXCL, IPC_PRIVATE};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use vshmem_abi::ids::ROUTED_BIT;
use vshmem_abi::link::{BY_POLICY, FOR_NOBODY, FOR_READING, LinkMsg, LinkOp};
use vshmem_abi::wire::Meta;
use vshmem_abi::{Domid, Kind};
use vshmem_config::Policy;
use vshmem_registry::{Keeper, Kept, Registrar};

/// Where a registrar's constructs outlive it.
#[derive(Clone, Default)]
struct Place(Rc<RefCell<BTreeMap<i32, Kept>>>);

impl Keeper for Place {
    fn keep(&mut self, construct: &Kept) -> Result<(), rustix::io::Errno> {
        self.0.borrow_mut().insert(construct.meta.id, *construct);
        Ok(())
    }

    fn forget(&mut self, id: i32) {
        self.0.borrow_mut().remove(&id);
    }
}

struct Test {
    registrar: Registrar<Env, Place>,
    place: Place,
    peers: Fake,
    next_id: i32,
}

const A: Domid = 1;
const B: Domid = 2;
const C: Domid = 3;
const KEY: i32 = 0x5601;

/// Of [`KEY`] domain a may do everything, b read, c nothing; of 0x5700 everybody everything.
const RULES: &str = "
[[policy.rule]]
domains = [\"a\"]
keys = \"0x5601, private\"
access = \"read-write\"
[[policy.rule]]
domains = [2]
keys = \"0x5601\"
access = \"read-only\"
[[policy.rule]]
domains = [\"*\"]
keys = \"0x5700\"
access = \"read-write\"
";

fn policy(text: &str) -> Policy {
    let settings = vshmem_config::parse(Path::new("vshmem.toml"), text);
    settings.unwrap_or_else(|error| panic!("{error}")).policy
}

/// Domains a, b and c with a policy.
fn test(text: &str) -> Test {
    let place = Place::default();
    let mut registrar = Registrar::with_keeper(Env::new(), place.clone());
    registrar.set_policy(policy(text));
    let peers = Fake::enrolled(&mut registrar);
    Test {
        registrar,
        place,
        peers,
        next_id: 1,
    }
}

impl Test {
    fn ask(&mut self, from: Domid, request: &LinkMsg) -> LinkMsg {
        let answer = self.registrar.handle(from, request, &mut self.peers);
        let refusal = self.registrar.take_refusal();
        // The domain is told that it was the policy, and the log why.
        let is_by_policy = answer.errno != 0 && answer.flags == BY_POLICY;
        assert_eq!(is_by_policy, refusal.is_some());
        answer
    }

    fn get(&mut self, from: Domid, kind: Kind, key: i32, flags: i32) -> LinkMsg {
        self.get_sized(from, kind, key, flags, 5000)
    }

    fn get_sized(&mut self, from: Domid, kind: Kind, key: i32, flags: i32, size: u64) -> LinkMsg {
        let id = self.next_id;
        self.next_id += 4;
        self.ask(
            from,
            &get(kind, key, size, flags, [id, id + 1, id + 2, id + 3]),
        )
    }

    fn make(&mut self, from: Domid, kind: Kind, key: i32) -> i32 {
        let made = self.get(from, kind, key, IPC_CREAT | 0o666);
        assert_eq!((made.errno, made.created), (0, 1));
        made.meta.id
    }

    fn about(&mut self, from: Domid, op: LinkOp, id: i32) -> i32 {
        self.ask(from, &about(op, id)).errno
    }

    /// The flags of the last query.
    fn granted(&mut self, from: Domid, id: i32) -> (i32, bool) {
        self.peers.flags.clear();
        let errno = self.about(from, LinkOp::Locate, id);
        (errno, self.peers.flags == [FOR_READING])
    }
}

#[test]
fn a_domain_without_access_gets_eacces_for_the_key_whether_it_is_there_or_not() {
    let mut t = test(RULES);
    assert_eq!(t.get(C, Kind::Shm, KEY, 0).errno, EACCES);
    let id = t.make(A, Kind::Shm, KEY);
    for flags in [0, IPC_CREAT, IPC_CREAT | IPC_EXCL] {
        assert_eq!(t.get(C, Kind::Shm, KEY, flags).errno, EACCES);
    }
    for op in [
        LinkOp::Find,
        LinkOp::Set,
        LinkOp::Remove,
        LinkOp::Usage,
        LinkOp::Locate,
        LinkOp::Bell,
    ] {
        assert_eq!(t.about(C, op, id), EACCES, "{op:?}");
    }
    // Keys that the rules do not name are nobody's, others everybody's.
    assert_eq!(t.get(A, Kind::Shm, 0x5800, IPC_CREAT).errno, EACCES);
    assert_eq!(t.get(C, Kind::Shm, 0x5700, 0).errno, ENOENT);
    t.make(C, Kind::Shm, 0x5700);
}

#[test]
fn a_domain_that_may_read_is_granted_segments_for_reading_and_changes_nothing() {
    let mut t = test(RULES);
    assert_eq!(t.get(B, Kind::Shm, KEY, 0).errno, ENOENT);
    assert_eq!(t.get(B, Kind::Shm, KEY, IPC_CREAT).errno, EACCES);
    let id = t.make(A, Kind::Shm, KEY);
    assert_eq!(t.get(B, Kind::Shm, KEY, IPC_CREAT).meta.id, id);
    let exclusive = t.get(B, Kind::Shm, KEY, IPC_CREAT | IPC_EXCL);
    assert_eq!(exclusive.errno, EEXIST);
    assert_eq!(t.granted(B, id), (0, true));
    assert_eq!(t.about(B, LinkOp::Usage, id), 0);
    for op in [LinkOp::Set, LinkOp::Remove] {
        assert_eq!(t.about(B, op, id), EACCES, "{op:?}");
    }
    let everybodys = t.make(A, Kind::Shm, 0x5700);
    assert_eq!(t.granted(B, everybodys), (0, false));
}

#[test]
fn sets_and_queues_are_not_for_those_who_may_only_read() {
    let mut t = test(RULES);
    for kind in [Kind::Sem, Kind::Msg] {
        let id = t.make(A, kind, KEY);
        assert_eq!(t.get(B, kind, KEY, 0).errno, EACCES);
        assert_eq!(t.about(B, LinkOp::Find, id), EACCES);
    }
}

#[test]
fn private_constructs_are_for_those_whom_a_rule_gives_private() {
    let mut t = test(RULES);
    assert_eq!(t.get(B, Kind::Shm, IPC_PRIVATE, 0).errno, EACCES);
    let id = t.get(A, Kind::Shm, IPC_PRIVATE, 0).meta.id;
    assert_eq!(t.about(B, LinkOp::Find, id), EACCES);
    assert_eq!(t.about(A, LinkOp::Find, id), 0);
}

#[test]
fn what_is_removed_is_judged_by_the_key_that_it_was_made_with() {
    let mut t = test(RULES);
    let id = t.make(A, Kind::Shm, KEY);
    t.peers.attach(A, id, 1);
    let mut request = about(LinkOp::Remove, id);
    request.usage.nattch = 1;
    assert_eq!(t.ask(A, &request).meta.key, IPC_PRIVATE);
    assert_eq!(t.about(B, LinkOp::Find, id), 0);
    assert_eq!(t.granted(B, id), (0, true));
    assert_eq!(t.about(C, LinkOp::Find, id), EACCES);
    // And by a later registrar.
    let kept: Vec<Kept> = t.place.0.borrow().values().copied().collect();
    let mut later = Registrar::new(Env::new());
    later.set_policy(policy(RULES));
    let domains = [(A, "a"), (C, "c")].map(|(domid, name)| (domid, name.to_owned(), 0));
    later.restore(kept, domains);
    let answer = later.handle(C, &about(LinkOp::Locate, id), &mut t.peers);
    assert_eq!(answer.errno, EACCES);
}

#[test]
fn what_a_domain_may_not_use_is_not_listed_for_it() {
    let mut t = test(RULES);
    let hidden = t.make(A, Kind::Shm, KEY);
    let shown = t.make(A, Kind::Shm, 0x5700);
    let next = |t: &mut Test, from, index, flags| {
        let meta = Meta {
            kind: Kind::Shm as u32,
            index,
            ..Meta::default()
        };
        let request = LinkMsg {
            flags,
            ..LinkMsg::about(LinkOp::Next, meta)
        };
        let answer = t.ask(from, &request);
        (answer.errno, answer.meta.id)
    };
    assert_eq!(next(&mut t, C, 0, 0), (0, shown));
    assert_eq!(next(&mut t, C, 0, 1), (ENOENT, 0));
    assert_eq!(next(&mut t, B, 0, 0), (0, hidden));
    assert_eq!(next(&mut t, C, 2, 0), (ENOENT, 0));
}

#[test]
fn the_maker_is_told_what_the_domain_that_it_made_the_memory_for_may_do() {
    let mut t = test(RULES);
    let mut made_for = |peer: Domid, kind: Kind, key: i32| {
        let id = t.next_id;
        t.next_id += 4;
        let request = LinkMsg {
            domid: peer,
            ..get(
                kind,
                key,
                1,
                IPC_CREAT | IPC_EXCL,
                [id, id + 1, id + 2, id + 3],
            )
        };
        let answer = t.ask(A, &request);
        assert_eq!(answer.errno, 0);
        t.about(A, LinkOp::Remove, answer.meta.id);
        answer.flags
    };
    assert_eq!(made_for(B, Kind::Shm, KEY), FOR_READING);
    assert_eq!(made_for(C, Kind::Shm, KEY), FOR_NOBODY);
    assert_eq!(made_for(B, Kind::Sem, KEY), FOR_NOBODY);
    assert_eq!(made_for(C, Kind::Shm, 0x5700), 0);
    assert_eq!(made_for(0, Kind::Shm, KEY), 0);
}

#[test]
fn with_what_it_owns_a_domain_does_as_it_likes_also_under_another_policy() {
    let mut t = test("");
    let id = t.make(C, Kind::Shm, KEY);
    t.registrar.set_policy(policy(RULES));
    assert_eq!(t.get(C, Kind::Shm, KEY, 0).meta.id, id);
    assert_eq!(t.about(C, LinkOp::Set, id), 0);
    assert_eq!(t.about(C, LinkOp::Remove, id), 0);
    assert_eq!(t.get(C, Kind::Shm, KEY, IPC_CREAT).errno, EACCES);
}

#[test]
fn a_domain_that_goes_on_may_say_what_it_had_whatever_the_policy_is_by_now() {
    let mut t = test("");
    let id = t.make(A, Kind::Shm, KEY);
    let kept: Vec<Kept> = t.place.0.borrow().values().copied().collect();
    let mut later = Registrar::new(Env::new());
    later.set_policy(policy(RULES));
    let domains = [(A, "a"), (C, "c")].map(|(domid, name)| (domid, name.to_owned(), 0));
    later.restore(kept, domains);
    let has = LinkMsg {
        flags: 1,
        ..about(LinkOp::Find, id)
    };
    assert_eq!(later.handle(C, &has, &mut t.peers).errno, 0);
    // Once, and no more than that.
    assert_eq!(later.handle(C, &has, &mut t.peers).errno, EACCES);
    let locate = about(LinkOp::Locate, id);
    assert_eq!(later.handle(C, &locate, &mut t.peers).errno, EACCES);
}

#[test]
fn each_limit_is_kept_and_what_goes_makes_room() {
    const LIMITS: &str = "
[[policy.limit]]
domains = \"b\"
constructs = 4
segments = 3
bytes = 16384
sets = 1
semaphores = 7
queues = 0
";
    let mut t = test(LIMITS);
    let mut make = |kind, size| {
        let made = t.get_sized(B, kind, IPC_PRIVATE, 0, size);
        (made.errno, made.meta.id)
    };
    // Of bytes whole pages count.
    let (errno, first) = make(Kind::Shm, 4097);
    assert_eq!(errno, 0);
    assert_eq!(make(Kind::Shm, 8193).0, ENOSPC);
    assert_eq!(make(Kind::Shm, 1).0, 0);
    assert_eq!(make(Kind::Shm, 4096).0, 0);
    assert_eq!(make(Kind::Shm, 1).0, ENOSPC);
    assert_eq!(make(Kind::Sem, 8).0, ENOSPC);
    assert_eq!(make(Kind::Sem, 7).0, 0);
    assert_eq!(make(Kind::Msg, 0).0, ENOSPC);
    assert_eq!(t.about(B, LinkOp::Remove, first), 0);
    let mut make = |from, kind, size| t.get_sized(from, kind, IPC_PRIVATE, 0, size).errno;
    assert_eq!(make(B, Kind::Sem, 1), ENOSPC);
    assert_eq!(make(B, Kind::Shm, 8192), 0);
    assert_eq!(make(B, Kind::Shm, 1), ENOSPC);
    // Others have no limits.
    assert_eq!(make(A, Kind::Msg, 0), 0);
    assert_eq!(make(A, Kind::Shm, 1 << 30), 0);
}

#[test]
fn a_refusal_says_who_what_why_and_what_to_do() {
    let mut t = test(RULES);
    let mut refusal = |text: &str, from, request: &LinkMsg| {
        if !text.is_empty() {
            t.registrar.set_policy(policy(text));
        }
        t.registrar.handle(from, request, &mut t.peers);
        t.registrar.take_refusal().map(|refusal| refusal.text)
    };
    let create = get(Kind::Shm, KEY, 1, IPC_CREAT, [1, 2, 3, 4]);
    assert_eq!(
        refusal("", B, &create).as_deref(),
        Some(
            "domain b (2) may not make a segment of key 0x00005601: the rule of vshmem.toml:6 says \
             read-only; if it is to, change that"
        )
    );
    let unnamed = get(Kind::Msg, 9, 0, 0, [5, 6, 7, 8]);
    assert_eq!(
        refusal("", C, &unnamed).as_deref(),
        Some(
            "domain c (3) may not use a message queue of key 0x00000009: no rule of [policy] in \
             vshmem.toml names domain and key, and the default is none; if it is to, change that"
        )
    );
    let limit = "[[policy.limit]]\ndomains = [\"*\"]\nsegments = 0\n";
    assert_eq!(
        refusal(limit, B, &create).as_deref(),
        Some(
            "domain b (2) may not make another segment: it has 0 segments and wants 1 more, and the \
             limit of vshmem.toml:1 says segments = 0; remove what is not needed (vshmem rm --orphans), \
             or raise that"
        )
    );
    let nowhere = about(LinkOp::Find, 77 | ROUTED_BIT);
    let answer = t.registrar.handle(B, &nowhere, &mut t.peers);
    assert_eq!((answer.errno, answer.flags), (EINVAL, 0));
}
