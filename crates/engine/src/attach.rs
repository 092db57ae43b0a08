// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counting attachments while others remove.
//!
//! A client that attaches raises its count, then looks at the state of the segment; `vshmemd`,
//! when the segment is removed, changes the state, then reads the counts. Both put a full fence
//! between the two steps, so at least one of them sees the other: either the client sees that the
//! segment is being removed and asks whether it still lives, or `vshmemd` sees the attachment.

use crate::client_page::PageMine;
use crate::directory::state_of;
use std::sync::atomic::{Ordering::SeqCst, fence};
use vshmem_abi::layout::Directory;
use vshmem_abi::wire::State;

/// Counts an attachment of `id` and returns the state the segment is in. On anything but
/// [`State::Live`] the caller asks `vshmemd`, or takes the count back with [`cancel`]. `now` is the
/// time of the attach, 0 when it is not sure yet that it will succeed ([`stamp`]).
pub fn begin(page: &PageMine, directory: &Directory, slot: u32, id: i32, now: i64) -> State {
    page.add(slot, id, now);
    // Pairs with the fence in `DirectoryWriter::update`.
    fence(SeqCst);
    state_of(directory, slot, id)
}

/// Notes the time of an attachment that [`begin`] counted without one, and that has come to be.
pub fn stamp(page: &PageMine, slot: u32, id: i32, now: i64) {
    page.stamp(slot, id, now);
}

/// Takes back an attachment that [`begin`] counted and that did not come to be.
pub fn cancel(page: &PageMine, slot: u32, id: i32) {
    page.sub(slot, id, 0);
}

/// Takes a detached attachment off the count. `true`: it was this process's last one and the
/// segment is being removed, so `vshmemd` has to be told.
pub fn end(page: &PageMine, directory: &Directory, slot: u32, id: i32, now: i64) -> bool {
    let left = page.sub(slot, id, now);
    // Pairs with the fence in `DirectoryWriter::update`.
    fence(SeqCst);
    left == 0 && state_of(directory, slot, id) != State::Live
}

/// Counts an attachment that exists already, in a page that is new: after `vshmemd` was reached
/// anew. Times stay as they are.
pub fn carry_over(page: &PageMine, directory: &Directory, slot: u32, id: i32) -> State {
    begin(page, directory, slot, id, 0)
}
