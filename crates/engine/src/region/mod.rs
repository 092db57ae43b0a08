// SPDX-License-Identifier: MIT OR Apache-2.0
//! What semaphore sets and message queues have in common: a region that many processes of several
//! domains share ([`vshmem_abi::region`] is its layout), with a lock, a journal, and waiters.
//!
//! Whoever wants to do something takes the lock ([`Region::try_lock`]), whose word names it, does it
//! through [`Locked`], and gives the lock back. A blocked caller leaves a record in a line; it is
//! the one who makes room, or a value, or a message, who carries out what those wait for, in the
//! kernel's order, and tells them. So nothing is left to be decided when a sleeper wakes.
//!
//! The holder of the lock can die at any instruction. Every word that it changes in a way that counts
//! is written to a journal first, with its old value; what cannot be done in one step is announced
//! ([`vshmem_abi::region::INTENT`]) and can be done again. [`recover`] rolls back or forward.
//!
//! Nothing that is read from a region is believed: indices are checked, walks are bounded, and what
//! the sizes are was read once ([`map::RegionMap`]).

pub(crate) mod line;
mod locked;
pub mod map;
pub mod recover;
pub(crate) mod waiting;

pub use locked::Locked;
pub use map::RegionMap;

use crate::cell::Cell64;
use recover::Dead;
use std::ffi::c_int;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use vshmem_abi::region::{self, Layout, SHAPE_WORDS, waiter};
use vshmem_abi::token::Token;
use waiting::Waiting;

/// Who a process is to others: pid and domain, as they stand in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who(pub(crate) u64);

impl Who {
    const BITS: u32 = 24;
    const MASK: u64 = (1 << Self::BITS) - 1;

    /// Process `pid`, as it sees itself, of domain `domid`.
    pub const fn new(pid: i32, domid: u32) -> Self {
        Self((pid as u64 & Self::MASK) | (domid as u64 & Self::MASK) << Self::BITS)
    }

    /// The pid, as the process sees itself, and its domain.
    pub const fn parts(self) -> (i32, u32) {
        let domid = (self.0 >> Self::BITS) & Self::MASK;
        ((self.0 & Self::MASK) as i32, domid as u32)
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

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The client.
    pub token: Token,
    /// The process, as it stands in what it changes.
    pub who: Who,
    /// Seconds since the epoch.
    pub now: i64,
}

/// What the engine needs from the process it runs in.
pub trait Surroundings {
    /// Its domain.
    fn domid(&self) -> u32;

    /// Whether the thread, or process, that holds `slot` of this domain's wait page is dead.
    fn is_dead(&self, slot: u32) -> bool;

    /// Wakes whoever sleeps at `waiter`. Called without the lock.
    fn wake(&self, waiter: u32);

