// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory of a region, as whoever maps it gets it: a descriptor, and how that is mapped.

use super::grants::{Gntdev, GrantList};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use std::ffi::c_void;
use std::fmt;
use std::os::fd::BorrowedFd;
use vshmem_abi::PAGE_SIZE;
pub use vshmem_abi::grants::How;

/// A region that can be mapped.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// What stands for its memory.
    pub fd: BorrowedFd<'a>,
    /// How that is mapped.
    pub how: How,
    /// Bytes of the region, in whole pages: as `vshmemd` or the port says, since a device has no size.
    pub len: u64,
}

/// Where and how to map: `mmap`'s arguments of these names.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Address; 0: of the kernel's choice.
    pub at: usize,
    /// Access.
    pub prot: ProtFlags,
    /// Beside `MAP_SHARED`.
    pub flags: MapFlags,
}

impl Place {
    /// An address of the kernel's choice.
    pub const fn anywhere(prot: ProtFlags) -> Self {
        Self {
            at: 0,
            prot,
            flags: MapFlags::empty(),
        }
    }

    /// This address, if nothing is mapped there.
    pub const fn if_free(at: usize, prot: ProtFlags) -> Self {
        Self {
            at,
            prot,
            flags: MapFlags::FIXED_NOREPLACE,
        }
    }
}

/// A file as `/proc/PID/maps` names it: device and inode.
pub type FileId = (u64, u64);

/// What is mapped now.
#[derive(Debug)]
pub struct Mapped {
    /// Its first address.
    pub at: usize,
    /// The file that it is a mapping of. A device's is the same for all regions.
    pub file: FileId,
    /// What it takes to map the same again.
    pub list: Option<GrantList>,
}

/// Why a region cannot be mapped. [`MapError::errno`] is what a program gets to see of it; the text, what is wrong
/// and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// The device that memory of other domains is mapped with cannot be opened.
    Device(Errno),
    /// The region has more pages than that device maps at a time.
    TooLarge,
    /// The grants are no more, or of another region.
    Stale,
    /// The grants permit reading only.
    ReadOnly,
    /// Anything else that a system call says.
    Os(Errno),
}

impl MapError {
    /// The errno of a call that failed for this reason.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Device(Errno::ACCESS | Errno::PERM) | Self::ReadOnly => Errno::ACCESS,
            Self::Device(_) => Errno::NODEV,
            Self::TooLarge => Errno::NOSPC,
            Self::Stale => Errno::IDRM,
            Self::Os(errno) => errno,
        }
    }
}

impl From<Errno> for MapError {
    fn from(errno: Errno) -> Self {
        Self::Os(errno)
    }
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(Errno::ACCESS | Errno::PERM) => f.write_str(
                "/dev/xen/gntdev, by which memory of other domains is mapped, is not open to this user: put it into \
                 the group that has the device (vshmem, by the udev rule)",
            ),
            Self::Device(errno) => write!(
                f,
                "cannot open /dev/xen/gntdev, by which memory of other domains is mapped (error {}): \
                 is the kernel module xen-gntdev loaded, and the device there in this container?",
                errno.raw_os_error()
            ),
            Self::TooLarge => f.write_str(
                "the region has more pages than the kernel maps at a time: raise \
                 /sys/module/xen_gntdev/parameters/limit",
            ),
            Self::Stale => f.write_str(
                "its owner has taken the grants back, or Xen's table of mapped grants is full (then the kernel's log \
                 speaks of the maptrack limit)",
            ),
            Self::ReadOnly => f.write_str("it is granted to this domain for reading only"),
            Self::Os(errno) => errno.fmt(f),
        }
    }
}

impl Source<'_> {
    /// Maps the whole region.
    ///
    /// # Errors
    /// [`MapError`]. `PROTO` of the system when the descriptor is not what it should be, or too short: touching what
    /// it lacks would be a `SIGBUS`.
    ///
    /// # Safety
    /// As `mmap`: with `FIXED` in the place's flags, nothing of what is there is needed any more.
    pub unsafe fn map(&self, place: Place) -> Result<Mapped, MapError> {
        match self.how {
            // SAFETY: as the caller promises.
            How::Direct => unsafe { self.map_direct(place) },
            How::Grants => {
                let mut list = GrantList::map(self.fd, self.len)?;
                // SAFETY: as the caller promises.
                let (at, file) = unsafe { list.map_region(&Gntdev, place) }?;
                let list = Some(list);
                Ok(Mapped { at, file, list })
            }
        }
    }

    unsafe fn map_direct(&self, place: Place) -> Result<Mapped, MapError> {
        let stat = rustix::fs::fstat(self.fd)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        // Within the last page there is something behind the end.
        let size = u64::try_from(stat.st_size).map_or(0, |size| size.next_multiple_of(PAGE_SIZE));
        if self.len == 0 || is_file && size < self.len {
            return Err(Errno::PROTO.into());
        }
        let len = usize::try_from(self.len).map_err(|_| Errno::NOMEM)?;
        // SAFETY: as the caller promises.
        let at = unsafe { map_shared(self.fd, 0, len, place) }?;
        Ok(Mapped {
            at,
            file: (stat.st_dev, stat.st_ino),
            list: None,
        })
    }
}

/// `mmap` of `len` bytes of `fd` from `offset` on, at a place.
///
/// # Safety
/// As [`Source::map`].
pub(super) unsafe fn map_shared(
    fd: BorrowedFd<'_>,
    offset: u64,
    len: usize,
    place: Place,
) -> Result<usize, Errno> {
    let flags = place.flags | MapFlags::SHARED;
    // SAFETY: as the caller promises.
    let at =
        unsafe { rustix::mm::mmap(place.at as *mut c_void, len, place.prot, flags, fd, offset) }?;
    Ok(at as usize)
}
