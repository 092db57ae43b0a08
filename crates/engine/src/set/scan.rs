// SPDX-License-Identifier: MIT OR Apache-2.0
//! Those who wait: what they wait for, and carrying it out when it has become possible, in the order
//! of the kernel's `do_smart_update`.
//!
//! Every waiter is in the line of all, in order of arrival. One with a single operation is in the
//! line of its semaphore too; as long as there are no others, only the lines of the semaphores that
//! changed are looked at.

use super::{Call, Locked, Op, Performed, Set, Surroundings, halves, word_of};
use crate::cell::Cell64;
use crate::region::Kind;
use crate::region::line::Line;
use crate::region::recover::Dead;
use crate::region::waiting::Waiting;
use std::ffi::c_int;
use vshmem_abi::region::{COUNTS, INTENT, QUEUE, SCAN, waiter};
use vshmem_abi::set::{self, ALTERS, Shape};

/// Steps that one scan may take, each a look at one operation of a waiter: done in a fraction of a
/// second, whatever a peer has written into the queues. Thousands of waiters that are served at once,
/// behind thousands that are not, take more: the rest of them is for the next scan.
const STEPS: u32 = 1 << 24;

impl Waiting {
    fn alters(self) -> bool {
        self.state & ALTERS != 0
    }

    /// How many operations it has, as it says.
    fn count(self) -> usize {
        (self.state >> 16) as u16 as usize
    }

    fn is_single(self) -> bool {
        self.count() == 1
    }

    fn long(self) -> Option<u32> {
        ((self.state >> 32) as u32).checked_sub(1)
    }

    /// Whether `long` is its list of operations.
    pub(super) fn has_long(self, long: u32) -> bool {
        !self.is_free() && self.long() == Some(long)
    }
}

impl<C: Cell64> Set<'_, C> {
    /// How many operations a waiter has, no more than a call of this set may have.
    fn count_of(&self, of: Waiting) -> usize {
        of.count().min(self.shape.ops as usize)
    }

    /// One operation of a waiter.
    fn op_of(&self, of: Waiting, place: usize) -> Op {
        let at = match of.long().filter(|&long| long < self.shape.longs) {
            Some(long) => self.long(long) + 1 + place.min(self.shape.ops as usize - 1),
            None => self.waiter(of.index) + waiter::OPS + place.min(waiter::INLINE - 1),
        };
        Op(self.load(at))
    }
}

/// Which operations changed the set, as far as known.
#[derive(Clone, Copy)]
pub(super) enum Changed<'o> {
    /// These.
    By(&'o [Op]),
    /// Those of a waiter.
    ByWaiter(Waiting),
    /// Any semaphore may have.
    Anything,
}

impl<C: Cell64> Set<'_, C> {
    fn all(&self) -> Line {
        self.line_of_waiters(waiter::LINK, QUEUE)
    }

    fn of_sem(&self, num: u32) -> Line {
        self.line_of_waiters(waiter::SEM_LINK, self.sem_queue(num))
    }
}

impl Kind for Shape {
    fn finish_intent<C: Cell64, S: Surroundings>(locked: &mut Locked<'_, '_, C, S>, now: i64) {
        locked.finish_intent(now);
    }

    fn leave<C: Cell64, S: Surroundings>(locked: &mut Locked<'_, '_, C, S>, who: Waiting) {
        locked.unlink(locked.region.all(), who.index);
        let (waiting, complex) = locked.counts();
        let complex = if who.is_single() {
            let num = locked.region.op_of(who, 0).num();
            if num < locked.region.shape.sems {
                locked.unlink(locked.region.of_sem(num), who.index);
            }
            complex
        } else {
            complex.saturating_sub(1)
        };
        locked.put(COUNTS, word_of(waiting.saturating_sub(1), complex));
    }

    fn free<C: Cell64, S: Surroundings>(locked: &mut Locked<'_, '_, C, S>, who: Waiting) {
        // One that died while it freed its record does not have the list any more that this names.
        if let Some(long) = who.long().filter(|&l| l < locked.region.shape.longs)
            && locked.load(locked.region.long(long)) == u64::from(who.index) + 1
        {
            locked.put(locked.region.long(long), 0);
        }
    }

    fn has_something_out<C: Cell64>(_: &Set<'_, C>) -> bool {
        false
    }

