// SPDX-License-Identifier: MIT OR Apache-2.0
//! Semaphore sets: the semantics of the kernel's `ipc/sem.c` over a region that many processes of
//! several domains share ([`vshmem_abi::set`] is its layout).
//!
//! Whoever wants to do something takes the set's lock ([`Set::lock`]), whose word names it, does it
//! through [`Locked`], and gives the lock back. A blocked caller leaves a record in the queue; it is
//! the one who changes a value that carries out the operations of those who wait for it, in the
//! kernel's order, and tells them. So nothing is left to be decided when a sleeper wakes.
//!
//! The holder of the lock can die at any instruction. Every word that it changes in a way that counts
//! is written to a journal first, with its old value; what cannot be done in one step is announced
//! ([`vshmem_abi::set::INTENT`]) and can be done again. [`recover`] rolls back or forward.
//!
//! Nothing that is read from a region is believed: indices are checked, walks are bounded, and what
//! a set's sizes are was read once ([`map::SetMap`]).

mod control;
mod locked;
pub mod map;
mod queue;
pub mod recover;
mod semop;

pub use locked::Locked;
pub use map::SetMap;
pub use semop::{Call, Outcome};

use crate::cell::Cell64;
use std::ffi::c_int;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use vshmem_abi::set::{self, Shape, waiter};
use vshmem_abi::token::Token;

/// `SEM_UNDO` of `sys/sem.h`.
pub const SEM_UNDO: u16 = 0x1000;
/// `IPC_NOWAIT` as `sem_flg` has it.
pub const NOWAIT: u16 = libc::IPC_NOWAIT as u16;

/// Who a process is to others: pid and domain, as they stand in a semaphore's word above its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who(u64);

impl Who {
    const BITS: u32 = 24;
    const MASK: u64 = (1 << Self::BITS) - 1;

    /// Process `pid`, as it sees itself, of domain `domid`.
    pub const fn new(pid: i32, domid: u32) -> Self {
        Self((pid as u64 & Self::MASK) | (domid as u64 & Self::MASK) << Self::BITS)
    }

    /// The pid, if the process is one of `domid`, else 0: what the kernel gives for a process of
    /// another pid namespace.
    pub const fn pid_in(self, domid: u32) -> i32 {
        if self.0 >> Self::BITS == domid as u64 & Self::MASK {
            (self.0 & Self::MASK) as i32
        } else {
            0
        }
    }
}

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

/// What the engine needs from the process it runs in.
pub trait Surroundings {
    /// Its domain.
    fn domid(&self) -> u32;

    /// Whether the thread, or process, that holds `slot` of this domain's wait page is dead.
    fn is_dead(&self, slot: u32) -> bool;

    /// Wakes whoever sleeps on the post word of `waiter`. Called without the lock as a rule; with
    /// it when there are very many.
    fn wake(&self, waiter: u32);
}

/// A word's two halves.
#[inline]
const fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

#[inline]
const fn word_of(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// A set's region, as words.
pub struct Set<'a, C> {
    words: &'a [C],
    shape: Shape,
}

impl<C> Clone for Set<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Set<'_, C> {}

impl<'a, C: Cell64> Set<'a, C> {
    /// Over words that are known to be a set's of this shape; `None` when they are too few.
    pub fn new(words: &'a [C], shape: Shape) -> Option<Self> {
        (shape.is_sound() && words.len() >= shape.words()).then_some(Self { words, shape })
    }

    /// Writes the constant words of a new set, whose region is zeroed.
    pub fn init(&self, id: i32) {
        let shape = &self.shape;
        self.at(set::SHAPE_SEMS)
            .store(word_of(shape.sems, shape.ops), Relaxed);
        self.at(set::SHAPE_WAITERS)
            .store(word_of(shape.waiters, shape.undos), Relaxed);
        self.at(set::SHAPE_LONGS)
            .store(word_of(shape.longs, 0), Relaxed);
        self.at(set::IDENT).store(id as u32 as u64, Relaxed);
        self.at(set::MAGIC).store(set::SET_MAGIC, Release);
    }

