// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread that serves the hub's connections, one for each domain.

use super::hub::Hub;
use super::{HubMsg, HubOp, code_of};
use crate::port::{GrantRef, Limits, LocalPort, PortError};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use vshmem_abi::Domid;
use vshmem_abi::channel::{self, Fds};

/// What the owner of the [`HubHandle`] tells the thread.
#[derive(Debug)]
enum Command {
    Add(Domid, OwnedFd),
    Remove(Domid),
    Stop,
}

#[derive(Debug)]
struct Shared {
    commands: Mutex<Vec<Command>>,
    wake: OwnedFd,
}

impl Shared {
    fn tell(&self, command: Command) {
        self.commands.lock().push(command);
        // It fails only when the count is at its highest, and then the thread wakes anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// The running hub. It stops when this is dropped, and all its domains see it gone.
#[derive(Debug)]
pub struct HubHandle {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl HubHandle {
    /// A new domain, whose number must not have been used before. Returns its end of the
    /// connection, for [`super::HostPort::new`]; when that is closed, the domain is gone.
    ///
    /// # Errors
    /// Those of `socketpair`: no more descriptors.
    pub fn add_domain(&self, domid: Domid) -> io::Result<OwnedFd> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        self.shared.tell(Command::Add(domid, ours));
        Ok(theirs)
    }

    /// A domain is gone, whether or not its connection still is there.
    pub fn remove_domain(&self, domid: Domid) {
        self.shared.tell(Command::Remove(domid));
    }
}

impl Drop for HubHandle {
    fn drop(&mut self) {
        self.shared.tell(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// Starts the hub, each of whose domains will have `limits`.
///
/// # Errors
/// No thread or no descriptor to be had.
pub fn serve(limits: Limits) -> io::Result<HubHandle> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let shared = Arc::new(Shared {
        commands: Mutex::new(Vec::new()),
        wake: rustix::event::eventfd(0, flags)?,
    });
    let theirs = shared.clone();
    let thread = std::thread::Builder::new()
        .name("hub".to_owned())
        .spawn(move || run(&theirs, Hub::new(limits)))?;
    Ok(HubHandle {
        shared,
        thread: Some(thread),
    })
}

fn run(shared: &Shared, mut hub: Hub) {
    let mut connections: Vec<(Domid, OwnedFd)> = Vec::new();
    loop {
        let ready = wait(shared.wake.as_fd(), &connections);
        if ready.first() == Some(&true) {
            let mut count = [0; 8];
            // Nothing to read is fine: the queue is looked through either way.
            let _ = rustix::io::read(&shared.wake, &mut count);
            for command in std::mem::take(&mut *shared.commands.lock()) {
                match command {
                    Command::Add(domid, connection) => {
                        hub.add_domain(domid);
                        connections.push((domid, connection));
                    }
                    Command::Remove(domid) => {
                        hub.remove_domain(domid);
                        connections.retain(|(d, _)| *d != domid);
                    }
                    Command::Stop => return,
                }
            }
            // The flags belong to the list as it was: look again.
            continue;
        }
        let mut gone = Vec::new();
        for ((domid, connection), _) in connections.iter().zip(&ready[1..]).filter(|(_, r)| **r) {
            if serve_one(&mut hub, *domid, connection.as_fd()).is_err() {
                gone.push(*domid);
            }
        }
        for domid in gone {
            hub.remove_domain(domid);
            connections.retain(|(d, _)| *d != domid);
        }
    }
}

/// Waits until something is there, and says for the wake-up and each connection whether it is.
fn wait(wake: BorrowedFd<'_>, connections: &[(Domid, OwnedFd)]) -> Vec<bool> {
    let connections = connections.iter().map(|(_, fd)| fd.as_fd());
    let mut fds: Vec<PollFd<'_>> = std::iter::once(wake)
        .chain(connections)
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    // After a signal, or without memory for it in the kernel, nothing is ready: the caller asks
    // again.
    let _ = rustix::event::poll(&mut fds, None);
    fds.iter().map(|fd| !fd.revents().is_empty()).collect()
}

/// Answers one request. An error means that the connection is of no more use.
fn serve_one(hub: &mut Hub, domid: Domid, connection: BorrowedFd<'_>) -> Result<(), Errno> {
    let (request, fds) = match channel::recv::<HubMsg>(connection, RecvFlags::DONTWAIT) {
        Ok(received) => received,
        Err(Errno::AGAIN) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let mut answer = HubMsg {
        op: request.op,
        seq: request.seq,
        ..HubMsg::default()
    };
    let fds = match handle(hub, domid, &request, fds, &mut answer) {
        Ok(fds) => fds,
        Err(error) => {
            answer.error = code_of(error);
            Vec::new()
        }
    };
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
    // A domain that does not read its answers breaks the connection with EAGAIN: it may not make
    // the others wait.
    channel::send(connection, &answer, &fds, None, SendFlags::DONTWAIT)
}

fn handle(
    hub: &mut Hub,
    domid: Domid,
    request: &HubMsg,
    mut fds: Fds,
    answer: &mut HubMsg,
) -> Result<Vec<Arc<OwnedFd>>, PortError> {
    let op = HubOp::from_raw(request.op).ok_or(PortError::BadArgument)?;
    match op {
        HubOp::Grant => {
            // One is always sent along: it found no room here.
            let memory = fds[0].take().ok_or(PortError::TooManyDescriptors)?;
            answer.number = hub.grant(domid, request.domid, memory)?.0;
            Ok(Vec::new())
        }
        HubOp::EndGrant => {
            hub.end_grant(domid, GrantRef(request.number))?;
            Ok(Vec::new())
        }
        HubOp::Map => {
            let gref = GrantRef(request.number);
            let (memory, bytes) = hub.map(domid, request.domid, gref)?;
            answer.bytes = bytes;
            Ok(vec![memory])
        }
        HubOp::AllocUnbound | HubOp::Bind => {
            let (port, ends) = if op == HubOp::Bind {
                hub.bind_interdomain(domid, request.domid, LocalPort(request.number))?
            } else {
                hub.alloc_unbound(domid, request.domid)?
            };
            answer.number = port.0;
            Ok(vec![ends.wait, ends.kick])
        }
        HubOp::Close => {
            hub.close(domid, LocalPort(request.number))?;
            Ok(Vec::new())
        }
    }
}
