// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client page: what one process has attached, told to its `vshmemd` without a message.
//!
//! The client maps it for reading and writing and keeps it out of its children; `vshmemd` maps it
//! read-only. So the page is a witness as well: as long as a writable mapping of it exists, the
//! process (or rather its address space: `exec` ends it too) is there, and the kernel tells, since
//! it refuses to seal a file against writing that somebody has mapped for writing.

use crate::mapping::{Mapping, file_size};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::*;
use vshmem_abi::layout::{AttachEntry, ClientPage, PAGE_MAGIC, PageHeader};
use vshmem_abi::limits::DIR_SLOTS;
use vshmem_abi::wire::Usage;
use zerocopy::IntoBytes;

/// `vshmemd`'s side of a client page.
pub struct PageMaster {
    fd: OwnedFd,
    map: Mapping<ClientPage>,
}

impl PageMaster {
    /// Makes the page of the client in slot `client`.
    ///
    /// # Errors
    /// What `memfd_create`, `open` of `/proc/self/fd` and `mmap` say.
    pub fn create(client: u32, generation: u64) -> std::io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("vshmem-client", flags)?;
        rustix::fs::ftruncate(&fd, file_size::<ClientPage>())?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
        rustix::io::pwrite(&fd, [PAGE_MAGIC, generation].as_bytes(), 0)?;
        let offset = std::mem::offset_of!(PageHeader, client) as u64;
        rustix::io::pwrite(&fd, &client.to_ne_bytes(), offset)?;
        // Opened anew for reading only: a mapping of a descriptor that could write counts as
        // writable for the sealing test, even one made without PROT_WRITE.
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let reading = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let map = Mapping::<ClientPage>::new(reading.as_fd(), false)?;
        map.settle();
        Ok(Self { fd, map })
    }

    /// The descriptor to pass to the client.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The client's pid as it wrote it; 0 before it did.
    pub fn pid(&self) -> i32 {
        self.map.head.pid.load(Relaxed)
    }

    /// Attachments of `id`, which has directory slot `slot`, in this process.
    pub fn count(&self, slot: u32, id: i32) -> u32 {
        self.entry(slot, id)
            .map_or(0, |entry| entry.count.load(SeqCst))
    }

    /// This process's use of `id`, as process of the domain `domid`.
    pub fn usage(&self, slot: u32, id: i32, domid: u32) -> Usage {
        self.entry(slot, id)
            .map_or(Usage::default(), |entry| Usage {
                nattch: entry.count.load(SeqCst).into(),
                atime: entry.atime.load(Relaxed),
                dtime: entry.dtime.load(Relaxed),
                lpid: self.pid(),
                lpid_domain: domid,
                resident: 0,
            })
    }

    /// Segments that the client has attached, modulo 2^32.
    pub fn attaches(&self) -> u32 {
        self.map.head.attaches.load(Relaxed)
    }

    /// Every segment that this process has attached: slot, id, count.
    pub fn attached(&self) -> impl Iterator<Item = (u32, i32, u32)> {
        self.used()
            .map(|(slot, e)| (slot, e.id.load(Relaxed), e.count.load(Relaxed)))
            .filter(|&(_, _, count)| count > 0)
    }

    /// Copies the attachments of `parent`, whose owner is about to fork, into this page, before
    /// the child has it. Times are the parent's own and stay with it.
    ///
    /// # Errors
    /// What `pwrite` says (`ENOSPC`, `ENOMEM` when memory is full).
    pub fn copy_attachments_from(&self, parent: &PageMaster) -> std::io::Result<()> {
        let mut high_water = 0u32;
        for (slot, entry) in parent.used() {
            let count = entry.count.load(Relaxed);
            if count == 0 {
                continue;
            }
            high_water = slot + 1;
            let id = entry.id.load(Relaxed);
            let offset =
                std::mem::offset_of!(ClientPage, attach) + slot as usize * size_of::<AttachEntry>();
            rustix::io::pwrite(&self.fd, [id as u32, count].as_bytes(), offset as u64)?;
        }
        let offset = std::mem::offset_of!(PageHeader, high_water) as u64;
        rustix::io::pwrite(&self.fd, &high_water.to_ne_bytes(), offset)?;
        Ok(())
    }

    /// Whether some process has the page mapped for writing. Once `false`, always `false`.
    pub fn still_mapped(&self) -> bool {
        match rustix::fs::fcntl_add_seals(&self.fd, SealFlags::WRITE) {
            Ok(()) => false,
            // BUSY is the answer of a mapped file. Whatever else the kernel says, believe that
            // the process lives: forgetting it would free memory under it.
            Err(_) => true,
        }
    }

    fn entry(&self, slot: u32, id: i32) -> Option<&AttachEntry> {
        self.map
            .attach
            .get(slot as usize)
            .filter(|entry| entry.id.load(Relaxed) == id)
    }

    fn used(&self) -> impl Iterator<Item = (u32, &AttachEntry)> {
        // The client can write any number: bounded by the array.
        let used = self.map.head.high_water.load(Relaxed).min(DIR_SLOTS as u32);
        (0..used).zip(&self.map.attach)
    }
}

/// The client's side of its page.
pub struct PageMine {
    map: Mapping<ClientPage>,
}

