// SPDX-License-Identifier: MIT OR Apache-2.0
//! `shmget`, `shmat`, `shmdt` and `shmctl`, with the results and errors of the kernel's
//! `ipc/shm.c`. Each function takes the real one, to pass on what is not routed.

use crate::attachments::{self, Again, Attachment};
use crate::construct::{
    self, Target, concerns_us, get_known, get_request, is_routed_key, left_to_kernel, may, resolve,
};
use crate::errno::{self, fail};
use crate::lock::{self, Guard};
use crate::maps;
use crate::regions::{Region, refused};
use crate::session::{Session, live_directory};
use crate::sys;
use libc::{key_t, shmid_ds, size_t};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use std::ffi::{c_int, c_void};
use vshmem_abi::channel::Fds;
use vshmem_abi::perm::{EXEC, READ, WRITE};
use vshmem_abi::wire::{MODE_DEST, Meta, Op, Opened, Reply, Request, Stat, State, how_opened};
use vshmem_abi::{Kind, PAGE_SIZE};
use vshmem_engine::attach;
use vshmem_engine::mapping::{self, GrantList, How, MapError, Mapped, Source};

/// What `shmat` returns when it fails: `(void *) -1`.
const FAILED: *mut c_void = usize::MAX as *mut c_void;

/// Type of the real `shmget`.
pub type ShmGet = unsafe extern "C" fn(key_t, size_t, c_int) -> c_int;
/// Type of the real `shmat`.
pub type ShmAt = unsafe extern "C" fn(c_int, *const c_void, c_int) -> *mut c_void;
/// Type of the real `shmdt`.
pub type ShmDt = unsafe extern "C" fn(*const c_void) -> c_int;
/// Type of the real `shmctl`.
pub type ShmCtl = unsafe extern "C" fn(c_int, c_int, *mut shmid_ds) -> c_int;

/// `shmget(2)`.
///
/// # Safety
/// `real` is the C library's function.
pub unsafe fn get(real: ShmGet, key: key_t, size: size_t, flags: c_int) -> c_int {
    if !is_routed_key(key) {
        // SAFETY: passed on as it came.
        return unsafe { real(key, size, flags) };
    }
    match get_known(Kind::Shm, key, size as u64, flags) {
        Some(result) => result.unwrap_or_else(fail),
        None => get_from_daemon(key, size, flags),
    }
}

/// A get that `vshmemd` has to answer.
#[inline(never)]
fn get_from_daemon(key: key_t, size: size_t, flags: c_int) -> c_int {
    let mut session = lock::enter();
    let request = get_request(Kind::Shm, key, size as u64, flags);
    match session.call(request) {
        Ok((reply, [fd, ..])) => {
            let len = len_of(&reply.body()) as u64;
            let regions = &mut session.regions;
            // A convenience for the attach that follows; it can ask for it again.
            if let Some(fd) = fd
                && let Ok(region) = regions.own(reply.value, true, fd, How::Direct, len)
            {
                regions.keep(region);
            }
            reply.value
        }
        Err(error) => fail(error),
    }
}

fn about(op: Op, id: c_int) -> Request {
    construct::about(Kind::Shm, op, id)
}

/// `shmat(2)`.
///
/// # Safety
/// `real` is the C library's function; with `SHM_REMAP` the caller gives up what is mapped there.
pub unsafe fn at(real: ShmAt, id: c_int, addr: *const c_void, flags: c_int) -> *mut c_void {
    if concerns_us(id) {
        let mut session = lock::enter();
        let instead = match resolve(&mut session, Kind::Shm, id) {
            Ok(Target::Routed(slot, meta)) => {
                let result = place(addr as usize, flags)
                    .and_then(|place| attach(&mut session, slot, &meta, place, flags));
                drop(session);
                return result.unwrap_or_else(|error| {
                    errno::set(error);
                    FAILED
                });
            }
            Ok(Target::Kernel(instead)) => instead,
            Err(error) => {
                drop(session);
                errno::set(error);
                return FAILED;
            }
        };
        drop(session);
        // SAFETY: passed on as it came.
        let result = unsafe { real(id, addr, flags) };
        left_to_kernel(id, result == FAILED, instead);
        return result;
    }
    // SAFETY: passed on as it came.
    unsafe { real(id, addr, flags) }
}

/// Where to map, as `do_shmat` reads its arguments.
struct Place {
    addr: usize,
    fixed: bool,
}

