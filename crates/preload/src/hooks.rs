// SPDX-License-Identifier: MIT OR Apache-2.0
//! The exported functions. They hold no logic: each hands its arguments, and the real function,
//! to the module that decides. `syscall` is in [`crate::syscall`]. Those that pass a call on without
//! a look at it end in a jump ([`crate::next`] says why).
//!
//! `semctl` is variadic in C. On x86-64 a variadic integer or pointer argument travels like a
//! fixed one, so a fixed fourth argument takes it, and passing on what a caller did not give is
//! harmless: the real function looks at it only for the commands that have one.

// The macro of redhook expands to functions without documentation and blocks without comment.
#![allow(
    missing_docs,
    clippy::undocumented_unsafe_blocks,
    clippy::missing_safety_doc
)]

use crate::cancel::PthreadCancel;
use crate::config::config;
use crate::construct::concerns_us;
use crate::msg::{MsgGet, MsgRcv, MsgSnd};
use crate::msg_ctl::MsgCtl;
use crate::next::Next;
use crate::sem::{SemGet, SemTimedOp};
use crate::sem_ctl::SemCtl;
use crate::shm::{ShmAt, ShmCtl, ShmDt, ShmGet};
use crate::sysvipc::Fopen;
use crate::{cancel, listing, msg, msg_ctl, sem, sem_ctl, shm, sysvipc};
use libc::{
    FILE, c_char, c_int, c_long, c_void, key_t, msqid_ds, pthread_t, sembuf, shmid_ds, size_t,
    ssize_t, timespec,
};
use redhook::hook;

/// The functions that those below stand before, by the names they have.
macro_rules! next {
    ($($static:ident: $name:literal as $function:ty;)*) => {
        $(
            // SAFETY: the type is that of the function's declaration in its header.
            static $static: Next<$function> = unsafe { Next::new($name) };
        )*
    };
}

mod identity;
mod signals;

next! {
    SHMGET: c"shmget" as ShmGet;
    SHMAT: c"shmat" as ShmAt;
    SHMDT: c"shmdt" as ShmDt;
    SHMCTL: c"shmctl" as ShmCtl;
    SEMGET: c"semget" as SemGet;
    SEMOP: c"semop" as unsafe extern "C" fn(c_int, *mut sembuf, size_t) -> c_int;
    SEMTIMEDOP: c"semtimedop" as SemTimedOp;
    SEMCTL: c"semctl" as SemCtl;
    MSGGET: c"msgget" as MsgGet;
    MSGSND: c"msgsnd" as MsgSnd;
    MSGRCV: c"msgrcv" as MsgRcv;
    MSGCTL: c"msgctl" as MsgCtl;
    PTHREAD_CANCEL: c"pthread_cancel" as PthreadCancel;
    FOPEN: c"fopen" as Fopen;
    FOPEN64: c"fopen64" as Fopen;
}

hook! {
    unsafe fn shmget(key: key_t, size: size_t, flags: c_int) -> c_int => routed_shmget {
        unsafe { shm::get(SHMGET.get(), key, size, flags) }
    }
}

hook! {
    unsafe fn shmat(id: c_int, addr: *const c_void, flags: c_int) -> *mut c_void => routed_shmat {
        unsafe { shm::at(SHMAT.get(), id, addr, flags) }
    }
}

hook! {
    unsafe fn shmdt(addr: *const c_void) -> c_int => routed_shmdt {
        unsafe { shm::dt(SHMDT.get(), addr) }
    }
}

hook! {
    unsafe fn shmctl(id: c_int, cmd: c_int, buf: *mut shmid_ds) -> c_int => routed_shmctl {
        if listing::lists_segments(cmd) {
            unsafe { listing::segments(SHMCTL.get(), id, cmd, buf) }
        } else {
            unsafe { shm::ctl(SHMCTL.get(), id, cmd, buf) }
        }
    }
}

hook! {
    unsafe fn semget(key: key_t, nsems: c_int, flags: c_int) -> c_int => routed_semget {
        unsafe { sem::get(SEMGET.get(), key, nsems, flags) }
    }
}

hook! {
    unsafe fn semop(id: c_int, ops: *mut sembuf, nops: size_t) -> c_int => routed_semop {
        if concerns_us(id) {
            unsafe { sem::op(SEMTIMEDOP.get(), id, ops, nops, std::ptr::null()) }
        } else {
            unsafe { SEMOP.get()(id, ops, nops) }
        }
    }
}

hook! {
    unsafe fn semtimedop(id: c_int, ops: *mut sembuf, nops: size_t, timeout: *const timespec) -> c_int
        => routed_semtimedop
    {
        if concerns_us(id) {
            unsafe { sem::op(SEMTIMEDOP.get(), id, ops, nops, timeout) }
        } else {
            unsafe { SEMTIMEDOP.get()(id, ops, nops, timeout) }
        }
    }
}

hook! {
    unsafe fn semctl(id: c_int, num: c_int, cmd: c_int, arg: *mut c_void) -> c_int => routed_semctl {
        if listing::lists_sets(cmd) {
            unsafe { listing::sets(SEMCTL.get(), id, num, cmd, arg) }
        } else {
            unsafe { sem_ctl::ctl(SEMCTL.get(), id, num, cmd, arg) }
        }
    }
}

hook! {
    unsafe fn msgget(key: key_t, flags: c_int) -> c_int => routed_msgget {
        unsafe { msg::get(MSGGET.get(), key, flags) }
    }
}

hook! {
    unsafe fn msgsnd(id: c_int, msg: *const c_void, size: size_t, flags: c_int) -> c_int => routed_msgsnd {
        if concerns_us(id) {
            unsafe { msg::send(MSGSND.get() as *const (), id, msg, size, flags.into(), 0) as c_int }
        } else {
            unsafe { MSGSND.get()(id, msg, size, flags) }
        }
    }
}

hook! {
    unsafe fn msgrcv(id: c_int, msg: *mut c_void, size: size_t, kind: c_long, flags: c_int) -> ssize_t
        => routed_msgrcv
    {
        if concerns_us(id) {
            unsafe { msg::receive(MSGRCV.get() as *const (), id, msg, size, kind, flags) as ssize_t }
        } else {
            unsafe { MSGRCV.get()(id, msg, size, kind, flags) }
        }
    }
}

hook! {
    unsafe fn msgctl(id: c_int, cmd: c_int, buf: *mut msqid_ds) -> c_int => routed_msgctl {
        if listing::lists_queues(cmd) {
            unsafe { listing::queues(MSGCTL.get(), id, cmd, buf) }
        } else {
            unsafe { msg_ctl::ctl(MSGCTL.get(), id, cmd, buf) }
        }
    }
}

hook! {
    unsafe fn pthread_cancel(thread: pthread_t) -> c_int => routed_pthread_cancel {
        if config().is_some() {
            unsafe { cancel::cancel(PTHREAD_CANCEL.get(), thread) }
        } else {
            unsafe { PTHREAD_CANCEL.get()(thread) }
        }
    }
}

hook! {
    unsafe fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE => routed_fopen {
        unsafe { sysvipc::open(FOPEN.get(), path, mode) }
    }
}

hook! {
    unsafe fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE => routed_fopen64 {
        unsafe { sysvipc::open(FOPEN64.get(), path, mode) }
    }
}
