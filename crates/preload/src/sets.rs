// SPDX-License-Identifier: MIT OR Apache-2.0
//! The semaphore sets that this process has mapped, by id: found without a lock, since every `semop`
//! looks here.
//!
//! An entry and its mapping stay where they are until the process ends, since another thread may be in
//! them: when a set is gone its memory is, and the addresses are given empty memory of our own.

use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering::*};
use vshmem_abi::layout::Directory;
use vshmem_abi::token::Token;
use vshmem_abi::wire::State;
use vshmem_engine::directory;
use vshmem_engine::set::{Set, SetMap};

/// Places of the table, a power of two: more than twice as many as the kernel lets there be sets.
const PLACES: usize = 1 << 16;
/// Places that are looked at for an id.
const PROBES: usize = 64;
/// Places that are looked at for sets that are gone whenever one is added.
const SWEEP: usize = 32;
/// Entries that are made at a time.
const BATCH: usize = 64;

/// A set that this process has mapped.
pub struct LocalSet {
    /// Public id.
    pub id: i32,
    /// Its slot in the directory.
    pub slot: u32,
    /// Its region. Empty memory once the set is gone.
    pub set: Set<'static, AtomicU64>,
    /// What the process may do, as last decided: version of the directory's entry (32 bits), epoch
    /// of the credentials (30 bits), [`READ`], [`ALTER`].
    pub rights: AtomicU64,
    /// Undo token for which `record` is the undo record; 0: none.
    undo_token: AtomicU64,
    record: AtomicU32,
    /// Threads that wait, and so have a record in the region.
    pub waiting: AtomicU32,
    /// Looks that a waiter takes before it sleeps, without and with letting others run in between.
    pub spins: AtomicU32,
    /// See there.
    pub yields: AtomicU32,
    /// How often this process has waited.
    pub waits: AtomicU32,
    address: usize,
    len: usize,
    retired: AtomicU32,
}

/// In [`LocalSet::rights`]: the process may look.
pub const READ: u64 = 1;
/// In [`LocalSet::rights`]: the process may change.
pub const ALTER: u64 = 2;

impl LocalSet {
    /// Whether the set is there, as the directory says.
    #[inline(always)]
    pub fn state(&self, directory: &Directory) -> State {
        directory::state_of(directory, self.slot, self.id)
    }

    /// The undo record of `token`'s process, if it is known.
    #[inline(always)]
    pub fn undo_record(&self, token: Token) -> Option<u32> {
        (token != Token::NONE && self.undo_token.load(Acquire) == token.raw())
            .then(|| self.record.load(Relaxed))
    }

    /// The undo record of this process is `record`.
    pub fn has_undo(&self, token: Token, record: u32) {
        self.undo_token.store(0, Relaxed);
        self.record.store(record, Relaxed);
        self.undo_token.store(token.raw(), Release);
    }
}

type Place = AtomicPtr<LocalSet>;

/// The table: mapped when the first set is, then never unmapped.
static TABLE: AtomicPtr<Place> = AtomicPtr::new(std::ptr::null_mut());

#[inline(always)]
fn places() -> Option<&'static [Place]> {
    let first = TABLE.load(Acquire);
    // SAFETY: null, or a mapping of so many places that is never unmapped, zeroed at first, which is a
    // valid place.
    (!first.is_null()).then(|| unsafe { std::slice::from_raw_parts(first, PLACES) })
}

#[inline(always)]
fn begin_of(id: i32) -> usize {
    ((id as u32).wrapping_mul(0x9E37_79B1) >> 16) as usize
}

/// The set `id`, if this process has it mapped.
#[inline(always)]
pub fn find(id: i32) -> Option<&'static LocalSet> {
    let places = places()?;
    let begin = begin_of(id);
    for probe in 0..PROBES {
        // SAFETY: null, or an entry that stays until the process ends.
        let set = unsafe { places.get((begin + probe) % PLACES)?.load(Acquire).as_ref() }?;
        if set.id == id {
            return Some(set);
        }
    }
    None
}

