// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cancellation of threads (`pthread_cancel`): `msgsnd` and `msgrcv` are cancellation points.
//!
//! The C library acts on a request by unwinding the stack from within `pthread_testcancel`. It is called
//! where nothing of ours is on the stack but the frames below, which are of assembly, and have nothing
//! to put away: when such a call begins, and again when its wait has ended because of a request.
//!
//! The C library tells a thread nothing that could be seen before it acts, and may not even signal one that
//! it does not know to be in a cancellation point: so `pthread_cancel` is hooked, and tells the thread
//! ([`Thread::cancel`]) first. From then until the C library has the request any time may go by; the thread
//! asks it again and again ([`not_yet`]).

use crate::sys;
use crate::thread::{self, Thread};
use libc::{c_int, c_long, pthread_t};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*, fence};
use vshmem_engine::sleep_word::SleepWord;

unsafe extern "C" {
    /// Ends the thread if somebody has asked for it.
    fn pthread_testcancel();
}

/// Type of the real `pthread_cancel`.
pub type PthreadCancel = unsafe extern "C" fn(pthread_t) -> c_int;

/// [`Thread::cancel`]: somebody has asked for the thread's end.
const ASKED: u32 = 1;
/// [`Thread::cancel`]: the thread has heeded it: it is about to ask the C library, which does not come back
/// from that if it has the request, or it is in its cleanup handlers.
const HEEDED: u32 = 2;

/// What is to be done with a call of ours.
#[repr(C)]
pub struct Answer {
    /// Its result, or for the last of [`Then`] the errno instead of `EINVAL`, 0: none.
    pub result: c_long,
    /// And then.
    pub then: Then,
}

/// What comes after a call.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It has its result.
    Return = 0,
    /// The thread may have been cancelled: look, and begin again.
    Again = 1,
    /// It is the kernel's.
    Pass = 2,
}

/// Defines a function that is called with the real one and its up to five arguments, and is a
/// cancellation point. It hands them to `$routed`; what that passes on goes to the real function, whose
/// result is then handed to `$after`, with the first argument and the errno that came along.
macro_rules! cancellation_point {
    ($(#[$doc:meta])* $name:ident, $routed:path, $after:path) => {
        $(#[$doc])*
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(
            real: *const (),
            id: libc::c_int,
            msg: *const libc::c_void,
            size: usize,
            fourth: libc::c_long,
            fifth: libc::c_int,
        ) -> libc::c_long {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "sub rsp, 56",
                ".cfi_adjust_cfa_offset 56",
                "mov qword ptr [rsp], rdi",
                "mov qword ptr [rsp + 8], rsi",
                "mov qword ptr [rsp + 16], rdx",
                "mov qword ptr [rsp + 24], rcx",
                "mov qword ptr [rsp + 32], r8",
                "mov qword ptr [rsp + 40], r9",
                "2:",
                "call {test}",
                "mov rdi, qword ptr [rsp + 8]",
                "mov rsi, qword ptr [rsp + 16]",
                "mov rdx, qword ptr [rsp + 24]",
                "mov rcx, qword ptr [rsp + 32]",
                "mov r8, qword ptr [rsp + 40]",
                "call {routed}",
                "cmp edx, {again}",
                "je 4f",
                "jb 3f",
                "mov qword ptr [rsp + 48], rax",
                "mov rdi, qword ptr [rsp + 8]",
                "mov rsi, qword ptr [rsp + 16]",
                "mov rdx, qword ptr [rsp + 24]",
                "mov rcx, qword ptr [rsp + 32]",
                "mov r8, qword ptr [rsp + 40]",
                "call qword ptr [rsp]",
                "mov rdi, rax",
                "mov rsi, qword ptr [rsp + 8]",
                "mov rdx, qword ptr [rsp + 48]",
                "call {after}",
                "3:",
                "add rsp, 56",
                ".cfi_adjust_cfa_offset -56",
                "ret",
                "4:",
                ".cfi_adjust_cfa_offset 56",
                "call {test}",
                "call {not_yet}",
                "jmp 2b",
                ".cfi_endproc",
                test = sym $crate::cancel::test,
                not_yet = sym $crate::cancel::not_yet,
                routed = sym $routed,
                after = sym $after,
                again = const $crate::cancel::Then::Again as u32,
            )
        }
    };
}
pub(crate) use cancellation_point;

/// [`pthread_testcancel`], as a jump.
///
/// # Safety
/// The caller's frame needs no putting away.
#[unsafe(naked)]
pub unsafe extern "C" fn test() {
    core::arch::naked_asm!("jmp qword ptr [rip + {test}@GOTPCREL]", test = sym pthread_testcancel)
}

/// The C library did not have the request that the thread has heeded: whoever makes it has announced it, and
/// not got further. It is to be heeded again.
pub extern "C" fn not_yet() {
    let _ = thread::current()
        .cancel
        .compare_exchange(HEEDED, ASKED, Relaxed, Relaxed);
}

/// `pthread_cancel(3)`.
///
/// # Safety
/// As `real`, which is the C library's.
pub unsafe fn cancel(real: PthreadCancel, target: pthread_t) -> c_int {
    // A thread's handle is its thread pointer, and its data of ours lies as far from it as this thread's.
    let distance = thread::current() as *const Thread as usize
        - vshmem_engine::death_mark::thread_pointer() as usize;
    let data = (target as usize).wrapping_add(distance) as *const Thread;
    // SAFETY: the thread has not been joined, nor has it ended detached, or the handle would mean nothing.
    let sleeps_on = unsafe { &*data }.ask();
    // SAFETY: passed on as it came. From here on the thread may be gone.
    let result = unsafe { real(target) };
    if let Some(word) = sleeps_on {
        // The signal may have come just before it fell asleep.
        word.disturb();
    }
    result
}

/// Set in [`Thread::sleeps_on`] for a word of a wait page, which is aligned for it to be free.
const IN_WAIT_PAGE: usize = 1;

fn as_address(word: SleepWord<'static>) -> *mut () {
    match word {
        SleepWord::Post(post) => post.as_ptr().cast(),
        SleepWord::Wakes(count) => count.as_ptr().cast::<()>().map_addr(|at| at | IN_WAIT_PAGE),
    }
}

/// # Safety
/// Null, or what [`as_address`] gave.
unsafe fn as_word(address: *mut ()) -> Option<SleepWord<'static>> {
    let at = address.map_addr(|at| at & !IN_WAIT_PAGE);
    // SAFETY: as the caller promises: a word in a region or in a wait page, of which the addresses stay
    // mapped until the process ends.
    unsafe {
        if at == address {
            at.cast::<AtomicU64>().as_ref().map(SleepWord::Post)
        } else {
            at.cast::<AtomicU32>().as_ref().map(SleepWord::Wakes)
        }
    }
}

