// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the checks of sets and of queues share: surroundings, what is true of any region that nobody works
//! on, words whose writers die ([`Mortal`]), and words that do not hold what was written to them
//! ([`Liar`]).

use crate::cell::Cell64;
use crate::region::line::Line;
use crate::region::{Kind, Locked, Region, Surroundings, halves};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use vshmem_abi::region::{self, waiter};
use vshmem_abi::token::Token;

/// What a process of domain `domid` brings along, and what it does with it.
#[derive(Default)]
pub struct Around {
    pub domid: u32,
    pub dead: HashSet<u32>,
    pub woken: RefCell<Vec<u32>>,
}

impl Around {
    pub fn of(domid: u32) -> Self {
        Self {
            domid,
            ..Self::default()
        }
    }
}

impl Surroundings for Around {
    fn domid(&self) -> u32 {
        self.domid
    }

    fn is_dead(&self, slot: u32) -> bool {
        self.dead.contains(&slot)
    }

    fn wake(&self, waiter: u32) {
        self.woken.borrow_mut().push(waiter);
    }
}

/// How many random cases: few under Miri, which looks closely and is slow.
pub const fn cases(many: u32) -> u32 {
    if cfg!(miri) { 4 } else { many }
}

/// The `vshmemd` of domain 1.
pub const DAEMON: Token = Token::new(1, 0);

/// Members of a list in order, of which the links must fit both ways.
pub fn walk<C: Cell64, K: Kind>(region: &Region<'_, C, K>, line: Line) -> Vec<u32> {
    let (first, last) = halves(region.load(line.ends));
    let mut members = Vec::new();
    let (mut at, mut before) = (first, 0);
    while at != 0 {
        let index = line.named(at).expect("a record");
        assert!(members.len() < line.most as usize, "a ring");
        let (next, previous) = halves(region.load(line.link(index)));
        if at != first {
            assert_eq!(previous, before, "link back of {index}");
        }
        members.push(index);
        (before, at) = (at, if at == last { 0 } else { next });
    }
    assert_eq!(last, before, "last of a list");
    members
}

/// Asserts that nothing is half done, and that everybody who waits has been told what is the case.
pub fn check_quiet<C: Cell64, K: Kind>(region: &Region<'_, C, K>) {
    for word in [region::LOCK, K::JOURNAL, region::INTENT, region::POSTING] {
        assert_eq!(region.load(word), 0, "word {word}");
    }
    for index in 0..region.shape.waiters() {
        let state = region.load(region.waiter(index) + waiter::STATE);
        match state & 0xff {
            waiter::FREE => {
                assert_eq!(state, waiter::FREE);
                continue;
            }
            waiter::QUEUED => assert!(region.look(index) <= waiter::ASLEEP),
            waiter::DONE => assert_eq!(region.look(index), waiter::POSTED, "waiter {index}"),
            other => panic!("state {other} of waiter {index}"),
        }
        assert!(index < region.load(region::WAITER_HIGH) as u32);
    }
}

thread_local! {
    /// Stores that the process at work still makes; `None`: it does not die.
    static STORES_LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// What a death unwinds with.
struct Died;

/// A word whose writers die.
#[derive(Default)]
pub struct Mortal(pub AtomicU64);

impl Mortal {
    fn before_store() {
        match STORES_LEFT.get() {
            Some(0) => {
                STORES_LEFT.set(None);
                resume_unwind(Box::new(Died));
            }
            left => STORES_LEFT.set(left.map(|left| left - 1)),
        }
    }
}

impl Cell64 for Mortal {
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        Self::before_store();
        self.0.store(value, order);
    }

    fn swap(&self, value: u64, order: Ordering) -> u64 {
        Self::before_store();
        self.0.swap(value, order)
    }

    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        if self.0.load(failure) == current {
            Self::before_store();
        }
        self.0.compare_exchange(current, new, success, failure)
    }
}

/// Does `call` up to the death before store number `stores`; `false`: it made no more than so many.
pub fn dies_at<T>(stores: usize, call: impl FnOnce() -> T) -> bool {
    STORES_LEFT.set(Some(stores));
    let outcome = catch_unwind(AssertUnwindSafe(call));
    STORES_LEFT.set(None);
    match outcome {
        Ok(_) => false,
        Err(died) if died.is::<Died>() => true,
        Err(failure) => resume_unwind(failure),
    }
}

thread_local! {
    /// Looks at words so far, what the next lie comes from, and how many looks in 256 find a lie.
    static LOOKS: Cell<u64> = const { Cell::new(0) };
    pub static SEED: Cell<u64> = const { Cell::new(1) };
    pub static LIES: Cell<u64> = const { Cell::new(0) };
}

/// Another number each time.
pub fn random() -> u64 {
    let mut seed = SEED.get();
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    SEED.set(seed);
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7
}

/// A word that a peer may well write: a number, two small ones, a token, a state, an operation.
pub fn garbage() -> u64 {
    let small = |bits: u32| random() % (1 << bits);
    match random() % 8 {
        0 => 0,
        1 => random() << 8 | small(8),
        2 | 3 => small(3) | small(3) << 32,
        4 => Token::new(1 + small(1) as u32, small(3)).raw(),
        5 => (1 + small(1)) | small(1) << 8 | small(4) << 16 | small(2) << 32,
        6 => small(2) | u64::from((small(2) as i16 - 2) as u16) << 16,
        _ => u64::MAX,
    }
}

/// A word that does not always hold what was written to it.
pub struct Liar(pub AtomicU64);

impl Liar {
    fn looked(&self) {
        LOOKS.set(LOOKS.get() + 1);
        if LIES.get() != 0 && random() % 256 < LIES.get() {
            self.0.store(garbage(), Ordering::Relaxed);
        }
    }
}

/// What a client of domain 1 does under the lock, if it can be had.
pub fn if_locked<'a, K: Kind>(
    region: &Region<'a, Liar, K>,
    around: &Around,
    work: impl FnOnce(&mut Locked<'a, '_, Liar, Around, K>),
) {
    if let Some(mut locked) = region.try_lock(Token::new(1, 1), around) {
        work(&mut locked);
        locked.unlock();
    }
}

impl Cell64 for Liar {
    fn load(&self, order: Ordering) -> u64 {
        self.looked();
        self.0.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, order);
        self.looked();
    }

    fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.looked();
        self.0.swap(value, order)
    }

    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.looked();
        self.0.compare_exchange(current, new, success, failure)
    }
}

/// Looks at words that a call on a small set or queue may take: each step of a scan takes some.
const MOST: u64 = 40 << 24;

pub fn bounded(work: impl FnOnce()) -> u64 {
    LOOKS.set(0);
    work();
    let looks = LOOKS.get();
    assert!(looks < MOST, "{looks}");
    looks
}
