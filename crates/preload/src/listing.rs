// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands of `shmctl` that list: they show the kernel's segments and the routed ones
//! together. The kernel's have the indexes below SHMMNI, which it never goes beyond; the routed
//! ones follow from there.

use crate::config::config;
use crate::errno::fail;
use crate::lock;
use crate::shm::{ShmCtl, to_shmid_ds};
use crate::sys::{self, NoCancel};
use libc::shmid_ds;
use std::ffi::c_int;
use vshmem_abi::Kind;
use vshmem_abi::limits::ShmLimits;
use vshmem_abi::wire::{Op, Request, STAT_ANY, STAT_INDEX, Stat, Totals};

/// `SHM_STAT` of `linux/shm.h`.
const SHM_STAT: c_int = 13;
/// `SHM_INFO` of `linux/shm.h`.
const SHM_INFO: c_int = 14;
/// `SHM_STAT_ANY` of `linux/shm.h`.
const SHM_STAT_ANY: c_int = 15;

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
pub fn lists(cmd: c_int) -> bool {
    matches!(cmd, libc::IPC_INFO | SHM_INFO | SHM_STAT | SHM_STAT_ANY)
}

/// `shmctl` with a command that lists.
///
/// # Safety
/// `real` is the C library's function.
#[inline(never)]
pub unsafe fn ctl(real: ShmCtl, index: c_int, cmd: c_int, buf: *mut shmid_ds) -> c_int {
    if config().is_none() {
        // SAFETY: passed on as it came.
        return unsafe { real(index, cmd, buf) };
    }
    // Reading SHMMNI goes through the C library's `open`, a cancellation point.
    let _whole = NoCancel::begin();
    match cmd {
        SHM_STAT | SHM_STAT_ANY => match routed_index(index) {
            Some(routed) => stat(routed, cmd == SHM_STAT_ANY, buf),
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
            let routed = totals().unwrap_or_default();
            info.used_ids = info.used_ids.saturating_add(routed.used as c_int);
            info.shm_tot = info.shm_tot.saturating_add(routed.pages);
            info.shm_rss = info.shm_rss.saturating_add(routed.resident);
            if !sys::write_user(buf.cast(), &info) {
                return fail(libc::EFAULT);
            }
            highest_index(highest, &routed)
        }
        _ => {
            // SAFETY: passed on as it came.
            let highest = unsafe { real(index, cmd, buf) };
            if highest < 0 {
                return highest;
            }
            highest_index(highest, &totals().unwrap_or_default())
        }
    }
}

fn base() -> u64 {
    ShmLimits::read_mni()
}

fn routed_index(index: c_int) -> Option<c_int> {
    let index = u64::try_from(index).ok()?;
    c_int::try_from(index.checked_sub(base())?).ok()
}

fn stat(index: c_int, any: bool, buf: *mut shmid_ds) -> c_int {
    let mut session = lock::enter();
    let request = Request {
        op: Op::Stat as u32,
        kind: Kind::Shm as u32,
        id: index,
        flags: STAT_INDEX | if any { STAT_ANY } else { 0 },
        ..Request::default()
    };
    let result = session.call(request);
    let domid = session.domid();
    drop(session);
    match result {
        Ok((reply, _)) if sys::write_user(buf, &to_shmid_ds(&reply.body::<Stat>(), domid)) => {
            reply.value
        }
        Ok(_) => fail(libc::EFAULT),
        Err(error) => fail(error),
    }
}

/// The routed segments together. `None` without a daemon: then there are none to show, and a
/// listing of the kernel's still works.
fn totals() -> Option<Totals> {
    let request = Request {
        op: Op::Info as u32,
        kind: Kind::Shm as u32,
        ..Request::default()
    };
    let (reply, _) = lock::enter().call(request).ok()?;
    Some(reply.body())
}

/// The highest index of all, where the kernel's own is `kernels`.
fn highest_index(kernels: c_int, routed: &Totals) -> c_int {
    match routed.indices {
        0 => kernels,
        indices => c_int::try_from(base().saturating_add(indices - 1)).unwrap_or(kernels),
    }
}
