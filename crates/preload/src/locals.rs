// SPDX-License-Identifier: MIT OR Apache-2.0
//! The semaphore sets and message queues that this process has mapped, by id: found without a lock,
//! since every `semop`, `msgsnd` and `msgrcv` looks here.
//!
//! An entry and its mapping stay where they are until the process ends, since another thread may be in
//! them: when a construct is gone its memory is, and the addresses are given empty memory of our own.

use crate::own::Kind;
use crate::sys;
use crate::thread::Left;
use rustix::io::Errno;
use rustix::mm::MapFlags;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering::*};
use vshmem_abi::layout::Directory;
use vshmem_abi::wire::State;
use vshmem_engine::directory;
use vshmem_engine::mapping::{FileId, How, MapError, Source};
use vshmem_engine::region::{Region, RegionMap};

/// Places of the table, a power of two: more than twice as many as the kernel lets there be sets, or
/// queues.
const PLACES: usize = 1 << 16;
/// Places that are looked at for an id.
const PROBES: usize = 64;
/// Places that are looked at for constructs that are gone whenever one is added.
const SWEEP: usize = 32;
/// Entries that are made at a time.
const BATCH: usize = 64;

/// A construct that this process has mapped.
#[repr(C)]
pub struct Local<K: Kind> {
    /// How its waiters' records are freed.
    left: Left,
    /// Public id.
    pub id: i32,
    /// Its slot in the directory of this moment.
    slot: AtomicU32,
    /// Its region. Empty memory once the construct is gone.
    pub region: Region<'static, AtomicU64, K>,
    /// Whether those who wait sleep in the region; else in their slot of the wait page.
    pub has_futexes: bool,
    /// What the process may do, as last decided: version of the directory's entry (32 bits), epoch
    /// of the credentials (30 bits), [`READ`], [`ALTER`].
    pub rights: AtomicU64,
    /// What is kept for this kind alone.
    pub notes: K::Notes,
    /// Threads that wait, and so have a record in the region.
    pub waiting: AtomicU32,
    /// Looks that a waiter takes before it sleeps, without and with letting others run in between.
    pub spins: AtomicU32,
    /// The same before it gets into a line.
    pub early: AtomicU32,
    /// See there.
    pub yields: AtomicU32,
    /// How often this process has waited.
    pub waits: AtomicU32,
    address: usize,
    len: usize,
    file: FileId,
    retired: AtomicU32,
    /// The one before it of those that are mapped by grants, if it is one of them.
    before: *const Local<K>,
}

/// In [`Local::rights`]: the process may look.
pub const READ: u64 = 1;
/// In [`Local::rights`]: the process may change.
pub const ALTER: u64 = 2;

impl<K: Kind> Local<K> {
    /// Whether the construct is there, as the directory says.
    #[inline(always)]
    pub fn state(&self, directory: &Directory) -> State {
        directory::state_of(directory, self.slot(), self.id)
    }

    /// Its slot in the directory.
    #[inline(always)]
    pub fn slot(&self) -> u32 {
        self.slot.load(Relaxed)
    }

    /// It is in `slot` of the directory: another one than before when `vshmemd` was started again.
    fn is_at(&self, slot: u32) {
        if self.slot() != slot {
            self.rights.store(0, Relaxed);
            self.slot.store(slot, Relaxed);
        }
    }

    fn is_retired(&self) -> bool {
        self.retired.load(Relaxed) != 0
    }

    /// What [`crate::thread::Thread::leave_behind`] is told.
    pub fn left(&self) -> *const Left {
        std::ptr::from_ref(self).cast()
    }

    /// Frees the record of a waiter whose result was taken.
    pub fn free(&self, index: u32) {
        K::free_record(&self.region, index);
        self.waiting.fetch_sub(1, SeqCst);
    }
}

/// [`Left::free`].
///
/// # Safety
/// `left` is the first field of a [`Local`] of this kind.
unsafe fn free_left<K: Kind>(left: *const Left, index: u32) {
    // SAFETY: as the caller promises; an entry stays until the process ends.
    unsafe { &*left.cast::<Local<K>>() }.free(index);
}

