// SPDX-License-Identifier: MIT OR Apache-2.0
//! Construct kinds, public ids and domain numbers.

use core::fmt;

/// The bit that every public id of a routed construct has set (30 of the 31 bits of a
/// non-negative `int` are left for the random draw). An id without it is the kernel's for sure.
pub const ROUTED_BIT: i32 = 1 << 30;

/// `IPC_PRIVATE`: the key of a construct that no key finds.
pub const IPC_PRIVATE: i32 = 0;

/// Whether `id` may be a routed one. The kernel's own ids get this high too, so a `true` still
/// has to be looked up.
pub const fn may_be_routed(id: i32) -> bool {
    id >= ROUTED_BIT
}

/// The three kinds of construct of System V IPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Kind {
    /// A shared memory segment (`shmget`).
    Shm = 1,
    /// A semaphore set (`semget`).
    Sem = 2,
    /// A message queue (`msgget`).
    Msg = 3,
}

impl Kind {
    /// The kind that a peer's number stands for, if any.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Shm),
            2 => Some(Self::Sem),
            3 => Some(Self::Msg),
            _ => None,
        }
    }

    /// The name that `ipcs` and the man pages use in calls: `shm`, `sem`, `msg`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Sem => "sem",
            Self::Msg => "msg",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Number of a domain: what Xen calls a domid; on the host port drawn by the back-end at
/// enrolment and never used twice while it runs. 0 is the back-end itself (dom0).
pub type Domid = u32;

/// The highest number that a domain can have: a token has 20 bits for it. Xen's end below 2^15.
pub const MAX_DOMID: Domid = (1 << 20) - 1;
