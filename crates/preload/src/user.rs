// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading and writing what a program points at without a system call, where it is certain to be there.
//! The kernel answers `EFAULT` for what is not; a library would crash. Asking the kernel to copy
//! ([`sys::read_user`]) is safe for any address, and takes as long as a whole `semop` of its own.
//!
//! Certain are the part of the caller's stack that is in use, the program's own static data, and the
//! heap that the C library grows at the program's end. Arguments of these calls lie there nearly
//! always.

use crate::{maps, sys, thread};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::*, compiler_fence};
use vshmem_abi::PAGE_SIZE;
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
    is_certain(start, len, |program| &program.readable)
}

/// Whether `len` bytes from `start` on are certain to be there for reading and writing.
#[inline]
pub fn is_writable(start: usize, len: usize) -> bool {
    is_certain(start, len, |program| &program.writable)
}

#[inline]
fn is_certain(start: usize, len: usize, of: fn(&Program) -> &Segments) -> bool {
    let here = std::hint::black_box(0u8);
    let here = &raw const here as usize;
    let Some(end) = start.checked_add(len) else {
        return false;
    };
    let (low, high) = &thread::current().stack;
    let (low, high) = (low.load(Relaxed), high.load(Relaxed));
    let high = if low <= here && here < high {
        high
    } else {
        look(here)
    };
    (start >= here && end <= high) || in_program(start, end, of) || in_heap(start, end)
}

/// The end of the stack that the calling thread is on.
#[cold]
fn look(here: usize) -> usize {
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
    high
}

type Segments = [Range<usize>; 8];

/// What the program's file has mapped.
#[derive(Default)]
struct Program {
    readable: Segments,
    writable: Segments,
}

/// Whether the range is in one of these parts of the program.
fn in_program(start: usize, end: usize, of: fn(&Program) -> &Segments) -> bool {
    of(program())
        .iter()
        .any(|range| range.start <= start && end <= range.end)
}

fn program() -> &'static Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM.get_or_init(look_at_program)
}

/// The segments of the program, from the headers that the kernel has told it of.
fn look_at_program() -> Program {
    let mut program = Program::default();
    // SAFETY: reads the auxiliary vector.
    let (first, count) = unsafe {
        (
            libc::getauxval(libc::AT_PHDR) as *const libc::Elf64_Phdr,
            libc::getauxval(libc::AT_PHNUM) as usize,
        )
    };
    if first.is_null() {
        return program;
    }
    // SAFETY: the kernel has mapped so many program headers there.
    let headers = unsafe { std::slice::from_raw_parts(first, count) };
    let Some(own) = headers.iter().find(|h| h.p_type == libc::PT_PHDR) else {
        return program;
    };
    let base = (first as usize).wrapping_sub(own.p_vaddr as usize);
    let range_of = |header: &libc::Elf64_Phdr| {
        let start = base.wrapping_add(header.p_vaddr as usize);
        start..start.saturating_add(header.p_memsz as usize)
    };
    // What the loader protects after it has written it lies at the beginning of a segment.
    let protected = headers.iter().find(|h| h.p_type == libc::PT_GNU_RELRO);
    let protected = protected.map_or(0..0, range_of);
    let with = |flag| {
        let wanted =
            move |h: &&libc::Elf64_Phdr| h.p_type == libc::PT_LOAD && h.p_flags & flag != 0;
        headers.iter().filter(wanted).map(range_of)
    };
    for (place, range) in program.readable.iter_mut().zip(with(libc::PF_R)) {
        *place = range;
    }
    for (place, mut range) in program.writable.iter_mut().zip(with(libc::PF_W)) {
        if range.start < protected.end && protected.start < range.end {
            range.start = protected.end;
        }
        *place = range;
    }
    program
}

/// Whether the range is in the heap.
fn in_heap(start: usize, end: usize) -> bool {
    // SAFETY: asks for the end of the heap, which the C library keeps in a variable.
    let heap_end = unsafe { libc::sbrk(0) } as usize;
    end <= heap_end && start >= heap_start(heap_end)
}

/// Where the heap begins, which never changes; where it ends as long as there is none.
fn heap_start(end: usize) -> usize {
    static START: AtomicUsize = AtomicUsize::new(0);
    /// Its end when it was looked for and not found.
    static MISSED: AtomicUsize = AtomicUsize::new(0);
    let start = START.load(Relaxed);
    if start != 0 {
        return start;
    }
    if MISSED.load(Relaxed) != end {
        // It may follow the program's data without a gap.
        let segments = program().readable.iter().map(|range| range.end);
        let data = segments.filter(|&data| data <= end).max().unwrap_or(0);
        match maps::mapping_at(end.wrapping_sub(1)) {
            Some((start, _)) if data.next_multiple_of(PAGE_SIZE as usize) < end => {
                let start = start.max(data);
                START.store(start, Relaxed);
                return start;
            }
            _ => MISSED.store(end, Relaxed),
        }
    }
    end
}
