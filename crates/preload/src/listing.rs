// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands of `shmctl`, `semctl` and `msgctl` that list: they show the kernel's constructs and the routed
//! ones together. The kernel's have the indexes below SHMMNI, SEMMNI and MSGMNI, which it never goes beyond;
//! the routed ones follow from there.

use crate::config::config;
use crate::construct::about;
use crate::errno::fail;
use crate::lock;
use crate::msg_ctl::{MsgCtl, to_msqid_ds};
use crate::sem_ctl::{SemCtl, to_semid_ds};
use crate::session::live_directory;
use crate::shm::{ShmCtl, to_shmid_ds};
use crate::sys::{self, NoCancel};
use libc::{msginfo, msqid_ds, seminfo, shmid_ds};
use std::ffi::{c_int, c_void};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use vshmem_abi::Kind;
use vshmem_abi::limits::{MsgLimits, SemLimits, ShmLimits};
use vshmem_abi::wire::{Op, QueueStat, Reply, Request, STAT_ANY, STAT_INDEX, Stat, Totals};
use vshmem_engine::directory;

/// `SHM_STAT` of `linux/shm.h`.
const SHM_STAT: c_int = 13;
/// `SHM_INFO` of `linux/shm.h`.
const SHM_INFO: c_int = 14;
/// `SHM_STAT_ANY` of `linux/shm.h`.
const SHM_STAT_ANY: c_int = 15;
/// `SEM_STAT` of `linux/sem.h`.
const SEM_STAT: c_int = 18;
/// `SEM_INFO` of `linux/sem.h`.
const SEM_INFO: c_int = 19;
/// `SEM_STAT_ANY` of `linux/sem.h`.
const SEM_STAT_ANY: c_int = 20;

/// `MSG_STAT` of `linux/msg.h`.
const MSG_STAT: c_int = 11;
/// `MSG_INFO` of `linux/msg.h`.
const MSG_INFO: c_int = 12;
/// `MSG_STAT_ANY` of `linux/msg.h`.
const MSG_STAT_ANY: c_int = 13;

/// What `SHM_INFO` fills in (`struct shm_info` of `linux/shm.h`), pages and counts.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ShmInfo {
    used_ids: c_int,
    shm_tot: u64,
    shm_rss: u64,
    shm_swp: u64,
    swap_attempts: u64,
    swap_successes: u64,
}

/// Whether a command of `shmctl` lists, so that its first argument is no id.
#[inline]
pub fn lists_segments(cmd: c_int) -> bool {
    matches!(cmd, libc::IPC_INFO | SHM_INFO | SHM_STAT | SHM_STAT_ANY)
}

/// Whether a command of `semctl` lists, so that its first argument is no id.
#[inline]
pub fn lists_sets(cmd: c_int) -> bool {
    matches!(cmd, libc::IPC_INFO | SEM_INFO | SEM_STAT | SEM_STAT_ANY)
}

/// Whether a command of `msgctl` lists, so that its first argument is no id.
#[inline]
pub fn lists_queues(cmd: c_int) -> bool {
    matches!(cmd, libc::IPC_INFO | MSG_INFO | MSG_STAT | MSG_STAT_ANY)
}