    /// Reads the shape that the first words tell.
    pub fn shape_told(words: &[C]) -> Option<Shape> {
        let word = |at: usize| words.get(at).map(|word| halves(word.load(Relaxed)));
        if words.get(set::MAGIC)?.load(Acquire) != set::SET_MAGIC {
            return None;
        }
        let (sems, ops) = word(set::SHAPE_SEMS)?;
        let (waiters, undos) = word(set::SHAPE_WAITERS)?;
        let (longs, _) = word(set::SHAPE_LONGS)?;
        let shape = Shape {
            sems,
            ops,
            waiters,
            undos,
            longs,
        };
        shape.is_sound().then_some(shape)
    }

    /// The sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The word at an index that was computed from the shape. There is always one; were there not,
    /// a wrong word is better than the end of somebody's program.
    #[inline(always)]
    fn at(&self, index: usize) -> &'a C {
        match self.words.get(index) {
            Some(word) => word,
            None => {
                debug_assert!(false, "word {index} of {}", self.words.len());
                &self.words[0]
            }
        }
    }

    #[inline(always)]
    fn load(&self, index: usize) -> u64 {
        self.at(index).load(Relaxed)
    }

    /// Takes the lock for `me` if nobody has it.
    #[inline(always)]
    pub fn try_lock<'b, S: Surroundings>(
        &'b self,
        me: Token,
        around: &'b S,
    ) -> Option<Locked<'a, 'b, C, S>> {
        self.try_acquire(me).then(|| self.acquired(around))
    }

    /// Takes the lock for `me` if nobody has it; what can be done then, [`Self::acquired`] gives. For
    /// those who hand it from function to function: the two apart need not go through memory.
    #[inline(always)]
    pub fn try_acquire(&self, me: Token) -> bool {
        // Acquire: pairs with the Release of `Locked::unlock`.
        self.at(set::LOCK)
            .compare_exchange(Token::NONE.raw(), me.raw(), Acquire, Relaxed)
            .is_ok()
    }

    /// The right that [`Self::try_acquire`] has won.
    #[inline(always)]
    pub fn acquired<'b, S: Surroundings>(&'b self, around: &'b S) -> Locked<'a, 'b, C, S> {
        Locked::begin(self, around)
    }

    /// Gives back a lock under which nothing was done.
    pub fn let_go(&self) {
        self.at(set::LOCK).store(Token::NONE.raw(), Release);
    }

    /// Who holds the lock.
    pub fn lock_holder(&self) -> Token {
        Token::from_raw(self.load(set::LOCK))
    }

    /// Whether the region is still that of the set `id`. To be asked with the lock held: a region
    /// that is given back reads zeroes.
    #[inline(always)]
    pub fn is(&self, id: i32) -> bool {
        self.load(set::IDENT) == id as u32 as u64
    }

    /// `sem_otime`, and the time of the last `SETVAL` or `SETALL`; seconds since the epoch, or 0.
    pub fn times(&self) -> (i64, i64) {
        (self.load(set::OTIME) as i64, self.load(set::CTIME) as i64)
    }

    /// The post word of a waiter: what it looks at, and sleeps on.
    pub fn post(&self, index: u32) -> &'a C {
        self.at(self.waiter(index) + waiter::POST)
    }

    /// Tells a waiter that the set is gone, unless its operations were done before; `true` if it has to
    /// be woken.
    pub fn post_gone(&self, index: u32) -> bool {
        if index >= self.shape.waiters {
            return false;
        }
        let post = self.post(index);
        let mut told = post.load(Relaxed);
        // A waiter changes the word twice at the most, and who serves it once.
        for _ in 0..4 {
            if told == waiter::POSTED {
                return false;
            }
            // Release: pairs with the Acquire of the waiter's look.
            match post.compare_exchange(told, waiter::GONE, Release, Relaxed) {
                Ok(_) => return told == waiter::ASLEEP,
                Err(other) => told = other,
            }
        }
        false
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

    fn waiter(&self, index: u32) -> usize {
        self.shape.waiters_at() + index as usize * waiter::WORDS
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
