// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory of a domain: which constructs it knows, by key and by id.
//!
//! `vshmemd` writes it, every client maps it read-only. Chains and entries are guarded by a
//! sequence counter: a reader that sees it odd or moved begins again, a bounded number of times;
//! then it asks `vshmemd` instead. So a client never waits for a daemon that died in the middle
//! of a change.

use crate::mapping::{Mapping, file_size};
use crate::robust;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering::*, fence};
use vshmem_abi::layout::{DIR_BUCKETS, DIR_MAGIC, DirEntry, Directory, META_WORDS, NO_SLOT};
use vshmem_abi::limits::{DIR_SLOTS, MsgLimits};
use vshmem_abi::wire::{Meta, State};
use vshmem_abi::{ABI_VERSION, Kind};
use zerocopy::{FromBytes, IntoBytes};

/// How often a reader begins again before it asks `vshmemd`. A change takes well under a
/// microsecond, so running out of tries means that the writer was preempted or died.
const TRIES: usize = 64;

/// Links followed in one chain: more is not a chain of this directory.
const MAX_CHAIN: usize = 4096;

fn bucket(kind: u32, value: i32) -> usize {
    let mixed = (value as u32 ^ kind.rotate_left(30)).wrapping_mul(0x9E37_79B1);
    (mixed >> (32 - DIR_BUCKETS.trailing_zeros())) as usize
}

fn word(meta: &Meta) -> u64 {
    (meta.id as u32 as u64) << 32 | u64::from(meta.state)
}

/// What a reader found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The construct and its slot.
    Found(u32, Meta),
    /// The domain does not know it. Another domain may.
    Absent,
    /// The directory was being changed all the time: ask `vshmemd`.
    Busy,
}

/// The state of the construct `id` in `slot`, with the ordering that [`crate::attach`] relies on.
pub fn state_of(directory: &Directory, slot: u32, id: i32) -> State {
    let Some(entry) = directory.entries.get(slot as usize) else {
        return State::Free;
    };
    let word = entry.word.load(SeqCst);
    if (word >> 32) as u32 as i32 == id {
        State::from_raw(word as u32)
    } else {
        State::Free
    }
}

/// The version of the entry in `slot`. What was found after this was read holds for as long as it
/// is the same.
#[inline]
pub fn version_of(directory: &Directory, slot: u32) -> u64 {
    let entry = directory.entries.get(slot as usize);
    // Acquire: pairs with the Release of `DirectoryWriter::move_version`, so who sees a version
    // sees what has changed with it.
    entry.map_or(0, |entry| entry.version.load(Acquire))
}

/// Whether the `vshmemd` that writes this directory lives.
pub fn writer_lives(directory: &Directory) -> bool {
    let word = directory.head.owner[0].load(Acquire) as u32;
    word & libc::FUTEX_OWNER_DIED == 0 && word & libc::FUTEX_TID_MASK != 0
}

/// Finds the live construct of `kind` that `key` names.
pub fn find_key(directory: &Directory, kind: Kind, key: i32) -> Lookup {
    let head = &directory.head.keys[bucket(kind as u32, key)];
    find(
        directory,
        head,
        |e| &e.next_key,
        |m| m.key == key && m.kind == kind as u32,
    )
}

/// Finds the construct `id` of `kind`, whatever its state.
pub fn find_id(directory: &Directory, kind: Kind, id: i32) -> Lookup {
    let head = &directory.head.ids[bucket(0, id)];
    find(
        directory,
        head,
        |e| &e.next_id,
        |m| m.id == id && m.kind == kind as u32,
    )
}

fn find(
    directory: &Directory,
    head: &AtomicU32,
    next: impl Fn(&DirEntry) -> &AtomicU32,
    wanted: impl Fn(&Meta) -> bool,
) -> Lookup {
    let seq = &directory.head.seq;
    for _ in 0..TRIES {
        // Pairs with the Release store that ends a change in `DirectoryWriter::change`.
        let before = seq.load(Acquire);
        if before & 1 == 1 {
            std::hint::spin_loop();
            continue;
        }
        let found = walk(directory, head, &next, &wanted);
        // Orders the reads of the walk before the second look at the counter; pairs with the
        // Release fence after the counter is made odd.
        fence(Acquire);
        if seq.load(Relaxed) == before {
            return found.map_or(Lookup::Absent, |(slot, meta)| Lookup::Found(slot, meta));
        }
    }
    Lookup::Busy
}