impl PageMine {
    /// Maps the page that `vshmemd` passed, keeps it out of children, and writes `pid` into it.
    ///
    /// # Errors
    /// `PROTO` when it is not a client page; else what `mmap` and `madvise` say.
    pub fn map(fd: BorrowedFd<'_>, pid: i32) -> Result<Self, Errno> {
        let map = Mapping::<ClientPage>::new(fd, true)?;
        map.not_inherited()?;
        if map.head.magic.load(Relaxed) != PAGE_MAGIC {
            return Err(Errno::PROTO);
        }
        map.head.pid.store(pid, Relaxed);
        Ok(Self { map })
    }

    /// Counts one attachment of `id` in `slot` at time `now` (nanoseconds since the epoch).
    pub(crate) fn add(&self, slot: u32, id: i32, now: i64) {
        let Some(entry) = self.map.attach.get(slot as usize) else {
            return;
        };
        if self.map.head.high_water.load(Relaxed) <= slot {
            self.map.head.high_water.store(slot + 1, Relaxed);
        }
        if entry.id.load(Relaxed) != id {
            // Left over from an earlier construct in this slot, which we have not attached:
            // its slot would not have been used again.
            entry.count.store(0, Relaxed);
            entry.atime.store(0, Relaxed);
            entry.dtime.store(0, Relaxed);
            entry.id.store(id, Relaxed);
        }
        if now != 0 {
            entry.atime.store(now, Relaxed);
        }
        entry.count.fetch_add(1, SeqCst);
    }

    /// Notes `now` as the time of the last attach of `id`.
    pub(crate) fn stamp(&self, slot: u32, id: i32, now: i64) {
        let entry = self.map.attach.get(slot as usize);
        if let Some(entry) = entry.filter(|entry| entry.id.load(Relaxed) == id) {
            entry.atime.store(now, Relaxed);
        }
        self.map.head.attaches.fetch_add(1, Relaxed);
    }

    /// Takes one attachment off the count and returns what is left. `now` 0 leaves the time of
    /// the last detach alone (the attachment never came to be).
    pub(crate) fn sub(&self, slot: u32, id: i32, now: i64) -> u32 {
        let entry = self.map.attach.get(slot as usize);
        let Some(entry) = entry.filter(|entry| entry.id.load(Relaxed) == id) else {
            return 0;
        };
        if now != 0 {
            entry.dtime.store(now, Relaxed);
        }
        let before = entry.count.load(Relaxed);
        let left = before.saturating_sub(1);
        entry.count.store(left, SeqCst);
        left
    }

    /// Where the page is mapped.
    pub fn address(&self) -> usize {
        self.map.address()
    }

    /// Forgets the page in a child of `fork`, which has not inherited it.
    pub fn forget(self) {
        self.map.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: i32 = 0x4000_0001;

    #[test]
    fn what_the_client_counts_the_master_sees() {
        let master = PageMaster::create(4, 1).unwrap();
        let mine = PageMine::map(master.fd(), 42).unwrap();
        mine.add(9, ID, 100);
        mine.add(9, ID, 200);
        let want = Usage {
            nattch: 2,
            atime: 200,
            lpid: 42,
            lpid_domain: 5,
            ..Usage::default()
        };
        assert_eq!(master.usage(9, ID, 5), want);
        assert_eq!(mine.sub(9, ID, 300), 1);
        assert_eq!(
            (master.count(9, ID), master.usage(9, ID, 5).dtime),
            (1, 300)
        );
        assert_eq!(master.count(9, ID + 1), 0);
        assert_eq!(master.attached().collect::<Vec<_>>(), [(9, ID, 1)]);
    }

    #[test]
    fn a_slot_that_is_used_again_begins_at_zero() {
        let master = PageMaster::create(4, 1).unwrap();
        let mine = PageMine::map(master.fd(), 42).unwrap();
        mine.add(0, ID, 100);
        mine.sub(0, ID, 150);
        mine.add(0, ID + 1, 200);
        let usage = master.usage(0, ID + 1, 1);
        assert_eq!((usage.nattch, usage.dtime), (1, 0));
    }

    #[test]
    fn the_master_knows_whether_the_page_is_mapped() {
        let master = PageMaster::create(4, 1).unwrap();
        let mine = PageMine::map(master.fd(), 42).unwrap();
        assert!(master.still_mapped());
        drop(mine);
        assert!(!master.still_mapped());
    }

    #[test]
    fn a_child_gets_its_parents_attachments() {
        let parent = PageMaster::create(1, 1).unwrap();
        let mine = PageMine::map(parent.fd(), 42).unwrap();
        mine.add(3, ID, 1);
        mine.add(3, ID, 1);
        mine.add(5, ID + 1, 1);
        mine.sub(5, ID + 1, 2);
        let child = PageMaster::create(2, 1).unwrap();
        child.copy_attachments_from(&parent).unwrap();
        assert_eq!(child.attached().collect::<Vec<_>>(), [(3, ID, 2)]);
    }

    #[test]
    fn a_client_that_writes_garbage_into_its_page_harms_no_reader() {
        let master = PageMaster::create(1, 1).unwrap();
        let mine = PageMine::map(master.fd(), 42).unwrap();
        mine.map.head.high_water.store(u32::MAX, Relaxed);
        mine.map.attach[DIR_SLOTS - 1]
            .count
            .store(u32::MAX, Relaxed);
        assert_eq!(master.attached().count(), 1);
        assert_eq!(master.count(u32::MAX, 0), 0);
    }
}