    fn sweep<C: Cell64, S: Surroundings>(locked: &mut Locked<'_, '_, C, S>, dead: Dead, now: i64) {
        locked.sweep_longs();
        if let Dead::Domain(..) = dead {
            locked.undo_of(|token| dead.is(token), 0, now);
        }
    }
}

impl<C: Cell64, S: Surroundings> Locked<'_, '_, C, S> {
    fn record_of(&self, of: Waiting) -> Option<u32> {
        let (_, record) = halves(self.load(self.region.waiter(of.index) + waiter::PLACE));
        record
            .checked_sub(1)
            .filter(|&r| r < self.region.shape.undos)
    }

    /// Puts a call that is blocked at `blocking` into the queue, and commits. `None`: there is no room.
    pub(super) fn enqueue(
        &mut self,
        ops: &[Op],
        call: &Call,
        slot: u32,
        blocking: u32,
    ) -> Option<u32> {
        let index = self.new_waiter(&call.caller, slot, blocking)?;
        let long = if ops.len() > waiter::INLINE {
            Some(self.free_long()?)
        } else {
            None
        };
        let at = self.region.waiter(index);
        let ops_at = match long {
            Some(long) => {
                self.store(self.region.long(long), u64::from(index) + 1);
                self.region.long(long) + 1
            }
            None => at + waiter::OPS,
        };
        for (place, op) in ops.iter().enumerate() {
            self.store(ops_at + place, op.0);
        }
        let record = call.record.map_or(0, |record| record + 1);
        self.store(at + waiter::PLACE, word_of(slot, record));
        let alters = ops.iter().any(|op| op.change() != 0);
        let state = waiter::QUEUED
            | if alters { ALTERS } else { 0 }
            | (ops.len() as u64) << 16
            | long.map_or(0, |long| u64::from(long) + 1) << 32;
        self.put(at + waiter::STATE, state);
        self.link_new_last(self.region.all(), index);
        let (waiting, complex) = self.counts();
        let complex = match ops {
            [single] => {
                self.link_new_last(self.region.of_sem(single.num()), index);
                complex
            }
            _ => complex.wrapping_add(1),
        };
        self.put(COUNTS, word_of(waiting.wrapping_add(1), complex));
        self.commit();
        Some(index)
    }

    fn free_long(&mut self) -> Option<u32> {
        let is_free = |index: &u32| self.load(self.region.long(*index)) == 0;
        let index = (0..self.region.shape.longs).find(is_free)?;
        if self.load(set::LONG_HIGH) as u32 <= index {
            self.store(set::LONG_HIGH, u64::from(index) + 1);
        }
        Some(index)
    }

    // Carrying out.

    /// Tries to carry out what a waiter waits for. `None`: it waits on. Else its result, which is
    /// committed; it has left the queue.
    fn try_waiter(&mut self, who: Waiting) -> Option<c_int> {
        if !who.is_queued() || self.is_dead(who) {
            return None;
        }
        let set = self.region;
        let (record, identity) = (self.record_of(who), self.who_of(who));
        let op = |place| set.op_of(who, place);
        let performed = self.perform(set.count_of(who), op, record, identity);
        let outcome = set.waiter(who.index) + waiter::OUTCOME;
        let errno = match performed {
            Performed::Done => 0,
            Performed::Failed(errno) => errno,
            Performed::Blocked(place) => {
                self.store(outcome, word_of(place, 0));
                return None;
            }
        };
        self.finish(who, errno);
        self.commit();
        Some(errno)
    }

    /// After a change of values that has been announced by [`SCAN`] and committed: carries
    /// out what has become possible, and tells those concerned. Returns whether anything was done
    /// (`do_smart_update`).
    pub(super) fn scan(&mut self, changed: Changed<'_>) -> bool {
        self.scan_within(STEPS, changed)
    }

    /// [`Self::scan`] that takes no more than `steps`.
    pub(super) fn scan_within(&mut self, mut steps: u32, changed: Changed<'_>) -> bool {
        let mut done = self.wake_zero(changed, &mut steps);
        if self.counts().1 > 0 {
            done |= self.update(None, &mut steps);
        } else {
            match changed {
                Changed::By(ops) => {
                    for op in ops.iter().filter(|op| op.change() > 0) {
                        done |= self.update(Some(op.num()), &mut steps);
                    }
                }
                Changed::ByWaiter(_) | Changed::Anything => {
                    done |= self.update(None, &mut steps);
                }
            }
        }
        self.post_all();
        if steps != 0 {
            self.store(INTENT, 0);
        }
        done
    }

