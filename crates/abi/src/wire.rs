// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages between a client (or the `vshmem` command) and its domain's `vshmemd`.
//!
//! The socket is `SOCK_SEQPACKET`: one message is one packet of fixed size. The client sends a
//! [`Request`] with its current effective uid and gid as `SCM_CREDENTIALS` and waits for the one
//! [`Reply`]; descriptors travel beside a reply as `SCM_RIGHTS`. `vshmemd` never speaks first.

use crate::grants::How;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a request asks for. The fields of [`Request`] that an operation uses are named here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Op {
    /// First message of a client: `arg` is its pid as it sees it, `token` the domain generation
    /// it belonged to before (0: none). Reply: `body` is [`Welcome`], with three descriptors, the
    /// directory (read-only), the client page and the domain's wait page.
    Hello = 1,
    /// `shmget`, `semget`, `msgget`: `kind`, `key`, `size` (`nsems` for sets), `flags`.
    /// Reply: `value` is the id, `body` is [`Meta`]; a segment just made comes with a descriptor
    /// of its region for reading and writing, if that is a file to be mapped directly.
    Get = 2,
    /// Is `id` a routed construct of `kind`? Reply: `body` is [`Meta`]; `EINVAL` when it is not.
    Find = 3,
    /// The region of `id`; `flags` is the access wanted as permission bits ([`crate::perm`]).
    /// Reply: `value` says how to map it ([`REGION_GRANTS`], [`REGION_NO_FUTEX`]), `body` is [`Opened`], with the
    /// descriptor of the region: of a segment read-only unless write permission was asked for (where there is such a
    /// descriptor: a device has none); of a set or queue for reading and writing, if the caller may read or alter it.
    Open = 4,
    /// The client has counted an attachment of `id`, which is being removed: does it still live?
    Confirm = 5,
    /// The client's last attachment of `id`, which is being removed, has gone.
    Detached = 6,
    /// `IPC_STAT` (`id`), or with [`STAT_INDEX`] in `flags` `SHM_STAT` of the routed index `id`;
    /// with [`STAT_ANY`] without permission check. Reply: `value` is the id, `body` is [`Stat`];
    /// of a set `usage.atime` is `sem_otime` and `usage.dtime` the last `SETVAL` or `SETALL`. Of a
    /// queue it is [`QueueStat`].
    Stat = 7,
    /// `IPC_SET`: `id`, `uid`, `gid`, `mode`; of a queue `size` is its `msg_qbytes`.
    Set = 8,
    /// `IPC_RMID`: `id`.
    Remove = 9,
    /// `SHM_LOCK` (`arg` 1) and `SHM_UNLOCK` (`arg` 0) of `id`; `size` is the caller's
    /// `RLIMIT_MEMLOCK` in bytes.
    Lock = 10,
    /// `SHM_INFO`, `SEM_INFO`, `MSG_INFO`: `kind`. Reply: `body` is [`Totals`].
    Info = 11,
    /// The client is about to fork. Reply: `body` is the child's [`Welcome`], with two descriptors,
    /// its connection and its client page, in which the attachments are counted already.
    Fork = 12,
    /// The construct of `kind` with the lowest index above `arg` (`u32::MAX` to begin), for
    /// listings without permission check. Reply: `value` is the id, `body` as of [`Op::Stat`];
    /// `ENOENT` at the end.
    Next = 13,
    /// Stop this daemon: `arg` 0 unless there are clients, 1 even then, 2 not at all: only say how
    /// many there are. Reply: `value` is their number, `EBUSY` when it refuses.
    Shutdown = 14,
    /// The process is about to use `SEM_UNDO` on the set `id` for the first time. Reply: `body` is
    /// [`Undoer`], the same for every set of the process.
    Undo = 15,
    /// Somebody who waits on the set or queue `id`, or would undo something there, seems to be dead. Reply
    /// when what the dead of this domain have left there is cleared away.
    Settle = 16,
    /// The doorbell of domain `arg`, of which somebody waits on the set or queue `id`. `flags` says whom
    /// to wake at once ([`BELL_WAKE`], [`BELL_WAKE_ALL`]), `size` the slot. Reply: `body` is [`Bell`],
    /// with two descriptors, its page (`value` as of [`Op::Open`]) and one to notify with.
    Bell = 17,
    /// For operators: what this daemon knows, of the construct `id`, or of its domain where that is 0. The
    /// reply comes with a descriptor of a file with the report (`vshmem-report`).
    Report = 18,
}

