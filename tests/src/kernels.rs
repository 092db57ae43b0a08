// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the domains of this program's worlds do as if each had a kernel of its own.
//!
//! A test program that is to run the tests of others in such worlds has them as modules, and calls
//! [`use_separate_kernels`] before its first test.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What tells a back-end.
pub const ENV: &str = "VSHMEM_SEPARATE_KERNELS";

static SEPARATE: AtomicBool = AtomicBool::new(false);

/// From now on they do.
pub extern "C" fn use_separate_kernels() {
    SEPARATE.store(true, Relaxed);
}

/// Whether they do.
pub fn are_separate() -> bool {
    SEPARATE.load(Relaxed)
}

/// Whether domains have kernels of their own, or do as if.
pub fn differ() -> bool {
    are_separate() || crate::in_guests()
}

/// How much is done of what is done `all` times where they do not: the rest would show nothing new,
/// and guests are slow where they are emulated.
pub fn share(all: u32) -> u32 {
    if crate::in_guests() {
        all.div_ceil(100)
    } else if are_separate() {
        all.div_ceil(5)
    } else {
        all
    }
}

/// The [`share`] of `all`, in portions of up to `most`.
pub fn portions(all: u32, most: u32) -> impl Iterator<Item = u32> {
    let share = share(all);
    (0..share)
        .step_by(most as usize)
        .map(move |done| most.min(share - done))
}
