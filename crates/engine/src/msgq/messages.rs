// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages: making and freeing them, their texts, and the lists that they are in.

use super::{
    INLINE, Locked, Message, Queue, Search, Surroundings, Text, Want, Who, blocks_for, halves,
    word_of,
};
use crate::cell::Cell64;
use crate::region::line::Line;
use vshmem_abi::msgq::{self, BLOCK, TYPES, header};
use vshmem_abi::region::LINE;
use vshmem_abi::token::Token;

impl<C: Cell64> Queue<'_, C> {
    pub(super) fn messages(&self) -> Line {
        self.line_of_messages(header::LINK, msgq::MESSAGES)
    }

    pub(super) fn in_hands(&self) -> Line {
        self.line_of_messages(header::LINK, msgq::HELD)
    }

    pub(super) fn of_type(&self, mtype: i64) -> Line {
        let list = self.shape.types_at() + mtype as u64 as usize % TYPES;
        self.line_of_messages(header::TYPE_LINK, list)
    }

    fn line_of_messages(&self, link: usize, ends: usize) -> Line {
        Line {
            links: self.shape.headers_at() + link,
            ends,
            most: self.shape.headers(),
        }
    }

    #[inline]
    pub(super) fn message_at(&self, index: u32) -> Option<Message> {
        if index >= self.shape.headers() {
            return None;
        }
        let (state, size) = halves(self.load(self.header(index) + header::STATE));
        Some(Message {
            index,
            state: state.into(),
            size,
        })
    }

    /// The type of a message.
    #[inline]
    pub(super) fn type_of(&self, message: u32) -> i64 {
        self.load(self.header(message) + header::TYPE) as i64
    }

    /// Has the header of a message brought along that the next call is likely to work on: what another
    /// processor has written to last takes about as long to come as a call does.
    #[inline(always)]
    pub(super) fn fetch(&self, name: u32) {
        if let Some(index) = name.checked_sub(1).filter(|&i| i < self.shape.headers()) {
            let at = self.header(index);
            self.at(at).fetch();
            self.at(at + LINE).fetch();
        }
    }

    pub(super) fn is_owned_by(&self, message: u32, owner: Token) -> bool {
        self.load(self.header(message) + header::OWNER) == owner.raw()
    }

    /// Whether a message of `size` bytes may be put into the queue (`msg_fits_inqueue`), for which
    /// there is room in the region too. Without the lock it may be otherwise a moment later.
    #[inline]
    pub fn fits(&self, size: u32) -> bool {
        let (qnum, blocks) = halves(self.load(msgq::QNUM));
        let most = self.load(msgq::QBYTES);
        self.load(msgq::CBYTES).saturating_add(size.into()) <= most
            && u64::from(qnum) < most
            && qnum < self.shape.messages
            && blocks_for(size) <= self.shape.blocks.saturating_sub(blocks)
    }

    /// How many messages are in the queue.
    #[inline]
    pub fn qnum(&self) -> u32 {
        halves(self.load(msgq::QNUM)).0
    }

    /// How many messages have been sent: another number than before when there may be one that was not
    /// there.
    #[inline]
    pub fn sent(&self) -> u64 {
        self.load(msgq::NEXT_SEQ)
    }

    /// How many messages were received, as far as it says.
    pub fn received(&self) -> u64 {
        self.load(msgq::RECEIVED)
    }

    /// Where the text of `size` bytes of a message lies, piece after piece: to be filled, or read, by
    /// who holds the message, or the lock.
    pub fn pieces(&self, message: u32, size: u32) -> Pieces<'_, C> {
        let known = message < self.shape.headers();
        let first = match (known, size as usize <= INLINE) {
            (false, _) => Place::Nowhere,
            (true, true) => Place::Header(message),
            (true, false) => {
                Place::Block(halves(self.load(self.header(message) + header::BLOCKS)).0)
            }
        };
        Pieces {
            queue: self,
            place: first,
            left: size as usize,
        }
    }
}

#[derive(Clone, Copy)]
enum Place {
    Nowhere,
    Header(u32),
    Block(u32),
}

/// The pieces of a text; see [`Queue::pieces`].
pub struct Pieces<'q, C> {
    queue: &'q Queue<'q, C>,
    place: Place,
    left: usize,
}

impl<'q, C: Cell64> Iterator for Pieces<'q, C> {
    /// Words, and how many bytes of them are of the text. Fewer pieces than the text has only where a
    /// peer has written into the region.
    type Item = (&'q [C], usize);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let (at, room) = match self.place {
            Place::Nowhere => return None,
            Place::Header(message) => (self.queue.header(message) + header::TEXT, INLINE),
            Place::Block(name) => {
                let block = name.checked_sub(1)?;
                if block >= self.queue.shape.all_blocks() {
                    return None;
                }
                self.place = Place::Block(self.queue.load(self.queue.chain(block)) as u32);
                (self.queue.block(block), BLOCK)
            }
        };
        let bytes = self.left.min(room);
        self.left -= bytes;
        Some((self.queue.words(at, bytes.div_ceil(8))?, bytes))
    }
}

