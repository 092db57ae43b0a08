// SPDX-License-Identifier: MIT OR Apache-2.0
//! Layout of the region of a semaphore set. What it has in common with other kinds is in
//! [`crate::region`], whose words stand beside those that are named here.

use crate::region::{self, LINE, Layout, MAX_RECORDS, Memory, lines, waiter};

// In the first line.

/// Semaphores, low half; operations that one call may have, high half.
pub const SHAPE_SEMS: usize = 1;
/// Waiters that fit, low half; undo records that fit, high half.
pub const SHAPE_WAITERS: usize = 2;
/// Long lists of operations that fit, low half; 0.
pub const SHAPE_LONGS: usize = 3;

// In the second line. The counts of waiters ([`region::COUNTS`]): all, low half; of these with more
// than one operation, high half. Who waits is in the one line, in order of arrival.

/// Calls of `semop` that were done, modulo 2^64: a number for operators, which nothing depends on.
pub const CALLS: usize = 10;
/// `sem_otime`, seconds since the epoch.
pub const OTIME: usize = 11;

// In the third line.

/// Last change by `SETVAL` or `SETALL`, seconds since the epoch; 0: none.
pub const CTIME: usize = 16;
/// Undo records from here on were never used.
pub const UNDO_HIGH: usize = 17;
/// Long lists from here on were never used.
pub const LONG_HIGH: usize = 19;

/// Where the journal begins.
pub const JOURNAL: usize = 24;

/// What [`region::INTENT`] can say beside [`region::SCAN`]: the kind in the low half, a semaphore or
/// record in the high half.
pub mod intent {
    /// `SETVAL`: the undo records of the semaphore have to be cleared; then as a scan.
    pub const CLEAR_UNDO: u64 = 2;
    /// `SETALL`: the staged values have to be copied and all undo records cleared; then as a scan.
    pub const SET_ALL: u64 = 3;
    /// A process has ended: what its undo record (in the high half) has left has to be applied; then
    /// as a scan.
    pub const UNDO: u64 = 4;
}

/// In [`waiter::STATE`]: one of the operations changes a semaphore. The number of operations is there
/// from bit 16 on, from bit 32 on the long list that has them, one more than its index. In
/// [`waiter::PLACE`], high half: undo record, one more than the index. In [`waiter::OUTCOME`], low
/// half: the operation that it waits for.
pub const ALTERS: u64 = 1 << 8;

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
impl Shape {
    /// For a set of `sems` semaphores, and as many as `ops` operations in a call.
    pub const fn new(memory: Memory, sems: u32, ops: u32) -> Self {
        let (waiters, undos, longs) = match memory {
            Memory::OnDemand => (4096, 2048, 128),
            Memory::AtOnce => (512, 256, 16),
        };
        Self {
            sems,
            ops: if ops < 16 {
                16
            } else if ops > MAX_OPS {
                MAX_OPS
            } else {
                ops
            },
            waiters,
            undos,
            longs,
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
        lines(JOURNAL + region::entry(self.journal_entries()))
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
}

impl Layout for Shape {
    const MAGIC: u64 = u64::from_le_bytes(*b"VSHMEMS1");
    const JOURNAL: usize = JOURNAL;

    fn tell(&self) -> [u64; region::SHAPE_WORDS] {
        let word = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        [
            word(self.sems, self.ops),
            word(self.waiters, self.undos),
            word(self.longs, 0),
        ]
    }

    fn told([sems, waiters, longs]: [u64; region::SHAPE_WORDS]) -> Self {
        Self {
            sems: sems as u32,
            ops: (sems >> 32) as u32,
            waiters: waiters as u32,
            undos: (waiters >> 32) as u32,
            longs: longs as u32,
        }
    }

    fn is_sound(&self) -> bool {
        self.is_sound()
    }

    fn journal_entries(&self) -> usize {
        self.journal_entries()
    }

    #[inline(always)]
    fn waiters(&self) -> u32 {
        self.waiters
    }

    #[inline(always)]
    fn waiters_at(&self) -> usize {
        self.waiters_at()
    }

    fn words(&self) -> usize {
        self.words()
    }
}

const _: () = {
    assert!(JOURNAL.is_multiple_of(LINE) && region::INTENT_WHO < JOURNAL);
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
            let shape = Shape::new(Memory::OnDemand, sems, 500);
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
    fn a_small_set_takes_few_pages_where_each_is_granted() {
        let pages = |memory| (Shape::new(memory, 3, 500).words() * 8).div_ceil(4096);
        assert_eq!(pages(Memory::AtOnce), 40);
        assert!(pages(Memory::OnDemand) > 250);
    }

    #[test]
    fn numbers_that_no_set_has_are_not_sound() {
        let sound = Shape::new(Memory::OnDemand, 1, 500);
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
