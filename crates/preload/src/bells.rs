// SPDX-License-Identifier: MIT OR Apache-2.0
//! The doorbells of other domains, by which this process has sleepers woken there where no futex reaches
//! them ([`vshmem_engine::doorbell`]).
//!
//! A few are kept, by domain, where they are found without a lock: whoever rings is in a critical
//! section, and may be a signal handler. One that is not there, or of no use any more, is asked of
//! `vshmemd`, under the session's lock, and with it to wake the sleeper at once: so nothing depends on
//! whether the program has room for two more descriptors. Nobody holds that lock who takes the lock of a
//! construct, so it may be taken also where the other way round would be a deadlock; but whoever holds
//! a construct's lock has others wait, and leaves the asking for later.

use crate::construct::about;
use crate::lock;
use crate::own_fd::{File, OwnFd};
use crate::sys::{self, time_of};
use rustix::event::Timespec;
use rustix::fd::{AsFd, OwnedFd};
use rustix::mm::MapFlags;
use std::ffi::c_void;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering::*, fence};
use vshmem_abi::doorbell::{Notify, Page, WORDS};
use vshmem_abi::wire::{BELL_WAKE, BELL_WAKE_ALL, Bell, Op as Ask, Request, how_opened};
use vshmem_abi::{Domid, Kind};
use vshmem_engine::doorbell::Doorbell;
use vshmem_engine::mapping::{How, Mapping, Source, file_size};

/// Domains whose doorbells are kept at a time.
const PLACES: usize = 16;

/// Descriptors that are kept open for a while after others have taken their place, since another thread
/// may be about to notify with one.
const LINGER: usize = 8;

/// Domains that are remembered to be woken when the lock of a construct is given back.
const MISSED: usize = 4;

type Words = [AtomicU64; WORDS];

/// A doorbell, as it is kept.
struct Place {
    /// Odd while the rest changes.
    version: AtomicU32,
    domid: AtomicU32,
    /// The direction that is rung; null: there is none here. The address stays mapped for ever.
    words: AtomicPtr<Words>,
    /// What it is notified with, and how.
    number: AtomicI32,
    dev: AtomicU64,
    ino: AtomicU64,
    how: AtomicU32,
    port: AtomicU32,
}

impl Place {
    const fn empty() -> Self {
        Self {
            version: AtomicU32::new(0),
            domid: AtomicU32::new(0),
            words: AtomicPtr::new(std::ptr::null_mut()),
            number: AtomicI32::new(-1),
            dev: AtomicU64::new(0),
            ino: AtomicU64::new(0),
            how: AtomicU32::new(0),
            port: AtomicU32::new(0),
        }
    }

    /// What it has, of one moment; `None` also while it changes.
    fn read(&self) -> Option<Known> {
        let version = self.version.load(Acquire);
        let known = Known {
            domid: self.domid.load(Relaxed),
            words: self.words.load(Relaxed),
            file: File {
                number: self.number.load(Relaxed),
                dev: self.dev.load(Relaxed),
                ino: self.ino.load(Relaxed),
            },
            notify: Notify::from_parts(self.how.load(Relaxed), self.port.load(Relaxed))?,
        };
        // The loads above come before this one.
        fence(Acquire);
        let same = self.version.load(Relaxed) == version && version.is_multiple_of(2);
        (same && !known.words.is_null()).then_some(known)
    }

    /// Changes it; called with the session's lock.
    fn write(&self, known: &Known) {
        // Odd already in a copy that a raw `clone` has made of a moment in between.
        let changing = self.version.load(Relaxed) | 1;
        self.version.store(changing, Relaxed);
        // The stores below come after that one.
        fence(Release);
        let (how, port) = known.notify.parts();
        self.domid.store(known.domid, Relaxed);
        self.words.store(known.words, Relaxed);
        self.number.store(known.file.number, Relaxed);
        self.dev.store(known.file.dev, Relaxed);
        self.ino.store(known.file.ino, Relaxed);
        self.how.store(how, Relaxed);
        self.port.store(port, Relaxed);
        self.version.store(changing.wrapping_add(1), Release);
    }
}

static BELLS: [Place; PLACES] = [const { Place::empty() }; PLACES];

/// Domains that were not woken with a construct's lock held: one more than the number.
static TO_WAKE: [AtomicU32; MISSED] = [const { AtomicU32::new(0) }; MISSED];

