// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the port calls of Xen's libraries, made safe: handles that close themselves, pages that unmap
//! themselves.

use rustix::io::Errno;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use vshmem_abi::layout::Shared;
use vshmem_abi::{Domid, PAGE_SIZE};
use xen_gnttab_sys::LoadError;
use xen_gnttab_sys::xenevtchn::{XenEvtchn, xenevtchn_handle};
use xen_gnttab_sys::xengnttab::{
    __va_list_tag, XenGnttab, xengnttab_handle, xentoollog_level, xentoollog_logger,
};

/// Access to pages.
const READ: c_int = 1;
const WRITE: c_int = 2;
/// No event channel, or no byte, in calls that take one.
const NONE: u32 = u32::MAX;

/// Listens to libxengnttab, which else writes to standard error what its errno says too.
static SILENT: xentoollog_logger = xentoollog_logger {
    vmessage: Some(drop_message),
    progress: None,
    destroy: None,
};

unsafe extern "C" fn drop_message(
    _: *mut xentoollog_logger,
    _: xentoollog_level,
    _: c_int,
    _: *const c_char,
    _: *const c_char,
    _: *mut __va_list_tag,
) {
}

fn silent() -> *mut xentoollog_logger {
    // The library calls its functions and writes nothing to it.
    (&raw const SILENT).cast_mut()
}

fn errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// A handle of libxengnttab: of gntdev, or of gntalloc.
struct Handle {
    library: &'static XenGnttab,
    at: NonNull<xengnttab_handle>,
    close: unsafe extern "C" fn(*mut xengnttab_handle) -> c_int,
    unmap: unsafe extern "C" fn(*mut xengnttab_handle, *mut c_void, u32) -> c_int,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.at).finish()
    }
}

// SAFETY: the handle is a descriptor and a logger that does nothing; it belongs to no thread.
unsafe impl Send for Handle {}
// SAFETY: as above; its calls only read it.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: open, and nobody uses it any more.
        unsafe { (self.close)(self.at.as_ptr()) };
    }
}

/// Pages that are mapped, own ones that are granted or another domain's. Dropping them unmaps them; own
/// ones go with that, as soon as the other domain does not map them any more.
#[derive(Debug)]
pub(super) struct Pages {
    handle: Arc<Handle>,
    at: NonNull<c_void>,
    count: u32,
}

// SAFETY: shared memory, accessed by atomics only; it belongs to no thread.
unsafe impl Send for Pages {}

impl Pages {
    fn new(handle: &Arc<Handle>, at: *mut c_void, count: u32) -> Result<Self, Errno> {
        let at = NonNull::new(at).ok_or_else(errno)?;
        Ok(Self {
            handle: handle.clone(),
            at,
            count,
        })
    }

    /// The page at an index, as what lies in it; `None` behind the last.
    pub fn page<T: Shared>(&self, index: u32) -> Option<&T> {
        const { assert!(size_of::<T>() <= PAGE_SIZE as usize) };
        if index >= self.count {
            return None;
        }
        // SAFETY: a page of the mapping, which lives as long as `self`; atomics only, so that others
        // may write at any time; whoever wants to write one has mapped it for writing.
        unsafe {
            let page = self.at.byte_add(index as usize * PAGE_SIZE as usize);
            Some(page.cast::<T>().as_ref())
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, to which nothing refers any more.
        unsafe { (self.handle.unmap)(self.handle.at.as_ptr(), self.at.as_ptr(), self.count) };
    }
}

/// What is to happen when pages are unmapped, however that comes: a byte of them becomes 0, and then the
/// other end of an event channel is raised.
#[derive(Clone, Copy, Debug)]
pub(super) struct AtEnd {
    /// Offset of the byte.
    pub byte: u32,
    /// Port of the event channel.
    pub port: u32,
}

/// gntdev, by which pages of other domains are mapped.
#[derive(Debug)]
pub(super) struct Mapper(Arc<Handle>);

impl Mapper {
    /// Opens it.
    pub fn open() -> Result<Result<Self, Errno>, LoadError> {
        let library = xen_gnttab_sys::gnttab()?;
        // SAFETY: the logger is static, and there are no flags.
        let at = unsafe { library.xengnttab_open(silent(), 0) };
        Ok(NonNull::new(at).ok_or_else(errno).map(|at| {
            Self(Arc::new(Handle {
                library,
                at,
                close: library.xengnttab_close,
                unmap: library.xengnttab_unmap,
            }))
        }))
    }

    /// Maps a page that another domain granted, for reading.
    pub fn map(&self, owner: Domid, gref: u32) -> Result<Pages, Errno> {
        let Handle { library, at, .. } = *self.0;
        // SAFETY: an open handle; the mapping is new.
        let page = unsafe { library.xengnttab_map_grant_ref(at.as_ptr(), owner, gref, READ) };
        Pages::new(&self.0, page, 1)
    }

