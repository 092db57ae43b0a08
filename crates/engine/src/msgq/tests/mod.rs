// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks of the engine of message queues: against a plain model of the kernel's ([`model`]), with a
//! death at each store ([`crash`]), with a peer that writes anything anywhere ([`hostile`]), and with
//! several threads in all orders ([`threads`]).

mod crash;
mod driver;
mod hostile;
mod model;
mod sound;
mod threads;

use super::*;
use crate::region::Caller;
use crate::testing::{Around, DAEMON, cases};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use vshmem_abi::region::waiter;
use vshmem_abi::token::Token;

/// A small queue, which is full by its region sooner than by its bytes.
const SMALL: Shape = Shape {
    messages: 8,
    held: 8,
    blocks: 8,
    held_blocks: 24,
    waiters: 12,
};

fn new_words(qbytes: u64) -> Vec<AtomicU64> {
    let mut words = Vec::new();
    words.resize_with(SMALL.words(), || AtomicU64::new(0));
    let queue = Queue::new(&words, SMALL).unwrap();
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

fn any_type() -> Want {
    Want::new(0, false, Want::CUT)
}

#[test]
fn short_and_long_texts_go_through_the_queue_whole() {
    let words = new_words(4000);
    let queue = Queue::new(&words, SMALL).unwrap();
    let around = Around::of(1);
    let mut locked = queue.try_lock(caller(1).token, &around).unwrap();
    let text: Text = std::array::from_fn(|place| place as u64 + 100);
    assert_eq!(locked.send_small(5, &text, 72, &caller(1)), Sent::Done);
    let long = locked.hold(1000, 6, caller(1).token).unwrap();
    for (place, (words, bytes)) in queue.pieces(long, 1000).enumerate() {
        assert_eq!(bytes, [512, 488][place]);
        for word in words {
            word.store(place as u64 + 9, Relaxed);
        }
    }
    assert_eq!(locked.send(long, &caller(1)), Sent::Done);
    assert_eq!((queue.status().qnum, queue.status().cbytes), (2, 1072));
    let mut got = Text::default();
    let six = Want::new(6, false, 999);
    assert_eq!(locked.receive(&six, &caller(2), &mut got), Received::TooBig);
    let low = Want::new(-6, false, 72);
    assert_eq!(
        locked.receive(&low, &caller(2), &mut got),
        Received::Small { mtype: 5, size: 72 }
    );
    assert_eq!(got, text);
    let Received::Large { message, .. } = locked.receive(&any_type(), &caller(2), &mut got) else {
        panic!("no long message");
    };
    for (place, (words, _)) in queue.pieces(message, 1000).enumerate() {
        assert!(words.iter().all(|w| w.load(Relaxed) == place as u64 + 9));
    }
    assert!(queue.is_awaited());
    locked.free(message, caller(2).token);
    assert_eq!(
        locked.receive(&any_type(), &caller(2), &mut got),
        Received::Nothing
    );
    locked.unlock();
    assert!(!queue.is_awaited());
    let status = queue.status();
    assert_eq!((status.qnum, status.cbytes), (0, 0));
    assert_eq!((status.lspid, status.lrpid), (41, 42));
    assert_eq!((queue.sent(), queue.received()), (2, 2));
    sound::check(&queue);
}

#[test]
fn a_region_without_room_takes_no_more_and_has_lost_nothing_when_there_is_room_again() {
    let words = new_words(4000);
    let queue = Queue::new(&words, SMALL).unwrap();
    let around = Around::of(1);
    let by = caller(1);
    let mut locked = queue.try_lock(by.token, &around).unwrap();
    // Blocks are used up before headers.
    let long: Vec<_> = std::iter::from_fn(|| locked.hold(2500, 1, by.token)).collect();
    assert_eq!(long.len() as u32, SMALL.all_blocks() / 5);
    let short: Vec<_> = std::iter::from_fn(|| locked.hold(8, 1, by.token)).collect();
    assert_eq!((long.len() + short.len()) as u32, SMALL.headers());
    let text = Text::default();
    assert_eq!(locked.send_small(1, &text, 8, &by), Sent::NoRoom);
    assert_eq!(
        locked.send(short[0], &caller(2)),
        Sent::NoRoom,
        "not its own"
    );
    let mut waits = 0;
    while locked
        .wait_to_receive(&Want::new(9, false, 0), &by, 0)
        .is_some()
    {
        waits += 1;
    }
    assert_eq!(waits, SMALL.waiters);
    assert_eq!(locked.wait_to_send(long[0], &by, 0), None);
    assert_eq!(locked.send(short[0], &by), Sent::Done);
    for message in long.into_iter().chain(short) {
        locked.free(message, by.token);
    }
    assert_eq!(locked.send_small(1, &text, 8, &by), Sent::Done);
    locked.unlock();
    assert_eq!(queue.status().qnum, 2);
    sound::check(&queue);
}

#[test]
fn the_message_of_a_number_is_shown_and_stays() {
    let words = new_words(4000);
    let queue = Queue::new(&words, SMALL).unwrap();
    let around = Around::of(1);
    let mut locked = queue.try_lock(caller(1).token, &around).unwrap();
    for size in [3, 5] {
        let sent = locked.send_small(9, &Text::default(), size, &caller(1));
        assert_eq!(sent, Sent::Done);
    }
    let seen = |number| locked.peek(number).map(|(_, mtype, size)| (mtype, size));
    assert_eq!((seen(0), seen(1)), (Some((9, 3)), Some((9, 5))));
    for number in [2, -1, i64::MAX, i64::MIN] {
        assert_eq!(seen(number), None);
    }
    locked.unlock();
    assert_eq!(queue.status().qnum, 2);
}

#[test]
fn a_look_at_a_queue_shows_what_is_in_it_and_who_waits() {
    use look::{Queued, Waits};
    let words = new_words(20);
    let queue = Queue::new(&words, SMALL).unwrap();
    let around = Around::of(1);
    let mut locked = queue.try_lock(caller(1).token, &around).unwrap();
    let text = Text::default();
    for (mtype, size) in [(3, 8), (4, 10)] {
        let sent = locked.send_small(mtype, &text, size, &caller(1));
        assert_eq!(sent, Sent::Done);
    }
    let message = locked.hold(9, 7, caller(2).token).unwrap();
    assert!(locked.wait_to_send(message, &caller(2), 0).is_some());
    let want = Want::new(-2, false, 100);
    assert!(locked.wait_to_receive(&want, &caller(3), 0).is_some());
    locked.unlock();

    let of = |mtype, size| Queued { mtype, size };
    let queued: Vec<_> = queue.queued(100).collect();
    assert_eq!(queued, [of(3, 8), of(4, 10)]);
    assert_eq!(queue.queued(1).count(), 1);
    let sleepers: Vec<_> = queue.sleepers().collect();
    for one in [
        ((42, 1), Waits::Send(of(7, 9))),
        ((43, 1), Waits::Receive(want)),
    ] {
        assert!(sleepers.contains(&one), "{sleepers:?}");
    }
    assert_eq!(sleepers.len(), 2);
}

#[test]
fn every_type_is_searched_as_the_kernel_searches_for_it() {
    let of = |mtype, except| {
        let want = Want::new(mtype, except, 0);
        (want.mtype, want.search)
    };
    assert_eq!(of(0, true), (0, Search::Any));
    assert_eq!(of(3, false), (3, Search::Equal));
    assert_eq!(of(3, true), (3, Search::NotEqual));
    assert_eq!(of(-3, true), (3, Search::UpTo));
    assert_eq!(of(i64::MIN, false), (i64::MAX, Search::UpTo));
}
