// SPDX-License-Identifier: MIT OR Apache-2.0
//! The engine beside a plain model of the kernel's `ipc/msg.c`, over random sequences of calls.

use super::driver::{Did, Driver, Step, domain_of, step, word_of_text};
use super::sound::{self, Seen};
use super::*;
use proptest::prelude::*;

/// A message, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    text: sound::Text,
    seq: u64,
}

/// What a call that waits is about.
#[derive(Clone, Copy, Debug)]
enum What {
    Receive(Want),
    /// And whether its permission has to be looked at.
    Send(Message, bool),
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    name: usize,
    life: usize,
    what: What,
}

/// What a call that waited has come to.
#[derive(Clone, Copy, Debug)]
enum Came {
    Failed(i32),
    Again,
    Sent,
    Got(Message),
}

/// A queue as the kernel would have it, in a region of the shape of the tests.
#[derive(Default)]
struct Model {
    messages: Vec<Message>,
    waiting: Vec<Waiting>,
    results: Vec<(Waiting, Came)>,
    qbytes: u64,
    next_seq: u64,
    next_text: u64,
    next_name: usize,
}

fn size_of(message: &Message) -> u32 {
    message.text.1
}

impl Model {
    fn fits(&self, size: u32) -> bool {
        let bytes: u64 = self.messages.iter().map(|m| u64::from(size_of(m))).sum();
        let blocks: u32 = self.messages.iter().map(|m| blocks_for(size_of(m))).sum();
        bytes + u64::from(size) <= self.qbytes
            && (self.messages.len() as u64) < self.qbytes
            && self.messages.len() < SMALL.messages as usize
            && blocks + blocks_for(size) <= SMALL.blocks
    }

    fn end(&mut self, name: usize, came: Came) {
        let place = self.waiting.iter().position(|w| w.name == name).unwrap();
        let waiting = self.waiting.remove(place);
        self.results.push((waiting, came));
    }

    fn deliver(&mut self, mut message: Message) {
        message.seq = self.next_seq;
        self.next_seq += 1;
        for waiting in self.waiting.clone() {
            let What::Receive(want) = waiting.what else {
                continue;
            };
            if !want.fits(message.text.0) {
                continue;
            }
            if size_of(&message) > want.room {
                self.end(waiting.name, Came::Failed(libc::E2BIG));
                continue;
            }
            return self.end(waiting.name, Came::Got(message));
        }
        self.messages.push(message);
    }

    fn find(&self, want: &Want) -> Option<usize> {
        let fitting = self.messages.iter().enumerate();
        let mut fitting = fitting.filter(|(_, m)| want.fits(m.text.0));
        match want.search {
            Search::UpTo => fitting.min_by_key(|(place, m)| (m.text.0, *place)),
            _ => fitting.next(),
        }
        .map(|(place, _)| place)
    }

    fn admit(&mut self) {
        for waiting in self.waiting.clone() {
            match waiting.what {
                What::Send(message, check) if self.fits(size_of(&message)) => {
                    if check {
                        self.end(waiting.name, Came::Again);
                    } else {
                        self.end(waiting.name, Came::Sent);
                        self.deliver(message);
                    }
                }
                _ => {}
            }
        }
    }

    fn wait(&mut self, life: usize, what: What) -> Did {
        let name = self.next_name;
        self.next_name += 1;
        self.waiting.push(Waiting { name, life, what });
        Did::Waits(name)
    }

    fn exit(&mut self, life: usize) {
        self.waiting.retain(|waiting| waiting.life != life);
        let (gone, left) = std::mem::take(&mut self.results)
            .into_iter()
            .partition(|(waiting, _)| waiting.life == life);
        self.results = left;
        let gone: Vec<(Waiting, Came)> = gone;
        let mut back = false;
        for (_, came) in gone {
            if let Came::Got(message) = came {
                let place = self.messages.partition_point(|m| m.seq < message.seq);
                self.messages.insert(place, message);
                back = true;
            }
        }
        if !back {
            return;
        }
        for waiting in self.waiting.clone() {
            if let What::Receive(want) = waiting.what
                && let Some(place) = self.find(&want)
            {
                if size_of(&self.messages[place]) > want.room {
                    self.end(waiting.name, Came::Failed(libc::E2BIG));
                } else {
                    let message = self.messages.remove(place);
                    self.end(waiting.name, Came::Got(message));
                }
            }
        }
        self.admit();
    }

