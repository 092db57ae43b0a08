// SPDX-License-Identifier: MIT OR Apache-2.0
//! Receiving requests together with who sent them, on the kernel's word.
//!
//! A client sends its effective uid and gid as `SCM_CREDENTIALS`; the kernel lets it name no ids
//! but its own. Received through nix: a pid that our pid namespace does not show arrives as 0,
//! which rustix's type for pids cannot hold.

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, recvmsg};
use rustix::io::Errno;
use std::cell::OnceCell;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd};
use vshmem_abi::wire::{Meta, Request};
use vshmem_abi::{ABI_VERSION, perm};
use zerocopy::{FromZeros, IntoBytes};

/// Who sent a request.
#[derive(Debug)]
pub struct Caller {
    /// Effective uid.
    pub uid: u32,
    /// Effective gid.
    pub gid: u32,
    /// Process, as our pid namespace numbers it; 0 where it does not show it.
    pub pid: i32,
    groups: OnceCell<Vec<u32>>,
}

impl Caller {
    /// A caller with these ids, whose supplementary groups are looked up when they are needed.
    pub fn new(uid: u32, gid: u32, pid: i32) -> Self {
        Self {
            uid,
            gid,
            pid,
            groups: OnceCell::new(),
        }
    }

    /// Whether it is in group `gid`. `connection` is the one the request came on, if it is one
    /// that the client opened: it tells the groups of a process that we cannot see.
    pub fn in_group(&self, gid: u32, connection: Option<BorrowedFd<'_>>) -> bool {
        self.gid == gid
            || self
                .groups
                .get_or_init(|| {
                    groups_of_process(self.pid)
                        .or_else(|| groups_of_peer(connection?))
                        .unwrap_or_default()
                })
                .contains(&gid)
    }

    /// Whether it has the privilege of raising limits: root, and `CAP_SYS_RESOURCE` as far as that can
    /// be seen (a container's root is often without it).
    pub fn may_raise_limits(&self) -> bool {
        const CAP_SYS_RESOURCE: u32 = 24;
        self.uid == 0
            && capabilities_of_process(self.pid)
                .is_none_or(|effective| effective >> CAP_SYS_RESOURCE & 1 == 1)
    }

    /// Whether it may access a construct in the ways that `wanted` names.
    pub fn may_access(&self, meta: &Meta, wanted: u32, connection: Option<BorrowedFd<'_>>) -> bool {
        perm::may_access(meta, wanted, self.uid, |gid| self.in_group(gid, connection))
    }
}

/// What `/proc` says of a process at this moment, if it shows it.
fn status_of_process(pid: i32) -> Option<String> {
    (pid > 0).then(|| std::fs::read_to_string(format!("/proc/{pid}/status")).ok())?
}

fn line_of<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

/// Supplementary groups of a process.
fn groups_of_process(pid: i32) -> Option<Vec<u32>> {
    groups_line(&status_of_process(pid)?)
}

fn groups_line(status: &str) -> Option<Vec<u32>> {
    Some(
        line_of(status, "Groups:")?
            .split_whitespace()
            .filter_map(|g| g.parse().ok())
            .collect(),
    )
}

/// Effective capabilities of a process, a bit each.
fn capabilities_of_process(pid: i32) -> Option<u64> {
    let status = status_of_process(pid)?;
    u64::from_str_radix(line_of(&status, "CapEff:")?.trim(), 16).ok()
}

/// Supplementary groups that the process had when it connected.
fn groups_of_peer(connection: BorrowedFd<'_>) -> Option<Vec<u32>> {
    // `asm-generic/socket.h`; the libc crate does not have it.
    const SO_PEERGROUPS: libc::c_int = 59;
    // NGROUPS_MAX of the kernel: one call is always enough.
    let mut groups = vec![0u32; 65536];
    let mut bytes = size_of_val(groups.as_slice()) as libc::socklen_t;
    // SAFETY: `groups` has room for `bytes` bytes, any of which the kernel may fill.
    let result = unsafe {
        libc::getsockopt(
            connection.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &mut bytes,
        )
    };
    if result != 0 {
        return None;
    }
    groups.truncate(bytes as usize / size_of::<u32>());
    Some(groups)
}

/// What a look at a connection found.
#[derive(Debug)]
pub enum Received {
    /// A request.
    Request(Request, Caller),
    /// Nothing at the moment.
    Nothing,
    /// The peer has closed.
    Closed,
    /// Something that no client of ours sends; what is wrong with it.
    Garbage(&'static str),
}

/// Receives requests. Holds the space for credentials, so that receiving allocates nothing.
pub struct Receiver {
    control: Vec<u8>,
}

impl Receiver {
    /// A new one.
    pub fn new() -> Self {
        Self {
            control: nix::cmsg_space!(UnixCredentials),
        }
    }

