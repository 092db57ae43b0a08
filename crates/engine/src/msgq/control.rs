// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `msgctl` does, and what is done for the dead.

use super::send::STEPS;
use super::{Locked, Queue, QueueMap, Surroundings, Who, halves, word_of};
use crate::cell::Cell64;
use crate::region::Kind;
use crate::region::line::Line;
use crate::region::map::With;
use crate::region::recover::{Busy, Dead};
use crate::region::waiting::Waiting;
use std::sync::atomic::Ordering::Relaxed;
use vshmem_abi::msgq::{self, CHECK, SENDERS, SENDS, Shape, header, wants};
use vshmem_abi::region::{COUNTS, INTENT, QUEUE, SCAN, waiter};
use vshmem_abi::token::Token;
use vshmem_abi::wire::QueueUse;

impl<C: Cell64> Queue<'_, C> {
    pub(super) fn receivers(&self) -> Line {
        self.line_of_waiters(waiter::LINK, QUEUE)
    }

    pub(super) fn senders(&self) -> Line {
        self.line_of_waiters(waiter::LINK, SENDERS)
    }

    /// `msg_qbytes` of a new queue, which nobody else has yet.
    pub fn set_qbytes(&self, qbytes: u64) {
        self.at(msgq::QBYTES).store(qbytes, Relaxed);
    }

    /// What is in the queue, and who used it last. With the lock held all of it is of one moment.
    pub fn status(&self) -> QueueUse {
        let (lspid, lspid_domain) = Who(self.load(msgq::LSPID)).parts();
        let (lrpid, lrpid_domain) = Who(self.load(msgq::LRPID)).parts();
        QueueUse {
            qnum: halves(self.load(msgq::QNUM)).0.into(),
            cbytes: self.load(msgq::CBYTES),
            qbytes: self.load(msgq::QBYTES),
            stime: self.load(msgq::STIME) as i64,
            rtime: self.load(msgq::RTIME) as i64,
            lspid,
            lspid_domain,
            lrpid,
            lrpid_domain,
        }
    }
}

impl QueueMap {
    /// Sets `msg_qbytes`, and lets those in who waited for more.
    ///
    /// # Errors
    /// [`Busy`]; nothing was done then.
    pub fn set_limit(&self, qbytes: u64, now: i64, with: &With<'_>) -> Result<(), Busy> {
        let around = self.daemon(with);
        let queue = self.region();
        let mut locked = queue.lock_after(with.me, None, now, &around)?;
        locked.set_limit(qbytes, now);
        locked.unlock();
        Ok(())
    }

    /// Who may use the queue has changed: those of this daemon's domain who wait have to look again
    /// whether they may.
    ///
    /// # Errors
    /// [`Busy`]; nothing was done then.
    pub fn look_again(&self, now: i64, with: &With<'_>) -> Result<(), Busy> {
        let around = self.daemon(with);
        let queue = self.region();
        let mut locked = queue.lock_after(with.me, None, now, &around)?;
        locked.look_again(with.me.domid());
        locked.unlock();
        Ok(())
    }

    /// [`Queue::status`], of one moment if the lock can be had.
    pub fn status(&self, now: i64, with: &With<'_>) -> QueueUse {
        let around = self.daemon(with);
        let queue = self.region();
        match queue.lock_after(with.me, None, now, &around) {
            Ok(locked) => {
                let status = queue.status();
                locked.unlock();
                status
            }
            Err(Busy) => queue.status(),
        }
    }
}

impl<C: Cell64, S: Surroundings> Locked<'_, '_, C, S> {
    /// `IPC_SET`: as many bytes, and messages, may be in the queue from here on.
    pub fn set_limit(&mut self, qbytes: u64, now: i64) {
        self.put(msgq::QBYTES, qbytes);
        self.put(INTENT, SCAN);
        self.commit();
        self.look_at_waiters(now);
    }

