// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the library knows of the calling thread: whether it is in a critical section, in which no
//! signal handler of the program may run, and what it waits for. Signal handlers look here
//! ([`crate::signals`]), so it is reached by two plain loads: `std`'s way to a thread's own data in a
//! shared library is a call of the loader's, which may allocate after a `dlopen`.

use crate::sys::{self, SignalMask};
use std::arch::{asm, global_asm};
use std::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
    compiler_fence,
};

/// The signals by which the kernel tells a thread of its own faults: blocked, they kill.
const FAULTS: SignalMask = bit(libc::SIGSEGV)
    | bit(libc::SIGBUS)
    | bit(libc::SIGFPE)
    | bit(libc::SIGILL)
    | bit(libc::SIGTRAP)
    | bit(libc::SIGSYS);

/// What is blocked while signals are held back. The kernel leaves the last two out of any mask.
const HELD_BACK: SignalMask = !(FAULTS | bit(libc::SIGKILL) | bit(libc::SIGSTOP));

/// A signal's bit in a mask.
const fn bit(signal: i32) -> SignalMask {
    1 << ((signal - 1) & 63)
}

/// Whether the kernel sends this signal for what a thread itself has done.
pub fn is_fault(signal: i32) -> bool {
    bit(signal) & FAULTS != 0
}

/// A wait that a signal handler ends before it runs. It lies at the beginning of its owner's
/// structure, on the stack of the thread that waits.
pub struct Wait {
    /// Ends the wait. Called on the same thread, with all signals blocked, at most once for each
    /// [`Thread::set_waiting`]; leaves errno alone.
    pub cancel: unsafe fn(*const Wait),
}

/// Where the record of a wait is left behind that a signal handler has ended: the thread may never come
/// back to free it. It lies at the beginning of its owner's structure, which stays until the process
/// ends.
pub struct Left {
    /// Frees the record.
    pub free: unsafe fn(*const Left, u32),
}

/// A thread's own data. All zero at its birth.
#[repr(C)]
pub struct Thread {
    /// 1 in a critical section.
    critical: AtomicU32,
    /// 1 if a signal came meanwhile: all are blocked until the section ends.
    held_back: AtomicU32,
    /// The signal mask from before that.
    mask: AtomicU64,
    waiting: AtomicPtr<Wait>,
    /// Bounds of the stack that the thread was last seen on ([`crate::user`]).
    pub stack: (AtomicUsize, AtomicUsize),
    /// What [`crate::wait`] has left behind: where, and which waiter's record there.
    pub left: (AtomicPtr<Left>, AtomicU32),
    /// Whether somebody has asked for its end ([`crate::cancel`]).
    pub cancel: AtomicU32,
    /// The word that the thread sleeps on, or is about to, where it may be cancelled ([`crate::cancel`]).
    pub sleeps_on: AtomicPtr<()>,
}

const _: () = assert!(size_of::<Thread>() == 72 && align_of::<Thread>() == 8);

global_asm!(
    ".pushsection .tbss.vshmem_thread, \"awT\", @nobits",
    ".hidden vshmem_thread",
    ".globl vshmem_thread",
    ".type vshmem_thread, @object",
    ".size vshmem_thread, 72",
    ".balign 8",
    "vshmem_thread:",
    ".zero 72",
    ".popsection",
);

/// The calling thread's data. Not to be handed to other threads.
#[inline(always)]
pub fn current() -> &'static Thread {
    let at: *const Thread;
    // SAFETY: the initial-exec model of thread-local data on x86-64, of a symbol defined above with
    // the size and alignment of a `Thread`, which may be zero, and which lives as long as its thread.
    unsafe {
        asm!(
            "mov {at}, qword ptr [rip + vshmem_thread@GOTTPOFF]",
            "add {at}, qword ptr fs:[0]",
            at = out(reg) at,
            options(pure, nomem, nostack),
        );
        &*at
    }
}

