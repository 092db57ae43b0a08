// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads that take the lock, wait, sleep, serve, give up and clear up at the same time, in all
//! orders. A wake-up that is lost shows as threads that wait for ever, which fails; so does a word
//! that two come to without having been told of each other.

use super::*;
use crate::explore::{Futex, Guarded, Word, explore};
use loom::sync::atomic::{AtomicU64 as Flag, fence};
use loom::sync::{Arc, Mutex};
use loom::thread::{spawn, yield_now};
use std::sync::atomic::Ordering::SeqCst;

/// Room for two waiters, one of them with more operations than fit into its record.
const TINY: Shape = Shape {
    sems: 2,
    ops: 9,
    waiters: 2,
    undos: 0,
    longs: 1,
};

struct World {
    words: Vec<Word>,
    shape: Shape,
    futexes: Vec<Futex>,
    /// Whoever calls waits for it first. For models in which three would try for the lock: that they
    /// fail has as many orders as there are tries, and shows nothing that two do not.
    turn: Option<Mutex<()>>,
}

impl Surroundings for World {
    fn domid(&self) -> u32 {
        1
    }

    fn is_dead(&self, _: u32) -> bool {
        false
    }

    fn wake(&self, waiter: u32) {
        self.futexes[waiter as usize].wake();
    }
}

impl World {
    fn by_turns() -> Arc<Self> {
        Arc::new(Self {
            turn: Some(Mutex::new(())),
            ..Self::made(TINY, [0, 0])
        })
    }

    /// A set with these values.
    fn new(shape: Shape, values: [i32; 2]) -> Arc<Self> {
        Arc::new(Self::made(shape, values))
    }

    fn made(shape: Shape, values: [i32; 2]) -> Self {
        let mut shared = vec![region::LOCK];
        for index in 0..shape.waiters as usize {
            let at = shape.waiters_at() + index * waiter::WORDS;
            shared.extend([at + waiter::STATE, at + waiter::POST]);
        }
        shared.push(shape.longs_at());
        let word = |at| Word::new(shared.contains(&at));
        let world = Self {
            words: (0..shape.words()).map(word).collect(),
            shape,
            futexes: (0..shape.waiters).map(|_| Futex::default()).collect(),
            turn: None,
        };
        world.set().init(7);
        for (num, value) in values.into_iter().enumerate() {
            let at = world.set().sem(num as u32);
            world.set().at(at).store(value as u64, Relaxed);
        }
        world
    }

    fn set(&self) -> Set<'_, Word> {
        Set::new(&self.words, self.shape).unwrap()
    }

    fn lock<'a>(&'a self, set: &'a Set<'a, Word>, serial: u64) -> Locked<'a, 'a, Word, Self> {
        loop {
            if let Some(locked) = set.try_lock(call(serial).caller.token, self) {
                return locked;
            }
        }
    }

    /// Calls `semop`: its result, or the waiter that waits for it.
    fn begin(&self, serial: u64, ops: &[Op]) -> Result<c_int, u32> {
        loop {
            let _turn = self.turn.as_ref().map(|turn| turn.lock().unwrap());
            let set = self.set();
            let mut locked = self.lock(&set, serial);
            let begun = match locked.semop(ops, &call(serial)) {
                Outcome::Done => Some(Ok(0)),
                Outcome::Failed(errno) => Some(Ok(errno)),
                Outcome::Blocked(place) => locked.wait(ops, &call(serial), 0, place).map(Err),
            };
            locked.unlock();
            match begun {
                Some(begun) => return begun,
                None => yield_now(),
            }
        }
    }

    /// Sleeps until told.
    fn sleep(&self, index: u32) {
        let set = self.set();
        while set.look(index) <= waiter::ASLEEP && set.fall_asleep(index) {
            let still = || set.post(index).load(Relaxed) == waiter::ASLEEP;
            self.futexes[index as usize].wait(still);
        }
    }

    fn finish(&self, index: u32) -> c_int {
        self.sleep(index);
        match self.set().look(index) {
            waiter::GONE => libc::EIDRM,
            told => {
                assert_eq!(told, waiter::POSTED);
                self.set().collect(index)
            }
        }
    }

    fn semop(&self, serial: u64, ops: &[Op]) -> c_int {
        self.begin(serial, ops)
            .unwrap_or_else(|index| self.finish(index))
    }

    fn value(&self, num: u32) -> u64 {
        self.set().load(self.set().sem(num)) & 0xffff
    }
}

