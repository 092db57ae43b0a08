// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `semctl` does with values and waiters.

use super::scan::Changed;
use super::values::value_word;
use super::{Locked, Surroundings, Who, halves, word_of};
use crate::cell::Cell64;
use vshmem_abi::region::{INTENT, INTENT_WHO, SCAN};
use vshmem_abi::set::{self, intent, undo};

impl<C: Cell64, S: Surroundings> Locked<'_, '_, C, S> {
    /// `GETVAL`. `num` is one of the set's, here and below.
    pub fn get_value(&self, num: u32) -> i32 {
        self.value(num)
    }

    /// `GETPID`: as this domain sees it.
    pub fn get_pid(&self, num: u32) -> i32 {
        Who(self.load(self.region.sem(num)) >> 16).pid_in(self.around.domid())
    }

    /// `GETZCNT` and `GETNCNT`: who waits for the semaphore to become zero, or to grow.
    pub fn get_count(&self, num: u32, for_zero: bool) -> u32 {
        self.count_waiting(num, for_zero)
    }

    /// `SETVAL`: sets the value, which is one that a semaphore can have, forgets what processes would
    /// undo of it, and carries out what becomes possible.
    pub fn set_value(&mut self, num: u32, value: i32, who: Who, now: i64) {
        self.put(self.region.sem(num), value_word(value, who));
        self.put(set::CTIME, now as u64);
        self.put(INTENT, word_of(intent::CLEAR_UNDO as u32, num));
        self.commit();
        self.finish_intent(now);
    }

    /// `SETALL`: as [`Self::set_value`], of all semaphores. What `values` has not is 0.
    pub fn set_all(&mut self, values: &[u16], who: Who, now: i64) {
        let staged = self.region.shape.staged_at();
        for word in 0..self.adjustment_words() {
            let four = (0..4).fold(0, |all, place| {
                let value = values.get(word * 4 + place).copied().unwrap_or(0);
                all | u64::from(value) << (place * 16)
            });
            self.store(staged + word, four);
        }
        self.store(INTENT_WHO, who.0);
        self.put(set::CTIME, now as u64);
        self.put(INTENT, intent::SET_ALL);
        self.commit();
        self.finish_intent(now);
    }

    /// Does what was begun, as often as need be.
    pub(super) fn finish_intent(&mut self, now: i64) {
        let (kind, num) = halves(self.load(INTENT));
        match u64::from(kind) {
            0 => return,
            intent::CLEAR_UNDO if num < self.region.shape.sems => self.clear_undo(num),
            intent::SET_ALL => self.copy_staged(),
            intent::UNDO if num < self.region.shape.undos => self.apply_adjustments(num),
            _ => {}
        }
        self.store(INTENT, SCAN);
        if self.scan(Changed::Anything) {
            self.stamp(now);
        }
    }

    fn clear_undo(&mut self, num: u32) {
        for record in 0..self.undo_high() {
            let (index, word) = self.adjustment_word(record, num, 0);
            if self.load(index) != word {
                self.store(index, word);
            }
        }
    }

    fn copy_staged(&mut self) {
        let who = Who(self.load(INTENT_WHO));
        let staged = self.region.shape.staged_at();
        for num in 0..self.region.shape.sems {
            let value = self.load(staged + num as usize / 4) >> (num % 4 * 16);
            self.store(self.region.sem(num), value_word(value as u16 as i32, who));
        }
        for record in 0..self.undo_high() {
            let at = self.region.undo(record) + undo::ADJUST;
            for word in 0..self.adjustment_words() {
                if self.load(at + word) != 0 {
                    self.store(at + word, 0);
                }
            }
        }
    }
}
