// SPDX-License-Identifier: MIT OR Apache-2.0
//! Layout of the region of a message queue. What it has in common with other kinds is in
//! [`crate::region`], whose words stand beside those that are named here.
//!
//! Each message has a header record; a short text lies in it, a longer one in a chain of blocks.
//! There is room for messages that are in the queue, and more for those that are on their way in or
//! out: waiting with a message does not keep others from using what `msg_qbytes` allows.

use crate::region::{self, LINE, Layout, MAX_RECORDS, Memory, lines, waiter};

// In the first line.

/// Messages that may be in the queue, low half; on their way in or out, high half.
pub const SHAPE_MESSAGES: usize = 1;
/// Blocks for the text of messages in the queue, low half; on their way, high half.
pub const SHAPE_BLOCKS: usize = 2;
/// Waiters that fit, low half; 0.
pub const SHAPE_WAITERS: usize = 3;

// In the second line: the counts of waiters ([`region::COUNTS`]): receivers, low half; senders, high
// half. Receivers are in the line that begins at [`region::QUEUE`].

// The third line.

/// The messages in the queue: first, low half; last, high half; both one more than the index.
pub const MESSAGES: usize = 16;
/// How many messages are in the queue (`msg_qnum`), low half; blocks that they have, high half.
pub const QNUM: usize = 17;
/// Bytes in the queue (`msg_cbytes`).
pub const CBYTES: usize = 19;
/// Bytes, and messages, that may be in the queue (`msg_qbytes`).
pub const QBYTES: usize = 21;
/// Free headers: the first of those that were used before, one more than the index, low half; the
/// first that was never used, high half.
pub const FREE_HEADERS: usize = 22;
/// Free blocks, likewise.
pub const FREE_BLOCKS: usize = 23;

// The fourth line: what hardly changes, and what a receiver looks at before it takes the lock.

/// The line of senders that wait, as [`region::QUEUE`].
pub const SENDERS: usize = 24;
/// Who sent last: pid and domain in 24 bits each.
pub const LSPID: usize = 25;
/// Who received last.
pub const LRPID: usize = 26;
/// `msg_stime`, seconds since the epoch; 0: never.
pub const STIME: usize = 27;
/// `msg_rtime`, likewise.
pub const RTIME: usize = 28;

/// The messages that somebody has in its hands who does not wait: ends, as [`MESSAGES`].
pub const HELD: usize = 29;
/// Number that the next message gets: how many were sent.
pub const NEXT_SEQ: usize = 30;
/// Messages that were received, modulo 2^64: a number for operators, which nothing depends on.
pub const RECEIVED: usize = 31;

/// Where the journal begins.
pub const JOURNAL: usize = 32;

/// Lists of messages by type: a message is in that of its type modulo this number.
pub const TYPES: usize = 64;

/// Words of a message's header.
pub mod header {
    /// How many there are.
    pub const WORDS: usize = 16;
    /// One of [`FREE`], [`HELD`], [`QUEUED`], [`GIVEN`], low half; bytes of the text, or of a free one the
    /// next free one, one more than the index, high half.
    pub const STATE: usize = 0;
    /// Neighbours in the queue, or among those that are in somebody's hands: next, low half; previous,
    /// high half; one more than the index.
    pub const LINK: usize = 1;
    /// Neighbours in the list of its type, likewise.
    pub const TYPE_LINK: usize = 2;
    /// Its type.
    pub const TYPE: usize = 3;
    /// Token of the client that has it in its hands, or for which it is.
    pub const OWNER: usize = 4;
    /// Its number: lower ones were sent before.
    pub const SEQ: usize = 5;
    /// First and last block of its text, one more than the index; unless the text is in the header.
    pub const BLOCKS: usize = 6;
    /// The text, if it is no longer than [`INLINE`].
    pub const TEXT: usize = 7;
    /// Bytes of text that fit into the header.
    pub const INLINE: usize = (WORDS - TEXT) * 8;

    /// State: nobody has it.
    pub const FREE: u64 = 0;
    /// State: its owner is filling it or waits until it can be sent, or is reading it.
    pub const HELD: u64 = 1;
    /// State: in the queue.
    pub const QUEUED: u64 = 2;
    /// State: handed to its owner, who was waiting for one and has not taken it yet.
    pub const GIVEN: u64 = 3;
}

