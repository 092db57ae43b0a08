// SPDX-License-Identifier: MIT OR Apache-2.0
//! Domains that exist only as what they would answer, limits that are set by hand, and requests.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use vshmem_abi::ids::ROUTED_BIT;
use vshmem_abi::limits::{MsgLimits, SemLimits, ShmLimits};
use vshmem_abi::link::{CANDIDATES, LinkMsg, LinkOp};
use vshmem_abi::wire::{Meta, QueueUse, State, Usage};
use vshmem_abi::{Domid, Kind};
use vshmem_registry::{Environment, Keeper, NoAnswer, Peers, Registrar};

/// Limits that the test sets.
#[derive(Clone)]
pub struct Env {
    pub limits: Rc<Cell<ShmLimits>>,
    pub sem_limits: Rc<Cell<SemLimits>>,
    pub msg_limits: Rc<Cell<MsgLimits>>,
}

impl Env {
    pub fn new() -> Self {
        Self {
            limits: Rc::new(Cell::new(ShmLimits::DEFAULT)),
            sem_limits: Rc::new(Cell::new(SemLimits::DEFAULT)),
            msg_limits: Rc::new(Cell::new(MsgLimits::DEFAULT)),
        }
    }
}

impl Environment for Env {
    fn shm_limits(&self) -> ShmLimits {
        self.limits.get()
    }

    fn sem_limits(&self) -> SemLimits {
        self.sem_limits.get()
    }

    fn msg_limits(&self) -> MsgLimits {
        self.msg_limits.get()
    }
}

/// What one domain would say.
#[derive(Default)]
pub struct Domain {
    pub silent: bool,
    /// Its use of constructs, by id.
    pub usage: BTreeMap<i32, Usage>,
    /// What it counts in constructs of its own, by id.
    pub queues: BTreeMap<i32, QueueUse>,
    /// The states it was told, by id.
    pub told: BTreeMap<i32, u32>,
    /// The domains that it was told are gone, and which of its constructs they had.
    pub departed: Vec<(i32, Domid)>,
}

/// All domains, and what they were asked.
#[derive(Default)]
pub struct Fake {
    pub domains: BTreeMap<Domid, Domain>,
    pub asked: Vec<(Domid, LinkOp, Meta)>,
    /// The flags that came with that.
    pub flags: Vec<i32>,
}

impl Fake {
    /// Domains a, b and c, which the registrar has as 1 to 3.
    pub fn enrolled<K: Keeper>(registrar: &mut Registrar<Env, K>) -> Self {
        let mut peers = Self::default();
        for name in ["a", "b", "c"] {
            let domid = registrar.enrol(name).unwrap();
            peers.domains.entry(domid).or_default();
        }
        peers
    }

    pub fn attach(&mut self, domid: Domid, id: i32, nattch: u64) {
        let domain = self.domains.entry(domid).or_default();
        domain.usage.entry(id).or_default().nattch = nattch;
    }

    pub fn attached(&self, domid: Domid, id: i32) -> u64 {
        let domain = self.domains.get(&domid);
        domain
            .and_then(|d| d.usage.get(&id))
            .map_or(0, |u| u.nattch)
    }

    /// What was asked since the last call.
    pub fn take_asked(&mut self) -> Vec<(Domid, LinkOp, Meta)> {
        std::mem::take(&mut self.asked)
    }
}

impl Peers for Fake {
    fn query(&mut self, domid: Domid, query: &LinkMsg) -> Result<LinkMsg, NoAnswer> {
        let op = LinkOp::from_raw(query.op).expect("a known query");
        assert!(op.is_query());
        self.asked.push((domid, op, query.meta));
        self.flags.push(query.flags);
        let domain = self.domains.get_mut(&domid).ok_or(NoAnswer::Gone)?;
        if op == LinkOp::Update {
            domain.told.insert(query.meta.id, query.meta.state);
        }
        if op == LinkOp::Departed {
            domain.departed.push((query.meta.id, query.domid));
        }
        if domain.silent {
            return Err(NoAnswer::Silent);
        }
        let usage = domain.usage.get(&query.meta.id);
        let queue = domain.queues.get(&query.meta.id);
        Ok(LinkMsg {
            usage: usage.copied().unwrap_or_default(),
            queue: queue.copied().unwrap_or_default(),
            gref: 7000 + query.domid,
            bell_gref: 8000 + query.domid,
            bell_port: 9000 + query.domid,
            ..query.answer()
        })
    }
}

/// A request about a construct.
pub fn about(op: LinkOp, id: i32) -> LinkMsg {
    let meta = Meta {
        id,
        ..Meta::default()
    };
    LinkMsg::about(op, meta)
}

/// `shmget` and its kin, at second 1000; `ids` are given without [`ROUTED_BIT`].
pub fn get(kind: Kind, key: i32, size: u64, flags: i32, ids: [i32; CANDIDATES]) -> LinkMsg {
    let meta = Meta {
        kind: kind as u32,
        key,
        size,
        mode: (flags & 0o777) as u32,
        ctime: 1000,
        ..Meta::default()
    };
    LinkMsg {
        flags,
        ids: ids.map(|id| id | ROUTED_BIT),
        ..LinkMsg::about(LinkOp::Get, meta)
    }
}

/// The state of an answer's construct.
pub fn state(answer: &LinkMsg) -> State {
    State::from_raw(answer.meta.state)
}
