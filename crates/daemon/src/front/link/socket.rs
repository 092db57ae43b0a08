// SPDX-License-Identifier: MIT OR Apache-2.0
//! The connection of the host port: a socket.

use super::transport::{Incoming, Transport};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect,
    socket_with,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use vshmem_abi::channel::{recv, send};
use vshmem_abi::link::LinkMsg;
use vshmem_abi::paths;

/// A socket whose other end is the back-end. Once that is closed it is of no more use.
pub struct Socket(OwnedFd);

impl Socket {
    /// Connects to the back-end of the world in `dir`.
    ///
    /// # Errors
    /// What `socket` and `connect` say.
    pub fn connect(dir: &Path) -> Result<Self, Errno> {
        let address = SocketAddrUnix::new(paths::backend_socket(dir))?;
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        connect(&socket, &address)?;
        Ok(Self(socket))
    }
}

impl From<OwnedFd> for Socket {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl Transport for Socket {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn is_up(&self) -> bool {
        true
    }

    fn begin(&mut self) -> Result<(), Errno> {
        Ok(())
    }

    fn send(&mut self, message: &LinkMsg) -> Result<(), Errno> {
        send(self.fd(), message, &[], None, SendFlags::DONTWAIT)
    }

    fn receive(&mut self) -> Result<Incoming, Errno> {
        match recv::<LinkMsg>(self.fd(), RecvFlags::DONTWAIT) {
            Ok((message, fds)) => Ok(Incoming::Message(message, fds)),
            Err(Errno::AGAIN) => Ok(Incoming::Nothing),
            Err(errno) => Err(errno),
        }
    }

    fn holds_more(&self) -> bool {
        false
    }

    fn advice(&self) -> &'static str {
        "stop this domain (vshmem down --domain NAME --force) and start it again (vshmem run) to have \
         a back-end"
    }
}
