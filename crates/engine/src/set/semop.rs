// SPDX-License-Identifier: MIT OR Apache-2.0
//! `semop` on a set whose lock is held: trying, waiting, giving up.

use super::scan::Changed;
use super::{Locked, Op, Performed, SEM_UNDO, Set, Surroundings};
use crate::cell::Cell64;
use crate::region::Caller;
use std::ffi::c_int;
use std::sync::atomic::Ordering::Release;
use vshmem_abi::region::waiter;

/// Who calls, and how.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The client and its process.
    pub caller: Caller,
    /// Its undo record in this set, which it has if an operation has `SEM_UNDO`.
    pub record: Option<u32>,
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
            return self
                .perform_alone(*op, call.caller.who, call.caller.now)
                .into();
        }
        let op = |place: usize| ops.get(place).copied().unwrap_or(Op(0));
        let performed = self.perform(ops.len(), op, call.record, call.caller.who);
        if performed == Performed::Done {
            self.stamp(call.caller.now);
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
        self.enqueue(ops, call, slot, blocking)
    }
}

impl<C: Cell64> Set<'_, C> {
    /// Takes the result, and frees the record.
    pub fn collect(&self, index: u32) -> c_int {
        let errno = self.result(index);
        let at = self.waiter(index);
        let long = (self.load(at + waiter::STATE) >> 32) as u32;
        if let Some(long) = long.checked_sub(1).filter(|&l| l < self.shape.longs) {
            self.at(self.long(long)).store(0, Release);
        }
        self.free_record(index);
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