fn walk(
    directory: &Directory,
    head: &AtomicU32,
    next: impl Fn(&DirEntry) -> &AtomicU32,
    wanted: impl Fn(&Meta) -> bool,
) -> Option<(u32, Meta)> {
    let mut slot = head.load(Relaxed);
    for _ in 0..MAX_CHAIN {
        let entry = directory.entries.get(slot as usize)?;
        let meta = load_meta(entry);
        if wanted(&meta) {
            return Some((slot, meta));
        }
        slot = next(entry).load(Relaxed);
    }
    None
}

fn load_meta(entry: &DirEntry) -> Meta {
    let mut words = [0u64; META_WORDS];
    for (word, shared) in words.iter_mut().zip(&entry.meta) {
        *word = shared.load(Relaxed);
    }
    Meta::read_from_bytes(words.as_bytes()).unwrap_or_default()
}

fn store_meta(entry: &DirEntry, meta: &Meta) {
    let words = <[u64; META_WORDS]>::read_from_bytes(meta.as_bytes()).unwrap_or_default();
    for (word, shared) in words.iter().zip(&entry.meta) {
        shared.store(*word, Relaxed);
    }
}

/// What the limits of queues are raised to in this domain ([`MsgLimits::raised`]).
pub fn raised_limits(directory: &Directory) -> MsgLimits {
    let head = &directory.head;
    MsgLimits {
        max: head.msgmax.load(Relaxed),
        mnb: head.msgmnb.load(Relaxed),
        mni: head.msgmni.load(Relaxed),
    }
}

