// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients ask about constructs: one function for each operation, with the results and
//! errors of the kernel's `ipc/util.c` and its like, checks in their order. What differs between
//! the kinds is in [`super::kinds`].

use super::answer::{Answer, Answered, Passed};
use super::creation::{Candidates, Plan};
use super::creds::Caller;
use super::domain::{Domain, Made, seconds};
use super::link::Link;
use super::shared::Shared;
use crate::throttle::Throttle;
use rustix::fs::fstat;
use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use vshmem_abi::Kind;
use vshmem_abi::ids::{IPC_PRIVATE, may_be_routed};
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::perm::{READ, may_control};
use vshmem_abi::wire::{
    Meta, Op, Opened, QueueStat, QueueUse, REGION_NO_FUTEX, Request, STAT_ANY, STAT_INDEX, Stat,
    State,
};
use vshmem_gnt::{GrantRef, Port, PortError, Region};

const CREAT: i32 = libc::IPC_CREAT;
const EXCLUSIVE: i32 = libc::IPC_CREAT | libc::IPC_EXCL;
/// The permission bits of a mode.
const PERMISSIONS: u32 = 0o777;

/// How often new ids are offered to the back-end that finds all of them taken.
const DRAWS: usize = 16;

/// Who asks, and over which connection, where it tells more of the caller.
pub struct Asker<'a> {
    /// The caller.
    pub caller: &'a Caller,
    /// Its connection, if it was the client that opened it.
    pub opened: Option<BorrowedFd<'a>>,
    /// Pid of the client as it sees itself.
    pub own_pid: i32,
    /// The client, by the number of its connection; 0: it is none.
    pub client: u64,
}

impl Asker<'_> {
    /// Whether it may access a construct in the ways that `wanted` names.
    pub fn may_access(&self, meta: &Meta, wanted: u32) -> bool {
        self.caller.may_access(meta, wanted, self.opened)
    }

    /// Whether the mode of the file `fd` lets it open that for reading and writing.
    pub fn may_open(&self, fd: BorrowedFd<'_>) -> bool {
        let Ok(stat) = fstat(fd) else {
            return false;
        };
        let bits = if self.caller.uid == 0 {
            return true;
        } else if self.caller.uid == stat.st_uid {
            stat.st_mode >> 6
        } else if self.caller.in_group(stat.st_gid, self.opened) {
            stat.st_mode >> 3
        } else {
            stat.st_mode
        };
        bits & 0o6 == 0o6
    }
}

/// What answers requests about constructs.
pub struct Service {
    /// The domain.
    pub domain: Domain,
    /// The back-end.
    pub link: Link,
    candidates: Candidates,
    pub(super) read_only: Throttle,
    no_region: Throttle,
}

impl Service {
    /// Over what a domain has and its connection to the back-end.
    pub fn new(domain: Domain, link: Link) -> Self {
        Self {
            domain,
            link,
            candidates: Candidates::draw(),
            read_only: Throttle::default(),
            no_region: Throttle::default(),
        }
    }

    /// Answers a request about constructs of `kind`.
    pub fn answer(&mut self, op: Op, kind: Kind, request: &Request, from: &Asker<'_>) -> Answered {
        let id = request.id;
        match (op, kind) {
            (Op::Get, _) => self.get(kind, request, from),
            (Op::Find, _) => self.find(kind, id),
            (Op::Stat, _) => self.stat(kind, request, from),
            (Op::Set, _) => self.set(kind, request, from),
            (Op::Info, _) => Ok(self.info(kind)),
            (Op::Next, _) => self.next(kind, request.arg, from),
            (Op::Open, Kind::Shm) => {
                self.open_segment(id, request.flags as u32 & PERMISSIONS, from)
            }
            (Op::Remove, Kind::Shm) => self.remove_segment(id, from),
            (Op::Confirm, Kind::Shm) => self.confirm(id),
            (Op::Detached, Kind::Shm) => self.detached(id, from),
            (Op::Lock, Kind::Shm) => self.lock(request, from),
            (Op::Open, _) => self.open_whole(kind, id, from),
            (Op::Remove, _) => self.remove_whole(kind, id, from),
            (Op::Undo, Kind::Sem) => self.undo(id, from),
            (Op::Settle, Kind::Sem | Kind::Msg) => self.settle_whole(kind, id),
            (Op::Bell, Kind::Sem | Kind::Msg) => self.bell(kind, request, from),
            (Op::Confirm | Op::Detached | Op::Lock | Op::Undo | Op::Settle | Op::Bell, _) => {
                Err(Errno::INVAL)
            }
            (Op::Hello | Op::Fork | Op::Shutdown | Op::Report, _) => Err(Errno::PROTO),
        }
    }

