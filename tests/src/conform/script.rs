// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a script is made of. Ids, addresses and pids are not known when a script is written: steps
//! speak of slots, which the runner fills with what each side's calls returned.

use std::fmt;

/// Processes that a script can speak of. The first [`STARTED`] run from the start; the others
/// are for children.
pub const PROCESSES: usize = 6;
/// Processes that run from the start.
pub const STARTED: usize = 3;
/// Slots for ids, shared by all processes.
pub const IDS: usize = 4;
/// Slots for attachments, of each process its own.
pub const ATTACHMENTS: usize = 4;
/// Where each process has room that nothing else uses, for attaching at a chosen address.
pub const AREA: u64 = 0x100_0000_0000;
/// Pages of the area that scripts choose from; what follows it is as free.
pub const AREA_PAGES: u8 = 12;
/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// One call in one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<C = Call> {
    /// The process, below [`PROCESSES`].
    pub process: u8,
    /// By `syscall(2)` instead of the function.
    pub raw: bool,
    /// What it does.
    pub call: C,
}

/// How an id is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
    /// What the last successful get of this slot returned, or when there was none of the next
    /// slot that is full; -1 when there is none at all.
    Slot(u8),
    /// A number that no get returned.
    Number(i32),
}

/// How an address is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// What the attach of this slot returned, and an offset in pages and bytes.
    Attached {
        /// The slot; an empty one stands for the next full one, and when there is none for
        /// where nothing is mapped.
        slot: u8,
        /// Pages after its beginning; outside the area modulo the pages of the segment.
        page: u8,
        /// Bytes after that.
        byte: u16,
    },
    /// Of the area of the process.
    Area {
        /// Pages after its beginning.
        page: u8,
        /// Bytes after that.
        byte: u16,
    },
    /// Any other.
    Number(u64),
}

/// What a call is given to write to or read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffer {
    /// A good one.
    Good,
    /// `NULL`.
    Null,
    /// The last byte of the address space.
    MinusOne,
    /// A page that cannot be touched.
    Unmapped,
    /// A page that can only be read.
    ReadOnly,
    /// Too close to the end of its page, with nothing behind it.
    Half,
}

/// How a construct is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// By its id (`IPC_STAT`).
    Id(Buffer),
    /// By whatever index leads to it (`SHM_STAT`).
    Index,
    /// The same without permission (`SHM_STAT_ANY`).
    IndexAny,
}

/// How a process comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birth {
    /// `fork`.
    Fork,
    /// `vfork` and exec.
    Vfork,
    /// `posix_spawn`.
    Spawn,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `exit`.
    Exit,
    /// `_exit`.
    QuickExit,
    /// `abort`.
    Abort,
    /// `SIGKILL` from outside.
    Kill,
}

/// A call that scripts on all kinds of constructs make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Common {
    /// `IPC_STAT` and its kin.
    Stat {
        /// Construct.
        id: Id,
        /// How.
        look: Look,
    },
    /// `IPC_SET`.
    Set {
        /// Construct.
        id: Id,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Mode.
        mode: u16,
        /// Where these are read from.
        buffer: Buffer,
    },
    /// A control command that takes nothing, or one that does not exist.
    Control {
        /// Construct.
        id: Id,
        /// Command.
        command: i32,
        /// Argument.
        buffer: Buffer,
    },
    /// `IPC_INFO`.
    Limits {
        /// Where it is written.
        buffer: Buffer,
    },
    /// `SHM_INFO`, `SEM_INFO`.
    Totals {
        /// Where it is written.
        buffer: Buffer,
    },
    /// A new process, in the domain of this one.
    New {
        /// Its number; nothing happens while that process lives.
        child: u8,
        /// How.
        birth: Birth,
    },
    /// The process executes its program anew (with its real ids, see `real_ids` in the program).
    Exec,
    /// The process ends.
    Leave {
        /// How; who sleeps can only be killed.
        end: End,
    },
    /// Effective uid, effective gid, and one supplementary group (-1: none).
    Become {
        /// Effective user.
        uid: u32,
        /// Effective group.
        gid: u32,
        /// The real and the saved ones too, so that there is no way back.
        for_good: bool,
        /// Supplementary group.
        group: i32,
    },
    /// `closefrom(3)`.
    CloseAll,
}

