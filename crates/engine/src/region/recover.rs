// SPDX-License-Identifier: MIT OR Apache-2.0
//! After a death: what the holder of the lock had begun, and what a waiter leaves in the lines. Called
//! by `vshmemd`, which knows who is dead.

use super::locked::Locked;
use super::waiting::Waiting;
use super::{Kind, Region, Surroundings};
use crate::cell::Cell64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use vshmem_abi::region::{self, waiter};
use vshmem_abi::token::Token;

/// Who has died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dead {
    /// A client. Its process may live on (`exec`), so its undo records stay.
    Client(Token),
    /// A domain, with all its processes: those of this epoch.
    Domain(u32, u8),
}

impl Dead {
    /// Whether `token` is that of the dead, or of one of them.
    pub fn is(self, token: Token) -> bool {
        match self {
            Self::Client(dead) => token == dead,
            Self::Domain(domid, epoch) => {
                token != Token::NONE && token.domid() == domid && token.epoch() == epoch
            }
        }
    }
}

/// The lock is held by somebody who lives: try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// How often the lock is tried before it counts as held. A holder has it for less than a microsecond
/// as a rule.
const TRIES: u32 = 1000;

impl<'a, C: Cell64, K: Kind> Region<'a, C, K> {
    /// Takes the lock for `me`, from whom it may have been left by `dead`, and repairs what is half
    /// done.
    pub(crate) fn lock_after<'b, S: Surroundings>(
        &'b self,
        me: Token,
        dead: Option<Dead>,
        now: i64,
        around: &'b S,
    ) -> Result<Locked<'a, 'b, C, S, K>, Busy> {
        for _ in 0..TRIES {
            if let Some(locked) = self.try_lock(me, around) {
                return Ok(locked);
            }
            let holder = self.lock_holder();
            if dead.is_some_and(|dead| dead.is(holder))
                // Acquire: as a lock that was given back, of which all stores are seen.
                && self
                    .at(region::LOCK)
                    .compare_exchange(holder.raw(), me.raw(), Acquire, Relaxed)
                    .is_ok()
            {
                let mut locked = Locked::begin(self, around);
                locked.repair(now);
                return Ok(locked);
            }
            std::hint::spin_loop();
        }
        Err(Busy)
    }

    /// Clears away what the dead have left here: the lock, their places in the lines, and what is theirs
    /// beside.
    ///
    /// # Errors
    /// [`Busy`]; nothing was done then.
    pub fn clean_up<S: Surroundings>(
        &self,
        me: Token,
        dead: Dead,
        now: i64,
        around: &S,
    ) -> Result<(), Busy> {
        let mut locked = self.lock_after(me, Some(dead), now, around)?;
        locked.remove_waiters(dead);
        K::sweep(&mut locked, dead, now);
        locked.unlock();
        Ok(())
    }
}

impl<C: Cell64, S: Surroundings, K: Kind> Locked<'_, '_, C, S, K> {
    /// Rolls back what was not committed, and goes on with what was.
    fn repair(&mut self, now: i64) {
        self.adopt_journal();
        self.roll_back();
        K::finish_intent(self, now);
        self.post_all();
        // Who was told but not woken yet.
        for index in 0..self.waiter_high() {
            if self.waiter_at(index).is_some_and(Waiting::is_done) {
                self.wake_later(index);
            }
        }
    }

    fn remove_waiters(&mut self, dead: Dead) {
        for index in 0..self.waiter_high() {
            let token = self.load(self.region.waiter(index) + waiter::TOKEN);
            if let Some(who) = self.waiter_at(index)
                && !who.is_free()
                && dead.is(Token::from_raw(token))
            {
                self.abandon(who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_of_a_domain_are_told_from_those_who_came_after_with_its_number() {
        let of = |epoch, count| Token::new(2, Token::serial_in(epoch, count));
        let dead = Dead::Domain(2, 7);
        assert!(dead.is(of(7, 0)) && dead.is(of(7, 20)));
        assert!(!dead.is(of(8, 20)) && !dead.is(of(6, 0)));
        assert!(!dead.is(Token::new(3, of(7, 20).serial())));
        assert!(!Dead::Domain(0, 0).is(Token::NONE));
    }
}
