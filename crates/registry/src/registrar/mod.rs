// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state machine: what each request of [`vshmem_abi::link`] does.

mod domains;
mod policy;

pub use domains::EnrolError;
pub use policy::Refusal;

use crate::env::{Environment, NoAnswer, Peers};
use crate::keeper::{Keeper, NoKeeper};
use crate::table::{Construct, Known, Table};
use domains::Enrolled;
use policy::Wanted;
use rustix::io::Errno;
use std::collections::BTreeMap;
use vshmem_abi::ids::{IPC_PRIVATE, may_be_routed};
use vshmem_abi::link::{BY_POLICY, FOR_NOBODY, FOR_READING, LinkMsg, LinkOp};
use vshmem_abi::wire::{MODE_LOCKED, Meta, QueueUse, State, Usage};
use vshmem_abi::{Domid, Kind, pages};
use vshmem_config::Policy;
use vshmem_config::policy::Access;

/// Permission bits of a mode (`S_IRWXUGO`).
const MODE_BITS: u32 = 0o777;

/// The arbiter of all keys and ids of a machine.
#[derive(Debug)]
pub struct Registrar<E, K = NoKeeper> {
    env: E,
    keeper: K,
    table: Table,
    domains: BTreeMap<Domid, Enrolled>,
    last_domid: Domid,
    policy: Policy,
    refusal: Option<Refusal>,
}

impl<E: Environment> Registrar<E> {
    /// A registrar that knows of nothing, and of which nothing is kept.
    pub fn new(env: E) -> Self {
        Self::with_keeper(env, NoKeeper)
    }
}

impl<E: Environment, K: Keeper> Registrar<E, K> {
    /// A registrar that knows of nothing yet, whose constructs are kept.
    pub fn with_keeper(env: E, keeper: K) -> Self {
        Self {
            env,
            keeper,
            table: Table::default(),
            domains: BTreeMap::new(),
            last_domid: 0,
            policy: Policy::default(),
            refusal: None,
        }
    }

    /// How many domains are enrolled.
    pub fn domains(&self) -> usize {
        self.domains.len()
    }

    /// How many constructs of a kind there are.
    pub fn constructs(&self, kind: Kind) -> u64 {
        self.table.totals(kind).used
    }

    /// What it has from outside, to change.
    pub fn environment_mut(&mut self) -> &mut E {
        &mut self.env
    }

    /// Answers one request of domain `from`, which is enrolled.
    ///
    /// `peers` may be asked about `from` itself too: a front-end that waits for its answer still
    /// answers queries.
    pub fn handle(&mut self, from: Domid, request: &LinkMsg, peers: &mut dyn Peers) -> LinkMsg {
        self.refusal = None;
        let done = match LinkOp::from_raw(request.op) {
            Some(LinkOp::Get) => self.get(from, request),
            Some(LinkOp::Find) => self.find(from, request),
            Some(LinkOp::Set) => self.set(from, request, peers),
            Some(LinkOp::Remove) => self.remove(from, request, peers),
            Some(LinkOp::Usage) => self.usage(from, request, peers),
            Some(LinkOp::Zero) => self.zero(from, request, peers),
            Some(LinkOp::Locate) => self.locate(from, request, peers),
            Some(LinkOp::Next) => self.next(from, request),
            Some(LinkOp::Totals) => self.totals(request, peers),
            Some(LinkOp::Enrolled) => self.enrolled(request),
            Some(LinkOp::Bell) => self.bell(from, request, peers),
            Some(
                LinkOp::Enrol
                | LinkOp::Resumed
                | LinkOp::Update
                | LinkOp::Count
                | LinkOp::Grant
                | LinkOp::Departed
                | LinkOp::Offer,
            )
            | None => Err(Errno::INVAL),
        };
        match done {
            Ok(answer) => answer,
            Err(errno) => {
                let is_by_policy = self.refusal.is_some();
                LinkMsg {
                    flags: if is_by_policy { BY_POLICY } else { 0 },
                    ..request.refuse(errno.raw_os_error())
                }
            }
        }
    }

