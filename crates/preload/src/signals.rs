// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program's signal handlers. A handler that it installs is kept here, and the kernel gets ours,
//! which sees to it that
//! - none runs while the thread holds the lock of a construct: the signal is held back for that long, and
//!   then delivered as it came;
//! - a thread that waits in a call does so no more when the handler runs, which may jump away.
//!
//! ADR 9 has the reasons. All that is visible to the program is as if there were nothing in between:
//! what `sigaction` says, flags and masks, and the stack on which its handler runs.
//!
//! The kernel is the one who knows whether a signal has a handler: an entry here means something only
//! while the kernel has ours. Two threads that change the handler of the same signal at the same moment
//! may end with the function of one and the mask of the other.

mod kernel;

use crate::config::config;
use crate::sys;
use crate::thread::{self, is_fault};
use libc::{c_int, c_void, sighandler_t, siginfo_t};
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering::*};
use vshmem_abi::layout::Shared;

/// Type of the real `sigaction`.
pub type SigAction =
    unsafe extern "C" fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int;
/// Type of the real `signal` and its kin.
pub type Signal = unsafe extern "C" fn(c_int, sighandler_t) -> sighandler_t;
/// Type of the real `siginterrupt`.
pub type SigInterrupt = unsafe extern "C" fn(c_int, c_int) -> c_int;

/// The program's handlers, by signal: address, and in the bits that no address has, which of the
/// flags below the program gave.
static HANDLERS: [AtomicU64; 65] = [const { AtomicU64::new(0) }; 65];

/// `SA_SIGINFO` of an entry: the kernel always has it, since it hands over the siginfo only then.
const SIGINFO: u64 = 1 << 63;
/// `SA_RESETHAND` of an entry: the kernel never has it, since a signal that is held back is delivered
/// twice.
const RESETHAND: u64 = 1 << 62;
const FLAGS: u64 = SIGINFO | RESETHAND;

/// Signals whose handlers `signal` installs without `SA_RESTART`, as `siginterrupt` said.
static INTERRUPTING: AtomicU64 = AtomicU64::new(0);

/// Historical flag, which `sysv_signal` of the C library gives.
const SA_INTERRUPT: c_int = 0x2000_0000;

/// `SIG_HOLD` of `signal.h`: what `sigset` has beside handlers.
const SIG_HOLD: sighandler_t = 2;

fn entry(signal: c_int) -> Option<&'static AtomicU64> {
    HANDLERS.get(usize::try_from(signal).ok()?)
}

fn is_function(handler: sighandler_t) -> bool {
    !matches!(
        handler,
        libc::SIG_DFL | libc::SIG_IGN | libc::SIG_ERR | SIG_HOLD
    ) && handler as u64 & FLAGS == 0
        && handler != ours()
}

fn ours() -> sighandler_t {
    begin_handler as *const () as sighandler_t
}

/// `sigaction(2)`.
///
/// # Safety
/// As `real`, which is the C library's.
pub unsafe fn action(
    real: SigAction,
    signal: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    let (Some(_), Some(entry)) = (config(), entry(signal)) else {
        // SAFETY: passed on as it came.
        return unsafe { real(signal, new, old) };
    };
    let before = entry.load(Relaxed);
    // SAFETY: null, or the program's, which the C library would read as well.
    let mut wrapped = unsafe { new.as_ref() }.copied();
    if let Some(new) = &mut wrapped
        && is_function(new.sa_sigaction)
        && is_own_table()
    {
        // Before the kernel has it: from then on it is called. A signal without a handler finds
        // nothing here.
        entry.store(packed(new), Relaxed);
        new.sa_sigaction = ours();
        new.sa_flags = (new.sa_flags | libc::SA_SIGINFO) & !libc::SA_RESETHAND;
    }
    let new = wrapped.as_ref().map_or(std::ptr::null(), |new| new);
    // SAFETY: the pointers are the program's, or to a copy of what it gave.
    let result = unsafe { real(signal, new, old) };
    if result == 0 {
        // SAFETY: null, or the program's, and written by the call.
        let old = unsafe { old.as_mut() };
        if let Some(old) = old.filter(|old| old.sa_sigaction == ours()) {
            unpack(before, old);
        }
    }
    result
}