    // The back-end.

    pub(super) fn ask(&mut self, message: &LinkMsg) -> Result<LinkMsg, Errno> {
        let (answer, _) = self.link.call(message, &mut self.domain)?;
        Ok(answer)
    }

    pub(super) fn ask_about(&mut self, op: LinkOp, meta: Meta) -> Result<LinkMsg, Errno> {
        self.ask(&LinkMsg::about(op, meta))
    }

    /// Answers what the back-end has asked while nothing of ours was under way.
    pub fn answer_back_end(&mut self) {
        self.link.attend(&mut self.domain);
    }

    /// Does what could wait until the client had its answer.
    pub fn settle(&mut self) {
        // What the link has taken in without being told to look.
        if self.link.holds_more() {
            self.answer_back_end();
        }
        self.tell_vacated();
        while let Some(id) = self.domain.unwanted.pop() {
            let meta = Meta {
                id,
                ..Meta::default()
            };
            // Whatever comes of it: nobody has the id.
            let _ = self.ask_about(LinkOp::Remove, meta);
        }
        self.ring_missing();
        self.domain.bury();
        self.candidates.refill();
    }

    /// Asks the back-end about `id` and takes over what it says.
    ///
    /// # Errors
    /// `EINVAL` when there is no such construct (any more), `ENODEV`.
    pub(super) fn refresh(&mut self, op: LinkOp, id: i32) -> Result<Meta, Errno> {
        let meta = Meta {
            id,
            ..Meta::default()
        };
        match self.ask_about(op, meta) {
            Ok(answer) if answer.meta.id == id => {
                self.domain.apply(&answer.meta);
                if answer.meta.state == State::Free as u32 {
                    return Err(Errno::INVAL);
                }
                Ok(answer.meta)
            }
            Ok(_) | Err(Errno::INVAL) => {
                self.domain.forget(id);
                Err(Errno::INVAL)
            }
            Err(errno) => Err(errno),
        }
    }

    // Looking up.

    /// The construct `id`, which the domain gets to know if it does not.
    ///
    /// # Errors
    /// `EINVAL` when there is none of this kind; `EIDRM` when its owner domain went; `ENOSPC` when
    /// the directory is full; `ENODEV` when the domain does not know it and the back-end cannot be
    /// asked.
    pub(super) fn known(&mut self, kind: Kind, id: i32) -> Result<(u32, Meta), Errno> {
        let (slot, meta) = match self.domain.constructs.find(id) {
            Some((_, meta)) if meta.state == State::Free as u32 => return Err(Errno::INVAL),
            Some(found) => found,
            None if !may_be_routed(id) => return Err(Errno::INVAL),
            None if self.domain.was_lost(id) => return Err(Errno::IDRM),
            None => {
                let meta = self.refresh(LinkOp::Find, id)?;
                (self.domain.learn(&meta)?, meta)
            }
        };
        if meta.kind != kind as u32 {
            return Err(Errno::INVAL);
        }
        Ok((slot, meta))
    }

    /// As [`Self::known`], but `EIDRM` for one whose owner domain is gone.
    pub(super) fn usable(&mut self, kind: Kind, id: i32) -> Result<(u32, Meta), Errno> {
        let found = self.known(kind, id)?;
        if found.1.state == State::Lost as u32 {
            return Err(Errno::IDRM);
        }
        Ok(found)
    }

    // The operations.