    /// The construct that `request` is about, checked to be of the kind it says, if it says one.
    fn construct(&mut self, request: &LinkMsg) -> Result<&mut Construct, Errno> {
        let construct = self.table.get_mut(request.meta.id).ok_or(Errno::INVAL)?;
        if request.meta.kind != 0 && request.meta.kind != construct.kind as u32 {
            return Err(Errno::INVAL);
        }
        Ok(construct)
    }

    /// The same, for what nobody can do with a construct whose owner domain is gone.
    fn sound(&mut self, request: &LinkMsg) -> Result<&mut Construct, Errno> {
        let construct = self.construct(request)?;
        if construct.meta.state == State::Lost as u32 {
            return Err(Errno::IDRM);
        }
        Ok(construct)
    }

    fn get(&mut self, from: Domid, request: &LinkMsg) -> Result<LinkMsg, Errno> {
        let kind = Kind::from_raw(request.meta.kind).ok_or(Errno::INVAL)?;
        let key = request.meta.key;
        if key == IPC_PRIVATE {
            return self.create(from, kind, request);
        }
        let found = self.table.by_key(kind, key);
        let there = found.and_then(|id| self.table.get(id));
        let owner = there.map(|construct| construct.meta.owner);
        // Before anything else is said, also whether there is one.
        self.permit(from, (kind, key), owner, Wanted::Use)?;
        let Some(id) = found else {
            if request.flags & libc::IPC_CREAT == 0 {
                return Err(Errno::NOENT);
            }
            return self.create(from, kind, request);
        };
        let exclusive = libc::IPC_CREAT | libc::IPC_EXCL;
        if request.flags & exclusive == exclusive {
            return Err(Errno::EXIST);
        }
        let construct = self.table.get_mut(id).ok_or(Errno::INVAL)?;
        construct.learnt_by(from);
        Ok(about(request, construct))
    }

    fn create(&mut self, from: Domid, kind: Kind, request: &LinkMsg) -> Result<LinkMsg, Errno> {
        let asked = &request.meta;
        self.permit(from, (kind, asked.key), None, Wanted::Make)?;
        let (wanted, all, most) = match kind {
            Kind::Shm => {
                let limits = self.env.shm_limits();
                let wanted = pages(asked.size).ok_or(Errno::NOSPC)?;
                (wanted, limits.all, limits.mni)
            }
            Kind::Sem => {
                let limits = self.env.sem_limits();
                (asked.size, limits.mns, limits.mni)
            }
            Kind::Msg => (0, u64::MAX, self.env.msg_limits().mni),
        };
        self.check_limits(from, kind, wanted)?;
        let there = self.table.totals(kind);
        let total = there.pages.checked_add(wanted).ok_or(Errno::NOSPC)?;
        if total > all || there.used >= most || self.table.is_full() {
            return Err(Errno::NOSPC);
        }
        let free = |id: &&i32| may_be_routed(**id) && self.table.get(**id).is_none();
        let id = *request.ids.iter().find(free).ok_or(Errno::AGAIN)?;
        let meta = Meta {
            id,
            kind: kind as u32,
            state: State::Live as u32,
            mode: asked.mode & MODE_BITS,
            owner: from,
            made_with: asked.key,
            ..*asked
        };
        let construct = self.table.insert(kind, meta);
        let owner = Known {
            mapped: true,
            ..Known::default()
        };
        construct.known.insert(from, owner);
        if self.keeper.keep(&construct.kept()).is_err() {
            self.table.remove(id);
            return Err(Errno::NOSPC);
        }
        let made = about(request, construct);
        let flags = match request.domid {
            0 => 0,
            peer => match self.access(peer, kind, asked.key) {
                Access::ReadWrite => 0,
                Access::ReadOnly => FOR_READING,
                Access::None => FOR_NOBODY,
            },
        };
        Ok(LinkMsg {
            created: 1,
            flags,
            ..made
        })
    }

    fn find(&mut self, from: Domid, request: &LinkMsg) -> Result<LinkMsg, Errno> {
        let known = self.construct(request)?.known.get(&from);
        // What it was told once, it is not asked about when it goes on.
        let goes_on = request.flags == 1 && known.is_some_and(|known| known.presumed);
        if !goes_on {
            self.permit_on(from, request, Wanted::Use)?;
        }
        let construct = self.construct(request)?;
        construct.learnt_by(from).mapped |= request.flags == 1;
        Ok(about(request, construct))
    }

