// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a script of calls on semaphore sets is made of.

use crate::conform::cast;
use crate::conform::script::{Buffer, GET_OR_MAKE, Id, flags};
use crate::conform::sleepers::{self, Meaning};
use std::collections::HashSet;
use std::fmt;

/// One call in one process, or a signal to it.
pub type Step = sleepers::Step<Call>;

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
}

impl sleepers::Own for Call {
    const KIND: &'static str = "sem";

    /// The sets whose `sem_otime` is not compared ([`crate::conform::accept`], empty undo).
    type Notes = HashSet<i32>;

    fn id(&self) -> Option<Id> {
        match self {
            Self::Op { id, .. }
            | Self::BadOp { id, .. }
            | Self::Number { id, .. }
            | Self::SetVal { id, .. }
            | Self::GetAll { id, .. }
            | Self::SetAll { id, .. } => Some(*id),
            Self::Get { .. } => None,
        }
    }

    fn slot(&self) -> Option<u8> {
        match self {
            Self::Get { slot, .. } => Some(*slot),
            _ => None,
        }
    }

    fn words(&self, id: i32) -> String {
        let to = |buffer: Buffer| buffer as u32;
        match *self {
            Self::Get {
                key, sems, flags, ..
            } => {
                format!("semget {} {sems} {flags}", cast::key(key))
            }
            Self::Op {
                ref ops, timeout, ..
            } => {
                let timeout = match timeout {
                    Timeout::Semop => "0 0 0".to_owned(),
                    Timeout::Null => "1 0 0".to_owned(),
                    Timeout::Short(nanoseconds) => format!("2 0 {nanoseconds}"),
                    Timeout::Long => "2 100000 1".to_owned(),
                    Timeout::Bad(seconds, nanoseconds) => format!("2 {seconds} {nanoseconds}"),
                    Timeout::Nowhere => "3 0 0".to_owned(),
                };
                let mut text = format!("semop {id} {timeout} {}", ops.len());
                for op in ops {
                    text.push_str(&format!(" {} {} {}", op.sem, op.by, op.flags));
                }
                text
            }
            Self::BadOp { buffer, count, .. } => format!("badop {id} {} {count}", to(buffer)),
            Self::Number { sem, command, .. } => format!("semnum {id} {sem} {command} 0"),
            Self::SetVal { sem, value, .. } => {
                format!("semnum {id} {sem} {} {value}", libc::SETVAL)
            }
            Self::GetAll { buffer, .. } => format!("getall {id} {}", to(buffer)),
            Self::SetAll { first, buffer, .. } => format!("setall {id} {first} {}", to(buffer)),
        }
    }

    /// Operations that are not the program's own may be zeros, and so wait for zero.
    fn may_sleep(&self) -> bool {
        match self {
            Self::Op { timeout, .. } => !matches!(timeout, Timeout::Short(_)),
            Self::BadOp { .. } => true,
            _ => false,
        }
    }

    fn failed(&self, id: i32, errno: &str, untimed: &mut HashSet<i32>) {
        let undoes = |op: &Op| i32::from(op.flags) & libc::SEM_UNDO != 0;
        if let Self::Op { ops, .. } = self
            && (errno.contains("EACCES") || errno.contains("EFBIG"))
            && ops.iter().any(undoes)
        {
            untimed.insert(id);
        }
    }

    fn value(&self) -> Meaning {
        match self {
            Self::Number {
                command: libc::GETPID,
                ..
            } => Meaning::Pid,
            _ => Meaning::Number,
        }
    }

    fn field(name: &str, id: i32, untimed: &HashSet<i32>) -> Meaning {
        match name {
            "key" => Meaning::Key,
            "otime" if untimed.contains(&id) => Meaning::Anything,
            "otime" | "ctime" => Meaning::Time,
            "pid" => Meaning::Pid,
            _ => Meaning::Number,
        }
    }
}

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
                flags(f, *bits, &GET_OR_MAKE)?;
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
            call => write!(f, "{call:?}"),
        }
    }
}
