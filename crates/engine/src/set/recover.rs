// SPDX-License-Identifier: MIT OR Apache-2.0
//! After a death: what the holder of the lock had begun, what a waiter leaves in the queue, what a
//! process would have undone. Called by `vshmemd`, which knows who is dead.

use super::locked::{Locked, value_word};
use super::queue::Waiting;
use super::{Set, Surroundings, Who, word_of};
use crate::cell::Cell64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use vshmem_abi::limits::SEMVMX;
use vshmem_abi::set::{self, intent, undo, waiter};
use vshmem_abi::token::Token;

/// Who has died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dead {
    /// A client. Its process may live on (`exec`), so its undo records stay.
    Client(Token),
    /// A domain, with all its processes.
    Domain(u32),
}

impl Dead {
    /// Whether `token` is that of the dead, or of one of them.
    pub fn is(self, token: Token) -> bool {
        match self {
            Self::Client(dead) => token == dead,
            Self::Domain(domid) => token != Token::NONE && token.domid() == domid,
        }
    }
}

/// The lock is held by somebody who lives: try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// How often the lock is tried before it counts as held. A holder has it for less than a microsecond
/// as a rule.
const TRIES: u32 = 1000;

impl<'a, C: Cell64> Set<'a, C> {
    /// Takes the lock for `me`, from whom it may have been left by `dead`, and repairs what is half
    /// done.
    fn lock_after<'b, S: Surroundings>(
        &'b self,
        me: Token,
        dead: Option<Dead>,
        now: i64,
        around: &'b S,
    ) -> Result<Locked<'a, 'b, C, S>, Busy> {
        for _ in 0..TRIES {
            if let Some(locked) = self.try_lock(me, around) {
                return Ok(locked);
            }
            let holder = self.lock_holder();
            if dead.is_some_and(|dead| dead.is(holder))
                // Acquire: as a lock that was given back, of which all stores are seen.
                && self
                    .at(set::LOCK)
                    .compare_exchange(holder.raw(), me.raw(), Acquire, Relaxed)
                    .is_ok()
            {
                let mut locked = Locked::begin(self, around);
                locked.repair(now);
                return Ok(locked);
            }
            std::hint::spin_loop();
        }
        Err(Busy)
    }

    /// Clears away what the dead have left here: the lock, their places in the queue, and if a whole
    /// domain is dead its undo.
    ///
    /// # Errors
    /// [`Busy`]; nothing was done then.
    pub fn clean_up<S: Surroundings>(
        &self,
        me: Token,
        dead: Dead,
        now: i64,
        around: &S,
    ) -> Result<(), Busy> {
        let mut locked = self.lock_after(me, Some(dead), now, around)?;
        locked.remove_waiters(dead);
        if let Dead::Domain(_) = dead {
            locked.undo_of(|token| dead.is(token), 0, now);
        }
        locked.unlock();
        Ok(())
    }

    /// Applies what the process with undo token `undoer` would have undone at its end (`exit_sem`);
    /// `pid` is its pid as it saw itself.
    ///
    /// # Errors
    /// [`Busy`]; nothing was done then.
    pub fn apply_undo<S: Surroundings>(
        &self,
        me: Token,
        undoer: Token,
        pid: i32,
        now: i64,
        around: &S,
    ) -> Result<(), Busy> {
        let mut locked = self.lock_after(me, None, now, around)?;
        locked.undo_of(|token| token == undoer, pid, now);
        locked.unlock();
        Ok(())
    }
}

impl<C: Cell64, S: Surroundings> Locked<'_, '_, C, S> {
    /// Rolls back what was not committed, and goes on with what was.
    fn repair(&mut self, now: i64) {
        self.adopt_journal();
        self.roll_back();
        self.finish_intent(now);
        self.post_all();
        // Who was told but not woken yet.
        for index in 0..self.waiter_high() {
            if self.waiter_at(index).is_some_and(Waiting::is_done) {
                self.wake_later(index);
            }
        }
    }

    /// Waiters that may be in use.
    pub(super) fn waiter_high(&self) -> u32 {
        (self.load(set::WAITER_HIGH) as u32).min(self.set.shape.waiters)
    }

    fn remove_waiters(&mut self, dead: Dead) {
        for index in 0..self.waiter_high() {
            let token = self.load(self.set.waiter(index) + waiter::TOKEN);
            if let Some(who) = self.waiter_at(index)
                && !who.is_free()
                && dead.is(Token::from_raw(token))
            {
                self.abandon(who);
            }
        }
        // Lists whose waiter never came to be.
        let longs = (self.load(set::LONG_HIGH) as u32).min(self.set.shape.longs);
        for long in 0..longs {
            let at = self.set.long(long);
            let owner = (self.load(at) as u32)
                .checked_sub(1)
                .and_then(|index| self.waiter_at(index));
            if owner.is_none_or(|who| !who.has_long(long)) && self.load(at) != 0 {
                self.store(at, 0);
            }
        }
    }

    /// Applies and frees the undo records whose token is one of the dead's. Waiters are looked at once,
    /// after all of them: they have ended at the same time.
    fn undo_of(&mut self, is_dead: impl Fn(Token) -> bool, pid: i32, now: i64) {
        let mut any = false;
        for record in 0..self.undo_high() {
            let at = self.set.undo(record);
            let token = Token::from_raw(self.load(at + undo::TOKEN));
            if token == Token::NONE || !is_dead(token) {
                continue;
            }
            self.store(set::INTENT_WHO, Who::new(pid, token.domid()).0);
            self.store(set::INTENT, word_of(intent::UNDO as u32, record));
            self.apply_adjustments(record);
            self.store(set::INTENT, intent::SCAN);
            self.store(at + undo::TOKEN, Token::NONE.raw());
            any = true;
        }
        if any {
            self.finish_intent(now);
            self.stamp(now);
        }
    }

    /// Applies what is left of an undo record. Each semaphore is one step, so one who dies in between
    /// has applied a part of it, and the next does the rest.
    pub(super) fn apply_adjustments(&mut self, record: u32) {
        let who = Who(self.load(set::INTENT_WHO));
        for num in 0..self.set.shape.sems {
            let adjustment = self.adjustment(record, num);
            if adjustment != 0 {
                let value = (self.value(num) + adjustment).clamp(0, SEMVMX);
                self.put(self.set.sem(num), value_word(value, who));
                let (index, word) = self.adjustment_word(record, num, 0);
                self.put(index, word);
                self.commit();
            }
        }
    }
}
