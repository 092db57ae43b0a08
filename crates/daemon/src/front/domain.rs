// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the daemon holds of its domain, and all that can be said of it without the back-end:
//! how constructs are used, what the back-end's queries ask, and what the dead leave behind.

use super::aftermath::Pending;
use super::bells::{BellError, Bells, Numbers};
use super::clients::{Client, Clients, Run};
use super::constructs::{Constructs, Known};
use super::creation::{Plan, Rules};
use super::ended::Ends;
use super::link::Attend;
use super::maps::{self, FileId};
use super::peers::Peers;
use super::resuming::Partners;
use super::shared::Shared;
use super::undoers::Undoers;
use crate::metrics::counts::{Calls, Counts};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;
use vshmem_abi::Kind;
use vshmem_abi::ids::{Domid, IPC_PRIVATE};
use vshmem_abi::limits::{DIR_SLOTS, MsgLimits};
use vshmem_abi::link::{FOR_NOBODY, FOR_READING, LinkMsg, LinkOp};
use vshmem_abi::wire::{Meta, State, Usage};
use vshmem_config::Settings;
use vshmem_engine::directory::DirectoryWriter;
use vshmem_engine::wait_page::WaitMaster;
use vshmem_gnt::{AnyPort, AnyRegion, GrantRef, Port, PortError, Region, RegionOptions};

/// How many ids of lost constructs are remembered after nothing of them is attached any more.
const LOST: usize = 4096;

/// Memory of a construct, and the other domain that it was made for, where it has to be one.
pub struct Made {
    /// The memory.
    pub region: AnyRegion,
    /// The other domain.
    pub peer: Option<Domid>,
}

/// The domain.
pub struct Domain {
    /// Its number.
    pub domid: Domid,
    /// Its processes.
    pub clients: Clients,
    /// What it knows.
    pub constructs: Constructs,
    /// What bounds the making of constructs.
    pub rules: Rules,
    /// Grants and maps.
    pub port: AnyPort,
    /// Whom memory is made for.
    pub peers: Peers,
    /// The other domains that have had a region of this one.
    pub partners: Partners,
    /// Constructs of which the last attachment here has gone while they were being removed, so
    /// that the back-end has to be told.
    pub vacated: Vec<i32>,
    /// Who waits, in this domain.
    pub waits: WaitMaster,
    /// Doorbells of other domains.
    pub bells: Bells<AnyRegion>,
    /// Processes with undo.
    pub undoers: Undoers,
    /// What is still to be done after deaths.
    pub(super) pending: Vec<Pending>,
    /// Connections whose client is gone.
    pub orphaned: Vec<u64>,
    /// Constructs that the back-end made for requests that were given up on, to be removed.
    pub unwanted: Vec<i32>,
    /// How constructs came to their end.
    pub ended: Ends,
    /// What is counted.
    pub counts: Counts,
    /// Calls in own sets and queues that are no more, and of clients that are gone.
    past_calls: Calls,
    /// The last constructs that were forgotten because their owner domain is gone.
    lost: VecDeque<i32>,
    /// Constructs that are no more, while a client of ours still counts an attachment.
    gone: Vec<i32>,
    /// Constructs that are no more, whose memory is to be freed, and since when.
    buried: Vec<(Known, Instant)>,
}

impl Domain {
    /// A domain without clients or constructs, with the limits of queues `raised`.
    ///
    /// # Errors
    /// What making the directory says.
    pub fn new(port: AnyPort, peers: Peers, run: Run, raised: MsgLimits) -> std::io::Result<Self> {
        let clients = Clients::new(run);
        let domid = port.domid();
        let generation = run.generation;
        let mut directory = DirectoryWriter::create(domid, generation)?;
        directory.tell_limits(&raised);
        Ok(Self {
            domid,
            clients,
            constructs: Constructs::new(directory),
            waits: WaitMaster::create(generation)?,
            bells: Bells::new(),
            undoers: Undoers::default(),
            pending: Vec::new(),
            rules: Rules::open(raised, port.memory()),
            port,
            peers,
            partners: Partners::default(),
            vacated: Vec::new(),
            orphaned: Vec::new(),
            unwanted: Vec::new(),
            ended: Ends::default(),
            counts: Counts::default(),
            past_calls: Calls::default(),
            lost: VecDeque::new(),
            gone: Vec::new(),
            buried: Vec::new(),
        })
    }

