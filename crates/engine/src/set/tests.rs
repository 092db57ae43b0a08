// SPDX-License-Identifier: MIT OR Apache-2.0

use super::*;
use std::sync::atomic::AtomicU64;

/// One domain, in which nobody is dead.
struct Alone;

impl Surroundings for Alone {
    fn domid(&self) -> u32 {
        1
    }

    fn is_dead(&self, _: u32) -> bool {
        false
    }

    fn wake(&self, _: u32) {}
}

const ME: Token = Token::new(1, 1);

fn call() -> Call {
    Call {
        token: ME,
        who: Who::new(42, 1),
        record: None,
        now: 1000,
    }
}

#[test]
fn a_decrement_waits_until_an_increment_lets_it_through() {
    let shape = Shape::sparse(2, 16);
    let mut words = Vec::new();
    words.resize_with(shape.words(), || AtomicU64::new(0));
    let set = Set::new(&words, shape).unwrap();
    set.init(7);
    let mut locked = set.try_lock(ME, &Alone).unwrap();
    assert!(set.try_lock(ME, &Alone).is_none() && set.is(7));
    let down = [Op::new(1, -1, 0)];
    assert_eq!(locked.semop(&down, &call()), Outcome::Blocked(0));
    let index = locked.wait(&down, &call(), 0, 0).unwrap();
    assert_eq!(locked.get_count(1, false), 1);
    assert_eq!(set.look(index), waiter::AWAKE);
    assert_eq!(locked.semop(&[Op::new(1, 1, 0)], &call()), Outcome::Done);
    assert_eq!(set.look(index), waiter::POSTED);
    assert_eq!((locked.get_value(1), locked.get_count(1, false)), (0, 0));
    assert_eq!(set.collect(index), 0);
    locked.unlock();
    assert_eq!(set.lock_holder(), Token::NONE);
}
