// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes that use a set, one call at a time, and the steps that random tests are made of.

use super::*;
use proptest::prelude::*;

/// Processes at a time.
pub const PROCESSES: usize = 4;

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    Semop {
        process: usize,
        ops: Vec<Op>,
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
    /// One who was served takes the result.
    Collect {
        nth: usize,
    },
    SetValue {
        process: usize,
        num: u32,
        value: i32,
    },
    SetAll {
        process: usize,
        values: Vec<u16>,
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
    /// The call returned.
    Returned(Outcome),
    /// The call waits, by this name.
    Waits(usize),
    /// The call would wait, and there is no room.
    NoRoom,
    /// There is no undo record for it.
    NoUndo,
    /// It is in the queue no more.
    Left(usize),
    /// It was too late for that.
    WasServed(usize),
    /// Result that a waiter took.
    Took(usize, i32),
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

/// Who uses the set.
#[derive(Clone, Debug)]
pub struct Driver {
    /// Which process each place has: numbers that are never used again.
    pub lives: [usize; PROCESSES],
    pub waiters: Vec<Waiter>,
    pub now: i64,
    next_life: usize,
    next_name: usize,
}

/// Domain of a process.
pub fn domain_of(life: usize) -> u32 {
    1 + life as u32 % 2
}

pub fn token_of(life: usize) -> Token {
    Token::new(domain_of(life), 1 + life as u64)
}

pub fn who_of(life: usize) -> Who {
    Who::new(pid_of(life), domain_of(life))
}

fn pid_of(life: usize) -> i32 {
    1000 + life as i32
}

impl Driver {
    pub fn new() -> Self {
        Self {
            lives: std::array::from_fn(|place| place),
            waiters: Vec::new(),
            now: 1000,
            next_life: PROCESSES,
            next_name: 0,
        }
    }

    fn nth<C: Cell64>(
        &self,
        nth: usize,
        set: &Set<'_, C>,
        wanted: impl Fn(u64) -> bool,
    ) -> Option<Waiter> {
        let fit = |waiter: &&Waiter| wanted(set.look(waiter.index));
        let fitting: Vec<_> = self.waiters.iter().filter(fit).collect();
        fitting.get(nth % fitting.len().max(1)).map(|of| **of)
    }

    fn forget(&mut self, name: usize) {
        self.waiters.retain(|waiter| waiter.name != name);
    }

    /// Does `step`.
    pub fn take<C: Cell64>(&mut self, set: &Set<'_, C>, step: &Step) -> Did {
        self.now += 1;
        let lives = self.lives;
        match step {
            Step::Semop { process, ops } => self.semop(set, lives[*process], ops),
            &Step::Sleep { nth } => {
                let awake = |post| post == waiter::AWAKE;
                if let Some(of) = self.nth(nth, set, awake) {
                    assert!(set.fall_asleep(of.index));
                }
                Did::Nothing
            }
            &Step::GiveUp { nth } => {
                let Some(of) = self.nth(nth, set, |_| true) else {
                    return Did::Nothing;
                };
                let around = Around::of(domain_of(of.process));
                let mut locked = set.try_lock(token_of(of.process), &around).unwrap();
                let gone = locked.give_up(of.index, token_of(of.process));
                locked.unlock();
                if !gone {
                    return Did::WasServed(of.name);
                }
                self.forget(of.name);
                Did::Left(of.name)
            }
            &Step::Interrupt { nth } => {
                let Some(of) = self.nth(nth, set, |_| true) else {
                    return Did::Nothing;
                };
                let around = Around::of(domain_of(of.process));
                let mut locked = set.try_lock(token_of(of.process), &around).unwrap();
                let ended = locked.interrupt(of.index, token_of(of.process), libc::EINTR);
                locked.unlock();
                if ended {
                    Did::Left(of.name)
                } else {
                    Did::WasServed(of.name)
                }
            }
            &Step::Collect { nth } => match self.nth(nth, set, |post| post == waiter::POSTED) {
                Some(of) => {
                    let result = set.collect(of.index);
                    self.forget(of.name);
                    Did::Took(of.name, result)
                }
                None => Did::Nothing,
            },
            &Step::SetValue {
                process,
                num,
                value,
            } => {
                let life = lives[process];
                let around = Around::of(domain_of(life));
                let mut locked = set.try_lock(token_of(life), &around).unwrap();
                locked.set_value(num, value, who_of(life), self.now);
                locked.unlock();
                Did::Nothing
            }
            Step::SetAll { process, values } => {
                let life = lives[*process];
                let around = Around::of(domain_of(life));
                let mut locked = set.try_lock(token_of(life), &around).unwrap();
                locked.set_all(values, who_of(life), self.now);
                locked.unlock();
                Did::Nothing
            }
            &Step::Exit { process } => {
                self.exit(set, lives[process]);
                Did::Ended(lives[process])
            }
        }
    }

    fn semop<C: Cell64>(&mut self, set: &Set<'_, C>, life: usize, ops: &[Op]) -> Did {
        let around = Around::of(domain_of(life));
        let mut locked = set.try_lock(token_of(life), &around).unwrap();
        let mut record = None;
        if ops.iter().any(|op| op.has(SEM_UNDO)) {
            record = locked.undo_record(token_of(life), life as u32);
            if record.is_none() {
                locked.unlock();
                return Did::NoUndo;
            }
        }
        let call = Call {
            caller: Caller {
                token: token_of(life),
                who: who_of(life),
                now: self.now,
            },
            record,
        };
        let did = match locked.semop(ops, &call) {
            Outcome::Blocked(place) => match locked.wait(ops, &call, life as u32, place) {
                Some(index) => {
                    let name = self.next_name;
                    self.next_name += 1;
                    self.waiters.push(Waiter {
                        name,
                        process: life,
                        index,
                    });
                    Did::Waits(name)
                }
                None => Did::NoRoom,
            },
            outcome => Did::Returned(outcome),
        };
        locked.unlock();
        did
    }

    /// What `vshmemd` does when a process has ended, the domain's own or, where it died over it,
    /// another one.
    pub fn exit<C: Cell64>(&mut self, set: &Set<'_, C>, life: usize) {
        self.bury(set, life, DAEMON);
        self.waiters.retain(|waiter| waiter.process != life);
        for place in self.lives.iter_mut().filter(|place| **place == life) {
            *place = self.next_life;
            self.next_life += 1;
        }
    }

    /// The part of [`Self::exit`] that `by` does in the set; returns whom it wakes.
    pub fn bury<C: Cell64>(&self, set: &Set<'_, C>, life: usize, by: Token) -> Vec<u32> {
        let around = Around::of(by.domid());
        let (token, pid) = (token_of(life), pid_of(life));
        set.clean_up(by, Dead::Client(token), self.now, &around)
            .unwrap();
        set.apply_undo(by, token, pid, self.now, &around).unwrap();
        around.woken.into_inner()
    }
}

fn op() -> impl Strategy<Value = Op> {
    let change = prop_oneof![
        4 => Just(0i16),
        12 => -2..=2i16,
        1 => prop_oneof![Just(i16::MAX), Just(i16::MIN), Just(-32767)],
    ];
    let flags = prop_oneof![
        8 => Just(0),
        2 => Just(NOWAIT),
        4 => Just(SEM_UNDO),
        1 => Just(NOWAIT | SEM_UNDO),
    ];
    (0..SMALL.sems as u16, change, flags)
        .prop_map(|(num, change, flags)| Op::new(num, change, flags))
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop_oneof![
        8 => prop::collection::vec(op(), 1),
        6 => prop::collection::vec(op(), 2..=5),
        // More than fit into a waiter's record.
        1 => prop::collection::vec(op(), waiter::INLINE + 1..=SMALL.ops as usize),
    ]
}

/// Any step.
pub fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![6 => 0..4i32, 1 => Just(32767)];
    let four = prop::collection::vec(0..3u16, SMALL.sems as usize);
    prop_oneof![
        12 => (0..PROCESSES, ops()).prop_map(|(process, ops)| Step::Semop { process, ops }),
        3 => any::<usize>().prop_map(|nth| Step::Sleep { nth }),
        2 => any::<usize>().prop_map(|nth| Step::GiveUp { nth }),
        1 => any::<usize>().prop_map(|nth| Step::Interrupt { nth }),
        4 => any::<usize>().prop_map(|nth| Step::Collect { nth }),
        2 => (0..PROCESSES, 0..SMALL.sems, value)
            .prop_map(|(process, num, value)| Step::SetValue { process, num, value }),
        1 => (0..PROCESSES, four).prop_map(|(process, values)| Step::SetAll { process, values }),
        1 => (0..PROCESSES).prop_map(|process| Step::Exit { process }),
    ]
}
