// SPDX-License-Identifier: MIT OR Apache-2.0
//! How constructs that the domain knew came to their end, for people who look for one and do not find it.

use std::collections::VecDeque;
use vshmem_abi::Kind;
use vshmem_abi::wire::{Meta, State};
use vshmem_report::{Ended, Why};

/// How many are remembered.
const KEPT: usize = 1024;

/// The last ends, the latest first.
#[derive(Default)]
pub struct Ends {
    latest: VecDeque<(i32, Ended)>,
}

impl Ends {
    /// The construct is at its end, or will be with its last detach, and `why`. What was known first counts.
    pub fn note(&mut self, meta: &Meta, why: Why, now: i64) {
        if self.get(meta.id).is_some() {
            return;
        }
        self.latest.truncate(KEPT - 1);
        let ended = Ended {
            when: now,
            kind: Kind::from_raw(meta.kind).map_or("", Kind::name).to_owned(),
            key: meta.key,
            owner: meta.owner,
            why,
        };
        self.latest.push_front((meta.id, ended));
    }

    /// The same of one of which nobody here has said why.
    pub fn note_silent(&mut self, meta: &Meta, now: i64) {
        let why = match State::from_raw(meta.state) {
            State::Lost => Why::OwnerGone,
            State::Live | State::Dest | State::Free => Why::RemovedElsewhere,
        };
        self.note(meta, why, now);
    }

    /// How `id` ended.
    pub fn get(&self, id: i32) -> Option<&Ended> {
        let found = self.latest.iter().find(|(of, _)| *of == id);
        found.map(|(_, ended)| ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(id: i32, state: State) -> Meta {
        Meta {
            id,
            key: 5,
            state: state as u32,
            ..Meta::default()
        }
    }

    #[test]
    fn the_first_reason_counts_and_the_latest_ends_are_kept() {
        let mut ends = Ends::default();
        let removed = Why::Removed { pid: 7, uid: 1 };
        ends.note(&meta(1, State::Live), removed, 10);
        ends.note_silent(&meta(1, State::Dest), 11);
        assert_eq!(
            ends.get(1).map(|e| (e.why, e.when, e.key)),
            Some((removed, 10, 5))
        );
        ends.note_silent(&meta(2, State::Lost), 12);
        assert_eq!(ends.get(2).map(|e| e.why), Some(Why::OwnerGone));
        for id in 0..KEPT as i32 {
            ends.note_silent(&meta(100 + id, State::Live), 13);
        }
        assert!(ends.get(1).is_none() && ends.get(100).is_some());
    }
}