impl Op {
    /// The operation that a peer's number stands for, if any.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            1 => Self::Hello,
            2 => Self::Get,
            3 => Self::Find,
            4 => Self::Open,
            5 => Self::Confirm,
            6 => Self::Detached,
            7 => Self::Stat,
            8 => Self::Set,
            9 => Self::Remove,
            10 => Self::Lock,
            11 => Self::Info,
            12 => Self::Fork,
            13 => Self::Next,
            14 => Self::Shutdown,
            15 => Self::Undo,
            16 => Self::Settle,
            17 => Self::Bell,
            18 => Self::Report,
            _ => return None,
        })
    }
}

/// [`Op::Stat`]: `id` is an index, not an id.
pub const STAT_INDEX: i32 = 1;
/// [`Op::Stat`]: answer whatever the mode (`SHM_STAT_ANY`).
pub const STAT_ANY: i32 = 2;

/// In the `value` of a reply that comes with a region: the descriptor is a grant list
/// ([`crate::grants`]); else it is a file to be mapped.
pub const REGION_GRANTS: i32 = 1;
/// In the `value` of a reply that comes with a region: futexes do not work in it, or do not reach all
/// who use it. Who waits there sleeps in its slot of the wait page.
pub const REGION_NO_FUTEX: i32 = 2;

/// [`Op::Bell`]: wake who sleeps in the slot `size` of the other domain's wait page.
pub const BELL_WAKE: i32 = 1;
/// [`Op::Bell`]: wake all sleepers of the other domain.
pub const BELL_WAKE_ALL: i32 = 2;

/// A request of a client. What a field means, [`Op`] says; unused ones are 0.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Request {
    /// [`crate::ABI_VERSION`] of the sender.
    pub version: u32,
    /// An [`Op`].
    pub op: u32,
    /// A [`crate::Kind`].
    pub kind: u32,
    /// System V key.
    pub key: i32,
    /// Public id, or index.
    pub id: i32,
    /// Flags of the call.
    pub flags: i32,
    /// Bytes, or number of semaphores.
    pub size: u64,
    /// Owner to set.
    pub uid: u32,
    /// Group to set.
    pub gid: u32,
    /// Mode to set.
    pub mode: u32,
    /// As the operation says.
    pub arg: u32,
    /// As the operation says.
    pub token: u64,
}

/// Bytes of [`Reply::body`].
pub const BODY: usize = 136;

/// The answer to a [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Reply {
    /// 0, or the errno of the call.
    pub errno: i32,
    /// As the operation says.
    pub value: i32,
    /// Slot of the construct in the domain's directory.
    pub slot: u32,
    /// Descriptors that were sent beside this message; fewer arrive when the receiver has no
    /// room for them (`EMFILE`).
    pub fds: u32,
    /// What the operation says, from byte 0.
    pub body: [u8; BODY],
}

impl Reply {
    /// A success with nothing in it.
    pub const OK: Self = Self {
        errno: 0,
        value: 0,
        slot: 0,
        fds: 0,
        body: [0; BODY],
    };

    /// A refusal.
    pub const fn error(errno: i32) -> Self {
        Self { errno, ..Self::OK }
    }

    /// A success with `value` and a body.
    pub fn with<T: IntoBytes + Immutable>(value: i32, slot: u32, body: &T) -> Self {
        let mut reply = Self {
            value,
            slot,
            ..Self::OK
        };
        let bytes = body.as_bytes();
        reply.body[..bytes.len()].copy_from_slice(bytes);
        reply
    }

    /// The body as a `T`, which every body is the beginning of.
    pub fn body<T: FromBytes>(&self) -> T {
        const { assert!(size_of::<T>() <= BODY) };
        match T::read_from_prefix(&self.body) {
            Ok((body, _)) => body,
            // Unreachable by the assertion above.
            Err(_) => T::new_zeroed(),
        }
    }
}