/// The right to add to the table; the session has the one there is.
pub struct Sets {
    /// Entries that were made and are not in use yet.
    spare: *mut LocalSet,
    left: usize,
    /// Where the next look for sets that are gone begins.
    sweep: usize,
}

// SAFETY: the pointer is to memory that nobody else has.
unsafe impl Send for Sets {}

impl Sets {
    /// The one value of this type.
    pub const fn the_one() -> Self {
        Self {
            spare: std::ptr::null_mut(),
            left: 0,
            sweep: 0,
        }
    }

    /// Adds the set `id`, whose directory slot is `slot`, mapped from its region's descriptor.
    ///
    /// # Errors
    /// `PROTO` when the region is not a set's; what `mmap` says.
    pub fn add(
        &mut self,
        id: i32,
        slot: u32,
        region: impl AsFd,
        directory: &Directory,
    ) -> Result<&'static LocalSet, Errno> {
        if let Some(known) = find(id) {
            return Ok(known);
        }
        let places = match places() {
            Some(places) => places,
            None => Self::make_table()?,
        };
        self.sweep(places, directory);
        let begin = begin_of(id);
        let mut probes = (0..PROBES).filter_map(|p| places.get((begin + p) % PLACES));
        // SAFETY: as in `find`.
        let is_free = |place: &&Place| match unsafe { place.load(Acquire).as_ref() } {
            Some(old) => Self::retire(old, directory),
            None => true,
        };
        let place = probes.find(is_free).ok_or(Errno::NOMEM)?;
        let entry = self.entry()?;
        let map = SetMap::map(region.as_fd())?;
        let (address, len) = (map.address(), map.len());
        let local = LocalSet {
            id,
            slot,
            set: map.leak(),
            rights: AtomicU64::new(0),
            undo_token: AtomicU64::new(0),
            record: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            spins: AtomicU32::new(0),
            yields: AtomicU32::new(0),
            waits: AtomicU32::new(0),
            address,
            len,
            retired: AtomicU32::new(0),
        };
        // SAFETY: memory of an entry that nobody has yet, aligned for it.
        unsafe { entry.write(local) };
        self.left -= 1;
        place.store(entry, Release);
        // SAFETY: written just now; it stays until the process ends.
        Ok(unsafe { &*entry })
    }

    /// Gives up the memory of some sets that are gone: a process may see very many in its life.
    fn sweep(&mut self, places: &[Place], directory: &Directory) {
        for _ in 0..SWEEP {
            // SAFETY: as in `find`.
            let set = places
                .get(self.sweep)
                .and_then(|place| unsafe { place.load(Relaxed).as_ref() });
            if let Some(set) = set {
                Self::retire(set, directory);
            }
            self.sweep = (self.sweep + 1) % PLACES;
        }
    }

    fn make_table() -> Result<&'static [Place], Errno> {
        let table = anonymous(PLACES * size_of::<Place>())?;
        TABLE.store(table.cast(), Release);
        places().ok_or(Errno::NOMEM)
    }

    /// Memory of an entry that is not in use.
    fn entry(&mut self) -> Result<*mut LocalSet, Errno> {
        if self.left == 0 {
            self.spare = anonymous(BATCH * size_of::<LocalSet>())?.cast();
            self.left = BATCH;
        }
        Ok(self.spare.wrapping_add(BATCH - self.left))
    }

    /// Gives up the memory of a set that is gone; `false`: it is not, or somebody is waiting in it.
    fn retire(old: &LocalSet, directory: &Directory) -> bool {
        if old.retired.load(Relaxed) != 0 {
            return true;
        }
        if old.state(directory) != State::Free || old.waiting.load(SeqCst) != 0 {
            return false;
        }
        old.retired.store(1, Relaxed);
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: the range is the mapping of `old`, of which nothing is needed any more. A thread that
        // is on its way into it finds zeroes, which are no set.
        let _ = unsafe { rustix::mm::mmap_anonymous(old.address as *mut _, old.len, prot, flags) };
        true
    }
}

fn anonymous(len: usize) -> Result<*mut std::ffi::c_void, Errno> {
    // SAFETY: a new mapping at an address of the kernel's choice.
    unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            len,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )
    }
}