/// The domain whose doorbell was refused last, one more than its number, high half; until which second
/// it is not asked for again, low half.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// How long the answer may take: whoever would be woken looks for itself after such a time.
const PATIENCE: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

/// Seconds in which a doorbell that was refused is not asked for again: a peer can have any number of a
/// domain stand where one is read.
const REFUSED_FOR: u32 = 1;
/// The same when there is no answer at all.
const SILENT_FOR: u32 = 10;

/// A doorbell to ring.
#[derive(Clone, Copy)]
struct Known {
    domid: Domid,
    words: *mut Words,
    file: File,
    notify: Notify,
}

impl Known {
    /// None.
    const NONE: Self = Self {
        domid: 0,
        words: std::ptr::null_mut(),
        file: File {
            number: -1,
            dev: 0,
            ino: 0,
        },
        notify: Notify::Write,
    };

    /// Rings; `false`: it is of no use.
    fn ring(&self, slot: u32) -> bool {
        // SAFETY: a page's direction, whose address stays mapped for ever.
        let words = unsafe { self.words.as_ref() };
        let Some(bell) = words.and_then(|words| Doorbell::new(words)) else {
            return false;
        };
        bell.is_answered() && (!bell.ring(slot) || self.notifies())
    }

    fn notifies(&self) -> bool {
        let fd = self.file.get();
        fd.is_some_and(|fd| self.notify.raise(fd).is_ok())
    }
}

/// Wakes who sleeps in `slot` of the wait page of domain `domid`, on the construct `id`.
pub fn wake(kind: Kind, id: i32, domid: Domid, slot: u32) {
    if !ring(domid, slot) {
        ask(kind, id, domid, BELL_WAKE, slot);
    }
}

/// The same while the construct's lock is held, as far as that takes no time; the rest is left for
/// [`make_up`].
pub fn wake_locked(domid: Domid, slot: u32) {
    if ring(domid, slot) {
        return;
    }
    let name = domid.wrapping_add(1);
    for place in &TO_WAKE {
        let there = place.compare_exchange(0, name, AcqRel, Acquire);
        if there.is_ok() || there == Err(name) {
            return;
        }
    }
    // They look for themselves, two seconds later.
}

/// Wakes those of whom [`wake_locked`] has left some, of constructs of which `id` is one.
pub fn make_up(kind: Kind, id: i32) {
    for place in &TO_WAKE {
        if place.load(Relaxed) != 0
            && let Some(domid) = place.swap(0, AcqRel).checked_sub(1)
        {
            ask(kind, id, domid, BELL_WAKE_ALL, 0);
        }
    }
}

fn ring(domid: Domid, slot: u32) -> bool {
    let mut known = BELLS.iter().filter_map(Place::read);
    known
        .find(|known| known.domid == domid)
        .is_some_and(|known| known.ring(slot))
}

/// Has `vshmemd` wake whom `flags` and `slot` say, and keeps the doorbell.
#[cold]
#[inline(never)]
fn ask(kind: Kind, id: i32, domid: Domid, flags: i32, slot: u32) {
    let refused = REFUSED.load(Relaxed);
    let left = (refused as u32).wrapping_sub(seconds());
    if refused >> 32 == u64::from(domid) + 1 && (1..=SILENT_FOR).contains(&left) {
        return;
    }
    let mut session = lock::enter();
    let request = Request {
        arg: domid,
        flags,
        size: slot.into(),
        ..about(kind, Ask::Bell, id)
    };
    match session.call_within(request, &PATIENCE) {
        Ok((reply, [Some(page), Some(notifier), ..])) => {
            let source = Source {
                fd: page.as_fd(),
                how: how_opened(reply.value),
                len: file_size::<Page>(),
            };
            session
                .bells
                .keep(domid, &reply.body::<Bell>(), &source, notifier);
        }
        // It was rung; there is no room for the descriptors.
        Ok(_) => {}
        Err(error) => {
            let time = if error == libc::ENODEV {
                SILENT_FOR
            } else {
                REFUSED_FOR
            };
            let until = seconds().wrapping_add(time);
            let refused = (u64::from(domid) + 1) << 32 | u64::from(until);
            REFUSED.store(refused, Relaxed);
        }
    }
}

fn seconds() -> u32 {
    time_of(libc::CLOCK_MONOTONIC).tv_sec as u32
}

