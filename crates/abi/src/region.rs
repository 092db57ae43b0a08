// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the regions of semaphore sets and message queues have in common: an array of 64-bit words,
//! all of them atomic, shared by every process of every domain that uses the construct. What the
//! words mean over time is the business of `vshmem-engine`; every one of them is described in
//! `docs/wire.md`.
//!
//! Sizes that depend on the construct (its [`Layout`]) stand in the region's first words. Who maps a
//! region reads them once, checks them against the size of the memory, and believes its own copy
//! from then on.

use crate::PAGE_SIZE;

/// Words of a cache line.
pub const LINE: usize = 8;

/// What the memory of a region costs, which bounds how much room for rare cases it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Nothing until it is touched (a memfd), though its pages count where they are granted: there is
    /// room for more of everything than programs are known to have.
    OnDemand,
    /// All of it, and a grant for each page, when the region is made (Xen's gntalloc): there is room for
    /// what programs have.
    AtOnce,
}

// The first line: constant after the construct was made.

/// [`Layout::MAGIC`].
pub const MAGIC: usize = 0;
/// Where the words begin that tell the sizes.
pub const SHAPE: usize = 1;
/// How many they are.
pub const SHAPE_WORDS: usize = 3;

// The second line: what every operation looks at, and hardly one changes but for the lock itself: others look
// at that. Words 10 and 11 are the kind's own.

/// Token of the process that holds the lock; 0: nobody. Everything below is written by the holder
/// alone, but for [`waiter::POST`] and the freeing of a waiter's record.
pub const LOCK: usize = 8;
/// Public id of the construct; another one, or 0, when it is gone.
pub const IDENT: usize = 9;
/// Waiters, in two numbers, as the kind says.
pub const COUNTS: usize = 12;
/// A line of waiters: first, low half; last, high half; both one more than the index.
pub const QUEUE: usize = 13;
/// What the holder has begun beyond the journal; 0: nothing. The kind of work in the low half, what it
/// is about in the high half.
pub const INTENT: usize = 14;
/// Waiters whose operations are done and who have to be told, as in [`QUEUE`].
pub const POSTING: usize = 15;

// The third line: words 16, 17, 19 and 21 to 23 are the kind's own.

/// Waiters from here on were never used.
pub const WAITER_HIGH: usize = 18;
/// Who began what [`INTENT`] says: pid and domain in 24 bits each.
pub const INTENT_WHO: usize = 20;

/// In [`INTENT`], whatever the kind: waiters have to be looked at, since something has changed.
pub const SCAN: u64 = 1;

/// Words of a waiter's record.
pub mod waiter {
    /// How many there are.
    pub const WORDS: usize = 16;
    /// One of [`FREE`], [`QUEUED`], [`DONE`] in the low byte; the rest is the kind's.
    pub const STATE: usize = 0;
    /// Neighbours in the line of waiters: next, low half; previous, high half; one more than the index.
    pub const LINK: usize = 1;
    /// The kind's own: of a set, neighbours in the queue of the semaphore.
    pub const SEM_LINK: usize = 2;
    /// Token of the client.
    pub const TOKEN: usize = 3;
    /// Pid and domain, 24 bits each.
    pub const WHO: usize = 4;
    /// Slot in its domain's wait page, low half; the high half is the kind's.
    pub const PLACE: usize = 5;
    /// The low half is the kind's; errno once it is [`DONE`], high half.
    pub const OUTCOME: usize = 6;
    /// What it waits for, as the kind says.
    pub const OPS: usize = 7;
    /// Words of that.
    pub const INLINE: usize = 8;
    /// What the waiter looks at, and sleeps on as a 32-bit futex: one of [`IDLE`], [`AWAKE`],
    /// [`ASLEEP`], [`POSTED`], [`GONE`].
    pub const POST: usize = 15;

    /// State: nobody has the record.
    pub const FREE: u64 = 0;
    /// State: in the line.
    pub const QUEUED: u64 = 1;
    /// State: what it waited for is done, or failed; not in the line any more.
    pub const DONE: u64 = 2;

    /// Post: no call is under way.
    pub const IDLE: u64 = 0;
    /// Post: it is looking; a store is enough.
    pub const AWAKE: u64 = 1;
    /// Post: it sleeps, or is about to: a store and a wake-up.
    pub const ASLEEP: u64 = 2;
    /// Post: it is done; the outcome is in the record.
    pub const POSTED: u64 = 3;
    /// Post: the construct is gone.
    pub const GONE: u64 = 4;
}

/// Most waiters of a construct, and most of whatever else a walk goes over whole. A walk over all that
/// a peer says are there, at the largest size, is over in moments.
pub const MAX_RECORDS: u32 = 1 << 14;

/// `words` rounded up to whole cache lines.
pub const fn lines(words: usize) -> usize {
    words.div_ceil(LINE) * LINE
}

/// Words from the beginning of a journal to entry `number`: the index of a word, and its old value. With
/// as many entries, this is its length.
pub const fn entry(number: usize) -> usize {
    2 + 2 * number
}

/// The sizes of one construct, and so where in its region what lies.
pub trait Layout: Copy {
    /// First word of the region.
    const MAGIC: u64;

    /// Where the journal begins: how many of its entries count (0: nothing is half done), a word of nothing,
    /// then the entries ([`entry`]).
    const JOURNAL: usize;

    /// The words that tell the sizes.
    fn tell(&self) -> [u64; SHAPE_WORDS];

    /// The sizes that such words tell; they need not be sound.
    fn told(words: [u64; SHAPE_WORDS]) -> Self;

    /// Whether the numbers are ones that can be computed with.
    fn is_sound(&self) -> bool;

    /// Entries that the journal has.
    fn journal_entries(&self) -> usize;

    /// Waiters that fit.
    fn waiters(&self) -> u32;

    /// Index of the first waiter's record.
    fn waiters_at(&self) -> usize;

    /// Words of the whole region.
    fn words(&self) -> usize;

    /// Bytes of the whole region, in whole pages.
    fn bytes(&self) -> u64 {
        (self.words() as u64 * 8).div_ceil(PAGE_SIZE) * PAGE_SIZE
    }
}

const _: () = {
    assert!(waiter::OPS + waiter::INLINE == waiter::POST);
    assert!(waiter::POST + 1 == waiter::WORDS && waiter::WORDS.is_multiple_of(LINE));
    assert!(LOCK == LINE && POSTING == 2 * LINE - 1 && SHAPE + SHAPE_WORDS <= LOCK);
};
