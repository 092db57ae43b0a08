// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this process has attached, by address.
//!
//! The addresses can be asked for without a lock, so that `shmdt` of one of the kernel's own
//! segments costs next to nothing. All else is the session's, under its lock.

use crate::sys;
use rustix::mm::ProtFlags;
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::*};
use vshmem_engine::mapping::{FileId, KeptList};

/// Attachments that one process can have: as many as the kernel's default limit of mappings.
const CAPACITY: usize = 65536;

/// One attachment.
#[derive(Clone, Copy)]
pub struct Attachment {
    /// First address.
    pub addr: usize,
    /// Bytes, in whole pages.
    pub len: usize,
    /// Public id of the segment.
    pub id: i32,
    /// Its slot in the directory of that generation.
    pub slot: u32,
    /// Generation of the domain in which it was attached.
    pub generation: u64,
    /// Whether the client page counts it.
    pub counted: bool,
    /// Device and inode of the file that is mapped, by which its mappings are known.
    pub file: FileId,
    /// What it takes to map the region again, if it is one of grants.
    pub again: Option<Again>,
    /// Something else that was attached later lies over a part of it.
    pub overlaid: bool,
    /// Higher than that of all that were attached before; [`Attachments::insert`] gives it.
    pub order: u64,
}

/// What it takes to map an attachment again in a child that has not inherited it.
#[derive(Clone, Copy)]
pub struct Again {
    /// The region's grants. The attachment's own.
    pub list: KeptList,
    /// As it was attached.
    pub prot: ProtFlags,
}

#[repr(C)]
struct Entry {
    /// [`key`] of the attachment's address; 0: the entry is free.
    key: AtomicUsize,
    rest: UnsafeCell<Attachment>,
}

/// The entries: mapped with the first attachment, then never unmapped, since a reader may be in
/// them.
static ENTRIES: AtomicPtr<Entry> = AtomicPtr::new(std::ptr::null_mut());
/// Entries from here on were never used.
static USED: AtomicUsize = AtomicUsize::new(0);
/// [`Attachment::order`] of the next one.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Addresses are page-aligned, and 0 is one of them (root may attach there): a bit makes any of them
/// different from "none".
const fn key(addr: usize) -> usize {
    addr | 1
}

fn entries() -> &'static [Entry] {
    // Pairs with the Release in `insert`: an entry below USED is initialised.
    let used = USED.load(Acquire);
    let first = ENTRIES.load(Acquire);
    if first.is_null() {
        return &[];
    }
    // SAFETY: `first` is a mapping of CAPACITY entries that is never unmapped, zeroed at first,
    // which is a valid Entry; `used` never exceeds CAPACITY.
    unsafe { std::slice::from_raw_parts(first, used) }
}

/// Whether `addr` is where an attachment of ours begins. Takes no lock.
#[inline]
pub fn begins_at(addr: usize) -> bool {
    USED.load(Relaxed) != 0
        && addr & 1 == 0
        && entries().iter().any(|e| e.key.load(Relaxed) == key(addr))
}

/// The right to use the table beyond [`begins_at`]; the session has the one there is.
pub struct Attachments(());

impl Attachments {
    /// The one value of this type, for the session.
    pub const fn the_one() -> Self {
        Self(())
    }

    /// Makes sure that one more attachment fits; to be called before it is made.
    pub fn reserve(&mut self) -> bool {
        if ENTRIES.load(Relaxed).is_null() {
            match sys::anonymous(CAPACITY * size_of::<Entry>()) {
                Ok(first) => ENTRIES.store(first.cast(), Release),
                Err(_) => return false,
            }
        }
        USED.load(Relaxed) < CAPACITY || self.free_entry().is_some()
    }

    fn free_entry(&self) -> Option<&'static Entry> {
        entries().iter().find(|e| e.key.load(Relaxed) == 0)
    }

    /// Adds an attachment for which [`Self::reserve`] made room.
    pub fn insert(&mut self, attachment: Attachment) {
        let attachment = Attachment {
            order: NEXT.fetch_add(1, Relaxed),
            ..attachment
        };
        let entry = match self.free_entry() {
            Some(entry) => entry,
            None => {
                let used = USED.load(Relaxed);
                if used >= CAPACITY || ENTRIES.load(Relaxed).is_null() {
                    return;
                }
                USED.store(used + 1, Release);
                match entries().last() {
                    Some(entry) => entry,
                    None => return,
                }
            }
        };
        // SAFETY: the session's lock is held (`&mut self`), and readers without it look at `key`
        // alone.
        unsafe { *entry.rest.get() = attachment };
        entry.key.store(key(attachment.addr), Release);
    }

    /// Removes an attachment.
    pub fn remove(&mut self, attachment: &Attachment) {
        let is_it = |entry: &&Entry| {
            // SAFETY: the session's lock is held (`&mut self`); nobody writes.
            entry.key.load(Relaxed) == key(attachment.addr)
                && unsafe { (*entry.rest.get()).id } == attachment.id
        };
        if let Some(entry) = entries().iter().find(is_it) {
            entry.key.store(0, Release);
        }
    }

    /// Changes an attachment.
    pub fn change(&mut self, attachment: &Attachment, change: impl FnOnce(&mut Attachment)) {
        let same = |a: &Attachment| a.addr == attachment.addr && a.id == attachment.id;
        let mut change = Some(change);
        self.for_each(|a| {
            if same(a)
                && let Some(change) = change.take()
            {
                change(a);
            }
        });
    }

    /// All attachments, copied out one by one.
    pub fn iter(&self) -> impl Iterator<Item = Attachment> + use<> {
        entries()
            .iter()
            .filter(|e| e.key.load(Relaxed) != 0)
            .map(|e| {
                // SAFETY: the caller came through the session, whose lock is held; nobody writes.
                unsafe { *e.rest.get() }
            })
    }

    /// Changes every attachment in place.
    pub fn for_each(&mut self, mut change: impl FnMut(&mut Attachment)) {
        for entry in entries().iter().filter(|e| e.key.load(Relaxed) != 0) {
            // SAFETY: the session's lock is held (`&mut self`); one entry at a time is borrowed.
            change(unsafe { &mut *entry.rest.get() });
        }
    }
}
