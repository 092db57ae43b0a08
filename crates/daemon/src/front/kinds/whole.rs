// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is asked about semaphore sets and message queues alike. All that matters is in the region,
//! which clients work on themselves; a set or queue is gone as soon as it is removed.

use crate::front::answer::{Answer, Answered};
use crate::front::requests::{Asker, Service};
use rustix::io::Errno;
use vshmem_abi::Kind;
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::perm::{READ, WRITE, may_control};
use vshmem_abi::wire::Meta;

impl Service {
    /// The whole region, for who may do anything at all with the construct.
    pub fn open_whole(&mut self, kind: Kind, id: i32, from: &Asker<'_>) -> Answered {
        let (slot, meta) = self.usable(kind, id)?;
        may_use(&meta, from)?;
        self.fetch_region(&meta)?;
        let answer = self.opened(slot, meta)?;
        if let Some(client) = self.domain.clients.get_mut(from.client) {
            client.opens(id);
        }
        Ok(answer)
    }

    /// `IPC_RMID` of a construct that is gone at once in all domains.
    pub fn remove_whole(&mut self, kind: Kind, id: i32, from: &Asker<'_>) -> Answered {
        let (_, meta) = self.usable(kind, id)?;
        if !may_control(&meta, from.caller.uid) {
            return Err(Errno::PERM);
        }
        match self.ask_about(LinkOp::Remove, meta) {
            Ok(_) => {
                self.domain.note_removal(&meta, from);
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

    /// What other domains say of the use of a construct; nothing if the back-end cannot be asked.
    pub fn ask_use(&mut self, meta: &Meta) -> Result<LinkMsg, Errno> {
        match self.ask_about(LinkOp::Usage, *meta) {
            Err(Errno::NODEV) => Ok(LinkMsg::default()),
            Err(Errno::INVAL) => {
                self.domain.forget(meta.id);
                Err(Errno::INVAL)
            }
            answer => answer,
        }
    }

    /// Clears away what the dead have left in the construct; also the lock, if the token of its holder
    /// is one that nobody has.
    pub fn settle_whole(&mut self, kind: Kind, id: i32) -> Answered {
        self.usable(kind, id)?;
        if let Some(holder) = self.domain.foreign_holder(id) {
            let (domid, epoch) = (holder.domid(), holder.epoch());
            let wanted = LinkMsg {
                domid,
                epoch: epoch.into(),
                ..LinkMsg::new(LinkOp::Enrolled)
            };
            if self.ask(&wanted) == Err(Errno::NOENT) {
                tracing::warn!(id, domid, epoch, "a lock is held by a domain that is none");
                self.domain.departed(id, domid, epoch);
            }
        }
        self.domain.settle(id);
        Ok(Answer::ok())
    }
}

/// Whether the caller may do anything at all with the construct.
pub fn may_use(meta: &Meta, from: &Asker<'_>) -> Result<(), Errno> {
    if from.may_access(meta, READ) || from.may_access(meta, WRITE) {
        Ok(())
    } else {
        Err(Errno::ACCESS)
    }
}
