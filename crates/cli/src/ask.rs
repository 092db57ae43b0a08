// SPDX-License-Identifier: MIT OR Apache-2.0
//! A connection to a domain's `vshmemd`, for asking it something as an operator: without
//! [`Op::Hello`], so that it does not count as a client.

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, UCred,
};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use vshmem_abi::channel::Fds;
use vshmem_abi::wire::{Op, Reply, Request};
use vshmem_abi::{ABI_VERSION, channel, paths};

/// How long a daemon may take to answer before it is called hung. One that waits for the
/// back-end gives up on it after 5 s.
pub const PATIENCE: Duration = Duration::from_secs(8);

/// The system's text for an error number: one of ours, or one that a daemon answered with.
pub fn text(errno: i32) -> &'static str {
    match nix::errno::Errno::from_raw(errno) {
        // What a socket says when its time is over.
        nix::errno::Errno::EAGAIN => "no answer in time",
        // What vshmemd says of a question that it would have to pass on.
        nix::errno::Errno::ENODEV => "it has no back-end that answers",
        errno => errno.desc(),
    }
}

/// An answer that is no refusal.
///
/// # Errors
/// The errno that it is a refusal with.
pub fn refused(reply: Reply) -> Result<Reply, Errno> {
    match reply.errno {
        0 => Ok(reply),
        errno => Err(Errno::from_raw_os_error(errno)),
    }
}

/// A connection to a domain's `vshmemd`.
pub struct Daemon {
    socket: OwnedFd,
}

impl Daemon {
    /// Connects; connecting and each answer may take up to `patience`.
    ///
    /// # Errors
    /// `NOENT` and `CONNREFUSED` when the domain is not up, `AGAIN` when it takes no connections.
    pub fn connect(dir: &Path, domain: &str, patience: Duration) -> Result<Self, Errno> {
        let address = SocketAddrUnix::new(paths::domain_socket(dir, domain))?;
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        for side in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, side, Some(patience))?;
        }
        rustix::net::connect(&socket, &address)?;
        Ok(Self { socket })
    }

    /// Sends one request and waits for the answer, which may be a refusal.
    ///
    /// # Errors
    /// `AGAIN` when the daemon does not answer, `CONNRESET` or `PIPE` when it ends meanwhile.
    pub fn ask(&self, op: Op, request: Request) -> Result<Reply, Errno> {
        self.ask_for_files(op, request).map(|(reply, _)| reply)
    }

    /// The same of an answer that comes with descriptors.
    fn ask_for_files(&self, op: Op, request: Request) -> Result<(Reply, Fds), Errno> {
        let request = Request {
            version: ABI_VERSION,
            op: op as u32,
            ..request
        };
        let own = UCred {
            pid: rustix::process::getpid(),
            uid: rustix::process::geteuid(),
            gid: rustix::process::getegid(),
        };
        let socket = self.socket.as_fd();
        channel::send(socket, &request, &[], Some(own), SendFlags::empty())?;
        channel::recv::<Reply>(socket, RecvFlags::empty())
    }

    /// Becomes a client, which can make and find constructs.
    ///
    /// # Errors
    /// As [`Self::ask`]; `PROTO` from a daemon of another version.
    pub fn greet(&self) -> Result<(), Errno> {
        let own = Request {
            arg: std::process::id(),
            ..Request::default()
        };
        // The pages that come with the answer are for those who attach.
        refused(self.ask(Op::Hello, own)?).map(|_| ())
    }

    /// What the daemon knows of the construct `id`, or of its domain where that is 0.
    ///
    /// # Errors
    /// As [`Self::ask`]; `CONNRESET` too from a daemon that is too old to tell; `PROTO` when the report
    /// makes no sense.
    pub fn report<T: serde::de::DeserializeOwned>(&self, id: i32) -> Result<T, Errno> {
        let about = Request {
            id,
            ..Request::default()
        };
        let (reply, [file, ..]) = self.ask_for_files(Op::Report, about)?;
        refused(reply)?;
        let file = std::fs::File::from(file.ok_or(Errno::PROTO)?);
        let size = file.metadata().map_or(0, |meta| meta.len()) as usize;
        let mut text = vec![0; size];
        // Sent by whoever wrote it, the descriptor is at its end.
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut text, 0).map_err(|_| Errno::PROTO)?;
        vshmem_report::read(&text).map_err(|_| Errno::PROTO)
    }
}