impl Common {
    /// The id that it names.
    pub fn id(&self) -> Option<Id> {
        match self {
            Self::Stat { id, .. } | Self::Set { id, .. } | Self::Control { id, .. } => Some(*id),
            _ => None,
        }
    }
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `shmget`; the id goes to `slot`.
    Get {
        /// Slot for the id.
        slot: u8,
        /// Key: 0 is `IPC_PRIVATE`, others are counted from the case's own base.
        key: u8,
        /// Size in bytes.
        size: u64,
        /// Flags and mode.
        flags: i32,
    },
    /// `shmat`; the address goes to `slot`.
    Attach {
        /// Slot for the address.
        slot: u8,
        /// Segment.
        id: Id,
        /// Where: `Number(0)` lets the system choose.
        at: Address,
        /// Flags.
        flags: i32,
    },
    /// `shmdt`.
    Detach {
        /// Address.
        at: Address,
    },
    /// One byte is read.
    Read {
        /// Address.
        at: Address,
    },
    /// One byte is written.
    Write {
        /// Address.
        at: Address,
        /// The byte.
        value: u8,
    },
    /// One that scripts on other constructs make too.
    Common(Common),
    /// `munmap` of pages of the area.
    Unmap {
        /// First page.
        page: u8,
        /// How many.
        pages: u8,
    },
    /// `mprotect` of pages of the area.
    Protect {
        /// First page.
        page: u8,
        /// How many.
        pages: u8,
        /// `PROT_` bits.
        prot: i32,
    },
}

/// Flags of every get.
pub(super) const GET_OR_MAKE: [(i32, &str); 2] =
    [(libc::IPC_CREAT, "CREAT"), (libc::IPC_EXCL, "EXCL")];

const GET_FLAGS: [(i32, &str); 4] = [
    GET_OR_MAKE[0],
    GET_OR_MAKE[1],
    (libc::SHM_HUGETLB, "HUGETLB"),
    (libc::SHM_NORESERVE, "NORESERVE"),
];

const ATTACH_FLAGS: [(i32, &str); 4] = [
    (libc::SHM_RDONLY, "RDONLY"),
    (libc::SHM_RND, "RND"),
    (libc::SHM_REMAP, "REMAP"),
    (libc::SHM_EXEC, "EXEC"),
];

/// Flags by name; what has none, in octal.
pub(super) fn flags(f: &mut fmt::Formatter<'_>, value: i32, names: &[(i32, &str)]) -> fmt::Result {
    let rest = names.iter().fold(value, |rest, (bit, _)| rest & !bit);
    write!(f, "{rest:#o}")?;
    for (_, name) in names.iter().filter(|(bit, _)| value & bit != 0) {
        write!(f, "|{name}")?;
    }
    Ok(())
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot(slot) => write!(f, "s{slot}"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attached { slot, page, byte } => write!(f, "a{slot}+{page}p+{byte}"),
            Self::Area { page, byte } => write!(f, "area+{page}p+{byte}"),
            Self::Number(0) => f.write_str("NULL"),
            Self::Number(number) => write!(f, "{number:#x}"),
        }
    }
}

impl<C: fmt::Display> fmt::Display for Step<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.raw { "syscall " } else { "" };
        write!(f, "p{} {how}{}", self.process, self.call)
    }
}

impl fmt::Display for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stat { id, look } => write!(f, "stat({id}, {look:?})"),
            Self::Set {
                id,
                uid,
                gid,
                mode,
                buffer,
            } => write!(f, "IPC_SET({id}, {uid}:{gid} {mode:#o}, {buffer:?})"),
            Self::Control {
                id,
                command,
                buffer,
            } => match *command {
                libc::IPC_RMID => write!(f, "IPC_RMID({id}, {buffer:?})"),
                libc::SHM_LOCK => write!(f, "SHM_LOCK({id}, {buffer:?})"),
                libc::SHM_UNLOCK => write!(f, "SHM_UNLOCK({id}, {buffer:?})"),
                command => write!(f, "control({id}, {command}, {buffer:?})"),
            },
            Self::Limits { buffer } => write!(f, "IPC_INFO({buffer:?})"),
            Self::Totals { buffer } => write!(f, "INFO({buffer:?})"),
            Self::New { child, birth } => write!(f, "{birth:?} p{child}"),
            Self::Exec => f.write_str("exec"),
            Self::Leave { end } => write!(f, "{end:?}"),
            Self::Become {
                uid,
                gid,
                for_good,
                group,
            } => {
                let how = if *for_good { " for good" } else { "" };
                write!(f, "become {uid}:{gid} group {group}{how}")
            }
            Self::CloseAll => f.write_str("closefrom(3)"),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get {
                slot,
                key,
                size,
                flags: bits,
            } => {
                write!(f, "s{slot} = shmget(key{key}, {size}, ")?;
                flags(f, *bits, &GET_FLAGS)?;
                f.write_str(")")
            }
            Self::Attach {
                slot,
                id,
                at,
                flags: bits,
            } => {
                write!(f, "a{slot} = shmat({id}, {at}, ")?;
                flags(f, *bits, &ATTACH_FLAGS)?;
                f.write_str(")")
            }
            Self::Detach { at } => write!(f, "shmdt({at})"),
            Self::Read { at } => write!(f, "read {at}"),
            Self::Write { at, value } => write!(f, "write {at} {value}"),
            Self::Common(call) => call.fmt(f),
            Self::Unmap { page, pages } => write!(f, "munmap(area+{page}p, {pages}p)"),
            Self::Protect { page, pages, prot } => {
                write!(f, "mprotect(area+{page}p, {pages}p, {prot})")
            }
        }
    }
}
