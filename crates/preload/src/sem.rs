// SPDX-License-Identifier: MIT OR Apache-2.0
//! `semget`, `semop` and `semtimedop`, with the results and errors of the kernel's `ipc/sem.c`. Each
//! function takes the real one, to pass on what is not routed. `semctl` is [`crate::sem_ctl`].
//!
//! A `semop` that need not wait makes no system call: it finds the set ([`crate::locals`]), takes the
//! lock in its region and carries its operations out ([`vshmem_engine::set`]). Waiting is
//! [`crate::wait`].

use crate::construct::{about, get_known, get_request, is_routed_key, left_to_kernel};
use crate::errno::fail;
use crate::locals::{ALTER, Locals, READ, Table};
use crate::own::{self, Around, Failed};
use crate::session::Session;
use crate::thread::Thread;
use crate::wait::{self, Came, Place, failed};
use crate::{lock, sys, thread, user};
use libc::{key_t, sembuf, size_t, timespec};
use std::ffi::c_int;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};
use vshmem_abi::Kind;
use vshmem_abi::limits::SemLimits;
use vshmem_abi::region::waiter;
use vshmem_abi::set::Shape;
use vshmem_abi::token::Token;
use vshmem_abi::wire::{Op as Ask, Undoer};
use vshmem_engine::region::Caller;
use vshmem_engine::set::{Call, Op, Outcome, SEM_UNDO, Set};

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
    if highest >= own.local.region.shape().sems {
        return Err(libc::EFBIG.into());
    }
    own.check(if alters { ALTER } else { READ })?;
    if ops.len() > own.local.region.shape().ops as usize {
        return Err(libc::E2BIG.into());
    }
    let record = if flags & SEM_UNDO == 0 {
        None
    } else {
        match own.local.notes.undo_record(own.process.undo_token()) {
            Some(record) => Some(record),
            None => Some(own.begin_undo()?),
        }
    };
    let call = Call {
        caller: Caller {
            token: own.process.token(),
            who: own.who(),
            now: own::seconds(),
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
        outcome => blocked(&own, ops, &call, timeout, locked, outcome, thread, &around),
    }
}

/// Goes on with a call that cannot be done at once, as `outcome` says; the set's lock is held.
#[inline(never)]
#[allow(clippy::too_many_arguments)] // one caller, which has all of them at hand
fn blocked<'b>(
    own: &Own,
    ops: &[Op],
    call: &Call,
    timeout: Option<timespec>,
    mut locked: Held<'b>,
    mut outcome: Outcome,
    thread: &Thread,
    around: &'b Around<Shape>,
) -> Result<(), Failed> {
    if locked.has_undo_of_the_dead() {
        locked.unlock();
        thread.leave();
        own.settle();
        locked = own.lock(thread, around)?;
        outcome = locked.semop(ops, call);
    }
    let blocking = match outcome {
        Outcome::Blocked(place) if !timeout.is_some_and(|t| t.tv_sec == 0 && t.tv_nsec == 0) => {
            place
        }
        outcome => {
            locked.unlock();
            thread.leave();
            return match outcome {
                Outcome::Done => Ok(()),
                Outcome::Failed(error) => Err(error.into()),
                Outcome::Blocked(_) => Err(libc::EAGAIN.into()),
            };
        }
    };
    let refused = |locked: Held<'_>| {
        locked.unlock();
        thread.leave();
        Err(libc::ENOMEM.into())
    };
    let Some(place) = Place::claim(own) else {
        return refused(locked);
    };
    let Some(index) = locked.wait(ops, call, place.slot(), blocking) else {
        place.release(own);
        return refused(locked);
    };
    match wait::wait(own, &Semop, place, index, timeout, locked, thread) {
        Came::Result(0) => Ok(()),
        Came::Result(errno) => Err((-errno as c_int).into()),
        Came::Again => Err(libc::EINTR.into()),
    }
}

/// A `semop` that waits: its result is in its record.
struct Semop;

impl wait::Call for Semop {
    type Kind = Shape;
    const LOCKED: bool = false;
    const CANCELLABLE: bool = false;
    const RESTARTS: bool = false;

    fn take(&self, own: &Own, _: &Thread, _: Option<Held<'_>>, index: u32) -> Came {
        Came::Result(failed(own.local.region.collect(index)))
    }

    fn take_for_handler(&self, own: &Own, _: &Thread, locked: Held<'_>, index: u32) -> i64 {
        locked.unlock();
        failed(match own.local.region.look(index) {
            waiter::POSTED => own.local.region.result(index),
            _ => libc::EIDRM,
        })
    }
}

/// What a process keeps of a set: its undo record there.
#[derive(Default)]
pub struct Notes {
    /// Undo token for which `record` is the undo record; 0: none.
    undo_token: AtomicU64,
    record: AtomicU32,
}

impl Notes {
    /// The undo record of `token`'s process, if it is known.
    #[inline(always)]
    fn undo_record(&self, token: Token) -> Option<u32> {
        (token != Token::NONE && self.undo_token.load(Acquire) == token.raw())
            .then(|| self.record.load(Relaxed))
    }

    /// The undo record of this process is `record`.
    fn has_undo(&self, token: Token, record: u32) {
        self.undo_token.store(0, Relaxed);
        self.record.store(record, Relaxed);
        self.undo_token.store(token.raw(), Release);
    }
}

static SETS: Table<Shape> = Table::new();

impl own::Kind for Shape {
    const KIND: Kind = Kind::Sem;
    type Notes = Notes;

    #[inline(always)]
    fn table() -> &'static Table<Self> {
        &SETS
    }

    fn locals(session: &mut Session) -> &mut Locals<Self> {
        &mut session.sets
    }

    fn free_record(set: &Set<'static, AtomicU64>, index: u32) {
        set.collect(index);
    }
}

/// A set and all that this process needs to work on it.
pub type Own = own::Own<Shape>;
/// The right to change a set.
pub type Held<'b> = own::Held<'b, Shape>;

impl Own {
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
        self.local.notes.has_undo(token, record);
        Ok(record)
    }
}
