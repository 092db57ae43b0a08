// SPDX-License-Identifier: MIT OR Apache-2.0
//! `semctl`, with the results and errors of the kernel's `ipc/sem.c`. What concerns values and waiters
//! is done in the set's region, the rest by `vshmemd`.

use crate::construct::{Target, about, concerns_us, left_to_kernel, resolve};
use crate::errno::fail;
use crate::locals::{ALTER, READ};
use crate::lock;
use crate::own::{Failed, seconds};
use crate::sem::{Held, Own};
use crate::sys::{self, Space};
use crate::thread;
use libc::semid_ds;
use std::ffi::{c_int, c_void};
use vshmem_abi::Kind;
use vshmem_abi::limits::SEMVMX;
use vshmem_abi::wire::{Op, Request, Stat};

/// Type of the real `semctl`.
pub type SemCtl = unsafe extern "C" fn(c_int, c_int, c_int, *mut c_void) -> c_int;

/// `semctl(2)` of one set; the commands that list are [`crate::listing`]'s.
///
/// # Safety
/// `real` is the C library's function.
#[inline]
pub unsafe fn ctl(real: SemCtl, id: c_int, num: c_int, cmd: c_int, arg: *mut c_void) -> c_int {
    if concerns_us(id) {
        // SAFETY: as this function.
        return unsafe { ctl_of_ours(real, id, num, cmd, arg) };
    }
    // SAFETY: passed on as it came.
    unsafe { real(id, num, cmd, arg) }
}

/// [`ctl`] of an id that may be routed. Not inlined: nothing of it may be on the stack when a call
/// is passed on ([`crate::next`]).
#[inline(never)]
unsafe fn ctl_of_ours(real: SemCtl, id: c_int, num: c_int, cmd: c_int, arg: *mut c_void) -> c_int {
    let instead = match control(id, num, cmd, arg) {
        Ok(value) => return value,
        Err(Failed::With(error)) => return fail(error),
        Err(Failed::Denied(_)) => return fail(libc::EACCES),
        Err(Failed::NotOurs(instead)) => instead,
    };
    // SAFETY: as this function.
    let result = unsafe { real(id, num, cmd, arg) };
    left_to_kernel(id, result == -1, instead);
    result
}

fn control(id: c_int, num: c_int, cmd: c_int, arg: *mut c_void) -> Result<c_int, Failed> {
    match cmd {
        libc::GETVAL => with_one(id, num, READ, |locked, num| locked.get_value(num)),
        libc::GETPID => with_one(id, num, READ, |locked, num| locked.get_pid(num)),
        libc::GETNCNT => with_one(id, num, READ, |locked, num| {
            locked.get_count(num, false) as c_int
        }),
        libc::GETZCNT => with_one(id, num, READ, |locked, num| {
            locked.get_count(num, true) as c_int
        }),
        libc::SETVAL => {
            // The value is an `int`, whatever else came in the register.
            let value = arg as usize as c_int;
            let own = match Own::find(id) {
                Err(Failed::NotOurs(instead)) => return Err(Failed::NotOurs(instead)),
                _ if !(0..=SEMVMX).contains(&value) => return Err(libc::ERANGE.into()),
                Err(Failed::Denied(sems)) if !(0..sems as i64).contains(&i64::from(num)) => {
                    return Err(libc::EINVAL.into());
                }
                found => found?,
            };
            let num = one_of(&own, num)?;
            own.check(ALTER)?;
            locked(&own, |locked| {
                locked.set_value(num, value, own.who(), seconds());
            })?;
            Ok(0)
        }
        libc::GETALL => get_all(id, arg.cast()),
        libc::SETALL => set_all(id, arg.cast()),
        _ => by_daemon(id, cmd, arg.cast()),
    }
}

/// The semaphore that `num` names.
fn one_of(own: &Own, num: c_int) -> Result<u32, c_int> {
    u32::try_from(num)
        .ok()
        .filter(|&num| num < own.local.region.shape().sems)
        .ok_or(libc::EINVAL)
}

