// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mailboxes: how a [`LinkMsg`] gets from one domain to another through XenStore.
//!
//! A box is a node; the messages in it are nodes below that, numbered from 0 on in each session. One
//! side writes them ([`Outbox`]), the other reads and removes them in their order ([`Inbox`]). A message
//! is text: 16 hexadecimal digits of its session's number, a space, and its bytes in hexadecimal digits.
//!
//! A reader looks at one place only, that of the next message, however much else lies in the box, and a
//! writer never has more than a number of messages waiting, so neither can be led astray or flooded by
//! the other. What bears another session's number was written by somebody who has not heard yet that
//! this one has begun: it is as if it were not there.

use super::{XenStore, read_if_there};
use rustix::io::Errno;
use vshmem_abi::link::LinkMsg;
use zerocopy::{FromBytes, IntoBytes};

/// Digits of a session's number.
const SESSION: usize = 16;

/// A box to write to.
#[derive(Debug)]
pub struct Outbox {
    dir: String,
    session: u64,
    next: u32,
    /// The oldest message that may not have been read yet.
    oldest: u32,
    /// Messages that may wait to be read.
    room: u32,
    /// The node without which nothing is written.
    witness: Option<String>,
}

impl Outbox {
    /// The box `dir` in a session that begins: nothing is in it. `room` messages may wait there.
    pub fn new(dir: String, session: u64, room: u32) -> Self {
        Self {
            dir,
            session,
            next: 0,
            oldest: 0,
            room,
            witness: None,
        }
    }

    /// The same, to which nothing is written any more once there is no node `witness`.
    pub fn only_while(mut self, witness: String) -> Self {
        self.witness = Some(witness);
        self
    }

    /// Writes a message.
    ///
    /// # Errors
    /// `EAGAIN` when as many wait as may; `ECONNRESET` when the witness is gone; else what XenStore
    /// says.
    pub fn put(&mut self, store: &dyn XenStore, message: &LinkMsg) -> Result<(), Errno> {
        // One that is read is removed.
        while self.next.wrapping_sub(self.oldest) >= self.room {
            if read_if_there(store, &place(&self.dir, self.oldest))?.is_some() {
                return Err(Errno::AGAIN);
            }
            self.oldest = self.oldest.wrapping_add(1);
        }
        let text = format!("{:016x} {}", self.session, hex::encode(message.as_bytes()));
        let place = place(&self.dir, self.next);
        match &self.witness {
            None => store.write(&place, text.as_bytes())?,
            Some(witness) => match store.write_while(witness, &place, text.as_bytes()) {
                Err(Errno::NOENT) => return Err(Errno::CONNRESET),
                done => done?,
            },
        }
        self.next = self.next.wrapping_add(1);
        Ok(())
    }
}

/// A box to read from.
#[derive(Debug)]
pub struct Inbox {
    dir: String,
    session: u64,
    next: u32,
}

impl Inbox {
    /// The box `dir` in a session that begins.
    pub fn new(dir: String, session: u64) -> Self {
        Self {
            dir,
            session,
            next: 0,
        }
    }

    /// Whether the event of a watch on the box, about the node `path`, may mean that there is something
    /// to take: its next message, or all of it, has changed.
    pub fn concerns(&self, path: &str) -> bool {
        path == self.dir || path == place(&self.dir, self.next)
    }

    /// Takes the next message out.
    ///
    /// # Errors
    /// `EPROTO` when what lies there is no message; else what XenStore says.
    pub fn take(&mut self, store: &dyn XenStore) -> Result<Option<LinkMsg>, Errno> {
        let place = place(&self.dir, self.next);
        let Some(text) = read_if_there(store, &place)? else {
            return Ok(None);
        };
        let (session, message) = split(&text).ok_or(Errno::PROTO)?;
        if session != format!("{:016x}", self.session).as_bytes() {
            return Ok(None);
        }
        let message = parse(message).ok_or(Errno::PROTO)?;
        store.rm(&place)?;
        self.next = self.next.wrapping_add(1);
        Ok(Some(message))
    }
}

fn place(dir: &str, number: u32) -> String {
    format!("{dir}/{number}")
}

/// The number of the session and the message of a text.
fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (session, rest) = text.split_at_checked(SESSION)?;
    Some((session, rest.strip_prefix(b" ")?))
}

