// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is asked about message queues alone (`ipc/msg.c`).

use crate::front::requests::{Asker, Service};
use rustix::io::Errno;
use vshmem_abi::Kind;
use vshmem_abi::wire::{Meta, QueueUse};

impl Service {
    /// What is in a queue, as its region tells, which is mapped for that.
    pub fn queue_use(&mut self, meta: &Meta) -> Result<QueueUse, Errno> {
        self.usable(Kind::Msg, meta.id)?;
        self.fetch_region(meta)?;
        self.domain.queue_use(meta.id).ok_or(Errno::IDRM)
    }

    /// Whether the caller may set `msg_qbytes` to this (`msgctl_down`).
    pub fn may_limit(&self, qbytes: u64, from: &Asker<'_>) -> bool {
        qbytes <= self.domain.rules.msgmnb() || from.caller.may_raise_limits()
    }
}