/// What the program gave, for the table.
fn packed(action: &libc::sigaction) -> u64 {
    let mut entry = action.sa_sigaction as u64;
    if action.sa_flags & libc::SA_SIGINFO != 0 {
        entry |= SIGINFO;
    }
    if action.sa_flags & libc::SA_RESETHAND != 0 {
        entry |= RESETHAND;
    }
    entry
}

/// Makes what the kernel has of what the program gave.
fn unpack(entry: u64, action: &mut libc::sigaction) {
    action.sa_sigaction = (entry & !FLAGS) as sighandler_t;
    action.sa_flags &= !(libc::SA_SIGINFO | libc::SA_RESETHAND);
    action.sa_flags |= flags_of(entry);
}

fn flags_of(entry: u64) -> c_int {
    let siginfo = if entry & SIGINFO != 0 {
        libc::SA_SIGINFO
    } else {
        0
    };
    let resethand = if entry & RESETHAND != 0 {
        libc::SA_RESETHAND
    } else {
        0
    };
    siginfo | resethand
}

/// Pid of the process whose memory this is; zeroed in a child that gets a copy.
#[repr(transparent)]
struct Owner(AtomicI32);

// SAFETY: an atomic alone.
unsafe impl Shared for Owner {}

static OWNER: AtomicPtr<Owner> = AtomicPtr::new(std::ptr::null_mut());

/// Whether the table is this process's own, and not that of the parent that a child of `vfork`
/// shares its memory with: such a child installs its handlers as they are.
fn is_own_table() -> bool {
    if OWNER.load(Acquire).is_null() {
        let Ok(owner) = sys::wiped_on_fork::<Owner>() else {
            return true;
        };
        // Two at once, or a handler within: one page is of no use.
        let owner = std::ptr::from_ref(owner).cast_mut();
        let _ = OWNER.compare_exchange(std::ptr::null_mut(), owner, AcqRel, Relaxed);
    }
    // SAFETY: a page that is mapped for as long as the process lives.
    let Some(owner) = (unsafe { OWNER.load(Acquire).as_ref() }) else {
        return true;
    };
    let own = sys::own_pid();
    match owner.0.compare_exchange(0, own, Relaxed, Relaxed) {
        Ok(_) => true,
        Err(pid) => pid == own,
    }
}

/// `signal(3)`, which is `bsd_signal` and `ssignal` too.
///
/// # Safety
/// As `real` and `real_action`, which are the C library's.
pub unsafe fn signal(
    real: Signal,
    real_action: SigAction,
    signal: c_int,
    handler: sighandler_t,
) -> sighandler_t {
    let restart = if INTERRUPTING.load(Relaxed) & bit(signal) == 0 {
        libc::SA_RESTART
    } else {
        0
    };
    // SAFETY: as this function.
    unsafe { simple(real, real_action, signal, handler, restart, bit(signal)) }
}

/// `sysv_signal(3)`.
///
/// # Safety
/// As `real` and `real_action`, which are the C library's.
pub unsafe fn sysv_signal(
    real: Signal,
    real_action: SigAction,
    signal: c_int,
    handler: sighandler_t,
) -> sighandler_t {
    let flags = libc::SA_RESETHAND | libc::SA_NODEFER | SA_INTERRUPT;
    // SAFETY: as this function.
    unsafe { simple(real, real_action, signal, handler, flags, 0) }
}

/// `sigset(3)`.
///
/// # Safety
/// As `real` and `real_action`, which are the C library's.
pub unsafe fn sigset(
    real: Signal,
    real_action: SigAction,
    signal: c_int,
    handler: sighandler_t,
) -> sighandler_t {
    let wraps = wraps(signal, handler);
    // SAFETY: as this function.
    let old = unsafe { simple(real, real_action, signal, handler, 0, 0) };
    if wraps && old != libc::SIG_ERR && kernel::unblock(bit(signal)) & bit(signal) != 0 {
        return SIG_HOLD;
    }
    old
}

/// A signal's bit in a mask.
fn bit(signal: c_int) -> u64 {
    1 << (signal.wrapping_sub(1) & 63)
}

/// Whether the kernel gets our handler in the place of this one.
fn wraps(signal: c_int, handler: sighandler_t) -> bool {
    // The C library refuses signals of its own; the real function knows which.
    let own = |signal| (32..34).contains(&signal);
    config().is_some() && entry(signal).is_some() && !own(signal) && is_function(handler)
}