fn parse(digits: &[u8]) -> Option<LinkMsg> {
    let mut bytes = [0; size_of::<LinkMsg>()];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    LinkMsg::read_from_bytes(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Client, FakeStore};
    use super::*;
    use vshmem_abi::link::LinkOp;

    const DIR: &str = "/local/domain/3/data/vshmem/down";
    const ROOM: u32 = 4;

    fn message(seq: u32) -> LinkMsg {
        LinkMsg {
            seq,
            ..LinkMsg::new(LinkOp::Count)
        }
    }

    /// dom0 and a guest, and their ends of a box.
    fn boxes() -> (Client, Client, Outbox, Inbox) {
        let store = FakeStore::new();
        store.introduce(3, "three");
        (
            store.connect(0),
            store.connect(3),
            Outbox::new(DIR.into(), 77, ROOM),
            Inbox::new(DIR.into(), 77),
        )
    }

    #[test]
    fn messages_come_in_the_order_they_went() {
        let (dom0, guest, mut out, mut own) = boxes();
        assert_eq!(own.take(&guest), Ok(None));
        for round in 0..100 {
            for seq in 0..3 {
                out.put(&dom0, &message(round * 3 + seq)).unwrap();
            }
            for seq in 0..3 {
                assert_eq!(own.take(&guest), Ok(Some(message(round * 3 + seq))));
            }
            assert_eq!(own.take(&guest), Ok(None));
        }
        assert_eq!(dom0.directory(DIR).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_box_that_is_not_read_is_full_and_has_room_again_as_it_is_read() {
        let (dom0, guest, mut out, mut own) = boxes();
        for seq in 0..ROOM {
            out.put(&dom0, &message(seq)).unwrap();
        }
        assert_eq!(out.put(&dom0, &message(9)), Err(Errno::AGAIN));
        assert_eq!(own.take(&guest), Ok(Some(message(0))));
        out.put(&dom0, &message(ROOM)).unwrap();
        assert_eq!(out.put(&dom0, &message(9)), Err(Errno::AGAIN));
        for seq in 1..=ROOM {
            assert_eq!(own.take(&guest), Ok(Some(message(seq))));
        }
    }

    #[test]
    fn nothing_is_written_for_a_guest_that_is_gone() {
        let (dom0, guest, out, _) = boxes();
        let front = "/local/domain/3/data/vshmem/front";
        let mut out = out.only_while(front.into());
        assert_eq!(out.put(&dom0, &message(1)), Err(Errno::CONNRESET));
        guest.write(front, b"").unwrap();
        out.put(&dom0, &message(1)).unwrap();
        dom0.rm("/local/domain/3").unwrap();
        assert_eq!(out.put(&dom0, &message(2)), Err(Errno::CONNRESET));
        assert_eq!(dom0.read("/local/domain/3"), Err(Errno::NOENT));
    }

    #[test]
    fn a_message_of_another_session_is_not_there_until_it_is_overwritten() {
        let (dom0, guest, mut out, mut own) = boxes();
        let mut late = Outbox::new(DIR.into(), 76, ROOM);
        late.put(&dom0, &message(1)).unwrap();
        assert_eq!(own.take(&guest), Ok(None));
        out.put(&dom0, &message(2)).unwrap();
        assert_eq!(own.take(&guest), Ok(Some(message(2))));
    }

    #[test]
    fn what_is_no_message_is_a_breach_wherever_it_differs() {
        let (dom0, guest, mut out, mut own) = boxes();
        out.put(&dom0, &message(1)).unwrap();
        let place = format!("{DIR}/0");
        let sound = guest.read(&place).unwrap();
        let mut wrong = vec![
            Vec::new(),
            b"0".to_vec(),
            sound[..SESSION].to_vec(),
            sound[..sound.len() - 1].to_vec(),
            [&sound[..], b"0"].concat(),
            vec![0xff; sound.len()],
        ];
        for at in [SESSION, SESSION + 1, sound.len() - 1] {
            let mut text = sound.clone();
            text[at] = b'g';
            wrong.push(text);
        }
        for text in wrong {
            guest.write(&place, &text).unwrap();
            assert_eq!(own.take(&dom0), Err(Errno::PROTO), "{text:?}");
        }
        guest.write(&place, &sound).unwrap();
        assert_eq!(own.take(&dom0), Ok(Some(message(1))));
    }

    #[test]
    fn only_the_place_of_the_next_message_and_the_box_itself_concern_its_reader() {
        let (dom0, guest, mut out, mut own) = boxes();
        let of = |name: &str| format!("{DIR}/{name}");
        assert!(own.concerns(DIR) && own.concerns(&of("0")));
        assert!(!own.concerns(&of("1")) && !own.concerns(&of("0/x")));
        out.put(&dom0, &message(1)).unwrap();
        own.take(&guest).unwrap();
        assert!(!own.concerns(&of("0")) && own.concerns(&of("1")));
    }
}
