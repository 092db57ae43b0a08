// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real XenStore, over Xen's own libxenstore. All that is unsafe about it is here.

use super::{Event, Others, XenStore};
use rustix::io::Errno;
use std::ffi::{CStr, CString, c_char, c_uint, c_void};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use vshmem_abi::Domid;
use xen_gnttab_sys::xenstore::{
    self as sys, XBT_NULL, xs_handle, xs_permissions, xs_transaction_t,
};

/// How often a transaction is tried that others get in the way of. A guest that reads its messages
/// meanwhile does so a few times.
const TRIES: u32 = 1000;

/// Why there is no connection to XenStore.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// libxenstore cannot be loaded.
    #[error(transparent)]
    Library(#[from] xen_gnttab_sys::LoadError),
    /// It finds no XenStore.
    #[error(
        "cannot reach XenStore ({0}): this is to be dom0 with xenstored running, or a Xen guest with \
         /dev/xen/xenbus (modprobe xenfs, or a kernel with CONFIG_XENFS), and to be run by root"
    )]
    Unreachable(Errno),
}

/// A connection through libxenstore: to dom0's socket, or else through the guest's device.
pub struct Library {
    table: &'static sys::XenStore,
    handle: NonNull<xs_handle>,
}

impl Library {
    /// Connects.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open() -> Result<Self, OpenError> {
        let table = xen_gnttab_sys::store()?;
        // SAFETY: takes flags only.
        let handle = unsafe { (table.xs_open)(0) };
        let handle = NonNull::new(handle).ok_or_else(|| OpenError::Unreachable(last()))?;
        let connection = Self { table, handle };
        // The descriptor is made at the first call, which may fail; later it is what it was.
        // SAFETY: the handle is open.
        match unsafe { (table.xs_fileno)(handle.as_ptr()) } {
            -1 => Err(OpenError::Unreachable(last())),
            _ => Ok(connection),
        }
    }

    fn read_in(&self, transaction: xs_transaction_t, path: &str) -> Result<Vec<u8>, Errno> {
        let mut len: c_uint = 0;
        // SAFETY: handle and path live through the call, which fills in `len`.
        let value = self.with(path, |handle, path| unsafe {
            (self.table.xs_read)(handle, transaction, path, &raw mut len)
        })?;
        // SAFETY: the result is the caller's to free.
        let value = unsafe { Allocated::new(value.cast::<u8>()) }?;
        // SAFETY: `len` bytes are there.
        let bytes = unsafe { std::slice::from_raw_parts(value.0.as_ptr(), len as usize) };
        Ok(bytes.to_vec())
    }

    fn write_in(
        &self,
        transaction: xs_transaction_t,
        path: &str,
        value: &[u8],
    ) -> Result<(), Errno> {
        let len = c_uint::try_from(value.len()).map_err(|_| Errno::TOOBIG)?;
        let data: *const c_void = value.as_ptr().cast();
        // SAFETY: handle, path and the `len` bytes at `data` live through the call.
        done(self.with(path, |handle, path| unsafe {
            (self.table.xs_write)(handle, transaction, path, data, len)
        })?)
    }

    /// `EAGAIN`: something that was read or written has been changed by somebody else meanwhile.
    fn try_write_while(&self, witness: &str, path: &str, value: &[u8]) -> Result<(), Errno> {
        let handle = self.handle.as_ptr();
        // SAFETY: the handle is open.
        let transaction = unsafe { (self.table.xs_transaction_start)(handle) };
        if transaction == XBT_NULL {
            return Err(last());
        }
        let written = self
            .read_in(transaction, witness)
            .and_then(|_| self.write_in(transaction, path, value));
        // SAFETY: the transaction is the one that was begun, and ends here.
        let ended =
            done(unsafe { (self.table.xs_transaction_end)(handle, transaction, written.is_err()) });
        written.and(ended)
    }

    /// For a path that is passed to the library.
    fn with<T>(
        &self,
        path: &str,
        call: impl FnOnce(*mut xs_handle, *const c_char) -> T,
    ) -> Result<T, Errno> {
        let path = CString::new(path).map_err(|_| Errno::INVAL)?;
        Ok(call(self.handle.as_ptr(), path.as_ptr()))
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and nobody has it any more.
        unsafe { (self.table.xs_close)(self.handle.as_ptr()) }
    }
}

/// What the library allocated, to be freed.
struct Allocated<T>(NonNull<T>);

impl<T> Allocated<T> {
    /// # Safety
    /// `from` is null, or from `malloc` and nobody else's.
    unsafe fn new(from: *mut T) -> Result<Self, Errno> {
        NonNull::new(from).map(Self).ok_or_else(last)
    }
}

