// SPDX-License-Identifier: MIT OR Apache-2.0

use super::*;
use crate::explore::{Futex, Word, explore};
use crate::sleep_word::{Count, raise, seen};
use loom::sync::atomic::AtomicU32;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread::spawn;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use vshmem_abi::layout::WAIT_SLOTS;

fn words() -> Vec<AtomicU64> {
    std::iter::repeat_with(AtomicU64::default)
        .take(WORDS)
        .collect()
}

fn answered<C: Bits>(bell: &Doorbell<'_, C>) -> Vec<u32> {
    let mut slots = Vec::new();
    bell.answer(|slot| slots.push(slot));
    slots
}

#[test]
fn what_is_rung_is_answered_once_and_only_a_sleeper_is_notified() {
    let words = words();
    let bell = Doorbell::new(&words).unwrap();
    let last = WAIT_SLOTS as u32 - 1;
    assert!(bell.ring(5) && bell.ring(last) && bell.ring(5));
    bell.wake();
    assert!(!bell.ring(64));
    assert_eq!(answered(&bell), [5, 64, last]);
    assert!(answered(&bell).is_empty());
    assert!(!bell.ring(1) && !bell.sleep());
    assert_eq!(answered(&bell), [1]);
    assert!(bell.sleep() && bell.ring(2));
    assert!(bell.ring_all());
    assert!(answered(&bell).into_iter().eq(0..WAIT_SLOTS as u32));
}

#[test]
fn a_new_doorbell_is_not_answered_until_it_says_so() {
    let words = words();
    let bell = Doorbell::new(&words).unwrap();
    assert!(!bell.is_answered());
    bell.set_answered(true);
    assert!(bell.is_answered() && answered(&bell).is_empty());
    bell.set_answered(false);
    assert!(!bell.is_answered());
}

#[test]
fn slots_that_no_wait_page_has_are_not_rung_and_words_too_few_are_no_doorbell() {
    let words = words();
    assert!(Doorbell::new(&words[1..]).is_none());
    let bell = Doorbell::new(&words).unwrap();
    assert!(!bell.ring(WAIT_SLOTS as u32) && !bell.ring(u32::MAX));
    assert!(answered(&bell).is_empty());
}

