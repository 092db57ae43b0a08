// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lists through the records of a region: of waiters, and of messages.
//!
//! What comes before the first record of a list, and after the last one, is said by the list's ends alone: what
//! their links say there means nothing. So a record is taken from the beginning, or put at the end, with few
//! words changed, and none in the records that others work on.

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
    /// The name of the record that comes after one of the list; 0: it is the last.
    #[inline(always)]
    pub(crate) fn after(&self, line: Line, index: u32) -> u32 {
        match halves(self.load(line.ends)) {
            (_, last) if last == index + 1 => 0,
            _ => halves(self.load(line.link(index))).0,
        }
    }

    /// The name of the record that comes before one of the list; 0: it is the first.
    #[inline]
    pub(crate) fn before(&self, line: Line, index: u32) -> u32 {
        match halves(self.load(line.ends)) {
            (first, _) if first == index + 1 => 0,
            _ => halves(self.load(line.link(index))).1,
        }
    }

    /// Puts a record at the end of a list; to be committed.
    #[inline]
    pub(crate) fn link_last(&mut self, line: Line, index: u32) {
        let (_, last) = halves(self.load(line.ends));
        self.link_between(line, index, last, 0);
    }

    /// The same for a record whose link means nothing yet, and a list of which nothing was taken out since the
    /// last commit: what links say beyond the ends means nothing, so if this is not committed, it
    /// need not be taken back.
    #[inline(always)]
    pub(crate) fn link_new_last(&mut self, line: Line, index: u32) {
        let (first, last) = halves(self.load(line.ends));
        self.store(line.link(index), word_of(0, last));
        let first = match line.named(last) {
            Some(before) => {
                let (_, further) = halves(self.load(line.link(before)));
                self.store(line.link(before), word_of(index + 1, further));
                first
            }
            None => index + 1,
        };
        self.put(line.ends, word_of(first, index + 1));
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

    /// Takes a record out; to be committed. Where it was the first or the last, no other record is touched.
    #[inline(always)]
    pub(crate) fn unlink(&mut self, line: Line, index: u32) {
        let (first, last) = halves(self.load(line.ends));
        let own = halves(self.load(line.link(index)));
        let next = if last == index + 1 { 0 } else { own.0 };
        let previous = if first == index + 1 { 0 } else { own.1 };
        match (line.named(previous), line.named(next)) {
            (Some(before), Some(after)) => self.close(line, before, after),
            (None, Some(_)) => self.put(line.ends, word_of(next, last)),
            (Some(_), None) => self.put(line.ends, word_of(first, previous)),
            (None, None) => self.put(line.ends, 0),
        }
    }

    /// Makes neighbours of two; to be committed.
    #[inline(never)]
    fn close(&mut self, line: Line, before: u32, after: u32) {
        let (_, further) = halves(self.load(line.link(before)));
        self.put(line.link(before), word_of(after + 1, further));
        let (further, _) = halves(self.load(line.link(after)));
        self.put(line.link(after), word_of(further, before + 1));
    }
}
