// SPDX-License-Identifier: MIT OR Apache-2.0
//! A set's region in this process: mapped, checked, and as a place to sleep on.

use super::recover::{Busy, Dead};
use super::{Set, Surroundings};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::thread::futex;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};
use vshmem_abi::set::{LINE, Shape};
use vshmem_abi::token::Token;

/// A mapping of a set's region, for reading and writing; unmapped when dropped.
pub struct SetMap {
    at: NonNull<AtomicU64>,
    shape: Shape,
}

// SAFETY: the mapping is shared memory of atomics; it belongs to no thread.
unsafe impl Send for SetMap {}
// SAFETY: as above; every access goes through an atomic.
unsafe impl Sync for SetMap {}

/// A mapping whose contents are not known to be a set's yet.
struct Raw {
    at: NonNull<AtomicU64>,
    bytes: usize,
}

impl Raw {
    /// Maps a whole file of at least a page, which is sealed against shrinking.
    fn map(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        let bytes = usize::try_from(rustix::fs::fstat(fd)?.st_size).map_err(|_| Errno::PROTO)?;
        if bytes < vshmem_abi::PAGE_SIZE as usize {
            return Err(Errno::PROTO);
        }
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let at = unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, prot, flags, fd, 0)? };
        NonNull::new(at.cast())
            .map(|at| Self { at, bytes })
            .ok_or(Errno::NOMEM)
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: mapped, page-aligned, so many words long; atomics only.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.bytes / 8) }
    }

    fn becomes(self, shape: Shape) -> Result<SetMap, Errno> {
        if !shape.is_sound() || shape.bytes() != self.bytes as u64 {
            return Err(Errno::PROTO);
        }
        let at = self.at;
        std::mem::forget(self);
        Ok(SetMap { at, shape })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, and no reference into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.at.as_ptr().cast(), self.bytes) };
    }
}

impl SetMap {
    /// Makes a set `id` of a region that is all zero, and maps it. Nobody else may have the region yet.
    ///
    /// # Errors
    /// `PROTO` when the file is not of the size that the shape has; else what `fstat` and `mmap` say.
    pub fn create(fd: BorrowedFd<'_>, id: i32, shape: &Shape) -> Result<Self, Errno> {
        let map = Raw::map(fd)?.becomes(*shape)?;
        map.set().init(id);
        Ok(map)
    }

    /// Maps the region of a set.
    ///
    /// # Errors
    /// `PROTO` when it is not one, or its size is not what its first words say; else what `fstat` and
    /// `mmap` say.
    pub fn map(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        let raw = Raw::map(fd)?;
        let shape = Set::shape_told(raw.words()).ok_or(Errno::PROTO)?;
        raw.becomes(shape)
    }

    /// The set.
    #[inline(always)]
    pub fn set(&self) -> Set<'_, AtomicU64> {
        // SAFETY: mapped for as long as `self`, as many words as the shape has (its size was checked
        // against the file, which is sealed against shrinking), page-aligned; atomics only.
        let words = unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.shape.words()) };
        Set {
            words,
            shape: self.shape,
        }
    }

    /// Bytes that are mapped.
    pub fn len(&self) -> usize {
        self.shape.bytes() as usize
    }

    /// Whether nothing is mapped, which cannot be.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where it is mapped.
    pub fn address(&self) -> usize {
        self.at.as_ptr() as usize
    }

    /// Gives up the mapping without unmapping it: it stays for as long as the process does.
    pub fn leak(self) -> Set<'static, AtomicU64> {
        let shape = self.shape;
        // SAFETY: as in `set`; never unmapped from here on.
        let words = unsafe { std::slice::from_raw_parts(self.at.as_ptr(), shape.words()) };
        std::mem::forget(self);
        Set { words, shape }
    }

    /// Tells the waiter at `index` that the set is gone.
    pub fn post_gone(&self, index: u32) {
        self.set().post_gone(index);
        // Whatever its word said: another domain may have given the memory back, which zeroes it.
        wake(self.set(), index);
    }

    /// [`Set::clean_up`] for a daemon. `is_dead` as in [`Surroundings`].
    ///
    /// # Errors
    /// [`Busy`].
    pub fn clean_up(
        &self,
        me: Token,
        dead: Dead,
        now: i64,
        is_dead: &dyn Fn(u32) -> bool,
    ) -> Result<(), Busy> {
        self.set()
            .clean_up(me, dead, now, &self.daemon(me, is_dead))
    }

    /// [`Set::apply_undo`] for a daemon.
    ///
    /// # Errors
    /// [`Busy`].
    pub fn apply_undo(
        &self,
        me: Token,
        undoer: Token,
        pid: i32,
        now: i64,
        is_dead: &dyn Fn(u32) -> bool,
    ) -> Result<(), Busy> {
        let around = self.daemon(me, is_dead);
        self.set().apply_undo(me, undoer, pid, now, &around)
    }

    fn daemon<'a>(&'a self, me: Token, is_dead: &'a dyn Fn(u32) -> bool) -> Daemon<'a> {
        Daemon {
            set: self.set(),
            domid: me.domid(),
            is_dead,
        }
    }
}

impl Drop for SetMap {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, and no reference into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.at.as_ptr().cast(), self.len()) };
    }
}

/// What a daemon brings along.
struct Daemon<'a> {
    set: Set<'a, AtomicU64>,
    domid: u32,
    is_dead: &'a dyn Fn(u32) -> bool,
}

impl Surroundings for Daemon<'_> {
    fn domid(&self) -> u32 {
        self.domid
    }

    fn is_dead(&self, slot: u32) -> bool {
        (self.is_dead)(slot)
    }

    fn wake(&self, waiter: u32) {
        wake(self.set, waiter);
    }
}

/// The word that a waiter sleeps on: the low half of its post word, which every process that maps the
/// region can wake, of whatever domain of this kernel.
#[inline]
pub fn futex_word(set: Set<'_, AtomicU64>, index: u32) -> &AtomicU32 {
    const { assert!(cfg!(target_endian = "little") && LINE == 8) };
    let post: *const AtomicU64 = set.post(index);
    // SAFETY: the first four of the eight bytes of an atomic that lives as long as the set's words. It
    // is handed to the kernel, which reads it as one 32-bit atomic; nobody mixes sizes otherwise.
    unsafe { &*post.cast::<AtomicU32>() }
}

/// Wakes whoever sleeps on the post word of a waiter.
pub fn wake(set: Set<'_, AtomicU64>, index: u32) {
    if index < set.shape().waiters {
        let _ = futex::wake(futex_word(set, index), futex::Flags::empty(), 1);
    }
}
