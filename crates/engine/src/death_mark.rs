// SPDX-License-Identifier: MIT OR Apache-2.0
//! A word in memory that others may write, which the kernel marks when the thread that has put it on
//! its robust list dies (`get_robust_list(2)`, `Documentation/locking/robust-futex-ABI.rst`).
//!
//! The list is the one that the C library has registered for each thread and uses for robust
//! mutexes. Those cannot be used as they are: unlocking one follows pointers that lie in the mutex, so
//! whoever can write there could make us write anywhere. Here nothing is ever read back from the
//! shared memory: what is needed to take an entry out again is kept by the caller.
//!
//! Entries are taken out in the opposite order in which they were put in, by the same thread. What the
//! kernel does with a list that somebody has tampered with, at the end of a thread, is bounded, and
//! touches only words that hold the dead thread's number.

use std::ffi::{c_int, c_long};
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering::*, compiler_fence};

/// An entry: the word, and some way behind it, since the C library has other things of its mutexes in
/// between, the links.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    word: &'a AtomicU64,
    links: &'a [AtomicU64; 2],
}

impl<'a> Place<'a> {
    /// An entry of this word and these links.
    pub(crate) fn new(word: &'a AtomicU64, links: &'a [AtomicU64; 2]) -> Self {
        let place = Self { word, links };
        debug_assert_eq!(word.as_ptr() as c_long - place.link() as c_long, OFFSET);
        place
    }

    /// The address by which the entry is known.
    fn link(self) -> usize {
        self.links[NEXT].as_ptr() as usize
    }
}

/// In [`Place::links`]: the link to the previous entry, which the C library keeps up for its own.
const PREVIOUS: usize = 0;
/// In [`Place::links`]: the link to the next entry, by whose address an entry is known.
const NEXT: usize = 1;

/// Distance from an entry's link to its word, which is one for all entries of a thread.
const OFFSET: c_long = -32;

/// `struct robust_list_head` of `linux/futex.h`.
#[repr(C)]
struct Head {
    list: usize,
    futex_offset: c_long,
    pending: usize,
}

/// What is needed to take an entry out of the list again; `None` where it is in none.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Mark {
    before: Option<usize>,
}

/// Distance of the list's head from the thread pointer, the same for all threads; [`UNKNOWN`] before
/// it was looked up, [`NONE`] where the list is not as we know it.
static HEAD: AtomicIsize = AtomicIsize::new(UNKNOWN);
const UNKNOWN: isize = isize::MIN;
const NONE: isize = isize::MAX;

/// Distance of the thread's number from the head, in the C library's own data; checked before it is
/// relied on.
const TID: isize = -16;

/// Puts the word of `place` on this thread's list: when the thread dies, however it
/// dies, the kernel sets `FUTEX_OWNER_DIED` in it, before anybody can learn of the death otherwise.
/// `place` is of a mapping that stays until the thread has ended or [`clear`] was called.
pub(crate) fn set(place: Place<'_>) -> Mark {
    let Some(head) = head() else {
        return Mark { before: None };
    };
    let link = place.link();
    // SAFETY: `head` is this thread's own, which it alone writes and the kernel reads when it dies. An
    // entry's previous link lies before its next link, also in the C library's own.
    unsafe {
        let before = (*head).list;
        // A handler may have interrupted the C library just here.
        let pending = (*head).pending;
        place.links[PREVIOUS].store(head as u64, Relaxed);
        place.links[NEXT].store(before as u64, Relaxed);
        (&raw mut (*head).pending).write_volatile(link);
        compiler_fence(SeqCst);
        place.word.store(tid(head) as u64, Relaxed);
        previous_of(before).write_volatile(link);
        compiler_fence(SeqCst);
        (&raw mut (*head).list).write_volatile(link);
        compiler_fence(SeqCst);
        (&raw mut (*head).pending).write_volatile(pending);
        Mark {
            before: Some(before),
        }
    }
}

/// Takes the word off the list again.
pub(crate) fn clear(place: Place<'_>, mark: Mark) {
    if let (Some(head), Some(before)) = (head(), mark.before) {
        let link = place.link();
        // SAFETY: as in `set`. An entry that is not the first any more stays: its word names nobody, so
        // the kernel passes it over.
        unsafe {
            if (*head).list == link {
                (&raw mut (*head).list).write_volatile(before);
                compiler_fence(SeqCst);
                previous_of(before).write_volatile(head as usize);
            }
        }
    }
    place.word.store(0, Release);
}