    /// The same with the lock held: there are very many. What takes longer may be left until
    /// [`Self::wake`], which is called soon afterwards.
    fn wake_locked(&self, waiter: u32) {
        self.wake(waiter);
    }
}

/// A word's two halves.
#[inline]
pub(crate) const fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

#[inline]
pub(crate) const fn word_of(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// A kind of construct: what it does beside what is done here.
pub trait Kind: Layout {
    /// Does what was begun beyond the journal ([`region::INTENT`]), as often as need be.
    fn finish_intent<C: Cell64, S: Surroundings>(locked: &mut Locked<'_, '_, C, S, Self>, now: i64);

    /// Takes a waiter out of the lines that it is in; to be committed.
    fn leave<C: Cell64, S: Surroundings>(locked: &mut Locked<'_, '_, C, S, Self>, who: Waiting);

    /// Frees what the record of a waiter has, who is in no line any more; to be committed.
    fn free<C: Cell64, S: Surroundings>(locked: &mut Locked<'_, '_, C, S, Self>, who: Waiting);

    /// Whether somebody may have something of the region in its hands who does not wait: looked at
    /// without the lock.
    fn has_something_out<C: Cell64>(region: &Region<'_, C, Self>) -> bool;

    /// Clears away what the dead have left beside their records.
    fn sweep<C: Cell64, S: Surroundings>(
        locked: &mut Locked<'_, '_, C, S, Self>,
        dead: Dead,
        now: i64,
    );
}

/// A region, as words.
pub struct Region<'a, C, K> {
    words: &'a [C],
    pub(crate) shape: K,
}

impl<C, K: Copy> Clone for Region<'_, C, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C, K: Copy> Copy for Region<'_, C, K> {}

impl<'a, C: Cell64, K: Kind> Region<'a, C, K> {
    /// Over words that are known to be of this shape; `None` when they are too few.
    pub fn new(words: &'a [C], shape: K) -> Option<Self> {
        (shape.is_sound() && words.len() >= shape.words()).then_some(Self { words, shape })
    }

    /// Writes the constant words of a new construct, whose region is zeroed.
    pub fn init(&self, id: i32) {
        for (place, word) in (region::SHAPE..).zip(self.shape.tell()) {
            self.at(place).store(word, Relaxed);
        }
        self.at(region::IDENT).store(id as u32 as u64, Relaxed);
        self.at(region::MAGIC).store(K::MAGIC, Release);
    }

    /// Reads the shape that the first words tell.
    pub fn shape_told(words: &[C]) -> Option<K> {
        if words.get(region::MAGIC)?.load(Acquire) != K::MAGIC {
            return None;
        }
        let mut told = [0; SHAPE_WORDS];
        for (to, word) in told.iter_mut().zip(words.get(region::SHAPE..)?) {
            *to = word.load(Relaxed);
        }
        let shape = K::told(told);
        shape.is_sound().then_some(shape)
    }

    /// The sizes.
    pub fn shape(&self) -> &K {
        &self.shape
    }

    /// The word at an index that was computed from the shape. There is always one; were there not,
    /// a wrong word is better than the end of somebody's program.
    #[inline(always)]
    pub(crate) fn at(&self, index: usize) -> &'a C {
        match self.words.get(index) {
            Some(word) => word,
            None => {
                debug_assert!(false, "word {index} of {}", self.words.len());
                &self.words[0]
            }
        }
    }

    /// Some words in a row; `None` when there are not as many.
    #[inline]
    pub(crate) fn words(&self, from: usize, count: usize) -> Option<&'a [C]> {
        self.words.get(from..from.checked_add(count)?)
    }

    #[inline(always)]
    pub(crate) fn load(&self, index: usize) -> u64 {
        self.at(index).load(Relaxed)
    }

