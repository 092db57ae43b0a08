// SPDX-License-Identifier: MIT OR Apache-2.0
//! What carries the messages between the back-end and the domains.

use rustix::io::Errno;
use std::time::Instant;
use vshmem_abi::Domid;
use vshmem_abi::link::LinkMsg;

/// The connections to all domains. None of the calls waits for a domain, but [`Carrier::receive`] as
/// long as it is told to.
pub trait Carrier {
    /// Sends a domain a message.
    ///
    /// # Errors
    /// The connection is of no more use: `EAGAIN` when the domain has not read for long.
    fn send(&mut self, to: Domid, message: &LinkMsg) -> Result<(), Errno>;

    /// The next message of a domain, for which it waits until `until`.
    ///
    /// # Errors
    /// `EAGAIN` when there is none. Else the connection is of no more use: `ECONNRESET` when the domain
    /// has ended it, `EPROTO` when what it sent is no message.
    fn receive(&mut self, from: Domid, until: Option<Instant>) -> Result<LinkMsg, Errno>;

    /// A domain is gone: ends the connection, and what else it had here.
    fn close(&mut self, domid: Domid);

    /// All that follows from the end of a domain is done.
    fn buried(&mut self, domid: Domid);
}
