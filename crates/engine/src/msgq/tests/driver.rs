// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes that use a queue, one call at a time, and the steps that random tests are made of.

use super::sound;
use super::*;
use crate::region::recover::Dead;
use proptest::prelude::*;

/// Processes at a time.
pub const PROCESSES: usize = 4;

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    Send {
        process: usize,
        mtype: i64,
        size: u32,
    },
    Receive {
        process: usize,
        want: Want,
    },
    /// A waiter looks no longer, and sleeps.
    Sleep {
        nth: usize,
    },
    GiveUp {
        nth: usize,
    },
    Interrupt {
        nth: usize,
    },
    /// One who was served takes the result; `keeps`: and gives its record back afterwards, as who has a
    /// signal's handler run in between.
    Take {
        nth: usize,
        keeps: bool,
    },
    SetLimit {
        qbytes: u64,
    },
    LookAgain {
        domid: u32,
    },
    /// A process ends, and another one begins.
    Exit {
        process: usize,
    },
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Did {
    /// Nobody was there to do it, or there is nothing to tell.
    Nothing,
    Sent,
    TooBig,
    Got(sound::Text),
    /// The call waits, by this name.
    Waits(usize),
    /// It is in its line no more.
    Left(usize),
    /// It was too late for that.
    WasServed(usize),
    Took(usize, Result<Option<sound::Text>, i32>),
    /// It has to begin again, and has not.
    Again(usize),
    /// A process has ended.
    Ended(usize),
}

/// A call that waits, or was served and has not taken the result.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    pub name: usize,
    pub process: usize,
    pub index: u32,
}

/// Who uses the queue.
#[derive(Clone, Debug)]
pub struct Driver {
    /// Which process each place has: numbers that are never used again.
    pub lives: [usize; PROCESSES],
    pub waiters: Vec<Waiter>,
    next_life: usize,
    next_name: usize,
    next_text: u64,
}

/// Domain of a process.
pub fn domain_of(life: usize) -> u32 {
    1 + life as u32 % 2
}

pub fn token_of(life: usize) -> Token {
    Token::new(domain_of(life), 1 + life as u64)
}

fn caller_of(life: usize) -> Caller {
    Caller {
        token: token_of(life),
        who: Who::new(1000 + life as i32, domain_of(life)),
        now: 1000,
    }
}

/// What the text of message number `number` consists of; nothing if it has no text.
pub fn word_of_text(number: u64, size: u32) -> u64 {
    if size == 0 { 0 } else { 0x100 + number }
}

fn fill<C: Cell64>(queue: &Queue<'_, C>, message: u32, size: u32, word: u64) {
    for (piece, _) in queue.pieces(message, size) {
        piece.iter().for_each(|to| to.store(word, Relaxed));
    }
}

impl Driver {
    pub fn new() -> Self {
        Self {
            lives: std::array::from_fn(|place| place),
            waiters: Vec::new(),
            next_life: PROCESSES,
            next_name: 0,
            next_text: 0,
        }
    }

    /// Whether there is room for whatever one more call takes. What is put back for the dead may be more
    /// than the queue takes otherwise, and is in the place of what others are about to send.
    pub fn has_room<C: Cell64>(&self, queue: &Queue<'_, C>) -> bool {
        let (qnum, blocks) = halves(queue.load(msgq::QNUM));
        self.waiters.len() < 8 && qnum <= SMALL.messages && blocks <= SMALL.blocks
    }

    fn nth<C: Cell64>(
        &self,
        nth: usize,
        queue: &Queue<'_, C>,
        wanted: impl Fn(u64) -> bool,
    ) -> Option<Waiter> {
        let fit = |waiter: &&Waiter| wanted(queue.look(waiter.index));
        let fitting: Vec<_> = self.waiters.iter().filter(fit).collect();
        fitting.get(nth % fitting.len().max(1)).map(|of| **of)
    }

    fn forget(&mut self, name: usize) {
        self.waiters.retain(|waiter| waiter.name != name);
    }

