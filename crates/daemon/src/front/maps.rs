// SPDX-License-Identifier: MIT OR Apache-2.0
//! How often a process really has a region mapped.
//!
//! A client counts its `shmat`s and `shmdt`s. What it does behind them, `munmap` of a segment or
//! `mprotect` of a part, the kernel counts too for its own segments (one attachment a mapping).
//! `/proc/PID/maps` tells, where we may read it.

use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;

/// A file as `/proc/PID/maps` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    major: u32,
    minor: u32,
    inode: u64,
}

impl FileId {
    /// The identity of an open file; `None` when the kernel does not say, or when it is a device, of which two
    /// mappings need not be of the same memory.
    pub fn of(fd: BorrowedFd<'_>) -> Option<Self> {
        let stat = fstat(fd).ok()?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        is_file.then_some(Self {
            major: rustix::fs::major(stat.st_dev),
            minor: rustix::fs::minor(stat.st_dev),
            inode: stat.st_ino,
        })
    }
}

/// Mappings of `region` in process `pid`. `None` when `/proc` does not show them, or when
/// `witness`, a file that the client surely has mapped, is not among them: then `pid` is not the
/// client's address space.
pub fn count(pid: i32, witness: FileId, region: FileId) -> Option<u64> {
    if pid <= 0 {
        return None;
    }
    count_in(&read(&format!("/proc/{pid}/maps")).ok()?, witness, region)
}

/// All of a file of `/proc`. Those of most processes come with one call: each further one has the kernel look
/// for the place to go on at.
fn read(path: &str) -> Result<Vec<u8>, Errno> {
    const SPACE: usize = 16 << 10;
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = Vec::with_capacity(SPACE);
    while rustix::io::read(&file, spare_capacity(&mut text))? > 0 {
        text.reserve(SPACE);
    }
    Ok(text)
}

/// Whether process `pid` has one thread.
pub fn is_single_threaded(pid: i32) -> bool {
    // A directory has two links of its own and one for each directory in it.
    std::fs::metadata(format!("/proc/{pid}/task")).is_ok_and(|task| task.nlink() == 3)
}

fn count_in(maps: &[u8], witness: FileId, region: FileId) -> Option<u64> {
    let mut seen = false;
    let mut mappings = 0;
    for line in maps.split(|&byte| byte == b'\n') {
        match file_of_line(line) {
            Some(file) if file == region => mappings += 1,
            Some(file) if file == witness => seen = true,
            _ => {}
        }
    }
    seen.then_some(mappings)
}

/// Fourth and fifth field of a line: `08:01 1234`, the device in hexadecimal.
fn file_of_line(line: &[u8]) -> Option<FileId> {
    let mut fields = line.splitn(6, |&byte| byte == b' ').skip(3);
    let device = std::str::from_utf8(fields.next()?).ok()?;
    let inode = std::str::from_utf8(fields.next()?).ok()?;
    let (major, minor) = device.split_once(':')?;
    Some(FileId {
        major: u32::from_str_radix(major, 16).ok()?,
        minor: u32::from_str_radix(minor, 16).ok()?,
        inode: inode.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    use std::os::fd::{AsFd, OwnedFd};

    fn file(size: u64) -> OwnedFd {
        let fd = memfd_create("a name\nwith a new line (deleted)", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, size).unwrap();
        fd
    }

    fn map(fd: &OwnedFd, offset: u64) -> *mut std::ffi::c_void {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping where the kernel likes; the tests never touch it.
        unsafe {
            mmap(
                std::ptr::null_mut(),
                4096,
                prot,
                MapFlags::SHARED,
                fd,
                offset,
            )
        }
        .unwrap()
    }

    #[test]
    fn each_mapping_of_the_region_counts_and_munmap_is_noticed() {
        let (witness, region) = (file(4096), file(3 * 4096));
        let id = |fd: &OwnedFd| FileId::of(fd.as_fd()).unwrap();
        let own = std::process::id() as i32;
        let seen = || count(own, id(&witness), id(&region));
        let a = map(&region, 0);
        assert_eq!(seen(), None, "without the witness nothing is known");
        map(&witness, 0);
        assert_eq!(seen(), Some(1));
        map(&region, 8192);
        assert_eq!(seen(), Some(2));
        // SAFETY: the mapping was made above and nothing refers to it.
        unsafe { munmap(a, 4096) }.unwrap();
        assert_eq!(seen(), Some(1));
    }

    #[test]
    fn threads_are_counted() {
        std::thread::scope(|scope| {
            let (done, wait) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || wait.recv());
            assert!(!is_single_threaded(std::process::id() as i32));
            drop(done);
        });
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        assert!(is_single_threaded(child.id() as i32));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!is_single_threaded(i32::MAX));
    }

    #[test]
    fn a_process_that_is_not_there_tells_nothing() {
        let fd = file(1);
        let id = FileId::of(fd.as_fd()).unwrap();
        assert_eq!(count(0, id, id), None);
        assert_eq!(count(i32::MAX, id, id), None);
    }

    #[test]
    fn lines_of_other_shapes_are_passed_over() {
        let id = |minor, inode| FileId {
            major: 0,
            minor,
            inode,
        };
        let maps = b"7f00-7f01 rw-s 00000000 00:1a 77                 /memfd:x (deleted)\n\
                     7f01-7f02 rw-s 00001000 00:1a 78   /memfd:y 00:1a 77\n\
                     garbage\n\n7f03-7f04 rw-p 00000000 00:00 0 \n";
        assert_eq!(count_in(maps, id(0x1a, 78), id(0x1a, 77)), Some(1));
    }
}