    /// Takes the lock for `me` if nobody has it.
    #[inline(always)]
    pub fn try_lock<'b, S: Surroundings>(
        &'b self,
        me: Token,
        around: &'b S,
    ) -> Option<Locked<'a, 'b, C, S, K>> {
        self.try_acquire(me).then(|| self.acquired(around))
    }

    /// Takes the lock for `me` if nobody has it; what can be done then, [`Self::acquired`] gives. For
    /// those who hand it from function to function: the two apart need not go through memory.
    #[inline(always)]
    pub fn try_acquire(&self, me: Token) -> bool {
        // Acquire: pairs with the Release of `Locked::unlock`.
        self.at(region::LOCK)
            .compare_exchange(Token::NONE.raw(), me.raw(), Acquire, Relaxed)
            .is_ok()
    }

    /// The right that [`Self::try_acquire`] has won.
    #[inline(always)]
    pub fn acquired<'b, S: Surroundings>(&'b self, around: &'b S) -> Locked<'a, 'b, C, S, K> {
        Locked::begin(self, around)
    }

    /// Gives back a lock under which nothing was done.
    pub fn let_go(&self) {
        self.at(region::LOCK).store(Token::NONE.raw(), Release);
    }

    /// Who holds the lock.
    pub fn lock_holder(&self) -> Token {
        Token::from_raw(self.load(region::LOCK))
    }

    /// Whether the client `token`, if it is dead, may have left something here though it does not wait:
    /// then [`Self::clean_up`] has to look.
    pub fn may_concern(&self, token: Token) -> bool {
        self.lock_holder() == token || K::has_something_out(self)
    }

    /// Whether somebody has been served, or has something in its hands, and has not taken it: for a
    /// construct that is gone, of which that is still its own. Looked at without the lock.
    pub fn is_awaited(&self) -> bool {
        let high = (self.load(region::WAITER_HIGH) as u32).min(self.shape.waiters());
        let untaken = |index: u32| {
            let state = self.load(self.waiter(index) + waiter::STATE);
            state & 0xff == waiter::DONE && self.look(index) == waiter::POSTED
        };
        K::has_something_out(self) || (0..high).any(untaken)
    }

    /// Whether the region is still that of the construct `id`. To be asked with the lock held: a region
    /// that is given back reads zeroes.
    #[inline(always)]
    pub fn is(&self, id: i32) -> bool {
        self.load(region::IDENT) == id as u32 as u64
    }

    /// The post word of a waiter: what it looks at, and sleeps on.
    pub fn post(&self, index: u32) -> &'a C {
        self.at(self.waiter(index) + waiter::POST)
    }

    /// Tells a waiter that the construct is gone, unless what it waits for was done before; `true` if it has to
    /// be woken.
    pub fn post_gone(&self, index: u32) -> bool {
        if index >= self.shape.waiters() {
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
    pub(crate) fn waiter(&self, index: u32) -> usize {
        self.shape.waiters_at() + index as usize * waiter::WORDS
    }
}

impl<C: Cell64, K: Kind> Region<'_, C, K> {
    /// What the waiter at `index` is told: one of the values of [`waiter::POST`].
    #[inline]
    pub fn look(&self, index: u32) -> u64 {
        // Acquire: pairs with the Release of who posts.
        self.post(index).load(Acquire)
    }

    /// The waiter at `index` is about to sleep; `false` if it was told something meanwhile.
    pub fn fall_asleep(&self, index: u32) -> bool {
        let post = self.post(index);
        post.compare_exchange(waiter::AWAKE, waiter::ASLEEP, Release, Relaxed)
            .is_ok()
            || post.load(Relaxed) == waiter::ASLEEP
    }

    /// The result of the waiter at `index`, which was told that it is there: 0, or the errno of its
    /// call. One that the kernel does not have was written there by a peer: `EIDRM`.
    pub fn result(&self, index: u32) -> c_int {
        /// `EHWPOISON`, the last one of `errno.h`.
        const LAST: u32 = 133;
        match halves(self.load(self.waiter(index) + waiter::OUTCOME)) {
            (_, errno @ 0..=LAST) => errno as c_int,
            _ => libc::EIDRM,
        }
    }

    /// Where the waiter at `index` sleeps, if it does not sleep here: its domain, and its slot in that
    /// domain's wait page. Either may be any number: a peer can write here. `None`: nobody was ever there.
    pub fn place_of(&self, index: u32) -> Option<(u32, u32)> {
        if index >= self.shape.waiters() {
            return None;
        }
        let at = self.waiter(index);
        let token = Token::from_raw(self.load(at + waiter::TOKEN));
        let (slot, _) = halves(self.load(at + waiter::PLACE));
        (token != Token::NONE).then(|| (token.domid(), slot))
    }

    /// Frees the record of a waiter that has its result, and nothing else.
    pub(crate) fn free_record(&self, index: u32) {
        let at = self.waiter(index);
        self.at(at + waiter::POST).store(waiter::IDLE, Relaxed);
        // Release: the record's words were read before it is used again.
        self.at(at + waiter::STATE).store(waiter::FREE, Release);
    }
}
