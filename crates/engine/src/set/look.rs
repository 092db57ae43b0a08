// SPDX-License-Identifier: MIT OR Apache-2.0
//! A set as somebody sees it who does not use it: for reports to people. Nothing is locked, so each
//! word is of a moment of its own, and nobody has to wait for the reader.

use super::{Op, Set, Who, halves};
use crate::cell::Cell64;
use vshmem_abi::region::{self, waiter};
use vshmem_abi::set::{self, ALTERS, undo};
use vshmem_abi::token::Token;

/// A semaphore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Semaphore {
    /// Its value.
    pub value: i32,
    /// Who changed it last: pid as that process sees it, and domain.
    pub who: (i32, u32),
}

/// A `semop` that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleeper {
    /// Pid as the process sees it, and domain.
    pub who: (i32, u32),
    /// The operation that it waits for; 0 as [`Op::change`]: until the semaphore is zero.
    pub op: Op,
    /// Operations of the call.
    pub ops: u32,
    /// Whether one of them changes a semaphore.
    pub alters: bool,
}

/// What the end of a process will do to a semaphore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjustment {
    /// Undo token of the process.
    pub token: Token,
    /// The semaphore.
    pub num: u32,
    /// What will be added to it.
    pub adjust: i32,
}

impl<C: Cell64> Set<'_, C> {
    /// The semaphores, in their order.
    pub fn semaphores(&self) -> impl Iterator<Item = Semaphore> {
        (0..self.shape.sems).map(|num| {
            let word = self.load(self.sem(num));
            Semaphore {
                value: (word & 0xffff) as i32,
                who: Who(word >> 16).parts(),
            }
        })
    }

    /// Those who wait, in no order.
    pub fn sleepers(&self) -> impl Iterator<Item = Sleeper> {
        let high = (self.load(region::WAITER_HIGH) as u32).min(self.shape.waiters);
        (0..high).filter_map(|index| {
            let at = self.waiter(index);
            let state = self.load(at + waiter::STATE);
            let place = halves(self.load(at + waiter::OUTCOME)).0;
            let ops = (state >> 16) as u32 & 0xffff;
            let op_at = match ((state >> 32) as u32).checked_sub(1) {
                None => at + waiter::OPS + place.min(waiter::INLINE as u32 - 1) as usize,
                Some(long) if long < self.shape.longs => {
                    self.long(long) + 1 + place.min(self.shape.ops - 1) as usize
                }
                Some(_) => return None,
            };
            (state & 0xff == waiter::QUEUED).then(|| Sleeper {
                who: Who(self.load(at + waiter::WHO)).parts(),
                op: Op(self.load(op_at)),
                ops,
                alters: state & ALTERS != 0,
            })
        })
    }

    /// What processes would undo. Records of sets with very many semaphores are long: `words` of them
    /// are looked at, at the most.
    pub fn adjustments(&self, words: usize) -> impl Iterator<Item = Adjustment> {
        let high = (self.load(set::UNDO_HIGH) as u32).min(self.shape.undos);
        let each = self.shape.sems.div_ceil(4);
        let all = (0..high).flat_map(move |record| (0..each).map(move |word| (record, word)));
        all.take(words).flat_map(move |(record, word)| {
            let at = self.undo(record);
            let token = Token::from_raw(self.load(at + undo::TOKEN));
            let four = match token {
                Token::NONE => 0,
                _ => self.load(at + undo::ADJUST + word as usize),
            };
            (0..4).filter_map(move |place| {
                let num = word * 4 + place;
                let adjust = i32::from((four >> (place * 16)) as u16 as i16);
                (adjust != 0 && num < self.shape.sems).then_some(Adjustment { token, num, adjust })
            })
        })
    }
}
