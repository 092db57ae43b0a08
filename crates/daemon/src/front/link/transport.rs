// SPDX-License-Identifier: MIT OR Apache-2.0
//! What carries the messages between this domain and the back-end.

use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use vshmem_abi::Domid;
use vshmem_abi::channel::Fds;
use vshmem_abi::link::LinkMsg;

/// What has come.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, on the stack; a message is what it mostly is"
)]
pub enum Incoming {
    /// Nothing has, so far.
    Nothing,
    /// A message.
    Message(LinkMsg, Fds),
    /// A back-end is there that this domain has not begun to talk to.
    BackEnd,
    /// The domains that are ready now, with their names.
    Ready(BTreeMap<Domid, String>),
}

/// A connection to the back-end, or to one after another. No call waits for it.
///
/// All errors but those named mean that the connection is of no more use.
pub trait Transport {
    /// A descriptor that polls readable while there is something to receive.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Whether there is a back-end that this domain has begun to talk to.
    fn is_up(&self) -> bool;

    /// Begins to talk to the back-end that there is: all that came from one before has been received.
    ///
    /// # Errors
    /// As said above; a quota of XenStore's ([`vshmem_registry::xenstore::is_quota`]).
    fn begin(&mut self) -> Result<(), Errno>;

    /// Sends a message.
    ///
    /// # Errors
    /// As said above; `EAGAIN` when the back-end takes no more for now; a quota of XenStore's.
    fn send(&mut self, message: &LinkMsg) -> Result<(), Errno>;

    /// Receives what comes next.
    ///
    /// # Errors
    /// As said above.
    fn receive(&mut self) -> Result<Incoming, Errno>;

    /// Whether there may be something to receive of which [`Transport::fd`] does not tell.
    fn holds_more(&self) -> bool;

    /// Nodes of XenStore that this domain has, where that is what the connection goes by.
    fn nodes(&self) -> Option<u64> {
        None
    }

    /// What an operator is to do when the connection is lost.
    fn advice(&self) -> &'static str;
}
