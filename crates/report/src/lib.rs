// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a `vshmemd` tells an operator, in a file that comes with the answer to
//! `vshmem_abi::wire::Op::Report`: of its domain ([`DomainReport`]) or of one construct, as far as that
//! domain has to do with it ([`ConstructReport`]). The file is JSON, so that a `vshmem` and a `vshmemd`
//! of different versions understand what they have in common: unknown fields are passed over, missing
//! ones are empty.
//!
//! Times are seconds since the epoch; 0: never. Pids are as the process sees itself.

use serde::{Deserialize, Serialize};

/// A domain, as its `vshmemd` sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DomainReport {
    /// Its name.
    pub name: String,
    /// Its number.
    pub domid: u32,
    /// Version of its `vshmemd`.
    pub version: String,
    /// Version of the messages that it speaks with its clients.
    pub abi: u32,
    /// Pid of its `vshmemd`.
    pub pid: i32,
    /// When it began to serve.
    pub since: i64,
    /// The port it was started with: `host` or `xen`.
    pub port: String,
    /// Processes that are connected.
    pub clients: u64,
    /// Threads that wait on a set or queue.
    pub waiting: u64,
    /// Constructs whose owner domain it is.
    pub owned: Owned,
    /// Pages that it has granted to other domains.
    pub grants_used: u64,
    /// How many it may grant; 0: not known.
    pub grants_limit: u64,
    /// Which constructs its processes have attached or open.
    pub held: Vec<Held>,
}

/// Constructs of one owner domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Owned {
    /// Segments.
    pub segments: u64,
    /// Semaphore sets.
    pub sets: u64,
    /// Message queues.
    pub queues: u64,
}

/// What the processes of a domain have of a construct.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Held {
    /// The construct.
    pub id: i32,
    /// Processes that have it attached, or open.
    pub processes: u64,
}

/// A construct, as far as one domain has to do with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConstructReport {
    /// The domain that tells.
    pub domid: u32,
    /// Its region, if it is at hand there.
    pub region: Option<RegionReport>,
    /// To whom this domain has granted it.
    pub grants: Vec<GrantReport>,
    /// Processes of this domain that have it attached, or open.
    pub processes: Vec<ProcessReport>,
    /// Processes of this domain that have, or had, something to undo in it.
    pub undoers: Vec<UndoerReport>,
    /// What is in a set.
    pub set: Option<SetReport>,
    /// What is in a queue.
    pub queue: Option<QueueReport>,
    /// How it ended, if it did.
    pub ended: Option<Ended>,
    /// Processes and contents are left out: who asked may not read the construct.
    pub withheld: bool,
}

/// The memory behind a construct.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegionReport {
    /// Bytes, in whole pages.
    pub bytes: u64,
    /// Pages that are in memory.
    pub resident: u64,
    /// How it is mapped: `file` or `grants`.
    pub how: String,
}

/// A grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrantReport {
    /// To this domain.
    pub domid: u32,
    /// Its number.
    pub reference: u32,
    /// Pages that it counts for.
    pub pages: u64,
}

/// A process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessReport {
    /// Its pid.
    pub pid: i32,
    /// Attachments of a segment.
    pub attachments: u64,
    /// Its last attach.
    pub atime: i64,
    /// Its last detach.
    pub dtime: i64,
}

/// A process with undo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UndoerReport {
    /// Its undo token.
    pub token: u64,
    /// Its pid.
    pub pid: i32,
}

/// A process of whatever domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Who {
    /// Its pid.
    pub pid: i32,
    /// Its domain.
    pub domid: u32,
}

/// What is in a semaphore set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetReport {
    /// The values, in order.
    pub values: Vec<i32>,
    /// Who changed each last.
    pub changed_by: Vec<Who>,
    /// Who waits.
    pub waiters: Vec<SetWaiter>,
    /// What the ends of processes will do.
    pub undo: Vec<Undo>,
    /// There is more to undo than is told.
    pub undo_cut: bool,
}

/// A `semop` that waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetWaiter {
    /// Whose.
    pub who: Who,
    /// The semaphore that it waits for.
    pub num: u32,
    /// What it wants to add to it; 0: it waits for zero.
    pub change: i32,
    /// Operations of the call.
    pub operations: u32,
}

/// What the end of a process will do to a semaphore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Undo {
    /// Undo token of the process.
    pub token: u64,
    /// Its domain.
    pub domid: u32,
    /// The semaphore.
    pub num: u32,
    /// What will be added to it.
    pub adjust: i32,
}

/// What is in a message queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueReport {
    /// Messages by type, in the order of the types.
    pub types: Vec<OfType>,
    /// There are more types, or messages, than are told.
    pub types_cut: bool,
    /// Who waits to send.
    pub senders: Vec<Sender>,
    /// Who waits to receive.
    pub receivers: Vec<Receiver>,
}

/// The messages of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OfType {
    /// The type.
    pub r#type: i64,
    /// How many.
    pub messages: u64,
    /// Bytes of their texts.
    pub bytes: u64,
}

/// A `msgsnd` that waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sender {
    /// Whose.
    pub who: Who,
    /// Type of its message.
    pub r#type: i64,
    /// Bytes of its text.
    pub bytes: u64,
}

/// A `msgrcv` that waits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Receiver {
    /// Whose.
    pub who: Who,
    /// For messages of which type, in words: `any`, `3`, `not 3`, `up to 3`.
    pub wants: String,
}

/// How a construct came to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ended {
    /// When the domain learnt of it.
    pub when: i64,
    /// What it was: `shm`, `sem`, `msg`.
    pub kind: String,
    /// Its key, before.
    pub key: i32,
    /// Its owner domain.
    pub owner: u32,
    /// Why.
    pub why: Why,
}

/// Why a construct came to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// A process of the domain that tells has removed it.
    Removed {
        /// Its pid.
        pid: i32,
        /// Its user.
        uid: u32,
    },
    /// It was removed in another domain.
    #[default]
    RemovedElsewhere,
    /// Its owner domain is gone.
    OwnerGone,
}

/// Reads a report.
///
/// # Errors
/// What is wrong with it.
pub fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(text)
}

/// Writes a report.
///
/// # Errors
/// None of the reports has anything in it that cannot be written.
pub fn write<T: Serialize>(report: &T) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_another_version_is_read_as_far_as_it_is_understood() {
        let report: DomainReport = read(br#"{"name": "a", "new": [1], "domid": 3}"#).unwrap();
        let want = DomainReport {
            name: "a".into(),
            domid: 3,
            ..DomainReport::default()
        };
        assert_eq!(report, want);
        assert_eq!(read::<DomainReport>(&write(&want).unwrap()).unwrap(), want);
    }
}
