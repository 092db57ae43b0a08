// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sleeping on a word of shared memory until it is woken, with the interruptions of the kernel's own
//! `semop`: by a signal handler, and by a stop, after which the call has failed though no handler
//! ran. The kernel restarts `FUTEX_WAIT` in silence then, so it is not to be seen in the result.
//! (`msgsnd` and `msgrcv` are restarted by the kernel, too.)
//!
//! It is seen by a restartable sequence (`rseq(2)`, which the C library registers for each thread).
//! The `syscall` instruction alone is the sequence. A restarted call comes back to user mode *at* this
//! instruction, that is within the sequence, which the kernel aborts, since the thread was off its
//! processor. Whether the call had begun, or the thread only lost its processor before it, shows in
//! `rcx`, where the processor leaves the address after the instruction.
//! Where there is no `rseq` (before glibc 2.35, or switched off) a stop goes unnoticed.

use rustix::time::Timespec;
use std::arch::asm;
use std::ffi::{CStr, c_long, c_uint};
use std::sync::atomic::{AtomicIsize, AtomicU32, AtomicU64, Ordering::Relaxed};
use vshmem_engine::death_mark::thread_pointer;

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slept {
    /// Somebody woke it; also for no reason.
    Woken,
    /// There was none: the word was another one.
    Changed,
    /// The time is over.
    TimedOut,
    /// A signal handler has run.
    Interrupted,
    /// The thread was stopped, or a handler has run that restarts calls: here `semop` of the kernel fails
    /// with `EINTR`.
    Restarted,
}