    /// With `flags` 1 only [`MODE_LOCKED`] is set, which is no change that `ctime` tells of;
    /// without, everything but that. So neither undoes the other.
    fn set(
        &mut self,
        from: Domid,
        request: &LinkMsg,
        peers: &mut dyn Peers,
    ) -> Result<LinkMsg, Errno> {
        self.permit_on(from, request, Wanted::Change)?;
        let construct = self.sound(request)?;
        let id = construct.meta.id;
        let (asked, meta) = (&request.meta, &mut construct.meta);
        if request.flags == 1 {
            meta.mode = (meta.mode & !MODE_LOCKED) | (asked.mode & MODE_LOCKED);
        } else {
            meta.uid = asked.uid;
            meta.gid = asked.gid;
            meta.mode = (meta.mode & !MODE_BITS) | (asked.mode & MODE_BITS);
            meta.ctime = asked.ctime;
        }
        let construct = self.table.get_mut(id).ok_or(Errno::INVAL)?;
        keep(&mut self.keeper, construct);
        ask_all(construct, LinkOp::Update, Some(from), peers);
        Ok(about(request, construct))
    }

    fn remove(
        &mut self,
        from: Domid,
        request: &LinkMsg,
        peers: &mut dyn Peers,
    ) -> Result<LinkMsg, Errno> {
        self.permit_on(from, request, Wanted::Change)?;
        let construct = self.sound(request)?;
        let id = construct.meta.id;
        if construct.kind == Kind::Shm {
            heard(construct, from, &request.usage);
            construct.meta.state = State::Dest as u32;
            self.table.free_key(id);
            let construct = self.table.get_mut(id).ok_or(Errno::INVAL)?;
            keep(&mut self.keeper, construct);
            ask_all(construct, LinkOp::Update, Some(from), peers);
            if construct.in_use() {
                return Ok(about(request, construct));
            }
        }
        self.destroy(id, Some(from), peers).map(|meta| LinkMsg {
            meta,
            ..request.answer()
        })
    }

    fn usage(
        &mut self,
        from: Domid,
        request: &LinkMsg,
        peers: &mut dyn Peers,
    ) -> Result<LinkMsg, Errno> {
        self.permit_on(from, request, Wanted::Use)?;
        let construct = self.sound(request)?;
        if construct.kind == Kind::Msg {
            let queue = ask(construct, construct.meta.owner, LinkOp::Count, peers);
            return Ok(LinkMsg {
                queue,
                ..about(request, construct)
            });
        }
        ask_all(construct, LinkOp::Count, Some(from), peers);
        let mut usage = construct.departed;
        for (_, known) in construct.known.iter().filter(|(d, _)| **d != from) {
            usage.merge(&known.usage);
        }
        Ok(LinkMsg {
            usage,
            ..about(request, construct)
        })
    }

    fn zero(
        &mut self,
        from: Domid,
        request: &LinkMsg,
        peers: &mut dyn Peers,
    ) -> Result<LinkMsg, Errno> {
        let construct = self.construct(request)?;
        if let Some(known) = construct.known.get_mut(&from) {
            known.usage.nattch = 0;
        }
        let mut answer = about(request, construct);
        if construct.meta.state != State::Live as u32
            && let Some(gone) = self.settle(request.meta.id, Some(from), peers)
        {
            answer.meta = gone;
        }
        Ok(answer)
    }

    fn locate(
        &mut self,
        from: Domid,
        request: &LinkMsg,
        peers: &mut dyn Peers,
    ) -> Result<LinkMsg, Errno> {
        let epoch = self.epoch(from);
        let access = self.permit_on(from, request, Wanted::Use)?;
        let construct = self.sound(request)?;
        let owner = construct.meta.owner;
        if owner == from {
            return Err(Errno::INVAL);
        }
        let query = LinkMsg {
            flags: if access == Access::ReadOnly {
                FOR_READING
            } else {
                0
            },
            ..LinkMsg::about(LinkOp::Grant, construct.meta)
        };
        let granted = obtain(owner, query, (from, epoch), peers)?;
        construct.learnt_by(from).mapped = true;
        Ok(LinkMsg {
            domid: owner,
            gref: granted.gref,
            bell_gref: granted.bell_gref,
            bell_port: granted.bell_port,
            ..about(request, construct)
        })
    }

