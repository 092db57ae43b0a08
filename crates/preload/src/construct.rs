// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the calls of all three kinds of construct have in common: whose a key or an id is, who may,
//! and the gets that the directory answers.

use crate::config::config;
use crate::errno;
use crate::kernel_ids;
use crate::session::{Session, live_directory};
use libc::key_t;
use std::ffi::c_int;
use vshmem_abi::Kind;
use vshmem_abi::ids::{self, IPC_PRIVATE};
use vshmem_abi::perm;
use vshmem_abi::wire::{Meta, Op, Request, State};
use vshmem_engine::directory::{self, Lookup};

/// Whether a get of `key` is routed.
#[inline]
pub fn is_routed_key(key: key_t) -> bool {
    config().is_some_and(|config| config.keys.contains(key))
}

/// A get of a key that the directory has: no lock, no message; the kernel's checks in its order
/// (`ipcget_public`). `None` when `vshmemd` has to be asked.
#[inline]
pub fn get_known(kind: Kind, key: key_t, size: u64, flags: c_int) -> Option<Result<c_int, c_int>> {
    if key == IPC_PRIVATE {
        return None;
    }
    let Lookup::Found(_, meta) = directory::find_key(live_directory()?, kind, key) else {
        return None;
    };
    const EXCLUSIVE: c_int = libc::IPC_CREAT | libc::IPC_EXCL;
    Some(if flags & EXCLUSIVE == EXCLUSIVE {
        Err(libc::EEXIST)
    } else if meta.size < size {
        Err(libc::EINVAL)
    } else if !may(&meta, flags as u32 & 0o777) {
        Err(libc::EACCES)
    } else {
        Ok(meta.id)
    })
}

/// A get that `vshmemd` has to answer.
pub fn get_request(kind: Kind, key: key_t, size: u64, flags: c_int) -> Request {
    Request {
        op: Op::Get as u32,
        kind: kind as u32,
        key,
        flags,
        size,
        ..Request::default()
    }
}

/// A request about the construct `id`.
pub fn about(kind: Kind, op: Op, id: c_int) -> Request {
    Request {
        op: op as u32,
        kind: kind as u32,
        id,
        ..Request::default()
    }
}

/// Whether the caller, as it is at this moment, may access the construct. The kernel's ids are those
/// of the thread. What this grants has to be granted by `vshmemd` too before memory is handed out.
pub fn may(meta: &Meta, wanted: u32) -> bool {
    if wanted == 0 {
        return true;
    }
    let euid = rustix::process::geteuid().as_raw();
    perm::may_access(meta, wanted, euid, |gid| {
        if rustix::process::getegid().as_raw() == gid {
            return true;
        }
        let mut groups = [0 as libc::gid_t; 1024];
        // SAFETY: the array has as many places as the call is told.
        let count = unsafe { libc::getgroups(groups.len() as c_int, groups.as_mut_ptr()) };
        groups
            .iter()
            .take(count.max(0) as usize)
            .any(|&group| group == gid)
    })
}

/// What an id stands for.
pub enum Target {
    /// A routed construct: directory slot and what is known of it.
    Routed(u32, Meta),
    /// Not ours; if the kernel does not know it either (`EINVAL`), this is the error instead.
    Kernel(Option<c_int>),
}

/// Finds out whose `id` is. To be called for ids that [`concerns_us`] only.
///
/// # Errors
/// `EIDRM` when the owner domain of the construct is gone; `ENODEV` only by way of
/// [`Target::Kernel`], since without a daemon an id may still be the kernel's.
pub fn resolve(session: &mut Session, kind: Kind, id: c_int) -> Result<Target, c_int> {
    session.notice_fork();
    if let Some(directory) = live_directory()
        && let Lookup::Found(slot, meta) = directory::find_id(directory, kind, id)
    {
        return match State::from_raw(meta.state) {
            State::Lost => Err(libc::EIDRM),
            _ => Ok(Target::Routed(slot, meta)),
        };
    }
    match session.call(about(kind, Op::Find, id)) {
        Ok((reply, _)) => Ok(Target::Routed(reply.slot, reply.body())),
        Err(libc::EINVAL) if session.restarted => Ok(Target::Kernel(Some(libc::EIDRM))),
        Err(libc::EINVAL) => Ok(Target::Kernel(None)),
        Err(libc::ENODEV) => Ok(Target::Kernel(Some(libc::ENODEV))),
        Err(error) => Err(error),
    }
}

/// Whether a call with `id` has to look whose it is.
#[inline]
pub fn concerns_us(id: c_int) -> bool {
    ids::may_be_routed(id) && !kernel_ids::is_known(id) && config().is_some()
}

/// After a call that the kernel was left with: remembers that it knows the id, or puts the error
/// that tells more than `EINVAL`.
pub fn left_to_kernel(id: c_int, failed: bool, instead: Option<c_int>) {
    if !failed {
        kernel_ids::remember(id);
    } else if let (libc::EINVAL, Some(error)) = (errno::get(), instead) {
        errno::set(error);
    }
}