    fn get(&mut self, kind: Kind, request: &Request, from: &Asker<'_>) -> Answered {
        let (key, flags, size) = (request.key, request.flags, request.size);
        self.domain.rules.check_call(kind, size)?;
        if key != IPC_PRIVATE
            && let Some((slot, meta)) = self.domain.constructs.find_key(kind, key)
        {
            return existing(slot, &meta, flags, size, from);
        }
        let made = match flags & CREAT {
            0 if key != IPC_PRIVATE => Err(Errno::NOENT),
            _ => self.make_region(kind, size, flags, from),
        };
        match made {
            Ok((plan, made)) => self.create(kind, request, &plan, made, from),
            Err(why) if key == IPC_PRIVATE => Err(why),
            // Another domain may have the key all the same.
            Err(why) => match self.get_elsewhere(kind, key) {
                Ok(meta) => existing(self.domain.learn(&meta)?, &meta, flags, size, from),
                Err(Errno::NOENT) => Err(why),
                Err(errno) => Err(errno),
            },
        }
    }

    /// The construct that `key` names in the back-end's books.
    fn get_elsewhere(&mut self, kind: Kind, key: i32) -> Result<Meta, Errno> {
        let meta = Meta {
            kind: kind as u32,
            key,
            ..Meta::default()
        };
        Ok(self.ask_about(LinkOp::Get, meta)?.meta)
    }

    fn make_region(
        &mut self,
        kind: Kind,
        size: u64,
        flags: i32,
        from: &Asker<'_>,
    ) -> Result<(Plan, Made), Errno> {
        let plan = self.domain.rules.check(kind, size, flags, from.caller)?;
        let made = self.domain.make_region(&plan);
        made.map(|made| (plan, made))
            .map_err(|error| not_made(kind, size, from, error))
    }

    fn create(
        &mut self,
        kind: Kind,
        request: &Request,
        plan: &Plan,
        made: Made,
        from: &Asker<'_>,
    ) -> Answered {
        let (uid, gid) = (from.caller.uid, from.caller.gid);
        let meta = Meta {
            kind: kind as u32,
            key: request.key,
            state: State::Live as u32,
            uid,
            gid,
            cuid: uid,
            cgid: gid,
            mode: request.flags as u32 & PERMISSIONS,
            owner: self.domain.domid,
            size: plan.size,
            ctime: seconds(),
            cpid: from.own_pid,
            huge_shift: plan.options.huge_shift,
            ..Meta::default()
        };
        for _ in 0..DRAWS {
            let wanted = LinkMsg {
                flags: request.flags & EXCLUSIVE,
                ids: self.candidates.ids(),
                domid: made.peer.unwrap_or(0),
                ..LinkMsg::about(LinkOp::Get, meta)
            };
            let answer = match self.ask(&wanted) {
                Err(Errno::AGAIN) => {
                    self.candidates.used_all();
                    self.candidates.refill();
                    continue;
                }
                answer => answer?,
            };
            let meta = answer.meta;
            if answer.created == 0 {
                let slot = self.domain.learn(&meta)?;
                return existing(slot, &meta, request.flags, request.size, from);
            }
            self.candidates.used(meta.id);
            let permitted = self.domain.as_permitted(made, plan, answer.flags);
            let entered = permitted
                .map_err(|error| not_made(kind, plan.size, from, error))
                .and_then(|made| self.domain.enter(&meta, plan, made.region));
            return match entered {
                Ok(slot) => {
                    let answer = Answer::with(meta.id, slot, &meta);
                    // Only a file can be mapped without being told how.
                    let known = self.domain.constructs.get(meta.id);
                    let is_file = known.is_some_and(|known| known.file().is_some());
                    Ok(match kind {
                        Kind::Shm if is_file => answer.and(Passed::Region(meta.id)),
                        Kind::Shm | Kind::Sem | Kind::Msg => answer,
                    })
                }
                Err(errno) => {
                    // Nobody has it yet, so it is gone at once.
                    self.ask_about(LinkOp::Remove, meta)?;
                    self.domain.forget(meta.id);
                    Err(errno)
                }
            };
        }
        tracing::error!("the back-end found no free id in {DRAWS} draws");
        Err(Errno::NOSPC)
    }

