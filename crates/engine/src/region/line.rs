// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lists through the records of a region: of waiters, and of messages.

use super::locked::Locked;
use super::{Kind, Region, Surroundings, halves, word_of};
use crate::cell::Cell64;
use vshmem_abi::msgq::header;
use vshmem_abi::region::waiter;

/// Words from one record to the next, whatever is listed.
const STRIDE: usize = waiter::WORDS;

const _: () = assert!(header::WORDS == STRIDE);

/// A list: which word of each record has its neighbours, where the ends are, and how many records
/// there are.
#[derive(Clone, Copy)]
pub(crate) struct Line {
    /// The word of the first record.
    pub links: usize,
    pub ends: usize,
    pub most: u32,
}

impl Line {
    /// The word that has the neighbours of a record.
    #[inline(always)]
    pub fn link(&self, index: u32) -> usize {
        self.links + index as usize * STRIDE
    }

    /// The record that a neighbour or an end names.
    #[inline(always)]
    pub fn named(&self, name: u32) -> Option<u32> {
        name.checked_sub(1).filter(|&index| index < self.most)
    }
}

impl<C: Cell64, K: Kind> Region<'_, C, K> {
    /// A line of waiters.
    #[inline(always)]
    pub(crate) fn line_of_waiters(&self, link: usize, ends: usize) -> Line {
        Line {
            links: self.shape.waiters_at() + link,
            ends,
            most: self.shape.waiters(),
        }
    }
}

impl<C: Cell64, S: Surroundings, K: Kind> Locked<'_, '_, C, S, K> {
    /// Puts a record at the end; to be committed.
    #[inline]
    pub(crate) fn link_last(&mut self, line: Line, index: u32) {
        let (_, last) = halves(self.load(line.ends));
        self.link_between(line, index, last, 0);
    }

    /// Puts a record between two that are neighbours; 0 is where the list ends. To be committed.
    #[inline]
    pub(crate) fn link_between(&mut self, line: Line, index: u32, previous: u32, next: u32) {
        let (mut first, mut last) = halves(self.load(line.ends));
        let (before, after) = (line.named(previous), line.named(next));
        let own = word_of(
            after.map_or(0, |after| after + 1),
            before.map_or(0, |before| before + 1),
        );
        self.put(line.link(index), own);
        match before {
            Some(before) => {
                let (_, further) = halves(self.load(line.link(before)));
                self.put(line.link(before), word_of(index + 1, further));
            }
            None => first = index + 1,
        }
        match after {
            Some(after) => {
                let (further, _) = halves(self.load(line.link(after)));
                self.put(line.link(after), word_of(further, index + 1));
            }
            None => last = index + 1,
        }
        self.put(line.ends, word_of(first, last));
    }

    /// Takes a record out; to be committed.
    #[inline]
    pub(crate) fn unlink(&mut self, line: Line, index: u32) {
        let (next, previous) = halves(self.load(line.link(index)));
        let (mut first, mut last) = halves(self.load(line.ends));
        match line.named(previous) {
            Some(before) => {
                let (_, further) = halves(self.load(line.link(before)));
                self.put(line.link(before), word_of(next, further));
            }
            None => first = next,
        }
        match line.named(next) {
            Some(after) => {
                let (further, _) = halves(self.load(line.link(after)));
                self.put(line.link(after), word_of(further, previous));
            }
            None => last = previous,
        }
        self.put(line.ends, word_of(first, last));
    }
}