type Place<K> = AtomicPtr<Local<K>>;

/// A kind's table: mapped when its first construct is, then never unmapped.
pub struct Table<K: Kind>(AtomicPtr<Place<K>>);

impl<K: Kind> Table<K> {
    /// A table without constructs.
    pub const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    #[inline(always)]
    fn places(&self) -> Option<&'static [Place<K>]> {
        let first = self.0.load(Acquire);
        // SAFETY: null, or a mapping of so many places that is never unmapped, zeroed at first, which is a
        // valid place.
        (!first.is_null()).then(|| unsafe { std::slice::from_raw_parts(first, PLACES) })
    }

    /// The construct `id`, which the directory has in `slot`, if this process has it mapped.
    pub fn find_at(&self, id: i32, slot: u32) -> Option<&'static Local<K>> {
        let local = self.find(id).filter(|local| !local.is_retired())?;
        local.is_at(slot);
        Some(local)
    }

    /// Where `local` is, if it is in the table.
    fn place_of(&self, local: &Local<K>) -> Option<&'static Place<K>> {
        let places = self.places()?;
        let begin = begin_of(local.id);
        let mut probes = (0..PROBES).filter_map(|p| places.get((begin + p) % PLACES));
        probes.find(|place| std::ptr::eq(place.load(Relaxed), local))
    }

    /// The construct `id`, if this process has mapped it, as far as it knows.
    #[inline(always)]
    pub fn find(&self, id: i32) -> Option<&'static Local<K>> {
        let places = self.places()?;
        let begin = begin_of(id);
        for probe in 0..PROBES {
            // SAFETY: null, or an entry that stays until the process ends.
            let local = unsafe { places.get((begin + probe) % PLACES)?.load(Acquire).as_ref() }?;
            if local.id == id {
                return Some(local);
            }
        }
        None
    }
}

#[inline(always)]
fn begin_of(id: i32) -> usize {
    ((id as u32).wrapping_mul(0x9E37_79B1) >> 16) as usize
}

/// The right to add to a kind's table; the session has the one there is.
pub struct Locals<K: Kind> {
    /// Entries that were made and are not in use yet.
    spare: *mut Local<K>,
    left: usize,
    /// The last one that was mapped by grants.
    grants: *const Local<K>,
    /// Where the next look for constructs that are gone begins.
    sweep: usize,
}

// SAFETY: the pointers are to memory that nobody else has, and to entries that stay until the process
// ends.
unsafe impl<K: Kind> Send for Locals<K> {}

impl<K: Kind> Locals<K> {
    /// The one value of this type.
    pub const fn the_one() -> Self {
        Self {
            spare: std::ptr::null_mut(),
            left: 0,
            grants: std::ptr::null(),
            sweep: 0,
        }
    }

