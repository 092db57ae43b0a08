// SPDX-License-Identifier: MIT OR Apache-2.0
//! For tests: words, and a futex, of which a model checker explores all the orders in which threads
//! can come to them.

use crate::cell::Cell64;
use loom::sync::atomic::AtomicU64;
use loom::sync::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A word of shared memory.
pub enum Word {
    /// One that several threads come to at the same time.
    Shared(AtomicU64),
    /// One that only the holder of a lock, or the owner of a record, touches: anything else fails.
    Guarded(Guarded),
}

/// See [`Word::Guarded`].
#[derive(Default)]
pub struct Guarded(loom::cell::Cell<u64>);

// SAFETY: the model checker runs one thread at a time, and fails where two come to the cell without
// one being known to come before the other.
unsafe impl Sync for Guarded {}

impl Guarded {
    /// The value.
    pub fn get(&self) -> u64 {
        self.0.get()
    }

    /// Changes it.
    pub fn set(&self, value: u64) {
        self.0.set(value);
    }
}

impl Word {
    /// A word of zero.
    pub fn new(is_shared: bool) -> Self {
        if is_shared {
            Self::Shared(AtomicU64::new(0))
        } else {
            Self::Guarded(Guarded::default())
        }
    }
}

impl Cell64 for Word {
    fn load(&self, order: Ordering) -> u64 {
        match self {
            Self::Shared(word) => word.load(order),
            Self::Guarded(word) => word.get(),
        }
    }

    fn store(&self, value: u64, order: Ordering) {
        match self {
            Self::Shared(word) => word.store(value, order),
            Self::Guarded(word) => word.set(value),
        }
    }

    fn swap(&self, value: u64, order: Ordering) -> u64 {
        match self {
            Self::Shared(word) => word.swap(value, order),
            Self::Guarded(word) => {
                let old = word.get();
                word.set(value);
                old
            }
        }
    }

    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        match self {
            Self::Shared(word) => word
                .compare_exchange(current, new, success, failure)
                // Whoever tries again lets others go on first.
                .inspect_err(|_| loom::thread::yield_now()),
            Self::Guarded(_) => unreachable!("a word that is guarded needs no such thing"),
        }
    }
}

/// What the kernel does for one word: a thread sleeps if the word has a certain value, and a wake-up
/// while nobody sleeps is lost.
#[derive(Default)]
pub struct Futex {
    lock: Mutex<()>,
    sleepers: Condvar,
}

impl Futex {
    /// Sleeps until it is woken, if `is_still` the word what it was.
    pub fn wait(&self, is_still: impl Fn() -> bool) {
        let lock = self.lock.lock().unwrap();
        if is_still() {
            drop(self.sleepers.wait(lock));
        }
    }

    /// Wakes all that sleep.
    pub fn wake(&self) {
        let _lock = self.lock.lock().unwrap();
        self.sleepers.notify_all();
    }
}

/// Runs `model` in every order, with as many as `preemptions` changes from one thread to another where
/// neither waits; says how many orders there were.
pub fn explore(name: &str, preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let orders = Arc::new(AtomicUsize::new(0));
    let counted = orders.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let orders = orders.load(Ordering::Relaxed);
    println!("{name}: {orders} orders");
    assert!(orders > 10, "{name}: {orders}");
}