/// A doorbell that is kept.
struct Kept {
    domid: Domid,
    serial: u64,
    page: *mut c_void,
    how: How,
    /// `None`: the program has closed it.
    fd: Option<OwnFd>,
}

/// The right to change what is kept; the session has the one there is.
pub struct Bells {
    kept: [Option<Kept>; PLACES],
    /// The place that is taken when all are.
    next: usize,
    old: [Option<OwnFd>; LINGER],
    next_old: usize,
}

// SAFETY: the pointers are to mappings, which belong to no thread.
unsafe impl Send for Bells {}

impl Bells {
    /// The one value of this type.
    pub const fn the_one() -> Self {
        Self {
            kept: [const { None }; PLACES],
            next: 0,
            old: [const { None }; LINGER],
            next_old: 0,
        }
    }

    fn keep(&mut self, domid: Domid, bell: &Bell, source: &Source<'_>, notifier: OwnedFd) {
        let Some(notify) = Notify::from_parts(bell.how, bell.port) else {
            return;
        };
        // What the program has closed must not be taken for the new one where that gets its number.
        self.forget_closed();
        let Ok(fd) = OwnFd::new(notifier) else { return };
        let Some(at) = self.place(domid) else { return };
        let known = self.kept.get_mut(at).and_then(Option::take);
        let page = match known {
            Some(known) if known.domid == domid && known.serial == bell.serial => {
                self.put_away(known.fd);
                known.page
            }
            other => {
                self.discard(at, other, true);
                match Mapping::<Page>::of(source, true) {
                    Ok(page) => std::ptr::from_ref(page.leak()).cast_mut().cast(),
                    Err(_) => return,
                }
            }
        };
        // SAFETY: a page, which stays mapped.
        let directions = unsafe { &(*page.cast::<Page>()).directions };
        let Some(words) = directions.get(bell.direction as usize) else {
            return;
        };
        if let Some(place) = BELLS.get(at) {
            place.write(&Known {
                domid,
                words: std::ptr::from_ref(words).cast_mut(),
                file: fd.file(),
                notify,
            });
        }
        if let Some(place) = self.kept.get_mut(at) {
            *place = Some(Kept {
                domid,
                serial: bell.serial,
                page,
                how: source.how,
                fd: Some(fd),
            });
        }
    }

    /// The place of a domain's doorbell: the one that it has, a free one, or another's.
    fn place(&mut self, domid: Domid) -> Option<usize> {
        let of = |kept: &Option<Kept>| kept.as_ref().is_some_and(|kept| kept.domid == domid);
        let own = self.kept.iter().position(of);
        own.or_else(|| self.kept.iter().position(Option::is_none))
            .or_else(|| {
                self.next = (self.next + 1) % PLACES;
                Some(self.next)
            })
    }

    /// Nothing is kept in this place any more, where `kept` was. `is_there`: its memory is sure to be.
    fn discard(&mut self, at: usize, kept: Option<Kept>, is_there: bool) {
        if let Some(place) = BELLS.get(at) {
            place.write(&Known::NONE);
        }
        let Some(kept) = kept else { return };
        if is_there || kept.how == How::Direct {
            let len = file_size::<Page>() as usize;
            // SAFETY: the range is the mapping of a page that nobody needs any more. A thread that is about to
            // ring there finds zeroes: nobody answers.
            let _ = unsafe { sys::anonymous_at(kept.page, len, MapFlags::FIXED) };
        }
        self.put_away(kept.fd);
    }

    fn put_away(&mut self, fd: Option<OwnFd>) {
        if let Some(place) = self.old.get_mut(self.next_old) {
            *place = fd;
        }
        self.next_old = (self.next_old + 1) % LINGER;
    }

    fn forget_closed(&mut self) {
        let kept = self.kept.iter_mut().flatten().map(|kept| &mut kept.fd);
        for place in kept.chain(&mut self.old) {
            if place.as_ref().is_some_and(|fd| fd.get().is_none()) {
                *place = None;
            }
        }
    }

    /// Forgets all: they were those of another `vshmemd`.
    pub fn forget(&mut self) {
        self.forget_all(true);
    }

    /// The same in a child, which may not have inherited memory that was mapped by grants.
    pub fn forget_in_child(&mut self) {
        self.forget_all(false);
    }

    fn forget_all(&mut self, are_there: bool) {
        for at in 0..PLACES {
            let kept = self.kept.get_mut(at).and_then(Option::take);
            self.discard(at, kept, are_there);
        }
    }
}
