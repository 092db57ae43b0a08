// SPDX-License-Identifier: MIT OR Apache-2.0
//! `fork`: a child inherits what its parent has attached, and counts from its first moment.
//!
//! `vshmemd` is told before the fork and makes connection and client page of the child, so that
//! the child is counted even if it never runs our code, and its parent's end in between frees
//! nothing under it. The handlers are registered before the program's own: the C library runs
//! them last before and first after the fork, so the lock is held for the fork alone.

use crate::lock::{self, Guard};

/// Registers the handlers with the C library.
pub fn register() {
    // SAFETY: the handlers are functions of this library, which is never unloaded.
    unsafe { libc::pthread_atfork(Some(prepare), Some(in_parent), Some(in_child)) };
}

unsafe extern "C" fn prepare() {
    let mut session = lock::enter();
    session.notice_fork();
    session.prepare_child();
    // The mask travels in the session, which the lock still guards.
    session.suspend_for_fork();
}

unsafe extern "C" fn in_parent() {
    let mut session = resumed();
    session.child = None;
}

unsafe extern "C" fn in_child() {
    let mut session = resumed();
    session.become_child();
}

fn resumed() -> Guard {
    // SAFETY: `prepare` took the lock in this thread and suspended it.
    unsafe { Guard::resume() }
}
