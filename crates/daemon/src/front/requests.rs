// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients ask about constructs: one function for each operation, with the results and
//! errors of the kernel's `ipc/shm.c` and `ipc/util.c`, checks in their order.

use super::answer::{Answer, Answered, Passed};
use super::creation::{Candidates, Plan, Rules, SHM_NORESERVE};
use super::creds::Caller;
use super::domain::{Domain, is_ending};
use super::link::Link;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::{AsRawFd, BorrowedFd};
use vshmem_abi::ids::{IPC_PRIVATE, may_be_routed};
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::perm::{READ, WRITE, may_control};
use vshmem_abi::wire::{MODE_LOCKED, Meta, Op, Request, STAT_ANY, STAT_INDEX, Stat, State, Usage};
use vshmem_abi::{Kind, pages};
use vshmem_gnt::host::HostRegion;
use vshmem_gnt::{GrantRef, Port, RegionOptions};

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
}

impl Asker<'_> {
    fn may_access(&self, meta: &Meta, wanted: u32) -> bool {
        self.caller.may_access(meta, wanted, self.opened)
    }
}

/// What answers requests about constructs.
pub struct Service {
    /// The domain.
    pub domain: Domain,
    /// The back-end.
    pub link: Link,
    rules: Rules,
    candidates: Candidates,
}

impl Service {
    /// Over what a domain has and its connection to the back-end.
    pub fn new(domain: Domain, link: Link) -> Self {
        Self {
            domain,
            link,
            rules: Rules::open(),
            candidates: Candidates::draw(),
        }
    }

    /// Answers a request about constructs of `kind`.
    pub fn answer(&mut self, op: Op, kind: Kind, request: &Request, from: &Asker<'_>) -> Answered {
        if kind != Kind::Shm {
            return Err(Errno::NOSYS);
        }
        let id = request.id;
        match op {
            Op::Get => self.get(request, from),
            Op::Find => self.find(id),
            Op::Open => self.open(id, request.flags as u32 & PERMISSIONS, from),
            Op::Confirm => self.confirm(id),
            Op::Detached => self.detached(id, from),
            Op::Stat => self.stat(request, from),
            Op::Set => self.set(request, from),
            Op::Remove => self.remove(id, from),
            Op::Lock => self.lock(request, from),
            Op::Info => Ok(self.info(kind)),
            Op::Next => self.next(kind, request.arg, from),
            Op::Undo | Op::Settle => Err(Errno::INVAL),
            Op::Hello | Op::Fork | Op::Shutdown => Err(Errno::PROTO),
        }
    }

    // The back-end.

    fn ask(&mut self, message: &LinkMsg) -> Result<LinkMsg, Errno> {
        let (answer, _) = self.link.call(message, &mut self.domain)?;
        Ok(answer)
    }

    fn ask_about(&mut self, op: LinkOp, meta: Meta) -> Result<LinkMsg, Errno> {
        self.ask(&LinkMsg::about(op, meta))
    }

    /// Answers what the back-end has asked while nothing of ours was under way.
    pub fn answer_back_end(&mut self) {
        self.link.attend(&mut self.domain);
    }

    /// Does what could wait until the client had its answer.
    pub fn settle(&mut self) {
        self.tell_vacated();
        while let Some(id) = self.domain.unwanted.pop() {
            let meta = Meta {
                id,
                ..Meta::default()
            };
            // Whatever comes of it: nobody has the id.
            let _ = self.ask_about(LinkOp::Remove, meta);
        }
        self.domain.bury();
        self.candidates.refill();
    }

    /// Tells the back-end of constructs that are being removed and have lost their last
    /// attachment here.
    fn tell_vacated(&mut self) {
        while let Some(id) = self.domain.vacated.pop() {
            let _ = self.vacate_if_unused(id, None);
        }
    }

    /// Gives up this domain's hold on a construct that is being removed and has nothing attached
    /// here. Without a back-end it stays.
    fn vacate_if_unused(&mut self, id: i32, asker: Option<i32>) -> Result<(), Errno> {
        let ending = self
            .domain
            .constructs
            .find(id)
            .is_some_and(|(_, meta)| is_ending(&meta));
        if !ending || self.domain.usage(id, asker).nattch > 0 {
            return Ok(());
        }
        self.refresh(LinkOp::Zero, id).map(|_| ())
    }

