// SPDX-License-Identifier: MIT OR Apache-2.0
//! Semaphore sets: the semantics of the kernel's `ipc/sem.c` over a shared [`region`]
//! ([`vshmem_abi::set`] is the layout).
//!
//! It is the one who changes a value that carries out the operations of those who wait for it, in the
//! kernel's order, and tells them.

mod control;
pub mod look;
mod recover;
mod scan;
mod semop;
mod values;

pub use semop::{Call, Outcome};

use crate::cell::Cell64;
use crate::region::{self, Region, RegionMap, Surroundings, Who, halves, word_of};
use std::ffi::c_int;
use vshmem_abi::set::{self, Shape};

/// `SEM_UNDO` of `sys/sem.h`.
pub const SEM_UNDO: u16 = 0x1000;
/// `IPC_NOWAIT` as `sem_flg` has it.
pub const NOWAIT: u16 = libc::IPC_NOWAIT as u16;

/// One operation of a `semop`: `sem_num`, `sem_op` and `sem_flg`, 16 bits each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op(pub u64);

impl Op {
    /// As the fields of `struct sembuf` say.
    #[inline]
    pub const fn new(num: u16, op: i16, flags: u16) -> Self {
        Self(num as u64 | (op as u16 as u64) << 16 | (flags as u64) << 32)
    }

    /// `sem_num`.
    #[inline]
    pub const fn num(self) -> u32 {
        (self.0 & 0xffff) as u32
    }

    /// `sem_op`.
    #[inline]
    pub const fn change(self) -> i32 {
        (self.0 >> 16) as u16 as i16 as i32
    }

    /// Whether `flag` is set in `sem_flg`.
    #[inline]
    pub const fn has(self, flag: u16) -> bool {
        (self.0 >> 32) as u16 & flag != 0
    }
}

/// A set's region, as words.
pub type Set<'a, C> = Region<'a, C, Shape>;

/// The right to change a set.
pub type Locked<'a, 'b, C, S> = region::Locked<'a, 'b, C, S, Shape>;

/// A mapping of a set's region.
pub type SetMap = RegionMap<Shape>;

impl<C: Cell64> Set<'_, C> {
    /// `sem_otime`, and the time of the last `SETVAL` or `SETALL`; seconds since the epoch, or 0.
    pub fn times(&self) -> (i64, i64) {
        (self.load(set::OTIME) as i64, self.load(set::CTIME) as i64)
    }

    /// Calls of `semop` that were done, as far as it says.
    pub fn calls(&self) -> u64 {
        self.load(set::CALLS)
    }

    #[inline(always)]
    fn sem(&self, num: u32) -> usize {
        self.shape.sems_at() + num as usize
    }

    fn sem_queue(&self, num: u32) -> usize {
        self.shape.queues_at() + num as usize
    }

    fn undo(&self, record: u32) -> usize {
        self.shape.undos_at() + record as usize * self.shape.undo_words()
    }

    fn long(&self, index: u32) -> usize {
        self.shape.longs_at() + index as usize * self.shape.long_words()
    }
}

/// What came of an attempt to carry out a call's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Performed {
    /// All of them are done; not committed yet.
    Done,
    /// This one, by its place in the call, has to wait. Nothing has changed.
    Blocked(u32),
    /// The call fails with this errno. Nothing has changed.
    Failed(c_int),
}

#[cfg(test)]
mod tests;
