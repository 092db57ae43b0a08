// SPDX-License-Identifier: MIT OR Apache-2.0
//! Layout of the region of a semaphore set: an array of 64-bit words, all of them atomic, shared by
//! every process of every domain that uses the set. What the words mean over time is the business
//! of `vshmem-engine`; every one of them is described in `docs/wire.md`.
//!
//! Sizes that depend on the set (its [`Shape`]) stand in the region's first words. Who maps a region
//! reads them once, checks them against the size of the memory, and believes its own copy from then
//! on.

use crate::PAGE_SIZE;

/// First word of a set: "VSHMEMS1" in memory order.
pub const SET_MAGIC: u64 = u64::from_le_bytes(*b"VSHMEMS1");

/// Words of a cache line.
pub const LINE: usize = 8;

// The first line: constant after the set was made.

/// [`SET_MAGIC`].
pub const MAGIC: usize = 0;
/// Semaphores, low half; operations that one call may have, high half.
pub const SHAPE_SEMS: usize = 1;
/// Waiters that fit, low half; undo records that fit, high half.
pub const SHAPE_WAITERS: usize = 2;
/// Long lists of operations that fit, low half; 0.
pub const SHAPE_LONGS: usize = 3;

// The second line: what every operation touches.

/// Token of the process that holds the lock; 0: nobody. Everything below is written by the holder
/// alone, but for [`waiter::POST`] and the freeing of a waiter's record.
pub const LOCK: usize = 8;
/// Public id of the set; another one, or 0, when the set is gone.
pub const IDENT: usize = 9;
/// How many entries of the journal count. 0: nothing is half done.
pub const JOURNALED: usize = 10;
/// `sem_otime`, seconds since the epoch.
pub const OTIME: usize = 11;
/// Waiters in the queue, low half; of these with more than one operation, high half.
pub const COUNTS: usize = 12;
/// The queue of all waiters: first, low half; last, high half; both one more than the index.
pub const QUEUE: usize = 13;
/// What the holder has begun beyond the journal, see [`intent`].
pub const INTENT: usize = 14;
/// Waiter whose operations are done and who has to be told, one more than the index.
pub const POSTING: usize = 15;

// The third line.

/// Last change by `SETVAL` or `SETALL`, seconds since the epoch; 0: none.
pub const CTIME: usize = 16;
/// Undo records from here on were never used.
pub const UNDO_HIGH: usize = 17;
/// Waiters from here on were never used.
pub const WAITER_HIGH: usize = 18;
/// Long lists from here on were never used.
pub const LONG_HIGH: usize = 19;
/// Who began what [`INTENT`] says, as in a semaphore's word without the value.
pub const INTENT_WHO: usize = 20;

/// Where the journal begins: pairs of a word's index and its old value.
pub const JOURNAL: usize = 24;

/// What [`INTENT`] can say: the kind in the low half, a semaphore or record in the high half.
pub mod intent {
    /// Waiters have to be looked at: a value has changed.
    pub const SCAN: u64 = 1;
    /// `SETVAL`: the undo records of the semaphore have to be cleared; then as [`SCAN`].
    pub const CLEAR_UNDO: u64 = 2;
    /// `SETALL`: the staged values have to be copied and all undo records cleared; then as [`SCAN`].
    pub const SET_ALL: u64 = 3;
    /// A process has ended: what its undo record (in the high half) has left has to be applied; then
    /// as [`SCAN`].
    pub const UNDO: u64 = 4;
}

