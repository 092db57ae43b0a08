// SPDX-License-Identifier: MIT OR Apache-2.0
//! `msgctl`, with the results and errors of the kernel's `ipc/msg.c`. All of it is done by `vshmemd`.

use crate::construct::{Target, about, concerns_us, left_to_kernel, resolve};
use crate::errno::fail;
use crate::lock;
use crate::own::Failed;
use crate::sys;
use libc::msqid_ds;
use std::ffi::c_int;
use vshmem_abi::Kind;
use vshmem_abi::wire::{Op, QueueStat, Request};

/// Type of the real `msgctl`.
pub type MsgCtl = unsafe extern "C" fn(c_int, c_int, *mut msqid_ds) -> c_int;

/// `msgctl(2)` of one queue; the commands that list are [`crate::listing`]'s.
///
/// # Safety
/// `real` is the C library's function.
#[inline]
pub unsafe fn ctl(real: MsgCtl, id: c_int, cmd: c_int, buf: *mut msqid_ds) -> c_int {
    if concerns_us(id) {
        // SAFETY: as this function.
        return unsafe { ctl_of_ours(real, id, cmd, buf) };
    }
    // SAFETY: passed on as it came.
    unsafe { real(id, cmd, buf) }
}

/// [`ctl`] of an id that may be routed. Not inlined: nothing of it may be on the stack when a call
/// is passed on ([`crate::next`]).
#[inline(never)]
unsafe fn ctl_of_ours(real: MsgCtl, id: c_int, cmd: c_int, buf: *mut msqid_ds) -> c_int {
    let instead = match control(id, cmd, buf) {
        Ok(()) => return 0,
        Err(Failed::With(error)) => return fail(error),
        Err(Failed::Denied(_)) => return fail(libc::EACCES),
        Err(Failed::NotOurs(instead)) => instead,
    };
    // SAFETY: as this function.
    let result = unsafe { real(id, cmd, buf) };
    left_to_kernel(id, result == -1, instead);
    result
}

fn control(id: c_int, cmd: c_int, buf: *mut msqid_ds) -> Result<(), Failed> {
    let mut session = lock::enter();
    if let Target::Kernel(instead) = resolve(&mut session, Kind::Msg, id)? {
        return Err(Failed::NotOurs(instead));
    }
    match cmd {
        libc::IPC_STAT => {
            let (reply, _) = session.call(about(Kind::Msg, Op::Stat, id))?;
            let ds = to_msqid_ds(&reply.body::<QueueStat>(), session.domid());
            if !sys::write_user(buf, &ds) {
                return Err(libc::EFAULT.into());
            }
        }
        libc::IPC_SET => {
            let ds = sys::read_user::<msqid_ds>(buf).ok_or(libc::EFAULT)?;
            let perm = ds.msg_perm;
            session.call(Request {
                uid: perm.uid,
                gid: perm.gid,
                mode: u32::from(perm.mode) & 0o777,
                size: ds.msg_qbytes,
                ..about(Kind::Msg, Op::Set, id)
            })?;
        }
        libc::IPC_RMID => {
            session.call(about(Kind::Msg, Op::Remove, id))?;
        }
        _ => return Err(libc::EINVAL.into()),
    }
    Ok(())
}

/// A queue as `IPC_STAT` shows it in domain `domid`.
pub fn to_msqid_ds(stat: &QueueStat, domid: u32) -> msqid_ds {
    let QueueStat { meta, queue } = stat;
    let pid_in = |pid, domain| if domain == domid { pid } else { 0 };
    // SAFETY: all zero bytes are a valid msqid_ds, a plain C structure.
    let mut ds: msqid_ds = unsafe { std::mem::zeroed() };
    ds.msg_perm.__key = meta.key;
    ds.msg_perm.uid = meta.uid;
    ds.msg_perm.gid = meta.gid;
    ds.msg_perm.cuid = meta.cuid;
    ds.msg_perm.cgid = meta.cgid;
    ds.msg_perm.mode = meta.mode as _;
    ds.msg_perm.__seq = (meta.id >> 15) as _;
    ds.msg_stime = queue.stime;
    ds.msg_rtime = queue.rtime;
    ds.msg_ctime = meta.ctime;
    ds.__msg_cbytes = queue.cbytes;
    ds.msg_qnum = queue.qnum;
    ds.msg_qbytes = queue.qbytes;
    ds.msg_lspid = pid_in(queue.lspid, queue.lspid_domain);
    ds.msg_lrpid = pid_in(queue.lrpid, queue.lrpid_domain);
    ds
}
