// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a script of calls on semaphore sets is made of.

use crate::conform::script::{Birth, Buffer, End, Id, Look, flags};
use std::fmt;

/// One call in one process, or a signal to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The process.
    pub process: u8,
    /// By `syscall(2)` instead of the function.
    pub raw: bool,
    /// What it does.
    pub call: Call,
}

/// One operation of a `semop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// Semaphore.
    pub sem: u16,
    /// What is added; 0 waits for zero.
    pub by: i16,
    /// `IPC_NOWAIT` and `SEM_UNDO`.
    pub flags: i16,
}

/// How long a `semtimedop` waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// It is `semop`.
    Semop,
    /// The pointer is `NULL`.
    Null,
    /// Nanoseconds, few enough for the runner to wait for the end.
    Short(i64),
    /// Longer than any test.
    Long,
    /// What the kernel refuses: seconds and nanoseconds.
    Bad(i64, i64),
    /// The pointer leads nowhere.
    Nowhere,
}

/// A signal that comes to who sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// One with a handler.
    Handled,
    /// One with a handler that has `SA_RESTART`.
    Restarting,
    /// One that is ignored.
    Ignored,
    /// `SIGSTOP`, and when it has stopped `SIGCONT`.
    Stop,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `semget`; the id goes to `slot`.
    Get {
        /// Slot for the id.
        slot: u8,
        /// Key: 0 is `IPC_PRIVATE`, others are counted from the case's own base.
        key: u8,
        /// Semaphores.
        sems: i32,
        /// Flags and mode.
        flags: i32,
    },
    /// `semop` and `semtimedop`.
    Op {
        /// Set.
        id: Id,
        /// Operations.
        ops: Vec<Op>,
        /// Timeout.
        timeout: Timeout,
    },
    /// `semop` with a pointer that leads nowhere or half way, and a number of operations.
    BadOp {
        /// Set.
        id: Id,
        /// Where the operations would be.
        buffer: Buffer,
        /// How many.
        count: u32,
    },
    /// `GETVAL`, `GETPID`, `GETNCNT`, `GETZCNT`.
    Number {
        /// Set.
        id: Id,
        /// Semaphore.
        sem: i32,
        /// Command.
        command: i32,
    },
    /// `SETVAL`.
    SetVal {
        /// Set.
        id: Id,
        /// Semaphore.
        sem: i32,
        /// Value.
        value: i32,
    },
    /// `GETALL`.
    GetAll {
        /// Set.
        id: Id,
        /// Where they are written.
        buffer: Buffer,
    },
    /// `SETALL`, of values that follow one another.
    SetAll {
        /// Set.
        id: Id,
        /// The first value.
        first: u16,
        /// Where they are read from.
        buffer: Buffer,
    },
    /// `IPC_STAT` and its kin.
    Stat {
        /// Set.
        id: Id,
        /// How.
        look: Look,
    },
    /// `IPC_SET`.
    Set {
        /// Set.
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
    /// `IPC_RMID`, or a command that does not exist.
    Control {
        /// Set.
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
    /// `SEM_INFO`.
    Totals {
        /// Where it is written.
        buffer: Buffer,
    },
    /// A signal to the process, if it sleeps in a call.
    Signal {
        /// Which.
        signal: Signal,
    },
    /// A new process, in the domain of this one.
    New {
        /// Its number; nothing happens while that process lives.
        child: u8,
        /// How.
        birth: Birth,
    },
    /// The process executes its program anew.
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
        /// The real and the saved ones too.
        for_good: bool,
        /// Supplementary group.
        group: i32,
    },
    /// `closefrom(3)`.
    CloseAll,
}

impl Call {
    /// The id that it names.
    pub fn id(&self) -> Option<Id> {
        match self {
            Self::Op { id, .. }
            | Self::BadOp { id, .. }
            | Self::Number { id, .. }
            | Self::SetVal { id, .. }
            | Self::GetAll { id, .. }
            | Self::SetAll { id, .. }
            | Self::Stat { id, .. }
            | Self::Set { id, .. }
            | Self::Control { id, .. } => Some(*id),
            _ => None,
        }
    }
}

const GET_FLAGS: [(i32, &str); 2] = [(libc::IPC_CREAT, "CREAT"), (libc::IPC_EXCL, "EXCL")];

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:+}", self.sem, self.by)?;
        for (bit, name) in [(libc::SEM_UNDO, "u"), (libc::IPC_NOWAIT, "n")] {
            if i32::from(self.flags) & bit != 0 {
                f.write_str(name)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{} ", self.process)?;
        if self.raw {
            f.write_str("syscall ")?;
        }
        match &self.call {
            Call::Get {
                slot,
                key,
                sems,
                flags: bits,
            } => {
                write!(f, "s{slot} = semget(key{key}, {sems}, ")?;
                flags(f, *bits, &GET_FLAGS)?;
                f.write_str(")")
            }
            Call::Op { id, ops, timeout } => {
                write!(f, "semop({id},")?;
                for op in ops {
                    write!(f, " {op}")?;
                }
                write!(f, ", {timeout:?})")
            }
            Call::Number { id, sem, command } => match *command {
                libc::GETVAL => write!(f, "GETVAL({id}, {sem})"),
                libc::GETPID => write!(f, "GETPID({id}, {sem})"),
                libc::GETNCNT => write!(f, "GETNCNT({id}, {sem})"),
                _ => write!(f, "GETZCNT({id}, {sem})"),
            },
            Call::Control {
                id,
                command: libc::IPC_RMID,
                buffer,
            } => write!(f, "IPC_RMID({id}, {buffer:?})"),
            call => write!(f, "{call:?}"),
        }
    }
}