/// A client's view of its domain's directory. Never unmapped: a reader may be in it in another
/// thread, and a program sees few daemons in its life.
pub fn map_for_reading(fd: BorrowedFd<'_>) -> Result<&'static Directory, Errno> {
    let mapping = Mapping::<Directory>::new(fd, false)?;
    if mapping.head.magic.load(Relaxed) != DIR_MAGIC
        || mapping.head.version.load(Relaxed) != ABI_VERSION
    {
        return Err(Errno::PROTO);
    }
    Ok(mapping.leak())
}

/// The writer's side, held by `vshmemd`.
pub struct DirectoryWriter {
    fd: OwnedFd,
    map: Mapping<Directory>,
    by_id: HashMap<i32, u32>,
    by_key: HashMap<(u32, i32), u32>,
    free: Vec<u32>,
    version: u64,
}

impl DirectoryWriter {
    /// Makes an empty directory. The calling thread is the one whose death clients will notice
    /// ([`writer_lives`]), so it has to be the daemon's main thread.
    ///
    /// # Errors
    /// What `memfd_create`, `ftruncate`, `mmap` and the mutex calls say.
    pub fn create(domid: u32, generation: u64) -> std::io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("vshmem-directory", flags)?;
        rustix::fs::ftruncate(&fd, file_size::<Directory>())?;
        let map = Mapping::<Directory>::new(fd.as_fd(), true)?;
        // From here on the file can be mapped for reading only, by whoever gets the descriptor.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&fd, seals)?;
        let head = &map.head;
        head.magic.store(DIR_MAGIC, Relaxed);
        head.version.store(ABI_VERSION, Relaxed);
        head.generation.store(generation, Relaxed);
        head.domid.store(domid, Relaxed);
        for chain in head.keys.iter().chain(&head.ids) {
            chain.store(NO_SLOT, Relaxed);
        }
        robust::hold(&head.owner)?;
        Ok(Self {
            fd,
            map,
            by_id: HashMap::new(),
            by_key: HashMap::new(),
            free: Vec::new(),
            // Another beginning after each start: a client that has gone over to the next directory finds
            // no version there that it knows from this one.
            version: generation >> 1,
        })
    }

    /// Tells clients what the limits of queues are raised to. Each is one for itself.
    pub fn tell_limits(&mut self, raised: &MsgLimits) {
        let head = &self.map.head;
        head.msgmax.store(raised.max, Relaxed);
        head.msgmnb.store(raised.mnb, Relaxed);
        head.msgmni.store(raised.mni, Relaxed);
    }

    /// The descriptor to pass to clients.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Adds a construct and returns its slot; `None` when the directory is full. An id that is
    /// there already is updated.
    pub fn insert(&mut self, meta: &Meta) -> Option<u32> {
        if let Some(&slot) = self.by_id.get(&meta.id) {
            self.update(slot, meta);
            return Some(slot);
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = self.map.head.high_water.load(Relaxed);
                if slot as usize >= DIR_SLOTS {
                    return None;
                }
                self.map.head.high_water.store(slot + 1, Relaxed);
                slot
            }
        };
        self.by_id.insert(meta.id, slot);
        // Before the chains: who finds the entry may look at its state at once.
        self.entry(slot).word.store(word(meta), SeqCst);
        self.change(|this| {
            let entry = this.entry(slot);
            store_meta(entry, meta);
            push(&this.map.head.ids[bucket(0, meta.id)], &entry.next_id, slot);
            this.link_key(slot, meta);
        });
        self.move_version(slot);
        Some(slot)
    }

    /// Replaces what is known of the construct in `slot`. The state is changed first and with a
    /// fence after it, so that attachments read after this call include every one whose client
    /// has not seen the new state.
    pub fn update(&mut self, slot: u32, meta: &Meta) {
        let old = load_meta(self.entry(slot));
        self.entry(slot).word.store(word(meta), SeqCst);
        fence(SeqCst);
        if old == *meta {
            return;
        }
        self.change(|this| {
            if old.key != meta.key {
                this.unlink_key(slot, &old);
            }
            store_meta(this.entry(slot), meta);
            if old.key != meta.key {
                this.link_key(slot, meta);
            }
        });
        self.move_version(slot);
    }

    /// Frees `slot`. No client of the domain may have the construct attached any more.
    pub fn remove(&mut self, slot: u32) {
        let old = load_meta(self.entry(slot));
        self.entry(slot).word.store(0, SeqCst);
        self.by_id.remove(&old.id);
        self.change(|this| {
            this.unlink_key(slot, &old);
            unlink(
                &this.map,
                &this.map.head.ids[bucket(0, old.id)],
                |e| &e.next_id,
                slot,
            );
            store_meta(this.entry(slot), &Meta::default());
        });
        self.move_version(slot);
        self.free.push(slot);
    }

    /// The construct `id`, with its slot.
    pub fn find(&self, id: i32) -> Option<(u32, Meta)> {
        let slot = *self.by_id.get(&id)?;
        Some((slot, load_meta(self.entry(slot))))
    }

    /// The construct of `kind` that `key` names, with its slot.
    pub fn find_key(&self, kind: Kind, key: i32) -> Option<(u32, Meta)> {
        let slot = *self.by_key.get(&(kind as u32, key))?;
        Some((slot, load_meta(self.entry(slot))))
    }

    fn entry(&self, slot: u32) -> &DirEntry {
        &self.map.entries[slot as usize]
    }

    /// Says that the entry in `slot` is another one than before.
    fn move_version(&mut self, slot: u32) {
        self.version += 1;
        self.entry(slot).version.store(self.version, Release);
    }

    /// Runs a change of chains and entries with the counter odd.
    fn change(&mut self, work: impl FnOnce(&mut Self)) {
        let seq = self.map.head.seq.load(Relaxed);
        self.map.head.seq.store(seq.wrapping_add(1), Relaxed);
        // Orders the odd counter before the writes; pairs with the Acquire fence in `find`.
        fence(Release);
        work(self);
        // Publishes the writes; pairs with the Acquire load in `find`.
        self.map.head.seq.store(seq.wrapping_add(2), Release);
    }

    fn link_key(&mut self, slot: u32, meta: &Meta) {
        if meta.key != vshmem_abi::ids::IPC_PRIVATE {
            self.by_key.insert((meta.kind, meta.key), slot);
            let entry = self.entry(slot);
            push(
                &self.map.head.keys[bucket(meta.kind, meta.key)],
                &entry.next_key,
                slot,
            );
        }
    }

    fn unlink_key(&mut self, slot: u32, old: &Meta) {
        if old.key != vshmem_abi::ids::IPC_PRIVATE {
            // The key may name a younger construct by now.
            if self.by_key.get(&(old.kind, old.key)) == Some(&slot) {
                self.by_key.remove(&(old.kind, old.key));
            }
            let head = &self.map.head.keys[bucket(old.kind, old.key)];
            unlink(&self.map, head, |e| &e.next_key, slot);
        }
    }
}

fn push(head: &AtomicU32, next: &AtomicU32, slot: u32) {
    next.store(head.load(Relaxed), Relaxed);
    head.store(slot, Relaxed);
}

fn unlink(map: &Directory, head: &AtomicU32, next: impl Fn(&DirEntry) -> &AtomicU32, slot: u32) {
    let mut link = head;
    loop {
        let here = link.load(Relaxed);
        let Some(entry) = map.entries.get(here as usize) else {
            return;
        };
        if here == slot {
            link.store(next(entry).load(Relaxed), Relaxed);
            return;
        }
        link = next(entry);
    }
}

impl Drop for DirectoryWriter {
    fn drop(&mut self) {
        // A daemon drops the directory in the thread that made it; so or so, the mutex is leaving the
        // robust list with the memory.
        robust::release(&self.map.head.owner);
    }
}

#[cfg(test)]
mod tests;
