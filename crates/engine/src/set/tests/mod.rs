// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks of the engine of semaphore sets: against a plain model of the kernel's ([`model`]), with a
//! death at each store ([`crash`]), with a peer that writes anything anywhere ([`hostile`]), and with
//! several threads in all orders ([`threads`]).

mod crash;
mod driver;
mod hostile;
mod kernel;
mod model;
mod sound;
mod threads;

use super::*;
use crate::region::Caller;
use crate::region::recover::Dead;
use crate::testing::{Around, DAEMON, cases};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use vshmem_abi::region::{self, Layout, waiter};
use vshmem_abi::token::Token;

/// A small set, in which there is not room for everybody.
const SMALL: Shape = Shape {
    sems: 3,
    ops: 12,
    waiters: 6,
    undos: 3,
    longs: 2,
};

/// The words of a new set.
fn new_words(shape: Shape) -> Vec<AtomicU64> {
    let mut words = Vec::new();
    words.resize_with(shape.words(), || AtomicU64::new(0));
    if let Some(set) = Set::new(&words, shape) {
        set.init(7);
    }
    words
}

fn call(serial: u64) -> Call {
    Call {
        caller: Caller {
            token: Token::new(1, serial),
            who: Who::new(40 + serial as i32, 1),
            now: 1000,
        },
        record: None,
    }
}

#[test]
fn a_decrement_waits_until_an_increment_lets_it_through() {
    let words = new_words(SMALL);
    let set = Set::new(&words, SMALL).unwrap();
    let around = Around::of(1);
    let mut locked = set.try_lock(call(1).caller.token, &around).unwrap();
    assert!(set.try_lock(call(1).caller.token, &around).is_none() && set.is(7));
    let down = [Op::new(1, -1, 0)];
    assert_eq!(locked.semop(&down, &call(1)), Outcome::Blocked(0));
    let index = locked.wait(&down, &call(1), 0, 0).unwrap();
    assert_eq!(locked.get_count(1, false), 1);
    assert_eq!(set.look(index), waiter::AWAKE);
    assert_eq!(locked.semop(&[Op::new(1, 1, 0)], &call(2)), Outcome::Done);
    assert_eq!(set.look(index), waiter::POSTED);
    assert_eq!((locked.get_value(1), locked.get_count(1, false)), (0, 0));
    assert_eq!((locked.get_pid(1), set.collect(index)), (41, 0));
    locked.unlock();
    // One waited, and the other carried both out.
    assert_eq!(set.calls(), 2);
    assert_eq!(set.lock_holder(), Token::NONE);
    sound::check(&set);
}

#[test]
fn a_look_at_a_set_shows_values_who_waits_and_what_would_be_undone() {
    let words = new_words(SMALL);
    let set = Set::new(&words, SMALL).unwrap();
    let around = Around::of(1);
    let mut locked = set.try_lock(call(1).caller.token, &around).unwrap();
    let token = call(1).caller.token;
    let with_undo = Call {
        record: locked.undo_record(token, 0),
        ..call(1)
    };
    let up = [Op::new(2, 5, SEM_UNDO)];
    assert_eq!(locked.semop(&up, &with_undo), Outcome::Done);
    assert!(locked.wait(&[Op::new(2, 0, 0)], &call(2), 0, 0).is_some());
    let long: Vec<_> = (0..10).map(|_| Op::new(1, -3, 0)).collect();
    assert!(locked.wait(&long, &call(3), 0, 9).is_some());
    locked.unlock();

    let values: Vec<_> = set.semaphores().map(|sem| (sem.value, sem.who)).collect();
    assert_eq!(values, [(0, (0, 0)), (0, (0, 0)), (5, (41, 1))]);
    let waits = |s: look::Sleeper| (s.who, s.op.num(), s.op.change(), s.ops, s.alters);
    let sleepers: Vec<_> = set.sleepers().map(waits).collect();
    let want = [((42, 1), 2, 0, 1, false), ((43, 1), 1, -3, 10, true)];
    assert!(
        want.iter().all(|one| sleepers.contains(one)),
        "{sleepers:?}"
    );
    assert_eq!(sleepers.len(), 2);
    let (num, adjust) = (2, -5);
    let undone: Vec<_> = set.adjustments(100).collect();
    assert_eq!(undone, [look::Adjustment { token, num, adjust }]);
    assert_eq!(set.adjustments(0).count(), 0);
}

#[test]
fn who_was_served_before_the_set_went_keeps_the_result() {
    let words = new_words(SMALL);
    let set = Set::new(&words, SMALL).unwrap();
    let around = Around::of(1);
    let mut locked = set.try_lock(call(1).caller.token, &around).unwrap();
    let down = [Op::new(0, -1, 0)];
    let [served, left] = [1, 2].map(|serial| locked.wait(&down, &call(serial), 0, 0).unwrap());
    assert!(set.fall_asleep(left));
    assert_eq!(locked.semop(&[Op::new(0, 1, 0)], &call(3)), Outcome::Done);
    locked.unlock();
    assert!(!set.post_gone(served) && set.post_gone(left) && !set.post_gone(left));
    assert!(!set.post_gone(SMALL.waiters));
    assert_eq!(
        [set.look(served), set.look(left)],
        [waiter::POSTED, waiter::GONE]
    );
    assert_eq!(set.collect(served), 0);
}

#[test]
fn a_scan_that_is_cut_off_goes_on_with_the_next_call() {
    let words = new_words(SMALL);
    let set = Set::new(&words, SMALL).unwrap();
    let around = Around::of(1);
    let mut locked = set.try_lock(call(1).caller.token, &around).unwrap();
    let down = [Op::new(0, -1, 0)];
    let waiters = [1, 2, 3, 4].map(|serial| locked.wait(&down, &call(serial), 0, 0).unwrap());
    let told = || waiters.map(|index| set.look(index) == waiter::POSTED);
    locked.put(set.sem(0), values::value_word(4, call(9).caller.who));
    locked.announce_scan();
    locked.commit();
    locked.scan_within(5, scan::Changed::Anything);
    assert!(told()[0] && !told()[3]);
    assert_eq!(locked.semop(&[Op::new(1, 1, 0)], &call(9)), Outcome::Done);
    assert_eq!(told(), [true; 4]);
    locked.unlock();
    sound::check(&set);
}