impl Thread {
    /// Begins a critical section. `false`: the thread is in one already, which a handler that does not
    /// go through [`crate::signals`] has interrupted; no lock may be taken then.
    #[inline(always)]
    pub fn enter(&self) -> bool {
        if self.critical.load(Relaxed) != 0 {
            return false;
        }
        self.critical.store(1, Relaxed);
        compiler_fence(SeqCst);
        true
    }

    /// Ends it, and lets in the signals that came meanwhile.
    #[inline(always)]
    pub fn leave(&self) {
        compiler_fence(SeqCst);
        self.critical.store(0, Relaxed);
        compiler_fence(SeqCst);
        if self.held_back.load(Relaxed) != 0 {
            self.let_in();
        }
    }

    #[cold]
    #[inline(never)]
    fn let_in(&self) {
        let mask = self.mask.load(Relaxed);
        // Only now: a signal that comes before is held back as well.
        compiler_fence(SeqCst);
        self.held_back.store(0, Relaxed);
        sys::restore_signals(mask);
    }

    /// Whether the thread is in a critical section.
    pub fn is_critical(&self) -> bool {
        self.critical.load(Relaxed) != 0
    }

    /// Whether signals have to be held back.
    pub fn holds_back(&self) -> bool {
        self.is_critical() || self.held_back.load(Relaxed) != 0
    }

    /// Has signals blocked from the return of a handler on until [`Self::leave`], `signal` among them,
    /// which the handler was called for; `mask` is the one that its return puts in force. To be
    /// called with all signals blocked.
    pub fn hold_back(&self, signal: i32, mask: &mut SignalMask) {
        // A handler that interrupted another one at its very beginning has been here first, with the
        // mask of that handler.
        if *mask & HELD_BACK != HELD_BACK || self.held_back.load(Relaxed) == 0 {
            self.mask.store(*mask, Relaxed);
            self.held_back.store(1, Relaxed);
        }
        *mask |= HELD_BACK | bit(signal);
    }

    /// A handler that runs from now on ends this wait first. Before the thread leaves the critical
    /// section in which it began to wait, or there is a moment in which no handler does.
    pub fn set_waiting(&self, wait: *const Wait) {
        self.waiting.store(wait.cast_mut(), Relaxed);
        compiler_fence(SeqCst);
    }

    /// Nothing is waited for any more.
    pub fn clear_waiting(&self) {
        compiler_fence(SeqCst);
        self.waiting.store(std::ptr::null_mut(), Relaxed);
        compiler_fence(SeqCst);
    }

    /// Leaves a record behind, and frees the one before, of a wait that was left behind by a handler that
    /// jumped away.
    pub fn leave_behind(&self, left: *const Left, record: u32) {
        let (place, index) = &self.left;
        let (before, of) = (place.load(Relaxed), index.load(Relaxed));
        place.store(left.cast_mut(), Relaxed);
        index.store(record, Relaxed);
        // SAFETY: null, or what was left there before, which stays until the process ends.
        unsafe {
            if let Some(left) = before.as_ref() {
                (left.free)(before, of);
            }
        }
    }

    /// Whether this record was left behind, and was not freed since; it is not left any more.
    pub fn comes_back_for(&self, left: *const Left, record: u32) -> bool {
        let (place, index) = &self.left;
        let is_it = std::ptr::eq(place.load(Relaxed), left) && index.load(Relaxed) == record;
        if is_it {
            place.store(std::ptr::null_mut(), Relaxed);
        }
        is_it
    }

    /// Ends the wait, if there is one, for a handler that is about to run.
    pub fn end_wait(&self) {
        if self.waiting.load(Relaxed).is_null() {
            return;
        }
        // Or a second handler would run while the wait is half ended, and could jump away.
        let mask = sys::block_signals();
        let wait = self.waiting.swap(std::ptr::null_mut(), Relaxed);
        // SAFETY: what waits has cleared the pointer before it went away, and this is its thread.
        unsafe {
            if let Some(found) = wait.as_ref() {
                (found.cancel)(wait);
            }
        }
        sys::restore_signals(mask);
    }
}
