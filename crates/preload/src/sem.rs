// SPDX-License-Identifier: MIT OR Apache-2.0
//! `semget`, `semop` and `semtimedop`, with the results and errors of the kernel's `ipc/sem.c`. Each
//! function takes the real one, to pass on what is not routed. `semctl` is [`crate::sem_ctl`].
//!
//! A `semop` that need not wait makes no system call: it finds the set ([`crate::sets`]), takes the
//! lock in its region and carries its operations out ([`vshmem_engine::set`]). Waiting is
//! [`crate::sem_wait`].

use crate::construct::{
    Target, about, get_known, get_request, is_routed_key, left_to_kernel, may, resolve,
};
use crate::errno::fail;
use crate::process::{Process, processors};
use crate::sem_wait;
use crate::session::{live_directory, wait_page};
use crate::sets::{self, ALTER, LocalSet, READ};
use crate::thread::Thread;
use crate::{creds, lock, sys, thread, user};
use libc::{key_t, sembuf, size_t, timespec};
use rustix::fd::AsFd;
use rustix::thread::{NanosleepRelativeResult, nanosleep, sched_yield};
use std::ffi::c_int;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};
use vshmem_abi::Kind;
use vshmem_abi::limits::SemLimits;
use vshmem_abi::perm;
use vshmem_abi::token::Token;
use vshmem_abi::wire::{Op as Ask, State, Undoer};
use vshmem_engine::directory;
use vshmem_engine::region::{Caller, Surroundings, Who, map};
use vshmem_engine::set::{Call, Locked, Op, Outcome, SEM_UNDO};
use vshmem_engine::wait_page::WaitPage;

/// Type of the real `semget`.
pub type SemGet = unsafe extern "C" fn(key_t, c_int, c_int) -> c_int;
/// Type of the real `semtimedop`.
pub type SemTimedOp = unsafe extern "C" fn(c_int, *mut sembuf, size_t, *const timespec) -> c_int;

/// `semget(2)`.
///
/// # Safety
/// `real` is the C library's function.
pub unsafe fn get(real: SemGet, key: key_t, nsems: c_int, flags: c_int) -> c_int {
    if !is_routed_key(key) {
        // SAFETY: passed on as it came.
        return unsafe { real(key, nsems, flags) };
    }
    get_routed(key, nsems, flags).unwrap_or_else(fail)
}

fn get_routed(key: key_t, nsems: c_int, flags: c_int) -> Result<c_int, c_int> {
    static MSL: OnceLock<u64> = OnceLock::new();
    let size = u64::try_from(nsems).map_err(|_| libc::EINVAL)?;
    // A number that no set may have is refused before the key is looked at; `vshmemd` does that.
    let may_be = size <= *MSL.get_or_init(|| SemLimits::read().msl);
    if may_be && let Some(known) = get_known(Kind::Sem, key, size, flags) {
        return known;
    }
    let mut session = lock::enter();
    let (reply, _) = session.call(get_request(Kind::Sem, key, size, flags))?;
    Ok(reply.value)
}

/// Operations that are read to the caller's stack; more go to memory of their own.
const FEW: usize = 8;

/// SEMOPM when it was last read, and no less than [`FEW`]; 0: never.
static OPM: AtomicU32 = AtomicU32::new(0);

/// `semop(2)`, and with a timeout `semtimedop(2)`, of an id that [`concerns_us`]; `real` is the C
/// library's `semtimedop`.
///
/// # Safety
/// `ops` and `timeout` are the caller's; they may lead nowhere.
///
/// [`concerns_us`]: crate::construct::concerns_us
#[inline(never)]
pub unsafe fn op(
    real: SemTimedOp,
    id: c_int,
    ops: *mut sembuf,
    count: size_t,
    timeout: *const timespec,
) -> c_int {
    match op_of_ours(id, ops, count, timeout) {
        Ok(()) => 0,
        Err(Failed::With(error)) => fail(error),
        Err(Failed::Denied(_)) => fail(libc::EACCES),
        Err(Failed::NotOurs(instead)) => {
            // SAFETY: passed on as it came.
            let result = unsafe { real(id, ops, count, timeout) };
            left_to_kernel(id, result == -1, instead);
            result
        }
    }
}

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

#[inline]
fn op_of_ours(
    id: c_int,
    ops: *const sembuf,
    count: usize,
    timeout: *const timespec,
) -> Result<(), Failed> {
    // In the order of `ksys_semtimedop` and what it calls.
    let timeout = if timeout.is_null() {
        None
    } else {
        Some(user::read(timeout).ok_or(libc::EFAULT)?)
    };
    if count > FEW {
        return op_of_many(id, ops, count, timeout);
    }
    if count > OPM.load(Relaxed) as usize && count as u64 > opm() {
        return Err(libc::E2BIG.into());
    }
    if count == 0 {
        return Err(libc::EINVAL.into());
    }
    let mut own = [Op(0); FEW];
    let own = own.get_mut(..count).ok_or(libc::E2BIG)?;
    read_ops(ops, own)?;
    op_read(id, own, timeout)
}

