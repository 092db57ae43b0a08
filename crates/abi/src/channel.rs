// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sending and receiving fixed-size messages with descriptors over `SOCK_SEQPACKET`.
//!
//! Built on raw system calls (rustix): no errno of the host program is touched, nothing is a
//! cancellation point, nothing allocates.

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, UCred, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Descriptors that one message can carry.
pub const MAX_FDS: usize = 4;

/// The descriptors that came with a message, in the order they were sent.
pub type Fds = [Option<OwnedFd>; MAX_FDS];

/// Sends `message` with descriptors and, where `creds` is given, with those credentials, which
/// the kernel verifies. Never raises `SIGPIPE`.
pub fn send<T: IntoBytes + Immutable>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
    creds: Option<UCred>,
    flags: SendFlags,
) -> Result<(), Errno> {
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS), ScmCredentials(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    if let Some(creds) = creds
        && !control.push(SendAncillaryMessage::ScmCredentials(creds))
    {
        return Err(Errno::INVAL);
    }
    let bytes = message.as_bytes();
    loop {
        let sent = sendmsg(
            socket,
            &[IoSlice::new(bytes)],
            &mut control,
            flags | SendFlags::NOSIGNAL,
        );
        match sent {
            Ok(n) if n == bytes.len() => return Ok(()),
            Ok(_) => return Err(Errno::MSGSIZE),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Receives one message and the descriptors with it, all of them close-on-exec. Goes on waiting
/// after a signal.
///
/// # Errors
/// `CONNRESET` when the peer has closed, `PROTO` when the packet is not of the size of a `T`.
/// Descriptors for which the process has no room left are missing; that is for the caller to see.
pub fn recv<T: FromBytes + IntoBytes>(
    socket: BorrowedFd<'_>,
    flags: RecvFlags,
) -> Result<(T, Fds), Errno> {
    let mut message = T::new_zeroed();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let want = size_of::<T>();
    let got = loop {
        let mut parts = [IoSliceMut::new(message.as_mut_bytes())];
        match recvmsg(
            socket,
            &mut parts,
            &mut control,
            flags | RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(got) => break got,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    };
    let mut fds: Fds = Default::default();
    let mut room = fds.iter_mut();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            for (fd, place) in received.zip(&mut room) {
                *place = Some(fd);
            }
        }
    }
    if got.bytes == 0 {
        return Err(Errno::CONNRESET);
    }
    if got.bytes != want || got.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::PROTO);
    }
    Ok((message, fds))
}