impl Thread {
    /// Somebody else is about to ask for the end of this thread; what it sleeps on, if it does.
    fn ask(&self) -> Option<SleepWord<'static>> {
        let _ = self.cancel.compare_exchange(0, ASKED, SeqCst, Relaxed);
        fence(SeqCst);
        // SAFETY: the thread has stored nothing else there.
        unsafe { as_word(self.sleeps_on.load(SeqCst)) }
    }

    /// The thread is about to sleep on `word`, and has to look afterwards whether it
    /// [`Self::is_asked`]: whoever asks now finds it.
    pub fn set_sleeps_on(&self, word: Option<SleepWord<'static>>) {
        let address = word.map_or(std::ptr::null_mut(), as_address);
        self.sleeps_on.store(address, SeqCst);
        fence(SeqCst);
    }

    /// Whether somebody is about to ask for the thread's end, or has, which has to be looked at.
    pub fn is_asked(&self) -> bool {
        self.cancel.load(Relaxed) == ASKED && sys::may_be_cancelled()
    }

    /// The same, once.
    pub fn heeds(&self) -> bool {
        let asked = self.is_asked();
        if asked {
            self.cancel.store(HEEDED, Relaxed);
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_thread_sleeps_is_told_in_one_word() {
        let post: &'static AtomicU64 = Box::leak(Box::default());
        let wakes: &'static AtomicU32 = Box::leak(Box::default());
        // SAFETY: null, and what was made of words that stay.
        unsafe {
            assert!(as_word(std::ptr::null_mut()).is_none());
            let told = as_word(as_address(SleepWord::Post(post)));
            assert!(matches!(told, Some(SleepWord::Post(at)) if std::ptr::eq(at, post)));
            let told = as_word(as_address(SleepWord::Wakes(wakes)));
            assert!(matches!(told, Some(SleepWord::Wakes(at)) if std::ptr::eq(at, wakes)));
        }
    }
}
