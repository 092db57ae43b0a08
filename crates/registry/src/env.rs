// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the registrar needs from outside: other domains, the kernel's settings.

use vshmem_abi::Domid;
use vshmem_abi::limits::{MsgLimits, MsgSettings, SemLimits, Setting, ShmLimits};
use vshmem_abi::link::LinkMsg;

/// Why a domain has not answered a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// It is there and has been told, but says nothing. It may be using what it was asked about.
    Silent,
    /// It is gone.
    Gone,
}

/// The way to ask other domains.
pub trait Peers {
    /// Asks a domain a query and waits for its answer.
    fn query(&mut self, domid: Domid, query: &LinkMsg) -> Result<LinkMsg, NoAnswer>;
}

/// The limits, which tests replace.
pub trait Environment {
    /// The limits of segments that hold at this moment.
    fn shm_limits(&self) -> ShmLimits;

    /// The limits of sets that hold at this moment.
    fn sem_limits(&self) -> SemLimits;

    /// The limits of queues that hold at this moment.
    fn msg_limits(&self) -> MsgLimits;
}

/// The kernel's settings, with what raises them.
#[derive(Debug)]
pub struct System {
    max: Setting<u64>,
    all: Setting<u64>,
    mni: Setting<u64>,
    sem: Setting<SemLimits>,
    msg: MsgSettings,
}

impl System {
    /// Opens the kernel's settings; one that cannot be opened has the kernel's default. Those of
    /// queues are `raised`.
    pub fn new(raised: MsgLimits) -> Self {
        let default = ShmLimits::DEFAULT;
        Self {
            max: Setting::number("/proc/sys/kernel/shmmax", default.max),
            all: Setting::number("/proc/sys/kernel/shmall", default.all),
            mni: Setting::number("/proc/sys/kernel/shmmni", default.mni),
            sem: Setting::open(SemLimits::PATH, SemLimits::parse, SemLimits::DEFAULT),
            msg: MsgSettings::open(raised),
        }
    }
}

impl System {
    /// From now on the limits of queues are raised to these.
    pub fn raise(&mut self, to: MsgLimits) {
        self.msg.raise(to);
    }
}

impl Environment for System {
    fn shm_limits(&self) -> ShmLimits {
        ShmLimits {
            max: self.max.read(),
            all: self.all.read(),
            mni: self.mni.read(),
        }
    }

    fn sem_limits(&self) -> SemLimits {
        self.sem.read()
    }

    fn msg_limits(&self) -> MsgLimits {
        self.msg.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_the_kernels_and_those_of_queues_are_raised() {
        let to = MsgLimits {
            mni: 1 << 20,
            ..MsgLimits::default()
        };
        let system = System::new(to);
        assert_eq!(system.shm_limits(), ShmLimits::read());
        assert_eq!(system.sem_limits(), SemLimits::read());
        assert_eq!(system.msg_limits(), MsgLimits::read().raised(to));
    }
}
