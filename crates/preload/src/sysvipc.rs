// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files of `/proc/sysvipc`, from which `ipcs` and `lsipc` read what there is: a program that opens one
//! of them with `fopen` gets a copy in which the routed constructs follow the kernel's own. Every other
//! file, and whatever cannot be copied, is opened as ever.

use crate::config::config;
use crate::construct::about;
use crate::lock;
use crate::message::Line;
use crate::msg_ctl::to_msqid_ds;
use crate::sem_ctl::to_semid_ds;
use crate::shm::to_shmid_ds;
use crate::sys::NoCancel;
use crate::user;
use libc::FILE;
use rustix::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use rustix::fs::{MemfdFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::ffi::{CStr, c_char, c_int};
use std::fmt::Write;
use vshmem_abi::wire::{Op, QueueStat, Reply, Request, Stat};
use vshmem_abi::{Kind, PAGE_SIZE};

/// `fopen`.
pub type Fopen = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut FILE;

/// The files, all names of one length.
const FILES: [(Kind, &CStr); 3] = [
    (Kind::Shm, c"/proc/sysvipc/shm"),
    (Kind::Sem, c"/proc/sysvipc/sem"),
    (Kind::Msg, c"/proc/sysvipc/msg"),
];
/// Their length, with the zero byte.
const LEN: usize = 18;

/// `fopen`.
///
/// # Safety
/// `real` is the C library's function; the rest is as for that.
#[inline(never)]
pub unsafe fn open(real: Fopen, path: *const c_char, mode: *const c_char) -> *mut FILE {
    if config().is_some()
        && let Some((kind, name)) = listing_of(path)
        && let Some(reading) = Reading::of(mode)
        && let Ok(Some(copy)) = copy(kind, name, reading)
    {
        // SAFETY: the descriptor is open, and nobody else's; the mode is as the caller gave it.
        let file = unsafe { libc::fdopen(copy.into_raw_fd(), mode) };
        if !file.is_null() {
            return file;
        }
    }
    // SAFETY: passed on as it came.
    unsafe { real(path, mode) }
}

/// Which of the files it is.
fn listing_of(path: *const c_char) -> Option<(Kind, &'static CStr)> {
    let path: [u8; LEN] = user::read(path.cast())?;
    let file = FILES
        .iter()
        .find(|(_, name)| name.to_bytes_with_nul() == path);
    file.copied()
}

/// A mode of `fopen` that reads.
#[derive(Clone, Copy)]
struct Reading {
    /// Close on `exec` (`e`).
    close_on_exec: bool,
}

impl Reading {
    /// The mode, if it is one that does nothing but read.
    fn of(mode: *const c_char) -> Option<Self> {
        if user::read::<u8>(mode.cast())? != b'r' {
            return None;
        }
        let mut reading = Self {
            close_on_exec: false,
        };
        // No mode that there is has more letters.
        for place in 1..8 {
            match user::read::<u8>(mode.wrapping_add(place).cast())? {
                0 | b',' => break,
                b'+' => return None,
                b'e' => reading.close_on_exec = true,
                _ => {}
            }
        }
        Some(reading)
    }
}

/// The file with the routed constructs in it; `None` when there are none, or no daemon tells.
fn copy(kind: Kind, name: &CStr, reading: Reading) -> Result<Option<OwnedFd>, Errno> {
    let _whole = NoCancel::begin();
    let Some((mut reply, domid)) = after(kind, u32::MAX) else {
        return Ok(None);
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let kernels = rustix::fs::open(name, flags, Mode::empty())?;
    let flags = match reading.close_on_exec {
        true => MemfdFlags::CLOEXEC,
        false => MemfdFlags::empty(),
    };
    let to = rustix::fs::memfd_create(name, flags)?;
    let mut part = [0; 4096];
    loop {
        let read = rustix::io::read(&kernels, &mut part)?;
        match part.get(..read) {
            None | Some([]) => break,
            Some(bytes) => write_all(to.as_fd(), bytes)?,
        }
    }
    loop {
        let line = line(kind, &reply, domid);
        write_all(to.as_fd(), line.bytes())?;
        let last = reply.body::<Stat>().meta.index;
        reply = match after(kind, last) {
            // Indices only rise, or this would never end.
            Some((next, _)) if next.body::<Stat>().meta.index > last => next,
            _ => break,
        };
    }
    rustix::fs::seek(&to, SeekFrom::Start(0))?;
    Ok(Some(to))
}

/// The routed construct that follows the one with this index, and our own domain.
fn after(kind: Kind, index: u32) -> Option<(Reply, u32)> {
    let mut session = lock::enter();
    let request = Request {
        arg: index,
        ..about(kind, Op::Next, 0)
    };
    let (reply, _) = session.call(request).ok()?;
    Some((reply, session.domid()))
}

/// A line as the kernel has it (`sysvipc_shm_proc_show` of `ipc/shm.c`, and its like).
fn line(kind: Kind, reply: &Reply, domid: u32) -> Line {
    let mut line = Line::new();
    let id: c_int = reply.value;
    // Nothing that is written to a line fails; what is too long is cut off, which no line of these is.
    let _ = match kind {
        Kind::Shm => {
            let stat = reply.body::<Stat>();
            let ds = to_shmid_ds(&stat, domid);
            let p = ds.shm_perm;
            let resident = stat.usage.resident.saturating_mul(PAGE_SIZE);
            writeln!(
                line,
                "{:10} {id:10}  {:4o} {:21} {:5} {:5}  {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10} {resident:21} {:21}",
                p.__key,
                p.mode,
                ds.shm_segsz,
                ds.shm_cpid,
                ds.shm_lpid,
                ds.shm_nattch,
                p.uid,
                p.gid,
                p.cuid,
                p.cgid,
                ds.shm_atime,
                ds.shm_dtime,
                ds.shm_ctime,
                0
            )
        }
        Kind::Sem => {
            let ds = to_semid_ds(&reply.body::<Stat>());
            let p = ds.sem_perm;
            writeln!(
                line,
                "{:10} {id:10}  {:4o} {:10} {:5} {:5} {:5} {:5} {:10} {:10}",
                p.__key,
                p.mode,
                ds.sem_nsems,
                p.uid,
                p.gid,
                p.cuid,
                p.cgid,
                ds.sem_otime,
                ds.sem_ctime
            )
        }
        Kind::Msg => {
            let ds = to_msqid_ds(&reply.body::<QueueStat>(), domid);
            let p = ds.msg_perm;
            writeln!(
                line,
                "{:10} {id:10}  {:4o}  {:10} {:10} {:5} {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10}",
                p.__key,
                p.mode,
                ds.__msg_cbytes,
                ds.msg_qnum,
                ds.msg_lspid,
                ds.msg_lrpid,
                p.uid,
                p.gid,
                p.cuid,
                p.cgid,
                ds.msg_stime,
                ds.msg_rtime,
                ds.msg_ctime
            )
        }
    };
    line
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let written = rustix::io::write(to, bytes)?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}
