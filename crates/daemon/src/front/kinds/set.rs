// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is asked about semaphore sets alone (`ipc/sem.c`).

use super::whole::may_use;
use crate::front::answer::{Answer, Answered};
use crate::front::requests::{Asker, Service};
use rustix::io::Errno;
use vshmem_abi::Kind;
use vshmem_abi::wire::{Meta, Undoer, Usage};

impl Service {
    /// The times that the region tells: of our own mapping, or else of its owner's.
    pub fn times(&mut self, meta: &Meta) -> Result<Usage, Errno> {
        let known = self.domain.constructs.get(meta.id);
        if known.is_some_and(|known| known.set().is_some()) {
            return Ok(self.domain.times(meta.id));
        }
        self.ask_use(meta).map(|answer| answer.usage)
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
}
