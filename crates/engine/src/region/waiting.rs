// SPDX-License-Identifier: MIT OR Apache-2.0
//! Those who wait: entering and leaving lines, being told.

use super::line::Line;
use super::locked::Locked;
use super::{Caller, Kind, Surroundings, Who, halves, word_of};
use crate::cell::Cell64;
use std::ffi::c_int;
use std::sync::atomic::Ordering::{Acquire, Release};
use vshmem_abi::region::{self, waiter};
use vshmem_abi::token::Token;

/// One who waits, as its record says.
#[derive(Clone, Copy)]
pub struct Waiting {
    pub(crate) index: u32,
    pub(crate) state: u64,
}

impl Waiting {
    pub(crate) fn is_queued(self) -> bool {
        self.state & 0xff == waiter::QUEUED
    }

    pub(crate) fn is_done(self) -> bool {
        self.state & 0xff == waiter::DONE
    }

    pub(crate) fn is_free(self) -> bool {
        self.state & 0xff == waiter::FREE
    }
}

impl<C: Cell64, S: Surroundings, K: Kind> Locked<'_, '_, C, S, K> {
    // Looking.

    /// The waiter that a link or an end leads to.
    pub(crate) fn follow(&self, link: u32) -> Option<Waiting> {
        let index = link
            .checked_sub(1)
            .filter(|&i| i < self.region.shape.waiters())?;
        let state = self.load(self.region.waiter(index) + waiter::STATE);
        Some(Waiting { index, state })
    }

    pub(crate) fn waiter_at(&self, index: u32) -> Option<Waiting> {
        self.follow(index.checked_add(1)?)
    }

    pub(crate) fn first(&self, line: Line) -> Option<Waiting> {
        self.follow(halves(self.load(line.ends)).0)
    }

    pub(crate) fn next(&self, line: Line, after: Waiting) -> Option<Waiting> {
        self.follow(self.after(line, after.index))
    }

    /// The two counts of waiters.
    #[inline(always)]
    pub(crate) fn counts(&self) -> (u32, u32) {
        halves(self.load(region::COUNTS))
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.counts().0
    }

    /// Waiters that may be in use.
    pub(crate) fn waiter_high(&self) -> u32 {
        (self.load(region::WAITER_HIGH) as u32).min(self.region.shape.waiters())
    }

    pub(crate) fn who_of(&self, of: Waiting) -> Who {
        Who(self.load(self.region.waiter(of.index) + waiter::WHO))
    }

    /// Whether the thread that waits there is known to be dead. Only a thread of this domain can be.
    pub(crate) fn is_dead(&self, of: Waiting) -> bool {
        let at = self.region.waiter(of.index);
        Token::from_raw(self.load(at + waiter::TOKEN)).domid() == self.around.domid()
            && self.around.is_dead(halves(self.load(at + waiter::PLACE)).0)
    }

    /// Whether there is still the record of a waiter of `token`'s at `index`, in a line.
    pub(crate) fn queued_of(&self, index: u32, token: Token) -> Option<Waiting> {
        let own = self.load(self.region.waiter(index) + waiter::TOKEN) == token.raw();
        self.waiter_at(index).filter(|w| own && w.is_queued())
    }

    // In and out.

    /// A record for `caller`, who waits in `slot` of its domain's wait page, filled in but for what it
    /// waits for, its state and the lines. `None`: there is no room.
    pub(crate) fn new_waiter(&self, caller: &Caller, slot: u32, outcome: u32) -> Option<u32> {
        let index = self.free_waiter(caller.token)?;
        let at = self.region.waiter(index);
        self.store(at + waiter::TOKEN, caller.token.raw());
        self.store(at + waiter::WHO, caller.who.0);
        self.store(at + waiter::PLACE, word_of(slot, 0));
        self.store(at + waiter::OUTCOME, word_of(outcome, 0));
        self.store(at + waiter::POST, waiter::AWAKE);
        Some(index)
    }

    fn free_waiter(&self, token: Token) -> Option<u32> {
        let all = self.region.shape.waiters();
        let from = (token.serial() as u32 & 0xff) % all;
        let is_free = |index: &u32| {
            let state = self.region.at(self.region.waiter(*index) + waiter::STATE);
            // Acquire: pairs with the Release of whoever has freed it.
            state.load(Acquire) & 0xff == waiter::FREE
        };
        let index = (from..all).chain(0..from).find(is_free)?;
        if self.load(region::WAITER_HIGH) as u32 <= index {
            self.store(region::WAITER_HIGH, u64::from(index) + 1);
        }
        Some(index)
    }

    /// Takes a waiter out that gives up, or is dead, and frees its record.
    pub(crate) fn abandon(&mut self, who: Waiting) {
        if who.is_queued() {
            K::leave(self, who);
        }
        K::free(self, who);
        self.put(self.region.waiter(who.index) + waiter::STATE, waiter::FREE);
        self.commit();
    }

    /// Takes a waiter out of the lines with this result, to be told ([`Self::post_all`]); to be
    /// committed.
    pub(crate) fn finish(&mut self, who: Waiting, errno: c_int) {
        let at = self.region.waiter(who.index);
        self.put(at + waiter::OUTCOME, word_of(0, errno as u32));
        K::leave(self, who);
        self.put(at + waiter::STATE, who.state & !0xff | waiter::DONE);
        // To be told, in this order.
        let (first, last) = halves(self.load(region::POSTING));
        self.put(at + waiter::LINK, 0);
        match self.follow(last) {
            Some(before) => {
                let link = self.region.waiter(before.index) + waiter::LINK;
                self.put(link, word_of(who.index + 1, 0));
                self.put(region::POSTING, word_of(first, who.index + 1));
            }
            None => self.put(region::POSTING, word_of(who.index + 1, who.index + 1)),
        }
    }

    /// Tells all those who were served.
    pub(crate) fn post_all(&mut self) {
        if self.load(region::POSTING) == 0 {
            return;
        }
        for _ in 0..self.region.shape.waiters() {
            let (first, last) = halves(self.load(region::POSTING));
            let Some(who) = self.follow(first) else {
                break;
            };
            let (next, _) = halves(self.load(self.region.waiter(who.index) + waiter::LINK));
            // Release: what was done for it, and its outcome, come before. Pairs with the Acquire of
            // the waiter's look.
            if self.region.post(who.index).swap(waiter::POSTED, Release) == waiter::ASLEEP {
                self.wake_later(who.index);
            }
            let rest = if next == 0 { 0 } else { word_of(next, last) };
            self.store(region::POSTING, rest);
        }
        self.store(region::POSTING, 0);
    }

    /// Gives up waiting at `index`. `true`: the waiter is out of the line and its record is free.
    /// `false`: what it waited for is done, or has failed, as its record tells.
    pub fn give_up(&mut self, index: u32, token: Token) -> bool {
        match self.queued_of(index, token) {
            Some(who) => {
                self.abandon(who);
                true
            }
            None => false,
        }
    }

    /// Ends the waiting at `index` with `errno`, as if what it waits for had failed: the record stays the
    /// waiter's, who finds the result there. `false`: it was done, or had failed, before.
    pub fn interrupt(&mut self, index: u32, token: Token, errno: c_int) -> bool {
        match self.queued_of(index, token) {
            Some(who) => {
                self.finish(who, errno);
                self.commit();
                self.post_all();
                true
            }
            None => false,
        }
    }
}
