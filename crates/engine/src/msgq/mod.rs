// SPDX-License-Identifier: MIT OR Apache-2.0
//! Message queues: the semantics of the kernel's `ipc/msg.c` over a shared [`region`]
//! ([`vshmem_abi::msgq`] is the layout).
//!
//! A message is first held by its sender: header and blocks are its own, and it fills them without
//! the lock if the text is long. Then one commit puts it into the queue, or into the hands of a
//! receiver that waits (`pipelined_send`). A sender for whom there is no room waits with the message
//! in its record, and whoever makes room sends it. On the way out a long text is held by the
//! receiver in the same way.

mod control;
pub mod look;
mod messages;
mod receive;
mod send;

pub use messages::Pieces;
pub use receive::{Received, Taken};
pub use send::Sent;

use crate::cell::Cell64;
use crate::region::{self, Region, RegionMap, Surroundings, Who, halves, word_of};
use vshmem_abi::msgq::{self, Shape, header};

/// Bytes of text that lie in a message's header.
pub const INLINE: usize = header::INLINE;

/// Text that lies in a header.
pub type Text = [u64; INLINE / 8];

/// A queue's region, as words.
pub type Queue<'a, C> = Region<'a, C, Shape>;

/// The right to change a queue.
pub type Locked<'a, 'b, C, S> = region::Locked<'a, 'b, C, S, Shape>;

/// A mapping of a queue's region.
pub type QueueMap = RegionMap<Shape>;

/// How the type that a receiver names is compared (`convert_mode` of `ipc/msg.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Search {
    /// Any message.
    Any = 0,
    /// One of this type.
    Equal = 1,
    /// One of another type (`MSG_EXCEPT`).
    NotEqual = 2,
    /// The one of the lowest type up to this one.
    UpTo = 3,
}

/// What a receiver wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The type, as [`Self::search`] compares it.
    pub mtype: i64,
    /// How.
    pub search: Search,
    /// Bytes of text that it has room for; [`Self::CUT`] if it takes the beginning of a longer one.
    pub room: u32,
}

impl Want {
    /// [`Self::room`] with `MSG_NOERROR`.
    pub const CUT: u32 = u32::MAX;

    /// As `msgrcv` has it: `mtype`, and whether `MSG_EXCEPT` is among the flags.
    pub const fn new(mtype: i64, except: bool, room: u32) -> Self {
        let (mtype, search) = match mtype {
            0 => (0, Search::Any),
            // The lowest number has no opposite; the kernel takes the next one.
            ..0 => (mtype.saturating_neg(), Search::UpTo),
            _ if except => (mtype, Search::NotEqual),
            _ => (mtype, Search::Equal),
        };
        Self {
            mtype,
            search,
            room,
        }
    }

    /// Whether a message of this type would do (`testmsg`).
    #[inline]
    const fn fits(&self, mtype: i64) -> bool {
        match self.search {
            Search::Any => true,
            Search::Equal => mtype == self.mtype,
            Search::NotEqual => mtype != self.mtype,
            Search::UpTo => mtype <= self.mtype,
        }
    }

    const fn search_of(raw: u32) -> Search {
        match raw {
            1 => Search::Equal,
            2 => Search::NotEqual,
            3 => Search::UpTo,
            _ => Search::Any,
        }
    }
}

impl<C: Cell64> Queue<'_, C> {
    #[inline(always)]
    fn header(&self, message: u32) -> usize {
        self.shape.headers_at() + message as usize * header::WORDS
    }

    /// The word that leads to the block after this one.
    #[inline(always)]
    fn chain(&self, block: u32) -> usize {
        self.shape.chains_at() + block as usize
    }

    #[inline(always)]
    fn block(&self, block: u32) -> usize {
        self.shape.blocks_at() + block as usize * (msgq::BLOCK / 8)
    }
}

/// A message, as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    index: u32,
    state: u64,
    size: u32,
}

impl Message {
    fn is(self, state: u64) -> bool {
        self.state == state
    }
}

/// Blocks that a text of `size` bytes takes.
const fn blocks_for(size: u32) -> u32 {
    if size as usize <= INLINE {
        0
    } else {
        size.div_ceil(msgq::BLOCK as u32)
    }
}

#[cfg(test)]
mod tests;