    /// Adds the construct `id`, whose directory slot is `slot`, and maps its region, of which `vshmemd` has
    /// said whether futexes work in it.
    ///
    /// # Errors
    /// As [`RegionMap::map`].
    pub fn add(
        &mut self,
        id: i32,
        slot: u32,
        source: &Source<'_>,
        has_futexes: bool,
        directory: &Directory,
    ) -> Result<&'static Local<K>, MapError> {
        let table = K::table();
        if let Some(known) = table.find_at(id, slot) {
            return Ok(known);
        }
        if table.places().is_none() {
            let places = sys::anonymous(PLACES * size_of::<Place<K>>())?;
            table.0.store(places.cast(), Release);
        }
        let places = table.places().ok_or(Errno::NOMEM)?;
        self.sweep(places, directory);
        let begin = begin_of(id);
        let mut probes = (0..PROBES).filter_map(|p| places.get((begin + p) % PLACES));
        // SAFETY: as in `find`.
        let is_free = |place: &&Place<K>| match unsafe { place.load(Acquire).as_ref() } {
            Some(old) => Self::retire(old, directory),
            None => true,
        };
        let place = probes.find(is_free).ok_or(Errno::NOMEM)?;
        let entry = self.entry()?;
        let map = RegionMap::<K>::map(source)?;
        let (address, len, file) = (map.address(), map.len(), map.file());
        let by_grants = source.how == How::Grants;
        let local = Local {
            left: Left {
                free: free_left::<K>,
            },
            id,
            slot: AtomicU32::new(slot),
            region: map.leak(),
            has_futexes,
            rights: AtomicU64::new(0),
            notes: K::Notes::default(),
            waiting: AtomicU32::new(0),
            spins: AtomicU32::new(0),
            early: AtomicU32::new(0),
            yields: AtomicU32::new(0),
            waits: AtomicU32::new(0),
            address,
            len,
            file,
            retired: AtomicU32::new(0),
            before: if by_grants {
                self.grants
            } else {
                std::ptr::null()
            },
        };
        // SAFETY: memory of an entry that nobody has yet, aligned for it.
        unsafe { entry.write(local) };
        self.left -= 1;
        if by_grants {
            self.grants = entry;
        }
        place.store(entry, Release);
        // SAFETY: written just now; it stays until the process ends.
        Ok(unsafe { &*entry })
    }

    /// Address, length and file of each mapping by grants.
    pub fn grants(&self) -> impl Iterator<Item = (usize, usize, FileId)> + use<K> {
        // SAFETY: null, or an entry that stays until the process ends; likewise those before it.
        let last = unsafe { self.grants.as_ref() };
        // SAFETY: as above.
        let all = std::iter::successors(last, |local| unsafe { local.before.as_ref() });
        all.filter(|local| !local.is_retired())
            .map(|local| (local.address, local.len, local.file))
    }

    /// In a child that has not inherited what was mapped by grants: forgets it. Where nothing has come to
    /// lie at the addresses there is empty memory from now on: a handler that has interrupted a call
    /// before the fork may go back there.
    pub fn forget_grants(&mut self) {
        let mut next = std::mem::replace(&mut self.grants, std::ptr::null());
        // SAFETY: as in `grants`.
        while let Some(local) = unsafe { next.as_ref() } {
            next = local.before;
            local.retired.store(1, Relaxed);
            let at = local.address as *mut _;
            // SAFETY: nothing is replaced.
            let _ = unsafe { sys::anonymous_at(at, local.len, MapFlags::FIXED_NOREPLACE) };
            // What was behind it because this place was taken is mapped once more when it is needed.
            if let Some(place) = K::table().place_of(local) {
                place.store(std::ptr::null_mut(), Release);
            }
        }
    }

    /// Gives up the memory of some constructs that are gone: a process may see very many in its life.
    fn sweep(&mut self, places: &[Place<K>], directory: &Directory) {
        for _ in 0..SWEEP {
            // SAFETY: as in `find`.
            let local = places
                .get(self.sweep)
                .and_then(|place| unsafe { place.load(Relaxed).as_ref() });
            if let Some(local) = local {
                Self::retire(local, directory);
            }
            self.sweep = (self.sweep + 1) % PLACES;
        }
    }

    /// Memory of an entry that is not in use.
    fn entry(&mut self) -> Result<*mut Local<K>, Errno> {
        if self.left == 0 {
            self.spare = sys::anonymous(BATCH * size_of::<Local<K>>())?.cast();
            self.left = BATCH;
        }
        Ok(self.spare.wrapping_add(BATCH - self.left))
    }

    /// Gives up the memory of a construct that is gone; `false`: it is not, or somebody is waiting in it.
    fn retire(old: &Local<K>, directory: &Directory) -> bool {
        if old.is_retired() {
            return true;
        }
        if old.state(directory) != State::Free || old.waiting.load(SeqCst) != 0 {
            return false;
        }
        old.retired.store(1, Relaxed);
        // SAFETY: the range is the mapping of `old`, of which nothing is needed any more. A thread that
        // is on its way into it finds zeroes, which are no construct.
        let _ = unsafe { sys::anonymous_at(old.address as *mut _, old.len, MapFlags::FIXED) };
        true
    }
}