/// Installs a handler by one of the functions that take nothing else: a function with these flags and
/// this mask, all others as the real one does.
unsafe fn simple(
    real: Signal,
    real_action: SigAction,
    signal: c_int,
    handler: sighandler_t,
    flags: c_int,
    mask: u64,
) -> sighandler_t {
    if !wraps(signal, handler) {
        let before = entry(signal).map_or(0, |entry| entry.load(Relaxed));
        // SAFETY: passed on as it came.
        let old = unsafe { real(signal, handler) };
        return if old == ours() {
            (before & !FLAGS) as sighandler_t
        } else {
            old
        };
    }
    // SAFETY: all zero bytes are valid for this plain C structure, an empty mask among them.
    let (mut new, mut old): (libc::sigaction, libc::sigaction) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    new.sa_sigaction = handler;
    new.sa_flags = flags;
    // SAFETY: the kernel's mask is the first word of the C library's, which is larger.
    unsafe { (&raw mut new.sa_mask).cast::<u64>().write(mask) };
    // SAFETY: both pointers are to locals.
    if unsafe { action(real_action, signal, &new, &mut old) } == 0 {
        old.sa_sigaction
    } else {
        libc::SIG_ERR
    }
}

/// `siginterrupt(3)`. The C library remembers what it is told for its own `signal` only.
///
/// # Safety
/// As `real`, which is the C library's.
pub unsafe fn siginterrupt(real: SigInterrupt, signal: c_int, interrupts: c_int) -> c_int {
    // SAFETY: passed on as it came. It changes a flag of what the kernel has, which stays ours.
    let result = unsafe { real(signal, interrupts) };
    if result == 0 {
        if interrupts != 0 {
            INTERRUPTING.fetch_or(bit(signal), Relaxed);
        } else {
            INTERRUPTING.fetch_and(!bit(signal), Relaxed);
        }
    }
    result
}

/// The handler that the kernel has. It goes on to the program's with a jump, the stack and the
/// arguments as the kernel made them: whoever walks the stack finds nothing of ours.
#[unsafe(naked)]
unsafe extern "C" fn begin_handler(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    core::arch::naked_asm!(
        "push rdi",
        "push rsi",
        "push rdx",                         // with the return address: the stack is aligned
        "call {prepare}",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "test rax, rax",
        "jz 2f",
        "jmp rax",
        "2:",
        "ret",
        prepare = sym prepare,
    )
}

/// Where the kernel's `struct ucontext` has the signal mask.
const CONTEXT_MASK: usize = std::mem::offset_of!(libc::ucontext_t, uc_sigmask);

