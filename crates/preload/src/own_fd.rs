// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors of the library's own in a descriptor table that belongs to the program.

use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::fs::FileType;
use rustix::io::Errno;

/// Numbers below this one are left to the program, which may count on getting low ones.
const LOWEST: RawFd = 200;

/// What a number led to when it was the library's.
#[derive(Clone, Copy)]
pub struct File {
    /// The number.
    pub number: RawFd,
    /// Device and inode of the file.
    pub dev: u64,
    /// See there.
    pub ino: u64,
}

impl File {
    /// The descriptor, if it still leads there.
    pub fn get(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: used for `fstat` alone until that has shown what the number leads to.
        let fd = unsafe { BorrowedFd::borrow_raw(self.number) };
        let stat = rustix::fs::fstat(fd).ok()?;
        (stat.st_dev == self.dev && stat.st_ino == self.ino).then_some(fd)
    }
}

/// A descriptor that the program may close or replace at any time. It is never used, nor closed,
/// without a look at whether the number still leads to the same file.
pub struct OwnFd {
    file: File,
    is_device: bool,
}

impl OwnFd {
    /// Takes over `fd`, moving it out of the way of the program's own.
    pub fn new(fd: OwnedFd) -> Result<Self, Errno> {
        let moved = rustix::io::fcntl_dupfd_cloexec(&fd, LOWEST)
            // The limit of descriptors may be lower; 3 is the least that is never a standard one.
            .or_else(|_| rustix::io::fcntl_dupfd_cloexec(&fd, 3))?;
        let stat = rustix::fs::fstat(&moved)?;
        let number = moved.as_raw_fd();
        std::mem::forget(moved);
        Ok(Self {
            file: File {
                number,
                dev: stat.st_dev,
                ino: stat.st_ino,
            },
            is_device: FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice,
        })
    }

    /// The descriptor, if it is still ours.
    pub fn get(&self) -> Option<BorrowedFd<'_>> {
        self.file.get()
    }

    /// What it leads to.
    pub fn file(&self) -> File {
        self.file
    }

    /// Whether it is a device: then another descriptor of the same device may be mistaken for it.
    pub fn is_device(&self) -> bool {
        self.is_device
    }
}

impl Drop for OwnFd {
    fn drop(&mut self) {
        if self.get().is_some() {
            // SAFETY: the number leads to our own file, which nobody else uses by it.
            unsafe { rustix::io::close(self.file.number) };
        }
    }
}