    /// A doorbell is for domains that have a region in common.
    fn bell(
        &mut self,
        from: Domid,
        request: &LinkMsg,
        peers: &mut dyn Peers,
    ) -> Result<LinkMsg, Errno> {
        let epoch = self.epoch(from);
        self.permit_on(from, request, Wanted::Use)?;
        let construct = self.sound(request)?;
        let has_region = |domid| construct.known.get(&domid).is_some_and(|k| k.mapped);
        if from == request.domid || !has_region(from) || !has_region(request.domid) {
            return Err(Errno::INVAL);
        }
        let query = LinkMsg::about(LinkOp::Offer, construct.meta);
        let offered = obtain(request.domid, query, (from, epoch), peers)?;
        Ok(LinkMsg {
            bell_gref: offered.bell_gref,
            bell_port: offered.bell_port,
            ..about(request, construct)
        })
    }

    /// What a domain may not use is not there for it.
    fn next(&mut self, from: Domid, request: &LinkMsg) -> Result<LinkMsg, Errno> {
        let kind = Kind::from_raw(request.meta.kind).ok_or(Errno::INVAL)?;
        let mut index = request.meta.index;
        loop {
            let id = match request.flags {
                1 => self.table.at_index(kind, index),
                _ => self.table.lowest_from(kind, index),
            };
            let construct = id.and_then(|id| self.table.get(id)).ok_or(Errno::NOENT)?;
            if self.may_see(from, construct) {
                return Ok(about(request, construct));
            }
            let next = construct.meta.index.checked_add(1);
            index = next.filter(|_| request.flags != 1).ok_or(Errno::NOENT)?;
        }
    }

    fn totals(&mut self, request: &LinkMsg, peers: &mut dyn Peers) -> Result<LinkMsg, Errno> {
        let kind = Kind::from_raw(request.meta.kind).ok_or(Errno::INVAL)?;
        let mut totals = self.table.totals(kind);
        // The owner domain sees what is in a region; no other needs to be asked.
        for id in self.table.ids(|c| c.kind == kind && kind != Kind::Sem) {
            let Some(construct) = self.table.get_mut(id) else {
                continue;
            };
            let owner = construct.meta.owner;
            let mut counted = QueueUse::default();
            if construct.known.contains_key(&owner) {
                counted = ask(construct, owner, LinkOp::Count, peers);
            }
            let known = construct.known.get(&owner);
            let (pages, resident) = match kind {
                Kind::Msg => (counted.qnum, counted.cbytes),
                _ => (0, known.map_or(0, |known| known.usage.resident)),
            };
            totals.pages = totals.pages.saturating_add(pages);
            totals.resident = totals.resident.saturating_add(resident);
        }
        Ok(LinkMsg {
            totals,
            ..request.answer()
        })
    }

    /// The owner of a construct is gone. The other domains are told, and say whether they still
    /// have something attached. They forget it themselves when they have not.
    fn lose(&mut self, id: i32, peers: &mut dyn Peers) {
        self.table.free_key(id);
        let Some(construct) = self.table.get_mut(id) else {
            return;
        };
        construct.meta.state = State::Lost as u32;
        keep(&mut self.keeper, construct);
        ask_all(construct, LinkOp::Update, None, peers);
        if !construct.in_use() {
            self.forget(id);
        }
    }

    /// Ends a removed or lost construct if nothing is attached any more in any domain; `from`
    /// has none and need not be asked or told. Returns what is left of it: a meta that is `Free`.
    fn settle(&mut self, id: i32, from: Option<Domid>, peers: &mut dyn Peers) -> Option<Meta> {
        let construct = self.table.get_mut(id)?;
        ask_all(construct, LinkOp::Count, from, peers);
        if construct.in_use() {
            return None;
        }
        if construct.meta.state == State::Lost as u32 {
            let mut meta = self.forget(id)?.meta;
            meta.state = State::Free as u32;
            return Some(meta);
        }
        self.destroy(id, from, peers).ok()
    }

