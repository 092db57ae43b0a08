// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host port: several domains on one kernel.
//!
//! Regions are memfds, event channels are pairs of eventfds. The [`hub`] stands in for the
//! hypervisor; [`HostPort`] is a domain's connection to it. One message asks, one answers;
//! the hub never speaks first.

mod client;
pub mod hub;
pub(crate) mod memory;
mod serve;

pub use client::HostPort;
pub use memory::HostRegion;

use crate::port::{Limit, PortError};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a [`HubMsg`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum HubOp {
    /// Grant the memfd that comes along to `domid`. Answer: `number` is the grant.
    Grant = 1,
    /// End grant `number`.
    EndGrant = 2,
    /// Map grant `number` of `domid`. Answer: `bytes`, with the memfd.
    Map = 3,
    /// Make an event channel for `domid`. Answer: `number` is the port, with two eventfds: the
    /// one to wait on and the one that raises the other end.
    AllocUnbound = 4,
    /// Bind to port `number` of `domid`. Answer: as above.
    Bind = 5,
    /// Close port `number`.
    Close = 6,
}

impl HubOp {
    const fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            1 => Self::Grant,
            2 => Self::EndGrant,
            3 => Self::Map,
            4 => Self::AllocUnbound,
            5 => Self::Bind,
            6 => Self::Close,
            _ => return None,
        })
    }
}

/// A request to the hub, or its answer, which has the same `op` and `seq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct HubMsg {
    /// A [`HubOp`].
    op: u32,
    /// Number of the request, repeated in the answer.
    seq: u32,
    /// In an answer: 0, or the code of a [`PortError`].
    error: u32,
    /// A domain.
    domid: u32,
    /// A grant reference or a port.
    number: u32,
    /// 0.
    reserved: u32,
    /// Bytes of a region.
    bytes: u64,
}

const _: () = assert!(size_of::<HubMsg>() == 32);

/// What the hub adds to the eventfd of an end whose other end was closed. Notifications add 1
/// each, so a count this high means closed, however many notifications came before.
const CLOSED: u64 = 1 << 63;

/// Errors as the hub sends them.
const CODES: [(u32, PortError); 8] = [
    (1, PortError::Refused),
    (2, PortError::NoSpace(Limit::Grants)),
    (3, PortError::NoSpace(Limit::Channels)),
    (4, PortError::NoMemory),
    (5, PortError::TooManyDescriptors),
    (6, PortError::Gone),
    (7, PortError::Disconnected),
    (8, PortError::BadArgument),
];

fn code_of(error: PortError) -> u32 {
    CODES
        .iter()
        .find(|(_, e)| *e == error)
        .map_or(u32::MAX, |(code, _)| *code)
}

fn error_of(code: u32) -> Option<PortError> {
    if code == 0 {
        return None;
    }
    let known = CODES.iter().find(|(c, _)| *c == code);
    Some(known.map_or(PortError::BadArgument, |(_, error)| *error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_the_table_survives_the_trip() {
        for (code, error) in CODES {
            assert_eq!(code_of(error), code);
            assert_eq!(error_of(code), Some(error));
        }
        assert_eq!(error_of(0), None);
    }

    #[test]
    fn operation_numbers_and_from_raw_agree() {
        for raw in 0..64 {
            if let Some(op) = HubOp::from_raw(raw) {
                assert_eq!(op as u32, raw);
            }
        }
    }
}
