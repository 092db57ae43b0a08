// SPDX-License-Identifier: MIT OR Apache-2.0
//! A domain's connection to the hub.

use super::memory::{HostRegion, to_error};
use super::{CLOSED, HubMsg, HubOp, error_of};
use crate::port::{Event, GrantRef, LocalPort, Port, PortError, Region, RegionOptions};
use rustix::event::EventfdFlags;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use vshmem_abi::Domid;
use vshmem_abi::channel::{self, Fds};
use vshmem_abi::doorbell::Notify;
use vshmem_abi::region::Memory;

/// How long the hub may take for an answer. It never waits for anybody itself, so this passes
/// only while the whole back-end is stopped.
const PATIENCE: Duration = Duration::from_secs(5);

/// The host port of one domain.
#[derive(Debug)]
pub struct HostPort {
    domid: Domid,
    hub: OwnedFd,
    seq: u32,
    /// Whether the domains are to be taken for such as share a kernel.
    one_kernel: bool,
    channels: HashMap<LocalPort, Channel>,
}

#[derive(Debug)]
struct Channel {
    wait: OwnedFd,
    kick: OwnedFd,
    closed: bool,
}

impl HostPort {
    /// The port of domain `domid` over the connection that it got when it was enrolled.
    ///
    /// # Errors
    /// When `hub` is no socket.
    pub fn new(domid: Domid, hub: OwnedFd) -> io::Result<Self> {
        set_socket_timeout(&hub, Timeout::Recv, Some(PATIENCE))?;
        set_socket_timeout(&hub, Timeout::Send, Some(PATIENCE))?;
        Ok(Self {
            domid,
            hub,
            seq: 0,
            one_kernel: true,
            channels: HashMap::new(),
        })
    }

    /// The same port, of which it is said that futexes do not work in its regions, as where each domain
    /// has a kernel of its own.
    pub fn with_separate_kernels(self) -> Self {
        Self {
            one_kernel: false,
            ..self
        }
    }

    fn call(
        &mut self,
        op: HubOp,
        domid: Domid,
        number: u32,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(HubMsg, Fds), PortError> {
        self.seq = self.seq.wrapping_add(1);
        let request = HubMsg {
            op: op as u32,
            seq: self.seq,
            domid,
            number,
            ..HubMsg::default()
        };
        channel::send(self.hub.as_fd(), &request, fds, None, SendFlags::empty())
            .map_err(connection_error)?;
        loop {
            let (answer, fds) = channel::recv::<HubMsg>(self.hub.as_fd(), RecvFlags::empty())
                .map_err(connection_error)?;
            // The answer to a request that was given up comes late.
            if answer.seq != request.seq {
                continue;
            }
            return match error_of(answer.error) {
                None => Ok((answer, fds)),
                Some(error) => Err(error),
            };
        }
    }

    fn new_channel(
        &mut self,
        op: HubOp,
        remote: Domid,
        number: u32,
    ) -> Result<LocalPort, PortError> {
        // An answer whose descriptors find no room is lost, and the hub would keep an end that
        // nobody here knows of. So room is made sure of before.
        let flags = EventfdFlags::CLOEXEC;
        let room = [(); 2].map(|()| rustix::event::eventfd(0, flags));
        for fd in room {
            fd.map_err(to_error)?;
        }
        let (answer, mut fds) = self.call(op, remote, number, &[])?;
        let port = LocalPort(answer.number);
        let (Some(wait), Some(kick)) = (fds[0].take(), fds[1].take()) else {
            return Err(PortError::TooManyDescriptors);
        };
        let channel = Channel {
            wait,
            kick,
            closed: false,
        };
        self.channels.insert(port, channel);
        Ok(port)
    }

    fn channel(&self, port: LocalPort) -> Result<&Channel, PortError> {
        self.channels.get(&port).ok_or(PortError::BadArgument)
    }
}

/// What it means that a message could not be sent to the hub or received from it.
fn connection_error(errno: Errno) -> PortError {
    match errno {
        Errno::MFILE | Errno::NFILE | Errno::TOOMANYREFS => PortError::TooManyDescriptors,
        Errno::NOMEM | Errno::NOBUFS => PortError::NoMemory,
        _ => PortError::Disconnected,
    }
}

impl Port for HostPort {
    type Region = HostRegion;

