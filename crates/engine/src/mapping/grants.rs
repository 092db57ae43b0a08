// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory of another domain on Xen, mapped from gntdev by a grant list.
//!
//! What Linux's `drivers/xen/gntdev.c` does decides how: a mapping stays when the descriptor is closed, and all that
//! it took is given back when it goes, however the process ends. What was prepared once is mapped once, as a whole:
//! each mapping takes its own request. The first request of a descriptor gets index 0, each further one the index
//! where the last ended; the index is what `/proc/PID/maps` shows as the offset. A paravirtual guest does not let
//! children of `fork` inherit the mapping, others do.

use super::source::{FileId, MapError, Place, map_shared};
use rustix::fs::{FileType, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl};
use rustix::mm::{MapFlags, ProtFlags};
use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use vshmem_abi::PAGE_SIZE;
use vshmem_abi::grants::{
    GNTDEV, GrantRef, IOCTL_GNTDEV_MAP_GRANT_REF, IOCTL_GNTDEV_UNMAP_GRANT_REF, LIST_MAGIC,
    LIST_REQUEST, ListHead, MapGrantRef, READ_ONLY, UnmapGrantRef, list_bytes,
};

/// The seals without which the kernel would be handed what others change meanwhile.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::WRITE);

/// gntdev's part in mapping grants, or what stands for it in tests.
pub trait Device {
    /// Opens the device.
    ///
    /// # Errors
    /// What `open` says.
    fn open(&self, access: OFlags) -> Result<OwnedFd, Errno>;

    /// Prepares a request for `mmap`, and writes its index into it.
    ///
    /// # Errors
    /// What the ioctl says.
    ///
    /// # Safety
    /// The request is there, with as many references behind it as it counts, and nobody else uses it.
    unsafe fn prepare(
        &self,
        fd: BorrowedFd<'_>,
        request: NonNull<MapGrantRef>,
    ) -> Result<(), Errno>;

    /// Gives back the request that has this index and so many references.
    fn give_back(&self, fd: BorrowedFd<'_>, index: u64, count: u32);
}

/// gntdev.
pub struct Gntdev;

impl Device for Gntdev {
    fn open(&self, access: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::open(GNTDEV, access | OFlags::CLOEXEC, Mode::empty())
    }

    unsafe fn prepare(
        &self,
        fd: BorrowedFd<'_>,
        request: NonNull<MapGrantRef>,
    ) -> Result<(), Errno> {
        let call = Call {
            opcode: IOCTL_GNTDEV_MAP_GRANT_REF,
            argument: request.as_ptr().cast(),
        };
        // SAFETY: the number's argument is such a request, which the caller answers for. If the file is not gntdev it
        // does not know the number.
        unsafe { ioctl(fd, call) }
    }

    fn give_back(&self, fd: BorrowedFd<'_>, index: u64, count: u32) {
        let mut argument = UnmapGrantRef {
            index,
            count,
            pad: 0,
        };
        let call = Call {
            opcode: IOCTL_GNTDEV_UNMAP_GRANT_REF,
            argument: (&raw mut argument).cast(),
        };
        // SAFETY: the number's argument is such a structure. What fails is given back with the descriptor.
        let _ = unsafe { ioctl(fd, call) };
    }
}

/// An ioctl whose argument the caller answers for.
struct Call {
    opcode: u32,
    argument: *mut c_void,
}

// SAFETY: number and argument are passed on as they are; nothing is made of what comes back.
unsafe impl Ioctl for Call {
    type Output = ();

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode as Opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> Result<(), Errno> {
        Ok(())
    }
}

/// A grant list in this process's own memory, from which its region can be mapped any number of times.
#[derive(Debug)]
pub struct GrantList {
    at: NonNull<u8>,
    pages: u32,
}

// SAFETY: private memory of this value's own.
unsafe impl Send for GrantList {}

/// A [`GrantList`] put away by [`GrantList::keep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptList {
    at: NonNull<u8>,
    pages: u32,
}

