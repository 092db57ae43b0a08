// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lock of the library's state.
//!
//! A thread that holds it has all signals blocked, so no handler of the program runs in between:
//! the program's handlers may make the same calls. It cannot be cancelled either. Only slow calls
//! take it (those that map, unmap or ask `vshmemd`).
//!
//! The lock word names the thread. A child made by a raw `clone` while another thread held the
//! lock has a lock whose holder is not in the child: it takes the lock from the absent one.

use crate::session::Session;
use crate::sys::{self, NoCancel, SignalMask};
use rustix::thread::futex;
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering::*};

/// Set in the lock word when somebody may be asleep on it.
const WAITERS: u32 = 1 << 31;

/// How long a waiter sleeps before it looks whether the holder is in this process at all.
const LOOK_AGAIN: futex::Timespec = futex::Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

struct State {
    word: AtomicU32,
    session: UnsafeCell<Session>,
}

// SAFETY: the session is reached through a `Guard` only, of which the lock allows one at a time.
unsafe impl Sync for State {}

static STATE: State = State {
    word: AtomicU32::new(0),
    session: UnsafeCell::new(Session::new()),
};

/// The right to use the session. Dropping it puts the signal mask back.
pub struct Guard {
    mask: SignalMask,
    cancel: Option<NoCancel>,
}

/// Blocks signals and takes the lock.
pub fn enter() -> Guard {
    let cancel = Some(NoCancel::begin());
    let mask = sys::block_signals();
    let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
    if STATE
        .word
        .compare_exchange(0, tid, Acquire, Relaxed)
        .is_err()
    {
        wait(tid);
    }
    Guard { mask, cancel }
}

#[cold]
fn wait(tid: u32) {
    loop {
        let word = STATE.word.load(Relaxed);
        if word & !WAITERS == 0 {
            // Taken with WAITERS set, since others may still be asleep.
            if STATE
                .word
                .compare_exchange(word, tid | WAITERS, Acquire, Relaxed)
                .is_ok()
            {
                return;
            }
            continue;
        }
        if word & WAITERS == 0
            && STATE
                .word
                .compare_exchange(word, word | WAITERS, Relaxed, Relaxed)
                .is_err()
        {
            continue;
        }
        let slept = futex::wait(
            &STATE.word,
            futex::Flags::PRIVATE,
            word | WAITERS,
            Some(&LOOK_AGAIN),
        );
        if slept == Err(rustix::io::Errno::TIMEDOUT) && !sys::is_own_thread(word & !WAITERS) {
            // If another waiter was faster the word has changed, and the loop goes on.
            let _ = STATE
                .word
                .compare_exchange(word | WAITERS, WAITERS, Relaxed, Relaxed);
        }
    }
}

fn release() {
    // Release: pairs with the Acquire of the next holder.
    if STATE.word.swap(0, Release) & WAITERS != 0 {
        let _ = futex::wake(&STATE.word, futex::Flags::PRIVATE, 1);
    }
}

impl Guard {
    /// Keeps the lock over `fork`: it is given back by [`Guard::resume`] in parent and child.
    pub fn suspend_for_fork(mut self) {
        self.fork_mask = self.mask;
        self.fork_cancel = self.cancel.take().map_or(0, NoCancel::suspend);
        std::mem::forget(self);
    }

    /// The guard that [`Guard::suspend_for_fork`] put away.
    ///
    /// # Safety
    /// The calling thread, or in a child the one it is a copy of, holds the lock and has no guard.
    pub unsafe fn resume() -> Self {
        let mut guard = Self {
            mask: 0,
            cancel: None,
        };
        guard.mask = guard.fork_mask;
        guard.cancel = Some(NoCancel::resume(guard.fork_cancel));
        guard
    }
}

impl Deref for Guard {
    type Target = Session;

    fn deref(&self) -> &Session {
        // SAFETY: this thread holds the lock, and the guard is borrowed.
        unsafe { &*STATE.session.get() }
    }
}

impl DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut Session {
        // SAFETY: this thread holds the lock, and the guard is borrowed mutably.
        unsafe { &mut *STATE.session.get() }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        release();
        sys::restore_signals(self.mask);
    }
}
