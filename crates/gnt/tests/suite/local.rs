// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the suite does with a port whose domain is this very process.

use super::Memory;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::mm::ProtFlags;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering};
use vshmem_engine::mapping::{MapError, Place, Source};
use vshmem_gnt::{Event, LocalPort, Port, Region};

/// A region in this process's memory.
pub struct Mapped {
    at: *mut u8,
    len: usize,
}

impl Mapped {
    /// Maps a region, for reading or for both.
    pub fn new(region: &impl Region, writable: bool) -> Result<Self, MapError> {
        let source = Source {
            fd: region.fd(),
            how: region.how(),
            len: region.len(),
        };
        let mut access = ProtFlags::READ;
        access.set(ProtFlags::WRITE, writable);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let mapped = unsafe { source.map(Place::anywhere(access)) }?;
        Ok(Self {
            at: mapped.at as *mut u8,
            len: usize::try_from(region.len()).unwrap(),
        })
    }

    fn byte(&self, at: usize) -> &AtomicU8 {
        assert!(at < self.len);
        // SAFETY: inside the mapping, which lives as long as `self`; other processes and threads
        // access it with atomics too.
        unsafe { AtomicU8::from_ptr(self.at.add(at)) }
    }
}

impl Memory for Mapped {
    fn load(&self, at: usize) -> u8 {
        self.byte(at).load(Ordering::SeqCst)
    }

    fn store(&self, at: usize, value: u8) {
        self.byte(at).store(value, Ordering::SeqCst);
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; `byte` lends no longer than `self` lives.
        unsafe { rustix::mm::munmap(self.at.cast(), self.len).unwrap() };
    }
}

/// Sleeps on an end until something comes and says what.
pub fn await_event(port: &mut impl Port, end: LocalPort) -> Event {
    let fd = port.wait_fd(end).unwrap();
    let minute = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let ready = rustix::event::poll(&mut fds, Some(&minute)).unwrap();
    assert_eq!(ready, 1, "waited a minute in vain for an event");
    port.take(end).unwrap()
}

/// Raises the other end by the notifier, from another thread.
pub fn pass_notifier(port: &mut impl Port, end: LocalPort) {
    let (fd, how) = port.notifier(end).unwrap();
    let passed = fd.try_clone_to_owned().unwrap();
    let other = std::thread::spawn(move || how.raise(passed.as_fd()));
    other.join().unwrap().unwrap();
}