/// Whether the thread that has set the mark with this word is dead.
#[inline]
pub(crate) fn is_set_off(word: &AtomicU64) -> bool {
    word.load(Acquire) as u32 & libc::FUTEX_OWNER_DIED != 0
}

/// The previous link of the entry, or head, that `link` leads to; its lowest bit says of what kind it
/// is.
fn previous_of(link: usize) -> *mut usize {
    ((link & !1) - (NEXT - PREVIOUS) * 8) as *mut usize
}

fn head() -> Option<*mut Head> {
    let offset = match HEAD.load(Relaxed) {
        UNKNOWN => look_up(),
        offset => offset,
    };
    (offset != NONE).then(|| thread_pointer().wrapping_offset(offset).cast())
}

#[cold]
fn look_up() -> isize {
    let mut head: *mut Head = std::ptr::null_mut();
    let mut len = 0usize;
    // SAFETY: the kernel writes the address of this thread's list, and its length, to the two.
    let failed =
        unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) };
    let is_known = || {
        // SAFETY: a list that the C library has registered, of the length that was compared.
        unsafe { (*head).futex_offset == OFFSET && tid(head) == gettid() }
    };
    let offset = if failed == 0 && !head.is_null() && len == size_of::<Head>() && is_known() {
        head as isize - thread_pointer() as isize
    } else {
        NONE
    };
    HEAD.store(offset, Relaxed);
    offset
}

/// The number of this thread, as the C library has noted it beside the list.
///
/// # Safety
/// `head` is the thread's own.
unsafe fn tid(head: *const Head) -> c_int {
    // SAFETY: as the caller promises; within the thread's own data, which the C library has there.
    unsafe { head.cast::<u8>().offset(TID).cast::<c_int>().read() }
}

fn gettid() -> c_int {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Address of the calling thread's own block of data, which the C library puts at the top of the stack
/// of every thread but the first.
pub fn thread_pointer() -> *mut u8 {
    let own: *mut u8;
    // SAFETY: reads the word that the ABI of x86-64 puts there: its own address.
    unsafe {
        std::arch::asm!("mov {}, fs:0", out(reg) own, options(nostack, readonly, preserves_flags));
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::robust;

    /// A mutex of the C library.
    type Mutex = [AtomicU64; 5];

    fn mutex() -> &'static Mutex {
        Box::leak(Box::default())
    }

    fn place() -> Place<'static> {
        let [word, _, _, links @ ..] = mutex();
        Place::new(word, links)
    }

    #[test]
    fn the_list_is_as_we_know_it() {
        assert!(head().is_some());
    }

    #[test]
    fn a_thread_that_ends_sets_its_mark_off_and_one_that_cleared_it_does_not() {
        let (left, cleared) = (place(), place());
        let thread = std::thread::spawn(move || {
            let _ = set(left);
            let mark = set(cleared);
            clear(cleared, mark);
        });
        thread.join().unwrap();
        assert!(is_set_off(left.word));
        assert_eq!(cleared.word.load(Relaxed), 0);
    }

    #[test]
    fn robust_mutexes_of_the_program_go_on_working_around_a_mark() {
        let (older, mark, younger, kept) = (mutex(), place(), mutex(), mutex());
        let thread = std::thread::spawn(move || {
            robust::hold(older).unwrap();
            robust::hold(kept).unwrap();
            let _for_ever = set(mark);
            robust::hold(younger).unwrap();
            robust::release(older);
            robust::release(younger);
        });
        thread.join().unwrap();
        assert!(is_set_off(mark.word) && is_set_off(&kept[0]));
        assert!(!is_set_off(&older[0]) && !is_set_off(&younger[0]));
    }

    #[test]
    fn links_that_somebody_has_changed_meanwhile_are_not_followed() {
        let outer = place();
        let thread = std::thread::spawn(move || {
            let first = set(outer);
            let inner = place();
            let mark = set(inner);
            inner.links[NEXT].store(0x10, Relaxed);
            inner.links[PREVIOUS].store(0x10, Relaxed);
            clear(inner, mark);
            clear(outer, first);
            let _ = set(outer);
        });
        thread.join().unwrap();
        assert!(is_set_off(outer.word));
    }
}
