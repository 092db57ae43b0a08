// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the calls on semaphore sets and message queues have in common: finding the construct, whether
//! the caller may, and the lock in its region.

use crate::construct::{Target, about, may, resolve};
use crate::locals::{ALTER, Local, Locals, READ, Table};
use crate::process::{Process, processors};
use crate::regions::refused;
use crate::session::{Session, live_directory, wait_page};
use crate::thread::Thread;
use crate::{bells, creds, lock};
use rustix::fd::AsFd;
use rustix::thread::{NanosleepRelativeResult, nanosleep, sched_yield};
use std::ffi::c_int;
use std::sync::atomic::{AtomicU64, Ordering::*};
use vshmem_abi::layout::Directory;
use vshmem_abi::perm;
use vshmem_abi::token::Token;
use vshmem_abi::wire::{Op as Ask, Opened, REGION_NO_FUTEX, State, how_opened};
use vshmem_engine::directory;
use vshmem_engine::mapping::Source;
use vshmem_engine::region::{self, Locked, Region, Surroundings, Who, map};
use vshmem_engine::wait_page::WaitPage;

/// A kind of construct that lives in a region with a lock and waiters.
pub trait Kind: region::Kind + 'static {
    /// Its name.
    const KIND: vshmem_abi::Kind;

    /// What a process keeps of a construct for this kind alone.
    type Notes: Default;

    /// What this process has mapped of this kind.
    fn table() -> &'static Table<Self>;

    /// The right to add to that.
    fn locals(session: &mut Session) -> &mut Locals<Self>;

    /// Frees the record of a waiter whose result was taken.
    fn free_record(region: &Region<'static, AtomicU64, Self>, index: u32);

    /// Before the lock of a construct is waited for, which somebody else has: for who would rather leave it
    /// to others for a while.
    fn contended(_: &Local<Self>) {}
}

/// A region whose lock this process holds.
pub type Held<'b, K> = Locked<'static, 'b, AtomicU64, Around<K>, K>;

/// Why a call with an id that looks like ours is not done.
pub enum Failed {
    /// It fails with this errno.
    With(c_int),
    /// `EACCES`: not even its memory is to be had, of which this is the number of semaphores.
    Denied(u64),
    /// The id is the kernel's, for all we know; if it does not know it either (`EINVAL`), this is the
    /// error instead.
    NotOurs(Option<c_int>),
}

impl From<c_int> for Failed {
    fn from(errno: c_int) -> Self {
        Self::With(errno)
    }
}

/// Seconds since the epoch, of the clock that the kernel stamps sets with: it takes no system call,
/// and no look at a counter of the processor.
#[inline]
pub fn seconds() -> i64 {
    // SAFETY: a null pointer is allowed: the time is returned alone.
    unsafe { libc::time(std::ptr::null_mut()) }
}

/// A construct and all that this process needs to work on it.
pub struct Own<K: Kind> {
    /// The construct.
    pub local: &'static Local<K>,
    /// This process.
    pub process: &'static Process,
    /// The domain's directory.
    pub directory: &'static Directory,
    /// The domain's wait page.
    pub page: &'static WaitPage,
}

impl<K: Kind> Own<K> {
    /// The construct `id`, which is mapped if it is not.
    #[inline]
    pub fn find(id: c_int) -> Result<Self, Failed> {
        if let Some(process) = Process::known()
            && let Some(directory) = live_directory()
            && let Some(page) = wait_page()
            && let Some(local) = K::table().find(id)
            && local.state(directory) == State::Live
        {
            return Ok(Self {
                local,
                process,
                directory,
                page,
            });
        }
        Self::open(id)
    }

    #[cold]
    #[inline(never)]
    fn open(id: c_int) -> Result<Self, Failed> {
        let mut session = lock::enter();
        match resolve(&mut session, K::KIND, id)? {
            Target::Routed(slot, meta) => {
                let (directory, _) = session.connected()?;
                let local = match K::table().find_at(id, slot) {
                    Some(local) => local,
                    None => {
                        let opened = session.call(about(K::KIND, Ask::Open, id));
                        let (reply, [fd, ..]) = opened.map_err(|error| match error {
                            libc::EACCES => Failed::Denied(meta.size),
                            error => Failed::With(error),
                        })?;
                        let fd = fd.ok_or(libc::EMFILE)?;
                        let source = Source {
                            fd: fd.as_fd(),
                            how: how_opened(reply.value),
                            len: reply.body::<Opened>().bytes,
                        };
                        let has_futexes = reply.value & REGION_NO_FUTEX == 0;
                        K::locals(&mut session)
                            .add(id, slot, &source, has_futexes, directory)
                            .map_err(refused)?
                    }
                };
                let process = Process::known().ok_or(libc::ENODEV)?;
                let page = wait_page().ok_or(libc::ENODEV)?;
                match local.state(directory) {
                    State::Live => Ok(Self {
                        local,
                        process,
                        directory,
                        page,
                    }),
                    State::Lost | State::Dest => Err(libc::EIDRM.into()),
                    State::Free => Err(libc::EINVAL.into()),
                }
            }
            Target::Kernel(instead) => Err(Failed::NotOurs(instead)),
        }
    }

