// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a script of calls on semaphore sets is made of.

use crate::conform::script::{self, Buffer, Common, Id, flags};
use std::fmt;

/// One call in one process, or a signal to it.
pub type Step = script::Step<Call>;

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
    /// A signal to the process, if it sleeps in a call.
    Signal {
        /// Which.
        signal: Signal,
    },
    /// One that scripts on other constructs make too.
    Common(Common),
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
            | Self::SetAll { id, .. } => Some(*id),
            Self::Common(call) => call.id(),
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

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get {
                slot,
                key,
                sems,
                flags: bits,
            } => {
                write!(f, "s{slot} = semget(key{key}, {sems}, ")?;
                flags(f, *bits, &GET_FLAGS)?;
                f.write_str(")")
            }
            Self::Op { id, ops, timeout } => {
                write!(f, "semop({id},")?;
                for op in ops {
                    write!(f, " {op}")?;
                }
                write!(f, ", {timeout:?})")
            }
            Self::Number { id, sem, command } => match *command {
                libc::GETVAL => write!(f, "GETVAL({id}, {sem})"),
                libc::GETPID => write!(f, "GETPID({id}, {sem})"),
                libc::GETNCNT => write!(f, "GETNCNT({id}, {sem})"),
                _ => write!(f, "GETZCNT({id}, {sem})"),
            },
            Self::Common(call) => call.fmt(f),
            call => write!(f, "{call:?}"),
        }
    }
}
