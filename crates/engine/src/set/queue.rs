// SPDX-License-Identifier: MIT OR Apache-2.0
//! Those who wait: entering and leaving the queues, and carrying out what they wait for when it has
//! become possible, in the order of the kernel's `do_smart_update`.
//!
//! Every waiter is in the queue of all, in order of arrival. One with a single operation is in the
//! queue of its semaphore too; as long as there are no others, only the queues of the semaphores that
//! changed are looked at.

use super::locked::Locked;
use super::{Op, Performed, Set, Surroundings, Who, halves, word_of};
use crate::cell::Cell64;
use std::ffi::c_int;
use std::sync::atomic::Ordering::{Acquire, Release};
use vshmem_abi::set::{self, intent, waiter};
use vshmem_abi::token::Token;

/// Steps that one scan may take, each a look at one operation of a waiter: done in a fraction of a
/// second, whatever a peer has written into the queues. Thousands of waiters that are served at once,
/// behind thousands that are not, take more: the rest of them is for the next scan.
const STEPS: u32 = 1 << 24;

/// Which of two queues: place of the links in a waiter's record, place of the ends.
#[derive(Clone, Copy)]
struct Queue {
    link: usize,
    ends: usize,
}

/// One who waits, as its record says.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    pub index: u32,
    state: u64,
    /// Operations, no more than a call of this set may have.
    count: usize,
}

impl Waiting {
    pub(super) fn alters(self) -> bool {
        self.state & waiter::ALTERS != 0
    }

    pub(super) fn is_queued(self) -> bool {
        self.state & 0xff == waiter::QUEUED
    }

    pub(super) fn is_done(self) -> bool {
        self.state & 0xff == waiter::DONE
    }

    fn is_single(self) -> bool {
        self.count == 1
    }

    pub(super) fn is_free(self) -> bool {
        self.state & 0xff == waiter::FREE
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
    /// One operation of a waiter.
    fn op_of(&self, of: Waiting, place: usize) -> Op {
        let at = match of.long().filter(|&long| long < self.shape.longs) {
            Some(long) => self.long(long) + 1 + place.min(self.shape.ops as usize - 1),
            None => self.waiter(of.index) + waiter::OPS + place.min(waiter::INLINE - 1),
        };
        Op(self.load(at))
    }
}

/// What is put into the queue.
pub(super) struct Entry {
    pub token: Token,
    pub who: Who,
    /// Slot in the wait page of its domain.
    pub slot: u32,
    pub record: Option<u32>,
    pub alters: bool,
    /// The operation that it waits for.
    pub blocking: u32,
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

impl<C: Cell64, S: Surroundings> Locked<'_, '_, C, S> {
    const ALL: Queue = Queue {
        link: waiter::LINK,
        ends: set::QUEUE,
    };

    fn of_sem(&self, num: u32) -> Queue {
        Queue {
            link: waiter::SEM_LINK,
            ends: self.set.sem_queue(num),
        }
    }

    /// The waiter that a link or an end leads to.
    fn follow(&self, link: u32) -> Option<Waiting> {
        let index = link
            .checked_sub(1)
            .filter(|&i| i < self.set.shape.waiters)?;
        let state = self.load(self.set.waiter(index) + waiter::STATE);
        let count = ((state >> 16) as u16 as usize).min(self.set.shape.ops as usize);
        Some(Waiting {
            index,
            state,
            count,
        })
    }

    pub(super) fn waiter_at(&self, index: u32) -> Option<Waiting> {
        self.follow(index.checked_add(1)?)
    }

    fn first(&self, queue: Queue) -> Option<Waiting> {
        self.follow(halves(self.load(queue.ends)).0)
    }

    fn next(&self, queue: Queue, after: Waiting) -> Option<Waiting> {
        self.follow(halves(self.load(self.set.waiter(after.index) + queue.link)).0)
    }

    /// How many wait, and how many of these with more than one operation.
    #[inline(always)]
    pub(super) fn counts(&self) -> (u32, u32) {
        halves(self.load(set::COUNTS))
    }

