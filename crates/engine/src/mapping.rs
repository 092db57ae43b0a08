// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mapping a shared layout, or the memory of a region, into this process. The one place of this crate that deals in
//! raw memory; all else works on the atomics of [`vshmem_abi::layout`].

mod grants;
mod source;

pub use grants::{Device, Gntdev, GrantList, KeptList};
pub use source::{FileId, How, MapError, Mapped, Place, Source};

use rustix::io::Errno;
use rustix::mm::ProtFlags;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use vshmem_abi::PAGE_SIZE;
use vshmem_abi::layout::Shared;

/// Bytes that a file holding a `T` has: its size in whole pages.
pub const fn file_size<T>() -> u64 {
    (size_of::<T>() as u64).div_ceil(PAGE_SIZE) * PAGE_SIZE
}

/// A shared mapping of a `T`, unmapped when dropped.
pub struct Mapping<T: Shared> {
    at: NonNull<T>,
}

// SAFETY: the mapping is shared memory of atomics (`Shared`); it belongs to no thread.
unsafe impl<T: Shared> Send for Mapping<T> {}
// SAFETY: as above; every access goes through an atomic.
unsafe impl<T: Shared> Sync for Mapping<T> {}

impl<T: Shared> Mapping<T> {
    /// Maps the beginning of the file `fd`, for reading or for reading and writing.
    ///
    /// # Errors
    /// `PROTO` when the file is too small for a `T`: touching what it lacks would be a `SIGBUS`.
    /// Else what `fstat` and `mmap` say.
    pub fn new(fd: BorrowedFd<'_>, writable: bool) -> Result<Self, Errno> {
        let (how, len) = (How::Direct, file_size::<T>());
        Self::of(&Source { fd, how, len }, writable).map_err(MapError::errno)
    }

    /// Maps a region that holds a `T`, likewise.
    ///
    /// # Errors
    /// [`MapError`]; `PROTO` of the system when it is not of the size of a `T`.
    pub fn of(source: &Source<'_>, writable: bool) -> Result<Self, MapError> {
        if source.len != file_size::<T>() {
            return Err(Errno::PROTO.into());
        }
        let prot = if writable {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let mapped = unsafe { source.map(Place::anywhere(prot)) }?;
        NonNull::new(mapped.at as *mut T)
            .map(|at| Self { at })
            .ok_or(MapError::Os(Errno::NOMEM))
    }

    /// Keeps the mapping out of children made by `fork`.
    pub fn not_inherited(&self) -> Result<(), Errno> {
        let len = file_size::<T>() as usize;
        // SAFETY: the range is this mapping, and nothing in this process changes by the advice.
        unsafe {
            rustix::mm::madvise(
                self.at.as_ptr().cast(),
                len,
                rustix::mm::Advice::LinuxDontFork,
            )
        }
    }

    /// Has the kernel finish with the pages that this thread has just put into the file. A page goes to a list of its
    /// processor's first, which holds it for a while. Whoever then seals the file on another processor waits until
    /// the kernel's own threads have emptied the lists of all: usually 50 us, and several milliseconds
    /// where the machine is busy.
    pub fn settle(&self) {
        // Of the calls that empty this processor's list it is the one that does nothing else here. Where the
        // kernel does not know it (before 5.4), sealing takes that long.
        // SAFETY: the first page is this mapping's, and its contents do not change by the advice.
        let _ = unsafe {
            rustix::mm::madvise(
                self.at.as_ptr().cast(),
                PAGE_SIZE as usize,
                rustix::mm::Advice::LinuxCold,
            )
        };
    }

    /// Address of the mapping, for those who must look at it without touching it.
    pub fn address(&self) -> usize {
        self.at.as_ptr() as usize
    }

    /// Gives up the mapping without unmapping it: it stays for as long as the process does.
    pub fn leak(self) -> &'static T {
        let at = self.at;
        std::mem::forget(self);
        // SAFETY: mapped and never unmapped from here on; `T` is atomics only.
        unsafe { at.as_ref() }
    }

    /// Forgets the mapping because it is not there: in a child of `fork` that did not inherit it.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl<T: Shared> std::ops::Deref for Mapping<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `at` is mapped, large enough (checked against the file, which is sealed against
        // shrinking, or a device, which has no size) and page-aligned; `T` is atomics only, so others may write at any time.
        unsafe { self.at.as_ref() }
    }
}

impl<T: Shared> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, and no reference into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.at.as_ptr().cast(), file_size::<T>() as usize) };
    }
}
