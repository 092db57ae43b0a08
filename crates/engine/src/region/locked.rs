// SPDX-License-Identifier: MIT OR Apache-2.0
//! A region whose lock is held: the journal, and whom to wake.

use super::{Kind, Region, Surroundings};
use crate::cell::Cell64;
use std::sync::atomic::Ordering::Release;
use vshmem_abi::region;
use vshmem_abi::token::Token;

/// Sleepers that are woken after the lock was given back; those beyond are woken before.
const WAKES: usize = 8;

/// The right to change what is in a region. It has to be given back by [`Locked::unlock`]: dropping it leaves the
/// lock held, as a death does.
#[must_use]
pub struct Locked<'a, 'b, C, S, K> {
    pub(crate) region: &'b Region<'a, C, K>,
    pub(crate) around: &'b S,
    journaled: usize,
    wakes: usize,
    wake: [u32; WAKES],
}

impl<'a, 'b, C: Cell64, S: Surroundings, K: Kind> Locked<'a, 'b, C, S, K> {
    #[inline(always)]
    pub(crate) fn begin(region: &'b Region<'a, C, K>, around: &'b S) -> Self {
        Self {
            region,
            around,
            journaled: 0,
            wakes: 0,
            wake: [0; WAKES],
        }
    }

    /// The region.
    pub fn region(&self) -> Region<'a, C, K> {
        *self.region
    }

    /// Gives the lock back, and wakes those who were served.
    #[inline(always)]
    pub fn unlock(self) {
        // Release: pairs with the Acquire of `Region::try_lock`.
        self.region
            .at(region::LOCK)
            .store(Token::NONE.raw(), Release);
        for &waiter in self.wake.iter().take(self.wakes) {
            self.around.wake(waiter);
        }
    }

    #[inline(always)]
    pub(crate) fn load(&self, index: usize) -> u64 {
        self.region.load(index)
    }

    /// Changes a word of which the old value does not matter any more, or which means nothing yet.
    /// Release, here and below, so that whoever takes over from a dead holder finds its stores in the
    /// order in which they were made.
    #[inline(always)]
    pub(crate) fn store(&self, index: usize, value: u64) {
        self.region.at(index).store(value, Release);
    }

    /// [`Self::store`] of what is there already, as a rule: a cache line that others have to look at stays
    /// where it is then.
    #[inline(always)]
    pub(crate) fn note(&self, index: usize, value: u64) {
        if self.load(index) != value {
            self.store(index, value);
        }
    }

    /// Changes a word for as long as the change is not rolled back.
    #[inline(always)]
    pub(crate) fn put(&mut self, index: usize, value: u64) {
        let entry = K::JOURNAL + region::entry(self.journaled);
        self.store(entry, index as u64);
        self.store(entry + 1, self.load(index));
        self.journaled += 1;
        self.store(K::JOURNAL, self.journaled as u64);
        self.store(index, value);
    }

    /// Makes all changes since the last commit count, at once.
    #[inline(always)]
    pub(crate) fn commit(&mut self) {
        if self.journaled != 0 {
            self.journaled = 0;
            self.store(K::JOURNAL, 0);
        }
    }

    /// Takes back all changes since the last commit.
    pub(crate) fn roll_back(&mut self) {
        while self.journaled > 0 {
            self.journaled -= 1;
            let entry = K::JOURNAL + region::entry(self.journaled);
            let (index, old) = (self.load(entry) as usize, self.load(entry + 1));
            if index > region::IDENT && index < self.region.shape.words() {
                self.store(index, old);
            }
            self.store(K::JOURNAL, self.journaled as u64);
        }
    }

    /// Takes over a journal that a dead holder has left.
    pub(crate) fn adopt_journal(&mut self) {
        let left = self.load(K::JOURNAL) as usize;
        self.journaled = left.min(self.region.shape.journal_entries());
    }

    /// Remembers to wake a waiter.
    pub(crate) fn wake_later(&mut self, waiter: u32) {
        match self.wake.get_mut(self.wakes) {
            Some(place) => {
                *place = waiter;
                self.wakes += 1;
            }
            None => self.around.wake_locked(waiter),
        }
    }
}