    /// Takes a construct out for good.
    fn forget(&mut self, id: i32) -> Option<Construct> {
        self.keeper.forget(id);
        self.table.remove(id)
    }

    /// Forgets a construct and tells all domains that knew it, except `from`.
    fn destroy(
        &mut self,
        id: i32,
        from: Option<Domid>,
        peers: &mut dyn Peers,
    ) -> Result<Meta, Errno> {
        let mut gone = self.forget(id).ok_or(Errno::INVAL)?;
        gone.meta.key = IPC_PRIVATE;
        gone.meta.state = State::Free as u32;
        ask_all(&mut gone, LinkOp::Update, from, peers);
        Ok(gone.meta)
    }
}

/// Keeps what has changed of a construct. Where that fails a later registrar goes on with what was
/// before, and the domains with it.
fn keep(keeper: &mut impl Keeper, construct: &Construct) {
    // The keeper has said what is wrong.
    let _ = keeper.keep(&construct.kept());
}

/// The answer to `request` with a construct in it.
fn about(request: &LinkMsg, construct: &Construct) -> LinkMsg {
    LinkMsg {
        meta: construct.meta,
        ..request.answer()
    }
}

/// Takes note of what a domain says of its use.
fn heard(construct: &mut Construct, from: Domid, usage: &Usage) {
    let known = construct.known.entry(from).or_default();
    known.usage = Usage {
        // A domain speaks for itself only.
        lpid_domain: from,
        ..*usage
    };
    known.silent = false;
}

/// Asks one domain about a construct and takes note of what it says. Returns what it counts beside
/// its use: nothing, unless it answers.
fn ask(construct: &mut Construct, domid: Domid, op: LinkOp, peers: &mut dyn Peers) -> QueueUse {
    let query = LinkMsg::about(op, construct.meta);
    match peers.query(domid, &query) {
        // A domain that refuses the query does not know the construct.
        Ok(answer) if answer.errno != 0 => heard(construct, domid, &Usage::default()),
        Ok(answer) => {
            heard(construct, domid, &answer.usage);
            return answer.queue;
        }
        Err(NoAnswer::Silent) => construct.known.entry(domid).or_default().silent = true,
        Err(NoAnswer::Gone) => {
            let known = construct.known.entry(domid).or_default();
            known.usage.nattch = 0;
            known.silent = false;
        }
    }
    QueueUse::default()
}

/// Asks domain `of` to let `to` have something, which the query says.
///
/// # Errors
/// What it says; `EIDRM` when it is gone, `ENODEV` when it does not answer.
fn obtain(
    of: Domid,
    query: LinkMsg,
    (to, epoch): (Domid, u8),
    peers: &mut dyn Peers,
) -> Result<LinkMsg, Errno> {
    let query = LinkMsg {
        domid: to,
        epoch: epoch.into(),
        ..query
    };
    match peers.query(of, &query) {
        Ok(answer) if answer.errno == 0 => Ok(answer),
        // Whatever number it sends, the asker gets an errno.
        Ok(answer) if (1..4096).contains(&answer.errno) => {
            Err(Errno::from_raw_os_error(answer.errno))
        }
        Ok(_) => Err(Errno::IO),
        Err(NoAnswer::Gone) => Err(Errno::IDRM),
        Err(NoAnswer::Silent) => Err(Errno::NODEV),
    }
}

/// Asks all domains that know a construct, except one. A count is asked only of those that can
/// have something attached.
fn ask_all(construct: &mut Construct, op: LinkOp, except: Option<Domid>, peers: &mut dyn Peers) {
    let concerned = |(domid, known): (&Domid, &Known)| {
        let asked = Some(*domid) != except && (op != LinkOp::Count || known.mapped);
        asked.then_some(*domid)
    };
    let domids: Vec<Domid> = construct.known.iter().filter_map(concerned).collect();
    for domid in domids {
        ask(construct, domid, op, peers);
    }
}