/// `shmctl` with a command that lists.
///
/// # Safety
/// `real` is the C library's function.
#[inline(never)]
pub unsafe fn segments(real: ShmCtl, index: c_int, cmd: c_int, buf: *mut shmid_ds) -> c_int {
    if config().is_none() {
        // SAFETY: passed on as it came.
        return unsafe { real(index, cmd, buf) };
    }
    // Reading SHMMNI goes through the C library's `open`, a cancellation point.
    let _whole = NoCancel::begin();
    match cmd {
        SHM_STAT | SHM_STAT_ANY => match routed_index(Kind::Shm, index) {
            Some(routed) => {
                let show = |reply: &Reply, domid| {
                    sys::write_user(buf, &to_shmid_ds(&reply.body::<Stat>(), domid))
                };
                stat(Kind::Shm, routed, cmd == SHM_STAT_ANY, show)
            }
            // SAFETY: passed on as it came.
            None => unsafe { real(index, cmd, buf) },
        },
        SHM_INFO => {
            // The caller's buffer may lie in a segment itself, of which pages are counted here: it
            // is written to once, at the end.
            let mut info = ShmInfo::default();
            // SAFETY: the kernel fills in a structure of this type.
            let highest = unsafe { real(index, cmd, (&raw mut info).cast()) };
            if highest < 0 {
                return highest;
            }
            let routed = totals(Kind::Shm);
            info.used_ids = info.used_ids.saturating_add(routed.used as c_int);
            info.shm_tot = info.shm_tot.saturating_add(routed.pages);
            info.shm_rss = info.shm_rss.saturating_add(routed.resident);
            if !sys::write_user(buf.cast(), &info) {
                return fail(libc::EFAULT);
            }
            highest_index(Kind::Shm, highest, &routed)
        }
        _ => {
            // SAFETY: passed on as it came.
            let highest = unsafe { real(index, cmd, buf) };
            if highest < 0 {
                return highest;
            }
            highest_index(Kind::Shm, highest, &totals(Kind::Shm))
        }
    }
}

/// `semctl` with a command that lists.
///
/// # Safety
/// `real` is the C library's function.
#[inline(never)]
pub unsafe fn sets(real: SemCtl, index: c_int, num: c_int, cmd: c_int, arg: *mut c_void) -> c_int {
    if config().is_none() {
        // SAFETY: passed on as it came.
        return unsafe { real(index, num, cmd, arg) };
    }
    // As in `segments`.
    let _whole = NoCancel::begin();
    match cmd {
        SEM_STAT | SEM_STAT_ANY => match routed_index(Kind::Sem, index) {
            Some(routed) => {
                let show = |reply: &Reply, _| {
                    sys::write_user(arg.cast(), &to_semid_ds(&reply.body::<Stat>()))
                };
                stat(Kind::Sem, routed, cmd == SEM_STAT_ANY, show)
            }
            // SAFETY: passed on as it came.
            None => unsafe { real(index, num, cmd, arg) },
        },
        _ => {
            // SAFETY: passed on as it came.
            let highest = unsafe { real(index, num, cmd, arg) };
            if highest < 0 {
                return highest;
            }
            let routed = totals(Kind::Sem);
            if cmd == SEM_INFO {
                let Some(mut info) = sys::read_user::<seminfo>(arg.cast()) else {
                    return fail(libc::EFAULT);
                };
                // In use: sets, and semaphores of all sets.
                info.semusz = info.semusz.saturating_add(routed.used as c_int);
                info.semaem = info.semaem.saturating_add(routed.pages as c_int);
                if !sys::write_user(arg.cast(), &info) {
                    return fail(libc::EFAULT);
                }
            }
            highest_index(Kind::Sem, highest, &routed)
        }
    }
}