/// Bytes of a block.
pub const BLOCK: usize = 512;

/// In [`waiter::STATE`]: it waits to send. Else to receive.
pub const SENDS: u64 = 1 << 8;
/// In [`waiter::STATE`]: its permission has to be looked at before it may go on.
pub const CHECK: u64 = 1 << 9;

/// What a waiter's words say ([`waiter::OPS`]).
pub mod wants {
    use super::waiter;

    /// Of a receiver: the type, as the kernel searches for it.
    pub const TYPE: usize = waiter::OPS;
    /// Of a receiver: how it is compared, low half; bytes that it has room for, high half.
    pub const MODE: usize = waiter::OPS + 1;
    /// Of a sender its message, of a receiver the one that it was given; one more than the index; 0:
    /// none.
    pub const MESSAGE: usize = waiter::OPS + 2;
}

/// The sizes of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Messages that may be in the queue.
    pub messages: u32,
    /// Messages on their way in or out.
    pub held: u32,
    /// Blocks for messages in the queue.
    pub blocks: u32,
    /// Blocks for messages on their way.
    pub held_blocks: u32,
    /// Waiters.
    pub waiters: u32,
}

/// Most messages, and most blocks, of a queue.
const MAX_MESSAGES: u32 = 1 << 26;

impl Shape {
    /// For a queue that is made for `bytes` (MSGMNB) and messages of at most `most` (MSGMAX). There is
    /// room for more, for who sets a larger `msg_qbytes` later: for 32768 messages and 2 MiB of text at
    /// least where memory is taken on demand, 4096 messages and 256 KiB where it is not; when `bytes` is
    /// more than that, for as many messages as there are with 64 bytes each.
    pub const fn new(memory: Memory, bytes: u64, most: u64) -> Self {
        const fn at_least(number: u64, least: u64) -> u32 {
            if number > MAX_MESSAGES as u64 {
                MAX_MESSAGES
            } else if number < least {
                least as u32
            } else {
                number as u32
            }
        }
        let chain = most.div_ceil(BLOCK as u64);
        // Messages and blocks at least; messages, and the longest ones, on their way; waiters.
        let (messages, blocks, held, longest, waiters) = match memory {
            Memory::OnDemand => (1 << 15, 1 << 12, 4096, 256, 2048),
            Memory::AtOnce => (1 << 12, 1 << 9, 256, 16, 256),
        };
        Self {
            messages: at_least(bytes / 64, messages),
            held,
            // What is too long for a header takes a block more than its bytes do.
            blocks: at_least(bytes / header::INLINE as u64, blocks),
            held_blocks: at_least(chain.saturating_mul(longest), blocks),
            waiters,
        }
    }

    /// Whether the numbers are ones that can be computed with.
    pub const fn is_sound(&self) -> bool {
        self.messages >= 1
            && self.messages <= MAX_MESSAGES
            && self.held >= 1
            && self.held <= MAX_RECORDS
            && self.blocks <= MAX_MESSAGES
            && self.held_blocks <= MAX_MESSAGES
            && self.waiters >= 1
            && self.waiters <= MAX_RECORDS
    }

    /// Headers in all.
    pub const fn headers(&self) -> u32 {
        self.messages + self.held
    }

    /// Blocks in all.
    pub const fn all_blocks(&self) -> u32 {
        self.blocks + self.held_blocks
    }

    /// Index of the first list of messages by type.
    pub const fn types_at(&self) -> usize {
        JOURNAL + region::entry(JOURNAL_ENTRIES)
    }

    /// Index of the first waiter's record.
    pub const fn waiters_at(&self) -> usize {
        self.types_at() + TYPES
    }

    /// Index of the first header.
    pub const fn headers_at(&self) -> usize {
        self.waiters_at() + self.waiters as usize * waiter::WORDS
    }

    /// Index of the word that leads from the first block to the next of its chain.
    pub const fn chains_at(&self) -> usize {
        self.headers_at() + self.headers() as usize * header::WORDS
    }

    /// Index of the first block.
    pub const fn blocks_at(&self) -> usize {
        self.chains_at() + lines(self.all_blocks() as usize)
    }

    /// Words of the whole region.
    pub const fn words(&self) -> usize {
        self.blocks_at() + self.all_blocks() as usize * (BLOCK / 8)
    }
}

