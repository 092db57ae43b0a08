// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads that send, receive, wait, sleep, serve and clear up at the same time, in all orders. A
//! wake-up that is lost shows as threads that wait for ever, which fails; so does a word that two come
//! to without having been told of each other: also those of texts, which are filled and read without the
//! lock.

use super::*;
use crate::explore::{Futex, Word, explore};
use crate::region::Surroundings;
use crate::region::recover::Dead;
use loom::sync::{Arc, Mutex};
use loom::thread::spawn;
use std::sync::atomic::AtomicUsize;
use vshmem_abi::region;

const TINY: Shape = Shape {
    messages: 2,
    held: 2,
    blocks: 1,
    held_blocks: 1,
    waiters: 2,
};

/// A text that takes a block.
const LONG: u32 = 80;

struct World {
    words: Vec<Word>,
    futexes: Vec<Futex>,
    /// As in the models of sets: three that try for the lock show nothing that two do not.
    turn: Mutex<()>,
    /// How many have begun to wait, and were woken.
    waits: AtomicUsize,
    wakes: AtomicUsize,
}

impl Surroundings for World {
    fn domid(&self) -> u32 {
        1
    }

    fn is_dead(&self, _: u32) -> bool {
        false
    }

    fn wake(&self, waiter: u32) {
        self.wakes.fetch_add(1, Relaxed);
        self.futexes[waiter as usize].wake();
    }
}

/// A call that is done, or waits at this index.
type Begun<T> = Result<T, u32>;

impl World {
    /// A queue that takes so many bytes.
    fn new(qbytes: u64) -> Arc<Self> {
        let mut shared = vec![region::LOCK];
        for index in 0..TINY.waiters as usize {
            let at = TINY.waiters_at() + index * waiter::WORDS;
            shared.extend([at + waiter::STATE, at + waiter::POST]);
        }
        let word = |at| Word::new(shared.contains(&at));
        let world = Self {
            words: (0..TINY.words()).map(word).collect(),
            futexes: (0..TINY.waiters).map(|_| Futex::default()).collect(),
            turn: Mutex::new(()),
            waits: AtomicUsize::new(0),
            wakes: AtomicUsize::new(0),
        };
        world.queue().init(7);
        world.queue().set_qbytes(qbytes);
        Arc::new(world)
    }

    fn queue(&self) -> Queue<'_, Word> {
        Queue::new(&self.words, TINY).unwrap()
    }

    fn waits(&self, index: Option<u32>) -> u32 {
        self.waits.fetch_add(1, Relaxed);
        index.expect("room")
    }

    /// Does something under the lock.
    fn locked<T>(&self, serial: u64, work: impl FnOnce(&mut Locked<'_, '_, Word, Self>) -> T) -> T {
        let _turn = self.turn.lock().unwrap();
        let queue = self.queue();
        let mut locked = loop {
            if let Some(locked) = queue.try_lock(caller(serial).token, self) {
                break locked;
            }
        };
        let done = work(&mut locked);
        locked.unlock();
        done
    }

    fn begin_send(&self, serial: u64, mtype: i64, size: u32) -> Begun<()> {
        let by = caller(serial);
        let message = self.locked(serial, |locked| {
            locked.hold(size, mtype, by.token).expect("room")
        });
        for (words, _) in self.queue().pieces(message, size) {
            words.iter().for_each(|word| word.store(serial, Relaxed));
        }
        self.locked(serial, |locked| match locked.send(message, &by) {
            Sent::Done => Ok(()),
            Sent::Full => Err(self.waits(locked.wait_to_send(message, &by, 0))),
            Sent::NoRoom => panic!("no room"),
        })
    }

    fn begin_receive(&self, serial: u64, mtype: i64) -> Begun<u64> {
        let want = Want::new(mtype, false, Want::CUT);
        let mut text = Text::default();
        let begun = self.locked(serial, |locked| {
            match locked.receive(&want, &caller(serial), &mut text) {
                Received::Nothing => {
                    Err(self.waits(locked.wait_to_receive(&want, &caller(serial), 0)))
                }
                received => Ok(received),
            }
        })?;
        Ok(self.got(serial, begun, &text))
    }

    /// Who sent what was received.
    fn got(&self, serial: u64, received: Received, text: &Text) -> u64 {
        match received {
            Received::Small { .. } => text[0],
            Received::Large { message, size, .. } => {
                let mut senders = Vec::new();
                for (words, _) in self.queue().pieces(message, size) {
                    senders.extend(words.iter().map(|word| word.load(Relaxed)));
                }
                senders.dedup();
                assert_eq!(senders.len(), 1, "not whole");
                self.locked(serial, |locked| locked.free(message, caller(serial).token));
                senders[0]
            }
            Received::Nothing | Received::TooBig => unreachable!(),
        }
    }

    /// Sleeps until told, and takes what came of the wait: 0 for who has sent. Who is told that the queue
    /// is gone takes nothing.
    fn finish(&self, serial: u64, index: u32) -> Result<u64, Taken> {
        let queue = self.queue();
        while queue.look(index) <= waiter::ASLEEP && queue.fall_asleep(index) {
            let still = || queue.post(index).load(Relaxed) == waiter::ASLEEP;
            self.futexes[index as usize].wait(still);
        }
        match queue.look(index) {
            waiter::GONE => return Err(Taken::Failed(libc::EIDRM)),
            told => assert_eq!(told, waiter::POSTED),
        }
        let mut text = Text::default();
        let token = caller(serial).token;
        match self.locked(serial, |locked| locked.take(index, token, &mut text)) {
            Taken::Sent => Ok(0),
            Taken::Received(received) => Ok(self.got(serial, received, &text)),
            other => Err(other),
        }
    }

    fn send(&self, serial: u64, mtype: i64, size: u32) {
        if let Err(index) = self.begin_send(serial, mtype, size) {
            assert_eq!(self.finish(serial, index), Ok(0));
        }
    }

    fn receive(&self, serial: u64, mtype: i64) -> u64 {
        let waits = |index| self.finish(serial, index).expect("a message");
        self.begin_receive(serial, mtype).unwrap_or_else(waits)
    }

    fn check_empty(&self) {
        sound::check(&self.queue());
        let status = self.queue().status();
        assert_eq!((status.qnum, status.cbytes), (0, 0));
        // Nobody is woken twice, or without waiting.
        assert!(self.wakes.load(Relaxed) <= self.waits.load(Relaxed));
    }
}