/// Words of a waiter's record.
pub mod waiter {
    /// How many there are.
    pub const WORDS: usize = 16;
    /// One of [`FREE`], [`QUEUED`], [`DONE`] in the low byte; then [`ALTERS`]; number of operations
    /// from bit 16; long list, one more than the index, from bit 32.
    pub const STATE: usize = 0;
    /// Neighbours in the queue of all: next, low half; previous, high half; one more than the index.
    pub const LINK: usize = 1;
    /// Neighbours in the queue of the semaphore, for a waiter with a single operation.
    pub const SEM_LINK: usize = 2;
    /// Token of the client.
    pub const TOKEN: usize = 3;
    /// Pid and domain, as in a semaphore's word without the value.
    pub const WHO: usize = 4;
    /// Slot in its domain's wait page, low half; undo record, one more than the index, high half.
    pub const PLACE: usize = 5;
    /// Operation that it waits for, low half; errno once it is [`DONE`], high half.
    pub const OUTCOME: usize = 6;
    /// The operations, if they are no more than [`INLINE`].
    pub const OPS: usize = 7;
    /// Operations that fit into the record.
    pub const INLINE: usize = 8;
    /// What the waiter looks at, and sleeps on as a 32-bit futex: one of [`IDLE`], [`AWAKE`],
    /// [`ASLEEP`], [`POSTED`], [`GONE`].
    pub const POST: usize = 15;

    /// State: nobody has the record.
    pub const FREE: u64 = 0;
    /// State: in the queue.
    pub const QUEUED: u64 = 1;
    /// State: its operations are done, or failed; not in the queue any more.
    pub const DONE: u64 = 2;
    /// Bit of the state: one of the operations changes a semaphore.
    pub const ALTERS: u64 = 1 << 8;

    /// Post: no call is under way.
    pub const IDLE: u64 = 0;
    /// Post: it is looking; a store is enough.
    pub const AWAKE: u64 = 1;
    /// Post: it sleeps, or is about to: a store and a wake-up.
    pub const ASLEEP: u64 = 2;
    /// Post: the operations are done; the outcome is in the record.
    pub const POSTED: u64 = 3;
    /// Post: the set is gone.
    pub const GONE: u64 = 4;
}

/// Words of an undo record before its adjustments.
pub mod undo {
    /// Token of the process; 0: nobody has the record, and all adjustments are 0.
    pub const TOKEN: usize = 0;
    /// Slot that the process holds in its domain's wait page.
    pub const SLOT: usize = 1;
    /// The adjustments begin here: four semaphores to a word, signed 16-bit numbers.
    pub const ADJUST: usize = 2;
}

/// The sizes of one set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Semaphores.
    pub sems: u32,
    /// Operations that one call may have.
    pub ops: u32,
    /// Waiters.
    pub waiters: u32,
    /// Processes with undo.
    pub undos: u32,
    /// Waiters with more operations than fit into their record.
    pub longs: u32,
}

/// Most semaphores of a set, whatever the kernel's settings: `sem_num` has 16 bits.
pub const MAX_SEMS: u32 = 1 << 16;
/// Most operations of one call, whatever the kernel's settings.
pub const MAX_OPS: u32 = 1 << 15;
/// Most waiters, undo records or long lists of a set. A walk over all that a peer says are there, at
/// the largest size, is over in moments.
const MAX_RECORDS: u32 = 1 << 14;

const fn lines(words: usize) -> usize {
    words.div_ceil(LINE) * LINE
}

impl Shape {
    /// For memory that costs nothing until it is touched, though its pages count where they are
    /// granted: room for more waiters and processes with undo than programs are known to have.
    pub const fn sparse(sems: u32, ops: u32) -> Self {
        Self {
            sems,
            ops: if ops < 16 {
                16
            } else if ops > MAX_OPS {
                MAX_OPS
            } else {
                ops
            },
            waiters: 4096,
            undos: 2048,
            longs: 128,
        }
    }

    /// Whether the numbers are ones that can be computed with.
    pub const fn is_sound(&self) -> bool {
        self.sems >= 1
            && self.sems <= MAX_SEMS
            && self.ops >= 1
            && self.ops <= MAX_OPS
            && self.waiters >= 1
            && self.waiters <= MAX_RECORDS
            && self.undos <= MAX_RECORDS
            && self.longs <= MAX_RECORDS
    }

