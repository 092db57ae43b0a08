// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is asked about message queues alone (`ipc/msg.c`).

use crate::front::requests::{Asker, Service};
use rustix::io::Errno;
use vshmem_abi::wire::{Meta, QueueUse};

impl Service {
    /// What is in a queue: of our own mapping, or else of its owner's.
    pub fn queue_use(&mut self, meta: &Meta) -> Result<QueueUse, Errno> {
        if let Some(queue) = self.domain.queue_use(meta.id) {
            return Ok(queue);
        }
        self.ask_use(meta).map(|answer| answer.queue)
    }

    /// Whether the caller may set `msg_qbytes` to this (`msgctl_down`).
    pub fn may_limit(&self, qbytes: u64, from: &Asker<'_>) -> bool {
        qbytes <= self.domain.rules.msgmnb() || from.caller.may_raise_limits()
    }
}
