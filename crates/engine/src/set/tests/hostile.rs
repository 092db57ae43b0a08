// SPDX-License-Identifier: MIT OR Apache-2.0
//! A peer writes anything anywhere in the region, before a call and during it. Nothing panics, no word
//! outside is asked for ([`Set::at`] would say so), and every call ends after a bounded time.

use super::*;
use crate::testing::{LIES, Liar, SEED, bounded, garbage, if_locked, random};
use proptest::prelude::*;
use std::sync::atomic::Ordering;

/// One of all the calls there are.
fn anything(set: &Set<'_, Liar>, around: &Around) {
    let num = random() as u32 % set.shape.sems;
    let index = random() as u32 % set.shape.waiters;
    let count = 1 + random() as usize % set.shape.ops as usize;
    let ops: Vec<_> = (0..count)
        .map(|_| {
            let flags = [0, NOWAIT, SEM_UNDO][random() as usize % 3];
            let num = random() % u64::from(set.shape.sems);
            Op::new(num as u16, random() as i16 % 3, flags)
        })
        .collect();
    let token = call(1 + random() % 3).caller.token;
    match random() % 12 {
        0..3 => if_locked(set, around, |locked| {
            let record = locked.undo_record(token, 3);
            let call = Call { record, ..call(1) };
            if let Outcome::Blocked(place) = locked.semop(&ops, &call) {
                locked.wait(&ops, &call, 3, place);
            }
        }),
        3 => if_locked(set, around, |locked| {
            locked.give_up(index, token);
        }),
        4 => if_locked(set, around, |locked| {
            locked.interrupt(index, token, libc::EINTR);
        }),
        5 => if_locked(set, around, |locked| {
            locked.set_value(num, 1, call(1).caller.who, 5);
        }),
        6 => if_locked(set, around, |locked| {
            locked.set_all(&[1, 0, 2], call(1).caller.who, 5);
        }),
        7 => if_locked(set, around, |locked| {
            assert!((0..=0xffff).contains(&locked.get_value(num)));
            let most = set.shape.waiters;
            assert!(locked.get_count(num, true) <= most && locked.get_count(num, false) <= most);
            let _ = locked.get_pid(num);
            let _ = (locked.has_undo_of_the_dead(), locked.waiting());
            let _ = locked.is_undo_of(random() as u32, token);
        }),
        8 => drop(set.clean_up(DAEMON, Dead::Client(token), 5, around)),
        9 => drop(set.clean_up(DAEMON, Dead::Domain(2, 0), 5, around)),
        10 => drop(set.apply_undo(DAEMON, token, 5, 5, around)),
        _ => {
            let _ = (set.look(index), set.fall_asleep(index), set.times());
            set.post_gone(random() as u32);
            set.collect(index);
        }
    }
}

/// Words that are all `garbage`, of which the lock is free.
fn spoilt(shape: Shape) -> Vec<Liar> {
    let words: Vec<_> = (0..shape.words())
        .map(|_| Liar(AtomicU64::new(garbage())))
        .collect();
    words[region::LOCK].0.store(0, Ordering::Relaxed);
    words
}

#[test]
fn whatever_stands_in_a_region_every_call_ends() {
    let config = ProptestConfig {
        cases: cases(30),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(seed in 1..u64::MAX, lies in prop_oneof![Just(0), 1..64u64])| {
        SEED.set(seed);
        LIES.set(0);
        let words = if seed % 2 == 0 {
            spoilt(SMALL)
        } else {
            new_words(SMALL).into_iter().map(Liar).collect()
        };
        let mut around = Around::of(1);
        around.dead.insert(3);
        let set = Set::new(&words, SMALL).unwrap();
        LIES.set(lies);
        for _ in 0..60 {
            bounded(|| anything(&set, &around));
            // Else hardly any call gets further.
            words[region::LOCK].0.store(0, Ordering::Relaxed);
            let some = random() as usize % words.len();
            words[some].0.store(garbage(), Ordering::Relaxed);
        }
        LIES.set(0);
    });
}

#[test]
fn queues_that_lead_back_to_themselves_hold_nobody_up_for_long() {
    let around = Around::of(1);
    let shape = Shape {
        waiters: 64,
        ops: 500,
        ..SMALL
    };
    // Those who wait for an increment, with one operation or with many, and for zero; the values with
    // which most of the operations are tried.
    let many = [Op::new(0, -1, 0); 500];
    let calls: [(&[Op], [u64; 3]); 3] = [
        (&[Op::new(0, -2, 0)], [1, 1, 1]),
        (&many, [499, 1, 1]),
        (&[Op::new(0, 0, 0), Op::new(1, 0, 0)], [0, 1, 1]),
    ];
    for (ops, values) in calls {
        let words: Vec<_> = new_words(shape).into_iter().map(Liar).collect();
        let set = Set::new(&words, shape).unwrap();
        if_locked(&set, &around, |locked| {
            let first = locked.wait(ops, &call(1), 0, 0).unwrap();
            let at = set.waiter(first);
            for link in [waiter::LINK, waiter::SEM_LINK] {
                locked.store(at + link, word_of(first + 1, first + 1));
            }
            // There is no last one, at which a walk would end.
            let queues = (0..shape.sems).map(|num| set.sem_queue(num));
            for ends in queues.chain([region::QUEUE]) {
                let (begin, _) = halves(locked.load(ends));
                locked.store(ends, word_of(begin, 0));
            }
            for (num, value) in (0..).zip(values) {
                locked.store(set.sem(num), value);
            }
        });
        let work = || {
            if_locked(&set, &around, |locked| {
                _ = locked.scan(scan::Changed::Anything)
            })
        };
        let looks = bounded(work);
        println!("{} operations: {looks} looks", ops.len());
        assert!(looks > 1 << 24, "the queue is no ring");
    }
}

#[test]
fn a_shape_that_a_peer_tells_is_believed_only_if_it_can_be_computed_with() {
    for _ in 0..10_000 {
        let words: Vec<_> = (0..region::LINE)
            .map(|_| Liar(AtomicU64::new(garbage())))
            .collect();
        words[region::MAGIC]
            .0
            .store(Shape::MAGIC, Ordering::Relaxed);
        if let Some(shape) = Set::shape_told(&words) {
            assert!(shape.is_sound() && Set::new(&words, shape).is_none());
        }
    }
}