    fn domid(&self) -> Domid {
        self.domid
    }

    fn memory(&self) -> Memory {
        Memory::OnDemand
    }

    fn create(&mut self, bytes: u64, options: RegionOptions) -> Result<HostRegion, PortError> {
        let region = HostRegion::create(bytes, options)?;
        Ok(region.with_futexes(self.one_kernel))
    }

    fn grant(&mut self, region: &HostRegion, to: Domid) -> Result<GrantRef, PortError> {
        if !region.is_own() {
            return Err(PortError::BadArgument);
        }
        let (answer, _) = self.call(HubOp::Grant, to, 0, &[region.fd()])?;
        Ok(GrantRef(answer.number))
    }

    fn grant_read_only(&mut self, region: &HostRegion, to: Domid) -> Result<GrantRef, PortError> {
        if !region.is_own() {
            return Err(PortError::BadArgument);
        }
        let file = region.for_reading()?;
        let (answer, _) = self.call(HubOp::Grant, to, 0, &[file.as_fd()])?;
        Ok(GrantRef(answer.number))
    }

    fn end_grant(&mut self, gref: GrantRef) -> Result<(), PortError> {
        self.call(HubOp::EndGrant, 0, gref.0, &[]).map(|_| ())
    }

    fn map(&mut self, owner: Domid, gref: GrantRef) -> Result<HostRegion, PortError> {
        let (answer, mut fds) = self.call(HubOp::Map, owner, gref.0, &[])?;
        let fd = fds[0].take().ok_or(PortError::TooManyDescriptors)?;
        Ok(HostRegion::mapped(fd, answer.bytes).with_futexes(self.one_kernel))
    }

    fn alloc_unbound(&mut self, remote: Domid) -> Result<LocalPort, PortError> {
        self.new_channel(HubOp::AllocUnbound, remote, 0)
    }

    fn bind_interdomain(
        &mut self,
        remote: Domid,
        remote_port: LocalPort,
    ) -> Result<LocalPort, PortError> {
        self.new_channel(HubOp::Bind, remote, remote_port.0)
    }

    fn notify(&mut self, port: LocalPort) -> Result<(), PortError> {
        let (kick, how) = self.notifier(port)?;
        how.raise(kick).map_err(|_| PortError::BadArgument)
    }

    fn notifier(&self, port: LocalPort) -> Result<(BorrowedFd<'_>, Notify), PortError> {
        Ok((self.channel(port)?.kick.as_fd(), Notify::Write))
    }

    fn wait_fd(&self, port: LocalPort) -> Result<BorrowedFd<'_>, PortError> {
        Ok(self.channel(port)?.wait.as_fd())
    }

    fn take(&mut self, port: LocalPort) -> Result<Event, PortError> {
        let channel = self.channels.get_mut(&port);
        let channel = channel.ok_or(PortError::BadArgument)?;
        let mut count = [0; 8];
        let raised = match rustix::io::read(&channel.wait, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            // EAGAIN: nothing came.
            Err(_) => 0,
        };
        channel.closed |= raised >= CLOSED;
        Ok(match raised {
            _ if channel.closed => Event::Closed,
            0 => Event::Idle,
            _ => Event::Raised,
        })
    }

    fn close(&mut self, port: LocalPort) -> Result<(), PortError> {
        self.channels.remove(&port).ok_or(PortError::BadArgument)?;
        self.call(HubOp::Close, 0, port.0, &[]).map(|_| ())
    }
}
