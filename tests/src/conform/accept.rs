// SPDX-License-Identifier: MIT OR Apache-2.0
//! The differences that are accepted: all that is not compared, and why. Each is applied to both
//! sides alike, from what the script says; none looks at which side a trace is of. The reasons
//! in full are in `docs/limitations.md`.
//!
//! - **Names.** Ids, addresses that the system chose and pids are compared as names: the n-th id
//!   that a script got, the n-th process. Bit 30 of routed ids is a part of that.
//! - **Indexes** of `SHM_STAT`, and with them the return value of `IPC_INFO` and `SHM_INFO`: a
//!   listing is compared by whether some index leads to an id.
//! - **Pids of another domain** are 0 ([`pid`]): a pid means nothing outside its own.
//! - **Mappings that the program changed itself.** What `munmap`, `mprotect` and `SHM_REMAP` do to an
//!   attachment is counted as in the kernel when somebody asks, but nobody is told when it happens:
//!   times and last pid of a segment that was [`Cloud`]ed so are not compared from there on, and,
//!   once it is removed, neither is how long it lives.
//! - **Order of ends.** The kernel takes a process's attachments away while it ends; `vshmemd` when it
//!   hears of it, which is before anybody's look at the segment but may be after the end of another
//!   process. So each end is followed by a look, lest last pid and time depend on that order.
//! - **`SHM_HUGETLB` of nearly 2^64 bytes.** The kernel's rounding up to whole huge pages overflows to
//!   an empty segment; Vshmem says `ENOMEM`. Scripts ask for [`LARGEST_HUGE`] at most.
//! - **Pages in memory** (`shm_rss`), once a byte was read: a page that was never written to may go at
//!   any moment when memory is short.
//! - **Empty undo.** Who asked for `SEM_UNDO` without permission, or on a semaphore that there is not,
//!   has an undo in the kernel, without adjustments, and its end counts as an operation: `sem_otime` of the set is not compared from then
//!   on.
//! - **Between guests** memory is taken, and granted, when it is made: scripts ask neither for segments
//!   larger than a guest, nor for huge pages.
//! - **Limits of grants** are raised out of the way: scripts make segments that no domain could grant.

use super::script::{Call, Id};

/// Bytes that scripts ask for with `SHM_HUGETLB`, at most.
pub const LARGEST_HUGE: u64 = i64::MAX as u64;

/// What is known of a segment whose attachments were cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cloud {
    /// An attachment of it was cut.
    pub cut: bool,
    /// `IPC_RMID` was called on it.
    pub removed: bool,
}

impl Cloud {
    /// Whether it may have been destroyed on one side and not on the other.
    pub fn may_be_gone(self) -> bool {
        self.cut && self.removed
    }
}

/// The fields of a segment that are not compared when an attachment of it was cut.
const CUT_FIELDS: [&str; 3] = ["atime", "dtime", "lpid"];

/// Whether a field of a segment of which an attachment was cut is compared. Between guests only calls of
/// `shmat` and `shmdt` count.
pub fn is_compared_when_cut(field: &str) -> bool {
    !(CUT_FIELDS.contains(&field) || field == "nattch" && crate::in_guests())
}

/// The id whose existence a call depends on.
pub fn id_of(call: &Call) -> Option<Id> {
    match call {
        Call::Attach { id, .. } => Some(*id),
        Call::Common(call) => call.id(),
        _ => None,
    }
}

/// The name of a pid: of the process that `birth` numbers, as one in `viewer` sees it.
pub fn pid(birth: usize, domain: usize, viewer: usize) -> String {
    if domain == viewer {
        format!("process{birth}")
    } else {
        "0".to_owned()
    }
}