/// Body of the replies to [`Op::Hello`] and [`Op::Fork`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Welcome {
    /// Generation of the domain: a random number that each start of `vshmemd` draws anew.
    pub generation: u64,
    /// Number of the domain.
    pub domid: u32,
    /// The client's slot in the domain.
    pub client: u32,
    /// The client's serial number ([`crate::token`]).
    pub serial: u64,
}

/// Body of the reply to [`Op::Open`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Opened {
    /// The construct.
    pub meta: Meta,
    /// Bytes of its region, in whole pages.
    pub bytes: u64,
}

/// How the region is mapped of which an [`Op::Open`] has this [`Reply::value`].
pub const fn how_opened(value: i32) -> How {
    if value & REGION_GRANTS != 0 {
        How::Grants
    } else {
        How::Direct
    }
}

/// Body of the reply to [`Op::Undo`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Undoer {
    /// The process's undo token ([`crate::token`]), which it keeps over `exec`.
    pub token: u64,
}

/// Body of the reply to [`Op::Bell`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Bell {
    /// Number of the doorbell, which no other one of this domain ever has.
    pub serial: u64,
    /// How to notify ([`crate::doorbell::Notify::parts`]).
    pub how: u32,
    /// The port to notify.
    pub port: u32,
    /// Which direction of the page is rung: 0 the first, 1 the second.
    pub direction: u32,
    /// 0.
    pub reserved: u32,
}

/// A construct is in one of these states ([`Meta::state`], and the directory's state words).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// There is none.
    Free = 0,
    /// It lives and its key finds it.
    Live = 1,
    /// `IPC_RMID` was called; it lives until the last detach (`SHM_DEST`).
    Dest = 2,
    /// Its owner domain is gone; what is mapped stays, every call gives `EIDRM`.
    Lost = 3,
}

impl State {
    /// The state that a number stands for; an unknown one is [`State::Free`].
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Live,
            2 => Self::Dest,
            3 => Self::Lost,
            _ => Self::Free,
        }
    }
}

/// What is known of a construct beside its use. Written by the back-end, copied to the domains
/// that know the construct.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Meta {
    /// Public id; 0 where there is no construct.
    pub id: i32,
    /// A [`crate::Kind`].
    pub kind: u32,
    /// Key; 0 for `IPC_PRIVATE` and after `IPC_RMID`.
    pub key: i32,
    /// A [`State`].
    pub state: u32,
    /// Owner.
    pub uid: u32,
    /// Group of the owner.
    pub gid: u32,
    /// Creator.
    pub cuid: u32,
    /// Group of the creator.
    pub cgid: u32,
    /// Permission bits, and [`MODE_LOCKED`].
    pub mode: u32,
    /// Owner domain.
    pub owner: u32,
    /// Bytes as asked for, or number of semaphores; of a queue 0.
    pub size: u64,
    /// Last change by `IPC_SET`, or creation: seconds since the epoch.
    pub ctime: i64,
    /// Pid of the creator in its own domain.
    pub cpid: i32,
    /// Index for `SHM_STAT`, from 0, among the routed constructs of the kind.
    pub index: u32,
    /// log2 of the page size of a `SHM_HUGETLB` segment, else 0.
    pub huge_shift: u32,
    /// Key that it was made with, which it keeps after `IPC_RMID`: what the policy goes by.
    pub made_with: i32,
}

/// Bit of [`Meta::mode`]: `SHM_LOCKED` of `sys/shm.h`.
pub const MODE_LOCKED: u32 = 0o2000;
/// Bit that `IPC_STAT` adds to the mode of a segment in [`State::Dest`]: `SHM_DEST`.
pub const MODE_DEST: u32 = 0o1000;

