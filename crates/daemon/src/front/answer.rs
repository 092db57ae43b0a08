// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a request is answered with.

use rustix::io::Errno;
use std::os::fd::OwnedFd;
use vshmem_abi::wire::Reply;
use zerocopy::{Immutable, IntoBytes};

/// A descriptor that goes with a reply.
pub enum Passed {
    /// One made for this reply, closed once it is sent.
    Own(OwnedFd),
    /// The directory.
    Directory,
    /// The page of the client of this connection.
    Page(u64),
    /// The wait page of the domain.
    WaitPage,
    /// The region of this construct, for all that the domain may do with it.
    Region(i32),
    /// The page of the doorbell of this number.
    BellPage(u64),
    /// What its event channel is notified with.
    Notifier(u64),
}

/// A reply and the descriptors that go with it, in this order.
pub struct Answer {
    /// The reply.
    pub reply: Reply,
    /// The descriptors.
    pub fds: Vec<Passed>,
}

impl Answer {
    /// A success that says nothing more.
    pub fn ok() -> Self {
        Reply::OK.into()
    }

    /// A success with `value` and a body.
    pub fn with<T: IntoBytes + Immutable>(value: i32, slot: u32, body: &T) -> Self {
        Reply::with(value, slot, body).into()
    }

    /// The same with one more descriptor.
    pub fn and(mut self, fd: Passed) -> Self {
        self.fds.push(fd);
        self.reply.fds = self.fds.len() as u32;
        self
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self {
            reply,
            fds: Vec::new(),
        }
    }
}

impl From<Errno> for Answer {
    fn from(errno: Errno) -> Self {
        Reply::error(errno.raw_os_error()).into()
    }
}

/// An answer, or the errno that is one.
pub type Answered = Result<Answer, Errno>;
