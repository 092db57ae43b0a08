// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every part of Vshmem agrees on: ids, keys, limits, messages, and the layout of the pages
//! that the client library and `vshmemd` share.
//!
//! This is the lowest layer: it knows nothing of ports, daemons or System V semantics beyond the
//! shape of its data. The layouts are described for readers in `docs/wire.md`; a change here that
//! alters a layout must change that page and [`ABI_VERSION`].

pub mod channel;
pub mod doorbell;
pub mod grants;
pub mod ids;
pub mod keys;
pub mod layout;
pub mod limits;
pub mod link;
pub mod msgq;
pub mod paths;
pub mod perm;
pub mod region;
pub mod set;
pub mod token;
pub mod wire;

pub use ids::{Domid, Kind};

/// Version of every message and layout in this crate. Both sides of a connection compare it in
/// their first message and part when it differs.
pub const ABI_VERSION: u32 = 7;

/// Bytes in a page: the unit of grants, of segment sizes and of SHMLBA on x86-64.
pub const PAGE_SIZE: u64 = 4096;

/// Number of whole pages that hold `bytes`; `None` when rounding up overflows, which the kernel
/// answers with `ENOSPC` (`newseg` in `ipc/shm.c`).
pub const fn pages(bytes: u64) -> Option<u64> {
    match bytes.checked_add(PAGE_SIZE - 1) {
        Some(b) => Some(b / PAGE_SIZE),
        None => None,
    }
}