#[cold]
fn opm() -> u64 {
    let opm = SemLimits::read().opm;
    OPM.store(opm.min(FEW as u64) as u32, Relaxed);
    opm
}

#[inline]
fn read_ops(from: *const sembuf, to: &mut [Op]) -> Result<(), c_int> {
    if user::is_there(from as usize, size_of_val(to) / 8 * size_of::<sembuf>()) {
        for (place, op) in to.iter_mut().enumerate() {
            // SAFETY: so many structures are there, readable; unaligned, as the kernel takes them.
            *op = packed(unsafe { from.wrapping_add(place).read_unaligned() });
        }
    } else {
        for (place, op) in to.iter_mut().enumerate() {
            *op = packed(sys::read_user(from.wrapping_add(place)).ok_or(libc::EFAULT)?);
        }
    }
    Ok(())
}

#[inline]
fn packed(op: sembuf) -> Op {
    Op::new(op.sem_num, op.sem_op, op.sem_flg as u16)
}

/// More operations than fit on the stack of whoever calls.
#[cold]
#[inline(never)]
fn op_of_many(
    id: c_int,
    ops: *const sembuf,
    count: usize,
    timeout: Option<timespec>,
) -> Result<(), Failed> {
    if count as u64 > opm() {
        return Err(libc::E2BIG.into());
    }
    let mut space = sys::Space::new(count * size_of::<Op>()).ok_or(libc::ENOMEM)?;
    let own = space.as_slice_of::<Op>(count);
    read_ops(ops, own)?;
    op_read(id, own, timeout)
}

#[inline]
fn op_read(id: c_int, ops: &[Op], timeout: Option<timespec>) -> Result<(), Failed> {
    let timeout = match timeout {
        Some(time) if time.tv_sec < 0 || !(0..1_000_000_000).contains(&time.tv_nsec) => {
            return Err(libc::EINVAL.into());
        }
        timeout => timeout,
    };
    let mut flags = 0;
    let mut highest = 0;
    let mut alters = false;
    for op in ops {
        flags |= (op.0 >> 32) as u16;
        highest = highest.max(op.num());
        alters |= op.change() != 0;
    }
    let own = match Own::find(id) {
        Err(Failed::Denied(sems)) if u64::from(highest) >= sems => {
            return Err(libc::EFBIG.into());
        }
        found => found?,
    };
    if highest >= own.local.set.shape().sems {
        return Err(libc::EFBIG.into());
    }
    own.check(if alters { ALTER } else { READ })?;
    if ops.len() > own.local.set.shape().ops as usize {
        return Err(libc::E2BIG.into());
    }
    let record = if flags & SEM_UNDO == 0 {
        None
    } else {
        match own.local.undo_record(own.process.undo_token()) {
            Some(record) => Some(record),
            None => Some(own.begin_undo()?),
        }
    };
    let call = Call {
        caller: Caller {
            token: own.process.token(),
            who: own.who(),
            now: seconds(),
        },
        record,
    };
    let thread = thread::current();
    let around = own.around();
    let mut locked = own.lock(thread, &around)?;
    if let Some(record) = record
        && !locked.is_undo_of(record, own.process.undo_token())
    {
        // `vshmemd` took this process for dead, or a peer has written here.
        locked.unlock();
        thread.leave();
        return Err(libc::EIDRM.into());
    }
    match locked.semop(ops, &call) {
        Outcome::Done => {
            locked.unlock();
            thread.leave();
            Ok(())
        }
        Outcome::Failed(error) if error != libc::EAGAIN => {
            locked.unlock();
            thread.leave();
            Err(error.into())
        }
        outcome => sem_wait::blocked(&own, ops, &call, timeout, locked, outcome, thread, &around),
    }
}

/// Seconds since the epoch, of the clock that the kernel stamps sets with: it takes no system call,
/// and no look at a counter of the processor.
#[inline]
pub fn seconds() -> i64 {
    // SAFETY: a null pointer is allowed: the time is returned alone.
    unsafe { libc::time(std::ptr::null_mut()) }
}

/// A set and all that this process needs to work on it.
pub struct Own {
    /// The set.
    pub local: &'static LocalSet,
    /// This process.
    pub process: &'static Process,
    /// The domain's directory.
    pub directory: &'static vshmem_abi::layout::Directory,
    /// The domain's wait page.
    pub page: &'static WaitPage,
}