    /// Who this process is to others.
    #[inline]
    pub fn who(&self) -> Who {
        Who::new(self.process.pid(), self.process.domid())
    }

    /// What the engine needs of this process.
    #[inline]
    pub fn around(&self) -> Around<K> {
        Around {
            local: self.local,
            domid: self.process.domid(),
            page: self.page,
        }
    }

    /// Whether the caller may do `wanted` ([`READ`], [`ALTER`]), as the mode and its credentials are at
    /// this moment.
    ///
    /// # Errors
    /// `EACCES`; `EIDRM` when the construct went away.
    #[inline]
    pub fn check(&self, wanted: u64) -> Result<(), c_int> {
        let decided = self.decision();
        let rights = self.local.rights.load(Relaxed);
        // A refusal does not hold for another thread, which may have other ids.
        if rights & !(READ | ALTER) != decided || rights & wanted == 0 {
            return self.decide(wanted);
        }
        Ok(())
    }

    /// What a decision about rights depends on. Never 0, as it is before the first one.
    #[inline]
    fn decision(&self) -> u64 {
        let version = directory::version_of(self.directory, self.local.slot());
        version << 32 | u64::from(creds::epoch() & ((1 << 29) - 1)) << 3 | 1 << 2
    }

    #[cold]
    #[inline(never)]
    fn decide(&self, wanted: u64) -> Result<(), c_int> {
        let mut session = lock::enter();
        // Before the look, so that a change in between makes for another look.
        let decision = self.decision();
        let meta = match resolve(&mut session, K::KIND, self.local.id)? {
            Target::Routed(_, meta) => meta,
            Target::Kernel(_) => return Err(libc::EIDRM),
        };
        let mut rights = 0;
        if may(&meta, perm::READ) {
            rights |= READ;
        }
        if may(&meta, perm::WRITE) {
            rights |= ALTER;
        }
        self.local.rights.store(decision | rights, Relaxed);
        if rights & wanted == 0 {
            return Err(libc::EACCES);
        }
        Ok(())
    }