const UP: [Op; 1] = [Op::new(0, 1, 0)];
const DOWN: [Op; 1] = [Op::new(0, -1, 0)];
const UP_TWO: [Op; 1] = [Op::new(0, 2, 0)];
const BOTH_DOWN: [Op; 2] = [Op::new(0, -1, 0), Op::new(1, -1, 0)];

#[test]
fn a_semaphore_excludes_and_hands_on_what_was_done_under_it() {
    explore("mutex", 4, || {
        let world = World::new(TINY, [1, 0]);
        let protected = Arc::new(Guarded::default());
        let work = |serial: u64| {
            let (world, protected) = (world.clone(), protected.clone());
            move || {
                assert_eq!(world.semop(serial, &DOWN), 0);
                protected.set(protected.get() + 1);
                assert_eq!(world.semop(serial, &UP), 0);
            }
        };
        let other = spawn(work(1));
        work(2)();
        other.join().unwrap();
        assert_eq!((protected.get(), world.value(0)), (2, 1));
        sound::check(&world.set());
    });
}

#[test]
fn a_waiter_is_served_whenever_the_increment_comes() {
    explore("one waiter", 6, || {
        let world = World::new(TINY, [0, 0]);
        let own = world.clone();
        let waits = spawn(move || own.semop(1, &DOWN));
        assert_eq!(world.semop(2, &UP), 0);
        assert_eq!(waits.join().unwrap(), 0);
        assert_eq!(world.value(0), 0);
        sound::check(&world.set());
    });
}

#[test]
fn two_waiters_are_served_by_one_increment_of_two() {
    explore("two waiters", 4, || {
        let world = World::by_turns();
        let waits = [1, 2].map(|serial| {
            let own = world.clone();
            spawn(move || own.semop(serial, &DOWN))
        });
        assert_eq!(world.semop(3, &UP_TWO), 0);
        assert_eq!(waits.map(|thread| thread.join().unwrap()), [0, 0]);
        assert_eq!(world.value(0), 0);
        sound::check(&world.set());
    });
}

#[test]
fn a_waiter_of_two_semaphores_is_served_by_whoever_comes_last() {
    explore("two semaphores", 4, || {
        let world = World::by_turns();
        let own = world.clone();
        let waits = spawn(move || own.semop(1, &BOTH_DOWN));
        let own = world.clone();
        let ups = spawn(move || own.semop(2, &UP));
        assert_eq!(world.semop(3, &[Op::new(1, 1, 0)]), 0);
        assert_eq!(ups.join().unwrap(), 0);
        assert_eq!(waits.join().unwrap(), 0);
        assert_eq!([world.value(0), world.value(1)], [0, 0]);
        sound::check(&world.set());
    });
}

#[test]
fn who_gives_up_has_either_taken_it_or_left_it() {
    explore("giving up", 6, || {
        let world = World::new(TINY, [0, 0]);
        let own = world.clone();
        let waits = spawn(move || {
            let index = match own.begin(1, &DOWN) {
                Ok(result) => return result,
                Err(index) => index,
            };
            let set = own.set();
            let mut locked = own.lock(&set, 1);
            let in_time = locked.give_up(index, call(1).caller.token);
            locked.unlock();
            if in_time {
                libc::EAGAIN
            } else {
                own.finish(index)
            }
        });
        assert_eq!(world.semop(2, &UP), 0);
        let left = match waits.join().unwrap() {
            0 => 0,
            libc::EAGAIN => 1,
            other => panic!("{other}"),
        };
        assert_eq!(world.value(0), left);
        sound::check(&world.set());
    });
}

#[test]
fn a_sleeper_that_is_ended_from_elsewhere_wakes_with_one_result() {
    explore("interrupted", 3, || {
        let world = World::new(TINY, [0, 0]);
        let index = world.begin(1, &DOWN).unwrap_err();
        let own = world.clone();
        let waits = spawn(move || own.finish(index));
        let own = world.clone();
        let ends = spawn(move || {
            let set = own.set();
            let mut locked = own.lock(&set, 1);
            let ended = locked.interrupt(index, call(1).caller.token, libc::EINTR);
            locked.unlock();
            ended
        });
        assert_eq!(world.semop(2, &UP), 0);
        let result = if ends.join().unwrap() { libc::EINTR } else { 0 };
        assert_eq!(waits.join().unwrap(), result);
        assert_eq!(world.value(0), u64::from(result != 0));
        sound::check(&world.set());
    });
}