impl<T> Drop for Allocated<T> {
    fn drop(&mut self) {
        // SAFETY: from malloc, as `new` was promised.
        unsafe { libc::free(self.0.as_ptr().cast()) }
    }
}

impl XenStore for Library {
    fn read(&self, path: &str) -> Result<Vec<u8>, Errno> {
        self.read_in(XBT_NULL, path)
    }

    fn write(&self, path: &str, value: &[u8]) -> Result<(), Errno> {
        self.write_in(XBT_NULL, path, value)
    }

    fn write_while(&self, witness: &str, path: &str, value: &[u8]) -> Result<(), Errno> {
        for _ in 0..TRIES {
            match self.try_write_while(witness, path, value) {
                Err(Errno::AGAIN) => {}
                done => return done,
            }
        }
        Err(Errno::AGAIN)
    }

    fn rm(&self, path: &str) -> Result<(), Errno> {
        // SAFETY: handle and path live through the call.
        let removed = self.with(path, |handle, path| unsafe {
            (self.table.xs_rm)(handle, XBT_NULL, path)
        })?;
        match done(removed) {
            // Nor is there what it would be in.
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    fn directory(&self, path: &str) -> Result<Vec<String>, Errno> {
        let mut count: c_uint = 0;
        // SAFETY: handle and path live through the call, which fills in `count`.
        let names = self.with(path, |handle, path| unsafe {
            (self.table.xs_directory)(handle, XBT_NULL, path, &raw mut count)
        })?;
        // SAFETY: the result, an array with its strings in one allocation, is the caller's to free.
        let names = unsafe { Allocated::new(names) }?;
        // SAFETY: `count` strings are there.
        let names = unsafe { std::slice::from_raw_parts(names.0.as_ptr(), count as usize) };
        // SAFETY: each is a string that lives as long as `names`.
        Ok(names.iter().map(|&name| unsafe { owned(name) }).collect())
    }

    fn set_permissions(&self, path: &str, owner: Domid, others: Others) -> Result<(), Errno> {
        let mut permissions = xs_permissions {
            id: owner,
            perms: match others {
                Others::Nothing => sys::XS_PERM_NONE,
                Others::Read => sys::XS_PERM_READ,
            },
        };
        // SAFETY: handle, path and the one entry live through the call.
        done(self.with(path, |handle, path| unsafe {
            (self.table.xs_set_permissions)(handle, XBT_NULL, path, &raw mut permissions, 1)
        })?)
    }

    fn watch(&self, path: &str, token: &str) -> Result<(), Errno> {
        let token = CString::new(token).map_err(|_| Errno::INVAL)?;
        // SAFETY: handle, path and token live through the call.
        done(self.with(path, |handle, path| unsafe {
            (self.table.xs_watch)(handle, path, token.as_ptr())
        })?)
    }

    fn unwatch(&self, path: &str, token: &str) -> Result<(), Errno> {
        let token = CString::new(token).map_err(|_| Errno::INVAL)?;
        // SAFETY: as above.
        done(self.with(path, |handle, path| unsafe {
            (self.table.xs_unwatch)(handle, path, token.as_ptr())
        })?)
    }

    fn next_event(&self) -> Result<Option<Event>, Errno> {
        // SAFETY: the handle is open.
        let event = unsafe { (self.table.xs_check_watch)(self.handle.as_ptr()) };
        // SAFETY: the result, an array with its strings in one allocation, is the caller's to free.
        let event = match unsafe { Allocated::new(event) } {
            Ok(event) => event,
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        // SAFETY: path and token (XS_WATCH_PATH 0, XS_WATCH_TOKEN 1) are strings that live as long
        // as `event`.
        let text = |at| unsafe { owned(*event.0.as_ptr().add(at)) };
        Ok(Some(Event {
            path: text(0),
            token: text(1),
        }))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the handle is open; its descriptor was made in `open`, and stays until it is closed,
        // which the borrow keeps from happening.
        unsafe { BorrowedFd::borrow_raw((self.table.xs_fileno)(self.handle.as_ptr())) }
    }
}

fn done(succeeded: bool) -> Result<(), Errno> {
    if succeeded { Ok(()) } else { Err(last()) }
}

/// Why the last call failed.
fn last() -> Errno {
    let error = std::io::Error::last_os_error();
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// # Safety
/// `text` is a string of C's.
unsafe fn owned(text: *const c_char) -> String {
    // SAFETY: as promised.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}
