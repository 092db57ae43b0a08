// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a script of calls on message queues is made of.

use crate::conform::cast;
use crate::conform::script::{Buffer, GET_OR_MAKE, Id, flags};
use crate::conform::sleepers::{self, Meaning, Sleeper};
use std::fmt;

/// One call in one process, or a signal to it.
pub type Step = sleepers::Step<Call>;

/// Where a good message lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the beginning of mapped pages.
    Pages,
    /// On the stack.
    Stack,
    /// On the heap.
    Heap,
    /// There, at an odd address.
    Unaligned,
    /// In the program's static data.
    Data,
    /// At the end of mapped pages, with nothing behind it.
    End,
}

/// A call on message queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `msgget`; the id goes to `slot`.
    Get {
        /// Slot for the id.
        slot: u8,
        /// Key: 0 is `IPC_PRIVATE`, others are counted from the case's own base.
        key: u8,
        /// Flags and mode.
        flags: i32,
    },
    /// `msgsnd`.
    Send {
        /// Queue.
        id: Id,
        /// Type of the message.
        kind: i64,
        /// Bytes of its text.
        size: u64,
        /// Flags.
        flags: i32,
        /// What the text is made from.
        text: u8,
        /// Whether it can be read.
        buffer: Buffer,
        /// Where it lies when it can.
        place: Place,
    },
    /// `msgrcv`.
    Receive {
        /// Queue.
        id: Id,
        /// Bytes that there is room for.
        room: u64,
        /// Type, or number in the queue.
        kind: i64,
        /// Flags.
        flags: i32,
        /// Whether the message can be written.
        buffer: Buffer,
        /// Where it is to lie when it can.
        place: Place,
    },
    /// `IPC_SET`.
    Set {
        /// Queue.
        id: Id,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Mode.
        mode: u16,
        /// Bytes that may be in the queue.
        qbytes: u64,
        /// Where these are read from.
        buffer: Buffer,
    },
}

/// The number that the field `name` has in what was seen of a queue.
fn seen_number(seen: &str, name: &str) -> Option<u64> {
    let mut fields = seen.split(' ').filter_map(|field| field.split_once('='));
    fields.find(|field| field.0 == name)?.1.parse().ok()
}

/// Whether a message of `size` would be let in.
fn fits(size: u64, seen: &str) -> bool {
    let number = |name| seen_number(seen, name).unwrap_or(0);
    let (qbytes, cbytes, qnum) = (number("qbytes"), number("cbytes"), number("qnum"));
    size.checked_add(cbytes)
        .is_some_and(|bytes| bytes <= qbytes)
        && qnum < qbytes
}

impl sleepers::Own for Call {
    const KIND: &'static str = "msg";

    type Notes = ();

    fn id(&self) -> Option<Id> {
        match self {
            Self::Get { .. } => None,
            Self::Send { id, .. } | Self::Receive { id, .. } | Self::Set { id, .. } => Some(*id),
        }
    }

    fn slot(&self) -> Option<u8> {
        match self {
            Self::Get { slot, .. } => Some(*slot),
            _ => None,
        }
    }

    fn words(&self, id: i32) -> String {
        match *self {
            Self::Get { key, flags, .. } => format!("msgget {} {flags}", cast::key(key)),
            Self::Send {
                kind,
                size,
                flags,
                text,
                buffer,
                place,
                ..
            } => {
                let (buffer, place) = (buffer as u32, place as u32);
                format!("msgsnd {id} {kind} {size} {flags} {text} {buffer} {place}")
            }
            Self::Receive {
                room,
                kind,
                flags,
                buffer,
                place,
                ..
            } => {
                let (buffer, place) = (buffer as u32, place as u32);
                format!("msgrcv {id} {room} {kind} {flags} {buffer} {place}")
            }
            Self::Set {
                uid,
                gid,
                mode,
                qbytes,
                buffer,
                ..
            } => format!("msgset {id} {uid} {gid} {mode} {qbytes} {}", buffer as u32),
        }
    }

    fn may_sleep(&self) -> bool {
        matches!(self, Self::Send { .. } | Self::Receive { .. })
    }

    fn is_certain(&self, sleepers: &[&Sleeper<Self>], seen: &str) -> bool {
        let waiting = |qbytes: u64| {
            let senders = sleepers.iter().filter_map(|sleeper| match sleeper.call {
                Self::Send { size, .. } => Some(size),
                _ => None,
            });
            senders.filter(|&size| size <= qbytes).count()
        };
        match *self {
            Self::Send { size, flags, .. } if flags & libc::IPC_NOWAIT == 0 => {
                let qbytes = seen_number(seen, "qbytes").unwrap_or(0);
                size > qbytes || fits(size, seen) || waiting(qbytes) == 0
            }
            Self::Set { qbytes, .. } => {
                let receives =
                    |sleeper: &&&Sleeper<Self>| matches!(sleeper.call, Self::Receive { .. });
                sleepers.iter().filter(receives).count() <= 1 && waiting(qbytes) <= 1
            }
            _ => true,
        }
    }

    fn field(name: &str, _id: i32, (): &()) -> Meaning {
        match name {
            "key" => Meaning::Key,
            "stime" | "rtime" | "ctime" => Meaning::Time,
            "lspid" | "lrpid" => Meaning::Pid,
            _ => Meaning::Number,
        }
    }
}

const RECEIVE_FLAGS: [(i32, &str); 4] = [
    (libc::IPC_NOWAIT, "NOWAIT"),
    (libc::MSG_NOERROR, "NOERROR"),
    (libc::MSG_EXCEPT, "EXCEPT"),
    (libc::MSG_COPY, "COPY"),
];

/// What is special about a buffer, and where it lies.
fn lies(f: &mut fmt::Formatter<'_>, buffer: Buffer, place: Place) -> fmt::Result {
    match buffer {
        Buffer::Good => write!(f, ", {place:?})"),
        buffer => write!(f, ", {buffer:?})"),
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Get {
                slot,
                key,
                flags: bits,
            } => {
                write!(f, "s{slot} = msgget(key{key}, ")?;
                flags(f, bits, &GET_OR_MAKE)?;
                f.write_str(")")
            }
            Self::Send {
                id,
                kind,
                size,
                flags: bits,
                text,
                buffer,
                place,
            } => {
                write!(f, "msgsnd({id}, {kind}:{text}, {size}, ")?;
                flags(f, bits, &RECEIVE_FLAGS)?;
                lies(f, buffer, place)
            }
            Self::Receive {
                id,
                room,
                kind,
                flags: bits,
                buffer,
                place,
            } => {
                write!(f, "msgrcv({id}, {room}, {kind}, ")?;
                flags(f, bits, &RECEIVE_FLAGS)?;
                lies(f, buffer, place)
            }
            Self::Set {
                id,
                uid,
                gid,
                mode,
                qbytes,
                buffer,
            } => write!(
                f,
                "IPC_SET({id}, {uid}:{gid} {mode:#o} {qbytes}, {buffer:?})"
            ),
        }
    }
}