    fn find(&mut self, kind: Kind, id: i32) -> Answered {
        let (slot, meta) = self.known(kind, id)?;
        Ok(Answer::with(id, slot, &meta))
    }

    /// Makes sure that the region of a construct is at hand, mapping it if it is another domain's.
    pub(super) fn fetch_region(&mut self, meta: &Meta) -> Result<(), Errno> {
        let known = self.domain.constructs.get(meta.id);
        if known.is_some_and(|known| known.fd().is_some()) {
            return Ok(());
        }
        let place = self.ask_about(LinkOp::Locate, *meta);
        let no_region = &mut self.no_region;
        let place = place.inspect_err(|errno| {
            if [Errno::NOSPC, Errno::ACCESS].contains(errno)
                && let Some(more) = no_region.speak()
            {
                tracing::warn!(
                    id = meta.id,
                    owner = meta.owner,
                    %errno, more,
                    "this domain does not get the memory of a construct; the log of the owner's vshmemd, or \
                     of the back-end, says why, and what to do about it"
                );
            }
        })?;
        let mapped = self.domain.port.map(place.domid, GrantRef(place.gref));
        let region = mapped.map_err(|error| {
            tracing::warn!(
                id = meta.id, owner = place.domid, %error,
                "the memory of a construct of another domain cannot be mapped here"
            );
            error.errno()
        })?;
        let shared = Shared::map(meta, &region)?;
        if shared.is_some() && !region.has_futexes() {
            self.take_up_bell(meta, &place)?;
        }
        self.domain.constructs.hold(meta.id, region, shared);
        Ok(())
    }

    /// The answer to [`Op::Open`] with the region, which is at hand, for all that this domain may do.
    pub(super) fn opened(&self, slot: u32, meta: Meta) -> Answered {
        let known = self.domain.constructs.get(meta.id);
        let known = known.ok_or(Errno::IDRM)?;
        let source = known.source().ok_or(Errno::IDRM)?;
        let futexes = if known.has_futexes() {
            0
        } else {
            REGION_NO_FUTEX
        };
        let bytes = source.len;
        let value = source.how as i32 | futexes;
        Ok(Answer::with(value, slot, &Opened { meta, bytes }).and(Passed::Region(meta.id)))
    }

    fn stat(&mut self, kind: Kind, request: &Request, from: &Asker<'_>) -> Answered {
        let (slot, meta) = if request.flags & STAT_INDEX != 0 {
            let meta = self.by_index(kind, request.id as u32, true)?;
            let known = self.domain.constructs.find(meta.id);
            (known.map_or(0, |(slot, _)| slot), meta)
        } else {
            self.usable(kind, request.id)?
        };
        if request.flags & STAT_ANY == 0 && !from.may_access(&meta, READ) {
            return Err(Errno::ACCESS);
        }
        self.stat_of(kind, slot, meta, from)
    }

    /// A construct and its use, as the reply's body has them of its kind.
    fn stat_of(&mut self, kind: Kind, slot: u32, meta: Meta, from: &Asker<'_>) -> Answered {
        let usage = match kind {
            Kind::Shm => self.usage_everywhere(&meta, from)?,
            Kind::Sem => self.times(&meta)?,
            Kind::Msg => {
                let queue = self.queue_use(&meta)?;
                return Ok(Answer::with(meta.id, slot, &QueueStat { meta, queue }));
            }
        };
        Ok(Answer::with(meta.id, slot, &Stat { meta, usage }))
    }

    /// The same where the use cannot be had: what we ourselves have of it is all there is to say.
    fn stat_at_hand(&mut self, kind: Kind, meta: Meta) -> Answer {
        match kind {
            Kind::Msg => {
                let queue = QueueUse::default();
                Answer::with(meta.id, 0, &QueueStat { meta, queue })
            }
            Kind::Shm | Kind::Sem => {
                let usage = self.domain.usage(meta.id, None);
                Answer::with(meta.id, 0, &Stat { meta, usage })
            }
        }
    }

