// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks of the engine of message queues.

use super::*;
use crate::region::{Caller, Surroundings};
use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use vshmem_abi::region::waiter;
use vshmem_abi::token::Token;

#[derive(Default)]
struct Around {
    domid: u32,
    dead: HashSet<u32>,
    woken: RefCell<Vec<u32>>,
}

impl Surroundings for Around {
    fn domid(&self) -> u32 {
        self.domid
    }

    fn is_dead(&self, slot: u32) -> bool {
        self.dead.contains(&slot)
    }

    fn wake(&self, waiter: u32) {
        self.woken.borrow_mut().push(waiter);
    }
}

const SMALL: Shape = Shape {
    messages: 6,
    held: 4,
    blocks: 4,
    held_blocks: 4,
    waiters: 6,
};

fn new_words(shape: Shape, qbytes: u64) -> Vec<AtomicU64> {
    let mut words = Vec::new();
    words.resize_with(shape.words(), || AtomicU64::new(0));
    let queue = Queue::new(&words, shape).unwrap();
    queue.init(7);
    queue.set_qbytes(qbytes);
    words
}

fn caller(serial: u64) -> Caller {
    Caller {
        token: Token::new(1, serial),
        who: Who::new(40 + serial as i32, 1),
        now: 1000 + serial as i64,
    }
}

fn any() -> Want {
    Want::new(0, false, Want::CUT)
}

#[test]
fn short_and_long_texts_go_through_the_queue_whole() {
    let words = new_words(SMALL, 4000);
    let queue = Queue::new(&words, SMALL).unwrap();
    let around = Around {
        domid: 1,
        ..Around::default()
    };
    let mut locked = queue.try_lock(caller(1).token, &around).unwrap();
    let text: Text = std::array::from_fn(|place| place as u64 + 100);
    assert_eq!(locked.send_small(5, &text, 72, &caller(1)), Sent::Done);
    let long = locked.hold(1000, 6, caller(1).token).unwrap();
    for (place, (words, bytes)) in queue.pieces(long, 1000).enumerate() {
        assert_eq!(bytes, [512, 488][place]);
        words
            .iter()
            .for_each(|word| word.store(place as u64 + 9, Relaxed));
    }
    assert_eq!(locked.send(long, &caller(1)), Sent::Done);
    assert_eq!((queue.status().qnum, queue.status().cbytes), (2, 1072));
    let mut got = Text::default();
    let six = Want::new(6, false, 999);
    assert_eq!(locked.receive(&six, &caller(2), &mut got), Received::TooBig);
    let six = Want::new(-6, false, 72);
    assert_eq!(
        locked.receive(&six, &caller(2), &mut got),
        Received::Small { mtype: 5, size: 72 }
    );
    assert_eq!(got, text);
    let Received::Large {
        message,
        mtype: 6,
        size: 1000,
    } = locked.receive(&any(), &caller(2), &mut got)
    else {
        panic!("no message");
    };
    for (place, (words, _)) in queue.pieces(message, 1000).enumerate() {
        assert!(
            words
                .iter()
                .all(|word| word.load(Relaxed) == place as u64 + 9)
        );
    }
    locked.free(message, caller(2).token);
    assert_eq!(
        locked.receive(&any(), &caller(2), &mut got),
        Received::Nothing
    );
    locked.unlock();
    assert_eq!((queue.status().qnum, queue.status().cbytes), (0, 0));
    assert_eq!((queue.status().lspid, queue.status().lrpid), (41, 42));
}

#[test]
fn a_receiver_that_waits_is_handed_the_message_and_a_sender_that_waits_is_let_in() {
    let words = new_words(SMALL, 100);
    let queue = Queue::new(&words, SMALL).unwrap();
    let around = Around {
        domid: 1,
        ..Around::default()
    };
    let mut locked = queue.try_lock(caller(1).token, &around).unwrap();
    let two = locked
        .wait_to_receive(&Want::new(2, false, 8), &caller(1), 1)
        .unwrap();
    let narrow = locked
        .wait_to_receive(&Want::new(1, false, 4), &caller(2), 2)
        .unwrap();
    let one = locked
        .wait_to_receive(&Want::new(1, false, 8), &caller(3), 3)
        .unwrap();
    let text = Text::from([77; 9]);
    assert_eq!(locked.send_small(1, &text, 8, &caller(4)), Sent::Done);
    let told = [two, narrow, one].map(|index| queue.look(index));
    assert_eq!(told, [waiter::AWAKE, waiter::POSTED, waiter::POSTED]);
    let mut got = Text::default();
    assert_eq!(
        locked.take(narrow, caller(2).token, &mut got),
        Taken::Failed(libc::E2BIG)
    );
    let small = Received::Small { mtype: 1, size: 8 };
    assert_eq!(
        locked.take(one, caller(3).token, &mut got),
        Taken::Received(small)
    );
    assert_eq!((got[0], queue.status().qnum), (77, 0));
    assert!(locked.give_up(two, caller(1).token));

    assert_eq!(locked.send_small(1, &text, 72, &caller(4)), Sent::Done);
    assert_eq!(locked.send_small(1, &text, 29, &caller(4)), Sent::Full);
    let held = locked.hold(90, 3, caller(5).token).unwrap();
    assert_eq!(locked.send(held, &caller(5)), Sent::Full);
    let sender = locked.wait_to_send(held, &caller(5), 5).unwrap();
    assert_eq!(
        locked.receive(&any(), &caller(6), &mut got),
        Received::Small { mtype: 1, size: 72 }
    );
    assert_eq!(queue.look(sender), waiter::POSTED);
    assert_eq!(locked.take(sender, caller(5).token, &mut got), Taken::Sent);
    assert_eq!((queue.status().qnum, queue.status().cbytes), (1, 90));
    locked.unlock();
}
