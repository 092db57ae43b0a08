// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading what a program points at without a system call, where it is certain to be there. The
//! kernel answers `EFAULT` for what is not; a library would crash. Asking the kernel to copy
//! ([`sys::read_user`]) is safe for any address, and takes as long as a whole `semop` of its own.
//!
//! Certain are the part of the caller's stack that is in use, and the program's own static data.
//! Arguments of these calls lie there nearly always.

use crate::{maps, sys, thread};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{Ordering::*, compiler_fence};
use vshmem_engine::death_mark::thread_pointer;

/// Reads a `T` at an address that the program gave; `None` where the kernel would say `EFAULT`.
#[inline]
pub fn read<T: Copy>(from: *const T) -> Option<T> {
    if is_there(from as usize, size_of::<T>()) {
        // SAFETY: mapped for reading; unaligned, as the kernel takes it; plain data of C.
        Some(unsafe { from.read_unaligned() })
    } else {
        sys::read_user(from)
    }
}

/// Whether `len` bytes from `start` on are certain to be readable.
#[inline]
pub fn is_there(start: usize, len: usize) -> bool {
    let here = std::hint::black_box(0u8);
    let here = &raw const here as usize;
    let Some(end) = start.checked_add(len) else {
        return false;
    };
    let (low, high) = &thread::current().stack;
    let (low, high) = (low.load(Relaxed), high.load(Relaxed));
    if low <= here && here < high {
        (start >= here && end <= high) || in_program(start, end)
    } else {
        look(here, start, end)
    }
}

#[cold]
fn look(here: usize, start: usize, end: usize) -> bool {
    let bounds = maps::mapping_at(here).unwrap_or((here, here + 1));
    // What lies above the stack of a thread that the C library made may belong to others, and go: its
    // own block of data ends it.
    let own = thread_pointer() as usize;
    let high = if own > here && own < bounds.1 {
        own
    } else {
        bounds.1
    };
    let own = &thread::current().stack;
    // A handler that comes in between sees an empty stack, and looks itself.
    own.1.store(0, Relaxed);
    compiler_fence(SeqCst);
    own.0.store(bounds.0, Relaxed);
    compiler_fence(SeqCst);
    own.1.store(high, Relaxed);
    (start >= here && end <= high) || in_program(start, end)
}

/// Whether the range is in what the program's file has mapped for reading.
fn in_program(start: usize, end: usize) -> bool {
    static PROGRAM: OnceLock<[Range<usize>; 8]> = OnceLock::new();
    let ranges = PROGRAM.get_or_init(program_ranges);
    ranges
        .iter()
        .any(|range| range.start <= start && end <= range.end)
}

/// The readable segments of the program, from the headers that the kernel has told it of.
fn program_ranges() -> [Range<usize>; 8] {
    let mut ranges: [Range<usize>; 8] = Default::default();
    // SAFETY: reads the auxiliary vector.
    let (first, count) = unsafe {
        (
            libc::getauxval(libc::AT_PHDR) as *const libc::Elf64_Phdr,
            libc::getauxval(libc::AT_PHNUM) as usize,
        )
    };
    if first.is_null() {
        return ranges;
    }
    // SAFETY: the kernel has mapped so many program headers there.
    let headers = unsafe { std::slice::from_raw_parts(first, count) };
    let Some(own) = headers.iter().find(|h| h.p_type == libc::PT_PHDR) else {
        return ranges;
    };
    let base = (first as usize).wrapping_sub(own.p_vaddr as usize);
    let readable = |h: &&libc::Elf64_Phdr| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_R != 0;
    for (range, header) in ranges.iter_mut().zip(headers.iter().filter(readable)) {
        let start = base.wrapping_add(header.p_vaddr as usize);
        *range = start..start.saturating_add(header.p_memsz as usize);
    }
    ranges
}