    fn waits(&mut self, process: usize, index: u32) -> Did {
        let name = self.next_name;
        self.next_name += 1;
        self.waiters.push(Waiter {
            name,
            process,
            index,
        });
        Did::Waits(name)
    }

    /// Does `step`.
    pub fn take<C: Cell64>(&mut self, queue: &Queue<'_, C>, step: &Step) -> Did {
        let lives = self.lives;
        match *step {
            Step::Send {
                process,
                mtype,
                size,
            } => self.send(queue, lives[process], mtype, size),
            Step::Receive { process, want } => self.receive(queue, lives[process], &want),
            Step::Sleep { nth } => {
                if let Some(of) = self.nth(nth, queue, |post| post == waiter::AWAKE) {
                    assert!(queue.fall_asleep(of.index));
                }
                Did::Nothing
            }
            Step::GiveUp { nth } | Step::Interrupt { nth } => {
                let Some(of) = self.nth(nth, queue, |_| true) else {
                    return Did::Nothing;
                };
                let around = Around::of(domain_of(of.process));
                let token = token_of(of.process);
                let mut locked = queue.try_lock(token, &around).unwrap();
                let gives_up = matches!(step, Step::GiveUp { .. });
                let left = if gives_up {
                    locked.give_up(of.index, token)
                } else {
                    locked.interrupt(of.index, token, libc::EINTR)
                };
                locked.unlock();
                if !left {
                    return Did::WasServed(of.name);
                }
                if gives_up {
                    self.forget(of.name);
                }
                Did::Left(of.name)
            }
            Step::Take { nth, keeps } => {
                match self.nth(nth, queue, |post| post == waiter::POSTED) {
                    Some(of) => self.take_result(queue, of, keeps),
                    None => Did::Nothing,
                }
            }
            Step::SetLimit { qbytes } => {
                let around = Around::of(1);
                let mut locked = queue.try_lock(token_of(lives[0]), &around).unwrap();
                locked.set_limit(qbytes, 1000);
                locked.unlock();
                Did::Nothing
            }
            Step::LookAgain { domid } => {
                let around = Around::of(domid);
                let mut locked = queue.try_lock(token_of(lives[0]), &around).unwrap();
                locked.look_again(domid);
                locked.unlock();
                Did::Nothing
            }
            Step::Exit { process } => {
                self.bury(queue, lives[process], DAEMON);
                self.ended(lives[process]);
                Did::Ended(lives[process])
            }
        }
    }

    fn send<C: Cell64>(&mut self, queue: &Queue<'_, C>, life: usize, mtype: i64, size: u32) -> Did {
        let word = word_of_text(self.next_text, size);
        self.next_text += 1;
        let around = Around::of(domain_of(life));
        let caller = caller_of(life);
        let lock = || queue.try_lock(caller.token, &around).unwrap();
        let mut locked = lock();
        let (sent, mut held) = if size as usize <= INLINE {
            let sent = locked.send_small(mtype, &Text::from([word; INLINE / 8]), size, &caller);
            (sent, None)
        } else {
            let message = locked.hold(size, mtype, caller.token).expect("room");
            locked.unlock();
            fill(queue, message, size, word);
            locked = lock();
            (locked.send(message, &caller), Some(message))
        };
        assert_ne!(sent, Sent::NoRoom);
        if sent == Sent::Done {
            locked.unlock();
            return Did::Sent;
        }
        let message = *held.get_or_insert_with(|| {
            let message = locked.hold(size, mtype, caller.token).expect("room");
            fill(queue, message, size, word);
            message
        });
        let index = locked
            .wait_to_send(message, &caller, life as u32)
            .expect("room");
        locked.unlock();
        self.waits(life, index)
    }

    fn receive<C: Cell64>(&mut self, queue: &Queue<'_, C>, life: usize, want: &Want) -> Did {
        let around = Around::of(domain_of(life));
        let caller = caller_of(life);
        let mut locked = queue.try_lock(caller.token, &around).unwrap();
        let mut text = Text::default();
        match locked.receive(want, &caller, &mut text) {
            Received::Nothing => {
                let index = locked
                    .wait_to_receive(want, &caller, life as u32)
                    .expect("room");
                locked.unlock();
                self.waits(life, index)
            }
            Received::TooBig => {
                locked.unlock();
                Did::TooBig
            }
            received => {
                locked.unlock();
                Did::Got(self.got(queue, life, received, &text))
            }
        }
    }