    /// Takes the construct's lock, for as short a time as can be. The thread is in a critical section then,
    /// which ends with [`Thread::leave`] after [`Locked::unlock`].
    ///
    /// # Errors
    /// `EIDRM` when the construct is gone, `ENODEV` when `vshmemd` is; `EINTR` in a signal handler that we
    /// know nothing of and that has interrupted this thread where it holds a lock.
    #[inline(always)]
    pub fn lock<'b>(&self, thread: &Thread, around: &'b Around<K>) -> Result<Held<'b, K>, c_int> {
        if !thread.enter() {
            return Err(libc::EINTR);
        }
        if !self.local.region.try_acquire(self.process.token()) {
            self.acquire_slowly(thread)?;
        }
        if !self.local.region.is(self.local.id) {
            self.local.region.let_go();
            thread.leave();
            return Err(libc::EIDRM);
        }
        Ok(self.local.region.acquired(around))
    }

    /// [`Self::lock`] of who was told something a moment ago: the one who has told it is about to give the
    /// lock back.
    pub fn lock_soon<'b>(
        &self,
        thread: &Thread,
        around: &'b Around<K>,
    ) -> Result<Held<'b, K>, c_int> {
        self.await_release();
        self.lock(thread, around)
    }

    /// Waits for a moment, if need be, until nobody has the lock.
    pub fn await_release(&self) {
        for _ in 0..SOON {
            if self.local.region.lock_holder() == Token::NONE {
                break;
            }
            std::hint::spin_loop();
        }
    }

    /// [`Self::lock`] in a critical section, which goes on also if there is no lock to be had.
    pub fn lock_again<'b>(&self, thread: &Thread, around: &'b Around<K>) -> Option<Held<'b, K>> {
        let region = &self.local.region;
        if !region.try_acquire(self.process.token()) && self.acquire_slowly(thread).is_err() {
            thread.enter();
            return None;
        }
        if !region.is(self.local.id) {
            region.let_go();
            return None;
        }
        Some(region.acquired(around))
    }

    /// The lock of a construct that is gone, as long as its memory is not: for what was done before. In a
    /// critical section.
    pub fn lock_at_the_end<'b>(&self, around: &'b Around<K>) -> Option<Held<'b, K>> {
        let region = &self.local.region;
        let mut patience = Patience::new(processors() > 1);
        for _ in 0..YIELDS {
            while patience.spins() {
                if region.try_acquire(self.process.token()) {
                    return Some(region.acquired(around));
                }
                std::hint::spin_loop();
            }
            patience.wait();
        }
        None
    }

    #[cold]
    #[inline(never)]
    fn acquire_slowly(&self, thread: &Thread) -> Result<(), c_int> {
        let token = self.process.token();
        let mut patience = Patience::new(processors() > 1);
        thread.leave();
        K::contended(self.local);
        if !thread.enter() {
            return Err(libc::EINTR);
        }
        loop {
            // Holders have it for well under a microsecond, unless they lost their processor. Who looks too
            // often gets it after each of their calls: then all that they work on goes from processor to
            // processor with each, which takes several times as long as the calls themselves.
            while patience.spins() {
                if self.local.region.lock_holder() == Token::NONE
                    && self.local.region.try_acquire(token)
                {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
            // Signals are let in while we wait for longer.
            thread.leave();
            match self.local.state(self.directory) {
                _ if !directory::writer_lives(self.directory) => return Err(libc::ENODEV),
                State::Live => {}
                State::Free | State::Dest | State::Lost => return Err(libc::EIDRM),
            }
            patience.wait();
            if patience.is_long() {
                self.settle();
            }
            if !thread.enter() {
                return Err(libc::EINTR);
            }
        }
    }

    /// Has `vshmemd` look for the dead that have left something in the construct.
    #[cold]
    pub fn settle(&self) {
        // Whatever comes of it, the region says what it says.
        let mut session = lock::enter();
        let _ = session.call(about(K::KIND, Ask::Settle, self.local.id));
        let own = self.process.undo_slot.load(Relaxed);
        if self.process.undo_token() != Token::NONE && self.page.is_dead(own) {
            // Only the thread that held it has ended.
            self.page.hold_on(own);
        }
    }
}

/// What the engine needs of this process.
pub struct Around<K: Kind> {
    local: &'static Local<K>,
    domid: u32,
    page: &'static WaitPage,
}

impl<K: Kind> Surroundings for Around<K> {
    #[inline(always)]
    fn domid(&self) -> u32 {
        self.domid
    }

    #[inline]
    fn is_dead(&self, slot: u32) -> bool {
        self.page.is_dead(slot)
    }

    #[inline]
    fn wake(&self, waiter: u32) {
        if self.local.has_futexes {
            map::wake(self.local.region, waiter);
        } else {
            let id = self.local.id;
            self.wake_in_slot(waiter, |domid, slot| {
                bells::wake(K::KIND, id, domid, slot);
            });
            bells::make_up(K::KIND, id);
        }
    }

    #[inline]
    fn wake_locked(&self, waiter: u32) {
        if self.local.has_futexes {
            map::wake(self.local.region, waiter);
        } else {
            self.wake_in_slot(waiter, bells::wake_locked);
        }
    }
}

impl<K: Kind> Around<K> {
    /// Wakes whoever waits at `waiter`, who sleeps in its domain's wait page: of another domain by
    /// `elsewhere`.
    #[inline(never)]
    fn wake_in_slot(&self, waiter: u32, elsewhere: impl FnOnce(u32, u32)) {
        match self.local.region.place_of(waiter) {
            Some((domid, slot)) if domid == self.domid => {
                self.page.wake(slot);
            }
            Some((domid, slot)) => elsewhere(domid, slot),
            None => {}
        }
    }
}

/// How a thread waits for a lock that somebody else has: looking, giving the processor away, sleeping
/// for longer and longer.
struct Patience {
    looks: u32,
    rounds: u32,
    several_cpus: bool,
}

/// Looks in a row.
const LOOKS: u32 = 8;
/// The longest pause between two, in doublings of the shortest one.
const PAUSES: u32 = 6;
/// Looks of who was told something a moment ago, without longer pauses.
const SOON: u32 = 100;
/// Rounds in which the processor is given away without sleeping.
const YIELDS: u32 = 16;
/// The longest sleep, in doublings of [`FIRST_SLEEP`].
const DOUBLINGS: u32 = 6;
/// Sleeps until `vshmemd` is asked whether there is a holder at all.
const ROUNDS: u32 = 64;
/// The first sleep, in nanoseconds.
const FIRST_SLEEP: i64 = 20_000;

impl Patience {
    fn new(several_cpus: bool) -> Self {
        Self {
            looks: 0,
            rounds: 0,
            several_cpus,
        }
    }

    /// Whether to look once more before [`Self::wait`].
    fn spins(&mut self) -> bool {
        let most = if self.several_cpus { LOOKS } else { 1 };
        self.looks += 1;
        if self.looks > most {
            return false;
        }
        if self.several_cpus {
            for _ in 0..1 << self.looks.min(PAUSES) {
                std::hint::spin_loop();
            }
        }
        true
    }

    /// Whether it has lasted so long, again, that the holder may be one that there is not: some tens of
    /// milliseconds.
    fn is_long(&self) -> bool {
        self.rounds > YIELDS && (self.rounds - YIELDS).is_multiple_of(ROUNDS)
    }

    fn wait(&mut self) {
        self.looks = 0;
        self.rounds += 1;
        if self.rounds <= YIELDS {
            sched_yield();
            return;
        }
        let doublings = (self.rounds - YIELDS - 1).min(DOUBLINGS);
        let time = rustix::thread::Timespec {
            tv_sec: 0,
            tv_nsec: FIRST_SLEEP << doublings,
        };
        // A signal ends it early, which is as good.
        let _: NanosleepRelativeResult = nanosleep(&time);
    }
}