/// Sleeps while `word` is `expected` until it is woken, for no longer than `timeout`.
#[inline(never)]
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Timespec>) -> Slept {
    let nowhere = AtomicU64::new(0);
    let sequence = sequence_of_thread().unwrap_or(&raw const nowhere);
    let timeout: *const Timespec = timeout.as_ref().map_or(std::ptr::null(), |time| time);
    let mut result: c_long = libc::SYS_futex;
    // SAFETY: the system call reads what the pointers lead to, and writes nothing. `sequence` is the
    // thread's own word for this purpose, or a local one; it leads to a description (`struct rseq_cs`)
    // that lies in this library. Aborts begin after the C library's signature.
    unsafe {
        asm!(
            ".pushsection .data.rel.ro.vshmem_sleep, \"aw\"",
            ".balign 32",
            "5:",
            ".long 0, 0",                   // version, flags
            ".quad 3f, 4f - 3f, 6f",        // first address, length, where aborts lead
            ".popsection",
            "2:",
            "lea {description}, [rip + 5b]",
            "xor ecx, ecx",
            "mov qword ptr [{sequence}], {description}",
            "3:",
            "syscall",
            "4:",
            "jmp 7f",
            ".byte 0x0f, 0xb9, 0x3d",       // with the signature: an instruction that is none
            ".long 0x53053053",
            "6:",
            "test rcx, rcx",
            "jz 2b",                        // nothing has happened; the word is compared again
            "mov rax, {restarted}",
            "7:",
            "mov qword ptr [{sequence}], 0",
            description = out(reg) _,
            sequence = in(reg) sequence,
            restarted = const RESTARTED,
            inlateout("rax") result,
            in("rdi") word.as_ptr(),
            in("rsi") libc::FUTEX_WAIT,
            in("rdx") c_long::from(expected),
            in("r10") timeout,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    const TIMED_OUT: c_long = -libc::ETIMEDOUT as c_long;
    const INTERRUPTED: c_long = -libc::EINTR as c_long;
    /// Nothing that the kernel returns from this call.
    const RESTARTED: c_long = -libc::ERESTART as c_long;
    match result {
        0 => Slept::Woken,
        TIMED_OUT => Slept::TimedOut,
        INTERRUPTED => Slept::Interrupted,
        RESTARTED => Slept::Restarted,
        _ => Slept::Changed,
    }
}

/// Where the kernel looks for the description of the sequence that this thread is in; `None` when
/// the C library has not told it to.
fn sequence_of_thread() -> Option<*const AtomicU64> {
    let offset = match OFFSET.load(Relaxed) {
        UNKNOWN => look_for_offset(),
        offset => offset,
    };
    if offset == NONE {
        return None;
    }
    Some(thread_pointer().wrapping_offset(offset).cast_const().cast())
}

/// Offset of that word from the thread pointer.
static OFFSET: AtomicIsize = AtomicIsize::new(UNKNOWN);

const UNKNOWN: isize = isize::MIN;
const NONE: isize = isize::MAX;

/// Where `rseq_cs` lies in `struct rseq` of the kernel.
const RSEQ_CS: isize = 8;

#[cold]
fn look_for_offset() -> isize {
    let size = variable::<c_uint>(c"__rseq_size").unwrap_or(0);
    let offset = match variable::<isize>(c"__rseq_offset") {
        Some(offset) if size > 0 => offset + RSEQ_CS,
        _ => NONE,
    };
    OFFSET.store(offset, Relaxed);
    offset
}

/// The value of a variable of the C library.
fn variable<T: Copy>(name: &CStr) -> Option<T> {
    // SAFETY: the name is a C string.
    let at = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    // SAFETY: null, or a variable of the type that `sys/rseq.h` gives it, which never changes.
    unsafe { at.cast::<T>().as_ref() }.copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use rustix::thread::futex;
    use std::ptr;

    /// A word that is shared with children.
    fn shared_word() -> &'static AtomicU32 {
        let (prot, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new mapping, large enough, never unmapped.
        unsafe {
            let at = libc::mmap(ptr::null_mut(), 4096, prot, flags, -1, 0);
            assert_ne!(at, libc::MAP_FAILED);
            &*at.cast()
        }
    }

    fn wake(word: &AtomicU32) -> usize {
        futex::wake(word, futex::Flags::empty(), u32::MAX).expect("wake")
    }

    fn ms(ms: i64) -> Option<Timespec> {
        Some(Timespec {
            tv_sec: ms / 1000,
            tv_nsec: ms % 1000 * 1_000_000,
        })
    }

    struct Child(libc::pid_t);

    impl Child {
        /// A child that sleeps on `word` while it is 0, and exits with how that ended.
        fn sleeping(word: &AtomicU32, timeout: Option<Timespec>, prepare: fn()) -> Self {
            // SAFETY: the child makes system calls only.
            let pid = unsafe { libc::fork() };
            assert!(pid >= 0);
            if pid == 0 {
                prepare();
                let slept = wait(word, 0, timeout);
                // SAFETY: ends the child.
                unsafe { libc::_exit(slept as i32 + 10) }
            }
            let child = Self(pid);
            child.until_state('S');
            child
        }

        /// Until it is in this state, in the system call.
        fn until_state(&self, state: char) {
            loop {
                let read = |name| std::fs::read_to_string(format!("/proc/{}/{name}", self.0));
                // Around the state: it may be that of a sleep before the call.
                let call = || read("syscall").unwrap_or_else(|_| "202 ".into());
                let before = call();
                let stat = read("stat").expect("stat");
                let now = stat.rsplit(") ").next().and_then(|s| s.chars().next());
                let sleeping = before.starts_with("202 ") || before.starts_with("219 ");
                if now == Some(state) && (state != 'S' || sleeping && call() == before) {
                    return;
                }
                std::thread::yield_now();
            }
        }

        fn send(&self, signal: i32) {
            // SAFETY: a signal to a child that has not been waited for.
            assert_eq!(unsafe { libc::kill(self.0, signal) }, 0);
        }

        fn stop_and_continue(&self) {
            self.send(libc::SIGSTOP);
            self.until_state('T');
            self.send(libc::SIGCONT);
        }

        fn slept(self) -> Slept {
            let mut status = 0;
            // SAFETY: the pointer is to a local.
            assert_eq!(unsafe { libc::waitpid(self.0, &mut status, 0) }, self.0);
            assert!(libc::WIFEXITED(status), "status {status:#x}");
            [
                Slept::Woken,
                Slept::Changed,
                Slept::TimedOut,
                Slept::Interrupted,
                Slept::Restarted,
            ]
            .into_iter()
            .find(|slept| *slept as i32 + 10 == libc::WEXITSTATUS(status))
            .expect("a way to end")
        }
    }

    extern "C" fn handler(_: i32) {}

    fn handle(signal: i32, handler: usize, flags: i32) {
        // SAFETY: a valid structure; the handler does nothing.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler;
            action.sa_flags = flags;
            assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
        }
    }

    const TIMEOUTS: [Option<Timespec>; 2] = [
        None,
        Some(Timespec {
            tv_sec: 100_000,
            tv_nsec: 0,
        }),
    ];

    /// Whether the kernel looks at sequences when it restarts a system call.
    fn stops_are_seen() -> bool {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let mut numbers = release.split(['.', '-']).map(|n| n.parse().unwrap_or(0));
        let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        version < (6, 19) && sequence_of_thread().is_some()
    }

    #[test]
    fn a_word_that_has_changed_lets_nobody_sleep() {
        assert_eq!(wait(&AtomicU32::new(1), 0, None), Slept::Changed);
        assert_eq!(wait(&AtomicU32::new(1), 0, ms(5)), Slept::Changed);
        let bad = AtomicU32::new(u32::MAX);
        assert_eq!(wait(&bad, u32::MAX, ms(1)), Slept::TimedOut);
    }

    #[test]
    fn time_ends_a_sleep_and_not_too_early() {
        let begin = std::time::Instant::now();
        assert_eq!(wait(&AtomicU32::new(0), 0, ms(30)), Slept::TimedOut);
        assert!(begin.elapsed() >= std::time::Duration::from_millis(30));
        assert_eq!(wait(&AtomicU32::new(0), 0, ms(0)), Slept::TimedOut);
    }

    #[test]
    fn processes_and_threads_are_woken() {
        for timeout in TIMEOUTS {
            let word = shared_word();
            let child = Child::sleeping(word, timeout, || ());
            let threads = [(); 2].map(|()| std::thread::spawn(move || wait(word, 0, timeout)));
            let mut woken = 0;
            while woken < 3 {
                woken += wake(word);
            }
            assert_eq!(child.slept(), Slept::Woken);
            for thread in threads {
                assert_eq!(thread.join().expect("thread"), Slept::Woken);
            }
        }
    }

    #[test]
    fn handlers_interrupt_whatever_their_flags() {
        for timeout in TIMEOUTS {
            let word = shared_word();
            let child = Child::sleeping(word, timeout, || {
                handle(libc::SIGUSR1, handler as *const () as usize, 0)
            });
            child.send(libc::SIGUSR1);
            assert_eq!(child.slept(), Slept::Interrupted);
            if stops_are_seen() {
                let child = Child::sleeping(word, timeout, || {
                    handle(
                        libc::SIGUSR1,
                        handler as *const () as usize,
                        libc::SA_RESTART,
                    );
                });
                child.send(libc::SIGUSR1);
                assert_ne!(child.slept(), Slept::Woken);
            }
        }
    }

    #[test]
    fn stopping_interrupts_without_a_handler() {
        if !stops_are_seen() {
            eprintln!("skipped: no restartable sequences here");
            return;
        }
        for timeout in TIMEOUTS {
            let word = shared_word();
            for _ in 0..50 {
                let child = Child::sleeping(word, timeout, || ());
                child.stop_and_continue();
                assert_eq!(child.slept(), Slept::Restarted);
            }
            let child = Child::sleeping(word, timeout, || handle(libc::SIGCONT, libc::SIG_IGN, 0));
            child.stop_and_continue();
            assert_eq!(child.slept(), Slept::Restarted);
        }
    }

    #[test]
    fn a_thread_is_interrupted_by_a_stop_of_its_process() {
        if !stops_are_seen() {
            eprintln!("skipped: no restartable sequences here");
            return;
        }
        let word = shared_word();
        let elsewhere = shared_word();
        // SAFETY: the child makes one thread and uses nothing that others may have locked.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let thread = std::thread::spawn(move || wait(word, 0, None));
            let own = wait(word, 0, None);
            let other = thread.join();
            let both = own == Slept::Restarted && matches!(other, Ok(Slept::Restarted));
            // SAFETY: ends the child.
            unsafe {
                libc::_exit(if both {
                    Slept::Restarted as i32 + 10
                } else {
                    1
                })
            }
        }
        let child = Child(pid);
        // Until both are there: whoever sleeps is counted by being moved to another word.
        let mut there = 0;
        while there < 2 {
            there += futex::requeue(word, futex::Flags::empty(), 0, 2, elsewhere).expect("requeue");
        }
        child.stop_and_continue();
        assert_eq!(child.slept(), Slept::Restarted);
    }

    #[test]
    fn ignored_signals_and_being_moved_do_not_interrupt() {
        for timeout in TIMEOUTS {
            let word = shared_word();
            let child = Child::sleeping(word, timeout, || handle(libc::SIGUSR1, libc::SIG_IGN, 0));
            for _ in 0..20 {
                for signal in [libc::SIGWINCH, libc::SIGUSR1, libc::SIGCONT, libc::SIGURG] {
                    child.send(signal);
                }
                std::thread::yield_now();
            }
            child.until_state('S');
            while wake(word) == 0 {}
            assert_eq!(child.slept(), Slept::Woken);
        }
    }

    #[test]
    fn losing_the_processor_before_the_call_is_no_interruption() {
        // Two that hand a word to each other while others want the processors.
        let word = AtomicU32::new(0);
        let busy = AtomicU32::new(1);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| while busy.load(Relaxed) == 1 {});
            }
            let play = |own: u32| {
                for _ in 0..20_000 {
                    while word.load(Relaxed) != own {
                        let slept = wait(&word, 1 - own, ms(100_000));
                        assert!(matches!(slept, Slept::Woken | Slept::Changed), "{slept:?}");
                    }
                    word.store(1 - own, Relaxed);
                    assert_ne!(
                        futex::wake(&word, futex::Flags::empty(), 1),
                        Err(Errno::FAULT)
                    );
                }
            };
            let other = scope.spawn(move || play(0));
            play(1);
            other.join().expect("thread");
            busy.store(0, Relaxed);
        });
    }
}