impl GrantList {
    /// Maps the grant list of a region of `len` bytes.
    ///
    /// # Errors
    /// `PROTO` when the file is not that; what `fstat` and `mmap` say.
    pub fn map(fd: BorrowedFd<'_>, len: u64) -> Result<Self, Errno> {
        let pages = u32::try_from(len / PAGE_SIZE).map_err(|_| Errno::PROTO)?;
        let stat = rustix::fs::fstat(fd)?;
        let seals = rustix::fs::fcntl_get_seals(fd).unwrap_or(SealFlags::empty());
        if pages == 0
            || !len.is_multiple_of(PAGE_SIZE)
            || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
            || u64::try_from(stat.st_size) != Ok(list_bytes(pages) as u64)
            || !seals.contains(SEALS)
        {
            return Err(Errno::PROTO);
        }
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let bytes = list_bytes(pages);
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let at = unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, prot, flags, fd, 0)? };
        let at = NonNull::new(at.cast()).ok_or(Errno::NOMEM)?;
        let list = Self { at, pages };
        let request = list.request(0);
        // SAFETY: within the mapping, aligned, and any bytes are such values.
        let (head, request) = unsafe { (at.cast::<ListHead>().read(), request.read()) };
        let fits = head.magic == LIST_MAGIC && head.bytes == len;
        if !fits || request.count != pages || request.pad != 0 {
            return Err(Errno::PROTO);
        }
        Ok(list)
    }

    /// Pages of the region.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Puts the list away: it stays, also in children of `fork`, until it is taken up again.
    pub fn keep(self) -> KeptList {
        let kept = KeptList {
            at: self.at,
            pages: self.pages,
        };
        std::mem::forget(self);
        kept
    }

    /// Takes up a list that was put away.
    ///
    /// # Safety
    /// [`Self::keep`] has returned `kept` in this process, or in the one that it is a child of, and it is taken up
    /// by one at a time, and never again once it was dropped.
    pub unsafe fn take_up(kept: KeptList) -> Self {
        Self {
            at: kept.at,
            pages: kept.pages,
        }
    }

    /// Where the request for the pages from `first` on begins: right before their references.
    fn request(&self, first: u32) -> NonNull<MapGrantRef> {
        let offset = LIST_REQUEST + first.min(self.pages) as usize * size_of::<GrantRef>();
        // SAFETY: there are so many references in the mapping, and the head of a request before them.
        unsafe { self.at.byte_add(offset) }.cast()
    }

    fn flags(&self) -> u32 {
        // SAFETY: at the beginning of the mapping, aligned, and any bytes are such a value.
        unsafe { self.at.cast::<ListHead>().read() }.flags
    }

    /// Maps the whole region; returns where, and the file that it is a mapping of.
    ///
    /// # Errors
    /// [`MapError`].
    ///
    /// # Safety
    /// As [`super::Source::map`].
    pub unsafe fn map_region(
        &mut self,
        device: &impl Device,
        place: Place,
    ) -> Result<(usize, FileId), MapError> {
        // SAFETY: as the caller promises.
        unsafe { self.map_pages(device, 0, self.pages, place) }
    }

    /// Maps `count` pages of the region from `first` on, as [`Self::map_region`].
    ///
    /// # Errors
    /// [`MapError`]; `INVAL` of the system for pages that are not there.
    ///
    /// # Safety
    /// As [`super::Source::map`].
    pub unsafe fn map_pages(
        &mut self,
        device: &impl Device,
        first: u32,
        count: u32,
        place: Place,
    ) -> Result<(usize, FileId), MapError> {
        let inside = first.checked_add(count).is_some_and(|e| e <= self.pages);
        if !inside || count == 0 {
            return Err(Errno::INVAL.into());
        }
        let writable = place.prot.contains(ProtFlags::WRITE);
        if writable && self.flags() & READ_ONLY != 0 {
            return Err(MapError::ReadOnly);
        }
        // Whoever opens it for reading only cannot be given more by `mprotect`.
        let access = if writable {
            OFlags::RDWR
        } else {
            OFlags::RDONLY
        };
        let fd = open(device, access)?;
        let fd = fd.as_fd();
        let stat = rustix::fs::fstat(fd)?;
        // Nobody maps what goes before: it makes the index that of the first page, so that the mapping shows the same
        // offset as if the whole region were mapped.
        if first > 0 {
            self.prepare(device, fd, 0, first)?;
        }
        let index = self.prepare(device, fd, first, count)?;
        let len = count as usize * PAGE_SIZE as usize;
        // SAFETY: as the caller promises.
        let mapped = unsafe { map_shared(fd, index, len, place) };
        if first > 0 {
            device.give_back(fd, 0, first);
        }
        let at = mapped.map_err(|errno| match errno {
            Errno::INVAL | Errno::FAULT => MapError::Stale,
            errno => MapError::Os(errno),
        })?;
        Ok((at, (stat.st_dev, stat.st_ino)))
    }

    /// Prepares `count` pages from `first` on; returns the index.
    fn prepare(
        &mut self,
        device: &impl Device,
        fd: BorrowedFd<'_>,
        first: u32,
        count: u32,
    ) -> Result<u64, MapError> {
        let request = self.request(first);
        let index = 0;
        // SAFETY: within the mapping, aligned, which is this value's alone; there are `count` references behind it,
        // as the caller has checked. What the request has taken the place of is put back.
        let prepared = unsafe {
            let before = request.read();
            request.write(MapGrantRef {
                count,
                pad: 0,
                index,
            });
            let prepared = device.prepare(fd, request);
            let index = request.read().index;
            request.write(before);
            prepared.map(|()| index)
        };
        prepared.map_err(|errno| match errno {
            Errno::INVAL => MapError::TooLarge,
            Errno::NOTTY => MapError::Device(errno),
            errno => MapError::Os(errno),
        })
    }
}

impl Drop for GrantList {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, and no reference into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.at.as_ptr().cast(), list_bytes(self.pages)) };
    }
}

/// Opens the device, not as one of the standard descriptors, which the program may have closed.
fn open(device: &impl Device, access: OFlags) -> Result<OwnedFd, MapError> {
    let fd = device.open(access).map_err(|errno| match errno {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => MapError::Os(errno),
        errno => MapError::Device(errno),
    })?;
    if fd.as_raw_fd() < 3 {
        return Ok(rustix::io::fcntl_dupfd_cloexec(&fd, 3)?);
    }
    Ok(fd)
}

#[cfg(test)]
mod tests;
