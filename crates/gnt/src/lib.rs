// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ports: what a hypervisor does for Vshmem, and nothing more.
//!
//! A **port** is the hypervisor-dependent bottom half. It makes **regions** (the memory behind
//! constructs), grants them to other domains, maps what others granted, and wakes other domains
//! over event channels. Everything above it (keys, ids, attach counts, permissions) is the same
//! on every port. The operations are those of the [`Port`] trait; whoever adds a port implements
//! it and runs the conformance suite in `tests/suite` against it.
//!
//! The [`xen`] port is for domains of Xen: gntalloc and gntdev, event channels. The [`host`] port runs several domains on one kernel. There the hypervisor is a thread of the
//! back-end, the [`host::hub`]: it keeps the grant and event-channel tables, hands a region only
//! to the domain that it was granted to, and ends what a dead domain had. A domain is known to
//! it by the connection it was given at enrolment, not by a number that it claims.

mod any;
pub mod host;
mod port;
pub mod xen;

pub use any::{AnyPort, AnyRegion};
pub use port::{Event, GrantRef, Limit, Limits, LocalPort, Port, PortError, Region, RegionOptions};