impl Own {
    /// The set `id`, which is mapped if it is not.
    #[inline]
    pub fn find(id: c_int) -> Result<Self, Failed> {
        if let Some(process) = Process::known()
            && let Some(directory) = live_directory()
            && let Some(page) = wait_page()
            && let Some(local) = sets::find(id)
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
        match resolve(&mut session, Kind::Sem, id)? {
            Target::Routed(slot, meta) => {
                let (directory, _) = session.connected()?;
                let local = match sets::find(id) {
                    Some(local) => local,
                    None => {
                        let opened = session.call(about(Kind::Sem, Ask::Open, id));
                        let (_, [fd, ..]) = opened.map_err(|error| match error {
                            libc::EACCES => Failed::Denied(meta.size),
                            error => Failed::With(error),
                        })?;
                        let fd = fd.ok_or(libc::EMFILE)?;
                        session
                            .sets
                            .add(id, slot, fd.as_fd(), directory)
                            .map_err(|error| error.raw_os_error())?
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
    pub fn around(&self) -> Around {
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
    /// `EACCES`; `EIDRM` when the set went away.
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
        let version = directory::version_of(self.directory, self.local.slot);
        version << 32 | u64::from(creds::epoch() & ((1 << 29) - 1)) << 3 | 1 << 2
    }

    #[cold]
    #[inline(never)]
    fn decide(&self, wanted: u64) -> Result<(), c_int> {
        let mut session = lock::enter();
        // Before the look, so that a change in between makes for another look.
        let decision = self.decision();
        let meta = match resolve(&mut session, Kind::Sem, self.local.id)? {
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

    /// Takes the set's lock, for as short a time as can be. The thread is in a critical section then,
    /// which ends with [`Thread::leave`] after [`Locked::unlock`].
    ///
    /// # Errors
    /// `EIDRM` when the set is gone, `ENODEV` when `vshmemd` is; `EINTR` in a signal handler that we
    /// know nothing of and that has interrupted this thread where it holds a lock.
    #[inline(always)]
    pub fn lock<'b>(
        &self,
        thread: &Thread,
        around: &'b Around,
    ) -> Result<Locked<'static, 'b, AtomicU64, Around>, c_int> {
        if !thread.enter() {
            return Err(libc::EINTR);
        }
        if !self.local.set.try_acquire(self.process.token()) {
            self.acquire_slowly(thread)?;
        }
        if !self.local.set.is(self.local.id) {
            self.local.set.let_go();
            thread.leave();
            return Err(libc::EIDRM);
        }
        Ok(self.local.set.acquired(around))
    }

    #[cold]
    #[inline(never)]
    fn acquire_slowly(&self, thread: &Thread) -> Result<(), c_int> {
        let token = self.process.token();
        let mut patience = Patience::new(processors() > 1);
        loop {
            // Holders have it for well under a microsecond, unless they lost their processor.
            while patience.spins() {
                if self.local.set.lock_holder() == Token::NONE && self.local.set.try_acquire(token)
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
            if !thread.enter() {
                return Err(libc::EINTR);
            }
        }
    }

    /// Has this process's undo be applied to the set when it ends; returns its undo record.
    #[cold]
    #[inline(never)]
    fn begin_undo(&self) -> Result<u32, c_int> {
        let token = {
            let mut session = lock::enter();
            let (reply, _) = session.call(about(Kind::Sem, Ask::Undo, self.local.id))?;
            let token = Token::from_raw(reply.body::<Undoer>().token);
            if self.process.undo_token() != token {
                let client = self.process.token();
                let (slot, _) = self
                    .page
                    .claim(client, client.serial() as u32)
                    .ok_or(libc::ENOSPC)?;
                self.page.set_undoer(slot, token);
                self.process.has_undo(token, slot);
            }
            token
        };
        let thread = thread::current();
        let around = self.around();
        let slot = self.process.undo_slot.load(Relaxed);
        let mut locked = self.lock(thread, &around)?;
        let record = locked.undo_record(token, slot);
        locked.unlock();
        thread.leave();
        let record = record.ok_or(libc::ENOSPC)?;
        self.local.has_undo(token, record);
        Ok(record)
    }

    /// Has `vshmemd` look for the dead that have left something in the set.
    #[cold]
    pub fn settle(&self) {
        // Whatever comes of it, the set says what it says.
        let mut session = lock::enter();
        let _ = session.call(about(Kind::Sem, Ask::Settle, self.local.id));
        let own = self.process.undo_slot.load(Relaxed);
        if self.process.undo_token() != Token::NONE && self.page.is_dead(own) {
            // Only the thread that held it has ended.
            self.page.hold_on(own);
        }
    }
}

/// What the engine needs of this process.
pub struct Around {
    local: &'static LocalSet,
    domid: u32,
    page: &'static WaitPage,
}

impl Surroundings for Around {
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
        map::wake(self.local.set, waiter);
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
const LOOKS: u32 = 200;
/// Rounds in which the processor is given away without sleeping.
const YIELDS: u32 = 16;
/// The longest sleep, in doublings of [`FIRST_SLEEP`].
const DOUBLINGS: u32 = 6;
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
        self.looks <= most
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
