// SPDX-License-Identifier: MIT OR Apache-2.0
//! Doorbells: how a client wakes a sleeper of another domain, where a futex in the region does not
//! reach the other domain's kernel ([`vshmem_abi::doorbell`] is the layout).
//!
//! Whoever rings sets the bit of the sleeper's slot, then its bit of the summary, and then looks
//! whether the `vshmemd` that answers sleeps; only then the event channel is notified. That `vshmemd`
//! says that it is awake, takes the bits and wakes those slots, says that it is going to sleep, and
//! then looks at the summary once more. Each side writes, makes a full fence, and reads what the other
//! writes: at least one of them sees the other, so no ring is lost.
//!
//! Whoever rings keeps nothing in the page. One that is killed or stopped half-way holds up its own
//! ring alone, and [`Doorbell::mend`], which its `vshmemd` calls when a client has died, completes it.
//!
//! The other side may write anything anywhere. It can cause wake-ups that nobody needs, and keep its
//! own from being heard; [`Doorbell::answer`] takes a bounded time, and it is for its caller to see to
//! other work before it goes on.

use crate::cell::Cell64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use vshmem_abi::doorbell::{
    ANSWERS, ASLEEP, AWAKE, BITS, LIVES, RUNG, RUNG_WORDS, SUMMARY, SUMMARY_WORDS, WORDS,
};

/// A word in which bits can be set, and a fence that goes with it.
pub trait Bits: Cell64 {
    /// As [`std::sync::atomic::AtomicU64::fetch_or`].
    fn fetch_or(&self, bits: u64, order: std::sync::atomic::Ordering) -> u64;

    /// As [`std::sync::atomic::fence`].
    fn fence(order: std::sync::atomic::Ordering);
}

impl Bits for std::sync::atomic::AtomicU64 {
    fn fetch_or(&self, bits: u64, order: std::sync::atomic::Ordering) -> u64 {
        self.fetch_or(bits, order)
    }

    fn fence(order: std::sync::atomic::Ordering) {
        std::sync::atomic::fence(order);
    }
}

/// One direction of a doorbell page.
pub struct Doorbell<'a, C> {
    answers: &'a C,
    lives: &'a C,
    summary: &'a [C],
    rung: &'a [C],
}

impl<'a, C: Bits> Doorbell<'a, C> {
    /// Over the words of a direction; `None` when they are too few.
    pub fn new(words: &'a [C]) -> Option<Self> {
        let words = words.get(..WORDS)?;
        Some(Self {
            answers: words.get(ANSWERS)?,
            lives: words.get(LIVES)?,
            summary: words.get(SUMMARY..SUMMARY + SUMMARY_WORDS)?,
            rung: words.get(RUNG..RUNG + RUNG_WORDS)?,
        })
    }

    /// Whether somebody answers, or seems to.
    pub fn is_answered(&self) -> bool {
        self.lives.load(Relaxed) != 0
    }

    /// Says whether somebody answers from now on.
    pub fn set_answered(&self, answered: bool) {
        self.lives.store(answered.into(), Relaxed);
    }

    /// Asks for `slot` to be woken; `true`: the event channel has to be notified. A slot that the other
    /// domain has not is not asked for.
    #[must_use]
    pub fn ring(&self, slot: u32) -> bool {
        let (word, bit) = (slot as usize / BITS, slot as usize % BITS);
        let Some(rung) = self.rung.get(word) else {
            return false;
        };
        // Whoever finds the bit set already goes on all the same: the one who set it may have died.
        // Release, here and below: what the sleeper is woken for comes before. Pairs with the Acquire
        // of `answer`.
        rung.fetch_or(1 << bit, Release);
        self.sum_up(word);
        self.is_asleep()
    }

    /// Asks for all slots to be woken; the answer as of [`Self::ring`].
    #[must_use]
    pub fn ring_all(&self) -> bool {
        for (word, rung) in self.rung.iter().enumerate() {
            rung.fetch_or(u64::MAX, Release);
            self.sum_up(word);
        }
        self.is_asleep()
    }

    /// Completes what clients have begun that are dead; `true`: the event channel has to be notified,
    /// which they may not have done.
    #[must_use]
    pub fn mend(&self) -> bool {
        for (word, rung) in self.rung.iter().enumerate() {
            if rung.load(Relaxed) != 0 {
                self.sum_up(word);
            }
        }
        self.is_rung()
    }

    fn sum_up(&self, word: usize) {
        if let Some(summary) = self.summary.get(word / BITS) {
            summary.fetch_or(1 << (word % BITS), Release);
        }
    }

    fn is_asleep(&self) -> bool {
        // Between the summary's write and this read; pairs with the fence of `sleep`.
        C::fence(SeqCst);
        self.answers.load(Relaxed) != AWAKE
    }

    fn is_rung(&self) -> bool {
        self.summary.iter().any(|word| word.load(Relaxed) != 0)
    }

    /// Says that whoever answers is awake. Called when the event channel was notified.
    pub fn wake(&self) {
        self.answers.store(AWAKE, Relaxed);
    }

    /// Takes what is rung at this moment, and hands the slots to `wake`: no more than the wait page has,
    /// each once.
    pub fn answer(&self, mut wake: impl FnMut(u32)) {
        for (group, summary) in self.summary.iter().enumerate() {
            for word in set_bits(take(summary)) {
                let word = group * BITS + word;
                for bit in self.rung.get(word).map(take).into_iter().flat_map(set_bits) {
                    wake((word * BITS + bit) as u32);
                }
            }
        }
    }

    /// Says that whoever answers is about to sleep. `false`: there is something to answer still, and it
    /// is awake.
    #[must_use]
    pub fn sleep(&self) -> bool {
        self.answers.store(ASLEEP, Relaxed);
        // Between that write and the summary's read; pairs with the fence of `ring`.
        C::fence(SeqCst);
        let sleeps = !self.is_rung();
        if !sleeps {
            self.answers.store(AWAKE, Relaxed);
        }
        sleeps
    }
}

/// What a word holds, which is 0 then.
fn take<C: Cell64>(word: &C) -> u64 {
    if word.load(Relaxed) == 0 {
        return 0;
    }
    // Acquire: pairs with the Release of `ring`.
    word.swap(0, Acquire)
}

/// Places of the bits that are set.
fn set_bits(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = bits.trailing_zeros() as usize;
        // Takes the lowest one away; there is nothing to take from 0.
        bits &= bits.wrapping_sub(1);
        (place < BITS).then_some(place)
    })
}

#[cfg(test)]
mod tests;