    /// From now on this is configured. A queue that is there keeps what it was made with, and all
    /// memory those whom it was made for.
    pub fn configure(&mut self, settings: &Settings) {
        self.constructs.tell_limits(&settings.raised);
        self.rules.raise(settings.raised);
        self.peers.want(settings.peer.clone());
    }

    /// How this domain uses `id`. Clients that have ended do not count, however recently.
    /// `asker` is the process on whose behalf this is, if it is one of the domain.
    pub fn usage(&mut self, id: i32, asker: Option<i32>) -> Usage {
        let Some((slot, meta)) = self.constructs.find(id) else {
            return Usage::default();
        };
        if meta.kind != Kind::Shm as u32 {
            return self.times(id);
        }
        // What is decided by the count of a construct that is being removed is for ever.
        let deciding = (meta.state != State::Live as u32).then_some(asker);
        let file = self.constructs.get(id).and_then(Known::file);
        let mut total = Usage::default();
        let mut dead = Vec::new();
        for (number, client) in self.clients.iter() {
            let mut usage = client.page.usage(slot, id, self.domid);
            if usage.nattch > 0 {
                if !client.lives() {
                    dead.push(number);
                    continue;
                }
                usage.nattch = true_count(client, &usage, file, deciding);
            }
            total.merge(&usage);
        }
        for number in dead {
            self.reap(number);
        }
        if let Some(known) = self.constructs.get(id) {
            total.merge(&known.retained);
            total.resident = known.resident();
        }
        total
    }

    /// Makes the memory of a construct that the back-end made when its request had been given up
    /// on: by now others may have found it by its key.
    fn adopt(&mut self, answer: &LinkMsg) -> bool {
        let meta = &answer.meta;
        let Some(plan) = self.rules.plan_of(meta) else {
            return false;
        };
        let made = self.make_region(&plan);
        let made = made.and_then(|made| self.as_permitted(made, &plan, answer.flags));
        made.is_ok_and(|made| self.enter(meta, &plan, made.region).is_ok())
    }

    /// Makes the memory of a construct, for another domain too where one has to be chosen.
    ///
    /// # Errors
    /// What the port says.
    pub fn make_region(&mut self, plan: &Plan) -> Result<Made, PortError> {
        let peer = match &self.port {
            AnyPort::Host(_) => None,
            AnyPort::Xen(_) => self.peers.choose(),
        };
        self.make_region_for(peer, plan, false)
    }

    fn make_region_for(
        &mut self,
        peer: Option<Domid>,
        plan: &Plan,
        read_only: bool,
    ) -> Result<Made, PortError> {
        let options = RegionOptions {
            peer,
            read_only,
            ..plan.options
        };
        let region = self.port.create(plan.bytes(), options)?;
        Ok(Made { region, peer })
    }

    /// The memory of a construct as the domain that it was made for may have it: what is granted for
    /// writing can be written to by whoever guesses the references. `flags` are those of the answer to
    /// [`LinkOp::Get`].
    ///
    /// # Errors
    /// What the port says.
    pub fn as_permitted(&mut self, made: Made, plan: &Plan, flags: i32) -> Result<Made, PortError> {
        let Some((peer, read_only)) = anew(made.peer, flags) else {
            return Ok(made);
        };
        tracing::debug!(made_for = made.peer, read_only, "memory is made anew");
        made.region.release();
        self.make_region_for(peer, plan, read_only)
    }

    /// Enters a construct that was just made, with its memory; returns its slot.
    ///
    /// # Errors
    /// `ENOSPC` when the directory is full; what mapping a set or queue says.
    pub fn enter(&mut self, meta: &Meta, plan: &Plan, region: AnyRegion) -> Result<u32, Errno> {
        let shared = match &plan.inside {
            Some(inside) => Some(Shared::create(inside, &region, meta.id)?),
            None => None,
        };
        let slot = self.learn(meta)?;
        self.constructs.hold(meta.id, region, shared);
        Ok(slot)
    }

    /// Enters a construct, or what has changed of it; returns its slot.
    ///
    /// # Errors
    /// `ENOSPC` when the directory is full.
    pub fn learn(&mut self, meta: &Meta) -> Result<u32, Errno> {
        self.constructs.learn(meta).ok_or_else(|| {
            tracing::error!(
                id = meta.id,
                "the directory of this domain is full, with {DIR_SLOTS} constructs: remove what is not needed \
                 (vshmem rm --orphans)"
            );
            Errno::NOSPC
        })
    }

