// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is over: clients that have ended, and constructs that are no more while something of theirs is
//! still in use.

use super::{Client, Domain, Known, is_ending, now};
use crate::front::shared::Shared;
use std::time::{Duration, Instant};
use vshmem_abi::wire::Usage;

/// How long the memory of a set or queue that was removed is kept for those who were served before. They
/// take what is theirs within microseconds, unless they are stopped, or dead.
const KEPT: Duration = Duration::from_secs(2);

impl Domain {
    /// Whether there are constructs or clients that have to be looked at from time to time.
    pub fn has_leftovers(&self) -> bool {
        !self.gone.is_empty() || self.clients.ending().next().is_some()
    }

    /// Looks at them: what is over by now is cleared away.
    pub fn look_at_leftovers(&mut self) {
        let over = |client: &Client| !client.is_left();
        let ended: Vec<u64> = self
            .clients
            .ending()
            .filter(|&number| self.clients.get(number).is_some_and(over))
            .collect();
        for number in ended {
            self.reap(number);
        }
        for id in std::mem::take(&mut self.gone) {
            self.forget_again(id);
        }
    }

    fn forget_again(&mut self, id: i32) {
        let Some((slot, _)) = self.constructs.find(id) else {
            return;
        };
        if self.clients.holders(slot, id).any(|(_, c)| c.lives()) {
            self.gone.push(id);
        } else {
            self.remove(id);
        }
    }

    /// Frees the memory of constructs that are no more. What was given to somebody before is left to be
    /// taken, for a while.
    pub fn bury(&mut self) {
        let awaited = |(known, since): &(Known, Instant)| {
            since.elapsed() < KEPT && known.shared().is_some_and(Shared::is_awaited)
        };
        let (kept, over) = std::mem::take(&mut self.buried)
            .into_iter()
            .partition(awaited);
        self.buried = kept;
        let over: Vec<(Known, Instant)> = over;
        for (known, _) in over {
            known.release(&mut self.port);
        }
    }

    /// Whether memory waits to be freed.
    pub fn has_buried(&self) -> bool {
        !self.buried.is_empty()
    }

    /// The connection or the process of client `number` has ended: if nothing of it is left, its
    /// attachments have ended with it.
    pub fn ended(&mut self, number: u64) {
        let Some(client) = self.clients.get_mut(number) else {
            return;
        };
        if client.is_left() {
            // It has closed its descriptors, or the kernel is not done with it.
            client.outlive_connection();
        } else {
            self.reap(number);
        }
    }

    /// Takes a dead client out. As when the kernel ends a process, what it had attached is
    /// detached now, by it.
    pub(in crate::front) fn reap(&mut self, number: u64) {
        let Some(client) = self.clients.remove(number) else {
            return;
        };
        self.orphaned.push(number);
        self.past_calls = self.past_calls.and(client.calls());
        // One that never was there (a fork that failed) has not detached anything.
        let was_there = client.page.pid() > 0;
        let now = now();
        for (id, known) in self.constructs.iter_mut() {
            let mut usage = client.page.usage(known.slot, id, self.domid);
            if usage.nattch > 0 && was_there {
                usage.dtime = now;
            }
            usage.nattch = 0;
            known.retained.merge(&usage);
        }
        for (slot, id, _) in client.page.attached() {
            let found = self.constructs.find(id).filter(|(own, _)| *own == slot);
            if found.is_some_and(|(_, meta)| is_ending(&meta)) {
                self.vacated.push(id);
            }
        }
        self.client_died(&client);
    }

    /// Counts what a child of client `number` inherits as the kernel does: an attach of each, at
    /// this moment, by the parent.
    pub fn note_fork(&mut self, number: u64) {
        let Some(parent) = self.clients.get(number) else {
            return;
        };
        let fork = Usage {
            atime: now(),
            lpid: parent.own_pid(),
            lpid_domain: self.domid,
            ..Usage::default()
        };
        for (slot, id, _) in parent.page.attached() {
            if let Some(known) = self.constructs.get_mut(id).filter(|k| k.slot == slot) {
                known.retained.merge(&fork);
            }
        }
    }
}
