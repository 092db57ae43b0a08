// SPDX-License-Identifier: MIT OR Apache-2.0
//! The atomic word that shared structures are made of. In a program it is an [`AtomicU64`]; tests put
//! others in its place: one that dies at a given store, one whose orderings a model checker explores.

use std::sync::atomic::{AtomicU64, Ordering};

/// A 64-bit atomic.
pub trait Cell64 {
    /// As [`AtomicU64::load`].
    fn load(&self, order: Ordering) -> u64;

    /// As [`AtomicU64::store`].
    fn store(&self, value: u64, order: Ordering);

    /// As [`AtomicU64::swap`].
    fn swap(&self, value: u64, order: Ordering) -> u64;

    /// As [`AtomicU64::compare_exchange`].
    ///
    /// # Errors
    /// The value that was there instead.
    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64>;

    /// Has the word's cache line brought along, to be written soon. Changes nothing, and waits for nothing.
    #[inline(always)]
    fn fetch(&self) {}
}

impl Cell64 for AtomicU64 {
    #[inline(always)]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline(always)]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    #[inline(always)]
    fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.swap(value, order)
    }

    #[inline(always)]
    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.compare_exchange(current, new, success, failure)
    }

    #[inline(always)]
    fn fetch(&self) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: a hint. Processors that do not know it pass over it.
        unsafe {
            std::arch::asm!(
                "prefetchw [{}]",
                in(reg) self,
                options(nostack, preserves_flags, readonly),
            );
        }
    }
}