    /// Those who change a semaphore: of one semaphore, or all (`update_queue`).
    fn update(&mut self, num: Option<u32>, steps: &mut u32) -> bool {
        let line = num.map_or(self.region.all(), |num| self.region.of_sem(num));
        let mut done = false;
        let mut at = self.first(line);
        while let Some(who) = at {
            // A decrement that waits for more than there is stays where it is.
            if num.is_some_and(|num| self.value(num) == 0)
                || !take(steps, self.region.count_of(who))
            {
                break;
            }
            at = self.next(line, who);
            if !who.alters() {
                continue;
            }
            if let Some(errno) = self.try_waiter(who)
                && errno == 0
            {
                done = true;
                self.wake_zero(Changed::ByWaiter(who), steps);
                // `check_restart`: someone before it may be able to go on now. And the next one may
                // have left, if it waited for zero.
                let stays = at.and_then(|next| self.waiter_at(next.index));
                if self.counts().1 > 0
                    || !who.is_single()
                    || stays.is_some_and(|next| !next.is_queued())
                {
                    at = self.first(line);
                }
            }
        }
        done
    }

    /// Those who wait for zero on the semaphores that changed (`do_smart_wakeup_zero`).
    fn wake_zero(&mut self, changed: Changed<'_>, steps: &mut u32) -> bool {
        let mut done = false;
        let mut got_zero = false;
        let count = match changed {
            Changed::By(ops) => ops.len(),
            Changed::ByWaiter(who) => self.region.count_of(who),
            Changed::Anything => self.region.shape.sems as usize,
        };
        for place in 0..count {
            if !take(steps, 1) {
                break;
            }
            let num = match changed {
                Changed::By(ops) => match ops.get(place) {
                    Some(op) => op.num(),
                    None => break,
                },
                Changed::ByWaiter(who) => self.region.op_of(who, place).num(),
                Changed::Anything => place as u32,
            };
            if num < self.region.shape.sems && self.value(num) == 0 {
                got_zero = true;
                done |= self.wake_const(self.region.of_sem(num), |who| who.is_single(), steps);
            }
        }
        if got_zero && self.counts().1 > 0 {
            done |= self.wake_const(self.region.all(), |who| !who.is_single(), steps);
        }
        done
    }

    /// Those who change nothing (`wake_const_ops`).
    fn wake_const(
        &mut self,
        line: Line,
        wanted: impl Fn(Waiting) -> bool,
        steps: &mut u32,
    ) -> bool {
        let mut done = false;
        let mut at = self.first(line);
        while let Some(who) = at {
            if !take(steps, self.region.count_of(who)) {
                break;
            }
            at = self.next(line, who);
            if !who.alters() && wanted(who) {
                done |= self.try_waiter(who) == Some(0);
            }
        }
        done
    }

    /// Announces that waiters have to be looked at; part of the change that makes it so. `true`: there
    /// is something left from a scan before, so all of them have to be.
    pub(super) fn announce_scan(&mut self) -> bool {
        let left = self.load(INTENT) != 0;
        self.put(INTENT, SCAN);
        left
    }

    /// Waiters for `num` to become zero, or to grow (`count_semcnt`): those whose blocking operation is
    /// one of that kind.
    pub(super) fn count_waiting(&self, num: u32, for_zero: bool) -> u32 {
        let mut count = 0;
        let mut at = self.first(self.region.all());
        for _ in 0..self.region.shape.waiters {
            let Some(who) = at else { break };
            let (place, _) = halves(self.load(self.region.waiter(who.index) + waiter::OUTCOME));
            let op = self.region.op_of(who, place as usize);
            let kind = if for_zero {
                op.change() == 0
            } else {
                op.change() < 0
            };
            if op.num() == num && kind && !self.is_dead(who) {
                count += 1;
            }
            at = self.next(self.region.all(), who);
        }
        count
    }
}

/// Takes steps for so many operations; `false` when there are none left.
fn take(steps: &mut u32, operations: usize) -> bool {
    *steps = steps.saturating_sub(operations.max(1) as u32);
    *steps != 0
}
