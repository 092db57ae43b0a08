// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes of the process's user and groups. What the library has found a caller allowed to do holds
//! until the next one; the functions that make them are hooked for this alone.

use crate::next::Next;
use std::ffi::c_long;
use std::sync::atomic::{AtomicU32, Ordering::*};

static EPOCH: AtomicU32 = AtomicU32::new(0);

/// How many changes there may have been.
#[inline(always)]
pub fn epoch() -> u32 {
    EPOCH.load(Acquire)
}

/// Hands on the result of a call that may have changed them.
pub fn after<T>(result: T) -> T {
    EPOCH.fetch_add(1, Release);
    result
}

/// Bits of the system calls that change them, counted from [`FIRST`].
pub const CALLS: u32 = 1 << (libc::SYS_setuid - FIRST)
    | 1 << (libc::SYS_setgid - FIRST)
    | 1 << (libc::SYS_setreuid - FIRST)
    | 1 << (libc::SYS_setregid - FIRST)
    | 1 << (libc::SYS_setgroups - FIRST)
    | 1 << (libc::SYS_setresuid - FIRST)
    | 1 << (libc::SYS_setresgid - FIRST)
    | 1 << (libc::SYS_setfsuid - FIRST)
    | 1 << (libc::SYS_setfsgid - FIRST);

/// The lowest number of those system calls.
pub const FIRST: c_long = libc::SYS_setuid;

/// How far from it the highest is.
pub const SPAN: c_long = libc::SYS_setfsgid - FIRST;

type Syscall = unsafe extern "C" fn(c_long, c_long, c_long, c_long) -> c_long;

// SAFETY: none of the calls that come this way has more than three arguments; what is passed
// beyond those that the number has is ignored.
static SYSCALL: Next<Syscall> = unsafe { Next::new(c"syscall") };

/// `syscall(2)` with one of the numbers of [`CALLS`].
///
/// # Safety
/// As that system call.
pub unsafe extern "C" fn syscall(number: c_long, a: c_long, b: c_long, c: c_long) -> c_long {
    // SAFETY: passed on as it came.
    after(unsafe { SYSCALL.get()(number, a, b, c) })
}
