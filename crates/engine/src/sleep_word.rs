// SPDX-License-Identifier: MIT OR Apache-2.0
//! The word that a waiter sleeps on.
//!
//! As a rule it is the waiter's post word, in the region: whoever tells it something changes the word,
//! so a thread that is about to sleep does not, and then wakes it. Where futexes do not work in the
//! region, or do not reach all who use it, the waiter sleeps in its slot of its domain's wait page, on
//! a count of wake-ups. It reads the count, says in its post word that it sleeps, or sees there that it
//! was told something, and sleeps if the count is still the same. Whoever tells it something sees that it
//! sleeps, and has the count raised and the sleeper woken: itself, or by way of a doorbell. So either the
//! sleeper has read the raised count, and then it sees what it was told, or it does not sleep.
//!
//! A count that is raised for no reason makes for a look that nobody needs, and nothing else.

use rustix::thread::futex;
use std::sync::atomic::Ordering::{self, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use vshmem_abi::region::waiter;

/// A count of wake-ups: an [`AtomicU32`], or what takes its place in tests.
pub(crate) trait Count {
    /// As [`AtomicU32::load`].
    fn load(&self, order: Ordering) -> u32;

    /// As [`AtomicU32::fetch_add`].
    fn fetch_add(&self, more: u32, order: Ordering) -> u32;
}

impl Count for AtomicU32 {
    fn load(&self, order: Ordering) -> u32 {
        self.load(order)
    }

    fn fetch_add(&self, more: u32, order: Ordering) -> u32 {
        self.fetch_add(more, order)
    }
}

/// The count, before its reader looks whether it was told something.
pub(crate) fn seen(count: &impl Count) -> u32 {
    // Acquire: pairs with the Release of `raise`; what the sleeper was told comes before.
    count.load(Acquire)
}

/// Raises the count, after the sleeper was told something.
pub(crate) fn raise(count: &impl Count) {
    count.fetch_add(1, Release);
}

/// A word to sleep on.
#[derive(Clone, Copy, Debug)]
pub enum SleepWord<'a> {
    /// The post word, whose low half is the futex.
    Post(&'a AtomicU64),
    /// The count of wake-ups of the slot in the wait page.
    Wakes(&'a AtomicU32),
}

impl<'a> SleepWord<'a> {
    /// What the futex has to be for the thread to sleep. To be asked before the thread says in its post
    /// word that it sleeps, each time.
    #[inline]
    pub fn expected(self) -> u32 {
        match self {
            Self::Post(_) => waiter::ASLEEP as u32,
            Self::Wakes(count) => seen(count),
        }
    }

    /// The futex.
    #[inline]
    pub fn futex(self) -> &'a AtomicU32 {
        match self {
            Self::Post(post) => low_half(post),
            Self::Wakes(count) => count,
        }
    }

    /// Has whoever sleeps there, or is about to, look once more.
    pub fn disturb(self) {
        match self {
            Self::Post(post) => {
                let (asleep, awake) = (waiter::ASLEEP, waiter::AWAKE);
                let was_asleep = post.compare_exchange(asleep, awake, Relaxed, Relaxed);
                if was_asleep.is_ok() {
                    wake(self.futex(), 1);
                }
            }
            Self::Wakes(count) => {
                raise(count);
                // All: one who was there before may not have come out of the kernel yet.
                wake(count, i32::MAX as u32);
            }
        }
    }

    /// Wakes whoever sleeps on a post word that was changed.
    #[inline]
    pub(crate) fn wake_changed(post: &AtomicU64) {
        wake(low_half(post), 1);
    }
}

fn wake(word: &AtomicU32, most: u32) {
    let _ = futex::wake(word, futex::Flags::empty(), most);
}

fn low_half(post: &AtomicU64) -> &AtomicU32 {
    const { assert!(cfg!(target_endian = "little")) };
    // SAFETY: the first four of the eight bytes of an atomic that lives as long. It is handed to the
    // kernel, which reads it as one 32-bit atomic; nobody mixes sizes otherwise.
    unsafe { &*std::ptr::from_ref(post).cast() }
}

#[cfg(test)]
mod tests;
