// SPDX-License-Identifier: MIT OR Apache-2.0
//! The carrying out of operations, and undo records.

use super::{Locked, NOWAIT, Op, Performed, SEM_UNDO, Surroundings, Who};
use crate::cell::Cell64;
use std::sync::atomic::Ordering::Relaxed;
use vshmem_abi::limits::{SEMAEM, SEMVMX};
use vshmem_abi::set::{self, undo};
use vshmem_abi::token::Token;

impl<C: Cell64, S: Surroundings> Locked<'_, '_, C, S> {
    /// Carries out `count` operations, all or none (`perform_atomic_semop`). `record` is the undo
    /// record of the process, which it has if one of them has `SEM_UNDO`. What is done has to be
    /// committed.
    #[inline(always)]
    pub(super) fn perform(
        &mut self,
        count: usize,
        op: impl Fn(usize) -> Op,
        record: Option<u32>,
        who: Who,
    ) -> Performed {
        for place in 0..count {
            if let Err(stopped) = self.perform_one(op(place), place, record, who) {
                self.roll_back();
                return stopped;
            }
        }
        self.count_call();
        Performed::Done
    }

    #[inline(always)]
    fn perform_one(
        &mut self,
        op: Op,
        place: usize,
        record: Option<u32>,
        who: Who,
    ) -> Result<(), Performed> {
        if op.num() >= self.region.shape.sems {
            return Err(Performed::Failed(libc::EFBIG));
        }
        let index = self.region.sem(op.num());
        let value = (self.load(index) & 0xffff) as i32;
        let result = value + op.change();
        if (op.change() == 0 && value != 0) || result < 0 {
            return Err(if op.has(NOWAIT) {
                Performed::Failed(libc::EAGAIN)
            } else {
                Performed::Blocked(place as u32)
            });
        }
        if result > SEMVMX {
            return Err(Performed::Failed(libc::ERANGE));
        }
        if op.has(SEM_UNDO)
            && let Some(record) = record
        {
            let adjusted = self.adjustment(record, op.num()) - op.change();
            if !(-SEMAEM - 1..=SEMAEM).contains(&adjusted) {
                return Err(Performed::Failed(libc::ERANGE));
            }
            let (index, word) = self.adjustment_word(record, op.num(), adjusted);
            self.put(index, word);
        }
        self.put(index, value_word(result, who));
        Ok(())
    }

    /// Carries out one operation without undo on a set without waiters: a single store, which needs
    /// no journal.
    #[inline(always)]
    pub(super) fn perform_alone(&mut self, op: Op, who: Who, now: i64) -> Performed {
        if op.num() >= self.region.shape.sems {
            return Performed::Failed(libc::EFBIG);
        }
        let index = self.region.sem(op.num());
        let value = (self.load(index) & 0xffff) as i32;
        let result = value + op.change();
        if (op.change() == 0 && value != 0) || result < 0 {
            return if op.has(NOWAIT) {
                Performed::Failed(libc::EAGAIN)
            } else {
                Performed::Blocked(0)
            };
        }
        if result > SEMVMX {
            return Performed::Failed(libc::ERANGE);
        }
        self.count_call();
        self.store(set::OTIME, now as u64);
        self.store(index, value_word(result, who));
        Performed::Done
    }

    fn adjustment_index(&self, record: u32, num: u32) -> (usize, u32) {
        let index = self.region.undo(record) + undo::ADJUST + num as usize / 4;
        (index, num % 4 * 16)
    }

    /// What the undo record adds to a semaphore when its process ends.
    pub(super) fn adjustment(&self, record: u32, num: u32) -> i32 {
        let (index, shift) = self.adjustment_index(record, num);
        (self.load(index) >> shift) as u16 as i16 as i32
    }

    /// The word that holds it, with another adjustment in it.
    pub(super) fn adjustment_word(&self, record: u32, num: u32, adjusted: i32) -> (usize, u64) {
        let (index, shift) = self.adjustment_index(record, num);
        let word = self.load(index) & !(0xffff << shift) | (adjusted as u16 as u64) << shift;
        (index, word)
    }

    /// Undo records that may be in use.
    pub(super) fn undo_high(&self) -> u32 {
        (self.load(set::UNDO_HIGH) as u32).min(self.region.shape.undos)
    }

    /// The undo record of the process with undo token `token`, whose slot in its domain's wait page
    /// is `slot`; a free one if it has none. `None`: all are in use.
    pub fn undo_record(&mut self, token: Token, slot: u32) -> Option<u32> {
        let of = |record: u32| self.load(self.region.undo(record) + undo::TOKEN);
        let high = self.undo_high();
        if let Some(own) = (0..high).find(|&record| of(record) == token.raw()) {
            self.store(self.region.undo(own) + undo::SLOT, slot.into());
            return Some(own);
        }
        let free = (0..high).find(|&record| of(record) == Token::NONE.raw());
        let record = free.unwrap_or(high);
        if record >= self.region.shape.undos {
            return None;
        }
        // One that dies after this leaves a record that is free.
        self.store(set::UNDO_HIGH, high.max(record + 1).into());
        self.store(self.region.undo(record) + undo::SLOT, slot.into());
        self.store(self.region.undo(record) + undo::TOKEN, token.raw());
        Some(record)
    }

    /// Whether `record` is that of the process with undo token `token`.
    #[inline(always)]
    pub fn is_undo_of(&self, record: u32, token: Token) -> bool {
        record < self.region.shape.undos
            && self.load(self.region.undo(record) + undo::TOKEN) == token.raw()
    }

    /// Whether a process of this domain seems to be dead that has undo left here: what the set says
    /// may be out of date until `vshmemd` has looked.
    pub fn has_undo_of_the_dead(&self) -> bool {
        (0..self.undo_high()).any(|record| {
            let at = self.region.undo(record);
            let token = Token::from_raw(self.load(at + undo::TOKEN));
            token != Token::NONE
                && token.domid() == self.around.domid()
                && self.around.is_dead(self.load(at + undo::SLOT) as u32)
                && (0..self.adjustment_words()).any(|word| self.load(at + undo::ADJUST + word) != 0)
        })
    }

    pub(super) fn adjustment_words(&self) -> usize {
        (self.region.shape.sems as usize).div_ceil(4)
    }

    /// Value of a semaphore, which is one of the set's.
    pub(super) fn value(&self, num: u32) -> i32 {
        (self.load(self.region.sem(num)) & 0xffff) as i32
    }

    /// Counts a `semop` that is done. In the line that has the lock, which costs nothing that could be
    /// measured.
    #[inline(always)]
    fn count_call(&self) {
        self.store(set::CALLS, self.load(set::CALLS).wrapping_add(1));
    }

    /// Notes the time of a `semop` that succeeded.
    pub(super) fn stamp(&self, now: i64) {
        self.region.at(set::OTIME).store(now as u64, Relaxed);
    }
}

/// A semaphore's word.
#[inline(always)]
pub(super) const fn value_word(value: i32, who: Who) -> u64 {
    (value as u64 & 0xffff) | who.0 << 16
}