/// `msgctl` with a command that lists.
///
/// # Safety
/// `real` is the C library's function.
#[inline(never)]
pub unsafe fn queues(real: MsgCtl, index: c_int, cmd: c_int, buf: *mut msqid_ds) -> c_int {
    if config().is_none() {
        // SAFETY: passed on as it came.
        return unsafe { real(index, cmd, buf) };
    }
    // As in `segments`.
    let _whole = NoCancel::begin();
    match cmd {
        MSG_STAT | MSG_STAT_ANY => match routed_index(Kind::Msg, index) {
            Some(routed) => {
                let show = |reply: &Reply, domid| {
                    sys::write_user(buf, &to_msqid_ds(&reply.body::<QueueStat>(), domid))
                };
                stat(Kind::Msg, routed, cmd == MSG_STAT_ANY, show)
            }
            // SAFETY: passed on as it came.
            None => unsafe { real(index, cmd, buf) },
        },
        _ => {
            // SAFETY: passed on as it came.
            let highest = unsafe { real(index, cmd, buf) };
            if highest < 0 {
                return highest;
            }
            let routed = totals(Kind::Msg);
            let Some(mut info) = sys::read_user::<msginfo>(buf.cast()) else {
                return fail(libc::EFAULT);
            };
            if cmd == MSG_INFO {
                // In use: queues, messages, and their bytes.
                info.msgpool = info.msgpool.saturating_add(routed.used as c_int);
                info.msgmap = info.msgmap.saturating_add(routed.pages as c_int);
                info.msgtql = info.msgtql.saturating_add(routed.resident as c_int);
            }
            let limits = live_directory().map_or(MsgLimits::default(), directory::raised_limits);
            for (limit, raised) in [
                (&mut info.msgmax, limits.max),
                (&mut info.msgmnb, limits.mnb),
                (&mut info.msgmni, limits.mni),
            ] {
                *limit = (*limit).max(c_int::try_from(raised).unwrap_or(c_int::MAX));
            }
            if !sys::write_user(buf.cast(), &info) {
                return fail(libc::EFAULT);
            }
            highest_index(Kind::Msg, highest, &routed)
        }
    }
}

/// Indexes from here on are routed ones, as the last `*_INFO` of this process had it: the indexes behind an
/// answer belong to that answer, whoever raises a limit meanwhile, and a listing has tens of thousands of
/// them, each of which would read the limit anew. 0 is none yet.
fn last_base(kind: Kind) -> &'static AtomicU64 {
    static SEGMENTS: AtomicU64 = AtomicU64::new(0);
    static SETS: AtomicU64 = AtomicU64::new(0);
    static QUEUES: AtomicU64 = AtomicU64::new(0);
    match kind {
        Kind::Shm => &SEGMENTS,
        Kind::Sem => &SETS,
        Kind::Msg => &QUEUES,
    }
}

/// Indexes from here on are routed ones in what is listed from now on.
fn new_base(kind: Kind) -> u64 {
    let base = match kind {
        Kind::Shm => ShmLimits::read_mni(),
        Kind::Sem => SemLimits::read().mni,
        Kind::Msg => MsgLimits::read().mni,
    };
    last_base(kind).store(base, Relaxed);
    base
}

fn routed_index(kind: Kind, index: c_int) -> Option<c_int> {
    let index = u64::try_from(index).ok()?;
    let base = match last_base(kind).load(Relaxed) {
        0 => new_base(kind),
        base => base,
    };
    c_int::try_from(index.checked_sub(base)?).ok()
}

/// Looks at the construct with this index among the routed ones, and has it shown; returns its id.
fn stat(kind: Kind, index: c_int, any: bool, show: impl FnOnce(&Reply, u32) -> bool) -> c_int {
    let mut session = lock::enter();
    let request = Request {
        flags: STAT_INDEX | if any { STAT_ANY } else { 0 },
        ..about(kind, Op::Stat, index)
    };
    let result = session.call(request);
    let domid = session.domid();
    drop(session);
    match result {
        Ok((reply, _)) if show(&reply, domid) => reply.value,
        Ok(_) => fail(libc::EFAULT),
        Err(error) => fail(error),
    }
}

/// The routed constructs of a kind together. Without a daemon there are none to show, and a listing of
/// the kernel's still works.
fn totals(kind: Kind) -> Totals {
    let answer = lock::enter().call(about(kind, Op::Info, 0));
    answer.map_or(Totals::default(), |(reply, _)| reply.body())
}

/// The highest index of all, where the kernel's own is `kernels`.
fn highest_index(kind: Kind, kernels: c_int, routed: &Totals) -> c_int {
    match routed.indices {
        0 => kernels,
        indices => c_int::try_from(new_base(kind).saturating_add(indices - 1)).unwrap_or(kernels),
    }
}
