// SPDX-License-Identifier: MIT OR Apache-2.0
//! `semop` on a set whose lock is held: trying, waiting, giving up.

use super::locked::Locked;
use super::queue::{Changed, Entry};
use super::{Op, Performed, SEM_UNDO, Set, Surroundings, Who, halves};
use crate::cell::Cell64;
use std::ffi::c_int;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use vshmem_abi::set::waiter;
use vshmem_abi::token::Token;

/// Who calls, and how.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The client.
    pub token: Token,
    /// The process, as it stands in semaphores that it changes.
    pub who: Who,
    /// Its undo record in this set, which it has if an operation has `SEM_UNDO`.
    pub record: Option<u32>,
    /// Seconds since the epoch.
    pub now: i64,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It would have to wait for the operation of this place; nothing has changed.
    Blocked(u32),
    /// It fails with this errno; nothing has changed.
    Failed(c_int),
}

impl<C: Cell64, S: Surroundings> Locked<'_, '_, C, S> {
    /// Tries to carry out `ops`, all or none, and what becomes possible for others by it.
    #[inline(always)]
    pub fn semop(&mut self, ops: &[Op], call: &Call) -> Outcome {
        let waiting = self.counts().0 != 0;
        if let [op] = ops
            && !waiting
            && !op.has(SEM_UNDO)
        {
            return self.perform_alone(*op, call.who, call.now).into();
        }
        let op = |place: usize| ops.get(place).copied().unwrap_or(Op(0));
        let performed = self.perform(ops.len(), op, call.record, call.who);
        if performed == Performed::Done {
            self.stamp(call.now);
            if waiting && ops.iter().any(|op| op.change() != 0) {
                let changed = if self.announce_scan() {
                    Changed::Anything
                } else {
                    Changed::By(ops)
                };
                self.commit();
                self.scan(changed);
            } else {
                self.commit();
            }
        }
        performed.into()
    }

    /// Puts a call that is blocked at `blocking` into the queue; `slot` is the caller's in its domain's
    /// wait page. Returns its place; `None` when there is no room for another waiter.
    pub fn wait(&mut self, ops: &[Op], call: &Call, slot: u32, blocking: u32) -> Option<u32> {
        let entry = Entry {
            token: call.token,
            who: call.who,
            slot,
            record: call.record,
            alters: ops.iter().any(|op| op.change() != 0),
            blocking,
        };
        self.enqueue(ops, &entry)
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.counts().0
    }

    /// Gives up waiting at `index`. `true`: the waiter is out of the queue and its record is free.
    /// `false`: its operations are done or have failed, as [`Set::collect`] tells.
    pub fn give_up(&mut self, index: u32, token: Token) -> bool {
        match self.queued_of(index, token) {
            Some(who) => {
                self.abandon(who);
                true
            }
            None => false,
        }
    }

    /// Ends the waiting at `index` with `errno`, as if its operations had failed: the record stays the
    /// waiter's, who finds the result there. `false`: they were done, or had failed, before.
    pub fn interrupt(&mut self, index: u32, token: Token, errno: c_int) -> bool {
        match self.queued_of(index, token) {
            Some(who) => {
                self.finish(who, errno);
                self.commit();
                self.post_all();
                true
            }
            None => false,
        }
    }
}

impl<C: Cell64> Set<'_, C> {
    /// What the waiter at `index` is told: one of the values of [`waiter::POST`].
    #[inline]
    pub fn look(&self, index: u32) -> u64 {
        // Acquire: pairs with the Release of who posts.
        self.post(index).load(Acquire)
    }

    /// The waiter at `index` is about to sleep; `false` if it was told something meanwhile.
    pub fn fall_asleep(&self, index: u32) -> bool {
        let post = self.post(index);
        post.compare_exchange(waiter::AWAKE, waiter::ASLEEP, Release, Relaxed)
            .is_ok()
            || post.load(Relaxed) == waiter::ASLEEP
    }

    /// The result of the waiter at `index`, which was told that it is there: 0, or the errno of its
    /// call.
    pub fn result(&self, index: u32) -> c_int {
        let (_, errno) = halves(self.load(self.waiter(index) + waiter::OUTCOME));
        errno as c_int
    }

    /// Takes the result, and frees the record.
    pub fn collect(&self, index: u32) -> c_int {
        let errno = self.result(index);
        let at = self.waiter(index);
        let long = (self.load(at + waiter::STATE) >> 32) as u32;
        if let Some(long) = long.checked_sub(1).filter(|&l| l < self.shape.longs) {
            self.at(self.long(long)).store(0, Release);
        }
        self.at(at + waiter::POST).store(waiter::IDLE, Relaxed);
        // Release: the record's words were read before it is used again.
        self.at(at + waiter::STATE).store(waiter::FREE, Release);
        errno
    }
}

impl From<Performed> for Outcome {
    #[inline(always)]
    fn from(performed: Performed) -> Self {
        match performed {
            Performed::Done => Self::Done,
            Performed::Blocked(place) => Self::Blocked(place),
            Performed::Failed(errno) => Self::Failed(errno),
        }
    }
}