    fn who_of(&self, of: Waiting) -> Who {
        Who(self.load(self.set.waiter(of.index) + waiter::WHO))
    }

    fn record_of(&self, of: Waiting) -> Option<u32> {
        let (_, record) = halves(self.load(self.set.waiter(of.index) + waiter::PLACE));
        record.checked_sub(1).filter(|&r| r < self.set.shape.undos)
    }

    /// Whether the thread that waits there is known to be dead. Only a thread of this domain can be.
    pub(super) fn is_dead(&self, of: Waiting) -> bool {
        let at = self.set.waiter(of.index);
        Token::from_raw(self.load(at + waiter::TOKEN)).domid() == self.around.domid()
            && self.around.is_dead(halves(self.load(at + waiter::PLACE)).0)
    }

    // In and out.

    /// Puts a call into the queue, and commits. `None`: there is no room.
    pub(super) fn enqueue(&mut self, ops: &[Op], entry: &Entry) -> Option<u32> {
        let index = self.free_waiter(entry.token)?;
        let long = if ops.len() > waiter::INLINE {
            Some(self.free_long()?)
        } else {
            None
        };
        let at = self.set.waiter(index);
        let ops_at = match long {
            Some(long) => {
                self.store(self.set.long(long), u64::from(index) + 1);
                self.set.long(long) + 1
            }
            None => at + waiter::OPS,
        };
        for (place, op) in ops.iter().enumerate() {
            self.store(ops_at + place, op.0);
        }
        let record = entry.record.map_or(0, |record| record + 1);
        self.store(at + waiter::TOKEN, entry.token.raw());
        self.store(at + waiter::WHO, entry.who.0);
        self.store(at + waiter::PLACE, word_of(entry.slot, record));
        self.store(at + waiter::OUTCOME, word_of(entry.blocking, 0));
        self.store(at + waiter::POST, waiter::AWAKE);
        let alters = if entry.alters { waiter::ALTERS } else { 0 };
        let state = waiter::QUEUED
            | alters
            | (ops.len() as u64) << 16
            | long.map_or(0, |long| u64::from(long) + 1) << 32;
        self.put(at + waiter::STATE, state);
        self.link_last(Self::ALL, index);
        let (waiting, complex) = self.counts();
        match ops {
            [single] => {
                self.link_last(self.of_sem(single.num()), index);
                self.put(set::COUNTS, word_of(waiting.wrapping_add(1), complex));
            }
            _ => self.put(
                set::COUNTS,
                word_of(waiting.wrapping_add(1), complex.wrapping_add(1)),
            ),
        }
        self.commit();
        Some(index)
    }

    fn free_waiter(&mut self, token: Token) -> Option<u32> {
        let all = self.set.shape.waiters;
        let from = (token.serial() as u32 & 0xff) % all;
        let is_free = |index: &u32| {
            let state = self.set.at(self.set.waiter(*index) + waiter::STATE);
            // Acquire: pairs with the Release of `Set::collect`.
            state.load(Acquire) & 0xff == waiter::FREE
        };
        let index = (from..all).chain(0..from).find(is_free)?;
        if self.load(set::WAITER_HIGH) as u32 <= index {
            self.store(set::WAITER_HIGH, u64::from(index) + 1);
        }
        Some(index)
    }

    fn free_long(&mut self) -> Option<u32> {
        let is_free = |index: &u32| self.load(self.set.long(*index)) == 0;
        let index = (0..self.set.shape.longs).find(is_free)?;
        if self.load(set::LONG_HIGH) as u32 <= index {
            self.store(set::LONG_HIGH, u64::from(index) + 1);
        }
        Some(index)
    }

    fn link_last(&mut self, queue: Queue, index: u32) {
        let (first, last) = halves(self.load(queue.ends));
        let link = self.set.waiter(index) + queue.link;
        self.put(link, word_of(0, last));
        match self.follow(last) {
            Some(before) => {
                let link = self.set.waiter(before.index) + queue.link;
                let (_, previous) = halves(self.load(link));
                self.put(link, word_of(index + 1, previous));
                self.put(queue.ends, word_of(first, index + 1));
            }
            None => self.put(queue.ends, word_of(index + 1, index + 1)),
        }
    }

