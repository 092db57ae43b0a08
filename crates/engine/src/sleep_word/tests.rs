// SPDX-License-Identifier: MIT OR Apache-2.0
//! A thread that sleeps on its slot's count, in all orders: a wake-up that is lost shows as a thread that
//! waits for ever, which fails.

use super::*;
use crate::cell::Cell64;
use crate::explore::{Futex, Word, explore};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32 as Number, fence};
use loom::thread::{spawn, yield_now};
use std::sync::atomic::Ordering::SeqCst;

impl Count for Number {
    fn load(&self, order: Ordering) -> u32 {
        self.load(order)
    }

    fn fetch_add(&self, more: u32, order: Ordering) -> u32 {
        self.fetch_add(more, order)
    }
}

/// A slot of a wait page, and the records of two who wait, one after the other, in it.
struct Slot {
    wakes: Number,
    futex: Futex,
    posts: [Word; 2],
    /// Whose slot it is: 1 more than the index of the post.
    owner: Word,
    /// Somebody wants the thread to end; where it sleeps is to be seen.
    asked: Number,
    shown: Number,
}

impl Slot {
    fn new() -> Arc<Self> {
        let slot = Self {
            wakes: Number::new(0),
            futex: Futex::default(),
            posts: [Word::new(true), Word::new(true)],
            owner: Word::new(true),
            asked: Number::new(0),
            shown: Number::new(0),
        };
        for post in &slot.posts {
            post.store(waiter::AWAKE, Relaxed);
        }
        slot.owner.store(1, Relaxed);
        Arc::new(slot)
    }

    /// Whether the waiter was told something; if not it has said that it sleeps.
    fn falls_asleep(&self, who: usize) -> bool {
        let post = &self.posts[who];
        post.compare_exchange(waiter::AWAKE, waiter::ASLEEP, Release, Acquire)
            != Err(waiter::POSTED)
    }

    fn sleep(&self, seen: u32) {
        self.futex.wait(|| self.wakes.load(Relaxed) == seen);
    }

    fn disturb(&self) {
        raise(&self.wakes);
        self.futex.wake();
    }

    /// What whoever serves a waiter does.
    fn serve(&self, who: usize) {
        if self.posts[who].swap(waiter::POSTED, Release) == waiter::ASLEEP {
            self.disturb();
        }
    }
}

#[test]
fn a_slot_may_change_hands_while_its_old_owner_is_still_being_woken() {
    explore("a slot that changes hands", 3, || {
        let slot = Slot::new();
        let own = slot.clone();
        let first = spawn(move || {
            let seen = seen(&own.wakes);
            if own.falls_asleep(0) {
                // A signal handler ends the wait, gives the slot back, and returns to where the thread was.
                own.serve(0);
                own.owner.store(0, Release);
                own.sleep(seen);
            }
        });
        let own = slot.clone();
        let second = spawn(move || {
            while own.owner.compare_exchange(0, 2, Acquire, Relaxed).is_err() {
                // The first one may have been served, and be gone without having slept.
                if own.posts[0].load(Acquire) == waiter::POSTED {
                    break;
                }
                yield_now();
            }
            loop {
                let seen = seen(&own.wakes);
                if !own.falls_asleep(1) {
                    return;
                }
                own.sleep(seen);
            }
        });
        slot.serve(0);
        slot.serve(1);
        first.join().unwrap();
        second.join().unwrap();
    });
}

#[test]
fn a_thread_that_is_to_end_does_not_sleep() {
    explore("a thread that is to end", 3, || {
        let slot = Slot::new();
        let own = slot.clone();
        let sleeper = spawn(move || {
            loop {
                let seen = seen(&own.wakes);
                assert!(own.falls_asleep(0));
                own.shown.store(1, SeqCst);
                fence(SeqCst);
                if own.asked.load(Relaxed) == 1 {
                    return;
                }
                own.sleep(seen);
            }
        });
        slot.asked.store(1, SeqCst);
        fence(SeqCst);
        if slot.shown.load(SeqCst) == 1 {
            slot.disturb();
        }
        sleeper.join().unwrap();
    });
}