    /// Answers a query of the back-end.
    pub fn answer(&mut self, query: &LinkMsg) -> LinkMsg {
        let mut answer = query.answer();
        match LinkOp::from_raw(query.op) {
            Some(LinkOp::Update) => answer.usage = self.changed(&query.meta),
            Some(LinkOp::Count) => {
                answer.usage = self.usage(query.meta.id, None);
                answer.queue = self.queue_use(query.meta.id).unwrap_or_default();
            }
            Some(LinkOp::Grant | LinkOp::Departed | LinkOp::Offer) => {
                // An epoch that is none is of nobody.
                let done = match u8::try_from(query.epoch) {
                    Ok(epoch) => self.answer_about(query, epoch, &mut answer),
                    Err(_) => Err(Errno::INVAL),
                };
                answer.errno = done.err().map_or(0, Errno::raw_os_error);
            }
            _ => answer.errno = libc::ENOSYS,
        }
        answer
    }

    /// Answers a query about domain `query.domid`, which is, or was, in `epoch`.
    fn answer_about(
        &mut self,
        query: &LinkMsg,
        epoch: u8,
        answer: &mut LinkMsg,
    ) -> Result<(), Errno> {
        let (id, domid) = (query.meta.id, query.domid);
        match LinkOp::from_raw(query.op) {
            Some(LinkOp::Departed) => self.departed(id, domid, epoch),
            Some(LinkOp::Offer) => {
                let known = self.constructs.get(id).ok_or(Errno::INVAL)?;
                if !known.needs_bells() {
                    return Err(Errno::INVAL);
                }
                let offered = self.bells.offer_anew(domid, epoch, &mut self.port);
                tell_bell(offered, domid, answer)?;
            }
            _ => {
                let read_only = query.flags == FOR_READING;
                answer.gref = self.grant(id, domid, read_only)?.0;
                self.partners.note(id, domid, epoch);
                let known = self.constructs.get(id).ok_or(Errno::INVAL)?;
                if known.needs_bells() {
                    let offered = self.bells.offer(domid, epoch, &mut self.port);
                    tell_bell(offered, domid, answer)?;
                }
            }
        }
        Ok(())
    }

    fn grant(&mut self, id: i32, to: Domid, read_only: bool) -> Result<GrantRef, Errno> {
        let known = self.constructs.get_mut(id).ok_or(Errno::INVAL)?;
        known.grant(&mut self.port, to, read_only).map_err(|error| {
            if error != PortError::BadArgument {
                tracing::warn!(id, domain = to, %error, "cannot grant a region to a domain");
            }
            error.errno()
        })
    }

    /// Takes over what a query says of a construct that the domain knows; returns how it is used
    /// here, counted after the new state was published.
    pub(super) fn changed(&mut self, meta: &Meta) -> Usage {
        if meta.state == State::Free as u32 {
            let usage = self.usage(meta.id, None);
            self.forget(meta.id);
            usage
        } else {
            self.apply(meta);
            let usage = self.usage(meta.id, None);
            if meta.state == State::Lost as u32 && usage.nattch == 0 {
                self.forget(meta.id);
            }
            usage
        }
    }

    /// Takes over what the back-end says of a construct that the domain knows.
    pub fn apply(&mut self, meta: &Meta) {
        let Some((slot, before)) = self.constructs.find(meta.id) else {
            return;
        };
        match State::from_raw(meta.state) {
            State::Free => self.forget(meta.id),
            State::Lost => {
                if before.state != State::Lost as u32 {
                    self.counts.lost.inc();
                }
                self.bells.give_up_with(meta.owner);
                self.ended.note_silent(meta, seconds());
                self.constructs.update(slot, meta);
                self.end_waits(meta.id);
                self.constructs.let_go(meta.id);
            }
            State::Live | State::Dest => {
                if meta.state == State::Dest as u32 {
                    self.ended.note_silent(&before, seconds());
                }
                self.constructs.update(slot, meta);
                let whose = |meta: &Meta| (meta.uid, meta.gid, meta.mode);
                if whose(&before) != whose(meta) {
                    self.look_again(meta.id);
                }
            }
        }
    }

    /// Forgets a construct that is no more. One that a client still counts keeps its slot until
    /// it does not; it is not found any more from now on.
    pub fn forget(&mut self, id: i32) {
        let Some((slot, meta)) = self.constructs.find(id) else {
            return;
        };
        self.ended.note_silent(&meta, seconds());
        if meta.state == State::Lost as u32 {
            self.lost.truncate(LOST - 1);
            self.lost.push_front(id);
        }
        if self.clients.holders(slot, id).any(|(_, c)| c.lives()) {
            if meta.state != State::Free as u32 {
                let free = Meta {
                    state: State::Free as u32,
                    key: IPC_PRIVATE,
                    ..meta
                };
                self.constructs.update(slot, &free);
                self.end_waits(id);
                self.gone.push(id);
            }
        } else {
            self.remove(id);
        }
    }