    fn got<C: Cell64>(
        &self,
        queue: &Queue<'_, C>,
        life: usize,
        received: Received,
        text: &Text,
    ) -> sound::Text {
        match received {
            Received::Small { mtype, size } => {
                let words = &text[..size.div_ceil(8) as usize];
                assert!(words.iter().all(|word| *word == words[0]), "not whole");
                (mtype, size, words.first().copied().unwrap_or(0))
            }
            Received::Large { message, .. } => {
                let text = sound::text(queue, message);
                let around = Around::of(domain_of(life));
                let mut locked = queue.try_lock(token_of(life), &around).unwrap();
                locked.free(message, token_of(life));
                locked.unlock();
                text
            }
            Received::Nothing | Received::TooBig => unreachable!(),
        }
    }

    fn take_result<C: Cell64>(&mut self, queue: &Queue<'_, C>, of: Waiter, keeps: bool) -> Did {
        let around = Around::of(domain_of(of.process));
        let token = token_of(of.process);
        let mut text = Text::default();
        let mut locked = queue.try_lock(token, &around).unwrap();
        let taken = if keeps {
            locked.take_and_keep(of.index, token, &mut text)
        } else {
            locked.take(of.index, token, &mut text)
        };
        if let Taken::Again(Some(message)) = taken {
            locked.free(message, token);
        }
        locked.unlock();
        let did = match taken {
            Taken::Failed(errno) => Did::Took(of.name, Err(errno)),
            Taken::Again(_) => Did::Again(of.name),
            Taken::Sent => Did::Took(of.name, Ok(None)),
            Taken::Received(received) => {
                let got = self.got(queue, of.process, received, &text);
                Did::Took(of.name, Ok(Some(got)))
            }
        };
        if keeps {
            queue.collect(of.index);
        }
        self.forget(of.name);
        did
    }

    /// A process has ended.
    pub fn ended(&mut self, life: usize) {
        self.waiters.retain(|waiter| waiter.process != life);
        for place in self.lives.iter_mut().filter(|place| **place == life) {
            *place = self.next_life;
            self.next_life += 1;
        }
    }

    /// What `by`, a daemon, does in the queue when a process has ended; returns whom it wakes.
    pub fn bury<C: Cell64>(&self, queue: &Queue<'_, C>, life: usize, by: Token) -> Vec<u32> {
        let around = Around::of(by.domid());
        let dead = Dead::Client(token_of(life));
        queue.clean_up(by, dead, 5000, &around).unwrap();
        around.woken.into_inner()
    }
}

/// Any step.
pub fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![6 => 0..80u32, 2 => 500..1100u32, 1 => Just(0)];
    let room = prop_oneof![4 => Just(Want::CUT), 4 => Just(2000), 1 => 0..80u32];
    let want = (-3..4i64, any::<bool>(), room)
        .prop_map(|(mtype, except, room)| Want::new(mtype, except, room));
    let nth = any::<usize>;
    prop_oneof![
        12 => (0..PROCESSES, 1..4i64, size)
            .prop_map(|(process, mtype, size)| Step::Send { process, mtype, size }),
        10 => (0..PROCESSES, want).prop_map(|(process, want)| Step::Receive { process, want }),
        3 => nth().prop_map(|nth| Step::Sleep { nth }),
        2 => nth().prop_map(|nth| Step::GiveUp { nth }),
        1 => nth().prop_map(|nth| Step::Interrupt { nth }),
        6 => (nth(), any::<bool>()).prop_map(|(nth, keeps)| Step::Take { nth, keeps }),
        1 => (0..1500u64).prop_map(|qbytes| Step::SetLimit { qbytes }),
        1 => (1..3u32).prop_map(|domid| Step::LookAgain { domid }),
        1 => (0..PROCESSES).prop_map(|process| Step::Exit { process }),
    ]
}