    fn unlink(&mut self, queue: Queue, index: u32) {
        let (next, previous) = halves(self.load(self.set.waiter(index) + queue.link));
        let (mut first, mut last) = halves(self.load(queue.ends));
        match self.follow(previous) {
            Some(before) => {
                let link = self.set.waiter(before.index) + queue.link;
                let (_, further) = halves(self.load(link));
                self.put(link, word_of(next, further));
            }
            None => first = next,
        }
        match self.follow(next) {
            Some(after) => {
                let link = self.set.waiter(after.index) + queue.link;
                let (further, _) = halves(self.load(link));
                self.put(link, word_of(further, previous));
            }
            None => last = previous,
        }
        self.put(queue.ends, word_of(first, last));
    }

    /// Takes a waiter out of the queues; to be committed.
    fn leave(&mut self, who: Waiting) {
        self.unlink(Self::ALL, who.index);
        let (waiting, complex) = self.counts();
        let complex = if who.is_single() {
            let num = self.set.op_of(who, 0).num();
            if num < self.set.shape.sems {
                self.unlink(self.of_sem(num), who.index);
            }
            complex
        } else {
            complex.saturating_sub(1)
        };
        self.put(set::COUNTS, word_of(waiting.saturating_sub(1), complex));
    }

    /// Takes a waiter out that gives up, or is dead, and frees its record.
    pub(super) fn abandon(&mut self, who: Waiting) {
        let state = self.set.waiter(who.index) + waiter::STATE;
        if who.is_queued() {
            self.leave(who);
            self.put(state, waiter::FREE);
            self.commit();
            self.free_long_of(who);
        } else {
            self.free_long_of(who);
            self.store(state, waiter::FREE);
        }
    }

    fn free_long_of(&self, who: Waiting) {
        // One that died while it freed its record does not have the list any more that this names.
        if let Some(long) = who.long().filter(|&long| long < self.set.shape.longs)
            && self.load(self.set.long(long)) == u64::from(who.index) + 1
        {
            self.store(self.set.long(long), 0);
        }
    }

    /// Whether the record of a waiter is still that of `token`'s, and in the queue.
    pub(super) fn queued_of(&self, index: u32, token: Token) -> Option<Waiting> {
        let own = self.load(self.set.waiter(index) + waiter::TOKEN) == token.raw();
        self.waiter_at(index).filter(|w| own && w.is_queued())
    }

    // Carrying out.

    /// Tries to carry out what a waiter waits for. `None`: it waits on. Else its result, which is
    /// committed; it has left the queue.
    fn try_waiter(&mut self, who: Waiting) -> Option<c_int> {
        if !who.is_queued() || self.is_dead(who) {
            return None;
        }
        let set = self.set;
        let (record, identity) = (self.record_of(who), self.who_of(who));
        let op = |place| set.op_of(who, place);
        let performed = self.perform(who.count, op, record, identity);
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

    /// Takes a waiter out of the queues with this result, to be told ([`Self::post_all`]); to be
    /// committed.
    pub(super) fn finish(&mut self, who: Waiting, errno: c_int) {
        let at = self.set.waiter(who.index);
        self.put(at + waiter::OUTCOME, word_of(0, errno as u32));
        self.leave(who);
        self.put(at + waiter::STATE, who.state & !0xff | waiter::DONE);
        // To be told, in this order.
        let (first, last) = halves(self.load(set::POSTING));
        self.put(at + waiter::LINK, 0);
        match self.follow(last) {
            Some(before) => {
                let link = self.set.waiter(before.index) + waiter::LINK;
                self.put(link, word_of(who.index + 1, 0));
                self.put(set::POSTING, word_of(first, who.index + 1));
            }
            None => self.put(set::POSTING, word_of(who.index + 1, who.index + 1)),
        }
    }

    /// After a change of values that has been announced by [`intent::SCAN`] and committed: carries
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
            self.store(set::INTENT, 0);
        }
        done
    }

