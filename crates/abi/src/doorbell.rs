// SPDX-License-Identifier: MIT OR Apache-2.0
//! Layout of a doorbell page: how two domains tell each other which of their sleepers to wake, where a
//! futex in a region does not reach the other domain's kernel. One page for each pair of domains; what
//! its words mean over time is the business of `vshmem-engine`.
//!
//! The page has two directions, one after the other; which is whose stands in whatever hands the page
//! out. A direction is rung by one domain and answered by the other.

use crate::layout::WAIT_SLOTS;

/// Bits of a word.
pub const BITS: usize = 64;

/// Words of bits, one bit for each slot of the wait page of the domain that answers.
pub const RUNG_WORDS: usize = WAIT_SLOTS / BITS;
/// Words of the summary, one bit for each word of bits.
pub const SUMMARY_WORDS: usize = RUNG_WORDS / BITS;

// Words of one direction.

/// What the `vshmemd` that answers is doing: [`ASLEEP`] or [`AWAKE`]. It alone writes it.
pub const ANSWERS: usize = 0;
/// The summary begins here: which words of bits are not zero.
pub const SUMMARY: usize = 8;
/// The bits begin here: which slots are to be woken.
pub const RUNG: usize = 16;
/// Words of one direction.
pub const WORDS: usize = RUNG + RUNG_WORDS;

/// It sleeps, or is about to: the event channel has to be notified.
pub const ASLEEP: u64 = 0;
/// It will look again before it sleeps.
pub const AWAKE: u64 = 1;

/// Bytes of the page, both directions, in whole pages.
pub const BYTES: u64 = (2 * WORDS as u64 * 8).div_ceil(crate::PAGE_SIZE) * crate::PAGE_SIZE;

const _: () = {
    assert!(SUMMARY + SUMMARY_WORDS <= RUNG);
    assert!(WAIT_SLOTS.is_multiple_of(BITS * BITS));
};