#[test]
fn a_ring_that_a_dead_client_has_begun_is_completed() {
    let words = words();
    let bell = Doorbell::new(&words).unwrap();
    assert!(!bell.mend());
    words[RUNG + 7].store(2, Relaxed);
    assert!(answered(&bell).is_empty());
    assert!(bell.mend());
    assert_eq!(answered(&bell), [7 * 64 + 1]);
    // It may have died before the notification.
    assert!(bell.ring(3) && bell.mend());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_slots_that_are_rung_are_those_that_are_answered(
        rung in prop::collection::vec(0..WAIT_SLOTS as u32, 0..200),
    ) {
        let words = words();
        let bell = Doorbell::new(&words).unwrap();
        rung.iter().for_each(|&slot| assert!(bell.ring(slot)));
        let expected: BTreeSet<u32> = rung.into_iter().collect();
        prop_assert_eq!(answered(&bell), expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn garbage_wakes_slots_that_exist_each_once_and_is_gone_then(
        garbage in prop::collection::vec(any::<u64>(), WORDS),
    ) {
        let words: Vec<_> = garbage.into_iter().map(AtomicU64::new).collect();
        let bell = Doorbell::new(&words).unwrap();
        let _ = bell.mend();
        let slots = answered(&bell);
        prop_assert!(slots.is_sorted_by(|a, b| a < b));
        prop_assert!(slots.iter().all(|&slot| (slot as usize) < WAIT_SLOTS));
        prop_assert!(answered(&bell).is_empty());
    }
}

impl Bits for Word {
    fn fetch_or(&self, bits: u64, order: std::sync::atomic::Ordering) -> u64 {
        match self {
            Self::Shared(word) => word.fetch_or(bits, order),
            Self::Guarded(word) => {
                let old = word.get();
                word.set(old | bits);
                old
            }
        }
    }

    fn fence(order: std::sync::atomic::Ordering) {
        loom::sync::atomic::fence(order);
    }
}

/// An event channel: a notification is not lost, and several are one.
#[derive(Default)]
struct Channel {
    pending: Mutex<bool>,
    arrived: Condvar,
}

impl Channel {
    fn notify(&self) {
        *self.pending.lock().unwrap() = true;
        self.arrived.notify_one();
    }

    fn wait(&self) {
        let mut pending = self.pending.lock().unwrap();
        while !*pending {
            pending = self.arrived.wait(pending).unwrap();
        }
        *pending = false;
    }
}

/// A pair of domains: the doorbell, and a sleeper in slot 0 of the one that answers.
struct Pair {
    words: Vec<Word>,
    channel: Channel,
    post: Word,
    /// The count of wake-ups in the slot.
    wakes: AtomicU32,
    futex: Futex,
    stop: Word,
}

const AWAKE_LOOKING: u64 = 1;
const SLEEPS: u64 = 2;
const POSTED: u64 = 3;

impl Pair {
    fn new() -> Arc<Self> {
        let shared = [ANSWERS, SUMMARY, RUNG];
        let pair = Self {
            words: (0..WORDS)
                .map(|at| Word::new(shared.contains(&at)))
                .collect(),
            channel: Channel::default(),
            post: Word::new(true),
            wakes: AtomicU32::new(0),
            futex: Futex::default(),
            stop: Word::new(true),
        };
        pair.post.store(AWAKE_LOOKING, Relaxed);
        Arc::new(pair)
    }

    fn bell(&self) -> Doorbell<'_, Word> {
        Doorbell::new(&self.words).unwrap()
    }

    fn ring(&self, slot: u32) {
        if self.bell().ring(slot) {
            self.channel.notify();
        }
    }

    /// What the sleeper does once; `true`: it was told.
    fn sleeps_until_told(&self) -> bool {
        let seen = seen(&self.wakes);
        // Asleep in the region first, then on a word that its own kernel knows.
        let told = self
            .post
            .compare_exchange(AWAKE_LOOKING, SLEEPS, Release, Acquire);
        if told == Err(POSTED) {
            return true;
        }
        self.futex
            .wait(|| Count::load(&self.wakes, Relaxed) == seen);
        false
    }

    /// What is done to wake the sleeper where it is.
    fn disturb(&self) {
        raise(&self.wakes);
        self.futex.wake();
    }

    /// What `vshmemd` does until `is_enough`.
    fn serve(&self, mut heard: impl FnMut(u32), is_enough: impl Fn() -> bool) {
        let bell = self.bell();
        loop {
            bell.wake();
            loop {
                bell.answer(&mut heard);
                if bell.sleep() {
                    break;
                }
            }
            if is_enough() {
                return;
            }
            self.channel.wait();
        }
    }
}

#[test]
fn a_sleeper_of_another_domain_is_woken() {
    explore("sleeper of another domain", 3, || {
        let pair = Pair::new();
        let own = pair.clone();
        let sleeper = spawn(move || {
            loop {
                if own.sleeps_until_told() {
                    return;
                }
            }
        });
        let own = pair.clone();
        let daemon = spawn(move || {
            let wake = |slot| {
                assert_eq!(slot, 0);
                own.disturb();
            };
            own.serve(wake, || own.stop.load(Acquire) == 1);
        });
        if pair.post.swap(POSTED, Release) == SLEEPS {
            pair.ring(0);
        }
        sleeper.join().unwrap();
        pair.stop.store(1, Release);
        pair.channel.notify();
        daemon.join().unwrap();
    });
}

#[test]
fn of_two_that_ring_at_the_same_time_both_are_heard() {
    explore("two rings", 2, || {
        let pair = Pair::new();
        let rings = [3, 9].map(|slot| {
            let own = pair.clone();
            spawn(move || own.ring(slot))
        });
        let heard = std::cell::RefCell::new(BTreeSet::new());
        let hear = |slot| assert!(heard.borrow_mut().insert(slot));
        pair.serve(hear, || heard.borrow().len() == 2);
        rings.into_iter().for_each(|ring| ring.join().unwrap());
    });
}
