// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sending: into the queue, to a receiver that waits, or into the line of those who wait to send.

use super::{Locked, Message, Surroundings, Text, Want, Who, halves, word_of};
use crate::cell::Cell64;
use crate::region::Caller;
use crate::region::waiting::Waiting;
use vshmem_abi::msgq::{self, CHECK, SENDS, header, wants};
use vshmem_abi::region::{COUNTS, waiter};
use vshmem_abi::token::Token;

/// Looks at waiters and messages that one call may take: done in a fraction of a second, whatever a
/// peer has written into the lists. What needs more is for the next call.
pub(super) const STEPS: u32 = 1 << 24;

/// What came of a sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is in the queue, or in the hands of a receiver.
    Done,
    /// There is no room in the queue: it would have to wait. Nothing has changed.
    Full,
    /// The region has no room for another message.
    NoRoom,
}

impl<C: Cell64, S: Surroundings> Locked<'_, '_, C, S> {
    /// Sends a text of `size` bytes, no more than [`super::INLINE`].
    #[inline]
    pub fn send_small(&mut self, mtype: i64, text: &Text, size: u32, caller: &Caller) -> Sent {
        if !self.region.fits(size) {
            return Sent::Full;
        }
        let receiver = self.receiver_for(mtype, size, &mut { STEPS });
        let Some(index) = self.new_message(size, mtype, caller.token) else {
            self.roll_back();
            self.post_all();
            return Sent::NoRoom;
        };
        self.write_text(index, size, text);
        let message = Message {
            index,
            state: header::HELD,
            size,
        };
        self.deliver(message, mtype, receiver, caller.who, caller.now);
        self.post_all();
        Sent::Done
    }

    /// A message of `size` bytes for the caller to fill ([`super::Queue::pieces`]), to be sent by
    /// [`Self::send`] or freed by [`Locked::free`]. `None`: there is no room for it.
    pub fn hold(&mut self, size: u32, mtype: i64, owner: Token) -> Option<u32> {
        let held = self.new_message(size, mtype, owner);
        match held {
            Some(message) => {
                let state = self.region.header(message) + header::STATE;
                self.put(state, word_of(header::HELD as u32, size));
                self.link_new_last(self.region.in_hands(), message);
                self.commit();
            }
            None => self.roll_back(),
        }
        held
    }

    /// Sends a message that the caller holds. If it is not [`Sent::Done`] it still holds it.
    pub fn send(&mut self, message: u32, caller: &Caller) -> Sent {
        let Some(held) = self.held(message, caller.token) else {
            return Sent::NoRoom;
        };
        if !self.region.fits(held.size) {
            return Sent::Full;
        }
        let mtype = self.region.type_of(message);
        let receiver = self.receiver_for(mtype, held.size, &mut { STEPS });
        self.unlink(self.region.in_hands(), message);
        // If this is not committed it is in that list still.
        self.put(self.region.header(message) + header::LINK, 0);
        self.deliver(held, mtype, receiver, caller.who, caller.now);
        self.post_all();
        Sent::Done
    }

    /// Puts the caller, who holds `message`, into the line of those who wait to send; `slot` is its
    /// own in its domain's wait page. Returns its place; `None` when there is no room for it.
    pub fn wait_to_send(&mut self, message: u32, caller: &Caller, slot: u32) -> Option<u32> {
        self.held(message, caller.token)?;
        let index = self.new_waiter(caller, slot, 0)?;
        let at = self.region.waiter(index);
        self.store(at + wants::MESSAGE, u64::from(message) + 1);
        self.put(at + waiter::STATE, waiter::QUEUED | SENDS);
        self.unlink(self.region.in_hands(), message);
        self.link_new_last(self.region.senders(), index);
        let (waiting, senders) = self.counts();
        let counts = word_of(waiting.wrapping_add(1), senders.wrapping_add(1));
        self.put(COUNTS, counts);
        self.commit();
        Some(index)
    }

    /// Gives a message to `receiver`, or appends it to the queue, and commits.
    #[inline]
    fn deliver(
        &mut self,
        message: Message,
        mtype: i64,
        receiver: Option<Waiting>,
        sender: Who,
        now: i64,
    ) {
        self.note(msgq::LSPID, sender.0);
        self.note(msgq::STIME, now as u64);
        match receiver {
            Some(receiver) => {
                self.number(message.index);
                self.give(message, receiver, now);
            }
            None => self.append(message, mtype),
        }
        self.commit();
    }

    /// Puts a message into the hands of a receiver that waits; to be committed.
    pub(super) fn give(&mut self, message: Message, receiver: Waiting, now: i64) {
        let (at, of) = (
            self.region.header(message.index),
            self.region.waiter(receiver.index),
        );
        self.put(at + header::OWNER, self.load(of + waiter::TOKEN));
        self.put(
            at + header::STATE,
            word_of(header::GIVEN as u32, message.size),
        );
        self.put(of + wants::MESSAGE, u64::from(message.index) + 1);
        self.note_receiver(self.who_of(receiver), now);
        self.finish(receiver, 0);
    }

    /// The first of those who wait for a message like this one and have room for it. Whoever comes
    /// before and has not is told so, which is committed (`pipelined_send`).
    #[inline]
    fn receiver_for(&mut self, mtype: i64, size: u32, steps: &mut u32) -> Option<Waiting> {
        let (waiting, senders) = self.counts();
        if waiting == senders {
            return None;
        }
        let line = self.region.receivers();
        let mut at = self.first(line);
        for _ in 0..line.most.min(*steps) {
            let Some(who) = at else {
                break;
            };
            *steps -= 1;
            at = self.next(line, who);
            let want = self.want_of(who);
            if !who.is_queued() || !want.fits(mtype) || self.is_dead(who) {
                continue;
            }
            if size <= want.room {
                return Some(who);
            }
            self.finish(who, libc::E2BIG);
            self.commit();
        }
        None
    }

    /// What a receiver that waits wants.
    pub(super) fn want_of(&self, who: Waiting) -> Want {
        let at = self.region.waiter(who.index);
        let (search, room) = halves(self.load(at + wants::MODE));
        Want {
            mtype: self.load(at + wants::TYPE) as i64,
            search: Want::search_of(search),
            room,
        }
    }

    /// Sends for those who wait, as far as there is room for them, in the order in which they came
    /// (`ss_wakeup`).
    pub(super) fn admit(&mut self, now: i64, steps: &mut u32) {
        let line = self.region.senders();
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
            let Some(message) = self.message_of(who, header::HELD) else {
                continue;
            };
            if !self.region.fits(message.size) {
                continue;
            }
            if who.state & CHECK != 0 {
                self.finish(who, libc::EAGAIN);
                self.commit();
                continue;
            }
            let mtype = self.region.type_of(message.index);
            let receiver = self.receiver_for(mtype, message.size, steps);
            self.finish(who, 0);
            self.put(self.region.waiter(who.index) + wants::MESSAGE, 0);
            self.deliver(message, mtype, receiver, self.who_of(who), now);
        }
    }

    /// The message that a waiter's record has, if it is in this state and the waiter's.
    pub(super) fn message_of(&self, who: Waiting, state: u64) -> Option<Message> {
        let at = self.region.waiter(who.index);
        let index = (self.load(at + wants::MESSAGE) as u32).checked_sub(1)?;
        let owner = Token::from_raw(self.load(at + waiter::TOKEN));
        let message = self.region.message_at(index).filter(|m| m.is(state))?;
        self.region.is_owned_by(index, owner).then_some(message)
    }
}
