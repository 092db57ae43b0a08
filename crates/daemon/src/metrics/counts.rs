// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is counted as it happens.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::fmt::Debug;

/// An operation of messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OpLabel {
    op: String,
}

/// An errno.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrnoLabel {
    errno: String,
}

/// A call of System V IPC.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabel {
    call: &'static str,
}

/// Calls that programs have done in shared memory, as that says. All numbers are modulo 2^64: a peer may
/// write any into its regions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// `shmat`.
    pub shmat: u64,
    /// `semop`, `semtimedop`.
    pub semop: u64,
    /// `msgsnd`.
    pub msgsnd: u64,
    /// `msgrcv`.
    pub msgrcv: u64,
}

impl Calls {
    /// These and others.
    pub fn and(self, others: Self) -> Self {
        Self {
            shmat: self.shmat.wrapping_add(others.shmat),
            semop: self.semop.wrapping_add(others.semop),
            msgsnd: self.msgsnd.wrapping_add(others.msgsnd),
            msgrcv: self.msgrcv.wrapping_add(others.msgrcv),
        }
    }

    fn named(self) -> [(&'static str, u64); 4] {
        [
            ("shmat", self.shmat),
            ("semop", self.semop),
            ("msgsnd", self.msgsnd),
            ("msgrcv", self.msgrcv),
        ]
    }
}

/// [`Calls`], as they are told.
#[derive(Debug, Default)]
pub struct Done(Family<CallLabel, Counter>);

impl Done {
    /// Has them told.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "calls",
            "Calls of programs that were done in shared memory",
            self.0.clone(),
        );
    }

    /// So many have been done by now.
    pub fn are(&self, calls: Calls) {
        for (call, number) in calls.named() {
            let counter = self.0.get_or_create(&CallLabel { call });
            // One that a peer has set back stays what it was.
            counter.inc_by(number.saturating_sub(counter.get()));
        }
    }
}

/// Whose leavings were cleared away.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeadLabel {
    dead: &'static str,
}

/// Messages that were asked and answered: how often each operation, and with which errors.
#[derive(Debug)]
pub struct Asked {
    family: Family<OpLabel, Counter>,
    /// By number of the operation.
    by_op: Vec<Option<Counter>>,
    errors: Family<ErrnoLabel, Counter>,
}

impl Asked {
    /// Of operations as `from_raw` knows them by number.
    pub fn of<T: Debug>(from_raw: impl Fn(u32) -> Option<T>) -> Self {
        /// More than there are numbers of operations.
        const NUMBERS: u32 = 64;
        let family = Family::<OpLabel, Counter>::default();
        let of = |op: T| {
            let op = format!("{op:?}").to_lowercase();
            family.get_or_create(&OpLabel { op }).clone()
        };
        let by_op = (0..NUMBERS).map(|raw| from_raw(raw).map(of)).collect();
        Self {
            family,
            by_op,
            errors: Family::default(),
        }
    }

    /// One was answered with this errno, or 0.
    pub fn note(&self, op: u32, errno: i32) {
        if let Some(Some(counter)) = self.by_op.get(op as usize) {
            counter.inc();
        }
        if errno != 0 {
            let errno = format!("{:?}", nix::errno::Errno::from_raw(errno));
            self.errors.get_or_create(&ErrnoLabel { errno }).inc();
        }
    }

    /// Has them told, the names beginning with `before`.
    pub fn register(&self, registry: &mut Registry, before: &str, of_whom: &str) {
        registry.register(
            format!("{before}requests"),
            format!("Requests of {of_whom} that were answered"),
            self.family.clone(),
        );
        registry.register(
            format!("{before}errors"),
            format!("Requests of {of_whom} that were answered with an error"),
            self.errors.clone(),
        );
    }
}

/// Of a front-end, beside requests.
#[derive(Debug)]
pub struct Counts {
    /// Sleepers of this domain woken for other domains.
    pub woken: Counter,
    /// Sleepers woken on behalf of the dead, where no futex does it.
    pub woke: Counter,
    /// Undo of one process in one set, applied.
    pub undone: Counter,
    /// Constructs cleared of what a dead process has left.
    pub after_process: Counter,
    /// Constructs cleared of what a dead domain has left.
    pub after_domain: Counter,
    /// Constructs of other domains that are gone with them.
    pub lost: Counter,
    recovered: Family<DeadLabel, Counter>,
}

impl Default for Counts {
    fn default() -> Self {
        let recovered = Family::<DeadLabel, Counter>::default();
        let after = |dead| recovered.get_or_create(&DeadLabel { dead }).clone();
        Self {
            woken: Counter::default(),
            woke: Counter::default(),
            undone: Counter::default(),
            after_process: after("process"),
            after_domain: after("domain"),
            lost: Counter::default(),
            recovered,
        }
    }
}

impl Counts {
    /// Has them told.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "wakeups_received",
            "Sleepers of this domain that were woken because another domain rang",
            self.woken.clone(),
        );
        registry.register(
            "wakeups_sent",
            "Sleepers that vshmemd has woken after deaths, where no futex reaches them",
            self.woke.clone(),
        );
        registry.register(
            "undo_applied",
            "Sets in which SEM_UNDO of an ended process was applied, once for each process",
            self.undone.clone(),
        );
        registry.register(
            "recoveries",
            "Sets and queues that were cleared of what the dead had left",
            self.recovered.clone(),
        );
        registry.register(
            "constructs_lost",
            "Constructs that this domain knew and that went with their owner domain",
            self.lost.clone(),
        );
    }
}