#[test]
fn a_record_is_used_again_only_when_its_result_was_taken() {
    let shape = Shape { waiters: 1, ..TINY };
    let nine = |change| [Op::new(0, change, 0); 9];
    explore("one record for two", 4, move || {
        let world = World::new(shape, [0, 0]);
        let index = world.begin(1, &nine(-1)).unwrap_err();
        let own = world.clone();
        let waits = spawn(move || own.finish(index));
        assert_eq!(world.semop(2, &nine(1)), 0);
        // Waits for room, then in the same record.
        let index = world.begin(2, &nine(-1)).unwrap_err();
        assert_eq!(waits.join().unwrap(), 0);
        assert_eq!(world.semop(3, &nine(1)), 0);
        assert_eq!(world.finish(index), 0);
        sound::check(&world.set());
    });
}

#[test]
fn nobody_sleeps_on_a_set_that_is_gone() {
    explore("gone", 6, || {
        let world = World::new(TINY, [0, 0]);
        // The directory's word of the set, and what the thread's slot in the wait page says.
        let [is_gone, construct] = [(); 2].map(|()| Arc::new(Flag::new(0)));
        let own = (world.clone(), is_gone.clone(), construct.clone());
        let waits = spawn(move || {
            let (world, is_gone, construct) = own;
            let index = world.begin(1, &DOWN).unwrap_err();
            construct.store(u64::from(index) + 1, SeqCst);
            fence(SeqCst);
            let set = world.set();
            while set.look(index) <= waiter::ASLEEP && set.fall_asleep(index) {
                fence(SeqCst);
                if is_gone.load(Relaxed) == 1 {
                    return libc::EIDRM;
                }
                let still = || set.post(index).load(Relaxed) == waiter::ASLEEP;
                world.futexes[index as usize].wait(still);
            }
            assert_eq!(set.look(index), waiter::GONE);
            libc::EIDRM
        });
        is_gone.store(1, Relaxed);
        fence(SeqCst);
        if let Some(index) = construct.load(SeqCst).checked_sub(1)
            && world.set().post_gone(index as u32)
        {
            world.wake(index as u32);
        }
        assert_eq!(waits.join().unwrap(), libc::EIDRM);
    });
}

#[test]
fn who_was_served_before_the_set_went_has_the_result() {
    explore("served, then gone", 6, || {
        let world = World::new(TINY, [0, 0]);
        let index = world.begin(1, &DOWN).unwrap_err();
        let own = world.clone();
        let waits = spawn(move || own.finish(index));
        assert_eq!(world.semop(2, &UP), 0);
        assert!(!world.set().post_gone(index));
        assert_eq!(waits.join().unwrap(), 0);
    });
}

#[test]
fn clearing_up_after_a_waiter_and_serving_the_next_do_not_meet() {
    explore("clearing up", 3, || {
        let world = World::new(TINY, [0, 0]);
        world.begin(1, &BOTH_DOWN).unwrap_err();
        let index = world.begin(2, &DOWN).unwrap_err();
        let own = world.clone();
        let waits = spawn(move || own.finish(index));
        let own = world.clone();
        let clears = spawn(move || {
            let dead = Dead::Client(call(1).caller.token);
            while own.set().clean_up(DAEMON, dead, 1, &*own).is_err() {}
        });
        assert_eq!(world.semop(3, &UP), 0);
        assert_eq!(waits.join().unwrap(), 0);
        clears.join().unwrap();
        assert_eq!(world.set().load(region::COUNTS), 0);
        sound::check(&world.set());
    });
}

#[test]
fn a_lock_that_a_dead_one_holds_is_taken_from_it_once() {
    explore("lock of the dead", 3, || {
        let world = World::new(TINY, [0, 0]);
        let index = world.begin(2, &DOWN).unwrap_err();
        // Dies in the middle of an increment.
        let set = world.set();
        let mut locked = world.lock(&set, 1);
        locked.put(world.set().sem(0), 5);
        let _ = locked;
        let own = world.clone();
        let waits = spawn(move || own.finish(index));
        let own = world.clone();
        let clears = spawn(move || {
            let dead = Dead::Client(call(1).caller.token);
            while own.set().clean_up(DAEMON, dead, 1, &*own).is_err() {}
        });
        assert_eq!(world.semop(3, &UP), 0);
        assert_eq!(waits.join().unwrap(), 0);
        clears.join().unwrap();
        assert_eq!(world.value(0), 0);
        sound::check(&world.set());
    });
}