    /// Those who change a semaphore: of one semaphore, or all (`update_queue`).
    fn update(&mut self, num: Option<u32>, steps: &mut u32) -> bool {
        let queue = num.map_or(Self::ALL, |num| self.of_sem(num));
        let mut done = false;
        let mut at = self.first(queue);
        while let Some(who) = at {
            // A decrement that waits for more than there is stays where it is.
            if num.is_some_and(|num| self.value(num) == 0) || !take(steps, who.count) {
                break;
            }
            at = self.next(queue, who);
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
                    at = self.first(queue);
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
            Changed::ByWaiter(who) => who.count,
            Changed::Anything => self.set.shape.sems as usize,
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
                Changed::ByWaiter(who) => self.set.op_of(who, place).num(),
                Changed::Anything => place as u32,
            };
            if num < self.set.shape.sems && self.value(num) == 0 {
                got_zero = true;
                done |= self.wake_const(self.of_sem(num), |who| who.is_single(), steps);
            }
        }
        if got_zero && self.counts().1 > 0 {
            done |= self.wake_const(Self::ALL, |who| !who.is_single(), steps);
        }
        done
    }

    /// Those who change nothing (`wake_const_ops`).
    fn wake_const(
        &mut self,
        queue: Queue,
        wanted: impl Fn(Waiting) -> bool,
        steps: &mut u32,
    ) -> bool {
        let mut done = false;
        let mut at = self.first(queue);
        while let Some(who) = at {
            if !take(steps, who.count) {
                break;
            }
            at = self.next(queue, who);
            if !who.alters() && wanted(who) {
                done |= self.try_waiter(who) == Some(0);
            }
        }
        done
    }

    /// Tells all those whose operations are done.
    pub(super) fn post_all(&mut self) {
        for _ in 0..self.set.shape.waiters {
            let (first, last) = halves(self.load(set::POSTING));
            let Some(who) = self.follow(first) else {
                break;
            };
            let (next, _) = halves(self.load(self.set.waiter(who.index) + waiter::LINK));
            // Release: what was done for it, and its outcome, come before. Pairs with the Acquire of
            // the waiter's look.
            if self.set.post(who.index).swap(waiter::POSTED, Release) == waiter::ASLEEP {
                self.wake_later(who.index);
            }
            let rest = if next == 0 { 0 } else { word_of(next, last) };
            self.store(set::POSTING, rest);
        }
        self.store(set::POSTING, 0);
    }

    /// Announces that waiters have to be looked at; part of the change that makes it so. `true`: there
    /// is something left from a scan before, so all of them have to be.
    pub(super) fn announce_scan(&mut self) -> bool {
        let left = self.load(set::INTENT) != 0;
        self.put(set::INTENT, intent::SCAN);
        left
    }

    /// Waiters for `num` to become zero, or to grow (`count_semcnt`): those whose blocking operation is
    /// one of that kind.
    pub(super) fn count_waiting(&self, num: u32, for_zero: bool) -> u32 {
        let mut count = 0;
        let mut at = self.first(Self::ALL);
        for _ in 0..self.set.shape.waiters {
            let Some(who) = at else { break };
            let (place, _) = halves(self.load(self.set.waiter(who.index) + waiter::OUTCOME));
            let op = self.set.op_of(who, place as usize);
            let kind = if for_zero {
                op.change() == 0
            } else {
                op.change() < 0
            };
            if op.num() == num && kind && !self.is_dead(who) {
                count += 1;
            }
            at = self.next(Self::ALL, who);
        }
        count
    }
}

/// Takes steps for so many operations; `false` when there are none left.
fn take(steps: &mut u32, operations: usize) -> bool {
    *steps = steps.saturating_sub(operations.max(1) as u32);
    *steps != 0
}