fn place(addr: usize, flags: c_int) -> Result<Place, c_int> {
    let remap = flags & libc::SHM_REMAP != 0;
    if addr == 0 {
        return if remap {
            Err(libc::EINVAL)
        } else {
            Ok(Place { addr, fixed: false })
        };
    }
    let rounded = addr & !(PAGE_SIZE as usize - 1);
    if rounded != addr && flags & libc::SHM_RND == 0 || rounded == 0 && remap {
        return Err(libc::EINVAL);
    }
    Ok(Place {
        addr: rounded,
        fixed: true,
    })
}

fn attach(
    session: &mut Session,
    slot: u32,
    meta: &Meta,
    place: Place,
    flags: c_int,
) -> Result<*mut c_void, c_int> {
    let id = meta.id;
    let readonly = flags & libc::SHM_RDONLY != 0;
    let mut wanted = if readonly { READ } else { READ | WRITE };
    let mut prot = if readonly {
        ProtFlags::READ
    } else {
        ProtFlags::READ | ProtFlags::WRITE
    };
    if flags & libc::SHM_EXEC != 0 {
        wanted |= EXEC;
        prot |= ProtFlags::EXEC;
    }
    if !may(meta, wanted) {
        return Err(libc::EACCES);
    }
    let len = len_of(meta);
    let remap = flags & libc::SHM_REMAP != 0;
    // The kernel's check is of the bytes asked for; the whole pages are for mmap to judge (ENOMEM).
    let bytes = if meta.huge_shift == 0 {
        meta.size as usize
    } else {
        len
    };
    if place.addr != 0 && !remap && place.addr.checked_add(bytes).is_none() {
        return Err(libc::EINVAL);
    }
    if !session.attachments.reserve() {
        return Err(libc::ENOMEM);
    }
    session.connected()?;
    let fresh = match session.regions.kept(id, !readonly) {
        Some(_) => None,
        None => Some(open(session, id, wanted, !readonly)?),
    };

    let (directory, page) = session.connected()?;
    // Without a time: an attach that fails after all leaves none behind.
    let state = attach::begin(page, directory, slot, id, 0);
    let confirmed = match state {
        State::Live => Ok(()),
        State::Dest => session.call(about(Op::Confirm, id)).map(|_| ()),
        State::Lost => Err(libc::EIDRM),
        State::Free if session.restarted => Err(libc::EIDRM),
        State::Free => Err(libc::EINVAL),
    };
    let mapped = confirmed.and_then(|()| {
        let kept = session.regions.kept(id, !readonly);
        let source = kept.or_else(|| fresh.as_ref()?.source());
        map(source.ok_or(libc::EMFILE)?, len, prot, &place, remap)
    });
    if let Some(fresh) = fresh {
        session.regions.keep(fresh);
    }
    let Mapped { at, file, list } = match mapped {
        Ok(mapped) => mapped,
        Err(error) => {
            cancel(session, slot, id);
            return Err(error);
        }
    };
    if let Some(page) = session.page() {
        attach::stamp(page, slot, id, now());
    }
    drop_replaced(session, at, len);
    let generation = session.generation();
    session.attachments.insert(Attachment {
        addr: at,
        len,
        id,
        slot,
        generation,
        counted: true,
        file,
        again: list.map(|list| Again {
            list: list.keep(),
            prot,
        }),
        overlaid: false,
        order: 0,
    });
    Ok(at as *mut c_void)
}

/// Bytes of the region of a segment.
fn len_of(meta: &Meta) -> usize {
    let page_size = if meta.huge_shift == 0 {
        PAGE_SIZE
    } else {
        1u64 << (meta.huge_shift & 63)
    };
    meta.size.div_ceil(page_size).saturating_mul(page_size) as usize
}

/// Has `vshmemd` open the region for the access `wanted`.
fn open(session: &mut Session, id: i32, wanted: u32, writable: bool) -> Result<Region, c_int> {
    let request = Request {
        flags: wanted as c_int,
        ..about(Op::Open, id)
    };
    let (reply, [fd, ..]): (Reply, Fds) = session.call(request)?;
    let fd = fd.ok_or(libc::EMFILE)?;
    let (how, len) = (how_opened(reply.value), reply.body::<Opened>().bytes);
    let region = session.regions.own(id, writable, fd, how, len);
    region.map_err(Errno::raw_os_error)
}

/// Takes back an attachment that did not come to be, telling `vshmemd` if the segment waited for
/// the last one.
fn cancel(session: &mut Session, slot: u32, id: i32) {
    if let (Some(page), Some(directory)) = (session.page(), live_directory())
        && attach::end(page, directory, slot, id, 0)
    {
        let _ = session.call(about(Op::Detached, id));
    }
}