    /// Entries that the journal has: each operation changes two words at the most, and taking a
    /// waiter out of the queues a dozen.
    pub const fn journal_entries(&self) -> usize {
        2 * self.ops as usize + 32
    }

    /// Index of the first semaphore's word: value in 16 bits, then pid and domain in 24 bits each.
    pub const fn sems_at(&self) -> usize {
        lines(JOURNAL + 2 * self.journal_entries())
    }

    /// Index of the first semaphore's queue: first, low half; last, high half; one more than the
    /// index of the waiter.
    pub const fn queues_at(&self) -> usize {
        self.sems_at() + lines(self.sems as usize)
    }

    /// Index of the values that `SETALL` stages, four to a word.
    pub const fn staged_at(&self) -> usize {
        self.queues_at() + lines(self.sems as usize)
    }

    /// Index of the first undo record.
    pub const fn undos_at(&self) -> usize {
        self.staged_at() + lines((self.sems as usize).div_ceil(4))
    }

    /// Words from one undo record to the next.
    pub const fn undo_words(&self) -> usize {
        lines(undo::ADJUST + (self.sems as usize).div_ceil(4))
    }

    /// Index of the first waiter's record.
    pub const fn waiters_at(&self) -> usize {
        self.undos_at() + self.undos as usize * self.undo_words()
    }

    /// Index of the first long list: its waiter, one more than the index, then the operations.
    pub const fn longs_at(&self) -> usize {
        self.waiters_at() + self.waiters as usize * waiter::WORDS
    }

    /// Words from one long list to the next.
    pub const fn long_words(&self) -> usize {
        lines(1 + self.ops as usize)
    }

    /// Words of the whole region.
    pub const fn words(&self) -> usize {
        self.longs_at() + self.longs as usize * self.long_words()
    }

    /// Bytes of the whole region, in whole pages.
    pub const fn bytes(&self) -> u64 {
        (self.words() as u64 * 8).div_ceil(PAGE_SIZE) * PAGE_SIZE
    }
}

const _: () = {
    assert!(waiter::OPS + waiter::INLINE == waiter::POST);
    assert!(waiter::POST + 1 == waiter::WORDS && waiter::WORDS.is_multiple_of(LINE));
    assert!(LOCK == LINE && POSTING == 2 * LINE - 1 && JOURNAL.is_multiple_of(LINE));
    assert!(INTENT_WHO < JOURNAL);
    // The largest set can be computed with.
    let largest = Shape {
        sems: MAX_SEMS,
        ops: MAX_OPS,
        waiters: MAX_RECORDS,
        undos: MAX_RECORDS,
        longs: MAX_RECORDS,
    };
    assert!(largest.words() < usize::MAX / 16);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_region_begin_on_cache_lines_and_do_not_overlap() {
        for sems in [1, 3, 8, 9, 250, 32000] {
            let shape = Shape::sparse(sems, 500);
            assert!(shape.is_sound());
            let parts = [
                JOURNAL,
                shape.sems_at(),
                shape.queues_at(),
                shape.staged_at(),
                shape.undos_at(),
                shape.waiters_at(),
                shape.longs_at(),
                shape.words(),
            ];
            assert!(parts.iter().all(|at| at % LINE == 0), "{parts:?}");
            assert!(parts.is_sorted_by(|a, b| a < b), "{parts:?}");
        }
    }

    #[test]
    fn numbers_that_no_set_has_are_not_sound() {
        let sound = Shape::sparse(1, 500);
        assert!(!Shape { sems: 0, ..sound }.is_sound());
        assert!(
            !Shape {
                sems: MAX_SEMS + 1,
                ..sound
            }
            .is_sound()
        );
        assert!(
            !Shape {
                waiters: 0,
                ..sound
            }
            .is_sound()
        );
        assert!(
            !Shape {
                undos: u32::MAX,
                ..sound
            }
            .is_sound()
        );
    }
}