    /// The next request waiting on `connection`. Descriptors that somebody sends along find no
    /// room in the control message, so the kernel drops them before they are ours.
    pub fn receive(&mut self, connection: BorrowedFd<'_>) -> Received {
        let mut request = Request::new_zeroed();
        let mut parts = [IoSliceMut::new(request.as_mut_bytes())];
        let received = recvmsg::<UnixAddr>(
            connection.as_raw_fd(),
            &mut parts,
            Some(&mut self.control),
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC,
        );
        let message = match received {
            Ok(message) => message,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Received::Nothing,
            Err(_) => return Received::Closed,
        };
        if message.bytes == 0 {
            return Received::Closed;
        }
        if message.bytes != size_of::<Request>() || message.flags.contains(MsgFlags::MSG_TRUNC) {
            return Received::Garbage("a packet of the wrong size");
        }
        // An error means that something was cut off: descriptors.
        let Ok(mut parts) = message.cmsgs() else {
            return Received::Garbage("descriptors, which no request has");
        };
        let caller = parts.find_map(|part| match part {
            ControlMessageOwned::ScmCredentials(c) => {
                Some(Caller::new(c.uid(), c.gid(), c.pid().max(0)))
            }
            _ => None,
        });
        match caller {
            Some(_) if request.version != ABI_VERSION && request.op != HELLO => {
                Received::Garbage("another version of the messages")
            }
            Some(caller) => Received::Request(request, caller),
            None => Received::Garbage("a packet without credentials"),
        }
    }
}

/// The operation whose version mismatch is answered, not cut off: the client says which it has.
const HELLO: u32 = vshmem_abi::wire::Op::Hello as u32;

/// For `map_err` of standard library calls: the errno, or `EIO` where there was none.
pub fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
        SocketType, sendmsg, socketpair, sockopt::set_socket_passcred,
    };
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd, OwnedFd};

    fn pair() -> (OwnedFd, OwnedFd) {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        set_socket_passcred(&ours, true).unwrap();
        (ours, theirs)
    }

    fn open_descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    fn request() -> Request {
        Request {
            version: ABI_VERSION,
            op: 2,
            ..Request::default()
        }
    }

    fn send(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        }
        sendmsg(
            socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::empty(),
        )
        .unwrap();
    }

    #[test]
    fn a_request_arrives_with_the_ids_of_its_sender() {
        let (ours, theirs) = pair();
        send(&theirs, request().as_bytes(), &[]);
        match Receiver::new().receive(ours.as_fd()) {
            Received::Request(got, caller) => {
                assert_eq!(got, request());
                assert_eq!(caller.pid, std::process::id() as i32);
                assert_eq!(caller.uid, rustix::process::geteuid().as_raw());
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn descriptors_stuffed_into_a_request_are_refused_and_never_become_ours() {
        let (ours, theirs) = pair();
        let mut receiver = Receiver::new();
        for _ in 0..100 {
            let fd = theirs.as_fd();
            send(&theirs, request().as_bytes(), &[fd, fd, fd, fd]);
            assert!(matches!(
                receiver.receive(ours.as_fd()),
                Received::Garbage(_)
            ));
        }
        // Other tests of this process open and close a few at the same time.
        assert!(open_descriptors() < 100);
    }

    #[test]
    fn packets_of_any_other_size_and_of_other_versions_are_garbage() {
        let (ours, theirs) = pair();
        let mut receiver = Receiver::new();
        for size in [1, 55, 57, 4096] {
            send(&theirs, &vec![0xff; size], &[]);
            assert!(
                matches!(receiver.receive(ours.as_fd()), Received::Garbage(_)),
                "{size}"
            );
        }
        let other = Request {
            version: ABI_VERSION + 1,
            ..request()
        };
        send(&theirs, other.as_bytes(), &[]);
        assert!(matches!(
            receiver.receive(ours.as_fd()),
            Received::Garbage(_)
        ));
        assert!(matches!(receiver.receive(ours.as_fd()), Received::Nothing));
        drop(theirs);
        assert!(matches!(receiver.receive(ours.as_fd()), Received::Closed));
    }

    #[test]
    fn groups_are_read_as_proc_writes_them() {
        assert_eq!(
            groups_line("Name:\tx\nGroups:\t4 27 1000 \nNStgid:\t1\n"),
            Some(vec![4, 27, 1000])
        );
        assert_eq!(groups_line("Groups:\t \n"), Some(vec![]));
        assert_eq!(groups_line("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_is_in_its_own_groups() {
        let own = rustix::process::getgroups().unwrap();
        let pid = std::process::id() as i32;
        for group in own {
            let caller = Caller::new(1, u32::MAX, pid);
            assert!(caller.in_group(group.as_raw(), None));
        }
        assert!(!Caller::new(1, 5, pid).in_group(0x7fff_fff0, None));
    }
}
