// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections of the host port: a socket for each domain, and its connection to the hub.

use super::carrier::Carrier;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use vshmem_abi::Domid;
use vshmem_abi::channel::{recv, send};
use vshmem_abi::link::LinkMsg;
use vshmem_gnt::host::hub::HubHandle;

/// Bytes of messages to a domain that may wait to be read, as the kernel counts them.
const SEND_BUFFER: usize = 1 << 20;

/// The sockets of the enrolled domains, and the hub.
pub struct Sockets {
    sockets: HashMap<Domid, OwnedFd>,
    hub: HubHandle,
}

impl Sockets {
    /// None yet.
    pub fn new(hub: HubHandle) -> Self {
        Self {
            sockets: HashMap::new(),
            hub,
        }
    }

    /// Makes the hub's connection for a new domain.
    ///
    /// # Errors
    /// What the hub says.
    pub fn introduce(&self, domid: Domid) -> std::io::Result<OwnedFd> {
        self.hub.add_domain(domid)
    }

    /// A domain is enrolled; `patience` is how long a message of it is waited for.
    ///
    /// # Errors
    /// When `socket` is none.
    pub fn add(&mut self, domid: Domid, socket: OwnedFd, patience: Duration) -> Result<(), Errno> {
        // So that a query's answer is waited for in the same call that receives it.
        let mode = rustix::fs::fcntl_getfl(&socket)?;
        rustix::fs::fcntl_setfl(&socket, mode - rustix::fs::OFlags::NONBLOCK)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(patience))?;
        // Room for the changes that a stopped domain has to hear of; the kernel gives what it
        // may, and less will do.
        let _ = set_socket_send_buffer_size(&socket, SEND_BUFFER);
        self.sockets.insert(domid, socket);
        Ok(())
    }

    /// The socket of a domain.
    pub fn socket(&self, domid: Domid) -> Option<BorrowedFd<'_>> {
        self.sockets.get(&domid).map(AsFd::as_fd)
    }
}

impl Carrier for Sockets {
    fn send(&mut self, to: Domid, message: &LinkMsg) -> Result<(), Errno> {
        let socket = self.socket(to).ok_or(Errno::CONNRESET)?;
        send(socket, message, &[], None, SendFlags::DONTWAIT)
    }

    fn receive(&mut self, from: Domid, until: Option<Instant>) -> Result<LinkMsg, Errno> {
        let socket = self.socket(from).ok_or(Errno::CONNRESET)?;
        let flags = match until {
            Some(until) if Instant::now() >= until => return Err(Errno::AGAIN),
            Some(_) => RecvFlags::empty(),
            None => RecvFlags::DONTWAIT,
        };
        Ok(recv::<LinkMsg>(socket, flags)?.0)
    }

    fn close(&mut self, domid: Domid) {
        self.sockets.remove(&domid);
        self.hub.remove_domain(domid);
    }

    fn buried(&mut self, _: Domid) {}
}
