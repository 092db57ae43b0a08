// SPDX-License-Identifier: MIT OR Apache-2.0
//! The engine and the plain model of the kernel's do the same, step by step.

use super::driver::{Did, Driver, PROCESSES, Step, step, token_of, who_of};
use super::kernel::Kernel;
use super::*;
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A driver of the engine beside the model.
struct Both {
    words: Vec<AtomicU64>,
    driver: Driver,
    kernel: Kernel,
}

impl Both {
    fn new() -> Self {
        Self {
            words: new_words(SMALL),
            driver: Driver::new(),
            kernel: Kernel::new(SMALL.sems as usize),
        }
    }

    fn set(&self) -> Set<'_, AtomicU64> {
        Set::new(&self.words, SMALL).unwrap()
    }

    /// Records that sleepers, and those who have not taken their results, hold.
    fn has_room(&self, ops: &[Op]) -> bool {
        let records = self.driver.waiters.len() < SMALL.waiters as usize;
        let is_long = |index: u32| {
            let state = self.set().load(self.set().waiter(index) + waiter::STATE);
            (state >> 16) as u16 as usize > waiter::INLINE
        };
        let longs = self.driver.waiters.iter().filter(|of| is_long(of.index));
        records && (ops.len() <= waiter::INLINE || longs.count() < SMALL.longs as usize)
    }

    /// Takes a step; what came of it.
    fn take(&mut self, step: &Step) -> Did {
        let before = self.driver.clone();
        let with_undo = |life: usize| self.kernel.adjustments(life).is_some();
        let undos = before.lives.iter().filter(|&&life| with_undo(life)).count();
        let room = match step {
            Step::Semop { ops, .. } => self.has_room(ops),
            _ => true,
        };
        let set = Set::new(&self.words, SMALL).unwrap();
        let did = self.driver.take(&set, step);
        let now = self.driver.now;
        match (step, &did) {
            (Step::Semop { process, .. }, Did::NoUndo) => {
                assert!(!with_undo(before.lives[*process]) && undos == SMALL.undos as usize);
            }
            (Step::Semop { process, ops }, did) => {
                let name = match did {
                    Did::Waits(name) => *name,
                    _ => usize::MAX,
                };
                let outcome = self.kernel.semop(name, before.lives[*process], ops, now);
                match (outcome, did) {
                    (Outcome::Blocked(_), Did::Waits(_)) => assert!(room),
                    (Outcome::Blocked(_), Did::NoRoom) => {
                        assert!(!room);
                        self.kernel.give_up(|name, _| name == usize::MAX);
                    }
                    (outcome, did) => assert_eq!(*did, Did::Returned(outcome)),
                }
            }
            (Step::GiveUp { .. }, Did::Left(name)) => self.kernel.give_up(|of, _| of == *name),
            (Step::Interrupt { .. }, Did::Left(name)) => {
                self.kernel.give_up(|of, _| of == *name);
                self.kernel.results.insert(*name, libc::EINTR);
            }
            (_, Did::WasServed(name)) => assert!(self.kernel.results.contains_key(name)),
            (_, Did::Took(name, result)) => {
                assert_eq!(self.kernel.results.remove(name), Some(*result));
            }
            (
                &Step::SetValue {
                    process,
                    num,
                    value,
                },
                _,
            ) => {
                let life = before.lives[process];
                self.kernel.set_value(life, num as usize, value, now);
            }
            (Step::SetAll { process, values }, _) => {
                self.kernel.set_all(before.lives[*process], values, now);
            }
            (_, Did::Ended(life)) => {
                self.kernel.exit(*life, now);
                let of_dead = before.waiters.iter().filter(|of| of.process == *life);
                for of in of_dead {
                    self.kernel.results.remove(&of.name);
                }
            }
            _ => {}
        }
        self.compare();
        did
    }

    fn compare(&self) {
        let set = self.set();
        sound::check(&set);
        let around = Around::of(1);
        let locked = set.try_lock(DAEMON, &around).unwrap();
        for num in 0..SMALL.sems {
            let at = num as usize;
            assert_eq!(locked.get_value(num), self.kernel.value(at), "value {num}");
            let setter = self.kernel.setter(at).map_or(0, |life| who_of(life).0);
            assert_eq!(set.load(set.sem(num)) >> 16, setter, "pid {num}");
            for for_zero in [false, true] {
                let count = locked.get_count(num, for_zero) as usize;
                assert_eq!(count, self.kernel.count(at, for_zero), "{num} {for_zero}");
            }
        }
        for life in self.driver.lives {
            let record = (0..SMALL.undos).find(|&r| locked.is_undo_of(r, token_of(life)));
            let own = record.map(|r| {
                (0..SMALL.sems)
                    .map(|num| locked.adjustment(r, num))
                    .collect()
            });
            assert_eq!(
                own.as_ref(),
                self.kernel.adjustments(life),
                "undo of {life}"
            );
        }
        locked.unlock();
        assert_eq!(set.times(), (self.kernel.otime, self.kernel.ctime));
        for of in &self.driver.waiters {
            let result = (set.look(of.index) == waiter::POSTED).then(|| set.result(of.index));
            let expected = self.kernel.results.get(&of.name).copied();
            assert_eq!(result, expected, "waiter {of:?}");
        }
    }
}

#[test]
fn any_sequence_of_calls_does_what_the_kernel_would_do() {
    // What the sequences have come to, so that it is known that they come to something.
    let [served, failed, no_room, no_undo] = [const { AtomicUsize::new(0) }; 4];
    let count = |counter: &AtomicUsize| counter.fetch_add(1, Ordering::Relaxed);
    let sequences = prop::collection::vec(step(), 1..60);
    let config = ProptestConfig {
        cases: cases(3000),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(steps in sequences)| {
        let mut both = Both::new();
        for step in &steps {
            match both.take(step) {
                Did::Took(_, 0) => count(&served),
                Did::Took(_, error) if error != libc::EINTR => count(&failed),
                Did::NoRoom => count(&no_room),
                Did::NoUndo => count(&no_undo),
                _ => 0,
            };
        }
    });
    let counts = [served, failed, no_room, no_undo].map(AtomicUsize::into_inner);
    println!("served, failed while waiting, no room, no undo record: {counts:?}");
    assert!(
        cfg!(miri) || counts.iter().all(|&count| count > 10),
        "{counts:?}"
    );
}

#[test]
fn calls_of_several_operations_are_served_in_the_order_of_arrival() {
    let mut both = Both::new();
    let mut semop = |process: usize, ops: &[(u16, i16)]| {
        let ops = ops.iter().map(|&(num, change)| Op::new(num, change, 0));
        let step = Step::Semop {
            process,
            ops: ops.collect(),
        };
        both.take(&step)
    };
    assert_eq!(semop(0, &[(0, -2)]), Did::Waits(0));
    assert_eq!(semop(1, &[(0, -1), (1, -1)]), Did::Waits(1));
    assert_eq!(semop(2, &[(0, -1)]), Did::Waits(2));
    assert_eq!(semop(3, &[(0, 1)]), Did::Returned(Outcome::Done));
    assert_eq!(semop(3, &[(0, 1), (1, 1)]), Did::Returned(Outcome::Done));
    const { assert!(PROCESSES == 4) };
    let left: Vec<_> = both.kernel.results.keys().copied().collect();
    assert_eq!(left, [1, 2]);
}