impl<C: Cell64, S: Surroundings> Locked<'_, '_, C, S> {
    // Making and freeing.

    /// A message of `size` bytes of `owner`'s, of which the state is not written; to be committed. `None`:
    /// there is no room; what was put has to be rolled back.
    #[inline]
    pub(super) fn new_message(&mut self, size: u32, mtype: i64, owner: Token) -> Option<u32> {
        let (first, high) = halves(self.load(msgq::FREE_HEADERS));
        let most = self.region.shape.headers();
        let index = match first.checked_sub(1).filter(|&index| index < most) {
            Some(free) => {
                let (_, next) = halves(self.load(self.region.header(free) + header::STATE));
                self.put(msgq::FREE_HEADERS, word_of(next, high));
                self.region.fetch(next);
                free
            }
            None if high < most => {
                self.put(msgq::FREE_HEADERS, word_of(0, high + 1));
                high
            }
            None => return None,
        };
        let at = self.region.header(index);
        self.store(at + header::TYPE, mtype as u64);
        self.store(at + header::OWNER, owner.raw());
        match blocks_for(size) {
            0 => {}
            count => {
                let (first, last) = self.new_blocks(count)?;
                self.store(at + header::BLOCKS, word_of(first + 1, last + 1));
            }
        }
        Some(index)
    }

    /// A chain of blocks: the first and the last one.
    fn new_blocks(&mut self, count: u32) -> Option<(u32, u32)> {
        let most = self.region.shape.all_blocks();
        let (name, high) = halves(self.load(msgq::FREE_BLOCKS));
        let mut fresh = high.min(most);
        let mut next = name;
        let mut ends: Option<(u32, u32)> = None;
        for _ in 0..count {
            let block = match next.checked_sub(1).filter(|&block| block < most) {
                Some(free) => {
                    next = self.load(self.region.chain(free)) as u32;
                    free
                }
                None if fresh < most => {
                    fresh += 1;
                    // The last one that was free before ends the list until this is committed.
                    if let Some((_, last)) = ends {
                        if last < high {
                            self.put(self.region.chain(last), u64::from(fresh));
                        } else {
                            self.store(self.region.chain(last), u64::from(fresh));
                        }
                    }
                    fresh - 1
                }
                None => return None,
            };
            ends = Some((ends.map_or(block, |(first, _)| first), block));
        }
        let rest = if next.checked_sub(1).is_some_and(|block| block < most) {
            next
        } else {
            0
        };
        self.put(msgq::FREE_BLOCKS, word_of(rest, fresh));
        ends
    }

    /// Frees a message that is in no list; to be committed.
    pub(super) fn free_message(&mut self, message: Message) {
        let at = self.region.header(message.index);
        if blocks_for(message.size) > 0 {
            let (first, last) = halves(self.load(at + header::BLOCKS));
            if let Some(last) = last
                .checked_sub(1)
                .filter(|&l| l < self.region.shape.all_blocks())
            {
                let (free, high) = halves(self.load(msgq::FREE_BLOCKS));
                self.put(self.region.chain(last), free.into());
                self.put(msgq::FREE_BLOCKS, word_of(first, high));
            }
        }
        let (free, high) = halves(self.load(msgq::FREE_HEADERS));
        self.put(at + header::STATE, word_of(header::FREE as u32, free));
        self.put(msgq::FREE_HEADERS, word_of(message.index + 1, high));
    }

    /// The message, if it is `owner`'s, who fills or reads it or waits to send it.
    pub(super) fn held(&self, message: u32, owner: Token) -> Option<Message> {
        let known = self.region.message_at(message)?;
        (known.is(header::HELD) && self.region.is_owned_by(message, owner)).then_some(known)
    }

    /// Frees a message that `owner` has in its hands.
    pub fn free(&mut self, message: u32, owner: Token) {
        if let Some(held) = self.held(message, owner) {
            self.unlink(self.region.in_hands(), message);
            self.free_message(held);
            self.commit();
        }
    }

    // Short texts.

    #[inline]
    pub(super) fn write_text(&self, message: u32, size: u32, text: &Text) {
        let at = self.region.header(message) + header::TEXT;
        for (place, word) in text.iter().take((size as usize).div_ceil(8)).enumerate() {
            self.store(at + place, *word);
        }
    }

    #[inline]
    pub(super) fn read_text(&self, message: u32, size: u32, text: &mut Text) {
        let at = self.region.header(message) + header::TEXT;
        for (place, word) in text
            .iter_mut()
            .take((size as usize).div_ceil(8))
            .enumerate()
        {
            *word = self.load(at + place);
        }
    }

    // In the queue.