/// How a segment is used at one moment, over all domains.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Usage {
    /// Attachments (`shm_nattch`).
    pub nattch: u64,
    /// Last attach, in nanoseconds since the epoch; 0: never. Of a set the last `semop`.
    pub atime: i64,
    /// Last detach, in nanoseconds since the epoch; 0: never. Of a set the last `SETVAL` or
    /// `SETALL`.
    pub dtime: i64,
    /// Pid of the last attach or detach, in its own domain.
    pub lpid: i32,
    /// That domain.
    pub lpid_domain: u32,
    /// Pages that are in memory.
    pub resident: u64,
}

impl Usage {
    /// Adds what another process or domain says of the same segment.
    pub fn merge(&mut self, other: &Usage) {
        if other.atime.max(other.dtime) > self.atime.max(self.dtime) {
            self.lpid = other.lpid;
            self.lpid_domain = other.lpid_domain;
        }
        self.nattch = self.nattch.saturating_add(other.nattch);
        self.atime = self.atime.max(other.atime);
        self.dtime = self.dtime.max(other.dtime);
        self.resident = self.resident.max(other.resident);
    }
}

/// Body of the replies to [`Op::Stat`] and [`Op::Next`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Stat {
    /// The construct.
    pub meta: Meta,
    /// Its use.
    pub usage: Usage,
}

/// What is in a message queue at one moment, and who used it last.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct QueueUse {
    /// Messages (`msg_qnum`).
    pub qnum: u64,
    /// Bytes of their texts (`msg_cbytes`).
    pub cbytes: u64,
    /// Bytes that may be in the queue (`msg_qbytes`).
    pub qbytes: u64,
    /// Last `msgsnd`, seconds since the epoch; 0: never.
    pub stime: i64,
    /// Last `msgrcv`, likewise.
    pub rtime: i64,
    /// Pid of the last `msgsnd`, in its own domain.
    pub lspid: i32,
    /// That domain.
    pub lspid_domain: u32,
    /// Pid of the last `msgrcv`, in its own domain.
    pub lrpid: i32,
    /// That domain.
    pub lrpid_domain: u32,
}

/// Body of the replies to [`Op::Stat`] and [`Op::Next`] about a queue.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct QueueStat {
    /// The construct.
    pub meta: Meta,
    /// Its use.
    pub queue: QueueUse,
}

/// Body of the reply to [`Op::Info`]: routed constructs of a kind, together.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Totals {
    /// How many there are.
    pub used: u64,
    /// The highest index in use plus one.
    pub indices: u64,
    /// Their pages (`shm_tot`); of sets their semaphores, of queues their messages.
    pub pages: u64,
    /// Of these, in memory (`shm_rss`); of queues the bytes of their messages.
    pub resident: u64,
}

const _: () = {
    assert!(size_of::<Request>() == 56);
    assert!(size_of::<Meta>() == 72);
    assert!(size_of::<Usage>() == 40);
    assert!(size_of::<Stat>() <= BODY);
    assert!(size_of::<QueueStat>() <= BODY);
    assert!(size_of::<Opened>() == 80);
    assert!(size_of::<Reply>() == 152);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn op_numbers_and_from_raw_agree() {
        for raw in 0..64 {
            if let Some(op) = Op::from_raw(raw) {
                assert_eq!(op as u32, raw);
            }
        }
        assert_eq!(Op::from_raw(0), None);
        assert_eq!(Op::from_raw(19), None);
    }

    #[test]
    fn usage_of_two_sides_adds_counts_and_takes_the_later_pid() {
        let mut a = Usage {
            nattch: 2,
            atime: 10,
            dtime: 5,
            lpid: 1,
            lpid_domain: 1,
            resident: 3,
        };
        a.merge(&Usage {
            nattch: 1,
            atime: 3,
            dtime: 11,
            lpid: 2,
            lpid_domain: 2,
            resident: 2,
        });
        let want = Usage {
            nattch: 3,
            atime: 10,
            dtime: 11,
            lpid: 2,
            lpid_domain: 2,
            resident: 3,
        };
        assert_eq!(a, want);
    }

    #[test]
    fn a_body_survives_the_trip() {
        let stat = Stat {
            meta: Meta {
                id: 7,
                ..Meta::default()
            },
            usage: Usage::default(),
        };
        assert_eq!(Reply::with(7, 1, &stat).body::<Stat>(), stat);
    }
}
