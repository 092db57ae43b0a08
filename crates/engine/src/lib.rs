// SPDX-License-Identifier: MIT OR Apache-2.0
//! System V semantics over shared pages: the upper half, which knows nothing of ports.
//!
//! Three memories join the clients of a domain and its `vshmemd`:
//! - the [`directory`]: what the domain knows of constructs, written by `vshmemd` alone. A get of
//!   a known key and the look at a construct's state are reads of it;
//! - the [`client_page`]: what one process has attached, written by that process alone;
//! - the [`wait_page`]: who waits, or has undo, and whether it lives.
//!
//! Neither side ever waits for the other here. Where both must agree ([`attach`]: is the segment
//! being removed while I attach it?) each writes its own word, then reads the other's.

pub mod attach;
pub mod cell;
pub mod client_page;
pub mod death_mark;
pub mod directory;
pub mod doorbell;
#[cfg(test)]
mod explore;
pub mod mapping;
pub mod msgq;
pub mod region;
mod robust;
pub mod set;
pub mod sleep_word;
#[cfg(test)]
mod testing;
pub mod wait_page;