#[test]
fn a_receiver_has_the_whole_message_whenever_it_is_sent() {
    for size in [8, LONG] {
        explore("one message", 3, move || {
            let world = World::new(1000);
            let own = world.clone();
            let receives = spawn(move || own.receive(1, 0));
            world.send(2, 5, size);
            assert_eq!(receives.join().unwrap(), 2);
            world.check_empty();
        });
    }
}

#[test]
fn a_sender_that_waits_is_let_in_whenever_there_is_room() {
    explore("room", 3, || {
        let world = World::new(LONG.into());
        world.send(3, 1, 8);
        let own = world.clone();
        let sends = spawn(move || own.send(1, 1, LONG));
        assert_eq!(world.receive(2, 1), 3);
        sends.join().unwrap();
        assert_eq!(world.receive(2, 1), 1);
        world.check_empty();
    });
}

#[test]
fn of_two_senders_each_message_is_received_once() {
    for qbytes in [8, 16] {
        explore("two senders", 2, move || {
            let world = World::new(qbytes);
            let senders = [1, 2].map(|serial| {
                let own = world.clone();
                spawn(move || own.send(serial, 1, 8))
            });
            let mut got = [world.receive(3, 0), world.receive(3, 0)];
            got.sort_unstable();
            assert_eq!(got, [1, 2]);
            for sends in senders {
                sends.join().unwrap();
            }
            world.check_empty();
        });
    }
}

#[test]
fn of_two_receivers_each_has_the_message_of_its_type() {
    explore("two receivers", 2, || {
        let world = World::new(1000);
        let receivers = [1, 2].map(|mtype| {
            let own = world.clone();
            spawn(move || own.receive(mtype, mtype as i64))
        });
        world.send(3, 2, 8);
        world.send(4, 1, 8);
        let got = receivers.map(|thread| thread.join().unwrap());
        assert_eq!(got, [4, 3]);
        world.check_empty();
    });
}

#[test]
fn who_has_to_look_again_has_been_given_nothing() {
    explore("look again", 3, || {
        let world = World::new(1000);
        let index = world.begin_receive(1, 0).unwrap_err();
        let own = world.clone();
        let waits = spawn(move || own.finish(1, index));
        let own = world.clone();
        let changes = spawn(move || own.locked(9, |locked| locked.look_again(1)));
        world.send(2, 1, 8);
        changes.join().unwrap();
        match waits.join().unwrap() {
            Ok(sender) => assert_eq!(sender, 2),
            Err(taken) => {
                assert_eq!(taken, Taken::Again(None));
                assert_eq!(world.receive(1, 0), 2);
            }
        }
        world.check_empty();
    });
}

#[test]
fn a_receiver_of_a_queue_that_goes_has_the_message_or_is_told() {
    explore("gone", 3, || {
        let world = World::new(1000);
        let index = world.begin_receive(1, 0).unwrap_err();
        let own = world.clone();
        let waits = spawn(move || own.finish(1, index));
        let own = world.clone();
        let ends = spawn(move || {
            if own.queue().post_gone(index) {
                own.wake(index);
            }
        });
        world.send(2, 1, 8);
        ends.join().unwrap();
        match waits.join().unwrap() {
            Ok(sender) => assert_eq!(sender, 2),
            Err(taken) => assert_eq!(taken, Taken::Failed(libc::EIDRM)),
        }
        assert!(world.wakes.load(Relaxed) <= 1);
    });
}

#[test]
fn a_receiver_that_was_served_before_the_queue_went_has_the_message() {
    explore("served, then gone", 3, || {
        let world = World::new(1000);
        let index = world.begin_receive(1, 0).unwrap_err();
        let own = world.clone();
        let waits = spawn(move || own.finish(1, index));
        world.send(2, 1, 8);
        assert!(!world.queue().post_gone(index));
        assert_eq!(waits.join().unwrap(), Ok(2));
    });
}

#[test]
fn what_was_handed_to_the_dead_goes_to_the_next() {
    explore("the dead", 2, || {
        let world = World::new(1000);
        world.begin_receive(1, 0).unwrap_err();
        let index = world.begin_receive(2, 0).unwrap_err();
        let own = world.clone();
        let waits = spawn(move || own.finish(2, index));
        let own = world.clone();
        let clears = spawn(move || {
            let dead = Dead::Client(caller(1).token);
            while own.queue().clean_up(DAEMON, dead, 1, &*own).is_err() {}
        });
        world.send(3, 1, 8);
        clears.join().unwrap();
        assert_eq!(waits.join().unwrap(), Ok(3));
        world.check_empty();
    });
}
