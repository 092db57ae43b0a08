// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the dead leave in a set beside the lock and their places: what they would have undone, and
//! lists of operations.

use super::values::value_word;
use super::{Locked, Set, SetMap, Surroundings, Who, word_of};
use crate::cell::Cell64;
use crate::region::Kind;
use crate::region::map::With;
use crate::region::recover::Busy;
use vshmem_abi::limits::SEMVMX;
use vshmem_abi::region::{INTENT, INTENT_WHO, SCAN};
use vshmem_abi::set::{self, Shape, intent, undo};
use vshmem_abi::token::Token;

impl<C: Cell64> Set<'_, C> {
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
    /// Frees long lists whose waiter never came to be.
    pub(super) fn sweep_longs(&mut self) {
        let longs = (self.load(set::LONG_HIGH) as u32).min(self.region.shape.longs);
        for long in 0..longs {
            let at = self.region.long(long);
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
    pub(super) fn undo_of(&mut self, is_dead: impl Fn(Token) -> bool, pid: i32, now: i64) {
        let mut any = false;
        for record in 0..self.undo_high() {
            let at = self.region.undo(record);
            let token = Token::from_raw(self.load(at + undo::TOKEN));
            if token == Token::NONE || !is_dead(token) {
                continue;
            }
            self.store(INTENT_WHO, Who::new(pid, token.domid()).0);
            self.store(INTENT, word_of(intent::UNDO as u32, record));
            self.apply_adjustments(record);
            self.store(INTENT, SCAN);
            self.store(at + undo::TOKEN, Token::NONE.raw());
            any = true;
        }
        if any {
            Shape::finish_intent(self, now);
            self.stamp(now);
        }
    }

    /// Applies what is left of an undo record. Each semaphore is one step, so one who dies in between
    /// has applied a part of it, and the next does the rest.
    pub(super) fn apply_adjustments(&mut self, record: u32) {
        let who = Who(self.load(INTENT_WHO));
        for num in 0..self.region.shape.sems {
            let adjustment = self.adjustment(record, num);
            if adjustment != 0 {
                let value = (self.value(num) + adjustment).clamp(0, SEMVMX);
                self.put(self.region.sem(num), value_word(value, who));
                let (index, word) = self.adjustment_word(record, num, 0);
                self.put(index, word);
                self.commit();
            }
        }
    }
}

impl SetMap {
    /// [`Set::apply_undo`] for a daemon.
    ///
    /// # Errors
    /// [`Busy`].
    pub fn apply_undo(
        &self,
        undoer: Token,
        pid: i32,
        now: i64,
        with: &With<'_>,
    ) -> Result<(), Busy> {
        let around = self.daemon(with);
        self.region().apply_undo(with.me, undoer, pid, now, &around)
    }
}