    /// The construct of `kind` with this index or, unless `exactly`, the next one.
    fn by_index(&mut self, kind: Kind, index: u32, exactly: bool) -> Result<Meta, Errno> {
        let meta = Meta {
            kind: kind as u32,
            index,
            ..Meta::default()
        };
        let wanted = LinkMsg {
            flags: exactly.into(),
            ..LinkMsg::about(LinkOp::Next, meta)
        };
        match self.ask(&wanted) {
            Ok(answer) => Ok(answer.meta),
            Err(Errno::NOENT) if exactly => Err(Errno::INVAL),
            Err(errno) => Err(errno),
        }
    }

    fn next(&mut self, kind: Kind, after: u32, from: &Asker<'_>) -> Answered {
        let mut index = after.wrapping_add(1);
        loop {
            let meta = self.by_index(kind, index, false)?;
            return match self.stat_of(kind, 0, meta, from) {
                // Gone since the back-end named it.
                Err(Errno::INVAL) => {
                    index = meta.index.checked_add(1).ok_or(Errno::NOENT)?;
                    continue;
                }
                // Its owner domain is gone.
                Err(Errno::IDRM) => Ok(self.stat_at_hand(kind, meta)),
                answered => answered,
            };
        }
    }

    fn info(&mut self, kind: Kind) -> Answer {
        let meta = Meta {
            kind: kind as u32,
            ..Meta::default()
        };
        let totals = match self.ask_about(LinkOp::Totals, meta) {
            Ok(answer) => answer.totals,
            Err(_) => self.domain.constructs.totals(kind),
        };
        Answer::with(0, 0, &totals)
    }

    fn set(&mut self, kind: Kind, request: &Request, from: &Asker<'_>) -> Answered {
        let (_, meta) = self.usable(kind, request.id)?;
        if !may_control(&meta, from.caller.uid) {
            return Err(Errno::PERM);
        }
        if kind == Kind::Msg && !self.may_limit(request.size, from) {
            return Err(Errno::PERM);
        }
        if request.uid == u32::MAX || request.gid == u32::MAX {
            return Err(Errno::INVAL);
        }
        if kind == Kind::Msg {
            self.fetch_region(&meta)?;
        }
        let changed = Meta {
            uid: request.uid,
            gid: request.gid,
            mode: meta.mode & !PERMISSIONS | request.mode & PERMISSIONS,
            ctime: seconds(),
            ..meta
        };
        let answer = self.change(changed, 0)?;
        if kind == Kind::Msg {
            self.domain.set_limit(meta.id, request.size);
        }
        Ok(answer)
    }

    /// Has the back-end set what differs in `changed`; `flags` as [`LinkOp::Set`] has them.
    pub(super) fn change(&mut self, changed: Meta, flags: i32) -> Answered {
        let wanted = LinkMsg {
            flags,
            ..LinkMsg::about(LinkOp::Set, changed)
        };
        let answer = self.ask(&wanted)?;
        self.domain.apply(&answer.meta);
        Ok(Answer::ok())
    }
}

/// The errno for memory that cannot be made.
fn not_made(kind: Kind, size: u64, from: &Asker<'_>, error: PortError) -> Errno {
    let pid = from.caller.pid;
    tracing::warn!(%kind, size, pid, %error, "the memory that a process wants cannot be made");
    match error.errno() {
        // What the man page has for a kernel that can open no more files.
        Errno::MFILE => Errno::NFILE,
        errno => errno,
    }
}

/// What a get of a key gives that names a construct (`ipcget_public`).
fn existing(slot: u32, meta: &Meta, flags: i32, size: u64, from: &Asker<'_>) -> Answered {
    if flags & EXCLUSIVE == EXCLUSIVE {
        Err(Errno::EXIST)
    } else if size > meta.size {
        Err(Errno::INVAL)
    } else if !from.may_access(meta, flags as u32 & PERMISSIONS) {
        Err(Errno::ACCESS)
    } else {
        Ok(Answer::with(meta.id, slot, meta))
    }
}