fn map(
    source: Source<'_>,
    len: usize,
    prot: ProtFlags,
    place: &Place,
    remap: bool,
) -> Result<Mapped, c_int> {
    let flags = match (place.fixed, remap || place.addr == 0) {
        (false, _) => MapFlags::empty(),
        (true, true) => MapFlags::FIXED,
        (true, false) => MapFlags::FIXED_NOREPLACE,
    };
    let source = Source {
        len: len as u64,
        ..source
    };
    let at = mapping::Place {
        at: place.addr,
        prot,
        // Huge pages were reserved when the segment was made, or were not to be.
        flags: flags | MapFlags::NORESERVE,
    };
    // SAFETY: without SHM_REMAP nothing that is mapped is replaced (the kernel picks a free place
    // or refuses), but for page zero, which `shmat` maps for those who may; with it the caller
    // has given up what is there.
    unsafe { source.map(at) }.map_err(|error| match error {
        MapError::Os(Errno::EXIST) => libc::EINVAL,
        // Too large for its place; shmat looks first whether that is free.
        MapError::Os(Errno::NOMEM) if place.addr != 0 && !remap => {
            let taken = maps::is_taken(place.addr, place.addr.saturating_add(len));
            if taken == Ok(true) {
                libc::EINVAL
            } else {
                libc::ENOMEM
            }
        }
        error => refused(error),
    })
}

/// Forgets attachments of which nothing is left because a new one took their place: the program
/// had unmapped them itself, or gave `SHM_REMAP`. Notes where something is left beside it.
fn drop_replaced(session: &mut Session, addr: usize, len: usize) {
    for old in session.attachments.iter() {
        let overlaps =
            old.addr < addr.saturating_add(len) && addr < old.addr.saturating_add(old.len);
        let replaced = || maps::first_piece(&old).is_ok_and(|piece| piece.is_none());
        if overlaps && (old.addr == addr && old.len <= len || replaced()) {
            forget(session, &old);
        } else if overlaps {
            session.attachments.change(&old, |old| old.overlaid = true);
        }
    }
}

/// Forgets an attachment that is no more.
pub fn forget(session: &mut Session, old: &Attachment) {
    session.attachments.remove(old);
    if let Some(again) = old.again {
        // SAFETY: kept when the segment was attached; the attachment alone had it, and is gone.
        drop(unsafe { GrantList::take_up(again.list) });
    }
    uncount(session, old);
}

/// Takes a detached attachment off the count.
fn uncount(session: &mut Session, old: &Attachment) {
    session.notice_fork();
    if !old.counted || old.generation != session.generation() {
        return;
    }
    if let (Some(page), Some(directory)) = (session.page(), live_directory())
        && attach::end(page, directory, old.slot, old.id, now())
    {
        session.regions.drop_region(old.id);
        let _ = session.call(about(Op::Detached, old.id));
    }
}

/// Nanoseconds since the epoch.
fn now() -> i64 {
    let now = sys::time_of(libc::CLOCK_REALTIME);
    now.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec)
}

/// `shmdt(2)`.
///
/// # Safety
/// `real` is the C library's function; the caller gives up what is mapped at `addr`.
pub unsafe fn dt(real: ShmDt, addr: *const c_void) -> c_int {
    if attachments::begins_at(addr as usize) {
        let mut session = lock::enter();
        session.notice_fork();
        if let Some(attachment) = meant(&session, addr as usize) {
            let result = detach(&mut session, &attachment);
            drop(session);
            return result.map_or_else(fail, |()| 0);
        }
    }
    // SAFETY: passed on as it came.
    unsafe { real(addr) }
}

/// The attachment that a `shmdt` of `addr` means. There are several where `SHM_REMAP` has put one
/// over the beginning of another; then it is the one of which the first piece comes first, as the
/// kernel finds it going upwards.
fn meant(session: &Session, addr: usize) -> Option<Attachment> {
    let here = || session.attachments.iter().filter(|a| a.addr == addr);
    if here().nth(1).is_none() {
        return here().next();
    }
    let place = |a: &Attachment| maps::first_piece(a).ok().flatten().unwrap_or(usize::MAX);
    here().min_by_key(place)
}

