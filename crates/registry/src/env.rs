// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the registrar needs from outside: other domains, the time, the kernel's settings.

use std::time::{SystemTime, UNIX_EPOCH};
use vshmem_abi::Domid;
use vshmem_abi::limits::ShmLimits;
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

/// The time and the limits, which tests replace.
pub trait Environment {
    /// Seconds since the epoch.
    fn now(&self) -> i64;

    /// The limits that hold at this moment.
    fn shm_limits(&self) -> ShmLimits;
}

/// The machine's clock and the kernel's settings.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Environment for System {
    fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
    }

    fn shm_limits(&self) -> ShmLimits {
        ShmLimits::read()
    }
}