    /// The same for reading and writing, with something to happen at the end.
    pub fn map_until(&self, owner: Domid, gref: u32, end: AtEnd) -> Result<Pages, Errno> {
        let Handle { library, at, .. } = *self.0;
        // SAFETY: an open handle; the mapping is new.
        let page = unsafe {
            library.xengnttab_map_grant_ref_notify(
                at.as_ptr(),
                owner,
                gref,
                READ | WRITE,
                end.byte,
                end.port,
            )
        };
        Pages::new(&self.0, page, 1)
    }
}

/// gntalloc, by which pages are made that one other domain may map.
#[derive(Debug)]
pub(super) struct Sharer(Arc<Handle>);

impl Sharer {
    /// Opens it.
    pub fn open() -> Result<Result<Self, Errno>, LoadError> {
        let library = xen_gnttab_sys::gnttab()?;
        // SAFETY: the logger is static, and there are no flags.
        let at = unsafe { library.xengntshr_open(silent(), 0) };
        Ok(NonNull::new(at).ok_or_else(errno).map(|at| {
            Self(Arc::new(Handle {
                library,
                at,
                close: library.xengntshr_close,
                unmap: library.xengntshr_unshare,
            }))
        }))
    }

    /// Makes pages that domain `to` may read, with their references.
    pub fn share(&self, to: Domid, count: u32) -> Result<(Pages, Vec<u32>), Errno> {
        let Handle { library, at, .. } = *self.0;
        let mut grefs = vec![0; count as usize];
        let number = c_int::try_from(count).map_err(|_| Errno::NOSPC)?;
        // SAFETY: an open handle; there is room for so many references; the mapping is new.
        let pages = unsafe {
            library.xengntshr_share_pages(at.as_ptr(), to, number, grefs.as_mut_ptr(), 0)
        };
        Ok((Pages::new(&self.0, pages, count)?, grefs))
    }

    /// Makes a page that domain `to` may read and write, with something to happen at the end.
    pub fn share_until(&self, to: Domid, end: AtEnd) -> Result<(Pages, u32), Errno> {
        let Handle { library, at, .. } = *self.0;
        let mut gref = 0;
        // SAFETY: as above, for one reference.
        let page = unsafe {
            library.xengntshr_share_page_notify(
                at.as_ptr(),
                to,
                &raw mut gref,
                1,
                end.byte,
                end.port,
            )
        };
        Ok((Pages::new(&self.0, page, 1)?, gref))
    }
}

/// One event channel, with a handle of libxenevtchn of its own.
pub(super) struct Evtchn {
    library: &'static XenEvtchn,
    handle: NonNull<xenevtchn_handle>,
    port: u32,
}

impl fmt::Debug for Evtchn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Evtchn").field(&self.port).finish()
    }
}

// SAFETY: the handle is a descriptor and a logger; it belongs to no thread.
unsafe impl Send for Evtchn {}

impl Evtchn {
    /// Without a port yet: to see whether there is such a thing.
    pub fn open() -> Result<Result<Self, Errno>, LoadError> {
        let library = xen_gnttab_sys::evtchn()?;
        // SAFETY: no logger of ours and no flags.
        let handle = unsafe { library.xenevtchn_open(std::ptr::null_mut(), 0) };
        Ok(NonNull::new(handle).ok_or_else(errno).map(|handle| Self {
            library,
            handle,
            port: NONE,
        }))
    }

    /// A new one, which domain `remote` may bind to.
    pub fn unbound(remote: Domid) -> Result<Self, Errno> {
        let mut new = Self::open().map_err(|_| Errno::NODEV)??;
        let handle = new.handle.as_ptr();
        // SAFETY: an open handle.
        new.port = port(unsafe { new.library.xenevtchn_bind_unbound_port(handle, remote) })?;
        Ok(new)
    }

    /// The other end of the one that domain `remote` has made for this one.
    pub fn bound(remote: Domid, remote_port: u32) -> Result<Self, Errno> {
        let mut new = Self::open().map_err(|_| Errno::NODEV)??;
        let handle = new.handle.as_ptr();
        // SAFETY: an open handle.
        let bound = unsafe {
            new.library
                .xenevtchn_bind_interdomain(handle, remote, remote_port)
        };
        new.port = port(bound)?;
        Ok(new)
    }

    /// Its port in this domain.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Its descriptor, which polls readable when the other end has raised it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the handle is open as long as `self`, and its descriptor with it.
        unsafe {
            let fd: RawFd = self.library.xenevtchn_fd(self.handle.as_ptr());
            BorrowedFd::borrow_raw(fd)
        }
    }

    /// Raises the other end.
    pub fn notify(&self) -> Result<(), Errno> {
        // SAFETY: an open handle.
        let done = unsafe {
            self.library
                .xenevtchn_notify(self.handle.as_ptr(), self.port)
        };
        if done == 0 { Ok(()) } else { Err(errno()) }
    }

    /// Takes what has come; only when the descriptor is readable, else it waits.
    pub fn take(&self) -> Result<(), Errno> {
        let handle = self.handle.as_ptr();
        // SAFETY: an open handle.
        let port = port(unsafe { self.library.xenevtchn_pending(handle) })?;
        // SAFETY: as above; the port is the one that was just read.
        unsafe { self.library.xenevtchn_unmask(handle, port) };
        Ok(())
    }
}

impl Drop for Evtchn {
    fn drop(&mut self) {
        // SAFETY: open, and nobody uses it any more; its port is closed with it.
        unsafe { self.library.xenevtchn_close(self.handle.as_ptr()) };
    }
}

fn port(number: c_int) -> Result<c_uint, Errno> {
    c_uint::try_from(number).map_err(|_| errno())
}