    /// `IPC_SET`: receivers of `domid` begin anew, senders do before they are let in.
    pub fn look_again(&mut self, domid: u32) {
        for index in 0..self.waiter_high() {
            let at = self.region.waiter(index);
            let own = Token::from_raw(self.load(at + waiter::TOKEN)).domid() == domid;
            let Some(who) = self.waiter_at(index).filter(|who| own && who.is_queued()) else {
                continue;
            };
            if who.state & SENDS != 0 {
                self.put(at + waiter::STATE, who.state | CHECK);
            } else {
                self.finish(who, libc::EAGAIN);
            }
            self.commit();
        }
        self.post_all();
    }

    /// Does what has become possible for those who wait, as [`INTENT`] announces.
    pub(super) fn look_at_waiters(&mut self, now: i64) {
        let mut steps = STEPS;
        self.admit(now, &mut steps);
        self.post_all();
        if steps != 0 {
            self.store(INTENT, 0);
        }
    }

    /// Hands messages of the queue to those who wait for them: after one was put back.
    fn serve_receivers(&mut self, now: i64, steps: &mut u32) {
        let line = self.region.receivers();
        let mut at = self.first(line);
        for _ in 0..line.most {
            let Some(who) = at.filter(|_| *steps > 0) else {
                break;
            };
            *steps -= 1;
            at = self.next(line, who);
            if !who.is_queued() || self.is_dead(who) {
                continue;
            }
            let want = self.want_of(who);
            let Some(message) = self.find(&want, steps) else {
                continue;
            };
            if message.size > want.room {
                self.finish(who, libc::E2BIG);
            } else {
                self.take_out(message);
                self.give(message, who, now);
            }
            self.commit();
        }
    }

    /// Frees what the dead had in their hands.
    fn free_held(&mut self, dead: Dead) {
        let line = self.region.in_hands();
        let mut name = halves(self.load(line.ends)).0;
        for _ in 0..line.most {
            let Some(index) = line.named(name) else {
                break;
            };
            name = self.after(line, index);
            let owner = Token::from_raw(self.load(self.region.header(index) + header::OWNER));
            if dead.is(owner)
                && let Some(message) = self.held(index, owner)
            {
                self.unlink(line, index);
                self.free_message(message);
                self.commit();
            }
        }
    }
}

impl Kind for Shape {
    fn finish_intent<C: Cell64, S: Surroundings>(locked: &mut Locked<'_, '_, C, S>, now: i64) {
        if locked.load(INTENT) != 0 {
            locked.serve_receivers(now, &mut { STEPS });
            locked.look_at_waiters(now);
        }
    }

    fn leave<C: Cell64, S: Surroundings>(locked: &mut Locked<'_, '_, C, S>, who: Waiting) {
        let (waiting, senders) = locked.counts();
        let senders = if who.state & SENDS != 0 {
            locked.unlink(locked.region.senders(), who.index);
            senders.saturating_sub(1)
        } else {
            locked.unlink(locked.region.receivers(), who.index);
            senders
        };
        locked.put(COUNTS, word_of(waiting.saturating_sub(1), senders));
    }

    fn free<C: Cell64, S: Surroundings>(locked: &mut Locked<'_, '_, C, S>, who: Waiting) {
        if let Some(message) = locked.message_of(who, header::HELD) {
            locked.free_message(message);
        } else if let Some(message) = locked.message_of(who, header::GIVEN) {
            // It was handed to somebody who died before taking it.
            locked.put_back(message);
            locked.put(INTENT, SCAN);
        }
        locked.put(locked.region.waiter(who.index) + wants::MESSAGE, 0);
    }

    fn has_something_out<C: Cell64>(queue: &Queue<'_, C>) -> bool {
        queue.load(msgq::HELD) != 0
    }

    fn sweep<C: Cell64, S: Surroundings>(locked: &mut Locked<'_, '_, C, S>, dead: Dead, now: i64) {
        locked.free_held(dead);
        Self::finish_intent(locked, now);
    }
}