/// Does something with one semaphore.
fn with_one(
    id: c_int,
    num: c_int,
    wanted: u64,
    work: impl FnOnce(&mut Held<'_>, u32) -> c_int,
) -> Result<c_int, Failed> {
    let own = Own::find(id)?;
    own.check(wanted)?;
    let num = one_of(&own, num)?;
    Ok(locked(&own, |locked| work(locked, num))?)
}

/// Does something under the set's lock, after what the dead would have undone was undone.
fn locked<T>(own: &Own, work: impl FnOnce(&mut Held<'_>) -> T) -> Result<T, c_int> {
    let thread = thread::current();
    let around = own.around();
    let mut locked = own.lock(thread, &around)?;
    if locked.has_undo_of_the_dead() {
        locked.unlock();
        thread.leave();
        own.settle();
        locked = own.lock(thread, &around)?;
    }
    let done = work(&mut locked);
    locked.unlock();
    thread.leave();
    Ok(done)
}

fn get_all(id: c_int, to: *mut u16) -> Result<c_int, Failed> {
    let own = Own::find(id)?;
    own.check(READ)?;
    let count = own.local.region.shape().sems as usize;
    let mut space = Space::new(count * size_of::<u16>()).ok_or(libc::ENOMEM)?;
    let values = space.as_slice_of::<u16>(count);
    locked(&own, |locked| {
        for (num, value) in (0..).zip(values.iter_mut()) {
            *value = locked.get_value(num) as u16;
        }
    })?;
    if sys::write_user_all(to, values) {
        Ok(0)
    } else {
        Err(libc::EFAULT.into())
    }
}

fn set_all(id: c_int, from: *const u16) -> Result<c_int, Failed> {
    let own = Own::find(id)?;
    own.check(ALTER)?;
    let count = own.local.region.shape().sems as usize;
    let mut space = Space::new(count * size_of::<u16>()).ok_or(libc::ENOMEM)?;
    let values = space.as_slice_of::<u16>(count);
    if !sys::read_user_all(from, values) {
        return Err(libc::EFAULT.into());
    }
    if values.iter().any(|&value| i32::from(value) > SEMVMX) {
        return Err(libc::ERANGE.into());
    }
    locked(&own, |locked| locked.set_all(values, own.who(), seconds()))?;
    Ok(0)
}

fn by_daemon(id: c_int, cmd: c_int, buf: *mut semid_ds) -> Result<c_int, Failed> {
    let mut session = lock::enter();
    if let Target::Kernel(instead) = resolve(&mut session, Kind::Sem, id)? {
        return Err(Failed::NotOurs(instead));
    }
    match cmd {
        libc::IPC_STAT => {
            let (reply, _) = session.call(about(Kind::Sem, Op::Stat, id))?;
            if !sys::write_user(buf, &to_semid_ds(&reply.body::<Stat>())) {
                return Err(libc::EFAULT.into());
            }
        }
        libc::IPC_SET => {
            let ds = sys::read_user::<semid_ds>(buf).ok_or(libc::EFAULT)?;
            let perm = ds.sem_perm;
            session.call(Request {
                uid: perm.uid,
                gid: perm.gid,
                mode: u32::from(perm.mode) & 0o777,
                ..about(Kind::Sem, Op::Set, id)
            })?;
        }
        libc::IPC_RMID => {
            session.call(about(Kind::Sem, Op::Remove, id))?;
        }
        _ => return Err(libc::EINVAL.into()),
    }
    Ok(0)
}

/// A set as `IPC_STAT` shows it.
pub fn to_semid_ds(stat: &Stat) -> semid_ds {
    let Stat { meta, usage } = stat;
    // SAFETY: all zero bytes are a valid semid_ds, a plain C structure.
    let mut ds: semid_ds = unsafe { std::mem::zeroed() };
    ds.sem_perm.__key = meta.key;
    ds.sem_perm.uid = meta.uid;
    ds.sem_perm.gid = meta.gid;
    ds.sem_perm.cuid = meta.cuid;
    ds.sem_perm.cgid = meta.cgid;
    ds.sem_perm.mode = meta.mode as _;
    ds.sem_perm.__seq = (meta.id >> 15) as _;
    ds.sem_otime = usage.atime / 1_000_000_000;
    ds.sem_ctime = meta.ctime.max(usage.dtime / 1_000_000_000);
    ds.sem_nsems = meta.size as _;
    ds
}
