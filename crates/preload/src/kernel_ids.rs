// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ids of the kernel that look like ours: its own get that high too. What it was seen to know is
//! remembered, so that further calls with such an id are passed on at once, without the lock.
//!
//! An id that the kernel has dropped meanwhile stays remembered. It could mislead only if the same
//! number were drawn for a routed construct later, one chance in 2^30 a draw.

use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

static IDS: [AtomicI32; 64] = [const { AtomicI32::new(0) }; 64];

/// Where an id is kept; a later one of the same place replaces it.
#[inline]
fn place(id: i32) -> Option<&'static AtomicI32> {
    IDS.get((id ^ id >> 15) as usize % IDS.len())
}

/// Whether `id`, which is not 0, was seen to be the kernel's own.
#[inline]
pub fn is_known(id: i32) -> bool {
    place(id).is_some_and(|place| place.load(Relaxed) == id)
}

/// Remembers that `id` is the kernel's own.
pub fn remember(id: i32) {
    if let Some(place) = place(id) {
        place.store(id, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_remembered_last_of_a_place_is_known() {
        let (id, same_place) = (1 << 30 | 5, 1 << 30 | 69);
        assert!(!is_known(id));
        remember(id);
        assert!(is_known(id) && !is_known(same_place));
        remember(same_place);
        assert!(is_known(same_place) && !is_known(id));
    }
}