    /// Asks the back-end about `id` and takes over what it says.
    ///
    /// # Errors
    /// `EINVAL` when there is no such construct (any more), `ENODEV`.
    fn refresh(&mut self, op: LinkOp, id: i32) -> Result<Meta, Errno> {
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
    /// `EINVAL` when there is none; `EIDRM` when its owner domain went; `ENOSPC` when the directory is full; `ENODEV` when the domain
    /// does not know it and the back-end cannot be asked.
    fn known(&mut self, id: i32) -> Result<(u32, Meta), Errno> {
        match self.domain.constructs.find(id) {
            Some((_, meta)) if meta.state == State::Free as u32 => Err(Errno::INVAL),
            Some(found) => Ok(found),
            None if !may_be_routed(id) => Err(Errno::INVAL),
            None if self.domain.was_lost(id) => Err(Errno::IDRM),
            None => {
                let meta = self.refresh(LinkOp::Find, id)?;
                Ok((self.learn(&meta)?, meta))
            }
        }
    }

    /// As [`Self::known`], but `EIDRM` for one whose owner domain is gone.
    fn usable(&mut self, id: i32) -> Result<(u32, Meta), Errno> {
        let found = self.known(id)?;
        if found.1.state == State::Lost as u32 {
            return Err(Errno::IDRM);
        }
        Ok(found)
    }

    fn learn(&mut self, meta: &Meta) -> Result<u32, Errno> {
        self.domain.constructs.learn(meta).ok_or_else(|| {
            tracing::error!(id = meta.id, "the directory of this domain is full");
            Errno::NOSPC
        })
    }

    // The operations.

    fn get(&mut self, request: &Request, from: &Asker<'_>) -> Answered {
        let (key, flags, size) = (request.key, request.flags, request.size);
        if key != IPC_PRIVATE
            && let Some((slot, meta)) = self.domain.constructs.find_key(Kind::Shm, key)
        {
            return existing(slot, &meta, flags, size, from);
        }
        let made = match flags & CREAT {
            0 if key != IPC_PRIVATE => Err(Errno::NOENT),
            _ => self.make_region(size, flags, from),
        };
        match made {
            Ok((plan, region)) => self.create(request, &plan, region, from),
            Err(why) if key == IPC_PRIVATE => Err(why),
            // Another domain may have the key all the same.
            Err(why) => match self.get_elsewhere(key) {
                Ok(meta) => existing(self.learn(&meta)?, &meta, flags, size, from),
                Err(Errno::NOENT) => Err(why),
                Err(errno) => Err(errno),
            },
        }
    }

    /// The construct that `key` names in the back-end's books.
    fn get_elsewhere(&mut self, key: i32) -> Result<Meta, Errno> {
        let meta = Meta {
            kind: Kind::Shm as u32,
            key,
            ..Meta::default()
        };
        Ok(self.ask_about(LinkOp::Get, meta)?.meta)
    }

    fn make_region(
        &mut self,
        size: u64,
        flags: i32,
        from: &Asker<'_>,
    ) -> Result<(Plan, HostRegion), Errno> {
        let plan = self.rules.check(size, flags, from.caller)?;
        let options = RegionOptions {
            huge_shift: plan.huge_shift,
            reserve: flags & SHM_NORESERVE == 0,
        };
        match self.domain.port.create(plan.size, options) {
            Ok(region) => Ok((plan, region)),
            Err(error) => {
                tracing::warn!(size, %error, "cannot make the memory of a segment");
                Err(match error.errno() {
                    // What the man page has for a kernel that can open no more files.
                    Errno::MFILE => Errno::NFILE,
                    errno => errno,
                })
            }
        }
    }

    fn create(
        &mut self,
        request: &Request,
        plan: &Plan,
        region: HostRegion,
        from: &Asker<'_>,
    ) -> Answered {
        let (uid, gid) = (from.caller.uid, from.caller.gid);
        let meta = Meta {
            kind: Kind::Shm as u32,
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
            huge_shift: plan.huge_shift,
            ..Meta::default()
        };
        for _ in 0..DRAWS {
            let wanted = LinkMsg {
                flags: request.flags & EXCLUSIVE,
                ids: self.candidates.ids(),
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
                let slot = self.learn(&meta)?;
                return existing(slot, &meta, request.flags, request.size, from);
            }
            self.candidates.used(meta.id);
            let slot = match self.learn(&meta) {
                Ok(slot) => slot,
                Err(errno) => {
                    // Nobody has it yet, so it is gone at once.
                    self.ask_about(LinkOp::Remove, meta)?;
                    return Err(errno);
                }
            };
            self.domain.constructs.hold(meta.id, region);
            return Ok(Answer::with(meta.id, slot, &meta).and(Passed::Region(meta.id)));
        }
        tracing::error!("the back-end found no free id in {DRAWS} draws");
        Err(Errno::NOSPC)
    }

    fn find(&mut self, id: i32) -> Answered {
        let (slot, meta) = self.known(id)?;
        Ok(Answer::with(id, slot, &meta))
    }

    fn open(&mut self, id: i32, wanted: u32, from: &Asker<'_>) -> Answered {
        let (slot, meta) = self.usable(id)?;
        if !from.may_access(&meta, wanted) {
            return Err(Errno::ACCESS);
        }
        self.fetch_region(&meta)?;
        let passed = if wanted & WRITE != 0 {
            Passed::Region(id)
        } else {
            let region = self.domain.constructs.get(id).and_then(|known| known.fd());
            let path = format!("/proc/self/fd/{}", region.ok_or(Errno::IDRM)?.as_raw_fd());
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            Passed::Own(rustix::fs::open(path, flags, Mode::empty())?)
        };
        Ok(Answer::with(id, slot, &meta).and(passed))
    }

    /// Makes sure that the region of a construct is at hand, mapping it if it is another domain's.
    fn fetch_region(&mut self, meta: &Meta) -> Result<(), Errno> {
        let known = self.domain.constructs.get(meta.id);
        if known.is_some_and(|known| known.fd().is_some()) {
            return Ok(());
        }
        let place = self.ask_about(LinkOp::Locate, *meta)?;
        let mapped = self.domain.port.map(place.domid, GrantRef(place.gref));
        let region = mapped.map_err(|error| {
            tracing::warn!(id = meta.id, owner = place.domid, %error, "cannot map a segment");
            error.errno()
        })?;
        self.domain.constructs.hold(meta.id, region);
        Ok(())
    }

    fn confirm(&mut self, id: i32) -> Answered {
        // What we last heard may be overtaken: another domain may have detached meanwhile, and
        // the back-end have decided while our count was still 0.
        let meta = match self.refresh(LinkOp::Find, id) {
            Err(Errno::NODEV) => self.known(id)?.1,
            other => other?,
        };
        match State::from_raw(meta.state) {
            State::Live | State::Dest => Ok(Answer::ok()),
            State::Lost => Err(Errno::IDRM),
            State::Free => Err(Errno::INVAL),
        }
    }

    fn detached(&mut self, id: i32, from: &Asker<'_>) -> Answered {
        // The detach itself is done, whatever the back-end says.
        let _ = self.vacate_if_unused(id, Some(from.caller.pid));
        Ok(Answer::ok())
    }

    fn stat(&mut self, request: &Request, from: &Asker<'_>) -> Answered {
        let (slot, meta) = if request.flags & STAT_INDEX != 0 {
            let meta = self.by_index(Kind::Shm, request.id as u32, true)?;
            let known = self.domain.constructs.find(meta.id);
            (known.map_or(0, |(slot, _)| slot), meta)
        } else {
            self.usable(request.id)?
        };
        if request.flags & STAT_ANY == 0 && !from.may_access(&meta, READ) {
            return Err(Errno::ACCESS);
        }
        let usage = self.usage_everywhere(&meta, from)?;
        Ok(Answer::with(meta.id, slot, &Stat { meta, usage }))
    }

    /// How all domains use a construct. One that is being removed and that nobody uses any more
    /// is found to be gone.
    fn usage_everywhere(&mut self, meta: &Meta, from: &Asker<'_>) -> Result<Usage, Errno> {
        let mut usage = self.domain.usage(meta.id, Some(from.caller.pid));
        // Clients that were found dead just now may have had the last attachment.
        self.tell_vacated();
        match self.ask_about(LinkOp::Usage, *meta) {
            Ok(others) => usage.merge(&others.usage),
            Err(Errno::NODEV) => return Ok(usage),
            Err(Errno::INVAL) => {
                self.domain.forget(meta.id);
                return Err(Errno::INVAL);
            }
            Err(errno) => return Err(errno),
        }
        if meta.state == State::Dest as u32 && usage.nattch == 0 {
            self.vacate_if_unused(meta.id, Some(from.caller.pid))?;
        }
        Ok(usage)
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
            let usage = match self.usage_everywhere(&meta, from) {
                Ok(usage) => usage,
                // Gone since the back-end named it.
                Err(Errno::INVAL) => {
                    index = meta.index.checked_add(1).ok_or(Errno::NOENT)?;
                    continue;
                }
                // Its owner domain is gone: what we ourselves have of it is all there is to say.
                Err(Errno::IDRM) => self.domain.usage(meta.id, None),
                Err(errno) => return Err(errno),
            };
            return Ok(Answer::with(meta.id, 0, &Stat { meta, usage }));
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

    fn set(&mut self, request: &Request, from: &Asker<'_>) -> Answered {
        let (_, meta) = self.usable(request.id)?;
        if !may_control(&meta, from.caller.uid) {
            return Err(Errno::PERM);
        }
        if request.uid == u32::MAX || request.gid == u32::MAX {
            return Err(Errno::INVAL);
        }
        let changed = Meta {
            uid: request.uid,
            gid: request.gid,
            mode: meta.mode & !PERMISSIONS | request.mode & PERMISSIONS,
            ctime: seconds(),
            ..meta
        };
        self.change(changed, 0)
    }

    /// Has the back-end set what differs in `changed`; `flags` as [`LinkOp::Set`] has them.
    fn change(&mut self, changed: Meta, flags: i32) -> Answered {
        let wanted = LinkMsg {
            flags,
            ..LinkMsg::about(LinkOp::Set, changed)
        };
        let answer = self.ask(&wanted)?;
        self.domain.apply(&answer.meta);
        Ok(Answer::ok())
    }

    fn lock(&mut self, request: &Request, from: &Asker<'_>) -> Answered {
        let (_, meta) = self.usable(request.id)?;
        let (lock, limit, root) = (request.arg == 1, request.size, from.caller.uid == 0);
        if !root && (!may_control(&meta, from.caller.uid) || lock && limit == 0) {
            return Err(Errno::PERM);
        }
        let locked = meta.mode & MODE_LOCKED != 0;
        if meta.huge_shift != 0 || locked == lock {
            return Ok(Answer::ok());
        }
        let bytes = pages(meta.size)
            .unwrap_or(u64::MAX)
            .saturating_mul(vshmem_abi::PAGE_SIZE);
        if lock && !root && bytes > limit {
            return Err(Errno::NOMEM);
        }
        let changed = Meta {
            mode: meta.mode ^ MODE_LOCKED,
            ..meta
        };
        self.change(changed, 1)
    }

    fn remove(&mut self, id: i32, from: &Asker<'_>) -> Answered {
        let (slot, meta) = self.usable(id)?;
        if !may_control(&meta, from.caller.uid) {
            return Err(Errno::PERM);
        }
        // Published before anything is counted: a client that attaches from now on asks whether
        // the segment still lives.
        let ending = Meta {
            state: State::Dest as u32,
            key: IPC_PRIVATE,
            ..meta
        };
        self.domain.constructs.update(slot, &ending);
        let wanted = LinkMsg {
            usage: self.domain.usage(id, Some(from.caller.pid)),
            ..LinkMsg::about(LinkOp::Remove, meta)
        };
        match self.ask(&wanted) {
            Ok(answer) => {
                self.domain.apply(&answer.meta);
                Ok(Answer::ok())
            }
            Err(Errno::INVAL) => {
                self.domain.forget(id);
                Err(Errno::INVAL)
            }
            Err(errno) => {
                // It was not removed; unless a query has said more of it meanwhile.
                if self.domain.constructs.find(id) == Some((slot, ending)) {
                    self.domain.constructs.update(slot, &meta);
                }
                Err(errno)
            }
        }
    }
}

/// What a get of a key gives that names a segment (`ipcget_public`).
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

/// Seconds since the epoch.
fn seconds() -> i64 {
    clock_gettime(ClockId::Realtime).tv_sec
}
