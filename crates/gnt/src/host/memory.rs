// SPDX-License-Identifier: MIT OR Apache-2.0
//! Regions of the host port: sealed memfds.

use crate::port::{PortError, Region, RegionOptions};
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use vshmem_abi::PAGE_SIZE;
use vshmem_abi::grants::How;

/// What every region is sealed with: its size is what it was made with, for ever, so nobody who
/// maps it can be given `SIGBUS` by another who has the descriptor.
pub(super) const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// Where `memfd_create` takes the log2 of a huge page size (`MFD_HUGE_SHIFT`).
const HUGE_SHIFT_AT: u32 = 26;

/// A memfd, own or mapped from another domain.
#[derive(Debug)]
pub struct HostRegion {
    fd: OwnedFd,
    len: u64,
    own: bool,
    futexes: bool,
    read_only: bool,
}

impl Region for HostRegion {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn how(&self) -> How {
        How::Direct
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn has_futexes(&self) -> bool {
        self.futexes
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn release(self) {
        if self.own {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // Without the hole the pages go as soon as the last descriptor does.
            let _ = rustix::fs::fallocate(&self.fd, hole, 0, self.len);
        }
    }
}

impl HostRegion {
    /// A new region of the domain that this process serves.
    pub(crate) fn create(bytes: u64, options: RegionOptions) -> Result<Self, PortError> {
        if options.read_only {
            return Err(PortError::BadArgument);
        }
        let page = match options.huge_shift {
            0 => PAGE_SIZE,
            shift @ 13..=40 => 1 << shift,
            _ => return Err(PortError::BadArgument),
        };
        // The kernel's sizes are signed: the very largest file does not fill its last page.
        const LARGEST: u64 = i64::MAX as u64;
        let len = bytes
            .checked_next_multiple_of(page)
            .filter(|&len| len > 0 && bytes <= LARGEST)
            .ok_or(PortError::BadArgument)?
            .min(LARGEST);
        let fd = memfd(options.huge_shift).map_err(to_error)?;
        let prepare = || -> Result<(), Errno> {
            // A client that was given a read-only descriptor must not open it anew for writing.
            rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
            rustix::fs::ftruncate(&fd, len)?;
            rustix::fs::fcntl_add_seals(&fd, SEALS)?;
            if options.huge_shift != 0 && options.reserve {
                reserve(&fd, len)?;
            }
            Ok(())
        };
        prepare().map_err(to_error)?;
        Ok(Self {
            fd,
            len,
            own: true,
            futexes: true,
            read_only: false,
        })
    }

    /// A region that another domain granted; what the descriptor can be mapped for, it can.
    pub(super) fn mapped(fd: OwnedFd, len: u64) -> Self {
        let mode = rustix::fs::fcntl_getfl(&fd);
        Self {
            read_only: mode.is_ok_and(|mode| mode & OFlags::ACCMODE == OFlags::RDONLY),
            fd,
            len,
            own: false,
            futexes: true,
        }
    }

    /// The same file, opened for reading only: it cannot be mapped for writing, nor a mapping of it be
    /// made writable.
    ///
    /// # Errors
    /// What opening it says.
    pub(super) fn for_reading(&self) -> Result<OwnedFd, PortError> {
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map_err(to_error)
    }

    /// The same region, of which it is said whether futexes work in it.
    pub(super) fn with_futexes(self, futexes: bool) -> Self {
        Self { futexes, ..self }
    }