fn detach(session: &mut Guard, attachment: &Attachment) -> Result<(), c_int> {
    let unmap = |start: usize, len: usize| {
        // SAFETY: the range is part of the attachment, which the caller gives up.
        let _ = unsafe { rustix::mm::munmap(start as *mut c_void, len) };
    };
    let mut pieces = maps::pieces(attachment, unmap);
    // Looking takes a descriptor.
    while matches!(pieces, Err(Errno::MFILE)) && session.free_a_number() {
        pieces = maps::pieces(attachment, unmap);
    }
    let pieces = match pieces {
        Ok(pieces) => pieces,
        // None to be had. Better to fail than to unmap what may be the program's own by now.
        Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => {
            return Err(error.raw_os_error());
        }
        // No /proc to look at (chroot): what was attached there is what there is to unmap.
        Err(_) => {
            unmap(attachment.addr, attachment.len);
            1
        }
    };
    forget(session, attachment);
    if pieces == 0 {
        Err(libc::EINVAL)
    } else {
        Ok(())
    }
}

/// `shmctl(2)` of one segment; the commands that list are [`crate::listing`]'s.
///
/// # Safety
/// `real` is the C library's function.
#[inline]
pub unsafe fn ctl(real: ShmCtl, id: c_int, cmd: c_int, buf: *mut shmid_ds) -> c_int {
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
unsafe fn ctl_of_ours(real: ShmCtl, id: c_int, cmd: c_int, buf: *mut shmid_ds) -> c_int {
    let mut session = lock::enter();
    let instead = match resolve(&mut session, Kind::Shm, id) {
        Ok(Target::Routed(..)) => {
            let result = control(&mut session, id, cmd, buf);
            drop(session);
            return result.map_or_else(fail, |()| 0);
        }
        Ok(Target::Kernel(instead)) => instead,
        Err(error) => {
            drop(session);
            return fail(error);
        }
    };
    drop(session);
    // SAFETY: passed on as it came.
    let result = unsafe { real(id, cmd, buf) };
    left_to_kernel(id, result == -1, instead);
    result
}

fn control(session: &mut Session, id: c_int, cmd: c_int, buf: *mut shmid_ds) -> Result<(), c_int> {
    match cmd {
        libc::IPC_STAT => {
            let (reply, _) = session.call(about(Op::Stat, id))?;
            let ds = to_shmid_ds(&reply.body::<Stat>(), session.domid());
            if sys::write_user(buf, &ds) {
                Ok(())
            } else {
                Err(libc::EFAULT)
            }
        }
        libc::IPC_SET => {
            let ds = sys::read_user::<shmid_ds>(buf).ok_or(libc::EFAULT)?;
            let perm = ds.shm_perm;
            let (uid, gid, mode) = (perm.uid, perm.gid, u32::from(perm.mode) & 0o777);
            session
                .call(Request {
                    uid,
                    gid,
                    mode,
                    ..about(Op::Set, id)
                })
                .map(|_| ())
        }
        libc::IPC_RMID => {
            session.regions.drop_region(id);
            session.call(about(Op::Remove, id)).map(|_| ())
        }
        libc::SHM_LOCK | libc::SHM_UNLOCK => {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
            let size = limit.current.unwrap_or(u64::MAX);
            let arg = u32::from(cmd == libc::SHM_LOCK);
            session
                .call(Request {
                    size,
                    arg,
                    ..about(Op::Lock, id)
                })
                .map(|_| ())
        }
        _ => Err(libc::EINVAL),
    }
}

/// A segment as `IPC_STAT` shows it to a process of the domain `domid`: pids of other domains'
/// processes are 0, as the kernel shows those of another pid namespace.
pub fn to_shmid_ds(stat: &Stat, domid: u32) -> shmid_ds {
    let Stat { meta, usage } = stat;
    // SAFETY: all zero bytes are a valid shmid_ds, a plain C structure.
    let mut ds: shmid_ds = unsafe { std::mem::zeroed() };
    ds.shm_perm.__key = meta.key;
    ds.shm_perm.uid = meta.uid;
    ds.shm_perm.gid = meta.gid;
    ds.shm_perm.cuid = meta.cuid;
    ds.shm_perm.cgid = meta.cgid;
    let dest = if meta.state == State::Dest as u32 {
        MODE_DEST
    } else {
        0
    };
    ds.shm_perm.mode = (meta.mode | dest) as _;
    ds.shm_perm.__seq = (meta.id >> 15) as _;
    ds.shm_segsz = meta.size as size_t;
    ds.shm_atime = usage.atime / 1_000_000_000;
    ds.shm_dtime = usage.dtime / 1_000_000_000;
    ds.shm_ctime = meta.ctime;
    ds.shm_cpid = if meta.owner == domid { meta.cpid } else { 0 };
    ds.shm_lpid = if usage.lpid_domain == domid {
        usage.lpid
    } else {
        0
    };
    ds.shm_nattch = usage.nattch;
    ds
}
