// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is asked about segments alone (`ipc/shm.c`): they live until their last detach, in whatever
//! domain, and can be opened for reading only.

use crate::front::answer::{Answer, Answered, Passed};
use crate::front::domain::is_ending;
use crate::front::maps::FileId;
use crate::front::requests::{Asker, Service};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use vshmem_abi::ids::IPC_PRIVATE;
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::perm::{WRITE, may_control};
use vshmem_abi::wire::{MODE_LOCKED, Meta, Request, State, Usage};
use vshmem_abi::{Kind, pages};
use vshmem_engine::mapping::How;

/// The same file as `fd` for reading only; `None` for a device, of which another opening is another thing.
fn read_only(fd: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
    if FileId::of(fd).is_none() {
        return Ok(None);
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map(Some)
}

impl Service {
    /// Tells the back-end of constructs that are being removed and have lost their last
    /// attachment here.
    pub fn tell_vacated(&mut self) {
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

    pub fn open_segment(&mut self, id: i32, wanted: u32, from: &Asker<'_>) -> Answered {
        let (slot, meta) = self.usable(Kind::Shm, id)?;
        if !from.may_access(&meta, wanted) {
            return Err(Errno::ACCESS);
        }
        self.fetch_region(&meta)?;
        let mut answer = self.opened(slot, meta)?;
        let known = self.domain.constructs.get(id).ok_or(Errno::IDRM)?;
        if known.is_read_only() {
            if wanted & WRITE != 0 {
                self.log_read_only(&meta, from);
                return Err(Errno::ACCESS);
            }
            return Ok(answer);
        }
        let source = known.source().ok_or(Errno::IDRM)?;
        if wanted & WRITE == 0 && source.how == How::Direct {
            match read_only(source.fd)? {
                Some(fd) => answer.fds = vec![Passed::Own(fd)],
                // There is one descriptor, by which it can be written to.
                None if from.may_access(&meta, wanted | WRITE) => {}
                None if from.may_open(source.fd) => {}
                None => {
                    tracing::warn!(
                        id,
                        uid = from.caller.uid,
                        pid = from.caller.pid,
                        "a process may read the segment but not write to it, and memory of Xen cannot be handed out \
                         for reading only: give it write permission, or put it into the group of /dev/xen/gntalloc"
                    );
                    return Err(Errno::ACCESS);
                }
            }
        }
        Ok(answer)
    }

    fn log_read_only(&mut self, meta: &Meta, from: &Asker<'_>) {
        if let Some(more) = self.read_only.speak() {
            tracing::warn!(
                id = meta.id,
                owner = meta.owner,
                pid = from.caller.pid,
                more,
                "a process wants to attach a segment for writing that this domain may only read, by the \
                 policy of the back-end: it is to attach it with SHM_RDONLY, or the policy to be changed \
                 (and the segment made again)"
            );
        }
    }

    pub fn confirm(&mut self, id: i32) -> Answered {
        // What we last heard may be overtaken: another domain may have detached meanwhile, and
        // the back-end have decided while our count was still 0.
        let meta = match self.refresh(LinkOp::Find, id) {
            Err(Errno::NODEV) => self.known(Kind::Shm, id)?.1,
            other => other?,
        };
        match State::from_raw(meta.state) {
            _ if meta.kind != Kind::Shm as u32 => Err(Errno::INVAL),
            State::Live | State::Dest => Ok(Answer::ok()),
            State::Lost => Err(Errno::IDRM),
            State::Free => Err(Errno::INVAL),
        }
    }

    pub fn detached(&mut self, id: i32, from: &Asker<'_>) -> Answered {
        // The detach itself is done, whatever the back-end says.
        let _ = self.vacate_if_unused(id, Some(from.caller.pid));
        Ok(Answer::ok())
    }

    /// How all domains use a construct. One that is being removed and that nobody uses any more
    /// is found to be gone.
    pub fn usage_everywhere(&mut self, meta: &Meta, from: &Asker<'_>) -> Result<Usage, Errno> {
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

    pub fn lock(&mut self, request: &Request, from: &Asker<'_>) -> Answered {
        let (_, meta) = self.usable(Kind::Shm, request.id)?;
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

    pub fn remove_segment(&mut self, id: i32, from: &Asker<'_>) -> Answered {
        let (slot, meta) = self.usable(Kind::Shm, id)?;
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
                self.domain.note_removal(&meta, from);
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
