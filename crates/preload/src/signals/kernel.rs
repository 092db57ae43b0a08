// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's calls for signals that have to be made as they are: the C library's functions would
//! go through our own hooks, or hide what they do.

use crate::sys::{self, SignalMask};
use libc::{c_int, c_ulong, sighandler_t, siginfo_t};

/// `struct sigaction` of the kernel.
#[repr(C)]
struct Action {
    handler: sighandler_t,
    flags: c_ulong,
    restorer: usize,
    mask: SignalMask,
}

/// Gives `signal` its default action, as the kernel does for `SA_RESETHAND`: mask and flags stay;
/// `flags` are those of `SA_SIGINFO` and `SA_RESETHAND` that the program gave.
pub fn reset_handler(signal: c_int, flags: c_int) {
    let mut action = Action {
        handler: libc::SIG_DFL,
        flags: 0,
        restorer: 0,
        mask: 0,
    };
    let old = &raw mut action as usize;
    let call = libc::SYS_rt_sigaction;
    // SAFETY: the pointer is to a structure of the kernel's layout, and the size to its mask's.
    if unsafe { sys::raw(call, [signal as usize, 0, old, 8, 0, 0]) }.is_ok() {
        action.handler = libc::SIG_DFL;
        action.flags = action.flags & !(libc::SA_SIGINFO as c_ulong) | flags as c_ulong;
        let new = &raw const action as usize;
        // SAFETY: as above; no code is installed.
        let _ = unsafe { sys::raw(call, [signal as usize, new, 0, 8, 0, 0]) };
    }
}

/// Unblocks the signals of `mask` in this thread, and returns the mask before.
pub fn unblock(mask: SignalMask) -> SignalMask {
    let mut old: SignalMask = 0;
    let (mask, old_at) = (&raw const mask as usize, &raw mut old as usize);
    let args = [libc::SIG_UNBLOCK as usize, mask, old_at, 8, 0, 0];
    // SAFETY: both pointers are to masks of the size given.
    let _ = unsafe { sys::raw(libc::SYS_rt_sigprocmask, args) };
    old
}

/// Sends this thread a signal once more that it has received.
///
/// # Safety
/// `info` is what the kernel gave the handler.
pub unsafe fn send_again(signal: c_int, info: *mut siginfo_t) {
    let pid = sys::own_pid() as usize;
    let tid = rustix::thread::gettid().as_raw_nonzero().get() as usize;
    let args = [pid, tid, signal as usize, info as usize, 0, 0];
    // SAFETY: the kernel checks what the pointer leads to.
    if unsafe { sys::raw(libc::SYS_rt_tgsigqueueinfo, args) }.is_err() {
        // No memory for the information, or too many signals are queued. One from `kill` needs none.
        // SAFETY: the kernel made it for the handler, which has not begun yet.
        unsafe { (*info).si_code = libc::SI_USER };
        // SAFETY: as above.
        let _ = unsafe { sys::raw(libc::SYS_rt_tgsigqueueinfo, args) };
    }
}