    /// Whether this domain made it.
    pub(super) fn is_own(&self) -> bool {
        self.own
    }
}

/// A new file of memory.
pub(crate) fn memfd(huge_shift: u32) -> Result<OwnedFd, Errno> {
    let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    if huge_shift != 0 {
        flags |= MemfdFlags::HUGETLB | MemfdFlags::from_bits_retain(huge_shift << HUGE_SHIFT_AT);
    }
    // Not executable as a file, which every setting of vm.memfd_noexec allows; it can be mapped
    // executable all the same. Kernels before 6.3 do not know the flag.
    match rustix::fs::memfd_create(c"vshmem", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(c"vshmem", flags),
        other => other,
    }
}

/// Huge pages are reserved when a file is mapped and stay so when it is unmapped.
fn reserve(fd: &OwnedFd, len: u64) -> Result<(), Errno> {
    let bytes = usize::try_from(len).map_err(|_| Errno::NOMEM)?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let address =
        unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, access, MapFlags::SHARED, fd, 0)? };
    // SAFETY: the mapping just made, to which nothing refers.
    unsafe { rustix::mm::munmap(address, bytes) }
}

/// What the kernel's refusal to make a region or an eventfd means.
pub(crate) fn to_error(errno: Errno) -> PortError {
    match errno {
        Errno::MFILE | Errno::NFILE => PortError::TooManyDescriptors,
        Errno::NOMEM | Errno::NOSPC => PortError::NoMemory,
        _ => PortError::BadArgument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(bytes: u64) -> HostRegion {
        HostRegion::create(bytes, RegionOptions::default()).unwrap()
    }

    #[test]
    fn the_size_is_rounded_up_to_pages_and_sealed() {
        let region = make(4097);
        assert_eq!(region.len(), 8192);
        assert_eq!(rustix::fs::fstat(region.fd()).unwrap().st_size, 8192);
        assert_eq!(rustix::fs::ftruncate(region.fd(), 4096), Err(Errno::PERM));
        assert_eq!(
            rustix::fs::fcntl_add_seals(region.fd(), SealFlags::WRITE),
            Err(Errno::PERM)
        );
    }

    #[test]
    fn sizes_that_no_file_can_have_are_refused() {
        for bytes in [0, 1 << 63, u64::MAX] {
            let made = HostRegion::create(bytes, RegionOptions::default());
            assert_eq!(made.err(), Some(PortError::BadArgument), "{bytes}");
        }
    }

    #[test]
    fn a_huge_page_size_that_the_machine_has_not_is_refused() {
        for huge_shift in [1, 13, 40, 64, u32::MAX] {
            let options = RegionOptions {
                huge_shift,
                reserve: true,
                ..RegionOptions::default()
            };
            let made = HostRegion::create(4096, options);
            assert_eq!(made.err(), Some(PortError::BadArgument), "{huge_shift}");
        }
    }

    #[test]
    fn a_region_can_be_mapped_executable() {
        let region = make(4096);
        // SAFETY: a new mapping at an address of the kernel's choice, gone again at once.
        unsafe {
            let access = ProtFlags::READ | ProtFlags::EXEC;
            let at = rustix::mm::mmap(
                std::ptr::null_mut(),
                4096,
                access,
                MapFlags::SHARED,
                region.fd(),
                0,
            );
            rustix::mm::munmap(at.unwrap(), 4096).unwrap();
        }
    }

    #[test]
    fn release_frees_the_pages_even_if_a_descriptor_is_left() {
        let region = make(64 * 4096);
        let kept = region.fd().try_clone_to_owned().unwrap();
        rustix::io::pwrite(&kept, &[1; 64 * 4096], 0).unwrap();
        assert!(rustix::fs::fstat(&kept).unwrap().st_blocks > 0);
        region.release();
        assert_eq!(rustix::fs::fstat(&kept).unwrap().st_blocks, 0);
    }

    #[test]
    fn release_of_another_domains_region_leaves_its_pages() {
        let region = make(4096);
        rustix::io::pwrite(region.fd(), b"kept", 0).unwrap();
        let mapped = HostRegion::mapped(region.fd().try_clone_to_owned().unwrap(), 4096);
        mapped.release();
        let mut seen = [0; 4];
        rustix::io::pread(region.fd(), &mut seen, 0).unwrap();
        assert_eq!(&seen, b"kept");
    }
}
