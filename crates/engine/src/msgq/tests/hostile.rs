// SPDX-License-Identifier: MIT OR Apache-2.0
//! A peer writes anything anywhere in the region, before a call and during it. Nothing panics, no word
//! outside is asked for ([`Region::at`] would say so), and every call ends after a bounded time.

use super::*;
use crate::region::recover::Dead;
use crate::testing::{LIES, Liar, SEED, bounded, garbage, if_locked, random};
use proptest::prelude::*;
use vshmem_abi::region;

/// Looks at all of a text, of which there may not be more than its size.
fn read(queue: &Queue<'_, Liar>, message: u32, size: u32) {
    let mut bytes = 0;
    for (words, count) in queue.pieces(message, size) {
        assert!(words.len() * 8 >= count);
        words.iter().for_each(|word| _ = word.load(Relaxed));
        bytes += count;
    }
    assert!(bytes <= size as usize);
}

/// One of all the calls there are.
fn anything(queue: &Queue<'_, Liar>, around: &Around) {
    let index = random() as u32 % queue.shape.waiters;
    let message = random() as u32 % (queue.shape.headers() + 2);
    let size = [0, 8, 72, 73, 1100][random() as usize % 5];
    let mtype = 1 + (random() % 3) as i64;
    let by = caller(1 + random() % 3);
    let room = [0, 80, 2000, Want::CUT][random() as usize % 4];
    let want = Want::new((random() % 7) as i64 - 3, random().is_multiple_of(2), room);
    let mut text = Text::default();
    match random() % 14 {
        0 => if_locked(queue, around, |locked| {
            locked.send_small(mtype, &text, size.min(72), &by);
        }),
        1 => if_locked(queue, around, |locked| {
            if let Some(message) = locked.hold(size, mtype, by.token) {
                read(queue, message, size);
                if locked.send(message, &by) == Sent::Full {
                    locked.wait_to_send(message, &by, 3);
                }
            }
        }),
        2 | 3 => if_locked(queue, around, |locked| {
            match locked.receive(&want, &by, &mut text) {
                Received::Nothing => _ = locked.wait_to_receive(&want, &by, 3),
                Received::Small { size, .. } => assert!(size as usize <= INLINE && size <= room),
                Received::Large { message, size, .. } => {
                    assert!(size <= room);
                    read(queue, message, size);
                    locked.free(message, by.token);
                }
                Received::TooBig => {}
            }
        }),
        4 => if_locked(queue, around, |locked| _ = locked.give_up(index, by.token)),
        5 => if_locked(queue, around, |locked| {
            locked.interrupt(index, by.token, libc::EINTR);
        }),
        6 => if_locked(queue, around, |locked| {
            if let Taken::Received(Received::Large { message, size, .. }) =
                locked.take(index, by.token, &mut text)
            {
                read(queue, message, size);
            }
        }),
        12 => {
            if_locked(queue, around, |locked| {
                let taken = locked.take_and_keep(index, by.token, &mut text);
                if let Taken::Received(Received::Large { message, size, .. }) = taken {
                    read(queue, message, size);
                }
            });
            queue.collect(index);
        }
        7 => if_locked(queue, around, |locked| locked.free(message, by.token)),
        8 => if_locked(queue, around, |locked| locked.set_limit(random() % 3000, 5)),
        9 => if_locked(queue, around, |locked| {
            locked.look_again(1 + random() as u32 % 2)
        }),
        10 => drop(queue.clean_up(DAEMON, Dead::Client(by.token), 5, around)),
        11 => drop(queue.clean_up(DAEMON, Dead::Domain(2, 0), 5, around)),
        _ => {
            let _ = (queue.status(), queue.look(index), queue.is_awaited());
            let _ = (queue.fall_asleep(index), queue.may_concern(by.token));
            queue.post_gone(random() as u32);
            assert!((0..=133).contains(&queue.result(index)));
            if_locked(queue, around, |locked| {
                if let Some((message, _, size)) = locked.peek(random() as i64 % 9) {
                    read(queue, message, size);
                }
            });
        }
    }
}

/// Words that are all `garbage`, of which the lock is free.
fn spoilt() -> Vec<Liar> {
    let words: Vec<_> = (0..SMALL.words())
        .map(|_| Liar(AtomicU64::new(garbage())))
        .collect();
    words[region::LOCK].0.store(0, Relaxed);
    words
}

#[test]
fn whatever_stands_in_a_queues_region_every_call_ends() {
    let config = ProptestConfig {
        cases: cases(150),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(seed in 1..u64::MAX, lies in prop_oneof![Just(0), 1..64u64])| {
        SEED.set(seed);
        LIES.set(0);
        let words = if seed % 3 == 0 {
            spoilt()
        } else {
            new_words(1500).into_iter().map(Liar).collect()
        };
        let mut around = Around::of(1);
        around.dead.insert(3);
        let queue = Queue::new(&words, SMALL).unwrap();
        LIES.set(lies);
        for _ in 0..100 {
            bounded(|| anything(&queue, &around));
            // Else hardly any call gets further.
            words[region::LOCK].0.store(0, Relaxed);
            let some = if random().is_multiple_of(2) { random() % 600 } else { random() };
            words[some as usize % words.len()].0.store(garbage(), Relaxed);
        }
        LIES.set(0);
    });
}

#[test]
fn any_value_in_any_word_of_a_queue_in_use_leaves_every_call_bounded() {
    let values = [
        0,
        1,
        7,
        u64::MAX,
        0xffff_ffff,
        0xffff_ffff << 32,
        9 | 9 << 32,
        3 | 1 << 40,
    ];
    let around = Around::of(1);
    SEED.set(5);
    let template = {
        let words = new_words(500);
        let queue = Queue::new(&words, SMALL).unwrap();
        let calm = Around::of(1);
        let mut locked = queue.try_lock(caller(1).token, &calm).unwrap();
        for size in [8, 72] {
            locked.send_small(1, &Text::default(), size, &caller(1));
        }
        let long = locked.hold(400, 2, caller(1).token).unwrap();
        assert_eq!(locked.send(long, &caller(1)), Sent::Done);
        let more = locked.hold(600, 3, caller(2).token).unwrap();
        locked.wait_to_send(more, &caller(2), 4).unwrap();
        let three = Want::new(3, false, 700);
        locked.wait_to_receive(&three, &caller(3), 5).unwrap();
        locked.unlock();
        words
    };
    let spoilt = (0..SMALL.waiters_at() + 4 * 16).chain(SMALL.headers_at()..SMALL.blocks_at());
    for place in spoilt.filter(|place| *place > region::LOCK) {
        for value in values.into_iter().take(cases(8) as usize) {
            let copy = |word: &AtomicU64| Liar(AtomicU64::new(word.load(Relaxed)));
            let words: Vec<_> = template.iter().map(copy).collect();
            words[place].0.store(value, Relaxed);
            let queue = Queue::new(&words, SMALL).unwrap();
            for _ in 0..12 {
                bounded(|| anything(&queue, &around));
                words[region::LOCK].0.store(0, Relaxed);
            }
        }
    }
}
