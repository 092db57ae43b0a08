// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is asked about semaphore sets alone (`ipc/sem.c`). All that matters is in the region, which
//! clients work on themselves; a set is gone as soon as it is removed.

use crate::front::answer::{Answer, Answered, Passed};
use crate::front::requests::{Asker, Service};
use rustix::io::Errno;
use vshmem_abi::Kind;
use vshmem_abi::link::LinkOp;
use vshmem_abi::perm::{READ, WRITE, may_control};
use vshmem_abi::wire::{Meta, Undoer, Usage};
use vshmem_engine::set::SetMap;
use vshmem_gnt::Region;
use vshmem_gnt::host::HostRegion;

/// Maps the region of a set that another domain has granted.
///
/// # Errors
/// `EIDRM` when there is no set in it: its owner has given it back meanwhile. Else what `mmap` says.
pub fn map_set(meta: &Meta, region: &HostRegion) -> Result<SetMap, Errno> {
    SetMap::map(region.fd()).map_err(|errno| {
        tracing::warn!(id = meta.id, owner = meta.owner, %errno, "cannot map a set");
        match errno {
            Errno::PROTO => Errno::IDRM,
            errno => errno,
        }
    })
}

impl Service {
    /// The whole region, for who may do anything at all with the construct.
    pub fn open_whole(&mut self, kind: Kind, id: i32, from: &Asker<'_>) -> Answered {
        let (slot, meta) = self.usable(kind, id)?;
        may_use(&meta, from)?;
        self.fetch_region(&meta)?;
        Ok(Answer::with(id, slot, &meta).and(Passed::Region(id)))
    }

    /// `IPC_RMID` of a construct that is gone at once in all domains.
    pub fn remove_whole(&mut self, kind: Kind, id: i32, from: &Asker<'_>) -> Answered {
        let (_, meta) = self.usable(kind, id)?;
        if !may_control(&meta, from.caller.uid) {
            return Err(Errno::PERM);
        }
        match self.ask_about(LinkOp::Remove, meta) {
            Ok(_) => {
                self.domain.forget(id);
                Ok(Answer::ok())
            }
            Err(Errno::INVAL) => {
                self.domain.forget(id);
                Err(Errno::INVAL)
            }
            Err(errno) => Err(errno),
        }
    }

    /// The times that the region tells: of our own mapping, or else of its owner's.
    pub fn times(&mut self, meta: &Meta) -> Result<Usage, Errno> {
        let known = self.domain.constructs.get(meta.id);
        if known.is_some_and(|known| known.set().is_some()) {
            return Ok(self.domain.times(meta.id));
        }
        match self.ask_about(LinkOp::Usage, *meta) {
            Ok(answer) => Ok(answer.usage),
            Err(Errno::NODEV) => Ok(Usage::default()),
            Err(errno) => {
                if errno == Errno::INVAL {
                    self.domain.forget(meta.id);
                }
                Err(errno)
            }
        }
    }

    /// From now on what the client's process would undo of the set is undone at its end.
    pub fn undo(&mut self, id: i32, from: &Asker<'_>) -> Answered {
        let (slot, meta) = self.usable(Kind::Sem, id)?;
        may_use(&meta, from)?;
        self.fetch_region(&meta)?;
        let token = self.domain.remember_undo(from.client, id)?;
        let undoer = Undoer { token: token.raw() };
        Ok(Answer::with(id, slot, &undoer))
    }

    /// Clears away what the dead have left in the set.
    pub fn settle_set(&mut self, id: i32) -> Answered {
        self.usable(Kind::Sem, id)?;
        self.domain.settle(id);
        Ok(Answer::ok())
    }
}

fn may_use(meta: &Meta, from: &Asker<'_>) -> Result<(), Errno> {
    if from.may_access(meta, READ) || from.may_access(meta, WRITE) {
        Ok(())
    } else {
        Err(Errno::ACCESS)
    }
}
