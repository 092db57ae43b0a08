// SPDX-License-Identifier: MIT OR Apache-2.0
//! A queue as somebody sees it who does not use it: for reports to people. Nothing is locked, so each
//! word is of a moment of its own, and nobody has to wait for the reader.

use super::{Queue, Want, Who, halves};
use crate::cell::Cell64;
use vshmem_abi::msgq::{self, SENDS, header, wants};
use vshmem_abi::region::{self, waiter};

/// A message that is in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its type.
    pub mtype: i64,
    /// Bytes of its text.
    pub size: u32,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// To send this message.
    Send(Queued),
    /// To receive.
    Receive(Want),
}

impl<C: Cell64> Queue<'_, C> {
    /// The messages, in no order; of a queue with very many, those of `most` headers.
    pub fn queued(&self, most: u32) -> impl Iterator<Item = Queued> {
        let (_, used) = halves(self.load(msgq::FREE_HEADERS));
        (0..used.min(self.shape.headers()).min(most)).filter_map(|index| {
            let message = self.message_at(index)?;
            message.is(header::QUEUED).then(|| self.shown(index))
        })
    }

    fn shown(&self, index: u32) -> Queued {
        Queued {
            mtype: self.type_of(index),
            size: halves(self.load(self.header(index) + header::STATE)).1,
        }
    }

    /// Those who wait, in no order: pid as the process sees it and domain, and for what.
    pub fn sleepers(&self) -> impl Iterator<Item = ((i32, u32), Waits)> {
        let high = (self.load(region::WAITER_HIGH) as u32).min(self.shape.waiters);
        (0..high).filter_map(|index| {
            let at = self.waiter(index);
            let state = self.load(at + waiter::STATE);
            let waits = if state & SENDS != 0 {
                let message = halves(self.load(at + wants::MESSAGE)).0.checked_sub(1)?;
                Waits::Send((message < self.shape.headers()).then(|| self.shown(message))?)
            } else {
                let (search, room) = halves(self.load(at + wants::MODE));
                Waits::Receive(Want {
                    mtype: self.load(at + wants::TYPE) as i64,
                    search: Want::search_of(search),
                    room,
                })
            };
            let who = Who(self.load(at + waiter::WHO)).parts();
            (state & 0xff == waiter::QUEUED).then_some((who, waits))
        })
    }
}
