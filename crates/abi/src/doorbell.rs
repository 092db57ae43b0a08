// SPDX-License-Identifier: MIT OR Apache-2.0
//! Layout of a doorbell page: how two domains tell each other which of their sleepers to wake, where a
//! futex in a region does not reach the other domain's kernel. One page for each pair of domains; what
//! its words mean over time is the business of `vshmem-engine`.
//!
//! The page has two directions, one after the other. A direction is rung by one domain and answered by
//! the other.

use crate::layout::{Shared, WAIT_SLOTS};
use core::sync::atomic::AtomicU64;
use rustix::io::Errno;
use rustix::ioctl::{Direction, Opcode, Setter, ioctl, opcode};
use std::os::fd::BorrowedFd;

/// Bits of a word.
pub const BITS: usize = 64;

/// Words of bits, one bit for each slot of the wait page of the domain that answers.
pub const RUNG_WORDS: usize = WAIT_SLOTS / BITS;
/// Words of the summary, one bit for each word of bits.
pub const SUMMARY_WORDS: usize = RUNG_WORDS / BITS;

// Words of one direction.

/// What the `vshmemd` that answers is doing: [`ASLEEP`] or [`AWAKE`]. It alone writes it.
pub const ANSWERS: usize = 0;
/// 1 while that `vshmemd` is there. It writes 1 when it begins, and both write 0 when they give the
/// doorbell up: then whoever would ring asks its own `vshmemd` for the one of the moment.
pub const LIVES: usize = 1;
/// The summary begins here: which words of bits are not zero.
pub const SUMMARY: usize = 8;
/// The bits begin here: which slots are to be woken.
pub const RUNG: usize = 16;
/// Words of one direction.
pub const WORDS: usize = RUNG + RUNG_WORDS;

/// The page: in the first direction the domain rings that has made it, in the second one the other.
#[repr(C)]
pub struct Page {
    /// The directions, as words.
    pub directions: [[AtomicU64; WORDS]; 2],
}

// SAFETY: repr(C), atomics of one size only.
unsafe impl Shared for Page {}

/// It sleeps, or is about to: the event channel has to be notified.
pub const ASLEEP: u64 = 0;
/// It will look again before it sleeps.
pub const AWAKE: u64 = 1;

/// Bytes of the page, in whole pages.
pub const BYTES: u64 = (size_of::<Page>() as u64).div_ceil(crate::PAGE_SIZE) * crate::PAGE_SIZE;

/// How the other end of an event channel is raised by somebody who was passed a descriptor for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// Eight bytes are written, the number 1: an eventfd.
    Write,
    /// [`IOCTL_EVTCHN_NOTIFY`] with this port: a descriptor of `/dev/xen/evtchn`.
    Evtchn(u32),
}

/// Of `/dev/xen/evtchn` (`linux/xen/evtchn.h`): raises the other end of a port of this descriptor.
pub const IOCTL_EVTCHN_NOTIFY: Opcode =
    opcode::from_components(Direction::None, b'E', 4, size_of::<u32>());

impl Notify {
    /// As it stands in [`crate::wire::Bell`]: which of them, and its port.
    pub const fn parts(self) -> (u32, u32) {
        match self {
            Self::Write => (0, 0),
            Self::Evtchn(port) => (1, port),
        }
    }

    /// The one that such numbers stand for, if any.
    pub const fn from_parts(how: u32, port: u32) -> Option<Self> {
        match how {
            0 => Some(Self::Write),
            1 => Some(Self::Evtchn(port)),
            _ => None,
        }
    }

    /// Raises the other end.
    ///
    /// # Errors
    /// What the kernel says: the descriptor is not one for this.
    pub fn raise(self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        match self {
            Self::Write => match rustix::io::write(fd, &1u64.to_ne_bytes()) {
                // The count is at its highest, so the other end is raised already.
                Ok(_) | Err(Errno::AGAIN) => Ok(()),
                Err(errno) => Err(errno),
            },
            Self::Evtchn(port) => {
                // SAFETY: the number takes a pointer to a structure of this one word, which the
                // kernel reads; on any other file it is refused.
                unsafe { ioctl(fd, Setter::<IOCTL_EVTCHN_NOTIFY, u32>::new(port)) }
            }
        }
    }
}

const _: () = {
    assert!(SUMMARY + SUMMARY_WORDS <= RUNG);
    assert!(WAIT_SLOTS.is_multiple_of(BITS * BITS));
    assert!(IOCTL_EVTCHN_NOTIFY == 0x0004_4504);
};
