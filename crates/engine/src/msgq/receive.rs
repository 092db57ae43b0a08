// SPDX-License-Identifier: MIT OR Apache-2.0
//! Receiving: from the queue, or by waiting for one.

use super::send::STEPS;
use super::{INLINE, Locked, Message, Queue, Surroundings, Text, Want, word_of};
use crate::cell::Cell64;
use crate::region::Caller;
use std::ffi::c_int;
use vshmem_abi::msgq::{SENDS, header, wants};
use vshmem_abi::region::{COUNTS, INTENT, SCAN, waiter};
use vshmem_abi::token::Token;

/// What came of a receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// There is no message of that kind.
    Nothing,
    /// The message has more text than there is room for; it stays.
    TooBig,
    /// It is in the caller's [`Text`].
    Small {
        /// Its type.
        mtype: i64,
        /// Bytes of its text.
        size: u32,
    },
    /// The caller holds it: to be copied ([`Queue::pieces`]), then freed ([`Locked::free`]).
    Large {
        /// The message.
        message: u32,
        /// Its type.
        mtype: i64,
        /// Bytes of its text.
        size: u32,
    },
}

/// How a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// With this errno. The message that it waited to send is freed.
    Failed(c_int),
    /// The call has to look anew whether it may, and begin again; with this message, if it sends.
    Again(Option<u32>),
    /// The message was sent.
    Sent,
    /// One was received.
    Received(Received),
}

impl<C: Cell64, S: Surroundings> Locked<'_, '_, C, S> {
    /// Receives what the caller wants, a short text into `text`, and lets those in who wait to send.
    #[inline]
    pub fn receive(&mut self, want: &Want, caller: &Caller, text: &mut Text) -> Received {
        let Some(message) = self.find(want, &mut { STEPS }) else {
            return Received::Nothing;
        };
        if message.size > want.room {
            return Received::TooBig;
        }
        self.note_receiver(caller.who, caller.now);
        self.take_out(message);
        let (_, senders) = self.counts();
        if senders != 0 {
            self.put(INTENT, SCAN);
        }
        let received = self.hand_over(message, caller.token, text);
        self.commit();
        if senders != 0 {
            self.look_at_waiters(caller.now);
        }
        received
    }

    /// Text and header of a message that is in no list: read and free, or held by `owner`. To be
    /// committed.
    #[inline]
    fn hand_over(&mut self, message: Message, owner: Token, text: &mut Text) -> Received {
        let Message { index, size, .. } = message;
        let mtype = self.region.type_of(index);
        if size as usize <= INLINE {
            self.read_text(index, size, text);
            self.free_message(message);
            Received::Small { mtype, size }
        } else {
            let at = self.region.header(index);
            self.put(at + header::OWNER, owner.raw());
            self.put(at + header::STATE, word_of(header::HELD as u32, size));
            self.link_last(self.region.in_hands(), index);
            Received::Large {
                message: index,
                mtype,
                size,
            }
        }
    }

    /// Puts the caller into the line of those who wait to receive; `slot` is its own in its domain's
    /// wait page. Returns its place; `None` when there is no room for it.
    pub fn wait_to_receive(&mut self, want: &Want, caller: &Caller, slot: u32) -> Option<u32> {
        let index = self.new_waiter(caller, slot, 0)?;
        let at = self.region.waiter(index);
        self.store(at + wants::TYPE, want.mtype as u64);
        self.store(at + wants::MODE, word_of(want.search as u32, want.room));
        self.store(at + wants::MESSAGE, 0);
        self.put(at + waiter::STATE, waiter::QUEUED);
        self.link_new_last(self.region.receivers(), index);
        let (waiting, senders) = self.counts();
        self.put(COUNTS, word_of(waiting.wrapping_add(1), senders));
        self.commit();
        Some(index)
    }

    /// What has come of the wait of `token`'s at `index`, which has ended; frees the record.
    pub fn take(&mut self, index: u32, token: Token, text: &mut Text) -> Taken {
        let taken = self.result_of(index, token, text);
        if let Some(taken) = taken {
            self.put(self.region.waiter(index) + waiter::STATE, waiter::FREE);
            self.commit();
            return taken;
        }
        Taken::Failed(libc::EIDRM)
    }

    /// The same, but the record stays until [`Queue::collect`], without anything in it.
    pub fn take_and_keep(&mut self, index: u32, token: Token, text: &mut Text) -> Taken {
        let taken = self.result_of(index, token, text);
        if let Some(taken) = taken {
            self.put(self.region.waiter(index) + wants::MESSAGE, 0);
            self.commit();
            return taken;
        }
        Taken::Failed(libc::EIDRM)
    }

    /// To be committed. `None`: the record is not one of `token`'s whose wait has ended.
    fn result_of(&mut self, index: u32, token: Token, text: &mut Text) -> Option<Taken> {
        let at = self.region.waiter(index);
        let own = self.load(at + waiter::TOKEN) == token.raw();
        let who = self.waiter_at(index).filter(|who| own && who.is_done())?;
        let sends = who.state & SENDS != 0;
        Some(match self.region.result(index) {
            0 if sends => Taken::Sent,
            0 => match self.message_of(who, header::GIVEN) {
                Some(message) => Taken::Received(self.hand_over(message, token, text)),
                None => Taken::Failed(libc::EIDRM),
            },
            libc::EAGAIN => {
                let held = self
                    .message_of(who, header::HELD)
                    .map(|message| message.index);
                if let Some(message) = held {
                    self.link_last(self.region.in_hands(), message);
                }
                Taken::Again(held)
            }
            errno => {
                if let Some(message) = self.message_of(who, header::HELD) {
                    self.free_message(message);
                }
                Taken::Failed(errno)
            }
        })
    }
}

impl<C: Cell64> Queue<'_, C> {
    /// Frees the record of a waiter of which all else was taken ([`Locked::take_and_keep`]).
    pub fn collect(&self, index: u32) {
        self.free_record(index);
    }
}