/// Puts in order what the program's handler must not meet, and returns its address; 0 when it is not
/// to run yet.
unsafe extern "C" fn prepare(signal: c_int, info: *mut siginfo_t, context: *mut c_void) -> usize {
    let thread = thread::current();
    // SAFETY: the kernel made it for this handler.
    let is_own_fault = is_fault(signal) && unsafe { (*info).si_code } > 0;
    if thread.holds_back() && !is_own_fault {
        sys::block_signals();
        // SAFETY: the kernel made it for this handler, and puts the mask in it in force afterwards.
        thread.hold_back(signal, unsafe {
            &mut *context.byte_add(CONTEXT_MASK).cast::<u64>()
        });
        // Blocked, it stays pending until they are let in.
        // SAFETY: as above.
        unsafe { kernel::send_again(signal, info) };
        return 0;
    }
    if !thread.is_critical() {
        thread.end_wait();
    }
    let entry = entry(signal).map_or(0, |entry| entry.load(Relaxed));
    if entry & RESETHAND != 0 {
        kernel::reset_handler(signal, flags_of(entry));
    }
    (entry & !FLAGS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thread::Wait;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU32;

    /// One at a time: the handlers write to statics.
    static ALONE: Mutex<()> = Mutex::new(());

    static STEP: AtomicU32 = AtomicU32::new(0);
    static CANCELLED: AtomicU32 = AtomicU32::new(0);
    static HANDLED: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
    static VALUE: AtomicU64 = AtomicU64::new(0);

    unsafe extern "C" fn handler(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
        let place = HANDLED.iter().find(|place| place.load(SeqCst) == 0);
        place
            .expect("not so often")
            .store(STEP.fetch_add(1, SeqCst), SeqCst);
        // SAFETY: these signals come from `sigqueue`.
        VALUE.store(unsafe { (*info).si_value() }.sival_ptr as u64, SeqCst);
    }

    unsafe fn cancel(_: *const Wait) {
        CANCELLED.store(STEP.fetch_add(1, SeqCst), SeqCst);
    }

    /// Has the kernel call our handler, and that one the one above.
    fn begin(signal: c_int, flags: c_int, entry_flags: u64) {
        STEP.store(1, SeqCst);
        CANCELLED.store(0, SeqCst);
        HANDLED.iter().for_each(|handled| handled.store(0, SeqCst));
        HANDLERS[signal as usize].store(handler as *const () as u64 | entry_flags, SeqCst);
        // SAFETY: a valid structure, and a handler of the type that the flags say.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = ours();
            action.sa_flags = flags | libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
        }
    }

    fn queue(signal: c_int, value: usize) {
        let sival_ptr = value as *mut c_void;
        // SAFETY: a signal to this thread.
        unsafe {
            libc::pthread_sigqueue(libc::pthread_self(), signal, libc::sigval { sival_ptr });
        }
    }

    fn mask() -> u64 {
        kernel::unblock(0)
    }

    fn handled() -> [u32; 3] {
        std::array::from_fn(|n| HANDLED[n].load(SeqCst))
    }

    #[test]
    fn a_signal_in_a_critical_section_is_held_back_and_comes_as_it_was() {
        let _alone = ALONE.lock();
        let thread = thread::current();
        for flags in [0, libc::SA_NODEFER, libc::SA_RESTART, libc::SA_ONSTACK] {
            begin(libc::SIGUSR1, flags, SIGINFO);
            let before = mask();
            assert!(thread.enter() && !thread.enter());
            queue(libc::SIGUSR1, 4711);
            assert_eq!(handled(), [0, 0, 0]);
            thread.leave();
            assert_eq!(handled(), [1, 0, 0]);
            assert_eq!(VALUE.load(SeqCst), 4711);
            assert_eq!(mask(), before);
        }
    }

    #[test]
    fn all_that_come_in_a_critical_section_are_held_back() {
        let _alone = ALONE.lock();
        let thread = thread::current();
        begin(libc::SIGUSR1, 0, SIGINFO);
        begin(libc::SIGRTMIN(), 0, SIGINFO);
        begin(libc::SIGSEGV, 0, SIGINFO);
        let before = mask();
        assert!(thread.enter());
        queue(libc::SIGUSR1, 1);
        // One that stays unblocked, since it may be the kernel's for a fault.
        queue(libc::SIGSEGV, 2);
        queue(libc::SIGRTMIN(), 3);
        assert_eq!(handled(), [0, 0, 0]);
        thread.leave();
        assert_eq!(handled(), [1, 2, 3]);
        assert_eq!(mask(), before);
        assert!(thread.enter());
        thread.leave();
        assert_eq!(mask(), before);
    }

    #[test]
    fn a_handler_that_is_reset_survives_being_held_back() {
        let _alone = ALONE.lock();
        let thread = thread::current();
        begin(libc::SIGUSR2, 0, SIGINFO | RESETHAND);
        assert!(thread.enter());
        queue(libc::SIGUSR2, 5);
        thread.leave();
        assert_eq!(handled(), [1, 0, 0]);
        // SAFETY: both pointers are to locals or null.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGUSR2, std::ptr::null(), &mut now);
            assert_eq!(now.sa_sigaction, libc::SIG_DFL);
            let given = libc::SA_SIGINFO | libc::SA_RESETHAND;
            assert_eq!(now.sa_flags as u32 & given as u32, given as u32);
        }
    }

    #[test]
    fn a_wait_ends_before_the_handler_runs_and_once() {
        let _alone = ALONE.lock();
        let thread = thread::current();
        begin(libc::SIGUSR1, 0, SIGINFO);
        let wait = Wait { cancel };
        assert!(thread.enter());
        thread.set_waiting(&wait);
        queue(libc::SIGUSR1, 6);
        assert_eq!((CANCELLED.load(SeqCst), handled()), (0, [0, 0, 0]));
        thread.leave();
        assert_eq!((CANCELLED.load(SeqCst), handled()), (1, [2, 0, 0]));
        queue(libc::SIGUSR1, 6);
        assert_eq!((CANCELLED.load(SeqCst), handled()), (1, [2, 3, 0]));
        thread.set_waiting(&wait);
        thread.clear_waiting();
        queue(libc::SIGUSR1, 6);
        assert_eq!((CANCELLED.load(SeqCst), handled()), (1, [2, 3, 4]));
    }
}