/// Entries of the journal: what is committed at once is about two messages and two waiters at most,
/// each with its neighbours.
const JOURNAL_ENTRIES: usize = 63;

impl Layout for Shape {
    const MAGIC: u64 = u64::from_le_bytes(*b"VSHMEMQ1");
    const JOURNAL: usize = JOURNAL;

    fn tell(&self) -> [u64; region::SHAPE_WORDS] {
        let word = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        [
            word(self.messages, self.held),
            word(self.blocks, self.held_blocks),
            word(self.waiters, 0),
        ]
    }

    fn told([messages, blocks, waiters]: [u64; region::SHAPE_WORDS]) -> Self {
        Self {
            messages: messages as u32,
            held: (messages >> 32) as u32,
            blocks: blocks as u32,
            held_blocks: (blocks >> 32) as u32,
            waiters: waiters as u32,
        }
    }

    fn is_sound(&self) -> bool {
        self.is_sound()
    }

    fn journal_entries(&self) -> usize {
        JOURNAL_ENTRIES
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
    assert!(JOURNAL.is_multiple_of(LINE) && region::entry(JOURNAL_ENTRIES).is_multiple_of(LINE));
    assert!(wants::MESSAGE < waiter::OPS + waiter::INLINE);
    assert!(header::WORDS.is_multiple_of(LINE) && BLOCK.is_multiple_of(64));
    // The largest queue can be computed with.
    let largest = Shape {
        messages: MAX_MESSAGES,
        held: MAX_RECORDS,
        blocks: MAX_MESSAGES,
        held_blocks: MAX_MESSAGES,
        waiters: MAX_RECORDS,
    };
    assert!(largest.words() < usize::MAX / 16);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_queues_region_begin_on_cache_lines_and_do_not_overlap() {
        for (bytes, most) in [
            (1, 1),
            (16384, 8192),
            (1 << 30, 1 << 24),
            (u64::MAX, u64::MAX),
        ] {
            let shape = Shape::new(Memory::OnDemand, bytes, most);
            assert!(shape.is_sound(), "{shape:?}");
            assert_eq!(Shape::told(shape.tell()), shape);
            let parts = [
                JOURNAL,
                shape.types_at(),
                shape.waiters_at(),
                shape.headers_at(),
                shape.chains_at(),
                shape.blocks_at(),
                shape.words(),
            ];
            assert!(parts.iter().all(|at| at % LINE == 0), "{parts:?}");
            assert!(parts.is_sorted_by(|a, b| a < b), "{parts:?}");
        }
    }

    #[test]
    fn a_queue_that_takes_the_bytes_it_was_made_for_never_lacks_blocks() {
        for bytes in [16384, 1 << 20, 1 << 27] {
            let shape = Shape::new(Memory::OnDemand, bytes, 8192);
            // Whatever the texts' length, messages too long for a header fill blocks best when they
            // are as long as a block, and worst when they just do not fit a header.
            for text in [
                header::INLINE as u64 + 1,
                BLOCK as u64,
                BLOCK as u64 + 1,
                8192,
            ] {
                let blocks = bytes / text * text.div_ceil(BLOCK as u64);
                assert!(blocks <= shape.blocks.into(), "{bytes} {text}");
            }
        }
    }

    #[test]
    fn a_queue_of_the_kernels_limits_takes_few_pages_where_each_is_granted() {
        let pages = |memory| (Shape::new(memory, 16384, 8192).words() * 8).div_ceil(4096);
        assert_eq!(pages(Memory::AtOnce), 275);
        assert!(pages(Memory::OnDemand) > 2000);
    }

    #[test]
    fn numbers_that_no_queue_has_are_not_sound() {
        let sound = Shape::new(Memory::OnDemand, 16384, 8192);
        for wrong in [
            Shape {
                messages: 0,
                ..sound
            },
            Shape {
                messages: u32::MAX,
                ..sound
            },
            Shape { held: 0, ..sound },
            Shape {
                blocks: u32::MAX,
                ..sound
            },
            Shape {
                waiters: 0,
                ..sound
            },
            Shape {
                waiters: u32::MAX,
                ..sound
            },
        ] {
            assert!(!wrong.is_sound(), "{wrong:?}");
        }
    }
}
