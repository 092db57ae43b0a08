// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a child of `fork` has of its parent's mappings of other domains' memory: all of them, except in
//! a paravirtual guest of Xen, where it has none. There the child maps what was attached again, at
//! the same addresses, and forgets the sets and queues that were mapped: it maps each anew with the
//! first call on it.
//!
//! Which kind of guest it is, the first child finds out by a look. What was attached is mapped by the
//! grant list, which lies in memory that is inherited: it takes neither a descriptor nor `vshmemd`,
//! whatever the parent has closed. But for gntdev, which the child has to be able to open.
//!
//! What cannot be mapped again is not attached in the child. Its addresses stay taken: whoever uses
//! them all the same gets `SIGSEGV`, and not what came to lie there by chance.

use crate::attachments::{Again, Attachment};
use crate::maps;
use crate::message;
use crate::session::Session;
use crate::shm;
use rustix::io::Errno;
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap_anonymous, msync};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use vshmem_abi::PAGE_SIZE;
use vshmem_engine::mapping::{Device, FileId, Gntdev, GrantList, MapError, Place};

/// Whether children inherit such mappings, as far as it is known: [`YES`], [`NO`], or 0.
static INHERITED: AtomicU8 = AtomicU8::new(0);
const YES: u8 = 1;
const NO: u8 = 2;

static SAID_LOST: AtomicBool = AtomicBool::new(false);

/// How a child came about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Birth {
    /// By the C library's `fork`: nothing has run in it before us.
    Attended,
    /// Otherwise: it may have run for a while.
    Unattended,
}

/// In a child: makes up for what it has not inherited. Only those of its attachments count that are
/// mapped in the end.
pub fn make_up(session: &mut Session, birth: Birth) {
    let inherited = match INHERITED.load(Relaxed) {
        0 => find_out(session),
        known => Some(known == YES),
    };
    // Else there is nothing to inherit any more.
    let Some(inherited) = inherited else { return };
    INHERITED.store(if inherited { YES } else { NO }, Relaxed);
    if inherited {
        return;
    }
    session.sets.forget_grants();
    session.queues.forget_grants();
    let map = |session: &mut Session, attachment: &Attachment| {
        if let Some(again) = attachment.again {
            map_attachment(session, attachment, &again, birth);
        }
    };
    for attachment in session.attachments.iter().filter(|a| !a.overlaid) {
        map(session, &attachment);
    }
    // Those that others lie over come last, beginning with the uppermost: each gets what is left.
    let overlaid = |a: &Attachment, above: u64| a.overlaid && a.order < above;
    let mut above = u64::MAX;
    loop {
        let left = session.attachments.iter().filter(|a| overlaid(a, above));
        let Some(attachment) = left.max_by_key(|a| a.order) else {
            break;
        };
        above = attachment.order;
        map(session, &attachment);
    }
}

/// Looks for anything that was inherited; `None`: there is nothing that could have been.
fn find_out(session: &Session) -> Option<bool> {
    let attached = session.attachments.iter().filter(|a| a.again.is_some());
    let attached = attached.map(|a| (a.addr, a.len, a.file));
    let mut own = session.sets.grants().chain(session.queues.grants());
    let mut all = attached.chain(&mut own).peekable();
    all.peek()?;
    Some(all.any(|(at, len, file)| is_there(at, len, file)))
}

/// Whether a mapping of `file` is there.
fn is_there(at: usize, len: usize, file: FileId) -> bool {
    maps::has_file(at, at.saturating_add(len), file).unwrap_or_else(|_| {
        // No /proc. Whether anything at all is there: in a child that has not done anything, it is that.
        // SAFETY: changes nothing of the memory, whatever it is.
        let looked = unsafe { msync(at as *mut c_void, PAGE_SIZE as usize, MsyncFlags::ASYNC) };
        looked != Err(Errno::NOMEM)
    })
}

fn map_attachment(session: &mut Session, a: &Attachment, again: &Again, birth: Birth) {
    let mut mapped = map_again(&Gntdev, a, again, birth);
    while mapped == Err(MapError::Os(Errno::MFILE)) && session.free_a_number() {
        mapped = map_again(&Gntdev, a, again, birth);
    }
    match mapped {
        Ok(file) => session.attachments.change(a, |entry| entry.file = file),
        Err(error) => {
            message::say_once(
                &SAID_LOST,
                format_args!(
                    "a child process cannot use shared memory of another domain that it should have inherited: {error}"
                ),
            );
            shm::forget(session, a);
        }
    }
}

/// Maps an attachment again where it was, as far as nothing else is there; returns the file that it is
/// a mapping of now. If it fails nothing will come to lie there.
fn map_again(
    device: &impl Device,
    a: &Attachment,
    again: &Again,
    birth: Birth,
) -> Result<FileId, MapError> {
    // SAFETY: kept when the segment was attached; the attachment alone has it, and the lock is held.
    let mut list = unsafe { GrantList::take_up(again.list) };
    let place = Place::if_free(a.addr, again.prot);
    // SAFETY: nothing is replaced.
    let mut mapped = unsafe { list.map_region(device, place) }.map(|(_, file)| file);
    if mapped == Err(MapError::Os(Errno::EXIST)) && birth == Birth::Attended {
        // The program has put something of its own over a part, or attached something else there.
        mapped = map_gaps(device, &mut list, a, again);
    }
    if mapped.is_err() {
        let _ = for_gaps(a, |start, len| reserve(start, len).map_err(MapError::Os));
    }
    list.keep();
    mapped
}

fn map_gaps(
    device: &impl Device,
    list: &mut GrantList,
    a: &Attachment,
    again: &Again,
) -> Result<FileId, MapError> {
    let mut file = a.file;
    for_gaps(a, |start, len| {
        let pages = |bytes: usize| (bytes as u64 / PAGE_SIZE) as u32;
        let (first, count) = (pages(start - a.addr), pages(len));
        let place = Place::if_free(start, again.prot);
        // SAFETY: nothing is replaced.
        (_, file) = unsafe { list.map_pages(device, first, count, place) }?;
        Ok(())
    })?;
    Ok(file)
}

/// Calls `fill` with each part of the attachment's range in which nothing is mapped, until nothing is
/// left.
fn for_gaps(
    a: &Attachment,
    mut fill: impl FnMut(usize, usize) -> Result<(), MapError>,
) -> Result<(), MapError> {
    let end = a.addr.saturating_add(a.len);
    let mut from = a.addr;
    while let Some((start, len)) = maps::first_gap(from, end)? {
        fill(start, len)?;
        from = start + len;
    }
    Ok(())
}

/// Takes addresses, so that nothing comes to lie there.
fn reserve(at: usize, len: usize) -> Result<(), Errno> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
    // SAFETY: nothing is replaced.
    unsafe { mmap_anonymous(at as *mut c_void, len, ProtFlags::empty(), flags) }.map(|_| ())
}

#[cfg(test)]
mod tests;
