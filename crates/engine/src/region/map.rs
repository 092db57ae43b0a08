// SPDX-License-Identifier: MIT OR Apache-2.0
//! A region in this process: mapped, checked, and as a place to sleep on.

use super::recover::{Busy, Dead};
use super::{Kind, Region, Surroundings};
use crate::mapping::{FileId, MapError, Place, Source};
use crate::sleep_word::SleepWord;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use vshmem_abi::token::Token;

/// A mapping of a region, for reading and writing; unmapped when dropped.
pub struct RegionMap<K> {
    at: NonNull<AtomicU64>,
    shape: K,
    bytes: usize,
    file: FileId,
}

// SAFETY: the mapping is shared memory of atomics; it belongs to no thread.
unsafe impl<K: Send> Send for RegionMap<K> {}
// SAFETY: as above; every access goes through an atomic.
unsafe impl<K: Sync> Sync for RegionMap<K> {}

/// A mapping whose contents are not known yet.
struct Raw {
    at: NonNull<AtomicU64>,
    bytes: usize,
    file: FileId,
}

impl Raw {
    /// Maps a whole region.
    fn map(source: &Source<'_>) -> Result<Self, MapError> {
        let bytes = usize::try_from(source.len).map_err(|_| Errno::PROTO)?;
        if bytes < vshmem_abi::PAGE_SIZE as usize {
            return Err(Errno::PROTO.into());
        }
        let place = Place {
            flags: MapFlags::NORESERVE,
            ..Place::anywhere(ProtFlags::READ | ProtFlags::WRITE)
        };
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let mapped = unsafe { source.map(place) }?;
        let file = mapped.file;
        NonNull::new(mapped.at as *mut AtomicU64)
            .map(|at| Self { at, bytes, file })
            .ok_or(MapError::Os(Errno::NOMEM))
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: mapped, page-aligned, so many words long; atomics only.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.bytes / 8) }
    }

    fn becomes<K: Kind>(self, shape: K) -> Result<RegionMap<K>, MapError> {
        if !shape.is_sound() || shape.bytes() != self.bytes as u64 {
            return Err(Errno::PROTO.into());
        }
        let (at, bytes, file) = (self.at, self.bytes, self.file);
        std::mem::forget(self);
        Ok(RegionMap {
            at,
            shape,
            bytes,
            file,
        })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, and no reference into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.at.as_ptr().cast(), self.bytes) };
    }
}

impl<K: Kind> RegionMap<K> {
    /// Makes a construct `id` of a region that is all zero, and maps it. Nobody else may have the region yet.
    ///
    /// # Errors
    /// [`MapError`]; `PROTO` of the system when the region is not of the size that the shape has.
    pub fn create(source: &Source<'_>, id: i32, shape: &K) -> Result<Self, MapError> {
        let map = Raw::map(source)?.becomes(*shape)?;
        map.region().init(id);
        Ok(map)
    }

    /// Maps the region of a construct.
    ///
    /// # Errors
    /// [`MapError`]; `PROTO` of the system when it is not one of this kind, or its size is not what its first words
    /// say.
    pub fn map(source: &Source<'_>) -> Result<Self, MapError> {
        let raw = Raw::map(source)?;
        let shape = Region::shape_told(raw.words()).ok_or(Errno::PROTO)?;
        raw.becomes(shape)
    }

    /// The region.
    #[inline(always)]
    pub fn region(&self) -> Region<'_, AtomicU64, K> {
        // SAFETY: mapped for as long as `self`, as many words as the shape has (its size was checked
        // against that of the mapping), page-aligned; atomics only.
        let words = unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.shape.words()) };
        Region {
            words,
            shape: self.shape,
        }
    }

    /// Bytes that are mapped.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is mapped, which cannot be.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where it is mapped.
    pub fn address(&self) -> usize {
        self.at.as_ptr() as usize
    }

    /// The file that it is a mapping of.
    pub fn file(&self) -> FileId {
        self.file
    }

    /// Gives up the mapping without unmapping it: it stays for as long as the process does.
    pub fn leak(self) -> Region<'static, AtomicU64, K> {
        let shape = self.shape;
        // SAFETY: as in `region`; never unmapped from here on.
        let words = unsafe { std::slice::from_raw_parts(self.at.as_ptr(), shape.words()) };
        std::mem::forget(self);
        Region { words, shape }
    }

    /// Tells the waiter at `index`, which sleeps in `slot` of the domain's wait page if not here, that the
    /// construct is gone.
    pub fn post_gone(&self, index: u32, slot: u32, with: &With<'_>) {
        self.region().post_gone(index);
        // Whatever its word said: another domain may have given the memory back, which zeroes it.
        match with.wake {
            None => wake(self.region(), index),
            Some(wake) => wake(with.me.domid(), slot),
        }
    }

    /// [`Region::clean_up`] for a daemon.
    ///
    /// # Errors
    /// [`Busy`].
    pub fn clean_up(&self, dead: Dead, now: i64, with: &With<'_>) -> Result<(), Busy> {
        self.region()
            .clean_up(with.me, dead, now, &self.daemon(with))
    }

    /// What the engine needs from a daemon.
    pub(crate) fn daemon<'a>(&'a self, with: &'a With<'a>) -> Daemon<'a, K> {
        Daemon {
            region: self.region(),
            with,
        }
    }
}

impl<K> Drop for RegionMap<K> {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, and no reference into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.at.as_ptr().cast(), self.bytes) };
    }
}

/// What a daemon brings along to a region.
#[derive(Clone, Copy)]
pub struct With<'a> {
    /// Its token.
    pub me: Token,
    /// As in [`Surroundings`].
    pub is_dead: &'a dyn Fn(u32) -> bool,
    /// Wakes who sleeps in a slot of a domain's wait page; `None` where waiters sleep in the region.
    pub wake: Option<&'a dyn Fn(u32, u32)>,
}

/// A daemon in a region.
pub(crate) struct Daemon<'a, K> {
    region: Region<'a, AtomicU64, K>,
    with: &'a With<'a>,
}

impl<K: Kind> Surroundings for Daemon<'_, K> {
    fn domid(&self) -> u32 {
        self.with.me.domid()
    }

    fn is_dead(&self, slot: u32) -> bool {
        (self.with.is_dead)(slot)
    }

    fn wake(&self, waiter: u32) {
        match self.with.wake {
            None => wake(self.region, waiter),
            Some(wake) => {
                if let Some((domid, slot)) = self.region.place_of(waiter) {
                    wake(domid, slot);
                }
            }
        }
    }
}

/// Wakes whoever sleeps on the post word of a waiter, where futexes work in the region.
#[inline]
pub fn wake<K: Kind>(region: Region<'_, AtomicU64, K>, index: u32) {
    if index < region.shape().waiters() {
        SleepWord::wake_changed(region.post(index));
    }
}