    /// Does what the engine did, which says whose turn it was, and says what has to have come of it.
    fn take(&mut self, step: &Step, lives: &[usize], did: &Did) -> Did {
        match *step {
            Step::Send {
                process,
                mtype,
                size,
            } => {
                let word = word_of_text(self.next_text, size);
                self.next_text += 1;
                let message = Message {
                    text: (mtype, size, word),
                    seq: 0,
                };
                if !self.fits(size) {
                    return self.wait(lives[process], What::Send(message, false));
                }
                self.deliver(message);
                Did::Sent
            }
            Step::Receive { process, want } => match self.find(&want) {
                None => self.wait(lives[process], What::Receive(want)),
                Some(place) if size_of(&self.messages[place]) > want.room => Did::TooBig,
                Some(place) => {
                    let message = self.messages.remove(place);
                    self.admit();
                    Did::Got(message.text)
                }
            },
            Step::Sleep { .. } => Did::Nothing,
            Step::GiveUp { .. } | Step::Interrupt { .. } => match *did {
                Did::Left(name) | Did::WasServed(name) => {
                    if self.results.iter().any(|(w, _)| w.name == name) {
                        return Did::WasServed(name);
                    }
                    self.end(name, Came::Failed(libc::EINTR));
                    if matches!(step, Step::GiveUp { .. }) {
                        self.results.pop();
                    }
                    Did::Left(name)
                }
                _ => Did::Nothing,
            },
            Step::Take { .. } => match *did {
                Did::Took(name, _) | Did::Again(name) => {
                    let place = self.results.iter().position(|(w, _)| w.name == name);
                    match self.results.remove(place.expect("served")).1 {
                        Came::Failed(errno) => Did::Took(name, Err(errno)),
                        Came::Again => Did::Again(name),
                        Came::Sent => Did::Took(name, Ok(None)),
                        Came::Got(message) => Did::Took(name, Ok(Some(message.text))),
                    }
                }
                _ => {
                    assert!(self.results.is_empty());
                    Did::Nothing
                }
            },
            Step::SetLimit { qbytes } => {
                self.qbytes = qbytes;
                self.admit();
                Did::Nothing
            }
            Step::LookAgain { domid } => {
                for waiting in self.waiting.clone() {
                    if domain_of(waiting.life) != domid {
                        continue;
                    }
                    match waiting.what {
                        What::Receive(_) => self.end(waiting.name, Came::Again),
                        What::Send(..) => {
                            let own = self.waiting.iter_mut().find(|w| w.name == waiting.name);
                            if let What::Send(_, check) = &mut own.unwrap().what {
                                *check = true;
                            }
                        }
                    }
                }
                Did::Nothing
            }
            Step::Exit { process } => {
                self.exit(lives[process]);
                Did::Ended(lives[process])
            }
        }
    }
}

#[test]
fn random_calls_come_to_what_a_plain_queue_comes_to() {
    let config = ProptestConfig {
        cases: cases(3000),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let sequences = prop::collection::vec(step(), 1..60);
    proptest!(config, |(steps in sequences, qbytes in prop_oneof![Just(1200u64), 0..300u64])| {
        let words = new_words(qbytes);
        let queue = Queue::new(&words, SMALL).unwrap();
        let mut driver = Driver::new();
        let mut model = Model { qbytes, ..Model::default() };
        for step in &steps {
            if !driver.has_room(&queue) && matches!(step, Step::Send { .. } | Step::Receive { .. }) {
                continue;
            }
            let lives = driver.lives;
            let did = driver.take(&queue, step);
            let wanted = model.take(step, &lives, &did);
            prop_assert_eq!(&did, &wanted, "{:?}", step);
            sound::check(&queue);
            let seen = Seen::of(&queue);
            let messages: Vec<_> = model.messages.iter().map(|m| m.text).collect();
            prop_assert_eq!(&seen.messages, &messages);
            prop_assert_eq!(seen.waiting.len(), model.waiting.len());
            prop_assert_eq!(seen.results.len(), model.results.len());
            prop_assert!(seen.held.is_empty());
        }
    });
}