    /// Takes out a construct of which nothing is in use here.
    fn remove(&mut self, id: i32) {
        let owner = self.constructs.find(id).map(|(_, meta)| meta.owner);
        if let Some(known) = self.constructs.remove(id) {
            if owner == Some(self.domid) {
                self.past_calls = self.past_calls.and(known.calls());
            }
            self.end_waits_on(id, &known);
            self.undoers.forget_set(id);
            self.clients.forget(id);
            self.buried.push((known, Instant::now()));
        }
    }

    /// Calls in shared memory that this domain knows of: `shmat` of its processes, and what programs of any
    /// domain have done in its sets and queues.
    pub fn calls(&self) -> Calls {
        let clients = self.clients.iter().map(|(_, client)| client.calls());
        let own = self.constructs.own(self.domid).map(Known::calls);
        clients.chain(own).fold(self.past_calls, Calls::and)
    }

    /// Whether `id` was forgotten because its owner domain is gone.
    pub fn was_lost(&self, id: i32) -> bool {
        self.lost.contains(&id)
    }
}

/// For whom memory that was made for `peer` to write to has to be made anew, and whether for reading only, when
/// the policy says `flags` of that domain; `None`: it can stay.
fn anew(peer: Option<Domid>, flags: i32) -> Option<(Option<Domid>, bool)> {
    match (peer, flags) {
        (Some(peer), FOR_READING) => Some((Some(peer), true)),
        (Some(_), FOR_NOBODY) => Some((None, false)),
        _ => None,
    }
}

/// Puts the numbers of a doorbell into an answer.
fn tell_bell(
    offered: Result<Numbers, BellError>,
    domid: Domid,
    answer: &mut LinkMsg,
) -> Result<(), Errno> {
    let (gref, channel) = offered.map_err(|error| {
        tracing::warn!(domain = domid, %error, "cannot make a doorbell for a domain");
        error.errno()
    })?;
    answer.bell_gref = gref.0;
    answer.bell_port = channel.0;
    Ok(())
}

/// Whether the construct is there until its last detach.
pub fn is_ending(meta: &Meta) -> bool {
    matches!(State::from_raw(meta.state), State::Dest | State::Lost)
}

/// Attachments that `client`, which says `usage`, has of the segment whose region is `file`.
/// `deciding`: the number decides whether memory is freed, on behalf of that process.
fn true_count(
    client: &Client,
    usage: &Usage,
    file: Option<FileId>,
    deciding: Option<Option<i32>>,
) -> u64 {
    let Some(mapped) = file.and_then(|file| client.mappings(file)) else {
        return usage.nattch;
    };
    let Some(asker) = deciding.filter(|_| mapped == 0) else {
        return mapped;
    };
    // An attachment is counted before it is mapped, so any thread may be about to map it; but not
    // the only one of a process that asks us something.
    if asker.is_some_and(|pid| client.is_process(pid) && maps::is_single_threaded(pid)) {
        0
    } else {
        usage.nattch
    }
}

/// Nanoseconds since the epoch.
pub(super) fn now() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec)
}

/// Seconds since the epoch, of the clock that the kernel stamps sets and queues with: that of time(2), which lags behind the
/// exact one by up to a tick.
pub fn seconds() -> i64 {
    clock_gettime(ClockId::RealtimeCoarse).tv_sec
}

impl Attend for Domain {
    fn query(&mut self, query: &LinkMsg) -> LinkMsg {
        self.answer(query)
    }

    fn late(&mut self, answer: &LinkMsg) {
        let made = answer.op == LinkOp::Get as u32 && answer.errno == 0 && answer.created != 0;
        let meta = &answer.meta;
        if made && (meta.key == IPC_PRIVATE || !self.adopt(answer)) {
            self.unwanted.push(meta.id);
        }
    }

    fn questions(&self) -> Vec<LinkMsg> {
        self.questions()
    }

    fn told(&mut self, question: &LinkMsg, answer: Result<&LinkMsg, Errno>) {
        self.told(question, answer);
    }

    fn ready(&mut self, ready: BTreeMap<Domid, String>) {
        self.peers.are_ready(ready);
    }
}

mod leftovers;
#[cfg(test)]
mod tests;