    fn count(&mut self, message: Message, comes: bool) {
        let (qnum, blocks) = halves(self.load(msgq::QNUM));
        let bytes = self.load(msgq::CBYTES);
        let (own, size) = (blocks_for(message.size), u64::from(message.size));
        let (qnum, blocks, bytes) = if comes {
            (
                qnum.wrapping_add(1),
                blocks.wrapping_add(own),
                bytes.wrapping_add(size),
            )
        } else {
            (
                qnum.saturating_sub(1),
                blocks.saturating_sub(own),
                bytes.saturating_sub(size),
            )
        };
        self.put(msgq::QNUM, word_of(qnum, blocks));
        self.put(msgq::CBYTES, bytes);
    }

    /// Notes who receives a message, and when.
    pub(super) fn note_receiver(&self, who: Who, now: i64) {
        self.note(msgq::LRPID, who.0);
        self.note(msgq::RTIME, now as u64);
        self.store(msgq::RECEIVED, self.load(msgq::RECEIVED).wrapping_add(1));
    }

    /// Numbers a message that is being sent. A number that is lost with one who dies here is missed by
    /// nobody.
    pub(super) fn number(&self, message: u32) {
        let seq = self.load(msgq::NEXT_SEQ);
        self.store(msgq::NEXT_SEQ, seq.wrapping_add(1));
        self.store(self.region.header(message) + header::SEQ, seq);
    }

    /// Puts a held message at the end of the queue; to be committed.
    pub(super) fn append(&mut self, message: Message, mtype: i64) {
        let at = self.region.header(message.index);
        self.number(message.index);
        self.put(
            at + header::STATE,
            word_of(header::QUEUED as u32, message.size),
        );
        self.link_new_last(self.region.messages(), message.index);
        self.link_new_last(self.region.of_type(mtype), message.index);
        self.count(message, true);
    }

    /// Puts a message back into the place that it would have if it had never been given away; to be
    /// committed.
    pub(super) fn put_back(&mut self, message: Message) {
        let at = self.region.header(message.index);
        self.put(
            at + header::STATE,
            word_of(header::QUEUED as u32, message.size),
        );
        let mtype = self.region.type_of(message.index);
        for line in [self.region.messages(), self.region.of_type(mtype)] {
            let next = self.later_than(line, self.load(at + header::SEQ));
            let previous = match line.named(next) {
                Some(next) => self.before(line, next),
                None => halves(self.load(line.ends)).1,
            };
            self.link_between(line, message.index, previous, next);
        }
        self.count(message, true);
    }

    /// The first of a list that was sent after number `seq`.
    fn later_than(&self, line: Line, seq: u64) -> u32 {
        let mut name = halves(self.load(line.ends)).0;
        for _ in 0..line.most {
            let Some(index) = line.named(name) else {
                break;
            };
            if self.load(self.region.header(index) + header::SEQ) > seq {
                return name;
            }
            name = self.after(line, index);
        }
        0
    }

    /// Takes a message out of the queue; to be committed. It is nobody's then.
    pub(super) fn take_out(&mut self, message: Message) {
        let mtype = self.region.type_of(message.index);
        let line = self.region.messages();
        self.region.fetch(self.after(line, message.index));
        self.unlink(line, message.index);
        self.unlink(self.region.of_type(mtype), message.index);
        self.count(message, false);
    }

    /// The message that a receiver gets (`find_msg`), with no more than `steps` looks.
    pub(super) fn find(&self, want: &Want, steps: &mut u32) -> Option<Message> {
        let line = match want.search {
            Search::Equal => self.region.of_type(want.mtype),
            _ => self.region.messages(),
        };
        let mut found = None;
        let mut lowest = *want;
        let mut name = halves(self.load(line.ends)).0;
        for _ in 0..line.most.min(*steps) {
            let Some(index) = line.named(name) else {
                break;
            };
            *steps -= 1;
            let mtype = self.region.type_of(index);
            if lowest.fits(mtype) {
                found = Some(index);
                if want.search != Search::UpTo || mtype <= 1 {
                    break;
                }
                lowest.mtype = mtype - 1;
            }
            name = self.after(line, index);
        }
        // Else a peer has written into the lists.
        found.and_then(|index| {
            self.region
                .message_at(index)
                .filter(|m| m.is(header::QUEUED))
        })
    }

    /// The message number `number` of the queue, from 0, with its type and size, if there is one
    /// (`MSG_COPY`).
    pub fn peek(&self, number: i64) -> Option<(u32, i64, u32)> {
        let line = self.region.messages();
        let mut name = halves(self.load(line.ends)).0;
        let mut index = line.named(name)?;
        for _ in 0..u32::try_from(number).ok().filter(|&n| n < line.most)? {
            name = self.after(line, index);
            index = line.named(name)?;
        }
        let message = self
            .region
            .message_at(index)
            .filter(|m| m.is(header::QUEUED))?;
        Some((index, self.region.type_of(index), message.size))
    }
}
